/* SPDX-License-Identifier: MIT */
/* See paths.h. */
#include "paths.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

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

	if (*text < '0' || *text > '9')
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

int pl_path_open(enum handover_kind kind, uint32_t index, int flags)
{
	struct pl_file *file;
	int result;

	if (kind == HANDOVER_GROUP) {
		result = pl_group_new(index, &file);
		if (result < 0)
			return result;
	} else {
		file = pl_path_make(kind, index);
	}
	return file ? pl_file_open(file, kind, index, (flags & O_CLOEXEC) != 0) : -ENOMEM;
}
