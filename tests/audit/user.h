/* SPDX-License-Identifier: MIT */
/*
 * A user of two devices that moves them to two others, step by step and by the contract, under an
 * audit. A liar does one step otherwise.
 */
#ifndef AUDIT_USER_H
#define AUDIT_USER_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/audit.h>

#define USER_DEVICES	 2
#define USER_MEMORY_IOVA 0x100000ULL
#define USER_MEMORY_SIZE 0x10000ULL
#define USER_PEER_IOVA	 0x40000000ULL
#define USER_PEER_SIZE	 0x10000ULL
#define USER_STREAM	 (1U << 20)

enum user_lie {
	LIE_NONE,
	LIE_REGISTER_STOPPED,
	LIE_REGISTER_P2P,
	LIE_IRQS_RESUMING,
	LIE_IRQS_LATE,
	LIE_CONFIG_RESUMING,
	LIE_DMA_LATE,
	LIE_GUESS,
	LIE_GUESS_REGISTER,
	LIE_GIVE_UP_EARLY,
	LIE_RESET_EARLY,
	LIE_GIVE_UP_REFUSED,
	LIE_LEAVE_PRECOPY,
	LIE_LEAVE_PRECOPY_BLIND,
	LIE_NO_LOG,
	LIE_LOG_PART,
	LIE_LOG_UNREAD,
	LIE_RESET_RUN,
	LIE_RESET_RUN_SOURCE,
	LIE_ABANDON,
	LIE_STOP_FIRST,
	LIE_RUN_EARLY,
	LIE_NOT_REVOKED,
	LIE_NOT_RESTORED,
	LIE_TWO_OWNERS,
	LIE_READ_ENDED,
};

struct user {
	struct qsc_audit *audit;
	uint32_t flags;
	enum user_lie lie;
	struct qsc_device *from[USER_DEVICES];
	struct qsc_device *to[USER_DEVICES];
	uint64_t saves[USER_DEVICES];
	uint64_t loads[USER_DEVICES];
	int irq;
	uint8_t *memory;
	uint8_t *stream[USER_DEVICES];
	size_t size[USER_DEVICES];
};

/* Move the devices. 0, or a line of user.c where a device answered otherwise than it must. */
int user_move(struct qsc_audit *audit, uint32_t flags, enum user_lie lie);

#endif
