/* SPDX-License-Identifier: MIT */
/* Reading what a person types, and saying what there is when it is wrong. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <quiesce/runtime.h>

#include "dmacopy/dmacopy.h"
#include "models.h"

static void sizes_are_read_as_people_write_them(void **unused)
{
	static const struct {
		const char *text;
		uint64_t size;
	} right[] = {
		{"0", 0},
		{"4096", 4096},
		{"0x1000", 4096},
		{"4K", 4096},
		{"64M", 64ULL << 20},
		{"64MiB", 64ULL << 20},
		{"64MB", 64ULL << 20},
		{"1G", 1ULL << 30},
		{"2T", 2ULL << 40},
		{"16777215T", 16777215ULL << 40},
	};
	static const char *const wrong[] = {"",	   "M",	 "-1",	      " 1",
					    "1X",  "1m", "1KK",	      "1Ki",
					    "1 K", "+1", "16777216T", "18446744073709551616"};
	uint64_t size;

	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		assert_int_equal(models_parse_size(right[i].text, &size), 0);
		assert_int_equal(size, right[i].size);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		assert_int_equal(models_parse_size(wrong[i], &size), -EINVAL);
}

static void specs_choose_the_device(void **unused)
{
	static const struct {
		const char *spec;
		uint64_t memory;
		uint32_t flags;
		uint32_t vectors;
	} cases[] = {
		{"dmacopy", 1ULL << 20, 7, 16},
		{"dmacopy,flags=1,memory=4K,vectors=1,name=one", 4096, 1, 1},
		{"dmacopy,flags=3,tells-peers=on", 1ULL << 20, 3, 16},
		{"dmacopy,flags=5,tells-peers=off,vectors=2048", 1ULL << 20, 5, 2048},
		{"dmacopy,flags=stop-copy", 1ULL << 20, 1, 16},
		{"dmacopy,flags=p2p", 1ULL << 20, 3, 16},
		{"dmacopy,flags=stop-copy+pre-copy", 1ULL << 20, 5, 16},
		{"dmacopy,flags=pre-copy+p2p,memory=64M", 64ULL << 20, 7, 16},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_migration_info migration;
		struct qsc_region_info region;
		struct qsc_device *dev;
		uint32_t vectors;

		if (models_open(cases[i].spec, NULL, &dev, &err))
			fail_msg("%s", err.text);
		assert_int_equal(qsc_device_get_migration(dev, &migration), 0);
		assert_int_equal(migration.flags, cases[i].flags);
		assert_int_equal(qsc_device_get_region_info(dev, DMACOPY_BAR_LOCAL, &region), 0);
		assert_int_equal(region.size, cases[i].memory);
		assert_int_equal(qsc_device_region_read(dev, DMACOPY_BAR_REGISTERS,
							DMACOPY_REG_VECTORS, &vectors,
							sizeof(vectors)),
				 sizeof(vectors));
		assert_int_equal(vectors, cases[i].vectors);
		qsc_device_close(dev);
	}
}

static void wrong_specs_say_what_there_is(void **unused)
{
	static const struct {
		const char *spec;
		const char *text;
	} cases[] = {
		{"", "there is no model \"\"; there is: dmacopy, nvme"},
		{"nic", "there is no model \"nic\"; there is: dmacopy, nvme"},
		{"dmacopy,", "an option of model dmacopy is missing after a comma"},
		{"dmacopy,,flags=1", "an option of model dmacopy is missing after a comma"},
		{"dmacopy,flags=1,", "an option of model dmacopy is missing after a comma"},
		{"dmacopy,=1", "model dmacopy has no option \"\"; it has: flags, tells-peers, "
			       "memory, vectors, name"},
		{"dmacopy,flags=1,name=a,flags=7",
		 "option flags of model dmacopy is given twice; give it once"},
		{"dmacopy,speed=7", "model dmacopy has no option \"speed\"; it has: flags, "
				    "tells-peers, memory, vectors, name"},
		{"dmacopy,flags", "option flags of model dmacopy needs a value: flags=VALUE, "
				  "where VALUE is 1, 3, 5 or 7, or stop-copy, p2p and pre-copy "
				  "joined by '+'"},
		{"dmacopy,flags=2", "option flags of model dmacopy cannot be \"2\"; it is 1, 3, "
				    "5 or 7, or stop-copy, p2p and pre-copy joined by '+'"},
		{"dmacopy,flags=p2p+", NULL},
		{"dmacopy,flags=", NULL},
		{"dmacopy,tells-peers=yes",
		 "option tells-peers of model dmacopy cannot be \"yes\"; it is on or off"},
		{"dmacopy,memory=3M", "option memory of model dmacopy cannot be \"3M\"; it is a "
				      "power of two from 4K to 1T"},
		{"dmacopy,memory=2K", NULL},
		{"dmacopy,memory=2T", NULL},
		{"dmacopy,vectors=0", NULL},
		{"dmacopy,vectors=2049", NULL},
		{"dmacopy,name=",
		 "option name of model dmacopy cannot be \"\"; it is any text but the "
		 "empty one, without a comma"},
		{"nvme", "nvme needs either file=PATH or ram=SIZE to keep its blocks in"},
		{"nvme,ram=1M,file=x",
		 "nvme needs either file=PATH or ram=SIZE to keep its blocks in"},
		{"nvme,ram=4097K,flags=2", NULL},
		{"nvme,ram=512K", "option ram of model nvme cannot be \"512K\"; it is a multiple "
				  "of 4K from 1M to 1T"},
		{"nvme,ram=1M,readonly=on", "an nvme in ram cannot be readonly: nobody could have "
					    "written to it"},
		{"nvme,ram=1M,queues=33", NULL},
		{"nvme,ram=1M,serial=123456789012345678901", NULL},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct qsc_error err = QSC_ERROR_NONE;
		struct qsc_runtime *rt;

		assert_int_equal(models_create(cases[i].spec, NULL, &rt, &err), -EINVAL);
		assert_int_equal(err.number, EINVAL);
		if (cases[i].text)
			assert_string_equal(err.text, cases[i].text);
	}
}

static void messages_have_the_name_that_was_given(void **unused)
{
	static const struct {
		const char *spec;
		const char *name;
	} cases[] = {
		{"dmacopy", "dmacopy"},	       {"dmacopy,flags=1", "dmacopy"},
		{"dmacopy,name=nic0", "nic0"}, {"dmacopy,flags=1,name=nic0,memory=4K", "nic0"},
		{"dmacopy,name=a=b", "a=b"},   {"dmacopy,name=longername", "longern"},
	};
	char name[8];

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		models_name(cases[i].spec, name, sizeof(name));
		assert_string_equal(name, cases[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_read_as_people_write_them),
		cmocka_unit_test(specs_choose_the_device),
		cmocka_unit_test(wrong_specs_say_what_there_is),
		cmocka_unit_test(messages_have_the_name_that_was_given),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
