/* SPDX-License-Identifier: MIT */
/* See clockwork.h. */
#include "clockwork.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"

#define IOVA 0x100000

void clock_spend(uint64_t bytes, uint64_t rate)
{
	if (rate && bytes)
		sim_sleep(bytes * 1000000 / rate);
}

/* ---- the user ---- */

/* What it wrote since it was asked last, round and round through its pages. */
static int on_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	struct clock_side *side = ctx;
	struct clock_world *world = side->world;
	uint64_t rate = world->user_rate_end && world->reports >= 3 ? world->user_rate_end
								    : world->user_rate;
	uint64_t us = sim_now() - side->since_us;
	uint64_t pages = us * rate / 1000000 / QSC_PAGE_SIZE;

	world->reports++;
	if (!side->runs)
		return 0;
	for (; pages; pages--)
		qsc_bitmap_set(bitmap, side->cursor++ % world->user_pages);
	side->since_us = sim_now();
	return 0;
}

static int on_pause(void *ctx)
{
	struct clock_side *side = ctx;

	sim_sleep(side->world->user_us);
	return 0;
}

/* It wrote until it was paused, which is not long ago: seen by the last report. */
static int on_stopped(void *ctx)
{
	return 0;
}

static int on_resume(void *ctx)
{
	struct clock_side *side = ctx;

	sim_sleep(side->world->user_us);
	return 0;
}

static int on_progress(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct clock_side *side = ctx;
	struct clock_world *world = side->world;

	if (side == &world->sides[0] && world->num_samples < CLOCK_SAMPLES)
		world->samples[world->num_samples++] = *progress;
	return 0;
}

/* ---- making ---- */

void clock_make(struct clock_world *world, uint32_t members)
{
	uint32_t i;

	*world = (struct clock_world){
		.members = members,
		.link_rate = 10000000,
		.latency_us = 500,
		.user_pages = CLOCK_PAGES / 4,
	};
	for (i = 0; i < members; i++)
		world->costs[i] = (struct clock_costs){.flags = 7, .fixed = 1000};
	for (i = 0; i < 2; i++)
		world->sides[i].options = (struct qsc_migrate_options){
			.env = &world->sides[i].env.env,
			.progress = on_progress,
			.progress_ctx = &world->sides[i],
		};
}

static void make_side(struct clock_world *world, uint32_t index)
{
	static const char *const names[CLOCK_MEMBERS] = {"nic", "disk", "gpu", "fpga"};
	struct clock_side *side = &world->sides[index];
	uint8_t *memory = aligned_alloc(QSC_PAGE_SIZE, CLOCK_PAGES * QSC_PAGE_SIZE);
	uint32_t i;

	if (!memory)
		abort();
	memset(memory, 0x77, CLOCK_PAGES * QSC_PAGE_SIZE);
	side->world = world;
	side->runs = index == 0;
	side->since_us = sim_now();
	side->region = (struct qsc_memory_region){
		.address = IOVA, .size = CLOCK_PAGES * QSC_PAGE_SIZE, .vaddr = memory};
	side->user = (struct qsc_migrate_user){
		.regions = &side->region,
		.num_regions = 1,
		.dirty = on_dirty,
		.pause = on_pause,
		.stopped = on_stopped,
		.resume = on_resume,
		.ctx = side,
	};
	sim_env_init(&side->env);
	if (qsc_set_create(&side->env.env, NULL, &side->set) < 0)
		abort();
	for (i = 0; i < world->members; i++) {
		struct clock_device *device = &side->devices[i];

		*device =
			(struct clock_device){.side = side, .member = i, .costs = world->costs[i]};
		clock_device_init(device);
		if (qsc_set_add(side->set, names[i], &device->base, NULL) < 0)
			abort();
	}
}

static void run_source(void *arg)
{
	struct clock_side *side = arg;

	side->result = qsc_migrate_send(side->set, &side->user, &side->transport, &side->options,
					&side->report, &side->err);
	side->world->closed = true;
}

static void run_destination(void *arg)
{
	struct clock_side *side = arg;

	side->result = qsc_migrate_receive(side->set, &side->user, &side->transport, &side->options,
					   &side->report, &side->err);
}

static void begin(struct clock_world *world)
{
	sim_sched_begin(1);
	clock_link_init(world);
	make_side(world, 0);
	make_side(world, 1);
}

bool clock_run(struct clock_world *world)
{
	begin(world);
	sim_spawn(run_source, &world->sides[0]);
	if (!world->alone)
		sim_spawn(run_destination, &world->sides[1]);
	return sim_sched_run();
}

struct planning {
	struct clock_side *side;
	struct qsc_migrate_plan *plan;
	bool ask;
	int result;
};

static void run_plan(void *arg)
{
	struct planning *planning = arg;
	struct clock_side *side = planning->side;

	planning->result = qsc_migrate_plan(side->set, &side->user,
					    planning->ask ? &side->transport : NULL, &side->options,
					    planning->plan, &side->err);
	if (planning->ask && planning->result == 0)
		run_source(side);
	side->world->closed = true;
}

bool clock_plan(struct clock_world *world, bool ask, struct qsc_migrate_plan *plan, int *result)
{
	struct planning planning = {.side = &world->sides[0], .plan = plan, .ask = ask};
	bool ended;

	begin(world);
	sim_spawn(run_plan, &planning);
	if (ask)
		sim_spawn(run_destination, &world->sides[1]);
	ended = sim_sched_run();
	*result = planning.result;
	return ended;
}

static void drop_sides(struct clock_world *world)
{
	uint32_t i;

	for (i = 0; i < 2; i++) {
		qsc_set_destroy(world->sides[i].set);
		free(world->sides[i].region.vaddr);
	}
}

void clock_drop(struct clock_world *world)
{
	drop_sides(world);
	clock_link_release(world);
}
