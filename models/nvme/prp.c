/* SPDX-License-Identifier: MIT */
/*
 * PRPs: where the driver's memory for a transfer is. The first entry may begin inside a page; the
 * second is the second page, or the address of a list of the others. A list goes on at the address
 * in the last entry of its page. All of it is read from memory that the driver may change
 * meanwhile, so every entry is looked at once, as often as it is needed.
 */
#include <errno.h>

#include "nvme/controller.h"

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

int nvme_dma_status(int result)
{
	switch (result) {
	case 0:
	case -EAGAIN:
		return result;
	case -ENOMEM:
		return NVME_SC_INTERNAL;
	default:
		return NVME_SC_DATA_TRANSFER;
	}
}

static void span_add(struct span *span, uint64_t iova, uint64_t size)
{
	struct qsc_dma_piece *last = span->count ? &span->pieces[span->count - 1] : NULL;

	if (last && last->iova + last->size == iova)
		last->size += size;
	else
		span->pieces[span->count++] = (struct qsc_dma_piece){iova, size};
	span->bytes += size;
}

/*
 * Entries of the list for the part from span->bytes on; `left` bytes are missing of the whole. A
 * page of the list that only says where the list goes on is stepped over.
 */
static int list_read(struct controller *ctrl, uint64_t page, uint64_t left, struct span *span)
{
	uint64_t at = span->list & ~LIST_VALID;
	uint64_t here = (page - (at & (page - 1))) / sizeof(uint64_t);
	uint64_t wanted = (left + page - 1) / page;
	uint64_t fits = least(PIECE_SIZE / page, QSC_DMA_MAX_PIECES - span->count);
	uint64_t entries[PIECE_SIZE / 4096];
	uint64_t count = least(wanted <= here ? wanted : here - 1, fits ? fits : 1);
	int result;

	if (!count) {
		result = qsc_dma_read(ctrl->rt, at, entries, sizeof(entries[0]));
		if (!result && entries[0] & (page - 1))
			return NVME_SC_PRP_OFFSET;
		span->list = entries[0] | LIST_VALID;
		return nvme_dma_status(result);
	}
	result = qsc_dma_read(ctrl->rt, at, entries, count * sizeof(entries[0]));
	for (uint64_t i = 0; !result && i < count; i++) {
		if (entries[i] & (page - 1))
			return NVME_SC_PRP_OFFSET;
		span_add(span, entries[i], least(left, page));
		left -= least(left, page);
		span->list += sizeof(entries[0]);
	}
	return nvme_dma_status(result);
}

/* What comes from the list: whole pages, at least one. */
static int list_next(struct controller *ctrl, uint64_t page, uint64_t left, struct span *span)
{
	uint64_t before = span->bytes;
	uint64_t prp_left = left;
	int result = 0;

	while (!result && prp_left && (span->bytes == before || span->bytes + page <= PIECE_SIZE)) {
		result = list_read(ctrl, page, prp_left, span);
		prp_left = left - (span->bytes - before);
	}
	return result;
}

int nvme_prp_next(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		  struct span *span)
{
	const struct nvme_command *command = (const void *)slot->words;
	uint64_t page = bit(page_shift(cc));
	uint64_t first = least(size, page - (command->prp1 & (page - 1)));
	uint64_t left = size - slot->done;

	span->count = 0;
	span->bytes = 0;
	span->list = slot->list;
	if (command->prp1 & 3)
		return NVME_SC_PRP_OFFSET;
	if (slot->done < first) {
		span_add(span, command->prp1 + slot->done, first - slot->done);
		left -= span->bytes;
	}
	if (!left)
		return 0;
	if (size - first <= page) {
		if (command->prp2 & (page - 1))
			return NVME_SC_PRP_OFFSET;
		span_add(span, command->prp2 + (size - first - left), left);
		return 0;
	}
	if (!span->list) {
		if (command->prp2 & 7)
			return NVME_SC_PRP_OFFSET;
		span->list = command->prp2 | LIST_VALID;
	}
	return list_next(ctrl, page, left, span);
}

static int transfer(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		    uint8_t *data, size_t data_size, bool write)
{
	struct span span;
	int result = nvme_prp_next(ctrl, cc, slot, size, &span);

	for (size_t i = 0; !result && i < span.count && data_size; i++) {
		const struct qsc_dma_piece *piece = &span.pieces[i];
		size_t part = (size_t)least(piece->size, data_size);

		result = nvme_dma_status(write ? qsc_dma_write(ctrl->rt, piece->iova, data, part)
					       : qsc_dma_read(ctrl->rt, piece->iova, data, part));
		data += part;
		data_size -= part;
	}
	return result;
}

int nvme_prp_write(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		   const void *data, size_t data_size)
{
	return transfer(ctrl, cc, slot, size, (uint8_t *)data, data_size, true);
}

int nvme_prp_read(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		  void *data, size_t data_size)
{
	return transfer(ctrl, cc, slot, size, data, data_size, false);
}
