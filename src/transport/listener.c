/* SPDX-License-Identifier: MIT */
/* See listener.h. */
#include "transport/listener.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "transport/inet.h"
#include "transport/tls.h"

/* ---- who waits ---- */

static struct qsc_socket *take_waiting(struct qsc_listener *listener, uint32_t index)
{
	struct qsc_socket *socket = listener->waiting[index];

	listener->num_waiting--;
	memmove(&listener->waiting[index], &listener->waiting[index + 1],
		(listener->num_waiting - index) * sizeof(struct qsc_socket *));
	return socket;
}

/* Who is to be trusted stays longer: strangers must not be able to push a source out. */
static void make_room(struct qsc_listener *listener)
{
	uint32_t i;

	for (i = 0; i < listener->num_waiting && listener->waiting[i]->greeted; i++)
		;
	qsc_socket_close(take_waiting(listener, i < listener->num_waiting ? i : 0));
}

static void refuse(struct qsc_listener *listener, uint32_t index, struct qsc_error *why)
{
	struct qsc_socket *socket = take_waiting(listener, index);
	char peer[QSC_SOCKET_MAX_NAME];

	qsc_inet_peer_name(socket->fd, peer);
	qsc_error_prefix(why, "%s: ", peer);
	qsc_log(QSC_LOG_WARNING, "refused a connection: %s", why->text);
	if (!socket->greeted)
		listener->refused = *why;
	qsc_socket_close(socket);
}

static int accept_one(struct qsc_listener *listener, int listening, struct qsc_error *err)
{
	int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC);
	struct qsc_socket *socket;

	if (fd < 0 && errno != EMFILE && errno != ENFILE && errno != ENOBUFS && errno != ENOMEM)
		return 0;
	if (fd < 0 && listener->num_waiting) {
		make_room(listener);
		return 0;
	}
	if (fd < 0)
		return qsc_error_set(err, errno, NULL, "cannot take a connection to %s (%s)",
				     listener->address, strerrordesc_np(errno));
	if (!listener->unlink_path)
		qsc_inet_tune(fd);
	socket = listener->tls ? qsc_tls_socket_create(listener->tls, fd, NULL)
			       : qsc_socket_create(fd);
	if (!socket)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a channel");
	if (listener->num_waiting == QSC_LISTENER_MAX_WAITING)
		make_room(listener);
	listener->waiting[listener->num_waiting++] = socket;
	return 0;
}

/* ---- waiting for them ---- */

/* 1 with the first connection that has said enough; 0 when none has. */
static int poll_once(struct qsc_listener *listener, int timeout_ms, struct qsc_socket **ready,
		     struct qsc_error *err)
{
	struct pollfd fds[QSC_LISTENER_MAX_WAITING + QSC_LISTENER_MAX_FDS];
	const uint32_t waiting = listener->num_waiting;
	struct qsc_error why = QSC_ERROR_NONE;
	int result = 0;
	uint32_t i;

	for (i = 0; i < waiting; i++)
		fds[i] = (struct pollfd){.fd = listener->waiting[i]->fd,
					 .events = listener->waiting[i]->wants};
	for (i = 0; i < listener->num_fds; i++)
		fds[waiting + i] = (struct pollfd){.fd = listener->fds[i], .events = POLLIN};
	if (poll(fds, waiting + listener->num_fds, timeout_ms) <= 0)
		return 0;
	for (i = 0; i < waiting; i++) {
		int heard = fds[i].revents ? qsc_socket_hear(listener->waiting[i], &why) : 0;

		if (heard > 0) {
			*ready = take_waiting(listener, i);
			return 1;
		}
		/* One at a time: the others have moved up. */
		if (heard < 0) {
			refuse(listener, i, &why);
			return 0;
		}
	}
	for (i = 0; i < listener->num_fds && result == 0; i++)
		if (fds[waiting + i].revents)
			result = accept_one(listener, listener->fds[i], err);
	return result;
}

static int listener_open(struct qsc_transport *transport, uint32_t timeout_ms,
			 struct qsc_channel **ch, struct qsc_error *err)
{
	struct qsc_listener *listener = qsc_container_of(transport, struct qsc_listener, base);
	uint64_t now = qsc_socket_now_us();
	const uint64_t end = now + timeout_ms * 1000ULL;

	while (!timeout_ms || now < end) {
		uint64_t rest_ms = qsc_min_u64((end - now + 999) / 1000, INT_MAX);
		struct qsc_socket *socket = NULL;
		int result = poll_once(listener, timeout_ms ? (int)rest_ms : -1, &socket, err);

		if (result < 0)
			return result;
		if (result > 0) {
			listener->refused.number = 0;
			*ch = &socket->base;
			return 0;
		}
		now = qsc_socket_now_us();
	}
	if (listener->refused.number)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "nobody was let in at %s, and the last who tried was refused: "
				     "%s",
				     listener->address, listener->refused.text);
	return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected to %s", listener->address);
}

static void listener_close(struct qsc_transport *transport)
{
	struct qsc_listener *listener = qsc_container_of(transport, struct qsc_listener, base);

	while (listener->num_waiting)
		qsc_socket_close(take_waiting(listener, 0));
	if (listener->unlink_path && listener->num_fds)
		(void)unlink(listener->unlink_path);
	while (listener->num_fds)
		qsc_fd_close(&listener->fds[--listener->num_fds]);
	qsc_tls_put(listener->tls);
	free(listener->unlink_path);
	free(listener);
}

struct qsc_listener *qsc_listener_create(const char *name)
{
	struct qsc_listener *listener = calloc(1, sizeof(*listener));

	if (!listener)
		return NULL;
	listener->ops = (struct qsc_transport_ops){
		.name = name, .open = listener_open, .close = listener_close};
	listener->base.ops = &listener->ops;
	return listener;
}

const struct qsc_listener *qsc_listener_of(const struct qsc_transport *transport)
{
	return transport->ops->open == listener_open
		       ? qsc_container_of(transport, const struct qsc_listener, base)
		       : NULL;
}
