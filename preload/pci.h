/* SPDX-License-Identifier: MIT */
/* What a device says in the capabilities of its configuration space. */
#ifndef PRELOAD_PCI_H
#define PRELOAD_PCI_H

#include <stdbool.h>
#include <stdint.h>

struct pl_dev;

struct pl_pci {
	bool express;
	/* The MSI-X table; size 0: there is none. */
	uint32_t msix_bar;
	uint64_t msix_offset;
	uint64_t msix_size;
};

/* Learn it when the device is opened; its configuration space has been described. */
void pl_pci_learn(struct pl_dev *dev);

#endif
