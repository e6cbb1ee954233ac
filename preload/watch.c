/* SPDX-License-Identifier: MIT */
/* See watch.h. */
#include "watch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <unistd.h>

struct pl_watch {
	struct pl_watch *next;
	uint64_t number; /* never used again, unlike the address */
	uint64_t eventfd;
	uint64_t pending;
	int fd; /* our own of the same eventfd */
	pl_watch_fn *fn;
	void *ctx;
};

int pl_eventfd_check(int fd)
{
	static const char expected[] = "anon_inode:[eventfd]";
	char target[sizeof(expected) + 1];
	char path[32];
	ssize_t n;

	if (fcntl(fd, F_GETFD) < 0)
		return -EBADF;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	return n == (ssize_t)sizeof(expected) - 1 && !memcmp(target, expected, (size_t)n) ? 0
											  : -EINVAL;
}

/* The kernel's number of an eventfd, whatever descriptors it has; before Linux 5.2 there is none.
 */
static int64_t identify(int fd)
{
	char path[40];
	char line[128];
	long number = -1;
	FILE *info;

	(void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = fopen(path, "re");
	while (info && number < 0 && fgets(line, sizeof(line), info))
		if (!strncmp(line, "eventfd-id:", 11))
			number = strtol(line + 11, NULL, 10);
	if (info)
		(void)fclose(info);
	return number;
}

/* Another may have read it meanwhile, and it may be one that blocks. */
static uint64_t take(int fd)
{
	uint64_t count = 0;
	struct iovec iov = {.iov_base = &count, .iov_len = sizeof(count)};
	ssize_t n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);

	if (n < 0 && errno == EOPNOTSUPP)
		n = read(fd, &count, sizeof(count));
	return n == (ssize_t)sizeof(count) ? count : 0;
}

static struct pl_watch *first_pending(const struct pl_watcher *watcher)
{
	struct pl_watch *watch = watcher->first;

	while (watch && !watch->pending)
		watch = watch->next;
	return watch;
}

static void signalled(struct pl_watcher *watcher, uint64_t number)
{
	struct pl_watch *watch;
	uint64_t count;

	pthread_mutex_lock(&watcher->lock);
	for (watch = watcher->first; watch && watch->number != number; watch = watch->next)
		;
	count = watch ? take(watch->fd) : 0;
	for (struct pl_watch *other = watcher->first; other && count; other = other->next)
		if (other->eventfd == watch->eventfd)
			other->pending = count;
	while ((watch = first_pending(watcher))) {
		count = watch->pending;
		watch->pending = 0;
		watcher->busy = watch;
		pthread_mutex_unlock(&watcher->lock);
		watch->fn(watch->ctx, count);
		pthread_mutex_lock(&watcher->lock);
		watcher->busy = NULL;
		pthread_cond_broadcast(&watcher->idle);
	}
	pthread_mutex_unlock(&watcher->lock);
}

static void *wait_for_all(void *arg)
{
	struct pl_watcher *watcher = arg;
	struct epoll_event events[16];

	for (;;) {
		int n = epoll_wait(watcher->epoll, events, 16, -1);

		for (int i = 0; i < n; i++) {
			if (!events[i].data.u64)
				return NULL;
			signalled(watcher, events[i].data.u64);
		}
	}
}

/* Lock held. The program's signals are for its own threads. */
static int start(struct pl_watcher *watcher)
{
	struct epoll_event event = {.events = EPOLLIN};
	sigset_t all;
	sigset_t old;
	int result;

	watcher->epoll = epoll_create1(EPOLL_CLOEXEC);
	watcher->quit = eventfd(0, EFD_CLOEXEC);
	result = watcher->epoll < 0 || watcher->quit < 0 ||
				 epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, watcher->quit, &event) < 0
			 ? -errno
			 : 0;
	if (!result) {
		(void)sigfillset(&all);
		(void)pthread_sigmask(SIG_SETMASK, &all, &old);
		result = -pthread_create(&watcher->thread, NULL, wait_for_all, watcher);
		(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	if (!result)
		return 0;
	if (watcher->epoll >= 0)
		close(watcher->epoll);
	if (watcher->quit >= 0)
		close(watcher->quit);
	watcher->epoll = -1;
	return result;
}

void pl_watcher_init(struct pl_watcher *watcher)
{
	memset(watcher, 0, sizeof(*watcher));
	pthread_mutex_init(&watcher->lock, NULL);
	pthread_cond_init(&watcher->idle, NULL);
	watcher->epoll = -1;
}

static void drop(struct pl_watch *watch)
{
	if (watch->fd >= 0)
		close(watch->fd);
	free(watch);
}

void pl_watcher_release(struct pl_watcher *watcher)
{
	const uint64_t one = 1;
	struct pl_watch *watch;

	if (watcher->epoll >= 0) {
		(void)!write(watcher->quit, &one, sizeof(one));
		pthread_join(watcher->thread, NULL);
		close(watcher->epoll);
		close(watcher->quit);
	}
	while ((watch = watcher->first)) {
		watcher->first = watch->next;
		drop(watch);
	}
	pthread_cond_destroy(&watcher->idle);
	pthread_mutex_destroy(&watcher->lock);
}

int pl_watch_add(struct pl_watcher *watcher, int fd, pl_watch_fn *fn, void *ctx,
		 struct pl_watch **out)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct pl_watch *watch;
	int64_t known;
	int result = pl_eventfd_check(fd);

	if (result < 0)
		return result;
	watch = calloc(1, sizeof(*watch));
	if (!watch)
		return -ENOMEM;
	watch->fn = fn;
	watch->ctx = ctx;
	watch->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (watch->fd < 0) {
		result = -errno;
		free(watch);
		return result;
	}
	known = identify(watch->fd);
	pthread_mutex_lock(&watcher->lock);
	if (watcher->epoll < 0)
		result = start(watcher);
	watch->number = ++watcher->last_number;
	watch->eventfd = known >= 0 ? (uint64_t)known : UINT64_MAX - watch->number;
	event.data.u64 = watch->number;
	if (!result && epoll_ctl(watcher->epoll, EPOLL_CTL_ADD, watch->fd, &event) < 0)
		result = -errno;
	if (!result) {
		watch->next = watcher->first;
		watcher->first = watch;
		*out = watch;
	}
	pthread_mutex_unlock(&watcher->lock);
	if (result < 0)
		drop(watch);
	return result;
}

void pl_watch_remove(struct pl_watcher *watcher, struct pl_watch *watch)
{
	struct pl_watch **link;

	pthread_mutex_lock(&watcher->lock);
	for (link = &watcher->first; *link != watch; link = &(*link)->next)
		;
	*link = watch->next;
	(void)epoll_ctl(watcher->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
	while (watcher->busy == watch)
		pthread_cond_wait(&watcher->idle, &watcher->lock);
	pthread_mutex_unlock(&watcher->lock);
	drop(watch);
}
