/* SPDX-License-Identifier: MIT */
/*
 * What an access costs: the linker puts these wrappers in front of every system call that moves
 * bytes or waits, and of every allocation, in this program and in the library linked into it.
 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "pair.h"

static atomic_uint sends;
static atomic_uint receives;
static atomic_uint others;
static atomic_uint allocations;

/* Parameters and arguments come with their parentheses. NOLINTBEGIN(bugprone-macro-parentheses) */
#define WRAP(type, name, counter, params, args) \
	type __real_##name params;              \
	type __wrap_##name params;              \
	type __wrap_##name params               \
	{                                       \
		atomic_fetch_add(&counter, 1);  \
		return __real_##name args;      \
	}
/* NOLINTEND(bugprone-macro-parentheses) */

/* clang-format off */
WRAP(ssize_t, sendmsg, sends, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, send, sends, (int fd, const void *buf, size_t size, int flags), (fd, buf, size, flags))
WRAP(ssize_t, write, sends, (int fd, const void *buf, size_t size), (fd, buf, size))
WRAP(ssize_t, recvmsg, receives, (int fd, struct msghdr *message, int flags), (fd, message, flags))
WRAP(ssize_t, recv, receives, (int fd, void *buf, size_t size, int flags), (fd, buf, size, flags))
WRAP(ssize_t, read, receives, (int fd, void *buf, size_t size), (fd, buf, size))
WRAP(int, poll, others, (struct pollfd *fds, nfds_t count, int timeout), (fds, count, timeout))
WRAP(int, setsockopt, others, (int fd, int level, int name, const void *value, socklen_t size), (fd, level, name, value, size))
WRAP(void *, malloc, allocations, (size_t size), (size))
WRAP(void *, calloc, allocations, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, allocations, (void *old, size_t size), (old, size))
/* clang-format on */

static void clear(void)
{
	atomic_store(&sends, 0);
	atomic_store(&receives, 0);
	atomic_store(&others, 0);
	atomic_store(&allocations, 0);
}

/* Both ends are in this process: a request costs a send and a receive at each. */
static void expect(unsigned int requests, unsigned int replies)
{
	assert_int_equal(atomic_load(&sends), requests + replies);
	/*
	 * The server may have been in the receive of the first request before the count began, and
	 * may be in the one after the last by now.
	 */
	assert_in_range(atomic_load(&receives), requests + replies - 1, requests + replies + 1);
	assert_int_equal(atomic_load(&others), 0);
	assert_int_equal(atomic_load(&allocations), 0);
}

static void test_register_access(void **state)
{
	struct qsc_region_write writes[8] = {{.count = 4}, {.count = 8}, {.count = 1},
					     {.count = 4}, {.count = 8}, {.count = 1},
					     {.count = 4}, {.count = 8}};
	struct pair pair;
	uint32_t value = 1;
	unsigned int i;

	pair_open(&pair, NULL, NULL);
	assert_int_equal(qsc_device_region_read(pair.dev, FAKE_REGISTERS, 0, &value, 4), 4);
	clear();
	for (i = 0; i < 100; i++)
		assert_int_equal(qsc_device_region_read(pair.dev, FAKE_REGISTERS, 0, &value, 4), 4);
	expect(100, 100);
	clear();
	for (i = 0; i < 100; i++)
		assert_int_equal(qsc_device_region_write(pair.dev, FAKE_REGISTERS, 0, &value, 4),
				 4);
	expect(100, 100);
	clear();
	assert_int_equal(qsc_device_region_write_multi(pair.dev, writes, 8), 8);
	expect(1, 1);
	pair_close(&pair);
}

static void test_posted_writes(void **state)
{
	struct qsc_client_options options = {.posted_writes = true};
	struct pair pair;
	uint32_t value = 1;
	unsigned int i;

	pair_open(&pair, NULL, &options);
	assert_int_equal(qsc_device_region_read(pair.dev, FAKE_REGISTERS, 0, &value, 4), 4);
	clear();
	for (i = 0; i < 100; i++)
		assert_int_equal(qsc_device_region_write(pair.dev, FAKE_REGISTERS, 0, &value, 4),
				 4);
	assert_int_equal(qsc_device_region_read(pair.dev, FAKE_REGISTERS, 0, &value, 4), 4);
	assert_int_equal(atomic_load(&sends), 102);
	assert_int_equal(atomic_load(&others), 0);
	assert_int_equal(atomic_load(&allocations), 0);
	pair_close(&pair);
}

/* Long ones come in as many receives as the socket hands out, without an allocation or a poll. */
static void test_bulk(void **state)
{
	static uint8_t buf[1 << 20];
	struct pair pair;
	uint64_t session;

	pair_open(&pair, NULL, NULL);
	assert_int_equal(qsc_device_set_state(pair.dev, QSC_STATE_STOP_COPY, &session), 0);
	assert_true(qsc_device_session_read(pair.dev, session, buf, sizeof(buf)) > 0);
	clear();
	assert_true(qsc_device_session_read(pair.dev, session, buf, sizeof(buf)) > 0);
	assert_int_equal(atomic_load(&allocations), 0);
	pair_close(&pair);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_register_access),
		cmocka_unit_test(test_posted_writes),
		cmocka_unit_test(test_bulk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
