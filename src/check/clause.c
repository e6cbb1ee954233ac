/* SPDX-License-Identifier: MIT */
/* The checks by clause, and what they return. */
#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "check/clause.h"

static const struct clause_check *const groups[] = {state_checks, arc_checks, sess_checks,
						    load_checks,  dev_checks, log_checks};

const struct clause_check *clause_find(enum qsc_clause clause)
{
	for (size_t g = 0; g < QSC_ARRAY_SIZE(groups); g++)
		for (const struct clause_check *check = groups[g]; check->run; check++)
			if (check->clause == clause)
				return check;
	return NULL;
}

static void evidence(struct harness *h, const char *fmt, va_list ap)
{
	(void)vsnprintf(h->evidence, sizeof(h->evidence), fmt, ap);
	/* What is done from here on shows nothing. */
	record_freeze(&h->record);
}

#define RESULT(name, value)                                                 \
	enum qsc_check_result name(struct harness *h, const char *fmt, ...) \
	{                                                                   \
		va_list ap;                                                 \
                                                                            \
		va_start(ap, fmt);                                          \
		evidence(h, fmt, ap);                                       \
		va_end(ap);                                                 \
		return value;                                               \
	}

RESULT(holds, QSC_CHECK_HOLDS)
RESULT(broken, QSC_CHECK_BROKEN)
RESULT(not_promised, QSC_CHECK_NOT_PROMISED)
RESULT(not_tried, QSC_CHECK_NOT_TRIED)
