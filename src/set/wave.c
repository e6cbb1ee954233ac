/* SPDX-License-Identifier: MIT */
/*
 * The waves. One wave decides from the true state of every member where each has to go, and takes
 * those that have to move there side by side. Who is in which state is read where it is not known
 * from the wave before. The order of waves is what keeps the clauses:
 *
 *   down  quiesce: P2P states, and peer mappings of members without P2P revoked (SET-1), then stop
 *   up    STOP to P2P states, then revoked mappings back (SET-4), then members without P2P in order
 *         of reach, then P2P states to RUNNING (SET-2)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/probe.h"
#include "set/set.h"

#define STAY (-1)
#define FEW  16

/* What one member does in a wave, and what came of it. */
struct step {
	struct qsc_set *set;
	uint32_t member;
	const char *phase;
	enum qsc_state before;
	int target; /* a state, or STAY */
	bool revoke;
	int result;
	int state_result; /* of reading the state after a failure */
	enum qsc_state after;
	const struct qsc_set_mapping *mapping; /* whose removal failed */
};

static bool is_stopped(enum qsc_state state)
{
	return !qsc_state_is_active(state);
}

/* ---- one wave ---- */

static void let_go_of_session(struct qsc_set_member *member, enum qsc_state state)
{
	if (!member->session || qsc_state_is_saving(state) || state == QSC_STATE_RESUMING)
		return;
	(void)qsc_device_session_close(member->dev, member->session);
	member->session = 0;
}

static void change_state(struct step *step)
{
	struct qsc_set_member *member = &step->set->members[step->member];
	uint64_t session = 0;

	QSC_PROBE(state__begin, member->name, step->before, step->target);
	step->result = qsc_device_set_state(member->dev, (uint32_t)step->target, &session);
	step->after = (enum qsc_state)step->target;
	member->state = step->after;
	/* ORD-4: what a failed request did is read, not guessed. */
	if (step->result < 0)
		step->state_result = qsc_device_get_state(member->dev, &step->after);
	QSC_PROBE(state__end, member->name, step->before, step->after, step->result);
	if (session && step->result == 0) {
		if (member->session)
			(void)qsc_device_session_close(member->dev, member->session);
		member->session = session;
	}
	if (step->state_result == 0)
		let_go_of_session(member, step->after);
}

/* When an unmap returns, no access through the mapping is under way or will come. */
static void revoke_mappings(struct step *step)
{
	struct qsc_set_member *member = &step->set->members[step->member];
	struct qsc_set_mapping *mapping;

	for (mapping = member->mappings; mapping; mapping = mapping->next) {
		if (!qsc_set_reaches(mapping, step->member) || mapping->revoked)
			continue;
		step->result = qsc_device_dma_unmap(member->dev, mapping->dma.iova,
						    mapping->dma.size);
		if (step->result < 0) {
			step->mapping = mapping;
			return;
		}
		mapping->revoked = true;
	}
}

static void take_step(void *arg)
{
	struct step *step = arg;
	uint64_t start = qsc_set_now(step->set);

	if (step->revoke)
		revoke_mappings(step);
	if (step->result == 0 && step->target != STAY)
		change_state(step);
	qsc_set_phase(step->set, step->revoke ? "revoke" : step->phase, step->member, start, 0);
}

static int report_state(const struct step *step, struct qsc_error *err)
{
	const char *name = step->set->members[step->member].name;
	const char *from = qsc_state_name(step->before);
	const char *to = qsc_state_name((enum qsc_state)step->target);
	const char *why = strerrordesc_np(-step->result);
	enum qsc_clause clause = QSC_CLAUSE_ORD_4;

	if (step->state_result < 0)
		return qsc_error_set(err, -step->result, qsc_clause_id(clause),
				     "device '%s' failed to go from %s to %s (%s), and its state "
				     "cannot be read (%s): its server or driver is gone",
				     name, from, to, why, strerrordesc_np(-step->state_result));
	if (step->before == QSC_STATE_RESUMING)
		clause = QSC_CLAUSE_SESS_6;
	else if (step->after == QSC_STATE_ERROR)
		clause = QSC_CLAUSE_ARC_5;
	return qsc_error_set(err, -step->result, qsc_clause_id(clause),
			     "device '%s' failed to go from %s to %s (%s) and is in %s%s", name,
			     from, to, why, qsc_state_name(step->after),
			     step->after == QSC_STATE_ERROR
				     ? ": only a reset brings it back, without its state"
				     : "");
}

static int report_failure(const struct step *step, uint32_t more, struct qsc_error *err)
{
	int result;

	if (step->mapping)
		result = qsc_error_set(err, -step->result, qsc_clause_id(QSC_CLAUSE_SET_3),
				       "device '%s' did not give up its mapping of device '%s' at "
				       "IOVA %#llx (%s), so it cannot be made quiescent",
				       step->set->members[step->member].name,
				       step->set->members[step->mapping->peer.peer].name,
				       (unsigned long long)step->mapping->dma.iova,
				       strerrordesc_np(-step->result));
	else
		result = report_state(step, err);
	if (more && err)
		qsc_error_prefix(err, "%u devices failed; the first: ", more + 1);
	return result;
}

/*
 * Members do not wait for one another in a wave, so where threads are short they move one after
 * another: slower, and nothing is left half-way for want of a thread.
 */
static void in_parallel(struct qsc_set *set, void (*task)(void *arg), void **args, size_t count)
{
	size_t i;

	if (set->env->parallel(set->env->ctx, task, args, count) < 0)
		for (i = 0; i < count; i++)
			task(args[i]);
}

static void forget_states(struct qsc_set *set)
{
	uint32_t i;

	for (i = 0; i < set->count; i++)
		set->members[i].state_known = false;
}

/* Every step that does something, side by side. 0 or the first failure. */
static int run_steps(struct qsc_set *set, struct step *steps, const char *phase,
		     struct qsc_error *err)
{
	qsc_autofree void **moving = calloc(set->count + 1U, sizeof(*moving));
	const struct step *failed = NULL;
	uint64_t start = qsc_set_now(set);
	uint32_t failures = 0;
	size_t count = 0;
	uint32_t i;

	if (!moving)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to move %u devices", set->count);
	for (i = 0; i < set->count; i++)
		if (steps[i].target != STAY || steps[i].revoke)
			moving[count++] = &steps[i];
	if (!count)
		return 0;
	QSC_PROBE(wave__begin, phase, count);
	in_parallel(set, take_step, moving, count);
	qsc_set_phase(set, phase, QSC_TIMELINE_ALL, start, 0);
	for (i = 0; i < set->count; i++) {
		if (steps[i].result == 0)
			continue;
		failed = failed ? failed : &steps[i];
		failures++;
	}
	QSC_PROBE(wave__end, phase, count, failures);
	if (failed)
		forget_states(set);
	return failed ? report_failure(failed, failures - 1, err) : 0;
}

static void read_state(void *arg)
{
	struct step *step = arg;
	struct qsc_set_member *member = &step->set->members[step->member];

	step->result = qsc_device_get_state(member->dev, &member->state);
	member->state_known = step->result == 0;
}

/* Steps that know where each member is and do nothing yet: nobody moves before all have told. */
static int read_states(struct qsc_set *set, struct step **out, struct qsc_error *err)
{
	qsc_autofree struct step *steps = calloc(set->count + 1U, sizeof(*steps));
	qsc_autofree void **asking = calloc(set->count + 1U, sizeof(*asking));
	size_t count = 0;
	uint32_t i;

	if (!steps || !asking) {
		qsc_error_set(err, ENOMEM, NULL, "no memory to move %u devices", set->count);
		return -ENOMEM;
	}
	for (i = 0; i < set->count; i++) {
		steps[i] = (struct step){.set = set, .member = i, .target = STAY};
		if (!set->members[i].state_known)
			asking[count++] = &steps[i];
	}
	/* A question is answered at once: for a few, threads take longer than they save. */
	if (count > FEW)
		in_parallel(set, read_state, asking, count);
	else
		for (i = 0; i < count; i++)
			read_state(asking[i]);
	for (i = 0; i < set->count; i++) {
		int result = steps[i].result;

		steps[i].before = set->members[i].state;
		if (result >= 0)
			continue;
		qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_STATE_4),
			      "device '%s' does not tell its state (%s): its server or driver is "
			      "gone",
			      set->members[i].name, strerrordesc_np(-result));
		return result;
	}
	*out = qsc_steal(steps);
	return 0;
}

typedef void decide_fn(const struct qsc_set_member *member, struct step *step);

static int wave(struct qsc_set *set, const char *phase, decide_fn *decide, struct qsc_error *err)
{
	qsc_autofree struct step *steps = NULL;
	uint32_t i;
	int result = read_states(set, &steps, err);

	if (result < 0)
		return result;
	for (i = 0; i < set->count; i++) {
		steps[i].phase = phase;
		decide(&set->members[i], &steps[i]);
		if (steps[i].target == (int)steps[i].before)
			steps[i].target = STAY;
	}
	return run_steps(set, steps, phase, err);
}

/* ---- down ---- */

static void decide_precopy(const struct qsc_set_member *member, struct step *step)
{
	if (member->flags & QSC_MIGRATION_PRE_COPY && step->before == QSC_STATE_RUNNING)
		step->target = QSC_STATE_PRE_COPY;
}

int qsc_set_precopy(struct qsc_set *set, struct qsc_error *err)
{
	return wave(set, "start-precopy", decide_precopy, err);
}

static void decide_quiesce(const struct qsc_set_member *member, struct step *step)
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

	return result < 0 ? result : wave(set, "quiesce", decide_quiesce, err);
}

static void decide_stop_copy(const struct qsc_set_member *member, struct step *step)
{
	(void)member;
	step->target = QSC_STATE_STOP_COPY;
}

int qsc_set_stop_copy(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	return result < 0 ? result : wave(set, "stop", decide_stop_copy, err);
}

static void decide_stop(const struct qsc_set_member *member, struct step *step)
{
	(void)member;
	step->target = QSC_STATE_STOP;
	if (step->before == QSC_STATE_RESUMING)
		step->phase = "validate";
}

int qsc_set_stop(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	return result < 0 ? result : wave(set, "stop", decide_stop, err);
}

static void decide_stop_before_resuming(const struct qsc_set_member *member, struct step *step)
{
	(void)member;
	if (step->before != QSC_STATE_RESUMING)
		step->target = QSC_STATE_STOP;
}

static void decide_resuming(const struct qsc_set_member *member, struct step *step)
{
	(void)member;
	step->target = QSC_STATE_RESUMING;
}

int qsc_set_resuming(struct qsc_set *set, struct qsc_error *err)
{
	int result = qsc_set_quiesce(set, err);

	if (result == 0)
		result = wave(set, "stop", decide_stop_before_resuming, err);
	return result < 0 ? result : wave(set, "start-load", decide_resuming, err);
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

static void decide_leave_precopy(const struct qsc_set_member *member, struct step *step)
{
	(void)member;
	if (step->before == QSC_STATE_PRE_COPY)
		step->target = QSC_STATE_RUNNING;
}

/*
 * A device in ERROR has lost its state; no order of the others makes the set whole (ORD-8). Those
 * that never left running go on as they are, nothing else starts.
 */
static int refuse_error(struct qsc_set *set, const struct step *steps, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < set->count && steps[i].before != QSC_STATE_ERROR; i++)
		;
	if (i == set->count)
		return 0;
	(void)wave(set, "run", decide_leave_precopy, NULL);
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
static void decide_stop_revoked(const struct qsc_set_member *member, struct step *step)
{
	const struct qsc_set_mapping *mapping;

	if (is_stopped(step->before) || qsc_set_has_p2p(member))
		return;
	for (mapping = member->mappings; mapping; mapping = mapping->next)
		if (mapping->revoked)
			step->target = QSC_STATE_STOP;
}

static int stop_the_revoked(struct qsc_set *set, const struct step *steps, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < set->count; i++)
		if (is_stopped(steps[i].before) && !qsc_set_has_p2p(&set->members[i]))
			return wave(set, "stop", decide_stop_revoked, err);
	return 0;
}

static void decide_start(const struct qsc_set_member *member, struct step *step)
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
		qsc_autofree struct step *steps = NULL;
		int result = read_states(set, &steps, err);

		if (result < 0)
			return result;
		for (i = 0; i < set->count; i++) {
			steps[i].phase = "run";
			if (!qsc_set_has_p2p(&set->members[i]) && is_stopped(steps[i].before) &&
			    set->members[i].level == level)
				steps[i].target = QSC_STATE_RUNNING;
		}
		result = run_steps(set, steps, "run", err);
		if (result < 0)
			return result;
	}
	return 0;
}

static void decide_run(const struct qsc_set_member *member, struct step *step)
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
	qsc_autofree struct step *steps = NULL;
	int result = qsc_set_plan_again(set, err);

	if (result < 0)
		return result;
	forget_states(set);
	result = read_states(set, &steps, err);
	if (result < 0)
		return result;
	result = refuse_error(set, steps, err);
	if (result < 0)
		return result;
	result = stop_the_revoked(set, steps, err);
	if (result < 0)
		return result;
	result = wave(set, "start", decide_start, err);
	if (result < 0)
		return result;
	result = restore_mappings(set, err);
	if (result < 0)
		return result;
	result = run_in_order(set, err);
	return result < 0 ? result : wave(set, "run", decide_run, err);
}

/* From here on the user may do with the devices as it likes. */
int qsc_set_run(struct qsc_set *set, struct qsc_error *err)
{
	int result = run_set(set, err);

	forget_states(set);
	return result;
}

/* ---- giving up what was loaded ---- */

static void reset_step(void *arg)
{
	struct step *step = arg;
	struct qsc_set_member *member = &step->set->members[step->member];

	step->result = qsc_device_reset(member->dev);
	if (member->session)
		(void)qsc_device_session_close(member->dev, member->session);
	member->session = 0;
}

int qsc_set_reset(struct qsc_set *set, struct qsc_error *err)
{
	qsc_autofree struct step *steps = calloc(set->count + 1U, sizeof(*steps));
	qsc_autofree void **args = calloc(set->count + 1U, sizeof(*args));
	int result = restore_mappings(set, err);
	uint32_t i;

	if (!steps || !args)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to reset %u devices",
				     set->count);
	for (i = 0; i < set->count; i++) {
		steps[i] = (struct step){.set = set, .member = i, .target = STAY};
		args[i] = &steps[i];
	}
	in_parallel(set, reset_step, args, set->count);
	forget_states(set);
	for (i = 0; i < set->count; i++)
		if (steps[i].result < 0)
			return qsc_error_set(err, -steps[i].result, qsc_clause_id(QSC_CLAUSE_ARC_5),
					     "device '%s' could not be reset (%s)",
					     set->members[i].name,
					     strerrordesc_np(-steps[i].result));
	return result;
}
