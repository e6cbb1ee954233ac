/* SPDX-License-Identifier: MIT */
/* Nanoseconds of calls that are about nothing of ours: "CALL NS" a line, the best of many rounds.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 150
#define CALLS  250

static int null_fd;
static char buf[16];

static void do_read(void)
{
	(void)!read(null_fd, buf, 1);
}

static void do_pread(void)
{
	(void)!pread(null_fd, buf, 1, 0);
}

static void do_write(void)
{
	(void)!write(null_fd, buf, 1);
}

static void do_ioctl(void)
{
	(void)ioctl(null_fd, FIONREAD, buf);
}

static void do_close(void)
{
	(void)close(-1);
}

static void do_mmap(void)
{
	munmap(mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), 4096);
}

static void do_fstat(void)
{
	struct stat st;

	(void)fstat(null_fd, &st);
}

static void do_open(void)
{
	(void)open("/", O_WRONLY);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

static double best(void (*call)(void))
{
	double least = 1e12;

	for (int round = 0; round < ROUNDS; round++) {
		uint64_t start = now_ns();

		for (int i = 0; i < CALLS; i++)
			call();
		start = now_ns() - start;
		if ((double)start / CALLS < least)
			least = (double)start / CALLS;
	}
	return least;
}

int main(void)
{
	static const struct {
		const char *name;
		void (*call)(void);
	} calls[] = {
		{"read", do_read},   {"pread", do_pread}, {"write", do_write},
		{"ioctl", do_ioctl}, {"close", do_close}, {"mmap+munmap", do_mmap},
		{"fstat", do_fstat}, {"open", do_open},
	};

	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		(void)printf("%s %.1f\n", calls[i].name, best(calls[i].call));
	return 0;
}
