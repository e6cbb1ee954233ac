/* SPDX-License-Identifier: MIT */
/*
 * A clause of the contract as a check: one function that sees nothing but the device interface and
 * the harness around it, and says whether the device keeps that clause, with the evidence. Nothing
 * here knows which device it looks at.
 */
#ifndef CHECK_CLAUSE_H
#define CHECK_CLAUSE_H

#include <quiesce/check.h>
#include <quiesce/contract.h>

#include "check/harness.h"

struct clause_check {
	enum qsc_clause clause;
	/* Evidence goes to h->evidence. The harness is closed when it is called. */
	enum qsc_check_result (*run)(struct harness *h);
};

/* Ended by an entry with run NULL. */
extern const struct clause_check state_checks[];
extern const struct clause_check arc_checks[];
extern const struct clause_check sess_checks[];
extern const struct clause_check load_checks[];
extern const struct clause_check dev_checks[];
extern const struct clause_check log_checks[];

/* The check of a clause, or NULL. */
const struct clause_check *clause_find(enum qsc_clause clause);

/* What a check returns; the text becomes the evidence. */
enum qsc_check_result holds(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum qsc_check_result broken(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum qsc_check_result not_promised(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);
enum qsc_check_result not_tried(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);

/* A step that another clause answers for: when it fails, this clause was not tried. */
#define REQUIRE(h, call)                                           \
	do {                                                       \
		if ((call) < 0)                                    \
			return not_tried((h), "%s", (h)->trouble); \
	} while (0)

/* Only a device that can be made to work shows this. */
#define NEED_WORK(h)                                        \
	do {                                                \
		const char *idle_ = harness_idle(h);        \
		if (idle_)                                  \
			return not_tried((h), "%s", idle_); \
	} while (0)

/* What the clause says. */
#define MUST(h, condition, ...)                          \
	do {                                             \
		if (!(condition))                        \
			return broken((h), __VA_ARGS__); \
	} while (0)

/* A part of a check: anything but QSC_CHECK_HOLDS ends the whole. */
#define PART(call)                                    \
	do {                                          \
		enum qsc_check_result part_ = (call); \
		if (part_ != QSC_CHECK_HOLDS)         \
			return part_;                 \
	} while (0)

#endif
