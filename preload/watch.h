/* SPDX-License-Identifier: MIT */
/*
 * Eventfds that the command gives to a device so that it does something when they are signalled.
 * One thread waits for all of a device's, from the first one until the device is closed.
 *
 * Every function may be called from any thread but from within a pl_watch_fn.
 */
#ifndef PRELOAD_WATCH_H
#define PRELOAD_WATCH_H

#include <pthread.h>
#include <stdint.h>

struct pl_watch;

struct pl_watcher {
	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct pl_watch *first;
	struct pl_watch *busy; /* whose function runs */
	uint64_t last_number;
	pthread_t thread;
	int epoll; /* -1: there is no thread */
	int quit;
};

/* `count` is what the eventfd had: the times that it was signalled by one since the last call. */
typedef void pl_watch_fn(void *ctx, uint64_t count);

void pl_watcher_init(struct pl_watcher *watcher);
/* No function runs any more, and all watches are gone. */
void pl_watcher_release(struct pl_watcher *watcher);

/*
 * Call fn when the eventfd is signalled, also when it was before. The fd is borrowed. Several may
 * watch one eventfd, and each is called. -EBADF or -EINVAL as of pl_eventfd_check().
 */
int pl_watch_add(struct pl_watcher *watcher, int fd, pl_watch_fn *fn, void *ctx,
		 struct pl_watch **out);
/* When it returns, fn does not run and will not. */
void pl_watch_remove(struct pl_watcher *watcher, struct pl_watch *watch);

/* As the kernel: 0 for an eventfd, -EBADF for no open file, -EINVAL for another kind of file. */
int pl_eventfd_check(int fd);

#endif
