/* SPDX-License-Identifier: MIT */
/* The bandwidth limit against a clock that stands still but for sleeping, and against the real one.
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/pace.h"

#define LONG_SIZE (3U << 20)

/* A clock that moves only when somebody sleeps, and a channel that keeps what it is given. */
struct fixture {
	struct qsc_env env;
	struct qsc_pace pace;
	struct qsc_channel channel;
	bool hurried;
	uint64_t now;
	uint64_t oversleep;   /* added to every sleep */
	uint64_t hurry_at_us; /* 0: never */
	uint8_t *bytes;
	size_t received;
	size_t largest; /* send */
	uint32_t sends;
	int fail_after;
};

static uint64_t fixture_now(void *ctx)
{
	return ((struct fixture *)ctx)->now;
}

static void fixture_sleep(void *ctx, uint64_t us)
{
	struct fixture *f = ctx;

	assert_true(us > 0);
	f->now += us + f->oversleep;
	if (f->hurry_at_us && f->now >= f->hurry_at_us)
		f->hurried = true;
}

static bool fixture_hurried(void *ctx)
{
	return ((struct fixture *)ctx)->hurried;
}

static int fixture_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct fixture *f = qsc_container_of(ch, struct fixture, channel);
	size_t size = 0;
	int i;

	if (f->fail_after && --f->fail_after == 0)
		return -32;
	for (i = 0; i < iovcnt; i++) {
		if (f->bytes)
			memcpy(f->bytes + f->received + size, iov[i].iov_base, iov[i].iov_len);
		size += iov[i].iov_len;
	}
	f->received += size;
	f->largest = size > f->largest ? size : f->largest;
	f->sends++;
	return 0;
}

static const struct qsc_channel_ops fixture_ops = {.send = fixture_send};

static void make(struct fixture *f, uint64_t bytes_per_second)
{
	*f = (struct fixture){.now = 1000000, .channel = {&fixture_ops}};
	f->env = (struct qsc_env){fixture_now, NULL, fixture_sleep, f};
	qsc_pace_init(&f->pace, &f->env, bytes_per_second, fixture_hurried, f);
}

static void drop(struct fixture *f)
{
	qsc_pace_release(&f->pace);
	free(f->bytes);
}

static int send_bytes(struct fixture *f, uint8_t *bytes, size_t size)
{
	const struct iovec iov = {bytes, size};

	return qsc_pace_send(&f->pace, &f->channel, &iov, 1);
}

static void test_no_limit_sends_at_once(void **state)
{
	uint8_t *bytes = calloc(1, LONG_SIZE);
	struct fixture f;

	(void)state;
	assert_non_null(bytes);
	make(&f, 0);
	assert_int_equal(send_bytes(&f, bytes, LONG_SIZE), 0);
	assert_int_equal(f.now, 1000000);
	assert_int_equal(f.sends, 1);
	assert_int_equal(f.received, LONG_SIZE);
	drop(&f);
	free(bytes);
}

static void test_every_second_has_its_bytes(void **state)
{
	static const uint64_t rates[] = {50000, 1000000, 123456789, 4000000000};
	uint8_t *bytes = calloc(1, LONG_SIZE);
	size_t i;

	(void)state;
	assert_non_null(bytes);
	for (i = 0; i < QSC_ARRAY_SIZE(rates); i++) {
		size_t size = (size_t)qsc_min_u64(LONG_SIZE, rates[i] / 7);
		uint32_t second;
		struct fixture f;

		make(&f, rates[i]);
		/* Sleeping longer than asked for takes nothing away. */
		f.oversleep = 900;
		for (second = 1; second <= 5; second++) {
			size_t before = f.received;

			while (f.now < 1000000 * (second + 1ULL))
				assert_int_equal(send_bytes(&f, bytes, size), 0);
			/* The last piece may belong to the next second. */
			assert_in_range(f.received - before, rates[i] * 97 / 100 - size,
					rates[i] * 103 / 100 + size);
		}
		assert_in_range(f.received / 5, rates[i] * 98 / 100 - size / 5,
				rates[i] * 102 / 100 + size / 5);
		drop(&f);
	}
	free(bytes);
}

static void test_what_was_not_used_is_lost(void **state)
{
	uint8_t *bytes = calloc(1, LONG_SIZE);
	struct fixture f;
	uint64_t begin;

	(void)state;
	assert_non_null(bytes);
	make(&f, 10000000);
	assert_int_equal(send_bytes(&f, bytes, 1000000), 0);
	/* A long rest earns no more than a short one. */
	f.now += 10000000;
	begin = f.now;
	assert_int_equal(send_bytes(&f, bytes, 2000000), 0);
	qsc_pace_wait(&f.pace, 0);
	assert_in_range(f.now - begin, 200000 - QSC_PACE_CREDIT_US - 2,
			200000 - QSC_PACE_CREDIT_US + 1000);
	drop(&f);
	free(bytes);
}

static void test_the_bytes_are_the_same(void **state)
{
	uint8_t *bytes = malloc(LONG_SIZE);
	struct iovec iov[150];
	struct fixture f;
	size_t used = 0;
	size_t i;

	(void)state;
	assert_non_null(bytes);
	for (i = 0; i < LONG_SIZE; i++)
		bytes[i] = (uint8_t)(i * 2654435761U >> 13);
	make(&f, 1000000);
	f.bytes = malloc(LONG_SIZE);
	assert_non_null(f.bytes);
	/* Some are empty, some longer than a piece, and there are more than fit one call. */
	for (i = 0; i < QSC_ARRAY_SIZE(iov); i++) {
		iov[i] = (struct iovec){bytes + used, i * i * 37 % 40000};
		used += iov[i].iov_len;
	}
	assert_true(used < LONG_SIZE);
	assert_int_equal(qsc_pace_send(&f.pace, &f.channel, iov, QSC_ARRAY_SIZE(iov)), 0);
	assert_int_equal(f.received, used);
	assert_memory_equal(f.bytes, bytes, used);
	/* No channel waits long for its turn. */
	assert_true(f.largest <= 1000000 / 50);
	drop(&f);
	free(bytes);
}

static void test_a_failure_ends_it(void **state)
{
	uint8_t *bytes = calloc(1, LONG_SIZE);
	struct fixture f;

	(void)state;
	assert_non_null(bytes);
	make(&f, 1000000);
	f.fail_after = 3;
	assert_int_equal(send_bytes(&f, bytes, LONG_SIZE), -32);
	assert_int_equal(f.sends, 2);
	drop(&f);
	free(bytes);
}

static void test_in_a_hurry_all_of_it_goes_out(void **state)
{
	uint8_t *bytes = calloc(1, LONG_SIZE);
	struct fixture f;

	(void)state;
	assert_non_null(bytes);
	make(&f, 1000000);
	f.hurry_at_us = 1500000;
	assert_int_equal(send_bytes(&f, bytes, LONG_SIZE), 0);
	assert_int_equal(f.received, LONG_SIZE);
	/* And soon: nobody sleeps longer than 20 ms at a time. */
	assert_in_range(f.now, 1500000, 1520000);
	drop(&f);
	free(bytes);
}

static void test_a_very_low_limit_still_moves(void **state)
{
	uint8_t bytes[4096] = {0};
	struct fixture f;

	(void)state;
	make(&f, 1);
	assert_int_equal(send_bytes(&f, bytes, 600), 0);
	assert_in_range(f.now, 1000000 + 511 * 1000000ULL, 1000000 + 513 * 1000000ULL);
	drop(&f);
}

/* ---- several lanes and the real clock ---- */

#define LANES	   4
#define LANE_BYTES 500000U

struct lane {
	struct qsc_channel channel;
	struct qsc_pace *pace;
	size_t received;
};

static int lane_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct lane *lane = qsc_container_of(ch, struct lane, channel);
	int i;

	for (i = 0; i < iovcnt; i++)
		lane->received += iov[i].iov_len;
	return 0;
}

static const struct qsc_channel_ops lane_ops = {.send = lane_send};

static void run_lane(void *arg)
{
	static uint8_t bytes[LANE_BYTES];
	struct lane *lane = arg;
	const struct iovec iov = {bytes, sizeof(bytes)};

	if (qsc_pace_send(lane->pace, &lane->channel, &iov, 1) < 0)
		abort();
}

static void test_lanes_share_one_limit(void **state)
{
	const struct qsc_env *env = qsc_env_real();
	struct fixture never = {0};
	struct lane lanes[LANES];
	void *args[LANES];
	struct qsc_pace pace;
	uint64_t start;
	uint32_t i;

	(void)state;
	/* 2 MB in half a second. A busy machine makes it longer, nothing makes it shorter. */
	qsc_pace_init(&pace, env, 4000000, fixture_hurried, &never);
	for (i = 0; i < LANES; i++) {
		lanes[i] = (struct lane){{&lane_ops}, &pace, 0};
		args[i] = &lanes[i];
	}
	start = env->now_us(env->ctx);
	assert_int_equal(env->parallel(env->ctx, run_lane, args, LANES), 0);
	qsc_pace_wait(&pace, 0);
	assert_true(env->now_us(env->ctx) - start >= 500000 - QSC_PACE_CREDIT_US - 1);
	for (i = 0; i < LANES; i++)
		assert_int_equal(lanes[i].received, LANE_BYTES);
	qsc_pace_release(&pace);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_limit_sends_at_once),
		cmocka_unit_test(test_every_second_has_its_bytes),
		cmocka_unit_test(test_what_was_not_used_is_lost),
		cmocka_unit_test(test_the_bytes_are_the_same),
		cmocka_unit_test(test_a_failure_ends_it),
		cmocka_unit_test(test_in_a_hurry_all_of_it_goes_out),
		cmocka_unit_test(test_a_very_low_limit_still_moves),
		cmocka_unit_test(test_lanes_share_one_limit),
	};

	return cmocka_run_group_tests_name("pace", tests, NULL, NULL);
}
