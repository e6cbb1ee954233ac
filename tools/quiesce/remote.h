/* SPDX-License-Identifier: MIT */
/* Asking a host that is another process, over its control socket. */
#ifndef REMOTE_H
#define REMOTE_H

#include "request.h"

struct json_object;

/*
 * Send the request and hand what comes back to `event`, until it returns false. A signal cancels
 * what was asked for, and the end of that is waited for. Ends the program as tool_usage() when
 * there is no host at that path. 0, or the exit code when the host went away before.
 */
int remote_ask(const char *path, const struct request *request,
	       bool (*event)(void *ctx, struct json_object *event), void *ctx);

#endif
