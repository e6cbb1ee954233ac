/* SPDX-License-Identifier: MIT */
/*
 * Start a command that finds devices of ours where the kernel would have them: the preload library
 * in front of the C library, and what it must know in a folder and the environment.
 */
#ifndef TOOL_LAUNCH_H
#define TOOL_LAUNCH_H

#include <limits.h>
#include <stdio.h>
#include <sys/types.h>

#include <quiesce/base.h>

#include "folder.h"
#include "handover.h"

struct launch {
	struct handover_config config; /* what launch_make() was given, owned */
	struct folder folder;	       /* of this run; removed at the end */
	char library[PATH_MAX];
	int iommufd;			/* what stands for {iommufd} */
	int vfio[HANDOVER_MAX_DEVICES]; /* {vfio0} and on */
	char **command;			/* with the numbers in place, owned */
	struct handover_seen *seen;
};

/* clang-format off */
#define LAUNCH_NONE {.folder = FOLDER_NONE, .iommufd = -1}
/* clang-format on */

/*
 * One device more, to be called before launch_make(). -EINVAL for what can be no device, with one
 * sentence.
 */
int launch_add_device(struct launch *launch, const char *spec, struct qsc_error *err);

/* Faults of the devices, once. -EINVAL for what cannot be understood. */
int launch_set_fault(struct launch *launch, const char *spec, struct qsc_error *err);

/* When all devices are known: whether the faults are for devices that there are. 0 or -EINVAL. */
int launch_check_fault(const struct launch *launch, struct qsc_error *err);

/* Make the folder, the files and the command line. 0 or -errno. Release in any case. */
int launch_make(struct launch *launch, char *const command[], struct qsc_error *err);

/* Say what the command is given. */
void launch_tell(const struct launch *launch, FILE *out);

/*
 * Run the command to its end; signals that ask this process to end are passed on to it. Its exit
 * code, 128 and the number of the signal that ended it, or -errno when it could not be started.
 */
int launch_run(struct launch *launch, struct qsc_error *err);

/* Remove and free everything. */
void launch_release(struct launch *launch);

#endif
