/* SPDX-License-Identifier: MIT */
/* What the parts of the vfio-user client share. */
#ifndef QSC_CLIENT_INTERNAL_H
#define QSC_CLIENT_INTERNAL_H

#include <pthread.h>

#include <quiesce/client.h>

#include "device/mapping.h"
#include "rpc/rpc.h"
#include "rpc/table.h"
#include "wire/version.h"

/* Most data in one message, whatever the server would take. */
#define QSC_CLIENT_XFER_MAX (4U << 20)
/* Of a dirty log, under way at once. */
#define QSC_CLIENT_BITMAP_MAX (1U << 20)
/* What the server may ask for in one DMA_READ or DMA_WRITE. */
#define QSC_CLIENT_DMA_MAX (1U << 20)
#define QSC_CLIENT_MSG_FDS 64

/* The file behind a region that this process has mapped. */
struct qsc_client_region {
	bool known;
	struct qsc_region_info info;
	int fd;
	uint64_t fd_offset;
};

/* A state change on its way. */
struct qsc_client_change {
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_feature feature;
		struct qsc_wire_mig_state state;
	} request;
	struct {
		struct qsc_wire_feature feature;
		struct qsc_wire_mig_state state;
	} reply;
	struct qsc_call call;
	uint32_t target;
	enum qsc_state before;
};

struct qsc_client {
	struct qsc_device dev;
	struct qsc_client_options options; /* no field 0 */
	struct qsc_rpc *rpc;
	struct qsc_rpc *twin;
	struct qsc_wire_caps caps; /* of the server; optional ones: of both */
	uint32_t xfer_size;

	pthread_mutex_t service_lock;
	pthread_t service; /* answers the server's commands */
	bool serving;

	pthread_rwlock_t table_lock; /* read: while memory is accessed for the server */
	struct qsc_dma_table table;
	uint8_t *bounce; /* QSC_CLIENT_DMA_MAX bytes, for memory that cannot be sent as it lies */

	pthread_mutex_t region_lock;
	struct qsc_client_region *regions;
	uint32_t num_regions;
	struct qsc_mappings mappings;

	/* One state change, reset or session call at a time; also guards what follows. */
	pthread_mutex_t state_lock;
	bool state_known; /* false: it has to be asked for (ORD-4) */
	enum qsc_state state;
	uint64_t session; /* the one that is open, or 0 */
	uint64_t last_session;
	struct qsc_client_change change;
	bool changing; /* it is under way: others wait */
	pthread_cond_t changed;

	pthread_mutex_t report_lock;
	void *report; /* QSC_CLIENT_BITMAP_MAX bytes: bitmaps before they are added to the user's */
};

static inline struct qsc_client *qsc_client_of(struct qsc_device *dev)
{
	return (struct qsc_client *)dev;
}

/*
 * One request of a fixed size, which begins with a header, and its reply of exactly reply_size
 * bytes. 0 or -errno: of the connection, or what the server answered.
 */
int qsc_client_request(struct qsc_client *client, uint16_t command, void *request,
		       size_t request_size, void *reply, size_t reply_size);

/* The server answered something that cannot be: give it up. Returns -EPROTO. */
int qsc_client_distrust(struct qsc_client *client, const char *what);

/* dma.c */
int qsc_client_dma_map(struct qsc_device *dev, const struct qsc_dma_mapping *mapping);
int qsc_client_dma_unmap(struct qsc_device *dev, uint64_t iova, uint64_t size);
qsc_rpc_command_fn qsc_client_on_command;
void qsc_client_release_table(struct qsc_client *client);

/* regions.c */
int qsc_client_get_info(struct qsc_device *dev, struct qsc_device_info *info);
int qsc_client_get_region_info(struct qsc_device *dev, uint32_t region,
			       struct qsc_region_info *info);
ssize_t qsc_client_region_read(struct qsc_device *dev, uint32_t region, uint64_t offset, void *buf,
			       size_t count);
ssize_t qsc_client_region_write(struct qsc_device *dev, uint32_t region, uint64_t offset,
				const void *buf, size_t count);
int qsc_client_region_write_multi(struct qsc_device *dev, const struct qsc_region_write *writes,
				  size_t count);
int qsc_client_region_map(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			  int prot, void **addr);
int qsc_client_region_unmap(struct qsc_device *dev, void *addr, size_t size);
int qsc_client_region_change(struct qsc_device *dev, void *addr, size_t size, int prot);
int qsc_client_region_fd(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset);
int qsc_client_region_io_fds(struct qsc_device *dev, uint32_t region, struct qsc_io_fd *fds,
			     size_t max);
void qsc_client_release_regions(struct qsc_client *client);

/* irqs.c */
int qsc_client_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info);
int qsc_client_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set);

/* migration.c */
int qsc_client_get_migration(struct qsc_device *dev, struct qsc_migration_info *info);
int qsc_client_get_state(struct qsc_device *dev, enum qsc_state *state);
int qsc_client_set_state(struct qsc_device *dev, uint32_t target, uint64_t *session);
int qsc_client_set_state_begin(struct qsc_device *dev, uint32_t target);
int qsc_client_set_state_end(struct qsc_device *dev, uint64_t *session);
/* Take the state lock when no state change is under way. */
void qsc_client_lock_state(struct qsc_client *client);
int qsc_client_data_size(struct qsc_device *dev, uint64_t *size_bytes);
int qsc_client_session_precopy_info(struct qsc_device *dev, uint64_t session,
				    struct qsc_precopy_info *info);
int qsc_client_reset(struct qsc_device *dev);

/* session.c */
ssize_t qsc_client_session_read(struct qsc_device *dev, uint64_t session, void *buf, size_t size);
ssize_t qsc_client_session_write(struct qsc_device *dev, uint64_t session, const void *buf,
				 size_t size);
int qsc_client_session_close(struct qsc_device *dev, uint64_t session);

/* log.c */
int qsc_client_log_start(struct qsc_device *dev, uint64_t *page_size,
			 const struct qsc_dma_range *ranges, size_t num_ranges);
int qsc_client_log_stop(struct qsc_device *dev);
int qsc_client_log_report(struct qsc_device *dev, uint64_t iova, uint64_t size, uint64_t page_size,
			  uint64_t *bitmap);

#endif
