/* SPDX-License-Identifier: MIT */
/* See fake.h. */
#include "set/fake.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/bitmap.h"
#include "base/cleanup.h"

static struct fake *fake_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct fake, base);
}

static void note(struct fake *fake, struct order_event event)
{
	struct fake_world *world = fake->world;

	event.side = fake->options.side;
	event.member = fake->options.member;
	pthread_mutex_lock(&world->lock);
	if (world->count == QSC_ARRAY_SIZE(world->events))
		abort();
	world->events[world->count++] = event;
	pthread_mutex_unlock(&world->lock);
}

void fake_fail(struct fake *fake, enum fake_call call, uint32_t target, int nth, int number,
	       int state)
{
	fake->script[call].countdown = nth;
	fake->script[call].number = number;
	fake->script[call].state = state;
	fake->script[call].target = target;
}

static int scripted(struct fake *fake, enum fake_call call, uint32_t target)
{
	int result = 0;

	pthread_mutex_lock(&fake->lock);
	if (fake->script[call].countdown &&
	    (fake->script[call].target == UINT32_MAX || fake->script[call].target == target) &&
	    --fake->script[call].countdown == 0) {
		result = -fake->script[call].number;
		if (fake->script[call].state >= 0)
			fake->state = (enum qsc_state)fake->script[call].state;
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

uint8_t fake_byte(uint32_t seed, uint32_t index)
{
	return (uint8_t)((seed * 2654435761U + index * 40503U) >> 7);
}

static void fill(struct fake *fake)
{
	uint32_t i;

	for (i = 0; i < fake->options.state_bytes; i++)
		fake->contents[i] = fake_byte(fake->options.seed, i);
}

bool fake_holds(const struct fake *fake, uint32_t seed)
{
	uint32_t i;

	for (i = 0; i < fake->options.state_bytes; i++)
		if (fake->contents[i] != fake_byte(seed, i))
			return false;
	return true;
}

/* ---- queries ---- */

static int get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	*info = (struct qsc_device_info){
		.flags = VFIO_DEVICE_FLAGS_RESET,
		.num_regions = 3,
		.layout = fake_of(dev)->layout,
	};
	return 0;
}

static int get_region_info(struct qsc_device *dev, uint32_t region, struct qsc_region_info *info)
{
	if (region > 2)
		return -EINVAL;
	*info = (struct qsc_region_info){0};
	if (region == 2) {
		info->size = fake_of(dev)->options.bar_bytes;
		info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			      VFIO_REGION_INFO_FLAG_MMAP;
	}
	return 0;
}

static int region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
		      int prot, void **addr)
{
	*addr = fake_of(dev)->bar + offset;
	return 0;
}

static int region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return 0;
}

static int get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	info->flags = fake_of(dev)->options.flags;
	info->dirty_log = fake_of(dev)->options.dirty_log;
	return 0;
}

static int get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct fake *fake = fake_of(dev);

	pthread_mutex_lock(&fake->lock);
	*state = fake->state;
	fake->asked++;
	pthread_mutex_unlock(&fake->lock);
	return 0;
}

static int data_size(struct qsc_device *dev, uint64_t *size)
{
	*size = fake_of(dev)->options.state_bytes;
	return 0;
}

/* ---- DMA and its log ---- */

static int dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_DMA_MAP, 0);

	/* Peers' BARs are at 1 GiB times their number and up. */
	if (result == 0 && mapping->flags & QSC_DMA_PEER)
		note(fake, (struct order_event){.kind = ORDER_MAP,
						.peer = (uint32_t)(mapping->iova >> 30) - 1,
						.iova = mapping->iova});
	return result;
}

static int dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_DMA_UNMAP, 0);

	if (result == 0 && iova >> 30)
		note(fake, (struct order_event){.kind = ORDER_UNMAP, .iova = iova});
	return result;
}

static int log_start(struct qsc_device *dev, uint64_t *page_size,
		     const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_LOG_START, 0);

	if (result == 0 && fake->logging)
		result = -EINVAL;
	if (result == 0)
		fake->logging = true;
	return result;
}

static int log_stop(struct qsc_device *dev)
{
	fake_of(dev)->logging = false;
	return 0;
}

static int log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
		      uint64_t *bitmap)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_LOG_REPORT, 0);

	if (result == 0 && !fake->logging)
		result = -EINVAL;
	if (result == 0 && fake->dirty_iova >= iova && fake->dirty_iova - iova < size) {
		qsc_bitmap_set(bitmap, (fake->dirty_iova - iova) / page_size);
		fake->dirty_iova = 0;
	}
	return result;
}

/* ---- states ---- */

static bool has_session(enum qsc_state state)
{
	return qsc_state_is_saving(state) || state == QSC_STATE_RESUMING;
}

static int leave_resuming(struct fake *fake)
{
	if (fake->loaded != fake->options.state_bytes)
		return -EINVAL;
	memcpy(fake->contents, fake->incoming, fake->loaded);
	return 0;
}

static int take_arc(struct fake *fake, enum qsc_state next, uint64_t *session)
{
	enum qsc_state from = fake->state;
	int result = from == QSC_STATE_RESUMING ? leave_resuming(fake) : 0;

	if (result < 0)
		return result;
	if (has_session(next) && !(qsc_state_is_saving(from) && qsc_state_is_saving(next))) {
		fake->session_live = true;
		fake->saved = 0;
		fake->loaded = 0;
		*session = ++fake->session;
	}
	if (!has_session(next))
		fake->session_live = false;
	fake->state = next;
	note(fake, (struct order_event){.kind = ORDER_STATE, .from = from, .to = next});
	return 0;
}

static int set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct fake *fake = fake_of(dev);
	enum qsc_state before = fake->state;
	int result = scripted(fake, FAKE_SET_STATE, target);

	if (result < 0) {
		if (fake->state != before)
			note(fake, (struct order_event){
					   .kind = ORDER_STATE, .from = before, .to = fake->state});
		return result;
	}
	pthread_mutex_lock(&fake->lock);
	while (result == 0 && fake->state != target) {
		int next = qsc_contract_next(fake->options.flags, fake->state, target);

		result = next < 0 ? next : take_arc(fake, (enum qsc_state)next, session);
	}
	pthread_mutex_unlock(&fake->lock);
	return result;
}

static int reset(struct qsc_device *dev)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_RESET, 0);

	if (result < 0)
		return result;
	pthread_mutex_lock(&fake->lock);
	fake->state = QSC_STATE_RUNNING;
	fake->session_live = false;
	memset(fake->contents, 0, sizeof(fake->contents));
	fake->resets++;
	note(fake, (struct order_event){.kind = ORDER_RESET});
	pthread_mutex_unlock(&fake->lock);
	return 0;
}

/* ---- sessions ---- */

static ssize_t session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct fake *fake = fake_of(dev);
	bool precopy = fake->state != QSC_STATE_STOP_COPY;
	uint32_t end = precopy ? fake->options.state_bytes / 2 : fake->options.state_bytes;
	int result = scripted(fake, FAKE_SESSION_READ, 0);
	size_t n;

	if (result < 0)
		return result;
	if (!fake->session_live || session != fake->session || !qsc_state_is_saving(fake->state))
		return -ENODEV;
	if (fake->saved == end)
		return precopy ? -ENOMSG : 0;
	n = end - fake->saved < size ? end - fake->saved : size;
	memcpy(buf, fake->contents + fake->saved, n);
	fake->saved += (uint32_t)n;
	return (ssize_t)n;
}

static ssize_t session_write(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	struct fake *fake = fake_of(dev);
	int result = scripted(fake, FAKE_SESSION_WRITE, 0);

	if (result < 0)
		return result;
	if (!fake->session_live || session != fake->session || fake->state != QSC_STATE_RESUMING)
		return -ENODEV;
	if (size > fake->options.state_bytes - fake->loaded)
		return -EINVAL;
	memcpy(fake->incoming + fake->loaded, buf, size);
	fake->loaded += (uint32_t)size;
	return (ssize_t)size;
}

static int precopy_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	struct fake *fake = fake_of(dev);

	if (fake->state != QSC_STATE_PRE_COPY && fake->state != QSC_STATE_PRE_COPY_P2P)
		return -EINVAL;
	info->initial_bytes = fake->options.state_bytes / 2 - fake->saved;
	info->dirty_bytes = 0;
	return 0;
}

static int session_close(struct qsc_device *dev, uint64_t session)
{
	return 0;
}

static const struct qsc_device_ops ops = {
	.kind = "fake",
	.get_info = get_info,
	.get_region_info = get_region_info,
	.region_map = region_map,
	.region_unmap = region_unmap,
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

struct fake *fake_new(struct fake_world *world, const struct fake_options *options)
{
	struct fake *fake = calloc(1, sizeof(*fake));

	if (!fake)
		abort();
	fake->base.ops = &ops;
	fake->world = world;
	fake->options = *options;
	if (!fake->options.bar_bytes)
		fake->options.bar_bytes = 8192;
	fake->layout = (struct qsc_layout){
		.type = "fake",
		.num_parts = 1,
		.parts = {{"contents", QSC_LAYOUT_SECTION, 2, 1, options->state_bytes}},
	};
	pthread_mutex_init(&fake->lock, NULL);
	fake->state = QSC_STATE_RUNNING;
	fake->bar = aligned_alloc(QSC_PAGE_SIZE, fake->options.bar_bytes);
	if (!fake->bar)
		abort();
	fill(fake);
	return fake;
}

void fake_free(struct fake *fake)
{
	pthread_mutex_destroy(&fake->lock);
	free(fake->bar);
	free(fake);
}
