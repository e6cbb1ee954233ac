/* SPDX-License-Identifier: MIT */
/*
 * What a fault specification says once it is read: rules, each a point, when it strikes and what
 * then happens. The language stands in <quiesce/device.h>; fault_spec.c reads it, the layer
 * (fault_layer.h) acts.
 */
#ifndef QSC_DEVICE_FAULT_H
#define QSC_DEVICE_FAULT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/device.h>

enum fault_point {
	FAULT_OPEN,
	FAULT_GET_INFO,
	FAULT_GET_REGION_INFO,
	FAULT_GET_IRQ_INFO,
	FAULT_REGION_READ,
	FAULT_REGION_WRITE,
	FAULT_REGION_MAP,
	FAULT_SET_IRQS,
	FAULT_DMA_MAP,
	FAULT_DMA_UNMAP,
	FAULT_GET_MIGRATION,
	FAULT_GET_STATE,
	FAULT_SET_STATE,
	FAULT_ARC,
	FAULT_DATA_SIZE,
	FAULT_LOG_START,
	FAULT_LOG_STOP,
	FAULT_LOG_REPORT,
	FAULT_SESSION_READ,
	FAULT_SESSION_WRITE,
	FAULT_PRECOPY_INFO,
	FAULT_SESSION_CLOSE,
	FAULT_RESET,
	FAULT_CLOSE,
	FAULT_IRQ, /* an interrupt on its way from the device to its user */
};
#define FAULT_POINTS 25

enum fault_kind {
	FAULT_FAIL, /* an errno instead of the action */
	FAULT_DELAY,
	FAULT_KILL,
	FAULT_DISCONNECT,
	FAULT_BREAK,
	FAULT_SHORT,
	FAULT_SKIP,
	FAULT_SAY,
	FAULT_TURN,
	FAULT_MOVE,
	FAULT_FLIP,
	FAULT_FILL,
	FAULT_DROP,
	FAULT_REPEAT,
	FAULT_SCRIBBLE,
	FAULT_SESSION,
	FAULT_NOLOG,
};
#define FAULT_KINDS 17

#define FAULT_ANY	UINT32_MAX
#define FAULT_TEXT	96
#define FAULT_RULES_MAX 64

struct fault_rule {
	char text[FAULT_TEXT];	    /* as written */
	char name[QSC_LAYOUT_NAME]; /* of the device it is for; empty for any */
	enum fault_point point;
	uint32_t arg;	/* target, region, index or the state an arc leaves; or FAULT_ANY */
	uint32_t to;	/* the state an arc enters */
	uint32_t state; /* only when the action meets it; or FAULT_ANY */
	/* Counting from 1 those that fit so far: the first and the last that it strikes. */
	uint64_t first;
	uint64_t last;
	uint32_t percent; /* of these, by chance */
	uint64_t seed;
	enum fault_kind kind;
	int number;	 /* errno of FAIL, BREAK; of SAY, TURN with a failure; FAULT_TURN: to */
	int turned;	 /* TURN: the errno that is replaced; 0 for any */
	uint64_t value;	 /* what the kind needs: microseconds, bytes, offset, byte, state */
	uint32_t chance; /* DROP: percent of the bits */
	uint64_t chance_seed;
	bool peer;	      /* SCRIBBLE: a peer's memory */
	_Atomic uint64_t met; /* actions that fit so far */
	_Atomic bool has_struck;
};

struct fault_rules {
	size_t count;
	struct fault_rule rule[FAULT_RULES_MAX];
};

/* Read a specification; NULL or empty has no rules. 0, or -EINVAL with the reason. */
int qsc_fault_parse(const char *spec, struct fault_rules *rules, struct qsc_error *err);

/* Whether the nth of a sequence is among `percent` of it; the same for the same seed. */
bool qsc_fault_chance(uint64_t seed, uint64_t nth, uint32_t percent);

/* "set-state", …; static storage. */
const char *qsc_fault_point_name(enum fault_point point);

/* ---- interrupts on their way: fault_irq.c ---- */

struct fault_relay;
/* How many of `count` interrupts of a vector are delivered. Called from the relay's thread. */
typedef uint64_t fault_irq_fn(void *ctx, uint32_t vector, uint64_t count);

/* 0, or -errno when there can be no thread. */
int qsc_fault_relay_create(fault_irq_fn *decide, void *ctx, struct fault_relay **out);
/*
 * Make eventfds to hand to the device in place of fds[0..count), from which the relay takes what
 * comes and delivers to the other. They stay the relay's; -1 stays -1. Earlier ones of the same
 * vectors stay beside them until it is settled which of the two the device has. 0 or -errno.
 */
int qsc_fault_relay_add(struct fault_relay *relay, uint32_t index, uint32_t start, uint32_t count,
			const int *fds, int *own);
/* Deliver what has come to those that the device has not, and forget them: `own` was taken or not.
 */
void qsc_fault_relay_settle(struct fault_relay *relay, uint32_t index, uint32_t start,
			    uint32_t count, const int *own, bool taken);
/* Deliver what has come and forget the vectors of an index. */
void qsc_fault_relay_clear(struct fault_relay *relay, uint32_t index);
/* NULL is nothing to destroy. */
void qsc_fault_relay_destroy(struct fault_relay *relay);

#endif
