/* SPDX-License-Identifier: MIT */
/* /dev/iommu: objects by number, and what a device file needs of it. */
#ifndef PRELOAD_IOMMUFD_H
#define PRELOAD_IOMMUFD_H

#include <stdint.h>

#include "file.h"

struct pl_dev;

struct pl_file *pl_iommufd_new(void);
bool pl_is_iommufd(const struct pl_file *file);

/* The device becomes an object, until unbind, which also detaches it. Or -errno. */
int pl_iommufd_bind(struct pl_file *iommufd, struct pl_dev *dev, uint32_t *id);
void pl_iommufd_unbind(struct pl_file *iommufd, uint32_t id);
/* *pt: an IOAS or a page table in; the page table out. Attached already, it moves over. */
int pl_iommufd_attach(struct pl_file *iommufd, uint32_t id, uint32_t *pt);
void pl_iommufd_detach(struct pl_file *iommufd, uint32_t id);

#endif
