/* SPDX-License-Identifier: MIT */
/* Descriptors, processes and paths. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dmacopy/dmacopy.h"
#include "vmm.h"

/* A call that fails changes nothing. */
static void failed_copies(const struct vmm *vmm)
{
	struct rlimit old;
	struct rlimit low;

	CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
	CHECK(dup2(vmm->device, 300) == 300);
	low = (struct rlimit){.rlim_cur = 300, .rlim_max = old.rlim_max};
	CHECK(setrlimit(RLIMIT_NOFILE, &low) == 0);
	FAILS(EBADF, dup2(STDERR_FILENO, 300));
	FAILS(EBADF, dup2(vmm->iommufd, 300));
	FAILS(EBADF, dup3(STDERR_FILENO, 300, O_CLOEXEC));
	CHECK(vmm_read(300, DMACOPY_REG_ID) == DMACOPY_ID);
	CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
	FAILS(EBADF, dup2(999, 300));
	FAILS(EINVAL, dup3(300, 300, 0));
	FAILS(EINVAL, dup3(STDERR_FILENO, 300, O_APPEND));
	FAILS(EINVAL, fcntl(300, F_DUPFD, -1));
	FAILS(EINVAL, close_range(301, 300, 0));
	FAILS(EINVAL, close_range(300, 300, 1 << 20));
	CHECK(dup2(300, 300) == 300);
	CHECK(vmm_read(300, DMACOPY_REG_ID) == DMACOPY_ID);
	CHECK(close_range(300, 300, CLOSE_RANGE_CLOEXEC) == 0);
	CHECK(vmm_read(300, DMACOPY_REG_ID) == DMACOPY_ID && close(300) == 0);
}

void test_files(void)
{
	struct vmm vmm;
	FILE *stream;
	int copy;
	int high;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	failed_copies(&vmm);
	copy = dup(vmm.device);
	high = fcntl(vmm.device, F_DUPFD_CLOEXEC, 200);
	CHECK(copy >= 0 && high >= 200);
	CHECK(dup2(vmm.device, 300) == 300 && dup3(vmm.device, 301, O_CLOEXEC) == 301);
	/* Any of them is the device; the others stay when one goes. */
	CHECK(close(vmm.device) == 0);
	CHECK(vmm_read(copy, DMACOPY_REG_ID) == DMACOPY_ID);
	CHECK(vmm_read(high, DMACOPY_REG_ID) == DMACOPY_ID);
	CHECK(dup2(STDERR_FILENO, 300) == 300);
	FAILS(ENOTTY, ioctl(300, VFIO_DEVICE_RESET));
	CHECK(vmm_read(301, DMACOPY_REG_ID) == DMACOPY_ID);
	/* A number that was one of ours is anybody's afterwards. */
	CHECK(close_range(300, 301, 0) == 0);
	CHECK(dup2(STDERR_FILENO, 301) == 301 && close(301) == 0);
	FAILS(EBADF, close(301));
	/* The iommufd is needed by the device, and may be closed first. */
	CHECK(close(vmm.iommufd) == 0);
	CHECK(vmm_read(copy, DMACOPY_REG_ID) == DMACOPY_ID);
	FAILS(EBADF, ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), NULL));
	CHECK(close(copy) == 0 && close(high) == 0);
	/* Also one that a stream gave back. */
	vmm.device = vmm_open("/dev/vfio/devices/vfio0");
	stream = fdopen(vmm.device, "r+");
	CHECK(stream && fclose(stream) == 0);
	copy = open("/dev/null", O_RDWR | O_CLOEXEC);
	CHECK(copy == vmm.device && pread(copy, &high, 4, 0) == 0 && close(copy) == 0);
	vmm.iommufd = vmm_open("/dev/iommu");
	vmm.device = vmm_open("/dev/vfio/devices/vfio0");
	vmm.ioas = vmm_ioas(vmm.iommufd);
	vmm_bind(&vmm);
	vmm_end(&vmm);
}

/* What its parent had open when it was made is the child's to open once the parent has let go. */
static void child_takes_over(void)
{
	int go = eventfd(0, EFD_CLOEXEC);
	uint64_t count = 1;
	struct vmm vmm;
	pid_t child;
	int status;
	int group;

	CHECK(go >= 0);
	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	group = vmm_open("/dev/vfio/1");
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		CHECK(read(go, &count, sizeof(count)) == sizeof(count));
		vmm_start(&vmm, "/dev/vfio/devices/vfio0");
		CHECK(vmm_read(vmm.device, DMACOPY_REG_ID) == DMACOPY_ID);
		vmm_end(&vmm);
		CHECK(close(vmm_open("/dev/vfio/1")) == 0);
		_exit(0);
	}
	vmm_end(&vmm);
	CHECK(close(group) == 0);
	CHECK(write(go, &count, sizeof(count)) == sizeof(count) && close(go) == 0);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
}

/* A child has no device of its parent's, and says so; opening one itself would do. */
void test_fork(void)
{
	struct vmm vmm;
	volatile uint32_t *local;
	uint32_t value;
	pid_t child;
	int status;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	child = fork();
	CHECK(child >= 0);
	if (!child) {
		FAILS(ENODEV, ioctl(vmm.device, VFIO_DEVICE_RESET));
		FAILS(ENODEV, ioctl(vmm.iommufd, ABI_IOMMUFD(ABI_IOAS_ALLOC), &vmm));
		CHECK(pread(vmm.device, &value, 4, 0) == -1);
		CHECK(close(vmm.device) == 0 && close(vmm.iommufd) == 0);
		vmm_start(&vmm, "/dev/vfio/devices/vfio1");
		CHECK(vmm_read(vmm.device, DMACOPY_REG_ID) == DMACOPY_ID);
		vmm_end(&vmm);
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	/* Unmapping what it inherits lets go of nothing of its parent's. */
	local = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, vmm.device,
		     (off_t)REGION(DMACOPY_BAR_LOCAL, 0));
	CHECK(local != MAP_FAILED && close(vmm.device) == 0);
	child = fork();
	if (!child)
		_exit(munmap((void *)local, 65536) != 0);
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	*local = 5;
	CHECK(*local == 5 && munmap((void *)local, 65536) == 0);
	vmm.device = vmm_open("/dev/vfio/devices/vfio0");
	vmm_bind(&vmm);
	/* One of vfork() has its parent's memory, but descriptors of its own. */
	child = vfork(); /* NOLINT(clang-analyzer-security.insecureAPI.vfork) */
	if (!child) {
		(void)close(vmm.device); /* NOLINT(clang-analyzer-unix.Vfork) */
		_exit(0);
	}
	CHECK(waitpid(child, &status, 0) == child && status == 0);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_ID) == DMACOPY_ID);
	vmm_end(&vmm);
	child_takes_over();
}

/* Calls that say the same in another way. */
void test_vectors(void)
{
	uint32_t values[4] = {0};
	struct iovec iov[] = {{.iov_base = values, .iov_len = 4},
			      {.iov_base = values + 1, .iov_len = 8},
			      {.iov_base = values + 3, .iov_len = 4}};
	struct statx stx;
	struct stat st;
	struct vmm vmm;
	int session;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	values[0] = MEMORY_IOVA;
	CHECK(pwritev(vmm.device, iov, 2, DMACOPY_REG_RING_BASE) >= 4);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_RING_BASE) == MEMORY_IOVA);
	CHECK(preadv(vmm.device, iov, 1, DMACOPY_REG_ID) == 4 && values[0] == DMACOPY_ID);
	/* The region's end cuts the second piece, and the third is not asked for. */
	values[3] = 77;
	CHECK(preadv(vmm.device, iov, 3, (off_t)REGION(DMACOPY_BAR_LOCAL, 65536 - 8)) == 8);
	CHECK(values[3] == 77);
	FAILS(EINVAL, preadv(vmm.device, iov, 1, -1));
	FAILS(EINVAL, readv(vmm.iommufd, iov, 1));
	FAILS(ESPIPE, preadv(vmm.iommufd, iov, 1, 0));
	session = vmm_set_state(vmm.device, QSC_STATE_STOP_COPY);
	CHECK(readv(session, iov, 3) == 16);
	FAILS(ENODEV, writev(session, iov, 3));
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1 && close(session) == 0);
	/* And what is not ours. */
	session = open("/dev/zero", O_RDWR | O_CLOEXEC);
	CHECK(readv(session, iov, 3) == 16 && !values[3] && preadv(session, iov, 2, 0) == 12);
	CHECK(writev(session, iov, 3) == 16 && pwritev(session, iov, 2, 0) == 12);
	CHECK(close(session) == 0);

	CHECK(fstat(vmm.device, &st) == 0 && S_ISCHR(st.st_mode));
	CHECK(statx(vmm.device, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &stx) == 0);
	CHECK(S_ISCHR(stx.stx_mode) &&
	      st.st_rdev == makedev(stx.stx_rdev_major, stx.stx_rdev_minor));
	CHECK(statx(AT_FDCWD, "/dev/vfio/devices/vfio0", 0, STATX_BASIC_STATS, &stx) == 0);
	CHECK(st.st_rdev == makedev(stx.stx_rdev_major, stx.stx_rdev_minor));
	CHECK(fstatat(vmm.device, "", &st, AT_EMPTY_PATH) == 0 && S_ISCHR(st.st_mode));
	CHECK(statx(AT_FDCWD, "/sys/bus/pci/devices/5153:01:00.0", 0, STATX_TYPE, &stx) == 0);
	CHECK(S_ISDIR(stx.stx_mode));
	FAILS(ENOENT, statx(AT_FDCWD, "/dev/vfio/devices/vfio7", 0, STATX_TYPE, &stx));
	vmm_end(&vmm);
}

/* Fortified calls, declared here as no header does. */
extern ssize_t __read_chk(int fd, void *buf, size_t size, size_t room);
extern ssize_t __pread_chk(int fd, void *buf, size_t size, off_t offset, size_t room);
extern ssize_t __pread64_chk(int fd, void *buf, size_t size, off64_t offset, size_t room);
extern ssize_t __readlink_chk(const char *path, char *buf, size_t size, size_t room);
extern int __open64_2(const char *path, int flags);
extern int __openat_2(int folder, const char *path, int flags);
extern int __openat64_2(int folder, const char *path, int flags);

static void fortified(const struct vmm *vmm, int session)
{
	char text[64] = "";
	uint32_t value = 0;
	int fd;

	CHECK(__pread_chk(vmm->device, &value, 4, DMACOPY_REG_ID, 4) == 4 && value == DMACOPY_ID);
	value = 0;
	CHECK(__pread64_chk(vmm->device, &value, 4, DMACOPY_REG_ID, 4) == 4);
	CHECK(value == DMACOPY_ID && __read_chk(session, &value, 4, 4) == 4);
	CHECK(__readlink_chk("/sys/bus/pci/devices/5153:02:00.0/iommu_group", text, 63, 64) > 0);
	CHECK(strrchr(text, '/') && !strcmp(strrchr(text, '/'), "/1"));
	CHECK(readlinkat(AT_FDCWD, "/sys/bus/pci/devices/5153:02:00.0/iommu_group", text, 63) > 0);
	fd = __open64_2("/dev/vfio/devices/vfio1", O_RDWR);
	FAILS(EINVAL, ioctl(fd, VFIO_DEVICE_RESET));
	CHECK(close(fd) == 0);
	fd = __openat_2(AT_FDCWD, "/dev/vfio/devices/vfio1", O_RDWR);
	FAILS(EINVAL, ioctl(fd, VFIO_DEVICE_RESET));
	CHECK(close(fd) == 0);
	fd = __openat64_2(AT_FDCWD, "/dev/vfio/devices/vfio1", O_RDWR);
	FAILS(EINVAL, ioctl(fd, VFIO_DEVICE_RESET));
	CHECK(close(fd) == 0);
	CHECK(faccessat(AT_FDCWD, "/dev/vfio/devices/vfio1", R_OK, 0) == 0);
	CHECK(euidaccess("/dev/iommu", R_OK) == 0);
}

/* Pointers to nowhere are EFAULT, and take nothing from a stream. */
static void nowhere(const struct vmm *vmm, int session)
{
	uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			     0);
	struct iovec iov[2] = {{.iov_base = page, .iov_len = 4}, {.iov_base = page, .iov_len = 4}};
	struct iovec *gone = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t bytes[64];

	CHECK(munmap(page + 4096, 4096) == 0);
#define BAR_AT ((off_t)REGION(DMACOPY_BAR_LOCAL, 0))
	for (size_t size = 4; size <= 4096; size *= 32) {
		void *const bad[] = {NULL, (void *)8, page + 4094, (void *)-4L};

		for (size_t i = 0; i < 4; i++) {
			FAILS(EFAULT, pread(vmm->device, bad[i], size, BAR_AT));
			FAILS(EFAULT, pwrite(vmm->device, bad[i], size, BAR_AT));
			FAILS(EFAULT, pread(vmm->device, bad[i], 4, DMACOPY_REG_ID));
			FAILS(EFAULT, pwrite(vmm->device, bad[i], 4, DMACOPY_REG_SCRATCH));
			FAILS(EFAULT, read(session, bad[i], size));
		}
	}
	iov[1].iov_base = page + 4095;
	CHECK(preadv(vmm->device, iov, 1, DMACOPY_REG_ID) == 4);
	CHECK(preadv(vmm->device, iov, 2, DMACOPY_REG_ID) == 4);
	FAILS(EFAULT, preadv(vmm->device, iov + 1, 1, DMACOPY_REG_ID));
	FAILS(EFAULT, pwritev(vmm->device, iov + 1, 1, DMACOPY_REG_SCRATCH));
	CHECK(munmap(gone, 4096) == 0);
	FAILS(EFAULT, preadv(vmm->device, gone, 1, DMACOPY_REG_ID));
	FAILS(EFAULT, readv(session, iov + 1, 1));
	/* Memory that may only be read. */
	CHECK(mprotect(page, 4096, PROT_READ) == 0);
	FAILS(EFAULT, pread(vmm->device, page, 4, DMACOPY_REG_ID));
	FAILS(EFAULT, pread(vmm->device, page, 64, BAR_AT));
	CHECK(pwrite(vmm->device, page, 4, BAR_AT) == 4 &&
	      pwrite(vmm->device, page, 64, BAR_AT) == 64);
	/* The stream is still whole. */
	CHECK(read(session, bytes, 4) == 4 && memcmp(bytes, page, 4) != 0);
	CHECK(munmap(page, 4096) == 0);
}

void test_pointers(void)
{
	struct iovec iov = {.iov_len = 4};
	uint32_t value = 0;
	struct vmm vmm;
	int session;
	int ends[2];

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	session = vmm_set_state(vmm.device, QSC_STATE_PRE_COPY);
	nowhere(&vmm, session);
	fortified(&vmm, session);
	iov.iov_base = &value;
	CHECK(preadv2(vmm.device, &iov, 1, DMACOPY_REG_ID, 0) == 4 && value == DMACOPY_ID);
	CHECK(preadv64v2(vmm.device, &iov, 1, DMACOPY_REG_ID, RWF_HIPRI) == 4);
	FAILS(EOPNOTSUPP, preadv2(vmm.device, &iov, 1, DMACOPY_REG_ID, RWF_NOWAIT));
	CHECK(preadv2(session, &iov, 1, -1, 0) == 4);
	value = 77;
	CHECK(pwritev2(vmm.device, &iov, 1, DMACOPY_REG_SCRATCH, 0) == 4);
	CHECK(vmm_read(vmm.device, DMACOPY_REG_SCRATCH) == 77);
	/* What the files behind ours could do, and a device or a session cannot. */
	FAILS(ESPIPE, lseek(vmm.device, 0, SEEK_SET));
	FAILS(ESPIPE, lseek64(session, 0, SEEK_END));
	CHECK(pipe(ends) == 0);
	FAILS(EINVAL, splice(session, NULL, ends[1], NULL, 4, 0));
	FAILS(EINVAL, sendfile(ends[1], session, NULL, 4));
	FAILS(EINVAL, copy_file_range(session, NULL, vmm.device, NULL, 4, 0));
	CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1 && close(session) == 0);
	vmm_end(&vmm);
}

/* As for the kernel it is an open() of what the file was opened from, and of no other thing. */
static void opened_again(void)
{
	struct vmm vmm;
	uint32_t value;
	char path[64];
	int session;
	int again;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", vmm.device);
	again = open(path, O_RDWR | O_CLOEXEC);
	CHECK(again >= 0);
	FAILS(EINVAL, pread(again, &value, 4, DMACOPY_REG_ID)); /* not bound */
	CHECK(close(again) == 0 && vmm_read(vmm.device, DMACOPY_REG_ID) == DMACOPY_ID);
	(void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)getpid(), vmm.iommufd);
	again = open(path, O_RDWR | O_CLOEXEC);
	CHECK(again >= 0 && vmm_ioas(again) && close(again) == 0);
	session = vmm_set_state(vmm.device, QSC_STATE_STOP_COPY);
	(void)snprintf(path, sizeof(path), "/dev/fd/%d", session);
	FAILS(ENXIO, open(path, O_RDWR | O_CLOEXEC));
	CHECK(vmm_set_state(vmm.device, QSC_STATE_RUNNING) == -1 && close(session) == 0);
	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", STDERR_FILENO);
	again = open(path, O_WRONLY | O_CLOEXEC);
	CHECK(again < 0 || close(again) == 0);
	vmm_end(&vmm);
}

static void refused(void)
{
	FAILS(ENOTDIR, open("/dev/vfio/devices/vfio0", O_RDWR | O_DIRECTORY));
	FAILS(EEXIST, open("/dev/iommu", O_RDWR | O_CREAT | O_EXCL, 0600));
	FAILS(ENOENT, open("/dev/vfio/devices/vfio00", O_RDWR));
	FAILS(ENOENT, open("/dev/vfio/00", O_RDWR));
	FAILS(ENOENT, open("/dev/vfio/devices/vfio0x", O_RDWR));
	FAILS(ENOENT, open("/dev/vfio/devices/vfio18446744073709551616", O_RDWR));
}

void test_paths(void)
{
	char text[64] = "";
	struct dirent *entry;
	unsigned int major;
	unsigned int minor;
	struct stat st;
	DIR *folder;
	FILE *file;
	int fd;

	CHECK(stat("/dev/vfio/devices/vfio1", &st) == 0 && S_ISCHR(st.st_mode));
	file = fopen("/sys/bus/pci/devices/5153:02:00.0/vfio-dev/vfio1/dev", "r");
	CHECK(file && fscanf(file, "%u:%u", &major, &minor) == 2 && fclose(file) == 0);
	CHECK(st.st_rdev == makedev(major, minor));
	fd = vmm_open("/dev/vfio/devices/vfio1");
	CHECK(fstat(fd, &st) == 0 && st.st_rdev == makedev(major, minor) && close(fd) == 0);
	CHECK(readlink("/sys/bus/pci/devices/5153:02:00.0/iommu_group", text, 63) > 0);
	CHECK(strrchr(text, '/') && !strcmp(strrchr(text, '/'), "/1"));
	folder = opendir("/sys/bus/pci/devices/5153:01:00.0/vfio-dev");
	CHECK(folder);
	do {
		entry = readdir(folder);
		CHECK(entry);
	} while (entry->d_name[0] == '.');
	CHECK(!strcmp(entry->d_name, "vfio0") && closedir(folder) == 0);
	/* The group, through the device and by its number: the device is alone in it. */
	CHECK(stat("/sys/bus/pci/devices/5153:02:00.0/iommu_group/devices/5153:02:00.0", &st) == 0);
	CHECK(stat("/sys/kernel/iommu_groups/1/devices/5153:02:00.0/vfio-dev/vfio1", &st) == 0);
	FAILS(ENOENT, stat("/sys/kernel/iommu_groups/1/devices/5153:01:00.0", &st));
	FAILS(ENOENT, open("/dev/vfio/devices/vfio7", O_RDWR));
	FAILS(ENOENT, stat("/sys/bus/pci/devices/5153:09:00.0", &st));
	CHECK(access("/dev/iommu", R_OK | W_OK) == 0);
	CHECK(stat("/dev/null", &st) == 0 && st.st_rdev == makedev(1, 3));
	opened_again();
	refused();
}

/* KVM is told of devices that it cannot know; of nothing else it takes what it would not. */
void test_kvm(void)
{
	struct kvm_create_device make = {.type = KVM_DEV_TYPE_VFIO};
	int32_t fd = STDERR_FILENO;
	struct kvm_device_attr attr = {.group = KVM_DEV_VFIO_GROUP,
				       .attr = KVM_DEV_VFIO_GROUP_ADD,
				       .addr = (uintptr_t)&fd};
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct vmm vmm;
	int vm;

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	fd = vmm.device;
	FAILS(ENOTTY, ioctl(vmm.event, KVM_SET_DEVICE_ATTR, &attr));
	vm = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm >= 0 && ioctl(vm, KVM_CREATE_DEVICE, &make) == 0) {
		CHECK(ioctl((int)make.fd, KVM_SET_DEVICE_ATTR, &attr) == 0);
		attr.attr = KVM_DEV_VFIO_GROUP_DEL;
		CHECK(ioctl((int)make.fd, KVM_SET_DEVICE_ATTR, &attr) == 0);
		attr.attr = KVM_DEV_VFIO_GROUP_ADD;
		fd = vmm.event;
		FAILS(EINVAL, ioctl((int)make.fd, KVM_SET_DEVICE_ATTR, &attr));
		attr.addr = 1;
		FAILS(EFAULT, ioctl((int)make.fd, KVM_SET_DEVICE_ATTR, &attr));
		CHECK(close((int)make.fd) == 0);
	} else {
		(void)puts("no KVM here");
	}
	CHECK((vm < 0 || close(vm) == 0) && (kvm < 0 || close(kvm) == 0));
	vmm_end(&vmm);
}

void test_sockets(void)
{
	struct vmm vmm;
	char data = 'x';
	struct iovec iov = {.iov_base = &data, .iov_len = 1};
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = {.bytes = {0}};
	struct msghdr message = {.msg_iov = &iov,
				 .msg_iovlen = 1,
				 .msg_control = control.bytes,
				 .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *part = CMSG_FIRSTHDR(&message);
	int ends[2];

	vmm_start(&vmm, "/dev/vfio/devices/vfio0");
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	part->cmsg_level = SOL_SOCKET;
	part->cmsg_type = SCM_RIGHTS;
	part->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(part), &vmm.device, sizeof(int));
	FAILS(EOPNOTSUPP, sendmsg(ends[0], &message, 0));
	memcpy(CMSG_DATA(part), &ends[1], sizeof(int));
	CHECK(sendmsg(ends[0], &message, 0) == 1);
	/* What cannot be understood is for the kernel to refuse. */
	part->cmsg_len = 1;
	FAILS(EINVAL, sendmsg(ends[0], &message, 0));
	part->cmsg_len = SIZE_MAX;
	FAILS(EINVAL, sendmsg(ends[0], &message, 0));
	message.msg_control = (void *)8;
	FAILS(EFAULT, sendmsg(ends[0], &message, 0));
	CHECK(close(ends[0]) == 0 && close(ends[1]) == 0);
	vmm_end(&vmm);
}
