/* SPDX-License-Identifier: MIT */
/*
 * Quiescing by revoking (SET-3, SET-4), with real engines behind real servers: a dmacopy without
 * P2P copies into the memory of another one. Whatever is outstanding when its mapping is taken away
 * is done or fails cleanly, nothing arrives from then on, and what failed is done by its driver's
 * repetition when the mapping is back.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/client.h>
#include <quiesce/server.h>
#include <quiesce/set.h>

#include "base/cleanup.h"
#include "dmacopy/dmacopy.h"
#include "dmacopy/driver.h"

/* Memory that is reached by asking is read and written by the client for the engine. */
const char *__tsan_default_suppressions(void); /* NOLINT(bugprone-reserved-identifier) */
const char *__tsan_default_suppressions(void)  /* NOLINT(bugprone-reserved-identifier) */
{
	return "race:^qsc_client_on_command$\n";
}

#define MEMORY_IOVA 0x40000000ULL
#define PEER_IOVA   0x80000000ULL
#define LENGTH	    (128U << 10) /* two pieces of an engine */
#define TRANSFERS   8U
#define ENTRIES	    32U
#define DATA_OFFSET 0x10000ULL
#define LOCAL_SIZE  ((uint64_t)TRANSFERS * LENGTH)
#define MEMORY_SIZE (DATA_OFFSET + LOCAL_SIZE)

struct engine {
	struct dmacopy_options options;
	struct qsc_server_options server;
	int fd;
	pthread_t thread;
	struct qsc_runtime *rt;
	struct qsc_device *dev;
};

struct rig {
	struct engine engines[2]; /* the first copies into the second */
	struct qsc_set *set;
	int memfd;
	uint8_t *memory;
	struct dmacopy_queue *queue;
	const uint8_t *local; /* the second one's memory, where it is */
	uint8_t seen[LOCAL_SIZE];
	unsigned int faults;
};

static int open_engine(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct engine *engine = ctx;
	int result = dmacopy_create(&engine->options, &engine->rt, err);

	return result < 0 ? result : qsc_runtime_open(engine->rt, dev);
}

static void *serve(void *arg)
{
	struct engine *engine = arg;

	(void)qsc_server_serve_fd(&engine->server, engine->fd);
	return NULL;
}

static void make_engine(struct rig *rig, uint32_t index, uint32_t flags, bool manual, bool no_fds)
{
	const struct qsc_client_options client = {.no_fds = no_fds};
	const struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = rig->memory,
		.fd = rig->memfd,
	};
	struct engine *engine = &rig->engines[index];
	struct qsc_error err = QSC_ERROR_NONE;
	int sockets[2];

	engine->options = (struct dmacopy_options){
		.migration_flags = flags,
		.local_size = LOCAL_SIZE,
		.manual = manual,
		.destroy_on_close = true,
	};
	engine->server = (struct qsc_server_options){.open = open_engine, .open_ctx = engine};
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets), 0);
	engine->fd = sockets[0];
	assert_int_equal(pthread_create(&engine->thread, NULL, serve, engine), 0);
	if (qsc_client_open_fd(sockets[1], &client, &engine->dev, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(qsc_set_add(rig->set, index ? "target" : "copier", engine->dev, &err),
			 index);
	assert_int_equal(qsc_set_dma_map(rig->set, index, &mapping, &err), 0);
}

static void make(struct rig *rig, bool manual, bool no_fds)
{
	const struct qsc_peer_mapping peer = {
		.iova = PEER_IOVA,
		.size = LOCAL_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.peer = 1,
		.region = DMACOPY_BAR_LOCAL,
	};
	struct qsc_set_plan plan;

	memset(rig, 0, sizeof(*rig));
	rig->memfd = memfd_create("memory", MFD_CLOEXEC);
	assert_true(rig->memfd >= 0);
	assert_int_equal(ftruncate(rig->memfd, MEMORY_SIZE), 0);
	rig->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
	assert_true(rig->memory != MAP_FAILED);
	rig->queue = (struct dmacopy_queue *)(void *)rig->memory;
	assert_int_equal(qsc_set_create(NULL, NULL, &rig->set), 0);
	make_engine(rig, 0, QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_PRE_COPY, manual, no_fds);
	make_engine(rig, 1, QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY,
		    false, no_fds);
	rig->local = qsc_block_data(rig->engines[1].rt, 0);
	assert_int_equal(qsc_set_map_peer(rig->set, 0, &peer, NULL), 0);
	assert_int_equal(qsc_set_plan(rig->set, QSC_QUIESCE_NATIVE, &plan, NULL), -EOPNOTSUPP);
	assert_int_equal(qsc_set_plan(rig->set, QSC_QUIESCE_AUTO, &plan, NULL), 0);
	assert_int_equal(plan.strategy, QSC_QUIESCE_REVOKE);
	assert_int_equal(plan.revoked_mappings, 1);
	assert_int_equal(
		dmacopy_driver_start(rig->engines[0].dev, rig->queue, MEMORY_IOVA, ENTRIES), 0);
}

static void drop(struct rig *rig)
{
	uint32_t i;

	qsc_set_destroy(rig->set);
	for (i = 0; i < 2; i++)
		qsc_device_close(rig->engines[i].dev);
	for (i = 0; i < 2; i++)
		assert_int_equal(pthread_join(rig->engines[i].thread, NULL), 0);
	munmap(rig->memory, MEMORY_SIZE);
	close(rig->memfd);
}

/* ---- the driver ---- */

static void submit(struct rig *rig, uint64_t number, uint64_t done)
{
	const struct dmacopy_transfer transfer = {
		.length = LENGTH - (uint32_t)done,
		.source = MEMORY_IOVA + DATA_OFFSET + number * LENGTH + done,
		.destination = PEER_IOVA + number * LENGTH + done,
		.cookie = number << 32 | done,
	};

	assert_int_equal(dmacopy_driver_submit(rig->queue, &transfer), 0);
}

/*
 * What the engine and this thread both touch is ordered by OWN, which the thread sanitizer does not
 * see; nor does it leave memcpy() and memcmp() alone in a function that is not to be looked at.
 */
DMACOPY_SEES_DMA
static void take(uint8_t *to, const uint8_t *from, size_t size)
{
	for (size_t i = 0; i < size; i++)
		*(volatile uint8_t *)&to[i] = *(const volatile uint8_t *)&from[i];
}

DMACOPY_SEES_DMA
static bool same(const uint8_t *a, const uint8_t *b, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (*(const volatile uint8_t *)&a[i] != *(const volatile uint8_t *)&b[i])
			return false;
	return true;
}

/* A new pattern for every round, so that what an earlier one left is not taken for it. */
DMACOPY_SEES_DMA
static void submit_all(struct rig *rig, uint32_t round)
{
	uint64_t i;

	for (i = 0; i < LOCAL_SIZE; i++)
		*(volatile uint8_t *)&rig->memory[DATA_OFFSET + i] =
			(uint8_t)(i / 4096 + i + 17 * (round + 1));
	for (i = 0; i < TRANSFERS; i++)
		submit(rig, i, 0);
	assert_int_equal(dmacopy_driver_doorbell(rig->engines[0].dev), 0);
}

/* Until the engine, which runs on, has nothing left to do. */
static void settle(struct rig *rig)
{
	if (rig->engines[0].options.manual)
		while (qsc_runtime_step(rig->engines[0].rt, 0))
			;
	else
		while (!dmacopy_driver_complete(rig->queue, rig->queue->submitted - 1))
			sched_yield();
	/* They end in any order. */
	for (uint64_t i = rig->queue->reaped; i < rig->queue->submitted; i++)
		while (!dmacopy_driver_complete(rig->queue, i))
			sched_yield();
}

/*
 * What completed is at the peer, what failed says how far it came, and is submitted again. How many
 * are.
 */
static unsigned int reap(struct rig *rig)
{
	struct dmacopy_completion completion;
	unsigned int again = 0;

	while (dmacopy_driver_reap(rig->queue, &completion)) {
		uint64_t number = completion.cookie >> 32;
		uint64_t done = (uint32_t)completion.cookie + completion.bytes_done;

		assert_true(same(rig->local + number * LENGTH,
				 rig->memory + DATA_OFFSET + number * LENGTH, done));
		if (completion.status == DMACOPY_DONE_OK) {
			assert_int_equal(done, LENGTH);
			continue;
		}
		assert_int_equal(completion.status, DMACOPY_DONE_FAULT);
		assert_true(done < LENGTH);
		submit(rig, number, done);
		again++;
	}
	return again;
}

/* ---- one stop with something outstanding ---- */

enum depth { QUIESCE_ONLY, STOP_COPY, STOP };

static void stop_in_the_middle(struct rig *rig, enum depth depth)
{
	struct qsc_error err = QSC_ERROR_NONE;
	enum qsc_state state;
	unsigned int again;

	if (qsc_set_quiesce(rig->set, &err) < 0)
		fail_msg("%s", err.text);
	/* The copier runs on, and nothing of what it still does arrives. */
	assert_int_equal(qsc_device_get_state(rig->engines[0].dev, &state), 0);
	assert_int_equal(state, QSC_STATE_RUNNING);
	assert_int_equal(qsc_set_reach(rig->set, 0, 1, NULL, 0), 1);
	take(rig->seen, rig->local, LOCAL_SIZE);
	settle(rig);
	assert_true(same(rig->seen, rig->local, LOCAL_SIZE));
	if (depth >= STOP_COPY)
		assert_int_equal(qsc_set_stop_copy(rig->set, &err), 0);
	if (depth >= STOP)
		assert_int_equal(qsc_set_stop(rig->set, &err), 0);
	if (qsc_set_run(rig->set, &err) < 0)
		fail_msg("%s", err.text);
	again = reap(rig);
	rig->faults += again;
	if (!again)
		return;
	assert_int_equal(dmacopy_driver_doorbell(rig->engines[0].dev), 0);
	settle(rig);
	assert_int_equal(reap(rig), 0);
	assert_true(same(rig->local, rig->memory + DATA_OFFSET, LOCAL_SIZE));
}

/* Revoked after every number of steps of the engine, from none to all. */
static void at_every_step(bool no_fds)
{
	bool all_done = false;
	struct rig rig;
	uint32_t steps;

	make(&rig, true, no_fds);
	for (steps = 0; !all_done; steps++) {
		unsigned int before = rig.faults;
		uint32_t i;

		submit_all(&rig, steps);
		for (i = 0; i < steps && !all_done; i++)
			all_done = !qsc_runtime_step(rig.engines[0].rt, i);
		stop_in_the_middle(&rig, (enum depth)(steps % 3));
		/* None of them had begun, or none was left. */
		if (steps == 0)
			assert_int_equal(rig.faults, TRANSFERS);
		if (all_done)
			assert_int_equal(rig.faults, before);
	}
	/* In between some were done and others failed. */
	assert_true(steps > TRANSFERS && rig.faults > TRANSFERS);
	assert_true(rig.faults < steps * TRANSFERS);
	drop(&rig);
}

static void test_SET_3_revoked_at_every_step(void **state)
{
	(void)state;
	at_every_step(false);
}

static void test_SET_3_revoked_at_every_step_without_fds(void **state)
{
	(void)state;
	at_every_step(true);
}

/* The same while the engine's threads are in the midst of it, wherever that is. */
static void under_way(bool no_fds)
{
	struct rig rig;
	uint32_t round;

	make(&rig, false, no_fds);
	for (round = 0; round < 30; round++) {
		submit_all(&rig, round);
		stop_in_the_middle(&rig, (enum depth)(round % 3));
	}
	drop(&rig);
}

static void test_SET_4_revoked_while_it_copies(void **state)
{
	(void)state;
	under_way(false);
}

static void test_SET_4_revoked_while_it_copies_without_fds(void **state)
{
	(void)state;
	under_way(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_SET_3_revoked_at_every_step),
		cmocka_unit_test(test_SET_3_revoked_at_every_step_without_fds),
		cmocka_unit_test(test_SET_4_revoked_while_it_copies),
		cmocka_unit_test(test_SET_4_revoked_while_it_copies_without_fds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
