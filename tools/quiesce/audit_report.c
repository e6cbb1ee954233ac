/* SPDX-License-Identifier: MIT */
/* What an audit found: for people, as JSON and as JUnit. */
#include "audit.h"

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"
#include "tool.h"

static const char *clause_name(const struct qsc_finding *finding)
{
	return finding->clause == QSC_CLAUSE_COUNT ? "allowed list"
						   : qsc_clause_id(finding->clause);
}

static bool binds_user(enum qsc_clause clause)
{
	return qsc_clause_info(clause)->binds != QSC_PARTY_DEVICE;
}

struct audit_counts audit_report_count(struct qsc_audit *audit)
{
	struct audit_counts counts = {0};
	struct qsc_finding f;

	for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++) {
		if (f.kind == QSC_FINDING_VIOLATION)
			counts.violations += f.count;
		else if (f.kind == QSC_FINDING_STRETCH)
			counts.stretches += f.count;
		else
			counts.refused += f.count;
	}
	return counts;
}

static void print_finding(const struct qsc_finding *f, FILE *out)
{
	(void)fprintf(out, "%s  %s  %s  %" PRIu64 "x\n  %s\n", qsc_finding_kind_name(f->kind),
		      clause_name(f), f->device, f->count, f->text);
	if (f->clause != QSC_CLAUSE_COUNT)
		(void)fprintf(out, "  the contract: %s\n", qsc_clause_info(f->clause)->text);
	if (f->consequence)
		(void)fprintf(out, "  what it costs: %s\n", f->consequence);
	if (f->num_context)
		(void)fprintf(out, "  first at %" PRIu64 ".%03" PRIu64 " s, after\n",
			      f->first_us / 1000000, f->first_us / 1000 % 1000);
	for (uint32_t i = 0; i < f->num_context; i++)
		(void)fprintf(out, "    %s\n", f->context[i]);
	(void)fputc('\n', out);
}

static void print_kind(struct qsc_audit *audit, enum qsc_finding_kind kind, FILE *out)
{
	struct qsc_finding f;

	for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++)
		if (f.kind == kind)
			print_finding(&f, out);
}

/* A line for each clause that was stretched or broken, and for the list. */
static void print_table(struct qsc_audit *audit, FILE *out)
{
	struct qsc_finding f;

	(void)fprintf(out, "%-14s%12s%12s%12s\n", "clause", "violations", "stretches", "refused");
	for (int c = 0; c <= QSC_CLAUSE_COUNT; c++) {
		uint64_t count[3] = {0};

		for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++)
			if (f.clause == (enum qsc_clause)c)
				count[f.kind] += f.count;
		if (!count[0] && !count[1] && !count[2])
			continue;
		(void)fprintf(out, "%-14s%12" PRIu64 "%12" PRIu64 "%12" PRIu64 "\n",
			      c == QSC_CLAUSE_COUNT ? "allowed list"
						    : qsc_clause_id((enum qsc_clause)c),
			      count[QSC_FINDING_VIOLATION], count[QSC_FINDING_STRETCH],
			      count[QSC_FINDING_REFUSED]);
	}
}

void audit_report_print(struct qsc_audit *audit, FILE *out)
{
	struct audit_counts counts = audit_report_count(audit);
	struct qsc_audit_totals totals;

	qsc_audit_totals(audit, &totals);
	print_kind(audit, QSC_FINDING_VIOLATION, out);
	print_kind(audit, QSC_FINDING_REFUSED, out);
	print_kind(audit, QSC_FINDING_STRETCH, out);
	if (qsc_audit_count(audit))
		print_table(audit, out);
	if (totals.dropped)
		(void)fprintf(out, "%" PRIu64 " findings of further kinds are not shown\n",
			      totals.dropped);
	(void)fprintf(out,
		      "%" PRIu64 " actions by users of %" PRIu64 " devices, %" PRIu64
		      " moves seen at both ends: %" PRIu64 " violations, %" PRIu64
		      " stretches, %" PRIu64 " refused\n",
		      totals.actions, totals.devices, totals.moves, counts.violations,
		      counts.stretches, counts.refused);
}

/* ---- JSON ---- */

static void add_text(struct json_object *object, const char *key, const char *text)
{
	json_object_object_add(object, key, text ? json_object_new_string(text) : NULL);
}

static void add_count(struct json_object *object, const char *key, uint64_t count)
{
	json_object_object_add(object, key, json_object_new_uint64(count));
}

static struct json_object *finding_json(const struct qsc_finding *f)
{
	struct json_object *object = json_object_new_object();
	struct json_object *context = json_object_new_array();
	bool clause = f->clause != QSC_CLAUSE_COUNT;

	add_text(object, "kind", qsc_finding_kind_name(f->kind));
	add_text(object, "clause", clause ? qsc_clause_id(f->clause) : NULL);
	add_text(object, "action",
		 f->action == QSC_ACTION_COUNT ? NULL : qsc_action_name(f->action));
	add_text(object, "state", qsc_state_name(f->state));
	add_text(object, "device", f->device);
	add_count(object, "count", f->count);
	add_count(object, "first_us", f->first_us);
	add_text(object, "text", f->text);
	add_text(object, "clause_text", clause ? qsc_clause_info(f->clause)->text : NULL);
	add_text(object, "consequence", f->consequence);
	for (uint32_t i = 0; i < f->num_context; i++)
		json_object_array_add(context, json_object_new_string(f->context[i]));
	json_object_object_add(object, "context", context);
	return object;
}

int audit_report_json(struct qsc_audit *audit, const char *profile, int code, FILE *out)
{
	struct json_object *object = json_object_new_object();
	struct json_object *findings = json_object_new_array();
	struct audit_counts counts = audit_report_count(audit);
	struct qsc_audit_totals totals;
	struct qsc_finding f;

	qsc_audit_totals(audit, &totals);
	add_text(object, "profile", profile);
	add_count(object, "actions", totals.actions);
	add_count(object, "devices", totals.devices);
	add_count(object, "moves", totals.moves);
	add_count(object, "violations", counts.violations);
	add_count(object, "stretches", counts.stretches);
	add_count(object, "refused", counts.refused);
	add_count(object, "dropped", totals.dropped);
	json_object_object_add(object, "exit_code", code < 0 ? NULL : json_object_new_int(code));
	for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++)
		json_object_array_add(findings, finding_json(&f));
	json_object_object_add(object, "findings", findings);
	return tool_write_json(object, out);
}

/* ---- JUnit ---- */

static void print_failure(const struct qsc_finding *f, FILE *out)
{
	(void)fputs("    <failure message=\"", out);
	text_xml(out, f->device);
	(void)fputs(": ", out);
	text_xml(out, f->text);
	(void)fputs("\">", out);
	for (uint32_t i = 0; i < f->num_context; i++) {
		text_xml(out, f->context[i]);
		(void)fputc('\n', out);
	}
	(void)fputs("</failure>\n", out);
}

static unsigned int count_cases(struct qsc_audit *audit, unsigned int *broken)
{
	unsigned int cases = 0;
	struct qsc_finding f;

	*broken = 0;
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		bool is_broken = false;

		if (!binds_user((enum qsc_clause)c))
			continue;
		cases++;
		for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++)
			is_broken |= f.clause == (enum qsc_clause)c &&
				     f.kind == QSC_FINDING_VIOLATION;
		*broken += is_broken;
	}
	return cases;
}

void audit_report_junit(struct qsc_audit *audit, FILE *out)
{
	unsigned int broken;
	unsigned int cases = count_cases(audit, &broken);
	struct qsc_finding f;

	(void)fprintf(out,
		      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		      "<testsuite name=\"quiesce audit\" tests=\"%u\" failures=\"%u\">\n",
		      cases, broken);
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		if (!binds_user((enum qsc_clause)c))
			continue;
		(void)fprintf(out, "  <testcase classname=\"audit\" name=\"%s\">\n",
			      qsc_clause_id((enum qsc_clause)c));
		for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++)
			if (f.clause == (enum qsc_clause)c && f.kind == QSC_FINDING_VIOLATION)
				print_failure(&f, out);
		(void)fputs("  </testcase>\n", out);
	}
	(void)fputs("</testsuite>\n", out);
}
