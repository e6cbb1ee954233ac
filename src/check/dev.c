/* SPDX-License-Identifier: MIT */
/* DEV-1 to DEV-8: what a device that is not fully running does, and what it does not. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/guard.h"
#include "check/clause.h"

#define COUNT  32U
#define SIZE   8192U
#define BATCH  ((uint64_t)COUNT * SIZE)
#define TARGET (MEMORY_IOVA + MEMORY_TARGET)

static const enum qsc_state stopped[] = {QSC_STATE_STOP, QSC_STATE_STOP_COPY, QSC_STATE_RESUMING,
					 QSC_STATE_ERROR};
static const enum qsc_state quiescent[] = {QSC_STATE_RUNNING_P2P, QSC_STATE_PRE_COPY_P2P};

#define NUM(array) (sizeof(array) / sizeof((array)[0]))

/* ---- DEV-1: no DMA while stopped ---- */

static enum qsc_check_result dev_1_in(struct harness *h, enum qsc_state state)
{
	uint64_t at;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, TARGET, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	harness_settle(h);
	/* New work as well, by a user who should know better. */
	harness_snapshot(h);
	REQUIRE(h, harness_submit(h, TARGET + BATCH, 4, SIZE, 0));
	harness_snapshot_queue(h);
	REQUIRE(h, harness_kick(h));
	harness_settle(h);
	at = harness_changed(h);
	MUST(h, !at, "memory at %#llx was written in %s", (unsigned long long)at,
	     qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_1(struct harness *h)
{
	NEED_WORK(h);
	REQUIRE(h, harness_start(h));
	for (size_t i = 0; i < NUM(stopped); i++)
		if (harness_has(h, stopped[i]))
			PART(dev_1_in(h, stopped[i]));
	return holds(h, "with %u copies to do, in all stopped states", COUNT);
}

/* ---- DEV-2: no interrupt there either, nor in the P2P states ---- */

static enum qsc_check_result dev_2_in(struct harness *h, enum qsc_state state)
{
	const char *name = qsc_state_name(state);

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_busy(h, TARGET, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	/* Those that came before it got there, and those that were late (ARC-7). */
	harness_settle(h);
	harness_all_signals(h);
	harness_settle(h);
	MUST(h, !harness_all_signals(h), "an interrupt was raised in %s", name);
	if (!h->can_trigger)
		return QSC_CHECK_HOLDS;
	if (state == QSC_STATE_ERROR)
		harness_trigger(h, h->vectors > 1, 2);
	else
		REQUIRE(h, harness_trigger(h, h->vectors > 1, 2));
	harness_settle(h);
	MUST(h, !harness_all_signals(h), "an interrupt was delivered in %s", name);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_2(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!h->vectors && harness_idle(h))
		return not_tried(h, "the device has no message-signalled interrupts");
	if (harness_idle(h) && !h->can_trigger)
		return not_tried(h, "%s, and the user cannot trigger interrupts", harness_idle(h));
	if (harness_idle(h))
		harness_leave_out(h, "interrupts of its own: %s", harness_idle(h));
	for (size_t i = 0; i < NUM(stopped); i++)
		if (harness_has(h, stopped[i]))
			PART(dev_2_in(h, stopped[i]));
	for (size_t i = 0; i < NUM(quiescent); i++)
		if (harness_has(h, quiescent[i]))
			PART(dev_2_in(h, quiescent[i]));
	return holds(h, "%s",
		     h->can_trigger ? "its own and those triggered by the user"
				    : "with copies that end in interrupts");
}

/* ---- DEV-3: its internal state does not change in STOP and STOP_COPY ---- */

static enum qsc_check_result dev_3(struct harness *h)
{
	autosaved first = {0};
	autosaved second = {0};
	autosaved third = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_busy(h, TARGET, COUNT, SIZE, 0));
	REQUIRE(h, harness_save(h, &first));
	harness_settle(h);
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	harness_settle(h);
	REQUIRE(h, harness_kick(h));
	REQUIRE(h, harness_save(h, &second));
	MUST(h, second.size == first.size && memcmp(first.data, second.data, first.size) == 0,
	     "the state changed between two saves with STOP in between");
	/* And in STOP_COPY, with the session open. */
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP_COPY));
	harness_settle(h);
	REQUIRE(h, harness_kick(h));
	REQUIRE(h, harness_save(h, &third));
	MUST(h, third.size == first.size && memcmp(first.data, third.data, first.size) == 0,
	     "the state changed in STOP_COPY");
	if (harness_idle(h))
		harness_leave_out(h, "with work to do: %s", harness_idle(h));
	return holds(h, "three times the same %zu bytes", first.size);
}

/* ---- DEV-4: no new peer DMA in the P2P states ---- */

/* Copies to `iova`: under way, new, and none of them must go on before RUNNING. */
static enum qsc_check_result dev_4_to(struct harness *h, enum qsc_state state, uint64_t iova,
				      const char *whose)
{
	const char *name = qsc_state_name(state);
	uint64_t at;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, iova, COUNT, SIZE, 0));
	REQUIRE(h, harness_set(h, state));
	harness_settle(h);
	harness_snapshot(h);
	REQUIRE(h, harness_submit(h, iova + BATCH, 4, SIZE, 0));
	harness_snapshot_queue(h);
	REQUIRE(h, harness_kick(h));
	harness_settle(h);
	/* What it writes about a copy to a peer, into its ring, is no peer DMA. */
	at = iova == PEER_IOVA ? harness_peer_changed(h) : harness_changed(h);
	MUST(h, !at, "%s at %#llx was written in %s", whose, (unsigned long long)at, name);
	/* It was held back, not lost. */
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	REQUIRE(h, harness_kick(h));
	REQUIRE(h, harness_await_copies(h, 0, COUNT + 4, 0));
	MUST(h, harness_copied(h, iova, COUNT, SIZE) && harness_copied(h, iova + BATCH, 4, SIZE),
	     "DMA that was held back in %s is lost", name);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_4_in(struct harness *h, enum qsc_state state)
{
	PART(dev_4_to(h, state, PEER_IOVA, "a peer's memory"));
	/* One that does not tell must take all memory for a peer's. */
	return h->options->peers == QSC_CHECK_PEERS_NOT_TOLD
		       ? dev_4_to(h, state, TARGET, "memory that may be a peer's")
		       : QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_4(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!(h->flags & QSC_MIGRATION_P2P))
		return not_promised(h, "the device has no P2P states");
	NEED_WORK(h);
	if (h->options->peers == QSC_CHECK_PEERS_UNKNOWN)
		harness_leave_out(h, "DMA to other memory there: whether the device tells peers "
				     "from memory is not known (--tells-peers)");
	for (size_t i = 0; i < NUM(quiescent); i++)
		if (harness_has(h, quiescent[i]))
			PART(dev_4_in(h, quiescent[i]));
	return holds(h, "with %u copies to a peer to do, and more handed over there", COUNT);
}

/* ---- DEV-5: incoming peer accesses are accepted in the P2P states, and saved ---- */

/* What another device does that has this one's memory in its DMA space. */
static int peer_write(struct harness *h, uint64_t offset, const void *data, size_t size)
{
	qsc_autoclose int fd = -1;
	uint64_t start;
	uint8_t *at;
	int r = qsc_device_region_fd(h->dev, h->exerciser->memory_region, &fd, &start);

	if (r)
		return harness_trouble(h, r, "device memory cannot be given to a peer");
	at = mmap(NULL, harness_memory_size(h), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		  (off_t)start);
	if (at == MAP_FAILED)
		return harness_trouble(h, -errno, "device memory cannot be mapped by a peer");
	memcpy(at + offset, data, size);
	munmap(at, harness_memory_size(h));
	return 0;
}

static enum qsc_check_result dev_5_in(struct harness *h, enum qsc_state state)
{
	static const char message[] = "written by a peer";
	uint64_t offset = harness_memory_size(h) / 2 + 100;
	char found[sizeof(message)];
	autosaved stream = {0};

	REQUIRE(h, harness_start_in(h, state));
	if (qsc_state_is_saving(state) && harness_read(h, &stream) != -ENOMSG)
		return not_tried(h, "pre-copy cannot be drained (SESS-3)");
	MUST(h, !peer_write(h, offset, message, sizeof(message)), "in %s, %s",
	     qsc_state_name(state), h->trouble);
	REQUIRE(h, harness_save(h, &stream));
	REQUIRE(h, harness_load(h, &stream));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	REQUIRE(h, harness_memory_read(h, offset, found, sizeof(found)));
	MUST(h, memcmp(found, message, sizeof(message)) == 0,
	     "what a peer wrote in %s is not part of what is saved", qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_5(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!(h->flags & QSC_MIGRATION_P2P))
		return not_promised(h, "the device has no P2P states");
	if (!harness_has_mappable(h))
		return not_promised(h, "the device has no memory that a peer could reach");
	if (!harness_memory_size(h))
		return not_tried(h, "no exerciser knows memory of the device");
	if (peer_write(h, 0, "", 1) == -ENOTTY)
		return not_tried(h, "device memory has no file to give to a peer");
	for (size_t i = 0; i < NUM(quiescent); i++)
		if (harness_has(h, quiescent[i]))
			PART(dev_5_in(h, quiescent[i]));
	return holds(h, "written through the file a peer maps, saved and loaded");
}

/* ---- DEV-6: an interrupt held back is delivered exactly once ---- */

/* After RUNNING was entered: vector 1 was held three times, vector 2 once. */
static enum qsc_check_result dev_6_delivered(struct harness *h, const char *when)
{
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST(h, !harness_await(h, 1, 3) && !harness_await(h, 2, 1), "%s: %s", when, h->trouble);
	/* Never again: not later, and not at the next RUNNING. */
	harness_settle(h);
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	harness_settle(h);
	MUST(h, !harness_all_signals(h), "%s: delivered again", when);
	return QSC_CHECK_HOLDS;
}

static int hold_some(struct harness *h, enum qsc_state state)
{
	int r = harness_start_in(h, state);

	if (!r)
		r = harness_trigger(h, 1, 3);
	if (!r)
		r = harness_trigger(h, 2, 1);
	return r;
}

static enum qsc_check_result dev_6_here(struct harness *h)
{
	static const enum qsc_state states[] = {QSC_STATE_STOP, QSC_STATE_STOP_COPY,
						QSC_STATE_RUNNING_P2P, QSC_STATE_PRE_COPY_P2P};

	for (size_t i = 0; i < NUM(states); i++) {
		char when[64];

		if (!harness_has(h, states[i]))
			continue;
		REQUIRE(h, hold_some(h, states[i]));
		snprintf(when, sizeof(when), "held back in %s", qsc_state_name(states[i]));
		PART(dev_6_delivered(h, when));
	}
	/* A vector that nobody listens to yet waits for somebody. */
	REQUIRE(h, hold_some(h, QSC_STATE_STOP));
	REQUIRE(h, harness_no_interrupts(h));
	REQUIRE(h, harness_interrupts(h));
	return dev_6_delivered(h, "held back while interrupts were set up anew");
}

static enum qsc_check_result dev_6_there(struct harness *h)
{
	autosaved stream = {0};
	autosaved blank = {0};

	REQUIRE(h, hold_some(h, QSC_STATE_STOP));
	REQUIRE(h, harness_save(h, &stream));
	REQUIRE(h, harness_load(h, &stream));
	REQUIRE(h, harness_interrupts(h));
	PART(dev_6_delivered(h, "held back, saved and loaded"));
	/* Held back where it was loaded. */
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, harness_load(h, &blank));
	REQUIRE(h, harness_interrupts(h));
	REQUIRE(h, harness_trigger(h, 1, 3));
	REQUIRE(h, harness_trigger(h, 2, 1));
	PART(dev_6_delivered(h, "held back after a load"));
	/* Those of copies that were under way, wherever the request met them. */
	if (harness_idle(h)) {
		harness_leave_out(h, "interrupts of its own: %s", harness_idle(h));
		return QSC_CHECK_HOLDS;
	}
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, TARGET, COUNT, SIZE, 3));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST(h, !harness_await_copies(h, 3, COUNT, 0), "stopped with copies under way, %s",
	     h->trouble);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_6(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!h->vectors)
		return not_tried(h, "the device has no message-signalled interrupts");
	if (!h->can_trigger)
		return not_tried(h, "the user cannot trigger interrupts");
	if (h->vectors < 3)
		return not_tried(h, "the device has only %u vectors", h->vectors);
	PART(dev_6_here(h));
	PART(dev_6_there(h));
	return holds(h, "after a rollback and after a load");
}

/* ---- DEV-7: stopped, reads give all ones, writes vanish, no host fault ---- */

#define VALUE 0x1122334455667788ULL

static bool all_ones(const uint8_t *bytes, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (bytes[i] != 0xff)
			return false;
	return true;
}

/* Every region but config space, ROM and VGA, which are no registers. */
static enum qsc_check_result dev_7_regions(struct harness *h, const char *name)
{
	for (uint32_t r = 0; r < h->num_regions; r++) {
		const struct qsc_region_info *info = &h->regions[r];
		uint8_t bytes[8];

		if ((h->is_pci && r >= VFIO_PCI_ROM_REGION_INDEX) ||
		    !(info->flags & VFIO_REGION_INFO_FLAG_READ) || info->size < 64)
			continue;
		for (uint64_t at = 0; at < 64; at += sizeof(bytes)) {
			ssize_t n = qsc_device_region_read(h->dev, r, at, bytes, sizeof(bytes));

			MUST(h, n == sizeof(bytes), "region %u at %#llx cannot be read in %s: %s",
			     r, (unsigned long long)at, name,
			     n < 0 ? strerror((int)-n) : "too few bytes");
			MUST(h, all_ones(bytes, sizeof(bytes)),
			     "region %u at %#llx is readable in %s", r, (unsigned long long)at,
			     name);
		}
	}
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_7_trapped(struct harness *h, const char *name)
{
	uint64_t value = 0;

	if (harness_has_register(h)) {
		MUST(h, !harness_register_read(h, &value), "in %s, %s", name, h->trouble);
		MUST(h, value == harness_register_fit(h, UINT64_MAX),
		     "a register reads as %#llx in %s", (unsigned long long)value, name);
		MUST(h, !harness_register_write(h, ~VALUE), "in %s, %s", name, h->trouble);
	}
	if (harness_memory_size(h)) {
		uint8_t bytes[64] = {0};

		MUST(h, !harness_memory_read(h, 0, bytes, sizeof(bytes)), "in %s, %s", name,
		     h->trouble);
		MUST(h, all_ones(bytes, sizeof(bytes)), "device memory is readable in %s", name);
		MUST(h, !harness_memory_write(h, 0, name, 4), "in %s, %s", name, h->trouble);
	}
	return dev_7_regions(h, name);
}

/*
 * Read the first bytes of a mapping, or, with NULL, change them. A mapping that faults takes its
 * process with it, unless somebody is prepared for it.
 */
static enum qsc_check_result mapped_access(struct harness *h, const char *when, uint8_t *map,
					   void *bytes, size_t size)
{
	struct qsc_guard *guard;
	bool hit;
	int r = qsc_guard_add(map, QSC_PAGE_SIZE, &guard);

	if (r)
		return not_tried(h, "mapped device memory cannot be guarded: %s", strerror(-r));
	if (bytes)
		memcpy(bytes, map, size);
	else
		memset(map, 0x5a, size);
	hit = qsc_guard_hit(guard);
	qsc_guard_remove(guard);
	MUST(h, !hit, "an access to mapped device memory faults in %s", when);
	return QSC_CHECK_HOLDS;
}

/* What was written while stopped is not there when the device runs again. */
static enum qsc_check_result dev_7_vanished(struct harness *h, const char *name, uint8_t *map)
{
	uint64_t value = VALUE;

	MUST(h, harness_marked(h, VALUE, &value), "a register was written in %s: %#llx", name,
	     (unsigned long long)value);
	if (!harness_memory_size(h))
		return QSC_CHECK_HOLDS;
	REQUIRE(h, harness_memory_read(h, 0, &value, sizeof(value)));
	MUST(h, value == VALUE, "device memory was written in %s: %#llx", name,
	     (unsigned long long)value);
	if (map)
		PART(mapped_access(h, "RUNNING", map, &value, sizeof(value)));
	MUST(h, value == VALUE, "mapped device memory did not come back after %s", name);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_7_mapped(struct harness *h, const char *name, uint8_t *map)
{
	uint8_t bytes[64];

	PART(mapped_access(h, name, map, bytes, sizeof(bytes)));
	MUST(h, all_ones(bytes, sizeof(bytes)), "mapped device memory is readable in %s", name);
	return mapped_access(h, name, map, NULL, 4);
}

static enum qsc_check_result dev_7_in(struct harness *h, enum qsc_state state)
{
	const char *name = qsc_state_name(state);
	uint64_t value = VALUE;
	void *map = NULL;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_mark(h, VALUE));
	if (harness_memory_size(h)) {
		int r;

		REQUIRE(h, harness_memory_write(h, 0, &value, sizeof(value)));
		r = qsc_device_region_map(h->dev, h->exerciser->memory_region, 0, 4096,
					  PROT_READ | PROT_WRITE, &map);
		if (r && r != -ENOTTY)
			return not_tried(h, "device memory cannot be mapped: %s", strerror(-r));
	}
	REQUIRE(h, harness_enter(h, state));
	PART(dev_7_trapped(h, name));
	if (map)
		PART(dev_7_mapped(h, name, map));
	if (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR)
		return QSC_CHECK_HOLDS;
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	return dev_7_vanished(h, name, map);
}

/* Who knows no register still knows what is saved. */
static enum qsc_check_result dev_7_stream(struct harness *h, enum qsc_state state)
{
	autosaved before = {0};
	autosaved again = {0};
	autosaved after = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_save(h, &before));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_save(h, &again));
	if (before.size != again.size || memcmp(before.data, again.data, again.size) != 0)
		return not_tried(h, "what is saved changes by itself (DEV-3)");
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_set(h, state));
	harness_poke(h);
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_save(h, &after));
	MUST(h, before.size == after.size && memcmp(before.data, after.data, after.size) == 0,
	     "what is saved changes when registers are written in %s", qsc_state_name(state));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_7(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	PART(dev_7_stream(h, QSC_STATE_STOP_COPY));
	PART(dev_7_stream(h, QSC_STATE_STOP));
	for (size_t i = 0; i < NUM(stopped); i++)
		if (harness_has(h, stopped[i]))
			PART(dev_7_in(h, stopped[i]));
	return holds(h, "trapped%s, in all stopped states",
		     harness_memory_size(h) ? " and mapped" : "");
}

/* ---- DEV-8: config space and interrupt setup belong to the user ---- */

/* It works with what was set up while it was stopped. */
static enum qsc_check_result dev_8_works(struct harness *h, const char *name)
{
	uint32_t vector = h->vectors > 1;

	if (harness_idle(h) && !h->can_trigger)
		return QSC_CHECK_HOLDS;
	harness_all_signals(h);
	if (harness_idle(h)) {
		REQUIRE(h, harness_trigger(h, vector, 2));
		MUST(h, !harness_await(h, vector, 2), "set up in %s: %s", name, h->trouble);
		return QSC_CHECK_HOLDS;
	}
	REQUIRE(h, harness_copy(h, TARGET, 2, SIZE, vector));
	MUST(h, !harness_await_copies(h, vector, 2, 0), "set up in %s: %s", name, h->trouble);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_8_in(struct harness *h, enum qsc_state state)
{
	const char *name = qsc_state_name(state);

	REQUIRE(h, harness_start_in(h, state));
	for (int set = 1; h->config_mask && set >= 0; set--) {
		MUST(h, !harness_config_write(h, set), "in %s, %s", name, h->trouble);
		MUST(h, harness_config_read(h) == set, "config space does not take a write in %s",
		     name);
	}
	MUST(h, !harness_no_interrupts(h), "in %s, %s", name, h->trouble);
	MUST(h, !harness_interrupts(h), "in %s, %s", name, h->trouble);
	if (h->config_mask)
		REQUIRE(h, harness_config_write(h, true));
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	return dev_8_works(h, name);
}

static enum qsc_check_result dev_8_load(struct harness *h)
{
	autosaved stream = {0};

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_no_interrupts(h));
	if (h->config_mask)
		REQUIRE(h, harness_config_write(h, false));
	REQUIRE(h, harness_save(h, &stream));
	REQUIRE(h, harness_start_there(h));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	REQUIRE(h, harness_interrupts(h));
	if (h->config_mask)
		REQUIRE(h, harness_config_write(h, true));
	REQUIRE(h, harness_set(h, QSC_STATE_RESUMING));
	REQUIRE(h, harness_write(h, stream.data, stream.size, stream.size));
	REQUIRE(h, harness_set(h, QSC_STATE_STOP));
	MUST(h, !h->config_mask || harness_config_read(h) == 1,
	     "loading a stream changes config space at %#llx",
	     (unsigned long long)h->config_offset);
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	if (!h->can_trigger)
		return QSC_CHECK_HOLDS;
	REQUIRE(h, harness_trigger(h, h->vectors > 1, 1));
	MUST(h, !harness_await(h, h->vectors > 1, 1), "loading a stream tears interrupts down: %s",
	     h->trouble);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result dev_8(struct harness *h)
{
	REQUIRE(h, harness_start(h));
	if (!h->config_mask && !h->vectors)
		return not_tried(h, "the device has neither config space that takes a write nor "
				    "message-signalled interrupts");
	if (!h->config_mask)
		harness_leave_out(h, "config space: no bit of it is known to take a write");
	if (!h->vectors)
		harness_leave_out(h, "interrupt setup: no message-signalled interrupts");
	PART(dev_8_in(h, QSC_STATE_STOP));
	PART(dev_8_in(h, QSC_STATE_STOP_COPY));
	PART(dev_8_load(h));
	return holds(h, "changed in STOP and STOP_COPY, and kept over a load");
}

const struct clause_check dev_checks[] = {
	{QSC_CLAUSE_DEV_1, dev_1}, {QSC_CLAUSE_DEV_2, dev_2}, {QSC_CLAUSE_DEV_3, dev_3},
	{QSC_CLAUSE_DEV_4, dev_4}, {QSC_CLAUSE_DEV_5, dev_5}, {QSC_CLAUSE_DEV_6, dev_6},
	{QSC_CLAUSE_DEV_7, dev_7}, {QSC_CLAUSE_DEV_8, dev_8}, {QSC_CLAUSE_COUNT, NULL},
};
