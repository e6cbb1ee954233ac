/* SPDX-License-Identifier: MIT */
/*
 * Migration state. What kernels and drivers get wrong is contained here: a failed request leaves
 * the requested state in the answer, so the state is always read afterwards (ORD-4); with no
 * descriptor free the state changes and the session is lost, so one is looked for first and what
 * was lost is undone (SESS-9); a driver that refused a part of a stream may yet run on it, so the
 * device is in ERROR for its user instead (SESS-6); a driver that finds a half loaded session at
 * close may crash, so none is ever left (ORD-9).
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

static int get_state(struct qsc_kernel *kernel, enum qsc_state *state)
{
	struct vfio_device_feature_mig_state data = {0};
	int result = qsc_kernel_feature(kernel->files.device,
					VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE |
						VFIO_DEVICE_FEATURE_GET,
					&data, sizeof(data));

	if (result < 0)
		return result;
	if (data.device_state >= QSC_STATE_COUNT)
		return -EPROTO;
	*state = (enum qsc_state)data.device_state;
	return 0;
}

/* *session_fd receives what the kernel hands out, or -1. */
static int put_state(struct qsc_kernel *kernel, uint32_t target, int *session_fd)
{
	struct vfio_device_feature_mig_state data = {.device_state = target, .data_fd = -1};
	int result = qsc_kernel_feature(kernel->files.device,
					VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE |
						VFIO_DEVICE_FEATURE_SET,
					&data, sizeof(data));

	*session_fd = result < 0 ? -1 : data.data_fd;
	return result;
}

static bool holds_session(uint32_t state)
{
	return state == QSC_STATE_RESUMING || qsc_state_is_saving((enum qsc_state)state);
}

static bool same_session(enum qsc_state before, enum qsc_state after)
{
	return before == after || (qsc_state_is_saving(before) && qsc_state_is_saving(after));
}

static enum qsc_state current(struct qsc_kernel *kernel)
{
	return (enum qsc_state)atomic_load(&kernel->state);
}

static void end_session(struct qsc_kernel *kernel)
{
	/* The descriptor stays, for the driver to say what it comes to. */
	if (kernel->raw)
		return;
	kernel->session = 0;
	kernel->refused = false;
	qsc_fd_close(&kernel->session_fd);
}

/*
 * State lock held. From now on register accesses are discarded: when this returns none is under
 * way, and no mapping leads to the device. -errno: nothing has changed.
 */
static int close_access(struct qsc_kernel *kernel)
{
	enum qsc_gate_mode before = qsc_gate_mode(&kernel->access);
	int result;

	if (before != QSC_GATE_CLOSED)
		qsc_gate_set(&kernel->access, QSC_GATE_CLOSED);
	result = qsc_mappings_revoke(&kernel->mappings);
	if (result < 0 && before != QSC_GATE_CLOSED)
		qsc_gate_set(&kernel->access, before);
	return result;
}

/* State lock held. -errno: a mapping could not be given back, and may be with the next call. */
static int open_access(struct qsc_kernel *kernel)
{
	if (qsc_gate_mode(&kernel->access) == QSC_GATE_CLOSED)
		qsc_gate_set(&kernel->access, QSC_GATE_OPEN);
	return qsc_mappings_restore(&kernel->mappings);
}

/* State lock held. The device is in `state`: session, accesses and held triggers follow. */
static int enter(struct qsc_kernel *kernel, enum qsc_state state)
{
	int result;

	if (!holds_session(state) || !same_session(current(kernel), state))
		end_session(kernel);
	atomic_store(&kernel->state, state);
	kernel->state_known = true;
	if (kernel->raw)
		return 0;
	result = qsc_state_is_active(state) ? open_access(kernel) : close_access(kernel);
	if (state == QSC_STATE_RUNNING || state == QSC_STATE_PRE_COPY)
		qsc_kernel_release_held(kernel, true);
	return result;
}

/*
 * State lock held. A load that the driver refused in part has failed as a whole (SESS-6). The
 * driver is not asked to confirm it, as some take the rest of such a stream and run on it: it stays
 * in RESUMING, with its descriptor, and its user sees ERROR until a reset.
 */
static int condemn(struct qsc_kernel *kernel)
{
	kernel->session = 0;
	atomic_store(&kernel->condemned, true);
	atomic_store(&kernel->state, QSC_STATE_ERROR);
	return -EINVAL;
}

/* State lock held. Ask rather than guess. */
static int learn(struct qsc_kernel *kernel)
{
	enum qsc_state state = QSC_STATE_ERROR;
	int result;

	if (kernel->state_known || atomic_load(&kernel->condemned))
		return 0;
	result = get_state(kernel, &state);
	return result < 0 ? result : enter(kernel, state);
}

/* State lock held. After a failure the device may be anywhere on the path. */
static void recover(struct qsc_kernel *kernel, int failure)
{
	kernel->state_known = false;
	(void)learn(kernel);
	if (!kernel->state_known && !atomic_load(&kernel->condemned)) {
		end_session(kernel);
		qsc_log(QSC_LOG_WARNING,
			"%s: a state change failed (%s) and the state cannot be read; it is not "
			"known where the device stands",
			kernel->name, strerror(-failure));
	}
}

static int reset_locked(struct qsc_kernel *kernel)
{
	int result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_RESET, NULL);

	if (!kernel->migratable)
		return result;
	if (!result) {
		atomic_store(&kernel->condemned, false);
		end_session(kernel);
		qsc_kernel_release_held(kernel, false);
	}
	recover(kernel, result ? result : -EIO);
	if (!result && (!kernel->state_known || current(kernel) != QSC_STATE_RUNNING))
		result = -EIO;
	return result;
}

/*
 * State lock held. The device went into a state with a session and nobody has it: bring it back to
 * where it was, or to STOP where that had a session, which is lost as well. A load without a
 * session is ended by a reset alone: any other way out would be validated, and the driver may take
 * nothing for a whole stream.
 */
static void undo_session(struct qsc_kernel *kernel, enum qsc_state before)
{
	enum qsc_state back = holds_session(before) ? QSC_STATE_STOP : before;
	int fd = -1;
	int result = 0;

	if (current(kernel) == QSC_STATE_RESUMING)
		result = reset_locked(kernel);
	if (!result && current(kernel) != back)
		result = put_state(kernel, back, &fd);
	qsc_fd_close(&fd);
	recover(kernel, result);
	qsc_log(QSC_LOG_WARNING,
		"%s: a session of the state data could not be handed out; the device was brought "
		"back to %s",
		kernel->name, qsc_state_name(current(kernel)));
}

/* Whether a descriptor can be had now, of the process and of the system. */
static int find_room(void)
{
	qsc_autoclose int fd = eventfd(0, EFD_CLOEXEC);

	return fd < 0 ? -errno : 0;
}

/* State lock held. Takes `fd` over; returns the session's number. */
static uint64_t begin_session(struct qsc_kernel *kernel, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	/* A driver that waits for its device should not make us wait without end. */
	if (flags >= 0)
		(void)fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	qsc_fd_close(&kernel->session_fd);
	kernel->session_fd = fd;
	kernel->session = ++kernel->last_session;
	return kernel->session;
}

/*
 * State lock held. The driver has been asked, with that result, and gave `fd` or -1; the device was
 * in `before`.
 */
static int finish_change(struct qsc_kernel *kernel, int result, enum qsc_state before,
			 enum qsc_state target, bool opens, int fd, uint64_t *session)
{
	if (result < 0 || (opens && fd < 0)) {
		qsc_fd_close(&fd);
		recover(kernel, result < 0 ? result : -EIO);
		if (holds_session(current(kernel)) && kernel->session_fd < 0)
			undo_session(kernel, before);
		return result < 0 ? result : -EIO;
	}
	result = enter(kernel, target);
	if (result < 0 && opens) {
		qsc_fd_close(&fd);
		undo_session(kernel, before);
		return result;
	}
	if (opens)
		*session = begin_session(kernel, fd);
	else
		qsc_fd_close(&fd);
	return result;
}

/* State lock held. */
static int change_state(struct qsc_kernel *kernel, uint32_t target, uint64_t *session)
{
	enum qsc_state before;
	bool opens;
	int fd = -1;
	int next;
	int result = learn(kernel);

	if (result < 0)
		return result;
	before = current(kernel);
	next = qsc_contract_next(kernel->migration, before, target);
	if (atomic_load(&kernel->condemned))
		return -EINVAL;
	if (before == QSC_STATE_RESUMING && kernel->refused && next >= 0 && next != (int)before)
		return condemn(kernel);
	opens = holds_session(target) && !same_session(before, (enum qsc_state)target) && next >= 0;
	if (opens)
		result = find_room();
	/* Before the device stops: an access in between must not reach it. */
	if (!result && next >= 0 && !qsc_state_is_active((enum qsc_state)target))
		result = close_access(kernel);
	if (result < 0)
		return result;
	result = put_state(kernel, target, &fd);
	if (!result && target >= QSC_STATE_COUNT)
		result = -EPROTO;
	return finish_change(kernel, result, before, (enum qsc_state)target, opens, fd, session);
}

/* State lock held. What the kernel makes of it; *session stays 0 where no descriptor came. */
static int change_state_raw(struct qsc_kernel *kernel, uint32_t target, uint64_t *session)
{
	int fd = -1;
	int result = put_state(kernel, target, &fd);

	kernel->state_known = false;
	(void)learn(kernel);
	if (!result && fd >= 0)
		*session = begin_session(kernel, fd);
	return result;
}

int qsc_kernel_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	if (!kernel->migratable)
		return -ENOTTY;
	qsc_kernel_lock_state(kernel);
	result = kernel->raw ? change_state_raw(kernel, target, session)
			     : change_state(kernel, target, session);
	qsc_kernel_unlock_state(kernel);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : result;
}

int qsc_kernel_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	if (!kernel->migratable)
		return -ENOTTY;
	if (atomic_load(&kernel->condemned)) {
		*state = QSC_STATE_ERROR;
		return 0;
	}
	result = get_state(kernel, state);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}

int qsc_kernel_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);

	if (!kernel->migratable)
		return -ENOTTY;
	info->flags = kernel->migration;
	info->dirty_log = kernel->log != QSC_KERNEL_LOG_NONE;
	return 0;
}

int qsc_kernel_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	if (!kernel->migratable)
		return -ENOTTY;
	if (current(kernel) == QSC_STATE_ERROR && !kernel->raw)
		return -EIO;
	result = qsc_kernel_feature(kernel->files.device,
				    ABI_FEATURE_MIG_DATA_SIZE | VFIO_DEVICE_FEATURE_GET, size_bytes,
				    sizeof(*size_bytes));
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}

int qsc_kernel_reset(struct qsc_device *dev)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result;

	qsc_kernel_lock_state(kernel);
	result = reset_locked(kernel);
	qsc_kernel_unlock_state(kernel);
	if (!result && !kernel->raw)
		(void)qsc_kernel_log_stop(dev);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}

/* ---- open and close ---- */

/* A driver may have kept what the last user left, who may have been killed. */
static int make_running(struct qsc_kernel *kernel, struct qsc_error *err)
{
	enum qsc_state left;
	uint64_t session;
	int result = learn(kernel);

	if (result < 0)
		return qsc_error_set(err, -result, "STATE-4", "it does not tell its state: %s",
				     strerror(-result));
	left = current(kernel);
	if (left == QSC_STATE_RUNNING || kernel->raw)
		return 0;
	qsc_log(QSC_LOG_INFO, "%s: its last user left it in %s; it is reset", kernel->name,
		qsc_state_name(left));
	result = reset_locked(kernel);
	if (result < 0 && kernel->state_known && current(kernel) != QSC_STATE_ERROR &&
	    current(kernel) != QSC_STATE_RESUMING)
		result = change_state(kernel, QSC_STATE_RUNNING, &session);
	if (result < 0)
		return qsc_error_set(err, -result, "STATE-5",
				     "its last user left it in %s, and a reset does not bring it "
				     "back (%s); unbind it from its driver and bind it again",
				     qsc_state_name(left), strerror(-result));
	return 0;
}

int qsc_kernel_learn_migration(struct qsc_kernel *kernel, struct qsc_error *err)
{
	uint64_t flags = 0;
	int result = qsc_kernel_feature(kernel->files.device,
					VFIO_DEVICE_FEATURE_MIGRATION | VFIO_DEVICE_FEATURE_GET,
					&flags, sizeof(flags));

	/* Whatever the errno: a device that cannot say that it migrates does not. */
	if (result < 0)
		return 0;
	kernel->migratable = true;
	kernel->migration = (uint32_t)flags;
	/* Without it the driver may not tell that there are new initial bytes. */
	if (flags & QSC_MIGRATION_PRE_COPY)
		(void)qsc_kernel_feature(kernel->files.device,
					 ABI_FEATURE_MIG_PRECOPY_INFO_V2 | VFIO_DEVICE_FEATURE_SET,
					 NULL, 0);
	return make_running(kernel, err);
}

void qsc_kernel_leave(struct qsc_kernel *kernel)
{
	uint64_t session;
	int result = -ENOTTY;

	if (kernel->raw)
		return;
	(void)qsc_kernel_log_stop(&kernel->dev);
	qsc_kernel_release_held(kernel, false);
	if (!kernel->migratable)
		return;
	if (kernel->flags & VFIO_DEVICE_FLAGS_RESET)
		result = reset_locked(kernel);
	if (result < 0 && learn(kernel) >= 0 && current(kernel) != QSC_STATE_ERROR &&
	    current(kernel) != QSC_STATE_RUNNING)
		result = change_state(kernel, QSC_STATE_RUNNING, &session);
	if (result < 0 && current(kernel) != QSC_STATE_RUNNING)
		qsc_log(QSC_LOG_WARNING, "%s: let go in %s, because it could not be reset: %s",
			kernel->name, qsc_state_name(current(kernel)), strerror(-result));
}
