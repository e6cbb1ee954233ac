/* SPDX-License-Identifier: MIT */
/* The allowed list of actions, tried cell by cell on a device. */
#ifndef CHECK_ACTIONS_H
#define CHECK_ACTIONS_H

#include "check/harness.h"

/* One row: the action in every state that the device has and that can be entered. */
enum qsc_check_result actions_try(struct harness *h, enum qsc_action action);

#endif
