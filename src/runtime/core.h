/* SPDX-License-Identifier: MIT */
/*
 * The runtime's device as a whole. What can be said about a part alone lives with the part (gate,
 * DMA space, interrupts, blocks, …), which does not know this header; here is what ties them
 * together. Files: runtime.c makes and gives out the device, region.c answers accesses, state.c
 * moves it between states, session.c gives out its sessions, letgo.c takes it from one user to the
 * next.
 *
 * `lock` guards the fields below it and is never held while anything of the model or the user runs.
 * State changes, resets and session calls exclude one another by `busy`, which may be held for
 * long; everything else goes on meanwhile.
 */
#ifndef QSC_RUNTIME_CORE_H
#define QSC_RUNTIME_CORE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/vfio.h>

#include <quiesce/runtime.h>

#include "base/cleanup.h"
#include "device/mapping.h"
#include "runtime/block.h"
#include "runtime/dma.h"
#include "runtime/irq.h"
#include "runtime/load.h"
#include "runtime/pci.h"
#include "runtime/save.h"
#include "runtime/stream.h"
#include "runtime/work.h"

struct qsc_region {
	uint64_t size; /* 0: not implemented */
	uint32_t flags;
	enum { QSC_REGION_MODEL, QSC_REGION_BLOCK, QSC_REGION_CONFIG, QSC_REGION_MSIX } kind;
	struct qsc_block *block; /* of QSC_REGION_BLOCK */
};

struct qsc_runtime {
	struct qsc_device device;
	const struct qsc_model *model;
	void *ctx;
	char *name;
	uint32_t flags; /* of migration */
	bool tells_peers;
	bool destroy_on_close;
	void (*violation)(void *ctx, enum qsc_clause clause, const char *text);
	void *violation_ctx;

	void *state_data;
	struct qsc_block_desc *block_descs;
	struct qsc_stream_layout layout;
	struct qsc_save_source source;
	uint32_t num_blocks;
	struct qsc_block *blocks;
	struct qsc_region regions[VFIO_PCI_NUM_REGIONS];
	struct qsc_irqs irqs;
	struct qsc_pci pci;
	struct qsc_mappings mappings;

	/* Of the last completed arc (STATE-4); written by the holder of `busy`. */
	_Atomic uint32_t state;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	bool busy;
	bool open;

	/* Guarded by `busy`. */
	bool shared;	       /* its last user still holds files of it */
	bool started;	       /* start() has been called since the device last stopped */
	bool unaccepted;       /* the blocks hold what a load has not been accepted for */
	uint64_t session;      /* the one that is open, or 0 */
	uint64_t last_session; /* the number given out last; none comes twice */
	struct qsc_save *save; /* of a saving session, also when its user has closed it */
	struct qsc_load *load; /* of a loading session, likewise */

	/* Last, because they begin on cache lines of their own. */
	struct qsc_dma_space dma;
	struct qsc_workers workers;
};

static inline struct qsc_runtime *qsc_runtime_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct qsc_runtime, device);
}

static inline enum qsc_state qsc_runtime_present_state(const struct qsc_runtime *rt)
{
	return (enum qsc_state)atomic_load_explicit(&rt->state, memory_order_acquire);
}

/* Hold `busy`: waits for whoever holds it. */
void qsc_runtime_begin(struct qsc_runtime *rt);
void qsc_runtime_end(struct qsc_runtime *rt);

/* ---- session.c ---- */

/*
 * Prepare the session that the arc opens, if it opens one; -ENOMEM, and nothing has changed
 * (SESS-9). It counts from qsc_runtime_session_settle() on, when the arc has been taken; that also
 * ends the session that the arc ends (SESS-1, SESS-2).
 */
int qsc_runtime_session_prepare(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to);
void qsc_runtime_session_settle(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to);
/* End whatever session there is, prepared or open. */
void qsc_runtime_session_drop(struct qsc_runtime *rt);

int qsc_runtime_op_data_size(struct qsc_device *dev, uint64_t *size_bytes);
ssize_t qsc_runtime_op_session_read(struct qsc_device *dev, uint64_t session, void *buf,
				    size_t size);
ssize_t qsc_runtime_op_session_lend(struct qsc_device *dev, uint64_t session, void *buf,
				    size_t size, struct iovec *iov, size_t max, size_t *count);
ssize_t qsc_runtime_op_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				     size_t size);
int qsc_runtime_op_session_precopy_info(struct qsc_device *dev, uint64_t session,
					struct qsc_precopy_info *info);
int qsc_runtime_op_session_close(struct qsc_device *dev, uint64_t session);

/* ---- state.c ---- */

/*
 * Power-on contents and RUNNING, from a device at rest or not; non-volatile blocks keep theirs with
 * `keep`, unless a load has been there. The caller holds `busy`.
 */
int qsc_runtime_restart(struct qsc_runtime *rt, bool keep);
/* The operations of the device that change or tell its state. */
int qsc_runtime_op_get_state(struct qsc_device *dev, enum qsc_state *state);
int qsc_runtime_op_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
int qsc_runtime_op_reset(struct qsc_device *dev);
/* Walk to `target`. The caller holds `busy`. */
int qsc_runtime_walk(struct qsc_runtime *rt, uint32_t target);

/* ---- letgo.c ---- */

/* STATE-5: bring the device to where the next user finds it. */
void qsc_runtime_let_go(struct qsc_runtime *rt);
/* The next user comes. -ENOMEM: the last one still has a way in. */
int qsc_runtime_take_up(struct qsc_runtime *rt);

/* ---- region.c ---- */

int qsc_runtime_op_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info);
ssize_t qsc_runtime_op_region_read(struct qsc_device *dev, uint32_t index, uint64_t offset,
				   void *buf, size_t count);
ssize_t qsc_runtime_op_region_write(struct qsc_device *dev, uint32_t index, uint64_t offset,
				    const void *buf, size_t count);
int qsc_runtime_op_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				      size_t count);
int qsc_runtime_op_region_map(struct qsc_device *dev, uint32_t index, uint64_t offset, size_t size,
			      int prot, void **addr);
int qsc_runtime_op_region_unmap(struct qsc_device *dev, void *addr, size_t size);
int qsc_runtime_op_region_change(struct qsc_device *dev, void *addr, size_t size, int prot);
int qsc_runtime_op_region_fd(struct qsc_device *dev, uint32_t index, int *fd, uint64_t *fd_offset);
int qsc_runtime_op_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
				 size_t max);

#endif
