/* SPDX-License-Identifier: MIT */
/*
 * Test support: a device that does what the contract says and nothing more, writes down every
 * direct arc and every mapping in one order for all devices of a world, and fails where a script
 * tells it to.
 */
#ifndef QSC_SET_FAKE_H
#define QSC_SET_FAKE_H

#include <pthread.h>

#include <quiesce/device.h>

#include "set/order_check.h"

struct fake_world {
	pthread_mutex_t lock;
	struct order_event events[4096];
	size_t count;
};

#define FAKE_WORLD_INIT                           \
	{                                         \
		.lock = PTHREAD_MUTEX_INITIALIZER \
	}

enum fake_call {
	FAKE_SET_STATE,
	FAKE_SESSION_READ,
	FAKE_SESSION_WRITE,
	FAKE_LOG_START,
	FAKE_LOG_REPORT,
	FAKE_DMA_MAP,
	FAKE_DMA_UNMAP,
	FAKE_RESET,
	FAKE_CALLS
};

struct fake_options {
	uint32_t side;
	uint32_t member;
	uint32_t flags;
	bool dirty_log;
	uint32_t state_bytes; /* of the stream; the first half is its pre-copy part */
	uint32_t seed;	      /* decides the bytes */
	uint32_t bar_bytes;   /* of BAR2; 0: 8 KiB */
};

#define FAKE_MAX_STATE (128U << 10)

struct fake {
	struct qsc_device base;
	struct fake_world *world;
	struct fake_options options;
	struct qsc_layout layout; /* what it says of its state */
	pthread_mutex_t lock;
	enum qsc_state state;
	uint64_t session; /* number of the last one */
	bool session_live;
	uint8_t contents[FAKE_MAX_STATE];
	uint32_t saved;	 /* of the open session */
	uint32_t loaded; /* of the open session */
	uint8_t incoming[FAKE_MAX_STATE];
	bool logging;
	uint64_t dirty_iova; /* one page the device "wrote", reported once; 0: none */
	uint8_t *bar;
	/* Script: the call counted down to zero fails with this errno; 0: none. */
	struct {
		int countdown;
		int number;
		int state;	 /* afterwards, or -1: as it was */
		uint32_t target; /* of FAKE_SET_STATE only; UINT32_MAX: any */
	} script[FAKE_CALLS];
	uint32_t resets;
	uint32_t asked; /* for its state */
};

/* Aborts the test when there is no memory. */
struct fake *fake_new(struct fake_world *world, const struct fake_options *options);
void fake_free(struct fake *fake);

/* The `nth` call (from 1) fails; with a target only set_state calls to it count. */
void fake_fail(struct fake *fake, enum fake_call call, uint32_t target, int nth, int number,
	       int state);

/* The stream that a device of this seed and size has. */
uint8_t fake_byte(uint32_t seed, uint32_t index);
bool fake_holds(const struct fake *fake, uint32_t seed);

#endif
