/* SPDX-License-Identifier: MIT */
/* The models by name, made from what a person types: "dmacopy,flags=7,memory=64M". */
#ifndef MODELS_H
#define MODELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/check.h>
#include <quiesce/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What the program decides and no person types. */
struct models_options {
	const char *name; /* for messages, where the SPEC has no name=; or NULL */
	/* As in struct qsc_runtime_options. */
	bool manual;
	void (*violation)(void *ctx, enum qsc_clause clause, const char *text);
	void *violation_ctx;
};

/* One NAME=VALUE that a model takes. */
struct model_option {
	const char *name;
	const char *values; /* what VALUE may be, as in "a power of two from 1 to 64" */
	const char *help;   /* one line */
	/* Store it in the model's settings; -EINVAL for another value. */
	int (*set)(void *settings, const char *value);
};

struct model_entry {
	const char *name;
	const char *summary;		    /* one line */
	const struct model_option *options; /* at most 64, ended by an entry with name NULL */
	size_t settings_size;		    /* what the options fill, zero at first */
	int (*create)(const void *settings, const struct models_options *options,
		      bool destroy_on_close, struct qsc_runtime **rt, struct qsc_error *err);
};

/* All models; ended by an entry with name NULL. */
extern const struct model_entry models_table[];

/*
 * Make the device that SPEC, "NAME[,OPTION=VALUE…]", describes. options may be NULL. -EINVAL with
 * one sentence that lists what there is when the model, an option or a value is unknown, and when
 * an option is given twice.
 */
int models_create(const char *spec, const struct models_options *options, struct qsc_runtime **rt,
		  struct qsc_error *err);

/* The same, opened; closing the handle destroys the device. */
int models_open(const char *spec, const struct models_options *options, struct qsc_device **dev,
		struct qsc_error *err);

/* What messages call the device of a SPEC that models_create() takes: its name=, or the model's. */
void models_name(const char *spec, char *name, size_t size);

/* Who makes these kinds of device work for a check, wherever they are; ended by NULL. */
extern const struct qsc_exerciser *const models_exercisers[];

/* A size in bytes as people write it: "65536", "64K", "64M", "64MiB", "1G". 0 or -EINVAL. */
int models_parse_size(const char *text, uint64_t *size);

#ifdef __cplusplus
}
#endif
#endif
