/* SPDX-License-Identifier: MIT */
/*
 * See channel.h. Everything shared is under one lock that is never held across a system call that
 * can wait; who receives holds the leader's role instead, and only it touches the free end of the
 * receive buffer.
 */
#include "channel/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "channel/internal.h"

#define SLOT_MASK (QSC_CHANNEL_CALLS - 1)
/* Below this a second copy is cheaper than a second receive. */
#define DIRECT_MIN 8192U

_Static_assert(QSC_CHANNEL_CALLS == 64, "slots are bits of a word, and the low bits of a number");

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

static void init_conds(struct qsc_channel *channel)
{
	pthread_condattr_t attr;
	unsigned int i;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&channel->idle, &attr);
	pthread_cond_init(&channel->watch, &attr);
	for (i = 0; i < QSC_CHANNEL_CALLS; i++)
		pthread_cond_init(&channel->turn[i], &attr);
	pthread_condattr_destroy(&attr);
}

static struct timespec to_timespec(uint64_t us)
{
	return (struct timespec){.tv_sec = (time_t)(us / 1000000),
				 .tv_nsec = (long)(us % 1000000) * 1000};
}

/* Lock held. Everybody who waits wakes up and finds it broken. */
static void break_off(struct qsc_channel *channel)
{
	uint64_t waiting = channel->waiting;

	atomic_store_explicit(&channel->broken, true, memory_order_relaxed);
	/* A peer that said farewell sees the end of ours only when everything here has ended. */
	shutdown(channel->fd, channel->ended ? SHUT_RD : SHUT_RDWR);
	for (; waiting; waiting &= waiting - 1)
		pthread_cond_broadcast(&channel->turn[__builtin_ctzll(waiting)]);
	pthread_cond_broadcast(&channel->idle);
}

/* Lock held. End a connection on which a call is overdue, and say when to look again. */
static uint64_t look_after_calls(struct qsc_channel *channel)
{
	uint64_t now = qsc_channel_now_us();
	uint64_t next = now + (uint64_t)channel->call_timeout_ms * 1000;
	uint64_t busy = channel->busy;
	bool expired = false;

	for (; busy; busy &= busy - 1) {
		struct qsc_call *call = channel->calls[__builtin_ctzll(busy)];

		call->expired = !call->done && call->deadline_us <= now;
		expired |= call->expired;
		if (!call->done && !call->expired)
			next = qsc_min_u64(next, call->deadline_us);
	}
	if (expired)
		break_off(channel);
	return next;
}

/* A call that begins while this sleeps is due later than this wakes. */
static void *watch(void *arg)
{
	struct qsc_channel *channel = arg;

	pthread_mutex_lock(&channel->lock);
	while (!channel->ending) {
		struct timespec until = to_timespec(look_after_calls(channel));

		pthread_cond_timedwait(&channel->watch, &channel->lock, &until);
	}
	pthread_mutex_unlock(&channel->lock);
	return NULL;
}

static int prepare_socket(const struct qsc_channel_options *options)
{
	int result = set_blocking(options->fd);

	if (!result)
		result = set_timeout(options->fd, SO_SNDTIMEO, options->message_timeout_ms);
	/* Without a callback the first receive is a wait for commands, which has no end. */
	if (!result && options->command && !options->watchdog)
		result = set_timeout(options->fd, SO_RCVTIMEO, options->call_timeout_ms);
	return result;
}

int qsc_channel_create(const struct qsc_channel_options *options, struct qsc_channel **out)
{
	size_t mapped = options->max_message + options->slack;
	struct qsc_channel *channel = NULL;
	qsc_autoclose int fd = options->fd;
	void *buffer;
	int result = prepare_socket(options);

	if (result < 0)
		return result;
	buffer = mmap(NULL, mapped, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (buffer == MAP_FAILED)
		return -errno;
	channel = calloc(1, sizeof(*channel));
	if (!channel) {
		munmap(buffer, mapped);
		return -ENOMEM;
	}
	channel->mapped = mapped;
	qsc_wire_stream_init(&channel->stream, buffer, mapped, options->max_message);
	channel->fd = qsc_fd_steal(&fd);
	channel->poll = options->poll;
	channel->call_timeout_ms = options->call_timeout_ms;
	channel->message_timeout_ms = options->message_timeout_ms;
	channel->max_fds = qsc_min_u64(options->max_fds, QSC_STREAM_MAX_FDS);
	channel->receive_max = options->receive_max;
	channel->no_command_fds = options->no_command_fds;
	channel->command = options->command;
	channel->ctx = options->ctx;
	pthread_mutex_init(&channel->lock, NULL);
	pthread_mutex_init(&channel->send_lock, NULL);
	init_conds(channel);
	if (options->watchdog) {
		result = -pthread_create(&channel->watchdog, NULL, watch, channel);
		channel->watching = !result;
	}
	if (result < 0)
		qsc_channel_destroy(channel);
	else
		*out = channel;
	return result;
}

static void close_fds(int *fds, size_t count)
{
	while (count)
		qsc_fd_close(&fds[--count]);
}

void qsc_channel_destroy(struct qsc_channel *channel)
{
	unsigned int i;
	int fd;

	if (!channel)
		return;
	if (channel->watching) {
		pthread_mutex_lock(&channel->lock);
		channel->ending = true;
		pthread_cond_signal(&channel->watch);
		pthread_mutex_unlock(&channel->lock);
		pthread_join(channel->watchdog, NULL);
	}
	close_fds(channel->held_fds, channel->num_held);
	while ((fd = qsc_wire_stream_take_any_fd(&channel->stream)) >= 0)
		qsc_fd_close(&fd);
	qsc_fd_close(&channel->fd);
	munmap(channel->stream.buffer, channel->mapped);
	for (i = 0; i < QSC_CHANNEL_CALLS; i++)
		pthread_cond_destroy(&channel->turn[i]);
	pthread_cond_destroy(&channel->watch);
	pthread_cond_destroy(&channel->idle);
	pthread_mutex_destroy(&channel->send_lock);
	pthread_mutex_destroy(&channel->lock);
	free(channel);
}

void qsc_channel_set_max_message(struct qsc_channel *channel, uint32_t max_message)
{
	pthread_mutex_lock(&channel->lock);
	channel->stream.max_message = max_message;
	pthread_mutex_unlock(&channel->lock);
}

int qsc_channel_set_call_timeout(struct qsc_channel *channel, uint32_t timeout_ms)
{
	pthread_mutex_lock(&channel->lock);
	channel->call_timeout_ms = timeout_ms;
	pthread_cond_signal(&channel->watch);
	pthread_mutex_unlock(&channel->lock);
	return 0;
}

void qsc_channel_shutdown(struct qsc_channel *channel)
{
	pthread_mutex_lock(&channel->lock);
	break_off(channel);
	pthread_mutex_unlock(&channel->lock);
}

bool qsc_channel_broken(struct qsc_channel *channel)
{
	return atomic_load_explicit(&channel->broken, memory_order_relaxed);
}

/* Lock held. deadline_us 0: for as long as it takes. Nonzero when it has passed. */
static int wait_idle(struct qsc_channel *channel, uint64_t deadline_us)
{
	struct timespec until = to_timespec(deadline_us);
	int result;

	channel->idlers++;
	if (deadline_us)
		result = pthread_cond_timedwait(&channel->idle, &channel->lock, &until);
	else
		result = pthread_cond_wait(&channel->idle, &channel->lock);
	channel->idlers--;
	return result;
}

/* Lock held, nobody leads: let one who waits take the role. */
static void promote(struct qsc_channel *channel)
{
	if (channel->waiting)
		pthread_cond_signal(&channel->turn[__builtin_ctzll(channel->waiting)]);
	else if (channel->idlers)
		pthread_cond_broadcast(&channel->idle);
}

/* The call that a reply answers, when it is one that a call can have. */
static struct qsc_call *find_call(struct qsc_channel *channel, const struct qsc_message *message)
{
	struct qsc_call *call = channel->calls[message->header.id & SLOT_MASK];

	if (!call || call->done || call->id != message->header.id ||
	    call->command != message->header.command)
		return NULL;
	if (message->header.flags & QSC_WIRE_ERROR)
		return call;
	if (message->size < call->min_size || message->size > call->fixed_size + call->data_max)
		return NULL;
	return call;
}

static void complete(struct qsc_channel *channel, struct qsc_call *call)
{
	call->done = true;
	if (channel->waiting >> call->slot & 1)
		pthread_cond_signal(&channel->turn[call->slot]);
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
static int deliver(struct qsc_channel *channel, const struct qsc_message *message)
{
	struct qsc_call *call = find_call(channel, message);
	size_t taken;
	int fd;

	if (!call)
		return malformed(message);
	if (message->header.flags & QSC_WIRE_ERROR) {
		call->result = qsc_wire_reply_error(&message->header);
	} else {
		place(call, message->body, message->size);
		call->body = message->size;
		if (channel->stream.num_fds && call->max_fds) {
			taken = qsc_wire_stream_take_fds(&channel->stream, message->start,
							 call->fds + call->num_fds,
							 call->max_fds - call->num_fds);
			call->num_fds += taken;
		}
	}
	while (channel->stream.num_fds &&
	       qsc_wire_stream_take_fds(&channel->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	complete(channel, call);
	return 0;
}

/* Lock held, leading. A command, for a callback: without the lock, where the message lies. */
static int hand_over(struct qsc_channel *channel, const struct qsc_message *message)
{
	int result;
	int fd;

	while (qsc_wire_stream_take_fds(&channel->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	pthread_mutex_unlock(&channel->lock);
	result = channel->command(channel->ctx, channel, message);
	pthread_mutex_lock(&channel->lock);
	return result;
}

/* Lock held, leading: deal with every message that is whole. */
static int dispatch(struct qsc_channel *channel)
{
	struct qsc_message message;
	bool scanned = false;
	int result;

	while ((result = qsc_wire_stream_scan(&channel->stream, &message)) > 0) {
		scanned = true;
		if ((message.header.flags & QSC_WIRE_TYPE_MASK) == QSC_WIRE_TYPE_REPLY) {
			result = deliver(channel, &message);
			qsc_wire_stream_drop(&channel->stream, &message);
		} else if (channel->command) {
			result = hand_over(channel, &message);
			qsc_wire_stream_drop(&channel->stream, &message);
		} else if (channel->idlers) {
			pthread_cond_broadcast(&channel->idle);
		}
		if (result < 0)
			break;
	}
	if (!qsc_wire_stream_partial(&channel->stream))
		channel->partial_us = 0;
	else if (scanned || !channel->partial_us)
		channel->partial_us = qsc_channel_now_us();
	return result < 0 ? result : 0;
}

/* Lock held. A long reply has begun whose data can be received where they belong. */
static struct qsc_call *find_direct(struct qsc_channel *channel, struct qsc_message *message)
{
	struct qsc_wire_stream *stream = &channel->stream;
	struct qsc_call *call;

	if (!channel->receive_max || qsc_wire_stream_peek(stream, message) <= 0 ||
	    (message->header.flags & (QSC_WIRE_TYPE_MASK | QSC_WIRE_ERROR)) != QSC_WIRE_TYPE_REPLY)
		return NULL;
	if (message->header.size - (stream->end - stream->scan) < DIRECT_MIN)
		return NULL;
	call = find_call(channel, message);
	if (!call || stream->end - stream->scan < QSC_WIRE_HEADER_SIZE + call->fixed_size)
		return NULL;
	return call;
}

/* Lock held, leading; the lock is let go of meanwhile. */
static int receive_direct(struct qsc_channel *channel, struct qsc_call *call,
			  const struct qsc_message *message)
{
	struct qsc_channel_input input = {.size = 0};
	size_t present = channel->stream.end - channel->stream.scan - QSC_WIRE_HEADER_SIZE;
	uint64_t deadline_us = channel->partial_us + (uint64_t)channel->message_timeout_ms * 1000;
	size_t size = message->size;
	int result = 0;
	int fd;

	place(call, message->body, present);
	while (qsc_wire_stream_take_fds(&channel->stream, message->start, &fd, 1))
		qsc_fd_close(&fd);
	qsc_wire_stream_divert(&channel->stream);
	call->diverted = true;
	pthread_mutex_unlock(&channel->lock);
	while (!result && present < size) {
		struct iovec iov = {
			.iov_base = (char *)call->data + (present - call->fixed_size),
			.iov_len = size - present,
		};

		result = qsc_channel_receive(channel, &iov, 1, deadline_us, &input);
		if (!result) {
			present += input.size;
			close_fds(input.fds, input.num_fds);
		}
	}
	pthread_mutex_lock(&channel->lock);
	call->diverted = false;
	channel->ended |= input.ended;
	channel->partial_us = 0;
	if (result < 0) {
		if (channel->waiting >> call->slot & 1)
			pthread_cond_signal(&channel->turn[call->slot]);
		return result;
	}
	call->body = size;
	complete(channel, call);
	return 0;
}

/* Lock held. How much to receive, and where to. */
static size_t choose_space(struct qsc_channel *channel, void **where)
{
	size_t space = qsc_wire_stream_space(&channel->stream, channel->pinned, where);
	struct qsc_message message;
	size_t wanted = channel->receive_max;

	if (!wanted)
		return space;
	if (qsc_wire_stream_partial(&channel->stream) &&
	    qsc_wire_stream_peek(&channel->stream, &message) > 0)
		wanted += message.header.size - (channel->stream.end - channel->stream.scan);
	return qsc_min_u64(space, wanted);
}

/* Lock held. */
static void stop_leading(struct qsc_channel *channel)
{
	channel->leading = false;
	if (channel->plain && channel->taking_fds)
		pthread_cond_broadcast(&channel->idle);
}

/*
 * Lock held, nobody leads: receive once and deal with what came. deadline_us 0: for as long as the
 * socket's own timeout says. 0, -ETIMEDOUT at the deadline, -ETIME when a message was begun and not
 * ended in time, -ENOTCONN, -EPROTO.
 */
static int lead(struct qsc_channel *channel, uint64_t deadline_us)
{
	struct qsc_channel_input input;
	struct qsc_message message;
	struct qsc_call *direct;
	uint64_t until = deadline_us;
	struct iovec iov;
	int result;

	channel->leading = true;
	channel->plain = channel->no_command_fds && !channel->taking_fds;
	if (channel->partial_us) {
		until = channel->partial_us + (uint64_t)channel->message_timeout_ms * 1000;
		if (deadline_us)
			until = qsc_min_u64(until, deadline_us);
	}
	direct = qsc_wire_stream_partial(&channel->stream) ? find_direct(channel, &message) : NULL;
	if (direct) {
		result = receive_direct(channel, direct, &message);
		stop_leading(channel);
		return result;
	}
	iov.iov_len = choose_space(channel, &iov.iov_base);
	if (!iov.iov_len) {
		/* Commands fill the buffer; their turn must come first. */
		result = wait_idle(channel, until) ? -ETIMEDOUT : 0;
		stop_leading(channel);
		return result;
	}
	pthread_mutex_unlock(&channel->lock);
	result = qsc_channel_receive(channel, &iov, 1, until, &input);
	pthread_mutex_lock(&channel->lock);
	channel->ended |= input.ended;
	if (!result) {
		result = qsc_wire_stream_received(&channel->stream, input.size, input.fds,
						  input.num_fds);
		if (result < 0)
			close_fds(input.fds, input.num_fds);
		else
			result = dispatch(channel);
	} else if (result == -ETIMEDOUT && until != deadline_us) {
		result = -ETIME;
	}
	stop_leading(channel);
	return result;
}

/*
 * Lock held. A call that takes descriptors waits for a receive that does not, so that its reply
 * cannot come to that one.
 */
static int claim_slot(struct qsc_channel *channel, struct qsc_call *call, uint64_t deadline_us)
{
	int result = 0;

	channel->taking_fds += call->max_fds != 0;
	while (!result && !qsc_channel_broken(channel) &&
	       (channel->busy == UINT64_MAX ||
		(call->max_fds && channel->leading && channel->plain)))
		result = wait_idle(channel, deadline_us) ? -ETIMEDOUT : 0;
	if (!result && qsc_channel_broken(channel))
		result = -ENOTCONN;
	if (result < 0) {
		channel->taking_fds -= call->max_fds != 0;
		return result;
	}
	call->slot = (unsigned int)__builtin_ctzll(~channel->busy);
	call->id = (uint16_t)(++channel->generation * QSC_CHANNEL_CALLS | call->slot);
	channel->busy |= 1ULL << call->slot;
	channel->calls[call->slot] = call;
	return 0;
}

/* Lock held. */
static void release_slot(struct qsc_channel *channel, const struct qsc_call *call)
{
	bool full = channel->busy == UINT64_MAX;

	channel->taking_fds -= call->max_fds != 0;
	channel->calls[call->slot] = NULL;
	channel->busy &= ~(1ULL << call->slot);
	if (channel->idlers && (full || !channel->busy))
		pthread_cond_broadcast(&channel->idle);
}

/* Lock held: sleep until the call is done, it is this one's turn to lead, or it is too late. */
static int follow(struct qsc_channel *channel, struct qsc_call *call, uint64_t deadline_us)
{
	struct timespec until = to_timespec(deadline_us);
	int result;

	channel->waiting |= 1ULL << call->slot;
	result = pthread_cond_timedwait(&channel->turn[call->slot], &channel->lock, &until);
	if (result == ETIMEDOUT && !call->done)
		break_off(channel);
	channel->waiting &= ~(1ULL << call->slot);
	return result == ETIMEDOUT && !call->done ? -ETIMEDOUT : 0;
}

/* Lock held. Whoever receives into a call's memory must be out of it before it is given back. */
static void await_diverted(struct qsc_channel *channel, const struct qsc_call *call)
{
	while (call->diverted) {
		channel->waiting |= 1ULL << call->slot;
		pthread_cond_wait(&channel->turn[call->slot], &channel->lock);
		channel->waiting &= ~(1ULL << call->slot);
	}
}

/* Lock held. */
static int await(struct qsc_channel *channel, struct qsc_call *call)
{
	/* The socket's own timeout serves for a first receive, and the watchdog for all of them. */
	bool timed = channel->command && !channel->poll && !call->until_us;
	uint64_t until = channel->watching || timed ? 0 : call->deadline_us;
	int result = 0;

	while (!call->done && !result) {
		if (qsc_channel_broken(channel)) {
			result = -ENOTCONN;
		} else if (channel->leading) {
			result = follow(channel, call, call->deadline_us);
		} else {
			result = lead(channel, until);
			if (result < 0)
				break_off(channel);
			if (result == -ETIME)
				result = -ETIMEDOUT;
		}
		until = channel->watching ? 0 : call->deadline_us;
	}
	if (call->expired)
		result = -ETIMEDOUT;
	await_diverted(channel, call);
	if (!channel->leading)
		promote(channel);
	return call->done ? 0 : result;
}

static int send_message(struct qsc_channel *channel, struct iovec *iov, size_t iovcnt,
			const int *fds, size_t num_fds)
{
	int result;

	pthread_mutex_lock(&channel->send_lock);
	result = qsc_channel_transmit(channel, iov, iovcnt, fds, num_fds);
	pthread_mutex_unlock(&channel->send_lock);
	return result;
}

static void fill_header(struct iovec *iov, size_t iovcnt, uint16_t id, uint16_t command,
			uint32_t flags)
{
	struct qsc_wire_header header = {.id = id, .command = command, .flags = flags};
	size_t size = 0;
	size_t i;

	for (i = 0; i < iovcnt; i++)
		size += iov[i].iov_len;
	header.size = (uint32_t)size;
	memcpy(iov[0].iov_base, &header, sizeof(header));
}

int qsc_channel_begin(struct qsc_channel *channel, struct qsc_call *call, struct iovec *iov,
		      size_t iovcnt, const int *fds, size_t num_fds)
{
	int result;

	call->deadline_us = coarse_now_us() + (uint64_t)channel->call_timeout_ms * 1000;
	if (call->until_us)
		call->deadline_us = qsc_min_u64(call->deadline_us, call->until_us);
	pthread_mutex_lock(&channel->lock);
	result = claim_slot(channel, call, call->deadline_us);
	pthread_mutex_unlock(&channel->lock);
	if (result < 0)
		return result;
	fill_header(iov, iovcnt, call->id, call->command, 0);
	result = send_message(channel, iov, iovcnt, fds, num_fds);
	if (result < 0) {
		pthread_mutex_lock(&channel->lock);
		break_off(channel);
		if (call->expired)
			result = -ETIMEDOUT;
		/* A peer may answer a request of which it has not seen the end. */
		await_diverted(channel, call);
		release_slot(channel, call);
		pthread_mutex_unlock(&channel->lock);
	}
	return result;
}

int qsc_channel_finish(struct qsc_channel *channel, struct qsc_call *call)
{
	int result;

	pthread_mutex_lock(&channel->lock);
	result = await(channel, call);
	release_slot(channel, call);
	pthread_mutex_unlock(&channel->lock);
	return result;
}

int qsc_channel_call(struct qsc_channel *channel, struct qsc_call *call, struct iovec *iov,
		     size_t iovcnt, const int *fds, size_t num_fds)
{
	int result = qsc_channel_begin(channel, call, iov, iovcnt, fds, num_fds);

	return result < 0 ? result : qsc_channel_finish(channel, call);
}

int qsc_channel_send(struct qsc_channel *channel, struct iovec *iov, size_t iovcnt, const int *fds,
		     size_t num_fds)
{
	int result;

	if (qsc_channel_broken(channel))
		return -ENOTCONN;
	result = send_message(channel, iov, iovcnt, fds, num_fds);
	if (result < 0)
		qsc_channel_shutdown(channel);
	return result;
}

int qsc_channel_post(struct qsc_channel *channel, uint16_t command, struct iovec *iov,
		     size_t iovcnt)
{
	fill_header(iov, iovcnt, 0, command, QSC_WIRE_NO_REPLY);
	return qsc_channel_send(channel, iov, iovcnt, NULL, 0);
}

int qsc_channel_reply(struct qsc_channel *channel, const struct qsc_wire_header *command,
		      void *message, size_t size, const int *fds, size_t num_fds)
{
	struct iovec iov = {.iov_base = message, .iov_len = size};

	if (command->flags & QSC_WIRE_NO_REPLY)
		return 0;
	fill_header(&iov, 1, command->id, command->command, QSC_WIRE_TYPE_REPLY);
	return qsc_channel_send(channel, &iov, 1, fds, num_fds);
}

int qsc_channel_reply_error(struct qsc_channel *channel, const struct qsc_wire_header *command,
			    int error)
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
	return qsc_channel_send(channel, &iov, 1, NULL, 0);
}

int qsc_channel_next(struct qsc_channel *channel, uint64_t deadline_us, struct qsc_message *message,
		     const int **fds, size_t *num_fds)
{
	int result = 0;

	close_fds(channel->held_fds, channel->num_held);
	channel->num_held = 0;
	pthread_mutex_lock(&channel->lock);
	if (channel->pinned) {
		channel->pinned = false;
		qsc_wire_stream_drop(&channel->stream, &channel->current);
		if (channel->idlers)
			pthread_cond_broadcast(&channel->idle);
	}
	while (!qsc_wire_stream_first(&channel->stream, message) && !result) {
		if (qsc_channel_broken(channel))
			result = -ENOTCONN;
		else if (channel->leading)
			result = wait_idle(channel, deadline_us) ? -ETIMEDOUT : 0;
		else
			result = lead(channel, deadline_us);
	}
	if (result < 0) {
		break_off(channel);
	} else {
		channel->pinned = true;
		channel->current = *message;
		channel->num_held = qsc_wire_stream_take_fds(&channel->stream, message->start,
							     channel->held_fds, QSC_STREAM_MAX_FDS);
		*fds = channel->held_fds;
		*num_fds = channel->num_held;
		if (!channel->leading && channel->waiting)
			promote(channel);
	}
	pthread_mutex_unlock(&channel->lock);
	return result;
}

/* Lock held: sleep until something has come and nobody else is about to receive it. */
static void wait_readable(struct qsc_channel *channel)
{
	struct pollfd poll_fd = {.fd = channel->fd, .events = POLLIN};
	int timeout = channel->partial_us ? (int)channel->message_timeout_ms : -1;

	if (channel->leading || channel->busy) {
		wait_idle(channel, 0);
		return;
	}
	pthread_mutex_unlock(&channel->lock);
	poll(&poll_fd, 1, timeout);
	pthread_mutex_lock(&channel->lock);
}

void qsc_channel_serve(struct qsc_channel *channel, bool shared)
{
	int result;

	pthread_mutex_lock(&channel->lock);
	while (!qsc_channel_broken(channel)) {
		if (shared) {
			wait_readable(channel);
			if (channel->leading || channel->busy || qsc_channel_broken(channel))
				continue;
		}
		/* Any past moment: take what is there. */
		result = lead(channel, shared ? 1 : 0);
		if (result < 0 && result != -ETIMEDOUT)
			break_off(channel);
		else if (shared)
			promote(channel);
		else if (result < 0)
			wait_readable(channel);
	}
	pthread_mutex_unlock(&channel->lock);
}
