/* SPDX-License-Identifier: MIT */
/* A driver that does anything, from seeds; `fuzz-nvme` looks for more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "nvme/hostile.h"
#include "nvme/rig.h"

static void survives_any_driver(void **unused)
{
	static uint8_t bytes[6000];

	for (uint64_t seed = 1; seed <= 1000; seed++) {
		random_fill(bytes, sizeof(bytes), seed);
		if (!nvme_hostile_run(bytes, sizeof(bytes)))
			fail_msg("seed %llu left a controller that serves nobody",
				 (unsigned long long)seed);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(survives_any_driver)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
