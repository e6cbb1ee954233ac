/* SPDX-License-Identifier: MIT */
/* What a device's streams look like, told to its user before there is one. */
#include <stdio.h>

#include "runtime/section.h"
#include "runtime/stream.h"

static struct qsc_layout_part *add(struct qsc_layout *out, enum qsc_layout_kind kind,
				   const char *name, uint64_t size)
{
	struct qsc_layout_part *part = &out->parts[out->num_parts++];

	*part = (struct qsc_layout_part){.kind = kind, .size = size};
	(void)snprintf(part->name, sizeof(part->name), "%s", name);
	return part;
}

void qsc_stream_describe(const struct qsc_stream_layout *layout, struct qsc_layout *out)
{
	struct qsc_layout_part *part;
	uint32_t i;

	*out = (struct qsc_layout){.num_parts = 0};
	(void)snprintf(out->type, sizeof(out->type), "%s", layout->type);
	for (i = 0; i < layout->num_sections; i++) {
		const struct qsc_section *section = &layout->sections[i];

		part = add(out, QSC_LAYOUT_SECTION, section->name, qsc_section_size(section));
		part->version = section->version;
		part->min_version = section->min_version;
	}
	for (i = 0; i < layout->num_blocks; i++)
		(void)add(out, QSC_LAYOUT_BLOCK, layout->blocks[i].name, layout->blocks[i].size);
	if (layout->custom_max)
		(void)add(out, QSC_LAYOUT_CUSTOM, "custom", layout->custom_max);
}
