/* SPDX-License-Identifier: MIT */
/* What `quiesce check` keeps of a device, for all that tell it. */
#ifndef TOOL_CHECK_H
#define TOOL_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <quiesce/check.h>

struct check_finding {
	struct qsc_check_item item;
	enum qsc_check_result result;
	enum qsc_clause clause;
	char *text;
	char **steps;
	size_t num_steps, head;
	uint64_t omitted;
	uint64_t seed;
	uint64_t took_us;
	bool gone;
	bool partly;
};

struct check_device {
	const char *uri;
	struct qsc_check_subject subject;
	struct check_finding *findings;
	size_t num_findings;
	size_t counts[QSC_CHECK_RESULT_COUNT];
	size_t partly;			 /* of those that hold */
	bool named_not_tried;		 /* an item that --clause names */
	bool unopened;			 /* it could not be opened again, for some items */
	char error[QSC_ERROR_TEXT_SIZE]; /* it could not be looked at */
	uint64_t took_us;
};

/* What can be seen again with one command. */
struct check_report {
	struct check_device *devices;
	size_t num_devices;
	const char *to;	      /* or NULL */
	const char *settings; /* further options, each after a blank */
};

/* TOOL_OK, TOOL_FAILED for a broken device, TOOL_UNTRIED. */
int check_code(const struct check_device *device);
/* "conforms", "broken", "could not be tried". */
const char *check_verdict(const struct check_device *device);
/* The command for a shell that shows a finding again; the caller's to free. */
char *check_again(const struct check_report *report, const struct check_device *device,
		  const struct check_finding *finding);
/* What a finding is about: the words of the clause, or of the item where there is none. */
const char *check_promise(const struct check_finding *finding);

/* For people, on stdout: what is checked, each finding as it comes, and the verdict at the end. */
void check_show_subject(const struct check_device *device, const struct check_report *report);
void check_show_finding(const struct check_finding *finding);
void check_show_verdict(const struct check_report *report, const struct check_device *device);

/* For programs. */
int check_write_json(const struct check_report *report, FILE *out);
int check_write_junit(const struct check_report *report, FILE *out);
void check_write_tap(const struct check_report *report);

#endif
