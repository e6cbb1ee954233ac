/* SPDX-License-Identifier: MIT */
/*
 * The two ways to a device: its own file and an address space of iommufd, or its group and a
 * container. What is missing, and what to do about it, is said where it is found to be missing.
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

int qsc_kernel_ioctl(int fd, unsigned long request, void *arg)
{
	int result;

	do
		result = ioctl(fd, request, arg);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : result;
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

void qsc_kernel_detach(struct qsc_kernel_files *files)
{
	/* The device first: only then does its address space let go of the memory. */
	qsc_fd_close(&files->device);
	qsc_fd_close(&files->iommufd);
	qsc_fd_close(&files->group);
	qsc_fd_close(&files->container);
}

/* Open one of VFIO's files, or say what is missing. */
static int open_file(const char *path, const char *missing, struct qsc_error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	int number = errno;

	if (fd >= 0)
		return fd;
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
	struct qsc_uapi_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = QSC_UAPI_HWPT_DIRTY_TRACKING,
		.dev_id = device,
		.pt_id = ioas,
	};

	return qsc_kernel_ioctl(iommufd, QSC_UAPI_HWPT_ALLOC, &alloc) < 0 ? 0 : alloc.out_id;
}

static int attach_to(int device, uint32_t table)
{
	struct qsc_uapi_attach attach = {.argsz = sizeof(attach), .pt_id = table};

	return qsc_kernel_ioctl(device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
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
		return qsc_error_set(err, EINVAL, NULL,
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

static int bind_and_attach(const struct qsc_kernel_place *place, struct qsc_kernel_files *files,
			   struct qsc_error *err)
{
	struct qsc_uapi_bind bind = {.argsz = sizeof(bind), .iommufd = files->iommufd};
	struct qsc_uapi_ioas_alloc ioas = {.size = sizeof(ioas)};
	int result = qsc_kernel_ioctl(files->device, VFIO_DEVICE_BIND_IOMMUFD, &bind);

	if (result < 0)
		return explain_bind(place, result, err);
	result = qsc_kernel_ioctl(files->iommufd, QSC_UAPI_IOAS_ALLOC, &ioas);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "iommufd makes no address space: %s",
				     strerror(-result));
	files->ioas = ioas.out_id;
	files->hwpt = make_tracking_table(files->iommufd, bind.out_devid, ioas.out_id);
	if (files->hwpt && attach_to(files->device, files->hwpt) >= 0)
		return 0;
	files->hwpt = 0;
	result = attach_to(files->device, files->ioas);
	return result < 0 ? explain_attach(result, err) : 0;
}

static int attach_cdev(const struct qsc_kernel_place *place, struct qsc_kernel_files *files,
		       struct qsc_error *err)
{
	if (!place->cdev[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "it has no device file of its own: this kernel was built "
				     "without VFIO_DEVICE_CDEV; use ,via=legacy");
	files->device = open_file(place->cdev,
				  "is the driver of the device still bound to it, and does the "
				  "kernel have VFIO_DEVICE_CDEV?",
				  err);
	if (files->device < 0)
		return files->device;
	files->iommufd = open_file(IOMMUFD_PATH, "load the module iommufd", err);
	return files->iommufd < 0 ? files->iommufd : bind_and_attach(place, files, err);
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

static int attach_container(struct qsc_kernel_files *files, struct qsc_error *err)
{
	int result;

	if (qsc_kernel_ioctl(files->container, VFIO_GET_API_VERSION, NULL) != VFIO_API_VERSION)
		return qsc_error_set(err, EPROTONOSUPPORT, NULL,
				     CONTAINER_PATH " speaks an unknown version of VFIO");
	result = qsc_kernel_ioctl(files->group, VFIO_GROUP_SET_CONTAINER, &files->container);
	if (result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "its IOMMU group is in use by another program; it must let go "
				     "first");
	if (result >= 0 && ioctl(files->container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) < 0)
		result = -errno;
	if (result == -ENODEV || result == -ENOTTY)
		return qsc_error_set(err, -result, NULL,
				     "the kernel has no way to map memory for it; load the module "
				     "vfio_iommu_type1");
	return result < 0 ? explain_attach(result, err) : 0;
}

static int get_device(const struct qsc_kernel_place *place, struct qsc_kernel_files *files,
		      struct qsc_error *err)
{
	int result = ioctl(files->group, VFIO_GROUP_GET_DEVICE_FD, place->device);

	if (result >= 0) {
		files->device = result;
		return 0;
	}
	result = -errno;
	if (result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "another program has the device; it must let go first");
	return qsc_error_set(err, -result, NULL,
			     "the kernel does not hand it out of its IOMMU group %s: %s",
			     place->group_id, strerror(-result));
}

static int attach_legacy(const struct qsc_kernel_place *place, struct qsc_kernel_files *files,
			 struct qsc_error *err)
{
	int result;

	if (place->no_iommu)
		return qsc_error_set(err, ENODEV, NULL,
				     "it is behind no IOMMU, where its DMA could reach all memory; "
				     "switch the IOMMU on");
	if (!place->group[0] || !place->device[0])
		return qsc_error_set(err, ENODEV, NULL,
				     "it has no IOMMU group that could hand it out");
	files->group = open_file(place->group, "load the module vfio_pci, or that of its driver",
				 err);
	if (files->group < 0)
		return files->group;
	files->container = open_file(CONTAINER_PATH, "load the module vfio", err);
	if (files->container < 0)
		return files->container;
	result = check_group(place, files->group, err);
	if (!result)
		result = attach_container(files, err);
	return result < 0 ? result : get_device(place, files, err);
}

int qsc_kernel_attach(const struct qsc_kernel_place *place, enum qsc_kernel_via via,
		      struct qsc_kernel_files *files, struct qsc_error *err)
{
	struct qsc_error first = QSC_ERROR_NONE;
	int result;

	*files = (struct qsc_kernel_files){
		.device = -1, .iommufd = -1, .group = -1, .container = -1};
	if (via == QSC_KERNEL_CDEV || (via == QSC_KERNEL_AUTO && place->cdev[0])) {
		result = attach_cdev(place, files, &first);
		if (!result)
			return 0;
		qsc_kernel_detach(files);
		if (via == QSC_KERNEL_CDEV || !place->group[0])
			return qsc_error_set(err, first.number, NULL, "%s", first.text);
		qsc_log(QSC_LOG_INFO, "vfio:%s: %s; trying its group", place->name, first.text);
	}
	result = attach_legacy(place, files, err);
	if (result < 0) {
		qsc_kernel_detach(files);
		/* That of the first way is the one to act on. */
		if (first.number)
			return qsc_error_set(err, first.number, NULL, "%s", first.text);
	}
	return result;
}
