/* SPDX-License-Identifier: MIT */
/* The fault layer's actions of migration: states, single arcs, sessions. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "device/fault_layer.h"

/* ---- states ---- */

int qsc_fault_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	uint64_t flags;
	int64_t result;

	if (!armed(fault, FAULT_GET_MIGRATION))
		return qsc_device_get_migration(fault->inner, info);
	if (qsc_fault_strike(fault, FAULT_GET_MIGRATION, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = qsc_fault_finish(&s, qsc_device_get_migration(fault->inner, info));
	if (qsc_fault_says(&s, &flags))
		info->flags = (uint32_t)flags;
	if (s.by[FAULT_NOLOG])
		info->dirty_log = false;
	return (int)result;
}

int qsc_fault_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	uint64_t said;
	int64_t result;

	if (!armed(fault, FAULT_GET_STATE))
		return qsc_device_get_state(fault->inner, state);
	if (qsc_fault_strike(fault, FAULT_GET_STATE, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = qsc_fault_finish(&s, qsc_device_get_state(fault->inner, state));
	if (atomic_load(&fault->broken))
		*state = QSC_STATE_ERROR;
	if (qsc_fault_says(&s, &said))
		*state = (enum qsc_state)said;
	return (int)result;
}

/* Take the arcs of a request one by one, so that each can be struck. */
static int walk(struct fault *fault, uint32_t target, uint64_t *session)
{
	struct qsc_migration_info info;
	enum qsc_state at;
	bool moved = false;
	int result = qsc_device_get_migration(fault->inner, &info);

	if (!result)
		result = qsc_device_get_state(fault->inner, &at);
	for (; !result; moved = true) {
		int next = qsc_contract_next(info.flags, at, target);
		uint64_t opened = 0;
		struct strike s;

		/* What is refused or does nothing is for the device to say. */
		if (next < 0 || next == (int)at)
			return moved ? 0 : qsc_device_set_state(fault->inner, target, session);
		if (qsc_fault_strike(fault, FAULT_ARC, at, (uint32_t)next, 0, &s))
			return (int)s.result;
		result = qsc_device_set_state(fault->inner, (uint32_t)next, &opened);
		if (opened)
			*session = opened;
		at = (enum qsc_state)next;
	}
	return result;
}

static void note_session(struct fault *fault, int result, uint64_t session)
{
	if (result || !session)
		return;
	pthread_mutex_lock(&fault->lock);
	fault->session = session;
	pthread_mutex_unlock(&fault->lock);
}

static int request(struct fault *fault, uint32_t target, uint64_t *session)
{
	int result = fault->walks ? walk(fault, target, session)
				  : qsc_device_set_state(fault->inner, target, session);

	note_session(fault, result, *session);
	return result;
}

int qsc_fault_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct fault *fault = fault_of(dev);
	const struct fault_rule *lie;
	struct strike s;
	int result;

	if (!armed(fault, FAULT_SET_STATE))
		return request(fault, target, session);
	if (qsc_fault_strike(fault, FAULT_SET_STATE, target, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = (int)qsc_fault_finish(&s, request(fault, target, session));
	lie = s.by[FAULT_SESSION];
	if (lie && !result && !lie->value) {
		*session = 0;
	} else if (lie && !result && !*session) {
		pthread_mutex_lock(&fault->lock);
		*session = fault->session;
		pthread_mutex_unlock(&fault->lock);
	}
	return result;
}

/*
 * Where a rule stands the whole is asked for: a strike may take time, and whoever asks many must
 * not wait here for one.
 */
int qsc_fault_set_state_begin(struct qsc_device *dev, uint32_t target)
{
	struct fault *fault = fault_of(dev);

	if (fault->walks || armed(fault, FAULT_SET_STATE))
		return -EOPNOTSUPP;
	return qsc_device_set_state_begin(fault->inner, target);
}

int qsc_fault_set_state_end(struct qsc_device *dev, uint64_t *session)
{
	struct fault *fault = fault_of(dev);
	int result = qsc_device_set_state_end(fault->inner, session);

	note_session(fault, result, *session);
	return result;
}

int qsc_fault_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	int64_t result;

	if (!armed(fault, FAULT_DATA_SIZE))
		return qsc_device_data_size(fault->inner, size_bytes);
	if (qsc_fault_strike(fault, FAULT_DATA_SIZE, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = qsc_fault_finish(&s, qsc_device_data_size(fault->inner, size_bytes));
	(void)qsc_fault_says(&s, size_bytes);
	return (int)result;
}

/* ---- sessions ---- */

ssize_t qsc_fault_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_READ))
		return qsc_device_session_read(fault->inner, session, buf, size);
	if (qsc_fault_strike(fault, FAULT_SESSION_READ, 0, FAULT_ANY, 0, &s))
		return (ssize_t)s.result;
	n = qsc_device_session_read(fault->inner, session, buf, qsc_fault_shortened(&s, size));
	if (n > 0)
		qsc_fault_spoil(&s, buf, (size_t)n);
	if (s.by[FAULT_SAY] && n < (ssize_t)size)
		memset((uint8_t *)buf + (n > 0 ? n : 0), 0, size - (size_t)(n > 0 ? n : 0));
	return qsc_fault_count_told(&s, n, size);
}

ssize_t qsc_fault_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
			       struct iovec *iov, size_t max, size_t *count)
{
	struct fault *fault = fault_of(dev);
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_READ))
		return qsc_device_session_lend(fault->inner, session, buf, size, iov, max, count);
	n = qsc_fault_session_read(dev, session, buf, size);
	if (n > 0) {
		iov[0] = (struct iovec){.iov_base = buf, .iov_len = (size_t)n};
		*count = 1;
	}
	return n;
}

ssize_t qsc_fault_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				size_t size)
{
	struct fault *fault = fault_of(dev);
	qsc_autofree void *copy = NULL;
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_WRITE))
		return qsc_device_session_write(fault->inner, session, buf, size);
	if (qsc_fault_strike(fault, FAULT_SESSION_WRITE, 0, FAULT_ANY, (int64_t)size, &s))
		return (ssize_t)s.result;
	if (size && s.by[FAULT_FLIP]) {
		copy = malloc(size);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, buf, size);
		qsc_fault_spoil(&s, copy, size);
	}
	n = qsc_device_session_write(fault->inner, session, copy ? copy : buf,
				     qsc_fault_shortened(&s, size));
	return qsc_fault_count_told(&s, n, size);
}

int qsc_fault_session_precopy_info(struct qsc_device *dev, uint64_t session,
				   struct qsc_precopy_info *info)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	int64_t result;

	if (!armed(fault, FAULT_PRECOPY_INFO))
		return qsc_device_session_precopy_info(fault->inner, session, info);
	if (qsc_fault_strike(fault, FAULT_PRECOPY_INFO, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = qsc_fault_finish(&s, qsc_device_session_precopy_info(fault->inner, session, info));
	(void)qsc_fault_says(&s, &info->initial_bytes);
	return (int)result;
}

int qsc_fault_session_close(struct qsc_device *dev, uint64_t session)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_SESSION_CLOSE, 0,
		       qsc_device_session_close(fault->inner, session));
}
