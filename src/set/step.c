/* SPDX-License-Identifier: MIT */
/* See wave.h: what every wave has in common, whatever it decides. */
#include "set/wave.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/probe.h"

#define FEW 16

static void let_go_of_session(struct qsc_set_member *member, enum qsc_state state)
{
	if (!member->session || qsc_state_is_saving(state) || state == QSC_STATE_RESUMING)
		return;
	(void)qsc_device_session_close(member->dev, member->session);
	member->session = 0;
}

/*
 * Tell the device to go, where it need not be waited for at once and has nothing to do before. A
 * failure is left to take_step().
 */
static void begin_step(struct qsc_step *step)
{
	struct qsc_set_member *member = &step->set->members[step->member];

	if (step->revoke || step->target == QSC_STEP_STAY)
		return;
	step->start = qsc_set_now(step->set);
	step->result = qsc_device_set_state_begin(member->dev, (uint32_t)step->target);
	step->begun = step->result == 0;
	if (step->result == -EOPNOTSUPP)
		step->result = 0;
	if (step->begun)
		QSC_PROBE(state__begin, member->name, step->before, step->target);
}

static int finish_change(struct qsc_step *step, uint64_t *session)
{
	struct qsc_set_member *member = &step->set->members[step->member];

	/* It could not even be asked. */
	if (step->result < 0)
		return step->result;
	if (step->begun)
		return qsc_device_set_state_end(member->dev, session);
	QSC_PROBE(state__begin, member->name, step->before, step->target);
	return qsc_device_set_state(member->dev, (uint32_t)step->target, session);
}

static void change_state(struct qsc_step *step)
{
	struct qsc_set_member *member = &step->set->members[step->member];
	uint64_t session = 0;

	step->result = finish_change(step, &session);
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
static void revoke_mappings(struct qsc_step *step)
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
	struct qsc_step *step = arg;
	uint64_t start = step->begun ? step->start : qsc_set_now(step->set);
	bool kept = false;

	if (step->revoke) {
		revoke_mappings(step);
		kept = step->result < 0;
	}
	if (!kept && step->target != QSC_STEP_STAY)
		change_state(step);
	qsc_set_phase(step->set, step->revoke ? "revoke" : step->phase, step->member, start, 0);
}

static int report_state(const struct qsc_step *step, struct qsc_error *err)
{
	const char *name = step->set->members[step->member].name;
	const char *from = qsc_state_name(step->before);
	const char *to = qsc_state_name((enum qsc_state)step->target);
	const char *why = strerrordesc_np(-step->result);
	const char *clause = NULL;

	if (step->state_result < 0)
		return qsc_error_set(err, -step->result, qsc_clause_id(QSC_CLAUSE_STATE_4),
				     "device '%s' failed to go from %s to %s (%s), and its state "
				     "cannot be read (%s): its server or driver is gone",
				     name, from, to, why, strerrordesc_np(-step->state_result));
	/* A device may fail: of the contract that breaks nothing. */
	if (step->before == QSC_STATE_RESUMING)
		clause = qsc_clause_id(QSC_CLAUSE_SESS_6);
	return qsc_error_set(err, -step->result, clause,
			     "device '%s' failed to go from %s to %s (%s) and is in %s%s", name,
			     from, to, why, qsc_state_name(step->after),
			     step->after == QSC_STATE_ERROR
				     ? ": only a reset brings it back, without its state"
				     : "");
}

static int report_failure(const struct qsc_step *step, uint32_t more, struct qsc_error *err)
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

void qsc_wave_in_parallel(struct qsc_set *set, void (*task)(void *arg), void **args, size_t count)
{
	size_t i;

	if (set->env->parallel(set->env->ctx, task, args, count) < 0)
		for (i = 0; i < count; i++)
			task(args[i]);
}

void qsc_wave_forget_states(struct qsc_set *set)
{
	uint32_t i;

	for (i = 0; i < set->count; i++)
		set->members[i].state_known = false;
}

int qsc_wave_run_steps(struct qsc_set *set, struct qsc_step *steps, const char *phase,
		       struct qsc_error *err)
{
	qsc_autofree void **moving = calloc(set->count + 1U, sizeof(*moving));
	const struct qsc_step *failed = NULL;
	uint64_t start = qsc_set_now(set);
	uint32_t failures = 0;
	size_t count = 0;
	uint32_t i;

	if (!moving)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to move %u devices", set->count);
	for (i = 0; i < set->count; i++)
		if (steps[i].target != QSC_STEP_STAY || steps[i].revoke)
			moving[count++] = &steps[i];
	if (!count)
		return 0;
	QSC_PROBE(wave__begin, phase, count);
	for (i = 0; i < count; i++)
		begin_step(moving[i]);
	qsc_wave_in_parallel(set, take_step, moving, count);
	qsc_set_phase(set, phase, QSC_TIMELINE_ALL, start, 0);
	for (i = 0; i < set->count; i++) {
		if (steps[i].result == 0)
			continue;
		failed = failed ? failed : &steps[i];
		failures++;
	}
	QSC_PROBE(wave__end, phase, count, failures);
	if (failed)
		qsc_wave_forget_states(set);
	return failed ? report_failure(failed, failures - 1, err) : 0;
}

static void read_state(void *arg)
{
	struct qsc_step *step = arg;
	struct qsc_set_member *member = &step->set->members[step->member];

	step->result = qsc_device_get_state(member->dev, &member->state);
	member->state_known = step->result == 0;
}

int qsc_wave_read_states(struct qsc_set *set, struct qsc_step **out, struct qsc_error *err)
{
	qsc_autofree struct qsc_step *steps = calloc(set->count + 1U, sizeof(*steps));
	qsc_autofree void **asking = calloc(set->count + 1U, sizeof(*asking));
	size_t count = 0;
	uint32_t i;

	if (!steps || !asking) {
		qsc_error_set(err, ENOMEM, NULL, "no memory to move %u devices", set->count);
		return -ENOMEM;
	}
	for (i = 0; i < set->count; i++) {
		steps[i] = (struct qsc_step){.set = set, .member = i, .target = QSC_STEP_STAY};
		if (!set->members[i].state_known)
			asking[count++] = &steps[i];
	}
	/* A question is answered at once: for a few, threads take longer than they save. */
	if (count > FEW)
		qsc_wave_in_parallel(set, read_state, asking, count);
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

int qsc_wave(struct qsc_set *set, const char *phase, qsc_decide_fn *decide, struct qsc_error *err)
{
	qsc_autofree struct qsc_step *steps = NULL;
	uint32_t i;
	int result = qsc_wave_read_states(set, &steps, err);

	if (result < 0)
		return result;
	for (i = 0; i < set->count; i++) {
		steps[i].phase = phase;
		decide(&set->members[i], &steps[i]);
		if (steps[i].target == (int)steps[i].before)
			steps[i].target = QSC_STEP_STAY;
	}
	return qsc_wave_run_steps(set, steps, phase, err);
}
