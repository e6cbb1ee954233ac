/* SPDX-License-Identifier: MIT */
/*
 * The tenant's life in one process: its memory, its thread, and what the migration engine asks of
 * it. The thread runs tenant_step() over and over; pausing it means waiting for the end of a step,
 * after which it touches neither devices nor memory.
 */
#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xxhash.h>

#include "tenant_impl.h"

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

static uint64_t page_up(uint64_t value)
{
	return (value + TENANT_PAGE - 1) & ~(TENANT_PAGE - 1);
}

uint64_t tenant_block_bytes(const struct tenant_config *config)
{
	uint64_t block = config->state_bytes / 2 / TENANT_SLOTS;

	return block < TENANT_BLOCK_MAX ? block : TENANT_BLOCK_MAX;
}

static void lay_out(const struct tenant_config *config, struct tenant_layout *layout)
{
	uint64_t block = tenant_block_bytes(config);

	layout->block_bytes = block;
	layout->queues = page_up(sizeof(struct tenant_head));
	layout->queue_stride = (dmacopy_queue_size(TENANT_SLOTS) + 63) & ~63ULL;
	layout->input = layout->queues + page_up(config->devices * layout->queue_stride);
	layout->output = layout->input + TENANT_SLOTS * block;
	layout->cold = layout->output + TENANT_SLOTS * block;
	layout->size = config->memory_bytes;
}

uint64_t tenant_memory_min(const struct tenant_config *config)
{
	struct tenant_layout layout;

	/* As much again is left alone, to see that it stays what it is. */
	lay_out(config, &layout);
	return 2 * layout.cold;
}

/* ---- the thread ---- */

/* Under lock. */
static void set_run(struct tenant *t, enum tenant_run run)
{
	t->run = run;
	pthread_cond_broadcast(&t->changed);
}

/* What is asked of the thread from outside. False when it shall end. */
static bool obey(struct tenant *t)
{
	bool go_on;

	pthread_mutex_lock(&t->lock);
	if (t->run == TENANT_RUN_PAUSING)
		set_run(t, TENANT_RUN_PAUSED);
	while (t->run == TENANT_RUN_PAUSED && !t->end)
		pthread_cond_wait(&t->changed, &t->lock);
	atomic_store(&t->interrupt, false);
	go_on = !t->end;
	pthread_mutex_unlock(&t->lock);
	t->idle_since_us = now_us();
	return go_on;
}

static void *thread_main(void *arg)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct tenant *t = arg;
	int result = 0;

	t->idle_since_us = now_us();
	if (tenant_head(t)->magic != TENANT_MAGIC)
		result = qsc_error_set(&err, EILSEQ, NULL,
				       "the tenant does not find itself in its memory");
	while (!result) {
		if (atomic_load_explicit(&t->interrupt, memory_order_relaxed) && !obey(t))
			break;
		result = tenant_step(t, &err);
	}
	pthread_mutex_lock(&t->lock);
	t->failure = err;
	set_run(t, TENANT_RUN_ENDED);
	pthread_mutex_unlock(&t->lock);
	(void)eventfd_write(t->event_fd, 1);
	return NULL;
}

/* Under lock. */
static void wake(struct tenant *t)
{
	atomic_store(&t->interrupt, true);
	(void)eventfd_write(t->kick_fd, 1);
	pthread_cond_broadcast(&t->changed);
}

static int start_thread(struct tenant *t)
{
	int result;

	pthread_mutex_lock(&t->lock);
	result = -pthread_create(&t->thread, NULL, thread_main, t);
	if (!result) {
		t->has_thread = true;
		t->run = TENANT_RUN_RUNNING;
	}
	pthread_mutex_unlock(&t->lock);
	return result;
}

/* ---- what the engine asks ---- */

static int user_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	struct tenant *t = ctx;
	uint64_t i, words = (t->layout.size / TENANT_PAGE + 63) / 64;

	for (i = 0; i < words; i++) {
		if (atomic_load_explicit(&t->dirty[i], memory_order_relaxed))
			bitmap[i] |= atomic_exchange(&t->dirty[i], 0);
	}
	return 0;
}

static int user_pause(void *ctx)
{
	struct tenant *t = ctx;
	int result = 0;

	atomic_store(&t->live->paused_us, now_us());
	pthread_mutex_lock(&t->lock);
	if (t->run == TENANT_RUN_RUNNING) {
		set_run(t, TENANT_RUN_PAUSING);
		wake(t);
	}
	while (t->run == TENANT_RUN_PAUSING)
		pthread_cond_wait(&t->changed, &t->lock);
	if (t->run == TENANT_RUN_ENDED && t->failure.number)
		result = -t->failure.number;
	pthread_mutex_unlock(&t->lock);
	return result;
}

/* Of what the tenant and the engines work on; the rest nobody touches. */
static uint64_t hash_memory(const struct tenant *t)
{
	return XXH3_64bits(t->memory, (size_t)t->layout.cold);
}

static uint64_t take_in(struct tenant *t)
{
	uint64_t total = 0;
	uint32_t i;

	for (i = 0; i < t->config.devices * TENANT_SLOTS; i++) {
		eventfd_t count = 0;

		if (eventfd_read(t->irq_fds[i], &count) < 0)
			continue;
		tenant_take_interrupts(t, i / TENANT_SLOTS, i % TENANT_SLOTS, count);
		total += count;
	}
	return total;
}

static int user_stopped(void *ctx)
{
	struct tenant *t = ctx;

	(void)take_in(t);
	t->stopped_hash = hash_memory(t);
	return 0;
}

static ssize_t user_save(void *ctx, void *buf, size_t max)
{
	struct tenant *t = ctx;

	if (max < sizeof(t->cpu))
		return -ENOSPC;
	memcpy(buf, &t->cpu, sizeof(t->cpu));
	return sizeof(t->cpu);
}

static int user_load(void *ctx, const void *buf, size_t size)
{
	struct tenant *t = ctx;
	struct tenant_cpu cpu;

	if (size != sizeof(cpu))
		return -EINVAL;
	memcpy(&cpu, buf, sizeof(cpu));
	if (cpu.magic != TENANT_MAGIC || cpu.source_identity != t->cpu.source_identity ||
	    cpu.devices != t->cpu.devices || cpu.memory_bytes != t->cpu.memory_bytes ||
	    cpu.state_bytes != t->cpu.state_bytes || cpu.program < TENANT_FILL_MEMORY ||
	    cpu.program > TENANT_DONE)
		return -EINVAL;
	t->cpu = cpu;
	return 0;
}

static int user_setup_irqs(void *ctx)
{
	struct tenant *t = ctx;
	uint32_t i;

	for (i = 0; i < t->config.devices; i++) {
		int result = qsc_device_set_eventfds(t->devices[i], VFIO_PCI_MSIX_IRQ_INDEX,
						     t->irq_fds + (size_t)i * TENANT_SLOTS,
						     TENANT_SLOTS);

		if (result < 0)
			return result;
	}
	return 0;
}

static int user_resume(void *ctx)
{
	struct tenant *t = ctx;
	bool first;

	atomic_store(&t->live->resumed_us, now_us());
	atomic_store(&t->live->resumed_blocks, atomic_load(&t->live->blocks));
	atomic_store(&t->live->first_block_us, 0);
	pthread_mutex_lock(&t->lock);
	first = t->run == TENANT_RUN_NOT_STARTED;
	if (t->run == TENANT_RUN_PAUSED)
		set_run(t, TENANT_RUN_RUNNING);
	pthread_mutex_unlock(&t->lock);
	if (!first)
		return 0;
	atomic_store(&t->live->blocks, tenant_head(t)->result.blocks);
	atomic_store(&t->live->resumed_blocks, tenant_head(t)->result.blocks);
	atomic_store(&t->live->activity, TENANT_STREAMING);
	return start_thread(t);
}

const struct qsc_migrate_user *tenant_user(struct tenant *t)
{
	return &t->user;
}

int tenant_check_given_up(struct tenant *t, struct qsc_error *err)
{
	if (take_in(t)) {
		(void)qsc_error_set(err, EPROTO, qsc_clause_id(QSC_CLAUSE_DEV_2),
				    "an interrupt came from a device that was stopped");
		return QSC_CLAUSE_DEV_2;
	}
	if (hash_memory(t) != t->stopped_hash) {
		(void)qsc_error_set(err, EPROTO, qsc_clause_id(QSC_CLAUSE_DEV_1),
				    "memory changed while every device was stopped");
		return QSC_CLAUSE_DEV_1;
	}
	return -1;
}

/* ---- life ---- */

static int make_events(struct tenant *t)
{
	uint32_t i, count = t->config.devices * TENANT_SLOTS;
	struct epoll_event event = {.events = EPOLLIN, .data.u64 = UINT64_MAX};

	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	t->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	t->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->epoll_fd < 0 || t->kick_fd < 0 || t->event_fd < 0 ||
	    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->kick_fd, &event) < 0)
		return -errno;
	for (i = 0; i < count; i++) {
		t->irq_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		event.data.u64 = i;
		if (t->irq_fds[i] < 0 ||
		    epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, t->irq_fds[i], &event) < 0)
			return -errno;
	}
	return 0;
}

/*
 * Mapped twice, as a guest and its VMM have the same memory: the tenant through one, the engine
 * through the other, which reads while the tenant writes and learns from the dirty pages what to
 * read again. (Were it one mapping, the thread sanitizer would take that for a race.)
 */
static int make_memory(struct tenant *t)
{
	size_t size = (size_t)t->config.memory_bytes;
	void *memory, *vmm;

	t->memory_fd = memfd_create("tenant-memory", MFD_CLOEXEC);
	if (t->memory_fd < 0 || ftruncate(t->memory_fd, (off_t)size) < 0)
		return -errno;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t->memory_fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	t->memory = memory;
	vmm = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, t->memory_fd, 0);
	if (vmm == MAP_FAILED)
		return -errno;
	t->region = (struct qsc_memory_region){
		.address = TENANT_MEMORY_IOVA, .size = size, .vaddr = vmm};
	return 0;
}

static int make_parts(struct tenant *t)
{
	uint32_t i, vectors = t->config.devices * TENANT_SLOTS;
	int result;

	t->irq_fds = calloc(vectors, sizeof(*t->irq_fds));
	if (!t->irq_fds)
		return -ENOMEM;
	for (i = 0; i < vectors; i++)
		t->irq_fds[i] = -1;
	t->devices = calloc(t->config.devices, sizeof(struct qsc_device *));
	t->rung = calloc(t->config.devices, 1);
	t->scratch = malloc((size_t)t->layout.block_bytes);
	t->dirty = calloc((size_t)(t->layout.size / TENANT_PAGE + 63) / 64, sizeof(*t->dirty));
	if (!t->devices || !t->rung || !t->scratch || !t->dirty)
		return -ENOMEM;
	result = make_events(t);
	return result < 0 ? result : make_memory(t);
}

int tenant_create(const struct tenant_config *config, struct tenant_live *live, struct tenant **out,
		  struct qsc_error *err)
{
	struct tenant *t = calloc(1, sizeof(*t));
	int result;

	if (!t)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for the tenant");
	t->config = *config;
	t->live = live;
	t->epoll_fd = t->kick_fd = t->event_fd = t->memory_fd = -1;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->changed, NULL);
	lay_out(config, &t->layout);
	result = tenant_source_open(config->file, &t->source, err);
	if (result < 0)
		goto fail;
	result = make_parts(t);
	if (result < 0) {
		(void)qsc_error_set(err, -result, NULL,
				    "cannot make the tenant's memory and events: %s",
				    strerror(-result));
		goto fail;
	}
	t->cpu = (struct tenant_cpu){
		.magic = TENANT_MAGIC,
		.source_identity = tenant_source_identity(&t->source),
		.memory_bytes = config->memory_bytes,
		.state_bytes = config->state_bytes,
		.devices = config->devices,
		.program = TENANT_FILL_MEMORY,
	};
	t->user = (struct qsc_migrate_user){
		.regions = &t->region,
		.num_regions = 1,
		.dirty = user_dirty,
		.pause = user_pause,
		.stopped = user_stopped,
		.save = user_save,
		.load = user_load,
		.setup_irqs = user_setup_irqs,
		.resume = user_resume,
		.ctx = t,
		.kind = t->kind,
	};
	/* All that user_load() wants to be the same. */
	(void)snprintf(t->kind, sizeof(t->kind),
		       "the copying tenant (%u engines of %llu bytes, input %llx)", t->cpu.devices,
		       (unsigned long long)t->cpu.state_bytes,
		       (unsigned long long)t->cpu.source_identity);
	*out = t;
	return 0;
fail:
	tenant_destroy(t);
	return result;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void tenant_end(struct tenant *t)
{
	if (!t || !t->has_thread)
		return;
	pthread_mutex_lock(&t->lock);
	t->end = true;
	wake(t);
	pthread_mutex_unlock(&t->lock);
	pthread_join(t->thread, NULL);
	t->has_thread = false;
}

void tenant_destroy(struct tenant *t)
{
	uint32_t i;

	if (!t)
		return;
	tenant_end(t);
	for (i = 0; t->irq_fds && i < t->config.devices * TENANT_SLOTS; i++)
		close_fd(t->irq_fds[i]);
	close_fd(t->epoll_fd);
	close_fd(t->kick_fd);
	close_fd(t->event_fd);
	if (t->memory)
		munmap(t->memory, (size_t)t->config.memory_bytes);
	if (t->region.vaddr)
		munmap(t->region.vaddr, (size_t)t->config.memory_bytes);
	close_fd(t->memory_fd);
	tenant_source_close(&t->source);
	pthread_cond_destroy(&t->changed);
	pthread_mutex_destroy(&t->lock);
	free(t->irq_fds);
	free(t->devices);
	free(t->rung);
	free(t->scratch);
	free(t->dirty);
	free(t);
}

void tenant_memory(const struct tenant *t, struct qsc_dma_mapping *mapping)
{
	*mapping = (struct qsc_dma_mapping){
		.iova = TENANT_MEMORY_IOVA,
		.size = t->config.memory_bytes,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = t->region.vaddr,
		.fd = t->memory_fd,
	};
}

void tenant_attach(struct tenant *t, struct qsc_device *const devices[])
{
	memcpy(t->devices, devices, t->config.devices * sizeof(struct qsc_device *));
}

int tenant_begin(struct tenant *t, struct qsc_error *err)
{
	uint32_t i;
	int result;

	tenant_head(t)->magic = TENANT_MAGIC;
	for (i = 0; i < t->config.devices; i++) {
		uint64_t offset = t->layout.queues + i * t->layout.queue_stride;

		result = dmacopy_driver_start(t->devices[i], tenant_queue(t, i),
					      TENANT_MEMORY_IOVA + offset, TENANT_SLOTS);
		if (result < 0)
			return qsc_error_set(err, -result, NULL, "cannot start device %u: %s", i,
					     strerror(-result));
	}
	result = user_setup_irqs(t);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot set up interrupts: %s",
				     strerror(-result));
	tenant_mark(t, t->memory, (size_t)t->layout.cold);
	atomic_store(&t->live->activity, TENANT_FILLING);
	result = start_thread(t);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot start the tenant: %s",
				     strerror(-result));
	return 0;
}

bool tenant_is_paused(struct tenant *t)
{
	bool paused;

	pthread_mutex_lock(&t->lock);
	paused = t->run == TENANT_RUN_PAUSED;
	pthread_mutex_unlock(&t->lock);
	return paused;
}

void tenant_finish(struct tenant *t)
{
	atomic_store(&t->finish, true);
}

int tenant_event_fd(const struct tenant *t)
{
	return t->event_fd;
}

bool tenant_finished(struct tenant *t)
{
	bool finished;

	pthread_mutex_lock(&t->lock);
	finished = t->run == TENANT_RUN_ENDED && !t->failure.number && !t->end;
	pthread_mutex_unlock(&t->lock);
	return finished;
}

int tenant_failure(struct tenant *t, struct qsc_error *err)
{
	int number;

	pthread_mutex_lock(&t->lock);
	number = t->run == TENANT_RUN_ENDED ? t->failure.number : 0;
	if (number && err)
		*err = t->failure;
	pthread_mutex_unlock(&t->lock);
	return -number;
}

void tenant_get_result(struct tenant *t, struct tenant_result *result)
{
	*result = tenant_head(t)->result;
}
