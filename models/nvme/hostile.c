/* SPDX-License-Identifier: MIT */
/* See hostile.h. Works without a test framework, since fuzzers use it too. */
#include "nvme/hostile.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quiesce/runtime.h>

#include "nvme/nvme.h"
#include "nvme/spec.h"

#define IOVA	  0x10000ULL
#define SIZE	  (64U << 10)
#define RAM	  (1U << 20)
#define STEPS	  64U
#define STEPS_MAX 2000000U

struct hostile {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	uint8_t *memory;
	const uint8_t *bytes;
	size_t size;
	size_t at;
	uint32_t tails[4]; /* of the queues that it keeps in order, at times */
};

static uint8_t draw(struct hostile *hostile)
{
	return hostile->at < hostile->size ? hostile->bytes[hostile->at++] : 0;
}

static uint32_t draw32(struct hostile *hostile)
{
	uint32_t value = draw(hostile);

	value |= (uint32_t)draw(hostile) << 8;
	value |= (uint32_t)draw(hostile) << 16;
	return value | (uint32_t)draw(hostile) << 24;
}

/* Mostly an address that means something, so that it gets anywhere. */
static uint64_t draw_address(struct hostile *hostile)
{
	uint8_t kind = draw(hostile);

	if (kind < 160)
		return IOVA + (kind & 15ULL) * 4096;
	if (kind < 200)
		return IOVA + (kind & 15ULL) * 4096 + draw(hostile) * 8ULL + 2048;
	return (uint64_t)draw32(hostile) << 32 | draw32(hostile);
}

static void reg_write(struct hostile *hostile, uint64_t offset, uint32_t value)
{
	(void)qsc_device_region_write(hostile->dev, NVME_BAR_REGISTERS, offset, &value,
				      sizeof(value));
}

static uint32_t reg_read(struct hostile *hostile, uint64_t offset)
{
	uint32_t value = 0;

	(void)qsc_device_region_read(hostile->dev, NVME_BAR_REGISTERS, offset, &value,
				     sizeof(value));
	return value;
}

/* As a driver would; a hostile one makes use of a working controller. */
static void enable(struct hostile *hostile, uint32_t cc)
{
	reg_write(hostile, NVME_REG_CC, 0);
	reg_write(hostile, NVME_REG_AQA, 0x000f000f);
	reg_write(hostile, NVME_REG_ASQ, (uint32_t)IOVA);
	reg_write(hostile, NVME_REG_ASQ + 4, 0);
	reg_write(hostile, NVME_REG_ACQ, (uint32_t)IOVA + 4096);
	reg_write(hostile, NVME_REG_ACQ + 4, 0);
	reg_write(hostile, NVME_REG_CC, cc | NVME_CC_EN | 0x460000);
}

static void put_command(struct hostile *hostile, uint32_t qid, uint32_t index,
			const struct nvme_command *command)
{
	memcpy(hostile->memory + qid * 8192ULL + (index & 15) * 64ULL, command, sizeof(*command));
}

/* In its place, with the doorbell that belongs to it. */
static void submit(struct hostile *hostile, uint32_t qid, const struct nvme_command *command)
{
	put_command(hostile, qid, hostile->tails[qid], command);
	hostile->tails[qid] = (hostile->tails[qid] + 1) & 15;
	reg_write(hostile, NVME_REG_DOORBELL + qid * 8ULL, hostile->tails[qid]);
}

static void run_some(struct hostile *hostile, uint32_t steps)
{
	while (steps-- && qsc_runtime_step(hostile->rt, draw(hostile)))
		;
}

/* A working controller with all queues, as a driver that means well makes it. */
static void set_up(struct hostile *hostile, uint32_t cc)
{
	enable(hostile, cc);
	memset(hostile->memory, 0, 8192);
	memset(hostile->tails, 0, sizeof(hostile->tails));
	run_some(hostile, STEPS);
	for (uint32_t qid = 1; qid < 4; qid++) {
		struct nvme_command command = {.opcode = NVME_ADMIN_CREATE_CQ,
					       .prp1 = IOVA + qid * 8192ULL + 4096,
					       .cdw10 = 15U << 16 | qid,
					       .cdw11 = qid << 16 | 3};

		submit(hostile, 0, &command);
		command.opcode = NVME_ADMIN_CREATE_SQ;
		command.prp1 = IOVA + qid * 8192ULL;
		submit(hostile, 0, &command);
	}
	run_some(hostile, STEPS);
}

static struct nvme_command draw_command(struct hostile *hostile)
{
	static const uint8_t opcodes[] = {0, 1, 2, 8, 9, 4, 5, 6, 10, 12};
	struct nvme_command command = {0};
	uint8_t kind = draw(hostile);

	command.opcode = kind < 240 ? opcodes[kind % sizeof(opcodes)] : kind;
	command.flags = kind == 255 ? draw(hostile) : 0;
	command.cid = draw(hostile);
	command.nsid = draw(hostile) < 240 ? 1 : draw32(hostile);
	command.prp1 = draw_address(hostile);
	command.prp2 = draw_address(hostile);
	command.cdw10 = draw32(hostile) & (draw(hostile) < 200 ? 0x1f000f : UINT32_MAX);
	command.cdw11 = draw32(hostile) & (draw(hostile) < 240 ? 0x10007 : UINT32_MAX);
	command.cdw12 = draw32(hostile) & (draw(hostile) < 200 ? 0x3ff : UINT32_MAX);
	/* I/O stays within the disk mostly. */
	if (kind < 200)
		command.cdw11 &= kind & 1 ? 0xff00ffffU : 4;
	return command;
}

/* There and back, with what it holds on the way. */
static void change_state(struct hostile *hostile)
{
	uint64_t session;
	uint8_t buf[256];

	if (qsc_device_set_state(hostile->dev, draw(hostile) % 8, &session) < 0)
		return;
	if (session)
		(void)qsc_device_session_read(hostile->dev, session, buf, sizeof(buf));
	if (qsc_device_set_state(hostile->dev, QSC_STATE_RUNNING, &session) < 0)
		(void)qsc_device_reset(hostile->dev);
}

static void poke_memory(struct hostile *hostile)
{
	uint64_t entry = draw_address(hostile);

	if (draw(hostile) & 1)
		hostile->memory[draw32(hostile) % SIZE] = draw(hostile);
	else
		memcpy(hostile->memory + draw(hostile) * 256ULL + (draw(hostile) & 31) * 8ULL,
		       &entry, sizeof(entry));
}

static void act(struct hostile *hostile)
{
	struct nvme_command command;
	uint8_t kind = draw(hostile);

	if (kind >= 64) {
		command = draw_command(hostile);
		submit(hostile, kind & 3, &command);
		run_some(hostile, kind >> 5);
		/* Whatever was answered has been taken, or not. */
		if (kind & 16)
			reg_write(hostile, NVME_REG_DOORBELL + (kind & 3) * 8ULL + 4,
				  draw(hostile) & 15);
		return;
	}
	switch (kind & 15) {
	case 0:
		reg_write(hostile, draw32(hostile) % NVME_REGISTERS_SIZE & ~3U, draw32(hostile));
		break;
	case 1:
		reg_write(hostile, draw(hostile) & 0x3c, draw32(hostile));
		break;
	case 2:
		set_up(hostile, draw32(hostile) & 0xffc0 & draw32(hostile));
		break;
	case 3:
	case 4:
		poke_memory(hostile);
		break;
	case 5:
		change_state(hostile);
		break;
	case 6:
		(void)reg_read(hostile, draw32(hostile) % NVME_REGISTERS_SIZE & ~3U);
		break;
	case 7:
		command = draw_command(hostile);
		put_command(hostile, draw(hostile) & 7, draw(hostile), &command);
		break;
	case 8:
		reg_write(hostile, NVME_REG_DOORBELL + draw(hostile) % 40 * 4U, draw(hostile) % 20);
		break;
	case 9:
		run_some(hostile, STEPS);
		break;
	default:
		set_up(hostile, 0);
		break;
	}
}

/* All that is left ends, and a driver that comes then is served. */
static bool serves(struct hostile *hostile)
{
	const struct nvme_command identify = {
		.opcode = NVME_ADMIN_IDENTIFY, .cid = 77, .prp1 = IOVA + 8192, .cdw10 = 1};
	struct nvme_completion answer;
	uint32_t steps = 0;

	while (qsc_runtime_step(hostile->rt, 0)) {
		if (++steps == STEPS_MAX)
			return false;
	}
	enable(hostile, 0);
	memset(hostile->memory, 0, SIZE);
	while (qsc_runtime_step(hostile->rt, 0))
		;
	if (reg_read(hostile, NVME_REG_CSTS) != NVME_CSTS_RDY)
		return false;
	memcpy(hostile->memory, &identify, sizeof(identify));
	reg_write(hostile, NVME_REG_DOORBELL, 1);
	while (qsc_runtime_step(hostile->rt, 0))
		;
	memcpy(&answer, hostile->memory + 4096, sizeof(answer));
	return answer.cid == 77 && answer.status == 1;
}

bool nvme_hostile_run(const uint8_t *bytes, size_t size)
{
	const struct nvme_options options = {.ram = RAM, .queues = 3, .manual = true};
	struct hostile hostile = {.bytes = bytes, .size = size};
	struct qsc_dma_mapping mapping = {
		.iova = IOVA, .size = SIZE, .flags = QSC_DMA_READ | QSC_DMA_WRITE, .fd = -1};
	struct qsc_error err = QSC_ERROR_NONE;
	bool right;

	hostile.memory = aligned_alloc(4096, SIZE);
	if (!hostile.memory)
		return true;
	memset(hostile.memory, 0, SIZE);
	mapping.vaddr = hostile.memory;
	if (nvme_create(&options, &hostile.rt, &err) || qsc_runtime_open(hostile.rt, &hostile.dev))
		abort();
	if (qsc_device_dma_map(hostile.dev, &mapping))
		abort();
	set_up(&hostile, 0);
	while (hostile.at < hostile.size)
		act(&hostile);
	right = serves(&hostile);
	qsc_device_close(hostile.dev);
	qsc_runtime_destroy(hostile.rt);
	free(hostile.memory);
	return right;
}
