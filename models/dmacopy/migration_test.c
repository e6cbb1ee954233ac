/* SPDX-License-Identifier: MIT */
/*
 * dmacopy between its states: quiescent towards peers, moved in the middle of transfers, and
 * offered states that cannot be.
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

#include "dmacopy/rig.h"

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

/* Every target holds what its descriptor says. */
DMACOPY_SEES_DMA
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

/* ---- streams that are well-formed and tell of what cannot be ---- */

/* The engine's declared state, made up by a model that claims to be dmacopy and checks nothing. */
struct forged_channel {
	uint32_t phase, index, flags, vector, length, status;
	uint64_t source, destination, done;
};

struct forged {
	uint32_t control, error, halted, ring_size, head;
	uint64_t ring_base, scratch, completed, bytes, failed;
	struct forged_channel channels[DMACOPY_CHANNELS];
};

static const struct qsc_field forged_channel_fields[] = {
	QSC_FIELD(struct forged_channel, phase),  QSC_FIELD(struct forged_channel, index),
	QSC_FIELD(struct forged_channel, flags),  QSC_FIELD(struct forged_channel, vector),
	QSC_FIELD(struct forged_channel, length), QSC_FIELD(struct forged_channel, status),
	QSC_FIELD(struct forged_channel, source), QSC_FIELD(struct forged_channel, destination),
	QSC_FIELD(struct forged_channel, done),	  QSC_FIELD_END,
};

static const struct qsc_field forged_register_fields[] = {
	QSC_FIELD(struct forged, control),
	QSC_FIELD(struct forged, error),
	QSC_FIELD(struct forged, halted),
	QSC_FIELD(struct forged, ring_size),
	QSC_FIELD(struct forged, head),
	QSC_FIELD(struct forged, ring_base),
	QSC_FIELD(struct forged, scratch),
	QSC_FIELD(struct forged, completed),
	QSC_FIELD(struct forged, bytes),
	QSC_FIELD(struct forged, failed),
	QSC_FIELD_END,
};

static const struct qsc_field forged_flight_fields[] = {
	QSC_FIELD_STRUCTS(struct forged, channels, forged_channel_fields),
	QSC_FIELD_END,
};

static const struct qsc_section forged_sections[] = {
	{"registers", 1, 1, forged_register_fields},
	{"in-flight", 1, 1, forged_flight_fields},
	{NULL, 0, 0, NULL},
};

static void forged_reset(void *ctx)
{
}

static int forged_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	memset(buf, 0, count);
	return 0;
}

static int forged_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	return 0;
}

static const struct qsc_model forged_model = {
	.type = "dmacopy",
	.pci = {.vendor = DMACOPY_PCI_VENDOR,
		.device = DMACOPY_PCI_DEVICE,
		.subsystem_vendor = DMACOPY_PCI_VENDOR,
		.subsystem = 1,
		.class_code = 0x088000,
		.revision = 1},
	.state_size = sizeof(struct forged),
	.sections = forged_sections,
	.reset = forged_reset,
	.region_read = forged_read,
	.region_write = forged_write,
};

/* The stream of a dmacopy in this state. */
static void stream_forge(const struct forged *state, struct stream *stream)
{
	const struct qsc_block_desc block = {.name = "local", .size = LOCAL_SIZE};
	const struct qsc_region_desc regions[] = {
		{VFIO_PCI_BAR0_REGION_INDEX, DMACOPY_REGISTERS_SIZE,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK},
		{VFIO_PCI_BAR2_REGION_INDEX, LOCAL_SIZE,
		 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP,
		 0},
	};
	const struct qsc_runtime_options options = {
		.migration_flags = 7,
		.blocks = &block,
		.num_blocks = 1,
		.regions = regions,
		.num_regions = 2,
		.msix_vectors = VECTORS,
		.manual = true,
		.destroy_on_close = true,
	};
	struct qsc_error err = QSC_ERROR_NONE;
	struct rig rig = {0};
	uint64_t session;

	if (qsc_runtime_create(&forged_model, NULL, &options, &rig.rt, &err))
		fail_msg("%s", err.text);
	assert_int_equal(qsc_runtime_open(rig.rt, &rig.dev), 0);
	memcpy(qsc_runtime_state(rig.rt), state, sizeof(*state));
	assert_int_equal(qsc_device_set_state(rig.dev, QSC_STATE_STOP_COPY, &session), 0);
	stream_read(&rig, session, stream);
	qsc_device_close(rig.dev);
}

/* Whether the engine accepts the state; where it does not, it is in ERROR until a reset. */
static bool rig_accepts(struct rig *rig, const struct forged *state)
{
	struct stream stream = {0};
	enum qsc_state reached;
	uint64_t session;
	int ret;

	stream_forge(state, &stream);
	stream_load(rig, &stream);
	free(stream.data);
	ret = qsc_device_set_state(rig->dev, QSC_STATE_STOP, &session);
	assert_int_equal(qsc_device_get_state(rig->dev, &reached), 0);
	assert_int_equal(reached, ret ? QSC_STATE_ERROR : QSC_STATE_STOP);
	assert_int_equal(qsc_device_reset(rig->dev), 0);
	return !ret;
}

/* clang-format off */
#define FORGE(member, wrong)                                                                       \
	{#member, offsetof(struct forged, member), sizeof(((struct forged *)0)->member), wrong}
/* clang-format on */

/* In the middle of everything: one copies, one waits to give up OWN, one to report a fault. */
static const struct forged right_state = {
	.control = DMACOPY_CONTROL_ENABLE,
	.ring_size = 4,
	.head = 3,
	.ring_base = MEMORY_IOVA,
	.completed = 5,
	.failed = 2,
	.channels = {{.phase = 1,
		      .index = 1,
		      .flags = DMACOPY_DESC_OWN | DMACOPY_DESC_DESTINATION_LOCAL |
			       DMACOPY_DESC_INTERRUPT,
		      .vector = VECTORS - 1,
		      .length = LOCAL_SIZE,
		      .source = MEMORY_IOVA,
		      .done = LOCAL_SIZE - 1},
		     {.phase = 0},
		     {.phase = 3,
		      .index = 2,
		      .flags = DMACOPY_DESC_OWN,
		      .length = 10,
		      .status = DMACOPY_DONE_OK,
		      .source = MEMORY_IOVA,
		      .destination = 1,
		      .done = 10},
		     {.phase = 2,
		      .index = 0,
		      .flags = DMACOPY_DESC_OWN,
		      .length = 10,
		      .status = DMACOPY_DONE_FAULT,
		      .source = MEMORY_IOVA}},
};

static const struct {
	const char *what;
	size_t offset;
	size_t size;
	uint64_t value;
} wrong_states[] = {
	FORGE(control, DMACOPY_CONTROL_RESET),
	FORGE(control, UINT32_MAX),
	FORGE(error, DMACOPY_ERROR_RING_WRITE + 1),
	FORGE(halted, 2),
	FORGE(ring_size, 0),
	FORGE(ring_size, 2),
	FORGE(ring_size, 6),
	FORGE(ring_size, DMACOPY_RING_MAX << 1),
	FORGE(ring_base, MEMORY_IOVA + 1),
	FORGE(ring_base, UINT64_MAX - 63),
	FORGE(head, 4),
	FORGE(failed, 6),
	FORGE(channels[0].phase, 4),
	FORGE(channels[0].phase, 2),
	FORGE(channels[0].phase, 0),
	FORGE(channels[0].index, 4),
	FORGE(channels[0].index, 2),
	FORGE(channels[0].flags, 0),
	FORGE(channels[0].flags, 0x105),
	FORGE(channels[0].vector, VECTORS),
	FORGE(channels[0].length, LOCAL_SIZE + 1),
	FORGE(channels[0].length, LOCAL_SIZE - 1),
	FORGE(channels[0].length, LOCAL_SIZE - 2),
	FORGE(channels[0].status, DMACOPY_DONE_OK),
	FORGE(channels[0].source, UINT64_MAX),
	FORGE(channels[0].destination, 1),
	FORGE(channels[0].done, LOCAL_SIZE),
	FORGE(channels[0].done, UINT64_MAX),
	FORGE(channels[1].length, 1),
	FORGE(channels[1].index, 1),
	FORGE(channels[2].status, 0),
	FORGE(channels[2].status, DMACOPY_DONE_FAULT),
	FORGE(channels[2].status, DMACOPY_DONE_RANGE),
	FORGE(channels[2].status, DMACOPY_DONE_INVALID),
	FORGE(channels[2].status, DMACOPY_DONE_IO + 1),
	FORGE(channels[2].done, 9),
	FORGE(channels[2].phase, 1),
	FORGE(channels[3].status, DMACOPY_DONE_OK),
	FORGE(channels[3].done, 10),
};

static void refuses_states_that_cannot_be(void **unused)
{
	struct rig rig;

	rig_setup(&rig, 7, false);
	assert_true(rig_accepts(&rig, &right_state));
	assert_true(rig_accepts(&rig, &(struct forged){.ring_base = 1, .ring_size = 3}));
	for (size_t i = 0; i < sizeof(wrong_states) / sizeof(wrong_states[0]); i++) {
		struct forged state = right_state;

		memcpy((uint8_t *)&state + wrong_states[i].offset, &wrong_states[i].value,
		       wrong_states[i].size);
		if (rig_accepts(&rig, &state))
			fail_msg("%s = %#llx was accepted", wrong_states[i].what,
				 (unsigned long long)wrong_states[i].value);
	}
	rig_teardown(&rig);
}

/* clang-format off */
#define FLAG_CASE(number, tells)                                                                   \
	{"goes_on_after_a_migration, flags " #number ", tells-peers " #tells,                      \
	 goes_on_after_a_migration, NULL, NULL, &(struct case_flags){number, tells}}
/* clang-format on */

int main(void)
{
	static bool tells = true;
	static bool cannot_tell = false;
	const struct CMUnitTest tests[] = {
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
		cmocka_unit_test(refuses_states_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
