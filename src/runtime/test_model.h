/* SPDX-License-Identifier: MIT */
/*
 * A small device for the unit tests of the runtime. BAR0 has registers (see below), BAR2 is memory
 * that may be mapped. Ringing the doorbell makes its worker write its number to memory by DMA, as
 * often as REG_REPEAT says, with one interrupt for each write.
 */
#ifndef QSC_RUNTIME_TEST_MODEL_H
#define QSC_RUNTIME_TEST_MODEL_H

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <linux/vfio.h>

#include <cmocka.h>

#include <quiesce/runtime.h>

enum {
	REG_SCRATCH = 0x00, /* 8 bytes */
	REG_DEST = 0x08,    /* IOVA the worker writes to, moving on by STRIDE */
	REG_REPEAT = 0x10,  /* writes still to be made */
	REG_DOORBELL = 0x18,
	REG_DONE = 0x20,   /* writes made */
	REG_WINDOW = 0x28, /* bytes after which the destination starts again; 0: never */
	REG_RINGS = 0x30,  /* how often the doorbell was rung */
};

#define TEST_STRIDE    4096ULL
#define TEST_BAR2_SIZE (256U << 10)
#define TEST_VECTORS   4U

struct test_part {
	uint16_t small;
	uint8_t tiny[3];
};

struct test_state {
	uint64_t scratch;
	uint64_t dest;
	uint64_t repeat;
	uint64_t done;
	uint64_t window;
	uint64_t rings;
	uint64_t moved; /* by how much dest has moved inside the window */
	struct test_part parts[2];
};

struct test_device {
	struct qsc_runtime *rt;
	struct qsc_device *dev;
	pthread_mutex_t lock;
	int fail_start; /* errno */
	int fail_stop;
	int refuse; /* errno of validate() */
	void (*on_start)(struct test_device *device);
	unsigned int starts, stops, resets, loads;
	uint8_t custom[32];
	size_t custom_size;
	unsigned int violations;
	char violation[256];
};

static const struct qsc_field test_part_fields[] = {
	QSC_FIELD(struct test_part, small),
	QSC_FIELD_ARRAY(struct test_part, tiny),
	QSC_FIELD_END,
};

static const struct qsc_field test_register_fields[] = {
	QSC_FIELD(struct test_state, scratch), QSC_FIELD(struct test_state, dest),
	QSC_FIELD(struct test_state, repeat),  QSC_FIELD(struct test_state, done),
	QSC_FIELD(struct test_state, window),  QSC_FIELD(struct test_state, rings),
	QSC_FIELD(struct test_state, moved),   QSC_FIELD_END,
};

static const struct qsc_field test_parts_fields[] = {
	QSC_FIELD_STRUCTS(struct test_state, parts, test_part_fields),
	QSC_FIELD_END,
};

static const struct qsc_section test_sections[] = {
	{"registers", 1, 1, test_register_fields},
	{"parts", 3, 2, test_parts_fields},
	{NULL, 0, 0, NULL},
};

static inline struct test_state *test_state_of(struct test_device *device)
{
	return qsc_runtime_state(device->rt);
}

static inline uint64_t *test_register(struct test_device *device, uint64_t offset)
{
	struct test_state *state = test_state_of(device);

	switch (offset & ~7ULL) {
	case REG_SCRATCH:
		return &state->scratch;
	case REG_DEST:
		return &state->dest;
	case REG_REPEAT:
		return &state->repeat;
	case REG_DONE:
		return &state->done;
	case REG_WINDOW:
		return &state->window;
	case REG_RINGS:
		return &state->rings;
	default:
		return NULL;
	}
}

static inline void test_reset(void *ctx)
{
	struct test_device *device = ctx;

	device->resets++;
	device->custom_size = 0;
	test_state_of(device)->parts[1].tiny[2] = 7;
}

static inline int test_region_read(void *ctx, uint32_t region, uint64_t offset, void *buf,
				   size_t count)
{
	struct test_device *device = ctx;
	uint64_t *reg = test_register(device, offset);
	uint64_t value = 0;

	assert_true(!(offset % count) && count <= 8);
	pthread_mutex_lock(&device->lock);
	if (reg)
		memcpy(&value, (char *)reg + offset % 8, count);
	pthread_mutex_unlock(&device->lock);
	memcpy(buf, &value, count);
	return 0;
}

static inline int test_region_write(void *ctx, uint32_t region, uint64_t offset, const void *buf,
				    size_t count)
{
	struct test_device *device = ctx;
	uint64_t *reg = test_register(device, offset);

	assert_true(!(offset % count) && count <= 8);
	pthread_mutex_lock(&device->lock);
	if (reg)
		memcpy((char *)reg + offset % 8, buf, count);
	if (offset == REG_DOORBELL)
		test_state_of(device)->rings++;
	pthread_mutex_unlock(&device->lock);
	if (offset == REG_DOORBELL)
		qsc_work_kick(device->rt, 0);
	return 0;
}

static inline enum qsc_work test_work(void *ctx, uint32_t worker)
{
	struct test_device *device = ctx;
	struct test_state *state = test_state_of(device);
	uint8_t page[64];
	uint64_t dest;
	uint64_t number;

	pthread_mutex_lock(&device->lock);
	number = state->done + 1;
	dest = state->dest + state->moved;
	if (!state->repeat) {
		pthread_mutex_unlock(&device->lock);
		return QSC_WORK_IDLE;
	}
	pthread_mutex_unlock(&device->lock);
	memset(page, (int)(number & 0xff), sizeof(page));
	memcpy(page, &number, sizeof(number));
	if (qsc_dma_write(device->rt, dest, page, sizeof(page)) < 0)
		return QSC_WORK_IDLE;
	pthread_mutex_lock(&device->lock);
	state->done = number;
	state->repeat--;
	state->moved += TEST_STRIDE;
	if (state->window && state->moved >= state->window)
		state->moved = 0;
	pthread_mutex_unlock(&device->lock);
	qsc_irq_raise(device->rt, VFIO_PCI_MSIX_IRQ_INDEX, (uint32_t)(number % TEST_VECTORS));
	return QSC_WORK_AGAIN;
}

static inline int test_start(void *ctx)
{
	struct test_device *device = ctx;

	device->starts++;
	if (device->on_start)
		device->on_start(device);
	return -device->fail_start;
}

static inline int test_stop(void *ctx)
{
	struct test_device *device = ctx;

	device->stops++;
	return -device->fail_stop;
}

static inline int test_validate(void *ctx, const void *candidate, struct qsc_error *err)
{
	struct test_device *device = ctx;
	const struct test_state *state = candidate;

	if (device->refuse)
		return qsc_error_set(err, device->refuse, NULL, "refused as the test wishes");
	if (state->window % TEST_STRIDE)
		return qsc_error_set(err, EINVAL, NULL, "window is no multiple of the stride");
	return 0;
}

static inline void test_loaded(void *ctx)
{
	((struct test_device *)ctx)->loads++;
}

static inline ssize_t test_save(void *ctx, void *buf, size_t size)
{
	struct test_device *device = ctx;

	if (buf && size >= device->custom_size)
		memcpy(buf, device->custom, device->custom_size);
	return (ssize_t)device->custom_size;
}

static inline int test_load(void *ctx, const void *buf, size_t size, struct qsc_error *err)
{
	struct test_device *device = ctx;

	if (size && ((const uint8_t *)buf)[0] == 0xee)
		return qsc_error_set(err, EINVAL, NULL, "custom state refused");
	memcpy(device->custom, buf, size);
	device->custom_size = size;
	return 0;
}

static inline void test_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	struct test_device *device = ctx;

	assert_int_equal(clause, QSC_CLAUSE_ORD_1);
	device->violations++;
	strncpy(device->violation, text, sizeof(device->violation) - 1);
}

static const struct qsc_model test_model = {
	.type = "testdev",
	.pci = {0x1b36, 0x00ee, 0x1af4, 0x1100, 0x088000, 1},
	.state_size = sizeof(struct test_state),
	.sections = test_sections,
	.workers = 1,
	.reset = test_reset,
	.region_read = test_region_read,
	.region_write = test_region_write,
	.work = test_work,
	.start = test_start,
	.stop = test_stop,
	.validate = test_validate,
	.loaded = test_loaded,
	.custom_max = sizeof(((struct test_device *)0)->custom),
	.save = test_save,
	.load = test_load,
};

static const struct qsc_block_desc test_block = {.name = "memory", .size = TEST_BAR2_SIZE};

static const struct qsc_region_desc test_regions[] = {
	{0, 4096, VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE, QSC_NO_BLOCK},
	{2, TEST_BAR2_SIZE,
	 VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP, 0},
};

static const struct qsc_doorbell_desc test_doorbell = {0, REG_DOORBELL, 4};

static inline struct qsc_runtime_options test_options(struct test_device *device, uint32_t flags)
{
	return (struct qsc_runtime_options){
		.name = "test0",
		.migration_flags = flags,
		.blocks = &test_block,
		.num_blocks = 1,
		.regions = test_regions,
		.num_regions = 2,
		.doorbells = &test_doorbell,
		.num_doorbells = 1,
		.msix_vectors = TEST_VECTORS,
		.msi_vectors = 1,
		.intx = true,
		.manual = true,
		.violation = test_violation,
		.violation_ctx = device,
	};
}

static inline struct test_device *test_make(const struct qsc_runtime_options *options)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct test_device *device = calloc(1, sizeof(*device));
	struct qsc_runtime_options with = *options;

	assert_non_null(device);
	with.violation_ctx = device;
	pthread_mutex_init(&device->lock, NULL);
	if (qsc_runtime_create(&test_model, device, &with, &device->rt, &err) < 0)
		fail_msg("%s", err.text);
	assert_int_equal(qsc_runtime_open(device->rt, &device->dev), 0);
	return device;
}

/* A device in manual mode with all that a device can have. */
static inline struct test_device *test_new(uint32_t flags)
{
	const struct qsc_runtime_options options = test_options(NULL, flags);

	return test_make(&options);
}

static inline void test_end(struct test_device *device)
{
	if (device->dev)
		qsc_device_close(device->dev);
	qsc_runtime_destroy(device->rt);
	pthread_mutex_destroy(&device->lock);
	free(device);
}

static inline void test_go(struct test_device *device, enum qsc_state state)
{
	uint64_t session;
	enum qsc_state now;

	assert_int_equal(qsc_device_set_state(device->dev, state, &session), 0);
	assert_int_equal(qsc_device_get_state(device->dev, &now), 0);
	assert_int_equal(now, state);
}

static inline enum qsc_state test_now(struct test_device *device)
{
	enum qsc_state now;

	assert_int_equal(qsc_device_get_state(device->dev, &now), 0);
	return now;
}

static inline uint64_t test_peek(struct test_device *device, uint64_t offset)
{
	uint64_t value = 0;

	assert_int_equal(qsc_device_region_read(device->dev, 0, offset, &value, 8), 8);
	return value;
}

static inline void test_poke(struct test_device *device, uint64_t offset, uint64_t value)
{
	assert_int_equal(qsc_device_region_write(device->dev, 0, offset, &value, 8), 8);
}

/* Do all work that is due. */
static inline unsigned int test_steps(struct test_device *device)
{
	unsigned int count = 0;

	while (qsc_runtime_step(device->rt, 0))
		count++;
	return count;
}

#endif
