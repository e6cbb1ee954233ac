/* SPDX-License-Identifier: MIT */
/*
 * The tenant: what a guest and its driver would be. It drives a chain of dmacopy engines, block by
 * block from its memory through every engine's local memory and back, and counts every byte and
 * every interrupt. All it knows is in its memory and in a few words of "vCPU state", so that it
 * goes on in another process exactly where it was paused.
 *
 * A `struct tenant` is one stay of the tenant in one process. It begins with tenant_begin() or by
 * being received, and ends when the tenant has been sent elsewhere or has finished.
 */
#ifndef TENANT_H
#define TENANT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>
#include <quiesce/migrate.h>

#define TENANT_SLOTS	 16U /* blocks in flight; an engine has a vector for each */
#define TENANT_BLOCK_MAX 65536U
#define TENANT_BLOCK_MIN 4096U
/* One half of an engine's memory holds the blocks in flight, the other a pattern nobody touches. */
#define TENANT_STATE_MIN (2ULL * TENANT_SLOTS * TENANT_BLOCK_MIN)

/* Where things are in an engine's DMA address space. */
#define TENANT_MEMORY_IOVA 0x100000000ULL
#define TENANT_PEER_IOVA   0x10000000000ULL /* local memory of the next engine in the chain */

struct tenant_config {
	const char *file; /* or NULL: generated data */
	uint32_t devices;
	uint64_t memory_bytes;
	uint64_t state_bytes; /* local memory of one engine */
	/*
	 * The set takes the peer mappings away for the stop: a transfer that meets the gap faults,
	 * and is submitted again.
	 */
	bool retry_faults;
};

enum tenant_activity {
	TENANT_IDLE,
	TENANT_FILLING,
	TENANT_STREAMING,
	TENANT_VERIFYING,
	TENANT_FINISHED,
};

/* Seen by the orchestrator while it happens: lives in memory shared with it. */
struct tenant_live {
	_Atomic uint32_t activity;
	_Atomic uint32_t permille;  /* of filling or verifying */
	_Atomic uint64_t blocks;    /* that went through the whole chain and were compared */
	_Atomic uint64_t paused_us; /* monotonic time of the last pause and of going on */
	_Atomic uint64_t resumed_us;
	_Atomic uint64_t resumed_blocks;
	_Atomic uint64_t first_block_us; /* the first block that was finished after it */
};

struct tenant_result {
	uint64_t blocks;
	uint64_t bytes_moved;  /* in those blocks */
	uint64_t bytes_kept;   /* that nobody touched, and were compared at the end */
	uint64_t bytes_wrong;  /* of both */
	uint64_t engine_bytes; /* copied by all engines */
	uint64_t interrupts;   /* that arrived */
	uint64_t interrupts_lost;
	uint64_t interrupts_doubled;
	uint64_t retried; /* transfers submitted again */
};

/* Bytes of a block, and how much memory the tenant needs at least. */
uint64_t tenant_block_bytes(const struct tenant_config *config);
uint64_t tenant_memory_min(const struct tenant_config *config);

struct tenant;

/* `live` is borrowed. *t owns its memory, which is zeroed. */
int tenant_create(const struct tenant_config *config, struct tenant_live *live, struct tenant **t,
		  struct qsc_error *err);
/* Its thread ends: neither devices nor memory are touched any more. NULL is allowed. */
void tenant_end(struct tenant *t);
/* The same, and free everything. The devices must not use its memory any more. NULL is allowed. */
void tenant_destroy(struct tenant *t);

/* Its memory, as the set's mappings want it. */
void tenant_memory(const struct tenant *t, struct qsc_dma_mapping *mapping);

/* The engines it drives, config.devices of them; borrowed until destroy. */
void tenant_attach(struct tenant *t, struct qsc_device *const devices[]);

/* Start from nothing: initialise memory, engines and interrupts, and run. */
int tenant_begin(struct tenant *t, struct qsc_error *err);

/* What the migration engine needs of it; valid until destroy. */
const struct qsc_migrate_user *tenant_user(struct tenant *t);

/*
 * Paused for good after it was sent: see that no interrupt came and nothing in memory changed after
 * the stop. Returns the clause that was broken, or -1.
 */
int tenant_check_given_up(struct tenant *t, struct qsc_error *err);

/* Whether it was paused and has not been told to go on. */
bool tenant_is_paused(struct tenant *t);

/* Finish the blocks in flight, then compare everything that was kept. */
void tenant_finish(struct tenant *t);

/* Readable when the tenant has finished or failed. Owned by the tenant. */
int tenant_event_fd(const struct tenant *t);
bool tenant_finished(struct tenant *t);
/* 0, or why it could not go on. */
int tenant_failure(struct tenant *t, struct qsc_error *err);
/* Legal when finished or failed. */
void tenant_get_result(struct tenant *t, struct tenant_result *result);

#endif
