/* SPDX-License-Identifier: MIT */
/* LOG-1 to LOG-4: every write is reported once, whatever else happens. */
#include <errno.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "check/clause.h"

#define PAGE   4096ULL
#define PAGES  (MEMORY_SIZE / PAGE)
#define TARGET (MEMORY_IOVA + MEMORY_TARGET)

/* First page of memory that differs from the snapshot and is not in the report, or PAGES. */
static uint64_t first_missed(const struct harness *h, const uint64_t *bitmap)
{
	for (uint64_t page = 0; page < PAGES; page++)
		if (!qsc_bitmap_test(bitmap, page) &&
		    memcmp(h->shadow + page * PAGE, h->memory + page * PAGE, PAGE) != 0)
			return page;
	return PAGES;
}

static enum qsc_check_result every_write(struct harness *h, enum qsc_state state)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS], missed;

	REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, bitmap));
	missed = first_missed(h, bitmap);
	MUST(h, missed == PAGES, "page %#llx was written and is not reported in %s",
	     (unsigned long long)(MEMORY_IOVA + missed * PAGE), qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

/* ---- LOG-1: no false negative, in any state ---- */

/* Copies that the request meets in full flight, some across pages, one of a single byte. */
static enum qsc_check_result log_1_in(struct harness *h, enum qsc_state state)
{
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	harness_snapshot(h);
	REQUIRE(h, harness_submit(h, TARGET + 4095, 1, 1, 1));
	REQUIRE(h, harness_submit(h, TARGET + 3 * PAGE - 1, 1, 2, 1));
	REQUIRE(h, harness_submit(h, TARGET + 8 * PAGE + 100, 24, 5000, 0));
	REQUIRE(h, harness_submit(h, TARGET + 0x80000, 32, 16384, 0));
	harness_snapshot_queue(h);
	REQUIRE(h, harness_kick(h));
	REQUIRE(h, harness_await_copies(h, 1, 2, 0));
	REQUIRE(h, harness_enter(h, state));
	/* In P2P states memory DMA may go on: what is compared must have come to rest. */
	if (qsc_state_is_p2p(state))
		REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	return every_write(h, state);
}

static enum qsc_check_result log_1_running(struct harness *h)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS] = {0}, rest[HARNESS_BITMAP_WORDS], missed;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	harness_snapshot(h);
	REQUIRE(h, harness_submit(h, TARGET, 63, 16384, 0));
	harness_snapshot_queue(h);
	REQUIRE(h, harness_kick(h));
	/* Reports race with writes: each must be in one of them. */
	for (int i = 0; i < 8; i++) {
		REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, rest));
		for (size_t w = 0; w < HARNESS_BITMAP_WORDS; w++)
			bitmap[w] |= rest[w];
	}
	REQUIRE(h, harness_await_copies(h, 0, 63, 0));
	REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, rest));
	for (size_t w = 0; w < HARNESS_BITMAP_WORDS; w++)
		bitmap[w] |= rest[w];
	missed = first_missed(h, bitmap);
	MUST(h, missed == PAGES, "page %#llx was written and is in none of 9 reports",
	     (unsigned long long)(MEMORY_IOVA + missed * PAGE));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result log_1(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	NEED_WORK(h);
	PART(log_1_running(h));
	for (uint32_t s = 1; s < QSC_STATE_COUNT; s++)
		if (s != QSC_STATE_RUNNING && s != QSC_STATE_PRE_COPY && harness_has(h, s))
			PART(log_1_in(h, s));
	return holds(h, "reports that race with writes, and states that cut into them");
}

/* ---- LOG-2: a report clears what it reports ---- */

static enum qsc_check_result log_2(struct harness *h)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];

	REQUIRE(h, harness_start(h));
	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	NEED_WORK(h);
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	REQUIRE(h, harness_copy(h, TARGET, 16, PAGE, 0));
	REQUIRE(h, harness_await_copies(h, 0, 16, 0));
	REQUIRE(h, harness_log_report(h, TARGET, 8 * PAGE, PAGE, bitmap));
	if (bitmap[0] != 0xff)
		return not_tried(h, "8 pages were written and %#llx is reported (LOG-1)",
				 (unsigned long long)bitmap[0]);
	REQUIRE(h, harness_log_report(h, TARGET, 16 * PAGE, PAGE, bitmap));
	MUST(h, !(bitmap[0] & 0xff), "pages that were reported are reported again: %#llx",
	     (unsigned long long)bitmap[0]);
	MUST(h, bitmap[0] == 0xff00,
	     "a report of 8 pages changed what is reported of others: %#llx",
	     (unsigned long long)bitmap[0]);
	REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, bitmap));
	REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, bitmap));
	MUST(h, qsc_bitmap_count(bitmap, PAGES) == 0,
	     "with nothing written, %llu pages are reported",
	     (unsigned long long)qsc_bitmap_count(bitmap, PAGES));
	return holds(h, "reported once, and others untouched");
}

/* ---- LOG-3: what is refused changes nothing; any page size loses nothing ---- */

struct bad_start {
	const char *what;
	uint64_t page_size;
	struct qsc_dma_range ranges[2];
	size_t count;
};

static const struct bad_start bad_starts[] = {
	{"no range", PAGE, {{0, 0}}, 0},
	{"an empty range", PAGE, {{TARGET, 0}}, 1},
	{"a range that wraps", PAGE, {{UINT64_MAX - PAGE + 1, 2 * PAGE}}, 1},
	{"overlapping ranges", PAGE, {{TARGET, 2 * PAGE}, {TARGET + PAGE, PAGE}}, 2},
	{"a range twice", PAGE, {{TARGET, PAGE}, {TARGET, PAGE}}, 2},
	{"pages of 3000 bytes", 3000, {{TARGET, PAGE}}, 1},
	{"pages of 12 KiB", 12288, {{TARGET, PAGE}}, 1},
	{"pages of 2 KiB", 2048, {{TARGET, PAGE}}, 1},
	{"pages of no size", 0, {{TARGET, PAGE}}, 1},
};

static enum qsc_check_result log_3_starts(struct harness *h, bool running)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];
	const char *when = running ? "while it runs" : "while it does not run";

	for (size_t i = 0; i < sizeof(bad_starts) / sizeof(bad_starts[0]); i++) {
		const struct bad_start *bad = &bad_starts[i];
		uint64_t page_size = bad->page_size;
		int r = qsc_device_log_start(h->dev, &page_size, bad->ranges, bad->count);

		MUST(h, r < 0, "starting the log with %s succeeds %s", bad->what, when);
		r = harness_log_report(h, TARGET, PAGE, PAGE, bitmap);
		MUST(h, running == !r, "starting the log with %s %s", bad->what,
		     running ? "ends the one that runs" : "fails, and then it runs");
		if (!running || harness_idle(h))
			continue;
		MUST(h, bitmap[0] & 1, "starting the log with %s loses what was written",
		     bad->what);
		/* For the next one to lose. */
		REQUIRE(h, harness_copy(h, TARGET, 1, PAGE, 0));
		REQUIRE(h, harness_await_copies(h, 0, 1, 0));
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result log_3_twice(struct harness *h)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];
	struct qsc_dma_range range = {TARGET, PAGE};
	uint64_t page_size = PAGE;
	int r = qsc_device_log_start(h->dev, &page_size, &range, 1);

	MUST(h, r < 0, "the log can be started twice");
	MUST(h, !harness_log_report(h, TARGET, PAGE, PAGE, bitmap),
	     "starting the log twice ends the one that runs");
	MUST(h, harness_idle(h) || bitmap[0] & 1, "starting the log twice loses what was written");
	return QSC_CHECK_HOLDS;
}

/* Write four pages, ask for most of them at one page size, then for the rest. */
static enum qsc_check_result log_3_sizes(struct harness *h, uint64_t log_size, uint64_t report_size)
{
	/* The last one lies beyond what is asked for, in the last coarse page. */
	static const uint64_t written[] = {1, 37, 130, 200};
	uint64_t first[HARNESS_BITMAP_WORDS], rest[HARNESS_BITMAP_WORDS];
	uint64_t start = TARGET & ~(report_size - 1), size = TARGET + 199 * PAGE - start;

	REQUIRE(h, harness_start(h));
	/* In whole pages of the log: a kernel takes no other ranges. */
	REQUIRE(h,
		harness_log_start(h, MEMORY_IOVA, qsc_align_up(MEMORY_SIZE, log_size), log_size));
	for (size_t i = 0; i < 4; i++)
		REQUIRE(h, harness_copy(h, TARGET + written[i] * PAGE, 1, PAGE, 0));
	REQUIRE(h, harness_await_copies(h, 0, 4, 0));
	REQUIRE(h, harness_log_report(h, start, size, report_size, first));
	REQUIRE(h, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, rest));
	for (size_t i = 0; i < 4; i++) {
		uint64_t page = TARGET + written[i] * PAGE;
		bool asked = page < start + size;

		MUST(h,
		     qsc_bitmap_test(first, (page - start) / report_size) ||
			     (!asked && qsc_bitmap_test(rest, (page - MEMORY_IOVA) / PAGE)),
		     "a log with pages of %llu, reported with pages of %llu, loses page %#llx",
		     (unsigned long long)log_size, (unsigned long long)report_size,
		     (unsigned long long)page);
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result log_3(struct harness *h)
{
	static const uint64_t sizes[] = {PAGE, 2 * PAGE, 16 * PAGE, 512 * PAGE};

	REQUIRE(h, harness_start(h));
	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	PART(log_3_starts(h, false));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	if (!harness_idle(h)) {
		REQUIRE(h, harness_copy(h, TARGET, 1, PAGE, 0));
		REQUIRE(h, harness_await_copies(h, 0, 1, 0));
	}
	PART(log_3_starts(h, true));
	PART(log_3_twice(h));
	if (harness_idle(h)) {
		harness_leave_out(h, "reports of writes at other page sizes: %s", harness_idle(h));
		return holds(h, "%zu wrong starts", QSC_ARRAY_SIZE(bad_starts) + 1);
	}
	for (size_t a = 0; a < sizeof(sizes) / sizeof(sizes[0]); a++)
		for (size_t b = 0; b < sizeof(sizes) / sizeof(sizes[0]); b++)
			PART(log_3_sizes(h, sizes[a], sizes[b]));
	return holds(h, "%zu wrong starts, 16 pairs of page sizes",
		     sizeof(bad_starts) / sizeof(bad_starts[0]) + 1);
}

/* ---- LOG-4: independent of the migration state ---- */

static enum qsc_check_result log_4_in(struct harness *h, enum qsc_state state)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];
	const char *name = qsc_state_name(state);

	/* Started there (not in ERROR), reported and stopped there. */
	REQUIRE(h, harness_start_in(h, state));
	if (state != QSC_STATE_ERROR) {
		MUST(h, !harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE), "in %s, %s", name,
		     h->trouble);
		MUST(h, !harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, PAGE, bitmap), "in %s, %s",
		     name, h->trouble);
		MUST(h, !qsc_device_log_stop(h->dev), "the log cannot be stopped in %s", name);
	}
	/* Going there neither ends nor clears it. */
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	if (!harness_idle(h)) {
		REQUIRE(h, harness_copy(h, TARGET, 8, PAGE, 0));
		REQUIRE(h, harness_await_copies(h, 0, 8, 0));
	}
	REQUIRE(h, harness_enter(h, state));
	MUST(h, !harness_log_report(h, TARGET, 8 * PAGE, PAGE, bitmap), "in %s, %s", name,
	     h->trouble);
	MUST(h, harness_idle(h) || bitmap[0] == 0xff, "going to %s loses what was written: %#llx",
	     name, (unsigned long long)bitmap[0]);
	MUST(h, !qsc_device_log_stop(h->dev), "the log cannot be stopped in %s", name);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result log_4(struct harness *h)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];

	REQUIRE(h, harness_start(h));
	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++)
		if (harness_has(h, s))
			PART(log_4_in(h, s));
	if (harness_idle(h)) {
		harness_leave_out(h, "that writes are kept: %s", harness_idle(h));
		return holds(h, "started, reported and stopped in every state");
	}
	/* Started in STOP, it sees what is written in RUNNING. */
	REQUIRE(h, harness_start_in(h, QSC_STATE_STOP));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, PAGE));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	REQUIRE(h, harness_copy(h, TARGET, 8, PAGE, 0));
	REQUIRE(h, harness_await_copies(h, 0, 8, 0));
	REQUIRE(h, harness_log_report(h, TARGET, 8 * PAGE, PAGE, bitmap));
	MUST(h, bitmap[0] == 0xff, "started in STOP, the log misses writes: %#llx",
	     (unsigned long long)bitmap[0]);
	return holds(h, "started, kept, reported and stopped in every state");
}

const struct clause_check log_checks[] = {
	{QSC_CLAUSE_LOG_1, log_1}, {QSC_CLAUSE_LOG_2, log_2}, {QSC_CLAUSE_LOG_3, log_3},
	{QSC_CLAUSE_LOG_4, log_4}, {QSC_CLAUSE_COUNT, NULL},
};
