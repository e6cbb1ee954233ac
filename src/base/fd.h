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

/* In what sizes a memory file is mapped and unmapped: with huge pages more than a page. */
uint64_t qsc_fd_map_unit(int fd);

/*
 * Whether it is an eventfd: writing to anything else could block, or mean something else. Where
 * /proc cannot be read this tells no more than that it is of that family (eventfd, epoll, …).
 */
bool qsc_fd_is_eventfd(int fd);

/*
 * Add `value` to an eventfd of ours: 0, -EAGAIN when it is full, or another -errno. A blocking one
 * that has room, but not for as much, or that somebody fills in that instant, makes this wait.
 */
int qsc_eventfd_signal(int fd, uint64_t value);

/*
 * Add 1 to an eventfd that others have as well: this never waits for them, whatever they do to it.
 * A full one stays at what it can count at most, so that its owner finds it signalled. 0 or
 * -errno. It takes asynchronous I/O of the kernel, which is set up for the process with the first
 * one. Where that cannot be had this is qsc_eventfd_signal().
 */
int qsc_eventfd_signal_foreign(int fd);

/*
 * Take an eventfd's count; 0 when it has none. Never waits, whatever others who have it do to it;
 * only before Linux 5.8 it does when they take the count in the instant between look and read.
 */
uint64_t qsc_eventfd_drain(int fd);

#endif
