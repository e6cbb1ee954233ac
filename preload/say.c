/* SPDX-License-Identifier: MIT */
/* See say.h. */
#include "say.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool said[PL_SAY_COUNT];

static void say(const char *fmt, va_list list)
{
	char line[QSC_ERROR_TEXT_SIZE + 64] = "quiesce: ";
	size_t used = strlen(line);
	int size = vsnprintf(line + used, sizeof(line) - used - 1, fmt, list);

	if (size < 0)
		return;
	used += (size_t)size < sizeof(line) - used - 1 ? (size_t)size : sizeof(line) - used - 2;
	line[used++] = '\n';
	(void)!syscall(SYS_write, STDERR_FILENO, line, used);
}

void pl_say(const char *fmt, ...)
{
	va_list list;

	va_start(list, fmt);
	say(fmt, list);
	va_end(list);
}

void pl_say_once(enum pl_say_what what, const char *fmt, ...)
{
	va_list list;

	if (atomic_exchange(&said[what], true))
		return;
	va_start(list, fmt);
	say(fmt, list);
	va_end(list);
}
