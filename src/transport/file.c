/* SPDX-License-Identifier: MIT */
/* See file.h. */
#include "transport/file.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define VERSION_MAJOR 1U
#define VERSION_MINOR 0U

static const char head_magic[8] = "QSCSAVE";
static const char tail_magic[8] = "QSCEND\0";

/* ---- format ---- */

void qsc_file_encode_head(uint8_t head[QSC_FILE_HEAD_SIZE])
{
	const uint32_t version[2] = {htole32(VERSION_MAJOR), htole32(VERSION_MINOR)};

	memcpy(head, head_magic, 8);
	memcpy(head + 8, version, 8);
}

int qsc_file_check_head(const uint8_t head[QSC_FILE_HEAD_SIZE], const char *name,
			struct qsc_error *err)
{
	uint32_t version[2];

	if (memcmp(head, head_magic, 8) != 0)
		return qsc_error_set(err, EBADMSG, NULL, "%s holds no saved set", name);
	memcpy(version, head + 8, 8);
	if (le32toh(version[0]) != VERSION_MAJOR)
		return qsc_error_set(err, EPROTONOSUPPORT, NULL,
				     "%s was saved in format %u.%u and this program reads %u.%u",
				     name, le32toh(version[0]), le32toh(version[1]), VERSION_MAJOR,
				     VERSION_MINOR);
	return 0;
}

void qsc_file_encode_tail(uint64_t size, uint8_t tail[QSC_FILE_TAIL_SIZE])
{
	const uint64_t little = htole64(size);

	memset(tail, 0, QSC_FILE_TAIL_SIZE);
	memcpy(tail, tail_magic, 8);
	memcpy(tail + 8, &little, 8);
}

void qsc_file_encode_hash(XXH128_hash_t hash, uint8_t tail[QSC_FILE_TAIL_SIZE])
{
	const uint64_t halves[2] = {htole64(hash.low64), htole64(hash.high64)};

	memcpy(tail + QSC_FILE_TAIL_SIZE - QSC_FILE_HASH_SIZE, halves, sizeof(halves));
}

/* ---- places ---- */

static int open_folder(struct qsc_file_place *place)
{
	qsc_autofree char *folder = strndup(place->path, (size_t)(place->name - place->path));
	int fd;

	if (!folder)
		return -ENOMEM;
	fd = open(*folder ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int qsc_file_find(const char *path, struct qsc_file_place *place, struct qsc_error *err)
{
	const char *slash;

	*place = QSC_FILE_NOWHERE;
	place->path = strdup(path);
	if (!place->path)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	slash = strrchr(place->path, '/');
	place->name = slash ? slash + 1 : place->path;
	if (!*place->name || !strcmp(place->name, ".") || !strcmp(place->name, ".."))
		return qsc_error_set(err, EINVAL, NULL, "'%.128s' is no name of a file", path);
	place->folder = open_folder(place);
	if (place->folder < 0)
		return qsc_error_set(err, -place->folder, NULL,
				     "cannot open the folder of %.256s (%s)", path,
				     strerrordesc_np(-place->folder));
	return 0;
}

void qsc_file_leave(struct qsc_file_place *place)
{
	qsc_fd_close(&place->folder);
	free((void *)place->path);
	*place = QSC_FILE_NOWHERE;
}

int qsc_file_rename(const struct qsc_file_place *place, const char *from, const char *to)
{
	if (renameat2(place->folder, from, place->folder, to, RENAME_NOREPLACE) == 0)
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	/* A file system that cannot do that; a link does not replace anything either. */
	if (linkat(place->folder, from, place->folder, to, 0) < 0)
		return -errno;
	if (unlinkat(place->folder, from, 0) == 0)
		return 0;
	return unlinkat(place->folder, to, 0) == 0 ? -EIO : -ENOTRECOVERABLE;
}

int qsc_file_borrow(int fd, int access_mode, struct stat *info, struct qsc_error *err)
{
	int flags = fcntl(fd, F_GETFL);
	int copy;

	if (flags < 0 || fstat(fd, info) < 0)
		return qsc_error_set(err, errno, NULL, "there is no open file %d (%s)", fd,
				     strerrordesc_np(errno));
	if (!S_ISREG(info->st_mode) && !S_ISFIFO(info->st_mode))
		return qsc_error_set(err, EINVAL, NULL, "the open file %d is neither file nor pipe",
				     fd);
	if ((flags & O_ACCMODE) != access_mode && (flags & O_ACCMODE) != O_RDWR)
		return qsc_error_set(err, EINVAL, NULL, "the open file %d is not open for %s", fd,
				     access_mode == O_WRONLY ? "writing" : "reading");
	copy = qsc_fd_dup(fd);
	return copy < 0 ? qsc_error_set(err, -copy, NULL, "cannot keep the open file %d (%s)", fd,
					strerrordesc_np(-copy))
			: copy;
}
