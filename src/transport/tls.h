/* SPDX-License-Identifier: MIT */
/*
 * TLS between a channel and its socket: TLS 1.3 only, both sides prove who they are. When the
 * destination is satisfied it says so with one byte, which is the first that it sends: so a source
 * knows before it says anything, and why not when it was refused.
 */
#ifndef QSC_TRANSPORT_TLS_H
#define QSC_TRANSPORT_TLS_H

#include <quiesce/transport.h>

#include "transport/socket.h"

/* What proves this side, and what the other side must prove. */
struct qsc_tls;

/*
 * Reads and checks everything that the options name. Released with qsc_tls_put(); sessions hold
 * references of their own, so they may outlive it.
 */
int qsc_tls_create(const struct qsc_tls_options *options, enum qsc_transport_role role,
		   struct qsc_tls **keys, struct qsc_error *err);

/* NULL is allowed. */
void qsc_tls_put(struct qsc_tls *tls);

/*
 * Takes over the connected fd, also on failure, which is NULL: no memory. `host` is the name that
 * the source connects to; NULL for the destination.
 */
struct qsc_socket *qsc_tls_socket_create(struct qsc_tls *keys, int fd, const char *host);

#endif
