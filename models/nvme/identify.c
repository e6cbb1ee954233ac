/* SPDX-License-Identifier: MIT */
/*
 * What the controller says it is: data structures of the Identify command, and log pages. Offsets
 * are those of the specification.
 */
#include <stdio.h>
#include <string.h>

#include "nvme/controller.h"

#define MODEL	 "Quiesce NVMe"
#define FIRMWARE "1.0"

#define CNS_NAMESPACE	   0x00
#define CNS_CONTROLLER	   0x01
#define CNS_LIST	   0x02
#define CNS_DESCRIPTORS	   0x03
#define CNS_SET_NAMESPACE  0x05
#define CNS_SET_CONTROLLER 0x06
#define CNS_SET_LIST	   0x07
#define CNS_INDEPENDENT	   0x08

static void put16(uint8_t *at, uint16_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	memcpy(at, &value, sizeof(value));
}

static void put_text(uint8_t *at, size_t size, const char *text)
{
	memset(at, ' ', size);
	memcpy(at, text, strnlen(text, size));
}

/* A UUID (version 8: of our own making) that follows from the serial number. */
static void uuid_make(const struct state *state, uint8_t uuid[16])
{
	for (uint32_t half = 0; half < 2; half++) {
		uint64_t hash = 0xcbf29ce484222325ULL + half;

		for (uint32_t i = 0; i < NVME_SERIAL_SIZE; i++)
			hash = (hash ^ state->serial[i]) * 0x100000001b3ULL;
		put64(uuid + (size_t)half * 8, hash);
	}
	uuid[6] = (uint8_t)((uuid[6] & 0x0f) | 0x80);
	uuid[8] = (uint8_t)((uuid[8] & 0x3f) | 0x80);
}

static void put_nqn(const struct state *state, uint8_t *at)
{
	char text[128];
	uint8_t uuid[16];
	int length;

	uuid_make(state, uuid);
	length = snprintf(text, sizeof(text), "nqn.2014-08.org.nvmexpress:uuid:");
	for (uint32_t i = 0; i < 16; i++)
		length += snprintf(text + length, sizeof(text) - (size_t)length, "%s%02x",
				   i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
	memcpy(at, text, (size_t)length);
}

static void put_controller(const struct controller *ctrl, uint8_t *data)
{
	put16(data + 0, NVME_PCI_VENDOR);
	put16(data + 2, NVME_PCI_VENDOR);
	memcpy(data + 4, ctrl->state->serial, NVME_SERIAL_SIZE);
	put_text(data + 24, 40, MODEL);
	put_text(data + 64, 8, FIRMWARE);
	data[77] = TRANSFER_SHIFT;
	put32(data + 80, NVME_VERSION);
	data[111] = 1;			      /* CNTRLTYPE: I/O */
	data[258] = 3;			      /* ACL */
	data[259] = EVENT_REQUESTS - 1;	      /* AERL */
	data[260] = 1U << 1 | 1;	      /* FRMW: one slot, read only */
	data[261] = 1U << 1 | 1U << 2;	      /* LPA: effects, extended data */
	data[262] = ERROR_ENTRIES - 1;	      /* ELPE */
	put16(data + 266, 343);		      /* WCTEMP */
	put16(data + 268, 373);		      /* CCTEMP */
	data[512] = 0x66;		      /* SQES */
	data[513] = 0x44;		      /* CQES */
	put32(data + 516, 1);		      /* NN */
	put16(data + 520, 1U << 2 | 1U << 3); /* ONCS: dataset management, write zeroes */
	data[525] = 1U | 3U << 1;	      /* VWC: there, and flush takes any namespace */
	put_nqn(ctrl->state, data + 768);
	put16(data + 2048, 100); /* PSD0: maximum power, of 10 mW */
}

static void put_namespace(const struct controller *ctrl, uint8_t *data)
{
	uint64_t blocks = ctrl->media.size >> BLOCK_SHIFT;

	put64(data + 0, blocks);
	put64(data + 8, blocks);
	put64(data + 16, blocks);
	data[33] = 1 | 1U << 3;		    /* DLFEAT: zeroes, also by write zeroes */
	data[99] = ctrl->media.readonly;    /* NSATTR: write protected */
	uuid_make(ctrl->state, data + 104); /* NGUID */
	data[128 + 2] = BLOCK_SHIFT;	    /* LBAF0: size of a block */
}

static void put_descriptors(const struct controller *ctrl, uint8_t *data)
{
	data[0] = 3; /* UUID */
	data[1] = 16;
	uuid_make(ctrl->state, data + 4);
	data[20] = 4; /* command set: NVM */
	data[21] = 1;
}

static uint32_t put_list(uint32_t above, uint8_t *data)
{
	if (above >= 0xfffffffe)
		return NVME_SC_INVALID_NAMESPACE;
	if (above < 1)
		put32(data, 1);
	return NVME_SC_SUCCESS;
}

uint32_t nvme_identify(const struct controller *ctrl, const struct nvme_command *command,
		       uint8_t *data)
{
	uint32_t nsid = command->nsid;
	uint32_t cns = command->cdw10 & 0xff;
	bool other_set = command->cdw11 >> 24;

	memset(data, 0, 4096);
	if (cns >= CNS_SET_NAMESPACE && cns <= CNS_SET_LIST && other_set)
		return NVME_SC_INVALID_FIELD;
	switch (cns) {
	case CNS_CONTROLLER:
		put_controller(ctrl, data);
		return NVME_SC_SUCCESS;
	/* Nothing that is not zero. */
	case CNS_SET_CONTROLLER:
		return NVME_SC_SUCCESS;
	case CNS_LIST:
	case CNS_SET_LIST:
		return put_list(nsid, data);
	case CNS_NAMESPACE:
	case CNS_DESCRIPTORS:
	case CNS_SET_NAMESPACE:
	case CNS_INDEPENDENT:
		break;
	default:
		return NVME_SC_INVALID_FIELD;
	}
	/* What all namespaces have in common is told of the one. */
	if (nsid != 1 && !(cns == CNS_NAMESPACE && nsid == UINT32_MAX))
		return NVME_SC_INVALID_NAMESPACE;
	if (cns == CNS_NAMESPACE)
		put_namespace(ctrl, data);
	else if (cns == CNS_DESCRIPTORS)
		put_descriptors(ctrl, data);
	else if (cns == CNS_INDEPENDENT) {
		data[3] = ctrl->media.readonly; /* NSATTR */
		data[14] = 1;			/* NSTAT: ready */
	}
	return NVME_SC_SUCCESS;
}

/* ---- log pages ---- */

static size_t log_errors(const struct state *state, uint8_t *data)
{
	/* The latest first. */
	for (uint32_t i = 0; i < ERROR_ENTRIES && i < state->errors; i++) {
		const struct error_entry *entry =
			&state->error_log[(state->errors - i) % ERROR_ENTRIES];
		uint8_t *at = data + (size_t)i * 64;

		put64(at, entry->count);
		put16(at + 8, (uint16_t)entry->sqid);
		put16(at + 10, (uint16_t)entry->cid);
		put16(at + 12, (uint16_t)(entry->status << 1));
		put16(at + 14, 0xffff); /* no place in the command is to blame alone */
		put64(at + 16, entry->lba);
		put32(at + 24, entry->nsid);
	}
	return (size_t)ERROR_ENTRIES * 64;
}

static size_t log_smart(const struct state *state, uint8_t *data)
{
	data[0] = (uint8_t)nvme_smart_warning(state);
	put16(data + 1, TEMPERATURE);
	data[3] = 100; /* spare, percent */
	data[4] = 10;  /* and below which it would be an event */
	/* In thousands of 512 bytes, rounded up. */
	put64(data + 32, (state->bytes_read + 511999) / 512000);
	put64(data + 48, (state->bytes_written + 511999) / 512000);
	put64(data + 64, state->reads);
	put64(data + 80, state->writes);
	put64(data + 176, state->errors);
	return 512;
}

static size_t log_effects(uint8_t *data)
{
	static const uint8_t admin[] = {NVME_ADMIN_DELETE_SQ,	 NVME_ADMIN_CREATE_SQ,
					NVME_ADMIN_GET_LOG_PAGE, NVME_ADMIN_DELETE_CQ,
					NVME_ADMIN_CREATE_CQ,	 NVME_ADMIN_IDENTIFY,
					NVME_ADMIN_ABORT,	 NVME_ADMIN_SET_FEATURES,
					NVME_ADMIN_GET_FEATURES, NVME_ADMIN_ASYNC_EVENT};
	static const uint8_t changing[] = {NVME_IO_WRITE, NVME_IO_WRITE_ZEROES,
					   NVME_IO_DATASET_MANAGEMENT};

	for (size_t i = 0; i < sizeof(admin); i++)
		put32(data + (size_t)admin[i] * 4, 1);
	put32(data + 1024 + (size_t)NVME_IO_FLUSH * 4, 1);
	put32(data + 1024 + (size_t)NVME_IO_READ * 4, 1);
	for (size_t i = 0; i < sizeof(changing); i++)
		put32(data + 1024 + (size_t)changing[i] * 4, 1 | 1U << 1 /* contents change */);
	return 4096;
}

size_t nvme_log_page(const struct controller *ctrl, uint32_t page, uint8_t *data)
{
	memset(data, 0, 4096);
	switch (page) {
	case NVME_LOG_ERROR:
		return log_errors(ctrl->state, data);
	case NVME_LOG_SMART:
		return log_smart(ctrl->state, data);
	case NVME_LOG_FIRMWARE:
		data[0] = 1; /* the first slot is active */
		put_text(data + 8, 8, FIRMWARE);
		return 512;
	/* None ever changes. */
	case NVME_LOG_CHANGED_NAMESPACES:
		return 4096;
	case NVME_LOG_EFFECTS:
		return log_effects(data);
	default:
		return 0;
	}
}
