/* SPDX-License-Identifier: MIT */
/* What the parts of the dmacopy engine share: its state, and the questions they ask about it. */
#ifndef DMACOPY_ENGINE_H
#define DMACOPY_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "dmacopy/dmacopy.h"

#define DMACOPY_LOCAL_BLOCK 0

enum phase {
	PHASE_IDLE,
	PHASE_COPY,   /* done < length */
	PHASE_STATUS, /* status and bytes_done are to be written back */
	PHASE_OWN,    /* OWN is to be cleared, then the interrupt */
	PHASE_COUNT
};

/* A descriptor in flight. All zero when idle. */
struct channel {
	uint32_t phase;
	uint32_t index; /* in the ring */
	uint32_t flags;
	uint32_t vector;
	uint32_t length;
	uint32_t status; /* DMACOPY_DONE_*; 0 until known */
	uint64_t source;
	uint64_t destination;
	uint64_t done;
};

struct state {
	uint32_t control;
	uint32_t error;
	uint32_t halted;
	uint32_t ring_size;
	uint32_t head;
	uint64_t ring_base;
	uint64_t scratch;
	uint64_t completed;
	uint64_t bytes;
	uint64_t failed;
	struct channel channels[DMACOPY_CHANNELS];
};

struct engine {
	struct qsc_runtime *rt;
	struct state *state;
	uint8_t *local;
	uint64_t local_size;
	uint32_t vectors;

	pthread_mutex_t lock;
	/* Derived: at rest in a stopped device, set anew by start(). */
	bool pending;	/* the head descriptor is worth a look */
	bool fetching;	/* one worker looks at it */
	uint32_t steps; /* under way without the lock */
};

/* ---- state.c: declared state; under the lock, or on a candidate ---- */

extern const struct qsc_section dmacopy_sections[];

bool dmacopy_ring_possible(const struct state *state);
/* What is wrong with a transfer before any of it is done, or DMACOPY_DONE_OK. */
uint32_t dmacopy_transfer_check(const struct engine *engine, const struct channel *channel);
/* As validate() of struct qsc_model. */
int dmacopy_validate(void *ctx, const void *candidate, struct qsc_error *err);

/* ---- channels.c: the work ---- */

/* A channel that has nothing to do, or DMACOPY_CHANNELS; under the lock. */
uint32_t dmacopy_idle_channel(const struct state *state);
/* Back to power-on values but for local memory; under the lock, with no step under way. */
void dmacopy_reset_finish(struct engine *engine);
/* As work() of struct qsc_model. */
enum qsc_work dmacopy_work(void *ctx, uint32_t worker);

#endif
