/* SPDX-License-Identifier: MIT */
/*
 * Migration state. The wire has one session without a name; here sessions are numbered, so that one
 * that has ended stays ended (SESS-2). Mapped regions are taken away and given back with the states
 * that this client asks for (DEV-7).
 */
#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "client/internal.h"

/* A feature without data in the request; `size` bytes of data in the reply. */
static int get_feature(struct qsc_client *client, uint32_t index, void *data, size_t size)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
	} request = {.feature = {.argsz = (uint32_t)(sizeof(request.feature) + size),
				 .flags = index | QSC_WIRE_FEATURE_GET}};
	uint8_t reply[sizeof(struct qsc_wire_feature) + 64];
	int result = qsc_client_request(client, QSC_WIRE_FEATURE, &request, sizeof(request), reply,
					sizeof(request.feature) + size);

	if (!result)
		memcpy(data, reply + sizeof(request.feature), size);
	return result;
}

static int probe(struct qsc_client *client, uint32_t index, uint32_t methods)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
	} request = {.feature = {.argsz = sizeof(request.feature),
				 .flags = index | methods | QSC_WIRE_FEATURE_PROBE}};
	struct qsc_wire_feature reply;

	return qsc_client_request(client, QSC_WIRE_FEATURE, &request, sizeof(request), &reply,
				  sizeof(reply));
}

int qsc_client_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct qsc_client *client = qsc_client_of(dev);
	uint64_t flags = 0;
	int result = get_feature(client, QSC_WIRE_FEATURE_MIGRATION, &flags, sizeof(flags));

	if (result < 0)
		return result;
	info->flags = (uint32_t)flags;
	result = probe(client, QSC_WIRE_FEATURE_LOG_START, QSC_WIRE_FEATURE_SET);
	if (!result)
		result = probe(client, QSC_WIRE_FEATURE_LOG_REPORT, QSC_WIRE_FEATURE_GET);
	info->dirty_log = !result;
	return result == -ENOTCONN || result == -ETIMEDOUT ? result : 0;
}

int qsc_client_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct qsc_wire_mig_state wire = {0};
	int result = get_feature(client, QSC_WIRE_FEATURE_MIG_STATE, &wire, sizeof(wire));

	if (result < 0)
		return result;
	if (wire.state >= QSC_STATE_COUNT)
		return qsc_client_distrust(client, "the migration state");
	*state = (enum qsc_state)wire.state;
	return 0;
}

static bool holds_session(uint32_t state)
{
	return state == QSC_STATE_RESUMING || qsc_state_is_saving((enum qsc_state)state);
}

static bool same_session(enum qsc_state before, enum qsc_state after)
{
	return before == after || (qsc_state_is_saving(before) && qsc_state_is_saving(after));
}

/* State lock held. The device is in `state` now; mappings and the session follow. */
static int enter(struct qsc_client *client, enum qsc_state state)
{
	if (!holds_session(state) || !same_session(client->state, state))
		client->session = 0;
	client->state = state;
	client->state_known = true;
	return qsc_state_is_active(state) ? qsc_mappings_restore(&client->mappings)
					  : qsc_mappings_revoke(&client->mappings);
}

/* State lock held. Ask rather than guess (ORD-4). */
static int learn(struct qsc_client *client)
{
	enum qsc_state state = QSC_STATE_ERROR;
	int result;

	if (client->state_known)
		return 0;
	result = qsc_client_get_state(&client->dev, &state);
	return result < 0 ? result : enter(client, state);
}

/*
 * State lock held. After a failure the device may be anywhere on the path. When it cannot be asked
 * either, the state stays unknown, and everybody who asks is told so by the error.
 */
static void recover(struct qsc_client *client, int failure)
{
	client->state_known = false;
	/* The errno tells nothing of the connection: the device may have failed with the same. */
	if (learn(client) < 0) {
		client->session = 0;
		qsc_log(QSC_LOG_WARNING,
			"vfio-user: a state change failed (%s) and the state cannot be read; it "
			"is not known where the device stands",
			strerror(-failure));
	}
}

/* State lock held, no change under way: ask for it. */
static int begin_change(struct qsc_client *client, uint32_t target)
{
	struct qsc_client_change *change = &client->change;
	struct iovec iov = {.iov_base = &change->request, .iov_len = sizeof(change->request)};
	int result = learn(client);

	if (result < 0)
		return result;
	/* Before the device stops: a write in between must not reach it. */
	if (target < QSC_STATE_COUNT && target != QSC_STATE_ERROR &&
	    !qsc_state_is_active((enum qsc_state)target)) {
		result = qsc_mappings_revoke(&client->mappings);
		if (result < 0)
			return result;
	}
	*change = (struct qsc_client_change){
		.request = {.feature = {.argsz = sizeof(change->reply),
					.flags = QSC_WIRE_FEATURE_MIG_STATE | QSC_WIRE_FEATURE_SET},
			    .state = {.state = target, .data_fd = UINT32_MAX}},
		.call = {.command = QSC_WIRE_FEATURE,
			 .min_size = sizeof(change->reply),
			 .fixed = &change->reply,
			 .fixed_size = sizeof(change->reply)},
		.target = target,
		.before = client->state,
	};
	result = qsc_rpc_begin(client->rpc, &change->call, &iov, 1, NULL, 0);
	if (result < 0)
		recover(client, result);
	client->changing = result >= 0;
	return result;
}

/* State lock held. What came of it. */
static int end_change(struct qsc_client *client, int result, uint64_t *session)
{
	uint32_t target = client->change.target;
	bool opened;

	if (result < 0) {
		recover(client, result);
		return result;
	}
	if (target >= QSC_STATE_COUNT)
		return qsc_client_distrust(client, "a state that does not exist");
	opened = holds_session(target) &&
		 !same_session(client->change.before, (enum qsc_state)target);
	result = enter(client, (enum qsc_state)target);
	if (opened)
		client->session = *session = ++client->last_session;
	return result;
}

void qsc_client_lock_state(struct qsc_client *client)
{
	pthread_mutex_lock(&client->state_lock);
	while (client->changing)
		pthread_cond_wait(&client->changed, &client->state_lock);
}

int qsc_client_set_state_begin(struct qsc_device *dev, uint32_t target)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result;

	/* Whoever asks many must not wait here for one of them. */
	if (pthread_mutex_trylock(&client->state_lock))
		return -EOPNOTSUPP;
	result = client->changing || !client->state_known ? -EOPNOTSUPP
							  : begin_change(client, target);
	pthread_mutex_unlock(&client->state_lock);
	return result;
}

int qsc_client_set_state_end(struct qsc_device *dev, uint64_t *session)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result = qsc_rpc_finish(client->rpc, &client->change.call);

	if (!result)
		result = client->change.call.result;
	pthread_mutex_lock(&client->state_lock);
	result = end_change(client, result, session);
	client->changing = false;
	pthread_cond_broadcast(&client->changed);
	pthread_mutex_unlock(&client->state_lock);
	return result;
}

int qsc_client_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result;

	qsc_client_lock_state(client);
	result = begin_change(client, target);
	pthread_mutex_unlock(&client->state_lock);
	return result < 0 ? result : qsc_client_set_state_end(dev, session);
}

int qsc_client_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	return get_feature(qsc_client_of(dev), QSC_WIRE_FEATURE_MIG_DATA_SIZE, size_bytes,
			   sizeof(*size_bytes));
}

int qsc_client_session_precopy_info(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct qsc_wire_precopy_info wire = {0};
	int result;

	if (!client->caps.quiesce)
		return -ENOTTY;
	qsc_client_lock_state(client);
	result = learn(client);
	/* SESS-4 first: in another state the question is wrong whatever the session. */
	if (!result && client->state != QSC_STATE_PRE_COPY &&
	    client->state != QSC_STATE_PRE_COPY_P2P)
		result = -EINVAL;
	if (!result && session != client->session)
		result = -ENODEV;
	if (!result)
		result = get_feature(client, QSC_WIRE_FEATURE_PRECOPY_INFO, &wire, sizeof(wire));
	pthread_mutex_unlock(&client->state_lock);
	if (result < 0)
		return result;
	info->initial_bytes = wire.initial_bytes;
	info->dirty_bytes = wire.dirty_bytes;
	return 0;
}

int qsc_client_reset(struct qsc_device *dev)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct {
		struct qsc_wire_header header;
	} request;
	int result;

	qsc_client_lock_state(client);
	result = qsc_client_request(client, QSC_WIRE_RESET, &request, sizeof(request), NULL, 0);
	if (result < 0) {
		recover(client, result);
	} else {
		client->session = 0;
		result = enter(client, QSC_STATE_RUNNING);
	}
	pthread_mutex_unlock(&client->state_lock);
	return result;
}
