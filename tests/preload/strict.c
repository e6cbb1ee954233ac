/* SPDX-License-Identifier: MIT */
/* Errno by errno as the kernel: sizes, flags, reserved fields, numbers that are none. */
#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm.h"

#define NOWHERE ((void *)8)

static void extensible(int iommufd)
{
	struct {
		struct abi_ioas_alloc alloc;
		uint32_t more[4];
	} large = {.alloc = {.size = sizeof(large)}};
	struct abi_ioas_alloc alloc = {.size = sizeof(alloc)};

	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &large) == 0);
	large.more[3] = 1;
	FAILS(E2BIG, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &large));
	alloc.size = sizeof(alloc) - 1;
	FAILS(EINVAL, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &alloc));
	alloc.size = sizeof(alloc);
	alloc.flags = 1;
	FAILS(EOPNOTSUPP, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &alloc));
	FAILS(EFAULT, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), NOWHERE));
	FAILS(ENOTTY, ioctl(iommufd, ABI_IOMMUFD(0x40), &alloc));
	FAILS(ENOTTY, ioctl(iommufd, _IOR(VFIO_TYPE, 0x81, uint32_t), &alloc));
	FAILS(ENOTTY, ioctl(iommufd, VFIO_DEVICE_GET_INFO, &alloc));
	FAILS(EINVAL, read(iommufd, &alloc, 4));
}

static void mapping(int iommufd, uint32_t ioas, char *memory)
{
	const unsigned long command = ABI_IOMMUFD(ABI_IOAS_MAP);
	const struct abi_ioas_map good = {
		.size = sizeof(good),
		.flags = ABI_MAP_FIXED_IOVA | ABI_MAP_READABLE,
		.ioas_id = ioas,
		.user_va = (uintptr_t)memory,
		.length = 8192,
		.iova = 65536,
	};
	struct abi_ioas_unmap unmap = {.size = sizeof(unmap), .ioas_id = ioas, .length = 4096};
	struct abi_ioas_map map = good;

	CHECK(ioctl(iommufd, command, &map) == 0);
	FAILS(EEXIST, ioctl(iommufd, command, &map));
	map.ioas_id = 999;
	FAILS(ENOENT, ioctl(iommufd, command, &map));
	map = good;
	map.flags = ABI_MAP_FIXED_IOVA;
	FAILS(EINVAL, ioctl(iommufd, command, &map));
	map.flags = 8 | ABI_MAP_READABLE;
	FAILS(EOPNOTSUPP, ioctl(iommufd, command, &map));
	map = good;
	map.reserved = 1;
	FAILS(EOPNOTSUPP, ioctl(iommufd, command, &map));
	map = good;
	map.iova = UINT64_MAX;
	FAILS(EOVERFLOW, ioctl(iommufd, command, &map));
	map.iova = UINT64_MAX - 4095;
	FAILS(EOVERFLOW, ioctl(iommufd, command, &map));
	map = good;
	map.length = 0;
	FAILS(EINVAL, ioctl(iommufd, command, &map));
	/* Anywhere: not where something is, and never at 0. */
	map = good;
	map.flags = ABI_MAP_READABLE | ABI_MAP_WRITEABLE;
	CHECK(ioctl(iommufd, command, &map) == 0);
	CHECK(map.iova && (map.iova + 8192 <= 65536 || map.iova >= 65536 + 8192));
	unmap.iova = 65536;
	FAILS(ENOENT, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap));
	unmap.length = 0;
	FAILS(EINVAL, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap));
	unmap.iova = 0;
	unmap.length = UINT64_MAX;
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap) == 0);
	CHECK(unmap.length == 16384);
}

static void copying(int iommufd, uint32_t ioas, char *memory)
{
	struct abi_ioas_map map = {
		.size = sizeof(map),
		.flags = ABI_MAP_FIXED_IOVA | ABI_MAP_READABLE,
		.ioas_id = ioas,
		.user_va = (uintptr_t)memory,
		.length = 8192,
		.iova = 65536,
	};
	struct abi_ioas_copy copy = {
		.size = sizeof(copy),
		.flags = ABI_MAP_FIXED_IOVA | ABI_MAP_READABLE,
		.dst_ioas_id = vmm_ioas(iommufd),
		.src_ioas_id = ioas,
		.length = 4096,
		.dst_iova = 4096,
		.src_iova = 65536 + 4096,
	};

	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_MAP), &map) == 0);
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_COPY), &copy) == 0);
	FAILS(EEXIST, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_COPY), &copy));
	copy.dst_iova = 0x20000;
	copy.flags |= ABI_MAP_WRITEABLE;
	FAILS(EPERM, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_COPY), &copy));
	copy.flags &= ~ABI_MAP_WRITEABLE;
	copy.length = 8192;
	FAILS(ENOENT, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_COPY), &copy));
}

static void ranges(int iommufd, uint32_t ioas)
{
	struct abi_iova_range room[4];
	struct abi_ioas_iova_ranges get = {.size = sizeof(get), .ioas_id = ioas};
	struct abi_ioas_allow_iovas allow = {.size = sizeof(allow),
					     .ioas_id = ioas,
					     .num_iovas = 1,
					     .allowed_iovas = (uintptr_t)room};

	FAILS(EMSGSIZE, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_IOVA_RANGES), &get));
	CHECK(get.num_iovas == 1);
	get.allowed_iovas = (uintptr_t)room;
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_IOVA_RANGES), &get) == 0);
	CHECK(room[0].start == 0 && room[0].last == UINT64_MAX);
	room[0] = (struct abi_iova_range){4096, 4096};
	FAILS(EINVAL, ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOW_IOVAS), &allow));
	room[0].last = 65535;
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOW_IOVAS), &allow) == 0);
}

void test_strict_iommufd(void)
{
	int iommufd = vmm_open("/dev/iommu");
	uint32_t ioas = vmm_ioas(iommufd);
	struct abi_destroy destroy = {.size = sizeof(destroy), .id = 999};
	struct abi_option option = {
		.size = sizeof(option), .option_id = ABI_OPTION_HUGE_PAGES, .object_id = ioas};
	struct abi_hwpt_alloc hwpt = {.size = sizeof(hwpt), .dev_id = 5, .pt_id = ioas};
	char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	extensible(iommufd);
	mapping(iommufd, ioas, memory);
	copying(iommufd, vmm_ioas(iommufd), memory);
	ranges(iommufd, ioas);
	FAILS(ENOENT, ioctl(iommufd, ABI_IOMMUFD(ABI_DESTROY), &destroy));
	FAILS(ENOENT, ioctl(iommufd, ABI_IOMMUFD(ABI_HWPT_ALLOC), &hwpt));
	hwpt.reserved = 1;
	FAILS(EOPNOTSUPP, ioctl(iommufd, ABI_IOMMUFD(ABI_HWPT_ALLOC), &hwpt));
	option.val64 = 2;
	FAILS(EINVAL, ioctl(iommufd, ABI_IOMMUFD(ABI_OPTION), &option));
	option.val64 = 0;
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_OPTION), &option) == 0);
	option.option_id = 7;
	FAILS(EOPNOTSUPP, ioctl(iommufd, ABI_IOMMUFD(ABI_OPTION), &option));
	destroy.id = ioas;
	CHECK(ioctl(iommufd, ABI_IOMMUFD(ABI_DESTROY), &destroy) == 0);
	CHECK(close(iommufd) == 0);
}

/* ---- a device ---- */

static void binding(struct vmm *vmm)
{
	struct abi_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = vmm->device};
	struct abi_attach attach = {.argsz = sizeof(attach), .pt_id = 999};
	struct abi_destroy destroy = {.size = sizeof(destroy)};
	int pipe_ends[2];
	char byte;

	/* Before it is bound a device answers nothing. */
	FAILS(EINVAL, ioctl(vmm->device, VFIO_DEVICE_RESET));
	FAILS(EINVAL, pread(vmm->device, &byte, 1, 0));
	FAILS(EBADFD, ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind));
	CHECK(pipe(pipe_ends) == 0);
	bind.iommufd = pipe_ends[0];
	FAILS(EBADF, ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind));
	bind.iommufd = -1;
	FAILS(EINVAL, ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind));
	bind.argsz = 8;
	FAILS(EINVAL, ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind));
	vmm_bind(vmm);
	bind = (struct abi_bind_iommufd){.argsz = sizeof(bind), .iommufd = vmm->iommufd};
	FAILS(EINVAL, ioctl(vmm->device, ABI_BIND_IOMMUFD, &bind));
	FAILS(ENOENT, ioctl(vmm->device, ABI_ATTACH_IOMMUFD_PT, &attach));
	attach.pt_id = vmm->devid;
	FAILS(EINVAL, ioctl(vmm->device, ABI_ATTACH_IOMMUFD_PT, &attach));
	destroy.id = vmm->devid;
	FAILS(EBUSY, ioctl(vmm->iommufd, ABI_IOMMUFD(ABI_DESTROY), &destroy));
	destroy.id = vmm->ioas;
	FAILS(EBUSY, ioctl(vmm->iommufd, ABI_IOMMUFD(ABI_DESTROY), &destroy));
	CHECK(close(pipe_ends[0]) == 0 && close(pipe_ends[1]) == 0);
}

static void describing(int device)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	struct vfio_region_info region = {.argsz = sizeof(region)};
	struct vfio_irq_info irq = {.argsz = sizeof(irq)};

	CHECK(ioctl(device, VFIO_DEVICE_GET_INFO, &info) == 0);
	CHECK(info.flags == (VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET));
	CHECK(info.num_regions == VFIO_PCI_NUM_REGIONS && info.num_irqs == VFIO_PCI_NUM_IRQS);
	info.argsz = 8;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_GET_INFO, &info));
	FAILS(EFAULT, ioctl(device, VFIO_DEVICE_GET_INFO, NOWHERE));
	FAILS(ENOTTY, ioctl(device, _IO(VFIO_TYPE, VFIO_BASE + 99), &info));
	/* The capability that tells what becomes of accesses while stopped makes it larger. */
	CHECK(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) == 0);
	CHECK(region.flags & VFIO_REGION_INFO_FLAG_CAPS && region.argsz > sizeof(region));
	CHECK(!region.cap_offset && region.size == 4096);
	region.argsz = sizeof(region);
	region.index = VFIO_PCI_NUM_REGIONS;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region));
	region.index = VFIO_PCI_VGA_REGION_INDEX;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region));
	region.index = VFIO_PCI_ROM_REGION_INDEX;
	CHECK(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region) == 0 && !region.size);
	irq.index = VFIO_PCI_MSIX_IRQ_INDEX;
	CHECK(ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq) == 0 && irq.count == 16);
	irq.index = VFIO_PCI_ERR_IRQ_INDEX;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq));
	irq.index = VFIO_PCI_REQ_IRQ_INDEX;
	CHECK(ioctl(device, VFIO_DEVICE_GET_IRQ_INFO, &irq) == 0 && irq.count == 1);
}

static void interrupts(int device)
{
	struct {
		struct vfio_irq_set set;
		int32_t fds[2];
	} set = {.set = {.argsz = sizeof(set),
			 .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			 .index = VFIO_PCI_MSIX_IRQ_INDEX,
			 .count = 2},
		 .fds = {eventfd(0, 0), -1}};
	struct vfio_irq_set off = {.argsz = sizeof(off),
				   .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
				   .index = VFIO_PCI_MSIX_IRQ_INDEX};
	uint64_t count;

	CHECK(ioctl(device, VFIO_DEVICE_SET_IRQS, &set) == 0);
	/* As from the device: the user side triggers. */
	off.count = 1;
	CHECK(ioctl(device, VFIO_DEVICE_SET_IRQS, &off) == 0);
	CHECK(read(set.fds[0], &count, 8) == 8 && count == 1);
	off.count = 3;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &off));
	off.index = VFIO_PCI_MSI_IRQ_INDEX;
	off.count = 1;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &off));
	off.index = VFIO_PCI_MSIX_IRQ_INDEX;
	off.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
	FAILS(ENOTTY, ioctl(device, VFIO_DEVICE_SET_IRQS, &off));
	off.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER | 1U << 20;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &off));
	set.set.argsz = sizeof(set) - 1;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &set));
	set.set.argsz = sizeof(set);
	set.set.start = 15;
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &set));
	set.set.start = 0;
	set.fds[1] = 0; /* no eventfd */
	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_SET_IRQS, &set));
	off.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
	off.count = 0;
	CHECK(ioctl(device, VFIO_DEVICE_SET_IRQS, &off) == 0);
	CHECK(close(set.fds[0]) == 0);
}

static void features(int device)
{
	struct vfio_device_feature_dma_logging_control log = {.page_size = 4096, .num_ranges = 1};
	struct vfio_device_feature_dma_logging_range range = {.iova = 4096, .length = 4096};
	struct vfio_device_feature_mig_state mig = {.device_state = 99, .data_fd = 5};
	uint64_t word = 0;

#define GET   VFIO_DEVICE_FEATURE_GET
#define SET   VFIO_DEVICE_FEATURE_SET
#define PROBE VFIO_DEVICE_FEATURE_PROBE
	CHECK(vmm_feature(device, GET | VFIO_DEVICE_FEATURE_MIGRATION, &word, 8) == 0 && word == 7);
	CHECK(vmm_feature(device, PROBE | GET | VFIO_DEVICE_FEATURE_MIGRATION, &word, 0) == 0);
	CHECK(vmm_feature(device, PROBE | GET | SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &word,
			  0) == 0);
	FAILS(EINVAL, vmm_feature(device, PROBE | SET | VFIO_DEVICE_FEATURE_MIGRATION, &word, 0));
	FAILS(EINVAL, vmm_feature(device, GET | SET | VFIO_DEVICE_FEATURE_MIGRATION, &word, 8));
	FAILS(EINVAL, vmm_feature(device, VFIO_DEVICE_FEATURE_MIGRATION, &word, 8));
	FAILS(EINVAL, vmm_feature(device, GET | VFIO_DEVICE_FEATURE_MIGRATION, &word, 7));
	FAILS(EINVAL, vmm_feature(device, 1U << 30 | GET | 1, &word, 8));
	FAILS(ENOTTY, vmm_feature(device, GET | 99, &word, 8));
	FAILS(ENOTTY, vmm_feature(device, SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY, &word, 0));
	CHECK(vmm_feature(device, GET | ABI_FEATURE_MIG_DATA_SIZE, &word, 8) == 0 && word);
	/* A refused state leaves the device where it was, and no session in the structure. */
	FAILS(EINVAL,
	      vmm_feature(device, SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig, sizeof(mig)));
	CHECK(mig.data_fd == -1 && vmm_state(device) == QSC_STATE_RUNNING);
	log.ranges = (uintptr_t)&range;
	log.page_size = 0;
	FAILS(EINVAL,
	      vmm_feature(device, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &log, sizeof(log)));
	log.page_size = 8192;
	FAILS(EINVAL,
	      vmm_feature(device, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &log, sizeof(log)));
	log.page_size = 4096;
	log.num_ranges = 257;
	FAILS(E2BIG,
	      vmm_feature(device, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START, &log, sizeof(log)));
	FAILS(EINVAL, vmm_feature(device, SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, &log, 0));
}

static void regions(int device)
{
	uint32_t value;
	uint16_t command = 0;

	FAILS(EINVAL, pread(device, &value, 4, (off_t)REGION(1, 0)));
	FAILS(EINVAL, pread(device, &value, 4, (off_t)REGION(0, 4096)));
	FAILS(EFAULT, pread(device, &value, 4, (off_t)REGION(VFIO_PCI_CONFIG_REGION_INDEX, 256)));
	FAILS(EINVAL, pread(device, &value, 4, (off_t)REGION(12, 0)));
	CHECK(pread(device, &value, 0, 0) == 0);
	/* BARs are there while memory space is on: at first, and after a reset if before. */
	CHECK(pwrite(device, &command, 2, (off_t)REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4)) == 2);
	FAILS(EIO, pread(device, &value, 4, 0));
	CHECK(ioctl(device, VFIO_DEVICE_RESET) == 0);
	FAILS(EIO, pread(device, &value, 4, 0));
	command = 2;
	CHECK(pwrite(device, &command, 2, (off_t)REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4)) == 2);
	CHECK(pread(device, &value, 4, 0) == 4);
	/* How software learns a BAR's size. */
	vmm_write(device, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 0x10), ~0U);
	CHECK(vmm_read(device, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 0x10)) == 0xfffff000);
	vmm_write(device, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 0x10), 0xfe000000);
	CHECK(ioctl(device, VFIO_DEVICE_RESET) == 0);
	CHECK(vmm_read(device, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 0x10)) == 0xfe000000);
}

static void mapped(int device)
{
	FAILS(EINVAL, (long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, device, 0));
	FAILS(EINVAL, (long)mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, device, (off_t)REGION(2, 0)));
	FAILS(EINVAL,
	      (long)mmap(NULL, 1 << 24, PROT_READ, MAP_SHARED, device, (off_t)REGION(2, 0)));
	FAILS(EINVAL, (long)mmap(NULL, 4096, PROT_READ, MAP_SHARED, device, (off_t)REGION(4, 0)));
	/* Neither shared nor private; and a kind of mapping that only some file systems have. */
	FAILS(EINVAL, (long)mmap(NULL, 4096, PROT_READ, 0, device, (off_t)REGION(2, 0)));
	FAILS(EOPNOTSUPP, (long)mmap(NULL, 4096, PROT_READ, MAP_SHARED_VALIDATE | MAP_SYNC, device,
				     (off_t)REGION(2, 0)));
}

/* What the kernel does for any descriptor, and a command in the type that some programs have. */
static void generic(int device)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	int on = 1;

	CHECK(ioctl(device, FIONCLEX) == 0 && !(fcntl(device, F_GETFD) & FD_CLOEXEC));
	CHECK(ioctl(device, FIOCLEX) == 0 && (fcntl(device, F_GETFD) & FD_CLOEXEC));
	CHECK(ioctl(device, FIONBIO, &on) == 0 && (fcntl(device, F_GETFL) & O_NONBLOCK));
	on = 0;
	CHECK(ioctl(device, FIONBIO, &on) == 0 && !(fcntl(device, F_GETFL) & O_NONBLOCK));
	CHECK(ioctl(device, 0xffffffff00000000UL | VFIO_DEVICE_GET_INFO, &info) == 0);
}

void test_strict_device(void)
{
	struct vmm vmm = {.iommufd = vmm_open("/dev/iommu"),
			  .device = vmm_open("/dev/vfio/devices/vfio0")};

	vmm.ioas = vmm_ioas(vmm.iommufd);
	binding(&vmm);
	describing(vmm.device);
	interrupts(vmm.device);
	features(vmm.device);
	regions(vmm.device);
	mapped(vmm.device);
	generic(vmm.device);
	CHECK(close(vmm.iommufd) == 0 && close(vmm.device) == 0);
}

/* ---- container and group ---- */

/* The first version unmaps whole areas from one that begins there; memory must be there. */
static void type1_v1(int container)
{
	char *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map),
					       .flags = VFIO_DMA_MAP_FLAG_READ,
					       .vaddr = (uintptr_t)memory,
					       .iova = 0x10000,
					       .size = 65536};
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap), .iova = 0x11000, .size = 4096};

	CHECK(ioctl(container, VFIO_IOMMU_MAP_DMA, &map) == 0);
	CHECK(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0 && unmap.size == 0);
	unmap.iova = 0x10000;
	unmap.size = 4096;
	CHECK(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0 && unmap.size == 65536);
	unmap.size = 4096;
	CHECK(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap) == 0 && unmap.size == 0);
	CHECK(munmap(memory, 65536) == 0);
	FAILS(EFAULT, ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
}

void test_strict_legacy(void)
{
	struct vfio_group_status status = {.argsz = sizeof(status)};
	struct vfio_iommu_type1_info info = {.argsz = sizeof(info)};
	int container = vmm_open("/dev/vfio/vfio");
	int group = vmm_open("/dev/vfio/0");

	FAILS(EBUSY, open("/dev/vfio/0", O_RDWR));
	CHECK(ioctl(container, VFIO_GET_API_VERSION) == VFIO_API_VERSION);
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) == 1);
	CHECK(ioctl(container, VFIO_CHECK_EXTENSION, VFIO_NOIOMMU_IOMMU) == 0);
	FAILS(EINVAL, ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
	FAILS(EINVAL, ioctl(container, VFIO_IOMMU_GET_INFO, &info));
	FAILS(EINVAL, ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "vfio0"));
	FAILS(ENODEV, ioctl(group, VFIO_GROUP_GET_DEVICE_FD, "vfio1"));
	FAILS(EINVAL, ioctl(group, VFIO_GROUP_UNSET_CONTAINER));
	FAILS(EBADFD, ioctl(group, VFIO_GROUP_SET_CONTAINER, &group));
	CHECK(ioctl(group, VFIO_GROUP_GET_STATUS, &status) == 0);
	CHECK(status.flags == VFIO_GROUP_FLAGS_VIABLE);
	CHECK(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0);
	FAILS(EINVAL, ioctl(group, VFIO_GROUP_SET_CONTAINER, &container));
	FAILS(ENODEV, ioctl(container, VFIO_SET_IOMMU, 77UL));
	CHECK(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_IOMMU) == 0);
	type1_v1(container);
	CHECK(ioctl(group, VFIO_GROUP_UNSET_CONTAINER) == 0);
	CHECK(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) == 0);
	CHECK(ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0);
	FAILS(EINVAL, ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU));
	CHECK(ioctl(container, VFIO_IOMMU_GET_INFO, &info) == 0 && info.argsz > sizeof(info));
	info.argsz = 8;
	FAILS(EINVAL, ioctl(container, VFIO_IOMMU_GET_INFO, &info));
	FAILS(ENOTTY, ioctl(container, VFIO_IOMMU_ENABLE));
	CHECK(ioctl(group, VFIO_GROUP_UNSET_CONTAINER) == 0);
	CHECK(close(group) == 0 && close(container) == 0);
	CHECK(close(vmm_open("/dev/vfio/0")) == 0);
}
