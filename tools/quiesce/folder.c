/* SPDX-License-Identifier: MIT */
/* See folder.h. */
#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX_SIZE (sizeof(FOLDER_NAME) - sizeof("XXXXXX"))
#define FIRST_LOCK  900 /* below the numbers that the command is given */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *level)
{
	return remove(path);
}

static void remove_all(const char *path)
{
	(void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* A folder of ours, not of who else may write here. Not inherited; -1 when it is none. */
static int open_own(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd >= 0 && (fstat(fd, &st) < 0 || st.st_uid != geteuid())) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static void sweep(const char *place)
{
	char path[PATH_MAX];
	struct dirent *entry;
	DIR *dir = opendir(place);

	while (dir && (entry = readdir(dir))) {
		int fd;

		if (strncmp(entry->d_name, FOLDER_NAME, PREFIX_SIZE) != 0 ||
		    snprintf(path, sizeof(path), "%s/%s", place, entry->d_name) >= PATH_MAX)
			continue;
		fd = open_own(path);
		if (fd < 0)
			continue;
		if (!flock(fd, LOCK_EX | LOCK_NB))
			remove_all(path);
		close(fd);
	}
	if (dir)
		closedir(dir);
}

/* Lock it, for the command too. -EAGAIN when a sweep was faster. */
static int hold(struct folder *folder)
{
	int fd = open_own(folder->path);
	struct stat locked;
	struct stat now;
	int number = errno;

	if (fd < 0)
		return number == ENOENT ? -EAGAIN : -number;
	/* Where the limit allows it, out of the way of what the command opens. */
	folder->lock = fcntl(fd, F_DUPFD, FIRST_LOCK);
	if (folder->lock < 0)
		folder->lock = fcntl(fd, F_DUPFD, STDERR_FILENO + 1);
	number = errno;
	close(fd);
	if (folder->lock < 0)
		return -number;
	/* Where there are no locks, nobody sweeps either. */
	if (flock(folder->lock, LOCK_SH) < 0)
		return 0;
	if (!fstat(folder->lock, &locked) && !stat(folder->path, &now) &&
	    locked.st_ino == now.st_ino)
		return 0;
	close(folder->lock);
	folder->lock = -1;
	return -EAGAIN;
}

int folder_make(struct folder *folder, struct qsc_error *err)
{
	const char *place = getenv("TMPDIR");
	int result;

	if (!place || !*place)
		place = "/tmp";
	sweep(place);
	do {
		(void)snprintf(folder->path, sizeof(folder->path), "%s/" FOLDER_NAME, place);
		if (!mkdtemp(folder->path)) {
			result = qsc_error_set(err, errno, NULL, "cannot make the folder %s: %s",
					       folder->path, strerror(errno));
			folder->path[0] = '\0';
			return result;
		}
		result = hold(folder);
	} while (result == -EAGAIN);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot hold the folder %s: %s",
				     folder->path, strerror(-result));
	return 0;
}

void folder_remove(struct folder *folder)
{
	if (folder->path[0])
		remove_all(folder->path);
	folder->path[0] = '\0';
	if (folder->lock >= 0)
		close(folder->lock);
	folder->lock = -1;
}
