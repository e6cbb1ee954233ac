/* SPDX-License-Identifier: MIT */
/*
 * A clause of the contract as a test: one function that sees nothing but the device interface (and
 * what a harness owns: memory, eventfds, a way to open the device again) and says whether the
 * device keeps that clause, with the evidence. Nothing here knows which device it looks at.
 */
#ifndef CLAUSES_CLAUSE_H
#define CLAUSES_CLAUSE_H

#include <quiesce/contract.h>

#include "harness.h"

enum clause_result {
	CLAUSE_HOLDS,
	CLAUSE_BROKEN,
	CLAUSE_NOT_PROMISED, /* the device lacks the capability that the clause speaks about */
	CLAUSE_NOT_TRIED,    /* something else was in the way; the text says what */
};

struct clause_test {
	enum qsc_clause clause;
	/* Evidence goes to h->evidence. The harness is closed when it is called. */
	enum clause_result (*run)(struct harness *h);
};

/* Ended by an entry with run NULL. */
extern const struct clause_test state_tests[];
extern const struct clause_test arc_tests[];
extern const struct clause_test sess_tests[];
extern const struct clause_test load_tests[];
extern const struct clause_test dev_tests[];
extern const struct clause_test log_tests[];

const char *clause_result_name(enum clause_result result);

/* The test of a clause, or NULL. */
const struct clause_test *clause_find(enum qsc_clause clause);

/* Run one test from a closed harness to a closed harness. */
enum clause_result clause_run(const struct clause_test *test, struct harness *h);

/* What a test function returns; the text becomes the evidence. */
enum clause_result holds(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum clause_result broken(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum clause_result not_promised(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum clause_result not_tried(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);

/* A step that another clause answers for: when it fails, this clause was not tried. */
#define REQUIRE(h, call)                                           \
	do {                                                       \
		if ((call) < 0)                                    \
			return not_tried((h), "%s", (h)->trouble); \
	} while (0)

/* What the clause says. */
#define MUST(h, condition, ...)                          \
	do {                                             \
		if (!(condition))                        \
			return broken((h), __VA_ARGS__); \
	} while (0)

/* A part of a test: anything but CLAUSE_HOLDS ends the whole. */
#define PART(call)                                 \
	do {                                       \
		enum clause_result part_ = (call); \
		if (part_ != CLAUSE_HOLDS)         \
			return part_;              \
	} while (0)

#endif
