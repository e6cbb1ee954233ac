/* SPDX-License-Identifier: MIT */
/* Any calls on any files of the preload library, chosen by bytes. */
#ifndef TESTS_PRELOAD_SURFACE_H
#define TESTS_PRELOAD_SURFACE_H

#include <stddef.h>
#include <stdint.h>

/* Describe two devices to the library, once for the process. 0 or -errno. */
int surface_init(void);

/* Open all kinds of files, do what the bytes say, close everything. */
void surface_run(const uint8_t *data, size_t size);

#endif
