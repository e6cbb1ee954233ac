/* SPDX-License-Identifier: MIT */
/* What a person says of a host: its devices, its memory, who drives them, where it is asked. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "device.h"
#include "host.h"
#include "tool.h"

#define MEMORY_DEFAULT (64ULL << 20)
#define MEMORY_MAX     (1ULL << 39)
#define REGION_DEFAULT 2U /* BAR2 */
#define REGION_MAX     63U

enum {
	KEY_MEMORY = 512, /* above those of request.c */
	KEY_MEMORY_FILE,
	KEY_TENANT,
	KEY_PEER,
	KEY_CONTROL,
	KEY_METRICS,
	KEY_DEVICE_TIMEOUT,
};

static const struct argp_option options[] = {
	{"memory", KEY_MEMORY, "SIZE", 0, "Memory that every device reaches (default 64M)", 1},
	{"memory-file", KEY_MEMORY_FILE, "FILE", 0,
	 "This file is the memory, contents and all; its size is that of the memory", 1},
	{"tenant", KEY_TENANT, "none|copy", 0,
	 "Who drives the devices: nobody (default), or a tenant that has dmacopy engines copy data "
	 "through one another and checks every byte and interrupt",
	 1},
	{"peer", KEY_PEER, "FROM:TO[:REGION]", 0,
	 "Let device FROM reach a region (default 2) of device TO by DMA; names or numbers from 0 "
	 "on. May be given again",
	 1},
	{"device-timeout", KEY_DEVICE_TIMEOUT, "TIME", 0,
	 "For a device server to answer; past it the device is given up (default 60s)", 1},
	{"control", KEY_CONTROL, "PATH", 0, "Take requests at this UNIX socket, which is made anew",
	 1},
	{"metrics", KEY_METRICS, "ADDRESS", 0,
	 "Serve OpenMetrics text at PORT, HOST:PORT or unix:PATH", 1},
	{0},
};

static void *grow(void *array, size_t count, size_t size)
{
	void *grown = reallocarray(array, count, size);

	if (!grown)
		exit(tool_fail("out of memory"));
	return grown;
}

static bool name_valid(const char *text, size_t length)
{
	size_t i;

	for (i = 0; i < length; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("_.-", text[i]))
			return false;
	return length && length < sizeof(((struct hold_device *)NULL)->name);
}

/* [NAME=]URI, where a URI may have '=' itself, but only after its ':'. */
static void add_device(struct hold_config *config, const char *text)
{
	size_t length = strcspn(text, "=:");
	struct hold_device *device;

	if (config->num_devices == HOLD_MAX_DEVICES)
		tool_usage("more than %u devices", HOLD_MAX_DEVICES);
	config->devices = grow(config->devices, config->num_devices + 1U, sizeof(*device));
	device = &config->devices[config->num_devices];
	*device = (struct hold_device){0};
	if (text[length] == '=') {
		if (!name_valid(text, length))
			tool_usage("'%s' does not begin with the name of a device: 1 to 63 "
				   "letters, digits and any of _ . -",
				   text);
		memcpy(device->name, text, length);
		text += length + 1;
	} else {
		(void)snprintf(device->name, sizeof(device->name), "dev%u", config->num_devices);
	}
	if (!tool_is_uri(text))
		tool_usage("'%s' is no device; a device is [NAME=]" TOOL_URI_FORMS, text);
	if (strlen(text) >= sizeof(device->uri))
		tool_usage("the device '%.40s…' has too long a name", text);
	(void)snprintf(device->uri, sizeof(device->uri), "%s", text);
	for (uint32_t i = 0; i < config->num_devices; i++)
		if (!strcmp(config->devices[i].name, device->name))
			tool_usage("two devices have the name '%s'", device->name);
	config->num_devices++;
}

static const char **peer_texts; /* until all devices are known */
static uint32_t num_peer_texts;

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct host_config *config = state->input;
	uint64_t us;

	switch (key) {
	case KEY_MEMORY:
		if (tool_parse_size(arg, &config->hold.memory_bytes) < 0 ||
		    !config->hold.memory_bytes || config->hold.memory_bytes % 4096 ||
		    config->hold.memory_bytes > MEMORY_MAX)
			tool_usage("--memory takes a size from 4K to 512G in whole pages of 4K, "
				   "not '%s'",
				   arg);
		return 0;
	case KEY_MEMORY_FILE:
		config->hold.memory_file = arg;
		return 0;
	case KEY_TENANT:
		if (strcmp(arg, "none") != 0 && strcmp(arg, "copy") != 0)
			tool_usage("--tenant takes none or copy, not '%s'", arg);
		config->hold.tenant = *arg == 'c' ? HOLD_TENANT_COPY : HOLD_TENANT_NONE;
		return 0;
	case KEY_PEER:
		if (num_peer_texts == HOLD_MAX_PEERS)
			tool_usage("--peer more than %u times", HOLD_MAX_PEERS);
		peer_texts = grow(peer_texts, num_peer_texts + 1U, sizeof(*peer_texts));
		peer_texts[num_peer_texts++] = arg;
		return 0;
	case KEY_DEVICE_TIMEOUT:
		if (tool_parse_time(arg, &us) < 0 || us < 1000 || us / 1000 > UINT32_MAX)
			tool_usage("--device-timeout takes a time of at least 1ms such as 10s or "
				   "1min, not '%s'",
				   arg);
		config->hold.device_timeout_ms = (uint32_t)(us / 1000);
		return 0;
	case KEY_CONTROL:
		config->control = arg;
		return 0;
	case KEY_METRICS:
		config->metrics = arg;
		return 0;
	case ARGP_KEY_ARG:
		add_device(&config->hold, arg);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

const struct argp host_argp = {.options = options, .parser = parse};

/* ---- as a whole ---- */

static uint32_t find_device(const struct hold_config *config, const char *name, const char *in)
{
	uint64_t index;

	for (uint32_t i = 0; i < config->num_devices; i++)
		if (!strcmp(config->devices[i].name, name))
			return i;
	if (tool_parse_number(name, 0, config->num_devices - 1, &index) < 0)
		tool_usage("--peer '%s': there is no device '%s'", in, name);
	return (uint32_t)index;
}

static void add_peer(struct hold_config *config, const char *text)
{
	struct hold_peer *peer = &config->peers[config->num_peers];
	char from[64], to[64], region[16] = "";
	uint64_t number = REGION_DEFAULT;
	char rest;
	int n = sscanf(text, "%63[^:]:%63[^:]:%15[0-9]%c", from, to, region, &rest);

	if (n < 2 || n > 3 || (n == 2 && text[strlen(from) + 1 + strlen(to)]) ||
	    (n == 3 && tool_parse_number(region, 0, REGION_MAX, &number) < 0))
		tool_usage("--peer takes FROM:TO[:REGION], not '%s'", text);
	*peer = (struct hold_peer){
		.from = find_device(config, from, text),
		.to = find_device(config, to, text),
		.region = (uint32_t)number,
	};
	if (peer->from == peer->to)
		tool_usage("--peer '%s': a device is no peer of itself", text);
	config->num_peers++;
}

static void check_memory(struct hold_config *config)
{
	struct stat st;

	if (!config->memory_file) {
		if (!config->memory_bytes)
			config->memory_bytes = MEMORY_DEFAULT;
		return;
	}
	if (config->memory_bytes)
		tool_usage("--memory and --memory-file exclude one another: the file has a size");
	if (config->tenant == HOLD_TENANT_COPY)
		tool_usage("--memory-file and --tenant copy exclude one another: the tenant makes "
			   "its memory");
	if (stat(config->memory_file, &st) < 0)
		tool_usage("cannot use %s as memory: %s", config->memory_file, strerror(errno));
	if (!S_ISREG(st.st_mode) || !st.st_size || st.st_size % 4096 ||
	    (uint64_t)st.st_size > MEMORY_MAX)
		tool_usage("cannot use %s as memory: it must be a file of 4K to 512G in whole "
			   "pages of 4K",
			   config->memory_file);
	config->memory_bytes = (uint64_t)st.st_size;
}

/* A device can be in a set once. */
static void check_devices(const struct hold_config *config)
{
	char(*which)[sizeof(config->devices->uri)] = calloc(config->num_devices, sizeof(*which));

	if (!which)
		exit(tool_fail("out of memory"));
	for (uint32_t i = 0; i < config->num_devices; i++) {
		tool_identify_device(config->devices[i].uri, which[i], sizeof(which[i]));
		for (uint32_t j = 0; j < i && *which[i]; j++)
			if (!strcmp(which[i], which[j]))
				tool_usage("the device %s is named twice, as '%s' and as '%s'",
					   config->devices[i].uri, config->devices[j].name,
					   config->devices[i].name);
	}
	free(which);
}

void host_config_check(struct host_config *config)
{
	const size_t most = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (!config->hold.num_devices)
		tool_usage("a DEVICE is missing");
	check_devices(&config->hold);
	if (config->control && (!*config->control || strlen(config->control) > most))
		tool_usage("the path of the control socket has %zu bytes; 1 to %zu are possible",
			   strlen(config->control), most);
	if (num_peer_texts && config->hold.tenant == HOLD_TENANT_COPY)
		tool_usage("--peer and --tenant copy exclude one another: the tenant's engines "
			   "reach one another in a chain");
	check_memory(&config->hold);
	if (num_peer_texts)
		config->hold.peers = grow(NULL, num_peer_texts, sizeof(*config->hold.peers));
	for (uint32_t i = 0; i < num_peer_texts; i++)
		add_peer(&config->hold, peer_texts[i]);
	free((void *)peer_texts);
	peer_texts = NULL;
	num_peer_texts = 0;
}

bool host_config_given(const struct host_config *config)
{
	return config->hold.num_devices || config->hold.memory_bytes || config->hold.memory_file ||
	       config->hold.tenant != HOLD_TENANT_NONE || config->hold.device_timeout_ms ||
	       num_peer_texts || config->control || config->metrics;
}

void host_config_release(struct host_config *config)
{
	free(config->hold.devices);
	free(config->hold.peers);
	*config = (struct host_config){0};
}
