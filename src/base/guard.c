/* SPDX-License-Identifier: MIT */
/*
 * See guard.h. The signal handler walks a list of slots that only grows and whose entries are
 * atomics; a slot is taken and given back under a lock, but never freed.
 */
#include "base/guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

struct qsc_guard {
	_Atomic uintptr_t start; /* 0: free */
	_Atomic size_t size;
	_Atomic bool hit;
	struct qsc_guard *next; /* set once, before the slot is published */
	struct qsc_guard *next_free;
};

static _Atomic(struct qsc_guard *) slots;
static struct qsc_guard *free_slots;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction previous;
static bool installed;

static void hand_on(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
	} else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
		/* Not ours: the access faults again and ends the process as it would have. */
		signal(number, SIG_DFL);
	} else {
		previous.sa_handler(number);
	}
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	uintptr_t address = (uintptr_t)info->si_addr;
	struct qsc_guard *slot;
	int saved = errno;

	for (slot = atomic_load(&slots); slot; slot = slot->next) {
		uintptr_t start = atomic_load(&slot->start);
		size_t size = atomic_load(&slot->size);

		if (!start || address < start || address - start >= size)
			continue;
		atomic_store(&slot->hit, true);
		if (mmap((void *)start, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1,
			 0) == MAP_FAILED)
			break;
		errno = saved;
		return;
	}
	errno = saved;
	hand_on(number, info, context);
}

static int install(void)
{
	struct sigaction action = {.sa_flags = SA_SIGINFO | SA_RESTART | SA_NODEFER};

	if (installed)
		return 0;
	action.sa_sigaction = on_bus_error;
	sigemptyset(&action.sa_mask);
	if (sigaction(SIGBUS, &action, &previous) < 0)
		return -errno;
	installed = true;
	return 0;
}

int qsc_guard_add(void *addr, size_t size, struct qsc_guard **guard)
{
	struct qsc_guard *slot = NULL;
	int result;

	pthread_mutex_lock(&lock);
	result = install();
	if (result < 0)
		goto out;
	if (free_slots) {
		slot = free_slots;
		free_slots = slot->next_free;
	} else {
		slot = calloc(1, sizeof(*slot));
		if (!slot) {
			result = -ENOMEM;
			goto out;
		}
		slot->next = atomic_load(&slots);
		atomic_store(&slots, slot);
	}
	atomic_store(&slot->hit, false);
	atomic_store(&slot->size, size);
	atomic_store(&slot->start, (uintptr_t)addr);
	*guard = slot;
out:
	pthread_mutex_unlock(&lock);
	return result;
}

void qsc_guard_remove(struct qsc_guard *guard)
{
	if (!guard)
		return;
	pthread_mutex_lock(&lock);
	atomic_store(&guard->start, 0);
	atomic_store(&guard->size, 0);
	guard->next_free = free_slots;
	free_slots = guard;
	pthread_mutex_unlock(&lock);
}

bool qsc_guard_hit(const struct qsc_guard *guard)
{
	return guard && atomic_load_explicit(&guard->hit, memory_order_acquire);
}
