/* SPDX-License-Identifier: MIT */
/*
 * The fault layer: fails, delays, kills or lies at the points that a specification chooses. See
 * <quiesce/device.h>, and fault_layer.h for its parts. Here are queries, regions, interrupts and
 * DMA, and the life of a layer.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "device/fault_layer.h"

/* ---- queries ---- */

static int fault_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_INFO, 0, qsc_device_get_info(fault->inner, info));
}

static int fault_get_region_info(struct qsc_device *dev, uint32_t region,
				 struct qsc_region_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_REGION_INFO, region,
		       qsc_device_get_region_info(fault->inner, region, info));
}

static int fault_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_IRQ_INFO, index,
		       qsc_device_get_irq_info(fault->inner, index, info));
}

/* ---- regions ---- */

static ssize_t fault_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset,
				 void *buf, size_t count)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_REGION_READ))
		return qsc_device_region_read(fault->inner, region, offset, buf, count);
	memset(buf, 0, count);
	if (qsc_fault_strike(fault, FAULT_REGION_READ, region, FAULT_ANY, (int64_t)count, &s))
		return (ssize_t)s.result;
	n = qsc_device_region_read(fault->inner, region, offset, buf,
				   qsc_fault_shortened(&s, count));
	if (n > 0)
		qsc_fault_spoil(&s, buf, (size_t)n);
	return qsc_fault_count_told(&s, n, count);
}

static ssize_t fault_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				  const void *buf, size_t count)
{
	struct fault *fault = fault_of(dev);
	qsc_autofree void *copy = NULL;
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_REGION_WRITE))
		return qsc_device_region_write(fault->inner, region, offset, buf, count);
	if (qsc_fault_strike(fault, FAULT_REGION_WRITE, region, FAULT_ANY, (int64_t)count, &s))
		return (ssize_t)s.result;
	if (atomic_load(&fault->broken) && region == VFIO_PCI_CONFIG_REGION_INDEX)
		return -EIO;
	copy = malloc(count);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, buf, count);
	qsc_fault_spoil(&s, copy, count);
	n = qsc_device_region_write(fault->inner, region, offset, copy,
				    qsc_fault_shortened(&s, count));
	return qsc_fault_count_told(&s, n, count);
}

static int fault_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				    size_t count)
{
	struct fault *fault = fault_of(dev);
	size_t done;

	if (!armed(fault, FAULT_REGION_WRITE))
		return qsc_device_region_write_multi(fault->inner, writes, count);
	for (done = 0; done < count; done++) {
		const struct qsc_region_write *write = &writes[done];
		ssize_t n = fault_region_write(dev, write->region, write->offset, write->data,
					       write->count);

		if (n == (ssize_t)write->count)
			continue;
		if (!done)
			return n < 0 ? (int)n : -EIO;
		break;
	}
	return (int)done;
}

static int fault_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			    int prot, void **addr)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_REGION_MAP, region,
		       qsc_device_region_map_at(fault->inner, region, offset, size, prot, addr));
}

static int fault_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_device_region_unmap(fault_of(dev)->inner, addr, size);
}

static int fault_region_change(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	struct qsc_device *inner = fault_of(dev)->inner;

	return prot == QSC_PROT_WITHDRAWN ? qsc_device_region_withdraw(inner, addr, size)
					  : qsc_device_region_protect(inner, addr, size, prot);
}

static int fault_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	return qsc_device_region_fd(fault_of(dev)->inner, region, fd, fd_offset);
}

static int fault_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			       size_t max)
{
	return qsc_device_region_io_fds(fault_of(dev)->inner, region, fds, max);
}

/* ---- interrupts and DMA ---- */

/* In the relay's thread: what becomes of interrupts that have come. */
static uint64_t relayed(void *ctx, uint32_t vector, uint64_t count)
{
	struct fault *fault = ctx;
	uint64_t deliver = 0;

	/* An eventfd counts; more at once than anybody tells apart are taken as they are. */
	for (uint64_t i = 0; i < qsc_min_u64(count, 4096); i++) {
		struct strike s;

		(void)qsc_fault_strike(fault, FAULT_IRQ, vector, FAULT_ANY, 0, &s);
		if (s.by[FAULT_REPEAT])
			deliver += 2;
		else if (!s.by[FAULT_DROP])
			deliver++;
	}
	return deliver + (count > 4096);
}

static int set_relayed(struct fault *fault, const struct qsc_irq_set *set)
{
	bool trigger = set->flags & VFIO_IRQ_SET_ACTION_TRIGGER;
	struct qsc_irq_set instead = *set;
	qsc_autofree int *own = NULL;
	int result;

	if (!fault->relay || !trigger || !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD)) {
		result = qsc_device_set_irqs(fault->inner, set);
		if (fault->relay && trigger && !result && !set->count)
			qsc_fault_relay_clear(fault->relay, set->index);
		return result;
	}
	own = calloc(set->count, sizeof(*own));
	if (!own)
		return -ENOMEM;
	result = qsc_fault_relay_add(fault->relay, set->index, set->start, set->count, set->fds,
				     own);
	if (result < 0)
		return result;
	instead.fds = own;
	result = qsc_device_set_irqs(fault->inner, &instead);
	qsc_fault_relay_settle(fault->relay, set->index, set->start, set->count, own, !result);
	return result;
}

static int fault_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_SET_IRQS, set->index, set_relayed(fault, set));
}

static int fault_irq_counts(struct qsc_device *dev, struct qsc_irq_counts *counts)
{
	return qsc_device_irq_counts(fault_of(dev)->inner, counts);
}

static int fault_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct fault *fault = fault_of(dev);
	int result = THROUGH(fault, FAULT_DMA_MAP, 0, qsc_device_dma_map(fault->inner, mapping));

	if (!result)
		qsc_fault_keep_mapping(fault, mapping);
	return result;
}

static int fault_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct fault *fault = fault_of(dev);

	/* Before the memory may go away. */
	qsc_fault_forget_mapping(fault, iova, size);
	return THROUGH(fault, FAULT_DMA_UNMAP, 0, qsc_device_dma_unmap(fault->inner, iova, size));
}

/* ---- reset and close ---- */

static int reset(struct fault *fault)
{
	int result = qsc_device_reset(fault->inner);

	if (!result)
		atomic_store(&fault->broken, false);
	return result;
}

static int fault_reset(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_RESET, 0, reset(fault));
}

static void destroy(struct fault *fault)
{
	qsc_fault_relay_destroy(fault->relay);
	for (size_t i = 0; i < fault->num_mappings; i++)
		qsc_fd_close(&fault->mappings[i].fd);
	free(fault->mappings);
	free(fault->last);
	pthread_mutex_destroy(&fault->lock);
	free(fault);
}

static void fault_close(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);
	struct strike s;

	if (armed(fault, FAULT_CLOSE))
		(void)qsc_fault_strike(fault, FAULT_CLOSE, 0, FAULT_ANY, 0, &s);
	qsc_device_close(fault->inner);
	destroy(fault);
}

static const struct qsc_device_ops fault_ops = {
	.kind = "fault",
	.get_info = fault_get_info,
	.get_region_info = fault_get_region_info,
	.get_irq_info = fault_get_irq_info,
	.region_read = fault_region_read,
	.region_write = fault_region_write,
	.region_write_multi = fault_region_write_multi,
	.region_map = fault_region_map,
	.region_unmap = fault_region_unmap,
	.region_change = fault_region_change,
	.region_fd = fault_region_fd,
	.region_io_fds = fault_region_io_fds,
	.set_irqs = fault_set_irqs,
	.irq_counts = fault_irq_counts,
	.dma_map = fault_dma_map,
	.dma_unmap = fault_dma_unmap,
	.get_migration = qsc_fault_get_migration,
	.get_state = qsc_fault_get_state,
	.set_state = qsc_fault_set_state,
	.set_state_begin = qsc_fault_set_state_begin,
	.set_state_end = qsc_fault_set_state_end,
	.data_size = qsc_fault_data_size,
	.log_start = qsc_fault_log_start,
	.log_stop = qsc_fault_log_stop,
	.log_report = qsc_fault_log_report,
	.session_read = qsc_fault_session_read,
	.session_lend = qsc_fault_session_lend,
	.session_write = qsc_fault_session_write,
	.session_precopy_info = qsc_fault_session_precopy_info,
	.session_close = qsc_fault_session_close,
	.reset = fault_reset,
	.close = fault_close,
};

/* Leave what is for a device of this name, and note what its rules need. */
static void choose_rules(struct fault *fault, const char *name)
{
	struct fault_rules *rules = &fault->rules;
	size_t kept = 0;

	for (size_t i = 0; i < rules->count; i++) {
		struct fault_rule *rule = &rules->rule[i];

		if (*rule->name && (!name || strcmp(rule->name, name) != 0))
			continue;
		fault->walks |= rule->point == FAULT_ARC;
		fault->keeps_mappings |= rule->kind == FAULT_SCRIBBLE;
		fault->armed |= 1U << rule->point;
		rules->rule[kept++] = *rule;
	}
	rules->count = kept;
}

int qsc_fault_open(struct qsc_device *inner, const char *name, const char *spec,
		   qsc_fault_fn *struck, void *ctx, struct qsc_device **out, struct qsc_error *err)
{
	struct fault *fault = calloc(1, sizeof(*fault));
	struct strike s;
	int result;

	if (!fault)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the faults");
	pthread_mutex_init(&fault->lock, NULL);
	result = qsc_fault_parse(spec, &fault->rules, err);
	if (result < 0)
		goto failed;
	fault->device.ops = &fault_ops;
	fault->inner = inner;
	fault->struck = struck;
	fault->ctx = ctx;
	choose_rules(fault, name);
	if (armed(fault, FAULT_OPEN) && qsc_fault_strike(fault, FAULT_OPEN, 0, FAULT_ANY, 0, &s)) {
		result = qsc_error_set(err, (int)-s.result, NULL,
				       "%s cannot be opened: a fault strikes there",
				       name ? name : "the device");
		goto failed;
	}
	if (armed(fault, FAULT_IRQ)) {
		result = qsc_fault_relay_create(relayed, fault, &fault->relay);
		if (result < 0) {
			(void)qsc_error_set(err, -result, NULL, "no thread for interrupts");
			goto failed;
		}
	}
	*out = &fault->device;
	return 0;
failed:
	destroy(fault);
	return result;
}
