/* SPDX-License-Identifier: MIT */
/*
 * See ioeventfd.h. A signal is a write by the user as any other: it is lost where the device is
 * stopped or its memory is off, and counts as an action. Several signals that came before the
 * thread ran are as many writes, to a limit.
 */
#include "ioeventfd.h"

#include <endian.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "device.h"
#include "region.h"
#include "user.h"
#include "watch.h"

#define MAX_IOEVENTFDS 1000U /* as in the kernel */
#define MAX_WRITES     1024U /* at once; a larger number was not counted by ones */

struct pl_ioeventfd {
	struct pl_ioeventfd *next;
	struct pl_dev *dev;
	struct pl_watch *watch;
	uint32_t bar;
	uint64_t offset; /* in the BAR */
	uint64_t data;
	uint32_t size;
};

void pl_ioeventfds_init(struct pl_ioeventfds *ioeventfds)
{
	pthread_mutex_init(&ioeventfds->lock, NULL);
	ioeventfds->first = NULL;
	ioeventfds->count = 0;
}

void pl_ioeventfds_release(struct pl_ioeventfds *ioeventfds)
{
	struct pl_ioeventfd *one;

	while ((one = ioeventfds->first)) {
		ioeventfds->first = one->next;
		free(one);
	}
	pthread_mutex_destroy(&ioeventfds->lock);
}

static void signalled(void *ctx, uint64_t count)
{
	const struct pl_ioeventfd *one = ctx;
	uint64_t wire = htole64(one->data);

	for (uint64_t i = 0; i < count && i < MAX_WRITES; i++)
		(void)pl_region_write(one->dev, &wire, one->size,
				      (uint64_t)one->bar << 40 | one->offset);
}

/* Lock held. */
static int add(struct pl_dev *dev, const struct pl_ioeventfd *wanted, int fd)
{
	struct pl_ioeventfds *all = &dev->ioeventfds;
	struct pl_ioeventfd *one;
	int result;

	if (fd < 0)
		return -ENODEV;
	if (all->count >= MAX_IOEVENTFDS)
		return -ENOSPC;
	one = malloc(sizeof(*one));
	if (!one)
		return -ENOMEM;
	*one = *wanted;
	result = pl_watch_add(&dev->watcher, fd, signalled, one, &one->watch);
	if (result < 0) {
		free(one);
		return result;
	}
	one->next = all->first;
	all->first = one;
	all->count++;
	return 0;
}

static int change(struct pl_dev *dev, const struct pl_ioeventfd *wanted, int fd)
{
	struct pl_ioeventfds *all = &dev->ioeventfds;
	struct pl_ioeventfd **link;
	struct pl_ioeventfd *one;

	for (link = &all->first; (one = *link); link = &one->next)
		if (one->bar == wanted->bar && one->offset == wanted->offset &&
		    one->data == wanted->data && one->size == wanted->size)
			break;
	if (!one)
		return add(dev, wanted, fd);
	if (fd != -1)
		return -EEXIST;
	*link = one->next;
	all->count--;
	pl_watch_remove(&dev->watcher, one->watch);
	free(one);
	return 0;
}

int pl_ioeventfd(struct pl_dev *dev, void *arg)
{
	struct vfio_device_ioeventfd in;
	struct pl_ioeventfd wanted = {.dev = dev};
	const size_t least = offsetof(struct vfio_device_ioeventfd, fd) + sizeof(in.fd);
	const struct pl_pci *pci = &dev->pci;
	uint64_t end;
	int result = pl_copy_argsz(&in, least, arg);

	if (result < 0)
		return result;
	if (in.flags & ~(uint32_t)VFIO_DEVICE_IOEVENTFD_SIZE_MASK || !in.flags ||
	    (in.flags & (in.flags - 1)) || in.fd < -1)
		return -EINVAL;
	wanted.bar = pl_region_index(in.offset);
	wanted.offset = pl_region_offset(in.offset);
	wanted.data = in.data;
	wanted.size = in.flags;
	end = wanted.offset + wanted.size;
	if (wanted.bar > VFIO_PCI_BAR5_REGION_INDEX || end > dev->regions[wanted.bar].size)
		return -EINVAL;
	/* What becomes of the MSI-X table is the host's to say. */
	if (pci->msix_size && wanted.bar == pci->msix_bar && end > pci->msix_offset &&
	    wanted.offset < pci->msix_offset + pci->msix_size)
		return -EINVAL;
	pthread_mutex_lock(&dev->ioeventfds.lock);
	result = change(dev, &wanted, in.fd);
	pthread_mutex_unlock(&dev->ioeventfds.lock);
	return result;
}
