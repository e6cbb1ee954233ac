/* SPDX-License-Identifier: MIT */
/*
 * The dirty log over the wire. A report comes straight into the user's bitmap where nothing is set
 * in it, else into a buffer of ours and from there with OR.
 */
#include <errno.h>
#include <string.h>

#include "base/bitmap.h"
#include "base/cleanup.h"
#include "client/internal.h"

/* In one message; a server takes more, but not every one. */
#define MAX_RANGES 2048U

int qsc_client_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
		struct qsc_wire_log_start start;
	} request = {.feature = {.flags = QSC_WIRE_FEATURE_LOG_START | QSC_WIRE_FEATURE_SET},
		     .start = {.page_size = *page_size, .num_ranges = (uint32_t)num_ranges}};
	qsc_autofree uint8_t *echo = NULL;
	struct {
		struct qsc_wire_feature feature;
		struct qsc_wire_log_start start;
	} reply;
	struct qsc_call call = {
		.command = QSC_WIRE_FEATURE,
		.min_size = sizeof(reply),
		.fixed = &reply,
		.fixed_size = sizeof(reply),
	};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = sizeof(request)},
		{.iov_base = (void *)(uintptr_t)ranges, .iov_len = num_ranges * sizeof(*ranges)},
	};
	int result;

	if (num_ranges > MAX_RANGES)
		return -E2BIG;
	request.feature.argsz = (uint32_t)(sizeof(reply) + iov[1].iov_len);
	echo = malloc(iov[1].iov_len);
	if (!echo)
		return -ENOMEM;
	call.data = echo;
	call.data_max = iov[1].iov_len;
	result = qsc_rpc_call(client->rpc, &call, iov, 2, NULL, 0);
	if (!result)
		result = call.result;
	if (result < 0)
		return result;
	if (!qsc_is_power_of_two(reply.start.page_size))
		return qsc_client_distrust(client, "DMA_LOGGING_START");
	*page_size = reply.start.page_size;
	return 0;
}

int qsc_client_log_stop(struct qsc_device *dev)
{
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
	} request = {.feature = {.argsz = sizeof(request.feature),
				 .flags = QSC_WIRE_FEATURE_LOG_STOP | QSC_WIRE_FEATURE_SET}};
	struct qsc_wire_feature reply;

	return qsc_client_request(qsc_client_of(dev), QSC_WIRE_FEATURE, &request, sizeof(request),
				  &reply, sizeof(reply));
}

/*
 * A report is asked for in pieces, several at once: the server collects the bits of the next one
 * while this end still receives those before.
 */
#define PIECES	    4U
#define PIECE_WORDS 16384UL /* 4 GiB in pages of 4 KiB */

_Static_assert(PIECES *PIECE_WORDS * sizeof(uint64_t) <= QSC_CLIENT_BITMAP_MAX,
	       "the pieces under way fit the buffer");

struct piece {
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
		struct qsc_wire_log_report report;
	} request;
	struct {
		struct qsc_wire_feature feature;
		struct qsc_wire_log_report report;
	} reply;
	struct qsc_call call;
	uint64_t *bitmap; /* the user's part */
};

/* Mostly the first bit tells, and all of them while the server is busy with the pieces before. */
static bool is_clear(const uint64_t *bitmap, size_t words)
{
	return !bitmap[0] && !memcmp(bitmap, bitmap + 1, (words - 1) * sizeof(*bitmap));
}

/* Report lock held. `reported` has room for the bitmap of the range. */
static int begin_piece(struct qsc_client *client, struct piece *piece,
		       const struct qsc_wire_log_report *range, uint64_t *reported,
		       uint64_t *bitmap)
{
	uint64_t bits = (range->length - 1) / range->page_size + 1;
	size_t size = qsc_bitmap_words(bits) * sizeof(*bitmap);
	struct iovec iov = {.iov_base = &piece->request, .iov_len = sizeof(piece->request)};

	piece->bitmap = bitmap;
	piece->request.feature = (struct qsc_wire_feature){
		.argsz = (uint32_t)(sizeof(piece->reply) + size),
		.flags = QSC_WIRE_FEATURE_LOG_REPORT | QSC_WIRE_FEATURE_GET,
	};
	piece->request.report = *range;
	piece->call = (struct qsc_call){
		.command = QSC_WIRE_FEATURE,
		.min_size = sizeof(piece->reply) + size,
		.fixed = &piece->reply,
		.fixed_size = sizeof(piece->reply),
		.data = is_clear(bitmap, qsc_bitmap_words(bits)) ? bitmap : reported,
		.data_max = size,
	};
	return qsc_rpc_begin(client->rpc, &piece->call, &iov, 1, NULL, 0);
}

/* Report lock held. */
static int end_piece(struct qsc_client *client, struct piece *piece)
{
	const struct qsc_wire_log_report *range = &piece->request.report;
	uint64_t bits = (range->length - 1) / range->page_size + 1;
	size_t words = qsc_bitmap_words(bits);
	uint64_t *reported = piece->call.data;
	uint64_t *bitmap = piece->bitmap;
	int result = qsc_rpc_finish(client->rpc, &piece->call);
	size_t i;

	if (!result)
		result = piece->call.result;
	if (result < 0) {
		if (reported == bitmap)
			memset(bitmap, 0, words * sizeof(*bitmap));
		return result;
	}
	/* Bits behind the range are not the server's to set. */
	reported[words - 1] &= qsc_bitmap_mask(0, (unsigned int)((bits - 1) % 64 + 1));
	for (i = 0; i < words && reported != bitmap; i++)
		bitmap[i] |= reported[i];
	return 0;
}

int qsc_client_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap)
{
	struct qsc_client *client = qsc_client_of(dev);
	uint64_t words = PIECE_WORDS;
	struct piece pieces[PIECES];
	uint32_t begun = 0;
	uint32_t ended = 0;
	int result = 0;

	/* Other servers bound a bitmap by what they transfer in one message. */
	if (!client->caps.quiesce)
		words = qsc_min_u64(words, qsc_max_u64(client->xfer_size / 16, sizeof(uint64_t)));
	pthread_mutex_lock(&client->report_lock);
	while ((size && !result) || ended < begun) {
		struct qsc_wire_log_report range = {
			.iova = iova, .length = size, .page_size = page_size};
		uint32_t slot = begun % PIECES;
		int failure;

		if (!size || result || begun - ended == PIECES) {
			failure = end_piece(client, &pieces[ended++ % PIECES]);
			result = result ? result : failure;
			continue;
		}
		if ((size - 1) / page_size >= words * 64)
			range.length = words * 64 * page_size;
		result = begin_piece(client, &pieces[slot], &range,
				     (uint64_t *)client->report + slot * PIECE_WORDS, bitmap);
		begun += !result;
		iova += range.length;
		size -= range.length;
		bitmap += words;
	}
	pthread_mutex_unlock(&client->report_lock);
	return result;
}
