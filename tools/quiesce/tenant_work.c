/* SPDX-License-Identifier: MIT */
/*
 * What the tenant does: a program of jobs, each a short list of transfers that go through one slot.
 * It fills what nobody will touch, streams blocks through the chain until it is told to finish,
 * then compares what was kept. Every step leaves everything it must remember in memory or in the
 * CPU state, and tells which pages it wrote; nothing else of this file survives a move.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <xxhash.h>

#include "tenant_impl.h"

#define SEED_MEMORY   0x6d656d6f72790000ULL
#define SEED_STATE    0x7374617465000000ULL
#define MEMORY_PIECES 4U /* compared or filled by the CPU in one step */
#define RECORD_PIECES 16U
#define WAIT_MS	      100
#define LOST_US	      2000000ULL
#define STALL_US      15000000ULL
#define MAX_ATTEMPTS  100U

/* Of the job in a slot: what the engine is to do next. */
struct transfer {
	uint32_t device;
	uint32_t flags;
	uint64_t source;
	uint64_t destination;
};

void tenant_mark(struct tenant *t, const void *at, size_t size)
{
	uint64_t first = (uint64_t)((const uint8_t *)at - t->memory) / TENANT_PAGE;
	uint64_t last = ((uint64_t)((const uint8_t *)at - t->memory) + size - 1) / TENANT_PAGE;

	for (; first <= last; first++)
		atomic_fetch_or_explicit(&t->dirty[first / 64], 1ULL << (first % 64),
					 memory_order_acq_rel);
}

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

static void mark_head(struct tenant *t)
{
	tenant_mark(t, t->memory, offsetof(struct tenant_head, records));
}

static uint64_t cold_offset(const struct tenant *t)
{
	return TENANT_SLOTS * t->layout.block_bytes;
}

/* Pieces of engine memory that nobody touches, over all engines. */
static uint64_t state_jobs(const struct tenant *t)
{
	return (t->config.state_bytes - cold_offset(t)) / t->layout.block_bytes * t->config.devices;
}

static uint64_t state_seed(const struct tenant *t, uint64_t job)
{
	return SEED_STATE + job % t->config.devices;
}

static uint64_t state_piece(const struct tenant *t, uint64_t job)
{
	return job / t->config.devices;
}

static uint8_t *input_of(const struct tenant *t, uint32_t slot)
{
	return t->memory + t->layout.input + slot * t->layout.block_bytes;
}

static uint8_t *output_of(const struct tenant *t, uint32_t slot)
{
	return t->memory + t->layout.output + slot * t->layout.block_bytes;
}

static uint64_t iova_of(const struct tenant *t, const uint8_t *at)
{
	return TENANT_MEMORY_IOVA + (uint64_t)(at - t->memory);
}

void tenant_take_interrupts(struct tenant *t, uint32_t device, uint32_t vector, uint64_t count)
{
	struct tenant_head *head = tenant_head(t);
	struct tenant_slot *slot = &head->slots[vector];

	if (!count)
		return;
	head->result.interrupts += count;
	if (slot->flags & TENANT_SLOT_SUBMITTED && !(slot->flags & TENANT_SLOT_INTERRUPTED) &&
	    slot->device == device) {
		slot->flags |= TENANT_SLOT_INTERRUPTED;
		count--;
	}
	head->result.interrupts_doubled += count;
	mark_head(t);
}

/* ---- jobs ---- */

static uint32_t steps_of(const struct tenant *t)
{
	return t->cpu.program == TENANT_STREAM ? t->config.devices + 1 : 1;
}

/*
 * A block goes from memory into the first engine's local memory, from each engine's to the next
 * one's (peer DMA), and from the last one's to memory: N + 1 transfers for N engines.
 */
static struct transfer stream_transfer(const struct tenant *t, uint32_t index, uint32_t step)
{
	uint64_t local = index * t->layout.block_bytes;

	if (step == 0)
		return (struct transfer){0, DMACOPY_DESC_DESTINATION_LOCAL,
					 iova_of(t, input_of(t, index)), local};
	if (step < t->config.devices)
		return (struct transfer){step - 1, DMACOPY_DESC_SOURCE_LOCAL, local,
					 TENANT_PEER_IOVA + local};
	return (struct transfer){step - 1, DMACOPY_DESC_SOURCE_LOCAL, local,
				 iova_of(t, output_of(t, index))};
}

static struct transfer transfer_of(const struct tenant *t, uint32_t index)
{
	const struct tenant_slot *slot = &tenant_head(t)->slots[index];
	uint32_t device = (uint32_t)(slot->job % t->config.devices);
	uint64_t local;

	if (t->cpu.program == TENANT_STREAM)
		return stream_transfer(t, index, slot->step);
	local = cold_offset(t) + state_piece(t, slot->job) * t->layout.block_bytes;
	if (t->cpu.program == TENANT_FILL_DEVICES)
		return (struct transfer){device, DMACOPY_DESC_DESTINATION_LOCAL,
					 iova_of(t, input_of(t, index)), local};
	return (struct transfer){device, DMACOPY_DESC_SOURCE_LOCAL, local,
				 iova_of(t, output_of(t, index))};
}

static bool has_job(const struct tenant *t)
{
	if (t->cpu.program == TENANT_STREAM)
		return !atomic_load(&t->finish);
	return t->cpu.next < state_jobs(t);
}

static int begin_job(struct tenant *t, uint32_t index, struct qsc_error *err)
{
	struct tenant_slot *slot = &tenant_head(t)->slots[index];
	size_t size = (size_t)t->layout.block_bytes;
	uint8_t *input = input_of(t, index);
	int result;

	memset(slot, 0, sizeof(*slot));
	slot->job = t->cpu.next++;
	if (t->cpu.program == TENANT_STREAM) {
		result = tenant_source_block(&t->source, slot->job, input, size);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "%s cannot be read any more: %s, leave it alone while "
					     "the demo runs",
					     t->config.file, strerror(-result));
		slot->checksum = XXH3_64bits(input, size);
	} else if (t->cpu.program == TENANT_FILL_DEVICES) {
		tenant_pattern(state_seed(t, slot->job), state_piece(t, slot->job), input, size);
	}
	slot->flags = TENANT_SLOT_BUSY;
	tenant_mark(t, input, size);
	return 0;
}

static void end_block(struct tenant *t, uint32_t index)
{
	struct tenant_head *head = tenant_head(t);
	const struct tenant_slot *slot = &head->slots[index];
	struct tenant_record *record = &head->records[slot->job % TENANT_RECORDS];
	size_t size = (size_t)t->layout.block_bytes;
	const uint8_t *output = output_of(t, index);
	/* Where it came from has been left alone since. */
	uint64_t wrong = tenant_count_wrong(output, t->scratch, size) +
			 tenant_count_wrong(input_of(t, index), t->scratch, size);

	record->block = slot->job;
	record->checksum = XXH3_64bits(output, size);
	tenant_mark(t, record, sizeof(*record));
	/* Right bytes under a wrong checksum: what the tenant remembers was changed. */
	if (!wrong && record->checksum != slot->checksum)
		wrong = sizeof(slot->checksum);
	head->result.bytes_wrong += wrong;
	head->result.blocks++;
	head->result.bytes_moved += size;
	atomic_store_explicit(&t->live->blocks, head->result.blocks, memory_order_relaxed);
	if (!atomic_load_explicit(&t->live->first_block_us, memory_order_relaxed))
		atomic_store(&t->live->first_block_us, now_us());
}

static int end_job(struct tenant *t, uint32_t index, struct qsc_error *err)
{
	struct tenant_head *head = tenant_head(t);
	struct tenant_slot *slot = &head->slots[index];
	size_t size = (size_t)t->layout.block_bytes;
	int result = 0;

	if (t->cpu.program == TENANT_STREAM) {
		result = tenant_source_block(&t->source, slot->job, t->scratch, size);
		if (result < 0)
			return qsc_error_set(err, -result, NULL, "%s cannot be read any more: %s",
					     t->config.file, strerror(-result));
		end_block(t, index);
	} else if (t->cpu.program == TENANT_VERIFY_DEVICES) {
		tenant_pattern(state_seed(t, slot->job), state_piece(t, slot->job), t->scratch,
			       size);
		head->result.bytes_wrong += tenant_count_wrong(output_of(t, index), t->scratch,
							       size);
		head->result.bytes_kept += size;
	}
	slot->flags = 0;
	return 0;
}

/* ---- transfers ---- */

static int submit(struct tenant *t, uint32_t index, struct qsc_error *err)
{
	struct tenant_head *head = tenant_head(t);
	struct tenant_slot *slot = &head->slots[index];
	struct transfer what = transfer_of(t, index);
	struct dmacopy_queue *queue = tenant_queue(t, what.device);
	struct dmacopy_transfer transfer = {
		.flags = what.flags | DMACOPY_DESC_INTERRUPT,
		.vector = index,
		.length = (uint32_t)t->layout.block_bytes,
		.source = what.source,
		.destination = what.destination,
		.cookie = index,
	};
	int result;

	slot->device = what.device;
	slot->flags |= TENANT_SLOT_SUBMITTED;
	slot->attempts++;
	head->transfers++;
	result = dmacopy_driver_submit(queue, &transfer);
	tenant_mark(t, queue, (size_t)t->layout.queue_stride);
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the queue of device %u took no transfer: %s", what.device,
				     strerror(-result));
	t->rung[what.device] = 1;
	return 0;
}

static const char *status_text(uint32_t status)
{
	switch (status) {
	case DMACOPY_DONE_INVALID:
		return "invalid descriptor";
	case DMACOPY_DONE_RANGE:
		return "range outside local memory";
	case DMACOPY_DONE_FAULT:
		return "address not mapped";
	case DMACOPY_DONE_IO:
		return "memory behind the address is gone";
	case DMACOPY_DONE_OK:
		return "fewer bytes than asked for";
	default:
		return "unknown status";
	}
}

/* The transfer of a slot is complete and its interrupt has come. */
static int advance(struct tenant *t, uint32_t index, struct qsc_error *err)
{
	struct tenant_head *head = tenant_head(t);
	struct tenant_slot *slot = &head->slots[index];

	slot->flags = TENANT_SLOT_BUSY;
	if (slot->status == DMACOPY_DONE_FAULT && t->config.retry_faults &&
	    slot->attempts < MAX_ATTEMPTS) {
		head->result.retried++;
		return 0;
	}
	if (slot->status != DMACOPY_DONE_OK)
		return qsc_error_set(err, EIO, NULL,
				     "device %u failed transfer %u of block %llu: %s", slot->device,
				     slot->step, (unsigned long long)slot->job,
				     status_text(slot->status));
	head->result.engine_bytes += t->layout.block_bytes;
	slot->attempts = 0;
	slot->step++;
	if (slot->step == steps_of(t))
		return end_job(t, index, err);
	return 0;
}

static void reap(struct tenant *t, uint32_t device)
{
	struct dmacopy_queue *queue = tenant_queue(t, device);
	struct tenant_head *head = tenant_head(t);
	struct dmacopy_completion completion;
	bool any = false;

	while (dmacopy_driver_reap(queue, &completion) > 0) {
		struct tenant_slot *slot = &head->slots[completion.cookie % TENANT_SLOTS];

		slot->flags |= TENANT_SLOT_COMPLETE;
		slot->status = completion.status;
		if (completion.status == DMACOPY_DONE_OK &&
		    completion.bytes_done != t->layout.block_bytes)
			slot->status = ~DMACOPY_DONE_OK;
		any = true;
	}
	if (any)
		tenant_mark(t, queue, (size_t)t->layout.queue_stride);
}

static int ring(struct tenant *t, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < t->config.devices; i++) {
		int result;

		if (!t->rung[i])
			continue;
		t->rung[i] = 0;
		result = dmacopy_driver_doorbell(t->devices[i]);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "the doorbell of device %u cannot be reached: %s", i,
					     strerror(-result));
	}
	return 0;
}

/* ---- waiting ---- */

/* Nothing came for a while. What is complete without its interrupt will not get it any more. */
static int look_for_lost(struct tenant *t, struct qsc_error *err)
{
	uint64_t idle_us = now_us() - t->idle_since_us;
	struct tenant_head *head = tenant_head(t);
	uint32_t i, waiting = TENANT_SLOTS;

	if (idle_us < LOST_US)
		return 0;
	for (i = 0; i < TENANT_SLOTS; i++) {
		struct tenant_slot *slot = &head->slots[i];

		if (!(slot->flags & TENANT_SLOT_SUBMITTED))
			continue;
		if (slot->flags & TENANT_SLOT_COMPLETE &&
		    !(slot->flags & TENANT_SLOT_INTERRUPTED)) {
			slot->flags |= TENANT_SLOT_INTERRUPTED;
			head->result.interrupts_lost++;
		} else {
			waiting = i;
		}
	}
	mark_head(t);
	if (idle_us < STALL_US || waiting == TENANT_SLOTS)
		return 0;
	return qsc_error_set(err, ETIMEDOUT, NULL,
			     "device %u has not finished a transfer for %llu s: see whether its "
			     "server still runs",
			     head->slots[waiting].device, (unsigned long long)(STALL_US / 1000000));
}

static uint64_t drain(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count) ? count : 0;
}

static int wait_events(struct tenant *t, int timeout_ms, struct qsc_error *err)
{
	struct epoll_event events[64];
	int i, count = epoll_wait(t->epoll_fd, events, 64, timeout_ms);

	if (count < 0)
		return errno == EINTR
			       ? 0
			       : qsc_error_set(err, errno, NULL, "epoll: %s", strerror(errno));
	if (count == 0)
		return look_for_lost(t, err);
	t->idle_since_us = now_us();
	for (i = 0; i < count; i++) {
		uint64_t which = events[i].data.u64;

		if (which == UINT64_MAX)
			(void)drain(t->kick_fd);
		else
			tenant_take_interrupts(t, (uint32_t)(which / TENANT_SLOTS),
					       (uint32_t)(which % TENANT_SLOTS),
					       drain(t->irq_fds[which]));
	}
	return 0;
}

/* ---- the program ---- */

static void set_program(struct tenant *t, enum tenant_program program)
{
	static const enum tenant_activity activities[] = {
		[TENANT_FILL_MEMORY] = TENANT_FILLING,
		[TENANT_FILL_DEVICES] = TENANT_FILLING,
		[TENANT_STREAM] = TENANT_STREAMING,
		[TENANT_VERIFY_DEVICES] = TENANT_VERIFYING,
		[TENANT_VERIFY_MEMORY] = TENANT_VERIFYING,
		[TENANT_VERIFY_RECORDS] = TENANT_VERIFYING,
		[TENANT_DONE] = TENANT_FINISHED,
	};

	t->cpu.program = program;
	t->cpu.next = 0;
	atomic_store(&t->live->activity, activities[program]);
	atomic_store(&t->live->permille, 0);
}

static void tell(struct tenant *t, uint64_t done, uint64_t of)
{
	uint32_t permille = of ? (uint32_t)(done * 1000 / of) : 1000;

	atomic_store_explicit(&t->live->permille, permille, memory_order_relaxed);
}

static int step_slots(struct tenant *t, struct qsc_error *err)
{
	struct tenant_head *head = tenant_head(t);
	uint32_t i, busy = 0;
	int result = 0;

	for (i = 0; i < t->config.devices; i++)
		reap(t, i);
	for (i = 0; i < TENANT_SLOTS && !result; i++) {
		struct tenant_slot *slot = &head->slots[i];
		const uint32_t through = TENANT_SLOT_INTERRUPTED | TENANT_SLOT_COMPLETE;

		if (atomic_load_explicit(&t->interrupt, memory_order_relaxed))
			break;
		if ((slot->flags & through) == through)
			result = advance(t, i, err);
		if (!result && !(slot->flags & TENANT_SLOT_BUSY) && has_job(t))
			result = begin_job(t, i, err);
		if (!result && slot->flags & TENANT_SLOT_BUSY &&
		    !(slot->flags & TENANT_SLOT_SUBMITTED))
			result = submit(t, i, err);
		busy += slot->flags & TENANT_SLOT_BUSY;
	}
	mark_head(t);
	if (!result)
		result = ring(t, err);
	if (result < 0 || atomic_load_explicit(&t->interrupt, memory_order_relaxed))
		return result;
	if (t->cpu.program != TENANT_STREAM)
		tell(t, t->cpu.next, state_jobs(t));
	if (busy || has_job(t))
		return wait_events(t, WAIT_MS, err);
	/* What comes after the last transfer can only be one interrupt too many. */
	result = wait_events(t, t->cpu.program == TENANT_STREAM ? WAIT_MS : 0, err);
	set_program(t, t->cpu.program + 1);
	return result;
}

static void step_memory(struct tenant *t)
{
	struct tenant_head *head = tenant_head(t);
	uint64_t end = t->layout.size - t->layout.cold;
	uint32_t i;

	for (i = 0; i < MEMORY_PIECES && t->cpu.next < end; i++) {
		uint64_t rest = end - t->cpu.next;
		size_t size = (size_t)(rest < t->layout.block_bytes ? rest : t->layout.block_bytes);
		uint8_t *at = t->memory + t->layout.cold + t->cpu.next;

		if (t->cpu.program == TENANT_FILL_MEMORY) {
			tenant_pattern(SEED_MEMORY, t->cpu.next, at, size);
			tenant_mark(t, at, size);
		} else {
			tenant_pattern(SEED_MEMORY, t->cpu.next, t->scratch, size);
			head->result.bytes_wrong += tenant_count_wrong(at, t->scratch, size);
			head->result.bytes_kept += size;
			mark_head(t);
		}
		t->cpu.next += size;
	}
	tell(t, t->cpu.next, end);
	if (t->cpu.next >= end)
		set_program(t, t->cpu.program + 1);
}

static int step_records(struct tenant *t, struct qsc_error *err)
{
	struct tenant_head *head = tenant_head(t);
	uint64_t blocks = head->result.blocks,
		 kept = blocks < TENANT_RECORDS ? blocks : TENANT_RECORDS;
	size_t size = (size_t)t->layout.block_bytes;
	uint32_t i;

	for (i = 0; i < RECORD_PIECES && t->cpu.next < kept; i++, t->cpu.next++) {
		uint64_t block = blocks - kept + t->cpu.next;
		const struct tenant_record *record = &head->records[block % TENANT_RECORDS];
		int result = tenant_source_block(&t->source, block, t->scratch, size);

		if (result < 0)
			return qsc_error_set(err, -result, NULL, "%s cannot be read any more: %s",
					     t->config.file, strerror(-result));
		if (record->block != block || record->checksum != XXH3_64bits(t->scratch, size))
			head->result.bytes_wrong += sizeof(*record);
		head->result.bytes_kept += sizeof(*record);
	}
	mark_head(t);
	tell(t, t->cpu.next, kept);
	if (t->cpu.next >= kept)
		set_program(t, t->cpu.program + 1);
	return 0;
}

int tenant_step(struct tenant *t, struct qsc_error *err)
{
	switch (t->cpu.program) {
	case TENANT_FILL_MEMORY:
	case TENANT_VERIFY_MEMORY:
		step_memory(t);
		return 0;
	case TENANT_VERIFY_RECORDS:
		return step_records(t, err);
	case TENANT_DONE:
		return 1;
	default:
		return step_slots(t, err);
	}
}
