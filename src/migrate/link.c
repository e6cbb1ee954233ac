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

/* Of measuring: messages there and back, then ever more bytes until they take long enough. */
#define PROBE_PINGS	4U
#define PROBE_BYTES	(16U << 10)
#define PROBE_MOST	(4ULL << 20)
#define PROBE_ENOUGH_US 1000U

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

static int recv_header(struct qsc_channel *ch, struct qsc_frame *frame, bool newer)
{
	uint8_t header[QSC_FRAME_SIZE];
	int result = ch->ops->recv(ch, header, sizeof(header));

	if (result < 0)
		return result;
	result = qsc_frame_decode(header, frame, newer);
	if (result == 0 && !frame->size && frame->digest != qsc_frame_digest(frame, NULL))
		result = -EBADMSG;
	return result;
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
	ch->ops->set_limits(ch, link->stall_ms, end);
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

/*
 * How long opening a channel may take; at least a moment, 0 would be for ever. Not less than is
 * left: what ended by the deadline must find it passed, to say so.
 */
static uint32_t time_to_open(const struct qsc_link *link)
{
	uint64_t now = link->env->now_us(link->env->ctx);
	uint64_t left;

	if (!link->deadline_us)
		return link->stall_ms;
	left = link->deadline_us > now ? (link->deadline_us - now + 999) / 1000 : 0;
	return (uint32_t)qsc_max_u64(1, qsc_min_u64(left, link->stall_ms));
}

/* One more channel, which also may turn out to be the only one. */
static int connect_one(struct qsc_link *link, struct qsc_transport *transport, uint32_t *count,
		       struct qsc_error *err)
{
	uint32_t index = link->count;
	struct qsc_frame hello = {
		.type = QSC_FRAME_HELLO,
		.index = index,
		.arg = QSC_FRAME_VERSION,
		.offset = link->id,
	};
	struct qsc_channel *ch;
	int result = transport->ops->open(transport, time_to_open(link), &ch, err);

	if (result < 0)
		return result;
	link->channels[index] = ch;
	link->count = index + 1;
	if (!ch->ops->recv && link->must_answer)
		return qsc_error_set(err, EINVAL, NULL,
				     "transport '%s' leads to nobody who could be asked",
				     transport->ops->name);
	if (!ch->ops->recv) {
		if (!ch->ops->settle)
			return qsc_error_set(err, EINVAL, NULL,
					     "transport '%s' neither answers nor keeps what is "
					     "sent",
					     transport->ops->name);
		link->one_way = true;
		*count = 1;
	}
	hello.extent = (uint64_t)QSC_FRAME_MAGIC << 32 | *count;
	ch->ops->set_limits(ch, link->stall_ms, link->deadline_us);
	watch_channel(ch, link->watch);
	result = qsc_link_send(link, index, &hello, NULL, 0);
	if (result < 0 && result != -ECANCELED)
		return qsc_error_set(err, -result, NULL,
				     "the destination closed connection %u of %u at once (%s)",
				     index + 1, *count, strerrordesc_np(-result));
	return result;
}

int qsc_link_connect(struct qsc_link *link, struct qsc_transport *transport, uint32_t count,
		     struct qsc_error *err)
{
	int result = 0;

	if (getrandom(&link->id, sizeof(link->id), 0) != sizeof(link->id))
		return qsc_error_set(err, EIO, NULL, "no randomness for a migration identifier");
	if (transport->ops->set_watch)
		transport->ops->set_watch(transport, link->watch);
	while (result == 0 && link->count < count)
		result = connect_one(link, transport, &count, err);
	if (transport->ops->set_watch)
		transport->ops->set_watch(transport, NULL);
	return result;
}

/*
 * A claim begins with whichever of its channels is heard first: a source opens channel 0 first, but
 * a lost packet may hold that up. NULL for no HELLO of any claim.
 */
static struct qsc_link_claim *find_claim(struct qsc_link_wait *wait, const struct qsc_frame *hello)
{
	struct qsc_link_claim *silent = &wait->claims[0];
	uint32_t channels = (uint32_t)hello->extent;
	uint32_t i;

	for (i = 0; i < QSC_LINK_MAX_CLAIMS; i++) {
		struct qsc_link_claim *claim = &wait->claims[i];

		if (claim->link.count && claim->link.id == hello->offset)
			return claim->link.count == channels ? claim : NULL;
		if (claim->turn < silent->turn)
			silent = claim;
	}
	if (channels == 0 || channels > QSC_LINK_MAX_CHANNELS)
		return NULL;
	qsc_link_close(&silent->link);
	*silent = (struct qsc_link_claim){
		.link = {.count = channels, .id = hello->offset, .version = hello->arg}};
	return silent;
}

/* The claim that this HELLO belongs to, which then has the channel; NULL when it is not due. */
static struct qsc_link_claim *take_hello(struct qsc_link_wait *wait, struct qsc_channel *ch,
					 const struct qsc_frame *hello)
{
	struct qsc_link_claim *claim;

	if (hello->type != QSC_FRAME_HELLO || hello->extent >> 32 != QSC_FRAME_MAGIC)
		return NULL;
	claim = find_claim(wait, hello);
	if (!claim || hello->index >= claim->link.count || claim->link.channels[hello->index])
		return NULL;
	claim->link.channels[hello->index] = ch;
	claim->found++;
	claim->turn = ++wait->turn;
	return claim;
}

static struct qsc_link_claim *fullest(struct qsc_link_wait *wait)
{
	struct qsc_link_claim *best = &wait->claims[0];
	uint32_t i;

	for (i = 1; i < QSC_LINK_MAX_CLAIMS; i++)
		if (wait->claims[i].found > best->found)
			best = &wait->claims[i];
	return best;
}

static void drop_claim(struct qsc_link_claim *claim)
{
	qsc_link_close(&claim->link);
	*claim = (struct qsc_link_claim){0};
}

/* One of another major version is told, by channel 0, and goes; nobody is there behind a file. */
static int check_claim(struct qsc_link_wait *wait, struct qsc_link_claim **claim,
		       struct qsc_error *err)
{
	struct qsc_error refused = QSC_ERROR_NONE;

	if (!(*claim)->link.channels[0] ||
	    qsc_link_check_version(&(*claim)->link, "source", &refused) == 0)
		return 0;
	if (wait->kept) {
		if (err)
			*err = refused;
		return -refused.number;
	}
	qsc_log(QSC_LOG_WARNING, "dropped a source: %s", refused.text);
	qsc_link_send_failed(&(*claim)->link, refused.number, refused.text);
	drop_claim(*claim);
	*claim = NULL;
	wait->last = refused;
	return 0;
}

/* Takes over the channel. *claim becomes the one that it belongs to. */
static int accept_one(struct qsc_link_wait *wait, struct qsc_channel *ch,
		      const struct qsc_link *link, struct qsc_link_claim **claim,
		      struct qsc_error *err)
{
	struct qsc_frame hello;

	ch->ops->set_limits(ch, HELLO_TIMEOUT_MS, 0);
	if (recv_header(ch, &hello, true) == 0)
		*claim = take_hello(wait, ch, &hello);
	wait->kept = ch->ops->settle;
	if (!*claim && wait->kept) {
		ch->ops->close(ch);
		return qsc_error_set(err, EPROTO, NULL, "what was saved is no migration");
	}
	if (!*claim) {
		qsc_log(QSC_LOG_WARNING, "dropped a connection that is no channel of a migration");
		ch->ops->close(ch);
		return 0;
	}
	ch->ops->set_limits(ch, link->stall_ms, 0);
	return check_claim(wait, claim, err);
}

/*
 * One step of waiting; *claim stays NULL when nobody came. A file that is being checked is no
 * silence, however long that takes.
 */
static int await_claim(struct qsc_link_wait *wait, struct qsc_transport *transport,
		       const struct qsc_link *link, struct qsc_link_claim **claim,
		       struct qsc_error *err)
{
	struct qsc_channel *ch;
	int result = wait->step(wait->ctx, err);

	if (result == -ECANCELED)
		return qsc_error_set(err, ECANCELED, NULL,
				     "cancelled while waiting for the source");
	if (result < 0)
		return result;
	result = transport->ops->open(transport, ACCEPT_POLL_MS, &ch, &wait->nobody);
	if (result == 0)
		return accept_one(wait, ch, link, claim, err);
	if (result == -EINPROGRESS)
		wait->deadline_us = link->env->now_us(link->env->ctx) + wait->timeout_ms * 1000ULL;
	if (result == -ETIMEDOUT || result == -EINPROGRESS)
		return 0;
	if (err)
		*err = wait->nobody;
	return result;
}

static int give_up(struct qsc_link_wait *wait, struct qsc_error *err)
{
	const struct qsc_link_claim *best = fullest(wait);

	if (best->found)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "%u of %u connections of a source came within %u ms",
				     best->found, best->link.count, wait->timeout_ms);
	if (wait->last.number)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "no source that could be heard came within %u ms; the last "
				     "one: %.300s",
				     wait->timeout_ms, wait->last.text);
	return qsc_error_set(err, ETIMEDOUT, NULL, "no source came within %u ms: %s",
			     wait->timeout_ms, wait->nobody.text);
}

int qsc_link_accept(struct qsc_link *link, struct qsc_transport *transport,
		    struct qsc_link_wait *wait, struct qsc_error *err)
{
	const struct qsc_link before = *link;
	const struct qsc_env *env = link->env;
	struct qsc_link_claim *claim;
	int result;

	do {
		claim = NULL;
		if (env->now_us(env->ctx) < wait->deadline_us)
			result = await_claim(wait, transport, &before, &claim, err);
		else
			result = give_up(wait, err);
	} while (result == 0 && !(claim && claim->found == claim->link.count));
	/* When it failed, whoever came closest to being the source is told. */
	claim = claim ? claim : fullest(wait);
	*link = claim->link;
	link->env = env;
	link->pace = before.pace;
	link->stall_ms = before.stall_ms;
	link->kept = wait->kept;
	qsc_link_set_watch(link, before.watch);
	*claim = (struct qsc_link_claim){0};
	return result;
}

void qsc_link_end_wait(struct qsc_link_wait *wait)
{
	uint32_t i;

	for (i = 0; i < QSC_LINK_MAX_CLAIMS; i++)
		drop_claim(&wait->claims[i]);
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

int qsc_link_expect(struct qsc_link *link, uint32_t type, const char *other,
		    struct qsc_frame *frame, struct qsc_error *err)
{
	int result = qsc_link_recv(link, 0, frame);

	if (result == 0 && frame->type == type)
		return 0;
	if (result == 0 && frame->type == QSC_FRAME_FAILED)
		return qsc_link_hear_failed(link, frame, other, err);
	if (result == 0)
		return qsc_error_set(err, EPROTO, NULL, "the %s sent %s where %s was due", other,
				     qsc_frame_name(frame->type), qsc_frame_name(type));
	if (result == -ETIMEDOUT)
		return qsc_error_set(err, ETIMEDOUT, NULL,
				     "waiting for %s from the %s: nothing came for %u ms",
				     qsc_frame_name(type), other, link->stall_ms);
	return qsc_error_set(err, -result, NULL, "waiting for %s from the %s: %s",
			     qsc_frame_name(type), other, strerrordesc_np(-result));
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
