/* SPDX-License-Identifier: MIT */
/*
 * Unit tests of the transports over sockets; each test goes through UNIX, TCP and both kinds of
 * TLS. Whoever connects and is no source, or a slow one, must not matter to anybody.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/transport.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "transport/pki_test.h"
#include "transport/tls_internal.h"

#define PATIENCE_MS 20000U
#define FIRST	    QSC_CHANNEL_FIRST_BYTES

enum kind { UNIX, TCP, TLS_X509, TLS_PSK, KINDS };

static struct pki pki;
static struct qsc_transport_options options[KINDS][2];

struct pair {
	enum kind kind;
	char uri[160]; /* for a source */
	struct qsc_transport *ends[2];
	struct qsc_channel *ch[2];
	struct qsc_error err;
	int result;
};

static void listen_at(struct pair *pair, enum kind kind)
{
	static const char *const schemes[] = {"unix", "tcp", "tls", "tls"};
	char address[64];

	memset(pair, 0, sizeof(*pair));
	pair->kind = kind;
	if (kind == UNIX)
		(void)snprintf(pair->uri, sizeof(pair->uri), "unix:%s", pki_path(&pki, "socket"));
	else
		(void)snprintf(pair->uri, sizeof(pair->uri), "%s:127.0.0.1:0", schemes[kind]);
	if (qsc_transport_open(pair->uri, QSC_TRANSPORT_DESTINATION, &options[kind][1],
			       &pair->ends[1], &pair->err) < 0)
		fail_msg("%s", pair->err.text);
	if (kind != UNIX) {
		assert_int_equal(qsc_transport_address(pair->ends[1], address, sizeof(address)), 0);
		(void)snprintf(pair->uri, sizeof(pair->uri), "%s:%s", schemes[kind], address);
	}
	assert_int_equal(qsc_transport_open(pair->uri, QSC_TRANSPORT_SOURCE, &options[kind][0],
					    &pair->ends[0], &pair->err),
			 0);
}

static void hang_up(struct pair *pair)
{
	int i;

	for (i = 0; i < 2; i++) {
		if (pair->ch[i])
			pair->ch[i]->ops->close(pair->ch[i]);
		pair->ch[i] = NULL;
	}
}

static void drop(struct pair *pair)
{
	hang_up(pair);
	qsc_transport_close(pair->ends[0]);
	qsc_transport_close(pair->ends[1]);
}

static int send_bytes(struct qsc_channel *ch, const void *bytes, size_t size)
{
	const struct iovec iov[3] = {{(void *)bytes, size / 3},
				     {(void *)bytes, 0},
				     {(uint8_t *)bytes + size / 3, size - size / 3}};

	return ch->ops->send(ch, iov, 3);
}

static void *connect_it(void *arg)
{
	static const uint8_t first[FIRST] = "first";
	struct pair *pair = arg;

	pair->result = pair->ends[0]->ops->open(pair->ends[0], PATIENCE_MS, &pair->ch[0],
						&pair->err);
	if (pair->result == 0)
		pair->result = send_bytes(pair->ch[0], first, sizeof(first));
	return NULL;
}

/* One more channel; the first bytes have been received. */
static void meet(struct pair *pair)
{
	struct qsc_error err = QSC_ERROR_NONE;
	char first[FIRST];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, connect_it, pair), 0);
	if (pair->ends[1]->ops->open(pair->ends[1], PATIENCE_MS, &pair->ch[1], &err) < 0)
		fail_msg("%s", err.text);
	pthread_join(thread, NULL);
	if (pair->result < 0)
		fail_msg("%s", pair->err.text);
	assert_int_equal(pair->ch[1]->ops->recv(pair->ch[1], first, sizeof(first)), 0);
	assert_string_equal(first, "first");
}

/* A connection that knows nothing of transports. */
static int raw_connect(const struct pair *pair)
{
	struct sockaddr_un local = {.sun_family = AF_UNIX};
	struct sockaddr_in inet = {.sin_family = AF_INET};
	int fd = socket(pair->kind == UNIX ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	if (pair->kind == UNIX) {
		(void)snprintf(local.sun_path, sizeof(local.sun_path), "%s", pair->uri + 5);
		assert_int_equal(connect(fd, (struct sockaddr *)&local, sizeof(local)), 0);
	} else {
		inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		inet.sin_port = htons((uint16_t)atoi(strrchr(pair->uri, ':') + 1));
		assert_int_equal(connect(fd, (struct sockaddr *)&inet, sizeof(inet)), 0);
	}
	return fd;
}

/* ---- bytes ---- */

#define AMOUNT (6U << 20)

struct stream {
	struct qsc_channel *ch;
	uint8_t seed;
	int result;
};

static void *send_stream(void *arg)
{
	struct stream *stream = arg;
	uint8_t *bytes = malloc(AMOUNT);
	size_t sent = 0;
	size_t part = 1;
	size_t i;

	for (i = 0; i < AMOUNT; i++)
		bytes[i] = (uint8_t)(i * 31 / 7 + stream->seed);
	while (sent < AMOUNT && stream->result == 0) {
		part = (part * 5 + 3) % 1000003;
		if (part > AMOUNT - sent)
			part = AMOUNT - sent;
		stream->result = send_bytes(stream->ch, bytes + sent, part);
		sent += part;
	}
	free(bytes);
	return NULL;
}

static void *receive_stream(void *arg)
{
	struct stream *stream = arg;
	uint8_t *bytes = malloc(AMOUNT);
	size_t have = 0;
	size_t part = 7;
	size_t i;

	while (have < AMOUNT && stream->result == 0) {
		part = (part * 3 + 1) % 300007;
		if (part > AMOUNT - have)
			part = AMOUNT - have;
		stream->result = stream->ch->ops->recv(stream->ch, bytes + have, part);
		have += part;
	}
	for (i = 0; i < AMOUNT && stream->result == 0; i++)
		if (bytes[i] != (uint8_t)(i * 31 / 7 + stream->seed))
			stream->result = -EILSEQ;
	free(bytes);
	return NULL;
}

/* Keys are replaced while both directions are busy, which nobody must notice. */
static void replace_keys(struct pair *pair)
{
	struct qsc_tls_socket *tls = (struct qsc_tls_socket *)pair->ch[0];

	pthread_mutex_lock(&tls->lock);
	assert_int_equal(gnutls_session_key_update(tls->session, GNUTLS_KU_PEER), 0);
	pthread_mutex_unlock(&tls->lock);
}

static void test_carries_bytes_both_ways_at_once(void **state)
{
	enum kind kind;

	(void)state;
	for (kind = UNIX; kind < KINDS; kind++) {
		struct stream streams[4];
		struct pair pair;
		pthread_t threads[4];
		int i;

		listen_at(&pair, kind);
		meet(&pair);
		for (i = 0; i < 4; i++) {
			/* 0 sends to 1, 2 sends to 3. */
			streams[i] = (struct stream){pair.ch[i == 1 || i == 2], (uint8_t)(i / 2),
						     0};
			assert_int_equal(pthread_create(&threads[i], NULL,
							i % 2 ? receive_stream : send_stream,
							&streams[i]),
					 0);
		}
		if (kind >= TLS_X509)
			replace_keys(&pair);
		for (i = 0; i < 4; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(streams[i].result, 0);
		}
		drop(&pair);
	}
}

static void test_channels_are_as_many_as_one_likes_and_outlive_the_transport(void **state)
{
	enum { COUNT = 9 };
	enum kind kind;

	(void)state;
	for (kind = UNIX; kind < KINDS; kind++) {
		struct qsc_channel *channels[COUNT][2];
		struct pair pair;
		uint32_t number;
		uint32_t i;

		listen_at(&pair, kind);
		assert_int_equal(pair.ends[0]->ops->max_channels, 0);
		for (i = 0; i < COUNT; i++) {
			meet(&pair);
			memcpy(channels[i], pair.ch, sizeof(pair.ch));
			memset(pair.ch, 0, sizeof(pair.ch));
		}
		drop(&pair);
		for (i = COUNT; i-- > 0;)
			assert_int_equal(send_bytes(channels[i][i % 2], &i, sizeof(i)), 0);
		for (i = 0; i < COUNT; i++) {
			struct qsc_channel *to = channels[i][1 - i % 2];

			assert_int_equal(to->ops->recv(to, &number, sizeof(number)), 0);
			assert_int_equal(number, i);
			channels[i][0]->ops->close(channels[i][0]);
			assert_int_equal(channels[i][1]->ops->recv(channels[i][1], &number, 1),
					 -EPIPE);
			channels[i][1]->ops->close(channels[i][1]);
		}
	}
}

/* ---- strangers ---- */

static void test_silent_strangers_delay_nobody(void **state)
{
	enum { COUNT = 40 };
	enum kind kind;

	(void)state;
	for (kind = UNIX; kind < KINDS; kind++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct pair pair;
		int strangers[COUNT];
		char byte;
		int i;

		listen_at(&pair, kind);
		for (i = 0; i < COUNT; i++) {
			strangers[i] = raw_connect(&pair);
			/* Some begin as TLS does, some say almost enough. */
			if (i % 3)
				assert_true(send(strangers[i], "\26\3\1\2", (size_t)(i % 3 * 2),
						 0) > 0);
		}
		meet(&pair);
		assert_int_equal(pair.ends[1]->ops->open(pair.ends[1], 1, &pair.ch[1], &err),
				 -ETIMEDOUT);
		/* The oldest gave way to those that came later. */
		assert_int_equal(recv(strangers[0], &byte, 1, 0) > 0, 0);
		assert_int_equal(recv(strangers[COUNT - 1], &byte, 1, MSG_DONTWAIT), -1);
		assert_int_equal(errno, EAGAIN);
		for (i = 0; i < COUNT; i++)
			qsc_fd_close(&strangers[i]);
		hang_up(&pair);
		meet(&pair);
		drop(&pair);
	}
}

struct dribbler {
	int from;
	int to;
};

/* Hands on what comes byte by byte. */
static void *dribble(void *arg)
{
	const struct dribbler *dribbler = arg;
	char byte;

	while (recv(dribbler->from, &byte, 1, 0) == 1)
		if (send(dribbler->to, &byte, 1, MSG_NOSIGNAL) != 1)
			break;
	shutdown(dribbler->to, SHUT_WR);
	return NULL;
}

static void *serve_dribbling(void *arg)
{
	int *fds = arg; /* listening, then towards the destination */
	int in = accept4(fds[0], NULL, NULL, SOCK_CLOEXEC);
	struct dribbler there = {in, fds[1]};
	struct dribbler back = {fds[1], in};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, dribble, &back), 0);
	(void)dribble(&there);
	pthread_join(thread, NULL);
	qsc_fd_close(&in);
	return NULL;
}

/* The source's connection leads through somebody who hands on single bytes. */
static void test_single_bytes_are_enough(void **state)
{
	const int one = 1;
	enum kind kind;

	(void)state;
	for (kind = TCP; kind < KINDS; kind++) {
		struct sockaddr_in address = {.sin_family = AF_INET,
					      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		socklen_t size = sizeof(address);
		struct pair pair;
		pthread_t thread;
		char uri[64];
		int fds[2];

		listen_at(&pair, kind);
		fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		fds[1] = raw_connect(&pair);
		(void)setsockopt(fds[1], IPPROTO_TCP, 1 /* TCP_NODELAY */, &one, sizeof(one));
		assert_int_equal(bind(fds[0], (struct sockaddr *)&address, size), 0);
		assert_int_equal(listen(fds[0], 1), 0);
		assert_int_equal(getsockname(fds[0], (struct sockaddr *)&address, &size), 0);
		qsc_transport_close(pair.ends[0]);
		(void)snprintf(uri, sizeof(uri), "%s:127.0.0.1:%u", kind == TCP ? "tcp" : "tls",
			       ntohs(address.sin_port));
		assert_int_equal(qsc_transport_open(uri, QSC_TRANSPORT_SOURCE, &options[kind][0],
						    &pair.ends[0], NULL),
				 0);
		assert_int_equal(pthread_create(&thread, NULL, serve_dribbling, fds), 0);
		meet(&pair);
		drop(&pair);
		pthread_join(thread, NULL);
		qsc_fd_close(&fds[0]);
		qsc_fd_close(&fds[1]);
	}
}

static void test_no_descriptors_left_is_an_error_and_no_spinning(void **state)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct rlimit before;
	struct rlimit none;
	struct pair pair;
	int fd;

	(void)state;
	listen_at(&pair, TCP);
	fd = raw_connect(&pair);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	none = before;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	assert_int_equal(pair.ends[1]->ops->open(pair.ends[1], PATIENCE_MS, &pair.ch[1], &err),
			 -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	meet(&pair);
	qsc_fd_close(&fd);
	drop(&pair);
}

/* ---- limits ---- */

static void test_limits_hold_in_every_wait(void **state)
{
	const struct qsc_env *env = qsc_env_real();
	static uint8_t much[32 << 20];
	enum kind kind;
	int side;

	(void)state;
	for (kind = UNIX; kind < KINDS; kind++)
		for (side = 0; side < 4; side++) {
			struct qsc_channel *ch;
			struct pair pair;

			listen_at(&pair, kind);
			meet(&pair);
			ch = pair.ch[side % 2];
			ch->ops->set_limits(ch, side < 2 ? 20 : 0,
					    side < 2 ? 0 : env->now_us(env->ctx) + 20000);
			assert_int_equal(ch->ops->recv(ch, much, 1), -ETIMEDOUT);
			assert_int_equal(send_bytes(ch, much, sizeof(much)), -ETIMEDOUT);
			drop(&pair);
		}
}

/* A socket that says it is ready, and then neither gives nor takes anything. */

static ssize_t give_nothing(struct qsc_socket *socket, void *buf, size_t size)
{
	(void)socket;
	(void)buf;
	(void)size;
	return -EAGAIN;
}

static ssize_t take_nothing(struct qsc_socket *socket, const struct iovec *iov, int iovcnt)
{
	(void)socket;
	(void)iov;
	(void)iovcnt;
	return -EAGAIN;
}

static int greet_nobody(struct qsc_socket *socket, struct qsc_error *err)
{
	(void)socket;
	(void)err;
	return -EAGAIN;
}

static void test_ready_without_bytes_is_a_stall(void **state)
{
	static const struct qsc_socket_io nothing = {
		.greet = greet_nobody, .read = give_nothing, .write = take_nothing};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_socket *socket;
	uint8_t byte = 0;
	int fds[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(write(fds[1], &byte, 1), 1);
	socket = qsc_socket_create(fds[0]);
	assert_non_null(socket);
	socket->io = &nothing;
	/* Only the stall limit ends these: there is no deadline. */
	socket->base.ops->set_limits(&socket->base, 20, 0);
	assert_int_equal(socket->base.ops->recv(&socket->base, &byte, 1), -ETIMEDOUT);
	assert_int_equal(send_bytes(&socket->base, &byte, 1), -ETIMEDOUT);
	socket->greeted = false;
	assert_int_equal(qsc_socket_greet(socket, &err), -ETIMEDOUT);
	assert_string_equal(err.text, "it does not answer");
	qsc_socket_close(socket);
	qsc_fd_close(&fds[1]);
}

#define SLOW_BYTES    (768U << 10)
#define SLOW_STALL_MS 400U
#define SLOW_TRIES    10

/* The longest that the test itself has taken nothing for. */
struct pauses {
	uint64_t last_us;
	uint64_t longest_us;
};

static void took_some(struct pauses *pauses)
{
	uint64_t now_us = qsc_env_real()->now_us(NULL);

	if (pauses->last_us && now_us - pauses->last_us > pauses->longest_us)
		pauses->longest_us = now_us - pauses->last_us;
	pauses->last_us = now_us;
}

static void *send_it_all(void *arg)
{
	static const uint8_t bytes[SLOW_BYTES];
	struct pair *pair = arg;

	/* The buffer takes no more until most of it is free, which takes longer than this. */
	pair->ch[0]->ops->set_limits(pair->ch[0], SLOW_STALL_MS, 0);
	pair->result = send_bytes(pair->ch[0], bytes, sizeof(bytes));
	return NULL;
}

/* False where this test was the one that stalled. */
static bool receive_slowly(void)
{
	static uint8_t bytes[8 << 10];
	struct pauses pauses = {.last_us = 0};
	const int room = 256 << 10;
	struct pair pair;
	pthread_t thread;
	bool proves;
	size_t have;

	listen_at(&pair, UNIX);
	meet(&pair);
	assert_int_equal(setsockopt(((struct qsc_socket *)pair.ch[0])->fd, SOL_SOCKET, SO_SNDBUF,
				    &room, sizeof(room)),
			 0);
	pair.ch[1]->ops->set_limits(pair.ch[1], PATIENCE_MS, 0);
	assert_int_equal(pthread_create(&thread, NULL, send_it_all, &pair), 0);
	for (have = 0; have < SLOW_BYTES; have += sizeof(bytes)) {
		/* A slow link. */
		usleep(30000);
		if (pair.ch[1]->ops->recv(pair.ch[1], bytes, sizeof(bytes)) < 0)
			break;
		took_some(&pauses);
	}
	took_some(&pauses);
	pthread_join(thread, NULL);
	proves = pauses.longest_us < SLOW_STALL_MS * 1000ULL / 2;
	assert_true(!proves || pair.result == 0);
	assert_true(!proves || have == SLOW_BYTES);
	drop(&pair);
	return proves;
}

static void test_slow_is_no_stall(void **state)
{
	int tries;

	(void)state;
	for (tries = 0; tries < SLOW_TRIES && !receive_slowly(); tries++)
		;
	assert_true(tries < SLOW_TRIES);
}

/* As long as somebody takes it, it may take for ever. False as above. */
static bool send_slowly(void)
{
	static uint8_t bytes[4096];
	struct pauses pauses = {.last_us = 0};
	struct pair pair;
	int result = 0;
	bool proves;
	size_t sent;

	listen_at(&pair, UNIX);
	meet(&pair);
	pair.ch[0]->ops->set_limits(pair.ch[0], SLOW_STALL_MS, 0);
	pair.ch[1]->ops->set_limits(pair.ch[1], PATIENCE_MS, 0);
	for (sent = 0; sent < 512 << 10 && result == 0; sent += sizeof(bytes)) {
		uint8_t taken[sizeof(bytes)];

		result = send_bytes(pair.ch[0], bytes, sizeof(bytes));
		if (result == 0 && sent >= sizeof(bytes))
			result = pair.ch[1]->ops->recv(pair.ch[1], taken, sizeof(taken));
		took_some(&pauses);
		usleep(5000);
	}
	took_some(&pauses);
	proves = pauses.longest_us < SLOW_STALL_MS * 1000ULL / 2;
	assert_true(!proves || result == 0);
	drop(&pair);
	return proves;
}

/* The kernel has room for all of it, and nobody takes any. */
static void test_what_never_arrives_is_a_stall(void **state)
{
	static const uint8_t bytes[4096];
	const uint32_t stall_ms = 50;
	struct pair pair;
	int result = 0;
	int tries;
	size_t sent;

	(void)state;
	listen_at(&pair, UNIX);
	meet(&pair);
	pair.ch[0]->ops->set_limits(pair.ch[0], stall_ms, 0);
	/* As slow as a low limit on bandwidth makes it. */
	for (sent = 0; sent < 512 << 10 && result == 0; sent += sizeof(bytes)) {
		usleep(5000);
		result = send_bytes(pair.ch[0], bytes, sizeof(bytes));
	}
	assert_int_equal(result, -ETIMEDOUT);
	drop(&pair);
	for (tries = 0; tries < SLOW_TRIES && !send_slowly(); tries++)
		;
	assert_true(tries < SLOW_TRIES);
}

/* What stands at the path and is no socket left behind is not replaced, and is named. */
static void test_a_path_that_is_taken_is_left_alone(void **state)
{
	struct qsc_transport *transport = NULL;
	struct qsc_error err = QSC_ERROR_NONE;
	struct stat st;
	char uri[160];
	struct pair pair;
	FILE *file;

	(void)state;
	file = fopen(pki_path(&pki, "taken"), "w");
	assert_non_null(file);
	(void)fclose(file);
	(void)snprintf(uri, sizeof(uri), "unix:%s", pki_path(&pki, "taken"));
	assert_int_equal(qsc_transport_open(uri, QSC_TRANSPORT_DESTINATION, &options[UNIX][1],
					    &transport, &err),
			 -ENOTSOCK);
	assert_non_null(strstr(err.text, "taken exists and is no socket"));
	assert_int_equal(stat(pki_path(&pki, "taken"), &st), 0);
	assert_true(S_ISREG(st.st_mode));
	assert_int_equal(unlink(pki_path(&pki, "taken")), 0);
	listen_at(&pair, UNIX);
	assert_int_equal(qsc_transport_open(pair.uri, QSC_TRANSPORT_DESTINATION, &options[UNIX][1],
					    &transport, &err),
			 -EADDRINUSE);
	assert_non_null(strstr(err.text, "somebody else listens at "));
	meet(&pair);
	drop(&pair);
}

static void test_source_waits_no_longer_than_it_was_told(void **state)
{
	enum kind kind;

	(void)state;
	for (kind = TLS_X509; kind < KINDS; kind++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct pair pair;

		/* It listens, but nobody is there to shake hands. */
		listen_at(&pair, kind);
		assert_int_equal(pair.ends[0]->ops->open(pair.ends[0], 20, &pair.ch[0], &err),
				 -ETIMEDOUT);
		assert_non_null(strstr(err.text, "it does not answer"));
		drop(&pair);
	}
}

struct cut {
	struct qsc_channel *ch;
	bool sends;
	int result;
};

static void *wait_until_cut(void *arg)
{
	static uint8_t bytes[1 << 20];
	struct cut *cut = arg;
	uint8_t byte;

	do
		cut->result = cut->sends ? send_bytes(cut->ch, bytes, sizeof(bytes))
					 : cut->ch->ops->recv(cut->ch, &byte, 1);
	while (cut->result == 0);
	return NULL;
}

static void test_shutdown_wakes_both(void **state)
{
	enum kind kind;

	(void)state;
	for (kind = UNIX; kind < KINDS; kind++) {
		struct pair pair;
		struct cut cuts[2];
		pthread_t threads[2];
		int i;

		listen_at(&pair, kind);
		meet(&pair);
		for (i = 0; i < 2; i++) {
			cuts[i] = (struct cut){pair.ch[0], i == 0, 0};
			assert_int_equal(
				pthread_create(&threads[i], NULL, wait_until_cut, &cuts[i]), 0);
		}
		pair.ch[0]->ops->shutdown(pair.ch[0]);
		for (i = 0; i < 2; i++) {
			pthread_join(threads[i], NULL);
			assert_int_equal(cuts[i].result, -EPIPE);
		}
		drop(&pair);
	}
}

/* ---- TLS and who does not speak it ---- */

static void test_what_was_altered_or_cut_off_is_found(void **state)
{
	enum kind kind;

	(void)state;
	for (kind = TLS_X509; kind < KINDS; kind++) {
		static const char garbage[] = "\27\3\3\0\40 this was never encrypted by anybody";
		struct qsc_socket *socket;
		struct pair pair;
		uint8_t byte;

		listen_at(&pair, kind);
		meet(&pair);
		socket = (struct qsc_socket *)pair.ch[0];
		assert_true(send(socket->fd, garbage, sizeof(garbage), 0) > 0);
		assert_int_equal(pair.ch[1]->ops->recv(pair.ch[1], &byte, 1), -EBADMSG);
		hang_up(&pair);
		meet(&pair);
		/* The end of the connection is not the end of what was said. */
		assert_int_equal(send_bytes(pair.ch[0], "x", 1), 0);
		pair.ch[0]->ops->shutdown(pair.ch[0]);
		assert_int_equal(pair.ch[1]->ops->recv(pair.ch[1], &byte, 1), 0);
		assert_int_equal(pair.ch[1]->ops->recv(pair.ch[1], &byte, 1), -EPIPE);
		drop(&pair);
	}
}

static void test_destination_names_who_does_not_speak_tls(void **state)
{
	static const char *const said[] = {"GET / HTTP/1.1\r\nHost: here\r\n\r\n",
					   "\1\0\0\0 this could be a migration in plain bytes",
					   "\26\3\1\0\5\16\0\0\1x"};
	size_t i;

	(void)state;
	for (i = 0; i < QSC_ARRAY_SIZE(said); i++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct pair pair;
		char byte;
		int fd;

		listen_at(&pair, TLS_X509);
		fd = raw_connect(&pair);
		assert_true(send(fd, said[i], i < 2 ? strlen(said[i]) : 10, 0) > 0);
		do
			assert_int_equal(
				pair.ends[1]->ops->open(pair.ends[1], 10, &pair.ch[1], &err),
				-ETIMEDOUT);
		while (!strstr(err.text, "127.0.0.1:") || !strstr(err.text, "refused: "));
		assert_non_null(strstr(err.text, i < 2 ? "it does not speak TLS"
						       : "the TLS handshake failed"));
		while (recv(fd, &byte, 1, 0) > 0)
			;
		qsc_fd_close(&fd);
		meet(&pair);
		drop(&pair);
	}
}

static void *answer_plainly(void *arg)
{
	static const char text[] = "220 mail.example ESMTP\r\n";
	int fd = accept4(*(int *)arg, NULL, NULL, SOCK_CLOEXEC);
	char byte;

	(void)send(fd, text, sizeof(text) - 1, MSG_NOSIGNAL);
	while (recv(fd, &byte, 1, 0) > 0)
		;
	qsc_fd_close(&fd);
	return NULL;
}

static void test_source_names_a_destination_that_does_not_speak_tls(void **state)
{
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct qsc_error err = QSC_ERROR_NONE;
	socklen_t size = sizeof(address);
	struct qsc_transport *transport;
	struct qsc_channel *ch;
	pthread_t thread;
	char uri[64];

	(void)state;
	assert_int_equal(bind(fd, (struct sockaddr *)&address, size), 0);
	assert_int_equal(listen(fd, 1), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	assert_int_equal(pthread_create(&thread, NULL, answer_plainly, &fd), 0);
	(void)snprintf(uri, sizeof(uri), "tls:127.0.0.1:%u", ntohs(address.sin_port));
	assert_int_equal(qsc_transport_open(uri, QSC_TRANSPORT_SOURCE, &options[TLS_X509][0],
					    &transport, &err),
			 0);
	assert_int_equal(transport->ops->open(transport, PATIENCE_MS, &ch, &err), -EPROTO);
	assert_non_null(strstr(err.text, "it does not speak TLS"));
	pthread_join(thread, NULL);
	qsc_fd_close(&fd);
	/* And then there is nobody at all. */
	assert_int_equal(transport->ops->open(transport, PATIENCE_MS, &ch, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.text, "is it waiting for a migration?"));
	qsc_transport_close(transport);
}

/* ---- */

static int setup(void **state)
{
	static char paths[6][128];
	static const char *const names[] = {"ca.pem",	       "source.pem",	  "source.key",
					    "destination.pem", "destination.key", "test.psk"};
	size_t i;

	(void)state;
	pki_make(&pki);
	for (i = 0; i < QSC_ARRAY_SIZE(names); i++)
		(void)snprintf(paths[i], sizeof(paths[i]), "%s", pki_path(&pki, names[i]));
	pki_write(&pki, "test.psk", "test:00112233445566778899aabbccddeeff\n");
	options[TCP][0].plaintext = options[TCP][1].plaintext = true;
	options[TLS_X509][0].tls = (struct qsc_tls_options){
		.ca_file = paths[0], .cert_file = paths[1], .key_file = paths[2]};
	options[TLS_X509][1].tls = (struct qsc_tls_options){
		.ca_file = paths[0], .cert_file = paths[3], .key_file = paths[4]};
	options[TLS_PSK][0].tls.psk_file = options[TLS_PSK][1].tls.psk_file = paths[5];
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	pki_drop(&pki);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_carries_bytes_both_ways_at_once),
		cmocka_unit_test(test_channels_are_as_many_as_one_likes_and_outlive_the_transport),
		cmocka_unit_test(test_silent_strangers_delay_nobody),
		cmocka_unit_test(test_single_bytes_are_enough),
		cmocka_unit_test(test_no_descriptors_left_is_an_error_and_no_spinning),
		cmocka_unit_test(test_limits_hold_in_every_wait),
		cmocka_unit_test(test_ready_without_bytes_is_a_stall),
		cmocka_unit_test(test_slow_is_no_stall),
		cmocka_unit_test(test_what_never_arrives_is_a_stall),
		cmocka_unit_test(test_a_path_that_is_taken_is_left_alone),
		cmocka_unit_test(test_source_waits_no_longer_than_it_was_told),
		cmocka_unit_test(test_shutdown_wakes_both),
		cmocka_unit_test(test_what_was_altered_or_cut_off_is_found),
		cmocka_unit_test(test_destination_names_who_does_not_speak_tls),
		cmocka_unit_test(test_source_names_a_destination_that_does_not_speak_tls),
	};

	return cmocka_run_group_tests_name("socket", tests, setup, teardown);
}
