/* SPDX-License-Identifier: MIT */
/* See bitmap.h. */
#include "base/bitmap.h"

/* First bit at or after `from` in bitmap ^ flip. */
static uint64_t next_in(const uint64_t *bitmap, uint64_t bits, uint64_t from, uint64_t flip)
{
	uint64_t word;
	uint64_t index;

	if (from >= bits)
		return bits;
	index = from / 64;
	word = (bitmap[index] ^ flip) & (~0ULL << (from % 64));
	while (!word) {
		if (++index * 64 >= bits)
			return bits;
		word = bitmap[index] ^ flip;
	}
	from = index * 64 + (uint64_t)__builtin_ctzll(word);
	return from < bits ? from : bits;
}

uint64_t qsc_bitmap_next(const uint64_t *bitmap, uint64_t bits, uint64_t from)
{
	return next_in(bitmap, bits, from, 0);
}

uint64_t qsc_bitmap_next_clear(const uint64_t *bitmap, uint64_t bits, uint64_t from)
{
	return next_in(bitmap, bits, from, ~0ULL);
}

uint64_t qsc_bitmap_count(const uint64_t *bitmap, uint64_t bits)
{
	uint64_t total = 0;
	uint64_t index;

	for (index = 0; index < bits / 64; index++)
		total += (uint64_t)__builtin_popcountll(bitmap[index]);
	if (bits % 64)
		total += (uint64_t)__builtin_popcountll(
			bitmap[index] & qsc_bitmap_mask(0, (unsigned int)(bits % 64)));
	return total;
}
