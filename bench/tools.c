/* SPDX-License-Identifier: MIT */
/* Time, memory and the processes at the other end. */
#include "bench.h"

#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <quiesce/server.h>

void bench_die(const char *what, int ret)
{
	fprintf(stderr, "quiesce-bench: %s: %s\n", what, strerror(ret < 0 ? -ret : ret));
	exit(1);
}

uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a;
	double y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_median(double *samples, size_t count)
{
	qsort(samples, count, sizeof(*samples), compare);
	return count % 2 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
}

void bench_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		bench_die("cannot stay on one CPU", errno);
}

void bench_spread(const struct bench_run *run)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET((size_t)run->cpus[0], &set);
	CPU_SET((size_t)run->cpus[1], &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		bench_die("cannot use two CPUs", errno);
}

void *bench_memory(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		bench_die("no memory", errno);
	madvise(memory, size, MADV_HUGEPAGE);
	memset(memory, 0x5a, size);
	return memory;
}

void bench_peer_start(struct bench_peer *peer, int cpu, bench_serve_fn *serve, const void *arg)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		bench_die("cannot make a socket", errno);
	fflush(NULL);
	peer->pid = fork();
	if (peer->pid < 0)
		bench_die("cannot start a process", errno);
	if (!peer->pid) {
		close(fds[0]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		bench_pin(cpu);
		serve(fds[1], arg);
		_exit(0);
	}
	close(fds[1]);
	peer->fd = fds[0];
}

void bench_peer_pause(const struct bench_peer *peer)
{
	kill(peer->pid, SIGSTOP);
	waitpid(peer->pid, NULL, WUNTRACED);
}

void bench_peer_resume(const struct bench_peer *peer)
{
	kill(peer->pid, SIGCONT);
	waitpid(peer->pid, NULL, WCONTINUED);
}

void bench_peer_end(struct bench_peer *peer)
{
	if (peer->fd >= 0)
		close(peer->fd);
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	*peer = (struct bench_peer){-1, -1};
}

/* ---- the bare socket ---- */

/* All of it; false at the end of the stream. */
static bool receive(int fd, void *buf, size_t size, bool spin)
{
	size_t done = 0;

	while (done < size) {
		ssize_t got = recv(fd, (char *)buf + done, size - done, spin ? MSG_DONTWAIT : 0);

		if (got > 0)
			done += (size_t)got;
		else if (!got || (errno != EAGAIN && errno != EINTR))
			return false;
	}
	return true;
}

static bool transmit(int fd, struct iovec *iov, bool spin)
{
	size_t left = iov[0].iov_len + iov[1].iov_len;
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = iov[1].iov_len ? 2 : 1};

	while (left) {
		ssize_t sent = sendmsg(fd, &msg, MSG_NOSIGNAL | (spin ? MSG_DONTWAIT : 0));

		if (sent < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return false;
		}
		left -= (size_t)sent;
		for (size_t i = 0; i < msg.msg_iovlen; i++) {
			size_t part = (size_t)sent < iov[i].iov_len ? (size_t)sent : iov[i].iov_len;

			iov[i].iov_base = (char *)iov[i].iov_base + part;
			iov[i].iov_len -= part;
			sent -= (ssize_t)part;
		}
	}
	return true;
}

void bench_bare_serve(int fd, const void *arg)
{
	const struct bench_bare *bare = arg;
	char *memory = bare->memory ? bench_memory(bare->memory) : NULL;
	char *upload = bare->upload ? bench_memory(bare->upload) : NULL;
	char request[256];
	char header[256] = {0};
	size_t at = 0;

	while (receive(fd, request, bare->request, bare->poll)) {
		struct iovec iov[2] = {{header, bare->header},
				       {memory ? memory + at : NULL, bare->payload}};

		if (bare->upload && !receive(fd, upload, bare->upload, bare->poll))
			break;
		if (!transmit(fd, iov, bare->poll))
			break;
		at += bare->payload;
		if (at + bare->payload > bare->memory)
			at = 0;
	}
}

void bench_bare_ask(int fd, const struct bench_bare *bare, void *buf)
{
	static const char request[256];

	if (send(fd, request, bare->request, MSG_NOSIGNAL) != (ssize_t)bare->request ||
	    !receive(fd, buf, bare->header + bare->payload, bare->poll))
		bench_die("the bare socket's peer is gone", EPIPE);
}

void bench_bare_give(int fd, const struct bench_bare *bare, const void *upload)
{
	char request[256] = {0};
	char header[256];
	struct iovec iov[2] = {{request, bare->request}, {(void *)(uintptr_t)upload, bare->upload}};

	if (!transmit(fd, iov, bare->poll) || !receive(fd, header, bare->header, bare->poll))
		bench_die("the bare socket's peer is gone", EPIPE);
}

/* ---- the server under test ---- */

void bench_vfio_user_serve(int fd, const void *arg)
{
	const struct bench_served *served = arg;
	const struct qsc_server_options options = {
		.open = served->open,
		.open_ctx = served->open_ctx,
		.poll = served->poll,
	};
	int ret = qsc_server_serve_fd(&options, fd);

	if (ret)
		bench_die("the server ended", ret);
}
