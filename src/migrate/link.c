/* SPDX-License-Identifier: MIT */
/* See link.h. */
#include "migrate/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/pace.h"

/* A channel's first frame is due at once, also on a busy machine: whoever takes longer is no
 * source. */
#define HELLO_TIMEOUT_MS 500U
#define ACCEPT_POLL_MS	 200U
#define MAX_CLAIMS	 8U

_Static_assert(QSC_FRAME_SIZE == QSC_CHANNEL_FIRST_BYTES, "a transport waits for a HELLO");

int qsc_link_write(struct qsc_link *link, uint32_t channel, const struct iovec *iov, int iovcnt)
{
	struct qsc_channel *ch = link->channels[channel];

	return link->pace ? qsc_pace_send(link->pace, ch, iov, iovcnt)
			  : ch->ops->send(ch, iov, iovcnt);
}

int qsc_link_send(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame,
		  const void *payload, uint32_t size)
{
	uint8_t header[QSC_FRAME_SIZE];
	const struct iovec iov[2] = {{header, sizeof(header)}, {(void *)payload, size}};

	frame->size = size;
	frame->digest = qsc_frame_digest(frame, payload);
	qsc_frame_encode(frame, header);
	return qsc_link_write(link, channel, iov, size ? 2 : 1);
}

static int recv_header(struct qsc_channel *ch, struct qsc_frame *frame)
{
	uint8_t header[QSC_FRAME_SIZE];
	int result = ch->ops->recv(ch, header, sizeof(header));

	if (result < 0)
		return result;
	result = qsc_frame_decode(header, frame);
	if (result == 0 && !frame->size && frame->digest != qsc_frame_digest(frame, NULL))
		result = -EBADMSG;
	return result;
}

int qsc_link_recv(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame)
{
	return recv_header(link->channels[channel], frame);
}

int qsc_link_recv_payload(struct qsc_link *link, uint32_t channel, const struct qsc_frame *frame,
			  void *buf)
{
	struct qsc_channel *ch = link->channels[channel];
	int result = ch->ops->recv(ch, buf, frame->size);

	if (result < 0)
		return result;
	return qsc_frame_digest(frame, buf) == frame->digest ? 0 : -EBADMSG;
}

void qsc_link_shutdown(struct qsc_link *link, uint32_t channel)
{
	struct qsc_channel *ch = link->channels[channel];

	if (ch)
		ch->ops->shutdown(ch);
}

void qsc_link_close(struct qsc_link *link)
{
	uint32_t i;

	for (i = 0; i < QSC_LINK_MAX_CHANNELS; i++) {
		struct qsc_channel *ch = link->channels[i];

		if (ch)
			ch->ops->close(ch);
		link->channels[i] = NULL;
	}
}

/* ---- finding each other ---- */

int qsc_link_connect(struct qsc_link *link, struct qsc_transport *transport, uint32_t count,
		     uint32_t timeout_ms, struct qsc_error *err)
{
	uint32_t i;
	int result;

	if (getrandom(&link->id, sizeof(link->id), 0) != sizeof(link->id))
		return qsc_error_set(err, EIO, NULL, "no randomness for a migration identifier");
	for (i = 0; i < count; i++) {
		struct qsc_channel *ch;
		struct qsc_frame hello = {
			.type = QSC_FRAME_HELLO,
			.index = i,
			.arg = QSC_FRAME_VERSION,
			.offset = link->id,
			.extent = (uint64_t)QSC_FRAME_MAGIC << 32 | count,
		};

		result = transport->ops->open(transport, timeout_ms, &ch, err);
		if (result < 0)
			return result;
		link->channels[i] = ch;
		link->count = i + 1;
		ch->ops->set_limits(ch, timeout_ms, 0);
		result = qsc_link_send(link, i, &hello, NULL, 0);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "the destination closed connection %u of %u at once "
					     "(%s)",
					     i + 1, count, strerrordesc_np(-result));
	}
	return 0;
}

/* Who says it is a source, until all of its channels are there. */
struct claim {
	struct qsc_link link; /* count 0: nobody */
	uint32_t found;
	uint32_t turn; /* of its last channel */
};

/*
 * Claims stand side by side, so that a stranger that says HELLO and then nothing does not keep the
 * source away. When there are too many, the one that has been silent for longest gives way.
 */
struct claims {
	struct claim entries[MAX_CLAIMS];
	uint32_t turn;
};

/* A claim begins with channel 0: a source opens that first. NULL for no HELLO of any claim. */
static struct claim *find_claim(struct claims *claims, const struct qsc_frame *hello)
{
	struct claim *silent = &claims->entries[0];
	uint32_t channels = (uint32_t)hello->extent;
	uint32_t i;

	for (i = 0; i < MAX_CLAIMS; i++) {
		struct claim *claim = &claims->entries[i];

		if (claim->link.count && claim->link.id == hello->offset)
			return claim->link.count == channels ? claim : NULL;
		if (claim->turn < silent->turn)
			silent = claim;
	}
	if (hello->index != 0 || channels == 0 || channels > QSC_LINK_MAX_CHANNELS)
		return NULL;
	qsc_link_close(&silent->link);
	*silent = (struct claim){.link = {.count = channels, .id = hello->offset}};
	return silent;
}

/* The claim that this HELLO belongs to, which then has the channel; NULL when it is not due. */
static struct claim *take_hello(struct claims *claims, struct qsc_channel *ch,
				const struct qsc_frame *hello)
{
	struct claim *claim;

	if (hello->type != QSC_FRAME_HELLO || hello->extent >> 32 != QSC_FRAME_MAGIC)
		return NULL;
	claim = find_claim(claims, hello);
	if (!claim || hello->index >= claim->link.count || claim->link.channels[hello->index])
		return NULL;
	claim->link.channels[hello->index] = ch;
	claim->found++;
	claim->turn = ++claims->turn;
	return claim;
}

static struct claim *fullest(struct claims *claims)
{
	struct claim *best = &claims->entries[0];
	uint32_t i;

	for (i = 1; i < MAX_CLAIMS; i++)
		if (claims->entries[i].found > best->found)
			best = &claims->entries[i];
	return best;
}

static int refuse_version(struct qsc_link *link, const struct qsc_frame *hello,
			  struct qsc_error *err)
{
	int result = qsc_error_set(err, EPROTONOSUPPORT, NULL,
				   "the source speaks migration protocol %u.%u and this side %u.%u",
				   hello->arg >> 16, hello->arg & 0xffffU, QSC_FRAME_VERSION >> 16,
				   QSC_FRAME_VERSION & 0xffffU);

	if (err)
		qsc_link_send_failed(link, EPROTONOSUPPORT, err->text);
	return result;
}

/* Takes over the channel. *claim becomes the one that it belongs to. */
static int accept_one(struct claims *claims, struct qsc_channel *ch, uint32_t timeout_ms,
		      struct claim **claim, struct qsc_error *err)
{
	struct qsc_frame hello;

	ch->ops->set_limits(ch, HELLO_TIMEOUT_MS, 0);
	if (recv_header(ch, &hello) == 0)
		*claim = take_hello(claims, ch, &hello);
	if (!*claim) {
		qsc_log(QSC_LOG_WARNING, "dropped a connection that is no channel of a migration");
		ch->ops->close(ch);
		return 0;
	}
	ch->ops->set_limits(ch, timeout_ms, 0);
	if (hello.arg >> 16 != QSC_FRAME_VERSION >> 16)
		return refuse_version(&(*claim)->link, &hello, err);
	return 0;
}

/* One step of waiting; *claim stays NULL when nobody came. */
static int await_claim(struct claims *claims, struct qsc_transport *transport,
		       const struct qsc_link_wait *wait, struct claim **claim,
		       struct qsc_error *err)
{
	struct qsc_error nobody = QSC_ERROR_NONE;
	struct qsc_channel *ch;
	int result;

	if (wait->step(wait->ctx))
		return qsc_error_set(err, ECANCELED, NULL,
				     "cancelled while waiting for the source");
	result = transport->ops->open(transport, ACCEPT_POLL_MS, &ch, &nobody);
	if (result == 0)
		return accept_one(claims, ch, wait->timeout_ms, claim, err);
	if (result == -ETIMEDOUT)
		return 0;
	if (err)
		*err = nobody;
	return result;
}

int qsc_link_accept(struct qsc_link *link, struct qsc_transport *transport,
		    const struct qsc_link_wait *wait, struct qsc_error *err)
{
	uint64_t deadline = wait->env->now_us(wait->env->ctx) + wait->timeout_ms * 1000ULL;
	struct claims claims = {0};
	struct claim *claim;
	uint32_t i;
	int result;

	do {
		claim = NULL;
		if (wait->env->now_us(wait->env->ctx) < deadline)
			result = await_claim(&claims, transport, wait, &claim, err);
		else
			result = qsc_error_set(err, ETIMEDOUT, NULL,
					       "%u of %u connections of a source came within %u ms",
					       fullest(&claims)->found,
					       fullest(&claims)->link.count, wait->timeout_ms);
	} while (result == 0 && !(claim && claim->found == claim->link.count));
	/* When it failed, whoever came closest to being the source is told. */
	claim = claim ? claim : fullest(&claims);
	*link = claim->link;
	*claim = (struct claim){0};
	for (i = 0; i < MAX_CLAIMS; i++)
		qsc_link_close(&claims.entries[i].link);
	return result;
}

/* ---- control ---- */

void qsc_link_send_failed(struct qsc_link *link, int number, const char *text)
{
	struct qsc_frame frame = {.type = QSC_FRAME_FAILED, .arg = (uint32_t)number};
	size_t size = strlen(text);

	if (size > QSC_FRAME_MAX_TEXT)
		size = QSC_FRAME_MAX_TEXT;
	if (link->channels[0])
		(void)qsc_link_send(link, 0, &frame, text, (uint32_t)size);
}

int qsc_link_recv_text(struct qsc_link *link, const struct qsc_frame *frame,
		       char text[QSC_ERROR_TEXT_SIZE])
{
	char bytes[QSC_FRAME_MAX_TEXT];
	uint32_t i;
	int result = qsc_link_recv_payload(link, 0, frame, bytes);

	if (result < 0)
		return result;
	for (i = 0; i < frame->size && i < QSC_ERROR_TEXT_SIZE - 1; i++)
		text[i] = (char)(bytes[i] >= ' ' && bytes[i] < 0x7f ? bytes[i] : '?');
	text[i] = '\0';
	return 0;
}

int qsc_link_expect(struct qsc_link *link, uint32_t type, const char *other,
		    struct qsc_frame *frame, struct qsc_error *err)
{
	char text[QSC_ERROR_TEXT_SIZE];
	int result = qsc_link_recv(link, 0, frame);

	if (result == 0 && frame->type == type)
		return 0;
	if (result == 0 && frame->type == QSC_FRAME_FAILED) {
		result = qsc_link_recv_text(link, frame, text);
		if (result == 0) {
			/* Whatever number it claims must be an errno here. */
			int number = (int)(frame->arg > 0 && frame->arg < 4096 ? frame->arg : EIO);

			link->heard_failed = true;
			return qsc_error_set(err, number, NULL, "the %s failed: %s", other, text);
		}
	} else if (result == 0) {
		return qsc_error_set(err, EPROTO, NULL, "the %s sent %s where %s was due", other,
				     qsc_frame_name(frame->type), qsc_frame_name(type));
	}
	return qsc_error_set(err, -result, NULL, "waiting for %s from the %s: %s",
			     qsc_frame_name(type), other, strerrordesc_np(-result));
}
