/* SPDX-License-Identifier: MIT */
/* See wire.h: headers and bodies of every message but VERSION and the region-info chain. */
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "wire/wire.h"

#define MAX_ERRNO 4095U

_Static_assert(sizeof(struct qsc_wire_header) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_dma_map) == 32, "wire layout");
_Static_assert(sizeof(struct qsc_wire_dma_unmap) == 24, "wire layout");
_Static_assert(sizeof(struct qsc_wire_info) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_region_info) == 32, "wire layout");
_Static_assert(sizeof(struct qsc_wire_io_fds) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_io_fd) == 40, "wire layout");
_Static_assert(sizeof(struct qsc_wire_irq_info) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_irq_set) == 20, "wire layout");
_Static_assert(sizeof(struct qsc_wire_region_access) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_dma_access) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_write) == 24, "wire layout");
_Static_assert(sizeof(struct qsc_wire_feature) == 8, "wire layout");
_Static_assert(sizeof(struct qsc_wire_mig_state) == 8, "wire layout");
_Static_assert(sizeof(struct qsc_wire_log_start) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_wire_log_report) == 24, "wire layout");
_Static_assert(sizeof(struct qsc_wire_mig_data) == 8, "wire layout");
_Static_assert(sizeof(struct qsc_dma_range) == 16, "log ranges are laid out as on the wire");

const char *qsc_wire_command_name(uint16_t command)
{
	static const char *const names[QSC_WIRE_COMMANDS] = {
		[QSC_WIRE_VERSION] = "VERSION",
		[QSC_WIRE_DMA_MAP] = "DMA_MAP",
		[QSC_WIRE_DMA_UNMAP] = "DMA_UNMAP",
		[QSC_WIRE_GET_INFO] = "DEVICE_GET_INFO",
		[QSC_WIRE_GET_REGION_INFO] = "DEVICE_GET_REGION_INFO",
		[QSC_WIRE_GET_REGION_IO_FDS] = "DEVICE_GET_REGION_IO_FDS",
		[QSC_WIRE_GET_IRQ_INFO] = "DEVICE_GET_IRQ_INFO",
		[QSC_WIRE_SET_IRQS] = "DEVICE_SET_IRQS",
		[QSC_WIRE_REGION_READ] = "REGION_READ",
		[QSC_WIRE_REGION_WRITE] = "REGION_WRITE",
		[QSC_WIRE_DMA_READ] = "DMA_READ",
		[QSC_WIRE_DMA_WRITE] = "DMA_WRITE",
		[QSC_WIRE_RESET] = "DEVICE_RESET",
		[QSC_WIRE_REGION_WRITE_MULTI] = "REGION_WRITE_MULTI",
		[QSC_WIRE_FEATURE] = "DEVICE_FEATURE",
		[QSC_WIRE_MIG_DATA_READ] = "MIG_DATA_READ",
		[QSC_WIRE_MIG_DATA_WRITE] = "MIG_DATA_WRITE",
	};

	return command < QSC_WIRE_COMMANDS && names[command] ? names[command] : "?";
}

int qsc_wire_decode_header(const void *bytes, uint32_t max_message, struct qsc_wire_header *header)
{
	memcpy(header, bytes, sizeof(*header));
	if (header->size < sizeof(*header) || header->size > max_message)
		return -EPROTO;
	if ((header->flags & QSC_WIRE_TYPE_MASK) > QSC_WIRE_TYPE_REPLY)
		return -EPROTO;
	return 0;
}

int qsc_wire_reply_error(const struct qsc_wire_header *header)
{
	if (!header->error || header->error > MAX_ERRNO)
		return -EIO;
	return -(int)header->error;
}

/* A body of exactly that many bytes, copied out. */
static int take(const void *body, size_t size, void *out, size_t expected)
{
	if (size != expected)
		return -EINVAL;
	memcpy(out, body, expected);
	return 0;
}

/* The fixed part at the start of a longer body. */
static int take_head(const void *body, size_t size, void *out, size_t expected)
{
	if (size < expected)
		return -EINVAL;
	memcpy(out, body, expected);
	return 0;
}

int qsc_wire_decode_dma_map(const void *body, size_t size, bool quiesce,
			    struct qsc_wire_dma_map *map)
{
	uint32_t known = QSC_WIRE_DMA_FLAG_READ | QSC_WIRE_DMA_FLAG_WRITE;

	if (take(body, size, map, sizeof(*map)) < 0 || map->argsz < sizeof(*map))
		return -EINVAL;
	if (!(map->flags & known))
		return -EINVAL;
	if (quiesce)
		known |= QSC_WIRE_DMA_FLAG_PEER;
	if (map->flags & ~known)
		return -EINVAL;
	if ((map->address | map->size | map->offset) & (QSC_PAGE_SIZE - 1))
		return -EINVAL;
	if (!qsc_range_valid(map->address, map->size))
		return -EINVAL;
	return qsc_range_within(map->offset, map->size, INT64_MAX) ? 0 : -EINVAL;
}

int qsc_wire_decode_dma_unmap(const void *body, size_t size, struct qsc_wire_dma_unmap *unmap)
{
	if (take(body, size, unmap, sizeof(*unmap)) < 0 || unmap->argsz < sizeof(*unmap))
		return -EINVAL;
	if (unmap->flags & ~QSC_WIRE_UNMAP_ALL)
		return -EINVAL;
	if (unmap->flags & QSC_WIRE_UNMAP_ALL)
		return unmap->address || unmap->size ? -EINVAL : 0;
	return qsc_range_valid(unmap->address, unmap->size) ? 0 : -EINVAL;
}

int qsc_wire_decode_info(const void *body, size_t size, struct qsc_wire_info *info)
{
	if (take(body, size, info, sizeof(*info)) < 0)
		return -EINVAL;
	return info->argsz < sizeof(*info) ? -EINVAL : 0;
}

int qsc_wire_decode_region_info(const void *body, size_t size, struct qsc_wire_region_info *info)
{
	if (take(body, size, info, sizeof(*info)) < 0)
		return -EINVAL;
	return info->argsz < sizeof(*info) ? -EINVAL : 0;
}

int qsc_wire_decode_io_fds(const void *body, size_t size, struct qsc_wire_io_fds *query)
{
	if (take(body, size, query, sizeof(*query)) < 0)
		return -EINVAL;
	return query->argsz < sizeof(*query) || query->flags ? -EINVAL : 0;
}

int qsc_wire_decode_irq_info(const void *body, size_t size, struct qsc_wire_irq_info *info)
{
	if (take(body, size, info, sizeof(*info)) < 0)
		return -EINVAL;
	return info->argsz < sizeof(*info) ? -EINVAL : 0;
}

int qsc_wire_decode_irq_set(const void *body, size_t size, struct qsc_wire_irq_set *set,
			    const uint8_t **bools)
{
	uint32_t data;
	uint32_t action;

	*bools = NULL;
	if (take_head(body, size, set, sizeof(*set)) < 0 || set->argsz < sizeof(*set))
		return -EINVAL;
	data = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	if (!qsc_is_power_of_two(data) || !qsc_is_power_of_two(action) ||
	    (set->flags & ~(data | action)))
		return -EINVAL;
	if (set->count > UINT32_MAX - set->start)
		return -EINVAL;
	if (!set->count && (set->start || data != VFIO_IRQ_SET_DATA_NONE))
		return -EINVAL;
	size -= sizeof(*set);
	if (data != VFIO_IRQ_SET_DATA_BOOL)
		return size ? -EINVAL : 0;
	if (size != set->count || set->argsz - sizeof(*set) < size)
		return -EINVAL;
	*bools = (const uint8_t *)body + sizeof(*set);
	return 0;
}

int qsc_wire_decode_region_read(const void *body, size_t size, uint32_t max_count,
				struct qsc_wire_region_access *access)
{
	if (take(body, size, access, sizeof(*access)) < 0)
		return -EINVAL;
	return access->count > max_count || access->offset > UINT64_MAX - access->count ? -EINVAL
											: 0;
}

int qsc_wire_decode_region_write(const void *body, size_t size, uint32_t max_count,
				 struct qsc_wire_region_access *access)
{
	if (take_head(body, size, access, sizeof(*access)) < 0)
		return -EINVAL;
	if (access->count > max_count || access->count != size - sizeof(*access))
		return -EINVAL;
	return access->offset > UINT64_MAX - access->count ? -EINVAL : 0;
}

struct qsc_region_write qsc_wire_write_at(const void *body, size_t index)
{
	struct qsc_region_write write;
	struct qsc_wire_write wire;

	memcpy(&wire, (const uint8_t *)body + sizeof(uint64_t) + index * sizeof(wire),
	       sizeof(wire));
	write.offset = wire.offset;
	write.region = wire.region;
	write.count = wire.count;
	memcpy(write.data, wire.data, sizeof(write.data));
	return write;
}

int qsc_wire_decode_write_multi(const void *body, size_t size, size_t *count)
{
	uint64_t claimed;
	size_t i;

	if (take_head(body, size, &claimed, sizeof(claimed)) < 0)
		return -EINVAL;
	size -= sizeof(claimed);
	if (size % sizeof(struct qsc_wire_write) || claimed != size / sizeof(struct qsc_wire_write))
		return -EINVAL;
	for (i = 0; i < claimed; i++) {
		struct qsc_region_write write = qsc_wire_write_at(body, i);

		if (!write.count || write.count > sizeof(write.data) ||
		    write.offset > UINT64_MAX - write.count)
			return -EINVAL;
	}
	*count = (size_t)claimed;
	return 0;
}

int qsc_wire_decode_feature(const void *body, size_t size, struct qsc_wire_feature *feature)
{
	const uint32_t both = QSC_WIRE_FEATURE_GET | QSC_WIRE_FEATURE_SET;
	const uint32_t methods = both | QSC_WIRE_FEATURE_PROBE;

	if (take_head(body, size, feature, sizeof(*feature)) < 0 ||
	    feature->argsz < sizeof(*feature))
		return -EINVAL;
	if (!(feature->flags & methods) || (feature->flags & ~(methods | QSC_WIRE_FEATURE_MASK)))
		return -EINVAL;
	if (!(feature->flags & QSC_WIRE_FEATURE_PROBE) && (feature->flags & both) == both)
		return -EINVAL;
	return 0;
}

struct qsc_dma_range qsc_wire_log_range_at(const void *data, uint32_t index)
{
	struct qsc_dma_range range;

	memcpy(&range,
	       (const uint8_t *)data + sizeof(struct qsc_wire_log_start) + index * sizeof(range),
	       sizeof(range));
	return range;
}

int qsc_wire_decode_log_start(const void *data, size_t size, struct qsc_wire_log_start *start)
{
	uint32_t i;

	if (take_head(data, size, start, sizeof(*start)) < 0)
		return -EINVAL;
	size -= sizeof(*start);
	if (size % sizeof(struct qsc_dma_range) ||
	    start->num_ranges != size / sizeof(struct qsc_dma_range))
		return -EINVAL;
	for (i = 0; i < start->num_ranges; i++) {
		struct qsc_dma_range range = qsc_wire_log_range_at(data, i);

		if (!qsc_range_valid(range.iova, range.size))
			return -EINVAL;
	}
	return 0;
}

uint64_t qsc_wire_bitmap_size(uint64_t length, uint64_t page_size)
{
	uint64_t pages;

	if (!length || !qsc_is_power_of_two(page_size) || page_size < QSC_PAGE_SIZE)
		return 0;
	pages = (length - 1) / page_size + 1;
	return (uint64_t)qsc_bitmap_words(pages) * sizeof(uint64_t);
}

int qsc_wire_decode_log_report(const void *data, size_t size, size_t max_bitmap,
			       struct qsc_wire_log_report *report, size_t *bitmap_size)
{
	uint64_t bytes;

	if (take(data, size, report, sizeof(*report)) < 0)
		return -EINVAL;
	if (!qsc_range_valid(report->iova, report->length))
		return -EINVAL;
	bytes = qsc_wire_bitmap_size(report->length, report->page_size);
	if (!bytes || bytes > max_bitmap || report->iova % report->page_size)
		return -EINVAL;
	*bitmap_size = (size_t)bytes;
	return 0;
}

int qsc_wire_decode_mig_read(const void *body, size_t size, uint32_t max_count,
			     struct qsc_wire_mig_data *data)
{
	if (take(body, size, data, sizeof(*data)) < 0 || data->argsz < sizeof(*data))
		return -EINVAL;
	return data->size > max_count || data->argsz - sizeof(*data) < data->size ? -EINVAL : 0;
}

int qsc_wire_decode_mig_write(const void *body, size_t size, uint32_t max_count,
			      struct qsc_wire_mig_data *data)
{
	if (take_head(body, size, data, sizeof(*data)) < 0)
		return -EINVAL;
	return data->size > max_count || data->size != size - sizeof(*data) ? -EINVAL : 0;
}

int qsc_wire_decode_dma_read(const void *body, size_t size, uint64_t max_count,
			     struct qsc_wire_dma_access *access)
{
	if (take(body, size, access, sizeof(*access)) < 0)
		return -EINVAL;
	return access->count > max_count || !qsc_range_valid(access->address, access->count)
		       ? -EINVAL
		       : 0;
}

int qsc_wire_decode_dma_write(const void *body, size_t size, uint64_t max_count,
			      struct qsc_wire_dma_access *access)
{
	if (take_head(body, size, access, sizeof(*access)) < 0)
		return -EINVAL;
	if (access->count > max_count || access->count != size - sizeof(*access))
		return -EINVAL;
	return qsc_range_valid(access->address, access->count) ? 0 : -EINVAL;
}
