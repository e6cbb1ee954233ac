/* SPDX-License-Identifier: MIT */
/* A device that writes to memory when a register says so; see bench.h. */
#include "bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <quiesce/runtime.h>

struct bench_model {
	struct qsc_runtime *rt;
	uint64_t registers[3];
};

static void reset(void *ctx)
{
}

static int region_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	memset(buf, 0, count);
	return 0;
}

static int write_all(struct bench_model *model)
{
	const uint64_t iova = model->registers[0];
	const uint64_t size = model->registers[1];
	const uint64_t stride = model->registers[2];
	const uint64_t data = 1;
	int ret = 0;

	for (uint64_t at = 0; !ret && stride && at < size; at += stride)
		ret = qsc_dma_write(model->rt, iova + at, &data, sizeof(data));
	return ret;
}

static int region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	struct bench_model *model = ctx;

	if (count != 8 || offset > BENCH_REG_WRITE)
		return -EINVAL;
	if (offset == BENCH_REG_WRITE)
		return write_all(model);
	memcpy(&model->registers[offset / 8], buf, count);
	return 0;
}

static const struct qsc_model model_desc = {
	.type = "bench",
	.pci = {.vendor = 0x5143, .device = 0xbe7c, .class_code = 0x088000},
	.reset = reset,
	.region_read = region_read,
	.region_write = region_write,
	.destroy = free,
};

int bench_model_open(struct qsc_device **dev, struct qsc_runtime **rt, struct qsc_error *err)
{
	const struct qsc_region_desc region = {
		VFIO_PCI_BAR0_REGION_INDEX, 4096,
		VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK};
	const struct qsc_runtime_options options = {
		.migration_flags = QSC_MIGRATION_STOP_COPY,
		.regions = &region,
		.num_regions = 1,
		.destroy_on_close = true,
	};
	struct bench_model *model = calloc(1, sizeof(*model));
	int ret;

	if (!model)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the bench model");
	ret = qsc_runtime_create(&model_desc, model, &options, &model->rt, err);
	if (ret) {
		free(model);
		return ret;
	}
	if (rt)
		*rt = model->rt;
	ret = qsc_runtime_open(model->rt, dev);
	if (ret)
		qsc_runtime_destroy(model->rt);
	return ret;
}
