/* SPDX-License-Identifier: MIT */
/* See sides.h. */
#include "migrate/sides.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bitmap.h"
#include "base/cleanup.h"

#define USER_STATE "the tenant's own state"

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
	for (i = 0; i < SIDES_MEMBERS; i++)
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
	for (i = 0; i < SIDES_MEMBERS; i++)
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
	side->memory = aligned_alloc(QSC_PAGE_SIZE, SIDES_PAGES * QSC_PAGE_SIZE);
	assert_non_null(side->memory);
	memset(side->memory, index ? 0xee : 0, SIDES_PAGES * QSC_PAGE_SIZE);
	for (i = 0; !index && i < SIDES_PAGES; i += 3)
		memset(side->memory + i * QSC_PAGE_SIZE, (int)i + 1, QSC_PAGE_SIZE);
	side->region = (struct qsc_memory_region){
		.address = 0x100000, .size = SIDES_PAGES * QSC_PAGE_SIZE, .vaddr = side->memory};
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
		.stall_timeout_ms = 60000,
		/* The machine may be busy. */
		.exceed_downtime = true,
		.progress = on_progress,
		.progress_ctx = side,
	};
	assert_int_equal(qsc_set_create(NULL, side->timeline, &side->set), 0);
	for (i = 0; i < SIDES_MEMBERS; i++) {
		const struct fake_options options = {
			.side = index,
			.member = i,
			.flags = flags[i],
			.dirty_log = dirty_log,
			.state_bytes = SIDES_STATE + i,
			.seed = index ? 1000 : i + 1,
		};

		side->fakes[i] = fake_new(&f->world, &options);
		assert_int_equal(qsc_set_add(side->set, names[i], &side->fakes[i]->base, NULL), i);
		f->shape.flags[i] = flags[i];
	}
	f->shape.members = SIDES_MEMBERS;
}

void sides_make(struct fixture *f, const uint32_t *flags, bool dirty_log)
{
	static unsigned int made;
	struct qsc_error err = QSC_ERROR_NONE;

	memset(f, 0, sizeof(*f));
	pthread_mutex_init(&f->world.lock, NULL);
	make_side(f, 0, flags, dirty_log);
	make_side(f, 1, flags, dirty_log);
	(void)snprintf(f->path, sizeof(f->path), "/tmp/quiesce-migrate-test-%d-%u", getpid(),
		       made++);
	assert_int_equal(qsc_transport_unix_listen(f->path, &f->sides[1].transport, &err), 0);
	assert_int_equal(qsc_transport_unix_connect(f->path, &f->sides[0].transport, &err), 0);
}

void sides_drop(struct fixture *f)
{
	uint32_t i;
	uint32_t m;

	for (i = 0; i < 2; i++) {
		struct side *side = &f->sides[i];

		qsc_transport_close(side->transport);
		qsc_set_destroy(side->set);
		qsc_timeline_destroy(side->timeline);
		for (m = 0; m < SIDES_MEMBERS; m++)
			fake_free(side->fakes[m]);
		free(side->memory);
	}
}

void *sides_run_destination(void *arg)
{
	struct side *side = arg;

	side->result = qsc_migrate_receive(side->set, &side->user, side->transport, &side->options,
					   &side->report, &side->err);
	side->finished = true;
	/* Connections that nobody accepted end with it. */
	qsc_transport_close(side->transport);
	side->transport = NULL;
	return NULL;
}

void sides_migrate(struct fixture *f)
{
	struct side *source = &f->sides[0];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f->sides[1]), 0);
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
}

int sides_judge(struct fixture *f)
{
	size_t where;

	return order_check(&f->shape, f->world.events, f->world.count, &where);
}

void sides_all_in(const struct side *side, enum qsc_state state)
{
	uint32_t i;

	for (i = 0; i < SIDES_MEMBERS; i++)
		assert_int_equal(side->fakes[i]->state, state);
}

void sides_expect_moved(struct fixture *f)
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
	sides_all_in(source, QSC_STATE_STOP);
	sides_all_in(target, QSC_STATE_RUNNING);
	assert_memory_equal(source->memory, target->memory, SIDES_PAGES * QSC_PAGE_SIZE);
	for (i = 0; i < SIDES_MEMBERS; i++) {
		assert_true(fake_holds(target->fakes[i], i + 1));
		assert_false(source->fakes[i]->logging);
	}
	assert_true(source->paused);
	assert_false(source->resumed);
	assert_true(target->loaded && target->irqs_in_stop && target->resumed);
	assert_int_equal(sides_judge(f), -1);
}

void sides_expect_source_goes_on(struct fixture *f, int number)
{
	struct side *source = &f->sides[0];
	struct side *target = &f->sides[1];
	uint32_t i;

	assert_int_equal(source->result, -number);
	assert_true(target->result < 0);
	assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
	sides_all_in(source, QSC_STATE_RUNNING);
	assert_int_equal(source->resumed, source->paused && !source->fail_pause);
	assert_false(target->resumed);
	assert_true(strlen(source->report.outcome) > 0);
	for (i = 0; i < SIDES_MEMBERS; i++) {
		assert_true(fake_holds(source->fakes[i], i + 1));
		assert_false(source->fakes[i]->logging);
		assert_false(fake_holds(target->fakes[i], i + 1));
	}
	assert_int_equal(sides_judge(f), -1);
}

const uint32_t sides_p2p_flags[SIDES_MEMBERS] = {7, 7, 7};
const uint32_t sides_mixed_flags[SIDES_MEMBERS] = {7, 1, 3};
