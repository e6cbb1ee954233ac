/* SPDX-License-Identifier: MIT */
/* A member's state stream on its way from its saving session to the one that loads it. */
#ifndef QSC_MIGRATE_STREAM_H
#define QSC_MIGRATE_STREAM_H

#include <stdatomic.h>

#include <quiesce/migrate.h>

#include "migrate/link.h"

struct qsc_migrate_stream {
	struct qsc_set *set;
	uint32_t member;
	struct XXH3_state_s *hash; /* source: for one frame after another */
	uint64_t digest;	   /* of the stream so far */
	uint64_t bytes;
	uint64_t read_us; /* source: spent reading the device so far */
	uint64_t quota;	  /* source: what may be read in this pass of pre-copy; 0 when drained */
	/*
	 * Destination: channel that this round's frames come on, plus one; 0: none came. It is
	 * taken once a round, so that a session has one writer whatever the source sends.
	 */
	_Atomic(uint32_t) writer;
	/* Destination: when this round's first frame came, 0 for none, when the last was in place.
	 */
	uint64_t came_us;
	uint64_t placed_us;
	uint64_t bytes_before; /* of this round */
	bool ended;
};

int qsc_migrate_stream_init(struct qsc_migrate_stream *stream, struct qsc_set *set,
			    uint32_t member);
void qsc_migrate_stream_release(struct qsc_migrate_stream *stream);

/*
 * Source: what is still to be moved, as far as the device tells. *initial is above zero while
 * PRE_COPY should not be left (ORD-6); *fixed is what can only be moved after the stop.
 */
int qsc_migrate_stream_remaining(const struct qsc_migrate_stream *stream, bool precopy,
				 uint64_t *initial, uint64_t *dirty, uint64_t *fixed);

/*
 * Source: read the session and send what it gives, in PRE_COPY its quota at most and until it is
 * drained, in STOP_COPY (`last`) to its end. `buffer` has QSC_FRAME_MAX_DATA bytes.
 */
int qsc_migrate_stream_send(struct qsc_migrate_stream *stream, struct qsc_link *link,
			    uint32_t channel, uint8_t *buffer, bool last,
			    const struct qsc_moved *moved, struct qsc_error *err);

/* Destination: whether that channel is, or has now become, the one of this round. */
bool qsc_migrate_stream_claim(struct qsc_migrate_stream *stream, uint32_t channel);

/* Destination: a DEVICE_DATA or DEVICE_END frame has come. */
int qsc_migrate_stream_receive(struct qsc_migrate_stream *stream, struct qsc_link *link,
			       uint32_t channel, const struct qsc_frame *frame, uint8_t *buffer,
			       struct qsc_error *err);

#endif
