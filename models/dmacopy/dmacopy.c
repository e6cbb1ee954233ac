/* SPDX-License-Identifier: MIT */
/*
 * The dmacopy engine as a model of the runtime: its registers and its life. How far a transfer has
 * come is declared state, written only when a step is complete, so it goes on after a migration
 * exactly where it stopped.
 */
#include "dmacopy/dmacopy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include "dmacopy/engine.h"

#define DEFAULT_LOCAL	(1ULL << 20)
#define DEFAULT_VECTORS 16U

_Static_assert(sizeof(struct dmacopy_descriptor) == 64, "descriptors are 64 bytes");

static bool busy(const struct engine *engine)
{
	if (engine->fetching)
		return true;
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
		if (engine->state->channels[i].phase != PHASE_IDLE)
			return true;
	}
	return false;
}

/* ---- registers ---- */

/* The aligned 64 bits that hold the register at `offset`. */
static uint64_t register_pair(const struct engine *engine, uint64_t offset)
{
	const struct state *state = engine->state;
	uint32_t status = (busy(engine) ? DMACOPY_STATUS_BUSY : 0) |
			  (state->halted ? DMACOPY_STATUS_HALTED : 0);

	switch (offset & ~7ULL) {
	case DMACOPY_REG_ID:
		return (uint64_t)DMACOPY_VERSION << 32 | DMACOPY_ID;
	case DMACOPY_REG_CHANNELS:
		return (uint64_t)engine->vectors << 32 | DMACOPY_CHANNELS;
	case DMACOPY_REG_LOCAL_SIZE:
		return engine->local_size;
	case DMACOPY_REG_RING_MAX:
		return DMACOPY_RING_MAX;
	case DMACOPY_REG_CONTROL:
		return (uint64_t)status << 32 | state->control;
	case DMACOPY_REG_ERROR:
		return state->error;
	case DMACOPY_REG_RING_BASE:
		return state->ring_base;
	case DMACOPY_REG_RING_SIZE:
		return (uint64_t)state->head << 32 | state->ring_size;
	case DMACOPY_REG_SCRATCH:
		return state->scratch;
	case DMACOPY_REG_COMPLETED:
		return state->completed;
	case DMACOPY_REG_BYTES:
		return state->bytes;
	case DMACOPY_REG_FAILED:
		return state->failed;
	default:
		return 0;
	}
}

static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	struct engine *engine = ctx;
	uint64_t value;

	pthread_mutex_lock(&engine->lock);
	value = register_pair(engine, offset) >> (offset % 8 * 8);
	pthread_mutex_unlock(&engine->lock);
	memcpy(buf, &value, count);
	return 0;
}

static void control_write(struct engine *engine, uint32_t value)
{
	struct state *state = engine->state;

	if (value & DMACOPY_CONTROL_RESET) {
		state->control |= DMACOPY_CONTROL_RESET;
		if (!engine->steps)
			dmacopy_reset_finish(engine);
		return;
	}
	if (!(value & DMACOPY_CONTROL_ENABLE)) {
		state->control = 0;
		return;
	}
	if (state->control & DMACOPY_CONTROL_ENABLE)
		return;
	if (busy(engine) || !dmacopy_ring_possible(state)) {
		if (!state->error)
			state->error = busy(engine) ? DMACOPY_ERROR_BUSY : DMACOPY_ERROR_BAD_RING;
		return;
	}
	state->control = DMACOPY_CONTROL_ENABLE;
	state->head = 0;
	engine->pending = true;
}

static void ring_write(struct engine *engine, uint64_t offset, uint32_t value)
{
	struct state *state = engine->state;

	if (state->control & DMACOPY_CONTROL_ENABLE || busy(engine))
		return;
	state->head = 0;
	if (offset == DMACOPY_REG_RING_SIZE)
		state->ring_size = value;
	else if (offset == DMACOPY_REG_RING_BASE)
		state->ring_base = (state->ring_base >> 32 << 32) | value;
	else
		state->ring_base = (uint64_t)value << 32 | (uint32_t)state->ring_base;
}

static void register_write(struct engine *engine, uint64_t offset, uint32_t value)
{
	struct state *state = engine->state;

	/* Until a reset is complete there is nothing to write to. */
	if (state->control & DMACOPY_CONTROL_RESET)
		return;
	switch (offset) {
	case DMACOPY_REG_CONTROL:
		control_write(engine, value);
		break;
	case DMACOPY_REG_ERROR:
		state->error = DMACOPY_ERROR_NONE;
		break;
	case DMACOPY_REG_RING_BASE:
	case DMACOPY_REG_RING_BASE + 4:
	case DMACOPY_REG_RING_SIZE:
		ring_write(engine, offset, value);
		break;
	case DMACOPY_REG_SCRATCH:
		state->scratch = (state->scratch >> 32 << 32) | value;
		break;
	case DMACOPY_REG_SCRATCH + 4:
		state->scratch = (uint64_t)value << 32 | (uint32_t)state->scratch;
		break;
	case DMACOPY_REG_DOORBELL:
		engine->pending = true;
		break;
	default:
		break;
	}
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct engine *engine = ctx;
	uint32_t idle = DMACOPY_CHANNELS;
	uint32_t value;

	if (count < sizeof(value))
		return 0;
	pthread_mutex_lock(&engine->lock);
	for (size_t i = 0; i < count; i += sizeof(value)) {
		memcpy(&value, (const uint8_t *)buf + i, sizeof(value));
		register_write(engine, offset + i, value);
	}
	/* A channel in flight looks at the ring by itself when it is done. */
	if (engine->pending)
		idle = dmacopy_idle_channel(engine->state);
	pthread_mutex_unlock(&engine->lock);
	if (idle < DMACOPY_CHANNELS)
		qsc_work_kick(engine->rt, idle);
	return 0;
}

/* ---- life ---- */

static void reset(void *ctx)
{
	struct engine *engine = ctx;

	/* The first callback: from here on there are no others than with these. */
	engine->state = qsc_runtime_state(engine->rt);
	engine->local = qsc_block_data(engine->rt, DMACOPY_LOCAL_BLOCK);
	engine->pending = false;
	engine->fetching = false;
	engine->steps = 0;
}

static int start(void *ctx)
{
	struct engine *engine = ctx;

	pthread_mutex_lock(&engine->lock);
	engine->pending = true;
	pthread_mutex_unlock(&engine->lock);
	return 0;
}

static void destroy(void *ctx)
{
	struct engine *engine = ctx;

	pthread_mutex_destroy(&engine->lock);
	free(engine);
}

static const struct qsc_model model = {
	.type = "dmacopy",
	.pci = {.vendor = DMACOPY_PCI_VENDOR,
		.device = DMACOPY_PCI_DEVICE,
		.subsystem_vendor = DMACOPY_PCI_VENDOR,
		.subsystem = 1,
		.class_code = 0x088000, /* base system peripheral, other */
		.revision = 1},
	.state_size = sizeof(struct state),
	.sections = dmacopy_sections,
	.workers = DMACOPY_CHANNELS,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = dmacopy_work,
	.start = start,
	.validate = dmacopy_validate,
	.destroy = destroy,
};

static int runtime_create(struct engine *engine, const struct dmacopy_options *options,
			  struct qsc_error *err)
{
	const struct qsc_block_desc block = {.name = "local", .size = engine->local_size};
	const struct qsc_region_desc regions[] = {
		{VFIO_PCI_BAR0_REGION_INDEX + DMACOPY_BAR_REGISTERS, DMACOPY_REGISTERS_SIZE,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK},
		{VFIO_PCI_BAR0_REGION_INDEX + DMACOPY_BAR_LOCAL, engine->local_size,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP,
		 DMACOPY_LOCAL_BLOCK},
	};
	const struct qsc_doorbell_desc doorbell = {
		VFIO_PCI_BAR0_REGION_INDEX + DMACOPY_BAR_REGISTERS, DMACOPY_REG_DOORBELL, 4};
	const struct qsc_runtime_options runtime = {
		.name = options->name,
		.migration_flags = options->migration_flags
					   ? options->migration_flags
					   : QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P |
						     QSC_MIGRATION_PRE_COPY,
		.tells_peers = options->tells_peers,
		.blocks = &block,
		.num_blocks = 1,
		.regions = regions,
		.num_regions = sizeof(regions) / sizeof(regions[0]),
		.doorbells = &doorbell,
		.num_doorbells = 1,
		.msix_vectors = engine->vectors,
		.manual = options->manual,
		.destroy_on_close = options->destroy_on_close,
		.violation = options->violation,
		.violation_ctx = options->violation_ctx,
	};

	return qsc_runtime_create(&model, engine, &runtime, &engine->rt, err);
}

int dmacopy_create(const struct dmacopy_options *options, struct qsc_runtime **rt,
		   struct qsc_error *err)
{
	static const struct dmacopy_options defaults;
	struct engine *engine;
	int ret;

	options = options ? options : &defaults;
	engine = calloc(1, sizeof(*engine));
	if (!engine)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a dmacopy engine");
	engine->local_size = options->local_size ? options->local_size : DEFAULT_LOCAL;
	engine->vectors = options->vectors ? options->vectors : DEFAULT_VECTORS;
	pthread_mutex_init(&engine->lock, NULL);
	if (engine->local_size < DMACOPY_LOCAL_MIN || engine->local_size > DMACOPY_LOCAL_MAX ||
	    engine->local_size & (engine->local_size - 1)) {
		ret = qsc_error_set(err, EINVAL, NULL,
				    "dmacopy cannot have %llu bytes of local memory: it takes a "
				    "power of two from 4 KiB to 1 TiB",
				    (unsigned long long)engine->local_size);
		goto fail;
	}
	ret = runtime_create(engine, options, err);
	if (ret)
		goto fail;
	*rt = engine->rt;
	return 0;
fail:
	destroy(engine);
	return ret;
}
