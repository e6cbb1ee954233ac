/* SPDX-License-Identifier: MIT */
/* STATE-1 to STATE-5: which states there are, and that the device tells the truth about them. */
#include <errno.h>
#include <string.h>

#include "check/clause.h"

/* ---- STATE-1: reports its flags; a flag set other than 1, 3, 5, 7 is a defect ---- */

static enum qsc_check_result state_1(struct harness *h)
{
	struct qsc_migration_info info;
	uint32_t flags;
	int r;

	(void)harness_open(h);
	if (!h->dev)
		return not_tried(h, "%s", h->trouble);
	r = qsc_device_get_migration(h->dev, &info);
	if (r == -ENOTTY)
		return not_promised(h, "the device does not migrate");
	MUST(h, !r, "asking for the flags fails: %s", strerror(-r));
	flags = info.flags;
	MUST(h, qsc_flags_valid(flags), "reports flags %u", flags);
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		REQUIRE(h, harness_start_in(h, s));
		MUST(h, qsc_device_get_migration(h->dev, &info) == 0 && info.flags == flags,
		     "reports flags %u, and in %s %u", flags, qsc_state_name(s), info.flags);
	}
	return holds(h, "flags %u in every state", flags);
}

/* ---- STATE-2: is RUNNING after open and after reset ---- */

static enum qsc_check_result state_2(struct harness *h)
{
	REQUIRE(h, harness_open(h));
	MUST(h, harness_state(h) == QSC_STATE_RUNNING, "is %s after open",
	     qsc_state_name(harness_state(h)));
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		REQUIRE(h, harness_start_in(h, s));
		REQUIRE(h, harness_reset(h));
		MUST(h, harness_state(h) == QSC_STATE_RUNNING, "is %s after a reset in %s",
		     qsc_state_name(harness_state(h)), qsc_state_name(s));
	}
	return holds(h, "after open, and after reset in every state");
}

/* ---- STATE-3: never changes state by itself ---- */

static enum qsc_check_result state_3_use(struct harness *h, enum qsc_state state)
{
	autosaved stream = {0};

	/* A session that was read to its end, or a load that is complete, is no request. */
	if (qsc_state_is_saving(state))
		harness_read(h, &stream);
	harness_settle(h);
	MUST(h, harness_state(h) == state, "was left in %s and is found in %s",
	     qsc_state_name(state), qsc_state_name(harness_state(h)));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result state_3(struct harness *h)
{
	autosaved blank = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		REQUIRE(h, harness_start(h));
		/* It has work to do when it is asked to be somewhere else. */
		REQUIRE(h, harness_busy(h, MEMORY_IOVA + MEMORY_TARGET, 8, 4096, 0));
		REQUIRE(h, harness_enter(h, s));
		PART(state_3_use(h, s));
		if (s != QSC_STATE_RESUMING)
			continue;
		REQUIRE(h, harness_write(h, blank.data, blank.size, blank.size));
		PART(state_3_use(h, s));
	}
	return holds(h, "stays in every state with work, queries and sessions at their end");
}

/* ---- STATE-4: tells its true state at any time, after a failed request above all ---- */

/* What a device in that state must be able to do, whatever it says. */
static enum qsc_check_result state_4_is(struct harness *h, enum qsc_state told, const char *when)
{
	uint64_t size;
	int r = qsc_device_data_size(h->dev, &size);

	MUST(h, (told == QSC_STATE_ERROR) == (r == -EIO),
	     "says %s %s, but the size of its state is %s", qsc_state_name(told), when,
	     r ? strerror(-r) : "known");
	r = harness_request(h, told);
	MUST(h, (told == QSC_STATE_ERROR) == (r != 0),
	     "says %s %s, but a request for that state gives %s", qsc_state_name(told), when,
	     r ? strerror(-r) : "success");
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result state_4_failed_load(struct harness *h, const struct saved *blank)
{
	REQUIRE(h, harness_start_in(h, QSC_STATE_RESUMING));
	harness_write(h, blank->data, blank->size - 1, blank->size);
	if (harness_request(h, QSC_STATE_STOP) == 0)
		return not_tried(h, "an incomplete load is accepted (SESS-6)");
	MUST(h, harness_state(h) == QSC_STATE_RESUMING,
	     "says %s after an incomplete load, which leaves RESUMING",
	     qsc_state_name(harness_state(h)));
	PART(state_4_is(h, QSC_STATE_RESUMING, "after an incomplete load"));
	MUST(h, harness_write(h, blank->data + blank->size - 1, 1, 1) == 0,
	     "says RESUMING after an incomplete load, but takes no more of it");
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));

	REQUIRE(h, harness_start_in(h, QSC_STATE_RESUMING));
	harness_write(h, "nonsense", 8, 8);
	harness_write(h, blank->data, blank->size, blank->size);
	if (harness_request(h, QSC_STATE_STOP) == 0)
		return not_tried(h, "a load of nonsense is accepted (SESS-6)");
	return state_4_is(h, harness_state(h), "after a failed load");
}

static enum qsc_check_result state_4(struct harness *h)
{
	autosaved blank = {0};
	unsigned int told = 0;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, harness_load(h, &blank));
	PART(state_4_failed_load(h, &blank));
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		REQUIRE(h, harness_start_in(h, s));
		MUST(h, harness_state(h) == s, "went to %s and says %s", qsc_state_name(s),
		     qsc_state_name(harness_state(h)));
		PART(state_4_is(h, s, "after going there"));
		/* A request that nothing can satisfy. */
		harness_request(h, QSC_STATE_COUNT);
		MUST(h, harness_state(h) == s, "is in %s and says %s after a request for state 8",
		     qsc_state_name(s), qsc_state_name(harness_state(h)));
		told++;
	}
	return holds(h, "in %u states, after requests that cannot be and after failed loads", told);
}

/* ---- STATE-5: what ends when the last user lets go ---- */

#define MARK 0x5a5a0123456789abULL

static enum qsc_check_result state_5_next_user(struct harness *h, enum qsc_state left,
					       uint64_t old_session)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS], found;
	const char *name = qsc_state_name(left);
	bool kept, blank;
	ssize_t n = -ENODEV;
	char byte;

	MUST(h, harness_state(h) == QSC_STATE_RUNNING, "let go in %s, the next user finds %s", name,
	     qsc_state_name(harness_state(h)));
	if (old_session)
		n = qsc_device_session_read(h->dev, old_session, &byte, 1);
	MUST(h, n < 0, "let go in %s, the session can still be read", name);
	MUST(h, n == -ENODEV, "let go in %s, reading its session gives %s instead of ENODEV", name,
	     strerror((int)-n));
	MUST(h, !h->dirty_log || harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap) < 0,
	     "let go in %s, the dirty log still runs", name);
	harness_all_signals(h);
	if (h->can_trigger) {
		harness_trigger(h, 0, 1);
		MUST(h, !harness_all_signals(h), "let go in %s, the interrupts are still set up",
		     name);
	}
	MUST(h, harness_map(h) == 0, "let go in %s, the DMA mappings remain: %s", name, h->trouble);
	blank = harness_marked(h, h->register_blank, &found);
	kept = harness_marked(h, MARK, &found);
	MUST(h, qsc_state_is_active(left) || blank,
	     "let go in %s, a register still holds %#llx: the device was not reset", name,
	     (unsigned long long)found);
	MUST(h, blank || kept, "let go in %s, a register holds %#llx", name,
	     (unsigned long long)found);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result state_5_let_go(struct harness *h, enum qsc_state state)
{
	uint64_t session;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_mark(h, MARK));
	if (h->dirty_log)
		REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, 4096));
	REQUIRE(h, harness_enter(h, state));
	session = h->session;
	harness_let_go(h);
	MUST(h, harness_open(h) == 0, "let go in %s: %s", qsc_state_name(state), h->trouble);
	return state_5_next_user(h, state, session);
}

static enum qsc_check_result state_5(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	harness_close(h);
	REQUIRE(h, harness_open(h));
	if (harness_state(h) != QSC_STATE_RUNNING)
		return not_tried(h, "is %s after open (STATE-2)", qsc_state_name(harness_state(h)));
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		if (!harness_has(h, s))
			continue;
		if (s == QSC_STATE_RESUMING && !h->options->dangerous) {
			harness_leave_out(h, "letting go while RESUMING, which crashes some "
					     "kernels (--dangerous tries it)");
			continue;
		}
		PART(state_5_let_go(h, s));
	}
	return holds(h, "let go in each of its states");
}

const struct clause_check state_checks[] = {
	{QSC_CLAUSE_STATE_1, state_1}, {QSC_CLAUSE_STATE_2, state_2}, {QSC_CLAUSE_STATE_3, state_3},
	{QSC_CLAUSE_STATE_4, state_4}, {QSC_CLAUSE_STATE_5, state_5}, {QSC_CLAUSE_COUNT, NULL},
};
