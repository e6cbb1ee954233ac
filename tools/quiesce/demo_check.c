/* SPDX-License-Identifier: MIT */
/*
 * What it all came to. Among others whether the waves came in the order that the contract wants, by
 * what both sides have recorded: the engine is not asked, what it did is.
 */
#include <stdlib.h>
#include <string.h>

#include "demo.h"

/* ---- the order of the waves ---- */

static bool is_wave(const struct demo_phase *phase, const char *name)
{
	return phase->device >= 0 && !strcmp(phase->name, name);
}

static bool is_quiesce(const struct demo_phase *phase)
{
	return is_wave(phase, "quiesce") || is_wave(phase, "revoke");
}

/* Same migration, same side of it: one set. */
static bool same_set(const struct demo_phase *a, const struct demo_phase *b)
{
	return a->migration == b->migration && a->source == b->source;
}

/* Every device with P2P goes through it; without, those that reach the next in the chain. */
static uint64_t who_quiesces(const struct demo_config *config)
{
	uint32_t count = config->tenant.devices;

	if (!(config->flags & QSC_MIGRATION_P2P))
		count--;
	return count >= 64 ? UINT64_MAX : (1ULL << count) - 1;
}

/* SET-1: whoever stops finds everybody quiescent. */
static bool stops_in_order(const struct demo_outcome *outcome, const struct demo_phase *stop)
{
	uint64_t missing = who_quiesces(&outcome->config);
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (!is_quiesce(phase) || !same_set(phase, stop))
			continue;
		if (phase->start_us + phase->duration_us > stop->start_us)
			return false;
		missing &= ~(1ULL << phase->device);
	}
	return !missing;
}

/* SET-2: whoever runs finds nobody still in STOP. */
static bool runs_in_order(const struct demo_outcome *outcome, const struct demo_phase *run)
{
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (is_wave(phase, "start") && same_set(phase, run) &&
		    phase->start_us + phase->duration_us > run->start_us)
			return false;
	}
	return true;
}

uint32_t demo_check_waves(const struct demo_outcome *outcome)
{
	uint32_t broken = 0;
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];

		if (is_wave(phase, "stop") && !stops_in_order(outcome, phase))
			broken |= DEMO_BROKE_SET_1;
		if (is_wave(phase, "run") && !runs_in_order(outcome, phase))
			broken |= DEMO_BROKE_SET_2;
	}
	return broken;
}

/* ---- states ---- */

/* The devices in one state. Returns how much text there is now. */
static size_t describe_state(const uint8_t *states, uint32_t count, uint8_t state, char *text,
			     size_t size, size_t used)
{
	const char *before = used ? "; " : "";
	bool found = false;
	uint32_t i;

	for (i = 0; i < count && used < size; i++) {
		if (states[i] != state)
			continue;
		used += (size_t)snprintf(text + used, size - used, "%s%u", before, i);
		before = ", ";
		found = true;
	}
	if (!found || used >= size)
		return used;
	if (state == DEMO_STATE_UNKNOWN)
		return used + (size_t)snprintf(text + used, size - used, " gave no answer");
	return used + (size_t)snprintf(text + used, size - used, " in %s",
				       qsc_state_name((enum qsc_state)state));
}

void demo_describe_states(const uint8_t *states, uint32_t count, char *text, size_t size)
{
	size_t used = 0;
	uint8_t state;

	*text = 0;
	for (state = 0; state <= QSC_STATE_PRE_COPY_P2P && used < size; state++)
		used = describe_state(states, count, state, text, size, used);
	if (used < size)
		(void)describe_state(states, count, DEMO_STATE_UNKNOWN, text, size, used);
}

/* ---- the verdict ---- */

void demo_add_violation(struct demo_outcome *outcome, const char *clause)
{
	uint32_t i;

	for (i = 0; i < outcome->num_violations; i++) {
		if (!strcmp(outcome->violations[i], clause))
			return;
	}
	if (outcome->num_violations < DEMO_MAX_VIOLATIONS)
		(void)snprintf(outcome->violations[outcome->num_violations++],
			       sizeof(outcome->violations[0]), "%s", clause);
}

static void check_waves(struct demo_outcome *outcome)
{
	uint32_t broke = outcome->phases_lost ? 0 : demo_check_waves(outcome);

	if (broke & DEMO_BROKE_SET_1)
		demo_add_violation(outcome, qsc_clause_id(QSC_CLAUSE_SET_1));
	if (broke & DEMO_BROKE_SET_2)
		demo_add_violation(outcome, qsc_clause_id(QSC_CLAUSE_SET_2));
}

static void watch(struct demo_outcome *outcome, enum qsc_clause clause)
{
	outcome->watched[outcome->num_watched++] = qsc_clause_id(clause);
}

/* What the servers, the tenants, the counts and the phases would have shown. */
static void note_watched(struct demo_outcome *outcome)
{
	bool moved = false;
	uint32_t i;

	for (i = 0; i < outcome->config.migrations && outcome->migrations; i++)
		moved |= outcome->migrations[i].ended && !outcome->migrations[i].failed;
	if (outcome->begun)
		watch(outcome, QSC_CLAUSE_ORD_1);
	if (moved) {
		watch(outcome, QSC_CLAUSE_DEV_1);
		watch(outcome, QSC_CLAUSE_DEV_2);
	}
	if (outcome->has_result)
		watch(outcome, QSC_CLAUSE_DEV_6);
	if (!outcome->phases_lost && outcome->num_phases) {
		watch(outcome, QSC_CLAUSE_SET_1);
		watch(outcome, QSC_CLAUSE_SET_2);
	}
}

void demo_judge(struct demo_outcome *outcome)
{
	const struct tenant_result *result = &outcome->result;

	check_waves(outcome);
	note_watched(outcome);
	if (result->interrupts_lost || result->interrupts_doubled)
		demo_add_violation(outcome, qsc_clause_id(QSC_CLAUSE_DEV_6));
	outcome->ok = !outcome->error.number && outcome->has_result && result->blocks > 0 &&
		      !result->bytes_wrong && !result->interrupts_lost &&
		      !result->interrupts_doubled && !outcome->num_violations;
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return left < right ? -1 : left > right;
}

void demo_downtimes(const struct demo_outcome *outcome, uint64_t *min, uint64_t *median,
		    uint64_t *max)
{
	uint64_t times[DEMO_MAX_MIGRATIONS];
	uint32_t i, count = 0;

	*min = *median = *max = 0;
	for (i = 0; i < outcome->config.migrations && outcome->migrations; i++) {
		const struct demo_migration *migration = &outcome->migrations[i];

		if (migration->ended && !migration->failed)
			times[count++] = migration->downtime_us;
	}
	if (!count)
		return;
	qsort(times, count, sizeof(times[0]), compare_u64);
	*min = times[0];
	*max = times[count - 1];
	*median = count % 2 ? times[count / 2] : (times[count / 2 - 1] + times[count / 2]) / 2;
}
