/* SPDX-License-Identifier: MIT */
/* The calls a program makes on /dev/iommu, /dev/vfio and devices, in any order with any arguments.
 */
#include <stdlib.h>

#include "preload/surface.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (surface_init() < 0)
		abort();
	surface_run(data, size);
	return 0;
}
