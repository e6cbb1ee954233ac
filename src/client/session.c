/* SPDX-License-Identifier: MIT */
/* The data of the state stream, in pieces that both ends take. */
#include <errno.h>

#include "base/cleanup.h"
#include "client/internal.h"

/* State lock held. */
static ssize_t read_part(struct qsc_client *client, void *buf, uint32_t size)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_mig_data data;
	} request = {.data = {.argsz = (uint32_t)sizeof(request.data) + size, .size = size}};
	struct qsc_wire_mig_data reply;
	struct qsc_call call = {
		.command = QSC_WIRE_MIG_DATA_READ,
		.min_size = sizeof(reply),
		.fixed = &reply,
		.fixed_size = sizeof(reply),
		.data = buf,
		.data_max = size,
	};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	int result = qsc_channel_call(client->channel, &call, &iov, 1, NULL, 0);

	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	if (reply.size != call.body - sizeof(reply))
		return qsc_client_distrust(client, "MIG_DATA_READ");
	/* The wire itself has one way to say "nothing"; what it means depends on the state. */
	if (!reply.size && client->state != QSC_STATE_STOP_COPY)
		return -ENOMSG;
	return (ssize_t)reply.size;
}

/* State lock held: is this the session that is open, and may it be used this way? */
static int check(struct qsc_client *client, uint64_t session, bool reading)
{
	if (session != client->session)
		return -ENODEV;
	return (client->state != QSC_STATE_RESUMING) == reading ? 0 : -ENODEV;
}

ssize_t qsc_client_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct qsc_client *client = qsc_client_of(dev);
	size_t done = 0;
	ssize_t n;

	pthread_mutex_lock(&client->state_lock);
	n = check(client, session, true);
	while (!n && done < size) {
		uint32_t part = (uint32_t)qsc_min_u64(size - done, client->xfer_size);

		n = read_part(client, (char *)buf + done, part);
		if (n > 0)
			done += (size_t)n;
		/* Less than asked for: drained, or the end. */
		n = n == (ssize_t)part ? 0 : n < 0 ? n : 1;
		if (n > 0)
			break;
	}
	pthread_mutex_unlock(&client->state_lock);
	return n < 0 && !done ? n : (ssize_t)done;
}

/* State lock held. */
static int write_part(struct qsc_client *client, const void *buf, uint32_t size)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_mig_data data;
	} request = {.data = {.argsz = (uint32_t)sizeof(request.data) + size, .size = size}};
	struct qsc_call call = {.command = QSC_WIRE_MIG_DATA_WRITE};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = sizeof(request)},
		{.iov_base = (void *)(uintptr_t)buf, .iov_len = size},
	};
	int result = qsc_channel_call(client->channel, &call, iov, 2, NULL, 0);

	return result < 0 ? result : call.result;
}

ssize_t qsc_client_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size)
{
	struct qsc_client *client = qsc_client_of(dev);
	size_t done = 0;
	int result;

	pthread_mutex_lock(&client->state_lock);
	result = check(client, session, false);
	while (!result && done < size) {
		uint32_t part = (uint32_t)qsc_min_u64(size - done, client->xfer_size);

		result = write_part(client, (const char *)buf + done, part);
		done += part;
	}
	pthread_mutex_unlock(&client->state_lock);
	return result < 0 ? result : (ssize_t)done;
}

int qsc_client_session_close(struct qsc_device *dev, uint64_t session)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result = -ENODEV;

	pthread_mutex_lock(&client->state_lock);
	if (session == client->session) {
		client->session = 0;
		result = 0;
	}
	pthread_mutex_unlock(&client->state_lock);
	return result;
}
