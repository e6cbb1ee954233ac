/* SPDX-License-Identifier: MIT */
/*
 * Structured payloads: a sequence of items, each a u16 tag, a u16 of zero, a u32 size and that many
 * bytes, which may be items again. All numbers are little-endian. A reader skips an item that it
 * does not know if the tag has QSC_ITEM_OPTIONAL, and must refuse any other. Pure; trusts no byte
 * that it reads.
 */
#ifndef QSC_MIGRATE_ITEMS_H
#define QSC_MIGRATE_ITEMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define QSC_ITEM_SIZE	  8 /* bytes before the payload */
#define QSC_ITEM_OPTIONAL 0x8000U

/* ---- writing: a failure sticks and is asked for at the end ---- */

struct qsc_items {
	uint8_t *bytes; /* the caller's to free */
	size_t size;
	size_t room;
	bool failed; /* no memory */
};

/* Begin an item; what is put until its end is its payload. Returns what end needs. */
size_t qsc_items_begin(struct qsc_items *items, uint16_t tag);
void qsc_items_end(struct qsc_items *items, size_t begin);
void qsc_items_put(struct qsc_items *items, const void *bytes, size_t size);
void qsc_items_put_u32(struct qsc_items *items, uint32_t value);
void qsc_items_put_u64(struct qsc_items *items, uint64_t value);
/* A whole item that is a text, without its NUL. */
void qsc_items_put_text(struct qsc_items *items, uint16_t tag, const char *text);

/* ---- reading: bytes that cannot be stick too ---- */

struct qsc_items_reader {
	const uint8_t *at;
	size_t left;
	bool bad; /* something was read that is not there, or can be no item */
};

/* The next item, its payload in *payload. False at the end, and when there can be none. */
bool qsc_items_next(struct qsc_items_reader *reader, uint16_t *tag,
		    struct qsc_items_reader *payload);
/* 0 where there are too few bytes. */
uint32_t qsc_items_get_u32(struct qsc_items_reader *reader);
uint64_t qsc_items_get_u64(struct qsc_items_reader *reader);
/* All that is left as a text, bad when it does not fit `size` with its NUL or holds one. */
void qsc_items_get_text(struct qsc_items_reader *reader, char *text, size_t size);
/* Whether all of it was read and nothing was bad. */
bool qsc_items_done(const struct qsc_items_reader *reader);

#endif
