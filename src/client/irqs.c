/* SPDX-License-Identifier: MIT */
/* Interrupts: descriptions, and setting them up in as many messages as the server's limits ask. */
#include <errno.h>
#include <string.h>

#include <linux/vfio.h>

#include "base/cleanup.h"
#include "client/internal.h"

#define MAX_BOOLS 4096U /* in one message */

int qsc_client_get_irq_info(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	struct qsc_client *client = qsc_client_of(dev);
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_irq_info info;
	} request = {.info = {.argsz = sizeof(request.info), .index = index}};
	struct qsc_wire_irq_info reply;
	int result = qsc_client_request(client, QSC_WIRE_GET_IRQ_INFO, &request, sizeof(request),
					&reply, sizeof(reply));

	if (result < 0)
		return result;
	if (reply.index != index)
		return qsc_client_distrust(client, "DEVICE_GET_IRQ_INFO");
	info->flags = reply.flags;
	info->count = reply.count;
	return 0;
}

/* [first, first + count) of a set, with what belongs to it. */
static int send_part(struct qsc_client *client, const struct qsc_irq_set *set, uint32_t first,
		     uint32_t count, const int *fds, size_t num_fds)
{
	size_t bools = set->flags & VFIO_IRQ_SET_DATA_BOOL ? count : 0;
	struct {
		struct qsc_wire_header header;
		struct qsc_wire_irq_set set;
	} request = {.set = {.argsz = (uint32_t)(sizeof(request.set) + bools),
			     .flags = set->flags,
			     .index = set->index,
			     .start = set->start + first,
			     .count = count}};
	struct qsc_call call = {.command = QSC_WIRE_SET_IRQS};
	struct iovec iov[2] = {
		{.iov_base = &request, .iov_len = sizeof(request)},
		{.iov_base = bools ? (void *)(uintptr_t)(set->bools + first) : NULL,
		 .iov_len = bools},
	};
	int result = qsc_rpc_call(client->rpc, &call, iov, bools ? 2 : 1, fds, num_fds);

	return result < 0 ? result : call.result;
}

/* On the wire a message has a descriptor for every vector or for none of them. */
static int set_eventfds(struct qsc_client *client, const struct qsc_irq_set *set)
{
	uint32_t max = (uint32_t)qsc_min_u64(client->caps.max_msg_fds, QSC_STREAM_MAX_FDS);
	uint32_t first = 0;

	while (first < set->count) {
		bool some = set->fds[first] >= 0;
		uint32_t count = 1;
		int result;

		if (some && !max)
			return -ENOTSUP;
		while (first + count < set->count && (set->fds[first + count] >= 0) == some &&
		       (!some || count < max))
			count++;
		result = send_part(client, set, first, count, set->fds + first, some ? count : 0);
		if (result < 0)
			return result;
		first += count;
	}
	return 0;
}

int qsc_client_set_irqs(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	struct qsc_client *client = qsc_client_of(dev);
	uint32_t first;
	int result = 0;

	if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return set_eventfds(client, set);
	if (!(set->flags & VFIO_IRQ_SET_DATA_BOOL))
		return send_part(client, set, 0, set->count, NULL, 0);
	for (first = 0; first < set->count && !result; first += MAX_BOOLS)
		result = send_part(client, set, first,
				   (uint32_t)qsc_min_u64(set->count - first, MAX_BOOLS), NULL, 0);
	return result;
}
