/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the NVMe controller share. All that migrates is in `struct state`: the
 * registers, the queues, and the commands that were fetched and are not yet complete.
 *
 * Workers: number 0 serves the admin queue, number n up to `queues` the submission queue n, and
 * those above them take over commands that would make a queue wait for the disk. Each worker has a
 * slot in the state for the one command that it works on.
 *
 * `lock` guards the state and all that is below it in `struct controller`, and is never held across
 * DMA or file accesses. A step of a worker copies its slot, works without the lock, and writes the
 * copy back; only deleting the queue or resetting the controller takes a command away meanwhile,
 * and both wait for the steps that are under way.
 */
#ifndef NVME_CONTROLLER_H
#define NVME_CONTROLLER_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "nvme/nvme.h"
#include "nvme/spec.h"

#define BLOCK_SHIFT    9
#define MEDIA_BLOCK    0U
#define QUEUE_ENTRIES  1024U /* most of an I/O queue: CAP.MQES + 1 */
#define ADMIN_ENTRIES  4096U
#define TRANSFER_SHIFT 7 /* MDTS */
#define TRANSFER_MAX   (4096U << TRANSFER_SHIFT)
#define PAGE_SHIFT_MAX 16U
#define HELPERS	       8U
#define QUEUES	       (1U + NVME_QUEUES_MAX)
#define SLOTS	       (QUEUES + HELPERS)
#define EVENT_REQUESTS 4U
#define ERROR_ENTRIES  16U
#define TEMPERATURE    303U /* Kelvin; nothing here ever gets warm */

/* A state change waits for the pieces that are under way. */
#define PIECE_SIZE 65536U

enum phase {
	PHASE_IDLE,
	PHASE_RUN,  /* `done` of it is done */
	PHASE_DONE, /* status and result are known; waits for room in the completion queue */
	PHASE_POST, /* has its entry there, which is to be written */
	PHASE_COUNT
};

#define LIST_VALID 1ULL

/* A command that was fetched and is not complete. All zero when idle. */
struct slot {
	uint32_t phase;
	uint32_t sqid;
	uint64_t words[8]; /* struct nvme_command */
	uint64_t done;	   /* bytes of it, or of the range */
	uint64_t list;	   /* address of the next PRP entry with LIST_VALID, or 0: not there yet */
	uint64_t range;	   /* of dataset management */
	uint32_t status;   /* NVME_SC_* */
	uint32_t result;
	uint32_t entry; /* in the completion queue */
	uint32_t tag;
};

struct sq {
	uint32_t size; /* entries; 0: there is none */
	uint32_t cqid;
	uint32_t head;
	uint32_t tail;
	uint64_t base;
};

struct cq {
	uint32_t size;
	uint32_t head;
	uint32_t tail; /* of what has been given to a command */
	uint32_t tag;
	uint32_t vector;
	uint32_t interrupts;
	uint64_t base;
};

struct error_entry {
	uint64_t count;
	uint64_t lba;
	uint32_t sqid;
	uint32_t cid;
	uint32_t status;
	uint32_t nsid;
};

struct state {
	uint32_t cc;
	uint32_t csts;
	uint32_t aqa;
	uint32_t intms;
	uint64_t asq;
	uint64_t acq;

	uint64_t blocks; /* of the namespace: who loads it must have as many */
	uint32_t queues;
	uint8_t serial[NVME_SERIAL_SIZE];

	uint32_t arbitration;
	uint32_t temperature_over;
	uint32_t temperature_under;
	uint32_t error_recovery;
	uint32_t write_cache;
	uint32_t coalescing;
	uint64_t vectors_apart; /* not coalesced: a bit each */
	uint32_t atomicity;
	uint32_t async_config;

	uint32_t event_requests; /* how many of the cids */
	uint32_t event_cids[EVENT_REQUESTS];
	uint32_t event_pending[NVME_EVENT_TYPES]; /* information + 1, or 0 */
	uint32_t event_masked[NVME_EVENT_TYPES];  /* told, and the log not read since */

	uint64_t bytes_read;
	uint64_t bytes_written;
	uint64_t reads;
	uint64_t writes;
	uint64_t errors;
	struct error_entry error_log[ERROR_ENTRIES]; /* number n in place n modulo all */

	struct sq sqs[QUEUES];
	struct cq cqs[QUEUES];
	struct slot slots[SLOTS];
};

struct media {
	struct qsc_runtime *rt;
	char *path;	 /* or NULL: the block */
	uint8_t *memory; /* of the block */
	uint64_t size;	 /* bytes */
	bool readonly;
	_Atomic bool no_nowait; /* the file system cannot say that a read would wait */
	int fd;			/* held with its lock, or -1 */
};

struct controller {
	struct qsc_runtime *rt;
	struct qsc_model model; /* `workers` is its own */
	struct state *state;
	struct media media;
	uint32_t queues; /* for I/O */
	uint8_t serial[NVME_SERIAL_SIZE];

	pthread_mutex_t lock;
	/* Derived: at rest in a stopped device, set anew by start(). */
	bool resetting;	   /* CC.EN was cleared while steps were under way */
	uint32_t steps;	   /* under way without the lock */
	uint64_t busy;	   /* whose slots are in a step: a bit each */
	uint64_t taken;	   /* whose entries the driver took while they were being written */
	uint64_t waiting;  /* whose slots wait for room in a completion queue */
	uint64_t deleting; /* submission queues that are about to go */
	uint32_t epoch;	   /* changes when a queue comes or goes */
};

static inline struct nvme_command *slot_command(struct slot *slot)
{
	return (struct nvme_command *)(void *)slot->words;
}

static inline uint64_t bit(uint32_t number)
{
	return 1ULL << number;
}

static inline uint32_t page_shift(uint32_t cc)
{
	return 12 + (cc >> NVME_CC_MPS_SHIFT & 0xf);
}

static inline uint32_t workers_of(uint32_t queues)
{
	return 1 + queues + HELPERS;
}

/* ---- state.c ---- */

extern const struct qsc_section nvme_sections[];
/* As validate() of struct qsc_model. */
int nvme_validate(void *ctx, const void *candidate, struct qsc_error *err);

/* ---- media.c: where the blocks are. Without the lock. ---- */

/* Look at the file, if it is one: its size counts from here on. */
int nvme_media_init(struct media *media, const struct nvme_options *options, struct qsc_error *err);
void nvme_media_destroy(struct media *media);
/* Have the file for ourselves, as it was when we were made. -errno: not; it is in the log why. */
int nvme_media_take(struct media *media);
/* What was written is safe, and the file another's. 0 or -errno. */
int nvme_media_give(struct media *media);
static inline bool nvme_media_ready(const struct media *media)
{
	return !media->path || media->fd >= 0;
}
/*
 * Move bytes between the medium and memory. 0, an NVMe status, or -EAGAIN when the gate is closed;
 * -EINPROGRESS from a read that would wait, unless it may. At most PIECE_SIZE bytes.
 */
int nvme_media_read(struct media *media, uint64_t offset, const struct qsc_dma_piece *pieces,
		    size_t count, bool may_wait);
int nvme_media_write(struct media *media, uint64_t offset, const struct qsc_dma_piece *pieces,
		     size_t count, bool through);
/* As much of it as may be done at once; how much, or -status. They wait. */
int64_t nvme_media_zero(struct media *media, uint64_t offset, uint64_t size, bool deallocate);
int64_t nvme_media_deallocate(struct media *media, uint64_t offset, uint64_t size);
int nvme_media_flush(struct media *media);

/* ---- prp.c ---- */

/* A part of a transfer. */
struct span {
	struct qsc_dma_piece pieces[QSC_DMA_MAX_PIECES];
	size_t count;
	uint64_t bytes;
	uint64_t list; /* what slot->list must be after it */
};

/*
 * The next part of a transfer of `size` bytes of which slot->done are done: about PIECE_SIZE bytes
 * at most. 0, an NVMe status, or -EAGAIN. Without the lock.
 */
int nvme_prp_next(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		  struct span *span);
/* Between memory, at most 4096 bytes, and the beginning of a transfer of `size` bytes. As above. */
int nvme_prp_write(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		   const void *data, size_t data_size);
int nvme_prp_read(struct controller *ctrl, uint32_t cc, const struct slot *slot, uint64_t size,
		  void *data, size_t data_size);

/* What became of DMA: 0, -EAGAIN, or an NVMe status. */
int nvme_dma_status(int result);

/* ---- io.c ---- */

/* What an I/O command must be told of the state, read under the lock. */
struct io_view {
	uint32_t cc;
	uint32_t write_cache;
};

/* What a step may take: nothing noticeable, a system call's time, or the disk's. */
enum patience { PATIENCE_NONE, PATIENCE_SHORT, PATIENCE_LONG };

/*
 * Move a command on by a piece: slot->phase becomes DONE at its end. 0, -EAGAIN, or -EINPROGRESS
 * when it would take longer than the patience. Without the lock.
 */
int nvme_io_step(struct controller *ctrl, const struct io_view *view, struct slot *slot,
		 enum patience patience);
/* How many bytes it has to do, at most. */
uint64_t nvme_io_size(const struct controller *ctrl, const struct slot *slot);
/* Counted when it was successful; with the lock. */
void nvme_io_account(struct controller *ctrl, const struct slot *slot);

/* ---- admin.c, identify.c, features.c, logs.c: called and left with the lock held ---- */

/*
 * Do an admin command. True when the slot has its status, or the command its place elsewhere (phase
 * IDLE); false when it must be tried again later.
 */
bool nvme_admin_step(struct controller *ctrl, struct slot *slot);
/* Fill in a data structure of 4096 bytes; a status. */
uint32_t nvme_identify(const struct controller *ctrl, const struct nvme_command *command,
		       uint8_t *data);
uint32_t nvme_set_feature(struct controller *ctrl, const struct nvme_command *command,
			  uint32_t *result);
uint32_t nvme_get_feature(const struct controller *ctrl, const struct nvme_command *command,
			  uint32_t *result);
/* As after a reset of the controller. */
void nvme_features_reset(struct state *state);
/* Fill in a log page of at most 4096 bytes: its size, or 0 when there is none. */
size_t nvme_log_page(const struct controller *ctrl, uint32_t page, uint8_t *data);
/* The critical warning of the SMART log. */
uint32_t nvme_smart_warning(const struct state *state);
/* An event that an outstanding request is to be completed with. */
void nvme_event(struct controller *ctrl, uint32_t type, uint32_t information);

/* ---- queues.c: the work ---- */

/* Back to a controller without queues, which CC governs; with the lock and no step under way. */
void nvme_reset_finish(struct controller *ctrl);
/* Set the INTx line by what is in the completion queues; with the lock. */
void nvme_update_line(struct controller *ctrl);
/*
 * A step begins: from here to nvme_step_end() the lock is not held. That is false when the
 * controller was reset meanwhile: drop what the step did.
 */
void nvme_step_begin(struct controller *ctrl);
bool nvme_step_end(struct controller *ctrl);
/* As work() and work_here() of struct qsc_model. */
enum qsc_work nvme_work(void *ctx, uint32_t worker);
enum qsc_work nvme_work_here(void *ctx, uint32_t worker);

#endif
