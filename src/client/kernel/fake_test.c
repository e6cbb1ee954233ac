/* SPDX-License-Identifier: MIT */
/* The kernel that is made up: see fake_test.h. */
#include "client/kernel/fake_test.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/fd.h"
#include "wire/wire.h"

#define CHOSEN_IOVA 0x5000000000ULL /* for who leaves it to the kernel */

struct fake fake;

static enum fake_kind kind_of(int fd)
{
	return fd >= 0 && fd < MAX_FD ? fake.files[fd] : NO_FILE;
}

/* Takes the new descriptor over; it, or -errno. */
static int make_file(enum fake_kind kind, int fd)
{
	if (fd < 0)
		return fd;
	assert_in_range(fd, 0, MAX_FD - 1);
	fake.files[fd] = kind;
	return fd;
}

/* The device's registers, as a file that may still be sealed. */
static int make_device(void)
{
	int fd = memfd_create("device", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0)
		return -errno;
	assert_int_equal(ftruncate(fd, REGION_SIZE), 0);
	fake.device = fd;
	return make_file(DEVICE, fd);
}

/* Whether this call is one that is to fail: 0, or -errno. */
static int stumble(void)
{
	int call = ++fake.calls;

	if (call == fake.fail_call)
		return -fake.fail_with;
	return fake.interrupts && call % 2 ? -EINTR : 0;
}

/* ---- the device ---- */

/*
 * An access arrives at the device. Late: it is stopped by then, or before it is over. Who waits for
 * such accesses has closed the gate.
 */
static void look(void)
{
	struct qsc_kernel *kernel = qsc_kernel_of(fake.watch);
	bool active = qsc_state_is_active(fake.state);

	fake.looked++;
	do
		sched_yield();
	while (fake.linger && qsc_state_is_active(fake.state) &&
	       qsc_gate_mode(&kernel->access) != QSC_GATE_CLOSED);
	fake.late += !active || !qsc_state_is_active(fake.state);
}

ssize_t pwrite(int fd, const void *buf, size_t nbytes, off_t offset)
{
	if (kind_of(fd) == DEVICE) {
		if (fake.gone) {
			errno = ENODEV;
			return -1;
		}
		if (fake.watch)
			look();
	}
	return syscall(SYS_pwrite64, fd, buf, nbytes, offset);
}

static int begin_session(struct vfio_device_feature_mig_state *data)
{
	bool saves = data->device_state != QSC_STATE_RESUMING;
	int ends[2];

	data->data_fd = -1;
	if (fake.no_session)
		return 0;
	qsc_fd_close(&fake.session);
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	fake.session = ends[saves];
	data->data_fd = ends[!saves];
	fake.handed = data->data_fd;
	return 0;
}

static bool holds_session(enum qsc_state state)
{
	return state == QSC_STATE_RESUMING || qsc_state_is_saving(state);
}

static int set_state(struct vfio_device_feature_mig_state *data)
{
	enum qsc_state target = (enum qsc_state)data->device_state;
	bool goes_on = target == fake.state ||
		       (qsc_state_is_saving(target) && qsc_state_is_saving(fake.state));
	bool opens = holds_session(target) && !goes_on;
	int number = fake.fail;

	fake.fail = 0;
	if (number) {
		fake.state = fake.ends;
		return -number;
	}
	if (fake.obliging) {
		fake.state = target < QSC_STATE_COUNT ? target : QSC_STATE_STOP_COPY;
		return begin_session(data);
	}
	if (qsc_contract_next(7, fake.state, data->device_state) < 0)
		return -EINVAL;
	fake.state = target;
	data->data_fd = -1;
	return opens ? begin_session(data) : 0;
}

static int feature(struct vfio_device_feature *request)
{
	uint32_t number = request->flags & VFIO_DEVICE_FEATURE_MASK;
	bool set = request->flags & VFIO_DEVICE_FEATURE_SET;
	void *data = request->data;

	switch (number) {
	case VFIO_DEVICE_FEATURE_MIGRATION:
		*(uint64_t *)data = fake.flags ? fake.flags : 7;
		return 0;
	case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
		if (set)
			return set_state(data);
		*(uint32_t *)data = fake.state;
		return 0;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
		if (!fake.device_log)
			return -ENOTTY;
		fake.log_started = true;
		return 0;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
		fake.log_started = false;
		return 0;
	case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
		return fake.report_fail ? -fake.report_fail : 0;
	default:
		return -ENOTTY;
	}
}

/* As many as the first call had, until all are torn down. */
static int set_vectors(const struct vfio_irq_set *set)
{
	if (set->flags & VFIO_IRQ_SET_DATA_NONE && !set->count)
		fake.num_vectors = 0;
	if (!(set->flags & VFIO_IRQ_SET_DATA_EVENTFD))
		return 0;
	if (!fake.num_vectors)
		fake.num_vectors = set->start + set->count;
	if (set->start + set->count > fake.num_vectors)
		return -EINVAL;
	memcpy(&fake.vectors[set->start], set->data, set->count * sizeof(int));
	return 0;
}

/* Every other page may be mapped, and of the last area two pages. */
static int describe_areas(struct vfio_region_info *out)
{
	struct vfio_region_info_cap_sparse_mmap *sparse = (void *)(out + 1);
	uint32_t size =
		(uint32_t)(sizeof(*out) + sizeof(*sparse) + fake.areas * sizeof(sparse->areas[0]));
	bool fits = out->argsz >= size;

	*out = (struct vfio_region_info){
		.argsz = size,
		.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS,
		.index = out->index,
		.cap_offset = fits ? sizeof(*out) : 0,
		.size = REGION_SIZE,
	};
	if (!fits)
		return 0;
	sparse->header = (struct vfio_info_cap_header){
		.id = VFIO_REGION_INFO_CAP_SPARSE_MMAP,
		.version = 1,
	};
	sparse->nr_areas = fake.areas;
	for (uint32_t i = 0; i < fake.areas; i++) {
		sparse->areas[i].offset = i * 8192ULL;
		sparse->areas[i].size = i + 1 < fake.areas ? 4096 : 8192;
	}
	return 0;
}

static int describe_region(struct vfio_region_info *out)
{
	const struct qsc_region_info info = {
		.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
			 VFIO_REGION_INFO_FLAG_MMAP,
		.size = REGION_SIZE,
		.stopped_known = fake.knows,
		.stopped = QSC_VERDICT_DISCARD,
	};
	uint8_t reply[QSC_WIRE_REGION_INFO_MAX];

	memcpy(out, reply, qsc_wire_encode_region_info(out->index, &info, 0, out->argsz, reply));
	return 0;
}

static int on_device(unsigned long request, void *arg)
{
	struct vfio_irq_set *set = arg;

	if (fake.gone)
		return -ENODEV;
	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		*(struct vfio_device_info *)arg = (struct vfio_device_info){
			.argsz = sizeof(struct vfio_device_info),
			.flags = VFIO_DEVICE_FLAGS_RESET,
			.num_regions = fake.regions ? fake.regions : 1,
			.num_irqs = fake.irqs ? fake.irqs : 1,
		};
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		if (fake.describe) {
			fake.describe(arg);
			return 0;
		}
		return fake.areas ? describe_areas(arg) : describe_region(arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		((struct vfio_irq_info *)arg)->flags = VFIO_IRQ_INFO_EVENTFD |
						       VFIO_IRQ_INFO_NORESIZE;
		((struct vfio_irq_info *)arg)->count = fake.num_possible ? fake.num_possible : 4;
		return 0;
	case VFIO_DEVICE_SET_IRQS:
		fake.triggers += set->flags & VFIO_IRQ_SET_DATA_NONE && set->count;
		return set_vectors(set);
	case VFIO_DEVICE_RESET:
		fake.resets++;
		if (!fake.reset_fail)
			fake.state = QSC_STATE_RUNNING;
		return -fake.reset_fail;
	case VFIO_DEVICE_FEATURE:
		return feature(arg);
	case ABI_BIND_IOMMUFD:
		return -fake.bind_fail;
	case ABI_ATTACH_IOMMUFD_PT:
		/* One table for all of a group. */
		return ((struct abi_attach *)arg)->pt_id ==
				       (fake.tracks && !fake.no_table ? 5U : 3U)
			       ? 0
			       : -EINVAL;
	default:
		return -ENOTTY;
	}
}

/* ---- where it does DMA ---- */

static int map(uint64_t vaddr)
{
	struct qsc_device *dev = fake.stop_in_map;
	uint64_t session;

	if (fake.map_fail)
		return -fake.map_fail;
	fake.maps++;
	fake.last_va = vaddr;
	if (!dev)
		return 0;
	fake.stop_in_map = NULL;
	return qsc_device_set_state(dev, QSC_STATE_STOP, &session);
}

static int on_space(unsigned long request, void *arg)
{
	struct abi_get_dirty_bitmap *get = arg;

	switch (request) {
	case ABI_IOMMUFD(ABI_IOAS_ALLOC):
		((struct abi_ioas_alloc *)arg)->out_ioas_id = 3;
		return 0;
	case ABI_IOMMUFD(ABI_HWPT_ALLOC):
		((struct abi_hwpt_alloc *)arg)->out_hwpt_id = 5;
		return fake.tracks ? 0 : -EOPNOTSUPP;
	case ABI_IOMMUFD(ABI_DESTROY):
		assert_int_equal(((struct abi_destroy *)arg)->id, 5);
		fake.destroyed++;
		return 0;
	case ABI_IOMMUFD(ABI_IOAS_MAP):
		if (!(((struct abi_ioas_map *)arg)->flags & ABI_MAP_FIXED_IOVA))
			((struct abi_ioas_map *)arg)->iova = CHOSEN_IOVA;
		return map(((struct abi_ioas_map *)arg)->user_va);
	case VFIO_IOMMU_MAP_DMA:
		return map(((struct vfio_iommu_type1_dma_map *)arg)->vaddr);
	case ABI_IOMMUFD(ABI_IOAS_UNMAP):
	case VFIO_IOMMU_UNMAP_DMA:
		fake.unmaps++;
		return 0;
	case ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING):
		fake.tracking = ((struct abi_set_dirty_tracking *)arg)->flags;
		return 0;
	case ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP):
		assert_int_equal(get->page_size, 4096);
		if (fake.iommu_fail)
			return -fake.iommu_fail;
		if (get->iova == CHOSEN_IOVA)
			return 0;
		/* As the kernel: nothing outside of a mapping. */
		if (get->iova < MEMORY_IOVA || get->iova + get->length > MEMORY_IOVA + MEMORY_SIZE)
			return -EINVAL;
		if (fake.dirty_iova >= get->iova && fake.dirty_iova < get->iova + get->length) {
			uint64_t bit = (fake.dirty_iova - get->iova) / 4096;

			((uint64_t *)(uintptr_t)get->data)[bit / 64] |= 1ULL << (bit % 64);
			fake.dirty_iova = 0;
		}
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
		return make_device();
	default:
		return -ENOTTY;
	}
}

/* ---- its sessions ---- */

/* With errno, where calls on the session fail. */
static bool is_refused(int fd)
{
	if (!fake.session_fail || fd != fake.handed)
		return false;
	errno = fake.session_fail;
	return true;
}

/* By calls that the thread sanitizer sees. */
ssize_t read(int fd, void *buf, size_t nbytes)
{
	const struct iovec iov = {.iov_base = buf, .iov_len = nbytes};

	return is_refused(fd) ? -1 : readv(fd, &iov, 1);
}

ssize_t write(int fd, const void *buf, size_t n)
{
	const struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n};

	return is_refused(fd) ? -1 : writev(fd, &iov, 1);
}

/* ---- its files ---- */

int ioctl(int fd, unsigned long request, ...)
{
	enum fake_kind kind = kind_of(fd);
	va_list args;
	void *arg;
	int result;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (is_refused(fd))
		return -1;
	if (!kind)
		return (int)syscall(SYS_ioctl, fd, request, arg);
	result = stumble();
	if (!result)
		result = kind == DEVICE	 ? on_device(request, arg)
			 : kind == GROUP ? on_group(request, arg)
					 : on_space(request, arg);
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

/* Its only user's. */
static int open_group(void)
{
	int fd;

	if (atomic_fetch_add(&fake.groups, 1)) {
		fake.groups--;
		return -EBUSY;
	}
	fd = make_file(GROUP, qsc_fd_memory("group", 4096));
	if (fd < 0)
		fake.groups--;
	return fd;
}

static int open_ours(const char *file)
{
	int result = stumble();

	if (result < 0)
		return result;
	if (!strcmp(file, "/dev/iommu"))
		return make_file(IOMMUFD, qsc_fd_memory("iommufd", 4096));
	if (!strcmp(file, "/dev/vfio/vfio"))
		return make_file(CONTAINER, qsc_fd_memory("container", 4096));
	if (!strcmp(file, "/dev/vfio/devices/missing"))
		return -ENOENT;
	if (!strncmp(file, "/dev/vfio/devices/", 18))
		return make_device();
	fake.group_tries += !strcmp(file, "/dev/vfio/fake");
	return open_group();
}

/* Nobody creates a file here. */
int open(const char *file, int oflag, ...)
{
	int result;

	if (strcmp(file, "/dev/iommu") != 0 && strncmp(file, "/dev/vfio/", 10) != 0)
		return (int)syscall(SYS_openat, AT_FDCWD, file, oflag, 0);
	result = open_ours(file);
	if (result >= 0)
		return result;
	errno = -result;
	return -1;
}

/* The C library's other name of it, which the thread sanitizer knows: a system call it would not
 * see. */
int __close(int fd); /* NOLINT(bugprone-reserved-identifier) */

int close(int fd)
{
	enum fake_kind kind = kind_of(fd);

	if (kind) {
		fake.groups -= kind == GROUP;
		fake.files[fd] = NO_FILE;
	}
	return __close(fd);
}

/* ---- what tests do with it ---- */

void fake_begin(void)
{
	memset(&fake, 0, sizeof(fake));
	fake.state = QSC_STATE_RUNNING;
	fake.handed = -1;
	fake.device = fake.session = -1;
}

int fake_count_files(void)
{
	int count = 0;

	for (int fd = 0; fd < MAX_FD; fd++)
		count += fake.files[fd] != NO_FILE;
	return count;
}

int fake_open(const char *name, enum qsc_kernel_via via, bool raw, struct qsc_device **dev,
	      struct qsc_error *err)
{
	struct qsc_kernel_place place = {0};
	struct qsc_kernel_files files;
	const char *group = strcmp(name, "fake") ? "7" : "fake";
	int result;

	(void)snprintf(place.name, sizeof(place.name), "%s", name);
	(void)snprintf(place.device, sizeof(place.device), "%s", name);
	(void)snprintf(place.cdev, sizeof(place.cdev), "/dev/vfio/devices/%s", name);
	(void)snprintf(place.group, sizeof(place.group), "/dev/vfio/%s", group);
	(void)snprintf(place.group_id, sizeof(place.group_id), "%s", group);
	result = qsc_kernel_attach(&place, via, &files, err);
	return result < 0 ? result : qsc_kernel_take(&files, name, raw, dev, err);
}

int fake_map(struct qsc_device *dev, uint64_t iova, int fd)
{
	const struct qsc_dma_mapping mapping = {
		.iova = iova,
		.size = MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.fd = fd,
	};

	return qsc_device_dma_map(dev, &mapping);
}

enum qsc_state state_of(struct qsc_device *dev)
{
	enum qsc_state state;

	assert_int_equal(qsc_device_get_state(dev, &state), 0);
	return state;
}

uint64_t enter(struct qsc_device *dev, enum qsc_state state)
{
	uint64_t session;

	assert_int_equal(qsc_device_set_state(dev, state, &session), 0);
	return session;
}
