/* SPDX-License-Identifier: MIT */
/* See frame.h. */
#include "migrate/frame.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/hash.h"

#define DIGESTED 32 /* bytes of the header in front of the digest */

#define HAS_INDEX  1U
#define HAS_ARG	   2U
#define HAS_OFFSET 4U
#define HAS_EXTENT 8U

static const struct {
	const char *name;
	uint32_t max_size;
	uint32_t fields;
} kinds[] = {
	[QSC_FRAME_HELLO] = {"HELLO", 0, HAS_INDEX | HAS_ARG | HAS_OFFSET | HAS_EXTENT},
	[QSC_FRAME_OFFER] = {"OFFER", QSC_FRAME_MAX_OFFER, HAS_ARG},
	[QSC_FRAME_ANSWER] = {"ANSWER", QSC_FRAME_MAX_TEXT, HAS_INDEX | HAS_ARG},
	[QSC_FRAME_ROUND] = {"ROUND", 0, HAS_INDEX | HAS_ARG},
	[QSC_FRAME_PAGES] = {"PAGES", QSC_FRAME_MAX_PAGES, HAS_INDEX | HAS_OFFSET},
	[QSC_FRAME_ZERO] = {"ZERO", 0, HAS_INDEX | HAS_OFFSET | HAS_EXTENT},
	[QSC_FRAME_DEVICE_DATA] = {"DEVICE_DATA", QSC_FRAME_MAX_DATA, HAS_INDEX},
	[QSC_FRAME_DEVICE_END] = {"DEVICE_END", 0, HAS_INDEX | HAS_OFFSET | HAS_EXTENT},
	[QSC_FRAME_ROUND_END] = {"ROUND_END", 0, HAS_INDEX},
	[QSC_FRAME_ROUND_DONE] = {"ROUND_DONE", 0, HAS_INDEX},
	[QSC_FRAME_STOPPING] = {"STOPPING", 0, 0},
	[QSC_FRAME_USER_STATE] = {"USER_STATE", QSC_FRAME_MAX_USER, 0},
	[QSC_FRAME_READY] = {"READY", 0, 0},
	[QSC_FRAME_COMMIT] = {"COMMIT", 0, 0},
	[QSC_FRAME_RUNNING] = {"RUNNING", 0, HAS_OFFSET},
	[QSC_FRAME_FAILED] = {"FAILED", QSC_FRAME_MAX_TEXT, HAS_ARG},
	[QSC_FRAME_PROBE] = {"PROBE", QSC_FRAME_MAX_DATA, HAS_INDEX | HAS_ARG},
	[QSC_FRAME_ECHO] = {"ECHO", 0, HAS_INDEX},
};

void qsc_put_u32(uint8_t *bytes, uint32_t value)
{
	value = htole32(value);
	memcpy(bytes, &value, sizeof(value));
}

void qsc_put_u64(uint8_t *bytes, uint64_t value)
{
	value = htole64(value);
	memcpy(bytes, &value, sizeof(value));
}

uint32_t qsc_get_u32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return le32toh(value);
}

uint64_t qsc_get_u64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return le64toh(value);
}

void qsc_frame_encode(const struct qsc_frame *frame, uint8_t bytes[QSC_FRAME_SIZE])
{
	qsc_put_u32(bytes, frame->type);
	qsc_put_u32(bytes + 4, frame->size);
	qsc_put_u32(bytes + 8, frame->index);
	qsc_put_u32(bytes + 12, frame->arg);
	qsc_put_u64(bytes + 16, frame->offset);
	qsc_put_u64(bytes + 24, frame->extent);
	qsc_put_u64(bytes + DIGESTED, frame->digest);
}

static bool is_known(uint32_t type)
{
	return type < QSC_ARRAY_SIZE(kinds) && kinds[type].name;
}

bool qsc_frame_is_skipped(const struct qsc_frame *frame)
{
	return !is_known(frame->type);
}

int qsc_frame_decode(const uint8_t bytes[QSC_FRAME_SIZE], struct qsc_frame *frame, bool newer)
{
	uint32_t fields;

	*frame = (struct qsc_frame){
		.type = qsc_get_u32(bytes),
		.size = qsc_get_u32(bytes + 4),
		.index = qsc_get_u32(bytes + 8),
		.arg = qsc_get_u32(bytes + 12),
		.offset = qsc_get_u64(bytes + 16),
		.extent = qsc_get_u64(bytes + 24),
		.digest = qsc_get_u64(bytes + DIGESTED),
	};
	if (!is_known(frame->type))
		return frame->type & QSC_FRAME_OPTIONAL && frame->size <= QSC_FRAME_MAX_DATA
			       ? 0
			       : -EPROTO;
	if (frame->size > kinds[frame->type].max_size)
		return -EPROTO;
	if (newer)
		return 0;
	fields = kinds[frame->type].fields;
	if ((frame->index && !(fields & HAS_INDEX)) || (frame->arg && !(fields & HAS_ARG)) ||
	    (frame->offset && !(fields & HAS_OFFSET)) || (frame->extent && !(fields & HAS_EXTENT)))
		return -EPROTO;
	return 0;
}

uint64_t qsc_frame_digest(const struct qsc_frame *frame, const void *payload)
{
	uint8_t bytes[QSC_FRAME_SIZE];

	qsc_frame_encode(frame, bytes);
	return XXH3_64bits_withSeed(frame->size ? payload : bytes, frame->size,
				    XXH3_64bits(bytes, DIGESTED));
}

uint64_t qsc_frame_digest_pieces(const struct qsc_frame *frame, const struct iovec *pieces,
				 size_t count, struct XXH3_state_s *hash)
{
	uint8_t bytes[QSC_FRAME_SIZE];
	size_t i;

	qsc_frame_encode(frame, bytes);
	(void)XXH3_64bits_reset_withSeed(hash, XXH3_64bits(bytes, DIGESTED));
	for (i = 0; i < count; i++)
		(void)XXH3_64bits_update(hash, pieces[i].iov_base, pieces[i].iov_len);
	return XXH3_64bits_digest(hash);
}

uint64_t qsc_frame_chain(uint64_t digest, const struct qsc_frame *next)
{
	uint8_t bytes[2 * sizeof(uint64_t)];

	qsc_put_u64(bytes, digest);
	qsc_put_u64(bytes + sizeof(uint64_t), next->digest);
	return XXH3_64bits(bytes, sizeof(bytes));
}

const char *qsc_frame_name(uint32_t type)
{
	return is_known(type) ? kinds[type].name : "?";
}
