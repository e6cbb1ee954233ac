/* SPDX-License-Identifier: MIT */
/*
 * Every cell of the allowed list that a device has a state for: the action is tried in that state,
 * and what comes of it must be what qsc_contract_verdict() says. Where it is not, the clause behind
 * the cell is named, if there is one.
 */
#include "check/actions.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/fd.h"
#include "check/clause.h"

#define VALUE  0x1122334455667788ULL
#define COUNT  12U
#define SIZE   8192U
#define TARGET (MEMORY_IOVA + MEMORY_TARGET)

/* A cell: start a device, do the action in `state`, and compare with `verdict`. */
typedef enum qsc_check_result try_fn(struct harness *h, enum qsc_state state,
				     enum qsc_verdict verdict);

static bool works(enum qsc_verdict verdict)
{
	return verdict == QSC_VERDICT_ALLOW || verdict == QSC_VERDICT_TOLERATE;
}

/* As MUST(), where another clause than the item names is at stake; QSC_CLAUSE_COUNT for none. */
#define MUST_OF(h, of, condition, ...)                   \
	do {                                             \
		(h)->broken = (of);                      \
		if (!(condition))                        \
			return broken((h), __VA_ARGS__); \
	} while (0)

/* What a call returned against a verdict that allows or refuses. */
static enum qsc_check_result compare(struct harness *h, enum qsc_clause clause,
				     enum qsc_verdict verdict, int result)
{
	int expected = works(verdict) ? 0 : -qsc_verdict_errno(verdict);

	if (verdict == QSC_VERDICT_TOLERATE && result)
		return not_promised(h, "%s", strerror(-result));
	MUST_OF(h, clause, result == expected, "gives %s instead of %s",
		result ? strerror(-result) : "success", expected ? strerror(-expected) : "success");
	return QSC_CHECK_HOLDS;
}

/* The clause that promises what is still possible in STOP and STOP_COPY, and in no other state. */
static enum qsc_clause dev_8_of(enum qsc_state state)
{
	return state == QSC_STATE_STOP || state == QSC_STATE_STOP_COPY ? QSC_CLAUSE_DEV_8
								       : QSC_CLAUSE_COUNT;
}

/* ---- what the user does to the device ---- */

static enum qsc_check_result try_register(struct harness *h, enum qsc_state state,
					  enum qsc_verdict verdict)
{
	uint64_t value = 0;

	if (!harness_has_register(h))
		return not_tried(h, "no register is known that reads as written");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_register_write(h, 4711));
	REQUIRE(h, harness_enter(h, state));
	REQUIRE(h, harness_register_write(h, VALUE));
	REQUIRE(h, harness_register_read(h, &value));
	if (works(verdict)) {
		if (verdict == QSC_VERDICT_TOLERATE && value != harness_register_fit(h, VALUE))
			return not_promised(h, "a write does not arrive");
		MUST_OF(h, QSC_CLAUSE_COUNT, value == harness_register_fit(h, VALUE),
			"a register reads as %#llx after %#llx was written",
			(unsigned long long)value,
			(unsigned long long)harness_register_fit(h, VALUE));
		return QSC_CHECK_HOLDS;
	}
	MUST_OF(h, QSC_CLAUSE_DEV_7, value == harness_register_fit(h, UINT64_MAX),
		"a register reads as %#llx instead of all ones", (unsigned long long)value);
	if (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR)
		return QSC_CHECK_HOLDS;
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST_OF(h, QSC_CLAUSE_DEV_7, harness_marked(h, 4711, &value),
		"a register has taken a write: %#llx", (unsigned long long)value);
	return QSC_CHECK_HOLDS;
}

/* What another device does that has this one's memory in its DMA space. */
static enum qsc_check_result write_as_peer(struct harness *h, uint64_t value)
{
	qsc_autoclose int fd = -1;
	uint64_t start;
	void *at;

	if (qsc_device_region_fd(h->dev, h->exerciser->memory_region, &fd, &start))
		return not_tried(h, "device memory has no file to give to a peer");
	at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)start);
	MUST_OF(h, QSC_CLAUSE_DEV_5, at != MAP_FAILED,
		"the file of device memory cannot be mapped");
	memcpy(at, &value, sizeof(value));
	munmap(at, 4096);
	return QSC_CHECK_HOLDS;
}

/*
 * A file that was handed out cannot be taken away: what a peer writes into a stopped device is
 * found when it leaves STOP. Nobody leaves RESUMING and ERROR with the memory that was there.
 */
static enum qsc_check_result try_peer(struct harness *h, enum qsc_state state,
				      enum qsc_verdict verdict)
{
	uint64_t (*violations)(void *) = h->options->violations;
	uint64_t found;
	uint64_t value = 0;

	if (!harness_has_mappable(h))
		return not_promised(h, "the device has no memory that a peer could reach");
	if (!harness_memory_size(h))
		return not_tried(h, "no exerciser knows memory of the device");
	if (verdict == QSC_VERDICT_DISCARD &&
	    (state == QSC_STATE_RESUMING || state == QSC_STATE_ERROR))
		return not_tried(h, "is replaced or reset anyway");
	if (verdict == QSC_VERDICT_DISCARD && !violations)
		return not_tried(h, "who finds it cannot be asked");
	REQUIRE(h, harness_start(h));
	/* Somebody holds the file before the device stops, or there is nothing to look for. */
	PART(write_as_peer(h, 1));
	REQUIRE(h, harness_memory_read(h, 0, &value, sizeof(value)));
	MUST_OF(h, QSC_CLAUSE_DEV_5, value == 1, "what a peer writes in RUNNING does not arrive");
	REQUIRE(h, harness_enter(h, state));
	PART(write_as_peer(h, VALUE));
	if (verdict == QSC_VERDICT_DISCARD) {
		found = violations(h->options->violations_ctx);
		REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
		MUST_OF(h, QSC_CLAUSE_COUNT, violations(h->options->violations_ctx) == found + 1,
			"a change is not found when STOP is left (ORD-1)");
		return QSC_CHECK_HOLDS;
	}
	REQUIRE(h, harness_memory_read(h, 0, &value, sizeof(value)));
	MUST_OF(h, QSC_CLAUSE_DEV_5, value == VALUE, "what a peer writes does not arrive: %#llx",
		(unsigned long long)value);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_config_read(struct harness *h, enum qsc_state state,
					     enum qsc_verdict verdict)
{
	uint16_t before = 0, vendor = 0;
	ssize_t n;

	if (!h->is_pci)
		return not_tried(h, "the device has no config space");
	REQUIRE(h, harness_start(h));
	(void)qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, &before,
				     sizeof(before));
	REQUIRE(h, harness_enter(h, state));
	n = qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, PCI_VENDOR_ID, &vendor,
				   sizeof(vendor));
	PART(compare(h, dev_8_of(state), verdict, n < 0 ? (int)n : 0));
	MUST_OF(h, dev_8_of(state), vendor == before && vendor != 0xffff,
		"the vendor reads as %#x, and before as %#x", vendor, before);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_config_write(struct harness *h, enum qsc_state state,
					      enum qsc_verdict verdict)
{
	uint16_t value = h->config_base | h->config_mask;
	ssize_t n;

	if (!h->config_mask)
		return not_tried(h, "no bit of config space is known to take a write");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_config_write(h, false));
	REQUIRE(h, harness_enter(h, state));
	n = qsc_device_region_write(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, h->config_offset, &value,
				    sizeof(value));
	PART(compare(h, dev_8_of(state), verdict, n < 0 ? (int)n : 0));
	MUST_OF(h, dev_8_of(state), harness_config_read(h) == works(verdict),
		"config space at %#llx %s", (unsigned long long)h->config_offset,
		works(verdict) ? "does not take a write" : "has taken a write");
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_irq_setup(struct harness *h, enum qsc_state state,
					   enum qsc_verdict verdict)
{
	if (!h->vectors)
		return not_tried(h, "the device has no message-signalled interrupts");
	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, dev_8_of(state), verdict, harness_set_vectors(h, false)));
	return compare(h, dev_8_of(state), verdict, harness_set_vectors(h, true));
}

/* From any state to RUNNING, by a load where it must be. */
static int run_again(struct harness *h, enum qsc_state state, const struct saved *blank)
{
	int r = 0;

	if (state == QSC_STATE_RESUMING)
		r = harness_write(h, blank->data, blank->size, blank->size);
	return r ? harness_trouble(h, r, "a stream of its own is not taken")
		 : harness_set(h, QSC_STATE_RUNNING);
}

static enum qsc_check_result try_irq_trigger(struct harness *h, enum qsc_state state,
					     enum qsc_verdict verdict)
{
	uint32_t vector = h->vectors > 1;
	const struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = h->irq_index,
		.start = h->first_vector + vector,
		.count = 1,
	};
	autosaved blank = {0};
	int r;

	if (!h->can_trigger)
		return not_tried(h, "the user cannot trigger interrupts");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, harness_start_in(h, state));
	/* What comes too late is another clause's business (ARC-7). */
	harness_settle(h);
	harness_all_signals(h);
	r = qsc_device_set_irqs(h->dev, &set);
	if (qsc_verdict_errno(verdict))
		return compare(h, QSC_CLAUSE_COUNT, verdict, r);
	MUST_OF(h, verdict == QSC_VERDICT_HOLD ? QSC_CLAUSE_DEV_6 : QSC_CLAUSE_COUNT, !r, "%s",
		strerror(-r));
	if (verdict == QSC_VERDICT_HOLD) {
		harness_settle(h);
		MUST_OF(h, QSC_CLAUSE_DEV_2, !harness_all_signals(h),
			"an interrupt is delivered at once");
		REQUIRE(h, run_again(h, state, &blank));
	}
	MUST_OF(h, verdict == QSC_VERDICT_HOLD ? QSC_CLAUSE_DEV_6 : QSC_CLAUSE_COUNT,
		!harness_await(h, vector, 1), "%s", h->trouble);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_dma_mapping(struct harness *h, enum qsc_state state,
					     enum qsc_verdict verdict)
{
	const struct qsc_dma_mapping mapping = {
		.iova = MEMORY_IOVA + 2 * MEMORY_SIZE,
		.size = 8192,
		.flags = QSC_DMA_READ,
		.fd = h->memory_fd,
	};

	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, QSC_CLAUSE_COUNT, verdict, qsc_device_dma_map(h->dev, &mapping)));
	return compare(h, QSC_CLAUSE_COUNT, verdict,
		       qsc_device_dma_unmap(h->dev, mapping.iova, mapping.size));
}

static enum qsc_check_result try_log_start(struct harness *h, enum qsc_state state,
					   enum qsc_verdict verdict)
{
	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	REQUIRE(h, harness_start_in(h, state));
	return compare(h, QSC_CLAUSE_LOG_4, verdict,
		       harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, 4096));
}

static enum qsc_check_result try_log_report(struct harness *h, enum qsc_state state,
					    enum qsc_verdict verdict)
{
	uint64_t bitmap[HARNESS_BITMAP_WORDS];

	if (!h->dirty_log)
		return not_promised(h, "the device has no dirty log");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_log_start(h, MEMORY_IOVA, MEMORY_SIZE, 4096));
	REQUIRE(h, harness_enter(h, state));
	PART(compare(h, QSC_CLAUSE_LOG_4, verdict,
		     harness_log_report(h, MEMORY_IOVA, MEMORY_SIZE, 4096, bitmap)));
	return compare(h, QSC_CLAUSE_LOG_4, verdict, qsc_device_log_stop(h->dev));
}

static enum qsc_check_result try_query(struct harness *h, enum qsc_state state,
				       enum qsc_verdict verdict)
{
	struct qsc_device_info info;
	struct qsc_region_info region;
	struct qsc_irq_info irq;
	struct qsc_migration_info migration;

	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, QSC_CLAUSE_COUNT, verdict, qsc_device_get_info(h->dev, &info)));
	for (uint32_t i = 0; i < info.num_regions; i++)
		PART(compare(h, QSC_CLAUSE_COUNT, verdict,
			     qsc_device_get_region_info(h->dev, i, &region)));
	for (uint32_t i = 0; i < info.num_irqs; i++)
		PART(compare(h, QSC_CLAUSE_COUNT, verdict,
			     qsc_device_get_irq_info(h->dev, i, &irq)));
	PART(compare(h, QSC_CLAUSE_COUNT, verdict, qsc_device_get_migration(h->dev, &migration)));
	MUST_OF(h, QSC_CLAUSE_STATE_3, harness_state(h) == state, "the queries lead to %s",
		qsc_state_name(harness_state(h)));
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_reset(struct harness *h, enum qsc_state state,
				       enum qsc_verdict verdict)
{
	REQUIRE(h, harness_start_in(h, state));
	PART(compare(h, QSC_CLAUSE_ARC_5, verdict, qsc_device_reset(h->dev)));
	MUST_OF(h, state == QSC_STATE_ERROR ? QSC_CLAUSE_ARC_5 : QSC_CLAUSE_STATE_2,
		harness_state(h) == QSC_STATE_RUNNING, "leads to %s",
		qsc_state_name(harness_state(h)));
	return QSC_CHECK_HOLDS;
}

/* In that state with its session, or with one that has ended where there is none. */
static int start_with_session(struct harness *h, enum qsc_state state)
{
	int r = harness_start_in(h, QSC_STATE_STOP_COPY);

	if (!r)
		r = harness_set(h, QSC_STATE_RUNNING);
	return r ? r : harness_enter(h, state);
}

static enum qsc_check_result try_data_read(struct harness *h, enum qsc_state state,
					   enum qsc_verdict verdict)
{
	uint8_t byte;
	ssize_t n;

	REQUIRE(h, start_with_session(h, state));
	n = qsc_device_session_read(h->dev, h->session, &byte, 1);
	return compare(h, QSC_CLAUSE_SESS_2, verdict, n < 0 ? (int)n : 0);
}

static enum qsc_check_result try_data_write(struct harness *h, enum qsc_state state,
					    enum qsc_verdict verdict)
{
	autosaved blank = {0};
	ssize_t n;

	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_blank(h, &blank));
	REQUIRE(h, start_with_session(h, state));
	n = qsc_device_session_write(h->dev, h->session, blank.data, 8);
	return compare(h, QSC_CLAUSE_SESS_2, verdict, n < 0 ? (int)n : 0);
}

static enum qsc_check_result try_precopy_info(struct harness *h, enum qsc_state state,
					      enum qsc_verdict verdict)
{
	struct qsc_precopy_info info;

	if (!(h->flags & QSC_MIGRATION_PRE_COPY))
		return not_promised(h, "the device has no PRE_COPY");
	REQUIRE(h, start_with_session(h, state));
	return compare(h, QSC_CLAUSE_SESS_4, verdict,
		       qsc_device_session_precopy_info(h->dev, h->session, &info));
}

/* ---- what the device does ---- */

/* The clause that forbids it there. */
static enum qsc_clause dma_clause(enum qsc_state state)
{
	return qsc_state_is_p2p(state) ? QSC_CLAUSE_DEV_4 : QSC_CLAUSE_DEV_1;
}

static enum qsc_check_result try_allowed_dma(struct harness *h, enum qsc_state state, uint64_t iova)
{
	REQUIRE(h, harness_start_in(h, state));
	REQUIRE(h, harness_copy(h, iova, COUNT, SIZE, 0));
	MUST_OF(h, QSC_CLAUSE_COUNT, !harness_await_copies(h, 0, COUNT, 0), "%s", h->trouble);
	MUST_OF(h, QSC_CLAUSE_COUNT, harness_copied(h, iova, COUNT, SIZE),
		"the bytes do not arrive");
	return QSC_CHECK_HOLDS;
}

/* Copies to `iova` that it has to do when it gets there, and is asked again to do. */
static enum qsc_check_result try_dma_to(struct harness *h, enum qsc_state state,
					enum qsc_verdict verdict, uint64_t iova)
{
	bool told = h->options->peers != QSC_CHECK_PEERS_NOT_TOLD;
	uint64_t at;

	NEED_WORK(h);
	if (verdict == QSC_VERDICT_ALLOW)
		return try_allowed_dma(h, state, iova);
	if (verdict == QSC_VERDICT_IF_TOLD && told)
		return not_promised(h, "the device may tell peers from memory");
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, iova, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	/* What comes too late is another clause's business (ARC-7). */
	harness_settle(h);
	harness_snapshot(h);
	REQUIRE(h, harness_submit(h, iova + (uint64_t)COUNT * SIZE, COUNT, SIZE, 0));
	harness_snapshot_queue(h);
	REQUIRE(h, harness_kick(h));
	harness_settle(h);
	/* A device that tells peers may still write its ring, which is memory. */
	at = told && iova == PEER_IOVA && qsc_state_is_p2p(state) ? harness_peer_changed(h)
								  : harness_changed(h);
	MUST_OF(h, dma_clause(state), !at, "%#llx was written", (unsigned long long)at);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_memory_dma(struct harness *h, enum qsc_state state,
					    enum qsc_verdict verdict)
{
	return try_dma_to(h, state, verdict, TARGET);
}

static enum qsc_check_result try_peer_dma(struct harness *h, enum qsc_state state,
					  enum qsc_verdict verdict)
{
	return try_dma_to(h, state, verdict, PEER_IOVA);
}

static enum qsc_check_result held_and_delivered(struct harness *h)
{
	uint64_t before;

	/* What comes too late is another clause's business (ARC-7), and counts all the same. */
	harness_settle(h);
	before = harness_signals(h, 0);
	harness_all_signals(h);
	harness_settle(h);
	MUST_OF(h, QSC_CLAUSE_DEV_2, !harness_all_signals(h), "an interrupt is raised");
	REQUIRE(h, harness_set(h, QSC_STATE_RUNNING));
	MUST_OF(h, QSC_CLAUSE_DEV_6, !harness_await_copies(h, 0, COUNT, before), "%s", h->trouble);
	return QSC_CHECK_HOLDS;
}

static enum qsc_check_result try_device_irq(struct harness *h, enum qsc_state state,
					    enum qsc_verdict verdict)
{
	NEED_WORK(h);
	if (verdict == QSC_VERDICT_ALLOW)
		return try_allowed_dma(h, state, TARGET);
	REQUIRE(h, harness_start(h));
	REQUIRE(h, harness_copy(h, TARGET, COUNT, SIZE, 0));
	REQUIRE(h, harness_enter(h, state));
	if (verdict == QSC_VERDICT_HOLD && state != QSC_STATE_RESUMING)
		return held_and_delivered(h);
	harness_settle(h);
	harness_all_signals(h);
	harness_settle(h);
	MUST_OF(h, QSC_CLAUSE_DEV_2, !harness_all_signals(h), "an interrupt is raised");
	if (verdict == QSC_VERDICT_DROP) {
		REQUIRE(h, harness_reset(h));
		harness_settle(h);
		MUST_OF(h, QSC_CLAUSE_SESS_7, !harness_all_signals(h),
			"an interrupt is raised after a reset");
	}
	return QSC_CHECK_HOLDS;
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

/* How a row came out so far. */
struct row {
	unsigned int counts[QSC_CHECK_RESULT_COUNT];
	char why[2][128]; /* the first reason that something is not promised, and was not tried */
};

/* One cell: false when it is broken, and then the evidence is that of the row. */
static bool try_cell(struct harness *h, enum qsc_action action, enum qsc_state state,
		     struct row *row)
{
	enum qsc_verdict verdict = qsc_contract_verdict(action, state);
	enum qsc_check_result result;
	char text[sizeof(h->evidence)];

	h->evidence[0] = '\0';
	h->broken = QSC_CLAUSE_COUNT;
	result = tries[action](h, state, verdict);
	row->counts[result]++;
	(void)snprintf(text, sizeof(text), "%s", h->evidence);
	if (result == QSC_CHECK_BROKEN) {
		broken(h, "in %s (%s): %.400s", qsc_state_name(state), qsc_verdict_name(verdict),
		       text);
		return false;
	}
	if (result == QSC_CHECK_NOT_PROMISED && !row->why[0][0])
		(void)snprintf(row->why[0], sizeof(row->why[0]), "in %s, %.80s",
			       qsc_state_name(state), text);
	if (result == QSC_CHECK_NOT_TRIED && !row->why[1][0])
		(void)snprintf(row->why[1], sizeof(row->why[1]), "in %s, %.80s",
			       qsc_state_name(state), text);
	harness_close(h);
	return true;
}

enum qsc_check_result actions_try(struct harness *h, enum qsc_action action)
{
	struct row row = {0};
	unsigned int kept;

	REQUIRE(h, harness_start(h));
	harness_close(h);
	for (uint32_t s = 0; s < QSC_STATE_COUNT; s++)
		if (harness_has(h, s) && !try_cell(h, action, (enum qsc_state)s, &row))
			return QSC_CHECK_BROKEN;
	h->broken = QSC_CLAUSE_COUNT;
	kept = row.counts[QSC_CHECK_HOLDS];
	if (!kept && row.counts[QSC_CHECK_NOT_TRIED])
		return not_tried(h, "%s", row.why[1]);
	if (!kept)
		return not_promised(h, "%s", row.why[0]);
	if (row.why[1][0])
		harness_leave_out(h, "%s", row.why[1]);
	if (row.counts[QSC_CHECK_NOT_PROMISED])
		return holds(h, "in %u states; not promised %s", kept, row.why[0]);
	return holds(h, "in %u states", kept);
}
