/* SPDX-License-Identifier: MIT */
/*
 * Devices of one IOMMU group in one process: a group is handed to one user, and its devices' DMA
 * goes to one address space.
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "client/kernel/fake_test.h"

static struct qsc_device *open_place(const char *name, enum qsc_kernel_via via)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev = NULL;

	if (fake_open(name, via, false, &dev, &err) < 0)
		fail_msg("%s", err.text);
	return dev;
}

static void refused(const char *name, enum qsc_kernel_via via, const char *says)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev = NULL;

	assert_int_equal(fake_open(name, via, false, &dev, &err), -EBUSY);
	if (!strstr(err.text, says))
		fail_msg("it says '%s'", err.text);
}

/* One mapping of the kernel's for what both have, until the last lets go of it. */
static void share(enum qsc_kernel_via via)
{
	struct qsc_device *a = open_place("a", via);
	struct qsc_device *b = open_place("b", QSC_KERNEL_AUTO);
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);
	int other = qsc_fd_memory("other", MEMORY_SIZE);

	fake.maps = fake.unmaps = 0;
	assert_int_equal(fake_map(a, MEMORY_IOVA, fd), 0);
	assert_int_equal(fake_map(b, MEMORY_IOVA, fd), 0);
	assert_int_equal(fake.maps, 1);
	/* Each has a view of its own. */
	assert_int_equal(fake_map(b, MEMORY_IOVA, fd), -EEXIST);
	assert_int_equal(qsc_device_dma_unmap(a, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(qsc_device_dma_unmap(a, MEMORY_IOVA, MEMORY_SIZE), -ENOENT);
	assert_int_equal(fake.unmaps, 0);
	/* What cannot be: other memory, or other pieces of the same. */
	assert_int_equal(fake_map(a, MEMORY_IOVA, other), -EBUSY);
	assert_int_equal(fake_map(a, MEMORY_IOVA + MEMORY_SIZE / 2, fd), -EBUSY);
	assert_int_equal(fake_map(a, MEMORY_IOVA + MEMORY_SIZE, other), 0);
	assert_int_equal(fake_map(a, MEMORY_IOVA, fd), 0);
	assert_int_equal(fake.maps, 2);
	/* Who leaves takes along what the other has not. */
	qsc_device_close(a);
	assert_int_equal(fake.unmaps, 1);
	assert_int_equal(qsc_device_dma_unmap(b, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(fake.unmaps, 2);
	assert_int_equal(fake_map(b, MEMORY_IOVA, other), 0);
	/* And the next one finds the group as it is. */
	a = open_place("a", via);
	assert_int_equal(fake_map(a, MEMORY_IOVA, fd), -EBUSY);
	qsc_device_close(b);
	assert_int_equal(fake_map(a, MEMORY_IOVA, fd), 0);
	qsc_device_close(a);
	assert_int_equal(fake_count_files(), 0);
	close(fd);
	close(other);
}

static void test_share(void **unused)
{
	(void)unused;
	fake_begin();
	share(QSC_KERNEL_CDEV);
	share(QSC_KERNEL_LEGACY);
	fake.tracks = true;
	share(QSC_KERNEL_CDEV);
}

/* Memory of another device is one's alone, so that it is gone when it is unmapped (SET-4). */
static void test_peer(void **unused)
{
	struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA,
		.size = 4096,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE | QSC_DMA_PEER,
		.fd = -1,
	};
	static _Alignas(4096) char memory[4096];
	struct qsc_device *a, *b;

	(void)unused;
	fake_begin();
	a = open_place("a", QSC_KERNEL_LEGACY);
	b = open_place("b", QSC_KERNEL_LEGACY);
	mapping.vaddr = memory;
	assert_int_equal(qsc_device_dma_map(a, &mapping), 0);
	assert_int_equal(qsc_device_dma_map(b, &mapping), -EBUSY);
	assert_int_equal(qsc_device_dma_unmap(b, MEMORY_IOVA, 4096), -ENOENT);
	assert_int_equal(qsc_device_dma_unmap(a, MEMORY_IOVA, 4096), 0);
	assert_int_equal(fake.unmaps, 1);
	assert_int_equal(qsc_device_dma_map(b, &mapping), 0);
	mapping.flags &= ~QSC_DMA_PEER;
	mapping.iova += 4096;
	assert_int_equal(qsc_device_dma_map(a, &mapping), 0);
	assert_int_equal(qsc_device_dma_map(b, &mapping), 0);
	assert_int_equal(fake.maps, 3);
	qsc_device_close(a);
	qsc_device_close(b);
	assert_int_equal(fake_count_files(), 0);
}

static bool has_log(struct qsc_device *dev)
{
	struct qsc_migration_info info;

	assert_int_equal(qsc_device_get_migration(dev, &info), 0);
	return info.dirty_log;
}

/* LOG-1: the IOMMU's is one device's of the group, or reports of one would hide from the other. */
static void test_log(void **unused)
{
	struct qsc_device *a, *b;

	(void)unused;
	fake_begin();
	fake.tracks = true;
	a = open_place("a", QSC_KERNEL_AUTO);
	b = open_place("b", QSC_KERNEL_AUTO);
	assert_true(has_log(a));
	assert_false(has_log(b));
	qsc_device_close(a);
	a = open_place("a", QSC_KERNEL_AUTO);
	assert_true(has_log(a));
	assert_false(has_log(b));
	qsc_device_close(a);
	qsc_device_close(b);
}

static void test_refusals(void **unused)
{
	struct qsc_device *a;

	(void)unused;
	fake_begin();
	a = open_place("a", QSC_KERNEL_CDEV);
	refused("a", QSC_KERNEL_AUTO, "has the device open already");
	refused("b", QSC_KERNEL_LEGACY, "has a of the same IOMMU group 7 open with ,via=cdev");
	qsc_device_close(a);
	a = open_place("a", QSC_KERNEL_LEGACY);
	refused("b", QSC_KERNEL_CDEV, "open with ,via=legacy");
	qsc_device_close(a);
	/* Another program's. */
	fake.groups = 1;
	refused("a", QSC_KERNEL_LEGACY, "in use by another program");
	assert_int_equal(fake_count_files(), 0);
	fake.groups = 0;
	qsc_device_close(open_place("a", QSC_KERNEL_LEGACY));
}

static void *come_and_go(void *ctx)
{
	const char *name = ctx;
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);

	for (int round = 0; round < 100; round++) {
		struct qsc_device *dev = open_place(name, QSC_KERNEL_LEGACY);

		/* Not both at one address: each has a file of its own. */
		assert_int_equal(fake_map(dev, MEMORY_IOVA * (name[0] == 'a' ? 1 : 2), fd), 0);
		qsc_device_close(dev);
	}
	close(fd);
	return NULL;
}

/* Whoever comes finds a group that is open, or one that is free. */
static void test_threads(void **unused)
{
	char names[][2] = {"a", "b"};
	pthread_t threads[2];

	(void)unused;
	fake_begin();
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, names[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(fake_count_files(), 0);
	assert_int_equal(fake.groups, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_share),	cmocka_unit_test(test_peer),
		cmocka_unit_test(test_log),	cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
