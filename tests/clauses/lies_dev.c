/* SPDX-License-Identifier: MIT */
/* Lies about what a device does when it is not fully running: DEV-1 to DEV-8. */
#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/fd.h"
#include "liar.h"

static bool is_stopped(enum qsc_state state)
{
	return !qsc_state_is_active(state);
}

static bool is_user_trigger(const struct qsc_irq_set *set)
{
	return (set->flags & VFIO_IRQ_SET_DATA_NONE) && set->count;
}

/* ---- DEV-1 to DEV-5 ---- */

static int interrupt_in_stop_copy(struct qsc_device *dev, uint32_t index, struct qsc_irq_info *info)
{
	if (honest_state(dev) == QSC_STATE_STOP_COPY)
		signal_vector(dev);
	return qsc_device_get_irq_info(honest(dev), index, info);
}

static int deliver_in_p2p(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	if (!is_user_trigger(set) || set->start != 1 || !qsc_state_is_p2p(honest_state(dev)))
		return honest_set_irqs(dev, set);
	signal_vector(dev);
	return 0;
}

/* Counts saves since the device last ran or was loaded. */
static int count_saves(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	int r = honest_set_state(dev, target, session);

	if (r)
		return r;
	if (target == QSC_STATE_STOP_COPY)
		liar_device(dev)->count += *session != 0;
	else if (target != QSC_STATE_STOP)
		liar_device(dev)->count = 0;
	return 0;
}

static ssize_t drift(struct qsc_device *dev, uint64_t session, void *buf, size_t size)
{
	ssize_t n = qsc_device_session_read(honest(dev), session, buf, size);

	if (n > 0 && liar_device(dev)->count > 1)
		((uint8_t *)buf)[n / 2] ^= 1;
	return n;
}

static int give_other_memory(struct qsc_device *dev, uint32_t region, int *fd, uint64_t *fd_offset)
{
	struct qsc_region_info info;
	int r = qsc_device_get_region_info(honest(dev), region, &info);

	if (r || !(info.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return r ? r : -ENOTTY;
	*fd_offset = 0;
	*fd = qsc_fd_memory("not-the-device", info.size);
	return *fd < 0 ? *fd : 0;
}

/* ---- DEV-6 ---- */

static int swallow_trigger(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	if (is_user_trigger(set) && honest_state(dev) == QSC_STATE_STOP)
		return 0;
	return honest_set_irqs(dev, set);
}

static int note_trigger(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	if (is_user_trigger(set) && set->start == 1 && honest_state(dev) == QSC_STATE_STOP)
		liar_device(dev)->count++;
	return honest_set_irqs(dev, set);
}

static int deliver_again(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool stopped = is_stopped(honest_state(dev));
	int r = honest_set_state(dev, target, session);

	if (!r && stopped && target == QSC_STATE_RUNNING && liar_device(dev)->count) {
		signal_vector(dev);
		liar_device(dev)->count = 0;
	}
	return r;
}

static int listen_with(struct qsc_device *dev, int fd)
{
	struct qsc_irq_set set = {
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = liar_device(dev)->exerciser->irq_index,
		.start = 1,
		.count = 1,
		.fds = &fd,
	};

	return qsc_device_set_irqs(honest(dev), &set);
}

/* Somebody else listens when RUNNING is entered after a load: what was held and saved is lost. */
static int deaf_after_load(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct liar_device *l = liar_device(dev);
	bool resuming = honest_state(dev) == QSC_STATE_RESUMING;
	qsc_autoclose int nobody = -1;
	int r;

	if (l->armed && target == QSC_STATE_RUNNING) {
		nobody = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		listen_with(dev, nobody);
	}
	r = honest_set_state(dev, target, session);
	if (nobody >= 0) {
		listen_with(dev, l->eventfd);
		l->armed = false;
	}
	if (!r && resuming)
		l->armed = true;
	return r;
}

/* ---- DEV-7 ---- */

static ssize_t note_write(struct qsc_device *dev, uint32_t region, uint64_t offset, const void *buf,
			  size_t count)
{
	struct liar_device *l = liar_device(dev);

	if (honest_state(dev) == QSC_STATE_STOP && region == l->exerciser->register_region &&
	    offset == l->exerciser->register_offset && count == sizeof(l->value)) {
		memcpy(&l->value, buf, count);
		l->armed = true;
	}
	return qsc_device_region_write(honest(dev), region, offset, buf, count);
}

static int write_after_all(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	struct liar_device *l = liar_device(dev);
	int r = honest_set_state(dev, target, session);

	if (!r && l->armed && target == QSC_STATE_RUNNING) {
		l->armed = false;
		qsc_device_region_write(l->inner, l->exerciser->register_region,
					l->exerciser->register_offset, &l->value, sizeof(l->value));
	}
	return r;
}

static int map_for_good(struct qsc_device *dev, uint32_t region, uint64_t offset, size_t size,
			int prot, void **addr)
{
	qsc_autoclose int fd = -1;
	uint64_t start;
	int r = qsc_device_region_fd(honest(dev), region, &fd, &start);

	if (r)
		return r;
	*addr = mmap(NULL, size, prot, MAP_SHARED, fd, (off_t)(start + offset));
	return *addr == MAP_FAILED ? -ENOMEM : 0;
}

static int unmap_for_good(struct qsc_device *dev, void *addr, size_t size)
{
	return munmap(addr, size) ? -errno : 0;
}

/* ---- DEV-8 ---- */

static int frozen_interrupts(struct qsc_device *dev, const struct qsc_irq_set *set)
{
	if (!is_user_trigger(set) && honest_state(dev) == QSC_STATE_STOP_COPY)
		return -EINVAL;
	return honest_set_irqs(dev, set);
}

static int load_config(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool resuming = honest_state(dev) == QSC_STATE_RESUMING;
	int r = honest_set_state(dev, target, session);
	uint16_t command = 0;

	if (!r && resuming)
		qsc_device_region_write(honest(dev), VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND,
					&command, sizeof(command));
	return r;
}

static int load_interrupts(struct qsc_device *dev, uint32_t target, uint64_t *session)
{
	bool resuming = honest_state(dev) == QSC_STATE_RESUMING;
	int r = honest_set_state(dev, target, session);

	if (!r && resuming)
		qsc_device_set_eventfds(honest(dev), liar_device(dev)->exerciser->irq_index, NULL,
					0);
	return r;
}

const struct lie dev_lies[] = {
	{QSC_CLAUSE_DEV_1, "writes memory in STOP_COPY",
	 .fault = "region-write/STOP_COPY=scribble"},
	{QSC_CLAUSE_DEV_1, "writes memory in RESUMING", .fault = "region-write/RESUMING=scribble"},
	{QSC_CLAUSE_DEV_2, "raises an interrupt in STOP_COPY",
	 .ops.get_irq_info = interrupt_in_stop_copy},
	{QSC_CLAUSE_DEV_2, "delivers a trigger in the P2P states", QSC_MIGRATION_P2P,
	 .ops.set_irqs = deliver_in_p2p},
	{QSC_CLAUSE_DEV_3, "saves something else the second time", .ops.set_state = count_saves,
	 .ops.session_read = drift},
	{QSC_CLAUSE_DEV_4, "writes a peer's memory in the P2P states", QSC_MIGRATION_P2P,
	 .fault = "region-write/RUNNING_P2P=scribble:peer"},
	{QSC_CLAUSE_DEV_4, "writes memory in the P2P states, not knowing peers", QSC_MIGRATION_P2P,
	 .peers = LIE_NOT_TELLS, .fault = "region-write/RUNNING_P2P=scribble"},
	{QSC_CLAUSE_DEV_5, "gives peers other memory than its own", QSC_MIGRATION_P2P,
	 .ops.region_fd = give_other_memory},
	{QSC_CLAUSE_DEV_6, "never delivers what is triggered in STOP",
	 .ops.set_irqs = swallow_trigger},
	{QSC_CLAUSE_DEV_6, "delivers one too many of what was held back in STOP",
	 .ops.set_irqs = note_trigger, .ops.set_state = deliver_again},
	{QSC_CLAUSE_DEV_6, "loses what was held back, saved and loaded",
	 .ops.set_state = deaf_after_load},
	{QSC_CLAUSE_DEV_7, "reads as zeroes while stopped", .fault = "region-read:0/STOP=fill:0"},
	{QSC_CLAUSE_DEV_7, "faults on a read while stopped", .fault = "region-read:0/STOP=EIO"},
	{QSC_CLAUSE_DEV_7, "takes a register that was written in STOP",
	 .ops.region_write = note_write, .ops.set_state = write_after_all},
	{QSC_CLAUSE_DEV_7, "leaves mapped memory readable while stopped",
	 .local = "each end takes its own mappings away", .ops.region_map = map_for_good,
	 .ops.region_unmap = unmap_for_good},
	{QSC_CLAUSE_DEV_8, "refuses to change config space in STOP_COPY",
	 .fault = "region-write:7/STOP_COPY=EIO"},
	{QSC_CLAUSE_DEV_8, "refuses to set up interrupts in STOP_COPY",
	 .ops.set_irqs = frozen_interrupts},
	{QSC_CLAUSE_DEV_8, "changes config space when a stream is loaded",
	 .ops.set_state = load_config},
	{QSC_CLAUSE_DEV_8, "tears interrupts down when a stream is loaded",
	 .ops.set_state = load_interrupts},
	{.what = NULL},
};
