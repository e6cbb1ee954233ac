/* SPDX-License-Identifier: MIT */
/* See wrap.h. */
#include "migrate/wrap.h"

#include <stdlib.h>

#include "base/cleanup.h"

static struct wrap_channel *channel_of(struct qsc_channel *ch)
{
	return qsc_container_of(ch, struct wrap_channel, base);
}

static int wrapped_send(struct qsc_channel *ch, const struct iovec *iov, int iovcnt)
{
	return channel_of(ch)->wrap->send(channel_of(ch), iov, iovcnt);
}

static int wrapped_recv(struct qsc_channel *ch, void *buf, size_t size)
{
	struct qsc_channel *inner = channel_of(ch)->inner;

	return inner->ops->recv(inner, buf, size);
}

static void wrapped_set_limits(struct qsc_channel *ch, uint32_t stall_ms, uint64_t deadline_us)
{
	struct qsc_channel *inner = channel_of(ch)->inner;

	inner->ops->set_limits(inner, stall_ms, deadline_us);
}

static void wrapped_shutdown(struct qsc_channel *ch)
{
	struct qsc_channel *inner = channel_of(ch)->inner;

	inner->ops->shutdown(inner);
}

static void wrapped_set_watch(struct qsc_channel *ch, const struct qsc_watch *watch)
{
	struct qsc_channel *inner = channel_of(ch)->inner;

	inner->ops->set_watch(inner, watch);
}

static void wrapped_close(struct qsc_channel *ch)
{
	struct qsc_channel *inner = channel_of(ch)->inner;

	inner->ops->close(inner);
}

static const struct qsc_channel_ops wrapped_ops = {
	.send = wrapped_send,
	.recv = wrapped_recv,
	.set_limits = wrapped_set_limits,
	.shutdown = wrapped_shutdown,
	.close = wrapped_close,
	.set_watch = wrapped_set_watch,
};

static int wrap_open(struct qsc_transport *transport, uint32_t timeout_ms, struct qsc_channel **ch,
		     struct qsc_error *err)
{
	struct wrap *wrap = qsc_container_of(transport, struct wrap, base);
	struct wrap_channel *channel = &wrap->channels[wrap->opened];
	int result;

	if (wrap->opened == WRAP_CHANNELS)
		abort();
	result = wrap->inner->ops->open(wrap->inner, timeout_ms, &channel->inner, err);
	if (result < 0)
		return result;
	channel->base.ops = &wrapped_ops;
	channel->wrap = wrap;
	channel->index = wrap->opened++;
	*ch = &channel->base;
	return 0;
}

static void wrap_close(struct qsc_transport *transport)
{
	qsc_transport_close(qsc_container_of(transport, struct wrap, base)->inner);
}

void wrap_init(struct wrap *wrap, struct qsc_transport *inner, uint32_t max_channels,
	       int (*send)(struct wrap_channel *ch, const struct iovec *iov, int iovcnt))
{
	wrap->ops = (struct qsc_transport_ops){
		.name = "wrap",
		.max_channels = max_channels,
		.open = wrap_open,
		.close = wrap_close,
	};
	wrap->base.ops = &wrap->ops;
	wrap->inner = inner;
	wrap->send = send;
}

int wrap_forward(struct wrap_channel *ch, const struct iovec *iov, int iovcnt)
{
	return ch->inner->ops->send(ch->inner, iov, iovcnt);
}
