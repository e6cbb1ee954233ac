/* SPDX-License-Identifier: MIT */
/* See load.h. */
#include "runtime/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/section.h"

struct qsc_load {
	struct qsc_load_target target;
	struct qsc_stream_parser *parser;
	void *candidate; /* a state structure that is not in force */
	uint8_t *custom;
	size_t custom_size;
	struct qsc_irq_held *held;
	size_t num_held;
};

static int zero_blocks(struct qsc_load *load)
{
	uint32_t i;
	int result = 0;

	for (i = 0; !result && i < load->target.layout->num_blocks; i++)
		result = qsc_block_zero(&load->target.blocks[i]);
	return result;
}

/*
 * The stream is for this device: from here on the former contents are given up. What it does not
 * mention has its power-on value, but for the memory of blocks, where it leaves out zeroes.
 */
static int on_begin(void *ctx, struct qsc_error *err)
{
	struct qsc_load *load = ctx;
	const struct qsc_model *model = load->target.model;
	int result = zero_blocks(load);

	if (!result) {
		memset(load->target.state, 0, model->state_size);
		model->reset(load->target.ctx);
		memcpy(load->candidate, load->target.state, model->state_size);
		result = zero_blocks(load);
	}
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the device's memory cannot be cleared: %s",
				     strerror(-result));
	return 0;
}

static int fill_failed(const struct qsc_load *load, uint32_t block, int result,
		       struct qsc_error *err)
{
	return qsc_error_set(err, -result, NULL, "block %s cannot be filled: %s",
			     load->target.blocks[block].name, strerror(-result));
}

static int on_data(void *ctx, uint32_t block, uint64_t offset, const uint8_t *bytes, size_t size,
		   struct qsc_error *err)
{
	struct qsc_load *load = ctx;
	int result = qsc_block_load(&load->target.blocks[block], offset, bytes, size);

	return result < 0 ? fill_failed(load, block, result, err) : 0;
}

static int on_zero(void *ctx, uint32_t block, uint64_t offset, uint64_t size, struct qsc_error *err)
{
	struct qsc_load *load = ctx;
	int result = qsc_block_load_zero(&load->target.blocks[block], offset, size);

	return result < 0 ? fill_failed(load, block, result, err) : 0;
}

static void on_section(void *ctx, uint32_t index, const uint8_t *bytes)
{
	struct qsc_load *load = ctx;

	qsc_section_decode(&load->target.layout->sections[index], load->candidate, bytes);
}

static void on_custom(void *ctx, const uint8_t *bytes, size_t size)
{
	struct qsc_load *load = ctx;

	memcpy(load->custom, bytes, size);
	load->custom_size = size;
}

static void on_held(void *ctx, const struct qsc_irq_held *held, size_t count)
{
	struct qsc_load *load = ctx;

	memcpy(load->held, held, count * sizeof(*held));
	load->num_held = count;
}

static const struct qsc_stream_sink sink = {
	.begin = on_begin,
	.data = on_data,
	.zero = on_zero,
	.section = on_section,
	.custom = on_custom,
	.held = on_held,
};

int qsc_load_create(const struct qsc_load_target *target, struct qsc_load **out)
{
	struct qsc_load *load = calloc(1, sizeof(*load));
	size_t max_held = 1;
	uint32_t i;

	if (!load)
		return -ENOMEM;
	load->target = *target;
	for (i = 0; i < QSC_IRQ_INDICES; i++)
		max_held += target->layout->vectors[i];
	load->candidate = calloc(1, target->model->state_size + 1);
	load->custom = malloc((size_t)target->layout->custom_max + 1);
	load->held = calloc(max_held, sizeof(*load->held));
	if (!load->candidate || !load->custom || !load->held ||
	    qsc_stream_parser_create(target->layout, &sink, load, &load->parser) < 0) {
		qsc_load_destroy(load);
		return -ENOMEM;
	}
	*out = load;
	return 0;
}

void qsc_load_destroy(struct qsc_load *load)
{
	if (!load)
		return;
	qsc_stream_parser_destroy(load->parser);
	free(load->held);
	free(load->custom);
	free(load->candidate);
	free(load);
}

int qsc_load_write(struct qsc_load *load, const void *buf, size_t size, struct qsc_error *err)
{
	return qsc_stream_parse(load->parser, buf, size, err);
}

int qsc_load_commit(struct qsc_load *load, struct qsc_error *err)
{
	const struct qsc_model *model = load->target.model;
	struct qsc_error why = QSC_ERROR_NONE;
	int result = qsc_stream_finish(load->parser, err);

	if (result < 0)
		return result;
	if (model->validate)
		result = model->validate(load->target.ctx, load->candidate, &why);
	if (!result) {
		memcpy(load->target.state, load->candidate, model->state_size);
		if (load->target.layout->custom_max)
			result = model->load(load->target.ctx, load->custom, load->custom_size,
					     &why);
	}
	if (result < 0) {
		/* -ENODATA is ours and means something else. */
		if (result == -ENODATA)
			result = -EINVAL;
		return qsc_error_set(err, -result, NULL, "%s",
				     why.number ? why.text : "the device refuses this state");
	}
	qsc_irqs_load(load->target.irqs, load->held, load->num_held);
	if (model->loaded)
		model->loaded(load->target.ctx);
	return 0;
}
