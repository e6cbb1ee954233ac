/* SPDX-License-Identifier: MIT */
/*
 * The UNIX socket transport. The listener hands out only connections whose first bytes have come:
 * whoever connects and stays silent, or nearly so, waits in a short queue and delays nobody.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/socket.h"

#define MAX_WAITING 32 /* silent connections; the oldest gives way to a new one */
#define BACKLOG	    64

/* ---- addresses ---- */

static int fill_address(const char *path, struct sockaddr_un *address, struct qsc_error *err)
{
	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!*path || strlen(path) >= sizeof(address->sun_path))
		return qsc_error_set(err, EINVAL, NULL,
				     "the socket path '%.64s' must have 1 to %zu bytes", path,
				     sizeof(address->sun_path) - 1);
	(void)snprintf(address->sun_path, sizeof(address->sun_path), "%s", path);
	return 0;
}

static int make_socket(int flags, struct qsc_error *err)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);

	return fd < 0 ? qsc_error_set(err, errno, NULL, "no socket (%s)", strerrordesc_np(errno))
		      : fd;
}

/* ---- connecting ---- */

struct connector {
	struct qsc_transport base;
	struct sockaddr_un address;
};

static int connector_open(struct qsc_transport *transport, uint32_t timeout_ms,
			  struct qsc_channel **ch, struct qsc_error *err)
{
	const struct connector *connector = qsc_container_of(transport, struct connector, base);
	const struct timeval patience = {.tv_sec = timeout_ms / 1000,
					 .tv_usec = timeout_ms % 1000 * 1000L};
	qsc_autoclose int fd = make_socket(0, err);
	struct qsc_socket *channel;
	int result;

	if (fd < 0)
		return fd;
	/* Bounds the wait for room in the listener's backlog. */
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
	do {
		result = connect(fd, (const struct sockaddr *)&connector->address,
				 sizeof(connector->address));
	} while (result < 0 && errno == EINTR);
	if (result < 0) {
		result = errno == EAGAIN ? -ETIMEDOUT : -errno;
		return qsc_error_set(err, -result, NULL,
				     "cannot connect to the destination at %s (%s): is it waiting "
				     "for a migration?",
				     connector->address.sun_path, strerrordesc_np(-result));
	}
	channel = qsc_socket_create(qsc_fd_steal(&fd));
	if (!channel)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a channel");
	*ch = &channel->base;
	return 0;
}

static void connector_close(struct qsc_transport *transport)
{
	free(qsc_container_of(transport, struct connector, base));
}

static const struct qsc_transport_ops connector_ops = {
	.name = "unix",
	.open = connector_open,
	.close = connector_close,
};

int qsc_transport_unix_connect(const char *path, struct qsc_transport **transport,
			       struct qsc_error *err)
{
	struct connector *connector = calloc(1, sizeof(*connector));
	int result;

	if (!connector)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	result = fill_address(path, &connector->address, err);
	if (result < 0) {
		free(connector);
		return result;
	}
	connector->base.ops = &connector_ops;
	*transport = &connector->base;
	return 0;
}

/* ---- listening ---- */

struct listener {
	struct qsc_transport base;
	struct sockaddr_un address;
	int fd;
	struct qsc_socket *waiting[MAX_WAITING]; /* connected, little said yet; oldest first */
	uint32_t num_waiting;
};

static struct qsc_socket *take_waiting(struct listener *listener, uint32_t index)
{
	struct qsc_socket *channel = listener->waiting[index];

	listener->num_waiting--;
	memmove(&listener->waiting[index], &listener->waiting[index + 1],
		(listener->num_waiting - index) * sizeof(struct qsc_socket *));
	return channel;
}

static void close_channel(struct qsc_socket *channel)
{
	channel->base.ops->close(&channel->base);
}

static void accept_waiting(struct listener *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
	struct qsc_socket *channel = fd < 0 ? NULL : qsc_socket_create(fd);

	if (!channel)
		return;
	if (listener->num_waiting == MAX_WAITING)
		close_channel(take_waiting(listener, 0));
	listener->waiting[listener->num_waiting++] = channel;
}

/* Take what has been said: 1 when it is a whole frame or more, 0 when not, -1 when it hung up. */
static int hear(struct qsc_socket *channel)
{
	ssize_t n = recv(channel->fd, channel->buffer + channel->tail,
			 QSC_SOCKET_BUFFER - channel->tail, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0)
		return -1;
	channel->tail += (size_t)n;
	return channel->tail >= QSC_CHANNEL_FIRST_BYTES;
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000U + (uint64_t)now.tv_nsec / 1000000U;
}

/* The first connection that has said enough, or NULL when none has. */
static struct qsc_socket *poll_once(struct listener *listener, int timeout_ms)
{
	struct pollfd fds[MAX_WAITING + 1];
	uint32_t waiting = listener->num_waiting;
	uint32_t i;

	for (i = 0; i < waiting; i++)
		fds[i] = (struct pollfd){.fd = listener->waiting[i]->fd, .events = POLLIN};
	fds[waiting] = (struct pollfd){.fd = listener->fd, .events = POLLIN};
	if (poll(fds, waiting + 1, timeout_ms) <= 0)
		return NULL;
	for (i = 0; i < waiting; i++) {
		int heard = fds[i].revents ? hear(listener->waiting[i]) : 0;

		if (heard > 0)
			return take_waiting(listener, i);
		/* One at a time: the others have moved up. */
		if (heard < 0) {
			close_channel(take_waiting(listener, i));
			return NULL;
		}
	}
	if (fds[waiting].revents)
		accept_waiting(listener);
	return NULL;
}

static int listener_open(struct qsc_transport *transport, uint32_t timeout_ms,
			 struct qsc_channel **ch, struct qsc_error *err)
{
	struct listener *listener = qsc_container_of(transport, struct listener, base);
	uint64_t deadline = now_ms() + timeout_ms;
	uint64_t now = now_ms();

	while (!timeout_ms || now < deadline) {
		struct qsc_socket *channel = poll_once(listener,
						       timeout_ms ? (int)(deadline - now) : -1);

		if (channel) {
			*ch = &channel->base;
			return 0;
		}
		now = now_ms();
	}
	return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected to %s within %u ms",
			     listener->address.sun_path, timeout_ms);
}

static void listener_close(struct qsc_transport *transport)
{
	struct listener *listener = qsc_container_of(transport, struct listener, base);

	while (listener->num_waiting)
		close_channel(take_waiting(listener, 0));
	if (listener->fd >= 0)
		(void)unlink(listener->address.sun_path);
	qsc_fd_close(&listener->fd);
	free(listener);
}

static const struct qsc_transport_ops listener_ops = {
	.name = "unix",
	.open = listener_open,
	.close = listener_close,
};

/* A socket file that nobody listens on is left over from somebody who died. */
static void remove_stale(const struct sockaddr_un *address)
{
	qsc_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat info;

	if (fd < 0 || lstat(address->sun_path, &info) < 0 || !S_ISSOCK(info.st_mode))
		return;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		(void)unlink(address->sun_path);
}

static int start_listening(struct listener *listener, struct qsc_error *err)
{
	qsc_autoclose int fd = make_socket(SOCK_NONBLOCK, err);

	if (fd < 0)
		return fd;
	remove_stale(&listener->address);
	/* The mode of the file that bind makes: a migration is for its owner only. */
	if (fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&listener->address, sizeof(listener->address)) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make the socket %s (%s)",
				     listener->address.sun_path, strerrordesc_np(errno));
	if (listen(fd, BACKLOG) < 0) {
		int number = errno;

		(void)unlink(listener->address.sun_path);
		return qsc_error_set(err, number, NULL, "cannot listen at %s (%s)",
				     listener->address.sun_path, strerrordesc_np(number));
	}
	listener->fd = qsc_fd_steal(&fd);
	return 0;
}

int qsc_transport_unix_listen(const char *path, struct qsc_transport **transport,
			      struct qsc_error *err)
{
	struct listener *listener = calloc(1, sizeof(*listener));
	int result;

	if (!listener)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	listener->fd = -1;
	listener->base.ops = &listener_ops;
	result = fill_address(path, &listener->address, err);
	if (result == 0)
		result = start_listening(listener, err);
	if (result < 0) {
		listener_close(&listener->base);
		return result;
	}
	*transport = &listener->base;
	return 0;
}
