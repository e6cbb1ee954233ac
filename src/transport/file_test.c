/* SPDX-License-Identifier: MIT */
/* Unit tests of files and pipes that hold a set: what is written is read, anything else is not. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <xxhash.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define MIB	    (1UL << 20)
#define PATIENCE_MS 20000U
#define HEAD	    16U
#define TAIL	    32U

static char folder[64];
static uint8_t content[3 * MIB + 12345];

/* ---- help ---- */

static const char *at(const char *name)
{
	static char paths[4][128];
	static unsigned int next;
	char *path = paths[next++ % 4];

	(void)snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static const char *uri(const char *name)
{
	static char text[160];

	(void)snprintf(text, sizeof(text), "file:%s", at(name));
	return text;
}

static const char *fd_uri(int fd)
{
	static char text[32];

	(void)snprintf(text, sizeof(text), "fd:%d", fd);
	return text;
}

static int count_files(void)
{
	char command[128];
	int count = 0;
	FILE *out;

	(void)snprintf(command, sizeof(command), "ls -A '%s' | wc -l", folder);
	out = popen(command, "r");
	assert_non_null(out);
	assert_int_equal(fscanf(out, "%d", &count), 1);
	(void)pclose(out);
	return count;
}

static struct qsc_channel *open_channel(const char *what, enum qsc_transport_role role,
					const struct qsc_transport_options *options)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport;
	struct qsc_channel *ch = NULL;
	int result = qsc_transport_open(what, role, options, &transport, &err);

	if (result < 0)
		fail_msg("%s: %s", what, err.text);
	assert_int_equal(transport->ops->max_channels, 1);
	do
		result = transport->ops->open(transport, PATIENCE_MS, &ch, &err);
	while (result == -EINPROGRESS);
	if (result < 0)
		fail_msg("%s: %s", what, err.text);
	assert_int_equal(transport->ops->open(transport, PATIENCE_MS, &ch, &err), -EBUSY);
	/* The channel outlives it. */
	qsc_transport_close(transport);
	return ch;
}

static int send_bytes(struct qsc_channel *ch, const void *bytes, size_t size)
{
	const struct iovec iov[2] = {{(void *)bytes, size / 3},
				     {(uint8_t *)bytes + size / 3, size - size / 3}};

	return ch->ops->send(ch, iov, 2);
}

static void save(const char *name, size_t size)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_channel *ch = open_channel(uri(name), QSC_TRANSPORT_SOURCE, NULL);

	assert_null(ch->ops->recv);
	ch->ops->set_limits(ch, PATIENCE_MS, 0);
	assert_int_equal(send_bytes(ch, content, size), 0);
	if (ch->ops->settle(ch, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(send_bytes(ch, content, 1), -EPIPE);
	ch->ops->close(ch);
}

static void expect_content(struct qsc_channel *ch, size_t size)
{
	uint8_t *buf = malloc(size + 1);
	size_t have = 0;
	size_t step = 1;

	assert_int_equal(send_bytes(ch, content, 40), 0);
	while (have < size) {
		size_t part = step < size - have ? step : size - have;

		assert_int_equal(ch->ops->recv(ch, buf + have, part), 0);
		have += part;
		step = step * 7 + 1;
	}
	assert_memory_equal(buf, content, size);
	assert_int_equal(ch->ops->recv(ch, buf, 1), -EPIPE);
	free(buf);
}

static void expect_refusal(const char *what, int number, const char *words)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport = NULL;
	struct qsc_channel *ch;
	int result = qsc_transport_open(what, QSC_TRANSPORT_DESTINATION, NULL, &transport, &err);

	if (result == 0) {
		do
			result = transport->ops->open(transport, PATIENCE_MS, &ch, &err);
		while (result == -EINPROGRESS);
	}
	if (result != -number || !strstr(err.text, words))
		fail_msg("%s: %d, '%s' without '%s'", what, result, err.text, words);
	qsc_transport_close(transport);
}

static void read_file(const char *name, uint8_t **bytes, size_t *size)
{
	int fd = open(at(name), O_RDONLY | O_CLOEXEC);
	struct stat info;

	assert_int_equal(fstat(fd, &info), 0);
	*size = (size_t)info.st_size;
	*bytes = malloc(*size + MIB);
	assert_int_equal(read(fd, *bytes, *size), info.st_size);
	qsc_fd_close(&fd);
}

static void write_file(const char *name, const uint8_t *bytes, size_t size)
{
	int fd = open(at(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_int_equal(write(fd, bytes, size), (ssize_t)size);
	qsc_fd_close(&fd);
}

static int setup(void **state)
{
	uint32_t x = 1;
	size_t i;

	(void)state;
	(void)snprintf(folder, sizeof(folder), "/tmp/quiesce-file-XXXXXX");
	for (i = 0; i < sizeof(content); i++) {
		x = x * 1664525 + 1013904223;
		content[i] = (uint8_t)(x >> 24);
	}
	return mkdtemp(folder) ? 0 : -1;
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	(void)snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

/* ---- files ---- */

static void test_what_is_saved_is_restored_once(void **state)
{
	static const size_t sizes[] = {
		0, 1, 40, MIB - HEAD - TAIL, MIB - HEAD, MIB - HEAD + 1, sizeof(content)};
	struct qsc_error err = QSC_ERROR_NONE;
	struct stat info;
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(sizes); i++) {
		struct qsc_channel *ch;

		save("set", sizes[i]);
		assert_int_equal(stat(at("set"), &info), 0);
		assert_int_equal(info.st_size, sizes[i] + HEAD + TAIL);
		assert_int_equal(info.st_mode & 0777, 0600);
		ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
		ch->ops->set_limits(ch, PATIENCE_MS, 0);
		expect_content(ch, sizes[i]);
		assert_int_equal(stat(at("set"), &info), 0);
		assert_int_equal(ch->ops->settle(ch, &err), 0);
		assert_int_equal(stat(at("set"), &info), -1);
		ch->ops->close(ch);
		assert_int_equal(count_files(), 1);
		expect_refusal(uri("set"), ENOENT, "cannot open");
		assert_int_equal(unlink(at("set.restored")), 0);
	}
}

static void test_format_is_as_documented(void **state)
{
	XXH128_hash_t hash;
	uint8_t *bytes;
	uint64_t n;
	size_t size;

	(void)state;
	save("set", 1000);
	read_file("set", &bytes, &size);
	assert_memory_equal(bytes, "QSCSAVE\0\1\0\0\0\0\0\0\0", HEAD);
	assert_memory_equal(bytes + HEAD, content, 1000);
	assert_memory_equal(bytes + HEAD + 1000, "QSCEND\0\0", 8);
	memcpy(&n, bytes + HEAD + 1008, 8);
	assert_int_equal(n, 1000);
	hash = XXH3_128bits(bytes, size - 16);
	assert_memory_equal(bytes + size - 16, &hash.low64, 8);
	assert_memory_equal(bytes + size - 8, &hash.high64, 8);
	free(bytes);
	assert_int_equal(unlink(at("set")), 0);
}

static void test_nothing_is_left_of_what_was_not_finished(void **state)
{
	struct qsc_transport *transport;
	struct qsc_channel *ch;

	(void)state;
	assert_int_equal(
		qsc_transport_open(uri("set"), QSC_TRANSPORT_SOURCE, NULL, &transport, NULL), 0);
	assert_int_equal(count_files(), 1);
	qsc_transport_close(transport);
	assert_int_equal(count_files(), 0);
	ch = open_channel(uri("set"), QSC_TRANSPORT_SOURCE, NULL);
	assert_int_equal(send_bytes(ch, content, MIB), 0);
	ch->ops->shutdown(ch);
	assert_int_equal(send_bytes(ch, content, 1), -EPIPE);
	assert_int_equal(ch->ops->settle(ch, NULL), -EPIPE);
	ch->ops->close(ch);
	assert_int_equal(count_files(), 0);
}

static void test_no_file_is_replaced(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport;
	struct qsc_channel *ch;
	uint8_t *bytes;
	size_t size;

	(void)state;
	write_file("set", content, 100);
	assert_int_equal(
		qsc_transport_open(uri("set"), QSC_TRANSPORT_SOURCE, NULL, &transport, &err),
		-EEXIST);
	assert_non_null(strstr(err.text, "exists and is not replaced"));
	/* Nor one that appears later. */
	assert_int_equal(unlink(at("set")), 0);
	ch = open_channel(uri("set"), QSC_TRANSPORT_SOURCE, NULL);
	write_file("set", content, 100);
	assert_int_equal(send_bytes(ch, content, 50), 0);
	assert_int_equal(ch->ops->settle(ch, &err), -EEXIST);
	ch->ops->close(ch);
	read_file("set", &bytes, &size);
	assert_int_equal(size, 100);
	assert_memory_equal(bytes, content, 100);
	free(bytes);
	assert_int_equal(count_files(), 1);
	assert_int_equal(unlink(at("set")), 0);
	/* The same holds for the name of one that was restored, at any time. */
	save("set", 100);
	write_file("set.restored", content, 1);
	expect_refusal(uri("set"), EEXIST, "set.restored exists beside");
	assert_int_equal(unlink(at("set.restored")), 0);
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	write_file("set.restored", content, 1);
	assert_int_equal(ch->ops->settle(ch, &err), -EEXIST);
	ch->ops->close(ch);
	assert_int_equal(count_files(), 2);
	assert_int_equal(unlink(at("set.restored")), 0);
	assert_int_equal(unlink(at("set")), 0);
}

static void test_a_full_disk_leaves_nothing(void **state)
{
	const struct rlimit small = {2 * MIB, RLIM_INFINITY};
	struct rlimit before;
	struct qsc_channel *ch;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	ch = open_channel(uri("set"), QSC_TRANSPORT_SOURCE, NULL);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	/* No signal ends the process either. */
	assert_int_equal(send_bytes(ch, content, sizeof(content)), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(send_bytes(ch, content, 1), -EFBIG);
	assert_int_equal(ch->ops->settle(ch, NULL), -EFBIG);
	ch->ops->close(ch);
	assert_int_equal(count_files(), 0);
}

/* ---- what is not whole ---- */

static void test_damaged_files_are_refused(void **state)
{
	const size_t sent = MIB + 4321;
	const size_t places[] = {0,
				 7,
				 8,
				 11,
				 12,
				 15,
				 HEAD,
				 HEAD + 1,
				 MIB - 1,
				 MIB,
				 MIB + 1,
				 HEAD + sent - 1,
				 HEAD + sent,
				 HEAD + sent + 7,
				 HEAD + sent + 8,
				 HEAD + sent + 15,
				 HEAD + sent + 16,
				 HEAD + sent + 24,
				 HEAD + sent + 31};
	const size_t lengths[] = {0,
				  1,
				  7,
				  8,
				  15,
				  16,
				  31,
				  47,
				  48,
				  HEAD + 100,
				  MIB,
				  MIB + 1,
				  HEAD + sent,
				  HEAD + sent + 16,
				  HEAD + sent + 31};
	uint8_t *bytes;
	size_t size;
	size_t i;

	(void)state;
	save("set", sent);
	read_file("set", &bytes, &size);
	for (i = 0; i < QSC_ARRAY_SIZE(places); i++) {
		bool major = places[i] >= 8 && places[i] < 12;

		bytes[places[i]] ^= 0x40;
		write_file("set", bytes, size);
		expect_refusal(uri("set"), major ? EPROTONOSUPPORT : EBADMSG, at("set"));
		bytes[places[i]] ^= 0x40;
	}
	for (i = 0; i < QSC_ARRAY_SIZE(lengths); i++) {
		write_file("set", bytes, lengths[i]);
		expect_refusal(uri("set"), EBADMSG, "set is not whole");
	}
	bytes[size] = 0;
	write_file("set", bytes, size + 1);
	expect_refusal(uri("set"), EBADMSG, "is not whole");
	/* Another one right behind it, tail and all. */
	memmove(bytes + size, bytes + size - 64, 64);
	write_file("set", bytes, size + 64);
	expect_refusal(uri("set"), EBADMSG, "is not whole");
	/* A piece in its middle is missing. */
	memmove(bytes + 5000, bytes + 6000, size - 6000);
	write_file("set", bytes, size - 1000);
	expect_refusal(uri("set"), EBADMSG, "is not whole");
	free(bytes);
	assert_int_equal(unlink(at("set")), 0);
}

/* A newer minor version is read, since what it adds can be done without. */
static void test_a_newer_minor_version_is_read(void **state)
{
	struct qsc_channel *ch;
	XXH128_hash_t hash;
	uint8_t *bytes;
	size_t size;

	(void)state;
	save("set", 100);
	read_file("set", &bytes, &size);
	bytes[12] = 9;
	hash = XXH3_128bits(bytes, size - 16);
	memcpy(bytes + size - 16, &hash.low64, 8);
	memcpy(bytes + size - 8, &hash.high64, 8);
	write_file("set", bytes, size);
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	expect_content(ch, 100);
	ch->ops->close(ch);
	bytes[8] = 2;
	write_file("set", bytes, size);
	expect_refusal(uri("set"), EPROTONOSUPPORT, "in format 2.9 and this program reads 1.0");
	free(bytes);
	assert_int_equal(unlink(at("set")), 0);
}

static void test_what_changes_after_the_check_is_found(void **state)
{
	static uint8_t buf[MIB];
	struct qsc_channel *ch;
	int fd;

	(void)state;
	save("set", sizeof(content));
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	assert_int_equal(ch->ops->recv(ch, buf, 100), 0);
	fd = open(at("set"), O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "x", 1, 2 * MIB + 77), 1);
	/* Not what has been read already, nor what has not changed. */
	assert_int_equal(ch->ops->recv(ch, buf, MIB), 0);
	assert_int_equal(ch->ops->recv(ch, buf, MIB), -EBADMSG);
	ch->ops->close(ch);
	assert_int_equal(unlink(at("set")), 0);
	qsc_fd_close(&fd);
	save("set", sizeof(content));
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	assert_int_equal(truncate(at("set"), MIB / 2), 0);
	assert_int_equal(ch->ops->recv(ch, buf, 100), -EBADMSG);
	ch->ops->close(ch);
	assert_int_equal(unlink(at("set")), 0);
}

static void test_only_one_restores_it(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_channel *ch;

	(void)state;
	save("set", 100);
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	expect_refusal(uri("set"), EBUSY, "is being restored by another process");
	/* Whoever takes it away meanwhile is not followed. */
	assert_int_equal(rename(at("set"), at("other")), 0);
	assert_int_equal(ch->ops->settle(ch, &err), -ENOENT);
	write_file("set", content, 5);
	assert_int_equal(ch->ops->settle(ch, &err), -ESTALE);
	ch->ops->close(ch);
	expect_refusal(uri("set"), EBADMSG, "holds no saved set");
	assert_int_equal(unlink(at("set")), 0);
	assert_int_equal(rename(at("other"), at("set")), 0);
	/* A failure lets go of it. */
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	ch->ops->shutdown(ch);
	assert_int_equal(ch->ops->recv(ch, &err, 1), -EPIPE);
	assert_int_equal(ch->ops->settle(ch, &err), -EPIPE);
	ch->ops->close(ch);
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	ch->ops->close(ch);
	assert_int_equal(unlink(at("set")), 0);
}

static void test_what_is_no_file_is_refused(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_transport *transport;

	(void)state;
	expect_refusal(uri("missing"), ENOENT, "/missing");
	expect_refusal(uri("missing/set"), ENOENT, "/missing/set");
	assert_int_equal(mkfifo(at("fifo"), 0600), 0);
	expect_refusal(uri("fifo"), EINVAL, "is given as fd:");
	assert_int_equal(unlink(at("fifo")), 0);
	assert_int_equal(mkdir(at("folder"), 0700), 0);
	expect_refusal(uri("folder"), EINVAL, "is no file");
	assert_int_equal(rmdir(at("folder")), 0);
	assert_int_equal(qsc_transport_open(uri("missing/set"), QSC_TRANSPORT_SOURCE, NULL,
					    &transport, &err),
			 -ENOENT);
	expect_refusal("fd:1000", EBADF, "no open file 1000");
}

/* ---- open files and pipes ---- */

struct writer {
	struct qsc_channel *ch;
	size_t size;
	int result;
};

static void *write_it(void *arg)
{
	struct writer *writer = arg;

	writer->result = send_bytes(writer->ch, content, writer->size);
	if (writer->result == 0)
		writer->result = writer->ch->ops->settle(writer->ch, NULL);
	writer->ch->ops->close(writer->ch);
	return NULL;
}

static void test_through_a_pipe(void **state)
{
	const struct qsc_transport_options options = {.spool_directory = folder};
	struct writer writer = {.size = sizeof(content)};
	struct qsc_channel *ch;
	pthread_t thread;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	writer.ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	qsc_fd_close(&fds[1]);
	assert_int_equal(pthread_create(&thread, NULL, write_it, &writer), 0);
	ch = open_channel(fd_uri(fds[0]), QSC_TRANSPORT_DESTINATION, &options);
	pthread_join(thread, NULL);
	assert_int_equal(writer.result, 0);
	expect_content(ch, writer.size);
	assert_int_equal(ch->ops->settle(ch, NULL), 0);
	ch->ops->close(ch);
	qsc_fd_close(&fds[0]);
	assert_int_equal(count_files(), 0);
}

static void test_pipe_that_ends_early_or_says_something_else(void **state)
{
	struct qsc_channel *ch;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	assert_int_equal(send_bytes(ch, content, 100), 0);
	ch->ops->close(ch);
	qsc_fd_close(&fds[1]);
	expect_refusal(fd_uri(fds[0]), EBADMSG, "is not whole");
	qsc_fd_close(&fds[0]);
	/* This one is refused at once, its end need not come. */
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(write(fds[1], content, 16), 16);
	expect_refusal(fd_uri(fds[0]), EBADMSG, "holds no saved set");
	expect_refusal(fd_uri(fds[1]), EINVAL, "is not open for reading");
	qsc_fd_close(&fds[0]);
	qsc_fd_close(&fds[1]);
}

static void test_pipe_limits_hold(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	const struct qsc_env *env = qsc_env_real();
	struct qsc_transport *transport;
	struct qsc_channel *ch;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	/* Nobody writes; something comes but not all. */
	assert_int_equal(qsc_transport_open(fd_uri(fds[0]), QSC_TRANSPORT_DESTINATION, NULL,
					    &transport, &err),
			 0);
	assert_int_equal(transport->ops->open(transport, 10, &ch, &err), -ETIMEDOUT);
	assert_int_equal(write(fds[1], "QSC", 3), 3);
	assert_int_equal(transport->ops->open(transport, 10, &ch, &err), -EINPROGRESS);
	assert_int_equal(transport->ops->open(transport, 10, &ch, &err), -ETIMEDOUT);
	qsc_transport_close(transport);
	/* Nobody reads. */
	ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	ch->ops->set_limits(ch, 20, 0);
	assert_int_equal(send_bytes(ch, content, sizeof(content)), -ETIMEDOUT);
	assert_int_equal(ch->ops->settle(ch, NULL), -ETIMEDOUT);
	ch->ops->close(ch);
	qsc_fd_close(&fds[0]);
	qsc_fd_close(&fds[1]);
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	ch->ops->set_limits(ch, 0, env->now_us(env->ctx) + 20000);
	assert_int_equal(send_bytes(ch, content, sizeof(content)), -ETIMEDOUT);
	ch->ops->close(ch);
	qsc_fd_close(&fds[0]);
	qsc_fd_close(&fds[1]);
	/* The reader goes: an error, no signal. */
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	qsc_fd_close(&fds[0]);
	assert_int_equal(send_bytes(ch, content, 100), -EPIPE);
	ch->ops->close(ch);
	qsc_fd_close(&fds[1]);
}

static void *cut_it(void *arg)
{
	struct qsc_channel *ch = arg;

	ch->ops->shutdown(ch);
	return NULL;
}

static void test_shutdown_wakes_who_writes_to_a_pipe(void **state)
{
	struct qsc_channel *ch;
	pthread_t thread;
	int fds[2];

	(void)state;
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	ch = open_channel(fd_uri(fds[1]), QSC_TRANSPORT_SOURCE, NULL);
	assert_int_equal(pthread_create(&thread, NULL, cut_it, ch), 0);
	assert_int_equal(send_bytes(ch, content, sizeof(content)), -EPIPE);
	pthread_join(thread, NULL);
	ch->ops->close(ch);
	qsc_fd_close(&fds[0]);
	qsc_fd_close(&fds[1]);
}

static void test_through_an_open_file(void **state)
{
	struct writer writer = {.size = 5000};
	struct qsc_channel *ch;
	uint8_t *bytes;
	size_t size;
	int fd;

	(void)state;
	/* Not at its beginning. */
	write_file("set", (const uint8_t *)"before", 6);
	fd = open(at("set"), O_RDWR | O_CLOEXEC);
	assert_int_equal(lseek(fd, 6, SEEK_SET), 6);
	writer.ch = open_channel(fd_uri(fd), QSC_TRANSPORT_SOURCE, NULL);
	write_it(&writer);
	assert_int_equal(writer.result, 0);
	assert_int_equal(lseek(fd, 6, SEEK_SET), 6);
	read_file("set", &bytes, &size);
	assert_int_equal(size, 6 + HEAD + writer.size + TAIL);
	assert_memory_equal(bytes + 6 + HEAD, content, writer.size);
	/* A file under its name only: from here it could be restored any number of times. */
	expect_refusal(fd_uri(fd), EINVAL, "give its path instead, so that");
	write_file("set", bytes + 6, size - 6);
	free(bytes);
	ch = open_channel(uri("set"), QSC_TRANSPORT_DESTINATION, NULL);
	expect_content(ch, writer.size);
	ch->ops->close(ch);
	qsc_fd_close(&fd);
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	expect_refusal(fd_uri(fd), EINVAL, "neither file nor pipe");
	qsc_fd_close(&fd);
	assert_int_equal(unlink(at("set")), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_saved_is_restored_once),
		cmocka_unit_test(test_format_is_as_documented),
		cmocka_unit_test(test_nothing_is_left_of_what_was_not_finished),
		cmocka_unit_test(test_no_file_is_replaced),
		cmocka_unit_test(test_a_full_disk_leaves_nothing),
		cmocka_unit_test(test_damaged_files_are_refused),
		cmocka_unit_test(test_a_newer_minor_version_is_read),
		cmocka_unit_test(test_what_changes_after_the_check_is_found),
		cmocka_unit_test(test_only_one_restores_it),
		cmocka_unit_test(test_what_is_no_file_is_refused),
		cmocka_unit_test(test_through_a_pipe),
		cmocka_unit_test(test_pipe_that_ends_early_or_says_something_else),
		cmocka_unit_test(test_pipe_limits_hold),
		cmocka_unit_test(test_shutdown_wakes_who_writes_to_a_pipe),
		cmocka_unit_test(test_through_an_open_file),
	};

	return cmocka_run_group_tests_name("file", tests, setup, teardown);
}
