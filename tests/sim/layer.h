/* SPDX-License-Identifier: MIT */
/*
 * A layer over a device of the simulation: every call is a point where the scheduler may go on with
 * somebody else, may fail as the run's plan says, and state changes and mappings are written down
 * in one order for both sides.
 */
#ifndef SIM_LAYER_H
#define SIM_LAYER_H

#include <quiesce/device.h>

#include "set/order_check.h"

#define SIM_MAX_EVENTS 8192

enum sim_fault {
	SIM_FAULT_NONE,
	SIM_FAULT_CHANNEL_CUT,
	SIM_FAULT_CHANNEL_STALL,
	SIM_FAULT_CHANNEL_CORRUPT,
	SIM_FAULT_CALL,		 /* any call of a device, but for a state change, fails */
	SIM_FAULT_STATE,	 /* a state change fails and does nothing */
	SIM_FAULT_STATE_PARTIAL, /* it fails on the way */
	SIM_FAULT_START,	 /* the model fails to start: ERROR */
	SIM_FAULT_STOP,		 /* the model fails to stop: ERROR */
	SIM_FAULT_STREAM,	 /* a byte that a session gives is wrong */
	SIM_FAULT_CALLBACK,	 /* the user fails */
	SIM_FAULT_CANCEL,
	SIM_FAULT_DEATH,    /* a process dies */
	SIM_FAULT_PARALLEL, /* no threads */
	SIM_FAULT_KINDS
};

/* What goes wrong at a place of one side, counted down at every opportunity. */
struct sim_trouble {
	enum sim_fault kind;
	uint32_t countdown;
	bool happened;
};

/* What the layers of both sides share. */
struct sim_scene {
	struct order_event events[SIM_MAX_EVENTS];
	size_t count;
	bool overflow;
};

/* What the layers of one side share: one process. */
struct sim_process {
	struct sim_scene *scene;
	uint32_t side;
	bool dead;
	struct sim_trouble troubles[2];
	void (*die)(struct sim_process *process); /* lets go of all it had open */
};

struct sim_layer {
	struct qsc_device base;
	struct qsc_device *inner;
	struct sim_process *process;
	uint32_t member;
	uint32_t flags;
	bool dirty_log;
	uint64_t peer_base; /* IOVAs of peers' BARs begin here */
	uint64_t peer_span; /* and are that far apart */
};

void sim_layer_init(struct sim_layer *layer);

/* Whether the trouble of that kind is due now. */
bool sim_trouble(struct sim_process *process, enum sim_fault kind);

#endif
