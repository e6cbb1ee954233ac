/* SPDX-License-Identifier: MIT */
/* See user.h. */
#include "user.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE 4096U

/* The kernel copies and looks; where a sandbox forbids it, the pointer has to be believed. */
static int copy(void *mine, void *user, size_t size, bool in)
{
	struct iovec local = {.iov_base = mine, .iov_len = size};
	struct iovec remote = {.iov_base = user, .iov_len = size};
	ssize_t n;

	if (!size)
		return 0;
	n = in ? process_vm_readv(getpid(), &local, 1, &remote, 1, 0)
	       : process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	if (n == (ssize_t)size)
		return 0;
	if (n >= 0 || (errno != EPERM && errno != ENOSYS))
		return -EFAULT;
	if (!user)
		return -EFAULT;
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

int pl_can_write(void *user, size_t size)
{
	char kept[PIECE];
	int result = 0;

	for (size_t done = 0; done < size && !result; done += PIECE) {
		size_t piece = size - done < PIECE ? size - done : PIECE;

		result = pl_copy_in(kept, (char *)user + done, piece);
		if (!result)
			result = pl_copy_out((char *)user + done, kept, piece);
	}
	return result;
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
