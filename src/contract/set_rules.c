/* SPDX-License-Identifier: MIT */
/* See set_rules.h. */
#include "contract/set_rules.h"

/* ERROR is not STOP: a device that breaks while leaving quiescence holds up nobody. */
static bool not_left_stop(enum qsc_state state)
{
	return !qsc_state_is_active(state) && state != QSC_STATE_ERROR;
}

bool set_stops(enum qsc_state from, enum qsc_state to)
{
	return qsc_state_is_active(from) && not_left_stop(to);
}

bool set_runs(enum qsc_state from, enum qsc_state to)
{
	return to == QSC_STATE_RUNNING && (qsc_state_is_p2p(from) || not_left_stop(from));
}

/*
 * What a member without P2P reaches has to have been taken away before it stops, whether or not
 * what it reaches still runs: nothing else made it quiescent.
 */
enum qsc_clause set_stop_breaks(const struct set_member *member, const struct set_member *other,
				bool reaches, bool reached)
{
	if (!(member->flags & QSC_MIGRATION_P2P) && reaches)
		return QSC_CLAUSE_SET_3;
	if (reached && set_may_start_peer_dma(other->state))
		return QSC_CLAUSE_SET_1;
	return QSC_CLAUSE_COUNT;
}

/* A member without P2P has no quiescence to leave: what it reaches must have left STOP. */
enum qsc_clause set_run_breaks(const struct set_member *member, const struct set_member *other,
			       bool reaches)
{
	if (not_left_stop(other->state) && (member->flags & QSC_MIGRATION_P2P || reaches))
		return QSC_CLAUSE_SET_2;
	return QSC_CLAUSE_COUNT;
}
