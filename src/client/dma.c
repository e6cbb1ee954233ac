/* SPDX-License-Identifier: MIT */
/*
 * DMA mappings, and answering the server's accesses to them: from the user's memory, from the file,
 * or by asking the user. The table's lock is held for reading while memory is accessed, so that a
 * mapping that has been removed is not in use.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "client/internal.h"

static void *serve(void *arg)
{
	struct qsc_client *client = arg;

	qsc_rpc_serve(client->twin ? client->twin : client->rpc, !client->twin);
	return NULL;
}

/* Nothing can be asked of a client without mappings, so it begins with the first. */
static int start_service(struct qsc_client *client)
{
	int result = 0;

	pthread_mutex_lock(&client->service_lock);
	if (!client->serving) {
		result = -pthread_create(&client->service, NULL, serve, client);
		client->serving = !result;
	}
	pthread_mutex_unlock(&client->service_lock);
	return result;
}

/* A copy that outlives the call: the descriptor is ours. */
static int add_entry(struct qsc_client *client, const struct qsc_dma_mapping *mapping)
{
	struct qsc_dma_mapping entry = *mapping;
	int result;

	if (mapping->fd >= 0) {
		entry.fd = qsc_fd_dup(mapping->fd);
		if (entry.fd < 0)
			return entry.fd;
	}
	pthread_rwlock_wrlock(&client->table_lock);
	result = client->table.count < client->caps.max_dma_maps
			 ? qsc_dma_table_add(&client->table, &entry)
			 : -ENOSPC;
	pthread_rwlock_unlock(&client->table_lock);
	if (result < 0)
		qsc_fd_close(&entry.fd);
	return result;
}

static void remove_entry(struct qsc_client *client, uint64_t iova, uint64_t size)
{
	struct qsc_dma_mapping *entry;
	int fd = -1;

	pthread_rwlock_wrlock(&client->table_lock);
	entry = qsc_dma_table_find(&client->table, iova, size);
	if (entry) {
		fd = entry->fd;
		qsc_dma_table_remove(&client->table, entry);
	}
	pthread_rwlock_unlock(&client->table_lock);
	qsc_fd_close(&fd);
}

void qsc_client_release_table(struct qsc_client *client)
{
	size_t i;

	for (i = 0; i < client->table.count; i++)
		qsc_fd_close(&client->table.entries[i].fd);
	qsc_dma_table_release(&client->table);
}

int qsc_client_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct qsc_client *client = qsc_client_of(dev);
	bool pass = mapping->fd >= 0 && !client->options.no_fds && client->caps.max_msg_fds;
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_dma_map map;
	} request = {.map = {
			     .argsz = sizeof(request.map),
			     .flags = mapping->flags & (QSC_DMA_READ | QSC_DMA_WRITE),
			     .offset = pass ? mapping->fd_offset : 0,
			     .address = mapping->iova,
			     .size = mapping->size,
		     }};
	struct qsc_call call = {.command = QSC_WIRE_DMA_MAP};
	struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};
	int result;

	_Static_assert(QSC_DMA_READ == QSC_WIRE_DMA_FLAG_READ &&
			       QSC_DMA_WRITE == QSC_WIRE_DMA_FLAG_WRITE &&
			       QSC_DMA_PEER == QSC_WIRE_DMA_FLAG_PEER,
		       "flags go over the wire as they are");
	if (client->caps.quiesce)
		request.map.flags = mapping->flags;
	result = start_service(client);
	/* First here: the server may access it before its reply has come. */
	if (!result)
		result = add_entry(client, mapping);
	if (result < 0)
		return result;
	result = qsc_rpc_call(client->rpc, &call, &iov, 1, &mapping->fd, pass);
	if (!result)
		result = call.result;
	if (result < 0)
		remove_entry(client, mapping->iova, mapping->size);
	return result;
}

int qsc_client_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_dma_unmap unmap;
	} request = {.unmap = {.argsz = sizeof(request.unmap), .address = iova, .size = size}};
	struct qsc_wire_dma_unmap reply;
	bool exists;
	int result;

	pthread_rwlock_rdlock(&client->table_lock);
	exists = qsc_dma_table_find(&client->table, iova, size);
	pthread_rwlock_unlock(&client->table_lock);
	if (!exists)
		return -ENOENT;
	result = qsc_client_request(client, QSC_WIRE_DMA_UNMAP, &request, sizeof(request), &reply,
				    sizeof(reply));
	/* A server that is gone accesses nothing any more. */
	if (!result || qsc_rpc_broken(client->rpc))
		remove_entry(client, iova, size);
	return result;
}

/* All of a range of a file, or an error. */
static int file_io(const struct qsc_dma_mapping *entry, uint64_t offset, void *buf, size_t size,
		   bool write)
{
	off_t at = (off_t)(entry->fd_offset + offset);

	while (size) {
		ssize_t n = write ? pwrite(entry->fd, buf, size, at)
				  : pread(entry->fd, buf, size, at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -EFAULT;
		buf = (char *)buf + n;
		size -= (size_t)n;
		at += n;
	}
	return 0;
}

/* Table lock held. Part of one mapping. */
static int entry_io(const struct qsc_dma_mapping *entry, uint64_t iova, void *buf, size_t size,
		    bool write)
{
	uint64_t offset = iova - entry->iova;
	void *memory = entry->vaddr ? (char *)entry->vaddr + offset : NULL;

	if (!(entry->flags & (write ? QSC_DMA_WRITE : QSC_DMA_READ)))
		return -EFAULT;
	if (memory) {
		memcpy(write ? memory : buf, write ? buf : memory, size);
		return 0;
	}
	if (entry->fd >= 0)
		return file_io(entry, offset, buf, size, write);
	return write ? entry->access->write(entry->access->ctx, iova, buf, size)
		     : entry->access->read(entry->access->ctx, iova, buf, size);
}

/* A range may span mappings. A write that fails has changed nothing: all of it is checked first. */
static int range_io(struct qsc_client *client, uint64_t iova, void *buf, size_t size, bool write)
{
	uint32_t flag = write ? QSC_DMA_WRITE : QSC_DMA_READ;
	const struct qsc_dma_mapping *entry;
	uint64_t at;
	size_t left;
	size_t part;
	int result = 0;

	for (at = iova, left = size; left; at += part, left -= part) {
		entry = qsc_dma_table_at(&client->table, at);
		if (!entry || !(entry->flags & flag))
			return -EFAULT;
		part = qsc_min_u64(left, entry->size - (at - entry->iova));
	}
	for (; size && !result; iova += part, size -= part, buf = (char *)buf + part) {
		entry = qsc_dma_table_at(&client->table, iova);
		part = qsc_min_u64(size, entry->size - (iova - entry->iova));
		result = entry_io(entry, iova, buf, part, write);
	}
	return result;
}

/* Memory that can be sent from where it is. */
static void *lies_at(struct qsc_client *client, uint64_t iova, uint64_t size)
{
	const struct qsc_dma_mapping *entry = qsc_dma_table_at(&client->table, iova);

	if (!entry || !entry->vaddr || !(entry->flags & QSC_DMA_READ) ||
	    size > entry->size - (iova - entry->iova))
		return NULL;
	return (char *)entry->vaddr + (iova - entry->iova);
}

static int answer_read(struct qsc_client *client, struct qsc_rpc *rpc,
		       const struct qsc_message *message)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_dma_access access;
	} reply;
	struct iovec iov[2] = {{.iov_base = &reply, .iov_len = sizeof(reply)}};
	int result = qsc_wire_decode_dma_read(message->body, message->size, QSC_CLIENT_DMA_MAX,
					      &reply.access);

	if (result < 0 || (message->header.flags & QSC_WIRE_NO_REPLY))
		return qsc_rpc_reply_error(rpc, &message->header, -EINVAL);
	pthread_rwlock_rdlock(&client->table_lock);
	iov[1].iov_len = reply.access.count;
	iov[1].iov_base = lies_at(client, reply.access.address, reply.access.count);
	if (!iov[1].iov_base) {
		iov[1].iov_base = client->bounce;
		result = range_io(client, reply.access.address, client->bounce, reply.access.count,
				  false);
	}
	if (result < 0) {
		pthread_rwlock_unlock(&client->table_lock);
		return qsc_rpc_reply_error(rpc, &message->header, result);
	}
	reply.header = (struct qsc_wire_header){
		.id = message->header.id,
		.command = message->header.command,
		.size = (uint32_t)(sizeof(reply) + reply.access.count),
		.flags = QSC_WIRE_TYPE_REPLY,
	};
	result = qsc_rpc_send(rpc, iov, 2, NULL, 0);
	pthread_rwlock_unlock(&client->table_lock);
	return result;
}

static int answer_write(struct qsc_client *client, struct qsc_rpc *rpc,
			const struct qsc_message *message)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_dma_access access;
	} reply;
	int result = qsc_wire_decode_dma_write(message->body, message->size, QSC_CLIENT_DMA_MAX,
					       &reply.access);

	if (!result) {
		pthread_rwlock_rdlock(&client->table_lock);
		/* Only read from; one function moves the bytes both ways. */
		result = range_io(client, reply.access.address,
				  (void *)(uintptr_t)(message->body + sizeof(reply.access)),
				  reply.access.count, true);
		pthread_rwlock_unlock(&client->table_lock);
	}
	if (result < 0)
		return qsc_rpc_reply_error(rpc, &message->header, result);
	return qsc_rpc_reply(rpc, &message->header, &reply, sizeof(reply), NULL, 0);
}

int qsc_client_on_command(void *ctx, struct qsc_rpc *rpc, const struct qsc_message *message)
{
	struct qsc_client *client = ctx;

	/* With a twin socket there is nothing that a server may ask on the main one. */
	if (client->twin && rpc == client->rpc) {
		qsc_log(QSC_LOG_WARNING, "vfio-user: the server sent %s on the wrong socket",
			qsc_wire_command_name(message->header.command));
		return -EPROTO;
	}
	if (message->header.command == QSC_WIRE_DMA_READ)
		return answer_read(client, rpc, message);
	if (message->header.command == QSC_WIRE_DMA_WRITE)
		return answer_write(client, rpc, message);
	return qsc_rpc_reply_error(rpc, &message->header, -ENOSYS);
}
