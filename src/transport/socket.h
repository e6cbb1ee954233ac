/* SPDX-License-Identifier: MIT */
/* A channel over a connected stream socket, whatever its family. */
#ifndef QSC_TRANSPORT_SOCKET_H
#define QSC_TRANSPORT_SOCKET_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/transport.h>

#define QSC_SOCKET_BUFFER (64U << 10)

struct qsc_socket {
	struct qsc_channel base;
	int fd; /* never blocks by itself */
	uint32_t stall_ms;
	uint64_t deadline_us;
	size_t head; /* of what is buffered */
	size_t tail;
	uint8_t buffer[QSC_SOCKET_BUFFER];
};

/* Takes over the fd, also on failure, which is NULL: no memory. */
struct qsc_socket *qsc_socket_create(int fd);

/*
 * Wait until the fd is ready for `events` (poll), at most until both limits of the channels'
 * interface allow: 0, -ETIMEDOUT, -errno.
 */
int qsc_socket_wait(int fd, short events, uint32_t stall_ms, uint64_t deadline_us);

#endif
