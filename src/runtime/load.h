/* SPDX-License-Identifier: MIT */
/*
 * One loading session: takes a stream apart and keeps what it says aside, until the whole of it has
 * been found good. Only the memory of blocks, which may be large, is loaded in place; that begins
 * when the header has been accepted, and from then on the device must be loaded or reset.
 */
#ifndef QSC_RUNTIME_LOAD_H
#define QSC_RUNTIME_LOAD_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/runtime.h>

#include "runtime/block.h"
#include "runtime/irq.h"
#include "runtime/stream.h"

/* Where a load goes. Must outlive the session. */
struct qsc_load_target {
	const struct qsc_stream_layout *layout;
	const struct qsc_model *model;
	void *ctx; /* of the model */
	void *state;
	struct qsc_block *blocks;
	struct qsc_irqs *irqs;
};

struct qsc_load;

/* -ENOMEM, and nothing has changed (SESS-9). */
int qsc_load_create(const struct qsc_load_target *target, struct qsc_load **out);
void qsc_load_destroy(struct qsc_load *load);

/* More of the stream; results as qsc_stream_parse(). */
int qsc_load_write(struct qsc_load *load, const void *buf, size_t size, struct qsc_error *err);

/*
 * Put it in force. -ENODATA: it is not complete, nothing has changed, and more may be written. Any
 * other failure: the device must not run (SESS-6).
 */
int qsc_load_commit(struct qsc_load *load, struct qsc_error *err);

#endif
