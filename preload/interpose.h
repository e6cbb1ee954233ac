/* SPDX-License-Identifier: MIT */
/*
 * The calls that are caught. Each asks whether it is about something of ours, which takes no lock,
 * and goes to the C library otherwise. All that it does for our own files is elsewhere.
 */
#ifndef PRELOAD_INTERPOSE_H
#define PRELOAD_INTERPOSE_H

/* Both spellings of a call are defined, so neither may stand for the other. Included first. */
#undef _FILE_OFFSET_BITS
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <stdatomic.h>

#define CAUGHT __attribute__((visibility("default")))

void *pl_next(_Atomic(void *) *known, const char *name);

/* What would be called without us. */
#define NEXT(name)                                           \
	({                                                   \
		static _Atomic(void *) known;                \
		(__typeof__(&(name)))pl_next(&known, #name); \
	})

/* A value or -errno as the C library gives it. */
static inline long answer(long result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

#endif
