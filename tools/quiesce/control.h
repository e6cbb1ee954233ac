/* SPDX-License-Identifier: MIT */
/*
 * A host's control socket: a UNIX socket of mode 0600 at which JSON objects, one a line, go both
 * ways. Whoever may open it may command the host, but not harm it: the number of connections, the
 * length of a line, the time between lines of one who does not watch and what waits to be read are
 * limited, and a connection that passes a limit is closed.
 *
 * Threads: one.
 */
#ifndef CONTROL_H
#define CONTROL_H

#include <stdbool.h>

#include <quiesce/base.h>

struct control;
struct control_client;
struct json_object;

/* A line came that is JSON; the object is borrowed. `client` may be answered in the call. */
typedef void control_request(void *ctx, struct control_client *client, struct json_object *object);

/* The socket file is made, and removed when destroyed; one that a dead host left is replaced. */
int control_create(const char *path, control_request *request, void *ctx, struct control **out,
		   struct qsc_error *err);
/* NULL is allowed. What was sent and not yet read gets a moment to be. */
void control_destroy(struct control *control);
/* Readable when control_step() has something to do. */
int control_fd(const struct control *control);
void control_step(struct control *control);

/* Take the object over, NULL included, and send it. */
void control_send(struct control_client *client, struct json_object *object);
/* It gets all that control_tell() says from now on, or, when it follows, until the last of it. */
void control_watch(struct control_client *client);
void control_follow(struct control_client *client);
void control_tell(struct control *control, struct json_object *object, bool last);

#endif
