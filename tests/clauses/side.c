/* SPDX-License-Identifier: MIT */
/* See side.h. */
#include "side.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tap.h"

struct child {
	pid_t pid; /* -1: there is none */
	FILE *said;
	int status;
};

static struct child begin(size_t number, void (*work)(size_t, void *), void *ctx)
{
	struct child child = {.said = tmpfile(), .status = -1};

	(void)fflush(stdout);
	child.pid = child.said ? fork() : -1;
	if (child.pid)
		return child;
	if (dup2(fileno(child.said), STDOUT_FILENO) < 0)
		_exit(2);
	work(number, ctx);
	(void)fflush(stdout);
	/* Sanitizers look for leaks at the end. */
	exit(0);
}

/* "ok 3 - text" gets the number that it has here. */
static bool pass_on(char *line)
{
	bool good = strncmp(line, "ok ", 3) == 0;
	char *text = strstr(line, " - ");

	line[strcspn(line, "\n")] = '\0';
	if (text && (good || strncmp(line, "not ok ", 7) == 0)) {
		tap_result(good, "%s", text + 3);
		return true;
	}
	tap_note("%s", strncmp(line, "# ", 2) == 0 ? line + 2 : line);
	return false;
}

/* Whichever ends first. */
static void await_one(struct child *children, size_t begun)
{
	int status;
	pid_t pid;

	do
		pid = waitpid(-1, &status, 0);
	while (pid < 0 && errno == EINTR);
	for (size_t i = 0; pid > 0 && i < begun; i++)
		if (children[i].pid == pid)
			children[i].status = status;
}

static void tell(const struct child *child, size_t number)
{
	unsigned int results = 0;
	size_t room = 0;
	char *line = NULL;

	if (child->said) {
		rewind(child->said);
		while (getline(&line, &room, child->said) >= 0)
			results += pass_on(line);
		(void)fclose(child->said);
	}
	free(line);
	if (child->status || !results)
		tap_result(false, "piece %zu ended with status %d after %u results", number,
			   child->status, results);
}

void side_by_side(size_t count, size_t width, void (*work)(size_t, void *), void *ctx)
{
	struct child *children = calloc(count, sizeof(*children));

	if (!children) {
		tap_result(false, "no memory for %zu pieces of work", count);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (i >= width)
			await_one(children, i);
		children[i] = begin(i, work, ctx);
	}
	for (size_t i = 0; i < width && i < count; i++)
		await_one(children, count);
	for (size_t i = 0; i < count; i++)
		tell(&children[i], i);
	free(children);
}
