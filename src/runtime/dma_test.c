/* SPDX-License-Identifier: MIT */
/* Unit tests of the DMA space: what leads where, what the gate lets through, what is logged. */
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "runtime/dma.h"

#define RW (QSC_DMA_READ | QSC_DMA_WRITE)

static struct qsc_dma_mapping at(uint64_t iova, uint64_t size, void *memory, uint32_t flags)
{
	return (struct qsc_dma_mapping){
		.iova = iova, .size = size, .flags = flags, .vaddr = memory, .fd = -1};
}

static int map(struct qsc_dma_space *space, uint64_t iova, uint64_t size, void *memory,
	       uint32_t flags)
{
	const struct qsc_dma_mapping mapping = at(iova, size, memory, flags);

	return qsc_dma_space_map(space, &mapping);
}

static void begin(struct qsc_dma_space *space)
{
	assert_int_equal(qsc_dma_space_init(space), 0);
	qsc_gate_set(&space->gate, QSC_GATE_OPEN);
}

/* A memory file that says of itself that it has huge pages: not every machine has other ones. Files
 * are of 64 bits here.
 */
#define HUGE 65536UL
static int huge_fd = -1;

int fake_fstatfs(int fd, struct statfs *buf) __asm__("fstatfs64");

int fake_fstatfs(int fd, struct statfs *buf)
{
	memset(buf, 0, sizeof(*buf));
	if (fd == huge_fd) {
		buf->f_type = HUGETLBFS_MAGIC;
		buf->f_bsize = HUGE;
	}
	return 0;
}

static uint64_t mapped_of(const char *name)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	unsigned long long from;
	unsigned long long to;
	uint64_t size = 0;
	char line[512];

	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		if (strstr(line, name) && sscanf(line, "%llx-%llx", &from, &to) == 2)
			size += to - from;
	(void)fclose(maps);
	return size;
}

/* Parts of huge pages, as a VM's memory has them around a hole: mapped whole, and gone whole. */
static void test_huge_pages(void **unused)
{
	struct qsc_dma_mapping mapping = at(0x100000, 0x2000, NULL, RW);
	struct qsc_dma_space space;
	char byte = 0;

	begin(&space);
	huge_fd = qsc_fd_memory("dma-test-huge", 4 * HUGE);
	mapping.fd = huge_fd;
	mapping.fd_offset = 2 * HUGE - 0x1000;
	assert_int_equal(pwrite(huge_fd, "ab", 2, 2 * HUGE - 1), 2);
	assert_int_equal(qsc_dma_space_map(&space, &mapping), 0);
	assert_int_equal(mapped_of("dma-test-huge"), 2 * HUGE);
	assert_int_equal(qsc_dma_space_read(&space, 0x100fff, &byte, 1), 0);
	assert_int_equal(byte, 'a');
	assert_int_equal(qsc_dma_space_write(&space, 0x101fff, "z", 1), 0);
	assert_int_equal(pread(huge_fd, &byte, 1, 2 * HUGE + 0xfff), 1);
	assert_int_equal(byte, 'z');
	assert_int_equal(qsc_dma_space_read(&space, 0x102000, &byte, 1), -EFAULT);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x100000, 0x2000), 0);
	assert_int_equal(mapped_of("dma-test-huge"), 0);
	mapping.fd_offset = 1;
	assert_int_equal(qsc_dma_space_map(&space, &mapping), -EINVAL);
	qsc_fd_close(&huge_fd);
	qsc_dma_space_destroy(&space);
}

static void test_mappings(void **unused)
{
	struct qsc_dma_space space;
	char memory[3 * 4096];
	char bytes[8192];

	begin(&space);
	assert_int_equal(map(&space, 0x10000, 0x2000, memory, RW), 0);
	assert_int_equal(map(&space, 0x11000, 0x1000, memory, RW), -EEXIST);
	assert_int_equal(map(&space, 0xf000, 0x2000, memory, RW), -EEXIST);
	assert_int_equal(map(&space, 0x12000, 0x1000, memory + 0x2000, QSC_DMA_READ), 0);
	/* Across both of them, and beyond. */
	memset(memory, 7, sizeof(memory));
	assert_int_equal(qsc_dma_space_read(&space, 0x11800, bytes, 0x1000), 0);
	assert_memory_equal(bytes, memory, 0x1000);
	assert_int_equal(qsc_dma_space_write(&space, 0x11800, bytes, 0x801), -EFAULT);
	assert_int_equal(qsc_dma_space_write(&space, 0x11800, bytes, 0x800), 0);
	assert_int_equal(qsc_dma_space_read(&space, 0x12000, bytes, 0x1001), -EFAULT);
	assert_int_equal(qsc_dma_space_read(&space, 0xffff, bytes, 1), -EFAULT);
	assert_int_equal(qsc_dma_space_read(&space, UINT64_MAX, bytes, 2), -EFAULT);
	assert_int_equal(qsc_dma_space_read(&space, UINT64_MAX, bytes, 0), 0);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x10000, 0x1000), -ENOENT);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x11000, 0x1000), -ENOENT);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x10000, 0x2000), 0);
	assert_int_equal(qsc_dma_space_read(&space, 0x10000, bytes, 1), -EFAULT);
	assert_int_equal(qsc_dma_space_read(&space, 0x12000, bytes, 1), 0);
	qsc_dma_space_unmap_all(&space);
	assert_int_equal(qsc_dma_space_read(&space, 0x12000, bytes, 1), -EFAULT);
	assert_int_equal(map(&space, 0x10000, 0x2000, memory, RW), 0);
	/* The top of the address space. */
	assert_int_equal(map(&space, UINT64_MAX - 0xfff, 0x1000, memory, RW), 0);
	assert_int_equal(qsc_dma_space_write(&space, UINT64_MAX, bytes, 1), 0);
	qsc_dma_space_destroy(&space);
}

/* DEV-1, DEV-4 */
static void test_gate(void **unused)
{
	struct qsc_dma_space space;
	char memory[4096] = {0};
	char peer[4096] = {0};
	char byte = 1;

	begin(&space);
	assert_int_equal(map(&space, 0x1000, 0x1000, memory, RW), 0);
	assert_int_equal(map(&space, 0x2000, 0x1000, peer, RW | QSC_DMA_PEER), 0);
	assert_int_equal(qsc_dma_space_copy(&space, 0x2000, 0x1000, 4096), 0);
	qsc_gate_set(&space.gate, QSC_GATE_OPEN_SOME);
	assert_int_equal(qsc_dma_space_write(&space, 0x1000, &byte, 1), 0);
	assert_int_equal(qsc_dma_space_write(&space, 0x2000, &byte, 1), -EAGAIN);
	assert_int_equal(qsc_dma_space_read(&space, 0x2000, &byte, 1), -EAGAIN);
	assert_int_equal(qsc_dma_space_copy(&space, 0x1000, 0x2000, 1), -EAGAIN);
	assert_int_equal(qsc_dma_space_copy(&space, 0x2000, 0x1000, 1), -EAGAIN);
	qsc_gate_set(&space.gate, QSC_GATE_CLOSED);
	assert_int_equal(qsc_dma_space_write(&space, 0x1000, &byte, 1), -EAGAIN);
	assert_int_equal(qsc_dma_space_read(&space, 0x1000, &byte, 1), -EAGAIN);
	assert_int_equal(qsc_dma_space_copy(&space, 0x1000, 0x1000, 1), -EAGAIN);
	assert_int_equal(memory[0], 1);
	assert_int_equal(peer[0], 0);
	qsc_dma_space_destroy(&space);
}

/* Memory that can only be asked for, in one half of a copy or in both. */
struct holder {
	char memory[32768];
	unsigned int calls;
	int result;
};

static int holder_read(void *ctx, uint64_t iova, void *buf, size_t size)
{
	struct holder *holder = ctx;

	holder->calls++;
	memcpy(buf, holder->memory + iova % sizeof(holder->memory), size);
	return holder->result;
}

static int holder_write(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	struct holder *holder = ctx;

	holder->calls++;
	memcpy(holder->memory + iova % sizeof(holder->memory), buf, size);
	return holder->result;
}

static void test_asking(void **unused)
{
	static struct holder holder;
	static char memory[32768];
	const struct qsc_dma_access access = {holder_read, holder_write, &holder};
	struct qsc_dma_mapping mapping = at(0x8000, 0x8000, NULL, RW);
	struct qsc_dma_space space;

	begin(&space);
	mapping.access = &access;
	assert_int_equal(qsc_dma_space_map(&space, &mapping), 0);
	assert_int_equal(map(&space, 0x10000, 0x8000, memory, RW), 0);
	for (size_t i = 0; i < sizeof(memory); i++)
		memory[i] = (char)(i * 13);
	assert_int_equal(qsc_dma_space_copy(&space, 0x8000, 0x10000, 0x8000), 0);
	assert_memory_equal(holder.memory, memory, sizeof(memory));
	memset(memory, 0, sizeof(memory));
	assert_int_equal(qsc_dma_space_copy(&space, 0x10000, 0x8000, 0x8000), 0);
	assert_memory_equal(holder.memory, memory, sizeof(memory));
	assert_int_equal(qsc_dma_space_copy(&space, 0x8000, 0xc000, 0x4000), 0);
	assert_memory_equal(holder.memory, memory + 0x4000, 0x4000);
	holder.result = -ENOTCONN;
	assert_int_equal(qsc_dma_space_read(&space, 0x8000, memory, 1), -ENOTCONN);
	qsc_dma_space_destroy(&space);
}

/* What a mover was given, and what it makes of it. */
struct mover {
	unsigned int calls;
	int count;
	size_t size;
	int result;
	char *data; /* filled in or taken */
	bool fills;
};

static int move(void *ctx, const struct iovec *iov, int count)
{
	struct mover *mover = ctx;
	size_t at = 0;

	mover->calls++;
	mover->count = count;
	for (int i = 0; i < count; at += iov[i].iov_len, i++) {
		if (mover->fills)
			memcpy(iov[i].iov_base, mover->data + at, iov[i].iov_len);
		else
			memcpy(mover->data + at, iov[i].iov_base, iov[i].iov_len);
	}
	mover->size = at;
	return mover->result;
}

/* In one go, in order, over mappings and memory that must be asked for; or not at all. */
static void test_moved_by_somebody_else(void **unused)
{
	static struct holder holder;
	static char memory[32768];
	static char data[32768];
	const struct qsc_dma_access access = {holder_read, holder_write, &holder};
	const struct qsc_dma_range range = {0x10000, 0x10000};
	const struct qsc_dma_piece near[] = {{0x14000, 0x100}, {0x13f00, 0x200}, {0x10000, 1}};
	const struct qsc_dma_piece far[] = {{0x14000, 0x100}, {0x8010, 0x20}};
	const struct qsc_dma_piece nowhere[] = {{0x14000, 0x100}, {0x17fff, 2}};
	struct qsc_dma_piece many[QSC_DMA_MAX_PIECES + 1];
	struct qsc_dma_mapping mapping = at(0x8000, 0x8000, NULL, RW);
	struct mover mover = {.data = data, .fills = true};
	struct qsc_dma_space space;
	uint64_t bitmap = 0;

	begin(&space);
	mapping.access = &access;
	assert_int_equal(qsc_dma_space_map(&space, &mapping), 0);
	assert_int_equal(map(&space, 0x10000, 0x4000, memory, RW), 0);
	assert_int_equal(map(&space, 0x14000, 0x4000, memory + 0x4000, RW), 0);
	assert_int_equal(qsc_dma_space_log_start(&space, &range, 1), 0);
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (char)(i * 7 + 1);
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_WRITE, near, 3, move, &mover), 0);
	assert_int_equal(mover.calls, 1);
	assert_int_equal(mover.count, 4);
	assert_memory_equal(memory + 0x3f00, data + 0x100, 0x100);
	assert_memory_equal(memory + 0x4000, data + 0x200, 0x100);
	assert_int_equal(memory[0], data[0x300]);
	assert_int_equal(qsc_dma_space_log_report(&space, 0x10000, 0x8000, 4096, &bitmap), 0);
	assert_int_equal(bitmap, 0x19);
	/* With a buffer in between. */
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_WRITE, far, 2, move, &mover), 0);
	assert_int_equal(mover.count, 1);
	assert_memory_equal(memory + 0x4000, data, 0x100);
	assert_memory_equal(holder.memory + 0x10, data + 0x100, 0x20);
	mover.fills = false;
	memset(data, 0, sizeof(data));
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_READ, far, 2, move, &mover), 0);
	assert_int_equal(mover.size, 0x120);
	assert_memory_equal(data, memory + 0x4000, 0x100);
	assert_memory_equal(data + 0x100, holder.memory + 0x10, 0x20);
	mover.result = -EINPROGRESS;
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_READ, near, 3, move, &mover),
			 -EINPROGRESS);
	/* It failed, and what it wrote before that is reported all the same. */
	assert_int_equal(qsc_dma_space_log_report(&space, 0x10000, 0x8000, 4096, &bitmap), 0);
	bitmap = 0;
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_WRITE, near, 1, move, &mover),
			 -EINPROGRESS);
	assert_int_equal(qsc_dma_space_log_report(&space, 0x10000, 0x8000, 4096, &bitmap), 0);
	assert_int_equal(bitmap, 0x10);
	mover.calls = 0;
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_READ, nowhere, 2, move, &mover),
			 -EFAULT);
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_READ, many, QSC_DMA_MAX_PIECES + 1,
					    move, &mover),
			 -EINVAL);
	qsc_gate_set(&space.gate, QSC_GATE_CLOSED);
	assert_int_equal(qsc_dma_space_move(&space, QSC_DMA_READ, near, 3, move, &mover), -EAGAIN);
	assert_int_equal(mover.calls, 0);
	qsc_dma_space_destroy(&space);
}

static size_t resident_pages(void)
{
	unsigned long total = 0;
	unsigned long resident = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%lu %lu", &total, &resident), 2);
	(void)fclose(file);
	return resident;
}

/* What takes the place of a file that was cut short is not filled: it would be our own memory. */
static void expect_not_filled(void)
{
	const size_t size = 64U << 20;
	struct qsc_dma_mapping mapping = at(0x1000, size, NULL, RW);
	int fd = memfd_create("cut", MFD_CLOEXEC);
	static char bytes[65536];
	struct qsc_dma_space space;
	size_t before;

	begin(&space);
	mapping.fd = fd;
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	assert_int_equal(qsc_dma_space_map(&space, &mapping), 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(qsc_dma_space_write(&space, 0x1000, bytes, 1), -EIO);
	before = resident_pages();
	for (uint64_t offset = 0; offset < size; offset += sizeof(bytes)) {
		assert_int_equal(qsc_dma_space_write(&space, 0x1000 + offset, bytes, sizeof(bytes)),
				 -EIO);
		assert_int_equal(qsc_dma_space_read(&space, 0x1000 + offset, bytes, 1), -EIO);
	}
	assert_in_range(resident_pages(), 0, before + (size >> 12) / 4);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x1000, size), 0);
	close(fd);
	qsc_dma_space_destroy(&space);
}

/* A file that its owner cuts short harms nobody else. */
static void test_truncated_file(void **unused)
{
	struct qsc_dma_mapping mapping = at(0x1000, 0x4000, NULL, RW);
	int fd = memfd_create("cut", MFD_CLOEXEC);
	struct qsc_dma_space space;
	char bytes[16] = {0};

	begin(&space);
	mapping.fd = fd;
	assert_int_equal(ftruncate(fd, 0x3000), 0);
	assert_int_equal(qsc_dma_space_map(&space, &mapping), -EINVAL);
	assert_int_equal(ftruncate(fd, 0x5000), 0);
	mapping.fd_offset = 0x1000;
	assert_int_equal(qsc_dma_space_map(&space, &mapping), 0);
	assert_int_equal(qsc_dma_space_write(&space, 0x1000, "cut", 3), 0);
	assert_int_equal(pread(fd, bytes, 3, 0x1000), 3);
	assert_memory_equal(bytes, "cut", 3);
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(qsc_dma_space_write(&space, 0x2000, bytes, 4), -EIO);
	assert_int_equal(qsc_dma_space_read(&space, 0x1000, bytes, 4), -EIO);
	assert_int_equal(qsc_dma_space_unmap(&space, 0x1000, 0x4000), 0);
	close(fd);
	qsc_dma_space_destroy(&space);
	/* In the same test, because cmocka takes SIGBUS back after each. */
	expect_not_filled();
}

static void test_log(void **unused)
{
	const struct qsc_dma_range range = {0x1000, 0x3000};
	struct qsc_dma_space space;
	static char memory[16384];
	uint64_t bits = 0;

	begin(&space);
	assert_int_equal(map(&space, 0x1000, 0x4000, memory, RW), 0);
	assert_int_equal(qsc_dma_space_log_report(&space, 0x1000, 0x3000, 4096, &bits), -EINVAL);
	assert_int_equal(qsc_dma_space_log_stop(&space), -EINVAL);
	assert_int_equal(qsc_dma_space_log_start(&space, &range, 1), 0);
	assert_int_equal(qsc_dma_space_log_start(&space, &range, 1), -EBUSY);
	assert_int_equal(qsc_dma_space_read(&space, 0x1000, memory, 1), 0);
	assert_int_equal(qsc_dma_space_copy(&space, 0x2ff0, 0x1000, 0x20), 0);
	assert_int_equal(qsc_dma_space_log_report(&space, 0x1000, 0x4000, 4096, &bits), 0);
	assert_int_equal(bits, 6);
	bits = 0;
	assert_int_equal(qsc_dma_space_log_report(&space, 0x1000, 0x4000, 4096, &bits), 0);
	assert_int_equal(bits, 0);
	assert_int_equal(qsc_dma_space_log_stop(&space), 0);
	qsc_dma_space_destroy(&space);
}

static void *unmap_it(void *arg)
{
	assert_int_equal(qsc_dma_space_unmap(arg, 0x1000, 0x1000), 0);
	return NULL;
}

/* When unmap has returned, nobody is inside the mapping. */
static void test_unmap_waits(void **unused)
{
	static char memory[4096];
	struct qsc_dma_space space;
	struct qsc_gate_pass pass = {NULL};
	pthread_t thread;
	void *before;

	begin(&space);
	assert_int_equal(map(&space, 0x1000, 0x1000, memory, RW), 0);
	assert_int_equal(qsc_gate_enter(&space.gate, &pass), QSC_GATE_OPEN);
	before = atomic_load(&space.table);
	assert_int_equal(pthread_create(&thread, NULL, unmap_it, &space), 0);
	while (atomic_load(&space.table) == before)
		sched_yield();
	assert_int_not_equal(pthread_tryjoin_np(thread, NULL), 0);
	qsc_gate_leave(&space.gate, &pass);
	pthread_join(thread, NULL);
	qsc_dma_space_destroy(&space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mappings),
		cmocka_unit_test(test_gate),
		cmocka_unit_test(test_moved_by_somebody_else),
		cmocka_unit_test(test_asking),
		cmocka_unit_test(test_truncated_file),
		cmocka_unit_test(test_huge_pages),
		cmocka_unit_test(test_log),
		cmocka_unit_test(test_unmap_waits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
