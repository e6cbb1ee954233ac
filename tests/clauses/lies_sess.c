/* SPDX-License-Identifier: MIT */
/* Lies about sessions and streams: SESS-1 to SESS-11. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "liar.h"

/* ---- SESS-1: a number that means the session that lives ---- */

#define ALIAS 0xa11a5ULL

static int alias_in_group(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	enum qsc_state from = honest_state(dev);
	int r = honest_set_state(dev, target, session);

	if (!r && from == QSC_STATE_PRE_COPY && target == QSC_STATE_STOP_COPY)
		*session = ALIAS;
	return r;
}

static ssize_t alias_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	if (session == ALIAS)
		session = liar_device(dev)->session;
	return qsc_device_session_read(honest(dev), session, buf, size);
}

static int alias_info(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	if (session == ALIAS)
		session = liar_device(dev)->session;
	return qsc_device_session_precopy_info(honest(dev), session, info);
}

/* ---- SESS-2 ---- */

static ssize_t read_after_end(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	ssize_t n = qsc_device_session_read(honest(dev), session, buf, size);

	return n == -ENODEV && session == liar_device(dev)->session ? 0 : n;
}

static ssize_t write_after_end(struct qsc_device *dev, uint64_t session, const void *buf,
			       size_t size)
{
	ssize_t n = qsc_device_session_write(honest(dev), session, buf, size);

	return n == -ENODEV && session == liar_device(dev)->session ? (ssize_t)size : n;
}

/* ---- SESS-3 ---- */

static ssize_t end_once(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	ssize_t n = qsc_device_session_read(honest(dev), session, buf, size);
	struct liar_device *l = liar_device(dev);

	if (n || l->value != session) {
		l->value = n ? 0 : session;
		return n;
	}
	return -ENOMSG;
}

/* ---- SESS-4 ---- */

static int info_anywhere(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	int r = qsc_device_session_precopy_info(honest(dev), session, info);

	return r && session == liar_device(dev)->session && honest_state(dev) == QSC_STATE_STOP_COPY
		       ? 0
		       : r;
}

static int nothing_initial(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	int r = qsc_device_session_precopy_info(honest(dev), session, info);

	info->initial_bytes = 0;
	return r;
}

static int initial_stays(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	int r = qsc_device_session_precopy_info(honest(dev), session, info);

	info->initial_bytes = 4096;
	return r;
}

static int nothing_dirty(struct qsc_device *dev, uint64_t session, struct qsc_precopy_info *info)
{
	int r = qsc_device_session_precopy_info(honest(dev), session, info);

	info->dirty_bytes = 0;
	return r;
}

/* ---- SESS-5: a piece of one byte that follows a piece of one byte ---- */

static ssize_t refuse_small(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	struct liar_device *l = liar_device(dev);

	l->count = size == 1 && honest_state(dev) == QSC_STATE_RESUMING ? l->count + 1 : 0;
	return l->count == 2 ? -EINVAL : qsc_device_session_write(honest(dev), session, buf, size);
}

static ssize_t lose_small(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	struct liar_device *l = liar_device(dev);

	l->count = size == 1 && honest_state(dev) == QSC_STATE_RESUMING ? l->count + 1 : 0;
	return l->count == 2 ? (ssize_t)size
			     : qsc_device_session_write(honest(dev), session, buf, size);
}

/* ---- SESS-6 ---- */

static int accept_incomplete(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool load = honest_state(dev) == QSC_STATE_RESUMING && target == QSC_STATE_STOP;
	int r = honest_set_state(dev, target, session);

	return r && load && honest_state(dev) == QSC_STATE_RESUMING ? pretend_loaded(dev) : r;
}

static int accept_corrupted(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool load = honest_state(dev) == QSC_STATE_RESUMING && target == QSC_STATE_STOP;
	int r = honest_set_state(dev, target, session);

	return r && load && honest_state(dev) == QSC_STATE_ERROR ? pretend_loaded(dev) : r;
}

static int run_on_refused(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	if (honest_state(dev) == QSC_STATE_ERROR && target == QSC_STATE_RUNNING)
		return qsc_device_reset(honest(dev));
	return honest_set_state(dev, target, session);
}

/* ---- SESS-7: what comes to light after a reset in ERROR ---- */

static int keep_memory(struct qsc_device *dev)
{
	bool failed = honest_state(dev) == QSC_STATE_ERROR;
	int r = qsc_device_reset(honest(dev));

	if (failed)
		qsc_device_region_write(honest(dev), liar_device(dev)->exerciser->memory_region,
					4096, "x", 1);
	return r;
}

static int keep_register(struct qsc_device *dev)
{
	const struct qsc_exerciser *ex = liar_device(dev)->exerciser;
	bool failed = honest_state(dev) == QSC_STATE_ERROR;
	int r = qsc_device_reset(honest(dev));
	uint64_t value = 4711;

	if (failed)
		qsc_device_region_write(honest(dev), ex->register_region, ex->register_offset,
					&value, sizeof(value));
	return r;
}

static int keep_interrupt(struct qsc_device *dev)
{
	bool failed = honest_state(dev) == QSC_STATE_ERROR;
	int r = qsc_device_reset(honest(dev));

	if (failed)
		signal_vector(dev);
	return r;
}

/* ---- SESS-8: armed from a load until the device runs ---- */

static int note_load(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool resuming = honest_state(dev) == QSC_STATE_RESUMING;
	int r = honest_set_state(dev, target, session);
	struct liar_device *l = liar_device(dev);

	if (!r && resuming)
		l->armed = true;
	else if (!r && qsc_state_is_active((enum qsc_state)target))
		l->armed = false;
	return r;
}

static ssize_t save_differently(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	ssize_t n = qsc_device_session_read(honest(dev), session, buf, size);

	if (n > 0 && liar_device(dev)->armed)
		((uint8_t *)buf)[n / 2] ^= 1;
	return n;
}

static int forget_register(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct liar_device *l = liar_device(dev);
	const struct qsc_exerciser *ex = l->exerciser;
	bool loaded = l->armed;
	int r = note_load(dev, target, session);
	uint64_t zero = 0;

	if (!r && loaded && target == QSC_STATE_RUNNING) {
		qsc_device_region_write(l->inner, ex->register_region, ex->register_offset, &zero,
					sizeof(zero));
	}
	return r;
}

/* ---- SESS-9: as Linux does when there is no file descriptor left ---- */

static int lose_session(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int fd = fcntl(2, F_DUPFD_CLOEXEC, 0);
	int r = honest_set_state(dev, target, session);

	if (fd < 0)
		return r ? r : -EMFILE;
	close(fd);
	return r;
}

/* ---- SESS-10 ---- */

static int no_idea(struct qsc_device *dev, uint64_t *size_bytes)
{
	int r = qsc_device_data_size(honest(dev), size_bytes);

	*size_bytes = 0;
	return r;
}

/* ---- SESS-11: takes what it does not understand ---- */

static ssize_t take_anything(struct qsc_device *dev, uint64_t session, const void *buf, size_t size)
{
	ssize_t n = qsc_device_session_write(honest(dev), session, buf, size);

	return n < 0 && n != -ENODEV ? (ssize_t)size : n;
}

static const char numbers_stay_here[] = "sessions have no number on the wire";
static const char the_client_knows[] = "the client answers from the state, whatever it is told";

const struct lie sess_lies[] = {
	{QSC_CLAUSE_SESS_1, "gives the session another number from PRE_COPY to STOP_COPY",
	 QSC_MIGRATION_PRE_COPY, .local = numbers_stay_here, .ops.set_state = alias_in_group,
	 .ops.session_read = alias_read, .ops.session_precopy_info = alias_info},
	{QSC_CLAUSE_SESS_1, "gives a session when STOP_COPY is left", .local = numbers_stay_here,
	 .fault = "set-state:STOP/STOP_COPY=session:again"},
	{QSC_CLAUSE_SESS_2, "reads a session that has ended as if at its end",
	 .local = numbers_stay_here, .ops.session_read = read_after_end},
	{QSC_CLAUSE_SESS_2, "takes data for a session that has ended", .local = numbers_stay_here,
	 .ops.session_write = write_after_end},
	{QSC_CLAUSE_SESS_3, "says 0 in a drained PRE_COPY", QSC_MIGRATION_PRE_COPY,
	 .local = the_client_knows, .fault = "session-read/PRE_COPY=turn:ENOMSG:0"},
	{QSC_CLAUSE_SESS_3, "says 0 at the end of the stream only once",
	 .ops.session_read = end_once},
	{QSC_CLAUSE_SESS_4, "answers pre-copy info in STOP_COPY", QSC_MIGRATION_PRE_COPY,
	 .local = the_client_knows, .ops.session_precopy_info = info_anywhere},
	{QSC_CLAUSE_SESS_4, "has no initial bytes", QSC_MIGRATION_PRE_COPY,
	 .ops.session_precopy_info = nothing_initial},
	{QSC_CLAUSE_SESS_4, "has as many initial bytes after they were read",
	 QSC_MIGRATION_PRE_COPY, .ops.session_precopy_info = initial_stays},
	{QSC_CLAUSE_SESS_4, "never has dirty bytes", QSC_MIGRATION_PRE_COPY,
	 .ops.session_precopy_info = nothing_dirty},
	{QSC_CLAUSE_SESS_5, "refuses small pieces", .ops.session_write = refuse_small},
	{QSC_CLAUSE_SESS_5, "loses a small piece", .ops.session_write = lose_small},
	{QSC_CLAUSE_SESS_6, "accepts an incomplete stream", .ops.set_state = accept_incomplete},
	{QSC_CLAUSE_SESS_6, "accepts a corrupted stream", .ops.set_state = accept_corrupted},
	{QSC_CLAUSE_SESS_6, "runs on a stream that it refused", .ops.set_state = run_on_refused,
	 .also = "ARC-5", .why = "it leaves ERROR for that"},
	{QSC_CLAUSE_SESS_7, "keeps a byte of memory over a failed load and reset",
	 .ops.reset = keep_memory},
	{QSC_CLAUSE_SESS_7, "keeps a register over a failed load and reset",
	 .ops.reset = keep_register},
	{QSC_CLAUSE_SESS_7, "keeps an interrupt over a failed load and reset",
	 .ops.reset = keep_interrupt},
	{QSC_CLAUSE_SESS_8, "saves something else after a load", .ops.set_state = note_load,
	 .ops.session_read = save_differently},
	{QSC_CLAUSE_SESS_8, "forgets a register when it runs after a load",
	 .ops.set_state = forget_register, .also = "SESS-5",
	 .why = "what was loaded is looked at there too"},
	{QSC_CLAUSE_SESS_9, "changes state and loses the session without file descriptors",
	 .ops.set_state = lose_session},
	{QSC_CLAUSE_SESS_10, "has no estimate in STOP", .fault = "data-size/STOP=EINVAL"},
	{QSC_CLAUSE_SESS_10, "estimates nothing", .ops.data_size = no_idea},
	{QSC_CLAUSE_SESS_11, "takes all of a foreign stream before it refuses",
	 .ops.session_write = take_anything},
	{.what = NULL},
};
