/* SPDX-License-Identifier: MIT */
/*
 * A migration of the demonstration drawn twice: all of it, and, a hundred times larger, the stop,
 * with a lane for every device on each side.
 */
#include <stdlib.h>

#include "demo.h"
#include "text.h"

static const char *device_name(const void *ctx, uint32_t device)
{
	static char name[24];

	(void)ctx;
	(void)snprintf(name, sizeof(name), "device %u", device);
	return name;
}

/* The phases of a migration before the stop, or those in it. */
static size_t collect(const struct demo_outcome *outcome, const struct demo_migration *migration,
		      bool stop, struct view_phase *phases)
{
	size_t i, count = 0;

	for (i = 0; i < outcome->num_phases; i++) {
		const struct demo_phase *phase = &outcome->phases[i];
		bool after = migration->paused_us && phase->start_us >= migration->paused_us;

		/* The destination began to listen a little before the source began. */
		if (phase->migration != migration->number || after != stop ||
		    phase->start_us < migration->start_us)
			continue;
		phases[count++] = (struct view_phase){
			.name = phase->name,
			.side = demo_side_name(phase->side),
			.device = phase->device,
			.start_us = phase->start_us,
			.duration_us = phase->duration_us,
			.bytes = phase->bytes,
		};
	}
	return count;
}

static void draw(const struct demo_show *show, const struct demo_outcome *outcome,
		 const struct demo_migration *migration)
{
	struct view_phase *phases = calloc(outcome->num_phases + 1, sizeof(*phases));
	uint64_t stop_us = migration->paused_us ? migration->paused_us : migration->end_us;
	struct view_picture picture = {
		.out = stdout,
		.style = &show->style,
		.title = "while all run",
		.phases = phases,
		.start_us = migration->start_us,
		.duration_us = stop_us - migration->start_us,
		.devices = outcome->config.tenant.devices,
		.sides = migration->from == DEMO_SIDE_A ? "AB" : "BA",
		.name = device_name,
	};

	if (!phases)
		return;
	picture.num_phases = collect(outcome, migration, false, phases);
	if (picture.duration_us)
		view_timeline(&picture);
	if (migration->downtime_us) {
		picture.title = "the stop";
		picture.num_phases = collect(outcome, migration, true, phases);
		picture.start_us = migration->paused_us;
		picture.duration_us = migration->downtime_us;
		view_timeline(&picture);
	}
	free(phases);
}

void demo_show_timeline(const struct demo_show *show, const struct demo_outcome *outcome,
			const struct demo_migration *migration)
{
	const char *bold = show->style.color ? "\033[1m" : "",
		   *plain = show->style.color ? "\033[0m" : "";
	const struct qsc_migrate_report *report = &migration->source;
	char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE];
	char rate[TEXT_SIZE], from = demo_side_name(migration->from);

	printf("\n%sMigration %u, %c %s %c%s: %s%s, ", bold, migration->number, from,
	       show->style.utf8 ? "→" : "->", from == 'A' ? 'B' : 'A', plain,
	       migration->failed ? "failed after " : "",
	       text_time(a, migration->end_us - migration->start_us));
	if (migration->downtime_us)
		printf("the tenant was stopped for %s\n", text_time(b, migration->downtime_us));
	else
		printf("the tenant was not stopped\n");
	printf("  moved %s of memory and %s of device state in %u pass%s, %s of it in the stop\n",
	       text_bytes(a, report->memory_bytes), text_bytes(b, report->device_bytes),
	       report->passes, report->passes == 1 ? "" : "es", text_bytes(c, report->stop_bytes));
	(void)text_rate(rate, text_per_second(report->memory_bytes + report->device_bytes,
					      migration->end_us - migration->start_us));
	printf("  moved at %s; blocks a second: %.0f before, %.0f while it moved, %.0f after\n",
	       rate, migration->rate_before, migration->rate_during, migration->rate_after);
	draw(show, outcome, migration);
}
