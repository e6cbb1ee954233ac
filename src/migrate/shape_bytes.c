/* SPDX-License-Identifier: MIT */
/* A shape as bytes, in the items of items.h. What is read is complete and within its limits. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/layout.h"
#include "migrate/items.h"
#include "migrate/shape.h"

enum tag {
	TAG_MEMBER = 1, /* items; one for each, in order */
	TAG_MEMORY,	/* u64 address and u64 size of each region */
	/* What an older version neither tells nor compares; each at most once. */
	TAG_USER = QSC_ITEM_OPTIONAL | 3,  /* text: what it is */
	TAG_PEERS = QSC_ITEM_OPTIONAL | 4, /* of each mapping, in order: see put_peers() */
};

#define PEER_BYTES 40U

enum member_tag {
	TAG_NAME = 1, /* text */
	TAG_FLAGS,    /* u32 of migration, u32 of the device */
	TAG_IDS,      /* 3 u32 */
	TAG_REGIONS,  /* u64 size and u32 flags of each */
	TAG_IRQS,     /* u32 of each */
	TAG_TYPE,     /* text; a device that says what it is */
	TAG_PART,     /* u32 kind, u32 version, u32 min_version, u64 size, items; in order */
};

enum part_tag { TAG_PART_NAME = 1 /* text */ };

#define ONCE(tag) (1U << (tag))
/* Which a member has exactly once, whatever the device says of itself. */
#define REQUIRED \
	(ONCE(TAG_NAME) | ONCE(TAG_FLAGS) | ONCE(TAG_IDS) | ONCE(TAG_REGIONS) | ONCE(TAG_IRQS))

/* ---- writing ---- */

static void put_part(struct qsc_items *items, const struct qsc_layout_part *part)
{
	size_t begin = qsc_items_begin(items, TAG_PART);

	qsc_items_put_u32(items, part->kind);
	qsc_items_put_u32(items, part->version);
	qsc_items_put_u32(items, part->min_version);
	qsc_items_put_u64(items, part->size);
	qsc_items_put_text(items, TAG_PART_NAME, part->name);
	qsc_items_end(items, begin);
}

static void put_member(struct qsc_items *items, const struct qsc_shape_member *member)
{
	size_t whole = qsc_items_begin(items, TAG_MEMBER);
	size_t begin;
	uint32_t i;

	qsc_items_put_text(items, TAG_NAME, member->name);
	begin = qsc_items_begin(items, TAG_FLAGS);
	qsc_items_put_u32(items, member->migration_flags);
	qsc_items_put_u32(items, member->device_flags);
	qsc_items_end(items, begin);
	begin = qsc_items_begin(items, TAG_IDS);
	for (i = 0; i < QSC_ARRAY_SIZE(member->ids); i++)
		qsc_items_put_u32(items, member->ids[i]);
	qsc_items_end(items, begin);
	begin = qsc_items_begin(items, TAG_REGIONS);
	for (i = 0; i < member->num_regions; i++) {
		qsc_items_put_u64(items, member->regions[i].size);
		qsc_items_put_u32(items, member->regions[i].flags);
	}
	qsc_items_end(items, begin);
	begin = qsc_items_begin(items, TAG_IRQS);
	for (i = 0; i < member->num_irqs; i++)
		qsc_items_put_u32(items, member->irq_counts[i]);
	qsc_items_end(items, begin);
	if (member->layout.type[0])
		qsc_items_put_text(items, TAG_TYPE, member->layout.type);
	for (i = 0; i < member->layout.num_parts; i++)
		put_part(items, &member->layout.parts[i]);
	qsc_items_end(items, whole);
}

static void put_peers(struct qsc_items *items, const struct qsc_shape *shape)
{
	size_t begin = qsc_items_begin(items, TAG_PEERS);
	uint32_t i;

	for (i = 0; i < shape->num_peers; i++) {
		const struct qsc_shape_peer *peer = &shape->peers[i];

		qsc_items_put_u32(items, peer->member);
		qsc_items_put_u32(items, peer->peer);
		qsc_items_put_u32(items, peer->region);
		qsc_items_put_u32(items, peer->flags);
		qsc_items_put_u64(items, peer->iova);
		qsc_items_put_u64(items, peer->size);
		qsc_items_put_u64(items, peer->offset);
	}
	qsc_items_end(items, begin);
}

int qsc_shape_encode(const struct qsc_shape *shape, uint8_t **bytes, size_t *size)
{
	struct qsc_items items = {.bytes = NULL};
	size_t begin;
	uint32_t i;

	for (i = 0; i < shape->num_members; i++)
		put_member(&items, &shape->members[i]);
	begin = qsc_items_begin(&items, TAG_MEMORY);
	for (i = 0; i < shape->num_memory; i++) {
		qsc_items_put_u64(&items, shape->memory[i].address);
		qsc_items_put_u64(&items, shape->memory[i].size);
	}
	qsc_items_end(&items, begin);
	if (shape->tells_user)
		qsc_items_put_text(&items, TAG_USER, shape->user);
	if (shape->tells_peers)
		put_peers(&items, shape);
	if (items.failed) {
		free(items.bytes);
		return -ENOMEM;
	}
	*bytes = items.bytes;
	*size = items.size;
	return 0;
}

/* ---- reading ---- */

/* An item that is not known here: false when it may not be passed over. */
static bool skip(struct qsc_items_reader *in, uint16_t tag)
{
	in->at += in->left;
	in->left = 0;
	return tag & QSC_ITEM_OPTIONAL;
}

static void get_part(struct qsc_items_reader *in, struct qsc_layout *layout)
{
	struct qsc_items_reader item;
	struct qsc_layout_part *part;
	uint32_t version;
	uint32_t min_version;
	uint16_t tag;

	if (layout->num_parts == QSC_LAYOUT_PARTS) {
		in->bad = true;
		return;
	}
	part = &layout->parts[layout->num_parts++];
	part->kind = (enum qsc_layout_kind)qsc_items_get_u32(in);
	version = qsc_items_get_u32(in);
	min_version = qsc_items_get_u32(in);
	part->size = qsc_items_get_u64(in);
	part->version = (uint16_t)version;
	part->min_version = (uint16_t)min_version;
	in->bad |= version > UINT16_MAX || min_version > UINT16_MAX;
	while (qsc_items_next(in, &tag, &item)) {
		if (tag == TAG_PART_NAME && !part->name[0])
			qsc_items_get_text(&item, part->name, sizeof(part->name));
		else if (!skip(&item, tag))
			item.bad = true;
		in->bad |= !qsc_items_done(&item);
	}
}

static void get_name(struct qsc_items_reader *in, char *name, size_t size)
{
	size_t i;

	qsc_items_get_text(in, name, size);
	/* It goes into messages: without what a terminal might act on. */
	for (i = 0; name[i]; i++)
		if (name[i] < ' ' || name[i] > '~')
			name[i] = '?';
}

static void get_regions(struct qsc_items_reader *in, struct qsc_shape_member *member)
{
	while (in->left && !in->bad) {
		if (member->num_regions == QSC_SHAPE_REGIONS) {
			in->bad = true;
			return;
		}
		member->regions[member->num_regions].size = qsc_items_get_u64(in);
		member->regions[member->num_regions++].flags = qsc_items_get_u32(in);
	}
}

static void get_irqs(struct qsc_items_reader *in, struct qsc_shape_member *member)
{
	while (in->left && !in->bad) {
		if (member->num_irqs == QSC_SHAPE_IRQS) {
			in->bad = true;
			return;
		}
		member->irq_counts[member->num_irqs++] = qsc_items_get_u32(in);
	}
}

static void get_member_item(struct qsc_items_reader *in, uint16_t tag,
			    struct qsc_shape_member *member)
{
	size_t i;

	switch (tag) {
	case TAG_NAME:
		get_name(in, member->name, sizeof(member->name));
		break;
	case TAG_FLAGS:
		member->migration_flags = qsc_items_get_u32(in);
		member->device_flags = qsc_items_get_u32(in);
		break;
	case TAG_IDS:
		for (i = 0; i < QSC_ARRAY_SIZE(member->ids); i++)
			member->ids[i] = qsc_items_get_u32(in);
		break;
	case TAG_REGIONS:
		get_regions(in, member);
		break;
	case TAG_IRQS:
		get_irqs(in, member);
		break;
	case TAG_TYPE:
		qsc_items_get_text(in, member->layout.type, sizeof(member->layout.type));
		break;
	case TAG_PART:
		get_part(in, &member->layout);
		break;
	default:
		in->bad = !skip(in, tag);
		break;
	}
}

static void get_member(struct qsc_items_reader *in, struct qsc_shape_member *member)
{
	struct qsc_items_reader item;
	uint32_t seen = 0;
	uint16_t tag;

	while (qsc_items_next(in, &tag, &item)) {
		if (tag < TAG_PART) {
			in->bad |= (seen & ONCE(tag)) != 0;
			seen |= ONCE(tag);
		}
		get_member_item(&item, tag, member);
		in->bad |= !qsc_items_done(&item);
	}
	in->bad |= (seen & REQUIRED) != REQUIRED || !qsc_layout_valid(&member->layout);
}

static void get_memory(struct qsc_items_reader *in, struct qsc_shape *shape)
{
	uint32_t i;

	for (i = 0; i < shape->num_memory; i++) {
		shape->memory[i].address = qsc_items_get_u64(in);
		shape->memory[i].size = qsc_items_get_u64(in);
	}
}

/* In order, and of members that there are. */
static void get_peers(struct qsc_items_reader *in, struct qsc_shape *shape)
{
	uint32_t i;

	for (i = 0; i < shape->num_peers; i++) {
		struct qsc_shape_peer *peer = &shape->peers[i];

		peer->member = qsc_items_get_u32(in);
		peer->peer = qsc_items_get_u32(in);
		peer->region = qsc_items_get_u32(in);
		peer->flags = qsc_items_get_u32(in);
		peer->iova = qsc_items_get_u64(in);
		peer->size = qsc_items_get_u64(in);
		peer->offset = qsc_items_get_u64(in);
		in->bad |= peer->member >= shape->num_members || peer->peer >= shape->num_members;
		if (i)
			in->bad |= peer[-1].member > peer->member ||
				   (peer[-1].member == peer->member && peer[-1].iova >= peer->iova);
	}
}

/* What a version may leave out. */
static int get_optional(struct qsc_items_reader *in, uint16_t tag, struct qsc_shape *shape)
{
	if (tag == TAG_USER) {
		in->bad |= shape->tells_user;
		shape->tells_user = true;
		get_name(in, shape->user, sizeof(shape->user));
	} else if (tag == TAG_PEERS) {
		if (shape->tells_peers || in->left / PEER_BYTES > QSC_SHAPE_PEERS)
			return -EPROTO;
		if (qsc_shape_allocate_peers(shape, (uint32_t)(in->left / PEER_BYTES)) < 0)
			return -ENOMEM;
		get_peers(in, shape);
	} else {
		(void)skip(in, tag);
	}
	return 0;
}

/* How many of each there are; -EPROTO for more than can be, or what is not known. */
static int count(struct qsc_items_reader in, uint32_t *members, uint32_t *memory)
{
	struct qsc_items_reader item;
	bool have_memory = false;
	uint16_t tag;

	*members = 0;
	*memory = 0;
	while (qsc_items_next(&in, &tag, &item)) {
		if (tag == TAG_MEMBER) {
			++*members;
		} else if (tag == TAG_MEMORY) {
			if (have_memory || item.left / 16 > QSC_SHAPE_MEMORY)
				return -EPROTO;
			have_memory = true;
			*memory = (uint32_t)(item.left / 16);
		} else if (!skip(&item, tag)) {
			return -EPROTO;
		}
	}
	return in.bad || !have_memory || *members > QSC_SHAPE_MEMBERS ? -EPROTO : 0;
}

int qsc_shape_decode(struct qsc_shape *shape, const uint8_t *bytes, size_t size)
{
	struct qsc_items_reader in = {.at = bytes, .left = size};
	struct qsc_items_reader item;
	uint32_t members;
	uint32_t memory;
	uint32_t i = 0;
	uint16_t tag;
	int result;

	if (count(in, &members, &memory) < 0)
		return -EPROTO;
	if (qsc_shape_allocate(shape, members, memory) < 0)
		return -ENOMEM;
	while (qsc_items_next(&in, &tag, &item)) {
		if (tag == TAG_MEMBER)
			get_member(&item, &shape->members[i++]);
		else if (tag == TAG_MEMORY)
			get_memory(&item, shape);
		result = tag & QSC_ITEM_OPTIONAL ? get_optional(&item, tag, shape) : 0;
		if (result < 0)
			return result;
		if (!qsc_items_done(&item))
			return -EPROTO;
	}
	return 0;
}
