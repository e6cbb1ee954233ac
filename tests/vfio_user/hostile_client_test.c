/* SPDX-License-Identifier: MIT */
/* A server and clients that do what they must not: the right errno, or the end of that client. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "pair.h"
#include "raw.h"
#include "server/connection.h"

static struct raw reply;

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

/* Requests that a server must refuse, after the handshake, and how. */
#define U32(...) (const uint32_t[]){__VA_ARGS__}, sizeof((const uint32_t[]){__VA_ARGS__})

struct refusal {
	const char *what;
	long command;
	const uint32_t *body;
	size_t size;
	long expected;
};

#define MAP	  QSC_WIRE_DMA_MAP
#define UNMAP	  QSC_WIRE_DMA_UNMAP
#define BOOLS	  (VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER)
#define EVENT	  (VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER)
#define NODATA	  (VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)
#define FGET(n)	  ((n) | QSC_WIRE_FEATURE_GET)
#define FSET(n)	  ((n) | QSC_WIRE_FEATURE_SET)
#define FPROBE(n) ((n) | QSC_WIRE_FEATURE_PROBE)
#define HIGH	  0xffffffffU

static const struct refusal refusals[] = {
	{"unknown command", 99, U32(0), -ENOSYS},
	{"command 14", 14, U32(0), -ENOSYS},
	{"a client's own DMA_READ", QSC_WIRE_DMA_READ, U32(0, 0, 4, 0), -ENOSYS},
	{"a second VERSION", QSC_WIRE_VERSION, U32(0), -EINVAL},
	{"map: short", MAP, U32(32, 3, 0, 0, 0, 0, 4096), -EINVAL},
	{"map: long", MAP, U32(32, 3, 0, 0, 0, 0, 4096, 0, 0), -EINVAL},
	{"map: argsz", MAP, U32(31, 3, 0, 0, 0, 0, 4096, 0), -EINVAL},
	{"map: no direction", MAP, U32(32, 0, 0, 0, 0, 0, 4096, 0), -EINVAL},
	{"map: unknown flag", MAP, U32(32, 11, 0, 0, 0, 0, 4096, 0), -EINVAL},
	{"map: peer, not agreed on", MAP, U32(32, 7, 0, 0, 0, 0, 4096, 0), -EINVAL},
	{"map: size 0", MAP, U32(32, 3, 0, 0, 0, 0, 0, 0), -EINVAL},
	{"map: size not of pages", MAP, U32(32, 3, 0, 0, 0, 0, 4097, 0), -EINVAL},
	{"map: address not of pages", MAP, U32(32, 3, 0, 0, 1, 0, 4096, 0), -EINVAL},
	{"map: offset not of pages", MAP, U32(32, 3, 1, 0, 0, 0, 4096, 0), -EINVAL},
	{"map: wraps", MAP, U32(32, 3, 0, 0, 0xfffff000, HIGH, 8192, 0), -EINVAL},
	{"map: all of it", MAP, U32(32, 3, 0, 0, 0, 0, 0xfffff000, HIGH), -EINVAL},
	{"unmap: nothing there", UNMAP, U32(24, 0, 0, 0, 4096, 0), -ENOENT},
	{"unmap: short", UNMAP, U32(24, 0, 0, 0, 4096), -EINVAL},
	{"unmap: argsz", UNMAP, U32(8, 0, 0, 0, 4096, 0), -EINVAL},
	{"unmap: size 0", UNMAP, U32(24, 0, 0, 0, 0, 0), -EINVAL},
	{"unmap: wraps", UNMAP, U32(24, 0, 0xfffff000, HIGH, 8192, 0), -EINVAL},
	{"unmap: unknown flag", UNMAP, U32(24, 4, 0, 0, 0, 0), -EINVAL},
	{"unmap: all, and a range", UNMAP, U32(24, 2, 0, 0, 4096, 0), -EINVAL},
	{"info: short", QSC_WIRE_GET_INFO, U32(16, 0, 0), -EINVAL},
	{"info: argsz", QSC_WIRE_GET_INFO, U32(12, 0, 0, 0), -EINVAL},
	{"region info: short", QSC_WIRE_GET_REGION_INFO, U32(32, 0, 0), -EINVAL},
	{"region info: argsz", QSC_WIRE_GET_REGION_INFO, U32(0, 0, 0, 0, 0, 0, 0, 0), -EINVAL},
	{"region info: index", QSC_WIRE_GET_REGION_INFO, U32(32, 0, HIGH, 0, 0, 0, 0, 0), -EINVAL},
	{"io fds: flags", QSC_WIRE_GET_REGION_IO_FDS, U32(64, 1, 0, 0), -EINVAL},
	{"io fds: index", QSC_WIRE_GET_REGION_IO_FDS, U32(64, 0, HIGH, 0), -EINVAL},
	{"io fds: argsz", QSC_WIRE_GET_REGION_IO_FDS, U32(15, 0, 0, 0), -EINVAL},
	{"irq info: index", QSC_WIRE_GET_IRQ_INFO, U32(16, 0, HIGH, 0), -EINVAL},
	{"irq info: short", QSC_WIRE_GET_IRQ_INFO, U32(16), -EINVAL},
	{"irqs: short", QSC_WIRE_SET_IRQS, U32(20, NODATA, FAKE_MSIX, 0), -EINVAL},
	{"irqs: argsz", QSC_WIRE_SET_IRQS, U32(19, NODATA, FAKE_MSIX, 0, 1), -EINVAL},
	{"irqs: no flags", QSC_WIRE_SET_IRQS, U32(20, 0, FAKE_MSIX, 0, 1), -EINVAL},
	{"irqs: two actions", QSC_WIRE_SET_IRQS, U32(20, NODATA | 8, FAKE_MSIX, 0, 1), -EINVAL},
	{"irqs: data too many", QSC_WIRE_SET_IRQS, U32(20, NODATA, FAKE_MSIX, 0, 1, 0), -EINVAL},
	{"irqs: too many bools", QSC_WIRE_SET_IRQS, U32(24, BOOLS, FAKE_MSIX, 0, 3, 0), -EINVAL},
	{"irqs: too few bools", QSC_WIRE_SET_IRQS, U32(24, BOOLS, FAKE_MSIX, 0, 9, 0), -EINVAL},
	{"irqs: range", QSC_WIRE_SET_IRQS, U32(20, NODATA, FAKE_MSIX, FAKE_VECTORS, 1), -EINVAL},
	{"irqs: range wraps", QSC_WIRE_SET_IRQS, U32(20, NODATA, FAKE_MSIX, 2, HIGH), -EINVAL},
	{"irqs: huge count", QSC_WIRE_SET_IRQS, U32(20, EVENT, FAKE_MSIX, 0, HIGH), -EINVAL},
	{"irqs: index", QSC_WIRE_SET_IRQS, U32(20, NODATA, HIGH, 0, 1), -EINVAL},
	{"irqs: bools, count 0", QSC_WIRE_SET_IRQS, U32(20, BOOLS, FAKE_MSIX, 0, 0), -EINVAL},
	{"read: short", QSC_WIRE_REGION_READ, U32(0, 0, 0), -EINVAL},
	{"read: long", QSC_WIRE_REGION_READ, U32(0, 0, 0, 4, 0), -EINVAL},
	{"read: count", QSC_WIRE_REGION_READ, U32(0, 0, FAKE_BIG, (1 << 20) + 1), -EINVAL},
	{"read: wraps", QSC_WIRE_REGION_READ, U32(HIGH, HIGH, 0, 4), -EINVAL},
	{"read: outside", QSC_WIRE_REGION_READ, U32(4096, 0, 0, 1), -EINVAL},
	{"read: region", QSC_WIRE_REGION_READ, U32(0, 0, HIGH, 1), -EINVAL},
	{"write: count over body", QSC_WIRE_REGION_WRITE, U32(0, 0, 0, 5, 0), -EINVAL},
	{"write: count under body", QSC_WIRE_REGION_WRITE, U32(0, 0, 0, 3, 0), -EINVAL},
	{"write: huge count", QSC_WIRE_REGION_WRITE, U32(0, 0, 0, HIGH), -EINVAL},
	{"multi: short", QSC_WIRE_REGION_WRITE_MULTI, U32(1), -EINVAL},
	{"multi: more than there are", QSC_WIRE_REGION_WRITE_MULTI, U32(2, 0, 0, 0, 0, 4, 0, 0),
	 -EINVAL},
	{"multi: huge", QSC_WIRE_REGION_WRITE_MULTI, U32(HIGH, HIGH, 0, 0, 0, 4, 0, 0), -EINVAL},
	{"multi: nine bytes", QSC_WIRE_REGION_WRITE_MULTI, U32(1, 0, 0, 0, 0, 9, 0, 0), -EINVAL},
	{"reset: body", QSC_WIRE_RESET, U32(0), -EINVAL},
	{"feature: short", QSC_WIRE_FEATURE, U32(8), -EINVAL},
	{"feature: no method", QSC_WIRE_FEATURE, U32(16, 1), -EINVAL},
	{"feature: both methods", QSC_WIRE_FEATURE, U32(16, FGET(2) | FSET(0), 1, 0), -EINVAL},
	{"feature: unknown flag", QSC_WIRE_FEATURE, U32(16, FGET(1) | 1U << 19), -EINVAL},
	{"feature: unknown", QSC_WIRE_FEATURE, U32(16, FGET(3)), -ENOTTY},
	{"feature: argsz", QSC_WIRE_FEATURE, U32(15, FGET(1)), -EINVAL},
	{"feature: set what is read only", QSC_WIRE_FEATURE, U32(16, FSET(1)), -EINVAL},
	{"feature: probe what is not", QSC_WIRE_FEATURE, U32(8, FPROBE(FGET(6))), -EINVAL},
	{"feature: Quiesce's, not agreed on", QSC_WIRE_FEATURE, U32(64, FGET(0xff01)), -ENOTTY},
	{"state: short", QSC_WIRE_FEATURE, U32(16, FSET(2), 1), -EINVAL},
	{"state: none", QSC_WIRE_FEATURE, U32(16, FSET(2), 8, 0), -EINVAL},
	{"log: short", QSC_WIRE_FEATURE, U32(24, FSET(6), 4096, 0, 1), -EINVAL},
	{"log: more ranges than there are", QSC_WIRE_FEATURE,
	 U32(24, FSET(6), 4096, 0, 2, 0, 0, 0, 4096, 0), -EINVAL},
	{"log: huge number of ranges", QSC_WIRE_FEATURE, U32(24, FSET(6), 4096, 0, HIGH, 0),
	 -EINVAL},
	{"log: empty range", QSC_WIRE_FEATURE, U32(40, FSET(6), 4096, 0, 1, 0, 0, 0, 0, 0),
	 -EINVAL},
	{"log: range wraps", QSC_WIRE_FEATURE,
	 U32(40, FSET(6), 4096, 0, 1, 0, 0xfffff000, HIGH, 8192, 0), -EINVAL},
	{"log: page size", QSC_WIRE_FEATURE, U32(40, FSET(6), 4097, 0, 1, 0, 0, 0, 4096, 0),
	 -EINVAL},
	{"report: page size 0", QSC_WIRE_FEATURE, U32(99, FGET(8), 0, 0, 4096, 0, 0, 0), -EINVAL},
	{"report: page size small", QSC_WIRE_FEATURE, U32(99, FGET(8), 0, 0, 4096, 0, 2048, 0),
	 -EINVAL},
	{"report: length 0", QSC_WIRE_FEATURE, U32(99, FGET(8), 0, 0, 0, 0, 4096, 0), -EINVAL},
	{"report: wraps", QSC_WIRE_FEATURE, U32(99, FGET(8), 0xfffff000, HIGH, 8192, 0, 4096, 0),
	 -EINVAL},
	{"report: more than a reply", QSC_WIRE_FEATURE, U32(HIGH, FGET(8), 0, 0, 0, 64, 4096, 0),
	 -EINVAL},
	{"report: argsz", QSC_WIRE_FEATURE, U32(39, FGET(8), 0, 0, 4096, 0, 4096, 0), -EINVAL},
	{"data read: short", QSC_WIRE_MIG_DATA_READ, U32(8), -EINVAL},
	{"data read: argsz", QSC_WIRE_MIG_DATA_READ, U32(8, 1), -EINVAL},
	{"data read: huge", QSC_WIRE_MIG_DATA_READ, U32(HIGH, HIGH - 8), -EINVAL},
	{"data read: no session", QSC_WIRE_MIG_DATA_READ, U32(108, 100), -ENODEV},
	{"data write: size", QSC_WIRE_MIG_DATA_WRITE, U32(8, 100, 0), -EINVAL},
	{"data write: no session", QSC_WIRE_MIG_DATA_WRITE, U32(8, 4, 0), -ENODEV},
};

static void test_refusals(void **state)
{
	struct pair pair;
	size_t i;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	for (i = 0; i < QSC_ARRAY_SIZE(refusals); i++) {
		const struct refusal *refusal = &refusals[i];
		int got = raw_request(fd, (uint16_t)refusal->command, refusal->body, refusal->size,
				      NULL, 0, &reply);

		if (got != refusal->expected)
			fail_msg("%s: %d instead of %ld", refusal->what, got, refusal->expected);
	}
	/* And it still serves. */
	assert_int_equal(raw_request(fd, QSC_WIRE_GET_INFO, U32(16, 0, 0, 0), NULL, 0, &reply), 0);
	close(fd);
	pair_join(&pair);
}

/* Every request, cut short at every length: an error or an answer, never a hang or an over-read. */
static void test_short_bodies(void **state)
{
	struct pair pair;
	uint16_t command;
	size_t size;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, true, NULL);
	for (command = 2; command < 30; command++)
		for (size = 0; size < 40; size++) {
			uint8_t body[40];

			memset(body, command == QSC_WIRE_FEATURE ? 1 : 0, sizeof(body));
			assert_in_range(-raw_request(fd, command, body, size, NULL, 0, &reply), 0,
					133);
		}
	close(fd);
	pair_join(&pair);
}

/* Messages that end the connection. */
static void test_impossible_headers(void **state)
{
	static const uint32_t sizes[] = {0, 15, 0x80000000, 0xffffffff, (1 << 20) + 4096};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(sizes); i++) {
		struct qsc_wire_header header = {.command = QSC_WIRE_RESET, .size = sizes[i]};
		struct pair pair;
		int fd;

		pair_serve(&pair, NULL, &fd);
		raw_hello(fd, false, NULL);
		assert_int_equal(send(fd, &header, sizeof(header), 0), sizeof(header));
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
		close(fd);
		pair_join(&pair);
	}
}

static void test_unasked_reply_ends_the_connection(void **state)
{
	struct pair pair;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	raw_send(fd, 5, QSC_WIRE_DMA_READ, QSC_WIRE_TYPE_REPLY, NULL, 0, NULL, 0, 0);
	assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	close(fd);
	pair_join(&pair);
}

static void expect_refused(const void *body, size_t size, uint16_t command)
{
	struct pair pair;
	int got;
	int fd;

	pair_serve(&pair, NULL, &fd);
	got = raw_request(fd, command, body, size, NULL, 0, &reply);
	assert_true(got);
	if (got < 0)
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	assert_int_equal(fake_get(pair.fake, opens), 0);
	close(fd);
	pair_join(&pair);
}

static void test_bad_handshakes(void **state)
{
	static const char *const texts[] = {
		"",
		"nonsense",
		"[]",
		"{\"capabilities\":3}",
		"{\"capabilities\":{\"max_msg_fds\":\"many\"}}",
		"{\"capabilities\":{\"max_msg_fds\":-1}}",
		"{\"capabilities\":{\"max_data_xfer_size\":0}}",
		"{\"capabilities\":{\"max_data_xfer_size\":4095}}",
		"{\"capabilities\":{\"twin_socket\":true}}",
		"{\"capabilities\":{\"twin_socket\":{\"supported\":1}}}",
		"{\"capabilities\":{\"quiesce\":1}}",
		"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]",
	};
	uint8_t body[5000] = {0};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(texts); i++) {
		memcpy(body + 4, texts[i], strlen(texts[i]) + 1);
		expect_refused(body, 5 + strlen(texts[i]), QSC_WIRE_VERSION);
	}
	/* Without the NUL; too short; a major that nobody has; another command; too large. */
	memcpy(body + 4, "{}", 2);
	expect_refused(body, 6, QSC_WIRE_VERSION);
	expect_refused(body, 3, QSC_WIRE_VERSION);
	body[0] = 1;
	expect_refused(body, 4, QSC_WIRE_VERSION);
	body[0] = 0;
	expect_refused(body, 16, QSC_WIRE_GET_INFO);
	expect_refused(body, sizeof(body), QSC_WIRE_VERSION);
}

static void test_bare_handshake(void **state)
{
	struct pair pair;
	uint32_t version = 0;
	int fd;

	pair_serve(&pair, NULL, &fd);
	assert_int_equal(raw_request(fd, QSC_WIRE_VERSION, &version, 4, NULL, 0, &reply), 0);
	/* Of what is optional only what was named. */
	assert_null(strstr((char *)reply.body + 4, "twin_socket"));
	assert_null(strstr((char *)reply.body + 4, "write_multiple"));
	assert_null(strstr((char *)reply.body + 4, "quiesce"));
	assert_non_null(strstr((char *)reply.body + 4, "\"max_data_xfer_size\":1048576"));
	assert_int_equal(raw_request(fd, QSC_WIRE_REGION_WRITE_MULTI, U32(0, 0), NULL, 0, &reply),
			 -ENOTSUP);
	close(fd);
	pair_join(&pair);
}

static void test_descriptors(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .address = 0x10000, .size = 8192};
	struct pair pair;
	int memory[3];
	int pipes[2];
	int before;
	int fd;
	int i;

	before = count_fds();
	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	for (i = 0; i < 3; i++)
		memory[i] = qsc_fd_memory("test", 8192);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	/* More than one; of the wrong kind; too small; with an offset past its end. */
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), memory, 2, &reply), -EINVAL);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), pipes, 1, &reply), -EINVAL);
	map.size = 12288;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), memory, 1, &reply), -EINVAL);
	map.size = 8192;
	map.offset = 4096;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), memory, 1, &reply), -EINVAL);
	map.offset = 0;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), memory, 1, &reply), 0);
	/* Overlaps. */
	map.address = 0x11000;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), memory, 1, &reply), -EEXIST);
	/* Where none belong. */
	assert_int_equal(raw_request(fd, QSC_WIRE_GET_INFO, U32(16, 0, 0, 0), memory, 3, &reply),
			 -EINVAL);
	/* As interrupts: a pipe is no eventfd; as many as vectors, or none. */
	assert_int_equal(raw_request(fd, QSC_WIRE_SET_IRQS, U32(20, EVENT, FAKE_MSIX, 0, 1),
				     pipes + 1, 1, &reply),
			 -EINVAL);
	assert_int_equal(raw_request(fd, QSC_WIRE_SET_IRQS, U32(20, EVENT, FAKE_MSIX, 0, 3), memory,
				     2, &reply),
			 -EINVAL);
	assert_int_equal(raw_request(fd, QSC_WIRE_SET_IRQS, U32(20, NODATA, FAKE_MSIX, 0, 1),
				     memory, 1, &reply),
			 -EINVAL);
	/* All at once, without one left over. */
	assert_int_equal(raw_request(fd, UNMAP, U32(24, 2, 0, 0, 0, 0), NULL, 0, &reply), 0);
	assert_int_equal(fake_get(pair.fake, num_mappings), 0);
	for (i = 0; i < 3; i++)
		close(memory[i]);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
	pair_join(&pair);
	assert_int_equal(count_fds(), before);
}

/* The server goes by the promise to send none, where it was agreed on, until it is taken back. */
static void test_broken_promise(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	int agreed;

	for (agreed = 0; agreed < 2; agreed++) {
		int before = count_fds();
		int memory = qsc_fd_memory("test", 4096);
		struct pair pair;
		int fd;

		pair_serve(&pair, NULL, &fd);
		raw_hello(fd, agreed, NULL);
		raw_send(fd, 1, QSC_WIRE_GET_INFO, QSC_WIRE_PLAIN, U32(16, 0, 0, 0), NULL, 0, 0);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.flags, QSC_WIRE_TYPE_REPLY);
		/* As a mapping without a file. */
		map.address = 0;
		raw_send(fd, 2, MAP, QSC_WIRE_PLAIN, &map, sizeof(map), &memory, 1, 0);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.flags, QSC_WIRE_TYPE_REPLY);
		assert_int_equal(fake_get(pair.fake, mappings[0].fd) < 0, agreed);
		assert_int_equal(
			raw_request(fd, QSC_WIRE_GET_INFO, U32(16, 0, 0, 0), NULL, 0, &reply), 0);
		map.address = 0x1000;
		assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), 0);
		assert_true(fake_get(pair.fake, mappings[1].fd) >= 0);
		close(memory);
		close(fd);
		pair_join(&pair);
		assert_int_equal(count_fds(), before);
	}
}

/* A file on a disk, or wherever else a page may take for ever: not the server's to wait for. */
static void test_files_not_in_memory(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	struct pair pair;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int fd;

	assert_true(file >= 0);
	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &file, 1, &reply), -EINVAL);
	assert_int_equal(fake_get(pair.fake, calls[FAKE_OP_DMA_MAP]), 0);
	close(file);
	close(fd);
	pair_join(&pair);
}

/* What the process can map is for all its clients, and for itself. */
static void test_too_many_files(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	int memory = qsc_fd_memory("test", 4096);
	struct pair pair;
	size_t taken = 0;
	size_t again = 0;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), 0);
	while (qsc_server_take_file() == 0)
		taken++;
	assert_in_range(taken, 1000, INT32_MAX / 2);
	map.address = 0x1000;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), -ENOSPC);
	/* Without a file there is room. */
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
	/* Whatever goes makes room, and what fails takes none. */
	assert_int_equal(raw_request(fd, UNMAP, U32(24, 0, 0, 0, 4096, 0), NULL, 0, &reply), 0);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), -EEXIST);
	map.address = 0x2000;
	fake_set(pair.fake, fail[FAKE_OP_DMA_MAP], -EIO);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), -EIO);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), 0);
	assert_int_equal(raw_request(fd, UNMAP, U32(24, 2, 0, 0, 0, 0), NULL, 0, &reply), 0);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), &memory, 1, &reply), 0);
	close(memory);
	close(fd);
	pair_join(&pair);
	/* So does the end. */
	while (qsc_server_take_file() == 0)
		again++;
	assert_int_equal(again, 1);
	qsc_server_give_files(taken + again);
}

/* More descriptors than were ever offered: the connection ends, and none stays open. */
static void test_flood_of_descriptors(void **state)
{
	struct pair pair;
	int before = count_fds();
	int many[200];
	int fd;
	int i;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	for (i = 0; i < 200; i++)
		many[i] = 0;
	raw_send(fd, 1, QSC_WIRE_GET_INFO, 0, U32(16, 0, 0, 0), many, 200, 0);
	assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	close(fd);
	pair_join(&pair);
	assert_int_equal(count_fds(), before);
}

/* The same conversation in pieces of every size, descriptors included. */
static void test_every_split(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .address = 0x10000, .size = 8192};
	uint32_t write[5] = {16, 0, FAKE_REGISTERS, 4, 0};
	struct pair pair;
	int memory = qsc_fd_memory("test", 8192);
	size_t piece;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	for (piece = 1; piece <= 64; piece++) {
		write[4] = (uint32_t)piece;
		raw_send(fd, 1, MAP, QSC_WIRE_NO_REPLY, &map, sizeof(map), &memory, 1, piece);
		raw_send(fd, 2, QSC_WIRE_REGION_WRITE, 0, write, sizeof(write), NULL, 0, piece);
		raw_send(fd, 3, UNMAP, 0, U32(24, 0, 0x10000, 0, 8192, 0), NULL, 0, piece);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.id, 2);
		assert_int_equal(reply.header.flags, QSC_WIRE_TYPE_REPLY);
		assert_int_equal(fake_get(pair.fake, registers[16]), piece);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.id, 3);
		assert_int_equal(reply.header.flags, QSC_WIRE_TYPE_REPLY);
	}
	close(memory);
	close(fd);
	pair_join(&pair);
}

/* Many requests in one send, answered in order. */
static void test_glued_requests(void **state)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_region_access access;
	} requests[100];
	struct pair pair;
	uint16_t i;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	for (i = 0; i < 100; i++) {
		requests[i].header = (struct qsc_wire_header){
			.id = i, .command = QSC_WIRE_REGION_READ, .size = sizeof(requests[i])};
		requests[i].access = (struct qsc_wire_region_access){i, FAKE_REGISTERS, 4};
	}
	assert_int_equal(send(fd, requests, sizeof(requests), 0), sizeof(requests));
	for (i = 0; i < 100; i++) {
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.id, i);
		assert_int_equal(reply.header.size, 36);
	}
	close(fd);
	pair_join(&pair);
}

static void test_no_reply_means_none(void **state)
{
	struct pair pair;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	raw_send(fd, 1, 99, QSC_WIRE_NO_REPLY, NULL, 0, NULL, 0, 0);
	raw_send(fd, 2, QSC_WIRE_REGION_READ, QSC_WIRE_NO_REPLY, U32(0, 0, 0, 4), NULL, 0, 0);
	assert_int_equal(raw_request(fd, QSC_WIRE_RESET, NULL, 0, NULL, 0, &reply), 0);
	close(fd);
	pair_join(&pair);
}

/* What the specification says for a client that does not know Quiesce. */
static void test_plain_client_migrates(void **state)
{
	struct pair pair;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE, U32(16, FGET(1)), NULL, 0, &reply), 0);
	assert_int_equal(reply.header.size, 16 + 16);
	assert_int_equal(reply.body[8], 7);
	assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE, U32(8, FPROBE(FGET(2)) | FSET(0)), NULL,
				     0, &reply),
			 0);
	assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE, U32(16, FSET(2), QSC_STATE_PRE_COPY, 0),
				     NULL, 0, &reply),
			 0);
	fake_set(pair.fake, drained, 100);
	assert_int_equal(raw_request(fd, QSC_WIRE_MIG_DATA_READ, U32(1008, 1000), NULL, 0, &reply),
			 0);
	assert_int_equal(reply.header.size, 16 + 8 + 100);
	/* Drained for now is "no more", since there is no other word for it. */
	assert_int_equal(raw_request(fd, QSC_WIRE_MIG_DATA_READ, U32(1008, 1000), NULL, 0, &reply),
			 0);
	assert_int_equal(reply.header.size, 16 + 8);
	/* Asked without room for the capabilities, it says how much it takes. */
	raw_send(fd, 1, QSC_WIRE_GET_REGION_INFO, 0, U32(32, 0, FAKE_MEMORY, 0, 0, 0, 0, 0), NULL,
		 0, 0);
	{
		int fds[253];
		size_t num_fds;

		assert_int_equal(raw_receive(fd, &reply, fds, &num_fds), 1);
		assert_int_equal(num_fds, 1);
		close(fds[0]);
	}
	assert_int_equal(reply.header.size, 16 + 32);
	assert_int_equal(reply.body[0], 32 + 16 + 2 * 16 + 16);
	close(fd);
	pair_join(&pair);
}

static void test_log_of_everything(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 1 << 16};
	struct pair pair;
	uint64_t bitmap;
	int fd;

	pair_serve(&pair, NULL, &fd);
	raw_hello(fd, false, NULL);
	assert_int_equal(
		raw_request(fd, QSC_WIRE_FEATURE, U32(24, FSET(6), 4096, 0, 0, 0), NULL, 0, &reply),
		-EINVAL);
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
	assert_int_equal(
		raw_request(fd, QSC_WIRE_FEATURE, U32(24, FSET(6), 4096, 0, 0, 0), NULL, 0, &reply),
		0);
	assert_int_equal(fake_get(pair.fake, log_ranges), 1);
	/* LOG-1: mapped later, the device logs nothing of it; all of it is reported. */
	map.address = 0x20000;
	map.size = 8192;
	assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
	fake_set(pair.fake, dirty[0], 2);
	assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE,
				     U32(40, FGET(8), 0, 0, 0x40000, 0, 4096, 0), NULL, 0, &reply),
			 0);
	memcpy(&bitmap, reply.body + 32, sizeof(bitmap));
	assert_int_equal(bitmap, 2 | 3ULL << 32);
	close(fd);
	pair_join(&pair);
}

/* Half a message and then nothing: the deadline ends it. */
static void test_half_a_message(void **state)
{
	struct qsc_server_options options = {.message_timeout_ms = 50};
	struct qsc_wire_header header = {.command = QSC_WIRE_RESET, .size = sizeof(header)};
	struct pair pair;
	int fd;

	pair_serve(&pair, &options, &fd);
	raw_hello(fd, false, NULL);
	assert_int_equal(send(fd, &header, 5, 0), 5);
	assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	close(fd);
	pair_join(&pair);
}

static void test_silence_before_the_handshake(void **state)
{
	struct qsc_server_options options = {.handshake_timeout_ms = 50};
	struct pair pair;
	int fd;

	pair_serve(&pair, &options, &fd);
	assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	close(fd);
	pair_join(&pair);
	/* Also byte by byte: the deadline is for the whole of it. */
	pair_serve(&pair, &options, &fd);
	/* It fails where this side was too late. */
	(void)send(fd, "\1", 1, MSG_NOSIGNAL);
	assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
	close(fd);
	pair_join(&pair);
}

/* A client that never answers for its memory holds the device up no longer than the deadline. */
static void test_dma_never_answered(void **state)
{
	struct qsc_server_options options = {.reply_timeout_ms = 50};
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	int with_twin;

	for (with_twin = 0; with_twin < 2; with_twin++) {
		struct pair pair;
		uint32_t write[6] = {FAKE_KICK, 0, FAKE_REGISTERS, 8, 16, 0};
		int twin = -1;
		int fd;

		pair_serve(&pair, &options, &fd);
		raw_hello(fd, false, with_twin ? &twin : NULL);
		assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
		raw_send(fd, 1, QSC_WIRE_REGION_WRITE, 0, write, sizeof(write), NULL, 0, 0);
		/* Its question, then the end. */
		assert_int_equal(raw_receive(with_twin ? twin : fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.command, QSC_WIRE_DMA_READ);
		assert_int_equal(reply.header.flags, 0);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
		fake_wait_closed(pair.fake);
		assert_int_equal(fake_get(pair.fake, dma_error), -ETIMEDOUT);
		close(fd);
		qsc_fd_close(&twin);
		pair_join(&pair);
	}
}

#define TIMEOUT_MS 100U

/* Each piece is answered in time, all of them are not: the deadline is for the whole access. */
static void test_dma_answered_slowly(void **state)
{
	struct qsc_server_options options = {.reply_timeout_ms = TIMEOUT_MS,
					     .max_data_xfer_size = 4096};
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = FAKE_BULK};
	const uint32_t write[6] = {FAKE_KICK_BULK, 0, FAKE_REGISTERS, 8, 0, 0};
	int with_twin;

	for (with_twin = 0; with_twin < 2; with_twin++) {
		struct pair pair;
		int twin = -1;
		int fd;

		pair_serve(&pair, &options, &fd);
		raw_hello(fd, false, with_twin ? &twin : NULL);
		assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
		raw_send(fd, 1, QSC_WIRE_REGION_WRITE, 0, write, sizeof(write), NULL, 0, 0);
		while (raw_receive(with_twin ? twin : fd, &reply, NULL, NULL) &&
		       reply.header.command == QSC_WIRE_DMA_READ) {
			usleep(TIMEOUT_MS * 1000 / 3);
			raw_send(with_twin ? twin : fd, reply.header.id, QSC_WIRE_DMA_READ,
				 QSC_WIRE_TYPE_REPLY, reply.body, 16 + 4096, NULL, 0, 0);
		}
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), 0);
		fake_wait_closed(pair.fake);
		assert_int_equal(fake_get(pair.fake, dma_error), -ETIMEDOUT);
		close(fd);
		qsc_fd_close(&twin);
		pair_join(&pair);
	}
}

/*
 * Answers that do not fit the question: the access fails; one that fits nothing ends it. What they
 * bring along is nobody's.
 */
static void test_dma_answered_wrongly(void **state)
{
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	uint32_t write[6] = {FAKE_KICK, 0, FAKE_REGISTERS, 8, 16, 0};
	static const struct {
		size_t size;
		uint64_t address;
		uint64_t count;
		size_t id_xor;
		int expected;
		int survives;
	} answers[] = {
		{24, 16, 8, 0, 0, true},	{24, 17, 8, 0, -EIO, true},
		{24, 16, 9, 0, -EIO, true},	{20, 16, 8, 0, -EIO, true},
		{25, 16, 8, 0, -EPROTO, false}, {8, 16, 8, 0, -EPROTO, false},
		{24, 16, 8, 1, -EPROTO, false},
	};
	int before = count_fds();
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(answers); i++) {
		uint8_t body[32] = {0};
		struct pair pair;
		int twin;
		int fd;

		pair_serve(&pair, NULL, &fd);
		raw_hello(fd, false, &twin);
		assert_int_equal(raw_request(fd, MAP, &map, sizeof(map), NULL, 0, &reply), 0);
		raw_send(fd, 1, QSC_WIRE_REGION_WRITE, 0, write, sizeof(write), NULL, 0, 0);
		assert_int_equal(raw_receive(twin, &reply, NULL, NULL), 1);
		memcpy(body, &answers[i].address, 8);
		memcpy(body + 8, &answers[i].count, 8);
		raw_send(twin, (uint16_t)(reply.header.id ^ answers[i].id_xor), QSC_WIRE_DMA_READ,
			 QSC_WIRE_TYPE_REPLY, body, answers[i].size, &twin, 1, 0);
		assert_int_equal(raw_receive(fd, &reply, NULL, NULL), answers[i].survives);
		if (!answers[i].survives)
			fake_wait_closed(pair.fake);
		assert_int_equal(fake_get(pair.fake, dma_error), answers[i].expected);
		close(fd);
		close(twin);
		pair_join(&pair);
		assert_int_equal(count_fds(), before);
	}
}

/* One who does not read its replies ends at the deadline for sending. */
static void test_replies_never_read(void **state)
{
	struct qsc_server_options options = {.message_timeout_ms = 50};
	struct pair pair;
	int fd;
	int i;

	pair_serve(&pair, &options, &fd);
	raw_hello(fd, false, NULL);
	for (i = 0; i < 16; i++)
		raw_send(fd, 1, QSC_WIRE_REGION_READ, 0, U32(0, 0, FAKE_BIG, 1 << 20), NULL, 0, 0);
	fake_wait_closed(pair.fake);
	close(fd);
	pair_join(&pair);
}

/* More than the sockets hold by far, in messages of 1 MiB. */
#define SLOW_REPLIES 8

static void read_slowly(int fd)
{
	static uint8_t piece[16 << 10];
	const struct timespec pause = {.tv_nsec = 10000000};
	size_t got = 0;
	ssize_t n = 1;

	while (n > 0 && got < SLOW_REPLIES << 20) {
		n = recv(fd, piece, sizeof(piece), 0);
		got += n > 0 ? (size_t)n : 0;
		(void)nanosleep(&pause, NULL);
	}
	assert_in_range(got, 1, (SLOW_REPLIES << 20) - 1);
}

/*
 * One who reads so slowly that it takes 640 ms to make room for a reply, but lets the sender sleep
 * never for long: the deadline is for the whole reply.
 */
static void test_replies_read_slowly(void **state)
{
	struct qsc_server_options options = {.message_timeout_ms = 100};
	struct pair pair;
	int round;
	int fd;
	int i;

	for (round = 0; round < 2; round++) {
		pair_serve(&pair, &options, &fd);
		raw_hello(fd, false, NULL);
		fake_set(pair.fake, lends, round);
		if (round)
			assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE,
						     U32(16, FSET(2), QSC_STATE_STOP_COPY, 0), NULL,
						     0, &reply),
					 0);
		for (i = 0; i < SLOW_REPLIES; i++)
			raw_send(fd, 1, round ? QSC_WIRE_MIG_DATA_READ : QSC_WIRE_REGION_READ, 0,
				 round ? (const uint32_t[]){8 + (1 << 20), 1 << 20, 0, 0}
				       : (const uint32_t[]){0, 0, FAKE_BIG, 1 << 20},
				 round ? 8 : 16, NULL, 0, 0);
		read_slowly(fd);
		fake_wait_closed(pair.fake);
		close(fd);
		pair_join(&pair);
	}
}

/* One who reads nothing of state data passed on by reference, or leaves: no signal ends us. */
static void test_lent_state_never_read(void **state)
{
	struct qsc_server_options options = {.message_timeout_ms = 50};
	struct pair pair;
	int round;
	int fd;
	int i;

	for (round = 0; round < 2; round++) {
		pair_serve(&pair, &options, &fd);
		raw_hello(fd, false, NULL);
		fake_set(pair.fake, lends, true);
		assert_int_equal(raw_request(fd, QSC_WIRE_FEATURE,
					     U32(16, FSET(2), QSC_STATE_STOP_COPY, 0), NULL, 0,
					     &reply),
				 0);
		for (i = 0; i < 3; i++)
			raw_send(fd, 1, QSC_WIRE_MIG_DATA_READ, 0, U32(8 + (1 << 20), 1 << 20),
				 NULL, 0, 0);
		if (round)
			close(fd);
		fake_wait_closed(pair.fake);
		if (!round)
			close(fd);
		pair_join(&pair);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_short_bodies),
		cmocka_unit_test(test_impossible_headers),
		cmocka_unit_test(test_unasked_reply_ends_the_connection),
		cmocka_unit_test(test_bad_handshakes),
		cmocka_unit_test(test_bare_handshake),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_broken_promise),
		cmocka_unit_test(test_files_not_in_memory),
		cmocka_unit_test(test_too_many_files),
		cmocka_unit_test(test_flood_of_descriptors),
		cmocka_unit_test(test_every_split),
		cmocka_unit_test(test_glued_requests),
		cmocka_unit_test(test_no_reply_means_none),
		cmocka_unit_test(test_plain_client_migrates),
		cmocka_unit_test(test_log_of_everything),
		cmocka_unit_test(test_half_a_message),
		cmocka_unit_test(test_silence_before_the_handshake),
		cmocka_unit_test(test_dma_never_answered),
		cmocka_unit_test(test_dma_answered_slowly),
		cmocka_unit_test(test_dma_answered_wrongly),
		cmocka_unit_test(test_replies_never_read),
		cmocka_unit_test(test_replies_read_slowly),
		cmocka_unit_test(test_lent_state_never_read),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
