/* SPDX-License-Identifier: MIT */
/*
 * The two ways to a device: its own file and an address space of iommufd, or its group and a
 * container. A device whose group this process has open already joins that, the same way. What is
 * missing, and what to do about it, is said where it is found to be missing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

#define IOMMUFD_PATH   "/dev/iommu"
#define CONTAINER_PATH "/dev/vfio/vfio"

/* ioctl() that goes on after a signal, with an argument that may be a number. */
static int ask(int fd, unsigned long request, uintptr_t arg)
{
	int result;

	do
		result = ioctl(fd, request, arg);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
}

int qsc_kernel_ioctl(int fd, unsigned long request, void *arg)
{
	return ask(fd, request, (uintptr_t)arg);
}

int qsc_kernel_feature(int fd, uint32_t feature_and_method, void *data, size_t size)
{
	struct {
		uint32_t argsz;
		uint32_t flags;
		uint64_t data[8];
	} request = {.argsz = (uint32_t)(2 * sizeof(uint32_t) + size), .flags = feature_and_method};
	int result;

	if (size > sizeof(request.data))
		return -EINVAL;
	if (size)
		memcpy(request.data, data, size);
	result = qsc_kernel_ioctl(fd, VFIO_DEVICE_FEATURE, &request);
	if (result < 0)
		return result;
	if (size)
		memcpy(data, request.data, size);
	return 0;
}

void qsc_kernel_detach(struct qsc_kernel_files *files, const struct qsc_dma_table *table)
{
	/* The device first: only then does its address space let go of the memory. */
	qsc_fd_close(&files->device);
	/* What others have as well stays, and all of it where there are no others is the last's. */
	for (size_t i = 0; table && i < table->count; i++)
		(void)qsc_kernel_space_unmap(files->space, table->entries[i].iova,
					     table->entries[i].size);
	pthread_mutex_lock(&files->space->lock);
	qsc_kernel_space_leave(files->space, files->member);
	qsc_kernel_space_put(files->space);
	files->space = NULL;
	files->member = NULL;
}

/* Open one of VFIO's files, or say what is missing. */
static int open_file(const char *path, const char *missing, struct qsc_error *err)
{
	int number;
	int fd;

	do
		fd = open(path, O_RDWR | O_CLOEXEC);
	while (fd < 0 && errno == EINTR);
	if (fd >= 0)
		return fd;
	number = errno;
	switch (number) {
	case ENOENT:
	case ENODEV:
	case ENXIO:
		/* Not ENOENT: nothing that was written is wrong, the machine lacks it. */
		return qsc_error_set(err, ENODEV, NULL, "there is no %s; %s", path, missing);
	case EACCES:
	case EPERM:
		return qsc_error_set(err, number, NULL,
				     "no permission to use %s; let its group or user have read and "
				     "write access to it (chgrp, or a rule of udev)",
				     path);
	case EBUSY:
		return qsc_error_set(err, number, NULL,
				     "%s is in use by another program; it must let go first", path);
	default:
		return qsc_error_set(err, number, NULL, "cannot open %s: %s", path,
				     strerror(number));
	}
}

/* ---- device file and iommufd ---- */

/* A page table that can track dirty pages, where the IOMMU says it has such; 0 where it has none.
 */
static uint32_t make_tracking_table(int iommufd, uint32_t device, uint32_t ioas)
{
	struct abi_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = ABI_HWPT_DIRTY_TRACKING,
		.dev_id = device,
		.pt_id = ioas,
	};

	return qsc_kernel_ioctl(iommufd, ABI_IOMMUFD(ABI_HWPT_ALLOC), &alloc) < 0
		       ? 0
		       : alloc.out_hwpt_id;
}

static void drop_table(int iommufd, uint32_t table)
{
	struct abi_destroy destroy = {.size = sizeof(destroy), .id = table};

	(void)qsc_kernel_ioctl(iommufd, ABI_IOMMUFD(ABI_DESTROY), &destroy);
}

static int attach_to(int device, uint32_t table)
{
	struct abi_attach attach = {.argsz = sizeof(attach), .pt_id = table};

	return qsc_kernel_ioctl(device, ABI_ATTACH_IOMMUFD_PT, &attach);
}

static int explain_attach(int result, struct qsc_error *err)
{
	if (result == -EPERM)
		return qsc_error_set(err, EPERM, NULL,
				     "the kernel does not attach it to an address space: the "
				     "machine cannot confine its interrupts; switch interrupt "
				     "remapping on, or trust the device (allow_unsafe_interrupts "
				     "of iommufd or vfio_iommu_type1)");
	return qsc_error_set(err, -result, NULL,
			     "the kernel does not attach it to an address space: %s",
			     strerror(-result));
}

/* Who keeps the group from being handed out. */
static int explain_group(const struct qsc_kernel_place *place, struct qsc_error *err)
{
	char blockers[512];

	qsc_kernel_group_blockers("", place, blockers, sizeof(blockers));
	return qsc_error_set(err, EPERM, NULL,
			     "its IOMMU group %s is not viable: the kernel still uses devices that "
			     "could do DMA in its place: %s; bind all of them to vfio-pci, or "
			     "unbind them",
			     place->group_id, blockers[0] ? blockers : "which, it does not say");
}

/* The kernel has one word for several reasons: what /sys can tell apart is, the rest is named. */
static int explain_bind(const struct qsc_kernel_place *place, int result, struct qsc_error *err)
{
	char blockers[512] = "";

	if (place->group_id[0])
		qsc_kernel_group_blockers("", place, blockers, sizeof(blockers));
	if (result == -EPERM && blockers[0])
		return explain_group(place, err);
	if (result == -EPERM)
		return qsc_error_set(err, EPERM, NULL,
				     "the kernel does not bind it to iommufd: either another user "
				     "has a device of its IOMMU group %s and must let go first, or "
				     "the machine cannot confine its interrupts; then switch "
				     "interrupt remapping on, or trust the device "
				     "(allow_unsafe_interrupts of iommufd)",
				     place->group_id);
	if (result == -EINVAL && place->no_iommu)
		return qsc_error_set(err, ENODEV, NULL,
				     "it is behind no IOMMU; switch the IOMMU on");
	if (result == -EINVAL)
		return qsc_error_set(err, EBUSY, NULL,
				     "another program has the device and must let go first, or its "
				     "DMA is not coherent with the caches, which only ,via=legacy "
				     "can do");
	if (result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "another program has the device, or one of its IOMMU group; "
				     "it must let go first");
	return qsc_error_set(err, -result, NULL, "the kernel does not bind it to iommufd: %s",
			     strerror(-result));
}

/* A new address space, with a page table that can track where there is such. */
static int attach_new(struct qsc_kernel_space *space, int device, uint32_t id,
		      struct qsc_error *err)
{
	struct abi_ioas_alloc ioas = {.size = sizeof(ioas)};
	int result = qsc_kernel_ioctl(space->iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &ioas);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "iommufd makes no address space: %s",
				     strerror(-result));
	space->ioas = ioas.out_ioas_id;
	space->hwpt = make_tracking_table(space->iommufd, id, ioas.out_ioas_id);
	if (space->hwpt && attach_to(device, space->hwpt) >= 0)
		return 0;
	/* Every mapping would go into it as well. */
	if (space->hwpt)
		drop_table(space->iommufd, space->hwpt);
	space->hwpt = 0;
	result = attach_to(device, space->ioas);
	return result < 0 ? explain_attach(result, err) : 0;
}

static int bind_and_attach(const struct qsc_kernel_place *place, struct qsc_kernel_space *space,
			   int device, struct qsc_error *err)
{
	struct abi_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = space->iommufd};
	int result = qsc_kernel_ioctl(device, ABI_BIND_IOMMUFD, &bind);

	if (result < 0)
		return explain_bind(place, result, err);
	if (!space->ioas)
		return attach_new(space, device, bind.out_devid, err);
	result = attach_to(device, space->hwpt ? space->hwpt : space->ioas);
	return result < 0 ? explain_attach(result, err) : 0;
}

/* The descriptor of the device, or -errno; what was opened for the space is closed by its owner. */
static int attach_cdev(const struct qsc_kernel_place *place, struct qsc_kernel_space *space,
		       struct qsc_error *err)
{
	qsc_autoclose int device = -1;
	int result;

	if (!place->cdev[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "it has no device file of its own: this kernel was built "
				     "without VFIO_DEVICE_CDEV; use ,via=legacy");
	device = open_file(place->cdev,
			   "is the driver of the device still bound to it, and does the kernel "
			   "have VFIO_DEVICE_CDEV?",
			   err);
	/* Nothing but that path is known of it: then it is the path that is wrong. */
	if (device == -ENODEV && !place->device[0])
		return qsc_error_set(err, ENOENT, NULL,
				     "there is no %s; those that there are stand in "
				     "/dev/vfio/devices, if the kernel has VFIO_DEVICE_CDEV",
				     place->cdev);
	if (device < 0)
		return device;
	if (space->iommufd < 0)
		space->iommufd = open_file(IOMMUFD_PATH, "load the module iommufd", err);
	if (space->iommufd < 0)
		return space->iommufd;
	result = bind_and_attach(place, space, device, err);
	return result < 0 ? result : qsc_fd_steal(&device);
}

/* ---- group and container ---- */

static int check_group(const struct qsc_kernel_place *place, int group, struct qsc_error *err)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	int result = qsc_kernel_ioctl(group, VFIO_GROUP_GET_STATUS, &status);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the IOMMU group %s tells nothing: %s",
				     place->group_id, strerror(-result));
	if (status.flags & VFIO_GROUP_FLAGS_VIABLE)
		return 0;
	return explain_group(place, err);
}

static int attach_container(struct qsc_kernel_space *space, struct qsc_error *err)
{
	int result;

	if (qsc_kernel_ioctl(space->container, VFIO_GET_API_VERSION, NULL) != VFIO_API_VERSION)
		return qsc_error_set(err, EPROTONOSUPPORT, NULL,
				     CONTAINER_PATH " speaks an unknown version of VFIO");
	result = qsc_kernel_ioctl(space->group, VFIO_GROUP_SET_CONTAINER, &space->container);
	if (result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "its IOMMU group is in use by another program; it must let go "
				     "first");
	if (result >= 0)
		result = ask(space->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU);
	if (result == -ENODEV || result == -ENOTTY)
		return qsc_error_set(err, -result, NULL,
				     "the kernel has no way to map memory for it; load the module "
				     "vfio_iommu_type1");
	return result < 0 ? explain_attach(result, err) : 0;
}

static int get_device(const struct qsc_kernel_place *place, const struct qsc_kernel_space *space,
		      struct qsc_error *err)
{
	int result = ask(space->group, VFIO_GROUP_GET_DEVICE_FD, (uintptr_t)place->device);

	if (result >= 0)
		return result;
	if (result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "another program has the device; it must let go first");
	return qsc_error_set(err, -result, NULL,
			     "the kernel does not hand it out of its IOMMU group %s: %s",
			     place->group_id, strerror(-result));
}

static int open_group(const struct qsc_kernel_place *place, struct qsc_kernel_space *space,
		      struct qsc_error *err)
{
	int result;

	space->group = open_file(place->group, "load the module vfio_pci, or that of its driver",
				 err);
	if (space->group < 0)
		return space->group;
	space->container = open_file(CONTAINER_PATH, "load the module vfio", err);
	if (space->container < 0)
		return space->container;
	result = check_group(place, space->group, err);
	return result < 0 ? result : attach_container(space, err);
}

static int attach_legacy(const struct qsc_kernel_place *place, struct qsc_kernel_space *space,
			 struct qsc_error *err)
{
	int result;

	if (place->no_iommu)
		return qsc_error_set(err, ENODEV, NULL,
				     "it is behind no IOMMU, where its DMA could reach all memory; "
				     "switch the IOMMU on");
	if (!place->device[0])
		return qsc_error_set(err, ENOENT, NULL,
				     "/sys tells of no device behind %s, and so of no IOMMU group; "
				     "name the device itself, or leave ,via=legacy away",
				     place->cdev);
	if (!place->group[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "it has no IOMMU group that could hand it out");
	result = space->members ? 0 : open_group(place, space, err);
	return result < 0 ? result : get_device(place, space, err);
}

/* ---- whichever there is ---- */

/* Space's lock held: as the first of it. The descriptor, or -errno. */
static int attach_first(const struct qsc_kernel_place *place, enum qsc_kernel_via via,
			struct qsc_kernel_space *space, struct qsc_error *err)
{
	struct qsc_error first = QSC_ERROR_NONE;
	int result;

	if (via == QSC_KERNEL_CDEV || (via == QSC_KERNEL_AUTO && place->cdev[0])) {
		result = attach_cdev(place, space, &first);
		if (result >= 0)
			return result;
		qsc_kernel_space_close(space);
		if (via == QSC_KERNEL_CDEV || !place->group[0])
			return qsc_error_set(err, first.number, NULL, "%s", first.text);
		qsc_log(QSC_LOG_INFO, "vfio:%s: %s; trying its group", place->name, first.text);
	}
	result = attach_legacy(place, space, err);
	/* That of the first way is the one to act on. */
	if (result < 0 && first.number)
		return qsc_error_set(err, first.number, NULL, "%s", first.text);
	return result;
}

/* Space's lock held: beside others of its group, whose way is the only one. */
static int attach_next(const struct qsc_kernel_place *place, enum qsc_kernel_via via,
		       struct qsc_kernel_space *space, struct qsc_error *err)
{
	bool cdev = space->iommufd >= 0;

	if (qsc_kernel_space_has(space, place->device))
		return qsc_error_set(err, EBUSY, NULL,
				     "this program has the device open already; it must let go "
				     "first");
	if (via != QSC_KERNEL_AUTO && cdev != (via == QSC_KERNEL_CDEV))
		return qsc_error_set(err, EBUSY, NULL,
				     "this program has %s of the same IOMMU group %s open with "
				     ",via=%s; a group is reached in one way",
				     space->members->device, space->group_id,
				     cdev ? "cdev" : "legacy");
	return cdev ? attach_cdev(place, space, err) : attach_legacy(place, space, err);
}

int qsc_kernel_attach(const struct qsc_kernel_place *place, enum qsc_kernel_via via,
		      struct qsc_kernel_files *files, struct qsc_error *err)
{
	/* Each mediated device has a group of its own. */
	struct qsc_kernel_space *space = qsc_kernel_space_get(place->mediated ? ""
									      : place->group_id);
	int result = -ENOMEM;

	*files = (struct qsc_kernel_files){.device = -1};
	if (!space)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a device");
	result = space->members ? attach_next(place, via, space, err)
				: attach_first(place, via, space, err);
	if (result >= 0) {
		files->device = result;
		files->member = qsc_kernel_space_enter(space, place->device);
	}
	if (files->member) {
		files->space = space;
		pthread_mutex_unlock(&space->lock);
		return 0;
	}
	if (result >= 0)
		result = qsc_error_set(err, ENOMEM, NULL, "no memory for a device");
	qsc_fd_close(&files->device);
	qsc_kernel_space_put(space);
	return qsc_kernel_refusal(result, err);
}
