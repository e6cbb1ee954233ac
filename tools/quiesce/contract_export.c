/* SPDX-License-Identifier: MIT */
/* `quiesce contract`: the formats for programs and for the published document. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "contract.h"
#include "tool.h"

/* ---- JSON ---- */

static struct json_object *next_json(uint32_t flags, uint32_t current, uint32_t target)
{
	struct json_object *entry = json_object_new_object();
	int next = qsc_contract_next(flags, current, target);
	char number[12];

	/* One target beyond the last is printed too, to show what becomes of no state at all. */
	(void)snprintf(number, sizeof(number), "%u", target);
	json_object_object_add(entry, "flags", json_object_new_int((int)flags));
	json_object_object_add(entry, "current",
			       json_object_new_string(qsc_state_name((enum qsc_state)current)));
	json_object_object_add(
		entry, "target",
		json_object_new_string(target < QSC_STATE_COUNT
					       ? qsc_state_name((enum qsc_state)target)
					       : number));
	json_object_object_add(
		entry, "next",
		json_object_new_string(next < 0 ? "EINVAL" : qsc_state_name((enum qsc_state)next)));
	return entry;
}

static struct json_object *action_json(enum qsc_action action, enum qsc_state state)
{
	struct json_object *entry = json_object_new_object();
	enum qsc_verdict verdict = qsc_contract_verdict(action, state);

	json_object_object_add(entry, "action", json_object_new_string(qsc_action_name(action)));
	json_object_object_add(entry, "state", json_object_new_string(qsc_state_name(state)));
	json_object_object_add(entry, "verdict", json_object_new_string(qsc_verdict_name(verdict)));
	return entry;
}

static struct json_object *clause_json(const struct qsc_clause_info *info)
{
	struct json_object *entry = json_object_new_object();

	json_object_object_add(entry, "id", json_object_new_string(info->id));
	json_object_object_add(entry, "binds", json_object_new_string(qsc_party_name(info->binds)));
	json_object_object_add(entry, "authority", json_object_new_string(info->authority));
	json_object_object_add(entry, "text", json_object_new_string(info->text));
	return entry;
}

int contract_print_json(void)
{
	struct json_object *root = json_object_new_object();
	struct json_object *next = json_object_new_array();
	struct json_object *actions = json_object_new_array();
	struct json_object *clauses = json_object_new_array();

	for (int i = 0; i < NUM_FLAG_SETS; i++)
		for (uint32_t current = 0; current < QSC_STATE_COUNT; current++)
			for (uint32_t target = 0; target <= QSC_STATE_COUNT; target++)
				json_object_array_add(
					next, next_json(contract_flag_sets[i], current, target));
	for (int action = 0; action < QSC_ACTION_COUNT; action++)
		for (int state = 0; state < QSC_STATE_COUNT; state++)
			json_object_array_add(actions, action_json((enum qsc_action)action,
								   (enum qsc_state)state));
	for (int clause = 0; clause < QSC_CLAUSE_COUNT; clause++)
		json_object_array_add(clauses,
				      clause_json(qsc_clause_info((enum qsc_clause)clause)));
	json_object_object_add(root, "path", json_object_new_string(contract_path_rule()));
	json_object_object_add(root, "next", next);
	json_object_object_add(root, "actions", actions);
	json_object_object_add(root, "clauses", clauses);
	return tool_print_json(root);
}

/* ---- reStructuredText ---- */

/* Between two comments, so that the document can take in one part at a time. */
static void begin_part(const char *name)
{
	printf(".. begin %s\n\n", name);
}

static void end_part(const char *name)
{
	printf("\n.. end %s\n\n", name);
}

static void print_escaped(const char *text)
{
	for (; *text; text++) {
		if (strchr("\\*`|_", *text))
			(void)putchar('\\');
		(void)putchar(*text);
	}
}

static void begin_table(const char *title)
{
	printf(".. list-table:: %s\n   :header-rows: 1\n\n", title);
}

/* A cell in literal type; first in its row or not. */
static void print_cell(bool first, const char *text)
{
	printf("   %s - ``%s``\n", first ? "*" : " ", text);
}

static void print_head(bool first, const char *text)
{
	printf("   %s - %s\n", first ? "*" : " ", text);
}

static void print_rst_arcs(void)
{
	begin_part("arcs");
	begin_table("Direct arcs");
	print_head(true, "from");
	print_head(false, "");
	print_head(false, "to");
	print_head(false, "exists when");
	for (int from = 0; from < QSC_STATE_COUNT; from++) {
		for (int to = 0; to < QSC_STATE_COUNT; to++) {
			enum qsc_state a = (enum qsc_state)from;
			enum qsc_state b = (enum qsc_state)to;
			const char *condition = contract_arc_condition(a, b);
			bool both = condition && contract_arc_condition(b, a);

			if (!condition || (both && from > to))
				continue;
			print_cell(true, qsc_state_name(a));
			print_head(false, both ? "↔" : "→");
			print_cell(false, qsc_state_name(b));
			print_head(false, condition);
		}
	}
	end_part("arcs");
}

static void print_rst_path(void)
{
	begin_part("path");
	print_escaped(contract_path_rule());
	printf(".\n");
	end_part("path");
}

static void print_rst_steps(uint32_t flags)
{
	char title[96];
	char part[16];

	(void)snprintf(part, sizeof(part), "next-%u", flags);
	(void)snprintf(title, sizeof(title), "Next step with %s (flags %u)",
		       contract_flags_text(flags), flags);
	begin_part(part);
	begin_table(title);
	print_head(true, "current \\\\ target");
	for (int i = 0; i < QSC_STATE_COUNT - 1; i++)
		if (qsc_state_exists(flags, contract_state_order[i]))
			print_head(false, qsc_state_name(contract_state_order[i]));
	for (int i = 0; i < QSC_STATE_COUNT - 1; i++) {
		enum qsc_state current = contract_state_order[i];

		if (!qsc_state_exists(flags, current))
			continue;
		print_head(true, qsc_state_name(current));
		for (int j = 0; j < QSC_STATE_COUNT - 1; j++) {
			enum qsc_state target = contract_state_order[j];
			int next = qsc_contract_next(flags, current, target);

			if (!qsc_state_exists(flags, target))
				continue;
			if (current == target)
				print_head(false, "stays");
			else
				print_cell(false, next < 0 ? "EINVAL"
							   : qsc_state_name((enum qsc_state)next));
		}
	}
	end_part(part);
}

static void print_rst_actions(void)
{
	begin_part("actions");
	begin_table("The allowed list");
	print_head(true, "action");
	for (int i = 0; i < QSC_STATE_COUNT; i++)
		print_head(false, qsc_state_name(contract_state_order[i]));
	for (int a = 0; a < QSC_ACTION_COUNT; a++) {
		print_head(true, qsc_action_text((enum qsc_action)a));
		for (int i = 0; i < QSC_STATE_COUNT; i++)
			print_head(false, qsc_verdict_name(qsc_contract_verdict(
						  (enum qsc_action)a, contract_state_order[i])));
	}
	end_part("actions");
	begin_part("verdicts");
	for (int v = QSC_VERDICT_ALLOW; v <= QSC_VERDICT_ENODEV; v++)
		printf("*%s*\n   %s.\n\n", qsc_verdict_name((enum qsc_verdict)v),
		       contract_verdict_meaning((enum qsc_verdict)v));
	end_part("verdicts");
}

/* A part a group, named after the first word of its identifiers: "clauses-sess". */
static void print_rst_clauses(void)
{
	char part[24] = "";

	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		const struct qsc_clause_info *info = qsc_clause_info((enum qsc_clause)c);

		if (contract_group_begins((enum qsc_clause)c)) {
			if (part[0])
				end_part(part);
			(void)snprintf(part, sizeof(part), "clauses-%.*s",
				       (int)strcspn(info->id, "-"), info->id);
			begin_part(part);
			printf(".. glossary::\n");
		}
		printf("\n   %s\n      ", info->id);
		print_escaped(info->text);
		printf(" *Binds the %s; authority %s.*\n", qsc_party_name(info->binds),
		       info->authority);
	}
	end_part(part);
}

int contract_print_rst(void)
{
	printf(".. Generated by 'quiesce contract --rst'.\n\n");
	print_rst_arcs();
	print_rst_path();
	for (int i = 0; i < NUM_FLAG_SETS; i++)
		print_rst_steps(contract_flag_sets[i]);
	print_rst_actions();
	print_rst_clauses();
	return TOOL_OK;
}

/* ---- Graphviz ---- */

struct edge_style {
	const char *condition;
	const char *attributes;
};

/* Colour says which capability an arc needs, dashes that it must be without P2P. */
static const struct edge_style styles[] = {
	{"always", "color=black"},
	{"without P2P", "color=black, style=dashed"},
	{"P2P", "color=blue"},
	{"PRE_COPY", "color=darkgreen"},
	{"PRE_COPY without P2P", "color=darkgreen, style=dashed"},
	{"PRE_COPY and P2P", "color=purple"},
};

static const char *style_of(const char *condition)
{
	for (size_t i = 0; i < sizeof(styles) / sizeof(styles[0]); i++)
		if (!strcmp(styles[i].condition, condition))
			return styles[i].attributes;
	return "color=black";
}

int contract_print_dot(void)
{
	printf("digraph migration {\n"
	       "\tgraph [rankdir=LR, label=\"Direct arcs; a label names the capabilities that an "
	       "arc needs\"];\n"
	       "\tnode [shape=box, style=rounded, fontname=monospace];\n"
	       "\tedge [fontsize=9];\n");
	for (int i = 0; i < QSC_STATE_COUNT; i++) {
		enum qsc_state state = contract_state_order[i];

		printf("\t%s%s;\n", qsc_state_name(state),
		       qsc_state_is_active(state) ? "" : " [style=\"rounded,filled\"]");
	}
	for (int from = 0; from < QSC_STATE_COUNT; from++) {
		for (int to = 0; to < QSC_STATE_COUNT; to++) {
			const char *condition = contract_arc_condition((enum qsc_state)from,
								       (enum qsc_state)to);

			if (condition)
				printf("\t%s -> %s [label=\"%s\", %s];\n",
				       qsc_state_name((enum qsc_state)from),
				       qsc_state_name((enum qsc_state)to),
				       strcmp(condition, "always") ? condition : "",
				       style_of(condition));
		}
	}
	printf("}\n");
	return TOOL_OK;
}
