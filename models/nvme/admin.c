/* SPDX-License-Identifier: MIT */
/*
 * Admin commands, one at a time, by the first worker. What they ask for is told at once, but for
 * deleting a submission queue, which waits for the steps that are under way for its commands.
 */
#include <errno.h>
#include <string.h>

#include "nvme/controller.h"

static bool done(struct slot *slot, uint32_t status)
{
	slot->phase = PHASE_DONE;
	slot->status = status && status < NVME_SC_DNR ? status | NVME_SC_DNR : status;
	return true;
}

/* ---- queues ---- */

/* What creating one of either kind has in common; a status. */
static uint32_t queue_check(const struct controller *ctrl, const struct nvme_command *command,
			    bool exists)
{
	uint32_t qid = command->cdw10 & 0xffff;
	uint32_t last = command->cdw10 >> 16;

	if (!qid || qid > ctrl->queues || exists)
		return NVME_SC_QID_INVALID;
	if (!last || last >= QUEUE_ENTRIES)
		return NVME_SC_QUEUE_SIZE;
	if (!(command->cdw11 & 1))
		return NVME_SC_INVALID_FIELD;
	if (command->prp1 & (bit(page_shift(ctrl->state->cc)) - 1))
		return NVME_SC_PRP_OFFSET;
	return NVME_SC_SUCCESS;
}

/* The queue a command names, or one that is there and has no entries. */
static uint32_t known_queue(const struct controller *ctrl, uint32_t qid)
{
	return qid <= ctrl->queues ? qid : 0;
}

static uint32_t create_cq(struct controller *ctrl, const struct nvme_command *command)
{
	struct cq *cq = &ctrl->state->cqs[known_queue(ctrl, command->cdw10 & 0xffff)];
	uint32_t vector = command->cdw11 >> 16;
	uint32_t status = queue_check(ctrl, command, cq->size);

	if (!status && vector > ctrl->queues)
		status = NVME_SC_VECTOR;
	if (!status && (ctrl->state->cc >> NVME_CC_IOCQES_SHIFT & 0xf) != 4)
		status = NVME_SC_INVALID_FIELD;
	if (status)
		return status;
	*cq = (struct cq){
		.size = (command->cdw10 >> 16) + 1,
		.tag = 1,
		.vector = vector,
		.interrupts = command->cdw11 >> 1 & 1,
		.base = command->prp1,
	};
	return NVME_SC_SUCCESS;
}

static uint32_t create_sq(struct controller *ctrl, const struct nvme_command *command)
{
	struct sq *sq = &ctrl->state->sqs[known_queue(ctrl, command->cdw10 & 0xffff)];
	uint32_t cqid = command->cdw11 >> 16;
	uint32_t status = queue_check(ctrl, command, sq->size);

	if (!status && (!cqid || cqid > ctrl->queues || !ctrl->state->cqs[cqid].size))
		status = NVME_SC_CQ_INVALID;
	if (!status && (ctrl->state->cc >> NVME_CC_IOSQES_SHIFT & 0xf) != 6)
		status = NVME_SC_INVALID_FIELD;
	if (status)
		return status;
	*sq = (struct sq){
		.size = (command->cdw10 >> 16) + 1,
		.cqid = cqid,
		.base = command->prp1,
	};
	ctrl->epoch++;
	return NVME_SC_SUCCESS;
}

static uint32_t delete_cq(struct controller *ctrl, uint32_t qid)
{
	struct state *state = ctrl->state;

	if (!qid || qid > ctrl->queues || !state->cqs[qid].size)
		return NVME_SC_QID_INVALID;
	for (uint32_t i = 1; i <= ctrl->queues; i++) {
		if (state->sqs[i].size && state->sqs[i].cqid == qid)
			return NVME_SC_QUEUE_DELETION;
	}
	state->cqs[qid] = (struct cq){0};
	nvme_update_line(ctrl);
	return NVME_SC_SUCCESS;
}

/*
 * Commands of the queue that were not answered are dropped, as the specification permits; one that
 * has its entry in the completion queue gets it written. False while there are steps under way.
 */
static bool delete_sq(struct controller *ctrl, struct slot *own, uint32_t qid)
{
	struct state *state = ctrl->state;
	bool busy = false;

	if (!qid || qid > ctrl->queues || !state->sqs[qid].size)
		return done(own, NVME_SC_QID_INVALID);
	ctrl->deleting |= bit(qid);
	for (uint32_t i = 1; i < workers_of(ctrl->queues); i++) {
		struct slot *slot = &state->slots[i];

		if (slot->phase == PHASE_IDLE || slot->sqid != qid)
			continue;
		if (slot->phase == PHASE_POST || ctrl->busy & bit(i))
			busy = true;
		else
			*slot = (struct slot){0};
	}
	if (busy)
		return false;
	state->sqs[qid] = (struct sq){0};
	ctrl->deleting &= ~bit(qid);
	ctrl->epoch++;
	return done(own, NVME_SC_SUCCESS);
}

/* ---- data ---- */

/* Answer with data, of a transfer that the command says is `size` bytes. */
static bool send(struct controller *ctrl, struct slot *slot, uint64_t size, const void *data,
		 size_t data_size)
{
	const struct slot copy = *slot;
	uint32_t cc = ctrl->state->cc;
	int result;

	nvme_step_begin(ctrl);
	result = nvme_prp_write(ctrl, cc, &copy, size, data, data_size);
	if (!nvme_step_end(ctrl) || result < 0)
		return false;
	return done(slot, (uint32_t)result);
}

static bool identify(struct controller *ctrl, struct slot *slot)
{
	uint8_t data[4096];
	uint32_t status = nvme_identify(ctrl, slot_command(slot), data);

	return status ? done(slot, status) : send(ctrl, slot, sizeof(data), data, sizeof(data));
}

/* Who has read the log page is told of the next event of its kind. */
static void unmask_events(struct state *state, uint32_t page)
{
	if (page == NVME_LOG_ERROR)
		state->event_masked[NVME_EVENT_ERROR] = 0;
	if (page == NVME_LOG_SMART)
		state->event_masked[NVME_EVENT_SMART] = 0;
}

static bool get_log_page(struct controller *ctrl, struct slot *slot)
{
	const struct nvme_command command = *slot_command(slot);
	uint64_t size = (((uint64_t)(command.cdw11 & 0xffff) << 16 | command.cdw10 >> 16) + 1) * 4;
	uint64_t offset = (uint64_t)command.cdw13 << 32 | command.cdw12;
	uint32_t page = command.cdw10 & 0xff;
	uint8_t data[4096];
	size_t there = nvme_log_page(ctrl, page, data);

	if (!there)
		return done(slot, NVME_SC_LOG_PAGE);
	if (size > TRANSFER_MAX || offset % 4 || offset >= there)
		return done(slot, NVME_SC_INVALID_FIELD);
	if (!send(ctrl, slot, size, data + offset, size < there - offset ? size : there - offset))
		return false;
	if (!slot->status && !(command.cdw10 & 1U << 15))
		unmask_events(ctrl->state, page);
	return true;
}

/* ---- features ---- */

static bool set_features(struct controller *ctrl, struct slot *slot)
{
	const struct nvme_command command = *slot_command(slot);
	int result = 0;

	/* Without a cache nothing may be left in it. */
	if ((command.cdw10 & 0xff) == NVME_FEAT_WRITE_CACHE && !(command.cdw11 & 1)) {
		nvme_step_begin(ctrl);
		result = nvme_media_flush(&ctrl->media);
		if (!nvme_step_end(ctrl))
			return false;
	}
	return done(slot,
		    result ? (uint32_t)result : nvme_set_feature(ctrl, &command, &slot->result));
}

static bool async_event(struct controller *ctrl, struct slot *slot)
{
	struct state *state = ctrl->state;

	if (state->event_requests == EVENT_REQUESTS)
		return done(slot, NVME_SC_EVENT_LIMIT);
	state->event_cids[state->event_requests++] = slot_command(slot)->cid;
	*slot = (struct slot){0};
	return true;
}

bool nvme_admin_step(struct controller *ctrl, struct slot *slot)
{
	const struct nvme_command command = *slot_command(slot);

	if (command.flags)
		return done(slot, NVME_SC_INVALID_FIELD);
	switch (command.opcode) {
	case NVME_ADMIN_DELETE_SQ:
		return delete_sq(ctrl, slot, command.cdw10 & 0xffff);
	case NVME_ADMIN_CREATE_SQ:
		return done(slot, create_sq(ctrl, &command));
	case NVME_ADMIN_DELETE_CQ:
		return done(slot, delete_cq(ctrl, command.cdw10 & 0xffff));
	case NVME_ADMIN_CREATE_CQ:
		return done(slot, create_cq(ctrl, &command));
	case NVME_ADMIN_GET_LOG_PAGE:
		return get_log_page(ctrl, slot);
	case NVME_ADMIN_IDENTIFY:
		return identify(ctrl, slot);
	case NVME_ADMIN_ABORT:
		/* Whatever it was, it is done before this could reach it. */
		slot->result = 1;
		return done(slot, NVME_SC_SUCCESS);
	case NVME_ADMIN_SET_FEATURES:
		return set_features(ctrl, slot);
	case NVME_ADMIN_GET_FEATURES:
		return done(slot, nvme_get_feature(ctrl, &command, &slot->result));
	case NVME_ADMIN_ASYNC_EVENT:
		return async_event(ctrl, slot);
	default:
		return done(slot, NVME_SC_INVALID_OPCODE);
	}
}
