/* SPDX-License-Identifier: MIT */
/*
 * A child that holds a set of devices and a tenant, as a VMM would: it opens the devices of its
 * side, gives them the tenant's memory and one another's, and moves the lot with the migration
 * engine when told to. The main thread takes orders and runs the engine; the tenant has its own.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <quiesce/client.h>
#include <quiesce/set.h>

#include "demo.h"
#include "dmacopy/dmacopy.h"

#define DOWNTIME_LIMIT_US  50000
#define STALL_TIMEOUT_MS   10000
#define REQUEST_TIMEOUT_MS 20000

struct host {
	const struct demo_shared *shared;
	const struct tenant_config *config;
	struct demo_live *live;
	enum demo_side side;
	int socket;
	/* While it has the set, or is taking it over. */
	struct tenant *tenant;
	struct qsc_device **devices;
	struct qsc_timeline *timeline;
	struct qsc_set *set;
	bool told; /* that the tenant has finished or failed */
};

static uint64_t now_us(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx);
}

static void tell(const struct host *host, enum demo_event event, uint32_t migration)
{
	struct demo_message message = {.event = event, .migration = migration};

	demo_send(host->socket, &message);
}

/* Let go of everything: the servers reset what was left stopped (STATE-5). */
static void release(struct host *host)
{
	uint32_t i;

	/* The tenant's thread uses the devices, and they use its memory. */
	tenant_end(host->tenant);
	qsc_set_destroy(host->set);
	host->set = NULL;
	for (i = 0; i < host->config->devices; i++) {
		qsc_device_close(host->devices[i]);
		host->devices[i] = NULL;
	}
	tenant_destroy(host->tenant);
	host->tenant = NULL;
	host->told = false;
	qsc_timeline_destroy(host->timeline);
	host->timeline = NULL;
}

static int open_devices(struct host *host, struct qsc_error *err)
{
	struct qsc_client_options options = {.request_timeout_ms = REQUEST_TIMEOUT_MS};
	char path[DEMO_PATH_SIZE], uri[DEMO_PATH_SIZE + 16], name[32];
	uint32_t i;
	int result;

	for (i = 0; i < host->config->devices; i++) {
		demo_device_path(host->shared, host->side, i, path);
		(void)snprintf(uri, sizeof(uri), "vfio-user:%s", path);
		(void)snprintf(name, sizeof(name), "%u", i);
		result = qsc_client_open(uri, &options, &host->devices[i], err);
		if (result == 0)
			result = qsc_set_add(host->set, name, host->devices[i], err);
		if (result < 0) {
			qsc_error_prefix(err, "device %u on side %c: ", i,
					 demo_side_name(host->side));
			return result;
		}
	}
	return 0;
}

/* Everybody reaches the tenant's memory, and each engine the next one's. */
static int map_all(struct host *host, struct qsc_error *err)
{
	struct qsc_dma_mapping memory;
	uint32_t i;
	int result = 0;

	tenant_memory(host->tenant, &memory);
	for (i = 0; i < host->config->devices && !result; i++)
		result = qsc_set_dma_map(host->set, i, &memory, err);
	for (i = 0; i + 1 < host->config->devices && !result; i++) {
		struct qsc_peer_mapping peer = {
			.iova = TENANT_PEER_IOVA,
			.size = host->config->state_bytes,
			.flags = QSC_DMA_WRITE,
			.peer = i + 1,
			.region = DMACOPY_BAR_LOCAL,
		};

		result = qsc_set_map_peer(host->set, i, &peer, err);
	}
	return result;
}

static int acquire(struct host *host, struct qsc_error *err)
{
	int result = tenant_create(host->config, &host->live->tenant, &host->tenant, err);

	if (result < 0)
		return result;
	result = qsc_timeline_create(&host->timeline);
	if (!result)
		result = qsc_set_create(NULL, host->timeline, &host->set);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "cannot make a set: %s",
				     strerror(-result));
	result = open_devices(host, err);
	if (!result)
		result = map_all(host, err);
	if (!result)
		tenant_attach(host->tenant, host->devices);
	return result;
}

/* ---- moving ---- */

static int on_progress(void *ctx, const struct qsc_migrate_progress *progress)
{
	struct host *host = ctx;

	atomic_store(&host->live->phase, progress->phase);
	atomic_store(&host->live->pass, progress->pass);
	atomic_store(&host->live->bytes_sent, progress->bytes_sent);
	atomic_store(&host->live->bytes_remaining, progress->bytes_remaining);
	return tenant_failure(host->tenant, NULL) < 0;
}

/* What happened since `since_us`: the timeline of a set that came and goes holds both moves. */
static void send_timeline(const struct host *host, uint32_t migration, bool source,
			  uint64_t since_us)
{
	const struct qsc_phase *phases;
	size_t i, count = qsc_timeline_phases(host->timeline, &phases);

	for (i = 0; i < count; i++) {
		struct demo_message message = {
			.event = DEMO_EVENT_PHASE,
			.migration = migration,
			.phase =
				{
					.migration = migration,
					.side = host->side,
					.source = source,
					.device = phases[i].member == QSC_TIMELINE_ALL
							  ? -1
							  : (int32_t)phases[i].member,
					.start_us = phases[i].start_us,
					.duration_us = phases[i].duration_us,
					.bytes = phases[i].bytes,
				},
		};

		if (phases[i].start_us < since_us)
			continue;
		(void)snprintf(message.phase.name, sizeof(message.phase.name), "%s",
			       phases[i].name);
		demo_send(host->socket, &message);
	}
}

/* For a person: how things stood when it failed. One that was too slow is not asked again. */
static void note_states(const struct host *host, struct demo_moved *moved)
{
	uint32_t i;

	moved->has_states = moved->error.number != ETIMEDOUT;
	for (i = 0; i < host->config->devices && moved->has_states; i++) {
		enum qsc_state state;

		moved->states[i] = DEMO_STATE_UNKNOWN;
		if (host->devices[i] && qsc_device_get_state(host->devices[i], &state) == 0)
			moved->states[i] = (uint8_t)state;
	}
}

static void report_moved(struct host *host, uint32_t migration, bool source,
			 const struct qsc_migrate_report *report, const struct qsc_error *err)
{
	struct demo_message message = {
		.event = DEMO_EVENT_MOVED,
		.migration = migration,
		.moved = {.source = source, .report = *report},
	};

	message.moved.stopped = !host->tenant || tenant_is_paused(host->tenant);
	demo_error_copy(&message.moved.error, err);
	if (err->number)
		note_states(host, &message.moved);
	atomic_store(&host->live->phase, NULL);
	demo_send(host->socket, &message);
}

static struct qsc_migrate_options engine_options(struct host *host)
{
	return (struct qsc_migrate_options){
		.timeline = host->timeline,
		/* What the demo's flags leave out is made good by revoking. */
		.quiesce = QSC_QUIESCE_AUTO,
		.downtime_limit_us = DOWNTIME_LIMIT_US,
		.exceed_downtime = true,
		.stall_timeout_ms = STALL_TIMEOUT_MS,
		.progress = on_progress,
		.progress_ctx = host,
	};
}

static void send_set(struct host *host, uint32_t migration)
{
	struct qsc_migrate_options options = engine_options(host);
	struct qsc_transport *transport = NULL;
	struct qsc_migrate_report report = {0};
	struct qsc_error err = QSC_ERROR_NONE;
	char path[DEMO_PATH_SIZE];
	uint64_t since_us = now_us();
	int result;

	demo_migration_path(host->shared, migration, path);
	result = qsc_transport_unix_connect(path, &transport, &err);
	if (!result)
		result = qsc_migrate_send(host->set, tenant_user(host->tenant), transport, &options,
					  &report, &err);
	qsc_transport_close(transport);
	if (!result) {
		struct qsc_error broken = QSC_ERROR_NONE;

		if (tenant_check_given_up(host->tenant, &broken) >= 0)
			demo_send_error(host->socket, DEMO_EVENT_VIOLATION, &broken);
	} else if (!err.number) {
		(void)qsc_error_set(&err, -result, NULL, "%s", strerror(-result));
	}
	send_timeline(host, migration, true, since_us);
	report_moved(host, migration, true, &report, &err);
	if (report.owner != QSC_OWNER_SOURCE)
		release(host);
}

static void receive_set(struct host *host, uint32_t migration)
{
	struct qsc_migrate_options options;
	struct qsc_transport *transport = NULL;
	struct qsc_migrate_report report = {.owner = QSC_OWNER_SOURCE};
	struct qsc_error err = QSC_ERROR_NONE;
	char path[DEMO_PATH_SIZE];
	uint64_t since_us = now_us();
	int result = acquire(host, &err);

	demo_migration_path(host->shared, migration, path);
	if (!result)
		result = qsc_transport_unix_listen(path, &transport, &err);
	if (!result) {
		options = engine_options(host);
		tell(host, DEMO_EVENT_LISTENING, migration);
		result = qsc_migrate_receive(host->set, tenant_user(host->tenant), transport,
					     &options, &report, &err);
	}
	qsc_transport_close(transport);
	if (result < 0 && !err.number)
		(void)qsc_error_set(&err, -result, NULL, "%s", strerror(-result));
	if (host->timeline)
		send_timeline(host, migration, false, since_us);
	report_moved(host, migration, false, &report, &err);
	if (result < 0)
		release(host);
}

/* ---- orders ---- */

static void begin(struct host *host)
{
	struct qsc_error err = QSC_ERROR_NONE;
	int result = acquire(host, &err);

	if (!result)
		result = tenant_begin(host->tenant, &err);
	if (result < 0) {
		release(host);
		demo_send_error(host->socket, DEMO_EVENT_FAILED, &err);
		return;
	}
	tell(host, DEMO_EVENT_BEGUN, 0);
}

static void obey(struct host *host, const struct demo_command *command)
{
	switch (command->order) {
	case DEMO_ORDER_BEGIN:
		begin(host);
		break;
	case DEMO_ORDER_RECEIVE:
		receive_set(host, command->migration);
		break;
	case DEMO_ORDER_SEND:
		if (host->tenant)
			send_set(host, command->migration);
		break;
	case DEMO_ORDER_FINISH:
		if (host->tenant)
			tenant_finish(host->tenant);
		break;
	}
}

static void on_tenant_event(struct host *host)
{
	struct demo_message message = {.event = DEMO_EVENT_RESULT};
	struct qsc_error err = QSC_ERROR_NONE;

	host->told = true;
	if (tenant_failure(host->tenant, &err) < 0) {
		demo_send_error(host->socket, DEMO_EVENT_FAILED, &err);
		return;
	}
	tenant_get_result(host->tenant, &message.result);
	demo_send(host->socket, &message);
}

int demo_host(const struct demo_shared *shared, enum demo_side side, int socket)
{
	struct host host = {
		.shared = shared,
		.config = &shared->config.tenant,
		.live = &shared->live[side],
		.side = side,
		.socket = socket,
		.devices = calloc(shared->config.tenant.devices, sizeof(struct qsc_device *)),
	};

	if (!host.devices)
		return 1;
	tell(&host, DEMO_EVENT_READY, 0);
	for (;;) {
		struct pollfd polls[2] = {
			{.fd = socket, .events = POLLIN},
			{.fd = -1, .events = POLLIN},
		};
		struct demo_command command;

		if (host.tenant && !host.told)
			polls[1].fd = tenant_event_fd(host.tenant);
		if (poll(polls, 2, -1) < 0)
			continue;
		if (polls[1].revents)
			on_tenant_event(&host);
		if (!polls[0].revents)
			continue;
		if (recv(socket, &command, sizeof(command), 0) != (ssize_t)sizeof(command))
			break;
		obey(&host, &command);
	}
	release(&host);
	free(host.devices);
	return 0;
}
