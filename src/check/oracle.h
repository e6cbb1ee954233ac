/* SPDX-License-Identifier: MIT */
/*
 * One action on a device, and what the contract says must come of it: a model of what the user can
 * know (state, session, load, log, mapping, register), which follows the device action by action.
 */
#ifndef CHECK_ORACLE_H
#define CHECK_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "check/harness.h"

enum walk_action {
	WALK_SET_STATE,
	WALK_RESET,
	WALK_REOPEN,
	WALK_READ,
	WALK_WRITE,
	WALK_NONSENSE,
	WALK_PRECOPY_INFO,
	WALK_DATA_SIZE,
	WALK_LOG_START,
	WALK_LOG_REPORT,
	WALK_LOG_STOP,
	WALK_MAP,
	WALK_UNMAP,
	WALK_IRQ_SETUP,
	WALK_IRQ_TRIGGER,
	WALK_CONFIG_WRITE,
	WALK_CONFIG_READ,
	WALK_REGISTER_WRITE,
	WALK_REGISTER_READ,
	WALK_WORK,
	WALK_QUERY,
};
#define WALK_ACTION_COUNT 21

/* The argument means something in every state, so that actions can be left out. */
struct walk_step {
	enum walk_action action;
	uint32_t argument;
};

struct oracle {
	struct harness *h;
	const struct saved *blank; /* the stream of a device that was reset */
	enum qsc_state state;
	uint64_t session; /* the last one that was opened; 0 for none on this handle */
	bool live;	  /* it has not ended */
	bool at_end;	  /* it has been read to its end in STOP_COPY */
	size_t written;	  /* bytes of the blank stream */
	bool spoilt;	  /* something else was written, or a write was refused */
	bool log;
	bool mapped;
	bool listening; /* interrupts are known to be set up */
	int config;	/* the bits that take a write: 1 all set, 0 none, -1 not known */
	bool value_known;
	uint64_t value;	       /* of the register */
	enum qsc_clause blame; /* when it has another one */
	uint32_t copies;
	bool broken; /* then the evidence and the clause are in the harness */
};

/* A device that has just been started. */
void oracle_begin(struct oracle *o, struct harness *h, const struct saved *blank);
/* Do it. -errno: something else is in the way, see h->trouble. */
int oracle_step(struct oracle *o, const struct walk_step *step);

#endif
