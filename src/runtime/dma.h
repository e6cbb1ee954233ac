/* SPDX-License-Identifier: MIT */
/*
 * The DMA address space of a device: where its mappings lead, the gate that every transfer passes
 * (DEV-1, DEV-4, ARC-7), and the dirty log of what it writes. Transfers take no lock: they see an
 * immutable table and log, which are replaced as a whole and freed when the last transfer that
 * could see them has left the gate.
 */
#ifndef QSC_RUNTIME_DMA_H
#define QSC_RUNTIME_DMA_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "base/gate.h"
#include "runtime/log.h"

#define QSC_DMA_MAX_MAPPINGS 65535U

struct qsc_dma_table;

struct qsc_dma_space {
	/* OPEN_SOME: memory, but no peers. */
	struct qsc_gate gate;
	_Atomic(struct qsc_dma_table *) table;
	_Atomic(struct qsc_dirty_log *) log; /* NULL: not logging */
	pthread_mutex_t table_lock;	     /* of changes of the table */
	pthread_mutex_t log_lock;	     /* of starts, stops and reports of the log */
};

/* Gate closed, no mappings. -ENOMEM, and then nothing is to be destroyed. */
int qsc_dma_space_init(struct qsc_dma_space *space);
void qsc_dma_space_destroy(struct qsc_dma_space *space);

/* See qsc_device_dma_map() and qsc_device_dma_unmap(); the arguments are valid. */
int qsc_dma_space_map(struct qsc_dma_space *space, const struct qsc_dma_mapping *mapping);
int qsc_dma_space_unmap(struct qsc_dma_space *space, uint64_t iova, uint64_t size);
void qsc_dma_space_unmap_all(struct qsc_dma_space *space);

/* See qsc_dma_read(), _write() and _copy(). */
int qsc_dma_space_read(struct qsc_dma_space *space, uint64_t iova, void *buf, size_t size);
int qsc_dma_space_write(struct qsc_dma_space *space, uint64_t iova, const void *buf, size_t size);
int qsc_dma_space_copy(struct qsc_dma_space *space, uint64_t dst, uint64_t src, size_t size);
/*
 * From here on this thread must not ask anybody for memory: such DMA answers -EAGAIN. Until the
 * second call, which tells whether any did.
 */
void qsc_dma_forbid_asking(void);
bool qsc_dma_permit_asking(void);

/* As qsc_dma_write_by() and qsc_dma_read_by(); `direction` is QSC_DMA_WRITE or QSC_DMA_READ. */
int qsc_dma_space_move(struct qsc_dma_space *space, uint32_t direction,
		       const struct qsc_dma_piece *pieces, size_t count, qsc_dma_move_fn *move,
		       void *ctx);

/* See qsc_device_log_start(), _stop() and _report(). -EBUSY: it is already on; -EINVAL: it is off.
 */
int qsc_dma_space_log_start(struct qsc_dma_space *space, const struct qsc_dma_range *ranges,
			    size_t num_ranges);
int qsc_dma_space_log_stop(struct qsc_dma_space *space);
int qsc_dma_space_log_report(struct qsc_dma_space *space, uint64_t iova, uint64_t size,
			     uint64_t page_size, uint64_t *bitmap);

#endif
