/* SPDX-License-Identifier: MIT */
/* A container (/dev/vfio/vfio): one I/O address space for the groups in it, of "type 1". */
#ifndef PRELOAD_CONTAINER_H
#define PRELOAD_CONTAINER_H

#include <stdbool.h>

#include "file.h"

struct pl_dev;

/* NULL: no memory. */
struct pl_file *pl_container_new(void);
bool pl_is_container(const struct pl_file *file);

/* A group comes and goes. With the last one, the kind of IOMMU is open again. */
void pl_container_join(struct pl_file *file);
void pl_container_leave(struct pl_file *file);
/* Whether its kind of IOMMU is set: devices can be opened. */
bool pl_container_ready(struct pl_file *file);

int pl_container_attach(struct pl_file *file, struct pl_dev *dev);
void pl_container_detach(struct pl_file *file, struct pl_dev *dev);

#endif
