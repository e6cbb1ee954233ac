/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the audit share. audit.c is the layer, which notes actions; judge.c says what a
 * state change, a stream or a log means; group.c looks at the other devices of the same user;
 * findings.c keeps what was found.
 *
 * Locks: audit->lock before a device's. An action that cannot be wrong takes only the device's.
 */
#ifndef QSC_AUDIT_AUDIT_H
#define QSC_AUDIT_AUDIT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#include <quiesce/audit.h>

#define AUDIT_RING     QSC_FINDING_CONTEXT
#define AUDIT_FINDINGS 256
#define AUDIT_GONE     256 /* devices that were closed and may yet be somebody's source */
#define AUDIT_HEAD     64  /* bytes of a stream that tell it from another of the same size */
#define AUDIT_REVOKED  16
#define AUDIT_MEMORIES 8

struct audit_entry {
	uint64_t us;
	const char *name;
	uint64_t a;
	uint64_t b;
	int64_t result;
	uint32_t state;
	uint32_t repeated;
	bool varied; /* not always with the same b */
};

struct audit_mapping {
	uint64_t iova;
	uint64_t size; /* 0: none */
	uint32_t flags;
	uint32_t peer; /* number of the device it shows, or 0 */
};

struct audit_mappings {
	struct audit_mapping *slot; /* open addressing by iova */
	size_t room;		    /* a power of two, or 0 */
	size_t count;
	size_t writable;
};

struct audit_memory {
	dev_t dev;
	ino_t ino;
};

struct audited {
	struct qsc_device device;
	struct qsc_device *inner;
	struct qsc_audit *audit;
	struct audited *next;
	char name[QSC_LAYOUT_NAME];
	uint64_t user;
	uint32_t number;
	uint32_t flags; /* of migration */
	_Atomic uint32_t state;
	_Atomic bool odd; /* something makes the next actions worth a look: failed or lost */
	bool gone;	  /* closed; kept for what was saved from it */

	pthread_mutex_t lock;
	uint64_t actions;
	struct audit_entry ring[AUDIT_RING];
	uint64_t num_entries;
	struct audit_mappings mappings;

	/* Under the audit's lock. */
	bool failed; /* a request failed and the state has not been read (ORD-4) */
	bool broken; /* a request or a load failed and nothing has mended it */
	bool lost;   /* then it was reset: what was in it is gone (ORD-8) */
	/* The stream that is being or was saved or loaded. */
	uint64_t stream_bytes;
	uint8_t head[AUDIT_HEAD];
	size_t head_size;
	bool saved;   /* read to its end */
	bool gave_up; /* and then the copy was let go of */
	bool wiped;   /* and the device reset: it is no second copy */
	bool live;    /* the save began before the device stopped */
	bool loaded;  /* holds what a stream brought */
	struct audited *partner;
	/* Pre-copy (ORD-6). */
	bool asked;
	bool drained;
	uint64_t initial_left;
	/* Dirty log (ORD-7). */
	bool logging;
	bool logged; /* during this save */
	bool log_covers;
	bool log_reported; /* since it stopped */
	/* What the source had when it was saved, and what is late at the destination. */
	uint32_t vectors;
	uint32_t saved_vectors;
	size_t saved_mappings;
	bool irqs_late;
	_Atomic bool dma_late;
	/* As a member of a set. */
	bool moving;
	struct audit_memory memory[AUDIT_MEMORIES]; /* behind its regions */
	size_t num_memory;
	struct qsc_dma_range revoked[AUDIT_REVOKED];
	_Atomic size_t num_revoked;
};

struct qsc_audit {
	enum qsc_audit_profile profile;
	uint64_t made_ns;
	pthread_mutex_t lock;
	struct audited *devices; /* newest first */
	uint32_t num_gone;
	uint32_t numbers;
	uint64_t past_actions; /* of devices that were forgotten */
	uint64_t moves;
	uint64_t dropped;
	size_t num_findings;
	struct qsc_finding findings[AUDIT_FINDINGS];
};

uint64_t audit_now_us(const struct qsc_audit *audit);

static inline enum qsc_state audit_state(const struct audited *a)
{
	return (enum qsc_state)atomic_load_explicit(&a->state, memory_order_relaxed);
}

/* ---- findings.c; audit->lock is held ---- */

void audit_found(struct audited *a, enum qsc_finding_kind kind, enum qsc_clause clause,
		 enum qsc_action action, enum qsc_state state, const char *fmt, ...)
	QSC_PRINTF(6, 7);
void audit_entry_text(const struct audit_entry *entry, char text[QSC_FINDING_LINE]);

/* ---- judge.c; audit->lock is held ---- */

void audit_before_request(struct audited *a, uint32_t target);
void audit_after_request(struct audited *a, uint32_t target, int result, enum qsc_state now);
void audit_before_reset(struct audited *a);
void audit_after_reset(struct audited *a, int result);
void audit_before_close(struct audited *a);
void audit_saw_data(struct audited *a, const void *data, size_t size);
void audit_read(struct audited *a, enum qsc_state state, ssize_t result);
void audit_precopy_info(struct audited *a, const struct qsc_precopy_info *info);
void audit_log_started(struct audited *a, const struct qsc_dma_range *ranges, size_t count);
void audit_log_reported(struct audited *a, enum qsc_state state);
void audit_irqs_set(struct audited *a, enum qsc_state state, uint32_t vectors);
void audit_mapped(struct audited *a, enum qsc_state state, const struct qsc_dma_mapping *mapping);
/* An action that depends on the state, while `odd`. */
void audit_odd_action(struct audited *a, enum qsc_action action, enum qsc_state state);

/* ---- group.c; audit->lock is held ---- */

void audit_group_stop(struct audited *a, uint32_t target);
void audit_group_run(struct audited *a, uint32_t target);
void audit_group_mapped(struct audited *a, const struct qsc_dma_mapping *mapping);
void audit_group_unmapped(struct audited *a, const struct audit_mapping *mapping);
/* What memory stands behind its regions. */
void audit_group_learn(struct audited *a);

/* Number of the device of the set whose memory a file is, or 0. No lock is held. */
uint32_t audit_group_peer(struct audited *a, const struct qsc_dma_mapping *mapping);

/* ---- mappings.c; the device's lock is held ---- */

int audit_mappings_add(struct audit_mappings *mappings, const struct audit_mapping *mapping);
/* false: there is none. */
bool audit_mappings_remove(struct audit_mappings *mappings, uint64_t iova, uint64_t size,
			   struct audit_mapping *removed);

#endif
