/* SPDX-License-Identifier: MIT */
/* Making a device do things, and watching what it does. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "check/harness.h"

/* ---- a register, memory, config space ---- */

bool harness_has_register(const struct harness *h)
{
	return h->exerciser && h->exerciser->register_size;
}

/* Values are those of the bits of the mask, from its lowest on. */
static uint32_t register_shift(const struct qsc_exerciser *ex)
{
	return (uint32_t)__builtin_ctzll(ex->register_mask);
}

uint64_t harness_register_fit(const struct harness *h, uint64_t value)
{
	return value & h->exerciser->register_mask >> register_shift(h->exerciser);
}

static int register_raw(struct harness *h, uint64_t *value)
{
	const struct qsc_exerciser *ex = h->exerciser;
	ssize_t n;

	*value = 0;
	n = qsc_device_region_read(h->dev, ex->register_region, ex->register_offset, value,
				   ex->register_size);
	return n == (ssize_t)ex->register_size
		       ? 0
		       : harness_trouble(h, n < 0 ? (int)n : -EPROTO, "a register cannot be read");
}

int harness_register_read(struct harness *h, uint64_t *value)
{
	int r = register_raw(h, value);

	*value = harness_register_fit(h, *value >> register_shift(h->exerciser));
	return r;
}

int harness_register_write(struct harness *h, uint64_t value)
{
	const struct qsc_exerciser *ex = h->exerciser;
	uint64_t whole = UINT64_MAX >> (64 - 8 * ex->register_size);
	uint64_t raw = 0;
	ssize_t n;
	int r = ex->register_mask == whole ? 0 : register_raw(h, &raw);

	if (r)
		return r;
	raw = (raw & ~ex->register_mask) | harness_register_fit(h, value) << register_shift(ex);
	n = qsc_device_region_write(h->dev, ex->register_region, ex->register_offset, &raw,
				    ex->register_size);
	return n == (ssize_t)ex->register_size ? 0
					       : harness_trouble(h, n < 0 ? (int)n : -EPROTO,
								 "a register cannot be written");
}

int harness_mark(struct harness *h, uint64_t value)
{
	return harness_has_register(h) ? harness_register_write(h, value) : 0;
}

bool harness_marked(struct harness *h, uint64_t value, uint64_t *found)
{
	*found = 0;
	if (!harness_has_register(h) || (value == h->register_blank && !h->register_resets))
		return true;
	return !harness_register_read(h, found) && *found == harness_register_fit(h, value);
}

bool harness_has_mappable(const struct harness *h)
{
	for (uint32_t i = 0; i < h->num_regions; i++)
		if (h->regions[i].flags & VFIO_REGION_INFO_FLAG_MMAP)
			return true;
	return false;
}

uint64_t harness_memory_size(const struct harness *h)
{
	return h->exerciser ? h->exerciser->memory_size : 0;
}

int harness_memory_read(struct harness *h, uint64_t offset, void *buf, size_t size)
{
	ssize_t n = qsc_device_region_read(h->dev, h->exerciser->memory_region, offset, buf, size);

	return n == (ssize_t)size ? 0
				  : harness_trouble(h, n < 0 ? (int)n : -EPROTO,
						    "device memory cannot be read");
}

int harness_memory_write(struct harness *h, uint64_t offset, const void *buf, size_t size)
{
	ssize_t n = qsc_device_region_write(h->dev, h->exerciser->memory_region, offset, buf, size);

	return n == (ssize_t)size ? 0
				  : harness_trouble(h, n < 0 ? (int)n : -EPROTO,
						    "device memory cannot be written");
}

int harness_config_write(struct harness *h, bool set)
{
	uint16_t value = set ? h->config_base | h->config_mask
			     : (uint16_t)(h->config_base & ~h->config_mask);
	ssize_t n = qsc_device_region_write(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, h->config_offset,
					    &value, sizeof(value));

	return n == sizeof(value) ? 0
				  : harness_trouble(h, n < 0 ? (int)n : -EPROTO,
						    "config space cannot be written");
}

int harness_config_read(struct harness *h)
{
	uint16_t value = 0;
	ssize_t n = qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, h->config_offset,
					   &value, sizeof(value));

	if (n != sizeof(value))
		return harness_trouble(h, n < 0 ? (int)n : -EPROTO, "config space cannot be read");
	value &= h->config_mask;
	if (value && value != h->config_mask)
		return 2;
	return value != 0;
}

#define POKED 64U /* bytes of a region */

void harness_poke(struct harness *h)
{
	static const uint8_t value = 0x5a;

	for (uint32_t r = 0; r < h->num_regions; r++) {
		const struct qsc_region_info *info = &h->regions[r];

		if ((h->is_pci && r >= VFIO_PCI_ROM_REGION_INDEX) ||
		    !(info->flags & VFIO_REGION_INFO_FLAG_WRITE) ||
		    (info->flags & VFIO_REGION_INFO_FLAG_MMAP))
			continue;
		for (uint64_t at = 0; at < info->size && at < POKED; at++)
			(void)qsc_device_region_write(h->dev, r, at, &value, sizeof(value));
	}
}

/* ---- make it do things ---- */

const char *harness_idle(const struct harness *h)
{
	if (!h->exerciser)
		return "no exerciser for this device type";
	if (h->unprepared[0])
		return h->unprepared;
	return h->exerciser->submit ? NULL : "the exerciser knows no work for the device";
}

/* What the exerciser can hand over of copies that a test wants. */
static void fit_copies(const struct harness *h, uint64_t *iova, uint32_t *size)
{
	uint32_t granule = h->exerciser->granule;

	*iova &= ~(uint64_t)(granule - 1);
	*size = (uint32_t)qsc_align_up(*size, granule);
}

static uint64_t copy_source(const struct harness *h, uint64_t i, uint32_t size)
{
	uint64_t at = i * size % (QSC_CHECK_PATTERN_SIZE - size + 1);

	return at & ~(uint64_t)(h->exerciser->granule - 1);
}

int harness_submit(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector)
{
	struct qsc_check_bench bench = harness_bench(h);
	int r = 0;

	fit_copies(h, &iova, &size);
	for (uint32_t i = 0; !r && i < count; i++) {
		struct qsc_check_copy copy = {copy_source(h, i, size), iova + (uint64_t)i * size,
					      size, vector};

		r = h->exerciser->submit(&bench, &copy);
		h->used = true;
	}
	return r ? harness_trouble(h, r, "a copy cannot be handed over") : 0;
}

int harness_kick(struct harness *h)
{
	struct qsc_check_bench bench = harness_bench(h);
	int r;

	if (harness_idle(h))
		return 0;
	r = h->exerciser->kick(&bench);
	return r ? harness_trouble(h, r, "the device cannot be made to look at its work") : 0;
}

int harness_copy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector)
{
	int r = harness_submit(h, iova, count, size, vector);

	return r ? r : harness_kick(h);
}

int harness_busy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector)
{
	return harness_idle(h) ? 0 : harness_copy(h, iova, count, size, vector);
}

bool harness_copied(const struct harness *h, uint64_t iova, uint32_t count, uint32_t size)
{
	const uint8_t *target;

	fit_copies(h, &iova, &size);
	target = iova >= PEER_IOVA ? h->peer + (iova - PEER_IOVA)
				   : h->memory + (iova - MEMORY_IOVA);
	for (uint32_t i = 0; i < count; i++)
		if (memcmp(target + (uint64_t)i * size,
			   h->memory + MEMORY_SOURCE + copy_source(h, i, size), size) != 0)
			return false;
	return true;
}

int harness_trigger(struct harness *h, uint32_t vector, uint32_t times)
{
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = h->irq_index,
		.start = h->first_vector + vector,
		.count = 1,
	};

	for (uint32_t i = 0; i < times; i++) {
		int r = qsc_device_set_irqs(h->dev, &set);

		if (r)
			return harness_trouble(h, r, "vector %u cannot be triggered", vector);
	}
	return 0;
}

int harness_await(struct harness *h, uint32_t vector, uint64_t count)
{
	struct pollfd pfd = {.fd = h->eventfds[vector], .events = POLLIN};
	uint64_t seen = harness_signals(h, vector);

	while (seen < count && poll(&pfd, 1, (int)h->options->await_ms) == 1)
		seen += harness_signals(h, vector);
	if (seen == count)
		return 0;
	return harness_trouble(h, seen < count ? -ETIMEDOUT : -EOVERFLOW,
			       "vector %u was signalled %llu times instead of %llu", vector,
			       (unsigned long long)seen, (unsigned long long)count);
}

int harness_await_copies(struct harness *h, uint32_t vector, uint32_t count, uint64_t seen)
{
	struct pollfd pfd = {.fd = h->eventfds[vector], .events = POLLIN};
	uint32_t (*completed)(const struct qsc_check_bench *, uint32_t) = h->exerciser->completed;
	struct qsc_check_bench bench = harness_bench(h);
	uint32_t done;
	int r = 0;

	if (!completed)
		return seen <= count ? harness_await(h, vector, count - seen)
				     : harness_trouble(h, -EOVERFLOW,
						       "vector %u was signalled %llu times for %u "
						       "copies",
						       vector, (unsigned long long)seen, count);
	/* As a driver: it looks when it is interrupted, and not again before the next one. */
	do {
		seen += harness_signals(h, vector);
		done = completed(&bench, vector) - h->awaited[vector];
	} while ((!seen || done < count) && poll(&pfd, 1, (int)h->options->await_ms) == 1);
	if (!seen || done != count || seen > count)
		r = harness_trouble(h,
				    seen && done <= count && seen <= count ? -ETIMEDOUT : -EPROTO,
				    "%u of %u copies are said to be complete, and vector %u was "
				    "signalled %llu times",
				    done, count, vector, (unsigned long long)seen);
	h->awaited[vector] += done;
	return r;
}

/* ---- watch it ---- */

uint64_t harness_signals(struct harness *h, uint32_t vector)
{
	return qsc_eventfd_drain(h->eventfds[vector]);
}

uint64_t harness_all_signals(struct harness *h)
{
	uint64_t sum = 0;

	for (uint32_t v = 0; v < HARNESS_VECTORS; v++)
		sum += harness_signals(h, v);
	return sum;
}

void harness_snapshot(struct harness *h)
{
	memcpy(h->shadow, h->memory, MEMORY_SIZE);
	memcpy(h->shadow + MEMORY_SIZE, h->peer, PEER_SIZE);
}

void harness_snapshot_queue(struct harness *h)
{
	memcpy(h->shadow + MEMORY_QUEUE, h->memory + MEMORY_QUEUE, QSC_CHECK_QUEUE_SIZE);
}

static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t size)
{
	if (memcmp(a, b, size) == 0)
		return size;
	for (uint64_t i = 0; i < size; i++)
		if (a[i] != b[i])
			return i;
	return size;
}

uint64_t harness_peer_changed(const struct harness *h)
{
	uint64_t at = first_difference(h->shadow + MEMORY_SIZE, h->peer, PEER_SIZE);

	return at < PEER_SIZE ? PEER_IOVA + at : 0;
}

uint64_t harness_changed(const struct harness *h)
{
	uint64_t at = first_difference(h->shadow, h->memory, MEMORY_SIZE);

	return at < MEMORY_SIZE ? MEMORY_IOVA + at : harness_peer_changed(h);
}

void harness_settle(struct harness *h)
{
	struct qsc_device_info info;
	struct qsc_region_info region;
	struct qsc_irq_info irq;
	struct qsc_migration_info migration;
	struct pollfd pfds[HARNESS_VECTORS];
	uint64_t size;

	for (int round = 0; round < 2; round++) {
		qsc_device_get_info(h->dev, &info);
		qsc_device_get_region_info(h->dev, 0, &region);
		qsc_device_get_irq_info(h->dev, h->irq_index, &irq);
		qsc_device_get_migration(h->dev, &migration);
		qsc_device_data_size(h->dev, &size);
		harness_state(h);
		for (size_t v = 0; v < HARNESS_VECTORS; v++)
			pfds[v] = (struct pollfd){.fd = h->eventfds[v], .events = POLLIN};
		if (!round)
			ppoll(pfds, HARNESS_VECTORS,
			      &(struct timespec){.tv_nsec = (long)h->options->settle_us * 1000},
			      NULL);
	}
}

int harness_log_start(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size)
{
	struct qsc_dma_range range = {iova, size};
	int r = qsc_device_log_start(h->dev, &page_size, &range, 1);

	return r ? harness_trouble(h, r, "the dirty log cannot be started") : 0;
}

int harness_log_report(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size,
		       uint64_t *bitmap)
{
	int r;

	memset(bitmap, 0, HARNESS_BITMAP_WORDS * sizeof(*bitmap));
	r = qsc_device_log_report(h->dev, iova, size, page_size, bitmap);
	return r ? harness_trouble(h, r, "the dirty log cannot be reported") : 0;
}
