/* SPDX-License-Identifier: MIT */
/*
 * For `quiesce check` and anybody else who checks nvme; see <quiesce/check.h>. What the namespace
 * held at its beginning is overwritten.
 */
#ifndef NVME_EXERCISE_H
#define NVME_EXERCISE_H

#include <quiesce/check.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The first knows one that has its blocks in its state, the second any other. */
extern const struct qsc_exerciser nvme_exerciser;
extern const struct qsc_exerciser nvme_file_exerciser;

#ifdef __cplusplus
}
#endif
#endif
