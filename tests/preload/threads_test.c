/* SPDX-License-Identifier: MIT */
/*
 * The parts of the preload library used by several threads at once, without the calls that are
 * caught, so that the thread sanitizer sees them: descriptors that come and go, accesses, mappings
 * that are changed, interrupts and eventfds that are set up, states that change.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../preload/bar.h"
#include "../../preload/file.h"
#include "../../preload/ioas.h"
#include "../../preload/paths.h"
#include "abi/vfio.h"
#include "dmacopy/dmacopy.h"
#include "surface.h"

#define ROUNDS	   200
#define BAR_SIZE   16384UL
#define LOCAL_AT   ((uint64_t)DMACOPY_BAR_LOCAL << 40)
#define IOVA	   0x100000UL
#define MEMORY	   65536UL
#define CHECK(yes) ((yes) ? (void)0 : abort())

struct world {
	int iommufd;
	int device;
	uint32_t ioas;
	char *memory;
};

static int call(int fd, unsigned long command, void *arg)
{
	int error;
	struct pl_file *file = pl_file_take_up(fd, &error);
	int result;

	CHECK(file != NULL);
	result = file->ops->ioctl(file, command, arg);
	pl_file_put(file);
	return result;
}

static void set_state(const struct world *world, uint32_t state)
{
	struct {
		struct vfio_device_feature head;
		struct vfio_device_feature_mig_state mig;
	} set = {.head = {.argsz = sizeof(set),
			  .flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE},
		 .mig = {.device_state = state}};

	CHECK(call(world->device, VFIO_DEVICE_FEATURE, &set) == 0);
	if (set.mig.data_fd >= 0)
		(void)pl_file_close(set.mig.data_fd);
}

/* ---- what the threads do ---- */

static void *change_states(void *arg)
{
	for (unsigned int i = 0; i < ROUNDS; i++) {
		set_state(arg, i % 2 ? QSC_STATE_STOP_COPY : QSC_STATE_STOP);
		set_state(arg, QSC_STATE_RUNNING);
	}
	return NULL;
}

static void *use_descriptors(void *arg)
{
	const struct world *world = arg;
	uint32_t value;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct pl_file *file;
		int copy;

		pl_file_change();
		copy = pl_file_copied(world->device, dup(world->device));
		file = pl_file_get(copy);
		CHECK(file != NULL);
		CHECK(file->ops->pread(file, &value, 4, DMACOPY_REG_ID) == 4);
		CHECK(value == DMACOPY_ID || value == ~0U);
		CHECK(file->ops->pwrite(file, &value, 4, DMACOPY_REG_SCRATCH) == 4);
		CHECK(pl_file_close(copy) == 0);
		pl_file_put(file);
	}
	return NULL;
}

static void *map_bars(void *arg)
{
	const struct world *world = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct pl_file *file = pl_file_get(world->device);
		void *addr = NULL;
		char *bar;

		CHECK(file->ops->mmap(file, &addr, BAR_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
				      LOCAL_AT) == 0);
		bar = addr;
		CHECK(pl_bar_protect(bar + 4096, 4096, PROT_READ) == 0);
		CHECK(pl_bar_withdraw(bar, 4096) == 0);
		CHECK(pl_bar_withdraw(bar, BAR_SIZE) == 0);
		CHECK(munmap(bar, BAR_SIZE) == 0);
		pl_file_put(file);
	}
	return NULL;
}

static void *map_dma(void *arg)
{
	const struct world *world = arg;
	struct abi_ioas_map map = {
		.size = sizeof(map),
		.flags = ABI_MAP_FIXED_IOVA | ABI_MAP_READABLE | ABI_MAP_WRITEABLE,
		.ioas_id = world->ioas,
		.user_va = (uintptr_t)world->memory,
		.length = MEMORY,
		.iova = IOVA,
	};

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct abi_ioas_unmap unmap = {.size = sizeof(unmap),
					       .ioas_id = world->ioas,
					       .iova = IOVA,
					       .length = MEMORY};

		CHECK(call(world->iommufd, ABI_IOMMUFD(ABI_IOAS_MAP), &map) == 0);
		CHECK(call(world->iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap) == 0);
	}
	return NULL;
}

static void set_vectors(const struct world *world, uint32_t data, uint32_t count, int fd)
{
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} irq = {.set = {.argsz = sizeof(irq),
			 .flags = data | VFIO_IRQ_SET_ACTION_TRIGGER,
			 .index = VFIO_PCI_MSIX_IRQ_INDEX,
			 .count = count},
		 .fd = fd};

	CHECK(call(world->device, VFIO_DEVICE_SET_IRQS, &irq) == 0);
}

/* Eventfds both ways: interrupts from the device, and writes to it. */
static void *use_eventfds(void *arg)
{
	const struct world *world = arg;
	int event = eventfd(0, EFD_CLOEXEC);
	struct vfio_device_ioeventfd io = {.argsz = sizeof(io),
					   .flags = VFIO_DEVICE_IOEVENTFD_32,
					   .offset = DMACOPY_REG_SCRATCH + 4};

	for (unsigned int i = 0; i < ROUNDS; i++) {
		io.data = i;
		io.fd = event;
		CHECK(call(world->device, VFIO_DEVICE_IOEVENTFD, &io) == 0);
		set_vectors(world, VFIO_IRQ_SET_DATA_EVENTFD, 1, event);
		set_vectors(world, VFIO_IRQ_SET_DATA_NONE, 1, 0);
		CHECK(write(event, &(uint64_t){1}, 8) == 8);
		set_vectors(world, VFIO_IRQ_SET_DATA_NONE, 0, 0);
		io.fd = -1;
		CHECK(call(world->device, VFIO_DEVICE_IOEVENTFD, &io) == 0);
	}
	close(event);
	return NULL;
}

static void begin(struct world *world)
{
	struct abi_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct abi_bind_iommufd bind = {.argsz = sizeof(bind)};
	struct abi_attach attach = {.argsz = sizeof(attach)};

	assert_int_equal(surface_init(), 0);
	world->iommufd = pl_path_open(HANDOVER_IOMMUFD, 0, O_CLOEXEC);
	world->device = pl_path_open(HANDOVER_CDEV, 0, O_CLOEXEC);
	world->memory = mmap(NULL, MEMORY, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
	assert_int_equal(call(world->iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &alloc), 0);
	world->ioas = attach.pt_id = alloc.out_ioas_id;
	bind.iommufd = world->iommufd;
	assert_int_equal(call(world->device, ABI_BIND_IOMMUFD, &bind), 0);
	assert_int_equal(call(world->device, ABI_ATTACH_IOMMUFD_PT, &attach), 0);
}

static void everything_at_once(void **state)
{
	void *(*const jobs[])(void *) = {change_states, use_descriptors, use_descriptors, map_bars,
					 map_bars,	map_dma,	 use_eventfds};
	pthread_t threads[sizeof(jobs) / sizeof(jobs[0])];
	struct world world;

	begin(&world);
	for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, jobs[i], &world), 0);
	for (size_t i = 0; i < sizeof(jobs) / sizeof(jobs[0]); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	assert_int_equal(pl_file_close(world.device), 0);
	assert_int_equal(pl_file_close(world.iommufd), 0);
	munmap(world.memory, MEMORY);
}

/* The device is let go of by one thread while the others still call it. */
static void *read_until_gone(void *arg)
{
	const struct world *world = arg;
	struct pl_file *file;
	uint32_t value;

	while ((file = pl_file_get(world->device))) {
		CHECK(file->ops->pread(file, &value, 4, DMACOPY_REG_ID) == 4);
		pl_file_put(file);
	}
	return NULL;
}

static void closed_in_use(void **state)
{
	pthread_t threads[3];
	struct world world;

	for (unsigned int round = 0; round < 20; round++) {
		begin(&world);
		for (size_t i = 0; i < 3; i++)
			assert_int_equal(pthread_create(&threads[i], NULL, read_until_gone, &world),
					 0);
		assert_int_equal(pl_file_close(world.iommufd), 0);
		assert_int_equal(pl_file_close(world.device), 0);
		for (size_t i = 0; i < 3; i++)
			assert_int_equal(pthread_join(threads[i], NULL), 0);
		munmap(world.memory, MEMORY);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(everything_at_once),
		cmocka_unit_test(closed_in_use),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
