/* SPDX-License-Identifier: MIT */
/* The driver's side of dmacopy; see driver.h. */
#include "dmacopy/driver.h"

#include <errno.h>
#include <string.h>

static int access_result(ssize_t got, size_t want)
{
	if (got < 0)
		return (int)got;
	return (size_t)got == want ? 0 : -EIO;
}

int dmacopy_driver_read32(struct qsc_device *dev, uint32_t reg, uint32_t *value)
{
	return access_result(
		qsc_device_region_read(dev, DMACOPY_BAR_REGISTERS, reg, value, sizeof(*value)),
		sizeof(*value));
}

int dmacopy_driver_read64(struct qsc_device *dev, uint32_t reg, uint64_t *value)
{
	return access_result(
		qsc_device_region_read(dev, DMACOPY_BAR_REGISTERS, reg, value, sizeof(*value)),
		sizeof(*value));
}

int dmacopy_driver_write32(struct qsc_device *dev, uint32_t reg, uint32_t value)
{
	return access_result(
		qsc_device_region_write(dev, DMACOPY_BAR_REGISTERS, reg, &value, sizeof(value)),
		sizeof(value));
}

int dmacopy_driver_write64(struct qsc_device *dev, uint32_t reg, uint64_t value)
{
	return access_result(
		qsc_device_region_write(dev, DMACOPY_BAR_REGISTERS, reg, &value, sizeof(value)),
		sizeof(value));
}

/* Reset the engine; it is done when CONTROL reads as 0, which only DMA under way can delay. */
static int engine_reset(struct qsc_device *dev)
{
	uint32_t control = DMACOPY_CONTROL_RESET;
	int ret = dmacopy_driver_write32(dev, DMACOPY_REG_CONTROL, control);

	for (unsigned int tries = 0; !ret && control && tries < 1000000; tries++)
		ret = dmacopy_driver_read32(dev, DMACOPY_REG_CONTROL, &control);
	if (ret)
		return ret;
	return control ? -ETIMEDOUT : 0;
}

int dmacopy_driver_start(struct qsc_device *dev, struct dmacopy_queue *queue, uint64_t iova,
			 uint32_t entries)
{
	uint32_t value;
	int ret;

	ret = dmacopy_driver_read32(dev, DMACOPY_REG_ID, &value);
	if (ret)
		return ret;
	if (value != DMACOPY_ID)
		return -ENODEV;
	ret = engine_reset(dev);
	if (ret)
		return ret;
	memset(queue, 0, dmacopy_queue_size(entries));
	queue->iova = iova;
	queue->entries = entries;
	ret = dmacopy_driver_write64(dev, DMACOPY_REG_RING_BASE,
				     iova + offsetof(struct dmacopy_queue, descriptors));
	if (!ret)
		ret = dmacopy_driver_write32(dev, DMACOPY_REG_RING_SIZE, entries);
	if (!ret)
		ret = dmacopy_driver_write32(dev, DMACOPY_REG_CONTROL, DMACOPY_CONTROL_ENABLE);
	if (!ret)
		ret = dmacopy_driver_read32(dev, DMACOPY_REG_CONTROL, &value);
	if (ret)
		return ret;
	return value == DMACOPY_CONTROL_ENABLE ? 0 : -EINVAL;
}

static struct dmacopy_descriptor *slot_of(struct dmacopy_queue *queue, uint64_t count)
{
	return &queue->descriptors[count & (queue->entries - 1)];
}

DMACOPY_SEES_DMA
int dmacopy_driver_submit(struct dmacopy_queue *queue, const struct dmacopy_transfer *transfer)
{
	struct dmacopy_descriptor *slot;

	if (queue->submitted - queue->reaped >= queue->entries)
		return -EAGAIN;
	slot = slot_of(queue, queue->submitted);
	slot->vector = transfer->vector;
	slot->length = transfer->length;
	slot->reserved = 0;
	slot->source = transfer->source;
	slot->destination = transfer->destination;
	slot->cookie = transfer->cookie;
	slot->reserved2 = 0;
	slot->status = 0;
	slot->bytes_done = 0;
	/* OWN last: the engine may look at any time. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	*(volatile uint32_t *)&slot->flags = transfer->flags | DMACOPY_DESC_OWN;
	queue->submitted++;
	return 0;
}

int dmacopy_driver_doorbell(struct qsc_device *dev)
{
	return dmacopy_driver_write32(dev, DMACOPY_REG_DOORBELL, 1);
}

DMACOPY_SEES_DMA
static bool slot_complete(const struct dmacopy_descriptor *slot)
{
	uint32_t flags = *(const volatile uint32_t *)&slot->flags;

	/* What comes after this is read after OWN. */
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	return !(flags & DMACOPY_DESC_OWN);
}

DMACOPY_SEES_DMA
int dmacopy_driver_reap(struct dmacopy_queue *queue, struct dmacopy_completion *completion)
{
	struct dmacopy_descriptor *slot = slot_of(queue, queue->reaped);

	if (queue->reaped == queue->submitted || !slot_complete(slot))
		return 0;
	*completion = (struct dmacopy_completion){
		.status = slot->status,
		.bytes_done = slot->bytes_done,
		.cookie = slot->cookie,
	};
	queue->reaped++;
	return 1;
}

DMACOPY_SEES_DMA
bool dmacopy_driver_complete(const struct dmacopy_queue *queue, uint64_t submission)
{
	return slot_complete(&queue->descriptors[submission & (queue->entries - 1)]);
}
