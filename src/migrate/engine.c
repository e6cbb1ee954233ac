/* SPDX-License-Identifier: MIT */
/* See engine.h. */
#include "migrate/engine.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define DEFAULT_PASSES	    30
#define DEFAULT_DOWNTIME_US 300000
#define DEFAULT_STALL_MS    30000
#define DEFAULT_STREAMS	    8

static void fill_options(struct qsc_engine *engine, const struct qsc_migrate_options *options)
{
	struct qsc_migrate_options *filled = &engine->options;
	uint32_t members = qsc_set_count(engine->set);

	if (options)
		*filled = *options;
	if (!filled->max_passes)
		filled->max_passes = DEFAULT_PASSES;
	if (!filled->downtime_limit_us)
		filled->downtime_limit_us = DEFAULT_DOWNTIME_US;
	if (!filled->stall_timeout_ms)
		filled->stall_timeout_ms = DEFAULT_STALL_MS;
	if (!filled->channels)
		filled->channels = 1 + (members < DEFAULT_STREAMS ? members : DEFAULT_STREAMS);
	if (filled->channels > QSC_LINK_MAX_CHANNELS)
		filled->channels = QSC_LINK_MAX_CHANNELS;
	if (!filled->env)
		filled->env = qsc_env_real();
	engine->env = filled->env;
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
	engine->phase = "negotiate";
	engine->start_us = qsc_engine_now(engine);
	if (!members)
		return qsc_error_set(err, EINVAL, NULL, "the set has no devices to move");
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
	qsc_link_close(&engine->link);
	engine->report->total_us = qsc_engine_now(engine) - engine->start_us;
}

uint64_t qsc_engine_now(const struct qsc_engine *engine)
{
	return engine->env->now_us(engine->env->ctx);
}

int qsc_engine_enter(struct qsc_engine *engine, const char *phase, uint64_t remaining,
		     struct qsc_error *err)
{
	const struct qsc_migrate_progress progress = {
		.phase = phase,
		.pass = engine->report->passes,
		.bytes_sent = engine->report->memory_bytes + engine->report->device_bytes,
		.bytes_remaining = remaining,
		.elapsed_us = qsc_engine_now(engine) - engine->start_us,
	};

	engine->phase = phase;
	if (engine->options.progress &&
	    engine->options.progress(engine->options.progress_ctx, &progress))
		return qsc_error_set(err, ECANCELED, NULL, "cancelled by the user in phase '%s'",
				     phase);
	return 0;
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

uint32_t qsc_engine_lane_of(const struct qsc_engine *engine, uint32_t member)
{
	return engine->link.count == 1 ? 0 : 1 + member % (engine->link.count - 1);
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

bool qsc_engine_is_lost(int result)
{
	return result == -EPIPE || result == -ECONNRESET || result == -ETIMEDOUT ||
	       result == -ENOTCONN || result == -ESHUTDOWN;
}

bool qsc_engine_lane_failed(struct qsc_lane *lane, int result)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_lane *none = NULL;
	bool first;
	uint32_t i;

	lane->result = result;
	if (!lane->err.number && qsc_engine_is_lost(result))
		qsc_error_set(&lane->err, -result, NULL,
			      "the connection to the %s was lost in phase '%s' (%s)", engine->other,
			      engine->phase, strerrordesc_np(-result));
	else if (!lane->err.number)
		qsc_error_set(&lane->err, -result, NULL,
			      "what came from the %s in phase '%s' cannot be right (%s)",
			      engine->other, engine->phase, strerrordesc_np(-result));
	first = atomic_compare_exchange_strong(&engine->first_failed, &none, lane);
	atomic_store(&engine->failed, true);
	for (i = 1; first && i < engine->link.count; i++)
		qsc_link_shutdown(&engine->link, i);
	return first;
}

/* The lane whose error tells the most: what the other side said explains a lost connection. */
static const struct qsc_lane *failed_lane(const struct qsc_engine *engine)
{
	const struct qsc_lane *first = atomic_load(&engine->first_failed);
	uint32_t i;

	if (first && qsc_engine_is_lost(first->result))
		for (i = 0; i < engine->link.count; i++)
			if (engine->lanes[i].peer_failed)
				return &engine->lanes[i];
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
		args[i] = &engine->lanes[i];
	}
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
	if (!failed)
		return 0;
	if (err)
		*err = failed->err;
	return failed->result;
}
