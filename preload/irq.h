/* SPDX-License-Identifier: MIT */
/*
 * Interrupts as vfio-pci sets them up: one of INTx, MSI and MSI-X at a time, with the kernel's
 * refusals; and the request index, which every PCI device has, and the error index, which those of
 * PCI Express have. Nothing here ever raises these two but the user.
 */
#ifndef PRELOAD_IRQ_H
#define PRELOAD_IRQ_H

#include <pthread.h>
#include <stdint.h>

struct pl_dev;
struct pl_watch;

#define PL_IRQ_NONE UINT32_MAX

struct pl_irqs {
	pthread_mutex_t lock;
	uint32_t index;		 /* set up, or PL_IRQ_NONE */
	uint32_t count;		 /* vectors that were enabled with it */
	struct pl_watch *unmask; /* an eventfd unmasks INTx; or NULL */
	int error_fd;
	int request_fd;
};

void pl_irqs_init(struct pl_irqs *irqs);
void pl_irqs_release(struct pl_irqs *irqs);
int pl_irq_get_info(struct pl_dev *dev, void *arg);
int pl_irq_set(struct pl_dev *dev, void *arg);

#endif
