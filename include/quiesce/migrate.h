/* SPDX-License-Identifier: MIT */
/*
 * The migration engine: moves a set of devices and its user's memory from one process to another.
 * The source calls qsc_migrate_send(), the destination qsc_migrate_receive(), each with a set of
 * the same shape. Memory and device state move while everything runs; then the user is paused, the
 * devices are quiesced and stopped, the rest moves, the destination validates all of it (ORD-5),
 * and only then the source gives up its copy. Until that point any failure leaves the source
 * running; after it exactly one side ever runs (SET-5).
 *
 * Hand-over. READY (destination: everything is loaded and validated) → COMMIT (source: from here on
 * this side never runs again) → RUNNING (destination: it runs). A source that sent COMMIT and
 * hears nothing, and a destination that sent READY and hears nothing, stay stopped and say so.
 *
 * Threads: a migration uses its set and its transport from the calling thread and from threads of
 * its own, which have ended when it returns; nobody else may use them meanwhile. Several migrations
 * of different sets may be under way at once.
 *
 * Deadlines. From measured rates and times the source predicts, after every pass of pre-copy, how
 * long the stop would take were it to begin now, part by part (enum qsc_downtime_part): the state
 * changes of the devices on both sides, the last report of the logs, the bytes that are left, the
 * loading there and the messages. It stops when the prediction fits downtime_limit_us. It never
 * will when four passes in a row brought neither the prediction nor the bytes left a sixteenth
 * below what they were when there was progress last; so one bad pass, and one good one, decide
 * nothing, and slow progress is progress. Then the source gives up with -ETIME and says what is
 * written faster than the link carries it, what the least stop was that came into reach, and what
 * to do; or, with exceed_downtime, stops there. After max_passes, and with no_precopy at once, the
 * last prediction decides in the same way. Into a file, where nothing waits to run on, the limit
 * says when to stop and refuses nothing.
 */
#ifndef QUIESCE_MIGRATE_H
#define QUIESCE_MIGRATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quiesce/base.h>
#include <quiesce/device.h>
#include <quiesce/set.h>
#include <quiesce/transport.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the user whose devices move ---- */

struct qsc_memory_region {
	uint64_t address; /* IOVA of its first byte in every member's DMA space */
	uint64_t size;	  /* bytes, multiple of 4 KiB */
	void *vaddr;	  /* in this process */
	/*
	 * It maps a file that somebody else can make shorter. Should that happen while it moves,
	 * the migration fails with -EFAULT instead of ending the process (SIGBUS), and there are
	 * private zeroes in its place: map it anew before it is used again.
	 */
	bool may_shrink;
};

/*
 * What the engine needs of the program that holds the set (a VMM, a tenant). Callbacks return 0 or
 * -errno, are called from the thread that called the engine, one at a time; those marked * may be
 * NULL.
 */
struct qsc_migrate_user {
	const struct qsc_memory_region *regions; /* same addresses and sizes on both sides */
	uint32_t num_regions;
	/*
	 * Set in `bitmap` the 4 KiB pages of a region that the user itself wrote since the last
	 * call (the devices' writes come from their logs). The first call starts the tracking.
	 * NULL: all of the memory is sent again after the stop (ORD-7).
	 */
	int (*dirty)(void *ctx, uint32_t region, uint64_t *bitmap); /* * */
	/* Source: stop touching devices and memory. From now until resume() nothing runs. */
	int (*pause)(void *ctx);
	/*
	 * * Source: all devices are stopped, no interrupt or DMA will come any more. The place to
	 * take in interrupts that have arrived and to write what belongs in memory.
	 */
	int (*stopped)(void *ctx);
	/* * Source: state of the user itself, at most max bytes; returns how many. */
	ssize_t (*save)(void *ctx, void *buf, size_t max);
	/* * Destination: that state. May refuse. */
	int (*load)(void *ctx, const void *buf, size_t size);
	/* * Destination: set up interrupts; every device is in STOP with its state loaded (ORD-2).
	 */
	int (*setup_irqs)(void *ctx);
	/* Destination after the hand-over, source after a roll-back: devices run, so may the user.
	 */
	int (*resume)(void *ctx);
	void *ctx;
	/*
	 * * What the user is, such that two that say the same can load each other's state; at most
	 * 127 bytes of printable text, the user's until the engine returns. Compared before
	 * anything moves, so that load() has no reason to refuse in the stop.
	 */
	const char *kind;
};

/* ---- the engine ---- */

/*
 * Parts of a stop, in their order. What a part lasts includes waiting for the slowest member; they
 * add up to the downtime of the source.
 */
enum qsc_downtime_part {
	QSC_DOWNTIME_PAUSE,    /* the user's pause() and stopped() */
	QSC_DOWNTIME_QUIESCE,  /* first wave, revoking included */
	QSC_DOWNTIME_STOP,     /* second wave */
	QSC_DOWNTIME_COLLECT,  /* last report of the dirty logs */
	QSC_DOWNTIME_TRANSFER, /* what is left of memory and device state, the user's own state */
	QSC_DOWNTIME_LOAD,     /* destination: validate, load, set up interrupts */
	QSC_DOWNTIME_COMMIT,   /* the messages of the hand-over on the way */
	QSC_DOWNTIME_RUN,      /* destination: waves up, resume() */
	QSC_DOWNTIME_PARTS,
};

struct qsc_downtime {
	uint64_t part_us[QSC_DOWNTIME_PARTS];
	uint64_t total_us; /* their sum */
};

/* "pause", "quiesce", …; "?" for no part. Static storage. */
QSC_API const char *qsc_downtime_part_name(enum qsc_downtime_part part);

struct qsc_migrate_progress {
	const char *phase;	  /* static storage: "pre-copy", "stop-copy", … */
	uint32_t pass;		  /* of pre-copy, from 1 on */
	uint64_t bytes_sent;	  /* so far */
	uint64_t bytes_remaining; /* known now: dirty memory and device state */
	uint64_t elapsed_us;
	/* The source's; smoothed, so that recent passes count more. */
	uint64_t bytes_per_second;	/* of the link, measured lately; 0: not known yet */
	uint64_t dirty_per_second;	/* bytes of memory and device state written again */
	uint64_t predicted_downtime_us; /* were it stopped now; 0: not known yet */
	uint64_t downtime_limit_us;
};

struct qsc_migrate_options {
	const struct qsc_env *env;     /* NULL: the real one */
	struct qsc_timeline *timeline; /* borrowed; or NULL */
	enum qsc_quiesce quiesce;      /* default: NATIVE, nothing is revoked */
	bool no_precopy;	       /* stop first, move everything then */
	uint32_t max_passes;	       /* of pre-copy (default 30, at most 99999) */
	uint64_t downtime_limit_us;    /* stop when it is predicted to fit (default 300000) */
	bool exceed_downtime; /* stop also when the downtime limit cannot be kept; default: give
				 up, -ETIME */
	/*
	 * Source: bytes a second over all channels together, at least 64 KiB; 0: no limit. Kept
	 * within a few percent over any second, in pre-copy and in the stop alike: the prediction
	 * takes it into account.
	 */
	uint64_t bandwidth;
	/*
	 * For all of it up to COMMIT; 0: none. Past it the source goes on, -ETIMEDOUT. That of the
	 * destination begins when a source has come and ends with READY. Transports measure it by
	 * the clock of env.
	 */
	uint32_t timeout_ms;
	uint32_t channels; /* connections, control included (default: one a device, at most 8, and
			      one more; never more than the transport can give) */
	/*
	 * No progress at all for so long is a failure (default 30000). READY, COMMIT and RUNNING
	 * are each waited for so long in all, loading and starting included, whatever else comes.
	 * Any other answer must be whole so long after it has begun to come.
	 */
	uint32_t stall_timeout_ms;
	/*
	 * Destination: for a source to come (default: stall_timeout_ms; UINT32_MAX, seven weeks,
	 * for one that waits until it is cancelled).
	 */
	uint32_t wait_timeout_ms;
	/*
	 * Destination: a source whose set does not fit is refused, and told every difference, and
	 * the wait goes on (a warning in the log says so); default: it ends the wait, -EMEDIUMTYPE.
	 */
	bool wait_for_fitting;
	/*
	 * Called by one thread at a time, several times a second while bytes move, wait for
	 * bandwidth, or the other side is waited for, and between steps; non-zero cancels with
	 * -ECANCELED. A device that is waited for, and the hand-over once COMMIT or READY is out,
	 * are seen through.
	 */
	int (*progress)(void *ctx, const struct qsc_migrate_progress *progress);
	void *progress_ctx;
};

enum qsc_owner {
	QSC_OWNER_SOURCE,      /* the source's devices run, or can */
	QSC_OWNER_DESTINATION, /* the destination's devices run */
	QSC_OWNER_UNPROVED,    /* neither can be proved to own the set; both stay stopped */
};

struct qsc_migrate_report {
	enum qsc_owner owner; /* as far as this side can prove */
	uint64_t total_us;
	/*
	 * Destination: of total_us, until the source came that a set was expected from; whoever
	 * asked or was refused before is part of it. 0 at a source, with a file, and where none
	 * came.
	 */
	uint64_t waited_us;
	uint64_t downtime_us;  /* source: from pause() to RUNNING heard or resume(); destination:
				  from STOPPING heard to resume() */
	uint64_t memory_bytes; /* moved, pre-copy included */
	uint64_t device_bytes;
	uint64_t stop_bytes; /* of both, while stopped */
	uint32_t passes;
	/* Source: the last prediction before the stop began, and what the stop then took. */
	struct qsc_downtime predicted;
	struct qsc_downtime measured;
	/* (measured - predicted) / measured of the totals; 0 unless the set has moved. */
	int32_t prediction_error_permille;
	char outcome[512]; /* one sentence: what state everything is in and what to do */
};

/*
 * Move the set to the process at the other end of the transport. All members must be RUNNING. 0
 * when the destination runs. On failure -errno, err names device, state and clause or errno, and
 * report->owner says who has the set: with QSC_OWNER_SOURCE the set is RUNNING again and resume()
 * was called if pause() had been, unless err says that a device could not be brought back (it is
 * then in ERROR or STOP, and is not reset: ORD-8).
 */
QSC_API int qsc_migrate_send(struct qsc_set *set, const struct qsc_migrate_user *user,
			     struct qsc_transport *transport,
			     const struct qsc_migrate_options *options,
			     struct qsc_migrate_report *report, struct qsc_error *err);

/*
 * Take a set over. The members are freshly opened devices of the same types in the same order with
 * their DMA mappings in place. 0 when they run and resume() was called. On failure before COMMIT
 * the members are reset and stopped from running anything that was loaded (SESS-7, ORD-9).
 */
QSC_API int qsc_migrate_receive(struct qsc_set *set, const struct qsc_migrate_user *user,
				struct qsc_transport *transport,
				const struct qsc_migrate_options *options,
				struct qsc_migrate_report *report, struct qsc_error *err);

/* ---- before anything is touched: what would happen ---- */

struct qsc_migrate_plan_member {
	uint32_t flags; /* QSC_MIGRATION_* */
	bool dirty_log;
	uint64_t state_bytes; /* as the device estimates it; 0 where it does not */
	char type[64];	      /* of the device model; "" where the device does not say */
};

struct qsc_migrate_plan {
	/* In: room for qsc_set_count() members, the caller's, which is filled in; or NULL. */
	struct qsc_migrate_plan_member *members;
	struct qsc_set_plan set; /* how it is made quiescent and why */
	/*
	 * The least that the stop takes: as if nobody wrote any more, and pre-copy had moved all
	 * state of the members that have it, and the memory unless somebody writes it untracked.
	 * With no_precopy, the stop as it is.
	 */
	struct qsc_downtime predicted;
	bool fits;		   /* the limit */
	uint64_t memory_bytes;	   /* of the user */
	uint64_t bytes_per_second; /* of the link as measured; 0: it is assumed, see reason */
	uint64_t rtt_us;	   /* to the destination and back; 0: assumed, as above */
	bool asked;		   /* the destination was asked, and agrees */
	char reason[512];	   /* one sentence: why it fits or not, and on what that rests */
};

/*
 * What qsc_migrate_send() would do with the same arguments. With a transport the destination is
 * asked: it compares both sets, tells how long its devices take for their state changes, and waits
 * on for a source; -EINVAL where nobody answers (a file), before anything is sent. NULL asks
 * nobody, and the times of the link and of the destination are assumed: options->bandwidth bytes a
 * second, or 1 GiB where that is 0, 200 µs there and back, 1 ms for every wave. Changes nothing on
 * either side; members are in any state but ERROR.
 *
 * -errno as qsc_migrate_send() up to and including the answer of the destination; -EOPNOTSUPP with
 * SET-3 from the plan of the set; a prediction above the limit is no failure. *plan holds what was
 * found until then. Threads: as qsc_migrate_send().
 */
QSC_API int qsc_migrate_plan(struct qsc_set *set, const struct qsc_migrate_user *user,
			     struct qsc_transport *transport,
			     const struct qsc_migrate_options *options,
			     struct qsc_migrate_plan *plan, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
