/* SPDX-License-Identifier: MIT */
/* See rig.h. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "dmacopy/rig.h"

uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

void random_fill(void *data, size_t size, uint64_t seed)
{
	uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)random_next(&seed);
}

void rig_map(struct rig *rig)
{
	const struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = rig->memory,
		.fd = -1,
	};

	assert_int_equal(qsc_device_dma_map(rig->dev, &mapping), 0);
}

void rig_set_irqs(struct rig *rig)
{
	assert_int_equal(
		qsc_device_set_eventfds(rig->dev, VFIO_PCI_MSIX_IRQ_INDEX, rig->events, VECTORS),
		0);
}

void rig_make(struct rig *rig, const struct dmacopy_options *options, uint8_t *memory)
{
	struct qsc_error err = QSC_ERROR_NONE;

	*rig = (struct rig){.memory = memory, .seed = 0x9e3779b97f4a7c15ULL};
	if (dmacopy_create(options, &rig->rt, &err))
		fail_msg("%s", err.text);
	assert_int_equal(qsc_runtime_open(rig->rt, &rig->dev), 0);
	rig->queue = (struct dmacopy_queue *)(void *)memory;
	for (uint32_t i = 0; i < VECTORS; i++) {
		rig->events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_true(rig->events[i] >= 0);
	}
	rig_map(rig);
}

void rig_free(struct rig *rig)
{
	qsc_device_close(rig->dev);
	qsc_runtime_destroy(rig->rt);
	for (uint32_t i = 0; i < VECTORS; i++)
		close(rig->events[i]);
}

uint8_t *memory_make(void)
{
	uint8_t *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

void rig_start(struct rig *rig)
{
	rig_set_irqs(rig);
	assert_int_equal(dmacopy_driver_start(rig->dev, rig->queue, MEMORY_IOVA, ENTRIES), 0);
}

void rig_setup(struct rig *rig, uint32_t flags, bool tells_peers)
{
	const struct dmacopy_options options = {
		.migration_flags = flags,
		.tells_peers = tells_peers,
		.local_size = LOCAL_SIZE,
		.vectors = VECTORS,
		.manual = true,
	};

	rig_make(rig, &options, memory_make());
	rig_start(rig);
}

void rig_teardown(struct rig *rig)
{
	rig_free(rig);
	munmap(rig->memory, MEMORY_SIZE);
}

bool rig_steps(struct rig *rig, uint64_t steps)
{
	while (steps--) {
		if (!qsc_runtime_step(rig->rt, random_next(&rig->seed)))
			return false;
	}
	return true;
}

void rig_settle(struct rig *rig)
{
	assert_false(rig_steps(rig, 1000000));
}

uint64_t rig_interrupts(struct rig *rig, uint32_t vector)
{
	uint64_t count = 0;

	if (read(rig->events[vector], &count, sizeof(count)) != sizeof(count))
		assert_int_equal(errno, EAGAIN);
	return count;
}

void rig_submit(struct rig *rig, const struct dmacopy_transfer *transfer)
{
	assert_int_equal(dmacopy_driver_submit(rig->queue, transfer), 0);
	assert_int_equal(dmacopy_driver_doorbell(rig->dev), 0);
}

uint32_t rig_copy(struct rig *rig, struct dmacopy_transfer transfer)
{
	struct dmacopy_completion completion;

	rig_submit(rig, &transfer);
	rig_settle(rig);
	assert_int_equal(dmacopy_driver_reap(rig->queue, &completion), 1);
	assert_int_equal(completion.cookie, transfer.cookie);
	if (completion.status == DMACOPY_DONE_OK)
		assert_int_equal(completion.bytes_done, transfer.length);
	return completion.status;
}

uint32_t rig_register(struct rig *rig, uint32_t reg)
{
	uint32_t value;

	assert_int_equal(dmacopy_driver_read32(rig->dev, reg, &value), 0);
	return value;
}

uint64_t rig_register64(struct rig *rig, uint32_t reg)
{
	uint64_t value;

	assert_int_equal(dmacopy_driver_read64(rig->dev, reg, &value), 0);
	return value;
}

void rig_state(struct rig *rig, enum qsc_state target)
{
	enum qsc_state state;
	uint64_t session;

	assert_int_equal(qsc_device_set_state(rig->dev, target, &session), 0);
	assert_int_equal(qsc_device_get_state(rig->dev, &state), 0);
	assert_int_equal(state, target);
}

uint64_t iova_of(const struct rig *rig, const void *data)
{
	return MEMORY_IOVA + (uint64_t)((const uint8_t *)data - rig->memory);
}

void submit_batch(struct rig *rig, uint64_t *seed)
{
	for (uint32_t i = 0; i < VECTORS; i++) {
		bool local = i % 2;
		struct dmacopy_transfer transfer = {
			.flags = DMACOPY_DESC_INTERRUPT |
				 (local ? DMACOPY_DESC_DESTINATION_LOCAL : 0),
			.vector = i,
			.length = (uint32_t)(random_next(seed) % 130000),
			.source = MEMORY_IOVA + DATA_OFFSET + random_next(seed) % 1000,
			.destination = local ? 131072ULL * (i / 2)
					     : MEMORY_IOVA + DATA_OFFSET + (1 << 20) +
						       131072ULL * (i / 2),
			.cookie = i,
		};

		assert_int_equal(dmacopy_driver_submit(rig->queue, &transfer), 0);
	}
	assert_int_equal(dmacopy_driver_doorbell(rig->dev), 0);
}
