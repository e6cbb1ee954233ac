/* SPDX-License-Identifier: MIT */
/*
 * Fuzz target: a driver of the NVMe controller that does anything with its registers, its queues,
 * its memory and its migration states (models/nvme/hostile.c). It must end, and leave a controller
 * that serves the next driver.
 */
#include <stdlib.h>

#include "nvme/hostile.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!nvme_hostile_run(data, size))
		abort();
	return 0;
}
