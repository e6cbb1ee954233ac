/* SPDX-License-Identifier: MIT */
/*
 * Several devices of one user, moved through the states together. The set knows every mapping in
 * each member's DMA space, computes from them which device can reach which (SET-3), and takes all
 * members through the states in waves, so that no device stops while another can still write into
 * it (SET-1) and none runs before all have left STOP (SET-2).
 *
 * Threads: one thread at a time uses a set; the waves run the members side by side by themselves.
 */
#ifndef QUIESCE_SET_H
#define QUIESCE_SET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- timeline: what happened when ---- */

#define QSC_TIMELINE_ALL UINT32_MAX

struct qsc_phase {
	const char *name; /* static storage: "quiesce", "stop-copy", "load", … */
	uint32_t member;  /* index in the set, or QSC_TIMELINE_ALL */
	uint64_t start_us;
	uint64_t duration_us;
	uint64_t bytes; /* moved in it; 0 where nothing is moved */
};

struct qsc_timeline;

/* -ENOMEM. */
QSC_API int qsc_timeline_create(struct qsc_timeline **timeline);
/* NULL is allowed. Nobody may be adding any more. */
QSC_API void qsc_timeline_destroy(struct qsc_timeline *timeline);
/* From any thread. timeline may be NULL. A phase that finds no memory is left out. */
QSC_API void qsc_timeline_add(struct qsc_timeline *timeline, const struct qsc_phase *phase);
/* In order of start. The array is the timeline's, valid until the next add. */
QSC_API size_t qsc_timeline_phases(struct qsc_timeline *timeline, const struct qsc_phase **phases);

/* ---- the set ---- */

struct qsc_set;

/* env NULL: the real one. timeline may be NULL; it is borrowed, as env is. -ENOMEM. */
QSC_API int qsc_set_create(const struct qsc_env *env, struct qsc_timeline *timeline,
			   struct qsc_set **set);
/* The devices stay open and as they are. NULL is allowed. */
QSC_API void qsc_set_destroy(struct qsc_set *set);

/*
 * Add an open device; the set borrows it until it is destroyed. `name` is copied and stands in
 * every message. Returns the member's index, -ENOTTY with the reason for a device that cannot
 * migrate, -EINVAL for flags that are no valid set (STATE-1), -EEXIST for a device
 * or a name that the set has already.
 */
QSC_API int qsc_set_add(struct qsc_set *set, const char *name, struct qsc_device *dev,
			struct qsc_error *err);
QSC_API uint32_t qsc_set_count(const struct qsc_set *set);
QSC_API struct qsc_device *qsc_set_device(const struct qsc_set *set, uint32_t member);
QSC_API const char *qsc_set_name(const struct qsc_set *set, uint32_t member);
QSC_API uint32_t qsc_set_flags(const struct qsc_set *set, uint32_t member);
QSC_API bool qsc_set_has_dirty_log(const struct qsc_set *set, uint32_t member);
/* Session that the last wave opened for the member, 0 for none. */
QSC_API uint64_t qsc_set_session(const struct qsc_set *set, uint32_t member);

/*
 * Memory in a member's DMA space. All mappings of members go through the set, or reach cannot be
 * known. Legal in every state (ORD-3: before the device leaves STOP). map: -EINVAL for a member
 * that is none or a mapping with QSC_DMA_PEER (SET-3), -ENOMEM, or as qsc_device_dma_map(). unmap:
 * of a peer mapping too; -EINVAL for a member that is none, -ENOENT when the set made no mapping of
 * that iova and size, or as qsc_device_dma_unmap(), and the mapping then stays.
 */
QSC_API int qsc_set_dma_map(struct qsc_set *set, uint32_t member,
			    const struct qsc_dma_mapping *mapping, struct qsc_error *err);
QSC_API int qsc_set_dma_unmap(struct qsc_set *set, uint32_t member, uint64_t iova, uint64_t size);

/*
 * Make part of another member's region reachable by DMA: [offset, offset + size) of `region` of
 * `peer` appears at iova in the DMA space of `member`. Legal in every state. -EINVAL for a member
 * or region that is none and for what is not whole pages within the region; -ENOMEM; or as
 * qsc_device_dma_map(). Removed with qsc_set_dma_unmap() or the set.
 */
struct qsc_peer_mapping {
	uint64_t iova;
	uint64_t size;
	uint32_t flags; /* QSC_DMA_READ, QSC_DMA_WRITE; PEER is implied */
	uint32_t peer;
	uint32_t region;
	uint64_t offset;
};
QSC_API int qsc_set_map_peer(struct qsc_set *set, uint32_t member,
			     const struct qsc_peer_mapping *mapping, struct qsc_error *err);

#define QSC_REACH_ANY UINT32_MAX

/*
 * Reach (SET-3): the mappings by which `member` can do DMA into a region of `peer`, or of any other
 * member with QSC_REACH_ANY, in order of IOVA. Returns how many there are, 0 where it cannot, and
 * fills in at most `max`; mappings may be NULL with max 0. Those that are revoked for the moment
 * are among them: they come back. A member's mapping of its own regions is no reach.
 */
QSC_API size_t qsc_set_reach(const struct qsc_set *set, uint32_t member, uint32_t peer,
			     struct qsc_peer_mapping *mappings, size_t max);

/*
 * How devices that cannot quiesce themselves are made quiescent. Nothing is revoked unless it was
 * asked for (SET-3): the default, 0, is NATIVE.
 */
enum qsc_quiesce {
	QSC_QUIESCE_NATIVE, /* refuse a device without P2P that reaches a peer */
	QSC_QUIESCE_REVOKE, /* take such a device's peer mappings away for the duration */
	QSC_QUIESCE_AUTO,   /* natively where that suffices, else as REVOKE */
};

struct qsc_set_plan {
	enum qsc_quiesce strategy; /* NATIVE, or REVOKE when something will be revoked */
	uint32_t revoked_mappings;
	char reason[256]; /* one sentence */
};

/*
 * Decide before anything is touched. -EOPNOTSUPP with clause SET-3 names the pair and the mapping
 * that forbid it. Devices without P2P that reach one another in a circle are refused under every
 * mode: no order of starting them would satisfy SET-2. -EINVAL for a mode that is none.
 *
 * The waves follow the last plan, and refuse what it refused. Members and mappings that came or
 * went since are planned anew by the next wave, in the mode of the last plan; NATIVE when there was
 * none.
 */
QSC_API int qsc_set_plan(struct qsc_set *set, enum qsc_quiesce mode, struct qsc_set_plan *plan,
			 struct qsc_error *err);

/*
 * The waves. Each brings all members to where its name says, side by side, reads the true state of
 * any that failed (ORD-4), and reports the first failure with member and state; the set is
 * then as it is and qsc_set_run() brings it back where the devices allow.
 *
 * A device's state is read by the first wave, and again by qsc_set_run() and after a failure. In
 * between only the set changes it (STATE-3), so nobody else may request a state of a member.
 *
 * -errno of every wave: that of the first member's state change (SESS-6 when it refused what was
 * loaded; a device that fails breaks no clause by it), or -ENOMEM. Those that quiesce first, and
 * run, also answer as qsc_set_plan() (-EOPNOTSUPP, SET-3), before anything is touched; quiescing
 * fails with SET-3 when a mapping could not be taken away. run: -EIO with ORD-8 when a member is in
 * ERROR, with SET-4 the errno of a mapping that did not come back; no member was started then.
 */
/* RUNNING to PRE_COPY, for the members that have it. */
QSC_API int qsc_set_precopy(struct qsc_set *set, struct qsc_error *err);
/* Every member quiescent: P2P state, or its peer mappings revoked (SET-1, SET-3). */
QSC_API int qsc_set_quiesce(struct qsc_set *set, struct qsc_error *err);
/* Quiesces first where that was not done. Every member to STOP_COPY. */
QSC_API int qsc_set_stop_copy(struct qsc_set *set, struct qsc_error *err);
/* Quiesces first where that was not done. Every member to STOP. */
QSC_API int qsc_set_stop(struct qsc_set *set, struct qsc_error *err);
/* Every member to RESUMING (from RUNNING it is stopped first). */
QSC_API int qsc_set_resuming(struct qsc_set *set, struct qsc_error *err);
/*
 * Every member out of STOP into quiescence, then revoked mappings back (SET-4), then every member
 * RUNNING (SET-2). Members without P2P start in an order in which none reaches a stopped one.
 */
QSC_API int qsc_set_run(struct qsc_set *set, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
