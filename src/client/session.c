/* SPDX-License-Identifier: MIT */
/* The data of the state stream, in pieces that both ends take. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "client/internal.h"

/*
 * Pieces of a read that are under way at once, so that the server reads from its device while this
 * end takes what it read before; each small enough to stay in a cache on its way, and the first the
 * smallest, because until it comes there is nothing to take.
 */
#define READ_DEPTH 4U
#define READ_FIRST (64U << 10)
#define READ_PIECE (256U << 10)

/* The same of a write. */
#define WRITE_DEPTH 4U
#define WRITE_PIECE (256U << 10)

struct piece {
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_mig_data data;
	} request;
	struct qsc_wire_mig_data reply;
	struct qsc_call call;
	void *buf;
};

/* State lock held. */
static int begin_read(struct qsc_client *client, struct piece *piece, void *buf, uint32_t size)
{
	struct iovec iov = {.iov_base = &piece->request, .iov_len = sizeof(piece->request)};

	piece->buf = buf;
	piece->request.data.argsz = (uint32_t)sizeof(piece->request.data) + size;
	piece->request.data.size = size;
	piece->call = (struct qsc_call){
		.command = QSC_WIRE_MIG_DATA_READ,
		.min_size = sizeof(piece->reply),
		.fixed = &piece->reply,
		.fixed_size = sizeof(piece->reply),
		.data = buf,
		.data_max = size,
	};
	return qsc_rpc_begin(client->rpc, &piece->call, &iov, 1, NULL, 0);
}

/* State lock held. */
static ssize_t finish_read(struct qsc_client *client, struct piece *piece)
{
	int result = qsc_rpc_finish(client->rpc, &piece->call);

	if (!result)
		result = piece->call.result;
	if (result < 0)
		return result;
	if (piece->reply.size != piece->call.body - sizeof(piece->reply))
		return qsc_client_distrust(client, "MIG_DATA_READ");
	/* The wire itself has one way to say "nothing"; what it means depends on the state. */
	if (!piece->reply.size && client->state != QSC_STATE_STOP_COPY)
		return -ENOMSG;
	return (ssize_t)piece->reply.size;
}

/*
 * State lock held. A server works in order, so what its replies bring is the stream in order; but
 * one of them may bring less than was asked for and a later one more, where data came up between.
 */
static ssize_t read_pieces(struct qsc_client *client, char *buf, size_t size)
{
	struct piece pieces[READ_DEPTH];
	uint32_t most = client->caps.quiesce ? READ_PIECE : client->xfer_size;
	unsigned int depth = client->caps.quiesce ? READ_DEPTH : 1;
	unsigned int begun = 0;
	unsigned int finished = 0;
	size_t asked = 0;
	size_t done = 0;
	ssize_t error = 0;
	bool more = true;
	bool lost = false;

	most = (uint32_t)qsc_min_u64(most, client->xfer_size);
	while (more || finished < begun) {
		ssize_t n;

		while (more && asked < size && begun - finished < depth) {
			uint32_t part = (uint32_t)qsc_min_u64(size - asked, most);

			if (!begun && depth > 1)
				part = (uint32_t)qsc_min_u64(part, READ_FIRST);

			n = begin_read(client, &pieces[begun % READ_DEPTH], buf + asked, part);
			if (n < 0) {
				error = n;
				more = false;
				break;
			}
			asked += part;
			begun++;
		}
		if (finished == begun)
			break;
		n = finish_read(client, &pieces[finished % READ_DEPTH]);
		if (n > 0 && pieces[finished % READ_DEPTH].buf != buf + done)
			memmove(buf + done, pieces[finished % READ_DEPTH].buf, (size_t)n);
		if (n > 0) {
			done += (size_t)n;
			lost = lost || (error && error != -ENOMSG);
		} else if (n < 0 && (!error || error == -ENOMSG)) {
			error = n;
		}
		/* Less than asked for: drained for now, or the end. */
		if (n < (ssize_t)pieces[finished % READ_DEPTH].call.data_max)
			more = false;
		finished++;
		more = more && asked < size;
	}
	/* Bytes with a failure before them may not be the next ones of the stream. */
	if (lost)
		client->session = 0;
	return error && (lost || !done) ? error : (ssize_t)done;
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
	ssize_t n;

	qsc_client_lock_state(client);
	n = check(client, session, true);
	if (!n)
		n = read_pieces(client, buf, size);
	pthread_mutex_unlock(&client->state_lock);
	return n;
}

struct part {
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_mig_data data;
	} request;
	struct qsc_call call;
};

/* State lock held. */
static int begin_write(struct qsc_client *client, struct part *part, const void *buf, uint32_t size)
{
	struct iovec iov[2] = {
		{.iov_base = &part->request, .iov_len = sizeof(part->request)},
		{.iov_base = (void *)(uintptr_t)buf, .iov_len = size},
	};

	part->request.data.argsz = (uint32_t)sizeof(part->request.data) + size;
	part->request.data.size = size;
	part->call = (struct qsc_call){.command = QSC_WIRE_MIG_DATA_WRITE};
	return qsc_rpc_begin(client->rpc, &part->call, iov, 2, NULL, 0);
}

/* State lock held. */
static int finish_write(struct qsc_client *client, struct part *part)
{
	int result = qsc_rpc_finish(client->rpc, &part->call);

	return result < 0 ? result : part->call.result;
}

/*
 * State lock held. A server works in order, so the parts reach the stream in order. Those that are
 * under way when one fails may still be taken: the stream then has a hole, and nothing more is
 * written to it.
 */
static int write_parts(struct qsc_client *client, const char *buf, size_t size)
{
	struct part parts[WRITE_DEPTH];
	uint32_t most = client->caps.quiesce ? WRITE_PIECE : client->xfer_size;
	unsigned int depth = client->caps.quiesce ? WRITE_DEPTH : 1;
	unsigned int begun = 0;
	unsigned int finished = 0;
	size_t asked = 0;
	int result = 0;
	bool hole = false;

	most = (uint32_t)qsc_min_u64(most, client->xfer_size);
	while ((!result && asked < size) || finished < begun) {
		int n;

		if (!result && asked < size && begun - finished < depth) {
			uint32_t part = (uint32_t)qsc_min_u64(size - asked, most);

			result = begin_write(client, &parts[begun % WRITE_DEPTH], buf + asked,
					     part);
			begun += !result;
			asked += part;
			continue;
		}
		n = finish_write(client, &parts[finished++ % WRITE_DEPTH]);
		hole = hole || (result && !n);
		result = result ? result : n;
	}
	if (hole)
		client->session = 0;
	return result;
}

ssize_t qsc_client_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result;

	qsc_client_lock_state(client);
	result = check(client, session, false);
	if (!result)
		result = write_parts(client, buf, size);
	pthread_mutex_unlock(&client->state_lock);
	return result < 0 ? result : (ssize_t)size;
}

int qsc_client_session_close(struct qsc_device *dev, uint64_t session)
{
	struct qsc_client *client = qsc_client_of(dev);
	int result = -ENODEV;

	qsc_client_lock_state(client);
	if (session == client->session) {
		client->session = 0;
		result = 0;
	}
	pthread_mutex_unlock(&client->state_lock);
	return result;
}
