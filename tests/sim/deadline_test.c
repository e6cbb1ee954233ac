/* SPDX-License-Identifier: MIT */
/*
 * Predictions against stops whose every cost is known, what limits do, and what plans say: the
 * whole engine on both sides, in the time of the simulation.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "clockwork.h"

#define MS	1000ULL
#define MEMORY	(CLOCK_PAGES * QSC_PAGE_SIZE)
#define QUARTER (MEMORY / 4)

static struct clock_side *source_of(struct clock_world *world)
{
	return &world->sides[0];
}

static void say_parts(const struct qsc_migrate_report *report)
{
	int part;

	for (part = 0; part < QSC_DOWNTIME_PARTS; part++)
		print_message("%-9s predicted %7llu measured %7llu us\n",
			      qsc_downtime_part_name((enum qsc_downtime_part)part),
			      (unsigned long long)report->predicted.part_us[part],
			      (unsigned long long)report->measured.part_us[part]);
	print_message("%-9s predicted %7llu measured %7llu us in %u passes\n", "total",
		      (unsigned long long)report->predicted.total_us,
		      (unsigned long long)report->measured.total_us, report->passes);
}

/* It moved, and every part took what was predicted, within a tenth. */
static void expect_as_predicted(struct clock_world *world)
{
	const struct clock_side *source = source_of(world);
	const struct qsc_migrate_report *report = &source->report;
	uint64_t sum = 0;
	int part;

	if (source->result)
		print_error("%s\n", source->err.text);
	assert_int_equal(source->result, 0);
	assert_int_equal(world->sides[1].result, 0);
	if (abs(report->prediction_error_permille) > 100)
		say_parts(report);
	assert_in_range(report->prediction_error_permille + 100, 0, 200);
	for (part = 0; part < QSC_DOWNTIME_PARTS; part++) {
		uint64_t predicted = report->predicted.part_us[part];
		uint64_t measured = report->measured.part_us[part];

		/* Parts of no weight have the scheduler's microseconds in them. */
		if (predicted > measured + measured / 10 + 1000 ||
		    measured > predicted + predicted / 10 + 1000)
			say_parts(report);
		assert_in_range(predicted, measured - qsc_min_u64(measured, measured / 10 + 1000),
				measured + measured / 10 + 1000);
		sum += measured;
	}
	assert_int_equal(report->measured.total_us, sum);
	assert_int_equal(report->downtime_us, sum);
}

static void expect_given_up(struct clock_world *world, const char *why)
{
	const struct clock_side *source = source_of(world);
	uint32_t i;

	assert_int_equal(source->result, -ETIME);
	assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
	assert_true(world->sides[1].result < 0);
	for (i = 0; i < world->members; i++)
		assert_int_equal(source->devices[i].state, QSC_STATE_RUNNING);
	if (!strstr(source->err.text, why))
		print_error("\"%s\" is not in \"%s\"\n", why, source->err.text);
	assert_non_null(strstr(source->err.text, why));
	assert_non_null(strstr(source->err.text, "raise the limit to "));
	/* Nothing was stopped for it. */
	assert_int_equal(source->report.downtime_us, 0);
	assert_int_equal(source->report.stop_bytes, 0);
}

/* ---- predictions ---- */

static void test_quick_devices_and_a_steady_writer(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 3);
	world.user_rate = 2000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_true(source_of(&world)->report.measured.total_us <= 100 * MS);
	assert_true(source_of(&world)->report.passes >= 2);
	clock_drop(&world);
}

static void test_slow_arcs_are_predicted(void **state)
{
	const struct qsc_migrate_report *report;
	struct clock_world world;

	(void)state;
	clock_make(&world, 3);
	world.costs[0].quiesce_us = 5 * MS;
	world.costs[1].quiesce_us = 15 * MS;
	world.costs[1].stop_us = 40 * MS;
	world.costs[1].load_us = 40 * MS;
	world.costs[2].start_us = 25 * MS;
	world.costs[2].report_us = 6 * MS;
	world.user_rate = 1000000;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	report = &source_of(&world)->report;
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_QUIESCE], 15 * MS, 16 * MS);
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_STOP], 40 * MS, 41 * MS);
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_COLLECT], 6 * MS, 7 * MS);
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_LOAD], 40 * MS, 41 * MS);
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_RUN], 25 * MS, 26 * MS);
	/* There and back, twice: the end of the round and the hand-over. */
	assert_in_range(report->predicted.part_us[QSC_DOWNTIME_COMMIT], 1 * MS, 2 * MS);
	assert_in_range(report->measured.part_us[QSC_DOWNTIME_RUN], 25 * MS, 26 * MS);
	clock_drop(&world);
}

static void test_a_slow_device_is_not_a_slow_link(void **state)
{
	const struct qsc_migrate_report *report;
	struct clock_world world;

	(void)state;
	clock_make(&world, 2);
	/* 300 kB at 2 MB/s in pre-copy and 100 kB after; memory goes at 10 MB/s meanwhile. */
	world.costs[0].initial = 300000;
	world.costs[0].fixed = 100000;
	world.costs[0].read_rate = 2000000;
	world.user_rate = 3000000;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	report = &source_of(&world)->report;
	/* 50 ms to read and 10 to send. */
	assert_true(report->predicted.part_us[QSC_DOWNTIME_TRANSFER] >= 58 * MS);
	clock_drop(&world);
}

static void test_slow_devices_go_side_by_side_as_lanes_allow(void **state)
{
	uint64_t transfer[2];
	uint32_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct clock_world world;
		uint32_t member;

		clock_make(&world, 3);
		for (member = 0; member < 3; member++) {
			world.costs[member].initial = 100000;
			world.costs[member].fixed = 40000;
			world.costs[member].read_rate = 1000000;
		}
		/* Channel 0 carries no streams. */
		world.sides[0].options.channels = i == 0 ? 4 : 3;
		assert_true(clock_run(&world));
		expect_as_predicted(&world);
		transfer[i] = source_of(&world)->report.measured.part_us[QSC_DOWNTIME_TRANSFER];
		clock_drop(&world);
	}
	assert_true(transfer[1] > transfer[0] + 35 * MS);
}

static void test_state_that_is_written_again(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 2);
	world.costs[1].initial = 2000000;
	world.costs[1].dirty_rate = 4000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_true(source_of(&world)->report.passes >= 2);
	clock_drop(&world);
}

static void test_writers_go_on_until_they_are_stopped(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 1);
	/* 200 ms of quiescing in which 300 kB are written: 30 ms of the link. */
	world.costs[0].dma_rate = 1500000;
	world.costs[0].quiesce_us = 100 * MS;
	world.costs[0].stop_us = 100 * MS;
	world.costs[0].load_us = 100 * MS;
	world.sides[0].options.downtime_limit_us = 2000 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	clock_drop(&world);
}

static void test_without_precopy(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 2);
	world.costs[1].fixed = 500000;
	world.costs[1].stop_us = 20 * MS;
	world.costs[1].load_us = 20 * MS;
	world.sides[0].options.no_precopy = true;
	world.sides[0].options.downtime_limit_us = 2000 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_int_equal(source_of(&world)->report.passes, 0);
	clock_drop(&world);
}

static void test_ORD_7_untracked_memory(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 2);
	world.costs[1].untracked = true;
	world.sides[0].options.downtime_limit_us = 2000 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_int_equal(source_of(&world)->report.stop_bytes, MEMORY + 2000);
	clock_drop(&world);
}

/* ---- limits ---- */

static void test_what_cannot_fit_is_given_up_and_explained(void **state)
{
	struct clock_world world;

	(void)state;
	/* Twice what the link carries, round and round through 2 MiB. */
	clock_make(&world, 2);
	world.user_rate = 20000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_given_up(&world, "the user writes ");
	assert_non_null(strstr(source_of(&world)->err.text, "and the link carries 9."));
	assert_true(source_of(&world)->report.passes < 10);
	clock_drop(&world);
	clock_make(&world, 2);
	world.costs[1].dma_rate = 20000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_given_up(&world, "device 'disk' writes ");
	clock_drop(&world);
	clock_make(&world, 2);
	world.costs[1].stop_us = 400 * MS;
	world.costs[1].load_us = 10 * MS;
	assert_true(clock_run(&world));
	expect_given_up(&world, "changes of state and loading take ");
	clock_drop(&world);
	clock_make(&world, 2);
	world.costs[1].untracked = true;
	assert_true(clock_run(&world));
	expect_given_up(&world, "8.0 MiB of memory move after the stop, since disk does not tell");
	clock_drop(&world);
	clock_make(&world, 2);
	world.costs[0].initial = 100000;
	world.costs[0].fixed = 900000;
	world.costs[0].read_rate = 1000000;
	assert_true(clock_run(&world));
	expect_given_up(&world, "device 'nic' has 878.9 KiB of state that moves only after the "
				"stop and gives no more than 976.");
	clock_drop(&world);
	clock_make(&world, 1);
	world.costs[0].fixed = 9000000;
	world.sides[0].options.no_precopy = true;
	assert_true(clock_run(&world));
	expect_given_up(&world, "device 'nic' has 8.6 MiB of state");
	assert_int_equal(source_of(&world)->report.passes, 0);
	clock_drop(&world);
}

static void test_or_exceeded_when_that_is_allowed(void **state)
{
	struct clock_world world;
	uint32_t passes;

	(void)state;
	clock_make(&world, 2);
	world.user_rate = 20000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	world.sides[0].options.exceed_downtime = true;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	/* As soon as more passes bring nothing, and not when there may be no more. */
	passes = source_of(&world)->report.passes;
	assert_true(passes > 4 && passes < 10);
	assert_true(source_of(&world)->report.measured.total_us > 100 * MS);
	clock_drop(&world);
}

static void test_the_limit_that_was_asked_for_suffices(void **state)
{
	struct clock_world world;
	const char *advice;
	uint64_t limit;

	(void)state;
	clock_make(&world, 2);
	world.user_rate = 20000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_given_up(&world, "the user writes ");
	advice = strstr(source_of(&world)->err.text, "raise the limit to ");
	limit = strtoull(advice + strlen("raise the limit to "), NULL, 10) * MS;
	clock_drop(&world);
	clock_make(&world, 2);
	world.user_rate = 20000000;
	world.sides[0].options.downtime_limit_us = limit;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_true(source_of(&world)->report.downtime_us <= limit);
	clock_drop(&world);
}

static void test_passes_are_bounded(void **state)
{
	struct clock_world world;

	(void)state;
	clock_make(&world, 2);
	world.user_rate = 6000000;
	world.sides[0].options.downtime_limit_us = 30 * MS;
	world.sides[0].options.max_passes = 2;
	assert_true(clock_run(&world));
	expect_given_up(&world, "the user writes ");
	assert_int_equal(source_of(&world)->report.passes, 2);
	clock_drop(&world);
}

static void test_it_waits_for_a_quieter_time(void **state)
{
	struct clock_world world;

	(void)state;
	/* Too much at first, and little after three passes. */
	clock_make(&world, 2);
	world.user_rate = 20000000;
	world.user_rate_end = 500000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	assert_true(source_of(&world)->report.downtime_us <= 100 * MS);
	clock_drop(&world);
}

static void test_bandwidth_is_kept_and_predicted(void **state)
{
	const struct qsc_migrate_report *report;
	struct clock_world world;
	uint64_t us;

	(void)state;
	clock_make(&world, 3);
	world.costs[1].initial = 300000;
	world.costs[1].fixed = 50000;
	world.user_rate = 500000;
	world.sides[0].options.bandwidth = 2000000;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	report = &source_of(&world)->report;
	/* All channels together, answers left out, from end to end. */
	us = report->total_us;
	assert_in_range(world.sent * 1000000 / us, 1800000, 2060000);
	assert_true(us > 4000 * MS);
	clock_drop(&world);
}

static void test_progress_tells_rates_and_prediction(void **state)
{
	const struct qsc_migrate_progress *last = NULL;
	struct clock_world world;
	uint32_t i;

	(void)state;
	clock_make(&world, 2);
	world.user_rate = 2000000;
	world.sides[0].options.downtime_limit_us = 100 * MS;
	assert_true(clock_run(&world));
	expect_as_predicted(&world);
	for (i = 0; i < world.num_samples; i++)
		if (strcmp(world.samples[i].phase, "pre-copy") == 0)
			last = &world.samples[i];
	assert_non_null(last);
	assert_in_range(last->bytes_per_second, 9000000, 10100000);
	assert_in_range(last->dirty_per_second, 1800000, 2200000);
	assert_int_equal(last->downtime_limit_us, 100 * MS);
	assert_true(last->predicted_downtime_us > 0);
	/* Several times a second: the first pass takes most of one. */
	assert_true(world.num_samples >= 8);
	clock_drop(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_quick_devices_and_a_steady_writer),
		cmocka_unit_test(test_slow_arcs_are_predicted),
		cmocka_unit_test(test_a_slow_device_is_not_a_slow_link),
		cmocka_unit_test(test_slow_devices_go_side_by_side_as_lanes_allow),
		cmocka_unit_test(test_state_that_is_written_again),
		cmocka_unit_test(test_writers_go_on_until_they_are_stopped),
		cmocka_unit_test(test_without_precopy),
		cmocka_unit_test(test_ORD_7_untracked_memory),
		cmocka_unit_test(test_what_cannot_fit_is_given_up_and_explained),
		cmocka_unit_test(test_or_exceeded_when_that_is_allowed),
		cmocka_unit_test(test_the_limit_that_was_asked_for_suffices),
		cmocka_unit_test(test_passes_are_bounded),
		cmocka_unit_test(test_it_waits_for_a_quieter_time),
		cmocka_unit_test(test_bandwidth_is_kept_and_predicted),
		cmocka_unit_test(test_progress_tells_rates_and_prediction),
	};

	return cmocka_run_group_tests_name("deadline", tests, NULL, NULL);
}
