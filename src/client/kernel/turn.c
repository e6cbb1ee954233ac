/* SPDX-License-Identifier: MIT */
/*
 * Turns at the device's state: one state change, reset or session call at a time. A session call
 * that waits for the driver, which may take as long as it likes, lets the others have their turn,
 * and looks again at what there is when it goes on: its session may have ended (SESS-2). While it
 * waits nobody closes the descriptor under it.
 */
#include <errno.h>
#include <poll.h>

#include "base/fd.h"
#include "client/kernel/kernel.h"

void qsc_kernel_lock_state(struct qsc_kernel *kernel)
{
	pthread_mutex_lock(&kernel->state_lock);
	if (!kernel->waiting)
		return;
	kernel->interrupting++;
	(void)qsc_eventfd_signal(kernel->wake_fd, 1);
	while (kernel->waiting)
		pthread_cond_wait(&kernel->turn, &kernel->state_lock);
	if (--kernel->interrupting)
		return;
	(void)qsc_eventfd_drain(kernel->wake_fd);
	/* They go on when this turn ends. */
	pthread_cond_broadcast(&kernel->turn);
}

void qsc_kernel_unlock_state(struct qsc_kernel *kernel)
{
	pthread_mutex_unlock(&kernel->state_lock);
}

void qsc_kernel_begin_transfer(struct qsc_kernel *kernel)
{
	pthread_mutex_lock(&kernel->state_lock);
	kernel->queued++;
	while (kernel->transferring)
		pthread_cond_wait(&kernel->turn, &kernel->state_lock);
	kernel->queued--;
	kernel->transferring = true;
}

void qsc_kernel_end_transfer(struct qsc_kernel *kernel)
{
	kernel->transferring = false;
	if (kernel->queued)
		pthread_cond_broadcast(&kernel->turn);
	pthread_mutex_unlock(&kernel->state_lock);
}

int qsc_kernel_await(struct qsc_kernel *kernel, short events, int patience_ms)
{
	struct pollfd wait[] = {
		{.fd = events ? kernel->session_fd : -1, .events = events},
		{.fd = kernel->wake_fd, .events = POLLIN},
	};
	int n = 1;

	if (!kernel->interrupting) {
		kernel->waiting++;
		pthread_mutex_unlock(&kernel->state_lock);
		n = poll(wait, 2, patience_ms);
		if (n < 0)
			n = errno == EINTR ? 1 : -errno;
		pthread_mutex_lock(&kernel->state_lock);
		kernel->waiting--;
		pthread_cond_broadcast(&kernel->turn);
	}
	while (kernel->interrupting)
		pthread_cond_wait(&kernel->turn, &kernel->state_lock);
	return n;
}
