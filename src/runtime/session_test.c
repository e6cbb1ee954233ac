/* SPDX-License-Identifier: MIT */
/* Unit tests of sessions: saving, loading, refusing, pre-copy of what was written since. */
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/test_model.h"

/* A stream that was read. */
struct stream {
	uint8_t *bytes;
	size_t size;
};

static uint64_t enter(struct test_device *device, enum qsc_state state)
{
	uint64_t session;

	assert_int_equal(qsc_device_set_state(device->dev, state, &session), 0);
	assert_int_equal(test_now(device), state);
	return session;
}

/* Read until there is nothing (more), in pieces of `piece` bytes. Returns the last result. */
static ssize_t drain(struct test_device *device, uint64_t session, struct stream *stream,
		     size_t piece)
{
	for (;;) {
		ssize_t n;

		stream->bytes = realloc(stream->bytes, stream->size + piece);
		assert_non_null(stream->bytes);
		n = qsc_device_session_read(device->dev, session, stream->bytes + stream->size,
					    piece);
		if (n <= 0)
			return n;
		stream->size += (size_t)n;
	}
}

static struct stream save(struct test_device *device, size_t piece)
{
	struct stream stream = {NULL, 0};
	uint64_t session = enter(device, QSC_STATE_STOP_COPY);

	assert_int_not_equal(session, 0);
	assert_int_equal(drain(device, session, &stream, piece), 0);
	assert_int_equal(drain(device, session, &stream, piece), 0);
	return stream;
}

/* Write all of it in pieces; the first result below zero, or 0. */
static ssize_t feed(struct test_device *device, uint64_t session, const struct stream *stream,
		    size_t piece)
{
	for (size_t at = 0; at < stream->size; at += piece) {
		size_t n = stream->size - at < piece ? stream->size - at : piece;
		ssize_t result = qsc_device_session_write(device->dev, session, stream->bytes + at,
							  n);

		if (result < 0)
			return result;
		assert_int_equal(result, n);
	}
	return 0;
}

static void assert_streams_equal(const struct stream *a, const struct stream *b)
{
	assert_int_equal(a->size, b->size);
	assert_memory_equal(a->bytes, b->bytes, a->size);
}

/* A device that has something of everything. */
static struct test_device *busy_device(uint32_t flags)
{
	struct test_device *device = test_new(flags);
	uint8_t bytes[5000];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + 1);
	test_poke(device, REG_SCRATCH, 0x1122334455667788);
	test_poke(device, REG_WINDOW, 16 * TEST_STRIDE);
	test_state_of(device)->parts[0].small = 0xabcd;
	memcpy(device->custom, "custom", 6);
	device->custom_size = 6;
	assert_int_equal(qsc_device_region_write(device->dev, 2, 8192 - 100, bytes, sizeof(bytes)),
			 sizeof(bytes));
	assert_int_equal(qsc_device_region_write(device->dev, 2, TEST_BAR2_SIZE - 4, bytes, 4), 4);
	return device;
}

static void test_save_load_save_is_equal(void **unused)
{
	static const size_t pieces[] = {1, 7, 4096, 1 << 20};

	for (size_t i = 0; i < 4; i++) {
		struct test_device *a = busy_device(1);
		struct test_device *b = test_new(7);
		struct stream first = save(a, pieces[i]);
		struct stream second;
		uint64_t session = enter(b, QSC_STATE_RESUMING);

		assert_int_not_equal(session, 0);
		assert_int_equal(feed(b, session, &first, pieces[3 - i]), 0);
		test_go(b, QSC_STATE_STOP);
		assert_int_equal(b->loads, 1);
		second = save(b, 1000);
		assert_streams_equal(&first, &second);
		test_go(b, QSC_STATE_RUNNING);
		assert_int_equal(test_peek(b, REG_SCRATCH), 0x1122334455667788);
		assert_int_equal(test_state_of(b)->parts[0].small, 0xabcd);
		assert_int_equal(test_state_of(b)->parts[1].tiny[2], 7);
		assert_memory_equal(qsc_block_data(a->rt, 0), qsc_block_data(b->rt, 0),
				    TEST_BAR2_SIZE);
		assert_int_equal(b->custom_size, 6);
		free(first.bytes);
		free(second.bytes);
		test_end(a);
		test_end(b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_save_load_save_is_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
