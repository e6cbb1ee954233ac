/* SPDX-License-Identifier: MIT */
/* Opening and closing a device of the kernel: see kernel.h. */
#include "client/kernel/kernel.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#define MAX_IRQS 1024U /* indices; far more than any device has */

static void kernel_close(struct qsc_device *dev);

static const struct qsc_device_ops kernel_ops = {
	.kind = "kernel",
	.get_info = qsc_kernel_get_info,
	.get_region_info = qsc_kernel_get_region_info,
	.get_irq_info = qsc_kernel_get_irq_info,
	.region_read = qsc_kernel_region_read,
	.region_write = qsc_kernel_region_write,
	.region_map = qsc_kernel_region_map,
	.region_unmap = qsc_kernel_region_unmap,
	.set_irqs = qsc_kernel_set_irqs,
	.dma_map = qsc_kernel_dma_map,
	.dma_unmap = qsc_kernel_dma_unmap,
	.get_migration = qsc_kernel_get_migration,
	.get_state = qsc_kernel_get_state,
	.set_state = qsc_kernel_set_state,
	.data_size = qsc_kernel_data_size,
	.log_start = qsc_kernel_log_start,
	.log_stop = qsc_kernel_log_stop,
	.log_report = qsc_kernel_log_report,
	.session_read = qsc_kernel_session_read,
	.session_write = qsc_kernel_session_write,
	.session_precopy_info = qsc_kernel_session_precopy_info,
	.session_close = qsc_kernel_session_close,
	.reset = qsc_kernel_reset,
	.close = kernel_close,
};

int qsc_kernel_verdict(struct qsc_kernel *kernel, enum qsc_action action)
{
	enum qsc_verdict verdict;
	int number;

	if (!kernel->migratable || kernel->raw)
		return 0;
	verdict = qsc_contract_verdict(
		action, (enum qsc_state)atomic_load_explicit(&kernel->state, memory_order_acquire));
	number = qsc_verdict_errno(verdict);
	return number ? -number : verdict == QSC_VERDICT_DISCARD;
}

int qsc_kernel_failure(const struct qsc_kernel *kernel, int number)
{
	return number == ENODEV && !kernel->raw ? -ENOTCONN : -number;
}

int qsc_kernel_refusal(int result, struct qsc_error *err)
{
	if (result != -EINVAL)
		return result;
	if (err)
		err->number = EIO;
	return -EIO;
}

static void destroy(struct qsc_kernel *kernel)
{
	qsc_mappings_release(&kernel->mappings);
	qsc_fd_close(&kernel->session_fd);
	qsc_kernel_detach(&kernel->files, &kernel->table);
	qsc_dma_table_release(&kernel->table);
	free(kernel->logged);
	free(kernel->carried);
	qsc_kernel_forget_irqs(kernel);
	free(kernel->regions);
	qsc_gate_destroy(&kernel->access);
	qsc_fd_close(&kernel->wake_fd);
	pthread_cond_destroy(&kernel->turn);
	pthread_mutex_destroy(&kernel->state_lock);
	pthread_mutex_destroy(&kernel->dma_lock);
	free(kernel);
}

static void kernel_close(struct qsc_device *dev)
{
	struct qsc_kernel *kernel = qsc_kernel_of(dev);

	qsc_mappings_release(&kernel->mappings);
	qsc_kernel_leave(kernel);
	destroy(kernel);
}

static int learn(struct qsc_kernel *kernel, struct qsc_error *err)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	int result = qsc_kernel_ioctl(kernel->files.device, VFIO_DEVICE_GET_INFO, &info);

	if (result >= 0) {
		kernel->flags = info.flags & ~(uint32_t)VFIO_DEVICE_FLAGS_CAPS;
		kernel->num_regions = info.num_regions;
		kernel->num_irqs = info.num_irqs;
		result = qsc_kernel_learn_regions(kernel);
	}
	if (result >= 0 && kernel->num_irqs > MAX_IRQS)
		result = -EPROTO;
	if (result >= 0) {
		kernel->vectors = calloc(kernel->num_irqs + 1U, sizeof(*kernel->vectors));
		result = kernel->vectors ? 0 : -ENOMEM;
	}
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "it does not describe itself: %s",
				     strerror(-result));
	result = qsc_kernel_learn_migration(kernel, err);
	if (!result)
		qsc_kernel_prove_log(kernel);
	return result;
}

int qsc_kernel_take(struct qsc_kernel_files *files, const char *name, bool raw,
		    struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_kernel *kernel =
		aligned_alloc(_Alignof(struct qsc_kernel),
			      qsc_align_up(sizeof(struct qsc_kernel), _Alignof(struct qsc_kernel)));
	int result;

	if (!kernel) {
		qsc_kernel_detach(files, NULL);
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a device");
	}
	memset(kernel, 0, sizeof(*kernel));
	kernel->dev.ops = &kernel_ops;
	kernel->files = *files;
	kernel->raw = raw;
	kernel->mappings = (struct qsc_mappings)QSC_MAPPINGS_INIT;
	kernel->session_fd = -1;
	(void)snprintf(kernel->name, sizeof(kernel->name), "vfio:%s", name);
	atomic_store(&kernel->state, QSC_STATE_RUNNING);
	qsc_gate_init(&kernel->access);
	qsc_gate_set(&kernel->access, QSC_GATE_OPEN);
	pthread_mutex_init(&kernel->state_lock, NULL);
	pthread_cond_init(&kernel->turn, NULL);
	pthread_mutex_init(&kernel->dma_lock, NULL);
	kernel->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	result = kernel->wake_fd < 0 ? qsc_error_set(err, errno, NULL, "no descriptor for it: %s",
						     strerror(errno))
				     : learn(kernel, err);
	if (result < 0) {
		destroy(kernel);
		return qsc_kernel_refusal(result, err);
	}
	*dev = &kernel->dev;
	return 0;
}

int qsc_kernel_open(const char *text, bool raw, struct qsc_device **dev, struct qsc_error *err)
{
	struct qsc_kernel_files files;
	struct qsc_kernel_place place;
	struct qsc_kernel_way way;
	int result = qsc_kernel_find("", text, &place, &way, err);

	if (!result)
		result = qsc_kernel_attach(&place, way.via, &files, err);
	return result < 0 ? result : qsc_kernel_take(&files, place.name, raw || way.raw, dev, err);
}
