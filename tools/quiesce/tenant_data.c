/* SPDX-License-Identifier: MIT */
/* See tenant_data.h. */
#include "tenant_data.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SEED_BLOCKS 0x9e3779b97f4a7c15ULL

int tenant_source_open(const char *path, struct tenant_source *source, struct qsc_error *err)
{
	struct stat st;
	char byte;
	int fd;

	*source = (struct tenant_source)TENANT_SOURCE_NONE;
	if (!path)
		return 0;
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return qsc_error_set(err, errno, NULL, "cannot open %s: %s", path, strerror(errno));
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return qsc_error_set(err, EINVAL, NULL,
				     "%s is not a regular file: give one that can be read twice",
				     path);
	}
	if (st.st_size == 0) {
		close(fd);
		return qsc_error_set(err, EINVAL, NULL, "%s is empty: there is nothing to move",
				     path);
	}
	if (pread(fd, &byte, 1, 0) != 1) {
		int number = errno;

		close(fd);
		return qsc_error_set(err, number, NULL, "cannot read %s: %s", path,
				     strerror(number));
	}
	source->fd = fd;
	source->size_bytes = (uint64_t)st.st_size;
	return 0;
}

void tenant_source_close(struct tenant_source *source)
{
	if (source->fd >= 0)
		close(source->fd);
	*source = (struct tenant_source)TENANT_SOURCE_NONE;
}

int tenant_source_block(const struct tenant_source *source, uint64_t index, void *buf, size_t size)
{
	uint8_t *out = buf;
	uint64_t offset;

	if (source->fd < 0) {
		tenant_pattern(SEED_BLOCKS, index, buf, size);
		return 0;
	}
	offset = index % source->size_bytes * (size % source->size_bytes) % source->size_bytes;
	while (size) {
		uint64_t rest = source->size_bytes - offset;
		ssize_t n = pread(source->fd, out, size < rest ? size : (size_t)rest,
				  (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		out += n;
		size -= (size_t)n;
		offset = (offset + (uint64_t)n) % source->size_bytes;
	}
	return 0;
}

uint64_t tenant_source_identity(const struct tenant_source *source)
{
	uint8_t sample[4096] = {0};

	if (source->fd < 0)
		return 0;
	if (tenant_source_block(source, 0, sample, sizeof(sample)) < 0)
		return 0;
	return XXH3_64bits_withSeed(sample, sizeof(sample), source->size_bytes);
}

void tenant_pattern(uint64_t seed, uint64_t index, void *buf, size_t size)
{
	uint64_t state = (seed + index) * 0xd1342543de82ef95ULL;
	uint8_t *out = buf;
	size_t i;

	for (i = 0; i < size; i += sizeof(uint64_t)) {
		uint64_t word = state + i * 0x9e3779b97f4a7c15ULL;

		word = (word ^ (word >> 29)) * 0xbf58476d1ce4e5b9ULL;
		word ^= word >> 32;
		memcpy(out + i, &word, sizeof(word));
	}
}

uint64_t tenant_count_wrong(const void *a, const void *b, size_t size)
{
	const uint8_t *left = a, *right = b;
	uint64_t wrong = 0;
	size_t i;

	if (!memcmp(a, b, size))
		return 0;
	for (i = 0; i < size; i++)
		wrong += left[i] != right[i];
	return wrong;
}
