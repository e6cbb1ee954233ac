/* SPDX-License-Identifier: MIT */
/*
 * A host: a process that holds devices outside a VMM and moves them when asked to. It carries out
 * one request at a time, in a thread of its own, while the main thread listens to the control
 * socket, to signals and to the tenant. What happens is told as events, JSON objects that go to
 * whoever watches over the socket and to the command that made this process a host:
 *
 *	{"event": "begin", "move": {…}}
 *	{"event": "listening", "address": …}
 *	{"event": "progress", "sample": {…}}
 *	{"event": "end", "code": …, "error": …, "move": …, "plan": …}
 */
#ifndef HOST_H
#define HOST_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "hold.h"
#include "move.h"
#include "request.h"

struct control;
struct json_object;
struct metrics;

struct host_config {
	struct hold_config hold;
	const char *control; /* path of the socket; or NULL */
	const char *metrics; /* address; or NULL */
	bool empty;	     /* begin without a set */
	bool json;	     /* for the tenant's result */
};

/* Devices and options of a host on a command line; input is a struct host_config. */
extern const struct argp host_argp;
/* What only reading it whole can tell. Usage errors end the program. */
void host_config_check(struct host_config *config);
/* Whether anything of it stood on the command line. */
bool host_config_given(const struct host_config *config);
void host_config_release(struct host_config *config);

enum host_state {
	HOST_EMPTY,    /* no devices are open */
	HOST_RUNNING,  /* the set is ours and runs */
	HOST_UNPROVED, /* the set is stopped here, and nobody can be proved to own it */
	HOST_BROKEN,   /* the set is ours; it could not be brought back, or lost a device */
};

struct host {
	const struct host_config *config;
	struct control *control; /* or NULL */
	struct metrics *metrics; /* or NULL */
	int signal_fd;
	int wake_fd;	   /* the worker has something to tell */
	struct hold *hold; /* the worker's while there is one */
	bool finishing;
	bool over; /* leave the loop */
	int code;  /* exit code of the process */
	/* The command whose process this is; or NULL. */
	void (*watch)(void *ctx, struct json_object *event);
	void *watch_ctx;
	bool watch_all; /* and not only its own request */

	/* The request under way. */
	bool working;
	bool own; /* the command's own request */
	pthread_t worker;
	struct request request;
	_Atomic bool cancelled;
	pthread_mutex_t lock;
	/* Under lock: */
	enum host_state state;
	struct move move;
	bool moved; /* `move` is of this or the last request */
	struct move_sample sample;
	char listening[256];
	bool tell_begin;
	bool tell_listening;
	bool tell_sample;
	bool done;
	/* Of how it ended; the main thread's once `done`. */
	int end_code; /* exit code of the command that asked */
	struct qsc_error end_err;
	struct json_object *plan;
};

/*
 * Be a host until told to end. With `request` it is carried out first; the host stays one
 * afterwards only when that brought a set here. `request` is taken over. Returns an exit code.
 */
int host_run(const struct host_config *config, struct request *request,
	     void (*watch)(void *ctx, struct json_object *event), void *ctx);

/* ---- host_work.c: the thread that carries a request out ---- */

/* Whether it can begin as things stand; else err says why not. */
int host_work_check(const struct host *host, const struct request *request, struct qsc_error *err);
/* Takes the request over. 0 or -errno. */
int host_work_start(struct host *host, struct request *request);

/* ---- host_plan.c ---- */

/*
 * What a move would come to. 0 and *out; when it would be refused -errno, and *out has what is
 * known all the same. *wrong as in hold_open(). -ETIME: it would give up for the downtime limit.
 */
int host_plan(struct host *host, struct json_object **out, bool *wrong, struct qsc_error *err);
/* The transport that a request names. *wrong as above. */
int host_open_transport(const struct request *request, struct qsc_transport **transport,
			bool *wrong, struct qsc_error *err);
/* After a failure: what option would have allowed it, where there is one. */
void host_advise(struct host *host, struct qsc_error *err);
/* Options for the engine; its progress() cancels when the host was told to. */
void host_engine_options(struct host *host, struct qsc_migrate_options *options);

#endif
