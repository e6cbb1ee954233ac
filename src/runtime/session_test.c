/* SPDX-License-Identifier: MIT */
/* Unit tests of sessions: saving, loading, refusing, pre-copy of what was written since. */
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "runtime/block.h"
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

/* Whether a piece lies in the device's memory; else it must lie in the buffer. */
static bool is_lent(struct test_device *device, const struct iovec *piece, const uint8_t *buf,
		    size_t size)
{
	const uint8_t *memory = qsc_block_data(device->rt, 0);
	const uint8_t *at = piece->iov_base;

	if (at >= buf && at + piece->iov_len <= buf + size)
		return false;
	assert_true(at >= memory && at + piece->iov_len <= memory + TEST_BAR2_SIZE);
	return true;
}

/* As drain(), in lent pieces, at most `max` at once; *lent: bytes that stayed in the device. */
static ssize_t drain_lent(struct test_device *device, uint64_t session, struct stream *stream,
			  size_t size, size_t max, size_t *lent)
{
	uint8_t *buf = malloc(size);
	struct iovec *pieces = calloc(max, sizeof(*pieces));
	size_t count;
	ssize_t n;

	*lent = 0;
	assert_non_null(buf);
	assert_non_null(pieces);
	while ((n = qsc_device_session_lend(device->dev, session, buf, size, pieces, max, &count)) >
	       0) {
		size_t before = stream->size;

		assert_true(count > 0 && count <= max);
		stream->bytes = realloc(stream->bytes, stream->size + (size_t)n);
		assert_non_null(stream->bytes);
		for (size_t i = 0; i < count; i++) {
			*lent += is_lent(device, &pieces[i], buf, size) ? pieces[i].iov_len : 0;
			assert_true(stream->size + pieces[i].iov_len <= before + (size_t)n);
			memcpy(stream->bytes + stream->size, pieces[i].iov_base, pieces[i].iov_len);
			stream->size += pieces[i].iov_len;
		}
		assert_int_equal(stream->size, before + (size_t)n);
	}
	assert_int_equal(count, 0);
	free(pieces);
	free(buf);
	return n;
}

/* The same stream, whatever stays in the device; and while that runs, nothing does. */
static void test_lent_stream_is_the_same(void **unused)
{
	static const size_t sizes[] = {1, 4096, 50000, 1 << 20};
	static const size_t most[] = {1, 2, 3, 64};
	struct test_device *device = busy_device(7);
	struct stream want;
	uint8_t bytes[100000];
	size_t lent;

	memset(bytes, 0x5a, sizeof(bytes));
	assert_int_equal(qsc_device_region_write(device->dev, 2, 65536, bytes, sizeof(bytes)),
			 sizeof(bytes));
	want = save(device, 1000);
	for (size_t i = 0; i < 16; i++) {
		size_t size = sizes[i / 4];
		struct stream got = {NULL, 0};
		struct stream early = {NULL, 0};
		uint64_t session;

		test_go(device, QSC_STATE_RUNNING);
		session = enter(device, QSC_STATE_STOP_COPY);
		assert_int_equal(drain_lent(device, session, &got, size, most[i % 4], &lent), 0);
		assert_streams_equal(&got, &want);
		/* One piece for what comes before, and one for what follows. */
		if (size > 50000 && most[i % 4] > 2)
			assert_true(lent >= 65536);
		test_go(device, QSC_STATE_RUNNING);
		session = enter(device, QSC_STATE_PRE_COPY);
		assert_int_equal(drain_lent(device, session, &early, size, most[i % 4], &lent),
				 -ENOMSG);
		assert_true(early.size > sizeof(bytes));
		assert_int_equal(lent, 0);
		free(early.bytes);
		free(got.bytes);
	}
	free(want.bytes);
	test_end(device);
}

/* STATE-5: who keeps lent pages by reference sees nothing that the next user writes there. */
static void test_STATE_5_lent_pages_are_not_the_next_users(void **unused)
{
	static const size_t SIZE = 65536;
	struct test_device *device = test_new(7);
	uint8_t *memory = qsc_block_data(device->rt, 0);
	uint8_t *bytes = malloc(SIZE);
	struct iovec pieces[64];
	bool lent = false;
	uint64_t session;
	size_t count;
	int ends[2];

	assert_non_null(bytes);
	memset(bytes, 0x5a, SIZE);
	assert_int_equal(qsc_device_region_write(device->dev, 2, 0, bytes, SIZE), SIZE);
	assert_int_equal(pipe(ends), 0);
	session = enter(device, QSC_STATE_STOP_COPY);
	while (!lent) {
		static uint8_t buf[1 << 20];

		assert_true(qsc_device_session_lend(device->dev, session, buf, sizeof(buf), pieces,
						    64, &count) > 0);
		for (size_t i = 0; i < count && !lent; i++)
			if ((uint8_t *)pieces[i].iov_base == memory) {
				pieces[i].iov_len = 4096;
				assert_int_equal(vmsplice(ends[1], &pieces[i], 1, 0), 4096);
				lent = true;
			}
	}
	test_go(device, QSC_STATE_RUNNING);
	qsc_device_close(device->dev);
	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	memset(bytes, 0xa5, SIZE);
	assert_int_equal(qsc_device_region_write(device->dev, 2, 0, bytes, SIZE), SIZE);
	assert_int_equal(memory[0], 0xa5);
	assert_int_equal(read(ends[0], bytes, 4096), 4096);
	for (size_t i = 0; i < 4096; i++)
		assert_int_equal(bytes[i], 0x5a);
	close(ends[0]);
	close(ends[1]);
	free(bytes);
	test_end(device);
}

/* SESS-1: inside the saving group the session is kept, and outside it is another one. */
static void test_SESS_1_one_session_lives_through_the_saving_states(void **unused)
{
	static const uint32_t flag_sets[] = {5, 7};

	for (size_t i = 0; i < 2; i++) {
		struct test_device *device = test_new(flag_sets[i]);
		uint64_t first = enter(device, QSC_STATE_PRE_COPY);
		uint64_t second;
		struct qsc_precopy_info info;
		uint8_t bytes[64];

		assert_int_not_equal(first, 0);
		if (flag_sets[i] & QSC_MIGRATION_P2P)
			assert_int_equal(enter(device, QSC_STATE_PRE_COPY_P2P), 0);
		assert_int_equal(qsc_device_session_precopy_info(device->dev, first, &info), 0);
		assert_int_equal(enter(device, QSC_STATE_STOP_COPY), 0);
		assert_int_equal(qsc_device_session_read(device->dev, first, bytes, 64), 64);
		assert_int_equal(qsc_device_session_precopy_info(device->dev, first, &info),
				 -EINVAL);
		assert_int_equal(enter(device, QSC_STATE_STOP), 0);
		assert_int_equal(qsc_device_session_read(device->dev, first, bytes, 64), -ENODEV);
		second = enter(device, QSC_STATE_STOP_COPY);
		assert_int_not_equal(second, 0);
		assert_int_not_equal(second, first);
		assert_int_equal(qsc_device_session_read(device->dev, first, bytes, 64), -ENODEV);
		assert_int_equal(qsc_device_session_write(device->dev, second, bytes, 64), -ENODEV);
		assert_int_equal(qsc_device_session_close(device->dev, first), -ENODEV);
		assert_int_equal(qsc_device_session_close(device->dev, second), 0);
		assert_int_equal(qsc_device_session_read(device->dev, second, bytes, 64), -ENODEV);
		test_end(device);
	}
}

/* SESS-3, SESS-4: drained is not the end; what changes is counted and sent. */
static void test_SESS_4_precopy_follows_changes(void **unused)
{
	struct test_device *a = busy_device(5);
	struct test_device *b = test_new(5);
	struct stream stream = {NULL, 0};
	struct qsc_precopy_info before;
	struct qsc_precopy_info info;
	uint64_t session = enter(a, QSC_STATE_PRE_COPY);
	uint64_t loading = enter(b, QSC_STATE_RESUMING);
	size_t initial;
	uint8_t *zero = calloc(1, 4096);
	uint64_t estimate;

	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &before), 0);
	assert_true(before.initial_bytes > 3 * 4096ULL);
	assert_int_equal(before.dirty_bytes, 0);
	stream.bytes = malloc(6000);
	assert_int_equal(qsc_device_session_read(a->dev, session, stream.bytes, 6000), 6000);
	stream.size = 6000;
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_true(info.initial_bytes < before.initial_bytes && info.initial_bytes > 0);
	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_int_equal(info.initial_bytes, 0);
	assert_int_equal(info.dirty_bytes, 0);
	initial = stream.size;

	/* By a trapped write, by the model, and a page that becomes zero again. */
	assert_int_equal(qsc_device_region_write(a->dev, 2, 40960, "new", 3), 3);
	((uint8_t *)qsc_block_data(a->rt, 0))[81920] = 9;
	qsc_block_dirty(a->rt, 0, 81920, 1);
	assert_int_equal(qsc_device_region_write(a->dev, 2, 8192, zero, 4096), 4096);
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_int_equal(info.dirty_bytes, 3 * 4096ULL);
	assert_int_equal(qsc_device_data_size(a->dev, &estimate), 0);
	assert_true(estimate >= 3 * 4096ULL && estimate < 5 * 4096ULL);
	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	assert_true(stream.size > initial + 2 * 4096ULL && stream.size < initial + 3 * 4096ULL);
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_int_equal(info.dirty_bytes, 0);
	assert_int_equal(qsc_device_region_write(a->dev, 2, 40960, "end", 3), 3);
	assert_int_equal(enter(a, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(drain(a, session, &stream, 100000), 0);

	assert_int_equal(feed(b, loading, &stream, 5001), 0);
	test_go(b, QSC_STATE_STOP);
	assert_memory_equal(qsc_block_data(a->rt, 0), qsc_block_data(b->rt, 0), TEST_BAR2_SIZE);
	free(stream.bytes);
	free(zero);
	test_end(a);
	test_end(b);
}

/* Pages written through a mapping leave no mark and are found all the same. */
static void test_mapped_writes_are_found(void **unused)
{
	struct test_device *a = busy_device(7);
	struct test_device *b = test_new(7);
	struct stream stream = {NULL, 0};
	struct qsc_precopy_info info;
	uint64_t session;
	uint64_t fd_offset;
	void *mapped;
	void *late;
	int fd;

	assert_int_equal(qsc_device_region_map(a->dev, 2, 0, TEST_BAR2_SIZE, PROT_READ | PROT_WRITE,
					       &mapped),
			 0);
	session = enter(a, QSC_STATE_PRE_COPY);
	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	memcpy((char *)mapped + 20000, "mapped", 6);
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_int_equal(info.dirty_bytes, 4096);
	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	/* There and back between two looks: what was sent is what counts. */
	memcpy((char *)mapped + 20000, "MAPPED", 6);
	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	memcpy((char *)mapped + 20000, "mapped", 6);
	assert_int_equal(qsc_device_session_precopy_info(a->dev, session, &info), 0);
	assert_int_equal(info.dirty_bytes, 4096);
	/* A peer writes in the P2P state (DEV-5). */
	assert_int_equal(qsc_device_region_fd(a->dev, 2, &fd, &fd_offset), 0);
	late = mmap(NULL, TEST_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)fd_offset);
	assert_ptr_not_equal(late, MAP_FAILED);
	assert_int_equal(enter(a, QSC_STATE_PRE_COPY_P2P), 0);
	memcpy((char *)late + 70000, "peer", 4);
	assert_int_equal(enter(a, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(drain(a, session, &stream, 100000), 0);
	assert_int_equal(feed(b, enter(b, QSC_STATE_RESUMING), &stream, 65536), 0);
	test_go(b, QSC_STATE_STOP);
	assert_memory_equal(qsc_block_data(a->rt, 0), qsc_block_data(b->rt, 0), TEST_BAR2_SIZE);
	assert_memory_equal((char *)qsc_block_data(b->rt, 0) + 20000, "mapped", 6);

	/* DEV-7: revoked here; ORD-1: found there. */
	assert_int_equal(((uint8_t *)mapped)[20000], 0xff);
	((uint8_t *)mapped)[20001] = 1;
	assert_int_equal(a->violations, 0);
	test_go(a, QSC_STATE_STOP);
	test_go(a, QSC_STATE_RUNNING);
	assert_int_equal(a->violations, 0);
	assert_memory_equal((char *)mapped + 20000, "mapped", 6);
	test_go(a, QSC_STATE_STOP);
	((uint8_t *)late)[70000] = 'b';
	test_go(a, QSC_STATE_RUNNING_P2P);
	assert_int_equal(a->violations, 1);
	assert_non_null(strstr(a->violation, "region 2"));
	assert_non_null(strstr(a->violation, "0x11000"));
	munmap(late, TEST_BAR2_SIZE);
	close(fd);
	assert_int_equal(qsc_device_region_unmap(a->dev, mapped, TEST_BAR2_SIZE), 0);
	free(stream.bytes);
	test_end(a);
	test_end(b);
}

/* A region given out in the middle of a session: nothing written since its start is missed. */
static void test_given_out_during_precopy(void **unused)
{
	struct test_device *a = busy_device(5);
	struct test_device *b = test_new(5);
	struct stream stream = {NULL, 0};
	uint64_t session = enter(a, QSC_STATE_PRE_COPY);
	void *mapped;

	assert_int_equal(drain(a, session, &stream, 100000), -ENOMSG);
	assert_int_equal(qsc_device_region_map(a->dev, 2, 0, TEST_BAR2_SIZE, PROT_READ | PROT_WRITE,
					       &mapped),
			 0);
	memcpy((char *)mapped + 8192, "mapped", 6);
	assert_int_equal(qsc_device_region_unmap(a->dev, mapped, TEST_BAR2_SIZE), 0);
	assert_int_equal(enter(a, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(drain(a, session, &stream, 100000), 0);
	assert_int_equal(feed(b, enter(b, QSC_STATE_RESUMING), &stream, 65536), 0);
	test_go(b, QSC_STATE_STOP);
	assert_memory_equal(qsc_block_data(a->rt, 0), qsc_block_data(b->rt, 0), TEST_BAR2_SIZE);
	free(stream.bytes);
	test_end(a);
	test_end(b);
}

/* ORD-1 on the destination: what was loaded is no change, what a mapping changed since is. */
static void test_ORD_1_after_a_load(void **unused)
{
	struct test_device *a = busy_device(7);
	static const size_t pieces[] = {1000, 4096, 65536};
	struct stream stream = save(a, 65536);
	size_t i;

	for (i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		struct test_device *b = busy_device(7);
		uint64_t fd_offset;
		char *mapped;
		int fd;

		assert_int_equal(qsc_device_region_fd(b->dev, 2, &fd, &fd_offset), 0);
		/* The flags of what was handed out are the receiver's; ours are others. */
		assert_int_equal(fcntl(fd, F_SETFL, O_APPEND), 0);
		mapped = mmap(NULL, TEST_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			      (off_t)fd_offset);
		assert_ptr_not_equal(mapped, MAP_FAILED);
		assert_int_equal(feed(b, enter(b, QSC_STATE_RESUMING), &stream, pieces[i]), 0);
		test_go(b, QSC_STATE_STOP);
		test_go(b, QSC_STATE_RUNNING);
		assert_int_equal(b->violations, 0);

		assert_int_equal(feed(b, enter(b, QSC_STATE_RESUMING), &stream, pieces[i]), 0);
		test_go(b, QSC_STATE_STOP);
		mapped[0x11000]++;
		test_go(b, QSC_STATE_RUNNING);
		assert_int_equal(b->violations, 1);
		assert_non_null(strstr(b->violation, "0x11000"));
		munmap(mapped, TEST_BAR2_SIZE);
		close(fd);
		test_end(b);
	}
	free(stream.bytes);
	test_end(a);
}

/* Load `stream` into a device with something in it; it must end as said and leave no trace. */
static void expect_refused(const struct stream *stream, bool incomplete)
{
	struct test_device *fresh = test_new(3);
	struct test_device *device = busy_device(3);
	struct stream expected = save(fresh, 65536);
	struct stream after;
	uint64_t session = enter(device, QSC_STATE_RESUMING);
	uint64_t unused;
	ssize_t written = feed(device, session, stream, 4096);
	int result = qsc_device_set_state(device->dev, QSC_STATE_STOP, &unused);

	assert_int_equal(test_now(device), incomplete ? QSC_STATE_RESUMING : QSC_STATE_ERROR);
	if (incomplete) {
		assert_int_equal(result, -ENODATA);
		assert_int_equal(written, 0);
	} else {
		assert_true(result < 0 && result != -ENODATA);
		assert_true(!written || written == result);
	}
	assert_int_equal(device->loads, 0);
	assert_int_equal(qsc_device_reset(device->dev), 0);
	assert_int_equal(qsc_device_session_write(device->dev, session, "x", 1), -ENODEV);
	after = save(device, 65536);
	assert_streams_equal(&expected, &after);
	free(expected.bytes);
	free(after.bytes);
	test_end(fresh);
	test_end(device);
}

/* SESS-6, SESS-7: cut anywhere, changed anywhere, too long. */
static void test_SESS_6_broken_streams_are_refused(void **unused)
{
	struct test_device *device = busy_device(3);
	struct stream good = save(device, 65536);
	struct stream bad = {malloc(good.size + 1), 0};

	for (size_t cut = 0; cut < good.size;
	     cut += cut < 600 || cut > good.size - 300 ? 13 : 997) {
		bad.size = cut;
		memcpy(bad.bytes, good.bytes, cut);
		expect_refused(&bad, true);
	}
	for (size_t at = 0; at < good.size; at += at < 600 || at > good.size - 300 ? 11 : 997) {
		struct test_device *other = test_new(3);
		uint64_t session = enter(other, QSC_STATE_RESUMING);
		uint64_t ignored;

		memcpy(bad.bytes, good.bytes, good.size);
		bad.bytes[at] ^= 0x41;
		bad.size = good.size;
		(void)feed(other, session, &bad, 65536);
		assert_true(qsc_device_set_state(other->dev, QSC_STATE_STOP, &ignored) < 0);
		assert_int_not_equal(test_now(other), QSC_STATE_STOP);
		assert_int_equal(other->loads, 0);
		test_end(other);
	}
	memcpy(bad.bytes, good.bytes, good.size);
	bad.bytes[good.size] = 0;
	bad.size = good.size + 1;
	expect_refused(&bad, false);
	free(bad.bytes);
	free(good.bytes);
	test_end(device);
}

/* The model has the last word. */
static void test_SESS_6_inconsistent_state_is_refused(void **unused)
{
	struct test_device *device = busy_device(3);
	struct stream stream;

	test_poke(device, REG_WINDOW, 5);
	stream = save(device, 65536);
	expect_refused(&stream, false);
	free(stream.bytes);
	test_go(device, QSC_STATE_RUNNING);
	test_poke(device, REG_WINDOW, 0);
	device->custom[0] = 0xee;
	stream = save(device, 65536);
	expect_refused(&stream, false);
	free(stream.bytes);
	test_end(device);
}

/* SESS-11: a stream of another kind of device is refused before anything has changed. */
static void test_SESS_11_foreign_streams_change_nothing(void **unused)
{
	struct qsc_block_desc small = {.name = "memory", .size = 4096};
	struct qsc_region_desc regions[] = {test_regions[0]};
	struct qsc_runtime_options options = test_options(NULL, 3);

	for (int i = 0; i < 3; i++) {
		struct test_device *device = busy_device(3);
		struct test_device *other;
		struct stream stream;
		uint64_t session;

		options = test_options(NULL, 3);
		if (i == 0)
			options.msix_vectors = 7;
		if (i == 1)
			options.intx = false;
		if (i == 2) {
			options.blocks = &small;
			options.regions = regions;
			options.num_regions = 1;
		}
		other = test_make(&options);
		stream = save(other, 65536);
		session = enter(device, QSC_STATE_RESUMING);
		assert_int_equal(feed(device, session, &stream, 50), -EINVAL);
		assert_int_equal(feed(device, session, &stream, 50), -EINVAL);
		assert_int_equal(device->resets, 1);
		assert_int_equal(test_state_of(device)->scratch, 0x1122334455667788);
		assert_int_not_equal(((uint8_t *)qsc_block_data(device->rt, 0))[8192], 0);
		free(stream.bytes);
		test_end(other);
		test_end(device);
	}
}

/* DEV-6: held here and delivered once, there, when there is an eventfd for it. */
static void test_DEV_6_held_interrupts_travel(void **unused)
{
	struct test_device *a = busy_device(3);
	struct test_device *b = test_new(3);
	struct stream stream;
	struct stream again;

	test_go(a, QSC_STATE_RUNNING_P2P);
	qsc_irq_raise(a->rt, VFIO_PCI_MSIX_IRQ_INDEX, 2);
	qsc_irq_raise(a->rt, VFIO_PCI_MSIX_IRQ_INDEX, 2);
	stream = save(a, 65536);
	assert_int_equal(feed(b, enter(b, QSC_STATE_RESUMING), &stream, 999), 0);
	test_go(b, QSC_STATE_STOP);
	again = save(b, 65536);
	assert_streams_equal(&stream, &again);
	free(stream.bytes);
	free(again.bytes);
	test_end(a);
	test_end(b);
}

/* SESS-10 */
static void test_SESS_10_the_estimate_is_near(void **unused)
{
	struct test_device *device = busy_device(3);
	struct stream stream;
	uint64_t before;
	uint64_t after;
	uint64_t ignored;

	assert_int_equal(qsc_device_data_size(device->dev, &before), 0);
	stream = save(device, 65536);
	assert_true(before >= stream.size - 200 && before < stream.size + 4096);
	assert_int_equal(qsc_device_data_size(device->dev, &after), 0);
	assert_true(after < 1000);
	device->fail_start = EIO;
	assert_true(qsc_device_set_state(device->dev, QSC_STATE_RUNNING, &ignored) < 0);
	assert_int_equal(qsc_device_data_size(device->dev, &after), -EIO);
	free(stream.bytes);
	test_end(device);
}

/* Pages of zeroes in a stream take no memory where they arrive, and what was there is gone. */
static void test_zeroes_take_no_memory(void **unused)
{
	const struct qsc_block_desc desc = {.name = "sparse", .size = 1ULL << 30};
	static const uint8_t ones[8192] = {1, [8191] = 1};
	struct qsc_block block;
	uint64_t page;
	uint64_t count;
	uint64_t first;

	assert_int_equal(qsc_block_init(&block, &desc), 0);
	assert_int_equal(qsc_block_give_out(&block), 0);
	atomic_store(&block.by_fd, true);
	qsc_block_freeze(&block, false);
	assert_int_equal(qsc_block_load(&block, 4096, ones, 8192), 0);
	assert_int_equal(qsc_block_load(&block, 1 << 20, ones, 4096), 0);
	assert_int_equal(qsc_block_changed(&block, &first), 0);
	assert_int_equal(qsc_block_load_zero(&block, 8192, desc.size - 8192), 0);
	assert_int_equal(block.memory[4096], 1);
	assert_true(qsc_block_next_data(&block, 0, &page, &count));
	assert_int_equal(page, 1);
	assert_int_equal(count, 1);
	assert_false(qsc_block_next_data(&block, 2, &page, &count));
	/* The baseline of ORD-1 follows. */
	assert_int_equal(qsc_block_changed(&block, &first), 0);
	block.memory[8192] = 1;
	assert_int_equal(qsc_block_changed(&block, &first), 1);
	assert_int_equal(first, 2);
	qsc_block_destroy(&block);
}

/* A cleared range takes no memory, is all zero, and is known to have been written. */
static void test_cleared_ranges_take_no_memory(void **unused)
{
	const struct qsc_block_desc desc = {.name = "wiped", .size = 65536};
	struct qsc_block block;
	uint64_t page;
	uint64_t count;

	for (uint64_t from = 100; from < 12000; from += 997) {
		for (uint64_t size = 1; size < 20000; size += 4095) {
			assert_int_equal(qsc_block_init(&block, &desc), 0);
			memset(block.memory, 1, block.size);
			qsc_block_wipe(&block, from, size);
			for (uint64_t i = 0; i < block.size; i++)
				assert_int_equal(block.memory[i], i < from || i >= from + size);
			assert_true(qsc_bitmap_test((const uint64_t *)block.dirty, from >> 12));
			assert_true(qsc_bitmap_test((const uint64_t *)block.dirty,
						    (from + size - 1) >> 12));
			qsc_block_destroy(&block);
		}
	}
	assert_int_equal(qsc_block_init(&block, &desc), 0);
	memset(block.memory, 1, block.size);
	qsc_block_wipe(&block, 4096, UINT64_MAX);
	qsc_block_wipe(&block, block.size, 1);
	assert_true(qsc_block_next_data(&block, 0, &page, &count));
	assert_int_equal(count, 1);
	qsc_block_destroy(&block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_save_load_save_is_equal),
		cmocka_unit_test(test_lent_stream_is_the_same),
		cmocka_unit_test(test_STATE_5_lent_pages_are_not_the_next_users),
		cmocka_unit_test(test_SESS_1_one_session_lives_through_the_saving_states),
		cmocka_unit_test(test_SESS_4_precopy_follows_changes),
		cmocka_unit_test(test_mapped_writes_are_found),
		cmocka_unit_test(test_given_out_during_precopy),
		cmocka_unit_test(test_ORD_1_after_a_load),
		cmocka_unit_test(test_SESS_6_broken_streams_are_refused),
		cmocka_unit_test(test_SESS_6_inconsistent_state_is_refused),
		cmocka_unit_test(test_SESS_11_foreign_streams_change_nothing),
		cmocka_unit_test(test_DEV_6_held_interrupts_travel),
		cmocka_unit_test(test_zeroes_take_no_memory),
		cmocka_unit_test(test_cleared_ranges_take_no_memory),
		cmocka_unit_test(test_SESS_10_the_estimate_is_near),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
