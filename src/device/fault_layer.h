/* SPDX-License-Identifier: MIT */
/*
 * What the parts of the fault layer share: the layer over one device, and what a strike is. An
 * action at whose point no rule stands costs one load more; one at which a rule stands is counted,
 * and goes through qsc_fault_strike() before the device is asked and qsc_fault_finish() after.
 *
 * fault.c is the layer itself; fault_strike.c says which rules strike and what they do;
 * fault_migration.c and fault_log.c have the actions of migration and of the dirty log.
 */
#ifndef QSC_DEVICE_FAULT_LAYER_H
#define QSC_DEVICE_FAULT_LAYER_H

#include <pthread.h>
#include <stdatomic.h>

#include <quiesce/device.h>

#include "base/cleanup.h"
#include "device/fault.h"

struct fault {
	struct qsc_device device;
	struct qsc_device *inner;
	_Atomic uint32_t armed; /* bit of every point that has to be looked at */
	_Atomic bool gone;	/* disconnected */
	_Atomic bool broken;	/* as if in ERROR, until reset */
	qsc_fault_fn *struck;
	void *ctx;
	bool walks; /* has rules for single arcs */
	struct fault_relay *relay;
	pthread_mutex_t lock; /* all below */
	uint64_t session;     /* the last that was opened */
	uint64_t bits;	      /* dirty bits that DROP has met */
	uint64_t *last;	      /* what the last report found, for REPEAT */
	size_t last_words;
	struct qsc_dma_range last_range;
	bool keeps_mappings; /* has rules that write to memory */
	struct qsc_dma_mapping *mappings;
	size_t num_mappings;
	struct fault_rules rules;
};

/* An action at an armed point: the rules that strike it, one of a kind. */
struct strike {
	const struct fault_rule *by[FAULT_KINDS];
	int64_t ok;	/* what the action returns when it goes well */
	int64_t result; /* of an action that the device is not asked for */
};

static inline struct fault *fault_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct fault, device);
}

static inline bool armed(struct fault *fault, enum fault_point point)
{
	return __builtin_expect(
		atomic_load_explicit(&fault->armed, memory_order_relaxed) & (1U << point), 0);
}

/* ---- fault_strike.c ---- */

/*
 * Whether the action ends here with s->result; `ok` is what it returns when it goes well. `arg` and
 * `to` are what rules for the point may name, or FAULT_ANY.
 */
bool qsc_fault_strike(struct fault *fault, enum fault_point point, uint32_t arg, uint32_t to,
		      int64_t ok, struct strike *s);
/* What the user is told that the action came to. */
int64_t qsc_fault_finish(const struct strike *s, int64_t result);
/* A number that is said instead of the true one. */
bool qsc_fault_says(const struct strike *s, uint64_t *value);
/* Change data that is read or written, as it is said. */
void qsc_fault_spoil(const struct strike *s, void *data, size_t size);
size_t qsc_fault_shortened(const struct strike *s, size_t size);
/* The count that is told, which a caller may take for that many bytes of its buffer. */
ssize_t qsc_fault_count_told(const struct strike *s, ssize_t result, size_t size);
/* Memory that a rule may write to, where there is one. */
void qsc_fault_keep_mapping(struct fault *fault, const struct qsc_dma_mapping *mapping);
void qsc_fault_forget_mapping(struct fault *fault, uint64_t iova, uint64_t size);

/* An action whose result is 0 or -errno, and of which nothing but that can be wrong. */
#define THROUGH(fault, point, arg, call)                                                     \
	__extension__({                                                                      \
		struct strike through_;                                                      \
		int64_t result_;                                                             \
		if (!armed((fault), (point)))                                                \
			result_ = (call);                                                    \
		else if (qsc_fault_strike((fault), (point), (arg), FAULT_ANY, 0, &through_)) \
			result_ = through_.result;                                           \
		else                                                                         \
			result_ = qsc_fault_finish(&through_, (call));                       \
		(int)result_;                                                                \
	})

/* ---- fault_migration.c: operations of the device, except for the dirty log's ---- */

int qsc_fault_get_migration(struct qsc_device *dev, struct qsc_migration_info *info);
int qsc_fault_get_state(struct qsc_device *dev, enum qsc_state *state);
int qsc_fault_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
int qsc_fault_set_state_begin(struct qsc_device *dev, uint32_t target);
int qsc_fault_set_state_end(struct qsc_device *dev, uint64_t *session);
int qsc_fault_data_size(struct qsc_device *dev, uint64_t *size_bytes);
ssize_t qsc_fault_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size);
ssize_t qsc_fault_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
			       struct iovec *iov, size_t max, size_t *count);
ssize_t qsc_fault_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				size_t size);
int qsc_fault_session_precopy_info(struct qsc_device *dev, uint64_t session,
				   struct qsc_precopy_info *info);
int qsc_fault_session_close(struct qsc_device *dev, uint64_t session);

/* ---- fault_log.c ---- */

int qsc_fault_log_start(struct qsc_device *dev, uint64_t *page_size,
			const struct qsc_dma_range *ranges, size_t num_ranges);
int qsc_fault_log_stop(struct qsc_device *dev);
int qsc_fault_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			 uint64_t *bitmap);

#endif
