/* SPDX-License-Identifier: MIT */
/* See record.h. */
#include "check/record.h"

#include <stdio.h>
#include <string.h>

void record_clear(struct record *record)
{
	record->count = 0;
	record->times = 0;
	record->frozen = false;
}

void record_freeze(struct record *record)
{
	record->frozen = true;
}

static char *slot_of(struct record *record, uint64_t index)
{
	return index < RECORD_HEAD ? record->head[index]
				   : record->tail[(index - RECORD_HEAD) % RECORD_TAIL];
}

/* "…, 3 times" instead of three lines. */
static bool repeats(struct record *record, const char *line)
{
	char *last;
	size_t size = strnlen(line, RECORD_LINE - 24);

	if (!record->count)
		return false;
	last = slot_of(record, record->count - 1);
	if (strncmp(last, line, size) != 0 || (last[size] && last[size] != ','))
		return false;
	record->times++;
	(void)snprintf(last + size, RECORD_LINE - size, ", %llu times",
		       (unsigned long long)record->times);
	return true;
}

void record_add(struct record *record, const char *line)
{
	if (record->frozen || repeats(record, line))
		return;
	(void)snprintf(slot_of(record, record->count), RECORD_LINE, "%.*s", RECORD_LINE - 24, line);
	record->count++;
	record->times = 1;
}

/* "MICROSECONDS NAME STATE ACTION ARGUMENT=VALUE… = RESULT NANOSECONDSns" without its times. */
void record_trace(void *ctx, const char *line)
{
	const char *start = strchr(line, ' ');
	const char *end = strrchr(line, ' ');
	char text[RECORD_LINE];

	if (start && end > start) {
		(void)snprintf(text, sizeof(text), "%.*s", (int)(end - start - 1), start + 1);
		record_add(ctx, text);
	}
}

size_t record_lines(struct record *record, const char **lines, uint64_t *omitted)
{
	uint64_t tail = record->count > RECORD_HEAD ? record->count - RECORD_HEAD : 0;
	size_t n = 0;

	*omitted = tail > RECORD_TAIL ? tail - RECORD_TAIL : 0;
	for (uint64_t i = 0; i < record->count && i < RECORD_HEAD; i++)
		lines[n++] = slot_of(record, i);
	for (uint64_t i = RECORD_HEAD + *omitted; i < record->count; i++)
		lines[n++] = slot_of(record, i);
	return n;
}
