/* SPDX-License-Identifier: MIT */
/*
 * A migration as JSON and back. One table for each structure says which keys it has, and serves
 * both directions, so that they cannot differ.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "move.h"
#include "text.h"

enum kind {
	KIND_END,
	KIND_TEXT,  /* char[size] */
	KIND_U64,   /* at most MAX_NUMBER */
	KIND_U32,   /* as above */
	KIND_I32,   /* any */
	KIND_INDEX, /* int32_t; -1 is null */
	KIND_BOOL,  /* bool */
	KIND_NAME,  /* an enum, by `names`, which ends with NULL */
	KIND_PART,  /* a structure with `keys` of its own */
};

struct key {
	const char *name;
	enum kind kind;
	size_t offset;
	size_t size;
	const char *const *names;
	const struct key *keys;
};

/* Sums of a few of them do not wrap. */
#define MAX_NUMBER ((int64_t)1 << 62)

/* clang-format off */
#define KEY(type, field, kind) {#field, kind, offsetof(type, field), 0, NULL, NULL}
#define KEY_TEXT(type, field) \
	{#field, KIND_TEXT, offsetof(type, field), sizeof(((type *)0)->field), NULL, NULL}
#define KEY_PART(type, field, keys) {#field, KIND_PART, offsetof(type, field), 0, NULL, keys}
#define KEY_DOWNTIME(name, part) \
	{name, KIND_U64, offsetof(struct qsc_downtime, part_us[part]), 0, NULL, NULL}
/* clang-format on */

static const struct key device_keys[] = {
	KEY_TEXT(struct move_device, name),
	KEY_TEXT(struct move_device, uri),
	KEY(struct move_device, flags, KIND_U32),
	{0},
};

static const struct key phase_keys[] = {
	KEY_TEXT(struct move_phase, name),
	KEY(struct move_phase, device, KIND_INDEX),
	KEY(struct move_phase, start_us, KIND_U64),
	KEY(struct move_phase, duration_us, KIND_U64),
	KEY(struct move_phase, bytes, KIND_U64),
	KEY(struct move_phase, count, KIND_U32),
	{0},
};

static const struct key sample_keys[] = {
	KEY_TEXT(struct move_sample, phase),
	KEY(struct move_sample, pass, KIND_U32),
	KEY(struct move_sample, elapsed_us, KIND_U64),
	KEY(struct move_sample, bytes_sent, KIND_U64),
	KEY(struct move_sample, bytes_remaining, KIND_U64),
	KEY(struct move_sample, bytes_per_second, KIND_U64),
	KEY(struct move_sample, dirty_per_second, KIND_U64),
	KEY(struct move_sample, predicted_downtime_us, KIND_U64),
	{0},
};

static const char *const verb_names[] = {"send", "receive", "save", "restore", NULL};
static const char *const owner_names[] = {"source", "destination", "unproved", NULL};

static const struct key downtime_keys[] = {
	KEY_DOWNTIME("pause_us", QSC_DOWNTIME_PAUSE),
	KEY_DOWNTIME("quiesce_us", QSC_DOWNTIME_QUIESCE),
	KEY_DOWNTIME("stop_us", QSC_DOWNTIME_STOP),
	KEY_DOWNTIME("collect_us", QSC_DOWNTIME_COLLECT),
	KEY_DOWNTIME("transfer_us", QSC_DOWNTIME_TRANSFER),
	KEY_DOWNTIME("load_us", QSC_DOWNTIME_LOAD),
	KEY_DOWNTIME("commit_us", QSC_DOWNTIME_COMMIT),
	KEY_DOWNTIME("run_us", QSC_DOWNTIME_RUN),
	KEY(struct qsc_downtime, total_us, KIND_U64),
	{0},
};

static const struct key report_keys[] = {
	{"owner", KIND_NAME, offsetof(struct qsc_migrate_report, owner), 0, owner_names, NULL},
	KEY(struct qsc_migrate_report, total_us, KIND_U64),
	KEY(struct qsc_migrate_report, waited_us, KIND_U64),
	KEY(struct qsc_migrate_report, downtime_us, KIND_U64),
	KEY(struct qsc_migrate_report, memory_bytes, KIND_U64),
	KEY(struct qsc_migrate_report, device_bytes, KIND_U64),
	KEY(struct qsc_migrate_report, stop_bytes, KIND_U64),
	KEY(struct qsc_migrate_report, passes, KIND_U32),
	KEY_PART(struct qsc_migrate_report, predicted, downtime_keys),
	KEY_PART(struct qsc_migrate_report, measured, downtime_keys),
	KEY(struct qsc_migrate_report, prediction_error_permille, KIND_I32),
	KEY_TEXT(struct qsc_migrate_report, outcome),
	{0},
};

static const struct key move_keys[] = {
	{"verb", KIND_NAME, offsetof(struct move, verb), 0, verb_names, NULL},
	KEY_TEXT(struct move, transport),
	KEY_TEXT(struct move, host),
	KEY(struct move, started_at, KIND_U64),
	KEY(struct move, memory_bytes, KIND_U64),
	KEY(struct move, downtime_limit_us, KIND_U64),
	KEY(struct move, bandwidth, KIND_U64),
	KEY_TEXT(struct move, plan),
	KEY(struct move, ended, KIND_BOOL),
	KEY_PART(struct move, report, report_keys),
	{0},
};

/* Of "error", which is null when there was none. */
static const struct key error_keys[] = {
	{"errno", KIND_I32, offsetof(struct move, error_number), 0, NULL, NULL},
	{"clause", KIND_TEXT, offsetof(struct move, error_clause),
	 sizeof(((struct move *)0)->error_clause), NULL, NULL},
	{"text", KIND_TEXT, offsetof(struct move, error_text),
	 sizeof(((struct move *)0)->error_text), NULL, NULL},
	{0},
};

const char *move_verb_name(enum move_verb verb)
{
	return verb_names[verb];
}

/* ---- to JSON ---- */

/* False when there was no memory for either. */
static bool add(struct json_object *object, const char *name, struct json_object *value)
{
	if (object && value && json_object_object_add(object, name, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static struct json_object *text_to_json(const char *text)
{
	char clean[QSC_ERROR_TEXT_SIZE];

	text_clean(clean, sizeof(clean), text, true);
	return json_object_new_string(clean);
}

static struct json_object *to_json(const struct key *keys, const void *from);

static bool add_key(struct json_object *object, const struct key *key, const void *from)
{
	const void *at = (const char *)from + key->offset;

	switch (key->kind) {
	case KIND_TEXT:
		return add(object, key->name, text_to_json(at));
	case KIND_U64:
		return add(object, key->name, json_object_new_uint64(*(const uint64_t *)at));
	case KIND_U32:
		return add(object, key->name, json_object_new_uint64(*(const uint32_t *)at));
	case KIND_INDEX:
		if (*(const int32_t *)at < 0)
			return object && json_object_object_add(object, key->name, NULL) == 0;
		return add(object, key->name, json_object_new_int(*(const int32_t *)at));
	case KIND_I32:
		return add(object, key->name, json_object_new_int(*(const int32_t *)at));
	case KIND_BOOL:
		return add(object, key->name, json_object_new_boolean(*(const bool *)at));
	case KIND_NAME:
		return add(object, key->name,
			   json_object_new_string(key->names[*(const unsigned int *)at]));
	case KIND_PART:
		return add(object, key->name, to_json(key->keys, at));
	case KIND_END:
		break;
	}
	return false;
}

static bool add_keys(struct json_object *object, const struct key *keys, const void *from)
{
	bool good = object != NULL;

	for (; good && keys->kind != KIND_END; keys++)
		good = add_key(object, keys, from);
	return good;
}

/* NULL when there was no memory for all of it. */
static struct json_object *to_json(const struct key *keys, const void *from)
{
	struct json_object *object = json_object_new_object();

	if (add_keys(object, keys, from))
		return object;
	json_object_put(object);
	return NULL;
}

static struct json_object *list_to_json(const struct key *keys, const void *from, size_t size,
					size_t count)
{
	struct json_object *list = json_object_new_array();
	size_t i;

	for (i = 0; list && i < count; i++) {
		struct json_object *entry = to_json(keys, (const char *)from + i * size);

		if (entry && json_object_array_add(list, entry) == 0)
			continue;
		json_object_put(entry);
		json_object_put(list);
		list = NULL;
	}
	return list;
}

struct json_object *move_sample_to_json(const struct move_sample *sample)
{
	return to_json(sample_keys, sample);
}

struct json_object *move_to_json(const struct move *move)
{
	struct json_object *object = to_json(move_keys, move);
	bool good = object != NULL;

	good = good && add(object, "result", json_object_new_string(move_result_name(move)));
	if (good && move->error_number)
		good = add(object, "error", to_json(error_keys, move));
	else if (good)
		good = json_object_object_add(object, "error", NULL) == 0;
	good = good && add(object, "devices",
			   list_to_json(device_keys, move->devices, sizeof(*move->devices),
					move->num_devices));
	good = good &&
	       add(object, "phases",
		   list_to_json(phase_keys, move->phases, sizeof(*move->phases), move->num_phases));
	good = good && add(object, "samples",
			   list_to_json(sample_keys, move->samples, sizeof(*move->samples),
					move->num_samples));
	if (good)
		return object;
	json_object_put(object);
	return NULL;
}

/* ---- from JSON, which anybody may have written ---- */

static int read_number(struct json_object *value, int64_t min, int64_t max, int64_t *number)
{
	if (!json_object_is_type(value, json_type_int))
		return -EPROTO;
	/* What is larger than it can hold comes as its largest. */
	*number = json_object_get_int64(value);
	return *number < min || *number > max ? -EPROTO : 0;
}

static int read_text(struct json_object *value, char *to, size_t size)
{
	const char *text;
	size_t length;

	if (!json_object_is_type(value, json_type_string))
		return -EPROTO;
	text = json_object_get_string(value);
	length = (size_t)json_object_get_string_len(value);
	if (length >= size || strlen(text) != length)
		return -EPROTO;
	text_clean(to, size, text, true);
	return 0;
}

static int read_name(struct json_object *value, const char *const *names, unsigned int *to)
{
	unsigned int i;

	if (!json_object_is_type(value, json_type_string))
		return -EPROTO;
	for (i = 0; names[i]; i++)
		if (!strcmp(names[i], json_object_get_string(value)))
			break;
	*to = i;
	return names[i] ? 0 : -EPROTO;
}

static int from_json(struct json_object *object, const struct key *keys, void *to);

static int read_key(struct json_object *object, const struct key *key, void *to)
{
	void *at = (char *)to + key->offset;
	struct json_object *value;
	int64_t number = 0;
	int result = 0;

	if (!json_object_object_get_ex(object, key->name, &value))
		return -EPROTO;
	switch (key->kind) {
	case KIND_TEXT:
		return read_text(value, at, key->size);
	case KIND_NAME:
		return read_name(value, key->names, at);
	case KIND_BOOL:
		*(bool *)at = json_object_get_boolean(value);
		return json_object_is_type(value, json_type_boolean) ? 0 : -EPROTO;
	case KIND_U64:
		result = read_number(value, 0, MAX_NUMBER, &number);
		*(uint64_t *)at = (uint64_t)number;
		return result;
	case KIND_U32:
		result = read_number(value, 0, UINT32_MAX, &number);
		*(uint32_t *)at = (uint32_t)number;
		return result;
	case KIND_I32:
		result = read_number(value, INT32_MIN, INT32_MAX, &number);
		*(int32_t *)at = (int32_t)number;
		return result;
	case KIND_INDEX:
		if (value)
			result = read_number(value, 0, INT32_MAX, &number);
		*(int32_t *)at = value ? (int32_t)number : -1;
		return result;
	case KIND_PART:
		return from_json(value, key->keys, at);
	case KIND_END:
		break;
	}
	return -EPROTO;
}

static int from_json(struct json_object *object, const struct key *keys, void *to)
{
	int result = json_object_is_type(object, json_type_object) ? 0 : -EPROTO;

	for (; result == 0 && keys->kind != KIND_END; keys++)
		result = read_key(object, keys, to);
	return result;
}

/* `*to` is allocated and *count set in any case that answers 0. */
static int list_from_json(struct json_object *object, const char *name, const struct key *keys,
			  size_t size, size_t max, void **to, size_t *count)
{
	struct json_object *list;
	size_t i, length;

	if (!json_object_object_get_ex(object, name, &list) ||
	    !json_object_is_type(list, json_type_array))
		return -EPROTO;
	length = json_object_array_length(list);
	if (length > max)
		return -EPROTO;
	/* One that may grow has room for all there may be. */
	*to = calloc(max, size);
	if (!*to)
		return -ENOMEM;
	for (i = 0; i < length; i++) {
		int result = from_json(json_object_array_get_idx(list, i), keys,
				       (char *)*to + i * size);

		if (result < 0)
			return result;
	}
	*count = length;
	return 0;
}

static int lists_from_json(struct json_object *object, struct move *move)
{
	void *devices = NULL, *phases = NULL, *samples = NULL;
	size_t num_devices = 0;
	int result = list_from_json(object, "devices", device_keys, sizeof(*move->devices),
				    MOVE_MAX_DEVICES, &devices, &num_devices);

	move->devices = devices;
	move->num_devices = (uint32_t)num_devices;
	if (result == 0)
		result = list_from_json(object, "phases", phase_keys, sizeof(*move->phases),
					MOVE_MAX_PHASES, &phases, &move->num_phases);
	move->phases = phases;
	if (result == 0)
		result = list_from_json(object, "samples", sample_keys, sizeof(*move->samples),
					MOVE_MAX_SAMPLES, &samples, &move->num_samples);
	move->samples = samples;
	for (size_t i = 0; result == 0 && i < move->num_phases; i++)
		if (move->phases[i].device >= (int64_t)num_devices)
			result = -EPROTO;
	return result;
}

static int move_read(struct json_object *object, struct move *move)
{
	struct json_object *part = NULL;
	int result = from_json(object, move_keys, move);

	if (result == 0 && !json_object_object_get_ex(object, "error", &part))
		result = -EPROTO;
	if (result == 0 && part)
		result = from_json(part, error_keys, move);
	/* An error without a number is none. */
	if (result == 0 && part && move->error_number <= 0)
		result = -EPROTO;
	return result < 0 ? result : lists_from_json(object, move);
}

int move_from_json(struct json_object *object, struct move *move)
{
	int result;

	*move = (struct move){0};
	result = move_read(object, move);
	if (result < 0)
		move_release(move);
	return result;
}

int move_sample_from_json(struct json_object *object, struct move_sample *sample)
{
	*sample = (struct move_sample){0};
	return from_json(object, sample_keys, sample);
}
