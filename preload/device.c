/* SPDX-License-Identifier: MIT */
/* See device.h. */
#include "device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <quiesce/client.h>

#include "models.h"
#include "region.h"
#include "say.h"

static struct handover_config config;
static char *folder;
static struct handover_seen *all_seen;
static struct handover_seen nowhere[HANDOVER_MAX_DEVICES]; /* where there is no file for them */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static bool in_use[HANDOVER_MAX_DEVICES];
static pthread_mutex_t trace_lock = PTHREAD_MUTEX_INITIALIZER;
static FILE *trace_file;

void pl_devices_fork_prepare(void)
{
	pthread_mutex_lock(&trace_lock);
	pthread_mutex_lock(&open_lock);
}

void pl_devices_fork_parent(void)
{
	pthread_mutex_unlock(&open_lock);
	pthread_mutex_unlock(&trace_lock);
}

void pl_devices_fork_child(void)
{
	memset(in_use, 0, sizeof(in_use));
	pl_devices_fork_parent();
}

int pl_devices_init(struct qsc_error *err)
{
	int result;

	folder = getenv(HANDOVER_ENV);
	if (!folder)
		return 0;
	folder = strdup(folder);
	if (!folder)
		return qsc_error_set(err, ENOMEM, NULL, "out of memory");
	result = handover_read(folder, &config, err);
	if (result < 0) {
		handover_release(&config);
		return result;
	}
	all_seen = handover_seen_map(folder);
	if (!all_seen)
		all_seen = nowhere;
	return 0;
}

const char *pl_devices_folder(void)
{
	return folder;
}

uint32_t pl_devices_count(void)
{
	return config.num_devices;
}

const char *pl_device_name(uint32_t index)
{
	return config.devices[index].name;
}

static void on_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	struct handover_seen *seen = ctx;

	atomic_fetch_add(&seen->reported, 1);
	pl_say("the command broke %s: %s", qsc_clause_id(clause), text);
}

static void trace_line(void *ctx, const char *line)
{
	(void)ctx;
	if (fprintf(trace_file, "%s\n", line) < 0)
		pl_say_once(PL_SAY_TRACE, "cannot write the trace to %s: %s; it is not complete",
			    config.trace, strerror(errno));
}

/* One file for all devices and processes; whole lines, in the order they come. */
static int open_trace(struct qsc_error *err)
{
	int result = 0;

	pthread_mutex_lock(&trace_lock);
	if (!trace_file) {
		trace_file = fopen(config.trace, "ae");
		if (trace_file)
			(void)setvbuf(trace_file, NULL, _IOLBF, 0);
		else
			result = qsc_error_set(err, errno, NULL, "cannot write the trace to %s: %s",
					       config.trace, strerror(errno));
	}
	pthread_mutex_unlock(&trace_lock);
	return result;
}

static int open_bottom(uint32_t index, struct qsc_device **dev, struct qsc_error *err)
{
	const struct handover_device *device = &config.devices[index];
	struct models_options options = {
		.name = device->name,
		.violation = on_violation,
		.violation_ctx = &all_seen[index],
	};

	if (!strncmp(device->spec, "vfio-user:", 10))
		return qsc_client_open(device->spec, NULL, dev, err);
	return models_open(device->spec, &options, dev, err);
}

static void on_fault(void *ctx, const char *rule)
{
	pl_say("%s: the fault \"%s\" struck", (const char *)ctx, rule);
}

static int add_faults(uint32_t index, struct qsc_device *inner, struct qsc_device **dev,
		      struct qsc_error *err)
{
	struct handover_device *device = &config.devices[index];

	return qsc_fault_open(inner, device->name, config.fault, on_fault, device->name, dev, err);
}

static int add_trace(uint32_t index, struct qsc_device *inner, struct qsc_device **dev,
		     struct qsc_error *err)
{
	int result = open_trace(err);

	return result < 0
		       ? result
		       : qsc_trace_open(inner, config.devices[index].name, trace_line, NULL, dev);
}

/* Everything that stands between the device and the command, the innermost first. */
static int open_stack(uint32_t index, struct qsc_device **dev, struct qsc_error *err)
{
	const struct {
		bool wanted;
		int (*add)(uint32_t index, struct qsc_device *inner, struct qsc_device **dev,
			   struct qsc_error *err);
	} layers[] = {
		{config.fault, add_faults},
		{config.trace, add_trace},
	};
	struct qsc_device *inner;
	int result = open_bottom(index, &inner, err);

	for (size_t i = 0; i < sizeof(layers) / sizeof(layers[0]) && !result; i++) {
		if (!layers[i].wanted)
			continue;
		result = layers[i].add(index, inner, dev, err);
		if (result < 0)
			qsc_device_close(inner);
		else
			inner = *dev;
	}
	*dev = inner;
	return result;
}

static int describe(struct pl_dev *dev)
{
	enum qsc_state state;
	int result = qsc_device_get_info(dev->dev, &dev->info);

	/* As vfio-pci does: whatever its last user left is gone. */
	if (!result && dev->info.flags & VFIO_DEVICE_FLAGS_RESET)
		result = qsc_device_reset(dev->dev);
	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS && i < dev->info.num_regions && !result; i++)
		result = qsc_device_get_region_info(dev->dev, i, &dev->regions[i]);
	if (!result)
		result = pl_region_enable(dev);
	if (result < 0)
		return result;
	pl_pci_learn(dev);
	result = qsc_device_get_migration(dev->dev, &dev->migration);
	if (result == -ENOTTY)
		return 0;
	if (result < 0)
		return result;
	dev->migratable = true;
	return pl_dev_state(dev, &state);
}

int pl_dev_open(uint32_t index, struct pl_dev **out)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct pl_dev *dev = NULL;
	bool taken;
	int result;

	pthread_mutex_lock(&open_lock);
	taken = in_use[index];
	in_use[index] = true;
	pthread_mutex_unlock(&open_lock);
	if (taken)
		return -EBUSY;
	dev = calloc(1, sizeof(*dev));
	result = dev ? 0 : -ENOMEM;
	if (!result)
		result = open_stack(index, &dev->dev, &err);
	if (result < 0) {
		pl_say("cannot open %s (%s): %s", config.devices[index].name,
		       config.devices[index].spec, err.number ? err.text : strerror(-result));
		goto fail;
	}
	dev->index = index;
	dev->seen = &all_seen[index];
	dev->state = QSC_STATE_RUNNING;
	atomic_store(&dev->refs, 1);
	result = describe(dev);
	if (result < 0) {
		pl_say("cannot use %s (%s): it does not describe itself: %s",
		       config.devices[index].name, config.devices[index].spec, strerror(-result));
		qsc_device_close(dev->dev);
		goto fail;
	}
	pthread_rwlock_init(&dev->lock, NULL);
	pthread_mutex_init(&dev->state_lock, NULL);
	pl_watcher_init(&dev->watcher);
	pl_irqs_init(&dev->irqs);
	pl_ioeventfds_init(&dev->ioeventfds);
	atomic_fetch_add(&dev->seen->opened, 1);
	atomic_store(&dev->seen->in_use, 1);
	*out = dev;
	return 0;
fail:
	free(dev);
	pthread_mutex_lock(&open_lock);
	in_use[index] = false;
	pthread_mutex_unlock(&open_lock);
	return result;
}

void pl_dev_count_irqs(struct pl_dev *dev)
{
	struct qsc_irq_counts now;

	if (qsc_device_irq_counts(dev->dev, &now) < 0)
		return;
	atomic_store(&dev->seen->irqs_known, 1);
	atomic_fetch_add(&dev->seen->irqs_delivered, now.delivered - dev->irqs_seen.delivered);
	atomic_fetch_add(&dev->seen->irqs_held, now.held - dev->irqs_seen.held);
	dev->irqs_seen = now;
}

void pl_dev_close(struct pl_dev *dev)
{
	pl_watcher_release(&dev->watcher);
	pl_dev_count_irqs(dev);
	pthread_rwlock_wrlock(&dev->lock);
	qsc_device_close(dev->dev);
	dev->dev = NULL;
	pthread_rwlock_unlock(&dev->lock);
	pl_irqs_release(&dev->irqs);
	pl_ioeventfds_release(&dev->ioeventfds);
	atomic_store(&dev->seen->in_use, 0);
	pthread_mutex_lock(&open_lock);
	in_use[dev->index] = false;
	pthread_mutex_unlock(&open_lock);
	pl_dev_put(dev);
}

void pl_dev_put(struct pl_dev *dev)
{
	if (atomic_fetch_sub(&dev->refs, 1) > 1)
		return;
	pthread_rwlock_destroy(&dev->lock);
	pthread_mutex_destroy(&dev->state_lock);
	free(dev);
}

int pl_dev_state(struct pl_dev *dev, enum qsc_state *state)
{
	int result = qsc_device_get_state(dev->dev, state);

	if (!result) {
		atomic_store(&dev->state, (uint32_t)*state % QSC_STATE_COUNT);
		atomic_store(&dev->seen->state, (uint32_t)*state % QSC_STATE_COUNT);
	}
	return result;
}
