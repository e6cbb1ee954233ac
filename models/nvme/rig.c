/* SPDX-License-Identifier: MIT */
/* See rig.h. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <linux/vfio.h>

#include "nvme/rig.h"

uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

void random_fill(void *data, size_t size, uint64_t seed)
{
	uint8_t *bytes = data;

	seed = seed * 0x9e3779b97f4a7c15ULL | 1;
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)(random_next(&seed) >> 24);
}

uint8_t *memory_make(void)
{
	uint8_t *memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE,
			       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

static char file_name[64];

static void file_remove(void)
{
	unlink(file_name);
}

const char *file_make(uint64_t size)
{
	static bool registered;
	int fd;

	if (registered)
		unlink(file_name);
	strcpy(file_name, "/tmp/quiesce-nvme-XXXXXX");
	fd = mkstemp(file_name);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	close(fd);
	if (!registered)
		atexit(file_remove);
	registered = true;
	return file_name;
}

struct nvme_options rig_options(uint32_t flags)
{
	return (struct nvme_options){
		.migration_flags = flags, .ram = RAM_SIZE, .queues = IO_QUEUES, .manual = true};
}

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

void rig_set_irqs(struct rig *rig)
{
	assert_int_equal(qsc_device_set_eventfds(rig->dev, VFIO_PCI_MSIX_IRQ_INDEX, rig->events,
						 IO_QUEUES + 1),
			 0);
}

void rig_make(struct rig *rig, const struct nvme_options *options, uint8_t *memory,
	      struct driver *driver)
{
	struct qsc_error err = QSC_ERROR_NONE;

	*rig = (struct rig){.memory = memory,
			    .driver = driver,
			    .seed = 0x9e3779b97f4a7c15ULL,
			    .threads = !options->manual};
	if (nvme_create(options, &rig->rt, &err))
		fail_msg("%s", err.text);
	assert_int_equal(qsc_runtime_open(rig->rt, &rig->dev), 0);
	for (uint32_t i = 0; i <= IO_QUEUES; i++) {
		rig->events[i] = eventfd(0, EFD_CLOEXEC | (rig->threads ? 0 : EFD_NONBLOCK));
		assert_true(rig->events[i] >= 0);
	}
	rig->line = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	assert_true(rig->line >= 0);
	rig_map(rig);
}

void rig_free(struct rig *rig)
{
	qsc_device_close(rig->dev);
	qsc_runtime_destroy(rig->rt);
	for (uint32_t i = 0; i <= IO_QUEUES; i++)
		close(rig->events[i]);
	close(rig->line);
}

void rig_state(struct rig *rig, enum qsc_state target)
{
	enum qsc_state state;
	uint64_t session;

	assert_int_equal(qsc_device_set_state(rig->dev, target, &session), 0);
	assert_int_equal(qsc_device_get_state(rig->dev, &state), 0);
	assert_int_equal(state, target);
}

bool rig_steps(struct rig *rig, uint64_t steps)
{
	while (steps--) {
		if (!qsc_runtime_step(rig->rt, random_next(&rig->seed)))
			return false;
	}
	return true;
}

void rig_settle(struct rig *rig)
{
	assert_false(rig_steps(rig, 1000000));
}

uint64_t rig_interrupts(struct rig *rig, uint32_t vector)
{
	uint64_t count = 0;

	if (read(rig->events[vector], &count, sizeof(count)) != sizeof(count))
		assert_int_equal(errno, EAGAIN);
	return count;
}

uint32_t rig_read(struct rig *rig, uint32_t reg)
{
	uint32_t value;

	assert_int_equal(
		qsc_device_region_read(rig->dev, NVME_BAR_REGISTERS, reg, &value, sizeof(value)),
		sizeof(value));
	return value;
}

void rig_write(struct rig *rig, uint32_t reg, uint32_t value)
{
	assert_int_equal(
		qsc_device_region_write(rig->dev, NVME_BAR_REGISTERS, reg, &value, sizeof(value)),
		sizeof(value));
}

/* ---- the driver ---- */

static struct nvme_command *submission(struct rig *rig, uint32_t qid, uint32_t index)
{
	return (struct nvme_command *)(void *)(rig->memory + (size_t)qid * 8192) + index;
}

static struct nvme_completion *completion_entry(struct rig *rig, uint32_t qid, uint32_t index)
{
	return (struct nvme_completion *)(void *)(rig->memory + (size_t)qid * 8192 + 4096) + index;
}

static void driver_queue_init(struct rig *rig, uint32_t qid)
{
	memset(rig->memory + (size_t)qid * 8192, 0, 8192);
	rig->driver->queues[qid] = (struct driver_queue){.entries = ENTRIES, .tag = 1, .cid = 1};
}

void driver_ask(struct rig *rig)
{
	driver_queue_init(rig, 0);
	rig_write(rig, NVME_REG_AQA, (ENTRIES - 1) << 16 | (ENTRIES - 1));
	rig_write(rig, NVME_REG_ASQ, (uint32_t)MEMORY_IOVA);
	rig_write(rig, NVME_REG_ASQ + 4, (uint32_t)(MEMORY_IOVA >> 32));
	rig_write(rig, NVME_REG_ACQ, (uint32_t)MEMORY_IOVA + 4096);
	rig_write(rig, NVME_REG_ACQ + 4, (uint32_t)(MEMORY_IOVA >> 32));
	rig_write(rig, NVME_REG_CC, CC_ENABLE);
}

void driver_enable(struct rig *rig)
{
	driver_ask(rig);
	if (!rig->threads)
		rig_settle(rig);
	while (rig->threads && !rig_read(rig, NVME_REG_CSTS))
		sched_yield();
	assert_int_equal(rig_read(rig, NVME_REG_CSTS), NVME_CSTS_RDY);
}

uint32_t driver_create(struct rig *rig, uint32_t qid)
{
	const uint64_t base = MEMORY_IOVA + (uint64_t)qid * 8192;
	const struct nvme_command cq = {.opcode = NVME_ADMIN_CREATE_CQ,
					.prp1 = base + 4096,
					.cdw10 = (ENTRIES - 1) << 16 | qid,
					.cdw11 = qid << 16 | 3};
	const struct nvme_command sq = {.opcode = NVME_ADMIN_CREATE_SQ,
					.prp1 = base,
					.cdw10 = (ENTRIES - 1) << 16 | qid,
					.cdw11 = qid << 16 | 1};
	uint32_t status;

	driver_queue_init(rig, qid);
	status = driver_do(rig, 0, cq, NULL);
	return status ? status : driver_do(rig, 0, sq, NULL);
}

void driver_start(struct rig *rig)
{
	rig_set_irqs(rig);
	driver_enable(rig);
	for (uint32_t qid = 1; qid <= IO_QUEUES; qid++)
		assert_int_equal(driver_create(rig, qid), NVME_SC_SUCCESS);
}

SEES_DMA
uint16_t driver_submit(struct rig *rig, uint32_t qid, struct nvme_command command)
{
	struct driver_queue *queue = &rig->driver->queues[qid];

	command.cid = queue->cid++;
	*submission(rig, qid, queue->tail) = command;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	queue->tail = (queue->tail + 1) % queue->entries;
	return command.cid;
}

void driver_doorbell(struct rig *rig, uint32_t qid)
{
	rig_write(rig, NVME_REG_DOORBELL + qid * 8, rig->driver->queues[qid].tail);
}

SEES_DMA
bool driver_reap(struct rig *rig, uint32_t qid, struct nvme_completion *completion)
{
	struct driver_queue *queue = &rig->driver->queues[qid];
	const struct nvme_completion *entry = completion_entry(rig, qid, queue->head);

	if ((*(const volatile uint16_t *)&entry->status & 1) != queue->tag)
		return false;
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	*completion = *entry;
	queue->head = (queue->head + 1) % queue->entries;
	queue->tag ^= !queue->head;
	return true;
}

void driver_acknowledge(struct rig *rig, uint32_t qid)
{
	rig_write(rig, NVME_REG_DOORBELL + qid * 8 + 4, rig->driver->queues[qid].head);
}

uint32_t driver_do(struct rig *rig, uint32_t qid, struct nvme_command command, uint32_t *result)
{
	uint16_t cid = driver_submit(rig, qid, command);
	struct nvme_completion completion;

	driver_doorbell(rig, qid);
	if (!rig->threads)
		rig_settle(rig);
	while (!driver_reap(rig, qid, &completion)) {
		assert_true(rig->threads);
		/* Blocks: each completion is followed by an interrupt. */
		(void)rig_interrupts(rig, qid);
	}
	assert_int_equal(completion.cid, cid);
	assert_int_equal(completion.sq_id, qid);
	driver_acknowledge(rig, qid);
	if (result)
		*result = completion.result;
	return completion.status >> 1 & ~(uint32_t)NVME_SC_DNR;
}

uint32_t driver_set_feature(struct rig *rig, uint32_t feature, uint32_t value)
{
	return driver_do(rig, 0,
			 (struct nvme_command){.opcode = NVME_ADMIN_SET_FEATURES,
					       .cdw10 = feature,
					       .cdw11 = value},
			 NULL);
}

uint32_t driver_feature(struct rig *rig, uint32_t feature, uint32_t value)
{
	uint32_t result;

	assert_int_equal(driver_do(rig, 0,
				   (struct nvme_command){.opcode = NVME_ADMIN_GET_FEATURES,
							 .cdw10 = feature,
							 .cdw11 = value},
				   &result),
			 NVME_SC_SUCCESS);
	return result;
}

SEES_DMA
static void scratch_read(struct rig *rig, void *data, size_t size)
{
	memcpy(data, rig->memory + SCRATCH_OFFSET, size);
}

uint32_t driver_identify(struct rig *rig, uint32_t cns, uint32_t nsid, void *data)
{
	uint32_t status = driver_do(rig, 0,
				    (struct nvme_command){.opcode = NVME_ADMIN_IDENTIFY,
							  .nsid = nsid,
							  .prp1 = MEMORY_IOVA + SCRATCH_OFFSET,
							  .cdw10 = cns},
				    NULL);

	scratch_read(rig, data, 4096);
	return status;
}

uint32_t driver_log_page(struct rig *rig, uint32_t page, uint32_t offset, void *data, uint32_t size)
{
	uint32_t status = driver_do(rig, 0,
				    (struct nvme_command){.opcode = NVME_ADMIN_GET_LOG_PAGE,
							  .nsid = UINT32_MAX,
							  .prp1 = MEMORY_IOVA + SCRATCH_OFFSET,
							  .cdw10 = (size / 4 - 1) << 16 | page,
							  .cdw12 = offset},
				    NULL);

	scratch_read(rig, data, size);
	return status;
}

struct nvme_command driver_rw(uint8_t opcode, uint64_t block, uint32_t blocks, uint64_t offset)
{
	const uint64_t iova = MEMORY_IOVA + offset;

	return (struct nvme_command){
		.opcode = opcode,
		.nsid = 1,
		.prp1 = iova,
		.prp2 = (iova & ~4095ULL) + 4096,
		.cdw10 = (uint32_t)block,
		.cdw11 = (uint32_t)(block >> 32),
		.cdw12 = blocks - 1,
	};
}
