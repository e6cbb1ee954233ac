/* SPDX-License-Identifier: MIT */
/* See layout.h. */
#include "device/layout.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool qsc_layout_name_valid(const char *name)
{
	size_t i;

	for (i = 0; i < QSC_LAYOUT_NAME && name[i]; i++)
		if (name[i] < ' ' || name[i] > '~')
			return false;
	return i > 0 && i < QSC_LAYOUT_NAME;
}

bool qsc_layout_valid(const struct qsc_layout *layout)
{
	uint32_t i;

	if (!layout->type[0])
		return layout->num_parts == 0;
	if (!qsc_layout_name_valid(layout->type) || layout->num_parts > QSC_LAYOUT_PARTS)
		return false;
	for (i = 0; i < layout->num_parts; i++) {
		const struct qsc_layout_part *part = &layout->parts[i];

		if (!qsc_layout_name_valid(part->name) || part->kind > QSC_LAYOUT_CUSTOM ||
		    part->min_version > part->version)
			return false;
	}
	return true;
}

struct list {
	qsc_layout_differ_fn *differ;
	void *ctx;
};

static void say(const struct list *list, const char *fmt, ...) QSC_PRINTF(2, 3);
static void say(const struct list *list, const char *fmt, ...)
{
	char text[320];
	va_list args;

	va_start(args, fmt);
	/* NOLINTNEXTLINE(clang-analyzer-valist.*) */
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	list->differ(list->ctx, text);
}

static const char *kind_name(enum qsc_layout_kind kind)
{
	static const char *const names[] = {"section", "block", "custom state"};

	return names[kind];
}

/* Of one version the size is fixed; an older section may have had fewer fields. */
static bool size_fits(const struct qsc_layout_part *ours, const struct qsc_layout_part *theirs)
{
	if (ours->kind == QSC_LAYOUT_CUSTOM ||
	    (ours->kind == QSC_LAYOUT_SECTION && theirs->version < ours->version))
		return theirs->size <= ours->size;
	return theirs->size == ours->size;
}

static void compare_part(uint32_t index, const struct qsc_layout_part *ours,
			 const struct qsc_layout_part *theirs, const struct list *list)
{
	const char *kind = kind_name(ours->kind);

	if (ours->kind != theirs->kind || strcmp(ours->name, theirs->name) != 0)
		say(list,
		    "part %u of the state is %s %s at the source and %s %s at the destination",
		    index, kind_name(theirs->kind), theirs->name, kind, ours->name);
	else if (theirs->version < ours->min_version || theirs->version > ours->version)
		say(list,
		    "%s %s has version %u at the source, and %u to %u can be loaded at the "
		    "destination",
		    kind, ours->name, theirs->version, ours->min_version, ours->version);
	else if (!size_fits(ours, theirs))
		say(list, "%s %s has %llu bytes at the source and %llu at the destination", kind,
		    ours->name, (unsigned long long)theirs->size, (unsigned long long)ours->size);
}

void qsc_layout_compare(const struct qsc_layout *ours, const struct qsc_layout *theirs,
			qsc_layout_differ_fn *differ, void *ctx)
{
	const struct list list = {.differ = differ, .ctx = ctx};
	uint32_t i;

	if (!ours->type[0] || !theirs->type[0])
		return;
	if (strcmp(ours->type, theirs->type) != 0) {
		/* Nothing else is comparable. */
		say(&list, "the type is %s at the source and %s at the destination", theirs->type,
		    ours->type);
		return;
	}
	if (ours->num_parts != theirs->num_parts)
		say(&list, "the state has %u parts at the source and %u at the destination",
		    theirs->num_parts, ours->num_parts);
	for (i = 0; i < ours->num_parts && i < theirs->num_parts; i++)
		compare_part(i, &ours->parts[i], &theirs->parts[i], &list);
}
