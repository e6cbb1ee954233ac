/* SPDX-License-Identifier: MIT */
/*
 * Work side by side: a liar who does not deliver is waited for, and most of the time of these tests
 * is such waiting. Each piece of work has a process of its own, because a check changes limits of
 * its process; what it says is passed on in order.
 */
#ifndef CLAUSES_SIDE_H
#define CLAUSES_SIDE_H

#include <stddef.h>

/* Call work() for each of `count` pieces, `width` of them at a time. */
void side_by_side(size_t count, size_t width, void (*work)(size_t number, void *ctx), void *ctx);

#endif
