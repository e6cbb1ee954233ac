/* SPDX-License-Identifier: MIT */
/* One test by name, in a process of its own. */
#include "vmm.h"

static const struct {
	const char *name;
	void (*run)(void);
} tests[] = {
	{"cdev", test_cdev},
	{"legacy", test_legacy},
	{"strict-iommufd", test_strict_iommufd},
	{"strict-device", test_strict_device},
	{"strict-legacy", test_strict_legacy},
	{"revoke", test_revoke},
	{"files", test_files},
	{"fork", test_fork},
	{"threads", test_threads},
	{"move", test_move},
	{"limit", test_limit},
	{"track", test_track},
	{"paths", test_paths},
	{"sockets", test_sockets},
	{"kvm", test_kvm},
	{"vectors", test_vectors},
	{"mappings", test_mappings},
	{"foreign", test_foreign},
	{"pointers", test_pointers},
	{"ioeventfd", test_ioeventfd},
	{"intx", test_intx},
	{"request", test_request},
};

int main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
		if (argc < 2) {
			(void)puts(tests[i].name);
		} else if (!strcmp(argv[1], tests[i].name)) {
			tests[i].run();
			return 0;
		}
	}
	return argc < 2 ? 0 : 2;
}
