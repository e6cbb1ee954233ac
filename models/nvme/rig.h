/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the NVMe controller share: a rig is one controller with the memory of its
 * driver and its interrupts, and a small driver. All that the driver must remember is in `struct
 * driver`, so that it goes on with another rig on the same memory: source and destination of a
 * migration. Mostly without threads: qsc_runtime_step() makes every piece of work happen when the
 * test says so, in an order drawn from a seed.
 */
#ifndef NVME_RIG_H
#define NVME_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "nvme/nvme.h"
#include "nvme/spec.h"

#define MEMORY_IOVA 0x40000000ULL
#define MEMORY_SIZE (16ULL << 20)
#define IO_QUEUES   4U
#define ENTRIES	    32U
/* Queues stand at the start of memory, two pages for each pair; data behind them. */
#define DATA_OFFSET 0x100000ULL
#define RAM_SIZE    (4ULL << 20)
#define BLOCK	    512ULL

/*
 * For functions that look at what the controller wrote. DMA is ordered by the phase tag and by the
 * interrupt, where the thread sanitizer sees no order.
 */
#define SEES_DMA __attribute__((no_sanitize("thread")))

struct driver_queue {
	uint32_t entries;
	uint32_t tail;
	uint32_t head;
	uint16_t tag;
	uint16_t cid; /* of the next command */
};

struct driver {
	struct driver_queue queues[IO_QUEUES + 1];
};

struct rig {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	uint8_t *memory;
	struct driver *driver;
	uint64_t seed;
	bool threads;
	int events[IO_QUEUES + 1];
	int line;
};

uint64_t random_next(uint64_t *seed);
void random_fill(void *data, size_t size, uint64_t seed);

uint8_t *memory_make(void);
/* A file of that size that is there until the process ends; a name in static storage. */
const char *file_make(uint64_t size);

/* Options for a rig on RAM_SIZE of memory. */
struct nvme_options rig_options(uint32_t flags);
/* A controller with `memory` mapped, as it is before a driver comes. */
void rig_make(struct rig *rig, const struct nvme_options *options, uint8_t *memory,
	      struct driver *driver);
void rig_free(struct rig *rig);
void rig_set_irqs(struct rig *rig);
void rig_state(struct rig *rig, enum qsc_state target);

/* Let at most `steps` things happen; true when there may be more. */
bool rig_steps(struct rig *rig, uint64_t steps);
/* Until nothing is left to do, which must come. */
void rig_settle(struct rig *rig);
/* How often the vector was raised since the last call. */
uint64_t rig_interrupts(struct rig *rig, uint32_t vector);

uint32_t rig_read(struct rig *rig, uint32_t reg);
void rig_write(struct rig *rig, uint32_t reg, uint32_t value);

/* ---- the driver ---- */

#define CC_ENABLE (NVME_CC_EN | 6U << NVME_CC_IOSQES_SHIFT | 4U << NVME_CC_IOCQES_SHIFT)

/* Admin queues in place, and CC.EN set. */
void driver_ask(struct rig *rig);
/* The same, and enabled. */
void driver_enable(struct rig *rig);
/* The same, with all queues made. */
void driver_start(struct rig *rig);
/* Put a command into a queue; its identifier. */
uint16_t driver_submit(struct rig *rig, uint32_t qid, struct nvme_command command);
void driver_doorbell(struct rig *rig, uint32_t qid);
/* Take the oldest completion out of a queue without telling the controller; false: there is none.
 */
bool driver_reap(struct rig *rig, uint32_t qid, struct nvme_completion *completion);
void driver_acknowledge(struct rig *rig, uint32_t qid);
/* One command from beginning to end; its status without the do-not-retry bit. */
uint32_t driver_do(struct rig *rig, uint32_t qid, struct nvme_command command, uint32_t *result);
uint32_t driver_create(struct rig *rig, uint32_t qid);
uint32_t driver_set_feature(struct rig *rig, uint32_t feature, uint32_t value);
uint32_t driver_feature(struct rig *rig, uint32_t feature, uint32_t value);
uint32_t driver_identify(struct rig *rig, uint32_t cns, uint32_t nsid, void *data);
uint32_t driver_log_page(struct rig *rig, uint32_t page, uint32_t offset, void *data,
			 uint32_t size);
/* Read or write with its data at this offset of memory; contiguous. */
struct nvme_command driver_rw(uint8_t opcode, uint64_t block, uint32_t blocks, uint64_t offset);
/* A page of memory that these helpers use. */
#define SCRATCH_OFFSET (DATA_OFFSET - 0x10000)

#endif
