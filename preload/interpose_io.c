/* SPDX-License-Identifier: MIT */
/* See interpose.h: calls that read and write. */
#include "interpose.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "file.h"
#include "user.h"

/* The C library has names of its own for the parameters. */
/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name) */

static ssize_t file_read(struct pl_file *file, void *buf, size_t size)
{
	ssize_t n = file->ops->read ? file->ops->read(file, buf, size) : -EINVAL;

	pl_file_put(file);
	return answer(n);
}

static ssize_t file_write(struct pl_file *file, const void *buf, size_t size)
{
	ssize_t n = file->ops->write ? file->ops->write(file, buf, size) : -EINVAL;

	pl_file_put(file);
	return answer(n);
}

static ssize_t file_pread(struct pl_file *file, void *buf, size_t size, off64_t offset)
{
	ssize_t n = -ESPIPE;

	if (offset < 0)
		n = -EINVAL;
	else if (file->ops->pread)
		n = file->ops->pread(file, buf, size, (uint64_t)offset);
	pl_file_put(file);
	return answer(n);
}

static ssize_t file_pwrite(struct pl_file *file, const void *buf, size_t size, off64_t offset)
{
	ssize_t n = -ESPIPE;

	if (offset < 0)
		n = -EINVAL;
	else if (file->ops->pwrite)
		n = file->ops->pwrite(file, buf, size, (uint64_t)offset);
	pl_file_put(file);
	return answer(n);
}

CAUGHT ssize_t read(int fd, void *buf, size_t size)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_read(file, buf, size) : NEXT(read)(fd, buf, size);
}

CAUGHT ssize_t write(int fd, const void *buf, size_t size)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_write(file, buf, size) : NEXT(write)(fd, buf, size);
}

CAUGHT ssize_t pread64(int fd, void *buf, size_t size, off64_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pread(file, buf, size, offset) : NEXT(pread64)(fd, buf, size, offset);
}

CAUGHT ssize_t pwrite64(int fd, const void *buf, size_t size, off64_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pwrite(file, buf, size, offset) : NEXT(pwrite64)(fd, buf, size, offset);
}

CAUGHT ssize_t pread(int fd, void *buf, size_t size, off_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pread(file, buf, size, offset) : NEXT(pread)(fd, buf, size, offset);
}

CAUGHT ssize_t pwrite(int fd, const void *buf, size_t size, off_t offset)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_pwrite(file, buf, size, offset) : NEXT(pwrite)(fd, buf, size, offset);
}

/* One piece of a vector, at the file's position where there is no offset. */
static ssize_t piece(struct pl_file *file, const struct iovec *iov, const uint64_t *at, bool write)
{
	const struct pl_file_ops *ops = file->ops;

	if (at && (!ops->pread || !ops->pwrite))
		return -ESPIPE;
	if (at)
		return write ? ops->pwrite(file, iov->iov_base, iov->iov_len, *at)
			     : ops->pread(file, iov->iov_base, iov->iov_len, *at);
	if (write)
		return ops->write ? ops->write(file, iov->iov_base, iov->iov_len) : -EINVAL;
	return ops->read ? ops->read(file, iov->iov_base, iov->iov_len) : -EINVAL;
}

/* The kernel's files know no vectors: they get the pieces one by one, until one is cut. */
static ssize_t file_vector(struct pl_file *file, const struct iovec *iov, int count,
			   const off64_t *offset, bool write)
{
	struct iovec pieces[IOV_MAX];
	ssize_t n = count < 0 || count > IOV_MAX || (offset && *offset < 0) ? -EINVAL : 0;
	ssize_t total = 0;

	if (!n)
		n = pl_copy_in(pieces, iov, (size_t)count * sizeof(*iov));
	for (int i = 0; i < count && n >= 0; i++)
		if (pieces[i].iov_len > SSIZE_MAX)
			n = -EINVAL;
	for (int i = 0; i < count && n >= 0; i++) {
		uint64_t at = offset ? (uint64_t)(*offset + total) : 0;

		n = piece(file, &pieces[i], offset ? &at : NULL, write);
		if (n > 0)
			total += n;
		if (n != (ssize_t)pieces[i].iov_len)
			break;
	}
	pl_file_put(file);
	return answer(total ? total : n);
}

CAUGHT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_vector(file, iov, count, NULL, false) : NEXT(readv)(fd, iov, count);
}

CAUGHT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct pl_file *file = pl_file_get(fd);

	return file ? file_vector(file, iov, count, NULL, true) : NEXT(writev)(fd, iov, count);
}

#define CATCH_VECTOR(name, type, write)                                              \
	CAUGHT ssize_t name(int fd, const struct iovec *iov, int count, type offset) \
	{                                                                            \
		struct pl_file *file = pl_file_get(fd);                              \
		off64_t at = offset;                                                 \
                                                                                     \
		return file ? file_vector(file, iov, count, &at, write)              \
			    : NEXT(name)(fd, iov, count, offset);                    \
	}

CATCH_VECTOR(preadv, off_t, false)
CATCH_VECTOR(preadv64, off64_t, false)
CATCH_VECTOR(pwritev, off_t, true)
CATCH_VECTOR(pwritev64, off64_t, true)

/* With flags: ours know none but the one that asks for polling. Offset -1 is the position. */
static ssize_t file_vector_2(struct pl_file *file, const struct iovec *iov, int count,
			     off64_t offset, int flags, bool write)
{
	if (!(flags & ~RWF_HIPRI))
		return file_vector(file, iov, count, offset == -1 ? NULL : &offset, write);
	pl_file_put(file);
	return answer(-EOPNOTSUPP);
}

#define CATCH_VECTOR_2(name, type, write)                                                       \
	CAUGHT ssize_t name(int fd, const struct iovec *iov, int count, type offset, int flags) \
	{                                                                                       \
		struct pl_file *file = pl_file_get(fd);                                         \
                                                                                                \
		return file ? file_vector_2(file, iov, count, offset, flags, write)             \
			    : NEXT(name)(fd, iov, count, offset, flags);                        \
	}

CATCH_VECTOR_2(preadv2, off_t, false)
CATCH_VECTOR_2(preadv64v2, off64_t, false)
CATCH_VECTOR_2(pwritev2, off_t, true)
CATCH_VECTOR_2(pwritev64v2, off64_t, true)

/* What a fortified program calls; too small a buffer is the C library's to complain about. */
extern ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);
extern ssize_t __pread_chk(int fd, void *buf, size_t size, off_t offset, size_t room);
extern ssize_t __pread64_chk(int fd, void *buf, size_t size, off64_t offset, size_t room);

CAUGHT ssize_t __read_chk(int fd, void *buf, size_t size, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_read(file, buf, size) : NEXT(__read_chk)(fd, buf, size, room);
}

CAUGHT ssize_t __pread_chk(int fd, void *buf, size_t size, off_t offset, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_pread(file, buf, size, offset)
		    : NEXT(__pread_chk)(fd, buf, size, offset, room);
}

CAUGHT ssize_t __pread64_chk(int fd, void *buf, size_t size, off64_t offset, size_t room)
{
	struct pl_file *file = size <= room ? pl_file_get(fd) : NULL;

	return file ? file_pread(file, buf, size, offset)
		    : NEXT(__pread64_chk)(fd, buf, size, offset, room);
}

/* ---- what ours cannot do, and the files behind them could ---- */

CAUGHT off_t lseek(int fd, off_t offset, int whence)
{
	return pl_file_is(fd) ? answer(-ESPIPE) : NEXT(lseek)(fd, offset, whence);
}

CAUGHT off64_t lseek64(int fd, off64_t offset, int whence)
{
	return pl_file_is(fd) ? answer(-ESPIPE) : NEXT(lseek64)(fd, offset, whence);
}

CAUGHT ssize_t sendfile(int out, int in, off_t *offset, size_t count)
{
	return pl_file_is(out) || pl_file_is(in) ? answer(-EINVAL)
						 : NEXT(sendfile)(out, in, offset, count);
}

CAUGHT ssize_t sendfile64(int out, int in, off64_t *offset, size_t count)
{
	return pl_file_is(out) || pl_file_is(in) ? answer(-EINVAL)
						 : NEXT(sendfile64)(out, in, offset, count);
}

CAUGHT ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t size,
		      unsigned int flags)
{
	return pl_file_is(out) || pl_file_is(in)
		       ? answer(-EINVAL)
		       : NEXT(splice)(in, in_at, out, out_at, size, flags);
}

CAUGHT ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t size,
			       unsigned int flags)
{
	return pl_file_is(out) || pl_file_is(in)
		       ? answer(-EINVAL)
		       : NEXT(copy_file_range)(in, in_at, out, out_at, size, flags);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */
