/* SPDX-License-Identifier: MIT */
/* See model.h. */
#include "model.h"

#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#define PIECE 700U /* bytes of a transfer that one work() moves */

struct slot {
	uint32_t kind;
	uint32_t length;
	uint64_t iova;
	uint64_t status_iova;
	uint32_t active;
	uint32_t progress;
	uint32_t outcome; /* SIM_DONE, SIM_FAILED; 0 while bytes move */
};

struct state {
	struct slot slots[SIM_SLOTS];
};

static const struct qsc_field slot_fields[] = {
	QSC_FIELD(struct slot, kind),	 QSC_FIELD(struct slot, length),
	QSC_FIELD(struct slot, iova),	 QSC_FIELD(struct slot, status_iova),
	QSC_FIELD(struct slot, active),	 QSC_FIELD(struct slot, progress),
	QSC_FIELD(struct slot, outcome), QSC_FIELD_END,
};

static const struct qsc_field fields[] = {
	QSC_FIELD_STRUCTS(struct state, slots, slot_fields),
	QSC_FIELD_END,
};

static const struct qsc_section sections[] = {
	{"engine", 1, 1, fields},
	{NULL, 0, 0, NULL},
};

static void on_reset(void *ctx)
{
}

static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	memset(buf, 0, count);
	return 0;
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct sim_model *model = ctx;
	struct state *state = qsc_runtime_state(model->rt);
	struct slot *slot = &state->slots[offset / SIM_REGS];

	if (offset / SIM_REGS >= SIM_SLOTS)
		return 0;
	switch (offset % SIM_REGS) {
	case SIM_REG_KIND:
		memcpy(&slot->kind, buf, sizeof(slot->kind));
		break;
	case SIM_REG_LENGTH:
		memcpy(&slot->length, buf, sizeof(slot->length));
		break;
	case SIM_REG_IOVA:
		memcpy(&slot->iova, buf, sizeof(slot->iova));
		break;
	case SIM_REG_STATUS:
		memcpy(&slot->status_iova, buf, sizeof(slot->status_iova));
		break;
	case SIM_REG_GO:
		slot->active = slot->length <= SIM_SLOT_BYTES;
		slot->progress = 0;
		slot->outcome = 0;
		qsc_work_kick(model->rt, 0);
		break;
	default:
		break;
	}
	return 0;
}

static int move_piece(struct sim_model *model, struct slot *slot, uint32_t number)
{
	uint32_t size = slot->length - slot->progress;
	uint64_t offset = number * SIM_SLOT_BYTES + slot->progress;
	uint8_t *own = (uint8_t *)qsc_block_data(model->rt, 0) + offset;
	uint64_t iova = slot->iova + slot->progress;
	int result;

	size = size < PIECE ? size : PIECE;
	if (slot->kind == SIM_READ) {
		result = qsc_dma_read(model->rt, iova, own, size);
		qsc_block_dirty(model->rt, 0, offset, size);
	} else {
		result = qsc_dma_write(model->rt, iova, own, size);
	}
	if (result == -EAGAIN)
		return result;
	slot->progress += size;
	if (result < 0)
		slot->outcome = SIM_FAILED;
	else if (slot->progress == slot->length)
		slot->outcome = SIM_DONE;
	return 0;
}

static int complete(struct sim_model *model, struct slot *slot, uint32_t number)
{
	int result = qsc_dma_write(model->rt, slot->status_iova, &slot->outcome,
				   sizeof(slot->outcome));

	if (result == -EAGAIN)
		return result;
	slot->active = 0;
	qsc_irq_raise(model->rt, VFIO_PCI_MSIX_IRQ_INDEX, number);
	return 0;
}

static enum qsc_work work(void *ctx, uint32_t worker)
{
	struct sim_model *model = ctx;
	struct state *state = qsc_runtime_state(model->rt);
	bool moved = false;
	uint32_t i;

	/* One piece of the first slot that can move; a closed gate leaves it where it is. */
	for (i = 0; i < SIM_SLOTS && !moved; i++) {
		uint32_t number = (model->next + i) % SIM_SLOTS;
		struct slot *slot = &state->slots[number];

		if (slot->active)
			moved = (slot->outcome ? complete(model, slot, number)
					       : move_piece(model, slot, number)) == 0;
	}
	model->next++;
	return moved ? QSC_WORK_AGAIN : QSC_WORK_IDLE;
}

static int fail_now(struct sim_model *model, uint32_t *countdown)
{
	if (!*countdown || --*countdown)
		return 0;
	model->fault_done = true;
	return -EIO;
}

static int start(void *ctx)
{
	struct sim_model *model = ctx;

	return fail_now(model, &model->fail_start);
}

static int stop(void *ctx)
{
	struct sim_model *model = ctx;

	return fail_now(model, &model->fail_stop);
}

static int validate(void *ctx, const void *candidate, struct qsc_error *err)
{
	const struct state *state = candidate;
	uint32_t i;

	for (i = 0; i < SIM_SLOTS; i++)
		if (state->slots[i].length > SIM_SLOT_BYTES ||
		    state->slots[i].progress > state->slots[i].length)
			return qsc_error_set(err, EINVAL, NULL, "slot %u moves too much", i);
	return 0;
}

static const struct qsc_model sim_model = {
	.type = "sim",
	.pci = {.vendor = 0x1b36, .device = 0x5100, .class_code = 0x088000},
	.state_size = sizeof(struct state),
	.sections = sections,
	.workers = 1,
	.reset = on_reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = work,
	.start = start,
	.stop = stop,
	.validate = validate,
};

int sim_model_create(struct sim_model *model, const char *name, uint32_t flags, bool tells_peers)
{
	static const struct qsc_block_desc block = {.name = "memory", .size = SIM_BAR_BYTES};
	static const struct qsc_region_desc regions[] = {
		{VFIO_PCI_BAR0_REGION_INDEX, 4096,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK},
		{VFIO_PCI_BAR2_REGION_INDEX, SIM_BAR_BYTES,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP,
		 0},
	};
	const struct qsc_runtime_options options = {
		.name = name,
		.migration_flags = flags,
		.tells_peers = tells_peers,
		.blocks = &block,
		.num_blocks = 1,
		.regions = regions,
		.num_regions = 2,
		.msix_vectors = SIM_SLOTS,
		.manual = true,
	};

	*model = (struct sim_model){0};
	return qsc_runtime_create(&sim_model, model, &options, &model->rt, NULL);
}
