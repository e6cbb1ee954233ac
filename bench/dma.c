/* SPDX-License-Identifier: MIT */
/*
 * DMA writes of a model within this process: what the gate and the mapping table cost against
 * memcpy, and what marking costs. Marking is the difference between the same writes with the dirty
 * log on and off: nothing but the public path.
 */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <quiesce/runtime.h>

#define PAGE  4096ULL
#define IOVA  0x100000000ULL
#define PAGES 4096ULL
#define RUN   16ULL /* pages of a write of 64 KiB */
#define CACHE 64ULL /* pages that fit a cache, so that the writes themselves do not vary much */

struct rig {
	struct qsc_device *dev;
	struct qsc_runtime *rt;
	char *memory;
	char *data;
};

static void log_set(const struct rig *rig, bool on)
{
	const struct qsc_dma_range range = {IOVA, PAGES * PAGE};
	uint64_t page_size = PAGE;
	int ret = on ? qsc_device_log_start(rig->dev, &page_size, &range, 1)
		     : qsc_device_log_stop(rig->dev);

	if (ret)
		bench_die("the device does not log", ret);
}

/* The log must have seen every page of [0, extent), or what was measured was not marking. */
static void log_check(const struct rig *rig, uint64_t extent)
{
	uint64_t bitmap[PAGES / 64] = {0};
	int ret = qsc_device_log_report(rig->dev, IOVA, extent, PAGE, bitmap);

	for (uint64_t i = 0; !ret && i < extent / PAGE / 64; i++)
		ret = ~bitmap[i] ? -EIO : 0;
	if (ret)
		bench_die("a dirty page is missing from the report", ret);
}

/* Nanoseconds for each write of `size` at every `stride` of `extent` bytes of the memory. */
static double write_round(const struct rig *rig, uint64_t size, uint64_t stride, uint64_t extent,
			  uint32_t repeat)
{
	const uint64_t writes = extent / stride * repeat;
	uint64_t start = bench_now_ns();
	int ret = 0;

	for (uint32_t i = 0; i < repeat; i++) {
		for (uint64_t at = 0; at < extent; at += stride)
			ret |= qsc_dma_write(rig->rt, IOVA + at, rig->data, size);
	}
	if (ret)
		bench_die("the device does not write to memory", ret);
	return (double)(bench_now_ns() - start) / (double)writes;
}

static double copy_round(const struct rig *rig, uint32_t repeat)
{
	uint64_t start = bench_now_ns();

	for (uint32_t i = 0; i < repeat; i++) {
		for (uint64_t at = 0; at < PAGES * PAGE; at += PAGE) {
			memcpy(rig->memory + at, rig->data, PAGE);
			__asm__ volatile("" : : "r"(rig->memory + at) : "memory");
		}
	}
	return (double)(bench_now_ns() - start) / (double)(PAGES * repeat);
}

/* Nanoseconds for each page that the log adds to writes of `pages` pages, or of a little of one. */
static void bench_mark(struct bench_run *run, const struct rig *rig, uint64_t pages,
		       struct bench_figure figure)
{
	const size_t rounds = run->quick ? 5 : 101;
	const uint32_t repeat = run->quick ? 2 : 64;
	const uint64_t size = pages == 1 ? sizeof(uint64_t) : pages * PAGE;
	const uint64_t extent = (pages == 1 ? PAGES : CACHE) * PAGE;
	double added[128];
	double without[128];

	for (size_t i = 0; i < rounds; i++) {
		double with;

		without[i] = write_round(rig, size, pages * PAGE, extent, repeat);
		log_set(rig, true);
		with = write_round(rig, size, pages * PAGE, extent, repeat);
		log_check(rig, extent);
		log_set(rig, false);
		added[i] = (with - without[i]) / (double)pages;
	}
	figure.unit = "ns";
	figure.value = bench_median(added, rounds);
	figure.against_value = bench_median(without, rounds) / (double)pages;
	figure.aim_is = AIM_AT_MOST;
	figure.aim = 3;
	figure.absolute = true;
	bench_add(run, figure);
}

void bench_dma(struct bench_run *run)
{
	const size_t rounds = run->quick ? 5 : 101;
	const uint32_t repeat = run->quick ? 2 : 16;
	struct qsc_error err = QSC_ERROR_NONE;
	struct rig rig = {.memory = bench_memory(PAGES * PAGE), .data = bench_memory(RUN * PAGE)};
	const struct qsc_dma_mapping mapping = {.iova = IOVA,
						.size = PAGES * PAGE,
						.flags = QSC_DMA_READ | QSC_DMA_WRITE,
						.vaddr = rig.memory,
						.fd = -1};
	double gated[128];
	double plain[128];

	bench_pin(run->cpus[0]);
	if (bench_model_open(&rig.dev, &rig.rt, &err))
		bench_die(err.text, err.number);
	if (qsc_device_dma_map(rig.dev, &mapping))
		bench_die("the device does not map memory", 5);
	for (size_t i = 0; i < rounds; i++) {
		gated[i] = write_round(&rig, PAGE, PAGE, PAGES * PAGE, repeat);
		plain[i] = copy_round(&rig, repeat);
	}
	bench_mark(run, &rig, 1,
		   (struct bench_figure){.key = "mark_page",
					 .name = "marking a page, page by page",
					 .against = "the write of 8 bytes itself"});
	bench_mark(run, &rig, RUN,
		   (struct bench_figure){.key = "mark_run",
					 .name = "marking a page, in runs of 16",
					 .against = "the write of 4 KiB itself"});
	bench_add(run, (struct bench_figure){.key = "dma_write",
					     .name = "gated DMA write of 4 KiB",
					     .against = "memcpy",
					     .unit = "ns",
					     .value = bench_median(gated, rounds),
					     .against_value = bench_median(plain, rounds)});
	qsc_device_close(rig.dev);
	munmap(rig.memory, PAGES * PAGE);
	munmap(rig.data, RUN * PAGE);
}
