/* SPDX-License-Identifier: MIT */
/*
 * What the workers of the guest's program share. Each worker is a process that goes through its
 * work in small steps, and between two steps looks for a new order: pause, go on, verify all, end.
 */
#ifndef QEMU_GUEST_WORK_H
#define QEMU_GUEST_WORK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum order { ORDER_GO, ORDER_PAUSE, ORDER_VERIFY, ORDER_END };

struct work {
	_Atomic uint32_t
		order; /* enum order, and a number in the bits above that tells two apart */
	_Atomic uint32_t obeyed;
	_Atomic uint64_t wrong;
	_Atomic uint64_t writes;
	_Atomic uint64_t reads;
	_Atomic uint64_t pages; /* compared byte by byte */
};

struct worker {
	struct work *work;
	const char *path; /* the device, or the folder on it */
	uint64_t offset;  /* in the device */
	uint32_t owner;	  /* the number of the worker, in every page that it writes */
	uint64_t random;
	void *data;
	int (*setup)(struct worker *w);
	void (*step)(struct worker *w);
	void (*verify)(struct worker *w);
};

extern const struct worker raw_worker;
extern const struct worker files_worker;

/* Uniform in [0, limit). */
uint32_t pick(struct worker *w, uint32_t limit);

/* Say that something is not as it must be: one line that begins with WRONG. */
void wrong(struct worker *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
