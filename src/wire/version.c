/* SPDX-License-Identifier: MIT */
/* See version.h. */
#include "wire/version.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <json-c/json.h>

#include "base/cleanup.h"
#include "device/layout.h"

#define MAX_DEPTH 8

static void put_object(struct json_object **object)
{
	json_object_put(*object);
}

static void free_tokener(struct json_tokener **tokener)
{
	if (*tokener)
		json_tokener_free(*tokener);
}

/* ---- our own capability ---- */

static const char *const kind_names[] = {"section", "block", "custom"};

static int add(struct json_object *to, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(to, key, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static struct json_object *encode_part(const struct qsc_layout_part *part)
{
	struct json_object *object qsc_cleanup(put_object) = json_object_new_object();

	if (!object || add(object, "kind", json_object_new_string(kind_names[part->kind])) < 0 ||
	    add(object, "name", json_object_new_string(part->name)) < 0 ||
	    add(object, "size", json_object_new_uint64(part->size)) < 0 ||
	    add(object, "version", json_object_new_int(part->version)) < 0 ||
	    add(object, "min_version", json_object_new_int(part->min_version)) < 0)
		return NULL;
	return qsc_steal(object);
}

static struct json_object *encode_layout(const struct qsc_layout *layout)
{
	struct json_object *list qsc_cleanup(put_object) = json_object_new_array();
	uint32_t i;

	for (i = 0; list && i < layout->num_parts; i++) {
		struct json_object *part = encode_part(&layout->parts[i]);

		if (part && json_object_array_add(list, part) == 0)
			continue;
		json_object_put(part);
		return NULL;
	}
	return qsc_steal(list);
}

/* What both ends name to use our additions; a device's reply also tells what it is. */
static struct json_object *encode_quiesce(const struct qsc_layout *layout)
{
	struct json_object *object qsc_cleanup(put_object) = json_object_new_object();

	if (!object || add(object, "version", json_object_new_int(1)) < 0)
		return NULL;
	if (layout->type[0] && (add(object, "type", json_object_new_string(layout->type)) < 0 ||
				add(object, "layout", encode_layout(layout)) < 0))
		return NULL;
	return qsc_steal(object);
}

int qsc_wire_encode_version(const struct qsc_wire_version *version,
			    const struct qsc_wire_caps *caps, void *out, size_t max)
{
	struct json_object *quiesce qsc_cleanup(put_object) = NULL;
	char twin[80] = "";
	int n;

	if (max < sizeof(*version))
		return -EMSGSIZE;
	memcpy(out, version, sizeof(*version));
	max -= sizeof(*version);
	if (caps->twin_socket && caps->twin_fd_index != UINT32_MAX)
		(void)snprintf(twin, sizeof(twin),
			       ",\"twin_socket\":{\"supported\":true,\"fd_index\":%u}",
			       caps->twin_fd_index);
	else if (caps->twin_socket)
		(void)snprintf(twin, sizeof(twin), ",\"twin_socket\":{\"supported\":true}");
	if (caps->quiesce) {
		quiesce = encode_quiesce(&caps->layout);
		if (!quiesce)
			return -ENOMEM;
	}
	n = snprintf((char *)out + sizeof(*version), max,
		     "{\"capabilities\":{\"max_msg_fds\":%u,\"max_data_xfer_size\":%u,"
		     "\"max_dma_maps\":%u,\"pgsizes\":%llu%s%s%s%s}}",
		     caps->max_msg_fds, caps->max_data_xfer_size, caps->max_dma_maps,
		     (unsigned long long)caps->pgsizes, twin,
		     caps->write_multiple ? ",\"write_multiple\":true" : "",
		     quiesce ? ",\"quiesce\":" : "",
		     quiesce ? json_object_to_json_string_ext(quiesce, JSON_C_TO_STRING_PLAIN)
			     : "");
	if (n < 0 || (size_t)n >= max)
		return -EMSGSIZE;
	return (int)sizeof(*version) + n + 1;
}

/* A number in [min, max] of that name, where there is one. */
static int get_number(struct json_object *from, const char *name, uint64_t min, uint64_t max,
		      uint64_t *value)
{
	struct json_object *object;
	int64_t number;

	if (!json_object_object_get_ex(from, name, &object))
		return 0;
	if (!json_object_is_type(object, json_type_int))
		return -EINVAL;
	number = json_object_get_int64(object);
	if (number < 0 || (uint64_t)number < min)
		return -EINVAL;
	*value = qsc_min_u64((uint64_t)number, max);
	return 0;
}

static int get_u32(struct json_object *from, const char *name, uint32_t min, uint32_t *value)
{
	uint64_t number = *value;
	int result = get_number(from, name, min, UINT32_MAX, &number);

	*value = (uint32_t)number;
	return result;
}

static int get_bool(struct json_object *from, const char *name, bool *value)
{
	struct json_object *object;

	if (!json_object_object_get_ex(from, name, &object))
		return 0;
	if (!json_object_is_type(object, json_type_boolean))
		return -EINVAL;
	*value = json_object_get_boolean(object);
	return 0;
}

/* 1 with *object, 0 when there is none of that name, -EINVAL when it is something else. */
static int get_object(struct json_object *from, const char *name, struct json_object **object)
{
	if (!json_object_object_get_ex(from, name, object))
		return 0;
	return json_object_is_type(*object, json_type_object) ? 1 : -EINVAL;
}

/* A name of that key; -EINVAL when it is no text or too long. */
static int get_name(struct json_object *from, const char *key, char name[QSC_LAYOUT_NAME])
{
	struct json_object *object;
	const char *text;

	if (!json_object_object_get_ex(from, key, &object))
		return 0;
	if (!json_object_is_type(object, json_type_string))
		return -EINVAL;
	text = json_object_get_string(object);
	if (strlen(text) >= QSC_LAYOUT_NAME ||
	    strlen(text) != (size_t)json_object_get_string_len(object))
		return -EINVAL;
	(void)snprintf(name, QSC_LAYOUT_NAME, "%s", text);
	return 0;
}

static int get_u16(struct json_object *from, const char *name, uint16_t *value)
{
	uint64_t number = 0;
	int result = get_number(from, name, 0, UINT64_MAX, &number);

	*value = (uint16_t)number;
	return number > UINT16_MAX ? -EINVAL : result;
}

static int decode_part(struct json_object *from, struct qsc_layout_part *part)
{
	char kind[QSC_LAYOUT_NAME] = "";
	size_t i;

	if (!json_object_is_type(from, json_type_object) || get_name(from, "kind", kind) < 0 ||
	    get_name(from, "name", part->name) < 0 ||
	    get_number(from, "size", 0, UINT64_MAX, &part->size) < 0 ||
	    get_u16(from, "version", &part->version) < 0 ||
	    get_u16(from, "min_version", &part->min_version) < 0)
		return -EINVAL;
	for (i = 0; i < QSC_ARRAY_SIZE(kind_names) && strcmp(kind, kind_names[i]) != 0; i++)
		;
	part->kind = (enum qsc_layout_kind)i;
	return 0; /* whether the whole of it can be is looked at then */
}

static int decode_layout(struct json_object *from, struct qsc_layout *layout)
{
	struct json_object *list;
	size_t count;
	size_t i;

	if (get_name(from, "type", layout->type) < 0)
		return -EINVAL;
	if (!json_object_object_get_ex(from, "layout", &list))
		return qsc_layout_valid(layout) ? 0 : -EINVAL;
	if (!json_object_is_type(list, json_type_array))
		return -EINVAL;
	count = json_object_array_length(list);
	if (count > QSC_LAYOUT_PARTS)
		return -EINVAL;
	layout->num_parts = (uint32_t)count;
	for (i = 0; i < count; i++)
		if (decode_part(json_object_array_get_idx(list, i), &layout->parts[i]) < 0)
			return -EINVAL;
	return qsc_layout_valid(layout) ? 0 : -EINVAL;
}

static int decode_caps(struct json_object *from, struct qsc_wire_caps *caps)
{
	struct json_object *object;
	uint32_t version = 0;
	int result;

	if (get_u32(from, "max_msg_fds", 0, &caps->max_msg_fds) < 0 ||
	    get_u32(from, "max_data_xfer_size", 1, &caps->max_data_xfer_size) < 0 ||
	    get_u32(from, "max_dma_maps", 0, &caps->max_dma_maps) < 0 ||
	    get_number(from, "pgsizes", 1, UINT64_MAX, &caps->pgsizes) < 0 ||
	    get_bool(from, "write_multiple", &caps->write_multiple) < 0)
		return -EINVAL;
	result = get_object(from, "twin_socket", &object);
	if (result < 0)
		return result;
	if (result && (get_bool(object, "supported", &caps->twin_socket) < 0 ||
		       get_u32(object, "fd_index", 0, &caps->twin_fd_index) < 0))
		return -EINVAL;
	result = get_object(from, "quiesce", &object);
	if (result < 0 || (result && get_u32(object, "version", 0, &version) < 0))
		return -EINVAL;
	caps->quiesce = version >= 1;
	return caps->quiesce ? decode_layout(object, &caps->layout) : 0;
}

int qsc_wire_decode_version(const void *body, size_t size, struct qsc_wire_version *version,
			    struct qsc_wire_caps *caps)
{
	struct json_tokener *tokener qsc_cleanup(free_tokener) = NULL;
	struct json_object *root qsc_cleanup(put_object) = NULL;
	struct json_object *list;
	const char *text = (const char *)body + sizeof(*version);
	size_t end;
	int result;

	*caps = QSC_WIRE_CAPS_DEFAULT;
	if (size < sizeof(*version) || size > QSC_WIRE_VERSION_MAX)
		return -EINVAL;
	memcpy(version, body, sizeof(*version));
	size -= sizeof(*version);
	if (!size)
		return 0;
	if (strnlen(text, size) != size - 1)
		return -EINVAL;
	tokener = json_tokener_new_ex(MAX_DEPTH);
	if (!tokener)
		return -ENOMEM;
	root = json_tokener_parse_ex(tokener, text, (int)size);
	if (!root || json_tokener_get_error(tokener) != json_tokener_success ||
	    !json_object_is_type(root, json_type_object))
		return -EINVAL;
	/* The parser stops at the end of a value, whatever follows; in a comment, behind the text.
	 */
	end = json_tokener_get_parse_end(tokener);
	if (end >= size || text[end + strspn(text + end, " \t\r\n")])
		return -EINVAL;
	result = get_object(root, "capabilities", &list);
	return result > 0 ? decode_caps(list, caps) : result;
}
