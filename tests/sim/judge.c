/* SPDX-License-Identifier: MIT */
/*
 * What must hold after any run, whatever went wrong in it: the order of events, at most one side
 * that runs, and reports that are true.
 */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "world.h"

#define LATE_US 1500000 /* to say last words and to go back; less than the stall timeout */

static enum qsc_state state_of(const struct sim_side *side, uint32_t member)
{
	enum qsc_state state = QSC_STATE_ERROR;

	(void)qsc_device_get_state(side->layers[member].inner, &state);
	return state;
}

static bool all_running(const struct sim_side *side)
{
	uint32_t i;

	for (i = 0; i < side->world->members; i++)
		if (state_of(side, i) != QSC_STATE_RUNNING)
			return false;
	return true;
}

static bool all_stopped(const struct sim_side *side)
{
	uint32_t i;

	for (i = 0; i < side->world->members; i++)
		if (qsc_state_is_active(state_of(side, i)))
			return false;
	return true;
}

static void judge_order(struct sim_world *world)
{
	struct order_set shape = {.members = world->members};
	size_t where = 0;
	uint32_t i;
	int broken;

	for (i = 0; i < world->members; i++)
		shape.flags[i] = world->flags[i];
	broken = order_check(&shape, world->scene.events, world->scene.count, &where);
	if (world->scene.overflow)
		sim_wrong(world, "more events than can be judged");
	if (broken >= 0) {
		const struct order_event *event = &world->scene.events[where];

		sim_wrong(world, "%s is broken by event %zu: side %u device %u goes from %s to %s",
			  qsc_clause_id((enum qsc_clause)broken), where, event->side, event->member,
			  qsc_state_name(event->from), qsc_state_name(event->to));
	}
}

static bool happened(const struct sim_side *side)
{
	uint32_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(side->process.troubles); i++)
		if (side->process.troubles[i].happened)
			return true;
	return false;
}

/* A source that has a limit is done soon after it, unless the other side may own the set. */
static void judge_time(struct sim_world *world, const struct sim_side *side)
{
	uint64_t limit_us = side->options.timeout_ms * 1000ULL;

	if (limit_us && side->report.owner == QSC_OWNER_SOURCE &&
	    side->report.total_us > limit_us + LATE_US)
		sim_wrong(world, "side %u took %llu us, and its limit was %llu", side->process.side,
			  (unsigned long long)side->report.total_us, (unsigned long long)limit_us);
}

/* Whether anything at all went wrong there; the models and the threads count down by themselves. */
static bool may_have_trouble(const struct sim_side *side)
{
	uint32_t i;

	for (i = 0; i < side->world->members; i++)
		if (side->models[i].fault_done)
			return true;
	return happened(side) || side->env.parallel_failed;
}

static void judge_source(struct sim_world *world)
{
	const struct sim_side *side = &world->sides[0];

	switch (side->report.owner) {
	case QSC_OWNER_DESTINATION:
		if (side->result || !world->sides[1].resumed || side->tenant_runs)
			sim_wrong(world, "the source says that the destination runs");
		if (!all_stopped(side))
			sim_wrong(world, "the source gave the set up and a device still runs");
		return;
	case QSC_OWNER_UNPROVED:
		if (!side->result || !all_stopped(side) || side->tenant_runs)
			sim_wrong(world, "the source does not know who has the set, and runs");
		return;
	case QSC_OWNER_SOURCE:
		if (!side->result || world->sides[1].resumed)
			sim_wrong(world, "the source says that it has the set");
		if (side->tenant_runs && all_running(side))
			return;
		/* It could not be brought back: only for a reason of its own, and it says so. */
		if (!may_have_trouble(side) || !strstr(side->report.outcome, "could not be"))
			sim_wrong(world, "the source was not brought back (%s)", side->err.text);
		return;
	}
}

static bool is_blank(const struct sim_side *side, uint32_t member)
{
	const uint8_t *memory = qsc_block_data(side->models[member].rt, 0);
	uint32_t i;

	for (i = 0; i < SIM_BAR_BYTES; i++)
		if (memory[i])
			return false;
	return true;
}

static void judge_destination(struct sim_world *world)
{
	const struct sim_side *side = &world->sides[1];
	uint32_t i;

	switch (side->report.owner) {
	case QSC_OWNER_DESTINATION:
		if (side->result || !side->tenant_runs || !all_running(side))
			sim_wrong(world, "the destination says that it runs");
		return;
	case QSC_OWNER_UNPROVED:
		/* One that started and does not stop is named. */
		if (may_have_trouble(side) && strstr(side->report.outcome, "could be stopped"))
			return;
		if (!side->result || !all_stopped(side) || side->tenant_runs)
			sim_wrong(world, "the destination does not know who has the set, and runs");
		return;
	case QSC_OWNER_SOURCE:
		if (!side->result || side->tenant_runs || side->resumed)
			sim_wrong(world, "the destination says that the source has the set");
		/* A device that does not start any more cannot be reset, and that is said. */
		if (may_have_trouble(side) && strstr(side->report.outcome, "could not be reset"))
			return;
		for (i = 0; i < world->members; i++)
			if (state_of(side, i) != QSC_STATE_RUNNING || !is_blank(side, i))
				sim_wrong(world,
					  "SESS-7: device %u of the destination was not "
					  "reset",
					  i);
		return;
	}
}

static void judge_both(struct sim_world *world)
{
	const struct sim_side *source = &world->sides[0];
	const struct sim_side *target = &world->sides[1];
	bool harmed = may_have_trouble(source) || may_have_trouble(target) || world->net.faulted;
	/* A limit that cannot be kept is no trouble, and everything is as it was. */
	bool gave_up = source->result == -ETIME && !source->options.exceed_downtime;

	/* And so is a time limit. */
	gave_up |= source->result == -ETIMEDOUT &&
		   (source->options.timeout_ms || target->options.timeout_ms);
	if (source->tenant_runs && target->tenant_runs)
		sim_wrong(world, "SET-5: two owners");
	if (!harmed && !gave_up && (source->result || target->result))
		sim_wrong(world, "nothing went wrong and it failed: %s; %s", source->err.text,
			  target->err.text);
	if (source->process.dead || target->process.dead)
		return;
	if (source->report.owner == QSC_OWNER_SOURCE &&
	    target->report.owner == QSC_OWNER_DESTINATION)
		sim_wrong(world, "SET-5: both say that they have the set");
	if (source->report.owner == QSC_OWNER_DESTINATION &&
	    target->report.owner != QSC_OWNER_DESTINATION)
		sim_wrong(world, "SET-5: both say that the other has the set");
}

static void judge_words(struct sim_world *world, const struct sim_side *side)
{
	if (!side->report.outcome[0])
		sim_wrong(world, "side %u does not say how it ended", side->process.side);
	if (side->result && (!side->err.text[0] || side->err.number != -side->result))
		sim_wrong(world, "side %u does not say what went wrong (%d, '%s')",
			  side->process.side, side->result, side->err.text);
}

void sim_judge(struct sim_world *world)
{
	judge_order(world);
	judge_both(world);
	if (!world->sides[0].process.dead) {
		judge_source(world);
		judge_time(world, &world->sides[0]);
		judge_words(world, &world->sides[0]);
	}
	if (!world->sides[1].process.dead) {
		judge_destination(world);
		judge_words(world, &world->sides[1]);
	}
}
