/* SPDX-License-Identifier: MIT */
/*
 * Reading a set from a file or a pipe. All of it is checked before the channel is handed out, and
 * the hash of every block is kept: what is handed out later is compared with what was checked, so a
 * file that changes meanwhile is found without a copy of it. A pipe cannot be read twice and is
 * copied to an unnamed file first. Opening goes on in pieces, however much there is to check.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "transport/file.h"
#include "transport/socket.h"

#define BLOCK	 (1U << 20)
#define RESTORED ".restored"

/* ---- the file ---- */

/* Belongs to the transport until the channel is handed out, to the channel then. */
struct saved {
	struct qsc_file_place place; /* NOWHERE: an open file of somebody else's */
	char name[300];		     /* for messages */
	int fd;			     /* a file, locked, or a pipe; what is read is `content` */
	int content;		     /* fd itself or the copy of what came through the pipe */
	struct stat info;
	uint64_t size;
	XXH128_hash_t *blocks; /* of the file's blocks, as checked */
};

static void saved_release(struct saved *saved)
{
	if (saved->content != saved->fd)
		qsc_fd_close(&saved->content);
	qsc_fd_close(&saved->fd);
	qsc_file_leave(&saved->place);
	free(saved->blocks);
}

/* Exactly size bytes from there, or -errno; -EBADMSG when the file ends before. */
static int read_at(const struct saved *saved, uint64_t at, void *buf, size_t size)
{
	uint8_t *to = buf;

	while (size) {
		ssize_t n = pread(saved->content, to, size, (off_t)at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -EBADMSG;
		to += n;
		at += (uint64_t)n;
		size -= (size_t)n;
	}
	return 0;
}

static size_t block_size(const struct saved *saved, uint64_t block)
{
	return (size_t)qsc_min_u64(BLOCK, saved->size - block * BLOCK);
}

/* ---- the channel ---- */

struct reader {
	struct qsc_channel base;
	struct saved saved;
	atomic_bool cut;
	uint64_t deadline_us;
	uint64_t at; /* in the file */
	uint64_t end;
	uint64_t block; /* which one the buffer has; UINT64_MAX: none */
	uint8_t buffer[BLOCK];
};

static struct reader *reader_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct reader, base);
}

static int load_block(struct reader *reader, uint64_t block)
{
	const struct saved *saved = &reader->saved;
	size_t size = block_size(saved, block);
	int result;

	if (atomic_load(&reader->cut))
		return -EPIPE;
	if (reader->deadline_us && qsc_socket_now_us() >= reader->deadline_us)
		return -ETIMEDOUT;
	reader->block = UINT64_MAX;
	result = read_at(saved, block * BLOCK, reader->buffer, size);
	if (result < 0)
		return result;
	if (!XXH128_isEqual(XXH3_128bits(reader->buffer, size), saved->blocks[block])) {
		qsc_log(QSC_LOG_ERROR, "%s was changed while it was being restored", saved->name);
		return -EBADMSG;
	}
	reader->block = block;
	return 0;
}

static int reader_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct reader *reader = reader_of(ch);
	uint8_t *to = buf;

	if (size > reader->end - reader->at || atomic_load(&reader->cut))
		return -EPIPE;
	while (size) {
		uint64_t block = reader->at / BLOCK;
		size_t offset = (size_t)(reader->at % BLOCK);
		size_t part = size < BLOCK - offset ? size : BLOCK - offset;
		int result = reader->block == block ? 0 : load_block(reader, block);

		if (result < 0)
			return result;
		memcpy(to, reader->buffer + offset, part);
		to += part;
		size -= part;
		reader->at += part;
	}
	return 0;
}

/* Whoever saved it has gone. */
static int reader_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	return 0;
}

static void reader_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	reader_of(ch)->deadline_us = deadline_us;
}

/* Nobody may find it under its name again. On failure it still has it, or err says where it is. */
static int put_away(const struct saved *saved, struct qsc_error *err)
{
	const struct qsc_file_place *place = &saved->place;
	char restored[NAME_MAX + 1];
	struct stat info;
	int result;

	(void)snprintf(restored, sizeof(restored), "%s" RESTORED, place->name);
	if (fstatat(place->folder, place->name, &info, AT_SYMLINK_NOFOLLOW) < 0)
		return qsc_error_set(err, errno, NULL,
				     "%s has gone while it was being restored (%s): somebody else "
				     "may have restored it",
				     saved->name, strerrordesc_np(errno));
	if (info.st_dev != saved->info.st_dev || info.st_ino != saved->info.st_ino)
		return qsc_error_set(err, ESTALE, NULL,
				     "%s was replaced by another file while it was being restored",
				     saved->name);
	result = qsc_file_rename(place, place->name, restored);
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "%s cannot be renamed to %s, which keeps it from being "
				     "restored twice (%s)",
				     saved->name, restored, strerrordesc_np(-result));
	if (fsync(place->folder) == 0)
		return 0;
	result = -errno;
	if (qsc_file_rename(place, restored, place->name) < 0)
		return qsc_error_set(err, -result, NULL,
				     "the folder of %s cannot be synced (%s); the set was not "
				     "started, its file is %s now",
				     saved->name, strerrordesc_np(-result), restored);
	return qsc_error_set(err, -result, NULL, "the folder of %s cannot be synced (%s)",
			     saved->name, strerrordesc_np(-result));
}

static int reader_settle(struct qsc_channel *ch, struct qsc_error *err)
{
	struct reader *reader = reader_of(ch);

	if (atomic_load(&reader->cut))
		return qsc_error_set(err, EPIPE, NULL, "%s is no longer being read",
				     reader->saved.name);
	return reader->saved.place.folder < 0 ? 0 : put_away(&reader->saved, err);
}

static void reader_shutdown(struct qsc_channel *ch)
{
	atomic_store(&reader_of(ch)->cut, true);
}

static void reader_close(struct qsc_channel *ch)
{
	struct reader *reader = reader_of(ch);

	saved_release(&reader->saved);
	free(reader);
}

static const struct qsc_channel_ops reader_ops = {
	.send = reader_send,
	.recv = reader_recv,
	.set_limits = reader_set_limits,
	.settle = reader_settle,
	.shutdown = reader_shutdown,
	.close = reader_close,
};

/* ---- checking ---- */

struct restore {
	struct qsc_transport base;
	struct saved saved;
	struct reader *reader; /* made ready; NULL: handed out */
	bool complete;	       /* all has come through the pipe */
	bool begun;	       /* with checking */
	uint64_t checked;
	XXH3_state_t *hash;
};

/* What the beginning and the end of it say, before all is read. */
static int begin_check(struct restore *restore, struct qsc_error *err)
{
	struct saved *saved = &restore->saved;
	const uint64_t around = QSC_FILE_HEAD_SIZE + QSC_FILE_TAIL_SIZE;
	uint8_t head[QSC_FILE_HEAD_SIZE];
	uint8_t tail[QSC_FILE_TAIL_SIZE];
	uint8_t wanted[QSC_FILE_TAIL_SIZE];
	int result;

	/* What is missing of it was cut off, which is said below. */
	qsc_file_encode_head(head);
	result = read_at(saved, 0, head, (size_t)qsc_min_u64(saved->size, sizeof(head)));
	if (result == 0)
		result = qsc_file_check_head(head, saved->name, err);
	if (result < 0)
		return result;
	qsc_file_encode_tail(saved->size - around, wanted);
	if (saved->size >= around)
		result = read_at(saved, saved->size - sizeof(tail), tail, sizeof(tail));
	if (result < 0)
		return result;
	if (saved->size < around || memcmp(tail, wanted, sizeof(tail) - QSC_FILE_HASH_SIZE) != 0)
		return qsc_error_set(
			err, EBADMSG, NULL,
			"%s is not whole: saving was never finished, or it was cut off "
			"or altered",
			saved->name);
	saved->blocks = calloc((size_t)((saved->size + BLOCK - 1) / BLOCK), sizeof(*saved->blocks));
	if (!saved->blocks || XXH3_128bits_reset(restore->hash) != XXH_OK)
		return -ENOMEM;
	restore->begun = true;
	return 0;
}

static int end_check(struct restore *restore, struct qsc_error *err)
{
	const struct saved *saved = &restore->saved;
	uint8_t is[QSC_FILE_TAIL_SIZE];
	uint8_t wanted[QSC_FILE_TAIL_SIZE];
	int result = read_at(saved, saved->size - sizeof(is), is, sizeof(is));

	if (result < 0)
		return result;
	memcpy(wanted, is, sizeof(wanted));
	qsc_file_encode_hash(XXH3_128bits_digest(restore->hash), wanted);
	if (memcmp(is, wanted, sizeof(is)) != 0)
		return qsc_error_set(
			err, EBADMSG, NULL,
			"%s was altered or damaged after it was saved: its hash is not "
			"that of its content",
			saved->name);
	return 0;
}

/* One block; 1 when all are checked. */
static int check_some(struct restore *restore, struct qsc_error *err)
{
	struct saved *saved = &restore->saved;
	uint64_t hashed = saved->size - QSC_FILE_HASH_SIZE;
	uint64_t block = restore->checked / BLOCK;
	uint8_t *buffer = restore->reader->buffer;
	size_t size;
	int result;

	if (!restore->begun)
		return begin_check(restore, err);
	if (restore->checked == saved->size) {
		result = end_check(restore, err);
		return result < 0 ? result : 1;
	}
	size = block_size(saved, block);
	result = read_at(saved, restore->checked, buffer, size);
	if (result < 0)
		return result;
	saved->blocks[block] = XXH3_128bits(buffer, size);
	if (restore->checked < hashed)
		(void)XXH3_128bits_update(restore->hash, buffer,
					  (size_t)qsc_min_u64(size, hashed - restore->checked));
	restore->checked += size;
	return 0;
}

/* ---- a pipe ---- */

static int make_spool(const char *directory, struct qsc_error *err)
{
	const char *folder = directory ? directory : getenv("TMPDIR");
	qsc_autofree char *path = NULL;
	int fd;

	if (!folder || !*folder)
		folder = "/var/tmp";
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 && asprintf(&path, "%s/quiesce-XXXXXX", folder) >= 0) {
		/* A file system without unnamed files. */
		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			(void)unlink(path);
	}
	if (fd < 0)
		return qsc_error_set(err, errno, NULL,
				     "cannot make a file in %.256s for what comes through the pipe "
				     "(%s)",
				     folder, strerrordesc_np(errno));
	return fd;
}

static int keep(struct saved *saved, const uint8_t *bytes, size_t size)
{
	while (size) {
		ssize_t n = pwrite(saved->content, bytes, size, (off_t)saved->size);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0) {
			bytes += n;
			size -= (size_t)n;
			saved->size += (uint64_t)n;
		}
	}
	return 0;
}

/* What the pipe has, waiting for it until then; a saved set is known by its first bytes. */
static int copy_some(struct restore *restore, uint64_t end_us, struct qsc_error *err)
{
	struct saved *saved = &restore->saved;
	uint8_t *buffer = restore->reader->buffer;
	uint64_t before = saved->size;
	ssize_t n;
	int result = qsc_socket_wait(saved->fd, POLLIN, 0, end_us, NULL);

	if (result < 0)
		return result;
	n = read(saved->fd, buffer, BLOCK);
	if (n < 0)
		return errno == EINTR || errno == EAGAIN ? 0 : -errno;
	restore->complete = n == 0;
	result = keep(saved, buffer, (size_t)n);
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "cannot keep what comes through the pipe (%s)",
				     strerrordesc_np(-result));
	if (before >= QSC_FILE_HEAD_SIZE || saved->size < QSC_FILE_HEAD_SIZE)
		return 0;
	result = read_at(saved, 0, buffer, QSC_FILE_HEAD_SIZE);
	return result < 0 ? result : qsc_file_check_head(buffer, saved->name, err);
}

/* ---- the transport ---- */

static int hand_out(struct restore *restore, struct qsc_channel **ch)
{
	struct reader *reader = qsc_steal(restore->reader);

	reader->base.ops = &reader_ops;
	reader->saved = restore->saved;
	reader->at = QSC_FILE_HEAD_SIZE;
	reader->end = reader->saved.size - QSC_FILE_TAIL_SIZE;
	reader->block = UINT64_MAX;
	restore->saved = (struct saved){.place = QSC_FILE_NOWHERE, .fd = -1, .content = -1};
	*ch = &reader->base;
	return 0;
}

static int restore_open(struct qsc_transport *transport, uint32_t timeout_ms,
			struct qsc_channel **ch, struct qsc_error *err)
{
	struct restore *restore = qsc_container_of(transport, struct restore, base);
	const uint64_t end = timeout_ms ? qsc_socket_now_us() + timeout_ms * 1000ULL : 0;
	struct qsc_error why = QSC_ERROR_NONE;
	uint64_t done = restore->saved.size + restore->checked;
	int result;

	if (!restore->reader)
		return qsc_error_set(
			err, EBUSY, NULL,
			"a file holds one set, and that was handed out before: open it "
			"again");
	do {
		result = restore->complete ? check_some(restore, &why)
					   : copy_some(restore, end, &why);
	} while (result == 0 && (!end || qsc_socket_now_us() < end));
	if (result > 0)
		return hand_out(restore, ch);
	if (result == 0 || result == -ETIMEDOUT) {
		result = restore->saved.size + restore->checked > done ? -EINPROGRESS : -ETIMEDOUT;
		(void)qsc_error_set(&why, -result, NULL,
				    "%s is not read to its end after %u ms: %llu bytes came, of "
				    "which %llu are checked",
				    restore->saved.name, timeout_ms,
				    (unsigned long long)restore->saved.size,
				    (unsigned long long)restore->checked);
	} else if (!why.number) {
		(void)qsc_error_set(&why, -result, NULL, "%s cannot be read (%s)",
				    restore->saved.name, strerrordesc_np(-result));
	}
	if (err)
		*err = why;
	return result;
}

static void restore_close(struct qsc_transport *transport)
{
	struct restore *restore = qsc_container_of(transport, struct restore, base);

	saved_release(&restore->saved);
	XXH3_freeState(restore->hash);
	free(restore->reader);
	free(restore);
}

static const struct qsc_transport_ops file_ops = {
	.name = "file",
	.max_channels = 1,
	.open = restore_open,
	.close = restore_close,
};
static const struct qsc_transport_ops fd_ops = {
	.name = "fd",
	.max_channels = 1,
	.open = restore_open,
	.close = restore_close,
};

/* Two who restore the same file at once would have two sets. */
static int lock(const struct saved *saved, struct qsc_error *err)
{
	if (flock(saved->fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	if (errno == EWOULDBLOCK)
		return qsc_error_set(err, EBUSY, NULL, "%s is being restored by another process",
				     saved->name);
	/* A file system without locks; renaming it succeeds only once too. */
	qsc_log(QSC_LOG_WARNING, "%s cannot be locked (%s)", saved->name, strerrordesc_np(errno));
	return 0;
}

/* Whatever would keep settle() from renaming it is better known now. */
static int check_place(const struct saved *saved, struct qsc_error *err)
{
	const struct qsc_file_place *place = &saved->place;
	char restored[NAME_MAX + 1];
	struct stat info;

	if (snprintf(restored, sizeof(restored), "%s" RESTORED, place->name) > NAME_MAX)
		return qsc_error_set(err, ENAMETOOLONG, NULL, "the name %s is too long",
				     saved->name);
	if (fstatat(place->folder, restored, &info, AT_SYMLINK_NOFOLLOW) == 0)
		return qsc_error_set(err, EEXIST, NULL,
				     "%s exists beside %s, which is to be renamed so when it is "
				     "restored: move it away",
				     restored, saved->name);
	if (faccessat(place->folder, ".", W_OK | X_OK, AT_EACCESS) < 0)
		return qsc_error_set(err, errno, NULL,
				     "%s could not be renamed when it is restored: its folder "
				     "cannot be written (%s)",
				     saved->name, strerrordesc_np(errno));
	return 0;
}

static int open_path(struct saved *saved, const char *path, struct qsc_error *err)
{
	int result = qsc_file_find(path, &saved->place, err);

	if (result < 0)
		return result;
	(void)snprintf(saved->name, sizeof(saved->name), "%s", path);
	saved->fd = openat(saved->place.folder, saved->place.name,
			   O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (saved->fd < 0 || fstat(saved->fd, &saved->info) < 0)
		return qsc_error_set(err, errno, NULL, "cannot open %s (%s)", saved->name,
				     strerrordesc_np(errno));
	if (!S_ISREG(saved->info.st_mode))
		return qsc_error_set(err, EINVAL, NULL,
				     "%s is no file (a pipe is given as fd:NUMBER)", saved->name);
	return check_place(saved, err);
}

static int open_fd(struct saved *saved, int fd, struct qsc_error *err)
{
	(void)snprintf(saved->name, sizeof(saved->name), "the open file %d", fd);
	saved->fd = qsc_file_borrow(fd, O_RDONLY, &saved->info, err);
	if (saved->fd < 0)
		return saved->fd;
	/* Nobody could keep it from being restored again. */
	if (S_ISREG(saved->info.st_mode))
		return qsc_error_set(err, EINVAL, NULL,
				     "%s is not a pipe but a file, and would still be there to be "
				     "restored again (SET-5): give its path instead, so that "
				     "it is renamed when the set is taken over",
				     saved->name);
	return 0;
}

static int prepare(struct restore *restore, const char *path, int fd, const char *spool_directory,
		   struct qsc_error *err)
{
	struct saved *saved = &restore->saved;
	int result = path ? open_path(saved, path, err) : open_fd(saved, fd, err);

	if (result < 0)
		return result;
	if (!path) {
		saved->content = make_spool(spool_directory, err);
		return saved->content < 0 ? saved->content : 0;
	}
	saved->content = saved->fd;
	saved->size = (uint64_t)saved->info.st_size;
	restore->complete = true;
	return lock(saved, err);
}

int qsc_file_restore(const char *path, int fd, const char *spool_directory,
		     struct qsc_transport **transport, struct qsc_error *err)
{
	struct restore *restore = calloc(1, sizeof(*restore));
	int result;

	if (!restore)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	restore->base.ops = path ? &file_ops : &fd_ops;
	restore->saved = (struct saved){.place = QSC_FILE_NOWHERE, .fd = -1, .content = -1};
	restore->reader = calloc(1, sizeof(*restore->reader));
	restore->hash = XXH3_createState();
	if (restore->reader && restore->hash)
		result = prepare(restore, path, fd, spool_directory, err);
	else
		result = qsc_error_set(err, ENOMEM, NULL, "no memory for a transport");
	if (result < 0) {
		restore_close(&restore->base);
		return result;
	}
	*transport = &restore->base;
	return 0;
}
