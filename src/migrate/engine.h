/* SPDX-License-Identifier: MIT */
/*
 * What both sides of a migration share: options with their defaults, the lanes (one task for each
 * channel, all of a round side by side), progress, phases and the first failure.
 *
 * Lanes pull work. On the source every lane takes one member after the other that has something to
 * send and sends its stream to the round's end, then pieces of memory as long as there are any: a
 * slow device holds up one lane only. Channel 0 carries no streams when there are others, so that
 * word of a failure finds its way past every device. The destination puts in place what comes on
 * whichever channel; it only makes sure that a member's frames of a round come on one.
 */
#ifndef QSC_MIGRATE_ENGINE_H
#define QSC_MIGRATE_ENGINE_H

#include <pthread.h>
#include <stdatomic.h>

#include <quiesce/migrate.h>

#include "migrate/link.h"
#include "migrate/memory.h"
#include "migrate/pace.h"
#include "migrate/predict.h"
#include "migrate/stream.h"

/* Of a migration; each leaves a phase in the timeline, so there must be an end of them. */
#define QSC_ENGINE_MAX_ROUNDS 100000U

struct qsc_engine;

/* How long a set takes through its waves, microseconds. */
struct qsc_waves {
	bool known;
	uint64_t quiesce_us;
	uint64_t stop_us;
	uint64_t start_us; /* from STOP to RUNNING */
};

/* The task of one channel in one round. */
struct qsc_lane {
	struct qsc_engine *engine;
	uint32_t channel;
	uint8_t *buffer; /* QSC_FRAME_MAX_DATA bytes */
	int result;
	bool lost; /* the connection is what failed */
	struct qsc_error err;
	uint64_t memory_bytes;
	uint64_t device_bytes;
	uint64_t memory_from_us; /* when it began with memory, 0: it did not; and when it ended */
	uint64_t memory_to_us;
	uint64_t read_us; /* source: spent reading devices, and the rest of the round's time */
	uint64_t carry_us;
};

struct qsc_engine {
	struct qsc_set *set;
	const struct qsc_migrate_user *user;
	struct qsc_transport *transport;
	struct qsc_migrate_options options;
	const struct qsc_env *env;
	struct qsc_migrate_report *report;
	const char *other; /* "source" or "destination", for messages */

	struct qsc_link link;
	struct qsc_pace pace;	     /* of the link */
	struct qsc_link_speed speed; /* source: as measured before pre-copy; zero: not known */
	struct qsc_waves remote;     /* the destination's fresh devices */
	struct qsc_lane *lanes;	     /* one for each channel */
	struct qsc_migrate_stream *streams; /* one for each member */
	struct qsc_memory memory;

	uint32_t round;
	bool last_round;
	_Atomic(uint32_t) next_member; /* source: whom no lane has taken yet in this round */
	_Atomic(bool) failed;	       /* a lane of this round failed: the others stop */
	_Atomic(bool) cancelled;       /* by the user, while somebody waited */
	struct qsc_watch watch;	       /* of the link's waits: hears a cancel, tells progress */
	_Atomic(struct qsc_lane *) first_failed;
	bool lost; /* the connection is what failed; the other side may have said why before */

	const char *phase;
	uint64_t start_us;
	uint64_t stop_us; /* when the downtime began; 0 before */

	/* Progress: told by one thread at a time, whoever moves the bytes that make it due. */
	pthread_mutex_t progress_lock;
	_Atomic(uint64_t) moved;       /* bytes of memory and device state so far */
	uint64_t remaining;	       /* known when the phase was entered */
	uint64_t moved_before;	       /* it was entered */
	_Atomic(uint64_t) progress_us; /* when it was last told */
	uint64_t told;		       /* bytes moved then */
	uint64_t told_us;	       /* when they were first told, or the phase was entered */
	struct qsc_rate lately;	       /* of the link, as progress tells it */
	uint64_t dirty_per_second;     /* source: as the last prediction has it */
};

int qsc_engine_init(struct qsc_engine *engine, struct qsc_set *set,
		    const struct qsc_migrate_user *user, struct qsc_transport *transport,
		    const struct qsc_migrate_options *options, struct qsc_migrate_report *report,
		    struct qsc_error *err);
/* Closes the channels. */
void qsc_engine_release(struct qsc_engine *engine);

uint64_t qsc_engine_now(const struct qsc_engine *engine);

/* timeout_ms counts from now on. */
void qsc_engine_start_clock(struct qsc_engine *engine);

/* 0, or -ETIMEDOUT with a sentence when timeout_ms is over. */
int qsc_engine_check_clock(const struct qsc_engine *engine, struct qsc_error *err);

/*
 * Whether something that failed so, by itself a wait or a lost connection, did after timeout_ms was
 * over: then err tells that instead. Not when the other side has given its own reason.
 */
bool qsc_engine_is_over(const struct qsc_engine *engine, int result, struct qsc_error *err);

/*
 * The migration is now in this phase: tells the user, who may cancel: -ECANCELED; or it took too
 * long: -ETIMEDOUT. Not while lanes run.
 */
int qsc_engine_enter(struct qsc_engine *engine, const char *phase, uint64_t remaining,
		     struct qsc_error *err);

void qsc_engine_phase(struct qsc_engine *engine, const char *name, uint32_t member,
		      uint64_t start_us, uint64_t bytes);

/* Make the lanes; the number of channels is known. */
int qsc_engine_make_lanes(struct qsc_engine *engine, struct qsc_error *err);

/* Run a task for every lane and report the failure that came first. */
int qsc_engine_run_lanes(struct qsc_engine *engine, void (*task)(void *arg), struct qsc_error *err);

/*
 * What a lane calls after every frame or few: counts the bytes and tells the user, several times a
 * second. 0, or as qsc_engine_enter(), which the lane's error then says.
 */
int qsc_engine_moved(struct qsc_lane *lane, uint64_t bytes);

/*
 * A lane has failed. The first to fail wakes the others by shutting down the channels of streams
 * (channel 0 stays, to tell the other side why). True for the first. When the lane has no text yet
 * it gets one about the connection.
 */
bool qsc_engine_lane_failed(struct qsc_lane *lane, int result);

/* -ECANCELED with a sentence when a wait ended because the user cancels; else 0. */
int qsc_engine_check_cancel(const struct qsc_engine *engine, struct qsc_error *err);

/* The connection failed, and no lane runs: the sentence about it; returns result. */
int qsc_engine_lost(struct qsc_engine *engine, int result, struct qsc_error *err);

#endif
