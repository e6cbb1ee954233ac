/* SPDX-License-Identifier: MIT */
/*
 * A device with real DMA and interrupts behind a real IOMMU: QEMU's edu. It copies between memory
 * and a buffer of its own, and raises its interrupt when told to. Not migratable.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest.h"

#define EDU_RAISE   0x60
#define EDU_ACK	    0x64
#define EDU_SOURCE  0x80
#define EDU_TARGET  0x88
#define EDU_COUNT   0x90
#define EDU_COMMAND 0x98
#define EDU_BUFFER  0x40000 /* in the device's own addresses */
#define EDU_START   1
#define EDU_TO_RAM  2
#define EDU_RAISES  4

#define IOVA	    0x4000000ULL /* edu reaches 28 bits */
#define MEMORY_SIZE 0x800000ULL
#define BLOCK	    4096

static void poke(struct qsc_device *dev, uint64_t offset, uint64_t value, size_t size)
{
	if (qsc_device_region_write(dev, 0, offset, &value, size) != (ssize_t)size)
		give_up("edu's register %#llx cannot be written", (unsigned long long)offset);
}

static uint64_t peek(struct qsc_device *dev, uint64_t offset, size_t size)
{
	uint64_t value = 0;

	if (qsc_device_region_read(dev, 0, offset, &value, size) != (ssize_t)size)
		give_up("edu's register %#llx cannot be read", (unsigned long long)offset);
	return value;
}

/* Let it be a bus master and answer to accesses of its memory. */
static void enable(struct qsc_device *dev)
{
	uint16_t command = 0x6;

	if (qsc_device_region_write(dev, VFIO_PCI_CONFIG_REGION_INDEX, 4, &command,
				    sizeof(command)) != (ssize_t)sizeof(command))
		give_up("edu's command register cannot be written");
}

static bool wait_event(int fd, int patience_ms)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	uint64_t count;

	return poll(&wait, 1, patience_ms) == 1 && read(fd, &count, sizeof(count)) > 0;
}

/* Ends when the device clears the start bit. */
static void copy(struct qsc_device *dev, uint64_t source, uint64_t target, uint64_t flags)
{
	poke(dev, EDU_SOURCE, source, 8);
	poke(dev, EDU_TARGET, target, 8);
	poke(dev, EDU_COUNT, BLOCK, 8);
	poke(dev, EDU_COMMAND, EDU_START | flags, 8);
	while (peek(dev, EDU_COMMAND, 8) & EDU_START)
		(void)poll(NULL, 0, 1);
}

/* What lies at iova goes into the device and comes back a block later. */
static void copy_through(struct qsc_device *dev, uint64_t iova)
{
	copy(dev, iova, EDU_BUFFER, 0);
	copy(dev, EDU_BUFFER, iova + BLOCK, EDU_TO_RAM);
}

static void check_copies(struct qsc_device *dev, uint8_t *memory)
{
	uint64_t last = MEMORY_SIZE - 2 * BLOCK;

	for (int i = 0; i < BLOCK; i++) {
		memory[i] = (uint8_t)(i * 7);
		memory[last + (uint64_t)i] = (uint8_t)(i * 11);
	}
	copy_through(dev, IOVA);
	copy_through(dev, IOVA + last);
	check(!memcmp(memory, memory + BLOCK, BLOCK) &&
		      !memcmp(memory + last, memory + last + BLOCK, BLOCK),
	      "the device's DMA arrives in mapped memory", "other bytes");
}

static void check_unmapped(struct qsc_device *dev, const struct qsc_dma_mapping *mapping,
			   uint8_t *memory)
{
	int result;

	check(qsc_device_dma_map(dev, mapping) == -EEXIST, "a mapping is made once", "twice");
	check(qsc_device_dma_unmap(dev, IOVA, BLOCK) == -ENOENT,
	      "a mapping is removed as it was made", "in part");
	result = qsc_device_dma_unmap(dev, IOVA, MEMORY_SIZE);
	memset(memory + BLOCK, 0x77, BLOCK);
	copy_through(dev, IOVA);
	check(!result && memory[BLOCK] == 0x77 && memory[2 * BLOCK - 1] == 0x77,
	      "and does not after it is unmapped", "%s, %#x", strerror(-result), memory[BLOCK]);
	result = qsc_device_dma_map(dev, mapping);
	copy_through(dev, IOVA);
	check(!result && !memcmp(memory, memory + BLOCK, BLOCK), "and does after a new mapping",
	      "%s", strerror(-result));
}

static void check_mapped_region(struct qsc_device *dev)
{
	void *addr;
	uint32_t identity;
	int result = qsc_device_region_map(dev, 0, 0, 4096, PROT_READ | PROT_WRITE, &addr);

	if (result < 0)
		give_up("edu's registers cannot be mapped: %s", strerror(-result));
	identity = *(volatile uint32_t *)addr;
	check((identity & 0xffff) == 0xed, "registers can be mapped", "%#x", identity);
	check(!qsc_device_region_unmap(dev, addr, 4096), "and unmapped", "not");
}

static void check_irq(struct qsc_device *dev, uint32_t index, const char *name)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	struct qsc_irq_set trigger = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
		.count = 1,
	};
	struct qsc_irq_set unmask = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
		.index = index,
		.count = 1,
	};
	bool raised, again, user;
	int result = qsc_device_set_eventfds(dev, index, &fd, 1);

	if (result < 0)
		give_up("%s cannot be set up: %s", name, strerror(-result));
	poke(dev, EDU_RAISE, 1, 4);
	raised = wait_event(fd, 10000);
	poke(dev, EDU_ACK, 1, 4);
	/* The kernel masks INTx when it comes. */
	if (index == VFIO_PCI_INTX_IRQ_INDEX && qsc_device_set_irqs(dev, &unmask) < 0)
		give_up("INTx cannot be unmasked");
	copy(dev, IOVA, EDU_BUFFER, EDU_RAISES);
	again = wait_event(fd, 10000);
	poke(dev, EDU_ACK, 0x100, 4);
	if (index == VFIO_PCI_INTX_IRQ_INDEX && qsc_device_set_irqs(dev, &unmask) < 0)
		give_up("INTx cannot be unmasked");
	result = qsc_device_set_irqs(dev, &trigger);
	user = wait_event(fd, 10000);
	check(raised && again && user && !wait_event(fd, 0), name, "%d, %d, %d (%s)", raised, again,
	      user, strerror(-result));
	result = qsc_device_set_eventfds(dev, index, NULL, 0);
	poke(dev, EDU_RAISE, 1, 4);
	check(!result && !wait_event(fd, 50), "and not after it is torn down", "%s",
	      strerror(-result));
	poke(dev, EDU_ACK, 1, 4);
	close(fd);
}

int cmd_dma(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	int fd = memfd_create("dma", MFD_CLOEXEC);
	struct qsc_dma_mapping mapping = {
		.iova = IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = fd,
	};
	struct qsc_migration_info info;
	uint8_t *memory;
	int result;

	(void)argc;
	if (fd < 0 || ftruncate(fd, MEMORY_SIZE) < 0)
		give_up("no memory");
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		give_up("no memory");
	check(qsc_device_get_migration(dev, &info) == -ENOTTY, "edu cannot migrate, and says so",
	      "it can");
	enable(dev);
	result = qsc_device_dma_map(dev, &mapping);
	if (result < 0)
		give_up("memory cannot be mapped: %s", strerror(-result));
	check_copies(dev, memory);
	check_unmapped(dev, &mapping, memory);
	check_mapped_region(dev);
	check_irq(dev, VFIO_PCI_INTX_IRQ_INDEX, "INTx arrives");
	check_irq(dev, VFIO_PCI_MSI_IRQ_INDEX, "MSI arrives");
	qsc_device_close(dev);
	munmap(memory, MEMORY_SIZE);
	close(fd);
	return 0;
}

/* Whether a block that is copied through the device arrives. */
static bool arrives(struct qsc_device *dev, uint8_t *memory, uint8_t value)
{
	memset(memory, value, BLOCK);
	memset(memory + BLOCK, ~value, BLOCK);
	copy_through(dev, IOVA);
	return !memcmp(memory, memory + BLOCK, BLOCK);
}

/* Two of one IOMMU group, which share an address space, each with its own view of it. */
int cmd_group(int argc, char **argv)
{
	struct qsc_device *a = open_device(argv[0]);
	struct qsc_device *b = open_device(argv[1]);
	int fd = memfd_create("dma", MFD_CLOEXEC);
	int other = memfd_create("other", MFD_CLOEXEC);
	struct qsc_dma_mapping mapping = {
		.iova = IOVA,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = fd,
	};
	uint8_t *memory;
	int result;

	(void)argc;
	if (fd < 0 || other < 0 || ftruncate(fd, MEMORY_SIZE) < 0 ||
	    ftruncate(other, MEMORY_SIZE) < 0)
		give_up("no memory");
	memory = mmap(NULL, MEMORY_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		give_up("no memory");
	enable(a);
	enable(b);
	result = qsc_device_dma_map(a, &mapping);
	if (!result)
		result = qsc_device_dma_map(b, &mapping);
	check(!result && arrives(a, memory, 0x11) && arrives(b, memory, 0x22),
	      "two devices of one group are held at once, and reach memory", "%s",
	      strerror(-result));
	result = qsc_device_dma_unmap(a, IOVA, MEMORY_SIZE);
	check(!result && qsc_device_dma_unmap(a, IOVA, MEMORY_SIZE) == -ENOENT &&
		      arrives(b, memory, 0x33),
	      "what one of them unmaps the other still has", "%s", strerror(-result));
	mapping.fd = other;
	result = qsc_device_dma_map(a, &mapping);
	check(result == -EBUSY, "other memory at one address is refused", "%s", strerror(-result));
	result = qsc_device_dma_unmap(b, IOVA, MEMORY_SIZE);
	check(!result && !arrives(a, memory, 0x44) && !arrives(b, memory, 0x55),
	      "and nothing is reached when none has it", "%s", strerror(-result));
	qsc_device_close(a);
	mapping.fd = fd;
	result = qsc_device_dma_map(b, &mapping);
	check(!result && arrives(b, memory, 0x66), "one goes on when the other is let go", "%s",
	      strerror(-result));
	a = open_device(argv[0]);
	enable(a);
	result = qsc_device_dma_map(a, &mapping);
	check(!result && arrives(a, memory, 0x77), "which can come back", "%s", strerror(-result));
	qsc_device_close(b);
	qsc_device_close(a);
	munmap(memory, MEMORY_SIZE);
	close(fd);
	close(other);
	return 0;
}

/* A process that takes the device from its driver, and ends with 0 when it is gone. */
static pid_t start_removal(const char *address)
{
	char path[128];
	pid_t pid = fork();
	int fd;

	if (pid < 0)
		give_up("no process");
	if (pid)
		return pid;
	/* It holds nothing of its parent's, the device least of all. */
	close_range(3, ~0U, 0);
	(void)snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/driver/unbind", address);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	_exit(fd >= 0 && write(fd, address, strlen(address)) > 0 ? 0 : 1);
}

/* Unplugged, or unbound, while it is held: its holder is asked, and until it lets go can use it. */
int cmd_removal(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	int result = qsc_device_set_eventfds(dev, VFIO_PCI_REQ_IRQ_INDEX, &fd, 1);
	int status = -1;
	bool asked;
	pid_t pid;

	(void)argc;
	if (result < 0)
		give_up("the kernel's request cannot be heard: %s", strerror(-result));
	enable(dev);
	pid = start_removal(argv[1]);
	asked = wait_event(fd, 10000);
	check(asked && !waitpid(pid, &status, WNOHANG) && (peek(dev, 0, 4) & 0xffff) == 0xed,
	      "the kernel asks for a device that is unbound, and waits", "%d", asked);
	qsc_device_close(dev);
	check(waitpid(pid, &status, 0) == pid && !status, "and has it when it is let go", "%d",
	      status);
	close(fd);
	return 0;
}

/* Vector by vector, as VMMs do it, and each triggered from this side: of any device with MSI-X. */
int cmd_vectors(int argc, char **argv)
{
	struct qsc_device *dev = open_device(argv[0]);
	struct qsc_irq_info info;
	int fds[4];
	int right = 0;

	(void)argc;
	if (qsc_device_get_irq_info(dev, VFIO_PCI_MSIX_IRQ_INDEX, &info) < 0 || info.count < 4)
		give_up("it has no MSI-X");
	for (uint32_t i = 0; i < 4; i++) {
		struct qsc_irq_set set = {
			.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSIX_IRQ_INDEX,
			.start = i,
			.count = 1,
			.fds = &fds[i],
		};
		int result;

		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		result = qsc_device_set_irqs(dev, &set);
		if (result < 0)
			give_up("vector %u cannot be set up: %s", i, strerror(-result));
	}
	for (uint32_t i = 0; i < 4; i++) {
		const uint8_t yes = 1;
		struct qsc_irq_set trigger = {
			.flags = VFIO_IRQ_SET_DATA_BOOL | VFIO_IRQ_SET_ACTION_TRIGGER,
			.index = VFIO_PCI_MSIX_IRQ_INDEX,
			.start = i,
			.count = 1,
			.bools = &yes,
		};

		right += !qsc_device_set_irqs(dev, &trigger) && wait_event(fds[i], 10000) &&
			 !wait_event(fds[(i + 1) % 4], 0);
	}
	check(right == 4, "MSI-X vectors come one by one", "%d of 4 did", right);
	check(!qsc_device_set_eventfds(dev, VFIO_PCI_MSIX_IRQ_INDEX, NULL, 0) &&
		      !qsc_device_set_eventfds(dev, VFIO_PCI_REQ_IRQ_INDEX, fds, 1) &&
		      !qsc_device_set_eventfds(dev, VFIO_PCI_REQ_IRQ_INDEX, NULL, 0),
	      "and go, and the kernel's request to let go can be heard", "not");
	qsc_device_close(dev);
	for (int i = 0; i < 4; i++)
		close(fds[i]);
	return 0;
}
