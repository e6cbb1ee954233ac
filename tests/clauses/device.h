/* SPDX-License-Identifier: MIT */
/*
 * The devices whose clauses are tested here: dmacopy with each set of flags, in this process or
 * behind a vfio-user server, honest or with a liar in front.
 */
#ifndef CLAUSES_DEVICE_H
#define CLAUSES_DEVICE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include <quiesce/runtime.h>

#include <quiesce/check.h>

#include "check/harness.h"
#include "liar.h"

enum device_way {
	DEVICE_IN_PROCESS,
	DEVICE_SERVED,	      /* over vfio-user */
	DEVICE_SERVED_NO_FDS, /* and all DMA goes over the socket */
};

struct device_config {
	uint32_t flags;
	bool tells_peers;
	enum device_way way;
};

struct device {
	struct device_config config;
	struct qsc_runtime *rt;
	struct qsc_check_opener runtime; /* holds the runtime itself */
	struct qsc_check_opener served;	 /* through a client and a server, one connection a user */
	const struct qsc_check_opener *behind; /* what the server opens */
	pthread_t server;
	int server_fd;
	_Atomic unsigned int violations; /* of the user, that the device has found */
	struct liar liar;
	struct qsc_check_opener opener; /* how the check is to hold it */
};

/* The device of a configuration; with a lie, a liar. 0 or -errno. */
int device_create(struct device *d, const struct device_config *config, const struct lie *lie);
void device_destroy(struct device *d);

/* Streams that are whole, but not of this device. */
#define DEVICE_FOREIGN 3
int device_foreign(struct qsc_check_foreign foreign[DEVICE_FOREIGN]);
void device_foreign_release(struct qsc_check_foreign foreign[DEVICE_FOREIGN]);

#endif
