/* SPDX-License-Identifier: MIT */
/* See vfio.h. */
#include "vfio.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "abi/vfio.h"
#include "bar.h"
#include "device.h"
#include "feature.h"
#include "group.h"
#include "ioas.h"
#include "ioeventfd.h"
#include "iommufd.h"
#include "irq.h"
#include "region.h"
#include "user.h"

struct pl_vfio {
	struct pl_file file;
	uint32_t index;
	pthread_mutex_t lock;	      /* binding, and the position */
	_Atomic(struct pl_dev *) dev; /* NULL until it is bound */
	struct pl_file *iommufd;      /* bound to, held by the object there */
	uint32_t devid;
	struct pl_file *group; /* held; or NULL */
	uint64_t position;     /* of read() and write() */
};

static struct pl_vfio *vfio_of(struct pl_file *file)
{
	return (struct pl_vfio *)file;
}

/* ---- iommufd ---- */

static int bind_locked(struct pl_vfio *vfio, struct pl_file *iommufd, void *arg)
{
	struct abi_bind_iommufd cmd;
	struct pl_dev *dev;
	int result;

	if (vfio->iommufd || vfio->group)
		return -EINVAL;
	result = pl_dev_open(vfio->index, &dev);
	if (result < 0)
		return result;
	result = pl_iommufd_bind(iommufd, dev, &vfio->devid);
	if (result < 0) {
		pl_dev_close(dev);
		return result;
	}
	cmd.out_devid = vfio->devid;
	result = pl_copy_out((char *)arg + offsetof(struct abi_bind_iommufd, out_devid),
			     &cmd.out_devid, sizeof(cmd.out_devid));
	if (result < 0) {
		pl_iommufd_unbind(iommufd, vfio->devid);
		pl_dev_close(dev);
		return result;
	}
	vfio->iommufd = iommufd;
	atomic_store(&vfio->dev, dev);
	return 0;
}

static int bind_iommufd(struct pl_vfio *vfio, void *arg)
{
	struct abi_bind_iommufd cmd;
	struct pl_file *iommufd;
	int result = pl_copy_argsz(&cmd, sizeof(cmd), arg);
	int error;

	if (result < 0)
		return result;
	if (cmd.flags || cmd.iommufd < 0)
		return -EINVAL;
	iommufd = pl_file_take_up(cmd.iommufd, &error);
	if (!iommufd)
		return error ? error : -EBADF;
	if (pl_is_iommufd(iommufd)) {
		pthread_mutex_lock(&vfio->lock);
		result = bind_locked(vfio, iommufd, arg);
		pthread_mutex_unlock(&vfio->lock);
	} else {
		result = -EBADFD;
	}
	pl_file_put(iommufd);
	return result;
}

static int attach(struct pl_vfio *vfio, void *arg)
{
	struct abi_attach cmd;
	int result = pl_copy_argsz(&cmd, sizeof(cmd), arg);

	if (result < 0)
		return result;
	if (cmd.flags)
		return -EINVAL;
	result = pl_iommufd_attach(vfio->iommufd, vfio->devid, &cmd.pt_id);
	if (result < 0)
		return result;
	result = pl_copy_out((char *)arg + offsetof(struct abi_attach, pt_id), &cmd.pt_id,
			     sizeof(cmd.pt_id));
	if (result < 0)
		pl_iommufd_detach(vfio->iommufd, vfio->devid);
	return result;
}

static int detach(struct pl_vfio *vfio, void *arg)
{
	struct abi_detach cmd;
	int result = pl_copy_argsz(&cmd, sizeof(cmd), arg);

	if (result < 0)
		return result;
	if (cmd.flags)
		return -EINVAL;
	pl_iommufd_detach(vfio->iommufd, vfio->devid);
	return 0;
}

/* ---- the device ---- */

static int get_info(struct pl_dev *dev, void *arg)
{
	struct vfio_device_info info = {0};
	const size_t least = offsetof(struct vfio_device_info, cap_offset);
	int result = pl_copy_argsz(&info, least, arg);

	if (result < 0)
		return result;
	pl_dev_count(dev, QSC_ACTION_QUERY);
	info.flags = dev->info.flags & (VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI);
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return pl_copy_out(arg, &info, info.argsz < sizeof(info) ? least : sizeof(info));
}

/* Each device has a bus to itself: a reset of the bus is a reset of the device. */
static int hot_reset_info(struct pl_vfio *vfio, void *arg)
{
	const size_t least = offsetof(struct vfio_pci_hot_reset_info, devices);
	struct vfio_pci_dependent_device entry = {0};
	struct vfio_pci_hot_reset_info info;
	int result = pl_copy_argsz(&info, least, arg);

	if (result < 0)
		return result;
	info.flags = vfio->iommufd ? ABI_HOT_RESET_DEV_ID | ABI_HOT_RESET_DEV_ID_OWNED : 0;
	info.count = 1;
	if (info.argsz < least + sizeof(entry)) {
		result = pl_copy_out(arg, &info, least);
		return result < 0 ? result : -ENOSPC;
	}
	entry.group_id = vfio->iommufd ? vfio->devid : vfio->index;
	entry.segment = HANDOVER_PCI_DOMAIN;
	entry.bus = (uint8_t)(HANDOVER_PCI_FIRST_BUS + vfio->index);
	result = pl_copy_out((char *)arg + least, &entry, sizeof(entry));
	return result < 0 ? result : pl_copy_out(arg, &info, least);
}

static int reset_locked(struct pl_dev *dev)
{
	int result;

	pthread_mutex_lock(&dev->state_lock);
	result = pl_region_reset(dev);
	pthread_mutex_unlock(&dev->state_lock);
	return result;
}

static int hot_reset(struct pl_vfio *vfio, struct pl_dev *dev, void *arg)
{
	const size_t least = offsetof(struct vfio_pci_hot_reset, group_fds);
	struct vfio_pci_hot_reset reset;
	struct pl_file *group;
	int32_t fd;
	int result = pl_copy_argsz(&reset, least, arg);

	if (result < 0)
		return result;
	if (reset.flags || (vfio->iommufd ? reset.count != 0 : reset.count != 1))
		return -EINVAL;
	if (!vfio->iommufd) {
		result = pl_copy_in(&fd, (char *)arg + least, sizeof(fd));
		if (result < 0)
			return result;
		group = pl_file_get(fd);
		if (!group)
			return -EBADF;
		result = group == vfio->group ? 0 : -EINVAL;
		pl_file_put(group);
	}
	return result < 0 ? result : reset_locked(dev);
}

static int reset(struct pl_dev *dev)
{
	return dev->info.flags & VFIO_DEVICE_FLAGS_RESET ? reset_locked(dev) : -EINVAL;
}

static int vfio_ioctl(struct pl_file *file, unsigned long command, void *arg)
{
	struct pl_vfio *vfio = vfio_of(file);
	struct pl_dev *dev = atomic_load_explicit(&vfio->dev, memory_order_acquire);

	if (command == ABI_BIND_IOMMUFD)
		return bind_iommufd(vfio, arg);
	if (!dev)
		return -EINVAL;
	if (vfio->iommufd && command == ABI_ATTACH_IOMMUFD_PT)
		return attach(vfio, arg);
	if (vfio->iommufd && command == ABI_DETACH_IOMMUFD_PT)
		return detach(vfio, arg);
	switch (command) {
	case VFIO_DEVICE_GET_INFO:
		return get_info(dev, arg);
	case VFIO_DEVICE_GET_REGION_INFO:
		return pl_region_get_info(dev, arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return pl_irq_get_info(dev, arg);
	case VFIO_DEVICE_SET_IRQS:
		return pl_irq_set(dev, arg);
	case VFIO_DEVICE_RESET:
		return reset(dev);
	case VFIO_DEVICE_GET_PCI_HOT_RESET_INFO:
		return hot_reset_info(vfio, arg);
	case VFIO_DEVICE_PCI_HOT_RESET:
		return hot_reset(vfio, dev, arg);
	case VFIO_DEVICE_IOEVENTFD:
		return pl_ioeventfd(dev, arg);
	case VFIO_DEVICE_FEATURE:
		return pl_feature(dev, arg);
	default:
		return -ENOTTY;
	}
}

static ssize_t vfio_pread(struct pl_file *file, void *buf, size_t size, uint64_t offset)
{
	struct pl_dev *dev = atomic_load_explicit(&vfio_of(file)->dev, memory_order_acquire);

	return dev ? pl_region_read(dev, buf, size, offset) : -EINVAL;
}

static ssize_t vfio_pwrite(struct pl_file *file, const void *buf, size_t size, uint64_t offset)
{
	struct pl_dev *dev = atomic_load_explicit(&vfio_of(file)->dev, memory_order_acquire);

	return dev ? pl_region_write(dev, buf, size, offset) : -EINVAL;
}

static ssize_t vfio_read(struct pl_file *file, void *buf, size_t size)
{
	struct pl_vfio *vfio = vfio_of(file);
	ssize_t n;

	pthread_mutex_lock(&vfio->lock);
	n = vfio_pread(file, buf, size, vfio->position);
	if (n > 0)
		vfio->position += (uint64_t)n;
	pthread_mutex_unlock(&vfio->lock);
	return n;
}

static ssize_t vfio_write(struct pl_file *file, const void *buf, size_t size)
{
	struct pl_vfio *vfio = vfio_of(file);
	ssize_t n;

	pthread_mutex_lock(&vfio->lock);
	n = vfio_pwrite(file, buf, size, vfio->position);
	if (n > 0)
		vfio->position += (uint64_t)n;
	pthread_mutex_unlock(&vfio->lock);
	return n;
}

static int vfio_mmap(struct pl_file *file, void **addr, size_t size, int prot, int flags,
		     uint64_t offset)
{
	struct pl_dev *dev = atomic_load_explicit(&vfio_of(file)->dev, memory_order_acquire);
	uint32_t index = pl_region_index(offset);

	if (!dev || index >= VFIO_PCI_ROM_REGION_INDEX ||
	    !(dev->regions[index].flags & VFIO_REGION_INFO_FLAG_MMAP))
		return -EINVAL;
	if ((flags & MAP_TYPE) != MAP_SHARED && (flags & MAP_TYPE) != MAP_SHARED_VALIDATE)
		return -EINVAL;
	if ((flags & MAP_TYPE) == MAP_SHARED_VALIDATE && (flags & MAP_SYNC))
		return -EOPNOTSUPP;
	/* Nobody runs code from a device. */
	return pl_bar_map(file, dev, index, pl_region_offset(offset), pl_pages(size),
			  prot & (PROT_READ | PROT_WRITE), flags, addr);
}

static void vfio_release(struct pl_file *file)
{
	struct pl_vfio *vfio = vfio_of(file);
	struct pl_dev *dev = atomic_load(&vfio->dev);

	if (vfio->iommufd)
		pl_iommufd_unbind(vfio->iommufd, vfio->devid);
	if (vfio->group) {
		pl_group_device_closed(vfio->group);
		pl_file_put(vfio->group);
	} else if (dev) {
		pl_dev_close(dev);
	}
	pthread_mutex_destroy(&vfio->lock);
	free(vfio);
}

static const struct pl_file_ops vfio_ops = {
	.name = "vfio",
	.ioctl = vfio_ioctl,
	.read = vfio_read,
	.write = vfio_write,
	.pread = vfio_pread,
	.pwrite = vfio_pwrite,
	.mmap = vfio_mmap,
	.release = vfio_release,
};

struct pl_file *pl_cdev_new(uint32_t index)
{
	struct pl_vfio *vfio = calloc(1, sizeof(*vfio));

	if (!vfio)
		return NULL;
	vfio->file.ops = &vfio_ops;
	vfio->index = index;
	pthread_mutex_init(&vfio->lock, NULL);
	return &vfio->file;
}

struct pl_file *pl_group_device_new(struct pl_file *group, struct pl_dev *dev)
{
	struct pl_file *file = pl_cdev_new(dev->index);

	if (!file)
		return NULL;
	pl_file_hold(group);
	vfio_of(file)->group = group;
	atomic_store(&vfio_of(file)->dev, dev);
	return file;
}
