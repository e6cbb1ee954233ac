/* SPDX-License-Identifier: MIT */
/*
 * Both sides of the engine over real UNIX sockets, each in a thread, with scripted devices: what
 * arrives, and what a failure of any step leaves on either side.
 */
#include <errno.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/sides.h"

/* ---- it moves ---- */

/* A transport whose first wait for a source finds nobody. */
struct late_transport {
	struct qsc_transport transport;
	struct qsc_transport *inner;
	bool waited;
};

static int late_open(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		     struct qsc_error *err)
{
	struct late_transport *late = (struct late_transport *)transport;

	if (!late->waited) {
		late->waited = true;
		return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected");
	}
	return late->inner->ops->open(late->inner, timeout_ms, ch, err);
}

static void late_close(struct qsc_transport *transport)
{
	qsc_transport_close(((struct late_transport *)transport)->inner);
}

static void test_waiting_for_a_late_source_is_no_error(void **state)
{
	static const struct qsc_transport_ops ops = {
		.name = "late",
		.open = late_open,
		.close = late_close,
	};
	struct late_transport late = {.transport = {&ops}};
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	late.inner = f.sides[1].transport;
	f.sides[1].transport = &late.transport;
	sides_migrate(&f);
	assert_true(late.waited);
	sides_expect_moved(&f);
	sides_drop(&f);
}

static void test_moves_with_every_kind_of_device(void **state)
{
	static const uint32_t sets[] = {1, 3, 5, 7};
	uint32_t i;

	(void)state;
	for (i = 0; i < 16; i++) {
		const uint32_t flags[] = {sets[i % 4], sets[i / 4], 7};
		struct fixture f;

		sides_make(&f, flags, true);
		f.sides[0].options.channels = i % 6;
		f.sides[0].options.no_precopy = i == 15;
		sides_migrate(&f);
		sides_expect_moved(&f);
		assert_int_equal(f.sides[0].report.device_bytes, 3 * SIDES_STATE + 3);
		sides_drop(&f);
	}
}

static void test_ORD_7_untracked_memory_is_sent_after_the_stop(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, false);
	sides_migrate(&f);
	sides_expect_moved(&f);
	/* Pages of zeroes are not sent as bytes, the others once, all of them stopped. */
	assert_true(f.sides[0].report.stop_bytes >= (uint64_t)SIDES_PAGES / 3 * QSC_PAGE_SIZE);
	sides_drop(&f);
}

/* Member 1 of sides_mixed_flags, which has no P2P states, reaches member 0. */
static void make_reaching(struct fixture *f)
{
	const struct qsc_peer_mapping mapping = {
		.iova = 0x40000000, .size = 4096, .flags = QSC_DMA_WRITE, .region = 2};
	uint32_t i;

	sides_make(f, sides_mixed_flags, true);
	for (i = 0; i < 2; i++)
		assert_int_equal(qsc_set_map_peer(f->sides[i].set, 1, &mapping, NULL), 0);
}

static void test_revoked_mappings_survive_a_move(void **state)
{
	struct fixture f;
	uint32_t i;

	(void)state;
	make_reaching(&f);
	for (i = 0; i < 2; i++)
		f.sides[i].options.quiesce = QSC_QUIESCE_AUTO;
	sides_migrate(&f);
	sides_expect_moved(&f);
	sides_drop(&f);
}

static void test_SET_3_nothing_is_revoked_unasked(void **state)
{
	struct fixture f;
	size_t mapped;

	(void)state;
	make_reaching(&f);
	mapped = f.world.count;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, EOPNOTSUPP);
	assert_string_equal(f.sides[0].err.clause, "SET-3");
	assert_int_equal(f.world.count, mapped);
	sides_drop(&f);
	/* A destination that was not told to may refuse as well. */
	make_reaching(&f);
	f.sides[0].options.quiesce = QSC_QUIESCE_REVOKE;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, EOPNOTSUPP);
	assert_int_equal(f.world.count, mapped);
	sides_drop(&f);
}

static void test_timeline_and_report_add_up(void **state)
{
	static const char *const wanted[] = {"negotiate", "log-start", "precopy", "quiesce",
					     "stop",	  "stop-copy", "commit"};
	const struct qsc_phase *phases;
	struct fixture f;
	size_t count;
	size_t i;
	size_t j;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	sides_migrate(&f);
	sides_expect_moved(&f);
	count = qsc_timeline_phases(f.sides[0].timeline, &phases);
	for (i = 0; i < QSC_ARRAY_SIZE(wanted); i++) {
		for (j = 0; j < count && strcmp(phases[j].name, wanted[i]) != 0; j++)
			;
		assert_true(j < count);
	}
	assert_true(f.sides[0].report.passes >= 1);
	assert_true(f.sides[0].report.downtime_us <= f.sides[0].report.total_us);
	assert_int_equal(f.sides[0].report.memory_bytes, f.sides[1].report.memory_bytes);
	assert_int_equal(f.sides[0].report.device_bytes, f.sides[1].report.device_bytes);
	sides_drop(&f);
}

/* ---- it does not, and the source goes on ---- */

static void test_differences_are_listed_at_once(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].fakes[0]->options.bar_bytes = 4096;
	f.sides[1].region.address += QSC_PAGE_SIZE;
	f.sides[0].fakes[1]->layout.parts[0].version = 3;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, EMEDIUMTYPE);
	assert_non_null(
		strstr(f.sides[0].err.text, "region 2 of 'nic' has 0x2000 bytes at the source"));
	assert_non_null(strstr(f.sides[0].err.text, "memory region 0"));
	assert_non_null(strstr(f.sides[0].err.text,
			       "section contents has version 3 at the source, and 1 to "
			       "2 can be loaded at the destination"));
	assert_int_equal(f.world.count, 0);
	sides_drop(&f);
}

static void test_any_failing_call_before_commit(void **state)
{
	static const struct {
		uint32_t side;
		enum fake_call call;
		uint32_t target;
		int nth;
	} cases[] = {
		{0, FAKE_LOG_START, UINT32_MAX, 1},
		{0, FAKE_LOG_REPORT, UINT32_MAX, 1},
		{0, FAKE_LOG_REPORT, UINT32_MAX, 2},
		{0, FAKE_SET_STATE, QSC_STATE_PRE_COPY, 1},
		{0, FAKE_SET_STATE, QSC_STATE_PRE_COPY_P2P, 1},
		{0, FAKE_SET_STATE, QSC_STATE_STOP_COPY, 1},
		{0, FAKE_SESSION_READ, UINT32_MAX, 1},
		{0, FAKE_SESSION_READ, UINT32_MAX, 3},
		{1, FAKE_SET_STATE, QSC_STATE_RESUMING, 1},
		{1, FAKE_SESSION_WRITE, UINT32_MAX, 1},
		{1, FAKE_SESSION_WRITE, UINT32_MAX, 2},
		{1, FAKE_SET_STATE, QSC_STATE_STOP, 2},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		fake_fail(f.sides[cases[i].side].fakes[1], cases[i].call, cases[i].target,
			  cases[i].nth, EIO, -1);
		sides_migrate(&f);
		if (f.sides[0].result != -EIO)
			print_error("case %zu: %s\n", i, f.sides[0].err.text);
		sides_expect_source_goes_on(&f, EIO);
		assert_non_null(strstr(f.sides[0].err.text, "'disk'"));
		sides_drop(&f);
	}
}

static void test_user_callbacks_may_refuse(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct fixture f;

		sides_make(&f, sides_mixed_flags, true);
		f.sides[0].fail_pause = i == 0 ? -ENOMEM : 0;
		f.sides[1].fail_load = i == 1 ? -ENOMEM : 0;
		f.sides[1].fail_irqs = i == 2 ? -ENOMEM : 0;
		sides_migrate(&f);
		sides_expect_source_goes_on(&f, ENOMEM);
		sides_drop(&f);
	}
}

static void test_cancel_at_any_step_on_either_side(void **state)
{
	uint32_t side;
	uint32_t step;

	(void)state;
	for (side = 0; side < 2; side++) {
		for (step = 1; step < 40; step++) {
			struct fixture f;
			bool cancelled;

			sides_make(&f, sides_p2p_flags, true);
			f.sides[side].cancel_after = step;
			sides_migrate(&f);
			cancelled = f.sides[side].result == -ECANCELED;
			if (cancelled)
				sides_expect_source_goes_on(
					&f, f.sides[0].result ? -f.sides[0].result : 0);
			else
				sides_expect_moved(&f);
			sides_drop(&f);
			if (!cancelled)
				break;
		}
		assert_true(step > 3 && step < 40);
	}
}

/* The destination takes longer to load than the source waits for it. */
static int wait_for_the_source_to_end(void *ctx, const void *buf, size_t size)
{
	struct side *side = ctx;

	while (!side->fixture->sides[0].finished)
		(void)usleep(1000);
	return 0;
}

static void test_a_source_that_waits_no_longer_says_so(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[0].options.stall_timeout_ms = 1000;
	f.sides[1].user.load = wait_for_the_source_to_end;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, ETIMEDOUT);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
	assert_non_null(strstr(f.sides[1].err.text, "the source failed: waiting for READY"));
	sides_drop(&f);
}

static void test_SET_5_destination_that_cannot_start_leaves_both_stopped(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	fake_fail(f.sides[1].fakes[2], FAKE_SET_STATE, QSC_STATE_RUNNING, 2, EIO, QSC_STATE_ERROR);
	sides_migrate(&f);
	assert_int_equal(f.sides[0].result, -EIO);
	assert_string_equal(f.sides[0].err.clause, "SET-5");
	assert_non_null(strstr(f.sides[0].err.text, "'gpu'"));
	assert_int_equal(f.sides[0].report.owner, QSC_OWNER_UNPROVED);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_UNPROVED);
	sides_all_in(&f.sides[0], QSC_STATE_STOP_COPY);
	assert_false(f.sides[0].resumed || f.sides[1].resumed);
	assert_int_equal(sides_judge(&f), -1);
	sides_drop(&f);
}

static void test_a_device_lost_at_the_source_is_said(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	fake_fail(f.sides[0].fakes[0], FAKE_SET_STATE, QSC_STATE_STOP_COPY, 1, EIO,
		  QSC_STATE_ERROR);
	sides_migrate(&f);
	assert_int_equal(f.sides[0].result, -EIO);
	assert_string_equal(f.sides[0].err.clause, "ORD-8");
	assert_non_null(strstr(f.sides[0].err.text, "'nic' is in ERROR"));
	assert_int_equal(f.sides[0].fakes[0]->resets, 0);
	assert_false(f.sides[0].resumed);
	assert_int_equal(sides_judge(&f), -1);
	sides_drop(&f);
}

static int get_no_state(struct qsc_device *dev, enum qsc_state *state)
{
	return -ENOTCONN;
}

/* A way to the destination on which a device of the source fails, and that leads nowhere. */
struct deadly_transport {
	struct qsc_transport transport;
	struct fake *fake;
	const struct qsc_device_ops *ops; /* NULL: it goes to ERROR */
};

static int deadly_open(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	struct deadly_transport *deadly = (struct deadly_transport *)transport;

	if (deadly->ops)
		deadly->fake->base.ops = deadly->ops;
	else
		deadly->fake->state = QSC_STATE_ERROR;
	return qsc_error_set(err, ECONNREFUSED, NULL, "nobody listens");
}

static void test_ORD_4_the_source_says_what_runs(void **state)
{
	static const struct qsc_transport_ops ops = {
		.name = "deadly",
		.open = deadly_open,
		.close = NULL,
	};
	static const char *const wanted[] = {"'disk' is in ERROR", "'disk' does not tell its state",
					     "'disk' is in STOP"};
	uint32_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wanted); i++) {
		struct fixture f;
		struct side *source = &f.sides[0];
		struct qsc_device_ops mute;
		struct deadly_transport deadly = {.transport = {&ops}};

		sides_make(&f, sides_p2p_flags, true);
		mute = *source->fakes[1]->base.ops;
		mute.get_state = get_no_state;
		deadly.fake = source->fakes[1];
		deadly.ops = i == 1 ? &mute : NULL;
		source->fakes[1]->state = i == 2 ? QSC_STATE_STOP : QSC_STATE_RUNNING;
		source->result = qsc_migrate_send(source->set, &source->user, &deadly.transport,
						  &source->options, &source->report, &source->err);
		assert_int_equal(source->result, i == 2 ? -EBUSY : -ECONNREFUSED);
		assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
		assert_non_null(strstr(source->report.outcome, wanted[i]));
		assert_non_null(strstr(source->report.outcome, "not all of the source's devices"));
		assert_false(source->resumed);
		sides_drop(&f);
	}
}

static void test_a_device_gone_is_not_said_to_refuse(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	fake_fail(f.sides[1].fakes[0], FAKE_SESSION_WRITE, UINT32_MAX, 1, ENOTCONN, -1);
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, ENOTCONN);
	assert_non_null(strstr(f.sides[1].err.text, "'nic' is gone"));
	assert_non_null(strstr(f.sides[0].err.text, "'nic' is gone"));
	sides_drop(&f);
}

static void test_nobody_there_is_said_at_once(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	/* For a source one may wait longer, or shorter, than for what it sends. */
	f.sides[1].options.stall_timeout_ms = 3600000;
	f.sides[1].options.wait_timeout_ms = 2;
	sides_run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_non_null(strstr(f.sides[1].err.text, "within 2 ms"));
	f.sides[0].result = qsc_migrate_send(f.sides[0].set, &f.sides[0].user, f.sides[0].transport,
					     &f.sides[0].options, &f.sides[0].report,
					     &f.sides[0].err);
	sides_expect_source_goes_on(&f, ENOENT);
	assert_int_equal(f.world.count, 0);
	sides_drop(&f);
}

/* ---- predicting ---- */

static const struct qsc_device_ops *as_it_was;
static sem_t second_asked;
static bool first_waited;

/* The first member answers when the second one has been asked as well. */
static int info_of_first(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	struct timespec end;

	if (!first_waited && clock_gettime(CLOCK_REALTIME, &end) == 0) {
		end.tv_sec += 60;
		first_waited = sem_timedwait(&second_asked, &end) == 0;
	}
	return first_waited ? as_it_was->session_precopy_info(dev, session, info) : -EIO;
}

static int info_of_second(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	(void)sem_post(&second_asked);
	return as_it_was->session_precopy_info(dev, session, info);
}

/* Who looks through much memory to tell what is left holds up none, and they share the processors
 * as they will in the stop. */
static void test_all_are_asked_side_by_side_what_is_left(void **state)
{
	struct qsc_device_ops ops[2];
	struct fixture f;
	uint32_t i;

	(void)state;
	assert_int_equal(sem_init(&second_asked, 0, 0), 0);
	first_waited = false;
	sides_make(&f, sides_p2p_flags, true);
	as_it_was = f.sides[0].fakes[0]->base.ops;
	for (i = 0; i < 2; i++) {
		ops[i] = *as_it_was;
		ops[i].session_precopy_info = i ? info_of_second : info_of_first;
		f.sides[0].fakes[i]->base.ops = &ops[i];
	}
	sides_migrate(&f);
	sides_expect_moved(&f);
	assert_true(first_waited);
	sides_drop(&f);
	(void)sem_destroy(&second_asked);
}

static const struct qsc_device_ops *slow_first;

/* A busy machine: the first few bytes of pre-copy take long, and there are no more. */
static ssize_t few_bytes(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	const struct fake *fake = qsc_container_of(dev, struct fake, base);
	ssize_t n;

	if (fake->state == QSC_STATE_STOP_COPY)
		return slow_first->session_read(dev, session, buf, size);
	if (fake->saved)
		return -ENOMSG;
	n = slow_first->session_read(dev, session, buf, 94);
	(void)usleep(45000);
	return n;
}

static int few_bytes_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	int result = slow_first->session_precopy_info(dev, session, info);

	info->initial_bytes = qsc_container_of(dev, struct fake, base)->saved ? 0 : 94;
	return result;
}

static void test_a_few_bytes_do_not_tell_how_fast_a_device_is(void **state)
{
	struct qsc_device_ops ops;
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	slow_first = f.sides[0].fakes[1]->base.ops;
	ops = *slow_first;
	ops.session_read = few_bytes;
	ops.session_precopy_info = few_bytes_info;
	f.sides[0].fakes[1]->base.ops = &ops;
	sides_migrate(&f);
	sides_expect_moved(&f);
	/* At their rate all the state would take 48 s. */
	assert_in_range(f.sides[0].report.predicted.part_us[QSC_DOWNTIME_TRANSFER], 1, 10000000);
	sides_drop(&f);
}

static int shrinking_fd;

static int shrink_in_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	struct side *side = ctx;

	side->collects++;
	if (side->collects == 1)
		assert_int_equal(ftruncate(shrinking_fd, 0), 0);
	return 0;
}

/* One lane meets memory that is gone and maps other memory there, while another still writes. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:^on_bus_error$\n";
}

/* Memory that is a file, on either side: somebody makes it shorter, and nobody dies of it. */
static void test_memory_that_is_taken_away(void **state)
{
	const size_t size = SIDES_PAGES * QSC_PAGE_SIZE;
	uint32_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct fixture f;
		struct side *side;
		void *plain;

		sides_make(&f, sides_p2p_flags, true);
		side = &f.sides[i];
		plain = side->region.vaddr;
		shrinking_fd = memfd_create("shrinks", MFD_CLOEXEC);
		assert_int_equal(ftruncate(shrinking_fd, (off_t)size), 0);
		side->region.vaddr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
					  shrinking_fd, 0);
		assert_true(side->region.vaddr != MAP_FAILED);
		memcpy(side->region.vaddr, plain, size);
		side->region.may_shrink = true;
		f.sides[0].user.dirty = shrink_in_dirty;
		sides_migrate(&f);
		assert_int_equal(side->result, -EFAULT);
		assert_non_null(strstr(side->err.text, "memory region 0 was taken away"));
		sides_expect_source_goes_on(&f, -f.sides[0].result);
		munmap(side->region.vaddr, size);
		close(shrinking_fd);
		sides_drop(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_memory_that_is_taken_away),
		cmocka_unit_test(test_waiting_for_a_late_source_is_no_error),
		cmocka_unit_test(test_moves_with_every_kind_of_device),
		cmocka_unit_test(test_ORD_7_untracked_memory_is_sent_after_the_stop),
		cmocka_unit_test(test_revoked_mappings_survive_a_move),
		cmocka_unit_test(test_SET_3_nothing_is_revoked_unasked),
		cmocka_unit_test(test_timeline_and_report_add_up),
		cmocka_unit_test(test_differences_are_listed_at_once),
		cmocka_unit_test(test_any_failing_call_before_commit),
		cmocka_unit_test(test_user_callbacks_may_refuse),
		cmocka_unit_test(test_cancel_at_any_step_on_either_side),
		cmocka_unit_test(test_a_source_that_waits_no_longer_says_so),
		cmocka_unit_test(test_SET_5_destination_that_cannot_start_leaves_both_stopped),
		cmocka_unit_test(test_a_device_lost_at_the_source_is_said),
		cmocka_unit_test(test_ORD_4_the_source_says_what_runs),
		cmocka_unit_test(test_a_device_gone_is_not_said_to_refuse),
		cmocka_unit_test(test_nobody_there_is_said_at_once),
		cmocka_unit_test(test_all_are_asked_side_by_side_what_is_left),
		cmocka_unit_test(test_a_few_bytes_do_not_tell_how_fast_a_device_is),
	};

	return cmocka_run_group_tests_name("migrate", tests, NULL, NULL);
}
