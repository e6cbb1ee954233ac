/* SPDX-License-Identifier: MIT */
/* See work.h. */
#include "runtime/work.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "runtime/dma.h"

static void free_doorbells(struct qsc_workers *workers)
{
	uint32_t i;

	for (i = 0; workers->doorbells && i < workers->num_doorbells; i++)
		qsc_fd_close(&workers->doorbells[i].fd);
	free(workers->doorbells);
}

static int make_doorbells(struct qsc_workers *workers, const struct qsc_runtime_options *options)
{
	uint32_t i;

	workers->num_doorbells = options->num_doorbells;
	workers->doorbells = calloc(options->num_doorbells + 1, sizeof(struct qsc_doorbell));
	if (!workers->doorbells)
		return -ENOMEM;
	for (i = 0; i < options->num_doorbells; i++)
		workers->doorbells[i].fd = -1;
	for (i = 0; i < options->num_doorbells; i++) {
		workers->doorbells[i].desc = options->doorbells[i];
		workers->doorbells[i].fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (workers->doorbells[i].fd < 0)
			return -errno;
	}
	return 0;
}

int qsc_workers_init(struct qsc_workers *workers, const struct qsc_model *model, void *ctx,
		     const struct qsc_runtime_options *options)
{
	uint32_t i;
	int result;

	memset(workers, 0, sizeof(*workers));
	workers->model = model;
	workers->ctx = ctx;
	workers->manual = options->manual;
	workers->end_fd = -1;
	workers->doorbell_set = -1;
	result = make_doorbells(workers, options);
	if (result < 0)
		goto fail;
	result = -ENOMEM;
	workers->num_workers = model->workers;
	workers->workers = aligned_alloc(_Alignof(struct qsc_worker),
					 (model->workers + 1) * sizeof(struct qsc_worker));
	if (!workers->workers)
		goto fail;
	memset(workers->workers, 0, (model->workers + 1) * sizeof(struct qsc_worker));
	for (i = 0; i < model->workers; i++) {
		struct qsc_worker *worker = &workers->workers[i];

		worker->workers = workers;
		worker->number = i;
		pthread_mutex_init(&worker->lock, NULL);
		pthread_cond_init(&worker->kicked, NULL);
	}
	qsc_gate_init(&workers->gate);
	return 0;
fail:
	free_doorbells(workers);
	return result;
}

/* One call of work(). False when the gate does not let it through. */
static bool work_once(struct qsc_worker *worker)
{
	struct qsc_workers *workers = worker->workers;
	struct qsc_gate_pass pass = {NULL};
	enum qsc_gate_mode mode = qsc_gate_enter(&workers->gate, &pass);

	if (mode == QSC_GATE_CLOSED)
		return false;
	if (mode == QSC_GATE_OPEN &&
	    workers->model->work(workers->ctx, worker->number) == QSC_WORK_AGAIN)
		atomic_store(&worker->due, true);
	qsc_gate_leave(&workers->gate, &pass);
	return mode == QSC_GATE_OPEN;
}

static void *run_worker(void *arg)
{
	struct qsc_worker *worker = arg;
	struct qsc_workers *workers = worker->workers;

	while (!atomic_load(&workers->ending)) {
		if (atomic_load(&worker->due) && !atomic_exchange(&worker->running, true)) {
			/* Refused, it is dropped: everybody is kicked when the gate opens. */
			if (atomic_exchange(&worker->due, false))
				(void)work_once(worker);
			atomic_store(&worker->running, false);
			continue;
		}
		pthread_mutex_lock(&worker->lock);
		worker->asleep = true;
		while ((!atomic_load(&worker->due) || atomic_load(&worker->running)) &&
		       !atomic_load(&workers->ending))
			pthread_cond_wait(&worker->kicked, &worker->lock);
		worker->asleep = false;
		pthread_mutex_unlock(&worker->lock);
	}
	return NULL;
}

static void wake(struct qsc_worker *worker)
{
	pthread_mutex_lock(&worker->lock);
	if (worker->asleep)
		pthread_cond_signal(&worker->kicked);
	pthread_mutex_unlock(&worker->lock);
}

void qsc_workers_kick(struct qsc_workers *workers, uint32_t number)
{
	struct qsc_worker *worker;

	if (number >= workers->num_workers)
		return;
	worker = &workers->workers[number];
	/* An exchange and not a look: it orders what the model wrote before the worker's look. */
	if (atomic_exchange(&worker->due, true) || workers->manual)
		return;
	/* Whoever is running looks at `due` after that. */
	if (!atomic_load(&worker->running))
		wake(worker);
}

void qsc_workers_try(struct qsc_workers *workers, uint32_t number)
{
	struct qsc_gate_pass pass = {NULL};
	struct qsc_worker *worker;
	enum qsc_gate_mode mode;

	if (number >= workers->num_workers)
		return;
	worker = &workers->workers[number];
	if (workers->manual || !workers->model->work_here ||
	    atomic_exchange(&worker->running, true)) {
		qsc_workers_kick(workers, number);
		return;
	}
	/* The access is inside the gate already: it cannot have to wait for itself. */
	mode = qsc_gate_enter(&workers->gate, &pass);
	if (mode == QSC_GATE_OPEN) {
		qsc_dma_forbid_asking();
		if (workers->model->work_here(workers->ctx, number) == QSC_WORK_AGAIN)
			atomic_store(&worker->due, true);
		if (qsc_dma_permit_asking())
			atomic_store(&worker->due, true);
	}
	if (mode != QSC_GATE_CLOSED)
		qsc_gate_leave(&workers->gate, &pass);
	atomic_store(&worker->running, false);
	if (atomic_load(&worker->due))
		wake(worker);
}

void qsc_workers_kick_all(struct qsc_workers *workers)
{
	uint32_t i;

	for (i = 0; i < workers->num_workers; i++)
		qsc_workers_kick(workers, i);
}

/* ---- doorbells ---- */

/*
 * The signal is taken only inside the gate: one that the gate refuses stays in the eventfd for the
 * state change to answer or drop.
 */
static bool answer_doorbell(struct qsc_workers *workers, struct qsc_doorbell *doorbell)
{
	static const uint64_t zero;
	struct qsc_gate_pass pass = {NULL};
	bool rung;

	if (qsc_gate_enter(&workers->gate, &pass) == QSC_GATE_CLOSED)
		return false;
	rung = qsc_eventfd_drain(doorbell->fd) != 0;
	if (rung)
		(void)workers->model->region_write(workers->ctx, doorbell->desc.region,
						   doorbell->desc.offset, &zero,
						   doorbell->desc.width);
	qsc_gate_leave(&workers->gate, &pass);
	return rung;
}

void qsc_workers_answer_doorbells(struct qsc_workers *workers)
{
	uint32_t i;

	for (i = 0; i < workers->num_doorbells; i++)
		(void)answer_doorbell(workers, &workers->doorbells[i]);
}

void qsc_workers_drop_doorbells(struct qsc_workers *workers)
{
	uint32_t i;

	for (i = 0; i < workers->num_doorbells; i++)
		(void)qsc_eventfd_drain(workers->doorbells[i].fd);
}

/*
 * Edge-triggered: a signal that the gate refused is seen once, and the thread sleeps again while it
 * lies in the eventfd.
 */
static int watch_doorbell(struct qsc_workers *workers, uint32_t number, int fd)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u32 = number};

	return epoll_ctl(workers->doorbell_set, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

int qsc_workers_renew_doorbells(struct qsc_workers *workers)
{
	uint32_t i;

	if (!atomic_load(&workers->given_out))
		return 0;
	for (i = 0; i < workers->num_doorbells; i++) {
		struct qsc_doorbell *doorbell = &workers->doorbells[i];
		qsc_autoclose int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		int result = 0;
		int old;

		if (fd < 0)
			return -errno;
		if (workers->has_doorbell_thread)
			result = watch_doorbell(workers, i, fd);
		if (result < 0)
			return result;
		/* Closing alone would leave it watched: somebody else has a duplicate. */
		if (workers->has_doorbell_thread)
			(void)epoll_ctl(workers->doorbell_set, EPOLL_CTL_DEL, doorbell->fd, NULL);
		old = doorbell->fd;
		doorbell->fd = qsc_fd_steal(&fd);
		fd = old;
	}
	atomic_store(&workers->given_out, false);
	return 0;
}

static void *run_doorbells(void *arg)
{
	struct qsc_workers *workers = arg;
	struct epoll_event event;

	while (!atomic_load(&workers->ending)) {
		if (epoll_wait(workers->doorbell_set, &event, 1, -1) == 1 &&
		    event.data.u32 < workers->num_doorbells)
			(void)answer_doorbell(workers, &workers->doorbells[event.data.u32]);
	}
	return NULL;
}

static int watch_doorbells(struct qsc_workers *workers)
{
	uint32_t i;

	workers->doorbell_set = epoll_create1(EPOLL_CLOEXEC);
	workers->end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (workers->doorbell_set < 0 || workers->end_fd < 0)
		return -errno;
	for (i = 0; i <= workers->num_doorbells; i++) {
		int fd = i < workers->num_doorbells ? workers->doorbells[i].fd : workers->end_fd;
		int result = watch_doorbell(workers, i, fd);

		if (result < 0)
			return result;
	}
	return 0;
}

/* ---- threads ---- */

static void end_threads(struct qsc_workers *workers)
{
	uint32_t i;

	atomic_store(&workers->ending, true);
	for (i = 0; i < workers->num_threads; i++) {
		struct qsc_worker *worker = &workers->workers[i];

		pthread_mutex_lock(&worker->lock);
		pthread_cond_signal(&worker->kicked);
		pthread_mutex_unlock(&worker->lock);
		pthread_join(worker->thread, NULL);
	}
	workers->num_threads = 0;
	if (workers->has_doorbell_thread) {
		(void)qsc_eventfd_signal(workers->end_fd, 1);
		pthread_join(workers->doorbell_thread, NULL);
	}
	workers->has_doorbell_thread = false;
}

static int start_threads(struct qsc_workers *workers)
{
	int result = 0;

	while (!result && workers->num_threads < workers->num_workers) {
		struct qsc_worker *worker = &workers->workers[workers->num_threads];

		result = -pthread_create(&worker->thread, NULL, run_worker, worker);
		if (!result)
			workers->num_threads++;
	}
	if (!result && workers->num_doorbells) {
		result = watch_doorbells(workers);
		if (!result)
			result = -pthread_create(&workers->doorbell_thread, NULL, run_doorbells,
						 workers);
		workers->has_doorbell_thread = !result;
	}
	return result;
}

int qsc_workers_start(struct qsc_workers *workers)
{
	sigset_t signals;
	sigset_t before;
	int result;

	if (workers->manual)
		return 0;
	/* The program's signals are for its own threads; faults must arrive where they happen. */
	sigfillset(&signals);
	sigdelset(&signals, SIGBUS);
	sigdelset(&signals, SIGSEGV);
	sigdelset(&signals, SIGILL);
	sigdelset(&signals, SIGFPE);
	sigdelset(&signals, SIGTRAP);
	pthread_sigmask(SIG_SETMASK, &signals, &before);
	result = start_threads(workers);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result < 0)
		end_threads(workers);
	return result;
}

void qsc_workers_destroy(struct qsc_workers *workers)
{
	uint32_t i;

	end_threads(workers);
	for (i = 0; i < workers->num_workers; i++) {
		pthread_cond_destroy(&workers->workers[i].kicked);
		pthread_mutex_destroy(&workers->workers[i].lock);
	}
	free(workers->workers);
	qsc_fd_close(&workers->end_fd);
	qsc_fd_close(&workers->doorbell_set);
	free_doorbells(workers);
	qsc_gate_destroy(&workers->gate);
}

/* ---- manual mode ---- */

bool qsc_workers_step(struct qsc_workers *workers, uint64_t pick)
{
	uint32_t pending[QSC_MAX_WORKERS + QSC_MAX_DOORBELLS];
	uint32_t count = 0;
	uint32_t i;

	for (i = 0; i < workers->num_workers; i++) {
		if (qsc_gate_mode(&workers->gate) == QSC_GATE_OPEN &&
		    atomic_load(&workers->workers[i].due))
			pending[count++] = i;
	}
	for (i = 0; i < workers->num_doorbells; i++) {
		struct pollfd fd = {.fd = workers->doorbells[i].fd, .events = POLLIN};

		if (poll(&fd, 1, 0) == 1)
			pending[count++] = workers->num_workers + i;
	}
	if (!count)
		return false;
	i = pending[pick % count];
	if (i >= workers->num_workers)
		return answer_doorbell(workers, &workers->doorbells[i - workers->num_workers]);
	return atomic_exchange(&workers->workers[i].due, false) && work_once(&workers->workers[i]);
}
