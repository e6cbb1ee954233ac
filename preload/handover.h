/* SPDX-License-Identifier: MIT */
/*
 * What `quiesce run` and the preload library agree on. The launcher makes a folder with a
 * description of the devices and a file of counters, and passes its path in the environment, so
 * that whatever the command starts finds it too. Files that stand for /dev/iommu or a device are
 * memory files with a mark in them: it survives exec, and tells who uses the file.
 */
#ifndef PRELOAD_HANDOVER_H
#define PRELOAD_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <quiesce/base.h>
#include <quiesce/contract.h>

#define HANDOVER_ENV	      "QUIESCE_RUN"
#define HANDOVER_MAX_DEVICES  64
#define HANDOVER_NAME	      64
#define HANDOVER_FIRST_NUMBER 1000 /* the launcher's fds start here where they can */

/* Where the devices stand in PCI: 5153:01:00.0 and on, each on a bus of its own. */
#define HANDOVER_PCI_DOMAIN    0x5153
#define HANDOVER_PCI_FIRST_BUS 1
#define HANDOVER_PCI_FORMAT    "%04x:%02x:00.0"
#define HANDOVER_SYSFS	       "devices"      /* their folders, in that of the run */
#define HANDOVER_GROUPS	       "iommu_groups" /* and those of their groups, by number */

/* Device numbers, out of the ranges that Linux gives out. */
#define HANDOVER_CDEV_MAJOR 4001
#define HANDOVER_MISC_MAJOR 4002

/* ---- files that stand for ours ---- */

enum handover_kind {
	HANDOVER_IOMMUFD,
	HANDOVER_CDEV, /* /dev/vfio/devices/vfioN */
	HANDOVER_CONTAINER,
	HANDOVER_GROUP,
	HANDOVER_DEVICE, /* of a group */
	HANDOVER_SESSION,
};

struct handover_mark {
	char magic[8];
	uint32_t kind;
	uint32_t index; /* of the device */
	/* The process image that uses it, a random number; 0: nobody has yet. Then its pid. */
	_Atomic uint64_t owner;
	_Atomic int32_t owner_pid;
};

/* A new file with a mark; the caller owns the fd. Or -errno. */
int handover_make(enum handover_kind kind, uint32_t index, bool cloexec);
/* Whether the file is named like one with a mark, which it need not have yet. */
bool handover_named(int fd);
/* Map the mark of a file; NULL when it has none. Unmap with handover_forget(). */
struct handover_mark *handover_find(int fd);
void handover_forget(struct handover_mark *mark);

/* ---- what the devices saw ---- */

struct handover_seen {
	_Atomic uint64_t opened;
	_Atomic uint64_t actions[QSC_ACTION_COUNT][QSC_STATE_COUNT];
	_Atomic uint64_t entered[QSC_STATE_COUNT]; /* states, by requests that succeeded */
	_Atomic uint64_t failed;		   /* state changes */
	_Atomic uint64_t saved;			   /* left STOP_COPY for STOP */
	_Atomic uint64_t loaded;		   /* left RESUMING for STOP */
	_Atomic uint64_t saved_bytes;
	_Atomic uint64_t loaded_bytes;
	_Atomic uint64_t reported; /* violations that the device itself found */
	_Atomic uint64_t irqs_delivered;
	_Atomic uint64_t irqs_held;
	_Atomic uint32_t irqs_known; /* not of a device that signals them in another process */
	_Atomic uint32_t state;
	_Atomic uint32_t in_use;
};

/* ---- the description ---- */

struct handover_device {
	char *spec;
	char name[HANDOVER_NAME];
};

struct handover_config {
	struct handover_device devices[HANDOVER_MAX_DEVICES];
	uint32_t num_devices;
	char *trace; /* absolute path, or NULL */
	char *fault; /* as qsc_fault_open() takes it, for all devices; or NULL */
};

/*
 * Write the description and a fresh file of counters into the folder. 0 or -errno with the reason.
 */
int handover_write(const char *folder, const struct handover_config *config, struct qsc_error *err);
/* Read it; release with handover_release(), also after a failure. */
int handover_read(const char *folder, struct handover_config *config, struct qsc_error *err);
void handover_release(struct handover_config *config);

/* The counters of all devices, HANDOVER_MAX_DEVICES of them, shared by all processes; or NULL. */
struct handover_seen *handover_seen_map(const char *folder);
void handover_seen_unmap(struct handover_seen *seen);

#endif
