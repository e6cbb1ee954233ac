/* SPDX-License-Identifier: MIT */
/* See device.h. */
#include "device.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <quiesce/client.h>

#include "models.h"
#include "tool.h"

int tool_open_device(const char *uri, struct qsc_device **dev, struct qsc_error *err)
{
	int result;

	if (!strncmp(uri, "model:", 6)) {
		result = models_open(uri + 6, NULL, dev, err);
		if (result == -EINVAL)
			tool_usage("%s", err->text);
		return result;
	}
	if (strncmp(uri, "vfio-user:", 10) != 0)
		tool_usage("'%s' is no device; a device is " TOOL_URI_FORMS, uri);
	if (!uri[10])
		tool_usage("'%s' names no socket", uri);
	return qsc_client_open(uri, NULL, dev, err);
}

static void print_line(void *ctx, enum qsc_log_level level, const char *line)
{
	static const char *const levels[] = {
		[QSC_LOG_ERROR] = "error: ",
		[QSC_LOG_WARNING] = "warning: ",
		[QSC_LOG_INFO] = "",
		[QSC_LOG_DEBUG] = "debug: ",
	};

	(void)ctx;
	(void)fprintf(stderr, "%s: %s%s\n", tool_name, levels[level], line);
}

void tool_log_to_stderr(enum qsc_log_level level)
{
	qsc_log_set(print_line, NULL, level);
}
