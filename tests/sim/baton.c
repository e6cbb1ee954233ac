/* SPDX-License-Identifier: MIT */
/* See baton.h. */
#include "baton.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>

#define MAX_TASKS 64

/* A thread that is kept from run to run; it is free when it has no task. */
struct task {
	pthread_t thread;
	bool made;
	bool alive;
	sem_t baton;
	void (*body)(void *arg);
	void *arg;
	bool (*ready)(void *arg); /* NULL: can go on at once */
	void *ready_arg;
	uint64_t deadline;
};

static struct task tasks[MAX_TASKS];
static struct task *current;
static sem_t all_done;
static bool stuck;
static uint64_t now_us;
static uint64_t random_state;
static uint64_t record;

/* ---- numbers ---- */

static uint64_t mix(uint64_t value)
{
	value ^= value >> 30;
	value *= 0xbf58476d1ce4e5b9ULL;
	value ^= value >> 27;
	value *= 0x94d049bb133111ebULL;
	return value ^ value >> 31;
}

uint64_t sim_random(uint64_t limit)
{
	random_state += 0x9e3779b97f4a7c15ULL;
	return limit ? mix(random_state) % limit : 0;
}

void sim_note(uint64_t what, uint64_t detail)
{
	record = mix(record ^ mix(what * 31 + detail + now_us * 0x9e3779b97f4a7c15ULL));
}

uint64_t sim_record(void)
{
	return record;
}

uint64_t sim_now(void)
{
	return now_us;
}

/* ---- choosing ---- */

static bool can_go_on(const struct task *task)
{
	return task->alive &&
	       (!task->ready || task->deadline <= now_us || task->ready(task->ready_arg));
}

/* Who goes on, or NULL when nobody ever will. */
static struct task *choose(void)
{
	struct task *able[MAX_TASKS];
	uint64_t earliest;
	size_t count;
	size_t i;

	for (;;) {
		count = 0;
		earliest = SIM_FOR_EVER;
		for (i = 0; i < MAX_TASKS; i++) {
			if (can_go_on(&tasks[i]))
				able[count++] = &tasks[i];
			else if (tasks[i].alive && tasks[i].deadline < earliest)
				earliest = tasks[i].deadline;
		}
		if (count)
			break;
		if (earliest == SIM_FOR_EVER)
			return NULL;
		now_us = earliest;
	}
	now_us++;
	return able[sim_random(count)];
}

/* Pass the baton. The caller gets it back when it is chosen again; never when it has ended. */
static void pass_on(struct task *from)
{
	struct task *next = choose();
	/* Once the baton is given away, an ended task's place may be taken by another one. */
	bool comes_back = from->alive;

	if (next == from)
		return;
	if (!next) {
		size_t i;

		/* Either all have ended, or those left would wait for ever: nobody runs again. */
		for (i = 0; i < MAX_TASKS; i++)
			stuck |= tasks[i].alive;
		sem_post(&all_done);
	} else {
		current = next;
		sem_post(&next->baton);
	}
	if (comes_back)
		while (sem_wait(&from->baton) < 0)
			;
}

static void *run_tasks(void *arg)
{
	struct task *task = arg;

	for (;;) {
		while (sem_wait(&task->baton) < 0)
			;
		task->body(task->arg);
		task->alive = false;
		pass_on(task);
	}
	return NULL;
}

void sim_spawn(void (*body)(void *arg), void *arg)
{
	struct task *task = tasks;

	while (task < tasks + MAX_TASKS && task->alive)
		task++;
	if (task == tasks + MAX_TASKS)
		abort();
	task->body = body;
	task->arg = arg;
	task->ready = NULL;
	task->deadline = SIM_FOR_EVER;
	task->alive = true;
	if (task->made)
		return;
	sem_init(&task->baton, 0, 0);
	if (pthread_create(&task->thread, NULL, run_tasks, task) != 0)
		abort();
	task->made = true;
}

void sim_sched_begin(uint64_t seed)
{
	random_state = mix(seed + 1);
	record = 0;
	now_us = 1000;
	stuck = false;
}

bool sim_sched_run(void)
{
	sem_init(&all_done, 0, 0);
	current = choose();
	sem_post(&current->baton);
	while (sem_wait(&all_done) < 0)
		;
	return !stuck;
}

/* ---- waiting ---- */

void sim_yield(void)
{
	current->ready = NULL;
	pass_on(current);
}

bool sim_wait(bool (*ready)(void *arg), void *arg, uint64_t timeout_us)
{
	struct task *self = current;

	self->ready = ready;
	self->ready_arg = arg;
	self->deadline = timeout_us == SIM_FOR_EVER ? SIM_FOR_EVER : now_us + timeout_us;
	pass_on(self);
	self->ready = NULL;
	self->deadline = SIM_FOR_EVER;
	return ready(arg);
}

static bool never(void *arg)
{
	return false;
}

void sim_sleep(uint64_t us)
{
	(void)sim_wait(never, NULL, us);
}

/* ---- the environment ---- */

struct join {
	void (*task)(void *arg);
	void *arg;
	size_t *left;
};

static void run_joined(void *arg)
{
	struct join *join = arg;

	join->task(join->arg);
	--*join->left;
}

static bool all_joined(void *arg)
{
	return *(size_t *)arg == 0;
}

static uint64_t env_now(void *ctx)
{
	return now_us;
}

static int env_parallel(void *ctx, void (*task)(void *arg), void *const args[], size_t count)
{
	struct sim_env *env = ctx;
	struct join *joins;
	size_t left = count;
	size_t i;

	if (env->fail_parallel && --env->fail_parallel == 0) {
		env->parallel_failed = true;
		return -EAGAIN;
	}
	if (!count)
		return 0;
	joins = calloc(count, sizeof(*joins));
	if (!joins)
		abort();
	for (i = 0; i < count; i++) {
		joins[i] = (struct join){task, args[i], &left};
		sim_spawn(run_joined, &joins[i]);
	}
	(void)sim_wait(all_joined, &left, SIM_FOR_EVER);
	free(joins);
	return 0;
}

static void env_sleep(void *ctx, uint64_t us)
{
	sim_sleep(us);
}

void sim_env_init(struct sim_env *env)
{
	env->env = (struct qsc_env){env_now, env_parallel, env_sleep, env};
}
