/* SPDX-License-Identifier: MIT */
/* The client against a kernel that is made up: what real ones do, and what they may. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/kernel/fake_test.h"

static int open_fake(struct qsc_device **dev, struct qsc_error *err, bool raw)
{
	return fake_open("fake", QSC_KERNEL_CDEV, raw, dev, err);
}

static struct qsc_device *begin(void)
{
	struct qsc_device *dev;

	fake_begin();
	fake.device_log = true;
	assert_int_equal(open_fake(&dev, NULL, false), 0);
	return dev;
}

static void end(struct qsc_device *dev)
{
	qsc_device_close(dev);
	qsc_fd_close(&fake.session);
	assert_int_equal(fake_count_files(), 0);
}

/* ---- states and sessions ---- */

/* SESS-9: the kernel changed the state and then found no descriptor. */
static void test_lost_session(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = 1;

	(void)unused;
	fake.fail = EMFILE;
	fake.ends = QSC_STATE_PRE_COPY;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session), -EMFILE);
	assert_int_equal(session, 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(fake.resets, 0);
	(void)enter(dev, QSC_STATE_STOP);
	fake.fail = EMFILE;
	fake.ends = QSC_STATE_RESUMING;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RESUMING, &session), -EMFILE);
	/* ORD-9: a reset, and then back. */
	assert_int_equal(fake.resets, 1);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_not_equal(enter(dev, QSC_STATE_RESUMING), 0);
	end(dev);
}

/* From RESUMING, whose session is lost as well: never back to a load that nobody can end (ORD-9).
 */
static void test_lost_session_of_load(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = 1;

	(void)unused;
	(void)enter(dev, QSC_STATE_RESUMING);
	fake.fail = EMFILE;
	fake.ends = QSC_STATE_STOP_COPY;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session), -EMFILE);
	assert_int_equal(session, 0);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_equal(fake.resets, 0);
	(void)enter(dev, QSC_STATE_STOP_COPY);
	fake.fail = EMFILE;
	fake.ends = QSC_STATE_RESUMING;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RESUMING, &session), -EMFILE);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_equal(fake.resets, 1);
	end(dev);
}

/*
 * A mapping that cannot be given back fails the change, also where a session was opened, which is
 * then undone (SESS-9). The file forbids it here as soon as nothing of it is mapped.
 */
static void test_unrestored_mapping(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = 1;
	void *addr;

	(void)unused;
	assert_int_equal(qsc_device_region_map(dev, 0, 0, 4096, PROT_READ | PROT_WRITE, &addr), 0);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(fcntl(fake.device, F_ADD_SEALS, F_SEAL_FUTURE_WRITE), 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session), -EPERM);
	assert_int_equal(session, 0);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &session), -EPERM);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	assert_int_equal(*(uint32_t *)addr, UINT32_MAX);
	/* Without it nothing stands in the way. */
	assert_int_equal(qsc_device_region_unmap(dev, addr, 4096), 0);
	assert_int_not_equal(enter(dev, QSC_STATE_PRE_COPY), 0);
	end(dev);
}

/* Pulled out of the machine while it is held: whatever is asked says so, and letting go works. */
static void test_gone(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = enter(dev, QSC_STATE_PRE_COPY);
	const struct qsc_dma_range range = {MEMORY_IOVA, MEMORY_SIZE};
	uint64_t page_size = QSC_PAGE_SIZE;
	uint64_t bitmap[16];
	struct qsc_irq_info irq;
	uint64_t size;
	enum qsc_state state;
	const int fd = -1;

	(void)unused;
	fake.gone = true;
	assert_int_equal(qsc_device_log_start(dev, &page_size, &range, 1), -ENOTCONN);
	fake.gone = false;
	assert_int_equal(qsc_device_log_start(dev, &page_size, &range, 1), 0);
	fake.gone = true;
	assert_int_equal(qsc_device_log_report(dev, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap),
			 -ENOTCONN);
	assert_int_equal(qsc_device_log_stop(dev), -ENOTCONN);
	assert_int_equal(qsc_device_get_irq_info(dev, 0, &irq), -ENOTCONN);
	assert_int_equal(qsc_device_get_state(dev, &state), -ENOTCONN);
	assert_int_equal(qsc_device_region_write(dev, 0, 0, &size, 8), -ENOTCONN);
	assert_int_equal(qsc_device_data_size(dev, &size), -ENOTCONN);
	assert_int_equal(qsc_device_set_eventfds(dev, 0, &fd, 1), -ENOTCONN);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session), -ENOTCONN);
	assert_int_equal(qsc_device_reset(dev), -ENOTCONN);
	end(dev);
}

/* The driver has ended a session, or is gone together with its device: it has one word for both. */
static void test_gone_in_session(void **unused)
{
	static const int expected[] = {-ENODEV, -ENOTCONN};
	struct qsc_precopy_info info;
	char buf[4] = "some";

	(void)unused;
	for (int gone = 0; gone < 2; gone++) {
		struct qsc_device *dev = begin();
		uint64_t session = enter(dev, QSC_STATE_PRE_COPY);

		fake.session_fail = ENODEV;
		fake.gone = gone;
		assert_int_equal(qsc_device_session_precopy_info(dev, session, &info),
				 expected[gone]);
		assert_int_equal(qsc_device_session_read(dev, session, buf, 4), expected[gone]);
		fake.gone = false;
		assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &session), 0);
		session = enter(dev, QSC_STATE_RESUMING);
		fake.gone = gone;
		assert_int_equal(qsc_device_session_write(dev, session, buf, 4), expected[gone]);
		fake.gone = false;
		end(dev);
	}
}

/* ORD-4: after a failure the device is where it says, and the session goes with it. */
static void test_failure_is_read(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = enter(dev, QSC_STATE_PRE_COPY);
	uint64_t other;
	char byte;

	(void)unused;
	fake.fail = EIO;
	fake.ends = QSC_STATE_ERROR;
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &other), -EIO);
	assert_int_equal(state_of(dev), QSC_STATE_ERROR);
	assert_int_equal(qsc_device_session_read(dev, session, &byte, 1), -ENODEV);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &other), -EINVAL);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	end(dev);
}

/* SESS-3, from a driver whose stream "ends" when it has nothing for now. */
static void test_drained(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = enter(dev, QSC_STATE_PRE_COPY);
	char buf[16];

	(void)unused;
	assert_int_equal(write(fake.session, "early", 5), 5);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), 5);
	qsc_fd_close(&fake.session);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), -ENOMSG);
	assert_int_equal(enter(dev, QSC_STATE_STOP_COPY), 0);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), 0);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), 0);
	end(dev);
}

/* SESS-6: what a driver refused once is not run, whatever it takes later. */
static void test_refused_load(void **unused)
{
	struct qsc_device *dev = begin();
	uint64_t session = enter(dev, QSC_STATE_RESUMING);
	uint64_t other;

	(void)unused;
	assert_int_equal(qsc_device_session_write(dev, session, "some", 4), 4);
	qsc_fd_close(&fake.session);
	assert_int_equal(qsc_device_session_write(dev, session, "more", 4), -EPIPE);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP, &other), -EINVAL);
	assert_int_equal(state_of(dev), QSC_STATE_ERROR);
	assert_int_equal(fake.state, QSC_STATE_RESUMING);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &other), -EINVAL);
	assert_int_equal(qsc_device_session_write(dev, session, "more", 4), -ENODEV);
	fake.reset_fail = EIO;
	assert_int_equal(qsc_device_reset(dev), -EIO);
	assert_int_equal(state_of(dev), QSC_STATE_ERROR);
	fake.reset_fail = 0;
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	(void)enter(dev, QSC_STATE_RESUMING);
	(void)enter(dev, QSC_STATE_STOP);
	end(dev);
}

/* ORD-9 and STATE-5. */
static void test_let_go(void **unused)
{
	struct qsc_device *dev = begin();

	(void)unused;
	(void)enter(dev, QSC_STATE_RESUMING);
	end(dev);
	assert_int_equal(fake.resets, 1);
	assert_int_equal(fake.state, QSC_STATE_RUNNING);
}

/* STATE-2: whatever the last user left, who may have been killed. */
static void test_found_stopped(void **unused)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	(void)unused;
	fake_begin();
	fake.state = QSC_STATE_RESUMING;
	assert_int_equal(open_fake(&dev, &err, false), 0);
	assert_int_equal(fake.resets, 1);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	end(dev);
	fake.state = QSC_STATE_ERROR;
	fake.reset_fail = EIO;
	assert_int_equal(open_fake(&dev, &err, false), -EIO);
	assert_string_equal(err.clause, "STATE-5");
	assert_non_null(strstr(err.text, "left it in ERROR"));
}

/* ---- threads ---- */

static void *write_once(void *dev)
{
	uint32_t value = 1;

	assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	return NULL;
}

static void *write_on(void *dev)
{
	uint32_t value = 1;

	while (fake.watch)
		assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	return NULL;
}

/* DEV-7: an access that is under way ends before the device stops, and none comes after. */
static void test_access_and_stop(void **unused)
{
	struct qsc_device *dev = begin();
	pthread_t writers[3];

	(void)unused;
	fake.watch = dev;
	fake.linger = true;
	assert_int_equal(pthread_create(&writers[0], NULL, write_once, dev), 0);
	while (!fake.looked)
		sched_yield();
	(void)enter(dev, QSC_STATE_STOP);
	pthread_join(writers[0], NULL);
	assert_int_equal(fake.late, 0);
	(void)write_once(dev);
	assert_int_equal(fake.looked, 1);
	(void)enter(dev, QSC_STATE_RUNNING);
	/* Many, and many stops. */
	fake.linger = false;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&writers[i], NULL, write_on, dev), 0);
	for (int i = 0; i < 50; i++) {
		int before = fake.looked;

		(void)enter(dev, i % 2 ? QSC_STATE_STOP_COPY : QSC_STATE_STOP);
		(void)enter(dev, QSC_STATE_RUNNING);
		while (fake.looked == before)
			sched_yield();
	}
	fake.watch = NULL;
	for (int i = 0; i < 3; i++)
		pthread_join(writers[i], NULL);
	assert_int_equal(fake.late, 0);
	end(dev);
}

struct transfer {
	struct qsc_device *dev;
	uint64_t session;
	size_t size; /* to write; 0 to read */
	ssize_t result;
	char first;
};

static void *run_transfer(void *ctx)
{
	struct transfer *transfer = ctx;
	char *buf = calloc(1, transfer->size + 16);

	transfer->result =
		transfer->size ? qsc_device_session_write(transfer->dev, transfer->session, buf,
							  transfer->size)
			       : qsc_device_session_read(transfer->dev, transfer->session, buf, 16);
	transfer->first = buf[0];
	free(buf);
	return NULL;
}

/* Begins it in a thread, and comes back when that waits for the driver. */
static pthread_t start_transfer(struct transfer *transfer)
{
	struct qsc_kernel *kernel = qsc_kernel_of(transfer->dev);
	bool waits = false;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, run_transfer, transfer), 0);
	while (!waits) {
		sched_yield();
		pthread_mutex_lock(&kernel->state_lock);
		waits = kernel->waiting;
		pthread_mutex_unlock(&kernel->state_lock);
	}
	return thread;
}

static bool queued(struct qsc_device *dev)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	bool waits;

	pthread_mutex_lock(&kernel->state_lock);
	waits = kernel->queued;
	pthread_mutex_unlock(&kernel->state_lock);
	return waits;
}

/* Who waits for a driver's data keeps nobody from stopping the device. */
static void test_waiting_transfer(void **unused)
{
	struct qsc_device *dev = begin();
	struct transfer transfer = {.dev = dev, .session = enter(dev, QSC_STATE_PRE_COPY)};
	struct qsc_precopy_info info;
	struct transfer second;
	pthread_t other;
	pthread_t thread = start_transfer(&transfer);

	(void)unused;
	/* The session goes on, and so does who reads it. */
	(void)enter(dev, QSC_STATE_STOP_COPY);
	assert_int_equal(write(fake.session, "late", 4), 4);
	pthread_join(thread, NULL);
	assert_int_equal(transfer.result, 4);
	assert_int_equal(transfer.first, 'l');
	/* Two at a time: one after the other. */
	thread = start_transfer(&transfer);
	second = transfer;
	assert_int_equal(pthread_create(&other, NULL, run_transfer, &second), 0);
	while (!queued(dev))
		sched_yield();
	assert_int_equal(write(fake.session, "a", 1), 1);
	pthread_join(thread, NULL);
	assert_int_equal(write(fake.session, "b", 1), 1);
	pthread_join(other, NULL);
	assert_int_equal(transfer.first, 'a');
	assert_int_equal(second.first, 'b');
	/* It ends (SESS-2): by a change of state, by its own end, by a reset. */
	thread = start_transfer(&transfer);
	assert_int_equal(qsc_device_session_precopy_info(dev, transfer.session, &info), -EINVAL);
	(void)enter(dev, QSC_STATE_STOP);
	pthread_join(thread, NULL);
	assert_int_equal(transfer.result, -ENODEV);
	transfer.session = enter(dev, QSC_STATE_STOP_COPY);
	thread = start_transfer(&transfer);
	assert_int_equal(qsc_device_session_close(dev, transfer.session), 0);
	pthread_join(thread, NULL);
	assert_int_equal(transfer.result, -ENODEV);
	transfer.session = enter(dev, QSC_STATE_RESUMING);
	transfer.size = 4 << 20; /* more than the pipe takes */
	thread = start_transfer(&transfer);
	assert_int_equal(qsc_device_reset(dev), 0);
	pthread_join(thread, NULL);
	assert_int_equal(transfer.result, -ENODEV);
	assert_int_equal(state_of(dev), QSC_STATE_RUNNING);
	end(dev);
}

/* A description that no device can have is none. */
static void test_wild_description(void **unused)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	(void)unused;
	end(begin());
	fake.irqs = UINT32_MAX;
	assert_int_equal(open_fake(&dev, &err, false), -EPROTO);
	assert_non_null(strstr(err.text, "does not describe itself"));
	fake.irqs = 0;
	fake.regions = UINT32_MAX;
	assert_int_equal(open_fake(&dev, &err, false), -EPROTO);
	fake.regions = 0;
	assert_int_equal(open_fake(&dev, &err, false), 0);
	end(dev);
}

/* ---- the stopped device ---- */

static void test_discarded(void **unused)
{
	struct qsc_device *dev = begin();
	volatile uint32_t *mapped;
	uint32_t value = 0x11;
	void *addr;

	(void)unused;
	assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	assert_int_equal(qsc_device_region_map(dev, 0, 0, 4096, PROT_READ | PROT_WRITE, &addr), 0);
	mapped = addr;
	assert_int_equal(mapped[16], 0x11);
	(void)enter(dev, QSC_STATE_STOP_COPY);
	value = 0x22;
	assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	mapped[16] = 0x33;
	assert_int_equal(qsc_device_region_read(dev, 0, 64, &value, 4), 4);
	assert_int_equal(value, UINT32_MAX);
	(void)enter(dev, QSC_STATE_RUNNING);
	assert_int_equal(mapped[16], 0x11);
	assert_int_equal(qsc_device_region_read(dev, 0, 64, &value, 4), 4);
	assert_int_equal(value, 0x11);
	assert_int_equal(qsc_device_region_unmap(dev, addr, 4096), 0);
	end(dev);
}

/* What cannot be told of the areas that may be mapped is accessed all the same. */
static void test_many_areas(void **unused)
{
	struct qsc_region_info info;
	struct qsc_device *dev;
	uint32_t value = 0x1234;
	void *addr;

	(void)unused;
	end(begin());
	fake.areas = QSC_MAX_MMAP_AREAS + 2;
	assert_int_equal(open_fake(&dev, NULL, false), 0);
	assert_int_equal(qsc_device_get_region_info(dev, 0, &info), 0);
	assert_int_equal(info.num_areas, QSC_MAX_MMAP_AREAS);
	assert_int_equal(info.areas[QSC_MAX_MMAP_AREAS - 1].size, 8192);
	assert_int_equal(info.areas[0].offset, 8192);
	assert_int_equal(qsc_device_region_map(dev, 0, 0, 4096, PROT_READ, &addr), -EINVAL);
	assert_int_equal(qsc_device_region_map(dev, 0, 8192, 4096, PROT_READ, &addr), 0);
	assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	assert_int_equal(qsc_device_region_write(dev, 0, 8192 + 64, &value, 4), 4);
	assert_int_equal(((volatile uint32_t *)addr)[16], 0x1234);
	assert_int_equal(qsc_device_region_unmap(dev, addr, 4096), 0);
	end(dev);
}

static void test_held_triggers(void **unused)
{
	struct qsc_device *dev = begin();
	const struct qsc_irq_set trigger = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.count = 1,
	};

	(void)unused;
	assert_int_equal(qsc_device_set_irqs(dev, &trigger), 0);
	assert_int_equal(fake.triggers, 1);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(qsc_device_set_irqs(dev, &trigger), 0);
	(void)enter(dev, QSC_STATE_RUNNING_P2P);
	assert_int_equal(qsc_device_set_irqs(dev, &trigger), 0);
	assert_int_equal(fake.triggers, 1);
	(void)enter(dev, QSC_STATE_RUNNING);
	assert_int_equal(fake.triggers, 3);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(qsc_device_set_irqs(dev, &trigger), 0);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(fake.triggers, 3);
	end(dev);
}

/* As its driver makes it: nothing is made up for. */
static void test_raw(void **unused)
{
	struct qsc_device *dev = NULL;
	uint32_t value = 0x2468ace0;
	uint64_t session;
	char buf[16];

	(void)unused;
	qsc_device_close(begin());
	fake.resets = 0;
	fake.state = QSC_STATE_STOP;
	assert_int_equal(open_fake(&dev, NULL, true), 0);
	assert_int_equal(state_of(dev), QSC_STATE_STOP);
	assert_int_equal(qsc_device_region_write(dev, 0, 64, &value, 4), 4);
	value = 0;
	assert_int_equal(qsc_device_region_read(dev, 0, 64, &value, 4), 4);
	assert_int_equal(value, 0x2468ace0);
	(void)enter(dev, QSC_STATE_RUNNING);
	session = enter(dev, QSC_STATE_PRE_COPY);
	qsc_fd_close(&fake.session);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), 0);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(qsc_device_session_read(dev, session, buf, sizeof(buf)), 0);
	session = enter(dev, QSC_STATE_RESUMING);
	qsc_fd_close(&fake.session);
	assert_int_equal(qsc_device_session_write(dev, session, "more", 4), -EPIPE);
	(void)enter(dev, QSC_STATE_RUNNING);
	(void)enter(dev, QSC_STATE_STOP);
	end(dev);
	assert_int_equal(fake.resets, 0);
	assert_int_equal(fake.state, QSC_STATE_STOP);
}

/* DEV-6: a device that knows the contract holds them itself, and saves them. */
static void test_trusted_triggers(void **unused)
{
	const struct qsc_irq_set trigger = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.count = 1,
	};
	struct qsc_device *dev;

	(void)unused;
	qsc_device_close(begin());
	fake.knows = true;
	assert_int_equal(open_fake(&dev, NULL, false), 0);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(qsc_device_set_irqs(dev, &trigger), 0);
	assert_int_equal(fake.triggers, 1);
	(void)enter(dev, QSC_STATE_RUNNING);
	assert_int_equal(fake.triggers, 1);
	end(dev);
}

static int set_vector(struct qsc_device *dev, uint32_t vector, int fd)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.start = vector,
		.count = 1,
		.fds = &fd,
	};

	return qsc_device_set_irqs(dev, &set);
}

/* Vector by vector, on an index whose number of them the kernel fixes with the first. */
static void test_vectors(void **unused)
{
	struct qsc_device *dev = begin();
	int events[3];

	(void)unused;
	for (uint32_t i = 0; i < 3; i++) {
		events[i] = eventfd(i + 1, EFD_CLOEXEC);
		assert_int_equal(set_vector(dev, i, events[i]), 0);
		close(events[i]);
	}
	assert_int_equal(fake.num_vectors, 3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(qsc_eventfd_drain(fake.vectors[i]), i + 1);
	assert_int_equal(set_vector(dev, 4, -1), -EINVAL);
	assert_int_equal(fake.num_vectors, 3);
	assert_int_equal(set_vector(dev, 0, -1), 0);
	assert_int_equal(qsc_device_set_eventfds(dev, 0, NULL, 0), 0);
	assert_int_equal(fake.num_vectors, 0);
	end(dev);
}

/* ---- DMA and the dirty log ---- */

static void test_mapping(void **unused)
{
	struct qsc_device *dev = begin();
	struct qsc_dma_access access = {0};
	struct qsc_dma_mapping unreachable = {
		.iova = 0x1000,
		.size = 0x1000,
		.flags = QSC_DMA_PEER | QSC_DMA_READ,
		.fd = -1,
		.access = &access,
	};
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);

	(void)unused;
	access.read = (int (*)(void *, uint64_t, void *, size_t))abort;
	assert_int_equal(qsc_device_dma_map(dev, &unreachable), -ENOTSUP);
	/* What the kernel does not take is not kept here either. */
	fake.map_fail = ENOSPC;
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), -ENOSPC);
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, MEMORY_SIZE), -ENOENT);
	fake.map_fail = ENOMEM;
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), -ENOMEM);
	fake.map_fail = 0;
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), 0);
	/* Large pages fit both addresses. */
	assert_int_equal((fake.last_va ^ MEMORY_IOVA) & 0x1fffff, 0);
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), -EEXIST);
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, 4096), -ENOENT);
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, MEMORY_SIZE), -ENOENT);
	assert_int_equal(fake.maps, 1);
	assert_int_equal(fake.unmaps, 1);
	close(fd);
	end(dev);
}

/* A region of a stopped device is not what is at its address; also when it is stopped meanwhile. */
static void test_stopped_peer(void **unused)
{
	struct qsc_device *dev = begin();
	struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = 4096,
		.flags = QSC_DMA_PEER | QSC_DMA_READ,
		.fd = -1,
	};

	(void)unused;
	assert_int_equal(qsc_device_region_map(dev, 0, 0, 4096, PROT_READ, &mapping.vaddr), 0);
	(void)enter(dev, QSC_STATE_STOP);
	assert_int_equal(qsc_device_dma_map(dev, &mapping), -EBUSY);
	assert_int_equal(fake.maps, 0);
	(void)enter(dev, QSC_STATE_RUNNING);
	fake.stop_in_map = dev;
	assert_int_equal(qsc_device_dma_map(dev, &mapping), -EBUSY);
	assert_int_equal(fake.maps, 1);
	assert_int_equal(fake.unmaps, 1);
	(void)enter(dev, QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_dma_map(dev, &mapping), 0);
	assert_int_equal(fake.maps, 2);
	end(dev);
}

/* The device's log starts and cannot report, so the IOMMU's is used. */
static void test_log_of_iommu(void **unused)
{
	const struct qsc_dma_range range = {MEMORY_IOVA, 2 * MEMORY_SIZE};
	struct qsc_migration_info info;
	struct qsc_device *dev;
	uint64_t page_size = 65536;
	uint64_t bitmap[16] = {0};
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);

	(void)unused;
	fake_begin();
	fake.device_log = true;
	fake.report_fail = EOPNOTSUPP;
	fake.tracks = true;
	assert_int_equal(open_fake(&dev, NULL, false), 0);
	assert_int_equal(qsc_device_get_migration(dev, &info), 0);
	assert_true(info.dirty_log);
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), 0);
	assert_int_equal(qsc_device_log_start(dev, &page_size, &range, 1), 0);
	assert_int_equal(page_size, 4096);
	assert_true(fake.tracking);
	assert_int_equal(qsc_device_log_start(dev, &page_size, &range, 1), -EBUSY);
	fake.dirty_iova = MEMORY_IOVA + 0x12000;
	/* Coarser than it was tracked, and beyond what is mapped (LOG-3). */
	assert_int_equal(qsc_device_log_report(dev, MEMORY_IOVA, 2 * MEMORY_SIZE, 65536, bitmap),
			 0);
	assert_int_equal(bitmap[0], 1 << 1);
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(qsc_device_log_report(dev, MEMORY_IOVA, MEMORY_SIZE, 65536, bitmap), 0);
	assert_int_equal(bitmap[0], 0);
	/* Nobody can tell any more what was written: all of it, once. */
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(
		qsc_device_log_report(dev, MEMORY_IOVA + 0x100000, 0x100000, 65536, bitmap), 0);
	assert_int_equal(bitmap[0], 0xffff);
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(qsc_device_log_report(dev, MEMORY_IOVA, MEMORY_SIZE, 65536, bitmap), 0);
	assert_int_equal(bitmap[0], ~0xffff0000ULL);
	assert_int_equal(qsc_device_log_stop(dev), 0);
	assert_int_equal(qsc_device_log_stop(dev), -EINVAL);
	close(fd);
	end(dev);
}

/* LOG-1 where pages and ranges do not agree: a log within pages, a report as large as can be. */
static void test_log_within_pages(void **unused)
{
	const struct qsc_dma_range range = {MEMORY_IOVA + 0x1800, 0x1000};
	struct qsc_device *dev;
	uint64_t page_size = 4096;
	uint64_t bitmap[MEMORY_SIZE / QSC_PAGE_SIZE / 64] = {0};
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);

	(void)unused;
	fake_begin();
	fake.tracks = true;
	assert_int_equal(open_fake(&dev, NULL, false), 0);
	assert_int_equal(fake_map(dev, MEMORY_IOVA, fd), 0);
	assert_int_equal(qsc_device_log_start(dev, &page_size, &range, 1), 0);
	fake.dirty_iova = MEMORY_IOVA + 0x2000;
	assert_int_equal(qsc_device_log_report(dev, 0, UINT64_MAX, 1ULL << 63, bitmap), 0);
	assert_int_equal(bitmap[0], 1);
	bitmap[0] = 0;
	assert_int_equal(qsc_device_dma_unmap(dev, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(qsc_device_log_report(dev, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap), 0);
	assert_int_equal(bitmap[0], 3 << 1);
	assert_int_equal(qsc_device_log_stop(dev), 0);
	close(fd);
	end(dev);
}

static bool has_log(void)
{
	struct qsc_migration_info info;
	struct qsc_device *dev;

	assert_int_equal(open_fake(&dev, NULL, false), 0);
	assert_int_equal(qsc_device_get_migration(dev, &info), 0);
	assert_int_equal(fake.maps, fake.unmaps);
	assert_false(fake.tracking);
	end(dev);
	return info.dirty_log;
}

/* LOG-1: a log of the IOMMU that starts and stops, and cannot report. */
static void test_log_proved(void **unused)
{
	(void)unused;
	fake_begin();
	fake.tracks = true;
	assert_true(has_log());
	assert_int_equal(fake.maps, 1);
	fake.iommu_fail = EOPNOTSUPP;
	assert_false(has_log());
	/* Where it cannot be asked it is not judged: no memory may be pinned, say. */
	fake.map_fail = ENOMEM;
	assert_true(has_log());
	/* A page table that the device cannot have does not stay. */
	fake_begin();
	fake.tracks = fake.no_table = true;
	assert_false(has_log());
	assert_int_equal(fake.destroyed, 1);
}

static void test_no_log(void **unused)
{
	(void)unused;
	fake_begin();
	assert_false(has_log());
}

/* ---- the way to a device ---- */

static void refused(int number, int expected, const char *says)
{
	const struct qsc_kernel_place place = {
		.name = "fake",
		.cdev = "/dev/vfio/devices/fake",
		.group = "/dev/vfio/fake",
		.group_id = "none",
		.device = "fake",
	};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_kernel_files files;

	fake.bind_fail = number;
	fake.group_tries = 0;
	assert_int_equal(qsc_kernel_attach(&place, QSC_KERNEL_AUTO, &files, &err), -expected);
	if (!strstr(err.text, says))
		fail_msg("%s: '%s'", strerror(number), err.text);
	/* Nothing is left open, and the other way was tried. */
	assert_int_equal(files.device, -1);
	assert_int_equal(fake_count_files(), 0);
	assert_int_equal(fake.group_tries, 1);
}

/* The kernel's errno has several reasons: what is said names each that is left. */
static void test_bind_refused(void **unused)
{
	const struct qsc_kernel_place place = {.name = "fake", .cdev = "/dev/vfio/devices/fake"};
	struct qsc_kernel_place missing = {.name = "x", .cdev = "/dev/vfio/devices/missing"};
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_kernel_files files;

	(void)unused;
	fake_begin();
	/* A path that is wrong; a device that has lost its file. */
	assert_int_equal(qsc_kernel_attach(&missing, QSC_KERNEL_AUTO, &files, &err), -ENOENT);
	assert_non_null(strstr(err.text, "there is no /dev/vfio/devices/missing"));
	assert_int_equal(qsc_kernel_attach(&missing, QSC_KERNEL_LEGACY, &files, &err), -ENOENT);
	assert_non_null(strstr(err.text, "no device behind /dev/vfio/devices/missing"));
	(void)snprintf(missing.device, sizeof(missing.device), "0000:3b:00.2");
	assert_int_equal(qsc_kernel_attach(&missing, QSC_KERNEL_AUTO, &files, &err), -ENODEV);
	assert_non_null(strstr(err.text, "there is no /dev/vfio/devices/missing; is the driver"));
	/* The other way does not help: another program has the group. */
	fake.groups = 1;
	refused(EPERM, EPERM, "interrupt remapping");
	refused(EPERM, EPERM, "has a device of its IOMMU group");
	refused(EINVAL, EBUSY, "not coherent");
	refused(EBUSY, EBUSY, "must let go first");
	refused(ENOMEM, ENOMEM, "bind it to iommufd");
	fake.bind_fail = 0;
	fake.groups = 0;
	assert_int_equal(qsc_kernel_attach(&place, QSC_KERNEL_AUTO, &files, NULL), 0);
	assert_int_equal(files.space->ioas, 3);
	assert_int_equal(files.space->hwpt, 0);
	qsc_kernel_detach(&files, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lost_session),
		cmocka_unit_test(test_lost_session_of_load),
		cmocka_unit_test(test_unrestored_mapping),
		cmocka_unit_test(test_gone),
		cmocka_unit_test(test_gone_in_session),
		cmocka_unit_test(test_failure_is_read),
		cmocka_unit_test(test_drained),
		cmocka_unit_test(test_refused_load),
		cmocka_unit_test(test_let_go),
		cmocka_unit_test(test_found_stopped),
		cmocka_unit_test(test_wild_description),
		cmocka_unit_test(test_access_and_stop),
		cmocka_unit_test(test_waiting_transfer),
		cmocka_unit_test(test_discarded),
		cmocka_unit_test(test_many_areas),
		cmocka_unit_test(test_held_triggers),
		cmocka_unit_test(test_trusted_triggers),
		cmocka_unit_test(test_raw),
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_mapping),
		cmocka_unit_test(test_log_of_iommu),
		cmocka_unit_test(test_log_within_pages),
		cmocka_unit_test(test_log_proved),
		cmocka_unit_test(test_no_log),
		cmocka_unit_test(test_bind_refused),
		cmocka_unit_test(test_stopped_peer),
	};

	/* A session is a pipe here. */
	(void)signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
