/* SPDX-License-Identifier: MIT */
/*
 * What SET-1 to SET-3 say of two members of a set, for everybody who judges sets: the audit of a
 * user, and the tests of our own engine. Pure. Whether one reaches another, the caller knows: by a
 * mapping of the other's region in its DMA space that is in place.
 */
#ifndef QSC_CONTRACT_SET_RULES_H
#define QSC_CONTRACT_SET_RULES_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/contract.h>

struct set_member {
	uint32_t flags; /* QSC_MIGRATION_* */
	enum qsc_state state;
};

static inline bool set_may_start_peer_dma(enum qsc_state state)
{
	return state == QSC_STATE_RUNNING || state == QSC_STATE_PRE_COPY;
}

/* Whether such a move stops a device, and whether it takes one out of quiescence. */
bool set_stops(enum qsc_state from, enum qsc_state to);
bool set_runs(enum qsc_state from, enum qsc_state to);

/*
 * A member stops: what it breaks towards another one, of which it reaches or by which it is
 * reached. QSC_CLAUSE_SET_3, QSC_CLAUSE_SET_1 or QSC_CLAUSE_COUNT for nothing.
 */
enum qsc_clause set_stop_breaks(const struct set_member *member, const struct set_member *other,
				bool reaches, bool reached);
/* It leaves quiescence: QSC_CLAUSE_SET_2 or QSC_CLAUSE_COUNT. */
enum qsc_clause set_run_breaks(const struct set_member *member, const struct set_member *other,
			       bool reaches);

#endif
