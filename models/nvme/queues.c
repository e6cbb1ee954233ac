/* SPDX-License-Identifier: MIT */
/*
 * The queues at work: commands are taken from submission queues, done step by step, and answered in
 * completion queues; and what the first worker does besides: bring the controller up, end it, and
 * tell of events.
 *
 * A call of work() serves some commands and raises the interrupts of all of them at its end, so
 * that a driver who submits many at once is not woken for each. An entry of a completion queue is
 * given out under the lock and written without it. Entries may so be written out of order; the
 * driver goes by the phase tag and does not look past one that is not written yet.
 */
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "nvme/controller.h"

#define BATCH 16U
/* While the driver waits for its doorbell to be written. */
#define BATCH_HERE 4U

/* One call of work(). */
struct visit {
	struct controller *ctrl;
	uint32_t worker;
	enum patience patience;
	bool rest;	  /* there is work for somebody with more patience */
	uint64_t vectors; /* to be raised at the end */
	/* Read ahead from the submission queue, and valid as long as the queues are the same. */
	uint32_t epoch;
	uint32_t count;
	uint32_t next;
	struct nvme_command batch[BATCH];
};

void nvme_reset_finish(struct controller *ctrl)
{
	struct state *state = ctrl->state;

	/* CC is what the driver wrote last: who saw it not ready may have enabled it again. */
	state->csts = 0;
	state->intms = 0;
	nvme_features_reset(state);
	state->event_requests = 0;
	memset(state->event_cids, 0, sizeof(state->event_cids));
	memset(state->event_pending, 0, sizeof(state->event_pending));
	memset(state->event_masked, 0, sizeof(state->event_masked));
	memset(state->sqs, 0, sizeof(state->sqs));
	memset(state->cqs, 0, sizeof(state->cqs));
	memset(state->slots, 0, sizeof(state->slots));
	ctrl->resetting = false;
	ctrl->taken = 0;
	ctrl->waiting = 0;
	ctrl->deleting = 0;
	ctrl->epoch++;
	nvme_update_line(ctrl);
	/* The medium is nobody's any more. */
	qsc_work_kick(ctrl->rt, 0);
}

void nvme_update_line(struct controller *ctrl)
{
	const struct state *state = ctrl->state;
	bool asserted = false;

	for (uint32_t i = 0; i <= ctrl->queues && !(state->intms & 1); i++) {
		const struct cq *cq = &state->cqs[i];

		asserted |= cq->interrupts && cq->head != cq->tail;
	}
	qsc_irq_set_line(ctrl->rt, asserted);
}

void nvme_step_begin(struct controller *ctrl)
{
	ctrl->steps++;
	pthread_mutex_unlock(&ctrl->lock);
}

bool nvme_step_end(struct controller *ctrl)
{
	pthread_mutex_lock(&ctrl->lock);
	ctrl->steps--;
	if (!ctrl->resetting)
		return true;
	if (!ctrl->steps)
		nvme_reset_finish(ctrl);
	return false;
}

/* A step on the worker's own slot, which nobody takes away before its end. */
static void slot_begin(struct visit *visit)
{
	visit->ctrl->busy |= bit(visit->worker);
	nvme_step_begin(visit->ctrl);
}

static bool slot_end(struct visit *visit)
{
	bool goes_on = nvme_step_end(visit->ctrl);

	visit->ctrl->busy &= ~bit(visit->worker);
	return goes_on;
}

/* Nothing can be expected of the controller before a reset (CSTS.CFS). */
static void fatal(struct controller *ctrl, const char *why)
{
	ctrl->state->csts |= NVME_CSTS_CFS;
	qsc_runtime_log(ctrl->rt, QSC_LOG_WARNING,
			"%s; the controller has failed until its driver resets it", why);
}

/* ---- what the first worker does besides ---- */

static bool admin_queues_possible(const struct state *state)
{
	uint32_t shift = page_shift(state->cc);
	uint64_t below = bit(shift) - 1;

	return shift <= PAGE_SHIFT_MAX && !(state->cc >> NVME_CC_CSS_SHIFT & 7) &&
	       !(state->cc >> NVME_CC_AMS_SHIFT & 7) && (state->aqa & 0xfff) &&
	       (state->aqa >> 16 & 0xfff) && !(state->asq & below) && !(state->acq & below);
}

static void admin_queues_make(struct state *state)
{
	state->sqs[0] = (struct sq){.size = (state->aqa & 0xfff) + 1, .base = state->asq};
	state->cqs[0] = (struct cq){.size = (state->aqa >> 16 & 0xfff) + 1,
				    .tag = 1,
				    .interrupts = 1,
				    .base = state->acq};
	state->csts |= NVME_CSTS_RDY;
}

static void enable(struct controller *ctrl)
{
	int result;

	if (!admin_queues_possible(ctrl->state)) {
		fatal(ctrl, "the driver enabled it with admin queues or a configuration that "
			    "cannot be");
		return;
	}
	nvme_step_begin(ctrl);
	result = nvme_media_take(&ctrl->media);
	if (!nvme_step_end(ctrl))
		return;
	if (result < 0)
		fatal(ctrl, "it has no medium");
	else
		admin_queues_make(ctrl->state);
}

/* After a shutdown all is safe; after a reset the file is free. */
static void settle(struct controller *ctrl, bool give)
{
	int result;

	nvme_step_begin(ctrl);
	result = give ? nvme_media_give(&ctrl->media) : nvme_media_flush(&ctrl->media);
	if (!nvme_step_end(ctrl) || give)
		return;
	if (result)
		fatal(ctrl, "what was written cannot be made safe");
	else
		ctrl->state->csts = (ctrl->state->csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_COMPLETE;
}

/* Bring the controller to where its registers want it. */
static void govern(struct controller *ctrl)
{
	struct state *state = ctrl->state;

	if (state->csts & NVME_CSTS_CFS)
		return;
	if (!(state->cc & NVME_CC_EN) && ctrl->media.fd >= 0)
		settle(ctrl, true);
	if (state->cc & NVME_CC_EN && !(state->csts & NVME_CSTS_RDY))
		enable(ctrl);
	if ((state->csts & NVME_CSTS_SHST) == NVME_CSTS_SHST_OCCURRING)
		settle(ctrl, false);
}

/* An event and a request for one make a completion. */
static bool event_take(struct state *state, struct slot *slot)
{
	static const uint32_t pages[NVME_EVENT_TYPES] = {NVME_LOG_ERROR, NVME_LOG_SMART};

	for (uint32_t type = 0; state->event_requests && type < NVME_EVENT_TYPES; type++) {
		if (!state->event_pending[type] || state->event_masked[type])
			continue;
		slot->phase = PHASE_DONE;
		slot->result = type | (state->event_pending[type] - 1) << 8 | pages[type] << 16;
		slot_command(slot)->opcode = NVME_ADMIN_ASYNC_EVENT;
		slot_command(slot)->cid = (uint16_t)state->event_cids[--state->event_requests];
		state->event_pending[type] = 0;
		state->event_masked[type] = 1;
		return true;
	}
	return false;
}

void nvme_event(struct controller *ctrl, uint32_t type, uint32_t information)
{
	if (!ctrl->state->event_pending[type])
		ctrl->state->event_pending[type] = information + 1;
	qsc_work_kick(ctrl->rt, 0);
}

/* ---- commands come ---- */

/* False when there are none, or they cannot be read. */
static bool read_ahead(struct visit *visit, const struct sq *sq)
{
	struct controller *ctrl = visit->ctrl;
	uint32_t ready = (sq->tail > sq->head ? sq->tail : sq->size) - sq->head;
	uint64_t iova = sq->base + (uint64_t)sq->head * sizeof(struct nvme_command);
	uint32_t epoch = ctrl->epoch;
	int result;

	ready = ready < BATCH ? ready : BATCH;
	visit->count = 0;
	nvme_step_begin(ctrl);
	result = qsc_dma_read(ctrl->rt, iova, visit->batch, ready * sizeof(struct nvme_command));
	if (!nvme_step_end(ctrl) || result == -EAGAIN)
		return false;
	/* What was read is not of a queue that still is. */
	if (epoch != ctrl->epoch)
		return true;
	if (result) {
		fatal(ctrl, "a submission queue cannot be read");
		return false;
	}
	visit->epoch = epoch;
	visit->count = ready;
	visit->next = 0;
	return true;
}

/* Take the next command into the worker's idle slot. False when there is none. */
static bool fetch(struct visit *visit)
{
	struct controller *ctrl = visit->ctrl;
	struct state *state = ctrl->state;
	struct slot *slot = &state->slots[visit->worker];
	uint32_t sqid = visit->worker;
	struct sq *sq;

	if (sqid > ctrl->queues || (state->csts & (NVME_CSTS_RDY | NVME_CSTS_CFS)) != NVME_CSTS_RDY)
		return false;
	if (!sqid && event_take(state, slot))
		return true;
	sq = &state->sqs[sqid];
	if (sq->head == sq->tail || ctrl->deleting & bit(sqid))
		return false;
	if (visit->next >= visit->count || visit->epoch != ctrl->epoch)
		return read_ahead(visit, sq);
	slot->phase = PHASE_RUN;
	slot->sqid = sqid;
	memcpy(slot->words, &visit->batch[visit->next++], sizeof(slot->words));
	sq->head = sq->head + 1 == sq->size ? 0 : sq->head + 1;
	return true;
}

/* ---- commands are done ---- */

/* Give the command to a worker that has nothing else to do. */
static bool hand_over(struct controller *ctrl, uint32_t worker)
{
	struct slot *slots = ctrl->state->slots;

	for (uint32_t i = ctrl->queues + 1; i < workers_of(ctrl->queues); i++) {
		if (slots[i].phase != PHASE_IDLE)
			continue;
		slots[i] = slots[worker];
		slots[worker] = (struct slot){0};
		qsc_work_kick(ctrl->rt, i);
		return true;
	}
	return false;
}

static bool run(struct visit *visit)
{
	struct controller *ctrl = visit->ctrl;
	struct slot *slot = &ctrl->state->slots[visit->worker];
	const struct io_view view = {ctrl->state->cc, ctrl->state->write_cache};
	struct slot copy = *slot;
	int result;

	slot_begin(visit);
	result = nvme_io_step(ctrl, &view, &copy, visit->patience);
	if (!slot_end(visit))
		return false;
	if (ctrl->deleting & bit(copy.sqid)) {
		*slot = (struct slot){0};
		qsc_work_kick(ctrl->rt, 0);
		return true;
	}
	*slot = copy;
	if (result != -EINPROGRESS)
		return result != -EAGAIN;
	visit->rest = visit->patience == PATIENCE_NONE;
	/* Where there is nobody to wait instead, the queue waits. */
	if (!visit->rest && !hand_over(ctrl, visit->worker))
		visit->patience = PATIENCE_LONG;
	return !visit->rest;
}

/* ---- commands are answered ---- */

static void log_error(struct state *state, const struct slot *slot)
{
	const struct nvme_command *command = (const void *)slot->words;

	state->errors++;
	state->error_log[state->errors % ERROR_ENTRIES] = (struct error_entry){
		.count = state->errors,
		.lba = slot->sqid ? (uint64_t)command->cdw11 << 32 | command->cdw10 : 0,
		.sqid = slot->sqid,
		.cid = command->cid,
		.status = slot->status,
		.nsid = command->nsid,
	};
}

/* An entry of the completion queue for the command. False when it is full. */
static bool entry_take(struct controller *ctrl, uint32_t worker)
{
	struct state *state = ctrl->state;
	struct slot *slot = &state->slots[worker];
	struct cq *cq = &state->cqs[state->sqs[slot->sqid].cqid];
	uint32_t next = cq->tail + 1 == cq->size ? 0 : cq->tail + 1;

	if (next == cq->head) {
		ctrl->waiting |= bit(worker);
		return false;
	}
	slot->entry = cq->tail;
	slot->tag = cq->tag;
	slot->phase = PHASE_POST;
	cq->tail = next;
	cq->tag ^= !next;
	if (slot->status)
		log_error(state, slot);
	else
		nvme_io_account(ctrl, slot);
	return true;
}

/* The tag last: a driver that sees it must see the rest, and the data. */
static int entry_write(struct controller *ctrl, uint64_t iova, const struct nvme_completion *entry)
{
	const size_t last = offsetof(struct nvme_completion, cid);
	int result = qsc_dma_write(ctrl->rt, iova, entry, last);

	__atomic_thread_fence(__ATOMIC_RELEASE);
	if (!result)
		result = qsc_dma_write(ctrl->rt, iova + last, &entry->cid, sizeof(*entry) - last);
	return result;
}

static bool answer(struct visit *visit)
{
	struct controller *ctrl = visit->ctrl;
	struct state *state = ctrl->state;
	struct slot *slot = &state->slots[visit->worker];
	const struct sq *sq = &state->sqs[slot->sqid];
	const struct cq *cq = &state->cqs[sq->cqid];
	struct nvme_completion entry;
	uint64_t iova;
	bool taken;
	int result;

	if (slot->phase == PHASE_DONE && !entry_take(ctrl, visit->worker))
		return false;
	entry = (struct nvme_completion){
		.result = slot->result,
		.sq_head = (uint16_t)sq->head,
		.sq_id = (uint16_t)slot->sqid,
		.cid = slot_command(slot)->cid,
		.status = (uint16_t)(slot->status << 1 | slot->tag),
	};
	iova = cq->base + (uint64_t)slot->entry * sizeof(entry);
	slot_begin(visit);
	result = entry_write(ctrl, iova, &entry);
	if (!slot_end(visit))
		return false;
	taken = ctrl->taken & bit(visit->worker);
	ctrl->taken &= ~bit(visit->worker);
	if (result == -EAGAIN && !taken)
		return false;
	if (result && result != -EAGAIN) {
		fatal(ctrl, "a completion queue cannot be written");
		return false;
	}
	if (cq->interrupts)
		visit->vectors |= bit(cq->vector);
	if (ctrl->deleting & bit(slot->sqid))
		qsc_work_kick(ctrl->rt, 0);
	*slot = (struct slot){0};
	return true;
}

/* ---- work ---- */

/* One command, or a step of it. False when there is nothing to do now. */
static bool serve(struct visit *visit)
{
	struct controller *ctrl = visit->ctrl;
	struct slot *slot = &ctrl->state->slots[visit->worker];

	if (slot->phase == PHASE_IDLE && !fetch(visit))
		return false;
	if (slot->phase == PHASE_RUN && !(visit->worker ? run(visit) : nvme_admin_step(ctrl, slot)))
		return false;
	if (slot->phase == PHASE_DONE || slot->phase == PHASE_POST)
		return answer(visit);
	return true;
}

static enum qsc_work work(struct controller *ctrl, uint32_t worker, enum patience patience,
			  uint32_t batch)
{
	struct visit visit;
	bool more = true;

	visit.ctrl = ctrl;
	visit.worker = worker;
	visit.patience = patience;
	visit.rest = false;
	visit.vectors = 0;
	visit.count = 0;
	visit.next = 0;
	pthread_mutex_lock(&ctrl->lock);
	if (!worker && !ctrl->resetting)
		govern(ctrl);
	for (uint32_t i = 0; i < batch && more; i++)
		more = !ctrl->resetting && !(ctrl->state->csts & NVME_CSTS_CFS) && serve(&visit);
	if (visit.vectors)
		nvme_update_line(ctrl);
	pthread_mutex_unlock(&ctrl->lock);
	for (uint32_t i = 0; visit.vectors; i++, visit.vectors >>= 1) {
		if (visit.vectors & 1)
			qsc_irq_raise(ctrl->rt, VFIO_PCI_MSIX_IRQ_INDEX, i);
	}
	return more || visit.rest ? QSC_WORK_AGAIN : QSC_WORK_IDLE;
}

enum qsc_work nvme_work(void *ctx, uint32_t worker)
{
	struct controller *ctrl = ctx;

	return work(ctrl, worker, worker > ctrl->queues ? PATIENCE_LONG : PATIENCE_SHORT, BATCH);
}

enum qsc_work nvme_work_here(void *ctx, uint32_t worker)
{
	return work(ctx, worker, PATIENCE_NONE, BATCH_HERE);
}
