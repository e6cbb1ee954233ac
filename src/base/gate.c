/* SPDX-License-Identifier: MIT */
/*
 * See gate.h. Each change begins a new epoch; who passes is counted under the parity of the epoch
 * in which it came, so a change waits only for those before it, however busy the gate stays. Since
 * changes exclude one another, both parities are never awaited at once, and the parity that a new
 * epoch starts to use has been seen empty.
 */
#include "base/gate.h"

#include <string.h>

#include "base/cleanup.h"

_Thread_local unsigned int qsc_gate_shard_number __attribute__((tls_model("initial-exec")));

unsigned int qsc_gate_take_shard(void)
{
	static _Atomic unsigned int next;

	qsc_gate_shard_number = atomic_fetch_add(&next, 1) % QSC_GATE_SHARDS + 1;
	return qsc_gate_shard_number;
}

void qsc_gate_init(struct qsc_gate *gate)
{
	memset(gate, 0, sizeof(*gate));
	pthread_mutex_init(&gate->change, NULL);
	pthread_mutex_init(&gate->sleep_lock, NULL);
	pthread_cond_init(&gate->left, NULL);
}

void qsc_gate_destroy(struct qsc_gate *gate)
{
	pthread_cond_destroy(&gate->left);
	pthread_mutex_destroy(&gate->sleep_lock);
	pthread_mutex_destroy(&gate->change);
}

void qsc_gate_wake(struct qsc_gate *gate)
{
	pthread_mutex_lock(&gate->sleep_lock);
	pthread_cond_broadcast(&gate->left);
	pthread_mutex_unlock(&gate->sleep_lock);
}

static void await_empty(struct qsc_gate *gate, _Atomic uint64_t *inside)
{
	if (!atomic_load(inside))
		return;
	pthread_mutex_lock(&gate->sleep_lock);
	atomic_store(&gate->awaited, true);
	while (atomic_load(inside))
		pthread_cond_wait(&gate->left, &gate->sleep_lock);
	atomic_store(&gate->awaited, false);
	pthread_mutex_unlock(&gate->sleep_lock);
}

/* The caller holds gate->change. */
static void change_to(struct qsc_gate *gate, uint64_t mode)
{
	uint64_t epoch = atomic_load(&gate->word) >> QSC_GATE_EPOCH_SHIFT;
	size_t i;

	atomic_store(&gate->word, (epoch + 1) << QSC_GATE_EPOCH_SHIFT | mode);
	for (i = 0; i < QSC_ARRAY_SIZE(gate->shards); i++)
		await_empty(gate, &gate->shards[i].inside[epoch & 1]);
}

void qsc_gate_set(struct qsc_gate *gate, enum qsc_gate_mode mode)
{
	pthread_mutex_lock(&gate->change);
	change_to(gate, (uint64_t)mode);
	pthread_mutex_unlock(&gate->change);
}

void qsc_gate_sync(struct qsc_gate *gate)
{
	pthread_mutex_lock(&gate->change);
	change_to(gate, atomic_load(&gate->word) & ((1U << QSC_GATE_EPOCH_SHIFT) - 1));
	pthread_mutex_unlock(&gate->change);
}
