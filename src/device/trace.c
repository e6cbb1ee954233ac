/* SPDX-License-Identifier: MIT */
/*
 * The trace layer: one line for every action on a device. See <quiesce/device.h>. A line is
 *
 *	MICROSECONDS NAME STATE ACTION ARGUMENT=VALUE… = RESULT NANOSECONDSns
 *
 * where STATE is the one the action met as far as the layer has seen requests, resets and queries
 * go by, "?" where it cannot know (nothing has gone by yet, or a request failed and nobody has
 * asked since), and RESULT a count, 0 or -ERRNO. Switched off, an action costs one load more.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <quiesce/device.h>

#include "base/cleanup.h"

#define LINE_SIZE     512
#define STATE_UNKNOWN QSC_STATE_COUNT

/* An action under way; start_ns 0: it is not traced. */
struct call {
	uint64_t start_ns;
	uint32_t state;
};

struct trace {
	struct qsc_device device;
	struct qsc_device *inner;
	char *name;
	uint64_t made_ns;
	_Atomic uint32_t state;
	_Atomic bool on;
	/* Readers call the sink, so that once it is switched nobody is inside the old one. */
	pthread_rwlock_t sink_lock;
	qsc_trace_fn *line;
	void *ctx;
	/* Of the request that was begun; his who is to end it. */
	struct call request;
	uint32_t target;
};

static struct trace *trace_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct trace, device);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static inline struct call begin(struct trace *trace)
{
	struct call call = {0, 0};

	if (__builtin_expect(atomic_load_explicit(&trace->on, memory_order_relaxed), 0)) {
		call.state = atomic_load_explicit(&trace->state, memory_order_relaxed);
		call.start_ns = now_ns();
	}
	return call;
}

static inline bool traced(const struct call *call)
{
	return __builtin_expect(call->start_ns != 0, 0);
}

static const char *state_text(uint32_t state)
{
	return qsc_state_name((enum qsc_state)state);
}

/* args_fmt is empty or begins with a space. */
static void write_line(struct trace *trace, const struct call *call, const char *action,
		       int64_t result, const char *args_fmt, ...) QSC_PRINTF(5, 6);

static void write_line(struct trace *trace, const struct call *call, const char *action,
		       int64_t result, const char *args_fmt, ...)
{
	uint64_t end_ns = now_ns();
	char line[LINE_SIZE];
	char args[LINE_SIZE / 2];
	char outcome[32];
	const char *name = result < 0 ? strerrorname_np((int)-result) : NULL;
	va_list list;

	va_start(list, args_fmt);
	(void)vsnprintf(args, sizeof(args), args_fmt, list);
	va_end(list);
	if (name)
		(void)snprintf(outcome, sizeof(outcome), "-%s", name);
	else
		(void)snprintf(outcome, sizeof(outcome), "%" PRId64, result);
	(void)snprintf(line, sizeof(line), "%" PRIu64 " %s %s %s%s = %s %" PRIu64 "ns",
		       (call->start_ns - trace->made_ns) / 1000, trace->name,
		       state_text(call->state), action, args, outcome, end_ns - call->start_ns);
	pthread_rwlock_rdlock(&trace->sink_lock);
	if (trace->line)
		trace->line(trace->ctx, line);
	pthread_rwlock_unlock(&trace->sink_lock);
}

static void met_state(struct trace *trace, int result, uint32_t state)
{
	atomic_store_explicit(&trace->state, result < 0 ? STATE_UNKNOWN : state,
			      memory_order_relaxed);
}

static int trace_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_get_info(trace->inner, info);

	if (traced(&call))
		write_line(trace, &call, "get-info", result,
			   " flags=0x%x regions=%u irqs=%u type=%s parts=%u", info->flags,
			   info->num_regions, info->num_irqs, info->layout.type,
			   info->layout.num_parts);
	return result;
}

static int trace_get_region_info(struct qsc_device *dev, uint32_t region,
				 struct qsc_region_info *info)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_get_region_info(trace->inner, region, info);

	if (traced(&call))
		write_line(trace, &call, "get-region-info", result,
			   " region=%u size=0x%" PRIx64 " flags=0x%x areas=%u", region, info->size,
			   info->flags, info->num_areas);
	return result;
}

static int trace_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_get_irq_info(trace->inner, index, info);

	if (traced(&call))
		write_line(trace, &call, "get-irq-info", result, " index=%u vectors=%u flags=0x%x",
			   index, info->count, info->flags);
	return result;
}

/* The value of an access that is no larger than a register. */
static void access_text(char text[32], const void *buf, ssize_t count)
{
	uint64_t value = 0;

	text[0] = '\0';
	if (count <= 0 || count > (ssize_t)sizeof(value))
		return;
	memcpy(&value, buf, (size_t)count);
	(void)snprintf(text, 32, " data=0x%0*" PRIx64, (int)count * 2, value);
}

static ssize_t trace_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset,
				 void *buf, size_t count)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	ssize_t result = qsc_device_region_read(trace->inner, region, offset, buf, count);
	char data[32];

	if (traced(&call)) {
		access_text(data, buf, result);
		write_line(trace, &call, "region-read", result,
			   " region=%u offset=0x%" PRIx64 " count=%zu%s", region, offset, count,
			   data);
	}
	return result;
}

static ssize_t trace_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				  const void *buf, size_t count)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	ssize_t result = qsc_device_region_write(trace->inner, region, offset, buf, count);
	char data[32];

	if (traced(&call)) {
		access_text(data, buf, (ssize_t)count);
		write_line(trace, &call, "region-write", result,
			   " region=%u offset=0x%" PRIx64 " count=%zu%s", region, offset, count,
			   data);
	}
	return result;
}

static int trace_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				    size_t count)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_region_write_multi(trace->inner, writes, count);

	if (traced(&call))
		write_line(trace, &call, "region-write-multi", result,
			   " count=%zu region=%u offset=0x%" PRIx64, count, writes[0].region,
			   writes[0].offset);
	return result;
}

static int trace_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			    int prot, void **addr)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_region_map_at(trace->inner, region, offset, size, prot, addr);

	if (traced(&call))
		write_line(trace, &call, "region-map", result,
			   " region=%u offset=0x%" PRIx64 " size=0x%zx prot=%d addr=%p", region,
			   offset, size, prot, *addr);
	return result;
}

static int trace_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_region_unmap(trace->inner, addr, size);

	if (traced(&call))
		write_line(trace, &call, "region-unmap", result, " addr=%p size=0x%zx", addr, size);
	return result;
}

static int trace_region_change(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	bool withdraw = prot == QSC_PROT_WITHDRAWN;
	int result = withdraw ? qsc_device_region_withdraw(trace->inner, addr, size)
			      : qsc_device_region_protect(trace->inner, addr, size, prot);

	if (!traced(&call))
		return result;
	if (withdraw)
		write_line(trace, &call, "region-withdraw", result, " addr=%p size=0x%zx", addr,
			   size);
	else
		write_line(trace, &call, "region-protect", result, " addr=%p size=0x%zx prot=%d",
			   addr, size, prot);
	return result;
}

static int trace_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_region_fd(trace->inner, region, fd, fd_offset);

	if (traced(&call))
		write_line(trace, &call, "region-fd", result,
			   " region=%u fd=%d fd-offset=0x%" PRIx64, region, *fd, *fd_offset);
	return result;
}

static int trace_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			       size_t max)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_region_io_fds(trace->inner, region, fds, max);

	if (traced(&call))
		write_line(trace, &call, "region-io-fds", result, " region=%u max=%zu", region,
			   max);
	return result;
}

static const char *irq_data_text(uint32_t flags)
{
	if (flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return "eventfd";
	return flags & VFIO_IRQ_SET_DATA_BOOL ? "bool" : "none";
}

static const char *irq_action_text(uint32_t flags)
{
	if (flags & VFIO_IRQ_SET_ACTION_TRIGGER)
		return "trigger";
	return flags & VFIO_IRQ_SET_ACTION_MASK ? "mask" : "unmask";
}

static int trace_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_set_irqs(trace->inner, set);

	if (traced(&call))
		write_line(trace, &call, "set-irqs", result,
			   " index=%u start=%u count=%u data=%s action=%s", set->index, set->start,
			   set->count, irq_data_text(set->flags), irq_action_text(set->flags));
	return result;
}

/* No action on the device: no line. */
static int trace_irq_counts(struct qsc_device *dev, struct qsc_irq_counts *counts)
{
	return qsc_device_irq_counts(trace_of(dev)->inner, counts);
}

static int trace_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_dma_map(trace->inner, mapping);

	if (traced(&call))
		write_line(trace, &call, "dma-map", result,
			   " iova=0x%" PRIx64 " size=0x%" PRIx64 " flags=%s%s%s by=%s%s%s",
			   mapping->iova, mapping->size, mapping->flags & QSC_DMA_READ ? "r" : "",
			   mapping->flags & QSC_DMA_WRITE ? "w" : "",
			   mapping->flags & QSC_DMA_PEER ? "p" : "", mapping->vaddr ? "v" : "",
			   mapping->fd >= 0 ? "f" : "", mapping->access ? "a" : "");
	return result;
}

static int trace_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_dma_unmap(trace->inner, iova, size);

	if (traced(&call))
		write_line(trace, &call, "dma-unmap", result, " iova=0x%" PRIx64 " size=0x%" PRIx64,
			   iova, size);
	return result;
}

static int trace_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_get_migration(trace->inner, info);

	if (traced(&call))
		write_line(trace, &call, "get-migration", result, " flags=%u dirty-log=%d",
			   info->flags, info->dirty_log);
	return result;
}

static int trace_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_get_state(trace->inner, state);

	met_state(trace, result, result < 0 ? STATE_UNKNOWN : (uint32_t)*state);
	if (traced(&call))
		write_line(trace, &call, "get-state", result, " state=%s",
			   result < 0 ? "?" : state_text((uint32_t)*state));
	return result;
}

static int trace_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_set_state(trace->inner, target, session);

	met_state(trace, result, target);
	if (traced(&call))
		write_line(trace, &call, "set-state", result, " target=%s session=%" PRIu64,
			   state_text(target), *session);
	return result;
}

/* One line for both halves, when the second has ended. */
static int trace_set_state_begin(struct qsc_device *dev, uint32_t target)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_set_state_begin(trace->inner, target);

	if (result == -EOPNOTSUPP)
		return result;
	if (result < 0 && traced(&call))
		write_line(trace, &call, "set-state", result, " target=%s session=0",
			   state_text(target));
	met_state(trace, -EINPROGRESS, target);
	if (!result) {
		trace->request = call;
		trace->target = target;
	}
	return result;
}

static int trace_set_state_end(struct qsc_device *dev, uint64_t *session)
{
	struct trace *trace = trace_of(dev);
	struct call call = trace->request;
	uint32_t target = trace->target;
	/* From here on another request may begin. */
	int result = qsc_device_set_state_end(trace->inner, session);

	met_state(trace, result, target);
	if (traced(&call))
		write_line(trace, &call, "set-state", result, " target=%s session=%" PRIu64,
			   state_text(target), *session);
	return result;
}

static int trace_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_data_size(trace->inner, size_bytes);

	if (traced(&call))
		write_line(trace, &call, "data-size", result, " bytes=%" PRIu64, *size_bytes);
	return result;
}

static int trace_log_start(struct qsc_device *dev, uint64_t *page_size,
			   const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_log_start(trace->inner, page_size, ranges, num_ranges);

	if (traced(&call))
		write_line(trace, &call, "log-start", result, " page-size=%" PRIu64 " ranges=%zu",
			   *page_size, num_ranges);
	return result;
}

static int trace_log_stop(struct qsc_device *dev)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_log_stop(trace->inner);

	if (traced(&call))
		write_line(trace, &call, "log-stop", result, "%s", "");
	return result;
}

static int trace_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size,
			    uint64_t page_size, uint64_t *bitmap)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_log_report(trace->inner, iova, size, page_size, bitmap);

	if (traced(&call))
		write_line(trace, &call, "log-report", result,
			   " iova=0x%" PRIx64 " size=0x%" PRIx64 " page-size=%" PRIu64, iova, size,
			   page_size);
	return result;
}

static ssize_t trace_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	ssize_t result = qsc_device_session_read(trace->inner, session, buf, size);

	if (traced(&call))
		write_line(trace, &call, "session-read", result, " session=%" PRIu64 " size=%zu",
			   session, size);
	return result;
}

static ssize_t trace_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
				  struct iovec *iov, size_t max, size_t *count)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	ssize_t result = qsc_device_session_lend(trace->inner, session, buf, size, iov, max, count);

	if (traced(&call))
		write_line(trace, &call, "session-lend", result,
			   " session=%" PRIu64 " size=%zu pieces=%zu", session, size, *count);
	return result;
}

static ssize_t trace_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				   size_t size)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	ssize_t result = qsc_device_session_write(trace->inner, session, buf, size);

	if (traced(&call))
		write_line(trace, &call, "session-write", result, " session=%" PRIu64 " size=%zu",
			   session, size);
	return result;
}

static int trace_session_precopy_info(struct qsc_device *dev, uint64_t session,
				      struct qsc_precopy_info *info)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_session_precopy_info(trace->inner, session, info);

	if (traced(&call))
		write_line(trace, &call, "precopy-info", result,
			   " session=%" PRIu64 " initial=%" PRIu64 " dirty=%" PRIu64, session,
			   info->initial_bytes, info->dirty_bytes);
	return result;
}

static int trace_session_close(struct qsc_device *dev, uint64_t session)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_session_close(trace->inner, session);

	if (traced(&call))
		write_line(trace, &call, "session-close", result, " session=%" PRIu64, session);
	return result;
}

static int trace_reset(struct qsc_device *dev)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);
	int result = qsc_device_reset(trace->inner);

	met_state(trace, result, QSC_STATE_RUNNING);
	if (traced(&call))
		write_line(trace, &call, "reset", result, "%s", "");
	return result;
}

static void trace_close(struct qsc_device *dev)
{
	struct trace *trace = trace_of(dev);
	struct call call = begin(trace);

	qsc_device_close(trace->inner);
	if (traced(&call))
		write_line(trace, &call, "close", 0, "%s", "");
	pthread_rwlock_destroy(&trace->sink_lock);
	free(trace->name);
	free(trace);
}

static const struct qsc_device_ops trace_ops = {
	.kind = "trace",
	.get_info = trace_get_info,
	.get_region_info = trace_get_region_info,
	.get_irq_info = trace_get_irq_info,
	.region_read = trace_region_read,
	.region_write = trace_region_write,
	.region_write_multi = trace_region_write_multi,
	.region_map = trace_region_map,
	.region_unmap = trace_region_unmap,
	.region_change = trace_region_change,
	.region_fd = trace_region_fd,
	.region_io_fds = trace_region_io_fds,
	.set_irqs = trace_set_irqs,
	.irq_counts = trace_irq_counts,
	.dma_map = trace_dma_map,
	.dma_unmap = trace_dma_unmap,
	.get_migration = trace_get_migration,
	.get_state = trace_get_state,
	.set_state = trace_set_state,
	.set_state_begin = trace_set_state_begin,
	.set_state_end = trace_set_state_end,
	.data_size = trace_data_size,
	.log_start = trace_log_start,
	.log_stop = trace_log_stop,
	.log_report = trace_log_report,
	.session_read = trace_session_read,
	.session_lend = trace_session_lend,
	.session_write = trace_session_write,
	.session_precopy_info = trace_session_precopy_info,
	.session_close = trace_session_close,
	.reset = trace_reset,
	.close = trace_close,
};

int qsc_trace_open(struct qsc_device *inner, const char *name, qsc_trace_fn *line, void *ctx,
		   struct qsc_device **out)
{
	struct trace *trace = calloc(1, sizeof(*trace));

	if (!trace)
		return -ENOMEM;
	trace->name = strdup(name);
	if (!trace->name) {
		free(trace);
		return -ENOMEM;
	}
	pthread_rwlock_init(&trace->sink_lock, NULL);
	trace->device.ops = &trace_ops;
	trace->inner = inner;
	trace->made_ns = now_ns();
	trace->state = STATE_UNKNOWN;
	qsc_trace_set(&trace->device, line, ctx);
	*out = &trace->device;
	return 0;
}

void qsc_trace_set(struct qsc_device *dev, qsc_trace_fn *line, void *ctx)
{
	struct trace *trace = trace_of(dev);

	pthread_rwlock_wrlock(&trace->sink_lock);
	trace->line = line;
	trace->ctx = ctx;
	atomic_store(&trace->on, line != NULL);
	pthread_rwlock_unlock(&trace->sink_lock);
}
