/* SPDX-License-Identifier: MIT */
/* The order of the waves: phases that lie are found out, true ones are not accused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "demo.h"

/* Two devices on the source that quiesce, stop, start and run, as they should. */
static const struct demo_phase good[] = {
	{.name = "quiesce", .source = true, .device = -1, .start_us = 9, .duration_us = 12},
	{.name = "quiesce", .source = true, .device = 0, .start_us = 10, .duration_us = 5},
	{.name = "quiesce", .source = true, .device = 1, .start_us = 11, .duration_us = 9},
	{.name = "stop", .source = true, .device = 0, .start_us = 20, .duration_us = 5},
	{.name = "stop", .source = true, .device = 1, .start_us = 21, .duration_us = 6},
	{.name = "start", .source = true, .device = 0, .start_us = 40, .duration_us = 5},
	{.name = "start", .source = true, .device = 1, .start_us = 41, .duration_us = 9},
	{.name = "run", .source = true, .device = 1, .start_us = 50, .duration_us = 2},
	{.name = "run", .source = true, .device = 0, .start_us = 51, .duration_us = 2},
};

#define COUNT (sizeof(good) / sizeof(good[0]))
enum { QUIESCE_1 = 2, STOP_0 = 3, START_1 = 6, RUN_1 = 7 };

struct story {
	struct demo_phase phases[COUNT];
	struct demo_outcome outcome;
};

static void tell(struct story *story)
{
	memcpy(story->phases, good, sizeof(good));
	story->outcome = (struct demo_outcome){
		.config = {.tenant = {.devices = 2}, .flags = 7},
		.phases = story->phases,
		.num_phases = COUNT,
	};
}

static void name(struct story *story, size_t i, const char *text)
{
	(void)snprintf(story->phases[i].name, sizeof(story->phases[i].name), "%s", text);
}

static void test_truth(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	assert_int_equal(demo_check_waves(&story.outcome), 0);
	story.outcome.num_phases = 0;
	assert_int_equal(demo_check_waves(&story.outcome), 0);
}

static void test_stop_too_early(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	story.phases[STOP_0].start_us = 19;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1);
}

static void test_quiesce_too_late(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	story.phases[QUIESCE_1].start_us = 30;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1);
}

static void test_never_quiescent(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	/* On another side, or in another migration, it does not count. */
	story.phases[QUIESCE_1].source = false;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1);
	story.phases[QUIESCE_1].source = true;
	story.phases[QUIESCE_1].migration = 1;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1);
	/* The last of a chain without P2P reaches nobody, all others must be kept from it. */
	story.outcome.config.flags = 1;
	assert_int_equal(demo_check_waves(&story.outcome), 0);
	name(&story, QUIESCE_1 - 1, "revoke");
	assert_int_equal(demo_check_waves(&story.outcome), 0);
	name(&story, QUIESCE_1 - 1, "other");
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1);
}

static void test_run_too_early(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	story.phases[RUN_1].start_us = 49;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_2);
	story.phases[STOP_0].start_us = 0;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_1 | DEMO_BROKE_SET_2);
}

static void test_start_too_late(void **state)
{
	struct story story;

	(void)state;
	tell(&story);
	story.phases[START_1].duration_us = 20;
	assert_int_equal(demo_check_waves(&story.outcome), DEMO_BROKE_SET_2);
}

static void test_many_devices(void **state)
{
	struct demo_phase phases[DEMO_MAX_DEVICES + 1];
	struct demo_outcome outcome = {
		.config = {.tenant = {.devices = DEMO_MAX_DEVICES}, .flags = 3},
		.phases = phases,
		.num_phases = DEMO_MAX_DEVICES + 1,
	};
	uint32_t i;

	(void)state;
	for (i = 0; i < DEMO_MAX_DEVICES; i++)
		phases[i] = (struct demo_phase){
			.name = "quiesce", .device = (int32_t)i, .start_us = i, .duration_us = 1};
	phases[i] = (struct demo_phase){.name = "stop", .device = 0, .start_us = i};
	assert_int_equal(demo_check_waves(&outcome), 0);
	phases[i - 1].duration_us++;
	assert_int_equal(demo_check_waves(&outcome), DEMO_BROKE_SET_1);
	phases[i - 1].device = 0;
	phases[i - 1].duration_us = 0;
	assert_int_equal(demo_check_waves(&outcome), DEMO_BROKE_SET_1);
}

static void test_states(void **state)
{
	const uint8_t states[] = {DEMO_STATE_UNKNOWN, QSC_STATE_RUNNING, QSC_STATE_STOP,
				  QSC_STATE_RUNNING};
	char text[64], tiny[8];

	(void)state;
	demo_describe_states(states, 4, text, sizeof(text));
	assert_string_equal(text, "2 in STOP; 1, 3 in RUNNING; 0 gave no answer");
	demo_describe_states(states, 4, tiny, sizeof(tiny));
	assert_string_equal(tiny, "2 in ST");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truth),
		cmocka_unit_test(test_stop_too_early),
		cmocka_unit_test(test_quiesce_too_late),
		cmocka_unit_test(test_never_quiescent),
		cmocka_unit_test(test_run_too_early),
		cmocka_unit_test(test_start_too_late),
		cmocka_unit_test(test_many_devices),
		cmocka_unit_test(test_states),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
