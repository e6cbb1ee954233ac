/* SPDX-License-Identifier: MIT */
/*
 * Progress while it happens. The engine calls from the thread that moves the set, at times while
 * everything is stopped: so nothing is written that could block.
 */
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "text.h"
#include "view.h"

#define LIVE_US	 100000ULL
#define PLAIN_US 5000000ULL
#define BAR	 20U

struct move_view {
	int fd;
	bool quiet;
	bool line_open;
	struct view_style style;
	char phase[32];
	uint64_t last_us;
};

void view_style_detect(struct view_style *style, int fd)
{
	const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
	struct winsize size;

	(void)setlocale(LC_CTYPE, "");
	style->utf8 = !strcmp(nl_langinfo(CODESET), "UTF-8");
	style->live = isatty(fd) && term && strcmp(term, "dumb") != 0;
	style->color = style->live && !(no_color && *no_color);
	style->width = 100;
	if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col)
		style->width = size.ws_col < 200 ? size.ws_col : 200;
}

/* ---- one line ---- */

/* A part of the line: what is first in it stays longest when there is no room for all. */
enum part {
	PART_PHASE,
	PART_BAR,
	PART_DOWNTIME,
	PART_RATE,
	PART_TIME,
	PART_BYTES,
	PART_DIRTY,
	NUM_PARTS,
};

struct parts {
	char text[NUM_PARTS][192];
};

static void put_bar(const struct view_style *style, const struct move_sample *sample, char *text,
		    size_t size)
{
	double sent = (double)sample->bytes_sent;
	double done = sent / (sent + (double)sample->bytes_remaining);
	uint32_t i, full = (uint32_t)(done * BAR);
	size_t used = 0;

	for (i = 0; style->live && i < BAR; i++)
		used += (size_t)snprintf(text + used, size - used, "%s",
					 i < full      ? style->utf8 ? "█" : "#"
					 : style->utf8 ? "░"
						       : ".");
	(void)snprintf(text + used, size - used, "%s%3.0f %%", used ? " " : "", 100 * done);
}

/* At the rate by which the link is faster than what is written again. */
static void put_time_left(const struct move_sample *sample, char *text, size_t size)
{
	double rate = (double)sample->bytes_per_second - (double)sample->dirty_per_second;
	double us = (double)sample->bytes_remaining / rate * 1e6;
	char buf[TEXT_SIZE];

	if (rate > 0 && us > 0 && us < 1e12)
		(void)snprintf(text, size, "%s more", text_time(buf, (uint64_t)us));
}

static void put_parts(struct parts *parts, const struct view_style *style, const struct move *move,
		      const struct move_sample *sample)
{
	size_t size = sizeof(parts->text[0]);
	char a[TEXT_SIZE], b[TEXT_SIZE], phase[sizeof(sample->phase)];

	memset(parts, 0, sizeof(*parts));
	text_clean(phase, sizeof(phase), sample->phase, style->utf8);
	(void)snprintf(parts->text[PART_PHASE], size, "%s: %s", move_verb_name(move->verb), phase);
	if (sample->pass)
		(void)snprintf(parts->text[PART_PHASE], size, "%s: %s pass %u",
			       move_verb_name(move->verb), phase, sample->pass);
	/* A destination does not know what is still to come. */
	if (sample->bytes_remaining) {
		put_bar(style, sample, parts->text[PART_BAR], size);
		put_time_left(sample, parts->text[PART_TIME], size);
		(void)snprintf(parts->text[PART_BYTES], size, "%s sent, %s left",
			       text_bytes(a, sample->bytes_sent),
			       text_bytes(b, sample->bytes_remaining));
	} else if (sample->bytes_sent) {
		(void)snprintf(parts->text[PART_BYTES], size, "%s moved",
			       text_bytes(a, sample->bytes_sent));
	}
	if (sample->bytes_per_second)
		(void)text_rate(parts->text[PART_RATE], sample->bytes_per_second);
	if (sample->dirty_per_second)
		(void)snprintf(parts->text[PART_DIRTY], size, "%s written again",
			       text_rate(a, sample->dirty_per_second));
	if (sample->predicted_downtime_us && move->downtime_limit_us)
		(void)snprintf(parts->text[PART_DOWNTIME], size, "stop %s of %s",
			       text_time(a, sample->predicted_downtime_us),
			       text_time(b, move->downtime_limit_us));
	else if (sample->predicted_downtime_us)
		(void)snprintf(parts->text[PART_DOWNTIME], size, "stop %s",
			       text_time(a, sample->predicted_downtime_us));
}

static const char *color_of(const struct view_style *style, const struct move *move,
			    const struct move_sample *sample, enum part part)
{
	if (!style->color)
		return "";
	if (part == PART_PHASE)
		return "\033[1m";
	if (part != PART_DOWNTIME || !move->downtime_limit_us)
		return "";
	return sample->predicted_downtime_us > move->downtime_limit_us ? "\033[31m" : "\033[32m";
}

/* Leave out what has no room: a terminal would break the line, and it could not be redrawn. */
static void fit_parts(struct parts *parts, uint32_t columns)
{
	size_t used[NUM_PARTS], all = 0;
	char copy[sizeof(parts->text[0])];
	int i;

	for (i = 0; i < NUM_PARTS; i++) {
		(void)snprintf(copy, sizeof(copy), "%s", parts->text[i]);
		used[i] = text_cut(copy, sizeof(copy));
		all += used[i] ? used[i] + (i ? 2 : 0) : 0;
	}
	for (i = NUM_PARTS - 1; i > 0 && all > columns; i--) {
		all -= used[i] ? used[i] + 2 : 0;
		parts->text[i][0] = 0;
	}
	(void)text_cut(parts->text[PART_PHASE], columns);
}

void view_progress_line(const struct view_style *style, const struct move *move,
			const struct move_sample *sample, char line[VIEW_LINE_SIZE])
{
	static const enum part order[] = {PART_PHASE, PART_BAR,	  PART_TIME,	PART_BYTES,
					  PART_RATE,  PART_DIRTY, PART_DOWNTIME};
	const char *separator = style->live ? "  " : ", ";
	struct parts parts;
	size_t i, used = 0;

	put_parts(&parts, style, move, sample);
	if (style->live)
		fit_parts(&parts, style->width > 1 ? style->width - 1 : 1);
	else
		used = (size_t)snprintf(line, VIEW_LINE_SIZE, "%6.1f s  ",
					(double)sample->elapsed_us / 1e6);
	for (i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		const char *color = color_of(style, move, sample, order[i]);

		if (!parts.text[order[i]][0])
			continue;
		used += (size_t)snprintf(line + used, VIEW_LINE_SIZE - used, "%s%s%s%s",
					 i ? separator : "", color, parts.text[order[i]],
					 *color ? "\033[0m" : "");
	}
}

/* ---- the view ---- */

struct move_view *view_create_on(int fd, bool quiet)
{
	struct move_view *view = calloc(1, sizeof(*view));

	if (!view)
		return NULL;
	view->fd = fd;
	view->quiet = quiet;
	view_style_detect(&view->style, fd);
	return view;
}

struct move_view *move_view_create(bool quiet)
{
	return view_create_on(STDERR_FILENO, quiet);
}

/*
 * Whether it went out. A terminal that was stopped (Ctrl-S) or a full pipe takes nothing; a pipe
 * whose reader is gone would end this process.
 */
static bool write_now(int fd, const char *text)
{
	struct pollfd ready = {.fd = fd, .events = POLLOUT};
	size_t length = strlen(text);

	(void)poll(&ready, 1, 0);
	return ready.revents == POLLOUT && write(fd, text, length) == (ssize_t)length;
}

void move_view_progress(struct move_view *view, const struct move *move,
			const struct move_sample *sample)
{
	char line[VIEW_LINE_SIZE], text[VIEW_LINE_SIZE + 8];
	uint64_t pause_us;

	if (!view || view->quiet)
		return;
	pause_us = view->style.live ? LIVE_US : PLAIN_US;
	if (!strcmp(view->phase, sample->phase) && sample->elapsed_us < view->last_us + pause_us)
		return;
	view_progress_line(&view->style, move, sample, line);
	(void)snprintf(text, sizeof(text), view->style.live ? "\r%s\033[K" : "%s\n", line);
	if (!write_now(view->fd, text))
		return;
	memcpy(view->phase, sample->phase, sizeof(view->phase));
	view->last_us = sample->elapsed_us;
	view->line_open = view->style.live;
}

void move_view_end(struct move_view *view, const struct move *move)
{
	struct view_style style;

	if (view && view->line_open)
		(void)write_now(view->fd, "\r\033[K");
	if (view)
		view->line_open = false;
	if (view && !view->quiet) {
		view_style_detect(&style, STDOUT_FILENO);
		view_report(stdout, &style, move);
		(void)fflush(stdout);
	}
	view_style_detect(&style, STDERR_FILENO);
	view_failure(stderr, &style, move);
}

void move_view_destroy(struct move_view *view)
{
	free(view);
}
