/* SPDX-License-Identifier: MIT */
/* See table.h. */
#include "rpc/table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

/* Index of the first entry that ends after `iova`. */
static size_t position(const struct qsc_dma_table *table, uint64_t iova)
{
	size_t low = 0;
	size_t high = table->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const struct qsc_dma_mapping *entry = &table->entries[middle];

		if (entry->iova + (entry->size - 1) < iova)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

int qsc_dma_table_add(struct qsc_dma_table *table, const struct qsc_dma_mapping *mapping)
{
	size_t at = position(table, mapping->iova);

	if (at < table->count &&
	    qsc_ranges_overlap(table->entries[at].iova, table->entries[at].size, mapping->iova,
			       mapping->size))
		return -EEXIST;
	if (table->count == table->capacity) {
		size_t capacity = table->capacity ? table->capacity * 2 : 16;
		struct qsc_dma_mapping *entries = reallocarray(table->entries, capacity,
							       sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		table->entries = entries;
		table->capacity = capacity;
	}
	memmove(table->entries + at + 1, table->entries + at,
		(table->count - at) * sizeof(*table->entries));
	table->entries[at] = *mapping;
	table->count++;
	return 0;
}

struct qsc_dma_mapping *qsc_dma_table_at(struct qsc_dma_table *table, uint64_t iova)
{
	size_t at = position(table, iova);

	return at < table->count && table->entries[at].iova <= iova ? &table->entries[at] : NULL;
}

struct qsc_dma_mapping *qsc_dma_table_find(struct qsc_dma_table *table, uint64_t iova,
					   uint64_t size)
{
	struct qsc_dma_mapping *entry = qsc_dma_table_at(table, iova);

	return entry && entry->iova == iova && entry->size == size ? entry : NULL;
}

void qsc_dma_table_remove(struct qsc_dma_table *table, struct qsc_dma_mapping *entry)
{
	size_t at = (size_t)(entry - table->entries);

	table->count--;
	memmove(entry, entry + 1, (table->count - at) * sizeof(*entry));
}

void qsc_dma_table_release(struct qsc_dma_table *table)
{
	free(table->entries);
	memset(table, 0, sizeof(*table));
}
