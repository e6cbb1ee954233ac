/* SPDX-License-Identifier: MIT */
/* A check for people: each finding as it comes, what is broken and why, and one screen at the end.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "text.h"
#include "tool.h"

static const struct {
	const char *letter;
	const char *text;
} authorities[] = {
	{"H", "the uAPI header of Linux"},
	{"S", "the discussion that led to it"},
	{"Q", "this project's contract"},
	{"V", "the vfio-user specification"},
};

void check_show_subject(const struct check_device *device, const struct check_report *report)
{
	const struct qsc_check_subject *s = &device->subject;
	char type[QSC_LAYOUT_NAME];

	text_clean(type, sizeof(type), s->type, false);
	printf("%s%s%s\n  ", device->uri, report->to ? " to " : "", report->to ? report->to : "");
	if (s->pci_vendor)
		printf("PCI %04x:%04x, ", s->pci_vendor, s->pci_device);
	if (type[0])
		printf("type %s, ", type);
	printf("by %s", s->kind);
	if (!s->migrates)
		printf("; it does not migrate");
	else
		printf("; flags %u:%s%s%s%s", s->flags,
		       s->flags & QSC_MIGRATION_STOP_COPY ? " STOP_COPY" : "",
		       s->flags & QSC_MIGRATION_P2P ? " P2P" : "",
		       s->flags & QSC_MIGRATION_PRE_COPY ? " PRE_COPY" : "",
		       s->dirty_log ? ", dirty log" : ", no dirty log");
	printf("; %s%s\n\n", s->exerciser ? "exerciser " : "no exerciser for this device type",
	       s->exerciser ? s->exerciser : "");
	(void)fflush(stdout);
}

/* Columns of an identifier and a result before the text. */
#define ID_COLUMNS     20
#define RESULT_COLUMNS 19

void check_show_finding(const struct check_finding *finding)
{
	printf("  %-*s%-*s", ID_COLUMNS, finding->item.id, RESULT_COLUMNS,
	       qsc_check_result_name(finding->result));
	tool_print_wrapped(finding->text, 2 + ID_COLUMNS + RESULT_COLUMNS);
	(void)fflush(stdout);
}

/* "H, S" in words. */
static void show_authority(const char *letters)
{
	const char *before = "";

	for (size_t i = 0; i < sizeof(authorities) / sizeof(authorities[0]); i++)
		if (strstr(letters, authorities[i].letter)) {
			printf("%s%s", before, authorities[i].text);
			before = " and ";
		}
}

static void show_steps(const struct check_finding *f)
{
	const char *label = "actions";

	for (size_t i = 0; i < f->num_steps; i++) {
		if (i == f->head && f->omitted)
			printf("  %-9s… %" PRIu64 " more …\n", "", f->omitted);
		printf("  %-9s%s\n", label, f->steps[i]);
		label = "";
	}
}

static void show_broken(const struct check_report *report, const struct check_device *device,
			const struct check_finding *f)
{
	const struct qsc_clause_info *info = qsc_clause_info(f->clause);
	char *again = check_again(report, device, f);

	printf("\nBROKEN %s", f->gone ? "gone" : info ? info->id : f->item.id);
	if (f->gone || (info && f->item.clause != f->clause))
		printf(", found by %s", f->item.id);
	(void)putchar('\n');
	printf("  %-9s", "promised");
	tool_print_wrapped(check_promise(f), 11);
	if (info) {
		printf("  %-9s", "says");
		show_authority(info->authority);
		(void)putchar('\n');
	}
	printf("  %-9s", "seen");
	tool_print_wrapped(f->text, 11);
	show_steps(f);
	printf("  %-9s%s\n", "again", again);
	free(again);
}

/* ---- one screen ---- */

static char mark_of(const struct check_finding *f)
{
	return f->partly ? '~' : "+B-?"[f->result];
}

/* Clauses in a line for each group, and the other items below. */
static void show_table(const struct check_device *device)
{
	const size_t columns = tool_columns();
	char group[16] = "";
	size_t column = 0;

	for (size_t i = 0; i < device->num_findings; i++) {
		const struct check_finding *f = &device->findings[i];
		const char *number = strchr(f->item.id, '-');
		size_t length = number ? (size_t)(number - f->item.id) : 0;

		if (f->item.clause == QSC_CLAUSE_COUNT) {
			if (column + strlen(f->item.id) + 4 > columns ||
			    strcmp(group, "list") != 0) {
				printf("%s  %-7s", column ? "\n" : "",
				       strcmp(group, "list") ? "actions" : "");
				column = 9;
			}
			(void)snprintf(group, sizeof(group), "list");
			column += (size_t)printf("  %s %c", f->item.id, mark_of(f));
			continue;
		}
		if (strncmp(group, f->item.id, length) != 0 || group[length]) {
			(void)snprintf(group, sizeof(group), "%.*s", (int)length, f->item.id);
			printf("%s  %-7s", column ? "\n" : "", group);
			column = 9;
		}
		column += (size_t)printf("  %2s %c", number + 1, mark_of(f));
	}
	printf("%s\n  + holds   %sB broken   - not promised   ? could not be tried\n",
	       column ? "\n" : "", device->partly ? "~ holds as far as it was tried   " : "");
}

/* "SESS-3, SESS-6", each once; or the items in which the device was gone. True for any. */
static bool show_clauses(const struct check_device *device, bool gone, const char *before)
{
	bool seen[QSC_CLAUSE_COUNT + 1] = {false};
	bool any = false;

	for (size_t i = 0; i < device->num_findings; i++) {
		const struct check_finding *f = &device->findings[i];

		if (f->result != QSC_CHECK_BROKEN || f->gone != gone ||
		    (f->clause != QSC_CLAUSE_COUNT && seen[f->clause]))
			continue;
		seen[f->clause] = true;
		printf("%s%s", any ? ", " : before,
		       f->clause == QSC_CLAUSE_COUNT ? f->item.id : qsc_clause_id(f->clause));
		any = true;
	}
	return any;
}

void check_show_verdict(const struct check_report *report, const struct check_device *device)
{
	char took[TEXT_SIZE];
	bool any;

	if (device->error[0]) {
		(void)tool_fail("%s: %s", device->uri, device->error);
		return;
	}
	for (size_t i = 0; i < device->num_findings; i++)
		if (device->findings[i].result == QSC_CHECK_BROKEN)
			show_broken(report, device, &device->findings[i]);
	(void)putchar('\n');
	show_table(device);
	printf("\n%s ", device->uri);
	switch (check_code(device)) {
	case TOOL_OK:
		printf("conforms%s",
		       device->counts[QSC_CHECK_NOT_TRIED] ? " as far as it could be tried" : "");
		break;
	case TOOL_FAILED:
		printf("does not conform: it ");
		any = show_clauses(device, false, "breaks ");
		(void)show_clauses(device, true, any ? "; it is gone in " : "is gone in ");
		break;
	default:
		printf("could not be tried%s",
		       device->unopened ? ": it could not be opened again" : "");
		break;
	}
	printf("\n%zu hold, %zu broken, %zu not promised, %zu could not be tried, in %s",
	       device->counts[QSC_CHECK_HOLDS], device->counts[QSC_CHECK_BROKEN],
	       device->counts[QSC_CHECK_NOT_PROMISED], device->counts[QSC_CHECK_NOT_TRIED],
	       text_time(took, device->took_us));
	if (device->partly)
		printf("; of those that hold, %zu were not tried in all parts", device->partly);
	(void)putchar('\n');
}
