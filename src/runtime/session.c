/* SPDX-License-Identifier: MIT */
/*
 * Sessions: when an arc opens or ends one, and the calls that move a state stream. They exclude
 * state changes and resets, and have ended for their user as soon as the state that they belong to
 * is left.
 */
#include <errno.h>

#include "base/log.h"
#include "runtime/core.h"

static bool opens_saving(enum qsc_state from, enum qsc_state to)
{
	return qsc_state_is_saving(to) && !qsc_state_is_saving(from);
}

int qsc_runtime_session_prepare(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to)
{
	const struct qsc_load_target target = {
		.layout = &rt->layout,
		.model = rt->model,
		.ctx = rt->ctx,
		.state = rt->state_data,
		.blocks = rt->blocks,
		.irqs = &rt->irqs,
	};

	if (opens_saving(from, to))
		return qsc_save_create(&rt->source, &rt->save);
	if (to == QSC_STATE_RESUMING) {
		int result = qsc_load_create(&target, &rt->load);

		if (!result)
			qsc_irqs_load_begin(&rt->irqs);
		return result;
	}
	return 0;
}

void qsc_runtime_session_settle(struct qsc_runtime *rt, enum qsc_state from, enum qsc_state to)
{
	if (opens_saving(from, to) || to == QSC_STATE_RESUMING)
		rt->session = ++rt->last_session;
	if (to == QSC_STATE_STOP_COPY)
		qsc_save_freeze(rt->save);
	if ((qsc_state_is_saving(from) && !qsc_state_is_saving(to)) || from == QSC_STATE_RESUMING)
		qsc_runtime_session_drop(rt);
}

void qsc_runtime_session_drop(struct qsc_runtime *rt)
{
	rt->session = 0;
	qsc_save_destroy(rt->save);
	qsc_load_destroy(rt->load);
	rt->save = NULL;
	rt->load = NULL;
}

/*
 * Begin a session call: 0, or what the contract answers in this state, or -ENODEV for a session
 * that has ended (SESS-2). On failure nothing is held.
 */
static int begin_call(struct qsc_runtime *rt, enum qsc_action action, uint64_t session)
{
	int refused;

	qsc_runtime_begin(rt);
	refused = qsc_verdict_errno(qsc_contract_verdict(action, qsc_runtime_present_state(rt)));
	if (!refused && (!session || session != rt->session))
		refused = ENODEV;
	if (refused)
		qsc_runtime_end(rt);
	return -refused;
}

int qsc_runtime_op_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	int result = 0;

	qsc_runtime_begin(rt);
	if (qsc_runtime_present_state(rt) == QSC_STATE_ERROR)
		result = -EIO;
	else
		*size_bytes = qsc_save_estimate(&rt->source, rt->save);
	qsc_runtime_end(rt);
	return result;
}

static ssize_t read_session(struct qsc_device *dev, uint64_t session, struct qsc_save_sink *to)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	ssize_t result = begin_call(rt, QSC_ACTION_DATA_READ, session);

	if (result < 0)
		return result;
	result = qsc_save_read(rt->save, to);
	/* SESS-3: drained for now is not the end. */
	if (!result && to->size && qsc_runtime_present_state(rt) != QSC_STATE_STOP_COPY)
		result = -ENOMSG;
	qsc_runtime_end(rt);
	return result;
}

ssize_t qsc_runtime_op_session_read(struct qsc_device *dev, uint64_t session, void *buf,
				    size_t size)
{
	struct qsc_save_sink to = {.buf = buf, .size = size};

	return read_session(dev, session, &to);
}

ssize_t qsc_runtime_op_session_lend(struct qsc_device *dev, uint64_t session, void *buf,
				    size_t size, struct iovec *iov, size_t max, size_t *count)
{
	struct qsc_save_sink to = {.buf = buf, .size = size, .iov = iov, .max = max};
	ssize_t result = read_session(dev, session, &to);

	*count = to.count;
	return result;
}

ssize_t qsc_runtime_op_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				     size_t size)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	struct qsc_error why = QSC_ERROR_NONE;
	int result = begin_call(rt, QSC_ACTION_DATA_WRITE, session);

	if (result < 0)
		return result;
	result = qsc_load_write(rt->load, buf, size, &why);
	qsc_runtime_end(rt);
	if (result < 0)
		qsc_log(QSC_LOG_WARNING, "%s: refuses what is written in RESUMING: %s", rt->name,
			why.text);
	return result < 0 ? result : (ssize_t)size;
}

int qsc_runtime_op_session_precopy_info(struct qsc_device *dev, uint64_t session,
					struct qsc_precopy_info *info)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	int result = begin_call(rt, QSC_ACTION_PRECOPY_INFO, session);

	if (result < 0)
		return result;
	qsc_save_precopy_info(rt->save, info);
	qsc_runtime_end(rt);
	return 0;
}

int qsc_runtime_op_session_close(struct qsc_device *dev, uint64_t session)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	int result = 0;

	qsc_runtime_begin(rt);
	if (session && session == rt->session)
		rt->session = 0;
	else
		result = -ENODEV;
	qsc_runtime_end(rt);
	return result;
}
