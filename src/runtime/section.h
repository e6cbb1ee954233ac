/* SPDX-License-Identifier: MIT */
/*
 * Declared state as bytes: the fields of a section in order, little-endian, without padding. Pure:
 * works on memory it is given, and is the same on every machine.
 */
#ifndef QSC_RUNTIME_SECTION_H
#define QSC_RUNTIME_SECTION_H

#include <stddef.h>
#include <stdint.h>

#include <quiesce/runtime.h>

/*
 * Whether the sections can be: names given, short enough and different, versions in order, every
 * field inside the state structure. 0 or -EINVAL with the reason in err.
 */
int qsc_sections_check(const struct qsc_section *sections, size_t state_size,
		       struct qsc_error *err);

/* How many there are; NULL has none. */
size_t qsc_sections_count(const struct qsc_section *sections);

/* Bytes of a section in the stream. */
size_t qsc_section_size(const struct qsc_section *section);

/* Write them to `bytes`, or read the state from them. */
void qsc_section_encode(const struct qsc_section *section, const void *state, uint8_t *bytes);
void qsc_section_decode(const struct qsc_section *section, void *state, const uint8_t *bytes);

#endif
