/* SPDX-License-Identifier: MIT */
/* What the parts of `quiesce audit` share: the devices it serves, the command, the report. */
#ifndef TOOL_AUDIT_H
#define TOOL_AUDIT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/un.h>

#include <quiesce/audit.h>
#include <quiesce/runtime.h>

#include "folder.h"

#define AUDIT_MAX_DEVICES 32

struct audit_host;

/* A device behind a socket of ours. */
struct audit_device {
	struct audit_host *host;
	char name[64];
	char *to; /* URI; owned */
	struct sockaddr_un address;
	struct qsc_runtime *rt; /* of a model, which outlives its users */
	int listener;
	bool has_thread;
	pthread_t thread;
};

struct audit_connection;

/* All devices of one run, each user under the audit. */
struct audit_host {
	struct qsc_audit *audit;
	const char *fault;    /* or NULL */
	struct folder folder; /* of the sockets that nobody named */
	unsigned int num_devices;
	struct audit_device devices[AUDIT_MAX_DEVICES];
	pthread_mutex_t lock; /* all below */
	pthread_cond_t ended;
	bool stopping;
	bool struck; /* a fault did */
	struct audit_connection *connections;
};

/*
 * One device more: NAME (or NULL, then it is called after its place), what is behind it, and the
 * socket (or NULL for one in a folder of our own). -EINVAL: the command line is wrong.
 */
int audit_host_add(struct audit_host *host, const char *name, const char *to, const char *socket,
		   struct qsc_error *err);
/* Serve them. -EINVAL: the command line is wrong. Stop in any case. */
int audit_host_start(struct audit_host *host, struct qsc_error *err);
/* Nobody holds a device any more when it returns; may be started again with another audit. */
void audit_host_stop(struct audit_host *host);
void audit_host_release(struct audit_host *host);

/* What a recipe says of a run, on its standard output. */
struct audit_said {
	char outcome[80];  /* "outcome: …" what the VMM did */
	char reported[16]; /* "reported: success" or "failure" */
	char data[16];	   /* "data: right" or "wrong" */
};

/* Whether a command takes the devices by itself, at {socket0} and on. */
bool audit_takes_sockets(char *const command[]);

/*
 * Run a command to its end, with {socket0}, {name0}… filled in; one that takes no socket gets the
 * devices through the preload library. Its exit code, 128 and the number of the signal that ended
 * it, or -errno when it could not be started. With `said`, which is only for one that takes
 * sockets, its output is read for what a recipe says, and what is no such line goes to stderr. Who
 * it leaves behind is not waited for.
 */
int audit_run(const struct audit_host *host, char *const command[], struct audit_said *said,
	      struct qsc_error *err);

/* Whether a signal has told us to end, that was passed on to a command. */
bool audit_is_stopped(void);

/* How often each kind was found. */
struct audit_counts {
	uint64_t stretches;
	uint64_t refused;
	uint64_t violations;
};

struct audit_counts audit_report_count(struct qsc_audit *audit);
void audit_report_print(struct qsc_audit *audit, FILE *out);
/* `code`: of the command, or -1 for none. 0 or -errno. */
int audit_report_json(struct qsc_audit *audit, const char *profile, int code, FILE *out);
void audit_report_junit(struct qsc_audit *audit, FILE *out);

/*
 * Run the recipe once without a fault and once with each, and print a table. `faults` ends with
 * NULL; the program's own list when it is empty. `json` is NULL or gets the runs. Returns an exit
 * code. SIGINT and SIGTERM end the run that is under way, and the rest.
 */
int audit_provoke(struct audit_host *host, enum qsc_audit_profile profile,
		  const char *const faults[], char *const command[], FILE *json);

#endif
