/* SPDX-License-Identifier: MIT */
/* See group.h. A group has one device, which may be opened several times; they share it. */
#include "group.h"

#include <errno.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "container.h"
#include "device.h"
#include "user.h"
#include "vfio.h"

#define MAX_NAME 4096U

struct group {
	struct pl_file file;
	uint32_t index;
	pthread_mutex_t lock;
	struct pl_file *container; /* held while set */
	struct pl_dev *dev;	   /* while it is open */
	uint32_t opens;
};

static pthread_mutex_t opened_lock = PTHREAD_MUTEX_INITIALIZER;
static bool opened[HANDOVER_MAX_DEVICES];

static struct group *group_of(struct pl_file *file)
{
	return (struct group *)file;
}

static int get_status(struct group *group, void *arg)
{
	struct vfio_group_status status;
	int result = pl_copy_argsz(&status, sizeof(status), arg);

	if (result < 0)
		return result;
	status.flags = VFIO_GROUP_FLAGS_VIABLE;
	if (group->container)
		status.flags |= VFIO_GROUP_FLAGS_CONTAINER_SET;
	return pl_copy_out(arg, &status, sizeof(status));
}

static int set_container(struct group *group, const void *arg)
{
	struct pl_file *container;
	int32_t fd;
	int error;
	int result = pl_copy_in(&fd, arg, sizeof(fd));

	if (result < 0)
		return result;
	if (fd < 0 || group->container)
		return -EINVAL;
	container = pl_file_take_up(fd, &error);
	if (!container)
		return error ? error : -EBADF;
	if (!pl_is_container(container)) {
		pl_file_put(container);
		return -EBADFD;
	}
	pl_container_join(container);
	group->container = container;
	return 0;
}

static int unset_container(struct group *group)
{
	if (!group->container)
		return -EINVAL;
	if (group->opens)
		return -EBUSY;
	pl_container_leave(group->container);
	pl_file_put(group->container);
	group->container = NULL;
	return 0;
}

/* The name is the device's PCI address, or its name here. */
static int check_name(const struct group *group, const char *arg)
{
	char name[128];
	char host[32];
	size_t length;

	for (length = 0; length < sizeof(name); length++) {
		int result = pl_copy_in(&name[length], arg + length, 1);

		if (result < 0)
			return result;
		if (!name[length])
			break;
	}
	if (length == sizeof(name))
		return -ENODEV;
	(void)snprintf(host, sizeof(host), HANDOVER_PCI_FORMAT, HANDOVER_PCI_DOMAIN,
		       HANDOVER_PCI_FIRST_BUS + group->index);
	return strcmp(name, host) != 0 && strcmp(name, pl_device_name(group->index)) != 0 ? -ENODEV
											  : 0;
}

static int open_device(struct group *group)
{
	int result;

	if (!group->container || !pl_container_ready(group->container))
		return -EINVAL;
	if (!group->opens) {
		result = pl_dev_open(group->index, &group->dev);
		if (result < 0)
			return result;
		result = pl_container_attach(group->container, group->dev);
		if (result < 0) {
			pl_dev_close(group->dev);
			return result;
		}
	}
	group->opens++;
	return 0;
}

/* Lock held. */
static void close_device(struct group *group)
{
	if (--group->opens)
		return;
	pl_container_detach(group->container, group->dev);
	pl_dev_close(group->dev);
	group->dev = NULL;
}

static int get_device_fd(struct group *group, const void *arg)
{
	struct pl_file *file;
	int result = check_name(group, arg);

	if (!result)
		result = open_device(group);
	if (result < 0)
		return result;
	file = pl_group_device_new(&group->file, group->dev);
	if (!file) {
		close_device(group);
		return -ENOMEM;
	}
	/* Releasing the file on failure comes back to this group for its lock. */
	pthread_mutex_unlock(&group->lock);
	result = pl_file_open(file, HANDOVER_DEVICE, group->index, true);
	pthread_mutex_lock(&group->lock);
	return result;
}

static int group_ioctl(struct pl_file *file, unsigned long command, void *arg)
{
	struct group *group = group_of(file);
	int result;

	pthread_mutex_lock(&group->lock);
	switch (command) {
	case VFIO_GROUP_GET_STATUS:
		result = get_status(group, arg);
		break;
	case VFIO_GROUP_SET_CONTAINER:
		result = set_container(group, arg);
		break;
	case VFIO_GROUP_UNSET_CONTAINER:
		result = unset_container(group);
		break;
	case VFIO_GROUP_GET_DEVICE_FD:
		result = get_device_fd(group, arg);
		break;
	default:
		result = -ENOTTY;
		break;
	}
	pthread_mutex_unlock(&group->lock);
	return result;
}

void pl_group_device_closed(struct pl_file *file)
{
	struct group *group = group_of(file);

	pthread_mutex_lock(&group->lock);
	close_device(group);
	pthread_mutex_unlock(&group->lock);
}

/* Files of its device hold the group's file, so that none is open. */
static void group_release(struct pl_file *file)
{
	struct group *group = group_of(file);

	if (group->container) {
		pl_container_leave(group->container);
		pl_file_put(group->container);
	}
	pthread_mutex_lock(&opened_lock);
	opened[group->index] = false;
	pthread_mutex_unlock(&opened_lock);
	pthread_mutex_destroy(&group->lock);
	free(group);
}

static const struct pl_file_ops group_ops = {
	.name = "group",
	.ioctl = group_ioctl,
	.release = group_release,
};

void pl_groups_fork_prepare(void)
{
	pthread_mutex_lock(&opened_lock);
}

void pl_groups_fork_parent(void)
{
	pthread_mutex_unlock(&opened_lock);
}

void pl_groups_fork_child(void)
{
	memset(opened, 0, sizeof(opened));
	pl_groups_fork_parent();
}

int pl_group_new(uint32_t index, struct pl_file **file)
{
	struct group *group;
	bool taken;

	pthread_mutex_lock(&opened_lock);
	taken = opened[index];
	opened[index] = true;
	pthread_mutex_unlock(&opened_lock);
	if (taken)
		return -EBUSY;
	group = calloc(1, sizeof(*group));
	if (!group) {
		pthread_mutex_lock(&opened_lock);
		opened[index] = false;
		pthread_mutex_unlock(&opened_lock);
		return -ENOMEM;
	}
	pthread_mutex_init(&group->lock, NULL);
	group->file.ops = &group_ops;
	group->index = index;
	*file = &group->file;
	return 0;
}
