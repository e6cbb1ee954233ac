/* SPDX-License-Identifier: MIT */
/* The fault layer's actions of the dirty log, and reports that are wrong. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/fault_layer.h"

int qsc_fault_log_start(struct qsc_device *dev, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_LOG_START, 0,
		       qsc_device_log_start(fault->inner, page_size, ranges, num_ranges));
}

int qsc_fault_log_stop(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_LOG_STOP, 0, qsc_device_log_stop(fault->inner));
}

/* The lock is held. */
static void drop_bits(struct fault *fault, const struct fault_rule *drop, uint64_t *bits,
		      size_t words)
{
	for (size_t w = 0; w < words; w++)
		for (uint64_t left = bits[w]; left; left &= left - 1)
			if (qsc_fault_chance(drop->chance_seed, fault->bits++, drop->chance))
				bits[w] &= ~(left & -left);
}

/* What this report found is told by the next one of the same range as well. The lock is held. */
static void repeat_bits(struct fault *fault, struct qsc_dma_range range, uint64_t *bits,
			size_t words)
{
	uint64_t *kept = malloc(words * sizeof(*kept));

	if (kept)
		memcpy(kept, bits, words * sizeof(*kept));
	if (fault->last && fault->last_words == words && fault->last_range.iova == range.iova &&
	    fault->last_range.size == range.size)
		for (size_t w = 0; w < words; w++)
			bits[w] |= fault->last[w];
	free(fault->last);
	fault->last = kept;
	fault->last_words = words;
	fault->last_range = range;
}

static int report_wrong(struct fault *fault, const struct strike *s, struct qsc_dma_range range,
			uint64_t page_size, uint64_t *bitmap)
{
	size_t words = (size_t)((range.size - 1) / page_size / 64 + 1);
	qsc_autofree uint64_t *bits = calloc(words, sizeof(*bits));
	int result;

	if (!bits)
		return -ENOMEM;
	result = qsc_device_log_report(fault->inner, range.iova, range.size, page_size, bits);
	if (result < 0)
		return result;
	pthread_mutex_lock(&fault->lock);
	if (s->by[FAULT_REPEAT])
		repeat_bits(fault, range, bits, words);
	if (s->by[FAULT_DROP])
		drop_bits(fault, s->by[FAULT_DROP], bits, words);
	pthread_mutex_unlock(&fault->lock);
	for (size_t w = 0; w < words; w++)
		bitmap[w] |= bits[w];
	return result;
}

int qsc_fault_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint64_t *bitmap)
{
	struct fault *fault = fault_of(dev);
	const struct qsc_dma_range range = {iova, size};
	struct strike s;

	if (!armed(fault, FAULT_LOG_REPORT))
		return qsc_device_log_report(fault->inner, iova, size, page_size, bitmap);
	if (qsc_fault_strike(fault, FAULT_LOG_REPORT, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	if (s.by[FAULT_DROP] || s.by[FAULT_REPEAT])
		return (int)qsc_fault_finish(&s, report_wrong(fault, &s, range, page_size, bitmap));
	return (int)qsc_fault_finish(
		&s, qsc_device_log_report(fault->inner, iova, size, page_size, bitmap));
}
