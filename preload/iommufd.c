/* SPDX-License-Identifier: MIT */
/*
 * See iommufd.h. Objects are an IOAS, a page table (HWPT) that stands for one IOAS as some devices
 * see it, or a bound device. One lock for an iommufd: its calls set things up, and none is made
 * while data flows.
 */
#include "iommufd.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "abi/vfio.h"
#include "device.h"
#include "hwpt.h"
#include "ioas.h"
#include "objects.h"
#include "user.h"

/* ---- objects ---- */

static int add_object(struct pl_iommufd *ctx, struct pl_object *object)
{
	uint32_t id = 1;

	while (id < ctx->num_objects && ctx->objects[id])
		id++;
	if (id >= ctx->num_objects) {
		uint32_t count = ctx->num_objects ? 2 * ctx->num_objects : 16;
		struct pl_object **objects;

		if (id >= PL_MAX_OBJECTS)
			return -ENOSPC;
		objects = realloc(ctx->objects, count * sizeof(struct pl_object *));
		if (!objects)
			return -ENOMEM;
		memset(objects + ctx->num_objects, 0,
		       (count - ctx->num_objects) * sizeof(struct pl_object *));
		ctx->objects = objects;
		ctx->num_objects = count;
		if (!id)
			id = 1;
	}
	object->id = id;
	ctx->objects[id] = object;
	return 0;
}

/* A new object with its number, or NULL and *result. */
struct pl_object *pl_object_new(struct pl_iommufd *ctx, enum pl_object_type type, int *result)
{
	struct pl_object *object = calloc(1, sizeof(*object));

	*result = object ? 0 : -ENOMEM;
	if (!object)
		return NULL;
	object->type = type;
	if (type == PL_OBJECT_IOAS)
		*result = pl_ioas_init(&object->ioas);
	if (!*result)
		*result = add_object(ctx, object);
	if (*result < 0) {
		free(object);
		return NULL;
	}
	return object;
}

struct pl_object *pl_object_find(struct pl_iommufd *ctx, uint32_t id, enum pl_object_type type)
{
	struct pl_object *object = id < ctx->num_objects ? ctx->objects[id] : NULL;

	return object && (type == PL_OBJECT_ANY || object->type == type) ? object : NULL;
}

void pl_object_destroy(struct pl_iommufd *ctx, struct pl_object *object)
{
	ctx->objects[object->id] = NULL;
	if (ctx->vfio_ioas == object)
		ctx->vfio_ioas = NULL;
	if (object->type == PL_OBJECT_IOAS)
		pl_ioas_release(&object->ioas);
	if (object->type == PL_OBJECT_HWPT)
		pl_hwpt_release(object);
	free(object);
}

/* ---- commands ---- */

static int do_destroy(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_destroy *cmd = arg;
	struct pl_object *object = pl_object_find(ctx, cmd->id, PL_OBJECT_ANY);

	if (!object)
		return -ENOENT;
	/* Its device file holds a device. */
	if (object->users || object->type == PL_OBJECT_DEVICE)
		return -EBUSY;
	pl_object_destroy(ctx, object);
	return 0;
}

static int do_ioas_alloc(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_ioas_alloc *cmd = arg;
	struct pl_object *object;
	int result;

	if (cmd->flags)
		return -EOPNOTSUPP;
	object = pl_object_new(ctx, PL_OBJECT_IOAS, &result);
	if (!object)
		return result;
	cmd->out_ioas_id = object->id;
	result = pl_copy_out(user, cmd, sizeof(*cmd));
	if (result < 0)
		pl_object_destroy(ctx, object);
	return result;
}

static int do_iova_ranges(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_ioas_iova_ranges *cmd = arg;
	struct abi_iova_range ranges[4];
	struct pl_object *object;
	uint32_t room = cmd->num_iovas;
	int result;

	if (cmd->reserved)
		return -EOPNOTSUPP;
	object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
	if (!object)
		return -ENOENT;
	cmd->num_iovas = pl_ioas_ranges(&object->ioas, ranges, 4);
	cmd->out_iova_alignment = pl_ioas_alignment(&object->ioas);
	if (room > cmd->num_iovas)
		room = cmd->num_iovas;
	result = pl_copy_out(pl_user(cmd->allowed_iovas), ranges, room * sizeof(ranges[0]));
	if (!result)
		result = pl_copy_out(user, cmd, sizeof(*cmd));
	if (!result && cmd->num_iovas > room)
		result = -EMSGSIZE;
	return result;
}

/* Ranges that are some, and apart from one another. */
static int check_allowed(const struct abi_iova_range *ranges, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (ranges[i].start >= ranges[i].last)
			return -EINVAL;
		for (uint32_t j = 0; j < i; j++)
			if (ranges[i].start <= ranges[j].last && ranges[j].start <= ranges[i].last)
				return -EINVAL;
	}
	return 0;
}

#define MAX_ALLOWED 4096U /* ranges; each is compared with each */

static int do_allow_iovas(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_ioas_allow_iovas *cmd = arg;
	struct abi_iova_range *ranges = NULL;
	struct pl_object *object;
	int result = 0;

	if (cmd->reserved)
		return -EOPNOTSUPP;
	object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
	if (!object)
		return -ENOENT;
	if (cmd->num_iovas > MAX_ALLOWED)
		return -ENOMEM;
	if (cmd->num_iovas) {
		ranges = calloc(cmd->num_iovas, sizeof(*ranges));
		if (!ranges)
			return -ENOMEM;
		result = pl_copy_in(ranges, pl_user(cmd->allowed_iovas),
				    cmd->num_iovas * sizeof(*ranges));
	}
	if (!result)
		result = check_allowed(ranges, cmd->num_iovas);
	if (!result)
		result = pl_ioas_allow(&object->ioas, ranges, cmd->num_iovas);
	if (result < 0)
		free(ranges);
	return result;
}

/* The flags that IOAS_MAP, MAP_FILE and COPY share. */
static int map_flags(uint32_t flags, struct pl_map *map)
{
	if (flags & ~(ABI_MAP_FIXED_IOVA | ABI_MAP_WRITEABLE | ABI_MAP_READABLE))
		return -EOPNOTSUPP;
	map->fixed = flags & ABI_MAP_FIXED_IOVA;
	map->flags = (flags & ABI_MAP_READABLE ? QSC_DMA_READ : 0) |
		     (flags & ABI_MAP_WRITEABLE ? QSC_DMA_WRITE : 0);
	return 0;
}

/* Map, tell where, or undo it. `out` is where the structure has its iova. */
static int map_and_tell(struct pl_ioas *ioas, struct pl_map *map, void *user, size_t out)
{
	uint64_t unmapped;
	int result = pl_ioas_map(ioas, map);

	if (result < 0)
		return result;
	result = pl_copy_out((char *)user + out, &map->iova, sizeof(map->iova));
	if (result < 0)
		(void)pl_ioas_unmap(ioas, map->iova, map->iova + map->size - 1, &unmapped);
	return result;
}

static int do_map(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_ioas_map *cmd = arg;
	struct pl_map map = {
		.iova = cmd->iova, .size = cmd->length, .vaddr = pl_user(cmd->user_va), .fd = -1};
	struct pl_object *object;
	int result = map_flags(cmd->flags, &map);

	if (result < 0 || cmd->reserved)
		return -EOPNOTSUPP;
	if (cmd->iova == UINT64_MAX || cmd->length == UINT64_MAX)
		return -EOVERFLOW;
	if (!map.flags)
		return -EINVAL;
	object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
	if (!object)
		return -ENOENT;
	return map_and_tell(&object->ioas, &map, user, offsetof(struct abi_ioas_map, iova));
}

static int do_map_file(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_ioas_map_file *cmd = arg;
	struct pl_map map = {
		.iova = cmd->iova, .size = cmd->length, .fd = cmd->fd, .fd_offset = cmd->start};
	struct pl_object *object;
	int result = map_flags(cmd->flags, &map);

	if (result < 0)
		return result;
	if (cmd->iova == UINT64_MAX || cmd->length == UINT64_MAX)
		return -EOVERFLOW;
	if (!map.flags)
		return -EINVAL;
	object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
	if (!object)
		return -ENOENT;
	if (cmd->fd < 0)
		return -EBADF;
	return map_and_tell(&object->ioas, &map, user, offsetof(struct abi_ioas_map_file, iova));
}

static int do_copy(struct pl_iommufd *ctx, void *arg, void *user)
{
	const struct abi_ioas_copy *cmd = arg;
	struct pl_map map = {.iova = cmd->dst_iova, .size = cmd->length, .fd = -1};
	struct pl_object *from;
	struct pl_object *to;
	uint64_t unmapped;
	int result = map_flags(cmd->flags, &map);

	if (result < 0)
		return result;
	if (cmd->length == UINT64_MAX || cmd->src_iova == UINT64_MAX || cmd->dst_iova == UINT64_MAX)
		return -EOVERFLOW;
	if (!map.flags)
		return -EINVAL;
	from = pl_object_find(ctx, cmd->src_ioas_id, PL_OBJECT_IOAS);
	to = pl_object_find(ctx, cmd->dst_ioas_id, PL_OBJECT_IOAS);
	if (!from || !to)
		return -ENOENT;
	result = pl_ioas_copy(&from->ioas, cmd->src_iova, &to->ioas, &map);
	if (result < 0)
		return result;
	result = pl_copy_out((char *)user + offsetof(struct abi_ioas_copy, dst_iova), &map.iova,
			     sizeof(map.iova));
	if (result < 0)
		(void)pl_ioas_unmap(&to->ioas, map.iova, map.iova + map.size - 1, &unmapped);
	return result;
}

static int do_unmap(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_ioas_unmap *cmd = arg;
	struct pl_object *object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
	bool all = !cmd->iova && cmd->length == UINT64_MAX;
	uint64_t last = all ? UINT64_MAX : cmd->iova + cmd->length - 1;
	int result;

	if (!object)
		return -ENOENT;
	if (!all && (cmd->iova == UINT64_MAX || cmd->length == UINT64_MAX))
		return -EOVERFLOW;
	if (!cmd->length)
		return -EINVAL;
	if (last < cmd->iova)
		return -EOVERFLOW;
	result = pl_ioas_unmap(&object->ioas, cmd->iova, last, &cmd->length);
	if (result < 0 && !(all && result == -ENOENT))
		return result;
	return pl_copy_out(user, cmd, sizeof(*cmd));
}

static int rlimit_option(struct pl_iommufd *ctx, struct abi_option *cmd)
{
	if (cmd->object_id)
		return -EOPNOTSUPP;
	if (cmd->op == ABI_OPTION_GET) {
		cmd->val64 = ctx->account_mm;
		return 0;
	}
	if (cmd->op != ABI_OPTION_SET)
		return -EOPNOTSUPP;
	for (uint32_t id = 1; id < ctx->num_objects; id++)
		if (ctx->objects[id])
			return -EBUSY;
	if (cmd->val64 > 1)
		return -EINVAL;
	ctx->account_mm = cmd->val64;
	return 0;
}

static int huge_option(struct pl_iommufd *ctx, struct abi_option *cmd)
{
	struct pl_object *object = pl_object_find(ctx, cmd->object_id, PL_OBJECT_IOAS);

	if (!object)
		return -ENOENT;
	if (cmd->op == ABI_OPTION_GET) {
		cmd->val64 = !object->small_pages;
		return 0;
	}
	if (cmd->op != ABI_OPTION_SET)
		return -EOPNOTSUPP;
	if (cmd->val64 > 1)
		return -EINVAL;
	/* Large pages cannot be taken apart once they are there. */
	if (!cmd->val64 && object->ioas.num_areas)
		return -EINVAL;
	object->small_pages = !cmd->val64;
	return 0;
}

static int do_option(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_option *cmd = arg;
	int result = -EOPNOTSUPP;

	if (cmd->reserved)
		return -EOPNOTSUPP;
	if (cmd->option_id == ABI_OPTION_RLIMIT_MODE)
		result = rlimit_option(ctx, cmd);
	else if (cmd->option_id == ABI_OPTION_HUGE_PAGES)
		result = huge_option(ctx, cmd);
	if (result < 0)
		return result;
	return pl_copy_out((char *)user + offsetof(struct abi_option, val64), &cmd->val64,
			   sizeof(cmd->val64));
}

static int do_vfio_ioas(struct pl_iommufd *ctx, void *arg, void *user)
{
	struct abi_vfio_ioas *cmd = arg;
	struct pl_object *object;

	if (cmd->reserved)
		return -EOPNOTSUPP;
	switch (cmd->op) {
	case ABI_VFIO_IOAS_GET:
		if (!ctx->vfio_ioas)
			return -ENODEV;
		cmd->ioas_id = ctx->vfio_ioas->id;
		return pl_copy_out(user, cmd, sizeof(*cmd));
	case ABI_VFIO_IOAS_SET:
		object = pl_object_find(ctx, cmd->ioas_id, PL_OBJECT_IOAS);
		if (!object)
			return -ENOENT;
		ctx->vfio_ioas = object;
		return 0;
	case ABI_VFIO_IOAS_CLEAR:
		ctx->vfio_ioas = NULL;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

#define COMMAND(number, struct_name, last, function)                    \
	[number] = {sizeof(struct struct_name),                         \
		    offsetof(struct struct_name, last) +                \
			    sizeof(((struct struct_name *)NULL)->last), \
		    function}

static const struct {
	size_t size;
	size_t least;
	int (*run)(struct pl_iommufd *ctx, void *arg, void *user);
} commands[ABI_IOMMUFD_COMMANDS] = {
	COMMAND(ABI_DESTROY, abi_destroy, id, do_destroy),
	COMMAND(ABI_IOAS_ALLOC, abi_ioas_alloc, out_ioas_id, do_ioas_alloc),
	COMMAND(ABI_IOAS_ALLOW_IOVAS, abi_ioas_allow_iovas, allowed_iovas, do_allow_iovas),
	COMMAND(ABI_IOAS_COPY, abi_ioas_copy, src_iova, do_copy),
	COMMAND(ABI_IOAS_IOVA_RANGES, abi_ioas_iova_ranges, out_iova_alignment, do_iova_ranges),
	COMMAND(ABI_IOAS_MAP, abi_ioas_map, iova, do_map),
	COMMAND(ABI_IOAS_MAP_FILE, abi_ioas_map_file, iova, do_map_file),
	COMMAND(ABI_IOAS_UNMAP, abi_ioas_unmap, length, do_unmap),
	COMMAND(ABI_OPTION, abi_option, val64, do_option),
	COMMAND(ABI_VFIO_IOAS, abi_vfio_ioas, reserved, do_vfio_ioas),
	COMMAND(ABI_HWPT_ALLOC, abi_hwpt_alloc, reserved, pl_hwpt_alloc),
	COMMAND(ABI_GET_HW_INFO, abi_hw_info, reserved, pl_hwpt_hw_info),
	COMMAND(ABI_HWPT_SET_DIRTY_TRACKING, abi_set_dirty_tracking, reserved,
		pl_hwpt_set_tracking),
	COMMAND(ABI_HWPT_GET_DIRTY_BITMAP, abi_get_dirty_bitmap, data, pl_hwpt_get_bitmap),
};

static struct pl_iommufd *iommufd_of(struct pl_file *file)
{
	return (struct pl_iommufd *)file;
}

/* The largest structure of them. */
union any_command {
	struct abi_hwpt_alloc alloc;
	struct abi_get_dirty_bitmap bitmap;
	uint64_t words[8];
};

static int iommufd_ioctl(struct pl_file *file, unsigned long command, void *user)
{
	struct pl_iommufd *ctx = iommufd_of(file);
	union any_command arg;
	unsigned int number = (unsigned int)_IOC_NR(command) - 0x80U;
	int result;

	if (number >= ABI_IOMMUFD_COMMANDS || command != ABI_IOMMUFD(number) ||
	    !commands[number].run)
		return -ENOTTY;
	result = pl_copy_struct(&arg, commands[number].size, commands[number].least, user);
	if (result < 0)
		return result;
	pthread_mutex_lock(&ctx->lock);
	result = commands[number].run(ctx, &arg, user);
	pthread_mutex_unlock(&ctx->lock);
	return result;
}

/* Devices hold the file, so none is bound any more. */
static void iommufd_release(struct pl_file *file)
{
	struct pl_iommufd *ctx = iommufd_of(file);
	uint32_t id;

	for (id = 1; id < ctx->num_objects; id++)
		if (ctx->objects[id] && ctx->objects[id]->type == PL_OBJECT_HWPT)
			pl_object_destroy(ctx, ctx->objects[id]);
	for (id = 1; id < ctx->num_objects; id++)
		if (ctx->objects[id])
			pl_object_destroy(ctx, ctx->objects[id]);
	free(ctx->objects);
	pthread_mutex_destroy(&ctx->lock);
	free(ctx);
}

static const struct pl_file_ops iommufd_ops = {
	.name = "iommufd",
	.ioctl = iommufd_ioctl,
	.release = iommufd_release,
};

struct pl_file *pl_iommufd_new(void)
{
	struct pl_iommufd *ctx = calloc(1, sizeof(*ctx));

	if (!ctx)
		return NULL;
	pthread_mutex_init(&ctx->lock, NULL);
	ctx->file.ops = &iommufd_ops;
	return &ctx->file;
}

bool pl_is_iommufd(const struct pl_file *file)
{
	return file->ops == &iommufd_ops;
}

/* ---- what a device file needs ---- */

int pl_iommufd_bind(struct pl_file *iommufd, struct pl_dev *dev, uint32_t *id)
{
	struct pl_iommufd *ctx = iommufd_of(iommufd);
	struct pl_object *object;
	int result;

	pthread_mutex_lock(&ctx->lock);
	object = pl_object_new(ctx, PL_OBJECT_DEVICE, &result);
	if (object) {
		object->device.dev = dev;
		*id = object->id;
		pl_file_hold(iommufd);
	}
	pthread_mutex_unlock(&ctx->lock);
	return result;
}

static void detach(struct pl_iommufd *ctx, struct pl_object *device)
{
	struct pl_object *hwpt = device->device.hwpt;

	if (!hwpt)
		return;
	pl_hwpt_leave(hwpt, device->device.dev);
	device->device.hwpt = NULL;
	hwpt->users--;
	if (hwpt->hwpt.automatic && !hwpt->users)
		pl_object_destroy(ctx, hwpt);
}

void pl_iommufd_unbind(struct pl_file *iommufd, uint32_t id)
{
	struct pl_iommufd *ctx = iommufd_of(iommufd);
	struct pl_object *device;

	pthread_mutex_lock(&ctx->lock);
	device = pl_object_find(ctx, id, PL_OBJECT_DEVICE);
	detach(ctx, device);
	pl_object_destroy(ctx, device);
	pthread_mutex_unlock(&ctx->lock);
	pl_file_put(iommufd);
}

/* Lock held. A page table that is made for whoever attaches to an IOAS; shared by them. */
static struct pl_object *automatic_hwpt(struct pl_iommufd *ctx, struct pl_object *ioas, int *result)
{
	struct pl_object *hwpt;

	for (uint32_t id = 1; id < ctx->num_objects; id++) {
		hwpt = pl_object_find(ctx, id, PL_OBJECT_HWPT);
		if (hwpt && hwpt->hwpt.automatic && hwpt->hwpt.ioas == ioas)
			return hwpt;
	}
	hwpt = pl_object_new(ctx, PL_OBJECT_HWPT, result);
	if (!hwpt)
		return NULL;
	hwpt->hwpt.automatic = true;
	hwpt->hwpt.ioas = ioas;
	ioas->users++;
	return hwpt;
}

int pl_iommufd_attach(struct pl_file *iommufd, uint32_t id, uint32_t *pt)
{
	struct pl_iommufd *ctx = iommufd_of(iommufd);
	struct pl_object *device;
	struct pl_object *hwpt;
	struct pl_object *old;
	int result = -ENOENT;

	pthread_mutex_lock(&ctx->lock);
	device = pl_object_find(ctx, id, PL_OBJECT_DEVICE);
	hwpt = pl_object_find(ctx, *pt, PL_OBJECT_ANY);
	if (!hwpt)
		goto out;
	if (hwpt->type == PL_OBJECT_IOAS)
		hwpt = automatic_hwpt(ctx, hwpt, &result);
	else if (hwpt->type != PL_OBJECT_HWPT)
		result = -EINVAL;
	if (!hwpt || hwpt->type != PL_OBJECT_HWPT)
		goto out;
	old = device->device.hwpt;
	result = 0;
	if (old != hwpt) {
		/* Two tables may map one address to different memory: first out, then in. */
		if (old)
			pl_hwpt_leave(old, device->device.dev);
		result = pl_hwpt_join(hwpt, device->device.dev);
		if (result < 0 && old)
			(void)pl_hwpt_join(old, device->device.dev);
	}
	if (!result && old != hwpt) {
		hwpt->users++;
		device->device.hwpt = hwpt;
		if (old) {
			old->users--;
			if (old->hwpt.automatic && !old->users)
				pl_object_destroy(ctx, old);
		}
	}
	*pt = hwpt->id;
	if (hwpt->hwpt.automatic && !hwpt->users)
		pl_object_destroy(ctx, hwpt);
out:
	pthread_mutex_unlock(&ctx->lock);
	return result;
}

void pl_iommufd_detach(struct pl_file *iommufd, uint32_t id)
{
	struct pl_iommufd *ctx = iommufd_of(iommufd);

	pthread_mutex_lock(&ctx->lock);
	detach(ctx, pl_object_find(ctx, id, PL_OBJECT_DEVICE));
	pthread_mutex_unlock(&ctx->lock);
}
