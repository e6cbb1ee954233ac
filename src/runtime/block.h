/* SPDX-License-Identifier: MIT */
/*
 * Memory of a device that is part of its state: a memory file, mapped here and, where a region of
 * it may be mapped, elsewhere too. Writes that come through the runtime or the model are marked in
 * a bitmap. Writes through a mapping that somebody else holds leave no mark: from the first time
 * the block is given out, its pages are told apart by their hash.
 */
#ifndef QSC_RUNTIME_BLOCK_H
#define QSC_RUNTIME_BLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#define QSC_BLOCK_PAGE_SHIFT 12
#define QSC_BLOCK_PAGE_SIZE  (1U << QSC_BLOCK_PAGE_SHIFT)

struct qsc_block {
	char *name;
	uint64_t size;
	uint64_t pages;
	bool non_volatile;
	int fd;
	uint8_t *memory;
	_Atomic uint64_t *dirty; /* a bit a page: written since it was last cleared here */
	uint64_t seed;		 /* of the hashes, so that nobody can make a page that hides */
	uint64_t zero_hash;
	/*
	 * With a block that was given out, else NULL: hash of each page as the receiver of the
	 * session has it, and as it was when the device stopped.
	 */
	uint64_t *known;
	uint64_t *stopped;
	_Atomic bool by_fd; /* the file was handed out: the mappings cannot be revoked */
	/* Pages were, in a session: who receives them by reference may keep them as long as he
	 * likes. */
	_Atomic bool lent;
};

/* -errno, and then nothing is to be destroyed. */
int qsc_block_init(struct qsc_block *block, const struct qsc_block_desc *desc);
void qsc_block_destroy(struct qsc_block *block);

/* [offset, offset + size) was written; what lies outside is ignored. Any thread. */
void qsc_block_mark(struct qsc_block *block, uint64_t offset, uint64_t size);

/* [offset, offset + size) becomes zero and is marked; what lies outside is ignored. Any thread. */
void qsc_block_wipe(struct qsc_block *block, uint64_t offset, uint64_t size);

/* Contents zero, without marks. */
int qsc_block_zero(struct qsc_block *block);

/*
 * Fill in a part. For memory that was zeroed before this is faster than a copy, which takes a fault
 * for each page, and where there is no memory left it fails instead of raising a signal.
 */
int qsc_block_load(struct qsc_block *block, uint64_t offset, const void *bytes, size_t size);
/* The same for whole pages of zeroes, which take no memory. */
int qsc_block_load_zero(struct qsc_block *block, uint64_t offset, uint64_t size);
/*
 * The load is complete. What was filled in has been remembered as it came, outside the time in
 * which everybody waits; here follows what the model wrote and marked since.
 */
void qsc_block_loaded(struct qsc_block *block);

/* It is about to be given out. -ENOMEM, and it must not be. */
int qsc_block_give_out(struct qsc_block *block);

/*
 * Nobody holds it any more who was given it, as far as mappings in this process go. A file that was
 * handed out, or pages of it, is replaced by another at the same address, with the contents
 * (`keep`) or zeroes. On failure -errno, and the block is as it was. Nobody writes to it meanwhile.
 */
int qsc_block_take_back(struct qsc_block *block, bool keep);

static inline bool qsc_block_given_out(const struct qsc_block *block)
{
	return block->known != NULL;
}

/*
 * The next pages that may hold other than zeroes: *page at or after `from`, *count of them; false
 * when there are none.
 */
bool qsc_block_next_data(const struct qsc_block *block, uint64_t from, uint64_t *page,
			 uint64_t *count);

bool qsc_block_page_is_zero(const struct qsc_block *block, uint64_t page);

/* Hash of a page's contents, which may be a copy of it. */
uint64_t qsc_block_hash(const struct qsc_block *block, const void *page);

/* A session begins whose receiver has zeroes. */
void qsc_block_forget_known(struct qsc_block *block);
/* Of a given-out block: mark the pages that are not as the receiver knows them. */
void qsc_block_scan(struct qsc_block *block);
/* The device has stopped: the same if `session`, and remember how every page is now. */
void qsc_block_freeze(struct qsc_block *block, bool session);
/* How many pages have changed since, and the first of them. */
uint64_t qsc_block_changed(const struct qsc_block *block, uint64_t *first);

#endif
