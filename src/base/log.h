/* SPDX-License-Identifier: MIT */
/* Writing to the log sink that <quiesce/base.h> lets a program set. */
#ifndef QSC_BASE_LOG_H
#define QSC_BASE_LOG_H

#include <quiesce/base.h>

/* One line, without newline. Costs a load when nobody listens at that level. */
void qsc_log(enum qsc_log_level level, const char *fmt, ...) QSC_PRINTF(2, 3);

#endif
