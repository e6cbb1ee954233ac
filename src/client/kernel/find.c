/* SPDX-License-Identifier: MIT */
/*
 * From what a person wrote to a device: /sys tells which files stand for it, and what keeps it from
 * being handed out. Nothing is opened here but folders and links.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "client/kernel/kernel.h"

#define CDEV_FOLDER  "/dev/vfio/devices/"
#define GROUP_FOLDER "/dev/vfio/"
#define FORMS                                                                                 \
	"vfio:0000:3b:00.2, vfio:UUID of a mediated device, vfio:/dev/vfio/devices/vfio3 or " \
	"vfio:/dev/vfio/12, each with ,via=cdev or ,via=legacy where it matters"

static void release_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}

/* Does `text` have the form of `pattern`, in which x stands for a hexadecimal digit? */
static bool has_form(const char *text, const char *pattern)
{
	for (; *pattern; pattern++, text++)
		if (*pattern == 'x' ? !isxdigit((unsigned char)*text) : *text != *pattern)
			return false;
	return !*text;
}

static bool is_pci_address(const char *text)
{
	return has_form(text, "xxxx:xx:xx.x") || has_form(text, "xxxxx:xx:xx.x") ||
	       has_form(text, "xxxxxxxx:xx:xx.x");
}

static bool is_uuid(const char *text)
{
	return has_form(text, "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx");
}

/* Name of what a link points at; false where there is no link. */
static bool read_link(const char *path, char *name, size_t size)
{
	char target[PATH_MAX];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *last;

	if (n <= 0)
		return false;
	target[n] = '\0';
	last = strrchr(target, '/');
	if ((size_t)snprintf(name, size, "%s", last ? last + 1 : target) < size)
		return true;
	/* Not half a name, which may be another's. */
	name[0] = '\0';
	return false;
}

/* What is not there is an answer; what cannot be looked at (no descriptor is free, say) is none. */
static bool is_absent(int number)
{
	return number == ENOENT || number == ENOTDIR;
}

static int cannot_look(const char *path, struct qsc_error *err)
{
	int number = errno;

	return qsc_error_set(err, number, NULL, "cannot look at %s: %s", path, strerror(number));
}

/* The first entry of a folder that is not hidden: 1, 0 where there is none, or -errno. */
static int first_entry(const char *path, char *name, size_t size, struct qsc_error *err)
{
	qsc_cleanup(release_dir) DIR *dir = opendir(path);
	struct dirent *entry;

	if (!dir && !is_absent(errno))
		return cannot_look(path, err);
	while (dir && (entry = readdir(dir)) != NULL)
		if (entry->d_name[0] != '.')
			return (size_t)snprintf(name, size, "%s", entry->d_name) < size;
	return 0;
}

/* 1 or 0, or -errno. */
static int exists(const char *path, struct qsc_error *err)
{
	if (access(path, F_OK) == 0)
		return 1;
	return is_absent(errno) ? 0 : cannot_look(path, err);
}

/*
 * A group whose name says that its devices can write anywhere. Groups of mediated devices have that
 * name too, though these have no DMA of their own. 1, 0 or -errno.
 */
static int group_is_unprotected(const char *folder, struct qsc_error *err)
{
	char path[PATH_MAX];
	char name[32] = "";
	qsc_autoclose int fd = -1;
	ssize_t n;

	(void)snprintf(path, sizeof(path), "%s/iommu_group/name", folder);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	/* Most groups have no name. */
	if (fd < 0 && !is_absent(errno))
		return cannot_look(path, err);
	n = fd < 0 ? 0 : read(fd, name, sizeof(name) - 1);
	return n > 0 && !strncmp(name, "vfio-noiommu", 12);
}

/* The device's own file, where it has one. 0 or -errno. */
static int look_for_cdev(const char *folder, struct qsc_kernel_place *place, struct qsc_error *err)
{
	char path[PATH_MAX];
	char name[32];
	int result;

	(void)snprintf(path, sizeof(path), "%s/vfio-dev", folder);
	result = first_entry(path, name, sizeof(name), err);
	if (result <= 0)
		return result;
	/* The folder is there without device files too; what has a number has a file. */
	(void)snprintf(path, sizeof(path), "%s/vfio-dev/%s/dev", folder, name);
	result = exists(path, err);
	if (result > 0)
		(void)snprintf(place->cdev, sizeof(place->cdev), CDEV_FOLDER "%s", name);
	return result < 0 ? result : 0;
}

/* What /sys says in the folder of a device. 0 or -errno. */
static int look_at(const char *folder, struct qsc_kernel_place *place, struct qsc_error *err)
{
	char path[PATH_MAX];
	int result;

	(void)snprintf(path, sizeof(path), "%s/driver", folder);
	(void)read_link(path, place->driver, sizeof(place->driver));
	result = place->cdev[0] ? 0 : look_for_cdev(folder, place, err);
	if (result < 0)
		return result;
	(void)snprintf(path, sizeof(path), "%s/iommu_group", folder);
	if (!read_link(path, place->group_id, sizeof(place->group_id)))
		return 0;
	result = place->mediated ? 0 : group_is_unprotected(folder, err);
	if (result < 0)
		return result;
	place->no_iommu = result;
	(void)snprintf(place->group, sizeof(place->group), GROUP_FOLDER "%s%s",
		       place->no_iommu ? "noiommu-" : "", place->group_id);
	return 0;
}

static int find_pci(const char *root, struct qsc_kernel_place *place, struct qsc_error *err)
{
	char folder[PATH_MAX];
	int result;

	(void)snprintf(folder, sizeof(folder), "%s/sys/bus/pci/devices/%s", root, place->device);
	result = exists(folder, err);
	if (!result)
		return qsc_error_set(err, ENOENT, NULL,
				     "this machine has no PCI device %s; `lspci -D` lists those "
				     "that it has",
				     place->device);
	if (result > 0)
		result = look_at(folder, place, err);
	if (result < 0)
		return result;
	if (!place->group[0] && !place->cdev[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "the PCI device %s is behind no IOMMU; switch the IOMMU on in "
				     "the firmware and on the kernel's command line "
				     "(intel_iommu=on or amd_iommu=on)",
				     place->device);
	/* Every driver that hands devices out says so in its name. */
	if (!place->cdev[0] && !strstr(place->driver, "vfio"))
		return qsc_error_set(
			err, ENODEV, NULL,
			"the PCI device %s %s%s%s, not to a VFIO driver; bind it: modprobe "
			"vfio-pci, echo vfio-pci > /sys/bus/pci/devices/%s/driver_override, "
			"%secho %s > "
			"/sys/bus/pci/drivers_probe (or the driver of its make, such as "
			"mlx5_vfio_pci, to migrate it)",
			place->device, place->driver[0] ? "is bound to the driver '" : "is bound",
			place->driver, place->driver[0] ? "'" : " to no driver", place->device,
			place->driver[0] ? "unbind it from that driver, " : "", place->device);
	return 0;
}

static int find_mediated(const char *root, struct qsc_kernel_place *place, struct qsc_error *err)
{
	char folder[PATH_MAX];
	int result;

	place->mediated = true;
	(void)snprintf(folder, sizeof(folder), "%s/sys/bus/mdev/devices/%s", root, place->device);
	result = exists(folder, err);
	if (!result)
		return qsc_error_set(err, ENOENT, NULL,
				     "there is no mediated device %s; make it by writing that UUID "
				     "to the file 'create' of a type in mdev_supported_types of "
				     "its parent",
				     place->device);
	if (result > 0)
		result = look_at(folder, place, err);
	if (result < 0)
		return result;
	if (!place->group[0] && !place->cdev[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "the mediated device %s has no driver that hands it out; load "
				     "the module of its parent",
				     place->device);
	return 0;
}

/* A device file. Where there is no /sys to ask, it stands for itself. */
static int find_cdev(const char *root, struct qsc_kernel_place *place, struct qsc_error *err)
{
	const char *name = place->cdev + sizeof(CDEV_FOLDER) - 1;
	char folder[PATH_MAX];

	if (!*name || strchr(name, '/'))
		return qsc_error_set(err, EINVAL, NULL, "a device file is " CDEV_FOLDER "vfioN");
	(void)snprintf(folder, sizeof(folder), "%s/sys/class/vfio-dev/%s/device", root, name);
	if (!read_link(folder, place->device, sizeof(place->device)))
		return 0;
	place->mediated = is_uuid(place->device);
	return look_at(folder, place, err);
}

/* The one device of a group. */
static int find_group(const char *root, const char *id, struct qsc_kernel_place *place,
		      struct qsc_error *err)
{
	char folder[PATH_MAX];
	struct dirent *entry;
	DIR *dir;
	int count = 0;

	if (!strncmp(id, "noiommu-", 8))
		return qsc_error_set(err, ENODEV, NULL,
				     "a device of that group is behind no IOMMU, where its DMA "
				     "could reach all memory; switch the IOMMU on");
	if (!*id || strspn(id, "0123456789") != strlen(id) || strlen(id) > 9)
		return qsc_error_set(err, EINVAL, NULL, "a group is " GROUP_FOLDER "N");
	(void)snprintf(folder, sizeof(folder), "%s/sys/kernel/iommu_groups/%s/devices", root, id);
	dir = opendir(folder);
	if (!dir && !is_absent(errno))
		return cannot_look(folder, err);
	while (dir && (entry = readdir(dir)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(place->device, sizeof(place->device), "%.63s", entry->d_name);
		count++;
	}
	release_dir(&dir);
	if (!count)
		return qsc_error_set(err, ENOENT, NULL, "this machine has no IOMMU group %s", id);
	if (count > 1)
		return qsc_error_set(
			err, EINVAL, NULL,
			"the IOMMU group %s has %d devices; name the one that is meant "
			"by its PCI address",
			id, count);
	return is_uuid(place->device) ? find_mediated(root, place, err)
				      : find_pci(root, place, err);
}

/* One option of `length` bytes. */
static int read_option(const char *option, size_t length, struct qsc_kernel_way *way,
		       struct qsc_error *err)
{
	static const struct {
		const char *text;
		struct qsc_kernel_way way;
	} known[] = {
		{"via=cdev", {.via = QSC_KERNEL_CDEV}},
		{"via=legacy", {.via = QSC_KERNEL_LEGACY}},
		{"raw", {.raw = true}},
	};

	for (size_t i = 0; i < QSC_ARRAY_SIZE(known); i++) {
		if (strlen(known[i].text) != length || strncmp(option, known[i].text, length) != 0)
			continue;
		if (known[i].way.raw)
			way->raw = true;
		else if (way->via == QSC_KERNEL_AUTO || way->via == known[i].way.via)
			way->via = known[i].way.via;
		else
			return qsc_error_set(err, EINVAL, NULL,
					     "a device is reached by one way: via=cdev or "
					     "via=legacy, not both");
		return 0;
	}
	return qsc_error_set(err, EINVAL, NULL,
			     "'%.*s' is no option of a kernel device; there is via=cdev "
			     "(device file and iommufd), via=legacy (group and container) and raw "
			     "(as its driver makes it)",
			     (int)qsc_min_u64(length, 80), option);
}

/* Splits "NAME,OPTION…". */
static int read_text(const char *text, struct qsc_kernel_place *place, struct qsc_kernel_way *way,
		     struct qsc_error *err)
{
	const char *option = strchr(text, ',');
	size_t length = option ? (size_t)(option - text) : strlen(text);

	if (!length || length >= sizeof(place->cdev))
		return qsc_error_set(err, EINVAL, NULL, "'%.80s' names no device; write " FORMS,
				     text);
	memcpy(place->name, text, length);
	*way = (struct qsc_kernel_way){.via = QSC_KERNEL_AUTO};
	while (option) {
		const char *end = strchr(++option, ',');
		int result = read_option(option, end ? (size_t)(end - option) : strlen(option), way,
					 err);

		if (result < 0)
			return result;
		option = end;
	}
	return 0;
}

int qsc_kernel_find(const char *root, const char *text, struct qsc_kernel_place *place,
		    struct qsc_kernel_way *way, struct qsc_error *err)
{
	int result;

	memset(place, 0, sizeof(*place));
	result = read_text(text, place, way, err);
	if (result < 0)
		return result;
	if (!strncmp(place->name, CDEV_FOLDER, sizeof(CDEV_FOLDER) - 1)) {
		memcpy(place->cdev, place->name, sizeof(place->cdev));
		return find_cdev(root, place, err);
	}
	if (!strncmp(place->name, GROUP_FOLDER, sizeof(GROUP_FOLDER) - 1))
		return find_group(root, place->name + sizeof(GROUP_FOLDER) - 1, place, err);
	for (size_t i = 0; place->name[i] && i + 1 < sizeof(place->device); i++)
		place->device[i] = (char)tolower((unsigned char)place->name[i]);
	if (is_pci_address(place->device))
		return find_pci(root, place, err);
	if (is_uuid(place->device))
		return find_mediated(root, place, err);
	return qsc_error_set(err, EINVAL, NULL, "'%s' is no name of a kernel device; write " FORMS,
			     place->name);
}

void qsc_kernel_group_blockers(const char *root, const struct qsc_kernel_place *place, char *text,
			       size_t size)
{
	char folder[PATH_MAX];
	struct dirent *entry;
	size_t used = 0;
	DIR *dir;

	text[0] = '\0';
	(void)snprintf(folder, sizeof(folder), "%s/sys/kernel/iommu_groups/%s/devices", root,
		       place->group_id);
	dir = opendir(folder);
	while (dir && (entry = readdir(dir)) != NULL) {
		char path[PATH_MAX];
		char driver[64] = "";

		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof(path), "%s/sys/bus/pci/devices/%s/driver", root,
			       entry->d_name);
		/* Bridges without driver, or with that of their kind, do no harm. */
		if (!read_link(path, driver, sizeof(driver)) || strstr(driver, "vfio") ||
		    !strcmp(driver, "pcieport"))
			continue;
		if (used < size)
			used += (size_t)snprintf(text + used, size - used, "%s%s (%s)",
						 used ? ", " : "", entry->d_name, driver);
	}
	release_dir(&dir);
}
