/* SPDX-License-Identifier: MIT */
/* See vmm.h. */
#include "vmm.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dmacopy/dmacopy.h"

#define RING_SLOTS 16U

int vmm_open(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

uint32_t vmm_ioas(int iommufd)
{
	struct abi_ioas_alloc alloc = {.size = sizeof(alloc)};

	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &alloc) == 0);
	return alloc.out_ioas_id;
}

void vmm_bind(struct vmm *vmm)
{
	struct abi_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = vmm->iommufd};
	struct abi_attach attach = {.argsz = sizeof(attach), .pt_id = vmm->ioas};

	CHECK(ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind) == 0);
	vmm->devid = bind.out_devid;
	CHECK(ioctl(vmm->device, ABI_ATTACH_IOMMUFD_PT, &attach) == 0);
	CHECK(attach.pt_id != vmm->ioas);
}

void vmm_map(const struct vmm *vmm, void *memory, uint64_t size, uint64_t iova)
{
	struct abi_ioas_map map = {
		.size = sizeof(map),
		.flags = ABI_MAP_FIXED_IOVA | ABI_MAP_READABLE | ABI_MAP_WRITEABLE,
		.ioas_id = vmm->ioas,
		.user_va = (uintptr_t)memory,
		.length = size,
		.iova = iova,
	};

	CHECK(ioctl(vmm->iommufd, ABI_IOMMUFD(ABI_IOAS_MAP), &map) == 0);
}

void vmm_set_vector(const struct vmm *vmm)
{
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} set = {
		.set = {.argsz = sizeof(set),
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSIX_IRQ_INDEX,
			.count = 1},
		.fd = vmm->event,
	};

	CHECK(ioctl(vmm->device, VFIO_DEVICE_SET_IRQS, &set) == 0);
}

void vmm_start(struct vmm *vmm, const char *path)
{
	vmm->iommufd = vmm_open("/dev/iommu");
	vmm->device = vmm_open(path);
	vmm->ioas = vmm_ioas(vmm->iommufd);
	vmm_bind(vmm);
	vmm->memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);
	CHECK(vmm->memory != MAP_FAILED);
	vmm_map(vmm, vmm->memory, MEMORY_SIZE, MEMORY_IOVA);
	vmm->event = eventfd(0, EFD_CLOEXEC);
	CHECK(vmm->event >= 0);
	vmm_set_vector(vmm);
}

void vmm_end(struct vmm *vmm)
{
	CHECK(close(vmm->device) == 0);
	CHECK(close(vmm->iommufd) == 0);
	CHECK(close(vmm->event) == 0);
	CHECK(munmap(vmm->memory, MEMORY_SIZE) == 0);
}

uint32_t vmm_read(int device, uint64_t at)
{
	uint32_t value;

	CHECK(pread(device, &value, sizeof(value), (off_t)at) == sizeof(value));
	return value;
}

void vmm_write(int device, uint64_t at, uint32_t value)
{
	CHECK(pwrite(device, &value, sizeof(value), (off_t)at) == sizeof(value));
}

void vmm_ring(const struct vmm *vmm)
{
	vmm_write(vmm->device, DMACOPY_REG_RING_BASE, MEMORY_IOVA);
	vmm_write(vmm->device, DMACOPY_REG_RING_BASE + 4, 0);
	vmm_write(vmm->device, DMACOPY_REG_RING_SIZE, RING_SLOTS);
	vmm_write(vmm->device, DMACOPY_REG_CONTROL, DMACOPY_CONTROL_ENABLE);
	CHECK(vmm_read(vmm->device, DMACOPY_REG_CONTROL) == DMACOPY_CONTROL_ENABLE);
}

void vmm_copy(const struct vmm *vmm, uint32_t slot, uint64_t from, uint64_t to, uint32_t size)
{
	struct dmacopy_descriptor *ring = (struct dmacopy_descriptor *)(void *)vmm->memory;
	struct dmacopy_descriptor *one = &ring[slot % RING_SLOTS];
	uint64_t count;

	*one = (struct dmacopy_descriptor){
		.length = size,
		.source = MEMORY_IOVA + from,
		.destination = MEMORY_IOVA + to,
	};
	__atomic_store_n(&one->flags, DMACOPY_DESC_OWN | DMACOPY_DESC_INTERRUPT, __ATOMIC_RELEASE);
	vmm_write(vmm->device, DMACOPY_REG_DOORBELL, 1);
	CHECK(read(vmm->event, &count, sizeof(count)) == sizeof(count));
	CHECK(count == 1);
	CHECK(one->status == DMACOPY_DONE_OK && one->bytes_done == size);
}

int vmm_feature(int device, uint32_t flags, void *data, size_t size)
{
	uint64_t room[16];
	struct vfio_device_feature *feature = (struct vfio_device_feature *)room;
	int result;

	CHECK(size <= sizeof(room) - sizeof(*feature));
	feature->argsz = (uint32_t)(sizeof(*feature) + size);
	feature->flags = flags;
	memcpy(feature->data, data, size);
	result = ioctl(device, VFIO_DEVICE_FEATURE, feature);
	memcpy(data, feature->data, size);
	return result;
}

int vmm_set_state(int device, enum qsc_state state)
{
	struct vfio_device_feature_mig_state mig = {.device_state = state, .data_fd = 77};

	CHECK(vmm_feature(device, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
			  &mig, sizeof(mig)) == 0);
	return mig.data_fd;
}

enum qsc_state vmm_state(int device)
{
	struct vfio_device_feature_mig_state mig = {.data_fd = 77};

	CHECK(vmm_feature(device, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
			  &mig, sizeof(mig)) == 0);
	CHECK(mig.data_fd == -1);
	return (enum qsc_state)mig.device_state;
}

size_t vmm_drain(int session, uint8_t *buf, size_t room)
{
	size_t size = 0;

	for (;;) {
		/* An odd size: any segmentation must do (SESS-5). */
		ssize_t n = read(session, buf + size, room - size < 777 ? room - size : 777);

		if (n < 0)
			CHECK(errno == ENOMSG);
		if (n <= 0)
			return size;
		size += (size_t)n;
		CHECK(size < room);
	}
}
