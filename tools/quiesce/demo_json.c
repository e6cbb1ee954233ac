/* SPDX-License-Identifier: MIT */
/* The outcome for programs: one object, whose keys are documented in the manual. */
#include <json-c/json.h>

#include "demo.h"
#include "tool.h"

static void add_u64(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static void add_text(struct json_object *object, const char *key, const char *text)
{
	json_object_object_add(object, key, json_object_new_string(text));
}

static struct json_object *phases_json(const struct demo_outcome *outcome)
{
	struct json_object *array = json_object_new_array();
	size_t i;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];
		struct json_object *entry = json_object_new_object();

		add_text(entry, "name", phase->name);
		json_object_object_add(entry, "device",
				       phase->device < 0 ? NULL
							 : json_object_new_int(phase->device));
		add_u64(entry, "start_us", phase->start_us);
		add_u64(entry, "duration_us", phase->duration_us);
		add_u64(entry, "bytes", phase->bytes);
		add_u64(entry, "migration", phase->migration);
		add_text(entry, "side", phase->source ? "source" : "destination");
		json_object_array_add(array, entry);
	}
	return array;
}

static struct json_object *moves_json(const struct demo_outcome *outcome)
{
	struct json_object *array = json_object_new_array();
	uint32_t i;

	for (i = 0; i < outcome->config.migrations && outcome->migrations; i++) {
		const struct demo_migration *migration = &outcome->migrations[i];
		struct json_object *entry;

		if (!migration->begun)
			continue;
		entry = json_object_new_object();
		add_u64(entry, "migration", migration->number);
		json_object_object_add(entry, "ok", json_object_new_boolean(!migration->failed));
		add_u64(entry, "start_us", migration->start_us);
		add_u64(entry, "total_us", migration->end_us - migration->start_us);
		add_u64(entry, "downtime_us", migration->downtime_us);
		add_u64(entry, "memory_bytes", migration->source.memory_bytes);
		add_u64(entry, "device_bytes", migration->source.device_bytes);
		add_u64(entry, "stop_bytes", migration->source.stop_bytes);
		add_u64(entry, "passes", migration->source.passes);
		add_text(entry, "outcome", migration->outcome);
		json_object_array_add(array, entry);
	}
	return array;
}

static struct json_object *error_json(const struct demo_outcome *outcome)
{
	struct json_object *entry;

	if (!outcome->error.number)
		return NULL;
	entry = json_object_new_object();
	add_u64(entry, "errno", (uint64_t)outcome->error.number);
	json_object_object_add(
		entry, "clause",
		*outcome->error.clause ? json_object_new_string(outcome->error.clause) : NULL);
	add_text(entry, "text", outcome->error.text);
	add_text(entry, "follows", outcome->follows.text);
	add_text(entry, "state", outcome->advice);
	return entry;
}

static struct json_object *downtime_json(const struct demo_outcome *outcome)
{
	struct json_object *entry = json_object_new_object();
	uint64_t min, median, max;

	demo_downtimes(outcome, &min, &median, &max);
	add_u64(entry, "min", min);
	add_u64(entry, "median", median);
	add_u64(entry, "max", max);
	return entry;
}

int demo_print_json(const struct demo_outcome *outcome)
{
	const struct tenant_result *result = &outcome->result;
	struct json_object *object = json_object_new_object();
	struct json_object *violations = json_object_new_array();
	struct json_object *watched = json_object_new_array();
	uint64_t memory_bytes = 0, device_bytes = 0;
	uint32_t i, done = 0;

	for (i = 0; i < outcome->num_violations; i++)
		json_object_array_add(violations, json_object_new_string(outcome->violations[i]));
	for (i = 0; i < outcome->num_watched; i++)
		json_object_array_add(watched, json_object_new_string(outcome->watched[i]));
	for (i = 0; i < outcome->config.migrations && outcome->migrations; i++) {
		const struct demo_migration *migration = &outcome->migrations[i];

		done += migration->ended && !migration->failed;
		memory_bytes += migration->source.memory_bytes;
		device_bytes += migration->source.device_bytes;
	}
	add_text(object, "result", outcome->ok ? "ok" : "failed");
	add_u64(object, "devices", outcome->config.tenant.devices);
	add_u64(object, "migrations", done);
	add_u64(object, "bytes_moved", result->bytes_moved);
	add_u64(object, "bytes_wrong", result->bytes_wrong);
	add_u64(object, "interrupts_lost", result->interrupts_lost);
	add_u64(object, "interrupts_doubled", result->interrupts_doubled);
	json_object_object_add(object, "violations", violations);
	json_object_object_add(object, "watched", watched);
	json_object_object_add(object, "downtime_us", downtime_json(outcome));
	add_u64(object, "total_us", outcome->total_us);
	add_u64(object, "blocks", result->blocks);
	add_u64(object, "block_bytes", outcome->block_bytes);
	add_u64(object, "interrupts", result->interrupts);
	add_u64(object, "bytes_kept", result->bytes_kept);
	add_u64(object, "engine_bytes", result->engine_bytes);
	add_u64(object, "retried", result->retried);
	add_u64(object, "memory_bytes", memory_bytes);
	add_u64(object, "device_bytes", device_bytes);
	json_object_object_add(object, "error", error_json(outcome));
	json_object_object_add(object, "moves", moves_json(outcome));
	json_object_object_add(object, "phases", phases_json(outcome));
	return tool_print_json(object);
}
