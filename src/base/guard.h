/* SPDX-License-Identifier: MIT */
/*
 * Memory that another process may take away. A mapping of a peer's file raises SIGBUS when the peer
 * truncates it; a guarded range is replaced with private zeroes instead, and says so, so that a
 * hostile peer harms only itself. The process's SIGBUS handler is installed with the first guard
 * and hands on every fault that is not in a guarded range.
 */
#ifndef QSC_BASE_GUARD_H
#define QSC_BASE_GUARD_H

#include <stdbool.h>
#include <stddef.h>

struct qsc_guard;

/* Guard [addr, addr + size), page aligned. 0 or -errno. Any thread. */
int qsc_guard_add(void *addr, size_t size, struct qsc_guard **guard);

/* To be called before the range is unmapped. NULL is allowed. */
void qsc_guard_remove(struct qsc_guard *guard);

/* Whether the memory has been lost: what was read from it since, or written to it, means nothing.
 */
bool qsc_guard_hit(const struct qsc_guard *guard);

#endif
