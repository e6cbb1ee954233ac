/* SPDX-License-Identifier: MIT */
/*
 * The actions on the device since it was opened, one line each: the first few and the last ones, so
 * that what went wrong can be shown. Lines are those of the trace layer without its times.
 */
#ifndef CHECK_RECORD_H
#define CHECK_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RECORD_HEAD 12
#define RECORD_TAIL 36
#define RECORD_LINE 160

struct record {
	char head[RECORD_HEAD][RECORD_LINE];
	char tail[RECORD_TAIL][RECORD_LINE]; /* a ring */
	uint64_t count;			     /* lines there were */
	uint64_t times;			     /* that the last one was repeated */
	bool frozen;
};

void record_clear(struct record *record);
/* Nothing is added from now on until it is cleared. */
void record_freeze(struct record *record);
void record_add(struct record *record, const char *line);
/* A qsc_trace_fn; ctx is the record. */
void record_trace(void *ctx, const char *line);

/* Pointers to the lines that are kept, at most RECORD_HEAD + RECORD_TAIL; how many. */
size_t record_lines(struct record *record, const char **lines, uint64_t *omitted);

#endif
