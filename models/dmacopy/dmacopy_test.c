/* SPDX-License-Identifier: MIT */
/* What dmacopy does for a driver that behaves, and for one that does not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "dmacopy/rig.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(identifies_itself),
		cmocka_unit_test(copies_everything),
		cmocka_unit_test(raises_one_interrupt_each),
		cmocka_unit_test(works_on_several_at_once),
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
