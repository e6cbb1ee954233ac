/* SPDX-License-Identifier: MIT */
/*
 * Walks: a seed makes a list of actions, the oracle judges them one by one, and a list that shows
 * something wrong is cut down to the shortest one that shows the same. Equal seeds make equal
 * lists.
 */
#include "check/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "check/clause.h"
#include "check/oracle.h"

#define DEFAULT_SEEDS 8U
#define SHRINK_RUNS   300	/* more are not worth the wait, */
#define SHRINK_US     60000000U /* nor is this of a device that lets itself be waited for */

struct walk {
	struct harness *h;
	const struct saved *blank;
	struct walk_step *steps;
	size_t count;
	size_t done; /* steps of the last run, that which broke something included */
	bool broken; /* by the last run */
};

/* How often each is done, of 100 or so. */
static const uint8_t weights[WALK_ACTION_COUNT] = {
	[WALK_SET_STATE] = 34,	  [WALK_RESET] = 3,	  [WALK_REOPEN] = 1,
	[WALK_READ] = 8,	  [WALK_WRITE] = 9,	  [WALK_NONSENSE] = 1,
	[WALK_PRECOPY_INFO] = 4,  [WALK_DATA_SIZE] = 3,	  [WALK_LOG_START] = 4,
	[WALK_LOG_REPORT] = 3,	  [WALK_LOG_STOP] = 3,	  [WALK_MAP] = 3,
	[WALK_UNMAP] = 3,	  [WALK_IRQ_SETUP] = 3,	  [WALK_IRQ_TRIGGER] = 3,
	[WALK_CONFIG_WRITE] = 3,  [WALK_CONFIG_READ] = 3, [WALK_REGISTER_WRITE] = 4,
	[WALK_REGISTER_READ] = 4, [WALK_WORK] = 3,	  [WALK_QUERY] = 2,
};

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
	return z ^ (z >> 31);
}

static void make_steps(struct walk *w, uint64_t seed, size_t count)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < WALK_ACTION_COUNT; i++)
		sum += weights[i];
	for (size_t i = 0; i < count; i++) {
		uint64_t random = next_random(&seed);
		uint32_t at = (uint32_t)(random >> 32) % sum;
		uint32_t action = 0;

		while (at >= weights[action])
			at -= weights[action++];
		w->steps[i] = (struct walk_step){(enum walk_action)action, (uint32_t)random};
	}
	w->count = count;
}

/* What a device that answers no more is accused of else, it did not do. */
static int gone(struct walk *w, const char *why)
{
	struct harness *h = w->h;
	char text[400];

	(void)snprintf(text, sizeof(text), "%.399s", why);
	broken(h, "the device is gone, it answers no more%s%s", text[0] ? ": " : "", text);
	h->gone = true;
	h->broken = QSC_CLAUSE_COUNT;
	w->broken = true;
	return 0;
}

/* From a fresh device; the evidence is in the harness. */
static int run(struct walk *w)
{
	struct harness *h = w->h;
	struct oracle o;
	int r = harness_start(h);

	w->broken = false;
	h->gone = false;
	oracle_begin(&o, h, w->blank);
	for (w->done = 0; !r && !o.broken && w->done < w->count; w->done++)
		r = oracle_step(&o, &w->steps[w->done]);
	w->broken = o.broken;
	if (harness_gone(h))
		r = gone(w, r ? h->trouble : o.broken ? h->evidence : "");
	return r;
}

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

/* What a walk came to, to be seen again. */
struct seen {
	enum qsc_clause clause;
	bool gone;
};

static bool seen_again(struct walk *w, struct seen seen)
{
	return !run(w) && w->broken && w->h->broken == seen.clause && w->h->gone == seen.gone;
}

/* Leave out as much as can be without the same clause being kept. */
static void shrink(struct walk *w, struct seen seen)
{
	qsc_autofree struct walk_step *kept = calloc(w->count, sizeof(*kept));
	uint64_t until_us = now_us() + SHRINK_US;
	size_t count = w->done, part = w->done / 2;
	unsigned int runs = 0;

	if (!kept)
		return;
	memcpy(kept, w->steps, count * sizeof(*kept));
	for (part = part ? part : 1; part; part /= 2)
		for (size_t at = 0; at < count;) {
			size_t cut = part < count - at ? part : count - at;

			/* One that can no more be opened shows nothing either. */
			if (++runs > SHRINK_RUNS || now_us() > until_us || w->h->unopened)
				goto out;
			memcpy(w->steps, kept, at * sizeof(*kept));
			memcpy(w->steps + at, kept + at + cut, (count - at - cut) * sizeof(*kept));
			w->count = count - cut;
			if (!seen_again(w, seen)) {
				at += cut;
				continue;
			}
			count = w->done;
			memcpy(kept, w->steps, count * sizeof(*kept));
		}
out:
	memcpy(w->steps, kept, count * sizeof(*kept));
	w->count = count;
}

/* It has just been seen; show it as short as it can be. */
static enum qsc_check_result show(struct walk *w, uint64_t seed)
{
	struct harness *h = w->h;
	struct seen seen = {h->broken, h->gone};
	size_t length = w->done;
	char text[sizeof(h->evidence)];

	memcpy(text, h->evidence, sizeof(text));
	h->seed = seed;
	shrink(w, seen);
	if (!seen_again(w, seen)) {
		h->broken = seen.clause;
		h->gone = seen.gone;
		return broken(h, "after %zu actions of seed %llu, and not again: %.400s", length,
			      (unsigned long long)seed, text);
	}
	memcpy(text, h->evidence, sizeof(text));
	return broken(h, "after %zu of %zu actions of seed %llu: %.400s", w->done, length,
		      (unsigned long long)seed, text);
}

enum qsc_check_result walks_try(struct harness *h)
{
	const struct qsc_check_options *options = h->options;
	size_t seeds = options->seeds ? options->num_seeds : DEFAULT_SEEDS;
	qsc_autofree struct walk_step *steps = calloc(options->walk_steps, sizeof(*steps));
	autosaved blank = {0};
	struct walk w = {.h = h, .blank = &blank, .steps = steps};

	if (!steps)
		return not_tried(h, "no memory for a walk");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	for (size_t i = 0; i < seeds; i++) {
		uint64_t seed = options->seeds ? options->seeds[i] : i + 1;

		make_steps(&w, seed, options->walk_steps);
		REQUIRE(h, run(&w));
		if (w.broken)
			return show(&w, seed);
	}
	return holds(h, "%zu walks of %u actions", seeds, options->walk_steps);
}
