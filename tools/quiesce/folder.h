/* SPDX-License-Identifier: MIT */
/*
 * The folder of a run of `quiesce run`, `quiesce audit` or `quiesce demo`. It is locked as long as
 * the one who made it or a process that it started lives, whatever became of the other, and the
 * next run removes those that nobody holds any more: who was killed leaves nothing for good.
 */
#ifndef TOOL_FOLDER_H
#define TOOL_FOLDER_H

#include <limits.h>

#include <quiesce/base.h>

#define FOLDER_NAME "quiesce-run.XXXXXX"

struct folder {
	char path[PATH_MAX]; /* empty: there is none */
	int lock;	     /* inherited by the command; -1: none */
};

/* clang-format off */
#define FOLDER_NONE {.lock = -1}
/* clang-format on */

/* Make one in TMPDIR or /tmp, after removing abandoned ones there. 0 or -errno. */
int folder_make(struct folder *folder, struct qsc_error *err);

/* With all that is in it. Does nothing when there is none. */
void folder_remove(struct folder *folder);

#endif
