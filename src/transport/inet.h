/* SPDX-License-Identifier: MIT */
/* The transports over TCP, with and without TLS. */
#ifndef QSC_TRANSPORT_INET_H
#define QSC_TRANSPORT_INET_H

#include <quiesce/transport.h>

#include "transport/socket.h"

struct qsc_tls;

/*
 * HOST:PORT as in a URI. Takes over `tls` (NULL: plain), also on failure. Names are resolved here;
 * the source connects with each channel, the destination listens from now on.
 */
int qsc_inet_connect(const char *where, struct qsc_tls *tls, struct qsc_transport **transport,
		     struct qsc_error *err);
int qsc_inet_listen(const char *where, struct qsc_tls *tls, struct qsc_transport **transport,
		    struct qsc_error *err);

/* Settings of a connection that carries a channel; harmless on other sockets. */
void qsc_inet_tune(int fd);

/* "10.0.0.1:4444", or what else can be said of who is connected there. */
void qsc_inet_peer_name(int fd, char name[QSC_SOCKET_MAX_NAME]);

#endif
