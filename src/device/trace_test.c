/* SPDX-License-Identifier: MIT */
/* The trace layer: its lines, the state it knows, switching while in use, and what it costs. */
#include <errno.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include <quiesce/device.h>

/* What lies under the layer. */
struct bottom {
	struct qsc_device device;
	int set_state_result;
	int begin_result;
	bool closed;
};

static ssize_t bottom_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			   size_t count)
{
	memset(buf, 0x5a, count);
	return (ssize_t)count;
}

static int bottom_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	return 0;
}

static int bottom_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = QSC_STATE_ERROR;
	return 0;
}

static int bottom_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	*session = 3;
	return ((struct bottom *)(void *)dev)->set_state_result;
}

static int bottom_reset(struct qsc_device *dev)
{
	return 0;
}

static void bottom_close(struct qsc_device *dev)
{
	((struct bottom *)(void *)dev)->closed = true;
}

static int bottom_begin(struct qsc_device *dev, uint32_t target)
{
	return ((struct bottom *)(void *)dev)->begin_result;
}

static int bottom_end(struct qsc_device *dev, uint64_t *session)
{
	return bottom_set_state(dev, 0, session);
}

static const struct qsc_device_ops bottom_ops = {
	.kind = "bottom",
	.region_read = bottom_read,
	.set_irqs = bottom_set_irqs,
	.get_state = bottom_get_state,
	.set_state = bottom_set_state,
	.set_state_begin = bottom_begin,
	.set_state_end = bottom_end,
	.reset = bottom_reset,
	.close = bottom_close,
};

struct lines {
	unsigned int count;
	char last[512];
};

static void keep_line(void *ctx, const char *line)
{
	struct lines *lines = ctx;

	lines->count++;
	(void)snprintf(lines->last, sizeof(lines->last), "%s", line);
}

/* The middle of the last line is this; its ends are numbers that differ from run to run. */
static void assert_line(const struct lines *lines, const char *want)
{
	const char *middle = strchr(lines->last, ' ');
	const char *end = strrchr(lines->last, ' ');

	assert_int_equal(strspn(lines->last, "0123456789"), middle - lines->last);
	assert_int_equal(strspn(end + 1, "0123456789"), strlen(end + 1) - 2);
	assert_string_equal(end + strlen(end) - 2, "ns");
	assert_int_equal(end - middle - 1, strlen(want));
	assert_memory_equal(middle + 1, want, strlen(want));
}

static void test_lines(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct lines lines = {0};
	struct qsc_device *dev;
	struct qsc_dma_mapping mapping = {
		.iova = 0x1000, .size = 0x2000, .flags = QSC_DMA_READ | QSC_DMA_PEER, .fd = 3};
	const int fds[] = {1, 2};
	enum qsc_state at;
	uint64_t session;
	uint32_t value;
	struct iovec piece;
	size_t pieces;
	char big[64];

	(void)state;
	assert_int_equal(qsc_trace_open(&bottom.device, "nic0", keep_line, &lines, &dev), 0);
	assert_string_equal(qsc_device_kind(dev), "trace");
	assert_int_equal(qsc_device_region_read(dev, 0, 16, &value, 4), 4);
	assert_line(&lines, "nic0 ? region-read region=0 offset=0x10 count=4 data=0x5a5a5a5a = 4");
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_line(&lines, "nic0 ? reset = 0");
	assert_int_equal(qsc_device_region_read(dev, 2, 0, big, sizeof(big)), sizeof(big));
	assert_line(&lines, "nic0 RUNNING region-read region=2 offset=0x0 count=64 = 64");
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session), 0);
	assert_line(&lines, "nic0 RUNNING set-state target=STOP_COPY session=3 = 0");
	assert_int_equal(qsc_device_set_eventfds(dev, 2, fds, 2), 0);
	assert_line(&lines, "nic0 STOP_COPY set-irqs index=2 start=0 count=2 data=eventfd "
			    "action=trigger = 0");
	bottom.set_state_result = -EBUSY;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &session), -EBUSY);
	assert_line(&lines, "nic0 STOP_COPY set-state target=RUNNING session=0 = -EBUSY");
	assert_int_equal(qsc_device_dma_map(dev, &mapping), -ENOTTY);
	assert_line(&lines, "nic0 ? dma-map iova=0x1000 size=0x2000 flags=rp by=f = -ENOTTY");
	assert_int_equal(qsc_device_get_state(dev, &at), 0);
	assert_line(&lines, "nic0 ? get-state state=ERROR = 0");
	assert_int_equal(qsc_device_session_read(dev, 3, big, 64), -ENOTTY);
	assert_line(&lines, "nic0 ERROR session-read session=3 size=64 = -ENOTTY");
	assert_int_equal(qsc_device_session_lend(dev, 3, big, 64, &piece, 1, &pieces), -ENOTTY);
	assert_line(&lines, "nic0 ERROR session-lend session=3 size=64 pieces=0 = -ENOTTY");
	qsc_device_close(dev);
	assert_line(&lines, "nic0 ERROR close = 0");
	assert_true(bottom.closed);
	assert_int_equal(lines.count, 11);
}

static void test_a_request_in_halves_is_one_line(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}, .begin_result = -EOPNOTSUPP};
	struct lines lines = {0};
	struct qsc_device *dev;
	uint64_t session;

	assert_int_equal(qsc_trace_open(&bottom.device, "nic0", keep_line, &lines, &dev), 0);
	/* Nothing was done: the whole is asked for, and that is the line. */
	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP_COPY), -EOPNOTSUPP);
	assert_int_equal(lines.count, 0);
	bottom.begin_result = 0;
	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(lines.count, 0);
	assert_int_equal(qsc_device_set_state_end(dev, &session), 0);
	assert_int_equal(session, 3);
	assert_int_equal(lines.count, 1);
	assert_non_null(strstr(lines.last, " nic0 ? set-state target=STOP_COPY session=3 = 0 "));
	bottom.set_state_result = -EIO;
	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_STOP), 0);
	assert_int_equal(qsc_device_set_state_end(dev, &session), -EIO);
	assert_non_null(strstr(lines.last, " STOP_COPY set-state target=STOP session=0 = -EIO "));
	bottom.begin_result = -EPIPE;
	assert_int_equal(qsc_device_set_state_begin(dev, QSC_STATE_RUNNING), -EPIPE);
	assert_int_equal(lines.count, 3);
	assert_non_null(strstr(lines.last, " ? set-state target=RUNNING session=0 = -EPIPE "));
	qsc_device_close(dev);
}

static void test_state_is_known_when_switched_on_late(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct lines lines = {0};
	struct qsc_device *dev;
	uint64_t session;

	(void)state;
	assert_int_equal(qsc_trace_open(&bottom.device, "d", NULL, NULL, &dev), 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RESUMING, &session), 0);
	qsc_trace_set(dev, keep_line, &lines);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_line(&lines, "d RESUMING reset = 0");
	qsc_trace_set(dev, NULL, NULL);
	qsc_device_close(dev);
	assert_int_equal(lines.count, 1);
}

static void test_long_name_is_cut_not_overrun(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct lines lines = {0};
	struct qsc_device *dev;
	char name[2000];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(qsc_trace_open(&bottom.device, name, keep_line, &lines, &dev), 0);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(strlen(lines.last), sizeof(lines.last) - 1);
	qsc_device_close(dev);
}

struct busy {
	struct qsc_device *dev;
	_Atomic bool stop;
	_Atomic uint64_t done;
};

static void *keep_busy(void *arg)
{
	struct busy *busy = arg;
	uint32_t value;

	while (!atomic_load(&busy->stop)) {
		(void)qsc_device_region_read(busy->dev, 0, 0, &value, 4);
		atomic_fetch_add(&busy->done, 1);
	}
	return NULL;
}

struct sink {
	_Atomic bool live;
	_Atomic unsigned int late;
};

static void count_late(void *ctx, const char *line)
{
	struct sink *sink = ctx;

	if (!atomic_load(&sink->live))
		atomic_fetch_add(&sink->late, 1);
}

/* After the switch returns, the old sink is not called: its context may go. */
static void test_switching_while_in_use(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct busy busy = {0};
	struct sink sink = {0};
	pthread_t thread;

	(void)state;
	assert_int_equal(qsc_trace_open(&bottom.device, "d", NULL, NULL, &busy.dev), 0);
	assert_int_equal(pthread_create(&thread, NULL, keep_busy, &busy), 0);
	for (int round = 0; round < 300; round++) {
		uint64_t before = atomic_load(&busy.done);

		atomic_store(&sink.live, true);
		qsc_trace_set(busy.dev, count_late, &sink);
		while (atomic_load(&busy.done) < before + 3)
			sched_yield();
		qsc_trace_set(busy.dev, NULL, NULL);
		atomic_store(&sink.live, false);
	}
	atomic_store(&busy.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&sink.late), 0);
	qsc_device_close(busy.dev);
}

struct slow_sink {
	_Atomic bool entered;
	_Atomic bool switched;
	bool left_behind;
};

/* Stays long enough for a switch that does not wait to return. */
static void be_slow(void *ctx, const char *line)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	struct slow_sink *sink = ctx;

	atomic_store(&sink->entered, true);
	nanosleep(&pause, NULL);
	sink->left_behind = atomic_load(&sink->switched);
}

static void *read_once(void *dev)
{
	uint32_t value;

	(void)qsc_device_region_read(dev, 0, 0, &value, 4);
	return NULL;
}

static void test_switching_waits_for_a_line_under_way(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct slow_sink sink = {0};
	struct qsc_device *dev;
	pthread_t thread;

	(void)state;
	assert_int_equal(qsc_trace_open(&bottom.device, "d", be_slow, &sink, &dev), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_once, dev), 0);
	while (!atomic_load(&sink.entered))
		sched_yield();
	qsc_trace_set(dev, NULL, NULL);
	atomic_store(&sink.switched, true);
	pthread_join(thread, NULL);
	assert_false(sink.left_behind);
	qsc_device_close(dev);
}

static double best_ns_per_read(struct qsc_device *dev)
{
	enum { BATCHES = 30, READS = 2000 };
	double best = 1e9;
	uint32_t value;

	for (int batch = 0; batch < BATCHES; batch++) {
		struct timespec a;
		struct timespec b;
		double ns;

		clock_gettime(CLOCK_MONOTONIC, &a);
		for (int i = 0; i < READS; i++)
			(void)qsc_device_region_read(dev, 0, 0, &value, 4);
		clock_gettime(CLOCK_MONOTONIC, &b);
		ns = ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) /
		     READS;
		best = ns < best ? ns : best;
	}
	return best;
}

/* Left in and switched off it must cost next to nothing: far less than looking at the clock. */
static void test_cost_when_off(void **state)
{
	struct bottom bottom = {.device = {&bottom_ops}};
	struct lines lines = {0};
	struct qsc_device *dev;
	double bare;
	double off;
	double on;

	(void)state;
	assert_int_equal(qsc_trace_open(&bottom.device, "d", NULL, NULL, &dev), 0);
	bare = best_ns_per_read(&bottom.device);
	off = best_ns_per_read(dev);
	qsc_trace_set(dev, keep_line, &lines);
	on = best_ns_per_read(dev);
	print_message("# read: %.1f ns bare, %.1f ns traced off, %.0f ns traced on\n", bare, off,
		      on);
	assert_true(off - bare < (on - bare) / 10);
	qsc_device_close(dev);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines),
		cmocka_unit_test(test_a_request_in_halves_is_one_line),
		cmocka_unit_test(test_state_is_known_when_switched_on_late),
		cmocka_unit_test(test_long_name_is_cut_not_overrun),
		cmocka_unit_test(test_switching_while_in_use),
		cmocka_unit_test(test_switching_waits_for_a_line_under_way),
		cmocka_unit_test(test_cost_when_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
