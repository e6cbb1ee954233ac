/* SPDX-License-Identifier: MIT */
/* The allowed list of actions, tried cell by cell on a device. */
#ifndef CLAUSES_ACTIONS_H
#define CLAUSES_ACTIONS_H

#include "harness.h"

/* One result for every action; `device` goes into its text. */
void actions_try(struct harness *h, const char *device);

#endif
