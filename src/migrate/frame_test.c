/* SPDX-License-Identifier: MIT */
/* Frames and shapes: what goes in comes out, and nothing else is accepted. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "migrate/frame.h"
#include "migrate/shape.h"

static void test_frame_round_trip(void **state)
{
	const struct qsc_frame frame = {QSC_FRAME_ZERO, 0, 3, 0, 0x1000, 0x2000, 42};
	uint8_t bytes[QSC_FRAME_SIZE];
	struct qsc_frame out;

	(void)state;
	qsc_frame_encode(&frame, bytes);
	assert_int_equal(bytes[0], QSC_FRAME_ZERO);
	assert_int_equal(bytes[17], 0x10);
	assert_int_equal(qsc_frame_decode(bytes, &out, false), 0);
	assert_memory_equal(&out, &frame, sizeof(frame));
}

static void test_frame_refuses_what_no_frame_is(void **state)
{
	uint8_t bytes[QSC_FRAME_SIZE] = {0};
	struct qsc_frame out;
	uint32_t type;

	(void)state;
	assert_int_equal(qsc_frame_decode(bytes, &out, false), -EPROTO);
	for (type = 1; type <= QSC_FRAME_ECHO; type++) {
		qsc_put_u32(bytes, type);
		qsc_put_u32(bytes + 4, 0);
		assert_int_equal(qsc_frame_decode(bytes, &out, false), 0);
		assert_string_not_equal(qsc_frame_name(type), "?");
		qsc_put_u32(bytes + 4, UINT32_MAX);
		assert_int_equal(qsc_frame_decode(bytes, &out, false), -EPROTO);
	}
	qsc_put_u32(bytes, QSC_FRAME_ECHO + 1);
	qsc_put_u32(bytes + 4, 0);
	assert_int_equal(qsc_frame_decode(bytes, &out, false), -EPROTO);
	/* A field that READY does not have. */
	qsc_put_u32(bytes, QSC_FRAME_READY);
	qsc_put_u64(bytes + 16, 1);
	assert_int_equal(qsc_frame_decode(bytes, &out, false), -EPROTO);
}

static void test_a_newer_minor_version_is_read(void **state)
{
	struct qsc_frame frame = {.type = QSC_FRAME_OPTIONAL | 77, .size = 5, .offset = 1};
	uint8_t bytes[QSC_FRAME_SIZE];
	struct qsc_frame out;

	(void)state;
	qsc_frame_encode(&frame, bytes);
	assert_int_equal(qsc_frame_decode(bytes, &out, false), 0);
	assert_true(qsc_frame_is_skipped(&out));
	qsc_put_u32(bytes + 4, QSC_FRAME_MAX_DATA + 1);
	assert_int_equal(qsc_frame_decode(bytes, &out, true), -EPROTO);
	/* Not one that has to be understood. */
	frame.type = 77;
	qsc_frame_encode(&frame, bytes);
	assert_int_equal(qsc_frame_decode(bytes, &out, true), -EPROTO);
	/* A field that READY does not have yet. */
	frame = (struct qsc_frame){.type = QSC_FRAME_READY, .offset = 1};
	qsc_frame_encode(&frame, bytes);
	assert_int_equal(qsc_frame_decode(bytes, &out, true), 0);
	assert_false(qsc_frame_is_skipped(&out));
	assert_int_equal(qsc_frame_decode(bytes, &out, false), -EPROTO);
	/* Not a payload, which would be taken for the next frame. */
	qsc_put_u32(bytes + 4, 1);
	assert_int_equal(qsc_frame_decode(bytes, &out, true), -EPROTO);
}

static void test_digest_covers_header_and_payload(void **state)
{
	struct qsc_frame frame = {.type = QSC_FRAME_PAGES, .size = 4096, .index = 1};
	uint8_t payload[4096] = {0};
	uint64_t digest = qsc_frame_digest(&frame, payload);

	(void)state;
	payload[4095] = 1;
	assert_true(qsc_frame_digest(&frame, payload) != digest);
	payload[4095] = 0;
	frame.index = 2;
	assert_true(qsc_frame_digest(&frame, payload) != digest);
	frame.index = 1;
	assert_true(qsc_frame_digest(&frame, payload) == digest);
}

static void test_digest_is_that_of_the_pieces(void **state)
{
	struct qsc_frame frame = {.type = QSC_FRAME_DEVICE_DATA, .size = 4096, .index = 1};
	qsc_autofree uint8_t *payload = malloc(4096);
	struct iovec pieces[3];
	XXH3_state_t *hash = XXH3_createState();
	uint64_t digest;
	size_t i;

	(void)state;
	assert_non_null(payload);
	assert_non_null(hash);
	for (i = 0; i < 4096; i++)
		payload[i] = (uint8_t)(i * 7);
	digest = qsc_frame_digest(&frame, payload);
	pieces[0] = (struct iovec){payload, 24};
	pieces[1] = (struct iovec){payload + 24, 4000};
	pieces[2] = (struct iovec){payload + 4024, 72};
	assert_true(qsc_frame_digest_pieces(&frame, pieces, 3, hash) == digest);
	/* Nothing of the last frame is left in the hash. */
	pieces[0].iov_len = 4096;
	assert_true(qsc_frame_digest_pieces(&frame, pieces, 1, hash) == digest);
	payload[4095]++;
	assert_true(qsc_frame_digest_pieces(&frame, pieces, 1, hash) != digest);
	(void)XXH3_freeState(hash);
}

static void test_chain_tells_order_and_number(void **state)
{
	const struct qsc_frame first = {.digest = 0x1111};
	const struct qsc_frame second = {.digest = 0x2222};
	uint64_t both = qsc_frame_chain(qsc_frame_chain(0, &first), &second);

	(void)state;
	assert_true(both == qsc_frame_chain(qsc_frame_chain(0, &first), &second));
	assert_true(both != qsc_frame_chain(qsc_frame_chain(0, &second), &first));
	assert_true(both != qsc_frame_chain(0, &second));
	assert_true(both != qsc_frame_chain(both, &second));
}

static void make_shape(struct qsc_shape *shape)
{
	shape->members = calloc(2, sizeof(*shape->members));
	shape->memory = calloc(1, sizeof(*shape->memory));
	/* In words that the analyzer knows. */
	if (!shape->members || !shape->memory)
		abort();
	shape->num_members = 2;
	shape->num_memory = 1;
	strcpy(shape->members[0].name, "nic");
	strcpy(shape->members[1].name, "disk");
	shape->members[0].num_regions = 2;
	shape->members[0].regions[1].size = 4096;
	shape->members[1].num_irqs = QSC_SHAPE_IRQS;
	shape->members[1].irq_counts[QSC_SHAPE_IRQS - 1] = 7;
	shape->memory[0].size = 1 << 20;
}

static void test_shape_round_trip_and_differences(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape copy = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *bytes = NULL;
	char text[1000];
	char small[20];
	size_t size;

	(void)state;
	make_shape(&shape);
	assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
	assert_int_equal(qsc_shape_decode(&copy, bytes, size), 0);
	assert_int_equal(qsc_shape_compare(&shape, &copy, text, sizeof(text)), 0);
	assert_string_equal(text, "");
	strcpy(copy.members[0].name, "nix");
	copy.members[0].migration_flags = 7;
	copy.members[0].regions[1].size = 8192;
	copy.members[1].irq_counts[0] = 1;
	copy.members[1].ids[0] = 0x12345678;
	copy.memory[0].address = 4096;
	assert_int_equal(qsc_shape_compare(&shape, &copy, text, sizeof(text)), 6);
	assert_non_null(strstr(
		text,
		"member 0 is device 'nix' at the source and 'nic' at the destination; 'nic' has"));
	assert_non_null(strstr(text, "12345678"));
	/* However little room there is, all are counted. */
	assert_int_equal(qsc_shape_compare(&shape, &copy, small, sizeof(small)), 6);
	assert_true(strlen(small) < sizeof(small));
}

static void test_shape_refuses_cut_and_padded_bytes(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *bytes = NULL;
	size_t size;
	size_t cut;

	(void)state;
	make_shape(&shape);
	assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
	assert_non_null(bytes);
	for (cut = 0; cut < size; cut++) {
		qsc_cleanup(qsc_shape_release) struct qsc_shape out = QSC_SHAPE_NONE;
		/* Of the exact size, so that a read behind it is seen. */
		qsc_autofree uint8_t *part = malloc(cut + 1);

		assert_non_null(part);
		memcpy(part, bytes, cut);
		assert_int_equal(qsc_shape_decode(&out, part, cut), -EPROTO);
	}
	qsc_put_u32(bytes, UINT32_MAX);
	assert_int_equal(qsc_shape_decode(&(struct qsc_shape)QSC_SHAPE_NONE, bytes, size), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_round_trip),
		cmocka_unit_test(test_frame_refuses_what_no_frame_is),
		cmocka_unit_test(test_a_newer_minor_version_is_read),
		cmocka_unit_test(test_digest_covers_header_and_payload),
		cmocka_unit_test(test_digest_is_that_of_the_pieces),
		cmocka_unit_test(test_chain_tells_order_and_number),
		cmocka_unit_test(test_shape_round_trip_and_differences),
		cmocka_unit_test(test_shape_refuses_cut_and_padded_bytes),
	};

	return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
