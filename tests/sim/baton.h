/* SPDX-License-Identifier: MIT */
/*
 * A deterministic scheduler: tasks are threads that pass a baton, so exactly one runs at a time,
 * and at every switch a seeded generator picks who goes on. The clock is virtual; it moves by a
 * microsecond a switch and jumps when everybody waits. The same seed gives the same run.
 */
#ifndef SIM_BATON_H
#define SIM_BATON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>

#define SIM_FOR_EVER UINT64_MAX

/* Begin a run. Nothing of an earlier one may be left. */
void sim_sched_begin(uint64_t seed);

/* A task that runs side by side with the others. */
void sim_spawn(void (*body)(void *arg), void *arg);

/* Run until all tasks have returned. False when all of them waited for one another for ever. */
bool sim_sched_run(void);

/* ---- called by tasks ---- */

/* Somebody else, or the caller, goes on. */
void sim_yield(void);

/* Until ready(arg), or for at most that long. True when it is ready. */
bool sim_wait(bool (*ready)(void *arg), void *arg, uint64_t timeout_us);

void sim_sleep(uint64_t us);

uint64_t sim_now(void);

/* The run's random numbers, below `limit`; from tasks and between runs. */
uint64_t sim_random(uint64_t limit);

/* Put something that happened into the run's record; runs with equal records are equal. */
void sim_note(uint64_t what, uint64_t detail);
uint64_t sim_record(void);

/* The environment of the engine. */
struct sim_env {
	struct qsc_env env;
	uint32_t fail_parallel; /* the so many-th time there are no threads; 0: never */
	bool parallel_failed;
};
void sim_env_init(struct sim_env *env);

#endif
