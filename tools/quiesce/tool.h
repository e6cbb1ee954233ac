/* SPDX-License-Identifier: MIT */
/* What the subcommands share: exit codes, messages, options, numbers, JSON, text on a terminal. */
#ifndef TOOL_H
#define TOOL_H

#include <argp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <quiesce/base.h>

struct json_object;

enum {
	TOOL_OK = 0,
	TOOL_FAILED = 1,
	TOOL_USAGE = 2,
	TOOL_UNPROVED = 3, /* of a move: nobody is proved to own the set */
	TOOL_UNTRIED = 3,  /* of a check: nothing is broken, and it could not be tried */
};

/* Gets argv from the subcommand's name on; returns an exit code. */
typedef int tool_run(int argc, char **argv);

tool_run cmd_ask, cmd_audit, cmd_check, cmd_contract, cmd_demo, cmd_host, cmd_info, cmd_plan,
	cmd_receive, cmd_restore, cmd_run, cmd_save, cmd_send, cmd_serve;

/* The name that messages begin with ("quiesce info"), and argv[0] of a subcommand. */
extern char tool_name[64];

/* The exit code tells who has a set: output that fails is said, and does not change it. */
extern bool tool_code_stands;

/* One sentence on stderr, without full stop. Returns TOOL_FAILED, so that one can `return` it. */
int tool_fail(const char *fmt, ...) QSC_PRINTF(1, 2);
/* The same from an error of the library: context, text and the clause it names. */
int tool_fail_error(const struct qsc_error *err, const char *fmt, ...) QSC_PRINTF(2, 3);
/* The command line is wrong: one sentence on stderr, and the program ends with TOOL_USAGE. */
_Noreturn void tool_usage(const char *fmt, ...) QSC_PRINTF(1, 2);

/*
 * argp_parse() for a subcommand: whatever is wrong with the command line ends the program as
 * tool_usage() does, arguments the subcommand has not asked for included. At most TOOL_MAX_CHILDREN
 * children.
 */
#define TOOL_MAX_CHILDREN 4
void tool_parse(const struct argp *argp, int argc, char **argv, void *input);

/*
 * Whether an error in using a path that the person typed is theirs (nothing is there, another thing
 * is, or they may not) and not the machine's (no memory, no room).
 */
bool tool_path_is_wrong(int number);

/*
 * A file for a report, made before the work that it is about: one that cannot be made ends the
 * program then. NULL for no path. The end of it: a failure to write it, now or before (result < 0),
 * is said and returned as TOOL_FAILED.
 */
FILE *tool_open_output(const char *path);
int tool_close_output(FILE *file, const char *path, int result);

/* "300ms" → 300000, also us, s and min. 0 or -errno. */
int tool_parse_time(const char *text, uint64_t *us);

/* A size in bytes, "4096", "64K", "256M", "2GiB" or "1T". 0, -EINVAL, or -ERANGE when too large. */
int tool_parse_size(const char *text, uint64_t *bytes);
/* A plain number from min to max. 0, -EINVAL or -ERANGE. */
int tool_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number);

/* A size the way a person reads it, "64 MiB"; exact when it can be. */
const char *tool_size_text(uint64_t bytes, char text[32]);

/* Write it to a file as tool_print_json() prints it, and free it. 0 or -errno. */
int tool_write_json(struct json_object *object, FILE *out);
/* Print and free. A NULL object (out of memory on the way) fails. Returns an exit code. */
int tool_print_json(struct json_object *object);

/* Every device and interrupt vector is a file: as many as we may have. */
void tool_raise_file_limit(void);

/* Columns of the terminal, between 60 and 120; 100 when the output is none. */
unsigned int tool_columns(void);
/* Print text from the current column `indent` on, wrapped, every line indented so far. */
void tool_print_wrapped(const char *text, unsigned int indent);

#endif
