/* SPDX-License-Identifier: MIT */
/* Whether memory of this process is there, and which file is behind it. */
#ifndef PRELOAD_MEMORY_H
#define PRELOAD_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Look at [addr, addr + size): -EFAULT when part of it cannot be read (or written, with `write`),
 * else 0. *fd is a file that is the same memory, with its offset, for others to map; the caller
 * owns it. -1 when there is none, as for private memory.
 */
int pl_memory_find(const char *addr, uint64_t size, bool write, int *fd, uint64_t *fd_offset);

#endif
