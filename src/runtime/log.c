/* SPDX-License-Identifier: MIT */
/*
 * See log.h. A mark is one atomic OR after the data was written; a report takes a word with an
 * atomic exchange before the data is read. So a write is either seen by whoever reads the memory
 * after this report, or its bit is there for the next one.
 */
#include "runtime/log.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"

/* 16 TiB: 512 MiB of address space, of which only what is marked becomes memory. */
#define MAX_PAGES (1ULL << 32)

static int compare_ranges(const void *a, const void *b)
{
	const struct qsc_dirty_range *x = a;
	const struct qsc_dirty_range *y = b;

	return (x->first > y->first) - (x->first < y->first);
}

static int compare_dma_ranges(const void *a, const void *b)
{
	const struct qsc_dma_range *x = a;
	const struct qsc_dma_range *y = b;

	return (x->iova > y->iova) - (x->iova < y->iova);
}

/* LOG-3 for the ranges; *pages: how many pages they have together. */
static int check_ranges(const struct qsc_dma_range *ranges, size_t num_ranges, uint64_t *pages)
{
	qsc_autofree struct qsc_dma_range *sorted = NULL;
	size_t i;

	if (!num_ranges)
		return -EINVAL;
	if (num_ranges > MAX_PAGES / 64)
		return -E2BIG;
	sorted = calloc(num_ranges, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, ranges, num_ranges * sizeof(*sorted));
	qsort(sorted, num_ranges, sizeof(*sorted), compare_dma_ranges);
	*pages = 0;
	for (i = 0; i < num_ranges; i++) {
		if (!qsc_range_valid(sorted[i].iova, sorted[i].size))
			return -EINVAL;
		if (i && qsc_ranges_overlap(sorted[i - 1].iova, sorted[i - 1].size, sorted[i].iova,
					    sorted[i].size))
			return -EINVAL;
		*pages += (sorted[i].size >> QSC_DIRTY_PAGE_SHIFT) + 2;
		if (*pages > MAX_PAGES)
			return -E2BIG;
	}
	return 0;
}

static size_t words_bytes(const struct qsc_dirty_range *range)
{
	return qsc_bitmap_words(range->count) * sizeof(uint64_t);
}

static size_t num_chunks(const struct qsc_dirty_range *range)
{
	return (size_t)((range->count - 1) / QSC_DIRTY_CHUNK_PAGES + 1);
}

static size_t mapped_bytes(const struct qsc_dirty_range *range)
{
	return 2 * (words_bytes(range) + num_chunks(range));
}

/* The words of both sides behind one another, and then their chunks. */
static int map_sides(struct qsc_dirty_range *range)
{
	char *at = mmap(NULL, mapped_bytes(range), PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t i;

	if (at == MAP_FAILED)
		return -ENOMEM;
	for (i = 0; i < 2; i++, at += words_bytes(range))
		range->sides[i].words = (_Atomic uint64_t *)(void *)at;
	for (i = 0; i < 2; i++, at += num_chunks(range))
		range->sides[i].marked = (_Atomic uint8_t *)(void *)at;
	return 0;
}

int qsc_dirty_log_create(const struct qsc_dma_range *ranges, size_t num_ranges,
			 struct qsc_dirty_log **log)
{
	struct qsc_dirty_log *made;
	struct qsc_dirty_range *range;
	uint64_t pages = 0;
	int result = check_ranges(ranges, num_ranges, &pages);
	size_t i;

	if (result < 0)
		return result;
	made = calloc(1, sizeof(*made) + num_ranges * sizeof(made->ranges[0]));
	if (!made)
		return -ENOMEM;
	for (i = 0; i < num_ranges; i++) {
		uint64_t last = ranges[i].iova + (ranges[i].size - 1);

		made->ranges[i].first = ranges[i].iova >> QSC_DIRTY_PAGE_SHIFT;
		made->ranges[i].count = (last >> QSC_DIRTY_PAGE_SHIFT) - made->ranges[i].first + 1;
	}
	qsort(made->ranges, num_ranges, sizeof(made->ranges[0]), compare_ranges);
	/* Unaligned neighbours may share a page: it belongs to the first of them. */
	for (i = 0; i < num_ranges; i++) {
		range = &made->ranges[made->num_ranges];
		*range = made->ranges[i];
		if (made->num_ranges) {
			struct qsc_dirty_range *before = range - 1;
			uint64_t end = before->first + before->count;

			if (range->first < end) {
				range->count -= end - range->first;
				range->first = end;
			}
			if (!range->count)
				continue;
		}
		made->num_ranges++;
	}
	for (i = 0; i < made->num_ranges; i++) {
		result = map_sides(&made->ranges[i]);
		if (result < 0) {
			qsc_dirty_log_destroy(made);
			return result;
		}
	}
	made->resting_empty = true;
	*log = made;
	return 0;
}

void qsc_dirty_log_destroy(struct qsc_dirty_log *log)
{
	size_t i;

	if (!log)
		return;
	for (i = 0; i < log->num_ranges; i++) {
		if (log->ranges[i].sides[0].words)
			munmap((void *)log->ranges[i].sides[0].words,
			       mapped_bytes(&log->ranges[i]));
	}
	free(log);
}

/* First range that ends behind `page`. */
static size_t first_range(const struct qsc_dirty_log *log, uint64_t page)
{
	size_t low = 0;
	size_t high = log->num_ranges;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (page - log->ranges[middle].first < log->ranges[middle].count ||
		    page < log->ranges[middle].first)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void mark_range(const struct qsc_dirty_side *side, uint64_t bit, uint64_t count)
{
	while (count) {
		unsigned int in_word = (unsigned int)(bit % 64);
		unsigned int n = (unsigned int)qsc_min_u64(64 - in_word, count);

		qsc_dirty_side_mark(side, bit, qsc_bitmap_mask(in_word, n));
		bit += n;
		count -= n;
	}
}

void qsc_dirty_log_mark_pages(struct qsc_dirty_log *log, uint64_t first, uint64_t last)
{
	uint32_t side = atomic_load_explicit(&log->active, memory_order_acquire);
	size_t i;

	for (i = first_range(log, first); i < log->num_ranges && log->ranges[i].first <= last;
	     i++) {
		const struct qsc_dirty_range *range = &log->ranges[i];
		uint64_t from = qsc_max_u64(first, range->first);
		uint64_t to = qsc_min_u64(last, range->first + (range->count - 1));

		mark_range(&range->sides[side], from - range->first, to - from + 1);
	}
}

bool qsc_dirty_log_turn(struct qsc_dirty_log *log)
{
	uint32_t active = atomic_load_explicit(&log->active, memory_order_relaxed);

	if (!log->resting_empty)
		return false;
	log->resting_empty = false;
	log->unswept = log->ranges[0].first;
	atomic_store(&log->active, !active);
	return true;
}

/* Pages [first, last] have been taken from both sides. */
static void swept(struct qsc_dirty_log *log, uint64_t first, uint64_t last)
{
	size_t i;

	if (first > log->unswept || last < log->unswept)
		return;
	log->unswept = last + 1;
	i = first_range(log, log->unswept);
	/* A user reports what it has memory for; holes between the ranges are in no report. */
	if (i < log->num_ranges)
		log->unswept = qsc_max_u64(log->unswept, log->ranges[i].first);
	else
		log->resting_empty = true;
}

/* Take the bits of `mask` out of a word. Words that hold none of them stay unwritten. */
static uint64_t take(_Atomic uint64_t *active, _Atomic uint64_t *resting, uint64_t mask)
{
	uint64_t bits = atomic_load_explicit(resting, memory_order_relaxed);

	if (bits & mask)
		atomic_store_explicit(resting, bits & ~mask, memory_order_relaxed);
	bits &= mask;
	if (!(atomic_load(active) & mask))
		return bits;
	if (mask == ~0ULL)
		return bits | atomic_exchange_explicit(active, 0, memory_order_acq_rel);
	return bits | (atomic_fetch_and_explicit(active, ~mask, memory_order_acq_rel) & mask);
}

/*
 * OR `bits`, whose bit 0 stands for the 4 KiB page `page` of the report, into the caller's bitmap.
 * `shift` is log2 of 4 KiB pages in one of the report's pages.
 */
static void put(uint64_t *bitmap, uint64_t bits, uint64_t page, unsigned int shift)
{
	if (!shift) {
		unsigned int bit = (unsigned int)(page % 64);

		bitmap[page / 64] |= bits << bit;
		if (bit && bits >> (64 - bit))
			bitmap[page / 64 + 1] |= bits >> (64 - bit);
		return;
	}
	while (bits) {
		unsigned int bit = (unsigned int)__builtin_ctzll(bits);
		uint64_t to = (page + bit) >> shift;
		/* All further bits of the same report page are done with it. */
		uint64_t done = ((to + 1) << shift) - page;

		qsc_bitmap_set(bitmap, to);
		bits = done < 64 ? bits & (~0ULL << done) : 0;
	}
}

/* How far ahead the words of the resting side are fetched. */
#define LOOK_AHEAD (4 * QSC_DIRTY_CHUNK_WORDS)

/* More memory is walked through than computed on, and through pages that come one by one. */
static void fetch_chunk(const void *words)
{
	const char *at = words;
	size_t i;

	for (i = 0; i < QSC_DIRTY_CHUNK_WORDS * sizeof(uint64_t); i += 64)
		__builtin_prefetch(at + i);
}

/*
 * A chunk that the report holds word for word, of the side that nobody marks: it is the reporter's
 * alone, which the compiler may know.
 */
static void report_resting(_Atomic uint64_t *words, uint64_t *restrict bitmap)
{
	uint64_t *restrict resting = (uint64_t *)words;
	size_t i;

	fetch_chunk(resting + LOOK_AHEAD);
	for (i = 0; i < QSC_DIRTY_CHUNK_WORDS; i++) {
		bitmap[i] |= resting[i];
		resting[i] = 0;
	}
}

/* The same of the other side. The look at a word must not come before its byte was taken. */
static void report_active(_Atomic uint64_t *words, uint64_t *bitmap)
{
	size_t i;

	for (i = 0; i < QSC_DIRTY_CHUNK_WORDS; i++)
		if (atomic_load(&words[i]))
			bitmap[i] |= atomic_exchange_explicit(&words[i], 0, memory_order_acq_rel);
}

/* Whether something may be marked; when all of the chunk is taken, its byte is first. */
static bool take_marked(_Atomic uint8_t *marked, bool whole)
{
	if (!atomic_load(marked))
		return false;
	if (whole)
		atomic_exchange(marked, 0);
	return true;
}

/* Pages [bit, end) of a range, all of one chunk; `page` of the report stands for `bit`. */
static void report_chunk(const struct qsc_dirty_range *range, uint32_t side, uint64_t bit,
			 uint64_t end, uint64_t page, unsigned int shift, uint64_t *bitmap)
{
	const struct qsc_dirty_side *active = &range->sides[side];
	const struct qsc_dirty_side *resting = &range->sides[!side];
	uint64_t chunk = bit / QSC_DIRTY_CHUNK_PAGES;
	bool whole = !(bit % QSC_DIRTY_CHUNK_PAGES) &&
		     (end - bit == QSC_DIRTY_CHUNK_PAGES || end == range->count);
	bool any_active = take_marked(&active->marked[chunk], whole);
	bool any_resting = take_marked(&resting->marked[chunk], whole);

	if (!any_active && !any_resting)
		return;
	if (!shift && !(page % 64) && end - bit == QSC_DIRTY_CHUNK_PAGES) {
		if (any_resting)
			report_resting(&resting->words[bit / 64], bitmap + page / 64);
		if (any_active)
			report_active(&active->words[bit / 64], bitmap + page / 64);
		return;
	}
	while (bit < end) {
		unsigned int in_word = (unsigned int)(bit % 64);
		unsigned int n = (unsigned int)qsc_min_u64(64 - in_word, end - bit);
		uint64_t bits = take(&active->words[bit / 64], &resting->words[bit / 64],
				     qsc_bitmap_mask(in_word, n));

		if (bits)
			put(bitmap, bits >> in_word, page, shift);
		bit += n;
		page += n;
	}
}

/* Pages [bit, end) of a range; `page` of the report stands for `bit`. */
static void report_range(const struct qsc_dirty_range *range, uint32_t side, uint64_t bit,
			 uint64_t end, uint64_t page, unsigned int shift, uint64_t *bitmap)
{
	while (bit < end) {
		uint64_t n = qsc_min_u64(QSC_DIRTY_CHUNK_PAGES - bit % QSC_DIRTY_CHUNK_PAGES,
					 end - bit);

		report_chunk(range, side, bit, bit + n, page, shift, bitmap);
		bit += n;
		page += n;
	}
}

void qsc_dirty_log_report(struct qsc_dirty_log *log, uint64_t iova, uint64_t size,
			  uint64_t page_size, uint64_t *bitmap)
{
	unsigned int shift = (unsigned int)__builtin_ctzll(page_size) - QSC_DIRTY_PAGE_SHIFT;
	uint64_t first = iova >> QSC_DIRTY_PAGE_SHIFT;
	uint64_t last = (iova + (size - 1)) >> QSC_DIRTY_PAGE_SHIFT;
	uint32_t side = atomic_load_explicit(&log->active, memory_order_relaxed);
	size_t i;

	for (i = first_range(log, first); i < log->num_ranges && log->ranges[i].first <= last;
	     i++) {
		const struct qsc_dirty_range *range = &log->ranges[i];
		uint64_t bit = qsc_max_u64(first, range->first) - range->first;
		uint64_t end = qsc_min_u64(last - range->first + 1, range->count);

		report_range(range, side, bit, end, range->first + bit - first, shift, bitmap);
	}
	swept(log, first, last);
}
