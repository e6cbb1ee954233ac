/* SPDX-License-Identifier: MIT */
/* See shape.h. */
#include "migrate/shape.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/cleanup.h"
#include "device/layout.h"
#include "migrate/frame.h"

void qsc_shape_release(struct qsc_shape *shape)
{
	free(shape->members);
	free(shape->memory);
	free(shape->peers);
	*shape = (struct qsc_shape)QSC_SHAPE_NONE;
}

int qsc_shape_allocate(struct qsc_shape *shape, uint32_t members, uint32_t memory)
{
	/* Never asks for nothing, so that NULL means one thing. */
	shape->members = calloc(members + 1U, sizeof(*shape->members));
	shape->memory = calloc(memory + 1U, sizeof(*shape->memory));
	if (!shape->members || !shape->memory)
		return -ENOMEM;
	shape->num_members = members;
	shape->num_memory = memory;
	return 0;
}

/* ---- describing what is here ---- */

static uint32_t read_config(struct qsc_device *dev, uint64_t offset)
{
	uint8_t bytes[4];

	if (qsc_device_region_read(dev, VFIO_PCI_CONFIG_REGION_INDEX, offset, bytes,
				   sizeof(bytes)) != sizeof(bytes))
		return 0;
	return qsc_get_u32(bytes);
}

static int describe_layout(struct qsc_shape_member *member, struct qsc_device *dev)
{
	struct qsc_region_info region;
	struct qsc_irq_info irq;
	uint32_t i;
	int result;

	for (i = 0; i < member->num_regions; i++) {
		result = qsc_device_get_region_info(dev, i, &region);
		if (result < 0)
			return result;
		member->regions[i].size = region.size;
		/* Whether it can be mapped is a matter of how the device is reached. */
		member->regions[i].flags = region.flags & (VFIO_REGION_INFO_FLAG_READ |
							   VFIO_REGION_INFO_FLAG_WRITE);
	}
	for (i = 0; i < member->num_irqs; i++) {
		result = qsc_device_get_irq_info(dev, i, &irq);
		if (result < 0)
			return result;
		member->irq_counts[i] = irq.count;
	}
	return 0;
}

static int describe_member(struct qsc_shape_member *member, const struct qsc_set *set,
			   uint32_t index, struct qsc_error *err)
{
	struct qsc_device *dev = qsc_set_device(set, index);
	const char *name = qsc_set_name(set, index);
	struct qsc_device_info info;
	int result = qsc_device_get_info(dev, &info);

	if (strlen(name) >= sizeof(member->name))
		return qsc_error_set(err, ENAMETOOLONG, NULL,
				     "the name of device '%s' is longer than %zu bytes", name,
				     sizeof(member->name) - 1);
	(void)snprintf(member->name, sizeof(member->name), "%s", name);
	member->migration_flags = qsc_set_flags(set, index);
	if (result == 0 && (info.num_regions > QSC_SHAPE_REGIONS || info.num_irqs > QSC_SHAPE_IRQS))
		return qsc_error_set(err, E2BIG, NULL,
				     "device '%s' has %u regions and %u interrupt indices; at most "
				     "%u and %u can move",
				     name, info.num_regions, info.num_irqs, QSC_SHAPE_REGIONS,
				     QSC_SHAPE_IRQS);
	if (result == 0 && !qsc_layout_valid(&info.layout))
		result = -EPROTO;
	if (result == 0) {
		member->layout = info.layout;
		member->device_flags = info.flags & ~(uint32_t)VFIO_DEVICE_FLAGS_CAPS;
		member->num_regions = info.num_regions;
		member->num_irqs = info.num_irqs;
		result = describe_layout(member, dev);
	}
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "device '%s' does not describe itself: %s",
				     name, strerrordesc_np(-result));
	if (info.flags & VFIO_DEVICE_FLAGS_PCI && info.num_regions > VFIO_PCI_CONFIG_REGION_INDEX) {
		member->ids[0] = read_config(dev, PCI_VENDOR_ID);
		member->ids[1] = read_config(dev, PCI_CLASS_REVISION);
		member->ids[2] = read_config(dev, PCI_SUBSYSTEM_VENDOR_ID);
	}
	return 0;
}

int qsc_shape_describe(struct qsc_shape *shape, const struct qsc_set *set,
		       const struct qsc_migrate_user *user, struct qsc_error *err)
{
	uint32_t i;
	int result;

	if (qsc_set_count(set) > QSC_SHAPE_MEMBERS || user->num_regions > QSC_SHAPE_MEMORY)
		return qsc_error_set(err, E2BIG, NULL,
				     "%u devices and %u memory regions are more than the %u and %u "
				     "that can move together",
				     qsc_set_count(set), user->num_regions, QSC_SHAPE_MEMBERS,
				     QSC_SHAPE_MEMORY);
	if (qsc_shape_allocate(shape, qsc_set_count(set), user->num_regions) < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to describe the set");
	for (i = 0; i < user->num_regions; i++) {
		const struct qsc_memory_region *region = &user->regions[i];

		if (region->address % QSC_PAGE_SIZE || region->size % QSC_PAGE_SIZE ||
		    !qsc_range_valid(region->address, region->size))
			return qsc_error_set(err, EINVAL, NULL,
					     "memory region %u (%#llx bytes at %#llx) is not made "
					     "of whole pages of 4 KiB",
					     i, (unsigned long long)region->size,
					     (unsigned long long)region->address);
		shape->memory[i].address = region->address;
		shape->memory[i].size = region->size;
	}
	for (i = 0; i < qsc_set_count(set); i++) {
		result = describe_member(&shape->members[i], set, i, err);
		if (result < 0)
			return result;
	}
	shape->tells_user = true;
	if (user->kind && strlen(user->kind) >= sizeof(shape->user))
		return qsc_error_set(err, ENAMETOOLONG, NULL,
				     "what the user says that it is takes more than %zu bytes",
				     sizeof(shape->user) - 1);
	(void)snprintf(shape->user, sizeof(shape->user), "%s", user->kind ? user->kind : "");
	return qsc_shape_describe_peers(shape, set, err);
}

/* ---- comparing ---- */

/* Room that is kept for what no longer fits: "; and 12345 more". */
#define MORE_ROOM 32

struct differences {
	char *text;
	size_t size;
	size_t used;
	unsigned int count;
	unsigned int left_out;
};

static void add_difference(struct differences *list, const char *text)
{
	size_t need = strlen(text) + (list->used ? 2 : 0);

	list->count++;
	/* Once one was left out all are, so that those that stand there are the first. */
	if (list->left_out || list->used + need + MORE_ROOM >= list->size) {
		list->left_out++;
		return;
	}
	list->used += (size_t)snprintf(list->text + list->used, list->size - list->used, "%s%s",
				       list->used ? "; " : "", text);
}

static void differ(struct differences *list, const char *fmt, ...) QSC_PRINTF(2, 3);
static void differ(struct differences *list, const char *fmt, ...)
{
	char text[512];
	va_list args;

	va_start(args, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.*) */
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	add_difference(list, text);
}

static void compare_regions(const struct qsc_shape_member *ours,
			    const struct qsc_shape_member *theirs, struct differences *list)
{
	uint32_t i;

	if (ours->num_regions != theirs->num_regions)
		differ(list, "'%s' has %u regions at the source and %u at the destination",
		       ours->name, theirs->num_regions, ours->num_regions);
	else
		for (i = 0; i < ours->num_regions; i++) {
			if (ours->regions[i].size != theirs->regions[i].size)
				differ(list,
				       "region %u of '%s' has %#llx bytes at the source and %#llx "
				       "at the destination",
				       i, ours->name, (unsigned long long)theirs->regions[i].size,
				       (unsigned long long)ours->regions[i].size);
			else if (ours->regions[i].flags != theirs->regions[i].flags)
				differ(list,
				       "region %u of '%s' has access flags %#x at the source and "
				       "%#x at the destination",
				       i, ours->name, theirs->regions[i].flags,
				       ours->regions[i].flags);
		}
	if (ours->num_irqs != theirs->num_irqs)
		differ(list,
		       "'%s' has %u interrupt indices at the source and %u at the destination",
		       ours->name, theirs->num_irqs, ours->num_irqs);
	else
		for (i = 0; i < ours->num_irqs; i++)
			if (ours->irq_counts[i] != theirs->irq_counts[i])
				differ(list,
				       "interrupt index %u of '%s' has %u vectors at the source "
				       "and %u "
				       "at the destination",
				       i, ours->name, theirs->irq_counts[i], ours->irq_counts[i]);
}

struct layout_of {
	struct differences *list;
	const char *name;
};

static void differ_in_layout(void *ctx, const char *reason)
{
	const struct layout_of *of = ctx;

	differ(of->list, "'%s': %s", of->name, reason);
}

static void compare_member(uint32_t index, const struct qsc_shape_member *ours,
			   const struct qsc_shape_member *theirs, struct differences *list)
{
	static const char *const what[] = {"PCI vendor and device", "PCI class and revision",
					   "PCI subsystem"};
	uint32_t i;

	if (strcmp(ours->name, theirs->name) != 0)
		differ(list, "member %u is device '%s' at the source and '%s' at the destination",
		       index, theirs->name, ours->name);
	if (ours->migration_flags != theirs->migration_flags)
		differ(list, "'%s' has migration flags %u at the source and %u at the destination",
		       ours->name, theirs->migration_flags, ours->migration_flags);
	if (ours->device_flags != theirs->device_flags)
		differ(list, "'%s' has device flags %#x at the source and %#x at the destination",
		       ours->name, theirs->device_flags, ours->device_flags);
	for (i = 0; i < QSC_ARRAY_SIZE(ours->ids); i++)
		if (ours->ids[i] != theirs->ids[i])
			differ(list, "%s of '%s' is %08x at the source and %08x at the destination",
			       what[i], ours->name, theirs->ids[i], ours->ids[i]);
	compare_regions(ours, theirs, list);
	qsc_layout_compare(&ours->layout, &theirs->layout, differ_in_layout,
			   &(struct layout_of){list, ours->name});
}

static void add_peer_difference(void *ctx, const char *text)
{
	add_difference(ctx, text);
}

static void compare_user(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			 struct differences *list)
{
	static const char *const nobody = "one that says nothing of itself";

	if (!ours->tells_user || !theirs->tells_user || strcmp(ours->user, theirs->user) == 0)
		return;
	differ(list, "the user is %s at the source and %s at the destination",
	       *theirs->user ? theirs->user : nobody, *ours->user ? ours->user : nobody);
}

static void compare_memory(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			   struct differences *list)
{
	uint32_t i;

	if (ours->num_memory != theirs->num_memory)
		differ(list, "memory has %u regions at the source and %u at the destination",
		       theirs->num_memory, ours->num_memory);
	for (i = 0; i < ours->num_memory && i < theirs->num_memory; i++)
		if (ours->memory[i].address != theirs->memory[i].address ||
		    ours->memory[i].size != theirs->memory[i].size)
			differ(list,
			       "memory region %u is %#llx bytes at %#llx at the source and %#llx "
			       "bytes at %#llx at the destination",
			       i, (unsigned long long)theirs->memory[i].size,
			       (unsigned long long)theirs->memory[i].address,
			       (unsigned long long)ours->memory[i].size,
			       (unsigned long long)ours->memory[i].address);
}

unsigned int qsc_shape_compare(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			       char *text, size_t size)
{
	struct differences list = {.text = text, .size = size};
	uint32_t i;

	if (size)
		text[0] = '\0';
	if (ours->num_members != theirs->num_members)
		differ(&list, "the set has %u devices at the source and %u at the destination",
		       theirs->num_members, ours->num_members);
	for (i = 0; i < ours->num_members || i < theirs->num_members; i++)
		if (i >= ours->num_members)
			differ(&list,
			       "member %u, device '%s' at the source, is missing at the "
			       "destination",
			       i, theirs->members[i].name);
		else if (i >= theirs->num_members)
			differ(&list,
			       "member %u, device '%s' at the destination, is missing at the "
			       "source",
			       i, ours->members[i].name);
		else
			compare_member(i, &ours->members[i], &theirs->members[i], &list);
	compare_memory(ours, theirs, &list);
	if (ours->tells_peers && theirs->tells_peers)
		qsc_shape_compare_peers(ours, theirs, add_peer_difference, &list);
	compare_user(ours, theirs, &list);
	if (list.left_out)
		(void)snprintf(text + list.used, size - list.used, "%s%u more",
			       list.used ? "; and " : "", list.left_out);
	return list.count;
}
