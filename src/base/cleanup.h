/* SPDX-License-Identifier: MIT */
/*
 * Locals that release themselves, and the small arithmetic that everything needs. Ranges come from
 * other processes: every sum that could wrap is checked here and nowhere else.
 */
#ifndef QSC_BASE_CLEANUP_H
#define QSC_BASE_CLEANUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define qsc_cleanup(fn) __attribute__((cleanup(fn)))

static inline void qsc_free_pointer(void *pointer)
{
	free(*(void **)pointer);
}

/* A pointer that is freed at the end of its scope. */
#define qsc_autofree qsc_cleanup(qsc_free_pointer)

/* Take a pointer out of such a local, so that it outlives the scope. */
#define qsc_steal(pointer)                                   \
	__extension__({                                      \
		__typeof__(pointer) qsc_stolen_ = (pointer); \
		(pointer) = NULL;                            \
		qsc_stolen_;                                 \
	})

#define qsc_container_of(pointer, type, member) \
	((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define QSC_ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

#define QSC_PAGE_SIZE 4096ULL

static inline bool qsc_is_power_of_two(uint64_t value)
{
	return value && !(value & (value - 1));
}

/* alignment is a power of two; value + alignment must not wrap. */
static inline uint64_t qsc_align_up(uint64_t value, uint64_t alignment)
{
	return (value + alignment - 1) & ~(alignment - 1);
}

/* Not empty, and its last byte has an address. */
static inline bool qsc_range_valid(uint64_t start, uint64_t size)
{
	return size && start <= UINT64_MAX - (size - 1);
}

/* [start, start + size) lies in [0, limit); an empty range does where its start does. */
static inline bool qsc_range_within(uint64_t start, uint64_t size, uint64_t limit)
{
	return start <= limit && size <= limit - start;
}

/* Both ranges are valid. */
static inline bool qsc_ranges_overlap(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a <= b + (b_size - 1) && b <= a + (a_size - 1);
}

static inline uint64_t qsc_min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t qsc_max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

#endif
