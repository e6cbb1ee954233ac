/* SPDX-License-Identifier: MIT */
/* See paths.h. */
#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "container.h"
#include "device.h"
#include "group.h"
#include "iommufd.h"
#include "vfio.h"

struct pl_file *pl_path_make(enum handover_kind kind, uint32_t index)
{
	struct pl_file *file;

	if (index >= pl_devices_count())
		return NULL;
	switch (kind) {
	case HANDOVER_IOMMUFD:
		return pl_iommufd_new();
	case HANDOVER_CDEV:
		return pl_cdev_new(index);
	case HANDOVER_CONTAINER:
		return pl_container_new();
	case HANDOVER_GROUP:
		return pl_group_new(index, &file) < 0 ? NULL : file;
	default:
		return NULL; /* those come from another one, not from a path */
	}
}

static bool number(const char *text, uint32_t *index)
{
	char *end;
	unsigned long value;

	if (*text < '0' || *text > '9' || (*text == '0' && text[1]))
		return false;
	value = strtoul(text, &end, 10);
	*index = (uint32_t)value;
	return !*end && value < pl_devices_count();
}

bool pl_path_ours(const char *path, enum handover_kind *kind, uint32_t *index)
{
	*index = 0;
	if (!path || strncmp(path, "/dev/", 5) != 0 || !pl_devices_count())
		return false;
	path += 5;
	if (!strcmp(path, "iommu")) {
		*kind = HANDOVER_IOMMUFD;
		return true;
	}
	if (strncmp(path, "vfio/", 5) != 0)
		return false;
	path += 5;
	if (!strcmp(path, "vfio")) {
		*kind = HANDOVER_CONTAINER;
		return true;
	}
	if (!strncmp(path, "devices/vfio", 12)) {
		*kind = HANDOVER_CDEV;
		return number(path + 12, index);
	}
	*kind = HANDOVER_GROUP;
	return number(path, index);
}

/*
 * The rest of the path behind a folder of ours, or NULL. Its name, `own`, is among those that a
 * folder of sysfs, `place`, has.
 */
static const char *behind(const char *path, const char *place, const char *own)
{
	size_t length = strlen(place);
	size_t size = strlen(own);

	if (strncmp(path, place, length) != 0 || strncmp(path + length, own, size) != 0)
		return NULL;
	path += length + size;
	return !*path || *path == '/' ? path : NULL;
}

const char *pl_path_real(const char *path, char *real)
{
	const char *rest;
	char host[32];
	char group[16];

	if (!path || strncmp(path, "/sys/", 5) != 0)
		return path;
	for (uint32_t i = 0; i < pl_devices_count(); i++) {
		(void)snprintf(host, sizeof(host), HANDOVER_PCI_FORMAT, HANDOVER_PCI_DOMAIN,
			       HANDOVER_PCI_FIRST_BUS + i);
		(void)snprintf(group, sizeof(group), "%u", i);
		rest = behind(path, "/sys/bus/pci/devices/", host);
		if (rest && snprintf(real, PATH_MAX, "%s/" HANDOVER_SYSFS "/%s%s",
				     pl_devices_folder(), host, rest) < PATH_MAX)
			return real;
		rest = behind(path, "/sys/kernel/iommu_groups/", group);
		if (rest && snprintf(real, PATH_MAX, "%s/" HANDOVER_GROUPS "/%s%s",
				     pl_devices_folder(), group, rest) < PATH_MAX)
			return real;
	}
	return path;
}

void pl_path_stat(enum handover_kind kind, uint32_t index, struct stat *st)
{
	memset(st, 0, sizeof(*st));
	st->st_nlink = 1;
	st->st_blksize = 4096;
	st->st_uid = geteuid();
	st->st_gid = getegid();
	st->st_mode = 0600;
	switch (kind) {
	case HANDOVER_IOMMUFD:
	case HANDOVER_CONTAINER:
		st->st_mode |= S_IFCHR;
		st->st_rdev = makedev(HANDOVER_MISC_MAJOR, kind);
		break;
	case HANDOVER_CDEV:
		st->st_mode |= S_IFCHR;
		st->st_rdev = makedev(HANDOVER_CDEV_MAJOR, index);
		break;
	case HANDOVER_GROUP:
		st->st_mode |= S_IFCHR;
		st->st_rdev = makedev(HANDOVER_MISC_MAJOR, 256 + index);
		break;
	default:
		break; /* without a path, and so without a type */
	}
	/* Each its own file. */
	st->st_ino = 1 + (ino_t)kind * HANDOVER_MAX_DEVICES + index;
}

/* The descriptor whose file a path is another name of, or -1. */
static int descriptor_of(const char *path)
{
	static const char *const folders[] = {"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/",
					      NULL};
	char own[32];
	char *end;
	unsigned long fd;
	size_t length;
	size_t i = 0;

	while (folders[i] && strncmp(path, folders[i], strlen(folders[i])) != 0)
		i++;
	(void)snprintf(own, sizeof(own), "/proc/%d/fd/", (int)getpid());
	length = strlen(folders[i] ? folders[i] : own);
	if (!folders[i] && strncmp(path, own, length) != 0)
		return -1;
	if (path[length] < '0' || path[length] > '9')
		return -1;
	fd = strtoul(path + length, &end, 10);
	return *end || fd > INT_MAX ? -1 : (int)fd;
}

bool pl_path_again(const char *path, enum handover_kind *kind, uint32_t *index)
{
	struct pl_file *file;

	if (!path || !pl_file_any() ||
	    (strncmp(path, "/proc/", 6) != 0 && strncmp(path, "/dev/fd/", 8) != 0))
		return false;
	file = pl_file_get(descriptor_of(path));
	if (!file)
		return false;
	*kind = file->kind;
	*index = file->index;
	pl_file_put(file);
	return true;
}

int pl_path_open(enum handover_kind kind, uint32_t index, int flags)
{
	struct pl_file *file;
	int result;

	if (kind == HANDOVER_DEVICE || kind == HANDOVER_SESSION)
		return -ENXIO;
	if ((flags & (O_CREAT | O_EXCL)) == (O_CREAT | O_EXCL))
		return -EEXIST;
	if (flags & O_DIRECTORY)
		return -ENOTDIR;
	if (kind == HANDOVER_GROUP) {
		result = pl_group_new(index, &file);
		if (result < 0)
			return result;
	} else {
		file = pl_path_make(kind, index);
	}
	return file ? pl_file_open(file, kind, index, (flags & O_CLOEXEC) != 0) : -ENOMEM;
}
