/* SPDX-License-Identifier: MIT */
/* See show.h. The host may be another process, so what it says is looked at before it is shown. */
#include "show.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "text.h"
#include "tool.h"

enum {
	KEY_JSON = 768, /* above those of host_options.c */
	KEY_QUIET,
	KEY_REPORT,
};

static const struct argp_option options[] = {
	{"report", KEY_REPORT, "FILE", 0, "Write a page (HTML) that shows what happened when", 3},
	{"json", KEY_JSON, NULL, 0, "Print one JSON object at the end", 3},
	{"quiet", KEY_QUIET, NULL, 0,
	 "Show nothing but what goes wrong, and where a set is waited for", 3},
	{0},
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct show *show = state->input;

	switch (key) {
	case KEY_JSON:
		show->json = true;
		return 0;
	case KEY_QUIET:
		show->quiet = true;
		return 0;
	case KEY_REPORT:
		if (!*arg)
			tool_usage("--report takes a FILE");
		show->report = arg;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp show_argp = {.options = options, .parser = parse};
/* Nothing happens, so there is nothing to report. */
const struct argp show_plan_argp = {.options = options + 1, .parser = parse};

void show_check(const struct show *show)
{
	struct qsc_error err = QSC_ERROR_NONE;

	if (show->report && move_check_html(show->report, &err) < 0)
		tool_usage("%s", err.text);
}

static struct json_object *get(struct json_object *object, const char *key)
{
	struct json_object *value = NULL;

	return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

static void get_text(struct json_object *object, const char *key, char *text, size_t size)
{
	struct json_object *value = get(object, key);

	text_clean(text, size,
		   json_object_is_type(value, json_type_string) ? json_object_get_string(value)
								: "",
		   true);
}

static void on_begin(struct show *show, struct json_object *event)
{
	move_release(&show->move);
	if (move_from_json(get(event, "move"), &show->move) == 0 && !show->view)
		show->view = move_view_create(show->quiet);
}

/* Also when quiet: a source cannot come before, nor find a port that was free. Not so a file. */
static void on_listening(const struct show *show, struct json_object *event)
{
	char address[256];

	get_text(event, "address", address, sizeof(address));
	if (show->quiet && (!strncmp(address, "file:", 5) || !strncmp(address, "fd:", 3)))
		return;
	(void)fprintf(stderr, "%s: waiting at %s\n", tool_name, address);
}

static void on_progress(struct show *show, struct json_object *event)
{
	struct move_sample sample;

	if (!show->view || move_sample_from_json(get(event, "sample"), &sample) < 0)
		return;
	(void)move_keep_sample(&show->move, &sample);
	move_view_progress(show->view, &show->move, &sample);
}

/* Of what was no move. */
static void say_error(const struct show *show, struct json_object *error)
{
	char text[QSC_ERROR_TEXT_SIZE], clause[16];

	get_text(error, "text", text, sizeof(text));
	get_text(error, "clause", clause, sizeof(clause));
	if (show->code == TOOL_USAGE)
		(void)fprintf(stderr, "%s: %s; see '%s --help'\n", tool_name, text, tool_name);
	else
		(void)tool_fail("%s%s%s%s", text, *clause ? " (clause " : "", clause,
				*clause ? ")" : "");
}

static void write_report(struct show *show)
{
	struct qsc_error err = QSC_ERROR_NONE;

	/* The exit code tells who has the set, and that is as it was. */
	if (show->report && move_write_html(&show->move, show->report, &err) < 0)
		(void)tool_fail_error(&err, "what happened is not changed by it, but");
}

/* The JSON says what there is to say, except what went wrong. */
static void be_quiet(struct show *show)
{
	if (!show->quiet && isatty(STDERR_FILENO))
		(void)fputc('\n', stderr);
	move_view_destroy(show->view);
	show->view = move_view_create(true);
}

static void on_end(struct show *show, struct json_object *event)
{
	struct json_object *error = get(event, "error"), *move = get(event, "move"),
			   *plan = get(event, "plan");
	int64_t code = json_object_get_int64(get(event, "code"));
	bool moved;

	move_release(&show->move);
	moved = move && move_from_json(move, &show->move) == 0;
	show->ended = true;
	show->code = code >= TOOL_OK && code <= TOOL_UNPROVED ? (int)code : TOOL_FAILED;
	if (show->json && (moved || plan))
		(void)tool_print_json(json_object_get(plan ? plan : move));
	else if (plan)
		show_plan(plan);
	if (show->json)
		be_quiet(show);
	/* What went wrong with a move is said there too. */
	if (moved && show->view)
		move_view_end(show->view, &show->move);
	(void)fflush(stdout);
	if (error && !show->move.error_number)
		say_error(show, error);
	if (moved)
		write_report(show);
}

void show_event(void *ctx, struct json_object *event)
{
	struct show *show = ctx;
	char name[16];

	get_text(event, "event", name, sizeof(name));
	if (!strcmp(name, "begin"))
		on_begin(show, event);
	else if (!strcmp(name, "listening"))
		on_listening(show, event);
	else if (!strcmp(name, "progress"))
		on_progress(show, event);
	else if (!strcmp(name, "end"))
		on_end(show, event);
}

void show_release(struct show *show)
{
	move_view_destroy(show->view);
	show->view = NULL;
	move_release(&show->move);
}
