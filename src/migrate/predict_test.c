/* SPDX-License-Identifier: MIT */
/*
 * Predictions against sums done by hand, the verdict under noise, and who the sentence names.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/predict.h"

#define MB	1000000ULL
#define MEMBERS 3

struct fixture {
	struct qsc_predict predict;
	struct qsc_predict_member members[MEMBERS];
	struct qsc_downtime downtime;
	char text[512];
};

/* 100 MB a second, and every time known: 1 + 2 + 3 + 4 + … ms. */
static void make(struct fixture *f)
{
	static const char *const names[MEMBERS] = {"nic", "disk", "gpu"};
	int part;
	uint32_t i;

	*f = (struct fixture){0};
	f->predict = (struct qsc_predict){
		.limit_us = 300000,
		.lanes = MEMBERS,
		.memory_bytes = 1000 * MB,
		.members = f->members,
		.num_members = MEMBERS,
	};
	for (i = 0; i < MEMBERS; i++)
		f->members[i].name = names[i];
	for (part = 0; part < QSC_DOWNTIME_PARTS; part++)
		qsc_time_add(&f->predict.part[part], 1000ULL * (unsigned int)(part + 1));
	qsc_rate_add(&f->predict.link, 10 * MB, 100000);
}

static uint64_t transfer_us(struct fixture *f)
{
	qsc_predict_stop(&f->predict, &f->downtime);
	return f->downtime.part_us[QSC_DOWNTIME_TRANSFER];
}

static void expect(const struct fixture *f, const char *wanted)
{
	if (!strstr(f->text, wanted))
		print_error("\"%s\" is not in \"%s\"\n", wanted, f->text);
	assert_non_null(strstr(f->text, wanted));
}

static void explain(struct fixture *f)
{
	qsc_predict_stop(&f->predict, &f->downtime);
	(void)qsc_predict_judge(&f->predict, &f->downtime);
	qsc_predict_explain(&f->predict, &f->downtime, f->text, sizeof(f->text));
}

/* ---- measurements ---- */

static void test_recent_passes_count_more(void **state)
{
	struct qsc_rate rate = {0};
	struct qsc_time time = {0};
	uint32_t i;

	(void)state;
	assert_int_equal(qsc_rate_per_second(&rate), 0);
	/* A pass of ten seconds at 10 MB/s, then passes of 10 ms at 50 MB/s. */
	qsc_rate_add(&rate, 100 * MB, 10000000);
	assert_int_equal(qsc_rate_per_second(&rate), 10 * MB);
	qsc_rate_add(&rate, MB / 2, 10000);
	/* 50 ms of the old, 10 of the new. */
	assert_int_equal(qsc_rate_per_second(&rate), 16666666);
	for (i = 0; i < 20; i++)
		qsc_rate_add(&rate, MB / 2, 10000);
	assert_in_range(qsc_rate_per_second(&rate), 45 * MB, 50 * MB);
	/* A pass of a second outweighs all of them. */
	qsc_rate_add(&rate, 10 * MB, 1000000);
	assert_in_range(qsc_rate_per_second(&rate), 10 * MB, 13 * MB);
	/* Nothing was written: that is known too. */
	rate = (struct qsc_rate){0};
	qsc_rate_add(&rate, 0, 1000);
	assert_int_equal(qsc_rate_per_second(&rate), 1);
	/* Too fast for the clock. */
	rate = (struct qsc_rate){0};
	qsc_rate_add(&rate, 5, 0);
	assert_int_equal(qsc_rate_per_second(&rate), 5 * MB);
	qsc_time_add(&time, 1000);
	assert_int_equal(time.us, 1000);
	qsc_time_add(&time, 2000);
	qsc_time_add(&time, 2000);
	assert_int_equal(time.us, 1750);
}

/* ---- the prediction ---- */

/*
 * Fresh devices there stop at once; here one has 64 MiB of memory to look through, which it did
 * whenever it was asked what is left.
 */
static void test_who_looks_through_memory_does_so_in_the_stop(void **state)
{
	struct fixture f;
	struct qsc_downtime before;

	(void)state;
	make(&f);
	f.predict.part[QSC_DOWNTIME_STOP].us = 900;
	f.predict.part[QSC_DOWNTIME_RUN].us = 500;
	f.predict.askers = 2;
	qsc_predict_stop(&f.predict, &before);
	qsc_time_add(&f.members[0].look, 40);
	qsc_time_add(&f.members[1].look, 34000);
	qsc_predict_stop(&f.predict, &f.downtime);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_STOP], 34900);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_RUN], 34500);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_LOAD], before.part_us[QSC_DOWNTIME_LOAD]);
	/* More of them than were asked at a time: a wave does not have more processors either. */
	f.members[2].look.us = 35000;
	qsc_predict_stop(&f.predict, &f.downtime);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_STOP], 900 + 35000);
	f.members[0].look.us = 35000;
	qsc_predict_stop(&f.predict, &f.downtime);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_STOP], 900 + 52000);
	/* Into a file nobody starts. */
	f.predict.part[QSC_DOWNTIME_RUN] = (struct qsc_time){.known = true};
	qsc_predict_stop(&f.predict, &f.downtime);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_RUN], 0);
}

static void test_parts_are_those_measured_or_assumed(void **state)
{
	struct fixture f;
	uint64_t sum = 0;
	int part;

	(void)state;
	make(&f);
	/* Nothing is left: the round still goes there and back. */
	assert_int_equal(transfer_us(&f), 7000);
	for (part = 0; part < QSC_DOWNTIME_PARTS; part++) {
		if (part != QSC_DOWNTIME_TRANSFER)
			assert_int_equal(f.downtime.part_us[part], 1000 * (part + 1));
		sum += f.downtime.part_us[part];
	}
	assert_int_equal(f.downtime.total_us, sum);
	memset(f.predict.part, 0, sizeof(f.predict.part));
	f.predict.link = (struct qsc_rate){0};
	f.predict.memory_left = QSC_PREDICT_LINK / 10;
	assert_in_range(transfer_us(&f), 100199, 100200);
	for (part = 0; part < QSC_DOWNTIME_PARTS; part++)
		if (part != QSC_DOWNTIME_TRANSFER)
			assert_int_equal(f.downtime.part_us[part],
					 qsc_predict_assumed_us((enum qsc_downtime_part)part));
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_STOP], 1000);
	assert_int_equal(f.downtime.part_us[QSC_DOWNTIME_COMMIT], 200);
}

static void test_bytes_of_all_share_the_link(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.memory_left = 5 * MB;
	f.members[0].left = 1 * MB;
	f.members[1].fixed = 4 * MB;
	assert_int_equal(transfer_us(&f), 7000 + 100000);
	assert_int_equal(qsc_predict_left(&f.predict), 6 * MB);
	assert_int_equal(qsc_predict_link_per_second(&f.predict), 100 * MB);
	f.predict.bandwidth = 50 * MB;
	assert_int_equal(transfer_us(&f), 7000 + 200000);
	/* A limit that the link does not reach takes nothing away. */
	f.predict.bandwidth = 500 * MB;
	assert_int_equal(transfer_us(&f), 7000 + 100000);
	f.predict.link = (struct qsc_rate){0};
	f.predict.bandwidth = 20 * MB;
	assert_int_equal(transfer_us(&f), 7000 + 500000);
}

static void test_a_device_gives_no_faster_than_it_can(void **state)
{
	struct fixture f;
	uint32_t i;

	(void)state;
	make(&f);
	for (i = 0; i < MEMBERS; i++) {
		f.members[i].fixed = 1 * MB;
		qsc_rate_add(&f.members[i].read, 1 * MB, 190000);
	}
	/* Side by side: 190 ms until they have given it, and then 30 of the link. */
	assert_in_range(transfer_us(&f), 7000 + 219999, 7000 + 220000);
	/* Memory goes on by a channel of its own. */
	f.predict.memory_left = 10 * MB;
	assert_in_range(transfer_us(&f), 7000 + 219999, 7000 + 220000);
	f.predict.memory_left = 18 * MB;
	assert_in_range(transfer_us(&f), 7000 + 219999, 7000 + 220000);
	f.predict.memory_left = 30 * MB;
	assert_in_range(transfer_us(&f), 7000 + 329999, 7000 + 330000);
	/* A device that is quick needs the link no later. */
	f.predict.memory_left = 0;
	f.members[0].read = (struct qsc_rate){0};
	assert_in_range(transfer_us(&f), 7000 + 199999, 7000 + 200000);
	f.members[0].read = f.members[1].read;
	f.predict.memory_left = 10 * MB;
	/* Two lanes: one takes two of them. */
	f.predict.lanes = 2;
	assert_in_range(transfer_us(&f), 7000 + 399999, 7000 + 400000);
	f.predict.lanes = 1;
	f.predict.memory_shares_lane = true;
	assert_in_range(transfer_us(&f), 7000 + 699999, 7000 + 700000);
	/* Whoever is done first takes the next one. */
	f.predict.lanes = 2;
	f.predict.memory_shares_lane = false;
	f.members[0].fixed = 3 * MB;
	assert_in_range(transfer_us(&f), 7000 + 599999, 7000 + 600000);
}

static void test_what_runs_writes_until_it_is_stopped(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	/* 1 + 2 + 3 ms of pause, quiesce and stop. */
	qsc_rate_add(&f.predict.user, 50 * MB, 1000000);
	qsc_rate_add(&f.members[1].dma, 30 * MB, 1000000);
	qsc_rate_add(&f.members[2].dirty, 20 * MB, 1000000);
	assert_int_equal(transfer_us(&f), 7000 + 6000);
	assert_int_equal(qsc_predict_dirty_per_second(&f.predict), 100 * MB);
	/* There is no more memory than there is. */
	f.predict.memory_bytes = 20 * MB;
	f.predict.memory_left = 20 * MB;
	assert_int_equal(transfer_us(&f), 7000 + 200000 + 1200);
}

static void test_ORD_7_untracked_memory_moves_as_a_whole(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.memory_left = 1 * MB;
	f.predict.untracked = "disk";
	assert_int_equal(transfer_us(&f), 7000 + 10000000);
	/* No pass makes it less. */
	assert_int_equal(qsc_predict_left(&f.predict), 0);
}

/* ---- the verdict ---- */

static enum qsc_predict_verdict judge(struct fixture *f, uint64_t left, uint64_t link_percent)
{
	f->predict.memory_left = left;
	f->predict.link = (struct qsc_rate){(double)(link_percent * MB), 1e6};
	qsc_predict_stop(&f->predict, &f->downtime);
	return qsc_predict_judge(&f->predict, &f->downtime);
}

static void test_it_fits_at_the_limit_and_not_above(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	/* 38 ms is what the others take. */
	f.predict.limit_us = 138000;
	assert_int_equal(judge(&f, 10 * MB, 100), QSC_PREDICT_FITS);
	assert_int_equal(f.downtime.total_us, 138000);
	f.predict.limit_us = 137999;
	assert_int_equal(judge(&f, 10 * MB, 100), QSC_PREDICT_CONVERGES);
}

static void test_slow_progress_is_progress(void **state)
{
	struct fixture f;
	uint64_t left = 1000 * MB;
	uint32_t pass;

	(void)state;
	make(&f);
	f.predict.limit_us = 1;
	/* Two percent a pass. */
	for (pass = 0; pass < 40; pass++) {
		assert_int_equal(judge(&f, left, 100), QSC_PREDICT_CONVERGES);
		left -= left / 50;
	}
}

static void test_next_to_no_progress_is_none(void **state)
{
	struct fixture f;
	uint64_t left = 1000 * MB;
	uint32_t pass;

	(void)state;
	make(&f);
	f.predict.limit_us = 1;
	/* Half a percent a pass would take hundreds of them. */
	for (pass = 0; judge(&f, left, 100) == QSC_PREDICT_CONVERGES; pass++)
		left -= left / 200;
	assert_int_equal(pass, QSC_PREDICT_PATIENCE);
}

static void test_noise_decides_nothing(void **state)
{
	static const uint64_t noise[] = {100, 160, 70, 90, 130, 65, 110, 150, 80, 100};
	struct fixture f;
	uint64_t left = 1000 * MB;
	uint32_t pass;

	(void)state;
	/* A link that is fast for one pass and slow for the next, and a seventh less each pass. */
	make(&f);
	for (pass = 0; left > 40 * MB; pass++) {
		assert_int_equal(judge(&f, left, noise[pass % QSC_ARRAY_SIZE(noise)]),
				 QSC_PREDICT_CONVERGES);
		left -= left / 7;
	}
	assert_int_equal(judge(&f, 20 * MB, 100), QSC_PREDICT_FITS);
	/* And what stays as it is does not pass for progress by it. */
	make(&f);
	for (pass = 0; judge(&f, 100 * MB, noise[pass % 3]) == QSC_PREDICT_CONVERGES; pass++)
		assert_true(pass < 8);
	assert_true(pass >= QSC_PREDICT_PATIENCE);
}

static void test_a_burst_is_waited_for(void **state)
{
	static const uint64_t left[] = {100, 60, 300, 300, 300, 50, 300, 300, 300};
	struct fixture f;
	uint32_t pass;

	(void)state;
	make(&f);
	for (pass = 0; pass < QSC_ARRAY_SIZE(left); pass++)
		assert_int_equal(judge(&f, left[pass] * MB, 100), QSC_PREDICT_CONVERGES);
	assert_int_equal(judge(&f, 300 * MB, 100), QSC_PREDICT_NEVER);
	assert_int_equal(f.predict.least_us, 38000 + 500000);
	/* It may fit for all that. */
	assert_int_equal(judge(&f, 10 * MB, 100), QSC_PREDICT_FITS);
}

static void test_fewer_bytes_are_progress_on_a_slower_link(void **state)
{
	struct fixture f;
	uint32_t pass;

	(void)state;
	make(&f);
	for (pass = 0; pass < 8; pass++)
		assert_int_equal(judge(&f, (100 - 10 * pass) * MB, 100 - 11 * pass),
				 QSC_PREDICT_CONVERGES);
}

/* ---- the sentence ---- */

static void test_it_names_who_writes_memory(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.memory_left = 100 << 20;
	f.predict.link = (struct qsc_rate){100 << 20, 1e6};
	qsc_rate_add(&f.predict.user, 80 << 20, 1000000);
	qsc_rate_add(&f.members[1].dma, 70 << 20, 1000000);
	explain(&f);
	expect(&f, "the stop would take 1047 ms and may take 300 ms");
	expect(&f, "the least it came to is 1047 ms: the user writes 80.0 MiB a second (all "
		   "together 150.0 MiB a second) of memory again and the link carries 100.0 MiB a "
		   "second");
	/* 262 ms are left for 100.9 MiB. */
	expect(&f, "; raise the limit to 1178 ms, provide 385.1 MiB a second, or let the limit be "
		   "exceeded");
	qsc_rate_add(&f.members[1].dma, 500 << 20, 1000000);
	f.predict.bandwidth = 50 << 20;
	f.predict.least_us = 900000;
	explain(&f);
	expect(&f, "the least it came to is 900 ms: device 'disk' writes 356.7 MiB a second of "
		   "memory again and the bandwidth allows 50.0 MiB a second");
	expect(&f, ", allow ");
	f.predict.no_precopy = true;
	explain(&f);
	expect(&f, "; nothing moved before the stop, as was asked for; raise the limit to ");
	expect(&f, ", let it move before the stop, or let the limit be exceeded");
}

static void test_it_names_a_device_and_its_state(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.link = (struct qsc_rate){100 << 20, 1e6};
	f.members[0].left = 10 << 20;
	f.members[2].fixed = 800 << 20;
	explain(&f);
	expect(&f, "device 'gpu' has 800.0 MiB of state that moves only after the stop and the "
		   "link carries 100.0 MiB a second");
	expect(&f, ", provide 3.0 GiB a second, ");
	f.members[2].fixed = 0;
	f.members[0].left = 90 << 20;
	qsc_rate_add(&f.members[0].dirty, 60 << 20, 1000000);
	explain(&f);
	expect(&f, "device 'nic' writes 60.0 MiB a second of its state again and the link");
	/* Not one device has as much as memory, but all of them have more. */
	f.members[1].left = 70 << 20;
	f.predict.memory_left = 120 << 20;
	qsc_rate_add(&f.members[1].dirty, 40 << 20, 1000000);
	qsc_rate_add(&f.predict.user, 1 << 20, 1000000);
	explain(&f);
	expect(&f, "device 'nic' writes 60.0 MiB a second (all together 101.0 MiB a second) of its "
		   "state again and the link");
	f.members[1] = (struct qsc_predict_member){.name = "disk"};
	f.predict.memory_left = 0;
	f.predict.user = (struct qsc_rate){0};
	/* No link makes a slow device faster. */
	f.members[1].fixed = 2 << 20;
	qsc_rate_add(&f.members[1].read, 1 << 20, 1000000);
	explain(&f);
	expect(&f, "device 'disk' has 2.0 MiB of state that moves only after the stop and gives "
		   "no more than 1.0 MiB a second; raise the limit to ");
	assert_null(strstr(f.text, "provide"));
}

/* What is left at the moment may be of one who writes little. */
static void test_it_names_the_fastest_whoever_has_the_bytes(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.link = (struct qsc_rate){100 << 20, 1e6};
	f.predict.memory_left = 100 << 20;
	f.members[1].left = 10 << 20;
	qsc_rate_add(&f.predict.user, 3 << 20, 1000000);
	qsc_rate_add(&f.members[1].dirty, 20 << 20, 1000000);
	explain(&f);
	expect(&f, "device 'disk' writes 20.0 MiB a second of its state again and the link");
	/* Nobody has been seen to write anything. */
	f.members[1].dirty = f.predict.user = (struct qsc_rate){0};
	explain(&f);
	expect(&f, ": 110.0 MiB are left and the link carries 100.0 MiB a second; raise");
	f.predict.no_precopy = true;
	explain(&f);
	expect(&f,
	       ": 110.0 MiB of memory and device state move after the stop and the link carries "
	       "100.0 MiB a second; nothing moved before the stop, as was asked for; raise");
}

static void test_it_names_what_no_link_shortens(void **state)
{
	struct fixture f;

	(void)state;
	make(&f);
	f.predict.limit_us = 60000;
	f.predict.part[QSC_DOWNTIME_LOAD].us = 400000;
	explain(&f);
	expect(&f, "whatever moves, changes of state and loading take 432 ms, of which 'load' "
		   "400 ms; raise the limit to 486 ms, or let the limit be exceeded");
	qsc_rate_add(&f.members[2].dma, 5 << 20, 1000000);
	explain(&f);
	expect(&f, "of which 'load' 400 ms, and device 'gpu' writes 5.0 MiB a second of memory "
		   "again; raise");
	make(&f);
	f.predict.untracked = "disk";
	explain(&f);
	expect(&f, "953.7 MiB of memory move after the stop, since disk does not tell what it "
		   "writes and the link carries 95.4 MiB a second");
}

static void test_any_room_for_the_sentence_will_do(void **state)
{
	struct fixture f;
	size_t size;

	(void)state;
	make(&f);
	f.predict.memory_left = 100 * MB;
	qsc_predict_stop(&f.predict, &f.downtime);
	for (size = 1; size < sizeof(f.text); size++) {
		memset(f.text, 'x', sizeof(f.text));
		qsc_predict_explain(&f.predict, &f.downtime, f.text, size);
		assert_true(strlen(f.text) < size);
		assert_int_equal(f.text[size], 'x');
	}
}

static void test_error_is_a_part_of_what_was_measured(void **state)
{
	const struct qsc_downtime measured = {.total_us = 200};
	const struct qsc_downtime less = {.total_us = 150};
	const struct qsc_downtime more = {.total_us = 300};
	const struct qsc_downtime none = {0};
	const struct qsc_downtime huge = {.total_us = UINT64_MAX};

	(void)state;
	assert_int_equal(qsc_predict_error(&less, &measured), 250);
	assert_int_equal(qsc_predict_error(&more, &measured), -500);
	assert_int_equal(qsc_predict_error(&more, &none), 0);
	assert_true(qsc_predict_error(&huge, &measured) < -1000000);
}

static void test_parts_have_names(void **state)
{
	(void)state;
	assert_string_equal(qsc_downtime_part_name(QSC_DOWNTIME_PAUSE), "pause");
	assert_string_equal(qsc_downtime_part_name(QSC_DOWNTIME_TRANSFER), "transfer");
	assert_string_equal(qsc_downtime_part_name(QSC_DOWNTIME_RUN), "run");
	assert_string_equal(qsc_downtime_part_name(QSC_DOWNTIME_PARTS), "?");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recent_passes_count_more),
		cmocka_unit_test(test_parts_are_those_measured_or_assumed),
		cmocka_unit_test(test_who_looks_through_memory_does_so_in_the_stop),
		cmocka_unit_test(test_bytes_of_all_share_the_link),
		cmocka_unit_test(test_a_device_gives_no_faster_than_it_can),
		cmocka_unit_test(test_what_runs_writes_until_it_is_stopped),
		cmocka_unit_test(test_ORD_7_untracked_memory_moves_as_a_whole),
		cmocka_unit_test(test_it_fits_at_the_limit_and_not_above),
		cmocka_unit_test(test_slow_progress_is_progress),
		cmocka_unit_test(test_next_to_no_progress_is_none),
		cmocka_unit_test(test_noise_decides_nothing),
		cmocka_unit_test(test_a_burst_is_waited_for),
		cmocka_unit_test(test_fewer_bytes_are_progress_on_a_slower_link),
		cmocka_unit_test(test_it_names_who_writes_memory),
		cmocka_unit_test(test_it_names_a_device_and_its_state),
		cmocka_unit_test(test_it_names_the_fastest_whoever_has_the_bytes),
		cmocka_unit_test(test_it_names_what_no_link_shortens),
		cmocka_unit_test(test_any_room_for_the_sentence_will_do),
		cmocka_unit_test(test_error_is_a_part_of_what_was_measured),
		cmocka_unit_test(test_parts_have_names),
	};

	return cmocka_run_group_tests_name("predict", tests, NULL, NULL);
}
