/* SPDX-License-Identifier: MIT */
/* See guest.h: the table of commands, and what they share. */
#include "guest.h"

#include <errno.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool check(bool held, const char *name, const char *why, ...)
{
	va_list args;

	printf("CHECK %s %s", held ? "ok" : "failed", name);
	if (!held) {
		printf(": ");
		va_start(args, why);
		(void)vprintf(why, args);
		va_end(args);
	}
	printf("\n");
	(void)fflush(stdout);
	return held;
}

void say(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	(void)vprintf(fmt, args);
	va_end(args);
	printf("\n");
	(void)fflush(stdout);
}

void give_up(const char *fmt, ...)
{
	va_list args;

	printf("CHECK failed guest program: ");
	va_start(args, fmt);
	(void)vprintf(fmt, args);
	va_end(args);
	printf("\n");
	(void)fflush(stdout);
	exit(1);
}

struct qsc_device *open_device(const char *uri)
{
	struct qsc_error err = QSC_ERROR_NONE;
	struct qsc_device *dev;

	if (qsc_client_open(uri, NULL, &dev, &err) < 0)
		give_up("%s", err.text);
	return dev;
}

void put_bytes(struct qsc_device *dev, const char *text)
{
	/* FIFO on, and empty: a full one looks empty. */
	const uint8_t clear = 7;

	if (qsc_device_region_write(dev, 0, 2, &clear, 1) != 1)
		give_up("the port's buffer cannot be emptied");
	for (; *text; text++)
		if (qsc_device_region_write(dev, 0, 0, text, 1) != 1)
			give_up("a byte cannot be written to the port");
}

void take_bytes(struct qsc_device *dev, char *text, size_t size)
{
	size_t n = 0;

	for (;;) {
		uint8_t status = 0;

		/* Line status: bit 0 says that there is a byte. */
		if (qsc_device_region_read(dev, 0, 5, &status, 1) != 1)
			give_up("the port's status cannot be read");
		if (!(status & 1) || n + 1 >= size)
			break;
		if (qsc_device_region_read(dev, 0, 0, &text[n], 1) != 1)
			give_up("a byte cannot be read from the port");
		n++;
	}
	text[n] = '\0';
}

size_t save(struct qsc_device *dev, void *buf, size_t size)
{
	uint64_t session;
	size_t used = 0;
	ssize_t n;
	int result = qsc_device_set_state(dev, QSC_STATE_STOP_COPY, &session);

	if (result < 0)
		give_up("STOP_COPY: %s", strerror(-result));
	while ((n = qsc_device_session_read(dev, session, (char *)buf + used, size - used)) > 0)
		used += (size_t)n;
	if (n < 0)
		give_up("reading in STOP_COPY: %s", strerror((int)-n));
	return used;
}

int load(struct qsc_device *dev, const void *buf, size_t size, size_t piece)
{
	uint64_t session;
	int result = qsc_device_set_state(dev, QSC_STATE_RESUMING, &session);

	if (result < 0)
		give_up("RESUMING: %s", strerror(-result));
	for (size_t done = 0; done < size; done += piece) {
		size_t part = piece < size - done ? piece : size - done;
		ssize_t n = qsc_device_session_write(dev, session, (const char *)buf + done, part);

		if (n < 0)
			return (int)n;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		guest_command *run;
		int args;
	} commands[] = {
		{"raw", cmd_raw, 1},	   {"crash", cmd_crash, 1},	{"matrix", cmd_matrix, 1},
		{"move", cmd_move, 2},	   {"refuse", cmd_refuse, 2},	{"files", cmd_files, 1},
		{"rounds", cmd_rounds, 3}, {"pins", cmd_pins, 2},	{"measure", cmd_measure, 1},
		{"dma", cmd_dma, 1},	   {"vectors", cmd_vectors, 1}, {"hold", cmd_hold, 2},
		{"group", cmd_group, 2},   {"removal", cmd_removal, 2}, {"state", cmd_state, 1},
	};

	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc >= 2 && !strcmp(argv[1], commands[i].name) && argc == commands[i].args + 2)
			return commands[i].run(argc - 2, argv + 2);
	(void)fprintf(stderr, "guest: no such command\n");
	return 2;
}
