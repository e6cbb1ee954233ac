/* SPDX-License-Identifier: MIT */
/*
 * A device's view of its DMA mappings. Each goes to the kernel whole (space.c), so that it can use
 * the largest pages that the memory has.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

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
			kernel->name, kernel->files.space->num_ranges);
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
	struct qsc_kernel_space *space = kernel->files.space;
	int result;

	/* The kernel would pin what stands there, and keep it when the region is back. */
	if (mapping->vaddr && qsc_mapping_is_revoked(mapping->vaddr, (size_t)mapping->size))
		return refuse_stopped(kernel, mapping);
	result = qsc_dma_table_add(&kernel->table, mapping);
	if (result < 0)
		return result;
	result = qsc_kernel_space_map(space, kernel->files.member, mapping);
	if (result < 0) {
		explain(kernel, mapping, result);
	} else if (mapping->vaddr &&
		   qsc_mapping_is_revoked(mapping->vaddr, (size_t)mapping->size)) {
		/* Its device was stopped meanwhile: nobody knows which pages were pinned. */
		(void)qsc_kernel_space_unmap(space, mapping->iova, mapping->size);
		result = refuse_stopped(kernel, mapping);
	}
	if (result < 0)
		qsc_dma_table_remove(
			&kernel->table,
			qsc_dma_table_find(&kernel->table, mapping->iova, mapping->size));
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
	return result;
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
		result = qsc_kernel_space_unmap(kernel->files.space, iova, size);
	if (!result)
		qsc_dma_table_remove(&kernel->table, entry);
	pthread_mutex_unlock(&kernel->dma_lock);
	return result;
}
