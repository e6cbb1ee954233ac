/* SPDX-License-Identifier: MIT */
/* See wire.h: the reply to GET_REGION_INFO and its chain of capabilities, both ways. */
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "abi/vfio.h"
#include "base/cleanup.h"
#include "wire/wire.h"

struct cap_header {
	uint16_t id;
	uint16_t version;
	uint32_t next; /* from the start of the body; 0 ends the chain */
};

struct cap_sparse {
	struct cap_header header;
	uint32_t num_areas;
	uint32_t reserved;
	/* struct qsc_mmap_area follow */
};

_Static_assert(sizeof(struct cap_header) == 8, "wire layout");
_Static_assert(sizeof(struct abi_region_cap_stopped) == 16, "wire layout");
_Static_assert(sizeof(struct cap_sparse) == 16, "wire layout");
_Static_assert(sizeof(struct qsc_mmap_area) == 16, "areas are laid out as on the wire");

#define MAX_CAPS 32 /* more than any chain has; ends one that goes in circles */

/* Put a capability of `size` bytes at *end, link it, and return where it is. */
static void *add_cap(uint8_t *body, size_t *end, size_t size, uint16_t id, size_t *link)
{
	struct cap_header header = {.id = id, .version = 1};
	uint32_t here = (uint32_t)*end;
	uint8_t *cap = body + *end;

	memcpy(body + *link, &here, sizeof(here));
	*link = *end + offsetof(struct cap_header, next);
	memset(cap, 0, size);
	memcpy(cap, &header, sizeof(header));
	*end += size;
	return cap;
}

size_t qsc_wire_encode_region_info(uint32_t index, const struct qsc_region_info *info,
				   uint64_t fd_offset, uint32_t argsz, void *out)
{
	struct qsc_wire_region_info fixed = {.flags = info->flags &
						      ~(uint32_t)VFIO_REGION_INFO_FLAG_CAPS,
					     .index = index,
					     .size = info->size,
					     .offset = fd_offset};
	size_t link = offsetof(struct qsc_wire_region_info, cap_offset);
	size_t end = sizeof(fixed);
	uint8_t *body = out;
	uint32_t needed;

	memcpy(body, &fixed, sizeof(fixed));
	if (info->num_areas) {
		uint32_t count = info->num_areas;
		uint8_t *cap = add_cap(body, &end,
				       sizeof(struct cap_sparse) + count * sizeof(info->areas[0]),
				       QSC_WIRE_CAP_SPARSE_MMAP, &link);

		memcpy(cap + offsetof(struct cap_sparse, num_areas), &count, sizeof(count));
		memcpy(cap + sizeof(struct cap_sparse), info->areas,
		       count * sizeof(info->areas[0]));
	}
	if (info->stopped_known) {
		uint32_t verdict = info->stopped;
		uint8_t *cap = add_cap(body, &end, sizeof(struct abi_region_cap_stopped),
				       ABI_REGION_CAP_STOPPED, &link);

		memcpy(cap + offsetof(struct abi_region_cap_stopped, verdict), &verdict,
		       sizeof(verdict));
	}
	needed = (uint32_t)end;
	memcpy(body, &needed, sizeof(needed));
	if (end > sizeof(fixed)) {
		fixed.flags |= VFIO_REGION_INFO_FLAG_CAPS;
		memcpy(body + offsetof(struct qsc_wire_region_info, flags), &fixed.flags,
		       sizeof(fixed.flags));
	}
	/*
	 * Cut short, cap_offset still says where the chain would be: existing clients refuse a
	 * reply with capabilities at 0 before they look at argsz and ask again.
	 */
	return end <= argsz ? end : sizeof(fixed);
}

/* One area more; of more than there is room for the largest stay, in their order. */
static void keep_area(struct qsc_region_info *info, const struct qsc_mmap_area *area)
{
	uint32_t least = 0;
	uint32_t i;

	if (info->num_areas == QSC_MAX_MMAP_AREAS) {
		for (i = 1; i < info->num_areas; i++)
			if (info->areas[i].size < info->areas[least].size)
				least = i;
		if (info->areas[least].size >= area->size)
			return;
		info->num_areas--;
		memmove(&info->areas[least], &info->areas[least + 1],
			(info->num_areas - least) * sizeof(info->areas[0]));
	}
	info->areas[info->num_areas++] = *area;
}

static int decode_sparse(const uint8_t *cap, size_t size, struct qsc_region_info *info)
{
	struct cap_sparse sparse;
	uint32_t i;

	if (size < sizeof(sparse))
		return -EINVAL;
	memcpy(&sparse, cap, sizeof(sparse));
	if (info->num_areas || (size - sizeof(sparse)) / sizeof(info->areas[0]) < sparse.num_areas)
		return -EINVAL;
	for (i = 0; i < sparse.num_areas; i++) {
		struct qsc_mmap_area area;

		memcpy(&area, cap + sizeof(sparse) + i * sizeof(area), sizeof(area));
		if ((area.offset | area.size) & (QSC_PAGE_SIZE - 1) || !area.size ||
		    !qsc_range_within(area.offset, area.size, info->size))
			return -EINVAL;
		keep_area(info, &area);
	}
	/* A capability without an area says that nothing may be mapped, not everything. */
	if (!sparse.num_areas)
		info->flags &= ~(uint32_t)VFIO_REGION_INFO_FLAG_MMAP;
	return 0;
}

static int decode_cap(const uint8_t *cap, size_t size, const struct cap_header *header,
		      struct qsc_region_info *info)
{
	struct abi_region_cap_stopped stopped;

	if (header->id == QSC_WIRE_CAP_SPARSE_MMAP && header->version == 1)
		return decode_sparse(cap, size, info);
	if (header->id != ABI_REGION_CAP_STOPPED || header->version != 1)
		return 0;
	if (size < sizeof(stopped))
		return -EINVAL;
	memcpy(&stopped, cap, sizeof(stopped));
	if (stopped.verdict > QSC_VERDICT_ENODEV)
		return -EINVAL;
	info->stopped_known = true;
	info->stopped = (enum qsc_verdict)stopped.verdict;
	return 0;
}

int qsc_wire_decode_region_info_reply(const void *body, size_t size, uint32_t index,
				      struct qsc_region_info *info, uint64_t *fd_offset)
{
	struct qsc_wire_region_info fixed;
	struct cap_header header;
	unsigned int seen;
	uint32_t at;

	memset(info, 0, sizeof(*info));
	if (size < sizeof(fixed))
		return -EINVAL;
	memcpy(&fixed, body, sizeof(fixed));
	if (fixed.index != index)
		return -EINVAL;
	info->flags = fixed.flags & ~(uint32_t)VFIO_REGION_INFO_FLAG_CAPS;
	info->size = fixed.size;
	*fd_offset = fixed.offset;
	if (!(fixed.flags & VFIO_REGION_INFO_FLAG_CAPS))
		return 0;
	at = fixed.cap_offset;
	for (seen = 0; at && seen < MAX_CAPS; seen++, at = header.next) {
		if (at < sizeof(fixed) || !qsc_range_within(at, sizeof(header), size))
			return -EINVAL;
		memcpy(&header, (const uint8_t *)body + at, sizeof(header));
		if (decode_cap((const uint8_t *)body + at, size - at, &header, info) < 0)
			return -EINVAL;
	}
	return at ? -EINVAL : 0;
}
