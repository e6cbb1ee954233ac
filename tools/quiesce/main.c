/* SPDX-License-Identifier: MIT */
/* The tool: one file a subcommand, over one table. Exit codes: 0 done, 1 failed, 2 wrong usage. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quiesce/base.h>

#include "tool.h"

struct command {
	const char *name;
	const char *help;
	tool_run *run;
};

static const struct command commands[] = {
	{"ask", "ask a host how it stands, or to cancel, finish or run", cmd_ask},
	{"audit", "judge what those who hold devices do to them", cmd_audit},
	{"check", "try on a device everything that the contract promises of it", cmd_check},
	{"contract", "print the migration contract: arcs, allowed actions, clauses", cmd_contract},
	{"demo", "move a set of working devices between two processes and back", cmd_demo},
	{"host", "hold devices, and move them when asked to", cmd_host},
	{"info", "show what a device is and can", cmd_info},
	{"plan", "tell whether and how a set can move, and how long it would stop", cmd_plan},
	{"receive", "take over a set that is sent", cmd_receive},
	{"restore", "take over a set from a file", cmd_restore},
	{"run", "run a command, such as QEMU, with devices in place of the kernel's", cmd_run},
	{"save", "move a set of devices and its memory into a file", cmd_save},
	{"send", "move a set of devices and its memory to another process or host", cmd_send},
	{"serve", "serve a device over vfio-user", cmd_serve},
};

#define NUM_COMMANDS (sizeof(commands) / sizeof(commands[0]))

static int print_help(void)
{
	printf("Usage: quiesce COMMAND [OPTION...]\n\n"
	       "Live migration of VFIO devices.\n\n");
	for (size_t i = 0; i < NUM_COMMANDS; i++)
		printf("  %-12s%s\n", commands[i].name, commands[i].help);
	printf("\n'quiesce help COMMAND' tells the options of a command. Exit codes: 0 done,\n"
	       "1 failed, 2 wrong usage, 3 moved by half: nobody is proved to own the set; or, of\n"
	       "'check', what could not be tried.\n");
	return TOOL_OK;
}

static const struct command *find(const char *name)
{
	for (size_t i = 0; i < NUM_COMMANDS; i++)
		if (!strcmp(name, commands[i].name))
			return &commands[i];
	tool_usage("there is no command '%s'", name);
}

/* `quiesce help [COMMAND]` is `quiesce [COMMAND] --help`. */
static int help(int argc, char **argv)
{
	static char option[] = "--help";
	char *line[] = {tool_name, option, NULL};
	const struct command *command;

	if (argc < 1)
		return print_help();
	if (argc > 1)
		tool_usage("unexpected argument '%s'", argv[1]);
	command = find(argv[0]);
	(void)snprintf(tool_name, sizeof(tool_name), "quiesce %s", command->name);
	return command->run(2, line);
}

static int run(int argc, char **argv)
{
	const struct command *command;

	if (argc < 2)
		tool_usage("a command is missing");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-?") || !strcmp(argv[1], "-h"))
		return print_help();
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("quiesce %s\n", qsc_version());
		return TOOL_OK;
	}
	if (!strcmp(argv[1], "help"))
		return help(argc - 2, argv + 2);
	command = find(argv[1]);
	(void)snprintf(tool_name, sizeof(tool_name), "quiesce %s", command->name);
	argv[1] = tool_name;
	return command->run(argc - 1, argv + 1);
}

/* A stream that is closed is one that fails; nothing else may take its number. */
static void keep_standard_streams(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)open("/dev/null", fd ? O_RDONLY : O_WRONLY);
}

/* What did not reach its reader was not done, whichever way the program ends; a set has moved. */
static void check_output(int code, void *unused)
{
	int failed;

	(void)unused;
	if ((!fflush(stdout) && !ferror(stdout)) || code != TOOL_OK)
		return;
	failed = tool_fail("cannot write to standard output");
	_exit(tool_code_stands ? code : failed);
}

int main(int argc, char **argv)
{
	keep_standard_streams();
	/* A file that may not grow is an error with a sentence, as a full disk is. */
	(void)signal(SIGXFSZ, SIG_IGN);
	if (on_exit(check_output, NULL))
		return tool_fail("out of memory");
	return run(argc, argv);
}
