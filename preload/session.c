/* SPDX-License-Identifier: MIT */
/* See session.h. A file may outlive its session and its device: it then answers ENODEV (SESS-2). */
#include "session.h"

#include <errno.h>
#include <stdlib.h>

#include "abi/vfio.h"
#include "device.h"
#include "user.h"

struct pl_session {
	struct pl_file file;
	struct pl_dev *dev;
	_Atomic uint64_t session;
};

static struct pl_session *session_of(struct pl_file *file)
{
	return (struct pl_session *)file;
}

/* The device, locked against being closed; NULL, and nothing locked, when it is. */
static struct qsc_device *enter(struct pl_session *session)
{
	struct qsc_device *dev;

	pthread_rwlock_rdlock(&session->dev->lock);
	dev = session->dev->dev;
	if (!dev)
		pthread_rwlock_unlock(&session->dev->lock);
	return dev;
}

static void leave(struct pl_session *session)
{
	pthread_rwlock_unlock(&session->dev->lock);
}

static ssize_t session_read(struct pl_file *file, void *buf, size_t size)
{
	struct pl_session *session = session_of(file);
	struct qsc_device *dev;
	ssize_t n;

	if (!size)
		return 0;
	dev = enter(session);
	if (!dev)
		return -ENODEV;
	pl_dev_count(session->dev, QSC_ACTION_DATA_READ);
	/* Before anything leaves the stream. */
	n = pl_can_write(buf, size);
	if (!n)
		n = qsc_device_session_read(dev, atomic_load(&session->session), buf, size);
	if (n > 0)
		atomic_fetch_add(&session->dev->seen->saved_bytes, (uint64_t)n);
	leave(session);
	return n;
}

static ssize_t session_write(struct pl_file *file, const void *buf, size_t size)
{
	struct pl_session *session = session_of(file);
	struct qsc_device *dev;
	ssize_t n;

	if (!size)
		return 0;
	dev = enter(session);
	if (!dev)
		return -ENODEV;
	pl_dev_count(session->dev, QSC_ACTION_DATA_WRITE);
	n = pl_can_read(buf, size);
	if (!n)
		n = qsc_device_session_write(dev, atomic_load(&session->session), buf, size);
	if (n > 0)
		atomic_fetch_add(&session->dev->seen->loaded_bytes, (uint64_t)n);
	leave(session);
	return n;
}

static int session_ioctl(struct pl_file *file, unsigned long command, void *arg)
{
	struct pl_session *session = session_of(file);
	struct qsc_precopy_info info;
	struct abi_precopy_info out;
	struct qsc_device *dev;
	int result;

	if (command != ABI_MIG_GET_PRECOPY_INFO)
		return -ENOTTY;
	result = pl_copy_argsz(&out, sizeof(out), arg);
	if (result < 0)
		return result;
	dev = enter(session);
	if (!dev)
		return -ENODEV;
	pl_dev_count(session->dev, QSC_ACTION_PRECOPY_INFO);
	result = qsc_device_session_precopy_info(dev, atomic_load(&session->session), &info);
	leave(session);
	if (result < 0)
		return result;
	out.flags = 0;
	out.initial_bytes = info.initial_bytes;
	out.dirty_bytes = info.dirty_bytes;
	return pl_copy_out(arg, &out, sizeof(out));
}

static void session_release(struct pl_file *file)
{
	struct pl_session *session = session_of(file);
	struct qsc_device *dev = enter(session);

	if (dev) {
		if (atomic_load(&session->session))
			(void)qsc_device_session_close(dev, atomic_load(&session->session));
		leave(session);
	}
	pl_dev_put(session->dev);
	free(session);
}

static const struct pl_file_ops session_ops = {
	.name = "session",
	.ioctl = session_ioctl,
	.read = session_read,
	.write = session_write,
	.release = session_release,
};

struct pl_file *pl_session_new(struct pl_dev *dev)
{
	struct pl_session *session = calloc(1, sizeof(*session));

	if (!session)
		return NULL;
	session->file.ops = &session_ops;
	session->dev = dev;
	atomic_fetch_add(&dev->refs, 1);
	return &session->file;
}

void pl_session_set(struct pl_file *file, uint64_t session)
{
	atomic_store(&session_of(file)->session, session);
}
