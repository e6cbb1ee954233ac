/* SPDX-License-Identifier: MIT */
/*
 * What controller and driver both know: the part of NVMe 1.4 that this controller has. Names follow
 * the specification. Everything is little-endian, as is every host that this runs on.
 */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the nvme model is written for little-endian hosts"
#endif

/* ---- registers ---- */

#define NVME_REG_CAP	  0x00 /* 64 */
#define NVME_REG_VS	  0x08
#define NVME_REG_INTMS	  0x0c
#define NVME_REG_INTMC	  0x10
#define NVME_REG_CC	  0x14
#define NVME_REG_CSTS	  0x1c
#define NVME_REG_AQA	  0x24
#define NVME_REG_ASQ	  0x28 /* 64 */
#define NVME_REG_ACQ	  0x30 /* 64 */
#define NVME_REG_DOORBELL 0x1000

#define NVME_CC_EN	     1U
#define NVME_CC_CSS_SHIFT    4
#define NVME_CC_MPS_SHIFT    7
#define NVME_CC_AMS_SHIFT    11
#define NVME_CC_SHN_SHIFT    14
#define NVME_CC_IOSQES_SHIFT 16
#define NVME_CC_IOCQES_SHIFT 20
#define NVME_CC_KNOWN	     0x00fffff1U
#define NVME_CC_FIXED	     0x00003ff0U /* CSS, MPS, AMS: while it is disabled only */

#define NVME_CSTS_RDY		 1U
#define NVME_CSTS_CFS		 2U
#define NVME_CSTS_SHST_OCCURRING 4U
#define NVME_CSTS_SHST_COMPLETE	 8U
#define NVME_CSTS_SHST		 12U

#define NVME_VERSION 0x00010400U

/* ---- queues ---- */

struct nvme_command {
	uint8_t opcode;
	uint8_t flags; /* FUSE bits 1:0, PSDT bits 7:6 */
	uint16_t cid;
	uint32_t nsid;
	uint32_t cdw2, cdw3;
	uint64_t mptr;
	uint64_t prp1, prp2;
	uint32_t cdw10, cdw11, cdw12, cdw13, cdw14, cdw15;
};

struct nvme_completion {
	uint32_t result;
	uint32_t reserved;
	uint16_t sq_head;
	uint16_t sq_id;
	uint16_t cid;
	uint16_t status; /* phase tag in bit 0, NVME_SC_* above it */
};

struct nvme_range {
	uint32_t attributes;
	uint32_t blocks;
	uint64_t lba;
};

_Static_assert(sizeof(struct nvme_command) == 64, "submission queue entries are 64 bytes");
_Static_assert(sizeof(struct nvme_completion) == 16, "completion queue entries are 16 bytes");

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
};

enum nvme_io_opcode {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DATASET_MANAGEMENT = 0x09,
};

#define NVME_RW_FUA	    (1U << 30) /* cdw12 */
#define NVME_WZ_DEALLOCATE  (1U << 25) /* cdw12 */
#define NVME_DSM_DEALLOCATE (1U << 2)  /* cdw11 */

enum nvme_feature {
	NVME_FEAT_ARBITRATION = 0x01,
	NVME_FEAT_POWER = 0x02,
	NVME_FEAT_TEMPERATURE = 0x04,
	NVME_FEAT_ERROR_RECOVERY = 0x05,
	NVME_FEAT_WRITE_CACHE = 0x06,
	NVME_FEAT_QUEUES = 0x07,
	NVME_FEAT_COALESCING = 0x08,
	NVME_FEAT_VECTOR = 0x09,
	NVME_FEAT_ATOMICITY = 0x0a,
	NVME_FEAT_ASYNC_EVENT = 0x0b,
};

enum nvme_log {
	NVME_LOG_ERROR = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FIRMWARE = 0x03,
	NVME_LOG_CHANGED_NAMESPACES = 0x04,
	NVME_LOG_EFFECTS = 0x05,
};

/* Status code with its type above it, and do-not-retry. */
enum nvme_status {
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_DATA_TRANSFER = 0x004,
	NVME_SC_INTERNAL = 0x006,
	NVME_SC_INVALID_NAMESPACE = 0x00b,
	NVME_SC_SEQUENCE = 0x00c,
	NVME_SC_PRP_OFFSET = 0x013,
	NVME_SC_READ_ONLY = 0x020,
	NVME_SC_LBA_RANGE = 0x080,
	NVME_SC_CAPACITY = 0x081,
	NVME_SC_CQ_INVALID = 0x100,
	NVME_SC_QID_INVALID = 0x101,
	NVME_SC_QUEUE_SIZE = 0x102,
	NVME_SC_EVENT_LIMIT = 0x105,
	NVME_SC_VECTOR = 0x108,
	NVME_SC_LOG_PAGE = 0x109,
	NVME_SC_QUEUE_DELETION = 0x10c,
	NVME_SC_NOT_SAVEABLE = 0x10d,
	NVME_SC_NOT_CHANGEABLE = 0x10e,
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_READ_FAULT = 0x281,
	NVME_SC_DNR = 0x4000,
};

/* Asynchronous events: type, information, and the log page that tells more. */
#define NVME_EVENT_ERROR	    0U
#define NVME_EVENT_SMART	    1U
#define NVME_EVENT_TYPES	    2U
#define NVME_ERROR_INVALID_DOORBELL 0U
#define NVME_ERROR_INVALID_TAIL	    1U
#define NVME_SMART_TEMPERATURE	    1U
#define NVME_SMART_WARNING_TEMPERATURE \
	2U /* bit of the critical warning, and of its event's config */

#endif
