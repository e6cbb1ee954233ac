/* SPDX-License-Identifier: MIT */
/*
 * A channel over a stream socket. Small reads are served from a buffer, so that a header does not
 * cost a system call; the socket never blocks, so that both limits of a channel hold in every wait.
 */
#include "transport/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define UNIX_BYTES  (4 << 20) /* asked of the kernel, which grants what it allows */
#define MAX_DISCARD (4U << 20)
#define LOOKS	    8U	 /* a stall is seen to be one so often before it counts as one */
#define WATCH_MS    100U /* between two looks of a watch */

/* ---- waiting ---- */

uint64_t qsc_socket_now_us(void)
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

int qsc_socket_wait(int fd, short events, uint32_t stall_ms, uint64_t deadline_us,
		    const struct qsc_watch *watch)
{
	struct pollfd poller = {.fd = fd, .events = events};
	uint64_t now = qsc_socket_now_us();
	uint64_t end = stall_ms ? now + stall_ms * 1000ULL : UINT64_MAX;
	uint64_t look;
	int result;
	int ready;

	if (deadline_us)
		end = qsc_min_u64(end, deadline_us);
	for (;;) {
		look = watch ? qsc_min_u64(end, now + WATCH_MS * 1000ULL) : end;
		ready = poll(&poller, 1, look == UINT64_MAX ? -1 : until(now, look));
		if (ready > 0)
			return 0;
		if (ready < 0 && errno != EINTR)
			return -errno;
		result = watch ? watch->look(watch->ctx) : 0;
		if (result < 0)
			return result;
		now = qsc_socket_now_us();
		if (now >= end)
			return -ETIMEDOUT;
	}
}

/* A peer that takes a byte at a time would keep a call from ever looking at the clock. */
static bool is_late(const struct qsc_socket *socket)
{
	return socket->deadline_us && qsc_socket_now_us() >= socket->deadline_us;
}

/* Bytes of ours that have not reached the other side yet. */
static int on_the_way(const struct qsc_socket *socket)
{
	int bytes = 0;

	return ioctl(socket->fd, SIOCOUTQ, &bytes) < 0 ? 0 : bytes;
}

/*
 * Of one call, until something moves. A socket that says it is ready and then is not has moved
 * nothing: it must not begin the stall anew.
 */
struct stall {
	uint64_t moved_us; /* 0: nobody has had to wait yet */
	int before;	   /* bytes on the way then */
};

/*
 * The kernel's buffer takes no more until a good part of it is free, and the other side answers
 * only what has reached it: over a slow link both last long, and as long as bytes reach it nothing
 * has stalled.
 */
static int wait_for(const struct qsc_socket *socket, short events, struct stall *stall)
{
	uint32_t look_ms = socket->stall_ms ? socket->stall_ms / LOOKS + 1 : 0;
	uint64_t now = qsc_socket_now_us();
	int result;
	int after;

	if (!stall->moved_us)
		*stall = (struct stall){now, on_the_way(socket)};
	while (!socket->stall_ms || now - stall->moved_us < socket->stall_ms * 1000ULL) {
		result = qsc_socket_wait(socket->fd, events, look_ms, socket->deadline_us,
					 socket->watch);
		after = on_the_way(socket);
		now = qsc_socket_now_us();
		if (after != stall->before)
			stall->moved_us = now;
		stall->before = after;
		if (result != -ETIMEDOUT || is_late(socket))
			return result;
	}
	return -ETIMEDOUT;
}

/* ---- plain bytes ---- */

/* What a socket call that did nothing means. */
static int failure(int number)
{
	if (number == EINTR || number == EWOULDBLOCK)
		return -EAGAIN;
	return number == ECONNRESET ? -EPIPE : -number;
}

ssize_t qsc_socket_read(struct qsc_socket *socket, void *buf, size_t size)
{
	ssize_t n = recv(socket->fd, buf, size, 0);

	if (n > 0)
		socket->heard_us = qsc_socket_now_us();
	return n < 0 ? failure(errno) : n;
}

static ssize_t plain_write(struct qsc_socket *socket, const struct iovec *iov, int iovcnt)
{
	const struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)iovcnt};
	ssize_t n = sendmsg(socket->fd, &msg, MSG_NOSIGNAL);

	return n < 0 ? failure(errno) : n;
}

static const struct qsc_socket_io plain_io = {
	.read = qsc_socket_read,
	.write = plain_write,
};

/* ---- the channel ---- */

static struct qsc_socket *socket_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct qsc_socket, base);
}

/*
 * The kernel's buffer may have room for minutes of what is sent slowly, so that nobody ever waits
 * for room, and of all that nothing arrives: a stall too. With what was added since, less than
 * before is on the way only if some of it has arrived.
 */
static bool has_stalled(struct qsc_socket *socket)
{
	uint64_t limit_us = socket->stall_ms * 1000ULL;
	uint64_t now = limit_us ? qsc_socket_now_us() : 0;
	int after;

	if (!limit_us || now - socket->sent.look_us < limit_us / LOOKS)
		return false;
	after = on_the_way(socket);
	if (!after || !socket->sent.look_us ||
	    (uint64_t)after < (uint64_t)socket->sent.before + socket->sent.since)
		socket->sent.moved_us = now;
	socket->sent.look_us = now;
	socket->sent.before = after;
	socket->sent.since = 0;
	return now - socket->sent.moved_us >= limit_us;
}

static int send_all(struct qsc_socket *socket, struct iovec *iov, int iovcnt)
{
	struct stall stall = {0};

	while (iovcnt) {
		bool late = is_late(socket) || has_stalled(socket);
		ssize_t n = late ? -ETIMEDOUT : socket->io->write(socket, iov, iovcnt);

		if (n > 0) {
			stall.moved_us = 0;
			socket->sent.since += (uint64_t)n;
		} else if (n == -EAGAIN) {
			n = wait_for(socket, POLLOUT, &stall);
		}
		if (n < 0)
			return (int)n;
		while (iovcnt && (size_t)n >= iov->iov_len) {
			n -= (ssize_t)iov->iov_len;
			iov++;
			iovcnt--;
		}
		if (iovcnt) {
			iov->iov_base = (uint8_t *)iov->iov_base + n;
			iov->iov_len -= (size_t)n;
		}
	}
	return 0;
}

static int flush(struct qsc_socket *socket)
{
	struct stall stall = {0};
	int result = -EAGAIN;

	while (socket->io->flush) {
		result = is_late(socket) ? -ETIMEDOUT : socket->io->flush(socket);
		if (result == -EAGAIN)
			result = wait_for(socket, POLLOUT, &stall);
		else
			return result;
		if (result < 0)
			return result;
	}
	return 0;
}

static int socket_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct qsc_socket *socket = socket_of(ch);
	struct iovec local[IOV_MAX];
	int result;

	if (iovcnt < 0 || iovcnt > IOV_MAX)
		return -EINVAL;
	memcpy(local, iov, (size_t)iovcnt * sizeof(*iov));
	result = send_all(socket, local, iovcnt);
	return result < 0 ? result : flush(socket);
}

static ssize_t receive_some(struct qsc_socket *socket, void *buf, size_t size)
{
	struct stall stall = {0};

	for (;;) {
		ssize_t n = is_late(socket) ? -ETIMEDOUT : socket->io->read(socket, buf, size);

		if (n == 0)
			return -EPIPE;
		if (n != -EAGAIN)
			return n;
		/* What came may be less than TLS makes bytes of. */
		if (stall.moved_us && socket->heard_us > stall.moved_us)
			stall.moved_us = socket->heard_us;
		n = wait_for(socket, POLLIN, &stall);
		if (n < 0)
			return n;
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
	/* What was sent and stays unacknowledged is a stall too, though nobody waits for room. */
	(void)setsockopt(socket->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &stall_ms, sizeof(stall_ms));
}

static void socket_set_watch(struct qsc_channel *ch, const struct qsc_watch *watch)
{
	socket_of(ch)->watch = watch;
}

static void socket_shutdown(struct qsc_channel *ch)
{
	(void)shutdown(socket_of(ch)->fd, SHUT_RDWR);
}

/*
 * A TCP socket that is closed with unread bytes resets the connection, and what was sent last, a
 * reason perhaps, is lost with it.
 */
static void discard_unread(struct qsc_socket *socket)
{
	size_t discarded = 0;
	ssize_t n;

	do {
		n = recv(socket->fd, socket->buffer, sizeof(socket->buffer), MSG_DONTWAIT);
		discarded += n > 0 ? (size_t)n : 0;
	} while (n > 0 && discarded < MAX_DISCARD);
}

static void socket_close(struct qsc_channel *ch)
{
	struct qsc_socket *socket = socket_of(ch);

	if (socket->io->release)
		socket->io->release(socket);
	discard_unread(socket);
	qsc_fd_close(&socket->fd);
	free(socket);
}

static const struct qsc_channel_ops socket_ops = {
	.send = socket_send,
	.recv = socket_recv,
	.set_limits = socket_set_limits,
	.shutdown = socket_shutdown,
	.close = socket_close,
	.set_watch = socket_set_watch,
};

/* ---- making one ---- */

bool qsc_socket_init(struct qsc_socket *socket, int fd, const struct qsc_socket_io *io)
{
	const int bytes = UNIX_BYTES;
	int flags = fcntl(fd, F_GETFL);
	socklen_t size = sizeof(int);
	int domain = 0;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return false;
	/* TCP finds the right size itself unless told one. */
	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
	socket->base.ops = &socket_ops;
	socket->io = io;
	socket->fd = fd;
	socket->greeted = !io->greet;
	socket->wants = POLLIN;
	socket->stall_ms = 0;
	socket->deadline_us = 0;
	socket->watch = NULL;
	socket->heard_us = 0;
	memset(&socket->sent, 0, sizeof(socket->sent));
	socket->head = 0;
	socket->tail = 0;
	return true;
}

struct qsc_socket *qsc_socket_create(int fd)
{
	struct qsc_socket *socket = malloc(sizeof(*socket));

	if (socket && qsc_socket_init(socket, fd, &plain_io))
		return socket;
	free(socket);
	qsc_fd_close(&fd);
	return NULL;
}

void qsc_socket_close(struct qsc_socket *socket)
{
	socket_close(&socket->base);
}

int qsc_socket_greet(struct qsc_socket *socket, struct qsc_error *err)
{
	struct stall stall = {0};
	int result = 0;

	while (!socket->greeted) {
		result = is_late(socket) ? -ETIMEDOUT : socket->io->greet(socket, err);
		if (result == 0)
			socket->greeted = true;
		if (result == -EAGAIN)
			result = wait_for(socket, socket->wants, &stall);
		if (result == -ETIMEDOUT)
			return qsc_error_set(err, ETIMEDOUT, NULL, "it does not answer");
		if (result == -ECANCELED)
			return qsc_error_set(err, ECANCELED, NULL, "cancelled");
		if (result < 0)
			return result;
	}
	return 0;
}

int qsc_socket_hear(struct qsc_socket *socket, struct qsc_error *err)
{
	int result;
	ssize_t n;

	if (!socket->greeted) {
		result = socket->io->greet(socket, err);
		if (result < 0)
			return result == -EAGAIN ? 0 : result;
		socket->greeted = true;
		socket->wants = POLLIN;
	}
	while (socket->tail < QSC_CHANNEL_FIRST_BYTES) {
		n = socket->io->read(socket, socket->buffer + socket->tail,
				     QSC_SOCKET_BUFFER - socket->tail);
		if (n == -EAGAIN)
			return 0;
		if (n <= 0)
			return qsc_error_set(err, n ? (int)-n : EPIPE, NULL, "it hung up");
		socket->tail += (size_t)n;
	}
	return 1;
}
