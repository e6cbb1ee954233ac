/* SPDX-License-Identifier: MIT */
/*
 * A channel over a stream socket. Small reads are served from a buffer, so that a header does not
 * cost a system call; the socket never blocks, so that both limits of a channel hold in every wait.
 */
#include "transport/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define SOCKET_BYTES (4 << 20) /* asked of the kernel, which grants what it allows */

/* ---- waiting ---- */

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

/* Milliseconds from now until a time, rounded up; as poll() takes them. */
static int until(uint64_t now, uint64_t end_us)
{
	uint64_t ms = end_us > now ? (end_us - now + 999) / 1000 : 0;

	return (int)qsc_min_u64(ms, INT_MAX);
}

int qsc_socket_wait(int fd, short events, uint32_t stall_ms, uint64_t deadline_us)
{
	struct pollfd poller = {.fd = fd, .events = events};
	uint64_t now = now_us();
	uint64_t end = stall_ms ? now + stall_ms * 1000ULL : UINT64_MAX;
	int ready;

	if (deadline_us)
		end = qsc_min_u64(end, deadline_us);
	for (;;) {
		ready = poll(&poller, 1, end == UINT64_MAX ? -1 : until(now, end));
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -errno;
		now = now_us();
		if (now >= end)
			return -ETIMEDOUT;
	}
}

/* 0: try again. What a socket call that did nothing means. */
static int wait_for(const struct qsc_socket *socket, short events)
{
	if (errno == EINTR)
		return 0;
	if (errno != EAGAIN && errno != EWOULDBLOCK)
		return -errno;
	return qsc_socket_wait(socket->fd, events, socket->stall_ms, socket->deadline_us);
}

/* A peer that takes a byte at a time would keep a call from ever looking at the clock. */
static bool is_late(const struct qsc_socket *socket)
{
	return socket->deadline_us && now_us() >= socket->deadline_us;
}

/* ---- the channel ---- */

static struct qsc_socket *socket_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct qsc_socket, base);
}

static int socket_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct qsc_socket *socket = socket_of(ch);
	struct iovec local[IOV_MAX];
	struct msghdr msg = {.msg_iov = local};
	int result;

	if (iovcnt < 0 || iovcnt > IOV_MAX)
		return -EINVAL;
	memcpy(local, iov, (size_t)iovcnt * sizeof(*iov));
	msg.msg_iovlen = (size_t)iovcnt;
	while (msg.msg_iovlen) {
		ssize_t n = is_late(socket) ? -ETIMEDOUT : sendmsg(socket->fd, &msg, MSG_NOSIGNAL);

		if (n == -ETIMEDOUT)
			return -ETIMEDOUT;
		if (n < 0) {
			result = wait_for(socket, POLLOUT);
			if (result < 0)
				return result;
			continue;
		}
		while (msg.msg_iovlen && (size_t)n >= msg.msg_iov->iov_len) {
			n -= (ssize_t)msg.msg_iov->iov_len;
			msg.msg_iov++;
			msg.msg_iovlen--;
		}
		if (msg.msg_iovlen) {
			msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + n;
			msg.msg_iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static ssize_t receive_some(const struct qsc_socket *socket, void *buf, size_t size)
{
	for (;;) {
		ssize_t n;
		int result;

		if (is_late(socket))
			return -ETIMEDOUT;
		n = recv(socket->fd, buf, size, 0);
		if (n > 0)
			return n;
		if (n == 0)
			return -EPIPE;
		result = wait_for(socket, POLLIN);
		if (result < 0)
			return result;
	}
}

static int socket_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct qsc_socket *socket = socket_of(ch);
	uint8_t *to = buf;

	while (size) {
		size_t have = socket->tail - socket->head;
		ssize_t n;

		if (have) {
			size_t part = have < size ? have : size;

			memcpy(to, socket->buffer + socket->head, part);
			socket->head += part;
			to += part;
			size -= part;
			continue;
		}
		if (size >= QSC_SOCKET_BUFFER) {
			n = receive_some(socket, to, size);
			if (n < 0)
				return (int)n;
			to += n;
			size -= (size_t)n;
			continue;
		}
		n = receive_some(socket, socket->buffer, QSC_SOCKET_BUFFER);
		if (n < 0)
			return (int)n;
		socket->head = 0;
		socket->tail = (size_t)n;
	}
	return 0;
}

static void socket_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	struct qsc_socket *socket = socket_of(ch);

	socket->stall_ms = stall_ms;
	socket->deadline_us = deadline_us;
}

static void socket_shutdown(struct qsc_channel *ch)
{
	(void)shutdown(socket_of(ch)->fd, SHUT_RDWR);
}

static void socket_close(struct qsc_channel *ch)
{
	struct qsc_socket *socket = socket_of(ch);

	qsc_fd_close(&socket->fd);
	free(socket);
}

static const struct qsc_channel_ops socket_ops = {
	.send = socket_send,
	.recv = socket_recv,
	.set_limits = socket_set_limits,
	.shutdown = socket_shutdown,
	.close = socket_close,
};

struct qsc_socket *qsc_socket_create(int fd)
{
	struct qsc_socket *socket = malloc(sizeof(*socket));
	const int bytes = SOCKET_BYTES;
	int flags = fcntl(fd, F_GETFL);

	if (!socket || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		free(socket);
		qsc_fd_close(&fd);
		return NULL;
	}
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	*socket = (struct qsc_socket){.base = {&socket_ops}, .fd = fd};
	return socket;
}

void qsc_transport_close(struct qsc_transport *transport)
{
	if (transport)
		transport->ops->close(transport);
}
