/* SPDX-License-Identifier: MIT */
/*
 * A migration whose every cost is known: devices that take so long for each change of state, give
 * and take so many bytes a second and write so many again, a user who does the like, and a link of
 * so many bytes a second that all channels share. Time is that of the deterministic scheduler.
 */
#ifndef SIM_CLOCKWORK_H
#define SIM_CLOCKWORK_H

#include <quiesce/migrate.h>

#include "baton.h"

#define CLOCK_MEMBERS 4
#define CLOCK_PAGES   2048 /* of memory */
#define CLOCK_SAMPLES 512

/* Microseconds, bytes, and bytes a second; a rate of 0 takes no time. */
struct clock_costs {
	uint32_t flags;
	bool untracked; /* has no dirty log */
	uint64_t precopy_us;
	uint64_t quiesce_us;
	uint64_t stop_us;
	uint64_t load_us;  /* leaving RESUMING */
	uint64_t start_us; /* leaving STOP */
	uint64_t report_us;
	uint64_t initial; /* state given in PRE_COPY first */
	uint64_t fixed;	  /* state given in STOP_COPY only */
	uint64_t read_rate;
	uint64_t write_rate;
	uint64_t dirty_rate; /* of its state, at most `initial` of it */
	uint64_t dma_rate;   /* of memory, its own quarter of it */
};

struct clock_device {
	struct qsc_device base;
	struct clock_side *side;
	struct clock_costs costs;
	uint32_t member;
	enum qsc_state state;
	uint64_t session;
	uint64_t first;	  /* of initial, not given yet */
	uint64_t dirty;	  /* of its state */
	uint64_t rest;	  /* of fixed, not given yet */
	uint64_t written; /* pages of memory since the last report */
	uint64_t cursor;
	uint64_t since_us; /* until when all that is accounted for */
};

struct clock_side {
	struct clock_world *world;
	struct clock_device devices[CLOCK_MEMBERS];
	struct qsc_set *set;
	struct qsc_memory_region region;
	struct qsc_migrate_user user;
	struct qsc_migrate_options options;
	struct sim_env env;
	struct qsc_migrate_report report;
	struct qsc_error err;
	int result;
	bool runs; /* the user does */
	uint64_t since_us;
	uint64_t cursor;
	struct qsc_transport transport;
};

struct clock_world {
	/* In. */
	uint32_t members;
	struct clock_costs costs[CLOCK_MEMBERS];
	uint64_t link_rate;
	uint64_t latency_us;	/* one way */
	uint64_t buffer_us;	/* so much of its time a sender may be ahead of it */
	uint64_t later_rate;	/* of the link, once a megabyte has gone over; 0: the same */
	uint64_t user_rate;	/* bytes of memory that the user writes a second */
	uint64_t user_rate_end; /* and from the fourth report on; 0: the same */
	uint64_t user_pages;	/* among which it writes; at most a quarter */
	uint64_t user_us;	/* that each of its callbacks takes */
	uint32_t reports;	/* that it gave */
	bool alone;		/* the source has a transport of its own, to nobody */
	/* Of both sides, to be changed before the run. */
	struct clock_side sides[2];
	/* Out: what progress() said at the source, as far as there is room. */
	struct qsc_migrate_progress samples[CLOCK_SAMPLES];
	uint32_t num_samples;
	uint64_t sent; /* bytes over the link */
	/* The link. */
	uint64_t free_us[2];
	struct clock_wire *wires;
	struct clock_wire *waiting[72];
	uint32_t num_waiting;
	bool closed;
};

/* Options with every default, 1 ms of round trip, 10 MB a second, and `members` quick devices. */
void clock_make(struct clock_world *world, uint32_t members);
/* False when both sides waited for one another for ever. */
bool clock_run(struct clock_world *world);
/*
 * The plan: of nobody, or of the destination, which then takes the set over in earnest if it was
 * not refused. *result is the plan's.
 */
bool clock_plan(struct clock_world *world, bool ask, struct qsc_migrate_plan *plan, int *result);
void clock_drop(struct clock_world *world);

/* clocklink.c */
void clock_link_init(struct clock_world *world);
void clock_link_release(struct clock_world *world);
/* clockdev.c */
void clock_device_init(struct clock_device *device);

/* So many bytes at that rate; the clock goes on by that. */
void clock_spend(uint64_t bytes, uint64_t rate);

#endif
