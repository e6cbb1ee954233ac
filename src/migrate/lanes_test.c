/* SPDX-License-Identifier: MIT */
/*
 * Lanes pull their work: nobody waits behind a slow device, memory goes by every channel, progress
 * is told while bytes move, and a source that sends a session by two channels is refused.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/link.h"
#include "migrate/negotiate.h"
#include "migrate/sides.h"
#include "migrate/wrap.h"

#define PATIENCE_S 20 /* before a test gives up what it waits for */

/* ---- events between threads ---- */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static uint32_t happened;

static void happen(void)
{
	pthread_mutex_lock(&lock);
	happened++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* False when it took too long. */
static bool await(uint32_t count)
{
	struct timespec end;
	int result = 0;

	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PATIENCE_S;
	pthread_mutex_lock(&lock);
	while (happened < count && result == 0)
		result = pthread_cond_timedwait(&changed, &lock, &end);
	pthread_mutex_unlock(&lock);
	return result == 0;
}

/* ---- a slow device ---- */

static ssize_t (*plain_read)(struct qsc_device *dev, uint64_t session, void *buf, size_t size);

static ssize_t noted_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	ssize_t n = plain_read(dev, session, buf, size);

	if (n == 0)
		happen();
	return n;
}

/* Gives nothing before all others have given everything. */
static ssize_t slow_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	if (!await(SIDES_MEMBERS - 1))
		return -EIO;
	return plain_read(dev, session, buf, size);
}

static void test_ready_devices_do_not_wait_for_a_slow_one(void **state)
{
	uint32_t slow;

	(void)state;
	for (slow = 0; slow < SIDES_MEMBERS; slow++) {
		struct qsc_device_ops ops[2];
		struct fixture f;
		uint32_t i;

		happened = 0;
		sides_make(&f, sides_p2p_flags, true);
		/* Two channels for three streams. */
		f.sides[0].options.channels = SIDES_MEMBERS;
		f.sides[0].options.no_precopy = true;
		f.sides[1].options.stall_timeout_ms = 2000 * PATIENCE_S;
		ops[0] = ops[1] = *f.sides[0].fakes[0]->base.ops;
		plain_read = ops[0].session_read;
		ops[0].session_read = noted_read;
		ops[1].session_read = slow_read;
		for (i = 0; i < SIDES_MEMBERS; i++)
			f.sides[0].fakes[i]->base.ops = &ops[i == slow];
		sides_migrate(&f);
		sides_expect_moved(&f);
		sides_drop(&f);
	}
}

/* ---- memory by all channels ---- */

static bool late; /* an event did not come */

/* Pages wait on the channel of control until others have gone by another one. */
static int watched_send(struct wrap_channel *ch, const struct iovec *iov, int iovcnt)
{
	uint32_t type = qsc_get_u32(iov[0].iov_base);

	if (type == QSC_FRAME_PAGES || type == QSC_FRAME_ZERO) {
		if (ch->index)
			happen();
		else if (!await(1))
			late = true;
	}
	return wrap_forward(ch, iov, iovcnt);
}

static void test_memory_goes_by_every_channel(void **state)
{
	struct wrap wrap = {.opened = 0};
	struct fixture f;

	(void)state;
	happened = 0;
	sides_make(&f, sides_p2p_flags, true);
	wrap_init(&wrap, f.sides[0].transport, 4, watched_send);
	f.sides[0].transport = &wrap.base;
	f.sides[0].options.channels = 9;
	sides_migrate(&f);
	sides_expect_moved(&f);
	assert_false(late);
	/* No more than the transport has to give. */
	assert_int_equal(wrap.opened, 4);
	sides_drop(&f);
}

/* ---- progress ---- */

/*
 * A clock that makes progress due at every look, ahead of the one by which sockets know a deadline.
 */
static uint64_t fast_now(void *ctx)
{
	static _Atomic(uint64_t) ahead;

	return qsc_env_real()->now_us(qsc_env_real()->ctx) + atomic_fetch_add(&ahead, 1000000);
}

static int fast_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	return qsc_env_real()->parallel(qsc_env_real()->ctx, task, args, count);
}

static const struct qsc_env fast_env = {fast_now, fast_parallel, NULL, NULL};

struct seen {
	_Atomic(uint32_t) inside;
	bool overlapped;
	uint64_t bytes;
	uint32_t pass;
	const char *phase;
	uint32_t within_rounds; /* calls while bytes moved, nothing else having changed */
	uint32_t cancel_within; /* which of them cancels; 0: none */
};

static int see(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct seen *seen = ctx;
	int result = 0;

	seen->overlapped |= atomic_fetch_add(&seen->inside, 1) > 0;
	if (seen->phase && strcmp(seen->phase, progress->phase) == 0 &&
	    seen->pass == progress->pass && seen->bytes < progress->bytes_sent)
		result = ++seen->within_rounds == seen->cancel_within;
	seen->phase = progress->phase;
	seen->pass = progress->pass;
	seen->bytes = progress->bytes_sent;
	atomic_fetch_sub(&seen->inside, 1);
	return result;
}

static void test_progress_is_told_while_bytes_move(void **state)
{
	struct seen seen = {0};
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[0].options.env = &fast_env;
	f.sides[0].options.progress = see;
	f.sides[0].options.progress_ctx = &seen;
	sides_migrate(&f);
	sides_expect_moved(&f);
	assert_true(seen.within_rounds > 0);
	assert_false(seen.overlapped);
	assert_int_equal(seen.bytes,
			 f.sides[0].report.memory_bytes + f.sides[0].report.device_bytes);
	sides_drop(&f);
}

static void test_cancel_while_bytes_move(void **state)
{
	uint32_t side;

	(void)state;
	for (side = 0; side < 2; side++) {
		struct seen seen = {.cancel_within = 2};
		struct fixture f;

		sides_make(&f, sides_p2p_flags, true);
		f.sides[side].options.env = &fast_env;
		f.sides[side].options.progress = see;
		f.sides[side].options.progress_ctx = &seen;
		/* The fast clock ends the wait for a source, too. */
		f.sides[side].options.stall_timeout_ms = UINT32_MAX;
		sides_migrate(&f);
		sides_expect_source_goes_on(&f, ECANCELED);
		assert_int_equal(f.sides[side].result, -ECANCELED);
		assert_non_null(strstr(f.sides[0].err.text, "cancelled by the user"));
		sides_drop(&f);
	}
}

/* ---- a hostile source ---- */

static void say(struct qsc_link *link, uint32_t channel, uint32_t type, uint32_t index,
		const void *payload, uint32_t size)
{
	struct qsc_frame frame = {.type = type, .index = index};

	assert_int_equal(qsc_link_send(link, channel, &frame, payload, size), 0);
}

static void say_offer(struct qsc_link *link, const struct side *side)
{
	qsc_autofree uint8_t *bytes = NULL;
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_frame answer;
	size_t size;

	assert_int_equal(qsc_negotiate_encode(side->set, &side->user, &bytes, &size, &err), 0);
	say(link, 0, QSC_FRAME_OFFER, 0, bytes, (uint32_t)size);
	assert_int_equal(qsc_link_expect(link, QSC_FRAME_ANSWER, "destination", &answer, &err), 0);
	assert_int_equal(answer.arg, 0);
	assert_int_equal(qsc_link_skip_payload(link, 0, &answer), 0);
}

static void test_a_session_comes_by_one_channel_only(void **state)
{
	static const uint32_t pairs[][2] = {{1, 2}, {0, 0}};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(pairs); i++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_link link = {.env = qsc_env_real(), .stall_ms = 5000};
		struct qsc_frame frame;
		struct fixture f;
		pthread_t thread;

		sides_make(&f, sides_p2p_flags, true);
		assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]),
				 0);
		assert_int_equal(qsc_link_connect(&link, f.sides[0].transport, 3, &err), 0);
		say_offer(&link, &f.sides[0]);
		say(&link, 0, QSC_FRAME_ROUND, 1, NULL, 0);
		say(&link, pairs[i][0], QSC_FRAME_DEVICE_DATA, 1, "state", 5);
		say(&link, pairs[i][1], QSC_FRAME_DEVICE_DATA, 1, "state", 5);
		/* The source is told, and ends. */
		assert_int_equal(
			qsc_link_expect(&link, QSC_FRAME_ROUND_DONE, "destination", &frame, &err),
			-EPROTO);
		assert_true(link.heard_failed);
		qsc_link_close(&link);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_int_equal(f.sides[1].result, -EPROTO);
		assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
		if (pairs[i][0])
			assert_non_null(strstr(f.sides[1].err.text,
					       "state of device 'disk' by two connections"));
		sides_all_in(&f.sides[1], QSC_STATE_RUNNING);
		sides_drop(&f);
	}
}

/* Rounds in which nothing comes cost the source nothing and leave a phase here: they have an end.
 */
static void test_rounds_without_end(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_link link = {.env = qsc_env_real(), .stall_ms = 5000};
	struct qsc_frame frame;
	struct fixture f;
	pthread_t thread;
	uint32_t round = 0;
	int result;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	assert_int_equal(qsc_link_connect(&link, f.sides[0].transport, 1, &err), 0);
	say_offer(&link, &f.sides[0]);
	do {
		say(&link, 0, QSC_FRAME_ROUND, ++round, NULL, 0);
		/* Who refuses the round may have gone before its end is sent. */
		frame = (struct qsc_frame){.type = QSC_FRAME_ROUND_END, .index = round};
		(void)qsc_link_send(&link, 0, &frame, NULL, 0);
		result = qsc_link_expect(&link, QSC_FRAME_ROUND_DONE, "destination", &frame, &err);
	} while (result == 0 && round <= 2 * QSC_ENGINE_MAX_ROUNDS);
	assert_int_equal(round, QSC_ENGINE_MAX_ROUNDS + 1);
	qsc_link_close(&link);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(f.sides[1].result, -EPROTO);
	assert_non_null(strstr(f.sides[1].err.text, "more than 100000 rounds"));
	sides_drop(&f);
}

/* Every frame arrives as it was sent, but another one or in another order than the end says. */
static void test_a_stream_ends_with_its_frames_in_order(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_link link = {.env = qsc_env_real(), .stall_ms = 5000};
	struct qsc_frame last = {.type = QSC_FRAME_ROUND, .index = 1, .arg = 1};
	struct qsc_frame data[2] = {{.type = QSC_FRAME_DEVICE_DATA, .index = 1},
				    {.type = QSC_FRAME_DEVICE_DATA, .index = 1}};
	struct qsc_frame end = {.type = QSC_FRAME_DEVICE_END, .index = 1, .extent = 10};
	struct qsc_frame frame;
	struct fixture f;
	pthread_t thread;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	assert_int_equal(qsc_link_connect(&link, f.sides[0].transport, 3, &err), 0);
	say_offer(&link, &f.sides[0]);
	say(&link, 0, QSC_FRAME_STOPPING, 0, NULL, 0);
	say(&link, 0, QSC_FRAME_USER_STATE, 0, NULL, 0);
	assert_int_equal(qsc_link_send(&link, 0, &last, NULL, 0), 0);
	assert_int_equal(qsc_link_send(&link, 1, &data[0], "first", 5), 0);
	assert_int_equal(qsc_link_send(&link, 1, &data[1], "other", 5), 0);
	end.offset = qsc_frame_chain(qsc_frame_chain(0, &data[1]), &data[0]);
	assert_int_equal(qsc_link_send(&link, 1, &end, NULL, 0), 0);
	assert_int_equal(qsc_link_expect(&link, QSC_FRAME_ROUND_DONE, "destination", &frame, &err),
			 -EBADMSG);
	assert_true(link.heard_failed);
	qsc_link_close(&link);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(f.sides[1].result, -EBADMSG);
	assert_non_null(strstr(f.sides[1].err.text, "did not arrive as it was sent"));
	sides_all_in(&f.sides[1], QSC_STATE_RUNNING);
	sides_drop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ready_devices_do_not_wait_for_a_slow_one),
		cmocka_unit_test(test_memory_goes_by_every_channel),
		cmocka_unit_test(test_progress_is_told_while_bytes_move),
		cmocka_unit_test(test_cancel_while_bytes_move),
		cmocka_unit_test(test_a_session_comes_by_one_channel_only),
		cmocka_unit_test(test_rounds_without_end),
		cmocka_unit_test(test_a_stream_ends_with_its_frames_in_order),
	};

	return cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
}
