/* SPDX-License-Identifier: MIT */
/* See stream.h. */
#include "runtime/stream.h"

#include <endian.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "runtime/section.h"

#define PROLOGUE_SIZE 16U
#define MAX_HEADER    (256U << 10)
#define KNOWN_NEEDS   (QSC_STREAM_NEEDS_BLOCKS | QSC_STREAM_NEEDS_CUSTOM)

static const char magic[8] = {'Q', 'S', 'C', 'S', 'T', 'A', 'T', 'E'};

/* ---- writing ---- */

static uint8_t *put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static uint8_t *put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
	return at + sizeof(value);
}

static uint8_t *put_name(uint8_t *at, const char *name)
{
	*at++ = (uint8_t)strlen(name);
	while (*name)
		*at++ = (uint8_t)*name++;
	return at;
}

size_t qsc_stream_header_size(const struct qsc_stream_layout *layout)
{
	size_t size = PROLOGUE_SIZE + 4 + 3 * 4 + 4 + 2 + 2 + 1 + strlen(layout->type);
	uint32_t i;

	for (i = 0; i < layout->num_sections; i++)
		size += 1 + strlen(layout->sections[i].name) + 2 + 4;
	for (i = 0; i < layout->num_blocks; i++)
		size += 1 + strlen(layout->blocks[i].name) + 8;
	return size;
}

void qsc_stream_put_header(const struct qsc_stream_layout *layout, uint8_t *bytes)
{
	size_t size = qsc_stream_header_size(layout);
	uint8_t *at = bytes;
	uint32_t i;

	memcpy(at, magic, sizeof(magic));
	at = put16(at + sizeof(magic), QSC_STREAM_MAJOR);
	at = put16(at, QSC_STREAM_MINOR);
	at = put32(at, (uint32_t)(size - PROLOGUE_SIZE));
	at = put32(at, (layout->num_blocks ? QSC_STREAM_NEEDS_BLOCKS : 0) |
			       (layout->custom_max ? QSC_STREAM_NEEDS_CUSTOM : 0));
	for (i = 0; i < QSC_IRQ_INDICES; i++)
		at = put32(at, layout->vectors[i]);
	at = put32(at, layout->custom_max);
	at = put16(at, (uint16_t)layout->num_sections);
	at = put16(at, (uint16_t)layout->num_blocks);
	at = put_name(at, layout->type);
	for (i = 0; i < layout->num_sections; i++) {
		at = put_name(at, layout->sections[i].name);
		at = put16(at, layout->sections[i].version);
		at = put32(at, (uint32_t)qsc_section_size(&layout->sections[i]));
	}
	for (i = 0; i < layout->num_blocks; i++) {
		at = put_name(at, layout->blocks[i].name);
		at = put64(at, layout->blocks[i].size);
	}
}

void qsc_stream_put_record(uint8_t bytes[QSC_STREAM_RECORD_SIZE], enum qsc_stream_record type,
			   uint32_t index, uint64_t size)
{
	bytes = put16(bytes, (uint16_t)type);
	bytes = put16(bytes, 0);
	bytes = put32(bytes, index);
	(void)put64(bytes, size);
}

void qsc_stream_put_u64(uint8_t bytes[8], uint64_t value)
{
	(void)put64(bytes, value);
}

void qsc_stream_put_held(uint8_t bytes[QSC_STREAM_HELD_SIZE], const struct qsc_irq_held *held)
{
	bytes = put32(bytes, held->index);
	bytes = put32(bytes, held->vector);
	(void)put64(bytes, held->count);
}

/* ---- reading: what is gathered, and what flows through ---- */

enum step {
	STEP_PROLOGUE, /* gathered … */
	STEP_HEADER,
	STEP_RECORD,
	STEP_PAYLOAD, /* … up to here, then `want` bytes are there at once */
	STEP_PAGES,   /* `left` bytes of pages flow through */
	STEP_SKIP,    /* `left` bytes of no interest */
	STEP_DONE,
};

struct qsc_stream_parser {
	const struct qsc_stream_layout *layout;
	const struct qsc_stream_sink *sink;
	void *ctx;
	enum step step;
	int refused;
	char why[QSC_ERROR_TEXT_SIZE];
	uint64_t taken; /* bytes of the stream so far, for messages */
	XXH3_state_t *hash;

	size_t want, have;
	size_t capacity;
	uint8_t *buffer;

	uint16_t type; /* of the record under way */
	uint32_t index;
	uint64_t offset;
	uint64_t left;

	uint32_t num_seen; /* sections, which come in order */
	bool custom_seen;
	bool held_seen;
	uint32_t *section_sizes; /* as this stream has them */
	struct qsc_irq_held *held;
	size_t max_held;
};

static int refuse(struct qsc_stream_parser *parser, int number, const char *fmt, ...)
	QSC_PRINTF(3, 4);

static int refuse(struct qsc_stream_parser *parser, int number, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(parser->why, sizeof(parser->why), fmt, args);
	va_end(args);
	parser->refused = -number;
	return parser->refused;
}

static void gather(struct qsc_stream_parser *parser, enum step step, size_t want)
{
	parser->step = step;
	parser->want = want;
	parser->have = 0;
}

int qsc_stream_parser_create(const struct qsc_stream_layout *layout,
			     const struct qsc_stream_sink *sink, void *ctx,
			     struct qsc_stream_parser **out)
{
	struct qsc_stream_parser *parser = calloc(1, sizeof(*parser));
	uint32_t i;

	if (!parser)
		return -ENOMEM;
	parser->layout = layout;
	parser->sink = sink;
	parser->ctx = ctx;
	for (i = 0; i < QSC_IRQ_INDICES; i++)
		parser->max_held += layout->vectors[i];
	parser->capacity = (size_t)qsc_max_u64(MAX_HEADER, layout->custom_max);
	parser->capacity = (size_t)qsc_max_u64(parser->capacity,
					       parser->max_held * QSC_STREAM_HELD_SIZE);
	for (i = 0; i < layout->num_sections; i++)
		parser->capacity = (size_t)qsc_max_u64(parser->capacity,
						       qsc_section_size(&layout->sections[i]));
	parser->buffer = malloc(parser->capacity);
	parser->hash = XXH3_createState();
	parser->section_sizes = calloc(layout->num_sections + 1, sizeof(uint32_t));
	parser->held = calloc(parser->max_held + 1, sizeof(*parser->held));
	if (!parser->buffer || !parser->hash || !parser->section_sizes || !parser->held) {
		qsc_stream_parser_destroy(parser);
		return -ENOMEM;
	}
	(void)XXH3_64bits_reset(parser->hash);
	gather(parser, STEP_PROLOGUE, PROLOGUE_SIZE);
	*out = parser;
	return 0;
}

void qsc_stream_parser_destroy(struct qsc_stream_parser *parser)
{
	if (!parser)
		return;
	free(parser->held);
	free(parser->section_sizes);
	(void)XXH3_freeState(parser->hash);
	free(parser->buffer);
	free(parser);
}

/* ---- reading: the header ---- */

/* Bytes taken from a buffer; `missing` when it had too few. */
struct reader {
	const uint8_t *at;
	size_t left;
	bool missing;
};

static uint64_t get(struct reader *reader, size_t size)
{
	uint64_t value = 0;

	if (reader->left < size) {
		reader->missing = true;
		return 0;
	}
	memcpy(&value, reader->at, size);
	reader->at += size;
	reader->left -= size;
	return le64toh(value);
}

static void get_name(struct reader *reader, char name[QSC_STREAM_MAX_NAME + 1])
{
	size_t size = (size_t)get(reader, 1);
	size_t i;

	memset(name, 0, QSC_STREAM_MAX_NAME + 1);
	if (size > QSC_STREAM_MAX_NAME || size > reader->left) {
		reader->missing = true;
		return;
	}
	memcpy(name, reader->at, size);
	/* It will stand in a message. */
	for (i = 0; i < size; i++) {
		if (name[i] < ' ' || name[i] > '~')
			name[i] = '?';
	}
	reader->at += size;
	reader->left -= size;
}

static int take_prologue(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer + sizeof(magic), PROLOGUE_SIZE - sizeof(magic),
				false};
	unsigned int major = (unsigned int)get(&reader, 2);
	uint64_t size;

	(void)get(&reader, 2); /* any minor version can be read */
	size = get(&reader, 4);
	if (memcmp(parser->buffer, magic, sizeof(magic)) != 0)
		return refuse(parser, EINVAL, "this is no state stream of a device");
	if (major != QSC_STREAM_MAJOR)
		return refuse(parser, EINVAL,
			      "the stream has format %u, of which only %u is known here; load it "
			      "with the release that wrote it",
			      major, QSC_STREAM_MAJOR);
	if (!size || size > MAX_HEADER)
		return refuse(parser, EINVAL, "the stream's header of %llu bytes is impossible",
			      (unsigned long long)size);
	gather(parser, STEP_HEADER, (size_t)size);
	return 0;
}

static int check_section(struct qsc_stream_parser *parser, struct reader *reader, uint32_t i)
{
	const struct qsc_section *own = &parser->layout->sections[i];
	char name[QSC_STREAM_MAX_NAME + 1];
	unsigned int version;
	uint64_t size;

	get_name(reader, name);
	version = (unsigned int)get(reader, 2);
	size = get(reader, 4);
	if (reader->missing)
		return 0;
	if (strcmp(name, own->name) != 0)
		return refuse(parser, EINVAL, "the stream has section %s where %s has %s", name,
			      parser->layout->type, own->name);
	if (version < own->min_version || version > own->version)
		return refuse(
			parser, EINVAL,
			"the stream has version %u of section %s, of which %u to %u are known",
			version, name, own->min_version, own->version);
	if (version == own->version ? size != qsc_section_size(own) : size > qsc_section_size(own))
		return refuse(parser, EINVAL,
			      "the stream has %llu bytes in section %s, which has %zu",
			      (unsigned long long)size, name, qsc_section_size(own));
	parser->section_sizes[i] = (uint32_t)size;
	return 0;
}

static int check_block(struct qsc_stream_parser *parser, struct reader *reader, uint32_t i)
{
	const struct qsc_block_desc *own = &parser->layout->blocks[i];
	char name[QSC_STREAM_MAX_NAME + 1];
	uint64_t size;

	get_name(reader, name);
	size = get(reader, 8);
	if (reader->missing)
		return 0;
	if (strcmp(name, own->name) != 0)
		return refuse(parser, EINVAL, "the stream has block %s where %s has %s", name,
			      parser->layout->type, own->name);
	if (size != own->size)
		return refuse(parser, EINVAL,
			      "the stream has %llu bytes in block %s, which has %llu here",
			      (unsigned long long)size, name, (unsigned long long)own->size);
	return 0;
}

static int check_counts(struct qsc_stream_parser *parser, struct reader *reader)
{
	const struct qsc_stream_layout *own = parser->layout;
	unsigned int needs = (unsigned int)get(reader, 4);
	char type[QSC_STREAM_MAX_NAME + 1];
	uint32_t vectors[QSC_IRQ_INDICES];
	uint64_t custom_max;
	uint64_t sections;
	uint64_t blocks;
	uint32_t i;

	for (i = 0; i < QSC_IRQ_INDICES; i++)
		vectors[i] = (uint32_t)get(reader, 4);
	custom_max = get(reader, 4);
	sections = get(reader, 2);
	blocks = get(reader, 2);
	get_name(reader, type);
	if (reader->missing)
		return 0;
	if (strcmp(type, own->type) != 0)
		return refuse(parser, EINVAL, "the stream is of a device %s and this is a %s", type,
			      own->type);
	if (needs & ~KNOWN_NEEDS)
		return refuse(parser, EINVAL,
			      "the stream needs capabilities 0x%x that are not known here",
			      needs & ~KNOWN_NEEDS);
	for (i = 0; i < QSC_IRQ_INDICES; i++) {
		if (vectors[i] != own->vectors[i])
			return refuse(parser, EINVAL,
				      "the stream is of a device with %u vectors of interrupt "
				      "index %u and this has %u",
				      vectors[i], i, own->vectors[i]);
	}
	if (custom_max > own->custom_max || !custom_max != !own->custom_max)
		return refuse(parser, EINVAL,
			      "the stream has up to %llu bytes of custom state and this device %u",
			      (unsigned long long)custom_max, own->custom_max);
	if (sections != own->num_sections || blocks != own->num_blocks)
		return refuse(parser, EINVAL,
			      "the stream has %llu sections and %llu blocks where %s has %u and %u",
			      (unsigned long long)sections, (unsigned long long)blocks, own->type,
			      own->num_sections, own->num_blocks);
	return 0;
}

static int take_header(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer, parser->want, false};
	struct qsc_error why = QSC_ERROR_NONE;
	int result = check_counts(parser, &reader);
	uint32_t i;

	for (i = 0; !result && !reader.missing && i < parser->layout->num_sections; i++)
		result = check_section(parser, &reader, i);
	for (i = 0; !result && !reader.missing && i < parser->layout->num_blocks; i++)
		result = check_block(parser, &reader, i);
	if (result < 0)
		return result;
	if (reader.missing)
		return refuse(parser, EINVAL, "the stream's header ends too early");
	result = parser->sink->begin(parser->ctx, &why);
	if (result < 0)
		return refuse(parser, -result, "%s", why.text);
	gather(parser, STEP_RECORD, QSC_STREAM_RECORD_SIZE);
	return 0;
}

/* ---- reading: records ---- */

static bool pages_fit(const struct qsc_stream_parser *parser, uint64_t offset, uint64_t size)
{
	return size && !(offset % QSC_STREAM_PAGE_SIZE) && !(size % QSC_STREAM_PAGE_SIZE) &&
	       qsc_range_within(offset, size, parser->layout->blocks[parser->index].size);
}

static int refuse_record(struct qsc_stream_parser *parser)
{
	return refuse(parser, EBADMSG,
		      "the stream is broken: record %u of index %u and %llu bytes before byte %llu "
		      "cannot be",
		      parser->type, parser->index, (unsigned long long)parser->left,
		      (unsigned long long)parser->taken);
}

static int take_payload(struct qsc_stream_parser *parser);

/* Gather a payload; an empty one is there already. */
static int await_payload(struct qsc_stream_parser *parser, size_t want)
{
	gather(parser, STEP_PAYLOAD, want);
	return want ? 0 : take_payload(parser);
}

static int take_record(struct qsc_stream_parser *parser)
{
	const struct qsc_stream_layout *own = parser->layout;
	struct reader reader = {parser->buffer, QSC_STREAM_RECORD_SIZE, false};
	unsigned int reserved;

	parser->type = (uint16_t)get(&reader, 2);
	reserved = (unsigned int)get(&reader, 2);
	parser->index = (uint32_t)get(&reader, 4);
	parser->left = get(&reader, 8);
	if (parser->type & QSC_STREAM_OPTIONAL) {
		parser->step = STEP_SKIP;
		return 0;
	}
	if (reserved)
		return refuse_record(parser);
	switch (parser->type) {
	case QSC_STREAM_PAGES:
		if (parser->index >= own->num_blocks || parser->left < 8)
			return refuse_record(parser);
		return await_payload(parser, 8);
	case QSC_STREAM_ZERO:
		if (parser->index >= own->num_blocks || parser->left != 16)
			return refuse_record(parser);
		break;
	case QSC_STREAM_SECTION:
		if (parser->index >= own->num_sections || parser->index != parser->num_seen ||
		    parser->left != parser->section_sizes[parser->index])
			return refuse_record(parser);
		break;
	case QSC_STREAM_CUSTOM:
		if (!own->custom_max || parser->custom_seen || parser->left > own->custom_max)
			return refuse_record(parser);
		break;
	case QSC_STREAM_HELD:
		if (parser->held_seen || parser->left % QSC_STREAM_HELD_SIZE ||
		    parser->left / QSC_STREAM_HELD_SIZE > parser->max_held)
			return refuse_record(parser);
		break;
	case QSC_STREAM_END:
		if (parser->left != QSC_STREAM_END_SIZE)
			return refuse_record(parser);
		break;
	default:
		return refuse_record(parser);
	}
	return await_payload(parser, (size_t)parser->left);
}

static int take_pages_offset(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer, 8, false};

	parser->offset = get(&reader, 8);
	if (!pages_fit(parser, parser->offset, parser->left - 8))
		return refuse_record(parser);
	parser->left -= 8;
	parser->step = STEP_PAGES;
	return 0;
}

static int take_zero(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer, 16, false};
	uint64_t offset = get(&reader, 8);
	uint64_t size = get(&reader, 8);
	struct qsc_error why = QSC_ERROR_NONE;
	int result;

	if (!pages_fit(parser, offset, size))
		return refuse_record(parser);
	result = parser->sink->zero(parser->ctx, parser->index, offset, size, &why);
	return result < 0 ? refuse(parser, -result, "%s", why.text) : 0;
}

static int take_held(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer, parser->want, false};
	size_t count = parser->want / QSC_STREAM_HELD_SIZE;
	size_t i;

	for (i = 0; i < count; i++) {
		struct qsc_irq_held *held = &parser->held[i];

		held->index = (uint32_t)get(&reader, 4);
		held->vector = (uint32_t)get(&reader, 4);
		held->count = get(&reader, 8);
		/* In order, so that none comes twice; and no more than are ever held. */
		if (held->index >= QSC_IRQ_INDICES ||
		    held->vector >= parser->layout->vectors[held->index] || !held->count ||
		    held->count > QSC_IRQ_MAX_HELD ||
		    (i && (held->index < held[-1].index ||
			   (held->index == held[-1].index && held->vector <= held[-1].vector))))
			return refuse_record(parser);
	}
	parser->held_seen = true;
	parser->sink->held(parser->ctx, parser->held, count);
	return 0;
}

static int take_end(struct qsc_stream_parser *parser)
{
	struct reader reader = {parser->buffer, QSC_STREAM_END_SIZE, false};

	if (get(&reader, 8) != XXH3_64bits_digest(parser->hash))
		return refuse(parser, EBADMSG,
			      "the stream was changed on its way: its hash is not that of its %llu "
			      "bytes",
			      (unsigned long long)parser->taken);
	if (parser->num_seen != parser->layout->num_sections || !parser->held_seen ||
	    parser->custom_seen != (parser->layout->custom_max != 0))
		return refuse(parser, EBADMSG,
			      "the stream is broken: it ends after %u of %u sections, %s",
			      parser->num_seen, parser->layout->num_sections,
			      parser->held_seen ? "without its custom state"
						: "without its interrupts");
	parser->step = STEP_DONE;
	return 0;
}

static int take_payload(struct qsc_stream_parser *parser)
{
	size_t own_size;

	switch (parser->type) {
	case QSC_STREAM_PAGES:
		return take_pages_offset(parser);
	case QSC_STREAM_END:
		return take_end(parser);
	case QSC_STREAM_ZERO:
		if (take_zero(parser) < 0)
			return parser->refused;
		break;
	case QSC_STREAM_SECTION:
		own_size = qsc_section_size(&parser->layout->sections[parser->index]);
		memset(parser->buffer + parser->want, 0, own_size - parser->want);
		parser->sink->section(parser->ctx, parser->index, parser->buffer);
		parser->num_seen++;
		break;
	case QSC_STREAM_CUSTOM:
		parser->sink->custom(parser->ctx, parser->buffer, parser->want);
		parser->custom_seen = true;
		break;
	default:
		if (take_held(parser) < 0)
			return parser->refused;
		break;
	}
	gather(parser, STEP_RECORD, QSC_STREAM_RECORD_SIZE);
	return 0;
}

/* ---- reading: bytes ---- */

static int take_gathered(struct qsc_stream_parser *parser)
{
	/* The hash covers everything but itself. */
	if (parser->step != STEP_PAYLOAD || parser->type != QSC_STREAM_END)
		(void)XXH3_64bits_update(parser->hash, parser->buffer, parser->want);
	switch (parser->step) {
	case STEP_PROLOGUE:
		return take_prologue(parser);
	case STEP_HEADER:
		return take_header(parser);
	case STEP_RECORD:
		return take_record(parser);
	default:
		return take_payload(parser);
	}
}

/* Bytes that flow through without being gathered; returns how many. */
static size_t flow(struct qsc_stream_parser *parser, const uint8_t *bytes, size_t size)
{
	size_t n = (size_t)qsc_min_u64(size, parser->left);
	struct qsc_error why = QSC_ERROR_NONE;
	int result = 0;

	(void)XXH3_64bits_update(parser->hash, bytes, n);
	if (parser->step == STEP_PAGES)
		result = parser->sink->data(parser->ctx, parser->index, parser->offset, bytes, n,
					    &why);
	if (result < 0)
		(void)refuse(parser, -result, "%s", why.text);
	parser->offset += n;
	parser->left -= n;
	if (!parser->left)
		gather(parser, STEP_RECORD, QSC_STREAM_RECORD_SIZE);
	return n;
}

int qsc_stream_parse(struct qsc_stream_parser *parser, const void *data, size_t size,
		     struct qsc_error *err)
{
	const uint8_t *bytes = data;

	while (size && !parser->refused) {
		size_t n;

		if (parser->step == STEP_DONE) {
			(void)refuse(parser, EBADMSG, "the stream goes on behind its end");
			break;
		}
		if (parser->step == STEP_PAGES || parser->step == STEP_SKIP) {
			n = flow(parser, bytes, size);
		} else {
			n = (size_t)qsc_min_u64(size, parser->want - parser->have);
			memcpy(parser->buffer + parser->have, bytes, n);
			parser->have += n;
		}
		bytes += n;
		size -= n;
		parser->taken += n;
		if (parser->step <= STEP_PAYLOAD && parser->have == parser->want)
			(void)take_gathered(parser);
	}
	if (parser->refused)
		return qsc_error_set(err, -parser->refused, NULL, "%s", parser->why);
	return 0;
}

int qsc_stream_finish(const struct qsc_stream_parser *parser, struct qsc_error *err)
{
	if (parser->refused)
		return qsc_error_set(err, -parser->refused, NULL, "%s", parser->why);
	if (parser->step != STEP_DONE)
		return qsc_error_set(err, ENODATA, NULL,
				     "the stream is not complete after %llu bytes",
				     (unsigned long long)parser->taken);
	return 0;
}
