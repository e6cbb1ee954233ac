/* SPDX-License-Identifier: MIT */
/* `quiesce info`: what a device is and can. Everything is asked first, then printed. */
#include <inttypes.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <json-c/json.h>

#include "device.h"
#include "tool.h"

#define MAX_INDICES 64

struct identity {
	bool known;
	uint16_t vendor, device, subsystem_vendor, subsystem;
	uint32_t class_code;
	uint8_t revision;
};

struct region {
	struct qsc_region_info info;
	int doorbells;
};

struct facts {
	const char *uri;
	struct qsc_device_info device;
	struct identity pci;
	struct region regions[MAX_INDICES];
	struct qsc_irq_info irqs[MAX_INDICES];
	bool migratable;
	struct qsc_migration_info migration;
	enum qsc_state state;
	bool size_known;
	uint64_t data_size;
};

struct flag_name {
	uint32_t flag;
	const char *name;
};

static const struct flag_name device_flags[] = {
	{VFIO_DEVICE_FLAGS_RESET, "reset"},
	{VFIO_DEVICE_FLAGS_PCI, "pci"},
	{VFIO_DEVICE_FLAGS_PLATFORM, "platform"},
	{VFIO_DEVICE_FLAGS_AMBA, "amba"},
	{VFIO_DEVICE_FLAGS_CCW, "ccw"},
	{VFIO_DEVICE_FLAGS_AP, "ap"},
	{0, NULL},
};

static const struct flag_name irq_flags[] = {
	{VFIO_IRQ_INFO_EVENTFD, "eventfd"},
	{VFIO_IRQ_INFO_MASKABLE, "maskable"},
	{VFIO_IRQ_INFO_AUTOMASKED, "automasked"},
	{VFIO_IRQ_INFO_NORESIZE, "noresize"},
	{0, NULL},
};

static const struct flag_name migration_flags[] = {
	{QSC_MIGRATION_STOP_COPY, "STOP_COPY"},
	{QSC_MIGRATION_P2P, "P2P"},
	{QSC_MIGRATION_PRE_COPY, "PRE_COPY"},
	{0, NULL},
};

static const char *const part_kinds[] = {"section", "block", "custom"};

/* ---- asking ---- */

static uint16_t word_at(const uint8_t *config, unsigned int offset)
{
	return (uint16_t)(config[offset] | config[offset + 1] << 8);
}

static void ask_identity(struct qsc_device *dev, struct identity *pci)
{
	uint8_t config[64];

	if (qsc_device_region_read(dev, VFIO_PCI_CONFIG_REGION_INDEX, 0, config, sizeof(config)) !=
	    (ssize_t)sizeof(config))
		return;
	*pci = (struct identity){
		.known = true,
		.vendor = word_at(config, 0),
		.device = word_at(config, 2),
		.revision = config[8],
		.class_code = (uint32_t)config[11] << 16 | word_at(config, 9),
		.subsystem_vendor = word_at(config, 0x2c),
		.subsystem = word_at(config, 0x2e),
	};
}

static int ask_migration(struct qsc_device *dev, struct facts *facts, struct qsc_error *err)
{
	int result = qsc_device_get_migration(dev, &facts->migration);

	if (result == -ENOTTY)
		return 0;
	if (!result)
		result = qsc_device_get_state(dev, &facts->state);
	if (result < 0)
		return qsc_error_set(err, -result, NULL, "it does not tell its migration state: %s",
				     strerror(-result));
	facts->migratable = true;
	/* SESS-10: not in ERROR, so no answer is an answer. */
	facts->size_known = !qsc_device_data_size(dev, &facts->data_size);
	return 0;
}

static int ask(struct qsc_device *dev, struct facts *facts, struct qsc_error *err)
{
	int result = qsc_device_get_info(dev, &facts->device);

	if (result < 0)
		return qsc_error_set(err, -result, NULL, "it does not describe itself: %s",
				     strerror(-result));
	if (facts->device.num_regions > MAX_INDICES || facts->device.num_irqs > MAX_INDICES)
		return qsc_error_set(err, EPROTO, NULL,
				     "it claims %u regions and %u interrupt indices",
				     facts->device.num_regions, facts->device.num_irqs);
	for (uint32_t i = 0; i < facts->device.num_regions; i++) {
		result = qsc_device_get_region_info(dev, i, &facts->regions[i].info);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "it does not describe region %u: %s", i,
					     strerror(-result));
		facts->regions[i].doorbells = qsc_device_region_io_fds(dev, i, NULL, 0);
	}
	for (uint32_t i = 0; i < facts->device.num_irqs; i++) {
		result = qsc_device_get_irq_info(dev, i, &facts->irqs[i]);
		if (result < 0)
			return qsc_error_set(err, -result, NULL,
					     "it does not describe interrupt index %u: %s", i,
					     strerror(-result));
	}
	if (facts->device.flags & VFIO_DEVICE_FLAGS_PCI)
		ask_identity(dev, &facts->pci);
	return ask_migration(dev, facts, err);
}

/* ---- names ---- */

static const char *region_name(const struct facts *facts, uint32_t index, char text[12])
{
	static const char *const names[] = {"BAR0", "BAR1", "BAR2",   "BAR3", "BAR4",
					    "BAR5", "ROM",  "config", "VGA"};

	if (!(facts->device.flags & VFIO_DEVICE_FLAGS_PCI) || index >= VFIO_PCI_NUM_REGIONS)
		(void)snprintf(text, 12, "%u", index);
	else
		(void)snprintf(text, 12, "%s", names[index]);
	return text;
}

static const char *irq_name(const struct facts *facts, uint32_t index, char text[12])
{
	static const char *const names[] = {"INTx", "MSI", "MSI-X", "error", "request"};

	if (!(facts->device.flags & VFIO_DEVICE_FLAGS_PCI) || index >= VFIO_PCI_NUM_IRQS)
		(void)snprintf(text, 12, "%u", index);
	else
		(void)snprintf(text, 12, "%s", names[index]);
	return text;
}

static const char *flags_text(const struct flag_name *names, uint32_t flags, char text[96])
{
	size_t used = 0;

	text[0] = '\0';
	for (; names->name; names++)
		if (flags & names->flag)
			used += (size_t)snprintf(text + used, 96 - used, "%s%s", used ? ", " : "",
						 names->name);
	return used ? text : "none";
}

/* ---- for people ---- */

static void print_areas(const struct qsc_region_info *info)
{
	char from[32];
	char size[32];

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP)) {
		printf("no");
		return;
	}
	if (!info->num_areas)
		printf("all of it");
	for (uint32_t i = 0; i < info->num_areas; i++)
		printf("%s%s at %s", i ? ", " : "", tool_size_text(info->areas[i].size, size),
		       tool_size_text(info->areas[i].offset, from));
}

static void print_regions(const struct facts *facts)
{
	char name[12];
	char size[32];

	printf("\nRegions\n  %-9s%-14s%-12s%-11s%-14s%s\n", "", "size", "access", "doorbells",
	       "when stopped", "mappable");
	for (uint32_t i = 0; i < facts->device.num_regions; i++) {
		const struct qsc_region_info *info = &facts->regions[i].info;
		bool r = info->flags & VFIO_REGION_INFO_FLAG_READ;
		bool w = info->flags & VFIO_REGION_INFO_FLAG_WRITE;
		int doorbells = facts->regions[i].doorbells;

		if (!info->size)
			continue;
		printf("  %-9s%-14s%-12s%-11d%-14s", region_name(facts, i, name),
		       tool_size_text(info->size, size),
		       r && w ? "read, write" : (r ? "read" : (w ? "write" : "none")),
		       doorbells > 0 ? doorbells : 0,
		       info->stopped_known ? qsc_verdict_name(info->stopped) : "not told");
		print_areas(info);
		printf("\n");
	}
}

static void print_irqs(const struct facts *facts)
{
	char name[12];
	char flags[96];

	printf("\nInterrupts\n  %-9s%-14s%s\n", "", "vectors", "properties");
	for (uint32_t i = 0; i < facts->device.num_irqs; i++)
		if (facts->irqs[i].count)
			printf("  %-9s%-14u%s\n", irq_name(facts, i, name), facts->irqs[i].count,
			       flags_text(irq_flags, facts->irqs[i].flags, flags));
}

static void print_migration(const struct facts *facts)
{
	char flags[96];
	char size[32];

	printf("\nMigration\n");
	if (!facts->migratable) {
		printf("  this device cannot migrate\n");
		return;
	}
	printf("  capabilities     %s (flags %u)%s\n"
	       "  state            %s\n"
	       "  dirty log        %s\n"
	       "  stop-copy size   %s\n",
	       flags_text(migration_flags, facts->migration.flags, flags), facts->migration.flags,
	       qsc_flags_valid(facts->migration.flags) ? "" : ", which is no valid set (STATE-1)",
	       qsc_state_name(facts->state), facts->migration.dirty_log ? "yes" : "no",
	       facts->size_known ? tool_size_text(facts->data_size, size) : "not told");
}

static void print_layout(const struct qsc_layout *layout)
{
	char size[32];

	if (!layout->type[0])
		return;
	printf("\nState of type %s\n  %-20s%-10s%-14s%s\n", layout->type, "", "kind", "size",
	       "version");
	for (uint32_t i = 0; i < layout->num_parts; i++) {
		const struct qsc_layout_part *part = &layout->parts[i];

		printf("  %-20s%-10s%-14s", part->name, part_kinds[part->kind],
		       tool_size_text(part->size, size));
		if (part->kind == QSC_LAYOUT_SECTION)
			printf("%u, loads %u to %u\n", part->version, part->min_version,
			       part->version);
		else
			printf("-\n");
	}
}

static int print_text(const struct facts *facts)
{
	char flags[96];

	printf("%s", facts->uri);
	if (facts->pci.known)
		printf(": PCI %04x:%04x, subsystem %04x:%04x, class %06x, revision %02x",
		       facts->pci.vendor, facts->pci.device, facts->pci.subsystem_vendor,
		       facts->pci.subsystem, facts->pci.class_code, facts->pci.revision);
	printf("\nProperties: %s\n", flags_text(device_flags, facts->device.flags, flags));
	print_regions(facts);
	print_irqs(facts);
	print_migration(facts);
	print_layout(&facts->device.layout);
	return TOOL_OK;
}

/* ---- for programs ---- */

static struct json_object *flags_json(const struct flag_name *names, uint32_t flags)
{
	struct json_object *list = json_object_new_array();

	for (; names->name; names++)
		if (flags & names->flag)
			json_object_array_add(list, json_object_new_string(names->name));
	return list;
}

static void add_number(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *pci_json(const struct identity *pci)
{
	struct json_object *object;

	if (!pci->known)
		return NULL;
	object = json_object_new_object();
	add_number(object, "vendor", pci->vendor);
	add_number(object, "device", pci->device);
	add_number(object, "subsystem_vendor", pci->subsystem_vendor);
	add_number(object, "subsystem", pci->subsystem);
	add_number(object, "class", pci->class_code);
	add_number(object, "revision", pci->revision);
	return object;
}

static struct json_object *areas_json(const struct qsc_region_info *info)
{
	const struct qsc_mmap_area all = {.offset = 0, .size = info->size};
	uint32_t count = info->num_areas ? info->num_areas : 1;
	struct json_object *list = json_object_new_array();

	if (!(info->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return list;
	for (uint32_t i = 0; i < count; i++) {
		const struct qsc_mmap_area *area = info->num_areas ? &info->areas[i] : &all;
		struct json_object *entry = json_object_new_object();

		add_number(entry, "offset", area->offset);
		add_number(entry, "size", area->size);
		json_object_array_add(list, entry);
	}
	return list;
}

static struct json_object *regions_json(const struct facts *facts)
{
	struct json_object *list = json_object_new_array();
	char name[12];

	for (uint32_t i = 0; i < facts->device.num_regions; i++) {
		const struct qsc_region_info *info = &facts->regions[i].info;
		struct json_object *entry;

		if (!info->size)
			continue;
		entry = json_object_new_object();
		add_number(entry, "index", i);
		json_object_object_add(entry, "name",
				       json_object_new_string(region_name(facts, i, name)));
		add_number(entry, "size", info->size);
		json_object_object_add(
			entry, "read",
			json_object_new_boolean(!!(info->flags & VFIO_REGION_INFO_FLAG_READ)));
		json_object_object_add(
			entry, "write",
			json_object_new_boolean(!!(info->flags & VFIO_REGION_INFO_FLAG_WRITE)));
		json_object_object_add(entry, "mappable", areas_json(info));
		add_number(entry, "doorbells",
			   facts->regions[i].doorbells > 0 ? (uint64_t)facts->regions[i].doorbells
							   : 0);
		json_object_object_add(
			entry, "stopped",
			info->stopped_known
				? json_object_new_string(qsc_verdict_name(info->stopped))
				: NULL);
		json_object_array_add(list, entry);
	}
	return list;
}

static struct json_object *irqs_json(const struct facts *facts)
{
	struct json_object *list = json_object_new_array();
	char name[12];

	for (uint32_t i = 0; i < facts->device.num_irqs; i++) {
		struct json_object *entry;

		if (!facts->irqs[i].count)
			continue;
		entry = json_object_new_object();
		add_number(entry, "index", i);
		json_object_object_add(entry, "name",
				       json_object_new_string(irq_name(facts, i, name)));
		add_number(entry, "vectors", facts->irqs[i].count);
		json_object_object_add(entry, "properties",
				       flags_json(irq_flags, facts->irqs[i].flags));
		json_object_array_add(list, entry);
	}
	return list;
}

static struct json_object *migration_json(const struct facts *facts)
{
	struct json_object *object;

	if (!facts->migratable)
		return NULL;
	object = json_object_new_object();
	add_number(object, "flags", facts->migration.flags);
	json_object_object_add(object, "capabilities",
			       flags_json(migration_flags, facts->migration.flags));
	json_object_object_add(object, "state",
			       json_object_new_string(qsc_state_name(facts->state)));
	json_object_object_add(object, "dirty_log",
			       json_object_new_boolean(facts->migration.dirty_log));
	json_object_object_add(object, "stop_copy_size",
			       facts->size_known ? json_object_new_uint64(facts->data_size) : NULL);
	return object;
}

/* NULL where the device does not say. */
static struct json_object *layout_json(const struct qsc_layout *layout)
{
	struct json_object *object;
	struct json_object *list;

	if (!layout->type[0])
		return NULL;
	object = json_object_new_object();
	list = json_object_new_array();
	json_object_object_add(object, "type", json_object_new_string(layout->type));
	json_object_object_add(object, "parts", list);
	for (uint32_t i = 0; i < layout->num_parts; i++) {
		const struct qsc_layout_part *part = &layout->parts[i];
		struct json_object *entry = json_object_new_object();

		json_object_object_add(entry, "kind",
				       json_object_new_string(part_kinds[part->kind]));
		json_object_object_add(entry, "name", json_object_new_string(part->name));
		add_number(entry, "size", part->size);
		add_number(entry, "version", part->version);
		add_number(entry, "min_version", part->min_version);
		json_object_array_add(list, entry);
	}
	return object;
}

static int print_json(const struct facts *facts)
{
	struct json_object *root = json_object_new_object();

	json_object_object_add(root, "uri", json_object_new_string(facts->uri));
	json_object_object_add(root, "properties", flags_json(device_flags, facts->device.flags));
	json_object_object_add(root, "pci", pci_json(&facts->pci));
	json_object_object_add(root, "regions", regions_json(facts));
	json_object_object_add(root, "interrupts", irqs_json(facts));
	json_object_object_add(root, "migration", migration_json(facts));
	json_object_object_add(root, "layout", layout_json(&facts->device.layout));
	return tool_print_json(root);
}

/* ---- the command ---- */

struct request {
	const char *uri;
	bool json;
};

static const struct argp_option options[] = {
	{"json", 'j', NULL, 0, "Print as JSON", 0},
	{0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
	struct request *request = state->input;

	if (key == 'j') {
		request->json = true;
		return 0;
	}
	if (key != ARGP_KEY_ARG || request->uri)
		return ARGP_ERR_UNKNOWN;
	request->uri = arg;
	return 0;
}

int cmd_info(int argc, char **argv)
{
	static const struct argp argp = {
		.options = options,
		.parser = parse_option,
		.args_doc = "DEVICE",
		.doc = "Show what a device is and can: identity, regions, interrupts, migration. "
		       "DEVICE is " TOOL_URI_FORMS ".",
	};
	struct qsc_error err = QSC_ERROR_NONE;
	struct request request = {0};
	struct qsc_device *dev;
	struct facts *facts;
	int code;

	tool_parse(&argp, argc, argv, &request);
	if (!request.uri)
		tool_usage("a DEVICE is missing: " TOOL_URI_FORMS);
	facts = calloc(1, sizeof(*facts));
	if (!facts)
		return tool_fail("out of memory");
	facts->uri = request.uri;
	if (tool_open_device(request.uri, &dev, &err) < 0) {
		free(facts);
		return tool_fail_error(&err, "cannot open the device");
	}
	if (ask(dev, facts, &err) < 0)
		code = tool_fail_error(&err, "%s", request.uri);
	else
		code = request.json ? print_json(facts) : print_text(facts);
	qsc_device_close(dev);
	free(facts);
	return code;
}
