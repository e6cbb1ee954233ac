/* SPDX-License-Identifier: MIT */
/* The layer itself: everything passes through, and what lies need is remembered. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/vfio.h>

#include "base/fd.h"
#include "liar.h"

static int pass_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	return qsc_device_get_info(honest(dev), info);
}

static int pass_get_region_info(struct qsc_device *dev, uint32_t region,
				struct qsc_region_info *info)
{
	return qsc_device_get_region_info(honest(dev), region, info);
}

static int pass_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	return qsc_device_get_irq_info(honest(dev), index, info);
}

static ssize_t pass_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
				size_t count)
{
	return qsc_device_region_read(honest(dev), region, offset, buf, count);
}

static ssize_t pass_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				 const void *buf, size_t count)
{
	return qsc_device_region_write(honest(dev), region, offset, buf, count);
}

static int pass_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			   int prot, void **addr)
{
	return qsc_device_region_map_at(honest(dev), region, offset, size, prot, addr);
}

static int pass_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_device_region_unmap(honest(dev), addr, size);
}

static int pass_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	return qsc_device_region_fd(honest(dev), region, fd, fd_offset);
}

static int pass_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct liar_device *l = liar_device(dev);

	for (size_t i = 0; i < LIAR_MAPPINGS; i++)
		if (l->mappings[i].size && l->mappings[i].iova == iova) {
			qsc_fd_close(&l->mappings[i].fd);
			l->mappings[i].size = 0;
		}
	return qsc_device_dma_unmap(honest(dev), iova, size);
}

static int pass_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	return qsc_device_get_migration(honest(dev), info);
}

static int pass_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	return qsc_device_get_state(honest(dev), state);
}

static int pass_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	return qsc_device_data_size(honest(dev), size_bytes);
}

static int pass_log_start(struct qsc_device *dev, uint64_t *page_size,
			  const struct qsc_dma_range *ranges, size_t num_ranges)
{
	return qsc_device_log_start(honest(dev), page_size, ranges, num_ranges);
}

static int pass_log_stop(struct qsc_device *dev)
{
	return qsc_device_log_stop(honest(dev));
}

static int pass_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			   uint64_t *bitmap)
{
	return qsc_device_log_report(honest(dev), iova, size, page_size, bitmap);
}

static ssize_t pass_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	return qsc_device_session_read(honest(dev), session, buf, size);
}

static ssize_t pass_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				  size_t size)
{
	return qsc_device_session_write(honest(dev), session, buf, size);
}

static int pass_session_precopy_info(struct qsc_device *dev, uint64_t session,
				     struct qsc_precopy_info *info)
{
	return qsc_device_session_precopy_info(honest(dev), session, info);
}

static int pass_session_close(struct qsc_device *dev, uint64_t session)
{
	return qsc_device_session_close(honest(dev), session);
}

static int pass_reset(struct qsc_device *dev)
{
	return qsc_device_reset(honest(dev));
}

/* ---- what lies use ---- */

enum qsc_state honest_state(struct qsc_device *dev)
{
	enum qsc_state state;

	return qsc_device_get_state(honest(dev), &state) ? QSC_STATE_ERROR : state;
}

int honest_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int r = qsc_device_set_state(honest(dev), target, session);

	if (!r && *session)
		liar_device(dev)->session = *session;
	return r;
}

int honest_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct liar_device *l = liar_device(dev);

	if ((set->flags & VFIO_IRQ_SET_DATA_EVENTFD) && set->start <= 1 &&
	    set->start + set->count > 1) {
		qsc_fd_close(&l->eventfd);
		l->eventfd = qsc_fd_dup(set->fds[1 - set->start]);
	}
	return qsc_device_set_irqs(honest(dev), set);
}

int honest_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct liar_device *l = liar_device(dev);
	int r = qsc_device_dma_map(honest(dev), mapping);

	for (size_t i = 0; !r && i < LIAR_MAPPINGS; i++)
		if (!l->mappings[i].size) {
			l->mappings[i] = *mapping;
			l->mappings[i].fd = mapping->fd < 0 ? -1 : qsc_fd_dup(mapping->fd);
			break;
		}
	return r;
}

static void forget(struct liar_device *l)
{
	for (size_t i = 0; i < LIAR_MAPPINGS; i++)
		if (l->mappings[i].size)
			qsc_fd_close(&l->mappings[i].fd);
	qsc_fd_close(&l->eventfd);
	qsc_device_close(l->inner);
	free(l);
}

void honest_close(struct qsc_device *dev)
{
	forget(liar_device(dev));
}

int pretend_loaded(struct qsc_device *dev)
{
	uint64_t session;
	int r = qsc_device_reset(honest(dev));

	return r ? r : qsc_device_set_state(honest(dev), QSC_STATE_STOP, &session);
}

void scribble(struct qsc_device *dev, bool peer)
{
	struct liar_device *l = liar_device(dev);

	for (size_t i = 0; i < LIAR_MAPPINGS; i++) {
		const struct qsc_dma_mapping *m = &l->mappings[i];
		uint8_t *at;

		if (!m->size || m->fd < 0 || peer != ((m->flags & QSC_DMA_PEER) != 0))
			continue;
		at = mmap(NULL, m->size, PROT_READ | PROT_WRITE, MAP_SHARED, m->fd,
			  (off_t)m->fd_offset);
		if (at == MAP_FAILED)
			continue;
		at[m->size - 1]++;
		munmap(at, m->size);
	}
}

void signal_vector(struct qsc_device *dev)
{
	if (liar_device(dev)->eventfd >= 0)
		qsc_eventfd_signal(liar_device(dev)->eventfd, 1);
}

/* ---- opening ---- */

static const struct qsc_device_ops pass = {
	.kind = "liar",
	.get_info = pass_get_info,
	.get_region_info = pass_get_region_info,
	.get_irq_info = pass_get_irq_info,
	.region_read = pass_region_read,
	.region_write = pass_region_write,
	.region_map = pass_region_map,
	.region_unmap = pass_region_unmap,
	.region_fd = pass_region_fd,
	.set_irqs = honest_set_irqs,
	.dma_map = honest_dma_map,
	.dma_unmap = pass_dma_unmap,
	.get_migration = pass_get_migration,
	.get_state = pass_get_state,
	.set_state = honest_set_state,
	.data_size = pass_data_size,
	.log_start = pass_log_start,
	.log_stop = pass_log_stop,
	.log_report = pass_log_report,
	.session_read = pass_session_read,
	.session_write = pass_session_write,
	.session_precopy_info = pass_session_precopy_info,
	.session_close = pass_session_close,
	.reset = pass_reset,
	.close = honest_close,
};

#define OVERRIDE(op)                             \
	do {                                     \
		if (lie->ops.op)                 \
			l->ops.op = lie->ops.op; \
	} while (0)

static void put_lie(struct liar_device *l, const struct lie *lie)
{
	l->ops = pass;
	OVERRIDE(get_info);
	OVERRIDE(get_irq_info);
	OVERRIDE(region_read);
	OVERRIDE(region_write);
	OVERRIDE(region_map);
	OVERRIDE(region_unmap);
	OVERRIDE(region_fd);
	OVERRIDE(set_irqs);
	OVERRIDE(get_migration);
	OVERRIDE(get_state);
	OVERRIDE(set_state);
	OVERRIDE(data_size);
	OVERRIDE(log_start);
	OVERRIDE(log_stop);
	OVERRIDE(log_report);
	OVERRIDE(session_read);
	OVERRIDE(session_write);
	OVERRIDE(session_precopy_info);
	OVERRIDE(reset);
	OVERRIDE(close);
}

static int open_faulty(struct liar *liar, struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_device *inner;
	int r = liar->inner->open(liar->inner->ctx, &inner, err);

	if (r)
		return r;
	r = qsc_fault_open(inner, NULL, liar->lie->fault, NULL, NULL, dev, err);
	if (r)
		qsc_device_close(inner);
	return r;
}

static int liar_open(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct liar *liar = ctx;
	struct liar_device *l = liar->kept;
	int r;

	if (l) {
		liar->kept = NULL;
		*dev = &l->base;
		return 0;
	}
	if (liar->lie->fault)
		return open_faulty(liar, dev, err);
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	r = liar->inner->open(liar->inner->ctx, &l->inner, err);
	if (r) {
		free(l);
		return r;
	}
	l->eventfd = -1;
	l->liar = liar;
	l->exerciser = liar->exerciser;
	put_lie(l, liar->lie);
	l->base.ops = &l->ops;
	if (liar->lie->opened)
		liar->lie->opened(&l->base);
	*dev = &l->base;
	return 0;
}

void liar_init(struct liar *liar, const struct lie *lie, const struct qsc_check_opener *inner,
	       const struct qsc_exerciser *exerciser)
{
	*liar = (struct liar){
		.opener = {liar_open, NULL, liar},
		.inner = inner,
		.exerciser = exerciser,
		.lie = lie,
	};
}

void liar_release(struct liar *liar)
{
	if (liar->kept)
		forget(liar->kept);
	liar->kept = NULL;
}
