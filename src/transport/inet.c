/* SPDX-License-Identifier: MIT */
/*
 * The transports over TCP: names and addresses, connecting to whichever of a host's addresses
 * answers, listening on all of them. Each channel is a connection of its own. With TLS the
 * connection is protected before anything is said on it.
 */
#include "transport/inet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/listener.h"
#include "transport/tls.h"

#define BACKLOG		 64
#define BIND_TRIES	 16 /* for a free port that all of a host's addresses have free */
#define KEEPALIVE_IDLE_S 15
#define KEEPALIVE_STEP_S 5
#define KEEPALIVE_PROBES 3

/* ---- names ---- */

struct place {
	char host[256]; /* "": any address of this host */
	char port[6];
};

static int not_a_place(const char *where, const char *why, struct qsc_error *err)
{
	return qsc_error_set(err, EINVAL, NULL,
			     "'%.128s' is no HOST:PORT: %s (examples: host.example:4444, "
			     "192.0.2.1:4444, [2001:db8::1]:4444)",
			     where, why);
}

static int parse_place(const char *where, bool listening, struct place *place,
		       struct qsc_error *err)
{
	const char *colon = strrchr(where, ':');
	const char *host = where;
	size_t size = colon ? (size_t)(colon - where) : 0;
	size_t digits = colon ? strspn(colon + 1, "0123456789") : 0;

	if (!colon)
		return not_a_place(where, "it has no port", err);
	if (!digits || digits > 5 || colon[1 + digits] || atoi(colon + 1) > 65535)
		return not_a_place(where, "the port must be a number up to 65535", err);
	if (!listening && atoi(colon + 1) == 0)
		return not_a_place(where, "only who listens may leave the port open", err);
	if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
		host++;
		size -= 2;
	} else if (memchr(host, ':', size)) {
		return not_a_place(where, "an IPv6 address stands in brackets", err);
	}
	if (!size && (!listening || colon != where))
		return not_a_place(where, "it has no host", err);
	if (size >= sizeof(place->host))
		return not_a_place(where, "the host's name is too long", err);
	memcpy(place->host, host, size);
	place->host[size] = '\0';
	(void)snprintf(place->port, sizeof(place->port), "%s", colon + 1);
	return 0;
}

static int resolve(const struct place *place, bool listening, struct addrinfo **list,
		   struct qsc_error *err)
{
	const struct addrinfo hints = {
		.ai_family = AF_UNSPEC,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_NUMERICSERV | (listening ? AI_PASSIVE : 0),
	};
	int result = getaddrinfo(*place->host ? place->host : NULL, place->port, &hints, list);
	const char *why = result == EAI_SYSTEM ? strerrordesc_np(errno) : gai_strerror(result);

	if (result == 0)
		return 0;
	return qsc_error_set(err, result == EAI_MEMORY ? ENOMEM : EADDRNOTAVAIL, NULL,
			     "no address for the host '%s' (%s)", place->host, why);
}

static void address_text(const struct sockaddr *address, socklen_t size,
			 char text[QSC_SOCKET_MAX_NAME])
{
	char host[256] = "";
	char port[NI_MAXSERV] = "";

	if (getnameinfo(address, size, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		(void)snprintf(text, QSC_SOCKET_MAX_NAME, "an unknown address");
	else
		(void)snprintf(text, QSC_SOCKET_MAX_NAME, strchr(host, ':') ? "[%s]:%s" : "%s:%s",
			       host, port);
}

void qsc_inet_peer_name(int fd, char name[QSC_SOCKET_MAX_NAME])
{
	struct sockaddr_storage address = {.ss_family = AF_UNSPEC};
	socklen_t size = sizeof(address);

	if (getpeername(fd, (struct sockaddr *)&address, &size) < 0)
		(void)snprintf(name, QSC_SOCKET_MAX_NAME, "one who has gone");
	else if (address.ss_family == AF_UNIX)
		(void)snprintf(name, QSC_SOCKET_MAX_NAME, "a process of this host");
	else
		address_text((const struct sockaddr *)&address, size, name);
}

void qsc_inet_tune(int fd)
{
	const int yes = 1;
	const int idle = KEEPALIVE_IDLE_S;
	const int step = KEEPALIVE_STEP_S;
	const int probes = KEEPALIVE_PROBES;

	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	/* A cut link shows also to who waits without a limit. */
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof(yes));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &step, sizeof(step));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
}

/* ---- connecting ---- */

struct connector {
	struct qsc_transport base;
	struct place place;
	struct addrinfo *list;
	const struct addrinfo *first;  /* to try: the one that answered last time */
	struct qsc_tls *tls;	       /* NULL: plain */
	const struct qsc_watch *watch; /* borrowed; or NULL */
};

/* A connected socket, or -errno. */
static int connect_address(const struct addrinfo *address, uint64_t deadline_us,
			   const struct qsc_watch *watch)
{
	qsc_autoclose int fd = socket(address->ai_family,
				      SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = sizeof(int);
	int number = 0;
	int result;

	if (fd < 0)
		return -errno;
	qsc_inet_tune(fd);
	if (connect(fd, address->ai_addr, address->ai_addrlen) < 0) {
		if (errno != EINPROGRESS && errno != EINTR)
			return -errno;
		result = qsc_socket_wait(fd, POLLOUT, 0, deadline_us, watch);
		if (result < 0)
			return result;
		if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) < 0 || number)
			return number ? -number : -errno;
	}
	return qsc_fd_steal(&fd);
}

/* Each address gets an equal share of what time is left, so that a dead one leaves some. */
static int connect_any(struct connector *connector, uint64_t deadline_us)
{
	const struct addrinfo *address = connector->first;
	const struct addrinfo *i;
	uint64_t left = 0;
	int fd = -EADDRNOTAVAIL;

	for (i = connector->list; i; i = i->ai_next)
		left++;
	for (; left; left--) {
		uint64_t now = qsc_socket_now_us();
		uint64_t end = deadline_us > now ? now + (deadline_us - now) / left : now;

		fd = connect_address(address, deadline_us ? end : 0, connector->watch);
		if (fd >= 0)
			connector->first = address;
		if (fd >= 0 || fd == -ECANCELED)
			return fd;
		address = address->ai_next ? address->ai_next : connector->list;
	}
	return fd;
}

static int connector_open(struct qsc_transport *transport, uint32_t timeout_ms,
			  struct qsc_channel **ch, struct qsc_error *err)
{
	struct connector *connector = qsc_container_of(transport, struct connector, base);
	uint64_t deadline_us = timeout_ms ? qsc_socket_now_us() + timeout_ms * 1000ULL : 0;
	int fd = connect_any(connector, deadline_us);
	struct qsc_socket *socket;
	int result;

	if (fd == -ECANCELED)
		return qsc_error_set(err, ECANCELED, NULL, "cancelled while connecting");
	if (fd < 0)
		return qsc_error_set(err, -fd, NULL,
				     "cannot connect to the destination at %s port %s (%s): is it "
				     "waiting for a migration?",
				     connector->place.host, connector->place.port,
				     strerrordesc_np(-fd));
	socket = connector->tls ? qsc_tls_socket_create(connector->tls, fd, connector->place.host)
				: qsc_socket_create(fd);
	if (!socket)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a channel");
	socket->deadline_us = deadline_us;
	socket->watch = connector->watch;
	result = qsc_socket_greet(socket, err);
	if (result < 0) {
		qsc_error_prefix(err, "the destination at %s port %s cannot be used: ",
				 connector->place.host, connector->place.port);
		qsc_socket_close(socket);
		return result;
	}
	socket->deadline_us = 0;
	*ch = &socket->base;
	return 0;
}

static void connector_set_watch(struct qsc_transport *transport, const struct qsc_watch *watch)
{
	qsc_container_of(transport, struct connector, base)->watch = watch;
}

static void connector_close(struct qsc_transport *transport)
{
	struct connector *connector = qsc_container_of(transport, struct connector, base);

	if (connector->list)
		freeaddrinfo(connector->list);
	qsc_tls_put(connector->tls);
	free(connector);
}

static const struct qsc_transport_ops tcp_ops = {
	.name = "tcp",
	.open = connector_open,
	.close = connector_close,
	.set_watch = connector_set_watch,
};

static const struct qsc_transport_ops tls_ops = {
	.name = "tls",
	.open = connector_open,
	.close = connector_close,
	.set_watch = connector_set_watch,
};

int qsc_inet_connect(const char *where, struct qsc_tls *tls, struct qsc_transport **transport,
		     struct qsc_error *err)
{
	struct connector *connector = calloc(1, sizeof(*connector));
	int result;

	if (!connector) {
		qsc_tls_put(tls);
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	}
	connector->base.ops = tls ? &tls_ops : &tcp_ops;
	connector->tls = tls;
	result = parse_place(where, false, &connector->place, err);
	if (result == 0)
		result = resolve(&connector->place, false, &connector->list, err);
	if (result < 0) {
		connector_close(&connector->base);
		return result;
	}
	connector->first = connector->list;
	*transport = &connector->base;
	return 0;
}

/* ---- listening ---- */

static void set_port(struct sockaddr *address, uint16_t port)
{
	if (address->sa_family == AF_INET6)
		((struct sockaddr_in6 *)address)->sin6_port = port;
	else
		((struct sockaddr_in *)address)->sin_port = port;
}

static uint16_t get_port(const struct sockaddr_storage *address)
{
	/* NOLINTNEXTLINE(clang-analyzer-core.uninitialized.UndefReturn): getsockname() wrote it. */
	return address->ss_family == AF_INET6 ? ((const struct sockaddr_in6 *)address)->sin6_port
					      : ((const struct sockaddr_in *)address)->sin_port;
}

/* A listening socket, or -errno. *bound becomes where. */
static int listen_address(const struct addrinfo *address, struct sockaddr_storage *bound,
			  socklen_t *bound_size)
{
	qsc_autoclose int fd = socket(address->ai_family,
				      SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	const int yes = 1;

	if (fd < 0)
		return -errno;
	/* What is left of an earlier migration's connections is no reason to refuse. */
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
	/* IPv4 has a socket of its own. */
	if (address->ai_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &yes, sizeof(yes));
	*bound_size = sizeof(*bound);
	if (bind(fd, address->ai_addr, address->ai_addrlen) < 0 || listen(fd, BACKLOG) < 0 ||
	    getsockname(fd, (struct sockaddr *)bound, bound_size) < 0)
		return -errno;
	return qsc_fd_steal(&fd);
}

/* A host may be listed twice with the same address. */
static bool is_repeated(const struct addrinfo *list, const struct addrinfo *address)
{
	const struct addrinfo *i;

	for (i = list; i != address; i = i->ai_next)
		if (i->ai_addrlen == address->ai_addrlen &&
		    !memcmp(i->ai_addr, address->ai_addr, i->ai_addrlen))
			return true;
	return false;
}

/* On all addresses, those aside that this host has not (a protocol that is switched off). */
static int listen_all(struct qsc_listener *listener, struct addrinfo *list)
{
	struct sockaddr_storage bound = {.ss_family = AF_UNSPEC};
	int result = -EADDRNOTAVAIL;
	struct addrinfo *address;
	uint16_t port = 0;
	socklen_t size = 0;
	int fd;

	for (address = list; address && listener->num_fds < QSC_LISTENER_MAX_FDS;
	     address = address->ai_next) {
		if (port)
			set_port(address->ai_addr, port);
		if (is_repeated(list, address))
			continue;
		fd = listen_address(address, &bound, &size);
		if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL)
			continue;
		if (fd < 0)
			return fd;
		if (!listener->num_fds)
			address_text((const struct sockaddr *)&bound, size, listener->address);
		listener->fds[listener->num_fds++] = fd;
		port = get_port(&bound);
		set_port(address->ai_addr, port);
		result = 0;
	}
	return result;
}

static int start_listening(struct qsc_listener *listener, const struct place *place,
			   struct qsc_error *err)
{
	const bool any_port = atoi(place->port) == 0;
	struct addrinfo *list = NULL;
	int tries = any_port ? BIND_TRIES : 1;
	int result;

	do {
		while (listener->num_fds)
			qsc_fd_close(&listener->fds[--listener->num_fds]);
		result = resolve(place, true, &list, err);
		if (result < 0)
			return result;
		result = listen_all(listener, list);
		freeaddrinfo(list);
	} while (result == -EADDRINUSE && --tries);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot listen at %s port %s (%s)",
				     *place->host ? place->host : "any address", place->port,
				     strerrordesc_np(-result));
	return 0;
}

int qsc_inet_listen(const char *where, struct qsc_tls *tls, struct qsc_transport **transport,
		    struct qsc_error *err)
{
	struct qsc_listener *listener = qsc_listener_create(tls ? "tls" : "tcp");
	struct place place = {.host = ""};
	int result;

	if (!listener) {
		qsc_tls_put(tls);
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	}
	listener->tls = tls;
	result = parse_place(where, true, &place, err);
	if (result == 0)
		result = start_listening(listener, &place, err);
	if (result < 0) {
		qsc_transport_close(&listener->base);
		return result;
	}
	*transport = &listener->base;
	return 0;
}
