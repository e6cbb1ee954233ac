/* SPDX-License-Identifier: MIT */
/*
 * The files that clients want mapped: what may be, and how many. Both protect the process as a
 * whole: a page of a file that somebody else serves (FUSE, NFS) may never come, and a process that
 * has used up its mappings can start no thread and take in no other client.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "server/connection.h"

#define MAPS_DEFAULT 65530U /* the kernel's own */

static pthread_once_t limit_once = PTHREAD_ONCE_INIT;
static uint32_t limit;
static _Atomic uint32_t taken; /* of all servers in this process */

/* Half of what the process may have: the rest is for threads, buffers and whatever else it does. */
static void read_limit(void)
{
	FILE *file = fopen("/proc/sys/vm/max_map_count", "re");
	unsigned int count = MAPS_DEFAULT;

	if (file) {
		if (fscanf(file, "%u", &count) != 1)
			count = MAPS_DEFAULT;
		(void)fclose(file);
	}
	limit = count / 2;
}

int qsc_server_take_file(void)
{
	(void)pthread_once(&limit_once, read_limit);
	if (atomic_fetch_add_explicit(&taken, 1, memory_order_relaxed) < limit)
		return 0;
	qsc_server_give_files(1);
	return -ENOSPC;
}

void qsc_server_give_files(size_t count)
{
	atomic_fetch_sub_explicit(&taken, (uint32_t)count, memory_order_relaxed);
}

/* Seals first, since only memory has them: to others even fstat() may block. */
int qsc_server_check_file(struct qsc_connection *connection, int fd, uint64_t offset, uint64_t size)
{
	struct stat st;

	if (fcntl(fd, F_GET_SEALS) < 0) {
		if (!connection->told_files)
			qsc_log(QSC_LOG_WARNING,
				"vfio-user: a DMA_MAP was refused: its file is not in memory, and "
				"waiting for a page of it could take for ever; share a memfd, or a "
				"file in tmpfs or hugetlbfs");
		connection->told_files = true;
		return -EINVAL;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EINVAL;
	return qsc_range_within(offset, size, (uint64_t)st.st_size) ? 0 : -EINVAL;
}
