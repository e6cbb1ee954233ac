/* SPDX-License-Identifier: MIT */
/* Devices as a person names them on the command line. */
#ifndef TOOL_DEVICE_H
#define TOOL_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include <quiesce/base.h>
#include <quiesce/client.h>
#include <quiesce/device.h>

/* Of what a URI may be, for messages and help. */
#define TOOL_URI_FORMS                                                                \
	"vfio-user:PATH, vfio:ADDRESS (of PCI, a UUID or a path below /dev/vfio) or " \
	"model:NAME[,OPTION=VALUE…]"

/* Whether a text begins as one of them. */
bool tool_is_uri(const char *text);

/*
 * Which device a URI means, as a text that is the same for every way to write it: a socket by
 * another path, an address with capital letters. "" where each URI means a device of its own (a
 * model). Nothing is opened.
 */
void tool_identify_device(const char *uri, char *text, size_t size);

/*
 * Open a device by URI: what <quiesce/client.h> knows, or a model in this process. Ends the program
 * as tool_usage() does when the URI is wrong in itself. 0, or -errno with the reason in err.
 */
int tool_open_device(const char *uri, struct qsc_device **dev, struct qsc_error *err);

/*
 * The same without ending the program: *wrong tells whether the URI is at fault. For a process that
 * has more to lose. options: of the connection to a server; or NULL.
 */
int tool_try_device(const char *uri, const struct qsc_client_options *options,
		    struct qsc_device **dev, bool *wrong, struct qsc_error *err);

/* Lines of the library from `level` up go to stderr from now on. */
void tool_log_to_stderr(enum qsc_log_level level);

#endif
