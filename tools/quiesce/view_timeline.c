/* SPDX-License-Identifier: MIT */
/* A stretch of time drawn to scale: rows of the whole set's phases, then a lane for every device.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "view.h"

/* Width of what stands left of a bar. */
#define LEFT	61
#define BAR_MIN 18U
#define BAR_MAX 60U

/* How a phase looks in a lane. */
struct look {
	const char *name;
	const char *utf8;
	char ascii;
	const char *color;
};

static const struct look looks[] = {
	{"log-start", "·", 'g', ""},	   {"start-precopy", "╌", 'b', ""},
	{"start-load", "╍", 'o', ""},	   {"precopy", "▒", 'p', "\033[34m"},
	{"revoke", "╳", 'x', "\033[35m"},  {"quiesce", "░", 'q', "\033[36m"},
	{"stop", "▄", 's', "\033[36m"},	   {"stop-copy", "█", 'c', "\033[34m"},
	{"load", "▓", 'l', "\033[33m"},	   {"validate", "═", 'v', "\033[33m"},
	{"start", "▀", 't', "\033[32m"},   {"run", "■", 'r', "\033[32m"},
	{"restore", "╋", 'e', "\033[35m"}, {"other", "─", '-', ""},
};

#define NUM_LOOKS (sizeof(looks) / sizeof(looks[0]))

static const struct look *look_of(const char *name)
{
	size_t i;

	/* The last one is for what has no look of its own. */
	for (i = 0; i < NUM_LOOKS - 1 && strcmp(looks[i].name, name) != 0; i++)
		continue;
	return &looks[i];
}

static uint32_t bar_columns(const struct view_style *style)
{
	uint32_t columns = style->width > LEFT + BAR_MIN ? style->width - LEFT : BAR_MIN;

	return columns < BAR_MAX ? columns : BAR_MAX;
}

/* The column of a time, counted from the left edge; the last one for all that is further right. */
static uint32_t column_of(const struct view_picture *picture, uint64_t us)
{
	uint32_t columns = bar_columns(picture->style);
	double place = (double)us / (double)picture->duration_us * columns;

	return place < columns ? (uint32_t)place : columns - 1;
}

/* First and last column of a phase; false when it is not on the scale at all. */
static bool place(const struct view_picture *picture, const struct view_phase *phase,
		  uint32_t *first, uint32_t *last)
{
	uint64_t end = phase->start_us + phase->duration_us;
	uint64_t from = phase->start_us > picture->start_us ? phase->start_us - picture->start_us
							    : 0;

	if (end < picture->start_us || from >= picture->duration_us)
		return false;
	end -= picture->start_us;
	*first = column_of(picture, from);
	*last = column_of(picture, end);
	if (*last > *first && end < picture->duration_us)
		(*last)--;
	return true;
}

static void print_cells(const struct view_picture *picture, const struct look *const cells[])
{
	const struct view_style *style = picture->style;
	uint32_t columns = bar_columns(style);
	const char *color = "";
	uint32_t i;

	while (columns && !cells[columns - 1])
		columns--;
	for (i = 0; i < columns; i++) {
		const struct look *look = cells[i];
		const char *wanted = look ? look->color : "";

		if (style->color && strcmp(wanted, color) != 0) {
			(void)fprintf(picture->out, "\033[0m%s", wanted);
			color = wanted;
		}
		if (!look)
			(void)fputc(' ', picture->out);
		else if (style->utf8)
			(void)fputs(look->utf8, picture->out);
		else
			(void)fputc(look->ascii, picture->out);
	}
	if (style->color)
		(void)fputs("\033[0m", picture->out);
}

/* ---- phases of the whole set ---- */

/* All phases of one name for the whole set on one side: one row. */
struct row {
	const struct view_phase *first;
	uint32_t count;
	uint64_t took_us;
	uint64_t bytes;
};

#define MAX_ROWS 32U

static bool same_row(const struct view_phase *a, const struct view_phase *b)
{
	return a->device < 0 && b->device < 0 && a->side == b->side && !strcmp(a->name, b->name);
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *left = a, *right = b;

	if (left->first->start_us != right->first->start_us)
		return left->first->start_us < right->first->start_us ? -1 : 1;
	return strcmp(left->first->name, right->first->name);
}

static size_t collect_rows(const struct view_picture *picture, struct row *rows)
{
	size_t i, j, count = 0;

	for (i = 0; i < picture->num_phases; i++) {
		const struct view_phase *phase = &picture->phases[i];

		if (phase->device >= 0)
			continue;
		for (j = 0; j < count && !same_row(rows[j].first, phase); j++)
			continue;
		if (j == MAX_ROWS)
			continue;
		if (j == count)
			rows[count++] = (struct row){.first = phase};
		rows[j].count++;
		rows[j].took_us += phase->duration_us;
		rows[j].bytes += phase->bytes;
	}
	qsort(rows, count, sizeof(rows[0]), compare_rows);
	return count;
}

static void print_row(const struct view_picture *picture, const struct row *row)
{
	static const struct look bar = {"", "▬", '=', ""};
	const struct look *cells[BAR_MAX] = {NULL};
	char start[TEXT_SIZE], took[TEXT_SIZE], bytes[TEXT_SIZE] = "";
	char rate[TEXT_SIZE] = "", name[64];
	uint32_t first, last;
	size_t i;

	for (i = 0; i < picture->num_phases; i++) {
		const struct view_phase *phase = &picture->phases[i];

		if (!same_row(phase, row->first) || !place(picture, phase, &first, &last))
			continue;
		for (; first <= last; first++)
			cells[first] = &bar;
	}
	text_clean(name, 24, row->first->name, false);
	if (row->count > 1)
		(void)snprintf(name + strlen(name), sizeof(name) - strlen(name), " x%u",
			       row->count);
	if (row->bytes)
		(void)text_bytes(bytes, row->bytes);
	if (row->bytes && row->took_us)
		(void)text_rate(rate, text_per_second(row->bytes, row->took_us));
	/* Without the micro sign, which is two bytes in one column. */
	(void)text_time(start, row->first->start_us - picture->start_us);
	(void)text_time(took, row->took_us);
	(void)fprintf(picture->out, "  %c  %-18.18s %7s %7s %8s %10s  ", row->first->side, name,
		      start, took, bytes, rate);
	print_cells(picture, cells);
	(void)fputc('\n', picture->out);
}

static void print_rows(const struct view_picture *picture)
{
	struct row rows[MAX_ROWS];
	size_t i, count = collect_rows(picture, rows);
	char whole[TEXT_SIZE];

	(void)text_time(whole, picture->duration_us);
	(void)fprintf(picture->out, "\n     %-18s %7s %7s %8s %10s  0%*s\n", picture->title,
		      "start", "took", "moved", "rate", (int)bar_columns(picture->style) - 1,
		      whole);
	for (i = 0; i < count; i++)
		print_row(picture, &rows[i]);
}

/* ---- lanes of devices ---- */

#define LANE_NAMES 8U

struct lane {
	const struct look *cells[BAR_MAX];
	/* Every kind of phase in it, and how long all of that kind took. */
	const char *names[LANE_NAMES];
	uint64_t took_us[LANE_NAMES];
	uint32_t count;
};

static void paint(const struct view_picture *picture, struct lane *lane,
		  const struct view_phase *phase)
{
	uint32_t first, last, i;

	if (!place(picture, phase, &first, &last))
		return;
	for (; first <= last; first++)
		lane->cells[first] = look_of(phase->name);
	for (i = 0; i < lane->count && strcmp(lane->names[i], phase->name) != 0; i++)
		continue;
	if (i == LANE_NAMES)
		return;
	if (i == lane->count) {
		lane->names[lane->count++] = phase->name;
		lane->took_us[i] = 0;
	}
	lane->took_us[i] += phase->duration_us;
}

/* "device 0 quiesce 0.3, stop-copy 1.9 ms"; what is too short to matter is only drawn. */
static void describe_lane(const struct view_picture *picture, const struct lane *lane,
			  uint32_t device, char *text, size_t size)
{
	const char *separator = "";
	size_t used;
	uint32_t i;

	text_clean(text, size, picture->name(picture->ctx, device), picture->style->utf8);
	used = strlen(text);
	for (i = 0; i < lane->count && used < size; i++) {
		double ms = (double)lane->took_us[i] / 1e3;

		if (lane->took_us[i] < picture->duration_us / 50)
			continue;
		used += (size_t)snprintf(text + used, size - used, "%s %s %.*f", separator,
					 lane->names[i], ms < 100 ? 1 : 0, ms);
		separator = ",";
	}
	if (*separator && used < size)
		(void)snprintf(text + used, size - used, " ms");
}

static void print_lane(const struct view_picture *picture, uint32_t device, char side)
{
	struct lane lane = {.count = 0};
	char text[512];
	size_t i, used;

	for (i = 0; i < picture->num_phases; i++) {
		const struct view_phase *phase = &picture->phases[i];

		if (phase->device == (int32_t)device && phase->side == side)
			paint(picture, &lane, phase);
	}
	if (!lane.count)
		return;
	describe_lane(picture, &lane, device, text, sizeof(text));
	text_clean(text, sizeof(text), text, picture->style->utf8);
	used = text_cut(text, LEFT - 6);
	(void)fprintf(picture->out, "  %c  %s%*s ", side, text, (int)(LEFT - 6 - used), "");
	print_cells(picture, lane.cells);
	(void)fputc('\n', picture->out);
}

static void print_legend(const struct view_picture *picture)
{
	const struct view_style *style = picture->style;
	const char *separator = "     ";
	size_t i, j;

	for (i = 0; i < NUM_LOOKS; i++) {
		char ascii[2] = {looks[i].ascii, 0};

		for (j = 0; j < picture->num_phases; j++) {
			if (picture->phases[j].device >= 0 &&
			    look_of(picture->phases[j].name) == &looks[i])
				break;
		}
		if (j == picture->num_phases)
			continue;
		(void)fprintf(picture->out, "%s%s%s%s %s", separator,
			      style->color ? looks[i].color : "",
			      style->utf8 ? looks[i].utf8 : ascii, style->color ? "\033[0m" : "",
			      looks[i].name);
		separator = "  ";
	}
	(void)fputc('\n', picture->out);
}

void view_timeline(const struct view_picture *picture)
{
	const char *side;
	uint32_t device;

	print_rows(picture);
	(void)fputc('\n', picture->out);
	for (device = 0; device < picture->devices && device < VIEW_MAX_LANES; device++)
		for (side = picture->sides; *side; side++)
			print_lane(picture, device, *side);
	if (picture->devices > VIEW_MAX_LANES)
		(void)fprintf(picture->out, "     and %u devices more: see --json\n",
			      picture->devices - VIEW_MAX_LANES);
	print_legend(picture);
}
