/* SPDX-License-Identifier: MIT */
/*
 * Devices of one IOMMU group in one process, against a kernel that is made up here: it hands a
 * group to one user, and its devices' DMA goes to one address space.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/fd.h"
#include "client/kernel/kernel.h"

#define MEMORY_IOVA 0x10000000ULL
#define MEMORY_SIZE 0x400000ULL
#define MAX_FD	    256

enum kind { NO_FILE, DEVICE, IOMMUFD, GROUP, CONTAINER };

static struct {
	_Atomic enum kind files[MAX_FD];
	_Atomic int groups; /* opened now */
	_Atomic int maps, unmaps;
	bool tracks; /* the IOMMU has a dirty log */
	bool tracking;
} fake;

/* ---- the kernel ---- */

static int make_file(enum kind kind)
{
	int fd = qsc_fd_memory("fake", 4096);

	assert_in_range(fd, 0, MAX_FD - 1);
	fake.files[fd] = kind;
	return fd;
}

/* A device that can migrate, and always runs. */
static int on_feature(struct vfio_device_feature *feature)
{
	switch (feature->flags & VFIO_DEVICE_FEATURE_MASK) {
	case VFIO_DEVICE_FEATURE_MIGRATION:
		*(uint64_t *)feature->data = QSC_MIGRATION_STOP_COPY;
		return 0;
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
		*(uint32_t *)feature->data = QSC_STATE_RUNNING;
		return 0;
	default:
		return -ENOTTY;
	}
}

static int on_device(unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
	case ABI_BIND_IOMMUFD:
		return 0;
	case ABI_ATTACH_IOMMUFD_PT:
		/* One table for all of a group. */
		return ((struct abi_attach *)arg)->pt_id == (fake.tracks ? 5U : 3U) ? 0 : -EINVAL;
	case VFIO_DEVICE_FEATURE:
		return on_feature(arg);
	default:
		return -ENOTTY;
	}
}

static int on_space(unsigned long request, void *arg)
{
	switch (request) {
	case ABI_IOMMUFD(ABI_IOAS_ALLOC):
		((struct abi_ioas_alloc *)arg)->out_ioas_id = 3;
		return 0;
	case ABI_IOMMUFD(ABI_HWPT_ALLOC):
		((struct abi_hwpt_alloc *)arg)->out_hwpt_id = 5;
		return fake.tracks ? 0 : -EOPNOTSUPP;
	case ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING):
		fake.tracking = ((struct abi_set_dirty_tracking *)arg)->flags;
		return 0;
	case ABI_IOMMUFD(ABI_IOAS_MAP):
	case VFIO_IOMMU_MAP_DMA:
		fake.maps++;
		return 0;
	case ABI_IOMMUFD(ABI_IOAS_UNMAP):
	case VFIO_IOMMU_UNMAP_DMA:
		fake.unmaps++;
		return 0;
	case VFIO_GET_API_VERSION:
	case VFIO_SET_IOMMU:
		return 0;
	default:
		return -ENOTTY;
	}
}

static int on_group(unsigned long request, void *arg)
{
	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		((struct vfio_group_status *)arg)->flags = VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		return make_file(DEVICE);
	default:
		return -ENOTTY;
	}
}

int ioctl(int fd, unsigned long request, ...)
{
	enum kind kind = fd >= 0 && fd < MAX_FD ? fake.files[fd] : NO_FILE;
	va_list args;
	void *arg;
	int result;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (kind == DEVICE)
		result = on_device(request, arg);
	else if (kind == GROUP)
		result = on_group(request, arg);
	else if (kind)
		result = on_space(request, arg);
	else
		return (int)syscall(SYS_ioctl, fd, request, arg);
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

int open(const char *file, int oflag, ...)
{
	if (!strcmp(file, "/dev/iommu"))
		return make_file(IOMMUFD);
	if (!strcmp(file, "/dev/vfio/vfio"))
		return make_file(CONTAINER);
	if (!strncmp(file, "/dev/vfio/devices/", 18))
		return make_file(DEVICE);
	if (strncmp(file, "/dev/vfio/", 10) != 0)
		return (int)syscall(SYS_openat, AT_FDCWD, file, oflag, 0);
	/* Its only user's. */
	if (atomic_fetch_add(&fake.groups, 1)) {
		fake.groups--;
		errno = EBUSY;
		return -1;
	}
	return make_file(GROUP);
}

int close(int fd)
{
	if (fd >= 0 && fd < MAX_FD && fake.files[fd]) {
		fake.groups -= fake.files[fd] == GROUP;
		fake.files[fd] = NO_FILE;
	}
	return (int)syscall(SYS_close, fd);
}

/* ---- the rig ---- */

static const struct qsc_kernel_place places[] = {
	{.name = "a",
	 .device = "a",
	 .cdev = "/dev/vfio/devices/a",
	 .group = "/dev/vfio/7",
	 .group_id = "7"},
	{.name = "b",
	 .device = "b",
	 .cdev = "/dev/vfio/devices/b",
	 .group = "/dev/vfio/7",
	 .group_id = "7"},
};

static struct qsc_device *open_place(size_t i, enum qsc_kernel_via via)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev = NULL;
	struct qsc_kernel_files files;

	if (qsc_kernel_attach(&places[i], via, &files, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(qsc_kernel_take(&files, places[i].name, false, &dev, NULL), 0);
	return dev;
}

static void refused(size_t i, enum qsc_kernel_via via, const char *says)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_kernel_files files;

	assert_int_equal(qsc_kernel_attach(&places[i], via, &files, &err), -EBUSY);
	if (!strstr(err.text, says))
		fail_msg("it says '%s'", err.text);
}

static int map_fd(struct qsc_device *dev, uint64_t iova, int fd)
{
	const struct qsc_dma_mapping mapping = {
		.iova = iova,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = fd,
	};

	return qsc_device_dma_map(dev, &mapping);
}

static int count_files(void)
{
	int count = 0;

	for (int fd = 0; fd < MAX_FD; fd++)
		count += fake.files[fd] != NO_FILE;
	return count;
}

/* ---- the tests ---- */

/* One mapping of the kernel's for what both have, until the last lets go of it. */
static void share(enum qsc_kernel_via via)
{
	struct qsc_device *a = open_place(0, via);
	struct qsc_device *b = open_place(1, QSC_KERNEL_AUTO);
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);
	int other = qsc_fd_memory("other", MEMORY_SIZE);

	fake.maps = fake.unmaps = 0;
	assert_int_equal(map_fd(a, MEMORY_IOVA, fd), 0);
	assert_int_equal(map_fd(b, MEMORY_IOVA, fd), 0);
	assert_int_equal(fake.maps, 1);
	/* Each has a view of its own. */
	assert_int_equal(map_fd(b, MEMORY_IOVA, fd), -EEXIST);
	assert_int_equal(qsc_device_dma_unmap(a, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(qsc_device_dma_unmap(a, MEMORY_IOVA, MEMORY_SIZE), -ENOENT);
	assert_int_equal(fake.unmaps, 0);
	/* What cannot be: other memory, or other pieces of the same. */
	assert_int_equal(map_fd(a, MEMORY_IOVA, other), -EBUSY);
	assert_int_equal(map_fd(a, MEMORY_IOVA + MEMORY_SIZE / 2, fd), -EBUSY);
	assert_int_equal(map_fd(a, MEMORY_IOVA + MEMORY_SIZE, other), 0);
	assert_int_equal(map_fd(a, MEMORY_IOVA, fd), 0);
	assert_int_equal(fake.maps, 2);
	/* Who leaves takes along what the other has not. */
	qsc_device_close(a);
	assert_int_equal(fake.unmaps, 1);
	assert_int_equal(qsc_device_dma_unmap(b, MEMORY_IOVA, MEMORY_SIZE), 0);
	assert_int_equal(fake.unmaps, 2);
	assert_int_equal(map_fd(b, MEMORY_IOVA, other), 0);
	/* And the next one finds the group as it is. */
	a = open_place(0, via);
	assert_int_equal(map_fd(a, MEMORY_IOVA, fd), -EBUSY);
	qsc_device_close(b);
	assert_int_equal(map_fd(a, MEMORY_IOVA, fd), 0);
	qsc_device_close(a);
	assert_int_equal(count_files(), 0);
	close(fd);
	close(other);
}

static void test_share(void **unused)
{
	(void)unused;
	memset(&fake, 0, sizeof(fake));
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
	memset(&fake, 0, sizeof(fake));
	a = open_place(0, QSC_KERNEL_LEGACY);
	b = open_place(1, QSC_KERNEL_LEGACY);
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
	assert_int_equal(count_files(), 0);
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
	memset(&fake, 0, sizeof(fake));
	fake.tracks = true;
	a = open_place(0, QSC_KERNEL_AUTO);
	b = open_place(1, QSC_KERNEL_AUTO);
	assert_true(has_log(a));
	assert_false(has_log(b));
	qsc_device_close(a);
	a = open_place(0, QSC_KERNEL_AUTO);
	assert_true(has_log(a));
	assert_false(has_log(b));
	qsc_device_close(a);
	qsc_device_close(b);
}

static void test_refusals(void **unused)
{
	struct qsc_device *a;

	(void)unused;
	memset(&fake, 0, sizeof(fake));
	a = open_place(0, QSC_KERNEL_CDEV);
	refused(0, QSC_KERNEL_AUTO, "has the device open already");
	refused(1, QSC_KERNEL_LEGACY, "has a of the same IOMMU group 7 open with ,via=cdev");
	qsc_device_close(a);
	a = open_place(0, QSC_KERNEL_LEGACY);
	refused(1, QSC_KERNEL_CDEV, "open with ,via=legacy");
	qsc_device_close(a);
	/* Another program's. */
	fake.groups = 1;
	refused(0, QSC_KERNEL_LEGACY, "in use by another program");
	assert_int_equal(count_files(), 0);
	fake.groups = 0;
	qsc_device_close(open_place(0, QSC_KERNEL_LEGACY));
}

static void *come_and_go(void *ctx)
{
	size_t *i = ctx;
	int fd = qsc_fd_memory("memory", MEMORY_SIZE);

	for (int round = 0; round < 100; round++) {
		struct qsc_device *dev = open_place(*i, QSC_KERNEL_LEGACY);

		/* Not both at one address: each has a file of its own. */
		assert_int_equal(map_fd(dev, MEMORY_IOVA * (*i + 1), fd), 0);
		qsc_device_close(dev);
	}
	close(fd);
	return NULL;
}

/* Whoever comes finds a group that is open, or one that is free. */
static void test_threads(void **unused)
{
	size_t numbers[] = {0, 1};
	pthread_t threads[2];

	(void)unused;
	memset(&fake, 0, sizeof(fake));
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &numbers[i]), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(count_files(), 0);
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
