/* SPDX-License-Identifier: MIT */
/*
 * The guest's own judge: it works on the devices without pause, compares every byte, and tells over
 * its console. It takes orders there, a word a line:
 *
 *   pause    PAUSED when no worker has a request under way
 *   go       GOING
 *   verify   VERIFIED wrong=N … after everything that memory and devices hold was compared
 *   end      ENDED wrong=N …, and the program ends
 *
 * BEAT N comes several times a second while it lives; a line with WRONG says what is not as it must
 * be.
 *
 *   guest FOLDER DEVICE OFFSET: files in FOLDER ("-" for none), blocks of DEVICE ("-" for none)
 * from OFFSET
 */
#include "work.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RAW_WORKERS 2u
#define WORKERS	    (RAW_WORKERS + 1)
#define BEAT_MS	    200
/* Past this many, more lines would say nothing new. */
#define SAID_AT_MOST 20

struct shared {
	struct work work[WORKERS];
};

uint32_t pick(struct worker *w, uint32_t limit)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return (uint32_t)(w->random >> 32) % limit;
}

static void say(const char *line, size_t bytes)
{
	/* One write a line: the terminal keeps it whole. */
	while (write(STDOUT_FILENO, line, bytes) < 0 && errno == EINTR)
		;
}

void wrong(struct worker *w, const char *format, ...)
{
	char line[400];
	va_list arguments;
	int used = snprintf(line, sizeof(line), "WRONG worker %u: ", w->owner);

	if (w->work->wrong++ >= SAID_AT_MOST)
		return;
	va_start(arguments, format);
	used += vsnprintf(line + used, sizeof(line) - (size_t)used - 1, format, arguments);
	va_end(arguments);
	if (used > (int)sizeof(line) - 2)
		used = (int)sizeof(line) - 2;
	line[used] = '\n';
	say(line, (size_t)used + 1);
}

static void work(struct worker *w)
{
	int rc = w->setup(w);

	if (rc < 0) {
		wrong(w, "cannot work on %s: %s", w->path, strerror(-rc));
		exit(1);
	}
	for (;;) {
		uint32_t order = w->work->order;

		if (order != w->work->obeyed) {
			if ((order & 3) == ORDER_VERIFY)
				w->verify(w);
			w->work->obeyed = order;
			if ((order & 3) == ORDER_END)
				exit(0);
		}
		if ((order & 3) == ORDER_PAUSE)
			poll(NULL, 0, 10);
		else
			w->step(w);
	}
}

static void start(struct work *shared, const struct worker *kind, const char *path, uint64_t offset,
		  uint32_t owner)
{
	struct worker w = *kind;
	pid_t pid = fork();

	if (pid < 0)
		exit(1);
	if (pid > 0)
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	w.work = shared;
	w.path = path;
	w.offset = offset;
	w.owner = owner;
	w.random = (uint64_t)time(NULL) * 0x9e3779b97f4a7c15u + owner + 1;
	work(&w);
}

static void answer(const char *word, struct shared *shared, uint32_t workers)
{
	uint64_t wrong_all = 0, writes = 0, reads = 0, pages = 0;
	char line[200];
	int used;

	for (uint32_t i = 0; i < workers; i++) {
		wrong_all += shared->work[i].wrong;
		writes += shared->work[i].writes;
		reads += shared->work[i].reads;
		pages += shared->work[i].pages;
	}
	used = snprintf(line, sizeof(line),
			"%s wrong=%" PRIu64 " writes=%" PRIu64 " reads=%" PRIu64 " pages=%" PRIu64
			"\n",
			word, wrong_all, writes, reads, pages);
	say(line, (size_t)used);
}

static void beat(void)
{
	static uint64_t count;
	char line[40];

	say(line, (size_t)snprintf(line, sizeof(line), "BEAT %" PRIu64 "\n", ++count));
}

/* Give all workers the order, and wait, beating, until they have obeyed. */
static void give(struct shared *shared, uint32_t workers, enum order kind)
{
	static uint32_t number;
	uint32_t order = ++number << 2 | kind;

	for (uint32_t i = 0; i < workers; i++)
		shared->work[i].order = order;
	for (uint32_t i = 0; i < workers; i++)
		for (int waited = 0; shared->work[i].obeyed != order; waited++) {
			poll(NULL, 0, 5);
			if (waited % (BEAT_MS / 5) == 0)
				beat();
		}
}

static bool obey(const char *word, struct shared *shared, uint32_t workers)
{
	static const struct {
		const char *word, *answer;
		enum order order;
	} orders[] = {{"pause", "PAUSED", ORDER_PAUSE},
		      {"go", "GOING", ORDER_GO},
		      {"verify", "VERIFIED", ORDER_VERIFY},
		      {"end", "ENDED", ORDER_END}};

	for (size_t i = 0; i < sizeof(orders) / sizeof(*orders); i++) {
		if (strcmp(word, orders[i].word) != 0)
			continue;
		give(shared, workers, orders[i].order);
		answer(orders[i].answer, shared, workers);
		return orders[i].order == ORDER_END;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct shared *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
	uint32_t workers = 0;
	char word[64];

	/* Nothing is read that poll() would not see. */
	setvbuf(stdin, NULL, _IONBF, 0);
	if (argc != 4 || shared == MAP_FAILED)
		return 2;
	if (strcmp(argv[2], "-") != 0)
		for (; workers < RAW_WORKERS; workers++)
			start(&shared->work[workers], &raw_worker, argv[2],
			      strtoull(argv[3], NULL, 0), workers);
	if (strcmp(argv[1], "-") != 0) {
		start(&shared->work[workers], &files_worker, argv[1], 0, workers);
		workers++;
	}
	give(shared, workers, ORDER_GO);
	answer("WORKING", shared, workers);
	for (;;) {
		if (poll(&input, 1, BEAT_MS) == 0) {
			beat();
			continue;
		}
		if (fgets(word, sizeof(word), stdin) == NULL)
			return 1;
		word[strcspn(word, "\r\n")] = '\0';
		if (obey(word, shared, workers))
			break;
	}
	while (wait(NULL) > 0)
		;
	return 0;
}
