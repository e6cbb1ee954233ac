/* SPDX-License-Identifier: MIT */
/* The files that carry a device's state. */
#ifndef PRELOAD_SESSION_H
#define PRELOAD_SESSION_H

#include <stdint.h>

#include "file.h"

struct pl_dev;

/* A file without a session yet, whose reads and writes fail; holds the device. NULL: no memory. */
struct pl_file *pl_session_new(struct pl_dev *dev);
/* The session that the device has opened. */
void pl_session_set(struct pl_file *file, uint64_t session);

#endif
