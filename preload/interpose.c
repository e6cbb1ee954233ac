/* SPDX-License-Identifier: MIT */
/*
 * The calls that are caught. Each asks whether it is about something of ours, which takes no lock,
 * and goes to the C library otherwise. All that it does for our own files is elsewhere.
 */
/* Both spellings of a call are defined here, so neither may stand for the other. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <dirent.h>
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
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bar.h"
#include "device.h"
#include "file.h"
#include "ioas.h"
#include "paths.h"
#include "say.h"
#include "user.h"

/* The C library has names of its own for the parameters. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */
#define CAUGHT __attribute__((visibility("default")))

/* The next definition of a function, found at its first call. */
static void *next(_Atomic(void *) *known, const char *name)
{
	void *function = atomic_load_explicit(known, memory_order_relaxed);

	if (!function) {
		function = dlsym(RTLD_NEXT, name);
		atomic_store_explicit(known, function, memory_order_relaxed);
	}
	return function;
}

#define NEXT(name)                                        \
	({                                                \
		static _Atomic(void *) known;             \
		(__typeof__(&(name)))next(&known, #name); \
	})

static long answer(long result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

/* Mappings hold files, so theirs is the outer lock. */
static void fork_prepare(void)
{
	pl_bar_fork_prepare();
	pl_file_fork_prepare();
}

static void fork_parent(void)
{
	pl_file_fork_parent();
	pl_bar_fork_parent();
}

static void fork_child(void)
{
	pl_file_fork_child();
	pl_bar_fork_child();
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
	if (_IOC_TYPE(command) == VFIO_TYPE && pl_devices_count())
		file = pl_file_take_up(fd, &error);
	else
		file = pl_file_get(fd);
	if (error)
		return (int)answer(error);
	if (!file)
		return ioctl_of_others(fd, command, arg);
	result = file->ops->ioctl(file, command, arg);
	pl_file_put(file);
	return (int)answer(result);
}

/* ---- reading and writing ---- */

static ssize_t file_read(struct pl_file *file, void *buf, size_t size)
{
	ssize_t n = file->ops->read ? file->ops->read(file, buf, size) : -EINVAL;

	pl_file_put(file);
	return answer(n);
}

static ssize_t file_write(struct pl_file *file, const void *buf, size_t size)
{
	ssize_t n = file->ops->write ? file->ops->write(file, buf, size) : -EINVAL;

	pl_file_put(file);
	return answer(n);
}

static ssize_t file_pread(struct pl_file *file, void *buf, size_t size, off64_t offset)
{
	ssize_t n = -ESPIPE;

	if (offset < 0)
		n = -EINVAL;
	else if (file->ops->pread)
		n = file->ops->pread(file, buf, size, (uint64_t)offset);
	pl_file_put(file);
	return answer(n);
}

static ssize_t file_pwrite(struct pl_file *file, const void *buf, size_t size, off64_t offset)
{
	ssize_t n = -ESPIPE;

	if (offset < 0)
		n = -EINVAL;
	else if (file->ops->pwrite)
		n = file->ops->pwrite(file, buf, size, (uint64_t)offset);
	pl_file_put(file);
	return answer(n);
}

CAUGHT ssize_t read(int fd, void *buf, size_t size)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_read(file, buf, size) : NEXT(read)(fd, buf, size);
}

CAUGHT ssize_t write(int fd, const void *buf, size_t size)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_write(file, buf, size) : NEXT(write)(fd, buf, size);
}

CAUGHT ssize_t pread64(int fd, void *buf, size_t size, off64_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pread(file, buf, size, offset) : NEXT(pread64)(fd, buf, size, offset);
}

CAUGHT ssize_t pwrite64(int fd, const void *buf, size_t size, off64_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pwrite(file, buf, size, offset) : NEXT(pwrite64)(fd, buf, size, offset);
}

CAUGHT ssize_t pread(int fd, void *buf, size_t size, off_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pread(file, buf, size, offset) : NEXT(pread)(fd, buf, size, offset);
}

CAUGHT ssize_t pwrite(int fd, const void *buf, size_t size, off_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pwrite(file, buf, size, offset) : NEXT(pwrite)(fd, buf, size, offset);
}

/* One piece of a vector, at the file's position where there is no offset. */
static ssize_t piece(struct pl_file *file, const struct iovec *iov, const uint64_t *at, bool write)
{
	const struct pl_file_ops *ops = file->ops;

	if (at && (!ops->pread || !ops->pwrite))
		return -ESPIPE;
	if (at)
		return write ? ops->pwrite(file, iov->iov_base, iov->iov_len, *at)
			     : ops->pread(file, iov->iov_base, iov->iov_len, *at);
	if (write)
		return ops->write ? ops->write(file, iov->iov_base, iov->iov_len) : -EINVAL;
	return ops->read ? ops->read(file, iov->iov_base, iov->iov_len) : -EINVAL;
}

/* The kernel's files know no vectors: they get the pieces one by one, until one is cut. */
static ssize_t file_vector(struct pl_file *file, const struct iovec *iov, int count,
			   const off64_t *offset, bool write)
{
	ssize_t n = count < 0 || count > IOV_MAX || (offset && *offset < 0) ? -EINVAL : 0;
	ssize_t total = 0;

	for (int i = 0; i < count && n >= 0; i++) {
		uint64_t at = offset ? (uint64_t)(*offset + total) : 0;

		n = piece(file, &iov[i], offset ? &at : NULL, write);
		if (n > 0)
			total += n;
		if (n != (ssize_t)iov[i].iov_len)
			break;
	}
	pl_file_put(file);
	return answer(total ? total : n);
}

CAUGHT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_vector(file, iov, count, NULL, false) : NEXT(readv)(fd, iov, count);
}

CAUGHT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_vector(file, iov, count, NULL, true) : NEXT(writev)(fd, iov, count);
}

#define CATCH_VECTOR(name, type, write)                                              \
	CAUGHT ssize_t name(int fd, const struct iovec *iov, int count, type offset) \
	{                                                                            \
		struct pl_file *file = pl_file_get(fd);                              \
		off64_t at = offset;                                                 \
                                                                                     \
		return file ? file_vector(file, iov, count, &at, write)              \
			    : NEXT(name)(fd, iov, count, offset);                    \
	}

CATCH_VECTOR(preadv, off_t, false)
CATCH_VECTOR(preadv64, off64_t, false)
CATCH_VECTOR(pwritev, off_t, true)
CATCH_VECTOR(pwritev64, off64_t, true)

/* What a fortified program calls; too small a buffer is the C library's to complain about. */
extern ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);
extern ssize_t __pread_chk(int fd, void *buf, size_t size, off_t offset, size_t room);
extern ssize_t __pread64_chk(int fd, void *buf, size_t size, off64_t offset, size_t room);

CAUGHT ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_read(file, buf, size) : NEXT(__read_chk)(fd, buf, size, room);
}

CAUGHT ssize_t __pread_chk(int fd, void *buf, size_t size, off_t offset, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_pread(file, buf, size, offset)
		    : NEXT(__pread_chk)(fd, buf, size, offset, room);
}

CAUGHT ssize_t __pread64_chk(int fd, void *buf, size_t size, off64_t offset, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_pread(file, buf, size, offset)
		    : NEXT(__pread64_chk)(fd, buf, size, offset, room);
}

/* ---- memory ---- */

static void *map_file(struct pl_file *file, void *addr, size_t size, int prot, int flags,
		      off64_t offset)
{
	int result = -ENODEV;

	if (offset < 0 || offset % (off64_t)PL_PAGE || !size || size > SSIZE_MAX)
		result = -EINVAL;
	else if (file->ops->mmap)
		result = file->ops->mmap(file, &addr, size, prot, flags, (uint64_t)offset);
	pl_file_put(file);
	if (result >= 0)
		return addr;
	errno = -result;
	return MAP_FAILED;
}

static void *map(void *addr, size_t size, int prot, int flags, int fd, off64_t offset)
{
	struct pl_file *file = flags & MAP_ANONYMOUS ? NULL : pl_file_get(fd);
	int result = 0;

	if ((flags & MAP_FIXED) && pl_bar_near(addr, size)) {
		/* What cannot be mapped replaces nothing. */
		if (!file && !(flags & MAP_ANONYMOUS) && syscall(SYS_fcntl, fd, F_GETFD) < 0)
			result = -EBADF;
		else
			result = pl_bar_unmap(addr, size, false);
	}
	if (result < 0) {
		if (file)
			pl_file_put(file);
		errno = -result;
		return MAP_FAILED;
	}
	if (file)
		return map_file(file, addr, size, prot, flags, offset);
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

CAUGHT int munmap(void *addr, size_t size)
{
	if (pl_bar_near(addr, size))
		return (int)answer(pl_bar_unmap(addr, size, true));
	return (int)syscall(SYS_munmap, addr, size);
}

CAUGHT void *mremap(void *addr, size_t size, size_t new_size, int flags, ...)
{
	va_list list;
	void *to;

	va_start(list, flags);
	to = va_arg(list, void *);
	va_end(list);
	/* A device's memory stays where it is, as the kernel would not let it grow. */
	if (pl_bar_near(addr, size ? size : 1) ||
	    ((flags & MREMAP_FIXED) && pl_bar_near(to, new_size))) {
		errno = EINVAL;
		return MAP_FAILED;
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
	if (stream && pl_file_any())
		pl_file_drop(fileno(stream));
	return NEXT(fclose)(stream);
}

CAUGHT int dup(int fd)
{
	int copy = NEXT(dup)(fd);

	return copy < 0 ? copy : (int)answer(pl_file_copied(fd, copy));
}

CAUGHT int dup2(int fd, int copy)
{
	if (fd != copy && pl_file_is(copy) && syscall(SYS_fcntl, fd, F_GETFD) >= 0)
		pl_file_drop(copy);
	copy = NEXT(dup2)(fd, copy);
	return copy < 0 ? copy : (int)answer(pl_file_copied(fd, copy));
}

CAUGHT int dup3(int fd, int copy, int flags)
{
	if (fd != copy && pl_file_is(copy) && !(flags & ~O_CLOEXEC) &&
	    syscall(SYS_fcntl, fd, F_GETFD) >= 0)
		pl_file_drop(copy);
	copy = NEXT(dup3)(fd, copy, flags);
	return copy < 0 ? copy : (int)answer(pl_file_copied(fd, copy));
}

static int control(int fd, int command, void *arg, int result)
{
	if (result < 0 || (command != F_DUPFD && command != F_DUPFD_CLOEXEC))
		return result;
	return (int)answer(pl_file_copied(fd, result));
}

CAUGHT int fcntl(int fd, int command, ...)
{
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	return control(fd, command, arg, NEXT(fcntl)(fd, command, arg));
}

CAUGHT int fcntl64(int fd, int command, ...)
{
	va_list list;
	void *arg;

	va_start(list, command);
	arg = va_arg(list, void *);
	va_end(list);
	return control(fd, command, arg, NEXT(fcntl64)(fd, command, arg));
}

CAUGHT int close_range(unsigned int first, unsigned int last, int flags)
{
	if (pl_file_any() && !(flags & ~(int)CLOSE_RANGE_UNSHARE) && first <= last)
		pl_file_drop_range(first, last);
	return NEXT(close_range)(first, last, flags);
}

CAUGHT void closefrom(int first)
{
	if (pl_file_any())
		pl_file_drop_range(first < 0 ? 0 : (unsigned int)first, ~0U);
	NEXT(closefrom)(first);
}

/* ---- paths ---- */

static bool opens_ours(const char *path, int flags, int *fd)
{
	enum handover_kind kind;
	uint32_t index;

	if (!pl_path_ours(path, &kind, &index))
		return false;
	*fd = (int)answer(pl_path_open(kind, index, flags));
	return true;
}

#define OPEN_MODE(flags)                               \
	({                                             \
		mode_t mode_ = 0;                      \
		if (__OPEN_NEEDS_MODE(flags)) {        \
			va_list list_;                 \
			va_start(list_, flags);        \
			mode_ = va_arg(list_, mode_t); \
			va_end(list_);                 \
		}                                      \
		mode_;                                 \
	})

#define CATCH_OPEN(name)                                                  \
	CAUGHT int name(const char *path, int flags, ...)                 \
	{                                                                 \
		mode_t mode = OPEN_MODE(flags);                           \
		char real[PATH_MAX];                                      \
		int fd;                                                   \
                                                                          \
		if (opens_ours(path, flags, &fd))                         \
			return fd;                                        \
		return NEXT(name)(pl_path_real(path, real), flags, mode); \
	}

#define CATCH_OPENAT(name)                                                        \
	CAUGHT int name(int folder, const char *path, int flags, ...)             \
	{                                                                         \
		mode_t mode = OPEN_MODE(flags);                                   \
		char real[PATH_MAX];                                              \
		int fd;                                                           \
                                                                                  \
		if (opens_ours(path, flags, &fd))                                 \
			return fd;                                                \
		return NEXT(name)(folder, pl_path_real(path, real), flags, mode); \
	}

/* As a fortified program calls it. */
#define CATCH_OPEN_2(name)                                          \
	extern int name(const char *path, int flags);               \
	CAUGHT int name(const char *path, int flags)                \
	{                                                           \
		char real[PATH_MAX];                                \
		int fd;                                             \
                                                                    \
		if (opens_ours(path, flags, &fd))                   \
			return fd;                                  \
		return NEXT(name)(pl_path_real(path, real), flags); \
	}

CATCH_OPEN(open)
CATCH_OPEN(open64)
CATCH_OPENAT(openat)
CATCH_OPENAT(openat64)
CATCH_OPEN_2(__open_2)
CATCH_OPEN_2(__open64_2)

_Static_assert(sizeof(struct stat) == sizeof(struct stat64), "one structure for both spellings");

static bool stats_ours(const char *path, void *st)
{
	enum handover_kind kind;
	uint32_t index;

	if (!pl_path_ours(path, &kind, &index))
		return false;
	pl_path_stat(kind, index, st);
	return true;
}

#define CATCH_STAT(name, type)                                   \
	CAUGHT int name(const char *path, struct type *st)       \
	{                                                        \
		char real[PATH_MAX];                             \
                                                                 \
		if (stats_ours(path, st))                        \
			return 0;                                \
		return NEXT(name)(pl_path_real(path, real), st); \
	}

#define CATCH_FSTAT(name, type)                                                   \
	CAUGHT int name(int fd, struct type *st)                                  \
	{                                                                         \
		struct pl_file *file = pl_file_get(fd);                           \
                                                                                  \
		if (!file)                                                        \
			return NEXT(name)(fd, st);                                \
		pl_path_stat(file->kind, file->index, (struct stat *)(void *)st); \
		pl_file_put(file);                                                \
		return 0;                                                         \
	}

/* What a call with AT_EMPTY_PATH is about, if it is ours. */
static bool stats_ours_at(int folder, const char *path, int flags, struct stat *st)
{
	struct pl_file *file;

	if (stats_ours(path, st))
		return true;
	file = (flags & AT_EMPTY_PATH) && (!path || !*path) ? pl_file_get(folder) : NULL;
	if (!file)
		return false;
	pl_path_stat(file->kind, file->index, st);
	pl_file_put(file);
	return true;
}

#define CATCH_FSTATAT(name, type)                                                  \
	CAUGHT int name(int folder, const char *path, struct type *st, int flags)  \
	{                                                                          \
		char real[PATH_MAX];                                               \
                                                                                   \
		if (stats_ours_at(folder, path, flags, (struct stat *)(void *)st)) \
			return 0;                                                  \
		return NEXT(name)(folder, pl_path_real(path, real), st, flags);    \
	}

CATCH_STAT(stat, stat)
CATCH_STAT(stat64, stat64)
CATCH_STAT(lstat, stat)
CATCH_STAT(lstat64, stat64)
CATCH_FSTAT(fstat, stat)
CATCH_FSTAT(fstat64, stat64)
CATCH_FSTATAT(fstatat, stat)
CATCH_FSTATAT(fstatat64, stat64)

CAUGHT int statx(int folder, const char *path, int flags, unsigned int mask, struct statx *stx)
{
	char real[PATH_MAX];
	struct stat st;

	if (!stats_ours_at(folder, path, flags, &st))
		return NEXT(statx)(folder, pl_path_real(path, real), flags, mask, stx);
	*stx = (struct statx){
		.stx_mask = STATX_TYPE | STATX_MODE | STATX_NLINK | STATX_UID | STATX_GID |
			    STATX_INO,
		.stx_blksize = (uint32_t)st.st_blksize,
		.stx_nlink = (uint32_t)st.st_nlink,
		.stx_uid = st.st_uid,
		.stx_gid = st.st_gid,
		.stx_mode = (uint16_t)st.st_mode,
		.stx_ino = st.st_ino,
		.stx_rdev_major = major(st.st_rdev),
		.stx_rdev_minor = minor(st.st_rdev),
	};
	return 0;
}

CAUGHT int access(const char *path, int mode)
{
	char real[PATH_MAX];
	struct stat st;

	if (stats_ours(path, &st))
		return mode & X_OK ? (int)answer(-EACCES) : 0;
	return NEXT(access)(pl_path_real(path, real), mode);
}

CAUGHT ssize_t readlink(const char *path, char *buf, size_t size)
{
	char real[PATH_MAX];

	return NEXT(readlink)(pl_path_real(path, real), buf, size);
}

CAUGHT char *realpath(const char *path, char *resolved)
{
	char real[PATH_MAX];

	return NEXT(realpath)(pl_path_real(path, real), resolved);
}

CAUGHT DIR *opendir(const char *path)
{
	char real[PATH_MAX];

	return NEXT(opendir)(pl_path_real(path, real));
}

CAUGHT FILE *fopen(const char *path, const char *mode)
{
	char real[PATH_MAX];

	return NEXT(fopen)(pl_path_real(path, real), mode);
}

CAUGHT FILE *fopen64(const char *path, const char *mode)
{
	char real[PATH_MAX];

	return NEXT(fopen64)(pl_path_real(path, real), mode);
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
