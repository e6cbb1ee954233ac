/* SPDX-License-Identifier: MIT */
/*
 * The region mappings that a device has given out in this process, and how they are taken away
 * while the device is stopped (DEV-7): a user's mapping keeps its address, but pages of 0xff stand
 * in it, private, so that reads give all ones and writes do not reach the device. Every function
 * may be called from any thread.
 */
#ifndef QSC_DEVICE_MAPPING_H
#define QSC_DEVICE_MAPPING_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>

struct qsc_mapping;

/* Owned by a device; initialise with QSC_MAPPINGS_INIT or by assigning it as a compound literal. */
struct qsc_mappings {
	pthread_mutex_t lock;
	struct qsc_mapping *first;
	bool revoked;
};

/* clang-format off */
#define QSC_MAPPINGS_INIT {.lock = PTHREAD_MUTEX_INITIALIZER, .first = NULL, .revoked = false}
/* clang-format on */

/* The memory behind a region. The fd is borrowed until qsc_mappings_release(). */
struct qsc_mapping_source {
	int fd;
	uint64_t fd_offset; /* of the part to be mapped, page aligned */
	int denied;	    /* PROT_* that the region does not have */
	bool foreign;	    /* another process can take it away: the mapping is guarded */
};

/*
 * Whether [offset, offset + size) of a region may be mapped with prot: 0, -EINVAL for a range that
 * is not within one mappable area, -EPERM for a direction that the region does not have. Page
 * alignment and prot's bits have been checked by qsc_device_region_map().
 */
int qsc_mapping_check(const struct qsc_region_info *info, uint64_t offset, uint64_t size, int prot);

/* PROT_READ or PROT_WRITE, if the region does not have them. */
int qsc_mapping_denied(const struct qsc_region_info *info);

/*
 * Map `size` bytes at *addr, in place of what is mapped there, or anywhere when it is NULL. While
 * revoked, the mapping begins its life revoked. 0 or -errno.
 */
int qsc_mappings_add(struct qsc_mappings *mappings, const struct qsc_mapping_source *source,
		     size_t size, int prot, void **addr);

/* Unmap exactly one mapping made before, in one piece or all its pieces; -EINVAL for another range.
 */
int qsc_mappings_remove(struct qsc_mappings *mappings, void *addr, size_t size);

/* qsc_device_region_protect(), or with QSC_PROT_WITHDRAWN qsc_device_region_withdraw(). */
int qsc_mappings_change(struct qsc_mappings *mappings, void *addr, size_t size, int prot);

/* Whether a mapping of that fd is given out; `writable` asks for one with PROT_WRITE. */
bool qsc_mappings_any(struct qsc_mappings *mappings, int fd, bool writable);

/*
 * Whether a page of [addr, addr + size) is in a mapping, of any device of this process, that is
 * revoked now: what is there is not the region.
 */
bool qsc_mapping_is_revoked(const void *addr, size_t size);

/* Take all of them away. On failure -errno, and all of them are as they were. */
int qsc_mappings_revoke(struct qsc_mappings *mappings);

/*
 * Give all of them back. On failure -errno: those that could not be mapped again stay revoked, the
 * others are back, and it may be called again.
 */
int qsc_mappings_restore(struct qsc_mappings *mappings);

/* Unmap everything. The table is then empty and not revoked, and may be used again. */
void qsc_mappings_release(struct qsc_mappings *mappings);

#endif
