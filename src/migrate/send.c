/* SPDX-License-Identifier: MIT */
/*
 * The source. Everything before COMMIT can be taken back: the devices run again, the logs stop, the
 * user goes on. From COMMIT on this side never runs again (SET-5).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/probe.h"
#include "migrate/negotiate.h"
#include "migrate/source.h"

/* ---- negotiation: nothing changes yet ---- */

/* ORD-4: by what the devices say. `why` ends the sentence about one in another state. */
static int check_running(const struct qsc_engine *engine, const char *why, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < qsc_set_count(engine->set); i++) {
		enum qsc_state state;
		int result = qsc_device_get_state(qsc_set_device(engine->set, i), &state);

		if (result < 0)
			return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_STATE_4),
					     "device '%s' does not tell its state (%s)",
					     qsc_set_name(engine->set, i),
					     strerrordesc_np(-result));
		if (state != QSC_STATE_RUNNING)
			return qsc_error_set(err, EBUSY, NULL, "device '%s' is in %s%s",
					     qsc_set_name(engine->set, i), qsc_state_name(state),
					     why);
	}
	return 0;
}

static int negotiate(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	uint64_t start = qsc_engine_now(engine);
	int result = qsc_engine_enter(engine, "negotiate", 0, err);

	if (result == 0)
		result = check_running(engine, "; a migration begins with every device in RUNNING",
				       err);
	if (result == 0)
		result = qsc_set_plan(engine->set, engine->options.quiesce, NULL, err);
	if (result == 0)
		result = qsc_link_connect(&engine->link, engine->transport,
					  engine->options.channels, err);
	if (result == 0)
		result = qsc_engine_make_lanes(engine, err);
	if (result == 0)
		result = qsc_negotiate_offer(engine, false, err);
	if (result == 0)
		qsc_engine_phase(engine, "negotiate", QSC_TIMELINE_ALL, start, 0);
	return result;
}

static int start_logs(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	const struct qsc_migrate_user *user = engine->user;
	qsc_autofree struct qsc_dma_range *ranges = calloc(user->num_regions + 1U, sizeof(*ranges));
	uint64_t start = qsc_engine_now(engine);
	uint32_t i;

	if (!ranges)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the dirty logs");
	for (i = 0; i < user->num_regions; i++)
		ranges[i] = (struct qsc_dma_range){user->regions[i].address, user->regions[i].size};
	for (i = 0; i < qsc_set_count(engine->set) && user->num_regions; i++) {
		uint64_t page_size = QSC_PAGE_SIZE;
		uint64_t begin = qsc_engine_now(engine);
		int result;

		if (!qsc_set_has_dirty_log(engine->set, i))
			continue;
		result = qsc_device_log_start(qsc_set_device(engine->set, i), &page_size, ranges,
					      user->num_regions);
		if (result < 0)
			return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_LOG_3),
					     "device '%s' did not start its dirty log (%s)",
					     qsc_set_name(engine->set, i),
					     strerrordesc_np(-result));
		source->logging[i] = true;
		qsc_engine_phase(engine, "log-start", i, begin, 0);
	}
	qsc_engine_phase(engine, "log-start", QSC_TIMELINE_ALL, start, 0);
	return 0;
}

/* ---- switchover ---- */

static int call_user(struct qsc_engine *engine, const char *name, int (*callback)(void *ctx),
		     struct qsc_error *err)
{
	uint64_t start = qsc_engine_now(engine);
	int result = callback ? callback(engine->user->ctx) : 0;

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the user failed in %s() (%s)", name,
				     strerrordesc_np(-result));
	if (callback)
		qsc_engine_phase(engine, name, QSC_TIMELINE_ALL, start, 0);
	return 0;
}

static int stop_everything(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_frame frame = {.type = QSC_FRAME_STOPPING};
	int result = qsc_engine_enter(engine, "stop", 0, err);

	if (result < 0)
		return result;
	engine->stop_us = qsc_engine_now(engine);
	source->part_us = engine->stop_us;
	/* A failed send shows in the round that follows. */
	(void)qsc_link_send(&engine->link, 0, &frame, NULL, 0);
	result = call_user(engine, "pause", engine->user->pause, err);
	source->paused = result == 0;
	qsc_source_part_ends(source, QSC_DOWNTIME_PAUSE);
	if (result == 0)
		result = qsc_set_quiesce(engine->set, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_QUIESCE);
	if (result == 0)
		result = qsc_set_stop_copy(engine->set, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_STOP);
	if (result == 0)
		result = call_user(engine, "stopped", engine->user->stopped, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_PAUSE);
	return result;
}

static int send_user_state(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_frame frame = {.type = QSC_FRAME_USER_STATE};
	uint64_t start = qsc_engine_now(engine);
	/* The lane's buffer is free between rounds. */
	uint8_t *buffer = engine->lanes[0].buffer;
	ssize_t size = 0;
	int result;

	if (engine->user->save)
		size = engine->user->save(engine->user->ctx, buffer, QSC_FRAME_MAX_USER);
	if (size > (ssize_t)QSC_FRAME_MAX_USER)
		size = -E2BIG;
	if (size < 0)
		return qsc_error_set(err, (int)-size, NULL, "the user failed in save() (%s)",
				     strerrordesc_np((int)-size));
	result = qsc_link_send(&engine->link, 0, &frame, buffer, (uint32_t)size);
	if (result < 0)
		return qsc_engine_lost(engine, result, err);
	qsc_engine_phase(engine, "user-state", QSC_TIMELINE_ALL, start, (uint64_t)size);
	return 0;
}

/* What the destination's own timeline shows as load, validate and irqs. */
static int await_ready(struct qsc_engine *engine, struct qsc_error *err)
{
	uint64_t start = qsc_engine_now(engine);
	struct qsc_frame frame;
	int result = qsc_engine_enter(engine, "load", 0, err);

	if (result < 0)
		return result;
	qsc_link_limit_answer(&engine->link);
	result = qsc_link_expect(&engine->link, QSC_FRAME_READY, engine->other, &frame, err);
	qsc_link_set_limits(&engine->link, engine->link.stall_ms, engine->link.deadline_us);
	qsc_engine_phase(engine, "load", QSC_TIMELINE_ALL, start, 0);
	return result;
}

static int switch_over(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	int result = stop_everything(source, err);

	if (result == 0)
		result = qsc_engine_enter(engine, "stop-copy",
					  qsc_memory_dirty_bytes(&engine->memory), err);
	if (result == 0)
		result = send_user_state(source, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_TRANSFER);
	/* After stopped() and save(), which may have written. */
	if (result == 0)
		result = qsc_memory_collect(&engine->memory, engine->set, engine->user, NULL, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_COLLECT);
	if (result < 0)
		return result;
	if (engine->memory.cause)
		qsc_memory_mark_all(&engine->memory);
	qsc_memory_rewind(&engine->memory);
	engine->last_round = true;
	result = qsc_source_send_round(source, err);
	qsc_source_part_ends(source, QSC_DOWNTIME_TRANSFER);
	if (result == 0 && !engine->link.one_way) {
		result = await_ready(engine, err);
		qsc_source_part_ends(source, QSC_DOWNTIME_LOAD);
		if (result == 0)
			QSC_PROBE(migrate__handover, engine->other, "heard READY");
	}
	return result < 0 ? result : qsc_engine_enter(engine, "commit", 0, err);
}

/* From here on this side never runs again, whatever comes. */
static int commit(struct source *source, uint64_t *run_us, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_frame frame = {.type = QSC_FRAME_COMMIT};
	int result;

	source->committed = true;
	/* No time is too long any more, and nothing is cancelled; but silence is too much. */
	qsc_link_set_watch(&engine->link, NULL);
	qsc_link_set_limits(&engine->link, engine->options.stall_timeout_ms, 0);
	QSC_PROBE(migrate__handover, engine->other, "send COMMIT");
	result = qsc_link_send(&engine->link, 0, &frame, NULL, 0);
	if (result < 0)
		return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_SET_5),
				     "COMMIT may not have reached the destination (%s)",
				     strerrordesc_np(-result));
	qsc_link_limit_answer(&engine->link);
	result = qsc_link_expect(&engine->link, QSC_FRAME_RUNNING, engine->other, &frame, err);
	if (result < 0)
		err->clause = qsc_clause_id(QSC_CLAUSE_SET_5);
	*run_us = frame.offset;
	return result;
}

/* Nobody answers: what was kept has the set as soon as it is final, and not before. */
static int settle(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_channel *ch = engine->link.channels[0];
	struct qsc_frame frame = {.type = QSC_FRAME_COMMIT};
	int result;

	qsc_link_set_watch(&engine->link, NULL);
	result = qsc_link_send(&engine->link, 0, &frame, NULL, 0);
	if (result < 0)
		return qsc_engine_lost(engine, result, err);
	result = ch->ops->settle(ch, err);
	source->committed = result == 0 || result == -ENOTRECOVERABLE;
	if (result < 0 && !err->number)
		qsc_error_set(err, -result, NULL, "what was saved could not be made final (%s)",
			      strerrordesc_np(-result));
	if (result == -ENOTRECOVERABLE)
		err->clause = qsc_clause_id(QSC_CLAUSE_SET_5);
	return result;
}

static int hand_over(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	uint64_t start = qsc_engine_now(engine);
	uint64_t run_us = 0;
	int result = engine->link.one_way ? settle(source, err) : commit(source, &run_us, err);

	qsc_engine_phase(engine, "commit", QSC_TIMELINE_ALL, start, 0);
	if (source->committed)
		engine->report->owner = QSC_OWNER_UNPROVED;
	if (result < 0)
		return result;
	QSC_PROBE(migrate__handover, engine->other, "heard RUNNING");
	engine->report->owner = QSC_OWNER_DESTINATION;
	qsc_source_stop_ends(source, run_us);
	return 0;
}

/* ---- after it ---- */

static void stop_logs(struct source *source)
{
	struct qsc_engine *engine = &source->engine;
	uint32_t i;

	for (i = 0; source->logging && i < qsc_set_count(engine->set); i++)
		if (source->logging[i])
			(void)qsc_device_log_stop(qsc_set_device(engine->set, i));
}

/* Everything is as it was; a device that does not run was so before, or failed by itself since. */
static void say_what_runs(struct source *source)
{
	struct qsc_migrate_report *report = source->engine.report;
	struct qsc_error why = QSC_ERROR_NONE;

	if (check_running(&source->engine, "", &why) == 0)
		(void)snprintf(report->outcome, sizeof(report->outcome),
			       "the migration failed and changed nothing: the source's devices "
			       "run; mend the cause and try again");
	else
		(void)snprintf(report->outcome, sizeof(report->outcome),
			       "the migration failed and changed nothing, and not all of the "
			       "source's devices run: %.250s; mend that device and try again",
			       why.text);
}

/* Everything runs as before, or it is said which device does not. */
static void roll_back(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_migrate_report *report = engine->report;
	struct qsc_error why = QSC_ERROR_NONE;
	struct qsc_error first;
	uint64_t start = qsc_engine_now(engine);
	int result;

	/* What stopped in time must also be told in time. */
	qsc_link_set_watch(&engine->link, NULL);
	qsc_link_limit_last_words(&engine->link, 0);
	if (engine->link.count && !engine->link.heard_failed && !engine->link.one_way)
		qsc_link_send_failed(&engine->link, err->number, err->text);
	report->owner = QSC_OWNER_SOURCE;
	if (!source->touched) {
		say_what_runs(source);
		return;
	}
	result = qsc_set_run(engine->set, &why);
	stop_logs(source);
	if (result == 0)
		result = check_running(engine, "", &why);
	if (result == 0 && source->paused)
		result = call_user(engine, "resume", engine->user->resume, &why);
	if (engine->stop_us)
		report->downtime_us = qsc_engine_now(engine) - engine->stop_us;
	if (source->paused)
		qsc_engine_phase(engine, "roll-back", QSC_TIMELINE_ALL, start, 0);
	if (result == 0) {
		say_what_runs(source);
		return;
	}
	(void)snprintf(report->outcome, sizeof(report->outcome),
		       "the migration failed and the source, which still owns the set, could not "
		       "be brought back%s: see the error, mend that device, then run the set",
		       source->paused ? "; it stays stopped" : "");
	first = *err;
	qsc_error_set(err, first.number, why.clause ? why.clause : first.clause,
		      "%.240s; and going back failed: %.240s", first.text, why.text);
}

static void finish(struct source *source)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_error why = QSC_ERROR_NONE;
	int result = qsc_set_stop(engine->set, &why);

	stop_logs(source);
	(void)snprintf(engine->report->outcome, sizeof(engine->report->outcome),
		       "%s; the source's devices are stopped and may be closed%s%.250s",
		       engine->link.one_way ? "what was saved has the set and can be restored once"
					    : "the destination runs",
		       result < 0 ? ", though " : "", result < 0 ? why.text : "");
}

static void explain_unproved(struct source *source)
{
	struct qsc_migrate_report *report = source->engine.report;

	stop_logs(source);
	(void)snprintf(
		report->outcome, sizeof(report->outcome), "%s",
		source->engine.link.one_way
			? "there is no proof that what was saved is whole or is not: nothing "
			  "runs here, state is kept in STOP_COPY; look whether it can be "
			  "restored before anything is started"
			: "the source gave the set up (COMMIT) and has no proof that the "
			  "destination runs: nothing runs here, state is kept in STOP_COPY; "
			  "look at the destination before anything is started");
}

/* What a lost connection hides: the reason that the destination may have sent before. */
static void hear_last_words(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_frame frame;
	int i;

	if (!engine->link.channels[0] || engine->link.one_way || engine->link.heard_failed)
		return;
	qsc_link_set_watch(&engine->link, NULL);
	qsc_link_limit_last_words(&engine->link, engine->link.deadline_us);
	/* At most the acknowledgement of a round stands before it. */
	for (i = 0; i < 2 && qsc_link_recv(&engine->link, 0, &frame) == 0; i++)
		if (frame.type == QSC_FRAME_FAILED) {
			(void)qsc_link_hear_failed(&engine->link, &frame, engine->other, err);
			return;
		}
}

/* The sentence that tells most about why it failed before COMMIT. */
static int explain(struct source *source, int result, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;

	/* A wait that the limit ended says so, and not how; nor that somebody left after it. */
	if (qsc_engine_is_over(engine, result, err))
		return -err->number;
	if (result == -ECANCELED && qsc_engine_check_cancel(engine, err) < 0)
		return result;
	if (engine->lost)
		hear_last_words(source, err);
	return -err->number;
}

static int migrate(struct source *source, struct qsc_error *err)
{
	int result;

	qsc_engine_start_clock(&source->engine);
	result = negotiate(source, err);
	source->touched = result == 0;
	if (result == 0)
		result = qsc_source_predict_init(source, err);
	if (result == 0)
		qsc_source_predict_begin(source);
	if (result == 0)
		result = start_logs(source, err);
	if (result == 0)
		result = qsc_source_precopy(source, err);
	if (result == 0)
		result = switch_over(source, err);
	return result < 0 ? result : hand_over(source, err);
}

int qsc_migrate_send(struct qsc_set *set, const struct qsc_migrate_user *user,
		     struct qsc_transport *transport, const struct qsc_migrate_options *options,
		     struct qsc_migrate_report *report, struct qsc_error *err)
{
	struct source source = {0};
	struct qsc_migrate_report unused_report;
	struct qsc_error unused_err;
	int result;

	report = report ? report : &unused_report;
	err = err ? err : &unused_err;
	*report = (struct qsc_migrate_report){.owner = QSC_OWNER_SOURCE};
	*err = (struct qsc_error)QSC_ERROR_NONE;
	result = qsc_engine_init(&source.engine, set, user, transport, options, report, err);
	source.engine.other = "destination";
	source.logging = calloc(qsc_set_count(set) + 1U, sizeof(*source.logging));
	if (result == 0 && !source.logging)
		result = qsc_error_set(err, ENOMEM, NULL, "no memory for a migration");
	if (result < 0) {
		say_what_runs(&source);
		goto out;
	}
	result = migrate(&source, err);
	if (result < 0 && !source.committed)
		result = explain(&source, result, err);
	if (result == 0)
		finish(&source);
	else if (source.committed)
		explain_unproved(&source);
	else
		roll_back(&source, err);
out:
	qsc_source_predict_release(&source);
	qsc_engine_release(&source.engine);
	free(source.logging);
	return result;
}
