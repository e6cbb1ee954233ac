/* SPDX-License-Identifier: MIT */
/* How a check makes dmacopy work: copies from the pattern to wherever they are wanted. */
#include "dmacopy/exercise.h"

#include <linux/vfio.h>

#include "dmacopy/driver.h"

#define ENTRIES 256

static struct dmacopy_queue *queue_of(const struct qsc_check_bench *bench)
{
	return bench->queue;
}

static bool knows(struct qsc_device *dev, const struct qsc_device_info *info)
{
	uint32_t id = 0;

	return info->num_regions > DMACOPY_BAR_MSIX &&
	       !dmacopy_driver_read32(dev, DMACOPY_REG_ID, &id) && id == DMACOPY_ID;
}

static int prepare(const struct qsc_check_bench *bench)
{
	return dmacopy_driver_start(bench->dev, queue_of(bench), bench->queue_iova, ENTRIES);
}

static int submit(const struct qsc_check_bench *bench, const struct qsc_check_copy *copy)
{
	bool local = copy->destination >= QSC_CHECK_DEVICE_MEMORY;
	const struct dmacopy_transfer transfer = {
		.flags = DMACOPY_DESC_INTERRUPT | (local ? DMACOPY_DESC_DESTINATION_LOCAL : 0),
		.vector = copy->vector,
		.length = copy->size,
		.source = bench->pattern_iova + copy->source,
		.destination = local ? copy->destination - QSC_CHECK_DEVICE_MEMORY
				     : copy->destination,
	};

	return dmacopy_driver_submit(queue_of(bench), &transfer);
}

static int kick(const struct qsc_check_bench *bench)
{
	return dmacopy_driver_doorbell(bench->dev);
}

const struct qsc_exerciser dmacopy_exerciser = {
	.name = "dmacopy",
	.knows = knows,
	.register_region = DMACOPY_BAR_REGISTERS,
	.register_offset = DMACOPY_REG_SCRATCH,
	.register_size = 8,
	.register_mask = UINT64_MAX,
	.memory_region = DMACOPY_BAR_LOCAL,
	.memory_size = DMACOPY_EXERCISED_MEMORY,
	.irq_index = VFIO_PCI_MSIX_IRQ_INDEX,
	.granule = 1,
	.to_device_memory = true,
	.prepare = prepare,
	.submit = submit,
	.kick = kick,
};
