/* SPDX-License-Identifier: MIT */
/* A migration as the tool keeps it: what is recorded, made coarser, told in JSON and read back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <quiesce/set.h>

#include "move.h"
#include "text.h"

/* ---- text ---- */

static void test_text(void **state)
{
	static const struct {
		const char *from, *utf8, *ascii;
	} cases[] = {
		{"", "", ""},
		{"nic0", "nic0", "nic0"},
		{"gerät→", "gerät→", "ger?t?"},
		{"a\033[2Jb\n", "a?[2Jb?", "a?[2Jb?"},
		{"\xc2\x9b"
		 "31m",
		 "??31m", "??31m"},
		{"\xff\xc0\x80\xe2\x82", "?????", "?????"},
		{"\xed\xa0\x80\xf4\x90\x80\x80", "???????", "???????"},
		{"\xe2\x80\xae", "???", "???"},
		{"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80", "?"},
	};
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		text_clean(text, sizeof(text), cases[i].from, true);
		assert_string_equal(text, cases[i].utf8);
		text_clean(text, sizeof(text), cases[i].from, false);
		assert_string_equal(text, cases[i].ascii);
	}
	/* Cut between characters, never within one. */
	text_clean(text, 5, "ab→c", true);
	assert_string_equal(text, "ab");
	text_clean(text, 6, "ab→c", true);
	assert_string_equal(text, "ab→");
	(void)snprintf(text, sizeof(text), "a\tb");
	text_clean(text, sizeof(text), text, true);
	assert_string_equal(text, "a?b");
}

static void test_numbers(void **state)
{
	char buf[TEXT_SIZE];

	(void)state;
	assert_string_equal(text_time(buf, 999), "999 us");
	assert_string_equal(text_time(buf, 7140), "7.1 ms");
	assert_string_equal(text_time(buf, 20400), "20 ms");
	assert_string_equal(text_time(buf, 1840000), "1.84 s");
	assert_string_equal(text_time(buf, UINT64_MAX), "18446744073710 s");
	assert_string_equal(text_bytes(buf, 1023), "1023 B");
	assert_string_equal(text_bytes(buf, UINT64_MAX), "16.0 EiB");
	assert_string_equal(text_rate(buf, 100ULL << 20), "100 MiB/s");
	assert_string_equal(text_count(buf, 1234567), "1 234 567");
}

/* ---- recording ---- */

static void add_progress(struct move *move, const char *phase, uint64_t us)
{
	const struct qsc_migrate_progress progress = {
		.phase = phase,
		.pass = 1,
		.bytes_sent = us,
		.bytes_remaining = 2,
		.elapsed_us = us,
		.bytes_per_second = 3,
		.dirty_per_second = 4,
		.predicted_downtime_us = 5,
	};
	const struct move_sample *sample;

	assert_int_equal(move_add_sample(move, &progress), 0);
	sample = &move->samples[move->num_samples - 1];
	assert_string_equal(sample->phase, phase);
	assert_int_equal(sample->pass, 1);
	assert_int_equal(sample->elapsed_us, us);
	assert_int_equal(sample->bytes_sent, us);
	assert_int_equal(sample->bytes_remaining, 2);
	assert_int_equal(sample->bytes_per_second, 3);
	assert_int_equal(sample->dirty_per_second, 4);
	assert_int_equal(sample->predicted_downtime_us, 5);
}

static void test_samples(void **state)
{
	struct move move = {0};
	uint64_t us, widest = 0;

	(void)state;
	for (us = 0; us < 10 * MOVE_MAX_SAMPLES; us++)
		add_progress(&move, us < 5000 ? "pre-copy" : us < 5003 ? "stop" : "load", us);
	assert_int_equal(move.num_samples, MOVE_MAX_SAMPLES);
	assert_int_equal(move.samples[0].elapsed_us, 0);
	assert_int_equal(move.samples[MOVE_MAX_SAMPLES - 1].elapsed_us, us - 1);
	for (size_t i = 1; i < move.num_samples; i++) {
		uint64_t gap = move.samples[i].elapsed_us - move.samples[i - 1].elapsed_us;

		assert_true(gap >= 1);
		widest = gap > widest ? gap : widest;
	}
	/* A tenth is kept, evenly, and where a phase began. */
	assert_in_range(widest, 2, 40);
	us = 0;
	for (size_t i = 1; i < move.num_samples; i++)
		if (strcmp(move.samples[i].phase, move.samples[i - 1].phase) != 0)
			us = us * 10000 + move.samples[i].elapsed_us;
	assert_int_equal(us, 50005003);
	move_release(&move);
	move_release(&move);
	assert_int_equal(move.num_samples, 0);
}

static void test_timeline(void **state)
{
	struct qsc_timeline *timeline;
	struct move move = {.start_us = 1000};
	struct qsc_phase phase = {"negotiate", QSC_TIMELINE_ALL, 999, 10, 0};

	(void)state;
	assert_int_equal(qsc_timeline_create(&timeline), 0);
	qsc_timeline_add(timeline, &phase);
	phase = (struct qsc_phase){"stop", 3, 1500, 20, 4096};
	qsc_timeline_add(timeline, &phase);
	phase = (struct qsc_phase){"quiesce", QSC_TIMELINE_ALL, 1000, 7, 0};
	qsc_timeline_add(timeline, &phase);
	/* Twice: it replaces what was taken. */
	assert_int_equal(move_take_timeline(&move, timeline), 0);
	assert_int_equal(move_take_timeline(&move, timeline), 0);
	assert_int_equal(move.num_phases, 2);
	assert_string_equal(move.phases[0].name, "quiesce");
	assert_int_equal(move.phases[0].device, -1);
	assert_int_equal(move.phases[0].start_us, 0);
	assert_string_equal(move.phases[1].name, "stop");
	assert_int_equal(move.phases[1].device, 3);
	assert_int_equal(move.phases[1].start_us, 500);
	assert_int_equal(move.phases[1].duration_us, 20);
	assert_int_equal(move.phases[1].bytes, 4096);
	assert_int_equal(move.phases[1].count, 1);
	qsc_timeline_destroy(timeline);
	move_release(&move);
}

/* Two devices in turn, for far longer than is kept one by one. */
static void test_long_timeline(void **state)
{
	struct qsc_timeline *timeline;
	struct move move = {0};
	uint64_t bytes = 0, count = 0, last = 0;
	uint32_t i;

	(void)state;
	assert_int_equal(qsc_timeline_create(&timeline), 0);
	for (i = 0; i < 3 * MOVE_MAX_PHASES; i++) {
		const struct qsc_phase phase = {"precopy", i % 2, 5000ULL * i, 4000, 7};

		qsc_timeline_add(timeline, &phase);
	}
	assert_int_equal(move_take_timeline(&move, timeline), 0);
	assert_in_range(move.num_phases, 2, MOVE_MAX_PHASES);
	for (i = 0; i < move.num_phases; i++) {
		bytes += move.phases[i].bytes;
		count += move.phases[i].count;
		assert_true(move.phases[i].start_us >= last);
		last = move.phases[i].start_us;
	}
	assert_int_equal(bytes, 3ULL * MOVE_MAX_PHASES * 7);
	assert_int_equal(count, 3ULL * MOVE_MAX_PHASES);
	last += move.phases[move.num_phases - 1].duration_us;
	assert_int_equal(last, 5000ULL * (3 * MOVE_MAX_PHASES - 1) + 4000);
	qsc_timeline_destroy(timeline);
	move_release(&move);
}

static void test_exit_code(void **state)
{
	struct move move = {0};

	(void)state;
	assert_int_equal(move_exit_code(&move), 1);
	assert_string_equal(move_result_name(&move), "running");
	move.ended = true;
	move.report.owner = QSC_OWNER_DESTINATION;
	assert_int_equal(move_exit_code(&move), 0);
	assert_string_equal(move_result_name(&move), "ok");
	move.error_number = ETIMEDOUT;
	move.report.owner = QSC_OWNER_SOURCE;
	assert_int_equal(move_exit_code(&move), 1);
	assert_string_equal(move_result_name(&move), "failed");
	move.report.owner = QSC_OWNER_UNPROVED;
	assert_int_equal(move_exit_code(&move), 3);
	assert_string_equal(move_result_name(&move), "unproved");
}

/* ---- JSON ---- */

/* Every field has a value of its own. */
static void tell(struct move *move)
{
	*move = (struct move){
		.verb = MOVE_SAVE,
		.transport = "file:/tmp/set",
		.host = "venus",
		.started_at = 1800000000,
		.memory_bytes = 1ULL << 62,
		.downtime_limit_us = 300000,
		.bandwidth = 125000000,
		.plan = "every device has P2P",
		.ended = true,
		.report = {.owner = QSC_OWNER_UNPROVED,
			   .total_us = 4000001,
			   .waited_us = 3000004,
			   .downtime_us = 20002,
			   .memory_bytes = 1003,
			   .device_bytes = 1004,
			   .stop_bytes = 1005,
			   .passes = 6,
			   .predicted = {{1, 2, 3, 4, 5, 6, 7, 8}, 36},
			   .measured = {{11, 12, 13, 14, 15, 16, 17, 18}, 116},
			   .prediction_error_permille = -690,
			   .outcome = "both are stopped"},
		.error_number = EIO,
		.error_clause = "SET-5",
		.error_text = "the file could not be synced",
		.num_devices = 2,
		.num_phases = 2,
	};
	move->devices = calloc(2, sizeof(*move->devices));
	move->phases = calloc(2, sizeof(*move->phases));
	assert_non_null(move->devices);
	assert_non_null(move->phases);
	move->devices[0] = (struct move_device){"nic0", "vfio-user:/run/nic0", 7};
	move->devices[1] = (struct move_device){"größe", "model:dmacopy,state=1M", 1};
	move->phases[0] = (struct move_phase){"quiesce", -1, 1, 5, 6, 0};
	move->phases[1] = (struct move_phase){"stop-copy", 1, 3, 7, 8, 4096};
	assert_int_equal(move_keep_sample(move, &(struct move_sample){"pre-copy", 2, 21, 22, 23, 24,
								      25, 26}),
			 0);
}

/* As the manual documents it. */
static const char told_text[] =
	"{\"verb\":\"save\",\"transport\":\"file:/tmp/set\",\"host\":\"venus\","
	"\"started_at\":1800000000,\"memory_bytes\":4611686018427387904,"
	"\"downtime_limit_us\":300000,\"bandwidth\":125000000,\"plan\":\"every device has P2P\","
	"\"ended\":true,\"report\":{\"owner\":\"unproved\",\"total_us\":4000001,"
	"\"waited_us\":3000004,\"downtime_us\":20002,\"memory_bytes\":1003,\"device_bytes\":1004,"
	"\"stop_bytes\":1005,"
	"\"passes\":6,\"predicted\":{\"pause_us\":1,\"quiesce_us\":2,\"stop_us\":3,"
	"\"collect_us\":4,\"transfer_us\":5,\"load_us\":6,\"commit_us\":7,\"run_us\":8,"
	"\"total_us\":36},\"measured\":{\"pause_us\":11,\"quiesce_us\":12,\"stop_us\":13,"
	"\"collect_us\":14,\"transfer_us\":15,\"load_us\":16,\"commit_us\":17,\"run_us\":18,"
	"\"total_us\":116},\"prediction_error_permille\":-690,"
	"\"outcome\":\"both are stopped\"},\"result\":\"unproved\",\"error\":{\"errno\":5,"
	"\"clause\":\"SET-5\",\"text\":\"the file could not be synced\"},"
	"\"devices\":[{\"name\":\"nic0\",\"uri\":\"vfio-user:/run/nic0\",\"flags\":7},"
	"{\"name\":\"größe\",\"uri\":\"model:dmacopy,state=1M\",\"flags\":1}],"
	"\"phases\":[{\"name\":\"quiesce\",\"device\":null,\"start_us\":5,\"duration_us\":6,"
	"\"bytes\":0,\"count\":1},{\"name\":\"stop-copy\",\"device\":1,\"start_us\":7,"
	"\"duration_us\":8,\"bytes\":4096,\"count\":3}],"
	"\"samples\":[{\"phase\":\"pre-copy\",\"pass\":2,\"elapsed_us\":21,\"bytes_sent\":22,"
	"\"bytes_remaining\":23,\"bytes_per_second\":24,\"dirty_per_second\":25,"
	"\"predicted_downtime_us\":26}]}";

static void assert_text(struct json_object *object, const char *text)
{
	assert_string_equal(json_object_to_json_string_ext(object, JSON_C_TO_STRING_NOSLASHESCAPE),
			    text);
}

static void test_round_trip(void **state)
{
	struct json_object *object, *parsed;
	struct move move, back;

	(void)state;
	tell(&move);
	object = move_to_json(&move);
	assert_non_null(object);
	assert_text(object, told_text);
	json_object_put(object);
	parsed = json_tokener_parse(told_text);
	assert_int_equal(move_from_json(parsed, &back), 0);
	object = move_to_json(&back);
	assert_text(object, told_text);
	/* What was read can be added to. */
	assert_int_equal(move_keep_sample(&back, &back.samples[0]), 0);
	assert_int_equal(back.num_samples, 2);
	json_object_put(object);
	json_object_put(parsed);
	move_release(&back);

	/* Without devices, error and end. */
	move_release(&move);
	object = move_to_json(&move);
	assert_int_equal(move_from_json(object, &back), 0);
	assert_int_equal(back.error_number, 0);
	assert_false(back.ended);
	json_object_put(object);
	move_release(&back);
}

static void test_sample_round_trip(void **state)
{
	const struct move_sample sample = {"load", 3, 1, 2, 3, 4, 5, 6};
	struct json_object *object = move_sample_to_json(&sample);
	struct json_object *again;
	struct move_sample back;

	(void)state;
	assert_int_equal(move_sample_from_json(object, &back), 0);
	again = move_sample_to_json(&back);
	assert_text(again, json_object_to_json_string_ext(object, JSON_C_TO_STRING_NOSLASHESCAPE));
	json_object_put(again);
	json_object_object_del(object, "pass");
	assert_int_equal(move_sample_from_json(object, &back), -EPROTO);
	json_object_put(object);
	assert_int_equal(move_sample_from_json(NULL, &back), -EPROTO);
}

static struct json_object *told(void)
{
	struct json_object *object;
	struct move move;

	tell(&move);
	object = move_to_json(&move);
	assert_non_null(object);
	move_release(&move);
	return object;
}

static void assert_refused(struct json_object *object)
{
	struct move move;

	assert_int_equal(move_from_json(object, &move), -EPROTO);
	assert_null(move.devices);
	assert_null(move.phases);
	assert_null(move.samples);
}

/* The part of a move that `path` leads to: "report/predicted", or the first of the "phases". */
static struct json_object *part_of(struct json_object *object, const char *path)
{
	char names[32], *rest = names, *name;

	(void)snprintf(names, sizeof(names), "%s", path);
	while ((name = strsep(&rest, "/")) != NULL && *name) {
		object = json_object_object_get(object, name);
		if (json_object_is_type(object, json_type_array))
			object = json_object_array_get_idx(object, 0);
	}
	return object;
}

/* The parts of a stop are called as the library calls them. */
static void test_parts(void **state)
{
	struct json_object *object = told();
	struct json_object *measured = part_of(object, "report/measured");

	(void)state;
	assert_int_equal(json_object_object_length(measured), QSC_DOWNTIME_PARTS + 1);
	for (int i = 0; i < QSC_DOWNTIME_PARTS; i++) {
		struct json_object *value;
		char name[32];

		(void)snprintf(name, sizeof(name), "%s_us",
			       qsc_downtime_part_name((enum qsc_downtime_part)i));
		assert_true(json_object_object_get_ex(measured, name, &value));
		assert_int_equal(json_object_get_int(value), 11 + i);
	}
	json_object_put(object);
}

/* Each key of each part: not there, or of a type that none of them has. */
static void test_every_key(void **state)
{
	static const char *const paths[] = {
		"",	 "report",  "report/predicted", "report/measured",
		"error", "devices", "phases",		"samples"};
	uint32_t tried = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct json_object *whole = told();

		json_object_object_foreach(part_of(whole, paths[i]), key, unused)
		{
			struct json_object *without = told(), *wrong = told();

			(void)unused;
			json_object_object_del(part_of(without, paths[i]), key);
			json_object_object_add(part_of(wrong, paths[i]), key,
					       json_object_new_double(0.5));
			/* It follows from the others. */
			if (strcmp(key, "result") != 0) {
				assert_refused(without);
				assert_refused(wrong);
			}
			json_object_put(without);
			json_object_put(wrong);
			tried++;
		}
		json_object_put(whole);
	}
	assert_in_range(tried, 60, 100);
}

static void test_wrong_values(void **state)
{
	static const struct {
		const char *path, *key, *value;
	} cases[] = {
		{"", "verb", "\"steal\""},
		{"", "memory_bytes", "-1"},
		{"", "memory_bytes", "4611686018427387905"},
		{"", "memory_bytes", "99999999999999999999999"},
		{"", "host", "\"a\\u0000b\""},
		{"", "host",
		 "\"0123456789012345678901234567890123456789012345678901234567890123\""},
		{"", "devices", "null"},
		{"", "error", "{}"},
		{"error", "errno", "0"},
		{"error", "errno", "-5"},
		{"error", "clause", "\"0123456789012345\""},
		{"report", "owner", "\"nobody\""},
		{"report", "passes", "4294967296"},
		{"phases", "device", "2"},
		{"phases", "device", "-1"},
		{"phases", "device", "2147483648"},
		{"phases", "start_us", "18446744073709551615"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct json_object *object = told();

		json_object_object_add(part_of(object, cases[i].path), cases[i].key,
				       json_tokener_parse(cases[i].value));
		assert_refused(object);
		json_object_put(object);
	}
	assert_refused(NULL);
}

static void test_too_many(void **state)
{
	static const struct {
		const char *name;
		size_t max;
	} lists[] = {{"devices", MOVE_MAX_DEVICES},
		     {"phases", MOVE_MAX_PHASES},
		     {"samples", MOVE_MAX_SAMPLES}};

	(void)state;
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct json_object *object = told();
		struct json_object *list = json_object_object_get(object, lists[i].name);
		struct move move;

		while (json_object_array_length(list) < lists[i].max)
			json_object_array_add(list,
					      json_object_get(json_object_array_get_idx(list, 0)));
		assert_int_equal(move_from_json(object, &move), 0);
		move_release(&move);
		json_object_array_add(list, json_object_get(json_object_array_get_idx(list, 0)));
		assert_refused(object);
		json_object_put(object);
	}
}

/* Nothing that came or goes as JSON can steer a terminal, or is no JSON. */
static void test_steering(void **state)
{
	struct json_object *object = told();
	struct move move;

	(void)state;
	json_object_object_add(part_of(object, "devices"), "name",
			       json_object_new_string("a\033[31m\xff"));
	assert_int_equal(move_from_json(object, &move), 0);
	assert_string_equal(move.devices[0].name, "a?[31m?");
	json_object_put(object);
	(void)snprintf(move.devices[1].name, sizeof(move.devices[1].name), "b\r\xfe");
	object = move_to_json(&move);
	assert_non_null(strstr(json_object_to_json_string(object), "\"b??\""));
	json_object_put(object);
	move_release(&move);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_text),	      cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_samples),	      cmocka_unit_test(test_timeline),
		cmocka_unit_test(test_long_timeline), cmocka_unit_test(test_exit_code),
		cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_sample_round_trip),
		cmocka_unit_test(test_every_key),     cmocka_unit_test(test_wrong_values),
		cmocka_unit_test(test_parts),	      cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_steering),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
