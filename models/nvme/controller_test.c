/* SPDX-License-Identifier: MIT */
/* The controller towards a driver that sets it up, asks, gets it wrong, and goes. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "nvme/rig.h"

struct world {
	struct rig rig;
	struct driver driver;
};

static void begin(struct world *world)
{
	const struct nvme_options options = rig_options(7);

	*world = (struct world){.driver = {{{0}}}};
	rig_make(&world->rig, &options, memory_make(), &world->driver);
}

static void end(struct world *world)
{
	uint8_t *memory = world->rig.memory;

	rig_free(&world->rig);
	munmap(memory, MEMORY_SIZE);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return value;
}

/* What Linux does from probe to the first read, and at the end. */
static void is_probed_and_shut_down(void **unused)
{
	struct world world;
	struct rig *rig = &world.rig;
	uint8_t data[4096];
	uint64_t cap;
	uint32_t result;

	begin(&world);
	assert_int_equal(qsc_device_region_read(rig->dev, 0, NVME_REG_CAP, &cap, 8), 8);
	assert_int_equal(cap & 0xffff, 1023);
	assert_int_equal(cap >> 37 & 1, 1);
	assert_int_equal(rig_read(rig, NVME_REG_VS), NVME_VERSION);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
	rig_set_irqs(rig);
	driver_enable(rig);
	assert_int_equal(driver_identify(rig, 1, 0, data), NVME_SC_SUCCESS);
	assert_memory_equal(data + 4, "QSC", 3);
	assert_memory_equal(data + 24, "Quiesce NVMe ", 13);
	assert_memory_equal(data + 768, "nqn.2014-08.org.nvmexpress:uuid:", 32);
	assert_int_equal(get32(data + 516), 1);
	assert_int_equal(driver_log_page(rig, NVME_LOG_EFFECTS, 0, data, 4096), NVME_SC_SUCCESS);
	assert_int_equal(get32(data + 1024 + 4), 3);
	assert_int_equal(driver_identify(rig, 6, 0, data), NVME_SC_SUCCESS);
	assert_int_equal(driver_do(rig, 0,
				   (struct nvme_command){.opcode = NVME_ADMIN_SET_FEATURES,
							 .cdw10 = NVME_FEAT_QUEUES,
							 .cdw11 = 0x70007},
				   &result),
			 NVME_SC_SUCCESS);
	assert_int_equal(result, (IO_QUEUES - 1) << 16 | (IO_QUEUES - 1));
	for (uint32_t qid = 1; qid <= IO_QUEUES; qid++)
		assert_int_equal(driver_create(rig, qid), NVME_SC_SUCCESS);
	driver_submit(rig, 0, (struct nvme_command){.opcode = NVME_ADMIN_ASYNC_EVENT});
	driver_doorbell(rig, 0);
	assert_int_equal(driver_identify(rig, 2, 0, data), NVME_SC_SUCCESS);
	assert_int_equal(get32(data), 1);
	assert_int_equal(get32(data + 4), 0);
	assert_int_equal(driver_identify(rig, 2, 1, data), NVME_SC_SUCCESS);
	assert_int_equal(get32(data), 0);
	assert_int_equal(driver_identify(rig, 3, 1, data), NVME_SC_SUCCESS);
	assert_int_equal(data[0], 3);
	assert_int_equal(data[20], 4);
	assert_int_equal(driver_identify(rig, 0, 1, data), NVME_SC_SUCCESS);
	assert_int_equal(get64(data), RAM_SIZE / BLOCK);
	assert_int_equal(data[130], 9);
	assert_int_equal(driver_identify(rig, 5, 1, data), NVME_SC_SUCCESS);
	assert_int_equal(driver_do(rig, 1, driver_rw(NVME_IO_READ, 0, 8, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	for (uint32_t qid = 1; qid <= IO_QUEUES; qid++) {
		assert_int_equal(driver_do(rig, 0,
					   (struct nvme_command){.opcode = NVME_ADMIN_DELETE_SQ,
								 .cdw10 = qid},
					   NULL),
				 NVME_SC_SUCCESS);
		assert_int_equal(driver_do(rig, 0,
					   (struct nvme_command){.opcode = NVME_ADMIN_DELETE_CQ,
								 .cdw10 = qid},
					   NULL),
				 NVME_SC_SUCCESS);
	}
	rig_write(rig, NVME_REG_CC, CC_ENABLE | 1U << NVME_CC_SHN_SHIFT);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_OCCURRING);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_SHST_COMPLETE);
	rig_write(rig, NVME_REG_CC, CC_ENABLE & ~NVME_CC_EN);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
	/* And once more. */
	driver_start(rig);
	assert_int_equal(driver_do(rig, 1, driver_rw(NVME_IO_READ, 0, 8, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	end(&world);
}

/* With queues 1 to 3 of either kind, and a completion queue 4. */
static const struct {
	struct nvme_command command;
	uint32_t status;
} wrong_commands[] = {
	{{.opcode = NVME_ADMIN_KEEP_ALIVE}, NVME_SC_INVALID_OPCODE},
	{{.opcode = 0x80}, NVME_SC_INVALID_OPCODE},
	{{.opcode = 0xff}, NVME_SC_INVALID_OPCODE},
	{{.opcode = NVME_ADMIN_IDENTIFY, .flags = 0x40}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 0x10}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 0, .nsid = 2}, NVME_SC_INVALID_NAMESPACE},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 3, .nsid = 0}, NVME_SC_INVALID_NAMESPACE},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 2, .nsid = 0xfffffffe},
	 NVME_SC_INVALID_NAMESPACE},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 5, .nsid = 1, .cdw11 = 2U << 24},
	 NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 1, .prp1 = 2}, NVME_SC_PRP_OFFSET},
	{{.opcode = NVME_ADMIN_IDENTIFY, .cdw10 = 1, .prp1 = 0x1000}, NVME_SC_DATA_TRANSFER},
	{{.opcode = NVME_ADMIN_IDENTIFY,
	  .cdw10 = 1,
	  .prp1 = MEMORY_IOVA + MEMORY_SIZE - 4,
	  .prp2 = MEMORY_IOVA + MEMORY_SIZE},
	 NVME_SC_DATA_TRANSFER},
	{{.opcode = NVME_ADMIN_GET_LOG_PAGE, .cdw10 = 0x7f}, NVME_SC_LOG_PAGE},
	{{.opcode = NVME_ADMIN_GET_LOG_PAGE, .cdw10 = 2, .cdw12 = 512}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_GET_LOG_PAGE, .cdw10 = 2, .cdw12 = 3}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_GET_LOG_PAGE, .cdw10 = 2, .cdw11 = 0xffff}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 0x7f}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 1U << 31 | 6}, NVME_SC_NOT_SAVEABLE},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 2, .cdw11 = 1}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 4, .cdw11 = 1 << 16}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 7, .cdw11 = 1}, NVME_SC_SEQUENCE},
	{{.opcode = NVME_ADMIN_SET_FEATURES, .cdw10 = 9, .cdw11 = IO_QUEUES + 1},
	 NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = 0x0c}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_GET_FEATURES, .cdw10 = 0x106}, NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_CREATE_CQ, .cdw10 = 0xf0000, .cdw11 = 1}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_CREATE_CQ, .cdw10 = 0xf0001, .cdw11 = 1}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_CREATE_CQ, .cdw10 = 0xf0005, .cdw11 = 1}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0x00004, .cdw11 = 0x40001}, NVME_SC_QUEUE_SIZE},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0x4000004, .cdw11 = 0x40001},
	 NVME_SC_QUEUE_SIZE},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0xf0004, .cdw11 = 0x40000},
	 NVME_SC_INVALID_FIELD},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0xf0004, .cdw11 = 0x40001, .prp1 = 64},
	 NVME_SC_PRP_OFFSET},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0xf0004, .cdw11 = 0x00001}, NVME_SC_CQ_INVALID},
	{{.opcode = NVME_ADMIN_CREATE_SQ, .cdw10 = 0xf0004, .cdw11 = 0x50001}, NVME_SC_CQ_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 0}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 4}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 5}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 0}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 0xffff}, NVME_SC_QID_INVALID},
	{{.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 1}, NVME_SC_QUEUE_DELETION},
};

static void refuses_wrong_admin_commands(void **unused)
{
	struct world world;
	uint8_t log[1024];
	uint32_t result;

	begin(&world);
	driver_start(&world.rig);
	assert_int_equal(
		driver_do(&world.rig, 0,
			  (struct nvme_command){.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = 4}, NULL),
		NVME_SC_SUCCESS);
	for (size_t i = 0; i < sizeof(wrong_commands) / sizeof(wrong_commands[0]); i++) {
		uint32_t status = driver_do(&world.rig, 0, wrong_commands[i].command, NULL);

		if (status != wrong_commands[i].status)
			fail_msg("case %zu: status 0x%x instead of 0x%x", i, status,
				 wrong_commands[i].status);
	}
	assert_int_equal(driver_do(&world.rig, 0,
				   (struct nvme_command){.opcode = NVME_ADMIN_ABORT, .cdw10 = 1},
				   &result),
			 NVME_SC_SUCCESS);
	assert_int_equal(result, 1);
	/* All of them were noted, the last one first. */
	assert_int_equal(driver_log_page(&world.rig, NVME_LOG_ERROR, 0, log, sizeof(log)),
			 NVME_SC_SUCCESS);
	assert_int_equal(get64(log), sizeof(wrong_commands) / sizeof(wrong_commands[0]));
	assert_int_equal(get32(log + 12) & 0xffff, (NVME_SC_QUEUE_DELETION | NVME_SC_DNR) << 1);
	/* A completion queue that is left without submission queues can go. */
	assert_int_equal(
		driver_do(&world.rig, 0,
			  (struct nvme_command){.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = 4}, NULL),
		NVME_SC_SUCCESS);
	end(&world);
}

static void keeps_features_until_a_reset(void **unused)
{
	static const struct {
		uint32_t feature, value, asked, result, after_reset;
	} cases[] = {
		{NVME_FEAT_ARBITRATION, 0x01020304, 0, 0x01020304, 0},
		{NVME_FEAT_POWER, 0, 0, 0, 0},
		{NVME_FEAT_TEMPERATURE, 400, 0, 400, 343},
		{NVME_FEAT_TEMPERATURE, 1 << 20 | 200, 1 << 20, 200, 0},
		{NVME_FEAT_ERROR_RECOVERY, 10, 0, 10, 0},
		{NVME_FEAT_WRITE_CACHE, 0, 0, 0, 1},
		{NVME_FEAT_COALESCING, 0x0405, 0, 0x0405, 0},
		{NVME_FEAT_VECTOR, 1 << 16 | 2, 2, 1 << 16 | 2, 2},
		{NVME_FEAT_ATOMICITY, 1, 0, 1, 0},
		{NVME_FEAT_ASYNC_EVENT, 0x1ff, 0, 0x1ff, 0},
	};
	struct world world;

	begin(&world);
	driver_enable(&world.rig);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		assert_int_equal(driver_set_feature(&world.rig, cases[i].feature, cases[i].value),
				 NVME_SC_SUCCESS);
		assert_int_equal(driver_feature(&world.rig, cases[i].feature, cases[i].asked),
				 cases[i].result);
	}
	rig_write(&world.rig, NVME_REG_CC, 0);
	rig_settle(&world.rig);
	driver_enable(&world.rig);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_int_equal(driver_feature(&world.rig, cases[i].feature, cases[i].asked),
				 cases[i].after_reset);
	end(&world);
}

/* One request is answered by one event; the next of its kind waits until the log was read. */
static void tells_of_events(void **unused)
{
	struct world world;
	struct rig *rig = &world.rig;
	struct nvme_completion completion;
	uint8_t log[512];
	uint16_t cids[4];

	begin(&world);
	driver_start(rig);
	for (uint32_t i = 0; i < 4; i++)
		cids[i] = driver_submit(rig, 0,
					(struct nvme_command){.opcode = NVME_ADMIN_ASYNC_EVENT});
	driver_doorbell(rig, 0);
	rig_settle(rig);
	assert_false(driver_reap(rig, 0, &completion));
	assert_int_equal(
		driver_do(rig, 0, (struct nvme_command){.opcode = NVME_ADMIN_ASYNC_EVENT}, NULL),
		NVME_SC_EVENT_LIMIT);
	/* Not asked for: no event. */
	assert_int_equal(driver_set_feature(rig, NVME_FEAT_TEMPERATURE, 300), NVME_SC_SUCCESS);
	assert_int_equal(driver_set_feature(rig, NVME_FEAT_ASYNC_EVENT, 2), NVME_SC_SUCCESS);
	driver_submit(rig, 0,
		      (struct nvme_command){.opcode = NVME_ADMIN_SET_FEATURES,
					    .cdw10 = NVME_FEAT_TEMPERATURE,
					    .cdw11 = 301});
	driver_doorbell(rig, 0);
	rig_settle(rig);
	assert_true(driver_reap(rig, 0, &completion));
	assert_true(driver_reap(rig, 0, &completion));
	assert_int_equal(completion.cid, cids[3]);
	assert_int_equal(completion.result, 0x020101);
	assert_false(driver_reap(rig, 0, &completion));
	driver_acknowledge(rig, 0);
	/* Doorbells of queues that are not there, and of entries that are not. */
	rig_write(rig, NVME_REG_DOORBELL + 8 * (IO_QUEUES + 1), 1);
	rig_settle(rig);
	assert_true(driver_reap(rig, 0, &completion));
	assert_int_equal(completion.cid, cids[2]);
	assert_int_equal(completion.result, 0x010000);
	driver_acknowledge(rig, 0);
	rig_write(rig, NVME_REG_DOORBELL + 8, ENTRIES);
	rig_write(rig, NVME_REG_DOORBELL + 12, 1);
	rig_settle(rig);
	assert_false(driver_reap(rig, 0, &completion));
	driver_submit(rig, 0,
		      (struct nvme_command){.opcode = NVME_ADMIN_GET_LOG_PAGE,
					    .prp1 = MEMORY_IOVA + SCRATCH_OFFSET,
					    .cdw10 = NVME_LOG_ERROR});
	driver_doorbell(rig, 0);
	rig_settle(rig);
	assert_true(driver_reap(rig, 0, &completion));
	assert_true(driver_reap(rig, 0, &completion));
	assert_int_equal(completion.cid, cids[1]);
	assert_int_equal(completion.result, 0x010100);
	driver_acknowledge(rig, 0);
	assert_int_equal(driver_log_page(rig, NVME_LOG_SMART, 0, log, 512), NVME_SC_SUCCESS);
	assert_int_equal(log[0], 2);
	end(&world);
}

static void fails_where_it_cannot_go_on(void **unused)
{
	static const struct {
		uint32_t cc, aqa, asq;
	} cases[] = {
		{CC_ENABLE, 0x1f, 0},
		{CC_ENABLE, 0x1f0000, 0},
		{CC_ENABLE, 0x1f001f, 8},
		{CC_ENABLE | 5U << NVME_CC_MPS_SHIFT, 0x1f001f, 0},
		{CC_ENABLE | 1U << NVME_CC_MPS_SHIFT, 0x1f001f, 0x1000},
		{CC_ENABLE | 1U << NVME_CC_CSS_SHIFT, 0x1f001f, 0},
		{CC_ENABLE | 1U << NVME_CC_AMS_SHIFT, 0x1f001f, 0},
	};
	struct world world;
	struct rig *rig = &world.rig;

	begin(&world);
	rig_set_irqs(rig);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		rig_write(rig, NVME_REG_AQA, cases[i].aqa);
		rig_write(rig, NVME_REG_ASQ, (uint32_t)MEMORY_IOVA + cases[i].asq);
		rig_write(rig, NVME_REG_ACQ, (uint32_t)MEMORY_IOVA);
		rig_write(rig, NVME_REG_CC, cases[i].cc);
		rig_settle(rig);
		assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_CFS);
		rig_write(rig, NVME_REG_CC, 0);
		assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
	}
	/* Queues where there is no memory. */
	rig_write(rig, NVME_REG_ASQ, 0x1000);
	rig_write(rig, NVME_REG_CC, CC_ENABLE);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY);
	rig_write(rig, NVME_REG_DOORBELL, 1);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY | NVME_CSTS_CFS);
	rig_write(rig, NVME_REG_CC, 0);
	rig_settle(rig);
	driver_start(rig);
	end(&world);
}

/* Registers that do not exist, or not in that width, do nothing. */
static void ignores_accesses_that_mean_nothing(void **unused)
{
	struct world world;
	struct rig *rig = &world.rig;
	uint16_t narrow = 0xffff;
	uint64_t wide = 0x123456789000ULL;
	uint8_t byte;

	begin(&world);
	assert_int_equal(qsc_device_region_write(rig->dev, 0, NVME_REG_CC, &narrow, 2), 2);
	assert_int_equal(rig_read(rig, NVME_REG_CC), 0);
	assert_int_equal(qsc_device_region_write(rig->dev, 0, NVME_REG_ASQ, &wide, 8), 8);
	assert_int_equal(rig_read(rig, NVME_REG_ASQ + 4), 0x1234);
	assert_int_equal(qsc_device_region_read(rig->dev, 0, NVME_REG_VS + 2, &byte, 1), 1);
	assert_int_equal(byte, 1);
	rig_write(rig, NVME_REG_CSTS, UINT32_MAX);
	rig_write(rig, 0x40, UINT32_MAX);
	rig_write(rig, NVME_REGISTERS_SIZE - 4, UINT32_MAX);
	rig_write(rig, NVME_REG_DOORBELL, 1);
	rig_settle(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
	assert_int_equal(rig_read(rig, 0x40), 0);
	/* While it is enabled its queues stay where they are. */
	driver_enable(rig);
	rig_write(rig, NVME_REG_ACQ, 0);
	rig_write(rig, NVME_REG_AQA, 0);
	assert_int_equal(rig_read(rig, NVME_REG_ACQ), (uint32_t)MEMORY_IOVA + 4096);
	assert_int_equal(rig_read(rig, NVME_REG_AQA), 0x1f001f);
	end(&world);
}

/* While it waits for its file it is not ready, so a driver may change its mind, and again. */
static void is_enabled_again_before_it_was_ready(void **unused)
{
	struct nvme_options options = rig_options(7);
	struct world world = {.driver = {{{0}}}};
	struct rig *rig = &world.rig;
	int fd;

	options.manual = false;
	options.ram = 0;
	options.file = file_make(RAM_SIZE);
	/* Who opens the file waits until the lease is given back. */
	assert_ptr_not_equal(signal(SIGIO, SIG_IGN), SIG_ERR);
	fd = open(options.file, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(fcntl(fd, F_SETLEASE, F_WRLCK), 0);
	rig_make(rig, &options, memory_make(), &world.driver);
	rig_set_irqs(rig);
	driver_ask(rig);
	while (fcntl(fd, F_GETLEASE) == F_WRLCK)
		sched_yield();
	rig_write(rig, NVME_REG_CC, 0);
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), 0);
	rig_write(rig, NVME_REG_ASQ, 0);
	driver_ask(rig);
	assert_int_equal(rig_read(rig, NVME_REG_CC), CC_ENABLE);
	assert_int_equal(close(fd), 0);
	while (!rig_read(rig, NVME_REG_CSTS))
		sched_yield();
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY);
	assert_int_equal(driver_create(rig, 1), NVME_SC_SUCCESS);
	assert_int_equal(driver_do(rig, 1, driver_rw(NVME_IO_READ, 0, 8, DATA_OFFSET), NULL),
			 NVME_SC_SUCCESS);
	end(&world);
}

static uint64_t line_interrupts(struct rig *rig)
{
	uint64_t count = 0;

	if (read(rig->line, &count, sizeof(count)) != sizeof(count))
		assert_int_equal(errno, EAGAIN);
	return count;
}

/* Without MSI-X: the line is asserted until the driver has taken every completion. */
static void holds_the_line(void **unused)
{
	const struct qsc_irq_set unmask = {.flags = VFIO_IRQ_SET_DATA_NONE |
						    VFIO_IRQ_SET_ACTION_UNMASK,
					   .index = VFIO_PCI_INTX_IRQ_INDEX,
					   .count = 1};
	struct world world;
	struct rig *rig = &world.rig;
	struct nvme_completion completion;

	begin(&world);
	assert_int_equal(qsc_device_set_eventfds(rig->dev, VFIO_PCI_INTX_IRQ_INDEX, &rig->line, 1),
			 0);
	driver_enable(rig);
	assert_int_equal(line_interrupts(rig), 0);
	driver_submit(rig, 0, (struct nvme_command){.opcode = NVME_ADMIN_ABORT});
	driver_submit(rig, 0, (struct nvme_command){.opcode = NVME_ADMIN_ABORT});
	driver_doorbell(rig, 0);
	rig_settle(rig);
	assert_int_equal(line_interrupts(rig), 1);
	assert_true(driver_reap(rig, 0, &completion));
	driver_acknowledge(rig, 0);
	/* One is left: it comes again. */
	assert_int_equal(qsc_device_set_irqs(rig->dev, &unmask), 0);
	assert_int_equal(line_interrupts(rig), 1);
	/* Over a stop too, and not while the driver masks it. */
	rig_state(rig, QSC_STATE_STOP);
	assert_int_equal(qsc_device_set_irqs(rig->dev, &unmask), 0);
	assert_int_equal(line_interrupts(rig), 0);
	rig_state(rig, QSC_STATE_RUNNING);
	assert_int_equal(line_interrupts(rig), 1);
	rig_write(rig, NVME_REG_INTMS, 1);
	assert_int_equal(qsc_device_set_irqs(rig->dev, &unmask), 0);
	assert_int_equal(line_interrupts(rig), 0);
	rig_write(rig, NVME_REG_INTMC, 1);
	assert_int_equal(line_interrupts(rig), 1);
	assert_true(driver_reap(rig, 0, &completion));
	driver_acknowledge(rig, 0);
	assert_int_equal(qsc_device_set_irqs(rig->dev, &unmask), 0);
	assert_int_equal(line_interrupts(rig), 0);
	end(&world);
}

/* Two in one guest must not be taken for one disk. */
static void serial_numbers_differ(void **unused)
{
	struct nvme_options options = rig_options(7);
	const char *const names[] = {NULL, NULL, "a", "b"};
	uint8_t serials[4][20];
	uint8_t data[4096];

	for (uint32_t i = 0; i < 4; i++) {
		struct driver driver;
		struct rig rig;

		options.name = names[i];
		rig_make(&rig, &options, memory_make(), &driver);
		driver_enable(&rig);
		assert_int_equal(driver_identify(&rig, 1, 0, data), NVME_SC_SUCCESS);
		memcpy(serials[i], data + 4, 20);
		for (uint32_t j = 0; j < i; j++)
			assert_memory_not_equal(serials[i], serials[j], 20);
		munmap(rig.memory, MEMORY_SIZE);
		rig_free(&rig);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_probed_and_shut_down),
		cmocka_unit_test(refuses_wrong_admin_commands),
		cmocka_unit_test(keeps_features_until_a_reset),
		cmocka_unit_test(tells_of_events),
		cmocka_unit_test(fails_where_it_cannot_go_on),
		cmocka_unit_test(ignores_accesses_that_mean_nothing),
		cmocka_unit_test(is_enabled_again_before_it_was_ready),
		cmocka_unit_test(holds_the_line),
		cmocka_unit_test(serial_numbers_differ),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
