/* SPDX-License-Identifier: MIT */
/*
 * Interrupts. A trigger from the user's side of a device that is not fully running waits here until
 * it is, because the kernel would deliver it at once; only a device whose description says that it
 * knows the contract is left to hold it itself, and has it in its stream (DEV-6). An index that the
 * kernel cannot give more vectors than it was set up with is set up anew, so that users may come
 * vector by vector.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/kernel/kernel.h"

#define MAX_VECTORS 65536U /* of one index; PCI has 2048 */
#define MAX_HELD    4096U

struct qsc_kernel_held {
	struct qsc_kernel_held *next;
	struct vfio_irq_set set; /* with its data behind it */
};

int qsc_kernel_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	struct vfio_irq_info query = {.argsz = sizeof(query), .index = index};
	int result;

	if (index >= kernel->num_irqs)
		return -EINVAL;
	result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_GET_IRQ_INFO, &query);
	/* An index that this device does not implement: the kernel refuses, we count to zero. */
	if (result == -EINVAL)
		return 0;
	if (result < 0)
		return qsc_kernel_failure(kernel, -result);
	info->flags = query.flags;
	info->count = query.count;
	return 0;
}

/* The kernel's form of it, or NULL. */
static struct qsc_kernel_held *pack(const struct qsc_irq_set *set)
{
	const void *data = NULL;
	struct qsc_kernel_held *packed;
	size_t size = 0;

	if (set->flags & VFIO_IRQ_SET_DATA_BOOL) {
		data = set->bools;
		size = set->count;
	} else if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD) {
		data = set->fds;
		size = set->count * sizeof(*set->fds);
	}
	packed = calloc(1, sizeof(*packed) + size);
	if (!packed)
		return NULL;
	packed->set = (struct vfio_irq_set){
		.argsz = (uint32_t)(sizeof(packed->set) + size),
		.flags = set->flags,
		.index = set->index,
		.start = set->start,
		.count = set->count,
	};
	if (size)
		memcpy(packed->set.data, data, size);
	return packed;
}

/* ---- an index whose number of vectors is fixed when it is set up ---- */

static void forget_vectors(struct qsc_kernel_vectors *vectors)
{
	for (uint32_t i = 0; i < vectors->count; i++)
		qsc_fd_close(&vectors->fds[i]);
	free(vectors->fds);
	*vectors = (struct qsc_kernel_vectors){0};
}

void qsc_kernel_forget_irqs(struct qsc_kernel *kernel)
{
	for (uint32_t i = 0; kernel->vectors && i < kernel->num_irqs; i++)
		forget_vectors(&kernel->vectors[i]);
	free(kernel->vectors);
	kernel->vectors = NULL;
}

/* What is set up, and over it what is now: descriptors of our own. 0 or -errno. */
static int merge(const struct qsc_kernel_vectors *old, const struct qsc_irq_set *set,
		 struct qsc_kernel_vectors *merged)
{
	uint32_t count = set->start + set->count > old->count ? set->start + set->count
							      : old->count;

	merged->fds = calloc(count, sizeof(*merged->fds));
	if (!merged->fds)
		return -ENOMEM;
	for (merged->count = 0; merged->count < count; merged->count++) {
		uint32_t i = merged->count;
		bool now = i >= set->start && i - set->start < set->count;
		int fd = now ? set->fds[i - set->start] : i < old->count ? old->fds[i] : -1;

		merged->fds[i] = fd < 0 ? -1 : qsc_fd_dup(fd);
		if (fd >= 0 && merged->fds[i] < 0) {
			int result = merged->fds[i];

			forget_vectors(merged);
			return result;
		}
	}
	return 0;
}

static int set_all(struct qsc_kernel *kernel, uint32_t index,
		   const struct qsc_kernel_vectors *vectors)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
		.count = vectors->count,
		.fds = vectors->fds,
	};
	struct vfio_irq_set none = {
		.argsz = sizeof(none),
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = index,
	};
	qsc_autofree struct qsc_kernel_held *packed = pack(&set);
	int result;

	if (!packed)
		return -ENOMEM;
	result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS, &none);
	if (result >= 0 && set.count)
		result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS, &packed->set);
	return result;
}

/* State lock held. An interrupt that comes while more vectors are added may be lost. */
static int set_up(struct qsc_kernel *kernel, const struct qsc_irq_set *set,
		  struct vfio_irq_set *packed)
{
	struct qsc_kernel_vectors *vectors = &kernel->vectors[set->index];
	struct qsc_kernel_vectors merged = {0};
	struct qsc_irq_info info = {0};
	int result = qsc_kernel_get_irq_info(&kernel->dev, set->index, &info);

	if (result < 0)
		return result;
	if (set->start + set->count > info.count)
		return -EINVAL;
	if (!(info.flags & VFIO_IRQ_INFO_NORESIZE) || info.count < 2 ||
	    !(set->flags & VFIO_IRQ_SET_ACTION_TRIGGER))
		return qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS, packed);
	if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		result = merge(vectors, set, &merged);
	if (!result)
		result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS, packed);
	if (result == -EINVAL && vectors->count && merged.count > vectors->count) {
		result = set_all(kernel, set->index, &merged);
		if (result < 0)
			(void)set_all(kernel, set->index, vectors);
	}
	if (result < 0) {
		forget_vectors(&merged);
		return result;
	}
	forget_vectors(vectors);
	*vectors = merged;
	return 0;
}

static bool is_trigger(const struct qsc_irq_set *set)
{
	return (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER) && set->count &&
	       !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD);
}

static bool runs(struct qsc_kernel *kernel)
{
	enum qsc_state state = (enum qsc_state)atomic_load(&kernel->state);

	return state == QSC_STATE_RUNNING || state == QSC_STATE_PRE_COPY;
}

/* Takes `packed` over where it keeps it, which `*packed` then says. */
static int hold(struct qsc_kernel *kernel, struct qsc_kernel_held **packed)
{
	struct qsc_kernel_held **link = &kernel->held;

	if (kernel->num_held == MAX_HELD)
		return -ENOSPC;
	while (*link)
		link = &(*link)->next;
	*link = qsc_steal(*packed);
	kernel->num_held++;
	return 0;
}

void qsc_kernel_release_held(struct qsc_kernel *kernel, bool deliver)
{
	while (kernel->held) {
		struct qsc_kernel_held *held = kernel->held;
		int result = 0;

		kernel->held = held->next;
		if (deliver)
			result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS,
						  &held->set);
		if (result < 0)
			qsc_log(QSC_LOG_WARNING,
				"%s: a trigger of interrupt %u of index %u that was held back is "
				"refused: %s",
				kernel->name, held->set.start, held->set.index, strerror(-result));
		free(held);
	}
	kernel->num_held = 0;
}

/* State lock held. */
static int set_now(struct qsc_kernel *kernel, const struct qsc_irq_set *set,
		   struct qsc_kernel_held **packed)
{
	bool trigger = is_trigger(set);
	int result = qsc_kernel_verdict(kernel,
					trigger ? QSC_ACTION_IRQ_TRIGGER : QSC_ACTION_IRQ_SETUP);

	if (result < 0)
		return result;
	if (!trigger)
		return set_up(kernel, set, &(*packed)->set);
	if (!runs(kernel) && !kernel->holds && !kernel->raw)
		return hold(kernel, packed);
	return qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_SET_IRQS, &(*packed)->set);
}

int qsc_kernel_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);
	qsc_autofree struct qsc_kernel_held *packed = NULL;
	int result;

	if (set->index >= kernel->num_irqs || set->count > MAX_VECTORS ||
	    set->start > MAX_VECTORS - set->count)
		return -EINVAL;
	packed = pack(set);
	if (!packed)
		return -ENOMEM;
	pthread_mutex_lock(&kernel->state_lock);
	result = set_now(kernel, set, &packed);
	pthread_mutex_unlock(&kernel->state_lock);
	return result < 0 ? qsc_kernel_failure(kernel, -result) : result;
}
