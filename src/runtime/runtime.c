/* SPDX-License-Identifier: MIT */
/* Making a device from a model's description, holding it, and letting go of it. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "device/layout.h"
#include "runtime/core.h"
#include "runtime/section.h"

#define MAX_MSI	   32U
#define MAX_CUSTOM (256U << 20)

/* ---- the description ---- */

static int check_blocks(const struct qsc_runtime_options *options, struct qsc_error *err)
{
	uint32_t i;
	uint32_t j;

	if (options->num_blocks > QSC_LAYOUT_PARTS)
		return qsc_error_set(err, EINVAL, NULL, "%u blocks are more than the %u possible",
				     options->num_blocks, QSC_LAYOUT_PARTS);
	for (i = 0; i < options->num_blocks; i++) {
		const struct qsc_block_desc *block = &options->blocks[i];

		if (!block->name || !qsc_layout_name_valid(block->name))
			return qsc_error_set(err, EINVAL, NULL,
					     "block %u needs a name of 1 to %u printable "
					     "characters",
					     i, QSC_STREAM_MAX_NAME);
		if (!block->size || block->size % QSC_PAGE_SIZE || block->size > INT64_MAX)
			return qsc_error_set(err, EINVAL, NULL,
					     "block %s has %llu bytes, which is not a multiple of "
					     "4096",
					     block->name, (unsigned long long)block->size);
		for (j = 0; j < i; j++) {
			if (!strcmp(options->blocks[j].name, block->name))
				return qsc_error_set(err, EINVAL, NULL,
						     "there are two blocks named %s", block->name);
		}
	}
	return 0;
}

/* All that the state is made of. */
static int check_parts(const struct qsc_model *model, const struct qsc_runtime_options *options,
		       struct qsc_error *err)
{
	int result = check_blocks(options, err);
	size_t sections;

	if (!result)
		result = qsc_sections_check(model->sections, model->state_size, err);
	if (result < 0)
		return result;
	sections = qsc_sections_count(model->sections);
	if (sections + options->num_blocks + (model->custom_max ? 1 : 0) > QSC_LAYOUT_PARTS)
		return qsc_error_set(err, EINVAL, NULL,
				     "the state has %zu sections and %u blocks%s, and at most %u "
				     "parts are possible: put some together",
				     sections, options->num_blocks,
				     model->custom_max ? " and custom state" : "",
				     QSC_LAYOUT_PARTS);
	return 0;
}

static int check_region(const struct qsc_runtime_options *options, const struct qsc_model *model,
			uint32_t number, struct qsc_error *err)
{
	const uint32_t known = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			       VFIO_REGION_INFO_FLAG_MMAP;
	const struct qsc_region_desc *region = &options->regions[number];
	bool in_block = region->block != QSC_NO_BLOCK;
	uint32_t i;

	if (region->index >= QSC_PCI_BARS)
		return qsc_error_set(err, EINVAL, NULL, "region %u is no BAR", region->index);
	for (i = 0; i < number; i++) {
		if (options->regions[i].index == region->index)
			return qsc_error_set(err, EINVAL, NULL, "region %u is described twice",
					     region->index);
	}
	if (region->index == QSC_PCI_MSIX_BAR && options->msix_vectors)
		return qsc_error_set(err, EINVAL, NULL, "region %u is taken by the MSI-X table",
				     QSC_PCI_MSIX_BAR);
	if (!qsc_is_power_of_two(region->size) || region->size < 16)
		return qsc_error_set(err, EINVAL, NULL,
				     "region %u has %llu bytes; a BAR needs a power of two of at "
				     "least 16",
				     region->index, (unsigned long long)region->size);
	if (region->flags & ~known || !(region->flags & known))
		return qsc_error_set(err, EINVAL, NULL, "region %u has impossible flags 0x%x",
				     region->index, region->flags);
	if (in_block && (region->block >= options->num_blocks ||
			 options->blocks[region->block].size < region->size))
		return qsc_error_set(err, EINVAL, NULL,
				     "region %u is larger than its block, or has none",
				     region->index);
	/* Who maps it could reach the rest of the block. */
	if (region->flags & VFIO_REGION_INFO_FLAG_MMAP &&
	    (!in_block || options->blocks[region->block].size != region->size))
		return qsc_error_set(err, EINVAL, NULL,
				     "region %u can be mapped only with a block of its own size",
				     region->index);
	if (!in_block && ((region->flags & VFIO_REGION_INFO_FLAG_READ && !model->region_read) ||
			  (region->flags & VFIO_REGION_INFO_FLAG_WRITE && !model->region_write)))
		return qsc_error_set(err, EINVAL, NULL,
				     "region %u has neither a block nor a callback", region->index);
	return 0;
}

static int check_doorbells(const struct qsc_runtime_options *options, const struct qsc_model *model,
			   struct qsc_error *err)
{
	uint32_t i;
	uint32_t j;

	if (options->num_doorbells > QSC_MAX_DOORBELLS)
		return qsc_error_set(err, EINVAL, NULL,
				     "%u doorbells are more than the %u possible",
				     options->num_doorbells, QSC_MAX_DOORBELLS);
	for (i = 0; i < options->num_doorbells; i++) {
		const struct qsc_doorbell_desc *doorbell = &options->doorbells[i];
		const struct qsc_region_desc *region = NULL;

		for (j = 0; j < options->num_regions; j++) {
			if (options->regions[j].index == doorbell->region)
				region = &options->regions[j];
		}
		if (!region || region->block != QSC_NO_BLOCK || !model->region_write ||
		    !qsc_is_power_of_two(doorbell->width) || doorbell->width > 8 ||
		    doorbell->offset % doorbell->width ||
		    !qsc_range_within(doorbell->offset, doorbell->width, region->size))
			return qsc_error_set(err, EINVAL, NULL,
					     "doorbell %u is not a writable register of a region "
					     "without a block",
					     i);
	}
	return 0;
}

static int check(const struct qsc_model *model, const struct qsc_runtime_options *options,
		 struct qsc_error *err)
{
	uint32_t i;
	int result;

	if (!model->type || !qsc_layout_name_valid(model->type) || !model->reset)
		return qsc_error_set(err, EINVAL, NULL,
				     "a model needs a type of 1 to %u printable characters and a "
				     "reset()",
				     QSC_STREAM_MAX_NAME);
	if (!qsc_flags_valid(options->migration_flags))
		return qsc_error_set(err, EINVAL, qsc_clause_id(QSC_CLAUSE_STATE_1),
				     "migration flags 0x%x are none of 1, 3, 5 and 7",
				     options->migration_flags);
	if (model->workers > QSC_MAX_WORKERS || (model->workers && !model->work))
		return qsc_error_set(err, EINVAL, NULL,
				     "%u workers are more than %u, or there is no work()",
				     model->workers, QSC_MAX_WORKERS);
	if (options->msix_vectors > QSC_IRQ_VECTORS || options->msi_vectors > MAX_MSI)
		return qsc_error_set(
			err, EINVAL, NULL, "%u MSI-X or %u MSI vectors are more than %u and %u",
			options->msix_vectors, options->msi_vectors, QSC_IRQ_VECTORS, MAX_MSI);
	if (model->custom_max && (!model->save || !model->load || model->custom_max > MAX_CUSTOM))
		return qsc_error_set(err, EINVAL, NULL,
				     "a model with state of its own needs save() and load(), and "
				     "at most %u bytes of it",
				     MAX_CUSTOM);
	result = check_parts(model, options, err);
	for (i = 0; !result && i < options->num_regions; i++)
		result = check_region(options, model, i, err);
	if (!result)
		result = check_doorbells(options, model, err);
	return result;
}

/* ---- making the parts ---- */

/* The handle of a region that may be mapped is as wide as an address, where there is room. */
static int set_up_bars(const struct qsc_runtime *rt, struct qsc_pci_bar bars[QSC_PCI_BARS],
		       struct qsc_error *err)
{
	unsigned int i;

	for (i = 0; i < QSC_PCI_BARS; i++) {
		bool room = i + 1 < QSC_PCI_BARS && !rt->regions[i + 1].size;

		bars[i].size = rt->regions[i].size;
		bars[i].wide = room && rt->regions[i].flags & VFIO_REGION_INFO_FLAG_MMAP;
		if (bars[i].size > 1ULL << 31 && !bars[i].wide)
			return qsc_error_set(err, EINVAL, NULL,
					     "region %u is too large for a 32-bit BAR; it must be "
					     "mappable and leave region %u free",
					     i, i + 1);
	}
	return 0;
}

static void set_up_regions(struct qsc_runtime *rt, const struct qsc_runtime_options *options)
{
	const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	uint32_t i;

	for (i = 0; i < options->num_regions; i++) {
		const struct qsc_region_desc *desc = &options->regions[i];
		struct qsc_region *region = &rt->regions[desc->index];

		region->size = desc->size;
		region->flags = desc->flags;
		region->kind = QSC_REGION_MODEL;
		if (desc->block != QSC_NO_BLOCK) {
			region->kind = QSC_REGION_BLOCK;
			region->block = &rt->blocks[desc->block];
		}
	}
	if (options->msix_vectors)
		rt->regions[QSC_PCI_MSIX_BAR] = (struct qsc_region){
			.size = qsc_pci_msix_bar_size(options->msix_vectors),
			.flags = both,
			.kind = QSC_REGION_MSIX,
		};
	rt->regions[VFIO_PCI_CONFIG_REGION_INDEX] = (struct qsc_region){
		.size = QSC_PCI_CONFIG_SIZE,
		.flags = both,
		.kind = QSC_REGION_CONFIG,
	};
}

static void free_blocks(struct qsc_runtime *rt)
{
	while (rt->num_blocks > 0)
		qsc_block_destroy(&rt->blocks[--rt->num_blocks]);
	free(rt->blocks);
	free(rt->block_descs);
}

static int make_blocks(struct qsc_runtime *rt, const struct qsc_runtime_options *options,
		       struct qsc_error *err)
{
	int result;

	rt->blocks = calloc(options->num_blocks + 1, sizeof(*rt->blocks));
	rt->block_descs = calloc(options->num_blocks + 1, sizeof(*rt->block_descs));
	if (!rt->blocks || !rt->block_descs)
		return -ENOMEM;
	while (rt->num_blocks < options->num_blocks) {
		const struct qsc_block_desc *desc = &options->blocks[rt->num_blocks];

		result = qsc_block_init(&rt->blocks[rt->num_blocks], desc);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "cannot make block %s of %llu bytes: %s", desc->name,
					     (unsigned long long)desc->size, strerror(-result));
		rt->block_descs[rt->num_blocks] = (struct qsc_block_desc){
			rt->blocks[rt->num_blocks].name, desc->size, desc->non_volatile};
		rt->num_blocks++;
	}
	return 0;
}

/* What the streams of this device look like, and where they come from. */
static void set_up_source(struct qsc_runtime *rt, const struct qsc_runtime_options *options)
{
	rt->layout = (struct qsc_stream_layout){
		.type = rt->model->type,
		.vectors = {options->intx ? 1 : 0, options->msi_vectors, options->msix_vectors},
		.custom_max = (uint32_t)rt->model->custom_max,
		.num_sections = (uint32_t)qsc_sections_count(rt->model->sections),
		.sections = rt->model->sections,
		.num_blocks = rt->num_blocks,
		.blocks = rt->block_descs,
	};
	rt->source = (struct qsc_save_source){
		.layout = &rt->layout,
		.model = rt->model,
		.ctx = rt->ctx,
		.state = rt->state_data,
		.blocks = rt->blocks,
		.irqs = &rt->irqs,
	};
}

/* Parts that can only be undone together, in this order. */
static int make_parts(struct qsc_runtime *rt, const struct qsc_runtime_options *options,
		      struct qsc_error *err)
{
	const uint32_t counts[QSC_IRQ_INDICES] = {options->intx ? 1 : 0, options->msi_vectors,
						  options->msix_vectors};
	struct qsc_pci_bar bars[QSC_PCI_BARS];
	int result = set_up_bars(rt, bars, err);

	if (result < 0)
		return result;
	result = qsc_irqs_init(&rt->irqs, counts);
	if (result < 0)
		return result;
	result = qsc_pci_init(&rt->pci, &rt->model->pci, bars, counts);
	if (result < 0)
		goto no_pci;
	result = qsc_dma_space_init(&rt->dma);
	if (result < 0)
		goto no_dma;
	result = qsc_workers_init(&rt->workers, rt->model, rt->ctx, options);
	if (result < 0)
		goto no_workers;
	return 0;
no_workers:
	qsc_dma_space_destroy(&rt->dma);
no_dma:
	qsc_pci_destroy(&rt->pci);
no_pci:
	qsc_irqs_destroy(&rt->irqs);
	return result;
}

static const struct qsc_device_ops device_ops;

static struct qsc_runtime *make(const struct qsc_model *model, void *ctx,
				const struct qsc_runtime_options *options)
{
	struct qsc_runtime *rt = aligned_alloc(
		_Alignof(struct qsc_runtime),
		qsc_align_up(sizeof(struct qsc_runtime), _Alignof(struct qsc_runtime)));

	if (!rt)
		return NULL;
	memset(rt, 0, sizeof(*rt));
	rt->device.ops = &device_ops;
	rt->model = model;
	rt->ctx = ctx;
	rt->flags = options->migration_flags;
	rt->tells_peers = options->tells_peers;
	rt->destroy_on_close = options->destroy_on_close;
	rt->violation = options->violation;
	rt->violation_ctx = options->violation_ctx;
	rt->mappings = (struct qsc_mappings)QSC_MAPPINGS_INIT;
	rt->name = strdup(options->name ? options->name : model->type);
	rt->state_data = calloc(1, model->state_size + 1);
	pthread_mutex_init(&rt->lock, NULL);
	pthread_cond_init(&rt->idle, NULL);
	return rt;
}

static void unmake(struct qsc_runtime *rt)
{
	free_blocks(rt);
	pthread_cond_destroy(&rt->idle);
	pthread_mutex_destroy(&rt->lock);
	free(rt->state_data);
	free(rt->name);
	free(rt);
}

int qsc_runtime_create(const struct qsc_model *model, void *ctx,
		       const struct qsc_runtime_options *options, struct qsc_runtime **out,
		       struct qsc_error *err)
{
	struct qsc_runtime *rt;
	int result = check(model, options, err);

	if (result < 0)
		return result;
	rt = make(model, ctx, options);
	if (!rt)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a device %s", model->type);
	result = rt->name && rt->state_data ? make_blocks(rt, options, err) : -ENOMEM;
	if (result < 0)
		goto fail;
	set_up_regions(rt, options);
	set_up_source(rt, options);
	result = make_parts(rt, options, err);
	if (result < 0)
		goto fail;
	result = qsc_workers_start(&rt->workers);
	if (result < 0) {
		qsc_workers_destroy(&rt->workers);
		qsc_dma_space_destroy(&rt->dma);
		qsc_pci_destroy(&rt->pci);
		qsc_irqs_destroy(&rt->irqs);
		goto fail;
	}
	/* Known to the model before its first callback. A start() that fails leaves ERROR. */
	*out = rt;
	(void)qsc_runtime_restart(rt, false);
	return 0;
fail:
	unmake(rt);
	if (err && !err->number)
		(void)qsc_error_set(err, -result, NULL, "cannot make a device %s: %s", model->type,
				    strerror(-result));
	return result;
}

void qsc_runtime_destroy(struct qsc_runtime *rt)
{
	if (!rt)
		return;
	qsc_gate_set(&rt->dma.gate, QSC_GATE_CLOSED);
	qsc_gate_set(&rt->workers.gate, QSC_GATE_CLOSED);
	qsc_workers_destroy(&rt->workers);
	if (rt->model->destroy)
		rt->model->destroy(rt->ctx);
	qsc_runtime_session_drop(rt);
	qsc_mappings_release(&rt->mappings);
	qsc_dma_space_destroy(&rt->dma);
	qsc_pci_destroy(&rt->pci);
	qsc_irqs_destroy(&rt->irqs);
	unmake(rt);
}

int qsc_runtime_open(struct qsc_runtime *rt, struct qsc_device **dev)
{
	int result = 0;

	pthread_mutex_lock(&rt->lock);
	if (rt->open)
		result = -EBUSY;
	rt->open = true;
	pthread_mutex_unlock(&rt->lock);
	if (result < 0)
		return result;
	result = qsc_runtime_take_up(rt);
	if (result < 0) {
		pthread_mutex_lock(&rt->lock);
		rt->open = false;
		pthread_mutex_unlock(&rt->lock);
		return result;
	}
	*dev = &rt->device;
	return 0;
}

bool qsc_runtime_step(struct qsc_runtime *rt, uint64_t pick)
{
	return qsc_workers_step(&rt->workers, pick);
}

/* ---- operations of the device ---- */

static void op_close(struct qsc_device *dev)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	bool destroy = rt->destroy_on_close;

	qsc_runtime_let_go(rt);
	pthread_mutex_lock(&rt->lock);
	rt->open = false;
	pthread_mutex_unlock(&rt->lock);
	if (destroy)
		qsc_runtime_destroy(rt);
}

static int op_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	*info = (struct qsc_device_info){
		.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET,
		.num_regions = VFIO_PCI_NUM_REGIONS,
		.num_irqs = VFIO_PCI_NUM_IRQS,
	};
	qsc_stream_describe(&qsc_runtime_of(dev)->layout, &info->layout);
	return 0;
}

static int op_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	if (index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	qsc_irqs_info(&qsc_runtime_of(dev)->irqs, index, info);
	return 0;
}

static int op_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	enum qsc_state state = qsc_runtime_present_state(rt);
	bool trigger = set->flags & VFIO_IRQ_SET_ACTION_TRIGGER &&
		       !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD) && set->count;
	enum qsc_verdict verdict = qsc_contract_verdict(
		trigger ? QSC_ACTION_IRQ_TRIGGER : QSC_ACTION_IRQ_SETUP, state);

	if (qsc_verdict_errno(verdict))
		return -qsc_verdict_errno(verdict);
	return qsc_irqs_set(&rt->irqs, set);
}

static int op_irq_counts(struct qsc_device *dev, struct qsc_irq_counts *counts)
{
	qsc_irqs_count(&qsc_runtime_of(dev)->irqs, counts);
	return 0;
}

static int op_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	return qsc_dma_space_map(&qsc_runtime_of(dev)->dma, mapping);
}

static int op_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	return qsc_dma_space_unmap(&qsc_runtime_of(dev)->dma, iova, size);
}

static int op_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	*info = (struct qsc_migration_info){
		.flags = qsc_runtime_of(dev)->flags,
		.dirty_log = true,
	};
	return 0;
}

static int op_log_start(struct qsc_device *dev, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	enum qsc_verdict verdict = qsc_contract_verdict(QSC_ACTION_LOG_START,
							qsc_runtime_present_state(rt));
	int result;

	if (qsc_verdict_errno(verdict))
		return -qsc_verdict_errno(verdict);
	result = qsc_dma_space_log_start(&rt->dma, ranges, num_ranges);
	if (!result)
		*page_size = 1ULL << QSC_DIRTY_PAGE_SHIFT;
	return result;
}

static int op_log_stop(struct qsc_device *dev)
{
	return qsc_dma_space_log_stop(&qsc_runtime_of(dev)->dma);
}

static int op_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint64_t *bitmap)
{
	return qsc_dma_space_log_report(&qsc_runtime_of(dev)->dma, iova, size, page_size, bitmap);
}

static const struct qsc_device_ops device_ops = {
	.kind = "runtime",
	.get_info = op_get_info,
	.get_region_info = qsc_runtime_op_region_info,
	.get_irq_info = op_get_irq_info,
	.region_read = qsc_runtime_op_region_read,
	.region_write = qsc_runtime_op_region_write,
	.region_write_multi = qsc_runtime_op_region_write_multi,
	.region_map = qsc_runtime_op_region_map,
	.region_unmap = qsc_runtime_op_region_unmap,
	.region_change = qsc_runtime_op_region_change,
	.region_fd = qsc_runtime_op_region_fd,
	.region_io_fds = qsc_runtime_op_region_io_fds,
	.set_irqs = op_set_irqs,
	.irq_counts = op_irq_counts,
	.dma_map = op_dma_map,
	.dma_unmap = op_dma_unmap,
	.get_migration = op_get_migration,
	.get_state = qsc_runtime_op_get_state,
	.set_state = qsc_runtime_op_set_state,
	.data_size = qsc_runtime_op_data_size,
	.log_start = op_log_start,
	.log_stop = op_log_stop,
	.log_report = op_log_report,
	.session_read = qsc_runtime_op_session_read,
	.session_lend = qsc_runtime_op_session_lend,
	.session_write = qsc_runtime_op_session_write,
	.session_precopy_info = qsc_runtime_op_session_precopy_info,
	.session_close = qsc_runtime_op_session_close,
	.reset = qsc_runtime_op_reset,
	.close = op_close,
};

/* ---- what a model calls ---- */

void *qsc_runtime_state(struct qsc_runtime *rt)
{
	return rt->state_data;
}

void *qsc_block_data(struct qsc_runtime *rt, uint32_t block)
{
	return block < rt->num_blocks ? rt->blocks[block].memory : NULL;
}

void qsc_block_dirty(struct qsc_runtime *rt, uint32_t block, uint64_t offset, uint64_t size)
{
	if (block < rt->num_blocks)
		qsc_block_mark(&rt->blocks[block], offset, size);
}

void qsc_block_clear(struct qsc_runtime *rt, uint32_t block, uint64_t offset, uint64_t size)
{
	if (block < rt->num_blocks)
		qsc_block_wipe(&rt->blocks[block], offset, size);
}

int qsc_dma_read(struct qsc_runtime *rt, uint64_t iova, void *buf, size_t size)
{
	return qsc_dma_space_read(&rt->dma, iova, buf, size);
}

int qsc_dma_write(struct qsc_runtime *rt, uint64_t iova, const void *buf, size_t size)
{
	return qsc_dma_space_write(&rt->dma, iova, buf, size);
}

int qsc_dma_copy(struct qsc_runtime *rt, uint64_t dst_iova, uint64_t src_iova, size_t size)
{
	return qsc_dma_space_copy(&rt->dma, dst_iova, src_iova, size);
}

int qsc_dma_write_by(struct qsc_runtime *rt, const struct qsc_dma_piece *pieces, size_t count,
		     qsc_dma_move_fn *move, void *ctx)
{
	return qsc_dma_space_move(&rt->dma, QSC_DMA_WRITE, pieces, count, move, ctx);
}

int qsc_dma_read_by(struct qsc_runtime *rt, const struct qsc_dma_piece *pieces, size_t count,
		    qsc_dma_move_fn *move, void *ctx)
{
	return qsc_dma_space_move(&rt->dma, QSC_DMA_READ, pieces, count, move, ctx);
}

void qsc_irq_raise(struct qsc_runtime *rt, uint32_t index, uint32_t vector)
{
	qsc_irqs_raise(&rt->irqs, index, vector);
}

void qsc_work_kick(struct qsc_runtime *rt, uint32_t worker)
{
	qsc_workers_kick(&rt->workers, worker);
}

void qsc_work_try(struct qsc_runtime *rt, uint32_t worker)
{
	qsc_workers_try(&rt->workers, worker);
}

void qsc_irq_set_line(struct qsc_runtime *rt, bool asserted)
{
	qsc_irqs_set_line(&rt->irqs, asserted);
}

void qsc_runtime_log(struct qsc_runtime *rt, enum qsc_log_level level, const char *fmt, ...)
{
	char text[QSC_ERROR_TEXT_SIZE];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	qsc_log(level, "%s: %s", rt->name, text);
}
