/* SPDX-License-Identifier: MIT */
/* The answer to `quiesce plan`: what is known of the set, and what moving it would come to. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "host.h"
#include "host_json.h"

static bool add_text(struct json_object *object, const char *key, const char *text)
{
	return host_json_add(object, key, json_object_new_string(text));
}

static bool add_number(struct json_object *object, const char *key, uint64_t number)
{
	return host_json_add(object, key, json_object_new_uint64(number));
}

static bool add_flag(struct json_object *object, const char *key, bool flag)
{
	return host_json_add(object, key, json_object_new_boolean(flag));
}

/* Null where the device does not say. */
static bool add_type(struct qsc_device *device, struct json_object *object)
{
	struct qsc_device_info info;

	if (qsc_device_get_info(device, &info) == 0 && info.layout.type[0])
		return add_text(object, "type", info.layout.type);
	return json_object_object_add(object, "type", NULL) == 0;
}

static struct json_object *device_json(const struct host *host, uint32_t index,
				       const struct qsc_migrate_plan_member *member)
{
	struct json_object *object = json_object_new_object();
	const struct hold_device *device = &host->config->hold.devices[index];
	bool good = add_text(object, "name", device->name) &&
		    add_text(object, "uri", device->uri) &&
		    add_number(object, "flags", member->flags) &&
		    add_flag(object, "dirty_log", member->dirty_log) &&
		    add_number(object, "state_bytes", member->state_bytes) &&
		    add_type(host->hold->devices[index], object);

	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

/* ---- who reaches whom ---- */

static struct json_object *mapping_json(const struct qsc_peer_mapping *mapping)
{
	struct json_object *object = json_object_new_object();
	bool good = add_number(object, "iova", mapping->iova) &&
		    add_number(object, "size", mapping->size) &&
		    add_number(object, "region", mapping->region) &&
		    add_number(object, "offset", mapping->offset) &&
		    add_flag(object, "read", mapping->flags & QSC_DMA_READ) &&
		    add_flag(object, "write", mapping->flags & QSC_DMA_WRITE);

	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

static struct json_object *mappings_json(const struct hold *hold, uint32_t from, uint32_t to)
{
	size_t count = qsc_set_reach(hold->set, from, to, NULL, 0);
	struct qsc_peer_mapping *mappings = calloc(count + 1, sizeof(*mappings));
	struct json_object *array = json_object_new_array();
	bool good = mappings && array;

	if (good)
		(void)qsc_set_reach(hold->set, from, to, mappings, count);
	for (size_t i = 0; i < count && good; i++) {
		struct json_object *mapping = mapping_json(&mappings[i]);

		good = mapping && json_object_array_add(array, mapping) == 0;
	}
	free(mappings);
	if (good)
		return array;
	json_object_put(array);
	return NULL;
}

static struct json_object *pair_json(const struct hold *hold, uint32_t from, uint32_t to)
{
	struct json_object *object = json_object_new_object();
	bool good = add_text(object, "from", qsc_set_name(hold->set, from)) &&
		    add_text(object, "to", qsc_set_name(hold->set, to)) &&
		    host_json_add(object, "mappings", mappings_json(hold, from, to));

	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

/* Every pair, also those without a mapping: that there is none is an answer. */
static struct json_object *reach_json(const struct hold *hold)
{
	struct json_object *array = json_object_new_array();
	uint32_t count = qsc_set_count(hold->set);
	bool good = array;

	for (uint32_t i = 0; i < count * count && good; i++) {
		struct json_object *pair;

		if (i / count == i % count)
			continue;
		pair = pair_json(hold, i / count, i % count);
		good = pair && json_object_array_add(array, pair) == 0;
	}
	if (good)
		return array;
	json_object_put(array);
	return NULL;
}

/* ---- what it comes to ---- */

static struct json_object *devices_json(const struct host *host,
					const struct qsc_migrate_plan *plan)
{
	struct json_object *array = json_object_new_array();
	bool good = array;

	for (uint32_t i = 0; i < host->config->hold.num_devices && good; i++) {
		struct json_object *device = device_json(host, i, &plan->members[i]);

		good = device && json_object_array_add(array, device) == 0;
	}
	if (good)
		return array;
	json_object_put(array);
	return NULL;
}

static struct json_object *downtime_json(const struct qsc_downtime *downtime)
{
	struct json_object *object = json_object_new_object();
	bool good = object;

	for (int i = 0; i < QSC_DOWNTIME_PARTS && good; i++) {
		char key[32];

		(void)snprintf(key, sizeof(key), "%s_us",
			       qsc_downtime_part_name((enum qsc_downtime_part)i));
		good = add_number(object, key, downtime->part_us[i]);
	}
	if (good && add_number(object, "total_us", downtime->total_us))
		return object;
	json_object_put(object);
	return NULL;
}

/* How the set is made quiescent, and why; whatever else refuses the move is another matter. */
static bool add_strategy(struct json_object *object, const struct host *host, enum qsc_quiesce mode)
{
	struct qsc_error refused = QSC_ERROR_NONE;
	struct qsc_set_plan plan = {0};
	const char *name = "refuse";

	if (qsc_set_plan(host->hold->set, mode, &plan, &refused) == 0)
		name = plan.strategy == QSC_QUIESCE_REVOKE ? "revoke" : "native";
	return add_text(object, "strategy", name) &&
	       add_text(object, "strategy_reason", refused.number ? refused.text : plan.reason) &&
	       add_number(object, "revoked_mappings", plan.revoked_mappings);
}

static struct json_object *plan_json(const struct host *host, const struct qsc_migrate_plan *plan,
				     const struct qsc_migrate_options *options, bool possible)
{
	struct json_object *object = json_object_new_object();
	bool good = add_flag(object, "possible", possible) &&
		    host_json_add(object, "devices", devices_json(host, plan)) &&
		    host_json_add(object, "reach", reach_json(host->hold)) &&
		    add_strategy(object, host, options->quiesce) &&
		    add_number(object, "memory_bytes", host->config->hold.memory_bytes) &&
		    add_flag(object, "asked", plan->asked) &&
		    add_number(object, "bytes_per_second", plan->bytes_per_second) &&
		    add_number(object, "rtt_us", plan->rtt_us) &&
		    add_number(object, "downtime_limit_us", options->downtime_limit_us) &&
		    add_flag(object, "fits", plan->fits) &&
		    add_text(object, "reason", plan->reason) &&
		    host_json_add(object, "predicted", downtime_json(&plan->predicted));

	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

/* What the engine had not come to when it refused. */
static void describe_members(const struct host *host, struct qsc_migrate_plan_member *members)
{
	const struct qsc_set *set = host->hold->set;

	for (uint32_t i = 0; i < qsc_set_count(set); i++) {
		struct qsc_migrate_plan_member *member = &members[i];

		member->flags = qsc_set_flags(set, i);
		member->dirty_log = qsc_set_has_dirty_log(set, i);
		(void)qsc_device_data_size(qsc_set_device(set, i), &member->state_bytes);
	}
}

int host_plan(struct host *host, struct json_object **out, bool *wrong, struct qsc_error *err)
{
	struct qsc_migrate_options options;
	struct qsc_transport *transport = NULL;
	struct qsc_migrate_plan plan = {
		.members = calloc(host->config->hold.num_devices, sizeof(*plan.members)),
	};
	int result = 0;

	*out = NULL;
	if (!plan.members)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a plan");
	if (host->request.transport)
		result = host_open_transport(&host->request, &transport, wrong, err);
	if (!result) {
		host_engine_options(host, &options);
		options.timeline = NULL;
		result = qsc_migrate_plan(host->hold->set, hold_user(host->hold), transport,
					  &options, &plan, err);
		if (result < 0 && !err->number)
			(void)qsc_error_set(err, -result, NULL, "%s", strerror(-result));
		/* As the source would when it gives up. */
		if (!result && !plan.fits && !options.exceed_downtime)
			result = qsc_error_set(err, ETIME, NULL, "%s", plan.reason);
		host_advise(host, err);
		describe_members(host, plan.members);
		*out = plan_json(host, &plan, &options, result == 0);
	}
	qsc_transport_close(transport);
	free(plan.members);
	return result;
}
