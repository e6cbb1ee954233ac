/* SPDX-License-Identifier: MIT */
/* See world.h. */
#include "world.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/cleanup.h"

#define STALL_MS    3000
#define MORE_BLOCKS 4	   /* after the migration, to see that all still works */
#define MAX_STEPS   100000 /* for those */

void sim_wrong(struct sim_world *world, const char *fmt, ...)
{
	va_list args;

	if (world->failed[0])
		return;
	va_start(args, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.*) */
	(void)vsnprintf(world->failed, sizeof(world->failed), fmt, args);
	va_end(args);
}

/* ---- the user of each side ---- */

static int enter_callback(struct sim_side *side)
{
	sim_yield();
	if (!side->process.dead && sim_trouble(&side->process, SIM_FAULT_DEATH))
		side->process.die(&side->process);
	if (side->process.dead)
		return -ENOTCONN;
	return sim_trouble(&side->process, SIM_FAULT_CALLBACK) ? -ENOMEM : 0;
}

static int on_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result == 0) {
		*bitmap |= side->tenant.dirty;
		side->tenant.dirty = 0;
	}
	return result;
}

static int on_pause(void *ctx)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result == 0) {
		side->paused = true;
		side->tenant_runs = false;
	}
	return result;
}

static int on_stopped(void *ctx)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result == 0)
		sim_tenant_take_irqs(&side->tenant);
	return result;
}

static ssize_t on_save(void *ctx, void *buf, size_t max)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result < 0)
		return result;
	memcpy(buf, &side->tenant.state, sizeof(side->tenant.state));
	return sizeof(side->tenant.state);
}

static int on_load(void *ctx, const void *buf, size_t size)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result < 0)
		return result;
	if (size != sizeof(side->tenant.state))
		return -EINVAL;
	memcpy(&side->tenant.state, buf, size);
	return 0;
}

/* The source is stopped and everything has arrived: both sides must be the same. */
static void compare_sides(struct sim_world *world)
{
	struct sim_side *source = &world->sides[0];
	struct sim_side *target = &world->sides[1];
	uint32_t i;

	if (source->process.dead)
		return;
	for (i = 0; i < SIM_PAGES; i++)
		if (memcmp(source->tenant.memory + i * QSC_PAGE_SIZE,
			   target->tenant.memory + i * QSC_PAGE_SIZE, QSC_PAGE_SIZE) != 0)
			sim_wrong(world, "page %u differs at the hand-over", i);
	for (i = 0; i < world->members; i++)
		if (memcmp(qsc_block_data(source->models[i].rt, 0),
			   qsc_block_data(target->models[i].rt, 0), SIM_BAR_BYTES) != 0)
			sim_wrong(world, "memory of device %u differs at the hand-over", i);
}

static int on_setup_irqs(void *ctx)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);
	uint32_t i;

	for (i = 0; i < side->world->members && result == 0; i++)
		result = qsc_device_set_eventfds(&side->layers[i].base, VFIO_PCI_MSIX_IRQ_INDEX,
						 side->tenant.irqs[i], SIM_SLOTS);
	if (result == 0 && side->process.side == 1)
		compare_sides(side->world);
	return result;
}

static int on_resume(void *ctx)
{
	struct sim_side *side = ctx;
	int result = enter_callback(side);

	if (result == 0) {
		side->resumed = true;
		side->tenant_runs = true;
	}
	return result;
}

static void release_late(struct sim_world *world)
{
	uint32_t i;

	if (world->late_channel)
		world->net.countdown = world->late_channel;
	for (i = 0; i < 2; i++)
		if (world->late_death[i])
			world->sides[i].process.troubles[0] =
				(struct sim_trouble){SIM_FAULT_DEATH, world->late_death[i], false};
}

static int on_progress(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct sim_side *side = ctx;

	sim_yield();
	if (side->process.side == 0 && strcmp(progress->phase, "commit") == 0)
		release_late(side->world);
	if (sim_trouble(&side->process, SIM_FAULT_CANCEL))
		return 1;
	/* Nobody waits for a source that has already given up. */
	return strcmp(progress->phase, "negotiate") == 0 && side->process.side == 1 &&
	       side->world->sides[0].finished;
}

static void die(struct sim_process *process)
{
	struct sim_side *side = qsc_container_of(process, struct sim_side, process);

	process->dead = true;
	side->tenant_runs = false;
	sim_net_kill(&side->world->net, process->side);
}

static void at_boundary(void *ctx)
{
	struct sim_world *world = ctx;
	const struct sim_place *place = world->place;

	world->operations++;
	if (!place || world->operations != place->operation)
		return;
	sim_note('b', place->blow);
	world->net.faulted = place->blow;
	if (place->blow == SIM_BLOW_CUT)
		sim_net_cut(&world->net);
	else if (place->blow == SIM_BLOW_STALL)
		sim_net_stall(&world->net);
	else if (place->blow == SIM_BLOW_SOURCE)
		die(&world->sides[0].process);
	else if (place->blow == SIM_BLOW_DESTINATION)
		die(&world->sides[1].process);
}

/* ---- making a world ---- */

static void choose_shape(struct sim_world *world)
{
	static const uint32_t sets[] = {1, 3, 5, 7};
	bool any_p2p = false;
	uint32_t i;

	world->members = 1 + (uint32_t)sim_random(SIM_MEMBERS);
	for (i = 0; i < world->members; i++) {
		/* Devices of today most of the time. */
		world->flags[i] = sim_random(2) ? 7 : sets[sim_random(4)];
		world->tells_peers[i] = sim_random(2);
		world->dirty_log[i] = sim_random(8);
		any_p2p |= world->flags[i] & QSC_MIGRATION_P2P;
	}
	world->ring = any_p2p && world->members > 1 && sim_random(2);
}

/* An early place is as likely as a late one, whatever the length of the run. */
static uint32_t some_time(uint32_t bits)
{
	return 1 + (uint32_t)sim_random(1ULL << sim_random(bits + 1));
}

static void choose_late_trouble(struct sim_world *world)
{
	uint64_t what = sim_random(4);

	if (what < 2) {
		world->net.fault = (enum sim_chan_fault)(1 + sim_random(3));
		world->late_channel = some_time(3);
	} else {
		world->late_death[what - 2] = some_time(6);
	}
}

static void choose_trouble(struct sim_world *world)
{
	size_t count = sim_random(4) ? 1 + (sim_random(4) == 0) : 0;
	size_t i;

	if (sim_random(5) == 0) {
		choose_late_trouble(world);
		return;
	}
	for (i = 0; i < count; i++) {
		struct sim_side *side = &world->sides[sim_random(2)];
		enum sim_fault kind = (enum sim_fault)(1 + sim_random(SIM_FAULT_KINDS - 1));
		uint32_t member = (uint32_t)sim_random(world->members);

		switch (kind) {
		case SIM_FAULT_CHANNEL_CUT:
		case SIM_FAULT_CHANNEL_STALL:
		case SIM_FAULT_CHANNEL_CORRUPT:
			world->net.fault = (enum sim_chan_fault)kind;
			world->net.countdown = some_time(8);
			break;
		case SIM_FAULT_START:
			side->models[member].fail_start = some_time(2);
			break;
		case SIM_FAULT_STOP:
			side->models[member].fail_stop = some_time(1);
			break;
		case SIM_FAULT_PARALLEL:
			side->env.fail_parallel = some_time(4);
			break;
		case SIM_FAULT_DEATH:
			side->process.troubles[i] = (struct sim_trouble){kind, some_time(9), false};
			break;
		case SIM_FAULT_CALL:
			side->process.troubles[i] = (struct sim_trouble){kind, some_time(7), false};
			break;
		default:
			side->process.troubles[i] = (struct sim_trouble){kind, some_time(4), false};
			break;
		}
	}
	world->net.strangers = sim_random(8) ? 0 : (uint32_t)sim_random(6);
}

/* Where nothing goes wrong by itself no limit is in the way, only what a stalled link meets. */
static void leave_time(struct sim_world *world)
{
	uint32_t i;

	for (i = 0; i < 2; i++)
		world->sides[i].options.timeout_ms = world->seed % 2 ? 0 : STALL_MS / 2;
	world->sides[0].options.exceed_downtime = true;
	world->sides[0].options.bandwidth = 0;
}

static void choose_options(struct sim_world *world)
{
	static const uint64_t limits[] = {1, 1000, 300000};
	struct sim_side *source = &world->sides[0];
	uint32_t i;

	for (i = 0; i < 2; i++) {
		world->sides[i].options = (struct qsc_migrate_options){
			.env = &world->sides[i].env.env,
			/* Worlds have members without P2P that reach others: SET-3, SET-4. */
			.quiesce = QSC_QUIESCE_AUTO,
			.stall_timeout_ms = STALL_MS,
			/* Now and then too short, in any phase. */
			.timeout_ms = sim_random(8) ? 0 : 1 + (uint32_t)sim_random(100),
			.progress = on_progress,
			.progress_ctx = &world->sides[i],
		};
	}
	source->options.channels = (uint32_t)sim_random(SIM_MEMBERS + 2);
	source->options.no_precopy = sim_random(8) == 0;
	source->options.max_passes = 1 + (uint32_t)sim_random(4);
	source->options.downtime_limit_us = limits[sim_random(3)];
	source->options.exceed_downtime = sim_random(4);
	source->options.bandwidth = sim_random(4) ? 0 : 100000ULL << sim_random(10);
	if (world->place)
		leave_time(world);
	if (sim_random(8) == 0)
		source->user.dirty = NULL;
}

static void fill_memory(struct sim_side *side)
{
	uint32_t i;

	side->tenant.memory = aligned_alloc(QSC_PAGE_SIZE, SIM_PAGES * QSC_PAGE_SIZE);
	if (!side->tenant.memory)
		abort();
	/* What the destination has must not be taken for what arrived. */
	memset(side->tenant.memory, side->process.side ? 0xdb : 0, SIM_PAGES * QSC_PAGE_SIZE);
	for (i = 1 + 2 * SIM_SLOTS; i < SIM_PAGES && side->process.side == 0; i++)
		if (sim_random(2))
			memset(side->tenant.memory + i * QSC_PAGE_SIZE, (int)sim_random(256),
			       QSC_PAGE_SIZE);
	side->region = (struct qsc_memory_region){.address = SIM_MEMORY_IOVA,
						  .size = SIM_PAGES * QSC_PAGE_SIZE,
						  .vaddr = side->tenant.memory};
}

static void make_device(struct sim_side *side, uint32_t member)
{
	const struct sim_world *world = side->world;
	struct sim_layer *layer = &side->layers[member];
	const struct qsc_dma_mapping memory = {
		.iova = SIM_MEMORY_IOVA,
		.size = SIM_PAGES * QSC_PAGE_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = side->tenant.memory,
		.fd = -1,
	};
	char name[16];

	(void)snprintf(name, sizeof(name), "dev%u", member);
	*layer = (struct sim_layer){
		.process = &side->process,
		.member = member,
		.flags = world->flags[member],
		.dirty_log = world->dirty_log[member],
		.peer_base = SIM_PEER_IOVA,
		.peer_span = SIM_PEER_SPAN,
	};
	sim_layer_init(layer);
	if (sim_model_create(&side->models[member], name, world->flags[member],
			     world->tells_peers[member]) < 0 ||
	    qsc_runtime_open(side->models[member].rt, &layer->inner) < 0 ||
	    qsc_set_add(side->set, name, &layer->base, NULL) < 0 ||
	    qsc_set_dma_map(side->set, member, &memory, NULL) < 0)
		abort();
	side->tenant.devices[member] = layer->inner;
}

static void reach(struct sim_side *side, uint32_t from, uint32_t to)
{
	const struct qsc_peer_mapping mapping = {
		.iova = SIM_PEER_IOVA + to * SIM_PEER_SPAN,
		.size = SIM_BAR_BYTES,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.peer = to,
		.region = VFIO_PCI_BAR2_REGION_INDEX,
	};

	if (qsc_set_map_peer(side->set, from, &mapping, NULL) < 0)
		abort();
}

static void make_side(struct sim_world *world, uint32_t index)
{
	struct sim_side *side = &world->sides[index];
	uint32_t i;

	side->world = world;
	side->process.side = index;
	side->process.scene = &world->scene;
	side->process.die = die;
	side->tenant.members = world->members;
	side->user = (struct qsc_migrate_user){
		.regions = &side->region,
		.num_regions = 1,
		.dirty = on_dirty,
		.pause = on_pause,
		.stopped = on_stopped,
		.save = on_save,
		.load = on_load,
		.setup_irqs = on_setup_irqs,
		.resume = on_resume,
		.ctx = side,
	};
	sim_env_init(&side->env);
	fill_memory(side);
	sim_tenant_open(&side->tenant);
	if (qsc_set_create(&side->env.env, NULL, &side->set) < 0)
		abort();
	for (i = 0; i < world->members; i++)
		make_device(side, i);
	for (i = 0; i + 1 < world->members; i++)
		reach(side, i, i + 1);
	if (world->ring)
		reach(side, world->members - 1, 0);
}

/* ---- running it ---- */

static void run_source(void *arg)
{
	struct sim_side *side = arg;

	side->result = qsc_migrate_send(side->set, &side->user, &side->world->net.ends[0],
					&side->options, &side->report, &side->err);
	side->finished = true;
	qsc_transport_close(&side->world->net.ends[0]);
}

static void run_destination(void *arg)
{
	struct sim_side *side = arg;

	side->result = qsc_migrate_receive(side->set, &side->user, &side->world->net.ends[1],
					   &side->options, &side->report, &side->err);
	side->finished = true;
	qsc_transport_close(&side->world->net.ends[1]);
}

/* A unit of what devices and tenants do; false when there is nothing to do. */
static bool step(struct sim_world *world)
{
	struct sim_side *side = &world->sides[sim_random(2)];
	uint64_t what = sim_random(world->members + 1);

	if (side->process.dead)
		return false;
	if (what == world->members)
		return side->tenant_runs && sim_tenant_step(&side->tenant);
	return qsc_runtime_step(side->models[what].rt, sim_random(1000));
}

/* Devices and tenants of both sides, between the steps of the engines. */
static void run_machines(void *arg)
{
	struct sim_world *world = arg;
	uint64_t rest = 1;

	while (!world->sides[0].finished || !world->sides[1].finished) {
		uint32_t i;

		for (i = 0; i < 2; i++)
			if (!world->sides[i].process.dead && !world->sides[i].finished &&
			    sim_trouble(&world->sides[i].process, SIM_FAULT_DEATH))
				die(&world->sides[i].process);
		if (step(world)) {
			rest = 1;
			sim_yield();
		} else {
			/* Nothing wakes it, so it looks again, less and less often. */
			rest = rest < 4096 ? 2 * rest : rest;
			sim_sleep(rest);
		}
	}
}

static void run_world(void *arg)
{
	struct sim_world *world = arg;
	struct sim_side *source = &world->sides[0];

	make_side(world, 0);
	make_side(world, 1);
	choose_options(world);
	if (on_setup_irqs(source) < 0)
		abort();
	source->tenant_runs = true;
	/* Only now, so that a world always comes to be. */
	if (!world->place)
		choose_trouble(world);
	sim_spawn(run_machines, world);
	sim_spawn(run_destination, &world->sides[1]);
	sim_spawn(run_source, &world->sides[0]);
}

/* Whoever has the set goes on for some blocks and then ends in peace. */
static void run_on(void *arg)
{
	struct sim_world *world = arg;
	uint32_t i;
	uint32_t steps;

	for (i = 0; i < 2; i++) {
		struct sim_side *side = &world->sides[i];

		if (!side->tenant_runs)
			continue;
		side->tenant.state.goal = side->tenant.state.done + MORE_BLOCKS;
		for (steps = 0;
		     steps < MAX_STEPS && !sim_tenant_idle(&side->tenant) && !side->tenant.wrong[0];
		     steps++)
			(void)step(world);
		if (!side->tenant.wrong[0] && !sim_tenant_idle(&side->tenant))
			sim_wrong(world, "the tenant waits for ever: an interrupt or a transfer "
					 "was lost");
		sim_tenant_take_irqs(&side->tenant);
	}
}

static void drop_world(void *arg)
{
	struct sim_world *world = arg;
	uint32_t i;
	uint32_t m;

	for (i = 0; i < 2; i++) {
		struct sim_side *side = &world->sides[i];

		side->process.dead = false;
		memset(side->process.troubles, 0, sizeof(side->process.troubles));
		qsc_set_destroy(side->set);
		for (m = 0; m < world->members; m++) {
			qsc_device_close(side->layers[m].inner);
			qsc_runtime_destroy(side->models[m].rt);
		}
		sim_tenant_close(&side->tenant);
		free(side->tenant.memory);
	}
	sim_net_release(&world->net);
}

static void describe(const struct sim_world *world)
{
	uint32_t i;

	printf("seed %llu: %u devices, flags", (unsigned long long)world->seed, world->members);
	for (i = 0; i < world->members; i++)
		printf(" %u", world->flags[i]);
	printf("%s; channel fault %d%s", world->ring ? ", ring" : "", world->net.fault,
	       world->net.faulted ? " happened" : "");
	for (i = 0; i < 4; i++) {
		const struct sim_trouble *trouble = &world->sides[i / 2].process.troubles[i % 2];

		if (trouble->kind)
			printf("; fault %d at side %u%s", trouble->kind, i / 2,
			       trouble->happened ? " happened" : "");
	}
	printf("\n");
	for (i = 0; i < 2; i++)
		printf("  side %u: %s%d, owner %d, blocks %u\n    %s\n    %s\n", i,
		       world->sides[i].process.dead ? "dead, " : "", world->sides[i].result,
		       world->sides[i].report.owner, world->sides[i].tenant.state.done,
		       world->sides[i].err.text, world->sides[i].report.outcome);
}

static bool run_task(struct sim_world *world, void (*task)(void *arg))
{
	sim_spawn(task, world);
	if (sim_sched_run())
		return true;
	sim_wrong(world, "everybody waits for one another for ever");
	return false;
}

void sim_run(uint64_t seed, const struct sim_place *place, bool verbose, struct sim_result *result)
{
	struct sim_world *world = calloc(1, sizeof(*world));

	if (!world)
		abort();
	world->seed = seed;
	world->place = place;
	sim_sched_begin(seed);
	sim_net_init(&world->net);
	world->net.boundary = at_boundary;
	world->net.boundary_ctx = world;
	choose_shape(world);
	*result = (struct sim_result){0};
	if (run_task(world, run_world)) {
		sim_judge(world);
		if (verbose)
			describe(world);
		(void)run_task(world, run_on);
		if (world->sides[0].tenant.wrong[0] || world->sides[1].tenant.wrong[0])
			sim_wrong(world, "source tenant: %s; destination tenant: %s",
				  world->sides[0].tenant.wrong, world->sides[1].tenant.wrong);
		result->owner = world->sides[1].tenant_runs   ? QSC_OWNER_DESTINATION
				: world->sides[0].tenant_runs ? QSC_OWNER_SOURCE
							      : QSC_OWNER_UNPROVED;
		(void)run_task(world, drop_world);
	}
	result->ok = !world->failed[0];
	result->operations = world->operations;
	result->record = sim_record();
	(void)snprintf(result->text, sizeof(result->text), "%s", world->failed);
	free(world);
}
