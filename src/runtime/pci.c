/* SPDX-License-Identifier: MIT */
/* See pci.h. */
#include "runtime/pci.h"

#include <endian.h>
#include <errno.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"

#define MSIX_ENTRY_SIZE 16U
#define FIRST_CAP	0x40U
#define MSI_CAP_SIZE	0x10U

static uint32_t msix_pba_offset(uint32_t vectors)
{
	return (uint32_t)qsc_align_up((uint64_t)vectors * MSIX_ENTRY_SIZE, QSC_PAGE_SIZE);
}

uint64_t qsc_pci_msix_bar_size(uint32_t vectors)
{
	uint64_t needed = msix_pba_offset(vectors) + (vectors + 63) / 64 * sizeof(uint64_t);
	uint64_t size = 2 * QSC_PAGE_SIZE;

	if (!vectors)
		return 0;
	while (size < needed)
		size *= 2;
	return size;
}

static void put16(uint8_t *at, uint16_t value)
{
	uint16_t wire = htole16(value);

	memcpy(at, &wire, sizeof(wire));
}

static void put32(uint8_t *at, uint32_t value)
{
	uint32_t wire = htole32(value);

	memcpy(at, &wire, sizeof(wire));
}

static void set_up_header(struct qsc_pci *pci, const struct qsc_pci_id *id, bool intx)
{
	uint8_t *config = pci->power_on;

	put16(config + PCI_VENDOR_ID, id->vendor);
	put16(config + PCI_DEVICE_ID, id->device);
	put16(config + PCI_SUBSYSTEM_VENDOR_ID, id->subsystem_vendor);
	put16(config + PCI_SUBSYSTEM_ID, id->subsystem);
	put32(config + PCI_CLASS_REVISION, id->class_code << 8 | id->revision);
	config[PCI_INTERRUPT_PIN] = intx;
	put16(pci->writable + PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
						   PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
						   PCI_COMMAND_INTX_DISABLE);
	put16(pci->clear_on_one + PCI_STATUS,
	      PCI_STATUS_PARITY | PCI_STATUS_SIG_TARGET_ABORT | PCI_STATUS_REC_TARGET_ABORT |
		      PCI_STATUS_REC_MASTER_ABORT | PCI_STATUS_SIG_SYSTEM_ERROR |
		      PCI_STATUS_DETECTED_PARITY);
	pci->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	pci->writable[PCI_LATENCY_TIMER] = 0xff;
	pci->writable[PCI_INTERRUPT_LINE] = 0xff;
}

/* Address bits below the size read as zero whatever is written: that is how software sizes them. */
static void set_up_bar(struct qsc_pci *pci, unsigned int number, const struct qsc_pci_bar *bar)
{
	unsigned int at = PCI_BASE_ADDRESS_0 + number * 4;
	uint64_t mask = ~(bar->size - 1) & PCI_BASE_ADDRESS_MEM_MASK;

	if (!bar->size)
		return;
	put32(pci->writable + at, (uint32_t)mask);
	if (!bar->wide)
		return;
	put32(pci->power_on + at, PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
	put32(pci->writable + at + 4, (uint32_t)(mask >> 32));
}

static void set_up_caps(struct qsc_pci *pci, const uint32_t counts[QSC_IRQ_INDICES])
{
	uint32_t msi = counts[VFIO_PCI_MSI_IRQ_INDEX];
	uint32_t msix = counts[VFIO_PCI_MSIX_IRQ_INDEX];
	uint8_t *link = &pci->power_on[PCI_CAPABILITY_LIST];
	unsigned int at = FIRST_CAP;

	if (msi) {
		unsigned int log2 = 0;

		while ((1U << log2) < msi)
			log2++;
		*link = (uint8_t)at;
		link = &pci->power_on[at + PCI_CAP_LIST_NEXT];
		pci->power_on[at] = PCI_CAP_ID_MSI;
		put16(pci->power_on + at + PCI_MSI_FLAGS,
		      (uint16_t)(PCI_MSI_FLAGS_64BIT | log2 << 1));
		put16(pci->writable + at + PCI_MSI_FLAGS,
		      PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
		put32(pci->writable + at + PCI_MSI_ADDRESS_LO, ~3U);
		put32(pci->writable + at + PCI_MSI_ADDRESS_HI, ~0U);
		put16(pci->writable + at + PCI_MSI_DATA_64, 0xffff);
		at += MSI_CAP_SIZE;
	}
	if (msix) {
		*link = (uint8_t)at;
		pci->power_on[at] = PCI_CAP_ID_MSIX;
		put16(pci->power_on + at + PCI_MSIX_FLAGS, (uint16_t)(msix - 1));
		put16(pci->writable + at + PCI_MSIX_FLAGS,
		      PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
		put32(pci->power_on + at + PCI_MSIX_TABLE, QSC_PCI_MSIX_BAR);
		put32(pci->power_on + at + PCI_MSIX_PBA, msix_pba_offset(msix) | QSC_PCI_MSIX_BAR);
	}
	if (msi || msix)
		put16(pci->power_on + PCI_STATUS, PCI_STATUS_CAP_LIST);
}

int qsc_pci_init(struct qsc_pci *pci, const struct qsc_pci_id *id,
		 const struct qsc_pci_bar bars[QSC_PCI_BARS],
		 const uint32_t counts[QSC_IRQ_INDICES])
{
	unsigned int i;

	memset(pci, 0, sizeof(*pci));
	pci->msix_vectors = counts[VFIO_PCI_MSIX_IRQ_INDEX];
	pci->msix_table_size = pci->msix_vectors * MSIX_ENTRY_SIZE;
	if (pci->msix_vectors) {
		pci->msix_table = malloc(pci->msix_table_size);
		if (!pci->msix_table)
			return -ENOMEM;
	}
	set_up_header(pci, id, counts[VFIO_PCI_INTX_IRQ_INDEX] != 0);
	for (i = 0; i < QSC_PCI_BARS; i++)
		set_up_bar(pci, i, &bars[i]);
	set_up_caps(pci, counts);
	pthread_mutex_init(&pci->lock, NULL);
	qsc_pci_reset(pci);
	return 0;
}

void qsc_pci_destroy(struct qsc_pci *pci)
{
	pthread_mutex_destroy(&pci->lock);
	free(pci->msix_table);
}

void qsc_pci_reset(struct qsc_pci *pci)
{
	uint32_t i;

	pthread_mutex_lock(&pci->lock);
	memcpy(pci->config, pci->power_on, sizeof(pci->config));
	for (i = 0; i < pci->msix_vectors; i++) {
		uint8_t *entry = pci->msix_table + (size_t)i * MSIX_ENTRY_SIZE;

		memset(entry, 0, MSIX_ENTRY_SIZE);
		put32(entry + PCI_MSIX_ENTRY_VECTOR_CTRL, PCI_MSIX_ENTRY_CTRL_MASKBIT);
	}
	pthread_mutex_unlock(&pci->lock);
}

void qsc_pci_config_read(struct qsc_pci *pci, uint64_t offset, void *buf, size_t count)
{
	pthread_mutex_lock(&pci->lock);
	memcpy(buf, pci->config + offset, count);
	pthread_mutex_unlock(&pci->lock);
}

void qsc_pci_config_write(struct qsc_pci *pci, uint64_t offset, const void *buf, size_t count)
{
	const uint8_t *bytes = buf;
	size_t i;

	pthread_mutex_lock(&pci->lock);
	for (i = 0; i < count; i++) {
		uint64_t at = offset + i;
		uint8_t kept = (uint8_t)~pci->writable[at];

		pci->config[at] = (uint8_t)((pci->config[at] & kept) |
					    (bytes[i] & pci->writable[at]));
		pci->config[at] &= (uint8_t) ~(bytes[i] & pci->clear_on_one[at]);
	}
	pthread_mutex_unlock(&pci->lock);
}

static uint8_t pba_byte(struct qsc_pci *pci, struct qsc_irqs *irqs, uint64_t index)
{
	unsigned int byte = 0;
	unsigned int bit;

	for (bit = 0; bit < 8; bit++) {
		if (qsc_irqs_pending(irqs, VFIO_PCI_MSIX_IRQ_INDEX, (uint32_t)(index * 8 + bit)))
			byte |= 1U << bit;
	}
	return (uint8_t)byte;
}

void qsc_pci_msix_read(struct qsc_pci *pci, struct qsc_irqs *irqs, uint64_t offset, void *buf,
		       size_t count)
{
	uint64_t pba = msix_pba_offset(pci->msix_vectors);
	uint64_t pba_end = pba + (pci->msix_vectors + 63) / 64 * sizeof(uint64_t);
	uint8_t *bytes = buf;
	size_t i;

	pthread_mutex_lock(&pci->lock);
	for (i = 0; i < count; i++) {
		uint64_t at = offset + i;

		if (at < pci->msix_table_size)
			bytes[i] = pci->msix_table[at];
		else if (at >= pba && at < pba_end)
			bytes[i] = pba_byte(pci, irqs, at - pba);
		else
			bytes[i] = 0;
	}
	pthread_mutex_unlock(&pci->lock);
}

void qsc_pci_msix_write(struct qsc_pci *pci, uint64_t offset, const void *buf, size_t count)
{
	if (offset >= pci->msix_table_size)
		return;
	pthread_mutex_lock(&pci->lock);
	memcpy(pci->msix_table + offset, buf, qsc_min_u64(count, pci->msix_table_size - offset));
	pthread_mutex_unlock(&pci->lock);
}
