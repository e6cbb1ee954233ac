/* SPDX-License-Identifier: MIT */
/*
 * A layer that makes an honest device break one clause and no other, to prove that the test of that
 * clause notices. A lie replaces a few operations; all others pass through.
 */
#ifndef CLAUSES_LIAR_H
#define CLAUSES_LIAR_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/device.h>

#include <quiesce/check.h>

#include "check/harness.h"

enum lie_peers {
	LIE_ANY,
	LIE_TELLS, /* only a device that tells peers from memory can tell this lie */
	LIE_NOT_TELLS,
};

struct lie {
	enum qsc_clause clause;
	const char *what; /* "reports the requested state after a failed load" */
	uint32_t flags;	  /* it needs a device with these */
	enum lie_peers peers;
	const char *local;	   /* why the vfio-user protocol cannot carry it, or NULL */
	const char *fault;	   /* what the fault layer is told; or NULL, and then */
	struct qsc_device_ops ops; /* those that are not NULL replace the honest ones */
	void (*opened)(struct qsc_device *dev);
	/* Other clauses that it cannot but break as well ("ARC-5 SESS-6"), and why. */
	const char *also;
	const char *why;
};

/* Ended by an entry with what NULL. */
extern const struct lie state_lies[];
extern const struct lie sess_lies[];
extern const struct lie dev_lies[];
extern const struct lie log_lies[];

#define LIAR_MAPPINGS 8

/* A device that lies: what passed through is remembered for the lies to use. */
struct liar_device {
	struct qsc_device base;
	struct qsc_device_ops ops;
	struct liar *liar;
	struct qsc_device *inner;
	const struct qsc_exerciser *exerciser;
	struct qsc_dma_mapping mappings[LIAR_MAPPINGS];
	int eventfd;	  /* of vector 1, duplicated; or -1 */
	uint64_t session; /* the last one that was opened */
	/* For a lie's own use; zero when the device is opened. */
	bool armed;
	uint64_t count;
	uint64_t value;
	uint64_t words[HARNESS_BITMAP_WORDS];
};

struct liar {
	struct qsc_check_opener opener; /* what to hold it by */
	const struct qsc_check_opener *inner;
	const struct qsc_exerciser *exerciser;
	const struct lie *lie;
	struct liar_device *kept; /* for a lie that does not let go */
};

void liar_init(struct liar *liar, const struct lie *lie, const struct qsc_check_opener *inner,
	       const struct qsc_exerciser *exerciser);
void liar_release(struct liar *liar);

/* ---- for lies ---- */

static inline struct liar_device *liar_device(struct qsc_device *dev)
{
	return (struct liar_device *)(void *)dev;
}

static inline struct qsc_device *honest(struct qsc_device *dev)
{
	return liar_device(dev)->inner;
}

enum qsc_state honest_state(struct qsc_device *dev);
/* Ask the honest device, which remembers a session that was opened. */
int honest_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
int honest_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set);
int honest_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping);
void honest_close(struct qsc_device *dev);
/* Pretend that a load went well: reset, then STOP. */
int pretend_loaded(struct qsc_device *dev);
/* Change a byte of memory that the device may write, a peer's or another. */
void scribble(struct qsc_device *dev, bool peer);
/* Signal vector 1. */
void signal_vector(struct qsc_device *dev);

#endif
