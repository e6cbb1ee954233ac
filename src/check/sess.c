/* SPDX-License-Identifier: MIT */
/* SESS-1 to SESS-4, SESS-9 and SESS-10: when a session lives and what it answers. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "check/clause.h"

/* ---- SESS-1: what opens a session, and that moves inside the group keep it ---- */

static bool opens_session(uint32_t from, uint32_t to)
{
	return to == QSC_STATE_RESUMING || (qsc_state_is_saving(to) && !qsc_state_is_saving(from));
}

/* One request; *session is the session that lives, and 0 when none does. */
static enum qsc_check_result sess_1_step(struct harness *h, uint32_t to, uint64_t *session)
{
	enum qsc_state from = harness_state(h);
	uint64_t opened = 0;
	uint8_t piece[8];
	int r = qsc_device_set_state(h->dev, to, &opened);

	if (r) {
		harness_trouble(h, r, "%s to %s fails", qsc_state_name(from), qsc_state_name(to));
		return not_tried(h, "%s", h->trouble);
	}
	MUST(h, opens_session(from, to) == (opened != 0), "%s to %s opens %s session",
	     qsc_state_name(from), qsc_state_name(to), opened ? "a" : "no");
	if (opened)
		*session = opened;
	if (qsc_state_is_saving(to)) {
		ssize_t n = qsc_device_session_read(h->dev, *session, piece, sizeof(piece));

		MUST(h, n > 0, "the session cannot be read after %s to %s", qsc_state_name(from),
		     qsc_state_name(to));
	} else if (to != QSC_STATE_RESUMING) {
		*session = 0;
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_1(struct harness *h)
{
	/* Walks through the group; states that a device does not have are left out. */
	static const uint8_t walk[] = {
		QSC_STATE_PRE_COPY, QSC_STATE_PRE_COPY_P2P, QSC_STATE_STOP_COPY,
		QSC_STATE_STOP,	    QSC_STATE_STOP_COPY,    QSC_STATE_STOP,
		QSC_STATE_RUNNING,  QSC_STATE_PRE_COPY,	    QSC_STATE_STOP_COPY,
		QSC_STATE_RUNNING,  QSC_STATE_STOP_COPY,    QSC_STATE_RESUMING,
	};
	uint64_t seen[QSC_STATE_COUNT * 2], session = 0;
	unsigned int steps = 0, sessions = 0;

	REQUIRE(h, harness_start(h));
	for (size_t i = 0; i < sizeof(walk); i++) {
		uint64_t before = session;

		if (!harness_has(h, walk[i]))
			continue;
		PART(sess_1_step(h, walk[i], &session));
		steps++;
		if (!session || session == before)
			continue;
		for (unsigned int s = 0; s < sessions; s++)
			MUST(h, seen[s] != session, "session %llu is given out twice",
			     (unsigned long long)session);
		seen[sessions++] = session;
	}
	return holds(h, "%u sessions in %u moves", sessions, steps);
}

/* ---- SESS-2: leaving ends it ---- */

static enum qsc_check_result sess_2_ended(struct harness *h, uint64_t session, const char *how)
{
	struct qsc_precopy_info info;
	uint8_t byte = 0;
	ssize_t n = qsc_device_session_read(h->dev, session, &byte, 1);
	int r;

	MUST(h, n == -ENODEV, "%s, reading gives %s instead of ENODEV", how,
	     n < 0 ? strerror((int)-n) : "success");
	n = qsc_device_session_write(h->dev, session, &byte, 1);
	MUST(h, n == -ENODEV, "%s, writing gives %s instead of ENODEV", how,
	     n < 0 ? strerror((int)-n) : "success");
	r = qsc_device_session_precopy_info(h->dev, session, &info);
	MUST(h, r < 0, "%s, the pre-copy info still answers", how);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_2_left(struct harness *h, enum qsc_state in, enum qsc_state to)
{
	char how[64];
	uint64_t session;

	REQUIRE(h, harness_start_in(h, in));
	session = h->session;
	if (to == QSC_STATE_COUNT) {
		snprintf(how, sizeof(how), "after a reset in %s", qsc_state_name(in));
		REQUIRE(h, harness_reset(h));
	} else {
		snprintf(how, sizeof(how), "after %s to %s", qsc_state_name(in),
			 qsc_state_name(to));
		REQUIRE(h, harness_set(h, to));
	}
	PART(sess_2_ended(h, session, how));
	/* A session that was opened later does not wake it. */
	REQUIRE(h, harness_reset(h));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP_COPY));
	PART(sess_2_ended(h, session, how));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_2_loaded(struct harness *h)
{
	autosaved blank = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, harness_load(h, &blank));
	return sess_2_ended(h, h->session, "after RESUMING to STOP");
}

static enum qsc_check_result sess_2(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	PART(sess_2_left(h, QSC_STATE_STOP_COPY, QSC_STATE_STOP));
	PART(sess_2_left(h, QSC_STATE_STOP_COPY, QSC_STATE_RUNNING));
	PART(sess_2_left(h, QSC_STATE_STOP_COPY, QSC_STATE_COUNT));
	PART(sess_2_left(h, QSC_STATE_RESUMING, QSC_STATE_COUNT));
	PART(sess_2_loaded(h));
	if (harness_has(h, QSC_STATE_PRE_COPY)) {
		PART(sess_2_left(h, QSC_STATE_PRE_COPY, QSC_STATE_RUNNING));
		PART(sess_2_left(h, QSC_STATE_PRE_COPY, QSC_STATE_COUNT));
	}
	if (harness_has(h, QSC_STATE_PRE_COPY_P2P))
		PART(sess_2_left(h, QSC_STATE_PRE_COPY_P2P, QSC_STATE_RUNNING_P2P));
	return holds(h, "reads and writes of sessions that were left give ENODEV");
}

/* ---- SESS-3: drained PRE_COPY reads ENOMSG; STOP_COPY ends with 0, again and again ---- */

static enum qsc_check_result sess_3_drained(struct harness *h, enum qsc_state state)
{
	autosaved stream = {0};

	REQUIRE(h, harness_start_in(h, state));
	for (int i = 0; i < 3; i++) {
		int r = harness_read(h, &stream);

		MUST(h, r != 0, "a drained session says in %s that the stream has ended",
		     qsc_state_name(state));
		MUST(h, r == -ENOMSG, "a drained session gives %s in %s instead of ENOMSG",
		     strerror(-r), qsc_state_name(state));
	}
	REQUIRE(h, harness_save(h, &stream));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_3(struct harness *h)
{
	autosaved stream = {0};
	size_t size;
	int r;

	REQUIRE(h, harness_start_in(h, QSC_STATE_STOP_COPY));
	r = harness_read(h, &stream);
	MUST(h, !r, "the stream ends with %s", strerror(-r));
	size = stream.size;
	for (int i = 0; i < 3; i++) {
		r = harness_read(h, &stream);
		MUST(h, r == 0 && stream.size == size,
		     "after the end of the stream, reading gives %s",
		     r ? strerror(-r) : "more of it");
	}
	if (harness_has(h, QSC_STATE_PRE_COPY))
		PART(sess_3_drained(h, QSC_STATE_PRE_COPY));
	if (harness_has(h, QSC_STATE_PRE_COPY_P2P))
		PART(sess_3_drained(h, QSC_STATE_PRE_COPY_P2P));
	return holds(h, "the end is the end, and drained is not the end");
}

/* ---- SESS-4: pre-copy info ---- */

static enum qsc_check_result sess_4_elsewhere(struct harness *h, enum qsc_state state)
{
	struct qsc_precopy_info info;
	int r;

	REQUIRE(h, harness_start(h));
	h->session = 0;
	REQUIRE(h, harness_enter(h, state));
	r = qsc_device_session_precopy_info(h->dev, h->session, &info);
	MUST(h, r == -EINVAL, "pre-copy info gives %s in %s instead of EINVAL",
	     r ? strerror(-r) : "an answer", qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

/* After a change dirty_bytes rises above what it was, and reading brings it down again. */
static enum qsc_check_result sess_4_dirty(struct harness *h, enum qsc_state state,
					  const struct qsc_precopy_info *before, const char *when)
{
	const char *name = qsc_state_name(state);
	struct qsc_precopy_info changed, read;
	autosaved stream = {0};
	int r;

	MUST(h,
	     !qsc_device_session_precopy_info(h->dev, h->session, &changed) &&
		     changed.dirty_bytes > before->dirty_bytes,
	     "dirty_bytes stays at %llu in %s when %s", (unsigned long long)changed.dirty_bytes,
	     name, when);
	r = harness_read(h, &stream);
	if (r && r != -ENOMSG)
		return not_tried(h, "the session cannot be read in %s: %s", name, strerror(-r));
	MUST(h,
	     !qsc_device_session_precopy_info(h->dev, h->session, &read) &&
		     read.dirty_bytes < changed.dirty_bytes,
	     "dirty_bytes stays at %llu in %s when that was read (%s)",
	     (unsigned long long)read.dirty_bytes, name, strerror(-r));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_4_bytes(struct harness *h, enum qsc_state state)
{
	const char *name = qsc_state_name(state);
	struct qsc_precopy_info first, info;
	static const uint8_t change[4096] = {42};
	autosaved stream = {0};
	void *map = NULL;
	int r;

	REQUIRE(h, harness_start_in(h, state));
	r = qsc_device_session_precopy_info(h->dev, h->session, &first);
	MUST(h, !r, "pre-copy info fails in %s: %s", name, strerror(-r));
	MUST(h, first.initial_bytes, "initial_bytes is zero when %s is entered", name);
	r = harness_read(h, &stream);
	if (r && r != -ENOMSG)
		return not_tried(h, "the session cannot be read in %s: %s", name, strerror(-r));
	MUST(h, !qsc_device_session_precopy_info(h->dev, h->session, &info),
	     "pre-copy info fails in %s when all was read (%s)", name, strerror(-r));
	MUST(h, info.initial_bytes < first.initial_bytes,
	     "initial_bytes stays at %llu in %s when %zu bytes were read",
	     (unsigned long long)info.initial_bytes, name, stream.size);
	MUST(h, info.initial_bytes == 0, "initial_bytes is %llu in %s when drained",
	     (unsigned long long)info.initial_bytes, name);
	if (!harness_memory_size(h) && !harness_idle(h) && h->exerciser->to_device_memory) {
		/* A device in a P2P state does no work of its own. */
		if (qsc_state_is_p2p(state))
			return QSC_CHECK_HOLDS;
		REQUIRE(h, harness_copy(h, QSC_CHECK_DEVICE_MEMORY, 1, 4096, 0));
		REQUIRE(h, harness_await_copies(h, 0, 1, 0));
		return sess_4_dirty(h, state, &info, "the device writes to its memory");
	}
	if (!harness_memory_size(h)) {
		harness_leave_out(h, "dirty_bytes after a change: no exerciser knows memory that "
				     "can be changed");
		return QSC_CHECK_HOLDS;
	}
	REQUIRE(h, harness_memory_write(h, 0, change, sizeof(change)));
	PART(sess_4_dirty(h, state, &info, "device memory changes"));
	r = qsc_device_region_map(h->dev, h->exerciser->memory_region, 0, sizeof(change),
				  PROT_READ | PROT_WRITE, &map);
	if (r == -ENOTTY)
		return QSC_CHECK_HOLDS;
	if (r)
		return not_tried(h, "device memory cannot be mapped: %s", strerror(-r));
	/* It may look at all of what is mapped first. */
	harness_read(h, &stream);
	if (qsc_device_session_precopy_info(h->dev, h->session, &info))
		return not_tried(h, "pre-copy info fails");
	memset(map, 43, sizeof(change));
	return sess_4_dirty(h, state, &info, "mapped device memory changes");
}

static enum qsc_check_result sess_4(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!(h->flags & QSC_MIGRATION_PRE_COPY))
		return not_promised(h, "the device has no PRE_COPY");
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		if (s == QSC_STATE_PRE_COPY || s == QSC_STATE_PRE_COPY_P2P)
			PART(sess_4_bytes(h, s));
		else
			PART(sess_4_elsewhere(h, s));
	}
	/* The session that came from PRE_COPY knows where it is as well. */
	REQUIRE(h, harness_start_in(h, QSC_STATE_PRE_COPY));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP_COPY));
	MUST(h,
	     qsc_device_session_precopy_info(h->dev, h->session, &(struct qsc_precopy_info){0}) ==
		     -EINVAL,
	     "pre-copy info answers in STOP_COPY after PRE_COPY");
	return holds(h, "answers in pre-copy states only, and follows reads and changes");
}

/* ---- SESS-9: if the session cannot be handed out, the state has not changed ---- */

/*
 * A kernel hands out a session as a file descriptor; there may be none left. Other implementers
 * need none, and then the request must simply succeed, with a session that works.
 */
static enum qsc_check_result sess_9_without_fds(struct harness *h, enum qsc_state from,
						enum qsc_state to)
{
	struct rlimit saved, none;
	uint64_t session = 0;
	enum qsc_state state;
	uint8_t byte = 0;
	int r, lowest;

	lowest = fcntl(h->memory_fd, F_DUPFD_CLOEXEC, 0);
	if (lowest < 0 || getrlimit(RLIMIT_NOFILE, &saved))
		return not_tried(h, "file descriptors cannot be made scarce");
	close(lowest);
	none = saved;
	none.rlim_cur = (rlim_t)lowest;
	if (setrlimit(RLIMIT_NOFILE, &none))
		return not_tried(h, "file descriptors cannot be made scarce");
	r = qsc_device_set_state(h->dev, to, &session);
	setrlimit(RLIMIT_NOFILE, &saved);
	state = harness_state(h);
	MUST(h, !r || state == from,
	     "%s to %s without a session to hand out gives %s, but the "
	     "device is %s now",
	     qsc_state_name(from), qsc_state_name(to), strerror(-r), qsc_state_name(state));
	MUST(h, r || (session && state == to), "%s to %s succeeds without a session",
	     qsc_state_name(from), qsc_state_name(to));
	if (r)
		return QSC_CHECK_HOLDS;
	MUST(h,
	     to == QSC_STATE_RESUMING
		     ? qsc_device_session_write(h->dev, session, &byte, 1) != -ENODEV
		     : qsc_device_session_read(h->dev, session, &byte, 1) == 1,
	     "%s to %s without file descriptors gives a session that is none", qsc_state_name(from),
	     qsc_state_name(to));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result sess_9(struct harness *h)
{
	static const enum qsc_state targets[] = {QSC_STATE_STOP_COPY, QSC_STATE_RESUMING,
						 QSC_STATE_PRE_COPY};
	autosaved blank = {0};

	/* One that can never be read says nothing of what lacks for it. */
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		enum qsc_state from = targets[i] == QSC_STATE_PRE_COPY ? QSC_STATE_RUNNING
								       : QSC_STATE_STOP;

		REQUIRE(h, harness_start(h));
		if (!harness_has(h, targets[i]))
			continue;
		REQUIRE(h, harness_enter(h, from));
		PART(sess_9_without_fds(h, from, targets[i]));
	}
	return holds(h, "with no file descriptor left for it");
}

/* ---- SESS-10: the stop-copy size estimate answers in every state but ERROR ---- */

static enum qsc_check_result sess_10(struct harness *h)
{
	autosaved stream = {0};
	uint64_t size, promised;
	int r;

	REQUIRE(h, harness_start(h));
	r = qsc_device_data_size(h->dev, &promised);
	MUST(h, !r, "the estimate fails in RUNNING: %s", strerror(-r));
	REQUIRE(h, harness_save(h, &stream));
	MUST(h, promised >= stream.size / 2 && promised <= stream.size * 2 + 4096,
	     "estimated %llu bytes, and %zu came", (unsigned long long)promised, stream.size);
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		REQUIRE(h, harness_start_in(h, s));
		r = qsc_device_data_size(h->dev, &size);
		if (s == QSC_STATE_ERROR) {
			MUST(h, r < 0, "the estimate is %llu in ERROR", (unsigned long long)size);
			continue;
		}
		MUST(h, !r, "the estimate fails in %s: %s", qsc_state_name(s), strerror(-r));
	}
	return holds(h, "in every state; estimated %llu, came %zu", (unsigned long long)promised,
		     stream.size);
}

const struct clause_check sess_checks[] = {
	{QSC_CLAUSE_SESS_1, sess_1}, {QSC_CLAUSE_SESS_2, sess_2}, {QSC_CLAUSE_SESS_3, sess_3},
	{QSC_CLAUSE_SESS_4, sess_4}, {QSC_CLAUSE_SESS_9, sess_9}, {QSC_CLAUSE_SESS_10, sess_10},
	{QSC_CLAUSE_COUNT, NULL},
};
