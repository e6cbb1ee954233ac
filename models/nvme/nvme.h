/* SPDX-License-Identifier: MIT */
/*
 * nvme, an NVMe 1.4 controller with one namespace of 512-byte blocks, for the drivers that
 * operating systems come with. What a driver must know stands in the NVMe specification; what of it
 * this controller has, in "nvme/spec.h". Here is how a program makes one.
 *
 * What the namespace holds is either memory that is part of the device's state, or a file that
 * source and destination of a migration share. A controller holds the file, under a lock that keeps
 * others away, from the time when a driver enables it until it is disabled, reset or stopped: at
 * most one of those that were given the file writes to it, and a destination finds in it what the
 * source wrote.
 */
#ifndef NVME_NVME_H
#define NVME_NVME_H

#include <stdbool.h>
#include <stdint.h>

#include <quiesce/runtime.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Not assigned by the PCI-SIG: there is no such hardware. */
#define NVME_PCI_VENDOR 0x5143
#define NVME_PCI_DEVICE 0x4e56

/* BAR0: registers and doorbells, BAR4: MSI-X table. One vector for each completion queue. */
#define NVME_BAR_REGISTERS  0
#define NVME_REGISTERS_SIZE 16384U

#define NVME_RAM_MIN	 (1ULL << 20)
#define NVME_RAM_MAX	 (1ULL << 40)
#define NVME_QUEUES_MAX	 32U
#define NVME_SERIAL_SIZE 20U

struct nvme_options {
	const char *name;	  /* for messages; NULL: "nvme" */
	uint32_t migration_flags; /* QSC_MIGRATION_*; 0: all */
	/* One of the two. */
	const char *file; /* at least 1 MiB; what is above a multiple of 512 bytes is not used */
	uint64_t ram;	  /* bytes, a multiple of 4 KiB from NVME_RAM_MIN to NVME_RAM_MAX */
	bool readonly;	  /* the file is only read, and several may do so */
	uint32_t queues;  /* pairs for I/O, 1 to NVME_QUEUES_MAX; 0: 8 */
	/*
	 * Printable, at most NVME_SERIAL_SIZE characters. A guest tells disks apart by it. NULL:
	 * made from the name, or, without a name, from how many were made in this process before.
	 * It is part of the state: a destination goes on as the disk that the source was.
	 */
	const char *serial;
	/* As in struct qsc_runtime_options. */
	bool manual;
	bool destroy_on_close;
	void (*violation)(void *ctx, enum qsc_clause clause, const char *text);
	void *violation_ctx;
};

/* As qsc_runtime_create(). */
int nvme_create(const struct nvme_options *options, struct qsc_runtime **rt, struct qsc_error *err);

#ifdef __cplusplus
}
#endif
#endif
