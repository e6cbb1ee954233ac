/* SPDX-License-Identifier: MIT */
/*
 * The runtime turns a device model into a migratable device. The model says what its registers do
 * and declares its state; the runtime owns everything the contract asks of a device: the state
 * machine, refusing and discarding, draining DMA, holding interrupts, the dirty log, the state
 * stream with its validation, and pre-copy of memory that was written since.
 *
 * A model's life: qsc_runtime_create() builds it (reset() is called once), a user opens it with
 * qsc_runtime_open(), drives it, and lets go by closing the handle; qsc_runtime_destroy() ends it.
 *
 * Rules for models
 * - All that migrates lives in the state structure and the blocks that the model declares. What can
 *   be derived from them is rebuilt in loaded().
 * - No lock of the runtime is held while a callback runs, so a callback may call anything under
 *   "what a model calls". Region callbacks may come from several threads at once; work() of one
 *   worker never runs twice at once. A model guards its state with a lock of its own.
 * - When the device enters a stopped state the runtime has closed the DMA gate, and waits until no
 *   callback is running, calls stop(), and calls no callback but reset(), validate(), save(),
 *   load() and loaded() until it leaves the stopped states. So the declared state is at rest
 *   without the model doing anything. In the P2P states registers are accessed; work() is called
 *   there only after start(), and only in a device that tells peers from memory.
 * - A DMA call never waits for a state change: when the gate is closed it answers -EAGAIN, the
 *   model leaves the transfer where it is, returns, and is called again after start().
 *
 * Threads: what a model calls may be called from any thread, several at once. create, open and
 * destroy exclude one another; destroy must be the last, from no callback.
 */
#ifndef QUIESCE_RUNTIME_H
#define QUIESCE_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_runtime;

/* ---- declared state ---- */

/*
 * A field of the state structure: `count` integers of `width` bytes (1, 2, 4 or 8), or, with `sub`,
 * an array of `count` structures `stride` bytes apart, each with the fields `sub`. On the wire
 * little-endian and without padding. The names are for error messages.
 */
struct qsc_field {
	const char *name;
	uint32_t offset; /* bytes from the start of the enclosing structure */
	uint32_t width;
	uint32_t count;
	uint32_t stride;	     /* bytes; width for plain integers */
	const struct qsc_field *sub; /* ended by an entry with name NULL; or NULL */
};

/* clang-format off */
#define QSC_FIELD(type, member)                                                                    \
	{#member, (uint32_t)offsetof(type, member), (uint32_t)sizeof(((type *)0)->member), 1,      \
	 (uint32_t)sizeof(((type *)0)->member), NULL}
#define QSC_FIELD_ARRAY(type, member)                                                              \
	{#member, (uint32_t)offsetof(type, member), (uint32_t)sizeof(((type *)0)->member[0]),      \
	 (uint32_t)(sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])),                 \
	 (uint32_t)sizeof(((type *)0)->member[0]), NULL}
#define QSC_FIELD_STRUCTS(type, member, subfields)                                                 \
	{#member, (uint32_t)offsetof(type, member), 0,                                             \
	 (uint32_t)(sizeof(((type *)0)->member) / sizeof(((type *)0)->member[0])),                 \
	 (uint32_t)sizeof(((type *)0)->member[0]), subfields}
#define QSC_FIELD_END {NULL, 0, 0, 0, 0, NULL}
/* clang-format on */

/*
 * A named group of fields with a layout version of its own. Raising `version` makes streams that an
 * older model refuses by name; a stream with a version below `min_version` or above `version` is
 * refused before anything changes (SESS-11). Names are printable ASCII of at most 63 characters;
 * sections, blocks and custom state are at most QSC_LAYOUT_PARTS together, and are told to the
 * device's user (struct qsc_layout).
 */
struct qsc_section {
	const char *name;
	uint16_t version;
	uint16_t min_version;
	const struct qsc_field *fields; /* ended by QSC_FIELD_END */
};

/* ---- the model ---- */

enum qsc_work {
	QSC_WORK_IDLE, /* nothing to do until the next kick or start() */
	QSC_WORK_AGAIN /* more to do; call again soon */
};

/* Identity in PCI configuration space. */
struct qsc_pci_id {
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code; /* 24 bits: base, sub, interface */
	uint8_t revision;
};

/*
 * One for each kind of device, const. Callbacks get the `ctx` given to qsc_runtime_create(). Those
 * marked * may be NULL.
 */
struct qsc_model {
	const char *type; /* identity in the stream, "dmacopy"; as the name of a section */
	struct qsc_pci_id pci;
	size_t state_size;		    /* of the state structure; may be 0 */
	const struct qsc_section *sections; /* ended by an entry with name NULL; NULL for none */
	uint32_t workers;		    /* how many independent work() contexts, 0 to 64 */

	/*
	 * Power-on values. The state structure and all blocks are already zero, but for
	 * non-volatile blocks. Also called before a state is loaded; what it writes to blocks is
	 * then zeroed again.
	 */
	void (*reset)(void *ctx);
	/*
	 * Trapped access to a region without a block: count is 1, 2, 4 or 8 and naturally aligned
	 * (longer or odd accesses are split). 0 or -errno.
	 */
	int (*region_read)(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count);
	int (*region_write)(void *ctx, uint32_t region, uint64_t offset, const void *buf,
			    size_t count);
	/* * Do a bounded piece of work (well under a millisecond) and return. */
	enum qsc_work (*work)(void *ctx, uint32_t worker);
	/*
	 * * The same in the thread of a register access that called qsc_work_try(), and never at
	 * the same time as work() of that worker. It must wait for nothing: what would, it leaves
	 * to work() with QSC_WORK_AGAIN. DMA whose memory must be asked for answers -EAGAIN here,
	 * and work() is called for it.
	 */
	enum qsc_work (*work_here)(void *ctx, uint32_t worker);
	/*
	 * * The device runs: DMA is open (again). All workers are kicked after it returns. Called
	 * when RUNNING or PRE_COPY is entered from anywhere else, after each reset, and when the
	 * device is made. -errno sends the device to ERROR.
	 */
	int (*start)(void *ctx);
	/* * The device has stopped; the declared state must now be complete. -errno: to ERROR. */
	int (*stop)(void *ctx);
	/*
	 * * Is this loaded state one the device can be in? `state` is a candidate that is not yet
	 * in force; blocks are already loaded. 0, or -errno with the reason in err (SESS-6).
	 */
	int (*validate)(void *ctx, const void *state, struct qsc_error *err);
	/* * A loaded state is in force; rebuild what derives from it. */
	void (*loaded)(void *ctx);
	/* * The runtime is being destroyed: free ctx. */
	void (*destroy)(void *ctx);

	/*
	 * * A model may also take over part of its state as bytes of its own making, at most
	 * custom_max of them, after the declared sections. save() gives the size and, with buf, the
	 * bytes; it must give the same until start(). load() may refuse.
	 */
	size_t custom_max;
	ssize_t (*save)(void *ctx, void *buf, size_t size);
	int (*load)(void *ctx, const void *buf, size_t size, struct qsc_error *err);
};

/*
 * Memory of the device that is part of its state: zeroed, page aligned, shareable. A non-volatile
 * block, such as the medium of a disk, keeps its contents over a reset by the device's user. It is
 * zeroed when that reset aborts a load or follows a failed one (SESS-7), and when the device is let
 * go while it is stopped (STATE-5).
 */
struct qsc_block_desc {
	const char *name;
	uint64_t size; /* bytes, multiple of 4 KiB */
	bool non_volatile;
};

#define QSC_NO_BLOCK UINT32_MAX

struct qsc_region_desc {
	uint32_t index; /* VFIO_PCI_BAR0_REGION_INDEX to VFIO_PCI_BAR5_REGION_INDEX */
	uint64_t size;	/* bytes; a power of two for a BAR */
	uint32_t flags; /* VFIO_REGION_INFO_FLAG_*; _MMAP needs a block */
	/* Backed by that block from its start on, or QSC_NO_BLOCK: the region callbacks. */
	uint32_t block;
};

/* A register that may be written by eventfd: the write's value does not reach the model. */
struct qsc_doorbell_desc {
	uint32_t region;
	uint64_t offset;
	uint32_t width; /* bytes; region_write() is called with that many zero bytes */
};

struct qsc_runtime_options {
	const char *name;	  /* for messages; copied; NULL: the model's type */
	uint32_t migration_flags; /* QSC_MIGRATION_*; another set than 1, 3, 5, 7 is refused */
	bool tells_peers;	  /* the device honours QSC_DMA_PEER: memory DMA goes on in P2P */
	const struct qsc_block_desc *blocks;
	uint32_t num_blocks;
	const struct qsc_region_desc *regions;
	uint32_t num_regions;
	const struct qsc_doorbell_desc *doorbells;
	uint32_t num_doorbells;
	uint32_t msix_vectors; /* 0 to 2048; the MSI-X table is a region of its own, BAR4 */
	uint32_t msi_vectors;  /* 0 to 32 */
	bool intx;
	/*
	 * No threads: work is done only by qsc_runtime_step(). For simulation and for programs with
	 * an event loop of their own.
	 */
	bool manual;
	/* Destroy the runtime when its user closes the handle. */
	bool destroy_on_close;
	/*
	 * Called when the user was found to have broken a clause that binds users (ORD-1: a mapped
	 * region of a stopped device changed). From the thread that makes the state change, no lock
	 * held. NULL: it goes to the log only.
	 */
	void (*violation)(void *ctx, enum qsc_clause clause, const char *text);
	void *violation_ctx;
};

/*
 * Takes over ctx: on success until model->destroy(ctx); on failure the caller keeps it and no
 * callback was called. -EINVAL with the reason for a description that cannot be.
 * *rt is set before the first callback, which is reset(); start() and work() may come before this
 * returns.
 */
QSC_API int qsc_runtime_create(const struct qsc_model *model, void *ctx,
			       const struct qsc_runtime_options *options, struct qsc_runtime **rt,
			       struct qsc_error *err);
/* The handle, if any, must have been closed. NULL is allowed. */
QSC_API void qsc_runtime_destroy(struct qsc_runtime *rt);

/*
 * Hold the device: one user at a time, else -EBUSY. -ENOMEM when there is no memory to take its
 * regions from who held them by fd before. Close it with qsc_device_close().
 */
QSC_API int qsc_runtime_open(struct qsc_runtime *rt, struct qsc_device **dev);

/*
 * With options.manual: let one unit of pending work happen (one work() call or doorbell), `pick`
 * choosing among those pending. True when something was done.
 */
QSC_API bool qsc_runtime_step(struct qsc_runtime *rt, uint64_t pick);

/* ---- what a model calls; from its callbacks or threads, any state, any thread ---- */

/* The state structure, zeroed at reset. Same address for the runtime's life. */
QSC_API void *qsc_runtime_state(struct qsc_runtime *rt);

/* Memory of a block. Same address for the runtime's life. */
QSC_API void *qsc_block_data(struct qsc_runtime *rt, uint32_t block);
/* The model wrote [offset, offset + size) of a block; to be called after the write. */
QSC_API void qsc_block_dirty(struct qsc_runtime *rt, uint32_t block, uint64_t offset,
			     uint64_t size);
/*
 * Fill [offset, offset + size) of a block with zeroes and count it as written. Whole pages go back
 * to the system, so that they take no memory here and next to nothing in a stream.
 */
QSC_API void qsc_block_clear(struct qsc_runtime *rt, uint32_t block, uint64_t offset,
			     uint64_t size);

/*
 * DMA between the device and its DMA address space; complete when it returns. 0, -EAGAIN when the
 * gate is closed for it (state change under way or not fully running: retry after start()),
 * -EFAULT when part of the range is not mapped with that permission, -EIO when the memory behind it
 * is gone. After an error part may have been transferred. Keep pieces at or below 64 KiB: a state
 * change waits for those under way.
 */
QSC_API int qsc_dma_read(struct qsc_runtime *rt, uint64_t iova, void *buf, size_t size);
QSC_API int qsc_dma_write(struct qsc_runtime *rt, uint64_t iova, const void *buf, size_t size);
/* From one place of the DMA address space to another. The ranges must not overlap. */
QSC_API int qsc_dma_copy(struct qsc_runtime *rt, uint64_t dst_iova, uint64_t src_iova, size_t size);

/* A stretch of the DMA address space. */
struct qsc_dma_piece {
	uint64_t iova;
	uint64_t size;
};

#define QSC_DMA_MAX_PIECES 64U

/*
 * Move all bytes of iov in order: between that memory and a file, a socket, other memory. 0, or
 * -errno. Called inside the DMA gate, so the same holds as for a DMA call: bounded, at or below 64
 * KiB, and no call of DMA functions from here.
 */
typedef int qsc_dma_move_fn(void *ctx, const struct iovec *iov, int count);

/*
 * DMA without a copy in between: `move` gets the memory behind the pieces itself and fills it
 * (write: from the device to memory) or takes from it (read). Where it cannot be reached directly,
 * `move` gets a buffer that is copied. It is called once, or not at all when the gate is closed or
 * a piece is not mapped. What it returns other than 0 is returned; after that part of the memory
 * may have been written. Else the result is as that of qsc_dma_write() and qsc_dma_read(), -ENOMEM
 * when there is no memory for a buffer, and -EINVAL for more than QSC_DMA_MAX_PIECES pieces.
 */
QSC_API int qsc_dma_write_by(struct qsc_runtime *rt, const struct qsc_dma_piece *pieces,
			     size_t count, qsc_dma_move_fn *move, void *ctx);
QSC_API int qsc_dma_read_by(struct qsc_runtime *rt, const struct qsc_dma_piece *pieces,
			    size_t count, qsc_dma_move_fn *move, void *ctx);

/*
 * Raise an interrupt: VFIO_PCI_INTX_IRQ_INDEX, _MSI_ or _MSIX_ and a vector. Delivered now, or held
 * and delivered once at the next RUNNING, here or on the destination (DEV-2, DEV-6).
 */
QSC_API void qsc_irq_raise(struct qsc_runtime *rt, uint32_t index, uint32_t vector);
/*
 * The level of the INTx line, for a device that keeps it asserted until it was served. An asserted
 * line is delivered again each time the user unmasks it. The level is not part of the stream and is
 * low after a reset and a load: start() sets it from the state.
 */
QSC_API void qsc_irq_set_line(struct qsc_runtime *rt, bool asserted);

/* Have work(worker) called soon. Cheap when it is already due. */
QSC_API void qsc_work_kick(struct qsc_runtime *rt, uint32_t worker);

/*
 * From region_write(): have the work done in this thread, by work_here(), if work() of the worker
 * is not running and the device may work; else a kick. For work that takes less time than it takes
 * to wake another thread, and never for much of it: the user waits.
 */
QSC_API void qsc_work_try(struct qsc_runtime *rt, uint32_t worker);

/* A line for the log sink (qsc_log_set()), with the device's name put in front. */
QSC_API void qsc_runtime_log(struct qsc_runtime *rt, enum qsc_log_level level, const char *fmt, ...)
	QSC_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif
#endif
