/* SPDX-License-Identifier: MIT */
/*
 * A long, bad cable between two network interfaces, for tests between hosts: frames that arrive at
 * one leave at the other after a delay, some are lost, and none pass while it is cut. Kernels
 * without netem are common, and a loss that follows a seed is the same in every run.
 *
 *	link INTERFACE INTERFACE
 *
 * Obeys lines on its input and answers each with "ok": "delay MILLISECONDS" (each way), "loss
 * PERMILLE", "cut", "mend", "cut-after BYTES" (that pass from now on, both ways), "cut-at TYPE"
 *(the next message of that type without a payload, src/migrate/frame.h, in clear over TCP: it is
 *the first that does not pass), both until "mend". It says "cut" when one of these happens. Ends
 *with its input.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_FRAME  65536U
#define MAX_QUEUED (16U << 20) /* bytes in one direction; more is dropped, as a router does */

/* Of the frames on the cable, and of the messages in them. */
#define ETHERNET_SIZE 14U
#define IPV4	      4U
#define IPV4_MIN      20U
#define TCP_MIN	      20U
#define MESSAGE_SIZE  40U

struct frame {
	struct frame *next;
	uint64_t due_ns;
	size_t size;
	uint8_t bytes[];
};

/* One direction; its frames leave in the order in which they came. */
struct direction {
	int from;
	int to;
	struct frame *first;
	struct frame **last;
	size_t queued;
};

struct cable {
	struct direction directions[2];
	uint64_t delay_ns;
	unsigned long loss_permille;
	bool cut;
	bool drains;	    /* what came before the cut arrives */
	uint64_t cut_after; /* bytes still to pass; 0: no limit */
	uint32_t cut_at;    /* type of message; 0: none */
	uint64_t random;
};

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "link: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static int open_interface(const char *name)
{
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET,
		.sll_protocol = htons(ETH_P_ALL),
		.sll_ifindex = (int)if_nametoindex(name),
	};
	const struct packet_mreq all = {.mr_ifindex = address.sll_ifindex,
					.mr_type = PACKET_MR_PROMISC};
	const int one = 1;
	const int room = 8 << 20;
	int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (!address.sll_ifindex || fd < 0 ||
	    setsockopt(fd, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &all, sizeof(all)) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &one, sizeof(one)) ||
	    bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		die(name);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room));
	return fd;
}

/* ---- frames ---- */

static bool is_lost(struct cable *cable)
{
	cable->random = cable->random * 6364136223846793005U + 1442695040888963407U;
	return cable->cut || (cable->random >> 33) % 1000 < cable->loss_permille;
}

/* Of the message that is all there is in this frame; 0 when it is something else. */
static uint32_t message_type(const uint8_t *bytes, size_t size)
{
	const uint8_t *ip = bytes + ETHERNET_SIZE;
	size_t head = ETHERNET_SIZE;

	if (size < ETHERNET_SIZE + IPV4_MIN + TCP_MIN + MESSAGE_SIZE || ip[0] >> 4 != IPV4 ||
	    ip[9] != IPPROTO_TCP)
		return 0;
	size = ETHERNET_SIZE + (size_t)(ip[2] << 8 | ip[3]); /* without padding */
	head += 4U * (ip[0] & 15U);
	head += 4U * (bytes[head + 12] >> 4);
	if (head + MESSAGE_SIZE != size)
		return 0;
	bytes += head;
	return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
	       (uint32_t)bytes[3] << 24;
}

/* Whether it is the one that is waited for, at which the cable is cut. */
static bool is_end(struct cable *cable, const uint8_t *bytes, size_t size)
{
	if (!cable->cut_at || message_type(bytes, size) != cable->cut_at)
		return false;
	cable->cut_at = 0;
	cable->cut = cable->drains = true;
	puts("cut");
	return true;
}

static void count(struct cable *cable, size_t size)
{
	if (!cable->cut_after)
		return;
	if (cable->cut_after > size) {
		cable->cut_after -= size;
		return;
	}
	cable->cut_after = 0;
	cable->cut = true;
	puts("cut");
}

static void take(struct cable *cable, struct direction *direction)
{
	static uint8_t bytes[MAX_FRAME];
	struct frame *frame;
	ssize_t n;

	while ((n = recv(direction->from, bytes, sizeof(bytes), 0)) > 0) {
		if (is_lost(cable) || direction->queued + (size_t)n > MAX_QUEUED ||
		    is_end(cable, bytes, (size_t)n))
			continue;
		count(cable, (size_t)n);
		frame = malloc(sizeof(*frame) + (size_t)n);
		if (!frame)
			die("frame");
		frame->next = NULL;
		frame->due_ns = now_ns() + cable->delay_ns;
		frame->size = (size_t)n;
		memcpy(frame->bytes, bytes, (size_t)n);
		*direction->last = frame;
		direction->last = &frame->next;
		direction->queued += (size_t)n;
	}
}

static void deliver(const struct cable *cable, struct direction *direction)
{
	uint64_t now = now_ns();

	while (direction->first && direction->first->due_ns <= now) {
		struct frame *frame = direction->first;

		if ((!cable->cut || cable->drains) &&
		    send(direction->to, frame->bytes, frame->size, 0) < 0 &&
		    (errno == ENOBUFS || errno == EAGAIN))
			return;
		direction->first = frame->next;
		if (!direction->first)
			direction->last = &direction->first;
		direction->queued -= frame->size;
		free(frame);
	}
}

/* ---- orders ---- */

static void obey(struct cable *cable, const char *line)
{
	unsigned long long value;

	if (!strcmp(line, "cut")) {
		cable->cut = true;
		cable->drains = false;
	} else if (!strcmp(line, "mend")) {
		cable->cut = cable->drains = false;
		cable->cut_after = cable->cut_at = 0;
	} else if (sscanf(line, "delay %llu", &value) == 1)
		cable->delay_ns = value * 1000000U;
	else if (sscanf(line, "loss %llu", &value) == 1)
		cable->loss_permille = (unsigned long)value;
	else if (sscanf(line, "cut-after %llu", &value) == 1)
		cable->cut_after = value;
	else if (sscanf(line, "cut-at %llu", &value) == 1)
		cable->cut_at = (uint32_t)value;
	else {
		fprintf(stderr, "link: '%s' is no order\n", line);
		exit(2);
	}
	puts("ok");
}

static void read_orders(struct cable *cable)
{
	static char line[128];
	static size_t used;
	char *end;
	ssize_t n = read(STDIN_FILENO, line + used, sizeof(line) - 1 - used);

	if (n <= 0)
		exit(0);
	used += (size_t)n;
	line[used] = '\0';
	while ((end = strchr(line, '\n'))) {
		*end = '\0';
		obey(cable, line);
		used -= (size_t)(end + 1 - line);
		memmove(line, end + 1, used + 1);
	}
}

/* Until the next frame is due, or for ever. */
static const struct timespec *patience(const struct cable *cable, struct timespec *wait)
{
	uint64_t due = UINT64_MAX;
	uint64_t now = now_ns();

	for (int i = 0; i < 2; i++) {
		const struct frame *frame = cable->directions[i].first;

		if (frame && frame->due_ns < due)
			due = frame->due_ns;
	}
	if (due == UINT64_MAX)
		return NULL;
	/* At least a little, where an interface takes no more just now. */
	due = due > now + 50000 ? due - now : 50000;
	wait->tv_sec = (time_t)(due / 1000000000U);
	wait->tv_nsec = (long)(due % 1000000000U);
	return wait;
}

int main(int argc, char **argv)
{
	struct cable cable = {.random = 1};
	struct pollfd polls[3];
	struct timespec wait;

	if (argc != 3) {
		fprintf(stderr, "usage: link INTERFACE INTERFACE\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < 2; i++)
		polls[i] = (struct pollfd){.fd = open_interface(argv[1 + i]), .events = POLLIN};
	polls[2] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
	for (int i = 0; i < 2; i++) {
		cable.directions[i].from = polls[i].fd;
		cable.directions[i].to = polls[!i].fd;
		cable.directions[i].last = &cable.directions[i].first;
	}
	puts("ready");
	for (;;) {
		if (ppoll(polls, 3, patience(&cable, &wait), NULL) < 0 && errno != EINTR)
			die("poll");
		if (polls[2].revents)
			read_orders(&cable);
		for (int i = 0; i < 2; i++) {
			if (polls[i].revents)
				take(&cable, &cable.directions[i]);
			deliver(&cable, &cable.directions[i]);
		}
	}
}
