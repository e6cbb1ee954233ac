/* SPDX-License-Identifier: MIT */
/* What a host tells, as JSON objects (docs/commands.rst lists the keys). NULL: no memory. */
#ifndef HOST_JSON_H
#define HOST_JSON_H

#include "host.h"

struct json_object *host_json_listening(const char *address);
struct json_object *host_json_begin(const struct move *move);
struct json_object *host_json_progress(const struct move_sample *sample);
/* move NULL: there was none. The plan, or NULL, is taken over. */
struct json_object *host_json_end(int code, const struct qsc_error *err, const struct move *move,
				  struct json_object *plan);
struct json_object *host_json_status(struct host *host);
struct json_object *host_json_tenant(const struct tenant_result *result);

/* Add a value of a new object; false when there was no memory, for the object or the value. */
bool host_json_add(struct json_object *object, const char *key, struct json_object *value);
/* "RUNNING", or null where there is no state. */
const char *host_state_name(enum host_state state);

#endif
