/* SPDX-License-Identifier: MIT */
/* What is told, and as which text. The text is made from a copy, so that nobody waits for it. */
#include "metrics.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "metrics_http.h"
#include "text.h"

#define NUM_VERBS 4

enum result { RESULT_OK, RESULT_FAILED, RESULT_UNPROVED, NUM_RESULTS };

static const char *const result_names[] = {"ok", "failed", "unproved"};

/* Upper bounds of the histogram of downtimes, as OpenMetrics writes numbers. */
static const struct {
	uint64_t us;
	const char *seconds;
} buckets[] = {
	{1000, "0.001"},  {2500, "0.0025"}, {5000, "0.005"},	{10000, "0.01"}, {25000, "0.025"},
	{50000, "0.05"},  {100000, "0.1"},  {250000, "0.25"},	{500000, "0.5"}, {1000000, "1.0"},
	{2500000, "2.5"}, {5000000, "5.0"}, {10000000, "10.0"},
};

#define NUM_BUCKETS (sizeof(buckets) / sizeof(buckets[0]))

struct device {
	char name[64];
	unsigned int state; /* QSC_STATE_COUNT: not known */
};

struct values {
	struct device *devices;
	uint32_t num_devices;
	uint64_t migrations[NUM_VERBS][NUM_RESULTS];
	uint64_t memory_bytes[NUM_VERBS];
	uint64_t device_bytes[NUM_VERBS];
	uint64_t in_bucket[NUM_BUCKETS + 1]; /* not summed up; the last one has no bound */
	uint64_t downtime_us;		     /* of all of them */
	uint64_t last_downtime_us, last_predicted_us;
	uint64_t blocks;
	bool moving;
	enum move_verb verb;
	struct move_sample sample;
	uint64_t downtime_limit_us;
};

struct metrics {
	pthread_mutex_t lock;
	struct values values;
	struct metrics_server *server;
};

int metrics_create(const char *address, struct metrics **metrics, struct qsc_error *err)
{
	struct metrics *made = calloc(1, sizeof(*made));
	int result;

	if (!made)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for metrics");
	pthread_mutex_init(&made->lock, NULL);
	result = address ? metrics_serve(address, made, &made->server, err) : 0;
	if (result < 0) {
		metrics_destroy(made);
		return result;
	}
	*metrics = made;
	return 0;
}

void metrics_destroy(struct metrics *metrics)
{
	if (!metrics)
		return;
	metrics_serve_end(metrics->server);
	pthread_mutex_destroy(&metrics->lock);
	free(metrics->values.devices);
	free(metrics);
}

void metrics_look(struct metrics *metrics, uint32_t patience_ms)
{
	if (metrics && metrics->server)
		metrics_serve_look(metrics->server, patience_ms);
}

const char *metrics_address(const struct metrics *metrics)
{
	return metrics->server ? metrics_serve_address(metrics->server) : "";
}

/* ---- what changes ---- */

int metrics_set_devices(struct metrics *metrics, const char *const names[], uint32_t count)
{
	struct device *devices = calloc(count + 1U, sizeof(*devices)), *old;
	uint32_t i;

	if (!metrics) {
		free(devices);
		return 0;
	}
	for (i = 0; devices && i < count; i++) {
		text_clean(devices[i].name, sizeof(devices[i].name), names[i], true);
		devices[i].state = QSC_STATE_COUNT;
	}
	pthread_mutex_lock(&metrics->lock);
	old = metrics->values.devices;
	metrics->values.devices = devices;
	metrics->values.num_devices = devices ? count : 0;
	pthread_mutex_unlock(&metrics->lock);
	free(old);
	return devices ? 0 : -ENOMEM;
}

void metrics_set_state(struct metrics *metrics, uint32_t device, unsigned int state)
{
	if (!metrics)
		return;
	pthread_mutex_lock(&metrics->lock);
	if (device < metrics->values.num_devices)
		metrics->values.devices[device].state = state;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_blocks(struct metrics *metrics, uint64_t blocks)
{
	if (!metrics)
		return;
	pthread_mutex_lock(&metrics->lock);
	if (blocks > metrics->values.blocks)
		metrics->values.blocks = blocks;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_progress(struct metrics *metrics, const struct move *move,
		      const struct move_sample *sample)
{
	if (!metrics)
		return;
	pthread_mutex_lock(&metrics->lock);
	metrics->values.moving = true;
	metrics->values.verb = move->verb;
	metrics->values.sample = *sample;
	metrics->values.downtime_limit_us = move->downtime_limit_us;
	pthread_mutex_unlock(&metrics->lock);
}

static enum result result_of(const struct move *move)
{
	int code = move_exit_code(move);

	return code == MOVE_UNPROVED ? RESULT_UNPROVED : code ? RESULT_FAILED : RESULT_OK;
}

void metrics_moved(struct metrics *metrics, const struct move *move)
{
	const struct qsc_migrate_report *report = &move->report;
	struct values *values;
	size_t i = 0;

	if (!metrics)
		return;
	values = &metrics->values;
	pthread_mutex_lock(&metrics->lock);
	values->moving = false;
	values->migrations[move->verb][result_of(move)]++;
	values->memory_bytes[move->verb] += report->memory_bytes;
	values->device_bytes[move->verb] += report->device_bytes;
	if (report->downtime_us) {
		while (i < NUM_BUCKETS && report->downtime_us > buckets[i].us)
			i++;
		values->in_bucket[i]++;
		values->downtime_us += report->downtime_us;
		values->last_downtime_us = report->downtime_us;
		values->last_predicted_us = report->predicted.total_us;
	}
	pthread_mutex_unlock(&metrics->lock);
}

/* ---- the text ---- */

static void put_family(FILE *out, const char *name, const char *type, const char *unit,
		       const char *help)
{
	(void)fprintf(out, "# TYPE quiesce%s %s\n", name, type);
	if (*unit)
		(void)fprintf(out, "# UNIT quiesce%s %s\n", name, unit);
	(void)fprintf(out, "# HELP quiesce%s %s\n", name, help);
}

/* Names have neither control characters nor what is no UTF-8. */
static void put_label(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			(void)fputc('\\', out);
		(void)fputc(*text, out);
	}
}

static void put_seconds(FILE *out, const char *name, uint64_t us)
{
	(void)fprintf(out, "quiesce%s %" PRIu64 ".%06" PRIu64 "\n", name, us / 1000000,
		      us % 1000000);
}

static void put_gauge(FILE *out, const char *name, const char *unit, const char *help,
		      uint64_t value)
{
	put_family(out, name, "gauge", unit, help);
	if (!strcmp(unit, "seconds"))
		put_seconds(out, name, value);
	else
		(void)fprintf(out, "quiesce%s %" PRIu64 "\n", name, value);
}

static void put_devices(FILE *out, const struct values *values)
{
	put_gauge(out, "_devices", "", "Devices that this host holds.", values->num_devices);
	put_family(out, "_device_state", "stateset", "",
		   "State of each device as far as the host knows it; index counts from 0.");
	for (uint32_t i = 0; i < values->num_devices; i++) {
		const struct device *device = &values->devices[i];

		for (unsigned int state = 0;
		     device->state < QSC_STATE_COUNT && state < QSC_STATE_COUNT; state++) {
			(void)fprintf(out, "quiesce_device_state{device=\"");
			put_label(out, device->name);
			(void)fprintf(
				out, "\",index=\"%" PRIu32 "\",quiesce_device_state=\"%s\"} %d\n",
				i, qsc_state_name((enum qsc_state)state), state == device->state);
		}
	}
}

static void put_migrations(FILE *out, const struct values *values)
{
	put_family(out, "_migrations", "counter", "", "Migrations that have ended.");
	for (unsigned int verb = 0; verb < NUM_VERBS; verb++)
		for (unsigned int result = 0; result < NUM_RESULTS; result++)
			(void)fprintf(out,
				      "quiesce_migrations_total{verb=\"%s\",result=\"%s\"} %" PRIu64
				      "\n",
				      move_verb_name((enum move_verb)verb), result_names[result],
				      values->migrations[verb][result]);
	put_family(out, "_moved_bytes", "counter", "bytes", "Moved in migrations that have ended.");
	for (unsigned int verb = 0; verb < NUM_VERBS; verb++) {
		const char *name = move_verb_name((enum move_verb)verb);

		(void)fprintf(out,
			      "quiesce_moved_bytes_total{verb=\"%s\",kind=\"memory\"} %" PRIu64 "\n"
			      "quiesce_moved_bytes_total{verb=\"%s\",kind=\"device\"} %" PRIu64
			      "\n",
			      name, values->memory_bytes[verb], name, values->device_bytes[verb]);
	}
}

static void put_downtimes(FILE *out, const struct values *values)
{
	uint64_t count = 0;

	put_family(out, "_downtime_seconds", "histogram", "seconds",
		   "How long migrations stopped everything.");
	for (size_t i = 0; i < NUM_BUCKETS; i++) {
		count += values->in_bucket[i];
		(void)fprintf(out, "quiesce_downtime_seconds_bucket{le=\"%s\"} %" PRIu64 "\n",
			      buckets[i].seconds, count);
	}
	count += values->in_bucket[NUM_BUCKETS];
	(void)fprintf(out,
		      "quiesce_downtime_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n"
		      "quiesce_downtime_seconds_count %" PRIu64 "\n",
		      count, count);
	put_seconds(out, "_downtime_seconds_sum", values->downtime_us);
	put_gauge(out, "_last_downtime_seconds", "seconds",
		  "How long the last migration that stopped everything did so.",
		  values->last_downtime_us);
	put_gauge(out, "_last_predicted_downtime_seconds", "seconds",
		  "How long that was predicted to last when the stop began.",
		  values->last_predicted_us);
}

/* All 0 while nothing moves. */
static void put_current(FILE *out, const struct values *values)
{
	static const struct move_sample none = {.phase = "idle"};
	const struct move_sample *sample = values->moving ? &values->sample : &none;
	char phase[sizeof(sample->phase)];

	text_clean(phase, sizeof(phase), sample->phase, true);
	put_family(out, "_phase", "gauge", "", "1 for the phase of the migration under way.");
	(void)fprintf(out, "quiesce_phase{verb=\"%s\",phase=\"",
		      values->moving ? move_verb_name(values->verb) : "");
	put_label(out, phase);
	(void)fprintf(out, "\"} 1\n");
	put_gauge(out, "_pass", "", "Pass of pre-copy, from 1 on.", sample->pass);
	put_gauge(out, "_sent_bytes", "bytes", "Sent so far.", sample->bytes_sent);
	put_gauge(out, "_remaining_bytes", "bytes", "Known to be left.", sample->bytes_remaining);
	put_gauge(out, "_link_bytes_per_second", "bytes_per_second", "Rate of the link.",
		  sample->bytes_per_second);
	put_gauge(out, "_dirty_bytes_per_second", "bytes_per_second",
		  "Memory and device state written again.", sample->dirty_per_second);
	put_gauge(out, "_predicted_downtime_seconds", "seconds",
		  "How long the stop would last did it begin now; 0 where it is not known.",
		  sample->predicted_downtime_us);
	put_gauge(out, "_downtime_limit_seconds", "seconds", "How long the stop may last.",
		  values->moving ? values->downtime_limit_us : 0);
}

static void put_values(FILE *out, const struct values *values)
{
	put_family(out, "", "info", "", "The program.");
	(void)fprintf(out, "quiesce_info{version=\"%s\"} 1\n", qsc_version());
	put_devices(out, values);
	put_migrations(out, values);
	put_downtimes(out, values);
	put_current(out, values);
	put_family(out, "_tenant_blocks", "counter", "", "Blocks that the tenant has moved.");
	(void)fprintf(out, "quiesce_tenant_blocks_total %" PRIu64 "\n# EOF\n", values->blocks);
}

/* A copy of all values; false for no memory. */
static bool copy_values(struct metrics *metrics, struct values *values)
{
	pthread_mutex_lock(&metrics->lock);
	*values = metrics->values;
	values->devices = calloc(values->num_devices + 1U, sizeof(*values->devices));
	if (values->devices && values->num_devices)
		memcpy(values->devices, metrics->values.devices,
		       values->num_devices * sizeof(*values->devices));
	pthread_mutex_unlock(&metrics->lock);
	return values->devices != NULL;
}

char *metrics_text(struct metrics *metrics, size_t *size)
{
	struct values values;
	char *text = NULL;
	FILE *out;

	if (!copy_values(metrics, &values))
		return NULL;
	out = open_memstream(&text, size);
	if (out) {
		put_values(out, &values);
		if (fclose(out) != 0) {
			free(text);
			text = NULL;
		}
	}
	free(values.devices);
	return text;
}
