/* SPDX-License-Identifier: MIT */
/*
 * The devices of one user as a set: SET-1 to SET-4. Reach is computed from the mappings: one whose
 * file is a region of another device of the set, or, where only the user's word says that it is a
 * peer, whoever that may be.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <linux/vfio.h>

#include "audit/audit.h"
#include "base/cleanup.h"
#include "base/fd.h"
#include "contract/set_rules.h"

#define VIOLATION(a, clause, ...)                                                      \
	audit_found((a), QSC_FINDING_VIOLATION, QSC_CLAUSE_##clause, QSC_ACTION_COUNT, \
		    audit_state(a), __VA_ARGS__)

static bool together(const struct audited *a, const struct audited *b)
{
	return a != b && a->user == b->user && !b->gone;
}

/* A mapping of `to` by which `from` reaches it, copied; false when there is none. */
static bool reaches(struct audited *from, const struct audited *to, struct audit_mapping *by)
{
	bool found = false;

	pthread_mutex_lock(&from->lock);
	for (size_t i = 0; i < from->mappings.room && !found; i++) {
		const struct audit_mapping *m = &from->mappings.slot[i];

		found = m->size &&
			(m->peer == to->number || (!m->peer && (m->flags & QSC_DMA_PEER)));
		if (found)
			*by = *m;
	}
	pthread_mutex_unlock(&from->lock);
	return found;
}

static struct set_member member_of(const struct audited *a)
{
	return (struct set_member){a->flags, audit_state(a)};
}

void audit_group_stop(struct audited *a, uint32_t target)
{
	const char *to = qsc_state_name((enum qsc_state)target);
	const struct set_member member = member_of(a);
	struct audit_mapping out = {0}, in = {0};

	for (struct audited *b = a->audit->devices; b; b = b->next) {
		const struct set_member other = member_of(b);

		if (!together(a, b))
			continue;
		b->moving = true;
		switch ((int)set_stop_breaks(&member, &other, reaches(a, b, &out),
					     reaches(b, a, &in))) {
		case QSC_CLAUSE_SET_3:
			VIOLATION(a, SET_3,
				  "it stops for %s, has no P2P states, and still reaches '%s' "
				  "through the mapping at 0x%llx",
				  to, b->name, (unsigned long long)out.iova);
			break;
		case QSC_CLAUSE_SET_1:
			VIOLATION(a, SET_1,
				  "it stops for %s while '%s' is in %s and reaches it through the "
				  "mapping at 0x%llx",
				  to, b->name, qsc_state_name(other.state),
				  (unsigned long long)in.iova);
			break;
		default:
			break;
		}
	}
	a->moving = true;
}

static void judge_revoked(struct audited *a, const char *who, const char *to)
{
	if (a->num_revoked && a->moving)
		VIOLATION(a, SET_4,
			  "its peer mapping at 0x%llx was taken away for a move, and is not back "
			  "when %s goes to %s",
			  (unsigned long long)a->revoked[0].iova, who, to);
	a->num_revoked = 0;
}

void audit_group_run(struct audited *a, uint32_t target)
{
	const char *to = qsc_state_name((enum qsc_state)target);
	const struct set_member member = member_of(a);
	struct audit_mapping by;
	char name[sizeof(a->name) + 2];

	(void)snprintf(name, sizeof(name), "'%s'", a->name);
	for (struct audited *b = a->audit->devices; b; b = b->next) {
		const struct set_member other = member_of(b);

		if (!together(a, b))
			continue;
		if (set_run_breaks(&member, &other, reaches(a, b, &by)) == QSC_CLAUSE_SET_2)
			VIOLATION(a, SET_2, "it goes to %s while '%s' is in %s", to, b->name,
				  qsc_state_name(other.state));
		judge_revoked(b, name, to);
	}
	judge_revoked(a, "it", to);
	a->moving = false;
}

/* A move of the set is under way: somebody is being saved, is stopped, or has its log on. */
static bool in_move(const struct audited *a)
{
	for (const struct audited *b = a->audit->devices; b; b = b->next)
		if ((b == a || together(a, b)) &&
		    (b->logging || audit_state(b) != QSC_STATE_RUNNING))
			return true;
	return false;
}

void audit_group_mapped(struct audited *a, const struct qsc_dma_mapping *mapping)
{
	for (size_t i = 0; i < a->num_revoked; i++)
		if (a->revoked[i].iova == mapping->iova && a->revoked[i].size == mapping->size) {
			a->revoked[i] = a->revoked[--a->num_revoked];
			return;
		}
}

void audit_group_unmapped(struct audited *a, const struct audit_mapping *mapping)
{
	if (!mapping->peer && !(mapping->flags & QSC_DMA_PEER))
		return;
	if (in_move(a) && a->num_revoked < AUDIT_REVOKED)
		a->revoked[a->num_revoked++] = (struct qsc_dma_range){mapping->iova, mapping->size};
}

/* The number of the device of the set that has this memory, or any; or 0. */
static uint32_t find_memory(struct audited *a, const struct audit_memory *wanted)
{
	uint32_t number = 0;

	pthread_mutex_lock(&a->audit->lock);
	for (struct audited *b = a->audit->devices; b && !number; b = b->next)
		for (size_t i = 0; i < b->num_memory && together(a, b); i++)
			if (!wanted ||
			    (b->memory[i].dev == wanted->dev && b->memory[i].ino == wanted->ino))
				number = b->number;
	pthread_mutex_unlock(&a->audit->lock);
	return number;
}

uint32_t audit_group_peer(struct audited *a, const struct qsc_dma_mapping *mapping)
{
	struct stat st;

	/* Which file it is costs a system call: only where it may be a peer's. */
	if (mapping->fd < 0 || !find_memory(a, NULL) || fstat(mapping->fd, &st) < 0)
		return 0;
	return find_memory(a, &(struct audit_memory){st.st_dev, st.st_ino});
}

void audit_group_learn(struct audited *a)
{
	struct qsc_device_info info;

	if (qsc_device_get_info(a->inner, &info) < 0)
		return;
	for (uint32_t i = 0; i < info.num_regions && a->num_memory < AUDIT_MEMORIES; i++) {
		struct qsc_region_info region;
		qsc_autoclose int fd = -1;
		uint64_t offset;
		struct stat st;

		if (qsc_device_get_region_info(a->inner, i, &region) < 0 ||
		    !(region.flags & VFIO_REGION_INFO_FLAG_MMAP) ||
		    qsc_device_region_fd(a->inner, i, &fd, &offset) < 0 || fstat(fd, &st) < 0)
			continue;
		a->memory[a->num_memory++] = (struct audit_memory){st.st_dev, st.st_ino};
	}
}
