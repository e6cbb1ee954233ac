/* SPDX-License-Identifier: MIT */
/* Channels in memory for the simulation, with what can happen to a connection. */
#ifndef SIM_CHAN_H
#define SIM_CHAN_H

#include <quiesce/migrate.h>

enum sim_chan_fault { SIM_CHAN_NONE, SIM_CHAN_CUT, SIM_CHAN_STALL, SIM_CHAN_CORRUPT };

/* Where the two sides meet. Zeroed at first, but for what is marked "in". */
struct sim_net {
	struct qsc_transport ends[2]; /* 0 connects, 1 accepts */
	struct sim_wire *waiting[72]; /* connected, not accepted */
	size_t num_waiting;
	struct sim_wire *wires;	   /* all, to be freed at the end */
	bool closed[2];		   /* that side's transport is closed, or it died */
	uint32_t strangers;	   /* in: how many connect and talk nonsense */
	enum sim_chan_fault fault; /* in */
	uint32_t countdown;	   /* in: until which channel operation; 0: none */
	bool faulted;
	/* in: called before every operation of a channel; or NULL */
	void (*boundary)(void *ctx);
	void *boundary_ctx;
};

void sim_net_init(struct sim_net *net);
/* All that a dying process had open. */
void sim_net_kill(struct sim_net *net, uint32_t side);
/* The whole link, for good. */
void sim_net_cut(struct sim_net *net);
void sim_net_stall(struct sim_net *net);
void sim_net_release(struct sim_net *net);

#endif
