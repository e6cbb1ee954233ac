/* SPDX-License-Identifier: MIT */
/*
 * The set with scripted devices: reach and plan, the order of the waves judged by the checker, what
 * a failure says and leaves, and liars that the checker must catch.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "set/fake.h"
#include "set/set.h"

#define GIB 0x40000000ULL

struct fixture {
	struct fake_world world;
	struct fake *fakes[ORDER_MEMBERS];
	struct order_set shape;
	struct qsc_timeline *timeline;
	struct qsc_set *set;
};

static void make(struct fixture *f, const uint32_t *flags, uint32_t count)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	uint32_t i;

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->world.lock, NULL);
	assert_int_equal(qsc_timeline_create(&f->timeline), 0);
	assert_int_equal(qsc_set_create(NULL, f->timeline, &f->set), 0);
	for (i = 0; i < count; i++) {
		const struct fake_options options = {
			.member = i, .flags = flags[i], .state_bytes = 100, .seed = i};

		f->fakes[i] = fake_new(&f->world, &options);
		f->shape.flags[i] = flags[i];
		assert_int_equal(qsc_set_add(f->set, names[i], &f->fakes[i]->base, NULL), i);
	}
	f->shape.members = count;
}

static void drop(struct fixture *f)
{
	uint32_t i;

	qsc_set_destroy(f->set);
	qsc_timeline_destroy(f->timeline);
	for (i = 0; i < f->shape.members; i++)
		fake_free(f->fakes[i]);
}

/* `from` reaches `to`, at the address that tells the fake which peer it is. */
static void connect(struct fixture *f, uint32_t from, uint32_t to)
{
	const struct qsc_peer_mapping mapping = {
		.iova = GIB * (to + 1),
		.size = 8192,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.peer = to,
		.region = 2,
	};

	assert_int_equal(qsc_set_map_peer(f->set, from, &mapping, NULL), 0);
}

static int judge(struct fixture *f)
{
	size_t where;

	return order_check(&f->shape, f->world.events, f->world.count, &where);
}

static void all_in(struct fixture *f, enum qsc_state state)
{
	uint32_t i;

	for (i = 0; i < f->shape.members; i++)
		assert_int_equal(f->fakes[i]->state, state);
}

static void walk(struct fixture *f)
{
	struct qsc_error err = QSC_ERROR_NONE;

	assert_int_equal(qsc_set_plan(f->set, QSC_QUIESCE_AUTO, NULL, &err), 0);
	assert_int_equal(qsc_set_precopy(f->set, &err), 0);
	assert_int_equal(qsc_set_quiesce(f->set, &err), 0);
	assert_int_equal(qsc_set_stop_copy(f->set, &err), 0);
	all_in(f, QSC_STATE_STOP_COPY);
	assert_true(qsc_set_session(f->set, 0) != 0);
	assert_int_equal(qsc_set_stop(f->set, &err), 0);
	all_in(f, QSC_STATE_STOP);
	assert_int_equal(qsc_set_session(f->set, 0), 0);
	assert_int_equal(qsc_set_run(f->set, &err), 0);
	all_in(f, QSC_STATE_RUNNING);
	assert_int_equal(qsc_set_stop(f->set, &err), 0);
	all_in(f, QSC_STATE_STOP);
	assert_int_equal(qsc_set_run(f->set, &err), 0);
	all_in(f, QSC_STATE_RUNNING);
}

/* Every combination of flags of three members, each reaching the next where an order exists. */
static void test_waves_keep_the_order(void **state)
{
	static const uint32_t sets[] = {1, 3, 5, 7};
	uint32_t i;

	(void)state;
	for (i = 0; i < 64; i++) {
		const uint32_t flags[] = {sets[i % 4], sets[i / 4 % 4], sets[i / 16]};
		struct fixture f;

		make(&f, flags, 3);
		connect(&f, 0, 1);
		connect(&f, 1, 2);
		/* Closing the circle needs a member that can quiesce. */
		if ((flags[0] | flags[1] | flags[2]) & QSC_MIGRATION_P2P)
			connect(&f, 2, 0);
		walk(&f);
		assert_int_equal(judge(&f), -1);
		drop(&f);
	}
}

/* ---- liars: orders that break one clause each ---- */

/* clang-format off */
#define ARC(m, a, b) \
	{.kind = ORDER_STATE, .member = (m), .from = QSC_STATE_##a, .to = QSC_STATE_##b}
#define REACH(m, p) {.kind = ORDER_MAP, .member = (m), .peer = (p), .iova = 1}
#define CUT(m) {.kind = ORDER_UNMAP, .member = (m), .iova = 1}
/* clang-format on */

static void expect_broken(const struct order_event *events, size_t count, uint32_t flags,
			  int clause)
{
	const struct order_set set = {.members = 2, .flags = {flags, flags}};
	size_t where = 0;

	assert_int_equal(order_check(&set, events, count, &where), clause);
	if (clause >= 0)
		assert_int_equal(where, count - 1);
}

static void test_SET_1_liar_stops_a_device_in_reach(void **state)
{
	static const struct order_event lie[] = {
		REACH(0, 1),
		ARC(1, RUNNING, RUNNING_P2P),
		ARC(1, RUNNING_P2P, STOP),
	};
	static const struct order_event truth[] = {
		REACH(0, 1),
		ARC(0, RUNNING, RUNNING_P2P),
		ARC(1, RUNNING, RUNNING_P2P),
		ARC(1, RUNNING_P2P, STOP),
	};
	static const struct order_event cut[] = {
		REACH(0, 1),
		CUT(0),
		ARC(1, RUNNING, STOP),
	};

	(void)state;
	expect_broken(lie, 3, 3, QSC_CLAUSE_SET_1);
	expect_broken(truth, 4, 3, -1);
	expect_broken(cut, 3, 1, -1);
	expect_broken((const struct order_event[]){REACH(0, 1), ARC(1, RUNNING, STOP)}, 2, 1,
		      QSC_CLAUSE_SET_1);
}

static void test_SET_2_liar_runs_before_all_left_stop(void **state)
{
	static const struct order_event lie[] = {
		ARC(0, RUNNING, RUNNING_P2P), ARC(1, RUNNING, RUNNING_P2P),
		ARC(0, RUNNING_P2P, STOP),    ARC(1, RUNNING_P2P, STOP),
		ARC(0, STOP, RUNNING_P2P),    ARC(0, RUNNING_P2P, RUNNING),
	};
	/* Without P2P: the one that reaches starts first. */
	static const struct order_event wrong_order[] = {
		ARC(0, RUNNING, STOP), REACH(0, 1), ARC(1, RUNNING, STOP), ARC(0, STOP, RUNNING)};
	static const struct order_event right_order[] = {
		ARC(0, RUNNING, STOP), REACH(0, 1), ARC(1, RUNNING, STOP), ARC(1, STOP, RUNNING),
		ARC(0, STOP, RUNNING)};

	(void)state;
	expect_broken(lie, 6, 3, QSC_CLAUSE_SET_2);
	expect_broken(wrong_order, 4, 1, QSC_CLAUSE_SET_2);
	expect_broken(right_order, 5, 1, -1);
}

static void test_SET_3_liar_stops_one_that_reaches(void **state)
{
	/* Its mapping is still there; that nobody has stopped yet makes it no better. */
	static const struct order_event lie[] = {REACH(0, 1), ARC(0, RUNNING, STOP)};
	static const struct order_event saving[] = {REACH(0, 1), ARC(0, RUNNING, PRE_COPY),
						    ARC(0, PRE_COPY, STOP_COPY)};
	static const struct order_event other_cut[] = {REACH(0, 1), CUT(1), ARC(0, RUNNING, STOP)};
	static const struct order_event cut[] = {REACH(0, 1), CUT(0), ARC(0, RUNNING, STOP)};
	static const struct order_event itself[] = {REACH(0, 0), ARC(0, RUNNING, STOP)};

	(void)state;
	expect_broken(lie, 2, 1, QSC_CLAUSE_SET_3);
	expect_broken(saving, 3, 5, QSC_CLAUSE_SET_3);
	expect_broken(other_cut, 3, 1, QSC_CLAUSE_SET_3);
	expect_broken(cut, 3, 1, -1);
	expect_broken(itself, 2, 1, -1);
}

static int one_after_another(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	size_t i;

	(void)ctx;
	for (i = 0; i < count; i++)
		task(args[i]);
	return 0;
}

/* A mapping made behind the set's back: the set plans without it, and the checker sees it. */
static void test_SET_3_liar_hides_a_mapping(void **state)
{
	static const uint32_t flags[] = {1, 3};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_env env = *qsc_env_real();
	struct fixture f;
	const struct qsc_dma_mapping hidden = {
		.iova = 2 * GIB,
		.size = 8192,
		.flags = QSC_DMA_WRITE | QSC_DMA_PEER,
		.vaddr = &f,
		.fd = -1,
	};

	(void)state;
	env.parallel = one_after_another;
	make(&f, flags, 2);
	f.set->env = &env;
	assert_int_equal(qsc_device_dma_map(&f.fakes[0]->base, &hidden), 0);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_AUTO, NULL, &err), 0);
	assert_int_equal(qsc_set_stop(f.set, &err), 0);
	assert_int_equal(judge(&f), QSC_CLAUSE_SET_3);
	drop(&f);
}

static void test_SET_4_liar_runs_before_mappings_are_back(void **state)
{
	static const struct order_event lie[] = {
		REACH(0, 1),	       CUT(0), ARC(1, RUNNING, STOP), ARC(0, RUNNING, STOP),
		ARC(1, STOP, RUNNING),
	};

	(void)state;
	expect_broken(lie, 5, 1, QSC_CLAUSE_SET_4);
}

static void test_SET_5_liar_runs_on_both_sides(void **state)
{
	static const struct order_event lie[] = {
		ARC(0, RUNNING, STOP),
		{.side = 1, .from = QSC_STATE_RUNNING, .to = QSC_STATE_STOP},
		{.side = 1, .from = QSC_STATE_STOP, .to = QSC_STATE_RESUMING},
		{.side = 1, .from = QSC_STATE_RESUMING, .to = QSC_STATE_STOP},
		{.side = 1, .from = QSC_STATE_STOP, .to = QSC_STATE_RUNNING},
	};
	const struct order_set one = {.members = 1, .flags = {1}};
	size_t where;

	(void)state;
	/* Member 1 of the source still runs. */
	expect_broken(lie, 5, 1, QSC_CLAUSE_SET_5);
	assert_int_equal(order_check(&one, lie, 5, &where), -1);
}

/* ---- plan ---- */

static void test_SET_3_refusal_names_pair_and_mapping(void **state)
{
	static const uint32_t flags[] = {7, 1, 3};
	struct qsc_set_plan plan;
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 3);
	connect(&f, 0, 1);
	connect(&f, 2, 0);
	/* The one without P2P reaches nobody: nothing to refuse. */
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_NATIVE, &plan, &err), 0);
	assert_int_equal(plan.strategy, QSC_QUIESCE_NATIVE);
	connect(&f, 1, 2);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_NATIVE, &plan, &err), -EOPNOTSUPP);
	assert_string_equal(err.clause, "SET-3");
	assert_non_null(strstr(err.text, "'b'"));
	assert_non_null(strstr(err.text, "'c'"));
	assert_non_null(strstr(err.text, "0xc0000000"));
	assert_int_equal(f.world.count, 3);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_AUTO, &plan, &err), 0);
	assert_int_equal(plan.strategy, QSC_QUIESCE_REVOKE);
	assert_int_equal(plan.revoked_mappings, 1);
	drop(&f);
}

/* One sentence that is true of none, of some and of all. */
static void test_a_plan_says_who_quiesces(void **state)
{
	static const struct {
		uint32_t flags[3], count;
		bool reach;
		const char *text;
	} cases[] = {
		{{0}, 0, false, "the set has no devices"},
		{{7}, 1, false, "the device quiesces by itself (P2P states)"},
		{{1}, 1, false, "the device reaches no peer"},
		{{7, 3}, 2, true, "all 2 devices quiesce by themselves (P2P states)"},
		{{1, 5}, 2, false, "no device quiesces by itself; none reaches a peer"},
		{{1, 7, 5},
		 3,
		 false,
		 "1 of 3 devices quiesces by itself; the others reach no peer"},
		{{3, 7, 5},
		 3,
		 false,
		 "2 of 3 devices quiesce by themselves; the others reach no peer"},
		{{1, 5},
		 2,
		 true,
		 "no device quiesces by itself; 1 peer mapping of devices without P2P states will "
		 "be "
		 "revoked for the duration"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qsc_set_plan plan;
		struct qsc_error err = QSC_ERROR_NONE;
		struct fixture f;

		make(&f, cases[i].flags, cases[i].count);
		if (cases[i].reach)
			connect(&f, 0, 1);
		assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_AUTO, &plan, &err), 0);
		assert_string_equal(plan.reason, cases[i].text);
		drop(&f);
	}
}

static void map_part(struct fixture *f, uint32_t from, uint32_t to, uint64_t iova, uint64_t offset,
		     uint64_t size)
{
	const struct qsc_peer_mapping mapping = {.iova = iova,
						 .size = size,
						 .flags = QSC_DMA_WRITE,
						 .peer = to,
						 .region = 2,
						 .offset = offset};

	assert_int_equal(qsc_set_map_peer(f->set, from, &mapping, NULL), 0);
}

static void test_SET_3_reach_is_told(void **state)
{
	static const uint32_t flags[] = {1, 7, 1};
	const struct qsc_dma_mapping memory = {.iova = 8 * GIB,
					       .size = 4096,
					       .flags = QSC_DMA_READ,
					       .vaddr = (void *)flags,
					       .fd = -1};
	struct qsc_peer_mapping ways[4] = {{0}};
	struct fixture f;

	(void)state;
	make(&f, flags, 3);
	/* Not in order of address; b maps itself too, and memory reaches nobody. */
	map_part(&f, 0, 1, 6 * GIB, 0, 8192);
	map_part(&f, 0, 2, 5 * GIB, 4096, 4096);
	map_part(&f, 0, 1, 2 * GIB, 4096, 4096);
	map_part(&f, 1, 1, 2 * GIB, 0, 4096);
	assert_int_equal(qsc_set_dma_map(f.set, 0, &memory, NULL), 0);
	assert_int_equal(qsc_set_reach(f.set, 0, 1, ways, 4), 2);
	assert_true(ways[0].iova == 2 * GIB && ways[0].size == 4096 && ways[0].offset == 4096);
	assert_true(ways[0].peer == 1 && ways[0].region == 2 && ways[0].flags == QSC_DMA_WRITE);
	assert_true(ways[1].iova == 6 * GIB && ways[1].size == 8192 && ways[1].offset == 0);
	assert_int_equal(qsc_set_reach(f.set, 0, 2, NULL, 0), 1);
	assert_int_equal(qsc_set_reach(f.set, 1, QSC_REACH_ANY, ways, 4), 0);
	assert_int_equal(qsc_set_reach(f.set, 2, QSC_REACH_ANY, ways, 4), 0);
	assert_int_equal(qsc_set_reach(f.set, 3, QSC_REACH_ANY, ways, 4), 0);
	assert_int_equal(qsc_set_reach(f.set, 0, 0, ways, 4), 0);
	/* At most so many, in the same order; more are counted. */
	ways[2].iova = 77;
	assert_int_equal(qsc_set_reach(f.set, 0, QSC_REACH_ANY, ways, 2), 3);
	assert_true(ways[0].iova == 2 * GIB && ways[1].iova == 5 * GIB && ways[2].iova == 77);
	/* What is revoked for the moment comes back; what is unmapped does not. */
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_REVOKE, NULL, NULL), 0);
	assert_int_equal(qsc_set_quiesce(f.set, NULL), 0);
	assert_int_equal(qsc_set_reach(f.set, 0, QSC_REACH_ANY, NULL, 0), 3);
	assert_int_equal(qsc_set_run(f.set, NULL), 0);
	assert_int_equal(qsc_set_dma_unmap(f.set, 0, 5 * GIB, 4096), 0);
	assert_int_equal(qsc_set_reach(f.set, 0, 2, NULL, 0), 0);
	drop(&f);
}

static void test_SET_3_circle_without_p2p_is_refused(void **state)
{
	static const uint32_t flags[] = {1, 5, 1};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;
	int mode;

	(void)state;
	make(&f, flags, 3);
	connect(&f, 0, 1);
	connect(&f, 1, 2);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_REVOKE, NULL, &err), 0);
	connect(&f, 2, 0);
	for (mode = QSC_QUIESCE_NATIVE; mode <= QSC_QUIESCE_AUTO; mode++) {
		assert_int_equal(qsc_set_plan(f.set, (enum qsc_quiesce)mode, NULL, &err),
				 -EOPNOTSUPP);
		assert_string_equal(err.clause, "SET-3");
	}
	/* The waves refuse it too, before anything moves. */
	assert_int_equal(qsc_set_stop(f.set, &err), -EOPNOTSUPP);
	all_in(&f, QSC_STATE_RUNNING);
	drop(&f);
}

/* Without a plan, and with what zeroed or absent options give, nothing is revoked. */
static void test_SET_3_nothing_is_revoked_unasked(void **state)
{
	static const uint32_t flags[] = {1, 3};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	assert_int_equal(QSC_QUIESCE_NATIVE, 0);
	make(&f, flags, 2);
	connect(&f, 0, 1);
	assert_int_equal(qsc_set_quiesce(f.set, &err), -EOPNOTSUPP);
	assert_string_equal(err.clause, "SET-3");
	assert_int_equal(qsc_set_stop(f.set, &err), -EOPNOTSUPP);
	assert_int_equal(qsc_set_stop_copy(f.set, &err), -EOPNOTSUPP);
	assert_int_equal(qsc_set_resuming(f.set, &err), -EOPNOTSUPP);
	/* The mapping alone: it was not taken away, and nobody moved. */
	assert_int_equal(f.world.count, 1);
	drop(&f);
}

/* What is planned anew after a mapping or a member came keeps the mode the user chose last. */
static void test_SET_3_mode_of_the_last_plan_stays(void **state)
{
	static const uint32_t flags[] = {1, 3, 3};
	const struct fake_options late = {.member = 3, .flags = 3, .state_bytes = 100};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;
	struct fake *added;

	(void)state;
	make(&f, flags, 3);
	added = fake_new(&f.world, &late);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_NATIVE, NULL, &err), 0);
	connect(&f, 0, 1);
	assert_int_equal(qsc_set_quiesce(f.set, &err), -EOPNOTSUPP);
	assert_string_equal(err.clause, "SET-3");
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_AUTO, NULL, &err), 0);
	connect(&f, 0, 2);
	assert_int_equal(qsc_set_add(f.set, "late", &added->base, NULL), 3);
	assert_int_equal(qsc_set_quiesce(f.set, &err), 0);
	assert_int_equal(qsc_set_run(f.set, &err), 0);
	/* A plan that is refused takes the permission of the one before it away. */
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_NATIVE, NULL, &err), -EOPNOTSUPP);
	assert_int_equal(qsc_set_quiesce(f.set, &err), -EOPNOTSUPP);
	assert_int_equal(qsc_set_plan(f.set, (enum qsc_quiesce)3, NULL, &err), -EINVAL);
	drop(&f);
	fake_free(added);
}

static void test_SET_4_mappings_come_back_on_rollback(void **state)
{
	static const uint32_t flags[] = {1, 7, 5};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 3);
	connect(&f, 0, 1);
	connect(&f, 2, 0);
	connect(&f, 1, 2);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_REVOKE, NULL, &err), 0);
	/* The last member does not stop, the others did. */
	fake_fail(f.fakes[2], FAKE_SET_STATE, QSC_STATE_STOP_COPY, 1, EIO, -1);
	assert_int_equal(qsc_set_stop_copy(f.set, &err), -EIO);
	assert_non_null(strstr(err.text, "'c' failed to go from RUNNING to STOP_COPY"));
	assert_non_null(strstr(err.text, "is in RUNNING"));
	assert_int_equal(f.fakes[2]->state, QSC_STATE_RUNNING);
	assert_int_equal(f.fakes[0]->state, QSC_STATE_STOP_COPY);
	assert_int_equal(qsc_set_run(f.set, &err), 0);
	all_in(&f, QSC_STATE_RUNNING);
	assert_int_equal(judge(&f), -1);
	drop(&f);
}

static void test_a_device_stands_in_a_set_once(void **state)
{
	static const uint32_t flags[] = {7, 7};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	assert_int_equal(qsc_set_add(f.set, "c", &f.fakes[0]->base, &err), -EEXIST);
	assert_non_null(strstr(err.text, "'c' is in the set already, as 'a'"));
	drop(&f);
}

/* ---- failures ---- */

static void test_ORD_4_failure_reports_the_true_state(void **state)
{
	static const uint32_t flags[] = {3, 3};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	fake_fail(f.fakes[1], FAKE_SET_STATE, QSC_STATE_STOP, 1, EIO, QSC_STATE_ERROR);
	assert_int_equal(qsc_set_stop(f.set, &err), -EIO);
	assert_non_null(strstr(err.text, "'b' failed to go from RUNNING_P2P to STOP"));
	assert_non_null(strstr(err.text, "is in ERROR"));
	drop(&f);
}

static uint32_t asked(struct fixture *f)
{
	uint32_t count = f->fakes[0]->asked;

	assert_int_equal(f->fakes[1]->asked, count);
	f->fakes[0]->asked = f->fakes[1]->asked = 0;
	return count;
}

/* Asked before the first wave, before they run, and whenever something has failed. */
static void test_states_are_asked_for_once(void **state)
{
	static const uint32_t flags[] = {7, 5};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	assert_int_equal(qsc_set_precopy(f.set, &err), 0);
	assert_int_equal(asked(&f), 1);
	assert_int_equal(qsc_set_quiesce(f.set, &err), 0);
	assert_int_equal(qsc_set_stop_copy(f.set, &err), 0);
	assert_int_equal(asked(&f), 0);
	all_in(&f, QSC_STATE_STOP_COPY);
	assert_int_equal(qsc_set_run(f.set, &err), 0);
	assert_int_equal(asked(&f), 1);
	/* While they ran, somebody else may have moved them. */
	f.fakes[0]->state = f.fakes[1]->state = QSC_STATE_STOP;
	assert_int_equal(qsc_set_quiesce(f.set, &err), 0);
	assert_int_equal(asked(&f), 1);
	all_in(&f, QSC_STATE_STOP);
	assert_int_equal(qsc_set_resuming(f.set, &err), 0);
	assert_int_equal(asked(&f), 0);
	assert_int_equal(qsc_set_reset(f.set, &err), 0);
	assert_int_equal(qsc_set_quiesce(f.set, &err), 0);
	assert_int_equal(asked(&f), 1);
	drop(&f);
}

static void test_ORD_4_after_a_failure_all_are_asked(void **state)
{
	static const uint32_t flags[] = {7, 7};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	assert_int_equal(qsc_set_precopy(f.set, &err), 0);
	fake_fail(f.fakes[1], FAKE_SET_STATE, QSC_STATE_PRE_COPY_P2P, 1, EIO, QSC_STATE_RUNNING);
	assert_int_equal(qsc_set_quiesce(f.set, &err), -EIO);
	f.fakes[0]->asked = f.fakes[1]->asked = 0;
	assert_int_equal(qsc_set_quiesce(f.set, &err), 0);
	assert_int_equal(asked(&f), 1);
	assert_int_equal(f.fakes[0]->state, QSC_STATE_PRE_COPY_P2P);
	assert_int_equal(f.fakes[1]->state, QSC_STATE_RUNNING_P2P);
	drop(&f);
}

/* A failed session may have left it there since the last wave. */
static void test_ORD_8_error_between_waves(void **state)
{
	static const uint32_t flags[] = {7, 7};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	assert_int_equal(qsc_set_stop_copy(f.set, &err), 0);
	f.fakes[1]->state = QSC_STATE_ERROR;
	assert_int_equal(qsc_set_run(f.set, &err), -EIO);
	assert_string_equal(err.clause, "ORD-8");
	assert_int_equal(f.fakes[0]->state, QSC_STATE_STOP_COPY);
	f.fakes[1]->state = QSC_STATE_STOP_COPY;
	assert_int_equal(qsc_set_run(f.set, &err), 0);
	assert_int_equal(qsc_set_stop_copy(f.set, &err), 0);
	f.fakes[1]->state = QSC_STATE_ERROR;
	assert_int_equal(qsc_set_stop(f.set, &err), -EINVAL);
	assert_non_null(strstr(err.text, "and is in ERROR"));
	drop(&f);
}

static void test_ORD_8_error_is_not_reset_and_run(void **state)
{
	static const uint32_t flags[] = {7, 7};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	assert_int_equal(qsc_set_stop(f.set, &err), 0);
	fake_fail(f.fakes[0], FAKE_SET_STATE, QSC_STATE_RUNNING_P2P, 1, EIO, QSC_STATE_ERROR);
	assert_int_equal(qsc_set_run(f.set, &err), -EIO);
	assert_int_equal(qsc_set_run(f.set, &err), -EIO);
	assert_string_equal(err.clause, "ORD-8");
	assert_int_equal(f.fakes[0]->resets, 0);
	assert_int_equal(f.fakes[0]->state, QSC_STATE_ERROR);
	assert_int_equal(f.fakes[1]->state, QSC_STATE_RUNNING_P2P);
	drop(&f);
}

static void test_error_leaves_precopy_of_the_others(void **state)
{
	static const uint32_t flags[] = {7, 7};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	fake_fail(f.fakes[0], FAKE_SET_STATE, QSC_STATE_PRE_COPY, 1, EIO, QSC_STATE_ERROR);
	assert_int_equal(qsc_set_precopy(f.set, &err), -EIO);
	assert_int_equal(f.fakes[1]->state, QSC_STATE_PRE_COPY);
	assert_int_equal(qsc_set_run(f.set, &err), -EIO);
	assert_int_equal(f.fakes[1]->state, QSC_STATE_RUNNING);
	drop(&f);
}

static void test_resuming_validates_and_reset_gives_up(void **state)
{
	static const uint32_t flags[] = {3, 1};
	struct qsc_error err = QSC_ERROR_NONE;
	uint8_t bytes[100];
	struct fixture f;
	uint32_t i;

	(void)state;
	make(&f, flags, 2);
	connect(&f, 1, 0);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_REVOKE, NULL, &err), 0);
	assert_int_equal(qsc_set_resuming(f.set, &err), 0);
	all_in(&f, QSC_STATE_RESUMING);
	memset(bytes, 7, sizeof(bytes));
	assert_int_equal(qsc_device_session_write(&f.fakes[0]->base, qsc_set_session(f.set, 0),
						  bytes, sizeof(bytes)),
			 100);
	assert_int_equal(qsc_set_stop(f.set, &err), -EINVAL);
	assert_string_equal(err.clause, "SESS-6");
	assert_non_null(strstr(err.text, "'b' failed to go from RESUMING to STOP"));
	assert_int_equal(qsc_set_reset(f.set, &err), 0);
	all_in(&f, QSC_STATE_RUNNING);
	for (i = 0; i < 2; i++)
		assert_int_equal(f.fakes[i]->resets, 1);
	/* The mapping that was revoked is back. */
	assert_int_equal(f.world.events[f.world.count - 3].kind, ORDER_MAP);
	drop(&f);
}

static void test_revoke_failure_is_reported(void **state)
{
	static const uint32_t flags[] = {1, 3};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	connect(&f, 0, 1);
	assert_int_equal(qsc_set_plan(f.set, QSC_QUIESCE_REVOKE, NULL, &err), 0);
	fake_fail(f.fakes[0], FAKE_DMA_UNMAP, 0, 1, EIO, -1);
	assert_int_equal(qsc_set_quiesce(f.set, &err), -EIO);
	assert_string_equal(err.clause, "SET-3");
	assert_int_equal(f.fakes[0]->state, QSC_STATE_RUNNING);
	drop(&f);
}

static void test_mappings_are_checked_and_found(void **state)
{
	static const uint32_t flags[] = {1, 3};
	struct qsc_peer_mapping mapping = {.iova = 2 * GIB, .size = 8192, .peer = 1, .region = 2};
	struct qsc_dma_mapping plain = {.iova = 0, .size = 4096, .fd = -1, .vaddr = &mapping};
	struct qsc_error err = QSC_ERROR_NONE;
	struct fixture f;

	(void)state;
	make(&f, flags, 2);
	mapping.offset = 4096;
	assert_int_equal(qsc_set_map_peer(f.set, 0, &mapping, &err), -EINVAL);
	mapping.offset = 0;
	mapping.peer = 2;
	assert_int_equal(qsc_set_map_peer(f.set, 0, &mapping, &err), -EINVAL);
	plain.flags = QSC_DMA_READ | QSC_DMA_PEER;
	assert_int_equal(qsc_set_dma_map(f.set, 0, &plain, &err), -EINVAL);
	assert_string_equal(err.clause, "SET-3");
	plain.flags = QSC_DMA_READ;
	assert_int_equal(qsc_set_dma_map(f.set, 0, &plain, &err), 0);
	assert_int_equal(qsc_set_dma_unmap(f.set, 0, 4096, 4096), -ENOENT);
	assert_int_equal(qsc_set_dma_unmap(f.set, 0, 0, 4096), 0);
	assert_int_equal(qsc_set_dma_unmap(f.set, 0, 0, 4096), -ENOENT);
	drop(&f);
}

static int tells_nothing(struct qsc_device *dev, enum qsc_state *state)
{
	(void)dev;
	(void)state;
	return -ENOTCONN;
}

/* A set of the size that one side moves at once; and nobody moves when one does not answer. */
static void test_a_wide_set(void **state)
{
	enum { WIDE = 256 };
	struct fake_world world = FAKE_WORLD_INIT;
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device_ops silent;
	static struct fake *fakes[WIDE];
	struct qsc_set *set;
	char name[16];
	uint32_t i;

	(void)state;
	assert_int_equal(qsc_set_create(NULL, NULL, &set), 0);
	for (i = 0; i < WIDE; i++) {
		const struct fake_options options = {.flags = i % 2 ? 7 : 3, .state_bytes = 8};

		fakes[i] = fake_new(&world, &options);
		(void)snprintf(name, sizeof(name), "wide%u", i);
		assert_int_equal(qsc_set_add(set, name, &fakes[i]->base, NULL), i);
	}
	assert_int_equal(qsc_set_stop_copy(set, &err), 0);
	for (i = 0; i < WIDE; i++)
		assert_int_equal(fakes[i]->state, QSC_STATE_STOP_COPY);
	assert_int_equal(qsc_set_run(set, &err), 0);
	silent = *fakes[200]->base.ops;
	silent.get_state = tells_nothing;
	fakes[200]->base.ops = &silent;
	assert_int_equal(qsc_set_quiesce(set, &err), -ENOTCONN);
	assert_non_null(strstr(err.text, "'wide200' does not tell its state"));
	assert_string_equal(err.clause, "STATE-4");
	for (i = 0; i < WIDE; i++)
		assert_int_equal(fakes[i]->state, QSC_STATE_RUNNING);
	qsc_set_destroy(set);
	for (i = 0; i < WIDE; i++)
		fake_free(fakes[i]);
	pthread_mutex_destroy(&world.lock);
}

static void test_timeline_is_in_order_of_start(void **state)
{
	static const uint32_t flags[] = {7, 7};
	const struct qsc_phase *phases;
	struct fixture f;
	size_t count;
	size_t i;

	(void)state;
	make(&f, flags, 2);
	walk(&f);
	count = qsc_timeline_phases(f.timeline, &phases);
	assert_true(count >= 21);
	for (i = 1; i < count; i++)
		assert_true(phases[i - 1].start_us <= phases[i].start_us);
	drop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waves_keep_the_order),
		cmocka_unit_test(test_SET_1_liar_stops_a_device_in_reach),
		cmocka_unit_test(test_SET_2_liar_runs_before_all_left_stop),
		cmocka_unit_test(test_SET_3_liar_stops_one_that_reaches),
		cmocka_unit_test(test_SET_3_liar_hides_a_mapping),
		cmocka_unit_test(test_SET_4_liar_runs_before_mappings_are_back),
		cmocka_unit_test(test_SET_5_liar_runs_on_both_sides),
		cmocka_unit_test(test_SET_3_refusal_names_pair_and_mapping),
		cmocka_unit_test(test_a_plan_says_who_quiesces),
		cmocka_unit_test(test_SET_3_reach_is_told),
		cmocka_unit_test(test_SET_3_circle_without_p2p_is_refused),
		cmocka_unit_test(test_SET_3_nothing_is_revoked_unasked),
		cmocka_unit_test(test_SET_3_mode_of_the_last_plan_stays),
		cmocka_unit_test(test_SET_4_mappings_come_back_on_rollback),
		cmocka_unit_test(test_a_device_stands_in_a_set_once),
		cmocka_unit_test(test_ORD_4_failure_reports_the_true_state),
		cmocka_unit_test(test_states_are_asked_for_once),
		cmocka_unit_test(test_ORD_4_after_a_failure_all_are_asked),
		cmocka_unit_test(test_ORD_8_error_between_waves),
		cmocka_unit_test(test_ORD_8_error_is_not_reset_and_run),
		cmocka_unit_test(test_error_leaves_precopy_of_the_others),
		cmocka_unit_test(test_resuming_validates_and_reset_gives_up),
		cmocka_unit_test(test_revoke_failure_is_reported),
		cmocka_unit_test(test_mappings_are_checked_and_found),
		cmocka_unit_test(test_a_wide_set),
		cmocka_unit_test(test_timeline_is_in_order_of_start),
	};

	return cmocka_run_group_tests_name("set", tests, NULL, NULL);
}
