/* SPDX-License-Identifier: MIT */
/*
 * The devices of an audit, each at a socket. Connections are accepted here and not by the server,
 * because who connects says whose the device is: all that one process holds is one set.
 */
#include "audit.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <quiesce/server.h>

#include "device.h"
#include "models.h"
#include "tool.h"

#define MAX_CONNECTIONS 64

struct audit_connection {
	struct audit_device *device;
	struct audit_connection *next;
	uint64_t user;
	int fd;
};

/* ---- what is behind a socket ---- */

static void violated(void *ctx, enum qsc_clause clause, const char *text)
{
	struct audit_device *device = ctx;

	if (device->host->audit)
		qsc_audit_add(device->host->audit, device->name, clause, text);
}

static void struck(void *ctx, const char *rule)
{
	struct audit_device *device = ctx;

	pthread_mutex_lock(&device->host->lock);
	device->host->struck = true;
	pthread_mutex_unlock(&device->host->lock);
	(void)fprintf(stderr, "%s: the fault '%s' strikes %s\n", tool_name, rule, device->name);
}

static int open_inner(struct audit_device *device, struct qsc_device **dev, struct qsc_error *err)
{
	bool wrong;
	int result;

	if (!device->rt)
		return tool_try_device(device->to, NULL, dev, &wrong, err);
	result = qsc_runtime_open(device->rt, dev);
	return result < 0 ? qsc_error_set(err, -result, NULL, "%s has a user already", device->name)
			  : 0;
}

static int open_audited(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct audit_connection *connection = ctx;
	struct audit_device *device = connection->device;
	struct qsc_device *inner = NULL;
	int result = open_inner(device, &inner, err);

	if (result < 0)
		return result;
	*dev = inner;
	if (device->host->fault)
		result = qsc_fault_open(inner, device->name, device->host->fault, struck, device,
					dev, err);
	if (!result) {
		inner = *dev;
		result = qsc_audit_open(device->host->audit, inner, device->name, connection->user,
					dev);
	}
	if (result < 0)
		qsc_device_close(inner);
	return result;
}

/* ---- connections ---- */

static void take_out(struct audit_host *host, struct audit_connection *connection)
{
	struct audit_connection **at = &host->connections;

	while (*at && *at != connection)
		at = &(*at)->next;
	if (*at)
		*at = connection->next;
}

static void *serve(void *arg)
{
	struct audit_connection *connection = arg;
	struct audit_host *host = connection->device->host;
	const struct qsc_server_options options = {
		.open = open_audited,
		.open_ctx = connection,
	};
	/* The server closes what it is given; stopping needs a way to end it that stays ours. */
	int fd = dup(connection->fd);

	if (fd >= 0)
		(void)qsc_server_serve_fd(&options, fd);
	pthread_mutex_lock(&host->lock);
	take_out(host, connection);
	close(connection->fd);
	free(connection);
	pthread_cond_broadcast(&host->ended);
	pthread_mutex_unlock(&host->lock);
	return NULL;
}

static unsigned int count_connections(const struct audit_host *host)
{
	unsigned int count = 0;

	for (const struct audit_connection *c = host->connections; c; c = c->next)
		count++;
	return count;
}

/* Takes over fd. */
static void begin(struct audit_device *device, int fd)
{
	struct audit_host *host = device->host;
	struct audit_connection *connection = calloc(1, sizeof(*connection));
	struct ucred peer = {0};
	socklen_t size = sizeof(peer);
	pthread_t thread;
	bool good;

	if (!connection) {
		close(fd);
		return;
	}
	(void)getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size);
	connection->device = device;
	connection->user = (uint64_t)peer.pid;
	connection->fd = fd;
	pthread_mutex_lock(&host->lock);
	good = !host->stopping && count_connections(host) < MAX_CONNECTIONS &&
	       !pthread_create(&thread, NULL, serve, connection);
	if (good) {
		(void)pthread_detach(thread);
		connection->next = host->connections;
		host->connections = connection;
	}
	pthread_mutex_unlock(&host->lock);
	if (!good) {
		close(fd);
		free(connection);
	}
}

static void *listen_for(void *arg)
{
	struct audit_device *device = arg;

	for (;;) {
		int fd = accept4(device->listener, NULL, NULL, SOCK_CLOEXEC);

		if (fd >= 0)
			begin(device, fd);
		else if (errno == EINVAL)
			return NULL; /* shut down */
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
			(void)poll(NULL, 0, 10);
	}
}

/* ---- sockets ---- */

/* A socket file that nobody listens behind makes room. */
static void remove_stale(const struct sockaddr_un *address)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct stat st;

	if (fd >= 0 && !lstat(address->sun_path, &st) && S_ISSOCK(st.st_mode) &&
	    connect(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 &&
	    errno == ECONNREFUSED)
		(void)unlink(address->sun_path);
	if (fd >= 0)
		close(fd);
}

static int listen_at(struct audit_device *device, struct qsc_error *err)
{
	const struct sockaddr *address = (const struct sockaddr *)&device->address;
	int number;

	remove_stale(&device->address);
	device->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (device->listener >= 0 && !bind(device->listener, address, sizeof(device->address)) &&
	    !listen(device->listener, 16))
		return 0;
	number = errno;
	if (device->listener >= 0)
		close(device->listener);
	device->listener = -1;
	return qsc_error_set(err, number, NULL, "cannot listen at %s: %s", device->address.sun_path,
			     number == EADDRINUSE ? "something is there already"
						  : strerror(number));
}

int audit_host_add(struct audit_host *host, const char *name, const char *to, const char *socket,
		   struct qsc_error *err)
{
	struct audit_device *device = &host->devices[host->num_devices];
	const size_t most = sizeof(device->address.sun_path) - 1;

	if (host->num_devices == AUDIT_MAX_DEVICES)
		return qsc_error_set(err, EINVAL, NULL, "more than %d devices are not possible",
				     AUDIT_MAX_DEVICES);
	if (name && strlen(name) >= sizeof(device->name))
		return qsc_error_set(err, EINVAL, NULL, "the name '%s' is longer than %zu bytes",
				     name, sizeof(device->name) - 1);
	if (socket && (!*socket || strlen(socket) > most))
		return qsc_error_set(err, EINVAL, NULL,
				     "the path of the socket has %zu bytes; 1 to %zu are possible",
				     strlen(socket), most);
	if (name)
		(void)snprintf(device->name, sizeof(device->name), "%s", name);
	else
		(void)snprintf(device->name, sizeof(device->name), "vfio%u", host->num_devices);
	device->address.sun_family = AF_UNIX;
	(void)snprintf(device->address.sun_path, sizeof(device->address.sun_path), "%s",
		       socket ? socket : "");
	device->host = host;
	device->listener = -1;
	device->to = strdup(to);
	if (!device->to)
		return qsc_error_set(err, ENOMEM, NULL, "out of memory");
	host->num_devices++;
	return 0;
}

/* A socket in a folder of ours, for who named none. */
static int choose_socket(struct audit_host *host, struct audit_device *device,
			 struct qsc_error *err)
{
	const size_t most = sizeof(device->address.sun_path);
	int result = host->folder.path[0] ? 0 : folder_make(&host->folder, err);

	if (result < 0)
		return result;
	if ((size_t)snprintf(device->address.sun_path, most, "%s/%zu", host->folder.path,
			     (size_t)(device - host->devices)) < most)
		return 0;
	device->address.sun_path[0] = '\0';
	return qsc_error_set(err, EINVAL, NULL,
			     "%s is too long for sockets in it; choose another TMPDIR",
			     host->folder.path);
}

/*
 * A device of the kernel is opened once before anybody asks, to say now why it cannot be. A server
 * is not: it may be one that ends with its first user.
 */
static int try_once(const struct audit_device *device, struct qsc_error *err)
{
	struct qsc_device *dev;
	bool wrong;
	int result = tool_try_device(device->to, NULL, &dev, &wrong, err);

	if (!result)
		qsc_device_close(dev);
	return result;
}

static int start_one(struct audit_device *device, struct qsc_error *err)
{
	const struct models_options options = {
		.name = device->name,
		.violation = violated,
		.violation_ctx = device,
	};
	int result = 0;

	if (!device->address.sun_path[0])
		result = choose_socket(device->host, device, err);
	if (!result && !strncmp(device->to, "model:", 6))
		result = models_create(device->to + 6, &options, &device->rt, err);
	if (!result && !strncmp(device->to, "vfio:", 5))
		result = try_once(device, err);
	if (!result)
		result = listen_at(device, err);
	if (result < 0)
		return result;
	result = -pthread_create(&device->thread, NULL, listen_for, device);
	device->has_thread = !result;
	return result < 0 ? qsc_error_set(err, -result, NULL, "no thread for %s", device->name) : 0;
}

int audit_host_start(struct audit_host *host, struct qsc_error *err)
{
	int result = 0;

	host->stopping = false;
	host->struck = false;
	pthread_mutex_init(&host->lock, NULL);
	pthread_cond_init(&host->ended, NULL);
	for (unsigned int i = 0; i < host->num_devices && !result; i++)
		result = start_one(&host->devices[i], err);
	return result;
}

void audit_host_stop(struct audit_host *host)
{
	pthread_mutex_lock(&host->lock);
	host->stopping = true;
	for (struct audit_connection *c = host->connections; c; c = c->next)
		(void)shutdown(c->fd, SHUT_RDWR);
	while (host->connections)
		pthread_cond_wait(&host->ended, &host->lock);
	pthread_mutex_unlock(&host->lock);
	for (unsigned int i = 0; i < host->num_devices; i++) {
		struct audit_device *device = &host->devices[i];

		if (device->has_thread) {
			(void)shutdown(device->listener, SHUT_RDWR);
			(void)pthread_join(device->thread, NULL);
			device->has_thread = false;
		}
		if (device->listener >= 0) {
			close(device->listener);
			(void)unlink(device->address.sun_path);
			device->listener = -1;
		}
		qsc_runtime_destroy(device->rt);
		device->rt = NULL;
	}
	pthread_cond_destroy(&host->ended);
	pthread_mutex_destroy(&host->lock);
}

void audit_host_release(struct audit_host *host)
{
	for (unsigned int i = 0; i < host->num_devices; i++)
		free(host->devices[i].to);
	host->num_devices = 0;
	folder_remove(&host->folder);
}
