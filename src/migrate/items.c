/* SPDX-License-Identifier: MIT */
/* See items.h. */
#include "migrate/items.h"

#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/frame.h"

/* ---- writing ---- */

static uint8_t *grow(struct qsc_items *items, size_t size)
{
	size_t need = items->size + size;

	if (!items->failed && need > items->room) {
		size_t room = (size_t)qsc_max_u64(need, 2 * items->room + 256);
		uint8_t *grown = realloc(items->bytes, room);

		items->failed = !grown;
		if (grown) {
			items->bytes = grown;
			items->room = room;
		}
	}
	if (items->failed)
		return NULL;
	items->size = need;
	return items->bytes + need - size;
}

size_t qsc_items_begin(struct qsc_items *items, uint16_t tag)
{
	size_t begin = items->size;

	qsc_items_put_u32(items, tag);
	qsc_items_put_u32(items, 0);
	return begin;
}

void qsc_items_end(struct qsc_items *items, size_t begin)
{
	if (!items->failed)
		qsc_put_u32(items->bytes + begin + 4,
			    (uint32_t)(items->size - begin - QSC_ITEM_SIZE));
}

void qsc_items_put(struct qsc_items *items, const void *bytes, size_t size)
{
	uint8_t *at = grow(items, size);

	if (at && size)
		memcpy(at, bytes, size);
}

void qsc_items_put_u32(struct qsc_items *items, uint32_t value)
{
	uint8_t *at = grow(items, 4);

	if (at)
		qsc_put_u32(at, value);
}

void qsc_items_put_u64(struct qsc_items *items, uint64_t value)
{
	uint8_t *at = grow(items, 8);

	if (at)
		qsc_put_u64(at, value);
}

void qsc_items_put_text(struct qsc_items *items, uint16_t tag, const char *text)
{
	size_t begin = qsc_items_begin(items, tag);

	qsc_items_put(items, text, strlen(text));
	qsc_items_end(items, begin);
}

/* ---- reading ---- */

static const uint8_t *take(struct qsc_items_reader *reader, size_t size)
{
	const uint8_t *bytes = reader->at;

	if (reader->bad || reader->left < size) {
		reader->bad = true;
		return NULL;
	}
	reader->at += size;
	reader->left -= size;
	return bytes;
}

bool qsc_items_next(struct qsc_items_reader *reader, uint16_t *tag,
		    struct qsc_items_reader *payload)
{
	uint32_t head;
	uint32_t size;

	if (reader->bad || !reader->left)
		return false;
	head = qsc_items_get_u32(reader);
	size = qsc_items_get_u32(reader);
	*payload = (struct qsc_items_reader){.at = take(reader, size), .left = size};
	if (head > UINT16_MAX)
		reader->bad = true;
	*tag = (uint16_t)head;
	return !reader->bad;
}

uint32_t qsc_items_get_u32(struct qsc_items_reader *reader)
{
	const uint8_t *bytes = take(reader, 4);

	return bytes ? qsc_get_u32(bytes) : 0;
}

uint64_t qsc_items_get_u64(struct qsc_items_reader *reader)
{
	const uint8_t *bytes = take(reader, 8);

	return bytes ? qsc_get_u64(bytes) : 0;
}

void qsc_items_get_text(struct qsc_items_reader *reader, char *text, size_t size)
{
	size_t length = reader->left;
	const uint8_t *bytes = length < size ? take(reader, length) : NULL;

	text[0] = '\0';
	if (!bytes || memchr(bytes, '\0', length)) {
		reader->bad = true;
		return;
	}
	memcpy(text, bytes, length);
	text[length] = '\0';
}

bool qsc_items_done(const struct qsc_items_reader *reader)
{
	return !reader->bad && !reader->left;
}
