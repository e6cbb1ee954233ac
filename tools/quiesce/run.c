/* SPDX-License-Identifier: MIT */
/* `quiesce run`: a command that finds devices of ours where the kernel would have them. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"
#include "launch.h"
#include "seen.h"
#include "tool.h"

struct run {
	struct launch launch;
	char **command;
	bool quiet;
	const char *json;
};

static const struct argp_option options[] = {
	{"device", 'd', "SPEC", 0,
	 "Give the command this device: a model with options, or vfio-user:PATH; again for more",
	 0},
	{"fault", 'f', "SPEC", 0, "Let the devices fail, delay or lie where SPEC says", 0},
	{"trace", 't', "FILE", 0, "Write one line for every action on the devices", 0},
	{"json", 'j', "FILE", 0, "Write what the devices saw to FILE when the command has ended",
	 0},
	{"quiet", 'q', NULL, 0, "Say nothing unless something failed", 0},
	{0},
};

static void add(struct run *run, const char *spec, bool fault)
{
	struct qsc_error err = QSC_ERROR_NONE;
	int result = fault ? launch_set_fault(&run->launch, spec, &err)
			   : launch_add_device(&run->launch, spec, &err);

	if (result < 0 && tool_path_is_wrong(-result))
		tool_usage("%s", err.text);
	if (result < 0)
		exit(tool_fail("%s", err.text));
}

/* The command may change its folder, and so may what it starts. */
static void set_trace(struct run *run, const char *path)
{
	FILE *file = fopen(path, "we");
	char *folder;

	if (!file) {
		if (tool_path_is_wrong(errno))
			tool_usage("cannot write the trace to %s: %s", path, strerror(errno));
		exit(tool_fail("cannot write the trace to %s: %s", path, strerror(errno)));
	}
	(void)fclose(file);
	free(run->launch.config.trace);
	/* Not resolved: what /dev/stdout leads to has no path of its own. */
	folder = *path == '/' ? strdup("") : getcwd(NULL, 0);
	if (!folder ||
	    asprintf(&run->launch.config.trace, "%s%s%s", folder, *folder ? "/" : "", path) < 0)
		exit(tool_fail("cannot tell where the trace is to be: %s", strerror(errno)));
	free(folder);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct run *run = state->input;

	switch (key) {
	case 'd':
	case 'f':
		add(run, arg, key == 'f');
		return 0;
	case 't':
		set_trace(run, arg);
		return 0;
	case 'j':
		run->json = arg;
		return 0;
	case 'q':
		run->quiet = true;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* The command begins after "--"; the rest of the line is ours. */
static int split(int argc, char **argv, struct run *run)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--") != 0)
			continue;
		run->command = argv + i + 1;
		argv[i] = NULL;
		return i;
	}
	return argc;
}

int cmd_run(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "-- COMMAND [ARGUMENT...]",
		.doc = "Run a command that uses VFIO, such as QEMU, with devices of ours in place "
		       "of the kernel's.\v"
		       "In the command, {iommufd} and {vfio0}, {vfio1}... become the numbers of "
		       "open files (as for fd=), {host0}... PCI addresses (host=) and {sysfs0}... "
		       "folders (sysfsdev=). The exit code is the command's.",
	};
	struct run run = {.launch = LAUNCH_NONE};
	struct qsc_error err = QSC_ERROR_NONE;
	int code;

	argc = split(argc, argv, &run);
	tool_parse(&argp, argc, argv, &run);
	if (!run.launch.config.num_devices)
		tool_usage("--device SPEC is missing");
	if (!run.command || !run.command[0])
		tool_usage("-- COMMAND is missing");
	if (launch_check_fault(&run.launch, &err) < 0)
		tool_usage("%s", err.text);
	tool_raise_file_limit();
	code = launch_make(&run.launch, run.command, &err);
	if (!code) {
		if (!run.quiet)
			launch_tell(&run.launch, stderr);
		code = launch_run(&run.launch, &err);
	}
	if (code < 0 && tool_path_is_wrong(-code)) {
		launch_release(&run.launch);
		tool_usage("%s", err.text);
	}
	if (code < 0)
		code = tool_fail("%s", err.text);
	else if (!run.quiet)
		seen_print(&run.launch, stderr);
	if (run.json && run.launch.seen && seen_write_json(&run.launch, run.json, &err) < 0)
		code = tool_fail("%s", err.text);
	launch_release(&run.launch);
	return code;
}
