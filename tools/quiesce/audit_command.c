/* SPDX-License-Identifier: MIT */
/*
 * The command that is audited. One that names our sockets takes the devices by itself; its output
 * may be read for what a recipe says. Any other gets them in place of the kernel's, as from
 * `quiesce run`.
 */
#include "audit.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch.h"
#include "tool.h"

/* What stands for "socket1" or "name1", or NULL. */
static const char *value_of(const struct audit_host *host, const char *name, size_t size)
{
	bool socket = size > 6 && !strncmp(name, "socket", 6);
	size_t length = socket ? 6 : 4;
	unsigned long number;
	char *end;

	if ((!socket && (size < 5 || strncmp(name, "name", 4) != 0)) || name[length] < '0' ||
	    name[length] > '9')
		return NULL;
	number = strtoul(name + length, &end, 10);
	if (end != name + size || number >= host->num_devices)
		return NULL;
	return socket ? host->devices[number].address.sun_path : host->devices[number].name;
}

static char *fill_in(const struct audit_host *host, const char *word)
{
	char *text = NULL;
	size_t size;
	FILE *out = open_memstream(&text, &size);

	if (!out)
		return NULL;
	while (*word) {
		const char *end = *word == '{' ? strchr(word, '}') : NULL;
		const char *value = end ? value_of(host, word + 1, (size_t)(end - word - 1)) : NULL;

		if (value) {
			(void)fputs(value, out);
			word = end + 1;
		} else {
			(void)fputc(*word++, out);
		}
	}
	return fclose(out) ? NULL : text;
}

static void free_words(char **words)
{
	for (char **word = words; word && *word; word++)
		free(*word);
	free(words);
}

static char **fill_in_all(const struct audit_host *host, char *const command[])
{
	size_t count = 0;
	char **words;

	while (command[count])
		count++;
	words = calloc(count + 1, sizeof(char *));
	for (size_t i = 0; words && i < count; i++) {
		words[i] = fill_in(host, command[i]);
		if (!words[i]) {
			free_words(words);
			return NULL;
		}
	}
	return words;
}

/* ---- running ---- */

static volatile pid_t running;
static volatile sig_atomic_t stopped; /* by this signal */

static void pass_on(int number)
{
	stopped = number;
	if (running > 0)
		(void)kill(running, number);
}

bool audit_is_stopped(void)
{
	return stopped;
}

static bool take(const char *line, const char *key, char *value, size_t room)
{
	size_t size = strlen(key);

	if (strncmp(line, key, size) != 0)
		return false;
	(void)snprintf(value, room, "%.*s", (int)strcspn(line + size, "\n"), line + size);
	return true;
}

/* Its output, line by line; a line that is longer counts as several. */
struct output {
	struct audit_said *said;
	size_t used;
	char line[4096];
};

static void end_line(struct output *output)
{
	struct audit_said *said = output->said;
	const char *line = output->line;

	output->line[output->used] = '\0';
	output->used = 0;
	if (!take(line, "outcome: ", said->outcome, sizeof(said->outcome)) &&
	    !take(line, "reported: ", said->reported, sizeof(said->reported)) &&
	    !take(line, "data: ", said->data, sizeof(said->data)))
		(void)fputs(line, stderr);
}

/* What can be read now. Whether there may be more later. */
static bool read_on(int fd, struct output *output)
{
	char bytes[4096];
	ssize_t n;

	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < n; i++) {
			output->line[output->used++] = bytes[i];
			if (bytes[i] == '\n' || output->used == sizeof(output->line) - 1)
				end_line(output);
		}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

/* Until it has ended; somebody whom it left behind may hold its output open for ever. */
static void listen_to(int fd, pid_t pid, struct audit_said *said)
{
	struct pollfd polled[2] = {{.fd = fd, .events = POLLIN},
				   {.fd = pidfd_open(pid, 0), .events = POLLIN}};
	struct output output = {.said = said};
	bool open = true;

	(void)fcntl(fd, F_SETFL, O_NONBLOCK);
	while (open && (poll(polled, 2, -1) >= 0 || errno == EINTR)) {
		bool ended = polled[1].revents;

		open = read_on(fd, &output) && !ended;
	}
	if (output.used)
		end_line(&output);
	if (polled[1].fd >= 0)
		close(polled[1].fd);
}

static int wait_for(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

_Noreturn static void become(char **words, int said, int failed)
{
	int number;

	if (said >= 0)
		(void)dup2(said, STDOUT_FILENO);
	(void)execvp(words[0], words);
	number = errno;
	(void)!write(failed, &number, sizeof(number));
	_exit(127);
}

/* Start it; its output goes to said[1] when there is one. Its number or -errno. */
static pid_t start(char **words, const int said[2])
{
	int failed[2];
	int number = 0;
	pid_t pid;

	if (pipe2(failed, O_CLOEXEC) < 0)
		return -errno;
	(void)fflush(NULL);
	pid = fork();
	if (!pid)
		become(words, said[1], failed[1]);
	if (pid < 0)
		number = errno;
	close(failed[1]);
	if (pid > 0 && read(failed[0], &number, sizeof(number)) == sizeof(number))
		(void)wait_for(pid);
	close(failed[0]);
	return number ? -number : pid;
}

bool audit_takes_sockets(char *const command[])
{
	for (; *command; command++)
		if (strstr(*command, "{socket"))
			return true;
	return false;
}

/* With the preload in front of it. */
static int run_preloaded(const struct audit_host *host, char *const words[], struct qsc_error *err)
{
	struct launch launch = LAUNCH_NONE;
	char uri[128];
	int result = 0;

	for (unsigned int i = 0; i < host->num_devices && !result; i++) {
		(void)snprintf(uri, sizeof(uri), "vfio-user:%s", host->devices[i].address.sun_path);
		result = launch_add_device(&launch, uri, err);
	}
	if (!result)
		result = launch_make(&launch, words, err);
	if (!result)
		result = launch_run(&launch, err);
	launch_release(&launch);
	return result;
}

/* As it is. */
static int run_plain(char **words, struct audit_said *said, struct qsc_error *err)
{
	struct sigaction action = {.sa_handler = pass_on, .sa_flags = SA_RESTART};
	int ends[2] = {-1, -1};
	int code;

	if (said && pipe2(ends, O_CLOEXEC) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make a pipe: %s", strerror(errno));
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	code = start(words, ends);
	running = code > 0 ? code : 0;
	/* One that came before it was there to get it. */
	if (stopped && code > 0)
		(void)kill(code, stopped);
	if (said) {
		close(ends[1]);
		if (code > 0)
			listen_to(ends[0], code, said);
		close(ends[0]);
	}
	code = code < 0 ? qsc_error_set(err, -code, NULL, "cannot start %s: %s", words[0],
					strerror(-code))
			: wait_for(code);
	running = 0;
	return code;
}

int audit_run(const struct audit_host *host, char *const command[], struct audit_said *said,
	      struct qsc_error *err)
{
	char **words = fill_in_all(host, command);
	int code;

	if (!words)
		return qsc_error_set(err, ENOMEM, NULL, "out of memory");
	code = audit_takes_sockets(command) ? run_plain(words, said, err)
					    : run_preloaded(host, words, err);
	free_words(words);
	return code;
}
