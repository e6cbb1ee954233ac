/* SPDX-License-Identifier: MIT */
/*
 * What the audit and fault layers add to an action in which there is nothing to find: a register
 * read of a device of ours, and everything else that is done often while a guest runs or moves, on
 * a device that does nothing, so that the difference is the layer's.
 */
#include "bench.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <quiesce/audit.h>

#include "dmacopy/dmacopy.h"
#include "models.h"

#define MAPPINGS 64 /* there while others come and go */
#define PIECE	 4096

/* ---- a device that does nothing ---- */

static int idle_get_migration(struct qsc_device *dev, struct qsc_migration_info *info)
{
	*info = (struct qsc_migration_info){.flags = 7, .dirty_log = true};
	return 0;
}

static int idle_get_state(struct qsc_device *dev, enum qsc_state *state)
{
	*state = QSC_STATE_RUNNING;
	return 0;
}

static int idle_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	*session = 1;
	return 0;
}

static int idle_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping)
{
	return 0;
}

static int idle_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size)
{
	return 0;
}

static int idle_log_start(struct qsc_device *dev, uint64_t *page_size,
			  const struct qsc_dma_range *ranges, size_t num_ranges)
{
	return 0;
}

static int idle_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			   uint64_t *bitmap)
{
	return 0;
}

static ssize_t idle_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	return (ssize_t)size;
}

static ssize_t idle_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				  size_t size)
{
	return (ssize_t)size;
}

static void idle_close(struct qsc_device *dev)
{
}

static const struct qsc_device_ops idle_ops = {
	.kind = "idle",
	.get_migration = idle_get_migration,
	.get_state = idle_get_state,
	.set_state = idle_set_state,
	.dma_map = idle_map,
	.dma_unmap = idle_unmap,
	.log_start = idle_log_start,
	.log_report = idle_log_report,
	.session_read = idle_session_read,
	.session_write = idle_session_write,
	.close = idle_close,
};

/* ---- actions ---- */

static int memory_fd = -1;

static void must(ssize_t result)
{
	if (result < 0)
		bench_die("the device does not answer", (int)result);
}

/* Another region each time: a note of the same again would be cheaper. */
static void read_register(struct qsc_device *dev, uint32_t i)
{
	uint32_t value;

	must(qsc_device_region_read(dev,
				    i % 2 ? DMACOPY_BAR_REGISTERS : VFIO_PCI_CONFIG_REGION_INDEX, 0,
				    &value, sizeof(value)));
}

static void read_data(struct qsc_device *dev, uint32_t i)
{
	static uint8_t piece[PIECE];

	must(qsc_device_session_read(dev, 1, piece, PIECE - i % 2));
}

static void write_data(struct qsc_device *dev, uint32_t i)
{
	static const uint8_t piece[PIECE];

	must(qsc_device_session_write(dev, 1, piece, PIECE - i % 2));
}

static void report_log(struct qsc_device *dev, uint32_t i)
{
	uint64_t bitmap = 0;

	must(qsc_device_log_report(dev, i % 2 * 4096ULL, 4096, 4096, &bitmap));
}

static struct qsc_dma_mapping mapping_of(uint32_t i)
{
	static uint8_t memory[PIECE];

	return (struct qsc_dma_mapping){
		.iova = (uint64_t)i * 2 * 4096,
		.size = 4096,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = memory,
		.fd = -1,
	};
}

/* Each is half of one round. */
static void map_memory(struct qsc_device *dev, uint32_t i)
{
	struct qsc_dma_mapping mapping = mapping_of(MAPPINGS + i / 2 % 1024);

	must(i % 2 ? qsc_device_dma_unmap(dev, mapping.iova, mapping.size)
		   : qsc_device_dma_map(dev, &mapping));
}

static void map_file(struct qsc_device *dev, uint32_t i)
{
	struct qsc_dma_mapping mapping = mapping_of(MAPPINGS + i / 2 % 1024);

	mapping.vaddr = NULL;
	mapping.fd = memory_fd;
	must(i % 2 ? qsc_device_dma_unmap(dev, mapping.iova, mapping.size)
		   : qsc_device_dma_map(dev, &mapping));
}

/* ---- the comparison ---- */

static double round_ns(struct qsc_device *dev, void (*act)(struct qsc_device *, uint32_t),
		       uint32_t count)
{
	uint64_t start = bench_now_ns();

	for (uint32_t i = 0; i < count; i++)
		act(dev, i);
	return (double)(bench_now_ns() - start) / count;
}

static struct qsc_device *open_plain(void)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	if (models_open("dmacopy", NULL, &dev, &err))
		bench_die(err.text, -err.number);
	return dev;
}

static void compare(struct bench_run *run, struct qsc_device *plain, struct qsc_device *layered,
		    void (*act)(struct qsc_device *, uint32_t), const char *key, const char *name)
{
	const uint32_t count = run->quick ? 100 : 20000;
	const size_t rounds = run->quick ? 3 : 101;
	double with[128];
	double without[128];

	bench_pin(run->cpus[0]);
	for (size_t i = 0; i < rounds; i++) {
		without[i] = round_ns(plain, act, count);
		with[i] = round_ns(layered, act, count);
	}
	bench_add(run, (struct bench_figure){
			       .key = key,
			       .name = name,
			       .against = "the action itself",
			       .unit = "ns",
			       .value = bench_median(with, rounds) - bench_median(without, rounds),
			       .against_value = bench_median(without, rounds),
			       .aim_is = AIM_AT_MOST,
			       .aim = 100,
			       .absolute = true,
		       });
}

static struct qsc_device *open_audited(struct qsc_audit *audit, struct qsc_device *inner,
				       const char *name, uint64_t user)
{
	struct qsc_device *dev;

	if (qsc_audit_open(audit, inner, name, user, &dev))
		bench_die("no memory", -ENOMEM);
	return dev;
}

static void audit_moves(struct bench_run *run, struct qsc_audit *audit)
{
	static struct qsc_device idle = {&idle_ops};
	struct qsc_device *dev = open_audited(audit, &idle, "idle", 2);
	struct qsc_dma_range range = {0, 1ULL << 40};
	uint64_t session, page_size = 4096;

	for (uint32_t i = 0; i < MAPPINGS; i++) {
		struct qsc_dma_mapping mapping = mapping_of(i);

		must(qsc_device_dma_map(dev, &mapping));
	}
	compare(run, &idle, dev, map_memory, "audit_dma_added",
		"added by the audit to a DMA mapping by address");
	compare(run, &idle, dev, map_file, "audit_dma_file_added",
		"added by the audit to a DMA mapping of a file");
	must(qsc_device_log_start(dev, &page_size, &range, 1));
	must(qsc_device_set_state(dev, QSC_STATE_PRE_COPY, &session));
	compare(run, &idle, dev, report_log, "audit_log_added",
		"added by the audit to a dirty log report");
	compare(run, &idle, dev, read_data, "audit_data_read_added",
		"added by the audit to a read of state data");
	must(qsc_device_set_state(dev, QSC_STATE_RUNNING, &session));
	must(qsc_device_set_state(dev, QSC_STATE_RESUMING, &session));
	compare(run, &idle, dev, write_data, "audit_data_write_added",
		"added by the audit to a write of state data");
	must(qsc_device_set_state(dev, QSC_STATE_STOP, &session));
	qsc_device_close(dev);
}

void bench_audit(struct bench_run *run)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *plain = open_plain();
	struct qsc_audit *audit;
	struct qsc_device *dev;

	memory_fd = memfd_create("bench", MFD_CLOEXEC);
	if (memory_fd < 0 || qsc_audit_create(QSC_AUDIT_STRICT, &audit))
		bench_die("no memory", -ENOMEM);
	dev = open_audited(audit, open_plain(), "dmacopy", 1);
	compare(run, plain, dev, read_register, "audit_added",
		"added by the audit to a register read");
	audit_moves(run, audit);
	qsc_device_close(dev);
	qsc_audit_destroy(audit);
	if (qsc_fault_open(open_plain(), "dmacopy", "reset=EIO", NULL, NULL, &dev, &err))
		bench_die(err.text, -err.number);
	compare(run, plain, dev, read_register, "fault_added",
		"added by idle faults to a register read");
	qsc_device_close(dev);
	qsc_device_close(plain);
	close(memory_fd);
}
