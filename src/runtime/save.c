/* SPDX-License-Identifier: MIT */
/*
 * See save.h. The stream is a function of the contents alone when it is read from a stopped device:
 * blocks and sections in order, pages that are zero left out, so that a device that loaded it
 * saves the same again (SESS-8).
 *
 * A page's marks are cleared before its contents are looked at. A write that comes later marks it
 * again, and it is sent again, so the last word is always the device's.
 */
#include "runtime/save.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/hash.h"
#include "runtime/section.h"

/* Most pages in one record. */
#define MAX_RUN 256U
/* Pages that are fetched ahead of the one that is looked at. */
#define LOOK_AHEAD 8U
/* Bytes below which a copy is cheaper than a piece of its own. */
#define LEND_MIN (16U << 10)

/* Pages of one block, a bit each. */
struct progress {
	uint64_t *pending; /* to be sent */
	uint64_t *sent;	   /* the receiver has something other than zeroes */
};

struct qsc_save {
	struct qsc_save_source source;
	XXH3_state_t *hash;
	struct progress *blocks;
	enum {
		PHASE_HEADER,
		PHASE_BLOCKS,
		PHASE_SECTIONS,
		PHASE_CUSTOM,
		PHASE_HELD,
		PHASE_END,
		PHASE_DONE
	} phase;
	bool frozen;
	bool initial;	  /* the first pass over all pages is not over */
	bool looked;	  /* changes were collected in this call */
	uint32_t section; /* next to be sent */
	uint32_t block;	  /* where the pass is … */
	uint64_t page;	  /* … in it */

	/* What is being handed out: first the rest of `small`, then of a run of pages. */
	uint8_t *small;
	size_t small_at;
	size_t small_end;
	const uint8_t *run;
	size_t run_left;
	uint8_t bounce[QSC_BLOCK_PAGE_SIZE];
	struct qsc_irq_held *held;
	size_t max_held;
};

static struct qsc_block *block_of(const struct qsc_save *save, uint32_t number)
{
	return &save->source.blocks[number];
}

/* ---- making a session ---- */

/* Everything that `small` must hold at one time. */
static size_t small_size(const struct qsc_save_source *source, size_t max_held)
{
	const struct qsc_stream_layout *layout = source->layout;
	uint64_t size = qsc_max_u64(qsc_stream_header_size(layout), 64);
	uint32_t i;

	for (i = 0; i < layout->num_sections; i++)
		size = qsc_max_u64(size,
				   QSC_STREAM_RECORD_SIZE + qsc_section_size(&layout->sections[i]));
	size = qsc_max_u64(size, QSC_STREAM_RECORD_SIZE + (uint64_t)layout->custom_max);
	size = qsc_max_u64(size, QSC_STREAM_RECORD_SIZE + max_held * QSC_STREAM_HELD_SIZE);
	return (size_t)size;
}

static void set_bits(uint64_t *bitmap, uint64_t first, uint64_t count)
{
	while (count--)
		qsc_bitmap_set(bitmap, first++);
}

/*
 * All pages that may hold something are to be sent. Old marks go first: who writes after that is
 * found by his mark, and who wrote before by the page being there.
 */
static void begin_block(struct qsc_block *block, struct progress *progress)
{
	uint64_t page = 0;
	uint64_t count = 0;
	size_t i;

	for (i = 0; i < qsc_bitmap_words(block->pages); i++)
		atomic_store(&block->dirty[i], 0);
	qsc_block_forget_known(block);
	while (qsc_block_next_data(block, page + count, &page, &count))
		set_bits(progress->pending, page, count);
}

int qsc_save_create(const struct qsc_save_source *source, struct qsc_save **out)
{
	struct qsc_save *save = calloc(1, sizeof(*save));
	uint32_t i;

	if (!save)
		return -ENOMEM;
	save->source = *source;
	for (i = 0; i < QSC_IRQ_INDICES; i++)
		save->max_held += source->layout->vectors[i];
	save->hash = XXH3_createState();
	save->small = malloc(small_size(source, save->max_held));
	save->held = calloc(save->max_held + 1, sizeof(*save->held));
	save->blocks = calloc(source->layout->num_blocks + 1, sizeof(*save->blocks));
	if (!save->hash || !save->small || !save->held || !save->blocks)
		goto fail;
	for (i = 0; i < source->layout->num_blocks; i++) {
		size_t words = qsc_bitmap_words(source->blocks[i].pages);

		save->blocks[i].pending = calloc(words, sizeof(uint64_t));
		save->blocks[i].sent = calloc(words, sizeof(uint64_t));
		if (!save->blocks[i].pending || !save->blocks[i].sent)
			goto fail;
	}
	for (i = 0; i < source->layout->num_blocks; i++)
		begin_block(&source->blocks[i], &save->blocks[i]);
	(void)XXH3_64bits_reset(save->hash);
	save->initial = true;
	*out = save;
	return 0;
fail:
	qsc_save_destroy(save);
	return -ENOMEM;
}

void qsc_save_destroy(struct qsc_save *save)
{
	uint32_t i;

	if (!save)
		return;
	for (i = 0; save->blocks && i < save->source.layout->num_blocks; i++) {
		free(save->blocks[i].pending);
		free(save->blocks[i].sent);
	}
	free(save->blocks);
	free(save->held);
	free(save->small);
	(void)XXH3_freeState(save->hash);
	free(save);
}

void qsc_save_freeze(struct qsc_save *save)
{
	save->frozen = true;
}

/* ---- pages ---- */

/* Ordered before the look at the pages, against the mark that follows a write. */
static void clear_marks(struct qsc_block *block, uint64_t first, uint64_t count)
{
	while (count) {
		unsigned int bit = (unsigned int)(first % 64);
		unsigned int n = (unsigned int)qsc_min_u64(count, 64 - bit);

		atomic_fetch_and(&block->dirty[first / 64], ~qsc_bitmap_mask(bit, n));
		first += n;
		count -= n;
	}
}

/* Take what was marked since into what is to be sent, for another pass. */
static void collect(struct qsc_save *save)
{
	uint32_t i;
	size_t word;

	for (i = 0; i < save->source.layout->num_blocks; i++) {
		struct qsc_block *block = block_of(save, i);

		if (!save->frozen)
			qsc_block_scan(block);
		for (word = 0; word < qsc_bitmap_words(block->pages); word++)
			save->blocks[i].pending[word] |= atomic_exchange(&block->dirty[word], 0);
	}
	save->block = 0;
	save->page = 0;
}

/* Put the header of a record into `small`, with room behind it for what follows. */
static uint8_t *begin_record(struct qsc_save *save, enum qsc_stream_record type, uint32_t index,
			     uint64_t size)
{
	qsc_stream_put_record(save->small, type, index, size);
	save->small_at = 0;
	save->small_end = QSC_STREAM_RECORD_SIZE;
	return save->small + QSC_STREAM_RECORD_SIZE;
}

static void begin_pages(struct qsc_save *save, uint64_t page, const uint8_t *memory, size_t size)
{
	uint8_t *at = begin_record(save, QSC_STREAM_PAGES, save->block, 8 + (uint64_t)size);

	qsc_stream_put_u64(at, page << QSC_BLOCK_PAGE_SHIFT);
	save->small_end += 8;
	save->run = memory;
	save->run_left = size;
}

static void begin_zeroes(struct qsc_save *save, uint64_t page, uint64_t count)
{
	uint8_t *at = begin_record(save, QSC_STREAM_ZERO, save->block, 16);

	qsc_stream_put_u64(at, page << QSC_BLOCK_PAGE_SHIFT);
	qsc_stream_put_u64(at + 8, count << QSC_BLOCK_PAGE_SHIFT);
	save->small_end += 16;
}

/*
 * A page that others may be writing without a mark goes out as a copy, and the hash of the copy is
 * what the receiver knows. Returns whether there is something to send.
 */
static bool send_copy(struct qsc_save *save, uint64_t page)
{
	struct qsc_block *block = block_of(save, save->block);
	struct progress *progress = &save->blocks[save->block];

	clear_marks(block, page, 1);
	qsc_bitmap_clear(progress->pending, page);
	save->page = page + 1;
	memcpy(save->bounce, block->memory + (page << QSC_BLOCK_PAGE_SHIFT), sizeof(save->bounce));
	block->known[page] = qsc_block_hash(block, save->bounce);
	if (block->known[page] != block->zero_hash) {
		qsc_bitmap_set(progress->sent, page);
		begin_pages(save, page, save->bounce, sizeof(save->bounce));
		return true;
	}
	if (!qsc_bitmap_test(progress->sent, page))
		return false;
	qsc_bitmap_clear(progress->sent, page);
	begin_zeroes(save, page, 1);
	return true;
}

/*
 * The pages from `page` to the first one that is zero, at most to `end`. Their first bytes mostly
 * tell; those of the pages further on are on their way meanwhile.
 */
static uint64_t find_zero(const struct qsc_block *block, uint64_t page, uint64_t end)
{
	for (; page < end; page++) {
		__builtin_prefetch(block->memory + ((page + LOOK_AHEAD) << QSC_BLOCK_PAGE_SHIFT));
		if (qsc_block_page_is_zero(block, page))
			break;
	}
	return page;
}

/* The same for as many pages as can go in one piece, straight from the block. */
static bool send_run(struct qsc_save *save, uint64_t page)
{
	struct qsc_block *block = block_of(save, save->block);
	struct progress *progress = &save->blocks[save->block];
	uint64_t most = qsc_min_u64(block->pages, page + MAX_RUN);
	uint64_t end = qsc_bitmap_next_clear(progress->pending, most, page);
	uint64_t at;

	/* Those that do not go out in this piece stay pending. */
	clear_marks(block, page, end - page);
	end = find_zero(block, page, end);
	if (end > page) {
		for (at = page; at < end; at++) {
			qsc_bitmap_clear(progress->pending, at);
			qsc_bitmap_set(progress->sent, at);
		}
		save->page = end;
		begin_pages(save, page, block->memory + (page << QSC_BLOCK_PAGE_SHIFT),
			    (size_t)(end - page) << QSC_BLOCK_PAGE_SHIFT);
		return true;
	}
	/* The first of them is zero. */
	qsc_bitmap_clear(progress->pending, page);
	save->page = page + 1;
	if (!qsc_bitmap_test(progress->sent, page))
		return false;
	qsc_bitmap_clear(progress->sent, page);
	begin_zeroes(save, page, 1);
	return true;
}

/* The next pages of this pass; false at its end. */
static bool next_pages(struct qsc_save *save)
{
	for (; save->block < save->source.layout->num_blocks; save->block++, save->page = 0) {
		struct qsc_block *block = block_of(save, save->block);

		for (;;) {
			uint64_t page = qsc_bitmap_next(save->blocks[save->block].pending,
							block->pages, save->page);
			bool copy = qsc_block_given_out(block) && !save->frozen;

			if (page >= block->pages)
				break;
			if (copy ? send_copy(save, page) : send_run(save, page))
				return true;
		}
	}
	save->initial = false;
	return false;
}

/* ---- everything else ---- */

static void next_section(struct qsc_save *save)
{
	const struct qsc_section *section = &save->source.layout->sections[save->section];
	size_t size = qsc_section_size(section);
	uint8_t *at = begin_record(save, QSC_STREAM_SECTION, save->section, size);

	qsc_section_encode(section, save->source.state, at);
	save->small_end += size;
	save->section++;
}

static int next_custom(struct qsc_save *save)
{
	size_t max = save->source.layout->custom_max;
	ssize_t size = save->source.model->save(save->source.ctx,
						save->small + QSC_STREAM_RECORD_SIZE, max);

	if (size < 0 || (size_t)size > max)
		return size < 0 ? (int)size : -EOVERFLOW;
	(void)begin_record(save, QSC_STREAM_CUSTOM, 0, (uint64_t)size);
	save->small_end += (size_t)size;
	return 0;
}

static void next_held(struct qsc_save *save)
{
	size_t count = qsc_irqs_save(save->source.irqs, save->held, save->max_held);
	uint8_t *at = begin_record(save, QSC_STREAM_HELD, 0, count * QSC_STREAM_HELD_SIZE);
	size_t i;

	for (i = 0; i < count; i++)
		qsc_stream_put_held(at + i * QSC_STREAM_HELD_SIZE, &save->held[i]);
	save->small_end += count * QSC_STREAM_HELD_SIZE;
}

static void next_end(struct qsc_save *save)
{
	uint8_t *at = begin_record(save, QSC_STREAM_END, 0, QSC_STREAM_END_SIZE);

	(void)XXH3_64bits_update(save->hash, save->small, save->small_end);
	qsc_stream_put_u64(at, XXH3_64bits_digest(save->hash));
	save->small_end += QSC_STREAM_END_SIZE;
}

/* Blocks: this pass, and one more over what was marked since. */
static bool next_of_blocks(struct qsc_save *save)
{
	if (next_pages(save))
		return true;
	if (save->looked)
		return false;
	save->looked = true;
	collect(save);
	return next_pages(save);
}

/* Make the next thing to hand out: 1, 0 when there is none (now), or -errno. */
static int next_item(struct qsc_save *save)
{
	int result;

	for (;;) {
		switch (save->phase) {
		case PHASE_HEADER:
			qsc_stream_put_header(save->source.layout, save->small);
			save->small_at = 0;
			save->small_end = qsc_stream_header_size(save->source.layout);
			save->phase = PHASE_BLOCKS;
			return 1;
		case PHASE_BLOCKS:
			if (next_of_blocks(save))
				return 1;
			if (!save->frozen)
				return 0;
			save->phase = PHASE_SECTIONS;
			break;
		case PHASE_SECTIONS:
			if (save->section < save->source.layout->num_sections) {
				next_section(save);
				return 1;
			}
			save->phase = PHASE_CUSTOM;
			break;
		case PHASE_CUSTOM:
			result = save->source.layout->custom_max ? next_custom(save) : 0;
			if (result < 0)
				return result;
			save->phase = PHASE_HELD;
			if (save->source.layout->custom_max)
				return 1;
			break;
		case PHASE_HELD:
			next_held(save);
			save->phase = PHASE_END;
			return 1;
		case PHASE_END:
			next_end(save);
			save->phase = PHASE_DONE;
			return 1;
		default:
			return 0;
		}
	}
}

/* What lies behind the last piece belongs to it. */
static void add_piece(struct qsc_save_sink *to, void *at, size_t size)
{
	struct iovec *next = to->iov + to->count;

	if (to->count && (uint8_t *)next[-1].iov_base + next[-1].iov_len == at) {
		next[-1].iov_len += size;
		return;
	}
	*next = (struct iovec){.iov_base = at, .iov_len = size};
	to->count++;
}

static void hand_out(struct qsc_save_sink *to, const uint8_t *bytes, size_t size)
{
	uint8_t *at = to->buf + to->done;

	memcpy(at, bytes, size);
	to->done += size;
	if (to->iov)
		add_piece(to, at, size);
}

/*
 * Pages of a block at rest stay where they are, when there are enough of them to be worth an entry;
 * the entry after that is kept for everything else.
 */
static void hand_out_run(struct qsc_save *save, struct qsc_save_sink *to, size_t size)
{
	if (save->frozen && size >= LEND_MIN && to->count + 2 <= to->max) {
		(void)XXH3_64bits_update(save->hash, save->run, size);
		atomic_store(&block_of(save, save->block)->lent, true);
		add_piece(to, (void *)(uintptr_t)save->run, size);
		to->done += size;
	} else {
		/* Hashed as it went out: the memory may be changing. */
		hand_out(to, save->run, size);
		(void)XXH3_64bits_update(save->hash, to->buf + to->done - size, size);
	}
	save->run += size;
	save->run_left -= size;
}

ssize_t qsc_save_read(struct qsc_save *save, struct qsc_save_sink *to)
{
	int result = 1;

	save->looked = false;
	while (to->done < to->size) {
		bool small = save->small_at < save->small_end;
		size_t left = small ? save->small_end - save->small_at : save->run_left;
		size_t n = (size_t)qsc_min_u64(left, to->size - to->done);

		if (!left) {
			result = next_item(save);
			if (result <= 0)
				break;
			/* The end has been taken into the hash as far as it belongs there. */
			if (save->phase != PHASE_DONE)
				(void)XXH3_64bits_update(save->hash, save->small, save->small_end);
		} else if (small) {
			hand_out(to, save->small + save->small_at, n);
			save->small_at += n;
		} else {
			hand_out_run(save, to, n);
		}
	}
	return to->done || result >= 0 ? (ssize_t)to->done : result;
}

/* ---- how much is left ---- */

static uint64_t count_pages(const struct qsc_save *save, bool pending, bool marked)
{
	uint64_t pages = 0;
	uint32_t i;
	size_t word;

	for (i = 0; i < save->source.layout->num_blocks; i++) {
		const struct qsc_block *block = block_of(save, i);

		for (word = 0; word < qsc_bitmap_words(block->pages); word++) {
			uint64_t waits = save->blocks[i].pending[word];
			uint64_t dirty = atomic_load(&block->dirty[word]);
			uint64_t bits = (pending ? waits : 0) | (marked ? dirty & ~waits : 0);

			pages += (uint64_t)__builtin_popcountll(bits);
		}
	}
	return pages;
}

void qsc_save_precopy_info(struct qsc_save *save, struct qsc_precopy_info *info)
{
	uint64_t under_way = save->small_end - save->small_at + save->run_left;
	uint64_t marked;
	uint32_t i;

	for (i = 0; i < save->source.layout->num_blocks; i++)
		qsc_block_scan(block_of(save, i));
	marked = count_pages(save, false, true) << QSC_BLOCK_PAGE_SHIFT;
	if (save->phase == PHASE_HEADER)
		under_way = qsc_stream_header_size(save->source.layout);
	under_way += count_pages(save, true, false) << QSC_BLOCK_PAGE_SHIFT;
	info->initial_bytes = save->initial ? under_way : 0;
	info->dirty_bytes = marked + (save->initial ? 0 : under_way);
}

uint64_t qsc_save_estimate(const struct qsc_save_source *source, const struct qsc_save *save)
{
	const struct qsc_stream_layout *layout = source->layout;
	uint64_t size = QSC_STREAM_RECORD_SIZE + QSC_STREAM_END_SIZE;
	uint64_t page = 0;
	uint64_t count = 0;
	uint32_t i;

	for (i = 0; i < layout->num_sections; i++)
		size += QSC_STREAM_RECORD_SIZE + qsc_section_size(&layout->sections[i]);
	if (layout->custom_max)
		size += QSC_STREAM_RECORD_SIZE + layout->custom_max;
	size += QSC_STREAM_RECORD_SIZE +
		qsc_irqs_save(source->irqs, NULL, 0) * QSC_STREAM_HELD_SIZE;
	if (save)
		return size + save->small_end - save->small_at + save->run_left +
		       (count_pages(save, true, true) << QSC_BLOCK_PAGE_SHIFT);
	size += qsc_stream_header_size(layout);
	for (i = 0; i < layout->num_blocks; i++) {
		page = count = 0;
		while (qsc_block_next_data(&source->blocks[i], page + count, &page, &count))
			size += count << QSC_BLOCK_PAGE_SHIFT;
	}
	return size;
}
