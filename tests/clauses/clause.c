/* SPDX-License-Identifier: MIT */
/* The tests by clause, and how one is run. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "clause.h"

static const struct clause_test *const groups[] = {state_tests, arc_tests, sess_tests,
						   load_tests,	dev_tests, log_tests};

const char *clause_result_name(enum clause_result result)
{
	static const char *const names[] = {"holds", "broken", "not promised", "not tried"};

	return names[result];
}

const struct clause_test *clause_find(enum qsc_clause clause)
{
	for (size_t g = 0; g < sizeof(groups) / sizeof(groups[0]); g++)
		for (const struct clause_test *test = groups[g]; test->run; test++)
			if (test->clause == clause)
				return test;
	return NULL;
}

/* The device is left as a user should leave it, whatever the test has done. */
enum clause_result clause_run(const struct clause_test *test, struct harness *h)
{
	enum clause_result result;

	h->evidence[0] = '\0';
	h->trouble[0] = '\0';
	result = test->run(h);
	if (h->dev)
		qsc_device_reset(h->dev);
	harness_close(h);
	return result;
}

static void evidence(struct harness *h, const char *fmt, va_list ap)
{
	vsnprintf(h->evidence, sizeof(h->evidence), fmt, ap);
}

#define RESULT(name, value)                                              \
	enum clause_result name(struct harness *h, const char *fmt, ...) \
	{                                                                \
		va_list ap;                                              \
                                                                         \
		va_start(ap, fmt);                                       \
		evidence(h, fmt, ap);                                    \
		va_end(ap);                                              \
		return value;                                            \
	}

RESULT(holds, CLAUSE_HOLDS)
RESULT(broken, CLAUSE_BROKEN)
RESULT(not_promised, CLAUSE_NOT_PROMISED)
RESULT(not_tried, CLAUSE_NOT_TRIED)
