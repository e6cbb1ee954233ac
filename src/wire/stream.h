/* SPDX-License-Identifier: MIT */
/*
 * From a byte stream with file descriptors to whole messages. The owner receives into the space
 * that qsc_wire_stream_space() names and reports what came; any split of any message is the same. A
 * file descriptor belongs to the message in which the last byte of the receive that brought it
 * lies: a kernel never glues the bytes that follow a control message to it.
 *
 * A message is first *scanned*, in order, then either taken out at once or kept in the buffer until
 * its turn comes: a reply may have to be found behind commands that wait. Messages may be looked at
 * and dropped while a receive is under way; everything else is for whoever receives. Nothing is
 * allocated; descriptors are passed through, never closed here.
 */
#ifndef QSC_WIRE_STREAM_H
#define QSC_WIRE_STREAM_H

#include "wire/wire.h"

/* As many as a kernel lets one control message hold (SCM_MAX_FD). */
#define QSC_STREAM_MAX_FDS 253

struct qsc_wire_stream {
	uint8_t *buffer;
	size_t capacity;
	uint32_t max_message;
	size_t head; /* start of the first message that is kept */
	size_t scan; /* start of the first message not yet scanned */
	size_t end;  /* after the last byte received */
	size_t num_fds;
	struct {
		size_t start; /* of the message it belongs to */
		int fd;
	} fds[QSC_STREAM_MAX_FDS];
};

/* A message as it lies in the buffer; valid until space is asked for or it is dropped. */
struct qsc_message {
	struct qsc_wire_header header;
	const uint8_t *body;
	size_t size;  /* of the body */
	size_t start; /* in the buffer */
};

/* max_message is at most capacity. */
void qsc_wire_stream_init(struct qsc_wire_stream *stream, void *buffer, size_t capacity,
			  uint32_t max_message);

/*
 * Where to receive and how much. With `pinned` nothing that is kept is moved. 0 when kept messages
 * leave no space.
 */
size_t qsc_wire_stream_space(struct qsc_wire_stream *stream, bool pinned, void **where);

/* `size` bytes came there, with these descriptors. -EPROTO: too many, all still the caller's. */
int qsc_wire_stream_received(struct qsc_wire_stream *stream, size_t size, const int *fds,
			     size_t num_fds);

/* Whether a message has begun and not ended. */
static inline bool qsc_wire_stream_partial(const struct qsc_wire_stream *stream)
{
	return stream->end > stream->scan;
}

/* Scan the next whole message: 1, 0 when more must come first, -EPROTO for what is none. */
int qsc_wire_stream_scan(struct qsc_wire_stream *stream, struct qsc_message *message);

/* Look at a message that has begun: 1 when its header is there, else 0, or -EPROTO. */
int qsc_wire_stream_peek(const struct qsc_wire_stream *stream, struct qsc_message *message);

/*
 * The begun message is taken out as far as it came; who took it receives the rest of it elsewhere.
 */
void qsc_wire_stream_divert(struct qsc_wire_stream *stream);

/* The first message that is kept: 1, or 0 for none. */
int qsc_wire_stream_first(struct qsc_wire_stream *stream, struct qsc_message *message);

/* A scanned message is done with. */
void qsc_wire_stream_drop(struct qsc_wire_stream *stream, const struct qsc_message *message);

/* Hand over the descriptors of a message: at most max, how many in the result. */
size_t qsc_wire_stream_take_fds(struct qsc_wire_stream *stream, size_t start, int *fds, size_t max);

/* Hand over any descriptor that is left, whatever it belongs to; -1 when there is none. */
int qsc_wire_stream_take_any_fd(struct qsc_wire_stream *stream);

#endif
