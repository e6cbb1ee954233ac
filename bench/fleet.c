/* SPDX-License-Identifier: MIT */
/* Many idle devices in one set, in this process or behind a server; see bench.h. */
#include "bench.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <quiesce/client.h>
#include <quiesce/server.h>

#define PATTERN 0x5a

static void reset(void *ctx)
{
}

static const struct qsc_model idle_model = {
	.type = "idle",
	.pci = {.vendor = 0x5143, .device = 0x1d7e, .class_code = 0x088000},
	.reset = reset,
};

static int open_idle(uint64_t state, bool filled, struct qsc_device **dev, struct qsc_runtime **rt,
		     struct qsc_error *err)
{
	const struct qsc_block_desc block = {.name = "state", .size = state};
	const struct qsc_runtime_options options = {
		.migration_flags = QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P |
				   QSC_MIGRATION_PRE_COPY,
		.blocks = &block,
		.num_blocks = state ? 1 : 0,
		.destroy_on_close = true,
	};
	int ret = qsc_runtime_create(&idle_model, NULL, &options, rt, err);

	if (ret)
		return ret;
	if (filled && state) {
		/* Zeroes are not worth sending. */
		memset(qsc_block_data(*rt, 0), PATTERN, state);
		qsc_block_dirty(*rt, 0, 0, state);
	}
	ret = qsc_runtime_open(*rt, dev);
	if (ret)
		qsc_runtime_destroy(*rt);
	return ret;
}

static void make_set(struct bench_fleet *fleet, size_t count, uint64_t state)
{
	*fleet = (struct bench_fleet){.count = count, .state = state};
	fleet->devs = calloc(count, sizeof(struct qsc_device *));
	fleet->rts = calloc(count, sizeof(struct qsc_runtime *));
	if (!fleet->devs || !fleet->rts || qsc_set_create(NULL, NULL, &fleet->set))
		bench_die("no memory for a set of devices", ENOMEM);
}

static void add(struct bench_fleet *fleet, size_t i)
{
	struct qsc_error err = QSC_ERROR_NONE;
	char name[32];
	int ret;

	snprintf(name, sizeof(name), "idle%zu", i);
	ret = qsc_set_add(fleet->set, name, fleet->devs[i], &err);
	if (ret < 0)
		bench_die(err.text, ret);
}

void bench_fleet_open(struct bench_fleet *fleet, size_t count, uint64_t state, bool filled)
{
	struct qsc_error err = QSC_ERROR_NONE;

	make_set(fleet, count, state);
	for (size_t i = 0; i < count; i++) {
		int ret = open_idle(state, filled, &fleet->devs[i], &fleet->rts[i], &err);

		if (ret)
			bench_die(err.text, ret);
		add(fleet, i);
	}
}

bool bench_fleet_filled(const struct bench_fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++) {
		const uint8_t *data = qsc_block_data(fleet->rts[i], 0);

		if (data[0] != PATTERN || memcmp(data, data + 1, fleet->state - 1) != 0)
			return false;
	}
	return true;
}

/* ---- one process with a thread for each of many connections ---- */

struct connection {
	pthread_t thread;
	int fd;
	uint64_t state;
};

typedef void *serve_fn(void *connection);

static void serve_all(serve_fn *serve, const int *fds, size_t count, uint64_t state)
{
	struct connection *connections = calloc(count, sizeof(*connections));

	if (!connections)
		bench_die("no memory to serve many connections", ENOMEM);
	for (size_t i = 0; i < count; i++) {
		connections[i] = (struct connection){.fd = fds[i], .state = state};
		if (pthread_create(&connections[i].thread, NULL, serve, &connections[i]))
			bench_die("no thread to serve a connection", EAGAIN);
	}
	for (size_t i = 0; i < count; i++)
		pthread_join(connections[i].thread, NULL);
	free(connections);
}

/* The process, and this side's ends in `here`. */
static pid_t start_server(serve_fn *serve, int *here, size_t count, uint64_t state)
{
	int *there = calloc(count, sizeof(int));
	pid_t pid;
	int fds[2];

	if (!there)
		bench_die("no memory for many connections", ENOMEM);
	for (size_t i = 0; i < count; i++) {
		if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
			bench_die("cannot make a socket", errno);
		here[i] = fds[0];
		there[i] = fds[1];
	}
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		bench_die("cannot start a process", errno);
	for (size_t i = 0; i < count; i++)
		close(pid ? there[i] : here[i]);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		serve_all(serve, there, count, state);
		_exit(0);
	}
	free(there);
	return pid;
}

/* ---- devices behind it ---- */

static int open_served(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_runtime *rt;

	return open_idle(*(const uint64_t *)ctx, false, dev, &rt, err);
}

static void *serve_device(void *arg)
{
	struct connection *connection = arg;
	const struct qsc_server_options options = {
		.open = open_served,
		.open_ctx = &connection->state,
	};

	(void)qsc_server_serve_fd(&options, connection->fd);
	return NULL;
}

void bench_fleet_connect(struct bench_fleet *fleet, size_t count, uint64_t state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	int *here = calloc(count, sizeof(int));

	make_set(fleet, count, state);
	if (!here)
		bench_die("no memory for a set of devices", ENOMEM);
	fleet->server = start_server(serve_device, here, count, state);
	for (size_t i = 0; i < count; i++) {
		int ret = qsc_client_open_fd(here[i], NULL, &fleet->devs[i], &err);

		if (ret)
			bench_die(err.text, ret);
		add(fleet, i);
	}
	free(here);
}

/* ---- nothing behind it ---- */

/* What a request for a state and its answer are long, and more. */
#define BARE_SIZE 40

static void *serve_bare(void *arg)
{
	const struct connection *connection = arg;
	char message[BARE_SIZE];

	while (recv(connection->fd, message, sizeof(message), MSG_WAITALL) == sizeof(message))
		if (send(connection->fd, message, sizeof(message), MSG_NOSIGNAL) < 0)
			break;
	return NULL;
}

void bench_bare_fleet_open(struct bench_bare_fleet *fleet, size_t count)
{
	*fleet = (struct bench_bare_fleet){.count = count, .fds = calloc(count, sizeof(int))};
	if (!fleet->fds)
		bench_die("no memory for many connections", ENOMEM);
	fleet->server = start_server(serve_bare, fleet->fds, count, 0);
}

void bench_bare_fleet_ask(const struct bench_bare_fleet *fleet)
{
	char message[BARE_SIZE] = {0};

	for (size_t i = 0; i < fleet->count; i++)
		if (send(fleet->fds[i], message, sizeof(message), MSG_NOSIGNAL) < 0)
			bench_die("a bare peer is gone", errno);
	for (size_t i = 0; i < fleet->count; i++)
		if (recv(fleet->fds[i], message, sizeof(message), MSG_WAITALL) < 0)
			bench_die("a bare peer is gone", errno);
}

void bench_bare_fleet_close(struct bench_bare_fleet *fleet)
{
	for (size_t i = 0; i < fleet->count; i++)
		close(fleet->fds[i]);
	waitpid(fleet->server, NULL, 0);
	free(fleet->fds);
}

void bench_fleet_close(struct bench_fleet *fleet)
{
	qsc_set_destroy(fleet->set);
	for (size_t i = 0; i < fleet->count; i++)
		qsc_device_close(fleet->devs[i]);
	if (fleet->server > 0)
		waitpid(fleet->server, NULL, 0);
	free(fleet->devs);
	free(fleet->rts);
}
