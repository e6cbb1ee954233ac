/* SPDX-License-Identifier: MIT */
/* See mapping.h. */
#include "device/mapping.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"

struct qsc_mapping {
	struct qsc_mapping *next;
	struct qsc_mapping *next_of_all, *prev_of_all;
	void *addr;
	size_t size;
	int prot;
	_Atomic bool revoked; /* changes with the lock of its device held */
	struct qsc_mapping_source source;
	struct qsc_guard *guard;
};

/* Those of every device in the process. The lock is taken last. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct qsc_mapping *all;

/*
 * One file of 0xff for the process, mapped as often as it takes to cover a mapping. Large enough
 * that the largest device memory stays far below the kernel's limit of mappings for a process.
 */
#define ONES_SIZE (2UL << 20)

static pthread_mutex_t ones_lock = PTHREAD_MUTEX_INITIALIZER;
static int ones_fd = -1;

static int make_ones(void)
{
	qsc_autoclose int fd = qsc_fd_memory("quiesce-ones", ONES_SIZE);
	void *memory;

	if (fd < 0)
		return fd;
	memory = mmap(NULL, ONES_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	memset(memory, 0xff, ONES_SIZE);
	munmap(memory, ONES_SIZE);
	return qsc_fd_steal(&fd);
}

/* The fd, which lives as long as the process, or -errno. */
static int get_ones(void)
{
	int fd;

	pthread_mutex_lock(&ones_lock);
	if (ones_fd < 0) {
		fd = make_ones();
		if (fd >= 0)
			ones_fd = fd;
	} else {
		fd = ones_fd;
	}
	pthread_mutex_unlock(&ones_lock);
	return fd;
}

int qsc_mapping_denied(const struct qsc_region_info *info)
{
	return (info->flags & VFIO_REGION_INFO_FLAG_READ ? 0 : PROT_READ) |
	       (info->flags & VFIO_REGION_INFO_FLAG_WRITE ? 0 : PROT_WRITE);
}

int qsc_mapping_check(const struct qsc_region_info *info, uint64_t offset, uint64_t size, int prot)
{
	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP) ||
	    !qsc_range_within(offset, size, info->size))
		return -EINVAL;
	if (prot & qsc_mapping_denied(info))
		return -EPERM;
	if (!info->num_areas)
		return 0;
	for (uint32_t i = 0; i < info->num_areas && i < QSC_MAX_MMAP_AREAS; i++) {
		const struct qsc_mmap_area *area = &info->areas[i];

		if (offset >= area->offset &&
		    qsc_range_within(offset - area->offset, size, area->size))
			return 0;
	}
	return -EINVAL;
}

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/*
 * Put other pages where some are mapped, while a user may be in the middle of an access.
 * ThreadSanitizer takes mmap() for a write to the whole range, which would make every such access a
 * race, so under it this is the system call itself.
 */
static int replace(void *addr, size_t size, int prot, int flags, int fd, uint64_t offset)
{
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
	long result = syscall(SYS_mmap, addr, size, prot, flags | MAP_FIXED, fd, offset);

	return result < 0 ? -errno : 0;
#else
	void *result = mmap(addr, size, prot, flags | MAP_FIXED, fd, (off_t)offset);

	return result == MAP_FAILED ? -errno : 0;
#endif
}

static int map_source(struct qsc_mapping *mapping)
{
	int result = replace(mapping->addr, mapping->size, mapping->prot, MAP_SHARED,
			     mapping->source.fd, mapping->source.fd_offset);

	if (result < 0)
		return result;
	mapping->revoked = false;
	return 0;
}

static int map_ones(struct qsc_mapping *mapping)
{
	int fd = get_ones();

	if (fd < 0)
		return fd;
	/* Before the first page changes: a failure half way leaves pages to be brought back. */
	mapping->revoked = true;
	for (size_t done = 0; done < mapping->size;) {
		size_t piece = (size_t)qsc_min_u64(ONES_SIZE, mapping->size - done);

		int result = replace((char *)mapping->addr + done, piece, mapping->prot,
				     MAP_PRIVATE | MAP_NORESERVE, fd, 0);

		if (result < 0)
			return result;
		done += piece;
	}
	return 0;
}

static void enlist(struct qsc_mapping *mapping)
{
	pthread_mutex_lock(&all_lock);
	mapping->next_of_all = all;
	if (all)
		all->prev_of_all = mapping;
	all = mapping;
	pthread_mutex_unlock(&all_lock);
}

static void strike(struct qsc_mapping *mapping)
{
	pthread_mutex_lock(&all_lock);
	if (mapping->next_of_all)
		mapping->next_of_all->prev_of_all = mapping->prev_of_all;
	if (mapping->prev_of_all)
		mapping->prev_of_all->next_of_all = mapping->next_of_all;
	else
		all = mapping->next_of_all;
	pthread_mutex_unlock(&all_lock);
}

bool qsc_mapping_is_revoked(const void *addr, size_t size)
{
	uintptr_t start = (uintptr_t)addr;
	struct qsc_mapping *mapping;

	pthread_mutex_lock(&all_lock);
	for (mapping = all; mapping; mapping = mapping->next_of_all) {
		uintptr_t at = (uintptr_t)mapping->addr;

		if (atomic_load(&mapping->revoked) &&
		    (at >= start ? at - start < size : start - at < mapping->size))
			break;
	}
	pthread_mutex_unlock(&all_lock);
	return mapping;
}

static void drop(struct qsc_mapping *mapping)
{
	/* Before its address may be another's. */
	strike(mapping);
	qsc_guard_remove(mapping->guard);
	munmap(mapping->addr, mapping->size);
	free(mapping);
}

int qsc_mappings_add(struct qsc_mappings *mappings, const struct qsc_mapping_source *source,
		     size_t size, int prot, void **addr)
{
	struct qsc_mapping *mapping = calloc(1, sizeof(*mapping));
	int result;

	if (!mapping)
		return -ENOMEM;
	mapping->size = size;
	mapping->prot = prot;
	mapping->source = *source;
	/* Also where it begins revoked: what cannot be mapped must fail here and not later. */
	mapping->addr = mmap(*addr, size, prot, MAP_SHARED | (*addr ? MAP_FIXED : 0), source->fd,
			     (off_t)source->fd_offset);
	if (mapping->addr == MAP_FAILED) {
		result = -errno;
		free(mapping);
		return result;
	}
	enlist(mapping);
	if (source->foreign) {
		result = qsc_guard_add(mapping->addr, size, &mapping->guard);
		if (result < 0) {
			drop(mapping);
			return result;
		}
	}
	pthread_mutex_lock(&mappings->lock);
	result = mappings->revoked ? map_ones(mapping) : 0;
	if (!result) {
		mapping->next = mappings->first;
		mappings->first = mapping;
		*addr = mapping->addr;
	}
	pthread_mutex_unlock(&mappings->lock);
	if (result < 0)
		drop(mapping);
	return result;
}

/* Lock held. The mapping that an address is in. */
static struct qsc_mapping *find(const struct qsc_mappings *mappings, uintptr_t at)
{
	struct qsc_mapping *mapping = mappings->first;

	while (mapping && at - (uintptr_t)mapping->addr >= mapping->size)
		mapping = mapping->next;
	return mapping;
}

static void unlink_one(struct qsc_mappings *mappings, const struct qsc_mapping *mapping)
{
	struct qsc_mapping **link;

	for (link = &mappings->first; *link != mapping; link = &(*link)->next)
		;
	*link = mapping->next;
}

/* Lock held. It keeps the first `size` bytes; what is behind them is the next one in the list. */
static int split(struct qsc_mapping *mapping, size_t size)
{
	struct qsc_mapping *rest = calloc(1, sizeof(*rest));
	struct qsc_guard *guard = NULL;
	int result = rest ? 0 : -ENOMEM;

	if (result < 0)
		return result;
	rest->addr = (char *)mapping->addr + size;
	rest->size = mapping->size - size;
	rest->prot = mapping->prot;
	atomic_store(&rest->revoked, atomic_load(&mapping->revoked));
	rest->source = mapping->source;
	rest->source.fd_offset += size;
	if (mapping->guard) {
		result = qsc_guard_add(mapping->addr, size, &guard);
		if (!result)
			result = qsc_guard_add(rest->addr, rest->size, &rest->guard);
	}
	if (result < 0) {
		qsc_guard_remove(guard);
		free(rest);
		return result;
	}
	qsc_guard_remove(mapping->guard);
	mapping->guard = guard;
	pthread_mutex_lock(&all_lock);
	mapping->size = size;
	pthread_mutex_unlock(&all_lock);
	enlist(rest);
	rest->next = mapping->next;
	mapping->next = rest;
	return 0;
}

/* Lock held. What can be seen there is nothing, but the addresses are not anybody's yet. */
static int withdraw(struct qsc_mappings *mappings, struct qsc_mapping *mapping)
{
	int result = replace(mapping->addr, mapping->size, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (result < 0)
		return result;
	unlink_one(mappings, mapping);
	strike(mapping);
	qsc_guard_remove(mapping->guard);
	free(mapping);
	return 0;
}

/* Lock held. From `at` on, as far as it is in one mapping: *part. 0 or -errno. */
static int change_one(struct qsc_mappings *mappings, uintptr_t at, size_t size, int prot,
		      size_t *part)
{
	struct qsc_mapping *mapping = find(mappings, at);
	size_t before = at - (uintptr_t)mapping->addr;
	int result;

	*part = qsc_min_u64(size, mapping->size - before);
	if (before) {
		result = split(mapping, before);
		if (result < 0)
			return result;
		mapping = mapping->next;
	}
	if (*part < mapping->size) {
		result = split(mapping, *part);
		if (result < 0)
			return result;
	}
	if (prot == QSC_PROT_WITHDRAWN)
		return withdraw(mappings, mapping);
	if (mprotect(mapping->addr, mapping->size, prot) < 0)
		return -errno;
	mapping->prot = prot;
	return 0;
}

int qsc_mappings_change(struct qsc_mappings *mappings, void *addr, size_t size, int prot)
{
	uintptr_t end = (uintptr_t)addr + size;
	uintptr_t at = (uintptr_t)addr;
	int result = 0;
	size_t part;

	pthread_mutex_lock(&mappings->lock);
	while (at < end && !result) {
		const struct qsc_mapping *mapping = find(mappings, at);

		if (!mapping)
			result = -EINVAL;
		else if (prot != QSC_PROT_WITHDRAWN && (prot & mapping->source.denied))
			result = -EACCES;
		else
			at = (uintptr_t)mapping->addr + mapping->size;
	}
	for (at = (uintptr_t)addr; at < end && !result; at += part)
		result = change_one(mappings, at, end - at, prot, &part);
	pthread_mutex_unlock(&mappings->lock);
	return result;
}

/*
 * Lock held. Take out what begins in the range, when that is one mapping of just that size, or
 * pieces that are all of it without a gap; else NULL.
 */
static struct qsc_mapping *take_out(struct qsc_mappings *mappings, uintptr_t start, size_t size)
{
	struct qsc_mapping *found = NULL;
	struct qsc_mapping **link;
	struct qsc_mapping *one;
	bool exact = false;
	size_t covered = 0;

	for (one = mappings->first; one && !exact; one = one->next) {
		uintptr_t at = (uintptr_t)one->addr - start;

		exact = !at && one->size == size;
		if (at < size)
			covered += qsc_range_within(at, one->size, size) ? one->size : size + 1;
	}
	for (link = &mappings->first; (exact || covered == size) && (one = *link);) {
		uintptr_t at = (uintptr_t)one->addr - start;

		if (exact ? at || one->size != size : at >= size) {
			link = &one->next;
			continue;
		}
		*link = one->next;
		one->next = found;
		found = one;
		if (exact)
			break;
	}
	return found;
}

int qsc_mappings_remove(struct qsc_mappings *mappings, void *addr, size_t size)
{
	struct qsc_mapping *found;
	struct qsc_mapping *one;

	pthread_mutex_lock(&mappings->lock);
	found = take_out(mappings, (uintptr_t)addr, size);
	pthread_mutex_unlock(&mappings->lock);
	if (!found)
		return -EINVAL;
	while ((one = found)) {
		found = one->next;
		drop(one);
	}
	return 0;
}

bool qsc_mappings_any(struct qsc_mappings *mappings, int fd, bool writable)
{
	struct qsc_mapping *mapping;

	pthread_mutex_lock(&mappings->lock);
	for (mapping = mappings->first; mapping; mapping = mapping->next)
		if (mapping->source.fd == fd && (!writable || (mapping->prot & PROT_WRITE)))
			break;
	pthread_mutex_unlock(&mappings->lock);
	return mapping;
}

/* With the lock held: every one that is revoked back to its memory; the first error. */
static int restore_all(struct qsc_mappings *mappings)
{
	int first_error = 0;

	for (struct qsc_mapping *mapping = mappings->first; mapping; mapping = mapping->next) {
		int result = mapping->revoked ? map_source(mapping) : 0;

		if (result < 0 && !first_error)
			first_error = result;
	}
	return first_error;
}

int qsc_mappings_revoke(struct qsc_mappings *mappings)
{
	struct qsc_mapping *mapping;
	int result = 0;

	pthread_mutex_lock(&mappings->lock);
	for (mapping = mappings->first; mapping && !result; mapping = mapping->next)
		if (!mapping->revoked)
			result = map_ones(mapping);
	if (result < 0)
		(void)restore_all(mappings);
	else
		mappings->revoked = true;
	pthread_mutex_unlock(&mappings->lock);
	return result;
}

int qsc_mappings_restore(struct qsc_mappings *mappings)
{
	int result;

	pthread_mutex_lock(&mappings->lock);
	result = restore_all(mappings);
	mappings->revoked = false;
	pthread_mutex_unlock(&mappings->lock);
	return result;
}

void qsc_mappings_release(struct qsc_mappings *mappings)
{
	struct qsc_mapping *mapping;

	pthread_mutex_lock(&mappings->lock);
	mapping = mappings->first;
	mappings->first = NULL;
	mappings->revoked = false;
	pthread_mutex_unlock(&mappings->lock);
	while (mapping) {
		struct qsc_mapping *next = mapping->next;

		drop(mapping);
		mapping = next;
	}
}
