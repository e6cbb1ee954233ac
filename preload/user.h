/* SPDX-License-Identifier: MIT */
/*
 * Memory that a caller of ioctl(), read() or write() points at. A pointer to nowhere is an errno,
 * as it is to the kernel, and not the end of the process.
 */
#ifndef PRELOAD_USER_H
#define PRELOAD_USER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* 0 or -EFAULT. */
int pl_copy_in(void *to, const void *user, size_t size);
int pl_copy_out(void *user, const void *from, size_t size);

/* Whether `size` bytes there can be read, or written: what is there stays. 0 or -EFAULT. */
int pl_can_read(const void *user, size_t size);
int pl_can_write(void *user, size_t size);

/*
 * A structure of an extensible ioctl, which begins with its size: `size` bytes that are understood,
 * at least `least` of them given. What the caller did not give is zero; -EINVAL for less than
 * least, -E2BIG for more than size unless the rest is zero.
 */
int pl_copy_struct(void *to, size_t size, size_t least, const void *user);

/* The other way for a VFIO structure that begins with argsz: the first `size` bytes. -EINVAL. */
int pl_copy_argsz(void *to, size_t size, const void *user);

static inline void *pl_user(uint64_t address)
{
	return (void *)(uintptr_t)address;
}

#endif
