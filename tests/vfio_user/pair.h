/* SPDX-License-Identifier: MIT */
/* A fake device, a server for it in a thread of its own, and a client of that server. */
#ifndef PAIR_H
#define PAIR_H

#include <pthread.h>

#include <quiesce/client.h>
#include <quiesce/server.h>

#include "fake.h"

struct pair {
	struct fake *fake;
	struct qsc_server_options server;
	pthread_t thread;
	int server_fd;
	struct qsc_device *dev; /* the client */
};

/* Only the server, behind *fd. Options that are left 0 are the defaults. */
void pair_serve(struct pair *pair, const struct qsc_server_options *server, int *fd);
/* Wait for the server to have ended, its peer having closed. */
void pair_join(struct pair *pair);

/* Both ends; NULL options are the defaults. */
void pair_open(struct pair *pair, const struct qsc_server_options *server,
	       const struct qsc_client_options *client);
void pair_close(struct pair *pair);

#endif
