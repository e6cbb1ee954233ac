/* SPDX-License-Identifier: MIT */
/*
 * Where devices do DMA: an address space of iommufd, or a container with its group. The IOMMU
 * cannot tell devices of one group apart, so the kernel gives all of them to one user with one
 * address space. This process may hold several of them: they find each other here by their group,
 * and each keeps its own view of what is mapped. A range that two of them have is one mapping of
 * the kernel's, which goes when the last of them lets go of it; two ranges that are not the same
 * memory cannot be at one address.
 */
#include <errno.h>
#include <search.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

#define LARGE_PAGE (2UL << 20)
#define GIANT_PAGE (1UL << 30)

/* What the kernel has mapped. */
struct range {
	uint64_t iova;
	uint64_t size;
	uint32_t flags; /* QSC_DMA_* */
	unsigned int users;
	char *vaddr;
	bool owned; /* vaddr is a mapping of the file below, made here */
	dev_t device;
	ino_t inode;
	uint64_t offset;
};

/* Those of groups, in use or about to be. The lock is taken last. */
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;
static struct qsc_kernel_space *all;

/* ---- spaces ---- */

static void release_range(void *entry)
{
	struct range *range = entry;

	if (range->owned && range->vaddr)
		munmap(range->vaddr, (size_t)range->size);
	free(range);
}

struct qsc_kernel_space *qsc_kernel_space_get(const char *group_id)
{
	struct qsc_kernel_space *space;

	pthread_mutex_lock(&all_lock);
	for (space = all; space; space = space->next)
		if (group_id[0] && !strcmp(space->group_id, group_id))
			break;
	if (!space) {
		space = calloc(1, sizeof(*space));
		if (space) {
			(void)snprintf(space->group_id, sizeof(space->group_id), "%s", group_id);
			pthread_mutex_init(&space->lock, NULL);
			space->iommufd = space->group = space->container = -1;
			space->next = all;
			all = space;
		}
	}
	if (space)
		space->refs++;
	pthread_mutex_unlock(&all_lock);
	if (space)
		pthread_mutex_lock(&space->lock);
	return space;
}

/* Its descriptors are what holds the kernel's mappings. */
void qsc_kernel_space_close(struct qsc_kernel_space *space)
{
	qsc_fd_close(&space->iommufd);
	qsc_fd_close(&space->group);
	qsc_fd_close(&space->container);
	space->ioas = 0;
	space->hwpt = 0;
	tdestroy(space->ranges, release_range);
	space->ranges = NULL;
	space->num_ranges = 0;
}

void qsc_kernel_space_put(struct qsc_kernel_space *space)
{
	struct qsc_kernel_space **link;
	bool last;

	/* Closed before anybody else can find that there is none and open the group anew. */
	if (!space->members)
		qsc_kernel_space_close(space);
	pthread_mutex_unlock(&space->lock);
	pthread_mutex_lock(&all_lock);
	last = !--space->refs;
	if (last) {
		for (link = &all; *link != space; link = &(*link)->next)
			;
		*link = space->next;
	}
	pthread_mutex_unlock(&all_lock);
	if (!last)
		return;
	pthread_mutex_destroy(&space->lock);
	free(space);
}

/* ---- who is in it ---- */

struct qsc_kernel_member *qsc_kernel_space_enter(struct qsc_kernel_space *space, const char *device)
{
	struct qsc_kernel_member *member = calloc(1, sizeof(*member));

	if (!member)
		return NULL;
	(void)snprintf(member->device, sizeof(member->device), "%s", device);
	member->next = space->members;
	space->members = member;
	return member;
}

void qsc_kernel_space_leave(struct qsc_kernel_space *space, struct qsc_kernel_member *member)
{
	struct qsc_kernel_member **link = &space->members;

	while (*link != member)
		link = &(*link)->next;
	*link = member->next;
	if (space->logs == member)
		space->logs = NULL;
	free(member);
}

bool qsc_kernel_space_has(const struct qsc_kernel_space *space, const char *device)
{
	const struct qsc_kernel_member *member;

	for (member = space->members; member; member = member->next)
		if (device[0] && !strcmp(member->device, device))
			break;
	return member;
}

bool qsc_kernel_space_claim_log(struct qsc_kernel_space *space, struct qsc_kernel_member *member)
{
	bool claimed;

	pthread_mutex_lock(&space->lock);
	claimed = space->hwpt && !space->logs;
	if (claimed)
		space->logs = member;
	pthread_mutex_unlock(&space->lock);
	return claimed;
}

void qsc_kernel_space_yield_log(struct qsc_kernel_space *space, struct qsc_kernel_member *member)
{
	pthread_mutex_lock(&space->lock);
	if (space->logs == member)
		space->logs = NULL;
	pthread_mutex_unlock(&space->lock);
}

/* ---- the kernel's mappings ---- */

static int map_range(const struct qsc_kernel_space *space, const struct range *range)
{
	bool r = range->flags & QSC_DMA_READ;
	bool w = range->flags & QSC_DMA_WRITE;
	uint64_t vaddr = (uint64_t)(uintptr_t)range->vaddr;

	if (space->iommufd >= 0) {
		struct abi_ioas_map map = {
			.size = sizeof(map),
			.flags = ABI_MAP_FIXED_IOVA | (r ? ABI_MAP_READABLE : 0) |
				 (w ? ABI_MAP_WRITEABLE : 0),
			.ioas_id = space->ioas,
			.user_va = vaddr,
			.length = range->size,
			.iova = range->iova,
		};

		return qsc_kernel_ioctl(space->iommufd, ABI_IOMMUFD(ABI_IOAS_MAP), &map);
	}
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (r ? VFIO_DMA_MAP_FLAG_READ : 0U) | (w ? VFIO_DMA_MAP_FLAG_WRITE : 0U),
		.vaddr = vaddr,
		.iova = range->iova,
		.size = range->size,
	};

	return qsc_kernel_ioctl(space->container, VFIO_IOMMU_MAP_DMA, &map);
}

static int unmap_range(const struct qsc_kernel_space *space, const struct range *range)
{
	struct abi_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = space->ioas,
		.iova = range->iova,
		.length = range->size,
	};
	struct vfio_iommu_type1_dma_unmap legacy = {
		.argsz = sizeof(legacy),
		.iova = range->iova,
		.size = range->size,
	};

	return space->iommufd >= 0
		       ? qsc_kernel_ioctl(space->iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap)
		       : qsc_kernel_ioctl(space->container, VFIO_IOMMU_UNMAP_DMA, &legacy);
}

/* ---- memory that came as a file ---- */

/* An address for `size` bytes that agrees with iova in the bits below the largest useful page. */
static void *place_for(uint64_t iova, size_t size, size_t *reserved, void **reservation)
{
	size_t page = size >= GIANT_PAGE ? GIANT_PAGE : LARGE_PAGE;
	uintptr_t start;

	*reserved = size + page;
	*reservation = mmap(NULL, *reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
			    -1, 0);
	if (*reservation == MAP_FAILED)
		return NULL;
	start = (uintptr_t)*reservation;
	return (void *)(start + (((uintptr_t)iova - start) & (page - 1)));
}

static void unmap_between(char *from, char *to)
{
	if (to > from)
		munmap(from, (size_t)(to - from));
}

static void *map_file(const struct qsc_dma_mapping *mapping)
{
	size_t size = (size_t)mapping->size;
	int prot = (mapping->flags & QSC_DMA_READ ? PROT_READ : 0) |
		   (mapping->flags & QSC_DMA_WRITE ? PROT_READ | PROT_WRITE : 0);
	off_t offset = (off_t)mapping->fd_offset;
	size_t reserved;
	void *reservation;
	void *wanted;
	void *got = MAP_FAILED;

	if (size >= LARGE_PAGE && size <= SIZE_MAX / 2) {
		wanted = place_for(mapping->iova, size, &reserved, &reservation);
		if (wanted) {
			got = mmap(wanted, size, prot, MAP_SHARED | MAP_FIXED, mapping->fd, offset);
			if (got == MAP_FAILED) {
				munmap(reservation, reserved);
			} else {
				unmap_between(reservation, got);
				unmap_between((char *)got + size, (char *)reservation + reserved);
			}
		}
	}
	/* Also where the file's own pages are larger than what the addresses have in common. */
	if (got == MAP_FAILED)
		got = mmap(NULL, size, prot, MAP_SHARED, mapping->fd, offset);
	return got == MAP_FAILED ? NULL : got;
}

/* ---- what several have ---- */

/* For a tree in which ranges that overlap are the same. */
static int compare(const void *left, const void *right)
{
	const struct range *a = left;
	const struct range *b = right;

	if (a->iova + (a->size - 1) < b->iova)
		return -1;
	return b->iova + (b->size - 1) < a->iova;
}

/* What a mapping asks for; of a file, without its memory yet. 0 or -errno. */
static int describe(const struct qsc_dma_mapping *mapping, struct range *range)
{
	struct stat stat;

	*range = (struct range){
		.iova = mapping->iova,
		.size = mapping->size,
		.flags = mapping->flags,
		.vaddr = mapping->vaddr,
		.owned = !mapping->vaddr,
		.users = 1,
	};
	if (!range->owned)
		return 0;
	if (fstat(mapping->fd, &stat) < 0)
		return -errno;
	range->device = stat.st_dev;
	range->inode = stat.st_ino;
	range->offset = mapping->fd_offset;
	return 0;
}

/* Whether one mapping of the kernel's can be both. Memory of a device is its user's alone (SET-4).
 */
static bool same_memory(const struct range *a, const struct range *b)
{
	if (a->iova != b->iova || a->size != b->size || a->flags != b->flags ||
	    a->flags & QSC_DMA_PEER || a->owned != b->owned)
		return false;
	return a->owned ? a->device == b->device && a->inode == b->inode && a->offset == b->offset
			: a->vaddr == b->vaddr;
}

static void forget(struct qsc_kernel_space *space, struct range *range)
{
	(void)tdelete(range, &space->ranges, compare);
	space->num_ranges--;
	release_range(range);
}

/* Space's lock held. A mapping that nobody has yet. */
static int add(struct qsc_kernel_space *space, const struct qsc_dma_mapping *mapping,
	       const struct range *wanted)
{
	struct range *range = malloc(sizeof(*range));
	int result;

	if (!range)
		return -ENOMEM;
	*range = *wanted;
	if (range->owned) {
		range->vaddr = map_file(mapping);
		if (!range->vaddr) {
			result = -errno;
			free(range);
			return result;
		}
	}
	space->num_ranges++;
	if (!tsearch(range, &space->ranges, compare)) {
		forget(space, range);
		return -ENOMEM;
	}
	result = map_range(space, range);
	if (result < 0)
		forget(space, range);
	return result < 0 ? result : 0;
}

/* Every other member, for messages. */
static void name_others(const struct qsc_kernel_space *space, const struct qsc_kernel_member *but,
			char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (const struct qsc_kernel_member *m = space->members; m && used < size; m = m->next)
		if (m != but)
			used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "",
						 m->device);
}

int qsc_kernel_space_map(struct qsc_kernel_space *space, const struct qsc_kernel_member *member,
			 const struct qsc_dma_mapping *mapping)
{
	struct range wanted;
	struct range **found;
	char others[256];
	int result = describe(mapping, &wanted);

	if (result < 0)
		return result;
	pthread_mutex_lock(&space->lock);
	found = tfind(&wanted, &space->ranges, compare);
	if (!found) {
		result = add(space, mapping, &wanted);
	} else if (same_memory(*found, &wanted)) {
		(*found)->users++;
	} else {
		name_others(space, member, others, sizeof(others));
		result = -EBUSY;
	}
	pthread_mutex_unlock(&space->lock);
	if (found && result < 0)
		qsc_log(QSC_LOG_WARNING,
			"vfio:%s: its IOMMU group %s has one address space, in which %s has "
			"something else at %#llx: devices of one group can have the same ranges of "
			"the same memory, and those of other devices one alone",
			member->device, space->group_id, others, (unsigned long long)mapping->iova);
	return result;
}

int qsc_kernel_space_unmap(struct qsc_kernel_space *space, uint64_t iova, uint64_t size)
{
	struct range wanted = {.iova = iova, .size = size};
	struct range **found;
	int result = 0;

	pthread_mutex_lock(&space->lock);
	found = tfind(&wanted, &space->ranges, compare);
	if (!found) {
		result = -ENOENT;
	} else if ((*found)->users > 1) {
		(*found)->users--;
	} else {
		result = unmap_range(space, *found);
		if (result >= 0)
			forget(space, *found);
	}
	pthread_mutex_unlock(&space->lock);
	return result < 0 ? result : 0;
}
