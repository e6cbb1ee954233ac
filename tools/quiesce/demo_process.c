/* SPDX-License-Identifier: MIT */
/*
 * Children of the orchestrator and the directory they meet in. A child dies with its parent, is in
 * a process group of its own (so that a terminal's ^C reaches the orchestrator alone, which then
 * ends the others in order), and talks over one socket that keeps message boundaries.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "demo.h"
#include "tool.h"

/* ---- messages ---- */

void demo_error_copy(struct demo_error *to, const struct qsc_error *from)
{
	memset(to, 0, sizeof(*to));
	to->number = from->number;
	if (from->clause)
		(void)snprintf(to->clause, sizeof(to->clause), "%s", from->clause);
	(void)snprintf(to->text, sizeof(to->text), "%s", from->text);
}

void demo_send(int socket, const struct demo_message *message)
{
	ssize_t n;

	do
		n = send(socket, message, sizeof(*message), MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		_exit(1);
}

void demo_send_error(int socket, enum demo_event event, const struct qsc_error *err)
{
	struct demo_message message = {.event = event};

	demo_error_copy(&message.error, err);
	demo_send(socket, &message);
}

/* ---- children ---- */

int demo_family_make(struct demo_family *family, uint32_t capacity)
{
	uint32_t i;

	family->children = calloc(capacity, sizeof(*family->children));
	if (!family->children)
		return -ENOMEM;
	for (i = 0; i < capacity; i++)
		family->children[i].socket = -1;
	family->count = 0;
	family->group = 0;
	return 0;
}

static void become_child(const struct demo_family *family, pid_t parent)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	sigset_t none;
	uint32_t i;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	setpgid(0, family->group);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	sigaction(SIGPIPE, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
	sigaction(SIGCHLD, &action, NULL);
	if (null >= 0) {
		(void)dup2(null, STDIN_FILENO);
		(void)dup2(null, STDOUT_FILENO);
		close(null);
	}
	for (i = 0; i < family->count; i++) {
		if (family->children[i].socket >= 0)
			close(family->children[i].socket);
	}
	tool_raise_file_limit();
}

static void name_child(struct demo_child *child, enum demo_side side, int32_t device)
{
	child->side = side;
	child->device = device;
	if (device < 0)
		(void)snprintf(child->name, sizeof(child->name), "host %c", demo_side_name(side));
	else
		(void)snprintf(child->name, sizeof(child->name),
			       "the server of device %d on side %c", (int)device,
			       demo_side_name(side));
}

int demo_family_fork(struct demo_family *family, const struct demo_shared *shared,
		     enum demo_side side, int32_t device, struct qsc_error *err)
{
	struct demo_child *child = &family->children[family->count];
	pid_t parent = getpid();
	int sockets[2];
	pid_t pid;

	name_child(child, side, device);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0)
		return qsc_error_set(err, errno, NULL, "cannot make a socket for %s: %s",
				     child->name, strerror(errno));
	(void)fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int number = errno;

		close(sockets[0]);
		close(sockets[1]);
		return qsc_error_set(err, number, NULL, "cannot start %s: %s", child->name,
				     strerror(number));
	}
	if (pid == 0) {
		char name[32];

		close(sockets[0]);
		become_child(family, parent);
		if (device < 0)
			(void)snprintf(name, sizeof(name), "quiesce host %c", demo_side_name(side));
		else
			(void)snprintf(name, sizeof(name), "quiesce dev %c%d", demo_side_name(side),
				       (int)device);
		prctl(PR_SET_NAME, name);
		_exit(device < 0 ? demo_host(shared, side, sockets[1])
				 : demo_serve(shared, side, (uint32_t)device, sockets[1]));
	}
	close(sockets[1]);
	if (!family->group)
		family->group = pid;
	/* In both, so that it is true whoever runs first. */
	setpgid(pid, family->group);
	child->pid = pid;
	child->socket = sockets[0];
	family->count++;
	return 0;
}

static void note_end(struct demo_child *child, int status)
{
	if (WIFSIGNALED(status))
		(void)snprintf(child->end, sizeof(child->end), "was killed by signal %d (%s)",
			       WTERMSIG(status), strsignal(WTERMSIG(status)));
	else
		(void)snprintf(child->end, sizeof(child->end), "ended with status %d",
			       WEXITSTATUS(status));
	child->pid = 0;
}

uint32_t demo_family_reap(struct demo_family *family)
{
	uint32_t i, ended = 0;
	int status;

	for (i = 0; i < family->count; i++) {
		struct demo_child *child = &family->children[i];

		if (child->pid && waitpid(child->pid, &status, WNOHANG) == child->pid) {
			note_end(child, status);
			ended++;
		}
	}
	return ended;
}

void demo_family_end(struct demo_family *family)
{
	uint32_t i;
	int status;

	for (i = 0; i < family->count; i++) {
		if (family->children[i].pid)
			kill(family->children[i].pid, SIGKILL);
	}
	for (i = 0; i < family->count; i++) {
		struct demo_child *child = &family->children[i];

		while (child->pid && waitpid(child->pid, &status, 0) < 0 && errno == EINTR)
			continue;
		child->pid = 0;
		if (child->socket >= 0)
			close(child->socket);
		child->socket = -1;
	}
	free(family->children);
	family->children = NULL;
	family->count = 0;
}

/* ---- the directory ---- */

int demo_folder_make(struct folder *folder, char *directory, size_t size, struct qsc_error *err)
{
	const char *parent = getenv("TMPDIR");
	int result;

	if (parent && strlen(parent) + sizeof("/" FOLDER_NAME) > size)
		return qsc_error_set(err, ENAMETOOLONG, NULL,
				     "TMPDIR is too long a path for sockets: set it to a shorter "
				     "one, such as /tmp");
	result = folder_make(folder, err);
	if (result < 0)
		return qsc_error_set(err, -result, NULL,
				     "cannot make a directory in %s: %s; set TMPDIR to one that "
				     "can be written",
				     parent && *parent ? parent : "/tmp", strerror(-result));
	(void)snprintf(directory, size, "%.*s", (int)size - 1, folder->path);
	return 0;
}

void demo_device_path(const struct demo_shared *shared, enum demo_side side, uint32_t device,
		      char *path)
{
	(void)snprintf(path, DEMO_PATH_SIZE, "%.90s/%c%u", shared->directory, demo_side_name(side),
		       device);
}

void demo_migration_path(const struct demo_shared *shared, uint32_t migration, char *path)
{
	(void)snprintf(path, DEMO_PATH_SIZE, "%.90s/m%u", shared->directory, migration);
}
