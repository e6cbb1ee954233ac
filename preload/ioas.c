/* SPDX-License-Identifier: MIT */
/* See ioas.h. */
#include "ioas.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bar.h"
#include "device.h"
#include "memory.h"

static uint64_t last_of(const struct pl_area *area)
{
	return area->iova + area->size - 1;
}

int pl_ioas_init(struct pl_ioas *ioas)
{
	memset(ioas, 0, sizeof(*ioas));
	return -pthread_mutex_init(&ioas->lock, NULL);
}

void pl_ioas_release(struct pl_ioas *ioas)
{
	for (size_t i = 0; i < ioas->num_areas; i++)
		if (ioas->areas[i].fd >= 0)
			close(ioas->areas[i].fd);
	free(ioas->areas);
	free(ioas->allowed);
	pthread_mutex_destroy(&ioas->lock);
}

/* Lock held. The first area that ends at iova or later: its place. */
static size_t place_of(const struct pl_ioas *ioas, uint64_t iova)
{
	size_t low = 0;
	size_t high = ioas->num_areas;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (last_of(&ioas->areas[middle]) < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

/* Lock held. An area in the range, or NULL. */
static struct pl_area *first_in(const struct pl_ioas *ioas, uint64_t iova, uint64_t last)
{
	size_t at = place_of(ioas, iova);

	return at < ioas->num_areas && ioas->areas[at].iova <= last ? &ioas->areas[at] : NULL;
}

/* ---- usable addresses ---- */

/* Lock held. What the platform keeps for itself once a device is there. */
static const struct abi_iova_range reserved[] = {
	{PL_MSI_FIRST, PL_MSI_LAST},
	{PL_IOVA_LAST + 1, UINT64_MAX},
};
#define NUM_RESERVED (sizeof(reserved) / sizeof(reserved[0]))

static bool overlaps_reserved(uint64_t iova, uint64_t last)
{
	for (size_t i = 0; i < NUM_RESERVED; i++)
		if (iova <= reserved[i].last && last >= reserved[i].start)
			return true;
	return false;
}

uint32_t pl_ioas_device_ranges(struct abi_iova_range *ranges, uint32_t max)
{
	static const struct abi_iova_range all[] = {
		{0, PL_MSI_FIRST - 1},
		{PL_MSI_LAST + 1, PL_IOVA_LAST},
	};

	for (uint32_t i = 0; i < 2 && i < max; i++)
		ranges[i] = all[i];
	return 2;
}

uint32_t pl_ioas_ranges(struct pl_ioas *ioas, struct abi_iova_range *ranges, uint32_t max)
{
	bool narrow;

	pthread_mutex_lock(&ioas->lock);
	narrow = ioas->num_attached;
	pthread_mutex_unlock(&ioas->lock);
	if (narrow)
		return pl_ioas_device_ranges(ranges, max);
	if (max)
		ranges[0] = (struct abi_iova_range){0, UINT64_MAX};
	return 1;
}

size_t pl_ioas_count(struct pl_ioas *ioas)
{
	size_t count;

	pthread_mutex_lock(&ioas->lock);
	count = ioas->num_areas;
	pthread_mutex_unlock(&ioas->lock);
	return count;
}

bool pl_ioas_on_edges(struct pl_ioas *ioas, uint64_t iova, uint64_t last)
{
	const struct pl_area *first;
	const struct pl_area *final;
	bool clean;

	pthread_mutex_lock(&ioas->lock);
	first = first_in(ioas, iova, iova);
	final = first_in(ioas, last, last);
	clean = (!first || first->iova == iova) && (!final || last_of(final) == last);
	pthread_mutex_unlock(&ioas->lock);
	return clean;
}

void pl_ioas_mark(struct pl_ioas *ioas, uint64_t iova, uint64_t size, uint64_t page_size,
		  uint64_t *bitmap, bool only_unlogged)
{
	uint64_t last = iova + size - 1;

	pthread_mutex_lock(&ioas->lock);
	for (size_t i = place_of(ioas, iova); i < ioas->num_areas && ioas->areas[i].iova <= last;
	     i++) {
		const struct pl_area *area = &ioas->areas[i];
		uint64_t from = area->iova < iova ? iova : area->iova;
		uint64_t to = last_of(area) > last ? last : last_of(area);

		for (uint64_t page = (from - iova) / page_size; page <= (to - iova) / page_size;
		     page++)
			if (!only_unlogged || area->unlogged)
				bitmap[page / 64] |= 1ULL << (page % 64);
	}
	pthread_mutex_unlock(&ioas->lock);
}

bool pl_ioas_covered(struct pl_ioas *ioas, uint64_t iova, uint64_t last)
{
	bool covered = false;

	pthread_mutex_lock(&ioas->lock);
	for (size_t i = place_of(ioas, iova); i < ioas->num_areas && ioas->areas[i].iova <= iova;
	     i++) {
		if (last_of(&ioas->areas[i]) >= last) {
			covered = true;
			break;
		}
		iova = last_of(&ioas->areas[i]) + 1;
	}
	pthread_mutex_unlock(&ioas->lock);
	return covered;
}

void pl_ioas_track(struct pl_ioas *ioas, bool on)
{
	pthread_mutex_lock(&ioas->lock);
	for (size_t i = 0; i < ioas->num_areas && on && !ioas->tracked; i++)
		ioas->areas[i].unlogged = false;
	ioas->tracked += on ? 1U : -1U;
	pthread_mutex_unlock(&ioas->lock);
}

void pl_ioas_unlog(struct pl_ioas *ioas, uint64_t iova, uint64_t last)
{
	pthread_mutex_lock(&ioas->lock);
	for (size_t i = place_of(ioas, iova); i < ioas->num_areas && ioas->areas[i].iova <= last;
	     i++)
		ioas->areas[i].unlogged = true;
	pthread_mutex_unlock(&ioas->lock);
}

int pl_ioas_log_ranges(struct pl_ioas *ioas, struct qsc_dma_range **out, size_t *count)
{
	struct qsc_dma_range *ranges;
	size_t used = 0;

	pthread_mutex_lock(&ioas->lock);
	ranges = calloc(ioas->num_areas + 1, sizeof(*ranges));
	for (size_t i = 0; i < ioas->num_areas && ranges; i++) {
		const struct pl_area *area = &ioas->areas[i];

		if (area->unlogged)
			continue;
		if (used && ranges[used - 1].iova + ranges[used - 1].size == area->iova)
			ranges[used - 1].size += area->size;
		else
			ranges[used++] = (struct qsc_dma_range){area->iova, area->size};
	}
	pthread_mutex_unlock(&ioas->lock);
	*out = ranges;
	*count = used;
	if (ranges && !used) {
		free(ranges);
		*out = NULL;
	}
	return ranges ? 0 : -ENOMEM;
}

int pl_ioas_allow(struct pl_ioas *ioas, struct abi_iova_range *ranges, uint32_t count)
{
	int result = 0;

	pthread_mutex_lock(&ioas->lock);
	for (uint32_t i = 0; i < count && ioas->num_attached; i++)
		if (overlaps_reserved(ranges[i].start, ranges[i].last))
			result = -EADDRINUSE;
	if (!result) {
		free(ioas->allowed);
		ioas->allowed = ranges;
		ioas->num_allowed = count;
	}
	pthread_mutex_unlock(&ioas->lock);
	return result;
}

uint64_t pl_ioas_alignment(struct pl_ioas *ioas)
{
	uint64_t alignment;

	pthread_mutex_lock(&ioas->lock);
	alignment = ioas->num_attached ? PL_PAGE : 1;
	pthread_mutex_unlock(&ioas->lock);
	return alignment;
}

/* Lock held. The lowest free place in [start, last]; never 0. */
static int find_hole(struct pl_ioas *ioas, uint64_t start, uint64_t last, uint64_t size,
		     uint64_t *iova)
{
	uint64_t at = start < PL_PAGE ? PL_PAGE : (start + PL_PAGE - 1) & ~(PL_PAGE - 1);

	while (at >= PL_PAGE && at <= last && size - 1 <= last - at) {
		const struct pl_area *area = first_in(ioas, at, at + size - 1);

		if (!area && !(overlaps_reserved(at, at + size - 1))) {
			*iova = at;
			return 0;
		}
		at = area ? last_of(area) + 1 : PL_MSI_LAST + 1;
	}
	return -ENOSPC;
}

static int choose_iova(struct pl_ioas *ioas, uint64_t size, uint64_t *iova)
{
	int result = -ENOSPC;

	if (size >= UINT64_MAX / 2)
		return -EOVERFLOW;
	if (!ioas->num_allowed)
		return find_hole(ioas, PL_PAGE, PL_IOVA_LAST, size, iova);
	for (uint32_t i = 0; i < ioas->num_allowed && result < 0; i++)
		result = find_hole(ioas, ioas->allowed[i].start, ioas->allowed[i].last, size, iova);
	return result;
}

/* Lock held. */
static int check_iova(struct pl_ioas *ioas, uint64_t iova, uint64_t size)
{
	uint64_t last = iova + size - 1;

	if (iova % PL_PAGE)
		return -EINVAL;
	if (last < iova)
		return -EOVERFLOW;
	if (ioas->num_attached && overlaps_reserved(iova, last))
		return -EINVAL;
	return first_in(ioas, iova, last) ? -EEXIST : 0;
}

/* ---- areas in devices ---- */

/* Lock held. What the kernel does when it pins the pages: they must be there. */
static int find_memory(struct pl_area *area)
{
	int result;

	if (area->found || !area->vaddr)
		return 0;
	if (pl_bar_contains(area->vaddr, area->size)) {
		area->flags |= QSC_DMA_PEER;
		area->found = true;
		return 0;
	}
	result = pl_memory_find(area->vaddr, area->size, area->flags & QSC_DMA_WRITE, &area->fd,
				&area->fd_offset);
	area->found = !result;
	return result;
}

static int map_in(struct pl_area *area, struct pl_dev *dev)
{
	struct qsc_dma_mapping mapping = {
		.iova = area->iova,
		.size = area->size,
		.flags = area->flags,
		.vaddr = area->vaddr,
		.fd = area->fd,
		.fd_offset = area->fd_offset,
	};
	int result = find_memory(area);

	if (result < 0)
		return result;
	mapping.flags = area->flags;
	mapping.fd = area->fd;
	mapping.fd_offset = area->fd_offset;
	pl_dev_count(dev, QSC_ACTION_DMA_MAPPING);
	return qsc_device_dma_map(dev->dev, &mapping);
}

static void unmap_in(const struct pl_area *area, struct pl_dev *dev)
{
	pl_dev_count(dev, QSC_ACTION_DMA_MAPPING);
	(void)qsc_device_dma_unmap(dev->dev, area->iova, area->size);
}

/* Lock held. In every device, or in none. */
static int map_in_all(struct pl_ioas *ioas, struct pl_area *area)
{
	int result = ioas->pins ? find_memory(area) : 0;
	uint32_t i;

	if (result < 0)
		return result;
	for (i = 0; i < ioas->num_attached && !result; i++)
		result = map_in(area, ioas->attached[i]);
	if (result < 0)
		for (i--; i-- > 0;)
			unmap_in(area, ioas->attached[i]);
	return result;
}

int pl_ioas_attach(struct pl_ioas *ioas, struct pl_dev *dev)
{
	int result = 0;
	size_t i;

	pthread_mutex_lock(&ioas->lock);
	if (ioas->num_attached == PL_MAX_ATTACHMENTS)
		result = -ENOSPC;
	for (i = 0; i < ioas->num_allowed && !result; i++)
		if (overlaps_reserved(ioas->allowed[i].start, ioas->allowed[i].last))
			result = -EADDRINUSE;
	for (i = 0; i < ioas->num_areas && !result; i++)
		if (overlaps_reserved(ioas->areas[i].iova, last_of(&ioas->areas[i])))
			result = -EADDRINUSE;
	if (result < 0)
		goto out;
	for (i = 0; i < ioas->num_areas && !result; i++)
		result = map_in(&ioas->areas[i], dev);
	if (result < 0)
		for (i--; i-- > 0;)
			unmap_in(&ioas->areas[i], dev);
	else
		ioas->attached[ioas->num_attached++] = dev;
out:
	pthread_mutex_unlock(&ioas->lock);
	return result;
}

void pl_ioas_detach(struct pl_ioas *ioas, struct pl_dev *dev)
{
	uint32_t at;

	pthread_mutex_lock(&ioas->lock);
	for (at = 0; at < ioas->num_attached && ioas->attached[at] != dev; at++)
		;
	if (at < ioas->num_attached) {
		ioas->attached[at] = ioas->attached[--ioas->num_attached];
		for (size_t i = 0; i < ioas->num_areas; i++)
			unmap_in(&ioas->areas[i], dev);
	}
	pthread_mutex_unlock(&ioas->lock);
}

/* ---- mapping ---- */

/* Lock held. */
static int make_room(struct pl_ioas *ioas)
{
	size_t max = ioas->max_areas ? 2 * ioas->max_areas : 16;
	struct pl_area *areas;

	if (ioas->num_areas < ioas->max_areas)
		return 0;
	areas = realloc(ioas->areas, max * sizeof(*areas));
	if (!areas)
		return -ENOMEM;
	ioas->areas = areas;
	ioas->max_areas = max;
	return 0;
}

static int add_area(struct pl_ioas *ioas, const struct pl_map *map)
{
	struct pl_area area = {
		.iova = map->iova,
		.size = map->size,
		.flags = map->flags,
		.vaddr = map->vaddr,
		.fd = -1,
		.fd_offset = map->fd_offset,
		.unlogged = ioas->tracked != 0,
	};
	size_t at = place_of(ioas, map->iova);
	int result = make_room(ioas);

	if (result < 0)
		return result;
	if (map->fd >= 0) {
		area.fd = fcntl(map->fd, F_DUPFD_CLOEXEC, 3);
		if (area.fd < 0)
			return -errno;
	}
	result = map_in_all(ioas, &area);
	if (result < 0) {
		if (area.fd >= 0)
			close(area.fd);
		return result;
	}
	memmove(ioas->areas + at + 1, ioas->areas + at,
		(ioas->num_areas - at) * sizeof(*ioas->areas));
	ioas->areas[at] = area;
	ioas->num_areas++;
	return 0;
}

int pl_ioas_map(struct pl_ioas *ioas, struct pl_map *map)
{
	int result;

	if (!map->size || map->size % PL_PAGE || (uintptr_t)map->vaddr % PL_PAGE ||
	    map->fd_offset % PL_PAGE)
		return -EINVAL;
	if (map->vaddr && (uintptr_t)map->vaddr + map->size - 1 < (uintptr_t)map->vaddr)
		return -EOVERFLOW;
	pthread_mutex_lock(&ioas->lock);
	if (map->fixed)
		result = check_iova(ioas, map->iova, map->size);
	else
		result = choose_iova(ioas, map->size, &map->iova);
	if (!result)
		result = add_area(ioas, map);
	pthread_mutex_unlock(&ioas->lock);
	return result;
}

/* Lock held. */
static void remove_area(struct pl_ioas *ioas, size_t at)
{
	struct pl_area area = ioas->areas[at];

	for (uint32_t i = 0; i < ioas->num_attached; i++)
		unmap_in(&area, ioas->attached[i]);
	memmove(ioas->areas + at, ioas->areas + at + 1,
		(--ioas->num_areas - at) * sizeof(*ioas->areas));
	if (area.fd >= 0)
		close(area.fd);
}

int pl_ioas_unmap(struct pl_ioas *ioas, uint64_t iova, uint64_t last, uint64_t *unmapped)
{
	int result = -ENOENT;
	struct pl_area *area;

	*unmapped = 0;
	pthread_mutex_lock(&ioas->lock);
	while ((area = first_in(ioas, iova, last))) {
		uint64_t size = area->size;

		result = 0;
		if (area->iova < iova || last_of(area) > last) {
			result = -ENOENT;
			break;
		}
		remove_area(ioas, (size_t)(area - ioas->areas));
		*unmapped += size;
	}
	pthread_mutex_unlock(&ioas->lock);
	return result;
}

void pl_ioas_unmap_v1(struct pl_ioas *ioas, uint64_t iova, uint64_t last, uint64_t *unmapped)
{
	struct pl_area *area;

	*unmapped = 0;
	pthread_mutex_lock(&ioas->lock);
	while ((area = first_in(ioas, iova, last)) && area->iova >= iova) {
		*unmapped += area->size;
		remove_area(ioas, (size_t)(area - ioas->areas));
	}
	pthread_mutex_unlock(&ioas->lock);
}

int pl_ioas_copy(struct pl_ioas *from, uint64_t iova, struct pl_ioas *to, struct pl_map *map)
{
	const struct pl_area *area;
	uint64_t offset;
	int result = 0;

	if (!map->size)
		return -EINVAL;
	if (iova + map->size - 1 < iova)
		return -EOVERFLOW;
	map->fd = -1;
	pthread_mutex_lock(&from->lock);
	area = first_in(from, iova, iova);
	if (!area || map->size > area->size - (iova - area->iova)) {
		result = -ENOENT;
	} else if ((map->flags & QSC_DMA_WRITE) && !(area->flags & QSC_DMA_WRITE)) {
		result = -EPERM;
	} else {
		offset = iova - area->iova;
		map->vaddr = area->vaddr ? area->vaddr + offset : NULL;
		map->fd_offset = area->vaddr ? 0 : area->fd_offset + offset;
		if (!area->vaddr)
			map->fd = fcntl(area->fd, F_DUPFD_CLOEXEC, 3);
		if (!area->vaddr && map->fd < 0)
			result = -errno;
	}
	pthread_mutex_unlock(&from->lock);
	if (!result)
		result = pl_ioas_map(to, map);
	if (map->fd >= 0)
		close(map->fd);
	return result;
}
