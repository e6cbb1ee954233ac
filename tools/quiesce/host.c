/* SPDX-License-Identifier: MIT */
/* See host.h. This is the main thread: it hears everybody, decides, and tells what happened. */
#include "host.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <json-c/json.h>

#include "control.h"
#include "host_json.h"
#include "metrics.h"
#include "tool.h"

#define METRICS_MS 10000 /* for one who connects to ask for metrics, and for the next time */
#define BLOCKS_MS  1000	 /* between looks at what the tenant has moved, and who asks for metrics */

/* ---- metrics ---- */

/* As the devices say, while nothing moves; of those that are not open nothing is known. */
static void tell_states(struct host *host)
{
	if (!host->metrics)
		return;
	for (uint32_t i = 0; i < host->config->hold.num_devices; i++) {
		enum qsc_state state = QSC_STATE_COUNT;

		if (host->hold && qsc_device_get_state(host->hold->devices[i], &state) < 0)
			state = QSC_STATE_COUNT;
		metrics_set_state(host->metrics, i, state);
	}
}

static int begin_metrics(struct host *host, bool *wrong, struct qsc_error *err)
{
	const struct hold_config *config = &host->config->hold;
	const char *names[HOLD_MAX_DEVICES];
	int result = metrics_create(host->config->metrics, &host->metrics, err);

	*wrong = result < 0 && result != -EADDRINUSE && tool_path_is_wrong(-result);
	if (result < 0)
		return result;
	for (uint32_t i = 0; i < config->num_devices; i++)
		names[i] = config->devices[i].name;
	result = metrics_set_devices(host->metrics, names, config->num_devices);
	return result < 0 ? qsc_error_set(err, -result, NULL, "no memory for metrics") : 0;
}

/* ---- the end ---- */

static void print_tenant(const struct host *host, const struct tenant_result *result)
{
	char moved[32], kept[32];

	if (host->config->json) {
		(void)tool_print_json(host_json_tenant(result));
		return;
	}
	printf("the tenant moved %llu blocks, %s; %s that nobody touched were compared; %llu bytes "
	       "wrong; %llu interrupts, %llu lost, %llu doubled\n",
	       (unsigned long long)result->blocks, tool_size_text(result->bytes_moved, moved),
	       tool_size_text(result->bytes_kept, kept), (unsigned long long)result->bytes_wrong,
	       (unsigned long long)result->interrupts, (unsigned long long)result->interrupts_lost,
	       (unsigned long long)result->interrupts_doubled);
}

/* The tenant has finished, or could not go on. */
static void on_tenant(struct host *host, struct tenant *tenant)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct tenant_result result;

	host->over = true;
	if (tenant_failure(tenant, &err) < 0) {
		host->code = tool_fail_error(&err, "the tenant cannot go on");
		return;
	}
	tenant_get_result(tenant, &result);
	print_tenant(host, &result);
	if (result.bytes_wrong || result.interrupts_lost || result.interrupts_doubled)
		host->code = TOOL_FAILED;
}

/* The tenant compares everything before the host ends; what moves is cancelled first. */
static void finish(struct host *host)
{
	host->finishing = true;
	if (host->working) {
		atomic_store(&host->cancelled, true);
		return;
	}
	if (host->state == HOST_UNPROVED)
		host->code = TOOL_UNPROVED;
	else if (host->state == HOST_BROKEN)
		host->code = TOOL_FAILED;
	if (host->state == HOST_RUNNING && host->hold && host->hold->tenant)
		tenant_finish(host->hold->tenant);
	else
		host->over = true;
}

/* ---- what happened, to those who watch ---- */

/* A command sees its own request; what is a host and nothing else sees them all. */
static void tell(struct host *host, struct json_object *event, bool last)
{
	if (!event)
		return;
	if (host->own || host->watch_all)
		host->watch(host->watch_ctx, event);
	if (host->control)
		control_tell(host->control, event, last);
	json_object_put(event);
}

/* A person said that the set is this one's. */
static void end_of_doubt(struct host *host)
{
	if (host->end_code == TOOL_OK)
		host->code = TOOL_OK;
	if (host->watch_all)
		return;
	if (host->end_code == TOOL_OK)
		(void)fprintf(stderr, "%s: the set runs here; holding it until SIGTERM or SIGINT\n",
			      tool_name);
	else
		(void)tool_fail_error(&host->end_err, "the set does not run");
}

static void end_request(struct host *host)
{
	bool brought = host->request.verb == REQUEST_RECEIVE ||
		       host->request.verb == REQUEST_RESTORE;

	pthread_join(host->worker, NULL);
	host->working = false;
	tell_states(host);
	if (host->moved)
		metrics_moved(host->metrics, &host->move);
	tell(host,
	     host_json_end(host->end_code, &host->end_err, host->moved ? &host->move : NULL,
			   host->plan),
	     true);
	host->plan = NULL;
	if (host->request.verb == REQUEST_RUN)
		end_of_doubt(host);
	request_release(&host->request);
	if (host->own) {
		host->code = host->end_code;
		/* What may be the only copy of the set is not let go without a person's word. */
		host->over = host->state != HOST_UNPROVED && (host->code != TOOL_OK || !brought);
	}
	host->own = false;
	if (host->finishing && !host->over)
		finish(host);
}

static void on_wake(struct host *host)
{
	struct json_object *begin = NULL, *listening = NULL, *progress = NULL;
	eventfd_t count;
	bool done;

	(void)eventfd_read(host->wake_fd, &count);
	pthread_mutex_lock(&host->lock);
	if (host->tell_begin)
		begin = host_json_begin(&host->move);
	if (host->tell_listening)
		listening = host_json_listening(host->listening);
	if (host->tell_sample) {
		progress = host_json_progress(&host->sample);
		metrics_progress(host->metrics, &host->move, &host->sample);
	}
	done = host->done;
	/* A second wake may follow the news that it is for: they are told once. */
	host->tell_begin = host->tell_listening = host->tell_sample = host->done = false;
	pthread_mutex_unlock(&host->lock);
	tell(host, begin, false);
	tell(host, listening, false);
	tell(host, progress, false);
	if (done)
		end_request(host);
}

/* ---- requests ---- */

static void refuse(struct control_client *client, int code, const struct qsc_error *err)
{
	control_send(client, host_json_end(code, err, NULL, NULL));
}

/* It becomes this host's, or stays the caller's with -errno. */
static int begin_request(struct host *host, struct request *request, struct qsc_error *err)
{
	int result = host_work_check(host, request, err);

	if (result < 0)
		return result;
	result = host_work_start(host, request);
	return result < 0 ? qsc_error_set(err, -result, NULL, "cannot begin: %s", strerror(-result))
			  : 0;
}

static int order(struct host *host, struct control_client *client, struct request *request,
		 struct qsc_error *err)
{
	int result = 0;

	switch (request->verb) {
	case REQUEST_STATUS:
		break;
	case REQUEST_WATCH:
		control_watch(client);
		break;
	case REQUEST_CANCEL:
		if (!host->working)
			return qsc_error_set(err, EALREADY, NULL, "there is nothing to cancel");
		atomic_store(&host->cancelled, true);
		break;
	case REQUEST_FINISH:
		finish(host);
		break;
	default:
		result = begin_request(host, request, err);
		if (!result)
			control_follow(client);
		return result;
	}
	control_send(client, host_json_status(host));
	return 0;
}

static void on_request(void *ctx, struct control_client *client, struct json_object *object)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct host *host = ctx;
	struct request request;
	int result = request_from_json(object, &request, &err);

	/* Numbers of files are the asking process's, not ours. */
	if (!result && request.transport && !strncmp(request.transport, "fd:", 3))
		result = qsc_error_set(&err, EINVAL, NULL,
				       "a host cannot use a pipe of the command; name a FILE");
	if (result < 0)
		refuse(client, TOOL_USAGE, &err);
	else if (order(host, client, &request, &err) < 0)
		refuse(client, TOOL_FAILED, &err);
	request_release(&request);
}

/* ---- life ---- */

/* As 'quiesce ask run', for a host without a control socket. */
static void run_on_signal(struct host *host)
{
	struct request request = {.verb = REQUEST_RUN};
	struct qsc_error err = QSC_ERROR_NONE;

	if (begin_request(host, &request, &err) < 0)
		(void)tool_fail_error(&err, "SIGUSR1 runs nothing");
}

static void on_signal(struct host *host)
{
	struct signalfd_siginfo info;

	if (read(host->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info) || host->finishing)
		return;
	if (info.ssi_signo == SIGUSR1)
		run_on_signal(host);
	else
		finish(host);
}

static void loop(struct host *host)
{
	while (!host->over) {
		/* While it works, the set is the worker's. */
		struct tenant *tenant = !host->working && host->hold ? host->hold->tenant : NULL;
		struct pollfd polls[] = {
			{.fd = host->signal_fd, .events = POLLIN},
			{.fd = host->wake_fd, .events = POLLIN},
			{.fd = host->control ? control_fd(host->control) : -1, .events = POLLIN},
			{.fd = tenant ? tenant_event_fd(tenant) : -1, .events = POLLIN},
		};

		if (tenant)
			metrics_set_blocks(host->metrics, atomic_load(&host->hold->live.blocks));
		if (poll(polls, sizeof(polls) / sizeof(polls[0]), host->metrics ? BLOCKS_MS : -1) <
		    0)
			continue;
		metrics_look(host->metrics, METRICS_MS);
		if (polls[3].revents)
			on_tenant(host, tenant);
		if (polls[0].revents)
			on_signal(host);
		if (polls[1].revents)
			on_wake(host);
		if (polls[2].revents)
			control_step(host->control);
	}
}

/* Threads begin with the signals blocked, so that only the loop gets them. */
static int take_signals(struct host *host, struct qsc_error *err)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigaddset(&signals, SIGUSR1);
	(void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	host->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	host->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (host->signal_fd < 0 || host->wake_fd < 0)
		return qsc_error_set(err, errno, NULL, "cannot wait for events: %s",
				     strerror(errno));
	return 0;
}

/* Who only wants to know what would be gets a set that nobody drives. */
static int begin_set(struct host *host, bool drive, bool *wrong, struct qsc_error *err)
{
	int result = hold_open(&host->config->hold, &host->hold, wrong, err);

	if (!result && drive)
		result = hold_begin(host->hold, err);
	if (!result)
		host->state = HOST_RUNNING;
	return result;
}

static int begin(struct host *host, struct request *request, bool *wrong, struct qsc_error *err)
{
	const struct host_config *config = host->config;
	bool empty = config->empty || (request && (request->verb == REQUEST_RECEIVE ||
						   request->verb == REQUEST_RESTORE));
	int result = take_signals(host, err);

	if (!result && config->control) {
		result = control_create(config->control, on_request, host, &host->control, err);
		*wrong = result < 0 && result != -EADDRINUSE && tool_path_is_wrong(-result);
	}
	if (!result && config->metrics)
		result = begin_metrics(host, wrong, err);
	if (!result && !empty)
		result = begin_set(host, !request || request->verb != REQUEST_PLAN, wrong, err);
	if (!result)
		tell_states(host);
	if (!result && request) {
		host->own = true;
		result = begin_request(host, request, err);
	}
	return result;
}

static void release(struct host *host)
{
	/* Nobody waits for the reset of what is let go. */
	control_destroy(host->control);
	metrics_destroy(host->metrics);
	hold_close(host->hold);
	move_release(&host->move);
	if (host->signal_fd >= 0)
		close(host->signal_fd);
	if (host->wake_fd >= 0)
		close(host->wake_fd);
	pthread_mutex_destroy(&host->lock);
}

static void say_ready(const struct host *host)
{
	const struct host_config *config = host->config;
	char size[32];

	printf("%s %u device%s and %s of memory", config->empty ? "room for" : "holding",
	       config->hold.num_devices, config->hold.num_devices == 1 ? "" : "s",
	       tool_size_text(config->hold.memory_bytes, size));
	if (config->control)
		printf("; requests at %s", config->control);
	if (host->metrics)
		printf("; metrics at %s", metrics_address(host->metrics));
	(void)putchar('\n');
	(void)fflush(stdout);
}

int host_run(const struct host_config *config, struct request *request,
	     void (*watch)(void *ctx, struct json_object *event), void *ctx)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct host host = {
		.config = config,
		.signal_fd = -1,
		.wake_fd = -1,
		.watch = watch,
		.watch_ctx = ctx,
		.watch_all = !request,
	};
	bool wrong = false;
	int result;

	pthread_mutex_init(&host.lock, NULL);
	tool_raise_file_limit();
	result = begin(&host, request, &wrong, &err);
	if (!result) {
		if (!request)
			say_ready(&host);
		loop(&host);
	}
	release(&host);
	if (result < 0 && wrong)
		tool_usage("%s", err.text);
	return result < 0 ? tool_fail_error(&err, "cannot hold the devices") : host.code;
}
