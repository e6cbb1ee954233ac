/* SPDX-License-Identifier: MIT */
/*
 * A client's DMA mappings, and reaching memory that it did not share by asking it. A client that
 * does not answer is given up at the reply deadline, and every later access fails at once, so that
 * no state change waits for it longer than that.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "server/connection.h"

/* In the flags of a mapping of ours: made after a log of everything was started. */
#define UNLOGGED 0x80000000U

/* Forget a mapping that the device does not have (any more). */
static void forget(struct qsc_connection *connection, struct qsc_dma_mapping *entry)
{
	if (entry->fd >= 0) {
		qsc_server_give_files(1);
		connection->num_files--;
	}
	qsc_dma_table_remove(&connection->table, entry);
}

/* First the table: it can be undone without the device having seen the mapping. */
static int add_mapping(struct qsc_connection *connection, const struct qsc_dma_mapping *mapping)
{
	int result = mapping->fd >= 0 ? qsc_server_take_file() : 0;

	if (result < 0)
		return result;
	result = qsc_dma_table_add(&connection->table, mapping);
	if (mapping->fd >= 0 && result < 0)
		qsc_server_give_files(1);
	else if (mapping->fd >= 0)
		connection->num_files++;
	return result;
}

ssize_t qsc_server_dma_map(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_dma_map map;
	struct qsc_dma_mapping mapping = {.fd = -1, .access = &connection->access};
	struct qsc_dma_mapping *entry;
	int result;

	result = qsc_wire_decode_dma_map(request->body, request->size, connection->caps.quiesce,
					 &map);
	if (result < 0)
		return result;
	if (request->num_fds) {
		result = qsc_server_check_file(connection, request->fds[0], map.offset, map.size);
		if (result < 0)
			return result;
		mapping.fd = request->fds[0];
		mapping.fd_offset = map.offset;
	}
	if (connection->table.count >= connection->options->max_dma_maps)
		return -ENOSPC;
	mapping.iova = map.address;
	mapping.size = map.size;
	mapping.flags = map.flags; /* the same bits, by definition */
	result = add_mapping(connection, &mapping);
	if (result < 0)
		return result;
	result = qsc_device_dma_map(connection->dev, &mapping);
	entry = qsc_dma_table_find(&connection->table, map.address, map.size);
	if (result < 0)
		forget(connection, entry);
	else if (connection->log_all)
		entry->flags |= UNLOGGED;
	return result;
}

static int unmap_all(struct qsc_connection *connection)
{
	while (connection->table.count) {
		struct qsc_dma_mapping *last =
			&connection->table.entries[connection->table.count - 1];
		int result = qsc_device_dma_unmap(connection->dev, last->iova, last->size);

		if (result < 0 && result != -ENOENT)
			return result;
		forget(connection, last);
	}
	return 0;
}

ssize_t qsc_server_dma_unmap(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_dma_unmap unmap;
	struct qsc_dma_mapping *entry;
	int result;

	result = qsc_wire_decode_dma_unmap(request->body, request->size, &unmap);
	if (result < 0)
		return result;
	if (unmap.flags & QSC_WIRE_UNMAP_ALL) {
		result = unmap_all(connection);
	} else {
		entry = qsc_dma_table_find(&connection->table, unmap.address, unmap.size);
		if (!entry)
			return -ENOENT;
		result = qsc_device_dma_unmap(connection->dev, unmap.address, unmap.size);
		if (!result)
			forget(connection, entry);
	}
	if (result < 0)
		return result;
	memcpy(request->out, &unmap, sizeof(unmap));
	return (ssize_t)sizeof(unmap);
}

/* One DMA_READ or DMA_WRITE and its reply. */
static int access_once(struct qsc_connection *connection, uint64_t iova, void *in, const void *out,
		       size_t size, uint64_t until_us)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_dma_access access;
	} request = {.access = {.address = iova, .count = size}};
	struct qsc_wire_dma_access reply = {.count = 0};
	struct qsc_call call = {
		.command = in ? QSC_WIRE_DMA_READ : QSC_WIRE_DMA_WRITE,
		.min_size = in ? sizeof(reply) : QSC_WIRE_DMA_WRITE_REPLY_MIN,
		.fixed = &reply,
		.fixed_size = sizeof(reply),
		.data = in,
		.data_max = in ? size : 0,
		.until_us = until_us,
	};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = sizeof(request)},
		{.iov_base = (void *)(uintptr_t)out, .iov_len = size},
	};
	struct qsc_rpc *twin = atomic_load_explicit(&connection->twin, memory_order_acquire);
	int result = qsc_rpc_call(twin ? twin : connection->rpc, &call, iov, out ? 2 : 1, NULL, 0);

	if (result < 0) {
		/* A client that does not answer for its memory is no client. */
		qsc_connection_shutdown(connection);
		return result;
	}
	if (call.result < 0)
		return call.result;
	if (reply.address != iova || reply.count != size ||
	    (in && call.body != sizeof(reply) + size))
		return -EIO;
	return 0;
}

/* In pieces that the client takes; the reply deadline is for all of them together. */
static int access_all(struct qsc_connection *connection, uint64_t iova, void *in, const void *out,
		      size_t size)
{
	uint64_t until_us = 0;
	size_t done = 0;
	int result = 0;

	if (size > connection->peer_xfer_size)
		until_us = qsc_rpc_now_us() +
			   (uint64_t)connection->options->reply_timeout_ms * 1000;
	while (done < size && !result) {
		size_t part = qsc_min_u64(size - done, connection->peer_xfer_size);

		result = access_once(connection, iova + done, in ? (char *)in + done : NULL,
				     out ? (const char *)out + done : NULL, part, until_us);
		done += part;
	}
	return result;
}

int qsc_server_access_read(void *ctx, uint64_t iova, void *buf, size_t size)
{
	return access_all(ctx, iova, buf, NULL, size);
}

int qsc_server_access_write(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	return access_all(ctx, iova, NULL, buf, size);
}

void qsc_server_set_log_all(struct qsc_connection *connection, bool log_all)
{
	size_t i;

	connection->log_all = log_all;
	for (i = 0; i < connection->table.count; i++)
		connection->table.entries[i].flags &= ~UNLOGGED;
}

/*
 * LOG-1: a log of everything covers mappings that the device was not told of when it started. They
 * are reported as written, always: more than needed, never less.
 */
void qsc_server_report_unlogged(struct qsc_connection *connection, uint64_t iova, uint64_t size,
				uint64_t page_size, uint64_t *bitmap)
{
	size_t i;

	for (i = 0; connection->log_all && i < connection->table.count; i++) {
		const struct qsc_dma_mapping *entry = &connection->table.entries[i];
		uint64_t bit;
		uint64_t last;

		if (!(entry->flags & UNLOGGED) || !(entry->flags & QSC_DMA_WRITE) ||
		    !qsc_ranges_overlap(entry->iova, entry->size, iova, size))
			continue;
		bit = (qsc_max_u64(entry->iova, iova) - iova) / page_size;
		last = (qsc_min_u64(entry->iova + (entry->size - 1), iova + (size - 1)) - iova) /
		       page_size;
		for (; bit <= last; bit++)
			qsc_bitmap_set(bitmap, bit);
	}
}
