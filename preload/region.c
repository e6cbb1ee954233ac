/* SPDX-License-Identifier: MIT */
/* See region.h. */
#include "region.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vfio.h"
#include "device.h"
#include "user.h"

#define CONFIG VFIO_PCI_CONFIG_REGION_INDEX

static int read_command(struct pl_dev *dev, uint16_t *command)
{
	uint16_t wire;
	ssize_t n = qsc_device_region_read(dev->dev, CONFIG, PCI_COMMAND, &wire, sizeof(wire));

	if (n != sizeof(wire))
		return n < 0 ? (int)n : -EIO;
	*command = le16toh(wire);
	atomic_store(&dev->memory_on, (*command & PCI_COMMAND_MEMORY) != 0);
	return 0;
}

static int write_command(struct pl_dev *dev, uint16_t command)
{
	uint16_t wire = htole16(command);
	ssize_t n = qsc_device_region_write(dev->dev, CONFIG, PCI_COMMAND, &wire, sizeof(wire));

	return n < 0 ? (int)n : read_command(dev, &command);
}

int pl_region_enable(struct pl_dev *dev)
{
	uint16_t command;
	int result;

	if (dev->regions[CONFIG].size < PCI_STD_HEADER_SIZEOF) {
		atomic_store(&dev->memory_on, true);
		return 0;
	}
	result = read_command(dev, &command);
	if (!result && !(command & PCI_COMMAND_MEMORY))
		result = write_command(dev, command | PCI_COMMAND_MEMORY);
	return result;
}

/* ---- describing ---- */

struct chain {
	uint8_t bytes[1024];
	size_t size;
	size_t link; /* where the offset of the next one goes; 0: the head */
};

/* Append a capability with `size` bytes, header included, and return it. */
static void *add_cap(struct chain *chain, uint16_t id, size_t size)
{
	struct vfio_info_cap_header header = {.id = id, .version = 1};
	size_t at = chain->size;
	uint32_t offset = (uint32_t)(sizeof(struct vfio_region_info) + at);

	if (at)
		memcpy(chain->bytes + chain->link + offsetof(struct vfio_info_cap_header, next),
		       &offset, sizeof(offset));
	memset(chain->bytes + at, 0, size);
	memcpy(chain->bytes + at, &header, sizeof(header));
	chain->link = at;
	chain->size = at + (size + 7) / 8 * 8;
	return chain->bytes + at;
}

static void add_caps(struct chain *chain, const struct qsc_region_info *info)
{
	if (info->flags & VFIO_REGION_INFO_FLAG_MMAP && info->num_areas) {
		struct vfio_region_info_cap_sparse_mmap *sparse = add_cap(
			chain, VFIO_REGION_INFO_CAP_SPARSE_MMAP,
			sizeof(*sparse) +
				info->num_areas * sizeof(struct vfio_region_sparse_mmap_area));

		sparse->nr_areas = info->num_areas;
		for (uint32_t i = 0; i < info->num_areas; i++) {
			sparse->areas[i].offset = info->areas[i].offset;
			sparse->areas[i].size = info->areas[i].size;
		}
	}
	if (info->stopped_known) {
		struct abi_region_cap_stopped *stopped = add_cap(chain, ABI_REGION_CAP_STOPPED,
								 sizeof(*stopped));

		stopped->verdict = info->stopped;
	}
}

int pl_region_get_info(struct pl_dev *dev, void *arg)
{
	const uint32_t passed = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
				VFIO_REGION_INFO_FLAG_MMAP;
	struct chain chain = {.size = 0};
	struct vfio_region_info info;
	int result = pl_copy_argsz(&info, sizeof(info), arg);

	if (result < 0)
		return result;
	if (info.index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	/* As vfio-pci: a device without VGA has no such region, and one without a ROM an empty. */
	if (info.index == VFIO_PCI_VGA_REGION_INDEX && !dev->regions[info.index].size)
		return -EINVAL;
	info.flags = dev->regions[info.index].flags & passed;
	info.size = dev->regions[info.index].size;
	info.offset = (uint64_t)info.index << 40;
	info.cap_offset = 0;
	add_caps(&chain, &dev->regions[info.index]);
	if (chain.size) {
		info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		if (info.argsz < sizeof(info) + chain.size) {
			info.argsz = (uint32_t)(sizeof(info) + chain.size);
		} else {
			info.cap_offset = sizeof(info);
			result = pl_copy_out((char *)arg + sizeof(info), chain.bytes, chain.size);
		}
	}
	pl_dev_count(dev, QSC_ACTION_QUERY);
	return result < 0 ? result : pl_copy_out(arg, &info, sizeof(info));
}

/* ---- access ---- */

/* 0, or why there is none; cuts what reaches beyond a BAR. */
static int check(struct pl_dev *dev, uint32_t index, uint64_t at, size_t *size)
{
	if (index >= VFIO_PCI_NUM_REGIONS || !dev->regions[index].size)
		return -EINVAL;
	if (index == CONFIG)
		return at >= dev->regions[index].size || *size > dev->regions[index].size - at
			       ? -EFAULT
			       : 0;
	if (at >= dev->regions[index].size)
		return -EINVAL;
	if (*size > dev->regions[index].size - at)
		*size = dev->regions[index].size - at;
	return atomic_load_explicit(&dev->memory_on, memory_order_relaxed) ? 0 : -EIO;
}

ssize_t pl_region_read(struct pl_dev *dev, void *buf, size_t size, uint64_t offset)
{
	uint32_t index = pl_region_index(offset);
	uint64_t value;
	ssize_t n;
	int result;

	if (!size)
		return 0;
	result = check(dev, index, pl_region_offset(offset), &size);
	if (result < 0)
		return result;
	/* A register is read and then handed over; more of it only where it can be. */
	result = size > sizeof(value) ? pl_can_write(buf, size) : 0;
	if (result < 0)
		return result;
	pl_dev_count(dev, index == CONFIG ? QSC_ACTION_CONFIG_READ : QSC_ACTION_REGISTER_ACCESS);
	n = qsc_device_region_read(dev->dev, index, pl_region_offset(offset),
				   size > sizeof(value) ? buf : &value, size);
	if (n > 0 && size <= sizeof(value))
		result = pl_copy_out(buf, &value, (size_t)n);
	return result < 0 ? result : n;
}

ssize_t pl_region_write(struct pl_dev *dev, const void *buf, size_t size, uint64_t offset)
{
	uint32_t index = pl_region_index(offset);
	uint64_t at = pl_region_offset(offset);
	uint16_t command;
	uint64_t value;
	ssize_t n;
	int result;

	if (!size)
		return 0;
	result = check(dev, index, at, &size);
	if (!result)
		result = size > sizeof(value) ? pl_can_read(buf, size)
					      : pl_copy_in(&value, buf, size);
	if (result < 0)
		return result;
	pl_dev_count(dev, index == CONFIG ? QSC_ACTION_CONFIG_WRITE : QSC_ACTION_REGISTER_ACCESS);
	n = qsc_device_region_write(dev->dev, index, at, size > sizeof(value) ? buf : &value, size);
	if (n > 0 && index == CONFIG && at < PCI_COMMAND + 2 && at + (uint64_t)n > PCI_COMMAND)
		(void)read_command(dev, &command);
	return n;
}

/* ---- reset ---- */

/*
 * The kernel saves the configuration around a reset. The command register comes last, so that the
 * BARs stand where they belong when memory comes on.
 */
static void put_back(struct pl_dev *dev, const uint8_t *config, size_t size)
{
	uint16_t command;

	for (size_t at = PCI_CACHE_LINE_SIZE; at + 4 <= size; at += 4)
		(void)qsc_device_region_write(dev->dev, CONFIG, at, config + at, 4);
	memcpy(&command, config + PCI_COMMAND, sizeof(command));
	(void)write_command(dev, le16toh(command));
}

int pl_region_reset(struct pl_dev *dev)
{
	uint8_t config[256];
	size_t size = sizeof(config);
	enum qsc_state state;
	bool saved;
	int result;

	if (dev->regions[CONFIG].size < size)
		size = (size_t)dev->regions[CONFIG].size & ~3UL;
	saved = size && qsc_device_region_read(dev->dev, CONFIG, 0, config, size) == (ssize_t)size;
	pl_dev_count(dev, QSC_ACTION_RESET);
	result = qsc_device_reset(dev->dev);
	if (dev->migratable)
		(void)pl_dev_state(dev, &state);
	if (!result && saved)
		put_back(dev, config, size);
	return result;
}
