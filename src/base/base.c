/* SPDX-License-Identifier: MIT */
/* Errors, the log sink and the version: see <quiesce/base.h>. */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <quiesce/base.h>

#include "base/log.h"

int qsc_error_set(struct qsc_error *err, int number, const char *clause, const char *fmt, ...)
{
	va_list args;

	if (!err)
		return -number;
	err->number = number;
	err->clause = clause;
	va_start(args, fmt);
	(void)vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	return -number;
}

void qsc_error_prefix(struct qsc_error *err, const char *fmt, ...)
{
	char text[QSC_ERROR_TEXT_SIZE];
	va_list args;
	size_t used;
	int n;

	if (!err || !err->number)
		return;
	va_start(args, fmt);
	n = vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (n < 0)
		return;
	used = (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
	(void)snprintf(text + used, sizeof(text) - used, "%s", err->text);
	memcpy(err->text, text, sizeof(text));
}

static qsc_log_fn *log_sink;
static void *log_ctx;
static _Atomic int log_level = -1;

void qsc_log_set(qsc_log_fn *fn, void *ctx, enum qsc_log_level level)
{
	log_sink = fn;
	log_ctx = ctx;
	atomic_store(&log_level, fn ? (int)level : -1);
}

void qsc_log(enum qsc_log_level level, const char *fmt, ...)
{
	char line[QSC_ERROR_TEXT_SIZE];
	va_list args;

	if ((int)level > atomic_load_explicit(&log_level, memory_order_acquire))
		return;
	va_start(args, fmt);
	(void)vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	log_sink(log_ctx, level, line);
}

const char *qsc_version(void)
{
	return QSC_VERSION;
}
