/* SPDX-License-Identifier: MIT */
/*
 * The waves of a set: what each decides (wave.h), and their order, which is what keeps the clauses:
 *
 *   down  quiesce: P2P states, and peer mappings of members without P2P revoked (SET-1), then stop
 *   up    STOP to P2P states, then revoked mappings back (SET-4), then members without P2P in order
 *         of reach, then P2P states to RUNNING (SET-2)
 */
#include "set/wave.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

static bool is_stopped(enum qsc_state state)
{
	return !qsc_state_is_active(state);
}

/* ---- down ---- */

static void decide_precopy(const struct qsc_set_member *member, struct qsc_step *step)
{
	if (member->flags & QSC_MIGRATION_PRE_COPY && step->before == QSC_STATE_RUNNING)
		step->target = QSC_STATE_PRE_COPY;
}

int qsc_set_precopy(struct qsc_set *set, struct qsc_error *err)
{
	return qsc_wave(set, "start-precopy", decide_precopy, err);
}

static void decide_quiesce(const struct qsc_set_member *member, struct qsc_step *step)
{
	const struct qsc_set_mapping *mapping;

	if (qsc_set_has_p2p(member)) {
		if (step->before == QSC_STATE_RUNNING)
			step->target = QSC_STATE_RUNNING_P2P;
		if (step->before == QSC_STATE_PRE_COPY)
			step->target = QSC_STATE_PRE_COPY_P2P;
		return;
	}
	if (is_stopped(step->before))
		return;
	for (mapping = member->mappings; mapping; mapping = mapping->next)
		if (qsc_set_reaches(mapping, step->member) && !mapping->revoked)
			step->revoke = true;
}

int qsc_set_quiesce(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_plan_again(set, err);

	return result < 0 ? result : qsc_wave(set, "quiesce", decide_quiesce, err);
}

static void decide_stop_copy(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	step->target = QSC_STATE_STOP_COPY;
}

int qsc_set_stop_copy(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	return result < 0 ? result : qsc_wave(set, "stop", decide_stop_copy, err);
}

static void decide_stop(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	step->target = QSC_STATE_STOP;
	if (step->before == QSC_STATE_RESUMING)
		step->phase = "validate";
}

int qsc_set_stop(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	return result < 0 ? result : qsc_wave(set, "stop", decide_stop, err);
}

static void decide_stop_before_resuming(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	if (step->before != QSC_STATE_RESUMING)
		step->target = QSC_STATE_STOP;
}

static void decide_resuming(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	step->target = QSC_STATE_RESUMING;
}

int qsc_set_resuming(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	if (result == 0)
		result = qsc_wave(set, "stop", decide_stop_before_resuming, err);
	return result < 0 ? result : qsc_wave(set, "start-load", decide_resuming, err);
}

/* ---- up ---- */

static int restore_mappings(struct qsc_set *set, struct qsc_error *err)
{
	uint64_t start = qsc_set_now(set);
	struct qsc_set_mapping *mapping;
	uint32_t restored = 0;
	uint32_t i;

	for (i = 0; i < set->count; i++) {
		for (mapping = set->members[i].mappings; mapping; mapping = mapping->next) {
			int result;

			if (!mapping->revoked)
				continue;
			result = qsc_device_dma_map(set->members[i].dev, &mapping->dma);
			if (result < 0)
				return qsc_error_set(
					err, -result, qsc_clause_id(QSC_CLAUSE_SET_4),
					"device '%s' did not take back its revoked mapping of "
					"device '%s' at IOVA %#llx (%s); no device was started",
					set->members[i].name, set->members[mapping->peer.peer].name,
					(unsigned long long)mapping->dma.iova,
					strerrordesc_np(-result));
			mapping->revoked = false;
			restored++;
		}
	}
	if (restored)
		qsc_set_phase(set, "restore", QSC_TIMELINE_ALL, start, 0);
	return 0;
}

static void decide_leave_precopy(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	if (step->before == QSC_STATE_PRE_COPY)
		step->target = QSC_STATE_RUNNING;
}

/*
 * A device in ERROR has lost its state; no order of the others makes the set whole (ORD-8). Those
 * that never left running go on as they are, nothing else starts.
 */
static int refuse_error(struct qsc_set *set, const struct qsc_step *steps, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < set->count && steps[i].before != QSC_STATE_ERROR; i++)
		;
	if (i == set->count)
		return 0;
	(void)qsc_wave(set, "run", decide_leave_precopy, NULL);
	return qsc_error_set(
		err, EIO, qsc_clause_id(QSC_CLAUSE_ORD_8),
		"device '%s' is in ERROR and its state is lost, so the set cannot run: "
		"reset it and set it up anew, the others stay as they are",
		set->members[i].name);
}

/*
 * A wave down that failed half-way may have left a member without P2P active beside a stopped one.
 * Its mappings must not come back before the other has left STOP, which in turn must wait for the
 * mappings (SET-4): stopping it first cuts the knot.
 */
static void decide_stop_revoked(const struct qsc_set_member *member, struct qsc_step *step)
{
	const struct qsc_set_mapping *mapping;

	if (is_stopped(step->before) || qsc_set_has_p2p(member))
		return;
	for (mapping = member->mappings; mapping; mapping = mapping->next)
		if (mapping->revoked)
			step->target = QSC_STATE_STOP;
}

static int stop_the_revoked(struct qsc_set *set, const struct qsc_step *steps,
			    struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < set->count; i++)
		if (is_stopped(steps[i].before) && !qsc_set_has_p2p(&set->members[i]))
			return qsc_wave(set, "stop", decide_stop_revoked, err);
	return 0;
}

static void decide_start(const struct qsc_set_member *member, struct qsc_step *step)
{
	if (qsc_set_has_p2p(member) && is_stopped(step->before))
		step->target = QSC_STATE_RUNNING_P2P;
}

/* Members without P2P, targets first; those of one level do not reach one another. */
static int run_in_order(struct qsc_set *set, struct qsc_error *err)
{
	uint32_t deepest = 0;
	uint32_t level;
	uint32_t i;

	for (i = 0; i < set->count; i++)
		if (set->members[i].level > deepest)
			deepest = set->members[i].level;
	for (level = 0; level <= deepest; level++) {
		qsc_autofree struct qsc_step *steps = NULL;
		int result = qsc_wave_read_states(set, &steps, err);

		if (result < 0)
			return result;
		for (i = 0; i < set->count; i++) {
			steps[i].phase = "run";
			if (!qsc_set_has_p2p(&set->members[i]) && is_stopped(steps[i].before) &&
			    set->members[i].level == level)
				steps[i].target = QSC_STATE_RUNNING;
		}
		result = qsc_wave_run_steps(set, steps, "run", err);
		if (result < 0)
			return result;
	}
	return 0;
}

static void decide_run(const struct qsc_set_member *member, struct qsc_step *step)
{
	(void)member;
	step->target = QSC_STATE_RUNNING;
}

/*
 * All are asked first: of devices that are about to run nothing is assumed, not even that they are
 * as the set left them, since loading and saving may have failed meanwhile.
 */
static int run_set(struct qsc_set *set, struct qsc_error *err)
{
	qsc_autofree struct qsc_step *steps = NULL;
	int result = qsc_set_plan_again(set, err);

	if (result < 0)
		return result;
	qsc_wave_forget_states(set);
	result = qsc_wave_read_states(set, &steps, err);
	if (result < 0)
		return result;
	result = refuse_error(set, steps, err);
	if (result < 0)
		return result;
	result = stop_the_revoked(set, steps, err);
	if (result < 0)
		return result;
	result = qsc_wave(set, "start", decide_start, err);
	if (result < 0)
		return result;
	result = restore_mappings(set, err);
	if (result < 0)
		return result;
	result = run_in_order(set, err);
	return result < 0 ? result : qsc_wave(set, "run", decide_run, err);
}

/* From here on the user may do with the devices as it likes. */
int qsc_set_run(struct qsc_set *set, struct qsc_error *err)
{
	int result = run_set(set, err);

	qsc_wave_forget_states(set);
	return result;
}

/* ---- giving up what was loaded ---- */

static void reset_step(void *arg)
{
	struct qsc_step *step = arg;
	struct qsc_set_member *member = &step->set->members[step->member];

	step->result = qsc_device_reset(member->dev);
	if (member->session)
		(void)qsc_device_session_close(member->dev, member->session);
	member->session = 0;
}

int qsc_set_reset(struct qsc_set *set, struct qsc_error *err)
{
	qsc_autofree struct qsc_step *steps = calloc(set->count + 1U, sizeof(*steps));
	qsc_autofree void **args = calloc(set->count + 1U, sizeof(*args));
	int result = restore_mappings(set, err);
	uint32_t i;

	if (!steps || !args)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to reset %u devices",
				     set->count);
	for (i = 0; i < set->count; i++) {
		steps[i] = (struct qsc_step){.set = set, .member = i, .target = QSC_STEP_STAY};
		args[i] = &steps[i];
	}
	qsc_wave_in_parallel(set, reset_step, args, set->count);
	qsc_wave_forget_states(set);
	for (i = 0; i < set->count; i++)
		if (steps[i].result < 0)
			return qsc_error_set(err, -steps[i].result, qsc_clause_id(QSC_CLAUSE_ARC_5),
					     "device '%s' could not be reset (%s)",
					     set->members[i].name,
					     strerrordesc_np(-steps[i].result));
	return result;
}
