/* SPDX-License-Identifier: MIT */
/* See irq.h. */
#include "irq.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "abi/vfio.h"
#include "device.h"
#include "user.h"

void pl_irqs_init(struct pl_irqs *irqs)
{
	pthread_mutex_init(&irqs->lock, NULL);
	irqs->index = PL_IRQ_NONE;
	irqs->count = 0;
	irqs->unmask = NULL;
	irqs->error_fd = -1;
	irqs->request_fd = -1;
}

void pl_irqs_release(struct pl_irqs *irqs)
{
	if (irqs->error_fd >= 0)
		close(irqs->error_fd);
	if (irqs->request_fd >= 0)
		close(irqs->request_fd);
	pthread_mutex_destroy(&irqs->lock);
}

/* -EINVAL for an index that there is not. */
static int describe(struct pl_dev *dev, uint32_t index, struct qsc_irq_info *info)
{
	memset(info, 0, sizeof(*info));
	if (index >= VFIO_PCI_NUM_IRQS)
		return -EINVAL;
	if (index == VFIO_PCI_ERR_IRQ_INDEX && !dev->pci.express)
		return -EINVAL;
	if (index == VFIO_PCI_ERR_IRQ_INDEX || index == VFIO_PCI_REQ_IRQ_INDEX) {
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

/* The error or the request index: kept here, raised by nobody but the user. Lock held. */
static int set_own(int *own, const struct vfio_irq_set *set, const void *data)
{
	const uint8_t *bools = data;
	const int32_t *fds = data;
	const uint64_t one = 1;
	int fd = -1;
	int result;

	if ((set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (set->flags & VFIO_IRQ_SET_DATA_NONE) {
		if (*own < 0)
			return -EINVAL;
		if (set->count)
			goto raise;
	} else if (!set->count || !data) {
		return -EINVAL;
	} else if (set->flags & VFIO_IRQ_SET_DATA_BOOL) {
		if (!*bools || *own < 0)
			return 0;
		goto raise;
	} else {
		if (*fds < -1)
			return 0; /* the kernel does not mind */
		if (*fds >= 0) {
			result = pl_eventfd_check(*fds);
			if (result < 0)
				return result;
			fd = fcntl(*fds, F_DUPFD_CLOEXEC, 3);
			if (fd < 0)
				return -errno;
		}
	}
	if (*own >= 0)
		close(*own);
	*own = fd;
	return 0;
raise:
	(void)!write(*own, &one, sizeof(one));
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

static int check_fds(const struct vfio_irq_set *set, const int32_t *fds)
{
	int result = 0;

	if (!(set->flags & VFIO_IRQ_SET_DATA_EVENTFD) || !fds)
		return 0;
	for (uint32_t i = 0; i < set->count && !result; i++)
		if (fds[i] >= 0)
			result = pl_eventfd_check(fds[i]);
	return result;
}

/* Lock held. The kind is no longer set up. */
static int tear_down(struct pl_dev *dev, const struct vfio_irq_set *set)
{
	int result = pass_on(dev, set, NULL);

	if (result < 0)
		return result;
	if (dev->irqs.unmask)
		pl_watch_remove(&dev->watcher, dev->irqs.unmask);
	dev->irqs.unmask = NULL;
	dev->irqs.index = PL_IRQ_NONE;
	return 0;
}

static void unmask_signalled(void *ctx, uint64_t count)
{
	const struct vfio_irq_set unmask = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK,
		.index = VFIO_PCI_INTX_IRQ_INDEX,
		.count = 1,
	};

	(void)count;
	(void)pass_on(ctx, &unmask, NULL);
}

/* Lock held. One eventfd at a time, which is waited for here: to the device it is an unmask. */
static int set_unmask(struct pl_dev *dev, int fd)
{
	struct pl_irqs *irqs = &dev->irqs;
	int result;

	if (fd >= 0) {
		result = pl_eventfd_check(fd);
		if (!result && irqs->unmask)
			result = -EBUSY;
		return result < 0 ? result
				  : pl_watch_add(&dev->watcher, fd, unmask_signalled, dev,
						 &irqs->unmask);
	}
	if (irqs->unmask)
		pl_watch_remove(&dev->watcher, irqs->unmask);
	irqs->unmask = NULL;
	return 0;
}

/* Lock held. */
static int set_intx(struct pl_dev *dev, const struct vfio_irq_set *set, const void *data)
{
	uint32_t action = set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK;
	bool eventfd = set->flags & VFIO_IRQ_SET_DATA_EVENTFD;
	struct pl_irqs *irqs = &dev->irqs;
	bool on = irqs->index == VFIO_PCI_INTX_IRQ_INDEX;
	bool enable = action == VFIO_IRQ_SET_ACTION_TRIGGER && eventfd;
	int result;

	if (action != VFIO_IRQ_SET_ACTION_TRIGGER && action != VFIO_IRQ_SET_ACTION_MASK &&
	    action != VFIO_IRQ_SET_ACTION_UNMASK)
		return -ENOTTY;
	if (action == VFIO_IRQ_SET_ACTION_TRIGGER && on && !set->count &&
	    (set->flags & VFIO_IRQ_SET_DATA_NONE))
		return tear_down(dev, set);
	if (!on && !(enable && irqs->index == PL_IRQ_NONE))
		return -EINVAL;
	if (set->start || set->count != 1)
		return -EINVAL;
	if (eventfd && action == VFIO_IRQ_SET_ACTION_MASK)
		return -ENOTTY;
	if (eventfd && action == VFIO_IRQ_SET_ACTION_UNMASK && data)
		return set_unmask(dev, *(const int32_t *)data);
	result = check_fds(set, data);
	if (!result)
		result = pass_on(dev, set, data);
	if (!result && enable)
		irqs->index = VFIO_PCI_INTX_IRQ_INDEX;
	return result;
}

/* Lock held. One kind at a time, as the device can signal only one way. */
static int set_messages(struct pl_dev *dev, const struct vfio_irq_set *set, const void *data)
{
	bool eventfd = set->flags & VFIO_IRQ_SET_DATA_EVENTFD;
	struct pl_irqs *irqs = &dev->irqs;
	bool on = irqs->index == set->index;
	uint32_t end = set->start + set->count;
	int result;

	if ((set->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return -ENOTTY;
	if (on && !set->count && (set->flags & VFIO_IRQ_SET_DATA_NONE))
		return tear_down(dev, set);
	if (!on && (!eventfd || irqs->index != PL_IRQ_NONE))
		return -EINVAL;
	if (!set->count)
		return -EINVAL;
	/* What is enabled later than the rest: only MSI-X can. */
	if (on && (!eventfd || set->index == VFIO_PCI_MSI_IRQ_INDEX) && end > irqs->count)
		return -EINVAL;
	result = check_fds(set, data);
	if (!result)
		result = pass_on(dev, set, data);
	if (!result && eventfd) {
		irqs->count = on && irqs->count > end ? irqs->count : end;
		irqs->index = set->index;
	}
	return result;
}

static int set_locked(struct pl_dev *dev, const struct vfio_irq_set *set, const void *data)
{
	switch (set->index) {
	case VFIO_PCI_INTX_IRQ_INDEX:
		return set_intx(dev, set, data);
	case VFIO_PCI_ERR_IRQ_INDEX:
		return set_own(&dev->irqs.error_fd, set, data);
	case VFIO_PCI_REQ_IRQ_INDEX:
		return set_own(&dev->irqs.request_fd, set, data);
	default:
		return set_messages(dev, set, data);
	}
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
	result = set_locked(dev, &set, data);
	pthread_mutex_unlock(&dev->irqs.lock);
	free(data);
	return result;
}
