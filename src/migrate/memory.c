/* SPDX-License-Identifier: MIT */
/* See memory.h. */
#include "migrate/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/guard.h"

#define MAX_BATCH   32 /* frames in one send */
#define PIECE_PAGES 64 /* of a word of the bitmap: 256 KiB */

static uint64_t pages_of(const struct qsc_memory_region *region)
{
	return region->size / QSC_PAGE_SIZE;
}

static int guard(struct qsc_memory *memory)
{
	uint32_t i;
	int result = 0;

	memory->guards = calloc(memory->num_regions + 1U, sizeof(struct qsc_guard *));
	if (!memory->guards)
		return -ENOMEM;
	for (i = 0; i < memory->num_regions && result == 0; i++)
		if (memory->regions[i].may_shrink)
			result = qsc_guard_add(memory->regions[i].vaddr,
					       (size_t)memory->regions[i].size, &memory->guards[i]);
	return result;
}

int qsc_memory_check(const struct qsc_memory *memory, struct qsc_error *err)
{
	uint32_t i;

	for (i = 0; i < memory->num_regions; i++)
		if (qsc_guard_hit(memory->guards[i]))
			return qsc_error_set(err, EFAULT, NULL,
					     "memory region %u was taken away while it moved: "
					     "somebody made its file shorter",
					     i);
	return 0;
}

int qsc_memory_init(struct qsc_memory *memory, const struct qsc_set *set,
		    const struct qsc_migrate_user *user)
{
	uint32_t i;

	pthread_mutex_init(&memory->lock, NULL);
	memory->regions = user->regions;
	memory->num_regions = user->num_regions;
	memory->cause = user->dirty ? NULL : "the user";
	for (i = 0; i < qsc_set_count(set) && !memory->cause; i++)
		if (!qsc_set_has_dirty_log(set, i))
			memory->cause = qsc_set_name(set, i);
	memory->dirty = calloc(user->num_regions + 1U, sizeof(*memory->dirty));
	if (!memory->dirty)
		return -ENOMEM;
	for (i = 0; i < user->num_regions; i++) {
		memory->dirty[i] = calloc(qsc_bitmap_words(pages_of(&user->regions[i])),
					  sizeof(uint64_t));
		if (!memory->dirty[i])
			return -ENOMEM;
	}
	qsc_memory_mark_all(memory);
	return guard(memory);
}

void qsc_memory_release(struct qsc_memory *memory)
{
	uint32_t i;

	for (i = 0; memory->guards && i < memory->num_regions; i++)
		qsc_guard_remove(memory->guards[i]);
	free(memory->guards);
	memory->guards = NULL;

	for (i = 0; memory->dirty && i < memory->num_regions; i++)
		free(memory->dirty[i]);
	if (memory->dirty)
		pthread_mutex_destroy(&memory->lock);
	free(memory->dirty);
	memory->dirty = NULL;
}

void qsc_memory_mark_all(struct qsc_memory *memory)
{
	uint32_t i;

	for (i = 0; i < memory->num_regions; i++)
		memset(memory->dirty[i], 0xff,
		       qsc_bitmap_words(pages_of(&memory->regions[i])) * sizeof(uint64_t));
}

/* One report for a region; `written` counts what it adds, where that is wanted. */
static int collect_one(struct qsc_memory *memory, const struct qsc_set *set,
		       const struct qsc_migrate_user *user, uint32_t region, uint32_t member,
		       uint64_t *written)
{
	const struct qsc_memory_region *place = &memory->regions[region];
	uint64_t *dirty = memory->dirty[region];
	uint64_t before = written ? qsc_bitmap_count(dirty, pages_of(place)) : 0;
	int result = 0;

	if (member < qsc_set_count(set))
		result = qsc_device_log_report(qsc_set_device(set, member), place->address,
					       place->size, QSC_PAGE_SIZE, dirty);
	else if (user->dirty)
		result = user->dirty(user->ctx, region, dirty);
	if (result == 0 && written)
		written[member] += (qsc_bitmap_count(dirty, pages_of(place)) - before) *
				   QSC_PAGE_SIZE;
	return result;
}

int qsc_memory_collect(struct qsc_memory *memory, const struct qsc_set *set,
		       const struct qsc_migrate_user *user, uint64_t *written,
		       struct qsc_error *err)
{
	uint32_t count = qsc_set_count(set);
	uint32_t member;
	uint32_t i;
	int result;

	if (written)
		memset(written, 0, (count + 1U) * sizeof(*written));
	for (i = 0; i < memory->num_regions; i++) {
		/* The user comes after the members. */
		result = collect_one(memory, set, user, i, count, written);
		if (result < 0)
			return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_ORD_7),
					     "the user does not tell what it wrote to memory "
					     "region %u (%s)",
					     i, strerrordesc_np(-result));
		for (member = 0; member < count; member++) {
			if (!qsc_set_has_dirty_log(set, member))
				continue;
			result = collect_one(memory, set, user, i, member, written);
			if (result < 0)
				return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_LOG_1),
						     "device '%s' does not tell what it wrote to "
						     "memory region %u (%s)",
						     qsc_set_name(set, member), i,
						     strerrordesc_np(-result));
		}
	}
	return 0;
}

uint64_t qsc_memory_dirty_bytes(const struct qsc_memory *memory)
{
	uint64_t pages = 0;
	uint32_t i;

	for (i = 0; i < memory->num_regions; i++)
		pages += qsc_bitmap_count(memory->dirty[i], pages_of(&memory->regions[i]));
	return pages * QSC_PAGE_SIZE;
}

void qsc_memory_rewind(struct qsc_memory *memory)
{
	memory->region = 0;
	memory->piece = 0;
}

static bool is_zero(const uint8_t *page)
{
	/* Equal to itself one word on, and the first word is zero. */
	static const uint64_t zero;

	return memcmp(page, &zero, sizeof(zero)) == 0 &&
	       memcmp(page, page + sizeof(zero), QSC_PAGE_SIZE - sizeof(zero)) == 0;
}

/* ---- sending ---- */

/* A word's worth of a region's pages. */
struct piece {
	uint32_t region;
	uint64_t first; /* page */
	uint64_t count;
};

/*
 * The next piece with anything to send. What lies behind it belongs to whoever took it, what lies
 * before it to nobody yet, so looking for it races with no lane.
 */
static bool take_piece(struct qsc_memory *memory, struct piece *piece)
{
	bool found = false;

	pthread_mutex_lock(&memory->lock);
	while (!found && memory->region < memory->num_regions) {
		uint64_t pages = pages_of(&memory->regions[memory->region]);
		uint64_t page = qsc_bitmap_next(memory->dirty[memory->region], pages,
						memory->piece * PIECE_PAGES);

		if (page >= pages) {
			memory->region++;
			memory->piece = 0;
			continue;
		}
		found = true;
		memory->piece = page / PIECE_PAGES + 1;
		piece->region = memory->region;
		piece->first = page / PIECE_PAGES * PIECE_PAGES;
		piece->count = qsc_min_u64(PIECE_PAGES, pages - piece->first);
	}
	pthread_mutex_unlock(&memory->lock);
	return found;
}

/* Frames that go out in one send. */
struct batch {
	struct qsc_memory_sending *sending;
	struct iovec iov[2 * MAX_BATCH];
	uint8_t headers[MAX_BATCH][QSC_FRAME_SIZE];
	int vectors;
	unsigned int frames;
	size_t bytes; /* of pages, and used of the buffer */
};

static int flush(struct batch *batch)
{
	const struct qsc_memory_sending *sending = batch->sending;
	size_t bytes = batch->bytes;
	int result = batch->vectors ? qsc_link_write(sending->link, sending->channel, batch->iov,
						     batch->vectors)
				    : 0;

	batch->vectors = 0;
	batch->frames = 0;
	batch->bytes = 0;
	return result < 0 ? result : sending->moved.fn(sending->moved.ctx, bytes);
}

static void add(struct batch *batch, struct qsc_frame *frame, const uint8_t *payload)
{
	uint8_t *header = batch->headers[batch->frames++];

	frame->digest = qsc_frame_digest(frame, payload);
	qsc_frame_encode(frame, header);
	batch->iov[batch->vectors++] = (struct iovec){header, QSC_FRAME_SIZE};
	if (frame->size)
		batch->iov[batch->vectors++] = (struct iovec){(void *)payload, frame->size};
	batch->bytes += frame->size;
}

static uint8_t *page_of(const struct qsc_memory *memory, uint32_t region, uint64_t page)
{
	return (uint8_t *)memory->regions[region].vaddr + page * QSC_PAGE_SIZE;
}

/* Dirty pages from `first` on, at most `most`, that are zeroes (or are not). */
static uint64_t run_of(const struct qsc_memory *memory, uint32_t region, uint64_t first,
		       uint64_t most, bool zeroes)
{
	uint64_t count;

	for (count = 0; count < most && qsc_bitmap_test(memory->dirty[region], first + count);
	     count++)
		if (is_zero(page_of(memory, region, first + count)) != zeroes)
			break;
	return count;
}

static void add_zeroes(struct batch *batch, uint32_t region, uint64_t first, uint64_t count)
{
	struct qsc_frame frame = {
		.type = QSC_FRAME_ZERO,
		.index = region,
		.offset = first * QSC_PAGE_SIZE,
		.extent = count * QSC_PAGE_SIZE,
	};

	add(batch, &frame, NULL);
}

static void add_pages(const struct qsc_memory *memory, struct batch *batch, uint32_t region,
		      uint64_t first, uint64_t count)
{
	const uint8_t *payload = page_of(memory, region, first);
	struct qsc_frame frame = {
		.type = QSC_FRAME_PAGES,
		.size = (uint32_t)(count * QSC_PAGE_SIZE),
		.index = region,
		.offset = first * QSC_PAGE_SIZE,
	};

	if (!batch->sending->stable) {
		uint8_t *copy = batch->sending->buffer + batch->bytes;

		memcpy(copy, payload, frame.size);
		payload = copy;
	}
	add(batch, &frame, payload);
}

/* One frame from `first` on, which is dirty, of at most `most` pages; returns how many it covers.
 */
static uint64_t add_run(struct qsc_memory *memory, struct batch *batch, uint32_t region,
			uint64_t first, uint64_t most)
{
	uint64_t room = (QSC_FRAME_MAX_PAGES - batch->bytes) / QSC_PAGE_SIZE;
	uint64_t count = run_of(memory, region, first, most, true);
	uint64_t i;

	if (count) {
		add_zeroes(batch, region, first, count);
	} else {
		/*
		 * A page may turn into zeroes while we look; it then still goes out as it is, so
		 * that every round makes progress.
		 */
		count = run_of(memory, region, first, qsc_min_u64(room, most), false);
		count = qsc_max_u64(count, 1);
		add_pages(memory, batch, region, first, count);
	}
	for (i = 0; i < count; i++)
		qsc_bitmap_clear(memory->dirty[region], first + i);
	return count;
}

static int send_piece(struct qsc_memory *memory, struct batch *batch, const struct piece *piece)
{
	uint64_t end = piece->first + piece->count;
	uint64_t page = piece->first;

	while ((page = qsc_bitmap_next(memory->dirty[piece->region], end, page)) < end) {
		page += add_run(memory, batch, piece->region, page, end - page);
		if (batch->frames == MAX_BATCH || batch->bytes == QSC_FRAME_MAX_PAGES) {
			int result = flush(batch);

			if (result < 0)
				return result;
		}
	}
	return 0;
}

int qsc_memory_send(struct qsc_memory *memory, struct qsc_memory_sending *sending)
{
	struct batch batch = {.sending = sending};
	struct piece piece;

	while (take_piece(memory, &piece)) {
		int result = send_piece(memory, &batch, &piece);

		if (result < 0)
			return result;
	}
	return flush(&batch);
}

/* ---- putting in place ---- */

int qsc_memory_receive(struct qsc_memory *memory, struct qsc_link *link, uint32_t channel,
		       const struct qsc_frame *frame)
{
	uint64_t size = frame->type == QSC_FRAME_ZERO ? frame->extent : frame->size;
	const struct qsc_memory_region *region;
	uint8_t *target;
	uint64_t i;

	if (frame->index >= memory->num_regions)
		return -EPROTO;
	region = &memory->regions[frame->index];
	if (!size || size % QSC_PAGE_SIZE || frame->offset % QSC_PAGE_SIZE ||
	    !qsc_range_within(frame->offset, size, region->size))
		return -EPROTO;
	target = (uint8_t *)region->vaddr + frame->offset;
	if (frame->type == QSC_FRAME_PAGES)
		return qsc_link_recv_payload(link, channel, frame, target);
	/* Pages that were never touched stay so. */
	for (i = 0; i < size; i += QSC_PAGE_SIZE)
		if (!is_zero(target + i))
			memset(target + i, 0, QSC_PAGE_SIZE);
	return 0;
}
