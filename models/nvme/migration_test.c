/* SPDX-License-Identifier: MIT */
/*
 * The NVMe controller between its states: moved in the middle of its commands, with its memory or
 * leaving its file to the next, and offered states that cannot be.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "nvme/controller.h"
#include "nvme/rig.h"

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
	rig_state(rig, QSC_STATE_STOP);
}

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

/* ---- in the middle of commands ---- */

#define COMMANDS 24U /* of a queue in a round */
/* Two pages and a list each: pieces of a command can be done on either side. */
#define COMMAND_BLOCKS 300U
#define COMMAND_SIZE   (COMMAND_BLOCKS * BLOCK)

/* What was asked of the disk, and how it was answered. */
struct load {
	uint8_t *disk; /* what it must hold */
	bool answered[IO_QUEUES + 1][COMMANDS];
	uint16_t first[IO_QUEUES + 1]; /* identifier of the round's first command */
	uint32_t left;
};

/* The lists of PRPs of everything stand before the data; each page leads to the next. */
static struct nvme_command listed(struct rig *rig, uint8_t opcode, uint64_t block, uint64_t number)
{
	const uint64_t list = 0x20000 + number * 512;
	const uint64_t data = DATA_OFFSET + number * 40 * 4096;
	struct nvme_command command = driver_rw(opcode, block, COMMAND_BLOCKS, data);

	for (uint64_t i = 0; i < 38; i++) {
		uint64_t iova = MEMORY_IOVA + data + (i + 1) * 4096;

		memcpy(rig->memory + list + i * 8, &iova, sizeof(iova));
	}
	command.prp2 = MEMORY_IOVA + list;
	return command;
}

/* Writes to the first half of the disk; to the second zeroes, flushes and what is wrong. */
static void submit_round(struct rig *rig, struct load *load, uint64_t *seed)
{
	uint64_t number = 0;

	for (uint32_t qid = 1; qid <= IO_QUEUES; qid++) {
		load->first[qid] = rig->driver->queues[qid].cid;
		for (uint32_t i = 0; i < COMMANDS; i++) {
			uint64_t block = RAM_SIZE / BLOCK / 2 + random_next(seed) % 2000;
			struct nvme_command command = {.opcode = NVME_IO_FLUSH, .nsid = 1};

			if (i % 3 == 1) {
				command = driver_rw(NVME_IO_WRITE_ZEROES, block, 16, 0);
				memset(load->disk + block * BLOCK, 0, 16 * BLOCK);
			} else if (i % 3 == 2 && number < 12) {
				block = number * COMMAND_BLOCKS;
				command = listed(rig, NVME_IO_WRITE, block, number);
				random_fill(load->disk + block * BLOCK, COMMAND_SIZE,
					    random_next(seed));
				memcpy(rig->memory + DATA_OFFSET + number * 40 * 4096,
				       load->disk + block * BLOCK, COMMAND_SIZE);
				number++;
			}
			driver_submit(rig, qid, command);
			load->left++;
		}
		driver_doorbell(rig, qid);
	}
}

/* What an interrupt handler does: nothing without an interrupt. */
static void handle_interrupts(struct rig *rig, struct load *load, struct rig *other)
{
	struct nvme_completion completion;

	for (uint32_t qid = 1; qid <= IO_QUEUES; qid++) {
		bool any = rig_interrupts(rig, qid);

		if (!any && !(other && rig_interrupts(other, qid)))
			continue;
		while (driver_reap(rig, qid, &completion)) {
			uint32_t number = (uint16_t)(completion.cid - load->first[qid]);

			assert_int_equal(completion.sq_id, qid);
			assert_int_equal(completion.status >> 1, NVME_SC_SUCCESS);
			assert_in_range(number, 0, COMMANDS - 1);
			assert_false(load->answered[qid][number]);
			load->answered[qid][number] = true;
			load->left--;
		}
		driver_acknowledge(rig, qid);
	}
}

static void check_disk(struct rig *rig, const uint8_t *disk)
{
	for (uint64_t block = 0; block < RAM_SIZE / BLOCK; block += 16) {
		assert_int_equal(
			driver_do(rig, 1, driver_rw(NVME_IO_READ, block, 16, DATA_OFFSET), NULL),
			NVME_SC_SUCCESS);
		assert_memory_equal(rig->memory + DATA_OFFSET, disk + block * BLOCK, 16 * BLOCK);
	}
}

struct variant {
	uint32_t flags;
	bool file;
};

/* Rounds of load with a migration after a random number of steps, one controller to the other. */
static void goes_on_after_a_migration(void **state)
{
	const struct variant *variant = *state;
	struct nvme_options options = rig_options(variant->flags);
	struct load load = {.disk = calloc(1, RAM_SIZE)};
	uint8_t *memory = memory_make();
	uint64_t seed = 77 + variant->flags;
	struct driver driver;
	struct rig rigs[2];

	if (variant->file) {
		options.ram = 0;
		options.file = file_make(RAM_SIZE);
	}
	rig_make(&rigs[0], &options, memory, &driver);
	driver_start(&rigs[0]);
	random_fill(load.disk + RAM_SIZE / 2, RAM_SIZE / 2, seed);
	for (uint64_t block = RAM_SIZE / BLOCK / 2; block < RAM_SIZE / BLOCK; block += 16) {
		memcpy(memory + DATA_OFFSET, load.disk + block * BLOCK, 16 * BLOCK);
		assert_int_equal(driver_do(&rigs[0], 1,
					   driver_rw(NVME_IO_WRITE, block, 16, DATA_OFFSET), NULL),
				 NVME_SC_SUCCESS);
	}
	for (uint32_t round = 0; round < 10; round++) {
		struct rig *from = &rigs[round % 2];
		struct rig *to = &rigs[(round + 1) % 2];

		memset(load.answered, 0, sizeof(load.answered));
		for (uint32_t qid = 0; qid <= IO_QUEUES; qid++)
			(void)rig_interrupts(from, qid);
		submit_round(from, &load, &seed);
		rig_steps(from, random_next(&seed) % 60);
		handle_interrupts(from, &load, NULL);
		rig_make(to, &options, memory, &driver);
		rig_migrate(from, to, variant->flags);
		while (load.left) {
			uint32_t before = load.left;

			rig_settle(to);
			handle_interrupts(to, &load, from);
			assert_true(load.left < before);
		}
		rig_free(from);
	}
	check_disk(&rigs[0], load.disk);
	rig_free(&rigs[0]);
	munmap(memory, MEMORY_SIZE);
	free(load.disk);
}

static void keeps_requests_for_events(void **unused)
{
	const struct nvme_options options = rig_options(7);
	struct nvme_completion completion;
	uint8_t *memory = memory_make();
	uint8_t before[4096];
	uint8_t after[4096];
	struct driver driver;
	struct rig from;
	struct rig to;
	uint16_t cid;

	rig_make(&from, &options, memory, &driver);
	driver_start(&from);
	assert_int_equal(driver_identify(&from, 1, 0, before), NVME_SC_SUCCESS);
	assert_int_equal(driver_set_feature(&from, NVME_FEAT_ASYNC_EVENT, 2), NVME_SC_SUCCESS);
	cid = driver_submit(&from, 0, (struct nvme_command){.opcode = NVME_ADMIN_ASYNC_EVENT});
	driver_doorbell(&from, 0);
	rig_settle(&from);
	rig_make(&to, &options, memory, &driver);
	rig_migrate(&from, &to, 7);
	rig_free(&from);
	rig_settle(&to);
	assert_false(driver_reap(&to, 0, &completion));
	/* The same disk as before, also after a reset; and the event goes to the old request. */
	assert_int_equal(driver_identify(&to, 1, 0, after), NVME_SC_SUCCESS);
	assert_memory_equal(before, after, 4096);
	rig_write(&to, NVME_REG_DOORBELL + 8 * 100, 0);
	rig_settle(&to);
	assert_true(driver_reap(&to, 0, &completion));
	assert_int_equal(completion.cid, cid);
	assert_int_equal(completion.result, 0x010000);
	assert_int_equal(qsc_device_reset(to.dev), 0);
	driver_start(&to);
	assert_int_equal(driver_identify(&to, 1, 0, after), NVME_SC_SUCCESS);
	assert_memory_equal(before, after, 4096);
	rig_free(&to);
	munmap(memory, MEMORY_SIZE);
}

/* What was written since is moved again, and no more; a reset does not lose it. */
static void moves_its_memory_ahead(void **unused)
{
	const struct nvme_options options = rig_options(7);
	struct qsc_precopy_info info;
	struct stream stream = {0};
	uint8_t *memory = memory_make();
	struct driver driver;
	struct rig rig;
	uint64_t session;

	rig_make(&rig, &options, memory, &driver);
	driver_start(&rig);
	random_fill(memory + DATA_OFFSET, 65536, 1);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(
			driver_do(&rig, 1,
				  driver_rw(NVME_IO_WRITE, i * 16, 16, DATA_OFFSET + i * 8192),
				  NULL),
			NVME_SC_SUCCESS);
	assert_int_equal(qsc_device_set_state(rig.dev, QSC_STATE_PRE_COPY, &session), 0);
	stream_read(&rig, session, &stream);
	assert_true(stream.size > 65536 && stream.size < 65536 + 16384);
	assert_int_equal(qsc_device_session_precopy_info(rig.dev, session, &info), 0);
	assert_int_equal(info.dirty_bytes, 0);
	assert_int_equal(driver_do(&rig, 1, driver_rw(NVME_IO_WRITE, 2000, 9, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	assert_int_equal(driver_do(&rig, 2, driver_rw(NVME_IO_READ, 0, 16, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	assert_int_equal(qsc_device_session_precopy_info(rig.dev, session, &info), 0);
	assert_in_range(info.dirty_bytes, 8192, 8192 + 256);
	rig_state(&rig, QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_reset(rig.dev), 0);
	driver_start(&rig);
	memset(memory + DATA_OFFSET, 0, 8192);
	assert_int_equal(driver_do(&rig, 1, driver_rw(NVME_IO_READ, 112, 16, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	assert_memory_equal(memory + DATA_OFFSET, memory + DATA_OFFSET + 7ULL * 8192, 8192);
	rig_free(&rig);
	munmap(memory, MEMORY_SIZE);
	free(stream.data);
}

/* ---- whose the file is ---- */

static char last_line[512];

static void keep_line(void *ctx, enum qsc_log_level level, const char *line)
{
	if (strstr(line, "in use"))
		(void)snprintf(last_line, sizeof(last_line), "%s", line);
}

static void enable_in_vain(struct rig *rig)
{
	rig_write(rig, NVME_REG_AQA, 0x1f001f);
	rig_write(rig, NVME_REG_ASQ, (uint32_t)MEMORY_IOVA);
	rig_write(rig, NVME_REG_ACQ, (uint32_t)MEMORY_IOVA + 4096);
	rig_write(rig, NVME_REG_CC, CC_ENABLE);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_CFS);
	assert_non_null(strstr(last_line, "is in use by somebody else"));
	last_line[0] = '\0';
	rig_write(rig, NVME_REG_CC, 0);
	rig_settle(rig);
}

static void only_one_has_the_file(void **unused)
{
	struct nvme_options options = rig_options(7);
	uint8_t *memories[2] = {memory_make(), memory_make()};
	struct driver drivers[2];
	struct rig rigs[2];
	uint64_t session;

	options.ram = 0;
	options.file = file_make(RAM_SIZE);
	qsc_log_set(keep_line, NULL, QSC_LOG_ERROR);
	for (uint32_t i = 0; i < 2; i++)
		rig_make(&rigs[i], &options, memories[i], &drivers[i]);
	driver_start(&rigs[0]);
	enable_in_vain(&rigs[1]);
	/* A stopped controller has none, and finds it taken when it wants to go on. */
	rig_state(&rigs[0], QSC_STATE_STOP);
	driver_start(&rigs[1]);
	assert_int_equal(qsc_device_set_state(rigs[0].dev, QSC_STATE_RUNNING, &session), -EBUSY);
	assert_non_null(strstr(last_line, "is in use by somebody else"));
	/* Disabled, it is free again; also after a reset of the whole device, or when it is gone.
	 */
	rig_write(&rigs[1], NVME_REG_CC, 0);
	rig_settle(&rigs[1]);
	assert_int_equal(qsc_device_reset(rigs[0].dev), 0);
	driver_start(&rigs[0]);
	enable_in_vain(&rigs[1]);
	assert_int_equal(qsc_device_reset(rigs[0].dev), 0);
	driver_start(&rigs[1]);
	enable_in_vain(&rigs[0]);
	rig_free(&rigs[1]);
	driver_start(&rigs[0]);
	rig_free(&rigs[0]);
	qsc_log_set(NULL, NULL, QSC_LOG_ERROR);
	munmap(memories[0], MEMORY_SIZE);
	munmap(memories[1], MEMORY_SIZE);
}

/* ---- drivers that do what they must not ---- */

/* Whatever its driver does, a controller can be moved. */
static void moves_with_a_hostile_driver(void **unused)
{
	const struct nvme_options options = rig_options(QSC_MIGRATION_STOP_COPY);
	uint8_t *memory = memory_make();
	struct nvme_completion completion;
	struct driver driver;
	struct rig from = {0};
	struct rig to = {0};
	struct state *state;

	rig_make(&from, &options, memory, &driver);
	driver_start(&from);
	/* Pages of another size than the queues were made with, and too large. */
	rig_write(&from, NVME_REG_CC, CC_ENABLE | 5U << NVME_CC_MPS_SHIFT);
	assert_int_equal(rig_read(&from, NVME_REG_CC), CC_ENABLE);
	assert_int_equal(driver_do(&from, 1, driver_rw(NVME_IO_READ, 0, 1, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	/* Acknowledged before it was written: by a helper that found the gate closed. */
	driver_submit(&from, 1, driver_rw(NVME_IO_READ, 0, 1, DATA_OFFSET));
	driver_doorbell(&from, 1);
	rig_settle(&from);
	assert_true(driver_reap(&from, 1, &completion));
	state = qsc_runtime_state(from.rt);
	state->slots[IO_QUEUES + 1] = (struct slot){
		.phase = PHASE_POST, .sqid = 1, .entry = state->cqs[1].tail - 1, .tag = 1};
	driver_acknowledge(&from, 1);
	rig_make(&to, &options, memory, &driver);
	rig_migrate(&from, &to, QSC_MIGRATION_STOP_COPY);
	rig_settle(&to);
	assert_int_equal(driver_do(&to, 1, driver_rw(NVME_IO_READ, 0, 1, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	rig_free(&from);
	rig_free(&to);
	munmap(memory, MEMORY_SIZE);
}

/* ---- with threads ---- */

struct client {
	struct rig *rig;
	pthread_rwlock_t *running; /* held by who touches registers */
	uint32_t qid;
	uint32_t wrong;
};

SEES_DMA
static uint32_t differences(const uint8_t *a, const uint8_t *b, size_t size)
{
	uint32_t count = 0;

	for (size_t i = 0; i < size; i++)
		count += a[i] != b[i];
	return count;
}

SEES_DMA
static void fill(uint8_t *memory, uint64_t seed)
{
	random_fill(memory, 8192, seed);
}

static void client_do(struct client *client, struct nvme_command command)
{
	struct rig *rig = client->rig;
	struct nvme_completion completion;

	driver_submit(rig, client->qid, command);
	pthread_rwlock_rdlock(client->running);
	driver_doorbell(rig, client->qid);
	pthread_rwlock_unlock(client->running);
	while (!driver_reap(rig, client->qid, &completion))
		(void)rig_interrupts(rig, client->qid);
	client->wrong += completion.status >> 1 != NVME_SC_SUCCESS;
	pthread_rwlock_rdlock(client->running);
	driver_acknowledge(rig, client->qid);
	pthread_rwlock_unlock(client->running);
}

static void *client_run(void *arg)
{
	struct client *client = arg;
	const uint64_t offset = DATA_OFFSET + client->qid * 16384ULL;
	uint8_t *memory = client->rig->memory + offset;

	for (uint64_t round = 0; round < 150; round++) {
		uint64_t block = client->qid * 1000ULL + round % 50 * 16;

		fill(memory, round);
		client_do(client, driver_rw(NVME_IO_WRITE, block, 16, offset));
		client_do(client, driver_rw(NVME_IO_READ, block, 16, offset + 8192));
		client->wrong += differences(memory, memory + 8192, 8192);
	}
	return NULL;
}

static void survives_state_changes_under_load(void **state)
{
	const struct variant *variant = *state;
	struct nvme_options options = rig_options(variant->flags);
	pthread_rwlock_t running = PTHREAD_RWLOCK_INITIALIZER;
	struct client clients[IO_QUEUES];
	pthread_t threads[IO_QUEUES];
	uint8_t *memory = memory_make();
	struct driver driver;
	struct rig rig;

	options.manual = false;
	if (variant->file) {
		options.ram = 0;
		options.file = file_make(RAM_SIZE);
	}
	rig_make(&rig, &options, memory, &driver);
	driver_start(&rig);
	for (uint32_t i = 0; i < IO_QUEUES; i++) {
		clients[i] = (struct client){&rig, &running, i + 1, 0};
		assert_int_equal(pthread_create(&threads[i], NULL, client_run, &clients[i]), 0);
	}
	for (uint32_t i = 0; i < 60; i++) {
		pthread_rwlock_wrlock(&running);
		rig_state(&rig, QSC_STATE_RUNNING_P2P);
		rig_state(&rig, QSC_STATE_STOP);
		rig_state(&rig, QSC_STATE_RUNNING);
		pthread_rwlock_unlock(&running);
	}
	for (uint32_t i = 0; i < IO_QUEUES; i++) {
		pthread_join(threads[i], NULL);
		assert_int_equal(clients[i].wrong, 0);
	}
	rig_free(&rig);
	munmap(memory, MEMORY_SIZE);
}

/* ---- states that cannot be ---- */

#define PART(member, wrong)                                                                   \
	{                                                                                     \
#member, offsetof(struct state, member), sizeof(((struct state *)0)->member), \
			wrong                                                                 \
	}

static const struct {
	const char *what;
	size_t offset;
	size_t size;
	uint64_t value;
} wrong_states[] = {
	PART(cc, UINT32_MAX),
	PART(cc, CC_ENABLE | 5U << NVME_CC_MPS_SHIFT),
	PART(cc, CC_ENABLE & ~NVME_CC_EN),
	PART(csts, 0),
	PART(csts, 0x11),
	PART(aqa, UINT32_MAX),
	PART(blocks, 1),
	PART(queues, IO_QUEUES + 1),
	PART(serial[3], 0),
	PART(event_requests, EVENT_REQUESTS + 1),
	PART(event_cids[1], 0x10000),
	PART(event_pending[0], 3),
	PART(event_masked[1], 2),
	PART(sqs[0].size, 0),
	PART(sqs[0].size, ADMIN_ENTRIES + 1),
	PART(sqs[0].cqid, 1),
	PART(sqs[1].size, 1),
	PART(sqs[1].size, QUEUE_ENTRIES + 1),
	PART(sqs[1].cqid, 0),
	PART(sqs[1].cqid, 2),
	PART(sqs[1].cqid, QUEUES),
	PART(sqs[1].head, ENTRIES),
	PART(sqs[1].tail, ENTRIES),
	PART(sqs[1].base, 64),
	PART(sqs[2].tail, 1),
	PART(sqs[IO_QUEUES + 1].size, ENTRIES),
	PART(cqs[0].size, 0),
	PART(cqs[1].size, 0),
	PART(cqs[1].size, QUEUE_ENTRIES + 1),
	PART(cqs[1].head, ENTRIES),
	PART(cqs[1].tail, ENTRIES),
	PART(cqs[1].tag, 2),
	PART(cqs[1].vector, IO_QUEUES + 1),
	PART(cqs[1].interrupts, 2),
	PART(cqs[1].base, 4095),
	PART(slots[0].sqid, 1),
	PART(slots[0].done, 4),
	PART(slots[0].list, 0x1008 | LIST_VALID),
	PART(slots[1].phase, PHASE_COUNT),
	PART(slots[1].phase, PHASE_IDLE),
	PART(slots[1].sqid, 0),
	PART(slots[1].sqid, 2),
	PART(slots[1].sqid, QUEUES),
	PART(slots[1].done, 8 * BLOCK),
	PART(slots[1].done, UINT64_MAX),
	PART(slots[1].list, 8),
	PART(slots[1].list, 3),
	PART(slots[1].range, 1),
	PART(slots[1].status, 1),
	PART(slots[2].phase, PHASE_RUN),
	PART(slots[2].words[3], 1),
	PART(slots[IO_QUEUES + 1].entry, 5),
	PART(slots[IO_QUEUES + 1].entry, 2),
	PART(slots[IO_QUEUES + 1].entry, ENTRIES),
	PART(slots[IO_QUEUES + 1].tag, 2),
	PART(slots[IO_QUEUES + 1].status, 0x8000),
	PART(slots[IO_QUEUES + 2].entry, 3),
	PART(slots[1 + IO_QUEUES + HELPERS].phase, PHASE_DONE),
};

/*
 * Queues at work: an admin command, one that is half done, and two that have their entries and are
 * to write them.
 */
static void state_make(struct state *state)
{
	memset(state, 0, sizeof(*state));
	state->cc = CC_ENABLE;
	state->csts = NVME_CSTS_RDY;
	state->blocks = RAM_SIZE / BLOCK;
	state->queues = IO_QUEUES;
	state->sqs[0] = (struct sq){.size = ENTRIES, .base = 4096};
	state->sqs[1] = (struct sq){.size = ENTRIES, .cqid = 1, .head = 5, .tail = 2, .base = 8192};
	state->cqs[0] = (struct cq){.size = ENTRIES, .tag = 1, .interrupts = 1};
	state->cqs[1] = (struct cq){.size = ENTRIES, .head = 3, .tail = 5, .vector = IO_QUEUES};
	state->slots[0] = (struct slot){.phase = PHASE_RUN, .words = {NVME_ADMIN_GET_LOG_PAGE}};
	state->slots[1] = (struct slot){.phase = PHASE_RUN,
					.sqid = 1,
					.words = {NVME_IO_READ, 0, 0, 0, 0, 0, 7},
					.done = 4092,
					.list = 0x1008 | LIST_VALID};
	state->slots[IO_QUEUES + 1] = (struct slot){.phase = PHASE_POST, .sqid = 1, .entry = 3};
	state->slots[IO_QUEUES + 2] = (struct slot){.phase = PHASE_POST, .sqid = 1, .entry = 4};
	memset(state->serial, 'x', sizeof(state->serial));
}

static void refuses_states_that_cannot_be(void **unused)
{
	struct controller ctrl = {.queues = IO_QUEUES, .media = {.size = RAM_SIZE}};
	struct qsc_error err = QSC_ERROR_NONE;
	struct state state;

	state_make(&state);
	if (nvme_validate(&ctrl, &state, &err))
		fail_msg("%s", err.text);
	for (size_t i = 0; i < sizeof(wrong_states) / sizeof(wrong_states[0]); i++) {
		state_make(&state);
		memcpy((uint8_t *)&state + wrong_states[i].offset, &wrong_states[i].value,
		       wrong_states[i].size);
		if (!nvme_validate(&ctrl, &state, &err))
			fail_msg("%s = %#llx was accepted", wrong_states[i].what,
				 (unsigned long long)wrong_states[i].value);
	}
}

/* clang-format off */
#define VARIANT(test, number, on_file)                                                             \
	{#test ", flags " #number ", file " #on_file, test, NULL, NULL,                            \
	 &(struct variant){number, on_file}}
/* clang-format on */

int main(void)
{
	const struct CMUnitTest tests[] = {
		VARIANT(goes_on_after_a_migration, 1, false),
		VARIANT(goes_on_after_a_migration, 3, false),
		VARIANT(goes_on_after_a_migration, 5, false),
		VARIANT(goes_on_after_a_migration, 7, false),
		VARIANT(goes_on_after_a_migration, 1, true),
		VARIANT(goes_on_after_a_migration, 7, true),
		cmocka_unit_test(keeps_requests_for_events),
		cmocka_unit_test(moves_its_memory_ahead),
		cmocka_unit_test(only_one_has_the_file),
		cmocka_unit_test(moves_with_a_hostile_driver),
		VARIANT(survives_state_changes_under_load, 7, false),
		VARIANT(survives_state_changes_under_load, 7, true),
		cmocka_unit_test(refuses_states_that_cannot_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
