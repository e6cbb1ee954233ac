/* SPDX-License-Identifier: MIT */
/*
 * Layouts of state: whether one can be, and whether a stream of one can be loaded into a device of
 * another. Pure. The rules are those by which a stream's header is refused (SESS-11).
 */
#ifndef QSC_DEVICE_LAYOUT_H
#define QSC_DEVICE_LAYOUT_H

#include <stdbool.h>

#include <quiesce/device.h>

/* 1 to QSC_LAYOUT_NAME - 1 printable characters: it goes into messages as it is. */
bool qsc_layout_name_valid(const char *name);

/* Whether a layout that came from elsewhere can be: names, kinds, versions, number of parts. */
bool qsc_layout_valid(const struct qsc_layout *layout);

/* Called with one sentence for each reason. */
typedef void qsc_layout_differ_fn(void *ctx, const char *reason);

/*
 * Every reason for which a stream of `theirs` cannot be loaded into a device of `ours`. None where
 * either side does not say what it is: then the stream has to tell.
 */
void qsc_layout_compare(const struct qsc_layout *ours, const struct qsc_layout *theirs,
			qsc_layout_differ_fn *differ, void *ctx);

#endif
