/* SPDX-License-Identifier: MIT */
/* Commands that describe the device, access its regions, set up its interrupts and reset it. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "server/connection.h"

ssize_t qsc_server_get_info(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_info wire;
	struct qsc_device_info info;
	int result = qsc_wire_decode_info(request->body, request->size, &wire);

	if (!result)
		result = qsc_device_get_info(connection->dev, &info);
	if (result < 0)
		return result;
	wire = (struct qsc_wire_info){.argsz = sizeof(wire),
				      .flags = info.flags,
				      .num_regions = info.num_regions,
				      .num_irqs = info.num_irqs};
	memcpy(request->out, &wire, sizeof(wire));
	return (ssize_t)sizeof(wire);
}

ssize_t qsc_server_get_region_info(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_region_info query;
	struct qsc_region_info info = {.flags = 0};
	uint64_t fd_offset = 0;
	int fd = -1;
	int result = qsc_wire_decode_region_info(request->body, request->size, &query);

	if (!result)
		result = qsc_device_get_region_info(connection->dev, query.index, &info);
	if (result < 0)
		return result;
	if (info.flags & VFIO_REGION_INFO_FLAG_MMAP) {
		if (qsc_device_region_fd(connection->dev, query.index, &fd, &fd_offset) < 0) {
			/* Mappable where it is, but not from another process. */
			info.flags &= ~(uint32_t)VFIO_REGION_INFO_FLAG_MMAP;
			info.num_areas = 0;
		} else {
			request->out_fds[request->num_out_fds++] = fd;
		}
	}
	return (ssize_t)qsc_wire_encode_region_info(query.index, &info, fd_offset, query.argsz,
						    request->out);
}

/* Send a descriptor once, however many sub-regions share it. */
static uint32_t add_out_fd(struct qsc_request *request, int fd)
{
	request->out_fds[request->num_out_fds] = fd;
	return (uint32_t)request->num_out_fds++;
}

ssize_t qsc_server_get_region_io_fds(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_io_fd fds[QSC_SERVER_IO_FDS_MAX];
	size_t max = qsc_min_u64(QSC_SERVER_IO_FDS_MAX, connection->caps.max_msg_fds);
	struct qsc_wire_io_fds query;
	size_t needed;
	bool fits;
	int count;
	int i;
	int result = qsc_wire_decode_io_fds(request->body, request->size, &query);

	if (result < 0)
		return result;
	count = qsc_device_region_io_fds(connection->dev, query.index, fds, max);
	if (count < 0)
		return count;
	count = (int)qsc_min_u64((uint64_t)count, max);
	needed = sizeof(query) + (size_t)count * sizeof(struct qsc_wire_io_fd);
	fits = needed <= query.argsz;
	for (i = 0; i < count; i++) {
		struct qsc_wire_io_fd wire = {
			.offset = fds[i].offset,
			.size = fds[i].size,
			.fd_index = add_out_fd(request, fds[i].fd),
			.type = QSC_WIRE_IO_FD_EVENTFD,
			.flags = fds[i].match ? QSC_WIRE_IO_FD_DATAMATCH : 0,
			.datamatch = fds[i].value,
		};

		if (fits)
			memcpy(request->out + sizeof(query) + (size_t)i * sizeof(wire), &wire,
			       sizeof(wire));
	}
	/* Without room for the array there is nothing that the descriptors would belong to. */
	while (!fits && request->num_out_fds)
		qsc_fd_close(&request->out_fds[--request->num_out_fds]);
	query.argsz = (uint32_t)needed;
	query.count = (uint32_t)count;
	memcpy(request->out, &query, sizeof(query));
	return (ssize_t)(fits ? needed : sizeof(query));
}

ssize_t qsc_server_get_irq_info(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_irq_info wire;
	struct qsc_irq_info info = {.flags = 0};
	int result = qsc_wire_decode_irq_info(request->body, request->size, &wire);

	if (!result)
		result = qsc_device_get_irq_info(connection->dev, wire.index, &info);
	if (result < 0)
		return result;
	wire.argsz = sizeof(wire);
	wire.flags = info.flags;
	wire.count = info.count;
	memcpy(request->out, &wire, sizeof(wire));
	return (ssize_t)sizeof(wire);
}

/* DATA_EVENTFD without descriptors: take away what the vectors have. */
static int clear_eventfds(struct qsc_connection *connection, const struct qsc_wire_irq_set *wire)
{
	int none[QSC_SERVER_MSG_FDS];
	uint32_t done;

	memset(none, 0xff, sizeof(none));
	for (done = 0; done < wire->count;) {
		struct qsc_irq_set set = {
			.flags = wire->flags,
			.index = wire->index,
			.start = wire->start + done,
			.count = (uint32_t)qsc_min_u64(wire->count - done, QSC_SERVER_MSG_FDS),
			.fds = none,
		};
		int result = qsc_device_set_irqs(connection->dev, &set);

		if (result < 0)
			return result;
		done += set.count;
	}
	return 0;
}

ssize_t qsc_server_set_irqs(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_irq_set wire;
	struct qsc_irq_set set;
	struct qsc_irq_info info = {.flags = 0};
	size_t i;
	int result = qsc_wire_decode_irq_set(request->body, request->size, &wire, &set.bools);

	if (!result)
		result = qsc_device_get_irq_info(connection->dev, wire.index, &info);
	if (result < 0)
		return result;
	if (!qsc_range_within(wire.start, wire.count, info.count))
		return -EINVAL;
	set.flags = wire.flags;
	set.index = wire.index;
	set.start = wire.start;
	set.count = wire.count;
	set.fds = request->fds;
	if (!(wire.flags & VFIO_IRQ_SET_DATA_EVENTFD))
		return request->num_fds ? -EINVAL : qsc_device_set_irqs(connection->dev, &set);
	if (!request->num_fds)
		return clear_eventfds(connection, &wire);
	if (request->num_fds != wire.count)
		return -EINVAL;
	/* Writing to anything else could block, or end up where it does not belong. */
	for (i = 0; i < request->num_fds; i++)
		if (!qsc_fd_is_eventfd(request->fds[i]))
			return -EINVAL;
	return qsc_device_set_irqs(connection->dev, &set);
}

ssize_t qsc_server_region_read(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_region_access access;
	ssize_t n = qsc_wire_decode_region_read(request->body, request->size,
						connection->options->max_data_xfer_size, &access);

	if (n < 0)
		return n;
	n = qsc_device_region_read(connection->dev, access.region, access.offset,
				   request->out + sizeof(access), access.count);
	if (n < 0)
		return n;
	access.count = (uint32_t)n;
	memcpy(request->out, &access, sizeof(access));
	return (ssize_t)sizeof(access) + n;
}

ssize_t qsc_server_region_write(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_region_access access;
	ssize_t n = qsc_wire_decode_region_write(request->body, request->size,
						 connection->options->max_data_xfer_size, &access);

	if (n < 0)
		return n;
	n = qsc_device_region_write(connection->dev, access.region, access.offset,
				    request->body + sizeof(access), access.count);
	if (n < 0)
		return n;
	access.count = (uint32_t)n;
	memcpy(request->out, &access, sizeof(access));
	return (ssize_t)sizeof(access);
}

ssize_t qsc_server_region_write_multi(struct qsc_connection *connection,
				      struct qsc_request *request)
{
	struct qsc_region_write writes[32];
	uint64_t done = 0;
	size_t count;
	int result;

	if (!connection->caps.write_multiple)
		return -ENOTSUP;
	result = qsc_wire_decode_write_multi(request->body, request->size, &count);
	if (result < 0)
		return result;
	while (done < count) {
		size_t part = qsc_min_u64(count - done, QSC_ARRAY_SIZE(writes));
		size_t i;

		for (i = 0; i < part; i++)
			writes[i] = qsc_wire_write_at(request->body, (size_t)done + i);
		result = qsc_device_region_write_multi(connection->dev, writes, part);
		if (result < 0 && !done)
			return result;
		if (result > 0)
			done += (uint64_t)result;
		if (result != (int)part)
			break;
	}
	memcpy(request->out, &done, sizeof(done));
	return (ssize_t)sizeof(done);
}

ssize_t qsc_server_reset(struct qsc_connection *connection, struct qsc_request *request)
{
	int result;

	if (request->size)
		return -EINVAL;
	result = qsc_device_reset(connection->dev);
	if (!result)
		qsc_server_set_log_all(connection, false);
	return result;
}
