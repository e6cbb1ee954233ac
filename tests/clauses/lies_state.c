/* SPDX-License-Identifier: MIT */
/* Lies about states and arcs: STATE-1 to STATE-5, ARC-1 to ARC-7. */
#include <errno.h>
#include <string.h>

#include "liar.h"

/* ---- STATE ---- */

static void opened_stopped(struct qsc_device *dev)
{
	uint64_t session;

	honest_set_state(dev, QSC_STATE_STOP, &session);
}

/* The count is the state to report; zero for the true one. */
static int note_failed_load(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool resuming = honest_state(dev) == QSC_STATE_RESUMING;
	int r = honest_set_state(dev, target, session);

	liar_device(dev)->count = r && resuming && target == QSC_STATE_STOP ? target : 0;
	return r;
}

static int report_requested(struct qsc_device *dev, enum qsc_state *state)
{
	int r = qsc_device_get_state(honest(dev), state);

	if (liar_device(dev)->count)
		*state = (enum qsc_state)liar_device(dev)->count;
	return r;
}

static int report_running_in_stop_copy(struct qsc_device *dev, enum qsc_state *state)
{
	int r = qsc_device_get_state(honest(dev), state);

	/* Only where nobody but the test of this clause asks twice. */
	if (!r && *state == QSC_STATE_STOP_COPY && ++liar_device(dev)->count > 1)
		*state = QSC_STATE_STOP;
	return r;
}

static void keep_in_stop_copy(struct qsc_device *dev)
{
	struct liar_device *l = liar_device(dev);

	if (honest_state(dev) == QSC_STATE_STOP_COPY && !l->liar->kept)
		l->liar->kept = l;
	else
		honest_close(dev);
}

static void wake_up(struct qsc_device *dev)
{
	uint64_t session;

	if (honest_state(dev) == QSC_STATE_STOP)
		honest_set_state(dev, QSC_STATE_RUNNING, &session);
	honest_close(dev);
}

/* ---- ARC ---- */

static int stop_half_way(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	if (honest_state(dev) == QSC_STATE_STOP_COPY && target == QSC_STATE_RESUMING)
		target = QSC_STATE_STOP;
	return honest_set_state(dev, target, session);
}

static int begin_anew(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int r;

	if (target != QSC_STATE_STOP_COPY || honest_state(dev) != target)
		return honest_set_state(dev, target, session);
	r = honest_set_state(dev, QSC_STATE_STOP, session);
	if (!r)
		r = honest_set_state(dev, target, session);
	*session = 0;
	return r;
}

static int take_unknown(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	return target >= QSC_STATE_COUNT ? 0 : honest_set_state(dev, target, session);
}

static int stop_on_unknown(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	if (target == 9 && honest_state(dev) == QSC_STATE_RUNNING)
		honest_set_state(dev, QSC_STATE_STOP, session);
	return honest_set_state(dev, target, session);
}

static int back_to_precopy(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	if (honest_state(dev) == QSC_STATE_STOP_COPY && target == QSC_STATE_PRE_COPY)
		honest_set_state(dev, QSC_STATE_RUNNING, session);
	return honest_set_state(dev, target, session);
}

static int leave_error(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	if (honest_state(dev) == QSC_STATE_ERROR && target == QSC_STATE_STOP)
		return pretend_loaded(dev);
	return honest_set_state(dev, target, session);
}

/* Armed when the request returns; what should have been before comes with the next call. */
static int leave_undone(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	enum qsc_state from = honest_state(dev);
	int r = honest_set_state(dev, target, session);

	liar_device(dev)->armed = !r && target == QSC_STATE_STOP && from == QSC_STATE_RUNNING;
	return r;
}

static int leave_undone_p2p(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int r = honest_set_state(dev, target, session);

	liar_device(dev)->armed = !r && qsc_state_is_p2p((enum qsc_state)target);
	return r;
}

static int late_write(struct qsc_device *dev, struct qsc_device_info *info)
{
	if (liar_device(dev)->armed)
		scribble(dev, false);
	liar_device(dev)->armed = false;
	return qsc_device_get_info(honest(dev), info);
}

static int late_peer_write(struct qsc_device *dev, struct qsc_device_info *info)
{
	if (liar_device(dev)->armed)
		scribble(dev, true);
	liar_device(dev)->armed = false;
	return qsc_device_get_info(honest(dev), info);
}

static int late_interrupt(struct qsc_device *dev, struct qsc_device_info *info)
{
	if (liar_device(dev)->armed)
		signal_vector(dev);
	liar_device(dev)->armed = false;
	return qsc_device_get_info(honest(dev), info);
}

const struct lie state_lies[] = {
	{QSC_CLAUSE_STATE_1, "reports flags without STOP_COPY", .fault = "get-migration=say:6"},
	{QSC_CLAUSE_STATE_1, "reports other flags in STOP_COPY", QSC_MIGRATION_PRE_COPY,
	 .fault = "get-migration/STOP_COPY=say:3"},
	{QSC_CLAUSE_STATE_2, "is in STOP after open", .opened = opened_stopped},
	{QSC_CLAUSE_STATE_2, "is in STOP after a reset in STOP", .fault = "reset/STOP=skip"},
	{QSC_CLAUSE_STATE_3, "leaves STOP when it is asked about its interrupts",
	 .fault = "get-irq-info/STOP=move:STOP_COPY"},
	{QSC_CLAUSE_STATE_4, "reports the requested state after a failed load",
	 .ops.set_state = note_failed_load, .ops.get_state = report_requested},
	{QSC_CLAUSE_STATE_4, "reports STOP in STOP_COPY, the second time it is asked",
	 .ops.get_state = report_running_in_stop_copy, .also = "STATE-3",
	 .why = "whether a state changed can be seen by asking for it only"},
	{QSC_CLAUSE_STATE_5, "is not let go of in STOP_COPY", .ops.close = keep_in_stop_copy},
	{QSC_CLAUSE_STATE_5, "wakes up as it is when it is let go of in STOP",
	 .ops.close = wake_up},

	{QSC_CLAUSE_ARC_1, "refuses STOP_COPY to RESUMING",
	 .fault = "set-state:RESUMING/STOP_COPY=EINVAL"},
	{QSC_CLAUSE_ARC_1, "stops half way from STOP_COPY to RESUMING",
	 .ops.set_state = stop_half_way, .also = "SESS-1", .why = "there it opens no session"},
	{QSC_CLAUSE_ARC_2, "begins a session anew on a request for STOP_COPY in STOP_COPY",
	 .ops.set_state = begin_anew},
	{QSC_CLAUSE_ARC_2, "refuses a request for RUNNING in RUNNING",
	 .fault = "set-state:RUNNING/RUNNING=EINVAL", .also = "STATE-4",
	 .why = "a request for the state it reports is how its truth is tried"},
	{QSC_CLAUSE_ARC_3, "accepts targets that are no state", .ops.set_state = take_unknown},
	{QSC_CLAUSE_ARC_3, "refuses target 9, but stops on it", .ops.set_state = stop_on_unknown},
	{QSC_CLAUSE_ARC_4, "goes from STOP_COPY to PRE_COPY", QSC_MIGRATION_PRE_COPY,
	 .ops.set_state = back_to_precopy},
	{QSC_CLAUSE_ARC_5, "leaves ERROR on a request for STOP", .ops.set_state = leave_error},
	{QSC_CLAUSE_ARC_5, "cannot be reset in ERROR", .fault = "reset/ERROR=EIO"},
	{QSC_CLAUSE_ARC_6, "calls a failed RESUMING to RUNNING a success",
	 .fault = "set-state:RUNNING/RESUMING=turn:any:0"},
	{QSC_CLAUSE_ARC_7, "writes memory after the request for STOP returned",
	 .ops.set_state = leave_undone, .ops.get_info = late_write},
	{QSC_CLAUSE_ARC_7, "raises an interrupt after the request for STOP returned",
	 .ops.set_state = leave_undone, .ops.get_info = late_interrupt},
	{QSC_CLAUSE_ARC_7, "writes a peer's memory after the request for a P2P state returned",
	 QSC_MIGRATION_P2P, .ops.set_state = leave_undone_p2p, .ops.get_info = late_peer_write},
	{.what = NULL},
};
