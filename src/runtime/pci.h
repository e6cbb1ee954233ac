/* SPDX-License-Identifier: MIT */
/*
 * The PCI side of a device: a type 0 configuration space with the writable bits a PCI device has,
 * and the MSI-X table and pending bits behind BAR4. All of it belongs to the user and is no part of
 * the migrated state (DEV-8).
 */
#ifndef QSC_RUNTIME_PCI_H
#define QSC_RUNTIME_PCI_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#include "runtime/irq.h"

#define QSC_PCI_CONFIG_SIZE 256
#define QSC_PCI_BARS	    6
#define QSC_PCI_MSIX_BAR    4

struct qsc_pci_bar {
	uint64_t size; /* 0: none */
	bool wide;     /* 64 bits: takes the next number too */
};

struct qsc_pci {
	pthread_mutex_t lock;
	uint8_t config[QSC_PCI_CONFIG_SIZE];
	uint8_t power_on[QSC_PCI_CONFIG_SIZE];
	uint8_t writable[QSC_PCI_CONFIG_SIZE];
	uint8_t clear_on_one[QSC_PCI_CONFIG_SIZE];
	uint8_t *msix_table;
	uint32_t msix_table_size; /* bytes, before it is padded to a page */
	uint32_t msix_vectors;
};

/* Size of BAR4 for that many vectors; 0 for none. */
uint64_t qsc_pci_msix_bar_size(uint32_t vectors);

/* -ENOMEM, and then nothing is to be destroyed. counts: vectors of INTx, MSI and MSI-X. */
int qsc_pci_init(struct qsc_pci *pci, const struct qsc_pci_id *id,
		 const struct qsc_pci_bar bars[QSC_PCI_BARS],
		 const uint32_t counts[QSC_IRQ_INDICES]);
void qsc_pci_destroy(struct qsc_pci *pci);
/* Power-on contents of both. */
void qsc_pci_reset(struct qsc_pci *pci);

/* The range lies inside. */
void qsc_pci_config_read(struct qsc_pci *pci, uint64_t offset, void *buf, size_t count);
void qsc_pci_config_write(struct qsc_pci *pci, uint64_t offset, const void *buf, size_t count);
void qsc_pci_msix_read(struct qsc_pci *pci, struct qsc_irqs *irqs, uint64_t offset, void *buf,
		       size_t count);
void qsc_pci_msix_write(struct qsc_pci *pci, uint64_t offset, const void *buf, size_t count);

#endif
