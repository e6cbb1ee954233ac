/* SPDX-License-Identifier: MIT */
/* See file.h. */
#include "file.h"

#include <errno.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "say.h"

/* More descriptors than Linux gives a process by default; above there are none of ours. */
#define MAX_FD (1 << 20)

static _Atomic(struct pl_file *) table[MAX_FD];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct pl_file *files;
static atomic_int highest = -1; /* descriptor that was ever ours */
static uint64_t image;		/* this process image, as marks know it */
static pid_t owner;		/* whose table this is */
static pl_file_make *make_file;

#ifndef __has_feature
#define __has_feature(feature) 0
#endif

/*
 * Not by close(), which asks this file. ThreadSanitizer keeps book of descriptors by the calls that
 * it sees, and where it is, close() is not caught.
 */
static int close_really(int fd)
{
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
	return close(fd);
#else
	return (int)syscall(SYS_close, fd);
#endif
}

/* What a child of fork() finds where files were: nothing works, and closing is harmless. */
static int orphan_ioctl(struct pl_file *file, unsigned long command, void *arg)
{
	pl_say_once(PL_SAY_FORK, "a device that was opened before fork() is used in the child; "
				 "open it after the fork");
	return -ENODEV;
}

static const struct pl_file_ops orphan_ops = {.name = "orphan", .ioctl = orphan_ioctl};
static struct pl_file orphan = {.ops = &orphan_ops, .refs = 1};

/* A child of vfork() shares the table with its parent and must leave it alone. */
static bool borrowed(void)
{
	return syscall(SYS_getpid) != owner;
}

void pl_file_init(pl_file_make *make)
{
	make_file = make;
	owner = (pid_t)syscall(SYS_getpid);
	while (!image && getrandom(&image, sizeof(image), GRND_NONBLOCK) < 0)
		image = (uint64_t)getpid() << 32 | (uint64_t)time(NULL);
}

void pl_file_hold(struct pl_file *file)
{
	if (file != &orphan)
		atomic_fetch_add(&file->refs, 1);
}

void pl_file_put(struct pl_file *file)
{
	struct pl_file **link;

	if (file == &orphan)
		return;
	/* The last reference goes with the lock held: nobody can find the file any more. */
	pthread_mutex_lock(&lock);
	if (atomic_fetch_sub(&file->refs, 1) > 1) {
		pthread_mutex_unlock(&lock);
		return;
	}
	for (link = &files; *link; link = &(*link)->next) {
		if (*link == file) {
			*link = file->next;
			break;
		}
	}
	pthread_mutex_unlock(&lock);
	handover_forget(file->mark);
	file->ops->release(file);
}

bool pl_file_is(int fd)
{
	return fd >= 0 && fd < MAX_FD && atomic_load_explicit(&table[fd], memory_order_relaxed);
}

struct pl_file *pl_file_get(int fd)
{
	struct pl_file *file;

	if (!pl_file_is(fd))
		return NULL;
	pthread_mutex_lock(&lock);
	file = atomic_load(&table[fd]);
	if (file)
		pl_file_hold(file);
	pthread_mutex_unlock(&lock);
	return file;
}

/* Lock held. The reference passes to the table. */
static void install(int fd, struct pl_file *file)
{
	atomic_store(&table[fd], file);
	if (fd > atomic_load(&highest))
		atomic_store(&highest, fd);
}

static uint64_t inode_of(int fd)
{
	struct stat st;

	return syscall(SYS_fstat, fd, &st) < 0 ? 0 : st.st_ino;
}

/* Lock held. Claim the mark for this process; the process that has it already, or 0. */
static int32_t claim(struct handover_mark *mark)
{
	uint64_t nobody = 0;

	if (atomic_compare_exchange_strong(&mark->owner, &nobody, image)) {
		atomic_store(&mark->owner_pid, getpid());
		return 0;
	}
	return nobody == image ? 0 : atomic_load(&mark->owner_pid);
}

/* Lock held. */
static struct pl_file *take_up(int fd, struct handover_mark *mark, int *error)
{
	uint64_t inode = inode_of(fd);
	struct pl_file *file;
	int32_t pid;

	for (file = files; file; file = file->next)
		if (file->inode == inode)
			break;
	if (!file) {
		pid = claim(mark);
		if (pid) {
			pl_say_once(PL_SAY_OWNER,
				    "fd %d stands for a device or iommufd that process %d uses; "
				    "another process cannot use it too, and what was opened before "
				    "exec, fork or sending it through a socket stays where it was",
				    fd, pid);
			*error = -ENODEV;
			return NULL;
		}
		file = make_file((enum handover_kind)mark->kind, mark->index);
		if (!file) {
			*error = -ENOMEM;
			return NULL;
		}
		file->kind = (enum handover_kind)mark->kind;
		file->index = mark->index;
		file->inode = inode;
		file->mark = mark;
		file->next = files;
		files = file;
		atomic_store(&file->refs, 1); /* the table's */
	} else {
		handover_forget(mark);
		pl_file_hold(file);
	}
	install(fd, file);
	pl_file_hold(file);
	return file;
}

struct pl_file *pl_file_take_up(int fd, int *error)
{
	struct pl_file *file = pl_file_get(fd);
	struct handover_mark *mark;

	*error = 0;
	if (file || fd < 0 || fd >= MAX_FD)
		return file;
	mark = handover_find(fd);
	if (!mark)
		return NULL;
	pthread_mutex_lock(&lock);
	file = atomic_load(&table[fd]);
	if (file) {
		pl_file_hold(file);
		handover_forget(mark);
	} else {
		file = take_up(fd, mark, error);
		if (!file)
			handover_forget(mark);
	}
	pthread_mutex_unlock(&lock);
	return file;
}

int pl_file_open(struct pl_file *file, enum handover_kind kind, uint32_t index, bool cloexec)
{
	int fd = handover_make(kind, index, cloexec);

	file->kind = kind;
	file->index = index;
	pl_file_hold(file); /* the table's */
	if (fd >= MAX_FD) {
		(void)close_really(fd);
		fd = -EMFILE;
	}
	if (fd >= 0) {
		file->mark = handover_find(fd);
		if (!file->mark) {
			(void)close_really(fd);
			fd = -ENOMEM;
		}
	}
	if (fd < 0) {
		pl_file_put(file);
		return fd;
	}
	file->inode = inode_of(fd);
	pthread_mutex_lock(&lock);
	(void)claim(file->mark);
	file->next = files;
	files = file;
	install(fd, file);
	pthread_mutex_unlock(&lock);
	return fd;
}

int pl_file_close(int fd)
{
	struct pl_file *file = NULL;
	int result;

	if (!pl_file_is(fd) || borrowed())
		return close_really(fd) < 0 ? -errno : 0;
	/* Nobody gets the number before it has left the table. */
	pthread_mutex_lock(&lock);
	file = atomic_exchange(&table[fd], NULL);
	result = close_really(fd) < 0 ? -errno : 0;
	pthread_mutex_unlock(&lock);
	if (file)
		pl_file_put(file);
	return result;
}

int pl_file_copied(int fd, int copy)
{
	struct pl_file *file = pl_file_get(fd);

	if (!file || copy < 0 || copy == fd || borrowed())
		goto out;
	if (copy >= MAX_FD) {
		(void)close_really(copy);
		copy = -EMFILE;
		goto out;
	}
	pthread_mutex_lock(&lock);
	pl_file_hold(file);
	install(copy, file);
	pthread_mutex_unlock(&lock);
out:
	if (file)
		pl_file_put(file);
	return copy;
}

void pl_file_drop(int fd)
{
	struct pl_file *file;

	if (!pl_file_is(fd) || borrowed())
		return;
	pthread_mutex_lock(&lock);
	file = atomic_exchange(&table[fd], NULL);
	pthread_mutex_unlock(&lock);
	if (file)
		pl_file_put(file);
}

void pl_file_drop_range(unsigned int first, unsigned int last)
{
	int end = atomic_load(&highest);

	for (unsigned int fd = first; (int)fd >= 0 && (int)fd <= end && fd <= last; fd++)
		pl_file_drop((int)fd);
}

bool pl_file_any(void)
{
	return atomic_load_explicit(&highest, memory_order_relaxed) >= 0;
}

void pl_file_fork_prepare(void)
{
	pthread_mutex_lock(&lock);
}

void pl_file_fork_parent(void)
{
	pthread_mutex_unlock(&lock);
}

void pl_file_fork_child(void)
{
	/* What the files hold belongs to threads that are not here: it is left where it lies. */
	for (int fd = 0; fd <= atomic_load(&highest); fd++)
		if (atomic_load(&table[fd]))
			atomic_store(&table[fd], &orphan);
	files = NULL;
	image = 0;
	pl_file_init(make_file);
	pthread_mutex_unlock(&lock);
}
