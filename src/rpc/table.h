/* SPDX-License-Identifier: MIT */
/*
 * The DMA mappings of one connection, sorted by address: what a client answers the server's
 * accesses from, and what a server must undo when its client asks for all of it at once. Not locked
 * here; what the entries point at belongs to the owner of the table.
 */
#ifndef QSC_RPC_TABLE_H
#define QSC_RPC_TABLE_H

#include <quiesce/device.h>

struct qsc_dma_table {
	struct qsc_dma_mapping *entries;
	size_t count;
	size_t capacity;
};

/* -EEXIST when it overlaps one, -ENOMEM. */
int qsc_dma_table_add(struct qsc_dma_table *table, const struct qsc_dma_mapping *mapping);

/* The mapping of exactly that range, or NULL. */
struct qsc_dma_mapping *qsc_dma_table_find(struct qsc_dma_table *table, uint64_t iova,
					   uint64_t size);

/* The mapping that holds that address, or NULL. */
struct qsc_dma_mapping *qsc_dma_table_at(struct qsc_dma_table *table, uint64_t iova);

void qsc_dma_table_remove(struct qsc_dma_table *table, struct qsc_dma_mapping *entry);

/* Frees the table, not what its entries point at. */
void qsc_dma_table_release(struct qsc_dma_table *table);

#endif
