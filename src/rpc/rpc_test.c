/* SPDX-License-Identifier: MIT */
/* Deadlines of calls: what is there in time counts, whenever somebody here comes to look at it. */
#include "rpc/rpc.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include <quiesce/base.h>

#include "base/cleanup.h"
#include "wire/wire.h"

#define LIMIT_MS 1000U

struct ends {
	struct qsc_rpc *rpc;
	int peer;
	unsigned int calls; /* that are under way while a command is dealt with */
	bool answered;
	uint64_t begin_us;
	uint64_t answered_us; /* the last of them */
};

/*
 * Whoever receives is kept here until the calls are overdue, like a process that did not run for a
 * while. Their replies come in time, to a socket that nobody looks at.
 */
static int dawdle(void *ctx, struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct ends *ends = ctx;
	unsigned int i;

	ends->answered_us = UINT64_MAX;
	for (i = 0; i < ends->calls; i++) {
		struct qsc_wire_header header;

		/* One that came much later than the other finds it has given up. */
		if (recv(ends->peer, &header, sizeof(header), MSG_WAITALL) != sizeof(header))
			return 0;
		header.flags = QSC_WIRE_TYPE_REPLY;
		if (ends->answered)
			(void)send(ends->peer, &header, sizeof(header), MSG_NOSIGNAL);
	}
	ends->answered_us = qsc_env_real()->now_us(NULL);
	usleep((LIMIT_MS + 200) * 1000);
	return 0;
}

static void *call(void *arg)
{
	struct ends *ends = arg;
	struct qsc_wire_header header;
	struct iovec iov = {.iov_base = &header, .iov_len = sizeof(header)};
	struct qsc_call reset = {.command = QSC_WIRE_RESET};

	return (void *)(intptr_t)qsc_rpc_call(ends->rpc, &reset, &iov, 1, NULL, 0);
}

static void begin(struct ends *ends, bool watchdog)
{
	const struct qsc_wire_header command = {
		.command = QSC_WIRE_DMA_READ,
		.size = sizeof(command),
		.flags = QSC_WIRE_TYPE_COMMAND,
	};
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	const struct qsc_rpc_options options = {
		.fd = pair[0],
		.max_message = 4096,
		.call_timeout_ms = LIMIT_MS,
		.message_timeout_ms = LIMIT_MS,
		.watchdog = watchdog,
		.command = dawdle,
		.ctx = ends,
	};

	ends->peer = pair[1];
	ends->begin_us = qsc_env_real()->now_us(NULL);
	assert_int_equal(qsc_rpc_create(&options, &ends->rpc), 0);
	assert_int_equal(send(ends->peer, &command, sizeof(command), 0), sizeof(command));
}

static void end(struct ends *ends)
{
	qsc_rpc_destroy(ends->rpc);
	close(ends->peer);
}

/* Whether the replies came in time. */
static bool reply_in_time(bool watchdog)
{
	struct ends ends = {.calls = 2, .answered = true};
	pthread_t threads[2];
	void *results[2];
	bool in_time;
	size_t i;

	begin(&ends, watchdog);
	for (i = 0; i < QSC_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, call, &ends), 0);
	for (i = 0; i < QSC_ARRAY_SIZE(threads); i++)
		assert_int_equal(pthread_join(threads[i], &results[i]), 0);
	in_time = ends.answered_us - ends.begin_us < LIMIT_MS * 1000ULL;
	for (i = 0; in_time && i < QSC_ARRAY_SIZE(threads); i++)
		assert_int_equal((intptr_t)results[i], 0);
	assert_true(!in_time || !qsc_rpc_broken(ends.rpc));
	end(&ends);
	return in_time;
}

static void test_reply_that_waits(void **state)
{
	int watchdog;
	int tries;

	for (watchdog = 0; watchdog < 2; watchdog++) {
		/* A machine that has too much to do shows nothing. */
		for (tries = 0; tries < 10 && !reply_in_time(watchdog); tries++)
			;
		assert_true(tries < 10);
	}
}

static void test_no_reply(void **state)
{
	int watchdog;

	for (watchdog = 0; watchdog < 2; watchdog++) {
		struct ends ends = {.calls = 1};

		begin(&ends, watchdog);
		assert_int_equal((intptr_t)call(&ends), -ETIMEDOUT);
		assert_true(qsc_rpc_broken(ends.rpc));
		end(&ends);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reply_that_waits),
		cmocka_unit_test(test_no_reply),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
