/* SPDX-License-Identifier: MIT */
/*
 * dmacopy on the runtime, mostly without threads: qsc_runtime_step() makes every piece of work
 * happen when the test says so, in an order drawn from a seed. A rig is one engine with its memory
 * and interrupts; two rigs on the same memory are source and destination of a migration.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include <quiesce/runtime.h>

#include "dmacopy/dmacopy.h"
#include "dmacopy/driver.h"

#define MEMORY_IOVA 0x40000000ULL
#define MEMORY_SIZE (4ULL << 20)
#define PEER_IOVA   0x80000000ULL
#define LOCAL_SIZE  (1ULL << 20)
#define ENTRIES	    32U
#define VECTORS	    16U
/* The queue stands at the start of memory, data behind it. */
#define DATA_OFFSET 0x10000ULL

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void random_fill(void *data, size_t size, uint64_t seed)
{
	uint8_t *bytes = data;

	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)random_next(&seed);
}

struct rig {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	uint8_t *memory;
	struct dmacopy_queue *queue;
	uint64_t seed;
	int events[VECTORS];
};

static void rig_map(struct rig *rig)
{
	const struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = rig->memory,
		.fd = -1,
	};

	assert_int_equal(qsc_device_dma_map(rig->dev, &mapping), 0);
}

static void rig_set_irqs(struct rig *rig)
{
	assert_int_equal(
		qsc_device_set_eventfds(rig->dev, VFIO_PCI_MSIX_IRQ_INDEX, rig->events, VECTORS),
		0);
}

/* An engine with `memory` mapped and no interrupts set up yet. */
static void rig_make(struct rig *rig, const struct dmacopy_options *options, uint8_t *memory)
{
	struct qsc_error err = QSC_ERROR_NONE;

	*rig = (struct rig){.memory = memory, .seed = 0x9e3779b97f4a7c15ULL};
	if (dmacopy_create(options, &rig->rt, &err))
		fail_msg("%s", err.text);
	assert_int_equal(qsc_runtime_open(rig->rt, &rig->dev), 0);
	rig->queue = (struct dmacopy_queue *)(void *)memory;
	for (uint32_t i = 0; i < VECTORS; i++) {
		rig->events[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_true(rig->events[i] >= 0);
	}
	rig_map(rig);
}

static void rig_free(struct rig *rig)
{
	qsc_device_close(rig->dev);
	qsc_runtime_destroy(rig->rt);
	for (uint32_t i = 0; i < VECTORS; i++)
		close(rig->events[i]);
}

static uint8_t *memory_make(void)
{
	uint8_t *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static void rig_start(struct rig *rig)
{
	rig_set_irqs(rig);
	assert_int_equal(dmacopy_driver_start(rig->dev, rig->queue, MEMORY_IOVA, ENTRIES), 0);
}

/* A running engine with memory of its own. */
static void rig_setup(struct rig *rig, uint32_t flags, bool tells_peers)
{
	const struct dmacopy_options options = {
		.migration_flags = flags,
		.tells_peers = tells_peers,
		.local_size = LOCAL_SIZE,
		.vectors = VECTORS,
		.manual = true,
	};

	rig_make(rig, &options, memory_make());
	rig_start(rig);
}

static void rig_teardown(struct rig *rig)
{
	rig_free(rig);
	munmap(rig->memory, MEMORY_SIZE);
}

/* Let at most `steps` things happen; true when there may be more. */
static bool rig_steps(struct rig *rig, uint64_t steps)
{
	while (steps--) {
		if (!qsc_runtime_step(rig->rt, random_next(&rig->seed)))
			return false;
	}
	return true;
}

/* Until nothing is left to do, which must come. */
static void rig_settle(struct rig *rig)
{
	assert_false(rig_steps(rig, 1000000));
}

static uint64_t rig_interrupts(struct rig *rig, uint32_t vector)
{
	uint64_t count = 0;

	if (read(rig->events[vector], &count, sizeof(count)) != sizeof(count))
		assert_int_equal(errno, EAGAIN);
	return count;
}

static void rig_submit(struct rig *rig, const struct dmacopy_transfer *transfer)
{
	assert_int_equal(dmacopy_driver_submit(rig->queue, transfer), 0);
	assert_int_equal(dmacopy_driver_doorbell(rig->dev), 0);
}

/* One transfer from beginning to end; its status. */
static uint32_t rig_copy(struct rig *rig, struct dmacopy_transfer transfer)
{
	struct dmacopy_completion completion;

	rig_submit(rig, &transfer);
	rig_settle(rig);
	assert_int_equal(dmacopy_driver_reap(rig->queue, &completion), 1);
	assert_int_equal(completion.cookie, transfer.cookie);
	if (completion.status == DMACOPY_DONE_OK)
		assert_int_equal(completion.bytes_done, transfer.length);
	return completion.status;
}

static uint32_t rig_register(struct rig *rig, uint32_t reg)
{
	uint32_t value;

	assert_int_equal(dmacopy_driver_read32(rig->dev, reg, &value), 0);
	return value;
}

static uint64_t rig_register64(struct rig *rig, uint32_t reg)
{
	uint64_t value;

	assert_int_equal(dmacopy_driver_read64(rig->dev, reg, &value), 0);
	return value;
}

static void rig_state(struct rig *rig, enum qsc_state target)
{
	enum qsc_state state;
	uint64_t session;

	assert_int_equal(qsc_device_set_state(rig->dev, target, &session), 0);
	assert_int_equal(qsc_device_get_state(rig->dev, &state), 0);
	assert_int_equal(state, target);
}

static uint64_t iova_of(const struct rig *rig, const void *data)
{
	return MEMORY_IOVA + (uint64_t)((const uint8_t *)data - rig->memory);
}

/* ---- what the engine does ---- */

static void identifies_itself(void **unused)
{
	struct rig rig;

	rig_setup(&rig, 7, false);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_ID), DMACOPY_ID);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_VERSION), DMACOPY_VERSION);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_CHANNELS), DMACOPY_CHANNELS);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_VECTORS), VECTORS);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_LOCAL_SIZE), LOCAL_SIZE);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_CONTROL), DMACOPY_CONTROL_ENABLE);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_STATUS), 0);
	assert_int_equal(dmacopy_driver_write64(rig.dev, DMACOPY_REG_SCRATCH, 0x1122334455667788),
			 0);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_SCRATCH + 4), 0x11223344);
	assert_int_equal(dmacopy_driver_write32(rig.dev, DMACOPY_REG_SCRATCH, 1), 0);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_SCRATCH), 0x1122334400000001);
	rig_teardown(&rig);
}

/* Memory to memory, to local, within local and back, in every relevant size and alignment. */
static void copies_everything(void **unused)
{
	static const uint32_t sizes[] = {1, 7, 4096, 65535, 65536, 65537, 131072, 300001};
	struct rig rig;
	uint8_t *source;
	uint8_t *middle;
	uint8_t *target;
	uint64_t bytes = 0;

	rig_setup(&rig, 7, false);
	source = rig.memory + DATA_OFFSET + 3;
	middle = source + (1 << 20);
	target = middle + (1 << 20);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint32_t size = sizes[i];
		struct dmacopy_transfer way[] = {
			{0, 0, size, iova_of(&rig, source), iova_of(&rig, middle), i},
			{DMACOPY_DESC_DESTINATION_LOCAL, 0, size, iova_of(&rig, middle), 5, i},
			{DMACOPY_DESC_SOURCE_LOCAL | DMACOPY_DESC_DESTINATION_LOCAL, 0, size, 5,
			 500001, i},
			{DMACOPY_DESC_SOURCE_LOCAL, 0, size, 500001, iova_of(&rig, target), i},
		};

		random_fill(source, size, i + 1);
		memset(target, 0, size + 1);
		for (size_t j = 0; j < sizeof(way) / sizeof(way[0]); j++)
			assert_int_equal(rig_copy(&rig, way[j]), DMACOPY_DONE_OK);
		assert_memory_equal(source, target, size);
		assert_int_equal(target[size], 0);
		bytes += 4ULL * size;
	}
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_BYTES), bytes);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_COMPLETED), 4 * 8);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_FAILED), 0);
	rig_teardown(&rig);
}

/* A descriptor without the flag raises nothing, one with it exactly one. */
static void raises_one_interrupt_each(void **unused)
{
	struct dmacopy_completion completion;
	struct rig rig;

	rig_setup(&rig, 7, false);
	for (uint32_t i = 0; i < ENTRIES; i++) {
		struct dmacopy_transfer transfer = {
			.flags = i % 2 ? DMACOPY_DESC_INTERRUPT : 0,
			.vector = i % VECTORS,
			.length = 1000 * i,
			.source = MEMORY_IOVA + DATA_OFFSET,
			.destination = MEMORY_IOVA + DATA_OFFSET + (1 << 20) + 1000ULL * i * i,
			.cookie = i,
		};

		assert_int_equal(dmacopy_driver_submit(rig.queue, &transfer), 0);
	}
	assert_int_equal(dmacopy_driver_submit(rig.queue, &(struct dmacopy_transfer){0}), -EAGAIN);
	assert_int_equal(dmacopy_driver_doorbell(rig.dev), 0);
	rig_settle(&rig);
	for (uint32_t i = 0; i < ENTRIES; i++) {
		assert_int_equal(dmacopy_driver_reap(rig.queue, &completion), 1);
		assert_int_equal(completion.status, DMACOPY_DONE_OK);
		assert_int_equal(completion.cookie, i);
	}
	assert_int_equal(dmacopy_driver_reap(rig.queue, &completion), 0);
	for (uint32_t i = 0; i < VECTORS; i++)
		assert_int_equal(rig_interrupts(&rig, i), i % 2 ? 2 : 0);
	rig_teardown(&rig);
}

static void works_on_several_at_once(void **unused)
{
	struct rig rig;
	uint32_t begun = 0;

	rig_setup(&rig, 7, false);
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
		struct dmacopy_transfer transfer = {
			.length = 400000,
			.source = MEMORY_IOVA + DATA_OFFSET,
			.destination = MEMORY_IOVA + DATA_OFFSET + 400000ULL * (i + 1),
		};

		random_fill(rig.memory + DATA_OFFSET, 400000, 5);
		assert_int_equal(dmacopy_driver_submit(rig.queue, &transfer), 0);
	}
	assert_int_equal(dmacopy_driver_doorbell(rig.dev), 0);
	for (unsigned int tries = 0; tries < 60 && begun < 2; tries++) {
		rig_steps(&rig, 1);
		begun = 0;
		for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++) {
			const uint8_t *target = rig.memory + DATA_OFFSET + 400000ULL * (i + 1);

			begun += target[0] && !dmacopy_driver_complete(rig.queue, i);
		}
	}
	assert_true(begun >= 2);
	assert_true(rig_register(&rig, DMACOPY_REG_STATUS) & DMACOPY_STATUS_BUSY);
	rig_settle(&rig);
	for (uint32_t i = 0; i < DMACOPY_CHANNELS; i++)
		assert_memory_equal(rig.memory + DATA_OFFSET,
				    rig.memory + DATA_OFFSET + 400000ULL * (i + 1), 400000);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_STATUS), 0);
	rig_teardown(&rig);
}

/* ---- peers and the P2P states ---- */

static void map_peer(struct rig *rig, struct rig *peer)
{
	struct qsc_dma_mapping mapping = {
		.iova = PEER_IOVA,
		.size = LOCAL_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE | QSC_DMA_PEER,
		.fd = -1,
	};

	assert_int_equal(
		qsc_device_region_fd(peer->dev, DMACOPY_BAR_LOCAL, &mapping.fd, &mapping.fd_offset),
		0);
	assert_int_equal(qsc_device_dma_map(rig->dev, &mapping), 0);
	close(mapping.fd);
}

/* Memory → A → B's memory by A → memory by B. */
static void reaches_a_peer(void **unused)
{
	const uint32_t size = 200000;
	struct rig a;
	struct rig b;

	rig_setup(&a, 7, true);
	rig_setup(&b, 7, true);
	map_peer(&a, &b);
	random_fill(a.memory + DATA_OFFSET, size, 11);
	assert_int_equal(
		rig_copy(&a, (struct dmacopy_transfer){.flags = DMACOPY_DESC_DESTINATION_LOCAL,
						       .length = size,
						       .source = MEMORY_IOVA + DATA_OFFSET,
						       .destination = 100}),
		DMACOPY_DONE_OK);
	assert_int_equal(rig_copy(&a, (struct dmacopy_transfer){.flags = DMACOPY_DESC_SOURCE_LOCAL,
								.length = size,
								.source = 100,
								.destination = PEER_IOVA + 700}),
			 DMACOPY_DONE_OK);
	assert_int_equal(
		rig_copy(&b, (struct dmacopy_transfer){.flags = DMACOPY_DESC_SOURCE_LOCAL,
						       .length = size,
						       .source = 700,
						       .destination = MEMORY_IOVA + DATA_OFFSET}),
		DMACOPY_DONE_OK);
	assert_memory_equal(a.memory + DATA_OFFSET, b.memory + DATA_OFFSET, size);
	rig_teardown(&a);
	rig_teardown(&b);
}

/* DEV-4: a transfer to a peer waits in the P2P states; one to memory only if it can be told. */
static void quiesces_in_p2p(void **state)
{
	const bool tells_peers = *(const bool *)*state;
	const struct dmacopy_transfer transfers[] = {
		{.length = 300000, .source = MEMORY_IOVA + DATA_OFFSET, .destination = PEER_IOVA},
		{.flags = DMACOPY_DESC_INTERRUPT,
		 .vector = 3,
		 .length = 300000,
		 .source = MEMORY_IOVA + DATA_OFFSET,
		 .destination = MEMORY_IOVA + DATA_OFFSET + (1 << 20)},
	};
	struct rig rig;
	struct rig peer;
	void *local;

	rig_setup(&rig, 3, tells_peers);
	rig_setup(&peer, 3, tells_peers);
	map_peer(&rig, &peer);
	assert_int_equal(qsc_device_region_map(peer.dev, DMACOPY_BAR_LOCAL, 0, LOCAL_SIZE,
					       PROT_READ | PROT_WRITE, &local),
			 0);
	random_fill(rig.memory + DATA_OFFSET, 300000, 12);
	rig_submit(&rig, &transfers[0]);
	rig_submit(&rig, &transfers[1]);
	rig_steps(&rig, 4);
	rig_state(&rig, QSC_STATE_RUNNING_P2P);
	memset(local, 0x77, LOCAL_SIZE);
	rig_settle(&rig);
	for (size_t i = 0; i < LOCAL_SIZE; i++)
		assert_int_equal(((uint8_t *)local)[i], 0x77);
	assert_false(dmacopy_driver_complete(rig.queue, 0));
	assert_int_equal(dmacopy_driver_complete(rig.queue, 1), tells_peers);
	/* DEV-2: held. */
	assert_int_equal(rig_interrupts(&rig, 3), 0);
	rig_state(&rig, QSC_STATE_RUNNING);
	rig_settle(&rig);
	assert_true(dmacopy_driver_complete(rig.queue, 0));
	assert_true(dmacopy_driver_complete(rig.queue, 1));
	assert_int_equal(rig_interrupts(&rig, 3), 1);
	assert_memory_equal((uint8_t *)local + 280000, rig.memory + DATA_OFFSET + 280000, 20000);
	rig_teardown(&rig);
	rig_teardown(&peer);
}

/* ---- migration in the middle of transfers ---- */

struct stream {
	uint8_t *data;
	size_t size;
	size_t room;
};

/* Everything that can be read now. */
static void stream_read(struct rig *rig, uint64_t session, struct stream *stream)
{
	for (;;) {
		ssize_t got;

		if (stream->room - stream->size < 65536) {
			stream->room = stream->room * 2 + 131072;
			stream->data = realloc(stream->data, stream->room);
			assert_non_null(stream->data);
		}
		got = qsc_device_session_read(rig->dev, session, stream->data + stream->size,
					      30001);
		if (got == 0 || got == -ENOMSG)
			return;
		assert_true(got > 0);
		stream->size += (size_t)got;
	}
}

static void stream_load(struct rig *rig, const struct stream *stream)
{
	uint64_t session;
	size_t at = 0;

	assert_int_equal(qsc_device_set_state(rig->dev, QSC_STATE_RESUMING, &session), 0);
	while (at < stream->size) {
		size_t size = stream->size - at < 7777 ? stream->size - at : 7777;

		assert_int_equal(
			qsc_device_session_write(rig->dev, session, stream->data + at, size), size);
		at += size;
	}
}

struct case_flags {
	uint32_t flags;
	bool tells_peers;
};

/* Stop `from` in the middle, carry its state over, and run on in `to`. */
static void rig_migrate(struct rig *from, struct rig *to, uint32_t flags)
{
	struct stream stream = {0};
	struct stream again = {0};
	uint64_t session;
	uint64_t moved;

	if (flags & QSC_MIGRATION_PRE_COPY) {
		assert_int_equal(qsc_device_set_state(from->dev, QSC_STATE_PRE_COPY, &session), 0);
		stream_read(from, session, &stream);
		rig_steps(from, random_next(&from->seed) % 8);
		stream_read(from, session, &stream);
		if (flags & QSC_MIGRATION_P2P) {
			rig_state(from, QSC_STATE_PRE_COPY_P2P);
			rig_steps(from, random_next(&from->seed) % 8);
		}
		assert_int_equal(qsc_device_set_state(from->dev, QSC_STATE_STOP_COPY, &moved), 0);
	} else {
		assert_int_equal(qsc_device_set_state(from->dev, QSC_STATE_STOP_COPY, &session), 0);
	}
	rig_settle(from);
	stream_read(from, session, &stream);
	stream_load(to, &stream);
	rig_state(to, QSC_STATE_STOP);
	/* SESS-8 */
	if (!(flags & QSC_MIGRATION_PRE_COPY)) {
		assert_int_equal(qsc_device_set_state(to->dev, QSC_STATE_STOP_COPY, &session), 0);
		stream_read(to, session, &again);
		assert_int_equal(stream.size, again.size);
		assert_memory_equal(stream.data, again.data, stream.size);
		rig_state(to, QSC_STATE_STOP);
	}
	rig_set_irqs(to);
	rig_state(to, QSC_STATE_RUNNING);
	free(stream.data);
	free(again.data);
}

/* A batch of transfers through local memory and memory, each with its own target and interrupt. */
static void submit_batch(struct rig *rig, uint64_t *seed)
{
	for (uint32_t i = 0; i < VECTORS; i++) {
		bool local = i % 2;
		struct dmacopy_transfer transfer = {
			.flags = DMACOPY_DESC_INTERRUPT |
				 (local ? DMACOPY_DESC_DESTINATION_LOCAL : 0),
			.vector = i,
			.length = (uint32_t)(random_next(seed) % 130000),
			.source = MEMORY_IOVA + DATA_OFFSET + random_next(seed) % 1000,
			.destination = local ? 131072ULL * (i / 2)
					     : MEMORY_IOVA + DATA_OFFSET + (1 << 20) +
						       131072ULL * (i / 2),
			.cookie = i,
		};

		assert_int_equal(dmacopy_driver_submit(rig->queue, &transfer), 0);
	}
	assert_int_equal(dmacopy_driver_doorbell(rig->dev), 0);
}

/* Every target holds what its descriptor says. */
static void check_batch(struct rig *rig, uint64_t first)
{
	void *local;

	assert_int_equal(qsc_device_region_map(rig->dev, DMACOPY_BAR_LOCAL, 0, LOCAL_SIZE,
					       PROT_READ, &local),
			 0);
	for (uint32_t i = 0; i < VECTORS; i++) {
		const struct dmacopy_descriptor *descriptor =
			&rig->queue->descriptors[(first + i) % ENTRIES];
		const uint8_t *base = descriptor->flags & DMACOPY_DESC_DESTINATION_LOCAL
					      ? local
					      : rig->memory - MEMORY_IOVA;
		struct dmacopy_completion completion;

		assert_int_equal(dmacopy_driver_reap(rig->queue, &completion), 1);
		assert_int_equal(completion.status, DMACOPY_DONE_OK);
		assert_int_equal(completion.bytes_done, descriptor->length);
		assert_int_equal(completion.cookie, i);
		assert_memory_equal(base + descriptor->destination,
				    rig->memory + (descriptor->source - MEMORY_IOVA),
				    descriptor->length);
	}
	assert_int_equal(qsc_device_region_unmap(rig->dev, local, LOCAL_SIZE), 0);
}

/* Rounds of work with a migration after a random number of steps, one engine to the other. */
static void goes_on_after_a_migration(void **state)
{
	const struct case_flags *flags = *state;
	const struct dmacopy_options options = {
		.migration_flags = flags->flags,
		.tells_peers = flags->tells_peers,
		.local_size = LOCAL_SIZE,
		.vectors = VECTORS,
		.manual = true,
	};
	uint8_t *memory = memory_make();
	uint64_t seed = 77 + flags->flags;
	struct rig rigs[2];

	random_fill(memory + DATA_OFFSET, 1 << 18, seed);
	rig_make(&rigs[0], &options, memory);
	rig_start(&rigs[0]);
	for (uint32_t round = 0; round < 12; round++) {
		struct rig *from = &rigs[round % 2];
		struct rig *to = &rigs[(round + 1) % 2];

		random_fill(memory + DATA_OFFSET, 1 << 12, seed + round);
		submit_batch(from, &seed);
		rig_steps(from, random_next(&seed) % 70);
		rig_make(to, &options, memory);
		rig_migrate(from, to, flags->flags);
		rig_settle(to);
		for (uint32_t i = 0; i < VECTORS; i++)
			assert_int_equal(rig_interrupts(from, i) + rig_interrupts(to, i), 1);
		check_batch(to, (uint64_t)round * VECTORS);
		assert_int_equal(rig_register64(to, DMACOPY_REG_COMPLETED),
				 (uint64_t)(round + 1) * VECTORS);
		rig_free(from);
	}
	rig_free(&rigs[0]);
	munmap(memory, MEMORY_SIZE);
}

/* With threads: migrations back and forth on one device while it copies. */
static void survives_state_changes_under_load(void **unused)
{
	const struct dmacopy_options options = {
		.migration_flags = 7, .local_size = LOCAL_SIZE, .vectors = VECTORS};
	struct dmacopy_completion completion;
	struct rig rig;
	uint64_t seed = 5;
	uint64_t count;

	rig_make(&rig, &options, memory_make());
	for (uint32_t i = 0; i < VECTORS; i++) {
		close(rig.events[i]);
		rig.events[i] = eventfd(0, EFD_CLOEXEC);
	}
	rig_start(&rig);
	random_fill(rig.memory + DATA_OFFSET, 1 << 18, seed);
	for (uint32_t round = 0; round < 100; round++) {
		submit_batch(&rig, &seed);
		rig_state(&rig, QSC_STATE_RUNNING_P2P);
		rig_state(&rig, QSC_STATE_STOP);
		rig_state(&rig, QSC_STATE_RUNNING);
		for (uint32_t i = 0; i < VECTORS; i++) {
			assert_int_equal(read(rig.events[i], &count, sizeof(count)), sizeof(count));
			assert_int_equal(count, 1);
		}
		check_batch(&rig, (uint64_t)round * VECTORS);
	}
	assert_int_equal(dmacopy_driver_reap(rig.queue, &completion), 0);
	rig_teardown(&rig);
}

/* ---- errors ---- */

static void reports_errors_in_the_descriptor(void **unused)
{
	const uint64_t data = MEMORY_IOVA + DATA_OFFSET;
	const uint64_t end = MEMORY_IOVA + MEMORY_SIZE;
	const uint32_t to = DMACOPY_DESC_DESTINATION_LOCAL;
	const uint32_t from = DMACOPY_DESC_SOURCE_LOCAL;
	const struct {
		struct dmacopy_transfer transfer;
		uint32_t status;
	} cases[] = {
		{{0x100, 0, 1, data, data + 64, 1}, DMACOPY_DONE_INVALID},
		{{DMACOPY_DESC_INTERRUPT, VECTORS, 1, data, data + 64, 2}, DMACOPY_DONE_INVALID},
		{{DMACOPY_DESC_INTERRUPT, UINT32_MAX, 1, data, data + 64, 3}, DMACOPY_DONE_INVALID},
		{{0, UINT32_MAX, 1, data, data + 64, 4}, DMACOPY_DONE_OK},
		{{to, 0, 2, data, LOCAL_SIZE - 1, 5}, DMACOPY_DONE_RANGE},
		{{to, 0, 1, data, LOCAL_SIZE - 1, 6}, DMACOPY_DONE_OK},
		{{to, 0, UINT32_MAX, data, 0, 7}, DMACOPY_DONE_RANGE},
		{{from, 0, 1, UINT64_MAX, data, 8}, DMACOPY_DONE_RANGE},
		{{0, 0, 100, UINT64_MAX - 50, data, 9}, DMACOPY_DONE_RANGE},
		{{0, 0, 100, data, UINT64_MAX - 50, 10}, DMACOPY_DONE_RANGE},
		{{0, 0, 100, data, data + 99, 11}, DMACOPY_DONE_RANGE},
		{{0, 0, 100, data + 99, data, 12}, DMACOPY_DONE_RANGE},
		{{0, 0, 100, data + 100, data, 13}, DMACOPY_DONE_OK},
		{{from | to, 0, 100, 100, 199, 14}, DMACOPY_DONE_RANGE},
		{{0, 0, 0, data, data, 15}, DMACOPY_DONE_OK},
		{{0, 0, 1, end, data, 16}, DMACOPY_DONE_FAULT},
		{{0, 0, 2, data, end - 1, 17}, DMACOPY_DONE_FAULT},
		{{to, 0, 4096, end - 1, 0, 18}, DMACOPY_DONE_FAULT},
		{{0, 0, UINT32_MAX, data, data + (1ULL << 32), 19}, DMACOPY_DONE_FAULT},
	};
	const size_t num = sizeof(cases) / sizeof(cases[0]);
	uint64_t failed = 0;
	struct rig rig;

	rig_setup(&rig, 7, false);
	for (size_t i = 0; i < num; i++) {
		if (rig_copy(&rig, cases[i].transfer) != cases[i].status)
			fail_msg("transfer %zu did not end with status %u", i + 1, cases[i].status);
		failed += cases[i].status != DMACOPY_DONE_OK;
	}
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_FAILED), failed);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_COMPLETED), num);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_ERROR), DMACOPY_ERROR_NONE);
	/* An error interrupts like a success. */
	assert_int_equal(rig_copy(&rig, (struct dmacopy_transfer){.flags = DMACOPY_DESC_INTERRUPT,
								  .vector = 9,
								  .length = 5,
								  .destination = data}),
			 DMACOPY_DONE_FAULT);
	assert_int_equal(rig_interrupts(&rig, 9), 1);
	rig_teardown(&rig);
}

/* All below bytes_done was copied when a transfer ends at a hole. */
static void says_how_far_it_came(void **unused)
{
	struct dmacopy_completion completion;
	struct dmacopy_transfer transfer = {
		.flags = DMACOPY_DESC_DESTINATION_LOCAL,
		.length = 500000,
		.source = MEMORY_IOVA + MEMORY_SIZE - 300000,
	};
	struct rig rig;
	void *local;

	rig_setup(&rig, 7, false);
	random_fill(rig.memory + MEMORY_SIZE - 300000, 300000, 21);
	rig_submit(&rig, &transfer);
	rig_settle(&rig);
	assert_int_equal(dmacopy_driver_reap(rig.queue, &completion), 1);
	assert_int_equal(completion.status, DMACOPY_DONE_FAULT);
	assert_true(completion.bytes_done >= 300000 - 65536 && completion.bytes_done <= 300000);
	assert_int_equal(
		qsc_device_region_map(rig.dev, DMACOPY_BAR_LOCAL, 0, LOCAL_SIZE, PROT_READ, &local),
		0);
	assert_memory_equal(local, rig.memory + MEMORY_SIZE - 300000, completion.bytes_done);
	rig_teardown(&rig);
}

/* ---- hostile drivers ---- */

static void ring_program(struct rig *rig, uint64_t base, uint32_t size)
{
	assert_int_equal(
		dmacopy_driver_write32(rig->dev, DMACOPY_REG_CONTROL, DMACOPY_CONTROL_RESET), 0);
	assert_int_equal(dmacopy_driver_write64(rig->dev, DMACOPY_REG_RING_BASE, base), 0);
	assert_int_equal(dmacopy_driver_write32(rig->dev, DMACOPY_REG_RING_SIZE, size), 0);
	assert_int_equal(
		dmacopy_driver_write32(rig->dev, DMACOPY_REG_CONTROL, DMACOPY_CONTROL_ENABLE), 0);
}

static void refuses_rings_that_cannot_be(void **unused)
{
	static const struct {
		uint64_t base;
		uint32_t size;
	} rings[] = {
		{MEMORY_IOVA, 0},
		{MEMORY_IOVA, 3},
		{MEMORY_IOVA, 2 * DMACOPY_RING_MAX},
		{MEMORY_IOVA, UINT32_MAX},
		{MEMORY_IOVA + 8, 4},
		{UINT64_MAX - 63, 2},
		{UINT64_MAX, 1},
	};
	struct rig rig;

	rig_setup(&rig, 7, false);
	for (size_t i = 0; i < sizeof(rings) / sizeof(rings[0]); i++) {
		ring_program(&rig, rings[i].base, rings[i].size);
		assert_int_equal(rig_register(&rig, DMACOPY_REG_CONTROL), 0);
		assert_int_equal(rig_register(&rig, DMACOPY_REG_ERROR), DMACOPY_ERROR_BAD_RING);
		assert_int_equal(dmacopy_driver_doorbell(rig.dev), 0);
		rig_settle(&rig);
	}
	assert_int_equal(dmacopy_driver_write32(rig.dev, DMACOPY_REG_ERROR, 0), 0);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_ERROR), DMACOPY_ERROR_NONE);
	/* The ring in use cannot be changed. */
	ring_program(&rig, MEMORY_IOVA, 1);
	assert_int_equal(dmacopy_driver_write32(rig.dev, DMACOPY_REG_RING_SIZE, 64), 0);
	assert_int_equal(dmacopy_driver_write64(rig.dev, DMACOPY_REG_RING_BASE, 0), 0);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_RING_SIZE), 1);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_RING_BASE), MEMORY_IOVA);
	rig_teardown(&rig);
}

static void halts_at_a_ring_it_cannot_reach(void **unused)
{
	const struct qsc_dma_mapping read_only = {
		.iova = PEER_IOVA, .size = 4096, .flags = QSC_DMA_READ, .fd = -1};
	struct qsc_dma_mapping mapping = read_only;
	struct dmacopy_descriptor *descriptors;
	struct rig rig;

	rig_setup(&rig, 7, false);
	ring_program(&rig, PEER_IOVA, 64);
	rig_settle(&rig);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_ERROR), DMACOPY_ERROR_RING_READ);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_STATUS), DMACOPY_STATUS_HALTED);

	mapping.vaddr = rig.memory;
	assert_int_equal(qsc_device_dma_map(rig.dev, &mapping), 0);
	memset(rig.memory, 0, 4096);
	descriptors = (struct dmacopy_descriptor *)(void *)rig.memory;
	descriptors[0] = (struct dmacopy_descriptor){
		.flags = DMACOPY_DESC_OWN | DMACOPY_DESC_INTERRUPT, .vector = 2};
	ring_program(&rig, PEER_IOVA, 64);
	rig_settle(&rig);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_ERROR), DMACOPY_ERROR_RING_WRITE);
	assert_int_equal(rig_register(&rig, DMACOPY_REG_STATUS), DMACOPY_STATUS_HALTED);
	assert_int_equal(rig_interrupts(&rig, 2), 0);
	/* After a reset it is as good as new. */
	assert_int_equal(dmacopy_driver_start(rig.dev, rig.queue, MEMORY_IOVA, ENTRIES), 0);
	assert_int_equal(
		rig_copy(&rig, (struct dmacopy_transfer){.length = 100,
							 .source = MEMORY_IOVA + 100000,
							 .destination = MEMORY_IOVA + 200000}),
		DMACOPY_DONE_OK);
	rig_teardown(&rig);
}

/* A ring of which every slot is OWN: no descriptor is taken twice before it is written back. */
static void takes_a_full_ring_once(void **unused)
{
	struct dmacopy_descriptor *descriptors;
	struct rig rig;

	rig_setup(&rig, 7, false);
	descriptors = (struct dmacopy_descriptor *)(void *)rig.memory;
	for (uint32_t i = 0; i < 4; i++)
		descriptors[i] = (struct dmacopy_descriptor){
			.flags = DMACOPY_DESC_OWN | DMACOPY_DESC_INTERRUPT,
			.vector = i,
			.length = 200000,
			.source = MEMORY_IOVA + DATA_OFFSET,
			.destination = MEMORY_IOVA + DATA_OFFSET + 200000ULL * (i + 1),
		};
	ring_program(&rig, MEMORY_IOVA, 4);
	rig_settle(&rig);
	assert_int_equal(rig_register64(&rig, DMACOPY_REG_COMPLETED), 4);
	for (uint32_t i = 0; i < 4; i++)
		assert_int_equal(rig_interrupts(&rig, i), 1);
	rig_teardown(&rig);
}

/* RESET drops what is in flight: no write-back and no interrupt come afterwards. */
static void forgets_transfers_at_reset(void **unused)
{
	struct rig rig;
	uint64_t seed = 3;

	rig_setup(&rig, 7, false);
	for (uint32_t steps = 0; steps < 40; steps++) {
		struct dmacopy_completion completion;
		uint32_t written_back = 0;

		assert_int_equal(dmacopy_driver_start(rig.dev, rig.queue, MEMORY_IOVA, ENTRIES), 0);
		submit_batch(&rig, &seed);
		rig_steps(&rig, steps);
		assert_int_equal(
			dmacopy_driver_write32(rig.dev, DMACOPY_REG_CONTROL, DMACOPY_CONTROL_RESET),
			0);
		for (uint32_t i = 0; i < VECTORS; i++)
			written_back += dmacopy_driver_complete(rig.queue, i);
		rig_settle(&rig);
		for (uint32_t i = 0; i < VECTORS; i++) {
			written_back -= dmacopy_driver_complete(rig.queue, i);
			rig_interrupts(&rig, i);
		}
		assert_int_equal(written_back, 0);
		assert_int_equal(rig_register(&rig, DMACOPY_REG_CONTROL), 0);
		assert_int_equal(rig_register(&rig, DMACOPY_REG_STATUS), 0);
		while (dmacopy_driver_reap(rig.queue, &completion))
			;
	}
	rig_teardown(&rig);
}

/* A driver that writes anything anywhere: the engine stays within its registers and its memory. */
static void withstands_a_random_driver(void **unused)
{
	static const uint32_t values[] = {0, 1, 2, 3, 4, 64, 65536, UINT32_MAX};
	struct rig rig;
	uint64_t seed = 99;

	rig_setup(&rig, 7, true);
	for (uint32_t i = 0; i < 20000; i++) {
		uint64_t choice = random_next(&seed);
		uint32_t value = values[random_next(&seed) % 8];
		uint64_t wide = random_next(&seed) % 3 ? MEMORY_IOVA + (choice >> 40 << 6) : choice;
		uint32_t slot = (uint32_t)(random_next(&seed) % 64);

		switch (choice % 8) {
		case 0:
			dmacopy_driver_write32(rig.dev, (uint32_t)(random_next(&seed) % 64) * 4,
					       value);
			break;
		case 1:
			dmacopy_driver_write64(rig.dev, DMACOPY_REG_RING_BASE, MEMORY_IOVA);
			dmacopy_driver_write32(rig.dev, DMACOPY_REG_RING_SIZE, 64);
			dmacopy_driver_write32(rig.dev, DMACOPY_REG_CONTROL, 1);
			break;
		case 2:
			random_fill(rig.memory + 64ULL * slot, 64, random_next(&seed));
			break;
		case 3:
			((struct dmacopy_descriptor *)(void *)rig.memory)[slot] =
				(struct dmacopy_descriptor){
					.flags = (uint32_t)random_next(&seed) % 16 | 1,
					.vector = value % 32,
					.length = (uint32_t)(random_next(&seed) >> 44),
					.source = wide,
					.destination = MEMORY_IOVA + value,
				};
			break;
		case 4:
			rig_state(&rig,
				  choice >> 20 & 1 ? QSC_STATE_RUNNING_P2P : QSC_STATE_RUNNING);
			break;
		case 5:
			dmacopy_driver_doorbell(rig.dev);
			break;
		default:
			rig_steps(&rig, choice >> 30 & 7);
		}
	}
	rig_state(&rig, QSC_STATE_RUNNING);
	assert_int_equal(dmacopy_driver_start(rig.dev, rig.queue, MEMORY_IOVA, ENTRIES), 0);
	assert_int_equal(
		rig_copy(&rig, (struct dmacopy_transfer){.length = 100,
							 .source = MEMORY_IOVA + 100000,
							 .destination = MEMORY_IOVA + 200000}),
		DMACOPY_DONE_OK);
	rig_teardown(&rig);
}

#define FLAG_CASE(number, tells)                                                     \
	{                                                                            \
		"goes_on_after_a_migration, flags " #number ", tells-peers " #tells, \
			goes_on_after_a_migration, NULL, NULL, &(struct case_flags)  \
		{                                                                    \
			number, tells                                                \
		}                                                                    \
	}

int main(void)
{
	static bool tells = true;
	static bool cannot_tell = false;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identifies_itself),
		cmocka_unit_test(copies_everything),
		cmocka_unit_test(raises_one_interrupt_each),
		cmocka_unit_test(works_on_several_at_once),
		cmocka_unit_test(reaches_a_peer),
		cmocka_unit_test_prestate(quiesces_in_p2p, &tells),
		cmocka_unit_test_prestate(quiesces_in_p2p, &cannot_tell),
		FLAG_CASE(1, false),
		FLAG_CASE(1, true),
		FLAG_CASE(3, false),
		FLAG_CASE(3, true),
		FLAG_CASE(5, false),
		FLAG_CASE(5, true),
		FLAG_CASE(7, false),
		FLAG_CASE(7, true),
		cmocka_unit_test(survives_state_changes_under_load),
		cmocka_unit_test(reports_errors_in_the_descriptor),
		cmocka_unit_test(says_how_far_it_came),
		cmocka_unit_test(refuses_rings_that_cannot_be),
		cmocka_unit_test(halts_at_a_ring_it_cannot_reach),
		cmocka_unit_test(takes_a_full_ring_once),
		cmocka_unit_test(forgets_transfers_at_reset),
		cmocka_unit_test(withstands_a_random_driver),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
