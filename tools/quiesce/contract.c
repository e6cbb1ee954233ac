/* SPDX-License-Identifier: MIT */
/* `quiesce contract`: the command, what its formats share, and the format for people. */
#include "contract.h"

#include <stdio.h>
#include <string.h>

#include "tool.h"

const uint32_t contract_flag_sets[NUM_FLAG_SETS] = {
	QSC_MIGRATION_STOP_COPY,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_PRE_COPY,
	QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY,
};

const enum qsc_state contract_state_order[QSC_STATE_COUNT] = {
	QSC_STATE_RUNNING, QSC_STATE_PRE_COPY,	QSC_STATE_RUNNING_P2P, QSC_STATE_PRE_COPY_P2P,
	QSC_STATE_STOP,	   QSC_STATE_STOP_COPY, QSC_STATE_RESUMING,    QSC_STATE_ERROR,
};

const char *contract_flags_text(uint32_t flags)
{
	static const char *const texts[] = {"STOP_COPY", "STOP_COPY, P2P", "STOP_COPY, PRE_COPY",
					    "STOP_COPY, P2P, PRE_COPY"};

	return qsc_flags_valid(flags) ? texts[flags / 2] : "invalid";
}

bool contract_is_arc(uint32_t flags, enum qsc_state from, enum qsc_state to)
{
	return from != to && qsc_contract_next(flags, from, to) == (int)to;
}

const char *contract_arc_condition(enum qsc_state from, enum qsc_state to)
{
	/* By the flag sets that have the arc, one bit each in their order. */
	static const char *const conditions[1 << NUM_FLAG_SETS] = {
		[0xf] = "always",   [0x5] = "without P2P",	    [0xa] = "P2P",
		[0xc] = "PRE_COPY", [0x4] = "PRE_COPY without P2P", [0x8] = "PRE_COPY and P2P",
	};
	unsigned int have = 0;

	for (unsigned int i = 0; i < NUM_FLAG_SETS; i++)
		if (contract_is_arc(contract_flag_sets[i], from, to))
			have |= 1U << i;
	return conditions[have];
}

const char *contract_path_rule(void)
{
	return "A request is walked over the shortest path of direct arcs with no saving state "
	       "(PRE_COPY, PRE_COPY_P2P, STOP_COPY) inside it, except that between two saving "
	       "states the path stays among saving states; where there is none the request is "
	       "refused";
}

const char *contract_verdict_meaning(enum qsc_verdict verdict)
{
	static const char *const meanings[] = {
		[QSC_VERDICT_ALLOW] = "works",
		[QSC_VERDICT_TOLERATE] = "works, but not promised by every device: a stretch",
		[QSC_VERDICT_DISCARD] =
			("reads give all ones, writes vanish: a violation, by the user of ORD-1, "
			 "or by the set of SET-1 where a peer asks"),
		[QSC_VERDICT_HOLD] = "takes effect at the next RUNNING, exactly once",
		[QSC_VERDICT_DROP] = "has no effect, now or later",
		[QSC_VERDICT_NEVER] = "the device must not",
		[QSC_VERDICT_NEVER_NEW] =
			"the device must not start any; what was under way has drained",
		[QSC_VERDICT_IF_TOLD] = "only a device that tells peers from memory may",
	};

	return qsc_verdict_errno(verdict) ? "refused with this errno" : meanings[verdict];
}

const char *contract_group_begins(enum qsc_clause clause)
{
	switch (clause) {
	case QSC_CLAUSE_STATE_1:
		return "States";
	case QSC_CLAUSE_ARC_1:
		return "Arcs";
	case QSC_CLAUSE_SESS_1:
		return "Sessions";
	case QSC_CLAUSE_DEV_1:
		return "The device when not fully running";
	case QSC_CLAUSE_LOG_1:
		return "Dirty logging";
	case QSC_CLAUSE_SET_1:
		return "Sets";
	case QSC_CLAUSE_ORD_1:
		return "Order";
	default:
		return NULL;
	}
}

static void print_arcs(void)
{
	printf("Direct arcs\n\n");
	for (int from = 0; from < QSC_STATE_COUNT; from++) {
		for (int to = 0; to < QSC_STATE_COUNT; to++) {
			enum qsc_state a = (enum qsc_state)from;
			enum qsc_state b = (enum qsc_state)to;
			const char *condition = contract_arc_condition(a, b);
			bool both = condition && contract_arc_condition(b, a);

			if (condition && (!both || from < to))
				printf("  %-12s %s  %-14s%s\n", qsc_state_name(a),
				       both ? "<->" : "-->", qsc_state_name(b), condition);
		}
	}
}

/* One line a next step, with the targets it is the way to. */
static void print_steps_from(uint32_t flags, enum qsc_state current)
{
	const char *label = qsc_state_name(current);

	for (int step = 0; step <= QSC_STATE_COUNT; step++) {
		bool refused = step == QSC_STATE_COUNT;
		bool any = false;

		for (int i = 0; i < QSC_STATE_COUNT; i++) {
			enum qsc_state target = contract_state_order[i];
			int next = qsc_contract_next(flags, current, target);

			if (target == current || target == QSC_STATE_ERROR ||
			    !qsc_state_exists(flags, target) ||
			    (refused ? next >= 0 : next != step))
				continue;
			if (!any)
				printf("  %-14s%-14s", label,
				       refused ? "EINVAL" : qsc_state_name((enum qsc_state)step));
			printf("%s%s", any ? ", " : "", qsc_state_name(target));
			any = true;
			label = "";
		}
		if (any)
			printf("\n");
	}
}

static void print_steps(uint32_t flags)
{
	printf("\nNext step of a device with the capabilities %s (flags %u)\n\n"
	       "  %-14s%-14s%s\n",
	       contract_flags_text(flags), flags, "current", "next", "on the way to");
	for (int i = 0; i < QSC_STATE_COUNT; i++)
		if (contract_state_order[i] != QSC_STATE_ERROR &&
		    qsc_state_exists(flags, contract_state_order[i]))
			print_steps_from(flags, contract_state_order[i]);
}

static void print_actions(void)
{
	printf("\nThe allowed list\n\n"
	       "  %-18s%-9s%-9s%-10s%-10s%-9s%-9s%-9s%s\n"
	       "  %-18s%-9s%-9s%-10s%-10s%-9s%s\n",
	       "", "RUNNING", "PRE_", "RUNNING_", "PRE_COPY_", "STOP", "STOP_", "RESUMING", "ERROR",
	       "", "", "COPY", "P2P", "P2P", "", "COPY");
	for (int a = 0; a < QSC_ACTION_COUNT; a++) {
		printf("  %-18s", qsc_action_name((enum qsc_action)a));
		for (int i = 0; i < QSC_STATE_COUNT; i++) {
			enum qsc_verdict verdict = qsc_contract_verdict((enum qsc_action)a,
									contract_state_order[i]);
			bool wide = qsc_state_is_p2p(contract_state_order[i]);

			if (i == QSC_STATE_COUNT - 1)
				printf("%s\n", qsc_verdict_name(verdict));
			else
				printf("%-*s", wide ? 10 : 9, qsc_verdict_name(verdict));
		}
	}
	printf("\n");
	for (int a = 0; a < QSC_ACTION_COUNT; a++)
		printf("  %-18s%s\n", qsc_action_name((enum qsc_action)a),
		       qsc_action_text((enum qsc_action)a));
	printf("\n");
	for (int v = QSC_VERDICT_ALLOW; v <= QSC_VERDICT_ENODEV; v++) {
		printf("  %-18s", qsc_verdict_name((enum qsc_verdict)v));
		tool_print_wrapped(contract_verdict_meaning((enum qsc_verdict)v), 20);
	}
}

static void print_clauses(void)
{
	printf("\nClauses\n\n"
	       "Authorities: H uAPI header of Linux, S the discussion that asked for a contract,\n"
	       "Q decided here, V vfio-user specification.\n");
	for (int c = 0; c < QSC_CLAUSE_COUNT; c++) {
		const struct qsc_clause_info *info = qsc_clause_info((enum qsc_clause)c);
		const char *group = contract_group_begins((enum qsc_clause)c);

		if (group)
			printf("\n%s (bind%s the %s)\n\n", group,
			       group[strlen(group) - 1] == 's' ? "" : "s",
			       qsc_party_name(info->binds));
		printf("  %-9s%-6s", info->id, info->authority);
		tool_print_wrapped(info->text, 17);
	}
}

int contract_print_text(void)
{
	printf("The path\n\n  ");
	tool_print_wrapped(contract_path_rule(), 2);
	printf("\n");
	print_arcs();
	for (int i = 0; i < NUM_FLAG_SETS; i++)
		print_steps(contract_flag_sets[i]);
	printf("\n  Every request to or from ERROR, and to a state the device does not have: "
	       "EINVAL.\n");
	print_actions();
	print_clauses();
	return TOOL_OK;
}

typedef int print_fn(void);

static const struct argp_option options[] = {
	{"json", 'j', NULL, 0, "Print everything as JSON", 0},
	{"rst", 'r', NULL, 0, "Print the tables as reStructuredText", 0},
	{"dot", 'd', NULL, 0, "Print the graph of states for Graphviz", 0},
	{0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	print_fn **print = state->input;
	print_fn *chosen = NULL;

	if (key == 'j')
		chosen = contract_print_json;
	else if (key == 'r')
		chosen = contract_print_rst;
	else if (key == 'd')
		chosen = contract_print_dot;
	else
		return ARGP_ERR_UNKNOWN;
	if (*print && *print != chosen)
		tool_usage("only one of --json, --rst and --dot can be printed at a time");
	*print = chosen;
	return 0;
}

int cmd_contract(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.doc = "Print the migration contract: the arcs between states, the list of allowed "
		       "actions, and every clause.",
	};
	print_fn *print = NULL;

	tool_parse(&argp, argc, argv, &print);
	return print ? print() : contract_print_text();
}
