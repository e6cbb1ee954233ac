/* SPDX-License-Identifier: MIT */
/* See link.h: frames over channels that are there, and how fast those are. */
#include "migrate/link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/pace.h"

/* Of measuring: messages there and back, then ever more bytes until they take long enough. */
#define PROBE_PINGS	4U
#define PROBE_BYTES	(16U << 10)
#define PROBE_MOST	(4ULL << 20)
#define PROBE_ENOUGH_US 1000U
#define LAST_WORDS_MS	1000U

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

int qsc_link_send_pieces(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame,
			 const struct iovec *pieces, size_t count, struct XXH3_state_s *hash)
{
	struct iovec iov[1 + QSC_LINK_MAX_PIECES];
	uint8_t header[QSC_FRAME_SIZE];

	iov[0] = (struct iovec){header, sizeof(header)};
	memcpy(iov + 1, pieces, count * sizeof(*pieces));
	frame->digest = qsc_frame_digest_pieces(frame, pieces, count, hash);
	qsc_frame_encode(frame, header);
	return qsc_link_write(link, channel, iov, 1 + (int)count);
}

/* The rest of a header of which `have` bytes are there. */
static int recv_rest(struct qsc_channel *ch, uint8_t header[QSC_FRAME_SIZE], size_t have,
		     struct qsc_frame *frame, bool newer)
{
	int result = ch->ops->recv(ch, header + have, QSC_FRAME_SIZE - have);

	if (result < 0)
		return result;
	result = qsc_frame_decode(header, frame, newer);
	if (result == 0 && !frame->size && frame->digest != qsc_frame_digest(frame, NULL))
		result = -EBADMSG;
	return result;
}

static int recv_header(struct qsc_channel *ch, struct qsc_frame *frame, bool newer)
{
	uint8_t header[QSC_FRAME_SIZE];

	return recv_rest(ch, header, 0, frame, newer);
}

int qsc_link_recv_first(struct qsc_channel *ch, struct qsc_frame *frame)
{
	return recv_header(ch, frame, true);
}

/* Until its version is known, the other side may say more than this side can read. */
static bool is_newer(const struct qsc_link *link)
{
	return !link->version || link->version > QSC_FRAME_VERSION;
}

int qsc_link_recv(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame)
{
	uint32_t skipped;
	int result;

	for (skipped = 0; skipped <= QSC_FRAME_MAX_SKIPPED; skipped++) {
		result = recv_header(link->channels[channel], frame, is_newer(link));
		if (result < 0 || !qsc_frame_is_skipped(frame))
			return result;
		/* A frame that was altered on the way must not pass for one to be skipped. */
		result = qsc_link_skip_payload(link, channel, frame);
		if (result < 0)
			return result;
	}
	return -EPROTO;
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

int qsc_link_skip_payload(struct qsc_link *link, uint32_t channel, const struct qsc_frame *frame)
{
	qsc_autofree void *buf = NULL;

	if (!frame->size)
		return 0;
	buf = malloc(frame->size);
	return buf ? qsc_link_recv_payload(link, channel, frame, buf) : -ENOMEM;
}

void qsc_link_set_limits(struct qsc_link *link, uint32_t stall_ms, uint64_t deadline_us)
{
	uint32_t i;

	link->stall_ms = stall_ms;
	link->deadline_us = deadline_us;
	link->answer_us = 0;
	for (i = 0; i < QSC_LINK_MAX_CHANNELS; i++) {
		struct qsc_channel *ch = link->channels[i];

		if (ch)
			ch->ops->set_limits(ch, stall_ms, deadline_us);
	}
}

static void watch_channel(struct qsc_channel *ch, const struct qsc_watch *watch)
{
	if (ch && ch->ops->set_watch)
		ch->ops->set_watch(ch, watch);
}

void qsc_link_set_watch(struct qsc_link *link, const struct qsc_watch *watch)
{
	uint32_t i;

	link->watch = watch;
	for (i = 0; i < QSC_LINK_MAX_CHANNELS; i++)
		watch_channel(link->channels[i], watch);
}

void qsc_link_limit_answer(struct qsc_link *link)
{
	struct qsc_channel *ch = link->channels[0];
	uint64_t end = link->env->now_us(link->env->ctx) + link->stall_ms * 1000ULL;

	if (link->deadline_us)
		end = qsc_min_u64(end, link->deadline_us);
	link->answer_us = end;
	ch->ops->set_limits(ch, link->stall_ms, end);
}

void qsc_link_limit_last_words(struct qsc_link *link, uint64_t deadline_us)
{
	uint64_t end = link->env->now_us(link->env->ctx) + LAST_WORDS_MS * 1000ULL;

	qsc_link_set_limits(link, LAST_WORDS_MS, deadline_us ? qsc_min_u64(end, deadline_us) : end);
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

int qsc_link_errno(uint32_t number)
{
	return number > 0 && number < 4096 ? (int)number : EIO;
}

int qsc_link_hear_failed(struct qsc_link *link, const struct qsc_frame *frame, const char *other,
			 struct qsc_error *err)
{
	char text[QSC_ERROR_TEXT_SIZE];
	int result = qsc_link_recv_text(link, frame, text);

	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "the %s failed and its reason is broken (%s)", other,
				     strerrordesc_np(-result));
	link->heard_failed = true;
	return qsc_error_set(err, qsc_link_errno(frame->arg), NULL, "the %s failed: %s", other,
			     text);
}

/* A frame on channel 0 whose time runs from its first byte on, unless it runs already. */
static int recv_owed(struct qsc_link *link, struct qsc_frame *frame, bool *began)
{
	struct qsc_channel *ch = link->channels[0];
	uint8_t header[QSC_FRAME_SIZE];
	int result = ch->ops->recv(ch, header, 1);

	*began = result == 0;
	if (result == 0 && !link->answer_us)
		qsc_link_limit_answer(link);
	if (result == 0)
		result = recv_rest(ch, header, 1, frame, is_newer(link));
	if (result < 0 || !qsc_frame_is_skipped(frame))
		return result;
	result = qsc_link_skip_payload(link, 0, frame);
	return result < 0 ? result : qsc_link_recv(link, 0, frame);
}

static int explain_missing(const struct qsc_link *link, int result, bool began, uint32_t type,
			   const char *other, struct qsc_error *err)
{
	const char *name = qsc_frame_name(type);

	if (result == -ETIMEDOUT && began)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "waiting for %s from the %s: something came and was not "
				     "whole within %u ms",
				     name, other, link->stall_ms);
	if (result == -ETIMEDOUT)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "waiting for %s from the %s: nothing came for %u ms", name,
				     other, link->stall_ms);
	if (result == -EPIPE)
		return qsc_error_set(err, EPIPE, NULL,
				     "the %s ended the connection before it sent %s: what it says "
				     "there tells why",
				     other, name);
	if (result == -EPROTO || result == -EBADMSG)
		return qsc_error_set(err, -result, NULL,
				     "what came from the %s where %s was due is no message of a "
				     "migration (%s): is it a %s that answers there?",
				     other, name, strerrordesc_np(-result), other);
	return qsc_error_set(err, -result, NULL, "waiting for %s from the %s: %s", name, other,
			     strerrordesc_np(-result));
}

int qsc_link_expect(struct qsc_link *link, uint32_t type, const char *other,
		    struct qsc_frame *frame, struct qsc_error *err)
{
	bool limited = link->answer_us;
	bool began;
	int result = recv_owed(link, frame, &began);

	if (result < 0)
		result = explain_missing(link, result, began, type, other, err);
	else if (frame->type == QSC_FRAME_FAILED)
		result = qsc_link_hear_failed(link, frame, other, err);
	else if (frame->type != type)
		result = qsc_error_set(err, EPROTO, NULL, "the %s sent %s where %s was due", other,
				       qsc_frame_name(frame->type), qsc_frame_name(type));
	if (!limited)
		qsc_link_set_limits(link, link->stall_ms, link->deadline_us);
	return result;
}

int qsc_link_check_version(const struct qsc_link *link, const char *other, struct qsc_error *err)
{
	if (link->version >> 16 == QSC_FRAME_VERSION >> 16)
		return 0;
	return qsc_error_set(err, EPROTONOSUPPORT, NULL,
			     "the %s speaks migration protocol %u.%u and this side %u.%u: use "
			     "releases of one major version on both sides",
			     other, link->version >> 16, link->version & 0xffffU,
			     QSC_FRAME_VERSION >> 16, QSC_FRAME_VERSION & 0xffffU);
}

/* ---- how fast it is ---- */

/* The time that so many bytes take there, and the echo back. */
static int probe(struct qsc_link *link, uint32_t number, uint64_t bytes, const char *other,
		 uint64_t *us, struct qsc_error *err)
{
	static const uint8_t zeroes[PROBE_BYTES];
	uint64_t start = link->env->now_us(link->env->ctx);
	struct qsc_frame frame;
	int result = 0;

	do {
		uint32_t part = (uint32_t)qsc_min_u64(bytes, sizeof(zeroes));

		bytes -= part;
		frame = (struct qsc_frame){
			.type = QSC_FRAME_PROBE, .index = number, .arg = bytes ? 0 : 1};
		/* A failed send shows as a missing echo. */
		result = qsc_link_send(link, 0, &frame, zeroes, part);
	} while (result == 0 && bytes);
	result = qsc_link_expect(link, QSC_FRAME_ECHO, other, &frame, err);
	if (result == 0 && frame.index != number)
		result = qsc_error_set(err, EPROTO, NULL, "the %s echoed what was not sent", other);
	*us = link->env->now_us(link->env->ctx) - start;
	return result;
}

int qsc_link_measure(struct qsc_link *link, const char *other, struct qsc_link_speed *speed,
		     struct qsc_error *err)
{
	uint32_t number;
	uint64_t bytes;
	uint64_t us;
	int result = 0;

	*speed = (struct qsc_link_speed){.rtt_us = UINT64_MAX};
	for (number = 0; number < PROBE_PINGS && result == 0; number++) {
		result = probe(link, number, 0, other, &us, err);
		speed->rtt_us = qsc_min_u64(speed->rtt_us, us);
	}
	for (bytes = PROBE_BYTES; result == 0 && bytes <= PROBE_MOST; bytes *= 4) {
		result = probe(link, number++, bytes, other, &us, err);
		speed->bytes = bytes;
		speed->us = us > speed->rtt_us ? us - speed->rtt_us : 1;
		speed->bytes_per_second = bytes * 1000000U / speed->us;
		if (speed->us >= PROBE_ENOUGH_US)
			break;
	}
	return result;
}

int qsc_link_echo(struct qsc_link *link, const struct qsc_frame *probe)
{
	struct qsc_frame echo = {.type = QSC_FRAME_ECHO, .index = probe->index};
	int result = qsc_link_skip_payload(link, 0, probe);

	if (result < 0 || probe->arg != 1)
		return result;
	return qsc_link_send(link, 0, &echo, NULL, 0);
}
