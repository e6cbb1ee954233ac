/* SPDX-License-Identifier: MIT */
/*
 * Test support: judges the order of what happened to the devices of a set against SET-1 to
 * SET-5. Knows nothing of how the set or the engine work; only events go in.
 */
#ifndef QSC_SET_ORDER_CHECK_H
#define QSC_SET_ORDER_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/contract.h>

#define ORDER_SIDES   2
#define ORDER_MEMBERS 8

enum order_kind {
	ORDER_STATE, /* one direct arc was taken */
	ORDER_RESET, /* power-on contents: nothing that was moved is left in it */
	ORDER_MAP,   /* a mapping of a region of `peer` */
	ORDER_UNMAP,
};

struct order_event {
	enum order_kind kind;
	uint32_t side; /* 0 source, 1 destination */
	uint32_t member;
	enum qsc_state from;
	enum qsc_state to;
	uint32_t peer;
	uint64_t iova;
};

struct order_set {
	uint32_t members;
	uint32_t flags[ORDER_MEMBERS];
};

/*
 * The first clause broken, with the index of the event in *where, or -1. Before the first event
 * every member of both sides is RUNNING without mappings, and side 0 holds what is moved.
 */
int order_check(const struct order_set *set, const struct order_event *events, size_t count,
		size_t *where);

#endif
