/* SPDX-License-Identifier: MIT */
/*
 * The listening socket and the threads of its connections. When as many connections as may be are
 * open, the oldest that has not finished its handshake makes room, so that clients that connect and
 * say nothing keep nobody out. It has had some time for it then: until that is over, who comes next
 * waits in the socket's queue, so that a flood of them throws no honest one out either.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <quiesce/server.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "server/connection.h"

/* What a handshake may take while others wait for the place. */
#define GRACE_US 100000U

struct worker {
	struct qsc_server *server;
	struct qsc_connection *connection;
	struct worker *next; /* newest first */
	uint64_t since_us;
	bool established;
	bool evicted;
};

struct qsc_server {
	struct qsc_server_options options;
	struct sockaddr_un address;
	dev_t dev; /* of the socket file: only our own is removed */
	ino_t ino;
	int listener;
	int stop;  /* eventfd */
	int ended; /* eventfd: a connection made room */
	pthread_mutex_t lock;
	pthread_cond_t gone;
	struct worker *workers;
	uint32_t num_workers;
};

static int set_address(const char *path, struct sockaddr_un *address, struct qsc_error *err)
{
	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (!*path || strlen(path) >= sizeof(address->sun_path))
		return qsc_error_set(err, EINVAL, NULL,
				     "server: a socket path must have 1 to %zu bytes: \"%s\"",
				     sizeof(address->sun_path) - 1, path);
	memcpy(address->sun_path, path, strlen(path));
	return 0;
}

/* A socket file that nobody listens behind is removed: 0; else what is there, or in the way. */
static int remove_stale(const struct sockaddr_un *address)
{
	qsc_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	if (connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0)
		return -EADDRINUSE;
	if (errno != ECONNREFUSED)
		return errno == EACCES ? -EACCES : -EADDRINUSE;
	return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
}

static int bind_at(int fd, const struct sockaddr_un *address)
{
	return bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0 ? -errno : 0;
}

static int cannot_listen(struct qsc_error *err, const char *path, int number)
{
	const char *advice = "";

	if (number == EADDRINUSE)
		return qsc_error_set(err, number, NULL,
				     "server: another server listens at %s; end it or choose "
				     "another path",
				     path);
	if (number == ENOTSOCK)
		return qsc_error_set(err, number, NULL,
				     "server: %s exists and is no socket; choose another path",
				     path);
	if (number == ENOENT)
		advice = "; create its folder first";
	else if (number == EACCES)
		advice = "; check the permissions of its folder, and of it if it exists";
	return qsc_error_set(err, number, NULL, "server: cannot listen at %s: %s%s", path,
			     strerror(number), advice);
}

static int listen_at(struct qsc_server *server, const char *path, struct qsc_error *err)
{
	struct stat st;
	int result = set_address(path, &server->address, err);

	if (result < 0)
		return result;
	server->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (server->listener < 0)
		return qsc_error_set(err, errno, NULL, "server: no socket: %s", strerror(errno));
	result = bind_at(server->listener, &server->address);
	if (result == -EADDRINUSE) {
		result = remove_stale(&server->address);
		if (!result)
			result = bind_at(server->listener, &server->address);
	}
	if (result < 0)
		return cannot_listen(err, path, -result);
	if (stat(path, &st) == 0) {
		server->dev = st.st_dev;
		server->ino = st.st_ino;
	}
	if (listen(server->listener, SOMAXCONN) < 0)
		return cannot_listen(err, path, errno);
	return 0;
}

int qsc_server_create(const char *path, const struct qsc_server_options *options,
		      struct qsc_server **out, struct qsc_error *err)
{
	struct qsc_server *server = calloc(1, sizeof(*server));
	int result;

	if (!server)
		return qsc_error_set(err, ENOMEM, NULL, "server: out of memory");
	server->listener = -1;
	server->ended = -1;
	pthread_mutex_init(&server->lock, NULL);
	pthread_cond_init(&server->gone, NULL);
	server->stop = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->stop >= 0)
		server->ended = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->ended < 0) {
		result = qsc_error_set(err, errno, NULL, "server: no eventfd: %s", strerror(errno));
		goto fail;
	}
	result = qsc_server_resolve(options, &server->options, err);
	if (!result)
		result = listen_at(server, path, err);
	if (result < 0)
		goto fail;
	*out = server;
	return 0;
fail:
	qsc_server_destroy(server);
	return result;
}

void qsc_server_destroy(struct qsc_server *server)
{
	struct stat st;

	if (!server)
		return;
	if (server->ino && stat(server->address.sun_path, &st) == 0 && st.st_dev == server->dev &&
	    st.st_ino == server->ino)
		(void)unlink(server->address.sun_path);
	qsc_fd_close(&server->listener);
	qsc_fd_close(&server->stop);
	qsc_fd_close(&server->ended);
	pthread_cond_destroy(&server->gone);
	pthread_mutex_destroy(&server->lock);
	free(server);
}

void qsc_server_stop(struct qsc_server *server)
{
	(void)qsc_eventfd_signal(server->stop, 1);
}

static void on_established(void *ctx)
{
	struct worker *worker = ctx;

	pthread_mutex_lock(&worker->server->lock);
	worker->established = true;
	pthread_mutex_unlock(&worker->server->lock);
}

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct qsc_server *server = worker->server;
	struct worker **at;
	bool held = qsc_connection_run(worker->connection, on_established, worker);

	pthread_mutex_lock(&server->lock);
	for (at = &server->workers; *at != worker; at = &(*at)->next)
		;
	*at = worker->next;
	pthread_mutex_unlock(&server->lock);
	qsc_connection_destroy(worker->connection);
	free(worker);
	if (held && server->options.once)
		qsc_server_stop(server);
	/* The last touch of the server: it may be destroyed as soon as the lock is free. */
	pthread_mutex_lock(&server->lock);
	server->num_workers--;
	(void)qsc_eventfd_signal(server->ended, 1);
	pthread_cond_signal(&server->gone);
	pthread_mutex_unlock(&server->lock);
	return NULL;
}

/* Lock held. The oldest connection that has not finished its handshake, or NULL. */
static struct worker *oldest_unfinished(struct qsc_server *server)
{
	struct worker *oldest = NULL;
	struct worker *worker;

	for (worker = server->workers; worker; worker = worker->next)
		if (!worker->established && !worker->evicted)
			oldest = worker;
	return oldest;
}

/*
 * Make room for one connection: 0, the time in ms after which to ask again, or -EBUSY when all that
 * there are have a right to stay.
 */
static int make_room(struct qsc_server *server)
{
	struct worker *oldest;
	uint64_t age_us;
	int result = 0;

	pthread_mutex_lock(&server->lock);
	if (server->num_workers >= server->options.max_connections) {
		oldest = oldest_unfinished(server);
		age_us = oldest ? qsc_rpc_now_us() - oldest->since_us : 0;
		if (!oldest) {
			result = -EBUSY;
		} else if (age_us < GRACE_US) {
			result = (int)((GRACE_US - age_us + 999) / 1000);
		} else {
			oldest->evicted = true;
			qsc_connection_shutdown(oldest->connection);
		}
	}
	pthread_mutex_unlock(&server->lock);
	return result;
}

/* Signals are for the program's own threads. */
static int start_thread(struct worker *worker)
{
	pthread_attr_t attr;
	pthread_t thread;
	sigset_t all;
	sigset_t before;
	int result;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	sigfillset(&all);
	/* A fault in a guarded mapping must reach its handler. */
	sigdelset(&all, SIGBUS);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	result = pthread_create(&thread, &attr, work, worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attr);
	return -result;
}

static int start_worker(struct qsc_server *server, int fd)
{
	qsc_autofree struct worker *worker = calloc(1, sizeof(*worker));
	int result;

	if (!worker) {
		qsc_fd_close(&fd);
		return -ENOMEM;
	}
	worker->server = server;
	worker->since_us = qsc_rpc_now_us();
	result = qsc_connection_create(&server->options, fd, &worker->connection);
	if (result < 0)
		return result;
	pthread_mutex_lock(&server->lock);
	worker->next = server->workers;
	server->workers = worker;
	server->num_workers++;
	result = start_thread(worker);
	if (result < 0) {
		server->workers = worker->next;
		server->num_workers--;
	}
	pthread_mutex_unlock(&server->lock);
	if (result < 0)
		qsc_connection_destroy(worker->connection);
	else
		worker = NULL;
	return result;
}

/* Take a connection over, or refuse it for the reason given. */
static void admit(struct qsc_server *server, int fd, int refusal)
{
	int result = refusal;

	if (refusal < 0)
		qsc_fd_close(&fd);
	else
		result = start_worker(server, fd);
	if (result < 0)
		qsc_log(QSC_LOG_WARNING, "vfio-user: a connection was refused: %s",
			strerror(-result));
}

static void end_all(struct qsc_server *server)
{
	struct worker *worker;

	pthread_mutex_lock(&server->lock);
	for (worker = server->workers; worker; worker = worker->next)
		qsc_connection_shutdown(worker->connection);
	while (server->num_workers)
		pthread_cond_wait(&server->gone, &server->lock);
	pthread_mutex_unlock(&server->lock);
}

int qsc_server_run(struct qsc_server *server)
{
	struct pollfd fds[3] = {{.fd = server->listener, .events = POLLIN},
				{.fd = server->stop, .events = POLLIN},
				{.fd = server->ended, .events = POLLIN}};
	int result = 0;

	while (!result) {
		int room;
		int fd;

		if (poll(fds, 2, -1) < 0) {
			if (errno != EINTR)
				result = -errno;
			continue;
		}
		if (fds[1].revents)
			break;
		room = make_room(server);
		if (room > 0) {
			poll(fds + 1, 2, room);
			(void)qsc_eventfd_drain(server->ended);
			continue;
		}
		fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd >= 0)
			admit(server, fd, room);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			/* It stays in the queue; look again when something may be free. */
			poll(fds + 1, 1, 100);
		else if (errno != EINTR && errno != EAGAIN && errno != ECONNABORTED)
			result = -errno;
	}
	end_all(server);
	(void)qsc_eventfd_drain(server->stop);
	return result;
}
