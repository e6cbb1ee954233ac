/* SPDX-License-Identifier: MIT */
/* Unit tests of finding a kernel device by what a person calls it, in a made-up sysfs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "client/kernel/kernel.h"

static char root[64];

static void put_folder(const char *path)
{
	char command[512];

	(void)snprintf(command, sizeof(command), "mkdir -p %s/%s", root, path);
	assert_int_equal(system(command), 0);
}

static void put_link(const char *path, const char *target)
{
	char at[512];

	(void)snprintf(at, sizeof(at), "%s/%s", root, path);
	assert_int_equal(symlink(target, at), 0);
}

static int find(const char *text, struct qsc_kernel_place *place, const char *says)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_kernel_way way;
	int result = qsc_kernel_find(root, text, place, &way, &err);

	if (says && !strstr(err.text, says))
		fail_msg("'%s' says '%s'", text, err.text);
	return result;
}

/* With no descriptor free nothing can be told of a device, and that is not to say that it has none.
 */
static void without_descriptors(void)
{
	static const char *const names[] = {"0000:3b:00.2", "0000:3b:00.6", "/dev/vfio/12"};
	struct qsc_kernel_place place;
	struct rlimit all, none;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &all), 0);
	none = (struct rlimit){.rlim_cur = 0, .rlim_max = all.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	for (size_t i = 0; i < QSC_ARRAY_SIZE(names); i++)
		assert_int_equal(find(names[i], &place, "Too many open files"), -EMFILE);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &all), 0);
}

static void test_names(void **unused)
{
	struct qsc_kernel_place place;

	(void)unused;
	(void)snprintf(root, sizeof(root), "%s/quiesce-kernel-XXXXXX",
		       getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
	assert_non_null(mkdtemp(root));
	put_folder("sys/bus/pci/devices/0000:3b:00.2/vfio-dev/vfio3/dev");
	put_link("sys/bus/pci/devices/0000:3b:00.2/driver", "../../drivers/mlx5_vfio_pci");
	put_link("sys/bus/pci/devices/0000:3b:00.2/iommu_group", "../../kernel/iommu_groups/12");
	put_folder("sys/bus/pci/devices/0000:3b:00.3");
	put_link("sys/bus/pci/devices/0000:3b:00.3/driver", "../../drivers/nvme");
	put_link("sys/bus/pci/devices/0000:3b:00.3/iommu_group", "../../kernel/iommu_groups/13");
	put_folder("sys/bus/pci/devices/0000:3b:00.4");
	put_folder("sys/bus/pci/devices/0000:3b:00.6/vfio-dev/vfio4");
	put_link("sys/bus/pci/devices/0000:3b:00.6/driver", "../../drivers/vfio-pci");
	put_link("sys/bus/pci/devices/0000:3b:00.6/iommu_group", "../../kernel/iommu_groups/16");
	put_folder("sys/bus/pci/devices/0000:3b:00.8");
	put_link("sys/bus/pci/devices/0000:3b:00.8/driver", "../../drivers/vfio-pci");
	put_link("sys/bus/pci/devices/0000:3b:00.8/iommu_group",
		 "../../kernel/iommu_groups/1234567890123456789");
	put_folder("sys/kernel/iommu_groups/12/devices/0000:3b:00.2");
	put_folder("sys/kernel/iommu_groups/14/devices/0000:3b:00.3");
	put_folder("sys/kernel/iommu_groups/14/devices/0000:3b:00.5");
	assert_int_equal(find("0000:3B:00.2", &place, NULL), 0);
	assert_string_equal(place.cdev, "/dev/vfio/devices/vfio3");
	assert_string_equal(place.group, "/dev/vfio/12");
	assert_string_equal(place.device, "0000:3b:00.2");
	assert_int_equal(find("0000:3b:00.6", &place, NULL), 0);
	assert_string_equal(place.cdev, "");
	assert_int_equal(find("/dev/vfio/12", &place, NULL), 0);
	assert_string_equal(place.device, "0000:3b:00.2");
	assert_int_equal(find("/dev/vfio/devices/vfio7,via=cdev", &place, NULL), 0);
	assert_int_equal(find("/dev/vfio/devices/vfio7,raw,via=cdev", &place, NULL), 0);
	assert_string_equal(place.cdev, "/dev/vfio/devices/vfio7");
	assert_int_equal(find("0000:3b:00.3", &place, "bound to the driver 'nvme'"), -ENODEV);
	assert_int_equal(find("0000:3b:00.3", &place, "modprobe vfio-pci"), -ENODEV);
	assert_int_equal(find("0000:3b:00.4", &place, "behind no IOMMU"), -ENODEV);
	assert_int_equal(find("0000:3b:00.8", &place, "behind no IOMMU"), -ENODEV);
	assert_string_equal(place.group_id, "");
	assert_int_equal(find("0000:3b:00.7", &place, "no PCI device"), -ENOENT);
	assert_int_equal(find("/dev/vfio/14", &place, "has 2 devices"), -EINVAL);
	assert_int_equal(find("/dev/vfio/15", &place, "no IOMMU group 15"), -ENOENT);
	assert_int_equal(find("/dev/vfio/x", &place, "a group is"), -EINVAL);
	assert_int_equal(find("/dev/vfio/1f", &place, "a group is"), -EINVAL);
	assert_int_equal(find("/dev/vfio/noiommu-3", &place, "behind no IOMMU"), -ENODEV);
	assert_int_equal(find("/dev/vfio/1234567890", &place, "a group is"), -EINVAL);
	assert_int_equal(find("/dev/vfio/123456", &place, "no IOMMU group 123456"), -ENOENT);
	assert_int_equal(find("/dev/vfio/devices/../vfio", &place, "a device file is"), -EINVAL);
	assert_int_equal(find("11111111-2222-3333-4444-555555555555", &place, "no mediated"),
			 -ENOENT);
	assert_int_equal(find("/dev/vfio/devices/vfio7,raw,", &place, "no option"), -EINVAL);
	assert_int_equal(find("0000:3b:00.2,via=magic", &place, "no option"), -EINVAL);
	assert_int_equal(find("0000:3b:00.2,via=cdev,via=cdev", &place, NULL), 0);
	assert_int_equal(find("0000:3b:00.2,via=cdev,via=legacy", &place, "not both"), -EINVAL);
	assert_int_equal(find("nic0", &place, "no name of a kernel device"), -EINVAL);
	assert_int_equal(find("", &place, "names no device"), -EINVAL);
	without_descriptors();
	{
		char command[128];

		(void)snprintf(command, sizeof(command), "rm -r %s", root);
		assert_int_equal(system(command), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
