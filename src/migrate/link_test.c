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

/* A channel on which a byte comes now and then, of which the test has the clock. */
struct trickle {
	struct qsc_channel channel;
	uint8_t bytes[QSC_FRAME_SIZE + QSC_FRAME_MAX_TEXT];
	size_t size;
	size_t given;
	uint64_t now_us;
	uint64_t gap_us;
	uint64_t stall_us;
	uint64_t deadline_us;
};

static int trickle_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct trickle *trickle = qsc_container_of(ch, struct trickle, channel);
	uint8_t *to = buf;

	for (; size; size--) {
		uint64_t next = trickle->now_us + trickle->gap_us;
		uint64_t end = trickle->now_us + trickle->stall_us;

		if (trickle->deadline_us)
			end = qsc_min_u64(end, trickle->deadline_us);
		if (next > end) {
			trickle->now_us = end;
			return -ETIMEDOUT;
		}
		trickle->now_us = next;
		if (trickle->given == trickle->size)
			return -EPIPE;
		*to++ = trickle->bytes[trickle->given++];
	}
	return 0;
}

static void trickle_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	struct trickle *trickle = qsc_container_of(ch, struct trickle, channel);

	trickle->stall_us = stall_ms * 1000ULL;
	trickle->deadline_us = deadline_us;
}

static uint64_t trickle_now(void *ctx)
{
	return ((struct trickle *)ctx)->now_us;
}

static void trickle_put(struct trickle *trickle, struct qsc_frame frame, const char *text)
{
	frame.size = (uint32_t)strlen(text);
	frame.digest = qsc_frame_digest(&frame, text);
	qsc_frame_encode(&frame, trickle->bytes + trickle->size);
	memcpy(trickle->bytes + trickle->size + QSC_FRAME_SIZE, text, frame.size);
	trickle->size += QSC_FRAME_SIZE + frame.size;
}

/* What expecting READY comes to with a stall limit of a second and that much between two bytes. */
static int expect_ready(const struct qsc_frame *sent, const char *text, uint64_t gap_us,
			uint64_t *took_us, struct qsc_error *err)
{
	static const struct qsc_channel_ops ops = {.recv = trickle_recv,
						   .set_limits = trickle_set_limits};
	struct trickle trickle = {.channel = {&ops}, .gap_us = gap_us};
	const struct qsc_env env = {.now_us = trickle_now, .ctx = &trickle};
	struct qsc_link link = {.env = &env,
				.channels = {&trickle.channel},
				.count = 1,
				.version = QSC_FRAME_VERSION};
	struct qsc_frame frame;
	int result;

	trickle_put(&trickle, *sent, text);
	qsc_link_set_limits(&link, 1000, 0);
	result = qsc_link_expect(&link, QSC_FRAME_READY, "destination", &frame, err);
	*took_us = trickle.now_us;
	/* What is sent and expected after it has its own time. */
	assert_int_equal(trickle.deadline_us, 0);
	assert_int_equal(trickle.stall_us, 1000000);
	return result;
}

static void test_an_answer_does_not_come_a_byte_at_a_time(void **state)
{
	const struct qsc_frame ready = {.type = QSC_FRAME_READY};
	const struct qsc_frame failed = {.type = QSC_FRAME_FAILED, .arg = EIO};
	const struct qsc_frame unknown = {.type = QSC_FRAME_OPTIONAL | 1};
	struct qsc_error err = QSC_ERROR_NONE;
	uint64_t took_us;

	(void)state;
	assert_int_equal(expect_ready(&ready, "", 900000, &took_us, &err), -ETIMEDOUT);
	assert_int_equal(took_us, 900000 + 1000000);
	assert_string_equal(err.text, "waiting for READY from the destination: something came and "
				      "was not whole within 1000 ms");
	/* The header is there within the limit, and the sentence is not. */
	assert_int_equal(expect_ready(&failed, "it takes a while to say", 20000, &took_us, &err),
			 -ETIMEDOUT);
	assert_int_equal(took_us, 20000 + 1000000);
	assert_int_equal(expect_ready(&unknown, "what has to be skipped", 20000, &took_us, &err),
			 -ETIMEDOUT);
	assert_int_equal(took_us, 20000 + 1000000);
	/* Nothing at all is another thing, and what comes in time is heard. */
	assert_int_equal(expect_ready(&ready, "", 1000001, &took_us, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "waiting for READY from the destination: nothing came for "
				      "1000 ms");
	assert_int_equal(expect_ready(&ready, "", 25000, &took_us, &err), 0);
	assert_int_equal(expect_ready(&failed, "no", 20000, &took_us, &err), -EIO);
	assert_string_equal(err.text, "the destination failed: no");
}

static void test_last_words_take_a_second_at_most(void **state)
{
	static const struct qsc_channel_ops ops = {.recv = trickle_recv,
						   .set_limits = trickle_set_limits};
	struct trickle trickle = {.channel = {&ops}, .gap_us = 300000};
	const struct qsc_env env = {.now_us = trickle_now, .ctx = &trickle};
	struct qsc_link link = {.env = &env, .channels = {&trickle.channel}, .count = 1};
	struct qsc_frame frame;

	(void)state;
	trickle_put(&trickle, (struct qsc_frame){.type = QSC_FRAME_FAILED, .arg = EIO}, "why");
	qsc_link_set_limits(&link, 30000, 0);
	qsc_link_limit_last_words(&link, 0);
	assert_int_equal(qsc_link_recv(&link, 0, &frame), -ETIMEDOUT);
	assert_int_equal(trickle.now_us, 1000000);
	qsc_link_limit_last_words(&link, 1500000);
	assert_int_equal(qsc_link_recv(&link, 0, &frame), -ETIMEDOUT);
	assert_int_equal(trickle.now_us, 1500000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waits_as_long_as_allowed_and_says_why_nobody_came),
		cmocka_unit_test(test_what_is_still_coming_is_no_silence),
		cmocka_unit_test(test_channels_may_come_in_any_order),
		cmocka_unit_test(test_an_answer_does_not_come_a_byte_at_a_time),
		cmocka_unit_test(test_last_words_take_a_second_at_most),
	};

	return cmocka_run_group_tests_name("link", tests, NULL, NULL);
}
