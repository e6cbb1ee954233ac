/* SPDX-License-Identifier: MIT */
/*
 * What a migration would come to, before anything is touched: how the set is made quiescent, what
 * its members are, what the destination says of itself, and how long the stop would be at least.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "migrate/negotiate.h"
#include "migrate/source.h"
#include "set/set.h"

static int describe_member(const struct qsc_set *set, uint32_t index,
			   struct qsc_migrate_plan_member *member, struct qsc_error *err)
{
	struct qsc_device *dev = qsc_set_device(set, index);
	struct qsc_device_info info = {0};
	int result;

	*member = (struct qsc_migrate_plan_member){
		.flags = qsc_set_flags(set, index),
		.dirty_log = qsc_set_has_dirty_log(set, index),
	};
	result = qsc_device_get_info(dev, &info);
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "device '%s' does not describe itself (%s)",
				     qsc_set_name(set, index), strerrordesc_np(-result));
	(void)snprintf(member->type, sizeof(member->type), "%s", info.layout.type);
	result = qsc_device_data_size(dev, &member->state_bytes);
	if (result < 0 && result != -ENOTTY)
		return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_SESS_10),
				     "device '%s' does not tell how much state it has (%s)",
				     qsc_set_name(set, index), strerrordesc_np(-result));
	return 0;
}

/*
 * As if pre-copy had moved all that it can and nobody wrote any more: what remains is the state of
 * members without it, and memory that somebody writes untracked.
 */
static int count_bytes(struct source *source, struct qsc_migrate_plan *plan, struct qsc_error *err)
{
	struct qsc_engine *engine = &source->engine;
	struct qsc_predict *predict = &source->predict;
	bool all = engine->options.no_precopy;
	uint32_t i;

	plan->memory_bytes = predict->memory_bytes;
	predict->memory_left = all ? predict->memory_bytes : 0;
	for (i = 0; i < predict->num_members; i++) {
		struct qsc_migrate_plan_member member;
		int result = describe_member(engine->set, i, &member, err);

		if (result < 0)
			return result;
		if (plan->members)
			plan->members[i] = member;
		if (all || !(member.flags & QSC_MIGRATION_PRE_COPY))
			predict->members[i].fixed = member.state_bytes;
	}
	return 0;
}

/* How the waves would go. What they would do without this plan is not changed by it. */
static int plan_set(struct qsc_set *set, enum qsc_quiesce mode, struct qsc_set_plan *plan,
		    struct qsc_error *err)
{
	enum qsc_quiesce before = set->quiesce;
	int result = qsc_set_plan(set, mode, plan, err);

	set->quiesce = before;
	set->planned = false;
	return result;
}

/* The destination's opinion, its waves and the link, over one channel. */
static int ask(struct qsc_engine *engine, struct qsc_migrate_plan *plan, struct qsc_error *err)
{
	int result;

	qsc_engine_start_clock(engine);
	engine->link.must_answer = true;
	result = qsc_link_connect(&engine->link, engine->transport, 1, err);
	if (result == 0)
		result = qsc_negotiate_offer(engine, true, err);
	if (result < 0)
		return result;
	plan->asked = true;
	plan->bytes_per_second = engine->speed.bytes_per_second;
	plan->rtt_us = engine->speed.rtt_us;
	return 0;
}

static void judge(struct source *source, struct qsc_migrate_plan *plan)
{
	struct qsc_predict *predict = &source->predict;
	const char *basis = plan->asked ? ""
					: "; no destination was asked, so the times of the "
					  "link and of the changes of state are assumed";
	char text[sizeof(plan->reason)];
	char least[32];
	char limit[32];

	qsc_source_predict_begin(source);
	qsc_predict_stop(predict, &plan->predicted);
	plan->fits = qsc_predict_judge(predict, &plan->predicted) == QSC_PREDICT_FITS;
	if (plan->fits)
		(void)snprintf(text, sizeof(text),
			       "the stop takes at least %s of %s allowed, more by what is written "
			       "meanwhile",
			       qsc_predict_time_text(plan->predicted.total_us, least),
			       qsc_predict_time_text(predict->limit_us, limit));
	else
		qsc_predict_explain(predict, &plan->predicted, text, sizeof(text) - strlen(basis));
	(void)snprintf(plan->reason, sizeof(plan->reason), "%.*s%s",
		       (int)(sizeof(plan->reason) - strlen(basis) - 1), text, basis);
}

int qsc_migrate_plan(struct qsc_set *set, const struct qsc_migrate_user *user,
		     struct qsc_transport *transport, const struct qsc_migrate_options *options,
		     struct qsc_migrate_plan *plan, struct qsc_error *err)
{
	struct qsc_migrate_plan_member *members = plan->members;
	struct qsc_migrate_report unused = {.owner = QSC_OWNER_SOURCE};
	struct source source = {0};
	struct qsc_error local = QSC_ERROR_NONE;
	int result = qsc_engine_init(&source.engine, set, user, transport, options, &unused,
				     &local);

	*plan = (struct qsc_migrate_plan){.members = members};
	source.engine.other = "destination";
	if (result == 0)
		result = qsc_source_predict_init(&source, &local);
	if (result == 0)
		result = count_bytes(&source, plan, &local);
	if (result == 0)
		result = plan_set(set, source.engine.options.quiesce, &plan->set, &local);
	if (result == 0 && transport)
		result = ask(&source.engine, plan, &local);
	if (result == 0)
		judge(&source, plan);
	else if (err)
		*err = local;
	qsc_source_predict_release(&source);
	qsc_engine_release(&source.engine);
	return result;
}
