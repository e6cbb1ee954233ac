/* SPDX-License-Identifier: MIT */
/* See engine.h. */
#include "migrate/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/probe.h"

#define DEFAULT_PASSES	    30
#define DEFAULT_DOWNTIME_US 300000
#define DEFAULT_STALL_MS    30000
#define DEFAULT_STREAMS	    8
#define PROGRESS_US	    100000 /* between two calls while bytes move */

static void fill_options(struct qsc_engine *engine, const struct qsc_migrate_options *options)
{
	struct qsc_migrate_options *filled = &engine->options;
	uint32_t members = qsc_set_count(engine->set);
	uint32_t most = engine->transport ? engine->transport->ops->max_channels : 0;

	if (options)
		*filled = *options;
	if (!filled->max_passes)
		filled->max_passes = DEFAULT_PASSES;
	/* The last round is none of them. */
	if (filled->max_passes >= QSC_ENGINE_MAX_ROUNDS)
		filled->max_passes = QSC_ENGINE_MAX_ROUNDS - 1;
	if (!filled->downtime_limit_us)
		filled->downtime_limit_us = DEFAULT_DOWNTIME_US;
	if (!filled->stall_timeout_ms)
		filled->stall_timeout_ms = DEFAULT_STALL_MS;
	if (!filled->wait_timeout_ms)
		filled->wait_timeout_ms = filled->stall_timeout_ms;
	if (!filled->channels)
		filled->channels = 1 + (members < DEFAULT_STREAMS ? members : DEFAULT_STREAMS);
	if (filled->channels > QSC_LINK_MAX_CHANNELS)
		filled->channels = QSC_LINK_MAX_CHANNELS;
	if (most && filled->channels > most)
		filled->channels = most;
	if (!filled->env)
		filled->env = qsc_env_real();
	engine->env = filled->env;
}

/* With the lock held. Whether the user cancels. */
static bool tell_progress(struct qsc_engine *engine)
{
	uint64_t moved = atomic_load(&engine->moved);
	uint64_t since = moved - engine->moved_before;
	uint64_t now = qsc_engine_now(engine);
	struct qsc_migrate_progress progress = {
		.phase = engine->phase,
		.pass = engine->report->passes,
		.bytes_sent = moved,
		.bytes_remaining = engine->remaining - qsc_min_u64(since, engine->remaining),
		.elapsed_us = now - engine->start_us,
		.dirty_per_second = engine->dirty_per_second,
		.predicted_downtime_us = engine->report->predicted.total_us,
		.downtime_limit_us = engine->options.downtime_limit_us,
	};

	/* What stands still between two rounds says nothing about the link. */
	if (moved > engine->told) {
		qsc_rate_add(&engine->lately, moved - engine->told, now - engine->told_us);
		engine->told_us = now;
	}
	progress.bytes_per_second = qsc_rate_per_second(&engine->lately);
	engine->told = moved;
	atomic_store(&engine->progress_us, now);
	return engine->options.progress &&
	       engine->options.progress(engine->options.progress_ctx, &progress);
}

/* When it is time to and nobody else does. Whether the user cancels. */
static bool tell_when_due(struct qsc_engine *engine)
{
	bool cancelled;

	if (qsc_engine_now(engine) - atomic_load(&engine->progress_us) < PROGRESS_US ||
	    pthread_mutex_trylock(&engine->progress_lock) != 0)
		return false;
	cancelled = tell_progress(engine);
	pthread_mutex_unlock(&engine->progress_lock);
	return cancelled;
}

/* Who waits for bandwidth may wait for minutes, and hears meanwhile that there is no need to. */
static bool is_hurried(void *ctx)
{
	struct qsc_engine *engine = ctx;

	if (atomic_load_explicit(&engine->failed, memory_order_acquire) ||
	    atomic_load_explicit(&engine->cancelled, memory_order_acquire) ||
	    qsc_engine_check_clock(engine, NULL) < 0)
		return true;
	if (!tell_when_due(engine))
		return false;
	atomic_store(&engine->cancelled, true);
	return true;
}

/* Who waits for the other side, which may be silent, hears that there is no need to. */
static int look(void *ctx)
{
	struct qsc_engine *engine = ctx;

	if (tell_when_due(engine))
		atomic_store(&engine->cancelled, true);
	return atomic_load(&engine->cancelled) ? -ECANCELED : 0;
}

int qsc_engine_init(struct qsc_engine *engine, struct qsc_set *set,
		    const struct qsc_migrate_user *user, struct qsc_transport *transport,
		    const struct qsc_migrate_options *options, struct qsc_migrate_report *report,
		    struct qsc_error *err)
{
	uint32_t members = qsc_set_count(set);
	uint32_t i;

	*engine = (struct qsc_engine){
		.set = set, .user = user, .transport = transport, .report = report};
	fill_options(engine, options);
	engine->link.env = engine->env;
	engine->link.stall_ms = engine->options.stall_timeout_ms;
	engine->watch = (struct qsc_watch){look, engine};
	engine->link.watch = &engine->watch;
	pthread_mutex_init(&engine->progress_lock, NULL);
	qsc_pace_init(&engine->pace, engine->env, engine->options.bandwidth, is_hurried, engine);
	engine->link.pace = &engine->pace;
	engine->phase = "negotiate";
	engine->start_us = qsc_engine_now(engine);
	if (!members)
		return qsc_error_set(err, EINVAL, NULL, "the set has no devices to move");
	if (engine->options.bandwidth && engine->options.bandwidth < QSC_PACE_LEAST)
		return qsc_error_set(err, EINVAL, NULL,
				     "a bandwidth of %llu bytes a second is too little to move by: "
				     "allow at least %u",
				     (unsigned long long)engine->options.bandwidth, QSC_PACE_LEAST);
	engine->streams = calloc(members, sizeof(*engine->streams));
	if (!engine->streams || qsc_memory_init(&engine->memory, set, user) < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a migration");
	for (i = 0; i < members; i++)
		if (qsc_migrate_stream_init(&engine->streams[i], set, i) < 0)
			return qsc_error_set(err, ENOMEM, NULL, "no memory for a migration");
	return 0;
}

void qsc_engine_release(struct qsc_engine *engine)
{
	uint32_t i;

	for (i = 0; engine->lanes && i < engine->link.count; i++)
		free(engine->lanes[i].buffer);
	free(engine->lanes);
	for (i = 0; engine->streams && i < qsc_set_count(engine->set); i++)
		qsc_migrate_stream_release(&engine->streams[i]);
	free(engine->streams);
	qsc_memory_release(&engine->memory);
	pthread_mutex_destroy(&engine->progress_lock);
	qsc_pace_release(&engine->pace);
	qsc_link_close(&engine->link);
	engine->report->total_us = qsc_engine_now(engine) - engine->start_us;
}

uint64_t qsc_engine_now(const struct qsc_engine *engine)
{
	return engine->env->now_us(engine->env->ctx);
}

void qsc_engine_start_clock(struct qsc_engine *engine)
{
	uint64_t deadline = engine->options.timeout_ms
				    ? qsc_engine_now(engine) + engine->options.timeout_ms * 1000ULL
				    : 0;

	qsc_link_set_limits(&engine->link, engine->options.stall_timeout_ms, deadline);
}

int qsc_engine_check_clock(const struct qsc_engine *engine, struct qsc_error *err)
{
	uint64_t deadline = engine->link.deadline_us;

	if (!deadline || qsc_engine_now(engine) < deadline)
		return 0;
	return qsc_error_set(err, ETIMEDOUT, NULL,
			     "the migration was in phase '%s' when its %u ms were over: allow it "
			     "more time (timeout) or more bandwidth, or stop earlier (downtime "
			     "limit)",
			     engine->phase, engine->options.timeout_ms);
}

bool qsc_engine_is_over(const struct qsc_engine *engine, int result, struct qsc_error *err)
{
	return (result == -ETIMEDOUT || result == -EPIPE) && !engine->link.heard_failed &&
	       qsc_engine_check_clock(engine, err) < 0;
}

int qsc_engine_check_cancel(const struct qsc_engine *engine, struct qsc_error *err)
{
	if (!atomic_load(&engine->cancelled))
		return 0;
	return qsc_error_set(err, ECANCELED, NULL, "cancelled by the user in phase '%s'",
			     engine->phase);
}

int qsc_engine_enter(struct qsc_engine *engine, const char *phase, uint64_t remaining,
		     struct qsc_error *err)
{
	bool cancelled;

	QSC_PROBE(migrate__phase, engine->other, phase, engine->report->passes, remaining);
	engine->phase = phase;
	engine->remaining = remaining;
	engine->moved_before = atomic_load(&engine->moved);
	pthread_mutex_lock(&engine->progress_lock);
	cancelled = tell_progress(engine) || atomic_load(&engine->cancelled);
	engine->told_us = qsc_engine_now(engine);
	pthread_mutex_unlock(&engine->progress_lock);
	if (cancelled) {
		atomic_store(&engine->cancelled, true);
		return qsc_engine_check_cancel(engine, err);
	}
	return qsc_engine_check_clock(engine, err);
}

void qsc_engine_phase(struct qsc_engine *engine, const char *name, uint32_t member,
		      uint64_t start_us, uint64_t bytes)
{
	const struct qsc_phase phase = {
		.name = name,
		.member = member,
		.start_us = start_us,
		.duration_us = qsc_engine_now(engine) - start_us,
		.bytes = bytes,
	};

	qsc_timeline_add(engine->options.timeline, &phase);
}

/* ---- lanes ---- */

int qsc_engine_moved(struct qsc_lane *lane, uint64_t bytes)
{
	struct qsc_engine *engine = lane->engine;
	int result = qsc_engine_check_clock(engine, &lane->err);

	atomic_fetch_add(&engine->moved, bytes);
	if (result < 0)
		return result;
	if (look(engine) < 0)
		return qsc_engine_check_cancel(engine, &lane->err);
	return 0;
}

int qsc_engine_make_lanes(struct qsc_engine *engine, struct qsc_error *err)
{
	uint32_t i;

	engine->lanes = calloc(engine->link.count, sizeof(*engine->lanes));
	for (i = 0; engine->lanes && i < engine->link.count; i++) {
		struct qsc_lane *lane = &engine->lanes[i];

		lane->engine = engine;
		lane->channel = i;
		lane->buffer = malloc(QSC_FRAME_MAX_DATA);
		if (!lane->buffer)
			break;
	}
	if (!engine->lanes || i < engine->link.count)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for %u channels",
				     engine->link.count);
	return 0;
}

static int describe_lost(const struct qsc_engine *engine, int result, struct qsc_error *err)
{
	const char *why = strerrordesc_np(-result);

	if (engine->link.one_way)
		return qsc_error_set(err, -result, NULL,
				     "what is to be saved could not be written in phase '%s' (%s)",
				     engine->phase, why);
	if (result == -EPROTO || result == -EBADMSG)
		return qsc_error_set(err, -result, NULL,
				     "what came from the %s in phase '%s' cannot be right (%s)",
				     engine->other, engine->phase, why);
	if (result == -ETIMEDOUT)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "nothing moved to or from the %s for %u ms in phase '%s': it "
				     "hangs, or the link is cut",
				     engine->other, engine->link.stall_ms, engine->phase);
	return qsc_error_set(err, -result, NULL,
			     "the connection to the %s was lost in phase '%s' (%s)", engine->other,
			     engine->phase, why);
}

int qsc_engine_lost(struct qsc_engine *engine, int result, struct qsc_error *err)
{
	engine->lost = true;
	return describe_lost(engine, result, err);
}

bool qsc_engine_lane_failed(struct qsc_lane *lane, int result)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_lane *none = NULL;
	bool first;
	uint32_t i;

	lane->result = result;
	if (result == -ECANCELED && !lane->err.number)
		(void)qsc_engine_check_cancel(engine, &lane->err);
	lane->lost = !lane->err.number;
	if (lane->lost)
		describe_lost(engine, result, &lane->err);
	first = atomic_compare_exchange_strong(&engine->first_failed, &none, lane);
	atomic_store(&engine->failed, true);
	for (i = 1; first && i < engine->link.count; i++)
		qsc_link_shutdown(&engine->link, i);
	return first;
}

static bool is_lost(int result)
{
	return result == -EPIPE || result == -ECONNRESET || result == -ETIMEDOUT ||
	       result == -ENOTCONN || result == -ESHUTDOWN;
}

/*
 * The lane whose error tells the most: what the other side said, on channel 0, explains a lost
 * connection.
 */
static const struct qsc_lane *failed_lane(const struct qsc_engine *engine)
{
	const struct qsc_lane *first = atomic_load(&engine->first_failed);

	if (first && is_lost(first->result) && engine->link.heard_failed)
		return &engine->lanes[0];
	return first;
}

int qsc_engine_run_lanes(struct qsc_engine *engine, void (*task)(void *arg), struct qsc_error *err)
{
	void *args[QSC_LINK_MAX_CHANNELS];
	const struct qsc_lane *failed;
	uint32_t i;
	int result;

	for (i = 0; i < engine->link.count; i++) {
		engine->lanes[i].memory_bytes = 0;
		engine->lanes[i].device_bytes = 0;
		engine->lanes[i].memory_from_us = 0;
		engine->lanes[i].read_us = 0;
		args[i] = &engine->lanes[i];
	}
	atomic_store(&engine->next_member, 0);
	QSC_PROBE(round__begin, engine->other, engine->round, engine->last_round);
	result = engine->env->parallel(engine->env->ctx, task, args, engine->link.count);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no threads for %u channels (%s)",
				     engine->link.count, strerrordesc_np(-result));
	for (i = 0; i < engine->link.count; i++) {
		uint64_t memory = engine->lanes[i].memory_bytes;
		uint64_t device = engine->lanes[i].device_bytes;

		engine->report->memory_bytes += memory;
		engine->report->device_bytes += device;
		if (engine->stop_us)
			engine->report->stop_bytes += memory + device;
	}
	failed = failed_lane(engine);
	QSC_PROBE(round__end, engine->other, engine->round, failed != NULL);
	if (!failed)
		return qsc_memory_check(&engine->memory, err);
	engine->lost = failed->lost;
	if (err)
		*err = failed->err;
	return failed->result;
}
