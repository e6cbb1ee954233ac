/* SPDX-License-Identifier: MIT */
/* `quiesce host`, and `quiesce ask`, which asks one for what moves nothing. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "device.h"
#include "host.h"
#include "remote.h"
#include "show.h"
#include "text.h"
#include "tool.h"

enum {
	KEY_EMPTY = 1280, /* above those of transfer.c */
	KEY_JSON,
	KEY_VERBOSE,
	KEY_HOST,
};

/* ---- host ---- */

struct hosting {
	struct host_config config;
	bool verbose;
};

static error_t parse_host(int key, char *arg, struct argp_state *state)
{
	struct hosting *hosting = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &hosting->config;
		return 0;
	case KEY_EMPTY:
		hosting->config.empty = true;
		return 0;
	case KEY_JSON:
		hosting->config.json = true;
		return 0;
	case KEY_VERBOSE:
		hosting->verbose = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static struct json_object *get(struct json_object *object, const char *key)
{
	struct json_object *value = NULL;

	return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

static const char *text_of(struct json_object *object, const char *key, const char *otherwise)
{
	struct json_object *value = get(object, key);

	return json_object_is_type(value, json_type_string) ? json_object_get_string(value)
							    : otherwise;
}

/* For a person to read; it may come from another process. */
static const char *shown(struct json_object *object, const char *key, const char *otherwise,
			 char text[512])
{
	text_clean(text, 512, text_of(object, key, otherwise), true);
	return text;
}

/* A line on stderr for every request that ended: the log of a host. */
static void log_event(void *ctx, struct json_object *event)
{
	struct json_object *move = get(event, "move"), *error = get(event, "error");

	(void)ctx;
	if (strcmp(text_of(event, "event", ""), "end") != 0)
		return;
	if (error)
		(void)fprintf(stderr, "%s: %s\n", tool_name, text_of(error, "text", "?"));
	if (move)
		(void)fprintf(stderr, "%s: %s\n", tool_name,
			      text_of(get(move, "report"), "outcome", "?"));
}

int cmd_host(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"empty", KEY_EMPTY, NULL, 0,
		 "Begin without a set, to which 'quiesce receive' or 'restore' brings one", 0},
		{"json", KEY_JSON, NULL, 0, "Print what the tenant found as one JSON object", 0},
		{"verbose", KEY_VERBOSE, NULL, 0, "Say on stderr what happens", 0},
		{0},
	};
	static const struct argp_child children[] = {{&host_argp, 0, NULL, 0}, {0}};
	static const struct argp argp = {
		.options = options,
		.parser = parse_host,
		.args_doc = "[NAME=]URI...",
		.doc = "Hold devices, and move them when asked to at the control socket, until "
		       "SIGTERM or SIGINT.",
		.children = children,
	};
	struct hosting hosting = {0};
	int code;

	tool_parse(&argp, argc, argv, &hosting);
	host_config_check(&hosting.config);
	if (hosting.config.empty && !hosting.config.control)
		tool_usage("--empty wants --control: nobody could bring a set");
	if (!hosting.config.control && !hosting.config.metrics &&
	    hosting.config.hold.tenant == HOLD_TENANT_NONE)
		tool_usage("--control is missing: nobody could ask this host for anything");
	tool_log_to_stderr(hosting.verbose ? QSC_LOG_INFO : QSC_LOG_WARNING);
	code = host_run(&hosting.config, NULL, log_event, NULL);
	host_config_release(&hosting.config);
	return code;
}

/* ---- ask ---- */

struct asking {
	struct request request;
	const char *host;
	bool json;
	bool asked;
	int code;
};

static error_t parse_ask(int key, char *arg, struct argp_state *state)
{
	static const enum request_verb verbs[] = {REQUEST_STATUS, REQUEST_CANCEL, REQUEST_FINISH,
						  REQUEST_RUN, REQUEST_WATCH};
	struct asking *asking = state->input;

	switch (key) {
	case KEY_HOST:
		asking->host = arg;
		return 0;
	case KEY_JSON:
		asking->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (asking->asked)
			return ARGP_ERR_UNKNOWN;
		for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
			if (!strcmp(arg, request_verb_name(verbs[i]))) {
				asking->request.verb = verbs[i];
				asking->asked = true;
				return 0;
			}
		tool_usage("a host can be asked for status, watch, cancel, finish or run, not '%s'",
			   arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* How it ended stands behind it once it has. */
static void print_move(struct json_object *move, bool now)
{
	char outcome[512], verb[512], result[512];

	shown(get(move, "report"), "outcome", "", outcome);
	printf("%s %s: %s%s%s\n", now ? "now     " : "last    ", shown(move, "verb", "?", verb),
	       shown(move, "result", "?", result), *outcome ? "; " : "", outcome);
}

static void print_status(struct json_object *status)
{
	struct json_object *devices = get(status, "devices"), *move = get(status, "move");
	char size[32], text[512], uri[512], state[512];
	const char *silent = "-";

	printf("state    %s%s\n", shown(status, "state", "?", text),
	       json_object_get_boolean(get(status, "finishing")) ? ", finishing" : "");
	/* Asked for no other reason, and no answer. */
	if (!strcmp(text, "broken") && !get(status, "request"))
		silent = "does not answer";
	printf("request  %s\n", shown(status, "request", "none", text));
	printf("memory   %s\n",
	       tool_size_text((uint64_t)json_object_get_int64(get(status, "memory_bytes")), size));
	printf("tenant   %s\n", shown(status, "tenant", "?", text));
	if (!json_object_is_type(devices, json_type_array))
		devices = NULL;
	for (size_t i = 0; devices && i < json_object_array_length(devices); i++) {
		struct json_object *device = json_object_array_get_idx(devices, i);

		printf("device   %s  %s  %s\n", shown(device, "name", "?", text),
		       shown(device, "uri", "?", uri), shown(device, "state", silent, state));
	}
	if (move)
		print_move(move, get(status, "request") != NULL);
}

static void print_line(struct json_object *object)
{
	const char *text = json_object_to_json_string_ext(
		object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);

	if (text)
		(void)puts(text);
	(void)fflush(stdout);
}

/* The answer is a status, or the end of what did not begin or has now ended. */
static bool on_answer(void *ctx, struct json_object *event)
{
	struct asking *asking = ctx;
	const char *name = text_of(event, "event", "");
	char text[512];

	if (asking->request.verb == REQUEST_WATCH) {
		print_line(event);
		return !ferror(stdout);
	}
	if (!strcmp(name, "status")) {
		if (asking->json)
			print_line(event);
		else if (asking->request.verb == REQUEST_STATUS)
			print_status(event);
		return false;
	}
	if (strcmp(name, "end") != 0)
		return true;
	asking->code = json_object_get_int(get(event, "code"));
	if (get(event, "error"))
		(void)tool_fail("%s", shown(get(event, "error"), "text", "?", text));
	return false;
}

int cmd_ask(int argc, char **argv)
{
	static const struct argp_option options[] = {
		{"host", KEY_HOST, "PATH", 0, "The host whose control socket this is", 0},
		{"json", KEY_JSON, NULL, 0, "Print the answer as one JSON object", 0},
		{0},
	};
	static const struct argp argp = {
		.options = options,
		.parser = parse_ask,
		.args_doc = "status|watch|cancel|finish|run",
		.doc = "Ask a host how it stands (status) or to print its events as they come "
		       "(watch); to give up what it is moving (cancel); to have the tenant compare "
		       "everything and end (finish); or to run a set (run) that could not be "
		       "brought back after a failure, or that nobody is proved to own, when you "
		       "have seen that the other side does not run.",
	};
	struct asking asking = {0};
	int code;

	tool_parse(&argp, argc, argv, &asking);
	if (!asking.asked)
		tool_usage("what to ask is missing: status, watch, cancel, finish or run");
	code = remote_ask(asking.host, &asking.request, on_answer, &asking);
	return code ? code : asking.code;
}
