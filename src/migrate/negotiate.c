/* SPDX-License-Identifier: MIT */
/* See negotiate.h. */
#include "migrate/negotiate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/shape.h"
#include "set/set.h"

#define MAX_WAVE_US 3600000000ULL /* no set takes longer than an hour; what says so is wrong */
/* Neither whoever only asks nor one that offers nothing must keep the source away. */
#define ASKING_MS   5000U
#define OFFERING_MS 8000U
/* Where one after the other takes longer than HURRY_MS, from the third on: a source waits. */
#define PATIENT_WITH 2U
#define HURRY_MS     300U
#define ROW_US	     100000U /* who comes later than that after the one before is no row */

/* ---- source ---- */

int qsc_negotiate_encode(const struct qsc_set *set, const struct qsc_migrate_user *user,
			 uint8_t **bytes, size_t *size, struct qsc_error *err)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *encoded = NULL;
	struct qsc_items out = {.size = 0};
	size_t begin;
	int result = qsc_shape_describe(&shape, set, user, err);

	if (result < 0)
		return result;
	result = qsc_shape_encode(&shape, &encoded, size);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no memory to describe the set");
	begin = qsc_items_begin(&out, QSC_OFFER_SHAPE);
	qsc_items_put(&out, encoded, *size);
	qsc_items_end(&out, begin);
	qsc_items_put_text(&out, QSC_OFFER_SOFTWARE, qsc_version());
	*bytes = out.bytes;
	*size = out.size;
	if (!out.failed && out.size <= QSC_FRAME_MAX_OFFER)
		return 0;
	free(out.bytes);
	return qsc_error_set(err, out.failed ? ENOMEM : E2BIG, NULL,
			     "the description of the set takes more than there is room for");
}

/* Of the answer's items those that are known; each counts once and is as long as it has to be. */
static int read_waves(struct qsc_waves *waves, const uint8_t *bytes, size_t size)
{
	struct qsc_items_reader in = {.at = bytes, .left = size};
	struct qsc_items_reader item;
	uint64_t *value;
	uint16_t tag;

	while (qsc_items_next(&in, &tag, &item)) {
		value = tag == QSC_ANSWER_QUIESCE_US ? &waves->quiesce_us
			: tag == QSC_ANSWER_STOP_US  ? &waves->stop_us
			: tag == QSC_ANSWER_START_US ? &waves->start_us
						     : NULL;
		if (!value && tag & QSC_ITEM_OPTIONAL)
			continue;
		if (!value)
			return -EPROTO;
		*value = qsc_items_get_u64(&item);
		if (!qsc_items_done(&item) || *value > MAX_WAVE_US)
			return -EPROTO;
	}
	waves->known = !in.bad && size;
	return in.bad ? -EPROTO : 0;
}

static int hear_answer(struct qsc_engine *engine, struct qsc_error *err)
{
	struct qsc_link *link = &engine->link;
	char text[QSC_ERROR_TEXT_SIZE];
	uint8_t bytes[QSC_FRAME_MAX_TEXT];
	struct qsc_frame frame;
	int result = qsc_link_expect(link, QSC_FRAME_ANSWER, engine->other, &frame, err);

	if (result < 0)
		return result;
	link->version = frame.index;
	result = qsc_link_check_version(link, engine->other, err);
	if (result < 0)
		return result;
	qsc_link_limit_answer(link);
	if (!frame.arg) {
		result = qsc_link_recv_payload(link, 0, &frame, bytes);
		if (result == 0)
			result = read_waves(&engine->remote, bytes, frame.size);
	} else {
		result = qsc_link_recv_text(link, &frame, text);
	}
	qsc_link_set_limits(link, link->stall_ms, link->deadline_us);
	if (result == 0 && !frame.arg)
		return 0;
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the destination's answer is broken (%s)",
				     strerrordesc_np(-result));
	link->heard_failed = true;
	return qsc_error_set(err, qsc_link_errno(frame.arg), NULL,
			     "the destination refuses the set: %s", text);
}

int qsc_negotiate_offer(struct qsc_engine *engine, bool asking, struct qsc_error *err)
{
	struct qsc_frame frame = {.type = QSC_FRAME_OFFER, .arg = asking};
	qsc_autofree uint8_t *bytes = NULL;
	size_t size = 0;
	int result = qsc_negotiate_encode(engine->set, engine->user, &bytes, &size, err);

	if (result < 0)
		return result;
	result = qsc_link_send(&engine->link, 0, &frame, bytes, (uint32_t)size);
	if (engine->link.one_way)
		return result < 0 ? qsc_error_set(err, -result, NULL,
						  "the description of the set could not be "
						  "written (%s)",
						  strerrordesc_np(-result))
				  : 0;
	/* A failed send shows as a missing answer, or the answer says why. */
	result = hear_answer(engine, err);
	return result < 0 ? result
			  : qsc_link_measure(&engine->link, engine->other, &engine->speed, err);
}

/* ---- destination ---- */

/* Who came. */
struct candidate {
	bool asking;
	bool offered; /* a set that can be compared, or there is nobody else to wait for */
	bool fits;    /* and it does */
	bool broken;  /* this side cannot compare any, nor could it with who comes next */
	struct qsc_error refused;
};

static int step_wait(void *ctx, struct qsc_error *err)
{
	return qsc_engine_enter(ctx, "negotiate", 0, err);
}

static int compare(struct qsc_engine *engine, const struct qsc_items_reader *offered,
		   struct candidate *candidate)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape theirs = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape ours = QSC_SHAPE_NONE;
	char text[QSC_ERROR_TEXT_SIZE - 256]; /* and what is said around it, on both sides */
	struct qsc_error *err = &candidate->refused;
	unsigned int differences;
	int result = qsc_shape_decode(&theirs, offered->at, offered->left);

	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the source's description of its set cannot be read (%s)",
				     strerrordesc_np(-result));
	candidate->offered = true;
	result = qsc_shape_describe(&ours, engine->set, engine->user, err);
	candidate->broken = result < 0;
	if (result < 0)
		return result;
	differences = qsc_shape_compare(&ours, &theirs, text, sizeof(text));
	if (differences)
		return qsc_error_set(err, EMEDIUMTYPE, qsc_clause_id(QSC_CLAUSE_SESS_11),
				     "%u difference%s between the source's set and the "
				     "destination's: %s",
				     differences, differences == 1 ? "" : "s", text);
	candidate->fits = true;
	return 0;
}

static int read_offer(struct qsc_engine *engine, const uint8_t *bytes, size_t size,
		      struct candidate *candidate)
{
	struct qsc_items_reader in = {.at = bytes, .left = size};
	struct qsc_items_reader shape = {.at = NULL};
	struct qsc_items_reader item;
	char software[64] = "";
	char *at;
	uint16_t tag;

	while (qsc_items_next(&in, &tag, &item)) {
		if (tag == QSC_OFFER_SHAPE && !shape.at)
			shape = item;
		else if (tag == QSC_OFFER_SOFTWARE)
			qsc_items_get_text(&item, software, sizeof(software));
		else if (!(tag & QSC_ITEM_OPTIONAL))
			in.bad = true;
	}
	if (in.bad || !shape.at)
		return qsc_error_set(&candidate->refused, EPROTO, NULL,
				     "the source's offer does not describe a set");
	/* Nothing that a terminal might act on goes into the log. */
	for (at = software; *at; at++)
		*at = (char)(*at >= ' ' && *at < 0x7f ? *at : '?');
	qsc_log(QSC_LOG_INFO, "a source (version '%s', protocol %u.%u) offers its set", software,
		engine->link.version >> 16, engine->link.version & 0xffffU);
	return compare(engine, &shape, candidate);
}

static int hear_offer(struct qsc_engine *engine, struct candidate *candidate)
{
	struct qsc_link *link = &engine->link;
	struct qsc_error *err = &candidate->refused;
	qsc_autofree uint8_t *bytes = NULL;
	struct qsc_frame frame;
	int result = qsc_link_expect(link, QSC_FRAME_OFFER, engine->other, &frame, err);

	if (result < 0)
		return result;
	bytes = malloc(frame.size + 1U);
	if (!bytes)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the source's offer");
	result = qsc_link_recv_payload(link, 0, &frame, bytes);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the source's offer is broken (%s)",
				     strerrordesc_np(-result));
	candidate->asking = frame.arg == 1 && !link->kept;
	result = read_offer(engine, bytes, frame.size, candidate);
	return result < 0 ? result : qsc_set_plan(engine->set, engine->options.quiesce, NULL, err);
}

static int take_waves(struct qsc_engine *engine, struct qsc_waves *waves, struct qsc_error *err)
{
	uint64_t start = qsc_engine_now(engine);
	uint64_t quiet;
	uint64_t stopped;
	int result = qsc_set_quiesce(engine->set, err);

	if (result < 0)
		return result;
	quiet = qsc_engine_now(engine);
	result = qsc_set_stop(engine->set, err);
	if (result < 0)
		return result;
	stopped = qsc_engine_now(engine);
	result = qsc_set_run(engine->set, err);
	if (result < 0)
		return result;
	*waves = (struct qsc_waves){
		.known = true,
		.quiesce_us = quiet - start,
		.stop_us = stopped - quiet,
		.start_us = qsc_engine_now(engine) - stopped,
	};
	return 0;
}

/*
 * What the waves cost here, so that a source can tell how long the stop will be. In the timeline it
 * is one phase: these waves move nothing and belong to no hand-over.
 */
static int measure_waves(struct qsc_engine *engine, struct qsc_error *err)
{
	struct qsc_timeline *timeline = engine->set->timeline;
	uint64_t start = qsc_engine_now(engine);
	int result;

	engine->set->timeline = NULL;
	result = take_waves(engine, &engine->remote, err);
	engine->set->timeline = timeline;
	qsc_engine_phase(engine, "measure", QSC_TIMELINE_ALL, start, 0);
	return result;
}

static void put_time(struct qsc_items *items, uint16_t tag, uint64_t us)
{
	size_t begin = qsc_items_begin(items, tag);

	qsc_items_put_u64(items, us);
	qsc_items_end(items, begin);
}

void qsc_negotiate_answer(struct qsc_engine *engine, const struct qsc_error *refused)
{
	const struct qsc_waves *waves = &engine->remote;
	struct qsc_items items = {.size = 0};
	struct qsc_frame frame = {
		.type = QSC_FRAME_ANSWER,
		.index = QSC_FRAME_VERSION,
		.arg = (uint32_t)refused->number,
	};

	/* When a send fails, receiving what comes next says why. */
	if (refused->number) {
		size_t size = strlen(refused->text);

		(void)qsc_link_send(&engine->link, 0, &frame, refused->text,
				    (uint32_t)qsc_min_u64(size, QSC_FRAME_MAX_TEXT));
		return;
	}
	put_time(&items, QSC_ANSWER_QUIESCE_US, waves->quiesce_us);
	put_time(&items, QSC_ANSWER_STOP_US, waves->stop_us);
	put_time(&items, QSC_ANSWER_START_US, waves->start_us);
	/* Without memory it goes without them. */
	(void)qsc_link_send(&engine->link, 0, &frame, items.bytes,
			    items.failed ? 0 : (uint32_t)items.size);
	free(items.bytes);
}

/* Those who came one right after the other and were dismissed. */
struct row {
	uint32_t slow; /* how many of them have kept this side waiting */
	uint64_t begin_us;
	uint64_t end_us;
};

/* Until it has offered a set a candidate has a time of its own. */
static void limit(struct qsc_engine *engine, const struct row *row, uint32_t ms)
{
	ms = row->slow < PATIENT_WITH ? ms : HURRY_MS;
	ms = (uint32_t)qsc_min_u64(ms, engine->options.stall_timeout_ms);
	qsc_link_set_limits(&engine->link, ms, qsc_engine_now(engine) + ms * 1000ULL);
}

/* Whoever only asked may measure the link. */
static void serve_asker(struct qsc_engine *engine, const struct row *row,
			const struct qsc_error *refused)
{
	struct qsc_link *link = &engine->link;
	struct qsc_frame frame;

	limit(engine, row, ASKING_MS);
	qsc_negotiate_answer(engine, refused);
	while (qsc_link_recv(link, 0, &frame) == 0 && frame.type == QSC_FRAME_PROBE)
		if (qsc_link_echo(link, &frame) < 0)
			break;
}

static void dismiss(struct qsc_engine *engine, struct row *row, const struct candidate *candidate)
{
	if (candidate->asking) {
		serve_asker(engine, row, &candidate->refused);
	} else {
		qsc_log(QSC_LOG_WARNING, "dropped a source: %s", candidate->refused.text);
		if (!engine->link.heard_failed)
			qsc_negotiate_answer(engine, &candidate->refused);
	}
	/* The limits were the candidate's: nothing of them counts while the wait goes on. */
	qsc_link_close(&engine->link);
	qsc_link_set_limits(&engine->link, engine->options.stall_timeout_ms, 0);
	row->end_us = qsc_engine_now(engine);
	if (row->end_us - row->begin_us >= HURRY_MS * 1000ULL)
		row->slow++;
}

/* Whether nobody else is to be waited for. */
static bool ends_wait(const struct qsc_engine *engine, const struct candidate *candidate)
{
	if (engine->link.kept || candidate->broken)
		return true;
	return candidate->offered && !candidate->asking &&
	       (candidate->fits || !engine->options.wait_for_fitting);
}

/* 1 when the wait goes on. */
static int await_candidate(struct qsc_engine *engine, struct qsc_link_wait *wait, struct row *row,
			   bool *touched, struct qsc_error *err)
{
	struct candidate candidate = {.offered = false};
	bool ends;
	int result = qsc_link_accept(&engine->link, engine->transport, wait, err);

	if (result < 0)
		return result;
	row->begin_us = qsc_engine_now(engine);
	if (row->begin_us - row->end_us >= ROW_US)
		row->slow = 0;
	if (!engine->link.kept)
		limit(engine, row, OFFERING_MS);
	result = hear_offer(engine, &candidate);
	ends = ends_wait(engine, &candidate);
	/* The time of a migration is not that of those who only ask, or come and go. */
	if (ends) {
		qsc_engine_start_clock(engine);
		/* Checking a file is work. */
		engine->report->waited_us = engine->link.kept
						    ? 0
						    : qsc_engine_now(engine) - engine->start_us;
	}
	if (result == 0 && !engine->remote.known) {
		*touched = true;
		result = measure_waves(engine, &candidate.refused);
		/* A device that does not go through the waves is this side's trouble. */
		ends = ends || result < 0;
	}
	if (ends) {
		if (result < 0 && err)
			*err = candidate.refused;
		return result;
	}
	dismiss(engine, row, &candidate);
	if (!candidate.asking)
		wait->last = candidate.refused;
	return 1;
}

int qsc_negotiate_await(struct qsc_engine *engine, bool *touched, struct qsc_error *err)
{
	uint32_t timeout_ms = engine->options.wait_timeout_ms;
	struct qsc_link_wait wait = {
		.timeout_ms = timeout_ms,
		.deadline_us = qsc_engine_now(engine) + timeout_ms * 1000ULL,
		.step = step_wait,
		.ctx = engine,
	};
	struct row row = {0};
	int result;

	do
		result = await_candidate(engine, &wait, &row, touched, err);
	while (result > 0);
	qsc_link_end_wait(&wait);
	return result;
}
