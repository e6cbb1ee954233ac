/* SPDX-License-Identifier: MIT */
/* See predict.h. */
#include <quiesce/migrate.h>

#include "base/cleanup.h"

const char *qsc_downtime_part_name(enum qsc_downtime_part part)
{
	static const char *const names[QSC_DOWNTIME_PARTS] = {
		"pause", "quiesce", "stop", "collect", "transfer", "load", "commit", "run",
	};

	return (unsigned int)part < QSC_ARRAY_SIZE(names) ? names[part] : "?";
}
