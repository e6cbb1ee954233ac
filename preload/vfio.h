/* SPDX-License-Identifier: MIT */
/* The file of a device, whether it has a path of its own or comes from its group. */
#ifndef PRELOAD_VFIO_H
#define PRELOAD_VFIO_H

#include <stdint.h>

#include "file.h"

struct pl_dev;

/* /dev/vfio/devices/vfioN, not bound to an iommufd yet. NULL: no memory. */
struct pl_file *pl_cdev_new(uint32_t index);

/* Of a group, whose file is held: the group is told when it closes. Takes over the device. */
struct pl_file *pl_group_device_new(struct pl_file *group, struct pl_dev *dev);

#endif
