/* SPDX-License-Identifier: MIT */
/*
 * quiesce demo: a set of working devices and the memory of their user move between two processes
 * and back, under load, and every byte and interrupt is accounted for. This file: what can be asked
 * for, and refusing what cannot be.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "demo.h"
#include "tenant_data.h"
#include "text.h"
#include "tool.h"

enum {
	KEY_DEVICES = 'd',
	KEY_MEMORY = 'm',
	KEY_STATE = 's',
	KEY_MIGRATIONS = 'n',
	KEY_JSON = 'j',
	KEY_FLAGS = 0x100,
	KEY_TRAFFIC,
};

static const struct argp_option options[] = {
	{"devices", KEY_DEVICES, "N", 0, "Devices in the chain, 1 to 64 (default 4)", 0},
	{"memory", KEY_MEMORY, "SIZE", 0, "Memory of the tenant (default 256M)", 0},
	{"state", KEY_STATE, "SIZE", 0, "Memory of each device, a power of two (default 64M)", 0},
	{"migrations", KEY_MIGRATIONS, "N", 0, "How often the set moves, 1 to 1000 (default 2)", 0},
	{"flags", KEY_FLAGS, "1|3|5|7", 0,
	 "Migration flags of every device: 1 stop-copy, 2 P2P, 4 pre-copy, added (default 7). "
	 "Without P2P, peer mappings are revoked for the stop",
	 0},
	{"traffic", KEY_TRAFFIC, "SECONDS", 0,
	 "Traffic before, between and after the migrations, 0 to 3600 (default 2)", 0},
	{"json", KEY_JSON, NULL, 0, "Print one JSON object at the end and nothing else", 0},
	{0},
};

static const char documentation[] =
	"Move a set of working devices between two processes and back.\v"
	"Every device is a server process of its own. A tenant, as a guest driver would, moves "
	"FILE "
	"(made-up data when there is none) block by block from its memory through every device's "
	"memory in turn, by peer-to-peer DMA, and back to memory, with one interrupt for every "
	"transfer. Meanwhile all devices and the tenant's memory move to another process. Exit "
	"status: 0 when nothing was lost, 1 when something was or a migration failed, 2 when the "
	"command line is wrong.";

static uint64_t size_argument(const char *option, const char *text)
{
	uint64_t bytes;

	if (tool_parse_size(text, &bytes) < 0)
		tool_usage("--%s takes a size such as 64M or 1G, not '%s'", option, text);
	return bytes;
}

static uint64_t number_argument(const char *option, const char *text, uint64_t min, uint64_t max)
{
	uint64_t number;

	if (tool_parse_number(text, min, max, &number) < 0)
		tool_usage("--%s takes a number from %" PRIu64 " to %" PRIu64 ", not '%s'", option,
			   min, max, text);
	return number;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct demo_config *config = state->input;
	uint64_t flags;

	switch (key) {
	case KEY_DEVICES:
		config->tenant.devices = (uint32_t)number_argument("devices", arg, 1,
								   DEMO_MAX_DEVICES);
		break;
	case KEY_MEMORY:
		config->tenant.memory_bytes = size_argument("memory", arg);
		break;
	case KEY_STATE:
		config->tenant.state_bytes = size_argument("state", arg);
		break;
	case KEY_MIGRATIONS:
		config->migrations = (uint32_t)number_argument("migrations", arg, 1,
							       DEMO_MAX_MIGRATIONS);
		break;
	case KEY_TRAFFIC:
		config->traffic_us = number_argument("traffic", arg, 0, 3600) * 1000000;
		break;
	case KEY_FLAGS:
		if (tool_parse_number(arg, 0, 7, &flags) < 0 || !qsc_flags_valid((uint32_t)flags))
			tool_usage("--flags takes 1, 3, 5 or 7 (%s), not '%s'",
				   qsc_clause_id(QSC_CLAUSE_STATE_1), arg);
		config->flags = (uint32_t)flags;
		break;
	case KEY_JSON:
		config->json = true;
		break;
	case ARGP_KEY_ARG:
		if (state->arg_num > 0)
			return ARGP_ERR_UNKNOWN;
		config->tenant.file = arg;
		break;
	default:
		return ARGP_ERR_UNKNOWN;
	}
	return 0;
}

/* Bytes that programs can still have, or UINT64_MAX where the kernel does not say. */
static uint64_t available_memory(void)
{
	FILE *info = fopen("/proc/meminfo", "re");
	uint64_t kib, bytes = UINT64_MAX;
	char line[128];

	while (info && fgets(line, sizeof(line), info)) {
		if (sscanf(line, "MemAvailable: %" SCNu64, &kib) == 1)
			bytes = kib * 1024;
	}
	if (info)
		(void)fclose(info);
	return bytes;
}

static void check_sizes(const struct tenant_config *tenant)
{
	char text[32], other[32];
	uint64_t both, least;

	if (tenant->state_bytes < TENANT_STATE_MIN ||
	    (tenant->state_bytes & (tenant->state_bytes - 1)))
		tool_usage("--state must be a power of two of at least %s, as the size of a BAR is",
			   tool_size_text(TENANT_STATE_MIN, text));
	if (tenant->state_bytes > 1ULL << 40)
		tool_usage("--state may be at most 1T");
	if (tenant->memory_bytes > 1ULL << 39)
		tool_usage("--memory may be at most 512G");
	least = (tenant_memory_min(tenant) + (1 << 20) - 1) >> 20 << 20;
	if (tenant->memory_bytes < least)
		tool_usage("--memory must be at least %s for %u device%s",
			   tool_size_text(least, text), tenant->devices,
			   tenant->devices == 1 ? "" : "s");
	if (tenant->memory_bytes % 4096)
		tool_usage("--memory must be a multiple of 4K, the size of a page");
	/* On both sides, at the end of a migration. */
	both = 2 * (tenant->memory_bytes + tenant->devices * tenant->state_bytes);
	if (both > available_memory())
		tool_usage("both sides together need %s of memory and this machine has %s left: "
			   "choose smaller --memory, --state or --devices",
			   text_bytes(text, both), text_bytes(other, available_memory()));
}

static void check_file(const char *path)
{
	struct tenant_source source;
	struct qsc_error err = QSC_ERROR_NONE;

	if (tenant_source_open(path, &source, &err) < 0)
		tool_usage("%s", err.text);
	tenant_source_close(&source);
}

int cmd_demo(int argc, char **argv)
{
	static const struct argp argp = {options, parse, "[FILE]", documentation, NULL, NULL, NULL};
	struct demo_config config = {
		.tenant = {.devices = 4, .memory_bytes = 256ULL << 20, .state_bytes = 64ULL << 20},
		.migrations = 2,
		.flags = QSC_MIGRATION_STOP_COPY | QSC_MIGRATION_P2P | QSC_MIGRATION_PRE_COPY,
		.traffic_us = 2000000,
	};
	struct demo_outcome outcome;
	int result, code, signal_number = 0;

	tool_parse(&argp, argc, argv, &config);
	check_sizes(&config.tenant);
	check_file(config.tenant.file);
	config.tells_peers = config.flags & QSC_MIGRATION_P2P;
	config.tenant.retry_faults = !(config.flags & QSC_MIGRATION_P2P);
	/* A reader that went away must not keep us from cleaning up. */
	(void)signal(SIGPIPE, SIG_IGN);
	result = demo_run(&config, &outcome, &signal_number);
	if (result < 0)
		demo_outcome_release(&outcome);
	if (result == -EINVAL)
		tool_usage("%s", outcome.error.text);
	if (result == -EINTR) {
		(void)tool_fail("interrupted by signal %d (%s): everything it had started is gone",
				signal_number, strsignal(signal_number));
		(void)signal(signal_number, SIG_DFL);
		(void)raise(signal_number);
		return TOOL_FAILED;
	}
	code = outcome.ok ? TOOL_OK : TOOL_FAILED;
	if (config.json)
		code |= demo_print_json(&outcome);
	demo_outcome_release(&outcome);
	return code;
}
