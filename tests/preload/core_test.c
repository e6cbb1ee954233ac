/* SPDX-License-Identifier: MIT */
/* The parts of the preload library without the calls that are caught, so that sanitizers see them.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../preload/bitmap.h"
#include "../../preload/file.h"
#include "../../preload/handover.h"
#include "../../preload/memory.h"
#include "../../preload/user.h"
#include "surface.h"

#define SEQUENCES 300

/* The same bytes every time, on every machine. */
static uint32_t next(uint64_t *seed)
{
	*seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return (uint32_t)(*seed >> 33);
}

static void any_calls(void **state)
{
	uint8_t data[2048];

	assert_int_equal(surface_init(), 0);
	for (uint64_t seed = 1; seed <= SEQUENCES; seed++) {
		uint64_t at = seed;

		for (size_t i = 0; i < sizeof(data); i++)
			data[i] = (uint8_t)next(&at);
		surface_run(data, sizeof(data));
	}
}

/* Nothing of ours is left open, and a closed number is not ours. */
static void files_end(void **state)
{
	uint8_t one = 0;

	assert_int_equal(surface_init(), 0);
	surface_run(&one, 1);
	for (int fd = 0; fd < 256; fd++)
		assert_false(pl_file_is(fd));
	assert_int_equal(pl_file_close(12345), -EBADF);
}

static void pointers(void **state)
{
	struct {
		uint32_t size;
		uint32_t field;
		uint32_t rest[2];
	} in = {.size = sizeof(in), .field = 7};
	uint32_t out[2];
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_int_equal(pl_copy_struct(out, sizeof(out), 8, &in), 0);
	assert_int_equal(out[1], 7);
	in.rest[1] = 1;
	assert_int_equal(pl_copy_struct(out, sizeof(out), 8, &in), -E2BIG);
	in.size = 4;
	assert_int_equal(pl_copy_struct(out, sizeof(out), 8, &in), -EINVAL);
	assert_int_equal(pl_copy_struct(out, sizeof(out), 8, (void *)8), -EFAULT);
	assert_int_equal(pl_copy_argsz(out, sizeof(out), &in), -EINVAL);
	assert_int_equal(pl_copy_in(out, page, 8), 0);
	assert_int_equal(pl_copy_out(page, out, 8), -EFAULT);
	assert_int_equal(pl_can_write(page, 4096), -EFAULT);
	assert_int_equal(pl_can_write(out, sizeof(out)), 0);
	munmap(page, 4096);
}

/* Every third page; iova is where the range begins. */
static int every_third(void *ctx, uint64_t iova, uint64_t size, uint64_t page_size,
		       uint64_t *bitmap)
{
	for (uint64_t page = 0; page < size / page_size; page++)
		if ((iova / page_size + page) % 3 == 0)
			bitmap[page / 64] |= 1ULL << (page % 64);
	return 0;
}

/* Longer than one piece, with bits that were set before and stay. */
static void bitmaps(void **state)
{
	const uint64_t pages = 8192 * 64 * 2 + 100;
	uint64_t *words = calloc(pages / 64 + 1, sizeof(*words));
	char *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	assert_non_null(words);
	words[0] = 2;
	assert_int_equal(pl_bitmap_report(every_third, NULL, 0, pages * 4096, 4096, words), 0);
	for (uint64_t i = 0; i < pages; i++)
		assert_int_equal(words[i / 64] >> (i % 64) & 1, i % 3 == 0 || i == 1);
	assert_int_equal(pl_bitmap_report(every_third, NULL, 0, 4096, 4096, page), -EFAULT);
	assert_int_equal(pl_bitmap_report(every_third, NULL, 1, 4096, 4096, words), -EINVAL);
	assert_int_equal(pl_bitmap_report(every_third, NULL, 0, 0, 4096, words), -EINVAL);
	munmap(page, 4096);
	free(words);
}

/* The file behind shared memory, none behind private, and memory that is not there. */
static void memory(void **state)
{
	int file = memfd_create("memory", MFD_CLOEXEC);
	char *shared;
	char *alone = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t offset;
	char seen = 0;
	int fd;

	assert_int_equal(ftruncate(file, 65536), 0);
	shared = mmap(NULL, 16384, PROT_READ | PROT_WRITE, MAP_SHARED, file, 8192);
	assert_ptr_not_equal(shared, MAP_FAILED);
	shared[4096] = 'x';
	assert_int_equal(pl_memory_find(shared + 4096, 4096, true, &fd, &offset), 0);
	assert_true(fd >= 0 && offset == 12288);
	assert_int_equal(pread(fd, &seen, 1, (off_t)offset), 1);
	assert_int_equal(seen, 'x');
	close(fd);
	assert_int_equal(pl_memory_find(alone, 8192, false, &fd, &offset), 0);
	assert_int_equal(fd, -1);
	assert_int_equal(pl_memory_find(alone, 8192, true, &fd, &offset), -EFAULT);
	assert_int_equal(munmap(alone + 4096, 4096), 0);
	assert_int_equal(pl_memory_find(alone, 8192, false, &fd, &offset), -EFAULT);
	munmap(alone, 4096);
	munmap(shared, 16384);
	close(file);
}

/* A mark tells what a file stands for; other files have none. */
static void marks(void **state)
{
	int fd = handover_make(HANDOVER_CDEV, 3, true);
	struct handover_mark *mark = handover_find(fd);
	int other = memfd_create("quiesce-vfio", MFD_CLOEXEC);

	assert_null(handover_find(other)); /* as one is that is being made */
	assert_non_null(mark);
	assert_int_equal(mark->kind, HANDOVER_CDEV);
	assert_int_equal(mark->index, 3);
	handover_forget(mark);
	assert_int_equal(ftruncate(other, 4096), 0);
	assert_null(handover_find(other));
	assert_null(handover_find(STDERR_FILENO));
	close(other);
	close(fd);
}

/* ---- a number that changes hands ---- */

static int leaving = -1;

/* How a mark is looked for: then another thread closes the descriptor, and its number goes on. */
extern ssize_t __real_readlink(const char *path, char *buf, size_t size);
extern ssize_t __wrap_readlink(const char *path, char *buf, size_t size);
ssize_t __wrap_readlink(const char *path, char *buf, size_t size)
{
	ssize_t n = __real_readlink(path, buf, size);
	int fd = leaving;

	leaving = -1;
	if (fd >= 0) {
		assert_int_equal(pl_file_close(fd), 0);
		assert_int_equal(open("/dev/null", O_RDWR | O_CLOEXEC), fd);
	}
	return n;
}

/* What was not ours when it could no longer change is not ours. */
static void closed_meanwhile(void **state)
{
	struct pl_file *file;
	int error;
	int fd;

	assert_int_equal(surface_init(), 0);
	fd = handover_make(HANDOVER_CDEV, 0, true);
	assert_true(fd >= 0);
	leaving = fd;
	file = pl_file_take_up(fd, &error);
	assert_null(file);
	assert_int_equal(error, 0);
	assert_false(pl_file_is(fd));
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pointers),	    cmocka_unit_test(bitmaps),
		cmocka_unit_test(memory),	    cmocka_unit_test(marks),
		cmocka_unit_test(any_calls),	    cmocka_unit_test(files_end),
		cmocka_unit_test(closed_meanwhile),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
