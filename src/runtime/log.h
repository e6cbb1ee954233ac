/* SPDX-License-Identifier: MIT */
/*
 * The dirty log of a device (LOG-1 to LOG-4): one bit for every 4 KiB of the ranges that are
 * logged. Always at that granularity, whatever page size a report asks for: a report can then never
 * be finer than the log, and takes exactly the bits of the range it was asked about, so none is
 * lost at any page size.
 */
#ifndef QSC_RUNTIME_LOG_H
#define QSC_RUNTIME_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>

#include "base/bitmap.h"

#define QSC_DIRTY_PAGE_SHIFT  12
#define QSC_DIRTY_CHUNK_WORDS 64ULL
#define QSC_DIRTY_CHUNK_PAGES (64 * QSC_DIRTY_CHUNK_WORDS)

/* Mapped lazily: what was never marked costs no memory. */
struct qsc_dirty_side {
	_Atomic uint64_t *words; /* a bit for each page */
	/*
	 * For each chunk of words: something may be marked in it. Set after the bit, taken before
	 * it, so that a report passes by what was not written without a look at it.
	 */
	_Atomic uint8_t *marked;
};

/* A logged range in whole 4 KiB pages: pages [first, first + count). */
struct qsc_dirty_range {
	uint64_t first;
	uint64_t count;
	struct qsc_dirty_side sides[2];
};

/*
 * There are two sides of bits. Marks go to the active one; a report takes what is on both. Turning
 * the log over before a large report lets it take nearly everything from a side that nobody marks
 * any more, without an atomic exchange for every word.
 */
struct qsc_dirty_log {
	_Atomic uint32_t active;
	bool resting_empty; /* this and what follows: of who reports or turns */
	uint64_t unswept;   /* pages before this one have been taken from the resting side */
	size_t num_ranges;
	struct qsc_dirty_range ranges[]; /* sorted, disjoint */
};

/*
 * A log of these ranges. -EINVAL for none, an empty, wrapping or overlapping one (LOG-3), -E2BIG
 * for more than can be tracked.
 */
int qsc_dirty_log_create(const struct qsc_dma_range *ranges, size_t num_ranges,
			 struct qsc_dirty_log **log);
void qsc_dirty_log_destroy(struct qsc_dirty_log *log);

/* See qsc_device_log_report(); the arguments are valid. */
void qsc_dirty_log_report(struct qsc_dirty_log *log, uint64_t iova, uint64_t size,
			  uint64_t page_size, uint64_t *bitmap);

/*
 * Marks from now on go to the other side; who may still be marking the one before must have left
 * the gate before a report. False when it would not pay: the other side still holds something.
 */
bool qsc_dirty_log_turn(struct qsc_dirty_log *log);

/*
 * Pages of one word were written; `bit` is one of them. Always a read-modify-write: see
 * qsc_bitmap_atomic_set_range(). Who takes a chunk takes its byte before its words, and this looks
 * at the byte after the word: one of the two sees what the other did.
 */
static inline void qsc_dirty_side_mark(const struct qsc_dirty_side *side, uint64_t bit,
				       uint64_t mask)
{
	_Atomic uint8_t *marked = &side->marked[bit / QSC_DIRTY_CHUNK_PAGES];

	atomic_fetch_or(&side->words[bit / 64], mask);
	if (__builtin_expect(!atomic_load(marked), false))
		atomic_store(marked, 1);
}

void qsc_dirty_log_mark_pages(struct qsc_dirty_log *log, uint64_t first, uint64_t last);

/* [iova, iova + size) has been written; size is above zero. Any thread, also during a report. */
static inline void qsc_dirty_log_mark(struct qsc_dirty_log *log, uint64_t iova, uint64_t size)
{
	uint64_t first = iova >> QSC_DIRTY_PAGE_SHIFT;
	uint64_t last = (iova + (size - 1)) >> QSC_DIRTY_PAGE_SHIFT;
	const struct qsc_dirty_range *range = log->ranges;

	/* One page of the first range: nearly all there is with a guest's memory in one piece. */
	if (__builtin_expect(first == last && first - range->first < range->count, true)) {
		uint64_t bit = first - range->first;

		uint32_t side = atomic_load_explicit(&log->active, memory_order_acquire);

		qsc_dirty_side_mark(&range->sides[side], bit, 1ULL << (bit % 64));
		return;
	}
	qsc_dirty_log_mark_pages(log, first, last);
}

#endif
