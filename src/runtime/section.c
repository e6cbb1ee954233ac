/* SPDX-License-Identifier: MIT */
/* See section.h. */
#include "runtime/section.h"

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/cleanup.h"
#include "device/layout.h"
#include "runtime/stream.h"

/* Far more than a structure of structures needs; fields are walked by recursion. */
#define MAX_DEPTH 8
/* A section must fit a record of the stream. */
#define MAX_SIZE (256U << 20)

static bool width_is_possible(uint32_t width)
{
	return width == 1 || width == 2 || width == 4 || width == 8;
}

static int check_fields(const struct qsc_field *fields, size_t limit, int depth,
			const char *section, struct qsc_error *err)
{
	const struct qsc_field *field;

	for (field = fields; field->name; field++) {
		uint64_t extent;

		if (!field->count || (!field->sub && !width_is_possible(field->width)) ||
		    (!field->sub && field->stride < field->width))
			return qsc_error_set(err, EINVAL, NULL,
					     "field %s of section %s is not an integer of 1, 2, 4 "
					     "or 8 bytes or an array of them",
					     field->name, section);
		extent = (uint64_t)field->stride * field->count;
		if (!qsc_range_within(field->offset, extent, limit))
			return qsc_error_set(err, EINVAL, NULL,
					     "field %s of section %s does not lie inside the "
					     "state structure",
					     field->name, section);
		if (!field->sub)
			continue;
		if (depth == MAX_DEPTH)
			return qsc_error_set(err, EINVAL, NULL,
					     "field %s of section %s is nested too deeply",
					     field->name, section);
		if (check_fields(field->sub, field->stride, depth + 1, section, err) < 0)
			return -EINVAL;
	}
	return 0;
}

static uint64_t fields_size(const struct qsc_field *fields)
{
	const struct qsc_field *field;
	uint64_t size = 0;

	for (field = fields; field->name; field++) {
		size += (field->sub ? fields_size(field->sub) : field->width) * field->count;
		if (size > MAX_SIZE)
			return MAX_SIZE + 1ULL;
	}
	return size;
}

int qsc_sections_check(const struct qsc_section *sections, size_t state_size, struct qsc_error *err)
{
	const struct qsc_section *section;
	const struct qsc_section *other;

	if (!sections)
		return 0;
	for (section = sections; section->name; section++) {
		if (!qsc_layout_name_valid(section->name) || section - sections >= QSC_LAYOUT_PARTS)
			return qsc_error_set(err, EINVAL, NULL,
					     "the name of section %s is not one of 1 to %u "
					     "printable characters, or there are more than %u "
					     "sections",
					     section->name, QSC_STREAM_MAX_NAME, QSC_LAYOUT_PARTS);
		for (other = sections; other < section; other++) {
			if (!strcmp(other->name, section->name))
				return qsc_error_set(err, EINVAL, NULL,
						     "there are two sections named %s",
						     section->name);
		}
		if (section->min_version > section->version)
			return qsc_error_set(err, EINVAL, NULL,
					     "section %s has version %u, which is below its lowest "
					     "readable version %u",
					     section->name, section->version, section->min_version);
		if (!section->fields)
			return qsc_error_set(err, EINVAL, NULL, "section %s has no fields",
					     section->name);
		if (check_fields(section->fields, state_size, 0, section->name, err) < 0)
			return -EINVAL;
		if (fields_size(section->fields) > MAX_SIZE)
			return qsc_error_set(err, EINVAL, NULL,
					     "section %s has more than %u bytes; put large state "
					     "into a block",
					     section->name, MAX_SIZE);
	}
	return 0;
}

size_t qsc_sections_count(const struct qsc_section *sections)
{
	size_t count = 0;

	while (sections && sections[count].name)
		count++;
	return count;
}

size_t qsc_section_size(const struct qsc_section *section)
{
	return (size_t)fields_size(section->fields);
}

static uint8_t *encode_integer(const void *from, uint32_t width, uint8_t *bytes)
{
	uint64_t value = 0;
	uint16_t half;
	uint32_t word;

	switch (width) {
	case 1:
		value = *(const uint8_t *)from;
		break;
	case 2:
		memcpy(&half, from, sizeof(half));
		value = half;
		break;
	case 4:
		memcpy(&word, from, sizeof(word));
		value = word;
		break;
	default:
		memcpy(&value, from, sizeof(value));
		break;
	}
	value = htole64(value);
	memcpy(bytes, &value, width);
	return bytes + width;
}

static const uint8_t *decode_integer(void *to, uint32_t width, const uint8_t *bytes)
{
	uint64_t value = 0;
	uint16_t half;
	uint32_t word;

	memcpy(&value, bytes, width);
	value = le64toh(value);
	switch (width) {
	case 1:
		*(uint8_t *)to = (uint8_t)value;
		break;
	case 2:
		half = (uint16_t)value;
		memcpy(to, &half, sizeof(half));
		break;
	case 4:
		word = (uint32_t)value;
		memcpy(to, &word, sizeof(word));
		break;
	default:
		memcpy(to, &value, sizeof(value));
		break;
	}
	return bytes + width;
}

static uint8_t *encode_fields(const struct qsc_field *fields, const char *base, uint8_t *bytes)
{
	const struct qsc_field *field;
	uint32_t i;

	for (field = fields; field->name; field++) {
		const char *at = base + field->offset;

		for (i = 0; i < field->count; i++, at += field->stride)
			bytes = field->sub ? encode_fields(field->sub, at, bytes)
					   : encode_integer(at, field->width, bytes);
	}
	return bytes;
}

static const uint8_t *decode_fields(const struct qsc_field *fields, char *base,
				    const uint8_t *bytes)
{
	const struct qsc_field *field;
	uint32_t i;

	for (field = fields; field->name; field++) {
		char *at = base + field->offset;

		for (i = 0; i < field->count; i++, at += field->stride)
			bytes = field->sub ? decode_fields(field->sub, at, bytes)
					   : decode_integer(at, field->width, bytes);
	}
	return bytes;
}

void qsc_section_encode(const struct qsc_section *section, const void *state, uint8_t *bytes)
{
	(void)encode_fields(section->fields, state, bytes);
}

void qsc_section_decode(const struct qsc_section *section, void *state, const uint8_t *bytes)
{
	(void)decode_fields(section->fields, state, bytes);
}
