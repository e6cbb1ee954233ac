/* SPDX-License-Identifier: MIT */
/* Plans over a real socket: what they find, what they leave as it was, and refusals. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/sides.h"

static const struct qsc_peer_mapping reaching = {
	.iova = 0x40000000, .size = 4096, .flags = QSC_DMA_WRITE, .region = 2};

static int plan_of(struct side *side, struct qsc_transport *transport,
		   struct qsc_migrate_plan *plan)
{
	side->err = (struct qsc_error)QSC_ERROR_NONE;
	return qsc_migrate_plan(side->set, &side->user, transport, &side->options, plan,
				&side->err);
}

static void test_plans_change_nothing_on_either_side(void **state)
{
	struct qsc_migrate_plan_member members[SIDES_MEMBERS];
	struct qsc_migrate_plan plan = {.members = members};
	struct fixture f;
	struct side *source = &f.sides[0];
	const struct qsc_env *env = qsc_env_real();
	uint64_t asked_us = 0, sent_us, ended_us;
	size_t events;
	pthread_t thread;
	uint32_t i;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	/* As often as anybody likes. */
	for (i = 0; i < 3; i++) {
		assert_int_equal(plan_of(source, source->transport, &plan), 0);
		assert_true(plan.asked);
		assert_true(plan.bytes_per_second > 0 && plan.rtt_us > 0);
		assert_int_equal(plan.memory_bytes, SIDES_PAGES * QSC_PAGE_SIZE);
		assert_int_equal(members[2].state_bytes, SIDES_STATE + 2);
		assert_true(plan.predicted.total_us > 0);
		sides_all_in(source, QSC_STATE_RUNNING);
		asked_us = asked_us ? asked_us : env->now_us(env->ctx);
	}
	assert_false(source->paused || source->fakes[0]->logging);
	/* The destination took its devices through the waves once, whoever asked. */
	pthread_mutex_lock(&f.world.lock);
	for (events = i = 0; i < f.world.count; i++) {
		assert_int_equal(f.world.events[i].side, 1);
		events += f.world.events[i].kind == ORDER_STATE && !f.world.events[i].member &&
			  f.world.events[i].to == QSC_STATE_STOP;
	}
	pthread_mutex_unlock(&f.world.lock);
	assert_int_equal(events, 1);
	sent_us = env->now_us(env->ctx);
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	ended_us = env->now_us(env->ctx);
	sides_expect_moved(&f);
	/* What passed before the source came to move is told from what the move took. */
	assert_int_equal(source->report.waited_us, 0);
	assert_true(f.sides[1].report.waited_us >= sent_us - asked_us);
	assert_true(f.sides[1].report.total_us - f.sides[1].report.waited_us <= ended_us - sent_us);
	assert_true(source->report.predicted.total_us > 0);
	assert_int_equal(source->report.measured.total_us, source->report.downtime_us);
	sides_drop(&f);
}

static void test_SESS_11_differences_are_told_to_whoever_asks(void **state)
{
	struct qsc_migrate_plan plan = {.members = NULL};
	struct fixture f;
	struct side *source = &f.sides[0];
	pthread_t thread;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].fakes[0]->options.bar_bytes = 4096;
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	assert_int_equal(plan_of(source, source->transport, &plan), -EMEDIUMTYPE);
	assert_false(plan.asked);
	assert_non_null(strstr(source->err.text, "region 2 of 'nic'"));
	/* It waits on, and would refuse the source as well. */
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_source_goes_on(&f, EMEDIUMTYPE);
	sides_drop(&f);
}

static void test_SET_3_a_plan_permits_nothing(void **state)
{
	struct qsc_migrate_plan_member members[SIDES_MEMBERS];
	struct qsc_migrate_plan plan = {.members = members};
	struct fixture f;
	struct side *source = &f.sides[0];

	(void)state;
	sides_make(&f, sides_mixed_flags, true);
	assert_int_equal(qsc_set_map_peer(source->set, 1, &reaching, NULL), 0);
	source->options.quiesce = QSC_QUIESCE_AUTO;
	assert_int_equal(plan_of(source, NULL, &plan), 0);
	assert_int_equal(plan.set.strategy, QSC_QUIESCE_REVOKE);
	assert_int_equal(plan.set.revoked_mappings, 1);
	/* What was only planned is not done unasked. */
	assert_int_equal(qsc_set_quiesce(source->set, NULL), -EOPNOTSUPP);
	/* What would be refused is, and the rest of the plan is there. */
	source->options.quiesce = QSC_QUIESCE_NATIVE;
	memset(&members, 0, sizeof(members));
	assert_int_equal(plan_of(source, NULL, &plan), -EOPNOTSUPP);
	assert_string_equal(source->err.clause, "SET-3");
	assert_int_equal(members[1].state_bytes, SIDES_STATE + 1);
	assert_int_equal(plan.memory_bytes, SIDES_PAGES * QSC_PAGE_SIZE);
	sides_drop(&f);
}

static int no_size(struct qsc_device *dev, uint64_t *size)
{
	return -EIO;
}

static int no_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	return -ENOTCONN;
}

static void test_devices_that_do_not_answer_are_named(void **state)
{
	struct qsc_migrate_plan plan = {.members = NULL};
	struct qsc_device_ops mute;
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	mute = *f.sides[0].fakes[1]->base.ops;
	mute.data_size = no_size;
	f.sides[0].fakes[1]->base.ops = &mute;
	assert_int_equal(plan_of(&f.sides[0], NULL, &plan), -EIO);
	assert_non_null(strstr(f.sides[0].err.text, "'disk'"));
	mute.get_info = no_info;
	assert_int_equal(plan_of(&f.sides[0], NULL, &plan), -ENOTCONN);
	assert_non_null(strstr(f.sides[0].err.text, "'disk'"));
	/* One that cannot tell is none that has failed. */
	mute = *f.sides[0].fakes[0]->base.ops;
	mute.data_size = NULL;
	assert_int_equal(plan_of(&f.sides[0], NULL, &plan), 0);
	sides_drop(&f);
}

static void test_a_bandwidth_must_carry_something(void **state)
{
	struct qsc_migrate_plan plan = {.members = NULL};
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[0].options.bandwidth = 65535;
	assert_int_equal(plan_of(&f.sides[0], NULL, &plan), -EINVAL);
	assert_non_null(strstr(f.sides[0].err.text, "65535 bytes a second"));
	f.sides[0].options.bandwidth = 65536;
	assert_int_equal(plan_of(&f.sides[0], NULL, &plan), 0);
	sides_drop(&f);
}

static void test_nobody_there_is_said(void **state)
{
	struct qsc_migrate_plan plan = {.members = NULL};
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	qsc_transport_close(f.sides[1].transport);
	f.sides[1].transport = NULL;
	assert_int_equal(plan_of(&f.sides[0], f.sides[0].transport, &plan), -ENOENT);
	assert_true(strlen(f.sides[0].err.text) > 0);
	assert_false(plan.asked);
	assert_int_equal(f.world.count, 0);
	sides_drop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plans_change_nothing_on_either_side),
		cmocka_unit_test(test_SESS_11_differences_are_told_to_whoever_asks),
		cmocka_unit_test(test_SET_3_a_plan_permits_nothing),
		cmocka_unit_test(test_devices_that_do_not_answer_are_named),
		cmocka_unit_test(test_a_bandwidth_must_carry_something),
		cmocka_unit_test(test_nobody_there_is_said),
	};

	return cmocka_run_group_tests_name("plan", tests, NULL, NULL);
}
