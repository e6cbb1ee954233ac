/* SPDX-License-Identifier: MIT */
/*
 * Serve any device over vfio-user on a UNIX socket. Each connection runs in a thread of its own
 * with bounded memory; the first that completes the handshake opens the device, others are told
 * EBUSY until it lets go. A connection that ends closes the handle (STATE-5).
 *
 * Threads: run is called by one thread at a time; stop may come from any, and from a signal
 * handler; create and destroy from any while nobody else uses the server. Several servers are
 * independent.
 */
#ifndef QUIESCE_SERVER_H
#define QUIESCE_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/device.h>

#ifdef __cplusplus
extern "C" {
#endif

struct qsc_server;

/*
 * Memory that a client shares must be a memfd or a file in tmpfs or hugetlbfs (others: EINVAL), and
 * all servers of a process together map at most half of vm.max_map_count of such files (ENOSPC).
 */
struct qsc_server_options {
	/*
	 * Open the device for one user; the server closes the handle. -EBUSY while another has it.
	 * Called from connection threads.
	 */
	int (*open)(void *ctx, struct qsc_device **dev, struct qsc_error *err);
	void *open_ctx;
	/* Deadlines in milliseconds; 0 takes the default. */
	uint32_t handshake_timeout_ms; /* VERSION must have come whole (default 30000) */
	uint32_t message_timeout_ms;   /* from a message's first byte to its last (default 10000) */
	uint32_t reply_timeout_ms;     /* for the client to answer DMA_READ/WRITE (default 10000) */
	uint32_t max_connections;      /* at once, handshakes included (default 16) */
	uint32_t max_data_xfer_size;   /* bytes offered for data transfers (default 1 MiB) */
	uint32_t max_dma_maps;	       /* mappings a client may hold (default 65535) */
	bool poll;		       /* spin for the next request instead of sleeping */
	bool once;		       /* end when the first user that held the device lets go */
};

/*
 * Listen at `path` (a socket file, made anew; a stale one left by a dead server is replaced, one
 * with a live server is refused with EADDRINUSE, anything else with ENOTSOCK). Nothing is served
 * until run. -EINVAL for options that cannot be or too long a path, -ENOMEM, or as socket(2) and
 * bind(2).
 */
QSC_API int qsc_server_create(const char *path, const struct qsc_server_options *options,
			      struct qsc_server **server, struct qsc_error *err);
/*
 * Serve until qsc_server_stop() or, with options.once, until the user has gone: 0. -errno when no
 * more connections can be accepted. When it returns every connection has ended.
 */
QSC_API int qsc_server_run(struct qsc_server *server);
/* Make run return; closes every connection. From any thread or a signal handler. */
QSC_API void qsc_server_stop(struct qsc_server *server);
/* Removes the socket file. Not while run is running. NULL is allowed. */
QSC_API void qsc_server_destroy(struct qsc_server *server);

/*
 * Serve one connected stream socket in the calling thread until it ends; takes over fd. For
 * programs that accept by themselves. 0 when it has ended, whatever the client did; -EINVAL for
 * options that cannot be, -ENOMEM. May be called by several threads at once.
 */
QSC_API int qsc_server_serve_fd(const struct qsc_server_options *options, int fd);

#ifdef __cplusplus
}
#endif
#endif
