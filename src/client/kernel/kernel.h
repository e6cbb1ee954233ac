/* SPDX-License-Identifier: MIT */
/*
 * A device of the kernel's VFIO, as its user sees it: what the parts of this client share. It is
 * reached through its own device file and iommufd, or through its group and a container; once it is
 * open, only dma.c and log.c know which.
 *
 * Kernels and drivers promise less than <quiesce/device.h> does. What they lack and can be had by a
 * user is made up for here: accesses that a stopped device should discard do not reach it, a
 * session that could not be handed out is undone, and a device is never let go in RESUMING. A raw
 * device is what its driver makes it: none of that is done.
 */
#ifndef QSC_CLIENT_KERNEL_H
#define QSC_CLIENT_KERNEL_H

#include <pthread.h>
#include <stdatomic.h>

#include <quiesce/device.h>

#include "abi/vfio.h"
#include "base/gate.h"
#include "device/mapping.h"
#include "rpc/table.h"

/* Where a device is, as far as a name and /sys tell. */
struct qsc_kernel_place {
	char name[64];	   /* as the person wrote it */
	char device[64];   /* "0000:3b:00.2", the UUID of a mediated device; "" when not known */
	char cdev[64];	   /* "/dev/vfio/devices/vfio3", or "" */
	char group[64];	   /* "/dev/vfio/12", or "" */
	char group_id[16]; /* "12", or "" */
	char driver[64];   /* bound to it, or "" */
	bool mediated;
	bool no_iommu; /* its group is one without protection */
};

enum qsc_kernel_via {
	QSC_KERNEL_AUTO,
	QSC_KERNEL_CDEV,
	QSC_KERNEL_LEGACY,
};

/* How to reach it, as the options behind the name say. */
struct qsc_kernel_way {
	enum qsc_kernel_via via;
	bool raw;
};

/*
 * find.c: `text` is what follows "vfio:" in a URI. `root` stands in front of /sys, "" for the
 * machine's. -EINVAL with the reason when the text is no name, -ENOENT, -ENODEV and others when
 * there is no such device or it is not one that VFIO can hand out.
 */
int qsc_kernel_find(const char *root, const char *text, struct qsc_kernel_place *place,
		    struct qsc_kernel_way *way, struct qsc_error *err);
/* Members of the device's group that keep it from being handed out: "0000:00:1f.0 (nvme)", … */
void qsc_kernel_group_blockers(const char *root, const struct qsc_kernel_place *place, char *text,
			       size_t size);

/* A device in a space. */
struct qsc_kernel_member {
	struct qsc_kernel_member *next;
	char device[64]; /* its place's, for messages; "" when not known */
};

/* Where devices do DMA, of one device or of several of a group: see space.c. */
struct qsc_kernel_space {
	struct qsc_kernel_space *next;
	char group_id[16]; /* "" where it is not shared */
	unsigned int refs;

	/* Guards what follows; from get to put it is held by who attaches or detaches. */
	pthread_mutex_t lock;
	struct qsc_kernel_member *members;
	int iommufd, group, container;	      /* -1 where there is none; all -1 without a member */
	uint32_t ioas;			      /* with iommufd */
	uint32_t hwpt;			      /* a page table that can track dirty pages, or 0 */
	const struct qsc_kernel_member *logs; /* whose log the page table's is; or NULL */
	void *ranges;			      /* what the kernel has mapped: a tree of tsearch() */
	size_t num_ranges;
};

/* The space of a group, "" for one of one's own: with its lock taken, or NULL for no memory. */
struct qsc_kernel_space *qsc_kernel_space_get(const char *group_id);
/* Gives the lock back. Without a member its descriptors are closed, and its mappings end. */
void qsc_kernel_space_put(struct qsc_kernel_space *space);

/* Lock held, no member: back to how it began. */
void qsc_kernel_space_close(struct qsc_kernel_space *space);

/* Lock held. enter: NULL for no memory. has: whether a device of that name is in it. */
struct qsc_kernel_member *qsc_kernel_space_enter(struct qsc_kernel_space *space,
						 const char *device);
void qsc_kernel_space_leave(struct qsc_kernel_space *space, struct qsc_kernel_member *member);
bool qsc_kernel_space_has(const struct qsc_kernel_space *space, const char *device);

/* The dirty log of the page table is one: false where it has none, or another member has it. */
bool qsc_kernel_space_claim_log(struct qsc_kernel_space *space, struct qsc_kernel_member *member);
void qsc_kernel_space_yield_log(struct qsc_kernel_space *space, struct qsc_kernel_member *member);

/*
 * A mapping of a member's more, by vaddr or else by fd. -EBUSY, said in the log with the names:
 * another member has something else there. unmap: one of those made before less.
 */
int qsc_kernel_space_map(struct qsc_kernel_space *space, const struct qsc_kernel_member *member,
			 const struct qsc_dma_mapping *mapping);
int qsc_kernel_space_unmap(struct qsc_kernel_space *space, uint64_t iova, uint64_t size);

/* attach.c: an open device, and where it does DMA. The space is held until detach. */
struct qsc_kernel_files {
	int device;
	struct qsc_kernel_space *space;
	struct qsc_kernel_member *member;
};

int qsc_kernel_attach(const struct qsc_kernel_place *place, enum qsc_kernel_via via,
		      struct qsc_kernel_files *files, struct qsc_error *err);
/* `table`: what the device has mapped, or NULL. */
void qsc_kernel_detach(struct qsc_kernel_files *files, const struct qsc_dma_table *table);

enum qsc_kernel_log {
	QSC_KERNEL_LOG_NONE,
	QSC_KERNEL_LOG_DEVICE,
	QSC_KERNEL_LOG_IOMMU,
};

struct qsc_kernel_region {
	struct qsc_region_info info;
	uint64_t fd_offset;
};

struct qsc_kernel_held; /* a trigger that waits for the device to run */

/* What an index of interrupts is set up with, where the kernel cannot add to it: see irqs.c. */
struct qsc_kernel_vectors {
	int *fds; /* count of them, duplicates of the user's or -1 */
	uint32_t count;
};

struct qsc_kernel {
	struct qsc_device dev;
	char name[120]; /* the URI without options, for messages */
	/* Closed, and the mappings revoked, where a register access is to be discarded (DEV-7). */
	struct qsc_gate access;
	struct qsc_mappings mappings;
	struct qsc_kernel_files files;

	/* Constant once open. */
	bool raw;
	uint32_t flags; /* VFIO_DEVICE_FLAGS_* */
	uint32_t num_regions;
	uint32_t num_irqs;
	struct qsc_kernel_region *regions;
	bool migratable;
	bool holds;	    /* triggers itself: its regions say that it knows the contract */
	uint32_t migration; /* QSC_MIGRATION_* */
	enum qsc_kernel_log log;

	/* Whose turn it is (turn.c); also guards what follows. */
	pthread_mutex_t state_lock;
	pthread_cond_t turn;
	unsigned int waiting;	   /* session calls that wait for the driver, without the lock */
	unsigned int interrupting; /* those who are about to take a turn before them */
	unsigned int queued;	   /* session calls that wait for the one that transfers */
	int wake_fd;		   /* eventfd; readable while somebody interrupts */
	_Atomic uint32_t state;	   /* read without the lock by those who ask what is legal */
	bool state_known;	   /* false: it has to be asked for (ORD-4) */
	bool transferring;	   /* a session call reads or writes */
	uint64_t session;	   /* the one that is open, or 0 */
	uint64_t last_session;
	int session_fd;
	bool refused;		/* the driver did not take some of what was written in RESUMING */
	_Atomic bool condemned; /* then it is in ERROR until a reset, whatever the driver says */
	struct qsc_kernel_vectors *vectors; /* num_irqs of them */
	struct qsc_kernel_held *held;
	uint32_t num_held;

	/* Guards what follows. */
	pthread_mutex_t dma_lock;
	struct qsc_dma_table table;
	bool logging;
	struct qsc_dma_range *logged; /* the ranges of the log */
	size_t num_logged;
	struct qsc_dma_range
		*carried; /* unmapped since the last report: written, for all we know */
	size_t num_carried;
};

static inline struct qsc_kernel *qsc_kernel_of(struct qsc_device *dev)
{
	return (struct qsc_kernel *)dev;
}

/* ioctl() that goes on after a signal; 0, a positive result, or -errno. */
int qsc_kernel_ioctl(int fd, unsigned long request, void *arg);

/* VFIO_DEVICE_FEATURE with `size` bytes (at most 64) of data, in and out. */
int qsc_kernel_feature(int fd, uint32_t feature_and_method, void *data, size_t size);

/*
 * What becomes of an error of opening: EINVAL is for what was written (<quiesce/client.h>), which
 * is right once there is such a device. The text stays.
 */
int qsc_kernel_refusal(int result, struct qsc_error *err);

/* What the contract says to an action now: 0 do it, 1 discard it, or the -errno that refuses it. */
int qsc_kernel_verdict(struct qsc_kernel *kernel, enum qsc_action action);

/* -errno of what the device refused; ENODEV there means that it is gone, except of a raw one. */
int qsc_kernel_failure(const struct qsc_kernel *kernel, int number);

/*
 * turn.c: to change the state or end a session. Session calls that wait for the driver have let go
 * of the session's descriptor, and go on when the lock is given back.
 */
void qsc_kernel_lock_state(struct qsc_kernel *kernel);
void qsc_kernel_unlock_state(struct qsc_kernel *kernel);
/* Around a session's read or write: takes the state lock, after other such calls have ended. */
void qsc_kernel_begin_transfer(struct qsc_kernel *kernel);
void qsc_kernel_end_transfer(struct qsc_kernel *kernel);
/*
 * Within: wait for `events` of the session's descriptor (0: only let time pass). Positive when it
 * is worth a look, 0 when nothing came in that time, -errno. The session may have ended.
 */
int qsc_kernel_await(struct qsc_kernel *kernel, short events, int patience_ms);

/* regions.c */
int qsc_kernel_learn_regions(struct qsc_kernel *kernel);
int qsc_kernel_get_info(struct qsc_device *dev, struct qsc_device_info *info);
int qsc_kernel_get_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info);
ssize_t qsc_kernel_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count);
ssize_t qsc_kernel_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count);
int qsc_kernel_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr);
int qsc_kernel_region_unmap(struct qsc_device *dev, void *addr, size_t size);

/* irqs.c */
int qsc_kernel_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info);
int qsc_kernel_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set);
void qsc_kernel_forget_irqs(struct qsc_kernel *kernel);
/* State lock held: triggers that were held take effect, or are dropped. */
void qsc_kernel_release_held(struct qsc_kernel *kernel, bool deliver);

/* dma.c */
int qsc_kernel_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping);
int qsc_kernel_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size);
/* state.c */
int qsc_kernel_learn_migration(struct qsc_kernel *kernel, struct qsc_error *err);
int qsc_kernel_get_migration(struct qsc_device *dev, struct qsc_migration_info *info);
int qsc_kernel_get_state(struct qsc_device *dev, enum qsc_state *state);
int qsc_kernel_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
int qsc_kernel_data_size(struct qsc_device *dev, uint64_t *size_bytes);
int qsc_kernel_reset(struct qsc_device *dev);
/* Nobody else uses the device any more: leave it as its next user may find it (STATE-5, ORD-9). */
void qsc_kernel_leave(struct qsc_kernel *kernel);

/* session.c */
ssize_t qsc_kernel_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size);
ssize_t qsc_kernel_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size);
int qsc_kernel_session_precopy_info(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info);
int qsc_kernel_session_close(struct qsc_device *dev, uint64_t session);

/* log.c */
void qsc_kernel_prove_log(struct qsc_kernel *kernel);
int qsc_kernel_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges);
int qsc_kernel_log_stop(struct qsc_device *dev);
int qsc_kernel_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap);
/* DMA lock held: a range is about to be unmapped. */
int qsc_kernel_log_carry(struct qsc_kernel *kernel, uint64_t iova, uint64_t size);

/* The device behind these descriptors, which are taken over, also on failure. */
int qsc_kernel_take(struct qsc_kernel_files *files, const char *name, bool raw,
		    struct qsc_device **dev, struct qsc_error *err);

/* Open the device of a URI without its "vfio:"; raw also when the URI says so. */
int qsc_kernel_open(const char *text, bool raw, struct qsc_device **dev, struct qsc_error *err);

#endif
