/* SPDX-License-Identifier: MIT */
/*
 * Descriptions of the device and its regions, and access to them. What a stopped device should
 * discard never reaches it (DEV-7): drivers let such accesses through, some even into what they
 * save.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "client/kernel/kernel.h"
#include "wire/wire.h"

#define MAX_REGIONS	1024U /* far more than any device has */
#define MAX_REGION_INFO (64U << 10)

/* The structure and its chain of capabilities are those of vfio-user, which took them from here. */
static int decode(struct qsc_kernel *kernel, const void *body, size_t size, uint32_t index)
{
	struct qsc_kernel_region *region = &kernel->regions[index];
	const struct vfio_region_info *fixed = body;

	if (!qsc_wire_decode_region_info_reply(body, size, index, &region->info,
					       &region->fd_offset)) {
		/* Who states this for a region is not a driver of the kernel's. */
		kernel->holds |= region->info.stopped_known;
		return 0;
	}
	/* Areas that no mapping can have, say: then accesses go one by one. */
	qsc_log(QSC_LOG_INFO, "%s: what may be mapped of region %u is not understood", kernel->name,
		index);
	region->info = (struct qsc_region_info){
		.flags = fixed->flags & (VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE),
		.size = fixed->size,
	};
	region->fd_offset = fixed->offset;
	return 0;
}

static int learn_region(struct qsc_kernel *kernel, uint32_t index)
{
	qsc_autofree struct vfio_region_info *info = calloc(1, sizeof(*info));
	size_t size = sizeof(*info);
	int result;

	while (info) {
		info->argsz = (uint32_t)size;
		info->index = index;
		result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_GET_REGION_INFO, info);
		/* Some devices have holes between their indices. */
		if (result == -EINVAL || result == -ENOTTY)
			return 0;
		if (result < 0)
			return result;
		if (info->argsz <= size)
			return decode(kernel, info, size, index);
		size = info->argsz;
		if (size > MAX_REGION_INFO)
			return -EPROTO;
		free(info);
		info = calloc(1, size);
	}
	return -ENOMEM;
}

int qsc_kernel_learn_regions(struct qsc_kernel *kernel)
{
	int result = 0;

	if (kernel->num_regions > MAX_REGIONS)
		return -EPROTO;
	kernel->regions = calloc(kernel->num_regions + 1U, sizeof(*kernel->regions));
	if (!kernel->regions)
		return -ENOMEM;
	for (uint32_t i = 0; i < kernel->num_regions && !result; i++)
		result = learn_region(kernel, i);
	return result;
}

int qsc_kernel_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);

	info->flags = kernel->flags;
	info->num_regions = kernel->num_regions;
	info->num_irqs = kernel->num_irqs;
	return 0;
}

int qsc_kernel_get_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);

	if (region >= kernel->num_regions)
		return -EINVAL;
	*info = kernel->regions[region].info;
	return 0;
}

static bool is_config(const struct qsc_kernel *kernel, uint32_t index)
{
	return (kernel->flags & VFIO_DEVICE_FLAGS_PCI) && index == VFIO_PCI_CONFIG_REGION_INDEX;
}

/* Whether there is such a place, and it may be accessed: 0, or -errno. */
static int check(struct qsc_kernel *kernel, uint32_t index, uint64_t offset, size_t count,
		 bool write)
{
	const struct qsc_region_info *info;

	if (index >= kernel->num_regions)
		return -EINVAL;
	info = &kernel->regions[index].info;
	if (!qsc_range_within(offset, count, info->size))
		return -EINVAL;
	if (!(info->flags & (write ? VFIO_REGION_INFO_FLAG_WRITE : VFIO_REGION_INFO_FLAG_READ)))
		return -EPERM;
	return is_config(kernel, index) ? qsc_kernel_verdict(kernel, write ? QSC_ACTION_CONFIG_WRITE
									   : QSC_ACTION_CONFIG_READ)
					: 0;
}

/*
 * From here to leave() the device does not stop; false: it has, and the access is to be discarded.
 * The configuration space stays open, and so does a device that has no states or is raw.
 */
static bool begin(struct qsc_kernel *kernel, uint32_t index, struct qsc_gate_pass *pass)
{
	if (!kernel->migratable || kernel->raw || is_config(kernel, index))
		return true;
	return qsc_gate_enter(&kernel->access, pass) != QSC_GATE_CLOSED;
}

static void leave(struct qsc_kernel *kernel, struct qsc_gate_pass *pass)
{
	if (pass->inside)
		qsc_gate_leave(&kernel->access, pass);
}

ssize_t qsc_kernel_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	struct qsc_gate_pass pass = {NULL};
	ssize_t n = check(kernel, region, offset, count, false);

	if (n < 0)
		return n;
	if (!begin(kernel, region, &pass)) {
		memset(buf, 0xff, count);
		return (ssize_t)count;
	}
	n = pread(kernel->files.device, buf, count,
		  (off_t)(kernel->regions[region].fd_offset + offset));
	if (n < 0)
		n = qsc_kernel_failure(kernel, errno);
	leave(kernel, &pass);
	return n;
}

ssize_t qsc_kernel_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	struct qsc_gate_pass pass = {NULL};
	ssize_t n = check(kernel, region, offset, count, true);

	if (n < 0)
		return n;
	if (!begin(kernel, region, &pass))
		return (ssize_t)count;
	n = pwrite(kernel->files.device, buf, count,
		   (off_t)(kernel->regions[region].fd_offset + offset));
	if (n < 0)
		n = qsc_kernel_failure(kernel, errno);
	leave(kernel, &pass);
	return n;
}

int qsc_kernel_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	struct qsc_mapping_source source = {.fd = kernel->files.device};
	int result;

	if (region >= kernel->num_regions)
		return -EINVAL;
	result = qsc_mapping_check(&kernel->regions[region].info, offset, size, prot);
	if (result < 0)
		return result;
	source.fd_offset = kernel->regions[region].fd_offset + offset;
	return qsc_mappings_add(&kernel->mappings, &source, size, prot, addr);
}

int qsc_kernel_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_mappings_remove(&qsc_kernel_of(dev)->mappings, addr, size);
}
