/* SPDX-License-Identifier: MIT */
/*
 * Calls: a slot for each, its request, and the wait for its reply, which is to receive where nobody
 * else does.
 */
#include <errno.h>
#include <time.h>

#include "base/cleanup.h"
#include "rpc/internal.h"

/* Precise enough for deadlines, and a quarter of the cost on the access path. */
static uint64_t coarse_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/*
 * Lock held. A call that takes descriptors waits for a receive that does not, so that its reply
 * cannot come to that one.
 */
static int claim_slot(struct qsc_rpc *rpc, struct qsc_call *call, uint64_t deadline_us)
{
	int result = 0;

	rpc->taking_fds += call->max_fds != 0;
	while (!result && !qsc_rpc_broken(rpc) &&
	       (rpc->busy == UINT64_MAX || (call->max_fds && rpc->leading && rpc->plain)))
		result = qsc_rpc_wait_idle(rpc, deadline_us) ? -ETIMEDOUT : 0;
	if (!result && qsc_rpc_broken(rpc))
		result = -ENOTCONN;
	if (result < 0) {
		rpc->taking_fds -= call->max_fds != 0;
		return result;
	}
	call->slot = (unsigned int)__builtin_ctzll(~rpc->busy);
	call->id = (uint16_t)(++rpc->generation * QSC_RPC_CALLS | call->slot);
	rpc->busy |= 1ULL << call->slot;
	rpc->calls[call->slot] = call;
	return 0;
}

/* Lock held. */
static void release_slot(struct qsc_rpc *rpc, const struct qsc_call *call)
{
	bool full = rpc->busy == UINT64_MAX;

	rpc->taking_fds -= call->max_fds != 0;
	rpc->calls[call->slot] = NULL;
	rpc->busy &= ~(1ULL << call->slot);
	if (rpc->idlers && (full || !rpc->busy))
		pthread_cond_broadcast(&rpc->idle);
}

/* Lock held: sleep until the call is done, it is this one's turn to lead, or it is too late. */
static int follow(struct qsc_rpc *rpc, struct qsc_call *call, uint64_t deadline_us)
{
	struct timespec until = qsc_rpc_timespec(deadline_us);
	bool late;

	rpc->waiting |= 1ULL << call->slot;
	late = pthread_cond_timedwait(&rpc->turn[call->slot], &rpc->lock, &until) == ETIMEDOUT &&
	       qsc_rpc_overdue(rpc, call);
	if (late)
		qsc_rpc_break_off(rpc);
	rpc->waiting &= ~(1ULL << call->slot);
	return late ? -ETIMEDOUT : 0;
}

/* Lock held. Whoever receives into a call's memory must be out of it before it is given back. */
static void await_diverted(struct qsc_rpc *rpc, const struct qsc_call *call)
{
	while (call->diverted) {
		rpc->waiting |= 1ULL << call->slot;
		pthread_cond_wait(&rpc->turn[call->slot], &rpc->lock);
		rpc->waiting &= ~(1ULL << call->slot);
	}
}

/* Lock held. */
qsc_flat int await(struct qsc_rpc *rpc, struct qsc_call *call)
{
	/* The socket's own timeout serves for a first receive, and the watchdog for all of them. */
	bool timed = rpc->command && !rpc->poll && !call->until_us;
	uint64_t until = rpc->watching || timed ? 0 : call->deadline_us;
	int result = 0;

	while (!call->done && !result) {
		if (qsc_rpc_broken(rpc)) {
			result = -ENOTCONN;
		} else if (rpc->leading) {
			result = follow(rpc, call, call->deadline_us);
		} else {
			result = qsc_rpc_lead(rpc, until);
			if (result < 0)
				qsc_rpc_break_off(rpc);
			if (result == -ETIME)
				result = -ETIMEDOUT;
		}
		until = rpc->watching ? 0 : call->deadline_us;
	}
	if (call->expired)
		result = -ETIMEDOUT;
	await_diverted(rpc, call);
	if (!rpc->leading)
		qsc_rpc_promote(rpc);
	return call->done ? 0 : result;
}

/* Lock held. */
qsc_flat int begin(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		   const int *fds, size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = qsc_rpc_total_size(iov, iovcnt),
					      .fds = fds,
					      .num_fds = num_fds};
	int result;

	call->deadline_us = coarse_now_us() + (uint64_t)rpc->call_timeout_ms * 1000;
	if (call->until_us)
		call->deadline_us = qsc_min_u64(call->deadline_us, call->until_us);
	result = claim_slot(rpc, call, call->deadline_us);
	if (result < 0)
		return result;
	qsc_rpc_await_turn(rpc);
	qsc_rpc_fill_header(iov, output.size, call->id, call->command, qsc_rpc_promise(rpc));
	result = qsc_rpc_send_message(rpc, &output);
	if (result < 0) {
		qsc_rpc_break_off(rpc);
		if (call->expired)
			result = -ETIMEDOUT;
		/* A peer may answer a request of which it has not seen the end. */
		await_diverted(rpc, call);
		release_slot(rpc, call);
	}
	return result;
}

/*
 * Lock held, which is let go of meanwhile. The peer may be in a receive that loses descriptors: its
 * reply to a command that promises nothing shows that the next one will not.
 */
static int take_back_promise(struct qsc_rpc *rpc)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_info info;
	} request = {.info = {.argsz = sizeof(request.info)}};
	struct qsc_wire_info reply;
	struct qsc_call call = {.command = QSC_WIRE_GET_INFO,
				.min_size = sizeof(reply),
				.fixed = &reply,
				.fixed_size = sizeof(reply)};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	int result;

	pthread_mutex_unlock(&rpc->lock);
	result = qsc_rpc_call(rpc, &call, &iov, 1, NULL, 0);
	pthread_mutex_lock(&rpc->lock);
	if (!result)
		rpc->promised = false;
	return result;
}

int qsc_rpc_begin(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		  const int *fds, size_t num_fds)
{
	int result = 0;

	pthread_mutex_lock(&rpc->lock);
	rpc->fd_senders += num_fds != 0;
	if (num_fds && rpc->promised)
		result = take_back_promise(rpc);
	if (!result)
		result = begin(rpc, call, iov, iovcnt, fds, num_fds);
	rpc->fd_senders -= num_fds != 0;
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_finish(struct qsc_rpc *rpc, struct qsc_call *call)
{
	int result;

	pthread_mutex_lock(&rpc->lock);
	result = await(rpc, call);
	release_slot(rpc, call);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_call(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		 const int *fds, size_t num_fds)
{
	int result;

	if (num_fds) {
		result = qsc_rpc_begin(rpc, call, iov, iovcnt, fds, num_fds);
		return result < 0 ? result : qsc_rpc_finish(rpc, call);
	}
	pthread_mutex_lock(&rpc->lock);
	result = begin(rpc, call, iov, iovcnt, NULL, 0);
	if (!result) {
		result = await(rpc, call);
		release_slot(rpc, call);
	}
	pthread_mutex_unlock(&rpc->lock);
	return result;
}
