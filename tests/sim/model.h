/* SPDX-License-Identifier: MIT */
/*
 * The simulation's device: a small DMA engine with a slot a transfer, written on the runtime as any
 * model is. A transfer moves bytes between the DMA address space and the device's own memory (BAR2,
 * a page a slot), piece by piece, then writes its status into memory and raises the slot's vector.
 */
#ifndef SIM_MODEL_H
#define SIM_MODEL_H

#include <quiesce/runtime.h>

#define SIM_SLOTS      3U
#define SIM_SLOT_BYTES 4096U
#define SIM_BAR_BYTES  16384U /* BAR2: a power of two with room for all slots */

/* Registers of a slot in BAR0, which is SIM_SLOTS times SIM_REGS bytes. */
#define SIM_REGS       32U
#define SIM_REG_KIND   0U  /* u32: SIM_READ or SIM_WRITE */
#define SIM_REG_LENGTH 4U  /* u32: bytes, at most SIM_SLOT_BYTES */
#define SIM_REG_IOVA   8U  /* u64 */
#define SIM_REG_STATUS 16U /* u64: IOVA of a u32 */
#define SIM_REG_GO     24U /* u32 */

#define SIM_READ  1U /* from IOVA to the slot */
#define SIM_WRITE 2U /* from the slot to IOVA */

#define SIM_DONE   1U
#define SIM_FAILED 2U /* the DMA found no mapping */

struct sim_model {
	struct qsc_runtime *rt;
	uint32_t next;	     /* slot to look at first; derived, need not move */
	uint32_t fail_start; /* the so many-th start or stop from now fails; 0: none */
	uint32_t fail_stop;
	bool fault_done; /* one of them has */
};

int sim_model_create(struct sim_model *model, const char *name, uint32_t flags, bool tells_peers);

#endif
