/* SPDX-License-Identifier: MIT */
/* See order_check.h. */
#include "set/order_check.h"

#include <string.h>

#include "contract/set_rules.h"

#define MAX_MAPPINGS 64

struct mapping {
	uint32_t member;
	uint32_t peer;
	uint64_t iova;
	bool here; /* else it has been taken away and has not come back */
};

struct side {
	enum qsc_state state[ORDER_MEMBERS];
	bool live[ORDER_MEMBERS]; /* holds what is moved, not power-on contents */
	struct mapping mappings[MAX_MAPPINGS];
	uint32_t num_mappings;
};

static bool reaches(const struct side *side, uint32_t from, uint32_t to)
{
	uint32_t i;

	for (i = 0; i < side->num_mappings; i++)
		if (side->mappings[i].here && side->mappings[i].member == from &&
		    side->mappings[i].peer == to && from != to)
			return true;
	return false;
}

static void note_mapping(struct side *side, const struct order_event *event)
{
	struct mapping *mapping;
	uint32_t i;

	for (i = 0; i < side->num_mappings; i++) {
		mapping = &side->mappings[i];
		if (mapping->member == event->member && mapping->iova == event->iova) {
			mapping->here = event->kind == ORDER_MAP;
			return;
		}
	}
	if (event->kind == ORDER_UNMAP || side->num_mappings == MAX_MAPPINGS)
		return;
	side->mappings[side->num_mappings++] = (struct mapping){
		.member = event->member, .peer = event->peer, .iova = event->iova, .here = true};
}

static struct set_member member_of(const struct order_set *set, const struct side *side, uint32_t m)
{
	return (struct set_member){set->flags[m], side->state[m]};
}

/* The first clause that is broken towards another one, those of reach (SET-3) before others. */
static int check_stop(const struct order_set *set, const struct side *side, uint32_t member)
{
	const struct set_member stops = member_of(set, side, member);
	int broken = -1;

	for (uint32_t i = 0; i < set->members; i++) {
		const struct set_member other = member_of(set, side, i);
		enum qsc_clause clause = set_stop_breaks(&stops, &other, reaches(side, member, i),
							 reaches(side, i, member));

		if (clause != QSC_CLAUSE_COUNT && broken != QSC_CLAUSE_SET_3)
			broken = (int)clause;
	}
	return broken;
}

static int check_run(const struct order_set *set, const struct side *side, uint32_t member)
{
	const struct set_member runs = member_of(set, side, member);
	uint32_t i;

	for (i = 0; i < set->members; i++) {
		const struct set_member other = member_of(set, side, i);

		if (i != member &&
		    set_run_breaks(&runs, &other, reaches(side, member, i)) != QSC_CLAUSE_COUNT)
			return QSC_CLAUSE_SET_2;
	}
	for (i = 0; i < side->num_mappings; i++)
		if (!side->mappings[i].here)
			return QSC_CLAUSE_SET_4;
	return -1;
}

static bool runs(const struct order_set *set, const struct side *side)
{
	uint32_t i;

	for (i = 0; i < set->members; i++)
		if (side->live[i] && qsc_state_is_active(side->state[i]))
			return true;
	return false;
}

static int take_arc(const struct order_set *set, struct side *side, const struct order_event *event)
{
	int broken = -1;

	if (set_runs(event->from, event->to))
		broken = check_run(set, side, event->member);
	if (set_stops(event->from, event->to))
		broken = check_stop(set, side, event->member);
	side->state[event->member] = event->to;
	if (event->to == QSC_STATE_RESUMING)
		side->live[event->member] = true;
	return broken;
}

int order_check(const struct order_set *set, const struct order_event *events, size_t count,
		size_t *where)
{
	struct side sides[ORDER_SIDES];
	size_t i;
	uint32_t m;

	memset(sides, 0, sizeof(sides));
	for (m = 0; m < set->members; m++) {
		sides[0].state[m] = QSC_STATE_RUNNING;
		sides[1].state[m] = QSC_STATE_RUNNING;
		sides[0].live[m] = true;
	}
	for (i = 0; i < count; i++) {
		const struct order_event *event = &events[i];
		struct side *side = &sides[event->side];
		int broken = -1;

		*where = i;
		if (event->kind == ORDER_STATE) {
			broken = take_arc(set, side, event);
		} else if (event->kind == ORDER_RESET) {
			side->state[event->member] = QSC_STATE_RUNNING;
			side->live[event->member] = false;
		} else {
			note_mapping(side, event);
		}
		if (broken < 0 && runs(set, &sides[0]) && runs(set, &sides[1]))
			broken = QSC_CLAUSE_SET_5;
		if (broken >= 0)
			return broken;
	}
	return -1;
}
