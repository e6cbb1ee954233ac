/* SPDX-License-Identifier: MIT */
/* Results for a test harness to read: the Test Anything Protocol. */
#ifndef CLAUSES_TAP_H
#define CLAUSES_TAP_H

#include <stdbool.h>

#include <quiesce/base.h>

/* "ok 7 - …" or "not ok 7 - …". */
void tap_result(bool ok, const char *fmt, ...) QSC_PRINTF(2, 3);
/* "# …" */
void tap_note(const char *fmt, ...) QSC_PRINTF(1, 2);
/* "1..n" at the end; what main() returns. */
int tap_end(void);

#endif
