/* SPDX-License-Identifier: MIT */
/* `quiesce audit`: what those who hold devices do to them, judged against the contract. */
#include "audit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "tool.h"

#define MAX_FAULTS 64

struct command {
	struct audit_host host;
	const char *profile_name;
	enum qsc_audit_profile profile;
	const char *socket; /* until its --to comes */
	const char *faults[MAX_FAULTS + 1];
	unsigned int num_faults;
	const char *json_path;
	const char *junit_path;
	FILE *json, *junit;
	bool provoke;
	char **words; /* of the command, or NULL */
};

enum { KEY_TO = 0x100, KEY_JSON, KEY_JUNIT, KEY_PROVOKE };

static const struct argp_option options[] = {
	{"socket", 's', "PATH", 0, "Serve a device at this UNIX socket; --to tells which", 0},
	{"to", KEY_TO, "URI", 0, "What is behind the socket before: " TOOL_URI_FORMS, 0},
	{"device", 'd', "[NAME=]URI", 0,
	 "Give COMMAND this device, in place of one of the kernel's, or at {socket0}, {socket1}...",
	 0},
	{"profile", 'p', "strict|linux", 0,
	 "linux is silent on what the list of actions tolerates (strict)", 0},
	{"fault", 'f', "SPEC", 0, "Fail, delay or lie where SPEC says; again for more", 0},
	{"provoke", KEY_PROVOKE, NULL, 0,
	 "Run COMMAND once with each fault, and print what became of the data", 0},
	{"json", KEY_JSON, "FILE", 0, "Write what was found to FILE", 0},
	{"junit", KEY_JUNIT, "FILE", 0, "The same for continuous integration", 0},
	{0},
};

static void add_device(struct command *command, const char *name, const char *to,
		       const char *socket)
{
	struct qsc_error err = QSC_ERROR_NONE;
	char *uri = NULL;
	int result;

	if (!strncmp(to, "vfio-user:", 10) || !strncmp(to, "model:", 6) || !strncmp(to, "vfio:", 5))
		uri = strdup(to);
	else if (asprintf(&uri, "model:%s", to) < 0)
		uri = NULL;
	if (!uri)
		exit(tool_fail("out of memory"));
	result = audit_host_add(&command->host, name, uri, socket, &err);
	free(uri);
	if (result == -EINVAL)
		tool_usage("%s", err.text);
	if (result < 0)
		exit(tool_fail("%s", err.text));
}

/* [NAME=]URI: what stands before an '=' is a name unless it is the beginning of a URI. */
static void add_named(struct command *command, char *text)
{
	size_t size = strcspn(text, "=:,");

	if (text[size] != '=') {
		add_device(command, NULL, text, NULL);
		return;
	}
	text[size] = '\0';
	add_device(command, text, text + size + 1, NULL);
}

static void add_at_socket(struct command *command, const char *to)
{
	const char *slash;
	char name[64];

	if (!command->socket)
		tool_usage("--to stands before its --socket");
	slash = strrchr(command->socket, '/');
	(void)snprintf(name, sizeof(name), "%s", slash ? slash + 1 : command->socket);
	name[strcspn(name, ".")] = '\0';
	add_device(command, *name ? name : NULL, to, command->socket);
	command->socket = NULL;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct command *command = state->input;

	switch (key) {
	case 's':
		if (command->socket)
			tool_usage("--to URI is missing after --socket %s", command->socket);
		command->socket = arg;
		return 0;
	case KEY_TO:
		add_at_socket(command, arg);
		return 0;
	case 'd':
		add_named(command, arg);
		return 0;
	case 'p':
		command->profile_name = arg;
		return 0;
	case 'f':
		if (command->num_faults == MAX_FAULTS)
			tool_usage("more than %d faults are not possible", MAX_FAULTS);
		command->faults[command->num_faults++] = arg;
		return 0;
	case KEY_PROVOKE:
		command->provoke = true;
		return 0;
	case KEY_JSON:
		command->json_path = arg;
		return 0;
	case KEY_JUNIT:
		command->junit_path = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int split(int argc, char **argv, struct command *command)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		command->words = argv + i + 1;
		argv[i] = NULL;
		return i;
	}
	return argc;
}

static void check_profile(struct command *command)
{
	if (!strcmp(command->profile_name, "linux"))
		command->profile = QSC_AUDIT_LINUX;
	else if (strcmp(command->profile_name, "strict") != 0)
		tool_usage("there is no profile '%s'; there are strict and linux",
			   command->profile_name);
}

static void check_faults(const struct command *command)
{
	struct qsc_error err = QSC_ERROR_NONE;
	const char *names[AUDIT_MAX_DEVICES];

	for (unsigned int i = 0; i < command->host.num_devices; i++)
		names[i] = command->host.devices[i].name;
	for (unsigned int i = 0; i < command->num_faults; i++)
		if (qsc_fault_check_names(command->faults[i], names, command->host.num_devices,
					  &err) < 0)
			tool_usage("%s", err.text);
}

/* Before anything is made. */
static void check(struct command *command)
{
	struct qsc_error err = QSC_ERROR_NONE;

	check_profile(command);
	if (command->socket)
		tool_usage("--to URI is missing after --socket %s", command->socket);
	if (!command->host.num_devices)
		tool_usage("a device is missing: --socket PATH --to URI, or --device URI");
	if (command->words && !command->words[0])
		tool_usage("-- COMMAND is missing");
	if (command->provoke && !command->words)
		tool_usage("--provoke needs the recipe of a migration: -- COMMAND");
	if (command->provoke && !audit_takes_sockets(command->words))
		tool_usage("the recipe takes no device: it needs {socket0}, {socket1}... among its "
			   "arguments");
	if (command->provoke && command->junit_path)
		tool_usage("--junit is not for --provoke");
	check_faults(command);
	for (unsigned int i = 0; i < command->host.num_devices; i++) {
		const char *to = command->host.devices[i].to;
		struct qsc_device *dev;
		bool wrong = false;

		/* A model can be tried without touching anything. */
		if (strncmp(to, "model:", 6) != 0)
			continue;
		if (!tool_try_device(to, NULL, &dev, &wrong, &err))
			qsc_device_close(dev);
		else if (wrong)
			tool_usage("%s", err.text);
	}
}

/* All faults of a run as one specification; owned by the caller, NULL for none. */
static char *join_faults(const struct command *command)
{
	char *text = NULL;
	size_t size;
	FILE *out;

	if (!command->num_faults)
		return NULL;
	out = open_memstream(&text, &size);
	if (!out)
		exit(tool_fail("out of memory"));
	for (unsigned int i = 0; i < command->num_faults; i++)
		(void)fprintf(out, "%s%s", i ? "," : "", command->faults[i]);
	if (fclose(out))
		exit(tool_fail("out of memory"));
	return text;
}

static int wait_for_signal(const sigset_t *ends)
{
	int number;

	(void)sigwait(ends, &number);
	return -1;
}

static int report(struct command *command, int code)
{
	struct qsc_audit *audit = command->host.audit;
	bool failed = audit_report_count(audit).violations > 0 || code > 0;
	struct qsc_audit_totals totals;

	audit_report_print(audit, stdout);
	if (code > 0)
		printf("the command ended with exit code %d\n", code);
	/* Who was not looked at has not been found to be right. */
	qsc_audit_totals(audit, &totals);
	if (!totals.devices)
		failed = tool_fail("nobody used a device: nothing was audited");
	if (command->json)
		failed |= tool_close_output(
			command->json, command->json_path,
			audit_report_json(audit, command->profile_name, code, command->json));
	if (command->junit) {
		audit_report_junit(audit, command->junit);
		failed |= tool_close_output(command->junit, command->junit_path, 0);
	}
	return failed ? TOOL_FAILED : TOOL_OK;
}

static void tell(const struct audit_host *host)
{
	for (unsigned int i = 0; i < host->num_devices; i++)
		printf("auditing %s: %s at %s\n", host->devices[i].name, host->devices[i].to,
		       host->devices[i].address.sun_path);
	(void)fflush(stdout);
}

/* Serve until the command or a signal ends it, and report. */
static int run(struct command *command)
{
	struct audit_host *host = &command->host;
	struct qsc_error err = QSC_ERROR_NONE;
	char *fault = join_faults(command);
	sigset_t ends;
	int code = 0;

	(void)sigemptyset(&ends);
	(void)sigaddset(&ends, SIGINT);
	(void)sigaddset(&ends, SIGTERM);
	if (!command->words)
		(void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
	host->fault = fault;
	if (qsc_audit_create(command->profile, &host->audit) < 0)
		return tool_fail("out of memory");
	code = audit_host_start(host, &err);
	if (!code) {
		tell(host);
		code = command->words ? audit_run(host, command->words, NULL, &err)
				      : wait_for_signal(&ends);
	}
	audit_host_stop(host);
	if (err.number && tool_path_is_wrong(err.number)) {
		audit_host_release(host);
		tool_usage("%s", err.text);
	}
	code = err.number ? tool_fail("%s", err.text) : report(command, code);
	qsc_audit_destroy(host->audit);
	free(fault);
	return code;
}

static int provoke(struct command *command)
{
	int code = audit_provoke(&command->host, command->profile, command->faults, command->words,
				 command->json);

	if (command->json && tool_close_output(command->json, command->json_path, 0))
		code = TOOL_FAILED;
	return code;
}

int cmd_audit(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "[-- COMMAND [ARGUMENT...]]",
		.doc = "Stand before devices, note every action with the state it met, and judge "
		       "what "
		       "their users do, until COMMAND ends or SIGINT or SIGTERM comes.\v"
		       "In COMMAND, {iommufd}, {vfio0}... are what they are for 'quiesce run'; "
		       "when it "
		       "names {socket0} and on, it takes the devices over vfio-user by itself, and "
		       "{name0}... are their names. Exit codes: 0 nothing was broken, 1 something "
		       "was, or COMMAND failed, 2 "
		       "wrong usage. A recipe for --provoke prints the lines 'outcome: TEXT', "
		       "'reported: success' or 'failure', and 'data: right' or 'wrong'.",
	};
	static struct command command = {
		.profile_name = "strict",
		.host = {.folder = FOLDER_NONE},
	};
	int code;

	argc = split(argc, argv, &command);
	tool_parse(&argp, argc, argv, &command);
	check(&command);
	command.json = tool_open_output(command.json_path);
	command.junit = tool_open_output(command.junit_path);
	tool_raise_file_limit();
	tool_log_to_stderr(QSC_LOG_WARNING);
	code = command.provoke ? provoke(&command) : run(&command);
	audit_host_release(&command.host);
	return code;
}
