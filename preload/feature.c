/* SPDX-License-Identifier: MIT */
/* See feature.h. */
#include "feature.h"

#include <errno.h>
#include <stdlib.h>

#include "abi/vfio.h"
#include "bitmap.h"
#include "device.h"
#include "file.h"
#include "session.h"
#include "user.h"

#define GET   VFIO_DEVICE_FEATURE_GET
#define SET   VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE

#define MAX_LOG_RANGES 256U /* as many as the kernel reads: a page of them */

/* One request: what follows the header lies at `data` and has `size` bytes. */
struct request {
	uint32_t flags;
	size_t size;
	void *data;
};

/* 1: go on; 0: it was a probe, and there is; -EINVAL. */
static int check(const struct request *request, uint32_t supported, size_t least)
{
	if ((request->flags & (GET | SET)) & ~supported)
		return -EINVAL;
	if (request->flags & PROBE)
		return 0;
	if (!(request->flags & (GET | SET)) || request->size < least)
		return -EINVAL;
	return 1;
}

static int migration(struct pl_dev *dev, const struct request *request)
{
	struct vfio_device_feature_migration out = {.flags = dev->migration.flags};
	int result = check(request, GET, sizeof(out));

	return result <= 0 ? result : pl_copy_out(request->data, &out, sizeof(out));
}

/* ---- states ---- */

/* SESS-1: from outside of the group; a move within it keeps the session. */
static bool may_open_session(uint32_t from, uint32_t target)
{
	if (target >= QSC_STATE_COUNT || target == from)
		return false;
	if (qsc_state_is_saving((enum qsc_state)target))
		return !qsc_state_is_saving((enum qsc_state)from);
	return target == QSC_STATE_RESUMING;
}

/* State lock held. */
static void count_change(struct pl_dev *dev, uint32_t from, int result)
{
	struct handover_seen *seen = dev->seen;
	enum qsc_state state;

	pl_dev_count_irqs(dev);
	/* ORD-4: after a failure above all, ask. */
	if (pl_dev_state(dev, &state) < 0)
		return;
	if (result < 0) {
		atomic_fetch_add(&seen->failed, 1);
		return;
	}
	atomic_fetch_add(&seen->entered[state], 1);
	if (from == QSC_STATE_STOP_COPY && state != QSC_STATE_STOP_COPY)
		atomic_fetch_add(&seen->saved, 1);
	if (from == QSC_STATE_RESUMING && state != QSC_STATE_RESUMING)
		atomic_fetch_add(&seen->loaded, 1);
}

/* A descriptor for a session, or -errno; *file with a reference, whatever other threads close. */
static int make_session(struct pl_dev *dev, struct pl_file **file)
{
	*file = pl_session_new(dev);
	if (!*file)
		return -ENOMEM;
	pl_file_hold(*file);
	return pl_file_open(*file, HANDOVER_SESSION, dev->index, true);
}

/*
 * State lock held. SESS-9: the file and its descriptor exist before the state changes, so that a
 * session that was opened can always be handed out. Without one they vanish again.
 */
static int change_locked(struct pl_dev *dev, uint32_t target, struct pl_file **file, int *data_fd)
{
	uint32_t from = atomic_load(&dev->state);
	uint64_t session = 0;
	int fd = -1;
	int result;

	if (may_open_session(from, target)) {
		fd = make_session(dev, file);
		if (fd < 0)
			return fd;
	}
	result = qsc_device_set_state(dev->dev, target, &session);
	count_change(dev, from, result);
	if (!session) {
		if (fd >= 0)
			(void)pl_file_close(fd);
		return result;
	}
	/* The device was in another state than it had said. */
	if (fd < 0)
		fd = make_session(dev, file);
	if (fd < 0) {
		(void)qsc_device_session_close(dev->dev, session);
		return fd;
	}
	pl_session_set(*file, session);
	*data_fd = fd;
	return result;
}

static int change(struct pl_dev *dev, uint32_t target, int *data_fd)
{
	struct pl_file *file = NULL;
	int result;

	pthread_mutex_lock(&dev->state_lock);
	result = change_locked(dev, target, &file, data_fd);
	pthread_mutex_unlock(&dev->state_lock);
	if (file)
		pl_file_put(file);
	return result;
}

static int mig_device_state(struct pl_dev *dev, const struct request *request)
{
	struct vfio_device_feature_mig_state mig;
	enum qsc_state state;
	int copied;
	int result = check(request, GET | SET, sizeof(mig));

	if (result > 0)
		result = pl_copy_in(&mig, request->data, sizeof(mig));
	else
		return result;
	if (!result)
		result = pl_can_write(request->data, sizeof(mig));
	if (result < 0)
		return result;
	mig.data_fd = -1;
	if (request->flags & GET) {
		pl_dev_count(dev, QSC_ACTION_QUERY);
		result = pl_dev_state(dev, &state);
		if (result < 0)
			return result;
		mig.device_state = (uint32_t)state;
	} else {
		result = change(dev, mig.device_state, &mig.data_fd);
	}
	copied = pl_copy_out(request->data, &mig, sizeof(mig));
	return result < 0 ? result : copied;
}

static int mig_data_size(struct pl_dev *dev, const struct request *request)
{
	uint64_t size;
	int result = check(request, GET, sizeof(size));

	if (result <= 0)
		return result;
	pl_dev_count(dev, QSC_ACTION_QUERY);
	result = qsc_device_data_size(dev->dev, &size);
	return result < 0 ? result : pl_copy_out(request->data, &size, sizeof(size));
}

/* ---- dirty log ---- */

static int copy_ranges(const struct vfio_device_feature_dma_logging_control *control,
		       struct qsc_dma_range *out)
{
	struct vfio_device_feature_dma_logging_range range;
	const char *from = pl_user(control->ranges);

	for (uint32_t i = 0; i < control->num_ranges; i++) {
		int result = pl_copy_in(&range, from + i * sizeof(range), sizeof(range));

		if (result < 0)
			return result;
		if (range.iova % control->page_size || range.length % control->page_size)
			return -EINVAL;
		if (range.iova + range.length < range.iova)
			return -EOVERFLOW;
		out[i] = (struct qsc_dma_range){.iova = range.iova, .size = range.length};
	}
	return 0;
}

static int log_start(struct pl_dev *dev, const struct request *request)
{
	struct vfio_device_feature_dma_logging_control control;
	struct qsc_dma_range ranges[MAX_LOG_RANGES];
	uint64_t page_size;
	int result = check(request, SET, sizeof(control));

	if (result <= 0)
		return result;
	result = pl_copy_in(&control, request->data, sizeof(control));
	if (result < 0)
		return result;
	if (!control.num_ranges || !control.page_size)
		return -EINVAL;
	if (control.num_ranges > MAX_LOG_RANGES)
		return -E2BIG;
	result = copy_ranges(&control, ranges);
	if (!result)
		result = pl_can_write(request->data, sizeof(control));
	if (result < 0)
		return result;
	page_size = control.page_size;
	pl_dev_count(dev, QSC_ACTION_LOG_START);
	result = qsc_device_log_start(dev->dev, &page_size, ranges, control.num_ranges);
	if (result < 0)
		return result;
	control.page_size = page_size;
	result = pl_copy_out(request->data, &control, sizeof(control));
	if (result < 0)
		(void)qsc_device_log_stop(dev->dev);
	return result;
}

static int log_stop(struct pl_dev *dev, const struct request *request)
{
	int result = check(request, SET, 0);

	if (result <= 0)
		return result;
	pl_dev_count(dev, QSC_ACTION_LOG_REPORT);
	return qsc_device_log_stop(dev->dev);
}

static int report(void *ctx, uint64_t iova, uint64_t size, uint64_t page_size, uint64_t *bitmap)
{
	struct pl_dev *dev = ctx;

	return qsc_device_log_report(dev->dev, iova, size, page_size, bitmap);
}

static int log_report(struct pl_dev *dev, const struct request *request)
{
	struct vfio_device_feature_dma_logging_report in;
	int result = check(request, GET, sizeof(in));

	if (result <= 0)
		return result;
	result = pl_copy_in(&in, request->data, sizeof(in));
	if (result < 0)
		return result;
	if (in.page_size < 4096 || (in.page_size & (in.page_size - 1)))
		return -EINVAL;
	if (in.iova + in.length < in.iova)
		return -EOVERFLOW;
	pl_dev_count(dev, QSC_ACTION_LOG_REPORT);
	return pl_bitmap_report(report, dev, in.iova, in.length, in.page_size, pl_user(in.bitmap));
}

static int dispatch(struct pl_dev *dev, uint32_t feature, const struct request *request)
{
	switch (feature) {
	case VFIO_DEVICE_FEATURE_MIGRATION:
		return dev->migratable ? migration(dev, request) : -ENOTTY;
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
		return dev->migratable ? mig_device_state(dev, request) : -ENOTTY;
	case ABI_FEATURE_MIG_DATA_SIZE:
		return dev->migratable ? mig_data_size(dev, request) : -ENOTTY;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
		return dev->migration.dirty_log ? log_start(dev, request) : -ENOTTY;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
		return dev->migration.dirty_log ? log_stop(dev, request) : -ENOTTY;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
		return dev->migration.dirty_log ? log_report(dev, request) : -ENOTTY;
	default:
		return -ENOTTY;
	}
}

int pl_feature(struct pl_dev *dev, void *arg)
{
	struct vfio_device_feature header;
	struct request request;
	int result = pl_copy_argsz(&header, sizeof(header), arg);

	if (result < 0)
		return result;
	if (header.flags & ~(uint32_t)(VFIO_DEVICE_FEATURE_MASK | GET | SET | PROBE))
		return -EINVAL;
	if (!(header.flags & PROBE) && (header.flags & GET) && (header.flags & SET))
		return -EINVAL;
	request = (struct request){
		.flags = header.flags,
		.size = header.argsz - sizeof(header),
		.data = (char *)arg + sizeof(header),
	};
	return dispatch(dev, header.flags & VFIO_DEVICE_FEATURE_MASK, &request);
}
