/* SPDX-License-Identifier: MIT */
/*
 * The dirty log, kept by the device or else by the IOMMU. Asking whether there is one is answered
 * wrongly by some kernels, so it is started, asked and stopped once when the device is opened, and
 * believed only if that works.
 *
 * The IOMMU's pages are reported mapping by mapping: the kernel refuses a range with a hole. What
 * is unmapped while the log runs counts as written, because nobody can tell any more.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

#define PROOF_IOVA (1ULL << 30)
#define PROOF_SIZE (2ULL << 20)
#define PIECE_BITS (1ULL << 18) /* of the IOMMU's bitmap that are read at once */

/* ---- of the device ---- */

static int start_device(struct qsc_kernel *kernel, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = *page_size,
		.num_ranges = (uint32_t)num_ranges,
		.ranges = (uint64_t)(uintptr_t)ranges,
	};
	int result;

	if (num_ranges > UINT32_MAX)
		return -E2BIG;
	result = qsc_kernel_feature(kernel->files.device,
				    VFIO_DEVICE_FEATURE_DMA_LOGGING_START | VFIO_DEVICE_FEATURE_SET,
				    &control, sizeof(control));
	if (!result && qsc_is_power_of_two(control.page_size))
		*page_size = control.page_size;
	return result;
}

static int stop_device(struct qsc_kernel *kernel)
{
	return qsc_kernel_feature(kernel->files.device,
				  VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP | VFIO_DEVICE_FEATURE_SET,
				  NULL, 0);
}

static int report_device(struct qsc_kernel *kernel, uint64_t iova, uint64_t size,
			 uint64_t page_size, uint64_t *bitmap)
{
	struct vfio_device_feature_dma_logging_report report = {
		.iova = iova,
		.length = size,
		.page_size = page_size,
		.bitmap = (uint64_t)(uintptr_t)bitmap,
	};

	return qsc_kernel_feature(kernel->files.device,
				  VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT | VFIO_DEVICE_FEATURE_GET,
				  &report, sizeof(report));
}

/* ---- of the IOMMU ---- */

static int switch_iommu(struct qsc_kernel *kernel, bool on)
{
	struct abi_set_dirty_tracking set = {
		.size = sizeof(set),
		.flags = on ? ABI_DIRTY_TRACKING_ENABLE : 0,
		.hwpt_id = kernel->files.space->hwpt,
	};

	return qsc_kernel_ioctl(kernel->files.space->iommufd,
				ABI_IOMMUFD(ABI_HWPT_SET_DIRTY_TRACKING), &set);
}

/* Every bit of `from`, one for 4 KiB from `iova` on, into the user's bitmap. */
static void fold(const uint64_t *from, uint64_t bits, uint64_t iova, uint64_t base,
		 uint64_t page_size, uint64_t *bitmap)
{
	uint64_t bit;

	for (bit = qsc_bitmap_next(from, bits, 0); bit < bits;
	     bit = qsc_bitmap_next(from, bits, bit + 1))
		qsc_bitmap_set(bitmap, (iova + bit * QSC_PAGE_SIZE - base) / page_size);
}

/* Adds the bits of [iova, iova + size), which lies within one mapping, in whole pages of 4 KiB. */
static int read_pages(struct qsc_kernel *kernel, uint64_t iova, uint64_t size, uint64_t *bits)
{
	struct abi_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = kernel->files.space->hwpt,
		.iova = iova,
		.length = size,
		.page_size = QSC_PAGE_SIZE,
		.data = (uint64_t)(uintptr_t)bits,
	};

	return qsc_kernel_ioctl(kernel->files.space->iommufd,
				ABI_IOMMUFD(ABI_HWPT_GET_DIRTY_BITMAP), &get);
}

/* DMA lock held. As read_pages(), into the user's bitmap. */
static int report_pages(struct qsc_kernel *kernel, uint64_t iova, uint64_t size, uint64_t base,
			uint64_t page_size, uint64_t *bitmap, uint64_t *scratch)
{
	while (size) {
		uint64_t part = qsc_min_u64(size, PIECE_BITS * QSC_PAGE_SIZE);
		int result;

		memset(scratch, 0, PIECE_BITS / 8);
		result = read_pages(kernel, iova, part, scratch);
		if (result < 0)
			return result;
		fold(scratch, part / QSC_PAGE_SIZE, iova, base, page_size, bitmap);
		iova += part;
		size -= part;
	}
	return 0;
}

/* What two ranges have in common; size 0 for nothing. */
static struct qsc_dma_range common(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	uint64_t start = qsc_max_u64(a, b);
	uint64_t end = qsc_min_u64(a + a_size, b + b_size);

	return (struct qsc_dma_range){start, end > start ? end - start : 0};
}

/* DMA lock held. */
static int report_iommu(struct qsc_kernel *kernel, uint64_t iova, uint64_t size, uint64_t page_size,
			uint64_t *bitmap)
{
	qsc_autofree uint64_t *scratch = malloc(PIECE_BITS / 8);
	int result = 0;

	if (!scratch)
		return -ENOMEM;
	for (size_t i = 0; i < kernel->table.count && !result; i++) {
		const struct qsc_dma_mapping *entry = &kernel->table.entries[i];
		struct qsc_dma_range part = common(iova, size, entry->iova, entry->size);

		for (size_t j = 0; j < kernel->num_logged && part.size && !result; j++) {
			const struct qsc_dma_range *range = &kernel->logged[j];
			struct qsc_dma_range seen = common(part.iova, part.size, range->iova,
							   range->size);
			uint64_t end = qsc_align_up(seen.iova + seen.size, QSC_PAGE_SIZE);

			if (!seen.size)
				continue;
			seen.iova &= ~(QSC_PAGE_SIZE - 1);
			result = report_pages(kernel, seen.iova, end - seen.iova, iova, page_size,
					      bitmap, scratch);
		}
	}
	return result;
}

/* DMA lock held. What was unmapped: reported, and what of it lies outside stays for later. */
static int report_carried(struct qsc_kernel *kernel, uint64_t iova, uint64_t size,
			  uint64_t page_size, uint64_t *bitmap)
{
	qsc_autofree struct qsc_dma_range *left = NULL;
	size_t count = 0;

	if (!kernel->num_carried)
		return 0;
	left = calloc(2 * kernel->num_carried, sizeof(*left));
	if (!left)
		return -ENOMEM;
	for (size_t i = 0; i < kernel->num_carried; i++) {
		struct qsc_dma_range whole = kernel->carried[i];
		struct qsc_dma_range part = common(iova, size, whole.iova, whole.size);
		uint64_t at;

		for (at = 0; at < part.size; at += QSC_PAGE_SIZE)
			qsc_bitmap_set(bitmap, (part.iova + at - iova) / page_size);
		if (!part.size)
			part.iova = whole.iova + whole.size;
		if (part.iova > whole.iova)
			left[count++] = (struct qsc_dma_range){
				whole.iova, qsc_min_u64(part.iova - whole.iova, whole.size)};
		if (part.size && part.iova + part.size < whole.iova + whole.size)
			left[count++] = (struct qsc_dma_range){part.iova + part.size,
							       whole.iova + whole.size -
								       (part.iova + part.size)};
	}
	free(kernel->carried);
	kernel->carried = qsc_steal(left);
	kernel->num_carried = count;
	return 0;
}

int qsc_kernel_log_carry(struct qsc_kernel *kernel, uint64_t iova, uint64_t size)
{
	struct qsc_dma_range *grown;

	if (!kernel->logging || kernel->log != QSC_KERNEL_LOG_IOMMU)
		return 0;
	for (size_t i = 0; i < kernel->num_logged; i++) {
		struct qsc_dma_range part = common(iova, size, kernel->logged[i].iova,
						   kernel->logged[i].size);
		uint64_t end = qsc_align_up(part.iova + part.size, QSC_PAGE_SIZE);

		if (!part.size)
			continue;
		/* Whole pages, as they are reported: a log may begin and end within one. */
		part.iova &= ~(QSC_PAGE_SIZE - 1);
		part.size = end - part.iova;
		grown = reallocarray(kernel->carried, kernel->num_carried + 1, sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		kernel->carried = grown;
		kernel->carried[kernel->num_carried++] = part;
	}
	return 0;
}

/* ---- whichever there is ---- */

/* Start, report, stop: what an open would otherwise find out in the middle of a migration. */
static bool device_log_works(struct qsc_kernel *kernel)
{
	const struct qsc_dma_range range = {PROOF_IOVA, PROOF_SIZE};
	uint64_t bitmap[PROOF_SIZE / QSC_PAGE_SIZE / 64] = {0};
	uint64_t page_size = QSC_PAGE_SIZE;
	int result = start_device(kernel, &page_size, &range, 1);

	if (result < 0)
		return false;
	result = report_device(kernel, PROOF_IOVA, PROOF_SIZE, QSC_PAGE_SIZE, bitmap);
	return stop_device(kernel) >= 0 && result >= 0;
}

/* The log runs: of a page that is mapped for this at an address of the kernel's choice. 0 or
 * -errno. */
static int try_report(struct qsc_kernel *kernel)
{
	struct qsc_kernel_space *space = kernel->files.space;
	size_t size = (size_t)sysconf(_SC_PAGESIZE);
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct abi_ioas_map map = {
		.size = sizeof(map),
		.flags = ABI_MAP_READABLE | ABI_MAP_WRITEABLE,
		.ioas_id = space->ioas,
		.user_va = (uint64_t)(uintptr_t)page,
		.length = size,
	};
	struct abi_ioas_unmap unmap = {.size = sizeof(unmap), .ioas_id = space->ioas};
	uint64_t bitmap[16] = {0}; /* for a page of up to 4 MiB */
	int result = 0;

	if (page == MAP_FAILED)
		return 0;
	/* Nobody else's mapping may be meant for that address meanwhile. */
	pthread_mutex_lock(&space->lock);
	/* Without a page there is nothing to ask for, which says nothing of the log. */
	if (qsc_kernel_ioctl(space->iommufd, ABI_IOMMUFD(ABI_IOAS_MAP), &map) >= 0) {
		result = read_pages(kernel, map.iova, size, bitmap);
		unmap.iova = map.iova;
		unmap.length = size;
		(void)qsc_kernel_ioctl(space->iommufd, ABI_IOMMUFD(ABI_IOAS_UNMAP), &unmap);
	}
	pthread_mutex_unlock(&space->lock);
	munmap(page, size);
	return result;
}

/*
 * Whose device shares a page table with others sees their writes in its log as well; it is the only
 * one that has it, as a report takes away what others would miss.
 */
static void prove_iommu(struct qsc_kernel *kernel)
{
	int result = switch_iommu(kernel, true);

	if (result >= 0) {
		result = try_report(kernel);
		if (switch_iommu(kernel, false) < 0)
			result = -EIO;
	}
	if (result >= 0)
		kernel->log = QSC_KERNEL_LOG_IOMMU;
	else
		qsc_kernel_space_yield_log(kernel->files.space, kernel->files.member);
}

void qsc_kernel_prove_log(struct qsc_kernel *kernel)
{
	if (device_log_works(kernel))
		kernel->log = QSC_KERNEL_LOG_DEVICE;
	else if (qsc_kernel_space_claim_log(kernel->files.space, kernel->files.member))
		prove_iommu(kernel);
	else if (kernel->files.space->hwpt)
		qsc_log(QSC_LOG_INFO,
			"%s: it has no dirty log, because another device of its IOMMU group %s has "
			"that of the IOMMU",
			kernel->name, kernel->files.space->group_id);
}

/* DMA lock held. */
static int start_locked(struct qsc_kernel *kernel, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges)
{
	int result;

	if (kernel->logging && !kernel->raw)
		return -EBUSY;
	free(kernel->logged);
	kernel->num_logged = 0;
	kernel->logged = calloc(num_ranges, sizeof(*ranges));
	if (!kernel->logged)
		return -ENOMEM;
	memcpy(kernel->logged, ranges, num_ranges * sizeof(*ranges));
	if (kernel->log == QSC_KERNEL_LOG_DEVICE) {
		result = start_device(kernel, page_size, ranges, num_ranges);
	} else {
		result = switch_iommu(kernel, true);
		*page_size = QSC_PAGE_SIZE;
	}
	if (result < 0)
		return result;
	kernel->num_logged = num_ranges;
	kernel->logging = true;
	return 0;
}

int qsc_kernel_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result = qsc_kernel_verdict(kernel, QSC_ACTION_LOG_START);

	if (kernel->log == QSC_KERNEL_LOG_NONE)
		return -ENOTTY;
	if (result < 0)
		return result;
	pthread_mutex_lock(&kernel->dma_lock);
	result = start_locked(kernel, page_size, ranges, num_ranges);
	pthread_mutex_unlock(&kernel->dma_lock);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}

int qsc_kernel_log_stop(struct qsc_device *dev)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result = -EINVAL;

	if (kernel->log == QSC_KERNEL_LOG_NONE)
		return -ENOTTY;
	pthread_mutex_lock(&kernel->dma_lock);
	if (kernel->logging || kernel->raw) {
		result = kernel->log == QSC_KERNEL_LOG_DEVICE ? stop_device(kernel)
							      : switch_iommu(kernel, false);
		kernel->logging = false;
		kernel->num_carried = 0;
	}
	pthread_mutex_unlock(&kernel->dma_lock);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}

int qsc_kernel_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	int result = -EINVAL;

	if (kernel->log == QSC_KERNEL_LOG_NONE)
		return -ENOTTY;
	pthread_mutex_lock(&kernel->dma_lock);
	if ((kernel->logging || kernel->raw) && kernel->log == QSC_KERNEL_LOG_DEVICE) {
		result = report_device(kernel, iova, size, page_size, bitmap);
	} else if (kernel->logging) {
		result = report_carried(kernel, iova, size, page_size, bitmap);
		if (!result)
			result = report_iommu(kernel, iova, size, page_size, bitmap);
	}
	pthread_mutex_unlock(&kernel->dma_lock);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : 0;
}
