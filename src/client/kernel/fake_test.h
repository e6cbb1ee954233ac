/* SPDX-License-Identifier: MIT */
/*
 * A kernel that is made up, for the tests of this client: open(), close() and ioctl() are its own
 * for the files of VFIO, everything else is real (registers are a memory file, sessions are pipes).
 * It misbehaves as real kernels do, and as they may.
 */
#ifndef QSC_CLIENT_KERNEL_FAKE_TEST_H
#define QSC_CLIENT_KERNEL_FAKE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/kernel/kernel.h"

#define REGION_SIZE 131072U
#define MEMORY_IOVA 0x10000000ULL
#define MEMORY_SIZE 0x400000ULL
#define MAX_FD	    256

enum fake_kind { NO_FILE, DEVICE, IOMMUFD, GROUP, CONTAINER };

/* All zero it is a kernel with nothing wrong, and a device that can migrate and has no log. */
struct fake {
	/* ---- files ---- */
	_Atomic enum fake_kind files[MAX_FD];
	_Atomic int device;	 /* that was opened last */
	_Atomic int groups;	 /* opened now, by whomever: there can be one */
	_Atomic int group_tries; /* how often that of "fake" was tried */
	int bind_fail;		 /* errno of binding to iommufd */
	_Atomic int calls;	 /* open() and ioctl() of its files */
	int fail_call;		 /* the number of the one that fails; 0 for none */
	int fail_with;		 /* with that errno */
	bool interrupts;	 /* every other call ends with EINTR, and does nothing */

	/* ---- the device ---- */
	uint32_t regions, irqs; /* how many it says that it has; 0: one */
	uint32_t areas;		/* of the region that may be mapped, if it says so */
	bool knows;		/* the contract, and says so of its region */
	void (*describe)(struct vfio_region_info *out); /* in place of what is right */
	bool gone;					/* pulled out of the machine */
	_Atomic(struct qsc_device *) watch; /* accesses to this one are looked at: see look() */
	_Atomic int looked, late;
	bool linger; /* they take until the device is stopped, or somebody waits for them */

	/* ---- its interrupts ---- */
	int triggers;
	int vectors[4]; /* descriptors that are set up, by number; -1 none */
	uint32_t num_vectors;
	uint32_t num_possible; /* that it says there can be; 0: four */

	/* ---- its state ---- */
	uint64_t flags; /* of migration; 0: all that there are */
	_Atomic enum qsc_state state;
	enum qsc_state ends; /* where a failing request leaves it */
	int fail;	     /* errno of the next request for a state */
	int reset_fail;	     /* errno of every reset */
	_Atomic int resets;
	int session;		  /* the test's end of the session that was handed out */
	_Atomic int handed;	  /* the other one, which the client has */
	_Atomic int session_fail; /* errno of every call on that */
	bool no_session;	  /* it hands out none, and says that all is well */
	bool obliging;		  /* every number is a state, into which it goes with a session */

	/* ---- its log, and the IOMMU's ---- */
	bool device_log;
	bool log_started;
	int report_fail; /* errno of the device's reports */
	bool tracks;	 /* the IOMMU has a log */
	bool tracking;
	int iommu_fail;	     /* errno of the IOMMU's reports */
	uint64_t dirty_iova; /* a page that it has seen written; 0 for none */

	/* ---- mappings ---- */
	_Atomic int maps, unmaps;
	_Atomic uint64_t last_va;
	bool no_table;			/* the page table with a log is none to attach to */
	int destroyed;			/* how many page tables were */
	int map_fail;			/* errno of mapping */
	struct qsc_device *stop_in_map; /* this one, in the middle of a call to map */
};

extern struct fake fake;

/* As at the beginning, with a device that runs. */
void fake_begin(void);

/* How many files of VFIO are open. */
int fake_count_files(void);

/* The device "a" or "b", which share a group, or "fake", which has one of its own. */
int fake_open(const char *name, enum qsc_kernel_via via, bool raw, struct qsc_device **dev,
	      struct qsc_error *err);

/* Maps memory of that file, MEMORY_SIZE of it. */
int fake_map(struct qsc_device *dev, uint64_t iova, int fd);

enum qsc_state state_of(struct qsc_device *dev);
/* Into a state that must be reached; its session, or 0. */
uint64_t enter(struct qsc_device *dev, enum qsc_state state);

#endif
