/* SPDX-License-Identifier: MIT */
/*
 * Conformance of a device: every clause of the contract that binds a device, every cell of the
 * allowed list, and seeded random walks over all actions with the contract as oracle, tried on any
 * `struct qsc_device`. Nothing here knows who implements it; what a device must be made to do (DMA,
 * interrupts) is done by an exerciser that knows its kind.
 *
 * A device that is checked is reset, stopped, loaded and let go of many times: it must have no
 * other user, and nothing that it holds survives.
 *
 * Threads: one at a time for each device. RLIMIT_NOFILE of the process changes for a moment while
 * SESS-9 is tried.
 */
#ifndef QUIESCE_CHECK_H
#define QUIESCE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

enum qsc_check_result {
	QSC_CHECK_HOLDS,
	QSC_CHECK_BROKEN,
	QSC_CHECK_NOT_PROMISED, /* the device lacks the capability that is spoken of */
	QSC_CHECK_NOT_TRIED,	/* something else was in the way; the text says what */
};
#define QSC_CHECK_RESULT_COUNT 4

/* "holds", "broken", "not promised", "could not be tried"; "?" for none. */
QSC_API const char *qsc_check_result_name(enum qsc_check_result result);

/* ---- what is checked ---- */

/* A clause of a device, a row of the allowed list, or the walks. */
struct qsc_check_item {
	const char *id;		/* "SESS-6", "config-write", "walk" */
	enum qsc_clause clause; /* QSC_CLAUSE_COUNT where it is none */
	const char *text;	/* what the contract says, in one sentence */
};

/* The items in the order in which they are tried; -EINVAL from the number of items on. */
QSC_API int qsc_check_item(size_t index, struct qsc_check_item *item);
/* Index of the item of that identifier, or -EINVAL. */
QSC_API int qsc_check_item_find(const char *id);

/* ---- who holds the device ---- */

struct qsc_check_opener {
	/* -EBUSY is tried again for a while: the user before may not be gone yet. */
	int (*open)(void *ctx, struct qsc_device **dev, struct qsc_error *err);
	/* After qsc_device_close(): back when the device has been let go of. May be NULL. */
	void (*closed)(void *ctx);
	void *ctx;
};

/* ---- who makes it work ---- */

#define QSC_CHECK_QUEUE_SIZE   0x40000ULL /* bytes */
#define QSC_CHECK_PATTERN_SIZE 0x40000ULL /* bytes */

/* What an exerciser has to work with; all memory is mapped into the device's DMA space. */
struct qsc_check_bench {
	struct qsc_device *dev;
	void *queue; /* QSC_CHECK_QUEUE_SIZE, page aligned, for the exerciser alone */
	uint64_t queue_iova;
	const void *pattern; /* QSC_CHECK_PATTERN_SIZE, never written */
	uint64_t pattern_iova;
};

/* Stands for the device's own memory, which has no IOVA, as destination of a copy. */
#define QSC_CHECK_DEVICE_MEMORY 0xd000000000ULL

/* The device is to write bytes of the pattern somewhere, in any order with other copies. */
struct qsc_check_copy {
	uint64_t source;      /* offset in the pattern */
	uint64_t destination; /* IOVA, or QSC_CHECK_DEVICE_MEMORY and an offset */
	uint32_t size;	      /* bytes; source, destination and size are multiples of the granule */
	uint32_t vector;      /* 0 to 3, raised when it is complete */
};

/*
 * Somebody who knows a kind of device. All functions may return -errno, which is then the reason
 * why something could not be tried. One that knows no more than a register leaves the functions
 * NULL, one that has no register or memory to show leaves their sizes 0. Static storage.
 */
struct qsc_exerciser {
	const char *name;
	/* Whether this device is of that kind; it is RUNNING. No state of it is to change. */
	bool (*knows)(struct qsc_device *dev, const struct qsc_device_info *info);
	/* A register of 1, 2, 4 or 8 bytes that is state and, in the bits of the mask, reads as
	 * written; a reset makes it what it was. Its other bits are written as they were read. */
	uint32_t register_region;
	uint32_t register_size;
	uint64_t register_offset;
	uint64_t register_mask;
	/* Memory of the device that is state: a region that can be mapped, zero after a reset. */
	uint32_t memory_region;
	uint64_t memory_size;
	/* Interrupt vectors of copies: 4, from the first on. */
	uint32_t irq_index;
	uint32_t first_vector;
	uint32_t granule;      /* bytes, a power of two up to 4096 */
	bool to_device_memory; /* copies may go there, and it is state */
	bool keeps;	       /* a reset leaves in that memory what it holds, as on a disk */
	/* Make a device that is RUNNING after a reset ready for up to 256 copies. */
	int (*prepare)(const struct qsc_check_bench *bench);
	/* Hand over a copy: a matter of memory only. */
	int (*submit)(const struct qsc_check_bench *bench, const struct qsc_check_copy *copy);
	/* Have the device look at what it has: a register access. */
	int (*kick)(const struct qsc_check_bench *bench);
	/* How many copies with a vector the device has said to be complete since prepare(): a
	 * matter of memory only. With it an interrupt may stand for several, without it there is
	 * one for each. */
	uint32_t (*completed)(const struct qsc_check_bench *bench, uint32_t vector);
};

/* ---- the check ---- */

/* A whole, uncorrupted stream of something that the device must not take for its own. */
struct qsc_check_foreign {
	const char *what; /* "a stream of a device with more memory" */
	const void *data;
	size_t size;
};

enum qsc_check_peers {
	QSC_CHECK_PEERS_UNKNOWN, /* memory DMA in P2P states is not judged */
	QSC_CHECK_PEERS_TOLD,	 /* the device tells peers from memory */
	QSC_CHECK_PEERS_NOT_TOLD,
};

/* What came of one item. Everything in it is valid for the call only. */
struct qsc_check_finding {
	struct qsc_check_item item;
	enum qsc_check_result result;
	/* What was seen and, where broken, what should have been; what of it was left out. */
	const char *text;
	/* Where broken: the clause that is; QSC_CLAUSE_COUNT where a rule of the allowed list or of
	 * the interface is that no clause names, or where the device answers no more, whatever was
	 * tried. Else that of the item. */
	enum qsc_clause clause;
	/*
	 * Where broken: the actions since the device was made ready, one a line, "device STATE
	 * action argument=value… = result", or "destination …": the state is the one that it met,
	 * "?" where nobody has asked since a request failed; a result is 0, a count or -ERRNO.
	 * `omitted` lines are left out after the first `head` ones.
	 */
	const char *const *steps;
	size_t num_steps;
	size_t head;
	uint64_t omitted;
	uint64_t seed; /* of the walk that broke it, else 0 */
	uint64_t took_us;
	bool gone;     /* broken, because the device answers no more, whatever was tried */
	bool unopened; /* not tried, because the device could not be opened again */
	bool partly;   /* holds as far as it could be tried; the text says what could not */
};

struct qsc_check_options {
	struct qsc_check_opener device;
	/* Another device that takes what the first one saves; open NULL: the first one does. */
	struct qsc_check_opener to;
	const bool *items; /* one for each item: to be tried; NULL: all */
	const struct qsc_exerciser *const *exercisers; /* ended by NULL; or NULL */
	const struct qsc_check_foreign *foreign;
	size_t num_foreign;
	enum qsc_check_peers peers;
	/* Try also what is known to crash some kernels: letting go of a device while it loads. */
	bool dangerous;
	const uint64_t *seeds; /* of walks; NULL: 1 to 8 */
	size_t num_seeds;
	uint32_t walk_steps; /* actions in a walk; 0: 400 */
	/* Microseconds a device is watched for what it must not do, each time; 0: 1500. */
	uint32_t settle_us;
	/* Milliseconds it is waited for what it must do; 0: 5000. */
	uint32_t await_ms;
	/* How often the device has reported ORD-1 so far; NULL where it cannot be asked. */
	uint64_t (*violations)(void *ctx);
	void *violations_ctx;
	/* One finding for every item, in order. */
	void (*found)(void *ctx, const struct qsc_check_finding *finding);
	void *found_ctx;
};

/* What is known of the device before anything is tried. */
struct qsc_check_subject {
	bool migrates;
	uint32_t flags; /* as reported, QSC_MIGRATION_* */
	bool dirty_log;
	const char *kind;		 /* of the implementer */
	char type[QSC_LAYOUT_NAME];	 /* of the model, where the device says so */
	uint16_t pci_vendor, pci_device; /* 0 where it is no PCI device */
	const char *exerciser;		 /* name, or NULL */
};

/*
 * Try all items and leave the device reset and let go of. 0 when every one has got its finding,
 * whatever that is; -errno when the device (or the destination) cannot be opened or looked at at
 * all, or there is no memory; then err says why. subject may be NULL.
 */
QSC_API int qsc_check_run(const struct qsc_check_options *options,
			  struct qsc_check_subject *subject, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
