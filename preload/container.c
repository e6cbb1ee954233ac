/* SPDX-License-Identifier: MIT */
/*
 * See container.h. Dirty pages are what they are to the kernel's type 1 where no device says more:
 * every mapped page. Devices that log say it themselves, through VFIO_DEVICE_FEATURE.
 */
#include "container.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vfio.h"
#include "bitmap.h"
#include "device.h"
#include "ioas.h"
#include "user.h"

#define MAX_MAPPINGS	65535U
#define MAX_BITMAP_SIZE (256ULL << 20) /* bytes: 2^31 pages */

struct container {
	struct pl_file file;
	pthread_mutex_t lock;
	uint32_t groups;
	uint32_t type; /* VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU or 0 */
	bool tracking;
	struct pl_ioas ioas;
};

static struct container *container_of(struct pl_file *file)
{
	return (struct container *)file;
}

static int check_extension(const struct container *container, unsigned long extension)
{
	switch (extension) {
	case VFIO_TYPE1_IOMMU:
	case VFIO_TYPE1v2_IOMMU:
	case VFIO_UNMAP_ALL:
		return 1;
	case VFIO_DMA_CC_IOMMU:
		return container->type != 0;
	default:
		return 0;
	}
}

static int set_iommu(struct container *container, unsigned long type)
{
	if (!container->groups || container->type)
		return -EINVAL;
	if (type != VFIO_TYPE1_IOMMU && type != VFIO_TYPE1v2_IOMMU)
		return -ENODEV;
	container->type = (uint32_t)type;
	return 0;
}

/* ---- description ---- */

struct iommu_caps {
	struct vfio_iommu_type1_info_cap_migration migration;
	struct vfio_iommu_type1_info_dma_avail avail;
	struct vfio_info_cap_header iova_header;
	uint32_t num_ranges;
	uint32_t reserved;
	struct abi_iova_range ranges[2];
};

static size_t fill_caps(struct container *container, struct iommu_caps *caps, uint32_t base)
{
	memset(caps, 0, sizeof(*caps));
	caps->migration.header.id = VFIO_IOMMU_TYPE1_INFO_CAP_MIGRATION;
	caps->migration.header.version = 1;
	caps->migration.header.next = base + offsetof(struct iommu_caps, avail);
	caps->migration.pgsize_bitmap = PL_PAGE;
	caps->migration.max_dirty_bitmap_size = MAX_BITMAP_SIZE;
	caps->avail.header.id = VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL;
	caps->avail.header.version = 1;
	caps->avail.header.next = base + offsetof(struct iommu_caps, iova_header);
	caps->avail.avail = MAX_MAPPINGS - (uint32_t)pl_ioas_count(&container->ioas);
	caps->iova_header.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE;
	caps->iova_header.version = 1;
	caps->num_ranges = pl_ioas_device_ranges(caps->ranges, 2);
	return sizeof(*caps);
}

static int get_info(struct container *container, void *arg)
{
	const size_t least = offsetof(struct vfio_iommu_type1_info, cap_offset);
	struct vfio_iommu_type1_info info = {0};
	struct iommu_caps caps;
	size_t size;
	int result = pl_copy_argsz(&info, least, arg);

	if (result < 0)
		return result;
	info.flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info.iova_pgsizes = PL_PAGE | 2ULL << 20 | 1ULL << 30;
	size = fill_caps(container, &caps, sizeof(info));
	if (info.argsz < sizeof(info) + size) {
		bool room = info.argsz >= least + sizeof(info.cap_offset);

		info.argsz = (uint32_t)(sizeof(info) + size);
		return pl_copy_out(arg, &info, room ? least + sizeof(info.cap_offset) : least);
	}
	info.cap_offset = sizeof(info);
	result = pl_copy_out((char *)arg + sizeof(info), &caps, size);
	return result < 0 ? result : pl_copy_out(arg, &info, sizeof(info));
}

/* ---- mappings ---- */

static int map_dma(struct container *container, void *arg)
{
	struct vfio_iommu_type1_dma_map in;
	struct pl_map map = {.fixed = true, .fd = -1};
	int result = pl_copy_argsz(&in, sizeof(in), arg);

	if (result < 0)
		return result;
	if ((in.flags & ~(uint32_t)(VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)) ||
	    !in.flags || (in.vaddr | in.iova | in.size) % PL_PAGE || !in.size ||
	    in.iova + in.size - 1 < in.iova || in.vaddr + in.size - 1 < in.vaddr || !in.vaddr)
		return -EINVAL;
	if (pl_ioas_count(&container->ioas) >= MAX_MAPPINGS)
		return -ENOSPC;
	map.iova = in.iova;
	map.size = in.size;
	map.vaddr = pl_user(in.vaddr);
	map.flags = (in.flags & VFIO_DMA_MAP_FLAG_READ ? QSC_DMA_READ : 0) |
		    (in.flags & VFIO_DMA_MAP_FLAG_WRITE ? QSC_DMA_WRITE : 0);
	return pl_ioas_map(&container->ioas, &map);
}

/* Every mapped page of the range, as if written. */
static int all_mapped(void *ctx, uint64_t iova, uint64_t size, uint64_t page_size, uint64_t *bitmap)
{
	pl_ioas_mark(ctx, iova, size, page_size, bitmap, false);
	return 0;
}

static int report_bitmap(struct container *container, uint64_t iova, uint64_t size,
			 const struct vfio_bitmap *bitmap)
{
	uint64_t pages = size / PL_PAGE;

	if (bitmap->pgsize != PL_PAGE || iova % PL_PAGE || !pages || size % PL_PAGE ||
	    iova + size - 1 < iova || bitmap->size > MAX_BITMAP_SIZE ||
	    bitmap->size < (pages + 63) / 64 * 8)
		return -EINVAL;
	if (!pl_ioas_on_edges(&container->ioas, iova, iova + size - 1))
		return -EINVAL;
	return pl_bitmap_report(all_mapped, &container->ioas, iova, size, PL_PAGE, bitmap->data);
}

static int unmap_with_bitmap(struct container *container,
			     const struct vfio_iommu_type1_dma_unmap *unmap, const char *arg)
{
	struct vfio_bitmap bitmap;
	int result;

	if (container->type != VFIO_TYPE1v2_IOMMU)
		return -EACCES;
	if (unmap->argsz < sizeof(*unmap) + sizeof(bitmap))
		return -EINVAL;
	result = pl_copy_in(&bitmap, arg + sizeof(*unmap), sizeof(bitmap));
	return result < 0 ? result : report_bitmap(container, unmap->iova, unmap->size, &bitmap);
}

static int unmap_dma(struct container *container, void *arg)
{
	const uint32_t known = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP | VFIO_DMA_UNMAP_FLAG_ALL;
	struct vfio_iommu_type1_dma_unmap in;
	uint64_t unmapped;
	uint64_t last;
	int result = pl_copy_argsz(&in, sizeof(in), arg);

	if (result < 0)
		return result;
	if ((in.flags & ~known) || in.flags == known)
		return -EINVAL;
	if (in.flags & VFIO_DMA_UNMAP_FLAG_ALL) {
		if (in.iova || in.size)
			return -EINVAL;
		last = UINT64_MAX;
	} else {
		last = in.iova + in.size - 1;
		if (!in.size || (in.iova | in.size) % PL_PAGE || last < in.iova)
			return -EINVAL;
	}
	if (in.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP)
		result = unmap_with_bitmap(container, &in, arg);
	if (result < 0)
		return result;
	if (container->type == VFIO_TYPE1v2_IOMMU) {
		if (!pl_ioas_on_edges(&container->ioas, in.iova, last))
			return -EINVAL;
		result = pl_ioas_unmap(&container->ioas, in.iova, last, &unmapped);
		if (result < 0 && result != -ENOENT)
			return result;
	} else {
		pl_ioas_unmap_v1(&container->ioas, in.iova, last, &unmapped);
	}
	in.size = unmapped;
	return pl_copy_out(arg, &in, sizeof(in));
}

static int dirty_pages(struct container *container, void *arg)
{
	struct vfio_iommu_type1_dirty_bitmap_get get;
	struct vfio_iommu_type1_dirty_bitmap in;
	int result = pl_copy_argsz(&in, sizeof(in), arg);

	if (container->type != VFIO_TYPE1v2_IOMMU)
		return -EACCES;
	if (result < 0)
		return result;
	switch (in.flags) {
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_START:
		container->tracking = true;
		return 0;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP:
		container->tracking = false;
		return 0;
	case VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP:
		if (in.argsz < sizeof(in) + sizeof(get))
			return -EINVAL;
		result = pl_copy_in(&get, (char *)arg + sizeof(in), sizeof(get));
		if (result < 0)
			return result;
		return container->tracking
			       ? report_bitmap(container, get.iova, get.size, &get.bitmap)
			       : -EINVAL;
	default:
		return -EINVAL;
	}
}

static int type1_ioctl(struct container *container, unsigned long command, void *arg)
{
	switch (command) {
	case VFIO_IOMMU_GET_INFO:
		return get_info(container, arg);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(container, arg);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(container, arg);
	case VFIO_IOMMU_DIRTY_PAGES:
		return dirty_pages(container, arg);
	default:
		return -ENOTTY;
	}
}

static int container_ioctl(struct pl_file *file, unsigned long command, void *arg)
{
	struct container *container = container_of(file);
	int result = -EINVAL;

	pthread_mutex_lock(&container->lock);
	switch (command) {
	case VFIO_GET_API_VERSION:
		result = VFIO_API_VERSION;
		break;
	case VFIO_CHECK_EXTENSION:
		result = check_extension(container, (unsigned long)arg);
		break;
	case VFIO_SET_IOMMU:
		result = set_iommu(container, (unsigned long)arg);
		break;
	default:
		if (container->type)
			result = type1_ioctl(container, command, arg);
		break;
	}
	pthread_mutex_unlock(&container->lock);
	return result;
}

static void container_release(struct pl_file *file)
{
	struct container *container = container_of(file);

	pl_ioas_release(&container->ioas);
	pthread_mutex_destroy(&container->lock);
	free(container);
}

static const struct pl_file_ops container_ops = {
	.name = "container",
	.ioctl = container_ioctl,
	.release = container_release,
};

struct pl_file *pl_container_new(void)
{
	struct container *container = calloc(1, sizeof(*container));

	if (!container)
		return NULL;
	if (pl_ioas_init(&container->ioas) < 0) {
		free(container);
		return NULL;
	}
	container->ioas.pins = true;
	pthread_mutex_init(&container->lock, NULL);
	container->file.ops = &container_ops;
	return &container->file;
}

bool pl_is_container(const struct pl_file *file)
{
	return file->ops == &container_ops;
}

void pl_container_join(struct pl_file *file)
{
	struct container *container = container_of(file);

	pthread_mutex_lock(&container->lock);
	container->groups++;
	pthread_mutex_unlock(&container->lock);
}

void pl_container_leave(struct pl_file *file)
{
	struct container *container = container_of(file);
	uint64_t unmapped;

	pthread_mutex_lock(&container->lock);
	if (!--container->groups) {
		(void)pl_ioas_unmap(&container->ioas, 0, UINT64_MAX, &unmapped);
		container->type = 0;
		container->tracking = false;
	}
	pthread_mutex_unlock(&container->lock);
}

bool pl_container_ready(struct pl_file *file)
{
	struct container *container = container_of(file);
	bool ready;

	pthread_mutex_lock(&container->lock);
	ready = container->type != 0;
	pthread_mutex_unlock(&container->lock);
	return ready;
}

int pl_container_attach(struct pl_file *file, struct pl_dev *dev)
{
	return pl_ioas_attach(&container_of(file)->ioas, dev);
}

void pl_container_detach(struct pl_file *file, struct pl_dev *dev)
{
	pl_ioas_detach(&container_of(file)->ioas, dev);
}
