/* SPDX-License-Identifier: MIT */
/* See irq.h. */
#include "runtime/irq.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"

_Static_assert(VFIO_PCI_INTX_IRQ_INDEX == 0 && VFIO_PCI_MSI_IRQ_INDEX == 1 &&
		       VFIO_PCI_MSIX_IRQ_INDEX == 2,
	       "the array is indexed by the VFIO index");

static void free_vectors(struct qsc_irqs *irqs)
{
	int index;

	for (index = 0; index < QSC_IRQ_INDICES; index++)
		free(irqs->vectors[index]);
}

int qsc_irqs_init(struct qsc_irqs *irqs, const uint32_t counts[QSC_IRQ_INDICES])
{
	uint32_t index;
	uint32_t i;

	memset(irqs, 0, sizeof(*irqs));
	irqs->mode = QSC_VERDICT_ALLOW;
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		if (!counts[index])
			continue;
		irqs->vectors[index] = calloc(counts[index], sizeof(struct qsc_irq_vector));
		if (!irqs->vectors[index]) {
			free_vectors(irqs);
			return -ENOMEM;
		}
		irqs->counts[index] = counts[index];
		for (i = 0; i < counts[index]; i++)
			irqs->vectors[index][i].fd = -1;
	}
	pthread_mutex_init(&irqs->lock, NULL);
	return 0;
}

void qsc_irqs_destroy(struct qsc_irqs *irqs)
{
	qsc_irqs_tear_down(irqs);
	free_vectors(irqs);
	pthread_mutex_destroy(&irqs->lock);
}

void qsc_irqs_info(const struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_info *info)
{
	info->count = index < QSC_IRQ_INDICES ? irqs->counts[index] : 0;
	info->flags = info->count ? VFIO_IRQ_INFO_EVENTFD : 0;
	if (info->count && index == VFIO_PCI_INTX_IRQ_INDEX)
		info->flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
}

/*
 * The line of INTx is masked by its delivery and stays so until the user unmasks it. A line knows
 * no count: however often it was raised meanwhile, it is delivered once more.
 */
static void deliver(struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_vector *vector,
		    uint64_t count)
{
	if (index == VFIO_PCI_INTX_IRQ_INDEX) {
		vector->masked = true;
		count = 1;
	}
	/* One by one: see irq.h. */
	while (count && qsc_eventfd_signal_foreign(vector->fd) == 0) {
		irqs->seen.delivered++;
		count--;
	}
}

/* Deliver what is held where nothing is in the way. The caller holds the lock. */
static void flush(struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_vector *vector)
{
	bool asserted = irqs->line && index == VFIO_PCI_INTX_IRQ_INDEX;

	if ((!vector->held && !asserted) || irqs->mode != QSC_VERDICT_ALLOW || vector->fd < 0 ||
	    vector->masked)
		return;
	deliver(irqs, index, vector, vector->held);
	vector->held = 0;
	vector->asked = 0;
}

static void raise_locked(struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_vector *vector)
{
	if (irqs->mode == QSC_VERDICT_DROP)
		return;
	if (irqs->mode == QSC_VERDICT_HOLD || vector->masked) {
		if (vector->held < QSC_IRQ_MAX_HELD) {
			vector->held++;
			irqs->seen.held += irqs->mode == QSC_VERDICT_HOLD;
		}
		return;
	}
	/* Not set up: as on hardware with the vector disabled, nothing happens. */
	if (vector->fd >= 0)
		deliver(irqs, index, vector, 1);
}

void qsc_irqs_raise(struct qsc_irqs *irqs, uint32_t index, uint32_t vector)
{
	if (index >= QSC_IRQ_INDICES || vector >= irqs->counts[index])
		return;
	pthread_mutex_lock(&irqs->lock);
	raise_locked(irqs, index, &irqs->vectors[index][vector]);
	pthread_mutex_unlock(&irqs->lock);
}

void qsc_irqs_set_line(struct qsc_irqs *irqs, bool asserted)
{
	if (!irqs->counts[VFIO_PCI_INTX_IRQ_INDEX])
		return;
	pthread_mutex_lock(&irqs->lock);
	irqs->line = asserted;
	flush(irqs, VFIO_PCI_INTX_IRQ_INDEX, &irqs->vectors[VFIO_PCI_INTX_IRQ_INDEX][0]);
	pthread_mutex_unlock(&irqs->lock);
}

void qsc_irqs_set_mode(struct qsc_irqs *irqs, enum qsc_verdict mode)
{
	uint32_t index;
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	irqs->mode = mode;
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		for (i = 0; i < irqs->counts[index]; i++)
			flush(irqs, index, &irqs->vectors[index][i]);
	}
	pthread_mutex_unlock(&irqs->lock);
}

bool qsc_irqs_pending(struct qsc_irqs *irqs, uint32_t index, uint32_t vector)
{
	bool pending;

	if (index >= QSC_IRQ_INDICES || vector >= irqs->counts[index])
		return false;
	pthread_mutex_lock(&irqs->lock);
	pending = irqs->vectors[index][vector].held != 0;
	pthread_mutex_unlock(&irqs->lock);
	return pending;
}

static int set_eventfds(struct qsc_irqs *irqs, const struct qsc_irq_set *set)
{
	int *copies = calloc(set->count, sizeof(*copies));
	int result = 0;
	uint32_t i;

	if (!copies)
		return -ENOMEM;
	for (i = 0; i < set->count; i++) {
		copies[i] = -1;
		if (result || set->fds[i] < 0)
			continue;
		/* As the kernel does: nothing but an eventfd. */
		copies[i] = qsc_fd_is_eventfd(set->fds[i]) ? qsc_fd_dup(set->fds[i]) : -EINVAL;
		if (copies[i] < 0)
			result = copies[i];
	}
	if (!result) {
		pthread_mutex_lock(&irqs->lock);
		for (i = 0; i < set->count; i++) {
			struct qsc_irq_vector *vector = &irqs->vectors[set->index][set->start + i];
			int old = vector->fd;

			vector->fd = copies[i];
			copies[i] = old;
			vector->masked = false;
			flush(irqs, set->index, vector);
		}
		pthread_mutex_unlock(&irqs->lock);
	}
	for (i = 0; i < set->count; i++)
		qsc_fd_close(&copies[i]);
	free(copies);
	return result;
}

static void tear_down_index(struct qsc_irqs *irqs, uint32_t index)
{
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	for (i = 0; i < irqs->counts[index]; i++) {
		qsc_fd_close(&irqs->vectors[index][i].fd);
		irqs->vectors[index][i].masked = false;
	}
	pthread_mutex_unlock(&irqs->lock);
}

/* As if the device had raised it, but a load that is under way does not take it away (DEV-8). */
static void trigger(struct qsc_irqs *irqs, uint32_t index, struct qsc_irq_vector *vector)
{
	uint64_t held = vector->held;

	raise_locked(irqs, index, vector);
	vector->asked += vector->held - held;
}

static void act(struct qsc_irqs *irqs, const struct qsc_irq_set *set)
{
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	for (i = 0; i < set->count; i++) {
		struct qsc_irq_vector *vector = &irqs->vectors[set->index][set->start + i];

		if (set->flags & VFIO_IRQ_SET_DATA_BOOL && !set->bools[i])
			continue;
		if (action == VFIO_IRQ_SET_ACTION_TRIGGER) {
			trigger(irqs, set->index, vector);
			continue;
		}
		vector->masked = action == VFIO_IRQ_SET_ACTION_MASK;
		flush(irqs, set->index, vector);
	}
	pthread_mutex_unlock(&irqs->lock);
}

int qsc_irqs_set(struct qsc_irqs *irqs, const struct qsc_irq_set *set)
{
	uint32_t data = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	uint32_t count;

	if (set->index >= QSC_IRQ_INDICES)
		return -EINVAL;
	count = irqs->counts[set->index];
	if (set->start >= count || set->count > count - set->start)
		return -EINVAL;
	if (!qsc_is_power_of_two(data) || !qsc_is_power_of_two(action) ||
	    set->flags & ~(uint32_t)(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK))
		return -EINVAL;
	if (action != VFIO_IRQ_SET_ACTION_TRIGGER) {
		if (set->index != VFIO_PCI_INTX_IRQ_INDEX)
			return -ENOTTY;
		if (data == VFIO_IRQ_SET_DATA_EVENTFD)
			return -EINVAL;
	}
	if (!set->count) {
		if (data != VFIO_IRQ_SET_DATA_NONE || action != VFIO_IRQ_SET_ACTION_TRIGGER)
			return -EINVAL;
		tear_down_index(irqs, set->index);
		return 0;
	}
	if (data == VFIO_IRQ_SET_DATA_EVENTFD)
		return set_eventfds(irqs, set);
	act(irqs, set);
	return 0;
}

void qsc_irqs_count(struct qsc_irqs *irqs, struct qsc_irq_counts *counts)
{
	pthread_mutex_lock(&irqs->lock);
	*counts = irqs->seen;
	pthread_mutex_unlock(&irqs->lock);
}

void qsc_irqs_forget(struct qsc_irqs *irqs)
{
	uint32_t index;
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	irqs->line = false;
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		for (i = 0; i < irqs->counts[index]; i++) {
			irqs->vectors[index][i].held = 0;
			irqs->vectors[index][i].asked = 0;
		}
	}
	pthread_mutex_unlock(&irqs->lock);
}

void qsc_irqs_tear_down(struct qsc_irqs *irqs)
{
	uint32_t index;

	for (index = 0; index < QSC_IRQ_INDICES; index++)
		tear_down_index(irqs, index);
}

size_t qsc_irqs_save(struct qsc_irqs *irqs, struct qsc_irq_held *held, size_t max)
{
	size_t total = 0;
	uint32_t index;
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		for (i = 0; i < irqs->counts[index]; i++) {
			uint64_t count = irqs->vectors[index][i].held;

			if (!count)
				continue;
			if (total < max)
				held[total] = (struct qsc_irq_held){index, i, count};
			total++;
		}
	}
	pthread_mutex_unlock(&irqs->lock);
	return total;
}

void qsc_irqs_load_begin(struct qsc_irqs *irqs)
{
	uint32_t index;
	uint32_t i;

	pthread_mutex_lock(&irqs->lock);
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		for (i = 0; i < irqs->counts[index]; i++)
			irqs->vectors[index][i].asked = 0;
	}
	pthread_mutex_unlock(&irqs->lock);
}

void qsc_irqs_load(struct qsc_irqs *irqs, const struct qsc_irq_held *held, size_t count)
{
	uint32_t index;
	uint32_t i;
	size_t n;

	pthread_mutex_lock(&irqs->lock);
	irqs->line = false;
	for (index = 0; index < QSC_IRQ_INDICES; index++) {
		for (i = 0; i < irqs->counts[index]; i++)
			irqs->vectors[index][i].held = irqs->vectors[index][i].asked;
	}
	for (n = 0; n < count; n++) {
		struct qsc_irq_vector *vector = &irqs->vectors[held[n].index][held[n].vector];

		vector->held = qsc_min_u64(vector->held + held[n].count, QSC_IRQ_MAX_HELD);
	}
	pthread_mutex_unlock(&irqs->lock);
}
