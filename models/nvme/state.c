/* SPDX-License-Identifier: MIT */
/*
 * The controller's declared state: what of it is in the stream, and which states a loaded stream
 * may tell of (SESS-6). Commands in flight are checked when they go on, like those that a driver
 * sends; here is checked what no driver could have brought about.
 */
#include <errno.h>
#include <string.h>

#include "nvme/controller.h"

static const struct qsc_field slot_fields[] = {
	QSC_FIELD(struct slot, phase),
	QSC_FIELD(struct slot, sqid),
	QSC_FIELD_ARRAY(struct slot, words),
	QSC_FIELD(struct slot, done),
	QSC_FIELD(struct slot, list),
	QSC_FIELD(struct slot, range),
	QSC_FIELD(struct slot, status),
	QSC_FIELD(struct slot, result),
	QSC_FIELD(struct slot, entry),
	QSC_FIELD(struct slot, tag),
	QSC_FIELD_END,
};

static const struct qsc_field sq_fields[] = {
	QSC_FIELD(struct sq, size), QSC_FIELD(struct sq, cqid), QSC_FIELD(struct sq, head),
	QSC_FIELD(struct sq, tail), QSC_FIELD(struct sq, base), QSC_FIELD_END,
};

static const struct qsc_field cq_fields[] = {
	QSC_FIELD(struct cq, size),   QSC_FIELD(struct cq, head),
	QSC_FIELD(struct cq, tail),   QSC_FIELD(struct cq, tag),
	QSC_FIELD(struct cq, vector), QSC_FIELD(struct cq, interrupts),
	QSC_FIELD(struct cq, base),   QSC_FIELD_END,
};

static const struct qsc_field error_fields[] = {
	QSC_FIELD(struct error_entry, count),
	QSC_FIELD(struct error_entry, lba),
	QSC_FIELD(struct error_entry, sqid),
	QSC_FIELD(struct error_entry, cid),
	QSC_FIELD(struct error_entry, status),
	QSC_FIELD(struct error_entry, nsid),
	QSC_FIELD_END,
};

static const struct qsc_field disk_fields[] = {
	QSC_FIELD(struct state, blocks),
	QSC_FIELD(struct state, queues),
	QSC_FIELD_ARRAY(struct state, serial),
	QSC_FIELD(struct state, bytes_read),
	QSC_FIELD(struct state, bytes_written),
	QSC_FIELD(struct state, reads),
	QSC_FIELD(struct state, writes),
	QSC_FIELD(struct state, errors),
	QSC_FIELD_STRUCTS(struct state, error_log, error_fields),
	QSC_FIELD_END,
};

static const struct qsc_field controller_fields[] = {
	QSC_FIELD(struct state, cc),
	QSC_FIELD(struct state, csts),
	QSC_FIELD(struct state, aqa),
	QSC_FIELD(struct state, intms),
	QSC_FIELD(struct state, asq),
	QSC_FIELD(struct state, acq),
	QSC_FIELD(struct state, arbitration),
	QSC_FIELD(struct state, temperature_over),
	QSC_FIELD(struct state, temperature_under),
	QSC_FIELD(struct state, error_recovery),
	QSC_FIELD(struct state, write_cache),
	QSC_FIELD(struct state, coalescing),
	QSC_FIELD(struct state, vectors_apart),
	QSC_FIELD(struct state, atomicity),
	QSC_FIELD(struct state, async_config),
	QSC_FIELD(struct state, event_requests),
	QSC_FIELD_ARRAY(struct state, event_cids),
	QSC_FIELD_ARRAY(struct state, event_pending),
	QSC_FIELD_ARRAY(struct state, event_masked),
	QSC_FIELD_END,
};

static const struct qsc_field queue_fields[] = {
	QSC_FIELD_STRUCTS(struct state, sqs, sq_fields),
	QSC_FIELD_STRUCTS(struct state, cqs, cq_fields),
	QSC_FIELD_END,
};

static const struct qsc_field flight_fields[] = {
	QSC_FIELD_STRUCTS(struct state, slots, slot_fields),
	QSC_FIELD_END,
};

const struct qsc_section nvme_sections[] = {
	{"disk", 1, 1, disk_fields},
	{"controller", 1, 1, controller_fields},
	{"queues", 1, 1, queue_fields},
	{"in-flight", 1, 1, flight_fields},
	{NULL, 0, 0, NULL},
};

static const char *controller_problem(const struct state *state)
{
	if (state->cc & ~NVME_CC_KNOWN || state->aqa & ~0x0fff0fffU ||
	    state->csts & ~(NVME_CSTS_RDY | NVME_CSTS_CFS | NVME_CSTS_SHST))
		return "a register has bits that it does not have";
	if (state->csts & NVME_CSTS_RDY &&
	    (!(state->cc & NVME_CC_EN) || page_shift(state->cc) > PAGE_SHIFT_MAX))
		return "it is ready but not enabled, or with pages that it cannot have";
	if (state->event_requests > EVENT_REQUESTS)
		return "it holds more requests for events than it takes";
	for (uint32_t i = 0; i < EVENT_REQUESTS; i++) {
		if (state->event_cids[i] > 0xffff)
			return "a request for events has no identifier that exists";
	}
	for (uint32_t i = 0; i < NVME_EVENT_TYPES; i++) {
		if (state->event_pending[i] > 2 || state->event_masked[i] > 1)
			return "an event that does not exist is pending";
	}
	for (uint32_t i = 0; i < NVME_SERIAL_SIZE; i++) {
		if (state->serial[i] < ' ' || state->serial[i] > '~')
			return "the serial number is not printable";
	}
	return NULL;
}

/* Of queues that exist; a controller that is not ready has none. */
static const char *queue_problem(const struct controller *ctrl, const struct state *state,
				 uint32_t qid)
{
	const struct sq *sq = &state->sqs[qid];
	const struct cq *cq = &state->cqs[qid];
	uint32_t most = qid ? QUEUE_ENTRIES : ADMIN_ENTRIES;

	if ((sq->size || cq->size) && (!(state->csts & NVME_CSTS_RDY) || qid > ctrl->queues))
		return "exists where there can be none";
	if (!qid && state->csts & NVME_CSTS_RDY && (!sq->size || !cq->size))
		return "of the driver of a ready controller does not exist";
	if (sq->size == 1 || sq->size > most || cq->size == 1 || cq->size > most)
		return "has a size that it cannot have";
	if (sq->size && (sq->cqid >= QUEUES || !state->cqs[sq->cqid].size || !sq->cqid != !qid))
		return "has no completion queue";
	if (sq->size ? sq->head >= sq->size || sq->tail >= sq->size
		     : sq->head || sq->tail || sq->cqid)
		return "has an index outside of the submission queue";
	if (cq->size ? cq->head >= cq->size || cq->tail >= cq->size
		     : cq->head || cq->tail || cq->interrupts)
		return "has an index outside of the completion queue";
	if (cq->tag > 1 || cq->interrupts > 1 || cq->vector > ctrl->queues)
		return "has a vector or a tag that does not exist";
	if ((sq->base | cq->base) & 0xfff)
		return "does not begin with a page";
	return NULL;
}

/* Whether an entry has been given out and not been taken by the driver. */
static bool entry_given(const struct cq *cq, uint32_t entry)
{
	if (cq->head <= cq->tail)
		return entry >= cq->head && entry < cq->tail;
	return entry < cq->size && (entry >= cq->head || entry < cq->tail);
}

static const char *slot_problem(const struct controller *ctrl, const struct state *state,
				uint32_t number)
{
	static const struct slot idle;
	const struct slot *slot = &state->slots[number];
	const struct nvme_command *command = (const void *)slot->words;

	if (slot->phase >= PHASE_COUNT)
		return "is in no phase that exists";
	if (slot->phase == PHASE_IDLE)
		return memcmp(slot, &idle, sizeof(idle)) ? "is idle but holds a command" : NULL;
	if (number >= workers_of(ctrl->queues))
		return "has nobody to work on it";
	if (slot->sqid >= QUEUES || !state->sqs[slot->sqid].size || !slot->sqid != !number ||
	    (number && number <= ctrl->queues && slot->sqid != number))
		return "works for a queue that it cannot work for";
	if (!number && (slot->done || slot->list || slot->range))
		return "has done a part of what is done at once";
	if (slot->status >= 0x8000 || (slot->list && (slot->list & 7) != LIST_VALID))
		return "has a status or a PRP list that cannot be";
	if (slot->phase == PHASE_RUN &&
	    (slot->status || slot->range > 256 ||
	     (slot->done && slot->done >= nvme_io_size(ctrl, slot)) ||
	     (slot->range && command->opcode != NVME_IO_DATASET_MANAGEMENT)))
		return "has done more than there was to do";
	if (slot->phase == PHASE_POST &&
	    (slot->tag > 1 || !entry_given(&state->cqs[state->sqs[slot->sqid].cqid], slot->entry)))
		return "has an entry of the completion queue that it cannot have";
	return NULL;
}

/* Two that write one entry would leave another unwritten. */
static bool shares_entry(const struct state *state, uint32_t number)
{
	const struct slot *slot = &state->slots[number];

	for (uint32_t i = 0; i < number && slot->phase == PHASE_POST; i++) {
		const struct slot *other = &state->slots[i];

		if (other->phase == PHASE_POST && other->entry == slot->entry &&
		    state->sqs[other->sqid].cqid == state->sqs[slot->sqid].cqid)
			return true;
	}
	return false;
}

int nvme_validate(void *ctx, const void *candidate, struct qsc_error *err)
{
	const struct controller *ctrl = ctx;
	const struct state *state = candidate;
	const char *problem = controller_problem(state);

	if (state->blocks != ctrl->media.size >> BLOCK_SHIFT || state->queues != ctrl->queues)
		return qsc_error_set(err, EINVAL, NULL,
				     "the source has %llu blocks of 512 bytes and %u pairs of "
				     "queues, this nvme has %llu and %u: make both alike",
				     (unsigned long long)state->blocks, state->queues,
				     (unsigned long long)ctrl->media.size >> BLOCK_SHIFT,
				     ctrl->queues);
	if (problem)
		return qsc_error_set(err, EINVAL, NULL, "nvme state: %s", problem);
	for (uint32_t i = 0; i < QUEUES; i++) {
		problem = queue_problem(ctrl, state, i);
		if (problem)
			return qsc_error_set(err, EINVAL, NULL, "nvme state: queue %u %s", i,
					     problem);
	}
	for (uint32_t i = 0; i < SLOTS; i++) {
		problem = slot_problem(ctrl, state, i);
		if (!problem && shares_entry(state, i))
			problem = "shares its entry of the completion queue with another";
		if (problem)
			return qsc_error_set(err, EINVAL, NULL, "nvme state: slot %u %s", i,
					     problem);
	}
	return 0;
}
