/* SPDX-License-Identifier: MIT */
/*
 * The contract's tables against forms of the same rules that share nothing with them: the next step
 * against a breadth-first search over the direct arcs, the allowed list against rules written
 * column by column. Both exhaustive.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include <quiesce/contract.h>

#include "contract/set_rules.h"

#define NUMBERS 10 /* every state and two numbers that are none */

struct arc {
	enum qsc_state from, to;
	uint32_t with, without; /* flags that it needs, and that it must not meet */
};

#define P2P QSC_MIGRATION_P2P
#define PRE QSC_MIGRATION_PRE_COPY

static const struct arc arcs[] = {
	{QSC_STATE_STOP, QSC_STATE_RESUMING, 0, 0},
	{QSC_STATE_RESUMING, QSC_STATE_STOP, 0, 0},
	{QSC_STATE_STOP, QSC_STATE_STOP_COPY, 0, 0},
	{QSC_STATE_STOP_COPY, QSC_STATE_STOP, 0, 0},
	{QSC_STATE_RUNNING, QSC_STATE_STOP, 0, P2P},
	{QSC_STATE_STOP, QSC_STATE_RUNNING, 0, P2P},
	{QSC_STATE_RUNNING, QSC_STATE_RUNNING_P2P, P2P, 0},
	{QSC_STATE_RUNNING_P2P, QSC_STATE_RUNNING, P2P, 0},
	{QSC_STATE_RUNNING_P2P, QSC_STATE_STOP, P2P, 0},
	{QSC_STATE_STOP, QSC_STATE_RUNNING_P2P, P2P, 0},
	{QSC_STATE_RUNNING, QSC_STATE_PRE_COPY, PRE, 0},
	{QSC_STATE_PRE_COPY, QSC_STATE_RUNNING, PRE, 0},
	{QSC_STATE_PRE_COPY, QSC_STATE_STOP_COPY, PRE, P2P},
	{QSC_STATE_PRE_COPY, QSC_STATE_PRE_COPY_P2P, PRE | P2P, 0},
	{QSC_STATE_PRE_COPY_P2P, QSC_STATE_PRE_COPY, PRE | P2P, 0},
	{QSC_STATE_RUNNING_P2P, QSC_STATE_PRE_COPY_P2P, PRE | P2P, 0},
	{QSC_STATE_PRE_COPY_P2P, QSC_STATE_RUNNING_P2P, PRE | P2P, 0},
	{QSC_STATE_PRE_COPY_P2P, QSC_STATE_STOP_COPY, PRE | P2P, 0},
};

static bool saving(int state)
{
	return state == 6 || state == 7 || state == 3;
}

static bool is_arc(uint32_t flags, int from, int to)
{
	for (size_t i = 0; i < sizeof(arcs) / sizeof(arcs[0]); i++)
		if ((int)arcs[i].from == from && (int)arcs[i].to == to &&
		    (flags & arcs[i].with) == arcs[i].with && !(flags & arcs[i].without))
			return true;
	return false;
}

/* A state is there when an arc touches it. */
static bool touched(uint32_t flags, int state)
{
	for (int other = 0; other < NUMBERS; other++)
		if (is_arc(flags, state, other) || is_arc(flags, other, state))
			return true;
	return false;
}

/*
 * Length of the shortest path from `at` to `target` whose interior (which `at` is part of, the
 * target not) keeps the path rule: all saving when both ends of the request are, none otherwise.
 */
static int distance(uint32_t flags, int at, int target, bool inside)
{
	int length[NUMBERS];
	int queue[NUMBERS];
	int head = 0;
	int tail = 0;

	memset(length, -1, sizeof(length));
	length[at] = 0;
	queue[tail++] = at;
	while (head < tail) {
		int from = queue[head++];

		if (from == target)
			return length[from];
		if (saving(from) != inside)
			continue;
		for (int to = 0; to < NUMBERS; to++) {
			if (length[to] >= 0 || !is_arc(flags, from, to))
				continue;
			length[to] = length[from] + 1;
			queue[tail++] = to;
		}
	}
	return -1;
}

/* First step of the shortest path; asserts that there is only one. */
static int searched_next(uint32_t flags, int current, int target)
{
	bool inside = saving(current) && saving(target);
	int best = -1;
	int next = -EINVAL;
	int ways = 0;

	if (!touched(flags, current) || !touched(flags, target))
		return -EINVAL;
	if (current == target)
		return current;
	for (int step = 0; step < NUMBERS; step++) {
		int rest;

		if (!is_arc(flags, current, step))
			continue;
		rest = distance(flags, step, target, inside);
		if (rest < 0 || (best >= 0 && rest > best))
			continue;
		if (rest == best) {
			ways++;
			continue;
		}
		best = rest;
		next = step;
		ways = 1;
	}
	assert_true(ways <= 1);
	return next;
}

static void test_next_step_is_the_searched_one(void **state)
{
	static const uint32_t valid[] = {1, 3, 5, 7};

	(void)state;
	for (size_t i = 0; i < 4; i++)
		for (int current = 0; current < NUMBERS; current++)
			for (int target = 0; target < NUMBERS; target++)
				assert_int_equal(qsc_contract_next(valid[i], (uint32_t)current,
								   (uint32_t)target),
						 searched_next(valid[i], current, target));
}

static void test_every_walk_arrives(void **state)
{
	(void)state;
	for (uint32_t flags = 1; flags < 8; flags += 2) {
		for (uint32_t from = 0; from < 8; from++) {
			for (uint32_t to = 0; to < 8; to++) {
				int at = (int)from;
				int steps;

				if (qsc_contract_next(flags, from, to) < 0)
					continue;
				for (steps = 0; at != (int)to; steps++) {
					assert_in_range(steps, 0, 4);
					at = qsc_contract_next(flags, (uint32_t)at, to);
					assert_true(at >= 0);
				}
			}
		}
	}
}

static void test_numbers_that_are_nothing(void **state)
{
	static const uint32_t wrong_flags[] = {0, 2, 4, 6, 8, 9, 15, UINT32_MAX};

	(void)state;
	for (size_t i = 0; i < sizeof(wrong_flags) / sizeof(wrong_flags[0]); i++) {
		assert_false(qsc_flags_valid(wrong_flags[i]));
		for (uint32_t from = 0; from < NUMBERS; from++)
			for (uint32_t to = 0; to < NUMBERS; to++)
				assert_int_equal(qsc_contract_next(wrong_flags[i], from, to),
						 -EINVAL);
	}
	assert_int_equal(qsc_contract_next(7, UINT32_MAX, QSC_STATE_STOP), -EINVAL);
	assert_int_equal(qsc_contract_next(7, QSC_STATE_STOP, UINT32_MAX), -EINVAL);
	assert_false(qsc_state_exists(7, 8));
	assert_false(qsc_state_exists(6, QSC_STATE_STOP));
	assert_true(qsc_state_exists(1, QSC_STATE_ERROR));
	assert_false(qsc_state_exists(5, QSC_STATE_PRE_COPY_P2P));
	assert_false(qsc_state_exists(3, QSC_STATE_PRE_COPY_P2P));
	assert_string_equal(qsc_state_name((enum qsc_state)8), "?");
	assert_string_equal(qsc_action_name((enum qsc_action)QSC_ACTION_COUNT), "?");
	assert_string_equal(qsc_verdict_name((enum qsc_verdict)11), "?");
	assert_int_equal(qsc_verdict_errno((enum qsc_verdict)11), 0);
	assert_string_equal(qsc_party_name((enum qsc_party)3), "?");
	assert_null(qsc_clause_info(QSC_CLAUSE_COUNT));
	assert_string_equal(qsc_clause_id(QSC_CLAUSE_COUNT), "?");
	assert_int_equal(qsc_contract_verdict((enum qsc_action)QSC_ACTION_COUNT, QSC_STATE_STOP),
			 QSC_VERDICT_EINVAL);
}

static void test_state_groups(void **state)
{
	(void)state;
	for (int i = 0; i < 8; i++) {
		bool stopped = i == QSC_STATE_ERROR || i == QSC_STATE_STOP ||
			       i == QSC_STATE_STOP_COPY || i == QSC_STATE_RESUMING;

		assert_int_equal(qsc_state_is_active((enum qsc_state)i), !stopped);
		assert_int_equal(qsc_state_is_saving((enum qsc_state)i), saving(i));
		assert_int_equal(qsc_state_is_p2p((enum qsc_state)i), i == 5 || i == 7);
	}
}

/*
 * The allowed list once more, as the published table has it: one letter a column, in its order
 * RUNNING and PRE_COPY, the P2P states, STOP, STOP_COPY, RESUMING, ERROR. The three rows about the
 * session differ within the first two columns and are checked by rule below.
 */
struct row {
	const char *name;
	const char *columns;
};

static const struct row table[] = {
	{"register-access", "atdddd"}, {"peer-access", "aadddd"}, {"config-read", "aaaatt"},
	{"config-write", "ataatI"},    {"irq-setup", "aaaatI"},	  {"irq-trigger", "ahhhhI"},
	{"dma-mapping", "aaaaaa"},     {"log-start", "aaaaaI"},	  {"log-report", "aaaaaa"},
	{"query", "aaaaaa"},	       {"reset", "aaaaaa"},	  {"data-read", NULL},
	{"data-write", NULL},	       {"precopy-info", NULL},	  {"device-memory-dma", "aonnnn"},
	{"device-peer-dma", "awnnnn"}, {"device-irq", "ahhhhx"},
};

static enum qsc_verdict verdict_of_letter(char letter)
{
	switch (letter) {
	case 'a':
		return QSC_VERDICT_ALLOW;
	case 't':
		return QSC_VERDICT_TOLERATE;
	case 'd':
		return QSC_VERDICT_DISCARD;
	case 'h':
		return QSC_VERDICT_HOLD;
	case 'n':
		return QSC_VERDICT_NEVER;
	case 'w':
		return QSC_VERDICT_NEVER_NEW;
	case 'o':
		return QSC_VERDICT_IF_TOLD;
	case 'x':
		return QSC_VERDICT_DROP;
	default:
		return QSC_VERDICT_EIO;
	}
}

static enum qsc_verdict session_verdict(enum qsc_action action, enum qsc_state state)
{
	bool precopy = state == QSC_STATE_PRE_COPY || state == QSC_STATE_PRE_COPY_P2P;

	if (action == QSC_ACTION_PRECOPY_INFO)
		return precopy ? QSC_VERDICT_ALLOW : QSC_VERDICT_EINVAL;
	if (action == QSC_ACTION_DATA_READ)
		return precopy || state == QSC_STATE_STOP_COPY ? QSC_VERDICT_ALLOW
							       : QSC_VERDICT_ENODEV;
	return state == QSC_STATE_RESUMING ? QSC_VERDICT_ALLOW : QSC_VERDICT_ENODEV;
}

static void test_every_cell_of_the_allowed_list(void **state)
{
	static const int column[QSC_STATE_COUNT] = {5, 2, 0, 3, 4, 1, 0, 1};

	(void)state;
	assert_int_equal(sizeof(table) / sizeof(table[0]), QSC_ACTION_COUNT);
	for (int a = 0; a < QSC_ACTION_COUNT; a++) {
		enum qsc_action action = (enum qsc_action)a;

		assert_string_equal(qsc_action_name(action), table[a].name);
		assert_true(strlen(qsc_action_text(action)) > 5);
		for (int s = 0; s < QSC_STATE_COUNT; s++) {
			enum qsc_state at = (enum qsc_state)s;
			enum qsc_verdict want =
				table[a].columns ? verdict_of_letter(table[a].columns[column[s]])
						 : session_verdict(action, at);

			assert_int_equal(qsc_contract_verdict(action, at), want);
		}
	}
}

static void test_verdicts_that_refuse_have_an_errno(void **state)
{
	(void)state;
	for (int v = QSC_VERDICT_ALLOW; v <= QSC_VERDICT_ENODEV; v++) {
		const char *name = qsc_verdict_name((enum qsc_verdict)v);

		assert_int_equal(qsc_verdict_errno((enum qsc_verdict)v) != 0, name[0] == 'E');
	}
	assert_int_equal(qsc_verdict_errno(QSC_VERDICT_EINVAL), EINVAL);
	assert_int_equal(qsc_verdict_errno(QSC_VERDICT_EIO), EIO);
	assert_int_equal(qsc_verdict_errno(QSC_VERDICT_ENODEV), ENODEV);
}

static void test_names_round_trip(void **state)
{
	static const char *const groups[] = {"STATE-", "ARC-", "SESS-", "DEV-",
					     "LOG-",   "SET-", "ORD-"};
	static const int sizes[] = {5, 7, 11, 8, 4, 5, 9};
	int counts[7] = {0};

	(void)state;
	for (int i = 0; i < QSC_STATE_COUNT; i++)
		assert_int_equal(qsc_state_parse(qsc_state_name((enum qsc_state)i)), i);
	assert_int_equal(qsc_state_parse("NONE"), -EINVAL);
	assert_int_equal(qsc_state_parse(NULL), -EINVAL);
	for (int i = 0; i < QSC_CLAUSE_COUNT; i++) {
		const struct qsc_clause_info *info = qsc_clause_info((enum qsc_clause)i);
		enum qsc_party party = QSC_PARTY_DEVICE;

		assert_string_equal(qsc_clause_id((enum qsc_clause)i), info->id);
		assert_int_equal(qsc_clause_parse(info->id), i);
		assert_int_equal(strspn(info->authority, "HSQV, "), strlen(info->authority));
		assert_true(strlen(info->text) > 20);
		for (int g = 0; g < 7; g++)
			counts[g] += !strncmp(info->id, groups[g], strlen(groups[g]));
		if (!strncmp(info->id, "SET-", 4))
			party = QSC_PARTY_SET;
		if (!strncmp(info->id, "ORD-", 4))
			party = QSC_PARTY_USER;
		assert_int_equal(info->binds, party);
	}
	for (int g = 0; g < 7; g++)
		assert_int_equal(counts[g], sizes[g]);
	assert_int_equal(qsc_clause_parse("DEV-9"), -EINVAL);
	assert_string_equal(qsc_clause_id(QSC_CLAUSE_SESS_11), "SESS-11");
	assert_string_equal(qsc_clause_id(QSC_CLAUSE_ORD_9), "ORD-9");
}

/* Every pair of members in every state, against what SET-1 to SET-3 say in words. */
static void test_set_rules(void **state)
{
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		const struct set_member alone = {QSC_MIGRATION_STOP_COPY, QSC_STATE_RUNNING};
		const struct set_member quiet = {7, QSC_STATE_RUNNING_P2P};
		const struct set_member other = {7, (enum qsc_state)s};
		bool starts = s == QSC_STATE_RUNNING || s == QSC_STATE_PRE_COPY;
		bool stopped = !qsc_state_is_active((enum qsc_state)s) && s != QSC_STATE_ERROR;

		assert_int_equal(set_may_start_peer_dma((enum qsc_state)s), starts);
		assert_int_equal(set_stops(QSC_STATE_RUNNING_P2P, (enum qsc_state)s), stopped);
		assert_false(set_stops(QSC_STATE_STOP, (enum qsc_state)s));
		assert_int_equal(set_runs((enum qsc_state)s, QSC_STATE_RUNNING),
				 stopped || qsc_state_is_p2p((enum qsc_state)s));
		assert_false(set_runs((enum qsc_state)s, QSC_STATE_STOP));
		assert_int_equal(set_stop_breaks(&quiet, &other, true, false), QSC_CLAUSE_COUNT);
		assert_int_equal(set_stop_breaks(&quiet, &other, false, true),
				 starts ? QSC_CLAUSE_SET_1 : QSC_CLAUSE_COUNT);
		assert_int_equal(set_stop_breaks(&alone, &other, true, true), QSC_CLAUSE_SET_3);
		assert_int_equal(set_run_breaks(&quiet, &other, false),
				 stopped ? QSC_CLAUSE_SET_2 : QSC_CLAUSE_COUNT);
		assert_int_equal(set_run_breaks(&alone, &other, false), QSC_CLAUSE_COUNT);
		assert_int_equal(set_run_breaks(&alone, &other, true),
				 stopped ? QSC_CLAUSE_SET_2 : QSC_CLAUSE_COUNT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_next_step_is_the_searched_one),
		cmocka_unit_test(test_every_walk_arrives),
		cmocka_unit_test(test_numbers_that_are_nothing),
		cmocka_unit_test(test_state_groups),
		cmocka_unit_test(test_every_cell_of_the_allowed_list),
		cmocka_unit_test(test_verdicts_that_refuse_have_an_errno),
		cmocka_unit_test(test_names_round_trip),
		cmocka_unit_test(test_set_rules),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
