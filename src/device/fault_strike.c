/* SPDX-License-Identifier: MIT */
/*
 * Strikes of the fault layer: which rules strike an action, what they do by themselves, and what
 * becomes of its result and data.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "device/fault_layer.h"

#define ALL_POINTS ((1U << FAULT_POINTS) - 1)

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

void qsc_fault_keep_mapping(struct fault *fault, const struct qsc_dma_mapping *mapping)
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

void qsc_fault_forget_mapping(struct fault *fault, uint64_t iova, uint64_t size)
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

/* Whatever it was doing has ended when it is in ERROR. */
static void break_down(struct fault *fault)
{
	uint64_t session;

	(void)qsc_device_set_state(fault->inner, QSC_STATE_STOP, &session);
	atomic_store(&fault->broken, true);
	atomic_store(&fault->armed, ALL_POINTS);
}

/* Whether there is a way to that state; none but a failure leads to ERROR. */
static bool move(struct fault *fault, const struct fault_rule *rule)
{
	uint64_t session;

	if (rule->value != QSC_STATE_ERROR)
		return !atomic_load(&fault->broken) &&
		       !qsc_device_set_state(fault->inner, (uint32_t)rule->value, &session);
	break_down(fault);
	return true;
}

/* What a rule does by itself, before anything else. */
static void act(struct fault *fault, const struct fault_rule *rule)
{
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
		break_down(fault);
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

bool qsc_fault_strike(struct fault *fault, enum fault_point point, uint32_t arg, uint32_t to,
		      int64_t ok, struct strike *s)
{
	bool was_broken = atomic_load(&fault->broken);
	bool stands = false;

	memset(s, 0, sizeof(*s));
	s->ok = ok;
	for (size_t i = 0; i < fault->rules.count; i++) {
		struct fault_rule *rule = &fault->rules.rule[i];

		if (rule->point != point || !strikes(fault, rule, arg, to) ||
		    (rule->kind == FAULT_MOVE && !move(fault, rule)))
			continue;
		/* The action meets the state that it has moved to. */
		was_broken |= rule->kind == FAULT_MOVE && rule->value == QSC_STATE_ERROR;
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

int64_t qsc_fault_finish(const struct strike *s, int64_t result)
{
	const struct fault_rule *turn = s->by[FAULT_TURN];
	const struct fault_rule *say = s->by[FAULT_SAY];

	if (turn && result < 0 && (!turn->turned || result == -turn->turned))
		result = turn->number ? -turn->number : s->ok;
	if (say)
		result = say->number ? -say->number : s->ok;
	return result;
}

bool qsc_fault_says(const struct strike *s, uint64_t *value)
{
	const struct fault_rule *say = s->by[FAULT_SAY];

	if (!say || say->number)
		return false;
	*value = say->value;
	return true;
}

/* ---- data ---- */

void qsc_fault_spoil(const struct strike *s, void *data, size_t size)
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

size_t qsc_fault_shortened(const struct strike *s, size_t size)
{
	return s->by[FAULT_SHORT] ? (size_t)qsc_min_u64(size, s->by[FAULT_SHORT]->value) : size;
}

ssize_t qsc_fault_count_told(const struct strike *s, ssize_t result, size_t size)
{
	uint64_t count;

	if (qsc_fault_says(s, &count))
		return (ssize_t)qsc_min_u64(count, size);
	return (ssize_t)qsc_fault_finish(s, result);
}
