/* SPDX-License-Identifier: MIT */
/* Reading and writing: where the data goes, what is refused, and queues that wrap, fill and go. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvme/controller.h"
#include "nvme/rig.h"

struct world {
	struct rig rig;
	struct driver driver;
};

static void begin(struct world *world, const struct nvme_options *options)
{
	rig_make(&world->rig, options, memory_make(), &world->driver);
}

static void begin_ram(struct world *world)
{
	const struct nvme_options options = rig_options(7);

	begin(world, &options);
	driver_start(&world->rig);
}

static void end(struct world *world)
{
	uint8_t *memory = world->rig.memory;

	rig_free(&world->rig);
	munmap(memory, MEMORY_SIZE);
}

/* ---- PRPs ---- */

/* A transfer over pages of memory in any order, described by PRPs. */
struct shape {
	uint64_t page;	      /* size */
	uint64_t offset;      /* in the first page */
	uint64_t list_offset; /* of the list in its first page */
	uint64_t size;
	uint8_t *places[160]; /* of the pages */
	struct nvme_command command;
};

#define LISTS_OFFSET (MEMORY_SIZE - (1U << 20))

/* Pages are drawn without repetition from `from` on; lists stand at the end of memory. */
static void shape_make(struct rig *rig, struct shape *shape, uint64_t *seed)
{
	uint64_t first = shape->page - shape->offset;
	uint64_t count = 1 + (shape->size > first
				      ? (shape->size - first + shape->page - 1) / shape->page
				      : 0);
	uint64_t room = (LISTS_OFFSET - DATA_OFFSET) / shape->page;
	uint64_t number = random_next(seed) % room;
	uint64_t step = random_next(seed) % 8 * 2 + 1;
	uint8_t *list = rig->memory + LISTS_OFFSET + shape->list_offset;
	uint64_t iovas[160] = {0};

	for (uint64_t i = 0; i < count; i++, number = (number + step) % room) {
		shape->places[i] = rig->memory + DATA_OFFSET + number * shape->page;
		iovas[i] = MEMORY_IOVA + (uint64_t)(shape->places[i] - rig->memory);
	}
	shape->command.prp1 = iovas[0] + shape->offset;
	shape->command.prp2 = count == 2 ? iovas[1] : 0xdead;
	if (count < 3)
		return;
	shape->command.prp2 = MEMORY_IOVA + (uint64_t)(list - rig->memory);
	for (uint64_t i = 1; i < count; i++) {
		/* The last entry of a page says where the list goes on, unless it ends there. */
		if (!((uintptr_t)(list + 8) % shape->page) && i + 1 < count) {
			uint8_t *next = list + 8 + shape->page;
			uint64_t iova = MEMORY_IOVA + (uint64_t)(next - rig->memory);

			memcpy(list, &iova, sizeof(iova));
			list = next;
		}
		memcpy(list, &iovas[i], sizeof(iovas[i]));
		list += 8;
	}
}

/* Between the pages and one stretch of bytes. */
SEES_DMA
static void shape_copy(const struct shape *shape, uint8_t *bytes, bool out)
{
	uint64_t at = 0;

	for (uint64_t i = 0; at < shape->size && shape->places[i]; i++) {
		uint64_t from = i ? 0 : shape->offset;
		uint64_t part = shape->page - from;

		part = part < shape->size - at ? part : shape->size - at;
		if (out)
			memcpy(&shape->places[i][from], bytes + at, part);
		else
			memcpy(bytes + at, &shape->places[i][from], part);
		at += part;
	}
}

static void shape_run(struct rig *rig, struct shape *shape, uint8_t opcode, uint64_t block)
{
	shape->command.opcode = opcode;
	shape->command.nsid = 1;
	shape->command.cdw10 = (uint32_t)block;
	shape->command.cdw12 = (uint32_t)(shape->size / BLOCK - 1);
	assert_int_equal(driver_do(rig, 1, shape->command, NULL), NVME_SC_SUCCESS);
}

static void moves_data_in_every_shape(void **state)
{
	static const uint32_t sizes[] = {512, 1024, 4096, 8192, 8704, 12288, 65536, 131072, 524288};
	static const uint32_t offsets[] = {0, 4, 512, 3584, 4092};
	static const uint32_t list_offsets[] = {0, 8, 4080, 4088, 3000};
	const uint64_t shift = *(const uint64_t *)*state;
	const struct nvme_options options = rig_options(7);
	uint8_t *written = malloc(524288);
	uint8_t *read = malloc(524288);
	uint64_t seed = 42 + shift;
	struct state *live;
	struct world world;

	begin(&world, &options);
	rig_write(&world.rig, NVME_REG_AQA, 0x1f001f);
	rig_write(&world.rig, NVME_REG_ASQ, (uint32_t)MEMORY_IOVA);
	rig_write(&world.rig, NVME_REG_ACQ, (uint32_t)MEMORY_IOVA + 4096);
	driver_start(&world.rig);
	/* The rig's queues are not aligned to larger pages, so no driver could ask for them. */
	live = qsc_runtime_state(world.rig.rt);
	live->cc |= (uint32_t)(shift - 12) << NVME_CC_MPS_SHIFT;
	for (uint32_t i = 0; i < 9 * 5 * 5; i++) {
		struct shape out = {.page = 1ULL << shift,
				    .size = sizes[i % 9],
				    .offset = offsets[i / 9 % 5],
				    .list_offset = list_offsets[i / 45]};
		struct shape in = {.page = 1ULL << shift,
				   .size = sizes[i % 9],
				   .offset = offsets[random_next(&seed) % 5],
				   .list_offset = list_offsets[random_next(&seed) % 5]};
		uint64_t block = random_next(&seed) % ((RAM_SIZE - 524288) / BLOCK);

		random_fill(written, out.size, i);
		shape_make(&world.rig, &out, &seed);
		shape_copy(&out, written, true);
		shape_run(&world.rig, &out, NVME_IO_WRITE, block);
		shape_make(&world.rig, &in, &seed);
		shape_run(&world.rig, &in, NVME_IO_READ, block);
		shape_copy(&in, read, false);
		assert_memory_equal(written, read, out.size);
	}
	free(written);
	free(read);
	end(&world);
}

static void refuses_wrong_io_commands(void **unused)
{
	const uint64_t blocks = RAM_SIZE / BLOCK;
	const struct nvme_command good = driver_rw(NVME_IO_READ, 0, 8, DATA_OFFSET);
	const struct {
		uint64_t block, prp1, prp2;
		uint32_t nsid, count, status;
		uint8_t opcode, flags;
	} cases[] = {
		{0, good.prp1, 0, 1, 8, NVME_SC_INVALID_OPCODE, 0x7f, 0},
		{0, good.prp1, 0, 1, 8, NVME_SC_INVALID_OPCODE, 0x05, 0},
		{0, good.prp1, 0, 1, 8, NVME_SC_INVALID_FIELD, NVME_IO_READ, 0x40},
		{0, good.prp1, 0, 1, 8, NVME_SC_INVALID_FIELD, NVME_IO_READ, 1},
		{0, good.prp1, 0, 0, 8, NVME_SC_INVALID_NAMESPACE, NVME_IO_READ, 0},
		{0, good.prp1, 0, 2, 8, NVME_SC_INVALID_NAMESPACE, NVME_IO_READ, 0},
		{0, good.prp1, 0, UINT32_MAX, 8, NVME_SC_INVALID_NAMESPACE, NVME_IO_READ, 0},
		{0, 0, 0, UINT32_MAX, 1, NVME_SC_SUCCESS, NVME_IO_FLUSH, 0},
		{0, 0, 0, 2, 1, NVME_SC_INVALID_NAMESPACE, NVME_IO_FLUSH, 0},
		{0, good.prp1, 0, 1, 1025, NVME_SC_INVALID_FIELD, NVME_IO_READ, 0},
		{blocks - 7, good.prp1, 0, 1, 8, NVME_SC_LBA_RANGE, NVME_IO_READ, 0},
		{blocks - 8, good.prp1, 0, 1, 8, NVME_SC_SUCCESS, NVME_IO_READ, 0},
		{blocks, good.prp1, 0, 1, 1, NVME_SC_LBA_RANGE, NVME_IO_WRITE, 0},
		{UINT64_MAX, good.prp1, 0, 1, 2, NVME_SC_LBA_RANGE, NVME_IO_WRITE, 0},
		{1ULL << 55, good.prp1, 0, 1, 1, NVME_SC_LBA_RANGE, NVME_IO_WRITE, 0},
		{blocks - 1, 0, 0, 1, 2, NVME_SC_LBA_RANGE, NVME_IO_WRITE_ZEROES, 0},
		{0, good.prp1 + 2, 0, 1, 1, NVME_SC_PRP_OFFSET, NVME_IO_READ, 0},
		{0, good.prp1, good.prp1 + 8, 1, 16, NVME_SC_PRP_OFFSET, NVME_IO_READ, 0},
		{0, good.prp1, good.prp1 + 4, 1, 24, NVME_SC_PRP_OFFSET, NVME_IO_READ, 0},
		{0, 0, 0, 1, 1, NVME_SC_DATA_TRANSFER, NVME_IO_READ, 0},
		{0, good.prp1, 0, 1, 16, NVME_SC_DATA_TRANSFER, NVME_IO_READ, 0},
		{0, good.prp1, 0x1000, 1, 24, NVME_SC_DATA_TRANSFER, NVME_IO_READ, 0},
		{0, UINT64_MAX - 3, 0, 1, 1, NVME_SC_DATA_TRANSFER, NVME_IO_WRITE, 0},
	};
	struct world world;

	begin_ram(&world);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct nvme_command command = driver_rw(cases[i].opcode, cases[i].block,
							cases[i].count, 0);
		uint32_t status;

		command.flags = cases[i].flags;
		command.nsid = cases[i].nsid;
		command.prp1 = cases[i].prp1;
		command.prp2 = cases[i].prp2;
		status = driver_do(&world.rig, 2, command, NULL);
		if (status != cases[i].status)
			fail_msg("case %zu: status 0x%x instead of 0x%x", i, status,
				 cases[i].status);
	}
	/* Others go on meanwhile. */
	assert_int_equal(driver_do(&world.rig, 1, good, NULL), NVME_SC_SUCCESS);
	end(&world);
}

/* A list that leads from one end of a page to the end of another would never get anywhere. */
static void walks_no_list_for_ever(void **unused)
{
	const uint64_t last = MEMORY_IOVA + DATA_OFFSET + 4088;
	struct nvme_command command = driver_rw(NVME_IO_READ, 0, 1024, 0);
	struct world world;

	begin_ram(&world);
	memcpy(world.rig.memory + DATA_OFFSET + 4088, &last, sizeof(last));
	command.prp1 = MEMORY_IOVA + DATA_OFFSET + 8192;
	command.prp2 = last;
	assert_int_equal(driver_do(&world.rig, 1, command, NULL), NVME_SC_PRP_OFFSET);
	end(&world);
}

/* ---- queues ---- */

static void wraps_around_its_queues(void **unused)
{
	struct nvme_completion completion;
	struct world world;
	uint64_t seed = 9;
	uint32_t sent = 0;
	uint32_t answered = 0;
	uint16_t cid = 1;

	begin_ram(&world);
	(void)rig_interrupts(&world.rig, 3);
	while (answered < 1000) {
		uint32_t batch = (uint32_t)(random_next(&seed) % (ENTRIES - 1 - (sent - answered)));
		uint64_t taken = random_next(&seed) % 20;

		for (uint32_t i = 0; i < batch; i++, sent++)
			driver_submit(&world.rig, 3, driver_rw(NVME_IO_READ, sent, 1, DATA_OFFSET));
		driver_doorbell(&world.rig, 3);
		rig_settle(&world.rig);
		/* One for what was sent together, or none: everything waits for room. */
		assert_in_range(rig_interrupts(&world.rig, 3), 0, 2);
		while (taken-- && driver_reap(&world.rig, 3, &completion)) {
			assert_int_equal(completion.status >> 1, NVME_SC_SUCCESS);
			assert_int_equal(completion.cid, cid++);
			answered++;
		}
		driver_acknowledge(&world.rig, 3);
		rig_settle(&world.rig);
	}
	end(&world);
}

/* Two submission queues fill one completion queue: what has no room waits, and nothing is lost. */
static void waits_for_room(void **unused)
{
	const struct nvme_command shared = {.opcode = NVME_ADMIN_CREATE_SQ,
					    .prp1 = MEMORY_IOVA + 2ULL * 8192,
					    .cdw10 = (ENTRIES - 1) << 16 | 2,
					    .cdw11 = 1 << 16 | 1};
	struct nvme_completion completion;
	struct world world;
	struct rig *rig = &world.rig;
	bool seen[3][2 * ENTRIES] = {{false}};
	uint32_t count = 0;

	begin_ram(&world);
	assert_int_equal(
		driver_do(rig, 0, (struct nvme_command){.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 2},
			  NULL),
		NVME_SC_SUCCESS);
	world.driver.queues[2] = (struct driver_queue){.entries = ENTRIES, .tag = 1};
	world.driver.queues[1].cid = 0;
	assert_int_equal(driver_do(rig, 0, shared, NULL), NVME_SC_SUCCESS);
	for (uint32_t i = 0; i < ENTRIES - 1; i++) {
		driver_submit(rig, 1, driver_rw(NVME_IO_READ, i, 1, DATA_OFFSET));
		driver_submit(rig, 2, driver_rw(NVME_IO_READ, i, 1, DATA_OFFSET));
	}
	driver_doorbell(rig, 1);
	driver_doorbell(rig, 2);
	rig_settle(rig);
	while (count < 2 * (ENTRIES - 1)) {
		uint32_t before = count;

		while (driver_reap(rig, 1, &completion)) {
			assert_in_range(completion.sq_id, 1, 2);
			assert_false(seen[completion.sq_id][completion.cid]);
			seen[completion.sq_id][completion.cid] = true;
			count++;
		}
		assert_in_range(count - before, 1, ENTRIES - 1);
		driver_acknowledge(rig, 1);
		rig_settle(rig);
	}
	assert_false(driver_reap(rig, 1, &completion));
	end(&world);
}

/* What was answered is there, what was not is gone, and a new queue begins anew. */
static void deletes_a_queue_at_work(void **unused)
{
	struct nvme_completion completion;
	struct world world;
	struct rig *rig = &world.rig;
	uint64_t seed = 11;

	begin_ram(&world);
	for (uint32_t round = 0; round < 50; round++) {
		for (uint32_t i = 0; i < 20; i++)
			driver_submit(rig, 1, driver_rw(NVME_IO_READ, i, 1000, DATA_OFFSET));
		driver_doorbell(rig, 1);
		driver_submit(rig, 0,
			      (struct nvme_command){.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 1});
		rig_steps(rig, random_next(&seed) % 6);
		driver_doorbell(rig, 0);
		rig_settle(rig);
		assert_true(driver_reap(rig, 0, &completion));
		assert_int_equal(completion.status >> 1, NVME_SC_SUCCESS);
		driver_acknowledge(rig, 0);
		while (driver_reap(rig, 1, &completion))
			assert_true(completion.cid <= 20);
		assert_int_equal(
			driver_do(rig, 0,
				  (struct nvme_command){.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 1},
				  NULL),
			NVME_SC_SUCCESS);
		assert_int_equal(driver_create(rig, 1), NVME_SC_SUCCESS);
	}
	end(&world);
}

static void forgets_commands_at_a_reset(void **unused)
{
	struct nvme_completion completion;
	struct world world;
	struct rig *rig = &world.rig;

	begin_ram(&world);
	for (uint32_t round = 0; round < 20; round++) {
		for (uint32_t i = 0; i < 8; i++)
			driver_submit(rig, 1 + i % IO_QUEUES,
				      driver_rw(NVME_IO_READ, i, 100, DATA_OFFSET));
		for (uint32_t qid = 1; qid <= IO_QUEUES; qid++)
			driver_doorbell(rig, qid);
		rig_steps(rig, round);
		rig_write(rig, NVME_REG_CC, 0);
		assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
		rig_settle(rig);
		driver_start(rig);
		for (uint32_t qid = 0; qid <= IO_QUEUES; qid++)
			assert_false(driver_reap(rig, qid, &completion));
	}
	end(&world);
}

/* ---- zeroes ---- */

static void clears_blocks(void **state)
{
	const bool on_file = *(const bool *)*state;
	struct nvme_options options = rig_options(7);
	uint8_t *expected = malloc(65536);
	const struct nvme_command deallocate = {.opcode = NVME_IO_DATASET_MANAGEMENT,
						.nsid = 1,
						.prp1 = MEMORY_IOVA + SCRATCH_OFFSET,
						.cdw10 = 2,
						.cdw11 = NVME_DSM_DEALLOCATE};
	struct nvme_command command;
	struct nvme_range ranges[3] = {{0, 3, 20}, {0, 0, 5}, {0, 40, 60}};
	struct world world;
	struct rig *rig = &world.rig;

	if (on_file) {
		options.ram = 0;
		options.file = file_make(RAM_SIZE);
	}
	begin(&world, &options);
	driver_start(rig);
	random_fill(expected, 65536, 5);
	memcpy(rig->memory + DATA_OFFSET, expected, 65536);
	for (uint64_t i = 0; i < 8; i++) {
		command = driver_rw(NVME_IO_WRITE, i * 16, 16, DATA_OFFSET + i * 8192);
		assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	}
	command = driver_rw(NVME_IO_WRITE_ZEROES, 1, 15, 0);
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	memset(expected + BLOCK, 0, 15 * BLOCK);
	command = driver_rw(NVME_IO_WRITE_ZEROES, 110, 3, 0);
	command.cdw12 |= NVME_WZ_DEALLOCATE | NVME_RW_FUA;
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	memset(expected + 110 * BLOCK, 0, 3 * BLOCK);
	memcpy(rig->memory + SCRATCH_OFFSET, ranges, sizeof(ranges));
	assert_int_equal(driver_do(rig, 1, deallocate, NULL), NVME_SC_SUCCESS);
	memset(expected + 20 * BLOCK, 0, 3 * BLOCK);
	memset(expected + 60 * BLOCK, 0, 40 * BLOCK);
	/* Hints only: nothing happens. */
	command = deallocate;
	command.cdw11 = 3;
	ranges[0] = (struct nvme_range){0, 100, 0};
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	for (uint64_t i = 0; i < 8; i++) {
		command = driver_rw(NVME_IO_READ, i * 16, 16, DATA_OFFSET + i * 8192);
		assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	}
	assert_memory_equal(rig->memory + DATA_OFFSET, expected, 65536);
	/* A range that is not there, after one that is. */
	ranges[1] = (struct nvme_range){0, 2, RAM_SIZE / BLOCK - 1};
	memcpy(rig->memory + SCRATCH_OFFSET, ranges, sizeof(ranges));
	assert_int_equal(driver_do(rig, 1, deallocate, NULL), NVME_SC_LBA_RANGE);
	/* All of it. */
	ranges[0] = (struct nvme_range){0, RAM_SIZE / BLOCK, 0};
	command = deallocate;
	command.cdw10 = 0;
	memcpy(rig->memory + SCRATCH_OFFSET, ranges, sizeof(ranges));
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	memset(expected, 0, 8192);
	command = driver_rw(NVME_IO_READ, 0, 16, DATA_OFFSET);
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	assert_memory_equal(rig->memory + DATA_OFFSET, expected, 8192);
	free(expected);
	end(&world);
}

/* ---- files ---- */

static void writes_to_its_file(void **unused)
{
	struct nvme_options options = rig_options(7);
	struct nvme_command command;
	struct world world;
	struct rig *rig = &world.rig;
	uint8_t data[8192];
	int fd;

	options.ram = 0;
	options.file = file_make(RAM_SIZE + 100);
	begin(&world, &options);
	driver_start(rig);
	random_fill(rig->memory + DATA_OFFSET, 8192, 3);
	command = driver_rw(NVME_IO_WRITE, 100, 16, DATA_OFFSET);
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	command = driver_rw(NVME_IO_WRITE, 200, 1, DATA_OFFSET);
	command.cdw12 |= NVME_RW_FUA;
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	assert_int_equal(driver_set_feature(rig, NVME_FEAT_WRITE_CACHE, 0), NVME_SC_SUCCESS);
	command = driver_rw(NVME_IO_WRITE, RAM_SIZE / BLOCK - 1, 1, DATA_OFFSET);
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_SUCCESS);
	assert_int_equal(
		driver_do(rig, 1, (struct nvme_command){.opcode = NVME_IO_FLUSH, .nsid = 1}, NULL),
		NVME_SC_SUCCESS);
	fd = open(options.file, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, data, 8192, 100 * BLOCK), 8192);
	assert_memory_equal(data, rig->memory + DATA_OFFSET, 8192);
	assert_int_equal(pread(fd, data, BLOCK, RAM_SIZE - BLOCK), BLOCK);
	assert_memory_equal(data, rig->memory + DATA_OFFSET, BLOCK);
	close(fd);
	/* Somebody cuts it off. */
	assert_int_equal(truncate(options.file, 4096), 0);
	command = driver_rw(NVME_IO_READ, 100, 16, DATA_OFFSET);
	assert_int_equal(driver_do(rig, 1, command, NULL), NVME_SC_READ_FAULT);
	end(&world);
}

static void only_reads_a_readonly_file(void **unused)
{
	static const uint8_t writing[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES,
					  NVME_IO_DATASET_MANAGEMENT};
	struct nvme_options options = rig_options(7);
	struct world worlds[2];
	uint8_t data[4096];

	options.ram = 0;
	options.file = file_make(RAM_SIZE);
	options.readonly = true;
	for (uint32_t i = 0; i < 2; i++) {
		begin(&worlds[i], &options);
		driver_start(&worlds[i].rig);
	}
	assert_int_equal(driver_identify(&worlds[0].rig, 0, 1, data), NVME_SC_SUCCESS);
	assert_int_equal(data[99], 1);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(driver_do(&worlds[0].rig, 1,
					   driver_rw(writing[i], 0, 1, DATA_OFFSET), NULL),
				 NVME_SC_READ_ONLY);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(driver_do(&worlds[i].rig, 1,
					   driver_rw(NVME_IO_READ, 0, 1, DATA_OFFSET), NULL),
				 NVME_SC_SUCCESS);
		end(&worlds[i]);
	}
}

static void says_why_a_file_cannot_be(void **unused)
{
	static const struct {
		const char *file;
		const char *text;
	} cases[] = {
		{"/nowhere/at/all", "nvme cannot use the file /nowhere/at/all: No such file or "
				    "directory; make it with truncate "
				    "first"},
		{"/dev", "nvme cannot use /dev: it is no regular file"},
	};
	struct nvme_options options = {.manual = true};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_runtime *rt;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		options.file = cases[i].file;
		assert_true(nvme_create(&options, &rt, &err) < 0);
		assert_string_equal(err.text, cases[i].text);
	}
	options.file = file_make(4096);
	assert_int_equal(nvme_create(&options, &rt, &err), -EINVAL);
	assert_non_null(strstr(err.text, "must have 1 MiB at least"));
}

/* ---- threads ---- */

struct worker {
	struct rig *rig;
	uint32_t qid;
	bool right;
};

#define AREA_BLOCKS 1024U
#define ROUNDS	    60U

SEES_DMA
static bool area_check(const uint8_t *memory, uint64_t seed)
{
	uint8_t expected[16 * BLOCK];

	random_fill(expected, sizeof(expected), seed);
	for (size_t i = 0; i < sizeof(expected); i++) {
		if (memory[i] != expected[i])
			return false;
	}
	return true;
}

SEES_DMA
static void area_fill(uint8_t *memory, uint64_t seed)
{
	random_fill(memory, 16 * BLOCK, seed);
}

/* Writes and reads back blocks of its own, many at a time, woken by interrupts. */
static void *drive(void *arg)
{
	struct worker *worker = arg;
	struct rig *rig = worker->rig;
	uint32_t qid = worker->qid;
	uint64_t base = (uint64_t)(qid - 1) * AREA_BLOCKS;
	struct nvme_completion completion;

	worker->right = true;
	for (uint32_t round = 0; round < ROUNDS; round++) {
		uint8_t opcode = round % 2 ? NVME_IO_READ : NVME_IO_WRITE;
		uint32_t count = 1 + round % 16;
		uint32_t answered = 0;

		count = round % 2 ? 1 + (round - 1) % 16 : count;
		for (uint64_t i = 0; i < count; i++) {
			uint64_t offset = DATA_OFFSET + ((qid - 1) * 16ULL + i) * 16 * BLOCK;

			if (opcode == NVME_IO_WRITE)
				area_fill(rig->memory + offset, qid * 1000 + round * 16 + i);
			else
				memset(rig->memory + offset, 0, 16 * BLOCK);
			driver_submit(rig, qid, driver_rw(opcode, base + i * 16, 16, offset));
		}
		driver_doorbell(rig, qid);
		while (answered < count) {
			if (!driver_reap(rig, qid, &completion)) {
				(void)rig_interrupts(rig, qid);
				continue;
			}
			worker->right &= completion.status >> 1 == NVME_SC_SUCCESS;
			answered++;
		}
		driver_acknowledge(rig, qid);
		for (uint32_t i = 0; i < count && opcode == NVME_IO_READ; i++)
			worker->right &= area_check(rig->memory + DATA_OFFSET +
							    ((qid - 1) * 16ULL + i) * 16 * BLOCK,
						    qid * 1000 + (round - 1) * 16 + i);
	}
	return NULL;
}

static void serves_several_queues_at_once(void **state)
{
	const bool on_file = *(const bool *)*state;
	struct nvme_options options = rig_options(7);
	struct worker workers[IO_QUEUES];
	pthread_t threads[IO_QUEUES];
	struct world world;

	options.manual = false;
	if (on_file) {
		options.ram = 0;
		options.file = file_make(RAM_SIZE);
	}
	begin(&world, &options);
	driver_start(&world.rig);
	for (uint32_t i = 0; i < IO_QUEUES; i++) {
		workers[i] = (struct worker){&world.rig, i + 1, false};
		assert_int_equal(pthread_create(&threads[i], NULL, drive, &workers[i]), 0);
	}
	for (uint32_t i = 0; i < IO_QUEUES; i++) {
		pthread_join(threads[i], NULL);
		assert_true(workers[i].right);
	}
	end(&world);
}

int main(void)
{
	static uint64_t small_pages = 12;
	static uint64_t large_pages = 16;
	static bool ram = false;
	static bool file = true;
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_prestate(moves_data_in_every_shape, &small_pages),
		cmocka_unit_test_prestate(moves_data_in_every_shape, &large_pages),
		cmocka_unit_test(refuses_wrong_io_commands),
		cmocka_unit_test(walks_no_list_for_ever),
		cmocka_unit_test(wraps_around_its_queues),
		cmocka_unit_test(waits_for_room),
		cmocka_unit_test(deletes_a_queue_at_work),
		cmocka_unit_test(forgets_commands_at_a_reset),
		cmocka_unit_test_prestate(clears_blocks, &ram),
		cmocka_unit_test_prestate(clears_blocks, &file),
		cmocka_unit_test(writes_to_its_file),
		cmocka_unit_test(only_reads_a_readonly_file),
		cmocka_unit_test(says_why_a_file_cannot_be),
		cmocka_unit_test_prestate(serves_several_queues_at_once, &ram),
		cmocka_unit_test_prestate(serves_several_queues_at_once, &file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
