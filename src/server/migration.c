/* SPDX-License-Identifier: MIT */
/* DEVICE_FEATURE with everything that migration needs, and the data of the state stream. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "server/connection.h"

/* One feature: data follow struct qsc_wire_feature in the request and in the reply. */
struct feature_data {
	const uint8_t *in;
	size_t size;
	uint8_t *out;
	size_t max;
};

/* Bytes of data to answer with, or -errno. */
typedef ssize_t feature_fn(struct qsc_connection *connection, const struct feature_data *data);

static ssize_t answer(const struct feature_data *data, const void *value, size_t size)
{
	if (size > data->max)
		return -EINVAL;
	memcpy(data->out, value, size);
	return (ssize_t)size;
}

static ssize_t get_migration(struct qsc_connection *connection, const struct feature_data *data)
{
	struct qsc_migration_info info;
	uint64_t flags;
	int result = qsc_device_get_migration(connection->dev, &info);

	flags = info.flags;
	return result < 0 ? result : answer(data, &flags, sizeof(flags));
}

static ssize_t get_state(struct qsc_connection *connection, const struct feature_data *data)
{
	struct qsc_wire_mig_state wire = {.data_fd = UINT32_MAX};
	enum qsc_state state;
	int result = qsc_device_get_state(connection->dev, &state);

	if (result < 0)
		return result;
	wire.state = state;
	return answer(data, &wire, sizeof(wire));
}

static ssize_t set_state(struct qsc_connection *connection, const struct feature_data *data)
{
	struct qsc_wire_mig_state wire;
	uint64_t session;
	int result;

	if (data->size != sizeof(wire))
		return -EINVAL;
	memcpy(&wire, data->in, sizeof(wire));
	result = qsc_device_set_state(connection->dev, wire.state, &session);
	if (result < 0)
		return result;
	if (session)
		connection->session = session;
	return answer(data, &wire, sizeof(wire));
}

/* The specification's "no ranges: log every write", for a device that wants to be told ranges. */
static int log_everything(struct qsc_connection *connection, uint64_t *page_size)
{
	const struct qsc_dma_table *table = &connection->table;
	qsc_autofree struct qsc_dma_range *ranges = calloc(table->count + 1, sizeof(*ranges));
	size_t i;
	int result;

	if (!ranges)
		return -ENOMEM;
	for (i = 0; i < table->count; i++)
		ranges[i] = (struct qsc_dma_range){table->entries[i].iova, table->entries[i].size};
	result = qsc_device_log_start(connection->dev, page_size, ranges, table->count);
	if (!result)
		qsc_server_set_log_all(connection, true);
	return result;
}

static ssize_t log_start(struct qsc_connection *connection, const struct feature_data *data)
{
	qsc_autofree struct qsc_dma_range *ranges = NULL;
	struct qsc_wire_log_start start;
	uint32_t i;
	int result = qsc_wire_decode_log_start(data->in, data->size, &start);

	if (result < 0)
		return result;
	if (data->size > data->max)
		return -EINVAL;
	if (!start.num_ranges) {
		result = log_everything(connection, &start.page_size);
	} else {
		ranges = calloc(start.num_ranges, sizeof(*ranges));
		if (!ranges)
			return -ENOMEM;
		for (i = 0; i < start.num_ranges; i++)
			ranges[i] = qsc_wire_log_range_at(data->in, i);
		result = qsc_device_log_start(connection->dev, &start.page_size, ranges,
					      start.num_ranges);
	}
	if (result < 0)
		return result;
	memcpy(data->out, data->in, data->size);
	memcpy(data->out, &start, sizeof(start));
	return (ssize_t)data->size;
}

static ssize_t log_stop(struct qsc_connection *connection, const struct feature_data *data)
{
	int result = data->size ? -EINVAL : qsc_device_log_stop(connection->dev);

	if (!result)
		qsc_server_set_log_all(connection, false);
	return result;
}

static ssize_t log_report(struct qsc_connection *connection, const struct feature_data *data)
{
	struct qsc_wire_log_report report;
	size_t size;
	void *bitmap = data->out + sizeof(report);
	int result = qsc_wire_decode_log_report(data->in, data->size, QSC_SERVER_BITMAP_MAX,
						&report, &size);

	if (result < 0)
		return result;
	if (sizeof(report) + size > data->max)
		return -EINVAL;
	memset(bitmap, 0, size);
	result = qsc_device_log_report(connection->dev, report.iova, report.length,
				       report.page_size, bitmap);
	if (result < 0)
		return result;
	qsc_server_report_unlogged(connection, report.iova, report.length, report.page_size,
				   bitmap);
	memcpy(data->out, &report, sizeof(report));
	return (ssize_t)(sizeof(report) + size);
}

static ssize_t get_data_size(struct qsc_connection *connection, const struct feature_data *data)
{
	uint64_t size;
	int result = qsc_device_data_size(connection->dev, &size);

	return result < 0 ? result : answer(data, &size, sizeof(size));
}

static ssize_t get_precopy_info(struct qsc_connection *connection, const struct feature_data *data)
{
	struct qsc_wire_precopy_info wire;
	struct qsc_precopy_info info;
	int result = qsc_device_session_precopy_info(connection->dev, connection->session, &info);

	if (result < 0)
		return result;
	wire.initial_bytes = info.initial_bytes;
	wire.dirty_bytes = info.dirty_bytes;
	return answer(data, &wire, sizeof(wire));
}

enum needs { NEEDS_MIGRATION, NEEDS_LOG, NEEDS_PRECOPY };

static const struct feature {
	uint32_t index;
	enum needs needs;
	feature_fn *get;
	feature_fn *set;
} features[] = {
	{QSC_WIRE_FEATURE_MIGRATION, NEEDS_MIGRATION, get_migration, NULL},
	{QSC_WIRE_FEATURE_MIG_STATE, NEEDS_MIGRATION, get_state, set_state},
	{QSC_WIRE_FEATURE_LOG_START, NEEDS_LOG, NULL, log_start},
	{QSC_WIRE_FEATURE_LOG_STOP, NEEDS_LOG, NULL, log_stop},
	{QSC_WIRE_FEATURE_LOG_REPORT, NEEDS_LOG, log_report, NULL},
	{QSC_WIRE_FEATURE_MIG_DATA_SIZE, NEEDS_MIGRATION, get_data_size, NULL},
	{QSC_WIRE_FEATURE_PRECOPY_INFO, NEEDS_PRECOPY, get_precopy_info, NULL},
};

static const struct feature *find_feature(uint32_t index)
{
	size_t i;

	for (i = 0; i < QSC_ARRAY_SIZE(features); i++)
		if (features[i].index == index)
			return &features[i];
	return NULL;
}

/* Whether this device, over this connection, has it. */
static int check_needs(struct qsc_connection *connection, enum needs needs)
{
	struct qsc_migration_info info;
	int result = qsc_device_get_migration(connection->dev, &info);

	if (result < 0)
		return result;
	if (needs == NEEDS_LOG && !info.dirty_log)
		return -ENOTTY;
	if (needs == NEEDS_PRECOPY &&
	    (!connection->caps.quiesce || !(info.flags & QSC_MIGRATION_PRE_COPY)))
		return -ENOTTY;
	return 0;
}

ssize_t qsc_server_feature(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_feature wire;
	const struct feature *feature;
	struct feature_data data;
	ssize_t n = qsc_wire_decode_feature(request->body, request->size, &wire);

	if (n < 0)
		return n;
	feature = find_feature(wire.flags & QSC_WIRE_FEATURE_MASK);
	if (!feature)
		return -ENOTTY;
	n = check_needs(connection, feature->needs);
	if (n < 0)
		return n;
	if (((wire.flags & QSC_WIRE_FEATURE_GET) && !feature->get) ||
	    ((wire.flags & QSC_WIRE_FEATURE_SET) && !feature->set))
		return -EINVAL;
	if (wire.flags & QSC_WIRE_FEATURE_PROBE) {
		memcpy(request->out, request->body, request->size);
		return (ssize_t)request->size;
	}
	data.in = request->body + sizeof(wire);
	data.size = request->size - sizeof(wire);
	data.out = request->out + sizeof(wire);
	/* A SET is answered with what it brought; argsz bounds only what is asked for. */
	data.max = request->out_max - sizeof(wire);
	if (wire.flags & QSC_WIRE_FEATURE_GET) {
		data.max = qsc_min_u64(data.max, wire.argsz - sizeof(wire));
		n = feature->get(connection, &data);
	} else {
		n = feature->set(connection, &data);
	}
	if (n < 0)
		return n;
	wire.argsz = (uint32_t)(sizeof(wire) + (size_t)n);
	memcpy(request->out, &wire, sizeof(wire));
	return (ssize_t)sizeof(wire) + n;
}

/* Two that follow one another become one, when both rest or both do not. */
static void add_part(struct qsc_request *request, struct iovec part, bool rests)
{
	size_t last = request->num_parts - 1;
	struct iovec *before = &request->parts[last];

	if (last && (request->resting >> last & 1) == rests &&
	    (char *)before->iov_base + before->iov_len == part.iov_base) {
		before->iov_len += part.iov_len;
		return;
	}
	request->resting |= (uint64_t)rests << request->num_parts;
	request->parts[request->num_parts++] = part;
}

/*
 * What was lent lies in the room that was given for it, or rests in the device until its state is
 * left. A client that has that done before it has taken what it asked for gets what it asked for.
 */
static bool lies_in(const void *at, const uint8_t *room, size_t size)
{
	return (uintptr_t)at - (uintptr_t)room < size;
}

/* More of the stream, in `room` where it cannot stay in the device. */
static ssize_t read_more(struct qsc_connection *connection, struct qsc_request *request,
			 uint8_t *room, size_t size)
{
	struct iovec *parts = request->parts + request->num_parts;
	size_t left = QSC_SERVER_PARTS_MAX - request->num_parts;
	size_t count = 1;
	size_t i;
	ssize_t n;

	/* The last one is for all that still comes, however small the pieces. */
	if (left > 1) {
		n = qsc_device_session_lend(connection->dev, connection->session, room, size, parts,
					    left - 1, &count);
		for (i = 0; i < count; i++)
			add_part(request, parts[i], !lies_in(parts[i].iov_base, room, size));
		return n;
	}
	n = qsc_device_session_read(connection->dev, connection->session, room, size);
	if (n > 0)
		add_part(request, (struct iovec){.iov_base = room, .iov_len = (size_t)n}, false);
	return n;
}

/*
 * A read that is shorter than asked for says "no more" on the wire, so this one goes on until the
 * stream ends or is drained, whatever pieces the device hands out.
 */
static ssize_t read_fully(struct qsc_connection *connection, struct qsc_request *request,
			  uint8_t *room, size_t size)
{
	size_t done = 0;

	while (done < size) {
		ssize_t n = read_more(connection, request, room + done, size - done);

		if (n < 0 && !done)
			return n;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t qsc_server_mig_data_read(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_mig_data wire;
	ssize_t n = qsc_wire_decode_mig_read(request->body, request->size,
					     connection->options->max_data_xfer_size, &wire);

	if (n < 0)
		return n;
	n = read_fully(connection, request, request->out + sizeof(wire), wire.size);
	/* SESS-3: only one who knows the difference is told that more may come. */
	if (n == -ENOMSG && !connection->caps.quiesce)
		n = 0;
	if (n < 0)
		return n;
	wire.size = (uint32_t)n;
	wire.argsz = (uint32_t)(sizeof(wire) + (size_t)n);
	memcpy(request->out, &wire, sizeof(wire));
	return sizeof(wire);
}

ssize_t qsc_server_mig_data_write(struct qsc_connection *connection, struct qsc_request *request)
{
	struct qsc_wire_mig_data wire;
	ssize_t n = qsc_wire_decode_mig_write(request->body, request->size,
					      connection->options->max_data_xfer_size, &wire);
	size_t done = 0;

	while (!n && done < wire.size) {
		ssize_t part = qsc_device_session_write(connection->dev, connection->session,
							request->body + sizeof(wire) + done,
							wire.size - done);

		if (part <= 0)
			n = part ? part : -EIO;
		else
			done += (size_t)part;
	}
	return n;
}
