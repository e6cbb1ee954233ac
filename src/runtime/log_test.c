/* SPDX-License-Identifier: MIT */
/* Unit tests of the dirty log: LOG-1 to LOG-3 exactly, against a map of one byte a page. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "runtime/log.h"

static void test_LOG_3_impossible_ranges(void **unused)
{
	static const struct qsc_dma_range bad[][2] = {
		{{0x1000, 0}, {0x9000, 0x1000}},
		{{0x1000, 0x2000}, {0x2000, 0x1000}},
		{{0x1000, 0x2000}, {0x1000, 0x2000}},
		{{UINT64_MAX - 0xfff, 0x2000}, {0, 0x1000}},
	};
	const struct qsc_dma_range huge = {0, UINT64_MAX};
	struct qsc_dirty_log *log;

	for (size_t i = 0; i < 4; i++)
		assert_int_equal(qsc_dirty_log_create(bad[i], 2, &log), -EINVAL);
	assert_int_equal(qsc_dirty_log_create(bad[0], 0, &log), -EINVAL);
	assert_int_equal(qsc_dirty_log_create(&huge, 1, &log), -E2BIG);
}

/* The last page of the address space, and ranges that share a page. */
static void test_edges(void **unused)
{
	const struct qsc_dma_range ranges[] = {
		{0x2800, 0x100}, {0x1000, 0x1800}, {UINT64_MAX - 0x1fff, 0x2000}, {0x2900, 0x80}};
	struct qsc_dirty_log *log;
	uint64_t bits = 0;

	assert_int_equal(qsc_dirty_log_create(ranges, 4, &log), 0);
	qsc_dirty_log_mark(log, UINT64_MAX, 1);
	qsc_dirty_log_mark(log, 0x2810, 1);
	qsc_dirty_log_mark(log, 0x0, 0x1000);
	qsc_dirty_log_mark(log, 0x3000, 0x1000);
	qsc_dirty_log_report(log, 0x1000, 0x3000, 4096, &bits);
	assert_int_equal(bits, 2);
	bits = 0;
	qsc_dirty_log_report(log, UINT64_MAX - 0x1fff, 0x2000, 4096, &bits);
	assert_int_equal(bits, 2);
	bits = 0;
	qsc_dirty_log_mark(log, UINT64_MAX, 1);
	qsc_dirty_log_report(log, 0, UINT64_MAX, 1ULL << 63, &bits);
	assert_int_equal(bits, 2);
	qsc_dirty_log_destroy(log);
}

#define PAGES 11000U

/* Marks and reports of every size at random: each page is reported once for each time it is dirty.
 */
static void test_LOG_1_nothing_is_missed_or_invented(void **unused)
{
	const uint64_t base = 0x100000000;
	const struct qsc_dma_range ranges[] = {
		{base + 700 * 4096ULL, 900 * 4096ULL},
		{base, 500 * 4096ULL},
		{base + 1600 * 4096ULL, 9000 * 4096ULL},
	};
	struct qsc_dirty_log *log;
	uint8_t dirty[PAGES] = {0};
	uint64_t bitmap[PAGES / 64 + 2];
	unsigned int turns = 0;

	srand(1);
	assert_int_equal(qsc_dirty_log_create(ranges, 3, &log), 0);
	for (int round = 0; round < 3000; round++) {
		uint64_t first = (uint64_t)rand() % PAGES;
		uint64_t offset = (uint64_t)rand() % 4096;
		uint64_t size = 1 + (uint64_t)rand() % (rand() % 3 ? 100 : 300000);
		unsigned int shift = (unsigned int)rand() % 8;
		uint64_t start, last;

		qsc_dirty_log_mark(log, base + first * 4096ULL + offset, size);
		for (uint64_t p = first; p <= first + (offset + size - 1) / 4096; p++) {
			if (p < 500 || (p >= 700 && p < 10600))
				dirty[p] = 1;
		}
		if (rand() % 4)
			continue;
		start = ((uint64_t)rand() % PAGES) >> shift << shift;
		size = 1 + (uint64_t)rand() % (4096 * (PAGES - start));
		if (!(rand() % 4)) {
			start = 0;
			size = 4096ULL * PAGES;
		}
		last = start + (size - 1) / 4096;
		memset(bitmap, 0, sizeof(bitmap));
		turns += rand() % 2 && qsc_dirty_log_turn(log);
		qsc_dirty_log_report(log, base + start * 4096ULL, size, 4096ULL << shift, bitmap);
		for (uint64_t at = start; at <= last; at += 1ULL << shift) {
			bool expected = false;

			for (uint64_t p = at; p < at + (1ULL << shift) && p <= last; p++) {
				expected |= dirty[p];
				dirty[p] = 0;
			}
			assert_int_equal(qsc_bitmap_test(bitmap, (at - start) >> shift), expected);
		}
		assert_int_equal(qsc_bitmap_next(bitmap, 64ULL * (PAGES / 64 + 2),
						 ((last - start) >> shift) + 1),
				 64ULL * (PAGES / 64 + 2));
	}
	assert_true(turns > 10);
	qsc_dirty_log_destroy(log);
}

/* ---- beside a writer ---- */

#define CHUNKS	    20000U
#define CHUNK_BYTES (QSC_DIRTY_CHUNK_PAGES * 4096)
#define BURST	    4U /* pages of a chunk that are written, each once */

struct beside {
	struct qsc_dirty_log *log;
	_Atomic uint32_t current; /* the chunk that is being written */
	_Atomic bool written[CHUNKS][BURST];
	bool copied[CHUNKS][BURST];
};

static void *write_and_mark(void *arg)
{
	struct beside *beside = arg;

	for (uint32_t chunk = 0; chunk < CHUNKS; chunk++) {
		atomic_store_explicit(&beside->current, chunk, memory_order_relaxed);
		for (uint32_t i = 0; i < BURST; i++) {
			atomic_store_explicit(&beside->written[chunk][i], true,
					      memory_order_relaxed);
			qsc_dirty_log_mark(beside->log, chunk * CHUNK_BYTES + i * 4096ULL, 8);
		}
	}
	atomic_store(&beside->current, CHUNKS);
	return NULL;
}

/* What was reported of a chunk is copied. */
static void copy_dirty(struct beside *beside, uint32_t chunk)
{
	uint64_t bitmap[QSC_DIRTY_CHUNK_WORDS] = {0};

	qsc_dirty_log_report(beside->log, chunk * CHUNK_BYTES, CHUNK_BYTES, 4096, bitmap);
	for (uint32_t i = 0; i < BURST; i++)
		if (qsc_bitmap_test(bitmap, i))
			beside->copied[chunk][i] = atomic_load_explicit(&beside->written[chunk][i],
									memory_order_relaxed);
}

/* When nobody writes any more, what was written has been copied after it was. */
static void test_LOG_1_beside_a_writer(void **unused)
{
	static struct beside beside;
	const struct qsc_dma_range range = {0, CHUNKS * CHUNK_BYTES};
	pthread_t thread;
	uint32_t chunk;

	assert_int_equal(qsc_dirty_log_create(&range, 1, &beside.log), 0);
	assert_int_equal(pthread_create(&thread, NULL, write_and_mark, &beside), 0);
	while ((chunk = atomic_load_explicit(&beside.current, memory_order_relaxed)) < CHUNKS)
		copy_dirty(&beside, chunk);
	assert_int_equal(pthread_join(thread, NULL), 0);
	for (chunk = 0; chunk < CHUNKS; chunk++) {
		copy_dirty(&beside, chunk);
		for (uint32_t i = 0; i < BURST; i++)
			assert_true(beside.copied[chunk][i]);
	}
	qsc_dirty_log_destroy(beside.log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_LOG_3_impossible_ranges),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_LOG_1_nothing_is_missed_or_invented),
		cmocka_unit_test(test_LOG_1_beside_a_writer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
