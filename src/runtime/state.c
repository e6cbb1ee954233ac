/* SPDX-License-Identifier: MIT */
/*
 * The state machine. A request walks qsc_contract_next() arc by arc, and each arc is complete
 * before the next begins (ARC-7). What a state permits is asked of the contract and set at the
 * gates; what happens on the way follows from whether the device is active, running, saving or
 * resuming on either side of the arc, not from the arc itself.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "runtime/core.h"

void qsc_runtime_begin(struct qsc_runtime *rt)
{
	pthread_mutex_lock(&rt->lock);
	while (rt->busy)
		pthread_cond_wait(&rt->idle, &rt->lock);
	rt->busy = true;
	pthread_mutex_unlock(&rt->lock);
}

void qsc_runtime_end(struct qsc_runtime *rt)
{
	pthread_mutex_lock(&rt->lock);
	rt->busy = false;
	pthread_cond_signal(&rt->idle);
	pthread_mutex_unlock(&rt->lock);
}

static void set_state(struct qsc_runtime *rt, enum qsc_state state)
{
	atomic_store_explicit(&rt->state, (uint32_t)state, memory_order_release);
}

/* ---- what a state permits ---- */

static enum qsc_gate_mode dma_mode(const struct qsc_runtime *rt, enum qsc_state state)
{
	enum qsc_verdict peer = qsc_contract_verdict(QSC_ACTION_DEVICE_PEER_DMA, state);
	enum qsc_verdict memory = qsc_contract_verdict(QSC_ACTION_DEVICE_MEMORY_DMA, state);

	if (peer == QSC_VERDICT_ALLOW)
		return QSC_GATE_OPEN;
	if (memory == QSC_VERDICT_ALLOW || (memory == QSC_VERDICT_IF_TOLD && rt->tells_peers))
		return QSC_GATE_OPEN_SOME;
	return QSC_GATE_CLOSED;
}

/*
 * Register accesses as the contract says. work() only where it can get anywhere: once started, and
 * in the P2P states only in a device that may do DMA there.
 */
static enum qsc_gate_mode callback_mode(const struct qsc_runtime *rt, enum qsc_state state)
{
	enum qsc_verdict access = qsc_contract_verdict(QSC_ACTION_REGISTER_ACCESS, state);

	if (access != QSC_VERDICT_ALLOW && access != QSC_VERDICT_TOLERATE)
		return QSC_GATE_CLOSED;
	return rt->started && dma_mode(rt, state) != QSC_GATE_CLOSED ? QSC_GATE_OPEN
								     : QSC_GATE_OPEN_SOME;
}

static bool is_running(enum qsc_state state)
{
	return qsc_contract_verdict(QSC_ACTION_DEVICE_PEER_DMA, state) == QSC_VERDICT_ALLOW;
}

/* ---- parts of an arc ---- */

/* The device is stopped for good: nothing moves until a reset (ARC-5). */
static void fail(struct qsc_runtime *rt, const char *doing, const char *why)
{
	qsc_gate_set(&rt->dma.gate, QSC_GATE_CLOSED);
	qsc_gate_set(&rt->workers.gate, QSC_GATE_CLOSED);
	qsc_irqs_set_mode(&rt->irqs, qsc_contract_verdict(QSC_ACTION_DEVICE_IRQ, QSC_STATE_ERROR));
	if (qsc_mappings_revoke(&rt->mappings) < 0)
		qsc_log(QSC_LOG_ERROR, "%s: its mapped regions stay reachable in ERROR", rt->name);
	rt->started = false;
	qsc_runtime_session_drop(rt);
	qsc_log(QSC_LOG_ERROR, "%s: %s failed (%s); the device is in ERROR until it is reset",
		rt->name, doing, why);
	set_state(rt, QSC_STATE_ERROR);
}

/* Into a stopped state. Nothing of the device is under way when it returns 0. */
static int quiesce(struct qsc_runtime *rt, bool saving)
{
	uint32_t i;
	int result;

	/* What was rung before the stop has happened before it. */
	qsc_workers_answer_doorbells(&rt->workers);
	qsc_gate_set(&rt->workers.gate, QSC_GATE_CLOSED);
	if (rt->model->stop) {
		result = rt->model->stop(rt->ctx);
		if (result < 0) {
			fail(rt, "stop()", strerror(-result));
			return result;
		}
	}
	rt->started = false;
	result = qsc_mappings_revoke(&rt->mappings);
	if (result < 0) {
		fail(rt, "taking the mapped regions away", strerror(-result));
		return result;
	}
	for (i = 0; i < rt->num_blocks; i++)
		qsc_block_freeze(&rt->blocks[i], saving);
	return 0;
}

/* ORD-1 for memory that the user holds by a file of his own. */
static void find_violations(struct qsc_runtime *rt)
{
	uint32_t index;

	for (index = 0; index < VFIO_PCI_NUM_REGIONS; index++) {
		const struct qsc_region *region = &rt->regions[index];
		char text[QSC_ERROR_TEXT_SIZE];
		uint64_t changed;
		uint64_t first;

		if (!region->size || region->kind != QSC_REGION_BLOCK)
			continue;
		changed = qsc_block_changed(region->block, &first);
		if (!changed)
			continue;
		(void)snprintf(text, sizeof(text),
			       "%s: %llu pages of region %u, the first at offset 0x%llx, were "
			       "written while the device was stopped",
			       rt->name, (unsigned long long)changed, index,
			       (unsigned long long)first << QSC_BLOCK_PAGE_SHIFT);
		qsc_log(QSC_LOG_WARNING, "%s: %s", qsc_clause_id(QSC_CLAUSE_ORD_1), text);
		if (rt->violation)
			rt->violation(rt->violation_ctx, QSC_CLAUSE_ORD_1, text);
	}
}

/* Out of the stopped states: the device can be reached again, but does nothing of its own yet. */
static int wake(struct qsc_runtime *rt)
{
	int result;

	find_violations(rt);
	result = qsc_mappings_restore(&rt->mappings);
	if (result < 0) {
		fail(rt, "giving the mapped regions back", strerror(-result));
		return result;
	}
	qsc_workers_drop_doorbells(&rt->workers);
	return 0;
}

/* Into RUNNING or PRE_COPY from anywhere else; the DMA gate is open. */
static int start(struct qsc_runtime *rt)
{
	int result = rt->model->start ? rt->model->start(rt->ctx) : 0;

	if (result < 0) {
		fail(rt, "start()", strerror(-result));
		return result;
	}
	rt->started = true;
	return 0;
}

/* RESUMING -> STOP: the load counts, or the device must not run (SESS-6). */
static int finish_load(struct qsc_runtime *rt)
{
	struct qsc_error why = QSC_ERROR_NONE;
	int result = qsc_load_commit(rt->load, &why);
	uint32_t i;

	if (result == -ENODATA)
		qsc_log(QSC_LOG_WARNING, "%s: stays in RESUMING: %s", rt->name, why.text);
	else if (result < 0)
		fail(rt, "loading its state", why.text);
	else
		rt->unaccepted = false;
	/* What the model made of it is not what somebody wrote behind our back. */
	for (i = 0; !result && i < rt->num_blocks; i++)
		qsc_block_loaded(&rt->blocks[i]);
	return result;
}

/* The device does less from here on; what is under way of the rest has ended when it returns. */
static int narrow(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to)
{
	if (dma_mode(rt, to) < dma_mode(rt, from))
		qsc_gate_set(&rt->dma.gate, dma_mode(rt, to));
	if (is_running(from) && !is_running(to)) {
		/* A doorbell can still be answered on the way down. */
		qsc_gate_set(&rt->workers.gate, callback_mode(rt, to) == QSC_GATE_OPEN
							? QSC_GATE_OPEN
							: QSC_GATE_OPEN_SOME);
		qsc_irqs_set_mode(&rt->irqs, qsc_contract_verdict(QSC_ACTION_DEVICE_IRQ, to));
	}
	if (qsc_state_is_active(from) && !qsc_state_is_active(to))
		return quiesce(rt, qsc_state_is_saving(from));
	return from == QSC_STATE_RESUMING ? finish_load(rt) : 0;
}

/* The device does more from here on. */
static int widen(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to)
{
	bool starts = is_running(to) && !is_running(from);
	int result = 0;

	if (!qsc_state_is_active(from) && qsc_state_is_active(to))
		result = wake(rt);
	if (result < 0)
		return result;
	if (dma_mode(rt, to) > dma_mode(rt, from))
		qsc_gate_set(&rt->dma.gate, dma_mode(rt, to));
	if (starts) {
		result = start(rt);
		if (result < 0)
			return result;
		qsc_irqs_set_mode(&rt->irqs, qsc_contract_verdict(QSC_ACTION_DEVICE_IRQ, to));
	}
	if (qsc_gate_mode(&rt->workers.gate) != callback_mode(rt, to))
		qsc_gate_set(&rt->workers.gate, callback_mode(rt, to));
	return 0;
}

/* One direct arc. On failure the state is `from` or ERROR (ARC-6). */
static int take_arc(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to)
{
	int result = qsc_runtime_session_prepare(rt, from, to);

	if (!result)
		result = narrow(rt, from, to);
	if (!result)
		result = widen(rt, from, to);
	if (result < 0)
		return result;
	qsc_runtime_session_settle(rt, from, to);
	rt->unaccepted |= to == QSC_STATE_RESUMING;
	set_state(rt, to);
	if (is_running(to) && !is_running(from))
		qsc_workers_kick_all(&rt->workers);
	return 0;
}

/* ---- requests ---- */

int qsc_runtime_walk(struct qsc_runtime *rt, uint32_t target)
{
	enum qsc_state present = qsc_runtime_present_state(rt);

	/* The whole path is refused before any of it is gone. */
	if (qsc_contract_next(rt->flags, present, target) < 0)
		return -EINVAL;
	while (present != target) {
		enum qsc_state next = (enum qsc_state)qsc_contract_next(rt->flags, present, target);
		int result = take_arc(rt, present, next);

		if (result < 0)
			return result;
		qsc_log(QSC_LOG_DEBUG, "%s: %s -> %s", rt->name, qsc_state_name(present),
			qsc_state_name(next));
		present = next;
	}
	return 0;
}

int qsc_runtime_op_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = qsc_runtime_present_state(qsc_runtime_of(dev));
	return 0;
}

int qsc_runtime_op_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	uint64_t before;
	int result;

	qsc_runtime_begin(rt);
	before = rt->last_session;
	result = qsc_runtime_walk(rt, target);
	/* Only the last arc of a walk can have opened one. */
	*session = !result && rt->last_session != before ? rt->session : 0;
	qsc_runtime_end(rt);
	return result;
}

/* Everything as after power-on, with the device at rest. */
static int clear(struct qsc_runtime *rt, bool keep)
{
	uint32_t i;
	int result;

	qsc_gate_set(&rt->dma.gate, QSC_GATE_CLOSED);
	qsc_gate_set(&rt->workers.gate, QSC_GATE_CLOSED);
	qsc_irqs_set_mode(&rt->irqs, qsc_contract_verdict(QSC_ACTION_DEVICE_IRQ, QSC_STATE_STOP));
	rt->started = false;
	qsc_runtime_session_drop(rt);
	(void)qsc_dma_space_log_stop(&rt->dma);
	for (i = 0; i < rt->num_blocks; i++) {
		if (keep && rt->blocks[i].non_volatile && !rt->unaccepted)
			continue;
		result = qsc_block_zero(&rt->blocks[i]);
		if (result < 0)
			return result;
	}
	rt->unaccepted = false;
	memset(rt->state_data, 0, rt->model->state_size);
	rt->model->reset(rt->ctx);
	qsc_pci_reset(&rt->pci);
	qsc_irqs_forget(&rt->irqs);
	return 0;
}

int qsc_runtime_restart(struct qsc_runtime *rt, bool keep)
{
	int result = clear(rt, keep);

	if (!result)
		result = qsc_mappings_restore(&rt->mappings);
	if (result < 0) {
		fail(rt, "reset", strerror(-result));
		return result;
	}
	qsc_workers_drop_doorbells(&rt->workers);
	qsc_gate_set(&rt->dma.gate, QSC_GATE_OPEN);
	result = start(rt);
	if (result < 0)
		return result;
	qsc_irqs_set_mode(&rt->irqs, QSC_VERDICT_ALLOW);
	qsc_gate_set(&rt->workers.gate, QSC_GATE_OPEN);
	set_state(rt, QSC_STATE_RUNNING);
	qsc_workers_kick_all(&rt->workers);
	return 0;
}

int qsc_runtime_op_reset(struct qsc_device *dev)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	int result;

	qsc_runtime_begin(rt);
	result = qsc_runtime_restart(rt, true);
	qsc_runtime_end(rt);
	return result;
}
