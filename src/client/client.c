/* SPDX-License-Identifier: MIT */
/* Opening a device by its URI; of a vfio-user one the connection and handshake, and closing it. */
#include <quiesce/client.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/internal.h"
#include "client/kernel/kernel.h"

#define FIXED_ROOM	64U
#define BUFFER_SLACK	(64U << 10)
#define RECEIVE_MAX	(16U << 10)
#define MAX_VERSION_FDS 8U
#define FAREWELL_MS	2000U

static void client_close(struct qsc_device *dev);

static const struct qsc_device_ops client_ops = {
	.kind = "vfio-user",
	.get_info = qsc_client_get_info,
	.get_region_info = qsc_client_get_region_info,
	.get_irq_info = qsc_client_get_irq_info,
	.region_read = qsc_client_region_read,
	.region_write = qsc_client_region_write,
	.region_write_multi = qsc_client_region_write_multi,
	.region_map = qsc_client_region_map,
	.region_unmap = qsc_client_region_unmap,
	.region_change = qsc_client_region_change,
	.region_fd = qsc_client_region_fd,
	.region_io_fds = qsc_client_region_io_fds,
	.set_irqs = qsc_client_set_irqs,
	.dma_map = qsc_client_dma_map,
	.dma_unmap = qsc_client_dma_unmap,
	.get_migration = qsc_client_get_migration,
	.get_state = qsc_client_get_state,
	.set_state = qsc_client_set_state,
	.set_state_begin = qsc_client_set_state_begin,
	.set_state_end = qsc_client_set_state_end,
	.data_size = qsc_client_data_size,
	.log_start = qsc_client_log_start,
	.log_stop = qsc_client_log_stop,
	.log_report = qsc_client_log_report,
	.session_read = qsc_client_session_read,
	.session_write = qsc_client_session_write,
	.session_precopy_info = qsc_client_session_precopy_info,
	.session_close = qsc_client_session_close,
	.reset = qsc_client_reset,
	.close = client_close,
};

int qsc_client_distrust(struct qsc_client *client, const char *what)
{
	qsc_log(QSC_LOG_WARNING, "vfio-user: the server's reply to %s cannot be; it is given up",
		what);
	qsc_rpc_shutdown(client->rpc);
	return -EPROTO;
}

int qsc_client_request(struct qsc_client *client, uint16_t command, void *request,
		       size_t request_size, void *reply, size_t reply_size)
{
	struct qsc_call call = {
		.command = command,
		.min_size = reply_size,
		.fixed = reply,
		.fixed_size = reply_size,
	};
	struct iovec iov = {.iov_base = request, .iov_len = request_size};
	int result = qsc_rpc_call(client->rpc, &call, &iov, 1, NULL, 0);

	return result < 0 ? result : call.result;
}

static void *map_scratch(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return memory == MAP_FAILED ? NULL : memory;
}

static void destroy(struct qsc_client *client)
{
	qsc_client_release_regions(client);
	qsc_client_release_table(client);
	qsc_rpc_destroy(client->twin);
	qsc_rpc_destroy(client->rpc);
	if (client->bounce)
		munmap(client->bounce, QSC_CLIENT_DMA_MAX);
	if (client->report)
		munmap(client->report, QSC_CLIENT_BITMAP_MAX);
	pthread_mutex_destroy(&client->report_lock);
	pthread_cond_destroy(&client->changed);
	pthread_mutex_destroy(&client->state_lock);
	pthread_mutex_destroy(&client->region_lock);
	pthread_mutex_destroy(&client->service_lock);
	pthread_rwlock_destroy(&client->table_lock);
	free(client);
}

static void client_close(struct qsc_device *dev)
{
	struct qsc_client *client = qsc_client_of(dev);

	/* The server's accesses end first, so that its device finds nothing to wait for. */
	if (client->twin)
		qsc_rpc_shutdown(client->twin);
	qsc_mappings_release(&client->mappings);
	if (!client->serving || client->twin)
		qsc_rpc_farewell(client->rpc, FAREWELL_MS);
	qsc_rpc_shutdown(client->rpc);
	if (client->serving)
		pthread_join(client->service, NULL);
	destroy(client);
}

/* Takes over fd, also on failure. */
static int create(int fd, const struct qsc_client_options *options, struct qsc_client **out)
{
	qsc_autoclose int owned = fd;
	struct qsc_client *client = calloc(1, sizeof(*client));
	struct qsc_rpc_options rpc = {
		.max_message = QSC_CLIENT_XFER_MAX + FIXED_ROOM,
		.slack = BUFFER_SLACK,
		.receive_max = RECEIVE_MAX,
		.max_fds = QSC_CLIENT_MSG_FDS,
		.no_command_fds = true,
		.watchdog = true,
		.command = qsc_client_on_command,
		.ctx = client,
	};
	int result;

	if (!client)
		return -ENOMEM;
	client->dev.ops = &client_ops;
	client->options = *options;
	client->mappings = (struct qsc_mappings)QSC_MAPPINGS_INIT;
	pthread_mutex_init(&client->service_lock, NULL);
	pthread_mutex_init(&client->region_lock, NULL);
	pthread_mutex_init(&client->state_lock, NULL);
	pthread_cond_init(&client->changed, NULL);
	pthread_mutex_init(&client->report_lock, NULL);
	pthread_rwlock_init(&client->table_lock, NULL);
	client->bounce = map_scratch(QSC_CLIENT_DMA_MAX);
	client->report = map_scratch(QSC_CLIENT_BITMAP_MAX);
	if (!client->bounce || !client->report) {
		destroy(client);
		return -ENOMEM;
	}
	rpc.fd = qsc_fd_steal(&owned);
	rpc.call_timeout_ms = options->connect_timeout_ms;
	rpc.message_timeout_ms = options->request_timeout_ms;
	rpc.poll = options->poll;
	result = qsc_rpc_create(&rpc, &client->rpc);
	if (result < 0)
		destroy(client);
	else
		*out = client;
	return result;
}

static int set_up_twin(struct qsc_client *client, int *fds, size_t num_fds)
{
	struct qsc_rpc_options options = {
		.max_message = QSC_CLIENT_DMA_MAX + FIXED_ROOM,
		.no_command_fds = true,
		.call_timeout_ms = client->options.request_timeout_ms,
		.message_timeout_ms = client->options.request_timeout_ms,
		.command = qsc_client_on_command,
		.ctx = client,
	};
	uint32_t index = client->caps.twin_fd_index;
	struct stat st;

	if (!client->caps.twin_socket)
		return 0;
	if (client->options.no_twin_socket || index >= num_fds || fstat(fds[index], &st) < 0 ||
	    !S_ISSOCK(st.st_mode))
		return -EPROTO;
	options.fd = qsc_fd_steal(&fds[index]);
	return qsc_rpc_create(&options, &client->twin);
}

static int accept_version(struct qsc_client *client, const void *body, size_t size, int *fds,
			  size_t num_fds, struct qsc_error *err)
{
	struct qsc_wire_version version;
	int result;

	if (qsc_wire_decode_version(body, size, &version, &client->caps) < 0)
		return qsc_error_set(err, EPROTO, NULL,
				     "the server's VERSION reply is not valid; is it a vfio-user "
				     "server?");
	if (version.major != QSC_WIRE_MAJOR || version.minor > QSC_WIRE_MINOR)
		return qsc_error_set(err, EPROTONOSUPPORT, NULL,
				     "the server speaks vfio-user %u.%u, this client %u.%u; update "
				     "the older one",
				     version.major, version.minor, QSC_WIRE_MAJOR, QSC_WIRE_MINOR);
	result = set_up_twin(client, fds, num_fds);
	if (result == -EPROTO)
		return qsc_error_set(
			err, EPROTO, NULL,
			"the server says that it set up a twin socket but did not pass "
			"one that was asked for");
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the server's twin socket: %s",
				     strerrordesc_np(-result));
	client->xfer_size = (uint32_t)qsc_min_u64(client->caps.max_data_xfer_size,
						  QSC_CLIENT_XFER_MAX);
	return 0;
}

static int handshake(struct qsc_client *client, struct qsc_error *err)
{
	uint8_t request[QSC_WIRE_HEADER_SIZE + 1024];
	uint8_t reply[QSC_WIRE_VERSION_MAX];
	int fds[MAX_VERSION_FDS];
	struct qsc_wire_version version = {QSC_WIRE_MAJOR, QSC_WIRE_MINOR};
	struct qsc_wire_caps caps = {
		.max_msg_fds = QSC_CLIENT_MSG_FDS,
		.max_data_xfer_size = QSC_CLIENT_DMA_MAX,
		.max_dma_maps = 65535,
		.pgsizes = QSC_PAGE_SIZE,
		.twin_socket = !client->options.no_twin_socket,
		.twin_fd_index = UINT32_MAX,
		.write_multiple = true,
		.quiesce = true,
	};
	struct qsc_call call = {.command = QSC_WIRE_VERSION,
				.min_size = sizeof(version),
				.data = reply,
				.data_max = sizeof(reply),
				.fds = fds,
				.max_fds = MAX_VERSION_FDS};
	struct iovec iov = {.iov_base = request};
	int result = qsc_wire_encode_version(&version, &caps, request + QSC_WIRE_HEADER_SIZE,
					     sizeof(request) - QSC_WIRE_HEADER_SIZE);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no VERSION message could be made");
	iov.iov_len = QSC_WIRE_HEADER_SIZE + (size_t)result;
	result = qsc_rpc_call(client->rpc, &call, &iov, 1, NULL, 0);
	if (result == -ETIMEDOUT)
		return qsc_error_set(
			err, ETIMEDOUT, NULL,
			"the server did not answer the handshake within %u ms; is it a "
			"vfio-user server?",
			client->options.connect_timeout_ms);
	if (result == -EMFILE)
		return qsc_error_set(err, EMFILE, NULL,
				     "what the server passed was lost: too many open files");
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the server closed the connection during the handshake; is it "
				     "a vfio-user server?");
	if (call.result == -EBUSY)
		return qsc_error_set(err, EBUSY, NULL,
				     "another client holds the device; it must let go first");
	if (call.result < 0)
		return qsc_error_set(err, -call.result, NULL,
				     "the server refused the handshake: %s",
				     strerror(-call.result));
	result = accept_version(client, reply, call.body, fds, call.num_fds, err);
	while (call.num_fds)
		qsc_fd_close(&fds[--call.num_fds]);
	return result;
}

/*
 * What the device was left in: a server may keep the state of the one who held it before. One that
 * has no states says so; with a connection that ended over this there is no device.
 */
static int learn_state(struct qsc_client *client, struct qsc_error *err)
{
	enum qsc_state state;
	int result = qsc_client_get_state(&client->dev, &state);

	if (result < 0 && qsc_rpc_broken(client->rpc))
		return qsc_error_set(err, -result, NULL,
				     "the connection ended after the handshake, when the device "
				     "was asked for its state: %s; look at what its server says",
				     strerrordesc_np(-result));
	if (result < 0)
		state = QSC_STATE_RUNNING;
	client->state = state;
	client->state_known = true;
	if (!qsc_state_is_active(state))
		(void)qsc_mappings_revoke(&client->mappings);
	return 0;
}

static struct qsc_client_options resolve(const struct qsc_client_options *options)
{
	struct qsc_client_options resolved = {.request_timeout_ms = 0};

	if (options)
		resolved = *options;
	if (!resolved.request_timeout_ms)
		resolved.request_timeout_ms = 60000;
	if (!resolved.connect_timeout_ms)
		resolved.connect_timeout_ms = 30000;
	return resolved;
}

int qsc_client_open_fd(int fd, const struct qsc_client_options *options, struct qsc_device **dev,
		       struct qsc_error *err)
{
	struct qsc_client_options resolved = resolve(options);
	struct qsc_client *client;
	int result = create(fd, &resolved, &client);

	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "no vfio-user connection could be made: %s",
				     strerror(-result));
	result = handshake(client, err);
	if (!result) {
		result = qsc_rpc_set_call_timeout(client->rpc, resolved.request_timeout_ms);
		if (result < 0)
			(void)qsc_error_set(err, -result, NULL, "the socket takes no timeout: %s",
					    strerror(-result));
	}
	if (!result) {
		if (client->caps.quiesce)
			qsc_rpc_promise_plain(client->rpc);
		result = learn_state(client, err);
	}
	if (result < 0)
		client_close(&client->dev);
	else
		*dev = &client->dev;
	return result;
}

static int connect_to(const char *path, uint32_t timeout_ms, struct qsc_error *err)
{
	qsc_autoclose int fd = -1;
	struct timeval timeout = {.tv_sec = timeout_ms / 1000,
				  .tv_usec = (suseconds_t)(timeout_ms % 1000) * 1000};
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	const char *hint = "";
	struct stat st;
	int number;

	if (!*path || strlen(path) >= sizeof(address.sun_path))
		return qsc_error_set(err, EINVAL, NULL,
				     "a socket path must have 1 to %zu bytes: \"%s\"",
				     sizeof(address.sun_path) - 1, path);
	memcpy(address.sun_path, path, strlen(path));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return qsc_error_set(err, errno, NULL, "no socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return qsc_fd_steal(&fd);
	number = errno;
	/* What is no socket refuses as a socket without a server does. */
	if (number == ECONNREFUSED && stat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		return qsc_error_set(err, ENOTSOCK, NULL,
				     "this is no socket; name the one that the server made");
	if (number == ECONNREFUSED)
		hint = "; the server that made it has ended, start it again";
	else if (number == ENOENT)
		hint = "; start the server first";
	else if (number == EACCES)
		hint = "; check the permissions of the socket and of its folder";
	else if (number == EAGAIN)
		hint = "; the server accepts no connection";
	if (number == EAGAIN)
		number = ETIMEDOUT;
	return qsc_error_set(err, number, NULL, "cannot connect: %s%s", strerror(number), hint);
}

static int open_socket(const char *path, const struct qsc_client_options *options,
		       struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_client_options resolved = resolve(options);
	int fd = connect_to(path, resolved.connect_timeout_ms, err);

	return fd < 0 ? fd : qsc_client_open_fd(fd, options, dev, err);
}

int qsc_client_open(const char *uri, const struct qsc_client_options *options,
		    struct qsc_device **dev, struct qsc_error *err)
{
	static const char socket_scheme[] = "vfio-user:";
	static const char kernel_scheme[] = "vfio:";
	int result;

	if (!strncmp(uri, socket_scheme, sizeof(socket_scheme) - 1))
		result = open_socket(uri + sizeof(socket_scheme) - 1, options, dev, err);
	else if (!strncmp(uri, kernel_scheme, sizeof(kernel_scheme) - 1))
		result = qsc_kernel_open(uri + sizeof(kernel_scheme) - 1, options && options->raw,
					 dev, err);
	else
		return qsc_error_set(
			err, EINVAL, NULL,
			"\"%s\" is no device URI; write vfio-user:PATH with the path "
			"of the server's socket, or vfio:ADDRESS with the address of a "
			"device of this machine",
			uri);
	if (result < 0)
		qsc_error_prefix(err, "%s: ", uri);
	return result;
}
