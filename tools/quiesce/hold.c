/* SPDX-License-Identifier: MIT */
/* See hold.h; docs/hold-devices.rst goes through this file. */
#include "hold.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "device.h"
#include "dmacopy/dmacopy.h"
#include "tool.h"

/* Where memory and the first peer are in every device's DMA space; a peer is aligned to its size.
 */
#define MEMORY_IOVA TENANT_MEMORY_IOVA
#define PEER_IOVA   TENANT_PEER_IOVA

/* ---- the user, when there is no tenant ---- */

static int nothing(void *ctx)
{
	(void)ctx;
	return 0;
}

static int nothing_dirty(void *ctx, uint32_t region, uint64_t *bitmap)
{
	(void)ctx;
	(void)region;
	(void)bitmap;
	return 0;
}

/* A tenant that came along would be lost here. */
static int load_nothing(void *ctx, const void *buf, size_t size)
{
	(void)ctx;
	(void)buf;
	return size ? -EINVAL : 0;
}

/* [memory] */
static int make_memory(struct hold *hold, bool *wrong, struct qsc_error *err)
{
	const struct hold_config *config = hold->config;
	size_t size = (size_t)config->memory_bytes;
	int number;
	void *at;

	if (config->memory_file)
		hold->memory_fd = open(config->memory_file, O_RDWR | O_CLOEXEC);
	else
		hold->memory_fd = memfd_create("quiesce-memory", MFD_CLOEXEC);
	number = errno;
	*wrong = config->memory_file && hold->memory_fd < 0 && tool_path_is_wrong(number);
	if (hold->memory_fd < 0)
		return qsc_error_set(err, number, NULL, "cannot open the memory%s%s: %s",
				     config->memory_file ? " " : "",
				     config->memory_file ? config->memory_file : "",
				     strerror(number));
	/* Servers of devices refuse others: a page of them could take for ever. */
	if (fcntl(hold->memory_fd, F_GET_SEALS) < 0) {
		*wrong = true;
		return qsc_error_set(err, EINVAL, NULL,
				     "%s is no file in memory; put it in a tmpfs such as /dev/shm, "
				     "or in hugetlbfs",
				     config->memory_file);
	}
	if (!config->memory_file && ftruncate(hold->memory_fd, (off_t)size) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make memory: %s", strerror(errno));
	at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, hold->memory_fd, 0);
	if (at == MAP_FAILED)
		return qsc_error_set(err, errno, NULL, "cannot map the memory: %s",
				     strerror(errno));
	hold->memory = (struct qsc_memory_region){
		.address = MEMORY_IOVA,
		.size = size,
		.vaddr = at,
		.may_shrink = config->memory_file,
	};
	return 0;
}

/*
 * A file may be shorter by now than when it was mapped, or have been while a set moved: what is
 * mapped then is no longer the file.
 */
int hold_renew_memory(struct hold *hold, struct qsc_error *err)
{
	const struct qsc_memory_region *memory = &hold->memory;
	const char *file = hold->config->memory_file;
	struct stat st;

	if (!memory->may_shrink)
		return 0;
	if (fstat(hold->memory_fd, &st) < 0 || (uint64_t)st.st_size < memory->size)
		return qsc_error_set(err, EFAULT, NULL,
				     "the memory %s was made shorter by somebody, to %lld of %llu "
				     "bytes: what is gone cannot move",
				     file, (long long)st.st_size, (unsigned long long)memory->size);
	if (mmap(memory->vaddr, (size_t)memory->size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, hold->memory_fd, 0) == MAP_FAILED)
		return qsc_error_set(err, errno, NULL, "cannot map the memory %s again: %s", file,
				     strerror(errno));
	return 0;
}

/* Memory that is a file may be written by others, and who that is cannot tell (ORD-7). */
static void make_user(struct hold *hold)
{
	hold->user = (struct qsc_migrate_user){
		.regions = &hold->memory,
		.num_regions = hold->memory.size ? 1 : 0,
		.dirty = hold->config->memory_file ? NULL : nothing_dirty,
		.pause = nothing,
		.load = load_nothing,
		.resume = nothing,
		.ctx = hold,
		.kind = "nobody (no tenant)",
	};
}
/* [devices] */

static int open_devices(struct hold *hold, bool *wrong, struct qsc_error *err)
{
	const struct hold_config *config = hold->config;
	const struct qsc_client_options options = {.request_timeout_ms = config->device_timeout_ms};
	int result;

	for (uint32_t i = 0; i < config->num_devices; i++) {
		const struct hold_device *device = &config->devices[i];

		result = tool_try_device(device->uri, &options, &hold->devices[i], wrong, err);
		if (result >= 0)
			result = qsc_set_add(hold->set, device->name, hold->devices[i], err);
		if (result < 0) {
			qsc_error_prefix(err, "device '%s': ", device->name);
			return result;
		}
	}
	return 0;
}

/* 0, with the reason in err, when there is none. */
static uint64_t region_size(struct hold *hold, uint32_t member, uint32_t region,
			    struct qsc_error *err)
{
	struct qsc_region_info info = {0};
	int result = qsc_device_get_region_info(hold->devices[member], region, &info);

	if (result == 0 && info.size)
		return info.size;
	(void)qsc_error_set(err, result < 0 ? -result : EINVAL, NULL,
			    "device '%s' has no region %u", hold->config->devices[member].name,
			    region);
	return 0;
}

static int map_peer(struct hold *hold, const struct hold_peer *peer, uint64_t *next, bool *wrong,
		    struct qsc_error *err)
{
	struct qsc_peer_mapping mapping = {
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.peer = peer->to,
		.region = peer->region,
		.size = region_size(hold, peer->to, peer->region, err),
	};

	*wrong = !mapping.size;
	if (!mapping.size)
		return -EINVAL;
	if (mapping.size > 1ULL << 48)
		return qsc_error_set(err, E2BIG, NULL, "region %u of device '%s' is too large",
				     peer->region, hold->config->devices[peer->to].name);
	mapping.iova = (*next + mapping.size - 1) / mapping.size * mapping.size;
	*next = mapping.iova + mapping.size;
	return qsc_set_map_peer(hold->set, peer->from, &mapping, err);
}

/* Everybody reaches memory; who reaches whom is as the person said, or as the tenant needs it. */
static int map_all(struct hold *hold, bool *wrong, struct qsc_error *err)
{
	const struct hold_config *config = hold->config;
	struct qsc_dma_mapping memory = {
		.iova = MEMORY_IOVA,
		.size = hold->memory.size,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = hold->memory.vaddr,
		.fd = hold->memory_fd,
	};
	uint64_t next = PEER_IOVA;
	int result = 0;

	if (hold->tenant)
		tenant_memory(hold->tenant, &memory);
	for (uint32_t i = 0; i < config->num_devices && !result && memory.size; i++)
		result = qsc_set_dma_map(hold->set, i, &memory, err);
	for (uint32_t i = 0; i + 1 < config->num_devices && !result && hold->tenant; i++) {
		const struct hold_peer peer = {i, i + 1, DMACOPY_BAR_LOCAL};

		next = PEER_IOVA;
		result = map_peer(hold, &peer, &next, wrong, err);
	}
	for (uint32_t i = 0; i < config->num_peers && !result; i++)
		result = map_peer(hold, &config->peers[i], &next, wrong, err);
	return result;
}

/* ---- the tenant ---- */

static bool is_dmacopy(struct qsc_device *device)
{
	uint8_t id[4];

	return qsc_device_region_read(device, VFIO_PCI_CONFIG_REGION_INDEX, 0, id, sizeof(id)) ==
		       (ssize_t)sizeof(id) &&
	       (id[0] | id[1] << 8) == DMACOPY_PCI_VENDOR &&
	       (id[2] | id[3] << 8) == DMACOPY_PCI_DEVICE;
}

static int check_engines(struct hold *hold, struct tenant_config *tenant, struct qsc_error *err)
{
	for (uint32_t i = 0; i < hold->config->num_devices; i++) {
		const char *name = hold->config->devices[i].name;
		uint64_t size;

		if (!is_dmacopy(hold->devices[i]))
			return qsc_error_set(err, EINVAL, NULL,
					     "the tenant drives dmacopy engines, and device '%s' "
					     "is none; use --tenant none",
					     name);
		size = region_size(hold, i, DMACOPY_BAR_LOCAL, err);
		if (!size)
			return -EINVAL;
		if (size < TENANT_STATE_MIN || (i && size != tenant->state_bytes))
			return qsc_error_set(err, EINVAL, NULL,
					     "the tenant wants engines with the same memory, of at "
					     "least 128K, and device '%s' has %llu bytes",
					     name, (unsigned long long)size);
		tenant->state_bytes = size;
		/* Peer mappings may be taken away for the stop then. */
		tenant->retry_faults |= !(qsc_set_flags(hold->set, i) & QSC_MIGRATION_P2P);
	}
	return 0;
}

static int make_tenant(struct hold *hold, bool *wrong, struct qsc_error *err)
{
	struct tenant_config tenant = {
		.devices = hold->config->num_devices,
		.memory_bytes = hold->config->memory_bytes,
	};
	char text[32];
	int result = check_engines(hold, &tenant, err);

	*wrong = result == -EINVAL;
	if (result < 0)
		return result;
	if (tenant.memory_bytes < tenant_memory_min(&tenant)) {
		*wrong = true;
		return qsc_error_set(
			err, EINVAL, NULL, "the tenant wants at least %s of memory for %u devices",
			tool_size_text((tenant_memory_min(&tenant) + (1 << 20) - 1) >> 20 << 20,
				       text),
			tenant.devices);
	}
	result = tenant_create(&tenant, &hold->live, &hold->tenant, err);
	if (!result)
		tenant_attach(hold->tenant, hold->devices);
	return result;
}

/* ---- as a whole ---- */

static int acquire(struct hold *hold, bool *wrong, struct qsc_error *err)
{
	int result = qsc_timeline_create(&hold->timeline);

	if (!result)
		result = qsc_set_create(NULL, hold->timeline, &hold->set);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot make a set: %s",
				     strerror(-result));
	result = open_devices(hold, wrong, err);
	if (!result && hold->config->tenant == HOLD_TENANT_COPY)
		result = make_tenant(hold, wrong, err);
	else if (!result && hold->config->memory_bytes)
		result = make_memory(hold, wrong, err);
	if (!result)
		result = map_all(hold, wrong, err);
	if (!result)
		make_user(hold);
	return result;
}

int hold_open(const struct hold_config *config, struct hold **out, bool *wrong,
	      struct qsc_error *err)
{
	struct hold *hold = calloc(1, sizeof(*hold));
	int result;

	*wrong = false;
	*out = NULL;
	if (!hold)
		return qsc_error_set(err, ENOMEM, NULL, "no memory to hold devices");
	hold->config = config;
	hold->memory_fd = -1;
	hold->devices = calloc(config->num_devices + 1U, sizeof(struct qsc_device *));
	if (!hold->devices)
		result = qsc_error_set(err, ENOMEM, NULL, "no memory to hold devices");
	else
		result = acquire(hold, wrong, err);
	if (result < 0) {
		hold_close(hold);
		return result;
	}
	*out = hold;
	return 0;
}

int hold_begin(struct hold *hold, struct qsc_error *err)
{
	return hold->tenant ? tenant_begin(hold->tenant, err) : 0;
}

const struct qsc_migrate_user *hold_user(struct hold *hold)
{
	return hold->tenant ? tenant_user(hold->tenant) : &hold->user;
}

/* [close] */
void hold_close(struct hold *hold)
{
	if (!hold)
		return;
	/* The tenant's thread uses the devices, and they use its memory. */
	tenant_end(hold->tenant);
	qsc_set_destroy(hold->set);
	for (uint32_t i = 0; hold->devices && i < hold->config->num_devices; i++)
		qsc_device_close(hold->devices[i]);
	tenant_destroy(hold->tenant);
	if (hold->memory.vaddr)
		munmap(hold->memory.vaddr, (size_t)hold->memory.size);
	if (hold->memory_fd >= 0)
		close(hold->memory_fd);
	qsc_timeline_destroy(hold->timeline);
	free(hold->devices);
	free(hold);
}
/* [end] */
