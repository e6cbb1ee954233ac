/* SPDX-License-Identifier: MIT */
/* The data that a tenant moves and keeps, all of it reproducible from an index on either side. */
#ifndef TENANT_DATA_H
#define TENANT_DATA_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>

/* Where blocks come from: a file, or, with fd -1, a generator. */
struct tenant_source {
	int fd;
	uint64_t size_bytes; /* of the file */
};

/* clang-format off */
#define TENANT_SOURCE_NONE {-1, 0}
/* clang-format on */

/* path NULL: generated data. -errno with one sentence in err when the file cannot serve. */
int tenant_source_open(const char *path, struct tenant_source *source, struct qsc_error *err);
void tenant_source_close(struct tenant_source *source);

/*
 * Block `index` of the data, `size` bytes; a file is read over and over. 0, or -errno when the file
 * cannot be read (any more).
 */
int tenant_source_block(const struct tenant_source *source, uint64_t index, void *buf, size_t size);

/* Something that tells one source from another: the same on both sides or the data will differ. */
uint64_t tenant_source_identity(const struct tenant_source *source);

/* Pseudo-random bytes that depend on both numbers; size is a multiple of 8. */
void tenant_pattern(uint64_t seed, uint64_t index, void *buf, size_t size);

/* In how many bytes the two differ. */
uint64_t tenant_count_wrong(const void *a, const void *b, size_t size);

#endif
