/* SPDX-License-Identifier: MIT */
/*
 * The audit layer: passes every action on, notes it with the state it met, and calls the judges
 * where something can be wrong. What is always right costs a note: a lock that nobody else wants, a
 * clock reading and a place in a ring.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <linux/vfio.h>

#include "audit/audit.h"
#include "base/cleanup.h"

static struct audited *audited_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct audited, device);
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000U + (uint64_t)ts.tv_nsec;
}

uint64_t audit_now_us(const struct qsc_audit *audit)
{
	return (now_ns() - audit->made_ns) / 1000;
}

/* ---- notes ---- */

static inline void note(struct audited *a, enum qsc_state state, const char *name, uint64_t arg,
			uint64_t arg2, int64_t result)
{
	struct audit_entry *last;

	pthread_mutex_lock(&a->lock);
	a->actions++;
	last = &a->ring[(a->num_entries + AUDIT_RING - 1) % AUDIT_RING];
	if (a->num_entries && last->name == name && last->a == arg && last->result == result &&
	    last->state == state && last->repeated < UINT32_MAX) {
		last->repeated++;
		last->varied |= last->b != arg2;
	} else {
		a->ring[a->num_entries++ % AUDIT_RING] = (struct audit_entry){
			.us = audit_now_us(a->audit),
			.name = name,
			.a = arg,
			.b = arg2,
			.result = result,
			.state = state,
		};
	}
	pthread_mutex_unlock(&a->lock);
}

static enum qsc_clause clause_of(enum qsc_action action)
{
	switch (action) {
	case QSC_ACTION_REGISTER_ACCESS:
		return QSC_CLAUSE_ORD_1;
	case QSC_ACTION_IRQ_SETUP:
		return QSC_CLAUSE_ORD_2;
	default:
		return QSC_CLAUSE_COUNT;
	}
}

static void judge_cell(struct audited *a, enum qsc_action action, enum qsc_state state,
		       enum qsc_verdict verdict)
{
	enum qsc_finding_kind kind = QSC_FINDING_REFUSED;
	enum qsc_clause clause = QSC_CLAUSE_COUNT;

	if (verdict == QSC_VERDICT_TOLERATE) {
		kind = QSC_FINDING_STRETCH;
		clause = clause_of(action);
	} else if (verdict == QSC_VERDICT_DISCARD) {
		kind = QSC_FINDING_VIOLATION;
		clause = clause_of(action);
	}
	audit_found(a, kind, clause, action, state, "%s in %s", qsc_action_text(action),
		    qsc_state_name(state));
}

/* Note an action of the allowed list, and judge it where the list does not simply allow it. */
static inline void note_action(struct audited *a, enum qsc_action action, enum qsc_state state,
			       const char *name, uint64_t arg, uint64_t arg2, int64_t result)
{
	enum qsc_verdict verdict = qsc_contract_verdict(action, state);
	bool odd = atomic_load_explicit(&a->odd, memory_order_relaxed);

	note(a, state, name, arg, arg2, result);
	if (__builtin_expect(!odd && (verdict == QSC_VERDICT_ALLOW || verdict == QSC_VERDICT_HOLD),
			     1))
		return;
	pthread_mutex_lock(&a->audit->lock);
	if (verdict != QSC_VERDICT_ALLOW && verdict != QSC_VERDICT_HOLD)
		judge_cell(a, action, state, verdict);
	if (odd)
		audit_odd_action(a, action, state);
	pthread_mutex_unlock(&a->audit->lock);
}

/* Run what a rare action means for others under the audit's lock. */
#define JUDGED(a, call)                                  \
	do {                                             \
		pthread_mutex_lock(&(a)->audit->lock);   \
		call;                                    \
		pthread_mutex_unlock(&(a)->audit->lock); \
	} while (0)

/* ---- queries ---- */

static int audit_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_get_info(a->inner, info);

	note(a, audit_state(a), "get-info", 0, 0, result);
	return result;
}

static int audit_get_region_info(struct qsc_device *dev, uint32_t region,
				 struct qsc_region_info *info)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_get_region_info(a->inner, region, info);

	note(a, audit_state(a), "get-region-info", region, 0, result);
	return result;
}

static int audit_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_get_irq_info(a->inner, index, info);

	note(a, audit_state(a), "get-irq-info", index, 0, result);
	return result;
}

static int audit_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_get_migration(a->inner, info);

	note(a, audit_state(a), "get-migration", 0, 0, result);
	return result;
}

/* ---- regions ---- */

static enum qsc_action access_action(uint32_t region, bool write)
{
	if (region != VFIO_PCI_CONFIG_REGION_INDEX)
		return QSC_ACTION_REGISTER_ACCESS;
	return write ? QSC_ACTION_CONFIG_WRITE : QSC_ACTION_CONFIG_READ;
}

static ssize_t audit_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset,
				 void *buf, size_t count)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	ssize_t n = qsc_device_region_read(a->inner, region, offset, buf, count);

	note_action(a, access_action(region, false), state, "region-read", region, offset, n);
	return n;
}

static ssize_t audit_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				  const void *buf, size_t count)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	ssize_t n = qsc_device_region_write(a->inner, region, offset, buf, count);

	note_action(a, access_action(region, true), state, "region-write", region, offset, n);
	return n;
}

static int audit_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				    size_t count)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int n = qsc_device_region_write_multi(a->inner, writes, count);

	for (size_t i = 0; i < count; i++)
		note_action(a, access_action(writes[i].region, true), state, "region-write",
			    writes[i].region, writes[i].offset,
			    n < 0 ? n : (int64_t)writes[i].count);
	return n;
}

static int audit_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			    int prot, void **addr)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_region_map(a->inner, region, offset, size, prot, addr);

	note(a, audit_state(a), "region-map", region, offset, result);
	return result;
}

static int audit_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_region_unmap(a->inner, addr, size);

	note(a, audit_state(a), "region-unmap", 0, size, result);
	return result;
}

static int audit_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_region_fd(a->inner, region, fd, fd_offset);

	note(a, audit_state(a), "region-fd", region, 0, result);
	return result;
}

static int audit_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			       size_t max)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_region_io_fds(a->inner, region, fds, max);

	note(a, audit_state(a), "region-io-fds", region, 0, result);
	return result;
}

/* ---- interrupts and DMA ---- */

static int audit_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	bool by_fd = set->flags & VFIO_IRQ_SET_DATA_EVENTFD;
	bool trigger = (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER) && !by_fd && set->count;
	int result = qsc_device_set_irqs(a->inner, set);

	note_action(a, trigger ? QSC_ACTION_IRQ_TRIGGER : QSC_ACTION_IRQ_SETUP, state, "set-irqs",
		    set->index, set->count, result);
	if (!result && !trigger && (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER))
		JUDGED(a, audit_irqs_set(a, state, by_fd ? set->count : 0));
	return result;
}

static int audit_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_dma_map(a->inner, mapping);
	struct audit_mapping kept = {mapping->iova, mapping->size, mapping->flags, 0};

	note_action(a, QSC_ACTION_DMA_MAPPING, state, "dma-map", mapping->iova, mapping->size,
		    result);
	if (result)
		return result;
	kept.peer = audit_group_peer(a, mapping);
	pthread_mutex_lock(&a->lock);
	/* Without memory for it the audit sees less; the user's mapping stands. */
	(void)audit_mappings_add(&a->mappings, &kept);
	pthread_mutex_unlock(&a->lock);
	if (a->dma_late || a->num_revoked)
		JUDGED(a, audit_mapped(a, state, mapping));
	return 0;
}

static int audit_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_dma_unmap(a->inner, iova, size);
	struct audit_mapping removed;
	bool known;

	note_action(a, QSC_ACTION_DMA_MAPPING, state, "dma-unmap", iova, size, result);
	if (result)
		return result;
	pthread_mutex_lock(&a->lock);
	known = audit_mappings_remove(&a->mappings, iova, size, &removed);
	pthread_mutex_unlock(&a->lock);
	if (known && (removed.peer || (removed.flags & QSC_DMA_PEER)))
		JUDGED(a, audit_group_unmapped(a, &removed));
	return 0;
}

/* ---- migration ---- */

static int audit_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct audited *a = audited_of(dev);
	enum qsc_state met = audit_state(a);
	int result = qsc_device_get_state(a->inner, state);

	note(a, met, "get-state", result ? 0 : *state, 0, result);
	if (result)
		return result;
	pthread_mutex_lock(&a->audit->lock);
	a->failed = false;
	atomic_store(&a->state, *state);
	atomic_store(&a->odd, a->lost);
	pthread_mutex_unlock(&a->audit->lock);
	return 0;
}

static int audit_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct audited *a = audited_of(dev);
	enum qsc_state met = audit_state(a);
	enum qsc_state now = (enum qsc_state)target;
	int result;

	JUDGED(a, audit_before_request(a, target));
	result = qsc_device_set_state(a->inner, target, session);
	if (result < 0 && qsc_device_get_state(a->inner, &now) < 0)
		now = QSC_STATE_ERROR;
	note(a, met, "set-state", target, *session, result);
	JUDGED(a, audit_after_request(a, target, result, now));
	return result;
}

static int audit_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_data_size(a->inner, size_bytes);

	note(a, audit_state(a), "data-size", *size_bytes, 0, result);
	return result;
}

static int audit_log_start(struct qsc_device *dev, uint64_t *page_size,
			   const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_log_start(a->inner, page_size, ranges, num_ranges);

	note_action(a, QSC_ACTION_LOG_START, state, "log-start", num_ranges, *page_size, result);
	if (!result)
		JUDGED(a, audit_log_started(a, ranges, num_ranges));
	return result;
}

static int audit_log_stop(struct qsc_device *dev)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_log_stop(a->inner);

	note_action(a, QSC_ACTION_LOG_REPORT, state, "log-stop", 0, 0, result);
	if (!result)
		JUDGED(a, a->logging = false);
	return result;
}

static int audit_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size,
			    uint64_t page_size, uint64_t *bitmap)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_log_report(a->inner, iova, size, page_size, bitmap);

	note_action(a, QSC_ACTION_LOG_REPORT, state, "log-report", iova, size, result);
	if (!result)
		JUDGED(a, audit_log_reported(a, state));
	return result;
}

/* ---- sessions ---- */

static void read_done(struct audited *a, enum qsc_state state, const void *data, size_t size,
		      ssize_t result)
{
	note_action(a, QSC_ACTION_DATA_READ, state, "session-read", 0, 0, result);
	pthread_mutex_lock(&a->audit->lock);
	if (result > 0)
		audit_saw_data(a, data, size);
	else
		audit_read(a, state, result);
	pthread_mutex_unlock(&a->audit->lock);
}

static ssize_t audit_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	ssize_t n = qsc_device_session_read(a->inner, session, buf, size);

	read_done(a, state, buf, n > 0 ? (size_t)n : 0, n);
	return n;
}

static ssize_t audit_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
				  struct iovec *iov, size_t max, size_t *count)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	ssize_t n = qsc_device_session_lend(a->inner, session, buf, size, iov, max, count);

	if (n <= 0)
		read_done(a, state, buf, 0, n);
	for (size_t i = 0; i < *count && n > 0; i++)
		read_done(a, state, iov[i].iov_base, iov[i].iov_len, (ssize_t)iov[i].iov_len);
	return n;
}

static ssize_t audit_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				   size_t size)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	ssize_t n = qsc_device_session_write(a->inner, session, buf, size);

	note_action(a, QSC_ACTION_DATA_WRITE, state, "session-write", 0, 0, n);
	pthread_mutex_lock(&a->audit->lock);
	if (n > 0 || state == QSC_STATE_RESUMING)
		audit_saw_data(a, buf, n > 0 ? (size_t)n : size);
	if (n < 0 && state == QSC_STATE_RESUMING)
		a->broken = true;
	pthread_mutex_unlock(&a->audit->lock);
	return n;
}

static int audit_session_precopy_info(struct qsc_device *dev, uint64_t session,
				      struct qsc_precopy_info *info)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result = qsc_device_session_precopy_info(a->inner, session, info);

	note_action(a, QSC_ACTION_PRECOPY_INFO, state, "precopy-info", info->initial_bytes,
		    info->dirty_bytes, result);
	if (!result)
		JUDGED(a, audit_precopy_info(a, info));
	return result;
}

static int audit_session_close(struct qsc_device *dev, uint64_t session)
{
	struct audited *a = audited_of(dev);
	int result = qsc_device_session_close(a->inner, session);

	note(a, audit_state(a), "session-close", session, 0, result);
	return result;
}

/* ---- reset, open and close ---- */

static int audit_reset(struct qsc_device *dev)
{
	struct audited *a = audited_of(dev);
	enum qsc_state state = audit_state(a);
	int result;

	JUDGED(a, audit_before_reset(a));
	result = qsc_device_reset(a->inner);
	note(a, state, "reset", 0, 0, result);
	JUDGED(a, audit_after_reset(a, result));
	return result;
}

static void forget(struct audited *a)
{
	pthread_mutex_destroy(&a->lock);
	free(a->mappings.slot);
	free(a);
}

/* Remove one from the list. */
static void take_out(struct qsc_audit *audit, struct audited *a)
{
	struct audited **at = &audit->devices;

	while (*at && *at != a)
		at = &(*at)->next;
	if (*at)
		*at = a->next;
	if (a->partner)
		a->partner->partner = NULL;
	audit->past_actions += a->actions;
	audit->num_gone -= a->gone;
	forget(a);
}

/* One that was saved may yet turn out to be a source; the oldest of too many is forgotten. */
static void keep_or_forget(struct qsc_audit *audit, struct audited *a)
{
	struct audited *oldest = NULL;

	if (!a->saved || a->partner) {
		take_out(audit, a);
		return;
	}
	free(a->mappings.slot);
	a->mappings = (struct audit_mappings){0};
	a->gone = true;
	if (++audit->num_gone <= AUDIT_GONE)
		return;
	for (struct audited *each = audit->devices; each; each = each->next)
		if (each->gone)
			oldest = each;
	if (oldest)
		take_out(audit, oldest);
}

static void audit_close(struct qsc_device *dev)
{
	struct audited *a = audited_of(dev);
	struct qsc_audit *audit = a->audit;

	note(a, audit_state(a), "close", 0, 0, 0);
	JUDGED(a, audit_before_close(a));
	qsc_device_close(a->inner);
	pthread_mutex_lock(&audit->lock);
	keep_or_forget(audit, a);
	pthread_mutex_unlock(&audit->lock);
}

static const struct qsc_device_ops audit_ops = {
	.kind = "audit",
	.get_info = audit_get_info,
	.get_region_info = audit_get_region_info,
	.get_irq_info = audit_get_irq_info,
	.region_read = audit_region_read,
	.region_write = audit_region_write,
	.region_write_multi = audit_region_write_multi,
	.region_map = audit_region_map,
	.region_unmap = audit_region_unmap,
	.region_fd = audit_region_fd,
	.region_io_fds = audit_region_io_fds,
	.set_irqs = audit_set_irqs,
	.dma_map = audit_dma_map,
	.dma_unmap = audit_dma_unmap,
	.get_migration = audit_get_migration,
	.get_state = audit_get_state,
	.set_state = audit_set_state,
	.data_size = audit_data_size,
	.log_start = audit_log_start,
	.log_stop = audit_log_stop,
	.log_report = audit_log_report,
	.session_read = audit_session_read,
	.session_lend = audit_session_lend,
	.session_write = audit_session_write,
	.session_precopy_info = audit_session_precopy_info,
	.session_close = audit_session_close,
	.reset = audit_reset,
	.close = audit_close,
};

int qsc_audit_open(struct qsc_audit *audit, struct qsc_device *inner, const char *name,
		   uint64_t user, struct qsc_device **out)
{
	struct audited *a = calloc(1, sizeof(*a));
	struct qsc_migration_info info;
	enum qsc_state state = QSC_STATE_RUNNING;

	if (!a)
		return -ENOMEM;
	pthread_mutex_init(&a->lock, NULL);
	a->device.ops = &audit_ops;
	a->inner = inner;
	a->audit = audit;
	a->user = user;
	(void)snprintf(a->name, sizeof(a->name), "%s", name);
	if (!qsc_device_get_migration(inner, &info)) {
		a->flags = info.flags;
		if (qsc_device_get_state(inner, &state) < 0)
			state = QSC_STATE_RUNNING;
	}
	atomic_store(&a->state, state);
	audit_group_learn(a);
	pthread_mutex_lock(&audit->lock);
	a->number = ++audit->numbers;
	a->next = audit->devices;
	audit->devices = a;
	pthread_mutex_unlock(&audit->lock);
	*out = &a->device;
	return 0;
}

int qsc_audit_create(enum qsc_audit_profile profile, struct qsc_audit **out)
{
	struct qsc_audit *audit = calloc(1, sizeof(*audit));

	if (!audit)
		return -ENOMEM;
	audit->profile = profile;
	audit->made_ns = now_ns();
	pthread_mutex_init(&audit->lock, NULL);
	*out = audit;
	return 0;
}

void qsc_audit_destroy(struct qsc_audit *audit)
{
	if (!audit)
		return;
	for (struct audited *a = audit->devices, *next; a; a = next) {
		next = a->next;
		forget(a);
	}
	pthread_mutex_destroy(&audit->lock);
	free(audit);
}

void qsc_audit_totals(struct qsc_audit *audit, struct qsc_audit_totals *totals)
{
	pthread_mutex_lock(&audit->lock);
	*totals = (struct qsc_audit_totals){
		.actions = audit->past_actions,
		.devices = audit->numbers,
		.moves = audit->moves,
		.dropped = audit->dropped,
	};
	for (struct audited *a = audit->devices; a; a = a->next) {
		pthread_mutex_lock(&a->lock);
		totals->actions += a->actions;
		pthread_mutex_unlock(&a->lock);
	}
	pthread_mutex_unlock(&audit->lock);
}
