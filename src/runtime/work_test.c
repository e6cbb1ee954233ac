/* SPDX-License-Identifier: MIT */
/* Unit tests of work in the thread of a register access: where it is done, and where it is not. */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include <quiesce/runtime.h>

#define ASKED_IOVA 0x10000ULL

enum order { NOTHING, LEAVE_REST, ASK };

struct worker {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	enum order order; /* to work_here(), from the thread that writes the register */
	_Atomic unsigned int here, elsewhere;
	_Atomic bool inside; /* one of them runs */
	_Atomic unsigned int overlaps;
	_Atomic bool blocks; /* work() does not return before `release` */
	int asked;	     /* what the DMA in work_here() answered */
	int read;	     /* … and in work() */
	sem_t worked;
	sem_t blocked;
	sem_t release;
};

static void reset(void *ctx)
{
}

static void enter(struct worker *worker)
{
	if (atomic_exchange(&worker->inside, true))
		atomic_fetch_add(&worker->overlaps, 1);
}

static enum qsc_work work(void *ctx, uint32_t number)
{
	struct worker *worker = ctx;
	char byte;

	enter(worker);
	worker->read = qsc_dma_read(worker->rt, ASKED_IOVA, &byte, 1);
	atomic_fetch_add(&worker->elsewhere, 1);
	atomic_store(&worker->inside, false);
	sem_post(&worker->worked);
	if (atomic_load(&worker->blocks)) {
		sem_post(&worker->blocked);
		sem_wait(&worker->release);
	}
	return QSC_WORK_IDLE;
}

static enum qsc_work work_here(void *ctx, uint32_t number)
{
	struct worker *worker = ctx;
	char byte;

	enter(worker);
	if (worker->order == ASK)
		worker->asked = qsc_dma_read(worker->rt, ASKED_IOVA, &byte, 1);
	atomic_fetch_add(&worker->here, 1);
	atomic_store(&worker->inside, false);
	return worker->order == LEAVE_REST ? QSC_WORK_AGAIN : QSC_WORK_IDLE;
}

static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	memset(buf, 0, count);
	return 0;
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct worker *worker = ctx;

	qsc_work_try(worker->rt, 0);
	qsc_work_try(worker->rt, 1); /* there is none */
	return 0;
}

static const struct qsc_model model = {
	.type = "worker",
	.workers = 1,
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.work = work,
	.work_here = work_here,
};

static int asked_read(void *ctx, uint64_t iova, void *buf, size_t size)
{
	memset(buf, 0, size);
	return 0;
}

static int asked_write(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	return 0;
}

static void begin(struct worker *worker)
{
	static const struct qsc_dma_access access = {asked_read, asked_write, NULL};
	const struct qsc_region_desc region = {
		0, 4096, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK};
	const struct qsc_runtime_options options = {
		.migration_flags = 7, .regions = &region, .num_regions = 1};
	const struct qsc_dma_mapping mapping = {.iova = ASKED_IOVA,
						.size = 4096,
						.flags = QSC_DMA_READ | QSC_DMA_WRITE,
						.fd = -1,
						.access = &access};

	memset(worker, 0, sizeof(*worker));
	sem_init(&worker->worked, 0, 0);
	sem_init(&worker->blocked, 0, 0);
	sem_init(&worker->release, 0, 0);
	assert_int_equal(qsc_runtime_create(&model, worker, &options, &worker->rt, NULL), 0);
	assert_int_equal(qsc_runtime_open(worker->rt, &worker->dev), 0);
	assert_int_equal(qsc_device_dma_map(worker->dev, &mapping), 0);
	/* The kick at the start of the device. */
	sem_wait(&worker->worked);
}

static void ring(struct worker *worker, enum order order)
{
	uint32_t value = 0;

	worker->order = order;
	assert_int_equal(qsc_device_region_write(worker->dev, 0, 0, &value, 4), 4);
}

static void end(struct worker *worker)
{
	qsc_device_close(worker->dev);
	qsc_runtime_destroy(worker->rt);
	assert_int_equal(atomic_load(&worker->overlaps), 0);
	sem_destroy(&worker->worked);
	sem_destroy(&worker->blocked);
	sem_destroy(&worker->release);
}

static void test_done_by_who_rings(void **unused)
{
	struct worker worker;
	unsigned int before;
	unsigned int here;

	begin(&worker);
	/* As soon as the thread has nothing left to do, nothing wakes it. */
	do {
		before = atomic_load(&worker.elsewhere);
		here = atomic_load(&worker.here);
		for (int i = 0; i < 10; i++)
			ring(&worker, NOTHING);
	} while (atomic_load(&worker.elsewhere) != before ||
		 atomic_load(&worker.here) != here + 10);
	/* What it leaves is done by the thread. */
	while (sem_trywait(&worker.worked) == 0)
		;
	ring(&worker, LEAVE_REST);
	sem_wait(&worker.worked);
	end(&worker);
}

static void test_asks_nobody(void **unused)
{
	struct worker worker;

	begin(&worker);
	while (!worker.asked)
		ring(&worker, ASK);
	assert_int_equal(worker.asked, -EAGAIN);
	sem_wait(&worker.worked);
	assert_int_equal(worker.read, 0);
	end(&worker);
}

/* While work() runs, it is called again afterwards instead. */
static void test_never_twice_at_once(void **unused)
{
	struct worker worker;
	unsigned int here;

	begin(&worker);
	atomic_store(&worker.blocks, true);
	ring(&worker, LEAVE_REST);
	sem_wait(&worker.blocked);
	while (sem_trywait(&worker.worked) == 0)
		;
	here = atomic_load(&worker.here);
	ring(&worker, NOTHING);
	assert_int_equal(atomic_load(&worker.here), here);
	atomic_store(&worker.blocks, false);
	sem_post(&worker.release);
	sem_wait(&worker.worked);
	end(&worker);
}

struct ringer {
	struct worker *worker;
	pthread_t thread;
};

static void *ring_often(void *arg)
{
	struct ringer *ringer = arg;
	uint32_t value = 0;

	for (int i = 0; i < 2000; i++)
		(void)qsc_device_region_write(ringer->worker->dev, 0, 0, &value, 4);
	return NULL;
}

/* Several ring at once, while the device stops and starts. */
static void test_rung_by_many(void **unused)
{
	struct worker worker;
	struct ringer ringers[3];
	uint64_t session;

	begin(&worker);
	worker.order = LEAVE_REST;
	for (int i = 0; i < 3; i++) {
		ringers[i].worker = &worker;
		assert_int_equal(pthread_create(&ringers[i].thread, NULL, ring_often, &ringers[i]),
				 0);
	}
	for (int i = 0; i < 100; i++) {
		assert_int_equal(qsc_device_set_state(worker.dev, QSC_STATE_STOP, &session), 0);
		assert_int_equal(qsc_device_set_state(worker.dev, QSC_STATE_RUNNING, &session), 0);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(ringers[i].thread, NULL);
	/* No ring was lost: one more is answered. */
	while (sem_trywait(&worker.worked) == 0)
		;
	ring(&worker, LEAVE_REST);
	sem_wait(&worker.worked);
	end(&worker);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_done_by_who_rings),
		cmocka_unit_test(test_asks_nobody),
		cmocka_unit_test(test_never_twice_at_once),
		cmocka_unit_test(test_rung_by_many),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
