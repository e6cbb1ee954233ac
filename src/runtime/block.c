/* SPDX-License-Identifier: MIT */
/* See block.h. */
#include "runtime/block.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/hash.h"

_Static_assert(QSC_BLOCK_PAGE_SIZE == QSC_PAGE_SIZE, "a block's page is the contract's page");

static const uint8_t zero_page[QSC_BLOCK_PAGE_SIZE];

int qsc_block_init(struct qsc_block *block, const struct qsc_block_desc *desc)
{
	void *memory;
	int result;

	memset(block, 0, sizeof(*block));
	block->size = desc->size;
	block->pages = desc->size >> QSC_BLOCK_PAGE_SHIFT;
	block->non_volatile = desc->non_volatile;
	block->fd = -1;
	if (getrandom(&block->seed, sizeof(block->seed), 0) != (ssize_t)sizeof(block->seed))
		return -EIO;
	block->zero_hash = qsc_block_hash(block, zero_page);
	block->name = strdup(desc->name);
	block->dirty = calloc(qsc_bitmap_words(block->pages), sizeof(*block->dirty));
	result = -ENOMEM;
	if (!block->name || !block->dirty)
		goto fail;
	result = qsc_fd_memory(desc->name, desc->size);
	if (result < 0)
		goto fail;
	block->fd = result;
	memory = mmap(NULL, desc->size, PROT_READ | PROT_WRITE, MAP_SHARED, block->fd, 0);
	result = -errno;
	if (memory == MAP_FAILED)
		goto fail;
	block->memory = memory;
	return 0;
fail:
	qsc_block_destroy(block);
	return result;
}

void qsc_block_destroy(struct qsc_block *block)
{
	if (block->memory)
		munmap(block->memory, block->size);
	qsc_fd_close(&block->fd);
	free(block->stopped);
	free(block->known);
	free((void *)block->dirty);
	free(block->name);
	memset(block, 0, sizeof(*block));
	block->fd = -1;
}

void qsc_block_mark(struct qsc_block *block, uint64_t offset, uint64_t size)
{
	uint64_t first = offset >> QSC_BLOCK_PAGE_SHIFT;

	if (!size || offset >= block->size)
		return;
	size = qsc_min_u64(size, block->size - offset);
	qsc_bitmap_atomic_set_range(block->dirty, first,
				    ((offset + size - 1) >> QSC_BLOCK_PAGE_SHIFT) - first + 1);
}

/* Pages [first, first + count) are zero as far as the baseline of the stop is concerned. */
static void baseline_zero(struct qsc_block *block, uint64_t first, uint64_t count)
{
	uint64_t page;

	for (page = first; block->stopped && page < first + count; page++)
		block->stopped[page] = block->zero_hash;
}

/* Of whole pages. */
static int free_pages(const struct qsc_block *block, uint64_t offset, uint64_t size)
{
	int result;

	do
		result = fallocate(block->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   (off_t)offset, (off_t)size);
	while (result < 0 && errno == EINTR);
	return result < 0 ? -errno : 0;
}

static int punch_hole(struct qsc_block *block, uint64_t offset, uint64_t size)
{
	int result = free_pages(block, offset, size);

	if (!result)
		baseline_zero(block, offset >> QSC_BLOCK_PAGE_SHIFT, size >> QSC_BLOCK_PAGE_SHIFT);
	return result;
}

void qsc_block_wipe(struct qsc_block *block, uint64_t offset, uint64_t size)
{
	uint64_t end;
	uint64_t first;
	uint64_t last;

	if (!size || offset >= block->size)
		return;
	end = offset + qsc_min_u64(size, block->size - offset);
	first = qsc_min_u64(qsc_align_up(offset, QSC_BLOCK_PAGE_SIZE), end);
	last = end & ~(uint64_t)(QSC_BLOCK_PAGE_SIZE - 1);
	memset(block->memory + offset, 0, first - offset);
	if (last > first && free_pages(block, first, last - first) < 0)
		memset(block->memory + first, 0, last - first);
	if (last >= first)
		memset(block->memory + last, 0, end - last);
	qsc_block_mark(block, offset, end - offset);
}

int qsc_block_zero(struct qsc_block *block)
{
	int result = punch_hole(block, 0, block->size);
	size_t i;

	if (result < 0)
		return result;
	for (i = 0; i < qsc_bitmap_words(block->pages); i++)
		atomic_store_explicit(&block->dirty[i], 0, memory_order_relaxed);
	return 0;
}

static uint64_t hash_page(const struct qsc_block *block, uint64_t page)
{
	return qsc_block_hash(block, block->memory + (page << QSC_BLOCK_PAGE_SHIFT));
}

static int write_file(int fd, const uint8_t *from, size_t size, uint64_t offset)
{
	while (size) {
		ssize_t n = pwrite(fd, from, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		from += n;
		offset += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

int qsc_block_load(struct qsc_block *block, uint64_t offset, const void *bytes, size_t size)
{
	int result = write_file(block->fd, bytes, size, offset);
	uint64_t page = offset >> QSC_BLOCK_PAGE_SHIFT;
	uint64_t whole = (offset + size) >> QSC_BLOCK_PAGE_SHIFT;

	if (result < 0)
		return result;
	for (; atomic_load(&block->by_fd) && page < whole; page++)
		block->stopped[page] = hash_page(block, page);
	return 0;
}

int qsc_block_load_zero(struct qsc_block *block, uint64_t offset, uint64_t size)
{
	return punch_hole(block, offset, size);
}

void qsc_block_loaded(struct qsc_block *block)
{
	const uint64_t *dirty = (const uint64_t *)block->dirty;
	uint64_t page;

	if (!atomic_load(&block->by_fd))
		return;
	for (page = qsc_bitmap_next(dirty, block->pages, 0); page < block->pages;
	     page = qsc_bitmap_next(dirty, block->pages, page + 1))
		block->stopped[page] = hash_page(block, page);
}

int qsc_block_give_out(struct qsc_block *block)
{
	uint64_t *known;
	uint64_t *stopped;

	if (block->known)
		return 0;
	known = calloc(block->pages, sizeof(*known));
	stopped = calloc(block->pages, sizeof(*stopped));
	if (!known || !stopped) {
		free(known);
		free(stopped);
		return -ENOMEM;
	}
	/* In the middle of a session no hash is known yet: every page will be found changed. */
	block->stopped = stopped;
	block->known = known;
	return 0;
}

static int copy_data(const struct qsc_block *block, int fd)
{
	uint64_t page = 0;
	uint64_t count = 0;
	int result = 0;

	while (!result && qsc_block_next_data(block, page + count, &page, &count))
		result = write_file(fd, block->memory + (page << QSC_BLOCK_PAGE_SHIFT),
				    count << QSC_BLOCK_PAGE_SHIFT, page << QSC_BLOCK_PAGE_SHIFT);
	return result;
}

int qsc_block_take_back(struct qsc_block *block, bool keep)
{
	qsc_autoclose int fd = -1;
	int result = 0;
	int old;

	if (atomic_load(&block->by_fd) || atomic_load(&block->lent)) {
		fd = qsc_fd_memory(block->name, block->size);
		if (fd < 0)
			return fd;
		if (keep)
			result = copy_data(block, fd);
		if (result < 0)
			return result;
		if (mmap(block->memory, block->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == MAP_FAILED)
			return -errno;
		old = block->fd;
		block->fd = qsc_fd_steal(&fd);
		fd = old;
		atomic_store(&block->by_fd, false);
		atomic_store(&block->lent, false);
	}
	free(block->known);
	free(block->stopped);
	block->known = NULL;
	block->stopped = NULL;
	return 0;
}

bool qsc_block_next_data(const struct qsc_block *block, uint64_t from, uint64_t *page,
			 uint64_t *count)
{
	off_t start;
	off_t end;

	if (from >= block->pages)
		return false;
	start = lseek(block->fd, (off_t)(from << QSC_BLOCK_PAGE_SHIFT), SEEK_DATA);
	if (start < 0 && errno == ENXIO)
		return false;
	/* A file system that cannot tell has data everywhere. */
	if (start < 0) {
		*page = from;
		*count = block->pages - from;
		return true;
	}
	end = lseek(block->fd, start, SEEK_HOLE);
	if (end < 0)
		end = (off_t)block->size;
	*page = (uint64_t)start >> QSC_BLOCK_PAGE_SHIFT;
	*count = ((uint64_t)(end - 1) >> QSC_BLOCK_PAGE_SHIFT) - *page + 1;
	return true;
}

bool qsc_block_page_is_zero(const struct qsc_block *block, uint64_t page)
{
	const uint8_t *memory = block->memory + (page << QSC_BLOCK_PAGE_SHIFT);
	size_t at;

	/* In pieces: what is not zero mostly shows at once. */
	for (at = 0; at < QSC_BLOCK_PAGE_SIZE; at += 256) {
		if (memcmp(memory + at, zero_page, 256) != 0)
			return false;
	}
	return true;
}

uint64_t qsc_block_hash(const struct qsc_block *block, const void *page)
{
	return XXH3_64bits_withSeed(page, QSC_BLOCK_PAGE_SIZE, block->seed);
}

void qsc_block_forget_known(struct qsc_block *block)
{
	uint64_t page;

	for (page = 0; block->known && page < block->pages; page++)
		block->known[page] = block->zero_hash;
}

/* Call visit for each page with its hash. Holes are not read: that would fill them. */
static void each_page(const struct qsc_block *block,
		      void (*visit)(void *ctx, uint64_t page, uint64_t hash), void *ctx)
{
	uint64_t page = 0;
	uint64_t start;
	uint64_t count;

	while (page < block->pages) {
		if (!qsc_block_next_data(block, page, &start, &count)) {
			start = block->pages;
			count = 0;
		}
		for (; page < start; page++)
			visit(ctx, page, block->zero_hash);
		for (; page < start + count; page++)
			visit(ctx, page, hash_page(block, page));
	}
}

static void mark_unknown(void *ctx, uint64_t page, uint64_t hash)
{
	struct qsc_block *block = ctx;

	if (block->known[page] != hash)
		qsc_bitmap_atomic_set_range(block->dirty, page, 1);
}

void qsc_block_scan(struct qsc_block *block)
{
	if (block->known)
		each_page(block, mark_unknown, block);
}

static void remember(void *ctx, uint64_t page, uint64_t hash)
{
	struct qsc_block *block = ctx;

	block->stopped[page] = hash;
}

static void remember_and_mark(void *ctx, uint64_t page, uint64_t hash)
{
	remember(ctx, page, hash);
	mark_unknown(ctx, page, hash);
}

void qsc_block_freeze(struct qsc_block *block, bool session)
{
	if (block->known && (session || atomic_load(&block->by_fd)))
		each_page(block, session ? remember_and_mark : remember, block);
}

struct changes {
	const struct qsc_block *block;
	uint64_t count;
	uint64_t first;
};

static void count_change(void *ctx, uint64_t page, uint64_t hash)
{
	struct changes *changes = ctx;

	if (changes->block->stopped[page] == hash)
		return;
	if (!changes->count++)
		changes->first = page;
}

uint64_t qsc_block_changed(const struct qsc_block *block, uint64_t *first)
{
	struct changes changes = {block, 0, 0};

	if (atomic_load(&block->by_fd))
		each_page(block, count_change, &changes);
	*first = changes.first;
	return changes.count;
}
