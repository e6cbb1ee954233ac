/* SPDX-License-Identifier: MIT */
/*
 * What surrounds a device whose clauses are tested: memory that it may reach by DMA, eventfds for
 * its interrupts, a way to open it again, and somebody who knows how to make this kind of device do
 * things. The functions here are the words in which clauses are tested; those that can fail return
 * -errno and say what was in the way in h->trouble.
 */
#ifndef CLAUSES_HARNESS_H
#define CLAUSES_HARNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quiesce/contract.h>
#include <quiesce/device.h>

/* How to hold the device. close() is back when the device has been let go of (STATE-5). */
struct opener {
	int (*open)(void *ctx, struct qsc_device **dev);
	void (*close)(void *ctx, struct qsc_device *dev);
	void *ctx;
};

struct harness;

struct exercise_copy {
	uint64_t source;      /* IOVA */
	uint64_t destination; /* IOVA, or DEVICE_MEMORY and an offset */
	uint32_t size;	      /* bytes */
	uint32_t vector;      /* interrupted when it is complete */
};

/* Somebody who knows this kind of device. Copies are done in any order. */
struct exerciser {
	const char *name;
	uint32_t irq_index;
	uint32_t vectors;
	/* A register of 8 bytes that is state, reads as written and is zero after reset. */
	uint32_t register_region;
	uint64_t register_offset;
	/* Memory of the device that can be mapped and is state. */
	uint32_t memory_region;
	uint64_t memory_size;
	/* Make a device that is RUNNING ready for copies. */
	int (*prepare)(struct harness *h);
	/* Hand over a copy (a matter of memory only), and have the device look at what it has. */
	int (*submit)(struct harness *h, const struct exercise_copy *copy);
	int (*kick)(struct harness *h);
};

/* Bytes that a device saved. */
struct stream {
	uint8_t *data;
	size_t size;
	size_t room;
};

void stream_release(struct stream *stream);
int stream_append(struct stream *stream, const void *data, size_t size);

#define autostream __attribute__((cleanup(stream_release))) struct stream

/* A stream that this device must not understand: whole and uncorrupted, but of something else. */
struct foreign {
	const char *what;
	struct stream stream;
};

#define HARNESS_VECTORS 4

/* The memory of the harness, in its own addresses. Peers' memory is another mapping. */
#define MEMORY_IOVA   0x100000000ULL
#define MEMORY_SIZE   0x300000ULL
#define MEMORY_QUEUE  0x0ULL	  /* for the exerciser */
#define MEMORY_SOURCE 0x20000ULL  /* filled with a pattern, never written */
#define MEMORY_TARGET 0x100000ULL /* to the end */
#define TARGET_SIZE   (MEMORY_SIZE - MEMORY_TARGET)
#define PEER_IOVA     0x900000000ULL
#define PEER_SIZE     0x200000ULL
/* Stands for the device's own memory, which has no IOVA, as destination of a copy. */
#define DEVICE_MEMORY 0xd000000000ULL

struct harness {
	/* Given. */
	const struct opener *opener;
	const struct exerciser *exerciser;
	bool tells_peers;   /* the device is known to tell peers from memory */
	uint32_t settle_us; /* how long a device is watched for what it must not do */
	uint32_t await_ms;  /* how long for what it must do */
	const struct foreign *foreign;
	size_t num_foreign;
	/* How often the device has found ORD-1 broken; NULL where it cannot be asked. */
	const _Atomic unsigned int *violations;

	/* Found when the device was opened; flags are valid ones, or opening failed. */
	struct qsc_device *dev;
	uint32_t flags;
	bool dirty_log;

	uint64_t session; /* the last one that was opened */
	uint8_t *memory;
	uint8_t *peer;
	uint8_t *shadow; /* of both, from harness_snapshot() */
	int memory_fd;
	int peer_fd;
	int eventfds[HARNESS_VECTORS];
	bool used; /* there may be something in the memory that is copied to */
	char trouble[256];
	char evidence[512];
};

int harness_init(struct harness *h);
void harness_release(struct harness *h);

/* ---- hold the device ---- */

/* Open it, as it is, and ask what it can do. */
int harness_open(struct harness *h);
void harness_close(struct harness *h);
/* Open it afresh, reset, with all memory mapped and interrupts set up, ready for copies. */
int harness_start(struct harness *h);
/* Give it memory and interrupts: what a user does to a device that he has just opened. */
int harness_map(struct harness *h);
int harness_interrupts(struct harness *h);
int harness_no_interrupts(struct harness *h);
int harness_reset(struct harness *h);

/* ---- states ---- */

bool harness_has(const struct harness *h, uint32_t state);
/* QSC_STATE_COUNT when it cannot be told. */
enum qsc_state harness_state(struct harness *h);
/* What set_state() answers; h->session when a session was opened. */
int harness_request(struct harness *h, uint32_t target);
/* The same, where failing is trouble. */
int harness_set(struct harness *h, enum qsc_state target);
/*
 * From RUNNING to any state: RESUMING has nothing loaded yet, ERROR is reached by a stream that is
 * none.
 */
int harness_enter(struct harness *h, enum qsc_state state);
/* A fresh device in that state. */
int harness_start_in(struct harness *h, enum qsc_state state);

/* ---- streams ---- */

/*
 * Read on until there is no more for now and append it: 0 at the end of the stream, -ENOMSG when
 * drained, other -errno.
 */
int harness_read(struct harness *h, struct stream *stream);
/* Go to STOP_COPY and read all. */
int harness_save(struct harness *h, struct stream *stream);
/* Write in pieces of at most that size; what session_write() answered to the first that failed. */
int harness_write(struct harness *h, const void *data, size_t size, size_t piece);
/* Reset, enter RESUMING, write all and go to STOP. Interrupts and mappings stay as they are. */
int harness_load(struct harness *h, const struct stream *stream);
/* The stream of a device that has just been reset; leaves it RUNNING. */
int harness_blank(struct harness *h, struct stream *stream);

/* ---- make it do things ---- */

/* Register and memory of the exerciser. */
int harness_register_read(struct harness *h, uint64_t *value);
int harness_register_write(struct harness *h, uint64_t value);
int harness_memory_read(struct harness *h, uint64_t offset, void *buf, size_t size);
int harness_memory_write(struct harness *h, uint64_t offset, const void *buf, size_t size);
/* `count` copies of `size` bytes, source by source to `iova` on, that nobody looks at yet. */
int harness_submit(struct harness *h, uint64_t iova, uint32_t count, uint32_t size,
		   uint32_t vector);
/* The same, and have the device look. */
int harness_copy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector);
/* Whether such copies have arrived. */
bool harness_copied(const struct harness *h, uint64_t iova, uint32_t count, uint32_t size);
/* Trigger a vector from the user's side. */
int harness_trigger(struct harness *h, uint32_t vector, uint32_t times);
/* Wait until a vector has been signalled `count` times; says so when it was not, or more often. */
int harness_await(struct harness *h, uint32_t vector, uint64_t count);

/* ---- watch it ---- */

/* Take what has been signalled since. */
uint64_t harness_signals(struct harness *h, uint32_t vector);
uint64_t harness_all_signals(struct harness *h);
/* Remember all memory; first byte that is different now, as an IOVA, or 0. */
void harness_snapshot(struct harness *h);
uint64_t harness_changed(const struct harness *h);
uint64_t harness_peer_changed(const struct harness *h);
/* Every harmless question, and time: whatever the device wants to do by itself, it does now. */
void harness_settle(struct harness *h);
/* Pages that the dirty log reports in [iova, iova + size), which is at most 2 MiB. */
int harness_log_start(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size);
int harness_log_report(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size,
		       uint64_t *bitmap);

int harness_trouble(struct harness *h, int error, const char *fmt, ...) QSC_PRINTF(3, 4);

#define HARNESS_BITMAP_WORDS 16 /* for MEMORY_SIZE in pages of 4 KiB */

#endif
