/* SPDX-License-Identifier: MIT */
/*
 * State data over vfio-user: read, against a bare request and reply and against memcpy, and
 * written, against a bare request that carries them and its short reply.
 */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quiesce/client.h>

#include "dmacopy/dmacopy.h"
#include "models.h"

#define CHUNK ((size_t)1 << 20)
/* Header 16, argsz 4, size 4. */
#define HEADER_SIZE 24

struct source {
	char spec[64];
};

static int open_source(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	const struct source *source = ctx;

	return models_open(source->spec, NULL, dev, err);
}

/* A device's memory is zero at first, and zeroes are not worth sending. */
static void fill(struct qsc_device *dev, size_t size)
{
	void *memory;
	int ret = qsc_device_region_map(dev, DMACOPY_BAR_LOCAL, 0, size, PROT_READ | PROT_WRITE,
					&memory);

	if (ret)
		bench_die("the device's memory cannot be mapped", ret);
	memset(memory, 0x5a, size);
	ret = qsc_device_region_unmap(dev, memory, size);
	if (ret)
		bench_die("the device's memory cannot be unmapped", ret);
}

/* Bytes per second, from the arc into STOP_COPY (not counted) to the end of the stream. */
static double device_round(struct qsc_device *dev, size_t size, void *buf)
{
	uint64_t session;
	uint64_t start;
	uint64_t total = 0;
	uint64_t elapsed;
	ssize_t got;
	int ret = qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session);

	if (ret)
		bench_die("the device does not stop", ret);
	start = bench_now_ns();
	while ((got = qsc_device_session_read(dev, session, buf, CHUNK)) > 0)
		total += (uint64_t)got;
	elapsed = bench_now_ns() - start;
	if (got >= 0 && total < size)
		got = -EIO;
	if (got < 0)
		bench_die("the device's state cannot be read", (int)got);
	qsc_device_session_close(dev, session);
	ret = qsc_device_set_state(dev, QSC_STATE_RUNNING, &session);
	if (ret)
		bench_die("the device does not start", ret);
	return (double)total * 1e9 / (double)elapsed;
}

static double bare_round(int fd, const struct bench_bare *bare, void *buf)
{
	uint64_t start = bench_now_ns();

	for (size_t done = 0; done < bare->memory; done += bare->payload)
		bench_bare_ask(fd, bare, buf);
	return (double)bare->memory * 1e9 / (double)(bench_now_ns() - start);
}

static double copy_round(const char *source, size_t size, char *buf)
{
	uint64_t start = bench_now_ns();

	for (size_t done = 0; done < size; done += CHUNK) {
		memcpy(buf, source + done, CHUNK);
		/* The copy must be made even though nobody looks at it. */
		__asm__ volatile("" : : "r"(buf) : "memory");
	}
	return (double)size * 1e9 / (double)(bench_now_ns() - start);
}

void bench_state_data(struct bench_run *run)
{
	const size_t size = (run->quick ? 8 : 256) * CHUNK;
	const size_t rounds = run->quick ? 3 : 15;
	const struct bench_bare bare = {
		.request = HEADER_SIZE, .header = HEADER_SIZE, .payload = CHUNK, .memory = size};
	struct source source;
	struct bench_served served = {.open = open_source, .open_ctx = &source};
	double device[16];
	double socket[16];
	double copy[16];
	struct qsc_error err = QSC_ERROR_NONE;
	struct bench_peer server;
	struct bench_peer peer;
	struct qsc_device *dev;
	char *memory;
	char *buf;

	snprintf(source.spec, sizeof(source.spec), "dmacopy,memory=%zu", size);
	bench_pin(run->cpus[0]);
	bench_peer_start(&peer, run->cpus[1], bench_bare_serve, &bare);
	bench_peer_start(&server, run->cpus[1], bench_vfio_user_serve, &served);
	if (qsc_client_open_fd(server.fd, NULL, &dev, &err))
		bench_die(err.text, err.number);
	server.fd = -1;
	fill(dev, size);
	memory = bench_memory(size);
	buf = bench_memory(2 * CHUNK);
	for (size_t i = 0; i < rounds; i++) {
		device[i] = device_round(dev, size, buf) / 1e9;
		socket[i] = bare_round(peer.fd, &bare, buf) / 1e9;
		copy[i] = copy_round(memory, size, buf) / 1e9;
	}
	qsc_device_close(dev);
	bench_peer_end(&server);
	bench_peer_end(&peer);
	munmap(memory, size);
	munmap(buf, 2 * CHUNK);
	bench_add(run, (struct bench_figure){.key = "state_data_read",
					     .name = "state data read over vfio-user",
					     .against = "bare request and reply",
					     .unit = "GB/s",
					     .value = bench_median(device, rounds),
					     .against_value = bench_median(socket, rounds),
					     .aim_is = AIM_AT_LEAST,
					     .aim = 0.9});
	bench_add(run, (struct bench_figure){.key = "state_data_read_memcpy",
					     .name = "state data read over vfio-user",
					     .against = "memcpy",
					     .unit = "GB/s",
					     .value = bench_median(device, rounds),
					     .against_value = bench_median(copy, rounds)});
}

/* The stream of the device, to be freed. */
static char *save(struct qsc_device *dev, size_t room, size_t *size)
{
	char *stream = malloc(room);
	uint64_t session;
	ssize_t got;
	int ret = qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session);

	if (ret || !stream)
		bench_die("the device does not stop", ret ? ret : ENOMEM);
	*size = 0;
	while ((got = qsc_device_session_read(dev, session, stream + *size, room - *size)) > 0)
		*size += (size_t)got;
	if (got < 0)
		bench_die("the device's state cannot be read", (int)got);
	ret = qsc_device_set_state(dev, QSC_STATE_STOP, &session);
	if (ret)
		bench_die("the device does not stop", ret);
	return stream;
}

/* Bytes per second until all is written; its validation is not counted. */
static double load_round(struct qsc_device *dev, const char *stream, size_t size)
{
	uint64_t session;
	uint64_t start;
	uint64_t elapsed;
	int ret = qsc_device_set_state(dev, QSC_STATE_RESUMING, &session);

	if (ret)
		bench_die("the device does not load", ret);
	start = bench_now_ns();
	for (size_t done = 0; done < size;) {
		size_t part = size - done < CHUNK ? size - done : CHUNK;
		ssize_t n = qsc_device_session_write(dev, session, stream + done, part);

		if (n < 0)
			bench_die("the device's state cannot be written", (int)n);
		done += part;
	}
	elapsed = bench_now_ns() - start;
	ret = qsc_device_set_state(dev, QSC_STATE_STOP, &session);
	if (ret)
		bench_die("the device refuses its own state", ret);
	return (double)size * 1e9 / (double)elapsed;
}

static double give_round(int fd, const struct bench_bare *bare, const char *stream, size_t size)
{
	uint64_t start = bench_now_ns();
	size_t done;

	for (done = 0; done + bare->upload <= size; done += bare->upload)
		bench_bare_give(fd, bare, stream + done);
	return (double)done * 1e9 / (double)(bench_now_ns() - start);
}

void bench_state_load(struct bench_run *run)
{
	const size_t size = (run->quick ? 8 : 256) * CHUNK;
	const size_t rounds = run->quick ? 3 : 9;
	const struct bench_bare bare = {
		.request = HEADER_SIZE, .upload = CHUNK, .header = HEADER_SIZE};
	struct source source;
	struct bench_served served = {.open = open_source, .open_ctx = &source};
	double device[16];
	double socket[16];
	struct qsc_error err = QSC_ERROR_NONE;
	struct bench_peer server;
	struct bench_peer peer;
	struct qsc_device *dev;
	size_t stream_size;
	char *stream;

	snprintf(source.spec, sizeof(source.spec), "dmacopy,memory=%zu", size);
	bench_pin(run->cpus[0]);
	bench_peer_start(&peer, run->cpus[1], bench_bare_serve, &bare);
	bench_peer_start(&server, run->cpus[1], bench_vfio_user_serve, &served);
	if (qsc_client_open_fd(server.fd, NULL, &dev, &err))
		bench_die(err.text, err.number);
	server.fd = -1;
	fill(dev, size);
	stream = save(dev, size + size / 8, &stream_size);
	for (size_t i = 0; i < rounds; i++) {
		device[i] = load_round(dev, stream, stream_size) / 1e9;
		socket[i] = give_round(peer.fd, &bare, stream, stream_size) / 1e9;
	}
	qsc_device_close(dev);
	bench_peer_end(&server);
	bench_peer_end(&peer);
	free(stream);
	bench_add(run, (struct bench_figure){.key = "state_data_write",
					     .name = "state data written over vfio-user",
					     .against = "bare request of its size",
					     .unit = "GB/s",
					     .value = bench_median(device, rounds),
					     .against_value = bench_median(socket, rounds)});
}
