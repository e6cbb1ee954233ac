/* SPDX-License-Identifier: MIT */
/* Holding a device: memory, interrupts, states and streams. */
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "base/bitmap.h"
#include "base/fd.h"
#include "clause.h"

#define STREAM_PIECE	65536
#define STREAM_SIZE_MAX (64U << 20)

int harness_trouble(struct harness *h, int error, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(h->trouble, sizeof(h->trouble), fmt, ap);
	va_end(ap);
	if (n >= 0 && (size_t)n < sizeof(h->trouble))
		snprintf(h->trouble + n, sizeof(h->trouble) - (size_t)n, ": %s", strerror(-error));
	return error;
}

/* ---- streams ---- */

void stream_release(struct stream *stream)
{
	free(stream->data);
	*stream = (struct stream){0};
}

int stream_append(struct stream *stream, const void *data, size_t size)
{
	if (size > stream->room - stream->size) {
		size_t room = (stream->size + size) * 2;
		uint8_t *grown = realloc(stream->data, room);

		if (!grown)
			return -ENOMEM;
		stream->data = grown;
		stream->room = room;
	}
	if (size)
		memcpy(stream->data + stream->size, data, size);
	stream->size += size;
	return 0;
}

/* ---- the harness itself ---- */

static int shared_memory(const char *name, uint64_t size, int *fd, uint8_t **memory)
{
	void *addr;

	*fd = qsc_fd_memory(name, size);
	if (*fd < 0)
		return *fd;
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (addr == MAP_FAILED)
		return -errno;
	*memory = addr;
	return 0;
}

int harness_init(struct harness *h)
{
	int r = shared_memory("clause-memory", MEMORY_SIZE, &h->memory_fd, &h->memory);

	h->peer_fd = -1;
	for (size_t i = 0; i < HARNESS_VECTORS; i++)
		h->eventfds[i] = -1;
	if (!r)
		r = shared_memory("clause-peer", PEER_SIZE, &h->peer_fd, &h->peer);
	for (size_t i = 0; !r && i < HARNESS_VECTORS; i++) {
		h->eventfds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (h->eventfds[i] < 0)
			r = -errno;
	}
	h->shadow = malloc(MEMORY_SIZE + PEER_SIZE);
	if (!r && !h->shadow)
		r = -ENOMEM;
	if (r)
		return r;
	/* No two pages alike, and no byte equal to the zeroes of what is copied to. */
	for (uint64_t i = MEMORY_SOURCE; i < MEMORY_TARGET; i++)
		h->memory[i] = (uint8_t)(1 + (i * 7 + (i >> 12) * 13) % 255);
	return 0;
}

void harness_release(struct harness *h)
{
	if (h->memory)
		munmap(h->memory, MEMORY_SIZE);
	if (h->peer)
		munmap(h->peer, PEER_SIZE);
	qsc_fd_close(&h->memory_fd);
	qsc_fd_close(&h->peer_fd);
	for (size_t i = 0; i < HARNESS_VECTORS; i++)
		qsc_fd_close(&h->eventfds[i]);
	free(h->shadow);
}

/* ---- hold the device ---- */

int harness_open(struct harness *h)
{
	struct qsc_migration_info info;
	int r = h->opener->open(h->opener->ctx, &h->dev);

	h->session = 0;
	if (r) {
		h->dev = NULL;
		return harness_trouble(h, r, "the device cannot be opened");
	}
	r = qsc_device_get_migration(h->dev, &info);
	if (r)
		return harness_trouble(h, r, "the device does not tell its migration flags");
	if (!qsc_flags_valid(info.flags))
		return harness_trouble(h, -EINVAL, "migration flags %u cannot be", info.flags);
	h->flags = info.flags;
	h->dirty_log = info.dirty_log;
	return 0;
}

void harness_close(struct harness *h)
{
	if (h->dev)
		h->opener->close(h->opener->ctx, h->dev);
	h->dev = NULL;
}

/*
 * The memory is passed as a file only: a device in this process then has a mapping of its own,
 * as one in another process has.
 */
int harness_map(struct harness *h)
{
	struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = h->memory_fd,
	};
	int r = qsc_device_dma_map(h->dev, &mapping);

	if (r)
		return harness_trouble(h, r, "memory cannot be mapped for DMA");
	mapping.iova = PEER_IOVA;
	mapping.size = PEER_SIZE;
	mapping.flags |= QSC_DMA_PEER;
	mapping.fd = h->peer_fd;
	r = qsc_device_dma_map(h->dev, &mapping);
	return r ? harness_trouble(h, r, "a peer's memory cannot be mapped for DMA") : 0;
}

int harness_interrupts(struct harness *h)
{
	int r = qsc_device_set_eventfds(h->dev, h->exerciser->irq_index, h->eventfds,
					HARNESS_VECTORS);

	return r ? harness_trouble(h, r, "interrupts cannot be set up") : 0;
}

int harness_no_interrupts(struct harness *h)
{
	int r = qsc_device_set_eventfds(h->dev, h->exerciser->irq_index, NULL, 0);

	return r ? harness_trouble(h, r, "interrupts cannot be torn down") : 0;
}

int harness_reset(struct harness *h)
{
	int r = qsc_device_reset(h->dev);

	h->session = 0;
	return r ? harness_trouble(h, r, "reset failed") : 0;
}

int harness_start(struct harness *h)
{
	int r;

	harness_close(h);
	memset(h->memory, 0, MEMORY_SOURCE);
	if (h->used) {
		memset(h->memory + MEMORY_TARGET, 0, TARGET_SIZE);
		memset(h->peer, 0, PEER_SIZE);
	}
	h->used = false;
	r = harness_open(h);
	if (!r)
		r = harness_reset(h);
	/* Left over only from a device that was not let go of (STATE-5). */
	if (!r) {
		qsc_device_dma_unmap(h->dev, MEMORY_IOVA, MEMORY_SIZE);
		qsc_device_dma_unmap(h->dev, PEER_IOVA, PEER_SIZE);
		r = harness_map(h);
	}
	if (!r)
		r = harness_interrupts(h);
	harness_all_signals(h);
	if (!r)
		r = h->exerciser->prepare(h);
	return r;
}

/* ---- states ---- */

bool harness_has(const struct harness *h, uint32_t state)
{
	return qsc_state_exists(h->flags, state);
}

enum qsc_state harness_state(struct harness *h)
{
	enum qsc_state state;

	return qsc_device_get_state(h->dev, &state) ? (enum qsc_state)QSC_STATE_COUNT : state;
}

int harness_request(struct harness *h, uint32_t target)
{
	uint64_t session = 0;
	int r = qsc_device_set_state(h->dev, target, &session);

	if (!r && session)
		h->session = session;
	return r;
}

int harness_set(struct harness *h, enum qsc_state target)
{
	enum qsc_state from = harness_state(h);
	int r = harness_request(h, target);

	return r ? harness_trouble(h, r, "the device cannot go from %s to %s", qsc_state_name(from),
				   qsc_state_name(target))
		 : 0;
}

int harness_enter(struct harness *h, enum qsc_state state)
{
	static const char nonsense[4096] = "this is no state of any device";
	int r;

	if (state == QSC_STATE_RUNNING)
		return 0;
	if (state != QSC_STATE_ERROR)
		return harness_set(h, state);
	r = harness_set(h, QSC_STATE_RESUMING);
	if (r)
		return r;
	harness_write(h, nonsense, sizeof(nonsense), sizeof(nonsense));
	harness_request(h, QSC_STATE_STOP);
	if (harness_state(h) != QSC_STATE_ERROR)
		return harness_trouble(h, -EPROTO, "loading nonsense does not lead to ERROR");
	return 0;
}

int harness_start_in(struct harness *h, enum qsc_state state)
{
	int r = harness_start(h);

	return r ? r : harness_enter(h, state);
}

/* ---- streams ---- */

int harness_read(struct harness *h, struct stream *stream)
{
	static uint8_t piece[STREAM_PIECE];

	for (;;) {
		ssize_t n = qsc_device_session_read(h->dev, h->session, piece, sizeof(piece));

		if (n <= 0)
			return (int)n;
		if (stream_append(stream, piece, (size_t)n) || stream->size > STREAM_SIZE_MAX)
			return -EFBIG;
	}
}

int harness_save(struct harness *h, struct stream *stream)
{
	int r = harness_set(h, QSC_STATE_STOP_COPY);

	if (r)
		return r;
	r = harness_read(h, stream);
	if (!r && !stream->size)
		r = -ENODATA;
	return r ? harness_trouble(h, r, "the device's state cannot be read to its end") : 0;
}

int harness_write(struct harness *h, const void *data, size_t size, size_t piece)
{
	const uint8_t *bytes = data;

	while (size) {
		size_t part = size < piece ? size : piece;
		ssize_t n = qsc_device_session_write(h->dev, h->session, bytes, part);

		if (n < 0)
			return (int)n;
		if (n == 0 || (size_t)n > part)
			return -EPROTO;
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

int harness_load(struct harness *h, const struct stream *stream)
{
	int r = harness_reset(h);

	if (!r)
		r = harness_set(h, QSC_STATE_RESUMING);
	if (r)
		return r;
	r = harness_write(h, stream->data, stream->size, STREAM_PIECE);
	if (r)
		return harness_trouble(h, r, "a stream of its own is not taken");
	return harness_set(h, QSC_STATE_STOP);
}

int harness_blank(struct harness *h, struct stream *stream)
{
	int r = harness_reset(h);

	if (!r)
		r = harness_save(h, stream);
	return r ? r : harness_reset(h);
}

/* ---- make it do things ---- */

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

int harness_register_read(struct harness *h, uint64_t *value)
{
	ssize_t n = qsc_device_region_read(h->dev, h->exerciser->register_region,
					   h->exerciser->register_offset, value, sizeof(*value));

	return n == sizeof(*value)
		       ? 0
		       : harness_trouble(h, n < 0 ? (int)n : -EPROTO, "a register cannot be read");
}

int harness_register_write(struct harness *h, uint64_t value)
{
	ssize_t n = qsc_device_region_write(h->dev, h->exerciser->register_region,
					    h->exerciser->register_offset, &value, sizeof(value));

	return n == sizeof(value) ? 0
				  : harness_trouble(h, n < 0 ? (int)n : -EPROTO,
						    "a register cannot be written");
}

static uint64_t copy_source(uint64_t i, uint32_t size)
{
	return MEMORY_SOURCE + i * size % (MEMORY_TARGET - MEMORY_SOURCE - size + 1);
}

int harness_submit(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector)
{
	int r = 0;

	for (uint32_t i = 0; !r && i < count; i++) {
		struct exercise_copy copy = {MEMORY_IOVA + copy_source(i, size),
					     iova + (uint64_t)i * size, size, vector};

		r = h->exerciser->submit(h, &copy);
		h->used = true;
	}
	return r;
}

int harness_copy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector)
{
	int r = harness_submit(h, iova, count, size, vector);

	return r ? r : h->exerciser->kick(h);
}

bool harness_copied(const struct harness *h, uint64_t iova, uint32_t count, uint32_t size)
{
	const uint8_t *target = iova >= PEER_IOVA ? h->peer + (iova - PEER_IOVA)
						  : h->memory + (iova - MEMORY_IOVA);

	for (uint32_t i = 0; i < count; i++)
		if (memcmp(target + (uint64_t)i * size, h->memory + copy_source(i, size), size) !=
		    0)
			return false;
	return true;
}

int harness_trigger(struct harness *h, uint32_t vector, uint32_t times)
{
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = h->exerciser->irq_index,
		.start = vector,
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

	while (seen < count && poll(&pfd, 1, (int)h->await_ms) == 1)
		seen += harness_signals(h, vector);
	if (seen == count)
		return 0;
	return harness_trouble(h, seen < count ? -ETIMEDOUT : -EOVERFLOW,
			       "vector %u was signalled %llu times instead of %llu", vector,
			       (unsigned long long)seen, (unsigned long long)count);
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
		qsc_device_get_region_info(h->dev, h->exerciser->memory_region, &region);
		qsc_device_get_irq_info(h->dev, h->exerciser->irq_index, &irq);
		qsc_device_get_migration(h->dev, &migration);
		qsc_device_data_size(h->dev, &size);
		harness_state(h);
		for (size_t v = 0; v < HARNESS_VECTORS; v++)
			pfds[v] = (struct pollfd){.fd = h->eventfds[v], .events = POLLIN};
		if (!round)
			ppoll(pfds, HARNESS_VECTORS,
			      &(struct timespec){.tv_nsec = (long)h->settle_us * 1000}, NULL);
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
