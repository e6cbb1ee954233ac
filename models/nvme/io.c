/* SPDX-License-Identifier: MIT */
/*
 * I/O commands, step by step. A step moves a piece and notes how far it came, so a state change
 * waits for a piece only. After a migration the command goes on at the next one.
 */
#include <errno.h>

#include "nvme/controller.h"

struct request {
	struct controller *ctrl;
	const struct io_view *view;
	struct slot *slot;
	const struct nvme_command *command;
	enum patience patience;
};

static uint64_t first_block(const struct nvme_command *command)
{
	return (uint64_t)command->cdw11 << 32 | command->cdw10;
}

/* Of read, write and write zeroes: bytes. */
static uint64_t length(const struct nvme_command *command)
{
	return ((command->cdw12 & 0xffff) + 1ULL) << BLOCK_SHIFT;
}

static bool range_within(const struct controller *ctrl, uint64_t block, uint64_t count)
{
	uint64_t blocks = ctrl->media.size >> BLOCK_SHIFT;

	return block <= blocks && count <= blocks - block;
}

static int done(struct slot *slot, uint32_t status)
{
	slot->phase = PHASE_DONE;
	slot->status = status;
	return 0;
}

/* After a piece: 0, -EAGAIN, -EINPROGRESS, or a status. */
static int piece_done(const struct request *request, int result, uint64_t bytes, uint64_t size)
{
	if (result < 0)
		return result;
	if (result > 0)
		return done(request->slot, (uint32_t)result);
	request->slot->done += bytes;
	return request->slot->done < size ? 0 : done(request->slot, NVME_SC_SUCCESS);
}

static int read_write(const struct request *request)
{
	const struct nvme_command *command = request->command;
	bool write = command->opcode == NVME_IO_WRITE;
	struct media *media = &request->ctrl->media;
	struct slot *slot = request->slot;
	uint64_t size = length(command);
	uint64_t offset = (first_block(command) << BLOCK_SHIFT) + slot->done;
	bool through = command->cdw12 & NVME_RW_FUA || !(request->view->write_cache & 1);
	struct span span;
	int result = nvme_prp_next(request->ctrl, request->view->cc, slot, size, &span);

	/* To the disk, or to the system's cache only. */
	if (!result && write && media->path &&
	    request->patience < (through ? PATIENCE_LONG : PATIENCE_SHORT))
		return -EINPROGRESS;
	if (!result && write)
		result = nvme_media_write(media, offset, span.pieces, span.count, through);
	else if (!result)
		result = nvme_media_read(media, offset, span.pieces, span.count,
					 request->patience == PATIENCE_LONG);
	if (!result)
		slot->list = span.list;
	return piece_done(request, result, span.bytes, size);
}

static int write_zeroes(const struct request *request)
{
	uint64_t size = length(request->command);
	uint64_t offset = first_block(request->command) << BLOCK_SHIFT;
	int64_t bytes = nvme_media_zero(&request->ctrl->media, offset + request->slot->done,
					size - request->slot->done,
					request->command->cdw12 & NVME_WZ_DEALLOCATE);

	if (bytes < 0)
		return done(request->slot, (uint32_t)-bytes);
	/* It is to be safe when it is done: so is what was written before. */
	if (request->slot->done + (uint64_t)bytes >= size &&
	    (request->command->cdw12 & NVME_RW_FUA || !(request->view->write_cache & 1)))
		return done(request->slot, (uint32_t)nvme_media_flush(&request->ctrl->media));
	return piece_done(request, 0, (uint64_t)bytes, size);
}

static int dataset_management(const struct request *request)
{
	uint32_t ranges = (request->command->cdw10 & 0xff) + 1;
	struct slot *slot = request->slot;
	struct slot whole = *slot;
	struct nvme_range list[256];
	const struct nvme_range *range = &list[slot->range];
	size_t size = ranges * sizeof(list[0]);
	uint64_t bytes;
	int result;

	/* The attributes of ranges are hints that nobody follows. */
	if (!(request->command->cdw11 & NVME_DSM_DEALLOCATE) || slot->range >= ranges)
		return done(slot, NVME_SC_SUCCESS);
	whole.done = 0;
	whole.list = 0;
	result = nvme_prp_read(request->ctrl, request->view->cc, &whole, size, list, size);
	if (result < 0)
		return result;
	if (result > 0)
		return done(slot, (uint32_t)result);
	if (!range_within(request->ctrl, range->lba, range->blocks))
		return done(slot, NVME_SC_LBA_RANGE | NVME_SC_DNR);
	bytes = (uint64_t)range->blocks << BLOCK_SHIFT;
	if (slot->done < bytes)
		slot->done += (uint64_t)nvme_media_deallocate(
			&request->ctrl->media, (range->lba << BLOCK_SHIFT) + slot->done,
			bytes - slot->done);
	if (slot->done >= bytes) {
		slot->done = 0;
		slot->range++;
	}
	return slot->range < ranges ? 0 : done(slot, NVME_SC_SUCCESS);
}

/* What is wrong with a command before any of it is done. */
static uint32_t check(const struct request *request)
{
	const struct nvme_command *command = request->command;
	uint32_t nsid = command->nsid;

	if (command->opcode == NVME_IO_FLUSH && nsid == UINT32_MAX)
		nsid = 1;
	switch (command->opcode) {
	case NVME_IO_FLUSH:
	case NVME_IO_WRITE:
	case NVME_IO_READ:
	case NVME_IO_WRITE_ZEROES:
	case NVME_IO_DATASET_MANAGEMENT:
		break;
	default:
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	}
	/* No SGLs, no fused commands. */
	if (command->flags)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (nsid != 1)
		return NVME_SC_INVALID_NAMESPACE | NVME_SC_DNR;
	if (command->opcode == NVME_IO_FLUSH)
		return NVME_SC_SUCCESS;
	if (command->opcode != NVME_IO_READ && request->ctrl->media.readonly)
		return NVME_SC_READ_ONLY | NVME_SC_DNR;
	if (command->opcode == NVME_IO_DATASET_MANAGEMENT)
		return NVME_SC_SUCCESS;
	if (command->opcode != NVME_IO_WRITE_ZEROES && length(command) > TRANSFER_MAX)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	if (!range_within(request->ctrl, first_block(command), (command->cdw12 & 0xffff) + 1ULL))
		return NVME_SC_LBA_RANGE | NVME_SC_DNR;
	return NVME_SC_SUCCESS;
}

uint64_t nvme_io_size(const struct controller *ctrl, const struct slot *slot)
{
	const struct nvme_command *command = (const void *)slot->words;

	switch (command->opcode) {
	case NVME_IO_WRITE:
	case NVME_IO_READ:
	case NVME_IO_WRITE_ZEROES:
		return length(command);
	case NVME_IO_DATASET_MANAGEMENT:
		return ctrl->media.size;
	default:
		return 0;
	}
}

int nvme_io_step(struct controller *ctrl, const struct io_view *view, struct slot *slot,
		 enum patience patience)
{
	const struct request request = {ctrl, view, slot, slot_command(slot), patience};
	uint32_t status = check(&request);

	if (status)
		return done(slot, status);
	switch (request.command->opcode) {
	case NVME_IO_READ:
	case NVME_IO_WRITE:
		return read_write(&request);
	default:
		break;
	}
	/* On a file these wait for the file system; in memory they may free much of it. */
	if (patience < (ctrl->media.path ? PATIENCE_LONG : PATIENCE_SHORT))
		return -EINPROGRESS;
	switch (request.command->opcode) {
	case NVME_IO_FLUSH:
		return done(slot, (uint32_t)nvme_media_flush(&ctrl->media));
	case NVME_IO_WRITE_ZEROES:
		return write_zeroes(&request);
	default:
		return dataset_management(&request);
	}
}

void nvme_io_account(struct controller *ctrl, const struct slot *slot)
{
	const struct nvme_command *command = (const void *)slot->words;
	struct state *state = ctrl->state;

	if (!slot->sqid)
		return;
	if (command->opcode == NVME_IO_READ) {
		state->reads++;
		state->bytes_read += length(command);
	} else if (command->opcode == NVME_IO_WRITE) {
		state->writes++;
		state->bytes_written += length(command);
	}
}
