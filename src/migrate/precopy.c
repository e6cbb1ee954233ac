/* SPDX-License-Identifier: MIT */
/*
 * The source while everything runs: passes over memory and the devices' sessions, what they tell
 * about rates and times, and the decision when to stop (predict.h).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/source.h"

/* Below this many bytes a rate says nothing: it is the time of the call and of who else ran
 * meanwhile. */
#define RATE_BYTES (64ULL << 10)

void qsc_source_predict_begin(struct source *source)
{
	const struct qsc_waves *remote = &source->engine.remote;
	const struct qsc_link_speed *speed = &source->engine.speed;
	struct qsc_predict *predict = &source->predict;
	uint32_t channels = source->engine.link.one_way ? 1 : source->engine.options.channels;
	int part;

	predict->lanes = channels > 1 ? channels - 1 : 1;
	predict->memory_shares_lane = channels == 1;

	if (remote->known) {
		qsc_time_add(&predict->part[QSC_DOWNTIME_QUIESCE], remote->quiesce_us);
		qsc_time_add(&predict->part[QSC_DOWNTIME_STOP], remote->stop_us);
		qsc_time_add(&predict->part[QSC_DOWNTIME_RUN], remote->start_us);
		/* Nobody can load before there is something to be loaded. */
		qsc_time_add(&predict->part[QSC_DOWNTIME_LOAD], remote->stop_us);
	}
	if (speed->bytes_per_second) {
		qsc_time_add(&predict->part[QSC_DOWNTIME_COMMIT], speed->rtt_us);
		qsc_rate_add(&predict->link, speed->bytes, speed->us);
	}
	/* Into a file: who reads it does the rest, some day. */
	if (source->engine.link.one_way)
		for (part = QSC_DOWNTIME_LOAD; part < QSC_DOWNTIME_PARTS; part++)
			predict->part[part].known = true;
}

int qsc_source_predict_init(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_predict *predict = &source->predict;
	uint32_t count = qsc_set_count(engine->set);
	uint32_t i;

	predict->limit_us = engine->options.downtime_limit_us;
	predict->bandwidth = engine->options.bandwidth;
	predict->no_precopy = engine->options.no_precopy;
	predict->untracked = engine->memory.cause;
	for (i = 0; i < engine->user->num_regions; i++)
		predict->memory_bytes += engine->user->regions[i].size;
	predict->num_members = count;
	predict->askers = (uint32_t)qsc_min_u64(count, QSC_PREDICT_ASKERS);
	predict->members = calloc(count, sizeof(*predict->members));
	source->members = calloc(count, sizeof(*source->members));
	source->written = calloc(count + 1U, sizeof(*source->written));
	if (!predict->members || !source->members || !source->written)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a migration");
	for (i = 0; i < count; i++)
		predict->members[i].name = qsc_set_name(engine->set, i);
	return 0;
}

void qsc_source_predict_release(struct source *source)
{
	free(source->predict.members);
	free(source->members);
	free(source->written);
}

/* ---- measuring ---- */

/* What was written again since the last time, and by whom. */
static int collect(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_predict *predict = &source->predict;
	uint64_t start = qsc_engine_now(engine);
	uint64_t since = start - source->collected_us;
	uint32_t i;
	int result = qsc_memory_collect(&engine->memory, engine->set, engine->user, source->written,
					err);

	if (result < 0)
		return result;
	predict->memory_left = qsc_memory_dirty_bytes(&engine->memory);
	/* The first time starts the user's tracking. */
	if (source->collected_us) {
		qsc_time_add(&predict->part[QSC_DOWNTIME_COLLECT], qsc_engine_now(engine) - start);
		for (i = 0; i < predict->num_members; i++)
			qsc_rate_add(&predict->members[i].dma, source->written[i], since);
		qsc_rate_add(&predict->user, source->written[i], since);
	}
	source->collected_us = start;
	return 0;
}

/* Members that are asked how much they have left, by several threads: as a wave finds them. */
struct asking {
	struct source *source;
	_Atomic(uint32_t) next;
};

static void ask_member(struct source *source, uint32_t index)
{
	struct qsc_engine *engine = &source->engine;
	const struct qsc_migrate_stream *stream = &engine->streams[index];
	struct qsc_source_member *seen = &source->members[index];
	struct qsc_source_answer *answer = &seen->answer;
	bool precopy = qsc_source_in_precopy(engine, index);
	uint64_t start;
	uint64_t none;

	*answer = (struct qsc_source_answer){.fixed = source->predict.members[index].fixed};
	/*
	 * What moves only after the stop does not change much. Before anything has moved, those who
	 * count what pre-copy moves and those who do not say the same.
	 */
	if (!seen->asked || !precopy)
		answer->result = qsc_migrate_stream_remaining(stream, false, &answer->initial,
							      &answer->dirty, &answer->fixed);
	start = qsc_engine_now(engine);
	if (answer->result == 0 && precopy)
		answer->result = qsc_migrate_stream_remaining(stream, true, &answer->initial,
							      &answer->dirty, &none);
	answer->took_us = qsc_engine_now(engine) - start;
}

static void ask_members(void *arg)
{
	struct asking *asking = arg;
	uint32_t count = asking->source->predict.num_members;
	uint32_t index;

	for (index = atomic_fetch_add(&asking->next, 1); index < count;
	     index = atomic_fetch_add(&asking->next, 1))
		ask_member(asking->source, index);
}

static void ask_all(struct source *source)
{
	const struct qsc_env *env = source->engine.env;
	struct asking asking = {.source = source};
	void *args[QSC_PREDICT_ASKERS];
	uint32_t i;

	for (i = 0; i < source->predict.askers; i++)
		args[i] = &asking;
	/* Without threads one after the other will do. */
	if (env->parallel(env->ctx, ask_members, args, source->predict.askers) < 0)
		ask_members(&asking);
}

/* What a member has said. */
static int hear_member(struct source *source, uint32_t index, uint64_t since, bool *initial,
		       struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_migrate_stream *stream = &engine->streams[index];
	struct qsc_predict_member *member = &source->predict.members[index];
	struct qsc_source_member *seen = &source->members[index];
	const struct qsc_source_answer *answer = &seen->answer;
	bool precopy = qsc_source_in_precopy(engine, index);

	if (answer->result < 0)
		return qsc_error_set(err, -answer->result, qsc_clause_id(QSC_CLAUSE_SESS_4),
				     "device '%s' does not tell how much state is left (%s)",
				     qsc_set_name(engine->set, index),
				     strerrordesc_np(-answer->result));
	if (precopy)
		qsc_time_add(&member->look, answer->took_us);
	member->left = answer->initial + answer->dirty;
	member->fixed = answer->fixed;
	/* A session that is fed faster than it is read must not hold up the pass. */
	stream->quota = member->left + QSC_FRAME_MAX_DATA;
	*initial |= answer->initial > 0;
	if (!seen->asked) {
		member->fixed -= qsc_min_u64(member->left, member->fixed);
	} else if (precopy) {
		uint64_t now = member->left + stream->bytes - seen->moved;

		qsc_rate_add(&member->dirty, now - qsc_min_u64(seen->left, now), since);
	}
	seen->asked = true;
	seen->left = member->left;
	seen->moved = stream->bytes;
	return 0;
}

/* Everything that the prediction needs to know of this moment. */
static int measure(struct source *source, bool *initial, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_predict *predict = &source->predict;
	uint64_t since = qsc_engine_now(engine) - source->collected_us;
	uint32_t i;
	int result = 0;

	*initial = false;
	if (engine->options.no_precopy)
		predict->memory_left = qsc_memory_dirty_bytes(&engine->memory);
	else
		result = collect(source, err);
	if (result == 0)
		ask_all(source);
	for (i = 0; i < predict->num_members && result == 0; i++)
		result = hear_member(source, i, since, initial, err);
	if (result < 0)
		return result;
	qsc_predict_stop(predict, &engine->report->predicted);
	engine->dirty_per_second = qsc_predict_dirty_per_second(predict);
	return 0;
}

/*
 * How long the link was at work in a round of so many microseconds. Lanes read devices beside what
 * others send, so the round may be much longer; and a device that was slow sends when the memory
 * has gone already, so the longest lane may be shorter. The message that it is over does not count.
 */
static uint64_t carried_us(const struct source *source, uint64_t round_us)
{
	const struct qsc_engine *engine = &source->engine;
	uint64_t waited = qsc_engine_now(engine) - source->sent_us;
	uint64_t longest = 0;
	uint64_t memory = 0;
	uint64_t devices = 0;
	uint32_t i;

	for (i = 0; i < engine->link.count; i++) {
		const struct qsc_lane *lane = &engine->lanes[i];
		uint64_t us = lane->memory_from_us ? lane->memory_to_us - lane->memory_from_us : 0;

		us = qsc_min_u64(us, lane->carry_us);
		longest = qsc_max_u64(longest, lane->carry_us);
		memory = qsc_max_u64(memory, us);
		devices += lane->carry_us - us;
	}
	waited -= qsc_min_u64(waited, source->predict.part[QSC_DOWNTIME_COMMIT].us);
	return qsc_max_u64(longest, qsc_min_u64(round_us, memory + devices)) + waited;
}

/* What a round tells about the link and about how fast devices give their state. */
static void learn_from_round(struct source *source, uint64_t covered, uint64_t bytes,
			     uint64_t round_us)
{
	struct qsc_predict *predict = &source->predict;
	uint32_t i;

	/* Where most of what it covered was zeroes, it tells how fast those are found. */
	if (bytes >= RATE_BYTES && bytes >= covered / 2)
		qsc_rate_add(&predict->link, bytes, carried_us(source, round_us));
	for (i = 0; i < predict->num_members; i++) {
		const struct qsc_migrate_stream *stream = &source->engine.streams[i];
		struct qsc_source_member *seen = &source->members[i];

		if (stream->bytes - seen->moved >= RATE_BYTES)
			qsc_rate_add(&predict->members[i].read, stream->bytes - seen->moved,
				     stream->read_us - seen->read_us);
		seen->read_us = stream->read_us;
	}
}

/* ---- deciding ---- */

/* What is left is known to be too much, or to be all that more passes can do. */
static int stop_or_give_up(const struct source *source, bool fits, struct qsc_error *err)
{
	const struct qsc_engine *engine = &source->engine;
	char text[QSC_ERROR_TEXT_SIZE];

	if (fits || engine->options.exceed_downtime || engine->link.one_way)
		return 0;
	qsc_predict_explain(&source->predict, &engine->report->predicted, text, sizeof(text));
	return qsc_error_set(err, ETIME, NULL, "%s", text);
}

/* Memory once from its first page to its last, and the devices' sessions beside it. */
static int send_pass(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	const struct qsc_migrate_report *report = engine->report;
	uint64_t before = report->memory_bytes + report->device_bytes;
	uint64_t covered = qsc_predict_left(&source->predict);
	int result = qsc_engine_enter(engine, "pre-copy", covered, err);
	uint64_t start = qsc_engine_now(engine);

	qsc_memory_rewind(&engine->memory);
	if (result == 0)
		result = qsc_source_send_round(source, err);
	if (result == 0)
		learn_from_round(source, covered,
				 report->memory_bytes + report->device_bytes - before,
				 source->sent_us - start);
	return result;
}

static int pass_until_it_fits(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_migrate_report *report = engine->report;

	for (;;) {
		enum qsc_predict_verdict verdict = QSC_PREDICT_CONVERGES;
		bool initial;
		int result = measure(source, &initial, err);

		if (result < 0)
			return result;
		if (report->passes)
			verdict = qsc_predict_judge(&source->predict, &report->predicted);
		/* ORD-6: initial bytes are loaded there before PRE_COPY is left. */
		if ((verdict != QSC_PREDICT_CONVERGES && !initial) ||
		    report->passes == engine->options.max_passes)
			return stop_or_give_up(source, verdict == QSC_PREDICT_FITS, err);
		report->passes++;
		result = send_pass(source, err);
		if (result < 0)
			return result;
	}
}

/* The first change of state tells how long others take, where nobody else does. */
static int start_precopy(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_time *parts = source->predict.part;
	uint64_t start = qsc_engine_now(engine);
	uint64_t us;
	uint32_t i;
	int result = qsc_set_precopy(engine->set, err);

	us = qsc_engine_now(engine) - start;
	for (i = 0; i < qsc_set_count(engine->set) && !qsc_source_in_precopy(engine, i); i++)
		;
	if (i == qsc_set_count(engine->set))
		return result;
	if (!parts[QSC_DOWNTIME_QUIESCE].known)
		qsc_time_add(&parts[QSC_DOWNTIME_QUIESCE], us);
	if (!parts[QSC_DOWNTIME_STOP].known)
		qsc_time_add(&parts[QSC_DOWNTIME_STOP], us);
	return result;
}

int qsc_source_precopy(struct source *source, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	uint64_t start = qsc_engine_now(engine);
	bool initial;
	int result;

	if (engine->options.no_precopy) {
		result = measure(source, &initial, err);
		if (result < 0)
			return result;
		return stop_or_give_up(
			source,
			qsc_predict_judge(&source->predict, &engine->report->predicted) ==
				QSC_PREDICT_FITS,
			err);
	}
	result = start_precopy(source, err);
	if (result == 0)
		result = pass_until_it_fits(source, err);
	qsc_engine_phase(engine, "precopy", QSC_TIMELINE_ALL, start,
			 engine->report->memory_bytes + engine->report->device_bytes);
	return result;
}

/* ---- what the stop took ---- */

void qsc_source_part_ends(struct source *source, enum qsc_downtime_part part)
{
	struct qsc_downtime *measured = &source->engine.report->measured;
	uint64_t now = qsc_engine_now(&source->engine);

	measured->part_us[part] += now - source->part_us;
	measured->total_us += now - source->part_us;
	source->part_us = now;
}

void qsc_source_stop_ends(struct source *source, uint64_t run_us)
{
	struct qsc_migrate_report *report = source->engine.report;
	uint64_t *parts = report->measured.part_us;

	qsc_source_part_ends(source, QSC_DOWNTIME_COMMIT);
	/* What was heard of the other side fits in what was seen of it. */
	parts[QSC_DOWNTIME_RUN] = qsc_min_u64(run_us, parts[QSC_DOWNTIME_COMMIT]);
	parts[QSC_DOWNTIME_COMMIT] -= parts[QSC_DOWNTIME_RUN];
	report->downtime_us = report->measured.total_us;
	report->prediction_error_permille = qsc_predict_error(&report->predicted,
							      &report->measured);
}
