/* SPDX-License-Identifier: MIT */
/*
 * See rpc.h: a connection's beginning and end, and the watchdog over its calls. Everything shared
 * is under one lock that is never held across a system call that can wait.
 */
#include "rpc/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "rpc/internal.h"

/* For what has come to be looked at. */
#define EXTENSION_US 1000000U

_Static_assert(QSC_RPC_CALLS == 64, "slots are bits of a word, and the low bits of a number");

static int set_timeout(int fd, int option, uint32_t ms)
{
	struct timeval time = {.tv_sec = ms / 1000, .tv_usec = (suseconds_t)(ms % 1000) * 1000};

	return setsockopt(fd, SOL_SOCKET, option, &time, sizeof(time)) < 0 ? -errno : 0;
}

/* Blocking is what the access path counts on; who made the socket may have thought otherwise. */
static int set_blocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || ((flags & O_NONBLOCK) && fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0))
		return -errno;
	return 0;
}

static void init_conds(struct qsc_rpc *rpc)
{
	pthread_condattr_t attr;
	unsigned int i;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&rpc->idle, &attr);
	pthread_cond_init(&rpc->watch, &attr);
	for (i = 0; i < QSC_RPC_CALLS; i++)
		pthread_cond_init(&rpc->turn[i], &attr);
	pthread_condattr_destroy(&attr);
}

struct timespec qsc_rpc_timespec(uint64_t us)
{
	return (struct timespec){.tv_sec = (time_t)(us / 1000000),
				 .tv_nsec = (long)(us % 1000000) * 1000};
}

void qsc_rpc_break_off(struct qsc_rpc *rpc)
{
	uint64_t waiting = rpc->waiting;

	atomic_store_explicit(&rpc->broken, true, memory_order_relaxed);
	/* A peer that said farewell sees the end of ours only when everything here has ended. */
	shutdown(rpc->fd, rpc->ended ? SHUT_RD : SHUT_RDWR);
	for (; waiting; waiting &= waiting - 1)
		pthread_cond_broadcast(&rpc->turn[__builtin_ctzll(waiting)]);
	pthread_cond_broadcast(&rpc->idle);
}

bool qsc_rpc_overdue(struct qsc_rpc *rpc, struct qsc_call *call)
{
	struct pollfd unread = {.fd = rpc->fd, .events = POLLIN};
	uint64_t now = qsc_rpc_now_us();

	if (call->done || now < call->deadline_us)
		return false;
	if (call->extended || poll(&unread, 1, 0) <= 0)
		return true;
	call->extended = true;
	call->deadline_us = now + EXTENSION_US;
	return false;
}

/* Lock held. End a connection on which a call is overdue, and say when to look again. */
static uint64_t look_after_calls(struct qsc_rpc *rpc)
{
	uint64_t next = qsc_rpc_now_us() + (uint64_t)rpc->call_timeout_ms * 1000;
	uint64_t busy = rpc->busy;
	bool expired = false;

	for (; busy; busy &= busy - 1) {
		struct qsc_call *call = rpc->calls[__builtin_ctzll(busy)];

		call->expired = qsc_rpc_overdue(rpc, call);
		expired |= call->expired;
		if (!call->done && !call->expired)
			next = qsc_min_u64(next, call->deadline_us);
	}
	if (expired)
		qsc_rpc_break_off(rpc);
	return next;
}

/* A call that begins while this sleeps is due later than this wakes. */
static void *watch(void *arg)
{
	struct qsc_rpc *rpc = arg;

	pthread_mutex_lock(&rpc->lock);
	while (!rpc->ending) {
		struct timespec until = qsc_rpc_timespec(look_after_calls(rpc));

		pthread_cond_timedwait(&rpc->watch, &rpc->lock, &until);
	}
	pthread_mutex_unlock(&rpc->lock);
	return NULL;
}

static int prepare_socket(const struct qsc_rpc_options *options)
{
	int result = set_blocking(options->fd);

	/* Less than asked for only costs time. */
	if (options->send_buffer)
		(void)setsockopt(options->fd, SOL_SOCKET, SO_SNDBUF, &options->send_buffer,
				 sizeof(options->send_buffer));
	if (!result)
		result = set_timeout(options->fd, SO_SNDTIMEO, options->message_timeout_ms);
	/* Without a callback the first receive is a wait for commands, which has no end. */
	if (!result && options->command && !options->watchdog)
		result = set_timeout(options->fd, SO_RCVTIMEO, options->call_timeout_ms);
	return result;
}

int qsc_rpc_create(const struct qsc_rpc_options *options, struct qsc_rpc **out)
{
	size_t mapped = options->max_message + options->slack;
	struct qsc_rpc *rpc = NULL;
	qsc_autoclose int fd = options->fd;
	void *buffer;
	int result = prepare_socket(options);

	if (result < 0)
		return result;
	buffer = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffer == MAP_FAILED)
		return -errno;
	rpc = calloc(1, sizeof(*rpc));
	if (!rpc) {
		munmap(buffer, mapped);
		return -ENOMEM;
	}
	rpc->mapped = mapped;
	qsc_wire_stream_init(&rpc->stream, buffer, mapped, options->max_message);
	rpc->fd = qsc_fd_steal(&fd);
	rpc->pass[0] = rpc->pass[1] = -1;
	rpc->poll = options->poll;
	rpc->call_timeout_ms = options->call_timeout_ms;
	rpc->message_timeout_ms = options->message_timeout_ms;
	rpc->max_fds = qsc_min_u64(options->max_fds, QSC_STREAM_MAX_FDS);
	rpc->receive_max = options->receive_max;
	rpc->no_command_fds = options->no_command_fds;
	rpc->command = options->command;
	rpc->ctx = options->ctx;
	pthread_mutex_init(&rpc->lock, NULL);
	init_conds(rpc);
	if (options->watchdog) {
		result = -pthread_create(&rpc->watchdog, NULL, watch, rpc);
		rpc->watching = !result;
	}
	if (result < 0)
		qsc_rpc_destroy(rpc);
	else
		*out = rpc;
	return result;
}

void qsc_rpc_close_fds(int *fds, size_t count)
{
	while (count)
		qsc_fd_close(&fds[--count]);
}

void qsc_rpc_destroy(struct qsc_rpc *rpc)
{
	unsigned int i;
	int fd;

	if (!rpc)
		return;
	if (rpc->watching) {
		pthread_mutex_lock(&rpc->lock);
		rpc->ending = true;
		pthread_cond_signal(&rpc->watch);
		pthread_mutex_unlock(&rpc->lock);
		pthread_join(rpc->watchdog, NULL);
	}
	qsc_rpc_close_fds(rpc->held_fds, rpc->num_held);
	while ((fd = qsc_wire_stream_take_any_fd(&rpc->stream)) >= 0)
		qsc_fd_close(&fd);
	qsc_fd_close(&rpc->fd);
	qsc_rpc_end_passing(rpc);
	munmap(rpc->stream.buffer, rpc->mapped);
	for (i = 0; i < QSC_RPC_CALLS; i++)
		pthread_cond_destroy(&rpc->turn[i]);
	pthread_cond_destroy(&rpc->watch);
	pthread_cond_destroy(&rpc->idle);
	pthread_mutex_destroy(&rpc->lock);
	free(rpc);
}

void qsc_rpc_set_max_message(struct qsc_rpc *rpc, uint32_t max_message)
{
	pthread_mutex_lock(&rpc->lock);
	rpc->stream.max_message = max_message;
	pthread_mutex_unlock(&rpc->lock);
}

void qsc_rpc_promise_plain(struct qsc_rpc *rpc)
{
	pthread_mutex_lock(&rpc->lock);
	rpc->promising = true;
	pthread_mutex_unlock(&rpc->lock);
}

void qsc_rpc_trust_plain(struct qsc_rpc *rpc)
{
	pthread_mutex_lock(&rpc->lock);
	rpc->trusting = true;
	pthread_mutex_unlock(&rpc->lock);
}

int qsc_rpc_set_call_timeout(struct qsc_rpc *rpc, uint32_t timeout_ms)
{
	pthread_mutex_lock(&rpc->lock);
	rpc->call_timeout_ms = timeout_ms;
	pthread_cond_signal(&rpc->watch);
	pthread_mutex_unlock(&rpc->lock);
	return 0;
}

void qsc_rpc_shutdown(struct qsc_rpc *rpc)
{
	pthread_mutex_lock(&rpc->lock);
	qsc_rpc_break_off(rpc);
	pthread_mutex_unlock(&rpc->lock);
}

bool qsc_rpc_broken(struct qsc_rpc *rpc)
{
	return atomic_load_explicit(&rpc->broken, memory_order_relaxed);
}

int qsc_rpc_wait_idle(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	struct timespec until = qsc_rpc_timespec(deadline_us);
	int result;

	rpc->idlers++;
	if (deadline_us)
		result = pthread_cond_timedwait(&rpc->idle, &rpc->lock, &until);
	else
		result = pthread_cond_wait(&rpc->idle, &rpc->lock);
	rpc->idlers--;
	return result;
}
