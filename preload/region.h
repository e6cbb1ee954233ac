/* SPDX-License-Identifier: MIT */
/*
 * Regions as vfio-pci has them: an index in the upper bits of the file offset, BARs that answer
 * only while memory space is enabled, a configuration space that survives a reset.
 */
#ifndef PRELOAD_REGION_H
#define PRELOAD_REGION_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pl_dev;

/* Memory space is on when a device has just been opened. 0 or -errno. */
int pl_region_enable(struct pl_dev *dev);
int pl_region_get_info(struct pl_dev *dev, void *arg);
ssize_t pl_region_read(struct pl_dev *dev, void *buf, size_t size, uint64_t offset);
ssize_t pl_region_write(struct pl_dev *dev, const void *buf, size_t size, uint64_t offset);
/* A reset that leaves the user's configuration as it was. */
int pl_region_reset(struct pl_dev *dev);

/* Region and offset in it of a place in the file. */
static inline uint32_t pl_region_index(uint64_t offset)
{
	return (uint32_t)(offset >> 40);
}

static inline uint64_t pl_region_offset(uint64_t offset)
{
	return offset & ((1ULL << 40) - 1);
}

#endif
