/* SPDX-License-Identifier: MIT */
/* See raw.h. */
#include "raw.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"

void raw_send(int fd, uint16_t id, uint16_t command, uint32_t flags, const void *body, size_t size,
	      const int *fds, size_t num_fds, size_t piece)
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * 253)];
	} control = {.bytes = {0}};
	struct qsc_wire_header header = {.id = id,
					 .command = command,
					 .size = (uint32_t)(sizeof(header) + size),
					 .flags = flags};
	size_t total = sizeof(header) + size;
	qsc_autofree char *bytes = malloc(total);
	size_t done = 0;

	memcpy(bytes, &header, sizeof(header));
	if (size)
		memcpy(bytes + sizeof(header), body, size);
	while (done < total) {
		struct iovec iov = {.iov_base = bytes + done, .iov_len = total - done};
		struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t n;

		if (piece && iov.iov_len > piece)
			iov.iov_len = piece;
		if (num_fds) {
			message.msg_control = &control;
			message.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);
			control.header.cmsg_level = SOL_SOCKET;
			control.header.cmsg_type = SCM_RIGHTS;
			control.header.cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
			memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * num_fds);
		}
		n = sendmsg(fd, &message, MSG_NOSIGNAL);
		if (n < 0)
			return; /* the peer closed: the test sees it when it receives */
		num_fds = 0;
		done += (size_t)n;
	}
}

static int receive_bytes(int fd, void *buf, size_t size, int *fds, size_t *num_fds)
{
	size_t done = 0;

	while (done < size) {
		union {
			struct cmsghdr header;
			char bytes[CMSG_SPACE(sizeof(int) * 253)];
		} control;
		struct iovec iov = {.iov_base = (char *)buf + done, .iov_len = size - done};
		struct msghdr message = {.msg_iov = &iov,
					 .msg_iovlen = 1,
					 .msg_control = &control,
					 .msg_controllen = sizeof(control)};
		ssize_t n = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
		struct cmsghdr *at;

		if (n <= 0)
			return 0;
		for (at = CMSG_FIRSTHDR(&message); at; at = CMSG_NXTHDR(&message, at)) {
			size_t count = (at->cmsg_len - CMSG_LEN(0)) / sizeof(int);

			assert_non_null(fds);
			memcpy(fds + *num_fds, CMSG_DATA(at), count * sizeof(int));
			*num_fds += count;
		}
		done += (size_t)n;
	}
	return 1;
}

int raw_receive(int fd, struct raw *message, int *fds, size_t *num_fds)
{
	size_t none = 0;

	if (!num_fds)
		num_fds = &none;
	*num_fds = 0;
	if (!receive_bytes(fd, &message->header, sizeof(message->header), fds, num_fds))
		return 0;
	assert_in_range(message->header.size, sizeof(message->header), sizeof(*message));
	return receive_bytes(fd, message->body, message->header.size - sizeof(message->header), fds,
			     num_fds);
}

int raw_request(int fd, uint16_t command, const void *body, size_t size, const int *fds,
		size_t num_fds, struct raw *reply)
{
	raw_send(fd, 0x1234, command, 0, body, size, fds, num_fds, 0);
	if (!raw_receive(fd, reply, NULL, NULL))
		return 1;
	assert_int_equal(reply->header.id, 0x1234);
	assert_int_equal(reply->header.command, command);
	assert_int_equal(reply->header.flags & QSC_WIRE_TYPE_MASK, QSC_WIRE_TYPE_REPLY);
	if (!(reply->header.flags & QSC_WIRE_ERROR))
		return 0;
	assert_int_equal(reply->header.size, sizeof(reply->header));
	return -(int)reply->header.error;
}

void raw_hello(int fd, bool quiesce, int *twin)
{
	struct raw *reply = malloc(sizeof(*reply));
	char body[256] = {0};
	int fds[253] = {-1};
	size_t num_fds;
	int n = snprintf(body + 4, sizeof(body) - 4,
			 "{\"capabilities\":{\"max_msg_fds\":8,\"write_multiple\":true%s%s}}",
			 twin ? ",\"twin_socket\":{\"supported\":true}" : "",
			 quiesce ? ",\"quiesce\":{\"version\":1}" : "");

	raw_send(fd, 1, QSC_WIRE_VERSION, 0, body, (size_t)n + 5, NULL, 0, 0);
	assert_int_equal(raw_receive(fd, reply, fds, &num_fds), 1);
	assert_int_equal(reply->header.flags, QSC_WIRE_TYPE_REPLY);
	assert_int_equal(num_fds, twin ? 1 : 0);
	if (twin)
		*twin = fds[0];
	free(reply);
}
