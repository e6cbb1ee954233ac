/* SPDX-License-Identifier: MIT */
/*
 * An I/O address space: which memory stands at which I/O virtual address, for all devices that are
 * attached to it. It stands behind an IOAS of iommufd and behind a legacy container.
 *
 * Every function may be called from any thread. Results are 0 or -errno, as iommufd has them.
 */
#ifndef PRELOAD_IOAS_H
#define PRELOAD_IOAS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "abi/vfio.h"

struct pl_dev;

#define PL_PAGE		   4096ULL
#define PL_IOVA_LAST	   ((1ULL << 48) - 1) /* of an attached device */
#define PL_MSI_FIRST	   0xfee00000ULL      /* where interrupts are on x86: never memory */
#define PL_MSI_LAST	   0xfeefffffULL
#define PL_MAX_ATTACHMENTS 64

struct pl_area {
	uint64_t iova;
	uint64_t size;
	uint32_t flags; /* QSC_DMA_* */
	char *vaddr;	/* or NULL */
	int fd;		/* or -1 */
	uint64_t fd_offset;
	bool found;    /* the file behind vaddr has been looked for */
	bool unlogged; /* not in the logs of the devices: counts as written */
};

struct pl_ioas {
	pthread_mutex_t lock;
	struct pl_area *areas; /* in order */
	size_t num_areas;
	size_t max_areas;
	struct pl_dev *attached[PL_MAX_ATTACHMENTS];
	uint32_t num_attached;
	uint32_t tracked; /* page tables that track */
	struct abi_iova_range *allowed;
	uint32_t num_allowed;
	bool pins; /* memory must be there when it is mapped, also without a device */
};

int pl_ioas_init(struct pl_ioas *ioas);
/* No device is attached. */
void pl_ioas_release(struct pl_ioas *ioas);

/* What is to be mapped where; the fd is borrowed. */
struct pl_map {
	uint64_t iova; /* out, unless fixed */
	uint64_t size;
	bool fixed;
	uint32_t flags; /* QSC_DMA_* */
	char *vaddr;
	int fd;
	uint64_t fd_offset;
};

int pl_ioas_map(struct pl_ioas *ioas, struct pl_map *map);
/* Every area inside [iova, last]; -ENOENT when one sticks out of it or there is none. */
int pl_ioas_unmap(struct pl_ioas *ioas, uint64_t iova, uint64_t last, uint64_t *unmapped);
/*
 * As the first version of the kernel's type 1: from the area that begins at iova on, whole ones, up
 * to the one that `last` is in. Nothing when the range begins inside of an area.
 */
void pl_ioas_unmap_v1(struct pl_ioas *ioas, uint64_t iova, uint64_t last, uint64_t *unmapped);
/* Map a piece of another space (or the same one) here; one area of it. */
int pl_ioas_copy(struct pl_ioas *from, uint64_t iova, struct pl_ioas *to, struct pl_map *map);

/* All areas appear in the device; on failure none. */
int pl_ioas_attach(struct pl_ioas *ioas, struct pl_dev *dev);
void pl_ioas_detach(struct pl_ioas *ioas, struct pl_dev *dev);

/* The usable addresses: how many ranges; at most `max` are filled in. */
uint32_t pl_ioas_ranges(struct pl_ioas *ioas, struct abi_iova_range *ranges, uint32_t max);
/* Takes over `ranges`, allocated and valid in themselves. -EADDRINUSE, and the caller keeps it. */
int pl_ioas_allow(struct pl_ioas *ioas, struct abi_iova_range *ranges, uint32_t count);
uint64_t pl_ioas_alignment(struct pl_ioas *ioas);
/* The same of any device, attached or not. */
uint32_t pl_ioas_device_ranges(struct abi_iova_range *ranges, uint32_t max);

/* How many areas there are. */
size_t pl_ioas_count(struct pl_ioas *ioas);
/* Whether no area reaches beyond an end of [iova, last]. */
bool pl_ioas_on_edges(struct pl_ioas *ioas, uint64_t iova, uint64_t last);
/* Whether all of [iova, last] is mapped. */
bool pl_ioas_covered(struct pl_ioas *ioas, uint64_t iova, uint64_t last);

/*
 * Set the bits of what is mapped in the range, one a page, from iova on; or only of what is in no
 * log.
 */
void pl_ioas_mark(struct pl_ioas *ioas, uint64_t iova, uint64_t size, uint64_t page_size,
		  uint64_t *bitmap, bool only_unlogged);
/* Dirty tracking begins, with all that is mapped, or ends. */
void pl_ioas_track(struct pl_ioas *ioas, bool on);
/* Areas in the range count as written from now on. */
void pl_ioas_unlog(struct pl_ioas *ioas, uint64_t iova, uint64_t last);
struct qsc_dma_range;
/* What a log has to cover; the caller frees *out. -ENOMEM. */
int pl_ioas_log_ranges(struct pl_ioas *ioas, struct qsc_dma_range **out, size_t *count);

#endif
