/* SPDX-License-Identifier: MIT */
/* What a command that asked a host for something shows of it, by the events that come back. */
#ifndef SHOW_H
#define SHOW_H

#include <argp.h>
#include <stdbool.h>

#include "move.h"

struct json_object;

struct show {
	bool json;
	bool quiet;
	const char *report; /* FILE of --report; or NULL */
	struct move_view *view;
	struct move move;
	bool ended;
	int code;
};

/* --json, --quiet, --report; input is a struct show. Without --report for a plan. */
extern const struct argp show_argp, show_plan_argp;
/* Before anything is touched: what was asked for can be written. Usage errors end the program. */
void show_check(const struct show *show);

/* One event of a host; ctx is a struct show. */
void show_event(void *ctx, struct json_object *event);
void show_release(struct show *show);

/* The plan of a host's answer, for a person. */
void show_plan(struct json_object *plan);

#endif
