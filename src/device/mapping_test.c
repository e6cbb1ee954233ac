/* SPDX-License-Identifier: MIT */
/* Region mappings taken away and given back: contents, protection, failures, threads. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/vfio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "device/mapping.h"

#define SIZE  (5UL << 20) /* not a multiple of what one piece of 0xff covers */
#define VALUE 0x5a

struct fixture {
	struct qsc_mappings mappings;
	int fd;
	uint8_t *memory; /* the device's own view */
};

static int setup(void **state)
{
	static struct fixture fixture;

	fixture.mappings = (struct qsc_mappings)QSC_MAPPINGS_INIT;
	fixture.fd = qsc_fd_memory("region", SIZE);
	fixture.memory = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fixture.fd, 0);
	if (fixture.memory == MAP_FAILED)
		return -1;
	memset(fixture.memory, VALUE, SIZE);
	*state = &fixture;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	qsc_mappings_release(&f->mappings);
	munmap(f->memory, SIZE);
	qsc_fd_close(&f->fd);
	return 0;
}

static uint8_t *give(struct fixture *f, uint64_t offset, size_t size, int prot)
{
	struct qsc_mapping_source source = {.fd = f->fd, .fd_offset = offset};
	void *addr = NULL;

	assert_int_equal(qsc_mappings_add(&f->mappings, &source, size, prot, &addr), 0);
	return addr;
}

static void assert_filled(const uint8_t *memory, uint8_t value, size_t size)
{
	for (size_t i = 0; i < size; i += 512)
		assert_int_equal(memory[i], value);
	assert_int_equal(memory[size - 1], value);
}

/* Whether the kernel may write there: read() into memory that is not writable fails. */
static bool writable(void *addr)
{
	qsc_autoclose int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);

	return read(fd, addr, 1) == 1;
}

/* First in the list: no other test must have made the file of 0xff. */
static void test_failed_revocation_changes_nothing(void **state)
{
	struct fixture *f = *state;
	volatile uint8_t *map = give(f, 0, SIZE, PROT_READ | PROT_WRITE);
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		struct rlimit none = {0, 0};

		if (setrlimit(RLIMIT_NOFILE, &none) < 0)
			_exit(1);
		if (qsc_mappings_revoke(&f->mappings) != -EMFILE)
			_exit(2);
		_exit(map[0] == VALUE && map[SIZE - 1] == VALUE ? 0 : 3);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* From now on this process cannot put private writable pages of a file where others are. */
static int forbid_private_writable(void)
{
	const uint32_t flags = MAP_PRIVATE | MAP_FIXED | MAP_NORESERVE;
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mmap, 0, 5),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, flags, 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
		BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, PROT_WRITE, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOMEM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = {.len = QSC_ARRAY_SIZE(code), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
}

/* The newest mapping is taken away first, and can be; the one before it cannot. */
static void test_revocation_that_fails_half_way_is_undone(void **state)
{
	struct fixture *f = *state;
	volatile uint8_t *second = give(f, 0, SIZE, PROT_READ | PROT_WRITE);
	volatile uint8_t *first = give(f, 0, SIZE, PROT_READ);
	int status = 0;
	pid_t child = fork();

	assert_true(child >= 0);
	if (!child) {
		if (forbid_private_writable() < 0)
			_exit(1);
		if (qsc_mappings_revoke(&f->mappings) != -ENOMEM)
			_exit(2);
		if (first[0] != VALUE || first[SIZE - 1] != VALUE)
			_exit(3);
		_exit(second[0] == VALUE && second[SIZE - 1] == VALUE ? 0 : 4);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static void test_revoked_reads_ones_and_swallows_writes(void **state)
{
	struct fixture *f = *state;
	uint8_t *whole = give(f, 0, SIZE, PROT_READ | PROT_WRITE);
	uint8_t *part = give(f, 8192, 4096, PROT_READ | PROT_WRITE);

	whole[0] = 1;
	assert_int_equal(f->memory[0], 1);
	f->memory[0] = VALUE;
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_filled(whole, 0xff, SIZE);
	assert_filled(part, 0xff, 4096);
	whole[8192] = 7;
	assert_int_equal(whole[8192], 7);
	assert_int_equal(part[0], 0xff);
	assert_filled(f->memory, VALUE, SIZE);
	f->memory[100] = 9; /* the device's own side is not touched */
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_int_equal(whole[8192], 7);

	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_int_equal(whole[100], 9);
	assert_int_equal(whole[8192], VALUE);
	part[0] = 3;
	assert_int_equal(whole[8192], 3);
	/* What was written to a revoked mapping is gone, and is not there next time either. */
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_filled(whole, 0xff, SIZE);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
}

static void test_protection_is_kept(void **state)
{
	struct fixture *f = *state;
	uint8_t *map = give(f, 0, SIZE, PROT_READ);

	assert_false(writable(map));
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_filled(map, 0xff, SIZE);
	assert_false(writable(map));
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_false(writable(map));
	assert_filled(map, VALUE, SIZE);
}

static void test_mapped_while_revoked(void **state)
{
	struct fixture *f = *state;
	uint8_t *map;

	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	map = give(f, 4096, 4096, PROT_READ | PROT_WRITE);
	assert_filled(map, 0xff, 4096);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_filled(map, VALUE, 4096);
}

static void test_which_are_revoked(void **state)
{
	struct fixture *f = *state;
	struct qsc_mappings others = QSC_MAPPINGS_INIT;
	struct qsc_mapping_source source = {.fd = f->fd};
	uint8_t *map = give(f, 0, 8192, PROT_READ);
	void *other = NULL;

	assert_int_equal(qsc_mappings_add(&others, &source, 4096, PROT_READ, &other), 0);
	assert_false(qsc_mapping_is_revoked(map, 8192));
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_true(qsc_mapping_is_revoked(map, 8192));
	assert_true(qsc_mapping_is_revoked(map + 4096, 4096));
	assert_true(qsc_mapping_is_revoked(map - 4096, 8192));
	assert_false(qsc_mapping_is_revoked(map - 4096, 4096));
	assert_false(qsc_mapping_is_revoked(map + 8192, 4096));
	assert_false(qsc_mapping_is_revoked(other, 4096));
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_false(qsc_mapping_is_revoked(map, 8192));
	assert_int_equal(qsc_mappings_revoke(&others), 0);
	assert_true(qsc_mapping_is_revoked(other, 4096));
	qsc_mappings_release(&others);
	assert_false(qsc_mapping_is_revoked(other, 4096));
}

/* Pages of a mapping keep the protection that they were given, over a revocation. */
static void test_protecting(void **state)
{
	struct fixture *f = *state;
	uint8_t *map = give(f, 4096, 5 * 4096UL, PROT_READ | PROT_WRITE);

	assert_int_equal(qsc_mappings_change(&f->mappings, map + 4096, 2 * 4096UL, PROT_READ), 0);
	assert_int_equal(qsc_mappings_change(&f->mappings, map + 2 * 4096UL, 4096, PROT_NONE), 0);
	for (int round = 0; round < 2; round++) {
		assert_true(writable(map) && writable(map + 3 * 4096UL));
		assert_false(writable(map + 4096) || writable(map + 2 * 4096UL));
		assert_int_equal(map[4096], VALUE);
		assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
		assert_true(writable(map) && writable(map + 3 * 4096UL));
		assert_false(writable(map + 4096) || writable(map + 2 * 4096UL));
		assert_int_equal(map[4096], 0xff);
		assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	}
	/* Also while it is revoked, and all pieces at once. */
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_int_equal(qsc_mappings_change(&f->mappings, map, 5 * 4096UL, PROT_READ | PROT_WRITE),
			 0);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_filled(map + 4096, VALUE, 2 * 4096UL);
	map[3 * 4096UL] = 1;
	assert_int_equal(f->memory[4 * 4096UL], 1);
	assert_int_equal(qsc_mappings_change(&f->mappings, map, 6 * 4096UL, PROT_READ), -EINVAL);
	assert_true(writable(map));
	/* Gone in one go, though in pieces. */
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 4 * 4096UL), -EINVAL);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 5 * 4096UL), 0);
	assert_false(qsc_mappings_any(&f->mappings, f->fd, false));
}

static void test_protecting_what_a_region_does_not_have(void **state)
{
	struct fixture *f = *state;
	struct qsc_mapping_source source = {.fd = f->fd, .denied = PROT_WRITE, .foreign = true};
	void *addr = NULL;

	assert_int_equal(qsc_mappings_add(&f->mappings, &source, 8192, PROT_READ, &addr), 0);
	assert_int_equal(qsc_mappings_change(&f->mappings, addr, 4096, PROT_READ | PROT_WRITE),
			 -EACCES);
	assert_int_equal(qsc_mappings_change(&f->mappings, addr, 4096, PROT_NONE), 0);
	assert_int_equal(qsc_mappings_change(&f->mappings, addr, 4096, PROT_READ), 0);
	assert_filled(addr, VALUE, 8192);
}

/* What is withdrawn is nobody's: neither the device's, nor there for others to be given. */
static void test_withdrawing(void **state)
{
	struct fixture *f = *state;
	uint8_t *map = give(f, 0, 4 * 4096UL, PROT_READ | PROT_WRITE);
	unsigned char in_core[1];

	assert_int_equal(qsc_mappings_change(&f->mappings, map + 4096, 4096, QSC_PROT_WITHDRAWN),
			 0);
	assert_false(writable(map + 4096));
	assert_int_equal(mincore(map + 4096, 4096, in_core), 0);
	assert_int_equal(qsc_mappings_change(&f->mappings, map, 2 * 4096UL, QSC_PROT_WITHDRAWN),
			 -EINVAL);
	assert_ptr_equal(mmap(map + 4096, 4096, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
			 map + 4096);
	map[4096] = 7;
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_int_equal(map[0], 0xff);
	assert_int_equal(map[4096], 7);
	assert_int_equal(map[2 * 4096UL], 0xff);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_int_equal(map[0], VALUE);
	assert_int_equal(map[4096], 7);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 4 * 4096UL), -EINVAL);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 4096), 0);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map + 2 * 4096UL, 2 * 4096UL), 0);
	munmap(map + 4096, 4096);
}

static void test_removing(void **state)
{
	struct fixture *f = *state;
	uint8_t *map = give(f, 0, 8192, PROT_READ);
	unsigned char in_core[2];

	assert_true(qsc_mappings_any(&f->mappings, f->fd, false));
	assert_false(qsc_mappings_any(&f->mappings, f->fd, true));
	assert_false(qsc_mappings_any(&f->mappings, f->fd + 1, false));
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 4096), -EINVAL);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map + 4096, 4096), -EINVAL);
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 8192), 0);
	assert_int_equal(qsc_mappings_remove(&f->mappings, map, 8192), -EINVAL);
	assert_int_equal(mincore(map, 8192, in_core), -1);
	assert_false(qsc_mappings_any(&f->mappings, f->fd, false));
	qsc_mappings_release(&f->mappings);
	map = give(f, 0, 8192, PROT_READ);
	assert_filled(map, VALUE, 8192);
}

static void test_failures_keep_what_can_be_kept(void **state)
{
	struct fixture *f = *state;
	int doomed = qsc_fd_dup(f->fd);
	struct qsc_mapping_source source = {.fd = doomed};
	uint8_t *map = give(f, 0, 4096, PROT_READ);
	void *lost = NULL;
	void *none = NULL;

	assert_int_equal(qsc_mappings_add(&f->mappings, &source, 4096, PROT_READ, &lost), 0);
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	qsc_fd_close(&doomed);
	assert_int_equal(qsc_mappings_add(&f->mappings, &source, 4096, PROT_READ, &none), -EBADF);
	assert_null(none);
	assert_int_equal(qsc_mappings_restore(&f->mappings), -EBADF);
	assert_filled(map, VALUE, 4096);
	assert_filled(lost, 0xff, 4096);
	assert_int_equal(dup2(f->fd, source.fd), source.fd);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_filled(lost, VALUE, 4096);
	close(source.fd);
}

static void test_peer_takes_its_memory_away(void **state)
{
	struct fixture *f = *state;
	qsc_autoclose int fd = memfd_create("hostile", MFD_CLOEXEC);
	struct qsc_mapping_source source = {.fd = fd, .foreign = true};
	void *addr = NULL;
	volatile uint8_t *map;

	assert_int_equal(ftruncate(fd, 8192), 0);
	assert_int_equal(
		qsc_mappings_add(&f->mappings, &source, 8192, PROT_READ | PROT_WRITE, &addr), 0);
	map = addr;
	map[4096] = VALUE;
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(map[4096], 0); /* and not SIGBUS */
	assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
	assert_int_equal(map[4096], 0xff);
	assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
	assert_int_equal(map[4096], 0);
	assert_int_equal(qsc_mappings_remove(&f->mappings, addr, 8192), 0);
}

struct reader {
	const _Atomic uint8_t *map;
	_Atomic bool stop;
	_Atomic uint64_t reads;
	_Atomic uint64_t wrong;
};

static void *read_on(void *arg)
{
	struct reader *reader = arg;

	for (size_t i = 0; !atomic_load(&reader->stop); i = (i + 4097) % SIZE) {
		uint8_t value = atomic_load_explicit(&reader->map[i], memory_order_relaxed);

		if (value != VALUE && value != 0xff)
			atomic_fetch_add(&reader->wrong, 1);
		atomic_fetch_add(&reader->reads, 1);
	}
	return NULL;
}

/* A user in the middle of an access sees one or the other, never a hole. */
static void test_access_while_it_changes(void **state)
{
	struct fixture *f = *state;
	struct reader reader = {.map = (void *)give(f, 0, SIZE, PROT_READ)};
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, read_on, &reader), 0);
	for (int round = 0; round < 200; round++) {
		uint64_t before = atomic_load(&reader.reads);

		assert_int_equal(qsc_mappings_revoke(&f->mappings), 0);
		assert_int_equal(qsc_mappings_restore(&f->mappings), 0);
		while (atomic_load(&reader.reads) == before)
			sched_yield();
	}
	atomic_store(&reader.stop, true);
	pthread_join(thread, NULL);
	assert_int_equal(atomic_load(&reader.wrong), 0);
}

static void test_what_may_be_mapped(void **state)
{
	struct qsc_region_info info = {
		.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_MMAP,
		.size = 65536,
	};

	(void)state;
	assert_int_equal(qsc_mapping_check(&info, 0, 65536, PROT_READ), 0);
	assert_int_equal(qsc_mapping_check(&info, 4096, 65536, PROT_READ), -EINVAL);
	assert_int_equal(qsc_mapping_check(&info, 0, 4096, PROT_READ | PROT_WRITE), -EPERM);
	info.flags |= VFIO_REGION_INFO_FLAG_WRITE;
	assert_int_equal(qsc_mapping_check(&info, 0, 4096, PROT_READ | PROT_WRITE), 0);
	info.num_areas = 2;
	info.areas[0] = (struct qsc_mmap_area){.offset = 4096, .size = 8192};
	info.areas[1] = (struct qsc_mmap_area){.offset = 12288, .size = 4096};
	assert_int_equal(qsc_mapping_check(&info, 4096, 8192, PROT_READ), 0);
	assert_int_equal(qsc_mapping_check(&info, 12288, 4096, PROT_READ), 0);
	assert_int_equal(qsc_mapping_check(&info, 0, 4096, PROT_READ), -EINVAL);
	assert_int_equal(qsc_mapping_check(&info, 4096, 12288, PROT_READ), -EINVAL);
	info.flags &= ~(uint32_t)VFIO_REGION_INFO_FLAG_MMAP;
	assert_int_equal(qsc_mapping_check(&info, 4096, 4096, PROT_READ), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_failed_revocation_changes_nothing, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_revocation_that_fails_half_way_is_undone,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_revoked_reads_ones_and_swallows_writes, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_protection_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mapped_while_revoked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_which_are_revoked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_protecting, setup, teardown),
		cmocka_unit_test_setup_teardown(test_withdrawing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_failures_keep_what_can_be_kept, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_peer_takes_its_memory_away, setup, teardown),
		cmocka_unit_test_setup_teardown(test_access_while_it_changes, setup, teardown),
		cmocka_unit_test(test_what_may_be_mapped),
		cmocka_unit_test_setup_teardown(test_protecting_what_a_region_does_not_have, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
