/* SPDX-License-Identifier: MIT */
/*
 * Random reads of 4 KiB from two disks in turn, as many in flight as told, past the guest's cache.
 * A line for each turn: "READS DISK DEPTH COUNT MICROSECONDS". With the same contents on both, the
 * disks' answers are also compared: "WRONG" if they differ.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define SIZE	  4096U
#define DEPTH_MAX 64U

struct disk {
	int fd;
	uint64_t blocks; /* of SIZE */
};

static void *buffers[DEPTH_MAX];
static uint64_t seed = 0x9e3779b97f4a7c15ULL;

static void fail(const char *what)
{
	printf("WRONG %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t random_next(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return seed;
}

static uint64_t now_us(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void disk_open(struct disk *disk, const char *path)
{
	uint64_t bytes = 0;

	disk->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (disk->fd < 0 || ioctl(disk->fd, BLKGETSIZE64, &bytes) < 0)
		fail(path);
	disk->blocks = bytes / SIZE;
}

static void submit(aio_context_t context, const struct disk *disk, struct iocb *request,
		   uint64_t slot)
{
	*request = (struct iocb){
		.aio_data = slot,
		.aio_lio_opcode = IOCB_CMD_PREAD,
		.aio_fildes = (uint32_t)disk->fd,
		.aio_buf = (uint64_t)(uintptr_t)buffers[slot],
		.aio_nbytes = SIZE,
		.aio_offset = (int64_t)(random_next() % disk->blocks * SIZE),
	};
	if (syscall(SYS_io_submit, context, 1L, &request) != 1)
		fail("io_submit");
}

static void measure(const struct disk *disk, unsigned int number, unsigned int depth,
		    uint64_t count)
{
	struct iocb requests[DEPTH_MAX];
	struct io_event events[DEPTH_MAX];
	aio_context_t context = 0;
	uint64_t submitted = 0;
	uint64_t done = 0;
	uint64_t start;

	if (syscall(SYS_io_setup, depth, &context) < 0)
		fail("io_setup");
	start = now_us();
	for (; submitted < depth; submitted++)
		submit(context, disk, &requests[submitted], submitted);
	while (done < count) {
		long got = syscall(SYS_io_getevents, context, 1L, (long)depth, events, NULL);

		if (got < 1)
			fail("io_getevents");
		for (long i = 0; i < got; i++, done++) {
			if (events[i].res != SIZE)
				fail("read");
			if (submitted++ < count)
				submit(context, disk, &requests[events[i].data], events[i].data);
		}
	}
	printf("READS %u %u %llu %llu\n", number, depth, (unsigned long long)count,
	       (unsigned long long)(now_us() - start));
	syscall(SYS_io_destroy, context);
}

static void compare(const struct disk *disks)
{
	for (uint64_t i = 0; i < 200; i++) {
		int64_t at = (int64_t)(random_next() % disks[0].blocks * SIZE);

		for (unsigned int d = 0; d < 2; d++) {
			if (pread(disks[d].fd, buffers[d], SIZE, at) != SIZE)
				fail("read");
		}
		if (memcmp(buffers[0], buffers[1], SIZE) != 0)
			printf("WRONG the disks differ at %lld\n", (long long)at);
	}
}

/* reads DISK DISK ROUNDS COUNT DEPTH... */
int main(int argc, char **argv)
{
	struct disk disks[2];

	if (argc < 6)
		return 2;
	for (unsigned int i = 0; i < DEPTH_MAX; i++) {
		if (posix_memalign(&buffers[i], SIZE, SIZE))
			return 1;
	}
	disk_open(&disks[0], argv[1]);
	disk_open(&disks[1], argv[2]);
	compare(disks);
	for (int round = 0; round < atoi(argv[3]); round++) {
		for (int i = 5; i < argc; i++) {
			for (unsigned int d = 0; d < 2; d++)
				measure(&disks[d], d, (unsigned int)atoi(argv[i]),
					strtoull(argv[4], NULL, 10));
		}
	}
	return 0;
}
