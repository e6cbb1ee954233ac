/* SPDX-License-Identifier: MIT */
/* See layer.h. */
#include "layer.h"

#include <errno.h>

#include "baton.h"

#include "base/cleanup.h"

bool sim_trouble(struct sim_process *process, enum sim_fault kind)
{
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(process->troubles); i++) {
		struct sim_trouble *trouble = &process->troubles[i];

		if (trouble->kind != kind || !trouble->countdown || --trouble->countdown)
			continue;
		trouble->happened = true;
		sim_note('f', kind * 2U + process->side);
		return true;
	}
	return false;
}

static struct sim_layer *layer_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct sim_layer, base);
}

static void note(struct sim_layer *layer, struct order_event event)
{
	struct sim_scene *scene = layer->process->scene;

	event.side = layer->process->side;
	event.member = layer->member;
	sim_note(event.kind * 100U + event.from * 10U + event.to, event.side * 8U + event.member);
	if (scene->count < SIM_MAX_EVENTS)
		scene->events[scene->count++] = event;
	else
		scene->overflow = true;
}

/* Before every call. -ENOTCONN for a process that is dead: nothing it does has an effect. */
static int enter(struct sim_layer *layer, bool may_fail)
{
	struct sim_process *process = layer->process;

	sim_yield();
	if (!process->dead && sim_trouble(process, SIM_FAULT_DEATH))
		process->die(process);
	if (process->dead)
		return -ENOTCONN;
	return may_fail && sim_trouble(process, SIM_FAULT_CALL) ? -EIO : 0;
}

#define FORWARD(op, ...)                                                  \
	do {                                                              \
		struct sim_layer *layer = layer_of(dev);                  \
		int refused = enter(layer, true);                         \
                                                                          \
		return refused ? refused : op(layer->inner, __VA_ARGS__); \
	} while (0)

static int get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	FORWARD(qsc_device_get_info, info);
}

static int get_region_info(struct qsc_device *dev, uint32_t region, struct qsc_region_info *info)
{
	FORWARD(qsc_device_get_region_info, region, info);
}

static int get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	FORWARD(qsc_device_get_irq_info, index, info);
}

static ssize_t region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			   size_t count)
{
	FORWARD(qsc_device_region_read, region, offset, buf, count);
}

static ssize_t region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
			    const void *buf, size_t count)
{
	FORWARD(qsc_device_region_write, region, offset, buf, count);
}

static int region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
		      int prot, void **addr)
{
	return qsc_device_region_map_at(layer_of(dev)->inner, region, offset, size, prot, addr);
}

static int region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_device_region_unmap(layer_of(dev)->inner, addr, size);
}

static int set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	FORWARD(qsc_device_set_irqs, set);
}

static int dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct sim_layer *layer = layer_of(dev);
	int result = enter(layer, true);

	if (result == 0)
		result = qsc_device_dma_map(layer->inner, mapping);
	if (result == 0 && mapping->iova >= layer->peer_base)
		note(layer,
		     (struct order_event){.kind = ORDER_MAP,
					  .peer = (uint32_t)((mapping->iova - layer->peer_base) /
							     layer->peer_span),
					  .iova = mapping->iova});
	return result;
}

static int dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct sim_layer *layer = layer_of(dev);
	int result = enter(layer, true);

	if (result == 0)
		result = qsc_device_dma_unmap(layer->inner, iova, size);
	if (result == 0 && iova >= layer->peer_base)
		note(layer, (struct order_event){.kind = ORDER_UNMAP, .iova = iova});
	return result;
}

static int get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct sim_layer *layer = layer_of(dev);
	int result = qsc_device_get_migration(layer->inner, info);

	info->dirty_log &= layer->dirty_log;
	return result;
}

/* Reading the state does not fail here, or no truth could be told about anything. */
static int get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct sim_layer *layer = layer_of(dev);
	int refused = enter(layer, false);

	return refused ? refused : qsc_device_get_state(layer->inner, state);
}

/* The direct arcs between what was and what is. */
static void note_arcs(struct sim_layer *layer, enum qsc_state before)
{
	enum qsc_state after = before;

	(void)qsc_device_get_state(layer->inner, &after);
	while (before != after) {
		int next = qsc_contract_next(layer->flags, before, after);

		/* ERROR is not walked to. */
		if (next < 0)
			next = (int)after;
		note(layer, (struct order_event){.kind = ORDER_STATE,
						 .from = before,
						 .to = (enum qsc_state)next});
		before = (enum qsc_state)next;
	}
}

static int set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct sim_layer *layer = layer_of(dev);
	enum qsc_state before = QSC_STATE_ERROR;
	int result = enter(layer, false);
	uint64_t lost = 0;
	int next;

	if (result < 0)
		return result;
	if (sim_trouble(layer->process, SIM_FAULT_STATE))
		return -EIO;
	(void)qsc_device_get_state(layer->inner, &before);
	if (sim_trouble(layer->process, SIM_FAULT_STATE_PARTIAL)) {
		next = qsc_contract_next(layer->flags, before, target);
		if (next >= 0 && (uint32_t)next != target)
			(void)qsc_device_set_state(layer->inner, (uint32_t)next, &lost);
		if (lost)
			(void)qsc_device_session_close(layer->inner, lost);
		result = -EIO;
	} else {
		result = qsc_device_set_state(layer->inner, target, session);
	}
	note_arcs(layer, before);
	return result;
}

static int data_size(struct qsc_device *dev, uint64_t *size)
{
	FORWARD(qsc_device_data_size, size);
}

static int log_start(struct qsc_device *dev, uint64_t *page_size,
		     const struct qsc_dma_range *ranges, size_t num_ranges)
{
	FORWARD(qsc_device_log_start, page_size, ranges, num_ranges);
}

static int log_stop(struct qsc_device *dev)
{
	struct sim_layer *layer = layer_of(dev);
	int refused = enter(layer, true);

	return refused ? refused : qsc_device_log_stop(layer->inner);
}

static int log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap)
{
	FORWARD(qsc_device_log_report, iova, size, page_size, bitmap);
}

/* SESS-5: any segmentation is legal, so it is always an odd one. */
static ssize_t session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct sim_layer *layer = layer_of(dev);
	ssize_t n = enter(layer, true);

	if (n < 0)
		return n;
	n = qsc_device_session_read(layer->inner, session, buf,
				    size < 2 ? size : 1 + sim_random(size < 9000 ? size : 9000));
	if (n > 0 && sim_trouble(layer->process, SIM_FAULT_STREAM))
		((uint8_t *)buf)[sim_random((uint64_t)n)] ^= 0x10;
	return n;
}

static ssize_t session_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	struct sim_layer *layer = layer_of(dev);
	ssize_t n = enter(layer, true);

	if (n < 0)
		return n;
	return qsc_device_session_write(layer->inner, session, buf,
					size < 2 ? size : 1 + sim_random(size));
}

static int precopy_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	FORWARD(qsc_device_session_precopy_info, session, info);
}

static int session_close(struct qsc_device *dev, uint64_t session)
{
	struct sim_layer *layer = layer_of(dev);
	int refused = enter(layer, false);

	return refused ? refused : qsc_device_session_close(layer->inner, session);
}

static int reset(struct qsc_device *dev)
{
	struct sim_layer *layer = layer_of(dev);
	int result = enter(layer, false);

	if (result == 0)
		result = qsc_device_reset(layer->inner);
	if (result == 0)
		note(layer, (struct order_event){.kind = ORDER_RESET});
	return result;
}

static const struct qsc_device_ops ops = {
	.kind = "sim",
	.get_info = get_info,
	.get_region_info = get_region_info,
	.get_irq_info = get_irq_info,
	.region_read = region_read,
	.region_write = region_write,
	.region_map = region_map,
	.region_unmap = region_unmap,
	.set_irqs = set_irqs,
	.dma_map = dma_map,
	.dma_unmap = dma_unmap,
	.get_migration = get_migration,
	.get_state = get_state,
	.set_state = set_state,
	.data_size = data_size,
	.log_start = log_start,
	.log_stop = log_stop,
	.log_report = log_report,
	.session_read = session_read,
	.session_write = session_write,
	.session_precopy_info = precopy_info,
	.session_close = session_close,
	.reset = reset,
};

void sim_layer_init(struct sim_layer *layer)
{
	layer->base.ops = &ops;
}
