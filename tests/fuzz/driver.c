/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target without libFuzzer: on the files that are named, or on inputs made from a fixed
 * seed, so that the suite tries every target also where the compiler is gcc.
 *
 *   TARGET [--count N] [FILE …]
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SIZE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int run_file(const char *path)
{
	static uint8_t bytes[1 << 20];
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file) {
		perror(path);
		return 1;
	}
	size = fread(bytes, 1, sizeof(bytes), file);
	(void)fclose(file);
	return LLVMFuzzerTestOneInput(bytes, size);
}

static uint64_t next(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

int main(int argc, char **argv)
{
	uint64_t count = 2000;
	uint64_t state = 0x9e3779b97f4a7c15ULL;
	uint64_t i;
	int first = 1;

	if (argc > 2 && strcmp(argv[1], "--count") == 0) {
		count = strtoull(argv[2], NULL, 0);
		first = 3;
	}
	if (first < argc) {
		for (; first < argc; first++)
			if (run_file(argv[first]) != 0)
				return 1;
		return 0;
	}
	for (i = 0; i < count; i++) {
		static uint8_t bytes[MAX_SIZE];
		size_t size = next(&state) % MAX_SIZE;
		size_t at;

		/* Small values are the interesting ones. */
		for (at = 0; at < size; at++) {
			uint64_t value = next(&state);

			bytes[at] = (uint8_t)(value >> 8 & (value & 1 ? 0xff : 0x0f));
		}
		(void)LLVMFuzzerTestOneInput(bytes, size);
	}
	return 0;
}
