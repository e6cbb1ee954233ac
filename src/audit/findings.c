/* SPDX-License-Identifier: MIT */
/* What was found: each kind once, with how often, and what was done before it the first time. */
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "audit/audit.h"

/* What it can cost a person that a clause is broken. */
static const char *const consequences[QSC_CLAUSE_COUNT] = {
	[QSC_CLAUSE_SET_1] =
		"a device writes to a peer that has stopped: the write is lost, and the "
		"guest's data with it",
	[QSC_CLAUSE_SET_2] =
		"a device that runs already accesses a peer that does not yet: reads give "
		"all ones, writes are lost",
	[QSC_CLAUSE_SET_3] =
		"nothing made the device quiescent towards its peer: what was under way "
		"between the two is lost",
	[QSC_CLAUSE_SET_4] = "the guest's devices can no longer reach each other after the move: "
			     "their transfers fail",
	[QSC_CLAUSE_SET_5] =
		"two copies of the same device run: both write, and the data of one or of "
		"both is corrupt",
	[QSC_CLAUSE_ORD_1] = "reads give all ones and writes vanish: the guest's driver finds its "
			     "device gone, or waits for a request that was never made",
	[QSC_CLAUSE_ORD_2] =
		"interrupts that were held back can be delivered to nobody: a request of "
		"the guest never completes",
	[QSC_CLAUSE_ORD_3] =
		"the device runs before its memory is there: its transfers fail, and the "
		"guest's data is lost",
	[QSC_CLAUSE_ORD_4] =
		"the device may be in another state than its user believes: it is used "
		"stopped, or left running",
	[QSC_CLAUSE_ORD_5] = "when the destination refuses the state, nobody has it any more: the "
			     "guest is lost, or goes on with a device that forgot everything",
	[QSC_CLAUSE_ORD_6] =
		"state that could have moved while the guest ran is moved while it stands "
		"still: the stop is longer",
	[QSC_CLAUSE_ORD_7] =
		"memory that the device wrote arrives stale: the guest's data is silently "
		"wrong",
	[QSC_CLAUSE_ORD_8] =
		"the guest goes on with a device that forgot everything, and nobody is "
		"told: its requests are lost while the migration counts as successful",
	[QSC_CLAUSE_ORD_9] = "a kernel driver may crash on it: one upstream does",
};

static const char *consequence_of(enum qsc_finding_kind kind, enum qsc_clause clause)
{
	if (kind == QSC_FINDING_STRETCH)
		return "works with this device; one that promises no more than it must may refuse "
		       "it "
		       "or lose its effect";
	if (kind == QSC_FINDING_REFUSED)
		return "the device refused it, and nothing was done";
	return consequences[clause];
}

const char *qsc_finding_kind_name(enum qsc_finding_kind kind)
{
	static const char *const names[] = {"stretch", "refused", "violation"};

	return (unsigned int)kind < 3 ? names[kind] : "?";
}

/* The arguments of an action as a person reads them. */
static void arguments_text(const struct audit_entry *entry, char text[64])
{
	const char *name = entry->name;

	*text = '\0';
	if (!strcmp(name, "set-state"))
		(void)snprintf(text, 64, " %s", qsc_state_name((enum qsc_state)entry->a));
	else if (!strcmp(name, "region-read") || !strcmp(name, "region-write"))
		(void)snprintf(text, 64, " region %" PRIu64 " offset 0x%" PRIx64, entry->a,
			       entry->b);
	else if (!strcmp(name, "set-irqs"))
		(void)snprintf(text, 64, " index %" PRIu64 " vectors %" PRIu64, entry->a, entry->b);
	else if (!strncmp(name, "dma-", 4) || !strcmp(name, "log-report"))
		(void)snprintf(text, 64, " 0x%" PRIx64 " size 0x%" PRIx64, entry->a, entry->b);
	else if (!strcmp(name, "precopy-info"))
		(void)snprintf(text, 64, " initial %" PRIu64 " dirty %" PRIu64, entry->a, entry->b);
}

void audit_entry_text(const struct audit_entry *entry, char text[QSC_FINDING_LINE])
{
	const char *error = entry->result < 0 ? strerrorname_np((int)-entry->result) : NULL;
	char arguments[64];
	char result[32];
	char again[64] = "";

	if (error)
		(void)snprintf(result, sizeof(result), "-%s", error);
	else
		(void)snprintf(result, sizeof(result), "%" PRId64, entry->result);
	if (entry->repeated)
		(void)snprintf(again, sizeof(again), ", %u times%s", entry->repeated + 1,
			       entry->varied ? ", the first of them there" : "");
	arguments_text(entry, arguments);
	(void)snprintf(text, QSC_FINDING_LINE, "%" PRIu64 " us  %s  %s%s = %s%s", entry->us,
		       qsc_state_name((enum qsc_state)entry->state), entry->name, arguments, result,
		       again);
}

static void copy_context(struct audited *a, struct qsc_finding *finding)
{
	uint64_t first;

	pthread_mutex_lock(&a->lock);
	first = a->num_entries > AUDIT_RING ? a->num_entries - AUDIT_RING : 0;
	for (uint64_t i = first; i < a->num_entries; i++)
		audit_entry_text(&a->ring[i % AUDIT_RING],
				 finding->context[finding->num_context++]);
	pthread_mutex_unlock(&a->lock);
}

static struct qsc_finding *find_same(struct qsc_audit *audit, const struct qsc_finding *like)
{
	for (size_t i = 0; i < audit->num_findings; i++) {
		struct qsc_finding *finding = &audit->findings[i];

		if (finding->kind == like->kind && finding->clause == like->clause &&
		    finding->action == like->action && finding->state == like->state &&
		    !strcmp(finding->device, like->device))
			return finding;
	}
	return NULL;
}

/* The place for a finding whose key is `like`, when it is the first of its kind. */
static struct qsc_finding *take_place(struct qsc_audit *audit, const struct qsc_finding *like)
{
	struct qsc_finding *finding = find_same(audit, like);

	if (finding) {
		finding->count++;
		return NULL;
	}
	if (audit->num_findings == AUDIT_FINDINGS) {
		audit->dropped++;
		return NULL;
	}
	finding = &audit->findings[audit->num_findings++];
	*finding = *like;
	finding->count = 1;
	finding->first_us = audit_now_us(audit);
	finding->consequence = consequence_of(like->kind, like->clause);
	return finding;
}

void audit_found(struct audited *a, enum qsc_finding_kind kind, enum qsc_clause clause,
		 enum qsc_action action, enum qsc_state state, const char *fmt, ...)
{
	struct qsc_finding like = {
		.kind = kind, .clause = clause, .action = action, .state = state};
	struct qsc_finding *finding;
	va_list list;

	if (kind == QSC_FINDING_STRETCH && a->audit->profile == QSC_AUDIT_LINUX)
		return;
	memcpy(like.device, a->name, sizeof(like.device));
	finding = take_place(a->audit, &like);
	if (!finding)
		return;
	va_start(list, fmt);
	(void)vsnprintf(finding->text, sizeof(finding->text), fmt, list);
	va_end(list);
	copy_context(a, finding);
}

void qsc_audit_add(struct qsc_audit *audit, const char *device, enum qsc_clause clause,
		   const char *text)
{
	struct qsc_finding like = {
		.kind = QSC_FINDING_VIOLATION, .clause = clause, .action = QSC_ACTION_COUNT};
	struct qsc_finding *finding;

	if (!qsc_clause_info(clause))
		return;
	(void)snprintf(like.device, sizeof(like.device), "%s", device);
	pthread_mutex_lock(&audit->lock);
	finding = take_place(audit, &like);
	if (finding)
		(void)snprintf(finding->text, sizeof(finding->text), "%s", text);
	pthread_mutex_unlock(&audit->lock);
}

size_t qsc_audit_count(struct qsc_audit *audit)
{
	size_t count;

	pthread_mutex_lock(&audit->lock);
	count = audit->num_findings;
	pthread_mutex_unlock(&audit->lock);
	return count;
}

int qsc_audit_get(struct qsc_audit *audit, size_t number, struct qsc_finding *finding)
{
	int result = -EINVAL;

	pthread_mutex_lock(&audit->lock);
	if (number < audit->num_findings) {
		*finding = audit->findings[number];
		result = 0;
	}
	pthread_mutex_unlock(&audit->lock);
	return result;
}
