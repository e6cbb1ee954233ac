/* SPDX-License-Identifier: MIT */
/*
 * A migration drawn to scale, twice: all of it by the phases of the whole set, and, a hundred times
 * larger, the stop, with a lane for every device on each side.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "text.h"

#define BAR_MIN	  18U
#define BAR_MAX	  60U
#define LANES_MAX 8

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

/* A stretch of time and the columns it takes. */
struct scale {
	uint64_t start_us;
	uint64_t duration_us;
	uint32_t columns;
};

static const struct look *look_of(const char *name)
{
	size_t i;

	/* The last one is for what has no look of its own. */
	for (i = 0; i < NUM_LOOKS - 1 && strcmp(looks[i].name, name) != 0; i++)
		continue;
	return &looks[i];
}

/* First and last column of a phase; false when it is not on the scale at all. */
static bool place(const struct scale *scale, const struct demo_phase *phase, uint32_t *first,
		  uint32_t *last)
{
	uint64_t end = phase->start_us + phase->duration_us;
	uint64_t from = phase->start_us > scale->start_us ? phase->start_us - scale->start_us : 0;

	if (end < scale->start_us || from >= scale->duration_us)
		return false;
	end -= scale->start_us;
	*first = (uint32_t)(from * scale->columns / scale->duration_us);
	*last = (uint32_t)(end * scale->columns / scale->duration_us);
	if (*last > *first)
		(*last)--;
	if (*last >= scale->columns)
		*last = scale->columns - 1;
	return true;
}

static void print_cells(const struct demo_show *show, const struct look *const cells[],
			uint32_t columns)
{
	const char *color = "";
	uint32_t i;

	for (i = 0; i < columns; i++) {
		const struct look *look = cells[i];
		const char *wanted = look ? look->color : "";

		if (show->color && strcmp(wanted, color) != 0) {
			printf("\033[0m%s", wanted);
			color = wanted;
		}
		if (!look)
			(void)putchar(' ');
		else if (show->utf8)
			(void)fputs(look->utf8, stdout);
		else
			(void)putchar(look->ascii);
	}
	if (show->color)
		(void)fputs("\033[0m", stdout);
}

/* ---- phases of the whole set ---- */

/* Width of what stands left of a bar. */
#define LEFT 61

/* All phases of one name for the whole set on one side: one row. */
struct row {
	const struct demo_phase *first;
	uint32_t count;
	uint64_t took_us;
	uint64_t bytes;
};

#define MAX_ROWS 32U

/* What is drawn: phases of a migration, those before the stop or those in it. */
struct picture {
	const struct demo_show *show;
	const struct demo_outcome *outcome;
	const struct demo_migration *migration;
	struct scale scale;
	bool stop;
};

static bool in_picture(const struct picture *picture, const struct demo_phase *phase)
{
	const struct demo_migration *migration = picture->migration;

	if (phase->migration != migration->number)
		return false;
	if (picture->stop)
		return phase->start_us >= migration->paused_us;
	/* The destination began to listen a little before the source began. */
	return phase->start_us >= migration->start_us &&
	       (!migration->paused_us || phase->start_us < migration->paused_us);
}

static bool same_row(const struct demo_phase *a, const struct demo_phase *b)
{
	return a->device < 0 && b->device < 0 && a->source == b->source &&
	       !strcmp(a->name, b->name);
}

static int compare_rows(const void *a, const void *b)
{
	const struct row *left = a, *right = b;

	if (left->first->start_us != right->first->start_us)
		return left->first->start_us < right->first->start_us ? -1 : 1;
	return strcmp(left->first->name, right->first->name);
}

static size_t collect_rows(const struct picture *picture, struct row *rows)
{
	const struct demo_outcome *outcome = picture->outcome;
	size_t i, j, count = 0;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (phase->device >= 0 || !in_picture(picture, phase))
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

/* "31.9 MiB/s"; size of text: TEXT_SIZE + 2. */
static void format_rate(char *text, uint64_t bytes, uint64_t us)
{
	char each[TEXT_SIZE];

	(void)text_bytes(each, (uint64_t)((double)bytes * 1e6 / (double)us));
	(void)snprintf(text, TEXT_SIZE + 2, "%s/s", each);
}

static void print_row(const struct picture *picture, const struct row *row)
{
	static const struct look bar = {"", "▬", '=', ""};
	const struct demo_outcome *outcome = picture->outcome;
	const struct look *cells[BAR_MAX] = {NULL};
	char start[TEXT_SIZE], took[TEXT_SIZE], bytes[TEXT_SIZE] = "";
	char rate[TEXT_SIZE + 2] = "", name[64];
	uint32_t first, last;
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (!same_row(phase, row->first) || !in_picture(picture, phase) ||
		    !place(&picture->scale, phase, &first, &last))
			continue;
		for (; first <= last; first++)
			cells[first] = &bar;
	}
	(void)snprintf(name, sizeof(name), "%s", row->first->name);
	if (row->count > 1)
		(void)snprintf(name, sizeof(name), "%s x%u", row->first->name, row->count);
	if (row->bytes)
		(void)text_bytes(bytes, row->bytes);
	if (row->bytes && row->took_us)
		format_rate(rate, row->bytes, row->took_us);
	/* Without the micro sign, which is two bytes in one column. */
	(void)text_time(start, row->first->start_us - picture->scale.start_us, false);
	(void)text_time(took, row->took_us, false);
	printf("  %c  %-18.18s %7s %7s %8s %10s  ", demo_side_name(row->first->side), name, start,
	       took, bytes, rate);
	print_cells(picture->show, cells, picture->scale.columns);
	(void)putchar('\n');
}

static void print_rows(const struct picture *picture, const char *title)
{
	struct row rows[MAX_ROWS];
	size_t i, count = collect_rows(picture, rows);
	char whole[TEXT_SIZE];

	(void)text_time(whole, picture->scale.duration_us, false);
	printf("\n     %-18s %7s %7s %8s %10s  0%*s\n", title, "start", "took", "moved", "rate",
	       (int)picture->scale.columns - 1, whole);
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

static void paint(struct lane *lane, const struct scale *scale, const struct demo_phase *phase)
{
	uint32_t first, last, i;

	if (!place(scale, phase, &first, &last))
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
static void describe_lane(const struct lane *lane, int device, uint64_t whole_us, char *text,
			  size_t size)
{
	int used = snprintf(text, size, "device %d", device);
	const char *separator = "";
	uint32_t i;

	for (i = 0; i < lane->count && used > 0 && (size_t)used < size; i++) {
		double ms = (double)lane->took_us[i] / 1e3;

		if (lane->took_us[i] * 50 < whole_us)
			continue;
		used += snprintf(text + used, size - (size_t)used, "%s %s %.*f", separator,
				 lane->names[i], ms < 100 ? 1 : 0, ms);
		separator = ",";
	}
	if (*separator && used > 0 && (size_t)used < size)
		(void)snprintf(text + used, size - (size_t)used, " ms");
}

static void print_lane(const struct picture *picture, int device, bool source)
{
	const struct demo_outcome *outcome = picture->outcome;
	struct lane lane = {.count = 0};
	bool a = source == (picture->migration->from == DEMO_SIDE_A);
	char text[192];
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (phase->device == device && phase->source == source &&
		    in_picture(picture, phase))
			paint(&lane, &picture->scale, phase);
	}
	if (!lane.count)
		return;
	describe_lane(&lane, device, picture->scale.duration_us, text, sizeof(text));
	printf("  %c  %-*.*s ", a ? 'A' : 'B', LEFT - 6, LEFT - 6, text);
	print_cells(picture->show, lane.cells, picture->scale.columns);
	(void)putchar('\n');
}

static void print_legend(const struct picture *picture)
{
	const struct demo_show *show = picture->show;
	const struct demo_outcome *outcome = picture->outcome;
	size_t i, j;

	printf("     ");
	for (i = 0; i < NUM_LOOKS; i++) {
		char ascii[2] = {looks[i].ascii, 0};

		for (j = 0; j < outcome->num_phases; j++) {
			if (outcome->phases[j].device >= 0 &&
			    in_picture(picture, &outcome->phases[j]) &&
			    look_of(outcome->phases[j].name) == &looks[i])
				break;
		}
		if (j == outcome->num_phases)
			continue;
		printf("%s%s%s %s  ", show->color ? looks[i].color : "",
		       show->utf8 ? looks[i].utf8 : ascii, show->color ? "\033[0m" : "",
		       looks[i].name);
	}
	(void)putchar('\n');
}

static void print_lanes(const struct picture *picture)
{
	int device, devices = (int)picture->outcome->config.tenant.devices;

	(void)putchar('\n');
	for (device = 0; device < devices && device < LANES_MAX; device++) {
		print_lane(picture, device, true);
		print_lane(picture, device, false);
	}
	if (devices > LANES_MAX)
		printf("     and %d devices more: see --json\n", devices - LANES_MAX);
	print_legend(picture);
}

/* ---- one migration ---- */

static uint32_t bar_columns(const struct demo_show *show)
{
	uint32_t columns = show->width > LEFT + BAR_MIN ? show->width - LEFT : BAR_MIN;

	return columns < BAR_MAX ? columns : BAR_MAX;
}

void demo_show_timeline(const struct demo_show *show, const struct demo_outcome *outcome,
			const struct demo_migration *migration)
{
	const char *bold = show->color ? "\033[1m" : "", *plain = show->color ? "\033[0m" : "";
	const struct qsc_migrate_report *report = &migration->source;
	uint64_t stop_us = migration->paused_us ? migration->paused_us : migration->end_us;
	char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE];
	char rate[TEXT_SIZE + 2] = "0 B/s", from = demo_side_name(migration->from);
	struct picture picture = {
		.show = show,
		.outcome = outcome,
		.migration = migration,
		.scale = {migration->start_us, stop_us - migration->start_us, bar_columns(show)},
	};

	printf("\n%sMigration %u, %c %s %c%s: %s%s, ", bold, migration->number, from,
	       show->utf8 ? "→" : "->", from == 'A' ? 'B' : 'A', plain,
	       migration->failed ? "failed after " : "",
	       text_time(a, migration->end_us - migration->start_us, show->utf8));
	if (migration->downtime_us)
		printf("the tenant was stopped for %s\n",
		       text_time(b, migration->downtime_us, show->utf8));
	else
		printf("the tenant was not stopped\n");
	printf("  moved %s of memory and %s of device state in %u pass%s, %s of it in the stop\n",
	       text_bytes(a, report->memory_bytes), text_bytes(b, report->device_bytes),
	       report->passes, report->passes == 1 ? "" : "es", text_bytes(c, report->stop_bytes));
	if (migration->end_us > migration->start_us)
		format_rate(rate, report->memory_bytes + report->device_bytes,
			    migration->end_us - migration->start_us);
	printf("  moved at %s; blocks a second: %.0f before, %.0f while it moved, %.0f after\n",
	       rate, migration->rate_before, migration->rate_during, migration->rate_after);
	if (picture.scale.duration_us) {
		print_rows(&picture, "while all run");
		print_lanes(&picture);
	}
	if (!migration->downtime_us)
		return;
	picture.stop = true;
	picture.scale.start_us = migration->paused_us;
	picture.scale.duration_us = migration->downtime_us;
	print_rows(&picture, "the stop");
	print_lanes(&picture);
}
