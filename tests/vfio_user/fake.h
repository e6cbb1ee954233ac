/* SPDX-License-Identifier: MIT */
/*
 * A device that does what it is told and remembers what it was asked: for tests of whoever carries
 * requests to a device. Any operation can be made to fail once.
 */
#ifndef FAKE_H
#define FAKE_H

#include <pthread.h>

#include <quiesce/device.h>

#define FAKE_REGISTERS	  0U /* 4 KiB, trapped; offset FAKE_KICK: see below */
#define FAKE_MEMORY	  2U /* 64 KiB, mappable in two areas */
#define FAKE_CONFIG	  7U /* 256 bytes */
#define FAKE_BIG	  1U /* 4 MiB, trapped */
#define FAKE_REGIONS	  9U
#define FAKE_MEMORY_SIZE  65536U
#define FAKE_BIG_SIZE	  (4U << 20)
#define FAKE_VECTORS	  300U
#define FAKE_IRQS	  5U
#define FAKE_MSIX	  2U
#define FAKE_MAX_MAPPINGS 64U
#define FAKE_STREAM	  (3U << 20)
#define FAKE_LOG_PAGES	  4096U

/* Writing 8 bytes there makes the device read 8 bytes by DMA from that address into `dma_result`.
 */
#define FAKE_KICK 0x100U
/* The same, of FAKE_BULK bytes that it forgets. */
#define FAKE_KICK_BULK 0x108U
#define FAKE_BULK      65536U

enum fake_op {
	FAKE_OP_REGION_READ,
	FAKE_OP_REGION_WRITE,
	FAKE_OP_SET_IRQS,
	FAKE_OP_DMA_MAP,
	FAKE_OP_SET_STATE,
	FAKE_OP_SESSION_READ,
	FAKE_OP_SESSION_WRITE,
	FAKE_OP_RESET,
	FAKE_OPS
};

struct fake {
	struct qsc_device dev;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool open;
	unsigned int opens;
	int fail[FAKE_OPS]; /* -errno for the next call, then 0 again */
	unsigned int calls[FAKE_OPS];
	uint32_t flags; /* migration flags; 0: cannot migrate */
	enum qsc_state state;
	enum qsc_state fail_state; /* where a failed state change leaves the device */
	uint64_t session;
	uint64_t last_session;
	size_t stream_at; /* bytes read or written in this session */
	size_t drained;	  /* PRE_COPY reads end there for now */
	size_t chunk;	  /* most that one session_read gives; 0: no limit */
	bool lends;	  /* the middle of what is read stays in the device */
	uint8_t registers[4096];
	uint8_t config[256];
	uint8_t *big;
	uint8_t *stream;
	int memory_fd;
	uint8_t *memory;
	int vectors[FAKE_VECTORS];
	uint32_t irq_flags; /* of the last SET_IRQS */
	unsigned int triggers;
	struct qsc_dma_mapping mappings[FAKE_MAX_MAPPINGS];
	size_t num_mappings;
	uint64_t log_page; /* 0: off */
	size_t log_ranges;
	uint64_t dirty[FAKE_LOG_PAGES / 64]; /* pages of 4 KiB from address 0 on */
	uint64_t dma_result;
	int dma_error;
	struct qsc_io_fd io_fd;
};

int fake_create(struct fake **out);
void fake_destroy(struct fake *fake);

/* For qsc_server_options.open, with the fake as ctx. -EBUSY while it is open. */
int fake_open(void *ctx, struct qsc_device **dev, struct qsc_error *err);

/* Device side DMA through whatever the mapping offers: its file, its address, or by asking. */
int fake_dma(struct fake *fake, uint64_t iova, void *buf, size_t size, bool write);

/* Raise a vector. */
void fake_raise(struct fake *fake, uint32_t vector);

/* Wait until nobody holds the device. */
void fake_wait_closed(struct fake *fake);

/* Look at it and change it while it is in use. */
#define fake_get(fake, field)                                   \
	__extension__({                                         \
		pthread_mutex_lock(&(fake)->lock);              \
		__typeof__((fake)->field) got_ = (fake)->field; \
		pthread_mutex_unlock(&(fake)->lock);            \
		got_;                                           \
	})
#define fake_set(fake, field, value)                 \
	do {                                         \
		pthread_mutex_lock(&(fake)->lock);   \
		(fake)->field = (value);             \
		pthread_mutex_unlock(&(fake)->lock); \
	} while (0)

/* Byte `i` of the stream that a saving session reads. */
static inline uint8_t fake_stream_byte(size_t i)
{
	return (uint8_t)(i * 7 + (i >> 9));
}

#endif
