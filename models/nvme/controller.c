/* SPDX-License-Identifier: MIT */
/*
 * The NVMe controller as a model of the runtime: its registers and its life. Registers only take
 * note of what the driver wants; everything that takes time is done by workers.
 */
#include "nvme/controller.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#define DEFAULT_QUEUES 8U
/* 500 ms units: nothing here takes longer but a disk that hangs. */
#define READY_TIMEOUT 20ULL

/* ---- registers ---- */

static uint64_t capabilities(void)
{
	return (QUEUE_ENTRIES - 1) | 1ULL << 16 /* contiguous queues */ | READY_TIMEOUT << 24 |
	       1ULL << 37 /* NVM command set */ | (PAGE_SHIFT_MAX - 12ULL) << 52;
}

/* The aligned 32 bits that hold the register at `offset`. */
static uint32_t register_value(const struct state *state, uint64_t offset)
{
	switch (offset & ~3ULL) {
	case NVME_REG_CAP:
		return (uint32_t)capabilities();
	case NVME_REG_CAP + 4:
		return (uint32_t)(capabilities() >> 32);
	case NVME_REG_VS:
		return NVME_VERSION;
	case NVME_REG_INTMS:
	case NVME_REG_INTMC:
		return state->intms;
	case NVME_REG_CC:
		return state->cc;
	case NVME_REG_CSTS:
		return state->csts;
	case NVME_REG_AQA:
		return state->aqa;
	case NVME_REG_ASQ:
		return (uint32_t)state->asq;
	case NVME_REG_ASQ + 4:
		return (uint32_t)(state->asq >> 32);
	case NVME_REG_ACQ:
		return (uint32_t)state->acq;
	case NVME_REG_ACQ + 4:
		return (uint32_t)(state->acq >> 32);
	default:
		return 0;
	}
}

static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	struct controller *ctrl = ctx;
	uint32_t values[2];

	pthread_mutex_lock(&ctrl->lock);
	values[0] = register_value(ctrl->state, offset);
	values[1] = register_value(ctrl->state, offset + 4);
	pthread_mutex_unlock(&ctrl->lock);
	memcpy(buf, (const uint8_t *)values + offset % 4, count);
	return 0;
}

static void cc_write(struct controller *ctrl, uint32_t value)
{
	struct state *state = ctrl->state;
	uint32_t before = state->cc;

	value &= NVME_CC_KNOWN;
	/* What the queues were made with stays for as long as there are queues. */
	if (before & value & NVME_CC_EN)
		value = (value & ~NVME_CC_FIXED) | (before & NVME_CC_FIXED);
	if (value >> NVME_CC_SHN_SHIFT & 3 && !(before >> NVME_CC_SHN_SHIFT & 3))
		state->csts = (state->csts & ~NVME_CSTS_SHST) | NVME_CSTS_SHST_OCCURRING;
	state->cc = value;
	if (before & NVME_CC_EN && !(value & NVME_CC_EN)) {
		ctrl->resetting = true;
		if (!ctrl->steps)
			nvme_reset_finish(ctrl);
	}
	qsc_work_kick(ctrl->rt, 0);
}

static void low_write(uint64_t *reg, uint32_t value)
{
	*reg = (*reg >> 32 << 32) | value;
}

static void high_write(uint64_t *reg, uint32_t value)
{
	*reg = (uint64_t)value << 32 | (uint32_t)*reg;
}

static void register_write(struct controller *ctrl, uint64_t offset, uint32_t value)
{
	struct state *state = ctrl->state;
	bool enabled = state->cc & NVME_CC_EN;

	switch (offset) {
	case NVME_REG_INTMS:
		state->intms |= value;
		break;
	case NVME_REG_INTMC:
		state->intms &= ~value;
		break;
	case NVME_REG_CC:
		cc_write(ctrl, value);
		break;
	case NVME_REG_AQA:
		state->aqa = enabled ? state->aqa : value & 0x0fff0fff;
		break;
	case NVME_REG_ASQ:
		low_write(&state->asq, enabled ? (uint32_t)state->asq : value);
		break;
	case NVME_REG_ASQ + 4:
		high_write(&state->asq, enabled ? (uint32_t)(state->asq >> 32) : value);
		break;
	case NVME_REG_ACQ:
		low_write(&state->acq, enabled ? (uint32_t)state->acq : value);
		break;
	case NVME_REG_ACQ + 4:
		high_write(&state->acq, enabled ? (uint32_t)(state->acq >> 32) : value);
		break;
	default:
		return;
	}
	nvme_update_line(ctrl);
}

/* ---- doorbells ---- */

static uint64_t tail_write(struct controller *ctrl, uint32_t qid, uint32_t value)
{
	struct sq *sq = &ctrl->state->sqs[qid];

	if (!sq->size)
		nvme_event(ctrl, NVME_EVENT_ERROR, NVME_ERROR_INVALID_DOORBELL);
	else if (value >= sq->size)
		nvme_event(ctrl, NVME_EVENT_ERROR, NVME_ERROR_INVALID_TAIL);
	else
		sq->tail = value;
	return bit(qid);
}

/*
 * The driver has taken entries, `taken` of them from the head on. It can have seen one before the
 * worker that wrote it says so; whoever has not written his need not any more.
 */
static void entries_taken(struct controller *ctrl, uint32_t qid, uint32_t taken)
{
	struct state *state = ctrl->state;
	const struct cq *cq = &state->cqs[qid];

	for (uint32_t i = 0; i < workers_of(ctrl->queues); i++) {
		struct slot *slot = &state->slots[i];

		if (slot->phase != PHASE_POST || state->sqs[slot->sqid].cqid != qid ||
		    (slot->entry + cq->size - cq->head) % cq->size >= taken)
			continue;
		if (ctrl->busy & bit(i))
			ctrl->taken |= bit(i);
		else
			*slot = (struct slot){0};
	}
}

static uint64_t head_write(struct controller *ctrl, uint32_t qid, uint32_t value)
{
	struct cq *cq = &ctrl->state->cqs[qid];
	uint64_t waiting = ctrl->waiting;
	uint32_t taken;
	uint32_t ready;

	if (!cq->size) {
		nvme_event(ctrl, NVME_EVENT_ERROR, NVME_ERROR_INVALID_DOORBELL);
		return 0;
	}
	taken = (value >= cq->head ? value : value + cq->size) - cq->head;
	ready = (cq->tail >= cq->head ? cq->tail : cq->tail + cq->size) - cq->head;
	if (value >= cq->size || taken > ready) {
		nvme_event(ctrl, NVME_EVENT_ERROR, NVME_ERROR_INVALID_TAIL);
		return 0;
	}
	entries_taken(ctrl, qid, taken);
	cq->head = value;
	nvme_update_line(ctrl);
	ctrl->waiting = 0;
	return waiting;
}

/* Which workers have something to do. */
static uint64_t doorbell_write(struct controller *ctrl, uint64_t offset, uint32_t value)
{
	uint64_t number = (offset - NVME_REG_DOORBELL) / 4;
	uint32_t qid = (uint32_t)(number / 2);

	if (ctrl->resetting || !(ctrl->state->csts & NVME_CSTS_RDY))
		return 0;
	if (qid > ctrl->queues) {
		nvme_event(ctrl, NVME_EVENT_ERROR, NVME_ERROR_INVALID_DOORBELL);
		return 0;
	}
	return number % 2 ? head_write(ctrl, qid, value) : tail_write(ctrl, qid, value);
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct controller *ctrl = ctx;
	uint64_t kicks = 0;
	uint32_t value;

	if (count < sizeof(value))
		return 0;
	pthread_mutex_lock(&ctrl->lock);
	for (size_t i = 0; i < count; i += sizeof(value)) {
		memcpy(&value, (const uint8_t *)buf + i, sizeof(value));
		if (offset + i >= NVME_REG_DOORBELL)
			kicks |= doorbell_write(ctrl, offset + i, value);
		else
			register_write(ctrl, offset + i, value);
	}
	pthread_mutex_unlock(&ctrl->lock);
	for (uint32_t i = 0; kicks; i++, kicks >>= 1) {
		/* Bringing up and ending the controller may take long. */
		if (kicks & 1 && !i)
			qsc_work_kick(ctrl->rt, i);
		else if (kicks & 1)
			qsc_work_try(ctrl->rt, i);
	}
	return 0;
}

/* ---- life ---- */

static void reset(void *ctx)
{
	struct controller *ctrl = ctx;

	/* The first callback: from here on there are no others than with these. */
	ctrl->media.rt = ctrl->rt;
	ctrl->state = qsc_runtime_state(ctrl->rt);
	ctrl->media.memory = qsc_block_data(ctrl->rt, MEDIA_BLOCK);
	/* Also from a device that was not stopped. It says itself what goes wrong. */
	(void)nvme_media_give(&ctrl->media);
	ctrl->state->blocks = ctrl->media.size >> BLOCK_SHIFT;
	ctrl->state->queues = ctrl->queues;
	memcpy(ctrl->state->serial, ctrl->serial, sizeof(ctrl->serial));
	ctrl->resetting = false;
	ctrl->steps = 0;
	ctrl->busy = 0;
	ctrl->taken = 0;
	ctrl->waiting = 0;
	ctrl->deleting = 0;
	nvme_features_reset(ctrl->state);
}

static int start(void *ctx)
{
	struct controller *ctrl = ctx;
	bool ready;

	pthread_mutex_lock(&ctrl->lock);
	ctrl->taken = 0;
	ctrl->waiting = 0;
	ctrl->deleting = 0;
	ctrl->epoch++;
	ready = ctrl->state->csts & NVME_CSTS_RDY;
	nvme_update_line(ctrl);
	pthread_mutex_unlock(&ctrl->lock);
	return ready ? nvme_media_take(&ctrl->media) : 0;
}

static int stop(void *ctx)
{
	struct controller *ctrl = ctx;

	return nvme_media_give(&ctrl->media);
}

/* The disk goes on as the one it was. */
static void loaded(void *ctx)
{
	struct controller *ctrl = ctx;

	memcpy(ctrl->serial, ctrl->state->serial, sizeof(ctrl->serial));
}

static void destroy(void *ctx)
{
	struct controller *ctrl = ctx;

	nvme_media_destroy(&ctrl->media);
	pthread_mutex_destroy(&ctrl->lock);
	free(ctrl);
}

static const struct qsc_model model = {
	.type = "nvme",
	.pci = {.vendor = NVME_PCI_VENDOR,
		.device = NVME_PCI_DEVICE,
		.subsystem_vendor = NVME_PCI_VENDOR,
		.subsystem = 1,
		.class_code = 0x010802, /* mass storage, non-volatile memory, NVMe */
		.revision = 1},
	.state_size = sizeof(struct state),
	.sections = nvme_sections,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = nvme_work,
	.work_here = nvme_work_here,
	.start = start,
	.stop = stop,
	.validate = nvme_validate,
	.loaded = loaded,
	.destroy = destroy,
};

static int runtime_create(struct controller *ctrl, const struct nvme_options *options,
			  struct qsc_error *err)
{
	const struct qsc_block_desc block = {
		.name = "media", .size = options->ram, .non_volatile = true};
	const struct qsc_region_desc registers = {
		VFIO_PCI_BAR0_REGION_INDEX + NVME_BAR_REGISTERS, NVME_REGISTERS_SIZE,
		VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK};
	const struct qsc_runtime_options runtime = {
		.name = options->name,
		.migration_flags = options->migration_flags
					   ? options->migration_flags
					   : QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P |
						     QSC_MIGRATION_PRE_COPY,
		.blocks = &block,
		.num_blocks = options->file ? 0 : 1,
		.regions = &registers,
		.num_regions = 1,
		.msix_vectors = ctrl->queues + 1,
		.intx = true,
		.manual = options->manual,
		.destroy_on_close = options->destroy_on_close,
		.violation = options->violation,
		.violation_ctx = options->violation_ctx,
	};

	return qsc_runtime_create(&ctrl->model, ctrl, &runtime, &ctrl->rt, err);
}

static int serial_make(struct controller *ctrl, const struct nvme_options *options,
		       struct qsc_error *err)
{
	static _Atomic uint32_t made;
	char made_up[NVME_SERIAL_SIZE + 1];
	const char *serial = options->serial;
	uint64_t hash = 0xcbf29ce484222325ULL;
	size_t length;

	if (!serial) {
		for (const char *at = options->name; at && *at; at++)
			hash = (hash ^ (uint8_t)*at) * 0x100000001b3ULL;
		if (options->name)
			(void)snprintf(made_up, sizeof(made_up), "QSC%016llx",
				       (unsigned long long)hash);
		else
			(void)snprintf(made_up, sizeof(made_up), "QSC%08u", ++made);
		serial = made_up;
	}
	length = strlen(serial);
	for (size_t i = 0; i < length; i++) {
		if (serial[i] < ' ' || serial[i] > '~')
			length = 0;
	}
	if (!length || length > NVME_SERIAL_SIZE)
		return qsc_error_set(err, EINVAL, NULL,
				     "nvme: the serial number must have 1 to %u printable ASCII "
				     "characters",
				     NVME_SERIAL_SIZE);
	memset(ctrl->serial, ' ', sizeof(ctrl->serial));
	memcpy(ctrl->serial, serial, length);
	return 0;
}

static int options_check(const struct nvme_options *options, struct qsc_error *err)
{
	if (!options->file == !options->ram)
		return qsc_error_set(err, EINVAL, NULL,
				     "nvme needs either file=PATH or ram=SIZE to keep its blocks "
				     "in");
	if (!options->file &&
	    (options->ram < NVME_RAM_MIN || options->ram > NVME_RAM_MAX || options->ram % 4096))
		return qsc_error_set(err, EINVAL, NULL,
				     "nvme cannot have %llu bytes of ram: it takes a multiple of "
				     "4 KiB from 1 MiB to 1 TiB",
				     (unsigned long long)options->ram);
	if (options->readonly && !options->file)
		return qsc_error_set(err, EINVAL, NULL,
				     "an nvme in ram cannot be readonly: nobody could have "
				     "written to it");
	if (options->queues > NVME_QUEUES_MAX)
		return qsc_error_set(err, EINVAL, NULL,
				     "nvme cannot have %u pairs of queues: it takes 1 to %u",
				     options->queues, NVME_QUEUES_MAX);
	return 0;
}

int nvme_create(const struct nvme_options *options, struct qsc_runtime **rt, struct qsc_error *err)
{
	struct controller *ctrl;
	int ret = options_check(options, err);

	if (ret)
		return ret;
	ctrl = calloc(1, sizeof(*ctrl));
	if (!ctrl)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for an nvme controller");
	ctrl->queues = options->queues ? options->queues : DEFAULT_QUEUES;
	ctrl->model = model;
	ctrl->model.workers = workers_of(ctrl->queues);
	ctrl->media.fd = -1;
	pthread_mutex_init(&ctrl->lock, NULL);
	ret = serial_make(ctrl, options, err);
	if (!ret)
		ret = nvme_media_init(&ctrl->media, options, err);
	if (!ret)
		ret = runtime_create(ctrl, options, err);
	if (ret) {
		destroy(ctrl);
		return ret;
	}
	*rt = ctrl->rt;
	return 0;
}
