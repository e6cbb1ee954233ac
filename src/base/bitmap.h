/* SPDX-License-Identifier: MIT */
/*
 * Bitmaps of 64-bit words. Functions with `atomic` in their name may run against one another on the
 * same words; the others need the bitmap to themselves.
 */
#ifndef QSC_BASE_BITMAP_H
#define QSC_BASE_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline size_t qsc_bitmap_words(uint64_t bits)
{
	return (size_t)(bits / 64 + (bits % 64 != 0));
}

static inline void qsc_bitmap_set(uint64_t *bitmap, uint64_t bit)
{
	bitmap[bit / 64] |= 1ULL << (bit % 64);
}

static inline void qsc_bitmap_clear(uint64_t *bitmap, uint64_t bit)
{
	bitmap[bit / 64] &= ~(1ULL << (bit % 64));
}

static inline bool qsc_bitmap_test(const uint64_t *bitmap, uint64_t bit)
{
	return bitmap[bit / 64] >> (bit % 64) & 1;
}

/* Bits [first, first + count) of one word as a mask; first < 64, 1 <= count <= 64 - first. */
static inline uint64_t qsc_bitmap_mask(unsigned int first, unsigned int count)
{
	return (count == 64 ? ~0ULL : (1ULL << count) - 1) << first;
}

/*
 * Set [first, first + count). Always a read-modify-write, also where the bits are set already: it
 * orders what was written before it against whoever takes the word with an exchange afterwards. A
 * plain look first would not (the write could still be in the store buffer), and a dirty page would
 * be missed (LOG-1).
 */
static inline void qsc_bitmap_atomic_set_range(_Atomic uint64_t *bitmap, uint64_t first,
					       uint64_t count)
{
	while (count) {
		unsigned int bit = (unsigned int)(first % 64);
		unsigned int n = count < 64 - bit ? (unsigned int)count : 64 - bit;

		atomic_fetch_or_explicit(&bitmap[first / 64], qsc_bitmap_mask(bit, n),
					 memory_order_acq_rel);
		first += n;
		count -= n;
	}
}

/* First set bit at or after `from`, or `bits` when there is none. */
uint64_t qsc_bitmap_next(const uint64_t *bitmap, uint64_t bits, uint64_t from);

/* First clear bit at or after `from`, or `bits` when there is none. */
uint64_t qsc_bitmap_next_clear(const uint64_t *bitmap, uint64_t bits, uint64_t from);

/* Number of set bits. */
uint64_t qsc_bitmap_count(const uint64_t *bitmap, uint64_t bits);

#endif
