/* SPDX-License-Identifier: MIT */
/* Sentences for whoever runs the command, on its standard error. */
#ifndef PRELOAD_SAY_H
#define PRELOAD_SAY_H

#include <quiesce/base.h>

/* "quiesce: ", the sentence, and a newline, in one write. */
void pl_say(const char *fmt, ...) QSC_PRINTF(1, 2);

/* What would otherwise be said at every call. */
enum pl_say_what { PL_SAY_FORK, PL_SAY_OWNER, PL_SAY_SOCKET, PL_SAY_TRACE, PL_SAY_COUNT };
void pl_say_once(enum pl_say_what what, const char *fmt, ...) QSC_PRINTF(2, 3);

#endif
