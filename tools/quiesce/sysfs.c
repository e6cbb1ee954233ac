/* SPDX-License-Identifier: MIT */
/* See sysfs.h. The preload library shows the folders where sysfs has such ones. */
#include "sysfs.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "handover.h"

void sysfs_host(uint32_t index, char *host)
{
	(void)snprintf(host, 32, HANDOVER_PCI_FORMAT, HANDOVER_PCI_DOMAIN,
		       HANDOVER_PCI_FIRST_BUS + index);
}

void sysfs_path(const char *folder, uint32_t index, char *path)
{
	char host[32];

	sysfs_host(index, host);
	(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_SYSFS "/%s", folder, host);
}

static int make_folder(const char *path)
{
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int make_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "we");

	if (!file)
		return -errno;
	(void)fputs(text, file);
	return fclose(file) ? -errno : 0;
}

static int make_link(const char *path, const char *to)
{
	return symlink(to, path) < 0 ? -errno : 0;
}

/* The device's group, which has it alone. */
static int make_group(const char *folder, uint32_t index, char *path)
{
	char host[32];
	char text[64];
	int result;

	(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_GROUPS, folder);
	result = make_folder(path);
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_GROUPS "/%u", folder, index);
		result = make_folder(path);
	}
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_GROUPS "/%u/devices", folder, index);
		result = make_folder(path);
	}
	if (!result) {
		sysfs_host(index, host);
		(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_GROUPS "/%u/devices/%s", folder,
			       index, host);
		(void)snprintf(text, sizeof(text), "../../../" HANDOVER_SYSFS "/%s", host);
		result = make_link(path, text);
	}
	return result;
}

static int make_device(const char *folder, uint32_t index, char *path)
{
	char device[PATH_MAX - 128];
	char text[64];
	int result;

	(void)snprintf(path, PATH_MAX, "%s/" HANDOVER_SYSFS, folder);
	result = make_folder(path);
	sysfs_path(folder, index, path);
	(void)snprintf(device, sizeof(device), "%.*s", (int)sizeof(device) - 1, path);
	if (!result)
		result = make_folder(device);
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/iommu_group", device);
		(void)snprintf(text, sizeof(text), "../../" HANDOVER_GROUPS "/%u", index);
		result = make_link(path, text);
	}
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/vfio-dev", device);
		result = make_folder(path);
	}
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/vfio-dev/vfio%u", device, index);
		result = make_folder(path);
	}
	if (!result) {
		(void)snprintf(path, PATH_MAX, "%s/vfio-dev/vfio%u/dev", device, index);
		(void)snprintf(text, sizeof(text), "%u:%u\n", HANDOVER_CDEV_MAJOR, index);
		result = make_file(path, text);
	}
	return result;
}

int sysfs_make(const char *folder, uint32_t index, struct qsc_error *err)
{
	char path[PATH_MAX];
	int result = make_device(folder, index, path);

	if (!result)
		result = make_group(folder, index, path);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot make %s: %s", path,
				     strerror(-result));
	return 0;
}
