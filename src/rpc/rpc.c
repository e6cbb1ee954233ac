/* SPDX-License-Identifier: MIT */
/*
 * See rpc.h. Everything shared is under one lock that is never held across a system call that
 * can wait; who receives holds the leader's role instead, and only it touches the free end of the
 * receive buffer. A short message is sent under the lock, as far as it goes without waiting.
 */
#include "rpc/rpc.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "rpc/internal.h"

#define SLOT_MASK (QSC_RPC_CALLS - 1)
/* Below this a second copy is cheaper than a second receive. */
#define DIRECT_MIN 8192U
/* Copied so fast that others may as well wait for the lock. */
#define SHORT_MAX 4096U

_Static_assert(QSC_RPC_CALLS == 64, "slots are bits of a word, and the low bits of a number");

/* Precise enough for deadlines, and a quarter of the cost on the access path. */
static uint64_t coarse_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

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

static struct timespec to_timespec(uint64_t us)
{
	return (struct timespec){.tv_sec = (time_t)(us / 1000000),
				 .tv_nsec = (long)(us % 1000000) * 1000};
}

/* Lock held. Everybody who waits wakes up and finds it broken. */
static void break_off(struct qsc_rpc *rpc)
{
	uint64_t waiting = rpc->waiting;

	atomic_store_explicit(&rpc->broken, true, memory_order_relaxed);
	/* A peer that said farewell sees the end of ours only when everything here has ended. */
	shutdown(rpc->fd, rpc->ended ? SHUT_RD : SHUT_RDWR);
	for (; waiting; waiting &= waiting - 1)
		pthread_cond_broadcast(&rpc->turn[__builtin_ctzll(waiting)]);
	pthread_cond_broadcast(&rpc->idle);
}

/* Lock held. End a connection on which a call is overdue, and say when to look again. */
static uint64_t look_after_calls(struct qsc_rpc *rpc)
{
	uint64_t now = qsc_rpc_now_us();
	uint64_t next = now + (uint64_t)rpc->call_timeout_ms * 1000;
	uint64_t busy = rpc->busy;
	bool expired = false;

	for (; busy; busy &= busy - 1) {
		struct qsc_call *call = rpc->calls[__builtin_ctzll(busy)];

		call->expired = !call->done && call->deadline_us <= now;
		expired |= call->expired;
		if (!call->done && !call->expired)
			next = qsc_min_u64(next, call->deadline_us);
	}
	if (expired)
		break_off(rpc);
	return next;
}

/* A call that begins while this sleeps is due later than this wakes. */
static void *watch(void *arg)
{
	struct qsc_rpc *rpc = arg;

	pthread_mutex_lock(&rpc->lock);
	while (!rpc->ending) {
		struct timespec until = to_timespec(look_after_calls(rpc));

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

static void close_fds(int *fds, size_t count)
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
	close_fds(rpc->held_fds, rpc->num_held);
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
	break_off(rpc);
	pthread_mutex_unlock(&rpc->lock);
}

bool qsc_rpc_broken(struct qsc_rpc *rpc)
{
	return atomic_load_explicit(&rpc->broken, memory_order_relaxed);
}

/* Lock held. deadline_us 0: for as long as it takes. Nonzero when it has passed. */
static __attribute__((noinline)) int wait_idle(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	struct timespec until = to_timespec(deadline_us);
	int result;

	rpc->idlers++;
	if (deadline_us)
		result = pthread_cond_timedwait(&rpc->idle, &rpc->lock, &until);
	else
		result = pthread_cond_wait(&rpc->idle, &rpc->lock);
	rpc->idlers--;
	return result;
}

/* Lock held, nobody leads: let one who waits take the role. */
static void promote(struct qsc_rpc *rpc)
{
	if (rpc->waiting)
		pthread_cond_signal(&rpc->turn[__builtin_ctzll(rpc->waiting)]);
	else if (rpc->idlers)
		pthread_cond_broadcast(&rpc->idle);
}

static size_t total_size(const struct iovec *iov, size_t iovcnt)
{
	size_t size = 0;
	size_t i;

	for (i = 0; i < iovcnt; i++)
		size += iov[i].iov_len;
	return size;
}

/* The call that a reply answers, when it is one that a call can have. */
static struct qsc_call *find_call(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct qsc_call *call = rpc->calls[message->header.id & SLOT_MASK];

	if (!call || call->done || call->id != message->header.id ||
	    call->command != message->header.command)
		return NULL;
	if (message->header.flags & QSC_WIRE_ERROR)
		return call;
	if (message->size < call->min_size || message->size > call->fixed_size + call->data_max)
		return NULL;
	return call;
}

static void complete(struct qsc_rpc *rpc, struct qsc_call *call)
{
	call->done = true;
	if (rpc->waiting >> call->slot & 1)
		pthread_cond_signal(&rpc->turn[call->slot]);
}

static int malformed(const struct qsc_message *message)
{
	qsc_log(QSC_LOG_WARNING,
		"vfio-user: a reply (%s, id %u, %u bytes) fits no request; the connection is "
		"closed",
		qsc_wire_command_name(message->header.command), message->header.id,
		message->header.size);
	return -EPROTO;
}

/* Lock held. Copy what is there of a reply's body into place. */
static void place(struct qsc_call *call, const uint8_t *body, size_t size)
{
	size_t fixed = qsc_min_u64(size, call->fixed_size);

	if (fixed)
		memcpy(call->fixed, body, fixed);
	if (size > fixed)
		memcpy(call->data, body + fixed, size - fixed);
}

/* Lock held. */
static int deliver(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct qsc_call *call = find_call(rpc, message);
	size_t taken;
	int fd;

	if (!call)
		return malformed(message);
	if (message->header.flags & QSC_WIRE_ERROR) {
		call->result = qsc_wire_reply_error(&message->header);
	} else {
		place(call, message->body, message->size);
		call->body = message->size;
		if (rpc->stream.num_fds && call->max_fds) {
			taken = qsc_wire_stream_take_fds(&rpc->stream, message->start,
							 call->fds + call->num_fds,
							 call->max_fds - call->num_fds);
			call->num_fds += taken;
		}
	}
	while (rpc->stream.num_fds &&
	       qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	complete(rpc, call);
	return 0;
}

/* Lock held, leading. A command, for a callback: without the lock, where the message lies. */
static int hand_over(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	int result;
	int fd;

	while (qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	pthread_mutex_unlock(&rpc->lock);
	result = rpc->command(rpc->ctx, rpc, message);
	pthread_mutex_lock(&rpc->lock);
	return result;
}

/* Lock held, leading. Without a callback it is kept until it is asked for. */
static int take_command(struct qsc_rpc *rpc, const struct qsc_message *message)
{
	int result = 0;

	rpc->peer_promised = rpc->trusting && (message->header.flags & QSC_WIRE_PLAIN);
	if (rpc->command) {
		result = hand_over(rpc, message);
		qsc_wire_stream_drop(&rpc->stream, message);
	} else if (rpc->idlers) {
		pthread_cond_broadcast(&rpc->idle);
	}
	return result;
}

/* Lock held, leading: deal with every message that is whole. */
static int dispatch(struct qsc_rpc *rpc)
{
	struct qsc_message message;
	bool scanned = false;
	int result = 0;

	while (qsc_wire_stream_partial(&rpc->stream) &&
	       (result = qsc_wire_stream_scan(&rpc->stream, &message)) > 0) {
		scanned = true;
		if ((message.header.flags & QSC_WIRE_TYPE_MASK) == QSC_WIRE_TYPE_REPLY) {
			result = deliver(rpc, &message);
			qsc_wire_stream_drop(&rpc->stream, &message);
		} else {
			result = take_command(rpc, &message);
		}
		if (result < 0)
			break;
	}
	if (!qsc_wire_stream_partial(&rpc->stream))
		rpc->partial_us = 0;
	else if (scanned || !rpc->partial_us)
		rpc->partial_us = qsc_rpc_now_us();
	return result < 0 ? result : 0;
}

/* Lock held. A long reply has begun whose data can be received where they belong. */
static struct qsc_call *find_direct(struct qsc_rpc *rpc, struct qsc_message *message)
{
	struct qsc_wire_stream *stream = &rpc->stream;
	struct qsc_call *call;

	if (!rpc->receive_max || qsc_wire_stream_peek(stream, message) <= 0 ||
	    (message->header.flags & (QSC_WIRE_TYPE_MASK | QSC_WIRE_ERROR)) != QSC_WIRE_TYPE_REPLY)
		return NULL;
	if (message->header.size - (stream->end - stream->scan) < DIRECT_MIN)
		return NULL;
	call = find_call(rpc, message);
	if (!call || stream->end - stream->scan < QSC_WIRE_HEADER_SIZE + call->fixed_size)
		return NULL;
	return call;
}

/* Lock held, leading; the lock is let go of meanwhile. */
static int receive_direct(struct qsc_rpc *rpc, struct qsc_call *call,
			  const struct qsc_message *message)
{
	struct qsc_rpc_input input = {.size = 0};
	size_t present = rpc->stream.end - rpc->stream.scan - QSC_WIRE_HEADER_SIZE;
	uint64_t deadline_us = rpc->partial_us + (uint64_t)rpc->message_timeout_ms * 1000;
	size_t size = message->size;
	bool timed = rpc->watching && rpc->message_timeout_ms >= rpc->call_timeout_ms;
	int result = 0;
	int fd;

	place(call, message->body, present);
	while (qsc_wire_stream_take_fds(&rpc->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	qsc_wire_stream_divert(&rpc->stream);
	call->diverted = true;
	pthread_mutex_unlock(&rpc->lock);
	while (!result && present < size) {
		void *where = (char *)call->data + (present - call->fixed_size);

		/* The watchdog minds the call's own deadline, and that is no later. */
		result = qsc_rpc_receive(rpc, where, size - present, true, timed ? 0 : deadline_us,
					 &input);
		if (!result) {
			present += input.size;
			close_fds(input.fds, input.num_fds);
		}
	}
	pthread_mutex_lock(&rpc->lock);
	call->diverted = false;
	rpc->ended |= input.ended;
	rpc->partial_us = 0;
	if (result < 0) {
		if (rpc->waiting >> call->slot & 1)
			pthread_cond_signal(&rpc->turn[call->slot]);
		return result;
	}
	call->body = size;
	complete(rpc, call);
	return 0;
}

/* Lock held. How much to receive, and where to. */
static size_t choose_space(struct qsc_rpc *rpc, void **where)
{
	size_t space = qsc_wire_stream_space(&rpc->stream, rpc->pinned, where);
	struct qsc_message message;
	size_t wanted = rpc->receive_max;

	if (!wanted)
		return space;
	if (qsc_wire_stream_partial(&rpc->stream) &&
	    qsc_wire_stream_peek(&rpc->stream, &message) > 0)
		wanted += message.header.size - (rpc->stream.end - rpc->stream.scan);
	return qsc_min_u64(space, wanted);
}

/* Lock held. */
static void stop_leading(struct qsc_rpc *rpc)
{
	rpc->leading = false;
	if (rpc->plain && rpc->taking_fds)
		pthread_cond_broadcast(&rpc->idle);
}

/* Lock held, leading. When a message was begun, it has until then to end; else deadline_us. */
static uint64_t receive_until(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	uint64_t until;

	if (!rpc->partial_us)
		return deadline_us;
	until = rpc->partial_us + (uint64_t)rpc->message_timeout_ms * 1000;
	return deadline_us ? qsc_min_u64(until, deadline_us) : until;
}

/*
 * Lock held, leading. What comes next has a place of its own, or none: 0 or -errno. 1 for the
 * common case, with the room in the buffer.
 */
static int prepare_receive(struct qsc_rpc *rpc, uint64_t until, void **where, size_t *size)
{
	struct qsc_message message;
	struct qsc_call *direct;

	rpc->plain = !rpc->taking_fds && (rpc->no_command_fds || rpc->peer_promised);
	direct = qsc_wire_stream_partial(&rpc->stream) ? find_direct(rpc, &message) : NULL;
	if (direct)
		return receive_direct(rpc, direct, &message);
	*size = choose_space(rpc, where);
	if (*size)
		return 1;
	/* Commands fill the buffer; their turn must come first. */
	return wait_idle(rpc, until) ? -ETIMEDOUT : 0;
}

/* Lock held, leading. */
static int received(struct qsc_rpc *rpc, struct qsc_rpc_input *input)
{
	int result = qsc_wire_stream_received(&rpc->stream, input->size, input->fds,
					      input->num_fds);

	if (!result)
		return dispatch(rpc);
	close_fds(input->fds, input->num_fds);
	return result;
}

/*
 * Lock held, nobody leads: receive once and deal with what came. deadline_us 0: for as long as the
 * socket's own timeout says. 0, -ETIMEDOUT at the deadline, -ETIME when a message was begun and not
 * ended in time, -ENOTCONN, -EPROTO.
 */
qsc_flat int lead(struct qsc_rpc *rpc, uint64_t deadline_us)
{
	struct qsc_rpc_input input;
	uint64_t until = receive_until(rpc, deadline_us);
	void *where = NULL;
	size_t size = 0;
	int result;

	rpc->leading = true;
	result = prepare_receive(rpc, until, &where, &size);
	if (result > 0) {
		pthread_mutex_unlock(&rpc->lock);
		result = qsc_rpc_receive(rpc, where, size, false, until, &input);
		pthread_mutex_lock(&rpc->lock);
		rpc->ended = rpc->ended || input.ended;
		if (!result)
			result = received(rpc, &input);
		else if (result == -ETIMEDOUT && until != deadline_us)
			result = -ETIME;
	}
	stop_leading(rpc);
	return result;
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
		result = wait_idle(rpc, deadline_us) ? -ETIMEDOUT : 0;
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
	struct timespec until = to_timespec(deadline_us);
	int result;

	rpc->waiting |= 1ULL << call->slot;
	result = pthread_cond_timedwait(&rpc->turn[call->slot], &rpc->lock, &until);
	if (result == ETIMEDOUT && !call->done)
		break_off(rpc);
	rpc->waiting &= ~(1ULL << call->slot);
	return result == ETIMEDOUT && !call->done ? -ETIMEDOUT : 0;
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
			result = lead(rpc, until);
			if (result < 0)
				break_off(rpc);
			if (result == -ETIME)
				result = -ETIMEDOUT;
		}
		until = rpc->watching ? 0 : call->deadline_us;
	}
	if (call->expired)
		result = -ETIMEDOUT;
	await_diverted(rpc, call);
	if (!rpc->leading)
		promote(rpc);
	return call->done ? 0 : result;
}

/* Lock held. Messages go one at a time. */
static void await_turn(struct qsc_rpc *rpc)
{
	while (rpc->sending)
		wait_idle(rpc, 0);
}

/*
 * Lock held, and it is this message's turn. What is long, or does not go at once, is sent without
 * the lock.
 */
qsc_flat int send_message(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	ssize_t sent = 0;
	int result;

	if (output->size <= SHORT_MAX) {
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

static void fill_header(const struct iovec *iov, size_t size, uint16_t id, uint16_t command,
			uint32_t flags)
{
	struct qsc_wire_header header = {
		.id = id, .command = command, .size = (uint32_t)size, .flags = flags};

	memcpy(iov[0].iov_base, &header, sizeof(header));
}

/* Lock held, and it is the command's turn: what is promised is promised in that order. */
static uint32_t promise(struct qsc_rpc *rpc)
{
	if (!rpc->promising || rpc->fd_senders)
		return 0;
	rpc->promised = true;
	return QSC_WIRE_PLAIN;
}

/* Lock held. */
qsc_flat int begin(struct qsc_rpc *rpc, struct qsc_call *call, struct iovec *iov, size_t iovcnt,
		   const int *fds, size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = total_size(iov, iovcnt),
					      .fds = fds,
					      .num_fds = num_fds};
	int result;

	call->deadline_us = coarse_now_us() + (uint64_t)rpc->call_timeout_ms * 1000;
	if (call->until_us)
		call->deadline_us = qsc_min_u64(call->deadline_us, call->until_us);
	result = claim_slot(rpc, call, call->deadline_us);
	if (result < 0)
		return result;
	await_turn(rpc);
	fill_header(iov, output.size, call->id, call->command, promise(rpc));
	result = send_message(rpc, &output);
	if (result < 0) {
		break_off(rpc);
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

/* Lock held, and it is this message's turn. */
qsc_flat int send_alone(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	int result;

	if (qsc_rpc_broken(rpc))
		return -ENOTCONN;
	result = send_message(rpc, output);
	if (result < 0)
		break_off(rpc);
	return result;
}

int qsc_rpc_send(struct qsc_rpc *rpc, struct iovec *iov, size_t iovcnt, const int *fds,
		 size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = total_size(iov, iovcnt),
					      .fds = fds,
					      .num_fds = num_fds};
	int result;

	pthread_mutex_lock(&rpc->lock);
	await_turn(rpc);
	result = send_alone(rpc, &output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_post(struct qsc_rpc *rpc, uint16_t command, struct iovec *iov, size_t iovcnt)
{
	const struct qsc_rpc_output output = {
		.iov = iov, .iovcnt = iovcnt, .size = total_size(iov, iovcnt)};
	int result;

	pthread_mutex_lock(&rpc->lock);
	await_turn(rpc);
	fill_header(iov, output.size, 0, command, QSC_WIRE_NO_REPLY | promise(rpc));
	result = send_alone(rpc, &output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

qsc_flat int reply(struct qsc_rpc *rpc, const struct qsc_wire_header *command,
		   const struct qsc_rpc_output *output)
{
	int result;

	if (command->flags & QSC_WIRE_NO_REPLY)
		return 0;
	fill_header(output->iov, output->size, command->id, command->command, QSC_WIRE_TYPE_REPLY);
	pthread_mutex_lock(&rpc->lock);
	await_turn(rpc);
	result = send_alone(rpc, output);
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

int qsc_rpc_reply(struct qsc_rpc *rpc, const struct qsc_wire_header *command, void *message,
		  size_t size, const int *fds, size_t num_fds)
{
	struct iovec iov = {.iov_base = message, .iov_len = size};
	const struct qsc_rpc_output output = {
		.iov = &iov, .iovcnt = 1, .size = size, .fds = fds, .num_fds = num_fds};

	return reply(rpc, command, &output);
}

int qsc_rpc_reply_parts(struct qsc_rpc *rpc, const struct qsc_wire_header *command,
			struct iovec *iov, size_t iovcnt, uint64_t resting, const int *fds,
			size_t num_fds)
{
	const struct qsc_rpc_output output = {.iov = iov,
					      .iovcnt = iovcnt,
					      .size = total_size(iov, iovcnt),
					      .resting = resting,
					      .fds = fds,
					      .num_fds = num_fds};

	return reply(rpc, command, &output);
}

int qsc_rpc_reply_error(struct qsc_rpc *rpc, const struct qsc_wire_header *command, int error)
{
	struct qsc_wire_header header = {
		.id = command->id,
		.command = command->command,
		.size = sizeof(header),
		.flags = QSC_WIRE_TYPE_REPLY | QSC_WIRE_ERROR,
		.error = (uint32_t)-error,
	};
	struct iovec iov = {.iov_base = &header, .iov_len = sizeof(header)};

	if (command->flags & QSC_WIRE_NO_REPLY)
		return 0;
	return qsc_rpc_send(rpc, &iov, 1, NULL, 0);
}

int qsc_rpc_next(struct qsc_rpc *rpc, uint64_t deadline_us, struct qsc_message *message,
		 const int **fds, size_t *num_fds)
{
	int result = 0;

	close_fds(rpc->held_fds, rpc->num_held);
	rpc->num_held = 0;
	pthread_mutex_lock(&rpc->lock);
	if (rpc->pinned) {
		rpc->pinned = false;
		qsc_wire_stream_drop(&rpc->stream, &rpc->current);
		if (rpc->idlers)
			pthread_cond_broadcast(&rpc->idle);
	}
	while (!qsc_wire_stream_first(&rpc->stream, message) && !result) {
		if (qsc_rpc_broken(rpc))
			result = -ENOTCONN;
		else if (rpc->leading)
			result = wait_idle(rpc, deadline_us) ? -ETIMEDOUT : 0;
		else
			result = lead(rpc, deadline_us);
	}
	if (result < 0) {
		break_off(rpc);
	} else {
		rpc->pinned = true;
		rpc->current = *message;
		rpc->num_held = qsc_wire_stream_take_fds(&rpc->stream, message->start,
							 rpc->held_fds, QSC_STREAM_MAX_FDS);
		*fds = rpc->held_fds;
		*num_fds = rpc->num_held;
		if (!rpc->leading && rpc->waiting)
			promote(rpc);
	}
	pthread_mutex_unlock(&rpc->lock);
	return result;
}

/* Lock held: sleep until something has come and nobody else is about to receive it. */
static void wait_readable(struct qsc_rpc *rpc)
{
	struct pollfd poll_fd = {.fd = rpc->fd, .events = POLLIN};
	int timeout = rpc->partial_us ? (int)rpc->message_timeout_ms : -1;

	if (rpc->leading || rpc->busy) {
		wait_idle(rpc, 0);
		return;
	}
	pthread_mutex_unlock(&rpc->lock);
	poll(&poll_fd, 1, timeout);
	pthread_mutex_lock(&rpc->lock);
}

void qsc_rpc_serve(struct qsc_rpc *rpc, bool shared)
{
	int result;

	pthread_mutex_lock(&rpc->lock);
	while (!qsc_rpc_broken(rpc)) {
		if (shared) {
			wait_readable(rpc);
			if (rpc->leading || rpc->busy || qsc_rpc_broken(rpc))
				continue;
		}
		/* Any past moment: take what is there. */
		result = lead(rpc, shared ? 1 : 0);
		if (result < 0 && result != -ETIMEDOUT)
			break_off(rpc);
		else if (shared)
			promote(rpc);
		else if (result < 0)
			wait_readable(rpc);
	}
	pthread_mutex_unlock(&rpc->lock);
}
