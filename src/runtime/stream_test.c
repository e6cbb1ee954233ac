/* SPDX-License-Identifier: MIT */
/* Unit tests of the stream format: what is refused for what reason, and what a reader may skip. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include <cmocka.h>

#include "device/layout.h"
#include "runtime/section.h"
#include "runtime/stream.h"

struct numbers {
	uint32_t a;
	uint16_t b[3];
};

static const struct qsc_field fields[] = {
	QSC_FIELD(struct numbers, a),
	QSC_FIELD_ARRAY(struct numbers, b),
	QSC_FIELD_END,
};

static const struct qsc_section sections[] = {{"numbers", 4, 2, fields}, {NULL, 0, 0, NULL}};
static const struct qsc_block_desc blocks[] = {{.name = "memory", .size = 16384}};
static const struct qsc_stream_layout layout = {"thing", {1, 0, 3}, 8, 1, sections, 1, blocks};

struct seen {
	unsigned int begun, sections, customs, helds;
	uint8_t memory[16384];
	struct numbers numbers;
	size_t custom_size;
	struct qsc_irq_held held;
};

static int on_begin(void *ctx, struct qsc_error *err)
{
	((struct seen *)ctx)->begun++;
	return 0;
}

static int on_data(void *ctx, uint32_t block, uint64_t offset, const uint8_t *bytes, size_t size,
		   struct qsc_error *err)
{
	assert_true(block == 0 && offset + size <= 16384);
	memcpy(((struct seen *)ctx)->memory + offset, bytes, size);
	return 0;
}

static int on_zero(void *ctx, uint32_t block, uint64_t offset, uint64_t size, struct qsc_error *err)
{
	assert_true(block == 0 && offset + size <= 16384);
	memset(((struct seen *)ctx)->memory + offset, 0, size);
	return 0;
}

static void on_section(void *ctx, uint32_t index, const uint8_t *bytes)
{
	struct seen *seen = ctx;

	qsc_section_decode(&sections[index], &seen->numbers, bytes);
	seen->sections++;
}

static void on_custom(void *ctx, const uint8_t *bytes, size_t size)
{
	((struct seen *)ctx)->custom_size = size;
	((struct seen *)ctx)->customs++;
}

static void on_held(void *ctx, const struct qsc_irq_held *held, size_t count)
{
	if (count)
		((struct seen *)ctx)->held = held[0];
	((struct seen *)ctx)->helds++;
}

static const struct qsc_stream_sink sink = {on_begin,	on_data,   on_zero,
					    on_section, on_custom, on_held};

/* A stream put together by hand. */
struct bytes {
	uint8_t at[40000];
	size_t size;
};

static void begin(struct bytes *stream, const struct qsc_stream_layout *of)
{
	qsc_stream_put_header(of, stream->at);
	stream->size = qsc_stream_header_size(of);
}

static void add(struct bytes *stream, unsigned int type, uint32_t index, const void *payload,
		size_t size)
{
	qsc_stream_put_record(stream->at + stream->size, (enum qsc_stream_record)type, index, size);
	stream->size += QSC_STREAM_RECORD_SIZE;
	if (size)
		memcpy(stream->at + stream->size, payload, size);
	stream->size += size;
}

static void add_pages(struct bytes *stream, uint64_t offset, size_t size)
{
	static uint8_t payload[8 + 20000];

	memset(payload, 0x5a, sizeof(payload));
	qsc_stream_put_u64(payload, offset);
	add(stream, QSC_STREAM_PAGES, 0, payload, 8 + size);
}

static void add_held(struct bytes *stream, uint32_t index, uint32_t vector, uint64_t count)
{
	const struct qsc_irq_held held = {index, vector, count};
	uint8_t payload[QSC_STREAM_HELD_SIZE];

	qsc_stream_put_held(payload, &held);
	add(stream, QSC_STREAM_HELD, 0, payload, sizeof(payload));
}

static void add_end(struct bytes *stream)
{
	uint8_t hash[8] = {0};

	add(stream, QSC_STREAM_END, 0, hash, 8);
	qsc_stream_put_u64(stream->at + stream->size - 8,
			   XXH3_64bits(stream->at, stream->size - 8));
}

/* Everything behind the pages. */
static void add_rest(struct bytes *stream)
{
	const struct numbers numbers = {1, {2, 3, 4}};
	uint8_t payload[10];

	qsc_section_encode(&sections[0], &numbers, payload);
	add(stream, QSC_STREAM_SECTION, 0, payload, sizeof(payload));
	add(stream, QSC_STREAM_CUSTOM, 0, "abc", 3);
	add_held(stream, 2, 1, 9);
	add_end(stream);
}

static int parse(const struct bytes *stream, size_t piece, struct seen *seen)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_stream_parser *parser;
	int result = 0;

	memset(seen, 0, sizeof(*seen));
	assert_int_equal(qsc_stream_parser_create(&layout, &sink, seen, &parser), 0);
	for (size_t at = 0; !result && at < stream->size; at += piece) {
		size_t n = stream->size - at < piece ? stream->size - at : piece;
		/* A copy of its own, so that the address sanitizer sees an over-read. */
		uint8_t *copy = malloc(n);

		memcpy(copy, stream->at + at, n);
		result = qsc_stream_parse(parser, copy, n, &err);
		free(copy);
	}
	if (!result)
		result = qsc_stream_finish(parser, &err);
	else
		assert_int_equal(qsc_stream_finish(parser, &err), result);
	assert_true(!result || err.text[0]);
	qsc_stream_parser_destroy(parser);
	return result;
}

static void test_a_good_stream(void **unused)
{
	static struct bytes stream;
	struct seen seen;

	for (size_t piece = 1; piece < 30000; piece = piece * 3 + 1) {
		begin(&stream, &layout);
		add_pages(&stream, 4096, 8192);
		add(&stream, QSC_STREAM_OPTIONAL | 77, 99, "whatever", 8);
		add(&stream, QSC_STREAM_OPTIONAL | 78, 0, NULL, 0);
		add_rest(&stream);
		assert_int_equal(parse(&stream, piece, &seen), 0);
		assert_int_equal(seen.begun, 1);
		assert_int_equal(seen.memory[4095], 0);
		assert_int_equal(seen.memory[4096], 0x5a);
		assert_int_equal(seen.memory[12287], 0x5a);
		assert_int_equal(seen.memory[12288], 0);
		assert_int_equal(seen.numbers.b[2], 4);
		assert_int_equal(seen.custom_size, 3);
		assert_int_equal(seen.held.count, 9);
	}
}

/* SESS-11: another minor version with a longer header is read, another major one is not. */
static void test_versions(void **unused)
{
	static struct bytes stream;
	struct seen seen;
	size_t header = qsc_stream_header_size(&layout);

	begin(&stream, &layout);
	stream.at[10] = 3;
	stream.at[12] = (uint8_t)(header - 16 + 5);
	memcpy(stream.at + stream.size, "later", 5);
	stream.size += 5;
	add_rest(&stream);
	assert_int_equal(parse(&stream, 7, &seen), 0);
	stream.at[8] = 2;
	assert_int_equal(parse(&stream, 7, &seen), -EINVAL);
	assert_int_equal(seen.begun, 0);
}

/* SESS-11: each thing in which a device may differ. */
static void test_foreign_headers(void **unused)
{
	static struct bytes stream;
	struct qsc_section other_sections[2] = {sections[0], sections[1]};
	struct qsc_block_desc other_blocks[1] = {blocks[0]};
	struct seen seen;

	for (int i = 0; i < 11; i++) {
		struct qsc_stream_layout other = layout;

		other.sections = other_sections;
		other.blocks = other_blocks;
		memcpy(other_sections, sections, sizeof(sections));
		other_blocks[0] = blocks[0];
		if (i == 0)
			other.type = "thinh";
		if (i == 1)
			other.vectors[1] = 1;
		if (i == 2)
			other.custom_max = 9;
		if (i == 3)
			other.custom_max = 0;
		if (i == 4)
			other_sections[0].version = 5;
		if (i == 5)
			other_sections[0].version = 1;
		if (i == 6)
			other_sections[0].name = "numbert";
		if (i == 7)
			other_sections[0].fields = fields + 1;
		if (i == 8)
			other_blocks[0].size = 8192;
		if (i == 9)
			other_blocks[0].name = "memoir";
		if (i == 10)
			other.num_blocks = 0;
		begin(&stream, &other);
		assert_int_equal(parse(&stream, 5, &seen), -EINVAL);
		assert_int_equal(seen.begun, 0);
	}
	begin(&stream, &layout);
	stream.at[17] = 1; /* a capability that nobody knows */
	assert_int_equal(parse(&stream, 5, &seen), -EINVAL);
	begin(&stream, &layout);
	stream.at[0] = 'q';
	assert_int_equal(parse(&stream, 5, &seen), -EINVAL);
}

/* An older layout of a section, which had fewer fields. */
static void test_older_section(void **unused)
{
	static struct bytes stream;
	static const struct qsc_field fewer[] = {QSC_FIELD(struct numbers, a), QSC_FIELD_END};
	const struct qsc_section old[] = {{"numbers", 3, 1, fewer}, {NULL, 0, 0, NULL}};
	struct qsc_stream_layout before = layout;
	struct seen seen;

	before.sections = old;
	begin(&stream, &before);
	add(&stream, QSC_STREAM_SECTION, 0, "\4\0\0\0", 4);
	add(&stream, QSC_STREAM_CUSTOM, 0, NULL, 0);
	add(&stream, QSC_STREAM_HELD, 0, NULL, 0);
	add_end(&stream);
	assert_int_equal(parse(&stream, 3, &seen), 0);
	assert_int_equal(seen.numbers.a, 4);
	assert_int_equal(seen.numbers.b[0], 0);
}

static void count_reason(void *ctx, const char *reason)
{
	++*(unsigned int *)ctx;
}

/* What is told before there is a stream comes to the same as the stream's header. */
static void test_SESS_11_told_before(void **unused)
{
	static struct bytes stream;
	static const struct qsc_field more[] = {
		QSC_FIELD(struct numbers, a),
		QSC_FIELD_ARRAY(struct numbers, b),
		{"again", 0, 4, 1, 4, NULL},
		QSC_FIELD_END,
	};
	const struct qsc_field *const shapes[] = {fields, fields + 1, more};
	static const char *const types[] = {"thing", "think"};
	static const char *const names[] = {"numbers", "numbert"};
	static const uint32_t customs[] = {0, 7, 8, 9};
	unsigned int accepted = 0;
	struct qsc_layout ours;
	struct qsc_layout theirs;
	struct seen seen;

	qsc_stream_describe(&layout, &ours);
	assert_true(qsc_layout_valid(&ours));
	for (unsigned int i = 0; i < 5 * 3 * 2 * 2 * 4 * 3; i++) {
		const struct qsc_section one[] = {
			{names[i / 15 % 2], (uint16_t)(i % 5 + 1), 1, shapes[i / 5 % 3]},
			{NULL, 0, 0, NULL}};
		const struct qsc_block_desc memory[] = {{.name = "memory", .size = 16384},
							{.name = "more", .size = 4096}};
		struct qsc_stream_layout other = layout;
		unsigned int reasons = 0;

		other.type = types[i / 30 % 2];
		other.custom_max = customs[i / 60 % 4];
		other.num_blocks = i / 240;
		other.sections = one;
		other.blocks = memory;
		qsc_stream_describe(&other, &theirs);
		qsc_layout_compare(&ours, &theirs, count_reason, &reasons);
		begin(&stream, &other);
		(void)parse(&stream, 64, &seen);
		assert_int_equal(seen.begun, reasons == 0);
		accepted += seen.begun;
	}
	/* Two sizes of custom state, and of the section: of its own version one size, of two older
	 * ones two. */
	assert_int_equal(accepted, 2 * (1 + 2 * 2));
}

static void break_it(struct bytes *stream, int how)
{
	const uint8_t zeroes[64] = {0};

	switch (how) {
	case 0: /* pages beyond the block, unaligned, none, of no block */
		add_pages(stream, 16384, 4096);
		break;
	case 1:
		add_pages(stream, 12288, 8192);
		break;
	case 2:
		add_pages(stream, 100, 4096);
		break;
	case 3:
		add_pages(stream, 0, 0);
		break;
	case 4:
		add_pages(stream, UINT64_MAX - 4095, 4096);
		break;
	case 5:
		add(stream, QSC_STREAM_PAGES, 1, zeroes, 16);
		break;
	case 6:
		add(stream, QSC_STREAM_ZERO, 0, zeroes, 16);
		break;
	case 7:
		add(stream, QSC_STREAM_SECTION, 1, zeroes, 10);
		break;
	case 8:
		add(stream, QSC_STREAM_SECTION, 0, zeroes, 9);
		break;
	case 9:
		add(stream, QSC_STREAM_CUSTOM, 0, zeroes, 9);
		break;
	case 10:
		add_held(stream, 1, 0, 1);
		break;
	case 11:
		add_held(stream, 2, 3, 1);
		break;
	case 12:
		add_held(stream, 2, 0, 0);
		break;
	case 13:
		add_held(stream, 3, 0, 1);
		break;
	case 14:
		add(stream, QSC_STREAM_HELD, 0, zeroes, 8);
		break;
	case 15: /* the end before everything is there */
		add_end(stream);
		break;
	case 16:
		add(stream, 42, 0, zeroes, 8);
		break;
	case 17:
		add(stream, 0, 0, zeroes, 8);
		break;
	case 18: /* twice */
		add(stream, QSC_STREAM_CUSTOM, 0, zeroes, 1);
		break;
	default:
		add(stream, QSC_STREAM_HELD, 0, zeroes, 0);
		break;
	}
	add_rest(stream);
}

static void test_broken_records(void **unused)
{
	static struct bytes stream;
	struct seen seen;

	for (int how = 0; how < 20; how++) {
		begin(&stream, &layout);
		break_it(&stream, how);
		assert_int_equal(parse(&stream, 4096, &seen), -EBADMSG);
	}
}

/* A stream cannot make the device deliver more than it could have held itself. */
static void test_held_is_bounded(void **unused)
{
	static struct bytes stream;
	struct seen seen;

	begin(&stream, &layout);
	add_held(&stream, 2, 1, QSC_IRQ_MAX_HELD);
	assert_int_equal(parse(&stream, 64, &seen), -ENODATA);
	assert_int_equal(seen.held.count, QSC_IRQ_MAX_HELD);
	begin(&stream, &layout);
	add_held(&stream, 2, 1, QSC_IRQ_MAX_HELD + 1);
	assert_int_equal(parse(&stream, 64, &seen), -EBADMSG);
	assert_int_equal(seen.helds, 0);
}

static void test_ends(void **unused)
{
	static struct bytes stream;
	struct seen seen;
	size_t whole;

	begin(&stream, &layout);
	add_pages(&stream, 0, 4096);
	add_rest(&stream);
	whole = stream.size;
	for (stream.size = 0; stream.size < whole; stream.size++)
		assert_int_equal(parse(&stream, 64, &seen), -ENODATA);
	stream.at[stream.size++] = 'x';
	assert_int_equal(parse(&stream, 64, &seen), -EBADMSG);
	stream.size--;
	stream.at[whole - 1] ^= 1;
	assert_int_equal(parse(&stream, 64, &seen), -EBADMSG);
}

/* ---- sections ---- */

struct inner {
	uint8_t tag;
	uint64_t values[2];
};

struct outer {
	uint8_t pad;
	struct inner inners[2];
	uint16_t last;
};

static const struct qsc_field inner_fields[] = {
	QSC_FIELD(struct inner, tag), QSC_FIELD_ARRAY(struct inner, values), QSC_FIELD_END};
static const struct qsc_field outer_fields[] = {
	QSC_FIELD(struct outer, last), QSC_FIELD_STRUCTS(struct outer, inners, inner_fields),
	QSC_FIELD_END};

static void test_nested_fields_are_little_endian_without_padding(void **unused)
{
	const struct qsc_section section = {"outer", 1, 1, outer_fields};
	const struct outer from = {
		9, {{1, {0x0102030405060708, 2}}, {3, {4, 0xf0f1f2f3f4f5f6f7}}}, 0x1234};
	struct outer to = {0};
	uint8_t bytes[2 + 2 * 17];

	assert_int_equal(qsc_section_size(&section), sizeof(bytes));
	qsc_section_encode(&section, &from, bytes);
	assert_memory_equal(bytes, "\x34\x12\x01\x08\x07\x06\x05\x04\x03\x02\x01\x02", 12);
	qsc_section_decode(&section, &to, bytes);
	assert_int_equal(to.pad, 0);
	assert_int_equal(to.last, from.last);
	assert_int_equal(to.inners[1].values[1], from.inners[1].values[1]);
}

static void test_impossible_sections(void **unused)
{
	static const struct qsc_field odd[] = {{"odd", 0, 3, 1, 3, NULL}, QSC_FIELD_END};
	static const struct qsc_field outside[] = {{"outside", 8, 4, 3, 4, NULL}, QSC_FIELD_END};
	static const struct qsc_field wraps[] = {{"wraps", 0, 8, UINT32_MAX, UINT32_MAX, NULL},
						 QSC_FIELD_END};
	static const struct qsc_field overlapping[] = {{"lap", 0, 4, 2, 2, NULL}, QSC_FIELD_END};
	const struct qsc_section bad[][3] = {
		{{"s", 1, 1, odd}, {NULL, 0, 0, NULL}},
		{{"s", 1, 1, outside}, {NULL, 0, 0, NULL}},
		{{"s", 1, 1, wraps}, {NULL, 0, 0, NULL}},
		{{"s", 1, 1, overlapping}, {NULL, 0, 0, NULL}},
		{{"s", 1, 2, fields}, {NULL, 0, 0, NULL}},
		{{"", 1, 1, fields}, {NULL, 0, 0, NULL}},
		{{"s", 1, 1, NULL}, {NULL, 0, 0, NULL}},
		{{"s", 1, 1, fields}, {"s", 1, 1, fields}, {NULL, 0, 0, NULL}},
	};
	struct qsc_error err;

	assert_int_equal(qsc_sections_check(sections, sizeof(struct numbers), &err), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_int_equal(qsc_sections_check(bad[i], 16, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_good_stream),
		cmocka_unit_test(test_versions),
		cmocka_unit_test(test_foreign_headers),
		cmocka_unit_test(test_older_section),
		cmocka_unit_test(test_SESS_11_told_before),
		cmocka_unit_test(test_broken_records),
		cmocka_unit_test(test_held_is_bounded),
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_nested_fields_are_little_endian_without_padding),
		cmocka_unit_test(test_impossible_sections),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
