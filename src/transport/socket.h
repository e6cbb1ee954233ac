/* SPDX-License-Identifier: MIT */
/*
 * A channel over a connected stream socket, whatever its family and whether or not something (TLS)
 * lies between the channel's bytes and the socket's.
 */
#ifndef QSC_TRANSPORT_SOCKET_H
#define QSC_TRANSPORT_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <quiesce/transport.h>

#define QSC_SOCKET_BUFFER   (64U << 10)
#define QSC_SOCKET_MAX_NAME 320 /* a host's name and a port */

struct qsc_socket;

/* How bytes get through. Nothing here blocks: -EAGAIN says to wait for `wants`. */
struct qsc_socket_io {
	/* Bring the two sides to trust one another: 0 when done, -EAGAIN. NULL: nothing to do. */
	int (*greet)(struct qsc_socket *socket, struct qsc_error *err);
	/* Some bytes; 0 when the other side ended, -EAGAIN. */
	ssize_t (*read)(struct qsc_socket *socket, void *buf, size_t size);
	/* Some bytes taken, not yet sent perhaps; -EAGAIN. */
	ssize_t (*write)(struct qsc_socket *socket, const struct iovec *iov, int iovcnt);
	/* Send what write() has taken: 0 when all is on its way, -EAGAIN. NULL: it always is. */
	int (*flush)(struct qsc_socket *socket);
	/* Say farewell if that is possible at once, and free what the socket carries besides. */
	void (*release)(struct qsc_socket *socket); /* NULL: there is nothing */
};

struct qsc_socket {
	struct qsc_channel base;
	const struct qsc_socket_io *io;
	int fd; /* never blocks by itself */
	bool greeted;
	short wants; /* of poll, after greet() said -EAGAIN */
	uint32_t stall_ms;
	uint64_t deadline_us;
	const struct qsc_watch *watch; /* borrowed; or NULL */
	uint64_t heard_us;	       /* when bytes came last; who receives has it */
	struct {
		uint64_t look_us; /* when it was looked how much is on the way; 0: never */
		int before;	  /* bytes then */
		uint64_t since;	  /* bytes taken since then */
		uint64_t moved_us;
	} sent;	     /* who sends has it */
	size_t head; /* of what is buffered */
	size_t tail;
	uint8_t buffer[QSC_SOCKET_BUFFER];
};

/* Takes over the fd, also on failure, which is NULL: no memory. */
struct qsc_socket *qsc_socket_create(int fd);

/* For what embeds one, allocated with malloc() and with the socket first: false on failure. */
bool qsc_socket_init(struct qsc_socket *socket, int fd, const struct qsc_socket_io *io);

void qsc_socket_close(struct qsc_socket *socket);

/* Greet to the end, waiting within the socket's limits: 0, -ETIMEDOUT, -errno, with a sentence. */
int qsc_socket_greet(struct qsc_socket *socket, struct qsc_error *err);

/*
 * Take what has been said already, without waiting: 1 when it is QSC_CHANNEL_FIRST_BYTES or more, 0
 * when it is not yet, -errno when it never will be.
 */
int qsc_socket_hear(struct qsc_socket *socket, struct qsc_error *err);

/* Plain reading, as struct qsc_socket_io says. */
ssize_t qsc_socket_read(struct qsc_socket *socket, void *buf, size_t size);

/* The clock of a channel's limits. */
uint64_t qsc_socket_now_us(void);

/*
 * Wait until the fd is ready for `events` (poll), at most until both limits of the channels'
 * interface allow, or the watch, if any: 0, -ETIMEDOUT, -errno.
 */
int qsc_socket_wait(int fd, short events, uint32_t stall_ms, uint64_t deadline_us,
		    const struct qsc_watch *watch);

#endif
