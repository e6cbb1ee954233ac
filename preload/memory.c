/* SPDX-License-Identifier: MIT */
/* See memory.h. */
#include "memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A line of /proc/self/maps. */
struct vma {
	uintptr_t start;
	uintptr_t end;
	char perms[5];
	uint64_t offset;
	dev_t dev;
	uint64_t inode;
};

static bool parse(const char *line, struct vma *vma)
{
	unsigned int major;
	unsigned int minor;

	if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64, &vma->start,
		   &vma->end, vma->perms, &vma->offset, &major, &minor, &vma->inode) != 7)
		return false;
	vma->dev = makedev(major, minor);
	return true;
}

/* A descriptor of ours that is that file and may be written, duplicated; or -1. */
static int find_descriptor(const struct vma *vma)
{
	DIR *folder = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	if (!folder)
		return -1;
	while (found < 0 && (entry = readdir(folder))) {
		int fd = atoi(entry->d_name);
		struct stat st;

		if (entry->d_name[0] == '.' || fd == dirfd(folder) || fstat(fd, &st) < 0 ||
		    st.st_dev != vma->dev || st.st_ino != vma->inode ||
		    (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDWR)
			continue;
		found = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	closedir(folder);
	return found;
}

/* The program may have closed it: the kernel still knows the way, for those it trusts. */
static int open_map_file(const struct vma *vma)
{
	char path[96];

	(void)snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIxPTR "-%" PRIxPTR,
		       vma->start, vma->end);
	return open(path, O_RDWR | O_CLOEXEC);
}

static bool same_file(const struct vma *first, const struct vma *next)
{
	return next->perms[3] == 's' && next->inode == first->inode && next->dev == first->dev &&
	       next->offset - first->offset == next->start - first->start;
}

int pl_memory_find(const char *addr, uint64_t size, bool write, int *fd, uint64_t *fd_offset)
{
	uintptr_t at = (uintptr_t)addr;
	uintptr_t end = at + size;
	struct vma first = {0};
	bool shared = false;
	FILE *maps;
	char *line = NULL;
	size_t room = 0;
	struct vma vma;

	*fd = -1;
	*fd_offset = 0;
	maps = fopen("/proc/self/maps", "re");
	if (!maps)
		return 0; /* no way to look: believed */
	while (at < end && getline(&line, &room, maps) > 0) {
		if (!parse(line, &vma) || vma.end <= at)
			continue;
		if (vma.start > at || vma.perms[0] != 'r' || (write && vma.perms[1] != 'w'))
			break;
		if (!first.end) {
			first = vma;
			shared = vma.perms[3] == 's' && vma.inode;
		} else {
			shared = shared && same_file(&first, &vma);
		}
		at = vma.end;
	}
	free(line);
	(void)fclose(maps);
	if (at < end)
		return -EFAULT;
	if (!shared)
		return 0;
	*fd = find_descriptor(&first);
	if (*fd < 0)
		*fd = open_map_file(&first);
	if (*fd >= 0)
		*fd_offset = first.offset + ((uintptr_t)addr - first.start);
	return 0;
}
