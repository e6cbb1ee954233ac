/* SPDX-License-Identifier: MIT */
/*
 * The migration contract as data: states, arcs, clauses and the list of allowed actions. Pure: no
 * function here does I/O, allocates, blocks or keeps state, so all may be called from any thread
 * and from a signal handler. Numbers of states and flags are those of the VFIO uAPI v2
 * (linux/vfio.h), so that they can be passed to a kernel or on the vfio-user wire as they are.
 */
#ifndef QUIESCE_CONTRACT_H
#define QUIESCE_CONTRACT_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* enum vfio_device_mig_state */
enum qsc_state {
	QSC_STATE_ERROR = 0,
	QSC_STATE_STOP = 1,
	QSC_STATE_RUNNING = 2,
	QSC_STATE_STOP_COPY = 3,
	QSC_STATE_RESUMING = 4,
	QSC_STATE_RUNNING_P2P = 5,
	QSC_STATE_PRE_COPY = 6,
	QSC_STATE_PRE_COPY_P2P = 7,
};
#define QSC_STATE_COUNT 8

/* VFIO_MIGRATION_*; the valid sets are 1, 3, 5 and 7. */
#define QSC_MIGRATION_STOP_COPY 1U
#define QSC_MIGRATION_P2P	2U
#define QSC_MIGRATION_PRE_COPY	4U

/* Name of a state as the uAPI spells it, without prefix ("RUNNING_P2P"); "?" for no state. */
QSC_API const char *qsc_state_name(enum qsc_state state);

/* State of that name, or -EINVAL; name may be NULL. */
QSC_API int qsc_state_parse(const char *name);

/* Whether a set of migration flags may be reported by a device (STATE-1). */
QSC_API bool qsc_flags_valid(uint32_t flags);

/* Whether a device with these flags can be in that state; false for numbers that are no state. */
QSC_API bool qsc_state_exists(uint32_t flags, uint32_t state);

/*
 * The state that follows `current` on the way to `target` (ARC-1 to ARC-4): a state number, equal
 * to current when current == target, or -EINVAL for what is refused, invalid numbers included.
 */
QSC_API int qsc_contract_next(uint32_t flags, uint32_t current, uint32_t target);

/* These three are false for numbers that are no state. */
/* RUNNING, RUNNING_P2P, PRE_COPY, PRE_COPY_P2P: the device may advance its internal state. */
QSC_API bool qsc_state_is_active(enum qsc_state state);
/* RUNNING_P2P, PRE_COPY_P2P: quiescent towards peers. */
QSC_API bool qsc_state_is_p2p(enum qsc_state state);
/* PRE_COPY, PRE_COPY_P2P, STOP_COPY: one saving session lives through these (SESS-1). */
QSC_API bool qsc_state_is_saving(enum qsc_state state);

/* Who does what: rows of the allowed list, in the order of the published table. */
enum qsc_action {
	QSC_ACTION_REGISTER_ACCESS,
	QSC_ACTION_PEER_ACCESS,
	QSC_ACTION_CONFIG_READ,
	QSC_ACTION_CONFIG_WRITE,
	QSC_ACTION_IRQ_SETUP,
	QSC_ACTION_IRQ_TRIGGER,
	QSC_ACTION_DMA_MAPPING,
	QSC_ACTION_LOG_START,
	QSC_ACTION_LOG_REPORT,
	QSC_ACTION_QUERY,
	QSC_ACTION_RESET,
	QSC_ACTION_DATA_READ,
	QSC_ACTION_DATA_WRITE,
	QSC_ACTION_PRECOPY_INFO,
	QSC_ACTION_DEVICE_MEMORY_DMA,
	QSC_ACTION_DEVICE_PEER_DMA,
	QSC_ACTION_DEVICE_IRQ,
};
#define QSC_ACTION_COUNT 17

/* What the contract says to an action. */
enum qsc_verdict {
	QSC_VERDICT_ALLOW,
	QSC_VERDICT_TOLERATE,  /* works, not promised by every device; a stretch */
	QSC_VERDICT_DISCARD,   /* reads give all ones, writes vanish; a violation */
	QSC_VERDICT_HOLD,      /* takes effect at the next RUNNING */
	QSC_VERDICT_DROP,      /* has no effect, now or later */
	QSC_VERDICT_NEVER,     /* the device must not */
	QSC_VERDICT_NEVER_NEW, /* the device must not start any; what is under way has drained */
	QSC_VERDICT_IF_TOLD,   /* only a device that tells peers from memory may */
	QSC_VERDICT_EINVAL,    /* refused with this errno */
	QSC_VERDICT_EIO,
	QSC_VERDICT_ENODEV,
};

/*
 * DISCARD is a violation by whoever let the access come: of ORD-1 by the user, or, for an access of
 * a peer, of SET-1 by the set. EINVAL where either argument is out of range.
 */
QSC_API enum qsc_verdict qsc_contract_verdict(enum qsc_action action, enum qsc_state state);

/* Short machine name ("register-access"), and the row's text in the published table; "?" for none.
 */
QSC_API const char *qsc_action_name(enum qsc_action action);
QSC_API const char *qsc_action_text(enum qsc_action action);
/* "allow", "tolerate", … "EIO"; "?" for none. */
QSC_API const char *qsc_verdict_name(enum qsc_verdict verdict);
/* Positive errno of a refusing verdict, else 0, also for what is no verdict. */
QSC_API int qsc_verdict_errno(enum qsc_verdict verdict);

enum qsc_party {
	QSC_PARTY_DEVICE, /* the device and its driver or server */
	QSC_PARTY_SET,	  /* whoever moves several devices */
	QSC_PARTY_USER,	  /* the VMM or program that holds the device */
};
/* "device", "set", "user"; "?" for none. */
QSC_API const char *qsc_party_name(enum qsc_party party);

/* Every clause, in the order of the document. */
enum qsc_clause {
	QSC_CLAUSE_STATE_1,
	QSC_CLAUSE_STATE_2,
	QSC_CLAUSE_STATE_3,
	QSC_CLAUSE_STATE_4,
	QSC_CLAUSE_STATE_5,
	QSC_CLAUSE_ARC_1,
	QSC_CLAUSE_ARC_2,
	QSC_CLAUSE_ARC_3,
	QSC_CLAUSE_ARC_4,
	QSC_CLAUSE_ARC_5,
	QSC_CLAUSE_ARC_6,
	QSC_CLAUSE_ARC_7,
	QSC_CLAUSE_SESS_1,
	QSC_CLAUSE_SESS_2,
	QSC_CLAUSE_SESS_3,
	QSC_CLAUSE_SESS_4,
	QSC_CLAUSE_SESS_5,
	QSC_CLAUSE_SESS_6,
	QSC_CLAUSE_SESS_7,
	QSC_CLAUSE_SESS_8,
	QSC_CLAUSE_SESS_9,
	QSC_CLAUSE_SESS_10,
	QSC_CLAUSE_SESS_11,
	QSC_CLAUSE_DEV_1,
	QSC_CLAUSE_DEV_2,
	QSC_CLAUSE_DEV_3,
	QSC_CLAUSE_DEV_4,
	QSC_CLAUSE_DEV_5,
	QSC_CLAUSE_DEV_6,
	QSC_CLAUSE_DEV_7,
	QSC_CLAUSE_DEV_8,
	QSC_CLAUSE_LOG_1,
	QSC_CLAUSE_LOG_2,
	QSC_CLAUSE_LOG_3,
	QSC_CLAUSE_LOG_4,
	QSC_CLAUSE_SET_1,
	QSC_CLAUSE_SET_2,
	QSC_CLAUSE_SET_3,
	QSC_CLAUSE_SET_4,
	QSC_CLAUSE_SET_5,
	QSC_CLAUSE_ORD_1,
	QSC_CLAUSE_ORD_2,
	QSC_CLAUSE_ORD_3,
	QSC_CLAUSE_ORD_4,
	QSC_CLAUSE_ORD_5,
	QSC_CLAUSE_ORD_6,
	QSC_CLAUSE_ORD_7,
	QSC_CLAUSE_ORD_8,
	QSC_CLAUSE_ORD_9,
	QSC_CLAUSE_COUNT
};

struct qsc_clause_info {
	const char *id; /* "SESS-6" */
	enum qsc_party binds;
	const char *authority; /* H uAPI header, S seed discussion, Q this project, V vfio-user */
	const char *text;
};

/* Static storage; NULL for a number that is no clause. */
QSC_API const struct qsc_clause_info *qsc_clause_info(enum qsc_clause clause);
/* The identifier alone, for qsc_error_set(); "?" for a number that is no clause. */
QSC_API const char *qsc_clause_id(enum qsc_clause clause);
/* Clause of that identifier, or -EINVAL. */
QSC_API int qsc_clause_parse(const char *id);

#ifdef __cplusplus
}
#endif
#endif
