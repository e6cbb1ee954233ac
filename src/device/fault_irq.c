/* SPDX-License-Identifier: MIT */
/*
 * Interrupts on their way through the fault layer. The device signals an eventfd of the relay's; a
 * thread takes what comes and signals the user's own, as often as the layer decides: not at all,
 * twice, later. It exists only where a rule says something about interrupts.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "device/fault.h"

struct vector {
	uint32_t index;
	uint32_t number;
	int own;  /* what the device signals */
	int user; /* duplicate of what the user gave */
};

struct fault_relay {
	fault_irq_fn *decide;
	void *ctx;
	pthread_t thread;
	int epoll;
	int quit;
	pthread_mutex_t lock;
	struct vector *vectors;
	size_t count;
};

static void deliver(struct fault_relay *relay, struct vector *vector)
{
	uint64_t count = qsc_eventfd_drain(vector->own);

	if (count)
		count = relay->decide(relay->ctx, vector->number, count);
	while (count--)
		if (qsc_eventfd_signal_foreign(vector->user) < 0)
			break;
}

static void deliver_from(struct fault_relay *relay, int own)
{
	pthread_mutex_lock(&relay->lock);
	for (size_t i = 0; i < relay->count; i++)
		if (relay->vectors[i].own == own)
			deliver(relay, &relay->vectors[i]);
	pthread_mutex_unlock(&relay->lock);
}

static void *run(void *arg)
{
	struct fault_relay *relay = arg;
	struct epoll_event events[16];

	for (;;) {
		int n = epoll_wait(relay->epoll, events, QSC_ARRAY_SIZE(events), -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == relay->quit)
				return NULL;
			deliver_from(relay, events[i].data.fd);
		}
	}
}

/* The lock is held. */
static void remove_at(struct fault_relay *relay, size_t i)
{
	struct vector *vector = &relay->vectors[i];

	deliver(relay, vector);
	(void)epoll_ctl(relay->epoll, EPOLL_CTL_DEL, vector->own, NULL);
	qsc_fd_close(&vector->own);
	qsc_fd_close(&vector->user);
	*vector = relay->vectors[--relay->count];
}

static int add(struct fault_relay *relay, uint32_t index, uint32_t number, int fd, int *own)
{
	struct vector vector = {.index = index, .number = number, .own = -1, .user = -1};
	struct epoll_event event = {.events = EPOLLIN};
	struct vector *more = reallocarray(relay->vectors, relay->count + 1,
					   sizeof(*relay->vectors));

	if (!more)
		return -ENOMEM;
	relay->vectors = more;
	vector.user = qsc_fd_dup(fd);
	if (vector.user < 0)
		return vector.user;
	vector.own = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	event.data.fd = vector.own;
	if (vector.own < 0 || epoll_ctl(relay->epoll, EPOLL_CTL_ADD, vector.own, &event) < 0) {
		int number_of_error = errno;

		qsc_fd_close(&vector.own);
		qsc_fd_close(&vector.user);
		return -number_of_error;
	}
	*own = vector.own;
	relay->vectors[relay->count++] = vector;
	return 0;
}

int qsc_fault_relay_add(struct fault_relay *relay, uint32_t index, uint32_t start, uint32_t count,
			const int *fds, int *own)
{
	size_t before;
	int result = 0;

	pthread_mutex_lock(&relay->lock);
	before = relay->count;
	for (uint32_t i = 0; i < count && !result; i++) {
		own[i] = -1;
		if (fds[i] >= 0)
			result = add(relay, index, start + i, fds[i], &own[i]);
	}
	while (result < 0 && relay->count > before)
		remove_at(relay, relay->count - 1);
	pthread_mutex_unlock(&relay->lock);
	return result;
}

static bool is_among(int fd, const int *fds, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (fds[i] == fd)
			return true;
	return false;
}

void qsc_fault_relay_settle(struct fault_relay *relay, uint32_t index, uint32_t start,
			    uint32_t count, const int *own, bool taken)
{
	pthread_mutex_lock(&relay->lock);
	for (size_t i = relay->count; i > 0; i--) {
		const struct vector *vector = &relay->vectors[i - 1];

		if (vector->index == index && vector->number >= start &&
		    vector->number - start < count && is_among(vector->own, own, count) != taken)
			remove_at(relay, i - 1);
	}
	pthread_mutex_unlock(&relay->lock);
}

void qsc_fault_relay_clear(struct fault_relay *relay, uint32_t index)
{
	pthread_mutex_lock(&relay->lock);
	for (size_t i = relay->count; i > 0; i--)
		if (relay->vectors[i - 1].index == index)
			remove_at(relay, i - 1);
	pthread_mutex_unlock(&relay->lock);
}

int qsc_fault_relay_create(fault_irq_fn *decide, void *ctx, struct fault_relay **out)
{
	struct fault_relay *relay = calloc(1, sizeof(*relay));
	struct epoll_event event = {.events = EPOLLIN};
	int number;

	if (!relay)
		return -ENOMEM;
	relay->decide = decide;
	relay->ctx = ctx;
	relay->quit = eventfd(0, EFD_CLOEXEC);
	relay->epoll = epoll_create1(EPOLL_CLOEXEC);
	event.data.fd = relay->quit;
	pthread_mutex_init(&relay->lock, NULL);
	if (relay->quit < 0 || relay->epoll < 0 ||
	    epoll_ctl(relay->epoll, EPOLL_CTL_ADD, relay->quit, &event) < 0)
		number = errno;
	else
		number = pthread_create(&relay->thread, NULL, run, relay);
	if (!number) {
		*out = relay;
		return 0;
	}
	qsc_fd_close(&relay->epoll);
	qsc_fd_close(&relay->quit);
	pthread_mutex_destroy(&relay->lock);
	free(relay);
	return -number;
}

void qsc_fault_relay_destroy(struct fault_relay *relay)
{
	if (!relay)
		return;
	(void)qsc_eventfd_signal(relay->quit, 1);
	pthread_join(relay->thread, NULL);
	while (relay->count)
		remove_at(relay, relay->count - 1);
	free(relay->vectors);
	qsc_fd_close(&relay->epoll);
	qsc_fd_close(&relay->quit);
	pthread_mutex_destroy(&relay->lock);
	free(relay);
}
