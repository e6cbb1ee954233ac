/* SPDX-License-Identifier: MIT */
/*
 * Where the blocks of the namespace are: a memory block of the runtime, or a file. Data goes
 * between there and the driver's memory without a copy in between.
 *
 * The lock on the file is one of the open file description, over all of it. It keeps away other
 * controllers, of this process too, and QEMU, which locks bytes of its images the same way.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nvme/controller.h"

/* At once: what a file system does in well under a millisecond. */
#define CLEAR_MAX (32ULL << 20)

int nvme_media_init(struct media *media, const struct nvme_options *options, struct qsc_error *err)
{
	struct stat status;

	media->readonly = options->readonly;
	media->size = options->ram;
	if (!options->file)
		return 0;
	/* Read and written by others from other directories later on: where it is does not change.
	 */
	media->path = realpath(options->file, NULL);
	if (!media->path || access(media->path, media->readonly ? R_OK : R_OK | W_OK) < 0 ||
	    stat(media->path, &status) < 0)
		return qsc_error_set(err, errno, NULL, "nvme cannot use the file %s: %s%s",
				     options->file, strerror(errno),
				     errno == ENOENT ? "; make it with truncate first" : "");
	if (!S_ISREG(status.st_mode))
		return qsc_error_set(err, EINVAL, NULL, "nvme cannot use %s: it is no regular file",
				     options->file);
	if (status.st_size < (off_t)NVME_RAM_MIN)
		return qsc_error_set(err, EINVAL, NULL,
				     "nvme cannot use the file %s: it has %lld bytes and must have "
				     "1 MiB at least; enlarge it with truncate",
				     options->file, (long long)status.st_size);
	media->size = (uint64_t)status.st_size >> BLOCK_SHIFT << BLOCK_SHIFT;
	return 0;
}

void nvme_media_destroy(struct media *media)
{
	(void)nvme_media_give(media);
	free(media->path);
}

/* ---- whose the file is ---- */

static int failed(const struct media *media, const char *what, int result)
{
	qsc_runtime_log(media->rt, QSC_LOG_ERROR, "%s %s: %s", what, media->path,
			strerror(-result));
	return result;
}

static int lock(const struct media *media, int fd)
{
	struct flock range = {.l_type = media->readonly ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &range) == 0)
		return 0;
	if (errno != EAGAIN && errno != EACCES)
		return failed(media, "cannot lock the file", -errno);
	qsc_runtime_log(media->rt, QSC_LOG_ERROR,
			"the file %s is in use by somebody else, who must let go of it first: stop "
			"or disable the device that has it, or give both readonly=on",
			media->path);
	return -EBUSY;
}

int nvme_media_take(struct media *media)
{
	struct stat status;
	int result;
	int fd;

	if (nvme_media_ready(media))
		return 0;
	fd = open(media->path, (media->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC);
	if (fd < 0)
		return failed(media, "cannot open the file", -errno);
	result = lock(media, fd);
	if (!result && fstat(fd, &status) < 0)
		result = failed(media, "cannot look at the file", -errno);
	if (!result && (uint64_t)status.st_size >> BLOCK_SHIFT != media->size >> BLOCK_SHIFT) {
		qsc_runtime_log(media->rt, QSC_LOG_ERROR,
				"the file %s has another size than when the device was made: %lld "
				"bytes instead of %llu",
				media->path, (long long)status.st_size,
				(unsigned long long)media->size);
		result = -ESTALE;
	}
	if (result < 0)
		close(fd);
	else
		media->fd = fd;
	return result;
}

int nvme_media_give(struct media *media)
{
	int result = 0;

	if (media->fd < 0)
		return 0;
	if (!media->readonly && fdatasync(media->fd) < 0)
		result = failed(media, "what was written may be lost: cannot flush the file",
				-errno);
	/* The lock goes with it. */
	close(media->fd);
	media->fd = -1;
	return result;
}

/* ---- blocks ---- */

/* A transfer between the medium and memory, as its callbacks see it. */
struct transfer {
	struct media *media;
	uint64_t offset;
	int flags; /* of preadv2(), pwritev2() */
	int status;
};

static int ram_read(void *ctx, const struct iovec *iov, int count)
{
	struct transfer *transfer = ctx;
	const uint8_t *from = transfer->media->memory + transfer->offset;

	for (int i = 0; i < count; from += iov[i].iov_len, i++)
		memcpy(iov[i].iov_base, from, iov[i].iov_len);
	return 0;
}

static int ram_write(void *ctx, const struct iovec *iov, int count)
{
	struct transfer *transfer = ctx;
	uint8_t *to = transfer->media->memory + transfer->offset;

	for (int i = 0; i < count; to += iov[i].iov_len, i++)
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
	return 0;
}

/* Step over what has been moved. */
static void advance(struct iovec **iov, int *count, size_t size)
{
	while (*count && size >= (*iov)->iov_len) {
		size -= (*iov)->iov_len;
		++*iov;
		--*count;
	}
	if (size) {
		(*iov)->iov_base = (uint8_t *)(*iov)->iov_base + size;
		(*iov)->iov_len -= size;
	}
}

/* All of it; a part is no success. -errno; -ENODATA at the end of the file. */
static int file_move(struct transfer *transfer, const struct iovec *given, int count, bool read)
{
	struct iovec pieces[2 * QSC_DMA_MAX_PIECES];
	struct iovec *iov = pieces;
	uint64_t offset = transfer->offset;

	memcpy(pieces, given, (size_t)count * sizeof(*given));
	while (count) {
		ssize_t n = read ? preadv2(transfer->media->fd, iov, count, (off_t)offset,
					   transfer->flags)
				 : pwritev2(transfer->media->fd, iov, count, (off_t)offset,
					    transfer->flags);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n ? -errno : -ENODATA;
		offset += (uint64_t)n;
		advance(&iov, &count, (size_t)n);
		/* What is missing is not in memory. */
		if (count && transfer->flags & RWF_NOWAIT)
			return -EAGAIN;
	}
	return 0;
}

static int file_read(void *ctx, const struct iovec *iov, int count)
{
	struct transfer *transfer = ctx;
	int result = file_move(transfer, iov, count, true);

	if (result == -EOPNOTSUPP && transfer->flags) {
		atomic_store(&transfer->media->no_nowait, true);
		result = -EAGAIN;
	}
	if (result == -EAGAIN)
		return -EINPROGRESS;
	if (result < 0 && result != -EFAULT)
		transfer->status = NVME_SC_READ_FAULT;
	return result;
}

static int file_write(void *ctx, const struct iovec *iov, int count)
{
	struct transfer *transfer = ctx;
	int result = file_move(transfer, iov, count, false);

	if (result < 0 && result != -EFAULT)
		transfer->status = result == -ENOSPC ? NVME_SC_CAPACITY : NVME_SC_WRITE_FAULT;
	/* It would look like a closed gate. */
	return result == -EAGAIN ? -EIO : result;
}

int nvme_media_read(struct media *media, uint64_t offset, const struct qsc_dma_piece *pieces,
		    size_t count, bool may_wait)
{
	struct transfer transfer = {
		.media = media, .offset = offset, .flags = may_wait ? 0 : RWF_NOWAIT};
	int result;

	if (!may_wait && media->path && atomic_load(&media->no_nowait))
		return -EINPROGRESS;
	result = qsc_dma_write_by(media->rt, pieces, count, media->path ? file_read : ram_read,
				  &transfer);
	if (result == -EINPROGRESS)
		return result;
	return transfer.status ? transfer.status : nvme_dma_status(result);
}

int nvme_media_write(struct media *media, uint64_t offset, const struct qsc_dma_piece *pieces,
		     size_t count, bool through)
{
	struct transfer transfer = {
		.media = media, .offset = offset, .flags = through ? RWF_DSYNC : 0};
	uint64_t size = 0;
	int result = qsc_dma_read_by(media->rt, pieces, count, media->path ? file_write : ram_write,
				     &transfer);

	for (size_t i = 0; i < count; i++)
		size += pieces[i].size;
	/* Also after an error: part of it may have arrived. */
	if (!media->path)
		qsc_block_dirty(media->rt, MEDIA_BLOCK, offset, size);
	return transfer.status ? transfer.status : nvme_dma_status(result);
}

static int allocate(const struct media *media, int mode, uint64_t offset, uint64_t size)
{
	int result;

	do
		result = fallocate(media->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)offset,
				   (off_t)size);
	while (result < 0 && errno == EINTR);
	return result;
}

static int64_t file_clear(struct media *media, uint64_t offset, uint64_t size, bool deallocate)
{
	static const uint8_t zeroes[PIECE_SIZE];
	struct iovec iov = {(void *)zeroes, size < PIECE_SIZE ? size : PIECE_SIZE};
	struct transfer transfer = {.media = media, .offset = offset};
	int mode = deallocate ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;

	size = size < CLEAR_MAX ? size : CLEAR_MAX;
	if (allocate(media, mode, offset, size) == 0)
		return (int64_t)size;
	/* Many file systems can do only one of them, or neither. */
	if (file_write(&transfer, &iov, 1) < 0)
		return -transfer.status;
	return (int64_t)iov.iov_len;
}

int64_t nvme_media_zero(struct media *media, uint64_t offset, uint64_t size, bool deallocate)
{
	if (media->path)
		return file_clear(media, offset, size, deallocate);
	size = size < CLEAR_MAX ? size : CLEAR_MAX;
	qsc_block_clear(media->rt, MEDIA_BLOCK, offset, size);
	return (int64_t)size;
}

int64_t nvme_media_deallocate(struct media *media, uint64_t offset, uint64_t size)
{
	if (!media->path)
		return nvme_media_zero(media, offset, size, true);
	size = size < CLEAR_MAX ? size : CLEAR_MAX;
	/* Advice: who cannot follow it need not. */
	(void)allocate(media, FALLOC_FL_PUNCH_HOLE, offset, size);
	return (int64_t)size;
}

int nvme_media_flush(struct media *media)
{
	if (media->fd < 0 || media->readonly || fdatasync(media->fd) == 0)
		return 0;
	(void)failed(media, "what was written may be lost: cannot flush the file", -errno);
	return NVME_SC_WRITE_FAULT;
}
