/* SPDX-License-Identifier: MIT */
/*
 * The real environment: the monotonic clock, and a thread for each task. All threads are made
 * before the first task starts, so that a machine that has no more threads to give changes nothing.
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

struct start {
	pthread_mutex_t lock;
	pthread_cond_t decided;
	enum { UNDECIDED, GO, GIVE_UP } decision;
};

struct job {
	struct start *start;
	void (*task)(void *arg);
	void *arg;
	pthread_t thread;
};

static void *run_job(void *arg)
{
	struct job *job = arg;
	bool go;

	pthread_mutex_lock(&job->start->lock);
	while (job->start->decision == UNDECIDED)
		pthread_cond_wait(&job->start->decided, &job->start->lock);
	go = job->start->decision == GO;
	pthread_mutex_unlock(&job->start->lock);
	if (go)
		job->task(job->arg);
	return NULL;
}

static int real_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	struct start start = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, UNDECIDED};
	qsc_autofree struct job *jobs = NULL;
	size_t made = 0;
	int result = 0;

	(void)ctx;
	if (count == 0)
		return 0;
	/* The calling thread runs the first task itself. */
	jobs = calloc(count, sizeof(*jobs));
	if (!jobs)
		return -ENOMEM;
	for (made = 1; made < count; made++) {
		jobs[made] = (struct job){.start = &start, .task = task, .arg = args[made]};
		result = -pthread_create(&jobs[made].thread, NULL, run_job, &jobs[made]);
		if (result)
			break;
	}
	pthread_mutex_lock(&start.lock);
	start.decision = result ? GIVE_UP : GO;
	pthread_cond_broadcast(&start.decided);
	pthread_mutex_unlock(&start.lock);
	if (!result)
		task(args[0]);
	while (--made > 0)
		pthread_join(jobs[made].thread, NULL);
	return result;
}

const struct qsc_env *qsc_env_real(void)
{
	static const struct qsc_env env = {real_now_us, real_parallel, real_sleep_us, NULL};

	return &env;
}
