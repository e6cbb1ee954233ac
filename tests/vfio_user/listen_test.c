/* SPDX-License-Identifier: MIT */
/* A server on a socket file: who gets in, who is told to wait, and how it ends. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "fake.h"
#include "raw.h"

#include <quiesce/client.h>
#include <quiesce/server.h>

struct listening {
	char dir[32];
	char path[64];
	char uri[80];
	struct fake *fake;
	struct qsc_server_options options;
	struct qsc_server *server;
	pthread_t thread;
};

static void *run(void *arg)
{
	struct listening *listening = arg;

	assert_int_equal(qsc_server_run(listening->server), 0);
	return NULL;
}

static void start(struct listening *at, const struct qsc_server_options *options)
{
	struct qsc_error err = QSC_ERROR_NONE;

	memset(at, 0, sizeof(*at));
	if (options)
		at->options = *options;
	strcpy(at->dir, "/tmp/qsc-test-XXXXXX");
	assert_non_null(mkdtemp(at->dir));
	(void)snprintf(at->path, sizeof(at->path), "%s/socket", at->dir);
	(void)snprintf(at->uri, sizeof(at->uri), "vfio-user:%s", at->path);
	assert_int_equal(fake_create(&at->fake), 0);
	at->options.open = fake_open;
	at->options.open_ctx = at->fake;
	if (qsc_server_create(at->path, &at->options, &at->server, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(pthread_create(&at->thread, NULL, run, at), 0);
}

static void finish(struct listening *at)
{
	struct stat st;

	pthread_join(at->thread, NULL);
	qsc_server_destroy(at->server);
	assert_int_equal(stat(at->path, &st), -1);
	rmdir(at->dir);
	fake_destroy(at->fake);
}

static void stop(struct listening *at)
{
	qsc_server_stop(at->server);
	finish(at);
}

static int connect_raw(const struct listening *at)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	memcpy(address.sun_path, at->path, sizeof(at->path));
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	return fd;
}

static struct qsc_device *open_client(const struct listening *at)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	if (qsc_client_open(at->uri, NULL, &dev, &err) < 0)
		fail_msg("%s", err.text);
	return dev;
}

static void test_one_user_at_a_time(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *first;
	struct qsc_device *second;
	struct listening at;
	uint32_t value;
	int i;

	start(&at, NULL);
	first = open_client(&at);
	assert_int_equal(qsc_client_open(at.uri, NULL, &second, &err), -EBUSY);
	assert_non_null(strstr(err.text, "another client holds the device"));
	assert_non_null(strstr(err.text, at.uri));
	assert_int_equal(qsc_device_region_read(first, 0, 0, &value, 4), 4);
	qsc_device_close(first);
	/* When close returns the device is free. */
	for (i = 0; i < 20; i++)
		qsc_device_close(open_client(&at));
	assert_int_equal(fake_get(at.fake, opens), 21);
	stop(&at);
}

/* Silent, halting and idle clients, more than there is room for, while another works. */
static void test_silent_clients_keep_nobody_out(void **state)
{
	struct qsc_server_options options = {.max_connections = 4};
	struct qsc_device *dev;
	struct listening at;
	uint32_t value;
	int fds[8];
	int i;

	start(&at, &options);
	for (i = 0; i < 8; i++) {
		fds[i] = connect_raw(&at);
		if (i & 1)
			assert_int_equal(send(fds[i], "\1", 1, MSG_NOSIGNAL), 1);
	}
	dev = open_client(&at);
	for (; i < 16; i++) {
		qsc_fd_close(&fds[i - 8]);
		fds[i - 8] = connect_raw(&at);
		assert_int_equal(qsc_device_region_read(dev, 0, 0, &value, 4), 4);
	}
	qsc_device_close(dev);
	for (i = 0; i < 8; i++)
		close(fds[i]);
	stop(&at);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * One who shakes hands at once is not thrown out by however many who come after. Where this test
 * itself was too slow for the time there is, it tells nothing, and tries again.
 */
static void test_flood_throws_nobody_out(void **state)
{
	struct qsc_server_options options = {.max_connections = 1};
	const uint32_t version = 0;
	static struct raw reply;
	struct listening at;
	bool told = false;
	int flood[40];
	size_t i;

	while (!told) {
		uint64_t begin;
		int result;
		int fd;

		start(&at, &options);
		begin = now_ms();
		fd = connect_raw(&at);
		for (i = 0; i < QSC_ARRAY_SIZE(flood); i++)
			flood[i] = connect_raw(&at);
		result = raw_request(fd, QSC_WIRE_VERSION, &version, 4, NULL, 0, &reply);
		told = now_ms() - begin < 90;
		if (told)
			assert_int_equal(result, 0);
		for (i = 0; i < QSC_ARRAY_SIZE(flood); i++)
			close(flood[i]);
		close(fd);
		stop(&at);
	}
}

static void test_once(void **state)
{
	struct qsc_server_options options = {.once = true};
	struct qsc_device *dev;
	struct listening at;
	int fd;

	start(&at, &options);
	/* One who never held the device does not end it. */
	fd = connect_raw(&at);
	assert_int_equal(send(fd, "0123456789012345", 16, MSG_NOSIGNAL), 16);
	close(fd);
	dev = open_client(&at);
	qsc_device_close(dev);
	finish(&at);
}

static void test_stop_ends_connections(void **state)
{
	struct qsc_device *dev;
	struct listening at;
	uint32_t value;

	start(&at, NULL);
	dev = open_client(&at);
	stop(&at);
	assert_int_equal(qsc_device_region_read(dev, 0, 0, &value, 4), -ENOTCONN);
	assert_int_equal(qsc_device_region_write(dev, 0, 0, &value, 4), -ENOTCONN);
	qsc_device_close(dev);
}

/* While the device waits for an answer of its client, which has all the time there is. */
static void test_stop_ends_dma(void **state)
{
	struct qsc_server_options options = {.reply_timeout_ms = 3600000};
	struct qsc_wire_dma_map map = {.argsz = 32, .flags = 3, .size = 4096};
	const uint32_t write[6] = {FAKE_KICK, 0, FAKE_REGISTERS, 8, 16, 0};
	static struct raw reply;
	int with_twin;

	for (with_twin = 0; with_twin < 2; with_twin++) {
		struct listening at;
		int twin = -1;
		int fd;

		start(&at, &options);
		fd = connect_raw(&at);
		raw_hello(fd, false, with_twin ? &twin : NULL);
		assert_int_equal(
			raw_request(fd, QSC_WIRE_DMA_MAP, &map, sizeof(map), NULL, 0, &reply), 0);
		raw_send(fd, 1, QSC_WIRE_REGION_WRITE, 0, write, sizeof(write), NULL, 0, 0);
		assert_int_equal(raw_receive(with_twin ? twin : fd, &reply, NULL, NULL), 1);
		assert_int_equal(reply.header.command, QSC_WIRE_DMA_READ);
		stop(&at);
		close(fd);
		qsc_fd_close(&twin);
	}
}

static void test_socket_files(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_server *other;
	struct listening at;
	char path[80];
	int fd;

	start(&at, NULL);
	assert_int_equal(qsc_server_create(at.path, &at.options, &other, &err), -EADDRINUSE);
	assert_non_null(strstr(err.text, at.path));
	assert_non_null(strstr(err.text, "another server listens"));
	/* Left by a dead server: made anew. */
	(void)snprintf(path, sizeof(path), "%s/stale", at.dir);
	{
		struct sockaddr_un address = {.sun_family = AF_UNIX};

		memcpy(address.sun_path, path, sizeof(path));
		fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
		close(fd);
	}
	assert_int_equal(qsc_server_create(path, &at.options, &other, &err), 0);
	qsc_server_destroy(other);
	/* No socket: not ours to remove. */
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	close(fd);
	assert_int_equal(qsc_server_create(path, &at.options, &other, &err), -ENOTSOCK);
	assert_non_null(strstr(err.text, "is no socket"));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(qsc_server_create("/nonexistent/dir/socket", &at.options, &other, &err),
			 -ENOENT);
	assert_int_equal(qsc_server_create("", &at.options, &other, &err), -EINVAL);
	at.options.max_data_xfer_size = 1;
	assert_int_equal(qsc_server_create(path, &at.options, &other, &err), -EINVAL);
	assert_non_null(strstr(err.text, "max_data_xfer_size"));
	stop(&at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_user_at_a_time),
		cmocka_unit_test(test_silent_clients_keep_nobody_out),
		cmocka_unit_test(test_flood_throws_nobody_out),
		cmocka_unit_test(test_once),
		cmocka_unit_test(test_stop_ends_connections),
		cmocka_unit_test(test_stop_ends_dma),
		cmocka_unit_test(test_socket_files),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
