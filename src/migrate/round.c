/* SPDX-License-Identifier: MIT */
/*
 * A round of the source: every lane takes members and pieces of memory as long as there are any,
 * and the destination says that it has all of it.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/source.h"

#define NO_MEMBER UINT32_MAX

/* One that only stops because another lane failed has no error of its own. */
static int moved_state(void *arg, uint64_t bytes)
{
	struct qsc_lane *lane = arg;
	int result = qsc_engine_moved(lane, bytes);

	if (result == 0 && atomic_load_explicit(&lane->engine->failed, memory_order_acquire))
		return -ECANCELED;
	return result;
}

static int moved_memory(void *arg, uint64_t bytes)
{
	struct qsc_lane *lane = arg;

	lane->memory_bytes += bytes;
	return moved_state(lane, bytes);
}

static int send_memory(struct qsc_lane *lane)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_memory_sending sending = {
		.link = &engine->link,
		.channel = lane->channel,
		.buffer = lane->buffer,
		.stable = engine->last_round,
		.moved = {moved_memory, lane},
	};
	int result;

	/* ORD-7: what nobody tracks is sent once, after the stop. */
	if (engine->memory.cause && !engine->last_round)
		return 0;
	lane->memory_from_us = qsc_engine_now(engine);
	result = qsc_memory_send(&engine->memory, &sending);
	lane->memory_to_us = qsc_engine_now(engine);
	return result;
}

static int send_stream(struct qsc_lane *lane, uint32_t member)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_migrate_stream *stream = &engine->streams[member];
	const struct qsc_moved moved = {moved_state, lane};
	uint64_t start = qsc_engine_now(engine);
	uint64_t before = stream->bytes;
	uint64_t read_us = stream->read_us;
	int result = qsc_migrate_stream_send(stream, &engine->link, lane->channel, lane->buffer,
					     engine->last_round, &moved, &lane->err);

	lane->device_bytes += stream->bytes - before;
	lane->read_us += stream->read_us - read_us;
	if (engine->last_round || stream->bytes != before)
		qsc_engine_phase(engine, engine->last_round ? "stop-copy" : "precopy", member,
				 start, stream->bytes - before);
	return result;
}

/* A member that no lane has taken yet and that has something to send; NO_MEMBER: none is left. */
static uint32_t take_member(struct qsc_lane *lane)
{
	struct qsc_engine *engine = lane->engine;
	uint32_t count = qsc_set_count(engine->set);
	uint32_t member;

	if (lane->channel == 0 && engine->link.count > 1)
		return NO_MEMBER;
	while ((member = atomic_fetch_add(&engine->next_member, 1)) < count)
		if (engine->last_round ||
		    (qsc_source_in_precopy(engine, member) && engine->streams[member].quota))
			return member;
	return NO_MEMBER;
}

static void send_lane(void *arg)
{
	struct qsc_lane *lane = arg;
	struct qsc_engine *engine = lane->engine;
	struct qsc_frame end = {.type = QSC_FRAME_ROUND_END, .index = engine->round};
	uint64_t start = qsc_engine_now(engine);
	uint32_t member;
	int result = 0;

	while (result == 0 && (member = take_member(lane)) != NO_MEMBER)
		result = send_stream(lane, member);
	if (result == 0)
		result = send_memory(lane);
	if (result == 0)
		result = qsc_link_send(&engine->link, lane->channel, &end, NULL, 0);
	lane->carry_us = qsc_engine_now(engine) - start - lane->read_us;
	if (result < 0 &&
	    (result != -ECANCELED || lane->err.number || atomic_load(&engine->cancelled)))
		(void)qsc_engine_lane_failed(lane, result);
}

/* The round's memory as one phase, whichever lanes it went by. */
static void record_memory(struct qsc_engine *engine)
{
	struct qsc_phase phase = {
		.name = engine->last_round ? "final-memory" : "precopy-memory",
		.member = QSC_TIMELINE_ALL,
		.start_us = UINT64_MAX,
	};
	uint64_t end = 0;
	uint32_t i;

	for (i = 0; i < engine->link.count; i++) {
		const struct qsc_lane *lane = &engine->lanes[i];

		if (!lane->memory_from_us)
			continue;
		phase.start_us = qsc_min_u64(phase.start_us, lane->memory_from_us);
		end = qsc_max_u64(end, lane->memory_to_us);
		phase.bytes += lane->memory_bytes;
	}
	if (!end)
		return;
	phase.duration_us = end - phase.start_us;
	qsc_timeline_add(engine->options.timeline, &phase);
}

/* The destination's word that all of a round is in place; where nobody answers, it was kept. */
static int hear_done(struct qsc_engine *engine, struct qsc_error *err)
{
	struct qsc_frame frame;
	int result;

	if (engine->link.one_way)
		return 0;
	result = qsc_link_expect(&engine->link, QSC_FRAME_ROUND_DONE, engine->other, &frame, err);
	if (result == 0 && frame.index != engine->round)
		return qsc_error_set(err, EPROTO, NULL,
				     "the destination acknowledged another round");
	return result;
}

/* All lanes once. */
int qsc_source_send_round(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_frame frame = {
		.type = QSC_FRAME_ROUND, .index = ++engine->round, .arg = engine->last_round};
	int result = qsc_link_send(&engine->link, 0, &frame, NULL, 0);

	if (result < 0)
		return qsc_engine_lost(engine, result, err);
	result = qsc_engine_run_lanes(engine, send_lane, err);
	source->sent_us = qsc_engine_now(engine);
	record_memory(engine);
	return result < 0 ? result : hear_done(engine, err);
}
