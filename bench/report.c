/* SPDX-License-Identifier: MIT */
/* The dirty log of 64 GiB, every page dirty, over vfio-user against a bare reply of its size. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quiesce/client.h>

#define PAGE	 4096ULL
#define MAX_SIZE (64ULL << 30)

/* Memory that swallows writes: marking 64 GiB need not touch 64 GiB. */
static int no_read(void *ctx, uint64_t iova, void *buf, size_t size)
{
	memset(buf, 0, size);
	return 0;
}

static int no_write(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	return 0;
}

static const struct qsc_dma_access nowhere = {.read = no_read, .write = no_write};

static int open_model(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	const struct qsc_dma_mapping mapping = {
		.size = MAX_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = -1,
		.access = &nowhere,
	};
	int ret = bench_model_open(dev, NULL, err);

	if (ret)
		return ret;
	ret = qsc_device_dma_map(*dev, &mapping);
	if (ret)
		qsc_device_close(*dev);
	return ret;
}

static void write64(struct qsc_device *dev, uint64_t offset, uint64_t value)
{
	ssize_t ret = qsc_device_region_write(dev, 0, offset, &value, sizeof(value));

	if (ret != sizeof(value))
		bench_die("the device does not write to memory", ret < 0 ? (int)ret : -EIO);
}

/* Microseconds of one report; every page was written before. */
static double report_round(struct qsc_device *dev, uint64_t size, uint64_t *bitmap)
{
	const size_t words = size / PAGE / 64;
	uint64_t start;
	double elapsed;
	int ret;

	write64(dev, BENCH_REG_WRITE, 1);
	memset(bitmap, 0, words * sizeof(*bitmap));
	start = bench_now_ns();
	ret = qsc_device_log_report(dev, 0, size, PAGE, bitmap);
	elapsed = (double)(bench_now_ns() - start) / 1e3;
	if (ret)
		bench_die("the device does not report its dirty log", ret);
	for (size_t i = 0; i < words; i++) {
		if (~bitmap[i])
			bench_die("a dirty page is missing from the report", EIO);
	}
	return elapsed;
}

void bench_log_report(struct bench_run *run)
{
	const uint64_t size = run->quick ? 1ULL << 30 : MAX_SIZE;
	const size_t rounds = run->quick ? 3 : 15;
	const struct qsc_dma_range range = {0, size};
	const struct bench_bare bare = {
		.request = 64, .header = 64, .payload = size / PAGE / 8, .memory = size / PAGE / 8};
	const struct bench_served served = {.open = open_model};
	double reports[16];
	double replies[16];
	struct qsc_error err = QSC_ERROR_NONE;
	struct bench_peer server;
	struct bench_peer peer;
	struct qsc_device *dev;
	uint64_t page_size = PAGE;
	uint64_t start;
	void *bitmap;
	int ret;

	bench_pin(run->cpus[0]);
	bench_peer_start(&peer, run->cpus[1], bench_bare_serve, &bare);
	bench_peer_start(&server, run->cpus[1], bench_vfio_user_serve, &served);
	if (qsc_client_open_fd(server.fd, NULL, &dev, &err))
		bench_die(err.text, err.number);
	server.fd = -1;
	bitmap = bench_memory(bare.header + bare.payload);
	write64(dev, BENCH_REG_IOVA, 0);
	write64(dev, BENCH_REG_SIZE, size);
	write64(dev, BENCH_REG_STRIDE, PAGE);
	ret = qsc_device_log_start(dev, &page_size, &range, 1);
	if (ret)
		bench_die("the device does not log", ret);
	for (size_t i = 0; i < rounds; i++) {
		reports[i] = report_round(dev, size, bitmap);
		bench_bare_ask(peer.fd, &bare, bitmap);
		start = bench_now_ns();
		bench_bare_ask(peer.fd, &bare, bitmap);
		replies[i] = (double)(bench_now_ns() - start) / 1e3;
	}
	qsc_device_close(dev);
	bench_peer_end(&server);
	bench_peer_end(&peer);
	munmap(bitmap, bare.header + bare.payload);
	bench_add(run, (struct bench_figure){.key = "log_report",
					     .name = run->quick ? "dirty log of 1 GiB, all dirty"
								: "dirty log of 64 GiB, all dirty",
					     .against = "bare reply of its size",
					     .unit = "us",
					     .value = bench_median(reports, rounds),
					     .against_value = bench_median(replies, rounds),
					     .aim_is = AIM_AT_MOST,
					     .aim = 2});
}
