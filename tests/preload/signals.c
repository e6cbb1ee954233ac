/* SPDX-License-Identifier: MIT */
/* Eventfds that the library waits for: ioeventfds, and the unmask of INTx; and own interrupts. */
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dmacopy/dmacopy.h"
#include "vmm.h"

static int new_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);

	CHECK(fd >= 0);
	return fd;
}

static void signal_fd(int fd)
{
	const uint64_t one = 1;

	CHECK(write(fd, &one, sizeof(one)) == sizeof(one));
}

static bool is_signalled(int fd)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return poll(&ready, 1, 0) == 1;
}

/* Until somebody has taken what was signalled. */
static void wait_taken(int fd)
{
	while (is_signalled(fd))
		(void)usleep(1000);
}

static void wait_value(int device, uint64_t at, uint32_t value)
{
	while (vmm_read(device, at) != value)
		(void)usleep(1000);
}

static uint64_t take(int fd)
{
	uint64_t count;

	CHECK(read(fd, &count, sizeof(count)) == sizeof(count));
	return count;
}

/* ---- ioeventfds ---- */

static int io(int device, uint64_t at, uint64_t data, uint32_t size, int fd)
{
	struct vfio_device_ioeventfd in = {.argsz = offsetof(struct vfio_device_ioeventfd, fd) + 4,
					   .flags = size,
					   .offset = at,
					   .data = data,
					   .fd = fd};

	return ioctl(device, VFIO_DEVICE_IOEVENTFD, &in);
}

static void refusals(int device, int fd)
{
	struct vfio_device_ioeventfd in = {.argsz = 16, .flags = 4, .fd = fd};
	int pipe_ends[2];

	FAILS(EINVAL, ioctl(device, VFIO_DEVICE_IOEVENTFD, &in));
	FAILS(EFAULT, ioctl(device, VFIO_DEVICE_IOEVENTFD, (void *)8));
	FAILS(EINVAL, io(device, DMACOPY_REG_SCRATCH, 1, 0, fd));
	FAILS(EINVAL, io(device, DMACOPY_REG_SCRATCH, 1, 6, fd));
	FAILS(EINVAL, io(device, DMACOPY_REG_SCRATCH, 1, 16, fd));
	FAILS(EINVAL, io(device, DMACOPY_REG_SCRATCH, 1, 4, -2));
	FAILS(EINVAL, io(device, REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4), 1, 4, fd));
	FAILS(EINVAL, io(device, DMACOPY_REGISTERS_SIZE - 3, 1, 4, fd));
	FAILS(EINVAL, io(device, REGION(1, 0), 1, 4, fd));
	FAILS(EINVAL, io(device, REGION(DMACOPY_BAR_MSIX, 12), 1, 4, fd));
	FAILS(ENODEV, io(device, DMACOPY_REG_SCRATCH, 1, 4, -1));
	FAILS(EBADF, io(device, DMACOPY_REG_SCRATCH, 1, 4, 1 << 19));
	CHECK(pipe(pipe_ends) == 0);
	FAILS(EINVAL, io(device, DMACOPY_REG_SCRATCH, 1, 4, pipe_ends[0]));
	CHECK(close(pipe_ends[0]) == 0 && close(pipe_ends[1]) == 0);
	for (uint32_t i = 0; i < 1000; i++)
		CHECK(io(device, DMACOPY_REG_SCRATCH, i, 4, fd) == 0);
	FAILS(ENOSPC, io(device, DMACOPY_REG_SCRATCH, 1000, 4, fd));
	FAILS(EEXIST, io(device, DMACOPY_REG_SCRATCH, 999, 4, fd));
	for (uint32_t i = 0; i < 1000; i++)
		CHECK(io(device, DMACOPY_REG_SCRATCH, i, 4, -1) == 0);
}

/* A child has the eventfd, and not the device: its signal is for its parent's. */
static void signal_in_child(int device, int fd)
{
	int status;
	pid_t child = fork();

	CHECK(child >= 0);
	if (!child) {
		struct vmm vmm;

		FAILS(ENODEV, io(device, DMACOPY_REG_SCRATCH, 1, 4, fd));
		CHECK(close(device) == 0);
		signal_fd(fd);
		/* A device of its own has a thread of its own. */
		fd = new_eventfd();
		vmm_start(&vmm, "/dev/vfio/devices/vfio1");
		CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 7, 4, fd) == 0);
		signal_fd(fd);
		wait_value(vmm.device, DMACOPY_REG_SCRATCH, 7);
		vmm_end(&vmm);
		_exit(0);
	}
	wait_value(device, DMACOPY_REG_SCRATCH, 0x77777777);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

void test_ioeventfd(void)
{
	int fd = new_eventfd();
	int wide = new_eventfd();
	uint16_t command = 0;
	struct vmm vmm;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	refusals(vmm.device, fd);
	/* Both halves by one eventfd, and one that was signalled before. */
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x11111111, 4, fd) == 0);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH + 4, 0xf00000022222222, 4, fd) == 0);
	signal_fd(fd);
	wait_value(vmm.device, DMACOPY_REG_SCRATCH, 0x11111111);
	wait_value(vmm.device, DMACOPY_REG_SCRATCH + 4, 0x22222222);
	signal_fd(wide);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x4444444433333333, 8, wide) == 0);
	wait_value(vmm.device, DMACOPY_REG_SCRATCH, 0x33333333);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_SCRATCH + 4) == 0x44444444);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x77777777, 4, wide) == 0);
	vmm_write(vmm.device, DMACOPY_REG_SCRATCH, 0);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x4444444433333333, 8, -1) == 0);
	signal_in_child(vmm.device, wide);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x77777777, 4, -1) == 0);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x4444444433333333, 8, wide) == 0);
	vmm_write(vmm.device, DMACOPY_REG_SCRATCH, 0x33333333);
	/* Taken away, it does nothing, and the eventfd is its owner's again. */
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x4444444433333333, 8, -1) == 0);
	signal_fd(wide);
	CHECK(take(wide) == 1);
	/* DEV-7: to a stopped device it is lost as a write is, and does not come later. */
	CHECK(vmm_set_state(vmm.device, QSC_STATE_STOP) == -1);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x55555555, 4, wide) == 0);
	signal_fd(wide);
	wait_taken(wide);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x55555555, 4, -1) == 0);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_SCRATCH) == 0x33333333);
	/* And where memory is off. */
	CHECK(pwrite(vmm.device, &command, 2, (off_t)REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4)) == 2);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x66666666, 4, wide) == 0);
	signal_fd(wide);
	wait_taken(wide);
	CHECK(io(vmm.device, DMACOPY_REG_SCRATCH, 0x66666666, 4, -1) == 0);
	command = 2;
	CHECK(pwrite(vmm.device, &command, 2, (off_t)REGION(VFIO_PCI_CONFIG_REGION_INDEX, 4)) == 2);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_SCRATCH) == 0x33333333);
	/* The device may go with some left, and nobody waits for them afterwards. */
	CHECK(close(vmm.device) == 0);
	signal_fd(fd);
	CHECK(take(fd) == 1);
	vmm.device = vmm_open("/dev/vfio/devices/vfio0");
	vmm_bind(&vmm);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_SCRATCH) == 0);
	vmm_end(&vmm);
	CHECK(close(fd) == 0 && close(wide) == 0);
}

/* ---- INTx ---- */

#define NONE	VFIO_IRQ_SET_DATA_NONE
#define EVENTFD VFIO_IRQ_SET_DATA_EVENTFD
#define TRIGGER VFIO_IRQ_SET_ACTION_TRIGGER
#define MASK	VFIO_IRQ_SET_ACTION_MASK
#define UNMASK	VFIO_IRQ_SET_ACTION_UNMASK

static int set_irq(int device, uint32_t index, uint32_t flags, uint32_t count, int fd)
{
	struct {
		struct vfio_irq_set set;
		int32_t fd;
	} set = {
		.set = {.argsz = sizeof(set), .flags = flags, .index = index, .count = count},
		.fd = fd,
	};

	return ioctl(device, VFIO_DEVICE_SET_IRQS, &set);
}

static int intx(int device, uint32_t flags, int fd)
{
	return set_irq(device, VFIO_PCI_INTX_IRQ_INDEX, flags, 1, fd);
}

static void unmasks(int device, int event, int unmask)
{
	/* Masked by its delivery: the second one comes with the unmask. */
	CHECK(intx(device, NONE | TRIGGER, 0) == 0 && take(event) == 1);
	CHECK(intx(device, NONE | TRIGGER, 0) == 0 && !is_signalled(event));
	signal_fd(unmask);
	CHECK(take(event) == 1);
	/* Stopped: unmasked, and held until the device runs (DEV-2, DEV-6). */
	CHECK(vmm_set_state(device, QSC_STATE_STOP) == -1);
	CHECK(intx(device, NONE | TRIGGER, 0) == 0);
	signal_fd(unmask);
	wait_taken(unmask);
	CHECK(intx(device, EVENTFD | UNMASK, -1) == 0);
	CHECK(!is_signalled(event));
	CHECK(vmm_set_state(device, QSC_STATE_RUNNING) == -1);
	CHECK(take(event) == 1);
	/* Nobody waits for it any more. */
	CHECK(intx(device, NONE | TRIGGER, 0) == 0);
	signal_fd(unmask);
	CHECK(!is_signalled(event) && is_signalled(unmask));
	/* One that was signalled before counts at once; it goes with the index. */
	CHECK(intx(device, EVENTFD | UNMASK, unmask) == 0);
	CHECK(take(event) == 1);
	CHECK(set_irq(device, VFIO_PCI_INTX_IRQ_INDEX, NONE | TRIGGER, 0, 0) == 0);
	signal_fd(unmask);
	CHECK(take(unmask) == 1);
	CHECK(intx(device, EVENTFD | TRIGGER, event) == 0);
	CHECK(intx(device, EVENTFD | UNMASK, unmask) == 0);
}

/* An NVMe controller's line, raised from the user's side. */
void test_intx(void)
{
	struct vmm vmm = {.iommufd = vmm_open("/dev/iommu"),
			  .device = vmm_open("/dev/vfio/devices/vfio2")};
	int event = new_eventfd();
	int unmask = new_eventfd();

	vmm.ioas = vmm_ioas(vmm.iommufd);
	vmm_bind(&vmm);
	FAILS(EINVAL, intx(vmm.device, EVENTFD | UNMASK, unmask));
	FAILS(EINVAL, intx(vmm.device, EVENTFD | MASK, unmask));
	FAILS(EBADF, intx(vmm.device, EVENTFD | TRIGGER, 1 << 19));
	FAILS(EINVAL, intx(vmm.device, EVENTFD | TRIGGER, vmm.device));
	CHECK(intx(vmm.device, EVENTFD | TRIGGER, event) == 0);
	FAILS(ENOTTY, intx(vmm.device, EVENTFD | MASK, unmask));
	FAILS(ENOTTY, intx(vmm.device, NONE | MASK | UNMASK, 0));
	FAILS(EBADF, intx(vmm.device, EVENTFD | UNMASK, 1 << 19));
	FAILS(EINVAL, intx(vmm.device, EVENTFD | UNMASK, vmm.device));
	CHECK(intx(vmm.device, EVENTFD | UNMASK, unmask) == 0);
	FAILS(EBUSY, intx(vmm.device, EVENTFD | UNMASK, event));
	unmasks(vmm.device, event, unmask);
	CHECK(close(vmm.device) == 0 && close(vmm.iommufd) == 0);
	CHECK(close(event) == 0 && close(unmask) == 0);
}

/* ---- the index that only asks ---- */

void test_request(void)
{
	int event = new_eventfd();
	int other = new_eventfd();
	struct vmm vmm;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
#define REQUEST(flags, count, fd) \
	set_irq(vmm.device, VFIO_PCI_REQ_IRQ_INDEX, (flags) | TRIGGER, count, fd)
	FAILS(EINVAL, REQUEST(NONE, 1, 0));
	FAILS(EINVAL, REQUEST(NONE, 0, 0));
	FAILS(EBADF, REQUEST(EVENTFD, 1, 1 << 19));
	FAILS(EINVAL, REQUEST(EVENTFD, 1, vmm.iommufd));
	FAILS(EINVAL, REQUEST(EVENTFD, 1, STDERR_FILENO));
	FAILS(EINVAL, REQUEST(EVENTFD, 0, event));
	CHECK(REQUEST(EVENTFD, 1, event) == 0 && REQUEST(EVENTFD, 1, -2) == 0);
	/* What is refused changes nothing. */
	FAILS(EINVAL, REQUEST(EVENTFD, 1, vmm.iommufd));
	CHECK(REQUEST(NONE, 1, 0) == 0 && take(event) == 1);
	CHECK(REQUEST(EVENTFD, 1, other) == 0);
	CHECK(REQUEST(NONE, 1, 0) == 0 && take(other) == 1 && !is_signalled(event));
	FAILS(ENOTTY, set_irq(vmm.device, VFIO_PCI_REQ_IRQ_INDEX, NONE | MASK, 1, 0));
	CHECK(REQUEST(NONE, 0, 0) == 0);
	FAILS(EINVAL, REQUEST(NONE, 1, 0));
	/* Without PCI Express there are no error reports. */
	FAILS(EINVAL, set_irq(vmm.device, VFIO_PCI_ERR_IRQ_INDEX, EVENTFD | TRIGGER, 1, event));
	vmm_end(&vmm);
	CHECK(close(event) == 0 && close(other) == 0);
}
