/* SPDX-License-Identifier: MIT */
/*
 * Every cell of the allowed list that a device has a state for: the action is tried in that state,
 * and what comes of it must be what qsc_contract_verdict() says.
 */
#include "actions.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/fd.h"
#include "clause.h"
#include "tap.h"

#define VALUE  0x1122334455667788ULL
#define COUNT  12U
#define SIZE   8192U
#define TARGET (MEMORY_IOVA + MEMORY_TARGET)

/* A cell: start a device, do the action in `state`, and compare with `verdict`. */
typedef enum clause_result try_fn(struct harness *h, enum qsc_state state,
				  enum qsc_verdict verdict);

static bool works(enum qsc_verdict verdict)
{
	return verdict == QSC_VERDICT_ALLOW || verdict == QSC_VERDICT_TOLERATE;
}

/* What a call returned against a verdict that allows or refuses. */
static enum clause_result compare(struct harness *h, enum qsc_verdict verdict, int result)
{
	int expected = works(verdict) ? 0 : -qsc_verdict_errno(verdict);

	MUST(h, result == expected, "%s instead of %s", result ? strerror(-result) : "success",
	     qsc_verdict_name(verdict));
	return CLAUSE_HOLDS;
}

/* ---- what the user does to the device ---- */

static enum clause_result try_register(struct harness *h, enum qsc_state state,
				       enum qsc_verdict verdict)
{
	uint64_t value = 0;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_register_write(h, 4711));
	REQUIRE(h, harness_enter(h, state));
	REQUIRE(h, harness_register_write(h, VALUE));
	REQUIRE(h, harness_register_read(h, &value));
	if (works(verdict)) {
		MUST(h, value == VALUE, "reads %#llx", (unsigned long long)value);
		return CLAUSE_HOLDS;
	}
	MUST(h, verdict == QSC_VERDICT_DISCARD && value == UINT64_MAX, "reads %#llx",
	     (unsigned long long)value);
	if (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR)
		return CLAUSE_HOLDS;
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	REQUIRE(h, harness_register_read(h, &value));
	MUST(h, value == 4711, "written all the same: %#llx", (unsigned long long)value);
	return CLAUSE_HOLDS;
}

/* What another device does that has this one's memory in its DMA space. */
static enum clause_result write_as_peer(struct harness *h, uint64_t value)
{
	qsc_autoclose int fd = -1;
	uint64_t start;
	void *at;

	MUST(h, !qsc_device_region_fd(h->dev, h->exerciser->memory_region, &fd, &start),
	     "device memory has no file");
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	MUST(h, at != MAP_FAILED, "the file cannot be mapped");
	memcpy(at, &value, sizeof(value));
	munmap(at, 4096);
	return CLAUSE_HOLDS;
}

/*
 * A file that was handed out cannot be taken away: what a peer writes into a stopped device is
 * found when it leaves STOP. Nobody leaves RESUMING and ERROR with the memory that was there.
 */
static enum clause_result try_peer(struct harness *h, enum qsc_state state,
				   enum qsc_verdict verdict)
{
	unsigned int found;
	uint64_t value = 0;

	if (verdict == QSC_VERDICT_DISCARD &&
	    (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR))
		return not_tried(h, "is replaced or reset anyway");
	if (verdict == QSC_VERDICT_DISCARD && !h->violations)
		return not_tried(h, "who finds it cannot be asked");
	REQUIRE(h, harness_start(h));
	/* Somebody holds the file before the device stops, or there is nothing to look for. */
	PART(write_as_peer(h, 1));
	REQUIRE(h, harness_enter(h, state));
	PART(write_as_peer(h, VALUE));
	if (verdict == QSC_VERDICT_DISCARD) {
		found = atomic_load(h->violations);
		REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
		MUST(h, atomic_load(h->violations) == found + 1, "not found (ORD-1)");
		return CLAUSE_HOLDS;
	}
	REQUIRE(h, harness_memory_read(h, 0, &value, sizeof(value)));
	MUST(h, works(verdict) && value == VALUE, "the device has %#llx",
	     (unsigned long long)value);
	return CLAUSE_HOLDS;
}

static enum clause_result try_config_read(struct harness *h, enum qsc_state state,
					  enum qsc_verdict verdict)
{
	uint16_t before = 0, vendor = 0;
	ssize_t n;

	REQUIRE(h, harness_start(h));
	qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, &before,
			       sizeof(before));
	REQUIRE(h, harness_enter(h, state));
	n = qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, &vendor,
				   sizeof(vendor));
	MUST(h, works(verdict) == (n == sizeof(vendor) && vendor == before && vendor != 0xffff),
	     "result %zd, vendor %#x", n, vendor);
	return CLAUSE_HOLDS;
}

static enum clause_result try_config_write(struct harness *h, enum qsc_state state,
					   enum qsc_verdict verdict)
{
	uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE, found = 0;
	ssize_t n;

	REQUIRE(h, harness_start_in(h, state));
	n = qsc_device_region_write(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &command,
				    sizeof(command));
	PART(compare(h, verdict, n < 0 ? (int)n : 0));
	qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, &found,
			       sizeof(found));
	MUST(h, works(verdict) == (found == command), "PCI_COMMAND is %#x", found);
	return CLAUSE_HOLDS;
}

static enum clause_result try_irq_setup(struct harness *h, enum qsc_state state,
					enum qsc_verdict verdict)
{
	uint32_t index = h->exerciser->irq_index;

	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, verdict, qsc_device_set_eventfds(h->dev, index, NULL, 0)));
	return compare(h, verdict,
		       qsc_device_set_eventfds(h->dev, index, h->eventfds, HARNESS_VECTORS));
}

/* From any state to RUNNING, by a load where it must be. */
static int run_again(struct harness *h, enum qsc_state state, const struct stream *blank)
{
	int r = 0;

	if (state == QSC_STATE_RESUMING)
		r = harness_write(h, blank->data, blank->size, blank->size);
	return r ? harness_trouble(h, r, "a stream of its own is not taken")
		 : harness_set(h, QSC_STATE_RUNNING);
}

static enum clause_result try_irq_trigger(struct harness *h, enum qsc_state state,
					  enum qsc_verdict verdict)
{
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = h->exerciser->irq_index,
		.start = 1,
		.count = 1,
	};
	autostream blank = {0};
	int r;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, harness_start_in(h, state));
	r = qsc_device_set_irqs(h->dev, &set);
	if (qsc_verdict_errno(verdict))
		return compare(h, verdict, r);
	MUST(h, !r, "%s", strerror(-r));
	if (verdict == QSC_VERDICT_HOLD) {
		harness_settle(h);
		MUST(h, !harness_all_signals(h), "delivered at once");
		REQUIRE(h, run_again(h, state, &blank));
	}
	MUST(h, !harness_await(h, 1, 1), "%s", h->trouble);
	return CLAUSE_HOLDS;
}

static enum clause_result try_dma_mapping(struct harness *h, enum qsc_state state,
					  enum qsc_verdict verdict)
{
	const struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA + 2 * MEMORY_SIZE,
		.size = 8192,
		.flags = QSC_DMA_READ,
		.fd = h->memory_fd,
	};

	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, verdict, qsc_device_dma_map(h->dev, &mapping)));
	return compare(h, verdict, qsc_device_dma_unmap(h->dev, mapping.iova, mapping.size));
}

static enum clause_result try_log_start(struct harness *h, enum qsc_state state,
					enum qsc_verdict verdict)
{
	REQUIRE(h, harness_start_in(h, state));
	return compare(h, verdict, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, 4096));
}

static enum clause_result try_log_report(struct harness *h, enum qsc_state state,
					 enum qsc_verdict verdict)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, 4096));
	REQUIRE(h, harness_enter(h, state));
	PART(compare(h, verdict, harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap)));
	return compare(h, verdict, qsc_device_log_stop(h->dev));
}

static enum clause_result try_query(struct harness *h, enum qsc_state state,
				    enum qsc_verdict verdict)
{
	struct qsc_device_info info;
	struct qsc_region_info region;
	struct qsc_irq_info irq;
	struct qsc_migration_info migration;

	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, verdict, qsc_device_get_info(h->dev, &info)));
	for (uint32_t i = 0; i < info.num_regions; i++)
		PART(compare(h, verdict, qsc_device_get_region_info(h->dev, i, &region)));
	for (uint32_t i = 0; i < info.num_irqs; i++)
		PART(compare(h, verdict, qsc_device_get_irq_info(h->dev, i, &irq)));
	PART(compare(h, verdict, qsc_device_get_migration(h->dev, &migration)));
	MUST(h, harness_state(h) == state, "the state is %s", qsc_state_name(harness_state(h)));
	return CLAUSE_HOLDS;
}

static enum clause_result try_reset(struct harness *h, enum qsc_state state,
				    enum qsc_verdict verdict)
{
	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, verdict, qsc_device_reset(h->dev)));
	MUST(h, harness_state(h) == QSC_STATE_RUNNING, "the state is %s",
	     qsc_state_name(harness_state(h)));
	return CLAUSE_HOLDS;
}

/* In that state with its session, or with one that has ended where there is none. */
static int start_with_session(struct harness *h, enum qsc_state state)
{
	int r = harness_start_in(h, QSC_STATE_STOP_COPY);

	if (!r)
		r = harness_set(h, QSC_STATE_RUNNING);
	return r ? r : harness_enter(h, state);
}

static enum clause_result try_data_read(struct harness *h, enum qsc_state state,
					enum qsc_verdict verdict)
{
	uint8_t byte;
	ssize_t n;

	REQUIRE(h, start_with_session(h, state));
	n = qsc_device_session_read(h->dev, h->session, &byte, 1);
	return compare(h, verdict, n < 0 ? (int)n : 0);
}

static enum clause_result try_data_write(struct harness *h, enum qsc_state state,
					 enum qsc_verdict verdict)
{
	autostream blank = {0};
	ssize_t n;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, start_with_session(h, state));
	n = qsc_device_session_write(h->dev, h->session, blank.data, 8);
	return compare(h, verdict, n < 0 ? (int)n : 0);
}

static enum clause_result try_precopy_info(struct harness *h, enum qsc_state state,
					   enum qsc_verdict verdict)
{
	struct qsc_precopy_info info;

	REQUIRE(h, start_with_session(h, state));
	return compare(h, verdict, qsc_device_session_precopy_info(h->dev, h->session, &info));
}

/* ---- what the device does ---- */

/* Copies to `iova` that it has to do when it gets there, and is asked again to do. */
static enum clause_result try_dma_to(struct harness *h, enum qsc_state state,
				     enum qsc_verdict verdict, uint64_t iova)
{
	bool told = verdict == QSC_VERDICT_IF_TOLD && h->tells_peers;
	uint64_t at;

	if (verdict == QSC_VERDICT_ALLOW) {
		REQUIRE(h, harness_start_in(h, state));
		REQUIRE(h, harness_copy(h, iova, COUNT, SIZE, 0));
		MUST(h, !harness_await(h, 0, COUNT), "%s", h->trouble);
		MUST(h, harness_copied(h, iova, COUNT, SIZE), "the bytes do not arrive");
		return CLAUSE_HOLDS;
	}
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, iova, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	REQUIRE(h, harness_submit(h, iova + (uint64_t)COUNT * SIZE, COUNT, SIZE, 0));
	if (told)
		return CLAUSE_HOLDS;
	harness_snapshot(h);
	REQUIRE(h, h->exerciser->kick(h));
	harness_settle(h);
	/* A device that tells peers may still write its ring, which is memory. */
	at = h->tells_peers && iova == PEER_IOVA && qsc_state_is_p2p(state)
		     ? harness_peer_changed(h)
		     : harness_changed(h);
	MUST(h, !at, "%#llx was written", (unsigned long long)at);
	return CLAUSE_HOLDS;
}

static enum clause_result try_memory_dma(struct harness *h, enum qsc_state state,
					 enum qsc_verdict verdict)
{
	return try_dma_to(h, state, verdict, TARGET);
}

static enum clause_result try_peer_dma(struct harness *h, enum qsc_state state,
				       enum qsc_verdict verdict)
{
	return try_dma_to(h, state, verdict, PEER_IOVA);
}

static enum clause_result try_device_irq(struct harness *h, enum qsc_state state,
					 enum qsc_verdict verdict)
{
	if (verdict == QSC_VERDICT_ALLOW)
		return try_dma_to(h, state, verdict, TARGET);
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, TARGET, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	if (verdict == QSC_VERDICT_HOLD && state != QSC_STATE_RESUMING) {
		uint64_t before = harness_signals(h, 0);

		harness_settle(h);
		MUST(h, !harness_all_signals(h), "raised in that state");
		REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
		MUST(h, before <= COUNT && !harness_await(h, 0, COUNT - before), "%s", h->trouble);
		return CLAUSE_HOLDS;
	}
	harness_all_signals(h);
	harness_settle(h);
	MUST(h, !harness_all_signals(h), "raised in that state");
	if (verdict == QSC_VERDICT_DROP) {
		REQUIRE(h, harness_reset(h));
		harness_settle(h);
		MUST(h, !harness_all_signals(h), "raised after the reset");
	}
	return CLAUSE_HOLDS;
}

/* ---- the table ---- */

static try_fn *const tries[QSC_ACTION_COUNT] = {
	[QSC_ACTION_REGISTER_ACCESS] = try_register,
	[QSC_ACTION_PEER_ACCESS] = try_peer,
	[QSC_ACTION_CONFIG_READ] = try_config_read,
	[QSC_ACTION_CONFIG_WRITE] = try_config_write,
	[QSC_ACTION_IRQ_SETUP] = try_irq_setup,
	[QSC_ACTION_IRQ_TRIGGER] = try_irq_trigger,
	[QSC_ACTION_DMA_MAPPING] = try_dma_mapping,
	[QSC_ACTION_LOG_START] = try_log_start,
	[QSC_ACTION_LOG_REPORT] = try_log_report,
	[QSC_ACTION_QUERY] = try_query,
	[QSC_ACTION_RESET] = try_reset,
	[QSC_ACTION_DATA_READ] = try_data_read,
	[QSC_ACTION_DATA_WRITE] = try_data_write,
	[QSC_ACTION_PRECOPY_INFO] = try_precopy_info,
	[QSC_ACTION_DEVICE_MEMORY_DMA] = try_memory_dma,
	[QSC_ACTION_DEVICE_PEER_DMA] = try_peer_dma,
	[QSC_ACTION_DEVICE_IRQ] = try_device_irq,
};

static void append(char *text, size_t room, const char *fmt, ...) QSC_PRINTF(3, 4);

static void append(char *text, size_t room, const char *fmt, ...)
{
	size_t used = strlen(text);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text + used, room - used, fmt, ap);
	va_end(ap);
}

/* Whether every cell of a row is as it should be; the row as text. */
static bool try_row(struct harness *h, enum qsc_action action, char *text, size_t room)
{
	bool right = true;

	text[0] = '\0';
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++) {
		enum qsc_verdict verdict = qsc_contract_verdict(action, (enum qsc_state)s);
		enum clause_result result;

		if (!harness_has(h, s))
			continue;
		h->evidence[0] = '\0';
		result = tries[action](h, (enum qsc_state)s, verdict);
		harness_close(h);
		if (result == CLAUSE_HOLDS) {
			append(text, room, " %s %s;", qsc_state_name((enum qsc_state)s),
			       qsc_verdict_name(verdict));
			continue;
		}
		/* The two cells that nobody can try say so. */
		if (action != QSC_ACTION_PEER_ACCESS || result != CLAUSE_NOT_TRIED)
			right = false;
		append(text, room, " %s %s %s: %s;", qsc_state_name((enum qsc_state)s),
		       qsc_verdict_name(verdict), clause_result_name(result), h->evidence);
	}
	return right;
}

void actions_try(struct harness *h, const char *device)
{
	char text[2048];

	if (harness_start(h)) {
		tap_result(false, "%s: %s", device, h->trouble);
		return;
	}
	harness_close(h);
	for (int action = 0; action < QSC_ACTION_COUNT; action++) {
		bool right = try_row(h, (enum qsc_action)action, text, sizeof(text));

		tap_result(right, "%s %s:%s", qsc_action_name((enum qsc_action)action), device,
			   text);
	}
}
