/* SPDX-License-Identifier: MIT */
/*
 * The migration protocol's frames: pure, bytes in and out, no I/O. Every frame is a header of 40
 * bytes, little-endian, and `size` bytes of payload:
 *
 *   u32 type   u32 size   u32 index   u32 arg   u64 offset   u64 extent   u64 digest
 *
 * The digest is XXH3-64 of the payload, seeded with that of the header's first 32 bytes: it finds
 * what a transport or a copy corrupted, and is no proof of who sent it. A stream of frames has a
 * digest made of theirs. What the fields mean stands with each type below; a field that a type does
 * not use is zero.
 *
 *   source                                        destination
 *   HELLO on every channel, OFFER           →
 *                                           ←     ANSWER
 *   PROBE                                   →     (again and again)
 *                                           ←     ECHO
 *   ROUND, bulk frames, ROUND_END each      →     (again and again while everything runs)
 *                                           ←     ROUND_DONE: all of it is in place
 *   STOPPING, USER_STATE, last ROUND        →
 *                                           ←     READY: all is loaded and validated
 *   COMMIT: this side never runs again      →
 *                                           ←     RUNNING
 *
 * FAILED may stand in place of anything, in both directions, on channel 0. Where nobody answers (a
 * file) the source sends the same and waits for nothing.
 *
 * Versions. HELLO, ANSWER and FAILED have their form in every version, so that sides of different
 * major versions can say so and part. Of a newer minor version everything can be read: types with
 * the bit OPTIONAL that are not known here are skipped, and so are items in the payloads of OFFER
 * and ANSWER (items.h) and fields of a header.
 */
#ifndef QSC_MIGRATE_FRAME_H
#define QSC_MIGRATE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define QSC_FRAME_SIZE	   40
#define QSC_FRAME_VERSION  0x00020000U /* major << 16 | minor */
#define QSC_FRAME_MAGIC	   0x43455351U /* "QSEC" as bytes */
#define QSC_FRAME_OPTIONAL 0x8000U     /* bit of a type that may be skipped */
/* So many frames that may be skipped at most stand in a row, and of PROBE between other frames. */
#define QSC_FRAME_MAX_SKIPPED 64U
#define QSC_FRAME_MAX_PROBES  1024U

enum qsc_frame_type {
	/* index channel, arg version, offset migration id, extent MAGIC and number of channels */
	QSC_FRAME_HELLO = 1,
	QSC_FRAME_OFFER, /* arg 1: only asking; payload: items, what the source has */
	/* index version, arg errno of a refusal, else 0; payload: its reasons, or items */
	QSC_FRAME_ANSWER,
	QSC_FRAME_ROUND,       /* index number, arg 1 for the last */
	QSC_FRAME_PAGES,       /* index region, offset in it; payload: whole pages */
	QSC_FRAME_ZERO,	       /* index region, offset in it, extent bytes: pages of zeroes */
	QSC_FRAME_DEVICE_DATA, /* index member; payload: the next piece of its stream */
	QSC_FRAME_DEVICE_END,  /* index member, extent bytes of its stream, offset its digest */
	QSC_FRAME_ROUND_END,   /* index number */
	QSC_FRAME_ROUND_DONE,  /* index number */
	QSC_FRAME_STOPPING,    /* the source pauses its user */
	QSC_FRAME_USER_STATE,  /* payload: state of the user itself */
	QSC_FRAME_READY,
	QSC_FRAME_COMMIT,
	QSC_FRAME_RUNNING, /* offset microseconds from COMMIT heard to here */
	QSC_FRAME_FAILED,  /* arg errno; payload: one sentence */
	QSC_FRAME_PROBE,   /* index number, arg 1: to be echoed; payload: anything */
	QSC_FRAME_ECHO,	   /* index number */
};

struct qsc_frame {
	uint32_t type;
	uint32_t size; /* bytes of payload */
	uint32_t index;
	uint32_t arg;
	uint64_t offset;
	uint64_t extent;
	uint64_t digest;
};

/* Largest payload of each kind, bytes. */
#define QSC_FRAME_MAX_OFFER (4U << 20)
#define QSC_FRAME_MAX_TEXT  2048U
#define QSC_FRAME_MAX_PAGES (256U << 10)
#define QSC_FRAME_MAX_DATA  (1U << 20)
#define QSC_FRAME_MAX_USER  (1U << 20)

void qsc_frame_encode(const struct qsc_frame *frame, uint8_t bytes[QSC_FRAME_SIZE]);

/*
 * -EPROTO for a type that does not exist and is not optional, a payload too large for it, or a
 * field it has not; the latter is ignored when whoever sent it is `newer`.
 */
int qsc_frame_decode(const uint8_t bytes[QSC_FRAME_SIZE], struct qsc_frame *frame, bool newer);

/* Whether it is to be skipped with its payload. Of a decoded frame. */
bool qsc_frame_is_skipped(const struct qsc_frame *frame);

/* The digest of a frame whose other fields are set. */
uint64_t qsc_frame_digest(const struct qsc_frame *frame, const void *payload);

struct XXH3_state_s;

/* The same of a payload in pieces; `hash` is used for it and needs no beginning. */
uint64_t qsc_frame_digest_pieces(const struct qsc_frame *frame, const struct iovec *pieces,
				 size_t count, struct XXH3_state_s *hash);

/*
 * The digest of a stream with one more frame: it tells which frames there were and in what order,
 * and each frame's own digest what was in it. That of no frames is 0.
 */
uint64_t qsc_frame_chain(uint64_t digest, const struct qsc_frame *next);

/* "OFFER"; "?" for no type. */
const char *qsc_frame_name(uint32_t type);

/* Little-endian integers within a payload. */
void qsc_put_u32(uint8_t *bytes, uint32_t value);
void qsc_put_u64(uint8_t *bytes, uint64_t value);
uint32_t qsc_get_u32(const uint8_t *bytes);
uint64_t qsc_get_u64(const uint8_t *bytes);

#endif
