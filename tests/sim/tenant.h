/* SPDX-License-Identifier: MIT */
/*
 * What runs on the devices: blocks of data go from memory into the first device, from each device's
 * memory into the next one's by peer DMA, and from the last back to memory. One command and exactly
 * one interrupt for each step of each block. The tenant's own state is plain data and moves with
 * it.
 */
#ifndef SIM_TENANT_H
#define SIM_TENANT_H

#include <quiesce/device.h>

#include "model.h"

#define SIM_MEMBERS	4U
#define SIM_PAGES	24U
#define SIM_MEMORY_IOVA 0x100000ULL
#define SIM_PEER_IOVA	0x40000000ULL
#define SIM_PEER_SPAN	0x100000ULL

struct sim_tenant_state {
	uint32_t next_block;
	uint32_t done;
	uint32_t goal; /* no new blocks once so many are done; 0: no limit */
	struct {
		uint32_t busy;
		uint32_t block;
		uint32_t stage; /* member that works on it; one past the last: back to memory */
		uint32_t irqs;	/* taken in for the command under way */
	} slots[SIM_SLOTS];
};

struct sim_tenant {
	uint32_t members;
	struct qsc_device *devices[SIM_MEMBERS];
	int irqs[SIM_MEMBERS][SIM_SLOTS]; /* eventfds */
	uint8_t *memory;		  /* SIM_PAGES pages at SIM_MEMORY_IOVA */
	uint64_t dirty;			  /* a bit a page: written by the tenant */
	struct sim_tenant_state state;
	char wrong[128]; /* what was lost, doubled or wrong; empty while all is well */
};

/* Eventfds for all vectors, not yet given to the devices. */
void sim_tenant_open(struct sim_tenant *tenant);
void sim_tenant_close(struct sim_tenant *tenant);

/* Something, if there is anything to do. True when there was. */
bool sim_tenant_step(struct sim_tenant *tenant);

/* Take in all interrupts that have arrived. */
void sim_tenant_take_irqs(struct sim_tenant *tenant);

bool sim_tenant_idle(const struct sim_tenant *tenant);

#endif
