/* SPDX-License-Identifier: MIT */
/*
 * Sending memory by reference: its pages go into a pipe, and from there to the peer's end of the
 * socket, without a copy on this side. Only for memory that keeps its contents until the peer has
 * received them; whoever sends knows that. Where the system does not do it, memory is copied.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "rpc/internal.h"

/* Bytes in the pipe; as many as the system gives. A page of its own for every part. */
#define PIPE_SIZE (512 << 10)
/* From one look at the deadline to the next; what a socket that can be written to has room for. */
#define PASS_STEP (64U << 10)

static bool have_pipe(struct qsc_rpc *rpc)
{
	if (rpc->pass[0] >= 0)
		return true;
	if (rpc->no_pass || pipe2(rpc->pass, O_CLOEXEC | O_NONBLOCK) < 0)
		return false;
	/* Less only costs time. */
	(void)fcntl(rpc->pass[1], F_SETPIPE_SZ, PIPE_SIZE);
	return true;
}

void qsc_rpc_end_passing(struct qsc_rpc *rpc)
{
	qsc_fd_close(&rpc->pass[0]);
	qsc_fd_close(&rpc->pass[1]);
	rpc->no_pass = true;
}

/* What of a message is not yet in the pipe. */
struct feed {
	const struct qsc_rpc_output *output;
	size_t part;
	size_t at; /* in the part */
};

/* Fill the pipe: bytes that it took. */
static size_t feed_pipe(const struct qsc_rpc *rpc, struct feed *feed)
{
	const struct qsc_rpc_output *output = feed->output;
	size_t fed = 0;

	while (feed->part < output->iovcnt) {
		const struct iovec *part = &output->iov[feed->part];
		struct iovec rest = {.iov_base = (char *)part->iov_base + feed->at,
				     .iov_len = part->iov_len - feed->at};
		ssize_t n;

		if (output->resting >> feed->part & 1)
			n = vmsplice(rpc->pass[1], &rest, 1, SPLICE_F_NONBLOCK);
		else
			n = write(rpc->pass[1], rest.iov_base, rest.iov_len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		fed += (size_t)n;
		feed->at += (size_t)n;
		if (feed->at == part->iov_len) {
			feed->part++;
			feed->at = 0;
		}
	}
	return fed;
}

/* Empty the pipe into the socket. How much did not go is told in *left. */
static int drain_pipe(const struct qsc_rpc *rpc, size_t *left, uint64_t deadline_us)
{
	while (*left) {
		/* A splice can only be told not to sleep by the socket's own flags: so not before.
		 */
		int result = qsc_rpc_wait_for(rpc->fd, POLLOUT, deadline_us);
		ssize_t n;

		if (result < 0)
			return result == -ETIMEDOUT ? -EAGAIN : result;
		n = splice(rpc->pass[0], NULL, rpc->fd, NULL, qsc_min_u64(*left, PASS_STEP), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EIO;
		*left -= (size_t)n;
	}
	return 0;
}

static ssize_t pass_all(struct qsc_rpc *rpc, const struct qsc_rpc_output *output,
			uint64_t deadline_us)
{
	struct feed feed = {.output = output};
	size_t done = 0;
	size_t fed;

	while ((fed = feed_pipe(rpc, &feed))) {
		size_t left = fed;
		int result = drain_pipe(rpc, &left, deadline_us);

		done += fed - left;
		if (result == -EINVAL || result == -ENOSYS || result == -EOPNOTSUPP)
			break;
		if (result < 0)
			return result == -EAGAIN ? -ETIMEDOUT : -ENOTCONN;
	}
	return (ssize_t)done;
}

/*
 * A splice to a socket whose peer is gone raises SIGPIPE, and cannot be told not to: it is held
 * back meanwhile and, when it came from here, taken.
 */
ssize_t qsc_rpc_pass(struct qsc_rpc *rpc, const struct qsc_rpc_output *output, uint64_t deadline_us)
{
	const struct timespec at_once = {0};
	sigset_t pipe_signal;
	sigset_t before;
	sigset_t pending;
	ssize_t n;

	if (!have_pipe(rpc))
		return 0;
	sigemptyset(&pipe_signal);
	sigaddset(&pipe_signal, SIGPIPE);
	sigpending(&pending);
	if (pthread_sigmask(SIG_BLOCK, &pipe_signal, &before))
		return 0;
	n = pass_all(rpc, output, deadline_us);
	if (n == -ENOTCONN && !sigismember(&pending, SIGPIPE))
		while (sigtimedwait(&pipe_signal, NULL, &at_once) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (n >= 0 && (size_t)n < output->size)
		qsc_rpc_end_passing(rpc);
	return n;
}
