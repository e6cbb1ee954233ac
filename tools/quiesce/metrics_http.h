/* SPDX-License-Identifier: MIT */
/* The metrics over HTTP; metrics.h is what others use. */
#ifndef METRICS_HTTP_H
#define METRICS_HTTP_H

#include "metrics.h"

struct metrics_server;

/* As metrics_create(); metrics is borrowed. */
int metrics_serve(const char *address, struct metrics *metrics, struct metrics_server **out,
		  struct qsc_error *err);
/* NULL is allowed. */
/* As metrics_look(). */
void metrics_serve_look(struct metrics_server *server, uint32_t patience_ms);
void metrics_serve_end(struct metrics_server *server);
const char *metrics_serve_address(const struct metrics_server *server);

#endif
