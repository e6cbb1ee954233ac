/* SPDX-License-Identifier: MIT */
/* See tool.h. */
#include "tool.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <json-c/json.h>

#include "text.h"

char tool_name[64] = "quiesce";
bool tool_code_stands;

/* The real one while stderr is a buffer for what getopt() says. */
static FILE *terminal;

static FILE *complaints(void)
{
	return terminal ? terminal : stderr;
}

static void complain(const char *fmt, va_list args)
{
	(void)fprintf(complaints(), "%s: ", tool_name);
	/* NOLINTNEXTLINE(clang-analyzer-valist.*): the callers have begun it. */
	(void)vfprintf(complaints(), fmt, args);
}

int tool_fail(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	(void)fputc('\n', complaints());
	return TOOL_FAILED;
}

int tool_fail_error(const struct qsc_error *err, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	(void)fprintf(complaints(), ": %s", err->text[0] ? err->text : strerror(err->number));
	if (err->clause)
		(void)fprintf(complaints(), " (clause %s)", err->clause);
	(void)fputc('\n', complaints());
	return TOOL_FAILED;
}

void tool_usage(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	(void)fprintf(complaints(), "; see '%s --help'\n", tool_name);
	exit(TOOL_USAGE);
}

/* Last in the line: takes what the subcommand's own parser did not want. */
static error_t parse_rest(int key, char *arg, struct argp_state *state)
{
	switch (key) {
	case ARGP_KEY_INIT:
		/* What getopt() says is enough. */
		state->err_stream = NULL;
		return 0;
	case ARGP_KEY_ARG:
		tool_usage("unexpected argument '%s'", arg);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static void print_version(FILE *out, struct argp_state *state)
{
	(void)state;
	(void)fprintf(out, "quiesce %s\n", qsc_version());
}

/* "TOOL_NAME: SENTENCE\n", as getopt() writes it. */
static _Noreturn void getopt_usage(const char *said, int number)
{
	size_t prefix = strlen(tool_name) + 2;

	if (!said || strlen(said) <= prefix)
		tool_usage("%s", strerror(number));
	said += prefix;
	tool_usage("%.*s", (int)strcspn(said, "\n"), said);
}

void tool_parse(const struct argp *argp, int argc, char **argv, void *input)
{
	static const struct argp rest = {.parser = parse_rest};
	struct argp_child children[TOOL_MAX_CHILDREN + 2] = {{0}};
	size_t n = 0;
	struct argp top = *argp;
	char *said = NULL;
	size_t size = 0;
	FILE *buffer;
	error_t result;

	while (argp->children && argp->children[n].argp && n < TOOL_MAX_CHILDREN) {
		children[n] = argp->children[n];
		n++;
	}
	children[n].argp = &rest;
	top.children = children;
	argp_program_version_hook = print_version;
	/* Without the paragraph on arguments of short options, which says nothing here. */
	(void)setenv("ARGP_HELP_FMT", "no-dup-args-note", 0);
	/* getopt() says best what is wrong with an option, but not where to look. */
	buffer = open_memstream(&said, &size);
	if (buffer) {
		terminal = stderr;
		stderr = buffer;
	}
	result = argp_parse(&top, argc, argv, 0, NULL, input);
	if (buffer) {
		stderr = terminal;
		terminal = NULL;
		(void)fclose(buffer);
	}
	if (result)
		getopt_usage(said, result);
	free(said);
}

bool tool_path_is_wrong(int number)
{
	static const int theirs[] = {ENOENT, ENOTDIR, EISDIR, ENOTSOCK, EACCES,	     EPERM,
				     EROFS,  ELOOP,   ENXIO,  EINVAL,	ENAMETOOLONG};

	for (size_t i = 0; i < sizeof(theirs) / sizeof(theirs[0]); i++)
		if (theirs[i] == number)
			return true;
	return false;
}

static int parse_digits(const char *text, uint64_t *number, char **end)
{
	/* strtoull() takes signs and blanks, which no number here has. */
	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	*number = strtoull(text, end, 10);
	return errno ? -errno : 0;
}

int tool_parse_number(const char *text, uint64_t min, uint64_t max, uint64_t *number)
{
	uint64_t value;
	char *end;
	int result = parse_digits(text, &value, &end);

	if (result < 0)
		return result;
	if (*end)
		return -EINVAL;
	if (value < min || value > max)
		return -ERANGE;
	*number = value;
	return 0;
}

int tool_parse_time(const char *text, uint64_t *us)
{
	static const struct {
		const char *name;
		uint64_t us;
	} units[] = {{"us", 1}, {"ms", 1000}, {"s", 1000000}, {"min", 60000000}};
	uint64_t number;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	number = strtoull(text, &end, 10);
	for (size_t i = 0; !errno && i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcmp(end, units[i].name)) {
			if (number > UINT64_MAX / units[i].us)
				return -ERANGE;
			*us = number * units[i].us;
			return 0;
		}
	return -EINVAL;
}

int tool_parse_size(const char *text, uint64_t *bytes)
{
	static const char units[] = "KMGT";
	const char *unit;
	unsigned int shift = 0;
	uint64_t value;
	char *end;
	int result = parse_digits(text, &value, &end);

	if (result < 0)
		return result;
	if (*end) {
		unit = strchr(units, *end);
		if (!unit || (end[1] && strcmp(end + 1, "iB") != 0))
			return -EINVAL;
		shift = 10 * (unsigned int)(unit - units + 1);
	}
	if (value > UINT64_MAX >> shift)
		return -ERANGE;
	*bytes = value << shift;
	return 0;
}

const char *tool_size_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	unsigned int unit = 0;

	while (bytes && !(bytes % 1024) && unit < 6) {
		bytes /= 1024;
		unit++;
	}
	(void)snprintf(text, 32, "%" PRIu64 " %s", bytes, units[unit]);
	return text;
}

int tool_write_json(struct json_object *object, FILE *out)
{
	const char *text = NULL;
	int result = -ENOMEM;

	if (object)
		text = json_object_to_json_string_ext(
			object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
					JSON_C_TO_STRING_NOSLASHESCAPE);
	if (text) {
		/* json-c takes the bytes of a name for UTF-8, which they need not be. */
		text_write(out, text);
		result = fputc('\n', out) < 0 || ferror(out) ? -errno : 0;
	}
	json_object_put(object);
	return result;
}

int tool_print_json(struct json_object *object)
{
	/* What stdout does not take is found at the end. */
	return tool_write_json(object, stdout) == -ENOMEM ? tool_fail("out of memory") : TOOL_OK;
}

FILE *tool_open_output(const char *path)
{
	FILE *file = path ? fopen(path, "we") : NULL;

	if (path && !file && tool_path_is_wrong(errno))
		tool_usage("cannot write to %s: %s", path, strerror(errno));
	if (path && !file)
		exit(tool_fail("cannot write to %s: %s", path, strerror(errno)));
	return file;
}

int tool_close_output(FILE *file, const char *path, int result)
{
	int number = result < 0 ? -result : 0;

	if (!number && ferror(file))
		number = EIO;
	if (fclose(file) != 0 && !number)
		number = errno;
	return number ? tool_fail("cannot write to %s: %s", path, strerror(number)) : TOOL_OK;
}

void tool_raise_file_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
}

unsigned int tool_columns(void)
{
	struct winsize size;
	unsigned int columns = 100;

	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_col)
		columns = size.ws_col;
	if (columns < 60)
		return 60;
	return columns > 120 ? 120 : columns;
}

void tool_print_wrapped(const char *text, unsigned int indent)
{
	unsigned int width = tool_columns();
	unsigned int column = indent;

	while (*text) {
		size_t word = strcspn(text, " ");

		if (column > indent && column + 1 + word > width) {
			printf("\n%*s", (int)indent, "");
			column = indent;
		}
		if (column > indent) {
			(void)putchar(' ');
			column++;
		}
		(void)fwrite(text, 1, word, stdout);
		column += (unsigned int)word;
		text += word;
		text += strspn(text, " ");
	}
	(void)putchar('\n');
}
