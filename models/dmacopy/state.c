/* SPDX-License-Identifier: MIT */
/*
 * The engine's declared state: what of it is in the stream, and which states a loaded stream may
 * tell of (SESS-6). Every state that the other files can produce passes, and no other.
 */
#include "dmacopy/engine.h"

#include <errno.h>
#include <string.h>

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

const struct qsc_section dmacopy_sections[] = {
	{"registers", 1, 1, register_fields},
	{"in-flight", 1, 1, flight_fields},
	{NULL, 0, 0, NULL},
};

static bool range_within(uint64_t start, uint64_t size, uint64_t limit)
{
	return start <= limit && size <= limit - start;
}

static bool ranges_overlap(uint64_t a, uint64_t b, uint64_t size)
{
	return a < b ? b - a < size : a - b < size;
}

bool dmacopy_ring_possible(const struct state *state)
{
	uint64_t size = state->ring_size;

	return size && size <= DMACOPY_RING_MAX && !(size & (size - 1)) &&
	       !(state->ring_base % sizeof(struct dmacopy_descriptor)) &&
	       state->ring_base <= UINT64_MAX - size * sizeof(struct dmacopy_descriptor);
}

uint32_t dmacopy_transfer_check(const struct engine *engine, const struct channel *channel)
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

static const char *channel_problem(const struct engine *engine, const struct channel *channel)
{
	static const struct channel idle;
	uint32_t check = dmacopy_transfer_check(engine, channel);
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
	if (used && !dmacopy_ring_possible(state))
		return "the ring in use cannot be";
	if (state->head && state->head >= state->ring_size)
		return "the head index is outside the ring";
	if (state->failed > state->completed)
		return "more descriptors failed than were completed";
	return NULL;
}

int dmacopy_validate(void *ctx, const void *candidate, struct qsc_error *err)
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
