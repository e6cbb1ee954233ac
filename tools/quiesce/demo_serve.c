/* SPDX-License-Identifier: MIT */
/*
 * A child that is one device: a dmacopy engine served over vfio-user. It outlives its users: each
 * host in turn opens it, and finds it reset when the one before let go of it stopped (STATE-5).
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <quiesce/runtime.h>
#include <quiesce/server.h>

#include "demo.h"
#include "dmacopy/dmacopy.h"

struct service {
	int socket;
	char name[32];
	struct qsc_runtime *rt;
};

static void on_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	const struct service *service = ctx;
	struct qsc_error err = QSC_ERROR_NONE;

	(void)qsc_error_set(&err, EPROTO, qsc_clause_id(clause), "%s: %s", service->name, text);
	demo_send_error(service->socket, DEMO_EVENT_VIOLATION, &err);
}

static int open_device(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	const struct service *service = ctx;
	int result = qsc_runtime_open(service->rt, dev);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "%s cannot be opened: %s", service->name,
				     strerror(-result));
	return 0;
}

int demo_serve(const struct demo_shared *shared, enum demo_side side, uint32_t device, int socket)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct service service = {.socket = socket};
	struct dmacopy_options options = {
		.name = service.name,
		.migration_flags = shared->config.flags,
		.tells_peers = shared->config.tells_peers,
		.local_size = shared->config.tenant.state_bytes,
		.vectors = TENANT_SLOTS,
		.violation = on_violation,
		.violation_ctx = &service,
	};
	struct qsc_server_options server_options = {.open = open_device, .open_ctx = &service};
	struct demo_message ready = {.event = DEMO_EVENT_READY};
	struct qsc_server *server = NULL;
	char path[DEMO_PATH_SIZE];
	int result;

	(void)snprintf(service.name, sizeof(service.name), "device %u on side %c", device,
		       demo_side_name(side));
	demo_device_path(shared, side, device, path);
	result = dmacopy_create(&options, &service.rt, &err);
	if (!result)
		result = qsc_server_create(path, &server_options, &server, &err);
	if (result < 0) {
		demo_send_error(socket, DEMO_EVENT_FAILED, &err);
		return 1;
	}
	demo_send(socket, &ready);
	result = qsc_server_run(server);
	qsc_server_destroy(server);
	qsc_runtime_destroy(service.rt);
	return result < 0;
}
