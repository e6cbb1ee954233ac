/* SPDX-License-Identifier: MIT */
/* See tenant.h. */
#include "tenant.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include <linux/vfio.h>

#include "baton.h"

#include "base/cleanup.h"
#include "base/fd.h"

/* Pages: statuses, then what goes in, then what comes out, a page a slot. */
#define PAGE_STATUS 0U
#define PAGE_IN(s)  (1U + (s))
#define PAGE_OUT(s) (1U + SIM_SLOTS + (s))

static uint8_t byte_of(uint32_t block, uint32_t i)
{
	return (uint8_t)((block * 2654435761U + i * 97U) >> 5 ^ block);
}

static uint32_t length_of(uint32_t block)
{
	return 300 + block * 997U % 2000;
}

static uint8_t *page(struct sim_tenant *tenant, uint32_t number)
{
	return tenant->memory + number * QSC_PAGE_SIZE;
}

static uint64_t page_iova(uint32_t number)
{
	return SIM_MEMORY_IOVA + number * QSC_PAGE_SIZE;
}

static uint32_t status_offset(uint32_t member, uint32_t slot)
{
	return (member * SIM_SLOTS + slot) * 4;
}

static void wrong(struct sim_tenant *tenant, const char *what, uint32_t slot)
{
	if (!tenant->wrong[0])
		(void)snprintf(tenant->wrong, sizeof(tenant->wrong), "%s: slot %u block %u step %u",
			       what, slot, tenant->state.slots[slot].block,
			       tenant->state.slots[slot].stage);
}

void sim_tenant_open(struct sim_tenant *tenant)
{
	uint32_t m;
	uint32_t s;

	for (m = 0; m < tenant->members; m++)
		for (s = 0; s < SIM_SLOTS; s++) {
			tenant->irqs[m][s] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
			if (tenant->irqs[m][s] < 0)
				abort();
		}
}

void sim_tenant_close(struct sim_tenant *tenant)
{
	uint32_t m;
	uint32_t s;

	for (m = 0; m < tenant->members; m++)
		for (s = 0; s < SIM_SLOTS; s++)
			qsc_fd_close(&tenant->irqs[m][s]);
}

static uint32_t member_of(const struct sim_tenant *tenant, uint32_t stage)
{
	return stage == 0 ? 0 : stage - 1;
}

static void write_register(struct sim_tenant *tenant, uint32_t member, uint32_t slot,
			   uint32_t offset, uint64_t value, size_t size)
{
	if (qsc_device_region_write(tenant->devices[member], VFIO_PCI_BAR0_REGION_INDEX,
				    slot * SIM_REGS + offset, &value, size) != (ssize_t)size)
		wrong(tenant, "a register was not written", slot);
}

static void issue(struct sim_tenant *tenant, uint32_t slot)
{
	uint32_t stage = tenant->state.slots[slot].stage;
	uint32_t member = member_of(tenant, stage);
	uint64_t iova = SIM_PEER_IOVA + stage * SIM_PEER_SPAN + (uint64_t)slot * SIM_SLOT_BYTES;

	if (stage == 0)
		iova = page_iova(PAGE_IN(slot));
	else if (stage == tenant->members)
		iova = page_iova(PAGE_OUT(slot));
	tenant->state.slots[slot].irqs = 0;
	write_register(tenant, member, slot, SIM_REG_KIND, stage == 0 ? SIM_READ : SIM_WRITE, 4);
	write_register(tenant, member, slot, SIM_REG_LENGTH,
		       length_of(tenant->state.slots[slot].block), 4);
	write_register(tenant, member, slot, SIM_REG_IOVA, iova, 8);
	write_register(tenant, member, slot, SIM_REG_STATUS,
		       page_iova(PAGE_STATUS) + status_offset(member, slot), 8);
	write_register(tenant, member, slot, SIM_REG_GO, 1, 4);
}

static void begin(struct sim_tenant *tenant, uint32_t slot)
{
	uint32_t block = tenant->state.next_block++;
	uint8_t *in = page(tenant, PAGE_IN(slot));
	uint32_t i;

	for (i = 0; i < length_of(block); i++)
		in[i] = byte_of(block, i);
	tenant->dirty |= 1ULL << PAGE_IN(slot);
	tenant->state.slots[slot].busy = 1;
	tenant->state.slots[slot].block = block;
	tenant->state.slots[slot].stage = 0;
	issue(tenant, slot);
}

static void verify(struct sim_tenant *tenant, uint32_t slot)
{
	uint32_t block = tenant->state.slots[slot].block;
	uint8_t *out = page(tenant, PAGE_OUT(slot));
	uint32_t i;

	for (i = 0; i < length_of(block); i++)
		if (out[i] != byte_of(block, i)) {
			wrong(tenant, "wrong data", slot);
			break;
		}
	/* So that data of this block is not taken for the next one's. */
	memset(out, 0, QSC_PAGE_SIZE);
	tenant->dirty |= 1ULL << PAGE_OUT(slot);
	tenant->state.slots[slot].busy = 0;
	tenant->state.done++;
}

static void take_irqs(struct sim_tenant *tenant, uint32_t slot)
{
	uint32_t working = member_of(tenant, tenant->state.slots[slot].stage);
	uint32_t m;

	for (m = 0; m < tenant->members; m++) {
		uint64_t count = qsc_eventfd_drain(tenant->irqs[m][slot]);

		if (count && (m != working || !tenant->state.slots[slot].busy))
			wrong(tenant, "an interrupt that nobody is waiting for", slot);
		if (m == working)
			tenant->state.slots[slot].irqs += (uint32_t)count;
	}
}

void sim_tenant_take_irqs(struct sim_tenant *tenant)
{
	uint32_t slot;

	for (slot = 0; slot < SIM_SLOTS; slot++)
		take_irqs(tenant, slot);
}

/* The command of a slot has raised its interrupt. */
static void complete(struct sim_tenant *tenant, uint32_t slot)
{
	uint32_t member = member_of(tenant, tenant->state.slots[slot].stage);
	uint8_t *at = page(tenant, PAGE_STATUS) + status_offset(member, slot);
	const uint32_t zero = 0;
	uint32_t status;

	if (tenant->state.slots[slot].irqs > 1)
		wrong(tenant, "an interrupt was doubled", slot);
	memcpy(&status, at, sizeof(status));
	if (!status)
		wrong(tenant, "an interrupt came without its status", slot);
	memcpy(at, &zero, sizeof(zero));
	tenant->dirty |= 1ULL << PAGE_STATUS;
	/* A peer mapping that was revoked meanwhile fails the transfer; it can be repeated. */
	if (status != SIM_FAILED)
		tenant->state.slots[slot].stage++;
	if (tenant->state.slots[slot].stage > tenant->members)
		verify(tenant, slot);
	else
		issue(tenant, slot);
}

bool sim_tenant_step(struct sim_tenant *tenant)
{
	uint32_t slot = (uint32_t)sim_random(SIM_SLOTS);

	take_irqs(tenant, slot);
	if (tenant->state.slots[slot].busy) {
		if (!tenant->state.slots[slot].irqs)
			return false;
		complete(tenant, slot);
		return true;
	}
	if (tenant->state.goal && tenant->state.done >= tenant->state.goal)
		return false;
	begin(tenant, slot);
	return true;
}

bool sim_tenant_idle(const struct sim_tenant *tenant)
{
	uint32_t slot;

	for (slot = 0; slot < SIM_SLOTS; slot++)
		if (tenant->state.slots[slot].busy)
			return false;
	return tenant->state.goal && tenant->state.done >= tenant->state.goal;
}
