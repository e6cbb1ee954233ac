/* SPDX-License-Identifier: MIT */
/*
 * The calls that are caught: on descriptors, memory and sockets. Those that read and write are in
 * interpose_io.c, those that take a path in interpose_paths.c.
 */
#include "interpose.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bar.h"
#include "device.h"
#include "file.h"
#include "group.h"
#include "ioas.h"
#include "paths.h"
#include "say.h"
#include "user.h"

/* The next definition of a function, found at its first call. */
void *pl_next(_Atomic(void *) *known, const char *name)
{
	void *function = atomic_load_explicit(known, memory_order_relaxed);

	if (!function) {
		function = dlsym(RTLD_NEXT, name);
		atomic_store_explicit(known, function, memory_order_relaxed);
	}
	return function;
}

/* The C library has names of its own for the parameters. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
/* Mappings hold files, so theirs is an outer lock; groups are opened within that of files. */
static void fork_prepare(void)
{
	pl_devices_fork_prepare();
	pl_bar_fork_prepare();
	pl_file_fork_prepare();
	pl_groups_fork_prepare();
}

static void fork_parent(void)
{
	pl_groups_fork_parent();
	pl_file_fork_parent();
	pl_bar_fork_parent();
	pl_devices_fork_parent();
}

static void fork_child(void)
{
	pl_groups_fork_child();
	pl_file_fork_child();
	pl_bar_fork_child();
	pl_devices_fork_child();
}

__attribute__((constructor)) static void init(void)
{
	struct qsc_error err = QSC_ERROR_NONE;

	pl_file_init(pl_path_make);
	if (pl_devices_init(&err) < 0)
		pl_say("%s", err.text);
	(void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- ioctl ---- */

/*
 * A VMM tells KVM's VFIO device which files are devices or groups, and does without KVM or without
 * the device when that fails. Of ours there is nothing that KVM must know; for the kernel they are
 * files of another kind (EINVAL), which it never was told of (ENOENT).
 */
static bool tells_kvm_of_ours(unsigned long command, const void *arg, int number)
{
	struct handover_mark *mark;
	struct kvm_device_attr attr;
	int32_t fd;

	if (command != KVM_SET_DEVICE_ATTR || (number != EINVAL && number != ENOENT) ||
	    !pl_devices_count() || pl_copy_in(&attr, arg, sizeof(attr)) < 0 ||
	    attr.group != KVM_DEV_VFIO_GROUP ||
	    (attr.attr != KVM_DEV_VFIO_GROUP_ADD && attr.attr != KVM_DEV_VFIO_GROUP_DEL) ||
	    pl_copy_in(&fd, pl_user(attr.addr), sizeof(fd)) < 0)
		return false;
	/* By its mark: one that came through exec may not have been used yet. */
	mark = handover_find(fd);
	handover_forget(mark);
	return mark != NULL;
}

static int ioctl_of_others(int fd, unsigned long command, void *arg)
{
	int result = NEXT(ioctl)(fd, command, arg);
	int number = errno;

	if (result < 0 && tells_kvm_of_ours(command, arg, number))
		return 0;
	errno = number;
	return result;
}

/* What the kernel does for a descriptor of any kind, without asking the file. */
static bool is_for_any_file(unsigned long command)
{
	return command == FIOCLEX || command == FIONCLEX || command == FIONBIO;
}

CAUGHT int ioctl(int fd, unsigned long command, ...)
{
	struct pl_file *file;
	int error = 0;
	int result;
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	/* Only ours may be asked this without having been seen before. */
	if (is_for_any_file(command))
		file = NULL;
	else if (_IOC_TYPE(command) == VFIO_TYPE && pl_devices_count())
		file = pl_file_take_up(fd, &error);
	else
		file = pl_file_get(fd);
	if (error)
		return (int)answer(error);
	if (!file)
		return ioctl_of_others(fd, command, arg);
	/* The kernel's number of a command has 32 bits, whatever type a program keeps it in. */
	result = file->ops->ioctl(file, (uint32_t)command, arg);
	pl_file_put(file);
	return (int)answer(result);
}

/* ---- memory ---- */

static void *map_file(struct pl_file *file, void *addr, size_t size, int prot, int flags,
		      off64_t offset)
{
	int result = -ENODEV;

	if (offset < 0 || offset % (off64_t)PL_PAGE || !size || size > SSIZE_MAX ||
	    ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) && (uintptr_t)addr % PL_PAGE))
		result = -EINVAL;
	else if (file->ops->mmap)
		result = file->ops->mmap(file, &addr, size, prot, flags, (uint64_t)offset);
	pl_file_put(file);
	if (result >= 0)
		return addr;
	errno = -result;
	return MAP_FAILED;
}

/* Something else in place of what is mapped of a device: what cannot be mapped replaces nothing. */
static void *map_over(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	const int effects = MAP_FIXED | MAP_POPULATE | MAP_LOCKED;
	void *trial = (uintptr_t)addr % PL_PAGE ? MAP_FAILED
						: (void *)syscall(SYS_mmap, NULL, size, prot,
								  flags & ~effects, fd, offset);
	int result;

	if (trial != MAP_FAILED) {
		(void)syscall(SYS_munmap, trial, size);
		result = pl_bar_withdraw(addr, size);
		if (result < 0) {
			errno = -result;
			return MAP_FAILED;
		}
	}
	return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}

static void *map(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	struct pl_file *file = flags & MAP_ANONYMOUS ? NULL : pl_file_get(fd);

	if (file)
		return map_file(file, addr, size, prot, flags, offset);
	if ((flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) == MAP_FIXED && pl_bar_near(addr, size))
		return map_over(addr, size, prot, flags, fd, offset);
	return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}

CAUGHT void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	return map(addr, size, prot, flags, fd, offset);
}

CAUGHT void *mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	return map(addr, size, prot, flags, fd, offset);
}

/*
 * What the library itself maps, the linker sends here: it replaces pages of a device's mapping
 * while the device is stopped, also from a signal handler, and that is no change of the program's.
 */
extern void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset);
extern void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t offset);
extern int __wrap_munmap(void *addr, size_t size);
extern int __wrap_mprotect(void *addr, size_t size, int prot);

void *__wrap_mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}

void *__wrap_mmap64(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	return (void *)syscall(SYS_mmap, addr, size, prot, flags, fd, offset);
}

int __wrap_munmap(void *addr, size_t size)
{
	return (int)syscall(SYS_munmap, addr, size);
}

int __wrap_mprotect(void *addr, size_t size, int prot)
{
	return (int)syscall(SYS_mprotect, addr, size, prot);
}

/* Where the kernel will not refuse it. */
static bool unmaps(const void *addr, size_t size)
{
	return !((uintptr_t)addr % PL_PAGE) && size && (uintptr_t)addr < UINTPTR_MAX - size;
}

CAUGHT int munmap(void *addr, size_t size)
{
	int result = unmaps(addr, size) && pl_bar_near(addr, size) ? pl_bar_withdraw(addr, size)
								   : 0;

	return result < 0 ? (int)answer(result) : (int)syscall(SYS_munmap, addr, size);
}

CAUGHT int mprotect(void *addr, size_t size, int prot)
{
	if (unmaps(addr, size) && pl_bar_near(addr, size))
		return (int)answer(pl_bar_protect(addr, size, prot));
	return (int)syscall(SYS_mprotect, addr, size, prot);
}

/* Without a key it is the same; a device's memory has no other one. */
CAUGHT int pkey_mprotect(void *addr, size_t size, int prot, int key)
{
	if (unmaps(addr, size) && pl_bar_near(addr, size))
		return (int)answer(key == -1 ? pl_bar_protect(addr, size, prot) : -EINVAL);
	return (int)syscall(SYS_pkey_mprotect, addr, size, prot, key);
}

/* A device's memory stays where it is, and does not grow; its end may go. */
static void *remap_bar(void *addr, size_t size, size_t new_size, int flags)
{
	int result = 0;

	size = pl_pages(size);
	new_size = pl_pages(new_size);
	if ((uintptr_t)addr % PL_PAGE || !new_size || (flags & ~MREMAP_MAYMOVE))
		result = -EINVAL;
	else if (new_size > size || !size || !pl_bar_contains(addr, size))
		result = -EFAULT;
	else if (new_size < size)
		result = munmap((char *)addr + new_size, size - new_size) < 0 ? -errno : 0;
	if (result >= 0)
		return addr;
	errno = -result;
	return MAP_FAILED;
}

CAUGHT void *mremap(void *addr, size_t size, size_t new_size, int flags, ...)
{
	va_list list;
	void *to;
	int result;

	va_start(list, flags);
	to = va_arg(list, void *);
	va_end(list);
	if (pl_bar_near(addr, size ? size : 1) && pl_bar_overlaps(addr, size ? size : 1))
		return remap_bar(addr, size, new_size, flags);
	if ((flags & MREMAP_FIXED) && unmaps(to, new_size) && pl_bar_near(to, new_size)) {
		result = pl_bar_withdraw(to, new_size);
		if (result < 0) {
			errno = -result;
			return MAP_FAILED;
		}
	}
	return (void *)syscall(SYS_mremap, addr, size, new_size, flags, to);
}

/* ---- descriptors ---- */

CAUGHT int close(int fd)
{
	if (pl_file_any() && pl_file_is(fd))
		return (int)answer(pl_file_close(fd));
	return NEXT(close)(fd);
}

/* The C library closes the descriptor of a stream by itself. */
CAUGHT int fclose(FILE *stream)
{
	int fd = stream && pl_file_any() ? fileno(stream) : -1;
	int result;

	if (!pl_file_is(fd))
		return NEXT(fclose)(stream);
	pl_file_change();
	result = NEXT(fclose)(stream);
	pl_file_closed((unsigned int)fd, (unsigned int)fd);
	return result;
}

CAUGHT int dup(int fd)
{
	if (!pl_file_is(fd))
		return NEXT(dup)(fd);
	pl_file_change();
	return pl_file_copied(fd, NEXT(dup)(fd));
}

CAUGHT int dup2(int fd, int copy)
{
	if (!pl_file_is(fd) && !pl_file_is(copy))
		return NEXT(dup2)(fd, copy);
	pl_file_change();
	return pl_file_copied(fd, NEXT(dup2)(fd, copy));
}

CAUGHT int dup3(int fd, int copy, int flags)
{
	if (!pl_file_is(fd) && !pl_file_is(copy))
		return NEXT(dup3)(fd, copy, flags);
	pl_file_change();
	return pl_file_copied(fd, NEXT(dup3)(fd, copy, flags));
}

/* Whether it makes another descriptor of a file of ours. */
static bool copies(int fd, int command)
{
	return (command == F_DUPFD || command == F_DUPFD_CLOEXEC) && pl_file_is(fd);
}

CAUGHT int fcntl(int fd, int command, ...)
{
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	if (!copies(fd, command))
		return NEXT(fcntl)(fd, command, arg);
	pl_file_change();
	return pl_file_copied(fd, NEXT(fcntl)(fd, command, arg));
}

CAUGHT int fcntl64(int fd, int command, ...)
{
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	if (!copies(fd, command))
		return NEXT(fcntl64)(fd, command, arg);
	pl_file_change();
	return pl_file_copied(fd, NEXT(fcntl64)(fd, command, arg));
}

CAUGHT int close_range(unsigned int first, unsigned int last, int flags)
{
	int result;

	if (!pl_file_any() || flags & (int)CLOSE_RANGE_CLOEXEC)
		return NEXT(close_range)(first, last, flags);
	pl_file_change();
	result = NEXT(close_range)(first, last, flags);
	pl_file_closed(result < 0 ? 1 : first, result < 0 ? 0 : last);
	return result;
}

CAUGHT void closefrom(int first)
{
	if (!pl_file_any()) {
		NEXT(closefrom)(first);
		return;
	}
	pl_file_change();
	NEXT(closefrom)(first);
	pl_file_closed(first < 0 ? 0 : (unsigned int)first, ~0U);
}

/* ---- sockets ---- */

static bool has_ours(const char *fds, size_t count)
{
	int fd;

	for (size_t i = 0; i < count; i++) {
		if (pl_copy_in(&fd, fds + i * sizeof(fd), sizeof(fd)) < 0)
			return false;
		if (!pl_file_is(fd))
			continue;
		pl_say_once(PL_SAY_SOCKET,
			    "fd %d is a device or iommufd that this process uses; it cannot be "
			    "sent to another process: open it there",
			    fd);
		return true;
	}
	return false;
}

/* A device lives in this process; a descriptor of it elsewhere would be an empty file. */
static bool carries_ours(const struct msghdr *message)
{
	struct cmsghdr part;

	if (!pl_file_any() || !message || !message->msg_controllen)
		return false;
	for (size_t at = 0; message->msg_controllen - at >= sizeof(part);) {
		const char *from = (const char *)message->msg_control + at;
		size_t room = message->msg_controllen - at;

		/* What is wrong is the kernel's to refuse. */
		if (pl_copy_in(&part, from, sizeof(part)) < 0 || part.cmsg_len < sizeof(part) ||
		    part.cmsg_len > room)
			return false;
		if (part.cmsg_level == SOL_SOCKET && part.cmsg_type == SCM_RIGHTS &&
		    has_ours(from + CMSG_LEN(0), (part.cmsg_len - CMSG_LEN(0)) / sizeof(int)))
			return true;
		if (CMSG_ALIGN(part.cmsg_len) > room)
			return false;
		at += CMSG_ALIGN(part.cmsg_len);
	}
	return false;
}

CAUGHT ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	if (carries_ours(message))
		return answer(-EOPNOTSUPP);
	return NEXT(sendmsg)(fd, message, flags);
}

CAUGHT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	for (unsigned int i = 0; i < count; i++)
		if (carries_ours(&messages[i].msg_hdr))
			return (int)answer(-EOPNOTSUPP);
	return NEXT(sendmmsg)(fd, messages, count, flags);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
