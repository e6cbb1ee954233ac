/* SPDX-License-Identifier: MIT */
/* See seen.h. */
#include "seen.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

uint64_t seen_verdicts(const struct handover_seen *seen, enum qsc_verdict verdict)
{
	uint64_t total = 0;

	for (unsigned int a = 0; a < QSC_ACTION_COUNT; a++)
		for (unsigned int s = 0; s < QSC_STATE_COUNT; s++)
			if (qsc_contract_verdict((enum qsc_action)a, (enum qsc_state)s) == verdict)
				total += atomic_load(&seen->actions[a][s]);
	return total;
}

static uint64_t in_state(const struct handover_seen *seen, unsigned int state)
{
	uint64_t total = 0;

	for (unsigned int a = 0; a < QSC_ACTION_COUNT; a++)
		total += atomic_load(&seen->actions[a][state]);
	return total;
}

static void print_irqs(const struct handover_seen *seen, FILE *out)
{
	if (atomic_load(&seen->irqs_known))
		(void)fprintf(out,
			      "  interrupts: %" PRIu64 " delivered, %" PRIu64
			      " held back while it did not run\n",
			      atomic_load(&seen->irqs_delivered), atomic_load(&seen->irqs_held));
	else
		(void)fprintf(out, "  interrupts: signalled by its server, and not counted here\n");
}

static void print_states(const struct handover_seen *seen, FILE *out)
{
	const char *before = "  actions by state:";

	for (unsigned int s = 0; s < QSC_STATE_COUNT; s++) {
		uint64_t count = in_state(seen, s);

		if (!count)
			continue;
		(void)fprintf(out, "%s %s %" PRIu64, before, qsc_state_name((enum qsc_state)s),
			      count);
		before = ",";
	}
	if (before[0] == ',')
		(void)fprintf(out, "\n");
}

void seen_print(const struct launch *launch, FILE *out)
{
	for (uint32_t i = 0; i < launch->config.num_devices; i++) {
		const struct handover_seen *seen = &launch->seen[i];
		uint64_t opened = atomic_load(&seen->opened);
		const char *name = launch->config.devices[i].name;

		if (!opened) {
			(void)fprintf(out, "%s was never opened\n", name);
			continue;
		}
		(void)fprintf(out,
			      "%s was opened %" PRIu64 " times; saved %" PRIu64 " times (%" PRIu64
			      " bytes), loaded %" PRIu64 " times (%" PRIu64 " bytes), %" PRIu64
			      " state changes failed; last state %s\n",
			      name, opened, atomic_load(&seen->saved),
			      atomic_load(&seen->saved_bytes), atomic_load(&seen->loaded),
			      atomic_load(&seen->loaded_bytes), atomic_load(&seen->failed),
			      qsc_state_name((enum qsc_state)atomic_load(&seen->state)));
		print_states(seen, out);
		print_irqs(seen, out);
		(void)fprintf(
			out,
			"  against the contract: %" PRIu64 " violations, %" PRIu64 " stretches\n",
			seen_verdicts(seen, QSC_VERDICT_DISCARD) + atomic_load(&seen->reported),
			seen_verdicts(seen, QSC_VERDICT_TOLERATE));
	}
}

static void add(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *actions_json(const struct handover_seen *seen)
{
	struct json_object *actions = json_object_new_object();

	for (unsigned int a = 0; a < QSC_ACTION_COUNT; a++) {
		struct json_object *states = json_object_new_object();

		for (unsigned int s = 0; s < QSC_STATE_COUNT; s++) {
			uint64_t count = atomic_load(&seen->actions[a][s]);

			if (count)
				add(states, qsc_state_name((enum qsc_state)s), count);
		}
		if (json_object_object_length(states))
			json_object_object_add(actions, qsc_action_name((enum qsc_action)a),
					       states);
		else
			json_object_put(states);
	}
	return actions;
}

/* NULL where nobody here knows. */
static struct json_object *irqs_json(const struct handover_seen *seen)
{
	struct json_object *object;

	if (!atomic_load(&seen->irqs_known))
		return NULL;
	object = json_object_new_object();
	add(object, "delivered", atomic_load(&seen->irqs_delivered));
	add(object, "held", atomic_load(&seen->irqs_held));
	return object;
}

static struct json_object *device_json(const struct launch *launch, uint32_t index)
{
	const struct handover_seen *seen = &launch->seen[index];
	struct json_object *object = json_object_new_object();
	struct json_object *entered = json_object_new_object();

	json_object_object_add(object, "name",
			       json_object_new_string(launch->config.devices[index].name));
	json_object_object_add(object, "spec",
			       json_object_new_string(launch->config.devices[index].spec));
	add(object, "opened", atomic_load(&seen->opened));
	add(object, "saved", atomic_load(&seen->saved));
	add(object, "saved_bytes", atomic_load(&seen->saved_bytes));
	add(object, "loaded", atomic_load(&seen->loaded));
	add(object, "loaded_bytes", atomic_load(&seen->loaded_bytes));
	add(object, "failed_changes", atomic_load(&seen->failed));
	json_object_object_add(
		object, "last_state",
		json_object_new_string(qsc_state_name((enum qsc_state)atomic_load(&seen->state))));
	for (unsigned int s = 0; s < QSC_STATE_COUNT; s++)
		if (atomic_load(&seen->entered[s]))
			add(entered, qsc_state_name((enum qsc_state)s),
			    atomic_load(&seen->entered[s]));
	json_object_object_add(object, "entered", entered);
	json_object_object_add(object, "actions", actions_json(seen));
	json_object_object_add(object, "interrupts", irqs_json(seen));
	add(object, "violations",
	    seen_verdicts(seen, QSC_VERDICT_DISCARD) + atomic_load(&seen->reported));
	add(object, "stretches", seen_verdicts(seen, QSC_VERDICT_TOLERATE));
	return object;
}

int seen_write_json(const struct launch *launch, const char *path, struct qsc_error *err)
{
	struct json_object *root = json_object_new_object();
	struct json_object *devices = json_object_new_array();
	int result;

	for (uint32_t i = 0; i < launch->config.num_devices; i++)
		json_object_array_add(devices, device_json(launch, i));
	json_object_object_add(root, "devices", devices);
	result = json_object_to_file_ext(path, root, JSON_C_TO_STRING_PRETTY) < 0 ? -errno : 0;
	json_object_put(root);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot write %s: %s", path,
				     strerror(-result));
	return 0;
}
