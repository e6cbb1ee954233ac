/* SPDX-License-Identifier: MIT */
/*
 * The destination. Until COMMIT has come, nothing that was loaded may run, and any failure resets
 * the devices. Once READY is out and neither COMMIT nor the source's failure has been heard, nobody
 * here can know who owns the set, so everything stays stopped (SET-5).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/probe.h"
#include "migrate/engine.h"
#include "migrate/negotiate.h"
#include "set/set.h"

struct destination {
	struct qsc_engine engine;
	uint8_t *user_state;
	uint32_t user_size;
	bool have_user_state;
	bool touched; /* devices are, or were, in RESUMING */
	bool said_failed;
	bool ready;
	bool committed;
};

/* ---- negotiation ---- */

static int negotiate(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	uint64_t start;
	int result = qsc_negotiate_await(engine, &destination->touched, err);

	start = qsc_engine_now(engine);
	if (result == 0)
		result = qsc_engine_make_lanes(engine, err);
	if (result == 0) {
		destination->touched = true;
		result = qsc_set_resuming(engine->set, err);
	}
	if (engine->link.channels[0] && !engine->link.heard_failed)
		qsc_negotiate_answer(engine, err);
	destination->said_failed = result < 0;
	if (result == 0)
		qsc_engine_phase(engine, "negotiate", QSC_TIMELINE_ALL, start, 0);
	return result;
}

/* ---- rounds ---- */

static int receive_memory(struct qsc_lane *lane, const struct qsc_frame *frame)
{
	struct qsc_engine *engine = lane->engine;

	lane->memory_bytes += frame->size;
	return qsc_memory_receive(&engine->memory, &engine->link, lane->channel, frame);
}

/*
 * A member's frames come on one channel in a round, so its session has one writer; the channel of
 * control is not that one when there are others.
 */
static int receive_stream(struct qsc_lane *lane, const struct qsc_frame *frame)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_migrate_stream *stream;
	int result;

	if (frame->index >= qsc_set_count(engine->set) ||
	    (lane->channel == 0 && engine->link.count > 1))
		return -EPROTO;
	stream = &engine->streams[frame->index];
	if (!qsc_migrate_stream_claim(stream, lane->channel))
		return qsc_error_set(&lane->err, EPROTO, NULL,
				     "the source sends the state of device '%s' by two connections "
				     "at once",
				     qsc_set_name(engine->set, frame->index));
	if (frame->type == QSC_FRAME_DEVICE_END && !engine->last_round)
		return -EPROTO;
	lane->device_bytes += frame->size;
	if (!stream->came_us)
		stream->came_us = qsc_engine_now(engine);
	result = qsc_migrate_stream_receive(stream, &engine->link, lane->channel, frame,
					    lane->buffer, &lane->err);
	stream->placed_us = qsc_engine_now(engine);
	return result;
}

/* One frame, *moved bytes of memory or state; 1 when the lane's round has ended. */
static int receive_frame(struct qsc_lane *lane, uint64_t *moved)
{
	struct qsc_engine *engine = lane->engine;
	struct qsc_frame frame;
	int result = qsc_link_recv(&engine->link, lane->channel, &frame);

	if (result < 0)
		return result;
	*moved = frame.size;
	switch (frame.type) {
	case QSC_FRAME_PAGES:
	case QSC_FRAME_ZERO:
		return receive_memory(lane, &frame);
	case QSC_FRAME_DEVICE_DATA:
	case QSC_FRAME_DEVICE_END:
		return receive_stream(lane, &frame);
	case QSC_FRAME_ROUND_END:
		return frame.index == engine->round ? 1 : -EPROTO;
	case QSC_FRAME_FAILED:
		return lane->channel == 0 ? qsc_link_hear_failed(&engine->link, &frame,
								 engine->other, &lane->err)
					  : -EPROTO;
	default:
		return -EPROTO;
	}
}

static void receive_lane(void *arg)
{
	struct qsc_lane *lane = arg;
	uint64_t moved;
	int result;

	do {
		result = receive_frame(lane, &moved);
		if (result == 0)
			result = qsc_engine_moved(lane, moved);
	} while (result == 0);
	if (result > 0)
		return;
	/* The first to fail says why, so that the source need not send the rest. */
	if (qsc_engine_lane_failed(lane, result) && !lane->engine->link.heard_failed)
		qsc_link_send_failed(&lane->engine->link, lane->err.number, lane->err.text);
}

static void begin_round(struct qsc_engine *engine)
{
	uint32_t i;

	for (i = 0; i < qsc_set_count(engine->set); i++) {
		struct qsc_migrate_stream *stream = &engine->streams[i];

		atomic_store(&stream->writer, 0);
		stream->came_us = 0;
		stream->bytes_before = stream->bytes;
	}
}

/* The round, and what came of every member in it; what was cut short took its time, too. */
static void record_round(struct qsc_engine *engine, uint64_t start_us, uint64_t bytes)
{
	struct qsc_phase phase = {.name = engine->last_round ? "stop-copy" : "precopy"};
	uint32_t i;

	qsc_engine_phase(engine, phase.name, QSC_TIMELINE_ALL, start_us, bytes);
	for (i = 0; i < qsc_set_count(engine->set); i++) {
		const struct qsc_migrate_stream *stream = &engine->streams[i];

		if (!stream->came_us)
			continue;
		phase.member = i;
		phase.start_us = stream->came_us;
		phase.duration_us = stream->placed_us - stream->came_us;
		phase.bytes = stream->bytes - stream->bytes_before;
		qsc_timeline_add(engine->options.timeline, &phase);
	}
}

static int receive_round(struct destination *destination, const struct qsc_frame *round,
			 struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_frame done = {.type = QSC_FRAME_ROUND_DONE, .index = round->index};
	uint64_t start = qsc_engine_now(engine);
	uint64_t before = engine->report->memory_bytes + engine->report->device_bytes;
	uint32_t i;
	int result;

	if (engine->report->passes == QSC_ENGINE_MAX_ROUNDS)
		return qsc_error_set(err, EPROTO, NULL, "the source sends more than %u rounds",
				     QSC_ENGINE_MAX_ROUNDS);
	engine->round = round->index;
	engine->last_round = round->arg == 1;
	if (engine->last_round && !(engine->stop_us && destination->have_user_state))
		return qsc_error_set(err, EPROTO, NULL,
				     "the source ends before it has stopped and sent the user's "
				     "state");
	begin_round(engine);
	result = qsc_engine_run_lanes(engine, receive_lane, err);
	record_round(engine, start,
		     engine->report->memory_bytes + engine->report->device_bytes - before);
	if (result < 0) {
		destination->said_failed = atomic_load(&engine->first_failed) != NULL;
		return result;
	}
	for (i = 0; engine->last_round && i < qsc_set_count(engine->set); i++)
		if (!engine->streams[i].ended)
			return qsc_error_set(err, EPROTO, qsc_clause_id(QSC_CLAUSE_SESS_6),
					     "the stream of device '%s' has no end",
					     qsc_set_name(engine->set, i));
	(void)qsc_link_send(&engine->link, 0, &done, NULL, 0);
	if (!engine->last_round)
		engine->report->passes++;
	return 0;
}

static int receive_user_state(struct destination *destination, const struct qsc_frame *frame,
			      struct qsc_error *err)
{
	int result;

	if (destination->have_user_state)
		return qsc_error_set(err, EPROTO, NULL, "the source sent the user's state twice");
	destination->user_state = malloc(frame->size + 1U);
	if (!destination->user_state)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the user's state");
	result = qsc_link_recv_payload(&destination->engine.link, 0, frame,
				       destination->user_state);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the user's state is broken (%s)",
				     strerrordesc_np(-result));
	destination->user_size = frame->size;
	destination->have_user_state = true;
	return 0;
}

/* The next frame between rounds; those that only measure the link are answered. */
static int next_frame(struct qsc_engine *engine, struct qsc_frame *frame)
{
	uint32_t probes;
	int result = qsc_link_recv(&engine->link, 0, frame);

	for (probes = 0; result == 0 && frame->type == QSC_FRAME_PROBE; probes++) {
		if (probes == QSC_FRAME_MAX_PROBES)
			return -EPROTO;
		result = qsc_link_echo(&engine->link, frame);
		if (result == 0)
			result = qsc_link_recv(&engine->link, 0, frame);
	}
	return result;
}

/* Rounds until the last one is in place. */
static int receive_all(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	int result = 0;

	while (result == 0 && !engine->last_round) {
		struct qsc_frame frame;

		result = qsc_engine_enter(engine, engine->stop_us ? "stop-copy" : "pre-copy", 0,
					  err);
		if (result < 0)
			return result;
		result = next_frame(engine, &frame);
		if (result < 0)
			return qsc_engine_lost(engine, result, err);
		switch (frame.type) {
		case QSC_FRAME_ROUND:
			result = receive_round(destination, &frame, err);
			break;
		case QSC_FRAME_STOPPING:
			engine->stop_us = qsc_engine_now(engine);
			break;
		case QSC_FRAME_USER_STATE:
			result = receive_user_state(destination, &frame, err);
			break;
		case QSC_FRAME_FAILED:
			return qsc_link_hear_failed(&engine->link, &frame, engine->other, err);
		default:
			return qsc_error_set(err, EPROTO, NULL, "the source sent %s between rounds",
					     qsc_frame_name(frame.type));
		}
	}
	return result;
}

/* ---- taking over ---- */

static int load_user(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	const struct qsc_migrate_user *user = engine->user;
	uint64_t start = qsc_engine_now(engine);
	int result = user->load ? user->load(user->ctx, destination->user_state,
					     destination->user_size)
				: 0;

	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the user refuses the state of its other side (%s)",
				     strerrordesc_np(-result));
	qsc_engine_phase(engine, "load", QSC_TIMELINE_ALL, start, destination->user_size);
	start = qsc_engine_now(engine);
	/* ORD-2: RESUMING is left, RUNNING is not entered yet. */
	result = user->setup_irqs ? user->setup_irqs(user->ctx) : 0;
	if (result < 0)
		return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_ORD_2),
				     "the user could not set up interrupts (%s)",
				     strerrordesc_np(-result));
	qsc_engine_phase(engine, "irqs", QSC_TIMELINE_ALL, start, 0);
	return 0;
}

static int hear_commit(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_frame frame;
	int result = qsc_link_recv(&engine->link, 0, &frame);

	if (result == 0 && frame.type == QSC_FRAME_FAILED)
		return qsc_link_hear_failed(&engine->link, &frame, engine->other, err);
	if (result == 0 && frame.type != QSC_FRAME_COMMIT)
		result = -EPROTO;
	if (result < 0)
		return qsc_error_set(
			err, -result, qsc_clause_id(QSC_CLAUSE_SET_5),
			"READY was sent and neither COMMIT nor a failure of the source "
			"has come (%s)",
			strerrordesc_np(-result));
	return 0;
}

/* COMMIT has been read: this side has the set once nobody else can read it. */
static int settle(struct destination *destination, struct qsc_error *err)
{
	struct qsc_channel *ch = destination->engine.link.channels[0];
	int result = ch->ops->settle(ch, err);

	/* Whether it was taken nobody can tell, as when READY is out. */
	destination->ready = result == -ENOTRECOVERABLE;
	if (result < 0 && !err->number)
		qsc_error_set(err, -result, NULL, "what was saved could not be taken over (%s)",
			      strerrordesc_np(-result));
	if (destination->ready)
		err->clause = qsc_clause_id(QSC_CLAUSE_SET_5);
	return result;
}

/* ORD-5: every stream is validated here before the source gives up its copy. */
static int get_ready(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_frame frame = {.type = QSC_FRAME_READY};
	int result = qsc_engine_enter(engine, "validate", 0, err);

	if (result == 0)
		result = qsc_set_stop(engine->set, err);
	if (result == 0)
		result = load_user(destination, err);
	if (result == 0)
		result = qsc_engine_enter(engine, "commit", 0, err);
	if (result < 0)
		return result;
	/* From here on the source decides, and its limit counts. */
	qsc_link_set_watch(&engine->link, NULL);
	qsc_link_set_limits(&engine->link, engine->options.stall_timeout_ms, 0);
	QSC_PROBE(migrate__handover, engine->other, "send READY");
	destination->ready = !destination->engine.link.kept;
	/* It may have arrived also when this fails, so it counts as sent. */
	(void)qsc_link_send(&engine->link, 0, &frame, NULL, 0);
	qsc_link_limit_answer(&engine->link);
	result = hear_commit(destination, err);
	qsc_link_set_limits(&engine->link, engine->options.stall_timeout_ms, 0);
	if (result == 0)
		QSC_PROBE(migrate__handover, engine->other, "heard COMMIT");
	if (result == 0 && destination->engine.link.kept)
		result = settle(destination, err);
	destination->committed = result == 0;
	return result;
}

static int take_over(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_frame frame = {.type = QSC_FRAME_RUNNING};
	int result;

	uint64_t start = qsc_engine_now(engine);

	engine->phase = "run";
	result = qsc_set_run(engine->set, err);
	if (result == 0 && engine->user->resume) {
		result = engine->user->resume(engine->user->ctx);
		if (result < 0)
			qsc_error_set(err, -result, NULL, "the user failed in resume() (%s)",
				      strerrordesc_np(-result));
	}
	if (result < 0)
		return result;
	QSC_PROBE(migrate__handover, engine->other, "send RUNNING");
	engine->report->owner = QSC_OWNER_DESTINATION;
	engine->report->downtime_us = qsc_engine_now(engine) - engine->stop_us;
	frame.offset = qsc_engine_now(engine) - start;
	result = qsc_link_send(&engine->link, 0, &frame, NULL, 0);
	(void)snprintf(engine->report->outcome, sizeof(engine->report->outcome),
		       "the destination runs%s",
		       result < 0 && !destination->engine.link.kept
			       ? "; the source could not be told, it stays stopped and may be "
				 "closed"
			       : "");
	return 0;
}

/* ---- when it fails ---- */

/* Who has the set, as far as anybody was met who could. */
static const char *say_who_has_it(const struct qsc_link *link)
{
	if (link->kept)
		return "the set was not restored, and what was saved still has it";
	if (link->channels[0])
		return "the migration failed and the source keeps the set";
	return "nothing was taken over, and whoever has the set keeps it";
}

/* Nothing of what was loaded may stay, let alone run (SESS-7, ORD-9). */
static void give_up(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_error why = QSC_ERROR_NONE;
	const char *here = "nothing here was touched";
	int result = 0;

	/* What stopped in time must also be told in time. */
	qsc_link_set_watch(&engine->link, NULL);
	qsc_link_limit_last_words(&engine->link, 0);
	if (engine->link.count && !destination->said_failed && !engine->link.heard_failed)
		qsc_link_send_failed(&engine->link, err->number, err->text);
	if (destination->touched) {
		result = qsc_set_reset(engine->set, &why);
		here = result < 0 ? "nothing loaded here runs, but close all devices: "
				  : "nothing loaded here runs: the devices have been reset";
	}
	engine->report->owner = QSC_OWNER_SOURCE;
	(void)snprintf(engine->report->outcome, sizeof(engine->report->outcome), "%s; %s%.250s",
		       say_who_has_it(&engine->link), here, result < 0 ? why.text : "");
}

/* COMMIT has come, so the source never runs again; and this side could not start. */
static void stay_stopped_after_commit(struct destination *destination, struct qsc_error *err)
{
	struct qsc_engine *engine = &destination->engine;
	struct qsc_error why = QSC_ERROR_NONE;
	int result = qsc_set_stop(engine->set, &why);

	err->clause = err->clause ? err->clause : qsc_clause_id(QSC_CLAUSE_ORD_8);
	qsc_link_send_failed(&engine->link, err->number, err->text);
	engine->report->owner = QSC_OWNER_UNPROVED;
	(void)snprintf(
		engine->report->outcome, sizeof(engine->report->outcome),
		"the source gave the set up and it failed to start here: nothing was reset%s"
		"%s%.250s",
		destination->engine.link.kept
			? "; mend the device and run this set, what was saved counts as used"
			: ", and the source is stopped; mend the device and run this set, or "
			  "take the source's",
		result < 0 ? "; not all could be stopped: " : "", result < 0 ? why.text : "");
}

static void stay_stopped_unproved(struct destination *destination)
{
	struct qsc_migrate_report *report = destination->engine.report;

	report->owner = QSC_OWNER_UNPROVED;
	(void)snprintf(
		report->outcome, sizeof(report->outcome), "%s",
		destination->engine.link.kept
			? "everything is loaded and stopped here, and there is no proof that "
			  "nobody else can restore what was saved: look at it; if it is still "
			  "there reset these devices, else run them"
			: "everything is loaded and stopped here, and there is no proof that "
			  "the source gave the set up (COMMIT): look at the source; if it "
			  "runs reset these devices, else run them");
}

static int migrate(struct destination *destination, struct qsc_error *err)
{
	int result = negotiate(destination, err);

	if (result == 0)
		result = receive_all(destination, err);
	if (result == 0)
		result = get_ready(destination, err);
	return result < 0 ? result : take_over(destination, err);
}

int qsc_migrate_receive(struct qsc_set *set, const struct qsc_migrate_user *user,
			struct qsc_transport *transport, const struct qsc_migrate_options *options,
			struct qsc_migrate_report *report, struct qsc_error *err)
{
	struct destination destination = {0};
	struct qsc_migrate_report unused_report;
	struct qsc_error unused_err;
	int result;

	report = report ? report : &unused_report;
	err = err ? err : &unused_err;
	*report = (struct qsc_migrate_report){.owner = QSC_OWNER_SOURCE};
	*err = (struct qsc_error)QSC_ERROR_NONE;
	result = qsc_engine_init(&destination.engine, set, user, transport, options, report, err);
	destination.engine.other = "source";
	if (result == 0)
		result = migrate(&destination, err);
	/* A wait that the limit ended says so, and not how; nor that somebody left after it. */
	if (qsc_engine_is_over(&destination.engine, result, err))
		result = -err->number;
	if (result == -ECANCELED)
		(void)qsc_engine_check_cancel(&destination.engine, err);
	if (result < 0 && destination.committed)
		stay_stopped_after_commit(&destination, err);
	else if (result < 0 && destination.ready && !destination.engine.link.heard_failed)
		stay_stopped_unproved(&destination);
	else if (result < 0)
		give_up(&destination, err);
	qsc_engine_release(&destination.engine);
	free(destination.user_state);
	return result;
}
