/* SPDX-License-Identifier: MIT */
/* A check for programs: JSON, JUnit XML and TAP. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "check.h"
#include "text.h"
#include "tool.h"

/* ---- JSON ---- */

static void add_text(struct json_object *object, const char *key, const char *text)
{
	json_object_object_add(object, key, text ? json_object_new_string(text) : NULL);
}

static void add_number(struct json_object *object, const char *key, uint64_t number)
{
	json_object_object_add(object, key, json_object_new_uint64(number));
}

static struct json_object *finding_json(const struct check_report *report,
					const struct check_device *device,
					const struct check_finding *f)
{
	struct json_object *object = json_object_new_object();
	struct json_object *steps = json_object_new_array();
	const struct qsc_clause_info *info = qsc_clause_info(f->clause);
	char *again;

	add_text(object, "id", f->item.id);
	add_text(object, "clause", info ? info->id : NULL);
	add_text(object, "promise", check_promise(f));
	add_text(object, "authority", info ? info->authority : NULL);
	add_text(object, "result", qsc_check_result_name(f->result));
	add_text(object, "text", f->text);
	add_number(object, "took_us", f->took_us);
	if (f->result == QSC_CHECK_HOLDS)
		json_object_object_add(object, "partly", json_object_new_boolean(f->partly));
	if (f->result == QSC_CHECK_BROKEN) {
		for (size_t i = 0; i < f->num_steps; i++)
			json_object_array_add(steps, json_object_new_string(f->steps[i]));
		json_object_object_add(object, "steps", steps);
		add_number(object, "head", f->head);
		add_number(object, "omitted", f->omitted);
		if (f->seed)
			add_number(object, "seed", f->seed);
		json_object_object_add(object, "gone", json_object_new_boolean(f->gone));
		again = check_again(report, device, f);
		add_text(object, "again", again);
		free(again);
	} else {
		json_object_put(steps);
	}
	return object;
}

static struct json_object *device_json(const struct check_report *report,
				       const struct check_device *device)
{
	const struct qsc_check_subject *s = &device->subject;
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_object_new_array();
	char id[16];

	add_text(object, "uri", device->uri);
	add_text(object, "to", report->to);
	add_text(object, "verdict", check_verdict(device));
	add_text(object, "error", device->error[0] ? device->error : NULL);
	add_text(object, "kind", s->kind);
	add_text(object, "type", s->type);
	(void)snprintf(id, sizeof(id), "%04x:%04x", s->pci_vendor, s->pci_device);
	add_text(object, "pci", s->pci_vendor ? id : NULL);
	add_number(object, "flags", s->flags);
	json_object_object_add(object, "migrates", json_object_new_boolean(s->migrates));
	json_object_object_add(object, "dirty_log", json_object_new_boolean(s->dirty_log));
	add_text(object, "exerciser", s->exerciser);
	add_number(object, "took_us", device->took_us);
	for (size_t i = 0; i < device->num_findings; i++)
		json_object_array_add(list, finding_json(report, device, &device->findings[i]));
	json_object_object_add(object, "findings", list);
	return object;
}

int check_write_json(const struct check_report *report, FILE *out)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < report->num_devices; i++)
		json_object_array_add(list, device_json(report, &report->devices[i]));
	json_object_object_add(object, "devices", list);
	return tool_write_json(object, out);
}

/* ---- JUnit ---- */

static void case_xml(const struct check_report *report, const struct check_device *device,
		     const struct check_finding *f, FILE *out)
{
	char *again;

	(void)fprintf(out, "    <testcase classname=\"");
	text_xml(out, device->uri);
	(void)fprintf(out, "\" name=\"%s\" time=\"%.6f\"", f->item.id, (double)f->took_us / 1e6);
	if (f->result == QSC_CHECK_HOLDS) {
		(void)fputs("/>\n", out);
		return;
	}
	(void)fprintf(out, ">\n      <%s message=\"",
		      f->result == QSC_CHECK_BROKEN ? "failure" : "skipped");
	if (f->result != QSC_CHECK_BROKEN)
		(void)fprintf(out, "%s: ", qsc_check_result_name(f->result));
	text_xml(out, f->text);
	if (f->result != QSC_CHECK_BROKEN) {
		(void)fputs("\"/>\n    </testcase>\n", out);
		return;
	}
	(void)fprintf(out, "\" type=\"%s\">\n",
		      f->gone			      ? "gone"
		      : f->clause == QSC_CLAUSE_COUNT ? f->item.id
						      : qsc_clause_id(f->clause));
	for (size_t i = 0; i < f->num_steps; i++) {
		text_xml(out, f->steps[i]);
		(void)fputc('\n', out);
	}
	again = check_again(report, device, f);
	text_xml(out, again);
	free(again);
	(void)fputs("\n      </failure>\n    </testcase>\n", out);
}

int check_write_junit(const struct check_report *report, FILE *out)
{
	(void)fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n", out);
	for (size_t d = 0; d < report->num_devices; d++) {
		const struct check_device *device = &report->devices[d];

		(void)fputs("  <testsuite name=\"", out);
		text_xml(out, device->uri);
		(void)fprintf(out,
			      "\" tests=\"%zu\" failures=\"%zu\" errors=\"%d\" skipped=\"%zu\" "
			      "time=\"%.6f\">\n",
			      device->num_findings + (device->error[0] != '\0'),
			      device->counts[QSC_CHECK_BROKEN], device->error[0] != '\0',
			      device->counts[QSC_CHECK_NOT_PROMISED] +
				      device->counts[QSC_CHECK_NOT_TRIED],
			      (double)device->took_us / 1e6);
		for (size_t i = 0; i < device->num_findings; i++)
			case_xml(report, device, &device->findings[i], out);
		if (device->error[0]) {
			(void)fputs("    <testcase name=\"open\">\n      <error message=\"", out);
			text_xml(out, device->error);
			(void)fputs("\"/>\n    </testcase>\n", out);
		}
		(void)fputs("  </testsuite>\n", out);
	}
	return fputs("</testsuites>\n", out) < 0 ? -EIO : 0;
}

/* ---- TAP ---- */

/* In a line: a '#' begins what makes readers look away from a failure. */
static void tap(const char *text)
{
	for (; *text; text++) {
		if (*text == '#' || *text == '\\')
			(void)putchar('\\');
		(void)putchar((unsigned char)*text < 0x20 ? '?' : *text);
	}
}

/* Lines of a comment. */
static void tap_comment(const char *before, const char *text)
{
	printf("# %s", before);
	for (; *text; text++) {
		(void)putchar(*text);
		if (*text == '\n')
			(void)fputs("# ", stdout);
	}
	(void)putchar('\n');
}

static void tap_finding(const struct check_report *report, const struct check_device *device,
			const struct check_finding *f, size_t number)
{
	char *again;

	printf("%sok %zu - ", f->result == QSC_CHECK_BROKEN ? "not " : "", number);
	tap(device->uri);
	printf(" %s", f->item.id);
	if (f->result == QSC_CHECK_NOT_PROMISED || f->result == QSC_CHECK_NOT_TRIED)
		printf(" # SKIP %s: ", qsc_check_result_name(f->result));
	else
		printf(": ");
	tap(f->text);
	(void)putchar('\n');
	if (f->result != QSC_CHECK_BROKEN)
		return;
	for (size_t i = 0; i < f->num_steps; i++)
		tap_comment("  ", f->steps[i]);
	again = check_again(report, device, f);
	tap_comment("again: ", again);
	free(again);
}

void check_write_tap(const struct check_report *report)
{
	size_t number = 0;

	for (size_t d = 0; d < report->num_devices; d++) {
		const struct check_device *device = &report->devices[d];

		for (size_t i = 0; i < device->num_findings; i++)
			tap_finding(report, device, &device->findings[i], ++number);
		if (!device->error[0])
			continue;
		printf("not ok %zu - ", ++number);
		tap(device->uri);
		printf(": ");
		tap(device->error);
		(void)putchar('\n');
	}
	printf("1..%zu\n", number);
}
