/* SPDX-License-Identifier: MIT */
/* Page tables (HWPT) of an iommufd and their dirty tracking. The iommufd's lock is held. */
#ifndef PRELOAD_HWPT_H
#define PRELOAD_HWPT_H

#include "objects.h"

/* Commands: the structure read, and where it came from. */
int pl_hwpt_alloc(struct pl_iommufd *ctx, void *arg, void *user);
int pl_hwpt_hw_info(struct pl_iommufd *ctx, void *arg, void *user);
int pl_hwpt_set_tracking(struct pl_iommufd *ctx, void *arg, void *user);
int pl_hwpt_get_bitmap(struct pl_iommufd *ctx, void *arg, void *user);

/* A device is attached, or leaves. */
int pl_hwpt_join(struct pl_object *object, struct pl_dev *dev);
void pl_hwpt_leave(struct pl_object *object, struct pl_dev *dev);
void pl_hwpt_release(struct pl_object *hwpt);

#endif
