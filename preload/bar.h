/* SPDX-License-Identifier: MIT */
/*
 * The parts of devices that the command has mapped into its memory. A mapping keeps its address;
 * while the device is stopped it reads as all ones and writes to it vanish (DEV-7).
 */
#ifndef PRELOAD_BAR_H
#define PRELOAD_BAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The bytes of whole pages. */
static inline size_t pl_pages(size_t size)
{
	return (size + 4095) & ~4095UL;
}

struct pl_dev;
struct pl_file;

/*
 * mmap(2) of a device's file, which the mapping holds. *addr: where it is to be, as `flags` say;
 * where it is. prot of PROT_READ and PROT_WRITE, or PROT_NONE. 0 or -errno.
 */
int pl_bar_map(struct pl_file *file, struct pl_dev *dev, uint32_t region, uint64_t offset,
	       size_t size, int prot, int flags, void **addr);

/* Whether some mapping may overlap the range, without a lock. */
bool pl_bar_near(const void *addr, size_t size);
/* Whether some mapping does overlap it. */
bool pl_bar_overlaps(const void *addr, size_t size);
/* Whether all of the range is within one mapping. */
bool pl_bar_contains(const void *addr, size_t size);

/*
 * What of devices is mapped in the range is theirs no longer, and the caller unmaps all of the
 * range or puts something else there: until then no other thread can be given its addresses. `addr`
 * is at a page; a part of a page is all of it. 0 or -errno.
 */
int pl_bar_withdraw(const void *addr, size_t size);

/* mprotect(2) of a range in which something of devices is, and perhaps other memory. 0 or -errno.
 */
int pl_bar_protect(void *addr, size_t size, int prot);

/* Around fork(): a child may read and unmap what it inherits, and never comes here with it. */
void pl_bar_fork_prepare(void);
void pl_bar_fork_parent(void);
void pl_bar_fork_child(void);

#endif
