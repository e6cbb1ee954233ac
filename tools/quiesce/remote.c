/* SPDX-License-Identifier: MIT */
/* See remote.h. */
#include "remote.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "tool.h"

#define MAX_LINE (64U << 20) /* no event is longer */

struct remote {
	int fd;
	int signal_fd;
	char *line;
	size_t used;
	size_t room;
	bool (*event)(void *ctx, struct json_object *event);
	void *ctx;
	bool watching;
	bool begun;  /* something is moving */
	bool broken; /* it ended, and nobody can tell how */
	bool over;
};

static void connect_to(struct remote *remote, const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int number = ENAMETOOLONG;

	if (!path)
		tool_usage("--host PATH is missing");
	if (*path && strlen(path) < sizeof(address.sun_path)) {
		(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
		remote->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		if (remote->fd >= 0 &&
		    connect(remote->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return;
		number = errno;
	}
	tool_usage("there is no host at '%s' (%s); start one with 'quiesce host --control'", path,
		   strerror(number));
}

static int send_line(struct remote *remote, const struct request *request)
{
	struct json_object *object = request_to_json(request);
	const char *text = object ? json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN)
				  : NULL;
	char *line = NULL;
	int size = text ? asprintf(&line, "%s\n", text) : -1;
	ssize_t sent = size < 0 ? -1 : send(remote->fd, line, (size_t)size, MSG_NOSIGNAL);

	json_object_put(object);
	free(line);
	if (size < 0)
		return -ENOMEM;
	return sent == size ? 0 : -EPIPE;
}

static bool is_event(struct json_object *object, const char *wanted)
{
	struct json_object *name;

	return json_object_object_get_ex(object, "event", &name) &&
	       json_object_is_type(name, json_type_string) &&
	       !strcmp(json_object_get_string(name), wanted);
}

/* An end without an exit code must not pass for success. */
static bool has_code(struct json_object *end)
{
	struct json_object *code;

	return json_object_object_get_ex(end, "code", &code) &&
	       json_object_is_type(code, json_type_int) && json_object_get_int64(code) >= TOOL_OK &&
	       json_object_get_int64(code) <= TOOL_UNPROVED;
}

/* Who asks while something moves has not seen it begin. */
static bool is_moving(struct json_object *status)
{
	struct json_object *move = NULL, *ended;

	return json_object_object_get_ex(status, "move", &move) &&
	       json_object_object_get_ex(move, "ended", &ended) && !json_object_get_boolean(ended);
}

static void take_line(struct remote *remote, const char *line, size_t size)
{
	struct json_tokener *tokener = json_tokener_new();
	struct json_object *object = tokener ? json_tokener_parse_ex(tokener, line, (int)size)
					     : NULL;

	if (is_event(object, "begin") || is_moving(object))
		remote->begun = true;
	else if (is_event(object, "end") && has_code(object))
		remote->begun = false;
	remote->broken = is_event(object, "end") && !has_code(object);
	if (remote->broken || (object && !remote->event(remote->ctx, object)))
		remote->over = true;
	json_object_put(object);
	if (tokener)
		json_tokener_free(tokener);
}

/* 0, or -errno when nothing more will come. */
static int read_lines(struct remote *remote)
{
	char *end, *from;
	ssize_t n;

	if (remote->used == remote->room) {
		size_t room = remote->room ? 2 * remote->room : 65536;
		char *grown = room > MAX_LINE ? NULL : realloc(remote->line, room);

		if (!grown)
			return -ENOMEM;
		remote->line = grown;
		remote->room = room;
	}
	n = recv(remote->fd, remote->line + remote->used, remote->room - remote->used, 0);
	if (n <= 0)
		return n < 0 && errno == EINTR ? 0 : -EPIPE;
	from = remote->line + remote->used;
	remote->used += (size_t)n;
	while (!remote->over &&
	       (end = memchr(from, '\n', remote->used - (size_t)(from - remote->line)))) {
		size_t size = (size_t)(end - remote->line);

		take_line(remote, remote->line, size);
		remote->used -= size + 1;
		memmove(remote->line, end + 1, remote->used);
		from = remote->line;
	}
	return 0;
}

/* The host goes on and says how it ended. */
static void cancel(struct remote *remote)
{
	const struct request request = {.verb = REQUEST_CANCEL};
	struct signalfd_siginfo info;

	if (read(remote->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		(void)send_line(remote, &request);
}

static int loop(struct remote *remote)
{
	int result = 0;

	while (!remote->over && !result) {
		struct pollfd polls[] = {
			{.fd = remote->fd, .events = POLLIN},
			{.fd = remote->signal_fd, .events = POLLIN},
		};

		if (poll(polls, 2, -1) < 0)
			continue;
		if (polls[1].revents)
			cancel(remote);
		if (polls[0].revents)
			result = read_lines(remote);
	}
	return result;
}

int remote_ask(const char *path, const struct request *request,
	       bool (*event)(void *ctx, struct json_object *event), void *ctx)
{
	struct remote remote = {
		.fd = -1,
		.event = event,
		.ctx = ctx,
		.watching = request->verb == REQUEST_WATCH,
	};
	sigset_t signals;
	int result;

	connect_to(&remote, path);
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &signals, NULL);
	remote.signal_fd = signalfd(-1, &signals, SFD_CLOEXEC);
	result = send_line(&remote, request);
	/* A host that has no room for us says so, and hears nothing. */
	if (result != -ENOMEM)
		result = loop(&remote);
	close(remote.fd);
	if (remote.signal_fd >= 0)
		close(remote.signal_fd);
	free(remote.line);
	/* Who only watches was owed no answer. */
	if (!remote.broken && (!result || (remote.watching && !remote.begun && !remote.used)))
		return TOOL_OK;
	(void)tool_fail(
		"the host at %s %s%s", path,
		remote.broken ? "gave an answer that is none" : "went away before it had an answer",
		remote.begun ? "; nothing runs here any more: look whether the other side does"
			     : "");
	return remote.begun ? TOOL_UNPROVED : TOOL_FAILED;
}
