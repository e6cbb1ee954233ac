/* SPDX-License-Identifier: MIT */
/*
 * The user's memory on its way: which pages still have to be sent, sending them, putting them in
 * place. A page's bit is taken before the page is read, so a write that comes after is either sent
 * or reported again by the log that sees it. Several lanes send at once: each takes a piece of
 * memory after the other, and a piece is one word of the bitmap, so that no two share one.
 */
#ifndef QSC_MIGRATE_MEMORY_H
#define QSC_MIGRATE_MEMORY_H

#include <pthread.h>

#include <quiesce/migrate.h>

#include "migrate/link.h"

struct qsc_memory {
	const struct qsc_memory_region *regions;
	uint32_t num_regions;
	uint64_t **dirty;  /* a bit for each 4 KiB page of each region: to be sent */
	const char *cause; /* name of who writes memory untracked (ORD-7), or NULL */
	/* The next piece to be taken. */
	pthread_mutex_t lock;
	uint32_t region;
	uint64_t piece;
	struct qsc_guard **guards; /* of the regions that may shrink; else NULL */
};

/* All pages are to be sent. */
int qsc_memory_init(struct qsc_memory *memory, const struct qsc_set *set,
		    const struct qsc_migrate_user *user);
void qsc_memory_release(struct qsc_memory *memory);

/* -EFAULT with a sentence when a region that may shrink has: what was read of it means nothing. */
int qsc_memory_check(const struct qsc_memory *memory, struct qsc_error *err);

/*
 * Take what was written since the last call from the user and from every device's log. In
 * `written`, where it is wanted, each member and after them the user find the bytes that were to be
 * sent no more and now are again; where several wrote a page, who was asked first has it.
 */
int qsc_memory_collect(struct qsc_memory *memory, const struct qsc_set *set,
		       const struct qsc_migrate_user *user, uint64_t *written,
		       struct qsc_error *err);

/* ORD-7: memory that somebody writes without tracking it is dirty as a whole. */
void qsc_memory_mark_all(struct qsc_memory *memory);

uint64_t qsc_memory_dirty_bytes(const struct qsc_memory *memory);

/* Begin at the first page. Nobody may be sending. */
void qsc_memory_rewind(struct qsc_memory *memory);

/* What one lane does in a round. */
struct qsc_memory_sending {
	struct qsc_link *link;
	uint32_t channel;
	uint8_t *buffer; /* QSC_FRAME_MAX_PAGES bytes */
	/*
	 * Whether nobody writes any more. While somebody does, a page may change between the
	 * computation of its digest and its sending, so both are done on a copy.
	 */
	bool stable;
	struct qsc_moved moved;
};

/* Until no piece is left: 0, or what the channel or moved() answered. Several may be at it. */
int qsc_memory_send(struct qsc_memory *memory, struct qsc_memory_sending *sending);

/* A PAGES or ZERO frame has come: -EPROTO when it does not fit the memory. */
int qsc_memory_receive(struct qsc_memory *memory, struct qsc_link *link, uint32_t channel,
		       const struct qsc_frame *frame);

#endif
