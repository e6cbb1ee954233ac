/* SPDX-License-Identifier: MIT */
/* See irq.h. */
#include "irq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi.h"
#include "device.h"
#include "user.h"

void pl_irqs_init(struct pl_irqs *irqs)
{
	pthread_mutex_init(&irqs->lock, NULL);
	irqs->index = PL_IRQ_NONE;
	irqs->count = 0;
	irqs->request_fd = -1;
}

void pl_irqs_release(struct pl_irqs *irqs)
{
	if (irqs->request_fd >= 0)
		close(irqs->request_fd);
	pthread_mutex_destroy(&irqs->lock);
}

/* -EINVAL for an index that there is not. */
static int describe(struct pl_dev *dev, uint32_t index, struct qsc_irq_info *info)
{
	memset(info, 0, sizeof(*info));
	if (index >= VFIO_PCI_NUM_IRQS || index == VFIO_PCI_ERR_IRQ_INDEX)
		return -EINVAL; /* errors are reported by PCI Express, and this is none */
	if (index == VFIO_PCI_REQ_IRQ_INDEX) {
		info->count = 1;
		return 0;
	}
	return index < dev->info.num_irqs ? qsc_device_get_irq_info(dev->dev, index, info) : 0;
}

int pl_irq_get_info(struct pl_dev *dev, void *arg)
{
	struct vfio_irq_info out = {0};
	struct qsc_irq_info info = {0};
	int result = pl_copy_argsz(&out, sizeof(out), arg);

	if (!result)
		result = describe(dev, out.index, &info);
	if (result < 0)
		return result;
	pl_dev_count(dev, QSC_ACTION_QUERY);
	out.count = info.count;
	out.flags = VFIO_IRQ_INFO_EVENTFD;
	if (out.index == VFIO_PCI_INTX_IRQ_INDEX)
		out.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	else if (out.index != VFIO_PCI_MSIX_IRQ_INDEX)
		out.flags |= VFIO_IRQ_INFO_NORESIZE;
	return pl_copy_out(arg, &out, sizeof(out));
}

/* ---- setting up ---- */

/* What follows the structure, copied; the caller frees it. */
static int copy_data(const struct vfio_irq_set *set, const void *arg, void **data)
{
	uint32_t type = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	size_t each = type == VFIO_IRQ_SET_DATA_BOOL ? 1 : sizeof(int32_t);
	size_t size;
	int result;

	*data = NULL;
	if (type == VFIO_IRQ_SET_DATA_NONE)
		return 0;
	if (type != VFIO_IRQ_SET_DATA_BOOL && type != VFIO_IRQ_SET_DATA_EVENTFD)
		return -EINVAL;
	size = each * set->count;
	if (set->argsz - sizeof(*set) < size)
		return -EINVAL;
	if (!size)
		return 0;
	*data = malloc(size);
	if (!*data)
		return -ENOMEM;
	result = pl_copy_in(*data, (const char *)arg + sizeof(*set), size);
	if (result < 0) {
		free(*data);
		*data = NULL;
	}
	return result;
}

static int validate(struct pl_dev *dev, const struct vfio_irq_set *set)
{
	struct qsc_irq_info info;

	if (set->index >= VFIO_PCI_NUM_IRQS || set->count >= UINT32_MAX - set->start ||
	    (set->flags & ~(uint32_t)(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK)))
		return -EINVAL;
	if (describe(dev, set->index, &info) < 0)
		info.count = 0;
	return set->start >= info.count || set->start + set->count > info.count ? -EINVAL : 0;
}

/* The request index: kept here, raised by nobody but the user. Lock held. */
static int set_request(struct pl_irqs *irqs, const struct vfio_irq_set *set, const void *data)
{
	const int32_t *wanted = set->flags & VFIO_IRQ_SET_DATA_EVENTFD ? data : NULL;
	const uint8_t *bools = set->flags & VFIO_IRQ_SET_DATA_BOOL ? data : NULL;
	const uint64_t one = 1;
	int fd = -1;

	if ((set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (!set->count && !(set->flags & VFIO_IRQ_SET_DATA_NONE))
		return -EINVAL;
	if (set->count && !wanted) {
		if (irqs->request_fd >= 0 && (!bools || *bools))
			(void)!write(irqs->request_fd, &one, sizeof(one));
		return 0;
	}
	if (wanted && *wanted < -1)
		return -EINVAL;
	if (wanted && *wanted >= 0) {
		fd = fcntl(*wanted, F_DUPFD_CLOEXEC, 3);
		if (fd < 0)
			return -EBADF;
	}
	if (irqs->request_fd >= 0)
		close(irqs->request_fd);
	irqs->request_fd = fd;
	return 0;
}

static int pass_on(struct pl_dev *dev, const struct vfio_irq_set *set, const void *data)
{
	struct qsc_irq_set inner = {
		.flags = set->flags,
		.index = set->index,
		.start = set->start,
		.count = set->count,
		.bools = data,
		.fds = data,
	};
	bool trigger = (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER) && set->count &&
		       !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD);

	pl_dev_count(dev, trigger ? QSC_ACTION_IRQ_TRIGGER : QSC_ACTION_IRQ_SETUP);
	return qsc_device_set_irqs(dev->dev, &inner);
}

/* Lock held. One kind at a time, as the device can signal only one way. */
static int set_vectors(struct pl_dev *dev, const struct vfio_irq_set *set, const void *data)
{
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	uint32_t type = set->flags & VFIO_IRQ_SET_DATA_TYPE_MASK;
	struct pl_irqs *irqs = &dev->irqs;
	bool intx = set->index == VFIO_PCI_INTX_IRQ_INDEX;
	bool on = irqs->index == set->index;
	int result;

	if (action != VFIO_IRQ_SET_ACTION_TRIGGER && !intx)
		return -ENOTTY;
	if (action == VFIO_IRQ_SET_ACTION_TRIGGER && on && !set->count &&
	    type == VFIO_IRQ_SET_DATA_NONE) {
		result = pass_on(dev, set, data);
		if (!result)
			irqs->index = PL_IRQ_NONE;
		return result;
	}
	if (!on && irqs->index != PL_IRQ_NONE)
		return -EINVAL;
	if (!set->count || (intx && (set->start || set->count != 1)))
		return -EINVAL;
	if (type != VFIO_IRQ_SET_DATA_EVENTFD && !on)
		return -EINVAL;
	/* What is enabled later than the rest: only MSI-X can. */
	if (on && set->index == VFIO_PCI_MSI_IRQ_INDEX && set->start + set->count > irqs->count)
		return -EINVAL;
	if (type != VFIO_IRQ_SET_DATA_EVENTFD && !intx && set->start + set->count > irqs->count)
		return -EINVAL;
	result = pass_on(dev, set, data);
	if (!result && type == VFIO_IRQ_SET_DATA_EVENTFD && action == VFIO_IRQ_SET_ACTION_TRIGGER) {
		uint32_t end = set->start + set->count;

		irqs->count = on && irqs->count > end ? irqs->count : end;
		irqs->index = set->index;
	}
	return result;
}

int pl_irq_set(struct pl_dev *dev, void *arg)
{
	struct vfio_irq_set set;
	void *data = NULL;
	int result = pl_copy_argsz(&set, sizeof(set), arg);

	if (!result)
		result = validate(dev, &set);
	if (!result)
		result = copy_data(&set, arg, &data);
	if (result < 0)
		return result;
	pthread_mutex_lock(&dev->irqs.lock);
	result = set.index == VFIO_PCI_REQ_IRQ_INDEX ? set_request(&dev->irqs, &set, data)
						     : set_vectors(dev, &set, data);
	pthread_mutex_unlock(&dev->irqs.lock);
	free(data);
	return result;
}
