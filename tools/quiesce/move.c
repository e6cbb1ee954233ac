/* SPDX-License-Identifier: MIT */
/* What is kept of a migration: samples and phases, made coarser where there are too many. */
#include "move.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quiesce/set.h>

void move_release(struct move *move)
{
	free(move->devices);
	free(move->phases);
	free(move->samples);
	*move = (struct move){0};
}

/* ---- samples ---- */

void move_sample_set(struct move_sample *sample, const struct qsc_migrate_progress *progress)
{
	*sample = (struct move_sample){
		.pass = progress->pass,
		.elapsed_us = progress->elapsed_us,
		.bytes_sent = progress->bytes_sent,
		.bytes_remaining = progress->bytes_remaining,
		.bytes_per_second = progress->bytes_per_second,
		.dirty_per_second = progress->dirty_per_second,
		.predicted_downtime_us = progress->predicted_downtime_us,
	};
	(void)snprintf(sample->phase, sizeof(sample->phase), "%s", progress->phase);
}

/* What a sample covers of the time, were it dropped; those that begin a phase are kept longer. */
static uint64_t cost_of_dropping(const struct move *move, size_t i)
{
	const struct move_sample *sample = &move->samples[i];
	uint64_t gap = sample[1].elapsed_us - sample[-1].elapsed_us;

	return strcmp(sample->phase, sample[-1].phase) != 0 ? UINT64_MAX / 2 + gap / 2 : gap;
}

/* The sample whose neighbours are closest to one another tells the least. */
static void drop_sample(struct move *move)
{
	size_t i, least = 1;

	for (i = 2; i + 1 < move->num_samples; i++)
		if (cost_of_dropping(move, i) < cost_of_dropping(move, least))
			least = i;
	move->num_samples--;
	memmove(&move->samples[least], &move->samples[least + 1],
		(move->num_samples - least) * sizeof(move->samples[0]));
}

int move_keep_sample(struct move *move, const struct move_sample *sample)
{
	if (!move->samples)
		move->samples = calloc(MOVE_MAX_SAMPLES, sizeof(move->samples[0]));
	if (!move->samples)
		return -ENOMEM;
	if (move->num_samples == MOVE_MAX_SAMPLES)
		drop_sample(move);
	move->samples[move->num_samples++] = *sample;
	return 0;
}

int move_add_sample(struct move *move, const struct qsc_migrate_progress *progress)
{
	struct move_sample sample;

	move_sample_set(&sample, progress);
	return move_keep_sample(move, &sample);
}

/* ---- phases ---- */

static int by_kind(const void *a, const void *b)
{
	const struct move_phase *left = a, *right = b;
	int order = strcmp(left->name, right->name);

	if (left->device != right->device)
		return left->device < right->device ? -1 : 1;
	if (order)
		return order;
	return left->start_us < right->start_us ? -1 : left->start_us > right->start_us;
}

static int by_start(const void *a, const void *b)
{
	const struct move_phase *left = a, *right = b;

	if (left->start_us != right->start_us)
		return left->start_us < right->start_us ? -1 : 1;
	if (left->duration_us != right->duration_us)
		return left->duration_us > right->duration_us ? -1 : 1;
	return left->device < right->device ? -1 : left->device > right->device;
}

/* How much nearer than `apart` two phases of one kind must stand to become one. */
static size_t put_together(struct move_phase *phases, size_t count, uint64_t apart)
{
	size_t i, kept = 0;

	for (i = 0; i < count; i++) {
		struct move_phase *last = kept ? &phases[kept - 1] : NULL;
		uint64_t end = last ? last->start_us + last->duration_us : 0;

		if (!last || last->device != phases[i].device ||
		    strcmp(last->name, phases[i].name) != 0 ||
		    (phases[i].start_us > end && phases[i].start_us - end > apart)) {
			phases[kept++] = phases[i];
			continue;
		}
		if (phases[i].start_us + phases[i].duration_us > end)
			end = phases[i].start_us + phases[i].duration_us;
		last->duration_us = end - last->start_us;
		last->bytes += phases[i].bytes;
		last->count += phases[i].count;
	}
	return kept;
}

/* Coarser and coarser, until there are no more than may be. */
static void thin_phases(struct move *move)
{
	uint64_t apart = 1000;

	if (move->num_phases <= MOVE_MAX_PHASES)
		return;
	qsort(move->phases, move->num_phases, sizeof(move->phases[0]), by_kind);
	do {
		move->num_phases = put_together(move->phases, move->num_phases, apart);
		apart = apart > UINT64_MAX / 4 ? UINT64_MAX : apart * 4;
	} while (move->num_phases > MOVE_MAX_PHASES && apart < UINT64_MAX);
	/* More devices than a report is made for. */
	if (move->num_phases > MOVE_MAX_PHASES)
		move->num_phases = MOVE_MAX_PHASES;
	qsort(move->phases, move->num_phases, sizeof(move->phases[0]), by_start);
}

int move_take_timeline(struct move *move, struct qsc_timeline *timeline)
{
	/* Once a source has come, what those saw who only asked before is no part of it. */
	uint64_t since_us = move->start_us + move->report.waited_us;
	const struct qsc_phase *phases;
	size_t i, count = qsc_timeline_phases(timeline, &phases);
	struct move_phase *taken = calloc(count + 1, sizeof(*taken));

	if (!taken)
		return -ENOMEM;
	free(move->phases);
	move->phases = taken;
	move->num_phases = 0;
	for (i = 0; i < count; i++) {
		struct move_phase *to = &move->phases[move->num_phases];

		if (phases[i].start_us < since_us)
			continue;
		*to = (struct move_phase){
			.device = phases[i].member == QSC_TIMELINE_ALL ? -1
								       : (int32_t)phases[i].member,
			.start_us = phases[i].start_us - move->start_us,
			.duration_us = phases[i].duration_us,
			.bytes = phases[i].bytes,
			.count = 1,
		};
		(void)snprintf(to->name, sizeof(to->name), "%s", phases[i].name);
		move->num_phases++;
	}
	thin_phases(move);
	return 0;
}

/* ---- what follows from it ---- */

/* When the first sample of a phase was taken. */
static bool find_sample(const struct move *move, const char *phase, uint64_t *us)
{
	size_t i;

	for (i = 0; i < move->num_samples; i++)
		if (!strcmp(move->samples[i].phase, phase))
			break;
	if (i == move->num_samples)
		return false;
	*us = move->samples[i].elapsed_us;
	return true;
}

bool move_stop(const struct move *move, uint64_t *start_us, uint64_t *duration_us)
{
	size_t i;

	*duration_us = move->report.downtime_us;
	if (!*duration_us)
		return false;
	for (i = 0; i < move->num_phases; i++) {
		const struct move_phase *phase = &move->phases[i];

		if (phase->device < 0 && !strcmp(phase->name, "pause")) {
			*start_us = phase->start_us;
			return true;
		}
	}
	/* A destination does not pause; it hears that the source does, before the last round. */
	return find_sample(move, "stop", start_us) || find_sample(move, "stop-copy", start_us);
}

uint64_t move_took_us(const struct move *move)
{
	const struct qsc_migrate_report *report = &move->report;

	return report->waited_us < report->total_us ? report->total_us - report->waited_us : 0;
}

void move_span(const struct move *move, uint64_t *start_us, uint64_t *duration_us)
{
	uint64_t first = UINT64_MAX, end = 0, stop_us, stopped_us;
	size_t i;

	for (i = 0; i < move->num_phases; i++) {
		const struct move_phase *phase = &move->phases[i];

		if (phase->start_us < first)
			first = phase->start_us;
		if (phase->start_us + phase->duration_us > end)
			end = phase->start_us + phase->duration_us;
	}
	if (!move->num_phases) {
		first = 0;
		end = move->report.total_us;
	}
	if (move_stop(move, &stop_us, &stopped_us)) {
		first = stop_us < first ? stop_us : first;
		end = stop_us + stopped_us > end ? stop_us + stopped_us : end;
	}
	*start_us = first;
	*duration_us = end > first ? end - first : 1;
}

int move_exit_code(const struct move *move)
{
	if (move->ended && move->report.owner == QSC_OWNER_UNPROVED)
		return MOVE_UNPROVED;
	return !move->ended || move->error_number ? 1 : 0;
}

const char *move_result_name(const struct move *move)
{
	if (!move->ended)
		return "running";
	switch (move_exit_code(move)) {
	case 0:
		return "ok";
	case MOVE_UNPROVED:
		return "unproved";
	default:
		return "failed";
	}
}
