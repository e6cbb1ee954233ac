/* SPDX-License-Identifier: MIT */
/*
 * Holding devices: what a program that owns some must keep together. The devices themselves, the
 * set they are in, the memory they work in, what each reaches of the others, and whoever drives
 * them. It comes into being as a whole, moves as a whole, and goes as a whole.
 */
#ifndef HOLD_H
#define HOLD_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/device.h>
#include <quiesce/migrate.h>
#include <quiesce/set.h>

#include "tenant.h"

#define HOLD_MAX_DEVICES 256U
#define HOLD_MAX_PEERS	 1024U

struct hold_device {
	char name[64];
	char uri[256];
};

/* All of a region of one device, in the DMA space of another. */
struct hold_peer {
	uint32_t from;
	uint32_t to;
	uint32_t region;
};

enum hold_tenant {
	HOLD_TENANT_NONE, /* nobody drives the devices, nobody writes the memory */
	HOLD_TENANT_COPY, /* the tenant of `quiesce demo`, who checks every byte and interrupt */
};

struct hold_config {
	struct hold_device *devices;
	uint32_t num_devices;
	struct hold_peer *peers; /* with TENANT_COPY there are those of its chain instead */
	uint32_t num_peers;
	uint64_t memory_bytes;
	const char *memory_file; /* is the memory; or NULL */
	enum hold_tenant tenant;
	uint32_t device_timeout_ms; /* for a device server to answer; 0: the library's default */
};

/* [hold] */
struct hold {
	const struct hold_config *config;
	struct qsc_device **devices;
	struct qsc_timeline *timeline;
	struct qsc_set *set;
	struct tenant *tenant; /* or NULL */
	struct tenant_live live;
	/* Without a tenant. */
	struct qsc_memory_region memory;
	int memory_fd;
	struct qsc_migrate_user user;
};
/* [end] */

/*
 * Open the devices and map everything. `config` is borrowed. *wrong tells whether it failed because
 * of what the person typed.
 */
int hold_open(const struct hold_config *config, struct hold **out, bool *wrong,
	      struct qsc_error *err);
/* Start from nothing: the tenant begins. What was not begun is there to be received. */
int hold_begin(struct hold *hold, struct qsc_error *err);
/* What the migration engine needs of us. */
const struct qsc_migrate_user *hold_user(struct hold *hold);
/*
 * Before the set moves, and nobody uses the memory: that it is all there. -EFAULT when somebody has
 * made its file shorter.
 */
int hold_renew_memory(struct hold *hold, struct qsc_error *err);
/* Let go of everything. Devices that are stopped are reset by whoever serves them (STATE-5). */
void hold_close(struct hold *hold);

#endif
