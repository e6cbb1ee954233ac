/* SPDX-License-Identifier: MIT */
/* See pair.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "pair.h"

static void *serve(void *arg)
{
	struct pair *pair = arg;

	(void)qsc_server_serve_fd(&pair->server, pair->server_fd);
	return NULL;
}

void pair_serve(struct pair *pair, const struct qsc_server_options *server, int *fd)
{
	int sockets[2];

	memset(pair, 0, sizeof(*pair));
	if (server)
		pair->server = *server;
	assert_int_equal(fake_create(&pair->fake), 0);
	pair->server.open = fake_open;
	pair->server.open_ctx = pair->fake;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	pair->server_fd = sockets[0];
	*fd = sockets[1];
	assert_int_equal(pthread_create(&pair->thread, NULL, serve, pair), 0);
}

void pair_join(struct pair *pair)
{
	assert_int_equal(pthread_join(pair->thread, NULL), 0);
	fake_destroy(pair->fake);
}

void pair_open(struct pair *pair, const struct qsc_server_options *server,
	       const struct qsc_client_options *client)
{
	struct qsc_error err = QSC_ERROR_NONE;
	int fd;

	pair_serve(pair, server, &fd);
	if (qsc_client_open_fd(fd, client, &pair->dev, &err) < 0)
		fail_msg("%s", err.text);
}

void pair_close(struct pair *pair)
{
	qsc_device_close(pair->dev);
	pair_join(pair);
}
