/* SPDX-License-Identifier: MIT */
/*
 * How a migration begins: sides of other versions, one that only asks, and what the destination and
 * the link tell of themselves.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/negotiate.h"
#include "migrate/sides.h"
#include "migrate/wrap.h"

/* ---- versions ---- */

/* Which of what a newer version may do the source does. */
#define NEWER_SAYS_SO 1U
#define NEWER_FRAMES  2U /* optional ones, with and without payload */
#define NEWER_FIELDS  4U
#define NEWER_MUST    8U /* a frame that has to be understood */

static int send_unknown(struct wrap_channel *ch, uint32_t type, const void *payload, uint32_t size)
{
	struct qsc_frame frame = {.type = type, .size = size, .index = 5, .extent = 6};
	uint8_t header[QSC_FRAME_SIZE];
	const struct iovec iov[2] = {{header, sizeof(header)}, {(void *)payload, size}};

	frame.digest = qsc_frame_digest(&frame, payload);
	qsc_frame_encode(&frame, header);
	return wrap_forward(ch, iov, size ? 2 : 1);
}

/* Between two sends a whole number of frames has gone out. */
static int newer_send(struct wrap_channel *ch, const struct iovec *iov, int iovcnt)
{
	uint32_t mode = *(const uint32_t *)ch->wrap->ctx;
	struct iovec changed[64];
	uint8_t header[QSC_FRAME_SIZE];
	struct qsc_frame frame;

	assert_true(iovcnt <= 64);
	memcpy(changed, iov, (size_t)iovcnt * sizeof(*iov));
	memcpy(header, iov[0].iov_base, sizeof(header));
	assert_int_equal(qsc_frame_decode(header, &frame, false), 0);
	if (frame.type != QSC_FRAME_HELLO && mode & NEWER_FRAMES) {
		(void)send_unknown(ch, QSC_FRAME_OPTIONAL | 99, "new", 3);
		(void)send_unknown(ch, QSC_FRAME_OPTIONAL | 1, NULL, 0);
	}
	if (frame.type == QSC_FRAME_ROUND && mode & NEWER_MUST)
		(void)send_unknown(ch, 99, "new", 3);
	if (frame.type == QSC_FRAME_HELLO && mode & NEWER_SAYS_SO)
		frame.arg++;
	if (frame.type == QSC_FRAME_ROUND && mode & NEWER_FIELDS)
		frame.offset = 77;
	frame.digest = qsc_frame_digest(&frame, iovcnt > 1 ? iov[1].iov_base : NULL);
	qsc_frame_encode(&frame, header);
	changed[0] = (struct iovec){header, sizeof(header)};
	return wrap_forward(ch, changed, iovcnt);
}

static void test_a_newer_minor_version_is_read(void **state)
{
	static const struct {
		uint32_t mode;
		bool moves;
	} cases[] = {
		{NEWER_SAYS_SO | NEWER_FRAMES | NEWER_FIELDS, true},
		{NEWER_FRAMES, true},
		{NEWER_FIELDS, false},
		{NEWER_SAYS_SO | NEWER_MUST, false},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		uint32_t mode = cases[i].mode;
		struct wrap wrap = {.ctx = &mode};
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		wrap_init(&wrap, f.sides[0].transport, 0, newer_send);
		f.sides[0].transport = &wrap.base;
		sides_migrate(&f);
		if (cases[i].moves)
			sides_expect_moved(&f);
		else
			sides_expect_source_goes_on(&f, EPROTO);
		sides_drop(&f);
	}
}

struct endless {
	bool fast;
	bool begun;
};

/* Instead of COMMIT there come frames to be skipped, without end, and never a silence. */
static int endless_send(struct wrap_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct endless *endless = ch->wrap->ctx;
	struct qsc_frame frame;
	int result = 0;

	assert_int_equal(qsc_frame_decode(iov[0].iov_base, &frame, false), 0);
	if (frame.type != QSC_FRAME_COMMIT)
		return wrap_forward(ch, iov, iovcnt);
	endless->begun = true;
	while (result == 0) {
		result = send_unknown(ch, QSC_FRAME_OPTIONAL | 1, NULL, 0);
		if (!endless->fast)
			(void)usleep(50000);
	}
	return 0;
}

static void test_SET_5_no_frames_to_be_skipped_prolong_the_hand_over(void **state)
{
	uint32_t tries = 0;
	uint32_t fast;

	(void)state;
	for (fast = 0; fast < 2;) {
		struct endless endless = {.fast = fast};
		struct wrap wrap = {.ctx = &endless};
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		/* By time where they come slowly, by number where they come fast. */
		f.sides[1].options.stall_timeout_ms = fast ? 60000 : 1000;
		f.sides[1].options.wait_timeout_ms = 60000;
		wrap_init(&wrap, f.sides[0].transport, 0, endless_send);
		f.sides[0].transport = &wrap.base;
		sides_migrate(&f);
		/* A machine that took longer than that to come so far has shown nothing. */
		if (!endless.begun && tries++ < 10) {
			sides_drop(&f);
			continue;
		}
		assert_int_equal(f.sides[1].result, fast ? -EPROTO : -ETIMEDOUT);
		assert_int_equal(f.sides[1].report.owner, QSC_OWNER_UNPROVED);
		assert_int_equal(f.sides[0].report.owner, QSC_OWNER_UNPROVED);
		sides_drop(&f);
		fast++;
	}
}

/* ---- a destination by hand ---- */

struct hand {
	struct fixture *f;
	uint32_t version;
	bool altered; /* the answer */
};

static int no_step(void *ctx, struct qsc_error *err)
{
	return 0;
}

static void *answer_by_hand(void *arg)
{
	const struct hand *hand = arg;
	const struct qsc_env *env = qsc_env_real();
	struct qsc_link_wait wait = {
		.timeout_ms = 20000,
		.deadline_us = env->now_us(env->ctx) + 20000000,
		.step = no_step,
	};
	struct qsc_link link = {.env = env, .stall_ms = 20000};
	struct qsc_frame frame = {.type = QSC_FRAME_ANSWER, .index = hand->version};
	struct qsc_error err;

	if (qsc_link_accept(&link, hand->f->sides[1].transport, &wait, &err) == 0 &&
	    qsc_link_send(&link, 0, &frame, "\1", hand->altered ? 1 : 0) == 0)
		/* Until the source has gone. */
		while (qsc_link_recv(&link, 0, &frame) == 0 &&
		       qsc_link_skip_payload(&link, 0, &frame) == 0)
			;
	qsc_link_close(&link);
	qsc_link_end_wait(&wait);
	return NULL;
}

static void test_an_answer_that_cannot_be_taken(void **state)
{
	static const struct {
		uint32_t version;
		bool altered;
		int number;
		const char *text;
	} cases[] = {
		{3U << 16, false, EPROTONOSUPPORT,
		 "the destination speaks migration protocol 3.0 and this side 2.0"},
		{0, false, EPROTONOSUPPORT, "protocol 0.0"},
		{QSC_FRAME_VERSION, true, EPROTO, "answer is broken"},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct fixture f;
		struct hand hand = {&f, cases[i].version, cases[i].altered};
		struct side *source = &f.sides[0];
		pthread_t thread;

		sides_make(&f, sides_p2p_flags, true);
		f.sides[1].result = -1;
		assert_int_equal(pthread_create(&thread, NULL, answer_by_hand, &hand), 0);
		source->result = qsc_migrate_send(source->set, &source->user, source->transport,
						  &source->options, &source->report, &source->err);
		assert_int_equal(pthread_join(thread, NULL), 0);
		sides_expect_source_goes_on(&f, cases[i].number);
		assert_non_null(strstr(source->err.text, cases[i].text));
		/* Nothing was touched. */
		assert_int_equal(f.world.count, 0);
		sides_drop(&f);
	}
}

/* ---- asking ---- */

struct asked {
	int result;
	struct qsc_error err;
	struct qsc_waves waves;
	struct qsc_link_speed speed;
};

static void ask(struct side *side, struct asked *asked)
{
	struct qsc_engine engine;
	struct qsc_migrate_report report = {.passes = 0};

	*asked = (struct asked){.err = QSC_ERROR_NONE};
	assert_int_equal(qsc_engine_init(&engine, side->set, &side->user, side->transport,
					 &side->options, &report, &asked->err),
			 0);
	engine.other = "destination";
	asked->result = qsc_link_connect(&engine.link, engine.transport, 1, &asked->err);
	if (asked->result == 0)
		asked->result = qsc_negotiate_offer(&engine, true, &asked->err);
	asked->waves = engine.remote;
	asked->speed = engine.speed;
	qsc_engine_release(&engine);
}

/* Later than a source behind a row of idlers may be. */
static int late_send(struct wrap_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct qsc_frame frame;

	assert_int_equal(qsc_frame_decode(iov[0].iov_base, &frame, false), 0);
	if (frame.type == QSC_FRAME_OFFER)
		(void)usleep(700000);
	return wrap_forward(ch, iov, iovcnt);
}

static void test_asking_leaves_the_destination_waiting(void **state)
{
	struct wrap wrap = {.ctx = NULL};
	struct fixture f;
	struct asked asked;
	pthread_t thread;
	size_t count;
	uint32_t i;

	(void)state;
	sides_make(&f, sides_mixed_flags, true);
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	/* What does not fit is refused, and the destination waits on. */
	f.sides[0].region.size -= QSC_PAGE_SIZE;
	ask(&f.sides[0], &asked);
	assert_int_equal(asked.result, -EMEDIUMTYPE);
	assert_non_null(strstr(asked.err.text, "memory region 0"));
	assert_int_equal(f.world.count, 0);
	f.sides[0].region.size += QSC_PAGE_SIZE;
	ask(&f.sides[0], &asked);
	assert_int_equal(asked.result, 0);
	assert_true(asked.waves.known);
	assert_true(asked.speed.rtt_us < 60000000 && asked.speed.bytes_per_second > 0);
	/* The devices have been through the waves, and are not again. */
	count = f.world.count;
	assert_true(count > 0);
	sides_all_in(&f.sides[0], QSC_STATE_RUNNING);
	sides_all_in(&f.sides[1], QSC_STATE_RUNNING);
	for (i = 0; i < 3; i++) {
		ask(&f.sides[0], &asked);
		assert_int_equal(asked.result, 0);
	}
	assert_int_equal(f.world.count, count);
	/* And then the source comes, and those who were quick to ask leave it its time. */
	wrap_init(&wrap, f.sides[0].transport, 0, late_send);
	f.sides[0].transport = &wrap.base;
	f.sides[0].result = qsc_migrate_send(f.sides[0].set, &f.sides[0].user, f.sides[0].transport,
					     &f.sides[0].options, &f.sides[0].report,
					     &f.sides[0].err);
	f.sides[0].finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_moved(&f);
	sides_drop(&f);
}

static int send_from(struct side *side)
{
	side->result = qsc_migrate_send(side->set, &side->user, side->transport, &side->options,
					&side->report, &side->err);
	return side->result;
}

/* One whose set does not fit hears why, and another is waited for. */
static void test_what_does_not_fit_does_not_end_the_wait(void **state)
{
	struct fixture f;
	pthread_t thread;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.wait_for_fitting = true;
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	f.sides[0].region.size -= QSC_PAGE_SIZE;
	f.sides[0].user.kind = "somebody else";
	assert_int_equal(send_from(&f.sides[0]), -EMEDIUMTYPE);
	assert_non_null(strstr(f.sides[0].err.text, "2 differences"));
	assert_non_null(strstr(f.sides[0].err.text, "memory region 0"));
	assert_non_null(strstr(f.sides[0].err.text, "the user is somebody else at the source"));
	assert_int_equal(f.world.count, 0);
	f.sides[0].region.size += QSC_PAGE_SIZE;
	f.sides[0].user.kind = NULL;
	assert_int_equal(send_from(&f.sides[0]), 0);
	f.sides[0].finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_moved(&f);
	sides_drop(&f);
}

static int gone(struct qsc_device *dev, struct qsc_device_info *info)
{
	(void)dev;
	(void)info;
	return -ENOTCONN;
}

/* No source mends that, so the first one that comes ends the wait. */
static void test_a_dead_device_of_the_destination_ends_the_wait(void **state)
{
	struct qsc_device_ops ops;
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.wait_for_fitting = true;
	ops = *f.sides[1].fakes[1]->base.ops;
	ops.get_info = gone;
	f.sides[1].fakes[1]->base.ops = &ops;
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, ENOTCONN);
	assert_int_equal(f.sides[1].result, -ENOTCONN);
	assert_non_null(strstr(f.sides[0].err.text, "the destination refuses the set: device '"));
	sides_drop(&f);
}

/* Askers that fall silent stand before a source, more than it would wait for at their leisure. */
static void test_a_row_of_askers_does_not_hold_off_a_source(void **state)
{
	enum { ASKERS = 12, LEISURE_MS = 1000 };
	struct qsc_link silent[ASKERS];
	struct fixture f;
	pthread_t thread;
	uint64_t start;
	uint32_t tries = 0;
	uint32_t i;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.wait_timeout_ms = 60000;
	f.sides[1].options.stall_timeout_ms = LEISURE_MS;
	for (i = 0; i < ASKERS; i++) {
		silent[i] = (struct qsc_link){.env = qsc_env_real(), .stall_ms = 10000};
		assert_int_equal(qsc_link_connect(&silent[i], f.sides[0].transport, 1, NULL), 0);
	}
	start = qsc_env_real()->now_us(NULL);
	f.sides[0].options.stall_timeout_ms = (ASKERS - 1) * LEISURE_MS;
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	/*
	 * Behind them it has little time, maybe too little for this machine, and comes again: at
	 * once, which is behind them still.
	 */
	while (send_from(&f.sides[0]) == -EPIPE && tries++ < 5)
		;
	assert_int_equal(f.sides[0].result, 0);
	assert_true(qsc_env_real()->now_us(NULL) - start < (ASKERS - 1ULL) * LEISURE_MS * 1000);
	f.sides[0].finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_moved(&f);
	for (i = 0; i < ASKERS; i++)
		qsc_link_close(&silent[i]);
	sides_drop(&f);
}

static _Atomic(uint64_t) jumped_us;

static uint64_t jumping_now(void *ctx)
{
	return qsc_env_real()->now_us(qsc_env_real()->ctx) + jumped_us;
}

static int plain_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	return qsc_env_real()->parallel(qsc_env_real()->ctx, task, args, count);
}

/* However long after it the source comes: neither the asker's time nor the migration's runs. */
static void test_asking_starts_no_clock(void **state)
{
	static const struct qsc_env jumping_env = {jumping_now, plain_parallel, NULL, NULL};
	struct side *source;
	struct fixture f;
	struct asked asked;
	pthread_t thread;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	source = &f.sides[0];
	f.sides[1].options.env = &jumping_env;
	f.sides[1].options.timeout_ms = 60000;
	f.sides[1].options.wait_timeout_ms = 600000;
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	ask(source, &asked);
	assert_int_equal(asked.result, 0);
	jumped_us += 120000000;
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_moved(&f);
	sides_drop(&f);
}

static void test_a_device_that_cannot_stop_is_found_before_anything_moves(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	fake_fail(f.sides[1].fakes[1], FAKE_SET_STATE, QSC_STATE_STOP, 1, EIO, -1);
	sides_migrate(&f);
	sides_expect_source_goes_on(&f, EIO);
	assert_non_null(strstr(f.sides[0].err.text, "the destination refuses the set: "));
	assert_non_null(strstr(f.sides[0].err.text, "'disk'"));
	assert_int_equal(f.sides[0].report.passes, 0);
	sides_drop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_newer_minor_version_is_read),
		cmocka_unit_test(test_SET_5_no_frames_to_be_skipped_prolong_the_hand_over),
		cmocka_unit_test(test_an_answer_that_cannot_be_taken),
		cmocka_unit_test(test_asking_leaves_the_destination_waiting),
		cmocka_unit_test(test_what_does_not_fit_does_not_end_the_wait),
		cmocka_unit_test(test_a_dead_device_of_the_destination_ends_the_wait),
		cmocka_unit_test(test_a_row_of_askers_does_not_hold_off_a_source),
		cmocka_unit_test(test_asking_starts_no_clock),
		cmocka_unit_test(test_a_device_that_cannot_stop_is_found_before_anything_moves),
	};

	return cmocka_run_group_tests_name("negotiate", tests, NULL, NULL);
}
