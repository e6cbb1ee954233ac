/* SPDX-License-Identifier: MIT */
/*
 * One saving session: turns the state of a device into its stream, as fast as it is read and in
 * pieces of any size. While the device runs (pre-copy) only memory of blocks goes out: everything
 * once, then what was written since. When the device has stopped, the rest follows.
 */
#ifndef QSC_RUNTIME_SAVE_H
#define QSC_RUNTIME_SAVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include <quiesce/device.h>
#include <quiesce/runtime.h>

#include "runtime/block.h"
#include "runtime/irq.h"
#include "runtime/stream.h"

/* What is saved. Must outlive the session. */
struct qsc_save_source {
	const struct qsc_stream_layout *layout;
	const struct qsc_model *model;
	void *ctx; /* of the model */
	const void *state;
	struct qsc_block *blocks; /* as many as the layout has */
	struct qsc_irqs *irqs;
};

struct qsc_save;

/* -ENOMEM, and nothing has changed (SESS-9). */
int qsc_save_create(const struct qsc_save_source *source, struct qsc_save **out);
void qsc_save_destroy(struct qsc_save *save);

/* The device has stopped and its blocks are marked: from here on the stream comes to its end. */
void qsc_save_freeze(struct qsc_save *save);

/* Where a read goes. The caller fills the first part. */
struct qsc_save_sink {
	uint8_t *buf;
	size_t size;
	struct iovec *iov; /* NULL: everything is copied; see qsc_device_session_lend() */
	size_t max;

	size_t count; /* of iov */
	size_t done;
};

/*
 * Hand out as much as fits. Returns how much, which is 0 when there is nothing: for now, or,
 * frozen, at the end. -errno when the model cannot save.
 */
ssize_t qsc_save_read(struct qsc_save *save, struct qsc_save_sink *to);

/* SESS-4. Looks for changes that left no mark, too. */
void qsc_save_precopy_info(struct qsc_save *save, struct qsc_precopy_info *info);

/* Bytes that a stop would leave to be read; save may be NULL for no session. */
uint64_t qsc_save_estimate(const struct qsc_save_source *source, const struct qsc_save *save);

#endif
