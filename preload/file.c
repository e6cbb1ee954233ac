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

/* Lock held. The last reference: nobody can find the file any more, and it goes to *dead. */
static void put_locked(struct pl_file *file, struct pl_file **dead)
{
	struct pl_file **link = &files;

	if (!file || file == &orphan || atomic_fetch_sub(&file->refs, 1) > 1)
		return;
	while (*link && *link != file)
		link = &(*link)->next;
	if (*link)
		*link = file->next;
	file->next = *dead;
	*dead = file;
}

/* Without the lock: what they hold may be files again. */
static void release_all(struct pl_file *dead)
{
	struct pl_file *file;

	while ((file = dead)) {
		dead = file->next;
		handover_forget(file->mark);
		file->ops->release(file);
	}
}

void pl_file_put(struct pl_file *file)
{
	struct pl_file *dead = NULL;

	if (file == &orphan)
		return;
	pthread_mutex_lock(&lock);
	put_locked(file, &dead);
	pthread_mutex_unlock(&lock);
	release_all(dead);
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
static void install(int fd, struct pl_file *file, struct pl_file **dead)
{
	put_locked(atomic_exchange(&table[fd], file), dead);
	if (file && fd > atomic_load(&highest))
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
	struct pl_file *dead = NULL; /* nothing was there */
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
	install(fd, file, &dead);
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
	if (!handover_named(fd))
		return NULL;
	pthread_mutex_lock(&lock);
	file = atomic_load(&table[fd]);
	/* Another thread may have closed it since, and the number be anybody's. */
	mark = file ? NULL : handover_find(fd);
	if (file)
		pl_file_hold(file);
	else if (mark)
		file = take_up(fd, mark, error);
	pthread_mutex_unlock(&lock);
	if (!file)
		handover_forget(mark);
	return file;
}

/* Lock held: nobody finds the descriptor before it is in the table. */
static int make_descriptor(struct pl_file *file, bool cloexec, struct pl_file **dead)
{
	int fd = handover_make(file->kind, file->index, cloexec);
	int result;

	if (fd < 0)
		return fd;
	file->mark = fd < MAX_FD ? handover_find(fd) : NULL;
	if (!file->mark) {
		result = fd < MAX_FD ? -ENOMEM : -EMFILE;
		(void)close_really(fd);
		return result;
	}
	file->inode = inode_of(fd);
	(void)claim(file->mark);
	file->next = files;
	files = file;
	pl_file_hold(file); /* the table's */
	install(fd, file, dead);
	return fd;
}

int pl_file_open(struct pl_file *file, enum handover_kind kind, uint32_t index, bool cloexec)
{
	struct pl_file *dead = NULL;
	int fd;

	file->kind = kind;
	file->index = index;
	pl_file_hold(file);
	pthread_mutex_lock(&lock);
	fd = make_descriptor(file, cloexec, &dead);
	put_locked(file, &dead);
	pthread_mutex_unlock(&lock);
	release_all(dead);
	return fd;
}

int pl_file_close(int fd)
{
	struct pl_file *dead = NULL;
	int result;

	if (!pl_file_is(fd) || borrowed())
		return close_really(fd) < 0 ? -errno : 0;
	/* Nobody gets the number before it has left the table. */
	pthread_mutex_lock(&lock);
	install(fd, NULL, &dead);
	result = close_really(fd) < 0 ? -errno : 0;
	pthread_mutex_unlock(&lock);
	release_all(dead);
	return result;
}

void pl_file_change(void)
{
	if (!borrowed())
		pthread_mutex_lock(&lock);
}

int pl_file_copied(int fd, int copy)
{
	struct pl_file *file = copy >= 0 && pl_file_is(fd) ? atomic_load(&table[fd]) : NULL;
	struct pl_file *dead = NULL;
	int number = errno;

	if (borrowed())
		return copy;
	if (file && copy >= MAX_FD) {
		(void)close_really(copy);
		number = EMFILE;
		copy = -1;
	} else if (copy >= 0 && copy != fd && copy < MAX_FD) {
		if (file)
			pl_file_hold(file);
		install(copy, file, &dead);
	}
	pthread_mutex_unlock(&lock);
	release_all(dead);
	errno = number;
	return copy;
}

void pl_file_closed(unsigned int first, unsigned int last)
{
	int end = atomic_load(&highest);
	struct pl_file *dead = NULL;
	int number = errno;

	if (borrowed())
		return;
	for (unsigned int fd = first; (int)fd >= 0 && (int)fd <= end && fd <= last; fd++)
		install((int)fd, NULL, &dead);
	pthread_mutex_unlock(&lock);
	release_all(dead);
	errno = number;
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
