/* SPDX-License-Identifier: MIT */
/* What the devices of a run saw, for people and for programs. */
#ifndef TOOL_SEEN_H
#define TOOL_SEEN_H

#include <stdint.h>
#include <stdio.h>

#include "launch.h"

void seen_print(const struct launch *launch, FILE *out);
int seen_write_json(const struct launch *launch, const char *path, struct qsc_error *err);

/* Actions on a device that its state made a violation (DISCARD), or a stretch (TOLERATE). */
uint64_t seen_verdicts(const struct handover_seen *seen, enum qsc_verdict verdict);

#endif
