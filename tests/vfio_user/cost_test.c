/* SPDX-License-Identifier: MIT */
/*
 * What an access costs. A parent traces this program and counts the system calls that move bytes or
 * wait, however they are made; the linker puts wrappers in front of every allocation, in this
 * program and in the library linked into it.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "pair.h"

/* Shared with the parent. */
struct calls {
	atomic_uint sends;
	atomic_uint receives;
	atomic_uint fd_receives; /* of these, such that take descriptors, which costs more */
	atomic_uint others;
};

static struct calls *calls;
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
WRAP(void *, malloc, allocations, (size_t size), (size))
WRAP(void *, calloc, allocations, (size_t count, size_t size), (count, size))
WRAP(void *, realloc, allocations, (void *old, size_t size), (old, size))
/* clang-format on */

static void clear(void)
{
	atomic_store(&calls->sends, 0);
	atomic_store(&calls->receives, 0);
	atomic_store(&calls->fd_receives, 0);
	atomic_store(&calls->others, 0);
	atomic_store(&allocations, 0);
}

/* Both ends are in this process: a request costs a send and a receive at each. */
static void expect(unsigned int requests, unsigned int replies)
{
	assert_int_equal(atomic_load(&calls->sends), requests + replies);
	/*
	 * The server may have been in the receive of the first request before the count began, and
	 * may be in the one after the last by now.
	 */
	assert_in_range(atomic_load(&calls->receives), requests + replies - 1,
			requests + replies + 1);
	assert_int_equal(atomic_load(&calls->fd_receives), 0);
	assert_int_equal(atomic_load(&calls->others), 0);
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
	assert_int_equal(atomic_load(&calls->sends), 102);
	assert_int_equal(atomic_load(&calls->others), 0);
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

static int test_all(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_register_access),
		cmocka_unit_test(test_posted_writes),
		cmocka_unit_test(test_bulk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

static void count(const struct __ptrace_syscall_info *info)
{
	switch (info->entry.nr) {
	case SYS_sendto:
	case SYS_sendmsg:
	case SYS_write:
	case SYS_writev:
		atomic_fetch_add(&calls->sends, 1);
		break;
	case SYS_recvmsg:
		atomic_fetch_add(&calls->fd_receives, 1);
		/* fall through */
	case SYS_recvfrom:
	case SYS_read:
	case SYS_readv:
		atomic_fetch_add(&calls->receives, 1);
		break;
#ifdef SYS_poll
	case SYS_poll:
#endif
	case SYS_ppoll:
	case SYS_setsockopt:
		atomic_fetch_add(&calls->others, 1);
		break;
	default:
		break;
	}
}

/* Count for `child` and all its threads until it ends; returns how it did. */
static int trace(pid_t child)
{
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
	bool begun = false;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, __WALL)) > 0) {
		struct __ptrace_syscall_info info = {.op = PTRACE_SYSCALL_INFO_NONE};
		long deliver = 0;

		if (!WIFSTOPPED(status)) {
			if (pid == child)
				return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
			continue;
		}
		if (!begun)
			begun = !ptrace(PTRACE_SETOPTIONS, pid, NULL, options);
		else if (WSTOPSIG(status) == (SIGTRAP | 0x80))
			(void)ptrace(PTRACE_GET_SYSCALL_INFO, pid, sizeof(info), &info);
		else if (WSTOPSIG(status) != SIGSTOP && WSTOPSIG(status) != SIGTRAP)
			deliver = WSTOPSIG(status);
		if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
			count(&info);
		(void)ptrace(PTRACE_SYSCALL, pid, NULL, deliver);
	}
	return 1;
}

int main(void)
{
	pid_t child;

	calls = mmap(NULL, sizeof(*calls), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		     0);
	child = calls == MAP_FAILED ? -1 : fork();
	if (child > 0)
		return trace(child);
	if (child < 0)
		return 1;
	if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
		puts("1..0 # SKIP no process may trace another here");
		return 0;
	}
	(void)raise(SIGSTOP);
	return test_all();
}
