/* SPDX-License-Identifier: MIT */
/* Unit tests of configuration space and the MSI-X table: what software finds and may write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <cmocka.h>

#include "runtime/pci.h"

static const struct qsc_pci_id id = {0x1b36, 0x0042, 0x1af4, 0x1100, 0x088001, 3};
static const struct qsc_pci_bar bars[QSC_PCI_BARS] = {
	{0x1000, false}, {0, false}, {1ULL << 32, true}, {0, false}, {0x2000, false}, {0, false}};
static const uint32_t counts[QSC_IRQ_INDICES] = {1, 4, 20};

static uint32_t get(struct qsc_pci *pci, unsigned int offset, size_t size)
{
	uint32_t value = 0;

	qsc_pci_config_read(pci, offset, &value, size);
	return value;
}

static void put(struct qsc_pci *pci, unsigned int offset, uint32_t value, size_t size)
{
	qsc_pci_config_write(pci, offset, &value, size);
}

static void test_header(void **unused)
{
	struct qsc_pci pci;

	assert_int_equal(qsc_pci_init(&pci, &id, bars, counts), 0);
	assert_int_equal(get(&pci, PCI_VENDOR_ID, 4), 0x00421b36);
	assert_int_equal(get(&pci, PCI_CLASS_REVISION, 4), 0x08800103);
	assert_int_equal(get(&pci, PCI_INTERRUPT_PIN, 1), 1);
	put(&pci, PCI_VENDOR_ID, 0, 4);
	assert_int_equal(get(&pci, PCI_VENDOR_ID, 4), 0x00421b36);
	put(&pci, PCI_COMMAND, 0xffff, 2);
	assert_int_equal(get(&pci, PCI_COMMAND, 2), 0x546);
	/* A write of ones to the status register clears, and what is there for good stays. */
	put(&pci, PCI_STATUS, 0xffff, 2);
	assert_int_equal(get(&pci, PCI_STATUS, 2), PCI_STATUS_CAP_LIST);
	qsc_pci_reset(&pci);
	assert_int_equal(get(&pci, PCI_COMMAND, 2), 0);
	qsc_pci_destroy(&pci);
}

static void test_bar_sizing(void **unused)
{
	struct qsc_pci pci;

	assert_int_equal(qsc_pci_init(&pci, &id, bars, counts), 0);
	for (unsigned int bar = 0; bar < QSC_PCI_BARS; bar++)
		put(&pci, PCI_BASE_ADDRESS_0 + bar * 4, ~0U, 4);
	assert_int_equal(get(&pci, PCI_BASE_ADDRESS_0, 4), 0xfffff000);
	assert_int_equal(get(&pci, PCI_BASE_ADDRESS_1, 4), 0);
	assert_int_equal(get(&pci, PCI_BASE_ADDRESS_2, 4),
			 PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH);
	assert_int_equal(get(&pci, PCI_BASE_ADDRESS_3, 4), 0xffffffff);
	assert_int_equal(get(&pci, PCI_BASE_ADDRESS_4, 4), 0xffffe000);
	qsc_pci_destroy(&pci);
}

static void test_capabilities(void **unused)
{
	struct qsc_pci pci;
	unsigned int msi;
	unsigned int msix;

	assert_int_equal(qsc_pci_init(&pci, &id, bars, counts), 0);
	msi = get(&pci, PCI_CAPABILITY_LIST, 1);
	assert_int_equal(get(&pci, msi, 1), PCI_CAP_ID_MSI);
	assert_int_equal(get(&pci, msi + PCI_MSI_FLAGS, 2), PCI_MSI_FLAGS_64BIT | 2 << 1);
	put(&pci, msi + PCI_MSI_FLAGS, 0xffff, 2);
	assert_int_equal(get(&pci, msi + PCI_MSI_FLAGS, 2),
			 PCI_MSI_FLAGS_64BIT | 2 << 1 | PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
	msix = get(&pci, msi + PCI_CAP_LIST_NEXT, 1);
	assert_int_equal(get(&pci, msix, 1), PCI_CAP_ID_MSIX);
	assert_int_equal(get(&pci, msix + PCI_CAP_LIST_NEXT, 1), 0);
	assert_int_equal(get(&pci, msix + PCI_MSIX_FLAGS, 2), 19);
	put(&pci, msix + PCI_MSIX_FLAGS, 0xffff, 2);
	assert_int_equal(get(&pci, msix + PCI_MSIX_FLAGS, 2), 0xc013);
	assert_int_equal(get(&pci, msix + PCI_MSIX_TABLE, 4), 4);
	assert_int_equal(get(&pci, msix + PCI_MSIX_PBA, 4), 0x1004);
	qsc_pci_destroy(&pci);
}

static void test_msix_table_and_pending_bits(void **unused)
{
	struct qsc_irqs irqs;
	struct qsc_pci pci;
	uint32_t control = 0;
	uint64_t pending = 0;
	uint8_t bytes[8];

	assert_int_equal(qsc_pci_msix_bar_size(0), 0);
	assert_int_equal(qsc_pci_msix_bar_size(1), 0x2000);
	assert_int_equal(qsc_pci_msix_bar_size(2048), 0x10000);
	assert_int_equal(qsc_irqs_init(&irqs, counts), 0);
	assert_int_equal(qsc_pci_init(&pci, &id, bars, counts), 0);
	qsc_pci_msix_read(&pci, &irqs, 19 * 16 + 12, &control, 4);
	assert_int_equal(control, 1);
	qsc_pci_msix_write(&pci, 19 * 16 + 12, "\0\0\0\0ABCD", 8);
	qsc_pci_msix_read(&pci, &irqs, 19 * 16 + 12, bytes, 8);
	assert_memory_equal(bytes, "\0\0\0\0\0\0\0\0", 8);
	qsc_irqs_set_mode(&irqs, QSC_VERDICT_HOLD);
	qsc_irqs_raise(&irqs, VFIO_PCI_MSIX_IRQ_INDEX, 17);
	qsc_pci_msix_read(&pci, &irqs, 0x1000, &pending, 8);
	assert_int_equal(pending, 1U << 17);
	qsc_pci_destroy(&pci);
	qsc_irqs_destroy(&irqs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_header),
		cmocka_unit_test(test_bar_sizing),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_msix_table_and_pending_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
