/* SPDX-License-Identifier: MIT */
/*
 * A driver that does anything: what it does is drawn from bytes, so that a fuzzer can choose them
 * as well as a seed. Everything must end, and the controller must serve a driver that behaves
 * afterwards.
 */
#ifndef NVME_HOSTILE_H
#define NVME_HOSTILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Run it on a controller of its own; false: something is wrong with it afterwards. */
bool nvme_hostile_run(const uint8_t *bytes, size_t size);

#endif
