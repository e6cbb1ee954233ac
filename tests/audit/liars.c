/* SPDX-License-Identifier: MIT */
/*
 * For every clause that binds a user or a set, a user who breaks just that one must be caught by
 * its name and by no other; one who keeps them all must not be. With --rst it prints the table of
 * the manual, which a test compares with the one that stands there.
 */
#include <stdio.h>
#include <string.h>

#include "user.h"

struct liar {
	enum user_lie lie;
	enum qsc_finding_kind kind;
	enum qsc_clause clause; /* QSC_CLAUSE_COUNT: a row of the allowed list */
	uint32_t flags;
	const char *what;
};

#define VIOLATION QSC_FINDING_VIOLATION
#define STRETCH	  QSC_FINDING_STRETCH

static const struct liar liars[] = {
	{LIE_STOP_FIRST, VIOLATION, QSC_CLAUSE_SET_1, 7,
	 "stops a device while the one that writes to it still runs"},
	{LIE_RUN_EARLY, VIOLATION, QSC_CLAUSE_SET_2, 7,
	 "starts a loaded device while the other has not left STOP"},
	{LIE_NOT_REVOKED, VIOLATION, QSC_CLAUSE_SET_3, 5,
	 "stops a device without P2P states that still reaches a peer"},
	{LIE_NOT_RESTORED, VIOLATION, QSC_CLAUSE_SET_4, 5,
	 "takes a peer mapping away, rolls back and does not put it back"},
	{LIE_TWO_OWNERS, VIOLATION, QSC_CLAUSE_SET_5, 7,
	 "lets the source run again when the destination runs"},
	{LIE_REGISTER_STOPPED, VIOLATION, QSC_CLAUSE_ORD_1, 7, "reads a register in STOP_COPY"},
	{LIE_REGISTER_P2P, STRETCH, QSC_CLAUSE_ORD_1, 7, "reads a register in a P2P state"},
	{LIE_IRQS_LATE, VIOLATION, QSC_CLAUSE_ORD_2, 7,
	 "sets interrupts up after the loaded device has been started"},
	{LIE_IRQS_RESUMING, STRETCH, QSC_CLAUSE_ORD_2, 7, "sets interrupts up in RESUMING"},
	{LIE_DMA_LATE, VIOLATION, QSC_CLAUSE_ORD_3, 7,
	 "maps memory after the loaded device has left STOP"},
	{LIE_GUESS, VIOLATION, QSC_CLAUSE_ORD_4, 7,
	 "requests another state after a failed request, without a look"},
	{LIE_GUESS_REGISTER, VIOLATION, QSC_CLAUSE_ORD_4, 7,
	 "reads state data after a failed request, without a look"},
	{LIE_GIVE_UP_EARLY, VIOLATION, QSC_CLAUSE_ORD_5, 7,
	 "lets the source go before the destination has validated"},
	{LIE_RESET_EARLY, VIOLATION, QSC_CLAUSE_ORD_5, 7,
	 "resets the sources before the destination has validated"},
	{LIE_GIVE_UP_REFUSED, VIOLATION, QSC_CLAUSE_ORD_5, 1,
	 "lets the source go, and the destination refuses the stream"},
	{LIE_LEAVE_PRECOPY, VIOLATION, QSC_CLAUSE_ORD_6, 7,
	 "leaves pre-copy with initial data unread"},
	{LIE_LEAVE_PRECOPY_BLIND, VIOLATION, QSC_CLAUSE_ORD_6, 7,
	 "leaves pre-copy without asking for initial data"},
	{LIE_NO_LOG, VIOLATION, QSC_CLAUSE_ORD_7, 7, "saves a running device without dirty log"},
	{LIE_LOG_PART, VIOLATION, QSC_CLAUSE_ORD_7, 7, "logs half of the memory"},
	{LIE_LOG_UNREAD, VIOLATION, QSC_CLAUSE_ORD_7, 7,
	 "does not read the log after the device has stopped"},
	{LIE_RESET_RUN, VIOLATION, QSC_CLAUSE_ORD_8, 7,
	 "resets a destination that refused the stream, and uses it"},
	{LIE_RESET_RUN_SOURCE, VIOLATION, QSC_CLAUSE_ORD_8, 7,
	 "resets a source whose request failed, and uses it"},
	{LIE_ABANDON, VIOLATION, QSC_CLAUSE_ORD_9, 7, "lets a device go in RESUMING"},
	{LIE_CONFIG_RESUMING, STRETCH, QSC_CLAUSE_COUNT, 7, "writes config space in RESUMING"},
	{LIE_READ_ENDED, QSC_FINDING_REFUSED, QSC_CLAUSE_COUNT, 7,
	 "reads state data after its session has ended"},
};

#define NUM_LIARS (sizeof(liars) / sizeof(liars[0]))

static const uint32_t flag_sets[] = {1, 3, 5, 7};

static unsigned int failures;

static const char *clause_name(enum qsc_clause clause)
{
	return clause == QSC_CLAUSE_COUNT ? "list" : qsc_clause_id(clause);
}

static void print_finding(const struct qsc_finding *f)
{
	printf("# found %s %s: %s %s\n", qsc_finding_kind_name(f->kind), clause_name(f->clause),
	       f->device, f->text);
	for (uint32_t i = 0; i < f->num_context; i++)
		printf("#   %s\n", f->context[i]);
}

/* Everything that was found is this; false when nothing was, or something else. */
static bool only(struct qsc_audit *audit, const struct liar *liar)
{
	bool good = qsc_audit_count(audit) > 0;
	struct qsc_finding f;

	for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++) {
		bool due = liar && f.kind == liar->kind && f.clause == liar->clause &&
			   f.count >= 1 && (f.num_context > 0) && f.consequence;

		good &= due;
		if (!due)
			print_finding(&f);
	}
	return good;
}

static bool caught(const struct liar *liar, enum qsc_audit_profile profile, bool *silent)
{
	struct qsc_audit *audit;
	bool good;
	int result;

	if (qsc_audit_create(profile, &audit) < 0)
		return false;
	result = user_move(audit, liar->flags, liar->lie);
	if (result < 0)
		printf("# '%s': a device answered otherwise at user.c:%d\n", liar->what, -result);
	*silent = !result && !qsc_audit_count(audit);
	good = !result && (*silent || only(audit, liar));
	qsc_audit_destroy(audit);
	return good;
}

static void test_liar(unsigned int number, const struct liar *liar)
{
	bool silent = false;
	bool good = caught(liar, QSC_AUDIT_STRICT, &silent) && !silent;

	/* The other profile says the same but of what the list tolerates. */
	good = good && caught(liar, QSC_AUDIT_LINUX, &silent) && silent == (liar->kind == STRETCH);
	failures += !good;
	printf("%s %u - %s %s: %s\n", good ? "ok" : "not ok", number, clause_name(liar->clause),
	       qsc_finding_kind_name(liar->kind), liar->what);
}

static void test_honest(unsigned int number, uint32_t flags)
{
	struct qsc_audit_totals totals = {0};
	struct qsc_audit *audit;
	int result = -1;

	if (!qsc_audit_create(QSC_AUDIT_STRICT, &audit)) {
		result = user_move(audit, flags, LIE_NONE);
		qsc_audit_totals(audit, &totals);
		if (!result && (qsc_audit_count(audit) || totals.moves != 2)) {
			(void)only(audit, NULL);
			result = -1;
		}
		qsc_audit_destroy(audit);
	}
	failures += result != 0;
	printf("%s %u - honest with flags %u: %llu actions, %llu moves (%d)\n",
	       result ? "not ok" : "ok", number, flags, (unsigned long long)totals.actions,
	       (unsigned long long)totals.moves, result);
}

/* Every clause that binds a user or a set has its liar. */
static void test_complete(unsigned int number)
{
	bool good = true;

	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		bool has = qsc_clause_info((enum qsc_clause)c)->binds == QSC_PARTY_DEVICE;

		for (size_t i = 0; i < NUM_LIARS && !has; i++)
			has = liars[i].clause == (enum qsc_clause)c && liars[i].kind == VIOLATION;
		if (!has)
			printf("# %s has no liar\n", qsc_clause_id((enum qsc_clause)c));
		good &= has;
	}
	failures += !good;
	printf("%s %u - every clause of users and sets has a liar\n", good ? "ok" : "not ok",
	       number);
}

static int print_table(void)
{
	printf(".. list-table::\n   :header-rows: 1\n   :widths: 12 58 15 15\n\n"
	       "   * - clause\n     - a user who\n     - named as\n     - caught\n");
	for (size_t i = 0; i < NUM_LIARS; i++) {
		const struct liar *liar = &liars[i];
		bool silent = false;
		bool good = caught(liar, QSC_AUDIT_STRICT, &silent) && !silent;

		if (liar->clause == QSC_CLAUSE_COUNT)
			printf("   * - allowed list\n");
		else
			printf("   * - :term:`%s`\n", qsc_clause_id(liar->clause));
		printf("     - %s\n     - %s\n     - %s\n", liar->what,
		       qsc_finding_kind_name(liar->kind), good ? "yes" : "no");
		failures += !good;
	}
	return failures != 0;
}

int main(int argc, char **argv)
{
	unsigned int number = 0;

	if (argc > 1 && !strcmp(argv[1], "--rst"))
		return print_table();
	printf("1..%zu\n", NUM_LIARS + 5);
	for (size_t i = 0; i < NUM_LIARS; i++)
		test_liar(++number, &liars[i]);
	for (size_t i = 0; i < 4; i++)
		test_honest(++number, flag_sets[i]);
	test_complete(++number);
	return failures != 0;
}
