/* SPDX-License-Identifier: MIT */
/* See stream.h. */
#include "wire/stream.h"

#include <errno.h>
#include <string.h>

void qsc_wire_stream_init(struct qsc_wire_stream *stream, void *buffer, size_t capacity,
			  uint32_t max_message)
{
	memset(stream, 0, sizeof(*stream));
	stream->buffer = buffer;
	stream->capacity = capacity;
	stream->max_message = max_message;
}

/* Forget messages at the front that are done with. */
static void advance(struct qsc_wire_stream *stream)
{
	struct qsc_wire_header header;

	while (stream->head < stream->scan) {
		memcpy(&header, stream->buffer + stream->head, sizeof(header));
		if (header.command != QSC_WIRE_NONE)
			break;
		stream->head += header.size;
	}
}

size_t qsc_wire_stream_space(struct qsc_wire_stream *stream, bool pinned, void **where)
{
	size_t shift = stream->head;
	size_t i;

	/* Only here: between here and qsc_stream_received() the end must stay where it is. */
	if (stream->head == stream->end)
		stream->head = stream->scan = stream->end = shift = 0;
	/* Moving is rare: only when the rest of the largest message might not fit. */
	if (!pinned && shift && stream->capacity - stream->scan < stream->max_message) {
		memmove(stream->buffer, stream->buffer + shift, stream->end - shift);
		stream->head = 0;
		stream->scan -= shift;
		stream->end -= shift;
		for (i = 0; i < stream->num_fds; i++)
			stream->fds[i].start -= shift;
	}
	*where = stream->buffer + stream->end;
	return stream->capacity - stream->end;
}

/* Where the message begins in which the last byte received lies. */
static size_t last_start(const struct qsc_wire_stream *stream)
{
	struct qsc_wire_header header;
	size_t start = stream->scan;

	while (stream->end - start >= sizeof(header)) {
		if (qsc_wire_decode_header(stream->buffer + start, stream->max_message, &header) <
			    0 ||
		    stream->end - start <= header.size)
			break;
		start += header.size;
	}
	return start;
}

int qsc_wire_stream_received(struct qsc_wire_stream *stream, size_t size, const int *fds,
			     size_t num_fds)
{
	size_t start;
	size_t i;

	stream->end += size;
	if (!num_fds)
		return 0;
	if (num_fds > QSC_STREAM_MAX_FDS - stream->num_fds)
		return -EPROTO;
	start = last_start(stream);
	for (i = 0; i < num_fds; i++) {
		stream->fds[stream->num_fds].start = start;
		stream->fds[stream->num_fds++].fd = fds[i];
	}
	return 0;
}

static void view(const struct qsc_wire_stream *stream, size_t start, struct qsc_message *message)
{
	message->start = start;
	message->body = stream->buffer + start + QSC_WIRE_HEADER_SIZE;
	message->size = message->header.size - QSC_WIRE_HEADER_SIZE;
}

int qsc_wire_stream_peek(const struct qsc_wire_stream *stream, struct qsc_message *message)
{
	size_t present = stream->end - stream->scan;

	if (present < QSC_WIRE_HEADER_SIZE)
		return 0;
	if (qsc_wire_decode_header(stream->buffer + stream->scan, stream->max_message,
				   &message->header) < 0)
		return -EPROTO;
	view(stream, stream->scan, message);
	return 1;
}

int qsc_wire_stream_scan(struct qsc_wire_stream *stream, struct qsc_message *message)
{
	int result = qsc_wire_stream_peek(stream, message);

	if (result <= 0)
		return result;
	if (stream->end - stream->scan < message->header.size)
		return 0;
	/* It marks what is done with; a peer that sends it has no command. */
	if (message->header.command == QSC_WIRE_NONE)
		return -EPROTO;
	stream->scan += message->header.size;
	return 1;
}

void qsc_wire_stream_divert(struct qsc_wire_stream *stream)
{
	stream->end = stream->scan;
}

int qsc_wire_stream_first(struct qsc_wire_stream *stream, struct qsc_message *message)
{
	advance(stream);
	if (stream->head == stream->scan)
		return 0;
	memcpy(&message->header, stream->buffer + stream->head, sizeof(message->header));
	view(stream, stream->head, message);
	return 1;
}

void qsc_wire_stream_drop(struct qsc_wire_stream *stream, const struct qsc_message *message)
{
	const uint16_t none = QSC_WIRE_NONE;

	memcpy(stream->buffer + message->start + offsetof(struct qsc_wire_header, command), &none,
	       sizeof(none));
	if (message->start == stream->head)
		advance(stream);
}

size_t qsc_wire_stream_take_fds(struct qsc_wire_stream *stream, size_t start, int *fds, size_t max)
{
	size_t taken = 0;
	size_t kept = 0;
	size_t i;

	for (i = 0; i < stream->num_fds; i++) {
		if (stream->fds[i].start == start && taken < max)
			fds[taken++] = stream->fds[i].fd;
		else
			stream->fds[kept++] = stream->fds[i];
	}
	stream->num_fds = kept;
	return taken;
}

int qsc_wire_stream_take_any_fd(struct qsc_wire_stream *stream)
{
	return stream->num_fds ? stream->fds[--stream->num_fds].fd : -1;
}
