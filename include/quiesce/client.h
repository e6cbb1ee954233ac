/* SPDX-License-Identifier: MIT */
/*
 * Open a device by URI. "vfio-user:PATH" connects to a vfio-user server's UNIX socket.
 *
 * Commands from the server (DMA over the socket) are answered from the mappings that the user made,
 * by whichever thread is waiting for a reply and else by a thread of the client's own. Calls from
 * several threads are pipelined on the one connection.
 *
 * Threads: both functions may be called from any, several at once; each blocks at most as long as
 * connect_timeout_ms says. The device they give follows <quiesce/device.h>.
 */
#ifndef QUIESCE_CLIENT_H
#define QUIESCE_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_client_options {
	/* For one request to be answered, in milliseconds; then the connection is given up and
	 * every call answers -ETIMEDOUT, later ones -ENOTCONN. 0: default, 60000. */
	uint32_t request_timeout_ms;
	uint32_t connect_timeout_ms; /* connect and handshake; 0: default, 5000 */
	bool posted_writes;  /* region writes do not wait for a reply; errors are not seen */
	bool no_fds;	     /* never pass memory by fd: all DMA goes over the socket */
	bool no_twin_socket; /* do not offer a second socket for the server's commands */
	bool poll;	     /* spin for replies instead of sleeping */
};

/*
 * options may be NULL. On failure err says what the URI or the peer lacks: -EINVAL for a URI that
 * cannot be, as connect(2) when nobody serves there, -ETIMEDOUT when the handshake
 * takes too long, -EBUSY when another user has the device, -EPROTO and -EPROTONOSUPPORT for a peer
 * that is no server of a version known here, -ENOMEM.
 */
QSC_API int qsc_client_open(const char *uri, const struct qsc_client_options *options,
			    struct qsc_device **dev, struct qsc_error *err);

/* The same, with the same errors, over a connected stream socket, taken over also on failure. */
QSC_API int qsc_client_open_fd(int fd, const struct qsc_client_options *options,
			       struct qsc_device **dev, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
