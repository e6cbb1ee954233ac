/* SPDX-License-Identifier: MIT */
/* Lies about the dirty log: LOG-1 to LOG-4. */
#include <errno.h>
#include <string.h>

#include "base/bitmap.h"
#include "liar.h"

static int report_nothing_stopped(struct qsc_device *dev, uint64_t iova, uint64_t size,
				  uint64_t page_size, uint64_t *bitmap)
{
	int r = qsc_device_log_report(honest(dev), iova, size, page_size, bitmap);

	if (!r && size == MEMORY_SIZE && honest_state(dev) == QSC_STATE_STOP_COPY)
		memset(bitmap, 0, qsc_bitmap_words(size / page_size) * sizeof(*bitmap));
	return r;
}

static int clear_too_much(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap)
{
	uint64_t rest[HARNESS_BITMAP_WORDS];
	int r = qsc_device_log_report(honest(dev), iova, size, page_size, bitmap);

	if (!r && size == 8ULL * 4096)
		qsc_device_log_report(honest(dev), MEMORY_IOVA, MEMORY_SIZE, 4096, rest);
	return r;
}

static int start_twice(struct qsc_device *dev, uint64_t *page_size,
		       const struct qsc_dma_range *ranges, size_t num_ranges)
{
	int r = qsc_device_log_start(honest(dev), page_size, ranges, num_ranges);

	if (r >= 0 || qsc_device_log_stop(honest(dev)))
		return r;
	return qsc_device_log_start(honest(dev), page_size, ranges, num_ranges);
}

static int stop_instead(struct qsc_device *dev, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges)
{
	int r = qsc_device_log_start(honest(dev), page_size, ranges, num_ranges);

	if (r < 0)
		qsc_device_log_stop(honest(dev));
	return r;
}

static int lose_coarse(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		       uint64_t *bitmap)
{
	int r = qsc_device_log_report(honest(dev), iova, size, page_size, bitmap);

	if (!r && page_size > 4096)
		memset(bitmap, 0, qsc_bitmap_words(size / page_size) * sizeof(*bitmap));
	return r;
}

static int stop_with_the_device(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int r = honest_set_state(dev, target, session);

	if (!r && target == QSC_STATE_RESUMING)
		qsc_device_log_stop(honest(dev));
	return r;
}

const struct lie log_lies[] = {
	{QSC_CLAUSE_LOG_1, "does not report one page of many", .fault = "log-report=drop:2%:1"},
	{QSC_CLAUSE_LOG_1, "reports nothing in STOP_COPY",
	 .ops.log_report = report_nothing_stopped},
	{QSC_CLAUSE_LOG_2, "reports again what it reported", .fault = "log-report=repeat"},
	{QSC_CLAUSE_LOG_2, "clears what it did not report", .ops.log_report = clear_too_much},
	{QSC_CLAUSE_LOG_3, "starts the log twice", .ops.log_start = start_twice},
	{QSC_CLAUSE_LOG_3, "stops the log when it is started twice", .ops.log_start = stop_instead},
	{QSC_CLAUSE_LOG_3, "loses pages in a coarse report", .ops.log_report = lose_coarse},
	{QSC_CLAUSE_LOG_4, "does not start the log in RESUMING", .fault = "log-start/RESUMING=EIO"},
	{QSC_CLAUSE_LOG_4, "does not report in ERROR", .fault = "log-report/ERROR=EIO"},
	{QSC_CLAUSE_LOG_4, "stops the log when RESUMING is entered",
	 .ops.set_state = stop_with_the_device},
	{.what = NULL},
};
