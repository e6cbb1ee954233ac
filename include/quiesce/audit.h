/* SPDX-License-Identifier: MIT */
/*
 * The audit: what those who hold devices do to them, judged against the contract. An audit has any
 * number of devices, each under a layer that passes every action on and notes it with the state it
 * met. Devices of one user (a VMM) are judged as a set (SET-1 to SET-4); one that was saved and one
 * that was loaded with the same stream as source and destination of a move (ORD-5, SET-5).
 *
 * Memory is bounded: a device keeps its last actions and its mappings, the audit each kind of
 * finding once with a count. An action in which nothing is found costs two clock readings' worth
 * of time (`make bench`); a mapping of a file, where the set has memory that can be mapped, a
 * system call more.
 *
 * Threads: any, for everything but destroy.
 */
#ifndef QUIESCE_AUDIT_H
#define QUIESCE_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_audit;

enum qsc_audit_profile {
	QSC_AUDIT_STRICT, /* the allowed list of actions as it stands */
	QSC_AUDIT_LINUX,  /* silent on what the list tolerates */
};

enum qsc_finding_kind {
	QSC_FINDING_STRETCH,   /* it works here; not every device promises it */
	QSC_FINDING_REFUSED,   /* the contract refuses it, and so did the device */
	QSC_FINDING_VIOLATION, /* a clause is broken */
};

#define QSC_FINDING_TEXT    512
#define QSC_FINDING_CONTEXT 12
#define QSC_FINDING_LINE    128

/* Something found, once for each device, kind, clause, action and state. */
struct qsc_finding {
	enum qsc_finding_kind kind;
	enum qsc_clause clause; /* QSC_CLAUSE_COUNT: none, the allowed list itself */
	enum qsc_action action; /* QSC_ACTION_COUNT: none in particular */
	enum qsc_state state;	/* that the action met */
	uint64_t count;
	uint64_t first_us; /* since the audit was made */
	char device[QSC_LAYOUT_NAME];
	char text[QSC_FINDING_TEXT]; /* what was done, the first time */
	const char *consequence;     /* what it can cost a person; static storage */
	/* The actions on the device before it and itself, oldest first. */
	uint32_t num_context;
	char context[QSC_FINDING_CONTEXT][QSC_FINDING_LINE];
};

struct qsc_audit_totals {
	uint64_t actions;
	uint64_t devices; /* that were opened */
	uint64_t moves;	  /* streams that were seen at both ends */
	uint64_t dropped; /* findings of kinds for which there was no more room */
};

/* -ENOMEM. */
QSC_API int qsc_audit_create(enum qsc_audit_profile profile, struct qsc_audit **out);
/* Every device has been closed. NULL is allowed. */
QSC_API void qsc_audit_destroy(struct qsc_audit *audit);

/*
 * A layer over `inner`, which it takes over and closes. `name` names the device in findings; a move
 * is looked for between devices of the same name first. `user` tells who holds it: devices with
 * the same number are a set. -ENOMEM; then `inner` is still the caller's.
 */
QSC_API int qsc_audit_open(struct qsc_audit *audit, struct qsc_device *inner, const char *name,
			   uint64_t user, struct qsc_device **out);

/* A violation that somebody else has found, a runtime of ORD-1 through a mapping for example. */
QSC_API void qsc_audit_add(struct qsc_audit *audit, const char *device, enum qsc_clause clause,
			   const char *text);

/* How many findings there are, and one of them by number, in the order of their first time. */
QSC_API size_t qsc_audit_count(struct qsc_audit *audit);
/* -EINVAL: there is no such number. */
QSC_API int qsc_audit_get(struct qsc_audit *audit, size_t number, struct qsc_finding *finding);
QSC_API void qsc_audit_totals(struct qsc_audit *audit, struct qsc_audit_totals *totals);

/* "stretch", "refused", "violation"; "?" for none. */
QSC_API const char *qsc_finding_kind_name(enum qsc_finding_kind kind);

#ifdef __cplusplus
}
#endif
#endif
