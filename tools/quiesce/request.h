/* SPDX-License-Identifier: MIT */
/*
 * What a host can be asked to do, as a structure, as options of a command line and as one line of
 * JSON on a host's control socket (docs/commands.rst lists the keys).
 */
#ifndef REQUEST_H
#define REQUEST_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/migrate.h>
#include <quiesce/transport.h>

struct json_object;

enum request_verb {
	REQUEST_SEND,
	REQUEST_RECEIVE,
	REQUEST_SAVE,
	REQUEST_RESTORE,
	REQUEST_PLAN,
	REQUEST_RUN,	/* of a set that nobody is proved to own: it is ours */
	REQUEST_STATUS, /* from here on not more than an answer */
	REQUEST_WATCH,
	REQUEST_CANCEL,
	REQUEST_FINISH,
	REQUEST_VERBS,
};

const char *request_verb_name(enum request_verb verb);

/* Strings are owned, NULL where nothing was said; numbers are 0 there. */
struct request {
	enum request_verb verb;
	char *transport;
	char *quiesce; /* "native", "revoke", "auto" */
	char *tls_ca;
	char *tls_cert;
	char *tls_key;
	char *tls_peer;
	char *psk_file;
	char *psk_identity;
	uint64_t downtime_limit_us;
	uint64_t timeout_ms;
	uint64_t stall_timeout_ms;
	uint64_t bandwidth;
	uint64_t channels;
	bool no_precopy;
	bool exceed_downtime;
	bool plaintext;
	bool once;
	bool tls_anonymous;
};

void request_release(struct request *request);

/* NULL: no memory. */
struct json_object *request_to_json(const struct request *request);
/* Untrusted: -EINVAL with one sentence, -ENOMEM. The request is released by the caller anyway. */
int request_from_json(struct json_object *object, struct request *request, struct qsc_error *err);

/* Options for the transport and the engine that stand in it. */
struct qsc_transport_options request_transport_options(const struct request *request);
void request_migrate_options(const struct request *request, struct qsc_migrate_options *options);

/* Options of a command that does this; its input is a struct request. Usage errors end. */
const struct argp *request_argp(enum request_verb verb);
/* Where to or from, as typed after `option`. Usage errors end the program. */
void request_set_transport(struct request *request, const char *option, const char *uri);
/* The same for FILE, or "-" for the pipe or file that is open as fd. */
void request_set_file(struct request *request, const char *file, int fd);

#endif
