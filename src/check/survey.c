/* SPDX-License-Identifier: MIT */
/*
 * What the harness owns, and the look at a device before anything is tried: what it has, who knows
 * its kind, and which of it can be used to see what the device does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "check/harness.h"
#include "device/layout.h"

static int shared_memory(const char *name, uint64_t size, int *fd, uint8_t **memory)
{
	void *addr;

	*fd = qsc_fd_memory(name, size);
	if (*fd < 0)
		return *fd;
	addr = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	if (addr == MAP_FAILED)
		return -errno;
	*memory = addr;
	return 0;
}

int harness_init(struct harness *h, const struct qsc_check_options *options)
{
	int r;

	*h = (struct harness){.options = options, .memory_fd = -1, .peer_fd = -1};
	for (size_t i = 0; i < HARNESS_VECTORS; i++)
		h->eventfds[i] = -1;
	r = shared_memory("check-memory", MEMORY_SIZE, &h->memory_fd, &h->memory);
	if (!r)
		r = shared_memory("check-peer", PEER_SIZE, &h->peer_fd, &h->peer);
	for (size_t i = 0; !r && i < HARNESS_VECTORS; i++) {
		h->eventfds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (h->eventfds[i] < 0)
			r = -errno;
	}
	h->shadow = malloc(MEMORY_SIZE + PEER_SIZE);
	if (!r && !h->shadow)
		r = -ENOMEM;
	if (r)
		return r;
	/* No two pages alike, and no byte equal to the zeroes of what is copied to. */
	for (uint64_t i = MEMORY_SOURCE; i < MEMORY_TARGET; i++)
		h->memory[i] = (uint8_t)(1 + (i * 7 + (i >> 12) * 13) % 255);
	return 0;
}

void harness_release(struct harness *h)
{
	if (h->memory)
		munmap(h->memory, MEMORY_SIZE);
	if (h->peer)
		munmap(h->peer, PEER_SIZE);
	qsc_fd_close(&h->memory_fd);
	qsc_fd_close(&h->peer_fd);
	for (size_t i = 0; i < HARNESS_VECTORS; i++)
		qsc_fd_close(&h->eventfds[i]);
	free(h->shadow);
}

/* ---- interrupts ---- */

static bool usable(struct harness *h, uint32_t index, struct qsc_irq_info *info)
{
	return !qsc_device_get_irq_info(h->dev, index, info) && info->count &&
	       (info->flags & VFIO_IRQ_INFO_EVENTFD);
}

/* Message-signalled ones: a line is level-triggered, and nobody here answers it. */
static void look_at_irqs(struct harness *h, const struct qsc_device_info *info)
{
	static const uint32_t wanted[] = {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX};
	struct qsc_irq_info irq;

	h->first_vector = 0;
	h->vectors = 0;
	for (size_t i = 0; h->is_pci && i < QSC_ARRAY_SIZE(wanted); i++)
		if (wanted[i] < info->num_irqs && usable(h, wanted[i], &irq)) {
			h->irq_index = wanted[i];
			h->vectors = irq.count < HARNESS_VECTORS ? irq.count : HARNESS_VECTORS;
			break;
		}
	if (h->exerciser && h->exerciser->submit && usable(h, h->exerciser->irq_index, &irq) &&
	    irq.count >= HARNESS_VECTORS &&
	    h->exerciser->first_vector <= irq.count - HARNESS_VECTORS) {
		h->irq_index = h->exerciser->irq_index;
		h->first_vector = h->exerciser->first_vector;
		h->vectors = HARNESS_VECTORS;
	}
	if (h->vectors && !harness_interrupts(h))
		h->can_trigger = !harness_trigger(h, 0, 1) && !harness_await(h, 0, 1);
	harness_all_signals(h);
}

/* ---- config space ---- */

static int config_access(struct harness *h, uint64_t offset, uint16_t *value, bool write)
{
	ssize_t n = write ? qsc_device_region_write(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, offset,
						    value, sizeof(*value))
			  : qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, offset,
						   value, sizeof(*value));

	return n == sizeof(*value) ? 0 : -EIO;
}

/* Bits that change when they are written, and back; 0 for none. */
static uint16_t config_bits(struct harness *h, uint64_t offset, uint16_t wanted, uint16_t *base)
{
	uint16_t other, found = 0, back = 0;

	if (config_access(h, offset, base, false))
		return 0;
	other = *base ^ wanted;
	if (config_access(h, offset, &other, true) || config_access(h, offset, &found, false) ||
	    config_access(h, offset, base, true) || config_access(h, offset, &back, false))
		return 0;
	return back == *base ? (uint16_t)((found ^ *base) & wanted) : 0;
}

static void look_at_config(struct harness *h)
{
	h->config_mask = 0;
	if (!h->is_pci)
		return;
	/* Not the bit without which there are no registers. */
	h->config_offset = PCI_COMMAND;
	h->config_mask = config_bits(h, PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE,
				     &h->config_base);
	if (h->config_mask)
		return;
	h->config_offset = PCI_INTERRUPT_LINE;
	h->config_mask = config_bits(h, PCI_INTERRUPT_LINE, 0xff, &h->config_base);
}

/* ---- who knows it ---- */

static void look_for_exerciser(struct harness *h, const struct qsc_device_info *info)
{
	const struct qsc_exerciser *const *known = h->options->exercisers;

	h->exerciser = NULL;
	for (; known && *known && !h->exerciser; known++)
		if ((*known)->knows(h->dev, info))
			h->exerciser = *known;
}

/* What it holds after a reset, also after a reset that had something to undo. */
static void look_at_register(struct harness *h)
{
	uint64_t found, other;

	h->register_resets = false;
	if (!harness_has_register(h) || harness_register_read(h, &h->register_blank))
		return;
	other = harness_register_fit(h, ~h->register_blank);
	if (!harness_register_write(h, other) && !harness_reset(h) &&
	    !harness_register_read(h, &found))
		h->register_resets = found == h->register_blank;
}

/* One who cannot make it work here is as good as none who knows work for it. */
static void look_for_work(struct harness *h)
{
	struct qsc_check_bench bench;

	h->unprepared[0] = '\0';
	if (!h->exerciser || !h->exerciser->prepare || harness_map(h))
		return;
	bench = harness_bench(h);
	if (harness_prepare(h, &bench))
		(void)snprintf(h->unprepared, sizeof(h->unprepared), "%.255s", h->trouble);
	qsc_device_reset(h->dev);
}

static void look_at_identity(struct harness *h, struct qsc_check_subject *subject,
			     const struct qsc_device_info *info)
{
	uint16_t ids[2];

	subject->kind = h->kind;
	memcpy(subject->type, info->layout.type, sizeof(subject->type));
	subject->type[sizeof(subject->type) - 1] = '\0';
	if (h->is_pci && qsc_device_region_read(h->dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, ids,
						sizeof(ids)) == sizeof(ids)) {
		subject->pci_vendor = ids[0];
		subject->pci_device = ids[1];
	}
}

static int look(struct harness *h, struct qsc_check_subject *subject, struct qsc_error *err)
{
	struct qsc_device_info info;
	struct qsc_migration_info migration;
	int r = qsc_device_get_info(h->dev, &info);

	if (r)
		return qsc_error_set(err, -r, NULL, "the device does not describe itself: %s",
				     strerror(-r));
	h->layout = info.layout;
	h->is_pci = info.flags & VFIO_DEVICE_FLAGS_PCI;
	h->num_regions = info.num_regions < HARNESS_REGIONS ? info.num_regions : HARNESS_REGIONS;
	for (uint32_t i = 0; i < h->num_regions; i++)
		if (qsc_device_get_region_info(h->dev, i, &h->regions[i]))
			h->regions[i] = (struct qsc_region_info){0};
	look_at_identity(h, subject, &info);
	r = qsc_device_get_migration(h->dev, &migration);
	h->no_flags = -r;
	if (!r) {
		subject->migrates = true;
		subject->flags = migration.flags;
		subject->dirty_log = migration.dirty_log;
	}
	qsc_device_reset(h->dev);
	look_for_exerciser(h, &info);
	subject->exerciser = h->exerciser ? h->exerciser->name : NULL;
	look_at_register(h);
	look_at_config(h);
	look_at_irqs(h, &info);
	look_for_work(h);
	return 0;
}

/* Whether a stream that is none leads to ERROR, the only way there that a user has. */
static void look_for_error(struct harness *h)
{
	h->error_reachable = true;
	if (!harness_start_in(h, QSC_STATE_ERROR))
		return;
	h->error_reachable = false;
}

static void note_reason(void *ctx, const char *reason)
{
	char *first = ctx;

	if (!first[0])
		(void)snprintf(first, sizeof(((struct qsc_error *)NULL)->text) / 2, "%s", reason);
}

/* A destination that is another kind of device breaks nothing by refusing what the first one saves.
 */
static int look_at_destination(struct harness *h, struct qsc_error *err)
{
	char reason[sizeof(err->text) / 2] = "";
	struct qsc_device_info info;
	int r = harness_open(h);

	if (!h->dev)
		return qsc_error_set(err, -r, NULL, "destination: %s", h->trouble);
	if (!qsc_device_get_info(h->dev, &info))
		qsc_layout_compare(&info.layout, &h->layout, note_reason, reason);
	harness_close(h);
	return reason[0] ? qsc_error_set(err, EINVAL, NULL,
					 "the destination cannot take what the device saves: %s",
					 reason)
			 : 0;
}

/* One that answers no more has neither kept nor broken anything. */
static int still_there(struct harness *h, const char *after, struct qsc_error *err)
{
	return harness_gone(h) ? qsc_error_set(err, ENOTCONN, NULL,
					       "the device is gone, it answers no more %s", after)
			       : 0;
}

/* It is held, and stays so. */
static int survey(struct harness *h, struct qsc_check_subject *subject, struct qsc_error *err)
{
	int r = look(h, subject, err);

	if (!r)
		r = still_there(h, "after it was asked what it is", err);
	if (r || !subject->migrates)
		return r;
	look_for_error(h);
	/* Nobody holds one that could not be opened again for that. */
	if (!h->dev)
		return qsc_error_set(err, ENOTCONN, NULL, "%s", h->trouble);
	return still_there(h, "after it was given a stream that is none", err);
}

int harness_survey(struct harness *h, struct qsc_check_subject *subject, struct qsc_error *err)
{
	int r;

	*subject = (struct qsc_check_subject){0};
	r = harness_open(h);
	if (!h->dev || (r && harness_gone(h)))
		r = qsc_error_set(err, -r, NULL, "%s", h->trouble);
	else
		r = survey(h, subject, err);
	if (h->dev)
		qsc_device_reset(h->dev);
	harness_close(h);
	if (r || !h->options->to.open)
		return r;
	h->opener = &h->options->to;
	r = look_at_destination(h, err);
	h->opener = &h->options->device;
	return r;
}
