/* SPDX-License-Identifier: MIT */
/* Shapes: bytes and back, hostile bytes, and every difference between two. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/frame.h"
#include "migrate/items.h"
#include "migrate/shape.h"
#include "set/fake.h"

static void fill(struct qsc_shape *shape)
{
	struct qsc_shape_member *nic;

	assert_int_equal(qsc_shape_allocate(shape, 2, 1), 0);
	nic = &shape->members[0];
	*nic = (struct qsc_shape_member){
		.name = "nic0",
		.migration_flags = 7,
		.device_flags = 3,
		.ids = {0x1234, 0x2000001, 5},
		.num_regions = 2,
		.num_irqs = 3,
		.regions = {{4096, 3}, {1 << 20, 1}},
		.irq_counts = {1, 0, 8},
		.layout = {.type = "nic",
			   .num_parts = 2,
			   .parts = {{"queues", QSC_LAYOUT_SECTION, 4, 2, 100},
				     {"memory", QSC_LAYOUT_BLOCK, 0, 0, 1 << 20}}},
	};
	/* One that does not say what it is. */
	shape->members[1] = (struct qsc_shape_member){.name = "disk", .migration_flags = 1};
	shape->memory[0].address = 1ULL << 40;
	shape->memory[0].size = 8192;
	assert_int_equal(qsc_shape_allocate_peers(shape, 2), 0);
	shape->peers[0] = (struct qsc_shape_peer){0, 1, 2, QSC_DMA_READ, 0x10000, 0x1000, 0x2000};
	shape->peers[1] = (struct qsc_shape_peer){1, 0,	   1, QSC_DMA_READ | QSC_DMA_WRITE,
						  0, 4096, 0};
	shape->tells_user = true;
	(void)snprintf(shape->user, sizeof(shape->user), "a guest");
}

static int decode(const uint8_t *bytes, size_t size, struct qsc_shape *shape)
{
	/* In memory of exactly its size, so that a sanitizer sees a read behind it. */
	qsc_autofree uint8_t *exact = malloc(size + (size == 0));

	*shape = (struct qsc_shape)QSC_SHAPE_NONE;
	if (size)
		memcpy(exact, bytes, size);
	return qsc_shape_decode(shape, exact, size);
}

static void expect(const uint8_t *bytes, size_t size, int result)
{
	struct qsc_shape shape;

	assert_int_equal(decode(bytes, size, &shape), result);
	qsc_shape_release(&shape);
}

static void test_bytes_and_back(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape back = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *bytes = NULL;
	char text[256];
	size_t size;

	(void)state;
	fill(&shape);
	assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
	assert_int_equal(decode(bytes, size, &back), 0);
	assert_int_equal(back.num_members, 2);
	assert_memory_equal(back.members, shape.members, 2 * sizeof(*shape.members));
	assert_memory_equal(back.memory, shape.memory, sizeof(*shape.memory));
	assert_true(back.tells_peers && back.tells_user);
	assert_int_equal(back.num_peers, 2);
	assert_memory_equal(back.peers, shape.peers, 2 * sizeof(*shape.peers));
	assert_string_equal(back.user, "a guest");
	assert_int_equal(qsc_shape_compare(&shape, &back, text, sizeof(text)), 0);
	assert_string_equal(text, "");
}

/* The largest there can be still is an offer. */
static void test_largest(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *bytes = NULL;
	size_t size;
	uint32_t i;
	uint32_t k;

	(void)state;
	assert_int_equal(qsc_shape_allocate(&shape, QSC_SHAPE_MEMBERS, QSC_SHAPE_MEMORY), 0);
	for (i = 0; i < QSC_SHAPE_MEMBERS; i++) {
		struct qsc_shape_member *member = &shape.members[i];

		memset(member->name, 'n', sizeof(member->name) - 1);
		memset(member->layout.type, 't', QSC_LAYOUT_NAME - 1);
		member->num_regions = QSC_SHAPE_REGIONS;
		member->num_irqs = QSC_SHAPE_IRQS;
		member->layout.num_parts = QSC_LAYOUT_PARTS;
		for (k = 0; k < QSC_LAYOUT_PARTS; k++)
			memset(member->layout.parts[k].name, 'p', QSC_LAYOUT_NAME - 1);
	}
	assert_int_equal(qsc_shape_allocate_peers(&shape, QSC_SHAPE_PEERS), 0);
	for (i = 0; i < QSC_SHAPE_PEERS; i++)
		shape.peers[i].iova = i;
	shape.tells_user = true;
	memset(shape.user, 'u', sizeof(shape.user) - 1);
	assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
	assert_true(size <= QSC_FRAME_MAX_OFFER);
	expect(bytes, size, 0);
}

static void expect_difference(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			      unsigned int count, const char *words)
{
	char text[1024];

	assert_int_equal(qsc_shape_compare(ours, theirs, text, sizeof(text)), count);
	if (!strstr(text, words))
		fail_msg("no '%s' in '%s'", words, text);
}

/* The source is "theirs". */
static void test_SET_3_peers_that_differ(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape ours = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape theirs = QSC_SHAPE_NONE;

	(void)state;
	fill(&ours);
	fill(&theirs);
	theirs.peers[0].flags |= QSC_DMA_WRITE;
	expect_difference(&ours, &theirs, 1,
			  "at IOVA 0x10000 device 'nic0' has 0x1000 bytes of region 2 of 'disk' "
			  "from 0x2000 on, to read and write at the source and 0x1000 bytes of "
			  "region 2 of 'disk' from 0x2000 on, to read at the destination");
	theirs.peers[0].iova = 0x20000;
	expect_difference(&ours, &theirs, 2,
			  "at IOVA 0x20000 device 'nic0' has 0x1000 bytes of region 2 of 'disk' "
			  "from 0x2000 on, to read and write at the source and nothing at the "
			  "destination");
	theirs.num_peers = 0;
	expect_difference(&ours, &theirs, 2, "device 'disk' has nothing at the source and 0x1000");
	theirs.tells_peers = false;
	expect_difference(&ours, &theirs, 0, "");
}

static void test_users_that_differ(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape ours = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape theirs = QSC_SHAPE_NONE;

	(void)state;
	fill(&ours);
	fill(&theirs);
	(void)snprintf(theirs.user, sizeof(theirs.user), "another");
	expect_difference(&ours, &theirs, 1,
			  "the user is another at the source and a guest at the destination");
	theirs.user[0] = '\0';
	expect_difference(&ours, &theirs, 1, "is one that says nothing of itself at the source");
	theirs.tells_user = false;
	expect_difference(&ours, &theirs, 0, "");
}

static void put_peer(struct qsc_items *items, uint32_t member, uint32_t peer, uint64_t iova)
{
	qsc_items_put_u32(items, member);
	qsc_items_put_u32(items, peer);
	qsc_items_put_u32(items, 0);
	qsc_items_put_u32(items, QSC_DMA_READ);
	qsc_items_put_u64(items, iova);
	qsc_items_put_u64(items, 4096);
	qsc_items_put_u64(items, 0);
}

/* Behind a shape without them: peers of nobody, out of order, twice, or cut off. */
static void test_peers_that_cannot_be(void **state)
{
	static const struct {
		uint32_t peer;
		uint64_t second;
		size_t less;
		int times;
		int result;
	} cases[] = {
		{1, 4096, 0, 1, 0},	  {2, 4096, 0, 1, -EPROTO}, {1, 0, 0, 1, -EPROTO},
		{1, 4096, 8, 1, -EPROTO}, {1, 4096, 0, 2, -EPROTO},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
		struct qsc_items items = {.bytes = NULL};
		uint8_t *bytes;
		size_t begin;
		size_t size;
		int k;

		fill(&shape);
		shape.tells_peers = false;
		assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
		qsc_items_put(&items, bytes, size);
		free(bytes);
		for (k = 0; k < cases[i].times; k++) {
			begin = qsc_items_begin(&items, QSC_ITEM_OPTIONAL | 4);
			put_peer(&items, 0, cases[i].peer, 0);
			put_peer(&items, 0, 0, cases[i].second);
			items.size -= cases[i].less;
			qsc_items_end(&items, begin);
		}
		expect(items.bytes, items.size, cases[i].result);
		free(items.bytes);
	}
}

static void test_cut_and_altered_bytes(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	qsc_autofree uint8_t *bytes = NULL;
	/* What an older version leaves out may be missing: peers, and what the user is. */
	size_t peers = QSC_ITEM_SIZE + 2 * 40;
	size_t user = QSC_ITEM_SIZE + strlen("a guest");
	size_t size;
	size_t i;
	int bit;

	(void)state;
	fill(&shape);
	assert_int_equal(qsc_shape_encode(&shape, &bytes, &size), 0);
	for (i = 0; i < size; i++)
		expect(bytes, i, i == size - peers || i == size - peers - user ? 0 : -EPROTO);
	/* Altered it may be another one, within the limits; it is never read behind its end. */
	for (i = 0; i < size; i++) {
		for (bit = 0; bit < 8; bit++) {
			qsc_cleanup(qsc_shape_release) struct qsc_shape other = QSC_SHAPE_NONE;
			char text[64];

			bytes[i] ^= (uint8_t)(1 << bit);
			if (decode(bytes, size, &other) == 0) {
				assert_true(other.num_members <= QSC_SHAPE_MEMBERS);
				assert_true(other.num_memory <= QSC_SHAPE_MEMORY);
				(void)qsc_shape_compare(&shape, &other, text, sizeof(text));
				assert_true(memchr(text, '\0', sizeof(text)) != NULL);
			}
			bytes[i] ^= (uint8_t)(1 << bit);
		}
	}
}

/* What a member is made of, with something changed or added by `how`. */
enum how {
	AS_IT_IS,
	UNKNOWN,
	UNKNOWN_OPTIONAL,
	NAME_TWICE,
	NO_IRQS,
	LONG_NAME,
	NUL_IN_NAME,
	MANY_REGIONS,
	MANY_IRQS,
	MANY_PARTS,
	PART_WITHOUT_TYPE,
	BAD_KIND,
	LONG_FLAGS,
};

static void put_numbers(struct qsc_items *items, uint16_t tag, uint32_t count)
{
	size_t begin = qsc_items_begin(items, tag);

	while (count--)
		qsc_items_put_u32(items, 1);
	qsc_items_end(items, begin);
}

static void put_part(struct qsc_items *items, uint32_t kind)
{
	size_t begin = qsc_items_begin(items, 7);

	qsc_items_put_u32(items, kind);
	qsc_items_put_u32(items, 2);
	qsc_items_put_u32(items, 1);
	qsc_items_put_u64(items, 8);
	qsc_items_put_text(items, 1, "part");
	qsc_items_put_text(items, QSC_ITEM_OPTIONAL | 9, "new");
	qsc_items_end(items, begin);
}

static void put_member(struct qsc_items *items, enum how how)
{
	size_t begin = qsc_items_begin(items, 1);
	size_t name;
	int i;

	qsc_items_put_text(
		items, 1,
		how == LONG_NAME
			? "0123456789012345678901234567890123456789012345678901234567890123"
			: "na\x1bme");
	if (how == NAME_TWICE)
		qsc_items_put_text(items, 1, "name");
	if (how == NUL_IN_NAME) {
		name = qsc_items_begin(items, 6);
		qsc_items_put(items, "a\0b", 3);
		qsc_items_end(items, name);
	}
	put_numbers(items, 2, how == LONG_FLAGS ? 3 : 2);
	put_numbers(items, 3, 3);
	put_numbers(items, 4, 3 * (how == MANY_REGIONS ? QSC_SHAPE_REGIONS + 1 : 1));
	if (how != NO_IRQS)
		put_numbers(items, 5, how == MANY_IRQS ? QSC_SHAPE_IRQS + 1 : 1);
	if (how != PART_WITHOUT_TYPE && how != NUL_IN_NAME)
		qsc_items_put_text(items, 6, "type");
	for (i = 0; i < (how == MANY_PARTS ? QSC_LAYOUT_PARTS + 1 : 1); i++)
		put_part(items, how == BAD_KIND ? 3 : 1);
	if (how == UNKNOWN || how == UNKNOWN_OPTIONAL)
		qsc_items_put_text(items, how == UNKNOWN ? 100 : QSC_ITEM_OPTIONAL | 100, "new");
	qsc_items_end(items, begin);
}

static void test_what_is_taken_and_refused(void **state)
{
	enum how how;

	(void)state;
	for (how = AS_IT_IS; how <= LONG_FLAGS; how++) {
		qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
		struct qsc_items items = {.bytes = NULL};
		bool good = how == AS_IT_IS || how == UNKNOWN_OPTIONAL;

		put_member(&items, how);
		qsc_items_put_text(&items, QSC_ITEM_OPTIONAL | 3, "new");
		qsc_items_put_text(&items, 2, "");
		assert_int_equal(decode(items.bytes, items.size, &shape), good ? 0 : -EPROTO);
		if (good) {
			assert_string_equal(shape.members[0].name, "na?me");
			assert_string_equal(shape.members[0].layout.parts[0].name, "part");
		}
		free(items.bytes);
	}
}

static void test_sequences_that_cannot_be(void **state)
{
	struct qsc_items items = {.bytes = NULL};
	uint32_t i;

	(void)state;
	put_member(&items, AS_IT_IS);
	expect(items.bytes, items.size, -EPROTO); /* without memory */
	qsc_items_put_text(&items, 2, "");
	expect(items.bytes, items.size, 0);
	qsc_items_put_text(&items, 2, "");
	expect(items.bytes, items.size, -EPROTO); /* memory twice */
	items.size = 0;
	qsc_items_put_text(&items, 2, "0123456789");
	expect(items.bytes, items.size, -EPROTO); /* no whole region */
	items.size = 0;
	put_numbers(&items, 2, 4 * (QSC_SHAPE_MEMORY + 1));
	expect(items.bytes, items.size, -EPROTO);
	items.size = 0;
	qsc_items_put_text(&items, 2, "");
	for (i = 0; i < QSC_SHAPE_MEMBERS; i++)
		put_member(&items, AS_IT_IS);
	expect(items.bytes, items.size, 0);
	put_member(&items, AS_IT_IS);
	expect(items.bytes, items.size, -EPROTO);
	items.size = 0;
	qsc_items_put_text(&items, 2, "");
	qsc_items_put_text(&items, 3, "");
	expect(items.bytes, items.size, -EPROTO); /* not known and not optional */
	items.size = 0;
	qsc_items_put_text(&items, 2, "");
	items.bytes[2] = 1; /* behind the tag there is zero */
	expect(items.bytes, items.size, -EPROTO);
	free(items.bytes);
}

static void test_every_difference_is_listed(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape here = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape there = QSC_SHAPE_NONE;
	static const char *const wanted[] = {
		"'nic0' has migration flags 5 at the source and 7 at the destination",
		"'nic0' has device flags 0x2 at the source and 0x3 at the destination",
		"PCI vendor and device of 'nic0' is 00009999 at the source and 00001234 at the "
		"destination",
		"region 0 of 'nic0' has 0x2000 bytes at the source and 0x1000 at the destination",
		"region 1 of 'nic0' has access flags 0x3 at the source and 0x1 at the destination",
		"interrupt index 2 of 'nic0' has 4 vectors at the source and 8 at the destination",
		"'nic0': section queues has version 5 at the source, and 2 to 4 can be loaded at "
		"the destination",
		"'nic0': block memory has 4096 bytes at the source and 1048576 at the destination",
		"member 1 is device 'disc' at the source and 'disk' at the destination",
		"memory region 0 is 0x1000 bytes at 0x10000000000 at the source and 0x2000 bytes "
		"at 0x",
	};
	char text[2048];
	size_t i;

	(void)state;
	fill(&here);
	fill(&there);
	there.members[0].migration_flags = 5;
	there.members[0].device_flags = 2;
	there.members[0].ids[0] = 0x9999;
	there.members[0].regions[0].size = 8192;
	there.members[0].regions[1].flags = 3;
	there.members[0].irq_counts[2] = 4;
	there.members[0].layout.parts[0].version = 5;
	there.members[0].layout.parts[1].size = 4096;
	there.members[1].name[3] = 'c';
	there.memory[0].size = 4096;
	assert_int_equal(qsc_shape_compare(&here, &there, text, sizeof(text)),
			 QSC_ARRAY_SIZE(wanted));
	for (i = 0; i < QSC_ARRAY_SIZE(wanted); i++)
		assert_non_null(strstr(text, wanted[i]));
	assert_null(strstr(text, "more"));
	/* Counts: of members with the names of those that are missing, of regions, of memory. */
	qsc_shape_release(&there);
	fill(&there);
	there.num_members = 1;
	there.members[0].num_regions = 1;
	there.members[0].num_irqs = 1;
	there.num_memory = 0;
	assert_int_equal(qsc_shape_compare(&here, &there, text, sizeof(text)), 5);
	assert_non_null(
		strstr(text, "the set has 1 devices at the source and 2 at the destination"));
	assert_non_null(strstr(
		text, "member 1, device 'disk' at the destination, is missing at the source"));
	assert_int_equal(qsc_shape_compare(&there, &here, text, sizeof(text)), 5);
	assert_non_null(strstr(
		text, "member 1, device 'disk' at the source, is missing at the destination"));
}

static void test_versions_that_can_be_loaded(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape here = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape there = QSC_SHAPE_NONE;
	char text[256];

	(void)state;
	fill(&here);
	fill(&there);
	there.members[0].layout.parts[0].version = 2;
	there.members[0].layout.parts[0].size = 60;
	assert_int_equal(qsc_shape_compare(&here, &there, text, sizeof(text)), 0);
	/* The other way round it is too new. */
	assert_int_equal(qsc_shape_compare(&there, &here, text, sizeof(text)), 1);
	/* Who does not say is not refused. */
	there.members[0].layout = (struct qsc_layout){.num_parts = 0};
	assert_int_equal(qsc_shape_compare(&here, &there, text, sizeof(text)), 0);
}

/* However many there are and however long the text may be: whole reasons, and how many more. */
static void test_more_than_fit(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape here = QSC_SHAPE_NONE;
	qsc_cleanup(qsc_shape_release) struct qsc_shape there = QSC_SHAPE_NONE;
	char text[2048];
	uint32_t i;
	size_t room;

	(void)state;
	assert_int_equal(qsc_shape_allocate(&here, QSC_SHAPE_MEMBERS, 0), 0);
	assert_int_equal(qsc_shape_allocate(&there, QSC_SHAPE_MEMBERS, 0), 0);
	for (i = 0; i < QSC_SHAPE_MEMBERS; i++)
		there.members[i].migration_flags = 1;
	for (room = 64; room <= sizeof(text); room++) {
		unsigned int listed = 0;
		unsigned int more = 0;
		const char *at;

		memset(text, 'x', sizeof(text));
		assert_int_equal(qsc_shape_compare(&here, &there, text, room), QSC_SHAPE_MEMBERS);
		assert_true(strlen(text) < room);
		for (at = text;
		     (at = strstr(
			      at,
			      "'' has migration flags 1 at the source and 0 at the destination"));
		     at++)
			listed++;
		at = strstr(text, "and ");
		for (; at; at = strstr(at + 1, "and "))
			(void)sscanf(at, "and %u more", &more);
		if (!listed)
			assert_int_equal(sscanf(text, "%u more", &more), 1);
		assert_int_equal(listed + more, QSC_SHAPE_MEMBERS);
	}
	assert_true(strlen(text) > 1900);
}

/* The devices are asked; one that describes itself as nothing can is refused. */
static void test_describe(void **state)
{
	qsc_cleanup(qsc_shape_release) struct qsc_shape shape = QSC_SHAPE_NONE;
	struct fake_world world = FAKE_WORLD_INIT;
	const struct fake_options options = {.flags = 7};
	struct fake *fake = fake_new(&world, &options);
	const struct qsc_memory_region memory = {.address = 4096, .size = 8192};
	const struct qsc_migrate_user user = {.regions = &memory, .num_regions = 1};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_set *set;

	(void)state;
	assert_int_equal(qsc_set_create(NULL, NULL, &set), 0);
	assert_int_equal(qsc_set_add(set, "fake0", &fake->base, NULL), 0);
	assert_int_equal(qsc_shape_describe(&shape, set, &user, &err), 0);
	assert_string_equal(shape.members[0].name, "fake0");
	assert_string_equal(shape.members[0].layout.type, "fake");
	assert_int_equal(shape.members[0].layout.num_parts, 1);
	assert_int_equal(shape.members[0].migration_flags, 7);
	assert_int_equal(shape.memory[0].address, 4096);
	qsc_shape_release(&shape);
	fake->layout.parts[0].min_version = 9;
	assert_int_equal(qsc_shape_describe(&shape, set, &user, &err), -EPROTO);
	assert_non_null(strstr(err.text, "fake0"));
	qsc_set_destroy(set);
	fake_free(fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes_and_back),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_SET_3_peers_that_differ),
		cmocka_unit_test(test_users_that_differ),
		cmocka_unit_test(test_peers_that_cannot_be),
		cmocka_unit_test(test_cut_and_altered_bytes),
		cmocka_unit_test(test_what_is_taken_and_refused),
		cmocka_unit_test(test_sequences_that_cannot_be),
		cmocka_unit_test(test_every_difference_is_listed),
		cmocka_unit_test(test_versions_that_can_be_loaded),
		cmocka_unit_test(test_more_than_fit),
		cmocka_unit_test(test_describe),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
