/* SPDX-License-Identifier: MIT */
/*
 * Every decoder of vfio-user messages, and the assembler of messages from a stream, on bytes that a
 * peer may have chosen. The first byte says which.
 */
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "wire/stream.h"
#include "wire/version.h"

#define MAX (1U << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void requests(uint8_t which, const uint8_t *body, size_t size)
{
	union {
		struct qsc_wire_dma_map map;
		struct qsc_wire_dma_unmap unmap;
		struct qsc_wire_info info;
		struct qsc_wire_region_info region;
		struct qsc_wire_io_fds io_fds;
		struct qsc_wire_irq_info irq_info;
		struct qsc_wire_irq_set irq_set;
		struct qsc_wire_region_access access;
		struct qsc_wire_feature feature;
		struct qsc_wire_log_start start;
		struct qsc_wire_log_report report;
		struct qsc_wire_mig_data data;
		struct qsc_wire_dma_access dma;
	} out;
	const uint8_t *bools;
	size_t count;
	size_t i;

	switch (which) {
	case QSC_WIRE_DMA_MAP:
		if (!qsc_wire_decode_dma_map(body, size, size & 1, &out.map) &&
		    !qsc_range_valid(out.map.address, out.map.size))
			abort();
		break;
	case QSC_WIRE_DMA_UNMAP:
		(void)qsc_wire_decode_dma_unmap(body, size, &out.unmap);
		break;
	case QSC_WIRE_GET_INFO:
		(void)qsc_wire_decode_info(body, size, &out.info);
		break;
	case QSC_WIRE_GET_REGION_INFO:
		(void)qsc_wire_decode_region_info(body, size, &out.region);
		break;
	case QSC_WIRE_GET_REGION_IO_FDS:
		(void)qsc_wire_decode_io_fds(body, size, &out.io_fds);
		break;
	case QSC_WIRE_GET_IRQ_INFO:
		(void)qsc_wire_decode_irq_info(body, size, &out.irq_info);
		break;
	case QSC_WIRE_SET_IRQS:
		if (!qsc_wire_decode_irq_set(body, size, &out.irq_set, &bools) && bools)
			for (i = 0; i < out.irq_set.count; i++)
				if (bools + i >= body + size)
					abort();
		break;
	case QSC_WIRE_REGION_READ:
		(void)qsc_wire_decode_region_read(body, size, MAX, &out.access);
		break;
	case QSC_WIRE_REGION_WRITE:
		if (!qsc_wire_decode_region_write(body, size, MAX, &out.access) &&
		    out.access.count + sizeof(out.access) != size)
			abort();
		break;
	case QSC_WIRE_REGION_WRITE_MULTI:
		if (!qsc_wire_decode_write_multi(body, size, &count))
			for (i = 0; i < count; i++)
				if (qsc_wire_write_at(body, i).count > 8)
					abort();
		break;
	case QSC_WIRE_FEATURE:
		(void)qsc_wire_decode_feature(body, size, &out.feature);
		break;
	case QSC_WIRE_MIG_DATA_READ:
		(void)qsc_wire_decode_mig_read(body, size, MAX, &out.data);
		break;
	case QSC_WIRE_MIG_DATA_WRITE:
		(void)qsc_wire_decode_mig_write(body, size, MAX, &out.data);
		break;
	case QSC_WIRE_DMA_READ:
		(void)qsc_wire_decode_dma_read(body, size, MAX, &out.dma);
		break;
	case QSC_WIRE_DMA_WRITE:
		(void)qsc_wire_decode_dma_write(body, size, MAX, &out.dma);
		break;
	case 20:
		if (!qsc_wire_decode_log_start(body, size, &out.start))
			for (i = 0; i < out.start.num_ranges; i++)
				(void)qsc_wire_log_range_at(body, (uint32_t)i);
		break;
	case 21:
		if (!qsc_wire_decode_log_report(body, size, MAX, &out.report, &count) &&
		    count > MAX)
			abort();
		break;
	default:
		break;
	}
}

/* Whatever a reply says, what comes out of it lies inside the region; and survives a round trip. */
static void region_info(const uint8_t *body, size_t size)
{
	uint8_t again[QSC_WIRE_REGION_INFO_MAX];
	struct qsc_region_info info;
	struct qsc_region_info back;
	uint64_t offset;
	uint32_t index = 0;
	uint32_t i;

	if (size >= sizeof(struct qsc_wire_region_info))
		memcpy(&index, body + 8, sizeof(index));
	if (qsc_wire_decode_region_info_reply(body, size, index, &info, &offset) < 0)
		return;
	for (i = 0; i < info.num_areas; i++)
		if (!qsc_range_within(info.areas[i].offset, info.areas[i].size, info.size))
			abort();
	size = qsc_wire_encode_region_info(index, &info, offset, UINT32_MAX, again);
	if (size > sizeof(again) ||
	    qsc_wire_decode_region_info_reply(again, size, index, &back, &offset) < 0 ||
	    back.num_areas != info.num_areas || back.size != info.size)
		abort();
}

static void version(const uint8_t *body, size_t size)
{
	uint8_t again[QSC_WIRE_VERSION_MAX];
	struct qsc_wire_version version;
	struct qsc_wire_caps caps;
	int n;

	if (qsc_wire_decode_version(body, size, &version, &caps) < 0)
		return;
	n = qsc_wire_encode_version(&version, &caps, again, sizeof(again));
	if (n < 0 || qsc_wire_decode_version(again, (size_t)n, &version, &caps) < 0)
		abort();
}

/* The first byte of each piece is its size; one in four brings a descriptor (a number, here). */
static void stream(const uint8_t *data, size_t size)
{
	enum { CAPACITY = 1024, MAX_MESSAGE = 300 };
	static uint8_t buffer[CAPACITY];
	struct qsc_wire_stream stream;
	struct qsc_message message;
	int passed = 0;
	int taken = 0;
	int fd;

	qsc_wire_stream_init(&stream, buffer, CAPACITY, MAX_MESSAGE);
	while (size > 1) {
		size_t piece = *data++;
		void *where;
		size_t space = qsc_wire_stream_space(&stream, false, &where);
		int result;

		size--;
		piece = qsc_min_u64(qsc_min_u64(piece, size), space);
		if (!piece)
			break;
		memcpy(where, data, piece);
		if (qsc_wire_stream_received(&stream, piece, &passed, !(piece & 3)) == 0)
			passed += !(piece & 3);
		data += piece;
		size -= piece;
		while ((result = qsc_wire_stream_scan(&stream, &message)) > 0) {
			if (message.body + message.size > buffer + CAPACITY)
				abort();
			if (message.header.id & 1) {
				while (qsc_wire_stream_take_fds(&stream, message.start, &fd, 1))
					taken++;
				qsc_wire_stream_drop(&stream, &message);
			}
		}
		if (result < 0)
			break;
		if (piece & 4 && qsc_wire_stream_first(&stream, &message)) {
			while (qsc_wire_stream_take_fds(&stream, message.start, &fd, 1))
				taken++;
			qsc_wire_stream_drop(&stream, &message);
		}
	}
	while (qsc_wire_stream_take_any_fd(&stream) >= 0)
		taken++;
	if (taken != passed)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A copy of its own, so that a read beyond the end is one. */
	qsc_autofree uint8_t *copy = NULL;
	uint8_t which;

	if (!size)
		return 0;
	which = *data & 31;
	copy = malloc(size);
	memcpy(copy, data + 1, --size);
	if (which < 24)
		requests(which, copy, size);
	else if (which < 26)
		region_info(copy, size);
	else if (which < 28)
		version(copy, size);
	else
		stream(copy, size);
	return 0;
}
