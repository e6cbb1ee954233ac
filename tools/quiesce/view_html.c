/* SPDX-License-Identifier: MIT */
/*
 * A migration as an HTML page that needs nothing else: no script, no other file. What stands in it
 * comes from elsewhere (names of devices, errors of peers) and is text only.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "text.h"
#include "view_html.h"

static const char style[] =
	"<style>\n"
	":root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--soft:#59636e;--rule:#d1d9e0;"
	"--lane:#f3f5f7;--on:#fff;--other:#5f6873;--copy:#1f62b0;--quiesce:#8f5600;--stop:#ab2f2f;"
	"--final:#6b3fa0;--load:#0d6c6c;--run:#26732b;--back-roll:#a8005f}\n"
	"@media(prefers-color-scheme:dark){:root{--back:#0f1318;--text:#e6eaef;--soft:#9aa5b1;"
	"--rule:#333c46;--lane:#1a2028;--on:#0f1318;--other:#a4aebb;--copy:#78b0f5;--quiesce:#"
	"e6a63f;"
	"--stop:#f58b82;--final:#c0a2f2;--load:#58cbc1;--run:#7fd283;--back-roll:#ff8ac6}}\n"
	"body{background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif;margin:0}"
	"main{max-width:1100px;margin:auto;padding:1.5rem}"
	"h1{font-size:1.5rem;line-height:1.25;overflow-wrap:anywhere}"
	"h2{font-size:1.15rem;margin:2rem 0 .5rem}"
	"p{max-width:75ch;overflow-wrap:anywhere}\n"
	".ok{color:var(--run)}.failed,.unproved{color:var(--stop)}\n"
	"dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem 1rem;margin:0}"
	"dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}\n"
	".wide{overflow-x:auto}svg{display:block;width:100%;min-width:700px;height:auto;"
	"font:11px system-ui,sans-serif;fill:var(--text)}\n"
	".grid{stroke:var(--rule);fill:none}.lane{fill:var(--lane)}.name{text-anchor:end}"
	".in{fill:var(--on)}.limit{stroke:var(--text);stroke-dasharray:6 4;fill:none}"
	".halt rect{fill:var(--stop);opacity:.28}.halt text{fill:var(--stop);font-weight:600}"
	".key "
	"text{font-weight:600;paint-order:stroke;stroke:var(--back);stroke-width:4px}path.curve{"
	"fill:none;stroke-width:2}\n"
	".other rect,.key .other{fill:var(--other)}.copy rect,.key .copy{fill:var(--copy)}"
	".quiesce rect,.key .quiesce{fill:var(--quiesce)}.stop rect,.stop circle{fill:var(--stop)}"
	".final rect,.key .final{fill:var(--final)}.load rect{fill:var(--load)}"
	".run rect{fill:var(--run)}.back rect{fill:var(--back-roll)}\n"
	".curve.copy{stroke:var(--copy)}.curve.final{stroke:var(--final)}"
	".curve.quiesce{stroke:var(--quiesce)}\n"
	".legend{display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.5rem 0;"
	"list-style:none;color:var(--soft)}.legend svg{display:inline-block;width:.8em;height:.8em;"
	"min-width:0;margin-right:.4em;vertical-align:-.05em}\n"
	"table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
	"th,td{padding:.15rem .8rem .15rem 0;text-align:right;border-bottom:1px solid var(--rule);"
	"white-space:nowrap}th{color:var(--soft);font-weight:600}"
	"th:first-child,td:first-child,.left{text-align:left}tr:last-child.sum td{font-weight:600}"
	"summary{cursor:pointer}\n"
	"</style>\n";

/* ---- what happened ---- */

static void put_fact(FILE *out, const char *name, const char *value)
{
	(void)fprintf(out, "<dt>%s</dt><dd>", name);
	view_html_text(out, value);
	(void)fputs("</dd>\n", out);
}

static void put_started(FILE *out, const struct move *move)
{
	time_t seconds = (time_t)move->started_at;
	char text[64];
	struct tm tm;

	if (gmtime_r(&seconds, &tm) && strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S UTC", &tm))
		put_fact(out, "began", text);
}

static void put_stopped(FILE *out, const struct move *move)
{
	char a[TEXT_SIZE], b[TEXT_SIZE], text[128] = "never";

	if (move_exit_code(move) == MOVE_UNPROVED)
		(void)snprintf(text, sizeof(text), "still, on this side");
	else if (move->report.downtime_us && move->downtime_limit_us)
		(void)snprintf(text, sizeof(text), "for %s, the limit was %s",
			       text_time(a, move->report.downtime_us),
			       text_time(b, move->downtime_limit_us));
	else if (move->report.downtime_us)
		(void)snprintf(text, sizeof(text), "for %s",
			       text_time(a, move->report.downtime_us));
	put_fact(out, "stopped", text);
}

static void put_facts(FILE *out, const struct move *move)
{
	const struct qsc_migrate_report *report = &move->report;
	uint64_t all = report->memory_bytes + report->device_bytes;
	char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE], text[256];

	(void)fputs("<dl>\n", out);
	put_fact(out, "this host", move->host);
	put_fact(out, move->verb == MOVE_RECEIVE || move->verb == MOVE_RESTORE ? "from" : "to",
		 move->transport);
	put_started(out, move);
	if (report->waited_us)
		put_fact(out, "waited", text_time(a, report->waited_us));
	put_fact(out, "took", text_time(a, move_took_us(move)));
	put_stopped(out, move);
	(void)snprintf(text, sizeof(text), "%u, with %s of the user's memory", move->num_devices,
		       text_bytes(a, move->memory_bytes));
	put_fact(out, "devices", text);
	if (*move->plan)
		put_fact(out, "strategy", move->plan);
	(void)snprintf(text, sizeof(text),
		       "%s of memory and %s of device state in %u pass%s, %s of it in the stop",
		       text_bytes(a, report->memory_bytes), text_bytes(b, report->device_bytes),
		       report->passes, report->passes == 1 ? "" : "es",
		       text_bytes(c, report->stop_bytes));
	put_fact(out, "moved", text);
	put_fact(out, "at", text_rate(a, text_per_second(all, move_took_us(move))));
	if (move->bandwidth)
		put_fact(out, "of at most", text_rate(a, move->bandwidth));
	(void)fputs("</dl>\n", out);
}

static void put_verdict(FILE *out, const struct move *move)
{
	if (move->error_number) {
		(void)fputs("<p class=\"failed\"><strong>", out);
		view_html_text(out,
			       *move->error_text ? move->error_text : strerror(move->error_number));
		(void)fputs("</strong>", out);
		if (*move->error_clause) {
			(void)fputs(" (clause ", out);
			view_html_text(out, move->error_clause);
			(void)fputs(")", out);
		}
		(void)fputs("</p>\n", out);
	}
	(void)fputs("<p>Now: ", out);
	view_html_text(out,
		       *move->report.outcome ? move->report.outcome : "it has not come to an end");
	(void)fputs("</p>\n", out);
}

/* ---- tables ---- */

static void put_part(FILE *out, const char *row, const char *name, uint64_t predicted,
		     uint64_t measured)
{
	char a[TEXT_SIZE], b[TEXT_SIZE];

	(void)fprintf(out, "<tr%s><td>%s</td><td>%s</td><td>%s</td></tr>\n", row, name,
		      text_time(a, predicted), text_time(b, measured));
}

static void put_parts(FILE *out, const struct move *move)
{
	const struct qsc_downtime *predicted = &move->report.predicted;
	const struct qsc_downtime *measured = &move->report.measured;
	double error = move->report.prediction_error_permille / 10.0;

	if (!predicted->total_us && !measured->total_us)
		return;
	(void)fputs("<h2>Parts of the stop</h2>\n<div class=\"wide\"><table><thead><tr>"
		    "<th scope=\"col\">part</th><th scope=\"col\">predicted</th>"
		    "<th scope=\"col\">measured</th></tr></thead><tbody>\n",
		    out);
	for (int i = 0; i < QSC_DOWNTIME_PARTS; i++)
		put_part(out, "", qsc_downtime_part_name((enum qsc_downtime_part)i),
			 predicted->part_us[i], measured->part_us[i]);
	put_part(out, " class=\"sum\"", "all of it", predicted->total_us, measured->total_us);
	(void)fputs("</tbody></table></div>\n", out);
	if (measured->total_us && move->report.owner != QSC_OWNER_DESTINATION)
		(void)fputs("<p>The stop was not seen to its end.</p>\n", out);
	else if (predicted->total_us && measured->total_us)
		(void)fprintf(out, "<p>The prediction was %.1f %% too %s.</p>\n",
			      error < 0 ? -error : error, error < 0 ? "long" : "short");
}

/* All phases of one name and device. */
static int by_kind(const void *a, const void *b)
{
	const struct move_phase *left = a, *right = b;
	int order;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	order = strcmp(left->name, right->name);
	if (order)
		return order;
	return left->start_us < right->start_us ? -1 : left->start_us > right->start_us;
}

static int by_start(const void *a, const void *b)
{
	const struct move_phase *left = a, *right = b;

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	return left->start_us < right->start_us ? -1 : left->start_us > right->start_us;
}

/* The phases put together by kind, in order of device and first start; NULL for no memory. */
static struct move_phase *sum_phases(const struct move *move, size_t *count)
{
	struct move_phase *sums = calloc(move->num_phases + 1, sizeof(*sums));
	size_t i, kept = 0;

	if (!sums)
		return NULL;
	if (move->num_phases)
		memcpy(sums, move->phases, move->num_phases * sizeof(*sums));
	qsort(sums, move->num_phases, sizeof(*sums), by_kind);
	for (i = 0; i < move->num_phases; i++) {
		struct move_phase *last = kept ? &sums[kept - 1] : NULL;

		if (!last || last->device != sums[i].device ||
		    strcmp(last->name, sums[i].name) != 0) {
			sums[kept++] = sums[i];
			continue;
		}
		last->duration_us += sums[i].duration_us;
		last->bytes += sums[i].bytes;
		last->count += sums[i].count;
	}
	qsort(sums, kept, sizeof(*sums), by_start);
	*count = kept;
	return sums;
}

static void put_phase(FILE *out, const struct move *move, const struct move_phase *phase,
		      uint64_t from_us)
{
	char start[TEXT_SIZE], took[TEXT_SIZE], bytes[TEXT_SIZE] = "", rate[TEXT_SIZE] = "";

	if (phase->bytes) {
		(void)text_bytes(bytes, phase->bytes);
		(void)text_rate(rate, text_per_second(phase->bytes, phase->duration_us));
	}
	(void)fputs("<tr><td>", out);
	if (phase->device >= 0) {
		view_html_text(out, move->devices[phase->device].name);
		(void)fputs("</td><td class=\"left\">", out);
	}
	view_html_text(out, phase->name);
	(void)fprintf(
		out, "</td><td>%" PRIu32 "</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td></tr>\n",
		phase->count, text_time(start, phase->start_us - from_us),
		text_time(took, phase->duration_us), bytes, rate);
}

static int put_phases(FILE *out, const struct move *move)
{
	static const char columns[] =
		"phase</th><th scope=\"col\">times</th><th scope=\"col\">first began</th>"
		"<th scope=\"col\">took together</th><th scope=\"col\">moved</th>"
		"<th scope=\"col\">rate</th></tr></thead><tbody>\n";
	size_t count = 0, at;
	struct move_phase *sums = sum_phases(move, &count);
	uint64_t from_us, duration_us;

	if (!sums)
		return -ENOMEM;
	/* Times count from where the drawings begin. */
	move_span(move, &from_us, &duration_us);
	(void)fprintf(out,
		      "<h2>Phases</h2>\n<div class=\"wide\"><table><thead><tr><th scope=\"col\">%s",
		      columns);
	for (at = 0; at < count && sums[at].device < 0; at++)
		put_phase(out, move, &sums[at], from_us);
	(void)fprintf(out,
		      "</tbody></table></div>\n<details><summary>Phases of each device</summary>\n"
		      "<div class=\"wide\"><table><thead><tr><th scope=\"col\">device</th>"
		      "<th scope=\"col\" class=\"left\">%s",
		      columns);
	for (; at < count; at++)
		if ((uint32_t)sums[at].device < move->num_devices)
			put_phase(out, move, &sums[at], from_us);
	(void)fputs("</tbody></table></div></details>\n", out);
	free(sums);
	return 0;
}

/* ---- the page ---- */

static void put_legend(FILE *out)
{
	const struct view_html_look *look;

	(void)fputs("<ul class=\"legend\" aria-hidden=\"true\">", out);
	for (unsigned int i = 0; (look = view_html_look(i)) != NULL; i++)
		(void)fprintf(out,
			      "<li><svg class=\"%s\" viewBox=\"0 0 8 8\"><rect width=\"8\" "
			      "height=\"8\"/></svg>%s</li>\n",
			      look->class, look->meaning);
	(void)fputs("</ul>\n", out);
}

static int put_lanes(FILE *out, const struct move *move)
{
	struct view_html_lanes lanes = {.move = move, .id = "all", .title = "All of it"};
	uint64_t start_us, duration_us;
	int result;

	move_span(move, &lanes.start_us, &lanes.duration_us);
	(void)fputs("<h2>All of it</h2>\n<div class=\"wide\">", out);
	result = view_html_lanes(out, &lanes);
	(void)fputs("</div>\n", out);
	put_legend(out);
	if (result == 0 && move->num_samples) {
		(void)fprintf(out, "<h2>Bytes%s</h2>\n<div class=\"wide\">",
			      view_html_predicts(move) ? " and predicted stop" : "");
		view_html_curves(out, move);
		(void)fputs("</div>\n", out);
	}
	if (result < 0 || !move_stop(move, &start_us, &duration_us))
		return result;
	lanes.id = "stopped";
	lanes.title = "The stop";
	lanes.start_us = start_us;
	lanes.duration_us = duration_us;
	(void)fputs("<h2>The stop</h2>\n<div class=\"wide\">", out);
	result = view_html_lanes(out, &lanes);
	(void)fputs("</div>\n", out);
	return result;
}

static int put_page(FILE *out, const struct move *move)
{
	static const char *const verbs[] = {"sent", "received", "saved", "restored"};
	const char *plural = move->num_devices == 1 ? "" : "s";
	int result;

	(void)fprintf(out,
		      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
		      "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n"
		      "<meta name=\"color-scheme\" content=\"light dark\">\n"
		      "<meta name=\"generator\" content=\"quiesce %s\">\n"
		      "<title>%u device%s %s: %s</title>\n%s</head>\n<body>\n<main>\n"
		      "<h1>%u device%s %s: <span class=\"%s\">%s</span></h1>\n",
		      qsc_version(), move->num_devices, plural, verbs[move->verb],
		      move_result_name(move), style, move->num_devices, plural, verbs[move->verb],
		      move_result_name(move), move_result_name(move));
	put_verdict(out, move);
	put_facts(out, move);
	result = put_lanes(out, move);
	put_parts(out, move);
	if (result == 0)
		result = put_phases(out, move);
	(void)fputs("</main>\n</body>\n</html>\n", out);
	return result;
}

/* ---- the file ---- */

/* Written whole or not at all: -errno. */
static int write_file(const struct move *move, int fd)
{
	FILE *out = fdopen(fd, "w");
	int result;

	if (!out) {
		close(fd);
		return -ENOMEM;
	}
	result = put_page(out, move);
	if (result == 0 && (fflush(out) != 0 || ferror(out) || fsync(fd) < 0))
		result = errno ? -errno : -EIO;
	if (fclose(out) != 0 && result == 0)
		result = -errno;
	return result;
}

static int cannot_write(const char *path, int number, struct qsc_error *err)
{
	return qsc_error_set(err, number, NULL, "the report '%s' cannot be written (%s)", path,
			     strerrordesc_np(number));
}

/* As docs/transports.rst tells how one begins: it may be the only copy of a set. */
static bool is_saved_set(const char *path)
{
	static const char head[8] = "QSCSAVE";
	char found[sizeof(head)];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	bool saved = fd >= 0 && read(fd, found, sizeof(found)) == (ssize_t)sizeof(found) &&
		     !memcmp(found, head, sizeof(head));

	if (fd >= 0)
		close(fd);
	return saved;
}

/* The file that becomes the report: its number, or -errno. */
static int open_temporary(const char *path, char temporary[PATH_MAX], struct qsc_error *err)
{
	struct stat st;
	int fd;

	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return qsc_error_set(err, EINVAL, NULL,
				     "the report cannot replace '%s', which is no file", path);
	if (is_saved_set(path))
		return qsc_error_set(err, EEXIST, NULL,
				     "the report does not replace '%s', which holds a saved set",
				     path);
	if (snprintf(temporary, PATH_MAX, "%s.%d.tmp", path, (int)getpid()) >= PATH_MAX)
		return qsc_error_set(err, ENAMETOOLONG, NULL, "the report's name is too long");
	/* One that a process of this number left when it died. */
	(void)unlink(temporary);
	fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	return fd < 0 ? cannot_write(path, errno, err) : fd;
}

int move_check_html(const char *path, struct qsc_error *err)
{
	char temporary[PATH_MAX];
	int fd = open_temporary(path, temporary, err);

	if (fd < 0)
		return fd;
	(void)unlink(temporary);
	close(fd);
	return 0;
}

int move_write_html(const struct move *move, const char *path, struct qsc_error *err)
{
	char temporary[PATH_MAX];
	int fd = open_temporary(path, temporary, err), result;

	if (fd < 0)
		return fd;
	result = write_file(move, fd);
	if (result == 0 && rename(temporary, path) < 0)
		result = -errno;
	if (result == 0)
		return 0;
	(void)unlink(temporary);
	return cannot_write(path, -result, err);
}
