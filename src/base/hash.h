/* SPDX-License-Identifier: MIT */
/*
 * XXH3 at the speed of the machine: where the library can choose by the processor it runs on, its
 * functions are those that do. The values are the same. Include this instead of <xxhash.h>.
 */
#ifndef QSC_BASE_HASH_H
#define QSC_BASE_HASH_H

#include <xxhash.h>

#ifdef QSC_HASH_DISPATCH
#include <xxh_x86dispatch.h>
#endif

#endif
