/* SPDX-License-Identifier: MIT */
/* See fd.h. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/magic.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#define AIO_REQUESTS 64 /* whose results wait to be discarded */

void qsc_fd_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	*fd = -1;
	errno = saved;
}

int qsc_fd_dup(int fd)
{
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	return copy < 0 ? -errno : copy;
}

int qsc_fd_memory(const char *name, uint64_t size)
{
	qsc_autoclose int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	if (size > INT64_MAX)
		return -EFBIG;
	if (ftruncate(fd, (off_t)size) < 0)
		return -errno;
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return qsc_fd_steal(&fd);
}

uint64_t qsc_fd_map_unit(int fd)
{
	struct statfs status;

	/* Others may have huge pages as well, but there they are no more than a wish. */
	if (fstatfs(fd, &status) < 0 || status.f_type != HUGETLBFS_MAGIC || status.f_bsize <= 0)
		return (uint64_t)sysconf(_SC_PAGESIZE);
	return (uint64_t)status.f_bsize;
}

bool qsc_fd_is_eventfd(int fd)
{
	static const char expected[] = "anon_inode:[eventfd]";
	char target[sizeof(expected) + 1];
	struct stat status;
	char path[32];
	ssize_t n;

	if (fstat(fd, &status) < 0)
		return false;
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, target, sizeof(target));
	/* No /proc: an inode without a name has no type either. */
	if (n < 0)
		return !(status.st_mode & S_IFMT);
	return n == (ssize_t)sizeof(expected) - 1 && !memcmp(target, expected, (size_t)n);
}

int qsc_eventfd_signal(int fd, uint64_t value)
{
	struct pollfd room = {.fd = fd, .events = POLLOUT};
	ssize_t n;

	/* It may be a blocking one, and full. */
	if (poll(&room, 1, 0) == 0)
		return -EAGAIN;
	do
		n = write(fd, &value, sizeof(value));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

/* For asynchronous I/O of this process; 0: none was made yet. A child does not have its parent's.
 */
static _Atomic(aio_context_t) aio_context;

/* Another than `old`, which is none or is not ours: 0 or -errno. */
static int renew_aio_context(aio_context_t old)
{
	aio_context_t context = 0;

	if (syscall(SYS_io_setup, AIO_REQUESTS, &context) < 0)
		return -errno;
	/* Another thread may have been faster. */
	if (!atomic_compare_exchange_strong(&aio_context, &old, context))
		(void)syscall(SYS_io_destroy, context);
	return 0;
}

/* Whoever asks for results makes room for more of them. Nobody wants these. */
static void discard_aio_results(aio_context_t context)
{
	struct io_event results[AIO_REQUESTS];

	(void)syscall(SYS_io_getevents, context, 0L, (long)AIO_REQUESTS, results, NULL);
}

int qsc_eventfd_signal_foreign(int fd)
{
	struct iocb request = {
		.aio_fildes = (uint32_t)fd,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_flags = IOCB_FLAG_RESFD,
		.aio_resfd = (uint32_t)fd,
	};
	struct iocb *requests[] = {&request};
	bool renewed = false;

	/*
	 * The kernel adds 1 when a request has ended, and no flag makes it wait for that. So this
	 * asks for something that ends at once: to read nothing.
	 */
	for (;;) {
		aio_context_t context = atomic_load(&aio_context);

		if (context && syscall(SYS_io_submit, context, 1L, requests) == 1)
			return 0;
		if (context && errno == EAGAIN) {
			discard_aio_results(context);
			continue;
		}
		if (context && errno != EINVAL)
			return -errno;
		/* Where there is no asynchronous I/O, or not for eventfds. */
		if (renewed || renew_aio_context(context) < 0)
			return qsc_eventfd_signal(fd, 1);
		renewed = true;
	}
}

uint64_t qsc_eventfd_drain(int fd)
{
	struct pollfd some = {.fd = fd, .events = POLLIN};
	uint64_t value = 0;
	struct iovec iov = {.iov_base = &value, .iov_len = sizeof(value)};
	ssize_t n;

	/* Whether it blocks is up to whoever has it as well, and may change at any time. */
	do
		n = preadv2(fd, &iov, 1, -1, RWF_NOWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EOPNOTSUPP || errno == ENOSYS)) {
		if (poll(&some, 1, 0) != 1)
			return 0;
		do
			n = read(fd, &value, sizeof(value));
		while (n < 0 && errno == EINTR);
	}
	return n == (ssize_t)sizeof(value) ? value : 0;
}
