/* SPDX-License-Identifier: MIT */
/*
 * The program that runs in the guest: what a kernel's devices do when they are asked without the
 * client (raw), and what the client makes of it (drive, dma, measure). It prints lines that
 * tests/kernel/run reads:
 *
 *	CHECK ok NAME            CHECK failed NAME: WHY
 *	FINDING ID deviates      FINDING ID holds
 *	SAID ID TEXT             a line of the transcript of a finding
 *	FIGURE NAME TEXT
 */
#ifndef GUEST_H
#define GUEST_H

#include <stdbool.h>

#include <quiesce/client.h>

/* A line with the outcome; returns `held`. */
bool check(bool held, const char *name, const char *why, ...) QSC_PRINTF(3, 4);
void say(const char *fmt, ...) QSC_PRINTF(1, 2);
/* What cannot be gone on without: the process ends. */
_Noreturn void give_up(const char *fmt, ...) QSC_PRINTF(1, 2);

struct qsc_device *open_device(const char *uri);
/* Puts bytes into the first port of an mtty, which it then has in its buffer; and takes them out.
 */
void put_bytes(struct qsc_device *dev, const char *text);
void take_bytes(struct qsc_device *dev, char *text, size_t size);
/* All of a saving session, from the device's state on; the size. Ends in STOP_COPY. */
size_t save(struct qsc_device *dev, void *buf, size_t size);
/* Into RESUMING and all of it written; the result of the write, the session stays open. */
int load(struct qsc_device *dev, const void *buf, size_t size, size_t piece);

typedef int guest_command(int argc, char **argv);
guest_command cmd_raw, cmd_crash, cmd_matrix, cmd_move, cmd_refuse, cmd_files, cmd_rounds, cmd_pins,
	cmd_measure, cmd_dma, cmd_group, cmd_removal, cmd_vectors, cmd_hold, cmd_state;

#endif
