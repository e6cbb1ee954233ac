/* SPDX-License-Identifier: MIT */
/*
 * GET /metrics and nothing else, over TCP or a UNIX socket. One thread serves a few connections at
 * a time, and none of them that is silent for long, or asks nothing for long though it sends a byte
 * now and then: metrics_serve_look() ends those.
 */
#include "metrics_http.h"

#include <errno.h>
#include <limits.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define CONNECTIONS	16U
#define TIMEOUT_SECONDS 10U
#define MEMORY_BYTES	((size_t)16 << 10) /* of a connection: more of a request is refused */

/* A connection, from when it began until it is closed. */
struct asker {
	int fd; /* -1: free */
	uint64_t since_us;
};

struct metrics_server {
	pthread_mutex_t lock; /* of the askers */
	struct asker askers[CONNECTIONS];
	struct metrics *metrics;
	struct MHD_Daemon *daemon;
	struct sockaddr_un path; /* sun_path "" for TCP */
	char address[NI_MAXHOST + NI_MAXSERV + 8];
};

/* ---- requests ---- */

static enum MHD_Result reply(struct MHD_Connection *connection, unsigned int status,
			     const char *type, char *text, size_t size, bool ours)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		size, text, ours ? MHD_RESPMEM_MUST_FREE : MHD_RESPMEM_PERSISTENT);
	enum MHD_Result result;

	if (!response) {
		if (ours)
			free(text);
		return MHD_NO;
	}
	(void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
		(void)MHD_add_response_header(response, MHD_HTTP_HEADER_ALLOW, "GET");
	result = MHD_queue_response(connection, status, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned int status, char *text)
{
	return reply(connection, status, "text/plain; charset=utf-8", text, strlen(text), false);
}

static enum MHD_Result answer(void *ctx, struct MHD_Connection *connection, const char *url,
			      const char *method, const char *version, const char *upload,
			      size_t *upload_size, void **request)
{
	static char only_get[] = "only GET is served\n", only_metrics[] = "see /metrics\n",
		    no_body[] = "a request has no body here\n", no_memory[] = "out of memory\n";
	struct metrics_server *server = ctx;
	size_t size = 0;
	char *text;

	(void)version;
	(void)upload;
	(void)upload_size;
	if (!*request) {
		/* A refusal before its body was read ends the connection. */
		if (strcmp(method, MHD_HTTP_METHOD_GET) != 0)
			return refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, only_get);
		if (MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
						MHD_HTTP_HEADER_CONTENT_LENGTH) ||
		    MHD_lookup_connection_value(connection, MHD_HEADER_KIND,
						MHD_HTTP_HEADER_TRANSFER_ENCODING))
			return refuse(connection, MHD_HTTP_BAD_REQUEST, no_body);
		*request = server;
		return MHD_YES;
	}
	if (strcmp(url, "/metrics") != 0)
		return refuse(connection, MHD_HTTP_NOT_FOUND, only_metrics);
	text = metrics_text(server->metrics, &size);
	if (!text)
		return refuse(connection, MHD_HTTP_INTERNAL_SERVER_ERROR, no_memory);
	return reply(connection, MHD_HTTP_OK,
		     "application/openmetrics-text; version=1.0.0; charset=utf-8", text, size,
		     true);
}

/* ---- who asks nothing ---- */

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

/* It begins, or has gone; the server closes it after that. */
static void on_connection(void *ctx, struct MHD_Connection *connection, void **place,
			  enum MHD_ConnectionNotificationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct metrics_server *server = ctx;
	struct asker *asker = *place;
	uint32_t i;

	pthread_mutex_lock(&server->lock);
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		for (i = 0; i < CONNECTIONS && info && !asker; i++)
			if (server->askers[i].fd < 0) {
				asker = &server->askers[i];
				*asker = (struct asker){info->connect_fd, now_us()};
				*place = asker;
			}
	if (code == MHD_CONNECTION_NOTIFY_CLOSED && asker)
		asker->fd = -1;
	pthread_mutex_unlock(&server->lock);
}

static void on_completed(void *ctx, struct MHD_Connection *connection, void **request,
			 enum MHD_RequestTerminationCode code)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct asker *asker = info ? info->socket_context : NULL;
	struct metrics_server *server = ctx;

	(void)request;
	(void)code;
	if (!asker)
		return;
	pthread_mutex_lock(&server->lock);
	asker->since_us = now_us();
	pthread_mutex_unlock(&server->lock);
}

void metrics_serve_look(struct metrics_server *server, uint32_t patience_ms)
{
	uint64_t now = now_us();
	uint32_t i;

	pthread_mutex_lock(&server->lock);
	for (i = 0; i < CONNECTIONS; i++)
		if (server->askers[i].fd >= 0 &&
		    now - server->askers[i].since_us > patience_ms * 1000ULL)
			(void)shutdown(server->askers[i].fd, SHUT_RDWR);
	pthread_mutex_unlock(&server->lock);
}

/* ---- addresses ---- */

static int fail(struct qsc_error *err, int number, const char *address)
{
	return qsc_error_set(err, number, NULL, "metrics cannot be served at '%s' (%s)", address,
			     number == EINVAL ? "an address is PORT, HOST:PORT or unix:PATH"
					      : strerrordesc_np(number));
}

/* Whether a process of before has left this socket: nobody listens. A file answers as that does. */
static bool is_stale(const struct sockaddr_un *path)
{
	struct stat st;
	bool stale;
	int fd;

	if (lstat(path->sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
		return false;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return false;
	stale = connect(fd, (const struct sockaddr *)path, sizeof(*path)) < 0 &&
		errno == ECONNREFUSED;
	close(fd);
	return stale;
}

static int listen_unix(struct metrics_server *server, const char *path)
{
	const struct sockaddr *address = (const struct sockaddr *)&server->path;
	int fd, result;

	if (!*path)
		return -EINVAL;
	if (strlen(path) >= sizeof(server->path.sun_path))
		return -ENAMETOOLONG;
	server->path.sun_family = AF_UNIX;
	(void)snprintf(server->path.sun_path, sizeof(server->path.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* The file takes the rights of the socket that makes it. */
	result = fchmod(fd, 0600);
	if (result == 0)
		result = bind(fd, address, sizeof(server->path));
	if (result < 0 && errno == EADDRINUSE && is_stale(&server->path) && unlink(path) == 0)
		result = bind(fd, address, sizeof(server->path));
	if (result == 0)
		result = listen(fd, (int)CONNECTIONS);
	if (result == 0)
		return fd;
	result = -errno;
	close(fd);
	/* Another's. */
	server->path.sun_path[0] = 0;
	return result;
}

/* "HOST:PORT", "[HOST]:PORT" or "PORT". */
static int split_address(const char *address, char host[NI_MAXHOST], char port[NI_MAXSERV])
{
	const char *colon = strrchr(address, ':');
	size_t length = colon ? (size_t)(colon - address) : 0;

	if (snprintf(port, NI_MAXSERV, "%s", colon ? colon + 1 : address) >= NI_MAXSERV ||
	    length >= NI_MAXHOST || !*port || port[strspn(port, "0123456789")] ||
	    strtoul(port, NULL, 10) > 65535)
		return -EINVAL;
	(void)snprintf(host, NI_MAXHOST, "%.*s", (int)length, address);
	if (length > 1 && host[0] == '[' && host[length - 1] == ']') {
		memmove(host, host + 1, length - 2);
		host[length - 2] = 0;
	} else if (strchr(host, ':')) {
		return -EINVAL;
	}
	if (!colon)
		(void)snprintf(host, NI_MAXHOST, "127.0.0.1");
	return *host ? 0 : -EINVAL;
}

static int bind_tcp(const struct addrinfo *info)
{
	const int on = 1;
	int fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), result;

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (bind(fd, info->ai_addr, info->ai_addrlen) == 0 && listen(fd, (int)CONNECTIONS) == 0)
		return fd;
	result = -errno;
	close(fd);
	return result;
}

static int listen_tcp(struct metrics_server *server, const char *address)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	char host[NI_MAXHOST], port[NI_MAXSERV];
	struct sockaddr_storage bound;
	socklen_t size = sizeof(bound);
	struct addrinfo *info;
	int fd;

	if (split_address(address, host, port) < 0)
		return -EINVAL;
	if (getaddrinfo(host, port, &hints, &info) != 0)
		return -EADDRNOTAVAIL;
	fd = bind_tcp(info);
	freeaddrinfo(info);
	if (fd < 0)
		return fd;
	if (getsockname(fd, (struct sockaddr *)&bound, &size) == 0 &&
	    getnameinfo((struct sockaddr *)&bound, size, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV) == 0)
		(void)snprintf(server->address, sizeof(server->address),
			       strchr(host, ':') ? "[%s]:%s" : "%s:%s", host, port);
	return fd;
}

/* ---- the server ---- */

int metrics_serve(const char *address, struct metrics *metrics, struct metrics_server **out,
		  struct qsc_error *err)
{
	struct metrics_server *server = calloc(1, sizeof(*server));
	int fd;

	if (!server)
		return fail(err, ENOMEM, address);
	pthread_mutex_init(&server->lock, NULL);
	for (uint32_t i = 0; i < CONNECTIONS; i++)
		server->askers[i].fd = -1;
	server->metrics = metrics;
	(void)snprintf(server->address, sizeof(server->address), "%s", address);
	fd = strncmp(address, "unix:", 5) == 0 ? listen_unix(server, address + 5)
					       : listen_tcp(server, address);
	if (fd >= 0) {
		server->daemon = MHD_start_daemon(
			/* Full, it looks at the listener no more, and must be woken to stop. */
			MHD_USE_AUTO_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, answer, server,
			MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS,
			MHD_OPTION_CONNECTION_TIMEOUT, TIMEOUT_SECONDS,
			MHD_OPTION_CONNECTION_MEMORY_LIMIT, MEMORY_BYTES,
			MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
			MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_END);
		if (!server->daemon)
			close(fd);
	}
	if (!server->daemon) {
		metrics_serve_end(server);
		return fail(err, fd < 0 ? -fd : ENOMEM, address);
	}
	*out = server;
	return 0;
}

void metrics_serve_end(struct metrics_server *server)
{
	if (!server)
		return;
	/* Also closes the socket that it was given. */
	if (server->daemon)
		MHD_stop_daemon(server->daemon);
	if (server->path.sun_path[0])
		(void)unlink(server->path.sun_path);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

const char *metrics_serve_address(const struct metrics_server *server)
{
	return server->address;
}
