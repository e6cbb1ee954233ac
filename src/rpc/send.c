/* SPDX-License-Identifier: MIT */
/*
 * Sending, one message at a time. A short one is sent under the lock, as far as it goes without
 * waiting.
 */
#include <errno.h>
#include <string.h>

#include "rpc/internal.h"

size_t qsc_rpc_total_size(const struct iovec *iov, size_t iovcnt)
{
	size_t size = 0;
	size_t i;

	for (i = 0; i < iovcnt; i++)
		size += iov[i].iov_len;
	return size;
}

void qsc_rpc_await_turn(struct qsc_rpc *rpc)
{
	while (rpc->sending)
		qsc_rpc_wait_idle(rpc, 0);
}

void qsc_rpc_fill_header(const struct iovec *iov, size_t size, uint16_t id, uint16_t command,
			 uint32_t flags)
{
	struct qsc_wire_header header = {
		.id = id, .command = command, .size = (uint32_t)size, .flags = flags};

	memcpy(iov[0].iov_base, &header, sizeof(header));
}

uint32_t qsc_rpc_promise(struct qsc_rpc *rpc)
{
	if (!rpc->promising || rpc->fd_senders)
		return 0;
	rpc->promised = true;
	return QSC_WIRE_PLAIN;
}

/* Lock held, and it is this message's turn. */
qsc_flat int send_alone(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	int result;

	if (qsc_rpc_broken(rpc))
		return -ENOTCONN;
	result = qsc_rpc_send_message(rpc, output);
	if (result < 0)
		qsc_rpc_break_off(rpc);
	return result;
}

int qsc_rpc_send(struct qsc_rpc *rpc, struct iovec *iov, size_t iovcnt, const int *fds,
		 size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = qsc_rpc_total_size(iov, iovcnt),
					      .fds = fds,
					      .num_fds = num_fds};
	int result;

	pthread_mutex_lock(&rpc->lock);
	qsc_rpc_await_turn(rpc);
	result = send_alone(rpc, &output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_post(struct qsc_rpc *rpc, uint16_t command, struct iovec *iov, size_t iovcnt)
{
	const struct qsc_rpc_output output = {
		.iov = iov, .iovcnt = iovcnt, .size = qsc_rpc_total_size(iov, iovcnt)};
	int result;

	pthread_mutex_lock(&rpc->lock);
	qsc_rpc_await_turn(rpc);
	qsc_rpc_fill_header(iov, output.size, 0, command, QSC_WIRE_NO_REPLY | qsc_rpc_promise(rpc));
	result = send_alone(rpc, &output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

qsc_flat int reply(struct qsc_rpc *rpc, const struct qsc_wire_header *command,
		   const struct qsc_rpc_output *output)
{
	int result;

	if (command->flags & QSC_WIRE_NO_REPLY)
		return 0;
	qsc_rpc_fill_header(output->iov, output->size, command->id, command->command,
			    QSC_WIRE_TYPE_REPLY);
	pthread_mutex_lock(&rpc->lock);
	qsc_rpc_await_turn(rpc);
	result = send_alone(rpc, output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_reply(struct qsc_rpc *rpc, const struct qsc_wire_header *command, void *message,
		  size_t size, const int *fds, size_t num_fds)
{
	struct iovec iov = {.iov_base = message, .iov_len = size};
	const struct qsc_rpc_output output = {
		.iov = &iov, .iovcnt = 1, .size = size, .fds = fds, .num_fds = num_fds};

	return reply(rpc, command, &output);
}

int qsc_rpc_reply_parts(struct qsc_rpc *rpc, const struct qsc_wire_header *command,
			struct iovec *iov, size_t iovcnt, uint64_t resting, const int *fds,
			size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = qsc_rpc_total_size(iov, iovcnt),
					      .resting = resting,
					      .fds = fds,
					      .num_fds = num_fds};

	return reply(rpc, command, &output);
}

int qsc_rpc_reply_error(struct qsc_rpc *rpc, const struct qsc_wire_header *command, int error)
{
	struct qsc_wire_header header = {
		.id = command->id,
		.command = command->command,
		.size = sizeof(header),
		.flags = QSC_WIRE_TYPE_REPLY | QSC_WIRE_ERROR,
		.error = (uint32_t)-error,
	};
	struct iovec iov = {.iov_base = &header, .iov_len = sizeof(header)};

	if (command->flags & QSC_WIRE_NO_REPLY)
		return 0;
	return qsc_rpc_send(rpc, &iov, 1, NULL, 0);
}
