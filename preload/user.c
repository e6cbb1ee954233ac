/* SPDX-License-Identifier: MIT */
/* See user.h. */
#include "user.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE	4096U
#define TOUCHED 256U

/*
 * Whether it lies in the calling thread's own stack, above what is in use by this function: there
 * is no need to look, and a register is mostly read into a variable. Not on a stack that the
 * program made itself.
 */
static bool on_stack(const void *user, size_t size)
{
	static _Thread_local uintptr_t low __attribute__((tls_model("initial-exec")));
	static _Thread_local uintptr_t high __attribute__((tls_model("initial-exec")));
	uintptr_t here = (uintptr_t)__builtin_frame_address(0);
	uintptr_t at = (uintptr_t)user;
	pthread_attr_t attr;
	void *start;
	size_t room;

	if (!high) {
		high = 1; /* nothing is below it */
		if (!pthread_getattr_np(pthread_self(), &attr)) {
			if (!pthread_attr_getstack(&attr, &start, &room)) {
				low = (uintptr_t)start;
				high = low + room;
			}
			(void)pthread_attr_destroy(&attr);
		}
	}
	return here >= low && here < high && at >= here && at < high && size <= high - at;
}

/* The kernel copies and looks; where a sandbox forbids it, the pointer has to be believed. */
static int copy(void *mine, void *user, size_t size, bool in)
{
	struct iovec local = {.iov_base = mine, .iov_len = size};
	struct iovec remote = {.iov_base = user, .iov_len = size};
	ssize_t n;

	if (!size)
		return 0;
	if (on_stack(user, size))
		goto trusted;
	n = in ? process_vm_readv(getpid(), &local, 1, &remote, 1, 0)
	       : process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	if (n == (ssize_t)size)
		return 0;
	if (n >= 0 || (errno != EPERM && errno != ENOSYS))
		return -EFAULT;
	if (!user)
		return -EFAULT;
trusted:
	memcpy(in ? mine : user, in ? user : mine, size);
	return 0;
}

int pl_copy_in(void *to, const void *user, size_t size)
{
	return copy(to, (void *)(uintptr_t)user, size, true);
}

int pl_copy_out(void *user, const void *from, size_t size)
{
	return copy((void *)(uintptr_t)from, user, size, false);
}

/* A byte of each page, many pages at once. */
static int touch(char *user, size_t size, bool write)
{
	struct iovec remote[TOUCHED];
	char bytes[TOUCHED];
	struct iovec local = {.iov_base = bytes};
	uintptr_t at = (uintptr_t)user;
	uintptr_t end = at + size;
	ssize_t n;

	if (end < at)
		return -EFAULT;
	if (on_stack(user, size))
		return 0;
	while (at < end) {
		size_t count = 0;

		for (; at < end && count < TOUCHED; at = (at / PIECE + 1) * PIECE)
			remote[count++] = (struct iovec){.iov_base = (void *)at, .iov_len = 1};
		local.iov_len = count;
		n = process_vm_readv(getpid(), &local, 1, remote, count, 0);
		if (n == (ssize_t)count && write)
			n = process_vm_writev(getpid(), &local, 1, remote, count, 0);
		if (n != (ssize_t)count)
			return !user || n >= 0 || (errno != EPERM && errno != ENOSYS) ? -EFAULT : 0;
	}
	return 0;
}

int pl_can_read(const void *user, size_t size)
{
	return touch((char *)(uintptr_t)user, size, false);
}

int pl_can_write(void *user, size_t size)
{
	return touch(user, size, true);
}

int pl_copy_struct(void *to, size_t size, size_t least, const void *user)
{
	const char *from = user;
	char rest[PIECE];
	uint32_t given;
	int result = pl_copy_in(&given, user, sizeof(given));

	if (result < 0)
		return result;
	if (given < least)
		return -EINVAL;
	memset(to, 0, size);
	for (size_t done = size; done < given; done += PIECE) {
		size_t piece = given - done < PIECE ? given - done : PIECE;

		result = pl_copy_in(rest, from + done, piece);
		if (result < 0)
			return result;
		for (size_t i = 0; i < piece; i++)
			if (rest[i])
				return -E2BIG;
	}
	return pl_copy_in(to, user, given < size ? given : size);
}

int pl_copy_argsz(void *to, size_t size, const void *user)
{
	uint32_t argsz;
	int result = pl_copy_in(to, user, size);

	if (result < 0)
		return result;
	memcpy(&argsz, to, sizeof(argsz));
	return argsz < size ? -EINVAL : 0;
}
