/* SPDX-License-Identifier: MIT */
/* See host_json.h. */
#include "host_json.h"

#include <string.h>

#include <json-c/json.h>

bool host_json_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (object && value && json_object_object_add(object, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static bool add_text(struct json_object *object, const char *key, const char *text)
{
	return host_json_add(object, key, json_object_new_string(text));
}

static bool add_number(struct json_object *object, const char *key, uint64_t number)
{
	return host_json_add(object, key, json_object_new_uint64(number));
}

/* JSON's null, which json-c has no object for. */
static bool add_null(struct json_object *object, const char *key)
{
	return object && json_object_object_add(object, key, NULL) == 0;
}

static struct json_object *whole(struct json_object *object, bool good)
{
	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

static struct json_object *event(const char *name)
{
	struct json_object *object = json_object_new_object();

	return whole(object, add_text(object, "event", name));
}

struct json_object *host_json_listening(const char *address)
{
	struct json_object *object = event("listening");

	return whole(object, add_text(object, "address", address));
}

struct json_object *host_json_begin(const struct move *move)
{
	struct json_object *object = event("begin");

	return whole(object, host_json_add(object, "move", move_to_json(move)));
}

struct json_object *host_json_progress(const struct move_sample *sample)
{
	struct json_object *object = event("progress");

	return whole(object, host_json_add(object, "sample", move_sample_to_json(sample)));
}

static struct json_object *error_json(const struct qsc_error *err)
{
	struct json_object *object = json_object_new_object();
	bool good = add_number(object, "errno", (uint64_t)err->number) &&
		    (err->clause ? add_text(object, "clause", err->clause)
				 : add_null(object, "clause")) &&
		    add_text(object, "text", err->text[0] ? err->text : strerror(err->number));

	return whole(object, good);
}

struct json_object *host_json_end(int code, const struct qsc_error *err, const struct move *move,
				  struct json_object *plan)
{
	struct json_object *object = event("end");
	bool good = add_number(object, "code", (uint64_t)code);

	good = good && (err->number ? host_json_add(object, "error", error_json(err))
				    : add_null(object, "error"));
	good = good && (move ? host_json_add(object, "move", move_to_json(move))
			     : add_null(object, "move"));
	if (good && plan)
		return whole(object, host_json_add(object, "plan", plan));
	json_object_put(plan);
	return whole(object, good && add_null(object, "plan"));
}

const char *host_state_name(enum host_state state)
{
	static const char *const names[] = {
		[HOST_EMPTY] = "empty",
		[HOST_RUNNING] = "running",
		[HOST_UNPROVED] = "unproved",
		[HOST_BROKEN] = "broken",
	};

	return names[state];
}

/* While a request is carried out its thread may be using the devices in any way. */
static struct json_object *device_json(struct host *host, uint32_t index, bool *dead)
{
	const struct hold_device *device = &host->config->hold.devices[index];
	struct json_object *object = json_object_new_object();
	enum qsc_state state;
	bool ours = !host->working && host->hold;
	bool known = ours && qsc_device_get_state(host->hold->devices[index], &state) == 0;
	bool good = add_text(object, "name", device->name) && add_text(object, "uri", device->uri);

	good = good && (known ? add_text(object, "state", qsc_state_name(state))
			      : add_null(object, "state"));
	*dead |= ours && !known;
	return whole(object, good);
}

static struct json_object *devices_json(struct host *host, bool *dead)
{
	struct json_object *devices = json_object_new_array();

	for (uint32_t i = 0; i < host->config->hold.num_devices && devices; i++) {
		struct json_object *device = device_json(host, i, dead);

		if (device && json_object_array_add(devices, device) == 0)
			continue;
		json_object_put(device);
		json_object_put(devices);
		devices = NULL;
	}
	return devices;
}

struct json_object *host_json_status(struct host *host)
{
	const struct hold_config *config = &host->config->hold;
	struct json_object *object = event("status"), *devices;
	bool dead = false, good;
	enum host_state state;

	devices = devices_json(host, &dead);
	pthread_mutex_lock(&host->lock);
	/* A set does not run without its device. */
	if (dead && host->state == HOST_RUNNING)
		host->state = HOST_BROKEN;
	state = host->state;
	pthread_mutex_unlock(&host->lock);
	good = add_text(object, "state", host_state_name(state)) &&
	       add_number(object, "memory_bytes", config->memory_bytes) &&
	       add_text(object, "tenant", config->tenant == HOLD_TENANT_COPY ? "copy" : "none") &&
	       host_json_add(object, "finishing", json_object_new_boolean(host->finishing));
	good = host_json_add(object, "devices", devices) && good &&
	       (host->working ? add_text(object, "request", request_verb_name(host->request.verb))
			      : add_null(object, "request"));
	pthread_mutex_lock(&host->lock);
	good = good && (host->moved ? host_json_add(object, "move", move_to_json(&host->move))
				    : add_null(object, "move"));
	pthread_mutex_unlock(&host->lock);
	return whole(object, good);
}

struct json_object *host_json_tenant(const struct tenant_result *result)
{
	struct json_object *object = json_object_new_object();
	struct json_object *tenant = json_object_new_object();
	bool good = add_number(tenant, "blocks", result->blocks) &&
		    add_number(tenant, "bytes_moved", result->bytes_moved) &&
		    add_number(tenant, "bytes_kept", result->bytes_kept) &&
		    add_number(tenant, "bytes_wrong", result->bytes_wrong) &&
		    add_number(tenant, "engine_bytes", result->engine_bytes) &&
		    add_number(tenant, "interrupts", result->interrupts) &&
		    add_number(tenant, "interrupts_lost", result->interrupts_lost) &&
		    add_number(tenant, "interrupts_doubled", result->interrupts_doubled) &&
		    add_number(tenant, "retried", result->retried);

	if (!good) {
		json_object_put(tenant);
		tenant = NULL;
	}
	return whole(object, host_json_add(object, "tenant", tenant));
}
