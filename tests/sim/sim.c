/* SPDX-License-Identifier: MIT */
/*
 * The seeded simulation: runtime, set and engine in one process, with faults at random points.
 *
 *   sim [--seed N] [--first N] [--count N]
 *
 * --seed runs one seed twice, says what happened and proves that both runs were equal.
 */
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "world.h"

static int run_one(uint64_t seed)
{
	struct sim_result first;
	struct sim_result second;

	sim_run(seed, true, &first);
	sim_run(seed, false, &second);
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

		sim_run(seed, false, &result);
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
	fputs("Usage: sim [--first SEED] [--count N] | --seed SEED\n"
	      "Migrations in a simulated world, one a seed; every seed replays exactly.\n\n"
	      "  --first SEED  begin with this seed (1)\n"
	      "  --count N     how many seeds to run (1000)\n"
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
		{"help", no_argument, NULL, 'h'},
		{NULL, 0, NULL, 0},
	};
	uint64_t first = 1;
	uint64_t count = 1000;
	cpu_set_t one;
	int c;

	/* Only one thread runs at a time; handing over is cheapest where it already is. */
	CPU_ZERO(&one);
	CPU_SET((unsigned int)sched_getcpu(), &one);
	(void)sched_setaffinity(0, sizeof(one), &one);
	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == 's')
			return run_one(number(optarg));
		if (c == 'f')
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
	return run_many(first, count);
}
