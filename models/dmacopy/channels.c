/* SPDX-License-Identifier: MIT */
/*
 * The channels of the engine: each is one worker, which takes the next descriptor of the ring,
 * copies it piece by piece, writes it back and raises its interrupt.
 *
 * The lock guards the state structure and is never held across DMA: memory may be reached by asking
 * its holder over a socket, who may just then be waiting for one of our registers. A step works on
 * a copy of its channel instead; nobody else writes to the channel meanwhile but a RESET by the
 * driver, which therefore waits for the steps that are under way and drops what they did.
 */
#include "dmacopy/engine.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <linux/vfio.h>

/* A state change waits for the pieces that are under way. */
#define PIECE_SIZE 65536U

static bool in_flight(const struct state *state, uint32_t index)
{
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
		if (state->channels[i].phase != PHASE_IDLE && state->channels[i].index == index)
			return true;
	}
	return false;
}

uint32_t dmacopy_idle_channel(const struct state *state)
{
	uint32_t i = 0;

	while (i < DMACOPY_CHANNELS && state->channels[i].phase != PHASE_IDLE)
		i++;
	return i;
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

void dmacopy_reset_finish(struct engine *engine)
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
		dmacopy_reset_finish(engine);
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
				  : dmacopy_transfer_check(engine, channel);
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
	other = dmacopy_idle_channel(state);
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
	qsc_block_dirty(engine->rt, DMACOPY_LOCAL_BLOCK, destination, size);
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
static void finish(struct engine *engine, const struct channel *channel)
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
		finish(engine, &copy);
	if (ret || copy.phase == PHASE_IDLE)
		copy = (struct channel){0};
	*channel = copy;
	return QSC_WORK_AGAIN;
}

enum qsc_work dmacopy_work(void *ctx, uint32_t worker)
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
