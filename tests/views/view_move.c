/* SPDX-License-Identifier: MIT */
/*
 * A migration that a test made up, as the tool's views show it: JSON of a move on stdin, and
 * `view-move text` prints what a person sees, `view-move html PATH` writes the report, `view-move
 * json` tells it again. Exit code 4 for what is no move.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "../../tools/quiesce/move.h"
#include "../../tools/quiesce/tool.h"

static int show(const struct move *move, const char *what, const char *path)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct move_view *view;

	if (!strcmp(what, "json"))
		return tool_print_json(move_to_json(move));
	if (!strcmp(what, "html") && path)
		return move_write_html(move, path, &err) < 0 ? tool_fail_error(&err, "no report")
							     : TOOL_OK;
	view = move_view_create(false);
	for (size_t i = 0; i < move->num_samples; i++)
		move_view_progress(view, move, &move->samples[i]);
	move_view_end(view, move);
	move_view_destroy(view);
	return move_exit_code(move);
}

int main(int argc, char **argv)
{
	struct json_object *object = json_object_from_fd(STDIN_FILENO);
	struct move move;
	int code = 4;

	if (argc > 1 && move_from_json(object, &move) == 0) {
		code = show(&move, argv[1], argc > 2 ? argv[2] : NULL);
		move_release(&move);
	}
	json_object_put(object);
	return code;
}
