/* SPDX-License-Identifier: MIT */
/*
 * The thread that carries one request out. While it runs it alone uses the set; what it has to tell
 * it leaves in the host, under the lock, and wakes the main thread.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "host.h"
#include "tool.h"

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

static void wake(struct host *host, bool *what)
{
	pthread_mutex_lock(&host->lock);
	*what = true;
	pthread_mutex_unlock(&host->lock);
	(void)eventfd_write(host->wake_fd, 1);
}

static void set_state(struct host *host, enum host_state state)
{
	pthread_mutex_lock(&host->lock);
	host->state = state;
	pthread_mutex_unlock(&host->lock);
}

/* ---- what the engine is told ---- */

static int on_progress(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct host *host = ctx;

	if (host->moved) {
		pthread_mutex_lock(&host->lock);
		(void)move_add_sample(&host->move, progress);
		move_sample_set(&host->sample, progress);
		pthread_mutex_unlock(&host->lock);
		wake(host, &host->tell_sample);
	}
	if (host->hold->tenant && tenant_failure(host->hold->tenant, NULL) < 0)
		return 1;
	return atomic_load(&host->cancelled);
}

void host_engine_options(struct host *host, struct qsc_migrate_options *options)
{
	*options = (struct qsc_migrate_options){
		.timeline = host->hold->timeline,
		/* Whoever waits for a set waits until told otherwise. */
		.wait_timeout_ms = UINT32_MAX,
		.progress = on_progress,
		.progress_ctx = host,
	};
	request_migrate_options(&host->request, options);
}

static void advise(struct qsc_error *err, const char *options)
{
	size_t used = strlen(err->text);

	(void)snprintf(err->text + used, sizeof(err->text) - used, "%s", options);
}

int host_open_transport(const struct request *request, struct qsc_transport **transport,
			bool *wrong, struct qsc_error *err)
{
	struct qsc_transport_options options = request_transport_options(request);
	bool source = request->verb != REQUEST_RECEIVE && request->verb != REQUEST_RESTORE;
	int result = qsc_transport_open(request->transport,
					source ? QSC_TRANSPORT_SOURCE : QSC_TRANSPORT_DESTINATION,
					&options, transport, err);

	*wrong = result < 0 && tool_path_is_wrong(-result);
	if (result == -EPERM && !request->plaintext && !strncmp(request->transport, "tcp:", 4))
		advise(err, " (--plaintext)");
	return result;
}

/* The library speaks of its options, and a person has those of the command. */
void host_advise(struct host *host, struct qsc_error *err)
{
	const char *text = err->text;

	if (err->clause && !strcmp(err->clause, "SET-3") && !host->request.quiesce &&
	    qsc_set_plan(host->hold->set, QSC_QUIESCE_AUTO, NULL, NULL) == 0)
		advise(err, " with --quiesce=auto on both sides");
	else if (err->number == ETIME)
		advise(err, " (--exceed)");
	else if (err->number == ETIMEDOUT && strstr(text, " ms were over"))
		advise(err, " (--timeout, --bandwidth, --downtime-limit)");
	else if (err->number == ETIMEDOUT &&
		 (strstr(text, "nothing moved ") || strstr(text, "waiting for ")))
		advise(err, "; --stall-timeout says how long the other side is waited for");
	else if (err->number == EMEDIUMTYPE && strstr(text, "the user is "))
		advise(err, ": start both sides with the same --tenant, on devices of the "
			    "same sizes");
}

/* ---- what is kept of a move ---- */

static enum move_verb verb_of(enum request_verb verb)
{
	static const enum move_verb verbs[] = {
		[REQUEST_SEND] = MOVE_SEND,
		[REQUEST_RECEIVE] = MOVE_RECEIVE,
		[REQUEST_SAVE] = MOVE_SAVE,
		[REQUEST_RESTORE] = MOVE_RESTORE,
	};

	return verbs[verb];
}

static int describe_devices(struct host *host)
{
	const struct hold_config *config = &host->config->hold;
	struct move *move = &host->move;

	move->devices = calloc(config->num_devices, sizeof(*move->devices));
	if (!move->devices)
		return -ENOMEM;
	move->num_devices = config->num_devices;
	for (uint32_t i = 0; i < config->num_devices; i++) {
		struct move_device *device = &move->devices[i];

		(void)snprintf(device->name, sizeof(device->name), "%s", config->devices[i].name);
		(void)snprintf(device->uri, sizeof(device->uri), "%s", config->devices[i].uri);
		device->flags = qsc_set_flags(host->hold->set, i);
	}
	return 0;
}

/* The set is there; from here on there is a move to tell of. */
static int begin_move(struct host *host, struct qsc_error *err)
{
	struct qsc_migrate_options options;
	struct move *move = &host->move;
	struct qsc_set_plan plan;
	int result = hold_renew_memory(host->hold, err);

	if (result < 0)
		return result;
	host_engine_options(host, &options);
	pthread_mutex_lock(&host->lock);
	*move = (struct move){
		.verb = verb_of(host->request.verb),
		.started_at = (uint64_t)time(NULL),
		.start_us = now_us(),
		.memory_bytes = host->config->hold.memory_bytes,
		.downtime_limit_us = options.downtime_limit_us,
		.bandwidth = options.bandwidth,
		.report = {.owner = QSC_OWNER_SOURCE},
	};
	/* The source's, which does not say it. */
	if (move->verb == MOVE_RECEIVE || move->verb == MOVE_RESTORE)
		move->downtime_limit_us = 0;
	(void)snprintf(move->transport, sizeof(move->transport), "%s", host->request.transport);
	(void)gethostname(move->host, sizeof(move->host) - 1);
	/* What refuses here refuses the move too, and is said then. */
	if (qsc_set_plan(host->hold->set, options.quiesce, &plan, NULL) == 0)
		(void)snprintf(move->plan, sizeof(move->plan), "%s", plan.reason);
	result = describe_devices(host);
	host->moved = result == 0;
	pthread_mutex_unlock(&host->lock);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "no memory for a move");
	wake(host, &host->tell_begin);
	return 0;
}

static void end_move(struct host *host, const struct qsc_migrate_report *report)
{
	const struct qsc_error *err = &host->end_err;
	struct move *move = &host->move;

	pthread_mutex_lock(&host->lock);
	move->report = *report;
	move->error_number = err->number;
	(void)snprintf(move->error_clause, sizeof(move->error_clause), "%s",
		       err->clause ? err->clause : "");
	(void)snprintf(move->error_text, sizeof(move->error_text), "%s", err->text);
	(void)move_take_timeline(move, host->hold->timeline);
	move->ended = true;
	host->end_code = move_exit_code(move);
	pthread_mutex_unlock(&host->lock);
}

/* ---- the requests ---- */

static void let_go(struct host *host)
{
	hold_close(host->hold);
	host->hold = NULL;
	set_state(host, HOST_EMPTY);
}

/* Still ours, but does it run? */
static enum host_state own_state(const struct host *host)
{
	enum qsc_state state;

	for (uint32_t i = 0; i < host->config->hold.num_devices; i++)
		if (qsc_device_get_state(host->hold->devices[i], &state) < 0 ||
		    state != QSC_STATE_RUNNING)
			return HOST_BROKEN;
	if (host->hold->tenant && tenant_is_paused(host->hold->tenant))
		return HOST_BROKEN;
	return HOST_RUNNING;
}

/* The tenant, which has gone, sees whether a device did something after the stop. */
static void check_given_up(struct host *host)
{
	struct qsc_error broken = QSC_ERROR_NONE;

	if (!host->hold->tenant || tenant_check_given_up(host->hold->tenant, &broken) < 0)
		return;
	qsc_error_prefix(&broken, "the set has moved, and here ");
	host->end_err = broken;
	host->end_code = TOOL_FAILED;
}

static void send_set(struct host *host, bool *wrong)
{
	struct qsc_migrate_report report = {.owner = QSC_OWNER_SOURCE};
	struct qsc_error *err = &host->end_err;
	struct qsc_transport *transport = NULL;
	struct qsc_migrate_options options;
	int result = host_open_transport(&host->request, &transport, wrong, err);

	if (!result)
		result = begin_move(host, err);
	if (!result) {
		host_engine_options(host, &options);
		result = qsc_migrate_send(host->hold->set, hold_user(host->hold), transport,
					  &options, &report, err);
		if (result < 0 && !err->number)
			(void)qsc_error_set(err, -result, NULL, "%s", strerror(-result));
		host_advise(host, err);
		end_move(host, &report);
		if (report.owner == QSC_OWNER_SOURCE)
			set_state(host, own_state(host));
		else if (report.owner == QSC_OWNER_UNPROVED)
			set_state(host, HOST_UNPROVED);
	}
	qsc_transport_close(transport);
	if (!host->moved || report.owner != QSC_OWNER_DESTINATION)
		return;
	check_given_up(host);
	let_go(host);
}

static void tell_listening(struct host *host, const struct qsc_transport *transport)
{
	char address[128];

	pthread_mutex_lock(&host->lock);
	if (qsc_transport_address(transport, address, sizeof(address)) == 0)
		(void)snprintf(host->listening, sizeof(host->listening), "%.4s%s",
			       host->request.transport, address);
	else
		(void)snprintf(host->listening, sizeof(host->listening), "%s",
			       host->request.transport);
	pthread_mutex_unlock(&host->lock);
	wake(host, &host->tell_listening);
}

/* What this side's own devices refuse, no source can mend: nobody is to come in vain. */
static int plan_alone(struct host *host, struct qsc_error *err)
{
	struct qsc_migrate_options options;
	int result;

	host_engine_options(host, &options);
	result = qsc_set_plan(host->hold->set, options.quiesce, NULL, err);
	if (result < 0)
		host_advise(host, err);
	return result;
}

static void receive_set(struct host *host, bool *wrong)
{
	struct qsc_migrate_report report = {.owner = QSC_OWNER_SOURCE};
	struct qsc_error *err = &host->end_err;
	struct qsc_transport *transport = NULL;
	struct qsc_migrate_options options;
	int result = host_open_transport(&host->request, &transport, wrong, err);

	if (!result)
		result = hold_open(&host->config->hold, &host->hold, wrong, err);
	if (!result)
		result = plan_alone(host, err);
	if (!result)
		result = begin_move(host, err);
	if (!result) {
		host_engine_options(host, &options);
		tell_listening(host, transport);
		result = qsc_migrate_receive(host->hold->set, hold_user(host->hold), transport,
					     &options, &report, err);
		if (result < 0 && !err->number)
			(void)qsc_error_set(err, -result, NULL, "%s", strerror(-result));
		host_advise(host, err);
		end_move(host, &report);
	}
	qsc_transport_close(transport);
	if (!result)
		set_state(host, HOST_RUNNING);
	else if (host->hold && report.owner == QSC_OWNER_UNPROVED)
		set_state(host, HOST_UNPROVED);
	else
		let_go(host);
}

/* A person knows that nobody else has it. */
static void run_set(struct host *host)
{
	struct qsc_error *err = &host->end_err;
	const struct qsc_migrate_user *user = hold_user(host->hold);
	int result = qsc_set_run(host->hold->set, err);

	if (!result) {
		result = user->resume(user->ctx);
		if (result < 0)
			(void)qsc_error_set(err, -result, NULL, "the tenant does not go on: %s",
					    strerror(-result));
	}
	set_state(host, result < 0 ? HOST_BROKEN : HOST_RUNNING);
}

static void *work(void *arg)
{
	struct host *host = arg;
	bool wrong = false;

	switch (host->request.verb) {
	case REQUEST_SEND:
	case REQUEST_SAVE:
		send_set(host, &wrong);
		break;
	case REQUEST_RECEIVE:
	case REQUEST_RESTORE:
		receive_set(host, &wrong);
		break;
	case REQUEST_RUN:
		run_set(host);
		break;
	default:
		(void)host_plan(host, &host->plan, &wrong, &host->end_err);
	}
	if (host->end_err.number && host->end_code == TOOL_OK)
		host->end_code = wrong ? TOOL_USAGE : TOOL_FAILED;
	wake(host, &host->done);
	return NULL;
}

int host_work_check(const struct host *host, const struct request *request, struct qsc_error *err)
{
	bool comes = request->verb == REQUEST_RECEIVE || request->verb == REQUEST_RESTORE;

	if (host->finishing)
		return qsc_error_set(err, ESHUTDOWN, NULL, "the host is finishing");
	if (host->working)
		return qsc_error_set(err, EBUSY, NULL,
				     "the host is busy with '%s': wait for it, or cancel it",
				     request_verb_name(host->request.verb));
	if (comes && host->hold)
		return qsc_error_set(err, EEXIST, NULL,
				     "the host has a set already: send it away, or ask a host that "
				     "was started with --empty");
	if (comes)
		return 0;
	if (!host->hold)
		return qsc_error_set(err, ENODEV, NULL, "the host has no set");
	if (request->verb == REQUEST_RUN && host->state == HOST_RUNNING)
		return qsc_error_set(err, EALREADY, NULL,
				     "the set runs here: it is not one that nobody is proved to "
				     "own, or that could not be brought back");
	if (host->state == HOST_UNPROVED && request->verb != REQUEST_RUN)
		return qsc_error_set(err, EBUSY, "SET-5",
				     "nobody is proved to own the set: look whether the other side "
				     "runs; if not, 'quiesce ask run' starts it here");
	return 0;
}

int host_work_start(struct host *host, struct request *request)
{
	int result;

	move_release(&host->move);
	host->move = (struct move){0};
	host->moved = false;
	host->end_code = TOOL_OK;
	host->end_err = (struct qsc_error)QSC_ERROR_NONE;
	atomic_store(&host->cancelled, false);
	host->request = *request;
	result = -pthread_create(&host->worker, NULL, work, host);
	if (result < 0) {
		host->request = (struct request){0};
		return result;
	}
	host->working = true;
	*request = (struct request){0};
	return 0;
}
