/* SPDX-License-Identifier: MIT */
/*
 * dmacopy, a PCI DMA copy engine: what a driver of it must know (registers, descriptors, statuses)
 * and, at the end, how a program makes one.
 *
 * The driver sets up a ring of 64-byte descriptors in memory and enables the engine, which starts
 * at descriptor 0. To submit, the driver fills the next descriptor, sets OWN in it last (after a
 * write barrier), and writes the doorbell; the value means nothing, so the doorbell may be an
 * ioeventfd. The engine takes descriptors in ring order for as long as it finds OWN set, works on
 * up to DMACOPY_CHANNELS of them at once, and may finish them in any order. For each it writes
 * status and bytes_done by DMA, then clears OWN, then raises the descriptor's interrupt if it asked
 * for one: each exactly once. A slot may be used again when its OWN is clear.
 *
 * Everything is little-endian.
 */
#ifndef DMACOPY_H
#define DMACOPY_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Not assigned by the PCI-SIG: there is no such hardware. */
#define DMACOPY_PCI_VENDOR 0x5143
#define DMACOPY_PCI_DEVICE 0x0d0c

/*
 * BAR0: 4 KiB of registers, BAR2: the engine's own memory ("local"), BAR4: MSI-X table.
 * Registers are 32 bits wide; those marked 64 are two of them, low half first, and may be read and
 * written whole. Narrower writes are ignored.
 */
#define DMACOPY_BAR_REGISTERS 0
#define DMACOPY_BAR_LOCAL     2
#define DMACOPY_BAR_MSIX      4

#define DMACOPY_REGISTERS_SIZE 4096U

#define DMACOPY_REG_ID	       0x000 /* ro: DMACOPY_ID */
#define DMACOPY_REG_VERSION    0x004 /* ro: DMACOPY_VERSION */
#define DMACOPY_REG_CHANNELS   0x008 /* ro: transfers that may be in flight */
#define DMACOPY_REG_VECTORS    0x00c /* ro: MSI-X vectors */
#define DMACOPY_REG_LOCAL_SIZE 0x010 /* ro 64: bytes of local memory */
#define DMACOPY_REG_RING_MAX   0x018 /* ro: most entries a ring may have */
#define DMACOPY_REG_CONTROL    0x020 /* rw: DMACOPY_CONTROL_* */
#define DMACOPY_REG_STATUS     0x024 /* ro: DMACOPY_STATUS_* */
#define DMACOPY_REG_ERROR      0x028 /* DMACOPY_ERROR_*, the first since cleared; a write clears */
#define DMACOPY_REG_RING_BASE  0x030 /* rw 64: IOVA of descriptor 0, a multiple of 64 */
#define DMACOPY_REG_RING_SIZE  0x038 /* rw: entries, a power of two from 1 to RING_MAX */
#define DMACOPY_REG_HEAD       0x03c /* ro: index of the descriptor that is looked at next */
#define DMACOPY_REG_SCRATCH    0x040 /* rw 64: the driver's, no effect; zero after reset */
#define DMACOPY_REG_COMPLETED  0x080 /* ro 64: descriptors written back, whatever their status */
#define DMACOPY_REG_BYTES      0x088 /* ro 64: bytes copied by them */
#define DMACOPY_REG_FAILED     0x090 /* ro 64: those written back with another status than OK */
#define DMACOPY_REG_DOORBELL   0x800 /* wo: look at the ring */

#define DMACOPY_ID	 0x79706364U /* "dcpy" */
#define DMACOPY_VERSION	 0x00010000U
#define DMACOPY_CHANNELS 8U
#define DMACOPY_RING_MAX 65536U

/*
 * ENABLE, 0 to 1: start at descriptor 0. Refused (it stays 0, ERROR tells why) with a ring that
 * cannot be and while BUSY. 1 to 0: take no new descriptors; those in flight are finished. The ring
 * registers cannot be changed while ENABLE or BUSY is set.
 * RESET: drop everything in flight without a write-back and return to power-on values, except local
 * memory, which keeps its contents. Reads as 1 until no DMA is under way any more.
 */
#define DMACOPY_CONTROL_ENABLE 1U
#define DMACOPY_CONTROL_RESET  2U

#define DMACOPY_STATUS_BUSY   1U /* descriptors are in flight */
#define DMACOPY_STATUS_HALTED 2U /* the ring could not be reached: no more until RESET */

#define DMACOPY_ERROR_NONE	 0U
#define DMACOPY_ERROR_BAD_RING	 1U /* ENABLE refused: base or size cannot be */
#define DMACOPY_ERROR_BUSY	 2U /* ENABLE refused: transfers of the ring before are in flight */
#define DMACOPY_ERROR_RING_READ	 3U /* a descriptor could not be read; HALTED */
#define DMACOPY_ERROR_RING_WRITE 4U /* a descriptor could not be written back; HALTED */

/* One descriptor. The engine writes flags (OWN cleared), status and bytes_done, nothing else. */
struct dmacopy_descriptor {
	uint32_t flags;	      /* DMACOPY_DESC_* */
	uint32_t vector;      /* raised on completion with DMACOPY_DESC_INTERRUPT */
	uint32_t length;      /* bytes; 0 completes at once */
	uint32_t reserved;    /* 0 */
	uint64_t source;      /* IOVA, or offset in local memory with DMACOPY_DESC_SOURCE_LOCAL */
	uint64_t destination; /* IOVA, or offset with DMACOPY_DESC_DESTINATION_LOCAL */
	uint64_t cookie;      /* the driver's */
	uint64_t reserved2;   /* 0 */
	uint32_t status;      /* DMACOPY_DONE_*, valid when OWN is clear */
	uint32_t reserved3;   /* written as 0 */
	uint64_t bytes_done;  /* valid when OWN is clear; all below it was copied */
};

#define DMACOPY_DESC_OWN	       1U /* the engine's turn */
#define DMACOPY_DESC_SOURCE_LOCAL      2U
#define DMACOPY_DESC_DESTINATION_LOCAL 4U
#define DMACOPY_DESC_INTERRUPT	       8U
#define DMACOPY_DESC_ALL	       15U

#define DMACOPY_DONE_OK	     1U
#define DMACOPY_DONE_INVALID 2U /* unknown flags, a reserved field, or no such vector */
#define DMACOPY_DONE_RANGE   3U /* outside local memory, wrapping, or overlapping */
#define DMACOPY_DONE_FAULT   4U /* part of source or destination is not mapped for this */
#define DMACOPY_DONE_IO	     5U /* the memory behind source or destination is gone */

/* ---- for the program that makes the device ---- */

#define DMACOPY_LOCAL_MIN   (1ULL << 12)
#define DMACOPY_LOCAL_MAX   (1ULL << 40)
#define DMACOPY_VECTORS_MAX 2048U

struct dmacopy_options {
	const char *name;	  /* for messages; NULL: "dmacopy" */
	uint32_t migration_flags; /* QSC_MIGRATION_*; 0: all */
	bool tells_peers;	  /* memory DMA goes on in the P2P states */
	uint64_t local_size;	  /* bytes, a power of two from 4 KiB to 1 TiB; 0: 1 MiB */
	uint32_t vectors;	  /* MSI-X vectors, 1 to 2048; 0: 16 */
	/* As in struct qsc_runtime_options. */
	bool manual;
	bool destroy_on_close;
	void (*violation)(void *ctx, enum qsc_clause clause, const char *text);
	void *violation_ctx;
};

/* options may be NULL. As qsc_runtime_create(). */
int dmacopy_create(const struct dmacopy_options *options, struct qsc_runtime **rt,
		   struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
