/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: the state stream of a device, through its RESUMING session. The input is either the
 * stream itself, or edits to a valid one, with its digest made right again or not, so that what
 * lies behind the digest is reached as well. Whatever was written, the device ends in a state that
 * the contract knows, runs on what it accepted, and after a reset shows no trace of it (SESS-6,
 * SESS-7).
 */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include <quiesce/device.h>

#include "dmacopy/dmacopy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { RAW, EDITED, EDITED_WITH_DIGEST, NUM_MODES };

#define MAX_STREAM (256U << 10)

static struct qsc_runtime *rt;
static struct qsc_device *dev;
static uint8_t power_on[MAX_STREAM]; /* the stream of a device that was just reset */
static size_t power_on_size;

static void must(bool holds)
{
	if (!holds)
		abort();
}

static uint64_t enter(enum qsc_state state)
{
	uint64_t session = 0;

	must(qsc_device_set_state(dev, state, &session) == 0);
	return session;
}

static size_t save(uint8_t *stream)
{
	uint64_t session = enter(QSC_STATE_STOP_COPY);
	size_t size = 0;
	ssize_t n;

	while ((n = qsc_device_session_read(dev, session, stream + size, MAX_STREAM - size)) > 0)
		size += (size_t)n;
	must(n == 0);
	enter(QSC_STATE_RUNNING);
	return size;
}

static void make_device(void)
{
	const struct dmacopy_options options = {
		.local_size = 32768, .vectors = 4, .manual = true, .tells_peers = true};
	uint8_t pattern[8192];

	must(dmacopy_create(&options, &rt, NULL) == 0 && qsc_runtime_open(rt, &dev) == 0);
	power_on_size = save(power_on);
	/* Edits are made to a stream that holds pages too. */
	memset(pattern, 0x5a, sizeof(pattern));
	must(qsc_device_region_write(dev, DMACOPY_BAR_LOCAL, 4096, pattern, sizeof(pattern)) > 0);
}

/* Edits are four bytes: where (16 bits), what, and how (set, flip, add). */
static size_t edit(uint8_t *stream, size_t stream_size, const uint8_t *edits, size_t size,
		   bool digest)
{
	uint64_t sum;

	for (; size >= 4; edits += 4, size -= 4) {
		size_t at = (size_t)(edits[0] | edits[1] << 8) % stream_size;

		if (edits[3] % 3 == 0)
			stream[at] = edits[2];
		else if (edits[3] % 3 == 1)
			stream[at] ^= edits[2];
		else
			stream[at] = (uint8_t)(stream[at] + edits[2]);
	}
	if (digest) {
		sum = XXH3_64bits(stream, stream_size - sizeof(sum));
		memcpy(stream + stream_size - sizeof(sum), &sum, sizeof(sum));
	}
	return stream_size;
}

static void load(const uint8_t *stream, size_t size, size_t piece)
{
	uint64_t session = enter(QSC_STATE_RESUMING);
	enum qsc_state state = QSC_STATE_ERROR;
	uint64_t none;
	int result;

	while (size) {
		size_t n = size < piece ? size : piece;

		if (qsc_device_session_write(dev, session, stream, n) < 0)
			break;
		stream += n;
		size -= n;
	}
	result = qsc_device_set_state(dev, QSC_STATE_STOP, &none);
	must(qsc_device_get_state(dev, &state) == 0);
	must(state == (result == 0 ? QSC_STATE_STOP
				   : (result == -ENODATA ? QSC_STATE_RESUMING : QSC_STATE_ERROR)));
	if (result == 0) {
		enter(QSC_STATE_RUNNING);
		for (uint64_t i = 0; i < 64 && qsc_runtime_step(rt, i); i++)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t stream[MAX_STREAM];
	static uint8_t again[MAX_STREAM];
	size_t stream_size;
	unsigned int mode;
	size_t piece;

	if (!rt)
		make_device();
	if (size < 2)
		return 0;
	mode = data[0] % NUM_MODES;
	piece = data[1] ? data[1] : MAX_STREAM;
	data += 2;
	size -= 2;
	if (mode == RAW) {
		stream_size = size < MAX_STREAM ? size : MAX_STREAM;
		memcpy(stream, data, stream_size);
	} else {
		uint8_t page[64];

		memset(page, 0x5a, sizeof(page));
		must(qsc_device_region_write(dev, DMACOPY_BAR_LOCAL, 4096, page, 64) == 64);
		stream_size = edit(stream, save(stream), data, size, mode == EDITED_WITH_DIGEST);
	}
	load(stream, stream_size, piece);
	must(qsc_device_reset(dev) == 0);
	must(save(again) == power_on_size && memcmp(again, power_on, power_on_size) == 0);
	return 0;
}
