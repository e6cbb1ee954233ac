/* SPDX-License-Identifier: MIT */
/* Dirty bitmaps in the caller's memory. */
#ifndef PRELOAD_BITMAP_H
#define PRELOAD_BITMAP_H

#include <stdint.h>

/* Sets bits, never clears one, as qsc_device_log_report(). */
typedef int pl_report(void *ctx, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap);

/*
 * Report [iova, iova + size) into the bitmap of the caller, in pieces. A bitmap that cannot be
 * written is -EFAULT before anything is taken from the log.
 */
int pl_bitmap_report(pl_report *report, void *ctx, uint64_t iova, uint64_t size, uint64_t page_size,
		     void *user);

#endif
