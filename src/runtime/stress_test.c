/* SPDX-License-Identifier: MIT */
/*
 * Everything at once: a device that writes memory and raises interrupts as fast as it can, a user
 * that accesses registers, another that reads the dirty log, and the state going round and round.
 * Each time the device has stopped it must really stand still, every page that changed must have
 * been reported, and what was saved must be what it has; in the end no interrupt may be missing.
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/fd.h"
#include "runtime/test_model.h"

/* The memory of a running device is saved while it changes; a page that did is saved again. */
const char *__tsan_default_suppressions(void);
const char *__tsan_default_suppressions(void)
{
	return "race:qsc_save_read\nrace:qsc_block_page_is_zero\n";
}

#define PAGES  96U
#define ROUNDS 120U
#define IOVA   0x40000000ULL

struct stress {
	struct test_device *device;
	struct test_device *target;
	_Atomic bool end;
	uint8_t *memory;
	uint8_t *before; /* as it was when the device stopped last */
	pthread_mutex_t lock;
	uint64_t reported[2]; /* since then; under lock */
	int vectors[TEST_VECTORS];
	uint64_t delivered;
	uint64_t done; /* when the device stopped last */
	_Atomic uint64_t accesses;
};

static void report(struct stress *stress, unsigned int shift)
{
	uint64_t bitmap[2] = {0};

	pthread_mutex_lock(&stress->lock);
	assert_int_equal(qsc_device_log_report(stress->device->dev, IOVA, PAGES * 4096ULL,
					       4096ULL << shift, bitmap),
			 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		if (qsc_bitmap_test(bitmap, page >> shift))
			qsc_bitmap_set(stress->reported, page);
	}
	pthread_mutex_unlock(&stress->lock);
}

static void *read_log(void *arg)
{
	struct stress *stress = arg;
	unsigned int n = 0;

	while (!atomic_load(&stress->end)) {
		report(stress, n++ % 2);
		usleep(50);
	}
	return NULL;
}

static void *use_registers(void *arg)
{
	struct stress *stress = arg;
	struct qsc_device *dev = stress->device->dev;
	uint64_t n = 0;

	while (!atomic_load(&stress->end)) {
		uint64_t value = ++n;

		assert_int_equal(qsc_device_region_write(dev, 0, REG_SCRATCH, &value, 8), 8);
		assert_int_equal(qsc_device_region_read(dev, 0, REG_SCRATCH, &value, 8), 8);
		assert_true(value <= n || value == UINT64_MAX);
		assert_int_equal(
			qsc_device_region_write(dev, 2, n * 4104 % TEST_BAR2_SIZE & ~7ULL, &n, 8),
			8);
		value = 4;
		assert_int_equal(qsc_device_region_write(dev, 0, REG_DOORBELL, &value, 4), 4);
		atomic_store(&stress->accesses, n);
		if (!(n % 64))
			usleep(20);
	}
	return NULL;
}

static void collect_interrupts(struct stress *stress)
{
	for (uint32_t i = 0; i < TEST_VECTORS; i++)
		stress->delivered += qsc_eventfd_drain(stress->vectors[i]);
}

/* Move the stream as far as it goes; the last result. */
static ssize_t move(struct stress *stress, uint64_t from, uint64_t to)
{
	uint8_t bytes[20000];

	for (;;) {
		ssize_t n = qsc_device_session_read(stress->device->dev, from, bytes,
						    sizeof(bytes));

		if (n <= 0)
			return n;
		assert_int_equal(
			qsc_device_session_write(stress->target->dev, to, bytes, (size_t)n), n);
	}
}

/* The device has stopped: what can be said of it now? */
static void check_rest(struct stress *stress)
{
	uint64_t done = test_state_of(stress->device)->done;

	report(stress, 0);
	pthread_mutex_lock(&stress->lock);
	for (uint64_t page = 0; page < PAGES; page++) {
		if (memcmp(stress->memory + page * 4096ULL, stress->before + page * 4096ULL,
			   4096) != 0)
			assert_true(qsc_bitmap_test(stress->reported, page));
	}
	memset(stress->reported, 0, sizeof(stress->reported));
	pthread_mutex_unlock(&stress->lock);
	memcpy(stress->before, stress->memory, PAGES * 4096ULL);
	usleep(200);
	assert_memory_equal(stress->before, stress->memory, PAGES * 4096ULL);
	assert_int_equal(done, test_state_of(stress->device)->done);
	collect_interrupts(stress);
	assert_true(stress->delivered <= done);
	stress->done = done;
}

static void go_round(struct stress *stress)
{
	struct qsc_device *dev = stress->device->dev;
	uint64_t from;
	uint64_t to;
	uint64_t none;

	assert_int_equal(qsc_device_set_state(stress->target->dev, QSC_STATE_RESUMING, &to), 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &from), 0);
	assert_int_equal(move(stress, from, to), -ENOMSG);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_PRE_COPY_P2P, &none), 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &none), 0);
	check_rest(stress);
	assert_int_equal(move(stress, from, to), 0);
	assert_int_equal(qsc_device_set_state(stress->target->dev, QSC_STATE_STOP, &none), 0);
	assert_memory_equal(qsc_block_data(stress->device->rt, 0),
			    qsc_block_data(stress->target->rt, 0), TEST_BAR2_SIZE);
	assert_int_equal(test_state_of(stress->device)->done, test_state_of(stress->target)->done);
	assert_int_equal(qsc_device_reset(stress->target->dev), 0);
	assert_int_equal(qsc_device_set_state(dev, QSC_STATE_RUNNING, &none), 0);
}

static void begin(struct stress *stress)
{
	const struct qsc_dma_range range = {IOVA, PAGES * 4096ULL};
	struct qsc_runtime_options options = test_options(NULL, 7);
	struct qsc_dma_mapping mapping = {
		.iova = IOVA, .size = range.size, .flags = QSC_DMA_READ | QSC_DMA_WRITE, .fd = -1};
	uint64_t page_size = 4096;

	memset(stress, 0, sizeof(*stress));
	pthread_mutex_init(&stress->lock, NULL);
	options.manual = false;
	stress->device = test_make(&options);
	stress->target = test_new(7);
	stress->memory = calloc(PAGES, 4096);
	stress->before = calloc(PAGES, 4096);
	assert_true(stress->memory && stress->before);
	mapping.vaddr = stress->memory;
	assert_int_equal(qsc_device_dma_map(stress->device->dev, &mapping), 0);
	assert_int_equal(qsc_device_log_start(stress->device->dev, &page_size, &range, 1), 0);
	for (uint32_t i = 0; i < TEST_VECTORS; i++) {
		stress->vectors[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		assert_true(stress->vectors[i] >= 0);
	}
	assert_int_equal(qsc_device_set_eventfds(stress->device->dev, VFIO_PCI_MSIX_IRQ_INDEX,
						 stress->vectors, TEST_VECTORS),
			 0);
	test_poke(stress->device, REG_DEST, IOVA);
	test_poke(stress->device, REG_WINDOW, PAGES * 4096ULL);
	test_poke(stress->device, REG_REPEAT, UINT32_MAX);
	test_poke(stress->device, REG_DOORBELL, 0);
}

static void test_everything_at_once(void **unused)
{
	pthread_t log_thread;
	pthread_t register_thread;
	struct stress stress;
	uint64_t done;

	begin(&stress);
	assert_int_equal(pthread_create(&log_thread, NULL, read_log, &stress), 0);
	assert_int_equal(pthread_create(&register_thread, NULL, use_registers, &stress), 0);
	/* However seldom the threads have their turn, each is to have had many. */
	for (unsigned int round = 0;
	     round < ROUNDS || stress.done <= ROUNDS || atomic_load(&stress.accesses) <= ROUNDS;
	     round++) {
		go_round(&stress);
		if (round % 3 == 0)
			usleep(300);
	}
	atomic_store(&stress.end, true);
	pthread_join(log_thread, NULL);
	pthread_join(register_thread, NULL);
	test_poke(stress.device, REG_REPEAT, 0);
	/* Into STOP and back: nothing is under way, and nothing is held any more. */
	test_go(stress.device, QSC_STATE_STOP);
	done = test_state_of(stress.device)->done;
	test_go(stress.device, QSC_STATE_RUNNING);
	collect_interrupts(&stress);
	assert_int_equal(stress.delivered, done);
	for (uint32_t i = 0; i < TEST_VECTORS; i++)
		close(stress.vectors[i]);
	test_end(stress.device);
	test_end(stress.target);
	free(stress.memory);
	free(stress.before);
	pthread_mutex_destroy(&stress.lock);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_everything_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
