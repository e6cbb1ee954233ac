/* SPDX-License-Identifier: MIT */
/* A register read of four bytes over vfio-user against a socket ping of the same sizes. */
#include "bench.h"

#include <stdlib.h>

#include <quiesce/client.h>

#include "dmacopy/dmacopy.h"
#include "models.h"

/* Header 16; offset 8, region 4, count 4; and in the reply the register. */
#define REQUEST_SIZE 32
#define REPLY_SIZE   36

static int open_dmacopy(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	return models_open("dmacopy", NULL, dev, err);
}

static double read_round(struct qsc_device *dev, uint32_t count)
{
	uint64_t start = bench_now_ns();
	uint32_t value;

	for (uint32_t i = 0; i < count; i++) {
		if (qsc_device_region_read(dev, DMACOPY_BAR_REGISTERS, DMACOPY_REG_ID, &value,
					   sizeof(value)) != sizeof(value) ||
		    value != DMACOPY_ID)
			bench_die("the device does not answer", -5);
	}
	return (double)(bench_now_ns() - start) / count;
}

static double ping_round(int fd, const struct bench_bare *bare, uint32_t count)
{
	uint64_t start = bench_now_ns();
	char buf[REPLY_SIZE];

	for (uint32_t i = 0; i < count; i++)
		bench_bare_ask(fd, bare, buf);
	return (double)(bench_now_ns() - start) / count;
}

static void compare(struct bench_run *run, struct bench_figure figure, int cpu, bool poll)
{
	const struct bench_bare bare = {
		.request = REQUEST_SIZE, .header = REPLY_SIZE, .poll = poll};
	const struct bench_served served = {.poll = poll, .open = open_dmacopy};
	const struct qsc_client_options options = {.poll = poll};
	/* Quick also where others keep the CPUs busy: there a spinning ping takes many slices. */
	const uint32_t count = run->quick ? 10 : 500;
	const size_t rounds = run->quick ? 3 : 401;
	double reads[512];
	double pings[512];
	struct qsc_error err = QSC_ERROR_NONE;
	struct bench_peer server;
	struct bench_peer ping;
	struct qsc_device *dev;

	bench_pin(run->cpus[0]);
	bench_peer_start(&ping, cpu, bench_bare_serve, &bare);
	bench_peer_start(&server, cpu, bench_vfio_user_serve, &served);
	if (qsc_client_open_fd(server.fd, &options, &dev, &err))
		bench_die(err.text, err.number);
	server.fd = -1;
	for (size_t i = 0; i < rounds; i++) {
		bench_peer_pause(&ping);
		read_round(dev, count / 10);
		reads[i] = read_round(dev, count);
		bench_peer_resume(&ping);
		bench_peer_pause(&server);
		ping_round(ping.fd, &bare, count / 10);
		pings[i] = ping_round(ping.fd, &bare, count);
		bench_peer_resume(&server);
	}
	qsc_device_close(dev);
	bench_peer_end(&server);
	bench_peer_end(&ping);
	figure.against = "bare socket ping";
	figure.unit = "ns";
	figure.value = bench_median(reads, rounds);
	figure.against_value = bench_median(pings, rounds);
	figure.aim_is = AIM_AT_MOST;
	figure.aim = 1.05;
	bench_add(run, figure);
}

void bench_register_read(struct bench_run *run)
{
	compare(run,
		(struct bench_figure){.key = "register_read_one_cpu",
				      .name = "register read, both ends on one CPU"},
		run->cpus[0], false);
	if (run->cpus[0] == run->cpus[1])
		return;
	compare(run,
		(struct bench_figure){.key = "register_read_spinning",
				      .name = "register read, both ends spinning"},
		run->cpus[1], true);
}
