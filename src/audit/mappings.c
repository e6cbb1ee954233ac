/* SPDX-License-Identifier: MIT */
/* The mappings of a device, found by their address in constant time: a guest may map all day. */
#include <errno.h>
#include <stdlib.h>

#include "audit/audit.h"

static size_t home(const struct audit_mappings *m, uint64_t iova)
{
	uint64_t mixed = (iova >> 12) * 0x9e3779b97f4a7c15ULL;

	return (size_t)(mixed >> 32) & (m->room - 1);
}

static void put(struct audit_mappings *m, const struct audit_mapping *mapping)
{
	size_t i = home(m, mapping->iova);

	while (m->slot[i].size)
		i = (i + 1) & (m->room - 1);
	m->slot[i] = *mapping;
}

static int grow(struct audit_mappings *m)
{
	struct audit_mappings more = *m;

	more.room = m->room ? m->room * 2 : 64;
	more.slot = calloc(more.room, sizeof(*more.slot));
	if (!more.slot)
		return -ENOMEM;
	for (size_t i = 0; i < m->room; i++)
		if (m->slot[i].size)
			put(&more, &m->slot[i]);
	free(m->slot);
	*m = more;
	return 0;
}

int audit_mappings_add(struct audit_mappings *m, const struct audit_mapping *mapping)
{
	if (2 * (m->count + 1) > m->room && grow(m) < 0)
		return -ENOMEM;
	put(m, mapping);
	m->count++;
	m->writable += mapping->flags & QSC_DMA_WRITE ? 1 : 0;
	return 0;
}

bool audit_mappings_remove(struct audit_mappings *m, uint64_t iova, uint64_t size,
			   struct audit_mapping *removed)
{
	size_t mask = m->room - 1;
	size_t i;

	if (!m->room)
		return false;
	for (i = home(m, iova); m->slot[i].size; i = (i + 1) & mask)
		if (m->slot[i].iova == iova && m->slot[i].size == size)
			break;
	if (!m->slot[i].size)
		return false;
	*removed = m->slot[i];
	m->count--;
	m->writable -= removed->flags & QSC_DMA_WRITE ? 1 : 0;
	/* Whoever had to go on because of it moves up. */
	for (size_t hole = i, next = (i + 1) & mask;; next = (next + 1) & mask) {
		if (!m->slot[next].size) {
			m->slot[hole].size = 0;
			return true;
		}
		if (((next - home(m, m->slot[next].iova)) & mask) >= ((next - hole) & mask)) {
			m->slot[hole] = m->slot[next];
			hole = next;
		}
	}
}
