/* SPDX-License-Identifier: MIT */
/*
 * The paths that are ours: /dev/iommu, /dev/vfio/… and the devices' folders in sysfs. Where no
 * devices were given, none is.
 */
#ifndef PRELOAD_PATHS_H
#define PRELOAD_PATHS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "file.h"

/* A file of that kind; the maker for pl_file_init(). */
struct pl_file *pl_path_make(enum handover_kind kind, uint32_t index);

/* Whether the path is one of ours in /dev. */
bool pl_path_ours(const char *path, enum handover_kind *kind, uint32_t *index);
/* Whether it names the file of a descriptor that is ours: /proc/self/fd/N and the like. */
bool pl_path_again(const char *path, enum handover_kind *kind, uint32_t *index);
/*
 * Where a path in sysfs really is, when it is one of ours: a copy in `real`, PATH_MAX bytes; else
 * the path itself.
 */
const char *pl_path_real(const char *path, char *real);
/* What stat(2) says of a file of that kind. */
void pl_path_stat(enum handover_kind kind, uint32_t index, struct stat *st);
/*
 * open(2) of such a path: a descriptor of a file of its own, or -errno. -ENXIO for files that have
 * no path: sessions, and devices of a group.
 */
int pl_path_open(enum handover_kind kind, uint32_t index, int flags);

#endif
