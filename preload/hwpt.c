/* SPDX-License-Identifier: MIT */
/* See hwpt.h. */
#include "hwpt.h"

#include <errno.h>
#include <string.h>

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
	static const char zero[256];
	int result = 0;

	if (cmd->flags || cmd->reserved)
		return -EOPNOTSUPP;
	device = pl_object_find(ctx, cmd->dev_id, PL_OBJECT_DEVICE);
	if (!device)
		return -ENOENT;
	for (uint32_t done = 0; done < cmd->data_len && !result; done += sizeof(zero)) {
		uint32_t piece = cmd->data_len - done;

		result = pl_copy_out(pl_user(cmd->data_uptr + done), zero,
				     piece < sizeof(zero) ? piece : sizeof(zero));
	}
	if (result < 0)
		return result;
	cmd->data_len = 0;
	cmd->out_data_type = 0;
	cmd->out_capabilities = 0;
	return pl_copy_out(user, cmd, sizeof(*cmd));
}

int pl_hwpt_set_tracking(struct pl_iommufd *ctx, void *arg, void *user)
{
	return -EOPNOTSUPP;
}

int pl_hwpt_get_bitmap(struct pl_iommufd *ctx, void *arg, void *user)
{
	return -EOPNOTSUPP;
}

int pl_hwpt_join(struct pl_object *hwpt, struct pl_dev *dev)
{
	return pl_ioas_attach(&hwpt->hwpt.ioas->ioas, dev);
}

void pl_hwpt_leave(struct pl_object *hwpt, struct pl_dev *dev)
{
	pl_ioas_detach(&hwpt->hwpt.ioas->ioas, dev);
}

void pl_hwpt_release(struct pl_object *hwpt)
{
	hwpt->hwpt.ioas->users--;
}
