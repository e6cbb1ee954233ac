/* SPDX-License-Identifier: MIT */
/* Holding a device: opening it, its memory and interrupts, states and streams. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "check/harness.h"

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

void harness_leave_out(struct harness *h, const char *fmt, ...)
{
	size_t used = strlen(h->left_out);
	va_list ap;

	if (used && used + 2 < sizeof(h->left_out)) {
		memcpy(h->left_out + used, "; ", 3);
		used += 2;
	}
	va_start(ap, fmt);
	(void)vsnprintf(h->left_out + used, sizeof(h->left_out) - used, fmt, ap);
	va_end(ap);
}

/* ---- streams ---- */

void saved_release(struct saved *stream)
{
	free(stream->data);
	*stream = (struct saved){0};
}

int saved_append(struct saved *stream, const void *data, size_t size)
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

/* ---- hold the device ---- */

/* The user before may not be gone yet; then the device is busy for as long as that takes. */
static int open_when_free(struct harness *h, struct qsc_device **dev, struct qsc_error *err)
{
	const struct timespec pause = {.tv_nsec = 2000000};
	uint32_t tries = h->options->await_ms / 2 + 1;
	int r;

	do {
		r = h->opener->open(h->opener->ctx, dev, err);
		if (r == -EBUSY)
			nanosleep(&pause, NULL);
	} while (r == -EBUSY && --tries);
	return r;
}

static int open_it(struct harness *h)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *inner;
	int r = h->silent == h->opener ? -ETIMEDOUT : open_when_free(h, &inner, &err);

	h->session = 0;
	h->dev = NULL;
	h->opened |= !r;
	h->unopened = -r;
	if (r == -ETIMEDOUT)
		h->silent = h->opener;
	if (r) {
		harness_trouble(h, r, "the device cannot be opened");
		if (err.text[0])
			(void)snprintf(h->trouble, sizeof(h->trouble),
				       "the device cannot be opened: %.1900s", err.text);
		return r;
	}
	h->kind = qsc_device_kind(inner);
	r = qsc_trace_open(inner, h->opener == &h->options->to ? "destination" : "device",
			   record_trace, &h->record, &h->dev);
	if (!r)
		return 0;
	h->dev = NULL;
	qsc_device_close(inner);
	if (h->opener->closed)
		h->opener->closed(h->opener->ctx);
	return harness_trouble(h, r, "the device cannot be watched");
}

int harness_open(struct harness *h)
{
	struct qsc_migration_info info;
	int r;

	if (!h->opener)
		h->opener = &h->options->device;
	r = open_it(h);
	if (r)
		return r;
	r = qsc_device_get_migration(h->dev, &info);
	if (r)
		return harness_trouble(h, r, "the device does not tell its migration flags");
	if (!qsc_flags_valid(info.flags))
		return harness_trouble(h, -EINVAL, "migration flags %u cannot be", info.flags);
	h->flags = info.flags;
	h->dirty_log = info.dirty_log;
	return 0;
}

bool harness_gone(struct harness *h)
{
	struct qsc_device_info info;
	int r = h->dev ? qsc_device_get_info(h->dev, &info) : 0;

	return r == -ENOTCONN || r == -ETIMEDOUT || r == -EPROTO;
}

void harness_let_go(struct harness *h)
{
	if (!h->dev)
		return;
	qsc_device_close(h->dev);
	h->dev = NULL;
	if (h->opener->closed)
		h->opener->closed(h->opener->ctx);
}

void harness_close(struct harness *h)
{
	if (h->dev && harness_state(h) == QSC_STATE_RESUMING)
		qsc_device_reset(h->dev);
	harness_let_go(h);
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

int harness_set_vectors(struct harness *h, bool listen)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = h->irq_index,
		.start = h->first_vector,
		.count = h->vectors,
		.fds = h->eventfds,
	};

	return listen ? qsc_device_set_irqs(h->dev, &set)
		      : qsc_device_set_eventfds(h->dev, h->irq_index, NULL, 0);
}

int harness_interrupts(struct harness *h)
{
	int r = h->vectors ? harness_set_vectors(h, true) : 0;

	return r ? harness_trouble(h, r, "interrupts cannot be set up") : 0;
}

int harness_no_interrupts(struct harness *h)
{
	int r = h->vectors ? harness_set_vectors(h, false) : 0;

	return r ? harness_trouble(h, r, "interrupts cannot be torn down") : 0;
}

int harness_reset(struct harness *h)
{
	int r = qsc_device_reset(h->dev);

	h->session = 0;
	return r ? harness_trouble(h, r, "a reset fails") : 0;
}

struct qsc_check_bench harness_bench(struct harness *h)
{
	return (struct qsc_check_bench){
		.dev = h->dev,
		.queue = h->memory + MEMORY_QUEUE,
		.queue_iova = MEMORY_IOVA + MEMORY_QUEUE,
		.pattern = h->memory + MEMORY_SOURCE,
		.pattern_iova = MEMORY_IOVA + MEMORY_SOURCE,
	};
}

/* Open, reset, map and set up. */
static int start(struct harness *h, const struct qsc_check_opener *opener)
{
	bool again;
	int r;

	harness_close(h);
	again = h->opener != &h->options->to || opener == &h->options->device;
	h->opener = opener;
	r = harness_open(h);
	/* Where it cannot be opened, what was done before may be why. */
	if (h->dev && again)
		record_clear(&h->record);
	if (!r)
		r = harness_reset(h);
	/* Left over only from a device that was not let go of (STATE-5). */
	if (!r) {
		qsc_device_dma_unmap(h->dev, MEMORY_IOVA, MEMORY_SIZE);
		qsc_device_dma_unmap(h->dev, PEER_IOVA, PEER_SIZE);
		r = harness_map(h);
	}
	return r ? r : harness_interrupts(h);
}

int harness_prepare(struct harness *h, const struct qsc_check_bench *bench)
{
	int r = h->exerciser->prepare(bench);

	return r ? harness_trouble(h, r, "the exerciser %s cannot prepare the device",
				   h->exerciser->name)
		 : 0;
}

int harness_start(struct harness *h)
{
	const struct qsc_exerciser *ex = h->exerciser;
	int r;

	/* Until it is let go of the device before may still write. */
	harness_close(h);
	memset(h->memory, 0, MEMORY_SOURCE);
	if (h->used) {
		memset(h->memory + MEMORY_TARGET, 0, TARGET_SIZE);
		memset(h->peer, 0, PEER_SIZE);
	}
	h->used = false;
	r = start(h, &h->options->device);
	harness_all_signals(h);
	memset(h->awaited, 0, sizeof(h->awaited));
	if (!r && ex && ex->prepare && !h->unprepared[0]) {
		struct qsc_check_bench bench = harness_bench(h);

		r = harness_prepare(h, &bench);
	}
	/* Every try begins like that; what went wrong in it is what matters else. */
	if (!r) {
		record_clear(&h->record);
		record_add(&h->record,
			   ex && ex->prepare && !h->unprepared[0]
				   ? "device opened, reset, given memory, interrupts and a "
				     "queue of work"
				   : "device opened, reset, given memory and interrupts");
	}
	return r;
}

int harness_start_there(struct harness *h)
{
	int r;

	if (!h->options->to.open)
		return harness_start(h);
	r = start(h, &h->options->to);
	harness_all_signals(h);
	return r;
}

/* ---- states ---- */

bool harness_has(const struct harness *h, uint32_t state)
{
	return qsc_state_exists(h->flags, state) &&
	       (state != QSC_STATE_ERROR || h->error_reachable);
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

/* The estimate fails in ERROR, and so does every request; a request for the true state does not. */
bool harness_tells_truth(struct harness *h, enum qsc_state state)
{
	bool failed = state == QSC_STATE_ERROR;
	uint64_t size;

	return failed == (qsc_device_data_size(h->dev, &size) == -EIO) &&
	       failed == (harness_request(h, state) != 0);
}

int harness_start_in(struct harness *h, enum qsc_state state)
{
	int r = harness_start(h);

	return r ? r : harness_enter(h, state);
}

/* ---- streams ---- */

int harness_read(struct harness *h, struct saved *stream)
{
	qsc_autofree uint8_t *piece = malloc(STREAM_PIECE);

	for (;;) {
		ssize_t n = piece ? qsc_device_session_read(h->dev, h->session, piece, STREAM_PIECE)
				  : -ENOMEM;

		if (n <= 0)
			return (int)n;
		if (saved_append(stream, piece, (size_t)n) || stream->size > STREAM_SIZE_MAX)
			return -EFBIG;
	}
}

int harness_save(struct harness *h, struct saved *stream)
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

		if (n <= 0 || (size_t)n > part)
			return harness_trouble(h, n < 0 ? (int)n : -EPROTO,
					       "a stream cannot be written");
		bytes += n;
		size -= (size_t)n;
	}
	return 0;
}

/* Not afresh where the device is its own destination: what the user set up there is still his. */
int harness_load(struct harness *h, const struct saved *stream)
{
	int r = h->options->to.open ? start(h, &h->options->to) : harness_reset(h);

	if (!r)
		r = harness_set(h, QSC_STATE_RESUMING);
	if (r)
		return r;
	r = harness_write(h, stream->data, stream->size, STREAM_PIECE);
	if (r)
		return harness_trouble(h, r, "a stream of its own is not taken");
	return harness_set(h, QSC_STATE_STOP);
}

int harness_blank(struct harness *h, struct saved *stream)
{
	int r = harness_reset(h);

	if (!r)
		r = harness_save(h, stream);
	return r ? r : harness_reset(h);
}
