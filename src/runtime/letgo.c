/* SPDX-License-Identifier: MIT */
/*
 * Between two users (STATE-5): what the one who goes was given is taken from him, and the one who
 * comes shares nothing with him. Mappings in this process can be undone, but who holds a file of
 * the device's memory, pages of it that a session lent, or the eventfd of a doorbell, holds it for
 * ever: the device moves to new ones.
 */
#include <errno.h>

#include "base/log.h"
#include "runtime/core.h"

/* Nobody who was given a file reaches the device by it afterwards, or -errno. */
static int renew_files(struct qsc_runtime *rt, bool keep)
{
	enum qsc_gate_mode mode = qsc_gate_mode(&rt->workers.gate);
	int result = 0;
	int failed;
	uint32_t i;

	/* The model writes to the memory from inside this gate only, and rings are taken there. */
	qsc_gate_set(&rt->workers.gate, QSC_GATE_CLOSED);
	for (i = 0; i < rt->num_blocks; i++) {
		failed = qsc_block_take_back(&rt->blocks[i], keep);
		result = result ? result : failed;
	}
	failed = qsc_workers_renew_doorbells(&rt->workers);
	result = result ? result : failed;
	qsc_gate_set(&rt->workers.gate, mode);
	/* Work that the gate refused was dropped. */
	qsc_workers_kick_all(&rt->workers);
	return result;
}

void qsc_runtime_let_go(struct qsc_runtime *rt)
{
	bool active;

	qsc_runtime_begin(rt);
	/* A stopped copy may live elsewhere by now and must not wake up as it is (SET-5). */
	active = qsc_state_is_active(qsc_runtime_present_state(rt));
	/*
	 * All this before the walk: on its way to RUNNING the device starts again, and what it then
	 * writes and raises is no longer for this user.
	 */
	qsc_irqs_tear_down(&rt->irqs);
	qsc_dma_space_unmap_all(&rt->dma);
	(void)qsc_dma_space_log_stop(&rt->dma);
	qsc_mappings_release(&rt->mappings);
	qsc_runtime_session_drop(rt);
	/* Who destroys it now has no next user. */
	rt->shared = !rt->destroy_on_close && renew_files(rt, active) < 0;
	if (rt->shared)
		qsc_log(QSC_LOG_ERROR,
			"%s: no new memory in place of what its last user holds; it cannot be "
			"opened until there is",
			rt->name);
	if (!active || qsc_runtime_walk(rt, QSC_STATE_RUNNING) < 0)
		(void)qsc_runtime_restart(rt, false);
	/* Without an eventfd they were held on; the next user knows nothing of them. */
	qsc_irqs_forget(&rt->irqs);
	qsc_runtime_end(rt);
}

int qsc_runtime_take_up(struct qsc_runtime *rt)
{
	int result = 0;

	qsc_runtime_begin(rt);
	/* The last user could write until now: what he left is no state of a device. */
	if (rt->shared) {
		result = renew_files(rt, false) < 0 ? -ENOMEM : 0;
		rt->shared = result < 0;
		if (!result)
			(void)qsc_runtime_restart(rt, false);
	}
	qsc_runtime_end(rt);
	return result;
}
