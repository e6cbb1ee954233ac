/* SPDX-License-Identifier: MIT */
/*
 * What a long-running host tells a monitoring system: OpenMetrics text over HTTP, at /metrics. The
 * host says what changed, from any thread; a scrape never asks a device and never waits for one.
 */
#ifndef METRICS_H
#define METRICS_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>

#include "move.h"

struct metrics;

/*
 * NULL as address: the values only, nobody is served. Else "PORT" or "ADDRESS:PORT" ("[::1]:9100"),
 * localhost unless told otherwise, port 0 for a free one; or "unix:PATH", for this user only (a
 * socket that a dead process left is replaced). Fails with -EINVAL for an address that is none,
 * -ENOMEM, and as bind(). Serves from a thread of its own until metrics_destroy().
 */
int metrics_create(const char *address, struct metrics **metrics, struct qsc_error *err);
/* Ends all connections. NULL is allowed. */
void metrics_destroy(struct metrics *metrics);
/*
 * To be called every second or so: ends the connections on which no request has ended for so long,
 * however many bytes came. metrics may be NULL.
 */
void metrics_look(struct metrics *metrics, uint32_t patience_ms);
/* Where it is served, with the real port: "127.0.0.1:9100"; "" when it is not. */
const char *metrics_address(const struct metrics *metrics);

/* All below from any thread; metrics may be NULL. */

/* The devices of the host, in place of all before. -ENOMEM: then there are none. */
int metrics_set_devices(struct metrics *metrics, const char *const names[], uint32_t count);
/* A device that is none, or a state that is none (QSC_STATE_COUNT), is known of no more. */
void metrics_set_state(struct metrics *metrics, uint32_t device, unsigned int state);
/* Blocks that the tenant has moved since the host began; never less than before. */
void metrics_set_blocks(struct metrics *metrics, uint64_t blocks);
/* A migration is under way. */
void metrics_progress(struct metrics *metrics, const struct move *move,
		      const struct move_sample *sample);
/* It has ended, well or not. */
void metrics_moved(struct metrics *metrics, const struct move *move);

/* The text, which the caller frees; NULL for no memory. */
char *metrics_text(struct metrics *metrics, size_t *size);

#endif
