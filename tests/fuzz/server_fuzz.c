/* SPDX-License-Identifier: MIT */
/*
 * A whole connection of the server, with a device behind it, fed by a client that may do anything.
 * Input: one byte of options, one that says in what pieces to send, and what to send.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <quiesce/server.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "vfio_user/fake.h"
#include "wire/version.h"

enum { GREET = 1, TWIN = 2, QUIESCE = 4, DESCRIPTORS = 8 };

struct server {
	struct qsc_server_options options;
	int fd;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct fake *fake;
static int memory = -1;

static void *serve(void *arg)
{
	struct server *server = arg;

	(void)qsc_server_serve_fd(&server->options, server->fd);
	return NULL;
}

static size_t greeting(uint8_t options, uint8_t *out, size_t max)
{
	struct qsc_wire_version version = {QSC_WIRE_MAJOR, QSC_WIRE_MINOR};
	struct qsc_wire_caps caps = {.max_msg_fds = 8,
				     .max_data_xfer_size = 4096,
				     .max_dma_maps = 64,
				     .pgsizes = 4096,
				     .twin_socket = options & TWIN,
				     .twin_fd_index = UINT32_MAX,
				     .write_multiple = true,
				     .quiesce = options & QUIESCE};
	struct qsc_wire_header header = {.command = QSC_WIRE_VERSION};
	int n = qsc_wire_encode_version(&version, &caps, out + sizeof(header), max);

	header.size = (uint32_t)(sizeof(header) + (size_t)n);
	memcpy(out, &header, sizeof(header));
	return header.size;
}

/* Take whatever came, and close what came with it. */
static ssize_t drain(int fd)
{
	static char sink[1 << 16];
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 253)];
	} control;
	struct iovec iov = {.iov_base = sink, .iov_len = sizeof(sink)};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = &control,
				 .msg_controllen = sizeof(control)};
	ssize_t n = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *at;

	for (at = CMSG_FIRSTHDR(&message); n >= 0 && at; at = CMSG_NXTHDR(&message, at)) {
		size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		int fds[253];

		memcpy(fds, CMSG_DATA(at), count * sizeof(int));
		while (count)
			close(fds[--count]);
	}
	return n;
}

static ssize_t send_piece(int fd, const uint8_t *data, size_t size, bool descriptor)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (descriptor) {
		message.msg_control = &control;
		message.msg_controllen = sizeof(control);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &memory, sizeof(int));
	}
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* Send everything in pieces, reading all the while, and wait for the server to let go. */
static void converse(int fd, const uint8_t *data, size_t size, uint8_t piece, bool descriptors)
{
	struct pollfd poll_fd = {.fd = fd};
	size_t pieces = 0;

	for (;;) {
		poll_fd.events = POLLIN | (size ? POLLOUT : 0);
		poll(&poll_fd, 1, -1);
		if (poll_fd.revents & (POLLIN | POLLHUP | POLLERR) && drain(fd) == 0)
			return;
		if (size && poll_fd.revents & POLLOUT) {
			size_t part = piece ? qsc_min_u64(piece, size) : size;
			ssize_t n = send_piece(fd, data, part, descriptors && !(pieces++ & 3));

			if (n < 0 && errno != EAGAIN)
				size = 0;
			if (n > 0) {
				data += n;
				size -= (size_t)n;
			}
			if (!size)
				shutdown(fd, SHUT_WR);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct server server = {.options = {.open = fake_open,
					    .handshake_timeout_ms = 20,
					    .message_timeout_ms = 20,
					    .reply_timeout_ms = 1,
					    .max_data_xfer_size = 8192}};
	uint8_t *bytes;
	pthread_t thread;
	size_t length = 0;
	int pair[2];

	if (size < 2)
		return 0;
	if (!fake) {
		(void)fake_create(&fake);
		memory = qsc_fd_memory("fuzz", 65536);
	}
	bytes = malloc(size + 512);
	server.options.open_ctx = fake;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	server.fd = pair[0];
	if (pthread_create(&thread, NULL, serve, &server))
		abort();
	if (data[0] & GREET)
		length = greeting(data[0], bytes, 400);
	memcpy(bytes + length, data + 2, size - 2);
	length += size - 2;
	if (length)
		converse(pair[1], bytes, length, data[1], data[0] & DESCRIPTORS);
	close(pair[1]);
	pthread_join(thread, NULL);
	free(bytes);
	/* However it went, the device is free again. */
	if (fake->open)
		abort();
	return 0;
}
