/* SPDX-License-Identifier: MIT */
/* See fd.h. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

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

	/* Its owner may have filled it to the brim, and it may be a blocking one. */
	if (poll(&room, 1, 0) == 0)
		return -EAGAIN;
	do
		n = write(fd, &value, sizeof(value));
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : 0;
}

uint64_t qsc_eventfd_drain(int fd)
{
	uint64_t value = 0;
	ssize_t n;

	do
		n = read(fd, &value, sizeof(value));
	while (n < 0 && errno == EINTR);
	return n == (ssize_t)sizeof(value) ? value : 0;
}
