/* SPDX-License-Identifier: MIT */
/*
 * The calls of <quiesce/device.h>: arguments that are wrong for any device are refused here, and an
 * operation that an implementer does not have answers -ENOTTY, so that no implementer repeats it.
 */
#include <errno.h>
#include <limits.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quiesce/device.h>

#include "base/cleanup.h"

/* Neither a file offset nor a byte count that a result could not express. */
static bool span_valid(uint64_t offset, uint64_t size)
{
	return size <= SSIZE_MAX && offset <= INT64_MAX - size;
}

/* Not empty, and the address after its last byte can be said. */
static bool iova_range_valid(uint64_t iova, uint64_t size)
{
	return size && iova <= UINT64_MAX - size;
}

static bool page_size_valid(uint64_t page_size)
{
	return page_size >= QSC_PAGE_SIZE && qsc_is_power_of_two(page_size);
}

const char *qsc_device_kind(const struct qsc_device *dev)
{
	return dev->ops->kind;
}

int qsc_device_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	memset(info, 0, sizeof(*info));
	return dev->ops->get_info ? dev->ops->get_info(dev, info) : -ENOTTY;
}

int qsc_device_get_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info)
{
	memset(info, 0, sizeof(*info));
	return dev->ops->get_region_info ? dev->ops->get_region_info(dev, region, info) : -ENOTTY;
}

int qsc_device_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	memset(info, 0, sizeof(*info));
	return dev->ops->get_irq_info ? dev->ops->get_irq_info(dev, index, info) : -ENOTTY;
}

ssize_t qsc_device_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count)
{
	if (!dev->ops->region_read)
		return -ENOTTY;
	if (!span_valid(offset, count) || (count && !buf))
		return -EINVAL;
	return count ? dev->ops->region_read(dev, region, offset, buf, count) : 0;
}

ssize_t qsc_device_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count)
{
	if (!dev->ops->region_write)
		return -ENOTTY;
	if (!span_valid(offset, count) || (count && !buf))
		return -EINVAL;
	return count ? dev->ops->region_write(dev, region, offset, buf, count) : 0;
}

int qsc_device_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				  size_t count)
{
	size_t done;

	if (!dev->ops->region_write_multi && !dev->ops->region_write)
		return -ENOTTY;
	if (count > INT_MAX || (count && !writes))
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		if (!writes[i].count || writes[i].count > sizeof(writes[i].data) ||
		    !span_valid(writes[i].offset, writes[i].count))
			return -EINVAL;
	if (!count)
		return 0;
	if (dev->ops->region_write_multi)
		return dev->ops->region_write_multi(dev, writes, count);
	for (done = 0; done < count; done++) {
		const struct qsc_region_write *write = &writes[done];
		ssize_t n = dev->ops->region_write(dev, write->region, write->offset, write->data,
						   write->count);

		if (n == (ssize_t)write->count)
			continue;
		if (!done)
			return n < 0 ? (int)n : -EIO;
		break;
	}
	return (int)done;
}

int qsc_device_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr)
{
	*addr = NULL;
	return qsc_device_region_map_at(dev, region, offset, size, prot, addr);
}

int qsc_device_region_map_at(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			     int prot, void **addr)
{
	uintptr_t wanted = (uintptr_t)*addr;
	int result;

	if (!dev->ops->region_map)
		result = -ENOTTY;
	else if (!size || size % QSC_PAGE_SIZE || offset % QSC_PAGE_SIZE ||
		 !span_valid(offset, size) || !prot || (prot & ~(PROT_READ | PROT_WRITE)) ||
		 wanted % QSC_PAGE_SIZE || wanted > UINTPTR_MAX - size)
		result = -EINVAL;
	else
		result = dev->ops->region_map(dev, region, offset, size, prot, addr);
	if (result < 0)
		*addr = NULL;
	return result;
}

int qsc_device_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	if (!dev->ops->region_unmap)
		return -ENOTTY;
	if (!addr || !size)
		return -EINVAL;
	return dev->ops->region_unmap(dev, addr, size);
}

static int change(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	if (!dev->ops->region_change)
		return -ENOTTY;
	if (!size || size % QSC_PAGE_SIZE || (uintptr_t)addr % QSC_PAGE_SIZE ||
	    (uintptr_t)addr > UINTPTR_MAX - size)
		return -EINVAL;
	return dev->ops->region_change(dev, addr, size, prot);
}

int qsc_device_region_protect(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	return prot & ~(PROT_READ | PROT_WRITE) ? -EINVAL : change(dev, addr, size, prot);
}

int qsc_device_region_withdraw(struct qsc_device *dev, void *addr, size_t size)
{
	return change(dev, addr, size, QSC_PROT_WITHDRAWN);
}

int qsc_device_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	*fd = -1;
	*fd_offset = 0;
	return dev->ops->region_fd ? dev->ops->region_fd(dev, region, fd, fd_offset) : -ENOTTY;
}

int qsc_device_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			     size_t max)
{
	if (!dev->ops->region_io_fds)
		return -ENOTTY;
	if (max && !fds)
		return -EINVAL;
	return dev->ops->region_io_fds(dev, region, fds, max);
}

int qsc_device_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	uint32_t data = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;

	if (!dev->ops->set_irqs)
		return -ENOTTY;
	if (!qsc_is_power_of_two(data) || !qsc_is_power_of_two(action) ||
	    (set->flags & ~(data | action)) || set->count > UINT32_MAX - set->start)
		return -EINVAL;
	if (data == VFIO_IRQ_SET_DATA_BOOL && !set->bools)
		return -EINVAL;
	if (data == VFIO_IRQ_SET_DATA_EVENTFD && !set->fds)
		return -EINVAL;
	/* No vectors at all means something only as "tear the index down". */
	if (!set->count &&
	    (data != VFIO_IRQ_SET_DATA_NONE || action != VFIO_IRQ_SET_ACTION_TRIGGER))
		return -EINVAL;
	return dev->ops->set_irqs(dev, set);
}

int qsc_device_set_eventfds(struct qsc_device *dev, uint32_t index, const int *fds, uint32_t count)
{
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
	};

	if (fds) {
		set.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
		set.count = count;
		set.fds = fds;
	}
	return qsc_device_set_irqs(dev, &set);
}

/* Somewhere the memory can be found, for every direction that is asked for. */
static bool source_valid(const struct qsc_dma_mapping *mapping)
{
	const struct qsc_dma_access *access = mapping->access;

	if (mapping->vaddr && !iova_range_valid((uintptr_t)mapping->vaddr, mapping->size))
		return false;
	if (mapping->fd >= 0 && !span_valid(mapping->fd_offset, mapping->size))
		return false;
	if (access && (((mapping->flags & QSC_DMA_READ) && !access->read) ||
		       ((mapping->flags & QSC_DMA_WRITE) && !access->write)))
		return false;
	return mapping->vaddr || mapping->fd >= 0 || access;
}

int qsc_device_irq_counts(struct qsc_device *dev, struct qsc_irq_counts *counts)
{
	return dev->ops->irq_counts ? dev->ops->irq_counts(dev, counts) : -ENOTTY;
}

int qsc_device_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	if (!dev->ops->dma_map)
		return -ENOTTY;
	if (mapping->iova % QSC_PAGE_SIZE || mapping->size % QSC_PAGE_SIZE ||
	    !iova_range_valid(mapping->iova, mapping->size))
		return -EINVAL;
	if (!(mapping->flags & (QSC_DMA_READ | QSC_DMA_WRITE)) ||
	    (mapping->flags & ~(QSC_DMA_READ | QSC_DMA_WRITE | QSC_DMA_PEER)))
		return -EINVAL;
	if (!source_valid(mapping))
		return -EINVAL;
	return dev->ops->dma_map(dev, mapping);
}

int qsc_device_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	if (!dev->ops->dma_unmap)
		return -ENOTTY;
	/* No mapping can have been made there. */
	if (iova % QSC_PAGE_SIZE || size % QSC_PAGE_SIZE || !iova_range_valid(iova, size))
		return -ENOENT;
	return dev->ops->dma_unmap(dev, iova, size);
}

int qsc_device_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	memset(info, 0, sizeof(*info));
	return dev->ops->get_migration ? dev->ops->get_migration(dev, info) : -ENOTTY;
}

int qsc_device_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	return dev->ops->get_state ? dev->ops->get_state(dev, state) : -ENOTTY;
}

int qsc_device_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int result;

	*session = 0;
	if (!dev->ops->set_state)
		return -ENOTTY;
	result = dev->ops->set_state(dev, target, session);
	if (result < 0)
		*session = 0;
	return result;
}

int qsc_device_set_state_begin(struct qsc_device *dev, uint32_t target)
{
	if (!dev->ops->set_state_begin || !dev->ops->set_state_end)
		return -EOPNOTSUPP;
	return dev->ops->set_state_begin(dev, target);
}

int qsc_device_set_state_end(struct qsc_device *dev, uint64_t *session)
{
	int result;

	*session = 0;
	if (!dev->ops->set_state_end)
		return -EOPNOTSUPP;
	result = dev->ops->set_state_end(dev, session);
	if (result < 0)
		*session = 0;
	return result;
}

int qsc_device_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	*size_bytes = 0;
	return dev->ops->data_size ? dev->ops->data_size(dev, size_bytes) : -ENOTTY;
}

static int compare_ranges(const void *left, const void *right)
{
	uint64_t a = ((const struct qsc_dma_range *)left)->iova;
	uint64_t b = ((const struct qsc_dma_range *)right)->iova;

	return (a > b) - (a < b);
}

static bool apart_in_order(const struct qsc_dma_range *ranges, size_t count)
{
	for (size_t i = 1; i < count; i++)
		if (ranges[i].iova < ranges[i - 1].iova + ranges[i - 1].size)
			return false;
	return true;
}

/* LOG-3. A peer chooses how many there are, so they are sorted rather than compared in pairs. */
static int check_ranges(const struct qsc_dma_range *ranges, size_t count)
{
	qsc_autofree struct qsc_dma_range *sorted = NULL;

	if (!count || !ranges)
		return -EINVAL;
	for (size_t i = 0; i < count; i++)
		if (!iova_range_valid(ranges[i].iova, ranges[i].size))
			return -EINVAL;
	if (apart_in_order(ranges, count))
		return 0;
	sorted = calloc(count, sizeof(*sorted));
	if (!sorted)
		return -ENOMEM;
	memcpy(sorted, ranges, count * sizeof(*sorted));
	qsort(sorted, count, sizeof(*sorted), compare_ranges);
	return apart_in_order(sorted, count) ? 0 : -EINVAL;
}

int qsc_device_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges)
{
	int result;

	if (!dev->ops->log_start)
		return -ENOTTY;
	if (!page_size_valid(*page_size))
		return -EINVAL;
	result = check_ranges(ranges, num_ranges);
	return result < 0 ? result : dev->ops->log_start(dev, page_size, ranges, num_ranges);
}

int qsc_device_log_stop(struct qsc_device *dev)
{
	return dev->ops->log_stop ? dev->ops->log_stop(dev) : -ENOTTY;
}

int qsc_device_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap)
{
	if (!dev->ops->log_report)
		return -ENOTTY;
	if (!page_size_valid(page_size) || iova % page_size || !iova_range_valid(iova, size) ||
	    !bitmap)
		return -EINVAL;
	return dev->ops->log_report(dev, iova, size, page_size, bitmap);
}

ssize_t qsc_device_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	if (!dev->ops->session_read)
		return -ENOTTY;
	/* No room could not be told from the end of the stream. */
	if (!size || size > SSIZE_MAX || !buf)
		return -EINVAL;
	return session ? dev->ops->session_read(dev, session, buf, size) : -ENODEV;
}

ssize_t qsc_device_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
				struct iovec *iov, size_t max, size_t *count)
{
	ssize_t n;

	*count = 0;
	if (!iov || !max)
		return -EINVAL;
	if (dev->ops->session_lend && size && size <= SSIZE_MAX && buf && session)
		return dev->ops->session_lend(dev, session, buf, size, iov, max, count);
	n = qsc_device_session_read(dev, session, buf, size);
	if (n > 0) {
		iov[0] = (struct iovec){.iov_base = buf, .iov_len = (size_t)n};
		*count = 1;
	}
	return n;
}

ssize_t qsc_device_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size)
{
	if (!dev->ops->session_write)
		return -ENOTTY;
	if (size > SSIZE_MAX || (size && !buf))
		return -EINVAL;
	return session ? dev->ops->session_write(dev, session, buf, size) : -ENODEV;
}

int qsc_device_session_precopy_info(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info)
{
	memset(info, 0, sizeof(*info));
	if (!dev->ops->session_precopy_info)
		return -ENOTTY;
	/* SESS-4: nothing to tell where no session saves. */
	return session ? dev->ops->session_precopy_info(dev, session, info) : -EINVAL;
}

int qsc_device_session_close(struct qsc_device *dev, uint64_t session)
{
	if (!dev->ops->session_close)
		return -ENOTTY;
	return session ? dev->ops->session_close(dev, session) : -ENODEV;
}

int qsc_device_reset(struct qsc_device *dev)
{
	return dev->ops->reset ? dev->ops->reset(dev) : -ENOTTY;
}

void qsc_device_close(struct qsc_device *dev)
{
	if (dev && dev->ops->close)
		dev->ops->close(dev);
}
