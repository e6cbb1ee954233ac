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
};

/* ---- the engine ---- */

struct qsc_migrate_progress {
	const char *phase;	  /* static storage: "pre-copy", "stop-copy", … */
	uint32_t pass;		  /* of pre-copy, from 1 on */
	uint64_t bytes_sent;	  /* so far */
	uint64_t bytes_remaining; /* known now: dirty memory and device state */
	uint64_t elapsed_us;
};

struct qsc_migrate_options {
	const struct qsc_env *env;     /* NULL: the real one */
	struct qsc_timeline *timeline; /* borrowed; or NULL */
	enum qsc_quiesce quiesce;      /* default: NATIVE, nothing is revoked */
	bool no_precopy;	       /* stop first, move everything then */
	uint32_t max_passes;	       /* of pre-copy (default 30) */
	uint64_t downtime_limit_us;    /* stop when the rest is estimated to fit (default 300000) */
	uint32_t channels;	   /* connections, control included (default: one a device, at most
				      8, and one more) */
	uint32_t stall_timeout_ms; /* no progress at all for so long is a failure (default 30000) */
	/* Called from the engine's thread between steps; non-zero cancels with -ECANCELED. */
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
	uint64_t downtime_us;  /* source: from pause() to RUNNING heard or resume(); destination:
				  from  STOPPING heard to resume() */
	uint64_t memory_bytes; /* moved, pre-copy included */
	uint64_t device_bytes;
	uint64_t stop_bytes; /* of both, while stopped */
	uint32_t passes;
	char outcome[256]; /* one sentence: what state everything is in and what to do */
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

#ifdef __cplusplus
}
#endif
#endif
