/* SPDX-License-Identifier: MIT */
/*
 * The tenant on engines in this process: that it finds nothing wrong where nothing is, and that it
 * notices each of the things it claims to account for.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <linux/vfio.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <quiesce/runtime.h>

#include "tenant_impl.h"

#define DEVICES	   3
#define STATE_SIZE (1U << 20)
#define TIMEOUT_MS 20000

struct rig {
	struct tenant_live live;
	struct tenant *tenant;
	struct qsc_device *devices[DEVICES];
	struct qsc_runtime *runtimes[DEVICES];
};

static void make_device(struct rig *rig, uint32_t i)
{
	struct dmacopy_options options = {
		.local_size = STATE_SIZE,
		.vectors = TENANT_SLOTS,
		.tells_peers = true,
	};
	struct qsc_dma_mapping memory;

	assert_int_equal(dmacopy_create(&options, &rig->runtimes[i], NULL), 0);
	assert_int_equal(qsc_runtime_open(rig->runtimes[i], &rig->devices[i]), 0);
	tenant_memory(rig->tenant, &memory);
	/* By file alone, as another process has it: DMA is ordered in a way TSan does not know. */
	memory.vaddr = NULL;
	assert_int_equal(qsc_device_dma_map(rig->devices[i], &memory), 0);
}

static void map_next(struct rig *rig, uint32_t i)
{
	struct qsc_dma_mapping peer = {
		.iova = TENANT_PEER_IOVA,
		.size = STATE_SIZE,
		.flags = QSC_DMA_WRITE | QSC_DMA_PEER,
	};

	assert_int_equal(qsc_device_region_fd(rig->devices[i + 1], DMACOPY_BAR_LOCAL, &peer.fd,
					      &peer.fd_offset),
			 0);
	assert_int_equal(qsc_device_dma_map(rig->devices[i], &peer), 0);
	close(peer.fd);
}

static int set_up(void **state)
{
	static struct rig rig;
	struct tenant_config config = {
		.devices = DEVICES,
		.memory_bytes = 8U << 20,
		.state_bytes = STATE_SIZE,
	};
	uint32_t i;

	memset(&rig, 0, sizeof(rig));
	assert_true(tenant_memory_min(&config) <= config.memory_bytes);
	assert_int_equal(tenant_create(&config, &rig.live, &rig.tenant, NULL), 0);
	for (i = 0; i < DEVICES; i++)
		make_device(&rig, i);
	for (i = 0; i + 1 < DEVICES; i++)
		map_next(&rig, i);
	tenant_attach(rig.tenant, rig.devices);
	assert_int_equal(tenant_begin(rig.tenant, NULL), 0);
	*state = &rig;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;
	uint32_t i;

	tenant_end(rig->tenant);
	for (i = 0; i < DEVICES; i++) {
		qsc_device_close(rig->devices[i]);
		qsc_runtime_destroy(rig->runtimes[i]);
	}
	tenant_destroy(rig->tenant);
	return 0;
}

static void wait_blocks(struct rig *rig, uint64_t more)
{
	uint64_t until = atomic_load(&rig->live.blocks) + more;
	int ms;

	for (ms = 0; ms < TIMEOUT_MS && atomic_load(&rig->live.blocks) < until; ms++)
		usleep(1000);
	assert_true(atomic_load(&rig->live.blocks) >= until);
}

/* False when a counter of the second engine does not come to be above that in time. */
static bool wait_register(struct rig *rig, uint32_t reg, uint64_t above, int timeout_ms)
{
	uint64_t value = 0;
	int ms;

	for (ms = 0; ms < timeout_ms; ms++) {
		assert_int_equal(dmacopy_driver_read64(rig->devices[1], reg, &value), 0);
		if (value > above)
			return true;
		usleep(1000);
	}
	return false;
}

static void finish(struct rig *rig, struct tenant_result *result)
{
	struct pollfd poll_fd = {.fd = tenant_event_fd(rig->tenant), .events = POLLIN};
	struct qsc_error err = QSC_ERROR_NONE;

	tenant_finish(rig->tenant);
	assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
	(void)tenant_failure(rig->tenant, &err);
	assert_string_equal(err.text, "");
	assert_true(tenant_finished(rig->tenant));
	tenant_get_result(rig->tenant, result);
}

static void test_nothing_wrong(void **state)
{
	struct rig *rig = *state;
	const struct tenant_layout *layout = &rig->tenant->layout;
	uint64_t cold = STATE_SIZE - TENANT_SLOTS * layout->block_bytes;
	struct tenant_result result;

	wait_blocks(rig, 300);
	finish(rig, &result);
	assert_true(result.blocks >= 300);
	assert_int_equal(result.bytes_moved, result.blocks * layout->block_bytes);
	assert_int_equal(result.bytes_wrong, 0);
	/* One a transfer: the chain's, and those that fill and fetch what is kept. */
	assert_int_equal(result.interrupts, result.blocks * (DEVICES + 1) +
						    2ULL * DEVICES * cold / layout->block_bytes);
	assert_int_equal(result.interrupts_lost, 0);
	assert_int_equal(result.interrupts_doubled, 0);
	assert_int_equal(result.retried, 0);
	assert_true(result.bytes_kept >= layout->size - layout->cold + DEVICES * cold);
}

static void test_wrong_byte_in_memory(void **state)
{
	struct rig *rig = *state;
	const struct qsc_migrate_user *user = tenant_user(rig->tenant);
	struct tenant_result result;

	wait_blocks(rig, 10);
	assert_int_equal(user->pause(user->ctx), 0);
	rig->tenant->memory[rig->tenant->layout.size - 1] ^= 1;
	assert_int_equal(user->resume(user->ctx), 0);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, 1);
}

static void test_wrong_byte_in_device(void **state)
{
	struct rig *rig = *state;
	struct tenant_result result;
	uint64_t offset;
	uint8_t *local;
	int fd;

	wait_blocks(rig, 10);
	assert_int_equal(qsc_device_region_fd(rig->devices[1], DMACOPY_BAR_LOCAL, &fd, &offset), 0);
	local = mmap(NULL, STATE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	assert_ptr_not_equal(local, MAP_FAILED);
	local[STATE_SIZE - 1] ^= 0x80;
	munmap(local, STATE_SIZE);
	close(fd);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, 1);
}

static void test_wrong_record(void **state)
{
	struct rig *rig = *state;
	const struct qsc_migrate_user *user = tenant_user(rig->tenant);
	struct tenant_result result;
	uint64_t block;

	wait_blocks(rig, TENANT_SLOTS + 1);
	assert_int_equal(user->pause(user->ctx), 0);
	/* Finished for sure, and not so long ago that another took its record. */
	block = tenant_head(rig->tenant)->result.blocks - TENANT_SLOTS - 1;
	tenant_head(rig->tenant)->records[block % TENANT_RECORDS].checksum++;
	tenant_finish(rig->tenant);
	assert_int_equal(user->resume(user->ctx), 0);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, sizeof(struct tenant_record));
}

static void test_doubled_interrupt(void **state)
{
	struct rig *rig = *state;
	struct tenant_result result;

	wait_blocks(rig, 10);
	assert_int_equal(eventfd_write(rig->tenant->irq_fds[TENANT_SLOTS + 5], 1), 0);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, 0);
	assert_int_equal(result.interrupts_lost, 0);
	assert_int_equal(result.interrupts_doubled, 1);
}

static void test_lost_interrupt(void **state)
{
	struct rig *rig = *state;
	struct tenant_result result;
	uint64_t completed;

	wait_blocks(rig, 10);
	assert_int_equal(qsc_device_set_eventfds(rig->devices[1], VFIO_PCI_MSIX_IRQ_INDEX, NULL, 0),
			 0);
	/* A transfer that ends from here on has lost it, or every block waits for one already. */
	assert_int_equal(dmacopy_driver_read64(rig->devices[1], DMACOPY_REG_COMPLETED, &completed),
			 0);
	(void)wait_register(rig, DMACOPY_REG_COMPLETED, completed, TIMEOUT_MS);
	usleep(200000);
	assert_int_equal(qsc_device_set_eventfds(rig->devices[1], VFIO_PCI_MSIX_IRQ_INDEX,
						 rig->tenant->irq_fds + TENANT_SLOTS, TENANT_SLOTS),
			 0);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, 0);
	assert_true(result.interrupts_lost > 0);
	assert_true(result.interrupts_lost <= TENANT_SLOTS);
	assert_int_equal(result.interrupts_doubled, 0);
}

/*
 * The mapping of the next engine's memory is gone while transfers into it are due, as a set of
 * devices without P2P makes it for the stop.
 */
static void open_gap(struct rig *rig)
{
	const struct qsc_migrate_user *user = tenant_user(rig->tenant);
	uint64_t session;
	bool fell_in = false;
	int tries;

	for (tries = 0; tries < 20 && !fell_in; tries++) {
		wait_blocks(rig, 10);
		/* All that the second engine does is write into the third. */
		assert_int_equal(qsc_device_set_state(rig->devices[1], QSC_STATE_STOP, &session),
				 0);
		/* Whatever is due gets as far as to it, if the tenant's thread has its turn. */
		usleep(50000);
		assert_int_equal(user->pause(user->ctx), 0);
		assert_int_equal(
			qsc_device_dma_unmap(rig->devices[1], TENANT_PEER_IOVA, STATE_SIZE), 0);
		assert_int_equal(qsc_device_set_state(rig->devices[1], QSC_STATE_RUNNING, &session),
				 0);
		fell_in = wait_register(rig, DMACOPY_REG_FAILED, 0, 500);
		map_next(rig, 1);
		assert_int_equal(user->resume(user->ctx), 0);
	}
	assert_true(fell_in);
}

static void test_gap_is_bridged(void **state)
{
	struct rig *rig = *state;
	struct tenant_result result;

	rig->tenant->config.retry_faults = true;
	open_gap(rig);
	wait_blocks(rig, 100);
	finish(rig, &result);
	assert_int_equal(result.bytes_wrong, 0);
	assert_int_equal(result.interrupts_lost, 0);
	assert_int_equal(result.interrupts_doubled, 0);
	assert_true(result.retried > 0);
}

static void test_gap_is_an_error(void **state)
{
	struct rig *rig = *state;
	struct pollfd poll_fd = {.fd = tenant_event_fd(rig->tenant), .events = POLLIN};
	struct qsc_error err = QSC_ERROR_NONE;

	open_gap(rig);
	assert_int_equal(poll(&poll_fd, 1, TIMEOUT_MS), 1);
	assert_int_equal(tenant_failure(rig->tenant, &err), -EIO);
	assert_non_null(strstr(err.text, "device 1 failed transfer 2"));
	assert_non_null(strstr(err.text, "not mapped"));
	assert_false(tenant_finished(rig->tenant));
}

/* What the engine relies on: every page the tenant itself writes is told, and nothing in a pause.
 */
static void test_dirty_pages(void **state)
{
	struct rig *rig = *state;
	const struct qsc_migrate_user *user = tenant_user(rig->tenant);
	uint64_t bitmap[(8U << 20) / TENANT_PAGE / 64] = {0};
	size_t i;

	wait_blocks(rig, 10);
	assert_int_equal(user->pause(user->ctx), 0);
	assert_int_equal(user->dirty(user->ctx, 0, bitmap), 0);
	assert_true(bitmap[0] & 1);
	memset(bitmap, 0, sizeof(bitmap));
	usleep(20000);
	assert_int_equal(user->dirty(user->ctx, 0, bitmap), 0);
	for (i = 0; i < sizeof(bitmap) / sizeof(bitmap[0]); i++)
		assert_int_equal(bitmap[i], 0);
	assert_int_equal(user->resume(user->ctx), 0);
	wait_blocks(rig, 10);
}

/* A state that is not this tenant's is refused. */
static void test_foreign_state(void **state)
{
	struct rig *rig = *state;
	const struct qsc_migrate_user *user = tenant_user(rig->tenant);
	struct tenant_cpu cpu;

	assert_int_equal(user->pause(user->ctx), 0);
	assert_int_equal(user->save(user->ctx, &cpu, sizeof(cpu)), sizeof(cpu));
	assert_int_equal(user->save(user->ctx, &cpu, sizeof(cpu) - 1), -ENOSPC);
	assert_int_equal(user->load(user->ctx, &cpu, sizeof(cpu) - 1), -EINVAL);
	cpu.devices++;
	assert_int_equal(user->load(user->ctx, &cpu, sizeof(cpu)), -EINVAL);
	cpu.devices--;
	cpu.source_identity++;
	assert_int_equal(user->load(user->ctx, &cpu, sizeof(cpu)), -EINVAL);
	cpu.source_identity--;
	assert_int_equal(user->load(user->ctx, &cpu, sizeof(cpu)), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_wrong, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_byte_in_memory, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_byte_in_device, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_wrong_record, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_doubled_interrupt, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_lost_interrupt, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gap_is_bridged, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_gap_is_an_error, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_dirty_pages, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_foreign_state, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
