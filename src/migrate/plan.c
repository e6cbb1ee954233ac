/* SPDX-License-Identifier: MIT */
/*
 * What a migration would come to, before anything is touched: how the set is made quiescent, what
 * its members are.
 */
#include <errno.h>
#include <string.h>

#include <quiesce/migrate.h>

static int describe_member(const struct qsc_set *set, uint32_t index,
			   struct qsc_migrate_plan_member *member, struct qsc_error *err)
{
	int result;

	*member = (struct qsc_migrate_plan_member){
		.flags = qsc_set_flags(set, index),
		.dirty_log = qsc_set_has_dirty_log(set, index),
	};
	result = qsc_device_data_size(qsc_set_device(set, index), &member->state_bytes);
	if (result < 0 && result != -ENOTTY)
		return qsc_error_set(err, -result, qsc_clause_id(QSC_CLAUSE_SESS_4),
				     "device '%s' does not tell how much state it has (%s)",
				     qsc_set_name(set, index), strerrordesc_np(-result));
	return 0;
}

int qsc_migrate_plan(struct qsc_set *set, const struct qsc_migrate_user *user,
		     struct qsc_transport *transport, const struct qsc_migrate_options *options,
		     struct qsc_migrate_plan *plan, struct qsc_error *err)
{
	struct qsc_migrate_plan_member *members = plan->members;
	uint32_t i;
	int result;

	*plan = (struct qsc_migrate_plan){.members = members};
	if (transport)
		return qsc_error_set(err, EOPNOTSUPP, NULL, "the destination cannot be asked");
	for (i = 0; i < user->num_regions; i++)
		plan->memory_bytes += user->regions[i].size;
	for (i = 0; members && i < qsc_set_count(set); i++) {
		result = describe_member(set, i, &members[i], err);
		if (result < 0)
			return result;
	}
	return qsc_set_plan(set, options ? options->quiesce : QSC_QUIESCE_NATIVE, &plan->set, err);
}
