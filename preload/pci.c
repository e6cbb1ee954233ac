/* SPDX-License-Identifier: MIT */
/* See pci.h. A device may say anything: what lies outside the space or goes round is not there. */
#include "pci.h"

#include <linux/pci_regs.h>
#include <string.h>

#include "device.h"

#define CONFIG_SIZE 256U /* the part that has these capabilities */
#define MAX_CAPS    48U	 /* that fit */

static uint32_t word_at(const uint8_t *config, unsigned int at, unsigned int size)
{
	uint32_t value = 0;

	for (unsigned int i = 0; i < size && at + i < CONFIG_SIZE; i++)
		value |= (uint32_t)config[at + i] << (8 * i);
	return value;
}

static void learn_msix(struct pl_pci *pci, const uint8_t *config, unsigned int at)
{
	uint32_t table = word_at(config, at + PCI_MSIX_TABLE, 4);
	uint32_t entries = (word_at(config, at + PCI_MSIX_FLAGS, 2) & PCI_MSIX_FLAGS_QSIZE) + 1;

	pci->msix_bar = table & PCI_MSIX_TABLE_BIR;
	pci->msix_offset = table & PCI_MSIX_TABLE_OFFSET;
	pci->msix_size = (uint64_t)entries * PCI_MSIX_ENTRY_SIZE;
}

void pl_pci_learn(struct pl_dev *dev)
{
	uint8_t config[CONFIG_SIZE] = {0};
	unsigned int at;

	memset(&dev->pci, 0, sizeof(dev->pci));
	if (dev->regions[VFIO_PCI_CONFIG_REGION_INDEX].size < CONFIG_SIZE ||
	    qsc_device_region_read(dev->dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, config,
				   CONFIG_SIZE) != CONFIG_SIZE ||
	    !(word_at(config, PCI_STATUS, 2) & PCI_STATUS_CAP_LIST))
		return;
	at = config[PCI_CAPABILITY_LIST] & ~3U;
	for (unsigned int i = 0; i < MAX_CAPS && at >= PCI_STD_HEADER_SIZEOF; i++) {
		if (config[at + PCI_CAP_LIST_ID] == PCI_CAP_ID_EXP)
			dev->pci.express = true;
		if (config[at + PCI_CAP_LIST_ID] == PCI_CAP_ID_MSIX)
			learn_msix(&dev->pci, config, at);
		at = config[at + PCI_CAP_LIST_NEXT] & ~3U;
	}
}
