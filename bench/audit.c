/* SPDX-License-Identifier: MIT */
/* What the audit and fault layers add to a register access in which there is nothing to find. */
#include "bench.h"

#include <linux/vfio.h>

#include <quiesce/audit.h>

#include "dmacopy/dmacopy.h"
#include "models.h"

static double read_round(struct qsc_device *dev, uint32_t count)
{
	uint64_t start = bench_now_ns();
	uint32_t value;

	/* Another region each time: a note of the same again would be cheaper. */
	for (uint32_t i = 0; i < count; i++)
		if (qsc_device_region_read(
			    dev, i % 2 ? DMACOPY_BAR_REGISTERS : VFIO_PCI_CONFIG_REGION_INDEX, 0,
			    &value, sizeof(value)) != sizeof(value))
			bench_die("the device does not answer", -5);
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

static void compare(struct bench_run *run, struct qsc_device *layered, const char *key,
		    const char *name)
{
	const uint32_t count = run->quick ? 100 : 20000;
	const size_t rounds = run->quick ? 3 : 101;
	struct qsc_device *plain = open_plain();
	double with[128];
	double without[128];

	bench_pin(run->cpus[0]);
	for (size_t i = 0; i < rounds; i++) {
		without[i] = read_round(plain, count);
		with[i] = read_round(layered, count);
	}
	qsc_device_close(plain);
	bench_add(run, (struct bench_figure){
			       .key = key,
			       .name = name,
			       .against = "the access itself",
			       .unit = "ns",
			       .value = bench_median(with, rounds) - bench_median(without, rounds),
			       .against_value = bench_median(without, rounds),
			       .aim_is = AIM_AT_MOST,
			       .aim = 100,
			       .absolute = true,
		       });
}

void bench_audit(struct bench_run *run)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_audit *audit;
	struct qsc_device *dev;

	if (qsc_audit_create(QSC_AUDIT_STRICT, &audit) ||
	    qsc_audit_open(audit, open_plain(), "dmacopy", 1, &dev))
		bench_die("no memory", -12);
	compare(run, dev, "audit_added", "added by the audit to a register read");
	qsc_device_close(dev);
	qsc_audit_destroy(audit);
	if (qsc_fault_open(open_plain(), "dmacopy", "reset=EIO", NULL, NULL, &dev, &err))
		bench_die(err.text, -err.number);
	compare(run, dev, "fault_added", "added by idle faults to a register read");
	qsc_device_close(dev);
}
