/* SPDX-License-Identifier: MIT */
/* The link of clockwork.h: what is sent arrives after its time on the wire and the latency. */
#include "clockwork.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

struct packet {
	struct packet *next;
	uint64_t ready_us;
	size_t size;
	size_t used;
	uint8_t bytes[];
};

struct end {
	struct qsc_channel base;
	struct clock_wire *wire;
	uint32_t side;
	struct packet *first; /* on its way to this end */
	struct packet **last;
	bool closed;
};

struct clock_wire {
	struct clock_world *world;
	struct clock_wire *next;
	struct end ends[2];
};

static struct end *end_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct end, base);
}

/*
 * Whoever sends waits until all of it is on the wire, which channels and callers take in turn, or
 * fits the buffer before it.
 */
static int end_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct end *end = end_of(ch);
	struct end *other = &end->wire->ends[!end->side];
	struct clock_world *world = end->wire->world;
	uint64_t *free_us = &world->free_us[end->side];
	struct packet *packet;
	size_t size = 0;
	uint64_t rate;
	int i;

	for (i = 0; i < iovcnt; i++)
		size += iov[i].iov_len;
	packet = calloc(1, sizeof(*packet) + size);
	if (!packet)
		abort();
	for (i = 0; i < iovcnt; i++) {
		memcpy(packet->bytes + packet->size, iov[i].iov_base, iov[i].iov_len);
		packet->size += iov[i].iov_len;
	}
	rate = world->later_rate && world->sent > 1000000 ? world->later_rate : world->link_rate;
	*free_us = qsc_max_u64(*free_us, sim_now()) + size * 1000000 / rate;
	packet->ready_us = *free_us + world->latency_us;
	*other->last = packet;
	other->last = &packet->next;
	if (end->side == 0)
		world->sent += size;
	if (*free_us > sim_now() + world->buffer_us)
		sim_sleep(*free_us - sim_now() - world->buffer_us);
	return end->closed ? -EPIPE : 0;
}

static bool something_came(void *arg)
{
	const struct end *end = arg;

	return end->first || end->closed || end->wire->ends[!end->side].closed;
}

static int end_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct end *end = end_of(ch);
	uint8_t *to = buf;

	while (size) {
		struct packet *packet;
		size_t part;

		(void)sim_wait(something_came, end, SIM_FOR_EVER);
		packet = end->first;
		if (!packet || end->closed)
			return -EPIPE;
		if (packet->ready_us > sim_now())
			sim_sleep(packet->ready_us - sim_now());
		part = qsc_min_u64(size, packet->size - packet->used);
		memcpy(to, packet->bytes + packet->used, part);
		packet->used += part;
		to += part;
		size -= part;
		if (packet->used < packet->size)
			continue;
		end->first = packet->next;
		if (!end->first)
			end->last = &end->first;
		free(packet);
	}
	return 0;
}

static void end_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
}

static void end_shutdown(struct qsc_channel *ch)
{
	end_of(ch)->closed = true;
}

static const struct qsc_channel_ops end_ops = {
	.send = end_send,
	.recv = end_recv,
	.set_limits = end_set_limits,
	.shutdown = end_shutdown,
	.close = end_shutdown,
};

static int source_open(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	struct clock_world *world =
		qsc_container_of(transport, struct clock_side, transport)->world;
	struct clock_wire *wire = calloc(1, sizeof(*wire));
	uint32_t i;

	if (!wire || world->num_waiting == QSC_ARRAY_SIZE(world->waiting))
		abort();
	wire->world = world;
	wire->next = world->wires;
	world->wires = wire;
	for (i = 0; i < 2; i++) {
		wire->ends[i] = (struct end){.base = {&end_ops}, .wire = wire, .side = i};
		wire->ends[i].last = &wire->ends[i].first;
	}
	world->waiting[world->num_waiting++] = wire;
	*ch = &wire->ends[0].base;
	return 0;
}

static bool somebody_came(void *arg)
{
	const struct clock_world *world = arg;

	return world->num_waiting || world->closed;
}

static int destination_open(struct qsc_transport *transport, uint32_t timeout_ms,
			    struct qsc_channel **ch, struct qsc_error *err)
{
	struct clock_world *world =
		qsc_container_of(transport, struct clock_side, transport)->world;

	if (!sim_wait(somebody_came, world, timeout_ms ? timeout_ms * 1000ULL : SIM_FOR_EVER))
		return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected");
	if (!world->num_waiting)
		return qsc_error_set(err, ESHUTDOWN, NULL, "nobody will connect any more");
	*ch = &world->waiting[0]->ends[1].base;
	world->num_waiting--;
	memmove(world->waiting, world->waiting + 1,
		world->num_waiting * sizeof(struct clock_wire *));
	return 0;
}

static void no_close(struct qsc_transport *transport)
{
}

static const struct qsc_transport_ops source_ops = {
	.name = "clockwork", .open = source_open, .close = no_close};
static const struct qsc_transport_ops destination_ops = {
	.name = "clockwork", .open = destination_open, .close = no_close};

void clock_link_init(struct clock_world *world)
{
	if (!world->sides[0].transport.ops)
		world->sides[0].transport.ops = &source_ops;
	world->sides[1].transport.ops = &destination_ops;
}

void clock_link_release(struct clock_world *world)
{
	while (world->wires) {
		struct clock_wire *wire = world->wires;
		uint32_t i;

		for (i = 0; i < 2; i++) {
			while (wire->ends[i].first) {
				struct packet *packet = wire->ends[i].first;

				wire->ends[i].first = packet->next;
				free(packet);
			}
		}
		world->wires = wire->next;
		free(wire);
	}
}
