/* SPDX-License-Identifier: MIT */
/*
 * See surface.h. A step is a byte that says what is done, one that says to which file, and what it
 * needs. Structures get a size that fits unless a bit says otherwise, and words whose top byte is
 * 0xaa become addresses in memory that may be overwritten, so that chance gets past the first
 * check.
 */
#include "surface.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../preload/bar.h"
#include "../../preload/device.h"
#include "../../preload/file.h"
#include "../../preload/paths.h"
#include "abi/vfio.h"

#define ARENA	  65536U
#define MAX_FILES 24U
#define MAX_STEPS 200U

static uint8_t *arena; /* nothing can be read or written beyond it, on either side */

struct run {
	const uint8_t *data;
	size_t size;
	int fds[MAX_FILES];
	unsigned int num_fds;
	uint8_t *bar;
	int event;
	int memory; /* a file */
};

static const struct {
	unsigned long command;
	uint32_t size;
} commands[] = {
	{ABI_IOMMUFD(ABI_DESTROY), sizeof(struct abi_destroy)},
	{ABI_IOMMUFD(ABI_IOAS_ALLOC), sizeof(struct abi_ioas_alloc)},
	{ABI_IOMMUFD(ABI_IOAS_ALLOW_IOVAS), sizeof(struct abi_ioas_allow_iovas)},
	{ABI_IOMMUFD(ABI_IOAS_COPY), sizeof(struct abi_ioas_copy)},
	{ABI_IOMMUFD(ABI_IOAS_IOVA_RANGES), sizeof(struct abi_ioas_iova_ranges)},
	{ABI_IOMMUFD(ABI_IOAS_MAP), sizeof(struct abi_ioas_map)},
	{ABI_IOMMUFD(ABI_IOAS_MAP_FILE), sizeof(struct abi_ioas_map_file)},
	{ABI_IOMMUFD(ABI_IOAS_UNMAP), sizeof(struct abi_ioas_unmap)},
	{ABI_IOMMUFD(ABI_OPTION), sizeof(struct abi_option)},
	{ABI_IOMMUFD(ABI_VFIO_IOAS), sizeof(struct abi_vfio_ioas)},
	{ABI_IOMMUFD(ABI_HWPT_ALLOC), sizeof(struct abi_hwpt_alloc)},
	{ABI_IOMMUFD(ABI_GET_HW_INFO), sizeof(struct abi_hw_info)},
	{ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING), sizeof(struct abi_set_dirty_tracking)},
	{ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), sizeof(struct abi_get_dirty_bitmap)},
	{ABI_BIND_IOMMUFD, sizeof(struct abi_bind_iommufd)},
	{ABI_ATTACH_IOMMUFD_PT, sizeof(struct abi_attach)},
	{ABI_DETACH_IOMMUFD_PT, sizeof(struct abi_detach)},
	{ABI_MIG_GET_PRECOPY_INFO, sizeof(struct abi_precopy_info)},
	{VFIO_DEVICE_GET_INFO, 24},
	{VFIO_DEVICE_GET_REGION_INFO, 200},
	{VFIO_DEVICE_GET_IRQ_INFO, 16},
	{VFIO_DEVICE_SET_IRQS, 60},
	{VFIO_DEVICE_RESET, 0},
	{VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, 40},
	{VFIO_DEVICE_PCI_HOT_RESET, 16},
	{VFIO_DEVICE_IOEVENTFD, 28},
	{VFIO_DEVICE_FEATURE, 16},
	{VFIO_DEVICE_FEATURE, 40},
	{VFIO_GET_API_VERSION, 0},
	{VFIO_CHECK_EXTENSION, 0},
	{VFIO_SET_IOMMU, 0},
	{VFIO_GROUP_GET_STATUS, 8},
	{VFIO_GROUP_SET_CONTAINER, 0},
	{VFIO_GROUP_UNSET_CONTAINER, 0},
	{VFIO_GROUP_GET_DEVICE_FD, 0},
	{VFIO_IOMMU_GET_INFO, 160},
	{VFIO_IOMMU_MAP_DMA, 32},
	{VFIO_IOMMU_UNMAP_DMA, 48},
	{VFIO_IOMMU_DIRTY_PAGES, 56},
};
#define NUM_COMMANDS (sizeof(commands) / sizeof(commands[0]))

int surface_init(void)
{
	static const char *const specs[] = {"dmacopy,memory=64K", "nvme,ram=1M"};
	static struct handover_config config;
	struct qsc_error err = QSC_ERROR_NONE;
	char folder[] = "/tmp/quiesce-surface-XXXXXX";
	char path[64];
	int result;

	if (arena)
		return 0;
	arena = mmap(NULL, 3UL * ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (arena == MAP_FAILED || mprotect(arena + ARENA, ARENA, PROT_READ | PROT_WRITE) < 0)
		return -errno;
	arena += ARENA;
	config.num_devices = 2;
	for (uint32_t i = 0; i < 2; i++) {
		config.devices[i].spec = (char *)(uintptr_t)specs[i];
		(void)snprintf(config.devices[i].name, HANDOVER_NAME, "vfio%u", i);
	}
	if (!mkdtemp(folder))
		return -errno;
	result = handover_write(folder, &config, &err);
	(void)setenv(HANDOVER_ENV, folder, 1);
	pl_file_init(pl_path_make);
	if (!result)
		result = pl_devices_init(&err);
	(void)snprintf(path, sizeof(path), "%s/devices.json", folder);
	(void)unlink(path);
	(void)snprintf(path, sizeof(path), "%s/seen", folder);
	(void)unlink(path);
	(void)rmdir(folder);
	return result;
}

static uint8_t byte(struct run *run)
{
	if (!run->size)
		return 0;
	run->size--;
	return *run->data++;
}

static void bytes(struct run *run, uint8_t *to, size_t size)
{
	for (size_t i = 0; i < size; i++)
		to[i] = byte(run);
}

static void keep(struct run *run, int fd)
{
	if (fd < 0)
		return;
	if (run->num_fds < MAX_FILES)
		run->fds[run->num_fds++] = fd;
	else
		(void)pl_file_close(fd);
}

static int fd_of(struct run *run)
{
	return run->num_fds ? run->fds[byte(run) % run->num_fds] : -1;
}

/* What a VMM would put into its structures: numbers of objects are small, addresses its own. */
static uint8_t *make_arg(struct run *run, uint32_t size)
{
	uint8_t *arg = arena + ARENA - 256;
	uint8_t how = byte(run);
	uint32_t argsz = how & 0xc0 ? size : byte(run);
	uint64_t word;

	memset(arg, 0, 256);
	bytes(run, arg + 4, how & 0x3f);
	for (size_t at = 8; at + 8 <= 64; at += 8) {
		memcpy(&word, arg + at, 8);
		if (word >> 56 == 0xaa)
			word = (uintptr_t)arena + word % (ARENA - 512) / 4096 * 4096;
		else if (word >> 56 == 0xab)
			word = word % 16 * 4096;
		memcpy(arg + at, &word, 8);
	}
	if (size)
		memcpy(arg, &argsz, 4);
	return arg;
}

/* Flags of which one in a million would mean something: mostly those that do. */
static void fill_in_flags(struct run *run, unsigned long command, uint8_t *arg)
{
	uint8_t how = byte(run);
	uint32_t words[3];
	uint32_t flags;

	if (how & 0x80)
		return;
	if (command == VFIO_DEVICE_FEATURE) {
		flags = how % 12 | (uint32_t)byte(run) % 8 << 16;
		memcpy(arg + 4, &flags, 4);
	}
	if (command == VFIO_DEVICE_SET_IRQS) {
		flags = 1U << how % 3 | 8U << (how >> 2) % 3;
		memcpy(arg + 4, &flags, 4);
		words[0] = byte(run) % 6;
		words[1] = byte(run) % 4;
		words[2] = byte(run) % 4;
		memcpy(arg + 8, words, sizeof(words)); /* index, start, count */
	}
	if (command == VFIO_DEVICE_IOEVENTFD)
		memcpy(arg + 4, &(uint32_t){1U << how % 5}, 4);
}

static void fill_in_fds(struct run *run, unsigned long command, uint8_t *arg)
{
	int32_t fd = fd_of(run);
	int32_t event = byte(run) & 3 ? run->event : -1;

	for (unsigned int at = 20; command == VFIO_DEVICE_SET_IRQS && at < 36; at += 4)
		memcpy(arg + at, &event, 4);
	if (command == VFIO_DEVICE_IOEVENTFD)
		memcpy(arg + 24, &event, 4);
	if (command == ABI_IOMMUFD(ABI_IOAS_MAP_FILE))
		memcpy(arg + 12, &run->memory, 4);
	if (command == ABI_BIND_IOMMUFD)
		memcpy(arg + 8, &fd, 4);
	if (command == VFIO_GROUP_SET_CONTAINER)
		memcpy(arg, &fd, 4);
	if (command == VFIO_GROUP_GET_DEVICE_FD)
		memcpy(arg, byte(run) & 1 ? "vfio0" : "vfio1", 6);
}

static void do_ioctl(struct run *run, int fd)
{
	unsigned int number = byte(run) % NUM_COMMANDS;
	unsigned long command = commands[number].command;
	uint8_t *arg = make_arg(run, commands[number].size);
	struct pl_file *file;
	int32_t session;
	int result;
	int error;

	fill_in_flags(run, command, arg);
	fill_in_fds(run, command, arg);
	if (command == VFIO_SET_IOMMU || command == VFIO_CHECK_EXTENSION)
		arg = (uint8_t *)(uintptr_t)(byte(run) % 12);
	file = pl_file_take_up(fd, &error);
	if (!file)
		return;
	result = file->ops->ioctl(file, command, arg);
	pl_file_put(file);
	if (command == VFIO_GROUP_GET_DEVICE_FD)
		keep(run, result);
	memcpy(&session, command == VFIO_DEVICE_FEATURE ? arg + 12 : (uint8_t *)&(int32_t){-1}, 4);
	if (command == VFIO_DEVICE_FEATURE && !result &&
	    !memcmp(arg + 4,
		    &(uint32_t){VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE}, 4))
		keep(run, session);
}

/* Small numbers in a region, and its neighbours. */
static uint64_t place(struct run *run)
{
	uint64_t index = byte(run) % 11;

	return index << 40 | (uint64_t)byte(run) << 4;
}

static void do_access(struct run *run, int fd, uint8_t what)
{
	struct pl_file *file = pl_file_get(fd);
	size_t size = byte(run);
	uint8_t *buf = arena;

	if (!file)
		return;
	if (what == 1 && file->ops->read)
		(void)file->ops->read(file, buf, size * 16);
	if (what == 3 && file->ops->pread)
		(void)file->ops->pread(file, buf, size, place(run));
	bytes(run, buf, size < 32 ? size : 32);
	if (what == 2 && file->ops->write)
		(void)file->ops->write(file, buf, size);
	if (what == 4 && file->ops->pwrite)
		(void)file->ops->pwrite(file, buf, size, place(run));
	pl_file_put(file);
}

#define BAR_SIZE 16384UL

/* Map it, also over what is mapped already; or write to what may be written. */
static void do_map(struct run *run, int fd)
{
	struct pl_file *file = pl_file_get(fd);
	uint8_t how = byte(run);
	void *addr = run->bar;

	if (!file)
		return;
	if (file->ops->mmap && (!run->bar || how & 1)) {
		if (!file->ops->mmap(file, &addr, BAR_SIZE, PROT_READ | PROT_WRITE,
				     MAP_SHARED | (run->bar ? MAP_FIXED : 0), 2ULL << 40))
			run->bar = addr;
	} else if (run->bar && !pl_bar_protect(run->bar, 4096, PROT_READ | PROT_WRITE)) {
		*(volatile uint32_t *)(void *)run->bar = how;
	}
	pl_file_put(file);
}

/* What is mapped, or parts of it, in other ways. */
static void change_map(struct run *run)
{
	size_t at = byte(run) % 4 * 4096UL;
	size_t size = (byte(run) % 4 + 1) * 4096UL;

	if (!run->bar || at + size > BAR_SIZE)
		return;
	if (byte(run) & 1)
		(void)pl_bar_protect(run->bar + at, size, (int)byte(run) % 4);
	else
		(void)pl_bar_withdraw(run->bar + at, size);
}

static void unmap(struct run *run)
{
	if (run->bar && !pl_bar_withdraw(run->bar, BAR_SIZE))
		(void)munmap(run->bar, BAR_SIZE);
	run->bar = NULL;
}

static void step(struct run *run)
{
	uint8_t what = byte(run) % 16;
	int fd = fd_of(run);

	switch (what) {
	case 1:
	case 2:
	case 3:
	case 4:
		do_access(run, fd, what);
		break;
	case 5:
		pl_file_change();
		keep(run, pl_file_copied(fd, dup(fd)));
		break;
	case 6:
		if (run->num_fds && run->fds[run->num_fds - 1] == fd) {
			run->num_fds--;
			(void)pl_file_close(fd);
		}
		break;
	case 7:
		do_map(run, fd);
		break;
	case 8:
		unmap(run);
		break;
	case 9:
		change_map(run);
		break;
	case 10:
		(void)!write(run->event, &(uint64_t){1 + byte(run) % 3}, 8);
		break;
	default:
		do_ioctl(run, fd);
		break;
	}
}

static int call(int fd, unsigned long command, void *arg)
{
	struct pl_file *file = pl_file_get(fd);
	int result = file->ops->ioctl(file, command, arg);

	pl_file_put(file);
	return result;
}

/* Chance would hardly ever get to where most of it begins: a device that is bound and attached. */
static void set_up(int iommufd, int device)
{
	struct abi_ioas_alloc alloc = {.size = sizeof(alloc)};
	struct abi_bind_iommufd bind = {.argsz = sizeof(bind), .iommufd = iommufd};
	struct abi_attach attach = {.argsz = sizeof(attach)};

	if (call(iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &alloc) < 0 ||
	    call(device, ABI_BIND_IOMMUFD, &bind) < 0)
		return;
	attach.pt_id = alloc.out_ioas_id;
	(void)call(device, ABI_ATTACH_IOMMUFD_PT, &attach);
}

void surface_run(const uint8_t *data, size_t size)
{
	static const struct {
		enum handover_kind kind;
		uint32_t index;
	} files[] = {
		{HANDOVER_IOMMUFD, 0},	 {HANDOVER_CDEV, 0},  {HANDOVER_CDEV, 1},
		{HANDOVER_CONTAINER, 0}, {HANDOVER_GROUP, 0}, {HANDOVER_GROUP, 1},
	};
	struct run run = {.data = data, .size = size};

	run.event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	run.memory = memfd_create("memory", MFD_CLOEXEC);
	(void)!ftruncate(run.memory, ARENA);

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		keep(&run, pl_path_open(files[i].kind, files[i].index, O_CLOEXEC));
	if (byte(&run) & 1 && run.num_fds > 1)
		set_up(run.fds[0], run.fds[1]);
	for (unsigned int i = 0; i < MAX_STEPS && run.size; i++)
		step(&run);
	unmap(&run);
	while (run.num_fds)
		(void)pl_file_close(run.fds[--run.num_fds]);
	close(run.event);
	close(run.memory);
}
