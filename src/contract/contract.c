/* SPDX-License-Identifier: MIT */
/*
 * The migration contract as tables: see <quiesce/contract.h>. Everything that needs to know what a
 * state, an arc, an action or a clause is asks here; the published document is generated from the
 * same tables.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <quiesce/contract.h>

#include "base/cleanup.h"

/* Short names, so that the tables below fit a screen. */
enum {
	ERROR = QSC_STATE_ERROR,
	STOP = QSC_STATE_STOP,
	RUN = QSC_STATE_RUNNING,
	COPY = QSC_STATE_STOP_COPY,
	RESUM = QSC_STATE_RESUMING,
	RUN_P2P = QSC_STATE_RUNNING_P2P,
	PRE = QSC_STATE_PRE_COPY,
	PRE_P2P = QSC_STATE_PRE_COPY_P2P,
};

struct state_desc {
	const char *name;
	uint32_t needs; /* a device must report all of these flags to be in this state */
};

/* ERROR is no state that can be asked for or left, so no flag set has it. */
#define NEVER_ASKED UINT32_MAX

static const struct state_desc states[QSC_STATE_COUNT] = {
	[QSC_STATE_ERROR] = {"ERROR", NEVER_ASKED},
	[QSC_STATE_STOP] = {"STOP", 0},
	[QSC_STATE_RUNNING] = {"RUNNING", 0},
	[QSC_STATE_STOP_COPY] = {"STOP_COPY", 0},
	[QSC_STATE_RESUMING] = {"RESUMING", 0},
	[QSC_STATE_RUNNING_P2P] = {"RUNNING_P2P", QSC_MIGRATION_P2P},
	[QSC_STATE_PRE_COPY] = {"PRE_COPY", QSC_MIGRATION_PRE_COPY},
	[QSC_STATE_PRE_COPY_P2P] = {"PRE_COPY_P2P", QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY},
};

/*
 * Direct arcs, which a device carries out as one:
 *
 *	STOP <-> RESUMING			always
 *	STOP <-> STOP_COPY			always
 *	RUNNING <-> STOP			without P2P
 *	RUNNING <-> RUNNING_P2P			P2P
 *	RUNNING_P2P <-> STOP			P2P
 *	RUNNING <-> PRE_COPY			PRE_COPY
 *	PRE_COPY -> STOP_COPY			PRE_COPY without P2P
 *	PRE_COPY <-> PRE_COPY_P2P		PRE_COPY and P2P
 *	RUNNING_P2P <-> PRE_COPY_P2P		PRE_COPY and P2P
 *	PRE_COPY_P2P -> STOP_COPY		PRE_COPY and P2P
 *
 * Every other request is walked over the shortest path of direct arcs. Between two saving states
 * (PRE_COPY, PRE_COPY_P2P, STOP_COPY) the path stays among saving states, because the session
 * lives through it (SESS-1); any other path has no saving state inside, because it would open a
 * session that nobody asked for. So nothing leads from STOP_COPY to PRE_COPY or PRE_COPY_P2P
 * (ARC-4), and nothing at all to or from ERROR (ARC-3, ARC-5).
 *
 * The table gives the first step of that path for a device that has every state; ERROR stands for
 * a refusal. A device without some state steps over it: where the table names a state the device
 * does not have, the step taken from there is the answer. The arcs of the smaller flag sets come
 * out of that by themselves, RUNNING to STOP over RUNNING_P2P for one.
 */
static const uint8_t first_step[QSC_STATE_COUNT][QSC_STATE_COUNT] = {
	/* clang-format off */
	/*             ERROR  STOP     RUNNING  STOP_COPY RESUMING RUN_P2P  PRE      PRE_P2P */
	[ERROR]   = { ERROR, ERROR,   ERROR,   ERROR,    ERROR,   ERROR,   ERROR,   ERROR },
	[STOP]    = { ERROR, STOP,    RUN_P2P, COPY,     RESUM,   RUN_P2P, RUN_P2P, RUN_P2P },
	[RUN]     = { ERROR, RUN_P2P, RUN,     RUN_P2P,  RUN_P2P, RUN_P2P, PRE,     RUN_P2P },
	[COPY]    = { ERROR, STOP,    STOP,    COPY,     STOP,    STOP,    ERROR,   ERROR },
	[RESUM]   = { ERROR, STOP,    STOP,    STOP,     RESUM,   STOP,    STOP,    STOP },
	[RUN_P2P] = { ERROR, STOP,    RUN,     STOP,     STOP,    RUN_P2P, RUN,     PRE_P2P },
	[PRE]     = { ERROR, RUN,     RUN,     PRE_P2P,  RUN,     RUN,     PRE,     PRE_P2P },
	[PRE_P2P] = { ERROR, RUN_P2P, RUN_P2P, COPY,     RUN_P2P, RUN_P2P, PRE,     PRE_P2P },
	/* clang-format on */
};

const char *qsc_state_name(enum qsc_state state)
{
	return (uint32_t)state < QSC_STATE_COUNT ? states[state].name : "?";
}

int qsc_state_parse(const char *name)
{
	for (int i = 0; name && i < QSC_STATE_COUNT; i++)
		if (!strcmp(name, states[i].name))
			return i;
	return -EINVAL;
}

bool qsc_flags_valid(uint32_t flags)
{
	return (flags & QSC_MIGRATION_STOP_COPY) &&
	       !(flags & ~(QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY));
}

/* Whether a request may start from or name this state. */
static bool state_can_be_asked(uint32_t flags, uint32_t state)
{
	return qsc_flags_valid(flags) && state < QSC_STATE_COUNT &&
	       (states[state].needs & flags) == states[state].needs;
}

bool qsc_state_exists(uint32_t flags, uint32_t state)
{
	return (qsc_flags_valid(flags) && state == QSC_STATE_ERROR) ||
	       state_can_be_asked(flags, state);
}

int qsc_contract_next(uint32_t flags, uint32_t current, uint32_t target)
{
	uint32_t next;

	if (!state_can_be_asked(flags, current) || !state_can_be_asked(flags, target))
		return -EINVAL;
	next = first_step[current][target];
	while (next != QSC_STATE_ERROR && !state_can_be_asked(flags, next))
		next = first_step[next][target];
	return next == QSC_STATE_ERROR ? -EINVAL : (int)next;
}

bool qsc_state_is_active(enum qsc_state state)
{
	return state == QSC_STATE_RUNNING || state == QSC_STATE_PRE_COPY || qsc_state_is_p2p(state);
}

bool qsc_state_is_p2p(enum qsc_state state)
{
	return state == QSC_STATE_RUNNING_P2P || state == QSC_STATE_PRE_COPY_P2P;
}

bool qsc_state_is_saving(enum qsc_state state)
{
	return state == QSC_STATE_PRE_COPY || state == QSC_STATE_PRE_COPY_P2P ||
	       state == QSC_STATE_STOP_COPY;
}

struct verdict_desc {
	const char *name;
	int number; /* errno, 0 for a verdict that does not refuse */
};

static const struct verdict_desc verdicts[] = {
	[QSC_VERDICT_ALLOW] = {"allow", 0},	    [QSC_VERDICT_TOLERATE] = {"tolerate", 0},
	[QSC_VERDICT_DISCARD] = {"discard", 0},	    [QSC_VERDICT_HOLD] = {"hold", 0},
	[QSC_VERDICT_DROP] = {"drop", 0},	    [QSC_VERDICT_NEVER] = {"never", 0},
	[QSC_VERDICT_NEVER_NEW] = {"never-new", 0}, [QSC_VERDICT_IF_TOLD] = {"if-told", 0},
	[QSC_VERDICT_EINVAL] = {"EINVAL", EINVAL},  [QSC_VERDICT_EIO] = {"EIO", EIO},
	[QSC_VERDICT_ENODEV] = {"ENODEV", ENODEV},
};

const char *qsc_verdict_name(enum qsc_verdict verdict)
{
	return (uint32_t)verdict < QSC_ARRAY_SIZE(verdicts) ? verdicts[verdict].name : "?";
}

int qsc_verdict_errno(enum qsc_verdict verdict)
{
	return (uint32_t)verdict < QSC_ARRAY_SIZE(verdicts) ? verdicts[verdict].number : 0;
}

/* The same, short for the table. */
enum {
	ALLOW = QSC_VERDICT_ALLOW,
	TOLER = QSC_VERDICT_TOLERATE,
	DISC = QSC_VERDICT_DISCARD,
	HOLD = QSC_VERDICT_HOLD,
	DROP = QSC_VERDICT_DROP,
	NEVER = QSC_VERDICT_NEVER,
	NONEW = QSC_VERDICT_NEVER_NEW,
	TOLD = QSC_VERDICT_IF_TOLD,
	INVAL = QSC_VERDICT_EINVAL,
	IO = QSC_VERDICT_EIO,
	NODEV = QSC_VERDICT_ENODEV,
};

struct action_desc {
	const char *name;
	const char *text;
	uint8_t verdict[QSC_STATE_COUNT];
};

/* The allowed list. Columns in the order of the states' numbers. */
static const struct action_desc actions[QSC_ACTION_COUNT] = {
	/* clang-format off */
	/*   ERROR  STOP   RUN    COPY   RESUM  RUNP2P PRE    PREP2P */
	[QSC_ACTION_REGISTER_ACCESS] = {
		"register-access", "register read/write by the user, trapped or mapped",
		{DISC,  DISC,  ALLOW, DISC,  DISC,  TOLER, ALLOW, TOLER} },
	[QSC_ACTION_PEER_ACCESS] = {
		"peer-access", "register access by a peer (incoming P2P)",
		{DISC,  DISC,  ALLOW, DISC,  DISC,  ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_CONFIG_READ] = {
		"config-read", "config space read",
		{TOLER, ALLOW, ALLOW, ALLOW, TOLER, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_CONFIG_WRITE] = {
		"config-write", "config space write",
		{IO,    ALLOW, ALLOW, ALLOW, TOLER, TOLER, ALLOW, TOLER} },
	[QSC_ACTION_IRQ_SETUP] = {
		"irq-setup", "set up or tear down interrupt vectors",
		{IO,    ALLOW, ALLOW, ALLOW, TOLER, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_IRQ_TRIGGER] = {
		"irq-trigger", "trigger a vector from the user side",
		{IO,    HOLD,  ALLOW, HOLD,  HOLD,  HOLD,  ALLOW, HOLD} },
	[QSC_ACTION_DMA_MAPPING] = {
		"dma-mapping", "map or unmap DMA",
		{ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_LOG_START] = {
		"log-start", "start dirty log",
		{IO,    ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_LOG_REPORT] = {
		"log-report", "report or stop dirty log",
		{ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_QUERY] = {
		"query", "device, region, interrupt and feature queries",
		{ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_RESET] = {
		"reset", "reset (in RESUMING it aborts the load)",
		{ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW, ALLOW} },
	[QSC_ACTION_DATA_READ] = {
		"data-read", "read state data",
		{NODEV, NODEV, NODEV, ALLOW, NODEV, NODEV, ALLOW, ALLOW} },
	[QSC_ACTION_DATA_WRITE] = {
		"data-write", "write state data",
		{NODEV, NODEV, NODEV, NODEV, ALLOW, NODEV, NODEV, NODEV} },
	[QSC_ACTION_PRECOPY_INFO] = {
		"precopy-info", "pre-copy info",
		{INVAL, INVAL, INVAL, INVAL, INVAL, INVAL, ALLOW, ALLOW} },
	[QSC_ACTION_DEVICE_MEMORY_DMA] = {
		"device-memory-dma", "device: DMA to memory",
		{NEVER, NEVER, ALLOW, NEVER, NEVER, TOLD,  ALLOW, TOLD} },
	[QSC_ACTION_DEVICE_PEER_DMA] = {
		"device-peer-dma", "device: peer DMA",
		{NEVER, NEVER, ALLOW, NEVER, NEVER, NONEW, ALLOW, NONEW} },
	[QSC_ACTION_DEVICE_IRQ] = {
		"device-irq", "device: interrupt",
		{DROP,  HOLD,  ALLOW, HOLD,  HOLD,  HOLD,  ALLOW, HOLD} },
	/* clang-format on */
};

enum qsc_verdict qsc_contract_verdict(enum qsc_action action, enum qsc_state state)
{
	if ((uint32_t)action >= QSC_ACTION_COUNT || (uint32_t)state >= QSC_STATE_COUNT)
		return QSC_VERDICT_EINVAL;
	return (enum qsc_verdict)actions[action].verdict[state];
}

const char *qsc_action_name(enum qsc_action action)
{
	return (uint32_t)action < QSC_ACTION_COUNT ? actions[action].name : "?";
}

const char *qsc_action_text(enum qsc_action action)
{
	return (uint32_t)action < QSC_ACTION_COUNT ? actions[action].text : "?";
}

static const char *const parties[] = {
	[QSC_PARTY_DEVICE] = "device",
	[QSC_PARTY_SET] = "set",
	[QSC_PARTY_USER] = "user",
};

const char *qsc_party_name(enum qsc_party party)
{
	return (uint32_t)party < QSC_ARRAY_SIZE(parties) ? parties[party] : "?";
}

/* clang-format off */
static const struct qsc_clause_info clauses[QSC_CLAUSE_COUNT] = {
	[QSC_CLAUSE_STATE_1] = {"STATE-1", QSC_PARTY_DEVICE, "H",
		"Reports its flags; a flag set other than 1, 3, 5, 7 is a defect."},
	[QSC_CLAUSE_STATE_2] = {"STATE-2", QSC_PARTY_DEVICE, "S, Q",
		"Is RUNNING after open and after reset."},
	[QSC_CLAUSE_STATE_3] = {"STATE-3", QSC_PARTY_DEVICE, "H",
		"Never changes state by itself; only a failed request may leave it in "
		"ERROR."},
	[QSC_CLAUSE_STATE_4] = {"STATE-4", QSC_PARTY_DEVICE, "H",
		"Tells its true state at any time, after a failed request above all."},
	[QSC_CLAUSE_STATE_5] = {"STATE-5", QSC_PARTY_DEVICE, "Q, V",
		"When its last user lets go, sessions, dirty log, DMA mappings and "
		"interrupt setup end, and the next user finds RUNNING. A device let go "
		"while stopped (STOP, STOP_COPY, RESUMING, ERROR) is reset: its state may "
		"live elsewhere by now, and a stopped copy must never wake up (SET-5). "
		"One let go in another state keeps its registers where the front end's "
		"specification says so (vfio-user reconnection), else it is reset."},
	[QSC_CLAUSE_ARC_1] = {"ARC-1", QSC_PARTY_DEVICE, "H",
		"A request follows the path above."},
	[QSC_CLAUSE_ARC_2] = {"ARC-2", QSC_PARTY_DEVICE, "H",
		"A request for the current state succeeds and does nothing."},
	[QSC_CLAUSE_ARC_3] = {"ARC-3", QSC_PARTY_DEVICE, "H",
		"An unknown, unsupported or ERROR target: EINVAL, state unchanged."},
	[QSC_CLAUSE_ARC_4] = {"ARC-4", QSC_PARTY_DEVICE, "H",
		"STOP_COPY -> PRE_COPY or PRE_COPY_P2P: EINVAL, state unchanged."},
	[QSC_CLAUSE_ARC_5] = {"ARC-5", QSC_PARTY_DEVICE, "H, Q",
		"In ERROR every request fails until reset; reset leads to RUNNING from "
		"every state."},
	[QSC_CLAUSE_ARC_6] = {"ARC-6", QSC_PARTY_DEVICE, "H",
		"A failed request leaves a state on the path, or ERROR, and returns an "
		"error: never success."},
	[QSC_CLAUSE_ARC_7] = {"ARC-7", QSC_PARTY_DEVICE, "H, S",
		"The arc is complete when the call returns: into a P2P state, outstanding "
		"peer DMA has drained; into STOP, DMA and interrupts have ended and the "
		"internal state is frozen."},
	[QSC_CLAUSE_SESS_1] = {"SESS-1", QSC_PARTY_DEVICE, "H",
		"Entering PRE_COPY, PRE_COPY_P2P or STOP_COPY from outside that group, or "
		"RESUMING, opens one session and returns it; moves inside the group keep "
		"it."},
	[QSC_CLAUSE_SESS_2] = {"SESS-2", QSC_PARTY_DEVICE, "H",
		"Leaving ends it: its reads and writes fail (ENODEV), nothing more is "
		"transferred."},
	[QSC_CLAUSE_SESS_3] = {"SESS-3", QSC_PARTY_DEVICE, "H",
		"A drained PRE_COPY session reads ENOMSG (not end of stream); STOP_COPY "
		"ends with 0, again and again."},
	[QSC_CLAUSE_SESS_4] = {"SESS-4", QSC_PARTY_DEVICE, "H",
		"Pre-copy info answers in PRE_COPY and PRE_COPY_P2P only, else EINVAL. "
		"initial_bytes starts above zero and falls as data is read; dirty_bytes "
		"follows changes."},
	[QSC_CLAUSE_SESS_5] = {"SESS-5", QSC_PARTY_DEVICE, "H",
		"The stream may be written in any segmentation."},
	[QSC_CLAUSE_SESS_6] = {"SESS-6", QSC_PARTY_DEVICE, "H, Q",
		"RESUMING -> STOP validates: an incomplete, trailing, inconsistent, "
		"corrupted or foreign stream fails the arc, and the device never runs on "
		"it. An incomplete one leaves RESUMING (more may be written), every other "
		"one ERROR."},
	[QSC_CLAUSE_SESS_7] = {"SESS-7", QSC_PARTY_DEVICE, "Q",
		"After a failed load, a reset leaves no trace of it."},
	[QSC_CLAUSE_SESS_8] = {"SESS-8", QSC_PARTY_DEVICE, "Q",
		"save -> load -> save yields an equal device: same behaviour, same "
		"stream."},
	[QSC_CLAUSE_SESS_9] = {"SESS-9", QSC_PARTY_DEVICE, "Q",
		"If the session cannot be handed out, the state has not changed (the "
		"kernel gets this wrong)."},
	[QSC_CLAUSE_SESS_10] = {"SESS-10", QSC_PARTY_DEVICE, "H, Q",
		"The stop-copy size estimate answers in every state but ERROR."},
	[QSC_CLAUSE_SESS_11] = {"SESS-11", QSC_PARTY_DEVICE, "S, Q",
		"A stream says what it is: device type, layout version, capabilities it "
		"needs; a load refuses what it does not understand before it changes "
		"anything."},
	[QSC_CLAUSE_DEV_1] = {"DEV-1", QSC_PARTY_DEVICE, "H",
		"No DMA in STOP, STOP_COPY, RESUMING, ERROR."},
	[QSC_CLAUSE_DEV_2] = {"DEV-2", QSC_PARTY_DEVICE, "H, Q",
		"No interrupt there either. In the P2P states it holds them as well."},
	[QSC_CLAUSE_DEV_3] = {"DEV-3", QSC_PARTY_DEVICE, "H",
		"Its internal state does not change in STOP and STOP_COPY, however long "
		"it stays."},
	[QSC_CLAUSE_DEV_4] = {"DEV-4", QSC_PARTY_DEVICE, "H, S",
		"No new peer DMA in the P2P states. A device that cannot tell peer from "
		"memory stops all DMA."},
	[QSC_CLAUSE_DEV_5] = {"DEV-5", QSC_PARTY_DEVICE, "H, S",
		"Incoming peer accesses are accepted in the P2P states, and their effect "
		"is part of what is saved."},
	[QSC_CLAUSE_DEV_6] = {"DEV-6", QSC_PARTY_DEVICE, "S, Q",
		"An interrupt held back is delivered exactly once: after the next "
		"RUNNING, here (rollback) or on the destination."},
	[QSC_CLAUSE_DEV_7] = {"DEV-7", QSC_PARTY_DEVICE, "S, H",
		"Stopped, it answers register reads with all ones and drops writes; no "
		"host fault."},
	[QSC_CLAUSE_DEV_8] = {"DEV-8", QSC_PARTY_DEVICE, "S, H",
		"It tolerates config space and interrupt setup changing while stopped, "
		"and loading a stream changes neither: those belong to the user."},
	[QSC_CLAUSE_LOG_1] = {"LOG-1", QSC_PARTY_DEVICE, "H",
		"Every DMA write inside a logged range is reported: no false negative, in "
		"any state."},
	[QSC_CLAUSE_LOG_2] = {"LOG-2", QSC_PARTY_DEVICE, "H",
		"A report clears what it reports."},
	[QSC_CLAUSE_LOG_3] = {"LOG-3", QSC_PARTY_DEVICE, "H, Q",
		"Start twice, overlapping, empty or wrapping ranges, a page size that is "
		"not a power of two of at least 4 KiB: an error, and nothing changes. A "
		"report at any page size, finer or coarser than the log's, loses no bit "
		"and always ends."},
	[QSC_CLAUSE_LOG_4] = {"LOG-4", QSC_PARTY_DEVICE, "H",
		"Logging is independent of the migration state."},
	[QSC_CLAUSE_SET_1] = {"SET-1", QSC_PARTY_SET, "H, S",
		"No device enters STOP while a device that can reach it may still "
		"initiate peer DMA: first all are quiescent (P2P state, or their peer "
		"mappings are gone), then any stops."},
	[QSC_CLAUSE_SET_2] = {"SET-2", QSC_PARTY_SET, "H, S",
		"No device leaves quiescence for RUNNING before every device has left "
		"STOP."},
	[QSC_CLAUSE_SET_3] = {"SET-3", QSC_PARTY_SET, "S, Q",
		"Reach is computed, not assumed: device A reaches B when a mapping of "
		"B's region is in A's DMA space. A set in which a device without P2P "
		"reaches a peer is refused, with the pair and mapping named, unless the "
		"user lets the engine revoke those mappings for the duration."},
	[QSC_CLAUSE_SET_4] = {"SET-4", QSC_PARTY_SET, "Q",
		"Revoked mappings come back before any device returns to RUNNING, on "
		"success and on rollback."},
	[QSC_CLAUSE_SET_5] = {"SET-5", QSC_PARTY_SET, "Q",
		"Exactly one of source and destination ever leaves quiescence; when "
		"neither can be proved to own the set, both stay stopped and the tool "
		"says so."},
	[QSC_CLAUSE_ORD_1] = {"ORD-1", QSC_PARTY_USER, "H, S",
		"No register access, trapped or mapped, outside RUNNING and PRE_COPY."},
	[QSC_CLAUSE_ORD_2] = {"ORD-2", QSC_PARTY_USER, "S",
		"Interrupts are set up after RESUMING is left and before RUNNING is "
		"entered."},
	[QSC_CLAUSE_ORD_3] = {"ORD-3", QSC_PARTY_USER, "Q",
		"DMA mappings are in place before the device leaves STOP."},
	[QSC_CLAUSE_ORD_4] = {"ORD-4", QSC_PARTY_USER, "H, Q",
		"After a failed request the state is read, not guessed."},
	[QSC_CLAUSE_ORD_5] = {"ORD-5", QSC_PARTY_USER, "Q",
		"The destination has validated every stream (reached STOP) before the "
		"source gives up its copy."},
	[QSC_CLAUSE_ORD_6] = {"ORD-6", QSC_PARTY_USER, "H",
		"PRE_COPY is left once initial_bytes is zero and loaded at the "
		"destination, where downtime matters."},
	[QSC_CLAUSE_ORD_7] = {"ORD-7", QSC_PARTY_USER, "Q",
		"Memory that a device writes without dirty tracking is not treated as "
		"clean."},
	[QSC_CLAUSE_ORD_8] = {"ORD-8", QSC_PARTY_USER, "Q",
		"A device that failed to start is not reset and run: its state is gone, "
		"and that is reported as a failed migration."},
	[QSC_CLAUSE_ORD_9] = {"ORD-9", QSC_PARTY_USER, "Q",
		"A RESUMING session is never abandoned across close (one upstream driver "
		"crashes on it)."},
};
/* clang-format on */

const struct qsc_clause_info *qsc_clause_info(enum qsc_clause clause)
{
	return (uint32_t)clause < QSC_CLAUSE_COUNT ? &clauses[clause] : NULL;
}

const char *qsc_clause_id(enum qsc_clause clause)
{
	return (uint32_t)clause < QSC_CLAUSE_COUNT ? clauses[clause].id : "?";
}

int qsc_clause_parse(const char *id)
{
	for (int i = 0; id && i < QSC_CLAUSE_COUNT; i++)
		if (!strcmp(id, clauses[i].id))
			return i;
	return -EINVAL;
}
