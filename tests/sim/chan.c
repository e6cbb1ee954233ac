/* SPDX-License-Identifier: MIT */
/* See chan.h. */
#include "chan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "baton.h"

#include "base/cleanup.h"

/* Small, so that senders wait, and large enough for the last words of either side. */
#define PIPE_BYTES  8192
#define FIRST_BYTES 40 /* as the real listener waits for */
#define BYTES_A_US  10 /* how fast a connection is */

struct pipe {
	uint8_t bytes[PIPE_BYTES];
	size_t head;
	size_t used;
	bool closed; /* nothing more goes in */
};

/* A connection: two channels, two pipes. */
struct sim_wire {
	struct sim_net *net;
	struct sim_wire *next;
	struct end {
		struct qsc_channel base;
		struct sim_wire *wire;
		uint32_t side;
		uint32_t stall_ms;
		uint64_t deadline_us;
	} ends[2];
	struct pipe pipes[2]; /* [side]: what that side sends */
	bool stalled;
};

static struct end *end_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct end, base);
}

/* ---- what happens to a connection ---- */

static void close_wire(struct sim_wire *wire)
{
	wire->pipes[0].closed = true;
	wire->pipes[1].closed = true;
}

/* `bytes` are on their way in; NULL at other times. */
static void maybe_fault(struct sim_wire *wire, uint8_t *bytes, size_t size)
{
	struct sim_net *net = wire->net;

	if (!net->countdown || --net->countdown)
		return;
	net->faulted = true;
	sim_note('c', net->fault);
	switch (net->fault) {
	case SIM_CHAN_CUT:
		close_wire(wire);
		/* What was on its way may be lost or not. */
		if (sim_random(2))
			wire->pipes[0].used = wire->pipes[1].used = 0;
		break;
	case SIM_CHAN_STALL:
		wire->stalled = true;
		break;
	case SIM_CHAN_CORRUPT:
		if (bytes)
			bytes[sim_random(size)] ^= (uint8_t)(1U << sim_random(8));
		else
			net->countdown = 1;
		break;
	default:
		break;
	}
}

/* ---- sending and receiving ---- */

static bool has_room(void *arg)
{
	struct end *end = arg;
	const struct pipe *pipe = &end->wire->pipes[end->side];

	return pipe->closed || (pipe->used < PIPE_BYTES && !end->wire->stalled);
}

static bool has_data(void *arg)
{
	struct end *end = arg;
	const struct pipe *pipe = &end->wire->pipes[!end->side];

	return (pipe->used && !end->wire->stalled) || (pipe->closed && !pipe->used) ||
	       end->wire->net->closed[end->side];
}

static uint64_t timeout_of(const struct end *end)
{
	uint64_t stall = end->stall_ms ? end->stall_ms * 1000ULL : SIM_FOR_EVER;
	uint64_t now = sim_now();

	if (!end->deadline_us)
		return stall;
	return qsc_min_u64(stall, end->deadline_us > now ? end->deadline_us - now : 0);
}

static void put(struct sim_wire *wire, struct pipe *pipe, const uint8_t *bytes, size_t size)
{
	uint8_t part[PIPE_BYTES];
	size_t i;

	memcpy(part, bytes, size);
	maybe_fault(wire, part, size);
	for (i = 0; i < size; i++)
		pipe->bytes[(pipe->head + pipe->used + i) % PIPE_BYTES] = part[i];
	pipe->used += size;
}

static int send_bytes(struct end *end, const uint8_t *bytes, size_t size)
{
	struct pipe *pipe = &end->wire->pipes[end->side];

	while (size) {
		size_t part;

		if (!sim_wait(has_room, end, timeout_of(end)))
			return -ETIMEDOUT;
		if (pipe->closed)
			return -EPIPE;
		part = PIPE_BYTES - pipe->used;
		part = size < part ? size : part;
		put(end->wire, pipe, bytes, part);
		bytes += part;
		size -= part;
	}
	return 0;
}

static void at_boundary(const struct sim_net *net)
{
	sim_yield();
	if (net->boundary)
		net->boundary(net->boundary_ctx);
}

static int end_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct end *end = end_of(ch);
	size_t size = 0;
	int result = 0;
	int i;

	at_boundary(end->wire->net);
	for (i = 0; i < iovcnt && result == 0; i++) {
		result = send_bytes(end, iov[i].iov_base, iov[i].iov_len);
		size += iov[i].iov_len;
	}
	sim_sleep(size / BYTES_A_US);
	return result;
}

static int end_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct end *end = end_of(ch);
	struct pipe *pipe = &end->wire->pipes[!end->side];
	uint8_t *to = buf;

	at_boundary(end->wire->net);
	maybe_fault(end->wire, NULL, 0);
	while (size) {
		if (!sim_wait(has_data, end, timeout_of(end)))
			return -ETIMEDOUT;
		if (!pipe->used || end->wire->net->closed[end->side])
			return -EPIPE;
		for (; size && pipe->used; size--, pipe->used--) {
			*to++ = pipe->bytes[pipe->head];
			pipe->head = (pipe->head + 1) % PIPE_BYTES;
		}
	}
	return 0;
}

static void end_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	end_of(ch)->stall_ms = stall_ms;
	end_of(ch)->deadline_us = deadline_us;
}

static void end_shutdown(struct qsc_channel *ch)
{
	close_wire(end_of(ch)->wire);
}

static const struct qsc_channel_ops end_ops = {
	.send = end_send,
	.recv = end_recv,
	.set_limits = end_set_limits,
	.shutdown = end_shutdown,
	.close = end_shutdown,
};

/* ---- meeting ---- */

static struct sim_wire *make_wire(struct sim_net *net)
{
	struct sim_wire *wire = calloc(1, sizeof(*wire));
	uint32_t i;

	if (!wire)
		abort();
	wire->net = net;
	wire->next = net->wires;
	net->wires = wire;
	for (i = 0; i < 2; i++)
		wire->ends[i] = (struct end){{&end_ops}, wire, i, 0, 0};
	return wire;
}

/* Somebody else connects: says nothing, little, or a lot of nonsense, and may hang up. */
static void stranger(struct sim_net *net)
{
	struct sim_wire *wire = make_wire(net);
	size_t size = sim_random(3) * 30;

	memset(wire->pipes[0].bytes, 'x', size);
	wire->pipes[0].used = size;
	wire->pipes[0].closed = sim_random(2);
	if (net->num_waiting < QSC_ARRAY_SIZE(net->waiting))
		net->waiting[net->num_waiting++] = wire;
}

static int connector_open(struct qsc_transport *transport, uint32_t timeout_ms,
			  struct qsc_channel **ch, struct qsc_error *err)
{
	struct sim_net *net = qsc_container_of(transport, struct sim_net, ends[0]);
	struct sim_wire *wire;

	sim_yield();
	for (; net->strangers; net->strangers--)
		stranger(net);
	if (net->closed[0] || net->closed[1] || net->num_waiting == QSC_ARRAY_SIZE(net->waiting))
		return qsc_error_set(err, ECONNREFUSED, NULL, "nobody listens");
	wire = make_wire(net);
	net->waiting[net->num_waiting++] = wire;
	*ch = &wire->ends[0].base;
	return 0;
}

/* Which connection has brought a whole first frame. */
static size_t first_ready(const struct sim_net *net)
{
	size_t i;

	for (i = 0; i < net->num_waiting && net->waiting[i]->pipes[0].used < FIRST_BYTES; i++)
		;
	return i;
}

static bool somebody_came(void *arg)
{
	const struct sim_net *net = arg;

	return first_ready(net) < net->num_waiting || net->closed[1];
}

static int listener_open(struct qsc_transport *transport, uint32_t timeout_ms,
			 struct qsc_channel **ch, struct qsc_error *err)
{
	struct sim_net *net = qsc_container_of(transport, struct sim_net, ends[1]);
	size_t first;

	if (!sim_wait(somebody_came, net, timeout_ms ? timeout_ms * 1000ULL : SIM_FOR_EVER))
		return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected");
	if (net->closed[1])
		return qsc_error_set(err, ESHUTDOWN, NULL, "the process is dead");
	first = first_ready(net);
	*ch = &net->waiting[first]->ends[1].base;
	net->num_waiting--;
	memmove(net->waiting + first, net->waiting + first + 1,
		(net->num_waiting - first) * sizeof(struct sim_wire *));
	return 0;
}

static void end_meeting(struct sim_net *net, uint32_t side)
{
	size_t i;

	for (i = 0; i < net->num_waiting; i++)
		close_wire(net->waiting[i]);
	net->num_waiting = 0;
	net->closed[side] = true;
}

static void connector_close(struct qsc_transport *transport)
{
	qsc_container_of(transport, struct sim_net, ends[0])->closed[0] = true;
}

static void listener_close(struct qsc_transport *transport)
{
	end_meeting(qsc_container_of(transport, struct sim_net, ends[1]), 1);
}

static const struct qsc_transport_ops connector_ops = {
	.name = "sim",
	.open = connector_open,
	.close = connector_close,
};
static const struct qsc_transport_ops listener_ops = {
	.name = "sim",
	.open = listener_open,
	.close = listener_close,
};

void sim_net_init(struct sim_net *net)
{
	net->ends[0].ops = &connector_ops;
	net->ends[1].ops = &listener_ops;
}

void sim_net_kill(struct sim_net *net, uint32_t side)
{
	sim_net_cut(net);
	end_meeting(net, side);
}

void sim_net_cut(struct sim_net *net)
{
	struct sim_wire *wire;

	for (wire = net->wires; wire; wire = wire->next)
		close_wire(wire);
}

void sim_net_stall(struct sim_net *net)
{
	struct sim_wire *wire;

	for (wire = net->wires; wire; wire = wire->next)
		wire->stalled = true;
}

void sim_net_release(struct sim_net *net)
{
	while (net->wires) {
		struct sim_wire *wire = net->wires;

		net->wires = wire->next;
		free(wire);
	}
}
