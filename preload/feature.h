/* SPDX-License-Identifier: MIT */
/* VFIO_DEVICE_FEATURE: migration and dirty logging. */
#ifndef PRELOAD_FEATURE_H
#define PRELOAD_FEATURE_H

struct pl_dev;

int pl_feature(struct pl_dev *dev, void *arg);

#endif
