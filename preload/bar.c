/* SPDX-License-Identifier: MIT */
/* See bar.h. */
#include "bar.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "device.h"
#include "file.h"
#include "ioas.h"

struct bar {
	struct bar *next;
	uintptr_t start;
	size_t size;
	struct pl_file *file; /* held: as in the kernel, a mapping keeps its device open */
	struct pl_dev *dev;
};

/* Mappings of a device are changed with the lock held, and it calls none of ours back. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct bar *bars;
/* Around all of them; only ever grows while there is one. */
static atomic_uintptr_t lowest = UINTPTR_MAX;
static atomic_uintptr_t highest;

static void widen(uintptr_t start, uintptr_t end)
{
	if (start < atomic_load(&lowest))
		atomic_store(&lowest, start);
	if (end > atomic_load(&highest))
		atomic_store(&highest, end);
}

void pl_bar_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void pl_bar_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

void pl_bar_fork_child(void)
{
	/* Memory like any other from now on: the devices behind it are the parent's. */
	bars = NULL;
	atomic_store(&lowest, UINTPTR_MAX);
	atomic_store(&highest, 0);
	pthread_mutex_unlock(&lock);
}

/* Whether it could be mapped: what cannot be replaces nothing. */
static int try_map(struct pl_dev *dev, uint32_t region, uint64_t offset, size_t size, int prot)
{
	void *addr = NULL;
	int result = qsc_device_region_map(dev->dev, region, offset, size, prot, &addr);

	return result < 0 ? result : qsc_device_region_unmap(dev->dev, addr, size);
}

/*
 * Where the mapping goes, in *place: where the caller says, and what devices have there has gone;
 * at an address that is free, which is taken meanwhile; or NULL, and the system chooses.
 */
static int find_place(void *addr, size_t size, int flags, void **place)
{
	void *free_place;

	*place = NULL;
	if ((flags & MAP_FIXED) && !(flags & MAP_FIXED_NOREPLACE)) {
		*place = addr;
		return pl_bar_near(addr, size) ? pl_bar_withdraw(addr, size) : 0;
	}
	if (!addr)
		return flags & MAP_FIXED_NOREPLACE ? -EPERM : 0;
	free_place = mmap(addr, size, PROT_NONE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
	if (free_place != MAP_FAILED)
		*place = free_place;
	else if (flags & MAP_FIXED_NOREPLACE)
		return -errno;
	return 0;
}

/* 0 or -errno; *addr is where it is. */
static int map_at(struct pl_dev *dev, uint32_t region, uint64_t offset, size_t size, int prot,
		  void **addr)
{
	int result = qsc_device_region_map_at(dev->dev, region, offset, size,
					      prot ? prot : PROT_READ, addr);

	if (result < 0 || prot)
		return result;
	result = qsc_device_region_protect(dev->dev, *addr, size, PROT_NONE);
	if (result < 0)
		(void)qsc_device_region_unmap(dev->dev, *addr, size);
	return result;
}

int pl_bar_map(struct pl_file *file, struct pl_dev *dev, uint32_t region, uint64_t offset,
	       size_t size, int prot, int flags, void **addr)
{
	struct bar *bar = calloc(1, sizeof(*bar));
	void *place = NULL;
	int result = bar ? 0 : -ENOMEM;

	if (!result && *addr)
		result = try_map(dev, region, offset, size, prot ? prot : PROT_READ);
	if (!result)
		result = find_place(*addr, size, flags, &place);
	if (!result) {
		*addr = place;
		result = map_at(dev, region, offset, size, prot, addr);
	}
	if (result < 0) {
		free(bar);
		return result;
	}
	bar->start = (uintptr_t)*addr;
	bar->size = size;
	bar->file = file;
	bar->dev = dev;
	pl_file_hold(file);
	pthread_mutex_lock(&lock);
	widen(bar->start, bar->start + size);
	bar->next = bars;
	bars = bar;
	pthread_mutex_unlock(&lock);
	return 0;
}

bool pl_bar_near(const void *addr, size_t size)
{
	uintptr_t start = (uintptr_t)addr;

	return start < atomic_load_explicit(&highest, memory_order_relaxed) &&
	       start + size > atomic_load_explicit(&lowest, memory_order_relaxed);
}

bool pl_bar_overlaps(const void *addr, size_t size)
{
	uintptr_t start = (uintptr_t)addr;
	const struct bar *bar;

	pthread_mutex_lock(&lock);
	for (bar = bars; bar; bar = bar->next)
		if (start < bar->start + bar->size && bar->start < start + size)
			break;
	pthread_mutex_unlock(&lock);
	return bar;
}

bool pl_bar_contains(const void *addr, size_t size)
{
	uintptr_t start = (uintptr_t)addr;
	const struct bar *bar;

	if (!pl_bar_near(addr, size))
		return false;
	pthread_mutex_lock(&lock);
	for (bar = bars; bar; bar = bar->next)
		if (start >= bar->start && size <= bar->size &&
		    start - bar->start <= bar->size - size)
			break;
	pthread_mutex_unlock(&lock);
	return bar;
}

/* ---- taking away, and changing ---- */

struct range {
	uintptr_t start;
	uintptr_t end;
};

/* What of the bar is in the range; empty when nothing is. */
static struct range common(const struct bar *bar, const struct range *range)
{
	uintptr_t end = bar->start + bar->size;
	struct range part = {
		.start = bar->start > range->start ? bar->start : range->start,
		.end = end < range->end ? end : range->end,
	};

	if (part.end < part.start)
		part.end = part.start;
	return part;
}

/* Lock held. What is left of the bar at *link without the part; true when it is gone. */
static bool cut(struct bar *bar, const struct range *part, struct bar **spare)
{
	uintptr_t end = bar->start + bar->size;
	struct bar *rest = *spare;

	if (part->start > bar->start && part->end < end && rest) {
		*spare = NULL;
		*rest = *bar;
		rest->start = part->end;
		rest->size = end - part->end;
		pl_file_hold(rest->file);
		bar->next = rest;
	}
	if (part->start > bar->start) {
		bar->size = part->start - bar->start;
		return false;
	}
	bar->start = part->end;
	bar->size = end - part->end;
	return !bar->size;
}

/* Lock held. *gone receives those of which nothing is left. */
static int withdraw(const struct range *range, struct bar **spare, struct bar **gone)
{
	struct bar **link = &bars;
	struct bar *bar;

	while ((bar = *link)) {
		struct range part = common(bar, range);
		int result;

		if (part.start == part.end) {
			link = &bar->next;
			continue;
		}
		result = qsc_device_region_withdraw(bar->dev->dev, (void *)part.start,
						    part.end - part.start);
		if (result < 0)
			return result;
		if (cut(bar, &part, spare)) {
			*link = bar->next;
			bar->next = *gone;
			*gone = bar;
		} else {
			link = &bar->next;
		}
	}
	if (!bars) {
		atomic_store(&lowest, UINTPTR_MAX);
		atomic_store(&highest, 0);
	}
	return 0;
}

int pl_bar_withdraw(const void *addr, size_t size)
{
	const struct range range = {(uintptr_t)addr, (uintptr_t)addr + pl_pages(size)};
	struct bar *spare = calloc(1, sizeof(*spare)); /* no range cuts two of them in two */
	struct bar *gone = NULL;
	struct bar *bar;
	int result;

	if (!spare)
		return -ENOMEM;
	pthread_mutex_lock(&lock);
	result = withdraw(&range, &spare, &gone);
	pthread_mutex_unlock(&lock);
	free(spare);
	while ((bar = gone)) {
		gone = bar->next;
		pl_file_put(bar->file);
		free(bar);
	}
	return result;
}

/* Lock held. The first part of the range that is in some bar; empty at its end when none is. */
static struct range first_part(const struct range *range, const struct bar **of)
{
	struct range first = {range->end, range->end};

	for (const struct bar *bar = bars; bar; bar = bar->next) {
		struct range part = common(bar, range);

		if (part.start < part.end && part.start < first.start) {
			first = part;
			*of = bar;
		}
	}
	return first;
}

int pl_bar_protect(void *addr, size_t size, int prot)
{
	struct range left = {(uintptr_t)addr, (uintptr_t)addr + pl_pages(size)};
	const struct bar *bar = NULL;
	int result = 0;

	/* In order, up to the first that cannot be, as the kernel does. */
	pthread_mutex_lock(&lock);
	while (left.start < left.end && !result) {
		struct range part = first_part(&left, &bar);

		if (left.start < part.start &&
		    syscall(SYS_mprotect, left.start, part.start - left.start, prot) < 0)
			result = -errno;
		else if (part.start < part.end)
			result = prot & PROT_EXEC
					 ? -EACCES /* nobody runs code from a device */
					 : qsc_device_region_protect(bar->dev->dev,
								     (void *)part.start,
								     part.end - part.start, prot);
		left.start = part.end;
	}
	pthread_mutex_unlock(&lock);
	return result;
}
