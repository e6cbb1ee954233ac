/* SPDX-License-Identifier: MIT */
/* A peer made of bare bytes, for what no proper one would send. */
#ifndef RAW_H
#define RAW_H

#include "wire/wire.h"

/* Put a message together: the size in the header is `size` plus the header, or as told by `claim`.
 */
struct raw {
	struct qsc_wire_header header;
	uint8_t body[1 << 16];
};

/* Send `size` bytes of body, with descriptors; in pieces of `piece` bytes (0: at once). */
void raw_send(int fd, uint16_t id, uint16_t command, uint32_t flags, const void *body, size_t size,
	      const int *fds, size_t num_fds, size_t piece);

/* Receive a whole message and any descriptors: 1, or 0 at the end of the stream. */
int raw_receive(int fd, struct raw *message, int *fds, size_t *num_fds);

/* Send a request and return what came back: 0, -errno, or 1 at the end of the stream. */
int raw_request(int fd, uint16_t command, const void *body, size_t size, const int *fds,
		size_t num_fds, struct raw *reply);

/* The handshake, with or without Quiesce's own capability and a twin socket (*twin or NULL). */
void raw_hello(int fd, bool quiesce, int *twin);

#endif
