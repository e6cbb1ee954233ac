/* SPDX-License-Identifier: MIT */
/* See device.h. */
#include "device.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <quiesce/client.h>

#include "models.h"
#include "tool.h"

/* Before the device is asked: what it answers later may be any error. */
static int check_socket(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0 || faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
		return -errno;
	return S_ISSOCK(st.st_mode) ? 0 : -ENOTSOCK;
}

bool tool_is_uri(const char *text)
{
	return !strncmp(text, "vfio-user:", 10) || !strncmp(text, "vfio:", 5) ||
	       !strncmp(text, "model:", 6);
}

void tool_identify_device(const char *uri, char *text, size_t size)
{
	bool socket = !strncmp(uri, "vfio-user:", 10);
	const char *where = uri + (socket ? 10 : 5);
	char path[PATH_MAX];
	struct stat st;

	*text = '\0';
	if (!strncmp(uri, "model:", 6))
		return;
	/* Behind a comma stands how the kernel is to be asked for the device. */
	(void)snprintf(path, sizeof(path), "%.*s",
		       (int)(socket ? strlen(where) : strcspn(where, ",")), where);
	if ((socket || *path == '/') && stat(path, &st) == 0) {
		(void)snprintf(text, size, "%llu:%llu", (unsigned long long)st.st_dev,
			       (unsigned long long)st.st_ino);
		return;
	}
	(void)snprintf(text, size, "%s", path);
	for (; !socket && *text; text++)
		*text = (char)tolower((unsigned char)*text);
}

int tool_try_device(const char *uri, const struct qsc_client_options *options,
		    struct qsc_device **dev, bool *wrong, struct qsc_error *err)
{
	int result;

	*wrong = false;
	if (!strncmp(uri, "model:", 6)) {
		result = models_open(uri + 6, NULL, dev, err);
		*wrong = result < 0 && tool_path_is_wrong(-result);
		return result;
	}
	if (!strncmp(uri, "vfio:", 5)) {
		result = qsc_client_open(uri, options, dev, err);
		*wrong = result == -EINVAL || result == -ENOENT || result == -EACCES;
		return result;
	}
	*wrong = true;
	if (strncmp(uri, "vfio-user:", 10) != 0)
		return qsc_error_set(err, EINVAL, NULL,
				     "'%s' is no device; a device is " TOOL_URI_FORMS, uri);
	if (!uri[10])
		return qsc_error_set(err, EINVAL, NULL, "'%s' names no socket", uri);
	*wrong = tool_path_is_wrong(-check_socket(uri + 10));
	result = qsc_client_open(uri, options, dev, err);
	*wrong &= result < 0;
	return result;
}

int tool_open_device(const char *uri, struct qsc_device **dev, struct qsc_error *err)
{
	bool wrong;
	int result = tool_try_device(uri, NULL, dev, &wrong, err);

	if (wrong)
		tool_usage("%s", err->text);
	return result;
}

static void print_line(void *ctx, enum qsc_log_level level, const char *line)
{
	static const char *const levels[] = {
		[QSC_LOG_ERROR] = "error: ",
		[QSC_LOG_WARNING] = "warning: ",
		[QSC_LOG_INFO] = "",
		[QSC_LOG_DEBUG] = "debug: ",
	};

	(void)ctx;
	(void)fprintf(stderr, "%s: %s%s\n", tool_name, levels[level], line);
}

void tool_log_to_stderr(enum qsc_log_level level)
{
	qsc_log_set(print_line, NULL, level);
}
