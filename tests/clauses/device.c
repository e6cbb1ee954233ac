/* SPDX-License-Identifier: MIT */
/* Making the devices, and holding them. */
#include "device.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/vfio.h>

#include <quiesce/client.h>
#include <quiesce/server.h>

#include "base/fd.h"
#include "dmacopy/dmacopy.h"
#include "dmacopy/exercise.h"

#define LOCAL_SIZE 65536

/* ---- holding it in this process ---- */

static int runtime_open(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct device *d = ctx;

	return qsc_runtime_open(d->rt, dev);
}

/* ---- and through a server ---- */

static int server_open(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	const struct qsc_check_opener *behind = ctx;

	return behind->open(behind->ctx, dev, err);
}

static void *serve(void *ctx)
{
	struct device *d = ctx;
	const struct qsc_server_options options = {
		.open = server_open,
		.open_ctx = (void *)(uintptr_t)d->behind,
	};

	qsc_server_serve_fd(&options, d->server_fd);
	return NULL;
}

static int served_open(void *ctx, struct qsc_device **dev, struct qsc_error *err)
{
	struct device *d = ctx;
	const struct qsc_client_options client = {.no_fds = d->config.way == DEVICE_SERVED_NO_FDS};
	int ends[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	d->server_fd = ends[1];
	r = -pthread_create(&d->server, NULL, serve, d);
	if (r) {
		qsc_fd_close(&ends[0]);
		qsc_fd_close(&ends[1]);
		return r;
	}
	r = qsc_client_open_fd(ends[0], &client, dev, NULL);
	if (r)
		pthread_join(d->server, NULL);
	return r;
}

/* The server lets go of the device when the connection has ended, and then it returns. */
static void served_closed(void *ctx)
{
	struct device *d = ctx;

	pthread_join(d->server, NULL);
}

/* ---- making it ---- */

static void count_violation(void *ctx, enum qsc_clause clause, const char *text)
{
	struct device *d = ctx;

	if (clause == QSC_CLAUSE_ORD_1)
		atomic_fetch_add(&d->violations, 1);
}

int device_create(struct device *d, const struct device_config *config, const struct lie *lie)
{
	const struct dmacopy_options options = {
		.migration_flags = config->flags,
		.tells_peers = config->tells_peers,
		.local_size = LOCAL_SIZE,
		.violation = count_violation,
		.violation_ctx = d,
	};
	int r;

	memset(d, 0, sizeof(*d));
	d->config = *config;
	r = dmacopy_create(&options, &d->rt, NULL);
	if (r)
		return r;
	d->runtime = (struct qsc_check_opener){runtime_open, NULL, d};
	d->behind = &d->runtime;
	if (lie) {
		liar_init(&d->liar, lie, &d->runtime, &dmacopy_exerciser);
		d->behind = &d->liar.opener;
	}
	d->served = (struct qsc_check_opener){served_open, served_closed, d};
	d->opener = config->way == DEVICE_IN_PROCESS ? *d->behind : d->served;
	return 0;
}

void device_destroy(struct device *d)
{
	liar_release(&d->liar);
	qsc_runtime_destroy(d->rt);
}

/* ---- streams of other devices ---- */

static void other_reset(void *ctx)
{
}

static int other_read(void *ctx, uint32_t region, uint64_t offset, void *buf, size_t count)
{
	memset(buf, 0, count);
	return 0;
}

static int other_write(void *ctx, uint32_t region, uint64_t offset, const void *buf, size_t count)
{
	return 0;
}

static int save_all(struct qsc_runtime *rt, struct saved *stream)
{
	struct qsc_device *dev;
	uint64_t session;
	uint8_t piece[4096];
	ssize_t n = 0;
	int r = qsc_runtime_open(rt, &dev);

	if (r)
		return r;
	r = qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session);
	while (!r && (n = qsc_device_session_read(dev, session, piece, sizeof(piece))) > 0)
		r = saved_append(stream, piece, (size_t)n);
	qsc_device_close(dev);
	return r ? r : (int)n;
}

static int save_other(const char *type, struct saved *stream)
{
	const struct qsc_model model = {
		.type = type,
		.pci = {.vendor = 0x5143, .device = 0x1},
		.reset = other_reset,
		.region_read = other_read,
		.region_write = other_write,
	};
	const struct qsc_region_desc region = {
		.index = VFIO_PCI_BAR0_REGION_INDEX,
		.size = 4096,
		.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
		.block = QSC_NO_BLOCK,
	};
	const struct qsc_runtime_options options = {
		.migration_flags = QSC_MIGRATION_STOP_COPY,
		.regions = &region,
		.num_regions = 1,
	};
	struct qsc_runtime *rt;
	int r = qsc_runtime_create(&model, NULL, &options, &rt, NULL);

	if (r)
		return r;
	r = save_all(rt, stream);
	qsc_runtime_destroy(rt);
	return r;
}

int device_foreign(struct qsc_check_foreign foreign[DEVICE_FOREIGN])
{
	const struct dmacopy_options larger = {
		.migration_flags = QSC_MIGRATION_STOP_COPY,
		.local_size = (uint64_t)LOCAL_SIZE * 2,
	};
	struct saved streams[DEVICE_FOREIGN] = {{0}};
	struct qsc_runtime *rt;
	int r;

	memset(foreign, 0, DEVICE_FOREIGN * sizeof(*foreign));
	foreign[0].what = "a stream of another type of device";
	foreign[1].what = "a stream of its type with another layout";
	foreign[2].what = "a stream of a dmacopy with more memory";
	r = save_other("other", &streams[0]);
	if (!r)
		r = save_other("dmacopy", &streams[1]);
	if (!r)
		r = dmacopy_create(&larger, &rt, NULL);
	if (r)
		return r;
	r = save_all(rt, &streams[2]);
	qsc_runtime_destroy(rt);
	for (size_t i = 0; i < DEVICE_FOREIGN; i++) {
		foreign[i].data = streams[i].data;
		foreign[i].size = streams[i].size;
	}
	return r;
}

void device_foreign_release(struct qsc_check_foreign foreign[DEVICE_FOREIGN])
{
	for (size_t i = 0; i < DEVICE_FOREIGN; i++)
		free((void *)(uintptr_t)foreign[i].data);
}
