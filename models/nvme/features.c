/* SPDX-License-Identifier: MIT */
/* Features: what a driver sets and asks. None is kept over a reset of the controller. */
#include <string.h>

#include "nvme/controller.h"

#define TEMPERATURE_WARNING 343U /* Kelvin */
#define SAVE		    (1U << 31)
#define SELECT(cdw10)	    ((cdw10) >> 8 & 7)

void nvme_features_reset(struct state *state)
{
	state->arbitration = 0;
	state->temperature_over = TEMPERATURE_WARNING;
	state->temperature_under = 0;
	state->error_recovery = 0;
	state->write_cache = 1;
	state->coalescing = 0;
	state->vectors_apart = 0;
	state->atomicity = 0;
	state->async_config = 0;
}

uint32_t nvme_smart_warning(const struct state *state)
{
	bool unusual = TEMPERATURE >= state->temperature_over ||
		       TEMPERATURE <= state->temperature_under;

	return unusual ? NVME_SMART_WARNING_TEMPERATURE : 0;
}

static uint32_t set_temperature(struct controller *ctrl, uint32_t value)
{
	struct state *state = ctrl->state;
	uint32_t sensor = value >> 16 & 0xf;
	uint32_t kind = value >> 20 & 3;

	/* The composite temperature, or all of them. */
	if ((sensor && sensor != 0xf) || kind > 1)
		return NVME_SC_INVALID_FIELD;
	if (kind)
		state->temperature_under = value & 0xffff;
	else
		state->temperature_over = value & 0xffff;
	if (nvme_smart_warning(state) & state->async_config)
		nvme_event(ctrl, NVME_EVENT_SMART, NVME_SMART_TEMPERATURE);
	return NVME_SC_SUCCESS;
}

static uint32_t queue_count(const struct controller *ctrl)
{
	return (ctrl->queues - 1) << 16 | (ctrl->queues - 1);
}

static uint32_t set_queues(const struct controller *ctrl, uint32_t value, uint32_t *result)
{
	for (uint32_t i = 1; i <= ctrl->queues; i++) {
		if (ctrl->state->sqs[i].size || ctrl->state->cqs[i].size)
			return NVME_SC_SEQUENCE;
	}
	if ((value & 0xffff) == 0xffff || value >> 16 == 0xffff)
		return NVME_SC_INVALID_FIELD;
	*result = queue_count(ctrl);
	return NVME_SC_SUCCESS;
}

static uint32_t set_vector(struct controller *ctrl, uint32_t value)
{
	uint32_t vector = value & 0xffff;

	if (vector > ctrl->queues)
		return NVME_SC_INVALID_FIELD;
	ctrl->state->vectors_apart &= ~bit(vector);
	if (value >> 16 & 1)
		ctrl->state->vectors_apart |= bit(vector);
	return NVME_SC_SUCCESS;
}

uint32_t nvme_set_feature(struct controller *ctrl, const struct nvme_command *command,
			  uint32_t *result)
{
	struct state *state = ctrl->state;
	uint32_t value = command->cdw11;

	if (command->cdw10 & SAVE)
		return NVME_SC_NOT_SAVEABLE;
	switch (command->cdw10 & 0xff) {
	case NVME_FEAT_ARBITRATION:
		state->arbitration = value;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_POWER:
		return value & 0x1f ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
	case NVME_FEAT_TEMPERATURE:
		return set_temperature(ctrl, value);
	case NVME_FEAT_ERROR_RECOVERY:
		state->error_recovery = value & 0xffff;
		return value >> 16 ? NVME_SC_INVALID_FIELD : NVME_SC_SUCCESS;
	case NVME_FEAT_WRITE_CACHE:
		state->write_cache = value & 1;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_QUEUES:
		return set_queues(ctrl, value, result);
	case NVME_FEAT_COALESCING:
		state->coalescing = value & 0xffff;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_VECTOR:
		return set_vector(ctrl, value);
	case NVME_FEAT_ATOMICITY:
		state->atomicity = value & 1;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_ASYNC_EVENT:
		state->async_config = value;
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_INVALID_FIELD;
	}
}

static uint32_t get_temperature(const struct state *state, uint32_t value, uint32_t *result)
{
	uint32_t kind = value >> 20 & 3;

	if (value >> 16 & 0xf || kind > 1)
		return NVME_SC_INVALID_FIELD;
	*result = kind ? state->temperature_under : state->temperature_over;
	return NVME_SC_SUCCESS;
}

static uint32_t get_vector(const struct controller *ctrl, uint32_t value, uint32_t *result)
{
	uint32_t vector = value & 0xffff;

	if (vector > ctrl->queues)
		return NVME_SC_INVALID_FIELD;
	*result = vector | (uint32_t)(ctrl->state->vectors_apart >> vector & 1) << 16;
	return NVME_SC_SUCCESS;
}

uint32_t nvme_get_feature(const struct controller *ctrl, const struct nvme_command *command,
			  uint32_t *result)
{
	const struct state *state = ctrl->state;

	/* Only the values in force: none is saved, and the defaults are not told. */
	if (SELECT(command->cdw10))
		return NVME_SC_INVALID_FIELD;
	switch (command->cdw10 & 0xff) {
	case NVME_FEAT_ARBITRATION:
		*result = state->arbitration;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_POWER:
		*result = 0;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_TEMPERATURE:
		return get_temperature(state, command->cdw11, result);
	case NVME_FEAT_ERROR_RECOVERY:
		*result = state->error_recovery;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_WRITE_CACHE:
		*result = state->write_cache;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_QUEUES:
		*result = queue_count(ctrl);
		return NVME_SC_SUCCESS;
	case NVME_FEAT_COALESCING:
		*result = state->coalescing;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_VECTOR:
		return get_vector(ctrl, command->cdw11, result);
	case NVME_FEAT_ATOMICITY:
		*result = state->atomicity;
		return NVME_SC_SUCCESS;
	case NVME_FEAT_ASYNC_EVENT:
		*result = state->async_config;
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_INVALID_FIELD;
	}
}
