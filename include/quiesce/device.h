/* SPDX-License-Identifier: MIT */
/*
 * A VFIO device as its user sees it: the one interface of Quiesce. The runtime and the
 * clients (vfio-user, the kernel) implement it; the server, the set, the migration engine and the
 * check use it; a layer (trace, fault, audit) implements it on top of another one.
 *
 * A `struct qsc_device` is an open handle: the user holds the device from open to
 * qsc_device_close(). Closing it is "the last user lets go" of clause STATE-5.
 *
 * Results: 0 or a count on success, -errno on failure. -ENODEV from a session call means that the
 * session has ended (SESS-2); -ENOTCONN that the device itself is gone (its server died); -ENOTTY
 * that this device does not have that facility at all; -EINVAL that the arguments are wrong for any
 * device. A device behind a socket adds -ETIMEDOUT (no answer in time) and -EPROTO (an answer that
 * is none); after either the connection is given up. Any call may find no memory: -ENOMEM.
 *
 * Threads: calls on one device may be made from several threads at once, except that close must be
 * the last. A state change, a reset and session calls exclude one another inside the device.
 * Nothing here may be called from a signal handler.
 *
 * Values with a VFIO name (region flags, interrupt flags and indices, device flags) are those of
 * <linux/vfio.h>.
 */
#ifndef QUIESCE_DEVICE_H
#define QUIESCE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_device;

#define QSC_LAYOUT_PARTS 32
#define QSC_LAYOUT_NAME	 64 /* bytes of a name and its NUL; printable ASCII */

enum qsc_layout_kind {
	QSC_LAYOUT_SECTION, /* fields; a later version may have more of them */
	QSC_LAYOUT_BLOCK,   /* memory of a fixed size, which has no version */
	QSC_LAYOUT_CUSTOM,  /* bytes that only the model understands; size is the most there are */
};

struct qsc_layout_part {
	char name[QSC_LAYOUT_NAME];
	enum qsc_layout_kind kind;
	uint16_t version;     /* what it saves */
	uint16_t min_version; /* the oldest that it loads */
	uint64_t size;	      /* bytes */
};

/*
 * What a device is, as far as its state stream must fit it (SESS-11): known before there is a
 * stream, so that two sides which will not understand each other find out before anything moves.
 * A device that does not say (a kernel driver, a server of another make) has an empty type.
 */
struct qsc_layout {
	char type[QSC_LAYOUT_NAME]; /* of the model, "dmacopy" */
	uint32_t num_parts;
	struct qsc_layout_part parts[QSC_LAYOUT_PARTS]; /* in the order of the stream */
};

/* VFIO_DEVICE_GET_INFO, and the layout of the device's state. */
struct qsc_device_info {
	uint32_t flags; /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions;
	uint32_t num_irqs;
	struct qsc_layout layout;
};

#define QSC_MAX_MMAP_AREAS 8

/* Of the operation region_change: see qsc_device_region_withdraw(). */
#define QSC_PROT_WITHDRAWN (-1)

struct qsc_mmap_area {
	uint64_t offset; /* bytes from the start of the region, page aligned */
	uint64_t size;	 /* bytes, page aligned */
};

/* VFIO_DEVICE_GET_REGION_INFO with its capability chain unpacked. */
struct qsc_region_info {
	uint32_t flags; /* VFIO_REGION_INFO_FLAG_READ, _WRITE, _MMAP */
	uint64_t size;	/* bytes; 0 when the device does not implement this index */
	/* What may be mapped: with _MMAP and no area, all of it (no sparse-mmap capability). */
	uint32_t num_areas;
	struct qsc_mmap_area areas[QSC_MAX_MMAP_AREAS];
	/*
	 * What an access to this region comes to while the device is stopped, where the device
	 * says so (a vendor-defined capability): `stopped_known`, then `stopped`.
	 */
	bool stopped_known;
	enum qsc_verdict stopped;
};

/* VFIO_DEVICE_GET_IRQ_INFO */
struct qsc_irq_info {
	uint32_t flags; /* VFIO_IRQ_INFO_* */
	uint32_t count; /* vectors; 0 when the device does not implement this index */
};

/* VFIO_DEVICE_SET_IRQS */
struct qsc_irq_set {
	uint32_t flags; /* one VFIO_IRQ_SET_DATA_* and one VFIO_IRQ_SET_ACTION_* */
	uint32_t index;
	uint32_t start;
	uint32_t count;
	const uint8_t *bools; /* count values, with DATA_BOOL */
	const int *fds; /* count eventfds or -1, with DATA_EVENTFD; the device duplicates them */
};

/* What became of interrupts since the device was made. Both only grow. */
struct qsc_irq_counts {
	uint64_t delivered; /* eventfds of the user's were signalled */
	uint64_t held;	    /* had to wait: the device was not fully running (DEV-6) */
};

#define QSC_DMA_READ  1U /* the device may read */
#define QSC_DMA_WRITE 2U /* the device may write */
/*
 * The range is a region of another device. A hint that lets a device tell peers from memory
 * (DEV-4); a device that is never told must treat every mapping as a possible peer.
 */
#define QSC_DMA_PEER 4U

/* Memory that can be reached only by asking its holder. Calls may come from any thread. */
struct qsc_dma_access {
	/* All of [iova, iova + size), or -errno and nothing. */
	int (*read)(void *ctx, uint64_t iova, void *buf, size_t size);
	int (*write)(void *ctx, uint64_t iova, const void *buf, size_t size);
	void *ctx;
};

/*
 * A range of the device's DMA address space. At least one of vaddr, fd and access says where the
 * memory is; an implementer takes the first it can use, in that order. `iova` and `size` are
 * multiples of 4 KiB, size is above zero and iova + size does not wrap.
 */
struct qsc_dma_mapping {
	uint64_t iova;
	uint64_t size;
	uint32_t flags; /* QSC_DMA_* */
	void *vaddr;	/* in this process, valid until unmapped; or NULL */
	int fd;		/* same memory as a file, duplicated by the device; or -1 */
	uint64_t fd_offset;
	const struct qsc_dma_access *access; /* valid until unmapped; or NULL */
};

struct qsc_dma_range {
	uint64_t iova;
	uint64_t size;
};

/* VFIO_DEVICE_FEATURE_MIGRATION and what stands beside it. */
struct qsc_migration_info {
	uint32_t flags; /* QSC_MIGRATION_* */
	bool dirty_log; /* DMA_LOGGING_START, _STOP and _REPORT exist */
};

/* VFIO_MIG_GET_PRECOPY_INFO */
struct qsc_precopy_info {
	uint64_t initial_bytes;
	uint64_t dirty_bytes;
};

/* One small write of several, VFIO_USER_REGION_WRITE_MULTI: count is 1 to 8 bytes. */
struct qsc_region_write {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	uint8_t data[8];
};

/* A part of a region that can be written by signalling an eventfd (an ioeventfd). */
struct qsc_io_fd {
	uint64_t offset; /* bytes from the start of the region */
	uint64_t size;	 /* bytes of an access that signals; 0 for any */
	int fd;		 /* eventfd, owned by the caller */
	bool match;	 /* only a write of `value` signals */
	uint64_t value;
};

/*
 * What an implementer provides. An operation that is NULL does not exist and answers -ENOTTY.
 * Callers use the functions further down, which check the arguments that are wrong for any device,
 * so that an implementer need not.
 */
struct qsc_device_ops {
	const char *kind; /* "runtime", "vfio-user", "trace", … */
	int (*get_info)(struct qsc_device *dev, struct qsc_device_info *info);
	int (*get_region_info)(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info);
	int (*get_irq_info)(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info);
	ssize_t (*region_read)(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count);
	ssize_t (*region_write)(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count);
	int (*region_write_multi)(struct qsc_device *dev, const struct qsc_region_write *writes,
				  size_t count);
	/* *addr: where it is to be, or NULL; where it is. */
	int (*region_map)(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr);
	int (*region_unmap)(struct qsc_device *dev, void *addr, size_t size);
	/* prot: PROT_*, or QSC_PROT_WITHDRAWN. */
	int (*region_change)(struct qsc_device *dev, void *addr, size_t size, int prot);
	int (*region_fd)(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset);
	int (*region_io_fds)(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			     size_t max);
	int (*set_irqs)(struct qsc_device *dev, const struct qsc_irq_set *set);
	int (*irq_counts)(struct qsc_device *dev, struct qsc_irq_counts *counts);
	int (*dma_map)(struct qsc_device *dev, const struct qsc_dma_mapping *mapping);
	int (*dma_unmap)(struct qsc_device *dev, uint64_t iova, uint64_t size);
	int (*get_migration)(struct qsc_device *dev, struct qsc_migration_info *info);
	int (*get_state)(struct qsc_device *dev, enum qsc_state *state);
	int (*set_state)(struct qsc_device *dev, uint32_t target, uint64_t *session);
	/* Optional, both or none: its two halves. */
	int (*set_state_begin)(struct qsc_device *dev, uint32_t target);
	int (*set_state_end)(struct qsc_device *dev, uint64_t *session);
	int (*data_size)(struct qsc_device *dev, uint64_t *size_bytes);
	int (*log_start)(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges);
	int (*log_stop)(struct qsc_device *dev);
	int (*log_report)(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap);
	ssize_t (*session_read)(struct qsc_device *dev, uint64_t session, void *buf, size_t size);
	/* Optional: without it a lend is a read. */
	ssize_t (*session_lend)(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
				struct iovec *iov, size_t max, size_t *count);
	ssize_t (*session_write)(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size);
	int (*session_precopy_info)(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info);
	int (*session_close)(struct qsc_device *dev, uint64_t session);
	int (*reset)(struct qsc_device *dev);
	void (*close)(struct qsc_device *dev);
};

/* Embedded first in an implementer's own structure. */
struct qsc_device {
	const struct qsc_device_ops *ops;
};

/* ---- queries: legal in every state ---- */

/* Kind of the implementer, "runtime" or "trace"; static storage. */
QSC_API const char *qsc_device_kind(const struct qsc_device *dev);
QSC_API int qsc_device_get_info(struct qsc_device *dev, struct qsc_device_info *info);
/* -EINVAL for an index the device does not have; size 0 for one it does not implement. */
QSC_API int qsc_device_get_region_info(struct qsc_device *dev, uint32_t region,
				       struct qsc_region_info *info);
QSC_API int qsc_device_get_irq_info(struct qsc_device *dev, uint32_t index,
				    struct qsc_irq_info *info);

/* ---- regions ---- */

/*
 * Access a region. ORD-1: registers only in RUNNING and PRE_COPY; a stopped device answers reads
 * with all ones and drops writes (DEV-7) and both still return count. The configuration space
 * region stays accessible as the allowed list says. Returns count, or -EINVAL for a range outside
 * the region, -EPERM for a direction the region does not have, -EIO for a configuration write in
 * ERROR, or what the device refuses it with.
 */
QSC_API ssize_t qsc_device_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset,
				       void *buf, size_t count);
QSC_API ssize_t qsc_device_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
					const void *buf, size_t count);

/*
 * Several small writes in order, each under the rules of region_write. Returns how many were done,
 * or -errno when the first failed; -EINVAL, with none done, when one has no data, more than 8 bytes
 * or wraps.
 */
QSC_API int qsc_device_region_write_multi(struct qsc_device *dev,
					  const struct qsc_region_write *writes, size_t count);

/*
 * Map part of a mappable region into this process: page-aligned offset and size within one mappable
 * area, prot of PROT_READ and PROT_WRITE. The mapping stays at its address until region_unmap (same
 * addr and size) or close. While the device is stopped it is revoked: it reads as all ones and
 * writes do not reach the device (DEV-7). A write made through it while revoked may be read back
 * through the same mapping until the device leaves STOP, and is then gone.
 *
 * -EINVAL for what is not page aligned or lies outside the mappable areas, -EPERM for a direction
 * the region does not have, -ENOMEM. Legal in every state. region_unmap: -EINVAL when no mapping of
 * that address and size was made.
 */
QSC_API int qsc_device_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset,
				  size_t size, int prot, void **addr);
/*
 * The same at an address of the caller's choice: page-aligned *addr, in place of whatever is mapped
 * there, as with MAP_FIXED; NULL leaves the choice to the system. *addr receives where it is; on
 * failure it is NULL, and what was mapped at the address before may be gone.
 */
QSC_API int qsc_device_region_map_at(struct qsc_device *dev, uint32_t region, uint64_t offset,
				     size_t size, int prot, void **addr);
QSC_API int qsc_device_region_unmap(struct qsc_device *dev, void *addr, size_t size);
/*
 * mprotect(2) for whole pages of what is mapped: prot of PROT_READ and PROT_WRITE, or PROT_NONE. It
 * holds over a revocation and the return from it, which mprotect(2) itself does not. -EACCES for a
 * direction that the region does not have, -EINVAL where not all of the pages are mapped, and
 * nothing has changed; -ENOMEM, and some of them may have. Part of a mapping may be changed:
 * region_unmap() takes the pieces one by one, or all that a mapping has been cut into. Legal in
 * every state.
 */
QSC_API int qsc_device_region_protect(struct qsc_device *dev, void *addr, size_t size, int prot);
/*
 * Whole pages of what is mapped are the region's no longer. Unlike after region_unmap() their
 * addresses are still taken, by memory that cannot be accessed, so that no other thread is given
 * them before the caller has unmapped them or put something else there. Errors as of
 * region_protect().
 */
QSC_API int qsc_device_region_withdraw(struct qsc_device *dev, void *addr, size_t size);

/*
 * The file behind a mappable region, to hand to another device or process; the region starts at
 * *fd_offset. The caller owns *fd. Such a mapping cannot be revoked; a change made through it by
 * the user while the device is stopped is found when the device leaves STOP and reported as ORD-1.
 * -EINVAL for a region that cannot be mapped. Legal in every state.
 */
QSC_API int qsc_device_region_fd(struct qsc_device *dev, uint32_t region, int *fd,
				 uint64_t *fd_offset);

/*
 * Ioeventfds of a region: returns how many there are and fills at most max; the caller owns the fds
 * filled in. -EINVAL for a region that the device does not have. Legal in every state.
 */
QSC_API int qsc_device_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
				     size_t max);

/* ---- interrupts ---- */

/*
 * VFIO_DEVICE_SET_IRQS. Legal in every state but ERROR (-EIO); promised everywhere but in RESUMING.
 * ORD-2: done after RESUMING is left and before RUNNING is entered. ACTION_TRIGGER with DATA_NONE
 * and count 0 tears an index down. A trigger from the user side of a device that is not fully
 * running takes effect at its next RUNNING. -EINVAL for an index, vectors or flags that the device
 * does not have, -ENOTTY for an action that it does not have (masking, say).
 */
QSC_API int qsc_device_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set);

/*
 * Set up `count` vectors of an index with eventfds, from vector 0 on, or tear the index down (fds
 * NULL). Legal and failing as set_irqs, on which it stands.
 */
QSC_API int qsc_device_set_eventfds(struct qsc_device *dev, uint32_t index, const int *fds,
				    uint32_t count);

/*
 * How many interrupts there were; of a vector that was not set up there are none. -ENOTTY where the
 * device signals them in another process, and does not say. Legal in every state.
 */
QSC_API int qsc_device_irq_counts(struct qsc_device *dev, struct qsc_irq_counts *counts);

/* ---- DMA mappings: legal in every state ---- */

/*
 * -EEXIST when it overlaps a mapping, -EINVAL for what no mapping can be, -ENOSPC for too many. A
 * device of the kernel: -EBUSY where vaddr is a mapped region of a device that is stopped (DEV-7),
 * and where another device of its IOMMU group has something else at these addresses.
 */
QSC_API int qsc_device_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping);
/*
 * Remove exactly one mapping made before. When it returns, no access through it is under way or
 * will come. -ENOENT when there is none at that iova and size.
 */
QSC_API int qsc_device_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size);

/* ---- migration ---- */

/* -ENOTTY: this device cannot migrate. */
QSC_API int qsc_device_get_migration(struct qsc_device *dev, struct qsc_migration_info *info);
/* STATE-4: the true state, after a failed request above all. */
QSC_API int qsc_device_get_state(struct qsc_device *dev, enum qsc_state *state);
/*
 * ARC-1 to ARC-7. Complete when it returns. *session receives the identifier of a session that was
 * opened (SESS-1), else 0; never 0 for a session. After a failure read the state (ORD-4).
 * -ENODATA: the stream written in RESUMING is not complete, and more may be written (SESS-6).
 */
QSC_API int qsc_device_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
/*
 * The same in two halves, for one who has many devices to ask: the device is told to go, and waited
 * for later. -EOPNOTSUPP: nothing was done, as this one cannot, or not now without waiting; use
 * qsc_device_set_state(). After 0 the end must follow, from any thread, and tells what came of it;
 * until then other state changes, resets and session calls wait, and the state is not to be relied
 * on. Any other failure is that of the whole.
 */
QSC_API int qsc_device_set_state_begin(struct qsc_device *dev, uint32_t target);
QSC_API int qsc_device_set_state_end(struct qsc_device *dev, uint64_t *session);
/* SESS-10: estimate of the stop-copy stream in bytes; in every state but ERROR (-EIO). */
QSC_API int qsc_device_data_size(struct qsc_device *dev, uint64_t *size_bytes);

/*
 * SESS-2, SESS-3: bytes of the stream, 0 at its end (STOP_COPY), -ENOMSG when drained for now
 * (PRE_COPY states), -ENODEV when the session has ended.
 */
QSC_API ssize_t qsc_device_session_read(struct qsc_device *dev, uint64_t session, void *buf,
					size_t size);
/*
 * session_read for one who only passes the bytes on: what the device can leave where it lies is not
 * copied. The same bytes, results and effect; `iov`, which has `max` entries (at least 1), receives
 * in *count pieces that follow one another in the stream. A piece lies in `buf`, which has room for
 * all of `size`, or in memory of the device, to be read only; there it keeps its contents until the
 * state that it was read in is left, or the device is reset or closed. Who writes to a stopped
 * device's memory through a mapping that cannot be revoked (ORD-1) makes a stream that fails its
 * validation.
 */
QSC_API ssize_t qsc_device_session_lend(struct qsc_device *dev, uint64_t session, void *buf,
					size_t size, struct iovec *iov, size_t max, size_t *count);
/*
 * SESS-5: any segmentation. Returns size, or -errno when the stream is refused (SESS-6, 11); how
 * much of the buffer was taken is then not known, and the load must be given up with a reset.
 */
QSC_API ssize_t qsc_device_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
					 size_t size);
/* SESS-4: only in PRE_COPY and PRE_COPY_P2P, else -EINVAL. */
QSC_API int qsc_device_session_precopy_info(struct qsc_device *dev, uint64_t session,
					    struct qsc_precopy_info *info);
/*
 * Let go of the handle; the device stays in its state. Its number is never used again. -ENODEV when
 * the session has ended already.
 */
QSC_API int qsc_device_session_close(struct qsc_device *dev, uint64_t session);

/* ---- dirty log: LOG-1 to LOG-4 ---- */

/*
 * *page_size: wished in, chosen out; a power of two of at least 4096 bytes. -EINVAL for ranges that
 * are none, wrap or overlap (LOG-3), -EBUSY while a log is running; -E2BIG for more than can be
 * logged. In every state (LOG-4) but ERROR, where it is -EIO. stop ends the log and drops what it
 * holds; -EINVAL when none is running.
 */
QSC_API int qsc_device_log_start(struct qsc_device *dev, uint64_t *page_size,
				 const struct qsc_dma_range *ranges, size_t num_ranges);
QSC_API int qsc_device_log_stop(struct qsc_device *dev);
/*
 * Set in `bitmap` (one bit per page_size from iova on, little-endian words of 64; never cleared
 * here) every page written since it was last reported, and clear it in the log. Any page size that
 * is a power of two of at least 4096; iova a multiple of it and size at least 1. -EINVAL for other
 * arguments and while no log is running.
 */
QSC_API int qsc_device_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size,
				  uint64_t page_size, uint64_t *bitmap);

/* ---- reset and close ---- */

/*
 * ARC-5: RUNNING with power-on contents, from every state; sessions and log end. -errno when the
 * device could not be reset; its state is then read (ORD-4).
 */
QSC_API int qsc_device_reset(struct qsc_device *dev);
/* STATE-5. dev may be NULL. */
QSC_API void qsc_device_close(struct qsc_device *dev);

/* ---- layers ---- */

/*
 * A layer that writes one line for every action to `line` (without newline; calls may come from
 * several threads at once): microseconds since the layer was made, name, state the action met where
 * known, action, arguments, result, nanoseconds it took. *out takes over `inner` and closes it.
 * With line NULL it only passes through. qsc_trace_set() switches at any time, except from inside
 * `line`; when it returns, nobody is in the old one any more.
 */
typedef void qsc_trace_fn(void *ctx, const char *line);
QSC_API int qsc_trace_open(struct qsc_device *inner, const char *name, qsc_trace_fn *line,
			   void *ctx, struct qsc_device **out);
QSC_API void qsc_trace_set(struct qsc_device *trace, qsc_trace_fn *line, void *ctx);

/*
 * A layer that fails, delays, kills or lies where a specification says so:
 *
 *	SPEC = RULE[,RULE...]
 *	RULE = [NAME.]POINT[:ARG][/STATE][@WHEN]=KIND
 *
 * NAME: only for the device of that name. POINT: open, close, reset, get-info,
 * get-region-info[:REGION], get-irq-info[:INDEX], region-read[:REGION], region-write[:REGION],
 * region-map[:REGION], set-irqs[:INDEX], irq[:VECTOR] (an interrupt from the device), dma-map,
 * dma-unmap, get-migration, get-state, set-state[:TARGET] (a request), arc[:FROM-TO] (one arc on a
 * request's path), data-size, log-start, log-stop, log-report, session-read, session-write,
 * precopy-info, session-close. /STATE: only where the action meets that state. WHEN: of the actions
 * that fit, counted from 1 for each open: N, N+ (from N on), N-M, or P%[:SEED] (by chance, the same
 * for the same seed). KIND, the first five instead of the action:
 *
 *	ERRNO		   it fails: EIO, ENOMEM, ENOSPC (disk full), ...
 *	break[:ERRNO]	   set-state and arc: it fails (EIO) and the device is in ERROR until reset
 *	disconnect	   -ENOTCONN, from now on from every action
 *	kill		   the process ends by SIGKILL
 *	skip		   nothing is done and success is reported; session-read: the end (0)
 *	delay:TIME	   before it; TIME in us, ms or s
 *	move:STATE	   before it the device changes to STATE by itself
 *	scribble[:peer]	   before it the last byte of each mapping that the device may write
 *			   changes, unlogged; of memory, or of peers
 *	short[:N]	   session and region data: only N bytes (1)
 *	flip[:N]	   the same: one bit of byte N of them is wrong (the middle one)
 *	fill:BYTE	   what is read is that
 *	drop[:P%[:SEED]]   log-report: dirty bits get lost, all or by chance; irq: interrupts
 *	repeat		   log-report: dirty bits come twice; irq: interrupts
 *	nolog		   get-migration: the device has no dirty log
 *	session:none	   set-state opens a session and does not say so
 *	session:again	   set-state says a session where none was opened
 *	say:VALUE	   it is done, and this is reported: an errno; 0; a state (get-state); a
 *			   number (data-size; flags of get-migration; initial bytes of precopy-info;
 *			   counts, never beyond the buffer)
 *	turn:ERRNO:ERRNO   where it fails with the first ("any"), the second (0: success) is
 *			   reported
 *
 * Several rules may strike the same action; of two of the same kind the later one counts. A region
 * that is mapped is accessed without the layer. `struck`, which may be NULL, gets the text of a
 * rule when it strikes for the first time; from any thread. *out takes over `inner` and closes it;
 * after a failure it is still the caller's. `name` may be NULL.
 *
 * -EINVAL: the specification is wrong; -ENOMEM; or what the rule at `open` says.
 */
typedef void qsc_fault_fn(void *ctx, const char *rule);
QSC_API int qsc_fault_open(struct qsc_device *inner, const char *name, const char *spec,
			   qsc_fault_fn *struck, void *ctx, struct qsc_device **out,
			   struct qsc_error *err);
/* Whether a specification can be understood: 0, or -EINVAL with one sentence. */
QSC_API int qsc_fault_check(const char *spec, struct qsc_error *err);
/*
 * The same, and whether each rule that is for one device is for one of these: another could never
 * strike.
 */
QSC_API int qsc_fault_check_names(const char *spec, const char *const *names, size_t count,
				  struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
