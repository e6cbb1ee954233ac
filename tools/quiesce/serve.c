/* SPDX-License-Identifier: MIT */
/*
 * `quiesce serve`: one device, of a model or opened from elsewhere, served over vfio-user until a
 * signal comes.
 */
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <quiesce/device.h>
#include <quiesce/runtime.h>
#include <quiesce/server.h>

#include "device.h"
#include "models.h"
#include "tool.h"

struct serve {
	const char *spec;
	char name[64]; /* in the trace and in messages */
	const char *socket;
	const char *trace_path;
	const char *fault;
	bool once;
	bool poll;
	bool verbose;
	FILE *trace;
	struct qsc_runtime *rt; /* of the model; NULL for a device that is opened for each user */
};

static struct qsc_server *server; /* for the signal handler */

static void stop(int number)
{
	(void)number;
	qsc_server_stop(server);
}

static int stop_on_signals(void)
{
	struct sigaction action = {.sa_handler = stop, .sa_flags = SA_RESTART};

	sigemptyset(&action.sa_mask);
	if (sigaction(SIGINT, &action, NULL) < 0 || sigaction(SIGTERM, &action, NULL) < 0)
		return -errno;
	return 0;
}

static void trace_line(void *ctx, const char *line)
{
	(void)fprintf(ctx, "%s\n", line);
}

static void say_fault(void *ctx, const char *rule)
{
	const struct serve *serve = ctx;

	(void)tool_fail("the fault '%s' strikes %s", rule, serve->name);
}

/* Put the layers that are asked for over the device; it is closed when that fails. */
static int add_layers(struct serve *serve, struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_device *inner = *dev;
	int result = 0;

	if (serve->fault)
		result = qsc_fault_open(inner, serve->name, serve->fault, say_fault, serve, dev,
					err);
	if (!result && serve->trace) {
		inner = *dev;
		result = qsc_trace_open(inner, serve->name, trace_line, serve->trace, dev);
	}
	if (result < 0)
		qsc_device_close(inner);
	return result;
}

/* One user of the device more. */
static int open_device(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct serve *serve = ctx;
	bool wrong;
	int result;

	if (serve->rt) {
		result = qsc_runtime_open(serve->rt, dev);
		if (result < 0)
			return qsc_error_set(err, -result, NULL, "%s has a user already",
					     serve->name);
	} else {
		result = tool_try_device(serve->spec, NULL, dev, &wrong, err);
		if (result < 0)
			return result;
	}
	return add_layers(serve, dev, err);
}

static void report_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	(void)ctx;
	(void)tool_fail("the user broke %s: %s", qsc_clause_id(clause), text);
}

/* After the socket is made, so that the trace of another server there is not touched. */
static int open_trace(struct serve *serve)
{
	const char *advice = "";
	int number;

	if (!serve->trace_path)
		return 0;
	serve->trace = fopen(serve->trace_path, "we");
	if (serve->trace) {
		/* Whoever follows the file sees whole lines. */
		(void)setvbuf(serve->trace, NULL, _IOLBF, 0);
		return 0;
	}
	number = errno;
	qsc_server_destroy(server);
	if (number == ENOENT)
		advice = "; create its folder first";
	else if (number == EACCES)
		advice = "; check the permissions of its folder, and of it if it exists";
	if (tool_path_is_wrong(number))
		tool_usage("cannot write the trace to %s: %s%s", serve->trace_path,
			   strerror(number), advice);
	(void)tool_fail("cannot write the trace to %s: %s", serve->trace_path, strerror(number));
	return -number;
}

static int run(struct serve *serve)
{
	struct qsc_error err = QSC_ERROR_NONE;
	const struct qsc_server_options options = {
		.open = open_device,
		.open_ctx = serve,
		.poll = serve->poll,
		.once = serve->once,
	};
	int result;

	if (qsc_server_create(serve->socket, &options, &server, &err) < 0) {
		if (tool_path_is_wrong(err.number))
			tool_usage("%s", err.text);
		return tool_fail("%s", err.text);
	}
	if (open_trace(serve) < 0)
		return TOOL_FAILED;
	result = stop_on_signals();
	if (!result) {
		printf("serving %s at %s\n", serve->spec, serve->socket);
		(void)fflush(stdout);
		result = qsc_server_run(server);
	}
	/* The handler must not meet a server that is gone. */
	(void)signal(SIGINT, SIG_IGN);
	(void)signal(SIGTERM, SIG_IGN);
	qsc_server_destroy(server);
	if (result < 0)
		return tool_fail("serving at %s ended: %s", serve->socket, strerror(-result));
	return TOOL_OK;
}

/* A device from elsewhere is opened once before anybody asks, to say now why it cannot be. */
static int make(struct serve *serve, struct qsc_error *err)
{
	const struct models_options options = {.violation = report_violation};
	struct qsc_device *dev;
	int result;

	if (tool_is_uri(serve->spec)) {
		result = tool_open_device(serve->spec, &dev, err);
		if (!result)
			qsc_device_close(dev);
		return result;
	}
	result = models_create(serve->spec, &options, &serve->rt, err);
	if (result < 0 && tool_path_is_wrong(-result))
		tool_usage("%s", err->text);
	return result;
}

static int make_and_run(struct serve *serve)
{
	struct qsc_error err = QSC_ERROR_NONE;
	bool names_itself = tool_is_uri(serve->spec) && strncmp(serve->spec, "model:", 6) != 0;
	int code;

	if (make(serve, &err) < 0)
		return tool_fail_error(&err, "cannot serve %s",
				       names_itself ? "the device" : serve->spec);
	code = run(serve);
	qsc_runtime_destroy(serve->rt);
	if (serve->trace) {
		bool lost = ferror(serve->trace);

		if ((fclose(serve->trace) || lost) && code == TOOL_OK)
			code = tool_fail("the trace in %s is not complete", serve->trace_path);
	}
	return code;
}

static const struct argp_option options[] = {
	{"socket", 's', "PATH", 0, "Serve at this UNIX socket, which is made anew", 0},
	{"once", 'o', NULL, 0, "End when the first user lets go", 0},
	{"poll", 'p', NULL, 0, "Spin for requests instead of sleeping: a core for less latency", 0},
	{"trace", 't', "FILE", 0, "Write one line for every action on the device", 0},
	{"fault", 'f', "SPEC", 0,
	 "Fail, delay or lie where SPEC says, for example set-state:STOP=EIO", 0},
	{"verbose", 'v', NULL, 0, "Say on stderr when users come and go", 0},
	{0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct serve *serve = state->input;

	switch (key) {
	case 's':
		serve->socket = arg;
		return 0;
	case 'o':
		serve->once = true;
		return 0;
	case 'p':
		serve->poll = true;
		return 0;
	case 't':
		serve->trace_path = arg;
		return 0;
	case 'f':
		serve->fault = arg;
		return 0;
	case 'v':
		serve->verbose = true;
		return 0;
	case ARGP_KEY_ARG:
		if (serve->spec)
			return ARGP_ERR_UNKNOWN;
		serve->spec = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

#define HELP_COLUMNS 79
#define HELP_INDENT  6

/*
 * A paragraph whose lines after the first are indented; argp would break it at the margin and begin
 * at the edge. Every character is one byte and column.
 */
static void print_paragraph(FILE *out, const char *text)
{
	int column = 0;

	while (*text) {
		/* As they stand, at the beginning and between words. */
		int blanks = (int)strspn(text, " ");
		int word = (int)strcspn(text + blanks, " ");

		if (column > HELP_INDENT && column + blanks + word >= HELP_COLUMNS)
			column = fprintf(out, "\n%*s", HELP_INDENT, "") - 1;
		else
			column += fprintf(out, "%*s", blanks, "");
		column += fprintf(out, "%.*s", word, text + blanks);
		text += blanks + word;
	}
	(void)fputc('\n', out);
}

__attribute__((format(printf, 2, 3))) static void print_text(FILE *out, const char *format, ...)
{
	va_list args;
	char *text;
	int size;

	va_start(args, format);
	size = vasprintf(&text, format, args);
	va_end(args);
	if (size < 0)
		return;
	print_paragraph(out, text);
	free(text);
}

/* The models and their options, below the options of the command. */
static char *list_models(int key, const char *text, void *input)
{
	char *list = NULL;
	size_t size;
	FILE *out;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)text;
	out = open_memstream(&list, &size);
	if (!out)
		return NULL;
	for (const struct model_entry *model = models_table; model->name; model++) {
		print_text(out, "Model %s: %s", model->name, model->summary);
		for (const struct model_option *o = model->options; o->name; o++)
			print_text(out, "  %s=VALUE  %s; VALUE is %s", o->name, o->help, o->values);
	}
	(void)fclose(out);
	return list;
}

static void check_socket(const char *path)
{
	const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;
	size_t size = path ? strlen(path) : 0;

	if (!path)
		tool_usage("--socket PATH is missing");
	if (!size || size > most)
		tool_usage("the path of the socket has %zu bytes; 1 to %zu are possible", size,
			   most);
}

int cmd_serve(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "MODEL[,OPTION=VALUE...]|DEVICE",
		.doc = "Serve a device over vfio-user at a UNIX socket, one user at a time, until "
		       "SIGINT or SIGTERM: one of a model, or one that is there already, for "
		       "example vfio:0000:3b:00.2.\v",
		.help_filter = list_models,
	};
	struct serve serve = {0};
	struct qsc_error err = QSC_ERROR_NONE;

	tool_parse(&argp, argc, argv, &serve);
	if (!serve.spec)
		tool_usage("a MODEL or DEVICE is missing");
	check_socket(serve.socket);
	if (tool_is_uri(serve.spec))
		(void)snprintf(serve.name, sizeof(serve.name), "%s", serve.spec);
	else
		models_name(serve.spec, serve.name, sizeof(serve.name));
	if (qsc_fault_check_names(serve.fault, (const char *const[]){serve.name}, 1, &err) < 0)
		tool_usage("%s", err.text);
	tool_log_to_stderr(serve.verbose ? QSC_LOG_INFO : QSC_LOG_WARNING);
	return make_and_run(&serve);
}
