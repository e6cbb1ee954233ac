/* SPDX-License-Identifier: MIT */
/*
 * Writing a set to a file or a pipe. A file has a temporary name until the set changes hands, and
 * is removed when that does not happen; what is there already is never replaced, since it may be
 * the only copy of another set.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/file.h"
#include "transport/socket.h"

#define MAX_WRITE  (1U << 20) /* between two looks at the clock */
#define WRITEBACK  (8U << 20) /* the kernel begins to write out after so much: settling is quick */
#define PIPE_BYTES (1 << 20)  /* asked of the kernel */
#define WATCH_MS   100	      /* between two looks of a watch */

struct saver {
	struct qsc_channel base;
	struct qsc_file_place place; /* NOWHERE: an open file of somebody else's */
	char temporary[NAME_MAX + 1];
	int fd;
	int wake; /* eventfd: it was shut down */
	bool is_pipe;
	atomic_bool cut;
	int broken; /* -errno: what made the file worthless */
	uint32_t stall_ms;
	uint64_t deadline_us;
	const struct qsc_watch *watch; /* borrowed; or NULL */
	uint64_t size;		       /* of the channel's bytes so far */
	uint64_t unwritten;	       /* bytes since the last writeback */
	XXH3_state_t *hash;
};

/* ---- without signals ---- */

/* A pipe without a reader and a limit on the size of files would end the process. */
struct quiet {
	sigset_t blocked;
	sigset_t before;
};

static void quiet_begin(struct quiet *quiet)
{
	sigset_t pending;

	sigemptyset(&quiet->blocked);
	sigpending(&pending);
	if (!sigismember(&pending, SIGPIPE))
		sigaddset(&quiet->blocked, SIGPIPE);
	if (!sigismember(&pending, SIGXFSZ))
		sigaddset(&quiet->blocked, SIGXFSZ);
	pthread_sigmask(SIG_BLOCK, &quiet->blocked, &quiet->before);
}

static void quiet_end(const struct quiet *quiet)
{
	const struct timespec at_once = {0, 0};

	while (sigtimedwait(&quiet->blocked, NULL, &at_once) > 0)
		;
	pthread_sigmask(SIG_SETMASK, &quiet->before, NULL);
}

/* ---- writing ---- */

/* Until the pipe has room for PIPE_BUF bytes at least: so much does not block. */
static int wait_for_room(const struct saver *saver)
{
	struct pollfd fds[2] = {{.fd = saver->fd, .events = POLLOUT},
				{.fd = saver->wake, .events = POLLIN}};
	const struct qsc_watch *watch = saver->watch;
	uint64_t now = qsc_socket_now_us();
	uint64_t end = saver->stall_ms ? now + saver->stall_ms * 1000ULL : UINT64_MAX;

	if (saver->deadline_us)
		end = qsc_min_u64(end, saver->deadline_us);
	for (; now < end; now = qsc_socket_now_us()) {
		uint64_t ms = qsc_min_u64((end - now + 999) / 1000, watch ? WATCH_MS : INT_MAX);
		int ready = poll(fds, 2, end == UINT64_MAX && !watch ? -1 : (int)ms);
		int result = watch && ready <= 0 ? watch->look(watch->ctx) : 0;

		if (ready < 0 && errno != EINTR)
			return -errno;
		if (ready > 0)
			return fds[1].revents ? -EPIPE : 0;
		if (result < 0)
			return result;
	}
	return -ETIMEDOUT;
}

static int write_piece(struct saver *saver, const uint8_t *bytes, size_t size)
{
	size_t most = saver->is_pipe ? PIPE_BUF : MAX_WRITE;
	ssize_t n;
	int result;

	if (saver->deadline_us && qsc_socket_now_us() >= saver->deadline_us)
		return -ETIMEDOUT;
	if (atomic_load(&saver->cut))
		return -EPIPE;
	if (saver->is_pipe) {
		result = wait_for_room(saver);
		if (result < 0)
			return result;
	}
	n = write(saver->fd, bytes, size < most ? size : most);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	return (int)n;
}

static int write_bytes(struct saver *saver, const void *buf, size_t size)
{
	const uint8_t *bytes = buf;

	while (size) {
		int n = write_piece(saver, bytes, size);

		if (n < 0)
			return n;
		bytes += n;
		size -= (size_t)n;
		saver->unwritten += (uint64_t)n;
	}
	if (!saver->is_pipe && saver->unwritten >= WRITEBACK) {
		saver->unwritten = 0;
		(void)sync_file_range(saver->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	return 0;
}

static struct saver *saver_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct saver, base);
}

static int saver_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	struct saver *saver = saver_of(ch);
	struct quiet quiet;
	int result = saver->broken;
	int i;

	if (result < 0)
		return result;
	quiet_begin(&quiet);
	for (i = 0; i < iovcnt && result == 0; i++) {
		(void)XXH3_128bits_update(saver->hash, iov[i].iov_base, iov[i].iov_len);
		result = write_bytes(saver, iov[i].iov_base, iov[i].iov_len);
		saver->size += iov[i].iov_len;
	}
	quiet_end(&quiet);
	saver->broken = result;
	return result;
}

static void saver_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	struct saver *saver = saver_of(ch);

	saver->stall_ms = stall_ms;
	saver->deadline_us = deadline_us;
}

static void saver_set_watch(struct qsc_channel *ch, const struct qsc_watch *watch)
{
	saver_of(ch)->watch = watch;
}

/* ---- changing hands ---- */

/* What stands before the tail must be durable first where the tail makes the file valid at once. */
static int write_tail(struct saver *saver)
{
	uint8_t tail[QSC_FILE_TAIL_SIZE];
	int result;

	if (!saver->is_pipe && saver->place.folder < 0 && fsync(saver->fd) < 0)
		return -errno;
	qsc_file_encode_tail(saver->size, tail);
	(void)XXH3_128bits_update(saver->hash, tail, sizeof(tail) - QSC_FILE_HASH_SIZE);
	qsc_file_encode_hash(XXH3_128bits_digest(saver->hash), tail);
	result = write_bytes(saver, tail, sizeof(tail));
	if (result < 0 || saver->is_pipe || fsync(saver->fd) == 0)
		return result;
	return saver->place.folder < 0 ? -ENOTRECOVERABLE : -errno;
}

static int give_name(struct saver *saver)
{
	int result = qsc_file_rename(&saver->place, saver->temporary, saver->place.name);

	if (result < 0)
		return result;
	saver->temporary[0] = '\0';
	return fsync(saver->place.folder) < 0 ? -ENOTRECOVERABLE : 0;
}

static int saver_settle(struct qsc_channel *ch, struct qsc_error *err)
{
	struct saver *saver = saver_of(ch);
	const char *where = saver->place.path ? saver->place.path : "the open file";
	struct quiet quiet;
	int result = saver->broken;

	if (result == 0) {
		quiet_begin(&quiet);
		result = write_tail(saver);
		quiet_end(&quiet);
	}
	if (result == 0 && saver->place.folder >= 0)
		result = give_name(saver);
	/* Nothing may follow, whatever came of it. */
	saver->broken = result < 0 ? result : -EPIPE;
	if (result == -EEXIST)
		return qsc_error_set(err, EEXIST, NULL,
				     "%s has appeared meanwhile and is not replaced", where);
	if (result == -ENOTRECOVERABLE)
		return qsc_error_set(err, ENOTRECOVERABLE, NULL,
				     "%s is complete, and the disk failed when that was to be made "
				     "durable",
				     where);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "the set could not be saved in %s (%s)",
				     where, strerrordesc_np(-result));
	return 0;
}

static void saver_shutdown(struct qsc_channel *ch)
{
	struct saver *saver = saver_of(ch);

	atomic_store(&saver->cut, true);
	(void)qsc_eventfd_signal(saver->wake, 1);
}

static void saver_close(struct qsc_channel *ch)
{
	struct saver *saver = saver_of(ch);

	if (saver->temporary[0])
		(void)unlinkat(saver->place.folder, saver->temporary, 0);
	qsc_fd_close(&saver->fd);
	qsc_fd_close(&saver->wake);
	qsc_file_leave(&saver->place);
	XXH3_freeState(saver->hash);
	free(saver);
}

static const struct qsc_channel_ops saver_ops = {
	.send = saver_send,
	.set_limits = saver_set_limits,
	.settle = saver_settle,
	.shutdown = saver_shutdown,
	.close = saver_close,
	.set_watch = saver_set_watch,
};

/* ---- making one ---- */

static int create_temporary(struct saver *saver, const char *path, struct qsc_error *err)
{
	struct stat info;
	uint32_t number;
	int n;
	int result = qsc_file_find(path, &saver->place, err);

	if (result < 0)
		return result;
	if (fstatat(saver->place.folder, saver->place.name, &info, AT_SYMLINK_NOFOLLOW) == 0)
		return qsc_error_set(
			err, EEXIST, NULL,
			"%.256s exists and is not replaced, it may hold a set: move it "
			"away or choose another name",
			path);
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return qsc_error_set(err, EIO, NULL, "no randomness for a temporary name");
	n = snprintf(saver->temporary, sizeof(saver->temporary), "%s.part-%08x", saver->place.name,
		     number);
	if (n >= (int)sizeof(saver->temporary)) {
		saver->temporary[0] = '\0';
		return qsc_error_set(err, ENAMETOOLONG, NULL, "the name %.128s is too long", path);
	}
	saver->fd = openat(saver->place.folder, saver->temporary,
			   O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (saver->fd < 0) {
		saver->temporary[0] = '\0';
		return qsc_error_set(err, errno, NULL,
				     "cannot make a temporary file beside %.256s (%s)", path,
				     strerrordesc_np(errno));
	}
	return 0;
}

static int borrow(struct saver *saver, int fd, struct qsc_error *err)
{
	struct stat info;

	saver->fd = qsc_file_borrow(fd, O_WRONLY, &info, err);
	if (saver->fd < 0)
		return saver->fd;
	saver->is_pipe = S_ISFIFO(info.st_mode);
	if (saver->is_pipe)
		(void)fcntl(saver->fd, F_SETPIPE_SZ, PIPE_BYTES);
	return 0;
}

/* NULL with errno. */
static struct saver *saver_create(void)
{
	struct saver *saver = calloc(1, sizeof(*saver));
	int number = ENOMEM;

	if (!saver)
		return NULL;
	saver->base.ops = &saver_ops;
	saver->place = QSC_FILE_NOWHERE;
	saver->fd = -1;
	saver->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (saver->wake < 0)
		number = errno;
	saver->hash = XXH3_createState();
	if (saver->wake >= 0 && saver->hash && XXH3_128bits_reset(saver->hash) == XXH_OK)
		return saver;
	saver_close(&saver->base);
	errno = number;
	return NULL;
}

struct save {
	struct qsc_transport base;
	struct saver *saver; /* NULL: handed out */
};

/* The head is the channel's first bytes; it is not written before somebody wants the channel. */
static int begin(struct saver *saver)
{
	uint8_t head[QSC_FILE_HEAD_SIZE];
	const struct iovec iov = {head, sizeof(head)};
	int result;

	qsc_file_encode_head(head);
	result = saver_send(&saver->base, &iov, 1);
	saver->size = 0;
	return result;
}

static int save_open(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		     struct qsc_error *err)
{
	struct save *save = qsc_container_of(transport, struct save, base);
	int result;

	if (!save->saver)
		return qsc_error_set(
			err, EBUSY, NULL,
			"a file holds one set, and saving to this one was begun before: "
			"open it again");
	save->saver->stall_ms = timeout_ms;
	result = begin(save->saver);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot write to %s (%s)",
				     save->saver->place.path ? save->saver->place.path
							     : "the open file",
				     strerrordesc_np(-result));
	save->saver->stall_ms = 0;
	*ch = &qsc_steal(save->saver)->base;
	return 0;
}

static void save_close(struct qsc_transport *transport)
{
	struct save *save = qsc_container_of(transport, struct save, base);

	if (save->saver)
		saver_close(&save->saver->base);
	free(save);
}

static const struct qsc_transport_ops file_ops = {
	.name = "file",
	.max_channels = 1,
	.open = save_open,
	.close = save_close,
};
static const struct qsc_transport_ops fd_ops = {
	.name = "fd",
	.max_channels = 1,
	.open = save_open,
	.close = save_close,
};

int qsc_file_save(const char *path, int fd, struct qsc_transport **transport, struct qsc_error *err)
{
	struct save *save = calloc(1, sizeof(*save));
	int result;

	if (save)
		save->saver = saver_create();
	if (!save || !save->saver) {
		int number = errno;

		free(save);
		return qsc_error_set(err, number, NULL, "cannot prepare to save (%s)",
				     strerrordesc_np(number));
	}
	save->base.ops = path ? &file_ops : &fd_ops;
	result = path ? create_temporary(save->saver, path, err) : borrow(save->saver, fd, err);
	if (result < 0) {
		save_close(&save->base);
		return result;
	}
	*transport = &save->base;
	return 0;
}
