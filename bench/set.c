/* SPDX-License-Identifier: MIT */
/*
 * Quiescing many idle devices at once against quiescing the slowest of them alone: what each device
 * adds to that. As in a migration, which pre-copies first: a set knows the states of its members by
 * then.
 */
#include "bench.h"

#include <stdlib.h>

#define MAX_ROUNDS 16

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

static void bench_quiesce(struct bench_run *run, struct bench_fleet *fleet,
			  struct bench_figure figure)
{
	const size_t rounds = run->quick ? 3 : 15;
	double added[MAX_ROUNDS];
	double slowest[MAX_ROUNDS];

	for (size_t i = 0; i < rounds; i++) {
		slowest[i] = slowest_alone(fleet, run->quick ? 1 : 5);
		added[i] = (wave_round(fleet) - slowest[i]) / (double)fleet->count;
	}
	bench_fleet_close(fleet);
	figure.against = "the slowest one alone";
	figure.unit = "us";
	figure.value = bench_median(added, rounds);
	figure.against_value = bench_median(slowest, rounds);
	figure.aim_is = AIM_AT_MOST;
	figure.aim = 20;
	figure.absolute = true;
	bench_add(run, figure);
}

void bench_set(struct bench_run *run)
{
	const size_t count = run->quick ? 8 : 256;
	struct bench_fleet fleet;

	bench_spread(run);
	bench_fleet_open(&fleet, count, 4096, false);
	bench_quiesce(run, &fleet,
		      (struct bench_figure){.key = "quiesce_device",
					    .name = "quiescing 256: added by each"});
	bench_fleet_connect(&fleet, count, 4096);
	bench_quiesce(run, &fleet,
		      (struct bench_figure){.key = "quiesce_device_vfio_user",
					    .name = "the same over vfio-user"});
}
