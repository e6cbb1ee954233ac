/* SPDX-License-Identifier: MIT */
/* Layouts: which can be, and which of two fit each other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "device/layout.h"

static const struct qsc_layout thing = {
	.type = "thing",
	.num_parts = 3,
	.parts = {{"regs", QSC_LAYOUT_SECTION, 4, 2, 100},
		  {"memory", QSC_LAYOUT_BLOCK, 0, 0, 8192},
		  {"custom", QSC_LAYOUT_CUSTOM, 0, 0, 64}},
};

struct reasons {
	unsigned int count;
	char first[512];
};

static void note(void *ctx, const char *reason)
{
	struct reasons *reasons = ctx;

	if (!reasons->count++)
		(void)snprintf(reasons->first, sizeof(reasons->first), "%s", reason);
}

/* How many reasons there are against loading `theirs` into a thing; the first stands in *out. */
static unsigned int against(const struct qsc_layout *theirs, struct reasons *out)
{
	*out = (struct reasons){.count = 0};
	qsc_layout_compare(&thing, theirs, note, out);
	return out->count;
}

static void test_SESS_11_what_fits(void **state)
{
	struct qsc_layout theirs = thing;
	struct reasons why;

	(void)state;
	assert_int_equal(against(&theirs, &why), 0);
	/* An older one that can be loaded, which had less. */
	theirs.parts[0].version = 2;
	theirs.parts[0].min_version = 1;
	theirs.parts[0].size = 60;
	theirs.parts[2].size = 1;
	assert_int_equal(against(&theirs, &why), 0);
	/* One that does not say. */
	theirs.type[0] = '\0';
	theirs.num_parts = 0;
	assert_int_equal(against(&theirs, &why), 0);
	qsc_layout_compare(&theirs, &thing, note, &why);
	assert_int_equal(why.count, 0);
}

static void test_SESS_11_what_does_not_fit(void **state)
{
	struct qsc_layout theirs = thing;
	struct reasons why;

	(void)state;
	(void)strcpy(theirs.type, "other");
	theirs.num_parts = 1;
	assert_int_equal(against(&theirs, &why), 1);
	assert_string_equal(why.first,
			    "the type is other at the source and thing at the destination");
	theirs = thing;
	theirs.num_parts = 2;
	assert_int_equal(against(&theirs, &why), 1);
	assert_string_equal(why.first,
			    "the state has 2 parts at the source and 3 at the destination");
	theirs = thing;
	theirs.parts[0].version = 5;
	assert_int_equal(against(&theirs, &why), 1);
	assert_string_equal(why.first, "section regs has version 5 at the source, and 2 to 4 can "
				       "be loaded at the destination");
	theirs.parts[0].version = 1;
	assert_int_equal(against(&theirs, &why), 1);
	theirs.parts[0].version = 4;
	theirs.parts[0].size = 96;
	assert_int_equal(against(&theirs, &why), 1);
	assert_string_equal(why.first,
			    "section regs has 96 bytes at the source and 100 at the destination");
	theirs.parts[0].version = 3;
	theirs.parts[0].size = 104;
	assert_int_equal(against(&theirs, &why), 1);
	theirs = thing;
	(void)strcpy(theirs.parts[0].name, "queues");
	theirs.parts[1].size = 4096;
	theirs.parts[2].size = 65;
	assert_int_equal(against(&theirs, &why), 3);
	assert_string_equal(why.first, "part 0 of the state is section queues at the source and "
				       "section regs at the destination");
	theirs = thing;
	theirs.parts[1].kind = QSC_LAYOUT_SECTION;
	assert_int_equal(against(&theirs, &why), 1);
}

static void test_what_can_be(void **state)
{
	struct qsc_layout layout = thing;
	char name[QSC_LAYOUT_NAME + 1];

	(void)state;
	assert_true(qsc_layout_valid(&layout));
	layout.type[0] = '\0';
	assert_false(qsc_layout_valid(&layout));
	layout.num_parts = 0;
	assert_true(qsc_layout_valid(&layout));
	layout = thing;
	layout.num_parts = QSC_LAYOUT_PARTS + 1;
	assert_false(qsc_layout_valid(&layout));
	layout = thing;
	layout.parts[2].kind = (enum qsc_layout_kind)3;
	assert_false(qsc_layout_valid(&layout));
	layout = thing;
	layout.parts[0].min_version = 5;
	assert_false(qsc_layout_valid(&layout));
	layout = thing;
	layout.parts[1].name[0] = '\0';
	assert_false(qsc_layout_valid(&layout));
	assert_false(qsc_layout_name_valid(""));
	assert_false(qsc_layout_name_valid("a\x1b[31m"));
	assert_false(qsc_layout_name_valid("\xc3\xa9"));
	memset(name, 'n', sizeof(name));
	name[QSC_LAYOUT_NAME] = '\0';
	assert_false(qsc_layout_name_valid(name));
	name[QSC_LAYOUT_NAME - 1] = '\0';
	assert_true(qsc_layout_name_valid(name));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_SESS_11_what_fits),
		cmocka_unit_test(test_SESS_11_what_does_not_fit),
		cmocka_unit_test(test_what_can_be),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
