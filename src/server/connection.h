/* SPDX-License-Identifier: MIT */
/*
 * One client of a server: the handshake, then commands one after the other, each answered by a
 * handler. Everything here runs in the connection's own thread, except that the device may reach
 * the client's memory (qsc_server_access_*) from any.
 */
#ifndef QSC_SERVER_CONNECTION_H
#define QSC_SERVER_CONNECTION_H

#include <quiesce/server.h>

#include "rpc/rpc.h"
#include "rpc/table.h"
#include "wire/version.h"

/* Descriptors with one message, offered to the client: a SET_IRQS of many vectors comes in parts.
 */
#define QSC_SERVER_MSG_FDS 64
/* Largest bitmap of one log report: 128 GiB in pages of 4 KiB. */
#define QSC_SERVER_BITMAP_MAX (4U << 20)
#define QSC_SERVER_IO_FDS_MAX QSC_SERVER_MSG_FDS
/* Pieces of one reply, its beginning among them. */
#define QSC_SERVER_PARTS_MAX 64

struct qsc_connection {
	const struct qsc_server_options *options; /* no field 0 */
	struct qsc_rpc *rpc;
	/* For the server's own commands; NULL: on the main socket. Made while others may look. */
	struct qsc_rpc *_Atomic twin;
	struct qsc_device *dev;
	struct qsc_dma_access access;
	struct qsc_wire_caps caps; /* what both ends can */
	uint32_t peer_xfer_size;   /* most that the client takes in one DMA_READ or _WRITE */
	uint64_t session;	   /* the one that MIG_DATA_READ and _WRITE mean */
	struct qsc_dma_table table;
	size_t num_files; /* of these, mappings of files */
	bool told_files;  /* why a file was refused */
	bool log_all;	  /* the log was asked for without ranges: later mappings belong to it */
	uint8_t *reply;
	size_t reply_size;
};

/* A command being handled. A handler puts the reply's body at `out`. */
struct qsc_request {
	struct qsc_wire_header header;
	const uint8_t *body;
	size_t size;
	const int *fds; /* not the handler's: it duplicates what it keeps */
	size_t num_fds;
	uint8_t *out;
	size_t out_max;
	int out_fds[QSC_SERVER_IO_FDS_MAX]; /* closed when they have been sent */
	size_t num_out_fds;
	/* From part 1 on: what follows that, as it lies in the device's memory or elsewhere. */
	struct iovec parts[QSC_SERVER_PARTS_MAX];
	size_t num_parts;
	uint64_t resting; /* bits of those in the device's memory, which keep their contents */
};

/* Size of the reply's body at `out`, or -errno for an error reply. */
typedef ssize_t qsc_handler_fn(struct qsc_connection *connection, struct qsc_request *request);

/*
 * files.c: whether a client's file may be mapped that far, and taking one of the mappings that the
 * process can spare, -ENOSPC when there is none left.
 */
int qsc_server_check_file(struct qsc_connection *connection, int fd, uint64_t offset,
			  uint64_t size);
int qsc_server_take_file(void);
void qsc_server_give_files(size_t count);

/* dma.c */
qsc_handler_fn qsc_server_dma_map, qsc_server_dma_unmap;
int qsc_server_access_read(void *ctx, uint64_t iova, void *buf, size_t size);
int qsc_server_access_write(void *ctx, uint64_t iova, const void *buf, size_t size);
/* Add to a report what the device could not log, and begin or end keeping account of that. */
void qsc_server_report_unlogged(struct qsc_connection *connection, uint64_t iova, uint64_t size,
				uint64_t page_size, uint64_t *bitmap);
void qsc_server_set_log_all(struct qsc_connection *connection, bool log_all);

/* regions.c */
qsc_handler_fn qsc_server_get_info, qsc_server_get_region_info, qsc_server_get_region_io_fds,
	qsc_server_get_irq_info, qsc_server_set_irqs, qsc_server_region_read,
	qsc_server_region_write, qsc_server_region_write_multi, qsc_server_reset;

/* migration.c */
qsc_handler_fn qsc_server_feature, qsc_server_mig_data_read, qsc_server_mig_data_write;

/* Options with every default filled in; -EINVAL with the reason. */
int qsc_server_resolve(const struct qsc_server_options *options, struct qsc_server_options *out,
		       struct qsc_error *err);

/*
 * Make a connection of a connected socket, which it takes over, also on failure. `options` must
 * outlive it.
 */
int qsc_connection_create(const struct qsc_server_options *options, int fd,
			  struct qsc_connection **out);
/*
 * Serve it to its end; returns whether it held the device. `established` (may be NULL) is called
 * when the handshake is done.
 */
bool qsc_connection_run(struct qsc_connection *connection, void (*established)(void *ctx),
			void *ctx);
/* Make run end. Any thread. */
void qsc_connection_shutdown(struct qsc_connection *connection);
void qsc_connection_destroy(struct qsc_connection *connection);

#endif
