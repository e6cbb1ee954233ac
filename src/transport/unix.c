/* SPDX-License-Identifier: MIT */
/* The UNIX socket transport: a path in the file system, for its owner only. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/listener.h"
#include "transport/socket.h"

#define BACKLOG 64
#define LOOK_MS 100 /* between two looks of a watch, and at the clock */

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
	const struct qsc_watch *watch; /* borrowed; or NULL */
};

/* A listener that is there takes it at once, unless its backlog is full: then now and then. */
static int connect_within(const struct connector *connector, int fd, uint32_t timeout_ms)
{
	const struct timeval moment = {.tv_usec = LOOK_MS * 1000L};
	const uint64_t end_us = qsc_socket_now_us() + timeout_ms * 1000ULL;
	const struct qsc_watch *watch = connector->watch;
	int result;

	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &moment, sizeof(moment));
	for (;;) {
		if (connect(fd, (const struct sockaddr *)&connector->address,
			    sizeof(connector->address)) == 0)
			return 0;
		if (errno != EINTR && errno != EAGAIN)
			return -errno;
		if (timeout_ms && qsc_socket_now_us() >= end_us)
			return -ETIMEDOUT;
		result = watch ? watch->look(watch->ctx) : 0;
		if (result < 0)
			return result;
	}
}

static int connector_open(struct qsc_transport *transport, uint32_t timeout_ms,
			  struct qsc_channel **ch, struct qsc_error *err)
{
	const struct connector *connector = qsc_container_of(transport, struct connector, base);
	qsc_autoclose int fd = make_socket(0, err);
	struct qsc_socket *channel;
	int result;

	if (fd < 0)
		return fd;
	result = connect_within(connector, fd, timeout_ms);
	if (result == -ECANCELED)
		return qsc_error_set(err, ECANCELED, NULL, "cancelled while connecting");
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "cannot connect to the destination at %s (%s): is it waiting "
				     "for a migration?",
				     connector->address.sun_path, strerrordesc_np(-result));
	channel = qsc_socket_create(qsc_fd_steal(&fd));
	if (!channel)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a channel");
	*ch = &channel->base;
	return 0;
}

static void connector_set_watch(struct qsc_transport *transport, const struct qsc_watch *watch)
{
	qsc_container_of(transport, struct connector, base)->watch = watch;
}

static void connector_close(struct qsc_transport *transport)
{
	free(qsc_container_of(transport, struct connector, base));
}

static const struct qsc_transport_ops connector_ops = {
	.name = "unix",
	.open = connector_open,
	.close = connector_close,
	.set_watch = connector_set_watch,
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

/*
 * A socket file that nobody listens on is left over from somebody who died; anything else is not
 * ours to replace.
 */
static int remove_stale(const struct sockaddr_un *address, struct qsc_error *err)
{
	qsc_autoclose int fd = make_socket(SOCK_NONBLOCK, err);
	const char *path = address->sun_path;
	struct stat info;

	if (fd < 0)
		return fd;
	if (lstat(path, &info) < 0)
		return 0;
	if (!S_ISSOCK(info.st_mode))
		return qsc_error_set(err, ENOTSOCK, NULL,
				     "%s exists and is no socket; choose another path", path);
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED) {
		(void)unlink(path);
		return 0;
	}
	return qsc_error_set(err, EADDRINUSE, NULL, "somebody else listens at %s", path);
}

static int start_listening(struct qsc_listener *listener, const char *path, struct qsc_error *err)
{
	qsc_autoclose int fd = make_socket(SOCK_NONBLOCK, err);
	struct sockaddr_un address;
	int result;

	if (fd < 0)
		return fd;
	result = fill_address(path, &address, err);
	if (result < 0)
		return result;
	listener->unlink_path = strdup(path);
	if (!listener->unlink_path)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	(void)snprintf(listener->address, sizeof(listener->address), "%s", path);
	result = remove_stale(&address, err);
	if (result < 0)
		return result;
	/* The mode of the file that bind makes: a migration is for its owner only. */
	if (fchmod(fd, 0600) < 0 ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make the socket %s (%s)", path,
				     strerrordesc_np(errno));
	if (listen(fd, BACKLOG) < 0) {
		int number = errno;

		(void)unlink(path);
		return qsc_error_set(err, number, NULL, "cannot listen at %s (%s)", path,
				     strerrordesc_np(number));
	}
	listener->fds[listener->num_fds++] = qsc_fd_steal(&fd);
	return 0;
}

int qsc_transport_unix_listen(const char *path, struct qsc_transport **transport,
			      struct qsc_error *err)
{
	struct qsc_listener *listener = qsc_listener_create("unix");
	int result;

	if (!listener)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	result = start_listening(listener, path, err);
	if (result < 0) {
		qsc_transport_close(&listener->base);
		return result;
	}
	*transport = &listener->base;
	return 0;
}
