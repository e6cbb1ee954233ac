/* SPDX-License-Identifier: MIT */
/*
 * Provocation: a migration recipe is run once with each fault, and a table tells what became of the
 * guest's data. The recipe decides that inside the guest; what the VMM reports is only set beside
 * it: data that is wrong after a reported success is silently lost.
 */
#include "audit.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "tool.h"

/* Each arc, session access, log call and setup that a migration makes; `source`, `destination`. */
static const char *const all_faults[] = {
	"source.arc:RUNNING-PRE_COPY=EIO",
	"source.arc:PRE_COPY-PRE_COPY_P2P=EIO",
	"source.arc:PRE_COPY_P2P-STOP_COPY=EIO",
	"source.arc:PRE_COPY_P2P-STOP_COPY=break",
	"source.arc:PRE_COPY_P2P-STOP_COPY=delay:500ms",
	"source.arc:STOP_COPY-STOP=EIO",
	"source.session-read@1=EIO",
	"source.session-read/STOP_COPY=EIO",
	"source.session-read/STOP_COPY=flip",
	"source.session-read@2=disconnect",
	"source.precopy-info=EIO",
	"source.data-size=EIO",
	"source.get-migration=nolog",
	"source.log-start=ENOMEM",
	"source.log-report@1=EIO",
	"source.log-report/STOP_COPY=EIO",
	"source.log-report=drop",
	"destination.set-state:RESUMING=EIO",
	"destination.session-write@1=ENOSPC",
	"destination.session-write@2+=ENOMEM",
	"destination.session-write@1=disconnect",
	"destination.arc:RESUMING-STOP=EIO",
	"destination.arc:STOP-RUNNING_P2P=EIO",
	"destination.arc:STOP-RUNNING_P2P=break",
	"destination.arc:RUNNING_P2P-RUNNING=EIO",
	"destination.arc:RUNNING_P2P-RUNNING=delay:500ms",
	"destination.set-irqs/RESUMING=EINVAL",
	"destination.dma-map=ENOSPC",
	"destination.reset=EIO",
	NULL,
};

/* What a run came to. */
struct run {
	const char *fault;
	bool struck;
	int code;
	struct audit_said said;
	struct audit_counts counts;
	char clauses[96]; /* that were broken */
};

static const char *verdict(const struct run *run)
{
	if (!strcmp(run->said.data, "right"))
		return "right";
	if (strcmp(run->said.data, "wrong") != 0)
		return "not decided";
	return strcmp(run->said.reported, "success") != 0 ? "wrong, and reported" : "silently lost";
}

static void name_clauses(struct qsc_audit *audit, struct run *run)
{
	struct qsc_finding f;
	size_t used = 0;

	for (size_t i = 0; !qsc_audit_get(audit, i, &f); i++) {
		const char *id = qsc_clause_id(f.clause);

		if (f.kind == QSC_FINDING_VIOLATION && !strstr(run->clauses, id) &&
		    used + strlen(id) + 2 < sizeof(run->clauses))
			used += (size_t)snprintf(run->clauses + used, sizeof(run->clauses) - used,
						 "%s%s", used ? " " : "", id);
	}
}

static int run_one(struct audit_host *host, enum qsc_audit_profile profile, char *const command[],
		   struct run *run, struct qsc_error *err)
{
	int result = qsc_audit_create(profile, &host->audit);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "out of memory");
	host->fault = run->fault;
	result = audit_host_start(host, err);
	if (!result) {
		run->code = audit_run(host, command, &run->said, err);
		result = run->code < 0 ? run->code : 0;
	}
	audit_host_stop(host);
	run->struck = host->struck;
	run->counts = audit_report_count(host->audit);
	name_clauses(host->audit, run);
	qsc_audit_destroy(host->audit);
	host->audit = NULL;
	return result;
}

static void print_run(const struct run *run)
{
	printf("%-50s %-12s %-34s %-9s %-20s %s\n", run->fault ? run->fault : "none",
	       run->fault && !run->struck ? "not reached" : "",
	       *run->said.outcome ? run->said.outcome : "nothing was said",
	       *run->said.reported ? run->said.reported : "-", verdict(run),
	       *run->clauses ? run->clauses : "-");
	(void)fflush(stdout);
}

static void add_text(struct json_object *object, const char *key, const char *text)
{
	json_object_object_add(object, key, text && *text ? json_object_new_string(text) : NULL);
}

static void add_json(struct json_object *array, const struct run *run)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "fault", run->fault);
	json_object_object_add(object, "struck", json_object_new_boolean(run->struck));
	add_text(object, "outcome", run->said.outcome);
	add_text(object, "reported", run->said.reported);
	add_text(object, "data", verdict(run));
	json_object_object_add(object, "exit_code", json_object_new_int(run->code));
	json_object_object_add(object, "violations",
			       json_object_new_uint64(run->counts.violations));
	add_text(object, "clauses", run->clauses);
	json_object_array_add(array, object);
}

/* What became of all runs. */
struct sums {
	unsigned int lost; /* silently */
	unsigned int undecided;
};

/* 0, or -1 when it could not be run. */
static int next_run(struct audit_host *host, enum qsc_audit_profile profile, const char *fault,
		    char *const command[], struct json_object *all, struct sums *sums)
{
	struct run run = {.fault = fault};
	struct qsc_error err = QSC_ERROR_NONE;

	if (run_one(host, profile, command, &run, &err) < 0) {
		(void)tool_fail("%s", err.text);
		return -1;
	}
	print_run(&run);
	add_json(all, &run);
	sums->lost += !strcmp(verdict(&run), "silently lost");
	sums->undecided += !strcmp(verdict(&run), "not decided");
	return 0;
}

int audit_provoke(struct audit_host *host, enum qsc_audit_profile profile,
		  const char *const faults[], char *const command[], FILE *json)
{
	struct json_object *all = json_object_new_array();
	const char *const *list = *faults ? faults : all_faults;
	struct sums sums = {0};
	int result;

	printf("%-50s %-12s %-34s %-9s %-20s %s\n", "fault", "", "what the VMM did", "reported",
	       "data", "broken");
	result = next_run(host, profile, NULL, command, all, &sums);
	for (; *list && result >= 0 && !audit_is_stopped(); list++)
		result = next_run(host, profile, *list, command, all, &sums);
	if (result >= 0)
		printf("data was silently lost in %u of %zu runs\n", sums.lost,
		       (size_t)json_object_array_length(all));
	if (audit_is_stopped())
		result = -tool_fail("ended by a signal before all runs were done");
	if (sums.undecided)
		result = -tool_fail("%u of %zu runs did not say what became of the data",
				    sums.undecided, (size_t)json_object_array_length(all));
	if (!json)
		json_object_put(all);
	else if (tool_write_json(all, json) == -ENOMEM)
		result = -tool_fail("out of memory");
	return result < 0 || sums.lost ? TOOL_FAILED : TOOL_OK;
}
