/* SPDX-License-Identifier: MIT */
/* The objects of an iommufd, for the files that implement its commands. Its lock is held. */
#ifndef PRELOAD_OBJECTS_H
#define PRELOAD_OBJECTS_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "file.h"
#include "ioas.h"

#define PL_MAX_OBJECTS 65536U

enum pl_object_type { PL_OBJECT_ANY, PL_OBJECT_IOAS, PL_OBJECT_HWPT, PL_OBJECT_DEVICE };

struct pl_dev;
struct pl_object;

struct pl_hwpt {
	struct pl_object *ioas;
	bool automatic; /* made by attaching to the IOAS, gone with its last device */
	bool can_track; /* allocated with dirty tracking */
	bool tracking;
	bool lost; /* a device left with its log: everything counts as written */
	struct pl_dev *devices[PL_MAX_ATTACHMENTS];
	uint32_t num_devices;
};

struct pl_object {
	enum pl_object_type type;
	uint32_t id;
	uint32_t users; /* objects that need it: page tables an IOAS, devices a page table */
	bool small_pages;
	union {
		struct pl_ioas ioas;
		struct pl_hwpt hwpt;
		struct {
			struct pl_dev *dev;
			struct pl_object *hwpt; /* attached to, or NULL */
		} device;
	};
};

struct pl_iommufd {
	struct pl_file file;
	pthread_mutex_t lock;
	struct pl_object **objects; /* by number; 0 is none */
	uint32_t num_objects;
	struct pl_object *vfio_ioas;
	uint64_t account_mm;
};

struct pl_object *pl_object_new(struct pl_iommufd *ctx, enum pl_object_type type, int *result);
struct pl_object *pl_object_find(struct pl_iommufd *ctx, uint32_t id, enum pl_object_type type);
void pl_object_destroy(struct pl_iommufd *ctx, struct pl_object *object);

#endif
