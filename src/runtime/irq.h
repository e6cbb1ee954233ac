/* SPDX-License-Identifier: MIT */
/*
 * The interrupts of a device: eventfds that the user set up, and how many interrupts of each vector
 * are held back until the next RUNNING (DEV-2, DEV-6). One mutex orders every interrupt against the
 * change of mode, so that each is either delivered before it or held: none is lost or doubled, up
 * to QSC_IRQ_MAX_HELD of a vector.
 *
 * An eventfd is the user's, who may fill it and make it a blocking one at any time. So each
 * interrupt is added in a way that never waits for him; one that finds no room is as good as
 * delivered, for what he has not taken yet tells him. What the lock is held for has an end.
 */
#ifndef QSC_RUNTIME_IRQ_H
#define QSC_RUNTIME_IRQ_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/contract.h>
#include <quiesce/device.h>

#define QSC_IRQ_INDICES 3 /* INTx, MSI, MSI-X: their VFIO index */
#define QSC_IRQ_VECTORS 2048
/* Nobody counts further than this in a stop; it bounds what delivering them takes. */
#define QSC_IRQ_MAX_HELD 65536U

struct qsc_irq_vector {
	int fd;		/* -1: not set up */
	bool masked;	/* INTx only */
	uint64_t held;	/* delivered when the mode allows and there is an eventfd */
	uint64_t asked; /* of those, triggered by the user since loading began */
};

struct qsc_irqs {
	pthread_mutex_t lock;
	enum qsc_verdict mode; /* of QSC_ACTION_DEVICE_IRQ: ALLOW, HOLD or DROP */
	bool line;	       /* INTx is asserted by level */
	uint32_t counts[QSC_IRQ_INDICES];
	struct qsc_irq_vector *vectors[QSC_IRQ_INDICES];
	struct qsc_irq_counts seen;
};

/* A number of interrupts of one vector, as it stands in a stream. */
struct qsc_irq_held {
	uint32_t index;
	uint32_t vector;
	uint64_t count;
};

/* Mode ALLOW. -ENOMEM, and then nothing is to be destroyed. */
int qsc_irqs_init(struct qsc_irqs *irqs, const uint32_t counts[QSC_IRQ_INDICES]);
void qsc_irqs_destroy(struct qsc_irqs *irqs);

void qsc_irqs_info(const struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_info *info);

/*
 * VFIO_DEVICE_SET_IRQS. What the user triggers is held or delivered by the mode, as what the device
 * raises is: so it cannot fall between a state change and the delivery that belongs to it.
 */
int qsc_irqs_set(struct qsc_irqs *irqs, const struct qsc_irq_set *set);

/* The device raises an interrupt. Numbers it does not have are ignored. */
void qsc_irqs_raise(struct qsc_irqs *irqs, uint32_t index, uint32_t vector);

/* The level of INTx; an asserted line is delivered whenever it is unmasked. */
void qsc_irqs_set_line(struct qsc_irqs *irqs, bool asserted);

/* ALLOW delivers what was held. When it returns no interrupt of the former mode is under way. */
void qsc_irqs_set_mode(struct qsc_irqs *irqs, enum qsc_verdict mode);

/* Whether an interrupt of that vector waits: its bit in the pending bit array. */
bool qsc_irqs_pending(struct qsc_irqs *irqs, uint32_t index, uint32_t vector);

/* Since the beginning. */
void qsc_irqs_count(struct qsc_irqs *irqs, struct qsc_irq_counts *counts);

/* Forget what is held, and the level of INTx. */
void qsc_irqs_forget(struct qsc_irqs *irqs);
/* Undo every set up; what is held stays. */
void qsc_irqs_tear_down(struct qsc_irqs *irqs);

/* Fill at most max entries, in the order of index and vector; returns how many there are. */
size_t qsc_irqs_save(struct qsc_irqs *irqs, struct qsc_irq_held *held, size_t max);
/* A load begins: what the user triggers from now on is not replaced by it. */
void qsc_irqs_load_begin(struct qsc_irqs *irqs);
/* Replace what is held; the numbers exist, no count is above QSC_IRQ_MAX_HELD. */
void qsc_irqs_load(struct qsc_irqs *irqs, const struct qsc_irq_held *held, size_t count);

#endif
