/* SPDX-License-Identifier: MIT */
/* See control.h. */
#include "control.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#define MAX_CLIENTS   16U
#define MAX_LINE      16384U
#define MAX_WATCHERS  12U /* so that there is always room for one who asks */
#define IDLE_S	      10  /* without a line, for those who do not watch */
#define MAX_DEPTH     8
#define MAX_UNREAD    (4U << 20) /* bytes of events; a longer single one goes as well */
#define LAST_WORDS_MS 1000

struct control_client {
	struct control *control; /* NULL: free */
	int fd;
	bool watching;
	bool following; /* what it asked for */
	bool doomed;	/* close it at the end of the step */
	uint64_t heard_s;
	size_t used;
	char line[MAX_LINE];
	char *unread; /* not taken by the socket yet */
	size_t num_unread;
};

struct control {
	int listener;
	int epoll;
	int timer; /* ticks while somebody is connected who does not watch */
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
	control_request *request;
	void *ctx;
	struct control_client clients[MAX_CLIENTS];
};

static uint64_t now_s(void)
{
	const struct qsc_env *env = qsc_env_real();

	return env->now_us(env->ctx) / 1000000;
}

/* ---- the socket file ---- */

/* A socket at which nobody listens is left of a dead host; anything else there is not ours. */
static int remove_stale(const struct sockaddr_un *address, struct qsc_error *err)
{
	struct stat st;
	int fd, result;

	if (lstat(address->sun_path, &st) < 0)
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return qsc_error_set(err, ENOTSOCK, NULL, "%s exists and is no socket",
				     address->sun_path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	result = connect(fd, (const struct sockaddr *)address, sizeof(*address));
	if (result < 0 && errno == ECONNREFUSED) {
		(void)unlink(address->sun_path);
		result = -1;
	} else {
		result = 0;
	}
	close(fd);
	if (!result)
		return qsc_error_set(err, EADDRINUSE, NULL, "another host listens at %s",
				     address->sun_path);
	return 0;
}

static int listen_at(struct control *control, const char *path, struct qsc_error *err)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	mode_t mask;
	int result;

	if (!*path || strlen(path) >= sizeof(address.sun_path))
		return qsc_error_set(err, EINVAL, NULL, "%s is no path of a socket", path);
	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	result = remove_stale(&address, err);
	if (result < 0)
		return result;
	control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	mask = umask(0177);
	result = control->listener < 0
			 ? -1
			 : bind(control->listener, (struct sockaddr *)&address, sizeof(address));
	(void)umask(mask);
	if (result < 0 || listen(control->listener, MAX_CLIENTS) < 0)
		return qsc_error_set(err, errno, NULL, "cannot listen at %s: %s", path,
				     strerror(errno));
	(void)snprintf(control->path, sizeof(control->path), "%s", path);
	return 0;
}

/* ---- connections ---- */

static void drop(struct control_client *client)
{
	close(client->fd);
	free(client->unread);
	client->unread = NULL;
	client->num_unread = 0;
	client->control = NULL;
}

static bool waits(const struct control_client *client)
{
	return client->watching || client->following;
}

static void set_timer(struct control *control)
{
	struct itimerspec spec = {0};

	for (uint32_t i = 0; i < MAX_CLIENTS; i++)
		if (control->clients[i].control && !waits(&control->clients[i]))
			spec.it_value.tv_sec = spec.it_interval.tv_sec = 1;
	(void)timerfd_settime(control->timer, 0, &spec, NULL);
}

static void listen_to(struct control_client *client)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = client};

	if (client->num_unread)
		event.events |= EPOLLOUT;
	if (epoll_ctl(client->control->epoll, EPOLL_CTL_MOD, client->fd, &event) < 0)
		client->doomed = true;
}

static void flush(struct control_client *client)
{
	ssize_t n;

	while (client->num_unread) {
		n = send(client->fd, client->unread, client->num_unread, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			client->doomed |= errno != EAGAIN;
			break;
		}
		client->num_unread -= (size_t)n;
		memmove(client->unread, client->unread + n, client->num_unread);
	}
	if (!client->num_unread) {
		free(client->unread);
		client->unread = NULL;
	}
}

static void queue(struct control_client *client, const char *text, size_t size)
{
	char *grown;

	if (client->doomed)
		return;
	grown = client->num_unread > MAX_UNREAD
			? NULL
			: realloc(client->unread, client->num_unread + size);
	if (!grown) {
		client->doomed = true;
		return;
	}
	client->unread = grown;
	memcpy(grown + client->num_unread, text, size);
	client->num_unread += size;
	flush(client);
	if (client->num_unread)
		listen_to(client);
}

static const char *line_of(struct json_object *object, size_t *size)
{
	return object ? json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN, size)
		      : NULL;
}

void control_send(struct control_client *client, struct json_object *object)
{
	size_t size;
	const char *text = line_of(object, &size);

	if (text) {
		queue(client, text, size);
		queue(client, "\n", 1);
	} else {
		client->doomed = true;
	}
	json_object_put(object);
}

void control_watch(struct control_client *client)
{
	uint32_t watchers = 0;

	for (uint32_t i = 0; i < MAX_CLIENTS; i++)
		watchers += client->control->clients[i].control &&
			    client->control->clients[i].watching;
	if (!client->watching && watchers >= MAX_WATCHERS)
		client->doomed = true;
	client->watching = true;
}

void control_follow(struct control_client *client)
{
	client->following = true;
}

void control_tell(struct control *control, struct json_object *object, bool last)
{
	for (uint32_t i = 0; i < MAX_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];

		if (!client->control || !waits(client))
			continue;
		control_send(client, json_object_get(object));
		if (last) {
			client->following = false;
			client->heard_s = now_s();
		}
	}
	if (last)
		set_timer(control);
}

static struct json_object *complaint(int code, int number, const char *text)
{
	struct json_object *object = json_object_new_object();
	struct json_object *error = json_object_new_object();

	json_object_object_add(object, "event", json_object_new_string("end"));
	json_object_object_add(object, "code", json_object_new_int(code));
	json_object_object_add(error, "errno", json_object_new_int(number));
	json_object_object_add(error, "clause", NULL);
	json_object_object_add(error, "text", json_object_new_string(text));
	json_object_object_add(object, "error", error);
	json_object_object_add(object, "move", NULL);
	json_object_object_add(object, "plan", NULL);
	return object;
}

static void take_line(struct control_client *client, const char *line, size_t size)
{
	struct json_tokener *tokener = json_tokener_new_ex(MAX_DEPTH);
	struct json_object *object = NULL;

	client->heard_s = now_s();
	if (tokener)
		object = json_tokener_parse_ex(tokener, line, (int)size);
	if (object)
		client->control->request(client->control->ctx, client, object);
	else
		control_send(client,
			     complaint(2, EINVAL, "a request is one JSON object on a line"));
	json_object_put(object);
	if (tokener)
		json_tokener_free(tokener);
}

static void read_lines(struct control_client *client)
{
	ssize_t n = recv(client->fd, client->line + client->used, MAX_LINE - client->used, 0);
	char *end;

	if (n <= 0) {
		client->doomed |= n == 0 || (errno != EAGAIN && errno != EINTR);
		return;
	}
	client->used += (size_t)n;
	while (!client->doomed && (end = memchr(client->line, '\n', client->used))) {
		size_t size = (size_t)(end - client->line);

		take_line(client, client->line, size);
		client->used -= size + 1;
		memmove(client->line, end + 1, client->used);
	}
	client->doomed |= client->used == MAX_LINE;
}

/* A line fits into the buffer of any socket. */
static void turn_away(int fd)
{
	struct json_object *object = complaint(1, EBUSY, "too many are connected to this host");
	size_t size;
	const char *text = line_of(object, &size);

	if (text && send(fd, text, size, MSG_NOSIGNAL) > 0)
		(void)send(fd, "\n", 1, MSG_NOSIGNAL);
	json_object_put(object);
	close(fd);
}

static void accept_clients(struct control *control)
{
	int fd;

	while ((fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0) {
		struct epoll_event event = {.events = EPOLLIN};
		struct control_client *client = NULL;

		for (uint32_t i = 0; i < MAX_CLIENTS && !client; i++)
			if (!control->clients[i].control)
				client = &control->clients[i];
		event.data.ptr = client;
		if (!client || epoll_ctl(control->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
			turn_away(fd);
			continue;
		}
		client->control = control;
		client->fd = fd;
		client->watching = client->following = client->doomed = false;
		client->heard_s = now_s();
		client->used = 0;
	}
	set_timer(control);
}

/* Whoever asks nothing. */
static void drop_silent(struct control *control)
{
	uint64_t ticks;

	(void)!read(control->timer, &ticks, sizeof(ticks));
	for (uint32_t i = 0; i < MAX_CLIENTS; i++) {
		struct control_client *client = &control->clients[i];

		if (client->control && !waits(client) && now_s() - client->heard_s >= IDLE_S)
			client->doomed = true;
	}
	set_timer(control);
}

static void drop_doomed(struct control *control)
{
	for (uint32_t i = 0; i < MAX_CLIENTS; i++)
		if (control->clients[i].control && control->clients[i].doomed)
			drop(&control->clients[i]);
}

/* ---- as a whole ---- */

int control_fd(const struct control *control)
{
	return control->epoll;
}

void control_step(struct control *control)
{
	struct epoll_event events[MAX_CLIENTS + 2];
	int count = epoll_wait(control->epoll, events, MAX_CLIENTS + 2, 0);
	bool came = false;

	for (int i = 0; i < count; i++) {
		struct control_client *client = events[i].data.ptr;

		if (events[i].data.ptr == &control->listener) {
			came = true;
		} else if (events[i].data.ptr == &control->timer) {
			drop_silent(control);
		} else if (client->control) {
			if (events[i].events & EPOLLOUT) {
				flush(client);
				listen_to(client);
			}
			if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
				read_lines(client);
		}
	}
	drop_doomed(control);
	/* After those who went, so that there is room. */
	if (came)
		accept_clients(control);
}

static int watch_fd(struct control *control, int *fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = fd};

	return epoll_ctl(control->epoll, EPOLL_CTL_ADD, *fd, &event);
}

int control_create(const char *path, control_request *request, void *ctx, struct control **out,
		   struct qsc_error *err)
{
	struct control *control = calloc(1, sizeof(*control));
	int result;

	if (!control)
		return qsc_error_set(err, ENOMEM, NULL, "no memory for a control socket");
	control->request = request;
	control->ctx = ctx;
	control->listener = -1;
	control->epoll = epoll_create1(EPOLL_CLOEXEC);
	control->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	result = listen_at(control, path, err);
	if (!result &&
	    (control->epoll < 0 || control->timer < 0 ||
	     watch_fd(control, &control->listener) < 0 || watch_fd(control, &control->timer) < 0))
		result = qsc_error_set(err, errno, NULL, "cannot watch a control socket: %s",
				       strerror(errno));
	if (result < 0) {
		control_destroy(control);
		return result;
	}
	*out = control;
	return 0;
}

/* The last event is the one that matters most; but nobody holds us up for it. */
static void send_rest(struct control_client *client, uint64_t until_us)
{
	const struct qsc_env *env = qsc_env_real();
	uint64_t now;

	while (!client->doomed && client->num_unread && (now = env->now_us(env->ctx)) < until_us) {
		struct pollfd poll_fd = {.fd = client->fd, .events = POLLOUT};

		(void)poll(&poll_fd, 1, (int)((until_us - now) / 1000) + 1);
		flush(client);
	}
}

void control_destroy(struct control *control)
{
	const struct qsc_env *env = qsc_env_real();
	uint64_t until_us = env->now_us(env->ctx) + LAST_WORDS_MS * 1000ULL;

	if (!control)
		return;
	for (uint32_t i = 0; i < MAX_CLIENTS; i++)
		if (control->clients[i].control) {
			send_rest(&control->clients[i], until_us);
			drop(&control->clients[i]);
		}
	if (control->listener >= 0)
		close(control->listener);
	if (control->epoll >= 0)
		close(control->epoll);
	if (control->timer >= 0)
		close(control->timer);
	if (control->path[0])
		(void)unlink(control->path);
	free(control);
}
