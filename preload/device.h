/* SPDX-License-Identifier: MIT */
/*
 * The devices that the command was given, and one of them while the command has it open: from
 * binding it to an iommufd, or from getting it from its group, until its last descriptor is closed.
 * A model is made anew at each opening; a vfio-user device is connected to.
 */
#ifndef PRELOAD_DEVICE_H
#define PRELOAD_DEVICE_H

#include <linux/vfio.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <quiesce/device.h>

#include "handover.h"
#include "ioeventfd.h"
#include "irq.h"
#include "pci.h"
#include "watch.h"

struct pl_dev {
	atomic_uint refs; /* its file, and its sessions */
	uint32_t index;
	/* Sessions may outlive the device: they read-lock, closing write-locks. */
	pthread_rwlock_t lock;
	struct qsc_device *dev; /* NULL once closed */
	_Atomic uint32_t state; /* the last one heard of */
	bool migratable;
	struct qsc_migration_info migration;
	struct qsc_device_info info;
	struct qsc_region_info regions[VFIO_PCI_NUM_REGIONS];
	atomic_bool memory_on;	    /* PCI_COMMAND_MEMORY */
	pthread_mutex_t state_lock; /* a state change and the session it makes */
	struct pl_pci pci;
	struct pl_watcher watcher;
	struct pl_irqs irqs;
	struct pl_ioeventfds ioeventfds;
	bool table_log; /* its log runs for the page table; guarded by the iommufd's lock */
	struct qsc_irq_counts irqs_seen; /* counted already; guarded by state_lock */
	struct handover_seen *seen;
};

/* Read the description of the devices. The library is idle where there is none. */
int pl_devices_init(struct qsc_error *err);
uint32_t pl_devices_count(void);
/* The folder of the run; NULL where there is none. */
const char *pl_devices_folder(void);
const char *pl_device_name(uint32_t index);

/* 0, -EBUSY while it is open, or what opening it failed with, which is also said. */
int pl_dev_open(uint32_t index, struct pl_dev **out);
/* The last user lets go. Sessions may still hold what is left of it. */
void pl_dev_close(struct pl_dev *dev);
void pl_dev_put(struct pl_dev *dev);

/* Around fork(): a child has none of its parent's devices open. */
void pl_devices_fork_prepare(void);
void pl_devices_fork_parent(void);
void pl_devices_fork_child(void);

/* One more action of the user's, for `quiesce run` to tell of. */
static inline void pl_dev_count(struct pl_dev *dev, enum qsc_action action)
{
	uint32_t state = atomic_load_explicit(&dev->state, memory_order_relaxed);

	atomic_fetch_add_explicit(&dev->seen->actions[action][state], 1, memory_order_relaxed);
}

/* Count the interrupts that there were since the last time. State lock held, or nobody else. */
void pl_dev_count_irqs(struct pl_dev *dev);

/* Ask for the true state and remember it. */
int pl_dev_state(struct pl_dev *dev, enum qsc_state *state);

#endif
