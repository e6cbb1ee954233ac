/* SPDX-License-Identifier: MIT */
/* See connection.h: the handshake and the loop over commands. */
#include "server/connection.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#define MIN_MESSAGE  (64U << 10) /* room for every message that carries no data */
#define FIXED_ROOM   64U	 /* header and fixed part of any message that does */
#define MIN_XFER     4096U
#define MAX_XFER     (64U << 20)
#define BUFFER_SLACK (64U << 10)
/* State data and dirty logs are made while the client takes what came before. */
#define SEND_BUFFER (1 << 20)

struct command {
	qsc_handler_fn *handle;
	size_t max_fds;
};

static const struct command commands[QSC_WIRE_COMMANDS] = {
	[QSC_WIRE_DMA_MAP] = {qsc_server_dma_map, 1},
	[QSC_WIRE_DMA_UNMAP] = {qsc_server_dma_unmap, 0},
	[QSC_WIRE_GET_INFO] = {qsc_server_get_info, 0},
	[QSC_WIRE_GET_REGION_INFO] = {qsc_server_get_region_info, 0},
	[QSC_WIRE_GET_REGION_IO_FDS] = {qsc_server_get_region_io_fds, 0},
	[QSC_WIRE_GET_IRQ_INFO] = {qsc_server_get_irq_info, 0},
	[QSC_WIRE_SET_IRQS] = {qsc_server_set_irqs, QSC_SERVER_MSG_FDS},
	[QSC_WIRE_REGION_READ] = {qsc_server_region_read, 0},
	[QSC_WIRE_REGION_WRITE] = {qsc_server_region_write, 0},
	[QSC_WIRE_RESET] = {qsc_server_reset, 0},
	[QSC_WIRE_REGION_WRITE_MULTI] = {qsc_server_region_write_multi, 0},
	[QSC_WIRE_FEATURE] = {qsc_server_feature, 0},
	[QSC_WIRE_MIG_DATA_READ] = {qsc_server_mig_data_read, 0},
	[QSC_WIRE_MIG_DATA_WRITE] = {qsc_server_mig_data_write, 0},
};

static uint32_t or_default(uint32_t value, uint32_t fallback)
{
	return value ? value : fallback;
}

int qsc_server_resolve(const struct qsc_server_options *options, struct qsc_server_options *out,
		       struct qsc_error *err)
{
	*out = *options;
	if (!options->open)
		return qsc_error_set(err, EINVAL, NULL,
				     "server: options.open is NULL; it must open the device that "
				     "is to be served");
	out->handshake_timeout_ms = or_default(options->handshake_timeout_ms, 30000);
	out->message_timeout_ms = or_default(options->message_timeout_ms, 10000);
	out->reply_timeout_ms = or_default(options->reply_timeout_ms, 10000);
	out->max_connections = or_default(options->max_connections, 16);
	out->max_data_xfer_size = or_default(options->max_data_xfer_size, 1U << 20);
	out->max_dma_maps = or_default(options->max_dma_maps, 65535);
	if (out->max_data_xfer_size < MIN_XFER || out->max_data_xfer_size > MAX_XFER)
		return qsc_error_set(err, EINVAL, NULL,
				     "server: max_data_xfer_size is %u bytes; it must be %u to %u",
				     out->max_data_xfer_size, MIN_XFER, MAX_XFER);
	return 0;
}

static uint32_t max_message(const struct qsc_server_options *options)
{
	return (uint32_t)qsc_max_u64(MIN_MESSAGE, options->max_data_xfer_size + FIXED_ROOM);
}

int qsc_connection_create(const struct qsc_server_options *options, int fd,
			  struct qsc_connection **out)
{
	struct qsc_connection *connection = calloc(1, sizeof(*connection));
	struct qsc_rpc_options rpc = {
		.fd = fd,
		.max_message = max_message(options),
		/* Replies must be found behind a large command that waits for its turn. */
		.slack = max_message(options) + BUFFER_SLACK,
		.max_fds = QSC_SERVER_MSG_FDS,
		.send_buffer = SEND_BUFFER,
		.call_timeout_ms = options->reply_timeout_ms,
		.message_timeout_ms = options->message_timeout_ms,
		.poll = options->poll,
	};
	size_t largest = qsc_max_u64(options->max_data_xfer_size, QSC_SERVER_BITMAP_MAX);
	void *reply;
	int result;

	if (!connection) {
		qsc_fd_close(&fd);
		return -ENOMEM;
	}
	result = qsc_rpc_create(&rpc, &connection->rpc);
	if (result < 0)
		goto fail;
	connection->reply_size = largest + FIXED_ROOM;
	reply = mmap(NULL, connection->reply_size, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (reply == MAP_FAILED) {
		result = -ENOMEM;
		goto fail;
	}
	connection->reply = reply;
	connection->options = options;
	connection->access = (struct qsc_dma_access){.read = qsc_server_access_read,
						     .write = qsc_server_access_write,
						     .ctx = connection};
	qsc_rpc_set_max_message(connection->rpc, QSC_WIRE_VERSION_MAX + QSC_WIRE_HEADER_SIZE);
	*out = connection;
	return 0;
fail:
	qsc_rpc_destroy(connection->rpc);
	free(connection);
	return result;
}

void qsc_connection_destroy(struct qsc_connection *connection)
{
	qsc_rpc_destroy(connection->twin);
	qsc_rpc_destroy(connection->rpc);
	qsc_server_give_files(connection->num_files);
	qsc_dma_table_release(&connection->table);
	munmap(connection->reply, connection->reply_size);
	free(connection);
}

void qsc_connection_shutdown(struct qsc_connection *connection)
{
	struct qsc_rpc *twin = atomic_load_explicit(&connection->twin, memory_order_acquire);

	qsc_rpc_shutdown(connection->rpc);
	/* A device that is being stopped may be waiting for an answer there. */
	if (twin)
		qsc_rpc_shutdown(twin);
}

/* The client has no command to send on the twin socket. */
static int refuse_command(void *ctx, struct qsc_rpc *rpc, const struct qsc_message *message)
{
	return -EPROTO;
}

static int make_twin(struct qsc_connection *connection, int *peer)
{
	struct qsc_rpc_options options = {
		.max_message = connection->options->max_data_xfer_size + FIXED_ROOM,
		.receive_max = BUFFER_SLACK,
		.no_command_fds = true,
		.call_timeout_ms = connection->options->reply_timeout_ms,
		.message_timeout_ms = connection->options->reply_timeout_ms,
		.poll = connection->options->poll,
		.command = refuse_command,
	};
	struct qsc_rpc *twin = NULL;
	int pair[2];
	int result;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	options.fd = pair[0];
	result = qsc_rpc_create(&options, &twin);
	if (result < 0) {
		qsc_fd_close(&pair[1]);
		return result;
	}
	atomic_store_explicit(&connection->twin, twin, memory_order_release);
	*peer = pair[1];
	return 0;
}

/* Answer with what this end can, and of what is optional only what the client named. */
static int reply_version(struct qsc_connection *connection, const struct qsc_wire_header *header,
			 uint16_t minor)
{
	struct qsc_wire_version version = {
		.major = QSC_WIRE_MAJOR,
		.minor = (uint16_t)qsc_min_u64(minor, QSC_WIRE_MINOR),
	};
	struct qsc_wire_caps caps = {
		.max_msg_fds = QSC_SERVER_MSG_FDS,
		.max_data_xfer_size = connection->options->max_data_xfer_size,
		.max_dma_maps = connection->options->max_dma_maps,
		.pgsizes = QSC_PAGE_SIZE,
		.twin_socket = connection->caps.twin_socket,
		.write_multiple = connection->caps.write_multiple,
		.quiesce = connection->caps.quiesce,
	};
	qsc_autoclose int peer = -1;
	struct qsc_device_info info;
	int result;

	if (caps.quiesce && qsc_device_get_info(connection->dev, &info) == 0)
		caps.layout = info.layout;
	if (caps.twin_socket) {
		result = make_twin(connection, &peer);
		if (result < 0)
			return result;
	}
	result = qsc_wire_encode_version(&version, &caps, connection->reply + QSC_WIRE_HEADER_SIZE,
					 QSC_WIRE_VERSION_MAX);
	if (result < 0)
		return result;
	connection->peer_xfer_size = (uint32_t)qsc_min_u64(connection->caps.max_data_xfer_size,
							   caps.max_data_xfer_size);
	qsc_rpc_set_max_message(connection->rpc, max_message(connection->options));
	if (caps.quiesce)
		qsc_rpc_trust_plain(connection->rpc);
	return qsc_rpc_reply(connection->rpc, header, connection->reply,
			     QSC_WIRE_HEADER_SIZE + (size_t)result, &peer, peer >= 0);
}

static int negotiate(struct qsc_connection *connection, const struct qsc_message *message,
		     size_t num_fds)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_wire_version version;
	int result;

	if (message->header.command != QSC_WIRE_VERSION ||
	    (message->header.flags & QSC_WIRE_NO_REPLY)) {
		qsc_log(QSC_LOG_WARNING, "vfio-user: a client began with %s instead of VERSION",
			qsc_wire_command_name(message->header.command));
		return -EPROTO;
	}
	result = qsc_wire_decode_version(message->body, message->size, &version, &connection->caps);
	if (!result && num_fds)
		result = -EINVAL;
	if (!result && version.major != QSC_WIRE_MAJOR)
		result = -EPROTONOSUPPORT;
	/* In smaller pieces a client could make one access last as long as it likes. */
	if (!result && connection->caps.max_data_xfer_size < MIN_XFER) {
		qsc_log(QSC_LOG_WARNING,
			"vfio-user: a client was refused: it takes %u bytes in one transfer, and "
			"must take %u (max_data_xfer_size)",
			connection->caps.max_data_xfer_size, MIN_XFER);
		result = -EINVAL;
	}
	if (!result) {
		result = connection->options->open(connection->options->open_ctx, &connection->dev,
						   &err);
		if (result < 0)
			qsc_log(QSC_LOG_WARNING, "vfio-user: a client was refused: %s",
				err.number ? err.text : strerror(-result));
	}
	if (!result)
		result = reply_version(connection, &message->header, version.minor);
	if (result < 0)
		qsc_rpc_reply_error(connection->rpc, &message->header, result);
	return result;
}

static bool handshake(struct qsc_connection *connection)
{
	uint64_t deadline_us = qsc_rpc_now_us() +
			       (uint64_t)connection->options->handshake_timeout_ms * 1000;
	struct qsc_message message;
	const int *fds;
	size_t num_fds;
	int result;

	result = qsc_rpc_next(connection->rpc, deadline_us, &message, &fds, &num_fds);
	if (result < 0) {
		qsc_log(QSC_LOG_INFO, "vfio-user: a client left before the handshake: %s",
			strerror(-result));
		return false;
	}
	return negotiate(connection, &message, num_fds) == 0;
}

static ssize_t dispatch(struct qsc_connection *connection, struct qsc_request *request)
{
	uint16_t number = request->header.command;
	const struct command *command = number < QSC_WIRE_COMMANDS ? &commands[number] : NULL;

	if (!command || !command->handle)
		return number == QSC_WIRE_VERSION ? -EINVAL : -ENOSYS;
	if (request->num_fds > command->max_fds)
		return -EINVAL;
	return command->handle(connection, request);
}

static int serve_one(struct qsc_connection *connection, const struct qsc_message *message,
		     const int *fds, size_t num_fds)
{
	struct qsc_request request;
	ssize_t size;
	int result;

	request.header = message->header;
	request.body = message->body;
	request.size = message->size;
	request.fds = fds;
	request.num_fds = num_fds;
	request.out = connection->reply + QSC_WIRE_HEADER_SIZE;
	request.out_max = connection->reply_size - QSC_WIRE_HEADER_SIZE;
	request.num_out_fds = 0;
	request.num_parts = 1;
	request.resting = 0;
	size = dispatch(connection, &request);
	request.parts[0].iov_base = connection->reply;
	request.parts[0].iov_len = QSC_WIRE_HEADER_SIZE + (size_t)size;
	if (size < 0)
		result = qsc_rpc_reply_error(connection->rpc, &request.header, (int)size);
	else
		result = qsc_rpc_reply_parts(connection->rpc, &request.header, request.parts,
					     request.num_parts, request.resting, request.out_fds,
					     request.num_out_fds);
	while (request.num_out_fds)
		qsc_fd_close(&request.out_fds[--request.num_out_fds]);
	return result;
}

bool qsc_connection_run(struct qsc_connection *connection, void (*established)(void *ctx),
			void *ctx)
{
	struct qsc_message message;
	const int *fds;
	size_t num_fds;
	bool held;
	int result = 0;

	if (handshake(connection)) {
		qsc_log(QSC_LOG_INFO, "vfio-user: a client holds the device");
		if (established)
			established(ctx);
		while (!result) {
			result = qsc_rpc_next(connection->rpc, 0, &message, &fds, &num_fds);
			if (result < 0)
				break;
			result = serve_one(connection, &message, fds, num_fds);
		}
		/* That a client closes its connection is how it lets go. */
		if (result == -ENOTCONN)
			qsc_log(QSC_LOG_INFO, "vfio-user: the client has let go of the device");
		else
			qsc_log(result == -EMFILE ? QSC_LOG_WARNING : QSC_LOG_INFO,
				"vfio-user: the client is let go: %s%s", strerror(-result),
				result == -EMFILE ? ", and one that it passed was lost" : "");
	}
	/* Nothing waits for this client any more: accesses under way fail, and close may drain. */
	qsc_connection_shutdown(connection);
	held = connection->dev;
	qsc_device_close(connection->dev);
	connection->dev = NULL;
	return held;
}

int qsc_server_serve_fd(const struct qsc_server_options *options, int fd)
{
	struct qsc_server_options resolved;
	struct qsc_connection *connection = NULL;
	int result = qsc_server_resolve(options, &resolved, NULL);

	if (result < 0) {
		qsc_fd_close(&fd);
		return result;
	}
	result = qsc_connection_create(&resolved, fd, &connection);
	if (result < 0 || !connection)
		return result;
	qsc_connection_run(connection, NULL, NULL);
	qsc_connection_destroy(connection);
	return 0;
}
