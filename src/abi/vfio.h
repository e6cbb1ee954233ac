/* SPDX-License-Identifier: MIT */
/*
 * The parts of the kernel's interface that the oldest <linux/vfio.h> we build against does not
 * describe: iommufd as of Linux 6.12, devices as files of their own, and later device features.
 * Layouts and numbers are the kernel's; the names are ours, so that a newer header is no clash. For
 * those who ask a kernel, and those who stand in for one.
 */
#ifndef QSC_ABI_VFIO_H
#define QSC_ABI_VFIO_H

#include <linux/ioctl.h>
#include <linux/vfio.h>
#include <stdint.h>

/* ---- VFIO ---- */

#define ABI_BIND_IOMMUFD	 _IO(VFIO_TYPE, VFIO_BASE + 18)
#define ABI_ATTACH_IOMMUFD_PT	 _IO(VFIO_TYPE, VFIO_BASE + 19)
#define ABI_DETACH_IOMMUFD_PT	 _IO(VFIO_TYPE, VFIO_BASE + 20)
#define ABI_MIG_GET_PRECOPY_INFO _IO(VFIO_TYPE, VFIO_BASE + 21)

struct abi_bind_iommufd {
	uint32_t argsz;
	uint32_t flags;
	int32_t iommufd;
	uint32_t out_devid;
};

struct abi_attach {
	uint32_t argsz;
	uint32_t flags;
	uint32_t pt_id;
};

struct abi_detach {
	uint32_t argsz;
	uint32_t flags;
};

struct abi_precopy_info {
	uint32_t argsz;
	uint32_t flags;
	uint64_t initial_bytes;
	uint64_t dirty_bytes;
};

#define ABI_FEATURE_MIG_DATA_SIZE	9U
#define ABI_FEATURE_MIG_PRECOPY_INFO_V2 12U

#define ABI_HOT_RESET_DEV_ID	   1U /* entries hold iommufd device ids */
#define ABI_HOT_RESET_DEV_ID_OWNED 2U

/*
 * Ours, not the kernel's: a vendor-defined capability of a region, which tells the verdict on
 * accesses while the device is stopped.
 */
#define ABI_REGION_CAP_STOPPED 0x5153U

struct abi_region_cap_stopped {
	struct vfio_info_cap_header header;
	uint32_t verdict; /* enum qsc_verdict */
	uint32_t reserved;
};

/* ---- iommufd ---- */

#define ABI_IOMMUFD(number) _IO(VFIO_TYPE, 0x80 + (number))

enum abi_iommufd_command {
	ABI_DESTROY,
	ABI_IOAS_ALLOC,
	ABI_IOAS_ALLOW_IOVAS,
	ABI_IOAS_COPY,
	ABI_IOAS_IOVA_RANGES,
	ABI_IOAS_MAP,
	ABI_IOAS_UNMAP,
	ABI_OPTION,
	ABI_VFIO_IOAS,
	ABI_HWPT_ALLOC,
	ABI_GET_HW_INFO,
	ABI_HWPT_SET_DIRTY_TRACKING,
	ABI_HWPT_GET_DIRTY_BITMAP,
	ABI_HWPT_INVALIDATE,
	ABI_FAULT_QUEUE_ALLOC,
	ABI_IOAS_MAP_FILE,
	ABI_IOMMUFD_COMMANDS
};

struct abi_destroy {
	uint32_t size;
	uint32_t id;
};

struct abi_ioas_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t out_ioas_id;
};

struct abi_iova_range {
	uint64_t start;
	uint64_t last; /* inclusive */
};

struct abi_ioas_iova_ranges {
	uint32_t size;
	uint32_t ioas_id;
	uint32_t num_iovas;
	uint32_t reserved;
	uint64_t allowed_iovas;
	uint64_t out_iova_alignment;
};

struct abi_ioas_allow_iovas {
	uint32_t size;
	uint32_t ioas_id;
	uint32_t num_iovas;
	uint32_t reserved;
	uint64_t allowed_iovas;
};

#define ABI_MAP_FIXED_IOVA 1U
#define ABI_MAP_WRITEABLE  2U
#define ABI_MAP_READABLE   4U

struct abi_ioas_map {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	uint32_t reserved;
	uint64_t user_va;
	uint64_t length;
	uint64_t iova;
};

struct abi_ioas_map_file {
	uint32_t size;
	uint32_t flags;
	uint32_t ioas_id;
	int32_t fd;
	uint64_t start;
	uint64_t length;
	uint64_t iova;
};

struct abi_ioas_copy {
	uint32_t size;
	uint32_t flags;
	uint32_t dst_ioas_id;
	uint32_t src_ioas_id;
	uint64_t length;
	uint64_t dst_iova;
	uint64_t src_iova;
};

struct abi_ioas_unmap {
	uint32_t size;
	uint32_t ioas_id;
	uint64_t iova;
	uint64_t length;
};

#define ABI_OPTION_RLIMIT_MODE 0U
#define ABI_OPTION_HUGE_PAGES  1U
#define ABI_OPTION_SET	       0U
#define ABI_OPTION_GET	       1U

struct abi_option {
	uint32_t size;
	uint32_t option_id;
	uint16_t op;
	uint16_t reserved;
	uint32_t object_id;
	uint64_t val64;
};

#define ABI_VFIO_IOAS_GET   0U
#define ABI_VFIO_IOAS_SET   1U
#define ABI_VFIO_IOAS_CLEAR 2U

struct abi_vfio_ioas {
	uint32_t size;
	uint32_t ioas_id;
	uint16_t op;
	uint16_t reserved;
};

#define ABI_HWPT_NEST_PARENT	1U
#define ABI_HWPT_DIRTY_TRACKING 2U

struct abi_hwpt_alloc {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t pt_id;
	uint32_t out_hwpt_id;
	uint32_t reserved;
	uint32_t data_type; /* 0: none, the only one here */
	uint32_t data_len;
	uint64_t data_uptr;
	uint32_t fault_id;
	uint32_t reserved2;
};

#define ABI_HW_CAP_DIRTY_TRACKING 1U

struct abi_hw_info {
	uint32_t size;
	uint32_t flags;
	uint32_t dev_id;
	uint32_t data_len;
	uint64_t data_uptr;
	uint32_t out_data_type;
	uint32_t reserved;
	uint64_t out_capabilities;
};

#define ABI_DIRTY_TRACKING_ENABLE 1U

struct abi_set_dirty_tracking {
	uint32_t size;
	uint32_t flags;
	uint32_t hwpt_id;
	uint32_t reserved;
};

#define ABI_DIRTY_BITMAP_NO_CLEAR 1U

struct abi_get_dirty_bitmap {
	uint32_t size;
	uint32_t hwpt_id;
	uint32_t flags;
	uint32_t reserved;
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
	uint64_t data;
};

#endif
