/* SPDX-License-Identifier: MIT */
/* What a program does with its mapping of a device, which stays right while the device stops. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dmacopy/dmacopy.h"
#include "vmm.h"

#define PAGE 4096UL
#define SIZE (16 * PAGE)

static uint8_t *map_local(int device, void *addr)
{
	uint8_t *local = mmap(addr, SIZE, PROT_READ | PROT_WRITE,
			      MAP_SHARED | (addr ? MAP_FIXED : 0), device,
			      (off_t)REGION(DMACOPY_BAR_LOCAL, 0));

	CHECK(local != MAP_FAILED);
	return local;
}

/* As the kernel sees it: a call that reads or writes there fails. */
static bool can_read(int pipe_end, const uint8_t *at)
{
	return write(pipe_end, at, 1) == 1;
}

static bool can_write(int zero, uint8_t *at)
{
	return read(zero, at, 1) == 1;
}

/* The protection that the program chose, over a stop and back, and one that it chose meanwhile. */
static void protections(const struct vmm *vmm, int zero, int pipe_end)
{
	uint8_t *local = map_local(vmm->device, NULL);

	local[0] = 1;
	local[PAGE] = 2;
	local[2 * PAGE] = 3;
	CHECK(mprotect(local + PAGE, PAGE, PROT_READ) == 0);
	CHECK(mprotect(local + 2 * PAGE, PAGE + 1, PROT_NONE) == 0);
	FAILS(EACCES, mprotect(local, PAGE, PROT_READ | PROT_EXEC));
	FAILS(EINVAL, mprotect(local + 1, PAGE, PROT_READ));
	FAILS(EINVAL, pkey_mprotect(local, PAGE, PROT_READ, 3));
	for (int round = 0; round < 2; round++) {
		CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP) == -1);
		CHECK(can_write(zero, local + 4) && local[0] == 0xff);
		CHECK(!can_write(zero, local + PAGE) && local[PAGE] == 0xff);
		CHECK(!can_read(pipe_end, local + 2 * PAGE));
		CHECK(!can_read(pipe_end, local + 4 * PAGE - 1));
		CHECK(can_read(pipe_end, local + 4 * PAGE));
		CHECK(vmm_set_state(vmm->device, QSC_STATE_RUNNING) == -1);
		CHECK(can_write(zero, local + 4) && local[0] == 1);
		CHECK(!can_write(zero, local + PAGE) && local[PAGE] == 2);
		CHECK(!can_read(pipe_end, local + 2 * PAGE));
	}
	CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP) == -1);
	CHECK(mprotect(local, 4 * PAGE, PROT_READ | PROT_WRITE) == 0 && local[2 * PAGE] == 0xff);
	CHECK(vmm_set_state(vmm->device, QSC_STATE_RUNNING) == -1);
	CHECK(local[2 * PAGE] == 3 && can_write(zero, local + PAGE + 1));
	/* Together with memory of its own, on both sides. */
	CHECK(munmap(local + 15 * PAGE, PAGE) == 0);
	CHECK(mmap(local + 15 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		   0) == local + 15 * PAGE);
	CHECK(mprotect(local, SIZE, PROT_READ | PROT_WRITE) == 0);
	CHECK(can_write(zero, local + 15 * PAGE) && can_write(zero, local + 14 * PAGE));
	CHECK(munmap(local, SIZE) == 0);
}

/* Parts that go, and others in their place, which the device's stop does not touch. */
static void parts(const struct vmm *vmm, int pipe_end)
{
	uint8_t *local = map_local(vmm->device, NULL);
	uint8_t *moved;

	local[0] = 1;
	local[5 * PAGE] = 2;
	local[15 * PAGE] = 3;
	CHECK(munmap(local + PAGE, PAGE) == 0);
	CHECK(!can_read(pipe_end, local + PAGE));
	FAILS(EBADF, mmap(local + 2 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, 1 << 19, 0));
	FAILS(EINVAL, mmap(local + 2 * PAGE, PAGE, PROT_READ, MAP_SHARED | MAP_FIXED, vmm->device,
			   (off_t)REGION(DMACOPY_BAR_REGISTERS, 0)));
	CHECK(can_read(pipe_end, local + 2 * PAGE));
	CHECK(mmap(local + 2 * PAGE, PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == local + 2 * PAGE);
	memset(local + 2 * PAGE, 7, PAGE);
	/* Something else is moved over it. */
	moved = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	moved[0] = 8;
	CHECK(mremap(moved, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, local + 3 * PAGE) ==
	      local + 3 * PAGE);
	/* It stays where it is, does not grow, and may become shorter. */
	FAILS(EINVAL, (long)mremap(local + 4 * PAGE, 12 * PAGE, 12 * PAGE,
				   MREMAP_MAYMOVE | MREMAP_FIXED, moved));
	FAILS(EFAULT, (long)mremap(local + 4 * PAGE, 12 * PAGE, SIZE, MREMAP_MAYMOVE));
	FAILS(EFAULT, (long)mremap(local + 2 * PAGE, 8 * PAGE, PAGE, 0));
	CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP) == -1);
	CHECK(local[0] == 0xff && local[5 * PAGE] == 0xff && local[15 * PAGE] == 0xff);
	CHECK(local[2 * PAGE] == 7 && local[3 * PAGE - 1] == 7 && local[3 * PAGE] == 8);
	CHECK(mremap(local + 4 * PAGE, 12 * PAGE, 11 * PAGE, 0) == local + 4 * PAGE);
	CHECK(!can_read(pipe_end, local + 15 * PAGE) && can_read(pipe_end, local + 14 * PAGE));
	CHECK(vmm_set_state(vmm->device, QSC_STATE_RUNNING) == -1);
	CHECK(local[0] == 1 && local[5 * PAGE] == 2);
	CHECK(local[2 * PAGE] == 7 && local[3 * PAGE] == 8);
	/* Over itself, and over all that is left. */
	CHECK(map_local(vmm->device, local) == local && local[15 * PAGE] == 3);
	CHECK(munmap(local, SIZE) == 0 && !can_read(pipe_end, local));
}

/* Where the program wants it, if it says so and nothing is there. */
static void places(const struct vmm *vmm, int pipe_end)
{
	const off_t at = (off_t)REGION(DMACOPY_BAR_LOCAL, 0);
	uint8_t *own = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
	uint8_t *local;

	own[PAGE] = 0x11;
#define ALONE (MAP_SHARED | MAP_FIXED_NOREPLACE)
	FAILS(EEXIST, (long)mmap(own + PAGE, PAGE, PROT_READ, ALONE, vmm->device, at));
	FAILS(EINVAL, (long)mmap(own + 1, PAGE, PROT_READ, ALONE, vmm->device, at));
	local = mmap(own + PAGE, PAGE, PROT_READ, MAP_SHARED, vmm->device, at);
	CHECK(local != MAP_FAILED && local != own + PAGE && own[PAGE] == 0x11);
	CHECK(munmap(local, PAGE) == 0 && munmap(own + PAGE, 2 * PAGE) == 0);
	CHECK(mmap(own + PAGE, PAGE, PROT_READ, ALONE, vmm->device, at) == own + PAGE);
	CHECK(mmap(own + 2 * PAGE, PAGE, PROT_READ, MAP_SHARED, vmm->device, at) == own + 2 * PAGE);
	FAILS(EEXIST, (long)mmap(own + PAGE, PAGE, PROT_READ, MAP_ANONYMOUS | ALONE, -1, 0));
	CHECK(can_read(pipe_end, own + PAGE) && munmap(own, 4 * PAGE) == 0);
	/* Mapped first, and used later. */
	local = mmap(NULL, PAGE, PROT_NONE, MAP_SHARED, vmm->device, at);
	CHECK(local != MAP_FAILED && !can_read(pipe_end, local));
	CHECK(mprotect(local, PAGE, PROT_READ | PROT_WRITE) == 0);
	local[0] = 9;
	CHECK(vmm_read(vmm->device, REGION(DMACOPY_BAR_LOCAL, 0)) % 256 == 9);
	CHECK(munmap(local, PAGE) == 0);
}

void test_mappings(void)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	struct vmm vmm;
	int ends[2];

	CHECK(zero >= 0 && pipe(ends) == 0);
	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	protections(&vmm, zero, ends[1]);
	parts(&vmm, ends[1]);
	places(&vmm, ends[1]);
	vmm_end(&vmm);
	CHECK(close(zero) == 0 && close(ends[0]) == 0 && close(ends[1]) == 0);
}

/* ---- others that map meanwhile ---- */

static _Atomic int stop;

/* Memory that the system gives us is nobody else's until we give it back. */
static void *map_own(void *arg)
{
	while (!stop) {
		uint8_t *own = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
				    -1, 0);

		CHECK(own != MAP_FAILED);
		for (unsigned int round = 1; round < 8; round++) {
			memset(own, (int)round, SIZE);
			for (size_t i = 0; i < SIZE; i += 64)
				CHECK(own[i] == round);
		}
		CHECK(munmap(own, SIZE) == 0);
	}
	return NULL;
}

static void *change_states(void *arg)
{
	const struct vmm *vmm = arg;

	while (!stop) {
		CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP) == -1);
		CHECK(vmm_set_state(vmm->device, QSC_STATE_RUNNING) == -1);
	}
	return NULL;
}

void test_foreign(void)
{
	pthread_t threads[3];
	struct vmm vmm;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	for (size_t i = 0; i < 3; i++)
		CHECK(pthread_create(&threads[i], NULL, i ? map_own : change_states, &vmm) == 0);
	for (unsigned int i = 0; i < 400; i++) {
		uint8_t *local = map_local(vmm.device, NULL);

		CHECK(mprotect(local + PAGE, PAGE, PROT_READ) == 0);
		CHECK(map_local(vmm.device, local) == local);
		CHECK(mmap(local, SIZE / 2, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == local);
		memset(local, 0x5a, SIZE / 2);
		CHECK(munmap(local + SIZE - PAGE, PAGE) == 0);
		for (size_t at = 0; at < SIZE / 2; at += 64)
			CHECK(local[at] == 0x5a);
		CHECK(munmap(local, SIZE - PAGE) == 0);
	}
	stop = 1;
	for (size_t i = 0; i < 3; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	vmm_end(&vmm);
}
