/* SPDX-License-Identifier: MIT */
/* See bar.h. */
#include "bar.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "device.h"
#include "file.h"
#include "ioas.h"
#include "say.h"

struct bar {
	struct bar *next;
	uintptr_t start;
	size_t size;
	struct pl_file *file; /* held: as in the kernel, a mapping keeps its device open */
	struct pl_dev *dev;
};

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

int pl_bar_map(struct pl_file *file, struct pl_dev *dev, uint32_t region, uint64_t offset,
	       size_t size, int prot, bool fixed, void **addr)
{
	struct bar *bar = calloc(1, sizeof(*bar));
	int result;

	if (!bar)
		return -ENOMEM;
	if (!fixed)
		*addr = NULL;
	result = qsc_device_region_map_at(dev->dev, region, offset, size, prot, addr);
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

/* Lock held. Take those out of the list that lie in the range; false when one sticks out. */
static bool collect(uintptr_t start, uintptr_t end, struct bar **found)
{
	struct bar **link;

	for (struct bar *bar = bars; bar; bar = bar->next)
		if (bar->start < end && bar->start + bar->size > start &&
		    (bar->start < start || bar->start + bar->size > end))
			return false;
	for (link = &bars; *link;) {
		struct bar *bar = *link;

		if (bar->start >= end || bar->start + bar->size <= start) {
			link = &bar->next;
			continue;
		}
		*link = bar->next;
		bar->next = *found;
		*found = bar;
	}
	if (!bars) {
		atomic_store(&lowest, UINTPTR_MAX);
		atomic_store(&highest, 0);
	}
	return true;
}

/* The first of them by address, taken out. */
static struct bar *take_lowest(struct bar **found)
{
	struct bar **best = found;
	struct bar *bar;

	for (struct bar **link = found; *link; link = &(*link)->next)
		if ((*link)->start < (*best)->start)
			best = link;
	bar = *best;
	if (bar)
		*best = bar->next;
	return bar;
}

static int unmap_gap(uintptr_t start, uintptr_t end)
{
	return start < end && munmap((void *)start, end - start) < 0 ? -errno : 0;
}

int pl_bar_unmap(const void *addr, size_t size, bool rest)
{
	uintptr_t at = (uintptr_t)addr;
	struct bar *found = NULL;
	struct bar *bar;
	int result = 0;
	bool whole;

	/* The kernel will refuse the one, and means whole pages by the other. */
	if ((uintptr_t)addr % PL_PAGE || !size)
		return -EINVAL;
	size = (size + PL_PAGE - 1) & ~(PL_PAGE - 1);
	pthread_mutex_lock(&lock);
	whole = collect((uintptr_t)addr, (uintptr_t)addr + size, &found);
	pthread_mutex_unlock(&lock);
	if (!whole) {
		pl_say_once(PL_SAY_UNMAP,
			    "part of a device's mapping at %p cannot be unmapped or "
			    "replaced; unmap all of it",
			    addr);
		return -EINVAL;
	}
	/* Nothing twice: it may be another thread's by the second time. */
	while ((bar = take_lowest(&found))) {
		if (rest && !result)
			result = unmap_gap(at, bar->start);
		at = bar->start + bar->size;
		(void)qsc_device_region_unmap(bar->dev->dev, (void *)bar->start, bar->size);
		pl_file_put(bar->file);
		free(bar);
	}
	return rest && !result ? unmap_gap(at, (uintptr_t)addr + size) : result;
}
