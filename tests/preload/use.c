/* SPDX-License-Identifier: MIT */
/* Devices in use: both ways to open one, data and interrupts, mapped memory, migration. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "dmacopy/dmacopy.h"
#include "vmm.h"

#define FROM 0x10000U
#define TO   0x20000U
#define SIZE 0x3000U

static void fill(uint8_t *at, size_t size, unsigned int seed)
{
	for (size_t i = 0; i < size; i++)
		at[i] = (uint8_t)(i * 31 + seed);
}

/* One copy by the engine, compared. */
static void copy_once(const struct vmm *vmm, uint32_t slot)
{
	fill(vmm->memory + FROM, SIZE, slot + 1);
	memset(vmm->memory + TO, 0, SIZE);
	vmm_copy(vmm, slot, FROM, TO, SIZE);
	CHECK(!memcmp(vmm->memory + FROM, vmm->memory + TO, SIZE));
}

void test_cdev(void)
{
	struct vmm vmm;
	struct pollfd ready = {.events = POLLIN};

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	CHECK(vmm_read(vmm.device, DMACOPY_REG_ID) == DMACOPY_ID);
	vmm_ring(&vmm);
	for (uint32_t slot = 0; slot < 40; slot++)
		copy_once(&vmm, slot);
	/* Not seen by the device any more: it halts rather than write. */
	ready.fd = vmm.device;
	CHECK(poll(&ready, 1, 0) == 1);
	vmm_end(&vmm);
	/* Let go and opened again: power-on contents. */
	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	CHECK(vmm_read(vmm.device, DMACOPY_REG_CONTROL) == 0);
	vmm_end(&vmm);
}

void test_legacy(void)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.iova = MEMORY_IOVA,
		.size = MEMORY_SIZE,
	};
	struct {
		struct vfio_iommu_type1_dma_unmap unmap;
		struct vfio_bitmap bitmap;
	} unmap = {.unmap = {.argsz = sizeof(unmap),
			     .flags = VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
			     .iova = MEMORY_IOVA,
			     .size = MEMORY_SIZE}};
	uint64_t words[MEMORY_SIZE / 4096 / 64] = {0};
	struct vmm vmm = {.event = eventfd(0, EFD_CLOEXEC)};
	int container = vmm_open("/dev/vfio/vfio");
	int group = vmm_open("/dev/vfio/0");
	int again;

	CHECK(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0);
	CHECK(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
	vmm.memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	map.vaddr = (uintptr_t)vmm.memory;
	CHECK(ioctl(container, VFIO_IOMMU_MAP_DMA, &map) == 0);
	FAILS(EEXIST, ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
	vmm.device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "5153:01:00.0");
	CHECK(vmm.device >= 0);
	again = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "vfio0");
	CHECK(again >= 0 && close(again) == 0);
	FAILS(EBUSY, ioctl(group, VFIO_GROUP_UNSET_CONTAINER));
	vmm_set_vector(&vmm);
	vmm_ring(&vmm);
	for (uint32_t slot = 0; slot < 20; slot++)
		copy_once(&vmm, slot);
	/* In any order: what is used stays. */
	CHECK(close(group) == 0);
	copy_once(&vmm, 20);
	unmap.bitmap =
		(struct vfio_bitmap){.pgsize = 4096, .size = sizeof(words), .data = (void *)words};
	CHECK(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0);
	CHECK(unmap.unmap.size == MEMORY_SIZE && words[0] == UINT64_MAX && words[3] == UINT64_MAX);
	CHECK(close(container) == 0 && close(vmm.device) == 0 && close(vmm.event) == 0);
}

/* DEV-7: the VMM's own mapping, at the address that it chose. */
void test_revoke(void)
{
	struct vmm vmm;
	uint8_t *place = mmap(NULL, 3 * 65536, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	volatile uint32_t *local;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	local = mmap(place + 65536, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		     vmm.device, (off_t)REGION(DMACOPY_BAR_LOCAL, 0));
	CHECK((uint8_t *)local == place + 65536);
	local[5] = 0x12345678;
	CHECK(vmm_read(vmm.device, REGION(DMACOPY_BAR_LOCAL, 20)) == 0x12345678);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_STOP) == -1);
	CHECK(local[5] == ~0U && vmm_read(vmm.device, REGION(DMACOPY_BAR_LOCAL, 20)) == ~0U);
	local[5] = 1;
	vmm_write(vmm.device, REGION(DMACOPY_BAR_LOCAL, 20), 2);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1);
	CHECK(local[5] == 0x12345678);
	/* The device's file may be closed before its mapping. */
	CHECK(close(vmm.device) == 0);
	CHECK(local[5] == 0x12345678);
	/* What the kernel refuses changes nothing, and half a page is a page to it. */
	FAILS(EINVAL, munmap(place + 100, 3 * 65536 - 100));
	FAILS(EBADF, mmap(place, 3 * 65536, PROT_READ, MAP_SHARED | MAP_FIXED, 1 << 19, 0));
	CHECK(local[5] == 0x12345678);
	CHECK(munmap(place, 2 * 65536 - 100) == 0);
	CHECK(munmap(place, 3 * 65536) == 0);
	vmm.device = vmm_open("/dev/vfio/devices/vfio0");
	vmm_bind(&vmm);
	vmm_end(&vmm);
}

/* What the device wrote, and nothing else, by its own log and by the page table's. */
void test_track(void)
{
	struct abi_hw_info info = {.size = sizeof(info)};
	struct abi_hwpt_alloc alloc = {.size = sizeof(alloc), .flags = ABI_HWPT_DIRTY_TRACKING};
	struct abi_attach attach = {.argsz = sizeof(attach)};
	struct abi_set_dirty_tracking set = {.size = sizeof(set), .flags = 1};
	uint64_t words[MEMORY_SIZE / 4096 / 64] = {0};
	struct abi_get_dirty_bitmap get = {.size = sizeof(get),
					   .iova = MEMORY_IOVA,
					   .length = MEMORY_SIZE,
					   .page_size = 4096,
					   .data = (uintptr_t)words};
	struct vmm vmm;
	uint8_t *late;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	info.dev_id = alloc.dev_id = vmm.devid;
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_GET_HW_INFO), &info) == 0);
	CHECK(info.out_capabilities == ABI_HW_CAP_DIRTY_TRACKING);
	alloc.pt_id = vmm.ioas;
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_ALLOC), &alloc) == 0);
	attach.pt_id = alloc.out_hwpt_id;
	CHECK(ioctl(vmm.device, ABI_ATTACH_IOMMUFD_PT, &attach) == 0);
	CHECK(attach.pt_id == alloc.out_hwpt_id);
	vmm_ring(&vmm);
	get.hwpt_id = set.hwpt_id = alloc.out_hwpt_id;
	FAILS(EINVAL, ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get));
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING), &set) == 0);
	copy_once(&vmm, 0);
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get) == 0);
	/* The descriptor's page, and the three of the copy. */
	CHECK(words[0] == ((1ULL << 0) | (7ULL << 32)) && !words[1] && !words[2] && !words[3]);
	memset(words, 0, sizeof(words));
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get) == 0 && !words[0]);
	/* Memory that comes later is not in the log: it counts as written. */
	late = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vmm_map(&vmm, late, 4096, MEMORY_IOVA + MEMORY_SIZE);
	get.iova = MEMORY_IOVA + MEMORY_SIZE;
	get.length = 4096;
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get) == 0 &&
	      words[0] == 1);
	get.length = 8192;
	FAILS(EINVAL, ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get));
	set.flags = 0;
	CHECK(ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING), &set) == 0);
	vmm_end(&vmm);
}

static size_t save(struct vmm *vmm, uint8_t *stream, size_t room)
{
	struct abi_precopy_info info = {.argsz = sizeof(info)};
	int session = vmm_set_state(vmm->device, QSC_STATE_PRE_COPY);
	size_t size;

	CHECK(session >= 0);
	CHECK(ioctl(session, ABI_MIG_GET_PRECOPY_INFO, &info) == 0 && info.initial_bytes);
	size = vmm_drain(session, stream, room);
	copy_once(vmm, 3);
	CHECK(vmm_set_state(vmm->device, QSC_STATE_PRE_COPY_P2P) == -1);
	CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP_COPY) == -1);
	FAILS(EINVAL, ioctl(session, ABI_MIG_GET_PRECOPY_INFO, &info));
	size += vmm_drain(session, stream + size, room - size);
	/* SESS-3: the end, again and again. */
	CHECK(read(session, stream, 1) == 0 && read(session, stream, 1) == 0);
	CHECK(vmm_set_state(vmm->device, QSC_STATE_STOP) == -1);
	FAILS(ENODEV, read(session, stream, 1));
	CHECK(close(session) == 0);
	return size;
}

/* Two sets in one process, and the tenant's memory goes along. */
void test_move(void)
{
	static uint8_t stream[4U << 20];
	struct vmm from;
	struct vmm to;
	size_t size;
	int session;

	vmm_start(&from, "/dev/vfio/devices/vfio0");
	vmm_start(&to, "/dev/vfio/devices/vfio1");
	vmm_ring(&from);
	for (uint32_t slot = 0; slot < 3; slot++)
		copy_once(&from, slot);
	size = save(&from, stream, sizeof(stream));
	memcpy(to.memory, from.memory, MEMORY_SIZE);
	session = vmm_set_state(to.device, QSC_STATE_RESUMING);
	CHECK(session >= 0);
	FAILS(ENODEV, read(session, stream, 1));
	/* SESS-6: not all of it yet. */
	CHECK(write(session, stream, 5) == 5);
	for (size_t done = 5; done < size;) {
		size_t piece = size - done < 999 ? size - done : 999;

		CHECK(write(session, stream + done, piece) == (ssize_t)piece);
		done += piece;
	}
	CHECK(vmm_set_state(to.device, QSC_STATE_STOP) == -1);
	CHECK(vmm_set_state(to.device, QSC_STATE_RUNNING) == -1);
	CHECK(vmm_state(to.device) == QSC_STATE_RUNNING);
	/* It goes on where the other one was. */
	for (uint32_t slot = 4; slot < 12; slot++)
		copy_once(&to, slot);
	CHECK(close(session) == 0);
	vmm_end(&from);
	vmm_end(&to);
}

static void may_open(int fds)
{
	struct rlimit limit;

	CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
	limit.rlim_cur = fds ? (rlim_t)fds : limit.rlim_max;
	CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

/* SESS-9: without a descriptor for a session no state changes that needs one, and any other does.
 */
void test_limit(void)
{
	struct vfio_device_feature_mig_state mig = {.device_state = QSC_STATE_PRE_COPY};
	struct vmm vmm;
	int session;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	may_open(vmm.event + 1);
	FAILS(EMFILE, open("/dev/vfio/devices/vfio1", O_RDWR));
	FAILS(EMFILE, vmm_feature(vmm.device,
				  VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
				  &mig, sizeof(mig)));
	CHECK(mig.data_fd == -1 && vmm_state(vmm.device) == QSC_STATE_RUNNING);
	may_open(0);
	session = vmm_set_state(vmm.device, QSC_STATE_PRE_COPY);
	CHECK(session >= 0);
	may_open(session + 1);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_PRE_COPY_P2P) == -1);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_STOP_COPY) == -1);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_STOP_COPY) == -1);
	CHECK(read(session, &mig, sizeof(mig)) == sizeof(mig));
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1);
	CHECK(close(session) == 0);
	may_open(0);
	vmm_end(&vmm);
}

struct job {
	const struct vmm *vmm;
	int other;
	_Atomic int stop;
};

static void *hammer(void *arg)
{
	struct job *job = arg;
	uint32_t value;

	while (!job->stop) {
		int copy = dup(job->vmm->device);

		CHECK(copy >= 0 && pread(copy, &value, 4, DMACOPY_REG_ID) == 4);
		CHECK(value == DMACOPY_ID || value == ~0U);
		CHECK(close(copy) == 0);
		copy = open("/dev/null", O_RDONLY);
		CHECK(copy >= 0 && read(copy, &value, 4) == 0 && close(copy) == 0);
	}
	return NULL;
}

void test_threads(void)
{
	struct vmm vmm;
	pthread_t threads[4];
	struct job job = {.vmm = &vmm};

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	for (size_t i = 0; i < 4; i++)
		CHECK(pthread_create(&threads[i], NULL, hammer, &job) == 0);
	for (unsigned int i = 0; i < 100; i++) {
		int session = vmm_set_state(vmm.device, QSC_STATE_STOP_COPY);

		CHECK(session >= 0 && close(session) == 0);
		CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1);
	}
	job.stop = 1;
	for (size_t i = 0; i < 4; i++)
		CHECK(pthread_join(threads[i], NULL) == 0);
	vmm_end(&vmm);
}
