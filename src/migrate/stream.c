/* SPDX-License-Identifier: MIT */
/* See stream.h. */
#include "migrate/stream.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"
#include "set/set.h"

int qsc_migrate_stream_init(struct qsc_migrate_stream *stream, struct qsc_set *set, uint32_t member)
{
	stream->set = set;
	stream->member = member;
	stream->hash = XXH3_createState();
	return stream->hash ? 0 : -ENOMEM;
}

void qsc_migrate_stream_release(struct qsc_migrate_stream *stream)
{
	(void)XXH3_freeState(stream->hash);
	stream->hash = NULL;
}

static void account(struct qsc_migrate_stream *stream, const struct qsc_frame *frame)
{
	stream->digest = qsc_frame_chain(stream->digest, frame);
	stream->bytes += frame->size;
}

/* What went wrong with the member's session, and where the device is now (ORD-4). */
static int session_error(const struct qsc_migrate_stream *stream, const char *what, int result,
			 enum qsc_clause clause, struct qsc_error *err)
{
	struct qsc_device *dev = qsc_set_device(stream->set, stream->member);
	enum qsc_state state = QSC_STATE_ERROR;
	bool known = qsc_device_get_state(dev, &state) == 0;

	if (result == -ENOTCONN)
		return qsc_error_set(err, ENOTCONN, NULL,
				     "device '%s' is gone (its server or driver has ended) after "
				     "%llu bytes of its state",
				     qsc_set_name(stream->set, stream->member),
				     (unsigned long long)stream->bytes);
	return qsc_error_set(err, -result, qsc_clause_id(clause),
			     "device '%s' %s its state after %llu bytes (%s); it is in %s",
			     qsc_set_name(stream->set, stream->member), what,
			     (unsigned long long)stream->bytes, strerrordesc_np(-result),
			     known ? qsc_state_name(state) : "a state that cannot be read");
}

/* ---- source ---- */

int qsc_migrate_stream_remaining(const struct qsc_migrate_stream *stream, bool precopy,
				 uint64_t *initial, uint64_t *dirty, uint64_t *fixed)
{
	struct qsc_device *dev = qsc_set_device(stream->set, stream->member);
	struct qsc_precopy_info info;
	int result;

	*initial = 0;
	*dirty = 0;
	*fixed = 0;
	if (!precopy) {
		result = qsc_device_data_size(dev, fixed);
		return result == -ENOTTY ? 0 : result;
	}
	result = qsc_device_session_precopy_info(dev, qsc_set_session(stream->set, stream->member),
						 &info);
	if (result < 0)
		return result == -ENOTTY ? 0 : result;
	*initial = info.initial_bytes;
	*dirty = info.dirty_bytes;
	return 0;
}

static int send_end(struct qsc_migrate_stream *stream, struct qsc_link *link, uint32_t channel)
{
	struct qsc_frame frame = {
		.type = QSC_FRAME_DEVICE_END,
		.index = stream->member,
		.offset = stream->digest,
		.extent = stream->bytes,
	};

	stream->ended = true;
	return qsc_link_send(link, channel, &frame, NULL, 0);
}

static int send_data(struct qsc_migrate_stream *stream, struct qsc_link *link, uint32_t channel,
		     const struct iovec *pieces, size_t count, ssize_t n)
{
	struct qsc_frame frame = {
		.type = QSC_FRAME_DEVICE_DATA,
		.index = stream->member,
		.size = (uint32_t)n,
	};
	int result = qsc_link_send_pieces(link, channel, &frame, pieces, count, stream->hash);

	account(stream, &frame);
	stream->quota -= qsc_min_u64(stream->quota, (uint64_t)n);
	return result;
}

int qsc_migrate_stream_send(struct qsc_migrate_stream *stream, struct qsc_link *link,
			    uint32_t channel, uint8_t *buffer, bool last,
			    const struct qsc_moved *moved, struct qsc_error *err)
{
	struct qsc_device *dev = qsc_set_device(stream->set, stream->member);
	uint64_t session = qsc_set_session(stream->set, stream->member);
	int result = moved->fn(moved->ctx, 0);

	while (result == 0 && (last || stream->quota)) {
		uint64_t start = qsc_set_now(stream->set);
		struct iovec pieces[QSC_LINK_MAX_PIECES];
		size_t count = 0;
		ssize_t n = qsc_device_session_lend(dev, session, buffer, QSC_FRAME_MAX_DATA,
						    pieces, QSC_LINK_MAX_PIECES, &count);

		stream->read_us += qsc_set_now(stream->set) - start;
		/* SESS-3. Some drivers read 0 where PRE_COPY is drained; it means the same. */
		if (!last && (n == -ENOMSG || n == 0)) {
			stream->quota = 0;
			return 0;
		}
		if (n == 0)
			return send_end(stream, link, channel);
		if (n > QSC_FRAME_MAX_DATA || count > QSC_LINK_MAX_PIECES)
			n = -EPROTO;
		if (n < 0)
			return session_error(stream, "does not give", (int)n, QSC_CLAUSE_SESS_3,
					     err);
		result = send_data(stream, link, channel, pieces, count, n);
		if (result == 0)
			result = moved->fn(moved->ctx, (uint64_t)n);
	}
	return result;
}

/* ---- destination ---- */

bool qsc_migrate_stream_claim(struct qsc_migrate_stream *stream, uint32_t channel)
{
	uint32_t none = 0;

	return atomic_compare_exchange_strong(&stream->writer, &none, channel + 1) ||
	       none == channel + 1;
}

static int receive_end(struct qsc_migrate_stream *stream, const struct qsc_frame *frame,
		       struct qsc_error *err)
{
	if (frame->extent != stream->bytes || frame->offset != stream->digest)
		return qsc_error_set(err, EBADMSG, qsc_clause_id(QSC_CLAUSE_SESS_6),
				     "the stream of device '%s' did not arrive as it was sent "
				     "(%llu of %llu bytes)",
				     qsc_set_name(stream->set, stream->member),
				     (unsigned long long)stream->bytes,
				     (unsigned long long)frame->extent);
	stream->ended = true;
	return 0;
}

int qsc_migrate_stream_receive(struct qsc_migrate_stream *stream, struct qsc_link *link,
			       uint32_t channel, const struct qsc_frame *frame, uint8_t *buffer,
			       struct qsc_error *err)
{
	struct qsc_device *dev = qsc_set_device(stream->set, stream->member);
	uint64_t session = qsc_set_session(stream->set, stream->member);
	uint32_t done = 0;
	int result;

	if (stream->ended)
		return -EPROTO;
	if (frame->type == QSC_FRAME_DEVICE_END)
		return receive_end(stream, frame, err);
	result = qsc_link_recv_payload(link, channel, frame, buffer);
	if (result < 0)
		return result;
	while (done < frame->size) {
		ssize_t n = qsc_device_session_write(dev, session, buffer + done,
						     frame->size - done);

		if (n <= 0 || (uint32_t)n > frame->size - done)
			return session_error(stream, "refuses", n < 0 ? (int)n : -EIO,
					     QSC_CLAUSE_SESS_6, err);
		done += (uint32_t)n;
	}
	account(stream, frame);
	return 0;
}
