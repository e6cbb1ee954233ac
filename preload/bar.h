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

struct pl_dev;
struct pl_file;

/*
 * mmap(2) of a device's file, which the mapping holds. *addr: where it is to be, with `fixed`;
 * where it is. 0 or -errno.
 */
int pl_bar_map(struct pl_file *file, struct pl_dev *dev, uint32_t region, uint64_t offset,
	       size_t size, int prot, bool fixed, void **addr);

/* Whether some mapping overlaps the range; takes no lock where none is near. */
bool pl_bar_near(const void *addr, size_t size);
/* Whether all of the range is within one mapping. */
bool pl_bar_contains(const void *addr, size_t size);

/*
 * What is mapped in the range is about to go: those mappings end; with `rest`, so does all else
 * that is mapped there. -EINVAL, and nothing changes, when the range has only part of one of them.
 */
int pl_bar_unmap(const void *addr, size_t size, bool rest);

/* Around fork(): a child may read and unmap what it inherits, and never comes here with it. */
void pl_bar_fork_prepare(void);
void pl_bar_fork_parent(void);
void pl_bar_fork_child(void);

#endif
