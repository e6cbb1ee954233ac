/* SPDX-License-Identifier: MIT */
/*
 * Both sides of the engine over real UNIX sockets, each in a thread, with scripted devices: what
 * arrives, what a failure of any step leaves on either side, and peers that are no peers.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/migrate.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "migrate/frame.h"
#include "set/fake.h"

#define MEMBERS	   3
#define PAGES	   300
#define STATE_SIZE 100000
#define USER_STATE "the tenant's own state"

struct side {
	struct qsc_set *set;
	struct qsc_timeline *timeline;
	struct fake *fakes[MEMBERS];
	uint8_t *memory;
	struct qsc_memory_region region;
	struct qsc_migrate_user user;
	struct qsc_migrate_options options;
	struct qsc_migrate_report report;
	struct qsc_error err;
	struct qsc_transport *transport;
	int result;
	/* What the user's callbacks saw and do. */
	bool paused;
	bool resumed;
	bool loaded;
	bool irqs_in_stop;
	uint32_t collects;
	int fail_pause, fail_load, fail_irqs, fail_resume;
	uint32_t cancel_after; /* calls of progress; 0: never */
	_Atomic(bool) finished;
	struct fixture *fixture;
};

struct fixture {
	struct fake_world world;
	struct order_set shape;
	struct side sides[2];
	char path[64];
};

static int on_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	struct side *side = ctx;

	/* Between the passes the user writes a page of its own. */
	if (side->collects++ == 1) {
		memset(side->memory + 7 * QSC_PAGE_SIZE, 0x77, QSC_PAGE_SIZE);
		qsc_bitmap_set(bitmap, 7);
	}
	return 0;
}

static int on_pause(void *ctx)
{
	struct side *side = ctx;

	side->paused = true;
	return side->fail_pause;
}

static int on_stopped(void *ctx)
{
	struct side *side = ctx;
	uint32_t i;

	/* A device wrote last of all, seen by its log only. */
	memset(side->memory + 9 * QSC_PAGE_SIZE, 0x99, QSC_PAGE_SIZE);
	for (i = 0; i < MEMBERS; i++)
		side->fakes[i]->dirty_iova = side->region.address + 9 * QSC_PAGE_SIZE;
	return 0;
}

static ssize_t on_save(void *ctx, void *buf, size_t max)
{
	memcpy(buf, USER_STATE, sizeof(USER_STATE));
	return sizeof(USER_STATE);
}

static int on_load(void *ctx, const void *buf, size_t size)
{
	struct side *side = ctx;

	side->loaded = size == sizeof(USER_STATE) && memcmp(buf, USER_STATE, size) == 0;
	return side->fail_load;
}

static int on_irqs(void *ctx)
{
	struct side *side = ctx;
	uint32_t i;

	side->irqs_in_stop = true;
	for (i = 0; i < MEMBERS; i++)
		side->irqs_in_stop &= side->fakes[i]->state == QSC_STATE_STOP;
	return side->fail_irqs;
}

static int on_resume(void *ctx)
{
	struct side *side = ctx;

	side->resumed = true;
	return side->fail_resume;
}

static int on_progress(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct side *side = ctx;

	if (side->cancel_after && --side->cancel_after == 0)
		return 1;
	/* A source that ended before it connected would be waited for. */
	return strcmp(progress->phase, "negotiate") == 0 && side->fixture->sides[0].finished;
}

static void make_side(struct fixture *f, uint32_t index, const uint32_t *flags, bool dirty_log)
{
	static const char *const names[] = {"nic", "disk", "gpu"};
	struct side *side = &f->sides[index];
	uint32_t i;

	side->fixture = f;
	side->memory = aligned_alloc(QSC_PAGE_SIZE, PAGES * QSC_PAGE_SIZE);
	assert_non_null(side->memory);
	memset(side->memory, index ? 0xee : 0, PAGES * QSC_PAGE_SIZE);
	for (i = 0; !index && i < PAGES; i += 3)
		memset(side->memory + i * QSC_PAGE_SIZE, (int)i + 1, QSC_PAGE_SIZE);
	side->region = (struct qsc_memory_region){0x100000, PAGES * QSC_PAGE_SIZE, side->memory};
	side->user = (struct qsc_migrate_user){
		.regions = &side->region,
		.num_regions = 1,
		.dirty = on_dirty,
		.pause = on_pause,
		.stopped = on_stopped,
		.save = on_save,
		.load = on_load,
		.setup_irqs = on_irqs,
		.resume = on_resume,
		.ctx = side,
	};
	assert_int_equal(qsc_timeline_create(&side->timeline), 0);
	side->options = (struct qsc_migrate_options){
		.timeline = side->timeline,
		.stall_timeout_ms = 5000,
		.progress = on_progress,
		.progress_ctx = side,
	};
	assert_int_equal(qsc_set_create(NULL, side->timeline, &side->set), 0);
	for (i = 0; i < MEMBERS; i++) {
		const struct fake_options options = {
			.side = index,
			.member = i,
			.flags = flags[i],
			.dirty_log = dirty_log,
			.state_bytes = STATE_SIZE + i,
			.seed = index ? 1000 : i + 1,
		};

		side->fakes[i] = fake_new(&f->world, &options);
		assert_int_equal(qsc_set_add(side->set, names[i], &side->fakes[i]->base, NULL), i);
		f->shape.flags[i] = flags[i];
	}
	f->shape.members = MEMBERS;
}

static void make(struct fixture *f, const uint32_t *flags, bool dirty_log)
{
	struct qsc_error err = QSC_ERROR_NONE;

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->world.lock, NULL);
	make_side(f, 0, flags, dirty_log);
	make_side(f, 1, flags, dirty_log);
	(void)snprintf(f->path, sizeof(f->path), "/tmp/quiesce-migrate-test-%d", getpid());
	assert_int_equal(qsc_transport_unix_listen(f->path, &f->sides[1].transport, &err), 0);
	assert_int_equal(qsc_transport_unix_connect(f->path, &f->sides[0].transport, &err), 0);
}

static void drop(struct fixture *f)
{
	uint32_t i;
	uint32_t m;

	for (i = 0; i < 2; i++) {
		struct side *side = &f->sides[i];

		qsc_transport_close(side->transport);
		qsc_set_destroy(side->set);
		qsc_timeline_destroy(side->timeline);
		for (m = 0; m < MEMBERS; m++)
			fake_free(side->fakes[m]);
		free(side->memory);
	}
}

static void *run_destination(void *arg)
{
	struct side *side = arg;

	side->result = qsc_migrate_receive(side->set, &side->user, side->transport, &side->options,
					   &side->report, &side->err);
	/* Connections that nobody accepted end with it. */
	qsc_transport_close(side->transport);
	side->transport = NULL;
	return NULL;
}

static void migrate(struct fixture *f)
{
	struct side *source = &f->sides[0];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, run_destination, &f->sides[1]), 0);
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
}

static int judge(struct fixture *f)
{
	size_t where;

	return order_check(&f->shape, f->world.events, f->world.count, &where);
}

static void all_in(const struct side *side, enum qsc_state state)
{
	uint32_t i;

	for (i = 0; i < MEMBERS; i++)
		assert_int_equal(side->fakes[i]->state, state);
}

static void expect_moved(struct fixture *f)
{
	struct side *source = &f->sides[0];
	struct side *target = &f->sides[1];
	uint32_t i;

	if (source->result || target->result)
		print_error("source: %s\ndestination: %s\n", source->err.text, target->err.text);
	assert_int_equal(source->result, 0);
	assert_int_equal(target->result, 0);
	assert_int_equal(source->err.number, 0);
	assert_int_equal(target->err.number, 0);
	assert_int_equal(source->report.owner, QSC_OWNER_DESTINATION);
	assert_int_equal(target->report.owner, QSC_OWNER_DESTINATION);
	all_in(source, QSC_STATE_STOP);
	all_in(target, QSC_STATE_RUNNING);
	assert_memory_equal(source->memory, target->memory, PAGES * QSC_PAGE_SIZE);
	for (i = 0; i < MEMBERS; i++) {
		assert_true(fake_holds(target->fakes[i], i + 1));
		assert_false(source->fakes[i]->logging);
	}
	assert_true(source->paused);
	assert_false(source->resumed);
	assert_true(target->loaded && target->irqs_in_stop && target->resumed);
	assert_int_equal(judge(f), -1);
}

/* Nothing is lost: the source goes on as if nothing had been. */
static void expect_source_goes_on(struct fixture *f, int number)
{
	struct side *source = &f->sides[0];
	struct side *target = &f->sides[1];
	uint32_t i;

	assert_int_equal(source->result, -number);
	assert_true(target->result < 0);
	assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
	all_in(source, QSC_STATE_RUNNING);
	assert_int_equal(source->resumed, source->paused && !source->fail_pause);
	assert_false(target->resumed);
	assert_true(strlen(source->report.outcome) > 0);
	for (i = 0; i < MEMBERS; i++) {
		assert_true(fake_holds(source->fakes[i], i + 1));
		assert_false(source->fakes[i]->logging);
		assert_false(fake_holds(target->fakes[i], i + 1));
	}
	assert_int_equal(judge(f), -1);
}

static const uint32_t p2p_flags[] = {7, 7, 7};
static const uint32_t mixed_flags[] = {7, 1, 3};

/* ---- it moves ---- */

/* A transport whose first wait for a source finds nobody. */
struct late_transport {
	struct qsc_transport transport;
	struct qsc_transport *inner;
	bool waited;
};

static int late_open(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		     struct qsc_error *err)
{
	struct late_transport *late = (struct late_transport *)transport;

	if (!late->waited) {
		late->waited = true;
		return qsc_error_set(err, ETIMEDOUT, NULL, "nobody connected");
	}
	return late->inner->ops->open(late->inner, timeout_ms, ch, err);
}

static void late_close(struct qsc_transport *transport)
{
	qsc_transport_close(((struct late_transport *)transport)->inner);
}

static void test_waiting_for_a_late_source_is_no_error(void **state)
{
	static const struct qsc_transport_ops ops = {"late", 0, late_open, late_close};
	struct late_transport late = {.transport = {&ops}};
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	late.inner = f.sides[1].transport;
	f.sides[1].transport = &late.transport;
	migrate(&f);
	assert_true(late.waited);
	expect_moved(&f);
	drop(&f);
}

static void test_moves_with_every_kind_of_device(void **state)
{
	static const uint32_t sets[] = {1, 3, 5, 7};
	uint32_t i;

	(void)state;
	for (i = 0; i < 16; i++) {
		const uint32_t flags[] = {sets[i % 4], sets[i / 4], 7};
		struct fixture f;

		make(&f, flags, true);
		f.sides[0].options.channels = i % 6;
		f.sides[0].options.no_precopy = i == 15;
		migrate(&f);
		expect_moved(&f);
		assert_int_equal(f.sides[0].report.device_bytes, 3 * STATE_SIZE + 3);
		drop(&f);
	}
}

static void test_ORD_7_untracked_memory_is_sent_after_the_stop(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, false);
	migrate(&f);
	expect_moved(&f);
	/* Pages of zeroes are not sent as bytes, the others once, all of them stopped. */
	assert_true(f.sides[0].report.stop_bytes >= (uint64_t)PAGES / 3 * QSC_PAGE_SIZE);
	drop(&f);
}

/* Member 1 of mixed_flags, which has no P2P states, reaches member 0. */
static void make_reaching(struct fixture *f)
{
	const struct qsc_peer_mapping mapping = {
		.iova = 0x40000000, .size = 4096, .flags = QSC_DMA_WRITE, .region = 2};
	uint32_t i;

	make(f, mixed_flags, true);
	for (i = 0; i < 2; i++)
		assert_int_equal(qsc_set_map_peer(f->sides[i].set, 1, &mapping, NULL), 0);
}

static void test_revoked_mappings_survive_a_move(void **state)
{
	struct fixture f;
	uint32_t i;

	(void)state;
	make_reaching(&f);
	for (i = 0; i < 2; i++)
		f.sides[i].options.quiesce = QSC_QUIESCE_AUTO;
	migrate(&f);
	expect_moved(&f);
	drop(&f);
}

static void test_SET_3_nothing_is_revoked_unasked(void **state)
{
	struct fixture f;
	size_t mapped;

	(void)state;
	make_reaching(&f);
	mapped = f.world.count;
	migrate(&f);
	expect_source_goes_on(&f, EOPNOTSUPP);
	assert_string_equal(f.sides[0].err.clause, "SET-3");
	assert_int_equal(f.world.count, mapped);
	drop(&f);
	/* A destination that was not told to may refuse as well. */
	make_reaching(&f);
	f.sides[0].options.quiesce = QSC_QUIESCE_REVOKE;
	migrate(&f);
	expect_source_goes_on(&f, EOPNOTSUPP);
	assert_int_equal(f.world.count, mapped);
	drop(&f);
}

static void test_timeline_and_report_add_up(void **state)
{
	static const char *const wanted[] = {"negotiate", "log-start", "precopy", "quiesce",
					     "stop",	  "stop-copy", "commit"};
	const struct qsc_phase *phases;
	struct fixture f;
	size_t count;
	size_t i;
	size_t j;

	(void)state;
	make(&f, p2p_flags, true);
	migrate(&f);
	expect_moved(&f);
	count = qsc_timeline_phases(f.sides[0].timeline, &phases);
	for (i = 0; i < QSC_ARRAY_SIZE(wanted); i++) {
		for (j = 0; j < count && strcmp(phases[j].name, wanted[i]) != 0; j++)
			;
		assert_true(j < count);
	}
	assert_true(f.sides[0].report.passes >= 1);
	assert_true(f.sides[0].report.downtime_us <= f.sides[0].report.total_us);
	assert_int_equal(f.sides[0].report.memory_bytes, f.sides[1].report.memory_bytes);
	assert_int_equal(f.sides[0].report.device_bytes, f.sides[1].report.device_bytes);
	drop(&f);
}

/* ---- it does not, and the source goes on ---- */

static void test_differences_are_listed_at_once(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	f.sides[1].fakes[0]->options.bar_bytes = 4096;
	f.sides[1].region.address += QSC_PAGE_SIZE;
	migrate(&f);
	expect_source_goes_on(&f, EMEDIUMTYPE);
	assert_non_null(strstr(f.sides[0].err.text, "region 2 of 'nic' has 0x2000 bytes there"));
	assert_non_null(strstr(f.sides[0].err.text, "memory region 0"));
	assert_int_equal(f.world.count, 0);
	drop(&f);
}

static void test_any_failing_call_before_commit(void **state)
{
	static const struct {
		uint32_t side;
		enum fake_call call;
		uint32_t target;
		int nth;
	} cases[] = {
		{0, FAKE_LOG_START, UINT32_MAX, 1},
		{0, FAKE_LOG_REPORT, UINT32_MAX, 1},
		{0, FAKE_LOG_REPORT, UINT32_MAX, 2},
		{0, FAKE_SET_STATE, QSC_STATE_PRE_COPY, 1},
		{0, FAKE_SET_STATE, QSC_STATE_PRE_COPY_P2P, 1},
		{0, FAKE_SET_STATE, QSC_STATE_STOP_COPY, 1},
		{0, FAKE_SESSION_READ, UINT32_MAX, 1},
		{0, FAKE_SESSION_READ, UINT32_MAX, 3},
		{1, FAKE_SET_STATE, QSC_STATE_RESUMING, 1},
		{1, FAKE_SESSION_WRITE, UINT32_MAX, 1},
		{1, FAKE_SESSION_WRITE, UINT32_MAX, 2},
		{1, FAKE_SET_STATE, QSC_STATE_STOP, 2},
	};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct fixture f;

		make(&f, p2p_flags, true);
		fake_fail(f.sides[cases[i].side].fakes[1], cases[i].call, cases[i].target,
			  cases[i].nth, EIO, -1);
		migrate(&f);
		if (f.sides[0].result != -EIO)
			print_error("case %zu: %s\n", i, f.sides[0].err.text);
		expect_source_goes_on(&f, EIO);
		assert_non_null(strstr(f.sides[0].err.text, "'disk'"));
		drop(&f);
	}
}

static void test_user_callbacks_may_refuse(void **state)
{
	uint32_t i;

	(void)state;
	for (i = 0; i < 3; i++) {
		struct fixture f;

		make(&f, mixed_flags, true);
		f.sides[0].fail_pause = i == 0 ? -ENOMEM : 0;
		f.sides[1].fail_load = i == 1 ? -ENOMEM : 0;
		f.sides[1].fail_irqs = i == 2 ? -ENOMEM : 0;
		migrate(&f);
		expect_source_goes_on(&f, ENOMEM);
		drop(&f);
	}
}

static void test_cancel_at_any_step_on_either_side(void **state)
{
	uint32_t side;
	uint32_t step;

	(void)state;
	for (side = 0; side < 2; side++) {
		for (step = 1; step < 40; step++) {
			struct fixture f;
			bool cancelled;

			make(&f, p2p_flags, true);
			f.sides[side].cancel_after = step;
			migrate(&f);
			cancelled = f.sides[side].result == -ECANCELED;
			if (cancelled)
				expect_source_goes_on(&f,
						      f.sides[0].result ? -f.sides[0].result : 0);
			else
				expect_moved(&f);
			drop(&f);
			if (!cancelled)
				break;
		}
		assert_true(step > 3 && step < 40);
	}
}

/* The destination takes longer to load than the source waits for it. */
static int wait_for_the_source_to_end(void *ctx, const void *buf, size_t size)
{
	struct side *side = ctx;

	while (!side->fixture->sides[0].finished)
		(void)usleep(1000);
	return 0;
}

static void test_a_source_that_waits_no_longer_says_so(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	f.sides[0].options.stall_timeout_ms = 1000;
	f.sides[1].user.load = wait_for_the_source_to_end;
	migrate(&f);
	expect_source_goes_on(&f, ETIMEDOUT);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
	assert_non_null(strstr(f.sides[1].err.text, "the source failed: waiting for READY"));
	drop(&f);
}

static void test_SET_5_destination_that_cannot_start_leaves_both_stopped(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	fake_fail(f.sides[1].fakes[2], FAKE_SET_STATE, QSC_STATE_RUNNING, 1, EIO, QSC_STATE_ERROR);
	migrate(&f);
	assert_int_equal(f.sides[0].result, -EIO);
	assert_string_equal(f.sides[0].err.clause, "SET-5");
	assert_non_null(strstr(f.sides[0].err.text, "'gpu'"));
	assert_int_equal(f.sides[0].report.owner, QSC_OWNER_UNPROVED);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_UNPROVED);
	all_in(&f.sides[0], QSC_STATE_STOP_COPY);
	assert_false(f.sides[0].resumed || f.sides[1].resumed);
	assert_int_equal(judge(&f), -1);
	drop(&f);
}

static void test_a_device_lost_at_the_source_is_said(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	fake_fail(f.sides[0].fakes[0], FAKE_SET_STATE, QSC_STATE_STOP_COPY, 1, EIO,
		  QSC_STATE_ERROR);
	migrate(&f);
	assert_int_equal(f.sides[0].result, -EIO);
	assert_string_equal(f.sides[0].err.clause, "ORD-8");
	assert_non_null(strstr(f.sides[0].err.text, "'nic' is in ERROR"));
	assert_int_equal(f.sides[0].fakes[0]->resets, 0);
	assert_false(f.sides[0].resumed);
	assert_int_equal(judge(&f), -1);
	drop(&f);
}

static int get_no_state(struct qsc_device *dev, enum qsc_state *state)
{
	return -ENOTCONN;
}

/* A way to the destination on which a device of the source fails, and that leads nowhere. */
struct deadly_transport {
	struct qsc_transport transport;
	struct fake *fake;
	const struct qsc_device_ops *ops; /* NULL: it goes to ERROR */
};

static int deadly_open(struct qsc_transport *transport, uint32_t timeout_ms,
		       struct qsc_channel **ch, struct qsc_error *err)
{
	struct deadly_transport *deadly = (struct deadly_transport *)transport;

	if (deadly->ops)
		deadly->fake->base.ops = deadly->ops;
	else
		deadly->fake->state = QSC_STATE_ERROR;
	return qsc_error_set(err, ECONNREFUSED, NULL, "nobody listens");
}

static void test_ORD_4_the_source_says_what_runs(void **state)
{
	static const struct qsc_transport_ops ops = {"deadly", 0, deadly_open, NULL};
	static const char *const wanted[] = {"'disk' is in ERROR", "'disk' does not tell its state",
					     "'disk' is in STOP"};
	uint32_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(wanted); i++) {
		struct fixture f;
		struct side *source = &f.sides[0];
		struct qsc_device_ops mute;
		struct deadly_transport deadly = {.transport = {&ops}};

		make(&f, p2p_flags, true);
		mute = *source->fakes[1]->base.ops;
		mute.get_state = get_no_state;
		deadly.fake = source->fakes[1];
		deadly.ops = i == 1 ? &mute : NULL;
		source->fakes[1]->state = i == 2 ? QSC_STATE_STOP : QSC_STATE_RUNNING;
		source->result = qsc_migrate_send(source->set, &source->user, &deadly.transport,
						  &source->options, &source->report, &source->err);
		assert_int_equal(source->result, i == 2 ? -EBUSY : -ECONNREFUSED);
		assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
		assert_non_null(strstr(source->report.outcome, wanted[i]));
		assert_non_null(strstr(source->report.outcome, "not all of the source's devices"));
		assert_false(source->resumed);
		drop(&f);
	}
}

static void test_a_device_gone_is_not_said_to_refuse(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	fake_fail(f.sides[1].fakes[0], FAKE_SESSION_WRITE, UINT32_MAX, 1, ENOTCONN, -1);
	migrate(&f);
	expect_source_goes_on(&f, ENOTCONN);
	assert_non_null(strstr(f.sides[1].err.text, "'nic' is gone"));
	assert_non_null(strstr(f.sides[0].err.text, "'nic' is gone"));
	drop(&f);
}

/* ---- peers that are none ---- */

static int stranger(const char *path, const void *bytes, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
	return fd;
}

static void test_strangers_do_not_kill_a_migration(void **state)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .index = 5,
				  .arg = QSC_FRAME_VERSION,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 4};
	uint8_t header[QSC_FRAME_SIZE];
	struct fixture f;
	int fds[40];
	uint32_t i;

	(void)state;
	make(&f, p2p_flags, true);
	hello.digest = qsc_frame_digest(&hello, NULL);
	qsc_frame_encode(&hello, header);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++) {
		if (i % 8 == 0)
			fds[i] = stranger(f.path, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n...",
					  41);
		else if (i % 8 == 1)
			fds[i] = stranger(f.path, header, sizeof(header));
		else if (i % 8 == 2)
			fds[i] = stranger(f.path, header, sizeof(header) - 1);
		else
			fds[i] = stranger(f.path, "", 0);
	}
	migrate(&f);
	expect_moved(&f);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		qsc_fd_close(&fds[i]);
	drop(&f);
}

static int claim(const char *path, uint64_t id, uint32_t channels)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .arg = QSC_FRAME_VERSION,
				  .offset = id,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | channels};
	uint8_t header[QSC_FRAME_SIZE];

	hello.digest = qsc_frame_digest(&hello, NULL);
	qsc_frame_encode(&hello, header);
	return stranger(path, header, sizeof(header));
}

static void test_silent_claims_do_not_keep_the_source_away(void **state)
{
	struct fixture f;
	int fds[20];
	uint32_t i;

	(void)state;
	make(&f, p2p_flags, true);
	/* More than are remembered, and one that repeats itself. */
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		fds[i] = claim(f.path, i == 19 ? 18 : i, i % 2 ? 64 : 2);
	migrate(&f);
	expect_moved(&f);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		qsc_fd_close(&fds[i]);
	drop(&f);
}

static void test_a_source_that_does_not_connect_fully_is_told(void **state)
{
	struct qsc_frame frame;
	uint8_t header[QSC_FRAME_SIZE];
	struct fixture f;
	int fd;

	(void)state;
	make(&f, p2p_flags, true);
	f.sides[1].options.stall_timeout_ms = 100;
	fd = claim(f.path, 7, 64);
	run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
	assert_non_null(strstr(f.sides[1].err.text, "1 of 64 connections"));
	assert_int_equal(recv(fd, header, sizeof(header), MSG_WAITALL), sizeof(header));
	assert_int_equal(qsc_frame_decode(header, &frame), 0);
	assert_int_equal(frame.type, QSC_FRAME_ANSWER);
	assert_int_equal(frame.arg, ETIMEDOUT);
	qsc_fd_close(&fd);
	drop(&f);
}

static void test_other_version_is_told(void **state)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .arg = 2U << 16,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 1};
	uint8_t header[QSC_FRAME_SIZE];
	struct fixture f;
	int fd;

	(void)state;
	make(&f, p2p_flags, true);
	hello.digest = qsc_frame_digest(&hello, NULL);
	qsc_frame_encode(&hello, header);
	fd = stranger(f.path, header, sizeof(header));
	run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -EPROTONOSUPPORT);
	assert_non_null(strstr(f.sides[1].err.text, "2.0"));
	assert_int_equal(recv(fd, header, sizeof(header), MSG_WAITALL), sizeof(header));
	assert_int_equal(qsc_frame_decode(header, &hello), 0);
	assert_int_equal(hello.type, QSC_FRAME_FAILED);
	qsc_fd_close(&fd);
	drop(&f);
}

static void test_nobody_there_is_said_at_once(void **state)
{
	struct fixture f;

	(void)state;
	make(&f, p2p_flags, true);
	f.sides[1].options.stall_timeout_ms = 1;
	run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	f.sides[0].result = qsc_migrate_send(f.sides[0].set, &f.sides[0].user, f.sides[0].transport,
					     &f.sides[0].options, &f.sides[0].report,
					     &f.sides[0].err);
	expect_source_goes_on(&f, ENOENT);
	assert_int_equal(f.world.count, 0);
	drop(&f);
}

static void test_listener_replaces_stale_but_not_live_socket(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport;
	struct stat info;
	char path[64];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	(void)snprintf(path, sizeof(path), "/tmp/quiesce-stale-test-%d", getpid());
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(qsc_transport_unix_listen(path, &transport, &err), -EADDRINUSE);
	qsc_fd_close(&fd);
	assert_int_equal(qsc_transport_unix_listen(path, &transport, &err), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0077, 0);
	qsc_transport_close(transport);
	assert_int_equal(stat(path, &info), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_waiting_for_a_late_source_is_no_error),
		cmocka_unit_test(test_moves_with_every_kind_of_device),
		cmocka_unit_test(test_ORD_7_untracked_memory_is_sent_after_the_stop),
		cmocka_unit_test(test_revoked_mappings_survive_a_move),
		cmocka_unit_test(test_SET_3_nothing_is_revoked_unasked),
		cmocka_unit_test(test_timeline_and_report_add_up),
		cmocka_unit_test(test_differences_are_listed_at_once),
		cmocka_unit_test(test_any_failing_call_before_commit),
		cmocka_unit_test(test_user_callbacks_may_refuse),
		cmocka_unit_test(test_cancel_at_any_step_on_either_side),
		cmocka_unit_test(test_a_source_that_waits_no_longer_says_so),
		cmocka_unit_test(test_SET_5_destination_that_cannot_start_leaves_both_stopped),
		cmocka_unit_test(test_a_device_lost_at_the_source_is_said),
		cmocka_unit_test(test_ORD_4_the_source_says_what_runs),
		cmocka_unit_test(test_a_device_gone_is_not_said_to_refuse),
		cmocka_unit_test(test_strangers_do_not_kill_a_migration),
		cmocka_unit_test(test_silent_claims_do_not_keep_the_source_away),
		cmocka_unit_test(test_a_source_that_does_not_connect_fully_is_told),
		cmocka_unit_test(test_other_version_is_told),
		cmocka_unit_test(test_nobody_there_is_said_at_once),
		cmocka_unit_test(test_listener_replaces_stale_but_not_live_socket),
	};

	return cmocka_run_group_tests_name("migrate", tests, NULL, NULL);
}
