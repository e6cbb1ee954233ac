/* SPDX-License-Identifier: MIT */
/*
 * The time limit of a migration: in every phase the source goes on past it and says where it was,
 * after COMMIT it counts no more, and waiting for the other side ends in time.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/engine.h"
#include "migrate/sides.h"

#define LIMIT_MS 600000 /* never passes by itself */
#define SHORT_MS 300

/* ---- a clock that jumps past every limit when a test says so ---- */

static _Atomic(uint64_t) jumped_us;

static uint64_t jumping_now(void *ctx)
{
	return qsc_env_real()->now_us(qsc_env_real()->ctx) + jumped_us;
}

static int plain_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	return qsc_env_real()->parallel(qsc_env_real()->ctx, task, args, count);
}

static const struct qsc_env jumping_env = {jumping_now, plain_parallel, NULL, NULL};

static void jump(void)
{
	jumped_us = 2000ULL * LIMIT_MS;
}

static int jump_in_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	jump();
	return 0;
}

static int jump_in_pause(void *ctx)
{
	((struct side *)ctx)->paused = true;
	jump();
	return 0;
}

static ssize_t jump_in_save(void *ctx, void *buf, size_t max)
{
	jump();
	return 0;
}

static int jump_in_load(void *ctx, const void *buf, size_t size)
{
	jump();
	return 0;
}

static int jump_in_resume(void *ctx)
{
	((struct side *)ctx)->resumed = true;
	jump();
	return 0;
}

static void make(struct fixture *f)
{
	jumped_us = 0;
	sides_make(f, sides_p2p_flags, true);
	f->sides[0].options.env = &jumping_env;
	f->sides[0].options.timeout_ms = LIMIT_MS;
}

static void test_past_the_limit_the_source_goes_on(void **state)
{
	/* The destination may load before or after the source begins to wait for it. */
	static const char *const phases[][2] = {{"'pre-copy'", "'pre-copy'"},
						{"'stop-copy'", "'stop-copy'"},
						{"'stop-copy'", "'stop-copy'"},
						{"'load'", "'commit'"}};
	uint32_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(phases); i++) {
		struct fixture f;

		make(&f);
		if (i == 0)
			f.sides[0].user.dirty = jump_in_dirty;
		else if (i == 1)
			f.sides[0].user.pause = jump_in_pause;
		else if (i == 2)
			f.sides[0].user.save = jump_in_save;
		else
			f.sides[1].user.load = jump_in_load;
		sides_migrate(&f);
		sides_expect_source_goes_on(&f, ETIMEDOUT);
		if (!strstr(f.sides[0].err.text, phases[i][0]) &&
		    !strstr(f.sides[0].err.text, phases[i][1]))
			fail_msg("%u: %s", i, f.sides[0].err.text);
		assert_non_null(strstr(f.sides[0].err.text, "600000 ms"));
		/* The destination is told, also one that has sent READY. */
		assert_int_equal(f.sides[1].result, -ETIMEDOUT);
		assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
		assert_non_null(strstr(f.sides[1].err.text, "the source failed"));
		sides_drop(&f);
	}
}

static void test_SET_5_after_commit_no_limit_counts(void **state)
{
	uint32_t side;

	(void)state;
	for (side = 0; side < 2; side++) {
		struct fixture f;

		make(&f);
		f.sides[0].options.env = side ? NULL : &jumping_env;
		f.sides[1].options.env = side ? &jumping_env : NULL;
		f.sides[side].options.timeout_ms = LIMIT_MS;
		/* RUNNING has its own time, that of silence. */
		f.sides[side].options.stall_timeout_ms = 4 * LIMIT_MS;
		f.sides[1].user.resume = jump_in_resume;
		sides_migrate(&f);
		sides_expect_moved(&f);
		sides_drop(&f);
	}
}

/* ---- waiting for bandwidth ---- */

static void jumping_sleep(void *ctx, uint64_t us)
{
	jumped_us += us;
}

static const struct qsc_env sleepless_env = {jumping_now, plain_parallel, jumping_sleep, NULL};

/* Some time that was slept after the first pass began. */
static int cancel_in_pass(void *ctx, const struct qsc_migrate_progress *progress)
{
	uint64_t *begin = ctx;

	if (*begin == UINT64_MAX && strcmp(progress->phase, "pre-copy") == 0)
		*begin = jumped_us;
	return *begin != UINT64_MAX && jumped_us - *begin > 300000;
}

static void test_a_cancel_is_heard_while_lanes_wait_for_bandwidth(void **state)
{
	uint64_t begin = UINT64_MAX;
	struct fixture f;

	(void)state;
	make(&f);
	/* Every page has something, so that lanes take as much at once as they can. */
	memset(f.sides[0].memory, 0x55, SIDES_PAGES * QSC_PAGE_SIZE);
	f.sides[0].options.env = &sleepless_env;
	f.sides[0].options.timeout_ms = 0;
	f.sides[0].options.bandwidth = 65536;
	f.sides[0].options.channels = 16;
	f.sides[0].options.progress = cancel_in_pass;
	f.sides[0].options.progress_ctx = &begin;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, ECANCELED);
	assert_non_null(strstr(f.sides[0].err.text, "cancelled by the user in phase 'pre-copy'"));
	assert_non_null(strstr(f.sides[1].err.text, "cancelled by the user"));
	/* What the lanes have begun would take seconds. */
	assert_in_range(jumped_us - begin, 300000, 1300000);
	sides_drop(&f);
}

/* ---- waiting for a side that does nothing ---- */

static void wait_for_the_end_of(const struct side *side)
{
	while (!side->finished)
		(void)usleep(1000);
}

static struct side *waited_for;

static ssize_t slow_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	wait_for_the_end_of(waited_for);
	return -EIO;
}

static int slow_load(void *ctx, const void *buf, size_t size)
{
	wait_for_the_end_of(waited_for);
	return 0;
}

static int slow_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	wait_for_the_end_of(waited_for);
	return 0;
}

static void test_waiting_for_the_destination_ends_in_time(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct qsc_device_ops ops;
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		f.sides[0].options.timeout_ms = SHORT_MS;
		f.sides[0].options.stall_timeout_ms = LIMIT_MS;
		waited_for = &f.sides[0];
		ops = *f.sides[1].fakes[1]->base.ops;
		ops.session_write = slow_write;
		if (i == 0)
			f.sides[1].fakes[1]->base.ops = &ops;
		else
			f.sides[1].user.load = slow_load;
		sides_migrate(&f);
		sides_expect_source_goes_on(&f, ETIMEDOUT);
		assert_non_null(strstr(f.sides[0].err.text, "when its 300 ms were over"));
		/* It is told also then, so that a READY that comes too late leaves no doubt. */
		assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
		sides_drop(&f);
	}
}

/* From when the other side has fallen silent on. */
static int cancel_in_silence(void *ctx, const struct qsc_migrate_progress *progress)
{
	return atomic_load((_Atomic(bool) *)ctx);
}

static _Atomic(bool) silent;

static ssize_t silent_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	silent = true;
	wait_for_the_end_of(waited_for);
	return -EIO;
}

static int silent_load(void *ctx, const void *buf, size_t size)
{
	silent = true;
	wait_for_the_end_of(waited_for);
	return 0;
}

static int silent_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	silent = true;
	wait_for_the_end_of(waited_for);
	return 0;
}

/* Nothing but the cancel ends these waits: in lanes, between rounds, for READY; on either side. */
static void test_a_cancel_is_heard_while_the_other_side_is_silent(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct side *cancels;
		struct qsc_device_ops ops;
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		cancels = &f.sides[i == 2];
		silent = false;
		waited_for = cancels;
		cancels->options.stall_timeout_ms = LIMIT_MS;
		cancels->options.progress = cancel_in_silence;
		cancels->options.progress_ctx = &silent;
		ops = *f.sides[1].fakes[1]->base.ops;
		ops.session_write = silent_write;
		if (i == 0)
			f.sides[1].fakes[1]->base.ops = &ops;
		else if (i == 1)
			f.sides[1].user.load = silent_load;
		else
			f.sides[0].user.dirty = silent_dirty;
		sides_migrate(&f);
		assert_int_equal(cancels->result, -ECANCELED);
		assert_int_equal(cancels->report.owner, QSC_OWNER_SOURCE);
		assert_non_null(strstr(cancels->err.text, "cancelled by the user in phase"));
		sides_expect_source_goes_on(&f, -f.sides[0].result);
		sides_drop(&f);
	}
}

static void test_the_destination_has_a_limit_of_its_own(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.timeout_ms = SHORT_MS;
	f.sides[1].options.stall_timeout_ms = LIMIT_MS;
	f.sides[0].user.dirty = slow_dirty;
	waited_for = &f.sides[1];
	sides_migrate(&f);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
	assert_non_null(strstr(f.sides[1].err.text, "phase 'pre-copy' when its 300 ms were over"));
	sides_expect_source_goes_on(&f, -f.sides[0].result);
	sides_drop(&f);
}

/* Who leaves when the time is over anyhow is not why it failed, unless he says why he left. */
static void test_who_leaves_past_the_limit_is_not_the_reason(void **state)
{
	struct qsc_engine engine = {.env = qsc_env_real(), .phase = "stop-copy"};
	struct qsc_error err = QSC_ERROR_NONE;

	(void)state;
	assert_false(qsc_engine_is_over(&engine, -EPIPE, &err));
	engine.link.deadline_us = 1;
	assert_false(qsc_engine_is_over(&engine, -EIO, &err));
	assert_true(qsc_engine_is_over(&engine, -EPIPE, &err));
	assert_int_equal(err.number, ETIMEDOUT);
	assert_non_null(strstr(err.text, "in phase 'stop-copy' when its"));
	engine.link.heard_failed = true;
	assert_false(qsc_engine_is_over(&engine, -EPIPE, &err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_past_the_limit_the_source_goes_on),
		cmocka_unit_test(test_SET_5_after_commit_no_limit_counts),
		cmocka_unit_test(test_waiting_for_the_destination_ends_in_time),
		cmocka_unit_test(test_the_destination_has_a_limit_of_its_own),
		cmocka_unit_test(test_who_leaves_past_the_limit_is_not_the_reason),
		cmocka_unit_test(test_a_cancel_is_heard_while_the_other_side_is_silent),
		cmocka_unit_test(test_a_cancel_is_heard_while_lanes_wait_for_bandwidth),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}
