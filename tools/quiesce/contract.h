/* SPDX-License-Identifier: MIT */
/* `quiesce contract`: what its output formats share. */
#ifndef TOOL_CONTRACT_H
#define TOOL_CONTRACT_H

#include <quiesce/contract.h>

/* The valid sets of migration flags, ascending. */
#define NUM_FLAG_SETS 4
extern const uint32_t contract_flag_sets[NUM_FLAG_SETS];

/* "STOP_COPY, P2P, PRE_COPY" */
const char *contract_flags_text(uint32_t flags);

/* The states a device passes through in a life, as the published tables order them. */
extern const enum qsc_state contract_state_order[QSC_STATE_COUNT];

/* Whether the contract has that arc as one step for a device with these flags. */
bool contract_is_arc(uint32_t flags, enum qsc_state from, enum qsc_state to);

/* When an arc exists, as people say it ("P2P", "always"); NULL when it never does. */
const char *contract_arc_condition(enum qsc_state from, enum qsc_state to);

/* ARC-1's path, one sentence without full stop. */
const char *contract_path_rule(void);

/* What a verdict means, one sentence without full stop. */
const char *contract_verdict_meaning(enum qsc_verdict verdict);

/* "States", "Arcs", … for the first clause of a group, else NULL. */
const char *contract_group_begins(enum qsc_clause clause);

/* The formats; each prints all of the contract and returns an exit code. */
int contract_print_text(void);
int contract_print_json(void);
int contract_print_rst(void);
int contract_print_dot(void);

#endif
