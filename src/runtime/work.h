/* SPDX-License-Identifier: MIT */
/*
 * When a model's callbacks run: the gate that all of them pass, the worker threads that call work()
 * when they were kicked, and the doorbells that a user rings by eventfd. In manual mode there are
 * no threads, and qsc_workers_step() does one unit of what is due.
 */
#ifndef QSC_RUNTIME_WORK_H
#define QSC_RUNTIME_WORK_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "base/gate.h"

#define QSC_MAX_WORKERS	  64U
#define QSC_MAX_DOORBELLS 256U

struct qsc_workers;

struct qsc_worker {
	_Alignas(64) _Atomic bool due;
	_Atomic bool running; /* somebody is in its work(), or in its work_here() */
	struct qsc_workers *workers;
	uint32_t number;
	bool asleep; /* under lock */
	pthread_mutex_t lock;
	pthread_cond_t kicked;
	pthread_t thread;
};

struct qsc_doorbell {
	struct qsc_doorbell_desc desc;
	int fd;
};

struct qsc_workers {
	/* OPEN_SOME: accesses by the user and by peers, but no work(). */
	struct qsc_gate gate;
	const struct qsc_model *model;
	void *ctx;
	struct qsc_worker *workers;
	struct qsc_doorbell *doorbells;
	pthread_t doorbell_thread;
	uint32_t num_workers;
	uint32_t num_threads; /* of the workers, that were started */
	uint32_t num_doorbells;
	int doorbell_set; /* epoll of the doorbells and end_fd */
	int end_fd;
	_Atomic bool ending;
	_Atomic bool given_out; /* somebody was given eventfds of the doorbells */
	bool manual;
	bool has_doorbell_thread;
};

/* Gate closed, no thread yet. -errno, and then nothing is to be destroyed. */
int qsc_workers_init(struct qsc_workers *workers, const struct qsc_model *model, void *ctx,
		     const struct qsc_runtime_options *options);
/* Start the threads, unless manual. -errno: none is left running. */
int qsc_workers_start(struct qsc_workers *workers);
/* End the threads. */
void qsc_workers_destroy(struct qsc_workers *workers);

void qsc_workers_kick(struct qsc_workers *workers, uint32_t number);
/* See qsc_work_try(). */
void qsc_workers_try(struct qsc_workers *workers, uint32_t number);
void qsc_workers_kick_all(struct qsc_workers *workers);

/* Bring the doorbells that were rung to the model, or drop them. */
void qsc_workers_answer_doorbells(struct qsc_workers *workers);
void qsc_workers_drop_doorbells(struct qsc_workers *workers);

/*
 * Where doorbells were given out: new ones, at which nobody can ring yet. The gate is closed. On
 * failure -errno, and it may be called again.
 */
int qsc_workers_renew_doorbells(struct qsc_workers *workers);

/* See qsc_runtime_step(). */
bool qsc_workers_step(struct qsc_workers *workers, uint64_t pick);

#endif
