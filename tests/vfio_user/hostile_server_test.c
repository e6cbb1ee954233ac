/* SPDX-License-Identifier: MIT */
/* A client and servers that do what they must not: an error, soon, and nothing trusted. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include <quiesce/client.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "raw.h"

#define SHORT_MS    50U	   /* until what never comes is given up */
#define PATIENCE_MS 20000U /* for what does come */

/* A server that answers the handshake, and then each request as the test says. */
struct liar {
	pthread_t thread;
	int fd;
	const char *caps;
	int num_fds;	  /* memory files with every reply */
	int twin;	  /* the server's end, with caps that say so */
	uint16_t command; /* the one to answer `how`; everything else gets ENOTTY */
	enum {
		SILENCE,
		CLOSE,
		HALF,
		WRONG_ID,
		WRONG_COMMAND,
		SHORT,
		LONG,
		GARBAGE_SIZE,
		EMPTY_ERROR,
		HUGE_ERROR,
		BODY,
	} how;
	uint8_t body[512];
	size_t size;
	/* The requests that came, the last ones first. */
	pthread_mutex_t lock;
	struct {
		uint16_t command;
		bool plain;
		size_t num_fds;
	} came[4];
};

static void remember(struct liar *liar, const struct raw *request, size_t num_fds)
{
	pthread_mutex_lock(&liar->lock);
	memmove(liar->came + 1, liar->came, sizeof(liar->came) - sizeof(liar->came[0]));
	liar->came[0].command = request->header.command;
	liar->came[0].plain = request->header.flags & QSC_WIRE_PLAIN;
	liar->came[0].num_fds = num_fds;
	pthread_mutex_unlock(&liar->lock);
}

static void answer(struct liar *liar, const struct raw *request)
{
	struct qsc_wire_header bad = {.id = request->header.id,
				      .command = request->header.command,
				      .size = 0x7fffffff,
				      .flags = QSC_WIRE_TYPE_REPLY};
	int fds[8];
	int i;

	for (i = 0; i < liar->num_fds; i++)
		fds[i] = qsc_fd_memory("liar", 8192);
	switch (liar->how) {
	case SILENCE:
		break;
	case CLOSE:
		shutdown(liar->fd, SHUT_RDWR);
		break;
	case HALF:
		(void)!write(liar->fd, &bad, 7);
		break;
	case GARBAGE_SIZE:
		(void)!write(liar->fd, &bad, sizeof(bad));
		break;
	case EMPTY_ERROR:
	case HUGE_ERROR:
		bad.size = sizeof(bad);
		bad.flags |= QSC_WIRE_ERROR;
		bad.error = liar->how == HUGE_ERROR ? 0x80000001 : 0;
		(void)!write(liar->fd, &bad, sizeof(bad));
		break;
	default:
		raw_send(liar->fd,
			 (uint16_t)(request->header.id ^ (liar->how == WRONG_ID ? 64 : 0)),
			 (uint16_t)(request->header.command ^ (liar->how == WRONG_COMMAND)),
			 QSC_WIRE_TYPE_REPLY, liar->body,
			 liar->size + (liar->how == LONG) - (liar->how == SHORT), fds,
			 (size_t)liar->num_fds, 0);
	}
	for (i = 0; i < liar->num_fds; i++)
		close(fds[i]);
}

static void *lie(void *arg)
{
	struct liar *liar = arg;
	struct raw *request = malloc(sizeof(*request));
	struct qsc_wire_header refusal;
	int fds[253];
	size_t num_fds;

	while (raw_receive(liar->fd, request, fds, &num_fds)) {
		remember(liar, request, num_fds);
		while (num_fds)
			close(fds[--num_fds]);
		if (request->header.command == QSC_WIRE_VERSION && liar->caps) {
			uint8_t body[1024] = {0};
			int pair[2] = {-1, -1};

			memcpy(body + 4, liar->caps, strlen(liar->caps));
			if (strstr(liar->caps, "twin"))
				assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
			liar->twin = pair[0];
			raw_send(liar->fd, request->header.id, QSC_WIRE_VERSION,
				 QSC_WIRE_TYPE_REPLY, body, 5 + strlen(liar->caps), &pair[1],
				 pair[1] >= 0, 0);
			qsc_fd_close(&pair[1]);
		} else if (request->header.command == liar->command) {
			answer(liar, request);
		} else {
			refusal = request->header;
			refusal.size = sizeof(refusal);
			refusal.flags = QSC_WIRE_TYPE_REPLY | QSC_WIRE_ERROR;
			refusal.error = ENOTTY;
			(void)!write(liar->fd, &refusal, sizeof(refusal));
		}
	}
	free(request);
	close(liar->fd);
	return NULL;
}

static int start(struct liar *liar)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	liar->fd = pair[0];
	liar->twin = -1;
	pthread_mutex_init(&liar->lock, NULL);
	assert_int_equal(pthread_create(&liar->thread, NULL, lie, liar), 0);
	return pair[1];
}

static void stop(struct liar *liar)
{
	pthread_join(liar->thread, NULL);
	pthread_mutex_destroy(&liar->lock);
	qsc_fd_close(&liar->twin);
}

static struct qsc_device *open_with(struct liar *liar, uint32_t timeout_ms)
{
	struct qsc_client_options options = {.request_timeout_ms = timeout_ms};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;
	int tries = 0;
	int result;

	if (!liar->caps)
		liar->caps = "{}";
	/* Within SHORT_MS a busy machine may not even come to the lie. */
	while ((result = qsc_client_open_fd(start(liar), &options, &dev, &err)) == -ETIMEDOUT &&
	       timeout_ms == SHORT_MS && tries++ < 20)
		stop(liar);
	if (result < 0)
		fail_msg("%s", err.text);
	return dev;
}

static void test_bad_handshakes(void **state)
{
	static const char *const caps[] = {
		"[]",
		"{\"capabilities\":{\"max_data_xfer_size\":0}}",
		"{\"capabilities\":{\"twin_socket\":{\"supported\":true}}}",
		"{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":1}}}",
		"{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":-1}}}",
	};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(caps); i++) {
		struct liar liar = {.caps = caps[i]};
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_device *dev;

		assert_int_equal(qsc_client_open_fd(start(&liar), NULL, &dev, &err), -EPROTO);
		assert_non_null(strstr(err.text, "server"));
		stop(&liar);
	}
}

static void test_handshake_unanswered(void **state)
{
	struct qsc_client_options options = {.connect_timeout_ms = 50};
	struct liar liar = {.command = QSC_WIRE_VERSION, .how = SILENCE};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	assert_int_equal(qsc_client_open_fd(start(&liar), &options, &dev, &err), -ETIMEDOUT);
	assert_non_null(strstr(err.text, "50 ms"));
	stop(&liar);
}

/* A server that is gone, or answers what cannot be, as soon as the handshake is over. */
static void test_gone_after_handshake(void **state)
{
	static const struct {
		int how;
		int expected;
	} cases[] = {{CLOSE, -ENOTCONN}, {WRONG_ID, -EPROTO}, {SILENCE, -ETIMEDOUT}};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		const struct qsc_client_options options = {
			.request_timeout_ms = cases[i].expected == -ETIMEDOUT ? SHORT_MS
									      : PATIENCE_MS};
		struct liar liar = {.caps = "{}",
				    .command = QSC_WIRE_FEATURE,
				    .how = (__typeof__(liar.how))cases[i].how,
				    .size = 16};
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_device *dev;

		assert_int_equal(qsc_client_open_fd(start(&liar), &options, &dev, &err),
				 cases[i].expected);
		assert_int_equal(err.number, -cases[i].expected);
		assert_non_null(strstr(err.text, "after the handshake"));
		stop(&liar);
	}
}

static void test_replies(void **state)
{
	static const struct {
		int how;
		int expected;
		bool survives;
	} cases[] = {
		{CLOSE, -ENOTCONN, false},
		{HALF, -ETIMEDOUT, false},
		{SILENCE, -ETIMEDOUT, false},
		{WRONG_ID, -EPROTO, false},
		{WRONG_COMMAND, -EPROTO, false},
		{SHORT, -EPROTO, false},
		{LONG, -EPROTO, false},
		{GARBAGE_SIZE, -EPROTO, false},
		{EMPTY_ERROR, -EIO, true},
		{HUGE_ERROR, -EIO, true},
		{BODY, 4, true},
	};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct qsc_wire_region_access access = {.offset = 8, .region = 0, .count = 4};
		struct liar liar = {.command = QSC_WIRE_REGION_READ, .size = 20};
		struct qsc_device *dev =
			open_with(&liar, cases[i].expected == -ETIMEDOUT ? SHORT_MS : PATIENCE_MS);
		enum qsc_state now;
		uint32_t value;
		ssize_t got;

		liar.how = (__typeof__(liar.how))cases[i].how;
		memcpy(liar.body, &access, sizeof(access));
		got = qsc_device_region_read(dev, 0, 8, &value, 4);
		if (got != cases[i].expected)
			fail_msg("case %zu: %zd", i, got);
		/* After the connection was given up, everything answers at once. */
		if (!cases[i].survives) {
			assert_int_equal(qsc_device_region_read(dev, 0, 8, &value, 4), -ENOTCONN);
			assert_int_equal(qsc_device_get_state(dev, &now), -ENOTCONN);
		}
		qsc_device_close(dev);
		stop(&liar);
	}
}

/* Bodies that have the right size and say what cannot be. */
static void test_implausible_bodies(void **state)
{
	static const struct qsc_wire_region_access wrong[] = {
		{.offset = 9, .region = 0, .count = 4},
		{.offset = 8, .region = 1, .count = 4},
		{.offset = 8, .region = 0, .count = 5},
		{.offset = 8, .region = 0, .count = 3},
	};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(wrong); i++) {
		struct liar liar = {.command = QSC_WIRE_REGION_READ, .how = BODY, .size = 20};
		struct qsc_device *dev = open_with(&liar, PATIENCE_MS);
		uint32_t value;

		memcpy(liar.body, &wrong[i], sizeof(wrong[i]));
		assert_int_equal(qsc_device_region_read(dev, 0, 8, &value, 4), -EPROTO);
		assert_int_equal(qsc_device_region_read(dev, 0, 8, &value, 4), -ENOTCONN);
		qsc_device_close(dev);
		stop(&liar);
	}
}

static void test_region_info(void **state)
{
	struct liar liar = {.command = QSC_WIRE_GET_REGION_INFO, .how = BODY, .num_fds = 3};
	struct qsc_device *dev = open_with(&liar, PATIENCE_MS);
	struct qsc_region_info info = {.flags = 7, .size = 1 << 20, .num_areas = 1};
	volatile uint8_t *memory;
	void *addr;
	int fd;
	uint64_t offset;

	info.areas[0] = (struct qsc_mmap_area){0, 1 << 20};
	liar.size = qsc_wire_encode_region_info(2, &info, 0, 4096, liar.body);
	/* A file shorter than the region: what lies beyond its end reads as zero, without a fault.
	 */
	assert_int_equal(qsc_device_region_map(dev, 2, 0, 1 << 20, PROT_READ | PROT_WRITE, &addr),
			 0);
	memory = addr;
	assert_int_equal(memory[0], 0);
	assert_int_equal(memory[(1 << 20) - 1], 0);
	/* Surplus descriptors are closed, one is handed out. */
	assert_int_equal(qsc_device_region_fd(dev, 2, &fd, &offset), 0);
	close(fd);
	/* A capability chain in a circle. */
	liar.body[32 + 4] = 32;
	assert_int_equal(qsc_device_get_region_info(dev, 2, &info), -EPROTO);
	assert_int_equal(qsc_device_get_region_info(dev, 2, &info), -ENOTCONN);
	qsc_device_close(dev);
	stop(&liar);
}

static void test_state_unknown_after_a_lost_reply(void **state)
{
	struct liar liar = {.command = QSC_WIRE_FEATURE, .how = EMPTY_ERROR};
	struct qsc_device *dev = open_with(&liar, SHORT_MS);
	enum qsc_state now;
	uint64_t session;

	liar.how = SILENCE;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP, &session), -ETIMEDOUT);
	/* ORD-4: nobody guesses. */
	assert_int_equal(qsc_device_get_state(dev, &now), -ENOTCONN);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &session), -ENOTCONN);
	qsc_device_close(dev);
	stop(&liar);
}

static void test_state_that_does_not_exist(void **state)
{
	struct liar liar = {.command = QSC_WIRE_FEATURE, .how = EMPTY_ERROR, .size = 16};
	struct qsc_device *dev = open_with(&liar, PATIENCE_MS);
	enum qsc_state now;

	liar.body[8] = 8;
	liar.how = BODY;
	assert_int_equal(qsc_device_get_state(dev, &now), -EPROTO);
	qsc_device_close(dev);
	stop(&liar);
}

/* What a server asks of memory that it was not given, or asks wrongly. */
static void test_bad_accesses(void **state)
{
	static uint8_t memory[8192] __attribute__((aligned(4096)));
	static struct raw reply;
	struct liar liar = {
		.caps = "{\"capabilities\":{\"twin_socket\":{\"supported\":true,\"fd_index\":0}}}",
		.command = QSC_WIRE_DMA_MAP,
		.how = BODY};
	struct qsc_device *dev = open_with(&liar, PATIENCE_MS);
	struct qsc_dma_mapping mapping = {
		.iova = 0x10000, .size = 4096, .flags = QSC_DMA_READ, .vaddr = memory, .fd = -1};
	static const struct {
		uint64_t command;
		uint64_t address;
		uint64_t count;
		size_t data;
		long expected;
	} cases[] = {
		{QSC_WIRE_DMA_READ, 0x10000, 4096, 0, 0},
		{QSC_WIRE_DMA_READ, 0x10000, 4097, 0, 0},
		{QSC_WIRE_DMA_READ, 0x11fff, 2, 0, -EFAULT},
		{QSC_WIRE_DMA_READ, 0xffff, 2, 0, -EFAULT},
		{QSC_WIRE_DMA_READ, 0x10000, 1ULL << 40, 0, -EINVAL},
		{QSC_WIRE_DMA_READ, 0x10000, 0, 0, -EINVAL},
		{QSC_WIRE_DMA_READ, 0xffffffffffffffff, 2, 0, -EINVAL},
		{QSC_WIRE_DMA_READ, 0x10000, 8, 4, -EINVAL},
		{QSC_WIRE_DMA_WRITE, 0x10000, 8, 8, -EFAULT},
		{QSC_WIRE_DMA_WRITE, 0x11000, 8, 8, 0},
		{QSC_WIRE_DMA_WRITE, 0x11000, 8, 7, -EINVAL},
		{QSC_WIRE_DMA_WRITE, 0x10ffc, 8, 8, -EFAULT},
		{QSC_WIRE_RESET, 0, 0, 0, -ENOSYS},
	};
	size_t i;

	assert_int_equal(qsc_device_dma_map(dev, &mapping), 0);
	mapping.iova = 0x11000;
	mapping.vaddr = memory + 4096;
	mapping.flags = QSC_DMA_READ | QSC_DMA_WRITE;
	assert_int_equal(qsc_device_dma_map(dev, &mapping), 0);
	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		uint8_t body[32] = {0};

		memcpy(body, &cases[i].address, 8);
		memcpy(body + 8, &cases[i].count, 8);
		if (raw_request(liar.twin, (uint16_t)cases[i].command, body, 16 + cases[i].data,
				NULL, 0, &reply) != cases[i].expected)
			fail_msg("case %zu: %u", i, reply.header.error);
	}
	qsc_device_close(dev);
	stop(&liar);
}

static void expect_request(struct liar *liar, unsigned int ago, uint16_t command, bool plain,
			   size_t num_fds)
{
	pthread_mutex_lock(&liar->lock);
	assert_int_equal(liar->came[ago].command, command);
	assert_int_equal(liar->came[ago].plain, plain);
	assert_int_equal(liar->came[ago].num_fds, num_fds);
	pthread_mutex_unlock(&liar->lock);
}

/*
 * Descriptors come only when the server has answered a request that does not promise that none
 * will, so that it is not in a receive that loses them. Nobody is promised anything who does not
 * know what that is.
 */
static void test_promises(void **state)
{
	int agreed;

	for (agreed = 0; agreed < 2; agreed++) {
		struct liar liar = {
			.caps = agreed ? "{\"capabilities\":{\"quiesce\":{\"version\":1}}}" : "{}",
			.how = EMPTY_ERROR,
		};
		struct qsc_device *dev = open_with(&liar, PATIENCE_MS);
		int fd = qsc_fd_memory("test", 4096);
		struct qsc_dma_mapping mapping = {
			.size = 4096, .flags = QSC_DMA_READ, .fd = fd, .vaddr = NULL};
		struct qsc_irq_info info;

		assert_int_equal(qsc_device_get_irq_info(dev, 0, &info), -ENOTTY);
		expect_request(&liar, 0, QSC_WIRE_GET_IRQ_INFO, agreed, 0);
		assert_int_equal(qsc_device_dma_map(dev, &mapping), -ENOTTY);
		expect_request(&liar, 0, QSC_WIRE_DMA_MAP, false, 1);
		if (agreed)
			expect_request(&liar, 1, QSC_WIRE_GET_INFO, false, 0);
		expect_request(&liar, 1 + (unsigned int)agreed, QSC_WIRE_GET_IRQ_INFO, agreed, 0);
		/* Nothing was promised since. */
		assert_int_equal(qsc_device_dma_map(dev, &mapping), -ENOTTY);
		expect_request(&liar, 0, QSC_WIRE_DMA_MAP, false, 1);
		expect_request(&liar, 1, QSC_WIRE_DMA_MAP, false, 1);
		assert_int_equal(qsc_device_get_irq_info(dev, 0, &info), -ENOTTY);
		expect_request(&liar, 0, QSC_WIRE_GET_IRQ_INFO, agreed, 0);
		qsc_device_close(dev);
		stop(&liar);
		close(fd);
	}
}

static void test_uris(void **state)
{
	static const struct {
		const char *uri;
		int expected;
		const char *says;
	} cases[] = {
		{"", -EINVAL, "vfio-user:PATH"},
		{"/tmp/x", -EINVAL, "vfio-user:PATH"},
		{"vfio-user:", -EINVAL, "1 to 107 bytes"},
		{"vfio-user:/nonexistent/socket", -ENOENT, "start the server first"},
		{"vfio-user:/dev/null", -ENOTSOCK, "/dev/null: this is no socket"},
	};
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(cases); i++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_device *dev;

		assert_int_equal(qsc_client_open(cases[i].uri, NULL, &dev, &err),
				 cases[i].expected);
		assert_int_equal(err.number, -cases[i].expected);
		assert_non_null(strstr(err.text, cases[i].says));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bad_handshakes),
		cmocka_unit_test(test_handshake_unanswered),
		cmocka_unit_test(test_gone_after_handshake),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_implausible_bodies),
		cmocka_unit_test(test_region_info),
		cmocka_unit_test(test_state_unknown_after_a_lost_reply),
		cmocka_unit_test(test_state_that_does_not_exist),
		cmocka_unit_test(test_bad_accesses),
		cmocka_unit_test(test_promises),
		cmocka_unit_test(test_uris),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
