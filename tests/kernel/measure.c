/* SPDX-License-Identifier: MIT */
/*
 * What the client costs on the way of the state data: the session of a device is read through the
 * client and with bare read(), in turn, piece by piece of the same size: of the smallest that mtty
 * makes, where only the calls count, and of what a move asks for. mtty's stream is short, so many
 * sessions are read.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/kernel/kernel.h"
#include "guest.h"

#define SESSIONS 400
#define LARGEST	 (1U << 20)

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000ULL + (uint64_t)now.tv_nsec;
}

static int compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left;
	uint64_t b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

/* Nanoseconds for all of a stream, the pieces as read() gives them. */
static uint64_t read_stream(struct qsc_device *dev, uint64_t session, size_t piece, bool bare)
{
	static char buf[LARGEST];
	int fd = qsc_kernel_of(dev)->session_fd;
	uint64_t begin = now_ns();

	if (bare)
		while (read(fd, buf, piece) > 0)
			;
	else
		while (qsc_device_session_read(dev, session, buf, piece) > 0)
			;
	return now_ns() - begin;
}

/* In bytes a microsecond. */
static double median_rate(uint64_t size, uint64_t *times)
{
	const size_t middle = SESSIONS / 2;

	qsort(times, SESSIONS, sizeof(times[0]), compare);
	return (double)size * 1e3 / (double)times[middle];
}

static void measure(struct qsc_device *dev, uint64_t size, size_t piece)
{
	static uint64_t times[2][SESSIONS];
	uint64_t session;
	double client, bare;

	for (int i = 0; i < 2 * SESSIONS; i++) {
		if (qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session) < 0)
			give_up("STOP_COPY cannot be reached");
		times[i % 2][i / 2] = read_stream(dev, session, piece, i % 2);
		if (qsc_device_set_state(dev, QSC_STATE_STOP, &session) < 0)
			give_up("STOP cannot be reached");
	}
	client = median_rate(size, times[0]);
	bare = median_rate(size, times[1]);
	say("FIGURE data %.2f MB/s through the client, %.2f MB/s with bare read(), asked for by "
	    "%zu "
	    "bytes: %.2f of it",
	    client, bare, piece, client / bare);
	check(client > bare / 2, "state data comes nearly as fast as the kernel gives it",
	      "%.2f of it", client / bare);
}

int cmd_measure(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	uint64_t size = 0;

	(void)argc;
	if (qsc_device_data_size(dev, &size) < 0)
		give_up("it tells no size");
	measure(dev, size, 4);
	measure(dev, size, LARGEST);
	qsc_device_close(dev);
	return 0;
}
