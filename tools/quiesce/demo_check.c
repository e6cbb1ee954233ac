/* SPDX-License-Identifier: MIT */
/*
 * Whether the waves came in the order that the contract wants, by what both sides have recorded.
 * The engine is not asked: what it did is.
 */
#include <string.h>

#include "demo.h"

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
