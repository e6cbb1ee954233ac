/* SPDX-License-Identifier: MIT */
/* See launch.h. */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <quiesce/device.h>

#include "models.h"
#include "sysfs.h"

#define LIBRARY "libquiesce-preload.so"

/* ---- devices ---- */

int launch_add_device(struct launch *launch, const char *spec, struct qsc_error *err)
{
	struct handover_config *config = &launch->config;
	struct handover_device *device = &config->devices[config->num_devices];
	struct qsc_runtime *rt;
	int result;

	if (!strncmp(spec, "model:", 6))
		spec += 6;
	if (config->num_devices == HANDOVER_MAX_DEVICES)
		return qsc_error_set(err, EINVAL, NULL, "more than %u devices are not possible",
				     HANDOVER_MAX_DEVICES);
	if (!strncmp(spec, "vfio-user:", 10)) {
		if (!spec[10])
			return qsc_error_set(err, EINVAL, NULL, "'%s' names no socket", spec);
	} else if (!strncmp(spec, "vfio:", 5)) {
		return qsc_error_set(err, EINVAL, NULL,
				     "'%s' is a device of the kernel, which the command can open "
				     "itself; to have it looked at here, serve it ('quiesce serve "
				     "%s --socket PATH') and name vfio-user:PATH",
				     spec, spec);
	} else {
		/* Made once to see that it can be: the command makes it again. */
		result = models_create(spec, NULL, &rt, err);
		if (result < 0)
			return result;
		qsc_runtime_destroy(rt);
	}
	device->spec = strdup(spec);
	if (!device->spec)
		return qsc_error_set(err, ENOMEM, NULL, "out of memory");
	(void)snprintf(device->name, sizeof(device->name), "vfio%u", config->num_devices);
	config->num_devices++;
	return 0;
}

int launch_set_fault(struct launch *launch, const char *spec, struct qsc_error *err)
{
	int result = qsc_fault_check(spec, err);

	if (result < 0)
		return result;
	if (launch->config.fault)
		return qsc_error_set(err, EINVAL, NULL,
				     "--fault is given twice; put all rules into one, separated by "
				     "commas");
	launch->config.fault = strdup(spec);
	return launch->config.fault ? 0 : qsc_error_set(err, ENOMEM, NULL, "out of memory");
}

int launch_check_fault(const struct launch *launch, struct qsc_error *err)
{
	const char *names[HANDOVER_MAX_DEVICES];

	for (uint32_t i = 0; i < launch->config.num_devices; i++)
		names[i] = launch->config.devices[i].name;
	return qsc_fault_check_names(launch->config.fault, names, launch->config.num_devices, err);
}

/* ---- the library ---- */

/* Beside this program, as it is built, or where it is installed. */
static int find_library(struct launch *launch, struct qsc_error *err)
{
	static const char *const places[] = {"", "../lib/", "../lib/x86_64-linux-gnu/",
					     "../lib64/"};
	char self[PATH_MAX - 64];
	ssize_t size = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (size < 0)
		return qsc_error_set(err, errno, NULL, "cannot tell where this program is: %s",
				     strerror(errno));
	self[size] = '\0';
	slash = strrchr(self, '/');
	slash[1] = '\0';
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		(void)snprintf(launch->library, sizeof(launch->library), "%s%s" LIBRARY, self,
			       places[i]);
		if (!access(launch->library, R_OK))
			return 0;
	}
	return qsc_error_set(err, ENOENT, NULL,
			     "there is no " LIBRARY " beside %s or in its ../lib; build or install "
			     "all of Quiesce",
			     self);
}

/* ---- files ---- */

/* At a high number where the limit allows it, out of the way of what the command opens. */
static int make_file(enum handover_kind kind, uint32_t index, int wanted)
{
	int fd = handover_make(kind, index, false);
	int high;

	if (fd < 0)
		return fd;
	high = fcntl(fd, F_DUPFD, wanted);
	if (high < 0)
		return fd;
	close(fd);
	return high;
}

static int make_files(struct launch *launch, struct qsc_error *err)
{
	launch->iommufd = make_file(HANDOVER_IOMMUFD, 0, HANDOVER_FIRST_NUMBER);
	if (launch->iommufd < 0)
		return qsc_error_set(err, -launch->iommufd, NULL, "cannot make a file: %s",
				     strerror(-launch->iommufd));
	for (uint32_t i = 0; i < launch->config.num_devices; i++) {
		launch->vfio[i] = make_file(HANDOVER_CDEV, i, HANDOVER_FIRST_NUMBER + 1 + (int)i);
		if (launch->vfio[i] < 0)
			return qsc_error_set(err, -launch->vfio[i], NULL, "cannot make a file: %s",
					     strerror(-launch->vfio[i]));
	}
	return 0;
}

static int make_folder(struct launch *launch, struct qsc_error *err)
{
	int result = folder_make(&launch->folder, err);

	if (!result)
		result = handover_write(launch->folder.path, &launch->config, err);
	for (uint32_t i = 0; i < launch->config.num_devices && !result; i++)
		result = sysfs_make(launch->folder.path, i, err);
	if (result < 0)
		return result;
	launch->seen = handover_seen_map(launch->folder.path);
	if (!launch->seen)
		return qsc_error_set(err, errno, NULL, "cannot map the counters in %s: %s",
				     launch->folder.path, strerror(errno));
	return 0;
}

/* ---- the command line ---- */

/*
 * The value of what stands in braces, as "vfio0"; false when it is nothing of ours and stays as it
 * is.
 */
static bool placeholder(const struct launch *launch, const char *name, size_t size, char *value)
{
	static const char *const words[] = {"vfio", "sysfs", "host"};
	char *end;

	if (size == 7 && !strncmp(name, "iommufd", 7)) {
		(void)snprintf(value, PATH_MAX, "%d", launch->iommufd);
		return true;
	}
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		size_t length = strlen(words[i]);
		unsigned long number;

		if (size <= length || strncmp(name, words[i], length) != 0 || name[length] < '0' ||
		    name[length] > '9')
			continue;
		number = strtoul(name + length, &end, 10);
		if (end != name + size || number >= launch->config.num_devices)
			return false;
		if (i == 0)
			(void)snprintf(value, PATH_MAX, "%d", launch->vfio[number]);
		else if (i == 1)
			sysfs_path(launch->folder.path, (uint32_t)number, value);
		else
			sysfs_host((uint32_t)number, value);
		return true;
	}
	return false;
}

/* A copy of one word of the command line with the placeholders replaced. */
static char *fill_in(const struct launch *launch, const char *word)
{
	char value[PATH_MAX];
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (*word) {
		const char *end = *word == '{' ? strchr(word, '}') : NULL;

		if (end && placeholder(launch, word + 1, (size_t)(end - word - 1), value)) {
			(void)fputs(value, out);
			word = end + 1;
		} else {
			(void)fputc(*word++, out);
		}
	}
	return fclose(out) ? NULL : text;
}

static int fill_in_all(struct launch *launch, char *const command[], struct qsc_error *err)
{
	size_t count = 0;

	while (command[count])
		count++;
	launch->command = calloc(count + 1, sizeof(char *));
	for (size_t i = 0; i < count && launch->command; i++) {
		launch->command[i] = fill_in(launch, command[i]);
		if (!launch->command[i])
			return qsc_error_set(err, ENOMEM, NULL, "out of memory");
	}
	return launch->command ? 0 : qsc_error_set(err, ENOMEM, NULL, "out of memory");
}

int launch_make(struct launch *launch, char *const command[], struct qsc_error *err)
{
	int result = find_library(launch, err);

	if (!result)
		result = make_folder(launch, err);
	if (!result)
		result = make_files(launch, err);
	if (!result)
		result = fill_in_all(launch, command, err);
	return result;
}

void launch_tell(const struct launch *launch, FILE *out)
{
	char path[PATH_MAX];
	char host[32];

	(void)fprintf(out, "{iommufd} is fd %d, also /dev/iommu\n", launch->iommufd);
	for (uint32_t i = 0; i < launch->config.num_devices; i++) {
		sysfs_path(launch->folder.path, i, path);
		sysfs_host(i, host);
		(void)fprintf(out,
			      "{vfio%u} is fd %d, also /dev/vfio/devices/vfio%u, /dev/vfio/%u: %s\n"
			      "  {host%u} is %s, {sysfs%u} is %s\n",
			      i, launch->vfio[i], i, i, launch->config.devices[i].spec, i, host, i,
			      path);
	}
}

/* ---- running ---- */

static volatile pid_t running;

static void pass_on(int number)
{
	if (running > 0)
		(void)kill(running, number);
}

static const int passed[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
#define NUM_PASSED (sizeof(passed) / sizeof(passed[0]))

static int set_environment(const struct launch *launch)
{
	const char *others = getenv("LD_PRELOAD");
	char value[2 * PATH_MAX];

	/* Last: a sanitizer's runtime has to come first. */
	(void)snprintf(value, sizeof(value), "%s%s%s", others ? others : "", others ? ":" : "",
		       launch->library);
	if (setenv("LD_PRELOAD", value, 1) < 0 || setenv(HANDOVER_ENV, launch->folder.path, 1) < 0)
		return -errno;
	return 0;
}

/* In the child; tells why through the pipe when the command cannot be started. */
_Noreturn static void become(const struct launch *launch, const struct sigaction *old,
			     const sigset_t *mask, int pipe)
{
	int number;

	for (size_t i = 0; i < NUM_PASSED; i++)
		(void)sigaction(passed[i], &old[i], NULL);
	(void)sigprocmask(SIG_SETMASK, mask, NULL);
	number = -set_environment(launch);
	if (!number) {
		(void)execvp(launch->command[0], launch->command);
		number = errno;
	}
	(void)!write(pipe, &number, sizeof(number));
	_exit(127);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int launch_run(struct launch *launch, struct qsc_error *err)
{
	struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
	struct sigaction old[NUM_PASSED];
	sigset_t held;
	sigset_t mask;
	int number = 0;
	int ends[2];
	int code;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make a pipe: %s", strerror(errno));
	/* None is lost between here and where it is known whom to pass it to. */
	(void)sigemptyset(&held);
	for (size_t i = 0; i < NUM_PASSED; i++)
		(void)sigaddset(&held, passed[i]);
	(void)sigprocmask(SIG_BLOCK, &held, &mask);
	for (size_t i = 0; i < NUM_PASSED; i++)
		(void)sigaction(passed[i], &action, &old[i]);
	(void)fflush(NULL);
	running = fork();
	if (!running)
		become(launch, old, &mask, ends[1]);
	(void)sigprocmask(SIG_SETMASK, &mask, NULL);
	close(ends[1]);
	if (running < 0) {
		code = qsc_error_set(err, errno, NULL, "cannot start a process: %s",
				     strerror(errno));
	} else {
		ssize_t n = read(ends[0], &number, sizeof(number));

		code = wait_for(running);
		if (n == sizeof(number))
			code = qsc_error_set(err, number, NULL, "cannot start %s: %s",
					     launch->command[0], strerror(number));
	}
	close(ends[0]);
	running = 0;
	for (size_t i = 0; i < NUM_PASSED; i++)
		(void)sigaction(passed[i], &old[i], NULL);
	return code;
}

void launch_release(struct launch *launch)
{
	for (char **word = launch->command; word && *word; word++)
		free(*word);
	free(launch->command);
	launch->command = NULL;
	handover_seen_unmap(launch->seen);
	launch->seen = NULL;
	folder_remove(&launch->folder);
	if (launch->iommufd >= 0)
		close(launch->iommufd);
	launch->iommufd = -1;
	handover_release(&launch->config);
}
