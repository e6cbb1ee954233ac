/* SPDX-License-Identifier: MIT */
/*
 * `quiesce send`, `receive`, `save`, `restore` and `plan`: ask a host to do it, either one that is
 * running already (--host) or this very process, made a host for the purpose by naming devices.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "host.h"
#include "remote.h"
#include "show.h"
#include "tool.h"

enum {
	KEY_HOST = 1024, /* above those of show.c */
	KEY_TO,
	KEY_FROM,
};

struct transfer {
	enum request_verb verb;
	struct request request; /* the host's, once it has it */
	struct host_config config;
	struct show show;
	const char *host;
	const char *where; /* after --to or --from */
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct transfer *transfer = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		state->child_inputs[0] = &transfer->request;
		state->child_inputs[1] = &transfer->show;
		state->child_inputs[2] = &transfer->config;
		return 0;
	case KEY_HOST:
		transfer->host = arg;
		return 0;
	case KEY_TO:
	case KEY_FROM:
		if (transfer->where)
			tool_usage("--%s is there twice", key == KEY_TO ? "to" : "from");
		transfer->where = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* Remote events and our own come in the same words. */
static bool on_event(void *ctx, struct json_object *event)
{
	struct transfer *transfer = ctx;

	show_event(&transfer->show, event);
	return !transfer->show.ended;
}

/* This process goes on with the set, and somebody may wait to hear so. */
static void on_own_event(void *ctx, struct json_object *event)
{
	struct transfer *transfer = ctx;
	bool ended = transfer->show.ended;

	show_event(&transfer->show, event);
	if (!transfer->show.ended || ended)
		return;
	if (transfer->show.code == TOOL_UNPROVED)
		(void)fprintf(stderr,
			      "%s: holding the stopped set: if the other side runs, end this with "
			      "SIGTERM; if it does not and never will, run the set here with "
			      "'kill -USR1 %d'\n",
			      tool_name, (int)getpid());
	else if (!transfer->show.code && !transfer->show.quiet &&
		 (transfer->verb == REQUEST_RECEIVE || transfer->verb == REQUEST_RESTORE))
		(void)fprintf(stderr, "%s: holding the set until SIGTERM or SIGINT\n", tool_name);
}

/* What "-" stands for must keep a set, or have kept it. */
static void check_pipe(int fd, const char *name)
{
	struct stat st;

	if (isatty(fd))
		tool_usage("%s is a terminal; name a FILE or a pipe", name);
	if (fstat(fd, &st) < 0 || (!S_ISREG(st.st_mode) && !S_ISFIFO(st.st_mode)))
		tool_usage("%s is neither a file nor a pipe; name a FILE, or lead it to a pipe",
			   name);
}

static void check(struct transfer *transfer, const char *option)
{
	struct request *request = &transfer->request;
	bool file = request->verb == REQUEST_SAVE || request->verb == REQUEST_RESTORE;
	bool pipe = file && transfer->where && !strcmp(transfer->where, "-");

	if (!transfer->where && request->verb != REQUEST_PLAN)
		tool_usage("%s %s is missing", option, file ? "FILE" : "TRANSPORT");
	if (transfer->where && !*transfer->where)
		tool_usage("%s takes a %s", option, file ? "FILE" : "TRANSPORT");
	if (transfer->host && host_config_given(&transfer->config))
		tool_usage("--host names the process that has the devices: leave the DEVICEs and "
			   "their options out, or --host");
	if (!transfer->host && !transfer->config.hold.num_devices)
		tool_usage("name the DEVICEs, or with --host the process that has them");
	if (pipe && request->verb == REQUEST_SAVE)
		check_pipe(STDOUT_FILENO, "standard output");
	if (pipe && request->verb == REQUEST_RESTORE)
		check_pipe(STDIN_FILENO, "standard input");
	if (file && transfer->show.report && transfer->where &&
	    !strcmp(transfer->where, transfer->show.report))
		tool_usage("%s and --report name the same FILE", option);
	if (transfer->where && file)
		request_set_file(request, transfer->where,
				 request->verb == REQUEST_SAVE ? STDOUT_FILENO : STDIN_FILENO);
	else if (transfer->where)
		request_set_transport(request, option, transfer->where);
	show_check(&transfer->show);
}

/* With `quiesce save --to -` the set is on standard output, and what happened is not. */
static void keep_output(struct transfer *transfer)
{
	int fd;

	if (transfer->request.verb != REQUEST_SAVE || strcmp(transfer->where, "-") != 0)
		return;
	fd = dup(STDOUT_FILENO);
	if (fd < 0 || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		exit(tool_fail("cannot use standard output"));
	request_set_file(&transfer->request, "-", fd);
	/* JSON stands where progress would, and is for programs. */
	transfer->show.quiet |= transfer->show.json;
}

static int run(struct transfer *transfer)
{
	int code;

	/* Nobody who stops listening may end us, or be taken for a set that did not move. */
	(void)signal(SIGPIPE, SIG_IGN);
	tool_code_stands = transfer->verb != REQUEST_PLAN;
	if (transfer->host) {
		code = remote_ask(transfer->host, &transfer->request, on_event, transfer);
		code = code ? code : transfer->show.code;
		if (transfer->show.code == TOOL_UNPROVED)
			(void)fprintf(stderr,
				      "%s: the host keeps the stopped set: if the other side does "
				      "not run and never will, run the set with 'quiesce ask run "
				      "--host %s'\n",
				      tool_name, transfer->host);
	} else {
		host_config_check(&transfer->config);
		transfer->config.json = transfer->show.json;
		keep_output(transfer);
		/* Who was refused while this one waits, and why. */
		tool_log_to_stderr(QSC_LOG_WARNING);
		code = host_run(&transfer->config, &transfer->request, on_own_event, transfer);
		/* Whether it was still unproved at the end the host knows. */
		if (!code && transfer->show.code != TOOL_UNPROVED)
			code = transfer->show.code;
	}
	request_release(&transfer->request);
	show_release(&transfer->show);
	host_config_release(&transfer->config);
	return code;
}

static int transfer_run(enum request_verb verb, int argc, char **argv, const char *doc)
{
	static const struct argp_option targets[] = {
		[REQUEST_SEND] = {"to", KEY_TO, "TRANSPORT", 0,
				  "Where the other side waits: unix:PATH, tls:HOST:PORT or "
				  "tcp:HOST:PORT",
				  0},
		[REQUEST_RECEIVE] = {"from", KEY_FROM, "TRANSPORT", 0,
				     "Where to wait: unix:PATH, tls:[HOST]:PORT or "
				     "tcp:[HOST]:PORT",
				     0},
		[REQUEST_SAVE] = {"to", KEY_TO, "FILE", 0, "File to write, or - for a pipe", 0},
		[REQUEST_RESTORE] = {"from", KEY_FROM, "FILE", 0, "File to read, or - for a pipe",
				     0},
		[REQUEST_PLAN] = {"to", KEY_TO, "TRANSPORT", 0,
				  "Ask the other side too, which waits there in 'quiesce receive'",
				  0},
	};
	const struct argp_option options[] = {
		targets[verb],
		{"host", KEY_HOST, "PATH", 0,
		 "Ask the host whose control socket this is, instead of naming devices", 0},
		{0},
	};
	const struct argp_child children[] = {
		{request_argp(verb), 0, NULL, 0},
		{verb == REQUEST_PLAN ? &show_plan_argp : &show_argp, 0, NULL, 0},
		{&host_argp, 0, "Without --host this process holds the devices:", 4},
		{0},
	};
	const struct argp argp = {
		.options = options,
		.parser = parse,
		.args_doc = "--host PATH\n[NAME=]URI...",
		.doc = doc,
		.children = children,
	};
	struct transfer transfer = {.verb = verb, .request = {.verb = verb}};
	bool to = targets[verb].key == KEY_TO;

	tool_parse(&argp, argc, argv, &transfer);
	check(&transfer, to ? "--to" : "--from");
	return run(&transfer);
}

int cmd_send(int argc, char **argv)
{
	return transfer_run(REQUEST_SEND, argc, argv,
			    "Move a set of devices and its memory to another process or host.");
}

int cmd_receive(int argc, char **argv)
{
	return transfer_run(REQUEST_RECEIVE, argc, argv,
			    "Take a set over that 'quiesce send' sends. Without --host this "
			    "process then holds it until SIGTERM or SIGINT.");
}

int cmd_save(int argc, char **argv)
{
	return transfer_run(REQUEST_SAVE, argc, argv,
			    "Move a set of devices and its memory into a file, from which it can "
			    "be restored once.");
}

int cmd_restore(int argc, char **argv)
{
	return transfer_run(REQUEST_RESTORE, argc, argv,
			    "Take a set over that 'quiesce save' saved. Without --host this "
			    "process then holds it until SIGTERM or SIGINT.");
}

int cmd_plan(int argc, char **argv)
{
	return transfer_run(REQUEST_PLAN, argc, argv,
			    "Tell whether and how a set can move and how long it would stop. "
			    "Changes nothing. Exit status 1 when it would be refused.");
}
