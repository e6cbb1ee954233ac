/* SPDX-License-Identifier: MIT */
/* See fake.h. */
#include "fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/fd.h"

static struct fake *fake_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct fake, dev);
}

/* Lock held. Count the call, and take the failure that was ordered for it. */
static int enter(struct fake *fake, enum fake_op op)
{
	int fail = fake->fail[op];

	fake->calls[op]++;
	fake->fail[op] = 0;
	return fail;
}

static int get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	info->flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info->num_regions = FAKE_REGIONS;
	info->num_irqs = FAKE_IRQS;
	info->layout = (struct qsc_layout){
		.type = "fake",
		.num_parts = 2,
		.parts = {{"registers", QSC_LAYOUT_SECTION, 3, 2, sizeof(fake_of(dev)->registers)},
			  {"memory", QSC_LAYOUT_BLOCK, 0, 0, FAKE_MEMORY_SIZE}},
	};
	return 0;
}

static int get_region_info(struct qsc_device *dev, uint32_t region, struct qsc_region_info *info)
{
	if (region >= FAKE_REGIONS)
		return -EINVAL;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	if (region == FAKE_REGISTERS)
		info->size = sizeof(fake_of(dev)->registers);
	else if (region == FAKE_CONFIG)
		info->size = sizeof(fake_of(dev)->config);
	else if (region == FAKE_BIG)
		info->size = FAKE_BIG_SIZE;
	else
		info->flags = 0;
	if (region != FAKE_MEMORY)
		return 0;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
		      VFIO_REGION_INFO_FLAG_MMAP;
	info->size = FAKE_MEMORY_SIZE;
	info->num_areas = 2;
	info->areas[0] = (struct qsc_mmap_area){0, 8192};
	info->areas[1] = (struct qsc_mmap_area){16384, FAKE_MEMORY_SIZE - 16384};
	info->stopped_known = true;
	info->stopped = QSC_VERDICT_DISCARD;
	return 0;
}

static int get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	if (index >= FAKE_IRQS)
		return -EINVAL;
	info->flags = VFIO_IRQ_INFO_EVENTFD;
	info->count = index == FAKE_MSIX ? FAKE_VECTORS : 0;
	return 0;
}

static uint8_t *locate(struct fake *fake, uint32_t region, uint64_t offset, size_t count)
{
	struct qsc_region_info info = {.size = 0};
	uint8_t *bases[FAKE_REGIONS] = {
		[FAKE_REGISTERS] = fake->registers,
		[FAKE_BIG] = fake->big,
		[FAKE_MEMORY] = fake->memory,
		[FAKE_CONFIG] = fake->config,
	};

	if (get_region_info(&fake->dev, region, &info) < 0 ||
	    !qsc_range_within(offset, count, info.size))
		return NULL;
	return bases[region] + offset;
}

static ssize_t region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			   size_t count)
{
	struct fake *fake = fake_of(dev);
	uint8_t *from = locate(fake, region, offset, count);
	int result;

	if (!from)
		return -EINVAL;
	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_REGION_READ);
	if (!result)
		memcpy(buf, from, count);
	pthread_mutex_unlock(&fake->lock);
	return result < 0 ? result : (ssize_t)count;
}

static ssize_t region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
			    const void *buf, size_t count)
{
	struct fake *fake = fake_of(dev);
	uint8_t *to = locate(fake, region, offset, count);
	uint64_t iova;
	int result;

	if (!to)
		return -EINVAL;
	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_REGION_WRITE);
	if (!result)
		memcpy(to, buf, count);
	pthread_cond_broadcast(&fake->changed);
	pthread_mutex_unlock(&fake->lock);
	if (result < 0)
		return result;
	if (region == FAKE_REGISTERS && offset == FAKE_KICK && count == sizeof(iova)) {
		memcpy(&iova, buf, sizeof(iova));
		fake->dma_error = fake_dma(fake, iova, &fake->dma_result, sizeof(fake->dma_result),
					   false);
	}
	if (region == FAKE_REGISTERS && offset == FAKE_KICK_BULK && count == sizeof(iova)) {
		memcpy(&iova, buf, sizeof(iova));
		fake->dma_error = fake_dma(fake, iova, fake->big, FAKE_BULK, false);
	}
	return (ssize_t)count;
}

static int region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	if (region != FAKE_MEMORY)
		return -ENOTTY;
	*fd = qsc_fd_dup(fake_of(dev)->memory_fd);
	*fd_offset = 0;
	return *fd < 0 ? *fd : 0;
}

static int region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds, size_t max)
{
	struct fake *fake = fake_of(dev);

	if (region >= FAKE_REGIONS)
		return -EINVAL;
	if (region != FAKE_REGISTERS)
		return 0;
	if (max) {
		fds[0] = fake->io_fd;
		fds[0].fd = qsc_fd_dup(fake->io_fd.fd);
		if (fds[0].fd < 0)
			return fds[0].fd;
	}
	return 1;
}

static int set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct fake *fake = fake_of(dev);
	uint32_t i;
	int result;

	if (set->index != FAKE_MSIX || !qsc_range_within(set->start, set->count, FAKE_VECTORS))
		return -EINVAL;
	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_SET_IRQS);
	fake->irq_flags = set->flags;
	for (i = 0; !result && i < FAKE_VECTORS && !set->count; i++)
		qsc_fd_close(&fake->vectors[i]);
	for (i = 0; !result && i < set->count; i++) {
		int *vector = &fake->vectors[set->start + i];

		if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD) {
			qsc_fd_close(vector);
			*vector = set->fds[i] < 0 ? -1 : qsc_fd_dup(set->fds[i]);
		} else if (!(set->flags & VFIO_IRQ_SET_DATA_BOOL) || set->bools[i]) {
			fake->triggers++;
		}
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

/* The mapping that holds all of a range, or NULL. */
static struct qsc_dma_mapping *find_mapping(struct fake *fake, uint64_t iova, uint64_t size)
{
	size_t i;

	for (i = 0; i < fake->num_mappings; i++) {
		struct qsc_dma_mapping *mapping = &fake->mappings[i];

		if (iova >= mapping->iova &&
		    qsc_range_within(iova - mapping->iova, size, mapping->size))
			return mapping;
	}
	return NULL;
}

static int dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct fake *fake = fake_of(dev);
	struct qsc_dma_mapping *entry;
	int result;

	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_DMA_MAP);
	if (!result && fake->num_mappings == FAKE_MAX_MAPPINGS)
		result = -ENOSPC;
	if (!result) {
		entry = &fake->mappings[fake->num_mappings++];
		*entry = *mapping;
		if (mapping->fd >= 0)
			entry->fd = qsc_fd_dup(mapping->fd);
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

static int dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct fake *fake = fake_of(dev);
	struct qsc_dma_mapping *entry;
	int result = -ENOENT;

	pthread_mutex_lock(&fake->lock);
	entry = find_mapping(fake, iova, size);
	if (entry && entry->iova == iova && entry->size == size) {
		qsc_fd_close(&entry->fd);
		*entry = fake->mappings[--fake->num_mappings];
		result = 0;
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

int fake_dma(struct fake *fake, uint64_t iova, void *buf, size_t size, bool write)
{
	struct qsc_dma_mapping mapping = {.fd = -1};
	struct qsc_dma_mapping *entry;
	qsc_autoclose int fd = -1;
	ssize_t n;
	off_t at;

	pthread_mutex_lock(&fake->lock);
	entry = find_mapping(fake, iova, size);
	if (entry) {
		mapping = *entry;
		if (entry->fd >= 0)
			fd = qsc_fd_dup(entry->fd);
	}
	pthread_mutex_unlock(&fake->lock);
	if (!mapping.size)
		return -EFAULT;
	if (fd < 0)
		return write ? mapping.access->write(mapping.access->ctx, iova, buf, size)
			     : mapping.access->read(mapping.access->ctx, iova, buf, size);
	at = (off_t)(mapping.fd_offset + (iova - mapping.iova));
	n = write ? pwrite(fd, buf, size, at) : pread(fd, buf, size, at);
	return n == (ssize_t)size ? 0 : -EIO;
}

static int get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	info->flags = fake_get(fake_of(dev), flags);
	info->dirty_log = true;
	return info->flags ? 0 : -ENOTTY;
}

static int get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct fake *fake = fake_of(dev);

	pthread_mutex_lock(&fake->lock);
	*state = fake->state;
	pthread_mutex_unlock(&fake->lock);
	return fake_get(fake, flags) ? 0 : -ENOTTY;
}

/* Lock held. */
static void change_state(struct fake *fake, enum qsc_state target, uint64_t *session)
{
	enum qsc_state before = fake->state;

	if (before == target)
		return;
	fake->state = target;
	if (qsc_state_is_saving(before) && qsc_state_is_saving(target))
		return;
	fake->session = 0;
	if (target != QSC_STATE_RESUMING && !qsc_state_is_saving(target))
		return;
	fake->session = ++fake->last_session;
	fake->stream_at = 0;
	if (session)
		*session = fake->session;
}

static int set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct fake *fake = fake_of(dev);
	int result;

	if (!fake_get(fake, flags))
		return -ENOTTY;
	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_SET_STATE);
	if (result < 0)
		change_state(fake, fake->fail_state, NULL);
	else if (qsc_contract_next(fake->flags, fake->state, target) < 0)
		result = -EINVAL;
	else
		change_state(fake, (enum qsc_state)target, session);
	pthread_mutex_unlock(&fake->lock);
	return result;
}

static int data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	*size_bytes = FAKE_STREAM;
	return 0;
}

static ssize_t session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct fake *fake = fake_of(dev);
	size_t end = FAKE_STREAM;
	size_t i;
	ssize_t n;

	pthread_mutex_lock(&fake->lock);
	n = enter(fake, FAKE_OP_SESSION_READ);
	if (!n && (session != fake->session || !qsc_state_is_saving(fake->state)))
		n = -ENODEV;
	if (fake->state != QSC_STATE_STOP_COPY)
		end = fake->drained;
	if (!n && fake->stream_at >= end && fake->state != QSC_STATE_STOP_COPY)
		n = -ENOMSG;
	if (!n) {
		size = qsc_min_u64(size, end - fake->stream_at);
		if (fake->chunk)
			size = qsc_min_u64(size, fake->chunk);
		for (i = 0; i < size; i++)
			((uint8_t *)buf)[i] = fake_stream_byte(fake->stream_at + i);
		fake->stream_at += size;
		n = (ssize_t)size;
	}
	pthread_mutex_unlock(&fake->lock);
	return n;
}

/* In three pieces, when it may: copied, as it lies in `stream`, copied. */
static ssize_t session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
			    struct iovec *iov, size_t max, size_t *count)
{
	struct fake *fake = fake_of(dev);
	ssize_t n = session_read(dev, session, buf, size);
	uint8_t *bytes = buf;
	uint8_t *lent;
	size_t third;

	if (n <= 0)
		return n;
	third = (size_t)n / 3;
	pthread_mutex_lock(&fake->lock);
	if (fake->lends && max >= 3 && third) {
		lent = fake->stream + fake->stream_at - (size_t)n + third;
		memcpy(lent, bytes + third, third);
		memset(bytes + third, 0xee, third);
		iov[0] = (struct iovec){bytes, third};
		iov[1] = (struct iovec){lent, third};
		iov[2] = (struct iovec){bytes + 2 * third, (size_t)n - 2 * third};
		*count = 3;
	} else {
		iov[0] = (struct iovec){bytes, (size_t)n};
		*count = 1;
	}
	pthread_mutex_unlock(&fake->lock);
	return n;
}

static ssize_t session_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	struct fake *fake = fake_of(dev);
	ssize_t n;

	pthread_mutex_lock(&fake->lock);
	n = enter(fake, FAKE_OP_SESSION_WRITE);
	if (!n && (session != fake->session || fake->state != QSC_STATE_RESUMING))
		n = -ENODEV;
	if (!n && size > FAKE_STREAM - fake->stream_at)
		n = -EFBIG;
	if (!n) {
		memcpy(fake->stream + fake->stream_at, buf, size);
		fake->stream_at += size;
		n = (ssize_t)size;
	}
	pthread_mutex_unlock(&fake->lock);
	return n;
}

static int session_precopy_info(struct qsc_device *dev, uint64_t session,
				struct qsc_precopy_info *info)
{
	struct fake *fake = fake_of(dev);

	if (fake->state != QSC_STATE_PRE_COPY && fake->state != QSC_STATE_PRE_COPY_P2P)
		return -EINVAL;
	if (session != fake->session)
		return -ENODEV;
	info->initial_bytes = fake->drained - fake->stream_at;
	info->dirty_bytes = 77;
	return 0;
}

static int log_start(struct qsc_device *dev, uint64_t *page_size,
		     const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct fake *fake = fake_of(dev);

	if (fake->log_page)
		return -EEXIST;
	fake->log_page = *page_size = 4096;
	fake->log_ranges = num_ranges;
	return 0;
}

static int log_stop(struct qsc_device *dev)
{
	fake_of(dev)->log_page = 0;
	return 0;
}

static int log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap)
{
	struct fake *fake = fake_of(dev);
	uint64_t page;

	if (!fake->log_page)
		return -EINVAL;
	pthread_mutex_lock(&fake->lock);
	for (page = 0; page < FAKE_LOG_PAGES; page++) {
		uint64_t at = page * 4096;

		if (at < iova || at - iova >= size || !qsc_bitmap_test(fake->dirty, page))
			continue;
		qsc_bitmap_set(bitmap, (at - iova) / page_size);
		qsc_bitmap_clear(fake->dirty, page);
	}
	pthread_mutex_unlock(&fake->lock);
	return 0;
}

/* Lock held. */
static void forget_irqs(struct fake *fake)
{
	size_t i;

	for (i = 0; i < FAKE_VECTORS; i++)
		qsc_fd_close(&fake->vectors[i]);
}

static int reset(struct qsc_device *dev)
{
	struct fake *fake = fake_of(dev);
	int result;

	pthread_mutex_lock(&fake->lock);
	result = enter(fake, FAKE_OP_RESET);
	if (!result) {
		change_state(fake, QSC_STATE_RUNNING, NULL);
		fake->log_page = 0;
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

static void close_device(struct qsc_device *dev)
{
	struct fake *fake = fake_of(dev);

	pthread_mutex_lock(&fake->lock);
	while (fake->num_mappings)
		qsc_fd_close(&fake->mappings[--fake->num_mappings].fd);
	forget_irqs(fake);
	change_state(fake, QSC_STATE_RUNNING, NULL);
	fake->log_page = 0;
	fake->open = false;
	pthread_cond_broadcast(&fake->changed);
	pthread_mutex_unlock(&fake->lock);
}

static const struct qsc_device_ops ops = {
	.kind = "fake",
	.get_info = get_info,
	.get_region_info = get_region_info,
	.get_irq_info = get_irq_info,
	.region_read = region_read,
	.region_write = region_write,
	.region_fd = region_fd,
	.region_io_fds = region_io_fds,
	.set_irqs = set_irqs,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.get_migration = get_migration,
	.get_state = get_state,
	.set_state = set_state,
	.data_size = data_size,
	.log_start = log_start,
	.log_stop = log_stop,
	.log_report = log_report,
	.session_read = session_read,
	.session_lend = session_lend,
	.session_write = session_write,
	.session_precopy_info = session_precopy_info,
	.reset = reset,
	.close = close_device,
};

int fake_create(struct fake **out)
{
	struct fake *fake = calloc(1, sizeof(*fake));
	size_t i;

	if (!fake)
		return -ENOMEM;
	fake->dev.ops = &ops;
	fake->flags = QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY;
	fake->state = QSC_STATE_RUNNING;
	fake->drained = FAKE_STREAM / 2;
	fake->big = calloc(1, FAKE_BIG_SIZE);
	fake->stream = calloc(1, FAKE_STREAM);
	fake->memory_fd = qsc_fd_memory("fake", FAKE_MEMORY_SIZE);
	fake->memory = mmap(NULL, FAKE_MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    fake->memory_fd, 0);
	for (i = 0; i < FAKE_VECTORS; i++)
		fake->vectors[i] = -1;
	fake->io_fd = (struct qsc_io_fd){.offset = 64, .size = 4, .match = true, .value = 5};
	fake->io_fd.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	pthread_mutex_init(&fake->lock, NULL);
	pthread_cond_init(&fake->changed, NULL);
	*out = fake;
	return 0;
}

void fake_destroy(struct fake *fake)
{
	munmap(fake->memory, FAKE_MEMORY_SIZE);
	qsc_fd_close(&fake->memory_fd);
	qsc_fd_close(&fake->io_fd.fd);
	pthread_cond_destroy(&fake->changed);
	pthread_mutex_destroy(&fake->lock);
	free(fake->stream);
	free(fake->big);
	free(fake);
}

int fake_open(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct fake *fake = ctx;
	int result = 0;

	pthread_mutex_lock(&fake->lock);
	if (fake->open)
		result = qsc_error_set(err, EBUSY, NULL, "the fake is open");
	fake->open = true;
	fake->opens += !result;
	pthread_mutex_unlock(&fake->lock);
	*dev = result ? NULL : &fake->dev;
	return result;
}

void fake_raise(struct fake *fake, uint32_t vector)
{
	pthread_mutex_lock(&fake->lock);
	if (fake->vectors[vector] >= 0)
		(void)qsc_eventfd_signal(fake->vectors[vector], 1);
	pthread_mutex_unlock(&fake->lock);
}

void fake_wait_closed(struct fake *fake)
{
	pthread_mutex_lock(&fake->lock);
	while (fake->open)
		pthread_cond_wait(&fake->changed, &fake->lock);
	pthread_mutex_unlock(&fake->lock);
}
