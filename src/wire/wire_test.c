/* SPDX-License-Identifier: MIT */
/* Unit tests of wire: headers, bodies, region capabilities, VERSION, messages out of a stream. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "wire/stream.h"
#include "wire/version.h"

static void test_header(void **state)
{
	static const struct {
		uint32_t size, flags;
		int expected;
	} cases[] = {
		{16, 0, 0},    {15, 0, -EPROTO},  {0, 0, -EPROTO},
		{100, 0, 0},   {101, 0, -EPROTO}, {UINT32_MAX, 0, -EPROTO},
		{16, 1, 0},    {16, 2, -EPROTO},  {16, 15, -EPROTO},
		{16, 0x31, 0},
	};
	struct qsc_wire_header header;
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct qsc_wire_header in = {
			.command = QSC_WIRE_RESET, .size = cases[i].size, .flags = cases[i].flags};

		assert_int_equal(qsc_wire_decode_header(&in, 100, &header), cases[i].expected);
	}
}

static void test_reply_errors(void **state)
{
	struct qsc_wire_header header = {.error = ENOMSG};

	assert_int_equal(qsc_wire_reply_error(&header), -ENOMSG);
	header.error = 0;
	assert_int_equal(qsc_wire_reply_error(&header), -EIO);
	header.error = 4096;
	assert_int_equal(qsc_wire_reply_error(&header), -EIO);
	header.error = UINT32_MAX;
	assert_int_equal(qsc_wire_reply_error(&header), -EIO);
}

static void test_command_names(void **state)
{
	assert_string_equal(qsc_wire_command_name(QSC_WIRE_MIG_DATA_WRITE), "MIG_DATA_WRITE");
	assert_string_equal(qsc_wire_command_name(0), "?");
	assert_string_equal(qsc_wire_command_name(14), "?");
	assert_string_equal(qsc_wire_command_name(UINT16_MAX), "?");
}

static void test_dma_map(void **state)
{
	const struct qsc_wire_dma_map good = {
		.argsz = 32, .flags = 3, .address = 4096, .size = 4096};
	struct qsc_wire_dma_map map;
	struct qsc_wire_dma_map bad;

	assert_int_equal(qsc_wire_decode_dma_map(&good, sizeof(good), false, &map), 0);
	assert_memory_equal(&map, &good, sizeof(good));
	assert_int_equal(qsc_wire_decode_dma_map(&good, 31, false, &map), -EINVAL);
	assert_int_equal(qsc_wire_decode_dma_map(&good, 33, false, &map), -EINVAL);
	bad = good;
	bad.flags |= QSC_WIRE_DMA_FLAG_PEER;
	assert_int_equal(qsc_wire_decode_dma_map(&bad, sizeof(bad), false, &map), -EINVAL);
	assert_int_equal(qsc_wire_decode_dma_map(&bad, sizeof(bad), true, &map), 0);
	/* The last page of the address space is one; one more is not. */
	bad = good;
	bad.address = UINT64_MAX - 4095;
	assert_int_equal(qsc_wire_decode_dma_map(&bad, sizeof(bad), false, &map), 0);
	bad.size = 8192;
	assert_int_equal(qsc_wire_decode_dma_map(&bad, sizeof(bad), false, &map), -EINVAL);
	bad = good;
	bad.offset = INT64_MAX & ~4095ULL;
	assert_int_equal(qsc_wire_decode_dma_map(&bad, sizeof(bad), false, &map), -EINVAL);
}

static void test_bitmap_size(void **state)
{
	static const struct {
		uint64_t length, page, expected;
	} cases[] = {
		{1, 4096, 8},
		{64UL * 4096, 4096, 8},
		{64UL * 4096 + 1, 4096, 16},
		{64ULL << 30, 4096, 2 << 20},
		{UINT64_MAX, 4096, 1ULL << 49},
		{0, 4096, 0},
		{1, 0, 0},
		{1, 4097, 0},
		{1, 2048, 0},
		{UINT64_MAX, 1ULL << 63, 8},
	};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++)
		assert_int_equal(qsc_wire_bitmap_size(cases[i].length, cases[i].page),
				 cases[i].expected);
}

/* ---- region info ---- */

static const struct qsc_region_info full = {
	.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_MMAP,
	.size = 1 << 20,
	.num_areas = 2,
	.areas = {{4096, 4096}, {65536, 65536}},
	.stopped_known = true,
	.stopped = QSC_VERDICT_DISCARD,
};

static void test_region_info(void **state)
{
	uint8_t body[QSC_WIRE_REGION_INFO_MAX];
	struct qsc_region_info info;
	uint64_t offset;
	uint32_t needed;
	size_t size = qsc_wire_encode_region_info(5, &full, 12288, UINT32_MAX, body);

	assert_int_equal(size, 32 + 16 + 2 * 16 + 16);
	assert_int_equal(qsc_wire_decode_region_info_reply(body, size, 5, &info, &offset), 0);
	assert_memory_equal(&info.areas, &full.areas, sizeof(info.areas));
	assert_int_equal(info.flags, full.flags);
	assert_int_equal(info.num_areas, 2);
	assert_true(info.stopped_known);
	assert_int_equal(info.stopped, QSC_VERDICT_DISCARD);
	assert_int_equal(offset, 12288);
	assert_int_equal(qsc_wire_decode_region_info_reply(body, size, 4, &info, &offset), -EINVAL);
	/* Without room for all of it: the fixed part, which says how much room. */
	assert_int_equal(qsc_wire_encode_region_info(5, &full, 0, (uint32_t)size - 1, body), 32);
	memcpy(&needed, body, sizeof(needed));
	assert_int_equal(needed, size);
}

/* A chain as a hostile peer would make it: change 32 bits of a good one. */
static int with(size_t at, uint32_t value)
{
	uint8_t body[QSC_WIRE_REGION_INFO_MAX];
	struct qsc_region_info info;
	uint64_t offset;
	size_t size = qsc_wire_encode_region_info(5, &full, 0, UINT32_MAX, body);
	/* In memory of exactly its size, so that a sanitizer sees a read behind it. */
	qsc_autofree uint8_t *exact = malloc(size);

	memcpy(body + at, &value, sizeof(value));
	memcpy(exact, body, size);
	return qsc_wire_decode_region_info_reply(exact, size, 5, &info, &offset);
}

static void test_hostile_chains(void **state)
{
	enum { CAP_OFFSET = 12, SPARSE = 32, STOPPED = 80 };

	assert_int_equal(with(CAP_OFFSET, 31), -EINVAL);
	assert_int_equal(with(CAP_OFFSET, 95), -EINVAL);
	assert_int_equal(with(CAP_OFFSET, UINT32_MAX), -EINVAL);
	assert_int_equal(with(CAP_OFFSET, 0), 0);
	assert_int_equal(with(STOPPED + 4, STOPPED), -EINVAL);
	assert_int_equal(with(STOPPED + 4, SPARSE), -EINVAL);
	assert_int_equal(with(STOPPED + 8, 999), -EINVAL);
	assert_int_equal(with(SPARSE + 8, 5), -EINVAL);
	assert_int_equal(with(SPARSE + 8, UINT32_MAX), -EINVAL);
	assert_int_equal(with(SPARSE + 16, 1), -EINVAL);
	assert_int_equal(with(SPARSE + 20, UINT32_MAX), -EINVAL);
	assert_int_equal(with(SPARSE + 24, 0), -EINVAL);
	/* Not known: another id, or another version of one that is. */
	assert_int_equal(with(STOPPED, 0x10007777), 0);
	assert_int_equal(with(SPARSE, 2 << 16 | QSC_WIRE_CAP_SPARSE_MMAP), 0);
}

/* More areas than can be told: the largest stay, in their order. */
static void test_many_areas(void **state)
{
	enum { COUNT = 12 };
	struct {
		struct qsc_wire_region_info fixed;
		uint16_t id, version;
		uint32_t next, count, reserved;
		struct qsc_mmap_area areas[COUNT];
	} reply = {
		.fixed = {.flags = VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS,
			  .cap_offset = sizeof(struct qsc_wire_region_info),
			  .size = COUNT << 16},
		.id = QSC_WIRE_CAP_SPARSE_MMAP,
		.version = 1,
		.count = COUNT,
	};
	/* In pages. */
	static const uint64_t sizes[COUNT] = {1, 5, 2, 9, 3, 3, 1, 7, 8, 2, 4, 6};
	static const uint64_t kept[QSC_MAX_MMAP_AREAS] = {5, 9, 3, 3, 7, 8, 4, 6};
	struct qsc_region_info info;
	uint64_t offset;

	(void)state;
	for (size_t i = 0; i < COUNT; i++)
		reply.areas[i] = (struct qsc_mmap_area){i << 16, sizes[i] * QSC_PAGE_SIZE};
	assert_int_equal(
		qsc_wire_decode_region_info_reply(&reply, sizeof(reply), 0, &info, &offset), 0);
	assert_int_equal(info.num_areas, QSC_MAX_MMAP_AREAS);
	for (size_t i = 0; i < QSC_MAX_MMAP_AREAS; i++)
		assert_int_equal(info.areas[i].size, kept[i] * QSC_PAGE_SIZE);
	/* Each is looked at, also one that is not kept. */
	reply.areas[0].offset = COUNT << 16;
	assert_int_equal(
		qsc_wire_decode_region_info_reply(&reply, sizeof(reply), 0, &info, &offset),
		-EINVAL);
}

/* ---- VERSION ---- */

static int decode(const char *json, struct qsc_wire_caps *caps)
{
	struct qsc_wire_version version;
	size_t size = 5 + strlen(json);
	/* Nothing behind it, so that a sanitizer notices who reads on. */
	char *body = test_calloc(1, size);
	int result;

	memcpy(body + 4, json, size - 4);
	result = qsc_wire_decode_version(body, size, &version, caps);
	test_free(body);
	return result;
}

static void test_version(void **state)
{
	const struct qsc_wire_version version = {0, 1};
	const struct qsc_wire_caps caps = {.max_msg_fds = 9,
					   .max_data_xfer_size = 1 << 16,
					   .max_dma_maps = 77,
					   .pgsizes = 4096 | 1ULL << 30,
					   .twin_socket = true,
					   .twin_fd_index = 2,
					   .write_multiple = true,
					   .quiesce = true};
	struct qsc_wire_version version_out;
	struct qsc_wire_caps out;
	uint8_t body[512];
	int n = qsc_wire_encode_version(&version, &caps, body, sizeof(body));

	assert_true(n > 0);
	assert_int_equal(qsc_wire_decode_version(body, (size_t)n, &version_out, &out), 0);
	assert_int_equal(version_out.minor, 1);
	assert_int_equal(out.max_msg_fds, caps.max_msg_fds);
	assert_int_equal(out.max_data_xfer_size, caps.max_data_xfer_size);
	assert_int_equal(out.max_dma_maps, caps.max_dma_maps);
	assert_int_equal(out.pgsizes, caps.pgsizes);
	assert_int_equal(out.twin_fd_index, 2);
	assert_true(out.twin_socket && out.write_multiple && out.quiesce);
	assert_int_equal(qsc_wire_encode_version(&version, &caps, body, 40), -EMSGSIZE);
	/* Nothing said: what the specification says then. */
	assert_int_equal(qsc_wire_decode_version(body, 4, &version_out, &out), 0);
	assert_int_equal(out.max_msg_fds, 1);
	assert_int_equal(out.max_data_xfer_size, 1 << 20);
	assert_false(out.twin_socket || out.write_multiple || out.quiesce);
	assert_int_equal(decode("{\"capabilities\":{\"new\":[1,{\"x\":2}]},\"other\":3}", &out), 0);
	assert_int_equal(decode("{\"capabilities\":{\"max_msg_fds\":99999999999}}", &out), 0);
	assert_int_equal(out.max_msg_fds, UINT32_MAX);
	assert_int_equal(decode("{\"capabilities\":{\"quiesce\":{\"version\":0}}}", &out), 0);
	assert_false(out.quiesce);
	assert_int_equal(decode("{\"capabilities\":{\"max_dma_maps\":1.5}}", &out), -EINVAL);
	assert_int_equal(decode("{", &out), -EINVAL);
	assert_int_equal(decode("{} {}", &out), -EINVAL);
	assert_int_equal(decode("{}//", &out), -EINVAL);
	assert_int_equal(decode("", &out), -EINVAL);
}

static void test_version_layout(void **state)
{
	const struct qsc_wire_version version = {0, 1};
	struct qsc_wire_caps caps = QSC_WIRE_CAPS_DEFAULT;
	struct qsc_wire_caps out;
	struct qsc_wire_version version_out;
	uint8_t body[QSC_WIRE_VERSION_MAX];
	uint32_t i;
	int n;

	/* As large as one can be: names that JSON makes twice as long, the largest numbers. */
	caps.quiesce = true;
	caps.twin_socket = true;
	caps.write_multiple = true;
	caps.pgsizes = INT64_MAX;
	memset(caps.layout.type, '"', QSC_LAYOUT_NAME - 1);
	caps.layout.num_parts = QSC_LAYOUT_PARTS;
	for (i = 0; i < QSC_LAYOUT_PARTS; i++) {
		struct qsc_layout_part *part = &caps.layout.parts[i];

		memset(part->name, '\\', QSC_LAYOUT_NAME - 1);
		part->kind = (enum qsc_layout_kind)(i % 3);
		part->version = UINT16_MAX;
		part->min_version = UINT16_MAX - 1;
		part->size = INT64_MAX - i;
	}
	n = qsc_wire_encode_version(&version, &caps, body, sizeof(body));
	assert_true(n > 0);
	assert_int_equal(qsc_wire_decode_version(body, (size_t)n, &version_out, &out), 0);
	assert_memory_equal(&out.layout, &caps.layout, sizeof(out.layout));
	/* Cut anywhere it is none. */
	for (i = 5; i < (uint32_t)n; i += 7)
		assert_true(qsc_wire_decode_version(body, i, &version_out, &out) < 0);
	/* Without our capability there is none. */
	caps.quiesce = false;
	n = qsc_wire_encode_version(&version, &caps, body, sizeof(body));
	assert_int_equal(qsc_wire_decode_version(body, (size_t)n, &version_out, &out), 0);
	assert_int_equal(out.layout.num_parts, 0);
	assert_string_equal(out.layout.type, "");
}

#define QUIESCE(rest)  "{\"capabilities\":{\"quiesce\":{\"version\":1" rest "}}}"
#define ONE_PART(rest) QUIESCE(",\"type\":\"t\",\"layout\":[{\"kind\":\"section\"" rest "}]")

static void test_version_hostile_layout(void **state)
{
	static const char *const bad[] = {
		QUIESCE(",\"type\":1"),
		QUIESCE(",\"type\":\"\\u001b[31m\""),
		QUIESCE(",\"type\":\"t\\u0000\""),
		QUIESCE(",\"type\":"
			"\"0123456789012345678901234567890123456789012345678901234567890123\""),
		QUIESCE(",\"layout\":[{\"kind\":\"block\",\"name\":\"b\"}]"),
		QUIESCE(",\"type\":\"t\",\"layout\":{}"),
		QUIESCE(",\"type\":\"t\",\"layout\":[1]"),
		QUIESCE(",\"type\":\"t\",\"layout\":[null]"),
		QUIESCE(",\"type\":\"t\",\"layout\":[{\"kind\":\"thing\",\"name\":\"b\"}]"),
		ONE_PART(""),
		ONE_PART(",\"name\":\"\""),
		ONE_PART(",\"name\":\"s\",\"version\":65536"),
		ONE_PART(",\"name\":\"s\",\"version\":-1"),
		ONE_PART(",\"name\":\"s\",\"version\":1,\"min_version\":2"),
		ONE_PART(",\"name\":\"s\",\"size\":-1"),
		ONE_PART(",\"name\":\"s\",\"size\":\"1\""),
	};
	struct qsc_wire_caps out;
	char many[4096];
	int used = snprintf(many, sizeof(many),
			    "{\"capabilities\":{\"quiesce\":{\"version\":1,"
			    "\"type\":\"t\",\"layout\":[");
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(bad); i++)
		assert_int_equal(decode(bad[i], &out), -EINVAL);
	for (i = 0; i <= QSC_LAYOUT_PARTS; i++)
		used += snprintf(many + used, sizeof(many) - (size_t)used,
				 "%s{\"kind\":\"block\",\"name\":\"b\"}", i ? "," : "");
	(void)snprintf(many + used, sizeof(many) - (size_t)used, "]}}}");
	assert_int_equal(decode(many, &out), -EINVAL);
	assert_int_equal(decode(QUIESCE(",\"type\":\"t\",\"new\":[]"), &out), 0);
	assert_string_equal(out.layout.type, "t");
	assert_int_equal(decode(ONE_PART(",\"name\":\"s\",\"version\":2,\"new\":0"), &out), 0);
	assert_int_equal(out.layout.parts[0].version, 2);
}

/* ---- stream ---- */

#define MESSAGES 20

/* Message i: i bytes of body that say i, and one descriptor, 100 + i, where i is a third. */
static size_t put(uint8_t *at, unsigned int i)
{
	struct qsc_wire_header header = {.id = (uint16_t)i,
					 .command = QSC_WIRE_RESET,
					 .size = (uint32_t)(sizeof(header) + i)};

	memcpy(at, &header, sizeof(header));
	memset(at + sizeof(header), (int)i, i);
	return header.size;
}

static unsigned int take(struct qsc_wire_stream *stream, unsigned int expected)
{
	struct qsc_message message;
	int fds[4];
	unsigned int seen = 0;
	unsigned int i;

	while (qsc_wire_stream_scan(stream, &message) > 0) {
		assert_int_equal(message.header.id, expected + seen);
		assert_int_equal(message.size, expected + seen);
		for (i = 0; i < message.size; i++)
			assert_int_equal(message.body[i], expected + seen);
		assert_int_equal(qsc_wire_stream_take_fds(stream, message.start, fds, 4),
				 message.header.id % 3 == 0);
		if (message.header.id % 3 == 0)
			assert_int_equal(fds[0], 100 + message.header.id);
		qsc_wire_stream_drop(stream, &message);
		seen++;
	}
	return seen;
}

/* Every size of piece; a descriptor comes with the first byte of its message, as a kernel has it.
 */
static void test_every_split(void **state)
{
	uint8_t buffer[64];
	uint8_t bytes[MESSAGES * 40];
	size_t starts[MESSAGES + 1] = {0};
	struct qsc_wire_stream stream;
	size_t piece;
	unsigned int i;

	for (i = 0; i < MESSAGES; i++)
		starts[i + 1] = starts[i] + put(bytes + starts[i], i);
	for (piece = 1; piece < 64; piece++) {
		unsigned int seen = 0;
		unsigned int next = 0;
		size_t at = 0;

		qsc_wire_stream_init(&stream, buffer, sizeof(buffer), 40);
		while (at < starts[MESSAGES]) {
			void *where;
			size_t n = qsc_wire_stream_space(&stream, false, &where);
			int fd = -1;

			n = qsc_min_u64(qsc_min_u64(n, piece), starts[MESSAGES] - at);
			/* What came before is glued to the bytes of a descriptor, what follows is
			 * not. */
			if (next < MESSAGES && starts[next] < at + n) {
				n = qsc_min_u64(n, starts[next + 1] - at);
				fd = 100 + (int)next;
			}
			memcpy(where, bytes + at, n);
			assert_int_equal(qsc_wire_stream_received(&stream, n, &fd, fd >= 0), 0);
			if (fd >= 0)
				next += 3;
			at += n;
			seen += take(&stream, seen);
		}
		assert_int_equal(seen, MESSAGES);
		assert_int_equal(stream.num_fds, 0);
	}
}

/* A reply is found behind commands that wait, and they keep their order and descriptors. */
static void test_kept_messages(void **state)
{
	uint8_t buffer[256];
	struct qsc_wire_stream stream;
	struct qsc_message message;
	void *where;
	size_t size;
	int fd = 7;
	int out;

	qsc_wire_stream_init(&stream, buffer, sizeof(buffer), 64);
	qsc_wire_stream_space(&stream, false, &where);
	size = put(where, 1);
	assert_int_equal(qsc_wire_stream_received(&stream, size, &fd, 1), 0);
	qsc_wire_stream_space(&stream, false, &where);
	size = put(where, 2);
	size += put((uint8_t *)where + size, 3);
	assert_int_equal(qsc_wire_stream_received(&stream, size, NULL, 0), 0);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 1);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 1);
	qsc_wire_stream_drop(&stream, &message);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 1);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 0);
	assert_int_equal(qsc_wire_stream_first(&stream, &message), 1);
	assert_int_equal(message.header.id, 1);
	assert_int_equal(qsc_wire_stream_take_fds(&stream, message.start, &out, 1), 1);
	assert_int_equal(out, 7);
	qsc_wire_stream_drop(&stream, &message);
	assert_int_equal(qsc_wire_stream_first(&stream, &message), 1);
	assert_int_equal(message.header.id, 3);
	qsc_wire_stream_drop(&stream, &message);
	assert_int_equal(qsc_wire_stream_first(&stream, &message), 0);
}

/* Who receives has been told where: nothing may move that place meanwhile. */
static void test_drop_during_a_receive(void **state)
{
	uint8_t buffer[256];
	struct qsc_wire_stream stream;
	struct qsc_message message;
	void *where;

	qsc_wire_stream_init(&stream, buffer, sizeof(buffer), 64);
	qsc_wire_stream_space(&stream, false, &where);
	assert_int_equal(qsc_wire_stream_received(&stream, put(where, 1), NULL, 0), 0);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 1);
	qsc_wire_stream_space(&stream, true, &where);
	qsc_wire_stream_drop(&stream, &message);
	assert_int_equal(qsc_wire_stream_received(&stream, put(where, 2), NULL, 0), 0);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), 1);
	assert_int_equal(message.header.id, 2);
	assert_int_equal(message.body[0], 2);
}

static void test_stream_limits(void **state)
{
	static const struct qsc_wire_header none = {.size = sizeof(none)};
	uint8_t buffer[64];
	struct qsc_wire_stream stream;
	struct qsc_message message;
	int fds[QSC_STREAM_MAX_FDS + 1];
	void *where;

	memset(fds, 0, sizeof(fds));
	qsc_wire_stream_init(&stream, buffer, sizeof(buffer), 40);
	qsc_wire_stream_space(&stream, false, &where);
	/* A command that marks "done with" is none that a peer may send. */
	memcpy(where, &none, sizeof(none));
	assert_int_equal(
		qsc_wire_stream_received(&stream, sizeof(none), fds, QSC_STREAM_MAX_FDS + 1),
		-EPROTO);
	assert_int_equal(stream.num_fds, 0);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), -EPROTO);
	qsc_wire_stream_init(&stream, buffer, sizeof(buffer), 40);
	qsc_wire_stream_space(&stream, false, &where);
	put(where, 25);
	assert_int_equal(qsc_wire_stream_received(&stream, 16, fds, QSC_STREAM_MAX_FDS), 0);
	assert_int_equal(qsc_wire_stream_scan(&stream, &message), -EPROTO);
	assert_int_equal(qsc_wire_stream_received(&stream, 1, fds, 1), -EPROTO);
	assert_int_equal(qsc_wire_stream_take_any_fd(&stream), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_reply_errors),
		cmocka_unit_test(test_command_names),
		cmocka_unit_test(test_dma_map),
		cmocka_unit_test(test_bitmap_size),
		cmocka_unit_test(test_region_info),
		cmocka_unit_test(test_hostile_chains),
		cmocka_unit_test(test_many_areas),
		cmocka_unit_test(test_version),
		cmocka_unit_test(test_version_layout),
		cmocka_unit_test(test_version_hostile_layout),
		cmocka_unit_test(test_every_split),
		cmocka_unit_test(test_kept_messages),
		cmocka_unit_test(test_drop_during_a_receive),
		cmocka_unit_test(test_stream_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
