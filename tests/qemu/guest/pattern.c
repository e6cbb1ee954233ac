/* SPDX-License-Identifier: MIT */
#include "pattern.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define WORDS (PAGE_BYTES / sizeof(uint64_t))

static uint64_t seed_of(const struct tag *tag)
{
	uint64_t x = tag->generation * 0x9e3779b97f4a7c15u;

	x ^= ((uint64_t)tag->owner << 32 | tag->index) * 0xbf58476d1ce4e5b9u;
	return x ^ x >> 29;
}

static uint64_t next(uint64_t x)
{
	return x * 6364136223846793005u + 1442695040888963407u;
}

void pattern_fill(void *page, const struct tag *tag)
{
	uint64_t *words = page;
	uint64_t x = seed_of(tag);

	memcpy(words, tag, sizeof(*tag));
	for (size_t i = sizeof(*tag) / sizeof(*words); i < WORDS; i++) {
		words[i] = x;
		x = next(x);
	}
}

static size_t first_wrong_word(const uint64_t *words, const struct tag *tag)
{
	uint64_t x = seed_of(tag);

	for (size_t i = sizeof(*tag) / sizeof(*words); i < WORDS; i++) {
		if (words[i] != x)
			return i;
		x = next(x);
	}
	return WORDS;
}

static bool is_empty(const void *page)
{
	const char *bytes = page;

	return !bytes[0] && memcmp(bytes, bytes + 1, PAGE_BYTES - 1) == 0;
}

bool pattern_check(const void *page, const struct tag *tag, char *what, size_t what_bytes)
{
	size_t wrong = first_wrong_word(page, tag);
	struct tag found;

	memcpy(&found, page, sizeof(found));
	if (wrong == WORDS && memcmp(&found, tag, sizeof(found)) == 0)
		return true;
	if (is_empty(page))
		snprintf(what, what_bytes, "it holds nothing");
	else if (first_wrong_word(page, &found) != WORDS)
		snprintf(what, what_bytes, "byte %zu is wrong", wrong * sizeof(uint64_t));
	else if (found.owner == tag->owner && found.index == tag->index)
		snprintf(what, what_bytes, "it holds generation %" PRIu64 " instead of %" PRIu64,
			 found.generation, tag->generation);
	else
		snprintf(what, what_bytes, "it holds page %u of %u, generation %" PRIu64,
			 found.index, found.owner, found.generation);
	return false;
}
