/* SPDX-License-Identifier: MIT */
/* What a person is shown of a migration: the line of progress, who may hold it up, and the end. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <poll.h>
#include <pty.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "text.h"
#include "tool.h"
#include "view.h"

static const struct view_style plain = {.width = 100};
static const struct view_style wide = {.live = true, .utf8 = true, .width = 120};

static const struct move_sample under_way = {
	.phase = "pre-copy",
	.pass = 2,
	.elapsed_us = 12345678,
	.bytes_sent = 600ULL << 20,
	.bytes_remaining = 200ULL << 20,
	.bytes_per_second = 300ULL << 20,
	.dirty_per_second = 100ULL << 20,
	.predicted_downtime_us = 350000,
};

static const struct move sending = {.verb = MOVE_SEND, .downtime_limit_us = 300000};

/* ---- the line ---- */

static void test_plain_line(void **state)
{
	char line[VIEW_LINE_SIZE];
	struct move_sample sample = {.phase = "negotiate"};

	(void)state;
	view_progress_line(&plain, &sending, &under_way, line);
	assert_string_equal(line, "  12.3 s  send: pre-copy pass 2,  75 %, 1.00 s more, "
				  "600 MiB sent, 200 MiB left, 300 MiB/s, 100 MiB/s written again, "
				  "stop 350 ms of 300 ms");
	/* Nothing is said of what is not known. */
	view_progress_line(&plain, &sending, &sample, line);
	assert_string_equal(line, "   0.0 s  send: negotiate");
	sample.bytes_sent = 4096;
	view_progress_line(&plain, &sending, &sample, line);
	assert_string_equal(line, "   0.0 s  send: negotiate, 4.0 KiB moved");
	/* More is written again than the link carries: it would never end. */
	sample = under_way;
	sample.dirty_per_second = sample.bytes_per_second;
	view_progress_line(&plain, &sending, &sample, line);
	assert_null(strstr(line, "more,"));
}

static void test_live_line(void **state)
{
	struct view_style style = wide;
	char line[VIEW_LINE_SIZE];

	(void)state;
	view_progress_line(&style, &sending, &under_way, line);
	assert_string_equal(line, "send: pre-copy pass 2  ███████████████░░░░░  75 %  1.00 s more  "
				  "300 MiB/s  stop 350 ms of 300 ms");
	style.width = 160;
	view_progress_line(&style, &sending, &under_way, line);
	assert_string_equal(line, "send: pre-copy pass 2  ███████████████░░░░░  75 %  1.00 s more  "
				  "600 MiB sent, 200 MiB left  300 MiB/s  100 MiB/s written again  "
				  "stop 350 ms of 300 ms");
	style.utf8 = false;
	style.color = true;
	view_progress_line(&style, &sending, &under_way, line);
	assert_non_null(strstr(line, "\033[1msend: pre-copy pass 2\033[0m  ###############..... "));
	assert_non_null(strstr(line, "\033[31mstop 350 ms of 300 ms\033[0m"));
}

/* However narrow the terminal: nothing is broken over two lines, the phase is told. */
static void test_narrow_line(void **state)
{
	struct view_style style = wide;
	char line[VIEW_LINE_SIZE];
	size_t last = 0;

	(void)state;
	for (style.width = 1; style.width <= 120; style.width++) {
		size_t used;

		view_progress_line(&style, &sending, &under_way, line);
		used = text_cut(line, sizeof(line));
		assert_true(used <= (style.width > 1 ? style.width - 1 : 1));
		assert_true(used >= last || used > 21);
		assert_int_equal(strncmp(line, "send: pre-copy pass 2", used < 21 ? used : 21), 0);
		last = used;
	}
}

static void test_extreme_line(void **state)
{
	static const struct move_sample most = {"0123456789012345678901234567890",
						UINT32_MAX,
						UINT64_MAX,
						UINT64_MAX,
						UINT64_MAX,
						UINT64_MAX,
						UINT64_MAX - 1,
						UINT64_MAX};
	const struct move move = {.downtime_limit_us = UINT64_MAX};
	struct move_sample steering = {.phase = "a\033[2J\n"};
	char line[VIEW_LINE_SIZE];

	(void)state;
	view_progress_line(&plain, &move, &most, line);
	assert_in_range(strlen(line), 100, VIEW_LINE_SIZE - 1);
	view_progress_line(&wide, &move, &most, line);
	view_progress_line(&plain, &sending, &steering, line);
	assert_string_equal(line, "   0.0 s  send: a?[2J?");
}

/* ---- where it goes ---- */

static struct move_view *open_view(int fd)
{
	struct move_view *view = view_create_on(fd, false);

	assert_non_null(view);
	return view;
}

static size_t read_all(int fd, char *text, size_t size)
{
	ssize_t length = read(fd, text, size - 1);

	text[length > 0 ? length : 0] = 0;
	return length > 0 ? (size_t)length : 0;
}

/* What is written to a terminal arrives in the kernel's own time: wait until so much is there. */
static void read_terminal(int fd, char *text, size_t size, size_t wanted)
{
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	size_t length = 0;

	while (length < wanted) {
		assert_int_equal(poll(&ready, 1, 30000), 1);
		length += read_all(fd, text + length, size - length);
	}
}

static void progress_at(struct move_view *view, const char *phase, uint64_t us)
{
	struct move_sample sample = under_way;

	(void)snprintf(sample.phase, sizeof(sample.phase), "%s", phase);
	sample.elapsed_us = us;
	move_view_progress(view, &sending, &sample);
}

static void test_lines(void **state)
{
	char text[8192];
	struct move_view *view;
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	view = open_view(ends[1]);
	progress_at(view, "pre-copy", 0);
	progress_at(view, "pre-copy", 4999999); /* too soon */
	progress_at(view, "pre-copy", 5000000);
	progress_at(view, "stop", 5000001); /* another phase */
	progress_at(view, "stop", 5000002);
	assert_true(read_all(ends[0], text, sizeof(text)) > 0);
	assert_null(strchr(text, '\r'));
	assert_null(strchr(text, '\033'));
	assert_int_equal(strncmp(text, "   0.0 s  send: pre-copy", 24), 0);
	assert_non_null(strstr(text, "\n   5.0 s  send: pre-copy"));
	assert_non_null(strstr(text, "\n   5.0 s  send: stop"));
	for (size_t i = 0, lines = 0; text[i]; i++) {
		lines += text[i] == '\n';
		assert_true(text[i + 1] || lines == 3);
	}
	move_view_destroy(view);
	close(ends[0]);
	close(ends[1]);
}

/* The engine's thread must never wait for somebody to read. */
static void test_full_pipe(void **state)
{
	char text[65536];
	struct move_view *view;
	int ends[2], i;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(fcntl(ends[1], F_SETPIPE_SZ, 4096), 4096);
	view = open_view(ends[1]);
	for (i = 0; i < 1000; i++)
		progress_at(view, i % 2 ? "pre-copy" : "stop", (uint64_t)i);
	assert_in_range(read_all(ends[0], text, sizeof(text)), 1, 4096);
	/* Somebody reads again. */
	progress_at(view, "load", 1000);
	assert_true(read_all(ends[0], text, sizeof(text)) > 0);
	assert_non_null(strstr(text, "load"));
	/* Nobody will read any more: no signal ends the program. */
	close(ends[0]);
	progress_at(view, "commit", 1001);
	move_view_destroy(view);
	close(ends[1]);
}

static void open_terminal(int *master, int *slave, uint16_t columns)
{
	struct winsize size = {.ws_row = 24, .ws_col = columns};
	struct termios termios;

	assert_int_equal(openpty(master, slave, NULL, NULL, &size), 0);
	assert_int_equal(tcgetattr(*slave, &termios), 0);
	cfmakeraw(&termios);
	assert_int_equal(tcsetattr(*slave, TCSANOW, &termios), 0);
	assert_int_equal(fcntl(*master, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(setenv("TERM", "xterm", 1), 0);
	assert_int_equal(unsetenv("NO_COLOR"), 0);
}

static void test_terminal(void **state)
{
	static const char twice[] = "\r\033[1msend: pre-copy pass 2\033[0m\033[K"
				    "\r\033[1msend: pre-copy pass 2\033[0m\033[K";
	char text[8192];
	struct move_view *view;
	int master, slave;

	(void)state;
	open_terminal(&master, &slave, 40);
	view = open_view(slave);
	progress_at(view, "pre-copy", 0);
	progress_at(view, "pre-copy", 99999);
	progress_at(view, "pre-copy", 100000);
	read_terminal(master, text, sizeof(text), strlen(twice));
	assert_string_equal(text, twice);
	/* Ctrl-S: what comes is left out, and nobody waits. */
	assert_int_equal(tcflow(slave, TCOOFF), 0);
	progress_at(view, "stop", 200000);
	assert_int_equal(tcflow(slave, TCOON), 0);
	assert_int_equal(read_all(master, text, sizeof(text)), 0);
	progress_at(view, "load", 300000);
	read_terminal(master, text, sizeof(text), 1);
	move_view_destroy(view);
	close(master);
	close(slave);
}

static void test_style(void **state)
{
	struct view_style style;
	int master, slave;

	(void)state;
	open_terminal(&master, &slave, 90);
	view_style_detect(&style, slave);
	assert_true(style.live && style.color);
	assert_int_equal(style.width, 90);
	assert_int_equal(setenv("NO_COLOR", "1", 1), 0);
	view_style_detect(&style, slave);
	assert_true(style.live && !style.color);
	/* https://no-color.org: empty is as not set. */
	assert_int_equal(setenv("NO_COLOR", "", 1), 0);
	view_style_detect(&style, slave);
	assert_true(style.color);
	assert_int_equal(setenv("TERM", "dumb", 1), 0);
	view_style_detect(&style, slave);
	assert_false(style.live || style.color);
	assert_int_equal(unsetenv("TERM"), 0);
	view_style_detect(&style, slave);
	assert_false(style.live);
	assert_int_equal(setenv("TERM", "xterm", 1), 0);
	assert_int_equal(setenv("LC_ALL", "C.UTF-8", 1), 0);
	view_style_detect(&style, slave);
	assert_true(style.utf8);
	assert_int_equal(setenv("LC_ALL", "C", 1), 0);
	view_style_detect(&style, slave);
	assert_false(style.utf8);
	close(master);
	close(slave);
}

static void test_quiet(void **state)
{
	struct move_view *view;
	char text[64];
	int ends[2];

	(void)state;
	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	view = view_create_on(ends[1], true);
	progress_at(view, "pre-copy", 0);
	assert_int_equal(read_all(ends[0], text, sizeof(text)), 0);
	move_view_progress(NULL, &sending, &under_way);
	move_view_destroy(view);
	move_view_destroy(NULL);
	close(ends[0]);
	close(ends[1]);
}

/* ---- the end ---- */

static struct move_device devices[] = {
	{"nic0", "vfio-user:/run/nic0", 7},
	{"größe", "vfio-user:/run/größe", 7},
};

static struct move_phase phases[] = {
	{"negotiate", -1, 1, 100, 900, 0},	    {"precopy", -1, 1, 1000, 900000, 300 << 20},
	{"precopy", 0, 1, 2000, 400000, 100 << 20}, {"pause", -1, 1, 901000, 1000, 0},
	{"quiesce", -1, 1, 902000, 2000, 0},	    {"quiesce", 0, 1, 902000, 2000, 0},
	{"quiesce", 1, 1, 902000, 1000, 0},	    {"stop", 1, 1, 904000, 3000, 0},
	{"stop-copy", 0, 1, 907000, 12000, 4096},
};

static void tell(struct move *move)
{
	*move = (struct move){
		.verb = MOVE_SEND,
		.transport = "tcp:venus:7000",
		.downtime_limit_us = 300000,
		.plan = "every device has P2P",
		.devices = devices,
		.num_devices = 2,
		.phases = phases,
		.num_phases = sizeof(phases) / sizeof(phases[0]),
		.ended = true,
		.report = {.owner = QSC_OWNER_DESTINATION,
			   .total_us = 930000,
			   .downtime_us = 20000,
			   .memory_bytes = 300 << 20,
			   .device_bytes = 100 << 20,
			   .stop_bytes = 4096,
			   .passes = 1,
			   .predicted = {{1000, 2000, 3000, 100, 9000, 2000, 400, 500}, 18000},
			   .measured = {{1000, 2100, 3000, 90, 10000, 2300, 510, 1000}, 20000},
			   .prediction_error_permille = 100,
			   .outcome = "the destination runs"},
	};
}

static char *shown(void (*show)(FILE *, const struct view_style *, const struct move *),
		   const struct view_style *style, const struct move *move)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);

	assert_non_null(out);
	show(out, style, move);
	assert_int_equal(fclose(out), 0);
	return text;
}

static void assert_shows(const char *text, const char *const wanted[])
{
	for (; *wanted; wanted++) {
		/* NOLINTNEXTLINE(clang-analyzer-core.NonNullParamChecker): fail_msg() ends it. */
		const char *found = strstr(text, *wanted);

		if (!found)
			fail_msg("'%s' is not in:\n%s", *wanted, text);
		/* In this order. */
		text = found + strlen(*wanted);
	}
}

static void test_report(void **state)
{
	static const char *const wanted[] = {
		"\nSent 2 devices to tcp:venus:7000 in 930 ms, everything was stopped for 20 ms\n",
		("  moved 300 MiB of memory and 100 MiB of device state in 1 pass at 430 MiB/s, "
		 "4.0 KiB of it in the stop\n"),
		"  set: every device has P2P\n",
		"     while all run ",
		"     precopy             900 us  900 ms  300 MiB  333 MiB/s  ",
		"     nic0 precopy 400 ms ",
		"     the stop ",
		"     pause                 0 us  1.0 ms ",
		"     nic0 quiesce 2.0, stop-copy 12.0 ms ",
		"     gr??e quiesce 1.0, stop 3.0 ms ",
		"     parts of the stop   predicted   measured\n",
		"     pause                  1.0 ms     1.0 ms\n",
		"     transfer               9.0 ms      10 ms\n",
		"     all of it               18 ms      20 ms\n",
		"     the prediction was 10.0 % too short; the limit was 300 ms\n",
		"  now: the destination runs\n",
		NULL};
	struct move move;
	char *text;

	(void)state;
	tell(&move);
	text = shown(view_report, &plain, &move);
	assert_shows(text, wanted);
	assert_null(strchr(text, '\033'));
	assert_null(strstr(text, " \n"));
	free(text);
	text = shown(view_failure, &plain, &move);
	assert_string_equal(text, "");
	free(text);
	/* Lanes are as wide in every alphabet. */
	text = shown(view_report, &wide, &move);
	assert_non_null(strstr(text, "     größe quiesce 1.0, stop 3.0 ms "));
	free(text);
	move.report.prediction_error_permille = -55;
	text = shown(view_report, &plain, &move);
	assert_non_null(strstr(text, "the prediction was 5.5 % too long"));
	free(text);
	/* What was broken off says nothing about the prediction. */
	move.report.owner = QSC_OWNER_SOURCE;
	text = shown(view_report, &plain, &move);
	assert_non_null(
		strstr(text, "     the stop was not seen to its end; the limit was 300 ms\n"));
	assert_null(strstr(text, "the prediction was"));
	free(text);
	/* Nothing was stopped, so there is nothing to be seen of it. */
	move.report.measured = (struct qsc_downtime){.total_us = 0};
	text = shown(view_report, &plain, &move);
	assert_non_null(strstr(text, "     transfer               9.0 ms          -\n"));
	assert_non_null(strstr(text, "     all of it               18 ms          -\n"));
	free(text);
}

static void test_failure(void **state)
{
	struct move move;
	char *text;

	(void)state;
	tell(&move);
	move.report.owner = QSC_OWNER_SOURCE;
	move.error_number = ETIME;
	(void)snprintf(move.error_clause, sizeof(move.error_clause), "SET-1");
	(void)snprintf(move.error_text, sizeof(move.error_text), "device 'nic0' dirties\033 fast");
	(void)snprintf(move.report.outcome, sizeof(move.report.outcome), "the source runs on");
	move.report.downtime_us = 0;
	move.report.measured = (struct qsc_downtime){.total_us = 0};
	text = shown(view_report, &plain, &move);
	assert_shows(text, (const char *const[]){"Failed to send 2 devices to tcp:venus:7000",
						 "nothing was stopped\n", "     while all run ",
						 "c stop-copy", NULL});
	assert_null(strstr(text, "     the stop "));
	assert_null(strstr(text, "  now:"));
	assert_non_null(strstr(text, "\n  moved 300 MiB "));
	free(text);
	/* Refused before anything moved. */
	move.report.memory_bytes = move.report.device_bytes = 0;
	text = shown(view_report, &plain, &move);
	assert_null(strstr(text, "\n  moved "));
	free(text);
	text = shown(view_failure, &plain, &move);
	assert_string_equal(text, "quiesce: device 'nic0' dirties? fast (clause SET-1)\n"
				  "  now: the source runs on\n");
	free(text);
	move.error_text[0] = 0;
	move.report.owner = QSC_OWNER_UNPROVED;
	text = shown(view_report, &plain, &move);
	assert_shows(text, (const char *const[]){"\nCould not prove to have sent 2 devices",
						 "everything is stopped\n", NULL});
	free(text);
	text = shown(view_failure, &plain, &move);
	assert_shows(text, (const char *const[]){"quiesce: ", strerror(ETIME), " (clause", NULL});
	free(text);
	move = (struct move){0};
	text = shown(view_failure, &plain, &move);
	assert_string_equal(text, "quiesce: it has not ended\n");
	free(text);
}

/* Whatever comes as JSON is drawn without leaving the picture. */
static void test_extreme_report(void **state)
{
	static const uint64_t most = 1ULL << 62;
	struct move_phase far[] = {
		{"pause", -1, 1, most, most, most},
		{"stop", 1, 1, most, most, most},
		{"stop-copy", 300, UINT32_MAX, 0, most, most},
		{"run", -1, 1, most - 1, 0, 0},
	};
	struct move move;
	char *text;

	(void)state;
	for (int i = 0; i < 4; i++) {
		tell(&move);
		move.phases = far;
		move.num_phases = 4;
		move.num_devices = 2;
		move.report.downtime_us = i & 1 ? most : 1;
		move.report.total_us = i & 2 ? most : 0;
		move.report.memory_bytes = most;
		text = shown(view_report, i & 1 ? &wide : &plain, &move);
		assert_non_null(strstr(text, "     the stop "));
		free(text);
	}
	move.num_phases = 0;
	text = shown(view_report, &plain, &move);
	assert_null(strstr(text, "     the stop "));
	free(text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain_line),  cmocka_unit_test(test_live_line),
		cmocka_unit_test(test_narrow_line), cmocka_unit_test(test_extreme_line),
		cmocka_unit_test(test_lines),	    cmocka_unit_test(test_full_pipe),
		cmocka_unit_test(test_terminal),    cmocka_unit_test(test_style),
		cmocka_unit_test(test_quiet),	    cmocka_unit_test(test_report),
		cmocka_unit_test(test_failure),	    cmocka_unit_test(test_extreme_report),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
