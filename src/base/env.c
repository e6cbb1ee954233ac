/* SPDX-License-Identifier: MIT */
/*
 * The real environment: the monotonic clock, and tasks side by side in threads of their own.
 */
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include <quiesce/base.h>

#include "base/cleanup.h"

static uint64_t real_now_us(void *ctx)
{
	struct timespec now;

	(void)ctx;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

static void real_sleep_us(void *ctx, uint64_t us)
{
	struct timespec rest = {(time_t)(us / 1000000U), (long)(us % 1000000U) * 1000};

	(void)ctx;
	while (clock_nanosleep(CLOCK_MONOTONIC, 0, &rest, &rest) == EINTR)
		;
}

/*
 * Tasks and the threads that take them one after another. A few have a thread each from the
 * beginning. With many, further threads are made only when tasks are not begun fast enough without
 * them: short tasks cost no thread each, and long ones are under way side by side no later than if
 * they had. A machine that has not even the first threads to give changes nothing.
 */
#define FEW	16U
#define PACE_US 20U  /* a task is begun at least so often, as long as there are threads */
#define LOOK_US 200U /* from one look at the pace to the next: looking takes time, too */

struct crowd {
	pthread_mutex_t lock;
	pthread_cond_t decided;
	pthread_cond_t begun_all;
	enum { UNDECIDED, GO, GIVE_UP } decision;
	void (*task)(void *arg);
	void *const *args;
	size_t count;
	size_t begun;	/* tasks */
	size_t entered; /* threads that have got as far as taking tasks, and the caller */
	pthread_t *threads;
	size_t made; /* of them; the pacer's until it has ended */
};

static void *take_tasks(void *arg)
{
	struct crowd *crowd = arg;

	pthread_mutex_lock(&crowd->lock);
	while (crowd->decision == UNDECIDED)
		pthread_cond_wait(&crowd->decided, &crowd->lock);
	crowd->entered++;
	while (crowd->decision == GO && crowd->begun < crowd->count) {
		void *own = crowd->args[crowd->begun++];

		if (crowd->begun == crowd->count)
			pthread_cond_signal(&crowd->begun_all);
		pthread_mutex_unlock(&crowd->lock);
		crowd->task(own);
		pthread_mutex_lock(&crowd->lock);
	}
	pthread_mutex_unlock(&crowd->lock);
	return NULL;
}

/* Lock held. How many threads are missing for the pace, besides those on their way. */
static size_t missing(const struct crowd *crowd, uint64_t start_us)
{
	uint64_t due = qsc_min_u64((real_now_us(NULL) - start_us) / PACE_US, crowd->count);
	uint64_t soon = crowd->begun + (crowd->made + 1 - crowd->entered);

	return due > soon ? (size_t)(due - soon) : 0;
}

/* Lock held. Until every task has begun or it is time to look at the pace again. */
static void wait_a_little(struct crowd *crowd)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += LOOK_US * 1000L;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	(void)pthread_cond_clockwait(&crowd->begun_all, &crowd->lock, CLOCK_MONOTONIC, &until);
}

/* One more thread that takes tasks. */
static int add_thread(struct crowd *crowd)
{
	int result = -pthread_create(&crowd->threads[crowd->made], NULL, take_tasks, crowd);

	crowd->made += !result;
	return result;
}

/* Mind the pace until every task has begun. */
static void *keep_pace(void *arg)
{
	struct crowd *crowd = arg;
	uint64_t start_us;
	bool no_more = false;

	pthread_mutex_lock(&crowd->lock);
	while (crowd->decision == UNDECIDED)
		pthread_cond_wait(&crowd->decided, &crowd->lock);
	start_us = real_now_us(NULL);
	while (crowd->decision == GO && crowd->begun < crowd->count) {
		size_t more;

		if (no_more)
			pthread_cond_wait(&crowd->begun_all, &crowd->lock);
		else
			wait_a_little(crowd);
		more = no_more ? 0 : missing(crowd, start_us);
		pthread_mutex_unlock(&crowd->lock);
		for (; more && !no_more && crowd->made < crowd->count; more--)
			no_more = add_thread(crowd) < 0;
		pthread_mutex_lock(&crowd->lock);
	}
	pthread_mutex_unlock(&crowd->lock);
	return NULL;
}

static void decide(struct crowd *crowd, int result)
{
	pthread_mutex_lock(&crowd->lock);
	crowd->decision = result ? GIVE_UP : GO;
	pthread_cond_broadcast(&crowd->decided);
	pthread_mutex_unlock(&crowd->lock);
}

/* The calling thread is one of those that take tasks. */
static int real_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	struct crowd crowd = {
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.decided = PTHREAD_COND_INITIALIZER,
		.begun_all = PTHREAD_COND_INITIALIZER,
		.task = task,
		.args = args,
		.count = count,
	};
	size_t first = count <= FEW ? count - 1 : 1;
	qsc_autofree pthread_t *threads = NULL;
	pthread_t pacer;
	bool paced = false;
	int result = 0;

	(void)ctx;
	if (count == 0)
		return 0;
	threads = calloc(count, sizeof(*threads));
	if (!threads)
		return -ENOMEM;
	crowd.threads = threads;
	while (!result && crowd.made < first)
		result = add_thread(&crowd);
	if (!result && count > FEW) {
		result = -pthread_create(&pacer, NULL, keep_pace, &crowd);
		paced = !result;
	}
	decide(&crowd, result);
	if (!result)
		(void)take_tasks(&crowd);
	if (paced)
		pthread_join(pacer, NULL);
	while (crowd.made > 0)
		pthread_join(threads[--crowd.made], NULL);
	return result;
}

const struct qsc_env *qsc_env_real(void)
{
	static const struct qsc_env env = {real_now_us, real_parallel, real_sleep_us, NULL};

	return &env;
}
