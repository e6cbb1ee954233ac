/* SPDX-License-Identifier: MIT */
/*
 * The client against a kernel that fails at every point in turn, has no descriptors left, or
 * answers what no kernel should: nothing may be left behind, and no device but running.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/kernel/fake_test.h"

static const enum qsc_kernel_via ways[] = {QSC_KERNEL_AUTO, QSC_KERNEL_CDEV, QSC_KERNEL_LEGACY};

/* ---- what is left behind ---- */

struct left {
	int files;
	int mappings; /* of files without a name: regions and memory for DMA are such */
};

static struct left look(void)
{
	struct left left = {0};
	char line[512];
	FILE *maps;

	for (int fd = 0; fd < MAX_FD; fd++)
		left.files += fcntl(fd, F_GETFD) >= 0;
	maps = fopen("/proc/self/maps", "re");
	assert_non_null(maps);
	while (fgets(line, sizeof(line), maps))
		left.mappings += strstr(line, "/memfd:") != NULL;
	(void)fclose(maps);
	return left;
}

static void same(struct left before, const char *what, int number)
{
	struct left now = look();

	if (now.files != before.files || now.mappings != before.mappings || fake_count_files())
		fail_msg("%s %d: %d files and %d mappings, %d and %d before", what, number,
			 now.files, now.mappings, before.files, before.mappings);
}

/* ---- a device's life ---- */

/* Everything that a user does, whatever comes of it: how many of the calls failed. */
static int use(struct qsc_device *dev, int memory)
{
	const struct qsc_dma_range range = {MEMORY_IOVA, MEMORY_SIZE};
	uint64_t page_size = QSC_PAGE_SIZE, session, size;
	uint64_t bitmap[MEMORY_SIZE / QSC_PAGE_SIZE / 64] = {0};
	struct qsc_precopy_info precopy;
	int event = eventfd(0, EFD_CLOEXEC);
	void *addr;
	int failed = fake_map(dev, MEMORY_IOVA, memory) < 0;
	char buf[16];

	failed += qsc_device_region_map(dev, 0, 0, 4096, PROT_READ | PROT_WRITE, &addr) < 0;
	failed += qsc_device_set_eventfds(dev, 0, &event, 1) < 0;
	failed += qsc_device_log_start(dev, &page_size, &range, 1) < 0;
	failed += qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session) < 0;
	/* So that a read ends. */
	qsc_fd_close(&fake.session);
	failed += qsc_device_session_precopy_info(dev, session, &precopy) < 0;
	failed += qsc_device_session_read(dev, session, buf, sizeof(buf)) != -ENOMSG;
	failed += qsc_device_data_size(dev, &size) < 0;
	failed += qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session) < 0;
	failed += qsc_device_log_report(dev, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap) < 0;
	failed += qsc_device_log_stop(dev) < 0;
	failed += qsc_device_set_state(dev, QSC_STATE_STOP, &session) < 0;
	failed += qsc_device_set_state(dev, QSC_STATE_RUNNING, &session) < 0;
	failed += qsc_device_set_state(dev, QSC_STATE_RESUMING, &session) < 0;
	failed += qsc_device_session_write(dev, session, "some", 4) != 4;
	close(event);
	return failed;
}

/* The kernel of these tests has no pre-copy info and no data size. */
#define UNKNOWN 2

/* From open to close: the errno of open, or how many calls of use() failed as a negative number. */
static int live(enum qsc_kernel_via via, int memory, struct qsc_error *err)
{
	struct qsc_device *dev = NULL;
	int result = fake_open("fake", via, false, &dev, err);

	if (result < 0)
		return -result;
	result = -use(dev, memory);
	qsc_device_close(dev);
	qsc_fd_close(&fake.session);
	return result;
}

/* With a log of the device or of the IOMMU. */
static void begin(bool device_log)
{
	fake_begin();
	fake.device_log = device_log;
	fake.tracks = !device_log;
}

/* What a process makes once and keeps is made before anything is counted. */
static int live_once(void **unused)
{
	int memory = qsc_fd_memory("memory", MEMORY_SIZE);

	(void)unused;
	begin(true);
	assert_int_equal(live(QSC_KERNEL_AUTO, memory, NULL), -UNKNOWN);
	close(memory);
	return 0;
}

/* ---- the tests ---- */

static void fail_each(enum qsc_kernel_via via, bool device_log, int number, int memory)
{
	struct left before = look();

	for (int call = 1;; call++) {
		begin(device_log);
		fake.fail_call = call;
		fake.fail_with = number;
		/* That is for what was written, and nothing is wrong with it. */
		assert_int_not_equal(live(via, memory, NULL), EINVAL);
		same(before, strerror(number), call);
		if (fake.state != QSC_STATE_RUNNING)
			fail_msg("%s in call %d: let go in %s", strerror(number), call,
				 qsc_state_name(fake.state));
		if (fake.calls < call)
			break;
	}
}

/* One call of all that are made fails, each in turn. */
static void test_each_call_fails(void **unused)
{
	static const int numbers[] = {EINTR, EIO,    ENODEV, ENOMEM, EMFILE, EPERM,
				      EBUSY, EINVAL, ENOTTY, EFAULT, EAGAIN};
	int memory = qsc_fd_memory("memory", MEMORY_SIZE);

	(void)unused;
	for (size_t i = 0; i < QSC_ARRAY_SIZE(numbers); i++)
		for (size_t way = 0; way < QSC_ARRAY_SIZE(ways); way++) {
			fail_each(ways[way], true, numbers[i], memory);
			fail_each(ways[way], false, numbers[i], memory);
		}
	close(memory);
}

/* Signals that arrive in every call: each is made again, and nothing comes of them. */
static void test_interrupted(void **unused)
{
	int memory = qsc_fd_memory("memory", MEMORY_SIZE);
	struct left before = look();

	(void)unused;
	for (size_t way = 0; way < QSC_ARRAY_SIZE(ways); way++) {
		struct qsc_error err = QSC_ERROR_NONE;
		int result;

		begin(true);
		fake.interrupts = true;
		result = live(ways[way], memory, &err);
		if (result != -UNKNOWN)
			fail_msg("way %zu: %d %s", way, result, err.text);
		same(before, "interrupted", (int)way);
	}
	close(memory);
}

/* With each number of descriptors that may be had, from none on. */
static void test_no_descriptors(void **unused)
{
	int memory = qsc_fd_memory("memory", MEMORY_SIZE);
	struct left before = look();
	struct rlimit all;

	(void)unused;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
	for (size_t way = 0; way < QSC_ARRAY_SIZE(ways); way++) {
		int result = EMFILE;

		for (int more = 0; result; more++) {
			struct rlimit limit = {.rlim_max = all.rlim_max};
			struct qsc_error err = QSC_ERROR_NONE;
			int first = dup(memory);

			close(first);
			limit.rlim_cur = (rlim_t)first + (rlim_t)more;
			begin(true);
			assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
			result = live(ways[way], memory, &err);
			assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
			same(before, "descriptors", more);
			assert_int_equal(fake.state, QSC_STATE_RUNNING);
			if (result > 0 && (result != EMFILE || !strstr(err.text, "oo many open")))
				fail_msg("with %d descriptors: '%s'", more, err.text);
			if (result == -UNKNOWN)
				result = 0;
			assert_in_range(more, 0, 20);
		}
	}
	close(memory);
}

/* A kernel that says it went into a state with a session, and hands out none. */
static void test_no_session(void **unused)
{
	struct qsc_device *dev;
	uint64_t session = 1;

	(void)unused;
	fake_begin();
	assert_int_equal(fake_open("fake", QSC_KERNEL_CDEV, false, &dev, NULL), 0);
	fake.no_session = true;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session), -EIO);
	assert_int_equal(session, 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RESUMING, &session), -EIO);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(fake.resets, 1);
	qsc_device_close(dev);
}

/* One that takes any number for a state, and hands out a session with each. */
static void test_any_state(void **unused)
{
	struct left before = look();
	struct qsc_device *dev;
	uint64_t session;

	(void)unused;
	fake_begin();
	assert_int_equal(fake_open("fake", QSC_KERNEL_CDEV, false, &dev, NULL), 0);
	fake.obliging = true;
	for (uint32_t target = 0; target < 20; target++) {
		int result = qsc_device_set_state(dev, target, &session);

		if (target >= QSC_STATE_COUNT)
			assert_int_equal(result, -EPROTO);
		(void)qsc_device_reset(dev);
	}
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	qsc_device_close(dev);
	qsc_fd_close(&fake.session);
	same(before, "any state", 0);
}

/* ---- descriptions ---- */

static uint32_t seed;

static uint32_t any(void)
{
	seed = seed * 1664525U + 1013904223U;
	return seed >> 8;
}

/* A right one, of which some words are not. */
static void describe_badly(struct vfio_region_info *out)
{
	uint32_t words[64] = {0};
	uint32_t size = out->argsz < sizeof(words) ? out->argsz : (uint32_t)sizeof(words);
	const uint32_t right[] = {/* argsz, flags, index, cap_offset, size and offset of 64 bits */
				  96, 0xf, out->index, 32, REGION_SIZE, 0, 0, 0,
				  /* A sparse map: header, count, and three areas. */
				  VFIO_REGION_INFO_CAP_SPARSE_MMAP | 1 << 16, 0, 3, 0, 0, 0, 8192,
				  0, 4096, 0, 8192, 0, 65536, 0, 65536, 0};

	memcpy(words, right, sizeof(right));
	for (uint32_t i = any() % 4; i; i--) {
		static const uint32_t values[] = {0,	1,     31,	   32,	      33,
						  4095, 65535, 0x7fffffff, 0xffffffff};

		words[any() % QSC_ARRAY_SIZE(right)] = values[any() % QSC_ARRAY_SIZE(values)];
	}
	/* The kernel writes no more than there is room for. */
	memcpy(out, words, size);
}

/* More than was asked for, each time. */
static void describe_without_end(struct vfio_region_info *out)
{
	*out = (struct vfio_region_info){.argsz = out->argsz + 1, .index = out->index};
}

static void poke(struct qsc_device *dev)
{
	struct qsc_region_info info;
	uint32_t value = 0;

	assert_int_equal(qsc_device_get_region_info(dev, 0, &info), 0);
	assert_in_range(info.num_areas, 0, QSC_MAX_MMAP_AREAS);
	for (uint32_t i = 0; i < info.num_areas; i++) {
		void *addr;

		/* Read at its beginning: what is behind the end of the file is no memory. */
		if (info.areas[i].offset < REGION_SIZE &&
		    !qsc_device_region_map(dev, 0, info.areas[i].offset, info.areas[i].size,
					   PROT_READ, &addr))
			assert_int_equal(qsc_device_region_unmap(dev, addr, info.areas[i].size), 0);
	}
	(void)qsc_device_region_read(dev, 0, 0, &value, sizeof(value));
	(void)qsc_device_region_write(dev, 0, info.size - 4, &value, sizeof(value));
}

static void test_descriptions(void **unused)
{
	struct left before = look();
	struct qsc_device *dev;
	int opened = 0;

	(void)unused;
	for (seed = 1; opened < 500; seed += 7919) {
		uint32_t kept = seed;

		fake_begin();
		fake.describe = describe_badly;
		if (!fake_open("fake", QSC_KERNEL_CDEV, false, &dev, NULL)) {
			opened++;
			poke(dev);
			qsc_device_close(dev);
		}
		same(before, "description", (int)kept);
	}
	fake_begin();
	fake.describe = describe_without_end;
	assert_int_equal(fake_open("fake", QSC_KERNEL_CDEV, false, &dev, NULL), -EPROTO);
	same(before, "description", 0);
}

/* Vectors without number: a user asks for one far up. */
static void test_many_vectors(void **unused)
{
	int event = eventfd(0, EFD_CLOEXEC);
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.start = UINT32_MAX / 4,
		.count = 1,
		.fds = &event,
	};
	struct qsc_device *dev;

	(void)unused;
	fake_begin();
	fake.num_possible = UINT32_MAX;
	assert_int_equal(fake_open("fake", QSC_KERNEL_CDEV, false, &dev, NULL), 0);
	assert_int_equal(qsc_device_set_irqs(dev, &set), -EINVAL);
	qsc_device_close(dev);
	close(event);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_call_fails), cmocka_unit_test(test_interrupted),
		cmocka_unit_test(test_no_descriptors),	cmocka_unit_test(test_no_session),
		cmocka_unit_test(test_any_state),	cmocka_unit_test(test_descriptions),
		cmocka_unit_test(test_many_vectors),
	};

	/* A session is a pipe here. */
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, live_once, NULL);
}
