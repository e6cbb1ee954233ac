/* SPDX-License-Identifier: MIT */
/*
 * The plan: who reaches whom, how each member becomes quiescent, and in which order members without
 * P2P may leave STOP. Such a member goes from STOP straight to RUNNING, so SET-2 holds for it only
 * if everything it reaches has left STOP before: targets first. For members that reach one another
 * in a circle no such order exists.
 */
#include <errno.h>
#include <stdio.h>

#include "set/set.h"

/* The mapping of lowest IOVA above the last one that lets `member` reach the peer. */
static const struct qsc_set_mapping *next_way(const struct qsc_set *set, uint32_t member,
					      uint32_t peer, const struct qsc_set_mapping *last)
{
	const struct qsc_set_mapping *mapping;
	const struct qsc_set_mapping *next = NULL;

	for (mapping = set->members[member].mappings; mapping; mapping = mapping->next) {
		if (!qsc_set_reaches(mapping, member) ||
		    (peer != QSC_REACH_ANY && mapping->peer.peer != peer) ||
		    (last && mapping->dma.iova <= last->dma.iova))
			continue;
		if (!next || mapping->dma.iova < next->dma.iova)
			next = mapping;
	}
	return next;
}

size_t qsc_set_reach(const struct qsc_set *set, uint32_t member, uint32_t peer,
		     struct qsc_peer_mapping *mappings, size_t max)
{
	const struct qsc_set_mapping *way = NULL;
	size_t count = 0;

	if (member >= set->count)
		return 0;
	/* Mappings of one device do not overlap, so their addresses tell them apart. */
	while ((way = next_way(set, member, peer, way))) {
		if (count < max)
			mappings[count] = way->peer;
		count++;
	}
	return count;
}

static int refuse_native(const struct qsc_set *set, uint32_t member,
			 const struct qsc_set_mapping *mapping, struct qsc_error *err)
{
	return qsc_error_set(err, EOPNOTSUPP, qsc_clause_id(QSC_CLAUSE_SET_3),
			     "device '%s' has no P2P states and reaches device '%s' (region %u, "
			     "%#llx bytes at IOVA %#llx): remove that mapping, or let it be "
			     "revoked for the duration",
			     set->members[member].name, set->members[mapping->peer.peer].name,
			     mapping->peer.region, (unsigned long long)mapping->dma.size,
			     (unsigned long long)mapping->dma.iova);
}

/*
 * Longest way down from each member without P2P to others of its kind. A way longer than there are
 * members is a circle; *on_circle is then a mapping of it.
 */
static int find_levels(struct qsc_set *set, const struct qsc_set_mapping **on_circle,
		       uint32_t *circle_member)
{
	const struct qsc_set_mapping *mapping;
	bool changed = true;
	uint32_t i;

	for (i = 0; i < set->count; i++)
		set->members[i].level = 0;
	while (changed) {
		changed = false;
		for (i = 0; i < set->count; i++) {
			struct qsc_set_member *member = &set->members[i];

			if (qsc_set_has_p2p(member))
				continue;
			for (mapping = member->mappings; mapping; mapping = mapping->next) {
				const struct qsc_set_member *peer;

				if (!qsc_set_reaches(mapping, i))
					continue;
				peer = &set->members[mapping->peer.peer];
				if (qsc_set_has_p2p(peer) || member->level > peer->level)
					continue;
				member->level = peer->level + 1;
				changed = true;
				if (member->level < set->count)
					continue;
				*on_circle = mapping;
				*circle_member = i;
				return -ELOOP;
			}
		}
	}
	return 0;
}

/* "no device quiesces", "1 of 3 devices quiesces", "all 3 devices quiesce" */
static void say_native(const struct qsc_set *set, uint32_t native, char *text, size_t size)
{
	if (!native)
		(void)snprintf(text, size, "no device quiesces by itself");
	else if (native == set->count)
		(void)snprintf(text, size, "all %u devices quiesce by themselves (P2P states)",
			       native);
	else
		(void)snprintf(text, size, "%u of %u devices quiesce%s", native, set->count,
			       native == 1 ? "s by itself" : " by themselves");
}

static void explain(const struct qsc_set *set, uint32_t native, struct qsc_set_plan *plan)
{
	char who[64];

	say_native(set, native, who, sizeof(who));
	if (plan->strategy == QSC_QUIESCE_REVOKE)
		(void)snprintf(plan->reason, sizeof(plan->reason),
			       "%s; %u peer mapping%s of devices without P2P states will be "
			       "revoked for the duration",
			       who, plan->revoked_mappings, plan->revoked_mappings == 1 ? "" : "s");
	else if (!set->count)
		(void)snprintf(plan->reason, sizeof(plan->reason), "the set has no devices");
	else if (set->count == 1)
		(void)snprintf(plan->reason, sizeof(plan->reason), "%s",
			       native ? "the device quiesces by itself (P2P states)"
				      : "the device reaches no peer");
	else
		(void)snprintf(plan->reason, sizeof(plan->reason), "%s%s", who,
			       native == set->count ? ""
			       : native		    ? "; the others reach no peer"
						    : "; none reaches a peer");
}

int qsc_set_plan(struct qsc_set *set, enum qsc_quiesce mode, struct qsc_set_plan *plan,
		 struct qsc_error *err)
{
	struct qsc_set_plan unused;
	const struct qsc_set_mapping *mapping = NULL;
	uint32_t native = 0;
	uint32_t i = 0;

	plan = plan ? plan : &unused;
	if (mode != QSC_QUIESCE_NATIVE && mode != QSC_QUIESCE_REVOKE && mode != QSC_QUIESCE_AUTO)
		return qsc_error_set(err, EINVAL, NULL, "there is no mode %u of quiescing a set",
				     (unsigned int)mode);
	set->quiesce = mode;
	set->planned = false;
	*plan = (struct qsc_set_plan){.strategy = QSC_QUIESCE_NATIVE};
	if (find_levels(set, &mapping, &i) < 0)
		return qsc_error_set(
			err, EOPNOTSUPP, qsc_clause_id(QSC_CLAUSE_SET_3),
			"devices without P2P states reach one another in a circle, "
			"so no order of starting them keeps SET-2; one of its mappings "
			"is that of device '%s' (region %u) in device '%s' at IOVA "
			"%#llx: remove one",
			set->members[mapping->peer.peer].name, mapping->peer.region,
			set->members[i].name, (unsigned long long)mapping->dma.iova);
	for (i = 0; i < set->count; i++) {
		if (qsc_set_has_p2p(&set->members[i])) {
			native++;
			continue;
		}
		for (mapping = set->members[i].mappings; mapping; mapping = mapping->next) {
			if (!qsc_set_reaches(mapping, i))
				continue;
			if (mode == QSC_QUIESCE_NATIVE)
				return refuse_native(set, i, mapping, err);
			plan->strategy = QSC_QUIESCE_REVOKE;
			plan->revoked_mappings++;
		}
	}
	explain(set, native, plan);
	set->planned = true;
	return 0;
}

int qsc_set_plan_again(struct qsc_set *set, struct qsc_error *err)
{
	return set->planned ? 0 : qsc_set_plan(set, set->quiesce, NULL, err);
}
