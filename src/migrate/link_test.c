/* SPDX-License-Identifier: MIT */
/* Unit tests of how a destination waits for its source, with a transport that is made up. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/link.h"

/* A transport that takes its time, of which the test has the clock, and then has a source. */
struct slow {
	struct qsc_transport transport;
	struct qsc_channel channel;
	uint32_t silent; /* calls of open() that find nobody */
	uint32_t busy;	 /* calls after those in which something came */
	uint64_t now_us;
	uint8_t hello[QSC_FRAME_SIZE];
};

static int slow_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	assert_int_equal(size, QSC_FRAME_SIZE);
	memcpy(buf, qsc_container_of(ch, struct slow, channel)->hello, size);
	return 0;
}

static void slow_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
}

static void slow_close(struct qsc_channel *ch)
{
}

static int slow_open(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		     struct qsc_error *err)
{
	struct slow *slow = qsc_container_of(transport, struct slow, transport);

	if (slow->silent || slow->busy)
		slow->now_us += timeout_ms * 1000ULL;
	if (slow->silent) {
		slow->silent--;
		return qsc_error_set(err, ETIMEDOUT, NULL, "the line is dead");
	}
	if (slow->busy) {
		slow->busy--;
		return qsc_error_set(err, EINPROGRESS, NULL, "something comes");
	}
	*ch = &slow->channel;
	return 0;
}

static uint64_t slow_now(void *ctx)
{
	return ((struct slow *)ctx)->now_us;
}

static int go_on(void *ctx, struct qsc_error *err)
{
	return 0;
}

static int wait_for(uint32_t silent, uint32_t busy, struct qsc_error *err)
{
	static const struct qsc_channel_ops channel_ops = {
		.recv = slow_recv, .set_limits = slow_set_limits, .close = slow_close};
	static const struct qsc_transport_ops ops = {.name = "slow", .open = slow_open};
	const struct qsc_frame hello = {
		.type = QSC_FRAME_HELLO,
		.arg = QSC_FRAME_VERSION,
		.offset = 7,
		.extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 1,
	};
	struct slow slow = {
		.transport = {&ops}, .channel = {&channel_ops}, .silent = silent, .busy = busy};
	const struct qsc_env env = {.now_us = slow_now, .ctx = &slow};
	struct qsc_link_wait wait = {.timeout_ms = 1000, .deadline_us = 1000000, .step = go_on};
	struct qsc_frame frame = hello;
	struct qsc_link link = {.env = &env, .stall_ms = 1000};
	int result;

	frame.digest = qsc_frame_digest(&frame, NULL);
	qsc_frame_encode(&frame, slow.hello);
	result = qsc_link_accept(&link, &slow.transport, &wait, err);
	if (result == 0)
		assert_ptr_equal(link.channels[0], &slow.channel);
	return result;
}

static void test_waits_as_long_as_allowed_and_says_why_nobody_came(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;

	(void)state;
	assert_int_equal(wait_for(4, 0, &err), 0);
	assert_int_equal(wait_for(5, 0, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "no source came within 1000 ms: the line is dead");
}

static void test_what_is_still_coming_is_no_silence(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;

	(void)state;
	assert_int_equal(wait_for(4, 100, &err), 0);
	assert_int_equal(wait_for(0, 1, &err), 0);
}

/* Two connections of which the second is heard first. */
struct swapped {
	struct qsc_transport transport;
	struct slow ends[2];
	uint32_t opened;
};

static int swapped_open(struct qsc_transport *transport, uint32_t timeout_ms,
			struct qsc_channel **ch, struct qsc_error *err)
{
	struct swapped *swapped = qsc_container_of(transport, struct swapped, transport);

	if (swapped->opened == 2)
		return qsc_error_set(err, EIO, NULL, "it was dropped");
	*ch = &swapped->ends[1 - swapped->opened++].channel;
	return 0;
}

static void test_channels_may_come_in_any_order(void **state)
{
	static const struct qsc_channel_ops channel_ops = {
		.recv = slow_recv, .set_limits = slow_set_limits, .close = slow_close};
	static const struct qsc_transport_ops ops = {.name = "swapped", .open = swapped_open};
	struct swapped swapped = {.transport = {&ops}};
	const struct qsc_env env = {.now_us = slow_now, .ctx = &swapped.ends[0]};
	struct qsc_link_wait wait = {.timeout_ms = 1000, .deadline_us = 1000000, .step = go_on};
	struct qsc_link link = {.env = &env, .stall_ms = 1000};
	uint32_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct qsc_frame hello = {
			.type = QSC_FRAME_HELLO,
			.index = i,
			.arg = QSC_FRAME_VERSION,
			.offset = 7,
			.extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 2,
		};

		hello.digest = qsc_frame_digest(&hello, NULL);
		qsc_frame_encode(&hello, swapped.ends[i].hello);
		swapped.ends[i].channel.ops = &channel_ops;
	}
	assert_int_equal(qsc_link_accept(&link, &swapped.transport, &wait, NULL), 0);
	for (i = 0; i < 2; i++)
		assert_ptr_equal(link.channels[i], &swapped.ends[i].channel);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_as_long_as_allowed_and_says_why_nobody_came),
		cmocka_unit_test(test_what_is_still_coming_is_no_silence),
		cmocka_unit_test(test_channels_may_come_in_any_order),
	};

	return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
