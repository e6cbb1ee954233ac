/* SPDX-License-Identifier: MIT */
/*
 * The table of models and the reader of "NAME,OPTION=VALUE,…". A model's options are a table too,
 * so that help and every error message can say what there is.
 */
#include "models.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dmacopy/dmacopy.h"
#include "dmacopy/exercise.h"
#include "nvme/exercise.h"
#include "nvme/nvme.h"

int models_parse_size(const char *text, uint64_t *size)
{
	static const char units[] = "KMGT";
	unsigned long long value;
	unsigned int shift = 0;
	const char *unit;
	char *end;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	value = strtoull(text, &end, 0);
	if (errno)
		return -EINVAL;
	if (*end) {
		unit = strchr(units, *end);
		if (!unit)
			return -EINVAL;
		shift = 10 * (unsigned int)(unit - units + 1);
		end++;
		if (strcmp(end, "iB") != 0 && strcmp(end, "B") != 0 && *end)
			return -EINVAL;
	}
	if (value > UINT64_MAX >> shift)
		return -EINVAL;
	*size = value << shift;
	return 0;
}

/* ---- options that several models have ---- */

#define FLAGS_VALUES "1, 3, 5 or 7, or stop-copy, p2p and pre-copy joined by '+'"
#define FLAGS_HELP   "migration capabilities (default 7)"
#define NAME_VALUES  "any text but the empty one, without a comma"
#define NAME_HELP    "name of the device in messages"

/* "7", or names joined by '+'; STOP_COPY is mandatory and so goes without saying. */
static int parse_flags(const char *value, uint32_t *result)
{
	static const struct {
		const char *name;
		uint32_t flags;
	} words[] = {
		{"1", 1},
		{"3", 3},
		{"5", 5},
		{"7", 7},
		{"stop-copy", QSC_MIGRATION_STOP_COPY},
		{"p2p", QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P},
		{"pre-copy", QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_PRE_COPY},
	};
	uint32_t flags = 0;

	for (;;) {
		size_t length = strcspn(value, "+");
		size_t i = 0;

		while (i < sizeof(words) / sizeof(words[0]) &&
		       (strncmp(value, words[i].name, length) != 0 || words[i].name[length]))
			i++;
		if (!length || i == sizeof(words) / sizeof(words[0]))
			return -EINVAL;
		flags |= words[i].flags;
		if (!value[length])
			break;
		value += length + 1;
	}
	*result = flags;
	return 0;
}

static int parse_switch(const char *value, bool *on)
{
	*on = strcmp(value, "on") == 0;
	return *on || strcmp(value, "off") == 0 ? 0 : -EINVAL;
}

/* ---- dmacopy ---- */

static int dmacopy_set_name(void *settings, const char *value)
{
	struct dmacopy_options *options = settings;

	options->name = value;
	return *value ? 0 : -EINVAL;
}

static int dmacopy_set_flags(void *settings, const char *value)
{
	struct dmacopy_options *options = settings;

	return parse_flags(value, &options->migration_flags);
}

static int dmacopy_set_tells_peers(void *settings, const char *value)
{
	struct dmacopy_options *options = settings;

	return parse_switch(value, &options->tells_peers);
}

static int dmacopy_set_memory(void *settings, const char *value)
{
	struct dmacopy_options *options = settings;
	uint64_t size;

	if (models_parse_size(value, &size) || size < DMACOPY_LOCAL_MIN ||
	    size > DMACOPY_LOCAL_MAX || size & (size - 1))
		return -EINVAL;
	options->local_size = size;
	return 0;
}

static int dmacopy_set_vectors(void *settings, const char *value)
{
	struct dmacopy_options *options = settings;
	uint64_t vectors;

	if (models_parse_size(value, &vectors) || !vectors || vectors > DMACOPY_VECTORS_MAX)
		return -EINVAL;
	options->vectors = (uint32_t)vectors;
	return 0;
}

static const struct model_option dmacopy_option_table[] = {
	{"flags", FLAGS_VALUES, FLAGS_HELP, dmacopy_set_flags},
	{"tells-peers", "on or off",
	 "memory DMA goes on in the P2P states because the engine tells peers from memory "
	 "(default off)",
	 dmacopy_set_tells_peers},
	{"memory", "a power of two from 4K to 1T", "size of the engine's own memory (default 1M)",
	 dmacopy_set_memory},
	{"vectors", "a number from 1 to 2048", "MSI-X vectors (default 16)", dmacopy_set_vectors},
	{"name", NAME_VALUES, NAME_HELP, dmacopy_set_name},
	{NULL, NULL, NULL, NULL},
};

static int dmacopy_entry_create(const void *settings, const struct models_options *options,
				bool destroy_on_close, struct qsc_runtime **rt,
				struct qsc_error *err)
{
	struct dmacopy_options dmacopy = *(const struct dmacopy_options *)settings;

	if (!dmacopy.name)
		dmacopy.name = options->name;
	dmacopy.manual = options->manual;
	dmacopy.destroy_on_close = destroy_on_close;
	dmacopy.violation = options->violation;
	dmacopy.violation_ctx = options->violation_ctx;
	return dmacopy_create(&dmacopy, rt, err);
}

/* ---- nvme ---- */

static int nvme_set_name(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	options->name = value;
	return *value ? 0 : -EINVAL;
}

static int nvme_set_flags(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	return parse_flags(value, &options->migration_flags);
}

static int nvme_set_file(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	options->file = value;
	return *value ? 0 : -EINVAL;
}

static int nvme_set_ram(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	return models_parse_size(value, &options->ram) || options->ram < NVME_RAM_MIN ||
			       options->ram > NVME_RAM_MAX || options->ram % 4096
		       ? -EINVAL
		       : 0;
}

static int nvme_set_readonly(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	return parse_switch(value, &options->readonly);
}

static int nvme_set_queues(void *settings, const char *value)
{
	struct nvme_options *options = settings;
	uint64_t queues;

	if (models_parse_size(value, &queues) || !queues || queues > NVME_QUEUES_MAX)
		return -EINVAL;
	options->queues = (uint32_t)queues;
	return 0;
}

static int nvme_set_serial(void *settings, const char *value)
{
	struct nvme_options *options = settings;

	options->serial = value;
	return *value && strlen(value) <= NVME_SERIAL_SIZE ? 0 : -EINVAL;
}

static const struct model_option nvme_option_table[] = {
	{"file", "the path of a file of at least 1 MiB, without a comma",
	 "keep the blocks in this file, which source and destination share", nvme_set_file},
	{"ram", "a multiple of 4K from 1M to 1T",
	 "keep the blocks in memory of this size, which migrates with the device", nvme_set_ram},
	{"readonly", "on or off", "only read the file, which others may do too (default off)",
	 nvme_set_readonly},
	{"queues", "a number from 1 to 32", "pairs of queues for I/O (default 8)", nvme_set_queues},
	{"serial", "1 to 20 printable characters, without a comma",
	 "serial number (default: made from the name)", nvme_set_serial},
	{"flags", FLAGS_VALUES, FLAGS_HELP, nvme_set_flags},
	{"name", NAME_VALUES, NAME_HELP, nvme_set_name},
	{NULL, NULL, NULL, NULL},
};

static int nvme_entry_create(const void *settings, const struct models_options *options,
			     bool destroy_on_close, struct qsc_runtime **rt, struct qsc_error *err)
{
	struct nvme_options nvme = *(const struct nvme_options *)settings;

	if (!nvme.name)
		nvme.name = options->name;
	nvme.manual = options->manual;
	nvme.destroy_on_close = destroy_on_close;
	nvme.violation = options->violation;
	nvme.violation_ctx = options->violation_ctx;
	return nvme_create(&nvme, rt, err);
}

const struct model_entry models_table[] = {
	{"dmacopy", "DMA copy engine with memory of its own and a descriptor ring",
	 dmacopy_option_table, sizeof(struct dmacopy_options), dmacopy_entry_create},
	{"nvme", "NVMe controller for the drivers of operating systems, on a file or on memory",
	 nvme_option_table, sizeof(struct nvme_options), nvme_entry_create},
	{NULL, NULL, NULL, 0, NULL},
};

const struct qsc_exerciser *const models_exercisers[] = {&dmacopy_exerciser, &nvme_exerciser,
							 &nvme_file_exerciser, NULL};

/* ---- reading a SPEC ---- */

static const struct model_entry *entry_find(const char *name, struct qsc_error *err)
{
	char known[256] = "";
	size_t used = 0;

	for (const struct model_entry *entry = models_table; entry->name; entry++) {
		if (strcmp(name, entry->name) == 0)
			return entry;
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
						 used ? ", " : "", entry->name);
	}
	qsc_error_set(err, EINVAL, NULL, "there is no model \"%s\"; there is: %s", name, known);
	return NULL;
}

static int unknown_option(const struct model_entry *entry, const char *name, struct qsc_error *err)
{
	char known[256] = "";
	size_t used = 0;

	for (const struct model_option *option = entry->options; option->name; option++) {
		if (used < sizeof(known))
			used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s",
						 used ? ", " : "", option->name);
	}
	return qsc_error_set(err, EINVAL, NULL, "model %s has no option \"%s\"; it has: %s",
			     entry->name, name, known);
}

/* given: one bit for each option of the table that has been set already. */
static int option_apply(const struct model_entry *entry, char *text, void *settings,
			uint64_t *given, struct qsc_error *err)
{
	char *value = strchr(text, '=');
	const struct model_option *option = entry->options;

	if (!*text)
		return qsc_error_set(err, EINVAL, NULL,
				     "an option of model %s is missing after a comma", entry->name);
	if (value)
		*value++ = '\0';
	while (option->name && strcmp(option->name, text) != 0)
		option++;
	if (!option->name)
		return unknown_option(entry, text, err);
	if (!value)
		return qsc_error_set(err, EINVAL, NULL,
				     "option %s of model %s needs a value: %s=VALUE, where VALUE "
				     "is %s",
				     text, entry->name, text, option->values);
	if (*given & 1ULL << (option - entry->options))
		return qsc_error_set(err, EINVAL, NULL,
				     "option %s of model %s is given twice; give it once", text,
				     entry->name);
	*given |= 1ULL << (option - entry->options);
	if (option->set(settings, value))
		return qsc_error_set(err, EINVAL, NULL,
				     "option %s of model %s cannot be \"%s\"; it is %s", text,
				     entry->name, value, option->values);
	return 0;
}

static int create(const char *spec, const struct models_options *options, bool destroy_on_close,
		  struct qsc_runtime **rt, struct qsc_error *err)
{
	static const struct models_options defaults;
	const struct model_entry *entry;
	char *text = strdup(spec);
	void *settings = NULL;
	uint64_t given = 0;
	char *rest = text;
	char *part;
	int ret;

	if (!text)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for model %s", spec);
	ret = -EINVAL;
	entry = entry_find(strsep(&rest, ","), err);
	if (!entry)
		goto out;
	ret = -ENOMEM;
	settings = calloc(1, entry->settings_size ? entry->settings_size : 1);
	if (!settings) {
		qsc_error_set(err, ENOMEM, NULL, "no memory for model %s", spec);
		goto out;
	}
	ret = 0;
	while (!ret && (part = strsep(&rest, ",")))
		ret = option_apply(entry, part, settings, &given, err);
	if (!ret)
		ret = entry->create(settings, options ? options : &defaults, destroy_on_close, rt,
				    err);
out:
	free(settings);
	free(text);
	return ret;
}

void models_name(const char *spec, char *name, size_t size)
{
	size_t length = strcspn(spec, ",");

	(void)snprintf(name, size, "%.*s", (int)length, spec);
	for (spec += length; *spec; spec += length) {
		spec++;
		length = strcspn(spec, ",");
		if (!strncmp(spec, "name=", 5))
			(void)snprintf(name, size, "%.*s", (int)length - 5, spec + 5);
	}
}

int models_create(const char *spec, const struct models_options *options, struct qsc_runtime **rt,
		  struct qsc_error *err)
{
	return create(spec, options, false, rt, err);
}

int models_open(const char *spec, const struct models_options *options, struct qsc_device **dev,
		struct qsc_error *err)
{
	struct qsc_runtime *rt = NULL;
	int ret = create(spec, options, true, &rt, err);

	if (ret)
		return ret;
	ret = qsc_runtime_open(rt, dev);
	if (ret) {
		qsc_runtime_destroy(rt);
		return qsc_error_set(err, -ret, NULL, "cannot open the model %s: %s", spec,
				     strerror(-ret));
	}
	return 0;
}
