/* SPDX-License-Identifier: MIT */
/* See oracle.h. */
#include "check/oracle.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "check/clause.h"

#define EXTRA_IOVA (MEMORY_IOVA + 4 * MEMORY_SIZE)
#define EXTRA_SIZE 8192ULL
#define MAX_COPIES 200 /* as many as fit the queue that nobody reads */

static const char *text_of(int64_t result)
{
	return result < 0 ? strerror((int)-result) : "success";
}

/* Remember the first thing that is not as it should be. */
static void accuse(struct oracle *o, enum qsc_clause clause, const char *fmt, ...) QSC_PRINTF(3, 4);

static void accuse(struct oracle *o, enum qsc_clause clause, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	if (o->broken)
		return;
	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	broken(o->h, "%s", text);
	o->h->broken = clause;
	o->broken = true;
}

/* What a call must answer by the allowed list, in the state that it met. */
static void judge(struct oracle *o, enum qsc_action action, enum qsc_clause clause,
		  const char *what, int64_t result)
{
	enum qsc_verdict verdict = qsc_contract_verdict(action, o->state);
	int number = qsc_verdict_errno(verdict);

	if (verdict == QSC_VERDICT_TOLERATE)
		return;
	if (number ? result != -number : result < 0)
		accuse(o, clause, "%s in %s gives %s instead of %s", what, qsc_state_name(o->state),
		       text_of(result), number ? strerror(number) : "success");
}

void oracle_begin(struct oracle *o, struct harness *h, const struct saved *blank)
{
	*o = (struct oracle){
		.h = h,
		.blank = blank,
		.state = QSC_STATE_RUNNING,
		.config = -1,
		.blame = QSC_CLAUSE_COUNT,
	};
	/* What it is after a reset, an exerciser may have changed. */
	o->value_known = harness_has_register(h) && !harness_register_read(h, &o->value);
}

/* ---- states ---- */

static void end_session(struct oracle *o)
{
	o->live = false;
	o->at_end = false;
}

static void arrive(struct oracle *o, enum qsc_state to, uint64_t opened)
{
	bool opens = to == QSC_STATE_RESUMING ||
		     (qsc_state_is_saving(to) && !qsc_state_is_saving(o->state));

	if (opens != (opened != 0))
		accuse(o, QSC_CLAUSE_SESS_1, "%s to %s opens %s session", qsc_state_name(o->state),
		       qsc_state_name(to), opened ? "a" : "no");
	if (opens || !qsc_state_is_saving(to))
		end_session(o);
	if (opens) {
		o->session = opened;
		o->live = true;
		o->written = 0;
		o->spoilt = false;
	}
	if (o->state == QSC_STATE_RESUMING && to != QSC_STATE_RESUMING) {
		o->blame = QSC_CLAUSE_SESS_8;
		o->value = o->h->register_blank;
		o->value_known = o->h->register_resets;
	}
	o->state = to;
}

/* It failed: the state that it left must be `a` or `b`. */
static void after_failure(struct oracle *o, enum qsc_clause clause, const char *what,
			  enum qsc_state a, enum qsc_state b)
{
	enum qsc_state now = harness_state(o->h);

	if (now == a || now == b) {
		if (now != o->state)
			end_session(o);
		o->state = now;
		return;
	}
	if (now == QSC_STATE_COUNT || !harness_tells_truth(o->h, now))
		clause = QSC_CLAUSE_STATE_4;
	accuse(o, clause, "%s fails, and then the device says that it is %s", what,
	       now == QSC_STATE_COUNT ? "nowhere" : qsc_state_name(now));
}

/* A load that is not whole, or not sound, does not get past STOP. */
static bool load_must_fail(const struct oracle *o, uint32_t target)
{
	return o->state == QSC_STATE_RESUMING && target != QSC_STATE_RESUMING &&
	       (o->spoilt || o->written < o->blank->size);
}

static void refused(struct oracle *o, uint32_t target, const char *what, int r)
{
	bool backwards = o->state == QSC_STATE_STOP_COPY && qsc_state_exists(o->h->flags, target) &&
			 target != QSC_STATE_ERROR;
	enum qsc_clause clause = o->state == QSC_STATE_ERROR ? QSC_CLAUSE_ARC_5
				 : backwards		     ? QSC_CLAUSE_ARC_4
							     : QSC_CLAUSE_ARC_3;

	if (r >= 0 || (r != -EINVAL && o->state != QSC_STATE_ERROR)) {
		accuse(o, clause, "%s gives %s instead of %s", what, text_of(r), strerror(EINVAL));
		return;
	}
	after_failure(o, clause, what, o->state, o->state);
}

/* A request for the current state; a session lives on with what is left of it. */
static void current(struct oracle *o, const char *what, int r, uint64_t session)
{
	uint8_t byte;

	if (r || session)
		accuse(o, QSC_CLAUSE_ARC_2, "%s gives %s%s", what, text_of(r),
		       session ? " and opens a session" : "");
	else if (o->live && qsc_state_is_saving(o->state) &&
		 qsc_device_session_read(o->h->dev, o->session, &byte, 1) == -ENODEV)
		accuse(o, QSC_CLAUSE_ARC_2, "%s ends the session", what);
}

static void set_state(struct oracle *o, uint32_t target)
{
	uint64_t session = 0;
	bool must_fail = load_must_fail(o, target);
	int next = o->state == QSC_STATE_ERROR ? -EINVAL
					       : qsc_contract_next(o->h->flags, o->state, target);
	int r = qsc_device_set_state(o->h->dev, target, &session);
	char what[64];

	(void)snprintf(what, sizeof(what), "%s to %s (%u)", qsc_state_name(o->state),
		       qsc_state_name((enum qsc_state)target), target);
	if (next < 0) {
		refused(o, target, what, r);
	} else if (next == (int)o->state) {
		current(o, what, r, session);
	} else if (must_fail) {
		if (!r)
			accuse(o,
			       harness_state(o->h) == target ? QSC_CLAUSE_SESS_6 : QSC_CLAUSE_ARC_6,
			       "%s succeeds with %s", what,
			       o->spoilt ? "a spoilt stream" : "an incomplete stream");
		else
			after_failure(o, QSC_CLAUSE_SESS_6, what, QSC_STATE_RESUMING,
				      o->spoilt ? QSC_STATE_ERROR : QSC_STATE_RESUMING);
	} else if (r) {
		accuse(o, QSC_CLAUSE_ARC_1, "%s gives %s", what, text_of(r));
	} else if (harness_state(o->h) != target) {
		accuse(o, QSC_CLAUSE_ARC_1, "%s leads to %s", what,
		       qsc_state_name(harness_state(o->h)));
	} else {
		arrive(o, (enum qsc_state)target, session);
	}
}

static void fresh(struct oracle *o)
{
	o->blame = o->state == QSC_STATE_ERROR ? QSC_CLAUSE_SESS_7 : QSC_CLAUSE_COUNT;
	end_session(o);
	o->state = QSC_STATE_RUNNING;
	o->config = -1;
	o->value = o->h->register_blank;
	o->value_known = o->h->register_resets;
	o->listening = false;
	/* Not every device ends its log then. */
	(void)qsc_device_log_stop(o->h->dev);
	o->log = false;
}

static void reset(struct oracle *o)
{
	enum qsc_state from = o->state, now;
	int r = qsc_device_reset(o->h->dev);

	if (r) {
		accuse(o, QSC_CLAUSE_ARC_5, "a reset in %s gives %s", qsc_state_name(from),
		       text_of(r));
		return;
	}
	now = harness_state(o->h);
	if (now != QSC_STATE_RUNNING)
		accuse(o, from == QSC_STATE_ERROR ? QSC_CLAUSE_ARC_5 : QSC_CLAUSE_STATE_2,
		       "a reset leads from %s to %s", qsc_state_name(from),
		       now == QSC_STATE_COUNT ? "nowhere" : qsc_state_name(now));
	fresh(o);
}

/* Whether a device that is let go of as it should be is RUNNING for the next user. */
static bool opens_running(struct harness *h)
{
	record_freeze(&h->record);
	(void)harness_reset(h);
	harness_let_go(h);
	return !harness_open(h) && harness_state(h) == QSC_STATE_RUNNING;
}

static int reopen(struct oracle *o)
{
	enum qsc_state from = o->state, now;
	int r;

	if (from == QSC_STATE_RESUMING && !o->h->options->dangerous)
		return 0;
	harness_let_go(o->h);
	r = harness_open(o->h);
	if (r)
		return r;
	now = harness_state(o->h);
	if (now != QSC_STATE_RUNNING)
		accuse(o, opens_running(o->h) ? QSC_CLAUSE_STATE_5 : QSC_CLAUSE_STATE_2,
		       "let go in %s, the next user finds %s", qsc_state_name(from),
		       now == QSC_STATE_COUNT ? "no state" : qsc_state_name(now));
	if (o->broken)
		return 0;
	r = harness_map(o->h);
	if (r)
		accuse(o, QSC_CLAUSE_STATE_5, "let go in %s, the DMA mappings remain: %s",
		       qsc_state_name(from), o->h->trouble);
	r = harness_interrupts(o->h);
	fresh(o);
	/* One that runs may keep its registers. */
	o->value_known &= !qsc_state_is_active(from);
	o->session = 0;
	o->mapped = false;
	return r;
}

/* ---- sessions ---- */

static void session_read(struct oracle *o, uint32_t argument)
{
	uint8_t bytes[512];
	size_t size = 1 + argument % sizeof(bytes);
	const char *name = qsc_state_name(o->state);
	ssize_t n;

	if (!o->session)
		return;
	n = qsc_device_session_read(o->h->dev, o->session, bytes, size);
	if (!o->live || !qsc_state_is_saving(o->state)) {
		if (n != -ENODEV)
			accuse(o, QSC_CLAUSE_SESS_2,
			       "reading a session %s in %s gives %s instead of %s",
			       o->live ? "that is none of saving" : "that has ended", name,
			       text_of(n), strerror(ENODEV));
	} else if (o->state == QSC_STATE_STOP_COPY) {
		if (n < 0 || (o->at_end && n))
			accuse(o, QSC_CLAUSE_SESS_3, "reading in %s gives %s", name,
			       n < 0 ? text_of(n) : "bytes after the end");
		o->at_end = n == 0;
	} else if (n == 0 || (n < 0 && n != -ENOMSG)) {
		accuse(o, QSC_CLAUSE_SESS_3, "reading in %s gives %s", name,
		       n ? text_of(n) : "the end of the stream");
	}
	if (n > (ssize_t)size)
		accuse(o, QSC_CLAUSE_COUNT, "reading %zu bytes gives %zd", size, n);
}

static void session_write(struct oracle *o, const void *data, size_t size, bool nonsense)
{
	ssize_t n = qsc_device_session_write(o->h->dev, o->session, data, size);

	if (!o->live || o->state != QSC_STATE_RESUMING) {
		if (n != -ENODEV)
			accuse(o, QSC_CLAUSE_SESS_2,
			       "writing a session %s in %s gives %s instead of %s",
			       o->live ? "of saving" : "that has ended", qsc_state_name(o->state),
			       text_of(n), strerror(ENODEV));
		return;
	}
	if (!nonsense && !o->spoilt && n != (ssize_t)size)
		accuse(o, QSC_CLAUSE_SESS_5,
		       "writing %zu bytes of a stream of its own, from byte %zu on, gives %s", size,
		       o->written, n < 0 ? text_of(n) : "fewer");
	o->spoilt |= nonsense || n < 0;
	if (!nonsense && n > 0)
		o->written += (size_t)n;
}

static void write_more(struct oracle *o, uint32_t argument)
{
	size_t rest = o->blank->size - o->written;
	size_t size = argument % 3 == 0 ? rest
					: 1 + (argument >> 2) % (argument % 3 == 1 ? 16 : 4096);

	if (!o->session)
		return;
	if (!rest && o->state == QSC_STATE_RESUMING)
		session_write(o, "x", 1, true);
	else
		session_write(o, o->blank->data + (rest ? o->written : 0),
			      rest ? qsc_min_u64(size, rest) : 1, false);
}

static void precopy_info(struct oracle *o)
{
	struct qsc_precopy_info info;

	if (o->session)
		judge(o, QSC_ACTION_PRECOPY_INFO, QSC_CLAUSE_SESS_4, "pre-copy info",
		      qsc_device_session_precopy_info(o->h->dev, o->session, &info));
}

static void data_size(struct oracle *o)
{
	uint64_t size;
	int r = qsc_device_data_size(o->h->dev, &size);

	if ((r != 0) != (o->state == QSC_STATE_ERROR))
		accuse(o, QSC_CLAUSE_SESS_10, "the estimate in %s gives %s",
		       qsc_state_name(o->state), text_of(r));
}

/* ---- dirty log and mappings ---- */

static void log_start(struct oracle *o)
{
	int r;

	if (!o->h->dirty_log)
		return;
	r = harness_log_start(o->h, MEMORY_IOVA, MEMORY_SIZE, QSC_PAGE_SIZE);
	if (!o->log)
		judge(o, QSC_ACTION_LOG_START, QSC_CLAUSE_LOG_4, "starting the dirty log", r);
	else if (!r)
		accuse(o, QSC_CLAUSE_LOG_3, "the dirty log can be started twice");
	o->log |= !r;
}

static void log_other(struct oracle *o, bool stop)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];
	const char *what = stop ? "stopping the dirty log" : "a report of the dirty log";
	int r;

	if (!o->h->dirty_log)
		return;
	r = stop ? qsc_device_log_stop(o->h->dev)
		 : harness_log_report(o->h, MEMORY_IOVA, MEMORY_SIZE, QSC_PAGE_SIZE, bitmap);
	if (o->log)
		judge(o, QSC_ACTION_LOG_REPORT, QSC_CLAUSE_LOG_4, what, r);
	else if (!r)
		accuse(o, QSC_CLAUSE_LOG_3, "%s succeeds while none is running", what);
	o->log &= !(stop && !r);
}

static void map_more(struct oracle *o, bool map)
{
	const struct qsc_dma_mapping mapping = {
		.iova = EXTRA_IOVA,
		.size = EXTRA_SIZE,
		.flags = QSC_DMA_READ,
		.fd = o->h->memory_fd,
	};
	int r = map ? qsc_device_dma_map(o->h->dev, &mapping)
		    : qsc_device_dma_unmap(o->h->dev, EXTRA_IOVA, EXTRA_SIZE);

	if (map != o->mapped)
		judge(o, QSC_ACTION_DMA_MAPPING, QSC_CLAUSE_COUNT,
		      map ? "mapping memory" : "unmapping memory", r);
	else if (!r)
		accuse(o, QSC_CLAUSE_COUNT, "memory can be %s",
		       map ? "mapped twice" : "unmapped that is not mapped");
	if (!r)
		o->mapped = map;
}

/* ---- interrupts, config space, registers ---- */

static enum qsc_clause dev_8_of(const struct oracle *o)
{
	return o->state == QSC_STATE_STOP || o->state == QSC_STATE_STOP_COPY ? QSC_CLAUSE_DEV_8
									     : QSC_CLAUSE_COUNT;
}

/* What is not set up cannot be torn down everywhere: the kernel refuses it. */
static void irq_setup(struct oracle *o, uint32_t argument)
{
	bool down = argument & 1;
	int r;

	if (!o->h->vectors)
		return;
	r = down ? harness_no_interrupts(o->h) : harness_interrupts(o->h);
	if (!down || o->listening)
		judge(o, QSC_ACTION_IRQ_SETUP, dev_8_of(o),
		      down ? "tearing down interrupts" : "setting up interrupts", r);
	if (!r)
		o->listening = !down;
}

static void irq_trigger(struct oracle *o, uint32_t argument)
{
	/* Without a listener some refuse it. */
	if (!o->h->can_trigger || harness_interrupts(o->h))
		return;
	judge(o, QSC_ACTION_IRQ_TRIGGER,
	      o->state == QSC_STATE_ERROR ? QSC_CLAUSE_COUNT : QSC_CLAUSE_DEV_6,
	      "triggering an interrupt", harness_trigger(o->h, argument % o->h->vectors, 1));
}

static void config_write(struct oracle *o, uint32_t argument)
{
	int r;

	if (!o->h->config_mask)
		return;
	r = harness_config_write(o->h, argument & 1);
	judge(o, QSC_ACTION_CONFIG_WRITE, dev_8_of(o), "writing config space", r);
	if (qsc_contract_verdict(QSC_ACTION_CONFIG_WRITE, o->state) != QSC_VERDICT_ALLOW)
		o->config = -1;
	else if (!r)
		o->config = argument & 1;
}

static void config_read(struct oracle *o)
{
	int r;

	if (!o->h->config_mask)
		return;
	r = harness_config_read(o->h);
	judge(o, QSC_ACTION_CONFIG_READ, dev_8_of(o), "reading config space", r);
	if (r >= 0 && o->config >= 0 && r != o->config)
		accuse(o, dev_8_of(o), "config space at %#llx has changed in %s",
		       (unsigned long long)o->h->config_offset, qsc_state_name(o->state));
}

static void register_access(struct oracle *o, uint32_t argument, bool write)
{
	enum qsc_verdict verdict = qsc_contract_verdict(QSC_ACTION_REGISTER_ACCESS, o->state);
	uint64_t value = harness_register_fit(o->h, argument * 0x100000001ULL);
	uint64_t expected = o->value;
	int r = write ? harness_register_write(o->h, value) : harness_register_read(o->h, &value);

	if (verdict == QSC_VERDICT_TOLERATE) {
		o->value_known &= !write;
		return;
	}
	if (verdict == QSC_VERDICT_DISCARD)
		expected = harness_register_fit(o->h, UINT64_MAX);
	if (r)
		accuse(o, verdict == QSC_VERDICT_DISCARD ? QSC_CLAUSE_DEV_7 : QSC_CLAUSE_COUNT,
		       "in %s, %s", qsc_state_name(o->state), o->h->trouble);
	else if (write && verdict == QSC_VERDICT_DISCARD)
		o->blame = QSC_CLAUSE_DEV_7;
	else if (!write && value != expected && (o->value_known || verdict == QSC_VERDICT_DISCARD))
		accuse(o, verdict == QSC_VERDICT_DISCARD ? QSC_CLAUSE_DEV_7 : o->blame,
		       "a register reads as %#llx in %s instead of %#llx",
		       (unsigned long long)value, qsc_state_name(o->state),
		       (unsigned long long)expected);
	if (write && verdict == QSC_VERDICT_ALLOW) {
		o->value = value;
		o->value_known = true;
		o->blame = QSC_CLAUSE_COUNT;
	}
}

/* Something to be interrupted in; what comes of it is for others to look at. */
static void work(struct oracle *o)
{
	if (harness_idle(o->h) || o->copies >= MAX_COPIES ||
	    (o->state != QSC_STATE_RUNNING && o->state != QSC_STATE_PRE_COPY))
		return;
	o->copies += 4;
	(void)harness_copy(o->h, MEMORY_IOVA + MEMORY_TARGET, 4, 16384, 0);
}

static void query(struct oracle *o)
{
	struct qsc_device_info info;
	struct qsc_irq_info irq;

	judge(o, QSC_ACTION_QUERY, QSC_CLAUSE_COUNT, "a query of the device",
	      qsc_device_get_info(o->h->dev, &info));
	(void)qsc_device_get_irq_info(o->h->dev, o->h->irq_index, &irq);
}

static int act(struct oracle *o, const struct walk_step *step)
{
	uint32_t argument = step->argument;

	switch (step->action) {
	case WALK_SET_STATE:
		/* Numbers beyond the states too, but rarely. */
		set_state(o, argument % 32 == 31 ? 8 + argument / 32 % 3 : argument % 8);
		break;
	case WALK_RESET:
		reset(o);
		break;
	case WALK_REOPEN:
		return reopen(o);
	case WALK_READ:
		session_read(o, argument);
		break;
	case WALK_WRITE:
		write_more(o, argument);
		break;
	case WALK_NONSENSE:
		if (o->session)
			session_write(o, "nonsense, nonsense, nonsense", 24, true);
		break;
	case WALK_PRECOPY_INFO:
		precopy_info(o);
		break;
	case WALK_DATA_SIZE:
		data_size(o);
		break;
	case WALK_LOG_START:
		log_start(o);
		break;
	case WALK_LOG_REPORT:
	case WALK_LOG_STOP:
		log_other(o, step->action == WALK_LOG_STOP);
		break;
	case WALK_MAP:
	case WALK_UNMAP:
		map_more(o, step->action == WALK_MAP);
		break;
	case WALK_IRQ_SETUP:
		irq_setup(o, argument);
		break;
	case WALK_IRQ_TRIGGER:
		irq_trigger(o, argument);
		break;
	case WALK_CONFIG_WRITE:
		config_write(o, argument);
		break;
	case WALK_CONFIG_READ:
		config_read(o);
		break;
	case WALK_REGISTER_WRITE:
	case WALK_REGISTER_READ:
		if (harness_has_register(o->h))
			register_access(o, argument, step->action == WALK_REGISTER_WRITE);
		break;
	case WALK_WORK:
		work(o);
		break;
	case WALK_QUERY:
		query(o);
		break;
	}
	return 0;
}

int oracle_step(struct oracle *o, const struct walk_step *step)
{
	enum qsc_state now;
	int r = act(o, step);

	if (r || o->broken)
		return r;
	now = harness_state(o->h);
	if (now != o->state)
		accuse(o, QSC_CLAUSE_STATE_3, "was %s and is %s without a request",
		       qsc_state_name(o->state),
		       now == QSC_STATE_COUNT ? "nowhere" : qsc_state_name(now));
	return 0;
}
