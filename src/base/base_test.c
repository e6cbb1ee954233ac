/* SPDX-License-Identifier: MIT */
/* Unit tests of base: errors, ranges, bitmaps, guarded memory, running tasks side by side. */
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/base.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "base/log.h"

static void test_error_text_and_prefix(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	char big[2 * QSC_ERROR_TEXT_SIZE];

	(void)state;
	assert_int_equal(qsc_error_set(&err, EINVAL, "ARC-3", "target %d", 8), -EINVAL);
	qsc_error_prefix(&err, "device %d: ", 2);
	assert_string_equal(err.text, "device 2: target 8");
	assert_string_equal(err.clause, "ARC-3");
	assert_int_equal(qsc_error_set(NULL, EIO, NULL, "nobody reads this"), -EIO);
	memset(big, 'x', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	qsc_error_prefix(&err, "%s", big);
	assert_int_equal(strlen(err.text), QSC_ERROR_TEXT_SIZE - 1);
}

static void test_ranges(void **state)
{
	(void)state;
	assert_true(qsc_range_valid(UINT64_MAX, 1));
	assert_false(qsc_range_valid(UINT64_MAX, 2));
	assert_false(qsc_range_valid(0, 0));
	assert_true(qsc_range_within(4096, 0, 4096));
	assert_false(qsc_range_within(4096, 1, 4096));
	assert_false(qsc_range_within(1, UINT64_MAX, 4096));
	assert_true(qsc_ranges_overlap(0, 10, 9, 1));
	assert_false(qsc_ranges_overlap(0, 10, 10, 1));
	assert_true(qsc_ranges_overlap(UINT64_MAX, 1, 0xfffffffffffff000U, 4096));
}

static void test_bitmap_against_plain_loop(void **state)
{
	enum { BITS = 333 };
	_Atomic uint64_t map[(BITS + 63) / 64];
	uint64_t first;
	uint64_t count;
	uint64_t i;

	(void)state;
	for (first = 0; first < BITS; first += 13) {
		for (count = 1; count <= BITS - first; count += 17) {
			uint64_t seen = 0;

			memset((void *)map, 0, sizeof(map));
			qsc_bitmap_atomic_set_range(map, first, count);
			for (i = 0; i < BITS; i++)
				assert_int_equal(qsc_bitmap_test((uint64_t *)map, i),
						 i >= first && i < first + count);
			i = qsc_bitmap_next((uint64_t *)map, BITS, 0);
			assert_int_equal(i, first);
			assert_int_equal(qsc_bitmap_next_clear((uint64_t *)map, BITS, i),
					 first + count);
			for (; i < BITS; i = qsc_bitmap_next((uint64_t *)map, BITS, i + 1))
				seen++;
			assert_int_equal(seen, count);
			assert_int_equal(qsc_bitmap_count((uint64_t *)map, BITS), count);
		}
	}
}

static void test_guard_survives_truncated_file(void **state)
{
	struct qsc_guard *guard = NULL;
	int fd = memfd_create("guard", MFD_CLOEXEC);
	volatile unsigned char *memory;

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 16384), 0);
	memory = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	assert_int_equal(qsc_guard_add((void *)memory, 16384, &guard), 0);
	memory[8192] = 7;
	assert_false(qsc_guard_hit(guard));
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(memory[8192], 0);
	memory[0] = 1;
	assert_true(qsc_guard_hit(guard));
	qsc_guard_remove(guard);
	munmap((void *)memory, 16384);
	close(fd);
}

static void test_memory_file_keeps_its_size(void **state)
{
	qsc_autoclose int fd = qsc_fd_memory("test", 8192);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 0), -1);
	assert_int_equal(fcntl(fd, F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

static bool tells_eventfd(int event, int plain)
{
	return qsc_fd_is_eventfd(event) && !qsc_fd_is_eventfd(plain) && !qsc_fd_is_eventfd(-1);
}

static void test_eventfd_is_told_without_proc(void **state)
{
	qsc_autoclose int event = eventfd(0, EFD_CLOEXEC);
	qsc_autoclose int plain = qsc_fd_memory("test", 4096);
	char empty[] = "/tmp/qsc-no-proc-XXXXXX";
	int status = 0;
	pid_t child;

	(void)state;
	assert_true(tells_eventfd(event, plain));
	assert_non_null(mkdtemp(empty));
	child = fork();
	assert_true(child >= 0);
	if (!child) {
		/* Where this is not allowed there is nothing to see. */
		if (geteuid() && unshare(CLONE_NEWUSER) < 0)
			_exit(77);
		if (chroot(empty) < 0 || chdir("/") < 0)
			_exit(77);
		_exit(tells_eventfd(event, plain) ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	(void)rmdir(empty);
	assert_true(WIFEXITED(status));
	if (WEXITSTATUS(status) == 77)
		skip();
	assert_int_equal(WEXITSTATUS(status), 0);
}

/* One thousand, which is more than there is room for results, here and in a child. */
static bool signals_in_full(int fd)
{
	int i;

	for (i = 0; i < 1000; i++)
		if (qsc_eventfd_signal_foreign(fd) < 0)
			return false;
	return qsc_eventfd_drain(fd) == 1000;
}

/* Each of these would wait for ever if it could wait: the alarm ends the test then. */
static void test_foreign_eventfd_never_waits(void **state)
{
	qsc_autoclose int fd = eventfd(0, EFD_CLOEXEC);
	aio_context_t context = 0;
	int status = 0;
	pid_t child;

	(void)state;
	(void)alarm(20);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	assert_true(signals_in_full(fd));
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		_exit(signals_in_full(fd) ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	assert_true(signals_in_full(fd));
	assert_int_equal(qsc_eventfd_signal_foreign(-1), -EBADF);
	assert_int_equal(qsc_eventfd_signal(fd, UINT64_MAX - 1), 0);
	/* Where there is no asynchronous I/O a full one is left as it is. */
	if (syscall(SYS_io_setup, 1, &context) < 0) {
		assert_int_equal(qsc_eventfd_signal_foreign(fd), -EAGAIN);
		assert_int_equal(qsc_eventfd_drain(fd), UINT64_MAX - 1);
	} else {
		(void)syscall(SYS_io_destroy, context);
		assert_int_equal(qsc_eventfd_signal_foreign(fd), 0);
		assert_int_equal(qsc_eventfd_signal_foreign(fd), 0);
		assert_int_equal(qsc_eventfd_drain(fd), UINT64_MAX);
	}
	(void)alarm(0);
}

/* None of the tasks ends before all have begun. */
static void meet(void *arg)
{
	(void)pthread_barrier_wait(arg);
}

static void test_parallel_runs_side_by_side(void **state)
{
	const struct qsc_env *env = qsc_env_real();
	/* A thread each from the beginning, as many as that, and many more. */
	static const unsigned int counts[] = {1, 2, 16, 17, 18, 300};
	void *args[300];
	unsigned int k;
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(counts); i++) {
		pthread_barrier_t all;

		assert_int_equal(pthread_barrier_init(&all, NULL, counts[i]), 0);
		for (k = 0; k < counts[i]; k++)
			args[k] = &all;
		assert_int_equal(env->parallel(env->ctx, meet, args, counts[i]), 0);
		(void)pthread_barrier_destroy(&all);
	}
	assert_int_equal(env->parallel(env->ctx, meet, args, 0), 0);
}

static void count_up(void *arg)
{
	atomic_fetch_add((_Atomic(int) *)arg, 1);
}

static void test_parallel_runs_each_once(void **state)
{
	enum { COUNT = 5000 };
	const struct qsc_env *env = qsc_env_real();
	static _Atomic(int) ran[COUNT];
	static void *args[COUNT];
	int i;

	(void)state;
	for (i = 0; i < COUNT; i++)
		args[i] = &ran[i];
	assert_int_equal(env->parallel(env->ctx, count_up, args, COUNT), 0);
	for (i = 0; i < COUNT; i++)
		assert_int_equal(ran[i], 1);
}

static void count_line(void *ctx, enum qsc_log_level level, const char *line)
{
	(void)level;
	assert_string_equal(line, "hello 1");
	++*(int *)ctx;
}

static void test_log_level(void **state)
{
	int lines = 0;

	(void)state;
	qsc_log(QSC_LOG_ERROR, "nobody");
	qsc_log_set(count_line, &lines, QSC_LOG_WARNING);
	qsc_log(QSC_LOG_WARNING, "hello %d", 1);
	qsc_log(QSC_LOG_INFO, "too low");
	qsc_log_set(NULL, NULL, QSC_LOG_ERROR);
	assert_int_equal(lines, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_error_text_and_prefix),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_bitmap_against_plain_loop),
		cmocka_unit_test(test_guard_survives_truncated_file),
		cmocka_unit_test(test_memory_file_keeps_its_size),
		cmocka_unit_test(test_eventfd_is_told_without_proc),
		cmocka_unit_test(test_foreign_eventfd_never_waits),
		cmocka_unit_test(test_parallel_runs_side_by_side),
		cmocka_unit_test(test_parallel_runs_each_once),
		cmocka_unit_test(test_log_level),
	};

	return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
