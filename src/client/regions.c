/* SPDX-License-Identifier: MIT */
/* Regions: descriptions, access over the socket, and mappings of the server's memory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "client/internal.h"

#define MAX_REGIONS 256U /* more than any device has; a bound on what a server can make us keep */
#define MAX_IO_FDS  253U
#define MAX_MULTI   256U /* writes in one message */
#define REGION_CAPS 1024U
#define SMALL_WRITE 32U /* a register: one piece of memory is sent faster than two */

int qsc_client_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_info info;
	} request = {.info = {.argsz = sizeof(request.info)}};
	struct qsc_wire_info reply;
	int result = qsc_client_request(qsc_client_of(dev), QSC_WIRE_GET_INFO, &request,
					sizeof(request), &reply, sizeof(reply));

	if (result < 0)
		return result;
	info->flags = reply.flags;
	info->num_regions = reply.num_regions;
	info->num_irqs = reply.num_irqs;
	info->layout = qsc_client_of(dev)->caps.layout;
	return 0;
}

/* *fd receives the file behind the region, or -1. */
static int query_region(struct qsc_client *client, uint32_t region, struct qsc_region_info *info,
			int *fd, uint64_t *fd_offset)
{
	uint8_t reply[sizeof(struct qsc_wire_region_info) + REGION_CAPS];
	qsc_autoclose int received = -1;
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_region_info info;
	} request = {.info = {.argsz = sizeof(reply), .index = region}};
	struct qsc_call call = {
		.command = QSC_WIRE_GET_REGION_INFO,
		.min_size = sizeof(request.info),
		.data = reply,
		.data_max = sizeof(reply),
		.fds = &received,
		.max_fds = 1,
	};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	int result = qsc_rpc_call(client->rpc, &call, &iov, 1, NULL, 0);

	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	if (qsc_wire_decode_region_info_reply(reply, call.body, region, info, fd_offset) < 0)
		return qsc_client_distrust(client, "DEVICE_GET_REGION_INFO");
	/* Mappable means: here is the file. */
	if (received < 0) {
		info->flags &= ~(uint32_t)VFIO_REGION_INFO_FLAG_MMAP;
		info->num_areas = 0;
	}
	if (fd)
		*fd = qsc_fd_steal(&received);
	return 0;
}

int qsc_client_get_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info)
{
	uint64_t fd_offset;

	return query_region(qsc_client_of(dev), region, info, NULL, &fd_offset);
}

int qsc_client_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	struct qsc_region_info info;
	int result = query_region(qsc_client_of(dev), region, &info, fd, fd_offset);

	if (!result && *fd < 0)
		return -ENOTTY;
	return result;
}

static ssize_t read_part(struct qsc_client *client, uint32_t region, uint64_t offset, void *buf,
			 uint32_t count)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_region_access access;
	} request = {.access = {.offset = offset, .region = region, .count = count}};
	struct qsc_wire_region_access reply;
	struct qsc_call call = {
		.command = QSC_WIRE_REGION_READ,
		.min_size = sizeof(reply),
		.fixed = &reply,
		.fixed_size = sizeof(reply),
		.data = buf,
		.data_max = count,
	};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	int result = qsc_rpc_call(client->rpc, &call, &iov, 1, NULL, 0);

	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	if (reply.region != region || reply.offset != offset ||
	    reply.count != call.body - sizeof(reply))
		return qsc_client_distrust(client, "REGION_READ");
	return (ssize_t)reply.count;
}

ssize_t qsc_client_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count)
{
	struct qsc_client *client = qsc_client_of(dev);
	size_t done = 0;

	while (done < count) {
		uint32_t part = (uint32_t)qsc_min_u64(count - done, client->xfer_size);
		ssize_t n = read_part(client, region, offset + done, (char *)buf + done, part);

		if (n < 0 && !done)
			return n;
		if (n > 0)
			done += (size_t)n;
		if (n < (ssize_t)part)
			break;
	}
	return (ssize_t)done;
}

static ssize_t write_part(struct qsc_client *client, uint32_t region, uint64_t offset,
			  const void *buf, uint32_t count)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_region_access access;
		uint8_t data[SMALL_WRITE];
	} request;
	struct qsc_wire_region_access reply;
	struct qsc_call call = {
		.command = QSC_WIRE_REGION_WRITE,
		.min_size = sizeof(reply),
		.fixed = &reply,
		.fixed_size = sizeof(reply),
	};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = offsetof(__typeof__(request), data)},
		{.iov_base = (void *)(uintptr_t)buf, .iov_len = count},
	};
	size_t iovcnt = 2;
	int result;

	request.access = (struct qsc_wire_region_access){offset, region, count};
	if (count <= sizeof(request.data)) {
		memcpy(request.data, buf, count);
		iov[0].iov_len += count;
		iovcnt = 1;
	}
	if (client->options.posted_writes) {
		result = qsc_rpc_post(client->rpc, QSC_WIRE_REGION_WRITE, iov, iovcnt);
		return result < 0 ? -ENOTCONN : (ssize_t)count;
	}
	result = qsc_rpc_call(client->rpc, &call, iov, iovcnt, NULL, 0);
	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	if (reply.region != region || reply.offset != offset || reply.count > count)
		return qsc_client_distrust(client, "REGION_WRITE");
	return (ssize_t)reply.count;
}

ssize_t qsc_client_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count)
{
	struct qsc_client *client = qsc_client_of(dev);
	size_t done = 0;

	while (done < count) {
		uint32_t part = (uint32_t)qsc_min_u64(count - done, client->xfer_size);
		ssize_t n = write_part(client, region, offset + done, (const char *)buf + done,
				       part);

		if (n < 0 && !done)
			return n;
		if (n > 0)
			done += (size_t)n;
		if (n < (ssize_t)part)
			break;
	}
	return (ssize_t)done;
}

static int multi_part(struct qsc_client *client, const struct qsc_region_write *writes,
		      size_t count)
{
	struct qsc_wire_write wire[MAX_MULTI];
	struct {
		struct qsc_wire_header header;
		uint64_t count;
	} request = {.count = count};
	uint64_t done = 0;
	struct qsc_call call = {
		.command = QSC_WIRE_REGION_WRITE_MULTI,
		.min_size = sizeof(done),
		.fixed = &done,
		.fixed_size = sizeof(done),
	};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = sizeof(request)},
		{.iov_base = wire, .iov_len = count * sizeof(wire[0])},
	};
	size_t i;
	int result;

	for (i = 0; i < count; i++) {
		wire[i].offset = writes[i].offset;
		wire[i].region = writes[i].region;
		wire[i].count = writes[i].count;
		memcpy(wire[i].data, writes[i].data, sizeof(wire[i].data));
	}
	if (client->options.posted_writes) {
		result = qsc_rpc_post(client->rpc, QSC_WIRE_REGION_WRITE_MULTI, iov, 2);
		return result < 0 ? -ENOTCONN : (int)count;
	}
	result = qsc_rpc_call(client->rpc, &call, iov, 2, NULL, 0);
	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	return done > count ? qsc_client_distrust(client, "REGION_WRITE_MULTI") : (int)done;
}

static int write_singly(struct qsc_client *client, const struct qsc_region_write *writes,
			size_t count)
{
	size_t done;

	for (done = 0; done < count; done++) {
		const struct qsc_region_write *write = &writes[done];
		ssize_t n = write_part(client, write->region, write->offset, write->data,
				       write->count);

		if (n < 0 && !done)
			return (int)n;
		if (n != (ssize_t)write->count)
			break;
	}
	return (int)done;
}

int qsc_client_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				  size_t count)
{
	struct qsc_client *client = qsc_client_of(dev);
	size_t done = 0;

	if (!client->caps.write_multiple)
		return write_singly(client, writes, count);
	while (done < count) {
		size_t part = qsc_min_u64(count - done, MAX_MULTI);
		int n = multi_part(client, writes + done, part);

		if (n < 0 && !done)
			return n;
		if (n > 0)
			done += (size_t)n;
		if (n < (int)part)
			break;
	}
	return (int)done;
}

/* Region lock held. The region's description and file, kept until close: mappings stand on it. */
static int learn_region(struct qsc_client *client, uint32_t region, struct qsc_client_region **out)
{
	struct qsc_client_region *entry;
	int result;

	if (region >= MAX_REGIONS)
		return -EINVAL;
	if (region >= client->num_regions) {
		entry = reallocarray(client->regions, region + 1, sizeof(*entry));
		if (!entry)
			return -ENOMEM;
		memset(entry + client->num_regions, 0,
		       (region + 1 - client->num_regions) * sizeof(*entry));
		client->regions = entry;
		client->num_regions = region + 1;
	}
	entry = &client->regions[region];
	if (!entry->known) {
		result = query_region(client, region, &entry->info, &entry->fd, &entry->fd_offset);
		if (result < 0)
			return result;
		entry->known = true;
	}
	*out = entry;
	return 0;
}

int qsc_client_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct qsc_mapping_source source = {.foreign = true};
	struct qsc_client_region *entry;
	int result;

	pthread_mutex_lock(&client->region_lock);
	result = learn_region(client, region, &entry);
	if (!result)
		result = qsc_mapping_check(&entry->info, offset, size, prot);
	if (!result && (entry->fd_offset % QSC_PAGE_SIZE ||
			!qsc_range_within(entry->fd_offset, entry->info.size, INT64_MAX)))
		result = qsc_client_distrust(client, "DEVICE_GET_REGION_INFO");
	if (!result) {
		source.denied = qsc_mapping_denied(&entry->info);
		source.fd = entry->fd;
		source.fd_offset = entry->fd_offset + offset;
	}
	pthread_mutex_unlock(&client->region_lock);
	return result < 0 ? result : qsc_mappings_add(&client->mappings, &source, size, prot, addr);
}

int qsc_client_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_mappings_remove(&qsc_client_of(dev)->mappings, addr, size);
}

int qsc_client_region_change(struct qsc_device *dev, void *addr, size_t size, int prot)
{
	return qsc_mappings_change(&qsc_client_of(dev)->mappings, addr, size, prot);
}

void qsc_client_release_regions(struct qsc_client *client)
{
	uint32_t i;

	qsc_mappings_release(&client->mappings);
	for (i = 0; i < client->num_regions; i++)
		if (client->regions[i].known)
			qsc_fd_close(&client->regions[i].fd);
	free(client->regions);
}

/* Each sub-region gets a descriptor of its own, though on the wire several may share one. */
static int unpack_io_fds(const uint8_t *body, size_t count, const int *received,
			 size_t num_received, uint64_t region_size, struct qsc_io_fd *fds,
			 size_t max)
{
	size_t i;
	int result = 0;

	for (i = 0; i < count && i < max && !result; i++) {
		struct qsc_wire_io_fd wire;

		memcpy(&wire, body + i * sizeof(wire), sizeof(wire));
		fds[i].fd = -1;
		if (wire.type != QSC_WIRE_IO_FD_EVENTFD || wire.fd_index >= num_received ||
		    !qsc_range_within(wire.offset, wire.size, region_size)) {
			result = -EPROTO;
			break;
		}
		fds[i].offset = wire.offset;
		fds[i].size = wire.size;
		fds[i].match = wire.flags & QSC_WIRE_IO_FD_DATAMATCH;
		fds[i].value = wire.datamatch;
		fds[i].fd = qsc_fd_dup(received[wire.fd_index]);
		if (fds[i].fd < 0)
			result = fds[i].fd;
	}
	while (result < 0 && i)
		qsc_fd_close(&fds[--i].fd);
	return result < 0 ? result : (int)count;
}

int qsc_client_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			     size_t max)
{
	struct qsc_client *client = qsc_client_of(dev);
	uint8_t reply[sizeof(struct qsc_wire_io_fds) + MAX_IO_FDS * sizeof(struct qsc_wire_io_fd)];
	int received[QSC_CLIENT_MSG_FDS];
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_io_fds query;
	} request = {.query = {.argsz = sizeof(reply), .index = region}};
	struct qsc_call call = {
		.command = QSC_WIRE_GET_REGION_IO_FDS,
		.min_size = sizeof(request.query),
		.data = reply,
		.data_max = sizeof(reply),
		.fds = received,
		.max_fds = QSC_CLIENT_MSG_FDS,
	};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	struct qsc_wire_io_fds head;
	struct qsc_region_info info;
	int result = qsc_client_get_region_info(dev, region, &info);

	if (!result)
		result = qsc_rpc_call(client->rpc, &call, &iov, 1, NULL, 0);
	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	memcpy(&head, reply, sizeof(head));
	if (head.index != region ||
	    call.body - sizeof(head) != (uint64_t)head.count * sizeof(struct qsc_wire_io_fd))
		result = -EPROTO;
	else
		result = unpack_io_fds(reply + sizeof(head), head.count, received, call.num_fds,
				       info.size, fds, max);
	while (call.num_fds)
		qsc_fd_close(&received[--call.num_fds]);
	return result == -EPROTO ? qsc_client_distrust(client, "DEVICE_GET_REGION_IO_FDS") : result;
}
