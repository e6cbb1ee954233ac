/* SPDX-License-Identifier: MIT */
/*
 * How a check makes the NVMe controller work. The pattern is written to the namespace once; a copy
 * is then a read of blocks of it, and one to the device's own memory is a write. There is a pair of
 * queues for each vector of copies; the admin queue has the vector before them.
 */
#include "nvme/exercise.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <time.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "nvme/nvme.h"
#include "nvme/spec.h"

#define VECTORS	      4U /* of copies: queues 1 to 4 */
#define FIRST_VECTOR  1U
#define BLOCK	      512U
#define PAGE	      4096U
#define TRANSFER_MAX  0x80000U /* 2^MDTS pages */
#define COPIES	      256U
#define ADMIN_ENTRIES 64U
/* A queue of so many holds one less; completions are not acknowledged. */
#define ENTRIES	     (COPIES + 1)
#define LIST_ENTRIES 8U

/* Where things are in the exerciser's memory. */
#define ADMIN_SQ      0x1000U
#define ADMIN_CQ      0x2000U
#define PATTERN_LIST  0x3000U
#define QUEUES	      0x4000U
#define COMPLETIONS   0x18000U
#define LISTS	      0x20000U
#define SQ_SIZE	      0x5000U
#define CQ_SIZE	      0x2000U
#define LIST_SIZE     (LIST_ENTRIES * sizeof(uint64_t))
#define MEMORY_NEEDED (LISTS + COPIES * LIST_SIZE)

_Static_assert(MEMORY_NEEDED <= QSC_CHECK_QUEUE_SIZE, "the queues have room");
_Static_assert(ENTRIES * sizeof(struct nvme_command) <= SQ_SIZE, "a submission queue has room");
_Static_assert(ENTRIES * sizeof(struct nvme_completion) <= CQ_SIZE, "a completion queue has room");
_Static_assert(QSC_CHECK_PATTERN_SIZE < NVME_RAM_MIN, "every namespace holds the pattern");

/* At the beginning of that memory. */
struct driver {
	uint32_t admin_tail;
	uint32_t tails[VECTORS];
	uint32_t copies;
};

static struct driver *driver_of(const struct qsc_check_bench *bench)
{
	return bench->queue;
}

static void *at(const struct qsc_check_bench *bench, uint64_t offset)
{
	return (uint8_t *)bench->queue + offset;
}

static uint64_t sq_offset(uint32_t queue)
{
	return QUEUES + (uint64_t)(queue - 1) * SQ_SIZE;
}

static uint64_t cq_offset(uint32_t queue)
{
	return COMPLETIONS + (uint64_t)(queue - 1) * CQ_SIZE;
}

/* ---- registers ---- */

static int access_result(ssize_t got, size_t want)
{
	if (got < 0)
		return (int)got;
	return (size_t)got == want ? 0 : -EIO;
}

static int reg_read(struct qsc_device *dev, uint32_t reg, uint32_t *value)
{
	return access_result(
		qsc_device_region_read(dev, NVME_BAR_REGISTERS, reg, value, sizeof(*value)),
		sizeof(*value));
}

static int reg_write(struct qsc_device *dev, uint32_t reg, uint32_t value)
{
	return access_result(
		qsc_device_region_write(dev, NVME_BAR_REGISTERS, reg, &value, sizeof(value)),
		sizeof(value));
}

static int reg_write64(struct qsc_device *dev, uint32_t reg, uint64_t value)
{
	int ret = reg_write(dev, reg, (uint32_t)value);

	return ret ? ret : reg_write(dev, reg + 4, (uint32_t)(value >> 32));
}

/* ---- commands from beginning to end, for what comes before copies ---- */

/* Waits between two looks at the device; -ETIMEDOUT after the longest that it may take. */
static int pause_until(const struct timespec *end)
{
	const struct timespec pause = {.tv_nsec = 20000};
	struct timespec now;

	nanosleep(&pause, NULL);
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end->tv_sec ? -ETIMEDOUT : 0;
}

static struct timespec patience(void)
{
	struct timespec end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 10;
	return end;
}

/* Entries of a queue that is in its first round have the phase tag 1. */
static bool answered(const struct nvme_completion *entry, uint32_t *status)
{
	uint16_t word = __atomic_load_n(&entry->status, __ATOMIC_ACQUIRE);

	*status = word >> 1;
	return word & 1;
}

static int await_status(const struct nvme_completion *entry)
{
	const struct timespec end = patience();
	uint32_t status;
	int ret = 0;

	while (!answered(entry, &status) && !ret)
		ret = pause_until(&end);
	if (ret || !status)
		return ret;
	return (status & ~(uint32_t)NVME_SC_DNR) == NVME_SC_READ_ONLY ? -EROFS : -EIO;
}

static int admin_do(const struct qsc_check_bench *bench, const struct nvme_command *command)
{
	uint32_t number = driver_of(bench)->admin_tail++;
	struct nvme_command *entry = (struct nvme_command *)at(bench, ADMIN_SQ) + number;
	const struct nvme_completion *answer = (const struct nvme_completion *)at(bench, ADMIN_CQ) +
					       number;
	int ret;

	*entry = *command;
	entry->cid = (uint16_t)number;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ret = reg_write(bench->dev, NVME_REG_DOORBELL, number + 1);
	return ret ? ret : await_status(answer);
}

static int queue_make(const struct qsc_check_bench *bench, uint32_t queue, bool interrupts)
{
	const struct nvme_command cq = {
		.opcode = NVME_ADMIN_CREATE_CQ,
		.prp1 = bench->queue_iova + cq_offset(queue),
		.cdw10 = (ENTRIES - 1) << 16 | queue,
		.cdw11 = (queue - 1 + FIRST_VECTOR) << 16 | (interrupts ? 3 : 1),
	};
	const struct nvme_command sq = {
		.opcode = NVME_ADMIN_CREATE_SQ,
		.prp1 = bench->queue_iova + sq_offset(queue),
		.cdw10 = (ENTRIES - 1) << 16 | queue,
		.cdw11 = queue << 16 | 1,
	};
	int ret = admin_do(bench, &cq);

	return ret ? ret : admin_do(bench, &sq);
}

static int queue_delete(const struct qsc_check_bench *bench, uint32_t queue)
{
	const struct nvme_command sq = {.opcode = NVME_ADMIN_DELETE_SQ, .cdw10 = queue};
	const struct nvme_command cq = {.opcode = NVME_ADMIN_DELETE_CQ, .cdw10 = queue};
	int ret = admin_do(bench, &sq);

	if (!ret)
		ret = admin_do(bench, &cq);
	memset(at(bench, sq_offset(queue)), 0, SQ_SIZE);
	memset(at(bench, cq_offset(queue)), 0, CQ_SIZE);
	return ret;
}

/* The pattern, by a queue that raises no interrupt. */
static int pattern_write(const struct qsc_check_bench *bench)
{
	struct nvme_command *commands = at(bench, sq_offset(1));
	const struct nvme_completion *answers = at(bench, cq_offset(1));
	uint64_t *list = at(bench, PATTERN_LIST);
	int ret = queue_make(bench, 1, false);
	uint32_t number = 0;

	for (uint64_t done = 0; !ret && done < QSC_CHECK_PATTERN_SIZE; number++) {
		uint64_t left = QSC_CHECK_PATTERN_SIZE - done;
		uint64_t size = left < TRANSFER_MAX ? left : TRANSFER_MAX;

		for (uint64_t page = 1; page < size / PAGE; page++)
			list[page - 1] = bench->pattern_iova + done + page * PAGE;
		commands[number] = (struct nvme_command){
			.opcode = NVME_IO_WRITE,
			.cid = (uint16_t)number,
			.nsid = 1,
			.prp1 = bench->pattern_iova + done,
			.prp2 = bench->queue_iova + PATTERN_LIST,
			.cdw10 = (uint32_t)(done / BLOCK),
			.cdw12 = (uint32_t)(size / BLOCK) - 1,
		};
		__atomic_thread_fence(__ATOMIC_RELEASE);
		ret = reg_write(bench->dev, NVME_REG_DOORBELL + 8, number + 1);
		if (!ret)
			ret = await_status(&answers[number]);
		done += size;
	}
	return ret ? ret : queue_delete(bench, 1);
}

static int enable(const struct qsc_check_bench *bench)
{
	const struct timespec end = patience();
	struct qsc_device *dev = bench->dev;
	uint32_t status = 0;
	int ret = reg_write(dev, NVME_REG_AQA, (ADMIN_ENTRIES - 1) << 16 | (ADMIN_ENTRIES - 1));

	if (!ret)
		ret = reg_write64(dev, NVME_REG_ASQ, bench->queue_iova + ADMIN_SQ);
	if (!ret)
		ret = reg_write64(dev, NVME_REG_ACQ, bench->queue_iova + ADMIN_CQ);
	if (!ret)
		ret = reg_write(dev, NVME_REG_CC,
				NVME_CC_EN | 6U << NVME_CC_IOSQES_SHIFT |
					4U << NVME_CC_IOCQES_SHIFT);
	while (!ret && !(status & (NVME_CSTS_RDY | NVME_CSTS_CFS))) {
		ret = reg_read(dev, NVME_REG_CSTS, &status);
		if (!ret && !status)
			ret = pause_until(&end);
	}
	return !ret && status & NVME_CSTS_CFS ? -EIO : ret;
}

/* ---- what a check calls ---- */

/* Only ours: it is written to. */
static bool knows(struct qsc_device *dev, const struct qsc_device_info *info)
{
	struct qsc_irq_info irq = {0};
	uint16_t ids[2] = {0};

	return info->flags & VFIO_DEVICE_FLAGS_PCI && info->num_irqs > VFIO_PCI_MSIX_IRQ_INDEX &&
	       qsc_device_region_read(dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, ids,
				      sizeof(ids)) == sizeof(ids) &&
	       ids[0] == NVME_PCI_VENDOR && ids[1] == NVME_PCI_DEVICE &&
	       !qsc_device_get_irq_info(dev, VFIO_PCI_MSIX_IRQ_INDEX, &irq) &&
	       irq.count >= FIRST_VECTOR + VECTORS;
}

/* With its blocks in its state, as far as the device says what that is. */
static bool knows_memory(struct qsc_device *dev, const struct qsc_device_info *info)
{
	bool block = false;

	for (uint32_t i = 0; i < info->layout.num_parts && i < QSC_LAYOUT_PARTS; i++)
		block |= info->layout.parts[i].kind == QSC_LAYOUT_BLOCK;
	return block && knows(dev, info);
}

static int prepare(const struct qsc_check_bench *bench)
{
	int ret;

	memset(bench->queue, 0, MEMORY_NEEDED);
	ret = enable(bench);
	if (!ret)
		ret = pattern_write(bench);
	for (uint32_t queue = 1; !ret && queue <= VECTORS; queue++)
		ret = queue_make(bench, queue, true);
	return ret;
}

/* Describe where the data is; a list of its own for each copy. */
static int set_memory(const struct qsc_check_bench *bench, struct nvme_command *command,
		      uint64_t iova, uint32_t size)
{
	uint64_t offset = LISTS + driver_of(bench)->copies * LIST_SIZE;
	uint64_t *list = at(bench, offset);
	uint64_t second = (iova | (PAGE - 1)) + 1;
	uint64_t pages = iova + size > second ? (iova + size - second + PAGE - 1) / PAGE : 0;

	if (pages > LIST_ENTRIES)
		return -EMSGSIZE;
	for (uint64_t i = 0; i < pages; i++)
		list[i] = second + i * PAGE;
	command->prp1 = iova;
	command->prp2 = pages > 1 ? bench->queue_iova + offset : pages ? second : 0;
	return 0;
}

static int submit(const struct qsc_check_bench *bench, const struct qsc_check_copy *copy)
{
	bool local = copy->destination >= QSC_CHECK_DEVICE_MEMORY;
	uint64_t block = local ? QSC_CHECK_PATTERN_SIZE + copy->destination -
					 QSC_CHECK_DEVICE_MEMORY
			       : copy->source;
	struct driver *driver = driver_of(bench);
	uint32_t *tail = &driver->tails[copy->vector % VECTORS];
	struct nvme_command command = {
		.opcode = local ? NVME_IO_WRITE : NVME_IO_READ,
		.cid = (uint16_t)*tail,
		.nsid = 1,
		.cdw10 = (uint32_t)(block / BLOCK),
		.cdw12 = copy->size / BLOCK - 1,
	};
	int ret;

	if (driver->copies == COPIES)
		return -ENOSPC;
	ret = set_memory(bench, &command,
			 local ? bench->pattern_iova + copy->source : copy->destination,
			 copy->size);
	if (ret)
		return ret;
	((struct nvme_command *)at(bench, sq_offset(copy->vector % VECTORS + 1)))[*tail] = command;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	driver->copies++;
	++*tail;
	return 0;
}

static int kick(const struct qsc_check_bench *bench)
{
	int ret = 0;

	for (uint32_t i = 0; !ret && i < VECTORS; i++)
		if (driver_of(bench)->tails[i])
			ret = reg_write(bench->dev, NVME_REG_DOORBELL + (i + 1) * 8,
					driver_of(bench)->tails[i]);
	return ret;
}

static uint32_t completed(const struct qsc_check_bench *bench, uint32_t vector)
{
	const struct nvme_completion *entries = at(bench, cq_offset(vector % VECTORS + 1));
	uint32_t count = 0, status;

	/* A driver does not look past an entry that is not written yet. */
	while (count < COPIES && answered(&entries[count], &status))
		count++;
	return count;
}

/* Of CC the sizes of entries are a register: they count only when a queue is made. */
#define EXERCISER(whom, in_state)                                                                \
	{                                                                                        \
		.name = "nvme", .knows = (whom), .register_region = NVME_BAR_REGISTERS,          \
		.register_offset = NVME_REG_CC, .register_size = 4, .register_mask = 0x00ff0000, \
		.irq_index = VFIO_PCI_MSIX_IRQ_INDEX, .first_vector = FIRST_VECTOR,              \
		.granule = BLOCK, .to_device_memory = (in_state), .keeps = true,                 \
		.prepare = prepare, .submit = submit, .kick = kick, .completed = completed,      \
	}

const struct qsc_exerciser nvme_exerciser = EXERCISER(knows_memory, true);
const struct qsc_exerciser nvme_file_exerciser = EXERCISER(knows, false);
