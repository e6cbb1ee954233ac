/* SPDX-License-Identifier: MIT */
/* See hwpt.h. */
#include "hwpt.h"

#include <errno.h>
#include <stdlib.h>

#include "bitmap.h"
#include "device.h"
#include "user.h"

int pl_hwpt_alloc(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_hwpt_alloc *cmd = arg;
	struct pl_object *device;
	struct pl_object *ioas;
	struct pl_object *hwpt;
	int result;

	if ((cmd->flags & ~(ABI_HWPT_NEST_PARENT | ABI_HWPT_DIRTY_TRACKING)) || cmd->reserved ||
	    cmd->reserved2)
		return -EOPNOTSUPP;
	if ((cmd->data_type && !cmd->data_len) || (!cmd->data_type && cmd->data_len))
		return -EINVAL;
	device = pl_object_find(ctx, cmd->dev_id, PL_OBJECT_DEVICE);
	ioas = pl_object_find(ctx, cmd->pt_id, PL_OBJECT_ANY);
	if (!device || !ioas)
		return -ENOENT;
	if (ioas->type != PL_OBJECT_IOAS)
		return -EINVAL;
	/* No nesting here, and no other kind of table than the plain one. */
	if (cmd->data_type || (cmd->flags & ABI_HWPT_NEST_PARENT))
		return -EOPNOTSUPP;
	if ((cmd->flags & ABI_HWPT_DIRTY_TRACKING) && !device->device.dev->migration.dirty_log)
		return -EOPNOTSUPP;
	hwpt = pl_object_new(ctx, PL_OBJECT_HWPT, &result);
	if (!hwpt)
		return result;
	hwpt->hwpt.ioas = ioas;
	hwpt->hwpt.can_track = cmd->flags & ABI_HWPT_DIRTY_TRACKING;
	ioas->users++;
	cmd->out_hwpt_id = hwpt->id;
	result = pl_copy_out((char *)user + offsetof(struct abi_hwpt_alloc, out_hwpt_id),
			     &cmd->out_hwpt_id, sizeof(cmd->out_hwpt_id));
	if (result < 0)
		pl_object_destroy(ctx, hwpt);
	return result;
}

int pl_hwpt_hw_info(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_hw_info *cmd = arg;
	struct pl_object *device;
	static const char zero[PL_PAGE];
	int result = 0;

	if (cmd->flags || cmd->reserved)
		return -EOPNOTSUPP;
	device = pl_object_find(ctx, cmd->dev_id, PL_OBJECT_DEVICE);
	if (!device)
		return -ENOENT;
	for (uint64_t done = 0; done < cmd->data_len && !result; done += sizeof(zero)) {
		uint64_t piece = cmd->data_len - done;

		result = pl_copy_out(pl_user(cmd->data_uptr + done), zero,
				     piece < sizeof(zero) ? piece : sizeof(zero));
	}
	if (result < 0)
		return result;
	cmd->data_len = 0;
	cmd->out_data_type = 0;
	cmd->out_capabilities = device->device.dev->migration.dirty_log ? ABI_HW_CAP_DIRTY_TRACKING
									: 0;
	return pl_copy_out(user, cmd, sizeof(*cmd));
}

/* ---- dirty tracking ---- */

static int start_log(struct pl_hwpt *hwpt, struct pl_dev *dev)
{
	struct qsc_dma_range *ranges;
	uint64_t page_size = PL_PAGE;
	size_t count;
	int result = pl_ioas_log_ranges(&hwpt->ioas->ioas, &ranges, &count);

	if (result < 0 || !count)
		return result;
	pl_dev_count(dev, QSC_ACTION_LOG_START);
	result = qsc_device_log_start(dev->dev, &page_size, ranges, count);
	dev->table_log = !result;
	free(ranges);
	return result;
}

static void stop_log(struct pl_dev *dev)
{
	if (!dev->table_log)
		return;
	dev->table_log = false;
	pl_dev_count(dev, QSC_ACTION_LOG_REPORT);
	(void)qsc_device_log_stop(dev->dev);
}

static void stop_all(struct pl_hwpt *hwpt)
{
	for (uint32_t i = 0; i < hwpt->num_devices; i++)
		stop_log(hwpt->devices[i]);
	if (hwpt->tracking)
		pl_ioas_track(&hwpt->ioas->ioas, false);
	hwpt->tracking = false;
}

static int start_all(struct pl_hwpt *hwpt)
{
	int result = 0;

	if (hwpt->tracking)
		return 0;
	/* From here on what is mapped is not in the logs, and counts as written. */
	pl_ioas_track(&hwpt->ioas->ioas, true);
	hwpt->tracking = true;
	hwpt->lost = false;
	for (uint32_t i = 0; i < hwpt->num_devices && !result; i++)
		result = start_log(hwpt, hwpt->devices[i]);
	if (result < 0)
		stop_all(hwpt);
	return result;
}

int pl_hwpt_set_tracking(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_set_dirty_tracking *cmd = arg;
	struct pl_object *object;

	if ((cmd->flags & ~ABI_DIRTY_TRACKING_ENABLE) || cmd->reserved)
		return -EOPNOTSUPP;
	object = pl_object_find(ctx, cmd->hwpt_id, PL_OBJECT_HWPT);
	if (!object)
		return -ENOENT;
	if (!object->hwpt.can_track)
		return -EOPNOTSUPP;
	if (cmd->flags & ABI_DIRTY_TRACKING_ENABLE)
		return start_all(&object->hwpt);
	stop_all(&object->hwpt);
	return 0;
}

static int report(void *ctx, uint64_t iova, uint64_t size, uint64_t page_size, uint64_t *bitmap)
{
	const struct pl_hwpt *hwpt = ctx;
	int result = 0;

	for (uint32_t i = 0; i < hwpt->num_devices && !result; i++) {
		struct pl_dev *dev = hwpt->devices[i];

		if (!dev->table_log)
			continue;
		pl_dev_count(dev, QSC_ACTION_LOG_REPORT);
		result = qsc_device_log_report(dev->dev, iova, size, page_size, bitmap);
	}
	pl_ioas_mark(&hwpt->ioas->ioas, iova, size, page_size, bitmap, !hwpt->lost);
	return result;
}

int pl_hwpt_get_bitmap(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_get_dirty_bitmap *cmd = arg;
	struct pl_object *object;
	struct pl_ioas *ioas;
	uint64_t last = cmd->iova + cmd->length - 1;
	int result;

	if ((cmd->flags & ~ABI_DIRTY_BITMAP_NO_CLEAR) || cmd->reserved)
		return -EOPNOTSUPP;
	object = pl_object_find(ctx, cmd->hwpt_id, PL_OBJECT_HWPT);
	if (!object)
		return -ENOENT;
	if (!object->hwpt.can_track)
		return -EOPNOTSUPP;
	if (cmd->page_size < PL_PAGE || (cmd->page_size & (cmd->page_size - 1)) || !cmd->length ||
	    cmd->iova % PL_PAGE || cmd->length % PL_PAGE || !object->hwpt.tracking)
		return -EINVAL;
	if (last < cmd->iova)
		return -EOVERFLOW;
	ioas = &object->hwpt.ioas->ioas;
	if (!pl_ioas_covered(ioas, cmd->iova, last))
		return -EINVAL;
	result = pl_bitmap_report(report, &object->hwpt, cmd->iova, cmd->length, cmd->page_size,
				  pl_user(cmd->data));
	/* The logs forget what they report: what must be said again counts as written from now on.
	 */
	if (cmd->flags & ABI_DIRTY_BITMAP_NO_CLEAR)
		pl_ioas_unlog(ioas, cmd->iova, last);
	return result;
}

/* ---- devices ---- */

int pl_hwpt_join(struct pl_object *object, struct pl_dev *dev)
{
	struct pl_hwpt *hwpt = &object->hwpt;
	int result;

	if (hwpt->can_track && !dev->migration.dirty_log)
		return -EINVAL;
	result = pl_ioas_attach(&hwpt->ioas->ioas, dev);
	if (!result && hwpt->tracking) {
		result = start_log(hwpt, dev);
		if (result < 0)
			pl_ioas_detach(&hwpt->ioas->ioas, dev);
	}
	if (!result)
		hwpt->devices[hwpt->num_devices++] = dev;
	return result;
}

void pl_hwpt_leave(struct pl_object *object, struct pl_dev *dev)
{
	struct pl_hwpt *hwpt = &object->hwpt;
	uint32_t at = 0;

	while (at < hwpt->num_devices && hwpt->devices[at] != dev)
		at++;
	if (at < hwpt->num_devices)
		hwpt->devices[at] = hwpt->devices[--hwpt->num_devices];
	/* What it wrote and nobody has asked for goes with its log. */
	hwpt->lost = hwpt->lost || dev->table_log;
	stop_log(dev);
	pl_ioas_detach(&hwpt->ioas->ioas, dev);
}

void pl_hwpt_release(struct pl_object *hwpt)
{
	stop_all(&hwpt->hwpt);
	hwpt->hwpt.ioas->users--;
}
