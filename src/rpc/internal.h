/* SPDX-License-Identifier: MIT */
/* What the parts of the module share: the structure, and what each does for the others. */
#ifndef QSC_RPC_INTERNAL_H
#define QSC_RPC_INTERNAL_H

#include <stdatomic.h>

#include "base/cleanup.h"
#include "base/syscall.h"
#include "rpc/rpc.h"

#define QSC_RPC_SLOT_MASK (QSC_RPC_CALLS - 1)

struct qsc_rpc {
	int fd;
	bool poll;
	uint32_t call_timeout_ms;
	uint32_t message_timeout_ms;
	size_t max_fds;
	qsc_rpc_command_fn *command;
	void *ctx;
	size_t mapped; /* bytes of the receive buffer */
	size_t receive_max;

	pthread_mutex_t lock; /* all below */
	/* For who waits for a command, a free slot, the leader's role, or to send. */
	pthread_cond_t idle;
	unsigned int idlers;
	unsigned int taking_fds; /* calls that take descriptors, under way or about to be */
	unsigned int fd_senders; /* the same of those that bring some */
	pthread_cond_t turn[QSC_RPC_CALLS]; /* one for each waiting call */
	struct qsc_call *calls[QSC_RPC_CALLS];
	uint64_t busy;	     /* slots in use */
	uint64_t waiting;    /* slots whose owner sleeps */
	uint16_t generation; /* in the high bits of identifiers, so that a late reply is noticed */
	bool leading;	     /* somebody receives */
	bool sending;	     /* somebody sends a message that takes a while */
	bool plain;	     /* no descriptors: a receive that takes none is cheaper */
	bool no_command_fds;
	bool promising;	     /* commands carry QSC_WIRE_PLAIN where they can */
	bool promised;	     /* one did, and the peer may go by it */
	bool trusting;	     /* the peer's promises are heeded */
	bool peer_promised;  /* its last command carried QSC_WIRE_PLAIN */
	bool pinned;	     /* a kept command is being worked on where it lies */
	uint64_t partial_us; /* since when a message has been incomplete; 0: none is */
	bool ended;	     /* the peer has nothing more to send: it may still wait for our end */
	atomic_bool broken;
	struct qsc_wire_stream stream;
	struct qsc_message current; /* the command being worked on, while `pinned` */
	pthread_t watchdog;
	pthread_cond_t watch; /* for the watchdog: deadlines have changed, or it is to end */
	bool watching;
	bool ending;
	int held_fds[QSC_STREAM_MAX_FDS]; /* of the command being worked on */
	size_t num_held;

	/* Of who is `sending`: see pass.c. */
	int pass[2]; /* a pipe, made when it is needed first; -1: there is none */
	bool no_pass;
};

/* A message on its way out. */
struct qsc_rpc_output {
	struct iovec *iov;
	size_t iovcnt;
	size_t size;	  /* of all parts */
	uint64_t resting; /* a bit for each part: see qsc_rpc_reply_parts() */
	const int *fds;
	size_t num_fds;
};

/* Bytes and descriptors of one receive. */
struct qsc_rpc_input {
	size_t size;
	int fds[QSC_STREAM_MAX_FDS];
	size_t num_fds;
	bool ended; /* the peer will send nothing more */
};

/* ---- rpc.c ---- */

struct timespec qsc_rpc_timespec(uint64_t us);

void qsc_rpc_close_fds(int *fds, size_t count);

/* Lock held. Everybody who waits wakes up and finds it broken. */
void qsc_rpc_break_off(struct qsc_rpc *rpc);

/*
 * Lock held. Whether a call's time is over and it is not done. Once it gets a little more when
 * something has come that nobody here has had the time to look at, as in a process that did not run
 * for a while.
 */
bool qsc_rpc_overdue(struct qsc_rpc *rpc, struct qsc_call *call);

/* Lock held. deadline_us 0: for as long as it takes. Nonzero when it has passed. */
int qsc_rpc_wait_idle(struct qsc_rpc *rpc, uint64_t deadline_us);

/* ---- receive.c ---- */

/* Lock held, nobody leads: let one who waits take the role. */
void qsc_rpc_promote(struct qsc_rpc *rpc);

/*
 * Lock held, leading. What comes next has a place of its own, or none: 0 or -errno. 1 for the
 * common case, with the room in the buffer.
 */
int qsc_rpc_prepare_receive(struct qsc_rpc *rpc, uint64_t until, void **where, size_t *size);

/* Lock held, leading: deal with what came. */
int qsc_rpc_received(struct qsc_rpc *rpc, struct qsc_rpc_input *input);

/* ---- send.c ---- */

size_t qsc_rpc_total_size(const struct iovec *iov, size_t iovcnt);

/* Lock held. Messages go one at a time. */
void qsc_rpc_await_turn(struct qsc_rpc *rpc);

/* Lock held, and it is the command's turn: what is promised is promised in that order. */
uint32_t qsc_rpc_promise(struct qsc_rpc *rpc);

void qsc_rpc_fill_header(const struct iovec *iov, size_t size, uint16_t id, uint16_t command,
			 uint32_t flags);

/* ---- io.c ---- */

/*
 * Take what a receive brought besides bytes: 0; or there is none, since more came than may
 * (-EPROTO) or this process has no room for them (-EMFILE).
 */
int qsc_rpc_take_fds(const struct qsc_rpc *rpc, struct msghdr *message,
		     struct qsc_rpc_input *input);

/* One try: bytes, 0 at the end, or -errno. */
qsc_flat ssize_t qsc_rpc_try_receive(struct qsc_rpc *rpc, void *where, size_t size, int flags,
				     struct qsc_rpc_input *input)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * QSC_STREAM_MAX_FDS)];
	} control;
	struct iovec iov = {.iov_base = where, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control};
	ssize_t n;
	int result;

	input->num_fds = 0;
	if (rpc->plain)
		return qsc_recv(rpc->fd, where, size, flags);
	control.align = (struct cmsghdr){.cmsg_len = 0};
	message.msg_controllen = CMSG_SPACE(sizeof(int) * rpc->max_fds);
	n = qsc_recvmsg(rpc->fd, &message, flags | MSG_CMSG_CLOEXEC);
	/* Where none of the descriptors found room there is no control data at all. */
	if (n < 0 || (!message.msg_controllen && !(message.msg_flags & MSG_CTRUNC)))
		return n;
	result = qsc_rpc_take_fds(rpc, &message, input);
	return result < 0 ? result : n;
}

/* Until the socket is ready for `events`, or about so: 0, -ETIMEDOUT at the deadline, -ENOTCONN. */
int qsc_rpc_wait_for(int fd, short events, uint64_t deadline_us);

/* Go on after a try that brought `n`, which is nothing. */
int qsc_rpc_keep_receiving(struct qsc_rpc *rpc, void *where, size_t size, uint64_t deadline_us,
			   ssize_t n, struct qsc_rpc_input *input);

/*
 * Receive once. deadline_us 0: for as long as it takes, and then with `whole` all of `size` if the
 * system can. 0, -ETIMEDOUT, -ENOTCONN at the end or at an error, or as qsc_rpc_take_fds().
 */
qsc_flat int qsc_rpc_receive(struct qsc_rpc *rpc, void *where, size_t size, bool whole,
			     uint64_t deadline_us, struct qsc_rpc_input *input)
{
	int flags = deadline_us || rpc->poll ? MSG_DONTWAIT : whole ? MSG_WAITALL : 0;
	ssize_t n;

	do
		n = qsc_rpc_try_receive(rpc, where, size, flags, input);
	while (n == -EAGAIN && rpc->poll && !deadline_us &&
	       !atomic_load_explicit(&rpc->broken, memory_order_relaxed));
	input->ended = false;
	if (n <= 0)
		return qsc_rpc_keep_receiving(rpc, where, size, deadline_us, n, input);
	input->size = (size_t)n;
	return 0;
}

/* The same for parts and descriptors. */
ssize_t qsc_rpc_try_send_parts(struct qsc_rpc *rpc, const struct qsc_rpc_output *output);

/* Send what goes without waiting: how many bytes, or -errno. */
qsc_flat ssize_t qsc_rpc_try_send(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	ssize_t n;

	if (output->num_fds || output->iovcnt != 1)
		return qsc_rpc_try_send_parts(rpc, output);
	n = qsc_send(rpc->fd, output->iov->iov_base, output->iov->iov_len,
		     MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n >= 0)
		return n;
	return n == -EAGAIN || n == -EINTR ? 0 : -ENOTCONN;
}

/* Send all that comes after the first `sent` bytes, within the message deadline. */
int qsc_rpc_transmit(struct qsc_rpc *rpc, const struct qsc_rpc_output *output, size_t sent);

/* ---- pass.c ---- */

/*
 * Send it without copying what rests: how many bytes went, which are fewer than all where the
 * system does not do it; -ETIMEDOUT, -ENOTCONN.
 */
ssize_t qsc_rpc_pass(struct qsc_rpc *rpc, const struct qsc_rpc_output *output,
		     uint64_t deadline_us);
void qsc_rpc_end_passing(struct qsc_rpc *rpc);

/* ---- the access path, in one piece ---- */

/* Copied so fast that others may as well wait for the lock. */
#define QSC_RPC_SHORT_MAX 4096U

/*
 * Lock held, and it is this message's turn. What is long, or does not go at once, is sent without
 * the lock.
 */
qsc_flat int qsc_rpc_send_message(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	ssize_t sent = 0;
	int result;

	if (output->size <= QSC_RPC_SHORT_MAX) {
		sent = qsc_rpc_try_send(rpc, output);
		if (sent < 0)
			return (int)sent;
		if ((size_t)sent == output->size)
			return 0;
	}
	rpc->sending = true;
	pthread_mutex_unlock(&rpc->lock);
	result = qsc_rpc_transmit(rpc, output, (size_t)sent);
	pthread_mutex_lock(&rpc->lock);
	rpc->sending = false;
	if (rpc->idlers)
		pthread_cond_broadcast(&rpc->idle);
	return result;
}

/* Lock held. */
static inline void qsc_rpc_stop_leading(struct qsc_rpc *rpc)
{
	rpc->leading = false;
	if (rpc->plain && rpc->taking_fds)
		pthread_cond_broadcast(&rpc->idle);
}

/* Lock held, leading. When a message was begun, it has until then to end; else deadline_us. */
static inline uint64_t qsc_rpc_receive_until(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	uint64_t until;

	if (!rpc->partial_us)
		return deadline_us;
	until = rpc->partial_us + (uint64_t)rpc->message_timeout_ms * 1000;
	return deadline_us ? qsc_min_u64(until, deadline_us) : until;
}

/*
 * Lock held, nobody leads: receive once and deal with what came. deadline_us 0: for as long as the
 * socket's own timeout says. 0, -ETIMEDOUT at the deadline, -ETIME when a message was begun and not
 * ended in time, -ENOTCONN, -EPROTO, -EMFILE.
 */
qsc_flat int qsc_rpc_lead(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	struct qsc_rpc_input input;
	uint64_t until = qsc_rpc_receive_until(rpc, deadline_us);
	void *where = NULL;
	size_t size = 0;
	int result;

	rpc->leading = true;
	result = qsc_rpc_prepare_receive(rpc, until, &where, &size);
	if (result > 0) {
		pthread_mutex_unlock(&rpc->lock);
		result = qsc_rpc_receive(rpc, where, size, false, until, &input);
		pthread_mutex_lock(&rpc->lock);
		rpc->ended = rpc->ended || input.ended;
		if (!result)
			result = qsc_rpc_received(rpc, &input);
		else if (result == -ETIMEDOUT && until != deadline_us)
			result = -ETIME;
	}
	qsc_rpc_stop_leading(rpc);
	return result;
}

#endif
