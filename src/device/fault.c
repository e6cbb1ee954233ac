/* SPDX-License-Identifier: MIT */
/*
 * The fault layer: fails, delays, kills or lies at the points that a specification chooses. See
 * <quiesce/device.h>. An action at whose point no rule stands costs one load more; one at which a
 * rule stands is counted, and goes through strike() before the device is asked and finish() after.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <quiesce/device.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "device/fault.h"

#define ALL_POINTS ((1U << FAULT_POINTS) - 1)

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

static struct fault *fault_of(struct qsc_device *dev)
{
	return qsc_container_of(dev, struct fault, device);
}

static inline bool armed(struct fault *fault, enum fault_point point)
{
	return __builtin_expect(
		atomic_load_explicit(&fault->armed, memory_order_relaxed) & (1U << point), 0);
}

static void sleep_us(uint64_t us)
{
	struct timespec left = {
		.tv_sec = (time_t)(us / 1000000),
		.tv_nsec = (long)(us % 1000000) * 1000,
	};

	while (nanosleep(&left, &left) < 0 && errno == EINTR)
		;
}

static enum qsc_state state_met(struct fault *fault)
{
	enum qsc_state state;

	if (atomic_load(&fault->broken) || qsc_device_get_state(fault->inner, &state) < 0)
		return QSC_STATE_ERROR;
	return state;
}

/* ---- memory that the device may write ---- */

static void keep_mapping(struct fault *fault, const struct qsc_dma_mapping *mapping)
{
	struct qsc_dma_mapping *more;

	if (!fault->keeps_mappings)
		return;
	pthread_mutex_lock(&fault->lock);
	more = reallocarray(fault->mappings, fault->num_mappings + 1, sizeof(*more));
	if (more) {
		fault->mappings = more;
		more[fault->num_mappings] = *mapping;
		more[fault->num_mappings++].fd = mapping->fd < 0 ? -1 : qsc_fd_dup(mapping->fd);
	}
	pthread_mutex_unlock(&fault->lock);
}

static void forget_mapping(struct fault *fault, uint64_t iova, uint64_t size)
{
	pthread_mutex_lock(&fault->lock);
	for (size_t i = 0; i < fault->num_mappings; i++) {
		if (fault->mappings[i].iova != iova || fault->mappings[i].size != size)
			continue;
		qsc_fd_close(&fault->mappings[i].fd);
		fault->mappings[i] = fault->mappings[--fault->num_mappings];
		break;
	}
	pthread_mutex_unlock(&fault->lock);
}

/* Change the last byte of a mapping. */
static void change_byte(const struct qsc_dma_mapping *mapping)
{
	uint64_t last = mapping->size - 1;
	uint8_t byte = 0;
	uint8_t *page;

	if (mapping->vaddr) {
		((uint8_t *)mapping->vaddr)[last]++;
	} else if (mapping->fd >= 0) {
		page = mmap(NULL, QSC_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, mapping->fd,
			    (off_t)(mapping->fd_offset + mapping->size - QSC_PAGE_SIZE));
		if (page == MAP_FAILED)
			return;
		page[QSC_PAGE_SIZE - 1]++;
		munmap(page, QSC_PAGE_SIZE);
	} else {
		if (mapping->access->read)
			(void)mapping->access->read(mapping->access->ctx, mapping->iova + last,
						    &byte, 1);
		byte++;
		(void)mapping->access->write(mapping->access->ctx, mapping->iova + last, &byte, 1);
	}
}

static void scribble(struct fault *fault, bool peer)
{
	pthread_mutex_lock(&fault->lock);
	for (size_t i = 0; i < fault->num_mappings; i++) {
		uint32_t flags = fault->mappings[i].flags;

		if ((flags & QSC_DMA_WRITE) && peer == !!(flags & QSC_DMA_PEER))
			change_byte(&fault->mappings[i]);
	}
	pthread_mutex_unlock(&fault->lock);
}

/* ---- striking ---- */

/* Whether a rule strikes the action; counts it. */
static bool strikes(struct fault *fault, struct fault_rule *rule, uint32_t arg, uint32_t to)
{
	uint64_t nth;

	if (rule->arg != FAULT_ANY && (rule->arg != arg || (to != FAULT_ANY && rule->to != to)))
		return false;
	if (rule->state != FAULT_ANY && rule->state != state_met(fault))
		return false;
	nth = atomic_fetch_add(&rule->met, 1) + 1;
	return nth >= rule->first && nth <= rule->last &&
	       qsc_fault_chance(rule->seed, nth, rule->percent);
}

static void tell(struct fault *fault, struct fault_rule *rule)
{
	if (fault->struck && !atomic_exchange(&rule->has_struck, true))
		fault->struck(fault->ctx, rule->text);
}

/* What a rule does by itself, before anything else. */
static void act(struct fault *fault, const struct fault_rule *rule)
{
	uint64_t session;

	switch (rule->kind) {
	case FAULT_DELAY:
		sleep_us(rule->value);
		break;
	case FAULT_KILL:
		(void)kill(getpid(), SIGKILL);
		break;
	case FAULT_DISCONNECT:
		atomic_store(&fault->gone, true);
		atomic_store(&fault->armed, ALL_POINTS);
		break;
	case FAULT_BREAK:
		/* Whatever it was doing has ended when it is in ERROR. */
		(void)qsc_device_set_state(fault->inner, QSC_STATE_STOP, &session);
		atomic_store(&fault->broken, true);
		atomic_store(&fault->armed, ALL_POINTS);
		break;
	case FAULT_MOVE:
		(void)qsc_device_set_state(fault->inner, (uint32_t)rule->value, &session);
		break;
	case FAULT_SCRIBBLE:
		scribble(fault, rule->peer);
		break;
	default:
		break;
	}
}

/* What a device in ERROR answers by itself; 0 where the stopped one below answers as well. */
static int refused_in_error(enum fault_point point)
{
	switch (point) {
	case FAULT_SET_STATE:
	case FAULT_DATA_SIZE:
	case FAULT_LOG_START:
	case FAULT_SET_IRQS:
		return -EIO;
	case FAULT_SESSION_READ:
	case FAULT_SESSION_WRITE:
	case FAULT_SESSION_CLOSE:
		return -ENODEV;
	case FAULT_PRECOPY_INFO:
		return -EINVAL;
	default:
		return 0;
	}
}

/* Whether the action ends here with s->result; `ok` is what it returns when it goes well. */
static bool strike(struct fault *fault, enum fault_point point, uint32_t arg, uint32_t to,
		   int64_t ok, struct strike *s)
{
	bool was_broken = atomic_load(&fault->broken);
	bool stands = false;

	memset(s, 0, sizeof(*s));
	s->ok = ok;
	for (size_t i = 0; i < fault->rules.count; i++) {
		struct fault_rule *rule = &fault->rules.rule[i];

		if (rule->point != point || !strikes(fault, rule, arg, to))
			continue;
		tell(fault, rule);
		s->by[rule->kind] = rule;
		act(fault, rule);
	}
	s->result = was_broken ? refused_in_error(point) : 0;
	if (atomic_load(&fault->gone))
		s->result = -ENOTCONN;
	else if (s->by[FAULT_BREAK])
		s->result = -s->by[FAULT_BREAK]->number;
	else if (s->by[FAULT_FAIL])
		s->result = -s->by[FAULT_FAIL]->number;
	else if (!s->result && s->by[FAULT_SKIP])
		stands = true;
	if (stands)
		s->result = ok;
	return stands || s->result;
}

/* What the user is told that the action came to. */
static int64_t finish(const struct strike *s, int64_t result)
{
	const struct fault_rule *turn = s->by[FAULT_TURN];
	const struct fault_rule *say = s->by[FAULT_SAY];

	if (turn && result < 0 && (!turn->turned || result == -turn->turned))
		result = turn->number ? -turn->number : s->ok;
	if (say)
		result = say->number ? -say->number : s->ok;
	return result;
}

/* A number that is said instead of the true one. */
static bool says(const struct strike *s, uint64_t *value)
{
	const struct fault_rule *say = s->by[FAULT_SAY];

	if (!say || say->number)
		return false;
	*value = say->value;
	return true;
}

/* An action whose result is 0 or -errno, and of which nothing but that can be wrong. */
#define THROUGH(fault, point, arg, call)                                           \
	__extension__({                                                            \
		struct strike through_;                                            \
		int64_t result_;                                                   \
		if (!armed((fault), (point)))                                      \
			result_ = (call);                                          \
		else if (strike((fault), (point), (arg), FAULT_ANY, 0, &through_)) \
			result_ = through_.result;                                 \
		else                                                               \
			result_ = finish(&through_, (call));                       \
		(int)result_;                                                      \
	})

/* ---- queries ---- */

static int fault_get_info(struct qsc_device *dev, struct qsc_device_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_INFO, 0, qsc_device_get_info(fault->inner, info));
}

static int fault_get_region_info(struct qsc_device *dev, uint32_t region,
				 struct qsc_region_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_REGION_INFO, region,
		       qsc_device_get_region_info(fault->inner, region, info));
}

static int fault_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_GET_IRQ_INFO, index,
		       qsc_device_get_irq_info(fault->inner, index, info));
}

static int fault_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	uint64_t flags;
	int64_t result;

	if (!armed(fault, FAULT_GET_MIGRATION))
		return qsc_device_get_migration(fault->inner, info);
	if (strike(fault, FAULT_GET_MIGRATION, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = finish(&s, qsc_device_get_migration(fault->inner, info));
	if (says(&s, &flags))
		info->flags = (uint32_t)flags;
	if (s.by[FAULT_NOLOG])
		info->dirty_log = false;
	return (int)result;
}

/* ---- regions ---- */

static void spoil(const struct strike *s, void *data, size_t size)
{
	const struct fault_rule *flip = s->by[FAULT_FLIP];
	uint64_t at;

	if (s->by[FAULT_FILL])
		memset(data, (int)s->by[FAULT_FILL]->value, size);
	if (!flip || !size)
		return;
	at = flip->value == UINT64_MAX ? size / 2 : flip->value;
	if (at < size)
		((uint8_t *)data)[at] ^= 1;
}

static size_t shortened(const struct strike *s, size_t size)
{
	return s->by[FAULT_SHORT] ? (size_t)qsc_min_u64(size, s->by[FAULT_SHORT]->value) : size;
}

/* The count that is told, which a caller may take for that many bytes of its buffer. */
static ssize_t count_told(const struct strike *s, ssize_t result, size_t size)
{
	uint64_t count;

	if (says(s, &count))
		return (ssize_t)qsc_min_u64(count, size);
	return (ssize_t)finish(s, result);
}

static ssize_t fault_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset,
				 void *buf, size_t count)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_REGION_READ))
		return qsc_device_region_read(fault->inner, region, offset, buf, count);
	memset(buf, 0, count);
	if (strike(fault, FAULT_REGION_READ, region, FAULT_ANY, (int64_t)count, &s))
		return (ssize_t)s.result;
	n = qsc_device_region_read(fault->inner, region, offset, buf, shortened(&s, count));
	if (n > 0)
		spoil(&s, buf, (size_t)n);
	return count_told(&s, n, count);
}

static ssize_t fault_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				  const void *buf, size_t count)
{
	struct fault *fault = fault_of(dev);
	qsc_autofree void *copy = NULL;
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_REGION_WRITE))
		return qsc_device_region_write(fault->inner, region, offset, buf, count);
	if (strike(fault, FAULT_REGION_WRITE, region, FAULT_ANY, (int64_t)count, &s))
		return (ssize_t)s.result;
	if (atomic_load(&fault->broken) && region == VFIO_PCI_CONFIG_REGION_INDEX)
		return -EIO;
	copy = malloc(count);
	if (!copy)
		return -ENOMEM;
	memcpy(copy, buf, count);
	spoil(&s, copy, count);
	n = qsc_device_region_write(fault->inner, region, offset, copy, shortened(&s, count));
	return count_told(&s, n, count);
}

static int fault_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				    size_t count)
{
	struct fault *fault = fault_of(dev);
	size_t done;

	if (!armed(fault, FAULT_REGION_WRITE))
		return qsc_device_region_write_multi(fault->inner, writes, count);
	for (done = 0; done < count; done++) {
		const struct qsc_region_write *write = &writes[done];
		ssize_t n = fault_region_write(dev, write->region, write->offset, write->data,
					       write->count);

		if (n == (ssize_t)write->count)
			continue;
		if (!done)
			return n < 0 ? (int)n : -EIO;
		break;
	}
	return (int)done;
}

static int fault_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			    int prot, void **addr)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_REGION_MAP, region,
		       qsc_device_region_map_at(fault->inner, region, offset, size, prot, addr));
}

static int fault_region_unmap(struct qsc_device *dev, void *addr, size_t size)
{
	return qsc_device_region_unmap(fault_of(dev)->inner, addr, size);
}

static int fault_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	return qsc_device_region_fd(fault_of(dev)->inner, region, fd, fd_offset);
}

static int fault_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			       size_t max)
{
	return qsc_device_region_io_fds(fault_of(dev)->inner, region, fds, max);
}

/* ---- interrupts and DMA ---- */

/* In the relay's thread: what becomes of interrupts that have come. */
static uint64_t relayed(void *ctx, uint32_t vector, uint64_t count)
{
	struct fault *fault = ctx;
	uint64_t deliver = 0;

	/* An eventfd counts; more at once than anybody tells apart are taken as they are. */
	for (uint64_t i = 0; i < qsc_min_u64(count, 4096); i++) {
		struct strike s;

		(void)strike(fault, FAULT_IRQ, vector, FAULT_ANY, 0, &s);
		if (s.by[FAULT_REPEAT])
			deliver += 2;
		else if (!s.by[FAULT_DROP])
			deliver++;
	}
	return deliver + (count > 4096);
}

static int set_relayed(struct fault *fault, const struct qsc_irq_set *set)
{
	bool trigger = set->flags & VFIO_IRQ_SET_ACTION_TRIGGER;
	struct qsc_irq_set instead = *set;
	qsc_autofree int *own = NULL;
	int result;

	if (!fault->relay || !trigger || !(set->flags & VFIO_IRQ_SET_DATA_EVENTFD)) {
		result = qsc_device_set_irqs(fault->inner, set);
		if (fault->relay && trigger && !result && !set->count)
			qsc_fault_relay_clear(fault->relay, set->index);
		return result;
	}
	own = calloc(set->count, sizeof(*own));
	if (!own)
		return -ENOMEM;
	result = qsc_fault_relay_add(fault->relay, set->index, set->start, set->count, set->fds,
				     own);
	if (result < 0)
		return result;
	instead.fds = own;
	result = qsc_device_set_irqs(fault->inner, &instead);
	qsc_fault_relay_settle(fault->relay, set->index, set->start, set->count, own, !result);
	return result;
}

static int fault_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_SET_IRQS, set->index, set_relayed(fault, set));
}

static int fault_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	struct fault *fault = fault_of(dev);
	int result = THROUGH(fault, FAULT_DMA_MAP, 0, qsc_device_dma_map(fault->inner, mapping));

	if (!result)
		keep_mapping(fault, mapping);
	return result;
}

static int fault_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	struct fault *fault = fault_of(dev);

	/* Before the memory may go away. */
	forget_mapping(fault, iova, size);
	return THROUGH(fault, FAULT_DMA_UNMAP, 0, qsc_device_dma_unmap(fault->inner, iova, size));
}

/* ---- migration ---- */

static int fault_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	uint64_t said;
	int64_t result;

	if (!armed(fault, FAULT_GET_STATE))
		return qsc_device_get_state(fault->inner, state);
	if (strike(fault, FAULT_GET_STATE, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = finish(&s, qsc_device_get_state(fault->inner, state));
	if (atomic_load(&fault->broken))
		*state = QSC_STATE_ERROR;
	if (says(&s, &said))
		*state = (enum qsc_state)said;
	return (int)result;
}

/* Take the arcs of a request one by one, so that each can be struck. */
static int walk(struct fault *fault, uint32_t target, uint64_t *session)
{
	struct qsc_migration_info info;
	enum qsc_state at;
	bool moved = false;
	int result = qsc_device_get_migration(fault->inner, &info);

	if (!result)
		result = qsc_device_get_state(fault->inner, &at);
	for (; !result; moved = true) {
		int next = qsc_contract_next(info.flags, at, target);
		uint64_t opened = 0;
		struct strike s;

		/* What is refused or does nothing is for the device to say. */
		if (next < 0 || next == (int)at)
			return moved ? 0 : qsc_device_set_state(fault->inner, target, session);
		if (strike(fault, FAULT_ARC, at, (uint32_t)next, 0, &s))
			return (int)s.result;
		result = qsc_device_set_state(fault->inner, (uint32_t)next, &opened);
		if (opened)
			*session = opened;
		at = (enum qsc_state)next;
	}
	return result;
}

static int request(struct fault *fault, uint32_t target, uint64_t *session)
{
	int result = fault->walks ? walk(fault, target, session)
				  : qsc_device_set_state(fault->inner, target, session);

	if (!result && *session) {
		pthread_mutex_lock(&fault->lock);
		fault->session = *session;
		pthread_mutex_unlock(&fault->lock);
	}
	return result;
}

static int fault_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct fault *fault = fault_of(dev);
	const struct fault_rule *lie;
	struct strike s;
	int result;

	if (!armed(fault, FAULT_SET_STATE))
		return request(fault, target, session);
	if (strike(fault, FAULT_SET_STATE, target, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = (int)finish(&s, request(fault, target, session));
	lie = s.by[FAULT_SESSION];
	if (lie && !result && !lie->value) {
		*session = 0;
	} else if (lie && !result && !*session) {
		pthread_mutex_lock(&fault->lock);
		*session = fault->session;
		pthread_mutex_unlock(&fault->lock);
	}
	return result;
}

static int fault_data_size(struct qsc_device *dev, uint64_t *size_bytes)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	int64_t result;

	if (!armed(fault, FAULT_DATA_SIZE))
		return qsc_device_data_size(fault->inner, size_bytes);
	if (strike(fault, FAULT_DATA_SIZE, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = finish(&s, qsc_device_data_size(fault->inner, size_bytes));
	(void)says(&s, size_bytes);
	return (int)result;
}

/* ---- dirty log ---- */

static int fault_log_start(struct qsc_device *dev, uint64_t *page_size,
			   const struct qsc_dma_range *ranges, size_t num_ranges)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_LOG_START, 0,
		       qsc_device_log_start(fault->inner, page_size, ranges, num_ranges));
}

static int fault_log_stop(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_LOG_STOP, 0, qsc_device_log_stop(fault->inner));
}

/* The lock is held. */
static void drop_bits(struct fault *fault, const struct fault_rule *drop, uint64_t *bits,
		      size_t words)
{
	for (size_t w = 0; w < words; w++)
		for (uint64_t left = bits[w]; left; left &= left - 1)
			if (qsc_fault_chance(drop->chance_seed, fault->bits++, drop->chance))
				bits[w] &= ~(left & -left);
}

/* What this report found is told by the next one of the same range as well. The lock is held. */
static void repeat_bits(struct fault *fault, struct qsc_dma_range range, uint64_t *bits,
			size_t words)
{
	uint64_t *kept = malloc(words * sizeof(*kept));

	if (kept)
		memcpy(kept, bits, words * sizeof(*kept));
	if (fault->last && fault->last_words == words && fault->last_range.iova == range.iova &&
	    fault->last_range.size == range.size)
		for (size_t w = 0; w < words; w++)
			bits[w] |= fault->last[w];
	free(fault->last);
	fault->last = kept;
	fault->last_words = words;
	fault->last_range = range;
}

static int report_wrong(struct fault *fault, const struct strike *s, struct qsc_dma_range range,
			uint64_t page_size, uint64_t *bitmap)
{
	size_t words = (size_t)((range.size - 1) / page_size / 64 + 1);
	qsc_autofree uint64_t *bits = calloc(words, sizeof(*bits));
	int result;

	if (!bits)
		return -ENOMEM;
	result = qsc_device_log_report(fault->inner, range.iova, range.size, page_size, bits);
	if (result < 0)
		return result;
	pthread_mutex_lock(&fault->lock);
	if (s->by[FAULT_REPEAT])
		repeat_bits(fault, range, bits, words);
	if (s->by[FAULT_DROP])
		drop_bits(fault, s->by[FAULT_DROP], bits, words);
	pthread_mutex_unlock(&fault->lock);
	for (size_t w = 0; w < words; w++)
		bitmap[w] |= bits[w];
	return result;
}

static int fault_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size,
			    uint64_t page_size, uint64_t *bitmap)
{
	struct fault *fault = fault_of(dev);
	const struct qsc_dma_range range = {iova, size};
	struct strike s;

	if (!armed(fault, FAULT_LOG_REPORT))
		return qsc_device_log_report(fault->inner, iova, size, page_size, bitmap);
	if (strike(fault, FAULT_LOG_REPORT, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	if (s.by[FAULT_DROP] || s.by[FAULT_REPEAT])
		return (int)finish(&s, report_wrong(fault, &s, range, page_size, bitmap));
	return (int)finish(&s, qsc_device_log_report(fault->inner, iova, size, page_size, bitmap));
}

/* ---- sessions ---- */

static ssize_t fault_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_READ))
		return qsc_device_session_read(fault->inner, session, buf, size);
	if (strike(fault, FAULT_SESSION_READ, 0, FAULT_ANY, 0, &s))
		return (ssize_t)s.result;
	n = qsc_device_session_read(fault->inner, session, buf, shortened(&s, size));
	if (n > 0)
		spoil(&s, buf, (size_t)n);
	if (s.by[FAULT_SAY] && n < (ssize_t)size)
		memset((uint8_t *)buf + (n > 0 ? n : 0), 0, size - (size_t)(n > 0 ? n : 0));
	return count_told(&s, n, size);
}

static ssize_t fault_session_lend(struct qsc_device *dev, uint64_t session, void *buf, size_t size,
				  struct iovec *iov, size_t max, size_t *count)
{
	struct fault *fault = fault_of(dev);
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_READ))
		return qsc_device_session_lend(fault->inner, session, buf, size, iov, max, count);
	n = fault_session_read(dev, session, buf, size);
	if (n > 0) {
		iov[0] = (struct iovec){.iov_base = buf, .iov_len = (size_t)n};
		*count = 1;
	}
	return n;
}

static ssize_t fault_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				   size_t size)
{
	struct fault *fault = fault_of(dev);
	qsc_autofree void *copy = NULL;
	struct strike s;
	ssize_t n;

	if (!armed(fault, FAULT_SESSION_WRITE))
		return qsc_device_session_write(fault->inner, session, buf, size);
	if (strike(fault, FAULT_SESSION_WRITE, 0, FAULT_ANY, (int64_t)size, &s))
		return (ssize_t)s.result;
	if (size && s.by[FAULT_FLIP]) {
		copy = malloc(size);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, buf, size);
		spoil(&s, copy, size);
	}
	n = qsc_device_session_write(fault->inner, session, copy ? copy : buf, shortened(&s, size));
	return count_told(&s, n, size);
}

static int fault_session_precopy_info(struct qsc_device *dev, uint64_t session,
				      struct qsc_precopy_info *info)
{
	struct fault *fault = fault_of(dev);
	struct strike s;
	int64_t result;

	if (!armed(fault, FAULT_PRECOPY_INFO))
		return qsc_device_session_precopy_info(fault->inner, session, info);
	if (strike(fault, FAULT_PRECOPY_INFO, 0, FAULT_ANY, 0, &s))
		return (int)s.result;
	result = finish(&s, qsc_device_session_precopy_info(fault->inner, session, info));
	(void)says(&s, &info->initial_bytes);
	return (int)result;
}

static int fault_session_close(struct qsc_device *dev, uint64_t session)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_SESSION_CLOSE, 0,
		       qsc_device_session_close(fault->inner, session));
}

/* ---- reset and close ---- */

static int reset(struct fault *fault)
{
	int result = qsc_device_reset(fault->inner);

	if (!result)
		atomic_store(&fault->broken, false);
	return result;
}

static int fault_reset(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);

	return THROUGH(fault, FAULT_RESET, 0, reset(fault));
}

static void destroy(struct fault *fault)
{
	qsc_fault_relay_destroy(fault->relay);
	for (size_t i = 0; i < fault->num_mappings; i++)
		qsc_fd_close(&fault->mappings[i].fd);
	free(fault->mappings);
	free(fault->last);
	pthread_mutex_destroy(&fault->lock);
	free(fault);
}

static void fault_close(struct qsc_device *dev)
{
	struct fault *fault = fault_of(dev);
	struct strike s;

	if (armed(fault, FAULT_CLOSE))
		(void)strike(fault, FAULT_CLOSE, 0, FAULT_ANY, 0, &s);
	qsc_device_close(fault->inner);
	destroy(fault);
}

static const struct qsc_device_ops fault_ops = {
	.kind = "fault",
	.get_info = fault_get_info,
	.get_region_info = fault_get_region_info,
	.get_irq_info = fault_get_irq_info,
	.region_read = fault_region_read,
	.region_write = fault_region_write,
	.region_write_multi = fault_region_write_multi,
	.region_map = fault_region_map,
	.region_unmap = fault_region_unmap,
	.region_fd = fault_region_fd,
	.region_io_fds = fault_region_io_fds,
	.set_irqs = fault_set_irqs,
	.dma_map = fault_dma_map,
	.dma_unmap = fault_dma_unmap,
	.get_migration = fault_get_migration,
	.get_state = fault_get_state,
	.set_state = fault_set_state,
	.data_size = fault_data_size,
	.log_start = fault_log_start,
	.log_stop = fault_log_stop,
	.log_report = fault_log_report,
	.session_read = fault_session_read,
	.session_lend = fault_session_lend,
	.session_write = fault_session_write,
	.session_precopy_info = fault_session_precopy_info,
	.session_close = fault_session_close,
	.reset = fault_reset,
	.close = fault_close,
};

/* Leave what is for a device of this name, and note what its rules need. */
static void choose_rules(struct fault *fault, const char *name)
{
	struct fault_rules *rules = &fault->rules;
	size_t kept = 0;

	for (size_t i = 0; i < rules->count; i++) {
		struct fault_rule *rule = &rules->rule[i];

		if (*rule->name && (!name || strcmp(rule->name, name) != 0))
			continue;
		fault->walks |= rule->point == FAULT_ARC;
		fault->keeps_mappings |= rule->kind == FAULT_SCRIBBLE;
		fault->armed |= 1U << rule->point;
		rules->rule[kept++] = *rule;
	}
	rules->count = kept;
}

int qsc_fault_open(struct qsc_device *inner, const char *name, const char *spec,
		   qsc_fault_fn *struck, void *ctx, struct qsc_device **out, struct qsc_error *err)
{
	struct fault *fault = calloc(1, sizeof(*fault));
	struct strike s;
	int result;

	if (!fault)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the faults");
	pthread_mutex_init(&fault->lock, NULL);
	result = qsc_fault_parse(spec, &fault->rules, err);
	if (result < 0)
		goto failed;
	fault->device.ops = &fault_ops;
	fault->inner = inner;
	fault->struck = struck;
	fault->ctx = ctx;
	choose_rules(fault, name);
	if (armed(fault, FAULT_OPEN) && strike(fault, FAULT_OPEN, 0, FAULT_ANY, 0, &s)) {
		result = qsc_error_set(err, (int)-s.result, NULL,
				       "%s cannot be opened: a fault strikes there",
				       name ? name : "the device");
		goto failed;
	}
	if (armed(fault, FAULT_IRQ)) {
		result = qsc_fault_relay_create(relayed, fault, &fault->relay);
		if (result < 0) {
			(void)qsc_error_set(err, -result, NULL, "no thread for interrupts");
			goto failed;
		}
	}
	*out = &fault->device;
	return 0;
failed:
	destroy(fault);
	return result;
}
