/* SPDX-License-Identifier: MIT */
/*
 * A hostile source: the input is turned into frames whose digests are right, so that they get past
 * the first check, and the destination of a migration takes them from channels in memory. Whatever
 * comes, it must end, and nothing that was loaded may run unless COMMIT was said, and what was kept
 * has been taken over.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <quiesce/migrate.h>

#include "base/cleanup.h"
#include "migrate/negotiate.h"
#include "migrate/shape.h"
#include "set/fake.h"

#define CHANNELS 2
#define MEMBERS	 2
#define PAGES	 8
#define ROOM	 (64U << 10)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct source;

/* What the source says on one channel; what is said to it goes nowhere. */
struct script {
	struct qsc_channel channel;
	struct source *source;
	uint8_t bytes[ROOM];
	size_t size;
	size_t read;
};

/* How the source begins, by bits of the first byte; 0xff: with nothing. */
#define MODE_NEWER  1U /* of a newer minor version */
#define MODE_ASKS   2U
#define MODE_KEPT   4U	/* its words were kept: a file */
#define MODE_USED   8U	/* that cannot be taken over */
#define MODE_UNSURE 16U /* or about which nobody can tell */

struct source {
	struct qsc_transport transport;
	struct script scripts[CHANNELS];
	uint32_t opened;
	uint64_t mode;
	bool committed;
	bool settled;
};

static int script_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	return 0;
}

static int script_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct script *script = qsc_container_of(ch, struct script, channel);

	if (size > script->size - script->read)
		return -EPIPE;
	memcpy(buf, script->bytes + script->read, size);
	script->read += size;
	return 0;
}

static void script_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
}

static void script_shutdown(struct qsc_channel *ch)
{
	struct script *script = qsc_container_of(ch, struct script, channel);

	script->read = script->size;
}

static int source_open(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	struct source *source = qsc_container_of(transport, struct source, transport);

	if (source->opened == CHANNELS)
		return qsc_error_set(err, ECONNREFUSED, NULL, "nobody else comes");
	*ch = &source->scripts[source->opened++].channel;
	return 0;
}

static void source_close(struct qsc_transport *transport)
{
}

static const struct qsc_channel_ops script_ops = {
	.send = script_send,
	.recv = script_recv,
	.set_limits = script_set_limits,
	.shutdown = script_shutdown,
	.close = script_shutdown,
};

static int script_settle(struct qsc_channel *ch, struct qsc_error *err)
{
	struct source *source = qsc_container_of(ch, struct script, channel)->source;

	if (source->mode & MODE_USED)
		return source->mode & MODE_UNSURE ? -ENOTRECOVERABLE : -EIO;
	source->settled = true;
	return 0;
}

static const struct qsc_channel_ops kept_ops = {
	.send = script_send,
	.recv = script_recv,
	.set_limits = script_set_limits,
	.settle = script_settle,
	.shutdown = script_shutdown,
	.close = script_shutdown,
};

static const struct qsc_transport_ops source_ops = {
	.name = "fuzz",
	.open = source_open,
	.close = source_close,
};

/* ---- from input to frames ---- */

static void say(struct script *script, struct qsc_frame *frame, const void *payload, size_t size)
{
	if (QSC_FRAME_SIZE + size > ROOM - script->size)
		return;
	frame->size = (uint32_t)size;
	frame->digest = qsc_frame_digest(frame, payload);
	qsc_frame_encode(frame, script->bytes + script->size);
	if (size)
		memcpy(script->bytes + script->size + QSC_FRAME_SIZE, payload, size);
	script->size += QSC_FRAME_SIZE + size;
}

static uint64_t take(const uint8_t **data, size_t *size, size_t count)
{
	uint64_t value = 0;

	for (; count && *size; count--, ++*data, --*size)
		value = value << 8 | **data;
	return value;
}

/* One frame of the input's choice; now and then with numbers far out of range. */
static void say_any(struct source *source, const uint8_t **data, size_t *size)
{
	static const uint8_t zeroes[2 * QSC_PAGE_SIZE];
	uint64_t head = take(data, size, 2);
	struct script *script = &source->scripts[head >> 8 & 1];
	uint64_t unit = head & 0x80 ? 1 : QSC_PAGE_SIZE;
	uint64_t offset = take(data, size, head & 0x40 ? 8 : 1) * unit;
	uint64_t extent = take(data, size, head & 0x40 ? 8 : 1) * unit;
	struct qsc_frame frame = {
		.type = (uint32_t)(head & 0x1f) | (head & 0x2000 ? QSC_FRAME_OPTIONAL : 0),
		.index = (uint32_t)take(data, size, 1),
		.arg = (uint32_t)take(data, size, 1),
		.offset = offset,
		.extent = extent,
	};
	size_t length = (size_t)(take(data, size, 1) * (unit == 1 ? 1 : 256));

	source->committed |= frame.type == QSC_FRAME_COMMIT;
	if (length > *size && length <= sizeof(zeroes)) {
		say(script, &frame, zeroes, length);
		return;
	}
	length = length < *size ? length : *size;
	say(script, &frame, *data, length);
	*data += length;
	*size -= length;
}

/* A beginning that the destination accepts, so that most inputs get beyond it. */
static void say_hello(struct source *source, struct qsc_set *set,
		      const struct qsc_migrate_user *user)
{
	struct qsc_frame offer = {.type = QSC_FRAME_OFFER, .arg = source->mode & MODE_ASKS ? 1 : 0};
	qsc_autofree uint8_t *bytes = NULL;
	size_t size = 0;
	uint32_t i;

	if (qsc_negotiate_encode(set, user, &bytes, &size, NULL) < 0)
		abort();
	for (i = 0; i < CHANNELS; i++) {
		struct qsc_frame hello = {
			.type = QSC_FRAME_HELLO,
			.index = i,
			.arg = QSC_FRAME_VERSION + (uint32_t)(source->mode & MODE_NEWER),
			.offset = 1,
			.extent = (uint64_t)QSC_FRAME_MAGIC << 32 | CHANNELS,
		};

		say(&source->scripts[i], &hello, NULL, 0);
	}
	say(&source->scripts[0], &offer, bytes, size);
}

/* ---- the destination ---- */

static int one_after_another(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	size_t i;

	for (i = 0; i < count; i++)
		task(args[i]);
	return 0;
}

static uint64_t no_time(void *ctx)
{
	return 0;
}

static int callback(void *ctx)
{
	return 0;
}

static int load(void *ctx, const void *buf, size_t size)
{
	return size > 100 ? -EINVAL : 0;
}

static int resume(void *ctx)
{
	const struct source *source = ctx;

	if (!source->committed || (source->mode & MODE_KEPT && !source->settled))
		abort();
	return 0;
}

/* The shape alone, with any bytes. */
static void decode_shape(const uint8_t *data, size_t size)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;

	(void)qsc_shape_decode(&shape, data, size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t memory[PAGES * QSC_PAGE_SIZE] __attribute__((aligned(4096)));
	static struct fake_world world = FAKE_WORLD_INIT;
	const struct qsc_env env = {no_time, one_after_another, NULL, NULL};
	const struct qsc_memory_region region = {
		.address = 0x10000, .size = sizeof(memory), .vaddr = memory};
	struct source source = {.transport = {&source_ops}};
	const struct qsc_migrate_user user = {
		.regions = &region,
		.num_regions = 1,
		.pause = callback,
		.load = load,
		.setup_irqs = callback,
		.resume = resume,
		.ctx = &source,
	};
	const struct qsc_migrate_options options = {.env = &env};
	struct fake *fakes[MEMBERS];
	struct qsc_set *set;
	uint32_t i;

	decode_shape(data, size);
	world.count = 0;
	if (qsc_set_create(&env, NULL, &set) < 0)
		abort();
	for (i = 0; i < MEMBERS; i++) {
		const struct fake_options fake = {.member = i, .flags = 7, .state_bytes = 64 * i};

		fakes[i] = fake_new(&world, &fake);
		if (qsc_set_add(set, i ? "b" : "a", &fakes[i]->base, NULL) < 0)
			abort();
	}
	source.mode = size ? take(&data, &size, 1) : 0xff;
	for (i = 0; i < CHANNELS; i++) {
		source.scripts[i].source = &source;
		source.scripts[i].channel.ops = source.mode & MODE_KEPT ? &kept_ops : &script_ops;
	}
	if (source.mode != 0xff)
		say_hello(&source, set, &user);
	while (size)
		say_any(&source, &data, &size);
	(void)qsc_migrate_receive(set, &user, &source.transport, &options, NULL, NULL);
	qsc_set_destroy(set);
	for (i = 0; i < MEMBERS; i++)
		fake_free(fakes[i]);
	return 0;
}
