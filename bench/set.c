/* SPDX-License-Identifier: MIT */
/*
 * Quiescing many idle devices at once. In this process against quiescing the slowest of them alone:
 * what each device adds to that. Behind a server with a thread for each, against as many threads
 * that only answer: waking them is what takes the time, whoever asks. As in a migration, which
 * pre-copies first: a set knows the states of its members by then.
 */
#include "bench.h"

#include <stdlib.h>

#define MAX_ROUNDS 16
#define STATE	   4096

static void run_again(const struct bench_fleet *fleet)
{
	struct qsc_error err = QSC_ERROR_NONE;

	if (qsc_set_run(fleet->set, &err))
		bench_die(err.text, err.number);
}

/* Microseconds of one wave of the whole set. */
static double wave_round(const struct bench_fleet *fleet)
{
	struct qsc_error err = QSC_ERROR_NONE;
	uint64_t start;
	double elapsed;

	if (qsc_set_precopy(fleet->set, &err))
		bench_die(err.text, err.number);
	start = bench_now_ns();
	if (qsc_set_quiesce(fleet->set, &err))
		bench_die(err.text, err.number);
	elapsed = (double)(bench_now_ns() - start) / 1e3;
	run_again(fleet);
	return elapsed;
}

/* Of one device by itself: taking the arc, as the wave does. */
static double alone_round(struct qsc_device *dev)
{
	uint64_t session;
	uint64_t start;
	double elapsed;
	int ret = qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session);

	start = bench_now_ns();
	if (!ret)
		ret = qsc_device_set_state(dev, QSC_STATE_PRE_COPY_P2P, &session);
	elapsed = (double)(bench_now_ns() - start) / 1e3;
	if (!ret)
		ret = qsc_device_set_state(dev, QSC_STATE_RUNNING, &session);
	if (ret)
		bench_die("the device does not quiesce", ret);
	return elapsed;
}

static double slowest_alone(const struct bench_fleet *fleet, size_t rounds)
{
	double slowest = 0;

	for (size_t i = 0; i < fleet->count; i++) {
		double alone[MAX_ROUNDS];
		double median;

		for (size_t k = 0; k < rounds; k++)
			alone[k] = alone_round(fleet->devs[i]);
		median = bench_median(alone, rounds);
		slowest = median > slowest ? median : slowest;
	}
	return slowest;
}

static void bench_here(struct bench_run *run, size_t count)
{
	const size_t rounds = run->quick ? 3 : 15;
	struct bench_fleet fleet;
	double added[MAX_ROUNDS];
	double slowest[MAX_ROUNDS];

	bench_fleet_open(&fleet, count, STATE, false);
	for (size_t i = 0; i < rounds; i++) {
		slowest[i] = slowest_alone(&fleet, run->quick ? 1 : 5);
		added[i] = (wave_round(&fleet) - slowest[i]) / (double)count;
	}
	bench_fleet_close(&fleet);
	bench_add(run, (struct bench_figure){.key = "quiesce_device",
					     .name = "quiescing 256: added by each",
					     .against = "the slowest one alone",
					     .unit = "us",
					     .value = bench_median(added, rounds),
					     .against_value = bench_median(slowest, rounds),
					     .aim_is = AIM_AT_MOST,
					     .aim = 20,
					     .absolute = true});
}

static void bench_served(struct bench_run *run, size_t count)
{
	const size_t rounds = run->quick ? 3 : 15;
	struct bench_bare_fleet bare;
	struct bench_fleet fleet;
	double waves[MAX_ROUNDS];
	double asked[MAX_ROUNDS];

	bench_bare_fleet_open(&bare, count);
	bench_fleet_connect(&fleet, count, STATE);
	for (size_t i = 0; i < rounds; i++) {
		uint64_t start = bench_now_ns();

		bench_bare_fleet_ask(&bare);
		asked[i] = (double)(bench_now_ns() - start) / 1e3 / (double)count;
		waves[i] = wave_round(&fleet) / (double)count;
	}
	bench_fleet_close(&fleet);
	bench_bare_fleet_close(&bare);
	bench_add(run, (struct bench_figure){.key = "quiesce_device_vfio_user",
					     .name = "quiescing 256 over vfio-user: each",
					     .against = "a bare question and answer each",
					     .unit = "us",
					     .value = bench_median(waves, rounds),
					     .against_value = bench_median(asked, rounds),
					     .aim_is = AIM_AT_MOST,
					     .aim = 1.5});
}

void bench_set(struct bench_run *run)
{
	const size_t count = run->quick ? 8 : 256;

	bench_spread(run);
	bench_here(run, count);
	bench_served(run, count);
}
