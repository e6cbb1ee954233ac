/* SPDX-License-Identifier: MIT */
/* Client and server together, over a socket pair: every operation of the device interface. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "pair.h"

/* Every way to set up a connection; each test runs with each. */
static const struct qsc_client_options ways[] = {
	{.request_timeout_ms = 20000},
	{.request_timeout_ms = 20000, .no_twin_socket = true},
	{.request_timeout_ms = 20000, .no_fds = true},
	{.request_timeout_ms = 20000, .no_fds = true, .no_twin_socket = true},
	{.request_timeout_ms = 20000, .poll = true},
	{.request_timeout_ms = 20000, .posted_writes = true},
};

static void for_each_way(void (*test)(struct pair *pair))
{
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(ways); i++) {
		struct pair pair;

		pair_open(&pair, NULL, &ways[i]);
		test(&pair);
		pair_close(&pair);
	}
}

static void describe(struct pair *pair)
{
	struct qsc_device_info info;
	struct qsc_region_info region;
	struct qsc_irq_info irq;

	assert_string_equal(qsc_device_kind(pair->dev), "vfio-user");
	assert_int_equal(qsc_device_get_info(pair->dev, &info), 0);
	assert_int_equal(info.num_regions, FAKE_REGIONS);
	assert_int_equal(info.num_irqs, FAKE_IRQS);
	assert_int_equal(info.flags, VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET);
	assert_string_equal(info.layout.type, "fake");
	assert_int_equal(info.layout.num_parts, 2);
	assert_string_equal(info.layout.parts[0].name, "registers");
	assert_int_equal(info.layout.parts[0].version, 3);
	assert_int_equal(info.layout.parts[0].min_version, 2);
	assert_int_equal(info.layout.parts[1].kind, QSC_LAYOUT_BLOCK);
	assert_int_equal(info.layout.parts[1].size, FAKE_MEMORY_SIZE);
	assert_int_equal(qsc_device_get_region_info(pair->dev, FAKE_MEMORY, &region), 0);
	assert_int_equal(region.size, FAKE_MEMORY_SIZE);
	assert_true(region.flags & VFIO_REGION_INFO_FLAG_MMAP);
	assert_int_equal(region.num_areas, 2);
	assert_int_equal(region.areas[1].offset, 16384);
	assert_true(region.stopped_known);
	assert_int_equal(region.stopped, QSC_VERDICT_DISCARD);
	assert_int_equal(qsc_device_get_region_info(pair->dev, FAKE_REGIONS, &region), -EINVAL);
	assert_int_equal(qsc_device_get_region_info(pair->dev, 3, &region), 0);
	assert_int_equal(region.size, 0);
	assert_int_equal(qsc_device_get_irq_info(pair->dev, FAKE_MSIX, &irq), 0);
	assert_int_equal(irq.count, FAKE_VECTORS);
	assert_int_equal(qsc_device_get_irq_info(pair->dev, FAKE_IRQS, &irq), -EINVAL);
}

static void test_describe(void **state)
{
	for_each_way(describe);
}

static void access_regions(struct pair *pair)
{
	struct qsc_region_write writes[3] = {
		{.offset = 0, .region = FAKE_REGISTERS, .count = 4, .data = {1, 2, 3, 4}},
		{.offset = 4, .region = FAKE_REGISTERS, .count = 1, .data = {5}},
		{.offset = 8, .region = FAKE_CONFIG, .count = 8, .data = {9, 9, 9, 9, 9, 9, 9, 9}},
	};
	uint32_t value = 0x12345678;
	uint32_t got = 0;

	assert_int_equal(qsc_device_region_write(pair->dev, FAKE_REGISTERS, 16, &value, 4), 4);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_REGISTERS, 16, &got, 4), 4);
	assert_int_equal(got, value);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_REGISTERS, 4094, &got, 4), -EINVAL);
	assert_int_equal(qsc_device_region_read(pair->dev, 77, 0, &got, 4), -EINVAL);
	assert_int_equal(qsc_device_region_write_multi(pair->dev, writes, 3), 3);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_REGISTERS, 1, &got, 4), 4);
	assert_int_equal(got, 0x05040302);
	/* The device answers both with what it was told. */
	fake_set(pair->fake, fail[FAKE_OP_REGION_READ], -EPERM);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_REGISTERS, 0, &got, 4), -EPERM);
}

static void test_access_regions(void **state)
{
	for_each_way(access_regions);
}

static void access_big(struct pair *pair)
{
	qsc_autofree uint8_t *out = malloc(FAKE_BIG_SIZE);
	qsc_autofree uint8_t *in = calloc(1, FAKE_BIG_SIZE);
	size_t i;

	for (i = 0; i < FAKE_BIG_SIZE; i++)
		out[i] = fake_stream_byte(i);
	assert_int_equal(qsc_device_region_write(pair->dev, FAKE_BIG, 0, out, FAKE_BIG_SIZE),
			 FAKE_BIG_SIZE);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_BIG, 0, in, FAKE_BIG_SIZE),
			 FAKE_BIG_SIZE);
	assert_memory_equal(in, out, FAKE_BIG_SIZE);
	/* Cut at what one message may carry. */
	assert_int_equal(fake_get(pair->fake, calls[FAKE_OP_REGION_READ]), 4);
}

static void test_access_beyond_one_message(void **state)
{
	for_each_way(access_big);
}

static void map_region(struct pair *pair)
{
	volatile uint8_t *memory;
	void *addr;
	uint64_t session;
	uint64_t offset;
	int fd;

	assert_int_equal(qsc_device_region_map(pair->dev, FAKE_MEMORY, 8192, 4096,
					       PROT_READ | PROT_WRITE, &addr),
			 -EINVAL);
	assert_int_equal(
		qsc_device_region_map(pair->dev, FAKE_REGISTERS, 0, 4096, PROT_READ, &addr),
		-EINVAL);
	assert_int_equal(qsc_device_region_map(pair->dev, FAKE_MEMORY, 16384, 4096,
					       PROT_READ | PROT_WRITE, &addr),
			 0);
	memory = addr;
	memory[3] = 42;
	assert_int_equal(pair->fake->memory[16384 + 3], 42);
	/* DEV-7: taken away while stopped, given back when running. */
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP, &session), 0);
	assert_int_equal(memory[3], 0xff);
	memory[3] = 1;
	assert_int_equal(pair->fake->memory[16384 + 3], 42);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RUNNING, &session), 0);
	assert_int_equal(memory[3], 42);
	/* A state change that fails leaves the mapping as the state is. */
	fake_set(pair->fake, fail[FAKE_OP_SET_STATE], -EIO);
	fake_set(pair->fake, fail_state, QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP, &session), -EIO);
	assert_int_equal(memory[3], 42);
	/* Whatever it fails with: that of the device is not that of the connection. */
	fake_set(pair->fake, fail[FAKE_OP_SET_STATE], -ETIMEDOUT);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP, &session), -ETIMEDOUT);
	assert_int_equal(memory[3], 42);
	fake_set(pair->fake, fail[FAKE_OP_SET_STATE], -EIO);
	fake_set(pair->fake, fail_state, QSC_STATE_ERROR);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RUNNING_P2P, &session), -EIO);
	assert_int_equal(memory[3], 0xff);
	assert_int_equal(qsc_device_reset(pair->dev), 0);
	assert_int_equal(memory[3], 42);
	assert_int_equal(qsc_device_region_unmap(pair->dev, addr, 4096), 0);
	assert_int_equal(qsc_device_region_fd(pair->dev, FAKE_MEMORY, &fd, &offset), 0);
	assert_int_equal(offset, 0);
	close(fd);
	assert_int_equal(qsc_device_region_fd(pair->dev, FAKE_REGISTERS, &fd, &offset), -ENOTTY);
}

static void test_map_region(void **state)
{
	for_each_way(map_region);
}

static void io_fds(struct pair *pair)
{
	struct qsc_io_fd fds[4];

	assert_int_equal(qsc_device_region_io_fds(pair->dev, FAKE_REGISTERS, fds, 4), 1);
	assert_int_equal(fds[0].offset, 64);
	assert_int_equal(fds[0].size, 4);
	assert_true(fds[0].match);
	assert_int_equal(fds[0].value, 5);
	assert_int_equal(qsc_eventfd_signal(fds[0].fd, 3), 0);
	assert_int_equal(qsc_eventfd_drain(pair->fake->io_fd.fd), 3);
	close(fds[0].fd);
	assert_int_equal(qsc_device_region_io_fds(pair->dev, FAKE_BIG, fds, 4), 0);
}

static void test_io_fds(void **state)
{
	for_each_way(io_fds);
}

static void interrupts(struct pair *pair)
{
	uint8_t bools[3] = {1, 0, 1};
	int fds[FAKE_VECTORS];
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = FAKE_MSIX,
		.start = 2,
		.count = 3,
		.bools = bools,
	};
	uint32_t i;

	for (i = 0; i < FAKE_VECTORS; i++)
		fds[i] = i % 100 == 7 ? -1 : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	/* More vectors than one message has room for, some without an eventfd. */
	assert_int_equal(qsc_device_set_eventfds(pair->dev, FAKE_MSIX, fds, FAKE_VECTORS), 0);
	for (i = 0; i < FAKE_VECTORS; i++) {
		assert_int_equal(fake_get(pair->fake, vectors[i]) < 0, fds[i] < 0);
		fake_raise(pair->fake, i);
		if (fds[i] >= 0)
			assert_int_equal(qsc_eventfd_drain(fds[i]), 1);
	}
	assert_int_equal(qsc_device_set_irqs(pair->dev, &set), 0);
	assert_int_equal(fake_get(pair->fake, triggers), 2);
	set.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
	assert_int_equal(qsc_device_set_irqs(pair->dev, &set), 0);
	assert_int_equal(fake_get(pair->fake, irq_flags), set.flags);
	set.start = FAKE_VECTORS - 1;
	assert_int_equal(qsc_device_set_irqs(pair->dev, &set), -EINVAL);
	assert_int_equal(qsc_device_set_eventfds(pair->dev, FAKE_MSIX, NULL, 0), 0);
	for (i = 0; i < FAKE_VECTORS; i++) {
		assert_int_equal(fake_get(pair->fake, vectors[i]), -1);
		qsc_fd_close(&fds[i]);
	}
}

static void test_interrupts(void **state)
{
	for_each_way(interrupts);
}

static int read_pattern(void *ctx, uint64_t iova, void *buf, size_t size)
{
	size_t i;

	for (i = 0; i < size; i++)
		((uint8_t *)buf)[i] = (uint8_t)((iova + i) * 3);
	return 0;
}

static int write_count(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	*(size_t *)ctx += size;
	return 0;
}

/*
 * Memory that the client's own thread writes on behalf of the device is ordered by what goes over
 * the sockets, which a thread sanitizer does not see. A mapping is a point that it sees.
 */
static void settle(struct pair *pair)
{
	static uint8_t page[4096];
	struct qsc_dma_mapping mapping = {
		.iova = 1ULL << 40, .size = 4096, .flags = QSC_DMA_READ, .vaddr = page, .fd = -1};

	assert_int_equal(qsc_device_dma_map(pair->dev, &mapping), 0);
	assert_int_equal(qsc_device_dma_unmap(pair->dev, mapping.iova, mapping.size), 0);
}

static void dma(struct pair *pair)
{
	size_t written = 0;
	struct qsc_dma_access access = {
		.read = read_pattern, .write = write_count, .ctx = &written};
	qsc_autoclose int fd = qsc_fd_memory("test", 1 << 16);
	qsc_autofree uint8_t *buf = malloc(3 << 20);
	qsc_autofree uint8_t *memory = calloc(1, 3 << 20);
	uint8_t copy[4096];
	struct qsc_dma_mapping file = {.iova = 0x100000,
				       .size = 1 << 16,
				       .flags = QSC_DMA_READ | QSC_DMA_WRITE | QSC_DMA_PEER,
				       .fd = fd};
	struct qsc_dma_mapping plain = {.iova = 0x1000000,
					.size = 3 << 20,
					.flags = QSC_DMA_READ | QSC_DMA_WRITE,
					.vaddr = memory,
					.fd = -1};
	struct qsc_dma_mapping asked = {.iova = 0x8000000,
					.size = 4096,
					.flags = QSC_DMA_READ | QSC_DMA_WRITE,
					.fd = -1,
					.access = &access};

	assert_int_equal(qsc_device_dma_map(pair->dev, &file), 0);
	assert_int_equal(fake_get(pair->fake, mappings[0].flags), file.flags);
	assert_int_equal(qsc_device_dma_map(pair->dev, &file), -EEXIST);
	assert_int_equal(qsc_device_dma_map(pair->dev, &plain), 0);
	assert_int_equal(qsc_device_dma_map(pair->dev, &asked), 0);
	memset(buf, 0x5a, 3 << 20);
	assert_int_equal(fake_dma(pair->fake, file.iova + 4096, buf, 4096, true), 0);
	assert_int_equal(pread(fd, copy, 4096, 4096), 4096);
	assert_memory_equal(copy, buf, 4096);
	/* Larger than one message. */
	assert_int_equal(fake_dma(pair->fake, plain.iova, buf, 3 << 20, true), 0);
	settle(pair);
	assert_memory_equal(memory, buf, 3 << 20);
	memset(memory, 0x33, 3 << 20);
	settle(pair);
	assert_int_equal(fake_dma(pair->fake, plain.iova, buf, 3 << 20, false), 0);
	assert_memory_equal(memory, buf, 3 << 20);
	assert_int_equal(fake_dma(pair->fake, asked.iova + 1, buf, 5, false), 0);
	assert_int_equal(buf[4], (uint8_t)((asked.iova + 5) * 3));
	assert_int_equal(fake_dma(pair->fake, asked.iova, buf, 4096, true), 0);
	settle(pair);
	assert_int_equal(written, 4096);
	/* The device may do it while it handles a command of the same connection. */
	assert_int_equal(qsc_device_region_write(pair->dev, FAKE_REGISTERS, FAKE_KICK, &plain.iova,
						 sizeof(plain.iova)),
			 8);
	assert_int_equal(qsc_device_region_read(pair->dev, FAKE_REGISTERS, 0, buf, 4), 4);
	assert_int_equal(fake_get(pair->fake, dma_error), 0);
	assert_int_equal(fake_get(pair->fake, dma_result), 0x3333333333333333);
	assert_int_equal(qsc_device_dma_unmap(pair->dev, plain.iova, 4096), -ENOENT);
	assert_int_equal(qsc_device_dma_unmap(pair->dev, plain.iova, plain.size), 0);
	assert_int_equal(fake_dma(pair->fake, plain.iova, buf, 8, false), -EFAULT);
	/* A mapping that the device refuses leaves nothing behind. */
	fake_set(pair->fake, fail[FAKE_OP_DMA_MAP], -ENOMEM);
	assert_int_equal(qsc_device_dma_map(pair->dev, &plain), -ENOMEM);
	assert_int_equal(qsc_device_dma_map(pair->dev, &plain), 0);
}

static void test_dma(void **state)
{
	for_each_way(dma);
}

static void save_and_load(struct pair *pair)
{
	qsc_autofree uint8_t *buf = malloc(FAKE_STREAM);
	struct qsc_precopy_info info;
	struct qsc_migration_info migration;
	enum qsc_state now;
	uint64_t session;
	uint64_t none;
	uint64_t size;
	size_t done = 0;
	ssize_t n;

	/* Short reads of the device are not the end on the wire. */
	fake_set(pair->fake, chunk, 100000);
	assert_int_equal(qsc_device_get_migration(pair->dev, &migration), 0);
	assert_int_equal(migration.flags, 7);
	assert_true(migration.dirty_log);
	assert_int_equal(qsc_device_data_size(pair->dev, &size), 0);
	assert_int_equal(size, FAKE_STREAM);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_PRE_COPY, &session), 0);
	assert_int_not_equal(session, 0);
	assert_int_equal(qsc_device_session_precopy_info(pair->dev, session, &info), 0);
	assert_int_equal(info.initial_bytes, FAKE_STREAM / 2);
	assert_int_equal(info.dirty_bytes, 77);
	while ((n = qsc_device_session_read(pair->dev, session, buf + done, 700000)) > 0)
		done += (size_t)n;
	assert_int_equal(n, -ENOMSG);
	assert_int_equal(done, FAKE_STREAM / 2);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP_COPY, &none), 0);
	assert_int_equal(none, 0);
	assert_int_equal(qsc_device_session_precopy_info(pair->dev, session, &info), -EINVAL);
	while ((n = qsc_device_session_read(pair->dev, session, buf + done,
					    FAKE_STREAM - done + 1)) > 0)
		done += (size_t)n;
	assert_int_equal(n, 0);
	assert_int_equal(qsc_device_session_read(pair->dev, session, buf, 10), 0);
	assert_int_equal(done, FAKE_STREAM);
	for (done = 0; done < FAKE_STREAM; done++)
		assert_int_equal(buf[done], fake_stream_byte(done));
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP, &none), 0);
	n = fake_get(pair->fake, calls[FAKE_OP_SESSION_READ]);
	/* SESS-2, without asking. */
	assert_int_equal(qsc_device_session_read(pair->dev, session, buf, 10), -ENODEV);
	assert_int_equal(fake_get(pair->fake, calls[FAKE_OP_SESSION_READ]), n);

	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RESUMING, &none), 0);
	assert_int_not_equal(none, session);
	assert_int_equal(qsc_device_session_write(pair->dev, session, buf, 10), -ENODEV);
	session = none;
	assert_int_equal(qsc_device_session_read(pair->dev, session, buf, 10), -ENODEV);
	assert_int_equal(qsc_device_session_write(pair->dev, session, buf, FAKE_STREAM),
			 FAKE_STREAM);
	assert_memory_equal(fake_get(pair->fake, stream), buf, FAKE_STREAM);
	fake_set(pair->fake, fail[FAKE_OP_SESSION_WRITE], -EBADMSG);
	assert_int_equal(qsc_device_session_write(pair->dev, session, buf, 10), -EBADMSG);
	/* ARC-6, STATE-4: the truth after a failure. */
	fake_set(pair->fake, fail[FAKE_OP_SET_STATE], -EINVAL);
	fake_set(pair->fake, fail_state, QSC_STATE_ERROR);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RUNNING, &none), -EINVAL);
	assert_int_equal(qsc_device_get_state(pair->dev, &now), 0);
	assert_int_equal(now, QSC_STATE_ERROR);
	assert_int_equal(qsc_device_session_write(pair->dev, session, buf, 10), -ENODEV);
	assert_int_equal(qsc_device_reset(pair->dev), 0);
	assert_int_equal(qsc_device_get_state(pair->dev, &now), 0);
	assert_int_equal(now, QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_set_state(pair->dev, 8, &none), -EINVAL);
	assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RESUMING, &session), 0);
	assert_int_equal(qsc_device_session_close(pair->dev, session), 0);
	assert_int_equal(qsc_device_session_close(pair->dev, session), -ENODEV);
}

static void test_save_and_load(void **state)
{
	for_each_way(save_and_load);
}

/* In order and complete, with more pieces than a message has parts, and with fewer. */
static void lent_state(struct pair *pair)
{
	static const size_t chunks[] = {700, 3000, 100000, 0};
	qsc_autofree uint8_t *buf = malloc(FAKE_STREAM);
	uint64_t session;
	uint64_t none;
	size_t i;

	fake_set(pair->fake, lends, true);
	for (i = 0; i < QSC_ARRAY_SIZE(chunks); i++) {
		size_t done = 0;
		ssize_t n;

		fake_set(pair->fake, chunk, chunks[i]);
		assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_STOP_COPY, &session), 0);
		while ((n = qsc_device_session_read(pair->dev, session, buf + done,
						    FAKE_STREAM - done + 1)) > 0)
			done += (size_t)n;
		assert_int_equal(n, 0);
		assert_int_equal(done, FAKE_STREAM);
		for (done = 0; done < FAKE_STREAM; done++)
			assert_int_equal(buf[done], fake_stream_byte(done));
		assert_int_equal(qsc_device_set_state(pair->dev, QSC_STATE_RUNNING, &none), 0);
	}
}

static void test_lent_state(void **state)
{
	for_each_way(lent_state);
}

static void *reset(void *dev)
{
	return (void *)(intptr_t)qsc_device_reset(dev);
}

/* What others ask meanwhile waits for what comes of it. */
static void state_in_halves(struct pair *pair)
{
	uint64_t session = 0;
	enum qsc_state now;
	pthread_t thread;
	void *result;

	assert_int_equal(qsc_device_set_state_begin(pair->dev, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(pthread_create(&thread, NULL, reset, pair->dev), 0);
	assert_int_equal(qsc_device_set_state_end(pair->dev, &session), 0);
	assert_int_not_equal(session, 0);
	pthread_join(thread, &result);
	assert_null(result);
	assert_int_equal(qsc_device_get_state(pair->dev, &now), 0);
	assert_int_equal(now, QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_set_state_begin(pair->dev, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(qsc_device_set_state_begin(pair->dev, QSC_STATE_RUNNING), -EOPNOTSUPP);
	assert_int_equal(qsc_device_set_state_end(pair->dev, &session), 0);
	assert_int_equal(qsc_device_session_close(pair->dev, session), 0);
	assert_int_equal(qsc_device_set_state_begin(pair->dev, QSC_STATE_PRE_COPY), 0);
	assert_int_equal(qsc_device_set_state_end(pair->dev, &session), -EINVAL);
	assert_int_equal(session, 0);
	fake_set(pair->fake, fail[FAKE_OP_SET_STATE], -EIO);
	fake_set(pair->fake, fail_state, QSC_STATE_ERROR);
	assert_int_equal(qsc_device_set_state_begin(pair->dev, QSC_STATE_RUNNING), 0);
	assert_int_equal(qsc_device_set_state_end(pair->dev, &session), -EIO);
	assert_int_equal(qsc_device_get_state(pair->dev, &now), 0);
	assert_int_equal(now, QSC_STATE_ERROR);
}

static void test_state_in_halves(void **state)
{
	for_each_way(state_in_halves);
}

/* A stream with a hole is not gone on with; one that was refused at its end may be. */
static void test_write_fails_with_others_under_way(void **state)
{
	qsc_autofree uint8_t *buf = calloc(1, FAKE_STREAM);
	struct pair pair;
	uint64_t session;
	uint64_t none;

	pair_open(&pair, NULL, NULL);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_RESUMING, &session), 0);
	fake_set(pair.fake, fail[FAKE_OP_SESSION_WRITE], -ENOMEM);
	assert_int_equal(qsc_device_session_write(pair.dev, session, buf, 10), -ENOMEM);
	assert_int_equal(qsc_device_session_write(pair.dev, session, buf, 10), 10);
	fake_set(pair.fake, fail[FAKE_OP_SESSION_WRITE], -ENOMEM);
	assert_int_equal(qsc_device_session_write(pair.dev, session, buf, FAKE_STREAM / 2),
			 -ENOMEM);
	assert_int_equal(qsc_device_session_write(pair.dev, session, buf, 10), -ENODEV);
	assert_int_equal(qsc_device_reset(pair.dev), 0);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_RESUMING, &session), 0);
	assert_int_equal(qsc_device_session_write(pair.dev, session, buf, 10), 10);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_STOP, &none), 0);
	pair_close(&pair);
}

static void test_session_survives_a_failed_change(void **state)
{
	struct pair pair;
	uint64_t session;
	uint64_t none;
	char byte;

	pair_open(&pair, NULL, NULL);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_PRE_COPY, &session), 0);
	fake_set(pair.fake, fail[FAKE_OP_SET_STATE], -EIO);
	fake_set(pair.fake, fail_state, QSC_STATE_PRE_COPY);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_STOP_COPY, &none), -EIO);
	assert_int_equal(qsc_device_session_read(pair.dev, session, &byte, 1), 1);
	pair_close(&pair);
}

static void dirty_log(struct pair *pair)
{
	struct qsc_dma_range ranges[2] = {{0, 1 << 20}, {1 << 20, 1 << 20}};
	uint64_t bitmap[FAKE_LOG_PAGES / 64] = {1ULL << 63};
	uint64_t page_size = 8192;

	assert_int_equal(qsc_device_log_report(pair->dev, 0, 1 << 24, 4096, bitmap), -EINVAL);
	assert_int_equal(qsc_device_log_start(pair->dev, &page_size, ranges, 2), 0);
	assert_int_equal(page_size, 4096);
	assert_int_equal(fake_get(pair->fake, log_ranges), 2);
	fake_set(pair->fake, dirty[0], 8);
	fake_set(pair->fake, dirty[63], 1ULL << 63);
	assert_int_equal(qsc_device_log_report(pair->dev, 0, 1 << 24, 4096, bitmap), 0);
	/* Added to what the user had. */
	assert_int_equal(bitmap[0], 1ULL << 63 | 8);
	assert_int_equal(bitmap[63], 1ULL << 63);
	/* The same where the user had nothing; what fails adds nothing. */
	memset(bitmap, 0, sizeof(bitmap));
	fake_set(pair->fake, dirty[1], 5);
	assert_int_equal(qsc_device_log_report(pair->dev, 0, 1 << 24, 4096, bitmap), 0);
	assert_int_equal(bitmap[1], 5);
	assert_int_equal(qsc_device_log_stop(pair->dev), 0);
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(qsc_device_log_report(pair->dev, 0, 1 << 24, 4096, bitmap), -EINVAL);
	for (size_t i = 0; i < QSC_ARRAY_SIZE(bitmap); i++)
		assert_int_equal(bitmap[i], 0);
}

static void test_dirty_log(void **state)
{
	for_each_way(dirty_log);
}

static void test_errnos_pass(void **state)
{
	static const int errnos[] = {EPERM,  ENOENT, EIO,    EAGAIN, ENOMEM, EFAULT, EBUSY,
				     ENODEV, EINVAL, ENOSPC, ENOMSG, EPROTO, ENOTTY};
	struct pair pair;
	char byte;
	size_t i;

	pair_open(&pair, NULL, NULL);
	for (i = 0; i < QSC_ARRAY_SIZE(errnos); i++) {
		fake_set(pair.fake, fail[FAKE_OP_REGION_READ], -errnos[i]);
		assert_int_equal(qsc_device_region_read(pair.dev, 0, 0, &byte, 1), -errnos[i]);
	}
	pair_close(&pair);
}

static void test_no_migration(void **state)
{
	struct qsc_migration_info info;
	enum qsc_state now;
	uint64_t session;
	struct pair pair;

	pair_open(&pair, NULL, NULL);
	fake_set(pair.fake, flags, 0);
	assert_int_equal(qsc_device_get_migration(pair.dev, &info), -ENOTTY);
	assert_int_equal(qsc_device_get_state(pair.dev, &now), -ENOTTY);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_STOP, &session), -ENOTTY);
	pair_close(&pair);
}

/*
 * Many threads on one connection, reading, writing, passing descriptors and being asked for memory
 * at once.
 */
struct hammer {
	struct pair *pair;
	pthread_t thread;
	unsigned int index;
	atomic_bool *failed;
};

static void *hammer(void *arg)
{
	struct hammer *hammer = arg;
	uint64_t offset = 1024 + hammer->index * 8;
	uint64_t i;

	for (i = 0; i < 300; i++) {
		uint64_t value = (uint64_t)hammer->index << 32 | i;
		uint64_t got = 0;

		if (qsc_device_region_write(hammer->pair->dev, FAKE_REGISTERS, offset, &value, 8) !=
			    8 ||
		    qsc_device_region_read(hammer->pair->dev, FAKE_REGISTERS, offset, &got, 8) !=
			    8 ||
		    got != value)
			atomic_store(hammer->failed, true);
	}
	return NULL;
}

static void *hammer_dma(void *arg)
{
	struct hammer *hammer = arg;
	uint8_t buf[512];
	int i;

	for (i = 0; i < 300; i++)
		if (fake_dma(hammer->pair->fake, 0x10000, buf, sizeof(buf), i & 1) < 0)
			atomic_store(hammer->failed, true);
	return NULL;
}

/* What is passed must come, whatever the others promise meanwhile. */
static void *hammer_fds(void *arg)
{
	struct hammer *hammer = arg;
	int event = eventfd(0, EFD_CLOEXEC);
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = FAKE_MSIX,
		.start = hammer->index,
		.count = 1,
		.fds = &event,
	};
	int none = -1;
	int i;

	for (i = 0; i < 100; i++) {
		set.fds = &event;
		if (qsc_device_set_irqs(hammer->pair->dev, &set) < 0 ||
		    fake_get(hammer->pair->fake, vectors[hammer->index]) < 0)
			atomic_store(hammer->failed, true);
		set.fds = &none;
		if (qsc_device_set_irqs(hammer->pair->dev, &set) < 0 ||
		    fake_get(hammer->pair->fake, vectors[hammer->index]) >= 0)
			atomic_store(hammer->failed, true);
	}
	close(event);
	return NULL;
}

static void pipelined(struct pair *pair)
{
	static void *(*const work[])(void *) = {hammer,	    hammer,	hammer,	    hammer,
						hammer_fds, hammer_dma, hammer_fds, hammer_dma};
	static uint8_t memory[65536] __attribute__((aligned(4096)));
	struct qsc_dma_mapping mapping = {.iova = 0x10000,
					  .size = sizeof(memory),
					  .flags = QSC_DMA_READ | QSC_DMA_WRITE,
					  .vaddr = memory,
					  .fd = -1};
	struct hammer hammers[8];
	atomic_bool failed = false;
	unsigned int i;

	assert_int_equal(qsc_device_dma_map(pair->dev, &mapping), 0);
	for (i = 0; i < QSC_ARRAY_SIZE(hammers); i++) {
		hammers[i] = (struct hammer){.pair = pair, .index = i, .failed = &failed};
		assert_int_equal(pthread_create(&hammers[i].thread, NULL, work[i], &hammers[i]), 0);
	}
	for (i = 0; i < QSC_ARRAY_SIZE(hammers); i++)
		pthread_join(hammers[i].thread, NULL);
	assert_false(failed);
}

static void test_pipelined(void **state)
{
	for_each_way(pipelined);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_describe),
		cmocka_unit_test(test_access_regions),
		cmocka_unit_test(test_access_beyond_one_message),
		cmocka_unit_test(test_map_region),
		cmocka_unit_test(test_io_fds),
		cmocka_unit_test(test_interrupts),
		cmocka_unit_test(test_dma),
		cmocka_unit_test(test_save_and_load),
		cmocka_unit_test(test_lent_state),
		cmocka_unit_test(test_state_in_halves),
		cmocka_unit_test(test_write_fails_with_others_under_way),
		cmocka_unit_test(test_session_survives_a_failed_change),
		cmocka_unit_test(test_dirty_log),
		cmocka_unit_test(test_errnos_pass),
		cmocka_unit_test(test_no_migration),
		cmocka_unit_test(test_pipelined),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
