/* SPDX-License-Identifier: MIT */
/* See user.h. */
#include "user.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "models.h"

/* A step that a device must do. */
#define MUST(call)                        \
	do {                              \
		if ((call) < 0)           \
			return -__LINE__; \
	} while (0)

static int request(struct qsc_device *dev, enum qsc_state target)
{
	uint64_t session;

	return qsc_device_set_state(dev, target, &session);
}

static int look(struct qsc_device *dev)
{
	uint32_t value;

	return qsc_device_region_read(dev, 0, 0, &value, 4) == 4 ? 0 : -EIO;
}

static int look_after(struct qsc_device *dev)
{
	enum qsc_state state;

	return qsc_device_get_state(dev, &state);
}

/* ---- setting up ---- */

static int open_one(struct user *user, uint64_t who, int i, struct qsc_device **dev)
{
	char spec[64];
	char name[16];
	struct qsc_device *inner;

	(void)snprintf(name, sizeof(name), "nic%d", i);
	(void)snprintf(spec, sizeof(spec), "dmacopy,memory=64K,flags=%u,name=%s", user->flags,
		       name);
	MUST(models_open(spec, NULL, &inner, NULL));
	return qsc_audit_open(user->audit, inner, name, who, dev);
}

static int map_memory(struct user *user, struct qsc_device *dev)
{
	const struct qsc_dma_mapping mapping = {
		.iova = USER_MEMORY_IOVA,
		.size = USER_MEMORY_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE,
		.vaddr = user->memory,
		.fd = -1,
	};

	return qsc_device_dma_map(dev, &mapping);
}

/* The first device writes to the second. */
static int map_peer(struct qsc_device *const dev[USER_DEVICES])
{
	struct qsc_dma_mapping mapping = {
		.iova = USER_PEER_IOVA,
		.size = USER_PEER_SIZE,
		.flags = QSC_DMA_READ | QSC_DMA_WRITE | QSC_DMA_PEER,
	};
	qsc_autoclose int fd = -1;

	MUST(qsc_device_region_fd(dev[1], 2, &fd, &mapping.fd_offset));
	mapping.fd = fd;
	return qsc_device_dma_map(dev[0], &mapping);
}

static bool revokes(const struct user *user)
{
	return !(user->flags & QSC_MIGRATION_P2P);
}

static int set_up(struct user *user)
{
	for (int i = 0; i < USER_DEVICES; i++) {
		MUST(open_one(user, 1, i, &user->from[i]));
		MUST(open_one(user, 2, i, &user->to[i]));
		MUST(map_memory(user, user->from[i]));
		MUST(qsc_device_set_eventfds(user->from[i], VFIO_PCI_MSIX_IRQ_INDEX, &user->irq,
					     1));
		MUST(look(user->from[i]));
	}
	return map_peer(user->from);
}

static int start_log(struct user *user)
{
	const struct qsc_dma_range range = {
		USER_MEMORY_IOVA,
		user->lie == LIE_LOG_PART ? USER_MEMORY_SIZE / 2 : USER_MEMORY_SIZE,
	};
	uint64_t page_size = 4096;

	if (user->lie == LIE_NO_LOG)
		return 0;
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(qsc_device_log_start(user->from[i], &page_size, &range, 1));
	return 0;
}

static int report_log(struct user *user)
{
	uint64_t bits[USER_MEMORY_SIZE / 4096 / 64 + 1] = {0};

	if (user->lie == LIE_NO_LOG || user->lie == LIE_LOG_UNREAD)
		return 0;
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(qsc_device_log_report(user->from[i], USER_MEMORY_IOVA, USER_MEMORY_SIZE, 4096,
					   bits));
	return 0;
}

/* ---- saving ---- */

static int save_some(struct user *user, int i)
{
	for (;;) {
		ssize_t n = qsc_device_session_read(user->from[i], user->saves[i],
						    user->stream[i] + user->size[i],
						    USER_STREAM - user->size[i]);

		if (n == -ENOMSG || !n)
			return 0;
		MUST(n);
		user->size[i] += (size_t)n;
	}
}

static int pre_copy(struct user *user)
{
	struct qsc_precopy_info info;

	if (!(user->flags & QSC_MIGRATION_PRE_COPY))
		return 0;
	for (int i = 0; i < USER_DEVICES; i++) {
		MUST(qsc_device_set_state(user->from[i], QSC_STATE_PRE_COPY, &user->saves[i]));
		if (user->lie == LIE_LEAVE_PRECOPY_BLIND)
			continue;
		MUST(qsc_device_session_precopy_info(user->from[i], user->saves[i], &info));
		if (user->lie != LIE_LEAVE_PRECOPY)
			MUST(save_some(user, i));
	}
	return 0;
}

static int stop_one(struct user *user, int i)
{
	uint64_t session;

	MUST(qsc_device_set_state(user->from[i], QSC_STATE_STOP_COPY, &session));
	if (session)
		user->saves[i] = session;
	return 0;
}

static int quiesce(struct user *user)
{
	bool saving = user->flags & QSC_MIGRATION_PRE_COPY;

	if (revokes(user))
		return user->lie == LIE_NOT_REVOKED
			       ? 0
			       : qsc_device_dma_unmap(user->from[0], USER_PEER_IOVA,
						      USER_PEER_SIZE);
	if (user->lie == LIE_STOP_FIRST)
		return stop_one(user, 1);
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(request(user->from[i],
			     saving ? QSC_STATE_PRE_COPY_P2P : QSC_STATE_RUNNING_P2P));
	return user->lie == LIE_REGISTER_P2P ? look(user->from[0]) : 0;
}

static int stop(struct user *user)
{
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(stop_one(user, i));
	if (user->lie == LIE_REGISTER_STOPPED)
		MUST(look(user->from[0]));
	MUST(report_log(user));
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(save_some(user, i));
	return 0;
}

static int give_up(struct user *user)
{
	for (int i = 0; i < USER_DEVICES; i++) {
		qsc_device_close(user->from[i]);
		user->from[i] = NULL;
	}
	return 0;
}

/* ---- loading ---- */

static int load(struct user *user, int i)
{
	const uint8_t command[2] = {6, 0};

	MUST(qsc_device_set_state(user->to[i], QSC_STATE_RESUMING, &user->loads[i]));
	if (user->lie == LIE_IRQS_RESUMING)
		MUST(qsc_device_set_eventfds(user->to[i], VFIO_PCI_MSIX_IRQ_INDEX, &user->irq, 1));
	if (user->lie == LIE_CONFIG_RESUMING)
		MUST(qsc_device_region_write(user->to[i], VFIO_PCI_CONFIG_REGION_INDEX, 4, command,
					     2));
	MUST(qsc_device_session_write(user->to[i], user->loads[i], user->stream[i], user->size[i]));
	return 0;
}

static int validate(struct user *user)
{
	for (int i = 0; i < USER_DEVICES; i++) {
		MUST(request(user->to[i], QSC_STATE_STOP));
		if (user->lie != LIE_IRQS_LATE && user->lie != LIE_IRQS_RESUMING)
			MUST(qsc_device_set_eventfds(user->to[i], VFIO_PCI_MSIX_IRQ_INDEX,
						     &user->irq, 1));
		if (user->lie != LIE_DMA_LATE)
			MUST(map_memory(user, user->to[i]));
	}
	return user->lie != LIE_DMA_LATE ? map_peer(user->to) : 0;
}

static int start(struct user *user)
{
	bool p2p = user->flags & QSC_MIGRATION_P2P;

	if (user->lie == LIE_RUN_EARLY)
		MUST(request(user->to[0], QSC_STATE_RUNNING));
	/* Who is reached runs before who reaches it. */
	for (int i = USER_DEVICES - 1; i >= 0; i--)
		if (user->lie != LIE_RUN_EARLY || i)
			MUST(request(user->to[i], p2p ? QSC_STATE_RUNNING_P2P : QSC_STATE_RUNNING));
	for (int i = 0; i < USER_DEVICES && user->lie == LIE_DMA_LATE; i++)
		MUST(map_memory(user, user->to[i]));
	if (user->lie == LIE_DMA_LATE)
		MUST(map_peer(user->to));
	for (int i = 0; i < USER_DEVICES && p2p; i++)
		MUST(request(user->to[i], QSC_STATE_RUNNING));
	for (int i = 0; i < USER_DEVICES; i++) {
		if (user->lie == LIE_IRQS_LATE)
			MUST(qsc_device_set_eventfds(user->to[i], VFIO_PCI_MSIX_IRQ_INDEX,
						     &user->irq, 1));
		MUST(look(user->to[i]));
	}
	return 0;
}

/* ---- ways that end elsewhere ---- */

/* The source runs again, as after a move that did not come about. */
static int roll_back(struct user *user)
{
	if (revokes(user) && user->lie != LIE_NOT_RESTORED)
		MUST(map_peer(user->from));
	for (int i = USER_DEVICES - 1; i >= 0; i--)
		MUST(request(user->from[i], (user->flags & QSC_MIGRATION_P2P)
						    ? QSC_STATE_RUNNING_P2P
						    : QSC_STATE_RUNNING));
	for (int i = 0; i < USER_DEVICES && (user->flags & QSC_MIGRATION_P2P); i++)
		MUST(request(user->from[i], QSC_STATE_RUNNING));
	return look(user->from[0]);
}

/* A stream that the destination must refuse: a byte in its middle is wrong. */
static int refused_load(struct user *user)
{
	user->stream[0][user->size[0] / 2] ^= 1;
	(void)load(user, 0);
	if (request(user->to[0], QSC_STATE_STOP) >= 0)
		return -__LINE__;
	MUST(look_after(user->to[0]));
	MUST(qsc_device_reset(user->to[0]));
	return user->lie == LIE_RESET_RUN ? look(user->to[0]) : 0;
}

/* The device cannot do what is asked for, and its user goes on all the same. */
static int guess(struct user *user)
{
	uint64_t session;

	if (qsc_device_set_state(user->from[0], QSC_STATE_PRE_COPY, &session) >= 0)
		return -__LINE__;
	return user->lie == LIE_GUESS_REGISTER
		       ? qsc_device_session_read(user->from[0], user->saves[0], user->stream[0],
						 1) < 0
		       : request(user->from[0], QSC_STATE_STOP_COPY);
}

static int failed_source(struct user *user)
{
	uint64_t session;

	if (qsc_device_set_state(user->from[0], QSC_STATE_PRE_COPY, &session) >= 0)
		return -__LINE__;
	MUST(look_after(user->from[0]));
	MUST(qsc_device_reset(user->from[0]));
	return look(user->from[0]);
}

static int load_and_run(struct user *user)
{
	for (int i = 0; i < USER_DEVICES; i++)
		MUST(load(user, i));
	if (user->lie == LIE_ABANDON)
		return 0;
	if (user->lie == LIE_GIVE_UP_EARLY)
		MUST(give_up(user));
	/* What has been reset runs as a device that nobody has written to: not a second owner. */
	for (int i = 0; i < USER_DEVICES && user->lie == LIE_RESET_EARLY; i++)
		MUST(qsc_device_reset(user->from[i]));
	MUST(validate(user));
	if (user->lie != LIE_TWO_OWNERS && user->lie != LIE_GIVE_UP_EARLY &&
	    user->lie != LIE_RESET_EARLY)
		MUST(give_up(user));
	MUST(start(user));
	return user->lie == LIE_TWO_OWNERS ? roll_back(user) : 0;
}

static int move(struct user *user)
{
	uint8_t byte;

	MUST(set_up(user));
	MUST(start_log(user));
	MUST(pre_copy(user));
	MUST(quiesce(user));
	MUST(stop(user));
	switch (user->lie) {
	case LIE_GUESS:
	case LIE_GUESS_REGISTER:
		return guess(user);
	case LIE_RESET_RUN_SOURCE:
		return failed_source(user);
	case LIE_RESET_RUN:
		return refused_load(user);
	case LIE_GIVE_UP_REFUSED:
		MUST(give_up(user));
		return refused_load(user);
	case LIE_NOT_RESTORED:
		return roll_back(user);
	case LIE_READ_ENDED:
		MUST(request(user->from[0], QSC_STATE_STOP));
		return qsc_device_session_read(user->from[0], user->saves[0], &byte, 1) == -ENODEV
			       ? 0
			       : -__LINE__;
	default:
		return load_and_run(user);
	}
}

int user_move(struct qsc_audit *audit, uint32_t flags, enum user_lie lie)
{
	struct user user = {.audit = audit, .flags = flags, .lie = lie, .irq = -1};
	int result = -__LINE__;

	user.irq = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	user.memory = aligned_alloc(4096, USER_MEMORY_SIZE);
	for (int i = 0; i < USER_DEVICES; i++)
		user.stream[i] = malloc(USER_STREAM);
	if (user.irq >= 0 && user.memory && user.stream[0] && user.stream[1])
		result = move(&user);
	for (int i = 0; i < USER_DEVICES; i++) {
		qsc_device_close(user.from[i]);
		qsc_device_close(user.to[i]);
		free(user.stream[i]);
	}
	free(user.memory);
	qsc_fd_close(&user.irq);
	return result;
}
