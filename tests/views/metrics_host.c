/* SPDX-License-Identifier: MIT */
/*
 * The metrics of a host that does what a test says: `metrics-host ADDRESS` prints where it serves,
 * then takes lines from stdin and answers each with "ok": "devices NAME…", "state DEVICE STATE",
 * "blocks NUMBER", "look MILLISECONDS", "progress" and "moved", both followed by a move as JSON. It
 * ends with its input.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "../../tools/quiesce/metrics.h"
#include "../../tools/quiesce/tool.h"

static void set_devices(struct metrics *metrics, char *rest)
{
	const char *names[256];
	uint32_t count = 0;
	char *name;

	while ((name = strsep(&rest, " ")) != NULL && count < 256)
		names[count++] = name;
	(void)metrics_set_devices(metrics, names, count);
}

static int set_move(struct metrics *metrics, const char *text, bool ended)
{
	struct json_object *object = json_tokener_parse(text);
	struct move move;
	int result = move_from_json(object, &move);

	json_object_put(object);
	if (result < 0)
		return result;
	if (ended)
		metrics_moved(metrics, &move);
	else
		metrics_progress(metrics, &move, &move.samples[move.num_samples - 1]);
	move_release(&move);
	return 0;
}

static int follow(struct metrics *metrics, char *line)
{
	char *rest = strchr(line, ' ');
	char *end;
	unsigned long number;

	if (!rest)
		return -1;
	*rest++ = 0;
	if (!strcmp(line, "devices")) {
		set_devices(metrics, rest);
		return 0;
	}
	if (!strcmp(line, "progress") || !strcmp(line, "moved"))
		return set_move(metrics, rest, !strcmp(line, "moved"));
	number = strtoul(rest, &end, 10);
	if (!strcmp(line, "state"))
		metrics_set_state(metrics, (uint32_t)number, (unsigned int)strtoul(end, NULL, 10));
	else if (!strcmp(line, "look"))
		metrics_look(metrics, (uint32_t)number);
	else
		metrics_set_blocks(metrics, number);
	return 0;
}

int main(int argc, char **argv)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct metrics *metrics;
	char *line = NULL;
	size_t room = 0;
	ssize_t length;
	int result = 0;

	if (argc != 2)
		return 2;
	if (metrics_create(argv[1], &metrics, &err) < 0)
		return tool_fail_error(&err, "no metrics");
	printf("%s\n", metrics_address(metrics));
	(void)fflush(stdout);
	while (result == 0 && (length = getline(&line, &room, stdin)) > 0) {
		line[length - 1] = 0;
		result = follow(metrics, line);
		printf("%s\n", result < 0 ? "no" : "ok");
		(void)fflush(stdout);
	}
	free(line);
	metrics_destroy(metrics);
	return result < 0 ? 1 : 0;
}
