/* SPDX-License-Identifier: MIT */
/* For `quiesce check` and anybody else who checks dmacopy; see <quiesce/check.h>. */
#ifndef DMACOPY_EXERCISE_H
#define DMACOPY_EXERCISE_H

#include <quiesce/check.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Of the engine's memory so much is looked at: a larger one takes longer and shows no more. */
#define DMACOPY_EXERCISED_MEMORY 65536U

extern const struct qsc_exerciser dmacopy_exerciser;

#ifdef __cplusplus
}
#endif
#endif
