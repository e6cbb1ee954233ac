/* SPDX-License-Identifier: MIT */
/*
 * The channels of one migration, and frames over them. Channel 0 carries control and memory, the
 * others the devices' streams and memory. The destination tells the channels of its migration from
 * strangers by the identifier in their first frame.
 */
#ifndef QSC_MIGRATE_LINK_H
#define QSC_MIGRATE_LINK_H

#include <quiesce/migrate.h>

#include "migrate/frame.h"

#define QSC_LINK_MAX_CHANNELS 64
#define QSC_LINK_MAX_PIECES   16 /* of a frame's payload */
#define QSC_LINK_MAX_CLAIMS   8

struct qsc_pace;

struct qsc_link {
	const struct qsc_env *env;
	struct qsc_channel *channels[QSC_LINK_MAX_CHANNELS];
	uint64_t id;
	struct qsc_pace *pace; /* borrowed; NULL: no limit */
	/* Of every channel, as in the channel's set_limits and set_watch. */
	const struct qsc_watch *watch; /* borrowed; or NULL */
	uint64_t deadline_us;
	uint64_t answer_us; /* when what is owed on channel 0 must be there; 0: no such limit */
	uint32_t stall_ms;
	uint32_t count;	   /* of the channels */
	uint32_t version;  /* the other side's; 0 until it is known */
	bool must_answer;  /* source: a channel that nobody answers is of no use */
	bool one_way;	   /* source: nobody answers, what is sent is kept */
	bool kept;	   /* destination: what a source sent was kept, and nobody is there */
	bool heard_failed; /* the other side said so itself, it need not be told */
};

/* Whom a lane tells after frames what they moved; non-zero ends what it does. */
struct qsc_moved {
	int (*fn)(void *ctx, uint64_t bytes);
	void *ctx;
};

/* Who says it is a source, until all of its channels are there. */
struct qsc_link_claim {
	struct qsc_link link; /* count 0: nobody */
	uint32_t found;
	uint32_t turn; /* of its last channel */
};

/*
 * How long the destination waits and what it does between polls. Claims stand side by side, so that
 * a stranger that says HELLO and then nothing does not keep the source away; when there are too
 * many, the one that has been silent for longest gives way. They outlive whoever came first: a wait
 * goes on when that was no source.
 */
struct qsc_link_wait {
	uint32_t timeout_ms;			       /* for the message */
	uint64_t deadline_us;			       /* until which a source must have come */
	int (*step)(void *ctx, struct qsc_error *err); /* -errno ends the wait */
	void *ctx;
	struct qsc_error last; /* why the last that said it was a source was none */
	/* The link's own. */
	struct qsc_link_claim claims[QSC_LINK_MAX_CLAIMS];
	uint32_t turn;
	bool kept;		 /* as in the link */
	struct qsc_error nobody; /* why nobody came, as far as the transport knows */
};

/* What a source measures of a link. */
struct qsc_link_speed {
	uint64_t rtt_us;
	uint64_t bytes_per_second; /* 0: it was not measured */
	/* What that is computed from. */
	uint64_t bytes;
	uint64_t us;
};

/*
 * Source: make `count` channels and say HELLO on each, within the link's limits. A channel that
 * nobody answers is the only one.
 */
int qsc_link_connect(struct qsc_link *link, struct qsc_transport *transport, uint32_t count,
		     struct qsc_error *err);

/*
 * Destination: wait for a source and for all of its channels. Whoever connects and says anything
 * but the HELLO that is due is dropped, and does not prolong the wait; nor does one that begins
 * as a source and then falls silent. One of another major version is told and dropped. When it was
 * no source after all the same wait goes on with another call. On failure the link has what there
 * is of the likeliest source, to tell it.
 */
int qsc_link_accept(struct qsc_link *link, struct qsc_transport *transport,
		    struct qsc_link_wait *wait, struct qsc_error *err);

/* Drop whoever else said that it was a source. */
void qsc_link_end_wait(struct qsc_link_wait *wait);

void qsc_link_close(struct qsc_link *link);

/* New limits for every channel. */
void qsc_link_set_limits(struct qsc_link *link, uint32_t stall_ms, uint64_t deadline_us);

/* The same of whom they ask whether to wait on; NULL: nobody, what begins now is seen through. */
void qsc_link_set_watch(struct qsc_link *link, const struct qsc_watch *watch);

/*
 * From now until the limits are set again channel 0 has one stall limit for all that comes on it,
 * however often something comes: the other side owes one frame.
 */
void qsc_link_limit_answer(struct qsc_link *link);

/*
 * What is left to say when a migration has failed: from now on a second for all of it, however
 * slowly the other side takes or gives it, since a set may wait for that to run again. It ends at
 * `deadline_us` at the latest, unless that is 0.
 */
void qsc_link_limit_last_words(struct qsc_link *link, uint64_t deadline_us);

/* Wake whoever sends or receives on a channel; it gets an error. */
void qsc_link_shutdown(struct qsc_link *link, uint32_t channel);

/* Send bytes that are whole frames already, within the bandwidth limit. */
int qsc_link_write(struct qsc_link *link, uint32_t channel, const struct iovec *iov, int iovcnt);

/* Send a frame; size and digest are filled in. */
int qsc_link_send(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame,
		  const void *payload, uint32_t size);

/*
 * The same with a payload of frame->size bytes in one piece after another, at most MAX_PIECES.
 * `hash` is used for the digest.
 */
int qsc_link_send_pieces(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame,
			 const struct iovec *pieces, size_t count, struct XXH3_state_s *hash);

/*
 * Receive a header. The payload, if any, must be received next. Frames that may be skipped have
 * been; -EPROTO when there is no end of them.
 */
int qsc_link_recv(struct qsc_link *link, uint32_t channel, struct qsc_frame *frame);

/* A header on a channel of nobody yet, who may speak any version. */
int qsc_link_recv_first(struct qsc_channel *ch, struct qsc_frame *frame);

/* -EBADMSG when it is not what was sent. */
int qsc_link_recv_payload(struct qsc_link *link, uint32_t channel, const struct qsc_frame *frame,
			  void *buf);

/* Receive a payload and forget it, unless it is not what was sent. */
int qsc_link_skip_payload(struct qsc_link *link, uint32_t channel, const struct qsc_frame *frame);

/* FAILED with a sentence, on channel 0; nothing can be done when it does not arrive. */
void qsc_link_send_failed(struct qsc_link *link, int number, const char *text);

/* A FAILED has come: its sentence becomes the error, with `other` ("destination") in front. */
int qsc_link_hear_failed(struct qsc_link *link, const struct qsc_frame *frame, const char *other,
			 struct qsc_error *err);

/*
 * Receive on channel 0 until a header of `type` comes, its payload next. The other side's FAILED
 * becomes the error, anything else is -EPROTO. Once it has begun to come it must be there within
 * one stall limit, lest it comes a byte at a time.
 */
int qsc_link_expect(struct qsc_link *link, uint32_t type, const char *other,
		    struct qsc_frame *frame, struct qsc_error *err);

/* The other side's version, once it is known: -EPROTONOSUPPORT for another major one. */
int qsc_link_check_version(const struct qsc_link *link, const char *other, struct qsc_error *err);

/* What a number that the other side sent for an errno means here. */
int qsc_link_errno(uint32_t number);

/*
 * Source, between rounds: how long a message takes there and back, and how fast one channel is: a
 * few megabytes at most, and fewer the slower it is.
 */
int qsc_link_measure(struct qsc_link *link, const char *other, struct qsc_link_speed *speed,
		     struct qsc_error *err);

/* Destination: a PROBE has come. */
int qsc_link_echo(struct qsc_link *link, const struct qsc_frame *probe);

/* The payload of a FAILED or ANSWER as a printable text. */
int qsc_link_recv_text(struct qsc_link *link, const struct qsc_frame *frame,
		       char text[QSC_ERROR_TEXT_SIZE]);

#endif
