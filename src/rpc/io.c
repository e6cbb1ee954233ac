/* SPDX-License-Identifier: MIT */
/*
 * Moving bytes and descriptors over the socket. The common case is one system call: nothing is
 * polled before something has turned out to be incomplete.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "rpc/internal.h"

/* How many spins between two looks at the clock. */
#define SPINS_PER_CLOCK 1024U

uint64_t qsc_rpc_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

int qsc_rpc_wait_for(int fd, short events, uint64_t deadline_us)
{
	struct pollfd poll_fd = {.fd = fd, .events = events};
	uint64_t now = qsc_rpc_now_us();
	int timeout;

	if (now >= deadline_us)
		return -ETIMEDOUT;
	timeout = (int)qsc_min_u64((deadline_us - now + 999) / 1000, 3600000);
	if (poll(&poll_fd, 1, timeout) < 0 && errno != EINTR)
		return -ENOTCONN;
	return 0;
}

int qsc_rpc_take_fds(const struct qsc_rpc *rpc, struct msghdr *message, struct qsc_rpc_input *input)
{
	struct cmsghdr *control;
	int result = 0;

	for (control = CMSG_FIRSTHDR(message); control; control = CMSG_NXTHDR(message, control)) {
		size_t count;

		if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
			continue;
		count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		if (count > QSC_STREAM_MAX_FDS - input->num_fds) {
			result = -EPROTO;
			break;
		}
		memcpy(input->fds + input->num_fds, CMSG_DATA(control), count * sizeof(int));
		input->num_fds += count;
	}
	/* The kernel had to drop some: they are more than may come, or this process has no room. */
	if (!result && (message->msg_flags & MSG_CTRUNC))
		result = input->num_fds < rpc->max_fds ? -EMFILE : -EPROTO;
	while (result < 0 && input->num_fds)
		qsc_fd_close(&input->fds[--input->num_fds]);
	return result;
}

int qsc_rpc_keep_receiving(struct qsc_rpc *rpc, void *where, size_t size, uint64_t deadline_us,
			   ssize_t n, struct qsc_rpc_input *input)
{
	int flags = deadline_us || rpc->poll ? MSG_DONTWAIT : 0;
	unsigned int spins = 0;
	int result;

	for (;; n = qsc_rpc_try_receive(rpc, where, size, flags, input)) {
		if (n > 0)
			break;
		input->ended = !n;
		if (n == -EINTR)
			continue;
		if (n == -EPROTO || n == -EMFILE)
			return (int)n;
		if (n != -EAGAIN || atomic_load_explicit(&rpc->broken, memory_order_relaxed))
			return -ENOTCONN;
		if (!(flags & MSG_DONTWAIT))
			return -ETIMEDOUT;
		if (!rpc->poll) {
			result = qsc_rpc_wait_for(rpc->fd, POLLIN, deadline_us);
			if (result < 0)
				return result;
		} else if (deadline_us && ++spins % SPINS_PER_CLOCK == 0 &&
			   qsc_rpc_now_us() >= deadline_us) {
			return -ETIMEDOUT;
		}
	}
	input->size = (size_t)n;
	return 0;
}

void qsc_rpc_farewell(struct qsc_rpc *rpc, uint32_t timeout_ms)
{
	uint64_t deadline_us = qsc_rpc_now_us() + (uint64_t)timeout_ms * 1000;
	struct qsc_rpc_input input;
	char sink[256];

	if (qsc_rpc_broken(rpc) || shutdown(rpc->fd, SHUT_WR) < 0)
		return;
	while (qsc_rpc_receive(rpc, sink, sizeof(sink), false, deadline_us, &input) == 0)
		while (input.num_fds)
			qsc_fd_close(&input.fds[--input.num_fds]);
}

/* Take `size` bytes that are dealt with from the front. */
static void skip(struct iovec **iov, size_t *iovcnt, size_t size)
{
	while (*iovcnt && size >= (*iov)->iov_len) {
		size -= (*iov)->iov_len;
		(*iov)++;
		(*iovcnt)--;
	}
	if (size) {
		(*iov)->iov_base = (char *)(*iov)->iov_base + size;
		(*iov)->iov_len -= size;
	}
}

static ssize_t send_with_fds(int fd, struct iovec *iov, size_t iovcnt, const int *fds,
			     size_t num_fds, int flags)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * QSC_STREAM_MAX_FDS)];
	} control;
	struct msghdr message = {.msg_iov = iov, .msg_iovlen = iovcnt};

	if (num_fds) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);
		memset(&control, 0, message.msg_controllen);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * num_fds);
	}
	return sendmsg(fd, &message, flags);
}

ssize_t qsc_rpc_try_send_parts(struct qsc_rpc *rpc, const struct qsc_rpc_output *output)
{
	ssize_t n;

	if (output->num_fds > QSC_STREAM_MAX_FDS)
		return -EINVAL;
	n = send_with_fds(rpc->fd, output->iov, output->iovcnt, output->fds, output->num_fds,
			  MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n >= 0)
		return n;
	return errno == EAGAIN || errno == EINTR ? 0 : -ENOTCONN;
}

int qsc_rpc_transmit(struct qsc_rpc *rpc, const struct qsc_rpc_output *output, size_t sent)
{
	struct iovec *iov = output->iov;
	size_t iovcnt = output->iovcnt;
	size_t num_fds = output->num_fds;
	uint64_t deadline_us = 0;

	if (num_fds > QSC_STREAM_MAX_FDS)
		return -EINVAL;
	if (output->resting && !sent && !num_fds) {
		ssize_t passed;

		deadline_us = qsc_rpc_now_us() + (uint64_t)rpc->message_timeout_ms * 1000;
		passed = qsc_rpc_pass(rpc, output, deadline_us);
		if (passed < 0)
			return (int)passed;
		sent = (size_t)passed;
	}
	skip(&iov, &iovcnt, sent);
	if (sent)
		num_fds = 0;
	while (iovcnt) {
		/* SO_SNDTIMEO would begin anew with every piece that the peer takes. */
		ssize_t n = send_with_fds(rpc->fd, iov, iovcnt, output->fds, num_fds,
					  MSG_NOSIGNAL | MSG_DONTWAIT);
		int result = 0;

		if (n < 0 && errno != EINTR && errno != EAGAIN)
			return -ENOTCONN;
		if (n > 0) {
			skip(&iov, &iovcnt, (size_t)n);
			num_fds = 0;
		}
		if (iovcnt && !deadline_us)
			deadline_us = qsc_rpc_now_us() + (uint64_t)rpc->message_timeout_ms * 1000;
		if (iovcnt)
			result = qsc_rpc_wait_for(rpc->fd, POLLOUT, deadline_us);
		if (result < 0)
			return result;
	}
	return 0;
}
