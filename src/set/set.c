/* SPDX-License-Identifier: MIT */
/*
 * Members of a set and the mappings in their DMA spaces. A mapping of a peer's region is built from
 * all the ways the peer offers to reach it (mapped here, as a file, or access by access), so that
 * any kind of device can use one of them, and is kept so that it can be revoked and put back.
 */
#include "set/set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"

int qsc_set_create(const struct qsc_env *env, struct qsc_timeline *timeline, struct qsc_set **set)
{
	struct qsc_set *made = calloc(1, sizeof(*made));

	if (!made)
		return -ENOMEM;
	made->env = env ? env : qsc_env_real();
	made->timeline = timeline;
	*set = made;
	return 0;
}

static void mapping_free(struct qsc_set_mapping *mapping)
{
	if (mapping->vaddr)
		(void)qsc_device_region_unmap(mapping->peer_dev, mapping->vaddr,
					      mapping->peer.size);
	qsc_fd_close(&mapping->fd);
	free(mapping);
}

/*
 * Peer mappings leave their devices with the set: what they are made of (a mapping here, a file)
 * ends with it. Mappings of memory stay, as the devices stay as they are.
 */
void qsc_set_destroy(struct qsc_set *set)
{
	uint32_t i;

	if (!set)
		return;
	for (i = 0; i < set->count; i++) {
		struct qsc_set_member *member = &set->members[i];

		while (member->mappings) {
			struct qsc_set_mapping *mapping = member->mappings;

			member->mappings = mapping->next;
			if (mapping->is_peer && !mapping->revoked)
				(void)qsc_device_dma_unmap(member->dev, mapping->dma.iova,
							   mapping->dma.size);
			mapping_free(mapping);
		}
		free(member->name);
	}
	free(set->members);
	free(set);
}

int qsc_set_add(struct qsc_set *set, const char *name, struct qsc_device *dev,
		struct qsc_error *err)
{
	struct qsc_migration_info info;
	struct qsc_set_member *grown;
	char *copy;
	uint32_t i;
	int result;

	for (i = 0; i < set->count; i++)
		if (set->members[i].dev == dev || !strcmp(set->members[i].name, name))
			return qsc_error_set(err, EEXIST, NULL,
					     "device '%s' is in the set already, as '%s'", name,
					     set->members[i].name);
	result = qsc_device_get_migration(dev, &info);
	if (result == -ENOTTY)
		return qsc_error_set(err, ENOTTY, NULL,
				     "device '%s' (%s) cannot migrate: it has no migration states; "
				     "leave it out of the set",
				     name, qsc_device_kind(dev));
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "device '%s' does not say whether it can migrate: %s", name,
				     strerrordesc_np(-result));
	if (!qsc_flags_valid(info.flags))
		return qsc_error_set(err, EINVAL, qsc_clause_id(QSC_CLAUSE_STATE_1),
				     "device '%s' reports migration flags %#x, which are no valid "
				     "set (1, 3, 5 and 7 are); its driver is defective",
				     name, info.flags);
	copy = strdup(name);
	grown = copy ? reallocarray(set->members, set->count + 1U, sizeof(*grown)) : NULL;
	if (!grown) {
		free(copy);
		return qsc_error_set(err, ENOMEM, NULL, "no memory to add device '%s'", name);
	}
	set->members = grown;
	set->members[set->count] = (struct qsc_set_member){
		.name = copy,
		.dev = dev,
		.flags = info.flags,
		.dirty_log = info.dirty_log,
	};
	set->planned = false;
	return (int)set->count++;
}

uint32_t qsc_set_count(const struct qsc_set *set)
{
	return set->count;
}

struct qsc_device *qsc_set_device(const struct qsc_set *set, uint32_t member)
{
	return member < set->count ? set->members[member].dev : NULL;
}

const char *qsc_set_name(const struct qsc_set *set, uint32_t member)
{
	return member < set->count ? set->members[member].name : "?";
}

uint32_t qsc_set_flags(const struct qsc_set *set, uint32_t member)
{
	return member < set->count ? set->members[member].flags : 0;
}

bool qsc_set_has_dirty_log(const struct qsc_set *set, uint32_t member)
{
	return member < set->count && set->members[member].dirty_log;
}

uint64_t qsc_set_session(const struct qsc_set *set, uint32_t member)
{
	return member < set->count ? set->members[member].session : 0;
}

void qsc_set_phase(struct qsc_set *set, const char *name, uint32_t member, uint64_t start_us,
		   uint64_t bytes)
{
	const struct qsc_phase phase = {
		.name = name,
		.member = member,
		.start_us = start_us,
		.duration_us = qsc_set_now(set) - start_us,
		.bytes = bytes,
	};

	qsc_timeline_add(set->timeline, &phase);
}

static int map_and_keep(struct qsc_set *set, uint32_t member, struct qsc_set_mapping *mapping,
			struct qsc_error *err)
{
	struct qsc_set_member *owner = &set->members[member];
	int result = qsc_device_dma_map(owner->dev, &mapping->dma);

	if (result < 0) {
		qsc_error_set(err, -result, NULL,
			      "device '%s' refused the DMA mapping of %#llx bytes at IOVA %#llx: "
			      "%s",
			      owner->name, (unsigned long long)mapping->dma.size,
			      (unsigned long long)mapping->dma.iova, strerrordesc_np(-result));
		mapping_free(mapping);
		return result;
	}
	mapping->next = owner->mappings;
	owner->mappings = mapping;
	set->planned = false;
	return 0;
}

int qsc_set_dma_map(struct qsc_set *set, uint32_t member, const struct qsc_dma_mapping *mapping,
		    struct qsc_error *err)
{
	struct qsc_set_mapping *kept;

	if (member >= set->count)
		return qsc_error_set(err, EINVAL, NULL, "the set has no member %u", member);
	if (mapping->flags & QSC_DMA_PEER)
		return qsc_error_set(err, EINVAL, qsc_clause_id(QSC_CLAUSE_SET_3),
				     "a peer mapping of device '%s' must name the peer, or reach "
				     "cannot be known: use qsc_set_map_peer()",
				     set->members[member].name);
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a mapping of device '%s'",
				     set->members[member].name);
	kept->fd = -1;
	/* The device has its own duplicate of the caller's fd; none is needed to put it back. */
	kept->dma = *mapping;
	return map_and_keep(set, member, kept, err);
}

int qsc_set_dma_unmap(struct qsc_set *set, uint32_t member, uint64_t iova, uint64_t size)
{
	struct qsc_set_mapping **link;
	struct qsc_set_mapping *mapping;
	int result;

	if (member >= set->count)
		return -EINVAL;
	for (link = &set->members[member].mappings; *link; link = &(*link)->next)
		if ((*link)->dma.iova == iova && (*link)->dma.size == size)
			break;
	mapping = *link;
	if (!mapping)
		return -ENOENT;
	result = mapping->revoked ? 0 : qsc_device_dma_unmap(set->members[member].dev, iova, size);
	if (result < 0)
		return result;
	*link = mapping->next;
	mapping_free(mapping);
	set->planned = false;
	return 0;
}

/* ---- peers ---- */

static int peer_read(void *ctx, uint64_t iova, void *buf, size_t size)
{
	const struct qsc_set_mapping *mapping = ctx;
	ssize_t done = qsc_device_region_read(mapping->peer_dev, mapping->peer.region,
					      mapping->peer.offset + (iova - mapping->peer.iova),
					      buf, size);

	return done < 0 ? (int)done : (size_t)done == size ? 0 : -EIO;
}

static int peer_write(void *ctx, uint64_t iova, const void *buf, size_t size)
{
	const struct qsc_set_mapping *mapping = ctx;
	ssize_t done = qsc_device_region_write(mapping->peer_dev, mapping->peer.region,
					       mapping->peer.offset + (iova - mapping->peer.iova),
					       buf, size);

	return done < 0 ? (int)done : (size_t)done == size ? 0 : -EIO;
}

static bool can_map(const struct qsc_region_info *info, const struct qsc_peer_mapping *peer)
{
	uint32_t i;

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return false;
	for (i = 0; i < info->num_areas; i++) {
		const struct qsc_mmap_area *area = &info->areas[i];

		if (peer->offset >= area->offset &&
		    qsc_range_within(peer->offset - area->offset, peer->size, area->size))
			return true;
	}
	return info->num_areas == 0;
}

/* Every way to reach the range that the peer offers; accesses one by one always work. */
static void reach_peer(struct qsc_set_mapping *mapping, const struct qsc_region_info *info)
{
	const struct qsc_peer_mapping *peer = &mapping->peer;
	uint64_t base;
	int prot = 0;

	mapping->access =
		(struct qsc_dma_access){.read = peer_read, .write = peer_write, .ctx = mapping};
	mapping->dma.access = &mapping->access;
	if (!can_map(info, peer))
		return;
	if (info->flags & VFIO_REGION_INFO_FLAG_READ)
		prot |= PROT_READ;
	if (info->flags & VFIO_REGION_INFO_FLAG_WRITE)
		prot |= PROT_WRITE;
	if (qsc_device_region_map(mapping->peer_dev, peer->region, peer->offset, peer->size, prot,
				  &mapping->vaddr) < 0)
		mapping->vaddr = NULL;
	if (qsc_device_region_fd(mapping->peer_dev, peer->region, &mapping->fd, &base) < 0)
		mapping->fd = -1;
	else
		mapping->dma.fd_offset = base + peer->offset;
	mapping->dma.vaddr = mapping->vaddr;
	mapping->dma.fd = mapping->fd;
}

int qsc_set_map_peer(struct qsc_set *set, uint32_t member, const struct qsc_peer_mapping *mapping,
		     struct qsc_error *err)
{
	struct qsc_set_mapping *kept;
	struct qsc_region_info info;
	const char *peer_name;
	int result;

	if (member >= set->count || mapping->peer >= set->count)
		return qsc_error_set(err, EINVAL, NULL, "the set has no member %u",
				     member >= set->count ? member : mapping->peer);
	peer_name = set->members[mapping->peer].name;
	result = qsc_device_get_region_info(set->members[mapping->peer].dev, mapping->region,
					    &info);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "device '%s' has no region %u to map",
				     peer_name, mapping->region);
	if (!mapping->size || mapping->size % QSC_PAGE_SIZE || mapping->offset % QSC_PAGE_SIZE ||
	    mapping->iova % QSC_PAGE_SIZE ||
	    !qsc_range_within(mapping->offset, mapping->size, info.size))
		return qsc_error_set(err, EINVAL, NULL,
				     "%#llx bytes at offset %#llx are not whole pages within "
				     "region %u of device '%s' (%#llx bytes)",
				     (unsigned long long)mapping->size,
				     (unsigned long long)mapping->offset, mapping->region,
				     peer_name, (unsigned long long)info.size);
	kept = calloc(1, sizeof(*kept));
	if (!kept)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a mapping of device '%s'",
				     set->members[member].name);
	kept->fd = -1;
	kept->is_peer = true;
	kept->peer = *mapping;
	kept->peer_dev = set->members[mapping->peer].dev;
	kept->dma = (struct qsc_dma_mapping){
		.iova = mapping->iova,
		.size = mapping->size,
		.flags = (mapping->flags & (QSC_DMA_READ | QSC_DMA_WRITE)) | QSC_DMA_PEER,
		.fd = -1,
	};
	reach_peer(kept, &info);
	return map_and_keep(set, member, kept, err);
}
