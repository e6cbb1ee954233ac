/* SPDX-License-Identifier: MIT */
/* A folder that looks as a PCI device does in sysfs, for programs that find devices there. */
#ifndef TOOL_SYSFS_H
#define TOOL_SYSFS_H

#include <stdint.h>

#include <quiesce/base.h>

/* Make the folder of device `index` below that of the run. 0 or -errno. */
int sysfs_make(const char *folder, uint32_t index, struct qsc_error *err);
/* Its path, PATH_MAX bytes. */
void sysfs_path(const char *folder, uint32_t index, char *path);
/* The PCI address, as host= takes it; 32 bytes. */
void sysfs_host(uint32_t index, char *host);

#endif
