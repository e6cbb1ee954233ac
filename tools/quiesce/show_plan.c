/* SPDX-License-Identifier: MIT */
/* A plan for a person. It came as JSON, perhaps from another process. */
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include <quiesce/device.h>

#include "show.h"
#include "text.h"
#include "tool.h"

static struct json_object *get(struct json_object *object, const char *key)
{
	struct json_object *value = NULL;

	return json_object_object_get_ex(object, key, &value) ? value : NULL;
}

static uint64_t number(struct json_object *object, const char *key)
{
	int64_t value = json_object_get_int64(get(object, key));

	return value < 0 ? 0 : (uint64_t)value;
}

static bool flag(struct json_object *object, const char *key)
{
	return json_object_get_boolean(get(object, key));
}

static const char *text(struct json_object *object, const char *key, char buf[512])
{
	struct json_object *value = get(object, key);

	text_clean(buf, 512,
		   json_object_is_type(value, json_type_string) ? json_object_get_string(value)
								: "",
		   true);
	return buf;
}

static size_t length(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

static void print_device(struct json_object *device)
{
	uint64_t flags = number(device, "flags");
	char name[512], uri[512], type[512], bytes[TEXT_SIZE];

	printf("  %-12s %s\n", text(device, "name", name), text(device, "uri", uri));
	printf("  %-12s STOP_COPY%s%s, %s, %s of state", "",
	       flags & QSC_MIGRATION_P2P ? ", P2P" : "",
	       flags & QSC_MIGRATION_PRE_COPY ? ", PRE_COPY" : "",
	       flag(device, "dirty_log") ? "dirty log" : "no dirty log",
	       text_bytes(bytes, number(device, "state_bytes")));
	if (*text(device, "type", type))
		printf(", type %s", type);
	(void)putchar('\n');
}

static void print_pair(struct json_object *pair)
{
	struct json_object *mappings = get(pair, "mappings");
	char from[512], to[512], bytes[TEXT_SIZE];

	text(pair, "from", from);
	text(pair, "to", to);
	for (size_t i = 0; i < length(mappings); i++) {
		struct json_object *mapping = json_object_array_get_idx(mappings, i);

		printf("  %s can %s%s%s region %llu of %s: %s at IOVA %#llx\n", from,
		       flag(mapping, "read") ? "read" : "",
		       flag(mapping, "read") && flag(mapping, "write") ? " and " : "",
		       flag(mapping, "write") ? "write" : "",
		       (unsigned long long)number(mapping, "region"), to,
		       text_bytes(bytes, number(mapping, "size")),
		       (unsigned long long)number(mapping, "iova"));
	}
}

static void print_reach(struct json_object *reach)
{
	size_t without = 0;

	for (size_t i = 0; i < length(reach); i++) {
		struct json_object *pair = json_object_array_get_idx(reach, i);

		if (!length(get(pair, "mappings")))
			without++;
		print_pair(pair);
	}
	if (without && without == length(reach))
		printf("  no device reaches another\n");
	else if (without)
		printf("  the other %zu of %zu pairs: no reach\n", without, length(reach));
}

static void print_downtime(struct json_object *plan)
{
	struct json_object *parts = get(plan, "predicted");
	char total[TEXT_SIZE], limit[TEXT_SIZE], time[TEXT_SIZE], reason[512];

	/* Used devices write meanwhile, which no plan has seen. */
	printf("predicted downtime  at least %s, limit %s\n",
	       text_time(total, number(parts, "total_us")),
	       text_time(limit, number(plan, "downtime_limit_us")));
	json_object_object_foreach(parts, key, value)
	{
		int name = (int)strlen(key) - 3; /* without "_us" */

		(void)value;
		if (name > 0 && strcmp(key, "total_us") != 0)
			printf("  %-10.*s %12s\n", name < 20 ? name : 20, key,
			       text_time(time, number(parts, key)));
	}
	printf("  ");
	tool_print_wrapped(text(plan, "reason", reason), 2);
}

void show_plan(struct json_object *plan)
{
	struct json_object *devices = get(plan, "devices");
	char buf[512], bytes[TEXT_SIZE];

	printf("devices\n");
	for (size_t i = 0; i < length(devices); i++)
		print_device(json_object_array_get_idx(devices, i));
	printf("memory  %s\n", text_bytes(bytes, number(plan, "memory_bytes")));
	if (length(devices) > 1) {
		printf("reach\n");
		print_reach(get(plan, "reach"));
	}
	printf("strategy  %s: ", text(plan, "strategy", buf));
	tool_print_wrapped(text(plan, "strategy_reason", buf), 2);
	/* A move that is refused for anything but its time has no prediction. */
	if (number(get(plan, "predicted"), "total_us"))
		print_downtime(plan);
}
