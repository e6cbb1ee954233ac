/* SPDX-License-Identifier: MIT */
/* Test support: a transport over another one, so that a test sees and changes what is sent. */
#ifndef QSC_MIGRATE_WRAP_H
#define QSC_MIGRATE_WRAP_H

#include <quiesce/transport.h>

#define WRAP_CHANNELS 16

struct wrap;

struct wrap_channel {
	struct qsc_channel base;
	struct qsc_channel *inner;
	struct wrap *wrap;
	uint32_t index; /* in the order of opening */
};

struct wrap {
	struct qsc_transport base;
	struct qsc_transport *inner; /* closed with this one */
	struct qsc_transport_ops ops;
	struct wrap_channel channels[WRAP_CHANNELS];
	uint32_t opened;
	/* Instead of the inner channel's; what it does with the bytes is its own matter. */
	int (*send)(struct wrap_channel *ch, const struct iovec *iov, int iovcnt);
	void *ctx;
};

/* Takes over the inner transport; zeroed before. */
void wrap_init(struct wrap *wrap, struct qsc_transport *inner, uint32_t max_channels,
	       int (*send)(struct wrap_channel *ch, const struct iovec *iov, int iovcnt));

/* What send() does when it changes nothing. */
int wrap_forward(struct wrap_channel *ch, const struct iovec *iov, int iovcnt);

#endif
