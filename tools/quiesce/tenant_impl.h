/* SPDX-License-Identifier: MIT */
/* Between tenant.c (its life and its moves) and tenant_work.c (what it does). */
#ifndef TENANT_IMPL_H
#define TENANT_IMPL_H

#include <pthread.h>

#include "dmacopy/driver.h"
#include "tenant.h"
#include "tenant_data.h"

#define TENANT_PAGE    4096ULL
#define TENANT_RECORDS 4096U

enum tenant_program {
	TENANT_FILL_MEMORY = 1,
	TENANT_FILL_DEVICES,
	TENANT_STREAM,
	TENANT_VERIFY_DEVICES,
	TENANT_VERIFY_MEMORY,
	TENANT_VERIFY_RECORDS,
	TENANT_DONE,
};

#define TENANT_SLOT_BUSY	1U /* has a job */
#define TENANT_SLOT_SUBMITTED	2U /* its transfer is in a queue */
#define TENANT_SLOT_INTERRUPTED 4U /* that transfer's interrupt has come */
#define TENANT_SLOT_COMPLETE	8U /* that transfer's write-back has been seen */

/* A job on its way: a block through the chain, or a piece of an engine's memory in or out. */
struct tenant_slot {
	uint64_t job;	   /* index of the block or piece */
	uint64_t checksum; /* of what went in */
	uint32_t step;	   /* which transfer of the job */
	uint32_t device;   /* that does it */
	uint32_t flags;	   /* TENANT_SLOT_* */
	uint32_t status;   /* DMACOPY_DONE_*, when complete */
	uint32_t attempts; /* at this transfer */
	uint32_t reserved;
};

struct tenant_record {
	uint64_t block;
	uint64_t checksum; /* of what came out */
};

/* What the tenant keeps at the beginning of its memory. */
struct tenant_head {
	uint64_t magic;
	struct tenant_result result;
	uint64_t transfers; /* submitted */
	struct tenant_slot slots[TENANT_SLOTS];
	struct tenant_record records[TENANT_RECORDS]; /* of the last blocks */
};

/* What it keeps in registers: travels as the user's own state. */
struct tenant_cpu {
	uint64_t magic;
	uint64_t source_identity;
	uint64_t memory_bytes;
	uint64_t state_bytes;
	uint32_t devices;
	uint32_t program; /* enum tenant_program */
	uint64_t next;	  /* job to begin, or byte of memory to go on at */
};
#define TENANT_MAGIC 0x31746e616e6574ULL /* "tenant1" */

/* Offsets in memory. */
struct tenant_layout {
	uint64_t block_bytes;
	uint64_t queues;
	uint64_t queue_stride;
	uint64_t input; /* TENANT_SLOTS blocks each */
	uint64_t output;
	uint64_t cold; /* to the end: a pattern */
	uint64_t size;
};

enum tenant_run {
	TENANT_RUN_NOT_STARTED,
	TENANT_RUN_RUNNING,
	TENANT_RUN_PAUSING,
	TENANT_RUN_PAUSED,
	TENANT_RUN_ENDED, /* finished, failed or told to end */
};

struct tenant {
	struct tenant_config config;
	struct tenant_layout layout;
	struct tenant_live *live;
	struct tenant_source source;
	struct qsc_device **devices;
	struct qsc_memory_region region; /* memory as the engine sees it: mapped elsewhere */
	struct qsc_migrate_user user;

	uint8_t *memory;
	int memory_fd;
	_Atomic uint64_t *dirty; /* a bit a page: written by the tenant since it was asked */
	struct tenant_cpu cpu;
	char kind[96]; /* as struct qsc_migrate_user has it */

	int *irq_fds; /* devices * TENANT_SLOTS eventfds */
	int epoll_fd;
	int kick_fd;	  /* wakes the thread */
	int event_fd;	  /* finished or failed */
	uint8_t *scratch; /* one block, outside memory: what is expected */
	uint8_t *rung;	  /* a byte a device: its queue has new transfers */
	uint64_t idle_since_us;

	pthread_t thread;
	bool has_thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	enum tenant_run run;	  /* under lock */
	bool end;		  /* under lock */
	struct qsc_error failure; /* under lock; final once run is ENDED */
	_Atomic bool interrupt;	  /* look at what is under lock */
	_Atomic bool finish;
	uint64_t stopped_hash; /* of the part of memory that was in use, at the stop */
};

static inline struct tenant_head *tenant_head(const struct tenant *t)
{
	return (struct tenant_head *)(void *)t->memory;
}

static inline struct dmacopy_queue *tenant_queue(const struct tenant *t, uint32_t device)
{
	return (struct dmacopy_queue *)(void *)(t->memory + t->layout.queues +
						device * t->layout.queue_stride);
}

/* The tenant has written [at, at + size) of its memory; to be called after the write. */
void tenant_mark(struct tenant *t, const void *at, size_t size);

/*
 * Take `count` interrupts of a vector in. Called by the thread, and, when it is paused and the
 * devices have stopped, by the engine's.
 */
void tenant_take_interrupts(struct tenant *t, uint32_t device, uint32_t vector, uint64_t count);

/* Do some work and wait for events at most a little. 1 when all is done, 0, or -errno. */
int tenant_step(struct tenant *t, struct qsc_error *err);

#endif
