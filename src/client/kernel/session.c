/* SPDX-License-Identifier: MIT */
/*
 * The state stream, through the descriptor that the kernel handed out for it. Some drivers say
 * "nothing for now" with the end of the stream, and some are always ready for poll(); so neither is
 * believed where the state says otherwise.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "client/kernel/kernel.h"

#define PATIENCE_MS 60000 /* for a driver to have data, or room for it */
#define FALSE_READY 64	  /* ready, and then not: more often than this is no race */

/* State lock held: is this the session that is open, and may it be used this way? */
static int check(struct qsc_kernel *kernel, uint64_t session, bool reading)
{
	if (session != kernel->session || kernel->session_fd < 0)
		return -ENODEV;
	if (kernel->raw)
		return 0;
	return (atomic_load(&kernel->state) != QSC_STATE_RESUMING) == reading ? 0 : -ENODEV;
}

/*
 * State lock held. What the driver answered to a session call. With ENODEV it has ended the
 * session, or the device is gone: its state tells which.
 */
static int failure(struct qsc_kernel *kernel, int number)
{
	enum qsc_state state;

	if (number == ENODEV && qsc_kernel_get_state(&kernel->dev, &state) == -ENOTCONN)
		return -ENOTCONN;
	/* A descriptor is for one direction only; the other one is no such session for its user. */
	return number == EBADF ? -ENODEV : -number;
}

/* After EAGAIN: until the driver says that it is worth another try. 0, or -errno. */
static int await(struct qsc_kernel *kernel, short events, unsigned int *tries)
{
	/* One that is always "ready" would have us spin: let a moment pass. */
	bool pauses = ++*tries > FALSE_READY;
	int n = qsc_kernel_await(kernel, pauses ? 0 : events, pauses ? 1 : PATIENCE_MS);

	if (n < 0)
		return n;
	return (n || pauses) && *tries <= FALSE_READY + PATIENCE_MS ? 0 : -ETIMEDOUT;
}

ssize_t qsc_kernel_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	unsigned int tries = 0;
	ssize_t n;

	qsc_kernel_begin_transfer(kernel);
	for (;;) {
		n = check(kernel, session, true);
		if (n < 0)
			break;
		n = read(kernel->session_fd, buf, size);
		if (n < 0)
			n = failure(kernel, errno);
		if (n == 0 && !kernel->raw && atomic_load(&kernel->state) != QSC_STATE_STOP_COPY)
			n = -ENOMSG;
		if (n != -EINTR && n != -EAGAIN)
			break;
		n = n == -EAGAIN ? await(kernel, POLLIN, &tries) : 0;
		if (n < 0)
			break;
	}
	qsc_kernel_end_transfer(kernel);
	return n;
}

/* State lock held. */
static int write_all(struct qsc_kernel *kernel, uint64_t session, const char *buf, size_t size)
{
	unsigned int tries = 0;
	int result = check(kernel, session, false);

	while (size && !result) {
		ssize_t n = write(kernel->session_fd, buf, size);

		if (n > 0) {
			buf += n;
			size -= (size_t)n;
			tries = 0;
		} else if (n == 0) {
			result = -EIO;
		} else if (errno == EAGAIN) {
			result = await(kernel, POLLOUT, &tries);
			if (!result)
				result = check(kernel, session, false);
		} else if (errno != EINTR) {
			result = failure(kernel, errno);
		}
	}
	return result;
}

ssize_t qsc_kernel_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	qsc_kernel_begin_transfer(kernel);
	result = write_all(kernel, session, buf, size);
	kernel->refused |= result < 0 && kernel->session == session;
	qsc_kernel_end_transfer(kernel);
	return result < 0 ? result : (ssize_t)size;
}

int qsc_kernel_session_precopy_info(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	/* No flags in: drivers that know of none hand them back as they came. */
	struct abi_precopy_info query = {.argsz = sizeof(query)};
	int result;

	pthread_mutex_lock(&kernel->state_lock);
	/* SESS-4 first: in another state the question is wrong whatever the session. */
	result = qsc_kernel_verdict(kernel, QSC_ACTION_PRECOPY_INFO);
	if (!result && (session != kernel->session || kernel->session_fd < 0))
		result = -ENODEV;
	if (!result) {
		result = qsc_kernel_ioctl(kernel->session_fd, ABI_MIG_GET_PRECOPY_INFO, &query);
		if (result < 0)
			result = failure(kernel, -result);
	}
	pthread_mutex_unlock(&kernel->state_lock);
	/* One of RESUMING knows no such question. */
	if (result == -ENOTTY)
		result = -EINVAL;
	if (result < 0)
		return result;
	info->initial_bytes = query.initial_bytes;
	info->dirty_bytes = query.dirty_bytes;
	return 0;
}

/*
 * The number is let go of. The descriptor stays until the state is left: some drivers take its end
 * for the end of what they are doing.
 */
int qsc_kernel_session_close(struct qsc_device *dev, uint64_t session)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result = -ENODEV;

	qsc_kernel_lock_state(kernel);
	if (session == kernel->session) {
		kernel->session = 0;
		result = 0;
	}
	qsc_kernel_unlock_state(kernel);
	return result;
}
