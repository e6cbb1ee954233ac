/* SPDX-License-Identifier: MIT */
/*
 * Receiving. Who does it holds the leader's role, and only it touches the free end of the receive
 * buffer; the lock is let go of meanwhile. It deals with every message that came: a reply goes to
 * its call, a command to the callback, or it is kept until somebody asks for it.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "rpc/internal.h"

/* Below this a second copy is cheaper than a second receive. */
#define DIRECT_MIN 8192U

void qsc_rpc_promote(struct qsc_rpc *rpc)
{
	if (rpc->waiting)
		pthread_cond_signal(&rpc->turn[__builtin_ctzll(rpc->waiting)]);
	else if (rpc->idlers)
		pthread_cond_broadcast(&rpc->idle);
}

/* The call that a reply answers, when it is one that a call can have. */
static struct qsc_call *find_call(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct qsc_call *call = rpc->calls[message->header.id & QSC_RPC_SLOT_MASK];

	if (!call || call->done || call->id != message->header.id ||
	    call->command != message->header.command)
		return NULL;
	if (message->header.flags & QSC_WIRE_ERROR)
		return call;
	if (message->size < call->min_size || message->size > call->fixed_size + call->data_max)
		return NULL;
	return call;
}

static void complete(struct qsc_rpc *rpc, struct qsc_call *call)
{
	call->done = true;
	if (rpc->waiting >> call->slot & 1)
		pthread_cond_signal(&rpc->turn[call->slot]);
}

static int malformed(const struct qsc_message *message)
{
	qsc_log(QSC_LOG_WARNING,
		"vfio-user: a reply (%s, id %u, %u bytes) fits no request; the connection is "
		"closed",
		qsc_wire_command_name(message->header.command), message->header.id,
		message->header.size);
	return -EPROTO;
}

/* Lock held. Copy what is there of a reply's body into place. */
static void place(struct qsc_call *call, const uint8_t *body, size_t size)
{
	size_t fixed = qsc_min_u64(size, call->fixed_size);

	if (fixed)
		memcpy(call->fixed, body, fixed);
	if (size > fixed)
		memcpy(call->data, body + fixed, size - fixed);
}

/* Lock held. */
static int deliver(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct qsc_call *call = find_call(rpc, message);
	size_t taken;
	int fd;

	if (!call)
		return malformed(message);
	if (message->header.flags & QSC_WIRE_ERROR) {
		call->result = qsc_wire_reply_error(&message->header);
	} else {
		place(call, message->body, message->size);
		call->body = message->size;
		if (rpc->stream.num_fds && call->max_fds) {
			taken = qsc_wire_stream_take_fds(&rpc->stream, message->start,
							 call->fds + call->num_fds,
							 call->max_fds - call->num_fds);
			call->num_fds += taken;
		}
	}
	while (rpc->stream.num_fds &&
	       qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	complete(rpc, call);
	return 0;
}

/* Lock held, leading. A command, for a callback: without the lock, where the message lies. */
static int hand_over(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	int result;
	int fd;

	while (qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	pthread_mutex_unlock(&rpc->lock);
	result = rpc->command(rpc->ctx, rpc, message);
	pthread_mutex_lock(&rpc->lock);
	return result;
}

/* Lock held, leading. Without a callback it is kept until it is asked for. */
static int take_command(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	int result = 0;

	rpc->peer_promised = rpc->trusting && (message->header.flags & QSC_WIRE_PLAIN);
	if (rpc->command) {
		result = hand_over(rpc, message);
		qsc_wire_stream_drop(&rpc->stream, message);
	} else if (rpc->idlers) {
		pthread_cond_broadcast(&rpc->idle);
	}
	return result;
}

/* Lock held, leading: deal with every message that is whole. */
static int dispatch(struct qsc_rpc *rpc)
{
	struct qsc_message message;
	bool scanned = false;
	int result = 0;

	while (qsc_wire_stream_partial(&rpc->stream) &&
	       (result = qsc_wire_stream_scan(&rpc->stream, &message)) > 0) {
		scanned = true;
		if ((message.header.flags & QSC_WIRE_TYPE_MASK) == QSC_WIRE_TYPE_REPLY) {
			result = deliver(rpc, &message);
			qsc_wire_stream_drop(&rpc->stream, &message);
		} else {
			result = take_command(rpc, &message);
		}
		if (result < 0)
			break;
	}
	if (!qsc_wire_stream_partial(&rpc->stream))
		rpc->partial_us = 0;
	else if (scanned || !rpc->partial_us)
		rpc->partial_us = qsc_rpc_now_us();
	return result < 0 ? result : 0;
}

/* Lock held. A long reply has begun whose data can be received where they belong. */
static struct qsc_call *find_direct(struct qsc_rpc *rpc, struct qsc_message *message)
{
	struct qsc_wire_stream *stream = &rpc->stream;
	struct qsc_call *call;

	if (!rpc->receive_max || qsc_wire_stream_peek(stream, message) <= 0 ||
	    (message->header.flags & (QSC_WIRE_TYPE_MASK | QSC_WIRE_ERROR)) != QSC_WIRE_TYPE_REPLY)
		return NULL;
	if (message->header.size - (stream->end - stream->scan) < DIRECT_MIN)
		return NULL;
	call = find_call(rpc, message);
	if (!call || stream->end - stream->scan < QSC_WIRE_HEADER_SIZE + call->fixed_size)
		return NULL;
	return call;
}

/* Lock held, leading; the lock is let go of meanwhile. */
static int receive_direct(struct qsc_rpc *rpc, struct qsc_call *call,
			  const struct qsc_message *message)
{
	struct qsc_rpc_input input = {.size = 0};
	size_t present = rpc->stream.end - rpc->stream.scan - QSC_WIRE_HEADER_SIZE;
	uint64_t deadline_us = rpc->partial_us + (uint64_t)rpc->message_timeout_ms * 1000;
	size_t size = message->size;
	bool timed = rpc->watching && rpc->message_timeout_ms >= rpc->call_timeout_ms;
	int result = 0;
	int fd;

	place(call, message->body, present);
	while (qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	qsc_wire_stream_divert(&rpc->stream);
	call->diverted = true;
	pthread_mutex_unlock(&rpc->lock);
	while (!result && present < size) {
		void *where = (char *)call->data + (present - call->fixed_size);

		/* The watchdog minds the call's own deadline, and that is no later. */
		result = qsc_rpc_receive(rpc, where, size - present, true, timed ? 0 : deadline_us,
					 &input);
		if (!result) {
			present += input.size;
			qsc_rpc_close_fds(input.fds, input.num_fds);
		}
	}
	pthread_mutex_lock(&rpc->lock);
	call->diverted = false;
	rpc->ended |= input.ended;
	rpc->partial_us = 0;
	if (result < 0) {
		if (rpc->waiting >> call->slot & 1)
			pthread_cond_signal(&rpc->turn[call->slot]);
		return result;
	}
	call->body = size;
	complete(rpc, call);
	return 0;
}

/* Lock held. How much to receive, and where to. */
static size_t choose_space(struct qsc_rpc *rpc, void **where)
{
	size_t space = qsc_wire_stream_space(&rpc->stream, rpc->pinned, where);
	struct qsc_message message;
	size_t wanted = rpc->receive_max;

	if (!wanted)
		return space;
	if (qsc_wire_stream_partial(&rpc->stream) &&
	    qsc_wire_stream_peek(&rpc->stream, &message) > 0)
		wanted += message.header.size - (rpc->stream.end - rpc->stream.scan);
	return qsc_min_u64(space, wanted);
}

int qsc_rpc_prepare_receive(struct qsc_rpc *rpc, uint64_t until, void **where, size_t *size)
{
	struct qsc_message message;
	struct qsc_call *direct;

	rpc->plain = !rpc->taking_fds && (rpc->no_command_fds || rpc->peer_promised);
	direct = qsc_wire_stream_partial(&rpc->stream) ? find_direct(rpc, &message) : NULL;
	if (direct)
		return receive_direct(rpc, direct, &message);
	*size = choose_space(rpc, where);
	if (*size)
		return 1;
	/* Commands fill the buffer; their turn must come first. */
	return qsc_rpc_wait_idle(rpc, until) ? -ETIMEDOUT : 0;
}

int qsc_rpc_received(struct qsc_rpc *rpc, struct qsc_rpc_input *input)
{
	int result = qsc_wire_stream_received(&rpc->stream, input->size, input->fds,
					      input->num_fds);

	if (!result)
		return dispatch(rpc);
	qsc_rpc_close_fds(input->fds, input->num_fds);
	return result;
}

int qsc_rpc_next(struct qsc_rpc *rpc, uint64_t deadline_us, struct qsc_message *message,
		 const int **fds, size_t *num_fds)
{
	int result = 0;

	qsc_rpc_close_fds(rpc->held_fds, rpc->num_held);
	rpc->num_held = 0;
	pthread_mutex_lock(&rpc->lock);
	if (rpc->pinned) {
		rpc->pinned = false;
		qsc_wire_stream_drop(&rpc->stream, &rpc->current);
		if (rpc->idlers)
			pthread_cond_broadcast(&rpc->idle);
	}
	while (!qsc_wire_stream_first(&rpc->stream, message) && !result) {
		if (qsc_rpc_broken(rpc))
			result = -ENOTCONN;
		else if (rpc->leading)
			result = qsc_rpc_wait_idle(rpc, deadline_us) ? -ETIMEDOUT : 0;
		else
			result = qsc_rpc_lead(rpc, deadline_us);
	}
	if (result < 0) {
		qsc_rpc_break_off(rpc);
	} else {
		rpc->pinned = true;
		rpc->current = *message;
		rpc->num_held = qsc_wire_stream_take_fds(&rpc->stream, message->start,
							 rpc->held_fds, QSC_STREAM_MAX_FDS);
		*fds = rpc->held_fds;
		*num_fds = rpc->num_held;
		if (!rpc->leading && rpc->waiting)
			qsc_rpc_promote(rpc);
	}
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

/* Lock held: sleep until something has come and nobody else is about to receive it. */
static void wait_readable(struct qsc_rpc *rpc)
{
	struct pollfd poll_fd = {.fd = rpc->fd, .events = POLLIN};
	int timeout = rpc->partial_us ? (int)rpc->message_timeout_ms : -1;

	if (rpc->leading || rpc->busy) {
		qsc_rpc_wait_idle(rpc, 0);
		return;
	}
	pthread_mutex_unlock(&rpc->lock);
	poll(&poll_fd, 1, timeout);
	pthread_mutex_lock(&rpc->lock);
}

void qsc_rpc_serve(struct qsc_rpc *rpc, bool shared)
{
	int result;

	pthread_mutex_lock(&rpc->lock);
	while (!qsc_rpc_broken(rpc)) {
		if (shared) {
			wait_readable(rpc);
			if (rpc->leading || rpc->busy || qsc_rpc_broken(rpc))
				continue;
		}
		/* Any past moment: take what is there. */
		result = qsc_rpc_lead(rpc, shared ? 1 : 0);
		if (result < 0 && result != -ETIMEDOUT)
			qsc_rpc_break_off(rpc);
		else if (shared)
			qsc_rpc_promote(rpc);
		else if (result < 0)
			wait_readable(rpc);
	}
	pthread_mutex_unlock(&rpc->lock);
}
