/* SPDX-License-Identifier: MIT */
/* See handover.h. */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <json-c/json.h>

#define MARK_MAGIC "quiesce"
#define MARK_SIZE  4096U
#define SEEN_SIZE  (HANDOVER_MAX_DEVICES * sizeof(struct handover_seen))

static const char *const kind_names[] = {
	[HANDOVER_IOMMUFD] = "quiesce-iommufd",	    [HANDOVER_CDEV] = "quiesce-vfio",
	[HANDOVER_CONTAINER] = "quiesce-container", [HANDOVER_GROUP] = "quiesce-group",
	[HANDOVER_DEVICE] = "quiesce-device",	    [HANDOVER_SESSION] = "quiesce-session",
};

static struct handover_mark *map_mark(int fd)
{
	void *mark = mmap(NULL, MARK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	return mark == MAP_FAILED ? NULL : mark;
}

int handover_make(enum handover_kind kind, uint32_t index, bool cloexec)
{
	int fd = memfd_create(kind_names[kind], MFD_ALLOW_SEALING | (cloexec ? MFD_CLOEXEC : 0));
	struct handover_mark *mark;
	int number;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, MARK_SIZE) < 0)
		goto fail;
	mark = map_mark(fd);
	if (!mark)
		goto fail;
	memcpy(mark->magic, MARK_MAGIC, sizeof(mark->magic));
	mark->kind = kind;
	mark->index = index;
	handover_forget(mark);
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		goto fail;
	return fd;
fail:
	number = errno;
	close(fd);
	return -number;
}

bool handover_named(int fd)
{
	char path[64];
	char link[64];
	ssize_t size;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	size = readlink(path, link, sizeof(link) - 1);
	if (size < 0)
		return false;
	link[size] = '\0';
	return !strncmp(link, "/memfd:quiesce-", 15);
}

struct handover_mark *handover_find(int fd)
{
	struct handover_mark *mark;
	struct stat st;

	if (!handover_named(fd) || syscall(SYS_fstat, fd, &st) < 0 || st.st_size != MARK_SIZE)
		return NULL;
	mark = map_mark(fd);
	if (mark && (memcmp(mark->magic, MARK_MAGIC, sizeof(mark->magic)) != 0 ||
		     mark->kind > HANDOVER_SESSION || mark->index >= HANDOVER_MAX_DEVICES)) {
		handover_forget(mark);
		mark = NULL;
	}
	return mark;
}

void handover_forget(struct handover_mark *mark)
{
	if (mark)
		munmap(mark, MARK_SIZE);
}

/* ---- the description ---- */

static struct json_object *device_json(const struct handover_device *device)
{
	struct json_object *object = json_object_new_object();

	json_object_object_add(object, "spec", json_object_new_string(device->spec));
	json_object_object_add(object, "name", json_object_new_string(device->name));
	return object;
}

static int write_counters(const char *folder)
{
	char path[PATH_MAX];
	int result;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/seen", folder);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	/* All of it now: a full disk must not be met by whoever counts. */
	result = -posix_fallocate(fd, 0, SEEN_SIZE);
	close(fd);
	return result;
}

int handover_write(const char *folder, const struct handover_config *config, struct qsc_error *err)
{
	struct json_object *root = json_object_new_object();
	struct json_object *devices = json_object_new_array();
	char path[PATH_MAX];
	int result;

	for (uint32_t i = 0; i < config->num_devices; i++)
		json_object_array_add(devices, device_json(&config->devices[i]));
	json_object_object_add(root, "devices", devices);
	if (config->trace)
		json_object_object_add(root, "trace", json_object_new_string(config->trace));
	if (config->fault)
		json_object_object_add(root, "fault", json_object_new_string(config->fault));
	(void)snprintf(path, sizeof(path), "%s/devices.json", folder);
	result = json_object_to_file_ext(path, root, JSON_C_TO_STRING_PRETTY) < 0 ? -errno : 0;
	json_object_put(root);
	if (!result)
		result = write_counters(folder);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot write to %s: %s", folder,
				     strerror(-result));
	return 0;
}

/* A copy of a member's text; NULL when it has none. */
static char *text_of(struct json_object *object, const char *key)
{
	struct json_object *member = json_object_object_get(object, key);

	return member ? strdup(json_object_get_string(member)) : NULL;
}

int handover_read(const char *folder, struct handover_config *config, struct qsc_error *err)
{
	struct json_object *devices;
	struct json_object *root;
	char path[PATH_MAX];
	size_t count;

	memset(config, 0, sizeof(*config));
	(void)snprintf(path, sizeof(path), "%s/devices.json", folder);
	root = json_object_from_file(path);
	devices = json_object_object_get(root, "devices");
	count = devices ? json_object_array_length(devices) : 0;
	if (!count || count > HANDOVER_MAX_DEVICES) {
		json_object_put(root);
		return qsc_error_set(err, EINVAL, NULL,
				     "%s is not the description of devices that '%s' promises; "
				     "start the command with 'quiesce run'",
				     path, HANDOVER_ENV);
	}
	config->trace = text_of(root, "trace");
	config->fault = text_of(root, "fault");
	for (size_t i = 0; i < count; i++) {
		struct handover_device *device = &config->devices[i];
		struct json_object *object = json_object_array_get_idx(devices, i);
		char *name = text_of(object, "name");

		(void)snprintf(device->name, sizeof(device->name), "%s", name ? name : "?");
		free(name);
		device->spec = text_of(object, "spec");
		config->num_devices++;
		if (!device->spec) {
			json_object_put(root);
			return qsc_error_set(err, EINVAL, NULL, "%s: device %zu has no spec", path,
					     i);
		}
	}
	json_object_put(root);
	return 0;
}

void handover_release(struct handover_config *config)
{
	for (uint32_t i = 0; i < config->num_devices; i++)
		free(config->devices[i].spec);
	free(config->trace);
	free(config->fault);
	memset(config, 0, sizeof(*config));
}

struct handover_seen *handover_seen_map(const char *folder)
{
	char path[PATH_MAX];
	void *seen;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/seen", folder);
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	seen = mmap(NULL, SEEN_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	return seen == MAP_FAILED ? NULL : seen;
}

void handover_seen_unmap(struct handover_seen *seen)
{
	if (seen)
		munmap(seen, SEEN_SIZE);
}
