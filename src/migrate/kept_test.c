/* SPDX-License-Identifier: MIT */
/*
 * A set moves by what nobody answers: the source's words are kept and read later, as from a file.
 * Whatever fails, the source goes on or what was kept has the set, and it is restored once.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "migrate/sides.h"

/* What a file would be. */
struct kept {
	struct qsc_transport ends[2];
	struct qsc_channel writer;
	struct qsc_channel reader;
	uint8_t *bytes;
	size_t size;
	size_t room;
	size_t read;
	bool final;
	bool used;
	size_t full; /* no more than so many bytes fit; 0: all do */
	int fail_final;
	int fail_use;
};

static int kept_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct kept *kept = qsc_container_of(ch, struct kept, writer);
	int i;

	for (i = 0; i < iovcnt; i++) {
		if (kept->full && kept->size + iov[i].iov_len > kept->full)
			return -ENOSPC;
		if (kept->size + iov[i].iov_len > kept->room) {
			kept->room = 2 * kept->room + iov[i].iov_len;
			kept->bytes = realloc(kept->bytes, kept->room);
			assert_non_null(kept->bytes);
		}
		memcpy(kept->bytes + kept->size, iov[i].iov_base, iov[i].iov_len);
		kept->size += iov[i].iov_len;
	}
	return 0;
}

static int kept_drop(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	return 0;
}

static int kept_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct kept *kept = qsc_container_of(ch, struct kept, reader);

	if (size > kept->size - kept->read)
		return -EPIPE;
	memcpy(buf, kept->bytes + kept->read, size);
	kept->read += size;
	return 0;
}

static void kept_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
}

static int kept_finish(struct qsc_channel *ch, struct qsc_error *err)
{
	struct kept *kept = qsc_container_of(ch, struct kept, writer);

	if (kept->fail_final)
		return kept->fail_final;
	kept->final = true;
	return 0;
}

static int kept_use(struct qsc_channel *ch, struct qsc_error *err)
{
	struct kept *kept = qsc_container_of(ch, struct kept, reader);

	if (kept->fail_use)
		return kept->fail_use;
	if (kept->used)
		return qsc_error_set(err, ENOENT, NULL, "somebody else has restored it");
	kept->used = true;
	return 0;
}

static void kept_end(struct qsc_channel *ch)
{
}

static const struct qsc_channel_ops writer_ops = {
	.send = kept_send,
	.set_limits = kept_set_limits,
	.settle = kept_finish,
	.shutdown = kept_end,
	.close = kept_end,
};

static const struct qsc_channel_ops reader_ops = {
	.send = kept_drop,
	.recv = kept_recv,
	.set_limits = kept_set_limits,
	.settle = kept_use,
	.shutdown = kept_end,
	.close = kept_end,
};

static int open_writer(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	*ch = &qsc_container_of(transport, struct kept, ends[0])->writer;
	return 0;
}

static int open_reader(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	struct kept *kept = qsc_container_of(transport, struct kept, ends[1]);

	kept->read = 0;
	*ch = &kept->reader;
	return 0;
}

static void close_end(struct qsc_transport *transport)
{
}

static void kept_init(struct kept *kept)
{
	static const struct qsc_transport_ops ops[2] = {
		{.name = "kept", .max_channels = 1, .open = open_writer, .close = close_end},
		{.name = "kept", .max_channels = 1, .open = open_reader, .close = close_end},
	};

	*kept = (struct kept){
		.ends = {{&ops[0]}, {&ops[1]}}, .writer = {&writer_ops}, .reader = {&reader_ops}};
}

static void kept_release(struct kept *kept)
{
	free(kept->bytes);
}

static void save(struct fixture *f, struct kept *kept)
{
	struct side *side = &f->sides[0];

	side->result = qsc_migrate_send(side->set, &side->user, &kept->ends[0], &side->options,
					&side->report, &side->err);
	side->finished = true;
}

static void restore(struct fixture *f, struct kept *kept)
{
	struct side *side = &f->sides[1];

	/* Nobody is waited for. */
	side->options.progress = NULL;
	side->result = qsc_migrate_receive(side->set, &side->user, &kept->ends[1], &side->options,
					   &side->report, &side->err);
}

/* ---- it moves ---- */

static void test_save_and_restore(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct fixture f;
		struct kept kept;

		kept_init(&kept);
		sides_make(&f, i & 1 ? sides_mixed_flags : sides_p2p_flags, true);
		f.sides[0].options.no_precopy = i & 2;
		f.sides[0].options.channels = 5;
		save(&f, &kept);
		assert_int_equal(f.sides[0].result, 0);
		assert_true(kept.final);
		assert_non_null(strstr(f.sides[0].report.outcome, "what was saved has the set"));
		restore(&f, &kept);
		assert_true(kept.used);
		sides_expect_moved(&f);
		assert_int_equal(f.sides[0].report.passes > 0, !(i & 2));
		assert_string_equal(f.sides[1].report.outcome, "the destination runs");
		sides_drop(&f);
		kept_release(&kept);
	}
}

/* ---- saving fails ---- */

static void test_what_cannot_be_saved_stays(void **state)
{
	/* Room for the beginning, for a part of pre-copy, for all but COMMIT; and not final. */
	static const size_t full[] = {1, 20000, 200000, 0};
	uint32_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(full); i++) {
		struct fixture f;
		struct kept kept;

		kept_init(&kept);
		kept.full = full[i];
		kept.fail_final = -ENOSPC;
		sides_make(&f, sides_p2p_flags, true);
		f.sides[1].result = -1;
		save(&f, &kept);
		sides_expect_source_goes_on(&f, ENOSPC);
		assert_false(kept.final);
		assert_true(strstr(f.sides[0].err.text, "could not be") ||
			    strstr(f.sides[0].err.text, "closed connection"));
		sides_drop(&f);
		kept_release(&kept);
	}
}

static void test_SET_5_nobody_knows_whether_it_was_saved(void **state)
{
	struct fixture f;
	struct kept kept;

	(void)state;
	kept_init(&kept);
	kept.fail_final = -ENOTRECOVERABLE;
	sides_make(&f, sides_p2p_flags, true);
	save(&f, &kept);
	assert_int_equal(f.sides[0].result, -ENOTRECOVERABLE);
	assert_int_equal(f.sides[0].report.owner, QSC_OWNER_UNPROVED);
	assert_string_equal(f.sides[0].err.clause, "SET-5");
	assert_non_null(strstr(f.sides[0].report.outcome, "no proof that what was saved"));
	sides_all_in(&f.sides[0], QSC_STATE_STOP_COPY);
	assert_false(f.sides[0].resumed);
	sides_drop(&f);
	kept_release(&kept);
}

/* ---- restoring fails ---- */

static void expect_not_restored(struct fixture *f, int number)
{
	struct side *side = &f->sides[1];
	uint32_t i;

	assert_int_equal(side->result, -number);
	assert_int_equal(side->report.owner, QSC_OWNER_SOURCE);
	assert_false(side->resumed);
	assert_non_null(strstr(side->report.outcome, "what was saved still has it"));
	sides_all_in(side, QSC_STATE_RUNNING);
	for (i = 0; i < SIDES_MEMBERS; i++)
		assert_false(fake_holds(side->fakes[i], i + 1));
}

static void test_what_was_not_taken_over_can_be_tried_again(void **state)
{
	struct fixture f;
	struct kept kept;

	(void)state;
	kept_init(&kept);
	sides_make(&f, sides_p2p_flags, true);
	save(&f, &kept);
	kept.fail_use = -EIO;
	restore(&f, &kept);
	expect_not_restored(&f, EIO);
	kept.fail_use = 0;
	f.sides[1].fail_load = -ENOMEM;
	restore(&f, &kept);
	expect_not_restored(&f, ENOMEM);
	f.sides[1].fail_load = 0;
	restore(&f, &kept);
	sides_expect_moved(&f);
	sides_drop(&f);
	kept_release(&kept);
}

static void test_SET_5_it_is_restored_once(void **state)
{
	struct fixture f[2];
	struct kept kept;
	uint32_t i;

	(void)state;
	kept_init(&kept);
	for (i = 0; i < 2; i++)
		sides_make(&f[i], sides_p2p_flags, true);
	save(&f[0], &kept);
	restore(&f[0], &kept);
	sides_expect_moved(&f[0]);
	restore(&f[1], &kept);
	expect_not_restored(&f[1], ENOENT);
	for (i = 0; i < 2; i++)
		sides_drop(&f[i]);
	kept_release(&kept);
}

static void test_SET_5_nobody_knows_whether_it_was_taken(void **state)
{
	struct fixture f;
	struct kept kept;

	(void)state;
	kept_init(&kept);
	sides_make(&f, sides_p2p_flags, true);
	save(&f, &kept);
	kept.fail_use = -ENOTRECOVERABLE;
	restore(&f, &kept);
	assert_int_equal(f.sides[1].result, -ENOTRECOVERABLE);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_UNPROVED);
	assert_string_equal(f.sides[1].err.clause, "SET-5");
	sides_all_in(&f.sides[1], QSC_STATE_STOP);
	assert_false(f.sides[1].resumed);
	sides_drop(&f);
	kept_release(&kept);
}

static void test_SET_5_one_that_cannot_start_stays_stopped(void **state)
{
	struct fixture f;
	struct kept kept;

	(void)state;
	kept_init(&kept);
	sides_make(&f, sides_p2p_flags, true);
	save(&f, &kept);
	fake_fail(f.sides[1].fakes[2], FAKE_SET_STATE, QSC_STATE_RUNNING, 2, EIO, QSC_STATE_ERROR);
	restore(&f, &kept);
	assert_int_equal(f.sides[1].result, -EIO);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_UNPROVED);
	assert_non_null(strstr(f.sides[1].report.outcome, "what was saved counts as used"));
	assert_false(f.sides[1].resumed);
	sides_drop(&f);
	kept_release(&kept);
}

/* A transport should find it first; the engine does not rely on that. */
static void test_cut_or_altered_it_never_runs(void **state)
{
	struct fixture f;
	struct kept kept;
	size_t whole;
	size_t i;

	(void)state;
	kept_init(&kept);
	sides_make(&f, sides_p2p_flags, true);
	save(&f, &kept);
	whole = kept.size;
	for (i = 0; i < 40; i++) {
		size_t at = whole * i / 40;

		kept.size = at;
		restore(&f, &kept);
		assert_true(f.sides[1].result < 0);
		expect_not_restored(&f, -f.sides[1].result);
		kept.size = whole;
		kept.bytes[at] ^= 0x10;
		restore(&f, &kept);
		assert_true(f.sides[1].result < 0);
		expect_not_restored(&f, -f.sides[1].result);
		kept.bytes[at] ^= 0x10;
	}
	assert_false(kept.used);
	restore(&f, &kept);
	sides_expect_moved(&f);
	sides_drop(&f);
	kept_release(&kept);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_save_and_restore),
		cmocka_unit_test(test_what_cannot_be_saved_stays),
		cmocka_unit_test(test_SET_5_nobody_knows_whether_it_was_saved),
		cmocka_unit_test(test_what_was_not_taken_over_can_be_tried_again),
		cmocka_unit_test(test_SET_5_it_is_restored_once),
		cmocka_unit_test(test_SET_5_nobody_knows_whether_it_was_taken),
		cmocka_unit_test(test_SET_5_one_that_cannot_start_stays_stopped),
		cmocka_unit_test(test_cut_or_altered_it_never_runs),
	};

	return cmocka_run_group_tests_name("kept", tests, NULL, NULL);
}
