/* SPDX-License-Identifier: MIT */
/*
 * A small VMM: what one does with VFIO, by the kernel's calls alone. It is run with the preload
 * library and does not know of it.
 */
#ifndef TESTS_PRELOAD_VMM_H
#define TESTS_PRELOAD_VMM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include <quiesce/contract.h>

#include "abi/vfio.h"

#define REGION(index, offset) (((uint64_t)(index) << 40) + (offset))

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			(void)fprintf(stderr, "%s:%d: %s (errno %d, %s)\n", __FILE__, __LINE__, \
				      #condition, errno, strerror(errno));                      \
			exit(1);                                                                \
		}                                                                               \
	} while (0)

/* The call fails with that errno. */
#define FAILS(number, call)                                                                \
	do {                                                                               \
		errno = 0;                                                                 \
		long result_ = (long)(call);                                               \
		if (result_ != -1 || errno != (number)) {                                  \
			(void)fprintf(stderr, "%s:%d: %s gave %ld and errno %d, not %s\n", \
				      __FILE__, __LINE__, #call, result_, errno, #number); \
			exit(1);                                                           \
		}                                                                          \
	} while (0)

#define MEMORY_SIZE (1UL << 20)
#define MEMORY_IOVA 0x100000UL

/* A device that is bound and attached, with memory at MEMORY_IOVA. */
struct vmm {
	int iommufd;
	int device;
	uint32_t devid;
	uint32_t ioas;
	uint8_t *memory;
	int event; /* of vector 0 */
};

int vmm_open(const char *path);
/* The same through cdev and iommufd, with vectors and an engine that is set up. */
void vmm_start(struct vmm *vmm, const char *path);
void vmm_end(struct vmm *vmm);

uint32_t vmm_ioas(int iommufd);
void vmm_bind(struct vmm *vmm);
void vmm_map(const struct vmm *vmm, void *memory, uint64_t size, uint64_t iova);
void vmm_set_vector(const struct vmm *vmm);

uint32_t vmm_read(int device, uint64_t at);
void vmm_write(int device, uint64_t at, uint32_t value);

/* Give the engine a ring, and copy in guest memory by DMA; waits for the interrupt. */
void vmm_ring(const struct vmm *vmm);
void vmm_copy(const struct vmm *vmm, uint32_t slot, uint64_t from, uint64_t to, uint32_t size);

/* VFIO_DEVICE_FEATURE with `size` bytes of data: 0 or -1 and errno. */
int vmm_feature(int device, uint32_t flags, void *data, size_t size);
/* A state change: the session's descriptor or -1; fails the program when the device refuses. */
int vmm_set_state(int device, enum qsc_state state);
enum qsc_state vmm_state(int device);

/* Read a session to its end, or to where it is drained. */
size_t vmm_drain(int session, uint8_t *buf, size_t room);

/* Each a test of its own. */
void test_cdev(void);
void test_legacy(void);
void test_strict_iommufd(void);
void test_strict_device(void);
void test_strict_legacy(void);
void test_revoke(void);
void test_files(void);
void test_fork(void);
void test_threads(void);
void test_move(void);
void test_limit(void);
void test_track(void);
void test_paths(void);
void test_sockets(void);
void test_kvm(void);
void test_vectors(void);
void test_mappings(void);
void test_foreign(void);
void test_pointers(void);
void test_ioeventfd(void);
void test_intx(void);
void test_request(void);

#endif
