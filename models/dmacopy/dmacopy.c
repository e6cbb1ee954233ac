/* SPDX-License-Identifier: MIT */
/*
 * The dmacopy engine as a model of the runtime. Each channel is one worker: it takes the next
 * descriptor of the ring, copies it piece by piece, writes it back and raises its interrupt. How
 * far a channel has come is declared state, written only when a step is complete, so a transfer
 * goes on after a migration exactly where it stopped.
 *
 * The lock guards the state structure and is never held across DMA: memory may be reached by asking
 * its holder over a socket, who may just then be waiting for one of our registers. A step works on
 * a copy of its channel instead; nobody else writes to the channel meanwhile but a RESET by the
 * driver, which therefore waits for the steps that are under way and drops what they did.
 */
#include "dmacopy/dmacopy.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

/* A state change waits for the pieces that are under way. */
#define PIECE_SIZE    65536U
#define DEFAULT_LOCAL (1ULL << 20)
#define LOCAL_BLOCK   0

_Static_assert(sizeof(struct dmacopy_descriptor) == 64, "descriptors are 64 bytes");

enum phase {
	PHASE_IDLE,
	PHASE_COPY,   /* done < length */
	PHASE_STATUS, /* status and bytes_done are to be written back */
	PHASE_OWN,    /* OWN is to be cleared, then the interrupt */
	PHASE_COUNT
};

/* A descriptor in flight. All zero when idle. */
struct channel {
	uint32_t phase;
	uint32_t index; /* in the ring */
	uint32_t flags;
	uint32_t vector;
	uint32_t length;
	uint32_t status; /* DMACOPY_DONE_*; 0 until known */
	uint64_t source;
	uint64_t destination;
	uint64_t done;
};

struct state {
	uint32_t control;
	uint32_t error;
	uint32_t halted;
	uint32_t ring_size;
	uint32_t head;
	uint64_t ring_base;
	uint64_t scratch;
	uint64_t completed;
	uint64_t bytes;
	uint64_t failed;
	struct channel channels[DMACOPY_CHANNELS];
};

struct engine {
	struct qsc_runtime *rt;
	struct state *state;
	uint8_t *local;
	uint64_t local_size;
	uint32_t vectors;

	pthread_mutex_t lock;
	/* Derived: at rest in a stopped device, set anew by start(). */
	bool pending;	/* the head descriptor is worth a look */
	bool fetching;	/* one worker looks at it */
	uint32_t steps; /* under way without the lock */
};

static const struct qsc_field channel_fields[] = {
	QSC_FIELD(struct channel, phase),  QSC_FIELD(struct channel, index),
	QSC_FIELD(struct channel, flags),  QSC_FIELD(struct channel, vector),
	QSC_FIELD(struct channel, length), QSC_FIELD(struct channel, status),
	QSC_FIELD(struct channel, source), QSC_FIELD(struct channel, destination),
	QSC_FIELD(struct channel, done),   QSC_FIELD_END,
};

static const struct qsc_field register_fields[] = {
	QSC_FIELD(struct state, control),
	QSC_FIELD(struct state, error),
	QSC_FIELD(struct state, halted),
	QSC_FIELD(struct state, ring_size),
	QSC_FIELD(struct state, head),
	QSC_FIELD(struct state, ring_base),
	QSC_FIELD(struct state, scratch),
	QSC_FIELD(struct state, completed),
	QSC_FIELD(struct state, bytes),
	QSC_FIELD(struct state, failed),
	QSC_FIELD_END,
};

static const struct qsc_field flight_fields[] = {
	QSC_FIELD_STRUCTS(struct state, channels, channel_fields),
	QSC_FIELD_END,
};

static const struct qsc_section sections[] = {
	{"registers", 1, 1, register_fields},
	{"in-flight", 1, 1, flight_fields},
	{NULL, 0, 0, NULL},
};

/* ---- questions about the state; under the lock or on a candidate ---- */

static bool range_within(uint64_t start, uint64_t size, uint64_t limit)
{
	return start <= limit && size <= limit - start;
}

static bool ranges_overlap(uint64_t a, uint64_t b, uint64_t size)
{
	return a < b ? b - a < size : a - b < size;
}

static bool ring_possible(const struct state *state)
{
	uint64_t size = state->ring_size;

	return size && size <= DMACOPY_RING_MAX && !(size & (size - 1)) &&
	       !(state->ring_base % sizeof(struct dmacopy_descriptor)) &&
	       state->ring_base <= UINT64_MAX - size * sizeof(struct dmacopy_descriptor);
}

static bool in_flight(const struct state *state, uint32_t index)
{
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
		if (state->channels[i].phase != PHASE_IDLE && state->channels[i].index == index)
			return true;
	}
	return false;
}

/* A channel that has nothing to do, or DMACOPY_CHANNELS. */
static uint32_t idle_channel(const struct state *state)
{
	uint32_t i = 0;

	while (i < DMACOPY_CHANNELS && state->channels[i].phase != PHASE_IDLE)
		i++;
	return i;
}

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

/* What is wrong with a transfer before any of it is done, or DMACOPY_DONE_OK. */
static uint32_t transfer_check(const struct engine *engine, const struct channel *channel)
{
	bool from_local = channel->flags & DMACOPY_DESC_SOURCE_LOCAL;
	bool to_local = channel->flags & DMACOPY_DESC_DESTINATION_LOCAL;
	uint64_t from_limit = from_local ? engine->local_size : UINT64_MAX;
	uint64_t to_limit = to_local ? engine->local_size : UINT64_MAX;

	if (channel->flags & ~DMACOPY_DESC_ALL)
		return DMACOPY_DONE_INVALID;
	if (channel->flags & DMACOPY_DESC_INTERRUPT && channel->vector >= engine->vectors)
		return DMACOPY_DONE_INVALID;
	if (!range_within(channel->source, channel->length, from_limit) ||
	    !range_within(channel->destination, channel->length, to_limit))
		return DMACOPY_DONE_RANGE;
	if (from_local == to_local &&
	    ranges_overlap(channel->source, channel->destination, channel->length))
		return DMACOPY_DONE_RANGE;
	return DMACOPY_DONE_OK;
}

static uint64_t descriptor_iova(const struct state *state, uint32_t index)
{
	return state->ring_base + (uint64_t)index * sizeof(struct dmacopy_descriptor);
}

static void halt(struct engine *engine, uint32_t error)
{
	engine->state->halted = 1;
	if (!engine->state->error)
		engine->state->error = error;
}

/* ---- a driver's RESET ---- */

static void reset_finish(struct engine *engine)
{
	memset(engine->state, 0, sizeof(*engine->state));
	engine->pending = false;
	engine->fetching = false;
}

/* A step begins: from here to step_end() the lock is not held. */
static void step_begin(struct engine *engine)
{
	engine->steps++;
	pthread_mutex_unlock(&engine->lock);
}

/* With the lock again. False when the driver has reset the engine: drop what the step did. */
static bool step_end(struct engine *engine)
{
	pthread_mutex_lock(&engine->lock);
	engine->steps--;
	if (!(engine->state->control & DMACOPY_CONTROL_RESET))
		return true;
	if (!engine->steps)
		reset_finish(engine);
	return false;
}

/* ---- work: called and left with the lock held ---- */

static void channel_fill(const struct engine *engine, struct channel *channel,
			 const struct dmacopy_descriptor *descriptor, uint32_t index)
{
	*channel = (struct channel){
		.index = index,
		.flags = descriptor->flags,
		.vector = descriptor->vector,
		.length = descriptor->length,
		.source = descriptor->source,
		.destination = descriptor->destination,
	};
	channel->status = descriptor->reserved || descriptor->reserved2
				  ? DMACOPY_DONE_INVALID
				  : transfer_check(engine, channel);
	channel->phase = PHASE_STATUS;
	if (channel->status == DMACOPY_DONE_OK && channel->length) {
		channel->status = 0;
		channel->phase = PHASE_COPY;
	}
}

/* Take the head descriptor, if it is there to be taken, into the worker's idle channel. */
static enum qsc_work fetch(struct engine *engine, uint32_t worker)
{
	struct state *state = engine->state;
	struct dmacopy_descriptor descriptor;
	uint32_t index = state->head;
	uint32_t other;
	int ret;

	if (!(state->control & DMACOPY_CONTROL_ENABLE) || state->halted || !engine->pending ||
	    engine->fetching || in_flight(state, index))
		return QSC_WORK_IDLE;
	engine->fetching = true;
	/* A doorbell from here on may be about something that this look does not see. */
	engine->pending = false;
	step_begin(engine);
	ret = qsc_dma_read(engine->rt, descriptor_iova(state, index), &descriptor,
			   sizeof(descriptor));
	if (!step_end(engine))
		return QSC_WORK_IDLE;
	engine->fetching = false;
	if (ret == -EAGAIN) {
		engine->pending = true;
		return QSC_WORK_IDLE;
	}
	if (ret) {
		halt(engine, DMACOPY_ERROR_RING_READ);
		return QSC_WORK_IDLE;
	}
	if (!(state->control & DMACOPY_CONTROL_ENABLE))
		return QSC_WORK_IDLE;
	if (!(descriptor.flags & DMACOPY_DESC_OWN))
		return engine->pending ? QSC_WORK_AGAIN : QSC_WORK_IDLE;
	channel_fill(engine, &state->channels[worker], &descriptor, index);
	state->head = (index + 1) & (state->ring_size - 1);
	engine->pending = true;
	other = idle_channel(state);
	if (other < DMACOPY_CHANNELS)
		qsc_work_kick(engine->rt, other);
	return QSC_WORK_AGAIN;
}

/* One piece, from done on. 0, or what the DMA says. */
static int copy_piece(struct engine *engine, const struct channel *channel, uint32_t size)
{
	uint64_t source = channel->source + channel->done;
	uint64_t destination = channel->destination + channel->done;
	bool from_local = channel->flags & DMACOPY_DESC_SOURCE_LOCAL;
	bool to_local = channel->flags & DMACOPY_DESC_DESTINATION_LOCAL;
	int ret = 0;

	if (from_local && !to_local)
		return qsc_dma_write(engine->rt, destination, engine->local + source, size);
	if (!from_local && !to_local)
		return qsc_dma_copy(engine->rt, destination, source, size);
	if (from_local)
		memcpy(engine->local + destination, engine->local + source, size);
	else
		ret = qsc_dma_read(engine->rt, source, engine->local + destination, size);
	/* Also after an error: part of it may have arrived. */
	qsc_block_dirty(engine->rt, LOCAL_BLOCK, destination, size);
	return ret;
}

static int channel_copy(struct engine *engine, struct channel *channel)
{
	uint64_t left = channel->length - channel->done;
	uint32_t size = left < PIECE_SIZE ? (uint32_t)left : PIECE_SIZE;
	int ret = copy_piece(engine, channel, size);

	if (ret == -EAGAIN)
		return ret;
	if (ret) {
		channel->status = ret == -EFAULT ? DMACOPY_DONE_FAULT : DMACOPY_DONE_IO;
	} else {
		channel->done += size;
		if (channel->done < channel->length)
			return 0;
		channel->status = DMACOPY_DONE_OK;
	}
	channel->phase = PHASE_STATUS;
	return 0;
}

static int channel_write_status(struct engine *engine, uint64_t iova, struct channel *channel)
{
	struct dmacopy_descriptor result = {
		.status = channel->status,
		.bytes_done = channel->done,
	};
	size_t offset = offsetof(struct dmacopy_descriptor, status);
	int ret = qsc_dma_write(engine->rt, iova + offset, &result.status, sizeof(result) - offset);

	if (!ret)
		channel->phase = PHASE_OWN;
	return ret;
}

static int channel_clear_own(struct engine *engine, uint64_t iova, struct channel *channel)
{
	uint32_t flags = channel->flags & ~DMACOPY_DESC_OWN;
	int ret;

	/* A driver that sees OWN clear must see the status and the data too. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ret = qsc_dma_write(engine->rt, iova, &flags, sizeof(flags));
	if (!ret)
		channel->phase = PHASE_IDLE;
	return ret;
}

/* The channel's descriptor has been written back. */
static void complete(struct engine *engine, const struct channel *channel)
{
	struct state *state = engine->state;

	state->completed++;
	state->bytes += channel->done;
	if (channel->status != DMACOPY_DONE_OK)
		state->failed++;
	if (channel->flags & DMACOPY_DESC_INTERRUPT && channel->vector < engine->vectors)
		qsc_irq_raise(engine->rt, VFIO_PCI_MSIX_IRQ_INDEX, channel->vector);
}

/* Move a transfer on by at most one piece; what follows the last piece goes with it. */
static enum qsc_work advance(struct engine *engine, uint32_t worker)
{
	struct channel *channel = &engine->state->channels[worker];
	struct channel copy = *channel;
	uint64_t iova = descriptor_iova(engine->state, copy.index);
	int ret = 0;

	step_begin(engine);
	if (copy.phase == PHASE_COPY)
		ret = channel_copy(engine, &copy);
	if (!ret && copy.phase == PHASE_STATUS)
		ret = channel_write_status(engine, iova, &copy);
	if (!ret && copy.phase == PHASE_OWN)
		ret = channel_clear_own(engine, iova, &copy);
	if (!step_end(engine))
		return QSC_WORK_IDLE;
	if (ret == -EAGAIN) {
		*channel = copy;
		return QSC_WORK_IDLE;
	}
	if (ret)
		halt(engine, DMACOPY_ERROR_RING_WRITE);
	else if (copy.phase == PHASE_IDLE)
		complete(engine, &copy);
	if (ret || copy.phase == PHASE_IDLE)
		copy = (struct channel){0};
	*channel = copy;
	return QSC_WORK_AGAIN;
}

static enum qsc_work work(void *ctx, uint32_t worker)
{
	struct engine *engine = ctx;
	enum qsc_work ret = QSC_WORK_IDLE;

	pthread_mutex_lock(&engine->lock);
	if (engine->state->control & DMACOPY_CONTROL_RESET)
		ret = QSC_WORK_IDLE;
	else if (engine->state->channels[worker].phase == PHASE_IDLE)
		ret = fetch(engine, worker);
	else
		ret = advance(engine, worker);
	pthread_mutex_unlock(&engine->lock);
	return ret;
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
			reset_finish(engine);
		return;
	}
	if (!(value & DMACOPY_CONTROL_ENABLE)) {
		state->control = 0;
		return;
	}
	if (state->control & DMACOPY_CONTROL_ENABLE)
		return;
	if (busy(engine) || !ring_possible(state)) {
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
		idle = idle_channel(engine->state);
	pthread_mutex_unlock(&engine->lock);
	if (idle < DMACOPY_CHANNELS)
		qsc_work_kick(engine->rt, idle);
	return 0;
}

/* ---- life ---- */

static void reset(void *ctx)
{
	struct engine *engine = ctx;

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

static const char *channel_problem(const struct engine *engine, const struct channel *channel)
{
	static const struct channel idle;
	uint32_t check = transfer_check(engine, channel);
	bool ends = channel->done == channel->length;

	if (channel->phase >= PHASE_COUNT)
		return "is in no phase that exists";
	if (channel->phase == PHASE_IDLE)
		return memcmp(channel, &idle, sizeof(idle)) ? "is idle but holds a transfer" : NULL;
	if (!(channel->flags & DMACOPY_DESC_OWN))
		return "holds a descriptor that it does not own";
	if (channel->done > channel->length)
		return "has copied more than its transfer is long";
	if (channel->phase == PHASE_COPY)
		return channel->status || ends || check != DMACOPY_DONE_OK
			       ? "copies what it may not"
			       : NULL;
	switch (channel->status) {
	case DMACOPY_DONE_OK:
		return check == DMACOPY_DONE_OK && ends ? NULL : "claims a success it cannot have";
	case DMACOPY_DONE_FAULT:
	case DMACOPY_DONE_IO:
		return check == DMACOPY_DONE_OK && !ends ? NULL : "claims a failure it cannot have";
	case DMACOPY_DONE_RANGE:
		return check == DMACOPY_DONE_RANGE && !channel->done
			       ? NULL
			       : "refuses a range that is right";
	case DMACOPY_DONE_INVALID:
		return channel->done ? "refuses what it has begun" : NULL;
	default:
		return "has a status that does not exist";
	}
}

static const char *registers_problem(const struct state *state)
{
	bool used = state->control & DMACOPY_CONTROL_ENABLE;

	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++)
		used |= state->channels[i].phase != PHASE_IDLE;
	if (state->control & ~DMACOPY_CONTROL_ENABLE)
		return "the control register has bits that a stopped engine cannot have";
	if (state->error > DMACOPY_ERROR_RING_WRITE)
		return "the error register holds no error that exists";
	if (state->halted > 1)
		return "the halted flag is neither 0 nor 1";
	if (used && !ring_possible(state))
		return "the ring in use cannot be";
	if (state->head && state->head >= state->ring_size)
		return "the head index is outside the ring";
	if (state->failed > state->completed)
		return "more descriptors failed than were completed";
	return NULL;
}

static int validate(void *ctx, const void *candidate, struct qsc_error *err)
{
	const struct engine *engine = ctx;
	const struct state *state = candidate;
	const char *problem = registers_problem(state);

	if (problem)
		return qsc_error_set(err, EINVAL, NULL, "dmacopy state: %s", problem);
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
		const struct channel *channel = &state->channels[i];

		problem = channel_problem(engine, channel);
		if (problem)
			return qsc_error_set(err, EINVAL, NULL, "dmacopy state: channel %u %s", i,
					     problem);
		if (channel->phase == PHASE_IDLE)
			continue;
		if (channel->index >= state->ring_size)
			return qsc_error_set(err, EINVAL, NULL,
					     "dmacopy state: channel %u works outside the ring", i);
		for (uint32_t j = 0; j < i; j++) {
			if (state->channels[j].phase != PHASE_IDLE &&
			    state->channels[j].index == channel->index)
				return qsc_error_set(
					err, EINVAL, NULL,
					"dmacopy state: channels %u and %u hold one descriptor", j,
					i);
		}
	}
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
	.sections = sections,
	.workers = DMACOPY_CHANNELS,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = work,
	.start = start,
	.validate = validate,
	.destroy = destroy,
};

static int runtime_create(struct engine *engine, const struct dmacopy_options *options,
			  struct qsc_error *err)
{
	const struct qsc_block_desc block = {"local", engine->local_size};
	const struct qsc_region_desc regions[] = {
		{VFIO_PCI_BAR0_REGION_INDEX + DMACOPY_BAR_REGISTERS, DMACOPY_REGISTERS_SIZE,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK},
		{VFIO_PCI_BAR0_REGION_INDEX + DMACOPY_BAR_LOCAL, engine->local_size,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP,
		 LOCAL_BLOCK},
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
	engine->vectors = options->vectors ? options->vectors : 16;
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
	engine->state = qsc_runtime_state(engine->rt);
	engine->local = qsc_block_data(engine->rt, LOCAL_BLOCK);
	*rt = engine->rt;
	return 0;
fail:
	destroy(engine);
	return ret;
}
