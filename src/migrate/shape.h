/* SPDX-License-Identifier: MIT */
/*
 * The shape of what moves: members with what a driver can tell them by, which of them reach which
 * and through which mapping, the layout of memory, and what the user is. Both sides describe
 * theirs; the destination compares before anything changes and lists every difference at once.
 * Encoding (shape_bytes.c) and comparing are pure.
 */
#ifndef QSC_MIGRATE_SHAPE_H
#define QSC_MIGRATE_SHAPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/migrate.h>

#define QSC_SHAPE_NAME	  64
#define QSC_SHAPE_REGIONS 24 /* of one device */
#define QSC_SHAPE_IRQS	  16
#define QSC_SHAPE_MEMBERS 256
#define QSC_SHAPE_MEMORY  1024
#define QSC_SHAPE_PEERS	  65536
#define QSC_SHAPE_USER	  128

struct qsc_shape_member {
	char name[QSC_SHAPE_NAME];
	uint32_t migration_flags;
	uint32_t device_flags;
	/* PCI vendor and device, class and revision, subsystem; 0 for what is not PCI. */
	uint32_t ids[3];
	uint32_t num_regions;
	uint32_t num_irqs;
	struct {
		uint64_t size;
		uint32_t flags;
	} regions[QSC_SHAPE_REGIONS];
	uint32_t irq_counts[QSC_SHAPE_IRQS];
	struct qsc_layout layout; /* an empty type where the device does not say */
};

/* A mapping of a member's region in another one's DMA space, or in its own. */
struct qsc_shape_peer {
	uint32_t member; /* whose DMA space */
	uint32_t peer;
	uint32_t region;
	uint32_t flags; /* QSC_DMA_READ, QSC_DMA_WRITE */
	uint64_t iova;
	uint64_t size;
	uint64_t offset; /* in the region */
};

struct qsc_shape {
	uint32_t num_members;
	uint32_t num_memory;
	struct qsc_shape_member *members;
	struct {
		uint64_t address;
		uint64_t size;
	} * memory;
	/* In order of member and IOVA. What an older version does not tell is not compared. */
	bool tells_peers;
	uint32_t num_peers;
	struct qsc_shape_peer *peers;
	bool tells_user;
	char user[QSC_SHAPE_USER]; /* "" where it says nothing of itself */
};

/* clang-format off */
#define QSC_SHAPE_NONE {0}
/* clang-format on */

void qsc_shape_release(struct qsc_shape *shape);

/* Empty members and regions of memory; -ENOMEM, and the caller releases it either way. */
int qsc_shape_allocate(struct qsc_shape *shape, uint32_t members, uint32_t memory);

/* Ask the devices, which changes nothing. */
int qsc_shape_describe(struct qsc_shape *shape, const struct qsc_set *set,
		       const struct qsc_migrate_user *user, struct qsc_error *err);

/* The peers of a shape whose members are there: -E2BIG, -ENOMEM (shape_peers.c). */
int qsc_shape_describe_peers(struct qsc_shape *shape, const struct qsc_set *set,
			     struct qsc_error *err);

/* Room for so many; -ENOMEM. */
int qsc_shape_allocate_peers(struct qsc_shape *shape, uint32_t count);

/* *bytes is the caller's to free; at most QSC_FRAME_MAX_OFFER. -ENOMEM. */
int qsc_shape_encode(const struct qsc_shape *shape, uint8_t **bytes, size_t *size);

/* -EPROTO for bytes that are no shape, -ENOMEM. The shape is released by the caller either way. */
int qsc_shape_decode(struct qsc_shape *shape, const uint8_t *bytes, size_t size);

/*
 * Number of differences, every one there is; the text names as many as fit, separated by "; ", and
 * says how many more there are. `theirs` is the source ("there"). size is at least 64.
 */
unsigned int qsc_shape_compare(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			       char *text, size_t size);

/* Of that the peers: differ() is called with a sentence for every difference. */
void qsc_shape_compare_peers(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			     void (*differ)(void *ctx, const char *text), void *ctx);

#endif
