/* SPDX-License-Identifier: MIT */
/* ARC-1 to ARC-7: where a request leads, what is refused, and when it is complete. */
#include <errno.h>
#include <string.h>

#include "check/clause.h"

/* Whether the walk from one state to another exists at all (ARC-1). */
static bool reachable(uint32_t flags, uint32_t from, uint32_t to)
{
	int at = (int)from;

	for (int steps = 0; at >= 0 && at != (int)to && steps < QSC_STATE_COUNT; steps++)
		at = qsc_contract_next(flags, (uint32_t)at, to);
	return at == (int)to;
}

/* ---- ARC-1: a request follows the path ---- */

static enum qsc_check_result arc_1_walk(struct harness *h, uint32_t from, uint32_t to,
					const struct saved *blank)
{
	bool resumed = from == QSC_STATE_RESUMING;
	enum qsc_state state;
	uint64_t found;
	int r;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_mark(h, 4711));
	/* The way there is one of the pairs. */
	MUST(h, !harness_enter(h, from), "%s", h->trouble);
	if (resumed)
		REQUIRE(h, harness_write(h, blank->data, blank->size, blank->size));
	r = harness_request(h, to);
	state = harness_state(h);
	MUST(h, !r, "%s to %s is refused: %s", qsc_state_name(from), qsc_state_name(to),
	     strerror(-r));
	MUST(h, state == to, "%s to %s ends in %s", qsc_state_name(from), qsc_state_name(to),
	     qsc_state_name(state));
	if (to != QSC_STATE_RUNNING)
		return QSC_CHECK_HOLDS;
	/* A path that went through RESUMING, or a reset, would have lost this. */
	MUST(h, harness_marked(h, resumed ? h->register_blank : 4711, &found),
	     "%s to RUNNING leaves %llu in a register", qsc_state_name(from),
	     (unsigned long long)found);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_1(struct harness *h)
{
	autosaved blank = {0};
	unsigned int walked = 0;

	REQUIRE(h, harness_start(h));
	MUST(h, !harness_set(h, QSC_STATE_STOP_COPY), "%s", h->trouble);
	REQUIRE(h, harness_blank(h, &blank));
	for (uint32_t from = 1; from < QSC_STATE_COUNT; from++)
		for (uint32_t to = 1; to < QSC_STATE_COUNT; to++) {
			if (from == to || !harness_has(h, from) || !harness_has(h, to) ||
			    !reachable(h->flags, from, to))
				continue;
			PART(arc_1_walk(h, from, to, &blank));
			walked++;
		}
	return holds(h, "%u pairs of states", walked);
}

/* ---- ARC-2: a request for the current state succeeds and does nothing ---- */

#define FIRST 8 /* bytes that were read or left out before the request */

static enum qsc_check_result arc_2_session(struct harness *h, enum qsc_state s,
					   const struct saved *blank, const uint8_t *first)
{
	const char *name = qsc_state_name(s);

	if (s == QSC_STATE_RESUMING) {
		int r = harness_write(h, blank->data + FIRST, blank->size - FIRST, blank->size);

		MUST(h, !r && !harness_request(h, QSC_STATE_STOP),
		     "a load does not go on after a request for RESUMING in RESUMING");
	} else if (qsc_state_is_saving(s)) {
		uint8_t next[FIRST];
		ssize_t n = qsc_device_session_read(h->dev, h->session, next, sizeof(next));

		MUST(h, n > 0, "the session of %s has ended after a request for %s", name, name);
		MUST(h, memcmp(first, next, FIRST) != 0,
		     "the session of %s begins anew after a request for %s", name, name);
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_2_in(struct harness *h, enum qsc_state s,
				      const struct saved *blank)
{
	uint8_t first[FIRST] = {0};
	uint64_t session = 0, found;
	int r;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_mark(h, 4711));
	REQUIRE(h, harness_enter(h, s));
	if (s == QSC_STATE_RESUMING)
		REQUIRE(h, harness_write(h, blank->data, FIRST, FIRST));
	if (qsc_state_is_saving(s))
		(void)qsc_device_session_read(h->dev, h->session, first, sizeof(first));
	r = qsc_device_set_state(h->dev, s, &session);
	MUST(h, !r, "a request for %s in %s gives: %s", qsc_state_name(s), qsc_state_name(s),
	     strerror(-r));
	MUST(h, !session, "a request for %s in %s opens a session", qsc_state_name(s),
	     qsc_state_name(s));
	MUST(h, harness_state(h) == s, "a request for %s in %s leads to %s", qsc_state_name(s),
	     qsc_state_name(s), qsc_state_name(harness_state(h)));
	PART(arc_2_session(h, s, blank, first));
	if (s == QSC_STATE_RESUMING)
		return QSC_CHECK_HOLDS;
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST(h, harness_marked(h, 4711, &found), "a request for %s in %s changes a register",
	     qsc_state_name(s), qsc_state_name(s));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_2(struct harness *h)
{
	autosaved blank = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	/* What no load takes says nothing of a request in the midst of one. */
	REQUIRE(h, harness_load(h, &blank));
	for (uint32_t s = 1; s < QSC_STATE_COUNT; s++)
		if (harness_has(h, s))
			PART(arc_2_in(h, s, &blank));
	return holds(h, "in every state, in the midst of a session too");
}

/* ---- ARC-3 and ARC-4: what is refused, and leaves the state unchanged ---- */

static enum qsc_check_result refused(struct harness *h, uint32_t from, uint32_t to,
				     const struct saved *blank)
{
	uint64_t session = 0;
	int r = qsc_device_set_state(h->dev, to, &session);
	enum qsc_state state = harness_state(h);
	char byte;

	MUST(h, r == -EINVAL, "%s to %s (%u) gives %s instead of EINVAL", qsc_state_name(from),
	     qsc_state_name(to), to, r ? strerror(-r) : "success");
	MUST(h, state == from, "%s to %s (%u) is refused, but the device is %s now",
	     qsc_state_name(from), qsc_state_name(to), to, qsc_state_name(state));
	MUST(h,
	     !qsc_state_is_saving(from) ||
		     qsc_device_session_read(h->dev, h->session, &byte, 1) == 1,
	     "%s to %s (%u) is refused, but the session has ended", qsc_state_name(from),
	     qsc_state_name(to), to);
	MUST(h, from != QSC_STATE_RESUMING || !harness_write(h, blank->data, 1, 1),
	     "RESUMING to %s (%u) is refused, but the session has ended", qsc_state_name(to), to);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_3(struct harness *h)
{
	static const uint32_t unknown[] = {8, 9, 0x80000002U, UINT32_MAX};
	autosaved blank = {0};
	unsigned int tried = 0;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	for (uint32_t from = 1; from < QSC_STATE_COUNT; from++) {
		if (!harness_has(h, from))
			continue;
		for (uint32_t to = 0; to < QSC_STATE_COUNT; to++) {
			if (to != QSC_STATE_ERROR && harness_has(h, to))
				continue;
			REQUIRE(h, harness_start_in(h, from));
			PART(refused(h, from, to, &blank));
			tried++;
		}
		for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
			REQUIRE(h, harness_start_in(h, from));
			PART(refused(h, from, unknown[i], &blank));
			tried++;
		}
	}
	return holds(h, "%u requests refused", tried);
}

static enum qsc_check_result arc_4(struct harness *h)
{
	autosaved blank = {0};

	REQUIRE(h, harness_start(h));
	if (!(h->flags & QSC_MIGRATION_PRE_COPY))
		return not_promised(h, "the device has no PRE_COPY");
	REQUIRE(h, harness_blank(h, &blank));
	for (uint32_t to = QSC_STATE_PRE_COPY; to <= QSC_STATE_PRE_COPY_P2P; to++) {
		if (!harness_has(h, to))
			continue;
		REQUIRE(h, harness_start_in(h, QSC_STATE_STOP_COPY));
		PART(refused(h, QSC_STATE_STOP_COPY, to, &blank));
		/* The same when the session began there. */
		REQUIRE(h, harness_start_in(h, QSC_STATE_PRE_COPY));
		REQUIRE(h, harness_set(h, QSC_STATE_STOP_COPY));
		PART(refused(h, QSC_STATE_STOP_COPY, to, &blank));
	}
	return holds(h, "refused, whichever way STOP_COPY was entered");
}

/* ---- ARC-5: in ERROR every request fails until reset; reset leads to RUNNING ---- */

static enum qsc_check_result arc_5_reset(struct harness *h, enum qsc_state state)
{
	const char *name = qsc_state_name(state);
	uint64_t found;

	REQUIRE(h, harness_start_in(h, state));
	MUST(h, harness_reset(h) == 0, "in %s: %s", name, h->trouble);
	if (state != QSC_STATE_ERROR && harness_state(h) != QSC_STATE_RUNNING)
		return not_tried(h, "is %s after a reset in %s (STATE-2)",
				 qsc_state_name(harness_state(h)), name);
	MUST(h, harness_state(h) == QSC_STATE_RUNNING, "reset leads from %s to %s", name,
	     qsc_state_name(harness_state(h)));
	/* RUNNING in deed: it works. */
	MUST(h, harness_mark(h, 4711) == 0 && harness_marked(h, 4711, &found),
	     "after a reset in %s a register does not work", name);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_5_in_error(struct harness *h)
{
	REQUIRE(h, harness_start_in(h, QSC_STATE_ERROR));
	for (uint32_t to = 0; to < QSC_STATE_COUNT; to++) {
		int r = harness_request(h, to);

		MUST(h, r < 0, "a request for %s in ERROR succeeds", qsc_state_name(to));
		MUST(h, harness_state(h) == QSC_STATE_ERROR,
		     "a request for %s leads from ERROR to %s", qsc_state_name(to),
		     qsc_state_name(harness_state(h)));
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_5(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_mark(h, 4711));
	if (harness_has(h, QSC_STATE_ERROR))
		PART(arc_5_in_error(h));
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++)
		if (harness_has(h, s))
			PART(arc_5_reset(h, s));
	if (!harness_has(h, QSC_STATE_ERROR))
		return not_tried(h, "reset leads to RUNNING from every state that can be entered, "
				    "but loading nonsense does not lead to ERROR");
	return holds(h, "every request refused in ERROR, reset from every state");
}

/* ---- ARC-6: a failed request leaves a state on the path, or ERROR, and returns an error ---- */

static bool on_path(uint32_t flags, uint32_t from, uint32_t to, uint32_t state)
{
	int at = (int)from;

	if (state == QSC_STATE_ERROR)
		return true;
	/* The end of the path is success, so it does not count. */
	for (int steps = 0; at >= 0 && at != (int)to && steps < QSC_STATE_COUNT; steps++) {
		if (at == (int)state)
			return true;
		at = qsc_contract_next(flags, (uint32_t)at, to);
	}
	return false;
}

static enum qsc_check_result arc_6_load(struct harness *h, uint32_t to, const struct saved *blank,
					size_t size)
{
	enum qsc_state state;
	int r;

	REQUIRE(h, harness_start_in(h, QSC_STATE_RESUMING));
	if (size > blank->size) {
		harness_write(h, blank->data, blank->size, blank->size);
		harness_write(h, "x", 1, 1);
	} else {
		harness_write(h, blank->data, size, blank->size);
	}
	r = harness_request(h, to);
	state = harness_state(h);
	if (!r && state == to)
		return not_tried(h, "%zu bytes of a stream of %zu are accepted (SESS-6)", size,
				 blank->size);
	MUST(h, r < 0, "RESUMING to %s succeeds with %zu bytes of a stream of %zu, and leads to %s",
	     qsc_state_name(to), size, blank->size, qsc_state_name(state));
	if (!harness_tells_truth(h, state))
		return not_tried(h, "%s after a failed request is not true (STATE-4)",
				 qsc_state_name(state));
	MUST(h, on_path(h->flags, QSC_STATE_RESUMING, to, state),
	     "a failed request from RESUMING to %s leaves %s", qsc_state_name(to),
	     qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_6(struct harness *h)
{
	autosaved blank = {0};
	unsigned int tried = 0;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	for (uint32_t to = 1; to < QSC_STATE_COUNT; to++) {
		if (to == QSC_STATE_RESUMING || !harness_has(h, to) ||
		    !reachable(h->flags, QSC_STATE_RESUMING, to))
			continue;
		PART(arc_6_load(h, to, &blank, blank.size / 2));
		PART(arc_6_load(h, to, &blank, blank.size + 1));
		tried += 2;
	}
	return holds(h, "%u requests that failed on their way", tried);
}

/* ---- ARC-7: the arc is complete when the call returns ---- */

#define BURST	   48
#define BURST_SIZE 16384

static enum qsc_check_result arc_7_stop(struct harness *h)
{
	uint64_t at;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, MEMORY_IOVA + MEMORY_TARGET, BURST, BURST_SIZE, 0));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	harness_snapshot(h);
	harness_all_signals(h);
	harness_settle(h);
	at = harness_changed(h);
	MUST(h, !at, "memory at %#llx was written after the request for STOP had returned",
	     (unsigned long long)at);
	MUST(h, !harness_all_signals(h),
	     "an interrupt came after the request for STOP had returned");
	/* And nothing was lost by that. */
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_7_p2p(struct harness *h, enum qsc_state state)
{
	uint64_t at;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, PEER_IOVA, BURST, BURST_SIZE, 0));
	REQUIRE(h, harness_set(h, state));
	harness_snapshot(h);
	harness_settle(h);
	at = harness_peer_changed(h);
	MUST(h, !at, "a peer's memory at %#llx was written after the request for %s had returned",
	     (unsigned long long)at, qsc_state_name(state));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result arc_7(struct harness *h)
{
	NEED_WORK(h);
	PART(arc_7_stop(h));
	if (h->flags & QSC_MIGRATION_P2P)
		PART(arc_7_p2p(h, QSC_STATE_RUNNING_P2P));
	if (harness_has(h, QSC_STATE_PRE_COPY_P2P))
		PART(arc_7_p2p(h, QSC_STATE_PRE_COPY_P2P));
	return holds(h, "with %u copies of %u bytes handed over just before", BURST, BURST_SIZE);
}

const struct clause_check arc_checks[] = {
	{QSC_CLAUSE_ARC_1, arc_1}, {QSC_CLAUSE_ARC_2, arc_2}, {QSC_CLAUSE_ARC_3, arc_3},
	{QSC_CLAUSE_ARC_4, arc_4}, {QSC_CLAUSE_ARC_5, arc_5}, {QSC_CLAUSE_ARC_6, arc_6},
	{QSC_CLAUSE_ARC_7, arc_7}, {QSC_CLAUSE_COUNT, NULL},
};
