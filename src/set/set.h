/* SPDX-License-Identifier: MIT */
/* What the files of the set share, and what the engine needs beyond <quiesce/set.h>. */
#ifndef QSC_SET_SET_H
#define QSC_SET_SET_H

#include <quiesce/set.h>

/* A mapping in a member's DMA space; on the member's list from map to unmap. */
struct qsc_set_mapping {
	struct qsc_set_mapping *next;
	struct qsc_dma_mapping dma;
	bool is_peer;
	bool revoked; /* taken away by the quiesce wave, to come back before RUNNING (SET-4) */
	struct qsc_peer_mapping peer;
	/* Of a peer mapping: how the range is reached, released when it goes. */
	struct qsc_device *peer_dev;
	void *vaddr;
	int fd;
	struct qsc_dma_access access;
};

struct qsc_set_member {
	char *name;
	struct qsc_device *dev;
	uint32_t flags;
	bool dirty_log;
	/*
	 * As the device told it, or as the last wave brought about, which is the same (STATE-3);
	 * known from a first wave until the set runs again or anything fails (ORD-4).
	 */
	enum qsc_state state;
	bool state_known;
	uint64_t session;
	struct qsc_set_mapping *mappings;
	/* From the plan: order of leaving STOP for a member without P2P, targets first from 0 on.
	 */
	uint32_t level;
};

struct qsc_set {
	const struct qsc_env *env;
	struct qsc_timeline *timeline;
	struct qsc_set_member *members;
	uint32_t count;
	bool planned;		  /* what follows from the plan is that of the set as it is */
	enum qsc_quiesce quiesce; /* mode of the last plan, in which the waves plan anew */
};

static inline bool qsc_set_has_p2p(const struct qsc_set_member *member)
{
	return member->flags & QSC_MIGRATION_P2P;
}

static inline uint64_t qsc_set_now(const struct qsc_set *set)
{
	return set->env->now_us(set->env->ctx);
}

/* Whether a mapping lets its member reach another one: SET-3. */
static inline bool qsc_set_reaches(const struct qsc_set_mapping *mapping, uint32_t member)
{
	return mapping->is_peer && mapping->peer.peer != member;
}

/* Add a phase that began at start_us and ends now. */
void qsc_set_phase(struct qsc_set *set, const char *name, uint32_t member, uint64_t start_us,
		   uint64_t bytes);

/*
 * Give up what was loaded: revoked mappings come back, every member is reset (never abandoned in
 * RESUMING, ORD-9) and finds itself RUNNING with power-on contents.
 */
int qsc_set_reset(struct qsc_set *set, struct qsc_error *err);

/* The plan of the set as it is, where there is none: in the mode of the last one. */
int qsc_set_plan_again(struct qsc_set *set, struct qsc_error *err);

#endif
