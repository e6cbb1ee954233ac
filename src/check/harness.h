/* SPDX-License-Identifier: MIT */
/*
 * What surrounds a device that is checked: memory that it may reach by DMA, eventfds for its
 * interrupts, a way to open it again, another device that takes what it saves, what is known of it,
 * and somebody who knows how to make this kind of device do things. The functions here are the
 * words in which clauses are tried; those that can fail return -errno and say what was in the way
 * in h->trouble.
 */
#ifndef CHECK_HARNESS_H
#define CHECK_HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quiesce/check.h>

#include "check/record.h"

/* Bytes that a device saved. */
struct saved {
	uint8_t *data;
	size_t size;
	size_t room;
};

void saved_release(struct saved *stream);
int saved_append(struct saved *stream, const void *data, size_t size);

#define autosaved __attribute__((cleanup(saved_release))) struct saved

#define HARNESS_VECTORS 4

/* The memory of the harness, in its own addresses. Peers' memory is another mapping. */
#define MEMORY_IOVA   0x100000000ULL
#define MEMORY_SIZE   0x300000ULL
#define MEMORY_QUEUE  0x0ULL /* for the exerciser */
#define MEMORY_SOURCE QSC_CHECK_QUEUE_SIZE
#define MEMORY_TARGET (MEMORY_SOURCE + QSC_CHECK_PATTERN_SIZE) /* to the end */
#define TARGET_SIZE   (MEMORY_SIZE - MEMORY_TARGET)
#define PEER_IOVA     0x900000000ULL
#define PEER_SIZE     0x200000ULL

#define HARNESS_BITMAP_WORDS 16 /* for MEMORY_SIZE in pages of 4 KiB */
#define HARNESS_REGIONS	     64 /* as many are looked at */

struct harness {
	const struct qsc_check_options *options;
	const struct qsc_exerciser *exerciser; /* NULL: nobody knows this kind of device */

	/* What the survey has found. */
	bool is_pci;
	struct qsc_layout layout;
	bool error_reachable; /* by loading nonsense; without it ERROR is no state to try */
	uint32_t num_regions;
	struct qsc_region_info regions[HARNESS_REGIONS];
	/* Interrupts: vectors 0 means none. */
	uint32_t irq_index;
	uint32_t first_vector;
	uint32_t vectors;
	bool can_trigger; /* the user can, with neither eventfd nor flag */
	/* The register after a reset, and whether a reset makes it that again. */
	uint64_t register_blank;
	bool register_resets;
	/* Bits of config space that take a write in RUNNING; mask 0: none is known. */
	uint64_t config_offset;
	uint16_t config_mask;
	uint16_t config_base;

	/* Found when the device was opened; flags are valid ones, or opening failed. */
	struct qsc_device *dev;
	const struct qsc_check_opener *opener; /* that opened it */
	const char *kind;		       /* of its implementer */
	const struct qsc_check_opener *silent; /* did not answer in time: it is not asked again */
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
	/* Who serves the device answers no more, which breaks no clause but all of them. */
	bool gone;
	bool opened; /* it could be opened, for this item */
	/* Both an errno, or 0. */
	int unopened; /* with which it could not be opened, the last time */
	int no_flags; /* with which it does not tell its migration flags */
	/* Copies with each vector since the device was made ready that were waited for. */
	uint32_t awaited[HARNESS_VECTORS];
	/* Why the exerciser cannot make the device work; found by the survey. */
	char unprepared[256];

	char trouble[QSC_ERROR_TEXT_SIZE];
	char evidence[512];
	char left_out[256];	/* what of an item was not tried, and why */
	enum qsc_clause broken; /* what is broken, where it is not the clause of the item */
	uint64_t seed;		/* of the walk that broke it */
	struct record record;
};

/* Memory and eventfds. */
int harness_init(struct harness *h, const struct qsc_check_options *options);
void harness_release(struct harness *h);
/* Look at the device: what it has, who knows it, what of it can be tried. From closed to closed. */
int harness_survey(struct harness *h, struct qsc_check_subject *subject, struct qsc_error *err);

/* ---- hold the device ---- */

/* Open it, as it is, and ask what it can do. */
int harness_open(struct harness *h);
/* Close it as a user should (ORD-9): one that loads is reset first. */
void harness_close(struct harness *h);
/* Close it as it is. */
void harness_let_go(struct harness *h);
/* Open it afresh, reset, with all memory mapped and interrupts set up, ready for copies. */
int harness_start(struct harness *h);
/* The same with the destination, where there is one. It need not be ready for copies. */
int harness_start_there(struct harness *h);
/* The exerciser's part of harness_start(). */
int harness_prepare(struct harness *h, const struct qsc_check_bench *bench);
/* Give it memory and interrupts: what a user does to a device that he has just opened. */
int harness_map(struct harness *h);
int harness_interrupts(struct harness *h);
int harness_no_interrupts(struct harness *h);
/* The same, and what the device answers: no trouble. */
int harness_set_vectors(struct harness *h, bool listen);
int harness_reset(struct harness *h);
/* Whether the device that is held, or who serves it, answers no more. */
bool harness_gone(struct harness *h);

/* ---- states ---- */

/* Whether the device has that state, and it can be entered. */
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
/* Whether what the device says of its state fits what it does there; it says `state` now. */
bool harness_tells_truth(struct harness *h, enum qsc_state state);

/* ---- streams ---- */

/*
 * Read on until there is no more for now and append it: 0 at the end of the stream, -ENOMSG when
 * drained, other -errno.
 */
int harness_read(struct harness *h, struct saved *stream);
/* Go to STOP_COPY and read all. */
int harness_save(struct harness *h, struct saved *stream);
/* Write in pieces of at most that size; what session_write() answered to the first that failed. */
int harness_write(struct harness *h, const void *data, size_t size, size_t piece);
/*
 * Go to the destination, or reset where there is no other; enter RESUMING, write all and go to
 * STOP. Interrupts are to be set up anew after it (ORD-2).
 */
int harness_load(struct harness *h, const struct saved *stream);
/* The stream of a device that has just been reset; leaves it RUNNING. */
int harness_blank(struct harness *h, struct saved *stream);

/* ---- a register, and memory of the device, where they are known ---- */

bool harness_has_register(const struct harness *h);
int harness_register_read(struct harness *h, uint64_t *value);
int harness_register_write(struct harness *h, uint64_t value);
/* As much of a value as the register takes. */
uint64_t harness_register_fit(const struct harness *h, uint64_t value);
/* Leave a value in the register, where one is known. */
int harness_mark(struct harness *h, uint64_t value);
/* Whether it is there; true where no register is known. *found is what is there. */
bool harness_marked(struct harness *h, uint64_t value, uint64_t *found);

/* Whether any region can be mapped, by whomever. */
bool harness_has_mappable(const struct harness *h);
uint64_t harness_memory_size(const struct harness *h);
int harness_memory_read(struct harness *h, uint64_t offset, void *buf, size_t size);
int harness_memory_write(struct harness *h, uint64_t offset, const void *buf, size_t size);

/* The bits of config space that are known to take a write: all of them set, or none. */
int harness_config_write(struct harness *h, bool set);
/* 1 when they are all set, 0 when none is, 2 when some are, or -errno. */
int harness_config_read(struct harness *h);

/*
 * A write to every register that every region without mappings has, which a stopped device drops.
 * Where a region can be mapped it may be hardware that does not.
 */
void harness_poke(struct harness *h);

/* ---- make it do things ---- */

/* What the exerciser works with. */
struct qsc_check_bench harness_bench(struct harness *h);
/* NULL when it can be made to do DMA and raise interrupts, else why not. */
const char *harness_idle(const struct harness *h);
/* `count` copies of `size` bytes, source by source to `iova` on, that nobody looks at yet. */
int harness_submit(struct harness *h, uint64_t iova, uint32_t count, uint32_t size,
		   uint32_t vector);
/* The same, and have the device look. */
int harness_copy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector);
int harness_kick(struct harness *h);
/* The same where it can be made to, and nothing else. */
int harness_busy(struct harness *h, uint64_t iova, uint32_t count, uint32_t size, uint32_t vector);
/* Whether such copies have arrived. */
bool harness_copied(const struct harness *h, uint64_t iova, uint32_t count, uint32_t size);
/* Trigger a vector from the user's side. */
int harness_trigger(struct harness *h, uint32_t vector, uint32_t times);
/* Wait until a vector has been signalled `count` times; says so when it was not, or more often. */
int harness_await(struct harness *h, uint32_t vector, uint64_t count);
/*
 * Wait until `count` more copies with that vector are complete and their interrupts have come,
 * `seen` of which were taken before. Where a device may raise one for several there is at least
 * one, and one after the last that is complete.
 */
int harness_await_copies(struct harness *h, uint32_t vector, uint32_t count, uint64_t seen);

/* ---- watch it ---- */

/* Take what has been signalled since. */
uint64_t harness_signals(struct harness *h, uint32_t vector);
uint64_t harness_all_signals(struct harness *h);
/* Remember all memory; first byte that is different now, as an IOVA, or 0. */
void harness_snapshot(struct harness *h);
/*
 * The queue once more, which handing over work writes. A device may look at work before it is told
 * to, so all else is remembered before there is any.
 */
void harness_snapshot_queue(struct harness *h);
uint64_t harness_changed(const struct harness *h);
uint64_t harness_peer_changed(const struct harness *h);
/* Every harmless question, and time: whatever the device wants to do by itself, it does now. */
void harness_settle(struct harness *h);
/* Pages that the dirty log reports in [iova, iova + size), which is at most 2 MiB. */
int harness_log_start(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size);
int harness_log_report(struct harness *h, uint64_t iova, uint64_t size, uint64_t page_size,
		       uint64_t *bitmap);

int harness_trouble(struct harness *h, int error, const char *fmt, ...) QSC_PRINTF(3, 4);
/* Something that is not tried though the rest is: comes after the text of the finding. */
void harness_leave_out(struct harness *h, const char *fmt, ...) QSC_PRINTF(2, 3);

#endif
