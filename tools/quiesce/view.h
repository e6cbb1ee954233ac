/* SPDX-License-Identifier: MIT */
/* What the views for a terminal share: how to write on it, and stretches of time drawn to scale. */
#ifndef VIEW_H
#define VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "move.h"

struct view_style {
	bool live;  /* a terminal: a line on it can change */
	bool color; /* it is one, and nobody asked for no colour (NO_COLOR) */
	bool utf8;
	uint32_t width;
};

/* As the terminal, the locale and the environment say. Sets the locale's character type. */
void view_style_detect(struct view_style *style, int fd);

/* ---- a stretch of time ---- */

struct view_phase {
	const char *name;
	char side;	/* stands in front of its row and lane; ' ' where there is only one */
	int32_t device; /* -1: the whole set */
	uint64_t start_us;
	uint64_t duration_us;
	uint64_t bytes;
};

struct view_picture {
	FILE *out;
	const struct view_style *style;
	const char *title;
	const struct view_phase *phases; /* all of them are drawn; clipped where they stick out */
	size_t num_phases;
	uint64_t start_us;
	uint64_t duration_us; /* not 0 */
	uint32_t devices;
	const char *sides; /* of each device, in the order of their lanes */
	/* Name of a device for its lane, any text; the lanes show the first VIEW_MAX_LANES. */
	const char *(*name)(const void *ctx, uint32_t device);
	const void *ctx;
};

#define VIEW_MAX_LANES 8U

/* Rows of the whole set's phases, and a lane for every device. */
void view_timeline(const struct view_picture *picture);

/* ---- a migration ---- */

/* Progress in one line without its end; on a terminal at most style->width - 1 columns of it. */
#define VIEW_LINE_SIZE 1024
void view_progress_line(const struct view_style *style, const struct move *move,
			const struct move_sample *sample, char line[VIEW_LINE_SIZE]);

/* As move_view_create(), on another descriptor than stderr. */
struct move_view *view_create_on(int fd, bool quiet);

/* What happened, for stdout, and what went wrong, for stderr: nothing where nothing did. */
void view_report(FILE *out, const struct view_style *style, const struct move *move);
void view_failure(FILE *errors, const struct view_style *style, const struct move *move);

#endif
