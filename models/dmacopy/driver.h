/* SPDX-License-Identifier: MIT */
/*
 * The driver's side of dmacopy: a queue in the memory of whoever drives the engine, over any
 * `struct qsc_device`. Everything that must migrate with the driver is in the queue, which holds no
 * pointers: after a migration the same functions go on with the queue at its new address and the
 * device's new handle.
 *
 * Threads: one at a time for each queue.
 */
#ifndef DMACOPY_DRIVER_H
#define DMACOPY_DRIVER_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>

#include "dmacopy/dmacopy.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * For functions that look at what the engine wrote. DMA is ordered by OWN and by the interrupt,
 * where the thread sanitizer sees no order.
 */
#define DMACOPY_SEES_DMA __attribute__((no_sanitize("thread")))

/*
 * Placed by the caller in memory that is mapped into the engine's DMA space, 64-byte aligned,
 * dmacopy_queue_size() bytes. `submitted` and `reaped` count descriptors and never wrap in
 * practice; slot = count modulo entries.
 */
struct dmacopy_queue {
	uint64_t iova; /* of this structure */
	uint64_t submitted;
	uint64_t reaped;
	uint32_t entries;
	uint32_t reserved[9];
	struct dmacopy_descriptor descriptors[];
};

static inline size_t dmacopy_queue_size(uint32_t entries)
{
	return sizeof(struct dmacopy_queue) + entries * sizeof(struct dmacopy_descriptor);
}

struct dmacopy_transfer {
	uint32_t flags;	 /* DMACOPY_DESC_* without OWN */
	uint32_t vector; /* with DMACOPY_DESC_INTERRUPT */
	uint32_t length;
	uint64_t source;
	uint64_t destination;
	uint64_t cookie;
};

struct dmacopy_completion {
	uint32_t status; /* DMACOPY_DONE_* */
	uint64_t bytes_done;
	uint64_t cookie;
};

/*
 * Look for the engine, reset it and give it the queue, which is initialised. entries is a power of
 * two up to DMACOPY_RING_MAX. -ENODEV when the device is no dmacopy, -EINVAL when it refuses the
 * ring.
 */
int dmacopy_driver_start(struct qsc_device *dev, struct dmacopy_queue *queue, uint64_t iova,
			 uint32_t entries);

/* Put one transfer into the queue. Touches memory only. -EAGAIN when the queue is full. */
int dmacopy_driver_submit(struct dmacopy_queue *queue, const struct dmacopy_transfer *transfer);

/* Have the engine look at the queue. */
int dmacopy_driver_doorbell(struct qsc_device *dev);

/*
 * Take the oldest transfer out of the queue if it is complete: 1 and *completion, else 0. Touches
 * memory only. Completions are given in the order of submission.
 */
int dmacopy_driver_reap(struct dmacopy_queue *queue, struct dmacopy_completion *completion);

/* Whether the transfer submitted as number `submission` (from 0) is complete; not yet reaped. */
bool dmacopy_driver_complete(const struct dmacopy_queue *queue, uint64_t submission);

/* A register of 4 or 8 bytes. 0 or -errno. */
int dmacopy_driver_read32(struct qsc_device *dev, uint32_t reg, uint32_t *value);
int dmacopy_driver_read64(struct qsc_device *dev, uint32_t reg, uint64_t *value);
int dmacopy_driver_write32(struct qsc_device *dev, uint32_t reg, uint32_t value);
int dmacopy_driver_write64(struct qsc_device *dev, uint32_t reg, uint64_t value);

#ifdef __cplusplus
}
#endif
#endif
