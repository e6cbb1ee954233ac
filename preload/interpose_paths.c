/* SPDX-License-Identifier: MIT */
/* See interpose.h: calls that take a path, and those that tell what a file is. */
#include "interpose.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "file.h"
#include "paths.h"

/* The C library has names of its own for the parameters. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

static bool opens_ours(const char *path, int flags, int *fd)
{
	enum handover_kind kind;
	uint32_t index;

	if (!pl_path_ours(path, &kind, &index) && !pl_path_again(path, &kind, &index))
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

#define CATCH_OPENAT_2(name)                                                \
	extern int name(int folder, const char *path, int flags);           \
	CAUGHT int name(int folder, const char *path, int flags)            \
	{                                                                   \
		char real[PATH_MAX];                                        \
		int fd;                                                     \
                                                                            \
		if (opens_ours(path, flags, &fd))                           \
			return fd;                                          \
		return NEXT(name)(folder, pl_path_real(path, real), flags); \
	}

CATCH_OPEN(open)
CATCH_OPEN(open64)
CATCH_OPENAT(openat)
CATCH_OPENAT(openat64)
CATCH_OPEN_2(__open_2)
CATCH_OPEN_2(__open64_2)
CATCH_OPENAT_2(__openat_2)
CATCH_OPENAT_2(__openat64_2)

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

/* As programs call it that were linked before Linux had one structure for all: glibc 2.32 and
 * older.
 */
#define CATCH_XSTAT(name, type)                                           \
	extern int name(int version, const char *path, struct type *st);  \
	CAUGHT int name(int version, const char *path, struct type *st)   \
	{                                                                 \
		char real[PATH_MAX];                                      \
                                                                          \
		if (stats_ours(path, st))                                 \
			return 0;                                         \
		return NEXT(name)(version, pl_path_real(path, real), st); \
	}

#define CATCH_FXSTAT(name, type)                                                  \
	extern int name(int version, int fd, struct type *st);                    \
	CAUGHT int name(int version, int fd, struct type *st)                     \
	{                                                                         \
		struct pl_file *file = pl_file_get(fd);                           \
                                                                                  \
		if (!file)                                                        \
			return NEXT(name)(version, fd, st);                       \
		pl_path_stat(file->kind, file->index, (struct stat *)(void *)st); \
		pl_file_put(file);                                                \
		return 0;                                                         \
	}

CATCH_XSTAT(__xstat, stat)
CATCH_XSTAT(__xstat64, stat64)
CATCH_XSTAT(__lxstat, stat)
CATCH_XSTAT(__lxstat64, stat64)
CATCH_FXSTAT(__fxstat, stat)
CATCH_FXSTAT(__fxstat64, stat64)

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

/* Whether it is ours; *result is then what access() gives. */
static bool may_access(const char *path, int mode, int *result)
{
	struct stat st;

	if (!stats_ours(path, &st))
		return false;
	*result = mode & X_OK ? (int)answer(-EACCES) : 0;
	return true;
}

#define CATCH_ACCESS(name)                                         \
	CAUGHT int name(const char *path, int mode)                \
	{                                                          \
		char real[PATH_MAX];                               \
		int result;                                        \
                                                                   \
		if (may_access(path, mode, &result))               \
			return result;                             \
		return NEXT(name)(pl_path_real(path, real), mode); \
	}

CATCH_ACCESS(access)
CATCH_ACCESS(eaccess)
CATCH_ACCESS(euidaccess)

CAUGHT int faccessat(int folder, const char *path, int mode, int flags)
{
	char real[PATH_MAX];
	int result;

	if (may_access(path, mode, &result))
		return result;
	return NEXT(faccessat)(folder, pl_path_real(path, real), mode, flags);
}

CAUGHT ssize_t readlink(const char *path, char *buf, size_t size)
{
	char real[PATH_MAX];

	return NEXT(readlink)(pl_path_real(path, real), buf, size);
}

CAUGHT ssize_t readlinkat(int folder, const char *path, char *buf, size_t size)
{
	char real[PATH_MAX];

	return NEXT(readlinkat)(folder, pl_path_real(path, real), buf, size);
}

CAUGHT char *realpath(const char *path, char *resolved)
{
	char real[PATH_MAX];

	return NEXT(realpath)(pl_path_real(path, real), resolved);
}

CAUGHT char *canonicalize_file_name(const char *path)
{
	char real[PATH_MAX];

	return NEXT(canonicalize_file_name)(pl_path_real(path, real));
}

/* As a fortified program calls them. */
extern ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room);
extern ssize_t __readlinkat_chk(int folder, const char *path, char *buf, size_t size, size_t room);
extern char *__realpath_chk(const char *path, char *resolved, size_t room);

CAUGHT ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room)
{
	char real[PATH_MAX];

	return NEXT(__readlink_chk)(pl_path_real(path, real), buf, size, room);
}

CAUGHT ssize_t __readlinkat_chk(int folder, const char *path, char *buf, size_t size, size_t room)
{
	char real[PATH_MAX];

	return NEXT(__readlinkat_chk)(folder, pl_path_real(path, real), buf, size, room);
}

CAUGHT char *__realpath_chk(const char *path, char *resolved, size_t room)
{
	char real[PATH_MAX];

	return NEXT(__realpath_chk)(pl_path_real(path, real), resolved, room);
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
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
