/* SPDX-License-Identifier: MIT */
/* See bitmap.h. */
#include "bitmap.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "user.h"

#define PIECE_WORDS 8192UL /* 2 GiB of 4 KiB pages */

/* One piece: at most PIECE_WORDS of the bitmap. */
static int report_piece(pl_report *report, void *ctx, const uint64_t range[2], uint64_t page_size,
			uint64_t *words, void *user)
{
	uint64_t pages = range[1] / page_size + (range[1] % page_size != 0);
	size_t count = (size_t)((pages + 63) / 64);
	uint64_t there[64];
	int result;

	memset(words, 0, count * sizeof(*words));
	result = report(ctx, range[0], range[1], page_size, words);
	/* What the log gave must not be lost with a failure half way: all of it is handed over. */
	for (size_t at = 0; at < count && !result; at += 64) {
		size_t n = count - at < 64 ? count - at : 64;
		char *place = (char *)user + at * sizeof(*words);

		result = pl_copy_in(there, place, n * sizeof(*words));
		for (size_t i = 0; i < n && !result; i++)
			there[i] |= words[at + i];
		if (!result)
			result = pl_copy_out(place, there, n * sizeof(*words));
	}
	return result;
}

int pl_bitmap_report(pl_report *report, void *ctx, uint64_t iova, uint64_t size, uint64_t page_size,
		     void *user)
{
	uint64_t pages = size / page_size + (size % page_size != 0);
	uint64_t most = PIECE_WORDS * 64 * page_size;
	uint64_t *words;
	int result;

	if (!size || iova % page_size)
		return -EINVAL;
	result = pl_can_write(user, (size_t)((pages + 63) / 64 * sizeof(uint64_t)));
	if (result < 0)
		return result;
	if (most / page_size != PIECE_WORDS * 64)
		most = UINT64_MAX; /* pages so large that all of them are one piece */
	words = malloc(PIECE_WORDS * sizeof(*words));
	if (!words)
		return -ENOMEM;
	for (uint64_t done = 0; done < size && !result;) {
		uint64_t range[2] = {iova + done, size - done < most ? size - done : most};
		char *place = (char *)user + done / page_size / 8;

		result = report_piece(report, ctx, range, page_size, words, place);
		done += range[1];
	}
	free(words);
	return result;
}
