/* SPDX-License-Identifier: MIT */
/*
 * Pages that say what they are: who wrote them, which of its pages, and the how-manieth content of
 * it. Every byte follows from these three, so that a wrong one, an old one and another's are told
 * apart.
 */
#ifndef QEMU_GUEST_PATTERN_H
#define QEMU_GUEST_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096u

struct tag {
	uint32_t owner;
	uint32_t index;
	uint64_t generation;
};

void pattern_fill(void *page, const struct tag *tag);

/* Whether the page holds this; if not, `what` says in words what it holds. */
bool pattern_check(const void *page, const struct tag *tag, char *what, size_t what_bytes);

#endif
