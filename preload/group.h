/* SPDX-License-Identifier: MIT */
/*
 * The older way to a device: its group (/dev/vfio/N) is put into a container (container.h) and
 * hands the device out.
 */
#ifndef PRELOAD_GROUP_H
#define PRELOAD_GROUP_H

#include <stdint.h>

#include "file.h"

/* -EBUSY while the group is open, -ENOMEM. */
int pl_group_new(uint32_t index, struct pl_file **file);

/* A file of the group's device is closing. */
void pl_group_device_closed(struct pl_file *file);

/* Around fork(): a child has none of its parent's groups open. */
void pl_groups_fork_prepare(void);
void pl_groups_fork_parent(void);
void pl_groups_fork_child(void);

#endif
