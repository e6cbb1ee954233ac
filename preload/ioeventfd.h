/* SPDX-License-Identifier: MIT */
/* Eventfds that stand for one write to a BAR each: VFIO_DEVICE_IOEVENTFD. */
#ifndef PRELOAD_IOEVENTFD_H
#define PRELOAD_IOEVENTFD_H

#include <pthread.h>
#include <stdint.h>

struct pl_dev;
struct pl_ioeventfd;

struct pl_ioeventfds {
	pthread_mutex_t lock;
	struct pl_ioeventfd *first;
	uint32_t count;
};

void pl_ioeventfds_init(struct pl_ioeventfds *ioeventfds);
/* The device's watcher has been released. */
void pl_ioeventfds_release(struct pl_ioeventfds *ioeventfds);
int pl_ioeventfd(struct pl_dev *dev, void *arg);

#endif
