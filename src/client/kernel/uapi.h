/* SPDX-License-Identifier: MIT */
/*
 * What the kernel's VFIO and iommufd interfaces have that the headers of the system may be too old
 * for. Each definition gives way to the header's own; structures have names of ours, so that they
 * never meet. A kernel without one of these answers ENOTTY.
 */
#ifndef QSC_CLIENT_KERNEL_UAPI_H
#define QSC_CLIENT_KERNEL_UAPI_H

#include <linux/ioctl.h>
#include <linux/vfio.h>
#include <stdint.h>

/* ---- VFIO: device files (Linux 6.6), PRE_COPY (6.2), and what came later ---- */

#ifndef VFIO_DEVICE_BIND_IOMMUFD
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#endif
#ifndef VFIO_DEVICE_ATTACH_IOMMUFD_PT
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#endif
#ifndef VFIO_MIG_GET_PRECOPY_INFO
#define VFIO_MIG_GET_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)
#endif
#ifndef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE 9
#endif
#ifndef VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 12
#endif

struct qsc_uapi_bind {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct qsc_uapi_attach {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id; /* in: address space or page table; out: the page table in use */
};

struct qsc_uapi_precopy_info {
	uint32_t argsz;
	uint32_t flags;
	uint64_t initial_bytes;
	uint64_t dirty_bytes;
};

/* ---- iommufd ---- */

#define QSC_UAPI_IOMMU(number) _IO(';', 0x80 + (number))

#define QSC_UAPI_IOAS_ALLOC	 QSC_UAPI_IOMMU(0x1)
#define QSC_UAPI_IOAS_MAP	 QSC_UAPI_IOMMU(0x5)
#define QSC_UAPI_IOAS_UNMAP	 QSC_UAPI_IOMMU(0x6)
#define QSC_UAPI_HWPT_ALLOC	 QSC_UAPI_IOMMU(0x9)
#define QSC_UAPI_HWPT_SET_DIRTY	 QSC_UAPI_IOMMU(0xb)
#define QSC_UAPI_HWPT_GET_BITMAP QSC_UAPI_IOMMU(0xc)

struct qsc_uapi_ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_id;
};

#define QSC_UAPI_MAP_FIXED_IOVA 1U
#define QSC_UAPI_MAP_WRITEABLE	2U
#define QSC_UAPI_MAP_READABLE	4U

struct qsc_uapi_ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};

struct qsc_uapi_ioas_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova;
	uint64_t length;
};

#define QSC_UAPI_HWPT_DIRTY_TRACKING 2U

struct qsc_uapi_hwpt_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t pt_id;
	uint32_t out_id;
	uint32_t reserved;
	uint32_t data_type;
	uint32_t data_len;
	uint64_t data;
};

#define QSC_UAPI_DIRTY_ENABLE 1U

struct qsc_uapi_set_dirty {
	uint32_t size;
	uint32_t flags;
	uint32_t hwpt_id;
	uint32_t reserved;
};

struct qsc_uapi_get_bitmap {
	uint32_t size;
	uint32_t hwpt_id;
	uint32_t flags;
	uint32_t reserved;
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
	uint64_t bitmap;
};

#endif
