/* SPDX-License-Identifier: MIT */
/*
 * Accesses to the regions of a device, and handing their memory out. Every access to registers
 * passes the callback gate; where it is closed the device is stopped, and answers as DEV-7 says.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "runtime/core.h"

int qsc_runtime_op_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);

	memset(info, 0, sizeof(*info));
	if (region >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	info->size = rt->regions[region].size;
	info->flags = rt->regions[region].flags;
	if (!info->size)
		return 0;
	info->stopped_known = true;
	info->stopped = qsc_contract_verdict(rt->regions[region].kind == QSC_REGION_CONFIG
						     ? QSC_ACTION_CONFIG_READ
						     : QSC_ACTION_REGISTER_ACCESS,
					     QSC_STATE_STOP);
	return 0;
}

/* 0, or why there is no such access. */
static int check_access(const struct qsc_runtime *rt, uint32_t region, uint64_t offset,
			size_t count, uint32_t direction)
{
	if (region >= VFIO_PCI_NUM_REGIONS ||
	    !qsc_range_within(offset, count, rt->regions[region].size))
		return -EINVAL;
	return rt->regions[region].flags & direction ? 0 : -EPERM;
}

/* The longest naturally aligned access at `offset` that is at most `count` bytes. */
static size_t natural_piece(uint64_t offset, size_t count)
{
	size_t piece = 8;

	while (piece > count || offset % piece)
		piece /= 2;
	return piece;
}

/*
 * Block memory is looked at and written by others at the same time, as device memory is. An aligned
 * access of a register's size stays one access.
 */
static void read_block(void *buf, const uint8_t *memory, size_t count)
{
	uint32_t word;
	uint64_t value;

	if (count == 4 && !((uintptr_t)memory % 4)) {
		word = __atomic_load_n((const uint32_t *)(const void *)memory, __ATOMIC_RELAXED);
		memcpy(buf, &word, sizeof(word));
	} else if (count == 8 && !((uintptr_t)memory % 8)) {
		value = __atomic_load_n((const uint64_t *)(const void *)memory, __ATOMIC_RELAXED);
		memcpy(buf, &value, sizeof(value));
	} else {
		memcpy(buf, memory, count);
	}
}

static void write_block(uint8_t *memory, const void *buf, size_t count)
{
	uint32_t word;
	uint64_t value;

	if (count == 4 && !((uintptr_t)memory % 4)) {
		memcpy(&word, buf, sizeof(word));
		__atomic_store_n((uint32_t *)(void *)memory, word, __ATOMIC_RELAXED);
	} else if (count == 8 && !((uintptr_t)memory % 8)) {
		memcpy(&value, buf, sizeof(value));
		__atomic_store_n((uint64_t *)(void *)memory, value, __ATOMIC_RELAXED);
	} else {
		memcpy(memory, buf, count);
	}
}

static int model_read(struct qsc_runtime *rt, uint32_t region, uint64_t offset, uint8_t *buf,
		      size_t count)
{
	while (count) {
		size_t piece = natural_piece(offset, count);
		int result = rt->model->region_read(rt->ctx, region, offset, buf, piece);

		if (result < 0)
			return result;
		offset += piece;
		buf += piece;
		count -= piece;
	}
	return 0;
}

static int model_write(struct qsc_runtime *rt, uint32_t region, uint64_t offset, const uint8_t *buf,
		       size_t count)
{
	while (count) {
		size_t piece = natural_piece(offset, count);
		int result = rt->model->region_write(rt->ctx, region, offset, buf, piece);

		if (result < 0)
			return result;
		offset += piece;
		buf += piece;
		count -= piece;
	}
	return 0;
}

ssize_t qsc_runtime_op_region_read(struct qsc_device *dev, uint32_t index, uint64_t offset,
				   void *buf, size_t count)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	struct qsc_region *region;
	struct qsc_gate_pass pass = {NULL};
	int result = check_access(rt, index, offset, count, VFIO_REGION_INFO_FLAG_READ);

	if (result < 0)
		return result;
	region = &rt->regions[index];
	if (region->kind == QSC_REGION_CONFIG) {
		qsc_pci_config_read(&rt->pci, offset, buf, count);
		return (ssize_t)count;
	}
	if (qsc_gate_enter(&rt->workers.gate, &pass) == QSC_GATE_CLOSED) {
		memset(buf, 0xff, count);
		return (ssize_t)count;
	}
	switch (region->kind) {
	case QSC_REGION_BLOCK:
		read_block(buf, region->block->memory + offset, count);
		break;
	case QSC_REGION_MSIX:
		qsc_pci_msix_read(&rt->pci, &rt->irqs, offset, buf, count);
		break;
	default:
		result = model_read(rt, index, offset, buf, count);
		break;
	}
	qsc_gate_leave(&rt->workers.gate, &pass);
	return result < 0 ? result : (ssize_t)count;
}

static ssize_t write_config(struct qsc_runtime *rt, uint64_t offset, const void *buf, size_t count)
{
	enum qsc_verdict verdict = qsc_contract_verdict(QSC_ACTION_CONFIG_WRITE,
							qsc_runtime_present_state(rt));

	if (qsc_verdict_errno(verdict))
		return -qsc_verdict_errno(verdict);
	qsc_pci_config_write(&rt->pci, offset, buf, count);
	return (ssize_t)count;
}

ssize_t qsc_runtime_op_region_write(struct qsc_device *dev, uint32_t index, uint64_t offset,
				    const void *buf, size_t count)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	struct qsc_region *region;
	struct qsc_gate_pass pass = {NULL};
	int result = check_access(rt, index, offset, count, VFIO_REGION_INFO_FLAG_WRITE);

	if (result < 0)
		return result;
	region = &rt->regions[index];
	if (region->kind == QSC_REGION_CONFIG)
		return write_config(rt, offset, buf, count);
	if (qsc_gate_enter(&rt->workers.gate, &pass) == QSC_GATE_CLOSED)
		return (ssize_t)count;
	switch (region->kind) {
	case QSC_REGION_BLOCK:
		write_block(region->block->memory + offset, buf, count);
		qsc_block_mark(region->block, offset, count);
		break;
	case QSC_REGION_MSIX:
		qsc_pci_msix_write(&rt->pci, offset, buf, count);
		break;
	default:
		result = model_write(rt, index, offset, buf, count);
		break;
	}
	qsc_gate_leave(&rt->workers.gate, &pass);
	return result < 0 ? result : (ssize_t)count;
}

int qsc_runtime_op_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				      size_t count)
{
	size_t i;

	for (i = 0; i < count; i++) {
		ssize_t n = qsc_runtime_op_region_write(dev, writes[i].region, writes[i].offset,
							writes[i].data, writes[i].count);

		if (n < 0)
			return i ? (int)i : (int)n;
	}
	return (int)count;
}

int qsc_runtime_op_region_map(struct qsc_device *dev, uint32_t index, uint64_t offset, size_t size,
			      int prot, void **addr)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	struct qsc_mapping_source source = {.fd_offset = offset, .foreign = false};
	struct qsc_region_info info;
	int result = qsc_runtime_op_region_info(dev, index, &info);

	if (!result)
		result = qsc_mapping_check(&info, offset, size, prot);
	if (result < 0)
		return result;
	source.denied = qsc_mapping_denied(&info);
	source.fd = rt->regions[index].block->fd;
	qsc_runtime_begin(rt);
	result = qsc_block_give_out(rt->regions[index].block);
	if (!result)
		result = qsc_mappings_add(&rt->mappings, &source, size, prot, addr);
	qsc_runtime_end(rt);
	return result;
}

int qsc_runtime_op_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_mappings_remove(&qsc_runtime_of(dev)->mappings, addr, size);
}

int qsc_runtime_op_region_change(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	return qsc_mappings_change(&qsc_runtime_of(dev)->mappings, addr, size, prot);
}

/*
 * Opened once more: the mode is what the receiver may do with it, and what he does to its flags
 * (O_APPEND) does not touch ours.
 */
static int open_memory(int fd, bool writable)
{
	char path[32];
	int opened;

	(void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	opened = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
	if (opened >= 0)
		return opened;
	/* Without /proc. */
	return writable ? qsc_fd_dup(fd) : -errno;
}

int qsc_runtime_op_region_fd(struct qsc_device *dev, uint32_t index, int *fd, uint64_t *fd_offset)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	const struct qsc_region *region;
	int result;

	if (index >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	region = &rt->regions[index];
	if (!(region->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return -EINVAL;
	result = open_memory(region->block->fd, region->flags & VFIO_REGION_INFO_FLAG_WRITE);
	if (result < 0)
		return result;
	*fd = result;
	*fd_offset = 0;
	qsc_runtime_begin(rt);
	result = qsc_block_give_out(region->block);
	if (!result && !atomic_exchange(&region->block->by_fd, true) &&
	    !qsc_state_is_active(qsc_runtime_present_state(rt)))
		qsc_block_freeze(region->block, false);
	qsc_runtime_end(rt);
	if (result < 0)
		qsc_fd_close(fd);
	return result;
}

int qsc_runtime_op_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
				 size_t max)
{
	struct qsc_runtime *rt = qsc_runtime_of(dev);
	size_t count = 0;
	uint32_t i;

	if (region >= VFIO_PCI_NUM_REGIONS)
		return -EINVAL;
	for (i = 0; i < rt->workers.num_doorbells; i++) {
		const struct qsc_doorbell *doorbell = &rt->workers.doorbells[i];
		int fd = -1;

		if (doorbell->desc.region != region)
			continue;
		if (count < max) {
			atomic_store(&rt->workers.given_out, true);
			fd = qsc_fd_dup(doorbell->fd);
			if (fd < 0)
				goto fail;
			fds[count] = (struct qsc_io_fd){
				.offset = doorbell->desc.offset,
				.size = doorbell->desc.width,
				.fd = fd,
			};
		}
		count++;
		continue;
	fail:
		while (count-- > 0)
			qsc_fd_close(&fds[count].fd);
		return fd;
	}
	return (int)count;
}
