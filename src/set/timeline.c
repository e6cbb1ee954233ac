/* SPDX-License-Identifier: MIT */
/* The timeline: phases as they were recorded, sorted by their start when they are asked for. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include <quiesce/set.h>

struct qsc_timeline {
	pthread_mutex_t lock;
	struct qsc_phase *phases;
	size_t count;
	size_t room;
};

int qsc_timeline_create(struct qsc_timeline **timeline)
{
	struct qsc_timeline *made = calloc(1, sizeof(*made));

	if (!made)
		return -ENOMEM;
	pthread_mutex_init(&made->lock, NULL);
	*timeline = made;
	return 0;
}

void qsc_timeline_destroy(struct qsc_timeline *timeline)
{
	if (!timeline)
		return;
	pthread_mutex_destroy(&timeline->lock);
	free(timeline->phases);
	free(timeline);
}

/* A phase that finds no memory is left out: a report must never fail what it reports on. */
void qsc_timeline_add(struct qsc_timeline *timeline, const struct qsc_phase *phase)
{
	if (!timeline)
		return;
	pthread_mutex_lock(&timeline->lock);
	if (timeline->count == timeline->room) {
		size_t room = timeline->room ? 2 * timeline->room : 64;
		struct qsc_phase *grown = reallocarray(timeline->phases, room,
						       sizeof(*timeline->phases));

		if (grown) {
			timeline->phases = grown;
			timeline->room = room;
		}
	}
	if (timeline->count < timeline->room)
		timeline->phases[timeline->count++] = *phase;
	pthread_mutex_unlock(&timeline->lock);
}

static int by_start(const void *a, const void *b)
{
	const struct qsc_phase *left = a;
	const struct qsc_phase *right = b;

	if (left->start_us != right->start_us)
		return left->start_us < right->start_us ? -1 : 1;
	/* What lasts longer holds what began with it; the whole set comes before its members. */
	if (left->duration_us != right->duration_us)
		return left->duration_us > right->duration_us ? -1 : 1;
	if (left->member == right->member)
		return 0;
	if (left->member == QSC_TIMELINE_ALL || right->member == QSC_TIMELINE_ALL)
		return left->member == QSC_TIMELINE_ALL ? -1 : 1;
	return left->member < right->member ? -1 : 1;
}

size_t qsc_timeline_phases(struct qsc_timeline *timeline, const struct qsc_phase **phases)
{
	size_t count;

	pthread_mutex_lock(&timeline->lock);
	if (timeline->count)
		qsort(timeline->phases, timeline->count, sizeof(*timeline->phases), by_start);
	*phases = timeline->phases;
	count = timeline->count;
	pthread_mutex_unlock(&timeline->lock);
	return count;
}
