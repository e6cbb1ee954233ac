/* SPDX-License-Identifier: MIT */
/* A migration that has ended, told to a person on a terminal. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "tool.h"
#include "view.h"

static const char *device_name(const void *ctx, uint32_t device)
{
	const struct move *move = ctx;

	return device < move->num_devices ? move->devices[device].name : "";
}

/* ---- where the time went ---- */

static void draw(FILE *out, const struct view_style *style, const struct move *move)
{
	struct view_phase *phases = calloc(move->num_phases + 1, sizeof(*phases));
	uint64_t start_us, duration_us, stop_us, stopped_us;
	struct view_picture picture = {
		.out = out,
		.style = style,
		.title = "while all run",
		.phases = phases,
		.devices = move->num_devices,
		.sides = " ",
		.name = device_name,
		.ctx = move,
	};
	bool stopped = move_stop(move, &stop_us, &stopped_us);
	size_t i, count = 0;

	if (!phases)
		return;
	for (i = 0; i < move->num_phases; i++) {
		const struct move_phase *phase = &move->phases[i];

		phases[i] = (struct view_phase){phase->name,	    ' ',
						phase->device,	    phase->start_us,
						phase->duration_us, phase->bytes};
	}
	/* In order of start: those before the stop, then those in it. */
	while (count < move->num_phases && (!stopped || phases[count].start_us < stop_us))
		count++;
	move_span(move, &start_us, &duration_us);
	picture.num_phases = count;
	picture.start_us = start_us;
	picture.duration_us = stopped && stop_us > start_us ? stop_us - start_us : duration_us;
	if (count)
		view_timeline(&picture);
	if (stopped && count < move->num_phases) {
		picture.title = "the stop";
		picture.phases = phases + count;
		picture.num_phases = move->num_phases - count;
		picture.start_us = stop_us;
		picture.duration_us = stopped_us;
		view_timeline(&picture);
	}
	free(phases);
}

/* ---- the stop, predicted and measured ---- */

/* Where nothing was stopped nothing was measured. */
static void print_part(FILE *out, const char *name, uint64_t predicted, uint64_t measured,
		       bool stopped)
{
	char a[TEXT_SIZE], b[TEXT_SIZE];

	/* Without the micro sign, which is two bytes in one column. */
	(void)fprintf(out, "     %-18s %10s %10s\n", name, text_time(a, predicted),
		      stopped ? text_time(b, measured) : "-");
}

static void print_parts(FILE *out, const struct move *move)
{
	const struct qsc_downtime *predicted = &move->report.predicted;
	const struct qsc_downtime *measured = &move->report.measured;
	int32_t error = move->report.prediction_error_permille;
	char limit[TEXT_SIZE];

	if (!measured->total_us && !predicted->total_us)
		return;
	(void)fprintf(out, "\n     %-18s %10s %10s\n", "parts of the stop", "predicted",
		      "measured");
	for (int i = 0; i < QSC_DOWNTIME_PARTS; i++)
		print_part(out, qsc_downtime_part_name((enum qsc_downtime_part)i),
			   predicted->part_us[i], measured->part_us[i], measured->total_us);
	print_part(out, "all of it", predicted->total_us, measured->total_us, measured->total_us);
	(void)fprintf(out, "     ");
	if (measured->total_us && move->report.owner != QSC_OWNER_DESTINATION)
		(void)fprintf(out, "the stop was not seen to its end; ");
	else if (predicted->total_us && measured->total_us)
		(void)fprintf(out, "the prediction was %.1f %% too %s; ",
			      (error < 0 ? -(double)error : (double)error) / 10,
			      error < 0 ? "long" : "short");
	(void)fprintf(out, "the limit was %s\n", text_time(limit, move->downtime_limit_us));
}

/* ---- the whole ---- */

/* "Sent 4 devices to tcp:venus:7000 in 12.30 s, everything was stopped for 20 ms" */
static void print_headline(FILE *out, const struct view_style *style, const struct move *move)
{
	static const struct {
		const char *done, *failed, *unproved, *where;
	} words[] = {
		{"Sent", "Failed to send", "Could not prove to have sent", "to"},
		{"Received", "Failed to receive", "Could not prove to have received", "from"},
		{"Saved", "Failed to save", "Could not prove to have saved", "to"},
		{"Restored", "Failed to restore", "Could not prove to have restored", "from"},
	};
	int code = move_exit_code(move);
	const char *verb = words[move->verb].done;
	const char *color = !style->color ? "" : code ? "\033[1;31m" : "\033[1;32m";
	char transport[sizeof(move->transport)], took[TEXT_SIZE], stop[TEXT_SIZE];

	if (code)
		verb = code == MOVE_UNPROVED ? words[move->verb].unproved
					     : words[move->verb].failed;
	text_clean(transport, sizeof(transport), move->transport, style->utf8);
	(void)fprintf(out, "\n%s%s%s %u device%s %s %s in %s, ", color, verb,
		      *color ? "\033[0m" : "", move->num_devices, move->num_devices == 1 ? "" : "s",
		      words[move->verb].where, transport, text_time(took, move_took_us(move)));
	if (code == MOVE_UNPROVED)
		(void)fprintf(out, "everything is stopped\n");
	else if (move->report.downtime_us)
		(void)fprintf(out, "everything was stopped for %s\n",
			      text_time(stop, move->report.downtime_us));
	else
		(void)fprintf(out, "nothing was stopped\n");
}

static void print_moved(FILE *out, const struct move *move)
{
	const struct qsc_migrate_report *report = &move->report;
	uint64_t all = report->memory_bytes + report->device_bytes;
	char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE], rate[TEXT_SIZE];

	/* Refused, or nobody was there. */
	if (!all && move_exit_code(move))
		return;
	(void)fprintf(out,
		      "  moved %s of memory and %s of device state in %u pass%s at %s, %s of it in "
		      "the stop\n",
		      text_bytes(a, report->memory_bytes), text_bytes(b, report->device_bytes),
		      report->passes, report->passes == 1 ? "" : "es",
		      text_rate(rate, text_per_second(all, move_took_us(move))),
		      text_bytes(c, report->stop_bytes));
}

void view_report(FILE *out, const struct view_style *style, const struct move *move)
{
	char text[sizeof(move->report.outcome)];

	print_headline(out, style, move);
	print_moved(out, move);
	text_clean(text, sizeof(text), move->plan, style->utf8);
	if (*text)
		(void)fprintf(out, "  set: %s\n", text);
	draw(out, style, move);
	print_parts(out, move);
	text_clean(text, sizeof(text), move->report.outcome, style->utf8);
	if (!move_exit_code(move) && *text)
		(void)fprintf(out, "\n  now: %s\n", text);
}

void view_failure(FILE *errors, const struct view_style *style, const struct move *move)
{
	char text[QSC_ERROR_TEXT_SIZE], clause[sizeof(move->error_clause)];

	if (!move_exit_code(move))
		return;
	text_clean(text, sizeof(text), move->error_text, style->utf8);
	if (!*text)
		(void)snprintf(text, sizeof(text), "%s",
			       move->error_number ? strerror(move->error_number)
						  : "it has not ended");
	text_clean(clause, sizeof(clause), move->error_clause, style->utf8);
	(void)fprintf(errors, "%s: %s", tool_name, text);
	if (*clause)
		(void)fprintf(errors, " (clause %s)", clause);
	(void)fputc('\n', errors);
	text_clean(text, sizeof(text), move->report.outcome, style->utf8);
	if (*text)
		(void)fprintf(errors, "  now: %s\n", text);
}
