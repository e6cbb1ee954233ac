/* SPDX-License-Identifier: MIT */
/*
 * The seeded simulation: runtime, set and engine in one process, with faults at random points.
 *
 *   sim [--seed N [--blow KIND --at N]] [--first N] [--count N] [--boundaries N]
 *
 * --seed runs one seed twice, says what happened and proves that both runs were equal. --boundaries
 * takes a world in which nothing goes wrong by itself and cuts or stalls the link, or kills a side,
 * at every place between two messages in turn.
 */
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

static const char *const blows[] = {
	[SIM_BLOW_CUT] = "cut",
	[SIM_BLOW_STALL] = "stall",
	[SIM_BLOW_SOURCE] = "kill-source",
	[SIM_BLOW_DESTINATION] = "kill-destination",
};

static int run_one(uint64_t seed, const struct sim_place *place)
{
	struct sim_result first;
	struct sim_result second;

	sim_run(seed, place, true, &first);
	sim_run(seed, place, false, &second);
	printf("record %016" PRIx64 "%s%s\n", first.record, first.ok ? "" : ": ", first.text);
	if (first.record != second.record) {
		printf("seed %" PRIu64 " does not replay: record %016" PRIx64 "\n", seed,
		       second.record);
		return 1;
	}
	return first.ok ? 0 : 1;
}

static int run_many(uint64_t first, uint64_t count)
{
	uint64_t ended[3] = {0, 0, 0};
	uint64_t seed;

	for (seed = first; seed < first + count; seed++) {
		struct sim_result result;

		sim_run(seed, NULL, false, &result);
		ended[result.owner]++;
		if (result.ok)
			continue;
		printf("seed %" PRIu64 " failed: %s\nreplay it with --seed %" PRIu64 "\n", seed,
		       result.text, seed);
		return 1;
	}
	printf("%" PRIu64 " seeds: %" PRIu64 " ended at the source, %" PRIu64
	       " at the destination, %" PRIu64 " with nothing running\n",
	       count, ended[QSC_OWNER_SOURCE], ended[QSC_OWNER_DESTINATION],
	       ended[QSC_OWNER_UNPROVED]);
	/* A simulation that only ever ends in one way tests nothing. */
	return count >= 500 && (!ended[0] || !ended[1] || !ended[2]);
}

/* One blow at every boundary of one world. -1 when a run failed. */
static int64_t try_boundaries(uint64_t seed, uint64_t ended[3])
{
	struct sim_place place = {SIM_BLOW_NONE, 0};
	struct sim_result clean;
	struct sim_result result;
	int64_t runs = 0;

	sim_run(seed, &place, false, &clean);
	result = clean;
	for (int blow = SIM_BLOW_CUT; blow <= SIM_BLOW_DESTINATION && result.ok; blow++)
		for (uint32_t at = 1; at <= clean.operations && result.ok; at++) {
			place = (struct sim_place){(enum sim_blow)blow, at};
			sim_run(seed, &place, false, &result);
			ended[result.owner]++;
			runs++;
		}
	if (result.ok && clean.owner == QSC_OWNER_DESTINATION)
		return runs;
	printf("seed %" PRIu64 " failed: %s\n", seed,
	       result.ok ? "nothing went wrong and the set did not move" : result.text);
	if (place.operation)
		printf("replay it with --seed %" PRIu64 " --blow %s --at %" PRIu32 "\n", seed,
		       blows[place.blow], place.operation);
	return -1;
}

static int run_boundaries(uint64_t first, uint64_t count)
{
	uint64_t ended[3] = {0, 0, 0};
	int64_t runs = 0;
	uint64_t seed;

	for (seed = first; seed < first + count; seed++) {
		int64_t more = try_boundaries(seed, ended);

		if (more < 0)
			return 1;
		runs += more;
	}
	printf("%" PRIu64 " worlds, %" PRId64 " boundaries and blows: %" PRIu64
	       " ended at the source, %" PRIu64 " at the destination, %" PRIu64
	       " with nothing running\n",
	       count, runs, ended[QSC_OWNER_SOURCE], ended[QSC_OWNER_DESTINATION],
	       ended[QSC_OWNER_UNPROVED]);
	return !ended[0] || !ended[1] || !ended[2];
}

static enum sim_blow blow_named(const char *name)
{
	for (int blow = SIM_BLOW_CUT; blow <= SIM_BLOW_DESTINATION; blow++)
		if (!strcmp(name, blows[blow]))
			return (enum sim_blow)blow;
	fprintf(stderr,
		"sim: '%s' is no blow; there are cut, stall, kill-source and "
		"kill-destination\n",
		name);
	exit(2);
}

static uint64_t number(const char *text)
{
	char *end;
	uint64_t value = strtoull(text, &end, 0);

	if (*end || end == text) {
		fprintf(stderr, "sim: '%s' is not a number\n", text);
		exit(2);
	}
	return value;
}

static int usage(FILE *out, int code)
{
	fputs("Usage: sim [--first SEED] [--count N | --boundaries N] |\n"
	      "       sim --seed SEED [--blow KIND --at N]\n"
	      "Migrations in a simulated world, one a seed; every seed replays exactly.\n\n"
	      "  --first SEED  begin with this seed (1)\n"
	      "  --count N     how many seeds to run (1000)\n"
	      "  --boundaries N  in so many worlds, every blow between any two messages\n"
	      "  --blow KIND   with --seed: only this goes wrong: cut, stall, kill-source or\n"
	      "                kill-destination\n"
	      "  --at N        before which operation of all channels\n"
	      "  --seed SEED   run one seed twice, compare, and print what happened\n"
	      "  --help        print this\n",
	      out);
	return code;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"seed", required_argument, NULL, 's'},
		{"first", required_argument, NULL, 'f'},
		{"count", required_argument, NULL, 'c'},
		{"boundaries", required_argument, NULL, 'b'},
		{"blow", required_argument, NULL, 'k'},
		{"at", required_argument, NULL, 'a'},
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	uint64_t first = 1;
	uint64_t count = 1000;
	uint64_t boundaries = 0;
	struct sim_place place = {SIM_BLOW_NONE, 0};
	uint64_t seed = 0;
	bool one_seed = false;
	cpu_set_t one;
	int c;

	/* Only one thread runs at a time; handing over is cheapest where it already is. */
	CPU_ZERO(&one);
	CPU_SET((unsigned int)sched_getcpu(), &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 's') {
			seed = number(optarg);
			one_seed = true;
		} else if (c == 'b')
			boundaries = number(optarg);
		else if (c == 'k')
			place.blow = blow_named(optarg);
		else if (c == 'a')
			place.operation = (uint32_t)number(optarg);
		else if (c == 'f')
			first = number(optarg);
		else if (c == 'c')
			count = number(optarg);
		else if (c == 'h')
			return usage(stdout, 0);
		else
			return usage(stderr, 2);
	}
	if (optind < argc)
		return usage(stderr, 2);
	if (one_seed)
		return run_one(seed, place.blow ? &place : NULL);
	return boundaries ? run_boundaries(first, boundaries) : run_many(first, count);
}
