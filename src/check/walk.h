/* SPDX-License-Identifier: MIT */
/* Seeded random walks over all actions, with the contract as oracle. */
#ifndef CHECK_WALK_H
#define CHECK_WALK_H

#include "check/harness.h"

enum qsc_check_result walks_try(struct harness *h);

#endif
