/* SPDX-License-Identifier: MIT */
/*
 * The drawings of the HTML report. Every drawing is 1000 wide, with names on the left and time to
 * the right; what is narrower than a pixel becomes one, and phases of one name that touch on the
 * picture are drawn as one, so that its size follows from what can be seen and not from how long
 * was recorded.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "view_html.h"

#define WIDTH	   1000.0
#define LEFT	   140.0
#define RIGHT	   14.0
#define TOP	   38.0 /* of the first lane; the time stands above */
#define SET_HEIGHT 18.0
#define SET_ROWS   6

/* ---- looks ---- */

static const struct view_html_look looks[] = {
	{"other", "preparing"},
	{"copy", "copied while all run"},
	{"quiesce", "made quiescent"},
	{"stop", "stopped"},
	{"final", "copied in the stop"},
	{"load", "loaded and validated"},
	{"run", "handed over and started"},
	{"back", "rolled back"},
};

#define NUM_LOOKS (sizeof(looks) / sizeof(looks[0]))

static const struct {
	const char *phase;
	const char *class;
} classes[] = {
	{"precopy", "copy"},
	{"precopy-memory", "copy"},
	{"quiesce", "quiesce"},
	{"revoke", "quiesce"},
	{"pause", "stop"},
	{"stop", "stop"},
	{"stopped", "stop"},
	{"stop-copy", "final"},
	{"final-memory", "final"},
	{"user-state", "final"},
	{"collect", "final"},
	{"load", "load"},
	{"validate", "load"},
	{"irqs", "load"},
	{"start", "run"},
	{"restore", "run"},
	{"run", "run"},
	{"resume", "run"},
	{"commit", "run"},
	{"roll-back", "back"},
};

const struct view_html_look *view_html_look(unsigned int i)
{
	return i < NUM_LOOKS ? &looks[i] : NULL;
}

static const char *class_of(const char *phase)
{
	for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
		if (!strcmp(classes[i].phase, phase))
			return classes[i].class;
	return "other";
}

/* ---- text ---- */

void view_html_text(FILE *out, const char *text)
{
	int length;

	for (; (length = text_next(text)) != 0; text += length > 0 ? length : 1) {
		if (length < 0)
			(void)fputs("\xef\xbf\xbd", out);
		else if (*text == '&')
			(void)fputs("&amp;", out);
		else if (*text == '<')
			(void)fputs("&lt;", out);
		else if (*text == '>')
			(void)fputs("&gt;", out);
		else if (*text == '"')
			(void)fputs("&quot;", out);
		else if (*text == '\'')
			(void)fputs("&#39;", out);
		else
			(void)fwrite(text, 1, (size_t)length, out);
	}
}

/* ---- time along the top ---- */

struct scale {
	uint64_t start_us;
	double duration_us;
};

/* Where a time is on the drawing; on its edge when it is outside. */
static double x_of(const struct scale *scale, uint64_t us)
{
	double part = us > scale->start_us ? (double)(us - scale->start_us) / scale->duration_us
					   : 0;

	return LEFT + (part < 1 ? part : 1) * (WIDTH - LEFT - RIGHT);
}

/* 1, 2 or 5 times a power of ten, so that no more than `most` of them fit. */
static double nice_step(double range, int most)
{
	double step = pow(10, floor(log10(range / most)));

	if (step * most < range)
		step *= 2;
	if (step * most < range)
		step *= 2.5;
	if (step * most < range)
		step *= 2;
	return step;
}

static void draw_time(FILE *out, const struct scale *scale, double bottom)
{
	double step = nice_step(scale->duration_us, 8);
	int count = (int)(scale->duration_us / step);
	char text[TEXT_SIZE];

	for (int i = 0; i <= count; i++) {
		double at = i * step;
		double x = LEFT + at / scale->duration_us * (WIDTH - LEFT - RIGHT);
		/* The last one must not stick out. */
		const char *anchor = x > WIDTH - 40 ? "end" : "middle";

		(void)fprintf(out,
			      "<path class=\"grid\" d=\"M%.1f %.0fV%.1f\"/>"
			      "<text x=\"%.1f\" y=\"%.0f\" text-anchor=\"%s\">%s</text>\n",
			      x, TOP - 6, bottom, x, TOP - 10, anchor,
			      text_time(text, (uint64_t)at));
	}
}

static void begin(FILE *out, const char *id, double height, const char *title)
{
	(void)fprintf(out,
		      "<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-labelledby=\"%s-t %s-d\">\n"
		      "<title id=\"%s-t\">%s</title>\n<desc id=\"%s-d\">",
		      WIDTH, height, id, id, id, title, id);
}

/* ---- lanes ---- */

/* What a bar stands for: one phase, or several of one name that touch. */
struct bar {
	const struct move_phase *first;
	double x1, x2;
	uint64_t end_us, took_us, bytes;
	uint64_t count;
};

/* A lane while it is drawn. */
struct lane {
	FILE *out;
	const struct scale *scale;
	const char *name;
	double y, height;
	struct bar bar; /* not drawn yet, for more may touch it; none when first is NULL */
};

static void draw_bar(struct lane *lane)
{
	const struct bar *bar = &lane->bar;
	char took[TEXT_SIZE], start[TEXT_SIZE], bytes[TEXT_SIZE];
	double width = bar->x2 - bar->x1 > 1 ? bar->x2 - bar->x1 : 1;
	double x = bar->x1 + width > WIDTH - RIGHT ? WIDTH - RIGHT - width : bar->x1;

	if (!bar->first)
		return;
	(void)fprintf(lane->out, "<g class=\"%s\"><title>", class_of(bar->first->name));
	view_html_text(lane->out, lane->name);
	(void)fputs(": ", lane->out);
	view_html_text(lane->out, bar->first->name);
	if (bar->count > 1)
		(void)fprintf(lane->out, " ×%" PRIu64, bar->count);
	(void)fprintf(lane->out, ", %s, from %s on", text_time(took, bar->took_us),
		      text_time(start, bar->first->start_us));
	if (bar->bytes)
		(void)fprintf(lane->out, ", %s", text_bytes(bytes, bar->bytes));
	(void)fprintf(lane->out,
		      "</title><rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>", x,
		      lane->y, width, lane->height);
	if (lane->height >= 14 && width > 6.5 * (double)strlen(bar->first->name) + 6) {
		(void)fprintf(lane->out, "<text class=\"in\" x=\"%.1f\" y=\"%.1f\">", x + 4,
			      lane->y + lane->height / 2 + 4);
		view_html_text(lane->out, bar->first->name);
		(void)fputs("</text>", lane->out);
	}
	(void)fputs("</g>\n", lane->out);
	lane->bar.first = NULL;
}

static void add_phase(struct lane *lane, const struct move_phase *phase)
{
	const struct scale *scale = lane->scale;
	uint64_t end_us = phase->start_us + phase->duration_us;
	double x1 = x_of(scale, phase->start_us), x2 = x_of(scale, end_us);
	struct bar *bar = &lane->bar;

	if (end_us < scale->start_us || (end_us == scale->start_us && phase->start_us < end_us) ||
	    (double)phase->start_us > (double)scale->start_us + scale->duration_us)
		return;
	if (!bar->first || strcmp(bar->first->name, phase->name) != 0 || x1 > bar->x2 + 0.5) {
		draw_bar(lane);
		*bar = (struct bar){.first = phase, .x1 = x1, .x2 = x2};
	}
	bar->x2 = x2 > bar->x2 ? x2 : bar->x2;
	bar->end_us = end_us > bar->end_us ? end_us : bar->end_us;
	bar->took_us += phase->duration_us;
	bar->bytes += phase->bytes;
	bar->count += phase->count;
}

/* Devices one after another, each in order of time; the whole set first. */
static int by_lane(const void *a, const void *b)
{
	const struct move_phase *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (left->start_us != right->start_us)
		return left->start_us < right->start_us ? -1 : 1;
	return left->duration_us > right->duration_us ? -1 : left->duration_us < right->duration_us;
}

/* Phases of the whole set, in as many rows as are under way at once. Returns how many rows. */
static int draw_set(struct lane *rows, const struct move_phase *phases, size_t count)
{
	int row, used = 0;

	for (size_t i = 0; i < count && phases[i].device < 0; i++) {
		double x = x_of(rows[0].scale, phases[i].start_us);

		/* A bar that grows by this phase, else the first row with room. */
		for (row = 0; row < used; row++)
			if (rows[row].bar.first &&
			    !strcmp(rows[row].bar.first->name, phases[i].name) &&
			    x <= rows[row].bar.x2 + 0.5)
				break;
		if (row == used)
			for (row = 0; row < used && rows[row].bar.end_us > phases[i].start_us;
			     row++)
				continue;
		if (row == SET_ROWS)
			row--;
		add_phase(&rows[row], &phases[i]);
		if (rows[row].bar.first && row == used)
			used++;
	}
	for (row = 0; row < used; row++)
		draw_bar(&rows[row]);
	return used;
}

struct layout {
	double height, gap;
	uint32_t named; /* every so many lanes have their name on the left */
};

static struct layout layout_of(uint32_t devices)
{
	if (devices <= 24)
		return (struct layout){18, 3, 1};
	if (devices <= 64)
		return (struct layout){11, 2, 1};
	if (devices <= 512)
		return (struct layout){5, 1, 2};
	return (struct layout){2, 0, 6};
}

static void draw_name(FILE *out, double y, const char *name)
{
	char text[64];

	text_clean(text, sizeof(text), name, true);
	if (text_cut(text, 20) == 20)
		(void)text_cut(text, 19);
	(void)fprintf(out, "<text class=\"name\" x=\"%.0f\" y=\"%.1f\">", LEFT - 8, y);
	view_html_text(out, text);
	(void)fprintf(out, "%s<title>", strlen(text) < strlen(name) ? "…" : "");
	view_html_text(out, name);
	(void)fputs("</title></text>\n", out);
}

static void draw_devices(const struct view_html_lanes *lanes, struct lane *lane,
			 const struct move_phase *phases, size_t count)
{
	const struct layout layout = layout_of(lanes->move->num_devices);
	double y = lane->y;
	size_t at = 0;

	lane->height = layout.height;
	for (uint32_t i = 0; i < lanes->move->num_devices; i++, y += layout.height + layout.gap) {
		lane->y = y;
		lane->name = lanes->move->devices[i].name;
		(void)fprintf(lane->out,
			      "<rect class=\"lane\" x=\"%.0f\" y=\"%.1f\" width=\"%.0f\" "
			      "height=\"%.1f\"/>\n",
			      LEFT, y, WIDTH - LEFT - RIGHT, layout.height);
		if (i % layout.named == 0)
			draw_name(lane->out, y + layout.height / 2 + 4, lane->name);
		while (at < count && phases[at].device < (int32_t)i)
			at++;
		for (; at < count && phases[at].device == (int32_t)i; at++)
			add_phase(lane, &phases[at]);
		draw_bar(lane);
	}
}

static void draw_stop(FILE *out, const struct view_html_lanes *lanes, const struct scale *scale,
		      double bottom)
{
	uint64_t start_us, duration_us;
	char text[TEXT_SIZE];
	double x1, x2;

	if (!move_stop(lanes->move, &start_us, &duration_us) || start_us <= lanes->start_us)
		return;
	x1 = x_of(scale, start_us);
	x2 = x_of(scale, start_us + duration_us);
	(void)fprintf(out,
		      "<g class=\"halt\"><title>the stop, %s</title><rect x=\"%.1f\" y=\"12\" "
		      "width=\"%.1f\" height=\"%.1f\"/><text x=\"%.1f\" y=\"10\" "
		      "text-anchor=\"%s\">stop %s</text></g>\n",
		      text_time(text, duration_us), x1, x2 - x1 > 2 ? x2 - x1 : 2, bottom - 12,
		      x1 > WIDTH / 2 ? x2 : x1, x1 > WIDTH / 2 ? "end" : "start", text);
}

/* The lanes of the whole set as text of their own, for their number says where the others begin. */
static char *draw_set_apart(const struct scale *scale, const struct move *move,
			    const struct move_phase *phases, int *used)
{
	struct lane rows[SET_ROWS];
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	for (int i = 0; i < SET_ROWS; i++)
		rows[i] = (struct lane){
			.out = out,
			.scale = scale,
			.name = "whole set",
			.y = TOP + i * (SET_HEIGHT + 2),
			.height = SET_HEIGHT,
		};
	*used = draw_set(rows, phases, move->num_phases);
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static int draw_lanes(FILE *out, const struct view_html_lanes *lanes,
		      const struct move_phase *phases)
{
	const struct scale scale = {lanes->start_us, (double)lanes->duration_us};
	const struct move *move = lanes->move;
	const struct layout layout = layout_of(move->num_devices);
	struct lane lane = {.out = out, .scale = &scale};
	char took[TEXT_SIZE], *set;
	double bottom;
	int used = 0;

	set = draw_set_apart(&scale, move, phases, &used);
	if (!set)
		return -ENOMEM;
	lane.y = TOP + (used ? used : 1) * (SET_HEIGHT + 2) + 6;
	bottom = lane.y + move->num_devices * (layout.height + layout.gap);
	begin(out, lanes->id, bottom + 6, lanes->title);
	(void)fprintf(out,
		      "%u lanes over %s, one for the whole set and one for each device; the table "
		      "of phases below says the same</desc>\n",
		      move->num_devices + 1, text_time(took, lanes->duration_us));
	draw_time(out, &scale, bottom);
	draw_stop(out, lanes, &scale, bottom);
	draw_name(out, TOP + SET_HEIGHT / 2 + 4, "whole set");
	(void)fputs(set, out);
	free(set);
	draw_devices(lanes, &lane, phases, move->num_phases);
	(void)fputs("</svg>\n", out);
	return 0;
}

int view_html_lanes(FILE *out, const struct view_html_lanes *lanes)
{
	const struct move *move = lanes->move;
	struct move_phase *phases = calloc(move->num_phases + 1, sizeof(*phases));
	int result;

	if (!phases)
		return -ENOMEM;
	if (move->num_phases)
		memcpy(phases, move->phases, move->num_phases * sizeof(*phases));
	qsort(phases, move->num_phases, sizeof(*phases), by_lane);
	result = draw_lanes(out, lanes, phases);
	free(phases);
	return result;
}

/* ---- curves ---- */

#define PANEL	    110.0
#define PANEL_BYTES (TOP + 4)
#define PANEL_STOP  (PANEL_BYTES + PANEL + 34)

/* One curve through all samples; `y` tells where, or below 0 for one that tells nothing. */
static void draw_curve(FILE *out, const struct move *move, const struct scale *scale,
		       const char *class, double (*y)(const void *ctx, const struct move_sample *),
		       const void *ctx)
{
	char sign = 'M';

	(void)fprintf(out, "<path class=\"curve %s\" d=\"", class);
	for (size_t i = 0; i < move->num_samples; i++) {
		const struct move_sample *sample = &move->samples[i];
		double at = y(ctx, sample);

		/* Before a destination hears of its source there is nothing to tell. */
		if (sample->elapsed_us < scale->start_us && i + 1 < move->num_samples &&
		    move->samples[i + 1].elapsed_us < scale->start_us)
			continue;
		if (at < 0)
			continue;
		(void)fprintf(out, "%c%.1f %.1f", sign, x_of(scale, sample->elapsed_us), at);
		sign = 'L';
	}
	(void)fputs("\"/>\n", out);
}

static double y_sent(const void *ctx, const struct move_sample *sample)
{
	return PANEL_BYTES + PANEL * (1 - (double)sample->bytes_sent / *(const double *)ctx);
}

/* In some phases nobody says how much is left. */
static double y_left(const void *ctx, const struct move_sample *sample)
{
	if (!sample->bytes_remaining &&
	    (!strcmp(sample->phase, "negotiate") || !strcmp(sample->phase, "stop")))
		return -1;
	return PANEL_BYTES + PANEL * (1 - (double)sample->bytes_remaining / *(const double *)ctx);
}

static void draw_level(FILE *out, double y, const char *class, const char *text)
{
	(void)fprintf(out,
		      "<path class=\"%s\" d=\"M%.0f %.1fH%.0f\"/>"
		      "<text class=\"name\" x=\"%.0f\" y=\"%.1f\">%s</text>\n",
		      class, LEFT, y, WIDTH - RIGHT, LEFT - 8, y + 4, text);
}

static void draw_bytes(FILE *out, const struct move *move, const struct scale *scale)
{
	char text[TEXT_SIZE];
	double most = 1;
	bool left_known = false; /* not to a destination */

	for (size_t i = 0; i < move->num_samples; i++) {
		most = fmax(most, (double)move->samples[i].bytes_sent);
		most = fmax(most, (double)move->samples[i].bytes_remaining);
		left_known |= move->samples[i].bytes_remaining > 0;
	}
	draw_level(out, PANEL_BYTES, "grid", text_bytes(text, (uint64_t)most));
	draw_level(out, PANEL_BYTES + PANEL / 2, "grid", text_bytes(text, (uint64_t)(most / 2)));
	draw_level(out, PANEL_BYTES + PANEL, "grid", "0 B");
	draw_curve(out, move, scale, "copy", y_sent, &most);
	if (left_known)
		draw_curve(out, move, scale, "final", y_left, &most);
	(void)fprintf(
		out,
		"<g class=\"key\"><text class=\"copy\" x=\"%.0f\" y=\"%.0f\">bytes sent</text>",
		LEFT + 6, PANEL_BYTES + 14);
	if (left_known)
		(void)fprintf(out, "<text class=\"final\" x=\"%.0f\" y=\"%.0f\">bytes left</text>",
			      LEFT + 80, PANEL_BYTES + 14);
	(void)fputs("</g>\n", out);
}

/* Downtimes differ by orders of magnitude, so powers of ten are equally far apart. */
struct decades {
	double low, high;
};

static double y_of_time(const struct decades *decades, double us)
{
	return PANEL_STOP + PANEL * (decades->high - log10(us)) / (decades->high - decades->low);
}

static double y_predicted(const void *ctx, const struct move_sample *sample)
{
	if (!sample->predicted_downtime_us)
		return -1;
	return y_of_time(ctx, (double)sample->predicted_downtime_us);
}

static void include(struct decades *decades, uint64_t us)
{
	if (!us)
		return;
	decades->low = fmin(decades->low, floor(log10((double)us) - 0.1));
	decades->high = fmax(decades->high, ceil(log10((double)us) + 0.1));
}

bool view_html_predicts(const struct move *move)
{
	for (size_t i = 0; i < move->num_samples; i++)
		if (move->samples[i].predicted_downtime_us)
			return true;
	return false;
}

static void draw_prediction(FILE *out, const struct move *move, const struct scale *scale)
{
	struct decades decades = {20, 0};
	uint64_t start_us, duration_us;
	char text[TEXT_SIZE];

	for (size_t i = 0; i < move->num_samples; i++)
		include(&decades, move->samples[i].predicted_downtime_us);
	include(&decades, move->downtime_limit_us);
	include(&decades, move->report.downtime_us);
	if (decades.high <= decades.low)
		return;
	for (int i = (int)decades.low; i <= (int)decades.high; i++)
		draw_level(out, y_of_time(&decades, pow(10, i)), "grid",
			   text_time(text, (uint64_t)pow(10, i)));
	draw_curve(out, move, scale, "quiesce", y_predicted, &decades);
	(void)fprintf(out,
		      "<g class=\"key\"><text class=\"quiesce\" x=\"%.0f\" y=\"%.0f\">predicted "
		      "stop</text></g>\n",
		      LEFT + 6, PANEL_STOP - 6);
	if (move->downtime_limit_us) {
		double y = y_of_time(&decades, (double)move->downtime_limit_us);

		(void)fprintf(out,
			      "<path class=\"limit\" d=\"M%.0f %.1fH%.0f\"/><text x=\"%.0f\" "
			      "y=\"%.1f\">limit %s</text>\n",
			      LEFT, y, WIDTH - RIGHT, LEFT + 6, y - 4,
			      text_time(text, move->downtime_limit_us));
	}
	if (move_stop(move, &start_us, &duration_us))
		(void)fprintf(
			out,
			"<g class=\"stop\"><title>the stop took %s</title><circle cx=\"%.1f\" "
			"cy=\"%.1f\" r=\"4\"/></g>\n",
			text_time(text, duration_us), x_of(scale, start_us),
			y_of_time(&decades, (double)duration_us));
}

void view_html_curves(FILE *out, const struct move *move)
{
	uint64_t start_us, duration_us;
	struct scale scale;
	bool predicted = view_html_predicts(move);
	double bottom = (predicted ? PANEL_STOP : PANEL_BYTES) + PANEL;

	move_span(move, &start_us, &duration_us);
	scale = (struct scale){start_us, (double)duration_us};
	begin(out, "curves", bottom + 10, predicted ? "Bytes and predicted stop" : "Bytes");
	(void)fprintf(out, "bytes sent and bytes left%s</desc>\n",
		      predicted ? ", and how long the stop was predicted to last had it begun "
				  "then, beside the limit"
				: "");
	draw_time(out, &scale, bottom);
	draw_bytes(out, move, &scale);
	if (predicted)
		draw_prediction(out, move, &scale);
	(void)fputs("</svg>\n", out);
}
