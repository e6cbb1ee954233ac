/* SPDX-License-Identifier: MIT */
/*
 * What the tests of dmacopy share: a rig is one engine with its memory and interrupts; two rigs on
 * the same memory are source and destination of a migration. Mostly without threads:
 * qsc_runtime_step() makes every piece of work happen when the test says so, in an order drawn from
 * a seed.
 */
#ifndef DMACOPY_RIG_H
#define DMACOPY_RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "dmacopy/dmacopy.h"
#include "dmacopy/driver.h"

#define MEMORY_IOVA 0x40000000ULL
#define MEMORY_SIZE (4ULL << 20)
#define PEER_IOVA   0x80000000ULL
#define LOCAL_SIZE  (1ULL << 20)
#define ENTRIES	    32U
#define VECTORS	    16U
/* The queue stands at the start of memory, data behind it. */
#define DATA_OFFSET 0x10000ULL

struct rig {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	uint8_t *memory;
	struct dmacopy_queue *queue;
	uint64_t seed;
	int events[VECTORS];
};

uint64_t random_next(uint64_t *seed);

void random_fill(void *data, size_t size, uint64_t seed);

void rig_map(struct rig *rig);

void rig_set_irqs(struct rig *rig);

/* An engine with `memory` mapped and no interrupts set up yet. */
void rig_make(struct rig *rig, const struct dmacopy_options *options, uint8_t *memory);

void rig_free(struct rig *rig);

uint8_t *memory_make(void);

void rig_start(struct rig *rig);

/* A running engine with memory of its own. */
void rig_setup(struct rig *rig, uint32_t flags, bool tells_peers);

void rig_teardown(struct rig *rig);

/* Let at most `steps` things happen; true when there may be more. */
bool rig_steps(struct rig *rig, uint64_t steps);

/* Until nothing is left to do, which must come. */
void rig_settle(struct rig *rig);

uint64_t rig_interrupts(struct rig *rig, uint32_t vector);

void rig_submit(struct rig *rig, const struct dmacopy_transfer *transfer);

/* One transfer from beginning to end; its status. */
uint32_t rig_copy(struct rig *rig, struct dmacopy_transfer transfer);

uint32_t rig_register(struct rig *rig, uint32_t reg);

uint64_t rig_register64(struct rig *rig, uint32_t reg);

void rig_state(struct rig *rig, enum qsc_state target);

uint64_t iova_of(const struct rig *rig, const void *data);

/* A batch of transfers through local memory and memory, each with its own target and interrupt. */
void submit_batch(struct rig *rig, uint64_t *seed);

#endif
