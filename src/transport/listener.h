/* SPDX-License-Identifier: MIT */
/*
 * The listening end of every socket transport. Whoever connects waits in a short queue until it has
 * said enough to be handed out: one that is silent, slow, or not to be trusted delays nobody. When
 * the queue is full the oldest gives way, first among those that have not proved who they are.
 */
#ifndef QSC_TRANSPORT_LISTENER_H
#define QSC_TRANSPORT_LISTENER_H

#include <stdint.h>

#include <quiesce/transport.h>

#include "transport/socket.h"

#define QSC_LISTENER_MAX_FDS	 8
#define QSC_LISTENER_MAX_WAITING 32

struct qsc_tls;

struct qsc_listener {
	struct qsc_transport base;
	struct qsc_transport_ops ops;
	/* Filled in by whoever makes one. */
	int fds[QSC_LISTENER_MAX_FDS]; /* listening, never blocking */
	uint32_t num_fds;
	char address[QSC_SOCKET_MAX_NAME]; /* where it listens, for messages */
	char *unlink_path;		   /* to be removed and freed at the end; or NULL */
	struct qsc_tls *tls;		   /* owned; NULL: plain */
	/* Its own. */
	struct qsc_socket *waiting[QSC_LISTENER_MAX_WAITING]; /* oldest first */
	uint32_t num_waiting;
	struct qsc_error refused; /* why the last one that failed was not let in */
};

/* NULL: no memory. `name` has static storage. */
struct qsc_listener *qsc_listener_create(const char *name);

/* The listener that a transport is, or NULL. */
const struct qsc_listener *qsc_listener_of(const struct qsc_transport *transport);

#endif
