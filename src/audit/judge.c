/* SPDX-License-Identifier: MIT */
/*
 * What the rare actions mean: requests, resets, streams, logs. What is about to be done is judged
 * before the device is asked, what has been reached after: of two devices, one has given up when it
 * begins to, and the other has validated when it is done.
 */
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "audit/audit.h"
#include "base/cleanup.h"
#include "contract/set_rules.h"

#define VIOLATION(a, clause, action, ...)                                                      \
	audit_found((a), QSC_FINDING_VIOLATION, QSC_CLAUSE_##clause, (action), audit_state(a), \
		    __VA_ARGS__)

static bool is_stopped(enum qsc_state state)
{
	return !qsc_state_is_active(state);
}

static const char *target_name(uint32_t target)
{
	return qsc_state_name((enum qsc_state)target);
}

/* ---- source and destination of one stream ---- */

/* One that was refused may have ended before its end. */
static bool same_stream(const struct audited *from, const struct audited *to, bool refused)
{
	bool whole = from->stream_bytes == to->stream_bytes;
	bool begun = refused && to->head_size && from->stream_bytes > to->stream_bytes;

	return from->saved && !from->partner && from != to && (whole || begun) &&
	       from->head_size >= to->head_size && !memcmp(from->head, to->head, to->head_size);
}

/* The newest that saved this stream, one of the same name before all others. */
static struct audited *find_source(const struct audited *to, bool refused)
{
	struct audited *best = NULL;

	for (struct audited *from = to->audit->devices; from; from = from->next) {
		if (!same_stream(from, to, refused))
			continue;
		if (!best)
			best = from;
		if (!strcmp(from->name, to->name))
			return from;
	}
	return best;
}

static void part(struct audited *a)
{
	if (a->partner)
		a->partner->partner = NULL;
	a->partner = NULL;
}

static void pair(struct audited *from, struct audited *to)
{
	part(to);
	from->partner = to;
	to->partner = from;
	to->saved_vectors = from->saved_vectors;
	to->saved_mappings = from->saved_mappings;
	to->audit->moves++;
}

/* A load is complete as far as its user is concerned; the device has said what it thinks of it. */
static void judge_validation(struct audited *to, int result)
{
	struct audited *from = find_source(to, result < 0);

	if (result == -ENODATA || !from)
		return;
	if (from->gave_up)
		VIOLATION(to, ORD_5, QSC_ACTION_COUNT,
			  "the stream was validated (RESUMING left%s) only after its source '%s' "
			  "had given up its copy",
			  result < 0 ? ", and refused" : "", from->name);
	if (result >= 0)
		pair(from, to);
}

static void judge_dirty_log(struct audited *a)
{
	size_t writable;

	pthread_mutex_lock(&a->lock);
	writable = a->mappings.writable;
	pthread_mutex_unlock(&a->lock);
	if (!writable)
		return;
	if (a->logged && !a->log_covers)
		VIOLATION(a, ORD_7, QSC_ACTION_COUNT,
			  "the dirty log did not cover all memory that the device may write");
	else if (a->logged && !a->log_reported)
		VIOLATION(a, ORD_7, QSC_ACTION_COUNT,
			  "the dirty log was not read after the device had stopped: what it wrote "
			  "last is not known");
	else if (!a->logged && a->live)
		VIOLATION(a, ORD_7, QSC_ACTION_COUNT,
			  "the device was saved while it ran, and no dirty log told what it wrote: "
			  "only who sends all memory after the stop moves it whole");
}

/* From now on nobody can get the state from here again: when it was saved, its move is decided. */
static void judge_giving_up(struct audited *a)
{
	if (!a->saved || a->gave_up)
		return;
	a->gave_up = true;
	judge_dirty_log(a);
}

static void forget_stream(struct audited *a)
{
	a->stream_bytes = 0;
	a->head_size = 0;
	a->saved = false;
	a->gave_up = false;
	a->wiped = false;
}

/* ---- requests ---- */

static void judge_two_owners(struct audited *a, uint32_t target)
{
	struct audited *other = a->partner;

	if (!set_may_start_peer_dma((enum qsc_state)target) || !other || other->gone || a->wiped ||
	    other->wiped)
		return;
	if (!set_may_start_peer_dma(audit_state(a)) && qsc_state_is_active(audit_state(other)))
		VIOLATION(a, SET_5, QSC_ACTION_COUNT,
			  "it goes to %s while '%s', the other side of its move, is in %s",
			  target_name(target), other->name, qsc_state_name(audit_state(other)));
}

static void judge_precopy_left(struct audited *a, uint32_t target)
{
	enum qsc_state state = audit_state(a);

	if (target != QSC_STATE_STOP_COPY ||
	    (state != QSC_STATE_PRE_COPY && state != QSC_STATE_PRE_COPY_P2P))
		return;
	if (!a->drained && (!a->asked || a->initial_left))
		VIOLATION(a, ORD_6, QSC_ACTION_COUNT, "pre-copy was left for STOP_COPY %s",
			  a->asked ? "before the initial data had been read"
				   : "without asking how much initial data was left");
}

/* What of the source's setup is not there yet when a loaded device is started. */
static void note_late(struct audited *a, uint32_t target)
{
	size_t mappings;

	if (!a->loaded || !is_stopped(audit_state(a)) || is_stopped((enum qsc_state)target))
		return;
	pthread_mutex_lock(&a->lock);
	mappings = a->mappings.count;
	pthread_mutex_unlock(&a->lock);
	a->dma_late = mappings < a->saved_mappings;
	a->irqs_late = !a->vectors && a->saved_vectors;
}

void audit_before_request(struct audited *a, uint32_t target)
{
	enum qsc_state state = audit_state(a);

	if (target >= QSC_STATE_COUNT)
		return;
	if (a->failed)
		VIOLATION(a, ORD_4, QSC_ACTION_COUNT,
			  "%s was requested after a failed request whose state nobody had read",
			  target_name(target));
	a->failed = false;
	judge_two_owners(a, target);
	judge_precopy_left(a, target);
	if (state != QSC_STATE_RESUMING)
		note_late(a, target);
	if (set_stops(state, (enum qsc_state)target))
		audit_group_stop(a, target);
	if (set_runs(state, (enum qsc_state)target))
		audit_group_run(a, target);
	if (state == QSC_STATE_STOP_COPY && target == QSC_STATE_STOP)
		judge_giving_up(a);
}

/* A save or a load begins. */
static void begin_stream(struct audited *a, enum qsc_state from, uint32_t target)
{
	forget_stream(a);
	a->asked = false;
	a->drained = false;
	a->initial_left = 0;
	a->lost = false;
	if (target == QSC_STATE_RESUMING)
		return;
	a->live = target != QSC_STATE_STOP_COPY;
	a->logged = a->logging;
	a->log_covers &= a->logging;
	a->log_reported &= is_stopped(from);
	a->saved_vectors = a->vectors;
	pthread_mutex_lock(&a->lock);
	a->saved_mappings = a->mappings.count;
	pthread_mutex_unlock(&a->lock);
}

static void after_success(struct audited *a, enum qsc_state from, uint32_t target)
{
	enum qsc_state to = (enum qsc_state)target;

	if ((to == QSC_STATE_RESUMING && from != QSC_STATE_RESUMING) ||
	    (qsc_state_is_saving(to) && !qsc_state_is_saving(from)))
		begin_stream(a, from, target);
	if (from == QSC_STATE_RESUMING && to != QSC_STATE_RESUMING) {
		a->loaded = true;
		judge_validation(a, 0);
		note_late(a, target);
	}
	/* It runs again where it was: no copy has been given up, and nothing is lost. */
	if (qsc_state_is_active(to))
		a->gave_up = false;
	a->broken = false;
}

void audit_after_request(struct audited *a, uint32_t target, int result, enum qsc_state now)
{
	enum qsc_state from = audit_state(a);

	if (result < 0) {
		/* What is no request at all says nothing of the device. */
		a->failed = target < QSC_STATE_COUNT;
		a->broken = a->failed && result != -ENODATA;
		if (a->failed && from == QSC_STATE_RESUMING)
			judge_validation(a, result);
	} else {
		after_success(a, from, target);
	}
	atomic_store(&a->state, now);
	if (is_stopped(now))
		a->log_reported &= is_stopped(from);
	atomic_store(&a->odd, a->failed || a->lost);
}

void audit_before_reset(struct audited *a)
{
	if (is_stopped(audit_state(a)))
		judge_giving_up(a);
}

void audit_after_reset(struct audited *a, int result)
{
	if (result < 0)
		return;
	a->lost = a->broken;
	a->broken = false;
	a->failed = false;
	a->loaded = false;
	a->logging = false;
	a->irqs_late = false;
	a->dma_late = false;
	part(a);
	if (!a->gave_up)
		forget_stream(a);
	a->wiped = a->gave_up;
	atomic_store(&a->state, QSC_STATE_RUNNING);
	atomic_store(&a->odd, a->lost);
}

void audit_before_close(struct audited *a)
{
	if (audit_state(a) == QSC_STATE_RESUMING)
		VIOLATION(
			a, ORD_9, QSC_ACTION_COUNT,
			"it was let go of in RESUMING with %llu bytes loaded, without leaving that "
			"state first",
			(unsigned long long)a->stream_bytes);
	if (is_stopped(audit_state(a)))
		judge_giving_up(a);
}

/* Called for what depends on the state, not for what may be done in any. */
void audit_odd_action(struct audited *a, enum qsc_action action, enum qsc_state state)
{
	bool registers = action == QSC_ACTION_REGISTER_ACCESS || action == QSC_ACTION_IRQ_TRIGGER;

	if (a->failed &&
	    (registers || action == QSC_ACTION_DATA_READ || action == QSC_ACTION_DATA_WRITE)) {
		audit_found(a, QSC_FINDING_VIOLATION, QSC_CLAUSE_ORD_4, action, state,
			    "%s after a failed request whose state nobody had read",
			    qsc_action_text(action));
		a->failed = false;
	}
	if (a->lost && registers) {
		audit_found(a, QSC_FINDING_VIOLATION, QSC_CLAUSE_ORD_8, QSC_ACTION_RESET, state,
			    "a request or a load had failed, the device was reset, and then it was "
			    "used as if its state were still there");
		a->lost = false;
	}
	atomic_store(&a->odd, a->failed || a->lost);
}

/* ---- streams ---- */

void audit_saw_data(struct audited *a, const void *data, size_t size)
{
	size_t more = qsc_min_u64(size, AUDIT_HEAD - a->head_size);

	memcpy(a->head + a->head_size, data, more);
	a->head_size += more;
	a->stream_bytes += size;
	a->initial_left -= qsc_min_u64(a->initial_left, size);
}

/* A read that gave no data. */
void audit_read(struct audited *a, enum qsc_state state, ssize_t result)
{
	if (!result && state == QSC_STATE_STOP_COPY)
		a->saved = true;
	if ((!result || result == -ENOMSG) && qsc_state_is_saving(state))
		a->drained = true;
}

void audit_precopy_info(struct audited *a, const struct qsc_precopy_info *info)
{
	a->asked = true;
	a->initial_left = info->initial_bytes;
}

/* ---- the dirty log ---- */

static bool covered(const struct audit_mapping *mapping, const struct qsc_dma_range *ranges,
		    size_t count)
{
	uint64_t at = mapping->iova;
	uint64_t end = mapping->iova + mapping->size;
	bool moved = true;

	while (moved && at < end) {
		moved = false;
		for (size_t i = 0; i < count && !moved; i++)
			if (ranges[i].iova <= at && at - ranges[i].iova < ranges[i].size) {
				at = ranges[i].iova + ranges[i].size;
				moved = true;
			}
	}
	return at >= end;
}

void audit_log_started(struct audited *a, const struct qsc_dma_range *ranges, size_t count)
{
	a->logging = true;
	a->logged = true;
	a->log_covers = true;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; i < a->mappings.room; i++) {
		const struct audit_mapping *m = &a->mappings.slot[i];

		/* What a device writes to a peer is the peer's state, which moves with it. */
		if (m->size && (m->flags & QSC_DMA_WRITE) && !(m->flags & QSC_DMA_PEER) &&
		    !m->peer && !covered(m, ranges, count))
			a->log_covers = false;
	}
	pthread_mutex_unlock(&a->lock);
}

void audit_log_reported(struct audited *a, enum qsc_state state)
{
	if (is_stopped(state))
		a->log_reported = true;
}

/* ---- setup ---- */

void audit_irqs_set(struct audited *a, enum qsc_state state, uint32_t vectors)
{
	if (a->irqs_late && vectors && !is_stopped(state))
		audit_found(
			a, QSC_FINDING_VIOLATION, QSC_CLAUSE_ORD_2, QSC_ACTION_IRQ_SETUP, state,
			"interrupts were set up in %s, after the loaded device had been started; "
			"its source had %u vectors",
			qsc_state_name(state), a->saved_vectors);
	a->irqs_late = false;
	a->vectors = vectors;
}

void audit_mapped(struct audited *a, enum qsc_state state, const struct qsc_dma_mapping *mapping)
{
	if (a->dma_late && !is_stopped(state)) {
		audit_found(a, QSC_FINDING_VIOLATION, QSC_CLAUSE_ORD_3, QSC_ACTION_DMA_MAPPING,
			    state,
			    "memory was mapped in %s, after the loaded device had left STOP; its "
			    "source had %zu mappings",
			    qsc_state_name(state), a->saved_mappings);
		a->dma_late = false;
	}
	audit_group_mapped(a, mapping);
}
