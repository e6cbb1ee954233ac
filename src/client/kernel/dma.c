/* SPDX-License-Identifier: MIT */
/*
 * DMA mappings: one call to the kernel for each, whole, so that it can use the largest pages that
 * the memory has. A file is mapped into this process where its address and the device's agree in
 * their low bits, or no page above 4 KiB would fit both.
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

#define OWNED 0x80000000U /* in the flags of an entry: the memory is a mapping of ours */

#define LARGE_PAGE (2UL << 20)
#define GIANT_PAGE (1UL << 30)

/* ---- the kernel ---- */

static int map_range(struct qsc_kernel *kernel, const struct qsc_dma_mapping *mapping)
{
	bool r = mapping->flags & QSC_DMA_READ;
	bool w = mapping->flags & QSC_DMA_WRITE;
	uint64_t vaddr = (uint64_t)(uintptr_t)mapping->vaddr;

	if (kernel->files.iommufd >= 0) {
		struct qsc_uapi_ioas_map map = {
			.size = sizeof(map),
			.flags = QSC_UAPI_MAP_FIXED_IOVA | (r ? QSC_UAPI_MAP_READABLE : 0) |
				 (w ? QSC_UAPI_MAP_WRITEABLE : 0),
			.ioas_id = kernel->files.ioas,
			.user_va = vaddr,
			.length = mapping->size,
			.iova = mapping->iova,
		};

		return qsc_kernel_ioctl(kernel->files.iommufd, QSC_UAPI_IOAS_MAP, &map);
	}
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (r ? VFIO_DMA_MAP_FLAG_READ : 0U) | (w ? VFIO_DMA_MAP_FLAG_WRITE : 0U),
		.vaddr = vaddr,
		.iova = mapping->iova,
		.size = mapping->size,
	};

	return qsc_kernel_ioctl(kernel->files.container, VFIO_IOMMU_MAP_DMA, &map);
}

static int unmap_range(struct qsc_kernel *kernel, uint64_t iova, uint64_t size)
{
	struct qsc_uapi_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = kernel->files.ioas,
		.iova = iova,
		.length = size,
	};
	struct vfio_iommu_type1_dma_unmap legacy = {
		.argsz = sizeof(legacy),
		.iova = iova,
		.size = size,
	};

	return kernel->files.iommufd >= 0
		       ? qsc_kernel_ioctl(kernel->files.iommufd, QSC_UAPI_IOAS_UNMAP, &unmap)
		       : qsc_kernel_ioctl(kernel->files.container, VFIO_IOMMU_UNMAP_DMA, &legacy);
}

/* ---- memory that came as a file ---- */

/* An address for `size` bytes that agrees with iova in the bits below the largest useful page. */
static void *place_for(uint64_t iova, size_t size, size_t *reserved, void **reservation)
{
	size_t page = size >= GIANT_PAGE ? GIANT_PAGE : LARGE_PAGE;
	uintptr_t start;

	*reserved = size + page;
	*reservation = mmap(NULL, *reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);
	if (*reservation == MAP_FAILED)
		return NULL;
	start = (uintptr_t)*reservation;
	return (void *)(start + (((uintptr_t)iova - start) & (page - 1)));
}

static void unmap_between(char *from, char *to)
{
	if (to > from)
		munmap(from, (size_t)(to - from));
}

static void *map_file(const struct qsc_dma_mapping *mapping)
{
	size_t size = (size_t)mapping->size;
	int prot = (mapping->flags & QSC_DMA_READ ? PROT_READ : 0) |
		   (mapping->flags & QSC_DMA_WRITE ? PROT_READ | PROT_WRITE : 0);
	off_t offset = (off_t)mapping->fd_offset;
	size_t reserved;
	void *reservation;
	void *wanted;
	void *got = MAP_FAILED;

	if (size >= LARGE_PAGE && size <= SIZE_MAX / 2) {
		wanted = place_for(mapping->iova, size, &reserved, &reservation);
		if (wanted) {
			got = mmap(wanted, size, prot, MAP_SHARED | MAP_FIXED, mapping->fd, offset);
			if (got == MAP_FAILED) {
				munmap(reservation, reserved);
			} else {
				unmap_between(reservation, got);
				unmap_between((char *)got + size, (char *)reservation + reserved);
			}
		}
	}
	/* Also where the file's own pages are larger than what the addresses have in common. */
	if (got == MAP_FAILED)
		got = mmap(NULL, size, prot, MAP_SHARED, mapping->fd, offset);
	return got == MAP_FAILED ? NULL : got;
}

/* ---- the interface ---- */

static void forget(struct qsc_kernel *kernel, struct qsc_dma_mapping *entry)
{
	if (entry->flags & OWNED)
		munmap(entry->vaddr, (size_t)entry->size);
	qsc_dma_table_remove(&kernel->table, entry);
}

static void explain(struct qsc_kernel *kernel, const struct qsc_dma_mapping *mapping, int result)
{
	if (result == -ENOMEM)
		qsc_log(QSC_LOG_WARNING,
			"%s: %llu bytes at %#llx cannot be pinned for DMA; raise the limit of "
			"locked memory (ulimit -l, LimitMEMLOCK=) above what the device reaches",
			kernel->name, (unsigned long long)mapping->size,
			(unsigned long long)mapping->iova);
	else if (result == -ENOSPC)
		qsc_log(QSC_LOG_WARNING,
			"%s: the kernel takes no more than %zu mappings; map larger pieces, or "
			"raise dma_entry_limit of vfio_iommu_type1",
			kernel->name, kernel->table.count - 1);
	else if (result == -EFAULT && (mapping->flags & QSC_DMA_PEER))
		qsc_log(QSC_LOG_WARNING,
			"%s: this way to the kernel maps no memory of another device; use "
			",via=legacy where devices reach one another",
			kernel->name);
}

static int refuse_stopped(struct qsc_kernel *kernel, const struct qsc_dma_mapping *mapping)
{
	qsc_log(QSC_LOG_WARNING,
		"%s: the memory for %#llx is a region of a device that is stopped, where pages of "
		"0xff stand for it (DEV-7); map it while that device runs",
		kernel->name, (unsigned long long)mapping->iova);
	return -EBUSY;
}

/* DMA lock held; on success the table has the mapping and the kernel too. */
static int map_locked(struct qsc_kernel *kernel, const struct qsc_dma_mapping *mapping)
{
	struct qsc_dma_mapping entry = *mapping;
	int result;

	/* The kernel would pin what stands there, and keep it when the region is back. */
	if (mapping->vaddr && qsc_mapping_is_revoked(mapping->vaddr, (size_t)mapping->size))
		return refuse_stopped(kernel, mapping);
	entry.fd = -1;
	entry.access = NULL;
	if (!entry.vaddr) {
		entry.vaddr = map_file(mapping);
		entry.flags |= OWNED;
		if (!entry.vaddr)
			return -errno;
	}
	result = qsc_dma_table_add(&kernel->table, &entry);
	if (result < 0) {
		if (entry.flags & OWNED)
			munmap(entry.vaddr, (size_t)entry.size);
		return result;
	}
	result = map_range(kernel, &entry);
	if (result < 0) {
		explain(kernel, &entry, result);
	} else if (mapping->vaddr &&
		   qsc_mapping_is_revoked(mapping->vaddr, (size_t)mapping->size)) {
		/* Its device was stopped meanwhile: nobody knows which pages were pinned. */
		(void)unmap_range(kernel, entry.iova, entry.size);
		result = refuse_stopped(kernel, mapping);
	}
	if (result < 0)
		forget(kernel, qsc_dma_table_find(&kernel->table, entry.iova, entry.size));
	return result;
}

int qsc_kernel_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	/* A real device cannot ask anybody for memory. */
	if (!mapping->vaddr && mapping->fd < 0)
		return -ENOTSUP;
	pthread_mutex_lock(&kernel->dma_lock);
	result = map_locked(kernel, mapping);
	pthread_mutex_unlock(&kernel->dma_lock);
	return result < 0 ? result : 0;
}

int qsc_kernel_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	struct qsc_dma_mapping *entry;
	int result;

	pthread_mutex_lock(&kernel->dma_lock);
	entry = qsc_dma_table_find(&kernel->table, iova, size);
	result = entry ? qsc_kernel_log_carry(kernel, iova, size) : -ENOENT;
	if (!result)
		result = unmap_range(kernel, iova, size);
	if (result >= 0)
		forget(kernel, entry);
	pthread_mutex_unlock(&kernel->dma_lock);
	return result < 0 ? result : 0;
}

void qsc_kernel_release_table(struct qsc_kernel *kernel)
{
	while (kernel->table.count)
		forget(kernel, &kernel->table.entries[kernel->table.count - 1]);
	qsc_dma_table_release(&kernel->table);
	free(kernel->logged);
	free(kernel->carried);
}
