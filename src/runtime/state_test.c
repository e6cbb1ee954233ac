/* SPDX-License-Identifier: MIT */
/* Unit tests of the state machine: every path of every flag set, and what each arc does. */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/fd.h"
#include "runtime/test_model.h"

static const uint32_t flag_sets[] = {1, 3, 5, 7};

/* ARC-1 to ARC-4: every request from every state, against the contract's walk. */
static void test_every_request_follows_the_contract(void **unused)
{
	for (size_t f = 0; f < 4; f++) {
		struct test_device *device = test_new(flag_sets[f]);

		for (uint32_t from = 1; from < QSC_STATE_COUNT; from++) {
			/* A load cannot be left by itself; see the tests of sessions. */
			if (!qsc_state_exists(flag_sets[f], from) || from == QSC_STATE_RESUMING)
				continue;
			for (uint32_t to = 0; to < QSC_STATE_COUNT + 1; to++) {
				bool refused = qsc_contract_next(flag_sets[f], from, to) < 0;
				uint64_t session = 1;

				assert_int_equal(qsc_device_reset(device->dev), 0);
				test_go(device, from);
				assert_int_equal(qsc_device_set_state(device->dev, to, &session),
						 refused ? -EINVAL : 0);
				assert_int_equal(test_now(device), refused ? from : to);
			}
		}
		test_end(device);
	}
}

static void test_a_new_device_runs(void **unused)
{
	struct test_device *device = test_new(7);

	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	assert_int_equal(device->resets, 1);
	assert_int_equal(device->starts, 1);
	test_go(device, QSC_STATE_STOP);
	assert_int_equal(device->stops, 1);
	test_go(device, QSC_STATE_RUNNING_P2P);
	assert_int_equal(device->starts, 1);
	test_go(device, QSC_STATE_RUNNING);
	assert_int_equal(device->starts, 2);
	test_go(device, QSC_STATE_PRE_COPY);
	assert_int_equal(device->starts, 2);
	test_end(device);
}

/* DEV-7: all ones and no effect while stopped; works in the P2P states. */
static void test_registers_of_a_stopped_device(void **unused)
{
	static const enum qsc_state stopped[] = {QSC_STATE_STOP, QSC_STATE_STOP_COPY};
	struct test_device *device = test_new(7);

	test_poke(device, REG_SCRATCH, 42);
	for (size_t i = 0; i < 2; i++) {
		test_go(device, stopped[i]);
		assert_int_equal(test_peek(device, REG_SCRATCH), UINT64_MAX);
		test_poke(device, REG_SCRATCH, 43);
		test_go(device, QSC_STATE_RUNNING_P2P);
		assert_int_equal(test_peek(device, REG_SCRATCH), 42);
	}
	test_poke(device, REG_SCRATCH, 44);
	test_go(device, QSC_STATE_RUNNING);
	assert_int_equal(test_peek(device, REG_SCRATCH), 44);
	test_end(device);
}

/* ARC-5, ARC-6: a stop() or start() that fails leaves ERROR, and only a reset leads out. */
static void test_a_failing_model_ends_in_error(void **unused)
{
	struct test_device *device = test_new(3);
	uint64_t session;

	device->fail_stop = EIO;
	assert_int_equal(qsc_device_set_state(device->dev, QSC_STATE_STOP, &session), -EIO);
	assert_int_equal(test_now(device), QSC_STATE_ERROR);
	for (uint32_t to = 0; to <= QSC_STATE_COUNT; to++)
		assert_int_equal(qsc_device_set_state(device->dev, to, &session), -EINVAL);
	assert_int_equal(test_peek(device, REG_SCRATCH), UINT64_MAX);
	device->fail_stop = 0;
	assert_int_equal(qsc_device_reset(device->dev), 0);
	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	test_go(device, QSC_STATE_STOP);
	device->fail_start = ENXIO;
	assert_int_equal(qsc_device_set_state(device->dev, QSC_STATE_RUNNING, &session), -ENXIO);
	assert_int_equal(test_now(device), QSC_STATE_ERROR);
	test_end(device);
}

/* Bring a device to any state, ERROR included. Returns the session that this opened, or 0. */
static uint64_t reach(struct test_device *device, enum qsc_state state)
{
	uint64_t session = 0;

	assert_int_equal(qsc_device_reset(device->dev), 0);
	device->fail_stop = state == QSC_STATE_ERROR ? EIO : 0;
	assert_int_equal(qsc_device_set_state(device->dev,
					      state == QSC_STATE_ERROR ? QSC_STATE_STOP : state,
					      &session),
			 -device->fail_stop);
	device->fail_stop = 0;
	assert_int_equal(test_now(device), state);
	return session;
}

static int refusal(enum qsc_action action, enum qsc_state state)
{
	return -qsc_verdict_errno(qsc_contract_verdict(action, state));
}

static bool discards(enum qsc_action action, enum qsc_state state)
{
	return qsc_contract_verdict(action, state) == QSC_VERDICT_DISCARD;
}

static void check_regions(struct test_device *device, enum qsc_state state)
{
	bool discarded = discards(QSC_ACTION_REGISTER_ACCESS, state);
	struct qsc_region_info info;
	uint32_t word = 0x55aa;
	int refused = refusal(QSC_ACTION_CONFIG_WRITE, state);

	assert_int_equal(test_peek(device, REG_RINGS), discarded ? UINT64_MAX : 0);
	assert_int_equal(qsc_device_region_write(device->dev, 2, 0, &word, 4), 4);
	assert_int_equal(*(uint32_t *)qsc_block_data(device->rt, 0), discarded ? 0 : 0x55aa);
	assert_int_equal(qsc_device_region_read(device->dev, 4, 12, &word, 4), 4);
	assert_int_equal(word, discarded ? UINT32_MAX : 1);
	assert_int_equal(
		qsc_device_region_read(device->dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, &word, 4), 4);
	assert_int_equal(word, 0x00ee1b36);
	assert_int_equal(
		qsc_device_region_write(device->dev, VFIO_PCI_CONFIG_REGION_INDEX, 4, "\6", 1),
		refused ? refused : 1);
	assert_int_equal(qsc_device_get_region_info(device->dev, 2, &info), 0);
	assert_true(info.stopped_known);
	assert_int_equal(info.stopped, QSC_VERDICT_DISCARD);
}

static void check_interrupts(struct test_device *device, enum qsc_state state)
{
	const struct qsc_irq_set trigger = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.start = 1,
		.count = 1,
	};
	bool runs = qsc_contract_verdict(QSC_ACTION_DEVICE_IRQ, state) == QSC_VERDICT_ALLOW;
	int fds[] = {-1, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};

	assert_int_equal(qsc_device_set_eventfds(device->dev, VFIO_PCI_MSIX_IRQ_INDEX, fds, 2),
			 refusal(QSC_ACTION_IRQ_SETUP, state));
	assert_int_equal(qsc_device_set_irqs(device->dev, &trigger),
			 refusal(QSC_ACTION_IRQ_TRIGGER, state));
	qsc_irq_raise(device->rt, VFIO_PCI_MSIX_IRQ_INDEX, 1);
	assert_int_equal(qsc_eventfd_drain(fds[1]), runs ? 2 : 0);
	assert_int_equal(qsc_device_set_eventfds(device->dev, VFIO_PCI_MSIX_IRQ_INDEX, NULL, 0),
			 refusal(QSC_ACTION_IRQ_SETUP, state));
	close(fds[1]);
}

static void check_dma(struct test_device *device, enum qsc_state state, bool tells)
{
	static uint8_t memory[8192];
	struct qsc_dma_mapping mapping = {.iova = 0x1000,
					  .size = 0x1000,
					  .flags = QSC_DMA_READ | QSC_DMA_WRITE,
					  .vaddr = memory,
					  .fd = -1};
	enum qsc_verdict verdict = qsc_contract_verdict(QSC_ACTION_DEVICE_MEMORY_DMA, state);
	bool reaches = verdict == QSC_VERDICT_ALLOW || (verdict == QSC_VERDICT_IF_TOLD && tells);
	bool peers = qsc_contract_verdict(QSC_ACTION_DEVICE_PEER_DMA, state) == QSC_VERDICT_ALLOW;
	const struct qsc_dma_range range = {0x1000, 0x2000};
	int refused = refusal(QSC_ACTION_LOG_START, state);
	uint64_t page_size = 65536;
	uint64_t bits = 0;

	assert_int_equal(qsc_device_dma_map(device->dev, &mapping), 0);
	mapping.iova = 0x2000;
	mapping.flags |= QSC_DMA_PEER;
	assert_int_equal(qsc_device_dma_map(device->dev, &mapping), 0);
	assert_int_equal(qsc_device_log_start(device->dev, &page_size, &range, 1), refused);
	assert_int_equal(qsc_dma_write(device->rt, 0x1000, "x", 1), reaches ? 0 : -EAGAIN);
	assert_int_equal(qsc_dma_write(device->rt, 0x2000, "x", 1), peers ? 0 : -EAGAIN);
	if (!refused) {
		assert_int_equal(page_size, 4096);
		assert_int_equal(qsc_device_log_start(device->dev, &page_size, &range, 1), -EBUSY);
		assert_int_equal(qsc_device_log_report(device->dev, 0x1000, 0x2000, 4096, &bits),
				 0);
		assert_int_equal(bits, (reaches ? 1 : 0) | (peers ? 2 : 0));
		assert_int_equal(qsc_device_log_stop(device->dev), 0);
	}
	assert_int_equal(qsc_device_dma_unmap(device->dev, 0x1000, 0x1000), 0);
	assert_int_equal(qsc_device_dma_unmap(device->dev, 0x2000, 0x1000), 0);
}

static void check_sessions(struct test_device *device, enum qsc_state state, uint64_t session)
{
	struct qsc_precopy_info info;
	uint8_t byte;
	int refused = refusal(QSC_ACTION_DATA_READ, state);
	int no_write = refusal(QSC_ACTION_DATA_WRITE, state);
	int no_info = refusal(QSC_ACTION_PRECOPY_INFO, state);
	uint64_t size;

	assert_int_equal(qsc_device_session_read(device->dev, session, &byte, 1),
			 refused ? refused : 1);
	assert_int_equal(qsc_device_session_write(device->dev, session, "Q", 1),
			 no_write ? no_write : 1);
	assert_int_equal(qsc_device_session_precopy_info(device->dev, session, &info), no_info);
	assert_int_equal(qsc_device_data_size(device->dev, &size),
			 state == QSC_STATE_ERROR ? -EIO : 0);
}

/* The allowed list, cell by cell, in every state of every flag set. */
static void test_the_allowed_list(void **unused)
{
	for (size_t f = 0; f < 8; f++) {
		struct qsc_runtime_options options = test_options(NULL, flag_sets[f % 4]);
		struct test_device *device;
		uint64_t session;

		options.tells_peers = f / 4;
		device = test_make(&options);
		for (uint32_t state = 0; state < QSC_STATE_COUNT; state++) {
			if (!qsc_state_exists(flag_sets[f % 4], state))
				continue;
			session = reach(device, state);
			check_regions(device, state);
			check_interrupts(device, state);
			check_dma(device, state, f / 4);
			check_sessions(device, state, session);
			/* ARC-5, STATE-2 */
			assert_int_equal(qsc_device_reset(device->dev), 0);
			assert_int_equal(test_now(device), QSC_STATE_RUNNING);
			assert_int_equal(*(uint32_t *)qsc_block_data(device->rt, 0), 0);
		}
		test_end(device);
	}
}

/* STATE-5: what the next user finds. */
static void test_STATE_5_letting_go(void **unused)
{
	for (uint32_t state = 0; state < QSC_STATE_COUNT; state++) {
		struct test_device *device = test_new(7);
		bool kept = qsc_state_is_active((enum qsc_state)state);
		static uint8_t memory[4096];
		const struct qsc_dma_mapping mapping = {.iova = 0x1000,
							.size = 0x1000,
							.flags = QSC_DMA_READ,
							.vaddr = memory,
							.fd = -1};
		const struct qsc_dma_range range = {0x1000, 0x1000};
		struct qsc_device *second;
		uint64_t page_size = 4096;
		uint64_t bits;
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		assert_int_equal(qsc_runtime_open(device->rt, &second), -EBUSY);
		reach(device, state);
		test_state_of(device)->scratch = 77;
		assert_int_equal(qsc_device_dma_map(device->dev, &mapping), 0);
		if (state != QSC_STATE_ERROR) {
			assert_int_equal(qsc_device_log_start(device->dev, &page_size, &range, 1),
					 0);
			assert_int_equal(qsc_device_set_eventfds(device->dev,
								 VFIO_PCI_MSIX_IRQ_INDEX, &fd, 1),
					 0);
		}
		qsc_device_close(device->dev);
		assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
		assert_int_equal(test_now(device), QSC_STATE_RUNNING);
		assert_int_equal(test_peek(device, REG_SCRATCH), kept ? 77 : 0);
		assert_int_equal(qsc_dma_read(device->rt, 0x1000, &bits, 1), -EFAULT);
		assert_int_equal(qsc_device_log_report(device->dev, 0x1000, 4096, 4096, &bits),
				 -EINVAL);
		qsc_irq_raise(device->rt, VFIO_PCI_MSIX_IRQ_INDEX, 0);
		assert_int_equal(qsc_eventfd_drain(fd), 0);
		close(fd);
		test_end(device);
	}
}

struct race {
	struct test_device *device;
	_Atomic bool end;
};

static void *reset_again(void *arg)
{
	struct race *race = arg;

	while (!atomic_load(&race->end))
		assert_int_equal(qsc_device_reset(race->device->dev), 0);
	return NULL;
}

/* A reset may come at any time, from any thread; nobody uses a session that it has ended. */
static void test_reset_against_everything(void **unused)
{
	struct race race = {.device = test_new(7)};
	struct qsc_device *dev = race.device->dev;
	struct qsc_precopy_info info;
	uint8_t bytes[300];
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, reset_again, &race), 0);
	for (int i = 0; i < 300; i++) {
		uint64_t session = 0;
		uint64_t none;

		if (qsc_device_set_state(dev, i % 3 ? QSC_STATE_PRE_COPY : QSC_STATE_RESUMING,
					 &session) < 0)
			continue;
		(void)qsc_device_session_read(dev, session, bytes, sizeof(bytes));
		(void)qsc_device_session_write(dev, session, "QSC", 3);
		(void)qsc_device_session_precopy_info(dev, session, &info);
		(void)qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &none);
		(void)qsc_device_session_read(dev, session, bytes, sizeof(bytes));
	}
	atomic_store(&race.end, true);
	pthread_join(thread, NULL);
	assert_int_equal(qsc_device_reset(dev), 0);
	assert_int_equal(test_now(race.device), QSC_STATE_RUNNING);
	test_end(race.device);
}

static void test_impossible_descriptions(void **unused)
{
	struct qsc_region_desc region = test_regions[0];
	struct qsc_doorbell_desc doorbell = test_doorbell;
	struct qsc_block_desc block = test_block;
	struct qsc_block_desc many[QSC_LAYOUT_PARTS];
	char names[QSC_LAYOUT_PARTS][16];
	struct qsc_runtime *rt;

	for (int i = 0; i < 15; i++) {
		struct qsc_runtime_options options = test_options(NULL, 7);
		struct qsc_error err = QSC_ERROR_NONE;

		region = test_regions[i == 6 || i == 7];
		doorbell = test_doorbell;
		block = test_block;
		if (i >= 3 && i <= 9) {
			options.regions = &region;
			options.num_regions = 1;
		}
		options.doorbells = &doorbell;
		options.blocks = &block;
		if (i == 0)
			options.migration_flags = 2;
		if (i == 1)
			options.msix_vectors = 2049;
		if (i == 2)
			options.msi_vectors = 33;
		if (i == 3)
			region.size = 4095;
		if (i == 4)
			region.index = 6;
		if (i == 5)
			region.index = 4;
		if (i == 6)
			region.block = 1;
		if (i == 7)
			block.size *= 2;
		if (i == 8)
			region.flags = VFIO_REGION_INFO_FLAG_MMAP;
		if (i == 9)
			region.flags = 0;
		if (i == 10)
			doorbell.offset = 4095;
		if (i == 11)
			block.size = 4095;
		if (i == 12)
			block.name = "";
		if (i == 13)
			block.name = "\n"; /* names go into messages */
		if (i == 14) {
			/* Each is possible, and together with the sections they are too many. */
			for (uint32_t k = 0; k < QSC_LAYOUT_PARTS; k++) {
				(void)snprintf(names[k], sizeof(names[k]), "block%u", k);
				many[k] = (struct qsc_block_desc){.name = names[k],
								  .size = block.size};
			}
			options.blocks = many;
			options.num_blocks = QSC_LAYOUT_PARTS;
		}
		assert_int_equal(qsc_runtime_create(&test_model, NULL, &options, &rt, &err),
				 -EINVAL);
		assert_int_equal(err.number, EINVAL);
		assert_true(err.text[0]);
	}
}

/* What was rung before a stop has happened before it; what is rung while stopped is lost. */
static void test_doorbells(void **unused)
{
	struct test_device *device = test_new(3);
	struct qsc_io_fd bell;

	assert_int_equal(qsc_device_region_io_fds(device->dev, 2, &bell, 1), 0);
	assert_int_equal(qsc_device_region_io_fds(device->dev, 0, NULL, 0), 1);
	assert_int_equal(qsc_device_region_io_fds(device->dev, 0, &bell, 1), 1);
	assert_int_equal(bell.offset, REG_DOORBELL);
	/* Whoever has it can make it a blocking one: the stop below must not wait for a ring. */
	assert_int_equal(fcntl(bell.fd, F_SETFL, O_RDWR), 0);
	(void)test_steps(device);
	assert_int_equal(qsc_eventfd_signal(bell.fd, 1), 0);
	assert_true(qsc_runtime_step(device->rt, 0));
	assert_int_equal(test_peek(device, REG_RINGS), 1);
	(void)test_steps(device);
	assert_false(qsc_runtime_step(device->rt, 0));
	assert_int_equal(qsc_eventfd_signal(bell.fd, 3), 0);
	test_go(device, QSC_STATE_STOP);
	assert_int_equal(test_state_of(device)->rings, 2);
	assert_int_equal(qsc_eventfd_signal(bell.fd, 1), 0);
	assert_false(qsc_runtime_step(device->rt, 0));
	test_go(device, QSC_STATE_RUNNING_P2P);
	assert_false(qsc_runtime_step(device->rt, 0));
	assert_int_equal(test_state_of(device)->rings, 2);
	/* No work() in a device that may do no DMA, but registers can be reached. */
	assert_int_equal(qsc_eventfd_signal(bell.fd, 1), 0);
	assert_int_equal(test_steps(device), 1);
	assert_int_equal(test_state_of(device)->rings, 3);
	test_go(device, QSC_STATE_RUNNING);
	assert_true(qsc_runtime_step(device->rt, 0));
	close(bell.fd);
	test_end(device);
}

static void write_and_raise(struct test_device *device)
{
	assert_int_equal(qsc_dma_write(device->rt, 0x10000, "late", 4), -EFAULT);
	qsc_irq_raise(device->rt, VFIO_PCI_MSIX_IRQ_INDEX, 0);
}

/* STATE-5: let go in a P2P state the device starts again, but not for the user who has gone. */
static void test_starting_again_does_not_reach_the_old_user(void **unused)
{
	struct test_device *device = test_new(7);
	uint64_t memory[512] = {0};
	const struct qsc_dma_mapping mapping = {
		.iova = 0x10000,
		.size = sizeof(memory),
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = memory,
		.fd = -1,
	};
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.count = 1,
		.fds = &fd,
	};
	unsigned int starts = device->starts;

	assert_int_equal(qsc_device_dma_map(device->dev, &mapping), 0);
	assert_int_equal(qsc_device_set_irqs(device->dev, &set), 0);
	test_go(device, QSC_STATE_RUNNING_P2P);
	qsc_irq_raise(device->rt, VFIO_PCI_MSIX_IRQ_INDEX, 0);
	device->on_start = write_and_raise;
	qsc_device_close(device->dev);
	device->on_start = NULL;
	assert_int_equal(device->starts, starts + 1);
	assert_int_equal(memory[0], 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);

	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	assert_int_equal(qsc_device_set_irqs(device->dev, &set), 0);
	assert_int_equal(qsc_eventfd_drain(fd), 0);
	close(fd);
	test_end(device);
}

static uint8_t *map_bar2(struct test_device *device, int *fd)
{
	uint64_t offset;
	uint8_t *memory;

	assert_int_equal(qsc_device_region_fd(device->dev, 2, fd, &offset), 0);
	memory = mmap(NULL, TEST_BAR2_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	assert_ptr_not_equal(memory, MAP_FAILED);
	return memory;
}

/* STATE-5: nothing that was handed out leads to the device of the next user. */
static void test_a_former_user_is_shut_out(void **unused)
{
	static const enum qsc_state states[] = {QSC_STATE_RUNNING, QSC_STATE_RUNNING_P2P,
						QSC_STATE_PRE_COPY, QSC_STATE_STOP};

	for (size_t i = 0; i < 4; i++) {
		struct test_device *device = test_new(7);
		uint8_t *block = qsc_block_data(device->rt, 0);
		struct qsc_io_fd bell;
		uint8_t *memory;
		uint8_t byte = 0;
		int fd;

		memory = map_bar2(device, &fd);
		assert_int_equal(qsc_device_region_io_fds(device->dev, 0, &bell, 1), 1);
		memory[4096] = 17;
		test_go(device, states[i]);
		qsc_device_close(device->dev);
		memory[4096] = 18;
		assert_int_equal(qsc_eventfd_signal(bell.fd, 1), 0);

		assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
		assert_ptr_equal(qsc_block_data(device->rt, 0), block);
		assert_int_equal(block[4096], states[i] == QSC_STATE_STOP ? 0 : 17);
		byte = 19;
		assert_int_equal(qsc_device_region_write(device->dev, 2, 4096, &byte, 1), 1);
		assert_int_equal(memory[4096], 18);
		assert_int_equal(block[4096], 19);
		(void)test_steps(device);
		assert_int_equal(test_peek(device, REG_RINGS), 0);
		/* Nor is what he does taken for a violation of ORD-1. */
		test_go(device, QSC_STATE_STOP);
		memory[0] = 1;
		test_go(device, QSC_STATE_RUNNING);
		assert_int_equal(device->violations, 0);
		munmap(memory, TEST_BAR2_SIZE);
		close(bell.fd);
		close(fd);
		test_end(device);
	}
}

/* Without new files there is no next user; with them again, he finds a device after its reset. */
static void test_no_files_no_next_user(void **unused)
{
	struct test_device *device = test_new(7);
	struct qsc_device *none = NULL;
	struct rlimit before;
	struct rlimit tight;
	uint8_t *memory;
	int fd;

	memory = map_bar2(device, &fd);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
	tight = before;
	tight.rlim_cur = 0;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	qsc_device_close(device->dev);
	assert_int_equal(qsc_runtime_open(device->rt, &none), -ENOMEM);
	assert_int_equal(qsc_runtime_open(device->rt, &none), -ENOMEM);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
	memory[0] = 1;
	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	assert_int_equal(test_now(device), QSC_STATE_RUNNING);
	memory[1] = 1;
	assert_int_equal(*(uint16_t *)qsc_block_data(device->rt, 0), 0);
	munmap(memory, TEST_BAR2_SIZE);
	close(fd);
	test_end(device);
}

/* The thread that watches the doorbells watches the new ones. */
static void test_new_doorbells_are_watched(void **unused)
{
	struct qsc_runtime_options options = test_options(NULL, 7);
	struct test_device *device;
	struct qsc_io_fd bells[2];

	options.manual = false;
	device = test_make(&options);
	assert_int_equal(qsc_device_region_io_fds(device->dev, 0, &bells[0], 1), 1);
	qsc_device_close(device->dev);
	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	assert_int_equal(qsc_device_region_io_fds(device->dev, 0, &bells[1], 1), 1);
	assert_int_equal(qsc_eventfd_signal(bells[0].fd, 1), 0);
	assert_int_equal(qsc_eventfd_signal(bells[1].fd, 1), 0);
	while (!test_peek(device, REG_RINGS))
		usleep(100);
	assert_int_equal(test_peek(device, REG_RINGS), 1);
	assert_int_equal(qsc_eventfd_drain(bells[0].fd), 1);
	close(bells[0].fd);
	close(bells[1].fd);
	test_end(device);
}

/* What is written to a disk is there after a reset, but not what a load left that was not accepted.
 */
static void test_non_volatile_memory_survives_a_reset(void **unused)
{
	const struct qsc_block_desc block = {
		.name = "memory", .size = TEST_BAR2_SIZE, .non_volatile = true};
	struct qsc_runtime_options options = test_options(NULL, 7);
	struct test_device *device;
	uint64_t session;
	uint64_t value;

	options.blocks = &block;
	device = test_make(&options);
	for (enum qsc_state state = QSC_STATE_STOP; state <= QSC_STATE_PRE_COPY_P2P; state++) {
		value = 0x1234 + (uint64_t)state;
		assert_int_equal(qsc_device_region_write(device->dev, 2, 8192, &value, 8), 8);
		assert_int_equal(qsc_device_set_state(device->dev, state, &session), 0);
		assert_int_equal(qsc_device_reset(device->dev), 0);
		assert_int_equal(qsc_device_region_read(device->dev, 2, 8192, &value, 8), 8);
		/* SESS-7 */
		assert_int_equal(value, state == QSC_STATE_RESUMING ? 0 : 0x1234 + (uint64_t)state);
	}
	/* STATE-5: who lets go of a stopped device leaves nothing behind. */
	assert_int_equal(qsc_device_set_state(device->dev, QSC_STATE_STOP, &session), 0);
	qsc_device_close(device->dev);
	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	assert_int_equal(qsc_device_region_read(device->dev, 2, 8192, &value, 8), 8);
	assert_int_equal(value, 0);
	test_end(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_request_follows_the_contract),
		cmocka_unit_test(test_a_new_device_runs),
		cmocka_unit_test(test_registers_of_a_stopped_device),
		cmocka_unit_test(test_a_failing_model_ends_in_error),
		cmocka_unit_test(test_the_allowed_list),
		cmocka_unit_test(test_STATE_5_letting_go),
		cmocka_unit_test(test_starting_again_does_not_reach_the_old_user),
		cmocka_unit_test(test_a_former_user_is_shut_out),
		cmocka_unit_test(test_no_files_no_next_user),
		cmocka_unit_test(test_new_doorbells_are_watched),
		cmocka_unit_test(test_reset_against_everything),
		cmocka_unit_test(test_impossible_descriptions),
		cmocka_unit_test(test_doorbells),
		cmocka_unit_test(test_non_volatile_memory_survives_a_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
