/* SPDX-License-Identifier: MIT */
/* Devices of clockwork.h. */
#include "clockwork.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/bitmap.h"
#include "base/cleanup.h"

static struct clock_device *device_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct clock_device, base);
}

/* Take into account what it wrote until now. */
static void catch_up(struct clock_device *device)
{
	uint64_t us = sim_now() - device->since_us;
	uint64_t pages = us * device->costs.dma_rate / 1000000 / QSC_PAGE_SIZE;

	if (!qsc_state_is_active(device->state) || !us) {
		device->since_us = sim_now();
		return;
	}
	/* Whole pages only: the rest of the time counts the next time. */
	if (device->costs.dma_rate && !pages)
		return;
	device->written += pages;
	device->dirty = qsc_min_u64(device->dirty + us * device->costs.dirty_rate / 1000000,
				    device->costs.initial);
	if (device->state == QSC_STATE_RUNNING || device->state == QSC_STATE_RUNNING_P2P)
		device->dirty = 0;
	device->since_us = sim_now();
}

static int get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	*info = (struct qsc_device_info){.flags = VFIO_DEVICE_FLAGS_RESET};
	return 0;
}

static int get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	info->flags = device_of(dev)->costs.flags;
	info->dirty_log = !device_of(dev)->costs.untracked;
	return 0;
}

static int get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = device_of(dev)->state;
	return 0;
}

static uint64_t arc_us(const struct clock_costs *costs, enum qsc_state from, enum qsc_state to)
{
	if (from == QSC_STATE_RESUMING)
		return costs->load_us;
	if (from == QSC_STATE_STOP)
		return to == QSC_STATE_RESUMING || to == QSC_STATE_STOP_COPY ? 0 : costs->start_us;
	switch (to) {
	case QSC_STATE_PRE_COPY:
		return costs->precopy_us;
	case QSC_STATE_RUNNING_P2P:
	case QSC_STATE_PRE_COPY_P2P:
		return costs->quiesce_us;
	case QSC_STATE_STOP:
	case QSC_STATE_STOP_COPY:
		return costs->stop_us;
	default:
		return 0;
	}
}

static int set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct clock_device *device = device_of(dev);

	while (device->state != target) {
		int next = qsc_contract_next(device->costs.flags, device->state, target);
		enum qsc_state from = device->state;

		if (next < 0)
			return next;
		sim_sleep(arc_us(&device->costs, from, (enum qsc_state)next));
		catch_up(device);
		device->state = (enum qsc_state)next;
		if (device->state == QSC_STATE_RESUMING ||
		    (qsc_state_is_saving(device->state) && !qsc_state_is_saving(from))) {
			*session = ++device->session;
			device->first = device->costs.initial;
			device->rest = device->costs.fixed;
			device->dirty = 0;
		}
	}
	return 0;
}

static int data_size(struct qsc_device *dev, uint64_t *size)
{
	*size = device_of(dev)->costs.initial + device_of(dev)->costs.fixed;
	return 0;
}

/* ---- the log ---- */

static int log_start(struct qsc_device *dev, uint64_t *page_size,
		     const struct qsc_dma_range *ranges, size_t num_ranges)
{
	return 0;
}

static int log_stop(struct qsc_device *dev)
{
	return 0;
}

static int log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap)
{
	struct clock_device *device = device_of(dev);
	uint64_t quarter = CLOCK_PAGES / 4;

	sim_sleep(device->costs.report_us);
	catch_up(device);
	for (; device->written; device->written--)
		qsc_bitmap_set(bitmap,
			       (device->member % 3 + 1) * quarter + device->cursor++ % quarter);
	return 0;
}

/* ---- sessions: bytes that mean nothing, as many as there are ---- */

static uint64_t take(uint64_t *from, uint64_t most)
{
	uint64_t n = qsc_min_u64(*from, most);

	*from -= n;
	return n;
}

static ssize_t session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct clock_device *device = device_of(dev);
	bool stopped = device->state == QSC_STATE_STOP_COPY;
	uint64_t n;

	catch_up(device);
	n = take(&device->first, size);
	n += take(&device->dirty, size - n);
	if (stopped)
		n += take(&device->rest, size - n);
	memset(buf, 0x5a, n);
	clock_spend(n, device->costs.read_rate);
	return n || stopped ? (ssize_t)n : -ENOMSG;
}

static ssize_t session_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	clock_spend(size, device_of(dev)->costs.write_rate);
	return (ssize_t)size;
}

static int precopy_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	struct clock_device *device = device_of(dev);

	catch_up(device);
	info->initial_bytes = device->first;
	info->dirty_bytes = device->dirty;
	return 0;
}

static int session_close(struct qsc_device *dev, uint64_t session)
{
	return 0;
}

static int reset(struct qsc_device *dev)
{
	device_of(dev)->state = QSC_STATE_RUNNING;
	return 0;
}

static const struct qsc_device_ops ops = {
	.kind = "clockwork",
	.get_info = get_info,
	.get_migration = get_migration,
	.get_state = get_state,
	.set_state = set_state,
	.data_size = data_size,
	.log_start = log_start,
	.log_stop = log_stop,
	.log_report = log_report,
	.session_read = session_read,
	.session_write = session_write,
	.session_precopy_info = precopy_info,
	.session_close = session_close,
	.reset = reset,
};

void clock_device_init(struct clock_device *device)
{
	device->base.ops = &ops;
	device->state = QSC_STATE_RUNNING;
	device->since_us = sim_now();
}
