/* SPDX-License-Identifier: MIT */
/*
 * How the two sides of a migration find each other (link.h): the source connects and says HELLO on
 * every channel, the destination tells its channels from strangers'.
 */
#include <errno.h>
#include <string.h>
#include <sys/random.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "migrate/link.h"

/* A channel's first frame is due at once, also on a busy machine: whoever takes longer is no
 * source. */
#define HELLO_TIMEOUT_MS 500U
#define ACCEPT_POLL_MS	 200U

_Static_assert(QSC_FRAME_SIZE == QSC_CHANNEL_FIRST_BYTES, "a transport waits for a HELLO");

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
	if (ch->ops->set_watch)
		ch->ops->set_watch(ch, link->watch);
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
	if (qsc_link_recv_first(ch, &hello) == 0)
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
