/* SPDX-License-Identifier: MIT */
/* Peers that are none, that say too little, or that speak another version. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "migrate/frame.h"
#include "migrate/sides.h"

static int stranger(const char *path, const void *bytes, size_t size)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(send(fd, bytes, size, MSG_NOSIGNAL), size);
	return fd;
}

static void test_strangers_do_not_kill_a_migration(void **state)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .index = 5,
				  .arg = QSC_FRAME_VERSION,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 4};
	uint8_t header[QSC_FRAME_SIZE];
	struct fixture f;
	int fds[40];
	uint32_t i;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	hello.digest = qsc_frame_digest(&hello, NULL);
	qsc_frame_encode(&hello, header);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++) {
		if (i % 8 == 0)
			fds[i] = stranger(f.path, "GET / HTTP/1.1\r\nHost: example.org\r\n\r\n...",
					  41);
		else if (i % 8 == 1)
			fds[i] = stranger(f.path, header, sizeof(header));
		else if (i % 8 == 2)
			fds[i] = stranger(f.path, header, sizeof(header) - 1);
		else
			fds[i] = stranger(f.path, "", 0);
	}
	sides_migrate(&f);
	sides_expect_moved(&f);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		qsc_fd_close(&fds[i]);
	sides_drop(&f);
}

static int say_hello(const char *path, struct qsc_frame *hello)
{
	uint8_t header[QSC_FRAME_SIZE];

	hello->digest = qsc_frame_digest(hello, NULL);
	qsc_frame_encode(hello, header);
	return stranger(path, header, sizeof(header));
}

static int claim(const char *path, uint64_t id, uint32_t channels)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .arg = QSC_FRAME_VERSION,
				  .offset = id,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | channels};

	return say_hello(path, &hello);
}

static void expect_frame(int fd, uint32_t type, int number)
{
	uint8_t header[QSC_FRAME_SIZE];
	struct qsc_frame frame;

	assert_int_equal(recv(fd, header, sizeof(header), MSG_WAITALL), sizeof(header));
	assert_int_equal(qsc_frame_decode(header, &frame, false), 0);
	assert_int_equal(frame.type, type);
	assert_int_equal(frame.arg, number);
}

static void test_silent_claims_do_not_keep_the_source_away(void **state)
{
	struct fixture f;
	int fds[20];
	uint32_t i;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	/* More than are remembered, and one that repeats itself. */
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		fds[i] = claim(f.path, i == 19 ? 18 : i, i % 2 ? 64 : 2);
	sides_migrate(&f);
	sides_expect_moved(&f);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		qsc_fd_close(&fds[i]);
	sides_drop(&f);
}

static void test_a_source_that_does_not_connect_fully_is_told(void **state)
{
	struct fixture f;
	int fd;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.stall_timeout_ms = 100;
	fd = claim(f.path, 7, 64);
	sides_run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_int_equal(f.sides[1].report.owner, QSC_OWNER_SOURCE);
	assert_non_null(strstr(f.sides[1].err.text, "1 of 64 connections"));
	assert_string_equal(f.sides[1].report.outcome,
			    "the migration failed and the source keeps the set; nothing here was "
			    "touched");
	expect_frame(fd, QSC_FRAME_ANSWER, ETIMEDOUT);
	qsc_fd_close(&fd);
	sides_drop(&f);
}

static void test_who_met_nobody_says_nothing_of_a_source(void **state)
{
	struct fixture f;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.wait_timeout_ms = 1;
	sides_run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_string_equal(f.sides[1].report.outcome,
			    "nothing was taken over, and whoever has the set keeps it; nothing "
			    "here was touched");
	sides_drop(&f);
}

static void test_other_version_is_told(void **state)
{
	struct qsc_frame hello = {.type = QSC_FRAME_HELLO,
				  .arg = 3U << 16,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 1};
	struct fixture f;
	int fd;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	f.sides[1].options.wait_timeout_ms = 500;
	fd = say_hello(f.path, &hello);
	sides_run_destination(&f.sides[1]);
	assert_int_equal(f.sides[1].result, -ETIMEDOUT);
	assert_non_null(strstr(f.sides[1].err.text, "protocol 3.0 and this side 2.0"));
	expect_frame(fd, QSC_FRAME_FAILED, EPROTONOSUPPORT);
	qsc_fd_close(&fd);
	sides_drop(&f);
}

/* Until a set was offered, whoever comes and fails is told, goes, and takes nobody with it. */
static void test_the_wait_outlasts_those_that_are_no_source(void **state)
{
	struct qsc_frame newer = {.type = QSC_FRAME_HELLO,
				  .arg = 3U << 16,
				  .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 1};
	struct qsc_frame second = {.type = QSC_FRAME_HELLO,
				   .index = 1,
				   .arg = QSC_FRAME_VERSION,
				   .offset = 7,
				   .extent = (uint64_t)QSC_FRAME_MAGIC << 32 | 2};
	struct side *source;
	struct fixture f;
	pthread_t thread;
	int fds[5];
	uint32_t i;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	source = &f.sides[0];
	f.sides[1].options.stall_timeout_ms = 2000;
	f.sides[1].options.wait_timeout_ms = 60000;
	fds[0] = claim(f.path, 7, 2);
	assert_int_equal(pthread_create(&thread, NULL, sides_run_destination, &f.sides[1]), 0);
	fds[1] = say_hello(f.path, &newer);
	expect_frame(fds[1], QSC_FRAME_FAILED, EPROTONOSUPPORT);
	fds[2] = claim(f.path, 8, 1);
	assert_int_equal(shutdown(fds[2], SHUT_WR), 0);
	expect_frame(fds[2], QSC_FRAME_ANSWER, EPIPE);
	/* The first is still waited for, and offers nothing. */
	fds[3] = say_hello(f.path, &second);
	assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
	expect_frame(fds[0], QSC_FRAME_ANSWER, EPIPE);
	/* One that says nothing more has less time than the source, which comes behind it. */
	fds[4] = claim(f.path, 9, 1);
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	source->finished = true;
	assert_int_equal(pthread_join(thread, NULL), 0);
	sides_expect_moved(&f);
	for (i = 0; i < QSC_ARRAY_SIZE(fds); i++)
		qsc_fd_close(&fds[i]);
	sides_drop(&f);
}

/* A destination that answers a byte at a time, as many as the source waits for. */
struct dripper {
	int listener;
	size_t size;
	size_t given;
};

static void *drip(void *arg)
{
	struct dripper *dripper = arg;
	const struct qsc_frame frame = {
		.type = QSC_FRAME_FAILED, .arg = EIO, .size = QSC_FRAME_MAX_TEXT};
	uint8_t bytes[QSC_FRAME_SIZE + QSC_FRAME_MAX_TEXT] = {0};
	struct qsc_frame digested = frame;
	int fd = accept(dripper->listener, NULL, NULL);

	digested.digest = qsc_frame_digest(&frame, bytes + QSC_FRAME_SIZE);
	qsc_frame_encode(&digested, bytes);
	dripper->size = sizeof(bytes);
	while (dripper->given < dripper->size &&
	       send(fd, bytes + dripper->given, 1, MSG_NOSIGNAL) == 1) {
		dripper->given++;
		usleep(10000);
	}
	qsc_fd_close(&fd);
	return NULL;
}

static void test_a_source_does_not_wait_for_one_byte_after_the_other(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct dripper dripper = {.given = 0};
	struct side *source;
	struct fixture f;
	pthread_t thread;

	(void)state;
	sides_make(&f, sides_p2p_flags, true);
	source = &f.sides[0];
	/* In the place of the other side. */
	assert_int_equal(unlink(f.path), 0);
	dripper.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", f.path);
	assert_int_equal(bind(dripper.listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(dripper.listener, 8), 0);
	assert_int_equal(pthread_create(&thread, NULL, drip, &dripper), 0);
	source->options.stall_timeout_ms = 500;
	source->result = qsc_migrate_send(source->set, &source->user, source->transport,
					  &source->options, &source->report, &source->err);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_in_range(dripper.given, 1, dripper.size - 1);
	assert_int_equal(source->result, -ETIMEDOUT);
	assert_int_equal(source->report.owner, QSC_OWNER_SOURCE);
	sides_all_in(source, QSC_STATE_RUNNING);
	qsc_fd_close(&dripper.listener);
	sides_drop(&f);
}

static void test_listener_replaces_stale_but_not_live_socket(void **state)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport;
	struct stat info;
	char path[64];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)state;
	(void)snprintf(path, sizeof(path), "/tmp/quiesce-stale-test-%d", getpid());
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(qsc_transport_unix_listen(path, &transport, &err), -EADDRINUSE);
	qsc_fd_close(&fd);
	assert_int_equal(qsc_transport_unix_listen(path, &transport, &err), 0);
	assert_int_equal(stat(path, &info), 0);
	assert_int_equal(info.st_mode & 0077, 0);
	qsc_transport_close(transport);
	assert_int_equal(stat(path, &info), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_strangers_do_not_kill_a_migration),
		cmocka_unit_test(test_silent_claims_do_not_keep_the_source_away),
		cmocka_unit_test(test_a_source_that_does_not_connect_fully_is_told),
		cmocka_unit_test(test_who_met_nobody_says_nothing_of_a_source),
		cmocka_unit_test(test_other_version_is_told),
		cmocka_unit_test(test_the_wait_outlasts_those_that_are_no_source),
		cmocka_unit_test(test_a_source_does_not_wait_for_one_byte_after_the_other),
		cmocka_unit_test(test_listener_replaces_stale_but_not_live_socket),
	};

	return cmocka_run_group_tests_name("stranger", tests, NULL, NULL);
}
