/* SPDX-License-Identifier: MIT */
/*
 * Two processes, their devices, tenant and memory, the connection between them, and what goes
 * wrong: all chosen by one seed. A run moves the set from one to the other and is then judged.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include <quiesce/migrate.h>

#include "baton.h"
#include "chan.h"
#include "layer.h"
#include "tenant.h"

/* One process. */
struct sim_side {
	struct sim_process process; /* first: the process's die() finds the side by it */
	struct sim_world *world;
	struct sim_model models[SIM_MEMBERS];
	struct sim_layer layers[SIM_MEMBERS];
	struct sim_tenant tenant;
	bool tenant_runs;
	bool paused;
	bool resumed;
	struct qsc_set *set;
	struct qsc_memory_region region;
	struct qsc_migrate_user user;
	struct qsc_migrate_options options;
	struct sim_env env;
	struct qsc_migrate_report report;
	struct qsc_error err;
	int result;
	bool finished;
};

/* What happens to the whole of a link or of a process at one place between two messages. */
enum sim_blow {
	SIM_BLOW_NONE,
	SIM_BLOW_CUT,
	SIM_BLOW_STALL,
	SIM_BLOW_SOURCE,
	SIM_BLOW_DESTINATION
};

struct sim_place {
	enum sim_blow blow;
	uint32_t operation; /* of all channels together, from 1 on */
};

struct sim_world {
	uint64_t seed;
	const struct sim_place *place; /* NULL: the seed chooses what goes wrong */
	uint32_t operations;
	uint32_t members;
	uint32_t flags[SIM_MEMBERS];
	bool tells_peers[SIM_MEMBERS];
	bool dirty_log[SIM_MEMBERS];
	bool ring; /* the last device reaches the first */
	struct sim_side sides[2];
	struct sim_scene scene;
	struct sim_net net;
	/*
	 * Where it matters most there is little time: these are held back until the source is about
	 * to commit.
	 */
	uint32_t late_channel;
	uint32_t late_death[2];
	char failed[512]; /* what is wrong with the run; empty when nothing is */
};

struct sim_result {
	bool ok;
	uint64_t record;
	enum qsc_owner owner; /* as the run ended */
	uint32_t operations;  /* of channels */
	char text[640];
};

/*
 * `verbose` prints what the seed chose and how it ended. With a place, nothing goes wrong but
 * there.
 */
void sim_run(uint64_t seed, const struct sim_place *place, bool verbose, struct sim_result *result);

/* judge.c: what must hold after any run. Writes world->failed. */
void sim_judge(struct sim_world *world);
void sim_wrong(struct sim_world *world, const char *fmt, ...) QSC_PRINTF(2, 3);

#endif
