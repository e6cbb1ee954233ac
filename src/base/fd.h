/* SPDX-License-Identifier: MIT */
/* File descriptors: owned locals, duplicates, shareable memory. Every fd made here is CLOEXEC. */
#ifndef QSC_BASE_FD_H
#define QSC_BASE_FD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/cleanup.h"

/* Close *fd if it is one, and make it -1. errno is kept. */
void qsc_fd_close(int *fd);

#define qsc_autoclose qsc_cleanup(qsc_fd_close)

/* Take the fd out of such a local, so that it outlives the scope. */
static inline int qsc_fd_steal(int *fd)
{
	int taken = *fd;

	*fd = -1;
	return taken;
}

/* A duplicate, or -errno. */
int qsc_fd_dup(int fd);

/* A zeroed memory file of that size which cannot change its size any more, or -errno. */
int qsc_fd_memory(const char *name, uint64_t size);

/*
 * Whether it is an eventfd: writing to anything else could block, or mean something else. Where
 * /proc cannot be read this tells no more than that it is of that family (eventfd, epoll, …).
 */
bool qsc_fd_is_eventfd(int fd);

/*
 * Add `value` to an eventfd: 0, -EAGAIN when it is full, or another -errno. There is no telling a
 * full one from one without room for more than 1, so only with a value of 1 this does not block on
 * a blocking eventfd of somebody else's. What remains is that he fills it in the instant between
 * the look and the write; then the caller waits until he takes something out or ends.
 */
int qsc_eventfd_signal(int fd, uint64_t value);

/* Take an eventfd's count; 0 when it has none. */
uint64_t qsc_eventfd_drain(int fd);

#endif
