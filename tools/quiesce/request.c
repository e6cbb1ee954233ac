/* SPDX-License-Identifier: MIT */
/* See request.h. One table of fields serves the options and the JSON. */
#include "request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "tool.h"

enum field_kind {
	FIELD_TEXT,
	FIELD_FILE, /* text that is the path of a file */
	FIELD_FLAG,
	FIELD_BYTES,
	FIELD_COUNT,
	FIELD_MS,
	FIELD_US,
};

struct field {
	const char *name; /* of the option; in JSON with '_' for '-' and the unit behind it */
	const char *key;
	enum field_kind kind;
	uint32_t verbs; /* that it belongs to */
	size_t offset;
	uint64_t max;
	const char *value; /* in the help */
	const char *help;
};

#define BANDWIDTH_MIN	  65536	 /* as the engine has it */
#define DOWNTIME_LIMIT_US 300000 /* as the help says */

#define FIELD(member) offsetof(struct request, member)
#define SEND	      (1U << REQUEST_SEND)
#define RECEIVE	      (1U << REQUEST_RECEIVE)
#define SAVE	      (1U << REQUEST_SAVE)
#define RESTORE	      (1U << REQUEST_RESTORE)
#define PLAN	      (1U << REQUEST_PLAN)
#define SOURCE	      (SEND | SAVE | PLAN)
#define NETWORK	      (SEND | RECEIVE | PLAN)
#define ALL	      (SOURCE | NETWORK | RESTORE)

/* All that a request says beside its verb. Without a name: no option of its own. */
static const struct field fields[] = {
	{NULL, "transport", FIELD_TEXT, ALL, FIELD(transport), 0, NULL, NULL},
	{"once", "once", FIELD_FLAG, RECEIVE, FIELD(once), 0, NULL,
	 "End when a source's set does not fit, instead of refusing it and waiting for another"},
	{"quiesce", "quiesce", FIELD_TEXT, ALL, FIELD(quiesce), 0, "MODE",
	 "Devices without P2P that reach others: refuse them (native, the default), take their "
	 "peer mappings away for the stop (revoke), or that only where it must be (auto)"},
	{"downtime-limit", "downtime_limit_us", FIELD_US, SOURCE, FIELD(downtime_limit_us),
	 3600 * 1000000ULL, "TIME", "How long the stop may take (default 300ms)"},
	{"timeout", "timeout_ms", FIELD_MS, SEND | SAVE | RECEIVE | RESTORE, FIELD(timeout_ms),
	 UINT32_MAX, "TIME",
	 "For all of it until the set changes hands; past it the source goes on"},
	{"stall-timeout", "stall_timeout_ms", FIELD_MS, NETWORK, FIELD(stall_timeout_ms),
	 UINT32_MAX, "TIME",
	 "Nothing at all from the other side for so long is a failure (default 30s)"},
	{"bandwidth", "bandwidth", FIELD_BYTES, SOURCE, FIELD(bandwidth), UINT64_MAX >> 2, "SIZE",
	 "Send at most so many bytes a second"},
	{"channels", "channels", FIELD_COUNT, SEND | PLAN, FIELD(channels), 64, "N",
	 "Connections side by side (default: one a device, at most 8, and one more)"},
	{"no-precopy", "no_precopy", FIELD_FLAG, SOURCE, FIELD(no_precopy), 0, NULL,
	 "Stop first and move everything then"},
	{"exceed", "exceed", FIELD_FLAG, SEND | PLAN, FIELD(exceed_downtime), 0, NULL,
	 "Move also when the downtime limit cannot be kept, instead of giving up"},
	{"plaintext", "plaintext", FIELD_FLAG, NETWORK, FIELD(plaintext), 0, NULL,
	 "Allow tcp:, which sends all memory in clear"},
	{"tls-ca", "tls_ca", FIELD_FILE, NETWORK, FIELD(tls_ca), 0, "FILE",
	 "Authorities that the other side's certificate must come from (PEM)"},
	{"tls-cert", "tls_cert", FIELD_FILE, NETWORK, FIELD(tls_cert), 0, "FILE",
	 "Our certificate (PEM)"},
	{"tls-key", "tls_key", FIELD_FILE, NETWORK, FIELD(tls_key), 0, "FILE", "Its key (PEM)"},
	{"tls-peer", "tls_peer", FIELD_TEXT, NETWORK, FIELD(tls_peer), 0, "NAME",
	 "Name in the other side's certificate (default: a source wants the host it connects to)"},
	{"tls-anonymous", "tls_anonymous", FIELD_FLAG, NETWORK, FIELD(tls_anonymous), 0, NULL,
	 "Who sends shows no certificate; who receives takes one that shows none as well"},
	{"psk-file", "psk_file", FIELD_FILE, NETWORK, FIELD(psk_file), 0, "FILE",
	 "Pre-shared keys instead of certificates, lines \"identity:key\""},
	{"psk-identity", "psk_identity", FIELD_TEXT, SEND | PLAN, FIELD(psk_identity), 0, "NAME",
	 "Which of them a source uses"},
};

#define NUM_FIELDS (sizeof(fields) / sizeof(fields[0]))

static const char *const verbs[REQUEST_VERBS] = {
	[REQUEST_SEND] = "send",       [REQUEST_RECEIVE] = "receive", [REQUEST_SAVE] = "save",
	[REQUEST_RESTORE] = "restore", [REQUEST_PLAN] = "plan",	      [REQUEST_RUN] = "run",
	[REQUEST_STATUS] = "status",   [REQUEST_WATCH] = "watch",     [REQUEST_CANCEL] = "cancel",
	[REQUEST_FINISH] = "finish",
};

const char *request_verb_name(enum request_verb verb)
{
	return verbs[verb];
}

static void *member(const struct request *request, const struct field *field)
{
	return (char *)request + field->offset;
}

static bool is_text(const struct field *field)
{
	return field->kind == FIELD_TEXT || field->kind == FIELD_FILE;
}

void request_release(struct request *request)
{
	for (size_t i = 0; i < NUM_FIELDS; i++)
		if (is_text(&fields[i]))
			free(*(char **)member(request, &fields[i]));
	*request = (struct request){0};
}

/* ---- JSON ---- */

struct json_object *request_to_json(const struct request *request)
{
	struct json_object *object = json_object_new_object();
	bool failed = !object;

	if (!failed)
		failed = json_object_object_add(
				 object, "request",
				 json_object_new_string(request_verb_name(request->verb))) < 0;
	for (size_t i = 0; i < NUM_FIELDS && !failed; i++) {
		const struct field *field = &fields[i];
		const void *at = member(request, field);
		struct json_object *value = NULL;

		if (is_text(field) && *(char *const *)at)
			value = json_object_new_string(*(char *const *)at);
		else if (field->kind == FIELD_FLAG && *(const bool *)at)
			value = json_object_new_boolean(true);
		else if (!is_text(field) && field->kind != FIELD_FLAG && *(const uint64_t *)at)
			value = json_object_new_uint64(*(const uint64_t *)at);
		else
			continue;
		failed = !value || json_object_object_add(object, field->key, value) < 0;
	}
	if (!failed)
		return object;
	json_object_put(object);
	return NULL;
}

static int take_value(struct request *request, const struct field *field, struct json_object *value,
		      struct qsc_error *err)
{
	void *at = member(request, field);
	int64_t number;

	if (is_text(field)) {
		if (!json_object_is_type(value, json_type_string) ||
		    strlen(json_object_get_string(value)) !=
			    (size_t)json_object_get_string_len(value))
			return qsc_error_set(err, EINVAL, NULL, "'%s' must be text", field->key);
		*(char **)at = strdup(json_object_get_string(value));
		return *(char **)at ? 0 : qsc_error_set(err, ENOMEM, NULL, "no memory");
	}
	if (field->kind == FIELD_FLAG) {
		if (!json_object_is_type(value, json_type_boolean))
			return qsc_error_set(err, EINVAL, NULL, "'%s' must be true or false",
					     field->key);
		*(bool *)at = json_object_get_boolean(value);
		return 0;
	}
	number = json_object_get_int64(value);
	if (!json_object_is_type(value, json_type_int) || number < 0 ||
	    (uint64_t)number > field->max)
		return qsc_error_set(err, EINVAL, NULL, "'%s' must be a number from 0 to %llu",
				     field->key, (unsigned long long)field->max);
	if (field->kind == FIELD_BYTES && number && number < BANDWIDTH_MIN)
		return qsc_error_set(err, EINVAL, NULL, "'%s' must be at least %d", field->key,
				     BANDWIDTH_MIN);
	*(uint64_t *)at = (uint64_t)number;
	return 0;
}

static int take_verb(struct json_object *value, struct request *request, struct qsc_error *err)
{
	const char *name = json_object_is_type(value, json_type_string)
				   ? json_object_get_string(value)
				   : "";

	for (int i = 0; i < REQUEST_VERBS; i++)
		if (!strcmp(verbs[i], name)) {
			request->verb = (enum request_verb)i;
			return 0;
		}
	return qsc_error_set(err, EINVAL, NULL, "there is no request '%.32s'", name);
}

static bool quiesce_valid(const char *text)
{
	return !text || !strcmp(text, "native") || !strcmp(text, "revoke") || !strcmp(text, "auto");
}

/* A file is for save and restore, and nothing else is. */
static int check_transport(const struct request *request, struct qsc_error *err)
{
	bool wants = request->verb == REQUEST_SAVE || request->verb == REQUEST_RESTORE;
	const char *uri = request->transport;

	if (!uri || request->verb > REQUEST_PLAN || !strncmp(uri, "fd:", 3) ||
	    wants == !strncmp(uri, "file:", 5))
		return 0;
	return qsc_error_set(err, EINVAL, NULL, "the 'transport' of '%s' %s", verbs[request->verb],
			     wants ? "is file:PATH; others are for 'send' and 'receive'"
				   : "is no file; that is for 'save' and 'restore'");
}

int request_from_json(struct json_object *object, struct request *request, struct qsc_error *err)
{
	struct json_object *verb = NULL;
	int result;

	*request = (struct request){0};
	if (!json_object_is_type(object, json_type_object) ||
	    !json_object_object_get_ex(object, "request", &verb))
		return qsc_error_set(err, EINVAL, NULL,
				     "a request is an object with the key 'request'");
	result = take_verb(verb, request, err);
	if (result < 0)
		return result;
	json_object_object_foreach(object, key, value)
	{
		size_t i = 0;

		if (!strcmp(key, "request"))
			continue;
		while (i < NUM_FIELDS && strcmp(fields[i].key, key) != 0)
			i++;
		if (i == NUM_FIELDS)
			return qsc_error_set(err, EINVAL, NULL, "a request has no key '%.32s'",
					     key);
		if (!(fields[i].verbs & 1U << request->verb))
			return qsc_error_set(err, EINVAL, NULL, "'%s' does not belong to '%s'", key,
					     request_verb_name(request->verb));
		result = take_value(request, &fields[i], value, err);
		if (result < 0)
			return result;
	}
	if (!quiesce_valid(request->quiesce))
		return qsc_error_set(err, EINVAL, NULL, "'quiesce' must be native, revoke or auto");
	if (!request->transport && request->verb <= REQUEST_RESTORE)
		return qsc_error_set(err, EINVAL, NULL, "'transport' is missing");
	return check_transport(request, err);
}

/* ---- for the library ---- */

struct qsc_transport_options request_transport_options(const struct request *request)
{
	return (struct qsc_transport_options){
		.tls =
			{
				.ca_file = request->tls_ca,
				.cert_file = request->tls_cert,
				.key_file = request->tls_key,
				.peer_name = request->tls_peer,
				.anonymous_source = request->tls_anonymous,
				.psk_file = request->psk_file,
				.psk_identity = request->psk_identity,
			},
		.plaintext = request->plaintext,
	};
}

void request_migrate_options(const struct request *request, struct qsc_migrate_options *options)
{
	options->quiesce = QSC_QUIESCE_NATIVE;
	if (request->quiesce && !strcmp(request->quiesce, "auto"))
		options->quiesce = QSC_QUIESCE_AUTO;
	else if (request->quiesce && !strcmp(request->quiesce, "revoke"))
		options->quiesce = QSC_QUIESCE_REVOKE;
	options->no_precopy = request->no_precopy;
	options->downtime_limit_us = request->downtime_limit_us ? request->downtime_limit_us
								: DOWNTIME_LIMIT_US;
	options->exceed_downtime = request->exceed_downtime;
	options->wait_for_fitting = !request->once;
	options->bandwidth = request->bandwidth;
	options->timeout_ms = (uint32_t)request->timeout_ms;
	options->stall_timeout_ms = (uint32_t)request->stall_timeout_ms;
	options->channels = (uint32_t)request->channels;
}

/* ---- the command line ---- */

static void take_number(const struct field *field, const char *arg, uint64_t *number)
{
	uint64_t us = 0;

	switch (field->kind) {
	case FIELD_MS:
	case FIELD_US:
		if (tool_parse_time(arg, &us) < 0 || us < 1000)
			tool_usage("--%s takes a time of at least 1ms such as 300ms, 10s or 5min, "
				   "not '%s'",
				   field->name, arg);
		*number = field->kind == FIELD_MS ? us / 1000 : us;
		break;
	case FIELD_BYTES:
		if (tool_parse_size(arg, number) < 0 || *number < BANDWIDTH_MIN)
			tool_usage("--%s takes a size from 64K on, such as 100M or 1G, that is a "
				   "number below 2^63, not '%s'",
				   field->name, arg);
		break;
	default:
		if (tool_parse_number(arg, 1, field->max, number) < 0)
			tool_usage("--%s takes a number from 1 to %llu, not '%s'", field->name,
				   (unsigned long long)field->max, arg);
	}
	if (*number > field->max)
		tool_usage("--%s is too large", field->name);
}

static char *copy(const char *text)
{
	char *made = strdup(text);

	if (!made)
		exit(tool_fail("out of memory"));
	return made;
}

/* What a host in another folder, or after a chdir, means by the same path. */
static char *absolute(const char *path)
{
	char *folder, *made = NULL;

	if (*path == '/')
		return copy(path);
	folder = getcwd(NULL, 0);
	if (!folder || asprintf(&made, "%s/%s", folder, path) < 0)
		made = NULL;
	free(folder);
	if (!made)
		exit(tool_fail("cannot tell where '%s' is", path));
	return made;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct request *request = state->input;
	const struct field *field;
	void *at;

	if (key < 256 || key >= 256 + (int)NUM_FIELDS)
		return ARGP_ERR_UNKNOWN;
	field = &fields[key - 256];
	at = member(request, field);
	if (field->kind == FIELD_FLAG) {
		*(bool *)at = true;
	} else if (is_text(field)) {
		free(*(char **)at);
		if (!*arg)
			tool_usage("--%s takes a %s", field->name, field->value);
		*(char **)at = field->kind == FIELD_FILE ? absolute(arg) : copy(arg);
	} else {
		take_number(field, arg, at);
	}
	if (!quiesce_valid(request->quiesce))
		tool_usage("--quiesce takes native, revoke or auto, not '%s'", request->quiesce);
	return 0;
}

/* The options of a verb; getopt's keys are above those of any character. */
const struct argp *request_argp(enum request_verb verb)
{
	static struct argp_option options[NUM_FIELDS + 1];
	static struct argp argp = {.options = options, .parser = parse};
	size_t n = 0;

	for (size_t i = 0; i < NUM_FIELDS; i++)
		if (fields[i].name && fields[i].verbs & 1U << verb)
			options[n++] = (struct argp_option){
				.name = fields[i].name,
				.key = 256 + (int)i,
				.arg = fields[i].value,
				.doc = fields[i].help,
				.group = 2,
			};
	options[n] = (struct argp_option){0};
	return &argp;
}

void request_set_transport(struct request *request, const char *option, const char *uri)
{
	if (!qsc_transport_is_uri(uri))
		tool_usage("%s takes unix:PATH, tls:HOST:PORT or tcp:HOST:PORT, not '%s'", option,
			   uri);
	if (!strncmp(uri, "file:", 5))
		tool_usage("%s takes no file: that is `quiesce %s %s %s`", option,
			   strcmp(option, "--to") ? "restore" : "save", option,
			   uri[5] ? uri + 5 : "FILE");
	if (!strncmp(uri, "fd:", 3))
		tool_usage("%s takes no file: that is `quiesce %s %s FILE`", option,
			   strcmp(option, "--to") ? "restore" : "save", option);
	free(request->transport);
	if (!strncmp(uri, "unix:", 5) && uri[5]) {
		char *path = absolute(uri + 5);

		if (asprintf(&request->transport, "unix:%s", path) < 0)
			exit(tool_fail("out of memory"));
		free(path);
		return;
	}
	request->transport = copy(uri);
}

void request_set_file(struct request *request, const char *file, int fd)
{
	struct stat st;
	char *path = NULL;
	int n;

	if (!strncmp(file, "file:", 5) && file[5])
		tool_usage("a FILE is named by its path alone: write '%s'; one that is called '%s' "
			   "is './%s'",
			   file + 5, file, file);
	if (qsc_transport_is_uri(file))
		tool_usage("'%s' is for 'quiesce send' and 'quiesce receive'; a FILE of that name "
			   "is './%s'",
			   file, file);
	if (stat(file, &st) == 0 && S_ISDIR(st.st_mode))
		tool_usage("'%s' is a folder; name a FILE in it", file);
	free(request->transport);
	request->transport = NULL;
	if (!strcmp(file, "-")) {
		n = asprintf(&request->transport, "fd:%d", fd);
	} else {
		path = absolute(file);
		n = asprintf(&request->transport, "file:%s", path);
		free(path);
	}
	if (n < 0)
		exit(tool_fail("out of memory"));
}
