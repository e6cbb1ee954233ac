/* SPDX-License-Identifier: MIT */
/*
 * Open files that are ours, and which file descriptors refer to them. A file is what the kernel
 * calls an open file description: several descriptors may refer to one, and it is released with
 * the last of them, or when the last call on it returns.
 *
 * Each is backed by a real descriptor of a marked memory file (handover.h), so that numbers, poll,
 * dup, close-on-exec and passing through exec need nothing from us. A file that came through exec
 * is taken up at its first ioctl.
 *
 * Looking up a descriptor that is not ours takes no lock. Every function may be called from any
 * thread.
 */
#ifndef PRELOAD_FILE_H
#define PRELOAD_FILE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "handover.h"

struct pl_file;

/* NULL where the kernel's file has no such operation. Results are values or -errno. */
struct pl_file_ops {
	const char *name;
	int (*ioctl)(struct pl_file *file, unsigned long command, void *arg);
	ssize_t (*read)(struct pl_file *file, void *buf, size_t size);
	ssize_t (*write)(struct pl_file *file, const void *buf, size_t size);
	ssize_t (*pread)(struct pl_file *file, void *buf, size_t size, uint64_t offset);
	ssize_t (*pwrite)(struct pl_file *file, const void *buf, size_t size, uint64_t offset);
	int (*mmap)(struct pl_file *file, void **addr, size_t size, int prot, int flags,
		    uint64_t offset);
	/* Frees it. */
	void (*release)(struct pl_file *file);
};

/* Embedded first in what each kind of file is. */
struct pl_file {
	const struct pl_file_ops *ops;
	struct handover_mark *mark;
	enum handover_kind kind;
	uint32_t index;
	uint64_t inode;
	atomic_uint refs; /* descriptors and calls */
	struct pl_file *next;
};

/* Whoever knows how to make a file of a kind; NULL when there is no memory. Set once, at start. */
typedef struct pl_file *pl_file_make(enum handover_kind kind, uint32_t index);
void pl_file_init(pl_file_make *make);

/* The file of a descriptor with a reference to be put; NULL when it is not ours. */
struct pl_file *pl_file_get(int fd);
/* Whether a descriptor is ours, as far as one can say without a lock. */
bool pl_file_is(int fd);
void pl_file_hold(struct pl_file *file);
void pl_file_put(struct pl_file *file);

/*
 * As pl_file_get(), and takes up a file that came through exec. *error is -errno when the file is
 * used by another process (then the result is NULL), else 0.
 */
struct pl_file *pl_file_take_up(int fd, int *error);

/*
 * Open `file`, to which the table gets a reference: a new descriptor, or -errno. A file without any
 * other reference is released with its last descriptor, or by a failure.
 */
int pl_file_open(struct pl_file *file, enum handover_kind kind, uint32_t index, bool cloexec);

/* close(2): 0 or -errno, whoever owns the descriptor. */
int pl_file_close(int fd);
/*
 * Around any other call that changes which files descriptors are. While it is made nobody takes up
 * a descriptor or closes one, so that a number never counts as ours that is somebody else's
 * already. change() begins; one of the others ends it and keeps errno.
 */
void pl_file_change(void);
/*
 * The call made `copy` a duplicate of `fd`, either of them ours or not; or gave -1, and nothing has
 * changed. Returns copy, or -1 and errno.
 */
int pl_file_copied(int fd, int copy);
/* The call closed them all; none where last is less than first. */
void pl_file_closed(unsigned int first, unsigned int last);
/* Whether there is any file of ours at all. */
bool pl_file_any(void);

/* Around fork(): nothing of ours can be used in the child, and says so. */
void pl_file_fork_prepare(void);
void pl_file_fork_parent(void);
void pl_file_fork_child(void);

#endif
