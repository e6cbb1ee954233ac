/* SPDX-License-Identifier: MIT */
/*
 * Who reaches whom, as part of a shape: a device that arrives where another has no mapping, or one
 * that leads elsewhere, would do its peer DMA into nothing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "migrate/shape.h"
#include "set/set.h"

int qsc_shape_allocate_peers(struct qsc_shape *shape, uint32_t count)
{
	shape->peers = calloc(count + 1U, sizeof(*shape->peers));
	if (!shape->peers)
		return -ENOMEM;
	shape->num_peers = count;
	shape->tells_peers = true;
	return 0;
}

/* Negative, zero or positive as of `a` compared with `b`. */
static int in_order(const void *a, const void *b)
{
	const struct qsc_shape_peer *left = a;
	const struct qsc_shape_peer *right = b;

	if (left->member != right->member)
		return left->member < right->member ? -1 : 1;
	return left->iova < right->iova ? -1 : left->iova > right->iova;
}

static uint32_t count_peers(const struct qsc_set *set)
{
	const struct qsc_set_mapping *mapping;
	uint32_t count = 0;
	uint32_t i;

	for (i = 0; i < set->count; i++)
		for (mapping = set->members[i].mappings; mapping; mapping = mapping->next)
			count += mapping->is_peer;
	return count;
}

int qsc_shape_describe_peers(struct qsc_shape *shape, const struct qsc_set *set,
			     struct qsc_error *err)
{
	const struct qsc_set_mapping *mapping;
	uint32_t count = count_peers(set);
	struct qsc_shape_peer *at;
	uint32_t i;

	if (count > QSC_SHAPE_PEERS)
		return qsc_error_set(err, E2BIG, NULL,
				     "the set has %u mappings of peers; at most %u can move", count,
				     QSC_SHAPE_PEERS);
	if (qsc_shape_allocate_peers(shape, count) < 0)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to describe the set");
	at = shape->peers;
	for (i = 0; i < set->count; i++)
		for (mapping = set->members[i].mappings; mapping; mapping = mapping->next)
			if (mapping->is_peer)
				*at++ = (struct qsc_shape_peer){
					.member = i,
					.peer = mapping->peer.peer,
					.region = mapping->peer.region,
					.flags = mapping->peer.flags &
						 (QSC_DMA_READ | QSC_DMA_WRITE),
					.iova = mapping->peer.iova,
					.size = mapping->peer.size,
					.offset = mapping->peer.offset,
				};
	qsort(shape->peers, count, sizeof(*shape->peers), in_order);
	return 0;
}

/* ---- comparing ---- */

static const char *name_of(const struct qsc_shape *shape, uint32_t member)
{
	return member < shape->num_members ? shape->members[member].name : "?";
}

/* "0x1000 bytes of region 2 of 'b' from 0 on, to read and write" */
static const char *describe(const struct qsc_shape *shape, const struct qsc_shape_peer *peer,
			    char *text, size_t size)
{
	static const char *const ways[] = {"without access", "to read", "to write",
					   "to read and write"};
	unsigned int way = (peer->flags & QSC_DMA_READ ? 1U : 0U) |
			   (peer->flags & QSC_DMA_WRITE ? 2U : 0U);

	(void)snprintf(text, size, "%#llx bytes of region %u of '%s' from %#llx on, %s",
		       (unsigned long long)peer->size, peer->region, name_of(shape, peer->peer),
		       (unsigned long long)peer->offset, ways[way]);
	return text;
}

static bool is_same(const struct qsc_shape_peer *a, const struct qsc_shape_peer *b)
{
	return a->peer == b->peer && a->region == b->region && a->flags == b->flags &&
	       a->size == b->size && a->offset == b->offset;
}

void qsc_shape_compare_peers(const struct qsc_shape *ours, const struct qsc_shape *theirs,
			     void (*differ)(void *ctx, const char *text), void *ctx)
{
	uint32_t i = 0;
	uint32_t j = 0;

	for (;;) {
		const struct qsc_shape_peer *here = i < ours->num_peers ? &ours->peers[i] : NULL;
		const struct qsc_shape_peer *there = j < theirs->num_peers ? &theirs->peers[j]
									   : NULL;
		int order = !here ? 1 : !there ? -1 : in_order(here, there);
		char at_source[192] = "nothing";
		char at_destination[192] = "nothing";
		char text[512];

		if (!here && !there)
			return;
		/* What comes first in the order stands alone: the other side has none. */
		if (order > 0)
			here = NULL;
		if (order < 0)
			there = NULL;
		i += here != NULL;
		j += there != NULL;
		if (here && there && is_same(here, there))
			continue;
		if (there)
			(void)describe(theirs, there, at_source, sizeof(at_source));
		if (here)
			(void)describe(ours, here, at_destination, sizeof(at_destination));
		(void)snprintf(text, sizeof(text),
			       "at IOVA %#llx device '%s' has %s at the source and %s at the "
			       "destination",
			       (unsigned long long)(here ? here->iova : there->iova),
			       here ? name_of(ours, here->member) : name_of(theirs, there->member),
			       at_source, at_destination);
		differ(ctx, text);
	}
}
