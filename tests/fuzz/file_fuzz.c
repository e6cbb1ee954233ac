/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a file that holds a set, as whoever restores it finds it. The input is the file, or
 * what lies between a head and a tail with its length and hash made right. Only what is whole is
 * handed out, and then exactly what was put in.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "transport/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define AROUND (QSC_FILE_HEAD_SIZE + QSC_FILE_TAIL_SIZE)

static void must(bool holds)
{
	if (!holds)
		abort();
}

/* A whole file around the bytes, of which one is then changed when `damage` says so. */
static size_t wrap(const uint8_t *data, size_t size, unsigned int damage, uint8_t *file)
{
	uint8_t *tail = file + QSC_FILE_HEAD_SIZE + size;

	qsc_file_encode_head(file);
	memcpy(file + QSC_FILE_HEAD_SIZE, data, size);
	qsc_file_encode_tail(size, tail);
	qsc_file_encode_hash(XXH3_128bits(file, size + AROUND - QSC_FILE_HASH_SIZE), tail);
	if (damage)
		file[damage % (size + AROUND)] ^= 1;
	return size + AROUND;
}

static int restore(const uint8_t *file, size_t size, struct qsc_channel **ch)
{
	struct qsc_transport *transport;
	int fds[2];
	int result;

	/* All of it fits in a pipe. */
	must(pipe2(fds, O_CLOEXEC) == 0 && write(fds[1], file, size) == (ssize_t)size);
	close(fds[1]);
	must(qsc_file_restore(NULL, fds[0], "/dev/shm", &transport, NULL) == 0);
	do
		result = transport->ops->open(transport, 1000, ch, NULL);
	while (result == -EINPROGRESS);
	qsc_transport_close(transport);
	close(fds[0]);
	return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t file[16384 + AROUND];
	static uint8_t out[16384];
	struct qsc_channel *ch;
	unsigned int damage;
	int result;

	if (size < 3 || size > 16384)
		return 0;
	damage = data[1] | (unsigned int)data[2] << 8;
	if (data[0] & 1) {
		result = restore(data + 3, size - 3, &ch);
		must(result == 0 || result == -EBADMSG || result == -EPROTONOSUPPORT);
	} else {
		result = restore(file, wrap(data + 3, size - 3, damage, file), &ch);
		/* The minor version may be any, but the hash covers it. */
		must(damage ? result < 0 : result == 0);
	}
	if (result < 0)
		return 0;
	if (!(data[0] & 1)) {
		must(ch->ops->recv(ch, out, size - 3) == 0);
		must(memcmp(out, data + 3, size - 3) == 0);
		must(ch->ops->recv(ch, out, 1) == -EPIPE);
	}
	ch->ops->close(ch);
	return 0;
}
