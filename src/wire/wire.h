/* SPDX-License-Identifier: MIT */
/*
 * vfio-user messages as bytes and as structures. Pure: nothing here does I/O, allocates or keeps
 * state. All integers are in the host's byte order, as the protocol has it; every structure mirrors
 * its wire layout, so that encoding is a copy. Decoders take the body of a message (what follows
 * the 16 bytes of header), trust nothing in it, and return 0 or -EINVAL.
 *
 * What Quiesce adds to the protocol is only used when both ends named it in the VERSION exchange
 * ("quiesce" in the capabilities): the peer flag of a DMA mapping, pre-copy info, an error (ENOMSG)
 * instead of an empty read for a pre-copy stream that is drained for now, and the promise to send
 * no descriptors.
 */
#ifndef QSC_WIRE_WIRE_H
#define QSC_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>

enum qsc_wire_command {
	QSC_WIRE_NONE = 0, /* no message has this; marks one that has been dealt with */
	QSC_WIRE_VERSION = 1,
	QSC_WIRE_DMA_MAP = 2,
	QSC_WIRE_DMA_UNMAP = 3,
	QSC_WIRE_GET_INFO = 4,
	QSC_WIRE_GET_REGION_INFO = 5,
	QSC_WIRE_GET_REGION_IO_FDS = 6,
	QSC_WIRE_GET_IRQ_INFO = 7,
	QSC_WIRE_SET_IRQS = 8,
	QSC_WIRE_REGION_READ = 9,
	QSC_WIRE_REGION_WRITE = 10,
	QSC_WIRE_DMA_READ = 11,
	QSC_WIRE_DMA_WRITE = 12,
	QSC_WIRE_RESET = 13,
	QSC_WIRE_REGION_WRITE_MULTI = 15,
	QSC_WIRE_FEATURE = 16,
	QSC_WIRE_MIG_DATA_READ = 17,
	QSC_WIRE_MIG_DATA_WRITE = 18,
};
#define QSC_WIRE_COMMANDS 19

/* Name as the specification has it, without prefix; "?" for what it does not have. */
const char *qsc_wire_command_name(uint16_t command);

/* ---- header ---- */

struct qsc_wire_header {
	uint16_t id;
	uint16_t command;
	uint32_t size; /* of the whole message, these 16 bytes included */
	uint32_t flags;
	uint32_t error; /* positive errno, in a reply with QSC_WIRE_ERROR */
};

#define QSC_WIRE_HEADER_SIZE sizeof(struct qsc_wire_header)

#define QSC_WIRE_TYPE_MASK    0xfU
#define QSC_WIRE_TYPE_COMMAND 0U
#define QSC_WIRE_TYPE_REPLY   1U
#define QSC_WIRE_NO_REPLY     0x10U
#define QSC_WIRE_ERROR	      0x20U
/*
 * Quiesce, in a command of the client: until it has the reply to a later command without this flag
 * it sends no descriptors, so that the server may receive with a call that takes none.
 */
#define QSC_WIRE_PLAIN 0x10000U

/* -EPROTO for a header that no message within max_message bytes can have. */
int qsc_wire_decode_header(const void *bytes, uint32_t max_message, struct qsc_wire_header *header);

/* What an error reply says as -errno: never 0, never out of range, whatever it says. */
int qsc_wire_reply_error(const struct qsc_wire_header *header);

/* ---- bodies ---- */

#define QSC_WIRE_MAJOR 0
#define QSC_WIRE_MINOR 1

struct qsc_wire_version {
	uint16_t major;
	uint16_t minor;
};

#define QSC_WIRE_DMA_FLAG_READ	1U
#define QSC_WIRE_DMA_FLAG_WRITE 2U
#define QSC_WIRE_DMA_FLAG_PEER	4U /* Quiesce */

struct qsc_wire_dma_map {
	uint32_t argsz;
	uint32_t flags;
	uint64_t offset;
	uint64_t address;
	uint64_t size;
};

#define QSC_WIRE_UNMAP_ALL 2U /* VFIO_DMA_UNMAP_FLAG_ALL */

struct qsc_wire_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t address;
	uint64_t size;
};

struct qsc_wire_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
};

struct qsc_wire_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset;
	uint64_t size;
	uint64_t offset;
};

struct qsc_wire_io_fds {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

#define QSC_WIRE_IO_FD_EVENTFD	 0U
#define QSC_WIRE_IO_FD_DATAMATCH 1U /* KVM_IOEVENTFD_FLAG_DATAMATCH */

struct qsc_wire_io_fd {
	uint64_t offset;
	uint64_t size;
	uint32_t fd_index;
	uint32_t type;
	uint32_t flags;
	uint32_t padding;
	uint64_t datamatch;
};

struct qsc_wire_irq_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

struct qsc_wire_irq_set {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t start;
	uint32_t count;
};

struct qsc_wire_region_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
};

struct qsc_wire_dma_access {
	uint64_t address;
	uint64_t count;
};

/* A reply to DMA_WRITE may be four bytes shorter: the specification's own table is. */
#define QSC_WIRE_DMA_WRITE_REPLY_MIN 12

struct qsc_wire_write {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	uint8_t data[8];
};

/* Bits 0 to 15 of flags: which feature; the others as VFIO_DEVICE_FEATURE_GET, _SET, _PROBE. */
struct qsc_wire_feature {
	uint32_t argsz;
	uint32_t flags;
};

#define QSC_WIRE_FEATURE_MASK  0xffffU
#define QSC_WIRE_FEATURE_GET   0x10000U
#define QSC_WIRE_FEATURE_SET   0x20000U
#define QSC_WIRE_FEATURE_PROBE 0x40000U

enum qsc_wire_feature_index {
	QSC_WIRE_FEATURE_MIGRATION = 1,
	QSC_WIRE_FEATURE_MIG_STATE = 2,
	QSC_WIRE_FEATURE_LOG_START = 6,
	QSC_WIRE_FEATURE_LOG_STOP = 7,
	QSC_WIRE_FEATURE_LOG_REPORT = 8,
	QSC_WIRE_FEATURE_MIG_DATA_SIZE = 9,
	QSC_WIRE_FEATURE_PRECOPY_INFO = 0xff01, /* Quiesce */
};

struct qsc_wire_mig_state {
	uint32_t state;
	uint32_t data_fd;
};

struct qsc_wire_log_start {
	uint64_t page_size;
	uint32_t num_ranges;
	uint32_t reserved;
};

struct qsc_wire_log_report {
	uint64_t iova;
	uint64_t length;
	uint64_t page_size;
};

struct qsc_wire_precopy_info {
	uint64_t initial_bytes;
	uint64_t dirty_bytes;
};

struct qsc_wire_mig_data {
	uint32_t argsz;
	uint32_t size;
};

/*
 * Requests, by who receives them. Sizes must fit exactly; ranges must not be empty or wrap where
 * the operation has a range; argsz must have room for the fixed part of the reply.
 */
int qsc_wire_decode_dma_map(const void *body, size_t size, bool quiesce,
			    struct qsc_wire_dma_map *map);
int qsc_wire_decode_dma_unmap(const void *body, size_t size, struct qsc_wire_dma_unmap *unmap);
int qsc_wire_decode_info(const void *body, size_t size, struct qsc_wire_info *info);
int qsc_wire_decode_region_info(const void *body, size_t size, struct qsc_wire_region_info *info);
int qsc_wire_decode_io_fds(const void *body, size_t size, struct qsc_wire_io_fds *query);
int qsc_wire_decode_irq_info(const void *body, size_t size, struct qsc_wire_irq_info *info);
/* *bools points into body with DATA_BOOL, else is NULL. */
int qsc_wire_decode_irq_set(const void *body, size_t size, struct qsc_wire_irq_set *set,
			    const uint8_t **bools);
int qsc_wire_decode_region_read(const void *body, size_t size, uint32_t max_count,
				struct qsc_wire_region_access *access);
/* The data follow the fixed part in body. */
int qsc_wire_decode_region_write(const void *body, size_t size, uint32_t max_count,
				 struct qsc_wire_region_access *access);
/* *count writes follow the first eight bytes of body; each is checked. */
int qsc_wire_decode_write_multi(const void *body, size_t size, size_t *count);
struct qsc_region_write qsc_wire_write_at(const void *body, size_t index);
int qsc_wire_decode_feature(const void *body, size_t size, struct qsc_wire_feature *feature);
/* What follows struct qsc_wire_feature for one feature. */
int qsc_wire_decode_log_start(const void *data, size_t size, struct qsc_wire_log_start *start);
struct qsc_dma_range qsc_wire_log_range_at(const void *data, uint32_t index);
/* *bitmap_size: bytes of the answer's bitmap, whole words of 64 bits; at most max_bitmap. */
int qsc_wire_decode_log_report(const void *data, size_t size, size_t max_bitmap,
			       struct qsc_wire_log_report *report, size_t *bitmap_size);
int qsc_wire_decode_mig_read(const void *body, size_t size, uint32_t max_count,
			     struct qsc_wire_mig_data *data);
int qsc_wire_decode_mig_write(const void *body, size_t size, uint32_t max_count,
			      struct qsc_wire_mig_data *data);
int qsc_wire_decode_dma_read(const void *body, size_t size, uint64_t max_count,
			     struct qsc_wire_dma_access *access);
int qsc_wire_decode_dma_write(const void *body, size_t size, uint64_t max_count,
			      struct qsc_wire_dma_access *access);

/* Bytes of a bitmap with a bit for each page of [0, length), in whole words; 0 when absurd. */
uint64_t qsc_wire_bitmap_size(uint64_t length, uint64_t page_size);

/* ---- region info with its chain of capabilities ---- */

#define QSC_WIRE_CAP_SPARSE_MMAP 1U /* VFIO_REGION_INFO_CAP_SPARSE_MMAP */
#define QSC_WIRE_REGION_INFO_MAX \
	(sizeof(struct qsc_wire_region_info) + 16 + QSC_MAX_MMAP_AREAS * 16UL + 16)

/*
 * Write the reply to GET_REGION_INFO into `out` (QSC_WIRE_REGION_INFO_MAX bytes) and return its
 * size: the whole of it when it is at most argsz, else the fixed part, which tells the size needed.
 */
size_t qsc_wire_encode_region_info(uint32_t index, const struct qsc_region_info *info,
				   uint64_t fd_offset, uint32_t argsz, void *out);

/*
 * Read such a reply. Capabilities that are not known are skipped; a chain that leaves the body,
 * goes in circles, or describes areas that are not inside the region is refused. Of more areas than
 * QSC_MAX_MMAP_AREAS the largest are told: what is left out is accessed without a mapping.
 */
int qsc_wire_decode_region_info_reply(const void *body, size_t size, uint32_t index,
				      struct qsc_region_info *info, uint64_t *fd_offset);

#endif
